"""The code blocks of ``docs/drop-in.md`` against the recipes' own formulas, values and gradients.

The formulas are restated from the papers and the projects' documentation, in float64 and utterance by
utterance where the recipe masks. ``test_functional_interpreter.py`` runs the blocks on the Triton kernels.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from cpp_checks import MISSING
from dropin_page import PAGE, loss_on_page, real, same
from interpreter import INTERPRETED
from loss_checks import assert_close
from torch import Tensor
from torch.nn import functional as F

import ttsfast
from ttsfast import functional

BACKENDS = ["triton"] if INTERPRETED else ["torch"] if MISSING else ["cpp", "torch"]
backends = pytest.mark.parametrize("backend", BACKENDS)
LENGTHS, TEXT = torch.tensor([23, 17, 9]), torch.tensor([11, 7, 4])
BATCH, FRAMES, SYMBOLS, BINS = 3, 23, 11, 20


def softmax(*shape: int, seed: int) -> Tensor:
    return real(*shape, seed=seed).detach().softmax(-1).requires_grad_()


def valid_of(lengths: Tensor, size: int) -> Tensor:
    return torch.arange(size) < lengths.unsqueeze(1)


def gate_targets(padding: float) -> Tensor:
    """1 on the last frame, ``padding`` after it."""
    target = torch.zeros(BATCH, FRAMES, dtype=torch.float64)
    for row, n in zip(target, LENGTHS.tolist(), strict=True):
        row[n - 1] = 1
        row[n:] = padding
    return target


@backends
def test_tacotron2(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before, after = (real(BATCH, BINS, FRAMES, seed=i) for i in (1, 2))
    target = real(BATCH, BINS, FRAMES, seed=3).detach()
    gate = real(BATCH, FRAMES, seed=4)
    loss = loss_on_page(
        "NVIDIA Tacotron2",
        backend,
        monkeypatch,
        mel_out=before,
        mel_out_postnet=after,
        mel_target=target,
        gate_out=gate,
        output_lengths=LENGTHS,
    )

    def formula(before: Tensor, after: Tensor, gate: Tensor) -> Tensor:
        squares = (before - target.double()).square().mean() + (after - target.double()).square().mean()
        stop = gate_targets(padding=1.0)
        entropy = -(stop * gate.sigmoid().log() + (1 - stop) * (-gate).sigmoid().log()).mean()
        return squares + entropy

    same(loss, formula, before, after, gate)


def guided_mean(layers: list[Tensor], steps: Tensor, symbols: Tensor, sigma: float) -> Tensor:
    """Mean of ``A * (1 - exp(-(n/N - t/T)^2 / (2 sigma^2)))`` over all valid pairs of all heads."""
    parts = []
    for layer in layers:
        for b, (length, text) in enumerate(zip(steps.tolist(), symbols.tolist(), strict=True)):
            t = torch.arange(length, dtype=torch.float64).unsqueeze(1) / length
            n = torch.arange(text, dtype=torch.float64) / text
            penalty = 1 - torch.exp(-((n - t) ** 2) / (2 * sigma**2))
            parts.append((layer[b, ..., :length, :text] * penalty).flatten())
    return torch.cat(parts).mean()


@backends
def test_espnet_transformer(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before, after = (real(BATCH, FRAMES, BINS, seed=i) for i in (1, 2))
    target = real(BATCH, FRAMES, BINS, seed=3).detach()
    logits = real(BATCH, FRAMES, seed=4)
    layers = [softmax(BATCH, 2, FRAMES, SYMBOLS, seed=i) for i in (5, 6)]
    loss = loss_on_page(
        "Transformer-TTS in ESPnet",
        backend,
        monkeypatch,
        before_outs=before,
        after_outs=after,
        ys=target,
        olens=LENGTHS,
        ilens=TEXT,
        logits=logits,
        att_ws=layers,
    )
    valid = valid_of(LENGTHS, FRAMES)

    def formula(before: Tensor, after: Tensor, logits: Tensor, *layers: Tensor) -> Tensor:
        distance = sum(((y - target.double())[valid]).abs().mean() for y in (before, after))
        stop, x = gate_targets(padding=math.nan)[valid], logits[valid]
        entropy = -(5 * stop * F.logsigmoid(x) + (1 - stop) * F.logsigmoid(-x)).mean()
        return distance + entropy + guided_mean(list(layers), LENGTHS, TEXT, 0.4)

    same(loss, formula, before, after, logits, *layers)


@backends
def test_espnet_weighted_masking(backend: str) -> None:
    """Each valid frame weighs 1 / (its utterance's frames x batch), over bins and over stop logits."""
    y, target = real(BATCH, FRAMES, BINS, seed=1), real(BATCH, FRAMES, BINS, seed=2).detach()
    logits = real(BATCH, FRAMES, seed=3)
    criterion = ttsfast.TTSLoss(
        mel_weight=1,
        kl_weight=0,
        stop_weight=1,
        attention_weight=0,
        mel_loss="l1",
        mel_smoothing="none",
        normalization="utterance",
        stop_label_smoothing=0,
        stop_pos_weight=5,
        stop_tail_frames=0,
        weighting="fixed",
        backend=backend,
    )
    valid = valid_of(LENGTHS, FRAMES)

    def formula(y: Tensor, logits: Tensor) -> Tensor:
        weights = valid.double() / LENGTHS[:, None] / BATCH
        distance = ((y - target.double()).abs() * weights[..., None] / BINS).sum()
        stop = gate_targets(padding=0.0)
        entropy = -(5 * stop * F.logsigmoid(logits) + (1 - stop) * F.logsigmoid(-logits))
        return distance + (entropy * weights).sum()

    same(criterion(y, target, LENGTHS, stop_logits=logits).total, formula, y, logits)


@backends
def test_espnet_reduction_factor(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    layers = [softmax(BATCH, 2, FRAMES // 3, SYMBOLS, seed=i) for i in (5, 6)]
    loss = loss_on_page(
        "ESPnet's guided attention with a reduction factor",
        backend,
        monkeypatch,
        att_ws=layers,
        olens=LENGTHS,
        ilens=TEXT,
        r=3,
    )
    same(loss, lambda *layers: guided_mean(list(layers), LENGTHS // 3, TEXT, 0.4), *layers)


@backends
def test_coqui_guided_attention(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = torch.tensor([12, 9, 5])
    alignments = softmax(BATCH, 12, SYMBOLS, seed=1)
    loss = loss_on_page(
        "Coqui's guided attention",
        backend,
        monkeypatch,
        alignments=alignments,
        alignment_lens=steps.float(),
        input_lens=TEXT,
    )
    same(loss, lambda a: guided_mean([a], steps, TEXT, 0.4), alignments)


@backends
def test_coqui_seq_len_norm(backend: str) -> None:
    """Each utterance weighs the same: its own mean, divided by the batch size."""
    x, y = real(BATCH, FRAMES, BINS, seed=1), real(BATCH, FRAMES, BINS, seed=2).detach()
    for name, distance in (("l1", torch.abs), ("mse", torch.square)):
        criterion = ttsfast.TTSLoss(
            mel_weight=1,
            kl_weight=0,
            stop_weight=0,
            attention_weight=0,
            mel_loss=name,
            mel_smoothing="none",
            normalization="utterance",
            weighting="fixed",
            backend=backend,
        )

        def formula(x: Tensor, distance: Callable[[Tensor], Tensor] = distance) -> Tensor:
            means = [distance(x[b, :n] - y[b, :n].double()).mean() for b, n in enumerate(LENGTHS.tolist())]
            return sum(means[1:], start=means[0]) / BATCH

        same(criterion(x, y, LENGTHS).total, formula, x)


@backends
def test_coqui_huber(backend: str) -> None:
    """Summed over all elements, divided by valid frames."""
    x, y = real(BATCH, FRAMES, BINS, seed=1), real(BATCH, FRAMES, BINS, seed=2).detach()
    loss = BINS * functional.mel_huber_loss(x, y, LENGTHS, delta=1.0, backend=backend)
    mask = valid_of(LENGTHS, FRAMES).unsqueeze(2)
    same(loss, lambda x: F.smooth_l1_loss(x * mask, y.double() * mask, reduction="sum") / mask.sum(), x)


@backends
def test_coqui_stop(backend: str) -> None:
    logits = real(BATCH, FRAMES, seed=1)
    valid = valid_of(LENGTHS, FRAMES)
    ours = functional.stop_bce_loss(logits, LENGTHS, tail_frames=0, pos_weight=15.0, backend=backend)

    def formula(logits: Tensor) -> Tensor:
        """Padded logits and targets are multiplied by 0 and summed along: softplus(0) = log 2 each."""
        x, stop = logits * valid, gate_targets(padding=0.0)
        entropy = -(15 * stop * F.logsigmoid(x) + (1 - stop) * F.logsigmoid(-x)).sum() / valid.sum()
        return entropy - math.log(2) * (~valid).sum() / valid.sum()

    same(ours, formula, logits)


def vits_kl(z_p: Tensor, logs_q: Tensor, m_p: Tensor, logs_p: Tensor, lengths: Tensor) -> Tensor:
    """Per valid frame, summed over channels: entropy part of log q minus log p at the sample; (B, C, T)."""
    total = torch.zeros((), dtype=torch.float64)
    for b, n in enumerate(lengths.tolist()):
        z, q, m, p = (part[b, :, :n] for part in (z_p, logs_q, m_p, logs_p))
        total = total + (p - q - 0.5 + 0.5 * (z - m) ** 2 / torch.exp(p) ** 2).sum()
    return total / lengths.sum()


@backends
def test_vits(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # z_p is a leaf: whatever the flow does with it comes after.
    z_p, logs_q, m_p, logs_p = (real(BATCH, BINS, FRAMES, seed=i) for i in range(4))
    loss = loss_on_page(
        "VITS",
        backend,
        monkeypatch,
        z_p=z_p,
        logs_q=logs_q,
        m_p=m_p,
        logs_p=logs_p,
        y_lengths=LENGTHS,
        y_mask=valid_of(LENGTHS, FRAMES).unsqueeze(1).float(),
    )
    same(loss, lambda *parts: vits_kl(*parts, LENGTHS), z_p, logs_q, m_p, logs_p)


@backends
def test_vits_in_half_precision(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What autocast hands over is rounded; the loss of it is not, nor the count of frames."""
    lengths = torch.tensor([301, 290, 123])
    halves = [real(BATCH, BINS, 301, seed=i).detach().bfloat16() for i in range(4)]
    names = dict(zip(("z_p", "logs_q", "m_p", "logs_p"), halves, strict=True))
    mask = valid_of(lengths, 301).unsqueeze(1).bfloat16()
    loss = loss_on_page("VITS", backend, monkeypatch, **names, y_lengths=lengths, y_mask=mask)
    assert loss.dtype == torch.float32
    assert_close(loss, vits_kl(*(half.double() for half in halves), lengths), rtol=1e-5)


@backends
def test_vits_without_a_flow_in_expectation(backend: str) -> None:
    """For noise of +1 and -1, with the mean and variance of N(0, 1), the mean of a quadratic is exact."""
    m_q, logs_q, m_p, logs_p = (real(BATCH, FRAMES, BINS, seed=i) for i in range(4))
    loss = functional.gaussian_kl_loss(m_q, 2 * logs_q, LENGTHS, prior=(m_p, 2 * logs_p), backend=backend)

    def formula(m_q: Tensor, logs_q: Tensor, m_p: Tensor, logs_p: Tensor) -> Tensor:
        q, m, p = (part.transpose(1, 2) for part in (logs_q, m_p, logs_p))
        samples = [(m_q + noise * torch.exp(logs_q)).transpose(1, 2) for noise in (1, -1)]
        return (vits_kl(samples[0], q, m, p, LENGTHS) + vits_kl(samples[1], q, m, p, LENGTHS)) / 2

    same(loss, formula, m_q, logs_q, m_p, logs_p)


def test_vits_of_one_sample_is_another_number() -> None:
    m_q, logs_q, m_p, logs_p = (real(BATCH, FRAMES, BINS, seed=i).detach() for i in range(4))
    closed = functional.gaussian_kl_loss(m_q, 2 * logs_q, LENGTHS, prior=(m_p, 2 * logs_p))
    z = m_q + torch.exp(logs_q) * real(BATCH, FRAMES, BINS, seed=9).detach()
    sampled = vits_kl(*(part.transpose(1, 2).double() for part in (z, logs_q, m_p, logs_p)), LENGTHS)
    assert abs(float(sampled - closed)) > 0.01 * float(closed)


@backends
def test_plain_loop(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mel, target = real(BATCH, FRAMES, BINS, seed=1), real(BATCH, FRAMES, BINS, seed=2).detach()
    stop, mu, logvar = real(BATCH, FRAMES, seed=3), real(BATCH, 16, seed=4), real(BATCH, 16, seed=5)
    loss = loss_on_page(
        "Your own loop",
        backend,
        monkeypatch,
        mel=mel,
        target=target,
        lengths=LENGTHS,
        stop=stop,
        mu=mu,
        logvar=logvar,
    )
    valid = valid_of(LENGTHS, FRAMES)

    def formula(mel: Tensor, stop: Tensor, mu: Tensor, logvar: Tensor) -> Tensor:
        huber = F.huber_loss(mel[valid], target.double()[valid])
        kl = -0.5 * (1 + logvar - mu**2 - logvar.exp()).sum(1).mean()
        weight = torch.tensor(8.0, dtype=torch.float64)
        labels = gate_targets(padding=0.0)[valid]
        return (
            huber
            + 0.01 * kl
            + 0.5 * F.binary_cross_entropy_with_logits(stop[valid], labels, pos_weight=weight)
        )

    same(loss, formula, mel, stop, mu, logvar)


def test_the_page_names_tests_that_exist() -> None:
    named = set(re.findall(r"`(test_\w+)`", PAGE.read_text()))
    tests = Path(__file__).parents[1]
    files = Path(__file__), tests / "alignment" / "test_dropin_alignment.py"
    there = {name for file in files for name in re.findall(r"^def (test_\w+)", file.read_text(), re.M)}
    assert named == there - {
        "test_the_page_names_tests_that_exist",
        "test_vits_of_one_sample_is_another_number",
    }
