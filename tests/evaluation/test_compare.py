"""A comparison: what differs between runs, beside one another, in a page that stands alone."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote

import pytest

from ttsfast.errors import InputError
from ttsfast.evaluation.compare import FILES, compare
from ttsfast.evaluation.report import SAMPLES, SYNTHESISED, write_samples
from ttsfast.evaluation.report_page import SampleView, Sound
from ttsfast.models.checkpoint import FORMAT, checkpoint_folder, seal_of
from ttsfast.pages.document import Picture

HOSTILE = "<script>alert(1)</script>\"'&<b>"


METRICS = {
    "mel_l1": 0.5,
    "coverage": None,
    "verdict": "pass",
    "intervals": {"mel_l1": [0.4, 0.6]},
    "utterances": 2,
    "split": "test",
    "by_utterance": {"one": {}, "two": {}},
}


def make_run(folder: Path, metrics: dict[str, object] | None = None, **model: object) -> Path:
    """As training and, with ``metrics``, an evaluation leave it, as far as a comparison looks."""
    checkpoint = checkpoint_folder(folder, 20)
    checkpoint.mkdir(parents=True)
    state = {"format": FORMAT, "step": 20, "config": {"model": {"size": "nano", **model}}}
    (checkpoint / "state.json").write_text(json.dumps(state | {"seal": seal_of(state)}))
    rows = [
        {"kind": "train", "step": 10, "mel": 0.9},
        {"kind": "validation", "step": 20, "mel_l1": 0.5},
        {"kind": "train", "step": 30, "mel": 0.8},
    ]
    (folder / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    if metrics is not None:
        (folder / "metrics.json").write_text(json.dumps(metrics))
        (folder / SAMPLES).parent.mkdir()
        names = {SYNTHESISED: "spoken.wav", "original": "original.wav"}
        sounds = [Sound(f"report_files/{file}", name) for name, file in names.items()]
        picture = Picture("report_files/mel.svg", 4, 3, "a mel", "mel")
        for file in (*(sound.file for sound in sounds), picture.source):
            (folder / file).touch()
        view = SampleView("one", HOSTILE, "en", "həʊ", ["2 s spoken"], sounds, [picture], [picture])
        write_samples(folder, [view, replace(view, id=str(folder))])
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two that were evaluated, of one name, and one that was not."""
    folder = tmp_path_factory.mktemp("runs")
    return [
        make_run(folder / "a" / "voice", METRICS, dropout=0.2),
        make_run(folder / "b" / "voice", METRICS, dropout=0.0, note=HOSTILE, store=str(folder / "store")),
        make_run(folder / "early", dropout=0.0),
    ]


def test_runs_stand_beside_one_another(runs: list[Path], tmp_path: Path) -> None:
    found = compare(runs, tmp_path / "page")
    assert [run.name for run in found.runs] == ["a/voice", "b/voice", "early"]
    assert found.settings == {
        "model.dropout": ["0.2", "0.0", "0.0"],
        "model.note": ["–", HOSTILE, "–"],
        # Only where it lies is told of nobody.
        "model.store": ["–", "store", "–"],
    }
    text = found.page.read_text(encoding="utf-8")
    assert "<script" not in text
    assert str(tmp_path) not in text
    assert str(runs[0].parent.parent) not in text
    assert "early was not evaluated" in text
    assert "do not compare" not in text
    assert text.count('<strong>0.500</strong><br><span class="soft">0.400 to 0.600</span>') == 2
    # What could not be measured in any run has no row.
    assert "text read</bdi>" not in text
    # One recording, and what each voice makes of the text.
    assert text.count("<audio") == 1 + 2
    assert text.count("<h4>") == 2
    files = {unquote(f) for f in re.findall(r'(?:src|href)="([^"]+)"', text)}
    written = {str(p.relative_to(found.page.parent)) for p in found.page.parent.rglob("*") if p.is_file()}
    assert written == files | {"compare.html"}
    plain = json.loads(json.dumps(found.to_dict()))
    assert [run["step"] for run in plain["runs"]] == [20, 20, 20]


def test_curves_have_a_line_for_each_run(runs: list[Path], tmp_path: Path) -> None:
    page = compare(runs[:2], tmp_path).page.read_text(encoding="utf-8")
    captions = re.findall("<figcaption>(.*?)</figcaption>", page)
    # Of the samples, two; and the one that training and held-out speech share.
    assert captions == ["mel", "mel", "mel"]
    drawn = (tmp_path / FILES / "curves" / "00.svg").read_text(encoding="utf-8")
    for colour in ("#0072b2", "#d55e00"):
        assert re.search(f"fill: none; stroke: {colour}", drawn)


def test_other_utterances_are_not_compared_in_silence(runs: list[Path], tmp_path: Path) -> None:
    other = make_run(tmp_path / "other", METRICS | {"by_utterance": {"two": {}}})
    (other / SAMPLES).unlink()
    page = compare([runs[0], other], tmp_path / "page").page.read_text(encoding="utf-8")
    assert "not measured on the same utterances" in page
    assert "No utterance is in the reports of two of these runs" in page


def test_a_second_comparison_leaves_nothing_of_the_first(runs: list[Path], tmp_path: Path) -> None:
    compare(runs[:2], tmp_path)
    compare(runs[1:], tmp_path)
    assert not (tmp_path / FILES / "sample-01").exists()


def test_what_cannot_be_compared_is_one_line(runs: list[Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="two to 7 runs, not 1"):
        compare(runs[:1], tmp_path / "page")
    with pytest.raises(InputError, match="named twice"):
        compare([runs[0], runs[0] / "checkpoints" / "step-00000020"], tmp_path / "page")
    with pytest.raises(InputError, match="no checkpoint there"):
        compare([runs[0], tmp_path], tmp_path / "page")
    other = make_run(tmp_path / "other", None)
    (other / "metrics.json").write_text("[")
    with pytest.raises(InputError, match="run `ttsfast evaluate` again"):
        compare([runs[0], other], tmp_path / "page")
    assert not (tmp_path / "page").exists()
    (other / "metrics.json").unlink()
    (other / SAMPLES).parent.mkdir()
    for file, said in (("report_files/gone.wav", "is gone"), ("../secret.wav", "leaves")):
        rows = json.loads((runs[0] / SAMPLES).read_text(encoding="utf-8"))
        rows[0]["sounds"][0]["file"] = file
        (other / SAMPLES).write_text(json.dumps(rows))
        with pytest.raises(InputError, match=said):
            compare([runs[0], other], tmp_path / "page")
    (other / SAMPLES).write_text("[{}]")
    with pytest.raises(InputError, match="run `ttsfast evaluate` again"):
        compare([runs[0], other], tmp_path / "page")
