"""The report: complete, self-contained, safe against what corpora may hold."""

from __future__ import annotations

import math
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from ttsfast.evaluation.evaluate import Evaluation
from ttsfast.evaluation.report import without_folders, write_report

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
        if "style" not in self.open and data.strip():
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
    return replace(evaluation, samples=[])


@pytest.fixture
def single(evaluation: Evaluation) -> Evaluation:
    return replace(evaluation, samples=evaluation.samples[:1])


def test_everything_it_refers_to_is_beside_it(full: tuple[Path, Page, str]) -> None:
    folder, page, text = full
    references = [a.get("src") or a.get("href") for a in (e for _, e in page.elements)]
    files = [unquote(r) for r in references if r]
    assert len(files) > 10
    for file in files:
        assert not Path(file).is_absolute()
        assert ".." not in file
        assert (folder / file).stat().st_size > 100
    for outside in ("http:", "https:", "//", "<script", "@import", "url("):
        assert outside not in text, outside
    written = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
    assert written == {*files, "report.html", "metrics.json"}


def test_what_it_shows(full: tuple[Path, Page, str], evaluation: Evaluation) -> None:
    _, page, _ = full
    for wanted in ("A voice", "All 5 targets met", "nano", "use_huber_loss", "true", "torch", "2.13.0"):
        assert wanted in page.texts, wanted
    for sample in evaluation.samples:
        assert sample.id in page.texts
        assert sample.text in page.texts
    assert len(page.all("audio")) == 3 * len(evaluation.samples)
    # Held-out figures, losses, weights, speed, learning rate; three pictures for each sample.
    assert len(page.all("img")) == 5 + 3 * len(evaluation.samples)


def test_missed_targets_come_first(bare: Evaluation, tmp_path: Path) -> None:
    figures = {k: v for k, v in bare.figures.items() if k != "stop_rate"} | {"coverage": 0.5}
    page, _ = write(tmp_path, replace(bare, figures=figures))
    verdict = page.texts.index("2 of 5 targets missed")
    assert verdict < 6
    assert page.texts[verdict + 1] == "coverage is 0.500, wanted ≥ 0.98; stop rate is –, wanted ≥ 0.95"
    assert page.texts.count("missed") == 2


def test_texts_from_outside_are_escaped(single: Evaluation, tmp_path: Path) -> None:
    (sample,) = single.samples
    tame = replace(single, samples=[replace(sample, speaker="anna")])
    plain, _ = write(tmp_path / "plain", tame, config={"a": {"b": 1}}, environment={"c": 1})
    symbols = [HOSTILE] * len(sample.symbols)
    sample = replace(sample, id=HOSTILE, text=HOSTILE, speaker=HOSTILE, symbols=symbols)
    hostile, text = write(
        tmp_path / "hostile",
        replace(single, language=HOSTILE, samples=[sample]),
        title=HOSTILE,
        config={HOSTILE: {HOSTILE: HOSTILE}},
        environment={HOSTILE: HOSTILE},
    )
    assert "<script" not in text
    # The same page, element by element and attribute by attribute.
    shapes = [[(tag, sorted(attributes)) for tag, attributes in p.elements] for p in (plain, hostile)]
    assert shapes[0] == shapes[1]
    assert hostile.texts.count(HOSTILE) == 9


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
