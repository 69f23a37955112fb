"""What inspection says of a store is what is in it, and its page stands alone."""

from __future__ import annotations

import html
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from small_corpus import RATE, edit, prepare_small, write_corpus

from ttsfast.data.inspection.page import write_page
from ttsfast.data.inspection.summary import inspect
from ttsfast.data.prepare.append import append
from ttsfast.data.store.store import Store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """With exclusions, an append, truncated clips, and names that mean something in HTML, rich and TeX."""
    corpus = write_corpus(tmp_path_factory.mktemp("corpus"), 20)
    edit(corpus, lambda entries: entries[0].update(speaker="<b>$x$[bold]"))
    folder = tmp_path_factory.mktemp("store")
    prepare_small(corpus, folder, max_duration=0.5, test_fraction=0.3)
    edit(write_corpus(corpus, 24), lambda entries: entries[0].update(speaker="<b>$x$[bold]"))
    append(corpus, folder, jobs=1)
    return Store.open(folder)


def test_the_figures_are_the_stores(store: Store) -> None:
    found = inspect(store)
    mels = [store[i].mel for i in range(len(store))]
    seconds = np.array([len(mel) for mel in mels]) * 64 / RATE
    assert found.seconds.most == pytest.approx(seconds.max())
    assert found.seconds.median == pytest.approx(np.median(seconds))
    assert sum(s["hours"] for s in found.splits.values()) == pytest.approx(seconds.sum() / 3600)
    assert found.splits["test"]["utterances"] == len(store.indices("test")) > 0
    assert sum(s["utterances"] for s in found.speakers.values()) == len(store)
    assert sum(s["hours"] for s in found.speakers.values()) == pytest.approx(seconds.sum() / 3600)
    ann = seconds[store.entries.speaker == store.speakers.index("ann")].sum()
    assert found.speakers["ann"]["hours"] == pytest.approx(ann / 3600)
    assert list(found.speakers)[-1] == "<b>$x$[bold]"
    assert found.bytes == sum(path.stat().st_size for path in store.path.glob("mel-*"))  # type: ignore[union-attr]
    assert found.truncated == sum(store[i].truncated for i in range(len(store)))
    assert found.appends == 1
    assert found.statistics_of < len(store)
    assert {e.reason for e in found.exclusions} == {"too long"}
    assert sum(found.characters.values()) == store.text_lengths.sum()
    name, rate = found.slowest[0]
    index = store.entries.id.index(name)
    assert rate == pytest.approx(store.frames[index] / store.text_lengths[index])
    assert rate == found.frames_per_symbol.most
    assert found.fastest[0][1] == found.frames_per_symbol.least
    plain = json.loads(json.dumps(found.to_dict()))
    assert plain["exclusion_counts"] == {"too long": len(found.exclusions)}


def test_the_table_shows_names_as_they_are(store: Store) -> None:
    console = Console(width=150, record=True, file=io.StringIO())
    console.print(inspect(store).table())
    text = console.export_text()
    assert "<b>$x$[bold]" in text
    assert "too long" in text
    assert "1 appends since" in text


def test_the_page_stands_alone_and_escapes(store: Store, tmp_path: Path) -> None:
    found = inspect(store)
    write_page(tmp_path / "page.html", store, found)
    text = (tmp_path / "page.html").read_text()
    assert not re.search(r'(src|href)="(?!data:)', text)
    assert "<script" not in text
    assert "<b>" not in text
    assert text.count("data:image/svg+xml") == 10
    for exclusion in found.exclusions:
        assert html.escape(exclusion.detail) in text
