"""The report: complete, self-contained, safe against what corpora may hold."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from ttsfast.evaluation.figures import Figures
from ttsfast.evaluation.report import read_samples, without_folders, write_report
from ttsfast.evaluation.result import Evaluation

HOSTILE = "<script>alert(1)</script>\"'&<b>"
VOID = {"meta", "img", "br", "hr", "link", "input"}
LOG = [
    {
        "kind": "train",
        "step": 10,
        "mel": 0.9,
        "weight_mel": 22.0,
        "learning_rate": 1e-4,
        "frames_per_second": 9e3,
    },
    {"kind": "validation", "step": 20, "mel_l1": 0.5, "coverage": 0.9},
    {"kind": "train", "step": 20, "mel": math.nan, "weight_mel": 21.0, "learning_rate": 1e-3},
]


class Page(HTMLParser):
    """Elements with their attributes, texts, and whether every element is closed in its place."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not {"style", "script"} & set(self.open) and data.strip():
            self.texts.append(data.strip())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def write(folder: Path, evaluation: Evaluation, **options: Any) -> tuple[Page, str]:
    folder.mkdir(exist_ok=True)
    evaluation.save(folder / "metrics.json")
    path = write_report(folder, evaluation, **({"title": "A voice"} | options))
    assert path == folder / "report.html"
    text = path.read_text(encoding="utf-8")
    return Page(text), text


@pytest.fixture(scope="module")
def full(evaluation: Evaluation, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Page, str]:
    folder = tmp_path_factory.mktemp("run")
    config = {"model": {"size": "nano"}, "training": {"use_huber_loss": True}}
    return folder, *write(folder, evaluation, log=LOG, config=config, environment={"torch": "2.13.0"})


@pytest.fixture
def bare(evaluation: Evaluation) -> Evaluation:
    return replace(evaluation, samples=[], worst=[])


@pytest.fixture
def single(evaluation: Evaluation) -> Evaluation:
    return replace(evaluation, samples=evaluation.samples[:1], worst=[])


def test_everything_it_refers_to_is_beside_it(full: tuple[Path, Page, str]) -> None:
    folder, page, text = full
    references = [a.get("src") or a.get("href") for a in (e for _, e in page.elements)]
    files = [unquote(r) for r in references if r]
    assert len(files) > 10
    for file in files:
        assert not Path(file).is_absolute()
        assert ".." not in file
        assert (folder / file).stat().st_size > 100
    for outside in ("http:", "https:", "//", "@import", "url("):
        assert outside not in text, outside
    written = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
    assert written == {*files, "report.html", "metrics.json", "report_files/samples.json"}


def test_what_it_shows(full: tuple[Path, Page, str], evaluation: Evaluation) -> None:
    _, page, _ = full
    for wanted in (
        "A voice",
        "The worst 1 of the others",
        "nano",
        "use_huber_loss",
        "true",
        "torch",
        "2.13.0",
    ):
        assert wanted in page.texts, wanted
    shown = evaluation.samples + evaluation.worst
    for sample in shown:
        assert sample.id in page.texts
        assert sample.text in page.texts
    assert len(page.all("audio")) == 3 * len(shown)
    # Loss and held-out L1 share one; text read, weight, rate, speed; three for each sample.
    assert len(page.all("img")) == 5 + 3 * len(shown)
    assert "26 versions and facts" not in page.texts
    assert page.texts.index("1 versions and facts") > page.texts.index("Machine")


def test_every_table_keeps_to_its_box(full: tuple[Path, Page, str]) -> None:
    """Either it scrolls in a box that says so, or it is one that falls apart into cards."""
    _, _, text = full
    tables = re.findall(r'(<div class="scroll [^>]*>)?<table(?: class="([^"]*)")?>', text)
    assert len(tables) >= 4
    for box, kind in tables:
        assert kind in ("pairs", "cards") or 'tabindex="0" role="region" aria-label=' in box
    assert text.count('<p class="hint">') == sum(bool(box) for box, _ in tables)


