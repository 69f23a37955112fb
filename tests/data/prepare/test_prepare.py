"""Preparation: the same bytes however it is run, from all that shapes them, and a report that says it."""

from __future__ import annotations

import json
import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile
from small_corpus import (
    CONTRACT,
    RATE,
    contents,
    edit,
    options,
    prepare_small,
    write_corpus,
)

from ttsfast.data.corpus.text import Symbols, TextFrontend
from ttsfast.data.features.statistics import STD_FLOOR, Moments, combine_moments
from ttsfast.data.prepare import extraction, prepare
from ttsfast.data.prepare.append import append
from ttsfast.data.prepare.like import Like
from ttsfast.data.prepare.prepare import PrepareOptions
from ttsfast.data.prepare.rebuild import rebuild
from ttsfast.data.store.manifest import NAME
from ttsfast.data.store.manifest_reader import read_manifest
from ttsfast.data.store.store import Store
from ttsfast.data.store.verify import verify
from ttsfast.errors import InputError

pytestmark = pytest.mark.usefixtures("small_pieces")

LJSPEECH = Path(__file__).resolve().parents[4] / "shared" / "data" / "ljspeech-mini"


def stamps(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}


def test_report(corpus: Path, tmp_path: Path) -> None:
    report = prepare_small(corpus, tmp_path / "store")
    store = Store.open(tmp_path / "store")
    assert (report.utterances, report.computed, report.unchanged) == (20, 20, False)
    assert (report.train, report.validation) == (
        len(store.indices("train")),
        len(store.indices("validation")),
    )
    assert report.train + report.validation == 20
    assert report.frames == store.frames.sum()
    assert report.seconds == pytest.approx(report.frames * 64 / RATE)
    assert (report.speakers, report.symbols) == (2, len(store.symbols))
    assert json.loads(json.dumps(report.to_dict()))["utterances"] == 20
    assert "20 utterances" in str(report)
    assert len(read_manifest(tmp_path / "store").shards) > 2


def test_same_input_gives_the_same_bytes_and_is_not_done_twice(corpus: Path, tmp_path: Path) -> None:
    prepare_small(corpus, tmp_path / "one")
    prepare_small(corpus, tmp_path / "two", jobs=2)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    before = stamps(tmp_path / "one")
    report = prepare_small(corpus, tmp_path / "one", layout="jsonl")
    assert report.unchanged
    assert report.computed == 0
    assert report.utterances == 20
    assert "nothing to do" in str(report)
    assert stamps(tmp_path / "one") == before


def test_worker_processes_give_the_same_bytes(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare_small(corpus, tmp_path / "serial")
    monkeypatch.setattr(extraction, "PARALLEL_FROM", 0.0)
    assert prepare_small(corpus, tmp_path / "parallel", jobs=2).computed == 20
    assert contents(tmp_path / "serial") == contents(tmp_path / "parallel")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"seed": 1}, "seed was 0, is 1"),
        ({"trim": True}, "trim was False, is True"),
        (
            {"contract": CONTRACT.preset("hifigan-22k"), "resample": True},
            "contract.fmax was 4000.0, is 8000.0",
        ),
        ({"frontend": TextFrontend("fa")}, "frontend.language was 'en', is 'fa'"),
        ({"max_duration": 9.0}, "max_duration was None, is 9.0"),
        ({"validation_fraction": 0.3}, "validation_fraction was 0.2, is 0.3"),
        ({"test_fraction": 0.3}, "test_fraction was None, is 0.3"),
    ],
)
def test_other_options_are_refused_and_named(corpus: Path, tmp_path: Path, change: dict, named: str) -> None:
    folder = tmp_path / "store"
    prepare_small(corpus, folder)
    before = contents(folder)
    with pytest.raises(InputError) as error:
        prepare_small(corpus, folder, **change)
    assert named in str(error.value)
    assert "--force" in str(error.value)
    assert contents(folder) == before


