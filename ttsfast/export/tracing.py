"""From modules to one ONNX graph with the inputs and outputs of :mod:`ttsfast.models.exported`."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ttsfast import __version__
from ttsfast.models.exported import INPUTS, OUTPUTS

if TYPE_CHECKING:
    from ttsfast.models.voice_info import VoiceInfo

OPSET = 18


@torch.no_grad()
def trace(
    module: nn.Module, inputs: dict[str, Tensor], outputs: Sequence[str], shapes: dict[str, Any]
) -> Any:
    """One module as an ONNX graph whose inputs and outputs have the names given."""
    # Of operators that torchvision would add.
    logging.getLogger("torch.onnx._internal.exporter._registration").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        # The exporter warns of its own deprecations, and of axes whose name another axis has already.
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module.eval(),
            kwargs=inputs,
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_shapes={name: shapes.get(name) for name in inputs},
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    return program.model_proto


def prefixed(proto: Any, prefix: str, states: Sequence[str] = ()) -> Any:
    """The proto with ``prefix`` before every name but those of its inputs and outputs.

    Those of ``states`` that it makes are called ``first_...``.
    """
    if proto.functions:
        raise RuntimeError(f"torch's exporter left functions in the graph: {proto.functions[0].name}, ...")
    own = {value.name for value in (*proto.graph.input, *proto.graph.output)}
    first = {value.name: f"first_{value.name}" for value in proto.graph.output if value.name in states}

    def renamed(name: str) -> str:
        if not name or name in own:
            return first.get(name, name)
        return prefix + name

    for node in proto.graph.node:
        if any(attribute.HasField("g") for attribute in node.attribute):
            raise RuntimeError(f"torch's exporter left a nested graph in {node.op_type}")
        node.name = prefix + node.name
        for names in (node.input, node.output):
            names[:] = [renamed(name) for name in names]
    for initializer in proto.graph.initializer:
        initializer.name = renamed(initializer.name)
    return proto


def voice_model(
    onnx: ModuleType,
    nodes: Sequence[Any],
    initializers: Sequence[Any],
    ir_version: int,
    voice: VoiceInfo,
    controls: Sequence[str] = (),
) -> Any:
    """The ONNX model whose ``nodes`` make every output but ``log_mel``, which is made here.

    Args:
        initializers: what the nodes hold.
        ir_version: as torch's exporter left it.
        voice: statistics of its mels.
        controls: inputs beside :data:`INPUTS`, each one real number.
    """
    h, kinds = onnx.helper, onnx.TensorProto
    bins = len(voice.mel_mean)
    scaling = [
        h.make_tensor("mel_mean", kinds.FLOAT, [bins], voice.mel_mean.tolist()),
        h.make_tensor("mel_std", kinds.FLOAT, [bins], voice.mel_std.tolist()),
    ]
    shapes: dict[str, tuple[int, list[Any]]] = {
        "text": (kinds.INT64, ["batch", "symbols"]),
        "text_lengths": (kinds.INT64, ["batch"]),
        "speaker": (kinds.INT64, ["batch"]),
        "max_frames": (kinds.INT64, []),
        "stop_threshold": (kinds.FLOAT, []),
        **{name: (kinds.FLOAT, []) for name in controls},
        "mel": (kinds.FLOAT, ["batch", "frames", bins]),
        "log_mel": (kinds.FLOAT, ["batch", "frames", bins]),
        "mel_lengths": (kinds.INT64, ["batch"]),
        "attention": (kinds.FLOAT, ["batch", "steps", "symbols"]),
        "stopped": (kinds.BOOL, ["batch"]),
    }
    graph = h.make_graph(
        [
            *nodes,
            h.make_node("Mul", ["mel", "mel_std"], ["mel_scaled"]),
            h.make_node("Add", ["mel_scaled", "mel_mean"], ["log_mel"]),
        ],
        "ttsfast",
        [h.make_tensor_value_info(name, *shapes[name]) for name in (*INPUTS, *controls)],
        [h.make_tensor_value_info(name, *shapes[name]) for name in OUTPUTS],
        [*initializers, *scaling],
    )
    return h.make_model(
        graph,
        opset_imports=[h.make_opsetid("", OPSET)],
        ir_version=ir_version,
        producer_name="ttsfast",
        producer_version=__version__,
    )
