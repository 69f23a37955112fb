"""The weights of one voice in the model of another: what fits is taken, rows of symbols and speakers by name.

A symbol that the other voice lacks begins as the mean of the nearest it has: of the first kind that there is,

1. the same letter but for case, marks and compatibility forms (a for á, A and full-width a);
2. letters whose Unicode names begin alike, which for most scripts is roughly their sound (b for Arabic beh,
   Cyrillic be and Greek beta);
3. symbols of the same general category: letters, marks, digits, punctuation, spaces;
4. all symbols.

A speaker that the other voice lacks begins as the mean of its speakers.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from ttsfast.models.interface import SPEAKERS, STORE, SYMBOLS
from ttsfast.models.voice_info import VoiceInfo

# IPA, whose letters are called by other names than they sound.
_SOUNDS = {"ESH": "s", "EZH": "z", "ENG": "n", "ETH": "d", "SCHWA": "e", "PHI": "f"}


@dataclass
class Transfer:
    """What became of the weights."""

    taken: list[str] = field(default_factory=list)
    """Tensors that the model now has from the other voice, as they were or row by row."""
    new: list[str] = field(default_factory=list)
    """Those of the model that begin as in a new run."""
    left: list[str] = field(default_factory=list)
    """Those of the other voice that the model has no place for."""
    nearest: dict[str, str] = field(default_factory=dict)
    """By new symbol, the symbols that it begins as, in one string."""
    dropped: str = ""
    """Symbols of the other voice that are not in this one's."""
    speakers: list[str] = field(default_factory=list)
    """New ones, by name."""


def transfer(
    model: nn.Module, voice: VoiceInfo, weights: Mapping[str, Tensor], origin: VoiceInfo
) -> Transfer:
    """Give ``model`` what fits of another voice's weights.

    A model names its tensors that depend on the data in ``tensors_of_data``; of one that does not, embeddings
    with as many rows as there are symbols, or speakers, are taken for those.

    Args:
        model: new, for ``voice``.
        voice: what it is trained to be.
        weights: the other voice's ``state_dict``.
        origin: what that one is.
    """
    done = Transfer()
    ours, theirs = voice.symbols.characters, origin.symbols.characters
    kinds = _kinds(model, voice)
    if SYMBOLS in kinds.values():
        done.nearest = {c: "".join(nearest(c, theirs)) for c in ours if c not in theirs}
        done.dropped = "".join(c for c in theirs if c not in ours)
    done.speakers = [name for name in voice.speakers if name not in origin.speakers]
    sources: dict[str, list[list[int]]] = {
        # Symbol 0 is the padding, in both.
        SYMBOLS: [[0], *([1 + theirs.index(x) for x in done.nearest.get(c, c)] for c in ours)],
        SPEAKERS: [
            [origin.speakers.index(name)] if name in origin.speakers else [*range(len(origin.speakers))]
            for name in voice.speakers
        ],
    }
    rows_there = {SYMBOLS: len(origin.symbols), SPEAKERS: len(origin.speakers)}
    state = model.state_dict()
    with torch.no_grad():
        for name, own in state.items():
            kind, given = kinds.get(name), weights.get(name)
            if kind == STORE:
                continue
            if kind is not None and given is not None and given.shape == (rows_there[kind], *own.shape[1:]):
                wide = given.to(torch.float32)
                own.copy_(torch.stack([wide[rows].mean(dim=0) for rows in sources[kind]]))
            elif kind is None and given is not None and given.shape == own.shape:
                own.copy_(given)
            elif kind == SPEAKERS and given is None:
                # All begin as the one that the other voice has.
                own.zero_()
                done.new.append(name)
                continue
            else:
                done.new.append(name)
                continue
            done.taken.append(name)
        # Of several speakers to one, whose model has no table of them.
        absorb: Callable[[Tensor], None] | None = getattr(model, "absorb_speaker", None)
        done.left = [name for name in weights if name not in state]
        for name in [name for name in done.left if kinds.get(name) == SPEAKERS]:
            if absorb is not None:
                absorb(weights[name][sources[SPEAKERS][0]].mean(dim=0))
                done.taken.append(name)
                done.left.remove(name)
    return done


def nearest(character: str, known: Sequence[str]) -> list[str]:
    """Those of ``known`` that ``character`` begins as the mean of; see the module's docstring."""
    for key in (_base, _sound, _category):
        wanted = key(character)
        if wanted and (alike := [c for c in known if key(c) == wanted]):
            return alike
    return list(known)


def _base(character: str) -> str:
    """Without marks, in compatibility form and lower case; empty where only marks are left."""
    parts = unicodedata.normalize("NFKD", character).casefold()
    return "".join(c for c in parts if not unicodedata.combining(c))


def _sound(character: str) -> str:
    """The Latin letter that its name begins with, of letters only."""
    words = unicodedata.name(character, "").split()
    if "LETTER" not in words:
        return ""
    # "LATIN SMALL LETTER OPEN E", "ARABIC LETTER FARSI YEH", "LATIN SMALL LETTER E WITH ACUTE".
    named = words[words.index("LETTER") + 1 :]
    last = named[: named.index("WITH")][-1] if "WITH" in named[1:] else named[-1] if named else ""
    return _SOUNDS.get(last, last[:1].lower())


def _category(character: str) -> str:
    return unicodedata.category(character)[0]


def _kinds(model: nn.Module, voice: VoiceInfo) -> dict[str, str]:
    """By tensor, what of the data it depends on."""
    said: Mapping[str, str] | None = getattr(model, "tensors_of_data", None)
    if said is not None:
        return dict(said)
    sizes = {len(voice.speakers): SPEAKERS, len(voice.symbols): SYMBOLS}
    return {
        f"{name}.weight": sizes[module.num_embeddings]
        for name, module in model.named_modules()
        if isinstance(module, nn.Embedding) and module.num_embeddings in sizes
    }
