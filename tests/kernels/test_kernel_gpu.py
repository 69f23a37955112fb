"""What only a CUDA device can show: graphs, synchronisation, launches, streams, offsets beyond 2^31."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from interpreter import INTERPRETED
from kernel_cases import make_inputs, make_spec, rebuilt
from torch import Tensor

from ttsfast.losses import reference
from ttsfast.losses.module import LossOutput, TTSLoss
from ttsfast.losses.triton import TritonBackend
from ttsfast.terms.spec import LossInputs
from ttsfast.terms.state import FixedWeights

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available() or INTERPRETED, reason="no CUDA device"),
]
CUDA = torch.device("cuda")


@pytest.fixture
def no_synchronisation() -> Iterator[None]:
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def call(loss: TTSLoss, inputs: LossInputs, mel: Tensor) -> LossOutput:
    return loss(
        mel,
        inputs.target,
        inputs.mel_lengths,
        stop_logits=inputs.stop_logits,
        posterior=inputs.posterior,
        attention=inputs.attention,
        text_lengths=inputs.text_lengths,
    )


def make_loss(backend: str = "triton") -> TTSLoss:
    return TTSLoss(weighting="dwa", mel_smoothing="noise", backend=backend).to(CUDA)


def prepared(seed: int = 0) -> tuple[LossInputs, Tensor]:
    inputs = make_inputs(lengths=(40, 24), frames=40, bins=80, symbols=16, latents=16, seed=seed)
    return inputs, inputs.mel[0].clone().requires_grad_()


def test_auto_picks_it() -> None:
    inputs, mel = prepared()
    assert call(make_loss("auto"), inputs, mel).clamped is not None


def test_no_synchronisation(no_synchronisation: None) -> None:
    torch.cuda.set_sync_debug_mode("default")
    loss = make_loss()
    inputs, mel = prepared()
    call(loss, inputs, mel).total.backward()
    torch.cuda.set_sync_debug_mode("error")
    out = call(loss, inputs, mel)
    out.total.backward()
    out = call(loss, inputs, mel)
    (out.total * 3).backward()


def test_two_launches() -> None:
    loss = make_loss()
    inputs, mel = prepared()
    for _ in range(2):
        torch.autograd.grad(call(loss, inputs, mel).total, mel)
    one = torch.ones((), device=CUDA)
    torch.cuda.synchronize()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        total = call(loss, inputs, mel).total
        torch.autograd.grad(total, mel, one)
        torch.cuda.synchronize()
    kernels = [event.name for event in profile.events() if event.device_type.name == "CUDA"]
    assert sorted(kernels) == ["loss_backward", "loss_forward"], kernels


def test_a_captured_graph_replays_the_state() -> None:
    captured, plain = make_loss(), make_loss()
    inputs, mel = prepared()
    start = {name: value.clone() for name, value in captured.state_dict().items()}

    def step(loss: TTSLoss) -> tuple[Tensor, Tensor]:
        total = call(loss, inputs, mel).total
        return total.detach(), torch.autograd.grad(total, mel)[0]

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(2):
            step(captured)
    torch.cuda.current_stream().wait_stream(stream)
    captured.load_state_dict(start)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        total, gradient = step(captured)
    captured.load_state_dict(start)
    plain.load_state_dict(start)
    for _ in range(5):
        graph.replay()
        wanted = step(plain)
        assert torch.equal(total, wanted[0])
        assert torch.equal(gradient, wanted[1])
    for name, value in captured.state_dict().items():
        assert torch.equal(value, plain.state_dict()[name]), name
    assert int(captured.noise_step) == 5


def test_two_streams_at_once() -> None:
    spec, backend = make_spec(), TritonBackend()
    weights = torch.tensor(spec.base_weights, device=CUDA)
    step = torch.zeros((), dtype=torch.int64, device=CUDA)
    inputs = make_inputs(lengths=(800,) * 16, frames=800, bins=80)
    wanted = backend.call(spec, inputs, FixedWeights(weights, step), None, None).total
    streams = [torch.cuda.Stream() for _ in range(2)]
    torch.cuda.synchronize()
    totals = []
    for _ in range(20):
        for stream in streams:
            with torch.cuda.stream(stream):
                totals.append(backend.call(spec, inputs, FixedWeights(weights, step), None, None).total)
    torch.cuda.synchronize()
    assert all(torch.equal(total, wanted) for total in totals)


@pytest.mark.parametrize("transposed", [False, True])
def test_offsets_beyond_32_bits(transposed: bool) -> None:
    """The second utterance lies 2^31 elements and more after the first."""
    if torch.cuda.mem_get_info()[0] < 24 << 30:
        pytest.skip("needs 24 GiB of free device memory")
    apart = 2**31 + 4096
    frames, bins = 16, 80
    spec = make_spec()
    weights = torch.tensor(spec.base_weights, device=CUDA)
    step = torch.zeros((), dtype=torch.int64, device=CUDA)
    near = torch.randn(2, 2, frames, bins, device=CUDA).bfloat16()
    far = []
    for tensor in near:
        memory = torch.empty(apart + frames * bins, dtype=torch.bfloat16, device=CUDA)
        strides = (apart, 1, frames) if transposed else (apart, bins, 1)
        far.append(memory.as_strided(tensor.shape, strides).copy_(tensor))
    lengths = torch.tensor([frames, frames - 3], device=CUDA)
    empty = LossInputs((near[0],), near[1], lengths, lengths, None, None, None, None, None, (), None, None)
    state = FixedWeights(weights, step)
    moved = empty._replace(mel=(far[0],), target=far[1])
    result = TritonBackend().call(spec, moved, state, None, None)
    truth = reference.run(spec, empty, state, None)
    torch.testing.assert_close(result.total, truth.total, rtol=1e-5, atol=0)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_a_device_that_is_not_the_current_one() -> None:
    inputs = make_inputs(lengths=(5,), frames=5)
    moved = rebuilt(inputs, lambda tensor: tensor.to("cuda:1"))._replace(
        mel_lengths=inputs.mel_lengths.to("cuda:1"),
        step_lengths=inputs.step_lengths.to("cuda:1"),
        text_lengths=torch.full((1,), 9, device="cuda:1"),
    )
    spec = make_spec()
    weights = torch.tensor(spec.base_weights, device="cuda:1")
    step = torch.zeros((), dtype=torch.int64, device="cuda:1")
    total = TritonBackend().call(spec, moved, FixedWeights(weights, step), None, None).total
    torch.testing.assert_close(total, reference.run(spec, moved, FixedWeights(weights, step), None).total)
