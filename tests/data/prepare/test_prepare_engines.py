"""A whole preparation on a real Ray and a real Dask cluster of this machine: the bytes of the serial one."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest
from small_corpus import contents, prepare_small, write_corpus

from ttsfast.data.prepare.append import append
from ttsfast.data.prepare.prepare import CorpusFaults

pytestmark = pytest.mark.usefixtures("small_pieces")


@contextmanager
def ray_cluster() -> Iterator[None]:
    import ray

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def dask_cluster() -> Iterator[None]:
    from distributed import Client

    with Client(n_workers=2, threads_per_worker=1, dashboard_address=None, silence_logs=logging.ERROR):
        yield


CLUSTERS = {"ray": ("ray", ray_cluster), "dask": ("distributed", dask_cluster)}


@pytest.mark.timeout(240)
@pytest.mark.parametrize("engine", ["dask", pytest.param("ray", marks=pytest.mark.slow)])
def test_a_cluster_prepares_the_same_bytes_and_tells_faults(engine: str, tmp_path: Path) -> None:
    package, cluster = CLUSTERS[engine]
    if find_spec(package) is None:
        pytest.skip(f"{package} is not installed: pip install 'ttsfast[{engine}]'")
    corpus = write_corpus(tmp_path / "corpus", 12)
    prepare_small(corpus, tmp_path / "serial", engine="serial", energy=True)
    # One session for all: starting it is what takes the time.
    with cluster():
        found = prepare_small(corpus, tmp_path / "store", engine=engine, energy=True, jobs=2)
        assert (found.computed, found.unchanged) == (12, False)
        assert contents(tmp_path / "store") == contents(tmp_path / "serial")
        if engine == "dask":
            # Ray starts its workers anew for every stage, which takes long.
            write_corpus(corpus, 16)
            append(corpus, tmp_path / "store", engine=engine, jobs=2)
            append(corpus, tmp_path / "serial", engine="serial")
            assert contents(tmp_path / "store") == contents(tmp_path / "serial")
            # A fault found by a worker is told as ever.
            (corpus / "u003.wav").write_bytes(b"no wav")
            with pytest.raises(
                CorpusFaults, match=r"1 faults .1 x bad audio.*u003\.wav: cannot be read as audio"
            ):
                prepare_small(corpus, tmp_path / "other", engine=engine, jobs=2)
