"""Whether an exported voice says what the model says: step by step on the same frames, and left to itself."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from ttsfast.export.graph import NEXTS, SHARED, STATES
from ttsfast.models.exported import open_session
from ttsfast.models.interface import FreeRunning

if TYPE_CHECKING:
    from ttsfast.models.voice import Voice

TOLERANCE = 1e-4
"""of mels, in standard deviations, and of attention weights"""
LONGEST = 400
"""frames of an utterance that are compared"""


def compare_steps(
    onnx: ModuleType, content: bytes, path: Path, voice: Voice, texts: Sequence[str]
) -> tuple[int, float]:
    """Frames compared, all there are, and the largest difference of a mel or an attention weight.

    The file's text encoder and its loop's body, taken out of its very bytes, walk along what PyTorch speaks:
    at every step they hear the frame and look around the symbol that PyTorch's step did. So no step's
    rounding reaches the next but through the convolutions' past, and none is magnified.
    """
    start, step = _parts(onnx, content, path)
    text, lengths, speaker = encoded_texts(voice, texts)
    r = voice.model.reduction_factor
    assert isinstance(r, int)
    steps = -(-min(voice.max_frames, LONGEST) // r)
    ours = _speak(voice, text, lengths, speaker, {"max_frames": steps * r, "stop_threshold": 1.0})
    assert ours.attention is not None
    max_frames = np.asarray(steps * r)
    given = {"text": text.numpy(), "text_lengths": lengths.numpy(), "speaker": speaker.numpy()}
    names = [output.name for output in start.get_outputs()]
    found = dict(zip(names, start.run(names, {**given, "max_frames": max_frames}), strict=True))
    state = {name: found[f"first_{name}"] for name in STATES}
    shared = {name: found[name] for name in SHARED[:3]} | {name: given[name] for name in SHARED[3:5]}
    shared |= {"max_frames": max_frames, "stop_threshold": np.asarray(1.0, dtype=np.float32)}
    wanted = {given.name for given in step.get_inputs()}
    worst = 0.0
    for number in range(ours.mel.shape[1] // r):
        if number:
            state["heard"] = ours.mel[:, number * r - 1 : number * r].numpy()
            state["last_read"] = ours.attention[:, number - 1].argmax(dim=-1).numpy()
        inputs = {"step": np.asarray(number), **state, **shared}
        out = dict(zip(NEXTS, step.run(NEXTS, {k: v for k, v in inputs.items() if k in wanted}), strict=True))
        state["cache"] = out["next_cache"]
        mel, attention = ours.mel[:, number * r : (number + 1) * r], ours.attention[:, number]
        for theirs, our in ((out["step_mel"], mel), (out["step_attention"], attention)):
            # NaN must not pass for agreement, which a Python maximum would let it.
            worst = float(np.maximum(worst, np.abs(theirs - our.numpy()).max()))
    return ours.mel.shape[0] * ours.mel.shape[1], worst


def compare_speech(voice: Voice, exported: Voice, texts: Sequence[str]) -> tuple[int, float]:
    """Frames compared, and the largest difference of two voices' mels; infinity where the ends differ.

    Speech fed with itself can be chaotic, on texts that say nothing above all: any rounding is then magnified
    from step to step. So an utterance is compared as far as PyTorch in float32 agrees with itself in float64.
    """
    frames, worst = 0, 0.0
    exact = replace(voice, model=deepcopy(voice.model).double())
    text, lengths, speaker = encoded_texts(voice, texts)
    # Ends are compared where the stop decides them, and the mels also where it would have cut them.
    for threshold in (voice.stop_threshold, 1.0):
        limits = {"max_frames": min(voice.max_frames, LONGEST), "stop_threshold": threshold}
        ours, theirs, truth = (_speak(v, text, lengths, speaker, limits) for v in (voice, exported, exact))
        for row in range(len(texts)):
            end = min(int(spoken.mel_lengths[row]) for spoken in (ours, truth))
            rounding = (ours.mel[row, :end] - truth.mel[row, :end]).abs().amax(dim=-1)
            unsure = (rounding > TOLERANCE / 20).nonzero()
            known = int(unsure[0]) if len(unsure) else end
            agreed = ours.mel_lengths[row] == truth.mel_lengths[row] == theirs.mel_lengths[row]
            if int(theirs.mel_lengths[row]) < known or (known == end and not agreed):
                return frames, float("inf")
            frames += known
            if known:
                worst = max(worst, float((ours.mel[row, :known] - theirs.mel[row, :known]).abs().max()))
    return frames, worst if frames else float("inf")


def _parts(onnx: ModuleType, content: bytes, path: Path) -> tuple[Any, Any]:
    """Sessions on what an exported file does before its loop, and on one turn of the loop."""
    proto, h, kinds = onnx.load_from_string(content), onnx.helper, onnx.TensorProto
    graph = proto.graph
    (loop,) = [node for node in graph.node if node.op_type == "Loop"]
    (body,) = [attribute.g for attribute in loop.attribute if attribute.name == "body"]
    real = {"keys", "values", "condition", "stop_threshold", "first_heard", "first_cache"}

    def values(names: Sequence[str]) -> list[Any]:
        kind = {name: kinds.FLOAT if name in real else kinds.INT64 for name in names}
        kind |= {name: kinds.BOOL for name in names if name == "first_stopped"}
        return [h.make_tensor_value_info(name, kind[name], None) for name in names]

    known = {value.name: value for value in graph.input}
    start_inputs = [known[name] for name in ("text", "text_lengths", "speaker", "max_frames")]
    start_nodes = [node for node in graph.node if node.name.startswith("start/")]
    first = values([*SHARED[:3], *(f"first_{name}" for name in STATES)])
    body_inputs = [value for value in body.input if value.name != "still_going"]
    pieces = (
        h.make_graph(start_nodes, "start", start_inputs, first, list(graph.initializer)),
        h.make_graph(
            list(body.node),
            "step",
            [*body_inputs, *values(SHARED)],
            list(body.output),
            list(graph.initializer),
        ),
    )
    sessions = [
        open_session(
            h.make_model(
                piece, opset_imports=list(proto.opset_import), ir_version=proto.ir_version
            ).SerializeToString(),
            path,
            torch.device("cpu"),
        )
        for piece in pieces
    ]
    return sessions[0], sessions[1]


def encoded_texts(voice: Voice, texts: Sequence[str]) -> tuple[Tensor, Tensor, Tensor]:
    """Texts (B, N), lengths (B,) and speakers (B,), each in turn."""
    ids = [voice.symbols.encode(text, f"text {text!r}") for text in texts]
    text = nn.utils.rnn.pad_sequence([torch.from_numpy(row) for row in ids], batch_first=True)
    return text, torch.tensor([len(row) for row in ids]), torch.arange(len(ids)) % len(voice.speakers)


def _speak(
    voice: Voice, text: Tensor, lengths: Tensor, speaker: Tensor, limits: dict[str, Any]
) -> FreeRunning:
    spoken = voice.model.synthesize(text, lengths, speaker, **limits)  # type: ignore[operator]
    assert isinstance(spoken, FreeRunning)
    return spoken
