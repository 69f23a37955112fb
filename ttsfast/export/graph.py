"""A ConvTTS as one ONNX graph: two traced parts, the second made the body of a loop behind the first."""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ttsfast.export.tracing import prefixed, trace, voice_model
from ttsfast.models.convtts import ConvTTS
from ttsfast.models.decoding import DecoderCaches, readable, window
from ttsfast.models.layers import ConvCache, GatedConv, SequenceConv

if TYPE_CHECKING:
    from ttsfast.models.voice_info import VoiceInfo

STATES = ("heard", "cache", "last_read", "stopped", "mel_lengths")
"""What one step hands to the next."""
SHARED = ("keys", "values", "condition", "speaker", "text_lengths", "max_frames", "stop_threshold")
"""What every step reads."""
NEXTS = ("going", *(f"next_{name}" for name in STATES), "step_mel", "step_attention")
"""What a step gives: whether to go on, the next state, its mel and its attention."""


class _ShiftCache(ConvCache):
    """A convolution's past in order of time, oldest first: a value, where :class:`ConvCache` is a place."""

    def __init__(self, past: Tensor, weight: Tensor) -> None:
        self.past, self.weight = past, weight

    def taps(self, x: Tensor, conv: SequenceConv) -> Tensor:
        """As in :class:`ConvCache`; what the next step needs is then in ``past``."""
        known = torch.cat([self.past, x], dim=1)
        self.past = known[:, 1:]
        return torch.cat([known[:, i * conv.dilation] for i in range(conv.kernel_size)], dim=-1)[:, None]


class _Start(nn.Module):
    """The text encoder and the state before the first step."""

    def __init__(self, model: ConvTTS, reach: int) -> None:
        super().__init__()
        self.model, self.reach = model, reach

    def forward(
        self, text: Tensor, text_lengths: Tensor, speaker: Tensor, max_frames: Tensor
    ) -> tuple[Tensor, ...]:
        model, batch = self.model, text.shape[0]
        keys, values = model.encode_text(text, text_lengths, speaker)
        heard = model.silence.expand(batch, 1, -1) + 0.0
        cache = model.silence.new_zeros(batch, self.reach, model.config.channels)
        unread = torch.zeros_like(text_lengths)
        mel_lengths = unread + max_frames
        return keys, values, model.condition(None, speaker), heard, cache, unread, unread > 0, mel_lengths


class _Step(nn.Module):
    """One decoder step as a function of its inputs alone."""

    def __init__(self, model: ConvTTS) -> None:
        super().__init__()
        self.model = model
        self.convs = [
            layer.conv
            for stack in (model.mel_layers, model.decoder_layers)
            for layer in stack
            if isinstance(layer, GatedConv)
        ]
        self.reaches = [(conv.kernel_size - 1) * conv.dilation for conv in self.convs]
        # The taps side by side, made here once and not at every step.
        self.weights = nn.ParameterList(
            conv.weight.detach().transpose(1, 2).flatten(1) for conv in self.convs
        )

    def forward(
        self,
        step: Tensor,
        heard: Tensor,
        cache: Tensor,
        last_read: Tensor,
        stopped: Tensor,
        mel_lengths: Tensor,
        keys: Tensor,
        values: Tensor,
        condition: Tensor,
        speaker: Tensor,
        text_lengths: Tensor,
        max_frames: Tensor,
        stop_threshold: Tensor,
    ) -> tuple[Tensor, ...]:
        model, config = self.model, self.model.config
        parts = cache.split(self.reaches, dim=1)
        caches: list[ConvCache] = [_ShiftCache(p, w) for p, w in zip(parts, self.weights, strict=True)]
        n_mel = len(model.mel_layers)
        state = DecoderCaches(caches[:n_mel], caches[n_mel:], step=step + 0)  # type: ignore[arg-type]
        longest = keys.shape[1]
        allowed = readable(text_lengths, longest) & window(
            last_read, longest, config.window_back, config.window_ahead
        )
        mel, stop, weights = model.decode(heard, keys, values, allowed[:, None], condition, speaker, state)
        fires = ~stopped & (torch.sigmoid(stop[:, 0]) >= stop_threshold)
        end = torch.minimum((step + 1) * config.reduction_factor, max_frames)
        stopped = stopped | fires
        return (
            ~stopped.all(),
            mel[:, -1:] + 0.0,
            torch.cat([c.past for c in caches if isinstance(c, _ShiftCache)], dim=1),
            weights[:, 0].argmax(dim=-1),
            stopped,
            torch.where(fires, end, mel_lengths),
            mel,
            weights[:, 0],
        )


