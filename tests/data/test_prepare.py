"""Preparation: complete or absent, the same bytes however often it was killed, nothing dropped in silence."""

from __future__ import annotations

import fcntl
import json
import multiprocessing
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from small_corpus import CONTRACT, RATE, contents, options, prepare_small, write_corpus

from ttsfast.data import features, prepare, writer
from ttsfast.data.folder import WORK
from ttsfast.data.manifest import NAME, read_manifest
from ttsfast.data.prepare import CorpusFaults, PrepareOptions
from ttsfast.data.store import STD_FLOOR, Store, normalise
from ttsfast.data.text import Symbols, TextFrontend
from ttsfast.data.verify import verify
from ttsfast.errors import InputError

CHUNK, SHARD_FRAMES = 4, 200
LJSPEECH = Path(__file__).resolve().parents[3] / "shared" / "data" / "ljspeech-mini"


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several chunks and shards from twenty utterances."""
    monkeypatch.setattr(features, "CHUNK", CHUNK)
    monkeypatch.setattr(writer, "SHARD_FRAMES", SHARD_FRAMES)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("tiny"), 8)


def edit(corpus: Path, change: Callable[[list[dict]], object]) -> None:
    listing = corpus / "metadata.jsonl"
    entries = [json.loads(line) for line in listing.read_text().splitlines()]
    change(entries)
    listing.write_text("\n".join(json.dumps(entry) for entry in entries))


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
    monkeypatch.setattr(features, "PARALLEL_FROM", 0.0)
    assert prepare_small(corpus, tmp_path / "parallel", jobs=2).computed == 20
    assert contents(tmp_path / "serial") == contents(tmp_path / "parallel")


def killed_at(
    flush: int, corpus: Path, store: Path, before: Callable[[], None] | None = None, **changes: object
) -> bool:
    """Prepare in a child that kills itself at its n-th flush to disk; False when it ended before.

    The child comes from a server without threads: one forked from here could wait for ever for a lock that
    another thread of this process held at that moment.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    child = context.Process(target=prepare_and_die, args=(flush, corpus, store, before, changes))
    child.start()
    child.join()
    assert child.exitcode in (0, -signal.SIGKILL)
    return child.exitcode != 0


def prepare_and_die(
    flush: int, corpus: Path, store: Path, before: Callable[[], None] | None, changes: dict[str, Any]
) -> None:
    features.CHUNK, writer.SHARD_FRAMES = CHUNK, SHARD_FRAMES
    if before is not None:
        before()
    flush_to_disk, count = os.fsync, 0

    def fsync(descriptor: int) -> None:
        nonlocal count
        count += 1
        if count == flush:
            os.kill(os.getpid(), signal.SIGKILL)
        flush_to_disk(descriptor)

    os.fsync = fsync
    prepare_small(corpus, store, **changes)


def other_libraries() -> None:
    """Other versions of the libraries may give other bytes for the same fingerprint."""
    writer.normalise = lambda mel, mean, std: normalise(mel, mean, std) * np.float16(1.001)


def test_killed_at_every_flush_it_resumes_to_the_same_bytes(tiny: Path, tmp_path: Path) -> None:
    prepare_small(tiny, tmp_path / "whole")
    expected = contents(tmp_path / "whole")
    flush, computed = 1, []
    while killed_at(flush, tiny, tmp_path / "store"):
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
        assert killed_at(3, corpus, folder)
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
        killed = killed_at(flush, tiny, folder, force=True)
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
        killed = killed_at(flush, tiny, folder, other_libraries, force=True)
        if (folder / NAME).exists():
            assert verify(folder).ok
        else:
            absent += 1
        shutil.rmtree(folder)
        flush += 1
    assert absent > 2


def test_work_of_another_recording_or_option_is_not_taken(corpus: Path, tmp_path: Path) -> None:
    mine = Path(shutil.copytree(corpus, tmp_path / "corpus"))
    assert killed_at(5, mine, tmp_path / "store")
    samples = soundfile.info(mine / "u001.wav").frames
    noise = 0.1 * np.random.default_rng(0).standard_normal(samples)
    soundfile.write(mine / "u001.wav", noise.astype(np.float32), RATE)
    # The first chunk has changed, the second has not, the third was never finished.
    assert prepare_small(mine, tmp_path / "store").computed == 16
    prepare_small(mine, tmp_path / "whole")
    assert contents(tmp_path / "store") == contents(tmp_path / "whole")
    assert killed_at(5, mine, tmp_path / "trimmed")
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
    plain = options().shaping()
    changed = {
        "frontend": TextFrontend("fa"),
        "contract": CONTRACT.preset("librosa-22k"),
        "layout": "jsonl",
        "symbols": Symbols.of(["abc"]),
        "validation_fraction": 0.1,
        "seed": 1,
        "resample": True,
        "mixdown": True,
        "trim": True,
        "max_duration": 3.0,
    }
    assert set(changed) == set(PrepareOptions.__dataclass_fields__) - {"jobs", "force", "exclude_bad"}
    for name, value in changed.items():
        assert options(**{name: value}).shaping() != plain, name


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