def test_every_option_shapes_the_fingerprint(corpus: Path, tmp_path: Path) -> None:
    plain = options().to_dict()
    changed = {
        "frontend": TextFrontend("fa"),
        "contract": CONTRACT.preset("librosa-22k"),
        "layout": "jsonl",
        "symbols": Symbols.of(["abc"]),
        "validation_fraction": 0.1,
        "test_fraction": 0.1,
        "seed": 1,
        "resample": True,
        "mixdown": True,
        "trim": True,
        "loudness": -23.0,
        "licence": "CC0",
        "like": Like((0.0,) * 80, (1.0,) * 80, Symbols(())),
        "max_duration": 3.0,
        "pitch": True,
        "energy": True,
    }
    assert set(changed) == set(PrepareOptions.__dataclass_fields__) - {
        "jobs",
        "engine",
        "device",
        "force",
        "exclude_bad",
        "allow_roots",
    }
    for name, value in changed.items():
        assert options(**{name: value}).to_dict() != plain, name


def test_only_large_corpora_have_a_test_split_unless_asked_for() -> None:
    assert [options().for_corpus("jsonl", count).test_fraction for count in (200, 201)] == [0.0, 0.1]
    assert options(test_fraction=0.3).for_corpus("jsonl", 8).test_fraction == 0.3
    assert options(test_fraction=0.0).for_corpus("jsonl", 9000).test_fraction == 0.0


def test_the_test_split_goes_the_whole_way(corpus: Path, tmp_path: Path) -> None:
    """Through preparation, statistics, verification, a rebuild and an append."""
    mine = Path(shutil.copytree(corpus, tmp_path / "corpus"))
    folder = tmp_path / "store"
    report = prepare_small(mine, folder, test_fraction=0.3)
    assert report.test == report.to_dict()["test"] > 1
    assert report.train + report.validation + report.test == 20
    assert prepare_small(mine, folder, test_fraction=0.3).unchanged
    # The deviations of what is learned from are those the store is normalised by.
    assert verify(folder).ok
    store = Store.open(folder)
    held = {store.entries.id[i] for i in store.indices("test")}
    assert len(held) == report.test
    trained = np.concatenate([store[int(i)].mel for i in store.indices("train")]).astype(np.float64)
    np.testing.assert_allclose(trained.mean(axis=0), 0, atol=2e-3)
    whole = (folder / NAME).read_bytes()
    (folder / NAME).unlink()
    assert rebuild(folder).test == report.test
    assert (folder / NAME).read_bytes() == whole
    again = append(write_corpus(mine, 40), folder, jobs=1)
    grown = Store.open(folder)
    tested = {grown.entries.id[i] for i in grown.indices("test")}
    assert held < tested
    assert again.test == len(tested)
    assert verify(folder).ok


def test_a_store_of_before_there_was_a_test_split_stays_without(corpus: Path, tmp_path: Path) -> None:
    mine = Path(shutil.copytree(corpus, tmp_path / "corpus"))
    folder = tmp_path / "store"
    prepare_small(mine, folder)
    assert "test_fraction" not in read_manifest(folder).options
    assert append(write_corpus(mine, 40), folder, jobs=1).test == 0


def test_a_changed_corpus_is_refused_and_described(corpus: Path, tmp_path: Path) -> None:
    mine = Path(shutil.copytree(corpus, tmp_path / "corpus"))
    folder = tmp_path / "store"
    prepare_small(mine, folder)
    shutil.copy(mine / "u003.wav", mine / "u004.wav")
    with pytest.raises(InputError, match="0 utterances are new, 0 are gone, 1 have another recording"):
        prepare_small(mine, folder)
    edit(mine, lambda entries: [entries.pop(4), entries[0].update(id="renamed")])
    with pytest.raises(InputError, match="1 utterances are new, 2 are gone, 0 have another"):
        prepare_small(mine, folder)
    shutil.rmtree(mine)
    shutil.copytree(corpus, mine)
    edit(mine, lambda entries: entries[0].update(text="another text"))
    with pytest.raises(InputError, match="texts, speakers, splits or the list of exclusions have changed"):
        prepare_small(mine, folder)
    report = prepare_small(mine, folder, force=True)
    assert not report.unchanged
    assert Store.open(folder).entries[0].text == "another text"


