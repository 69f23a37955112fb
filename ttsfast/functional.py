"""Loss terms that stand alone, with the conventions of ``torch.nn.functional``."""

from ttsfast.losses.functional import gaussian_kl_loss, guided_attention_loss, mel_huber_loss, stop_bce_loss

__all__ = ["gaussian_kl_loss", "guided_attention_loss", "mel_huber_loss", "stop_bce_loss"]