def spoil(corpus: Path) -> list[str]:
    """One fault of each kind; returns the ids."""
    soundfile.write(corpus / "u000.wav", np.zeros(4000, np.float32), 16000)
    soundfile.write(corpus / "u001.wav", np.zeros((4000, 2), np.float32), RATE)
    soundfile.write(corpus / "u002.wav", np.full(4000, np.nan, np.float32), RATE, subtype="FLOAT")
    soundfile.write(corpus / "u003.wav", np.zeros(0, np.float32), RATE)
    (corpus / "u004.wav").write_bytes(b"no wav at all")
    (corpus / "u005.wav").unlink()
    edit(corpus, lambda entries: entries[6].update(text=" \u200b "))
    edit(corpus, lambda entries: entries[7].update(id="u008"))
    edit(corpus, lambda entries: entries[9].update(audio="../u009.wav"))
    edit(corpus, lambda entries: entries[10].update(text=""))
    return ["u000", "u001", "u002", "u003", "u004", "u005", "u006", "u008", "u009", "u010"]


def test_faults_are_listed_together_and_nothing_is_written(corpus: Path, tmp_path: Path) -> None:
    mine = Path(shutil.copytree(corpus, tmp_path / "corpus"))
    names = spoil(mine)
    with pytest.raises(CorpusFaults) as error:
        prepare_small(mine, tmp_path / "store")
    assert not (tmp_path / "store").exists()
    assert sorted(fault.id for fault in error.value.faults) == names
    assert all(fault.detail and "\n" not in fault.detail for fault in error.value.faults)
    message = str(error.value)
    assert "10 faults (5 x bad audio" in message
    assert "--exclude-bad" in message
    assert "\n" not in message


def test_faulty_utterances_can_be_left_out_and_are_recorded(corpus: Path, tmp_path: Path) -> None:
    mine = Path(shutil.copytree(corpus, tmp_path / "corpus"))
    names = spoil(mine)
    report = prepare_small(mine, tmp_path / "store", exclude_bad=True, max_duration=0.4)
    store = Store.open(tmp_path / "store")
    long = [e.id for e in store.manifest.exclusions if e.reason == "too long"]
    assert len(long) >= 2
    assert sorted(e.id for e in store.manifest.exclusions) == sorted([*names, *long])
    assert report.exclusions == store.manifest.exclusions
    assert sum(report.exclusion_counts.values()) == len(names) + len(long)
    # Utterance 7 has taken the id of utterance 8, and came first.
    kept = {e.id for e in store.entries}
    assert kept == {f"u{n:03d}" for n in range(20)} - set(names) - set(long) - {"u007"} | {"u008"}
    assert (store.frames <= 1 + 0.4 * RATE / 64).all()
    assert prepare_small(mine, tmp_path / "store", exclude_bad=True, max_duration=0.4).unchanged
    assert verify(tmp_path / "store").ok
    assert "too long" in str(report)


def test_short_recordings_are_a_fault_that_names_the_file(corpus: Path, tmp_path: Path) -> None:
    mine = Path(shutil.copytree(corpus, tmp_path / "corpus"))
    soundfile.write(mine / "u000.wav", np.full(20, 0.1, np.float32), RATE)
    reflect = type(CONTRACT)(**(CONTRACT.to_dict() | {"padding": "hifigan"}))
    with pytest.raises(CorpusFaults, match=r"u000\.wav: the recording has 20 samples"):
        prepare_small(mine, tmp_path / "store", contract=reflect)


@pytest.mark.parametrize("samples", [1, 5, CONTRACT.win_length - 1])
@pytest.mark.parametrize("padding", ["center_zero", "center_reflect", "hifigan"])
def test_less_than_a_window_is_too_short_in_every_contract(
    tiny: Path, tmp_path: Path, samples: int, padding: str
) -> None:
    mine = Path(shutil.copytree(tiny, tmp_path / "corpus"))
    contract = type(CONTRACT)(**(CONTRACT.to_dict() | {"padding": padding}))
    soundfile.write(mine / "u000.wav", np.full(samples, 0.1, np.float32), RATE)
    soundfile.write(mine / "u001.wav", np.full(CONTRACT.win_length, 0.1, np.float32), RATE)
    report = prepare_small(mine, tmp_path / "store", contract=contract, exclude_bad=True)
    assert [(e.id, e.reason) for e in report.exclusions] == [("u000", "too short")]
    assert "u000.wav" in report.exclusions[0].detail


