"""Preparation that was interrupted or replaces a store: old, absent or complete, and the same bytes."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from children import killed_at
from small_corpus import (
    RATE,
    contents,
    prepare_small,
)

from ttsfast.data.features.statistics import normalise
from ttsfast.data.prepare import extraction, writer
from ttsfast.data.store.folder import WORK
from ttsfast.data.store.manifest import NAME
from ttsfast.data.store.manifest_reader import read_manifest
from ttsfast.data.store.store import Store
from ttsfast.data.store.verify import verify
from ttsfast.errors import InputError

pytestmark = pytest.mark.usefixtures("small_pieces")


def prepare_it(corpus: Path, store: Path, before: Callable[[], None] | None = None, **changes: Any) -> None:
    """To be called in a child."""
    if before is not None:
        before()
    prepare_small(corpus, store, **changes)


def other_libraries() -> None:
    """Other versions of the libraries may give other bytes for the same fingerprint."""
    writer.normalise = lambda mel, mean, std: normalise(mel, mean, std) * np.float16(1.001)


def test_killed_at_every_flush_it_resumes_to_the_same_bytes(tiny: Path, tmp_path: Path) -> None:
    prepare_small(tiny, tmp_path / "whole")
    expected = contents(tmp_path / "whole")
    flush, computed = 1, []
    while killed_at(flush, prepare_it, tiny, tmp_path / "store"):
        if (tmp_path / "store" / NAME).exists():
            assert verify(tmp_path / "store").ok
        else:
            with pytest.raises(InputError, match="no complete store"):
                Store.open(tmp_path / "store")
        computed.append(prepare_small(tiny, tmp_path / "store").computed)
        assert contents(tmp_path / "store") == expected
        shutil.rmtree(tmp_path / "store")
        flush += 1
    # Every file is flushed, then its folder: two chunks, the shards, the manifest.
    assert len(expected) > 2
    assert computed == [8, 4, 4, 0] + [0] * (2 * len(expected))


def test_killed_again_and_again_each_run_gets_further(corpus: Path, tmp_path: Path) -> None:
    folder = tmp_path / "store"
    for run in range(1, 5):
        assert killed_at(3, prepare_it, corpus, folder)
        assert len(list((folder / WORK).glob("*.safetensors"))) == run
    assert prepare_small(corpus, folder).computed == 4
    prepare_small(corpus, tmp_path / "whole")
    assert contents(folder) == contents(tmp_path / "whole")


def test_replacing_a_store_leaves_the_old_or_the_new_one(tiny: Path, tmp_path: Path) -> None:
    prepare_small(tiny, tmp_path / "old", seed=2)
    prepare_small(tiny, tmp_path / "new")
    old, new = contents(tmp_path / "old"), contents(tmp_path / "new")
    flush, killed, seen = 1, True, set()
    while killed:
        folder = Path(shutil.copytree(tmp_path / "old", tmp_path / "store"))
        killed = killed_at(flush, prepare_it, tiny, folder, force=True)
        assert verify(folder).ok
        seen.add(read_manifest(folder).options["seed"])
        assert (folder / NAME).read_bytes() in (old[NAME], new[NAME])
        prepare_small(tiny, folder, force=True)
        assert contents(folder) == new
        shutil.rmtree(folder)
        flush += 1
    assert seen == {0, 2}


def test_making_a_store_anew_never_mixes_it_with_the_old(tiny: Path, tmp_path: Path) -> None:
    prepare_small(tiny, tmp_path / "old")
    flush, killed, absent = 1, True, 0
    while killed:
        folder = Path(shutil.copytree(tmp_path / "old", tmp_path / "store"))
        killed = killed_at(flush, prepare_it, tiny, folder, other_libraries, force=True)
        if (folder / NAME).exists():
            assert verify(folder).ok
        else:
            absent += 1
        shutil.rmtree(folder)
        flush += 1
    assert absent > 2


def test_work_of_another_recording_or_option_is_not_taken(corpus: Path, tmp_path: Path) -> None:
    mine = Path(shutil.copytree(corpus, tmp_path / "corpus"))
    assert killed_at(5, prepare_it, mine, tmp_path / "store")
    samples = soundfile.info(mine / "u001.wav").frames
    noise = 0.1 * np.random.default_rng(0).standard_normal(samples)
    soundfile.write(mine / "u001.wav", noise.astype(np.float32), RATE)
    # The first chunk has changed, the second has not, the third was never finished.
    assert prepare_small(mine, tmp_path / "store").computed == 16
    prepare_small(mine, tmp_path / "whole")
    assert contents(tmp_path / "store") == contents(tmp_path / "whole")
    assert killed_at(5, prepare_it, mine, tmp_path / "trimmed")
    assert prepare_small(mine, tmp_path / "trimmed", trim=True).computed == 20


def test_a_damaged_store_is_refused_and_mended_by_force(corpus: Path, tmp_path: Path) -> None:
    folder = tmp_path / "store"
    prepare_small(corpus, folder)
    expected = contents(folder)
    shard = next(iter(folder.glob("mel-*")))
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(InputError, match=rf"{shard.name}.*--force"):
        prepare_small(corpus, folder)
    prepare_small(corpus, folder, force=True)
    assert contents(folder) == expected
    (folder / NAME).write_text("{}")
    with pytest.raises(InputError, match=r"manifest\.json.*--force"):
        prepare_small(corpus, folder)
    prepare_small(corpus, folder, force=True)
    assert contents(folder) == expected


def test_leftovers_are_cleaned_away(corpus: Path, tmp_path: Path) -> None:
    folder = tmp_path / "store"
    prepare_small(corpus, folder)
    expected = contents(folder)
    (folder / "mel-0123456789ab-00007.safetensors").write_bytes(b"old")
    (folder / ".manifest.json.abc.tmp").write_bytes(b"half")
    (folder / WORK).mkdir()
    (folder / "mine.txt").write_text("a person's own file")
    assert prepare_small(corpus, folder).unchanged
    assert contents(folder) == expected | {"mine.txt": b"a person's own file"}


def test_one_preparation_at_a_time(corpus: Path, tmp_path: Path) -> None:
    folder = tmp_path / "store"
    folder.mkdir()
    descriptor = os.open(folder, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    with pytest.raises(InputError, match="another preparation"):
        prepare_small(corpus, folder)
    os.close(descriptor)
    prepare_small(corpus, folder)


def test_a_recording_that_changes_meanwhile_is_noticed(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = Path(shutil.copytree(corpus, tmp_path / "corpus"))
    compute = extraction.compute_missing

    def meddle(*arguments: Any, **more: Any) -> int:
        shutil.copy(mine / "u001.wav", mine / "u002.wav")
        return compute(*arguments, **more)

    monkeypatch.setattr(extraction, "compute_missing", meddle)
    with pytest.raises(InputError, match=r"u002\.wav: changed while it was being prepared"):
        prepare_small(mine, tmp_path / "store")
    with pytest.raises(InputError, match="no complete store"):
        Store.open(tmp_path / "store")
