"""One small step of every term and of the weights, by all kernels of the loss, for compute-sanitizer: each
launch takes it seconds.
"""

from __future__ import annotations

import argparse

import torch

from ttsfast.losses.module import TTSLoss


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dry-run", action="store_true", help="on the CPU")
    device = "cpu" if parser.parse_args().dry_run else "cuda"
    torch.manual_seed(0)
    batch, frames, bins, symbols, latents = 3, 33, 63, 17, 20

    def leaf(*shape: int) -> torch.Tensor:
        return torch.randn(shape, device=device).requires_grad_()

    lengths = torch.tensor([33, 0, 7], device=device)
    for smoothing in ("mean", "noise"):
        loss = TTSLoss(mel_smoothing=smoothing, kl_free_bits=1.0, backend="auto").to(device)
        out = loss(
            (leaf(batch, bins, frames).transpose(1, 2), leaf(batch, frames, bins)),
            torch.randn(batch, frames, bins, device=device),
            lengths,
            stop_logits=leaf(batch, frames),
            posterior=(leaf(batch, frames, latents), leaf(batch, frames, latents)),
            prior=(leaf(batch, frames, latents), leaf(batch, frames, latents)),
            attention=(leaf(batch, 2, frames, symbols), leaf(batch, frames, symbols)),
            text_lengths=torch.tensor([17, 4, 9], device=device),
        )
        (out.total * 3).backward()
        loss.update_weights(out.values, out.floor_values)
        print(smoothing, out.total.item())


if __name__ == "__main__":
    main()
