"""A faulty corpus: everything is listed together, nothing is dropped in silence, nothing is written."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
from small_corpus import (
    CONTRACT,
    RATE,
    edit,
    prepare_small,
)

from ttsfast.data.corpus.text import Symbols
from ttsfast.data.prepare import prepare
from ttsfast.data.prepare.survey import CorpusFaults
from ttsfast.data.store.folder import explained_disk_errors
from ttsfast.data.store.store import Store
from ttsfast.data.store.verify import verify
from ttsfast.errors import InputError

pytestmark = pytest.mark.usefixtures("small_pieces")


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


def test_writes_only_into_a_folder_of_its_own(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds other files \(metadata.jsonl\)"):
        prepare_small(corpus, corpus)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file"):
        prepare_small(corpus, tmp_path / "file")
    prepare_small(corpus, tmp_path / "deep" / "in" / "folders")
    assert Store.open(tmp_path / "deep" / "in" / "folders")


@pytest.mark.parametrize("output", ["dangling", "loop", "dangling/x", "a" * 300, "/proc/x", "/sys/x"])
def test_an_output_that_cannot_be_made_is_refused_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, output: str
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("the corpus was looked at")

    (tmp_path / "dangling").symlink_to(tmp_path / "nothing")
    (tmp_path / "loop").symlink_to("loop")
    monkeypatch.setattr(prepare, "read_corpus", never)
    with pytest.raises(InputError, match=r"give another folder|give a folder") as error:
        prepare_small(tmp_path, tmp_path / output)
    assert str(error.value).startswith(f"{tmp_path / output}: cannot be ")
    assert "\n" not in str(error.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dangling", "loop"]


def test_a_folder_that_is_removed_meanwhile_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="was removed meanwhile"), explained_disk_errors(tmp_path / "gone"):
        (tmp_path / "gone" / "file").write_bytes(b"")
    # Another file that is missing is no fault of the folder.
    with pytest.raises(FileNotFoundError), explained_disk_errors(tmp_path):
        (tmp_path / "file").read_bytes()


def test_a_corpus_whose_name_is_not_utf8_is_refused(tiny: Path, tmp_path: Path) -> None:
    mine = Path(shutil.copytree(tiny, tmp_path / os.fsdecode(b"caf\xe9")))
    with pytest.raises(InputError, match=r"caf\\udce9: its name is not UTF-8; rename it"):
        prepare_small(mine, tmp_path / "store")
    assert not (tmp_path / "store").exists()
    # A link with another name will do, and so will a store with such a name.
    (tmp_path / "corpus").symlink_to(mine)
    assert prepare_small(tmp_path / "corpus", tmp_path / os.fsdecode(b"st\xe9")).utterances == 8
    (mine / "metadata.jsonl").rename(mine / os.fsdecode(b"l\xe9.jsonl"))
    with pytest.raises(InputError, match=r"l\\udce9\.jsonl: its name is not UTF-8"):
        prepare_small(tmp_path / "corpus", tmp_path / "store")


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
