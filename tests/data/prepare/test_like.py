"""A store that keeps the statistics and symbols of another, so that its voice can go on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from small_corpus import contents, edit, prepare_small, write_corpus
from typer.testing import CliRunner

from ttsfast.cli import app
from ttsfast.data.corpus.text import TextFrontend
from ttsfast.data.inspection.summary import inspect
from ttsfast.data.prepare.append import append
from ttsfast.data.prepare.like import Like
from ttsfast.data.prepare.options import PrepareOptions
from ttsfast.data.prepare.rebuild import rebuild
from ttsfast.data.store.manifest import NAME
from ttsfast.data.store.manifest_reader import read_manifest
from ttsfast.data.store.store import Store
from ttsfast.data.store.verify import verify
from ttsfast.errors import InputError

pytestmark = pytest.mark.usefixtures("small_pieces")


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """A store of another corpus, whose texts have letters of their own."""
    corpus = write_corpus(tmp_path / "theirs", 12, seed=5)
    edit(corpus, lambda entries: entries[0].update(text="zzz jjj qqq."))
    return Path(prepare_small(corpus, tmp_path / "other").store)


def test_statistics_and_symbols_are_kept_through_an_append_and_a_rebuild(other: Path, tmp_path: Path) -> None:
    known = read_manifest(other)
    corpus = write_corpus(tmp_path / "mine", 12)
    like = Like.of(known, known.frontend)
    store = Path(prepare_small(corpus, tmp_path / "store", like=like).store)
    alone = read_manifest(Path(prepare_small(corpus, tmp_path / "alone").store))
    made = read_manifest(store)
    np.testing.assert_array_equal(made.mel_mean, known.mel_mean)
    np.testing.assert_array_equal(made.mel_std, known.mel_std)
    assert np.abs(alone.mel_mean - known.mel_mean).max() > 0.01
    assert set("zjq") <= set(made.symbols.characters)
    assert set(made.symbols.characters) == {*known.symbols.characters, *alone.symbols.characters}
    assert made.fingerprint != alone.fingerprint
    assert verify(store).ok
    assert "of another store" in dict(inspect(Store.open(store)).rows())["statistics"]
    # Features in the units of the other store.
    log_mel = Store.open(tmp_path / "alone")[0].mel.astype(np.float32) * alone.mel_std + alone.mel_mean
    found = Store.open(store)[0].mel.astype(np.float32) * known.mel_std + known.mel_mean
    np.testing.assert_allclose(found, log_mel, atol=0.01)
    # Again: nothing to do; without, or like another: said.
    assert prepare_small(corpus, store, like=like).unchanged
    with pytest.raises(InputError, match="the store that it is like is another, or none"):
        prepare_small(corpus, store)
    append(write_corpus(corpus, 16), store, jobs=1)
    assert verify(store).ok
    before = contents(store)
    (store / NAME).unlink()
    rebuild(store)
    assert contents(store) == before


def test_options_say_it_and_are_read_back(other: Path) -> None:
    known = read_manifest(other)
    options = PrepareOptions(frontend=known.frontend, like=Like.of(known, known.frontend))
    assert PrepareOptions.from_dict(options.to_dict()).like == options.like
    # Letters of another front end are none of this one's.
    assert Like.of(known, TextFrontend("fa")).symbols.characters == ()


def test_the_command_takes_the_rest_from_that_store_too(other: Path, tmp_path: Path) -> None:
    known = read_manifest(other)
    corpus = write_corpus(tmp_path / "mine", 6)
    arguments = ["prepare", str(corpus), str(tmp_path / "store"), "--jobs", "1", "--engine", "serial"]
    result = CliRunner().invoke(app, [*arguments, "--like", str(other), "--contract", "librosa-22k"])
    assert "has another mel contract; leave one of them out" in str(result.exception)
    assert CliRunner().invoke(app, [*arguments, "--like", str(other)]).exit_code == 0
    made = read_manifest(tmp_path / "store")
    assert (made.contract, made.frontend) == (known.contract, known.frontend)
    np.testing.assert_array_equal(made.mel_std, known.mel_std)
