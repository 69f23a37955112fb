"""Every term once more, as loops over scalars in plain Python: an independent reading of the formulas."""

from __future__ import annotations

import math
from typing import Any

import numpy as np


def _array(tensor: Any) -> np.ndarray:
    return tensor.detach().double().numpy()


def _divide(parts: list[tuple[float, int, float]], by_utterance: bool) -> float:
    """parts: (sum, elements, extra divisor) per utterance."""
    if by_utterance:
        kept = [total / (n * extra) for total, n, extra in parts if n]
        return sum(kept) / max(len(kept), 1)
    count = sum(n for _, n, _ in parts)
    return sum(total / extra for total, _, extra in parts) / max(count, 1)


def _distance(kind: str, d: float, delta: float) -> float:
    if kind == "l1":
        return abs(d)
    if kind == "mse":
        return d * d
    return d * d / 2 if abs(d) <= delta else delta * (abs(d) - delta / 2)


def mel_term(args: dict[str, Any], o: dict[str, Any]) -> float:
    predictions = args["mel_pred"] if isinstance(args["mel_pred"], tuple) else (args["mel_pred"],)
    target = _array(args["mel_target"])
    bins = target.shape[2]
    e = 0.0 if o["mel_smoothing"] == "none" else o["mel_label_smoothing"]
    mean = [0.0] * bins if o["mel_mean"] is None else o["mel_mean"].tolist()
    value = 0.0
    for prediction in map(_array, predictions):
        parts = []
        for b, n in enumerate(args["mel_lengths"].tolist()):
            total = 0.0
            for t in range(n):
                for c in range(bins):
                    wanted = (1 - e) * target[b, t, c] + e * mean[c]
                    total += _distance(o["mel_loss"], prediction[b, t, c] - wanted, o["huber_delta"])
            parts.append((total, n, float(bins)))
        value += _divide(parts, o["normalization"] == "utterance")
    return value


def kl_term(args: dict[str, Any], o: dict[str, Any]) -> float:
    mu, logvar = map(_array, args["posterior"])
    prior = args.get("prior")
    prior_mu, prior_logvar = map(_array, prior) if prior else (np.zeros_like(mu), np.zeros_like(mu))
    bins = args["mel_target"].shape[2]
    per_frame = mu.ndim == 3

    def nats(index: tuple[int, ...]) -> float:
        total = 0.0
        for z in range(mu.shape[-1]):
            v, vp = math.exp(logvar[(*index, z)]), math.exp(prior_logvar[(*index, z)])
            d = mu[(*index, z)] - prior_mu[(*index, z)]
            total += (v + d * d) / vp / 2 - 0.5 + (math.log(vp) - math.log(v)) / 2
        return max(total, o["kl_free_bits"])

    parts = []
    for b, n in enumerate(args["mel_lengths"].tolist()):
        if per_frame:
            total, vectors = sum(nats((b, t)) for t in range(n)), n
        else:
            total, vectors = (nats((b,)), 1) if n else (0.0, 0)
        elbo = o["kl_normalization"] == "elbo"
        parts.append((total, n if elbo else vectors, float(bins) if elbo else 1.0))
    return _divide(parts, o["normalization"] == "utterance")


def stop_term(args: dict[str, Any], o: dict[str, Any]) -> float:
    logits = _array(args["stop_logits"])
    lengths = args.get("step_lengths", args["mel_lengths"]).tolist()
    truncated = args["truncated"].tolist() if "truncated" in args else [False] * len(lengths)
    parts = []
    for b, n in enumerate(lengths):
        last = n if truncated[b] or n == 0 else min(n + o["stop_tail_frames"], logits.shape[1])
        total = 0.0
        for s in range(last):
            y = 1.0 if s >= n - 1 and not truncated[b] else 0.0
            q = y * (1 - o["stop_label_smoothing"]) + o["stop_label_smoothing"] / 2
            p = 1 / (1 + math.exp(-logits[b, s]))
            total -= o["stop_pos_weight"] * q * math.log(p) + (1 - q) * math.log(1 - p)
        parts.append((total, last, 1.0))
    return _divide(parts, o["normalization"] == "utterance")


def attention_term(args: dict[str, Any], o: dict[str, Any]) -> float:
    weights = _array(args["attention"])
    if weights.ndim == 3:
        weights = weights[:, None]
    lengths = args.get("step_lengths", args["mel_lengths"]).tolist()
    parts = []
    for b, (steps, symbols) in enumerate(zip(lengths, args["text_lengths"].tolist(), strict=True)):
        total = 0.0
        for h in range(weights.shape[1]):
            for t in range(steps):
                for n in range(symbols):
                    off = (n / symbols - t / steps) / o["attention_sigma"]
                    total += weights[b, h, t, n] * (1 - math.exp(-off * off / 2))
        parts.append((total, steps, float(weights.shape[1])))
    return _divide(parts, o["normalization"] == "utterance")
