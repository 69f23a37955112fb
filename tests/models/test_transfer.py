"""What a voice takes from another: tensors that fit, rows of symbols and speakers by their names."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from voices import BINS, parallel_voice, small_voice

from ttsfast.data.corpus.text import Symbols
from ttsfast.models.convtts import ConvTTS
from ttsfast.models.paralleltts import ParallelTTS
from ttsfast.models.transfer import nearest, transfer
from ttsfast.models.voice import Voice

TEXT, LENGTHS = torch.tensor([[1, 2, 3, 4, 1], [2, 1, 3, 0, 0]]), torch.tensor([5, 3])


def new_voice(voice: Voice, characters: str, speakers: tuple[str, ...]) -> Voice:
    """Of the same shape, untrained, for other symbols and speakers."""
    symbols = Symbols.of([characters])
    model = ConvTTS(
        voice.model.config,  # type: ignore[arg-type]
        len(symbols),
        BINS,
        len(speakers),
        silence=voice.silence + 1,
    )
    return replace(voice, model=model.eval(), symbols=symbols, speakers=speakers)


def spoken(voice: Voice, text: Tensor, speaker: int) -> Tensor:
    torch.manual_seed(0)
    mel = torch.randn(2, 12, BINS)
    with torch.no_grad():
        out = voice.model(text, LENGTHS, mel, torch.tensor([12, 9]), torch.full((2,), speaker))
    return out.final_mel


@pytest.mark.parametrize(
    ("character", "known", "found"),
    [
        ("é", "abe", "e"),
        ("A", "abä", "aä"),
        ("ａ", "ab", "a"),
        ("ب", "abc", "b"),
        ("b", "ابپ", "ب"),
        ("ɛ", "aeʃ", "e"),
        ("ʃ", "aes", "s"),
        ("д", "adb", "d"),
        ("!", "ab ,.", ",."),
        ("7", "ab 12", "12"),
        ("ɣ", "abc.", "abc"),
        ("é", "eɛə", "e"),
        ("!", "ab", "ab"),
    ],
)
def test_the_nearest_symbols(character: str, known: str, found: str) -> None:
    assert "".join(nearest(character, known)) == found


def test_rows_go_by_name_and_new_ones_begin_as_the_mean_of_the_nearest() -> None:
    old = small_voice()
    new = new_voice(old, "bcdeé!", ("carla", "ben"))
    before = {name: value.clone() for name, value in new.model.state_dict().items()}
    weights = old.model.state_dict()
    done = transfer(new.model, new, weights, old)
    state = new.model.state_dict()
    theirs, ours = weights["symbols.weight"], state["symbols.weight"]
    for character in "bcde":
        there, here = (v.symbols.characters.index(character) + 1 for v in (old, new))
        assert torch.equal(ours[here], theirs[there]), character
    assert torch.equal(ours[0], theirs[0])
    assert torch.equal(
        ours[new.symbols.characters.index("é") + 1], theirs[old.symbols.characters.index("e") + 1]
    )
    torch.testing.assert_close(ours[new.symbols.characters.index("!") + 1], theirs[1:].mean(dim=0))
    for name in ("speakers.weight", "attention.log_pace"):
        assert torch.equal(state[name][1], weights[name][1]), name
        torch.testing.assert_close(state[name][0], weights[name].mean(dim=0))
    # What the store decides stays the store's.
    assert torch.equal(state["silence"], before["silence"])
    rest = state.keys() - {"symbols.weight", "speakers.weight", "attention.log_pace", "silence"}
    assert all(torch.equal(state[name], weights[name]) for name in rest)
    assert not any(torch.equal(before[name], weights[name]) for name in ("join.weight", "output.bias"))
    assert (done.nearest, done.dropped, done.speakers) == ({"é": "e", "!": " abcdefg"}, " afg", ["carla"])
    assert (done.new, done.left) == ([], [])


def test_a_voice_of_one_speaker_begins_as_the_one_of_several() -> None:
    old = small_voice()
    new = new_voice(old, "abcdefg ", ("ben",))
    new.model.silence.copy_(old.model.silence)  # type: ignore[operator, arg-type]
    done = transfer(new.model, new, old.model.state_dict(), old)
    assert (done.left, done.new) == ([], [])
    torch.testing.assert_close(spoken(new, TEXT, 0), spoken(old, TEXT, 1), rtol=1e-4, atol=1e-5)
    # And the other way: every speaker as the one that there was.
    several = new_voice(old, "abcdefg ", ("ben", "carla"))
    several.model.silence.copy_(old.model.silence)  # type: ignore[operator, arg-type]
    done = transfer(several.model, several, new.model.state_dict(), new)
    assert done.new == ["speakers.weight"]
    for speaker in (0, 1):
        torch.testing.assert_close(spoken(several, TEXT, speaker), spoken(new, TEXT, 0), rtol=1e-4, atol=1e-5)


def test_a_parallel_voice_of_one_speaker_begins_as_the_one_of_several() -> None:
    old = parallel_voice()
    model = ParallelTTS(
        old.model.config,  # type: ignore[arg-type]
        len(old.symbols),
        BINS,
        silence=old.silence + 1,
        statistics={"pitch": (200.0, 30.0)},
    )
    new = replace(old, model=model.eval(), speakers=("ben",))
    done = transfer(new.model, new, old.model.state_dict(), old)
    assert (done.left, done.new) == ([], [])
    # What the store decides stays the store's.
    assert model.variances["pitch"].statistics.tolist() == [200.0, 30.0]
    assert torch.equal(model.silence, torch.from_numpy(old.silence + 1))
    text, lengths = TEXT, LENGTHS
    theirs = old.model.synthesize(text, lengths, torch.tensor([1, 1]), max_frames=90)  # type: ignore[operator]
    ours = model.synthesize(text, lengths, max_frames=90)
    torch.testing.assert_close(ours.mel, theirs.mel, rtol=1e-4, atol=1e-4)


def test_a_model_that_says_nothing_is_read_by_its_embeddings_and_other_shapes_begin_anew() -> None:
    class Plain(nn.Module):
        def __init__(self, symbols: int, width: int) -> None:
            super().__init__()
            self.table = nn.Embedding(symbols, 4)
            self.hidden = nn.Linear(4, width)
            self.gone = nn.Linear(1, 1)

    old, new = small_voice(), replace(small_voice(), symbols=Symbols.of(["cdeé!xz7"]))
    source, model = Plain(len(old.symbols), 3), Plain(len(new.symbols), 5)
    assert len(old.symbols) == len(new.symbols)
    del model.gone
    kept = model.hidden.weight.detach().clone()
    done = transfer(model, new, source.state_dict(), old)
    there, here = (v.symbols.characters.index("c") + 1 for v in (old, new))
    assert there != here
    assert torch.equal(model.table.weight[here], source.table.weight[there])
    assert torch.equal(model.hidden.weight, kept)
    assert (done.taken, done.new) == (["table.weight"], ["hidden.weight", "hidden.bias"])
    assert done.left == ["gone.weight", "gone.bias"]
