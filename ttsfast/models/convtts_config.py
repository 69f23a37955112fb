"""The shape of a ``ConvTTS``, and the named sizes."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ttsfast.models.arguments import dilations, require


@dataclass(frozen=True, kw_only=True)
class ConvTTSConfig:
    """The shape of a :class:`ttsfast.models.convtts.ConvTTS`.

    Raises:
        InputError: a value out of range; it names the field.
    """

    channels: int = 128
    reduction_factor: int = 4
    """mel frames made per decoder step"""
    latent_dim: int = 16
    """size of the posterior's latent; 0: no posterior encoder"""
    text_dilations: tuple[int, ...] = (1, 3, 9, 1, 1)
    mel_dilations: tuple[int, ...] = (1, 3, 9, 27)
    decoder_dilations: tuple[int, ...] = (1, 3, 9, 1, 1)
    dropout: float = 0.05
    """of whole channels, in each gated convolution"""
    prenet_dropout: float = 0.2
    """of the prenet's units; in training only, so that speech is a function of its text"""
    symbols_per_frame: float = 0.17
    """where the learned pace of reading starts; speech has some 12 to 20 symbols in 86 frames"""
    window_back: int = 1
    window_ahead: int = 4
    """symbols before and after the last one read that free-running attention may look at: enough for the
    steps in which speech passes letters that nobody hears, too few to reach the next word"""

    def __post_init__(self) -> None:
        for name in ("text_dilations", "mel_dilations", "decoder_dilations"):
            dilations(self, name)
        require(self, "channels", self.channels >= 4 and self.channels % 2 == 0, "an even number, at least 4")
        require(self, "reduction_factor", self.reduction_factor >= 1, "1 or more")
        require(self, "latent_dim", self.latent_dim >= 0, "0 or more")
        require(self, "window_back", self.window_back >= 0, "0 or more")
        require(self, "window_ahead", self.window_ahead >= 1, "1 or more")
        require(self, "dropout", 0.0 <= self.dropout < 1.0, "a share from 0 to below 1")
        require(self, "prenet_dropout", 0.0 <= self.prenet_dropout < 1.0, "a share from 0 to below 1")
        pace = self.symbols_per_frame
        require(self, "symbols_per_frame", pace > 0.0 and math.isfinite(pace), "a positive number")


SIZES = {
    "nano": ConvTTSConfig(channels=128),
    "small": ConvTTSConfig(channels=256),
    "base": ConvTTSConfig(channels=512),
}
