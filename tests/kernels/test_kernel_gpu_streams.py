"""What can go wrong between the loss and the rest of a training step on a CUDA device: streams, graphs, loss
scaling, compiled graphs, lengths out of range."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from interpreter import INTERPRETED
from kernel_cases import make_inputs
from torch import Tensor

from ttsfast.kernels import counter as counters
from ttsfast.losses.module import LossOutput, TTSLoss
from ttsfast.terms.spec import LossInputs

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available() or INTERPRETED, reason="no CUDA device"),
]
CUDA = torch.device("cuda")
CYCLES = 20_000_000
"""About ten milliseconds in which a stream is busy."""


def make_loss(backend: str = "triton", **options: Any) -> TTSLoss:
    return TTSLoss(weighting="dwa", backend=backend, **options).to(CUDA)


def prepared(seed: int = 0, frames: int = 40) -> tuple[LossInputs, Tensor]:
    inputs = make_inputs(lengths=(frames, 24), frames=frames, bins=80, symbols=16, latents=16, seed=seed)
    return inputs, inputs.mel[0].nan_to_num().clone().requires_grad_()


def call(loss: TTSLoss, inputs: LossInputs, mel: Tensor, **options: Any) -> LossOutput:
    return loss(
        mel,
        inputs.target,
        options.pop("mel_lengths", inputs.mel_lengths),
        stop_logits=inputs.stop_logits,
        posterior=inputs.posterior,
        attention=inputs.attention,
        text_lengths=inputs.text_lengths,
        **options,
    )


def test_a_stream_that_comes_first_while_another_is_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The words that programs count themselves in by are filled on the stream of the first launch of all."""
    inputs, mel = prepared()
    wanted = call(make_loss("torch"), inputs, mel).values
    call(make_loss(), inputs, mel)
    monkeypatch.setattr(counters, "_banks", {})
    # So that what the words' memory held before is not 0 by chance.
    torch.full((counters.WORDS, counters.SPACING), 7, dtype=torch.int32, device=CUDA)
    busy, other = make_loss(), make_loss()
    torch.cuda.synchronize()
    side = torch.cuda.Stream()
    torch.cuda._sleep(CYCLES)
    first = call(busy, inputs, mel).values
    with torch.cuda.stream(side):
        second = call(other, inputs, mel).values
    torch.cuda.synchronize()
    for found in (first, second):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-6)


def test_the_backward_pass_runs_where_the_forward_pass_ran() -> None:
    inputs, mel = prepared()
    loss = make_loss(mel_smoothing="none")
    (wanted,) = torch.autograd.grad(call(loss, inputs, mel).total * 3, mel)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        torch.cuda._sleep(CYCLES)
        total = call(make_loss(mel_smoothing="none"), inputs, mel).total
    # Autograd goes back to the side stream by itself and makes this one wait for the leaf.
    total.backward(torch.tensor(3.0, device=CUDA))
    torch.cuda.synchronize()
    assert mel.grad is not None
    assert torch.equal(mel.grad, wanted)


def test_a_graph_replays_beside_other_work() -> None:
    """The captured launch has a word of its own to count in."""
    inputs, mel = prepared(frames=800)
    loss, beside = make_loss(mel_smoothing="noise"), make_loss(mel_smoothing="none")
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(2):
            torch.autograd.grad(call(loss, inputs, mel).total, mel)
    torch.cuda.current_stream().wait_stream(side)
    start = {name: value.clone() for name, value in loss.state_dict().items()}
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = call(loss, inputs, mel)
        (gradient,) = torch.autograd.grad(out.total, mel)
    expected, quiet = [], call(beside.eval(), inputs, mel).values
    loss.load_state_dict(start)
    for _ in range(5):
        graph.replay()
        expected.append((out.total.clone(), gradient.clone()))
    assert len({float(total) for total, _ in expected}) == 5
    loss.load_state_dict(start)
    torch.cuda.synchronize()
    found, others = [], []
    for _ in range(5):
        graph.replay()
        found.append((out.total.clone(), gradient.clone()))
        with torch.cuda.stream(side):
            others.append(call(beside, inputs, mel).values)
    torch.cuda.synchronize()
    for one, two in zip(found, expected, strict=True):
        assert torch.equal(one[0], two[0])
        assert torch.equal(one[1], two[1])
    assert all(torch.equal(other, quiet) for other in others)


