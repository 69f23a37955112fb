"""A ParallelTTS as one ONNX graph: two traced parts, and between them as many steps as the speech needs."""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ttsfast.alignment.functional import path_of
from ttsfast.export.tracing import prefixed, trace, voice_model
from ttsfast.models.paralleltts import ParallelTTS

if TYPE_CHECKING:
    from ttsfast.models.voice_info import VoiceInfo

PLANNED = ("encoded", "durations", "lengths", "ended")
"""What the first part gives, and the second reads."""


class _Plan(nn.Module):
    """From the text to what is spoken when."""

    def __init__(self, model: ParallelTTS) -> None:
        super().__init__()
        self.model = model

    def forward(
        self,
        text: Tensor,
        text_lengths: Tensor,
        speaker: Tensor,
        max_frames: Tensor,
        speed: Tensor,
        pitch: Tensor | float = 0.0,
    ) -> tuple[Tensor, ...]:
        return self.model.plan(text, text_lengths, speaker, max_frames, speed, pitch)


class _Speak(nn.Module):
    """From there to the mel; ``steps`` (S,) counts them, by its length."""

    def __init__(self, model: ParallelTTS) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, encoded: Tensor, durations: Tensor, lengths: Tensor, steps: Tensor
    ) -> tuple[Tensor, Tensor]:
        path = path_of(durations, steps.shape[0])
        return self.model.spoken(encoded, durations, path, lengths), path.to(encoded.dtype)


def parallel_graph(onnx: ModuleType, model: ParallelTTS, voice: VoiceInfo) -> Any:
    """The whole of synthesis as an ONNX model, as :func:`ttsfast.export.graph.speaking_graph` makes it of
    ConvTTS, with an input for each of the model's controls."""
    batch, symbols = torch.export.Dim("batch", min=1), torch.export.Dim("symbols", min=1)
    steps = torch.export.Dim("steps", min=1)
    given = {
        "text": torch.ones(2, 7, dtype=torch.int64),
        "text_lengths": torch.tensor([7, 3]),
        "speaker": torch.zeros(2, dtype=torch.int64),
        "max_frames": torch.tensor(64),
    }
    given |= {name: torch.tensor(1.0) for name in model.controls}
    shapes: dict[str, Any] = {"text": {0: batch, 1: symbols}}
    shapes |= {name: {0: batch} for name in ("text_lengths", "speaker", "lengths")}
    shapes |= {name: {0: batch, 1: symbols} for name in ("encoded", "durations")}
    plan = _Plan(model)
    made = dict(zip(PLANNED, plan(**given), strict=True))
    planned = prefixed(trace(plan, given, PLANNED, shapes), "plan/")
    inputs = {name: made[name] for name in PLANNED[:3]} | {"steps": torch.arange(9)}
    shapes["steps"] = {0: steps}
    spoken = prefixed(trace(_Speak(model), inputs, ("whole", "attention"), shapes), "speak/")
    h, kinds = onnx.helper, onnx.TensorProto
    numbers = {"zero": 0, "one": 1, "r": model.reduction_factor, "r_less_1": model.reduction_factor - 1}
    constants = [h.make_tensor(name, kinds.INT64, [], [value]) for name, value in numbers.items()]
    vectors = {"start": 0, "axis": 1}
    constants += [h.make_tensor(name, kinds.INT64, [1], [value]) for name, value in vectors.items()]
    nodes = [
        *planned.graph.node,
        h.make_node("ReduceMax", ["lengths"], ["longest"], keepdims=0),
        h.make_node("Add", ["longest", "r_less_1"], ["rounded"]),
        h.make_node("Div", ["rounded", "r"], ["count"]),
        h.make_node("Range", ["zero", "count", "one"], ["steps"]),
        *spoken.graph.node,
        h.make_node("Unsqueeze", ["longest", "start"], ["end"]),
        h.make_node("Slice", ["whole", "start", "end", "axis"], ["mel"]),
        h.make_node("Identity", ["lengths"], ["mel_lengths"]),
        h.make_node("Identity", ["ended"], ["stopped"]),
    ]
    initializers = [*planned.graph.initializer, *spoken.graph.initializer, *constants]
    return voice_model(onnx, nodes, initializers, planned.ir_version, voice, model.controls)