def test_a_corpus_that_moved_is_the_same(corpus: Path, tmp_path: Path) -> None:
    folder = tmp_path / "store"
    prepare_small(corpus, folder)
    moved = Path(shutil.copytree(corpus, tmp_path / "moved"))
    assert prepare_small(moved, folder).unchanged


def test_the_report_warns_when_nothing_is_held_out(tiny: Path, tmp_path: Path) -> None:
    report = prepare_small(tiny, tmp_path / "store")
    assert report.validation
    assert report.warnings == ()
    assert "nothing is held out" not in str(report)
    mine = Path(shutil.copytree(tiny, tmp_path / "corpus"))
    edit(mine, lambda entries: [entry.update(text="One text.") for entry in entries])
    report = prepare_small(mine, tmp_path / "one")
    assert (report.train, report.validation) == (8, 0)
    assert "warning: nothing is held out" in str(report)
    assert "--validation-fraction" in report.to_dict()["warnings"][0]


def test_a_bin_that_never_moves_gets_the_floor(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus", 8)
    for path in corpus.glob("*.wav"):
        soundfile.write(path, np.zeros(3000, np.float32), RATE)
    prepare_small(corpus, tmp_path / "store")
    store = Store.open(tmp_path / "store")
    np.testing.assert_array_equal(store.mel_std, np.full(12, np.float32(STD_FLOOR)))
    assert all((store[i].mel == 0).all() for i in range(8))
    assert verify(tmp_path / "store").ok


def test_statistics_survive_a_mean_far_from_zero() -> None:
    """Against numpy over all frames at once; a naive sum of squares in float32 would be off by far more."""
    generator = np.random.default_rng(0)
    mels = [1e4 + generator.standard_normal((n, 3)) for n in (5, 1, 77)]
    means = np.stack([mel.mean(axis=0) for mel in mels])
    squares = np.stack([((mel - mel.mean(axis=0)) ** 2).sum(axis=0) for mel in mels])
    frames = np.array([5, 1, 77])
    for chosen in ([True, True, True], [True, False, True], [False, False, True]):
        together = np.concatenate([mel for mel, use in zip(mels, chosen, strict=True) if use])
        for cuts in ([0, 3], [0, 1, 3], [0, 2, 3], [0, 1, 2, 3]):
            parts = [slice(a, b) for a, b in pairwise(cuts)]
            moments = [Moments(frames[part], means[part], squares[part]) for part in parts]
            mean, std = combine_moments(moments, np.array(chosen))
            np.testing.assert_allclose(mean, together.mean(axis=0), rtol=1e-12)
            np.testing.assert_allclose(std, together.std(axis=0), rtol=1e-9)


def test_what_no_manifest_can_say_is_refused() -> None:
    for value in (float("inf"), float("nan"), 0.0):
        with pytest.raises(InputError, match="max_duration is"):
            PrepareOptions(max_duration=value)
    for jobs in (0, -2, 100_000):
        with pytest.raises(InputError, match=r"jobs is .*, must be from 1 to 1024, or -1"):
            PrepareOptions(jobs=jobs)
        with pytest.raises(InputError, match="jobs is"):
            append("corpus", "store", jobs=jobs)


def test_bad_options() -> None:
    for changes in ({"validation_fraction": 1.0}, {"max_duration": 0.0}, {"jobs": 0}, {"jobs": -2}):
        with pytest.raises(InputError, match=next(iter(changes))):
            options(**changes)


@pytest.mark.skipif(not LJSPEECH.is_dir(), reason="the real recordings are not beside this checkout")
def test_real_speech(tmp_path: Path) -> None:
    report = prepare.prepare(LJSPEECH, tmp_path / "store", PrepareOptions(jobs=1))
    assert report.utterances > 20
    assert verify(tmp_path / "store").ok
    store, fresh = (Store.open(tmp_path / "store", features=f) for f in ("stored", "on_the_fly"))
    assert store[3].mel.tobytes() == fresh[3].mel.tobytes()
