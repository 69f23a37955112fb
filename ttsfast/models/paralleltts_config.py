"""The shape of a ``ParallelTTS``, and the named sizes."""

from __future__ import annotations

from dataclasses import dataclass

from ttsfast.models.arguments import dilations, require


@dataclass(frozen=True, kw_only=True)
class ParallelTTSConfig:
    """The shape of a :class:`ttsfast.models.paralleltts.ParallelTTS`.

    Raises:
        InputError: a value out of range; it names the field.
    """

    channels: int = 128
    reduction_factor: int = 2
    """mel frames in a decoder step, the unit of durations"""
    pitch: bool = False
    """hear each symbol's pitch in training, and predict it in speech"""
    energy: bool = False
    """likewise each symbol's energy"""
    text_dilations: tuple[int, ...] = (1, 3, 9, 1, 1)
    predictor_dilations: tuple[int, ...] = (1, 1)
    """of the duration predictor, and of those of pitch and energy"""
    decoder_dilations: tuple[int, ...] = (1, 2, 4, 8, 1, 1)
    refiner_dilations: tuple[int, ...] = ()
    """of what mends the decoder's mel frame by frame; none: the decoder's mel is the result"""
    aligner_channels: int = 64
    """in which symbols and steps are compared"""
    dropout: float = 0.05
    """of whole channels, in each gated convolution"""

    def __post_init__(self) -> None:
        for name in ("text_dilations", "predictor_dilations", "decoder_dilations"):
            dilations(self, name)
        dilations(self, "refiner_dilations", none=True)
        for name in ("channels", "reduction_factor", "aligner_channels"):
            require(self, name, getattr(self, name) >= 1, "1 or more")
        require(self, "dropout", 0.0 <= self.dropout < 1.0, "a share from 0 to below 1")


SIZES = {
    "nano": ParallelTTSConfig(channels=128),
    "small": ParallelTTSConfig(channels=256),
    "base": ParallelTTSConfig(channels=512),
}
