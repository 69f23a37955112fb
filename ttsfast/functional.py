"""Losses, search and prior that stand alone, with the conventions of ``torch.nn.functional``."""

from ttsfast.alignment.functional import forward_sum_loss, monotonic_alignment
from ttsfast.alignment.prior import beta_binomial_prior
from ttsfast.losses.functional import gaussian_kl_loss, guided_attention_loss, mel_huber_loss, stop_bce_loss

__all__ = [
    "beta_binomial_prior",
    "forward_sum_loss",
    "gaussian_kl_loss",
    "guided_attention_loss",
    "mel_huber_loss",
    "monotonic_alignment",
    "stop_bce_loss",
]