def test_the_first_launch_of_all_in_a_capture(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs, mel = prepared()
    loss = make_loss(mel_smoothing="none").eval()
    wanted = call(loss, inputs, mel).values
    monkeypatch.setattr(counters, "_banks", {})
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        values = call(loss, inputs, mel).values
    for _ in range(3):
        values.zero_()
        graph.replay()
        torch.testing.assert_close(values, wanted)


@pytest.mark.parametrize("hinted", [False, True])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32], ids=str)
def test_torchs_own_loss_scaler(hinted: bool, dtype: torch.dtype) -> None:
    inputs, mel = prepared()
    weight = torch.nn.Parameter(torch.ones(80, device=CUDA))
    plain = torch.autograd.grad(call(make_loss("torch"), inputs, mel.detach() * weight).total, weight)[0]
    scaler = torch.amp.GradScaler("cuda", init_scale=2.0**10)
    optimizer = torch.optim.SGD([weight], lr=0.0)
    scaler.scale(torch.ones((), device=CUDA))
    out = call(
        make_loss(),
        inputs,
        (mel.detach() * weight).to(dtype),
        grad_scale=scaler._scale if hinted else None,
    )
    scaler.scale(out.total).backward()
    scaler.unscale_(optimizer)
    scaler.step(optimizer)
    scaler.update()
    assert weight.grad is not None
    tolerance = 1e-2 if dtype == torch.float16 else 1e-4
    error = (weight.grad - plain).abs().max() / plain.abs().max()
    assert float(error) < tolerance


@pytest.mark.parametrize("mode", [None, "reduce-overhead"])
def test_compiled_steps_equal_eager_ones(mode: str | None) -> None:
    torch._dynamo.reset()
    inputs, mel = prepared()
    eager, loss = make_loss(mel_smoothing="noise"), make_loss(mel_smoothing="noise")
    compiled = torch.compile(loss, fullgraph=True, mode=mode)
    for _ in range(5):
        wanted = call(eager, inputs, mel)
        (slope,) = torch.autograd.grad(wanted.total, mel)
        if mode is not None:
            torch.compiler.cudagraph_mark_step_begin()
        found = call(compiled, inputs, mel)
        (gradient,) = torch.autograd.grad(found.total, mel)
        torch.testing.assert_close(found.values, wanted.values, rtol=1e-5, atol=1e-7)
        torch.testing.assert_close(gradient, slope, rtol=1e-5, atol=1e-9)
    assert int(loss.noise_step) == 5


@pytest.mark.parametrize("mode", [None, "reduce-overhead"])
def test_a_compiled_call_may_be_the_first_of_all(mode: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """What stays in the memory that a graph is warmed up on makes torch raise."""
    torch._dynamo.reset()
    inputs, mel = prepared()
    wanted = call(make_loss("torch", mel_smoothing="none").eval(), inputs, mel).values
    monkeypatch.setattr(counters, "_banks", {})
    compiled = torch.compile(make_loss(mel_smoothing="none").eval(), fullgraph=True, mode=mode)
    for _ in range(4):
        if mode is not None:
            torch.compiler.cudagraph_mark_step_begin()
        out = call(compiled, inputs, mel)
        torch.autograd.grad(out.total, mel)
        torch.testing.assert_close(out.values, wanted, rtol=1e-4, atol=1e-6)
    assert counters._banks == {}


@pytest.mark.parametrize("compiled", [False, True])
def test_lengths_out_of_range_are_clamped_and_flagged(compiled: bool) -> None:
    torch._dynamo.reset()
    inputs, mel = prepared()
    loss = make_loss(mel_smoothing="none").eval()
    run = torch.compile(loss, fullgraph=True) if compiled else loss
    within = call(loss, inputs, mel, mel_lengths=torch.tensor([40, 0], device=CUDA))
    beyond = call(run, inputs, mel, mel_lengths=torch.tensor([2**31 - 1, -5], device=CUDA))
    assert beyond.clamped is not None
    assert int(beyond.clamped) > 0
    torch.testing.assert_close(beyond.values, within.values, rtol=1e-6, atol=0)


def test_gradients_survive_the_memory_of_the_next_step() -> None:
    """What backward hands over is the caller's: later calls must not be given its memory."""
    inputs, mel = prepared(frames=800)
    loss = make_loss(mel_smoothing="none").eval()
    (kept,) = torch.autograd.grad(call(loss, inputs, mel).total, mel)
    before = kept.clone()
    for _ in range(10):
        torch.autograd.grad(call(loss, inputs, mel).total * 2, mel)
    assert torch.equal(kept, before)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_both_passes_on_a_device_that_is_not_the_current_one() -> None:
    other = torch.device("cuda:1")
    mel = torch.randn(2, 40, 80, device=other, requires_grad=True)
    target, lengths = torch.randn(2, 40, 80, device=other), torch.tensor([40, 7], device=other)
    options = {"kl_weight": 0.0, "stop_weight": 0.0, "attention_weight": 0.0}
    slopes = []
    for backend in ("triton", "torch"):
        loss = TTSLoss(backend=backend, **options).to(other)  # type: ignore[arg-type]
        total = loss(mel, target, lengths).total
        slopes.append(torch.autograd.grad(total * 3, mel)[0])
    assert torch.cuda.current_device() == 0
    torch.testing.assert_close(*slopes)