def test_the_sentence_stands_over_its_phonemes(single: Evaluation, tmp_path: Path) -> None:
    (sample,) = single.samples
    spelt = replace(single, phonemes=True, written={sample.id: "A sentence, as written."})
    page, _ = write(tmp_path / "one", spelt)
    # On its sample and in its row.
    assert page.texts.count("A sentence, as written.") == 2
    (text, spelling) = (next(a for a in page.all("p") if a.get("class") == c) for c in ("text", "spelt"))
    assert (text["lang"], spelling["lang"]) == ("en", "en-fonipa")
    assert page.texts.count(sample.text) == 1
    missing = [text for text in page.texts if "--corpus" in text]
    # The others' sentences are not known, and both places say so.
    assert len(missing) == 2
    (kept,) = read_samples(tmp_path / "one")
    assert (kept.text, kept.spelt) == ("A sentence, as written.", sample.text)
    for row in single.measured:
        spelt.written.setdefault(row.id, "Another.")
    page, _ = write(tmp_path / "all", spelt)
    assert not [text for text in page.texts if "--corpus" in text]


def judged(evaluation: Evaluation, **changes: float) -> Evaluation:
    """With as many utterances, all alike, as it takes to judge."""
    good = {"mel_l1": 0.3, "coverage": 1.0, "heard": 0.9, "duration_error": 0.02, "right_length": 1.0}
    figures, mean, untrained = Figures(), Figures(), Figures()
    rows = [replace(evaluation.measured[0], id=f"utt{number}") for number in range(40)]
    for row in rows:
        mean.add("mel_l1", row.id, 0.8)
        untrained.add("diagonal_mass", row.id, 0.95)
        for name, value in ({"diagonal_mass": 0.97} | good | changes).items():
            figures.add(name, row.id, value)
    beside = {"untrained": untrained, "predict_mean": mean}
    return replace(evaluation, figures=figures, baselines=beside, measured=rows)


def test_a_pass_says_what_did_not_count(bare: Evaluation, tmp_path: Path) -> None:
    page, _ = write(tmp_path, judged(bare))
    assert "All 5 targets that count are met" in page.texts
    reason = "diagonal mass counts for nothing: the same model untrained reaches 0.950"
    assert reason in page.texts
    assert page.texts.count("pass") == 2 * 5
    assert page.texts.count("counts for nothing") == 2


def test_a_threshold_is_named_where_a_stop_fires_at_it(bare: Evaluation, tmp_path: Path) -> None:
    for stops, said in (({"stop_rate": 1.0}, True), ({}, False)):
        _, text = write(tmp_path, judged(bare, **stops))
        assert ("; stop threshold" in text) == said


def test_missed_targets_come_first(bare: Evaluation, tmp_path: Path) -> None:
    page, _ = write(tmp_path, judged(bare, coverage=0.5, right_length=0.0))
    verdict = page.texts.index("2 of 6 targets missed")
    assert verdict < 6
    assert page.texts[verdict + 2 : verdict + 4] == [
        "text read is 0.500, wanted ≥ 0.98",
        "right length is 0.000, wanted ≥ 0.90",
    ]
    # On its tile and in its row.
    assert page.texts.count("missed") == 2 * 2


def test_too_few_utterances_are_no_verdict(bare: Evaluation, tmp_path: Path) -> None:
    page, _ = write(tmp_path, bare)
    assert "Too few utterances to tell" in page.texts
    assert "text read too few to tell: 4 utterances, wanted ≥ 0.98" in page.texts
    assert "pass" not in page.texts


def test_every_utterance_is_in_the_table_the_worst_first(bare: Evaluation, tmp_path: Path) -> None:
    _, text = write(tmp_path, bare)
    distortions = {row.id: bare.figures.of(row.id)["mcd_dtw"] for row in bare.measured}
    rows = re.findall(r'<tr><th scope="row"><bdi>(utt\d+)</bdi></th>', text)
    assert rows == sorted(distortions, key=lambda name: -distortions[name])
    assert text.count("<script>") == 1
    row = bare.measured[0]
    seconds = row.recorded_frames * bare.contract.hop_length / bare.contract.sample_rate
    assert f'<td class="number" data-value="{seconds:g}">{seconds:.2f}</td>' in text
    assert f'data-value="{distortions[row.id]:g}">{distortions[row.id]:.3f}</td>' in text
    # No speakers to tell apart: no column and no table of them.
    assert "speakers" not in text


