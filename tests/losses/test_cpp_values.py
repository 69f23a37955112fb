"""The C++ backend's values and gradients on shapes, options and numbers chosen to break it.

Mutants planted one at a time in csrc and in the glue, and the test that killed each:

- half of Huber's slope, L1's slope at 0, target gradient without 1 - e, floor of one prediction, stop
  without its tail, truncated clips that end, heads not averaged, zeros of padding one row late, nine rounds
  of Philox: test_no_worse_than_torch
- divisor not clamped to 1: test_normalizer
- e^x - 1 - x by subtraction: test_small_divergences_keep_their_digits
- free bits that swallow NaN: test_nan_in_the_valid_region_shows
- root of an infinite precision times 0: test_infinite_prior_precision_at_equal_means
- bfloat16 cut off, not rounded: test_no_worse_than_torch
- head of a streamed line counted in every run, stride of a layer without heads:
  test_gradients_are_written_whole_and_nothing_else
- shape of a gradient not checked: test_bad_calls_are_refused_before_memory_is_touched
- lengths not clamped: test_lengths_out_of_range_are_clamped
- blocks that depend on the threads: test_the_number_of_threads_changes_no_bit
- pool not renewed after fork(): test_a_forked_child_computes_too
- gradients handed over though the graph is kept, rescaled in place though kept:
  test_retain_graph_gives_the_same_gradients_again
- handed over twice: test_a_leaf_takes_the_gradient_without_a_copy
- silent double backward: test_double_backward_raises
- half precision rescaled instead of computed again: test_any_incoming_gradient
- recomputation with the next step's noise: test_half_precision_is_not_rounded_twice
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from cpp_checks import MISSING, WHY_MISSING, assert_accurate, assert_same_bits, cast, run
from loss_checks import assert_close, make_batch, make_loss

from ttsfast import native
from ttsfast.losses import backend as backends
from ttsfast.losses.extension import as_given, plan_of
from ttsfast.losses.module import Counts
from ttsfast.losses.philox import philox4x32, standard_normal
from ttsfast.terms.spec import TERMS, LossInputs

pytestmark = pytest.mark.skipif(MISSING, reason=WHY_MISSING)

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
OPTIONS: list[dict[str, Any]] = [
    {"huber_delta": 0.6},
    {"mel_loss": "l1", "normalization": "utterance", "kl_free_bits": 0.7, "kl_normalization": "vector"},
    {"mel_loss": "mse", "mel_smoothing": "noise", "mel_label_smoothing": 0.3, "stop_label_smoothing": 0.0},
    {"mel_smoothing": "none", "stop_pos_weight": 1.0, "stop_tail_frames": 0, "attention_sigma": 0.4},
    {"normalization": "utterance", "mel_smoothing": "noise", "kl_free_bits": 40.0, "stop_tail_frames": 3},
]
SHAPES: list[dict[str, Any]] = [
    {"lengths": [67, 1, 0, 40], "bins": 80, "latents": 64, "per_frame": True, "prior": True, "pair": True},
    {"lengths": [31, 63, 65], "bins": 100, "latents": 63, "per_frame": True, "heads": 3, "frames": 65},
    {"lengths": [13, 7], "bins": 63, "latents": 65, "prior": True, "reduction": 3, "heads": 2},
    {"lengths": [1], "bins": 1, "latents": 1, "frames": 1, "per_frame": True},
    {"lengths": [5, 5], "bins": 17, "latents": 2, "frames": 5, "tail": 0},
]


def batch_of(dtype: torch.dtype, lengths: list[int], **shape: Any) -> dict[str, Any]:
    batch = make_batch(lengths, [3 + 2 * (i % 3) for i in range(len(lengths))], dtype=dtype, **shape)
    batch["mel_target"].requires_grad_()
    batch["truncated"] = torch.arange(len(lengths)) % 4 == 3
    return batch


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: f"{shape['lengths']}x{shape['bins']}")
@pytest.mark.parametrize("options", OPTIONS, ids=range(len(OPTIONS)))
def test_no_worse_than_torch(dtype: torch.dtype, shape: dict[str, Any], options: dict[str, Any]) -> None:
    assert_accurate(batch_of(dtype, **shape), **options)


@pytest.mark.parametrize("isa", [1, 2, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("options", OPTIONS, ids=range(len(OPTIONS)))
def test_every_instruction_set(
    isa: int, dtype: torch.dtype, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert native.core is not None
    if not native.core.loss_supports(isa):
        pytest.skip("this processor does not have these instructions")
    monkeypatch.setattr(backends.BACKENDS["cpp"], "isa", isa)
    assert_accurate(batch_of(dtype, **SHAPES[0]), **options)


def test_statistics_of_bins() -> None:
    mean, std = torch.linspace(-2, 1, 80), torch.linspace(0, 2, 80)
    for smoothing in ("mean", "noise"):
        batch = batch_of(torch.float32, [30, 9], bins=80)
        assert_accurate(batch, mel_mean=mean, mel_std=std, mel_smoothing=smoothing, mel_label_smoothing=0.4)


def test_noise_is_that_of_the_reference() -> None:
    shape = (3, 21, 37)
    prediction = torch.zeros(shape, dtype=torch.float64)
    loss = make_loss(
        backend="cpp", mel_smoothing="noise", mel_label_smoothing=1.0, mel_loss="mse", seed=123456789012,
        kl_weight=0, stop_weight=0, attention_weight=0, mel_weight=1.0,
    )  # fmt: skip
    loss.noise_step.fill_(77)
    target = torch.zeros(shape, dtype=torch.float64)
    lengths = torch.full((3,), 21)
    (grad,) = torch.autograd.grad(loss(prediction.requires_grad_(), target, lengths).total, prediction)
    noise = standard_normal(shape, 123456789012, torch.tensor(77), torch.float64)
    assert_close(grad, -2 * noise / noise.numel(), rtol=1e-12)


@pytest.mark.parametrize("normalization", ["frame", "utterance"])
def test_normalizer(normalization: str) -> None:
    batch = batch_of(torch.float32, [30, 9, 4], bins=20)
    counts = Counts(torch.tensor(100), 130.0, torch.tensor(90.0), 7)
    for normalizer in (counts, torch.tensor(123.0), 17.5, 0.0):
        assert_accurate(batch, normalizer=normalizer, normalization=normalization)


def test_empty_axes() -> None:
    for lengths, frames in (([0, 0], 0), ([0, 0], 9)):
        batch = batch_of(torch.float32, lengths, frames=frames, bins=80, per_frame=True, symbols=5)
        result = run(batch, "cpp")
        assert all(not value.isnan().any() and not value.any() for value in result.values())


def test_lengths_of_texts_that_nothing_attends_to() -> None:
    """As a trainer gives them for every model."""
    from ttsfast import TTSLoss

    mel, target = torch.randn(2, 5, 8, requires_grad=True), torch.randn(2, 5, 8)
    lengths = torch.tensor([5, 3])
    totals = []
    for backend in ("cpp", "torch"):
        loss = TTSLoss(kl_weight=0.0, stop_weight=0.0, attention_weight=0.0, backend=backend)
        totals.append(loss(mel, target, lengths, text_lengths=torch.tensor([2, 4])).total.detach())
    torch.testing.assert_close(totals[0], totals[1])


def test_a_weight_of_zero_sends_nothing() -> None:
    batch = batch_of(torch.float32, [9, 4])
    full, without = run(batch, "cpp"), run(batch, "cpp", kl_weight=0.0)
    assert_close(without["values"], full["values"], rtol=0, atol=0)
    assert not without["grad posterior.0"].any()
    assert full["grad posterior.0"].any()


def test_extreme_logits_and_variances() -> None:
    batch = batch_of(torch.float32, [8], latents=8, per_frame=True, frames=8)
    extremes = torch.tensor([-1e30, -90.0, -20.0, -1e-6, 0.0, 1e-6, 20.0, 1e30])
    batch["stop_logits"] = extremes.view(1, 8).clone().requires_grad_()
    mu = batch["posterior"][0]
    logvar = torch.tensor([-100.0, -50.0, -1e-4, -1e-8, 0.0, 1e-8, 1e-4, 80.0]).expand(1, 8, 8)
    batch["posterior"] = (mu, logvar.clone().requires_grad_())
    assert_accurate(batch)
    assert_accurate(batch, stop_label_smoothing=0.0)


def test_small_divergences_keep_their_digits() -> None:
    logvar = torch.full((1, 64), 1e-4, requires_grad=True)
    batch = batch_of(torch.float32, [4], latents=64)
    batch["posterior"] = (torch.zeros(1, 64, requires_grad=True), logvar)
    result = run(batch, "cpp", kl_normalization="vector")
    expected = 64 * 0.5 * (math.expm1(1e-4) - 1e-4)
    assert_close(result["values"][1], torch.tensor(expected), rtol=1e-5)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_padding_is_never_read(bad: float) -> None:
    clean = batch_of(torch.float32, [9, 4], per_frame=True, prior=True, heads=2, bins=20)
    dirty = cast(clean, torch.float32)
    with torch.no_grad():
        for name in ("mel_pred", "mel_target"):
            dirty[name][0, 9:] = bad
            dirty[name][1, 4:] = bad
        for name in ("posterior", "prior"):
            for part in dirty[name]:
                part[0, 9:] = bad
                part[1, 4:] = bad
        dirty["stop_logits"][1, 12:] = bad
        dirty["attention"][1, :, 4:] = bad
        dirty["attention"][0, ..., 3:] = bad
    for options in OPTIONS:
        assert_same_bits(run(clean, "cpp", **options), run(dirty, "cpp", **options))


@pytest.mark.parametrize("free_bits", [0.0, 2.0])
@pytest.mark.parametrize("name", ["mel_pred", "mel_target", "posterior", "stop_logits", "attention"])
def test_nan_in_the_valid_region_shows(name: str, free_bits: float) -> None:
    batch = batch_of(torch.float32, [9, 4], per_frame=True, bins=20)
    value = batch[name][1] if name == "posterior" else batch[name]
    with torch.no_grad():
        value[1, 2] = math.nan
    expected, result = (run(batch, backend, kl_free_bits=free_bits) for backend in ("torch", "cpp"))
    assert result["total"].isnan()
    for key in expected:
        torch.testing.assert_close(result[key].isnan(), expected[key].isnan(), msg=key)


def test_infinite_prior_precision_at_equal_means() -> None:
    batch = batch_of(torch.float32, [4, 3], per_frame=True)
    mu, logvar = batch["posterior"]
    with torch.no_grad():
        logvar.fill_(-300.0)
    batch["prior"] = (mu.detach().clone().requires_grad_(), logvar.detach().clone().requires_grad_())
    expected, result = (run(batch, backend) for backend in ("torch", "cpp"))
    for key in expected:
        torch.testing.assert_close(result[key], expected[key], rtol=1e-5, atol=1e-7, equal_nan=False)


@pytest.mark.parametrize("isa", [1, 2, 3])
@pytest.mark.parametrize(("seed", "step"), [(0, 0), (0x12345678, 7), (2**32 - 1, 2**32 - 1)])
def test_the_noise_is_made_of_the_same_integers(isa: int, seed: int, step: int) -> None:
    """In double precision the gradient tells the noise well enough to find the 24 bits that were used of each
    random word."""
    assert native.core is not None
    if not native.core.loss_supports(isa):
        pytest.skip("this processor lacks the instruction set")
    batch, frames, bins = 2, 7, 82
    zeros = torch.zeros(batch, frames, bins, dtype=torch.float64)
    mel = zeros.clone().requires_grad_()
    options = {"mel_loss": "mse", "mel_smoothing": "noise", "mel_label_smoothing": 0.5, "seed": seed}
    spec = make_loss(mel_weight=1.0, kl_weight=0.0, stop_weight=0.0, attention_weight=0.0, **options).spec
    lengths = torch.full((batch,), frames)
    nothing = dict.fromkeys(
        ("text_lengths", "truncated", "stop_logits", "posterior", "prior", "mel_mean", "mel_std")
    )
    inputs = LossInputs(
        mel=(mel,), target=zeros, mel_lengths=lengths, step_lengths=lengths, attention=(), **nothing
    )
    noise_step = torch.tensor(step)
    state = torch.ones(len(TERMS), dtype=torch.float64), noise_step
    _, written = plan_of(spec).call(as_given(inputs), state, None, 1.0, True, torch.empty_like, 1, isa)
    (slope,) = written.gradients
    noise = -slope * zeros.numel()
    blocks = -(-bins // 4)
    words = philox4x32(
        (
            torch.arange(blocks).view(1, 1, -1),
            torch.arange(frames).view(1, -1, 1),
            torch.arange(batch).view(-1, 1, 1),
            torch.tensor(0),
        ),
        (torch.tensor(seed), noise_step),
    )
    for first in (0, 2):
        x, y = (word.expand(batch, frames, blocks) >> 8 for word in words[first : first + 2])
        cosine, sine = noise[:, :, first::4], noise[:, :, first + 1 :: 4]
        # The last block has but two of its four bins.
        whole = sine.shape[2]
        radius = torch.hypot(cosine, sine)
        assert torch.equal((torch.exp(-0.5 * radius**2) * 2**24).round().long() - 1, x[:, :, :whole])
        turn = torch.atan2(sine, cosine) / (2 * math.pi) % 1
        assert torch.equal((turn * 2**24).round().long() % 2**24, y[:, :, :whole])
