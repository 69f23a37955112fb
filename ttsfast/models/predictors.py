"""What the text alone says of each symbol: one number, such as how long it lasts or how high it is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ttsfast.data.features.tracks import NAMES
from ttsfast.models.interface import no_track
from ttsfast.models.layers import GatedStack
from ttsfast.models.paralleltts_config import ParallelTTSConfig


class SymbolPredictor(nn.Module):
    """One number for each symbol, such as the logarithm of its duration, from the encoded text."""

    def __init__(self, channels: int, dilations: tuple[int, ...], dropout: float) -> None:
        super().__init__()
        self.layers = GatedStack(channels, dilations, causal=False, dropout=dropout)
        self.norm = nn.LayerNorm(channels)
        self.output = nn.Linear(channels, 1)

    def forward(self, encoded: Tensor, valid: Tensor) -> Tensor:
        """(B, N, D) and (B, N) bool -> (B, N) in float32 or wider, 0 in the padding."""
        x = self.output(self.norm(self.layers(encoded, valid[..., None])))[..., 0]
        return torch.where(valid, x, 0.0).to(torch.promote_types(x.dtype, torch.float32))


class Variance(nn.Module):
    """What a symbol's pitch, or energy, is: predicted in speech, heard in training.

    Args:
        statistics: mean and standard deviation of the track, by which it is normalised.
    """

    statistics: Tensor

    def __init__(self, config: ParallelTTSConfig, statistics: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("statistics", torch.tensor(statistics, dtype=torch.float32))
        self.predictor = SymbolPredictor(config.channels, config.predictor_dilations, config.dropout)
        self.embed = nn.Linear(1, config.channels)

    def normalised(self, track: Tensor) -> Tensor:
        """In standard deviations from the mean."""
        mean, std = self.statistics
        return (track - mean) / std

    def shifted(self, normalised: Tensor, semitones: Tensor | float) -> Tensor:
        """A pitch that is so much higher."""
        mean, std = self.statistics
        return self.normalised((normalised * std + mean) * 2.0 ** (semitones / 12))


class Variances(nn.ModuleDict):
    """Pitch and energy, those of them that the config asks for.

    Args:
        config: of the model.
        statistics: by track, its mean and standard deviation.

    Raises:
        InputError: a track without statistics.
    """

    def __init__(self, config: ParallelTTSConfig, statistics: Mapping[str, Sequence[float]]) -> None:
        names = [name for name in NAMES if getattr(config, name)]
        for name in names:
            if name not in statistics:
                raise no_track(name)
        super().__init__({name: Variance(config, statistics[name]) for name in names})

    def heard(
        self,
        encoded: Tensor,
        valid: Tensor,
        tracks: Mapping[str, Tensor | None],
        spoken: Tensor,
        durations: Tensor,
        frames_per_step: int,
    ) -> tuple[Tensor, Tensor]:
        """What a recording tells.

        Args:
            encoded: (B, N, D)
            valid: (B, N) bool
            tracks: (B, T) by name; in pitch, frames of 0 are unvoiced and tell nothing.
            spoken: (B, T) bool, frames that are not padding.
            durations: (B, N) in steps.
            frames_per_step: r

        Returns:
            The encoded text with the means over each symbol, and (B, N) the squared errors of their
            predictions, in standard deviations, added up.

        Raises:
            ValueError: a track is missing.
        """
        read, told, errors = encoded.detach(), encoded, encoded.new_zeros(valid.shape, dtype=torch.float32)
        for name, variance in self._each():
            track = tracks[name]
            if track is None:
                raise ValueError(f"this model learns {name}: give {name} (B, T)")
            counted = spoken & (track > 0) if name == "pitch" else spoken
            means = mean_over_symbols(variance.normalised(track), counted, durations, frames_per_step)
            errors = errors + (variance.predictor(read, valid) - means).square()
            told = told + variance.embed(means[..., None].to(encoded.dtype))
        return told, errors

    def predicted(self, encoded: Tensor, valid: Tensor, semitones: Tensor | float) -> Tensor:
        """The encoded text (B, N, D) with what it predicts itself, its pitch raised."""
        told = encoded
        for name, variance in self._each():
            means = variance.predictor(encoded, valid)
            if name == "pitch":
                means = variance.shifted(means, semitones)
            told = told + variance.embed(means[..., None].to(encoded.dtype))
        return told

    def _each(self) -> Iterator[tuple[str, Variance]]:
        for name, variance in self.items():
            assert isinstance(variance, Variance)
            yield name, variance


def mean_over_symbols(track: Tensor, counted: Tensor, durations: Tensor, frames_per_step: int) -> Tensor:
    """(B, N) float32 means of a track over each symbol's frames, of those that count; 0 where none does.

    Args:
        track: (B, T)
        counted: (B, T) bool
        durations: (B, N) in steps.
        frames_per_step: r
    """
    ends = (durations.cumsum(1) * frames_per_step).clamp(max=track.shape[1])
    # Differences of sums over whole utterances: float32 would leave little of them.
    both = torch.stack([torch.where(counted, track, 0.0), counted.to(track.dtype)]).double()
    passed = F.pad(both.cumsum(2), (1, 0)).gather(2, ends.expand(2, -1, -1))
    total, count = passed.diff(dim=2, prepend=passed.new_zeros(2, len(track), 1))
    return (total / count.clamp(min=1)).float()