@pytest.mark.parametrize("scale", [1e12, 1e30])
def test_an_absurd_amplitude_is_a_fault_and_not_a_statistic(tiny: Path, tmp_path: Path, scale: float) -> None:
    mine = Path(shutil.copytree(tiny, tmp_path / "corpus"))
    wave, rate = soundfile.read(mine / "u002.wav")
    soundfile.write(mine / "u002.wav", wave * scale, rate, subtype="FLOAT")
    with pytest.raises(CorpusFaults, match=r"1 x bad audio.*u002\.wav: its samples reach"):
        prepare_small(mine, tmp_path / "store")
    report = prepare_small(mine, tmp_path / "store", exclude_bad=True)
    assert [e.id for e in report.exclusions] == ["u002"]
    assert np.abs(Store.open(tmp_path / "store").mel_mean).max() < 20


def test_lines_that_are_not_utf8_are_listed_together_and_can_be_left_out(tiny: Path, tmp_path: Path) -> None:
    mine = Path(shutil.copytree(tiny, tmp_path / "corpus"))
    lines = (mine / "metadata.jsonl").read_bytes().splitlines()
    for number in (2, 4):
        lines[number - 1] = lines[number - 1].replace(b'."', b' \xfc."')
    (mine / "metadata.jsonl").write_bytes(b"\n".join(lines))
    with pytest.raises(CorpusFaults, match="2 x not UTF-8") as error:
        prepare_small(mine, tmp_path / "store")
    assert [fault.id for fault in error.value.faults] == ["metadata.jsonl:2", "metadata.jsonl:4"]
    assert prepare_small(mine, tmp_path / "store", exclude_bad=True).utterances == 6


def test_the_report_warns_when_nothing_is_held_out(tiny: Path, tmp_path: Path) -> None:
    report = prepare_small(tiny, tmp_path / "store")
    assert report.validation
    assert report.warnings == ()
    assert "warning" not in str(report)
    mine = Path(shutil.copytree(tiny, tmp_path / "corpus"))
    edit(mine, lambda entries: [entry.update(text="One text.") for entry in entries])
    report = prepare_small(mine, tmp_path / "one")
    assert (report.train, report.validation) == (8, 0)
    assert "warning: nothing is held out" in str(report)
    assert "--validation-fraction" in report.to_dict()["warnings"][0]


def test_nothing_left(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="none of 20 utterances is left"):
        prepare_small(corpus, tmp_path / "store", max_duration=0.001)
    assert not (tmp_path / "store").exists()


def test_a_given_character_set_is_held_to(corpus: Path, tmp_path: Path) -> None:
    letters = Symbols.of(["abcdefghijklmnopqrstuvwxyz ."])
    prepare_small(corpus, tmp_path / "wide", symbols=letters)
    assert Store.open(tmp_path / "wide").symbols == letters
    assert prepare_small(corpus, tmp_path / "wide", symbols=letters).unchanged
    with pytest.raises(CorpusFaults, match=r"20 x unknown symbol.*'\.' \(U\+002E FULL STOP\) at character"):
        prepare_small(corpus, tmp_path / "store", symbols=Symbols.of(["abcdefghijklmnopqrstuvwxyz "]))


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
    moments = features.Moments(np.array([5, 1, 77]), means, squares)
    for chosen in ([True, True, True], [True, False, True]):
        together = np.concatenate([mel for mel, use in zip(mels, chosen, strict=True) if use])
        mean, std = features.combine(moments, np.array(chosen))
        np.testing.assert_allclose(mean, together.mean(axis=0), rtol=1e-12)
        np.testing.assert_allclose(std, together.std(axis=0), rtol=1e-9)


def test_writes_only_into_a_folder_of_its_own(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds other files \(metadata.jsonl\)"):
        prepare_small(corpus, corpus)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file"):
        prepare_small(corpus, tmp_path / "file")
    prepare_small(corpus, tmp_path / "deep" / "in" / "folders")
    assert Store.open(tmp_path / "deep" / "in" / "folders")


@pytest.mark.parametrize("output", ["metadata.jsonl", "metadata.jsonl/x", "metadata.jsonl/x/y"])
def test_an_output_at_or_below_a_file_is_refused_before_any_work(
    corpus: Path, monkeypatch: pytest.MonkeyPatch, output: str
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("the corpus was looked at")

    monkeypatch.setattr(prepare, "read_corpus", never)
    with pytest.raises(
        InputError, match=r"metadata\.jsonl is a file; |metadata\.jsonl: is a file; "
    ) as error:
        prepare_small(corpus, corpus / output)
    assert str(error.value).startswith(f"{corpus / output}: ")
    assert "another folder" in str(error.value) or "give a folder" in str(error.value)


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
    compute = features.compute_missing

    def meddle(*arguments: object) -> int:
        shutil.copy(mine / "u001.wav", mine / "u002.wav")
        return compute(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(features, "compute_missing", meddle)
    with pytest.raises(InputError, match=r"u002\.wav: changed while it was being prepared"):
        prepare_small(mine, tmp_path / "store")
    with pytest.raises(InputError, match="no complete store"):
        Store.open(tmp_path / "store")


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