def test_speakers_have_a_table(bare: Evaluation, tmp_path: Path) -> None:
    names = ["anna", HOSTILE]
    rows = [replace(row, speaker=names[place % 2]) for place, row in enumerate(bare.measured)]
    page, text = write(tmp_path, replace(bare, measured=rows))
    table = text.split('<table class="sortable speakers">')[1].split("</table>")[0]
    assert table.count("<tr>") == 1 + 2
    assert page.texts.count(HOSTILE) == 1 + 2
    own = bare.figures.part({row.id for row in rows if row.speaker == "anna"})
    assert f"{own['mcd_dtw']:.3f}" in table


def test_texts_from_outside_are_escaped(single: Evaluation, tmp_path: Path) -> None:
    (sample,) = single.samples
    tame = replace(single, samples=[replace(sample, speaker="anna")])
    plain, _ = write(tmp_path / "plain", tame, config={"a": {"b": 1}}, environment={"c": 1})
    symbols = [HOSTILE] * len(sample.symbols)
    sample = replace(sample, id=HOSTILE, text=HOSTILE, speaker=HOSTILE, symbols=symbols)
    row = replace(single.measured[0], text=HOSTILE)
    hostile, text = write(
        tmp_path / "hostile",
        replace(single, language=HOSTILE, samples=[sample], measured=[row, *single.measured[1:]]),
        title=HOSTILE,
        config={HOSTILE: {HOSTILE: HOSTILE}},
        environment={HOSTILE: HOSTILE},
    )
    assert text.count("<script") == 1
    # The same page, element by element and attribute by attribute.
    shapes = [[(tag, sorted(attributes)) for tag, attributes in p.elements] for p in (plain, hostile)]
    assert shapes[0] == shapes[1]
    assert hostile.texts.count(HOSTILE) == 10


def test_file_names_do_not_come_from_ids(single: Evaluation, tmp_path: Path) -> None:
    sample = replace(single.samples[0], id="../../escape/\u0633 %41")
    write(tmp_path / "run", replace(single, samples=[sample]))
    assert [p.name for p in tmp_path.iterdir()] == ["run"]
    assert (tmp_path / "run" / "report_files" / "sample-01" / "synthesised.wav").is_file()


def test_persian_texts_find_their_own_direction(single: Evaluation, tmp_path: Path) -> None:
    text = "سلام، حال شما چطور است؟"
    sample = replace(single.samples[0], text=text)
    page, _ = write(tmp_path, replace(single, language="fa", samples=[sample]), title="صدا")
    paragraph = next(a for a in page.all("p") if a.get("class") == "text")
    assert paragraph["dir"] == "auto"
    assert paragraph["lang"] == "fa"
    assert text in page.texts
    assert "صدا" in page.texts


def test_a_second_report_leaves_nothing_of_the_first(bare: Evaluation, tmp_path: Path) -> None:
    write(tmp_path, bare, log=LOG[:1])
    assert (tmp_path / "report_files").is_dir()
    write(tmp_path, bare)
    assert not (tmp_path / "report_files").exists()


def test_accessible_names(full: tuple[Path, Page, str]) -> None:
    _, page, _ = full
    assert all(a["alt"] for a in page.all("img"))
    assert all(a["aria-label"] for a in page.all("audio"))
    levels = [int(tag[1]) for tag, _ in page.elements if tag in ("h1", "h2", "h3")]
    assert levels.count(1) == 1
    assert page.all("html") == [{"lang": "en"}]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("runs/demo", "runs/demo"),
        ("/home/someone/data/my corpus", "my corpus"),
        ("~/voices/fa", "fa"),
        ("C:\\Users\\someone\\voices", "voices"),
        ("reads /home/someone/data and '/mnt/b/c.wav'", "reads data and 'c.wav'"),
        ("frames/s and 1/2", "frames/s and 1/2"),
        ("ratio 3 / 4", "ratio 3 / 4"),
        (True, "true"),
        (1e-4, "0.0001"),
        (None, "None"),
        ("/", "/"),
    ],
)
def test_absolute_paths_are_cut(value: object, shown: str) -> None:
    assert without_folders(value) == shown


def test_no_absolute_path_in_the_page(bare: Evaluation, tmp_path: Path) -> None:
    _, text = write(
        tmp_path,
        bare,
        config={"data": {"store": str(tmp_path / "store")}},
        environment={"library": f"{tmp_path}/lib/x.so (loaded)"},
    )
    assert str(tmp_path) not in text
    assert "x.so (loaded)" in text
