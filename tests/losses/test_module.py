"""The module's face: arguments, errors, output, backends."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch
from loss_checks import assert_close, make_batch, make_loss
from torch._dynamo.testing import CompileCounter

from ttsfast import TTSLoss
from ttsfast.losses import backend as backends
from ttsfast.losses.output import LossOutput
from ttsfast.terms.state import METHODS


def test_the_documented_call() -> None:
    loss = TTSLoss(
        mel_weight=22.0, kl_weight=1.8, stop_weight=1.5, attention_weight=0.3,
        mel_loss="huber", huber_delta=0.6, mel_label_smoothing=0.025, mel_smoothing="mean",
        mel_mean=None, mel_std=None, normalization="frame", kl_normalization="elbo", kl_free_bits=0.0,
        stop_label_smoothing=0.06, stop_pos_weight=4.0, stop_tail_frames=8,
        attention_sigma=0.2, weighting="dwa", backend="auto",
    )  # fmt: skip
    batch = make_batch([6, 3], [3, 2], dtype=torch.float32)
    out = loss(
        batch["mel_pred"], batch["mel_target"], batch["mel_lengths"],
        stop_logits=batch["stop_logits"], step_lengths=None, posterior=batch["posterior"], prior=None,
        attention=batch["attention"], text_lengths=batch["text_lengths"],
        truncated=None, normalizer=None, grad_scale=None,
    )  # fmt: skip
    out.total.backward()
    for value in (out.mel, out.kl, out.stop, out.attention, out.frames):
        assert value.shape == ()
        assert not value.requires_grad
    assert set(out.weights) == set(out.floors) == set(out.excess) == {"mel", "kl", "stop", "attention"}
    assert_close(out.excess["stop"], out.stop - out.floors["stop"])
    assert out.frames == 9
    defaults = TTSLoss()
    assert defaults.spec == loss.spec


def test_absent_terms() -> None:
    batch = make_batch([6, 3], [3, 2])
    alone = {k: batch[k] for k in ("mel_pred", "mel_target", "mel_lengths")}
    out = make_loss(kl_weight=0, stop_weight=0, attention_weight=0)(**alone)
    assert out.kl is out.stop is out.attention is None
    assert set(out.weights) == set(out.floors) == {"mel"}
    assert_close(out.total.detach(), 22 * out.mel)
    for term, argument in (("kl", "posterior"), ("stop", "stop_logits"), ("attention", "attention")):
        weights = {f"{other}_weight": 0 for other in ("kl", "stop", "attention") if other != term}
        with pytest.raises(
            ValueError, match=f"{argument} is missing while {term}_weight.*set {term}_weight=0"
        ):
            make_loss(**weights)(**alone)


def test_evaluation_does_not_smooth() -> None:
    batch = make_batch([6, 3], [3, 2])
    smooth = make_loss(mel_label_smoothing=0.3, stop_label_smoothing=0.3)
    plain = make_loss(mel_smoothing="none", stop_label_smoothing=0.0)
    assert smooth(**batch).mel != plain(**batch).mel
    assert_close(smooth.eval()(**batch).values, plain(**batch).values, rtol=0, atol=0)


BAD_OPTIONS: list[tuple[dict[str, Any], str]] = [
    ({"mel_weight": -1.0}, "mel_weight must be at least 0, got -1.0"),
    ({"kl_weight": float("nan")}, "kl_weight"),
    ({"stop_weight": float("inf")}, "stop_weight"),
    ({"mel_loss": "hubber"}, "mel_loss must be one of huber, l1, mse, got 'hubber'"),
    ({"huber_delta": 0.0}, "huber_delta must be more than 0"),
    ({"mel_smoothing": "label"}, "mel_smoothing must be one of"),
    ({"mel_label_smoothing": 1.5}, "mel_label_smoothing must be at least 0 and at most 1"),
    ({"normalization": "batch"}, "normalization must be one of frame, utterance"),
    ({"kl_normalization": "mean"}, "kl_normalization must be one of elbo, vector"),
    ({"kl_free_bits": -0.1}, "kl_free_bits"),
    ({"stop_label_smoothing": 2}, "stop_label_smoothing"),
    ({"stop_pos_weight": 0}, "stop_pos_weight"),
    ({"stop_tail_frames": -1}, "stop_tail_frames"),
    ({"attention_sigma": 0}, "attention_sigma"),
    ({"weighting": "gradnorm"}, "weighting must be one of fixed, dwa, uncertainty"),
    ({"mel_mean": [[0.0]]}, "mel_mean must hold real numbers of shape"),
    ({"mel_mean": [0, 1]}, r"mel_mean must hold real numbers of shape .* got \(2,\) of torch.int64"),
    ({"mel_std": []}, "mel_std must hold real numbers of shape"),
    ({"mel_std": [1.0, -1.0]}, "mel_std must be finite and at least 0"),
    ({"mel_std": [float("nan")]}, "mel_std must be finite"),
    ({"backend": "cuda"}, "backend must be one of auto, torch, cpp, triton"),
]


@pytest.mark.parametrize(("options", "message"), BAD_OPTIONS)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TTSLoss(**options)


@pytest.mark.parametrize("weighting", METHODS)
def test_a_loss_that_was_made_on_the_meta_device(weighting: str) -> None:
    with torch.device("meta"):
        loss = make_loss(weighting=weighting, attention_weight=0.0)
    plain = make_loss(weighting=weighting, attention_weight=0.0)
    # What its memory holds must not be right by chance.
    loss = torch.nn.Sequential(loss)._apply(lambda t: torch.full_like(t, 7, device="cpu"))[0]
    batch = make_batch([5, 2], [3, 1])
    for _ in range(2):
        assert torch.equal(loss(**batch).total, plain(**batch).total)
    for (name, found), wanted in zip(loss.named_buffers(), plain.buffers(), strict=True):
        assert torch.equal(found, wanted), name


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("mel_weight", "22"),
        ("huber_delta", None),
        ("attention_sigma", torch.tensor(0.2)),
        ("mel_mean", "zero"),
        ("mel_std", [None]),
    ],
)
def test_options_that_are_no_numbers(name: str, value: Any) -> None:
    with pytest.raises(TypeError, match=f"{name} must "):
        TTSLoss(**{name: value})


@pytest.mark.parametrize("seed", ["seven", 0.5, None])
def test_a_seed_that_is_no_whole_number(seed: Any) -> None:
    with pytest.raises(TypeError, match="seed must be a whole number"):
        TTSLoss(seed=seed)


@pytest.mark.parametrize("backend", ["auto", "torch"])
def test_one_graph_for_sizes_that_vary(backend: str) -> None:
    torch._dynamo.reset()
    eager, loss = (make_loss(backend=backend, weighting="fixed") for _ in range(2))
    counter = CompileCounter()
    compiled = torch.compile(loss, fullgraph=True, dynamic=True, backend=counter)
    for lengths in ([9, 4], [7, 5], [12, 3]):
        batch = make_batch(lengths, [3, 2])
        assert_close(compiled(**batch).total, eager(**batch).total, rtol=1e-6, atol=0)
    assert counter.frame_count == 1


BAD_CALLS: list[tuple[dict[str, Any], type[Exception], str]] = [
    (
        {"mel_pred": torch.ones(2, 14, 4)},
        ValueError,
        r"mel_pred must have shape \(2, 14, 5\), got \(2, 14, 4\)",
    ),
    ({"mel_pred": [torch.ones(2, 14, 5)] * 3}, ValueError, "one prediction or a pair, got 3"),
    ({"mel_pred": None}, TypeError, "mel_pred must be a tensor .* got NoneType"),
    ({"mel_pred": torch.ones(2, 14, 5, dtype=torch.int64)}, TypeError, "mel_pred must hold float16"),
    ({"mel_pred": torch.ones(2, 14, 5).to_sparse()}, TypeError, "dense"),
    ({"mel_target": torch.ones(14, 5)}, ValueError, r"mel_target must have shape \(B, T, C\)"),
    (
        {"mel_target": torch.ones(2, 14, 5, device="meta")},
        ValueError,
        "mel_pred is on cpu, the other inputs on meta",
    ),
    ({"mel_lengths": [6, 3]}, TypeError, "mel_lengths must be an integer tensor"),
    ({"mel_lengths": torch.tensor([6.0, 3.0])}, TypeError, "mel_lengths must be an integer tensor"),
    ({"mel_lengths": torch.tensor([6])}, ValueError, r"mel_lengths must have shape \(2,\)"),
    ({"mel_lengths": torch.tensor([6, 15])}, ValueError, r"mel_lengths\[1\] is 15, outside 0..14"),
    ({"mel_lengths": torch.tensor([-1, 3])}, ValueError, r"mel_lengths\[0\] is -1"),
    (
        {"stop_logits": torch.ones(2, 7)},
        ValueError,
        "stop_logits has 7 steps for 14 mel frames: pass step_lengths",
    ),
    ({"stop_logits": torch.ones(2, 14, 1)}, ValueError, "stop_logits must have shape"),
    ({"step_lengths": torch.tensor([6, 15])}, ValueError, r"step_lengths\[1\] is 15, outside 0..14"),
    ({"attention": torch.ones(2, 14)}, ValueError, "attention must have shape"),
    ({"attention": []}, ValueError, "attention is an empty sequence"),
    ({"attention": [torch.ones(2, 14, 3), torch.ones(2, 14, 4)]}, ValueError, "layers must agree"),
    ({"text_lengths": None}, ValueError, "attention needs text_lengths"),
    ({"text_lengths": torch.tensor([4, 2])}, ValueError, r"text_lengths\[0\] is 4, outside 0..3"),
    ({"posterior": torch.ones(2, 3)}, TypeError, r"posterior must be a pair \(mu, logvar\)"),
    ({"posterior": (torch.ones(2, 3), torch.ones(2, 4))}, ValueError, "posterior logvar must have shape"),
    (
        {"posterior": (torch.ones(2, 9, 3), torch.ones(2, 9, 3))},
        ValueError,
        r"posterior mu must have shape \(2, 14",
    ),
    (
        {"posterior": None, "prior": (torch.ones(2, 3), torch.ones(2, 3))},
        ValueError,
        "prior is given without",
    ),
    ({"prior": (torch.ones(2, 4), torch.ones(2, 4))}, ValueError, "prior must have the posterior's shape"),
    ({"truncated": torch.tensor([0, 1])}, TypeError, "truncated must be a boolean tensor"),
    ({"truncated": torch.tensor([True])}, ValueError, "truncated must have shape"),
    ({"grad_scale": torch.ones(2)}, ValueError, "grad_scale must be a scalar"),
]


@pytest.mark.parametrize(("change", "error", "message"), BAD_CALLS)
def test_bad_calls(change: dict[str, Any], error: type[Exception], message: str) -> None:
    loss = make_loss(weighting="dwa", kl_weight=0.0)
    with pytest.raises(error, match=message) as caught:
        loss(**{**make_batch([6, 3], [3, 2]), **change})
    assert "\n" not in str(caught.value)
    assert loss.noise_step == 0, "a rejected call changes no state"


def test_statistics_of_another_size() -> None:
    with pytest.raises(ValueError, match="mel_std holds 4 bins, mel_target 5"):
        make_loss(mel_std=torch.ones(4))(**make_batch([6, 3], [3, 2]))


def test_loss_on_another_device() -> None:
    with pytest.raises(ValueError, match=r"call \.to\('cpu'\) on the loss"):
        make_loss().to("meta")(**make_batch([6, 3], [3, 2]))


@pytest.mark.parametrize("weighting", METHODS)
@pytest.mark.parametrize("normalization", ["frame", "utterance"])
def test_nothing_is_read_back_from_the_device(weighting: str, normalization: str) -> None:
    """Meta tensors hold no values, so any step that waits for one raises."""

    def to_meta(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(to_meta(part) for part in value)
        return value.detach().to("meta").requires_grad_(value.requires_grad)

    batch = make_batch([6, 3], [3, 2], prior=True, per_frame=True, heads=2, pair=True, reduction=2)
    batch["truncated"] = torch.tensor([False, True])
    on_meta = {name: to_meta(value) for name, value in batch.items()}
    options: dict[str, Any] = {
        "mel_smoothing": "noise",
        "normalization": normalization,
        "weighting": weighting,
    }
    loss = make_loss(**options, mel_mean=torch.zeros(5), mel_std=torch.ones(5), kl_free_bits=1.0).to("meta")
    for normalizer in (None, 9.0, loss.counts(on_meta["mel_lengths"], on_meta["step_lengths"])):
        out = loss(**on_meta, normalizer=normalizer, grad_scale=torch.ones((), device="meta"))
        out.total.backward()
    loss.schedule_weight("attention", 0.5)
    assert on_meta["stop_logits"].grad.shape == batch["stop_logits"].shape


class Recorder(backends.TorchBackend):
    name = "cpp"
    lacks: str | None = None
    refuses: str | None = None

    def missing(self) -> str | None:
        return self.lacks

    def declines(self, *_: Any) -> str | None:
        return self.refuses

    def call(self, *args: Any) -> LossOutput:
        self.calls = getattr(self, "calls", 0) + 1
        return super().call(*args)


def test_backend_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder()
    monkeypatch.setattr(backends, "BACKENDS", {"cpp": recorder, "torch": backends.TorchBackend()})
    recorder.lacks = "it was not built"
    with pytest.raises(RuntimeError, match="loss backend 'cpp' is not available: it was not built"):
        make_loss(backend="cpp")
    recorder.lacks = None
    batch = make_batch([6, 3], [3, 2])
    expected = make_loss(backend="torch")(**batch).values
    assert_close(make_loss(backend="auto")(**batch).values, expected)
    assert_close(make_loss(backend="cpp")(**batch).values, expected)
    assert recorder.calls == 2
    recorder.refuses = "float64 is not supported"
    make_loss(backend="auto")(**batch)
    assert recorder.calls == 2, "auto goes on to one that can serve"
    with pytest.raises(RuntimeError, match="'cpp' cannot serve this call: float64 is not supported"):
        make_loss(backend="cpp")(**batch)


def test_import_stays_light() -> None:
    code = (
        "import sys, ttsfast.losses.module, ttsfast.functional;"
        "heavy = {'librosa', 'typer', 'matplotlib', 'soundfile', 'triton'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