def speaking_graph(onnx: ModuleType, model: ConvTTS, voice: VoiceInfo) -> Any:
    """The whole of synthesis as an ONNX model with the inputs and outputs of :mod:`ttsfast.models.exported`.

    Raises RuntimeError where torch's exporter gives what cannot be joined.
    """
    step = _Step(model)
    batch, symbols = torch.export.Dim("batch", min=1), torch.export.Dim("symbols", min=1)
    text = torch.ones(2, 7, dtype=torch.int64)
    given = {
        "text": text,
        "text_lengths": torch.tensor([7, 3]),
        "speaker": torch.zeros(2, dtype=torch.int64),
        "max_frames": torch.tensor(8),
    }
    of_batch = {name: {0: batch} for name in (*STATES, *SHARED[:5])}
    shapes = {**of_batch, "text": {0: batch, 1: symbols}}
    shapes |= {name: {0: batch, 1: symbols} for name in ("keys", "values")}
    start = _Start(model, sum(step.reaches))
    first = dict(zip((*SHARED[:3], *STATES), start(**given), strict=True))
    started = trace(start, given, list(first), shapes)
    state = {name: first[name] for name in STATES}
    shared = {**{n: first[n] for n in SHARED[:3]}, **{n: given[n] for n in SHARED[3:6]}}
    inputs = {"step": torch.tensor(0), **state, **shared, "stop_threshold": torch.tensor(0.5)}
    stepped = trace(step, inputs, NEXTS, shapes)
    return _join(onnx, started, stepped, model, voice)


def _join(onnx: ModuleType, started: Any, stepped: Any, model: ConvTTS, voice: VoiceInfo) -> Any:
    h, kinds = onnx.helper, onnx.TensorProto
    started, stepped = (prefixed(proto, p, STATES) for proto, p in ((started, "start/"), (stepped, "step/")))
    of_step = {value.name: value for value in (*stepped.graph.input, *stepped.graph.output)}
    body = h.make_graph(
        list(stepped.graph.node),
        "step",
        [
            of_step["step"],
            h.make_tensor_value_info("still_going", kinds.BOOL, []),
            *(of_step[name] for name in STATES),
        ],
        [
            of_step["going"],
            *(of_step[f"next_{n}"] for n in STATES),
            of_step["step_mel"],
            of_step["step_attention"],
        ],
    )
    # A name inside the loop may not hide one outside: the state before and after has names of its own.
    ends = [f"last_{name}" for name in STATES[:-1]]
    r, bins = model.reduction_factor, model.n_mels
    constants = {
        "r": h.make_tensor("r", kinds.INT64, [], [r]),
        "r_less_1": h.make_tensor("r_less_1", kinds.INT64, [], [r - 1]),
        "yes": h.make_tensor("yes", kinds.BOOL, [], [True]),
        "mel_shape": h.make_tensor("mel_shape", kinds.INT64, [3], [0, -1, bins]),
        "zero": h.make_tensor("zero", kinds.INT64, [1], [0]),
        "one": h.make_tensor("one", kinds.INT64, [1], [1]),
        "vector": h.make_tensor("vector", kinds.INT64, [1], [1]),
    }
    nodes = [
        *started.graph.node,
        h.make_node("Add", ["max_frames", "r_less_1"], ["rounded"]),
        h.make_node("Div", ["rounded", "r"], ["max_steps"]),
        h.make_node(
            "Loop",
            ["max_steps", "yes", *(f"first_{name}" for name in STATES)],
            [*ends, "mel_lengths", "mel_by_step", "attention_by_step"],
            body=body,
        ),
        h.make_node("Transpose", ["mel_by_step"], ["mel_groups"], perm=[1, 0, 2, 3]),
        h.make_node("Reshape", ["mel_groups", "mel_shape"], ["mel_whole"]),
        h.make_node("Reshape", ["max_frames", "vector"], ["limit"]),
        h.make_node("Slice", ["mel_whole", "zero", "limit", "one"], ["mel"]),
        h.make_node("Transpose", ["attention_by_step"], ["attention"], perm=[1, 0, 2]),
        h.make_node("Identity", ["last_stopped"], ["stopped"]),
    ]
    initializers = [*started.graph.initializer, *stepped.graph.initializer, *constants.values()]
    return voice_model(onnx, nodes, initializers, started.ir_version, voice)
