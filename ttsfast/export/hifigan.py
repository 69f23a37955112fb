"""The generator of HiFi-GAN (Kong et al., 2020) as an ONNX graph, V1 to V3 of the published code alike.

A convolution, then upsamplings by transposed convolutions, after each the mean of residual blocks of unlike
kernels, then a convolution to one channel.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from ttsfast.data.features.contract import HIFIGAN_KEYS, MelContract, contract_of_hifigan
from ttsfast.errors import InputError

_OPSET = 18
_SLOPE, _LAST_SLOPE = 0.1, 0.01
_EDGE_KERNEL = 7
_KEYS = (
    *("resblock", "upsample_rates", "upsample_kernel_sizes", "upsample_initial_channel"),
    *("resblock_kernel_sizes", "resblock_dilation_sizes"),
)
_LARGEST = 1 << 16
"""of any number of a configuration"""


@dataclass(frozen=True)
class Generator:
    """The shape of a generator, and the contract of the mels that it takes."""

    contract: MelContract
    resblock: str
    """"1": pairs of convolutions, each pair added to its input; "2": single ones."""
    rates: tuple[int, ...]
    """Samples that each upsampling makes of one."""
    kernels: tuple[int, ...]
    """of the upsamplings"""
    channels: int
    """before the first of them, which each halves"""
    resblock_kernels: tuple[int, ...]
    resblock_dilations: tuple[tuple[int, ...], ...]

    @classmethod
    def from_config(cls, values: Any) -> Generator:
        """Read the ``config.json`` of the published code; raises InputError naming the key that is not so."""
        if not isinstance(values, Mapping):
            raise InputError("not a configuration of HiFi-GAN: it must be a JSON object")
        if missing := [name for name in (*HIFIGAN_KEYS, *_KEYS) if name not in values]:
            raise InputError(f"not a configuration of HiFi-GAN: the key {missing[0]!r} is missing")
        if values["resblock"] not in ("1", "2"):
            raise InputError(f"resblock is {values['resblock']!r}, must be '1' or '2'")
        channels = {"upsample_initial_channel": [values["upsample_initial_channel"]]}
        dilations = [{"resblock_dilation_sizes": row} for row in _list(values, "resblock_dilation_sizes")]
        found = cls(
            contract=contract_of_hifigan(values),
            resblock=values["resblock"],
            rates=_numbers(values, "upsample_rates"),
            kernels=_numbers(values, "upsample_kernel_sizes"),
            channels=_numbers(channels, "upsample_initial_channel")[0],
            resblock_kernels=_numbers(values, "resblock_kernel_sizes"),
            resblock_dilations=tuple(_numbers(row, "resblock_dilation_sizes") for row in dilations),
        )
        found._check()
        return found

    def _check(self) -> None:
        hop = self.contract.hop_length
        if math.prod(self.rates) != hop:
            raise InputError(f"upsample_rates multiply to {math.prod(self.rates)}, must to hop_size, {hop}")
        if len(self.kernels) != len(self.rates):
            raise InputError("upsample_kernel_sizes and upsample_rates are not of the same length")
        for kernel, rate in zip(self.kernels, self.rates, strict=True):
            if kernel < rate or (kernel - rate) % 2:
                raise InputError(
                    f"upsample_kernel_sizes: {kernel} for a rate of {rate}; must be larger by an even number"
                )
        if len(self.resblock_dilations) != len(self.resblock_kernels):
            raise InputError("resblock_dilation_sizes and resblock_kernel_sizes are not of the same length")
        if even := [kernel for kernel in self.resblock_kernels if kernel % 2 == 0]:
            raise InputError(f"resblock_kernel_sizes: {even[0]} is even, must be odd")
        if self.channels % 2 ** len(self.rates):
            raise InputError(
                f"upsample_initial_channel is {self.channels}, which cannot be halved that often"
            )

    def shapes(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """The name and shape of each weight, weight norm folded; a bias ``NAME.bias`` goes with each."""
        width = self.channels
        yield "conv_pre.weight", (width, self.contract.n_mels, _EDGE_KERNEL)
        for stage, kernel in enumerate(self.kernels):
            # Of a transposed convolution: input channels first.
            yield f"ups.{stage}.weight", (width, width // 2, kernel)
            width //= 2
            for place, size in enumerate(self.resblock_kernels):
                for name, _ in self._convolutions(stage, place):
                    yield f"{name}.weight", (width, width, size)
        yield "conv_post.weight", (1, width, _EDGE_KERNEL)

    def _convolutions(self, stage: int, place: int) -> Iterator[tuple[str, int]]:
        """Of one residual block: each convolution's name and dilation, in the order that they are used."""
        block = f"resblocks.{stage * len(self.resblock_kernels) + place}"
        for number, dilation in enumerate(self.resblock_dilations[place]):
            if self.resblock == "1":
                yield f"{block}.convs1.{number}", dilation
                yield f"{block}.convs2.{number}", 1
            else:
                yield f"{block}.convs.{number}", dilation

    def graph(self, onnx: ModuleType, weights: Mapping[str, np.ndarray]) -> Any:
        """The ONNX model: ``mel`` (batch, C, T) log-mels to ``wave`` (batch, 1, samples) in [-1, 1].

        ``weights`` are those of :meth:`shapes` with their biases.
        """
        nodes = _Nodes(onnx)
        x = nodes.convolution("mel", "conv_pre", _EDGE_KERNEL)
        for stage, (rate, kernel) in enumerate(zip(self.rates, self.kernels, strict=True)):
            x = nodes.upsampling(nodes.leaky(x, _SLOPE), f"ups.{stage}", kernel, rate)
            blocks = [self._resblock(nodes, x, stage, place) for place in range(len(self.resblock_kernels))]
            x = nodes.add("Mean", blocks)
        x = nodes.convolution(nodes.leaky(x, _LAST_SLOPE), "conv_post", _EDGE_KERNEL)
        nodes.add("Tanh", [x], output="wave")
        h, real = onnx.helper, onnx.TensorProto.FLOAT
        graph = h.make_graph(
            nodes.made,
            "hifigan",
            [h.make_tensor_value_info("mel", real, ["batch", self.contract.n_mels, "frames"])],
            [h.make_tensor_value_info("wave", real, ["batch", 1, "samples"])],
            [onnx.numpy_helper.from_array(value, name) for name, value in weights.items()],
        )
        return h.make_model(
            graph, opset_imports=[h.make_opsetid("", _OPSET)], ir_version=10, producer_name="ttsfast"
        )

    def _resblock(self, nodes: _Nodes, x: str, stage: int, place: int) -> str:
        kernel, inside = self.resblock_kernels[place], x
        for name, dilation in self._convolutions(stage, place):
            inside = nodes.convolution(nodes.leaky(inside, _SLOPE), name, kernel, dilation)
            if ".convs1." not in name:
                x = inside = nodes.add("Add", [x, inside])
        return x


class _Nodes:
    """ONNX nodes, each with one output, which its method returns the name of."""

    def __init__(self, onnx: ModuleType) -> None:
        self.made: list[Any] = []
        self._make = onnx.helper.make_node

    def add(self, kind: str, inputs: list[str], output: str = "", **attributes: Any) -> str:
        name = output or f"x{len(self.made)}"
        self.made.append(self._make(kind, inputs, [name], name=name, **attributes))
        return name

    def leaky(self, x: str, slope: float) -> str:
        return self.add("LeakyRelu", [x], alpha=slope)

    def convolution(self, x: str, name: str, kernel: int, dilation: int = 1) -> str:
        """As many samples as went in."""
        inputs = [x, f"{name}.weight", f"{name}.bias"]
        return self.add("Conv", inputs, pads=[dilation * (kernel - 1) // 2] * 2, dilations=[dilation])

    def upsampling(self, x: str, name: str, kernel: int, rate: int) -> str:
        inputs = [x, f"{name}.weight", f"{name}.bias"]
        return self.add("ConvTranspose", inputs, pads=[(kernel - rate) // 2] * 2, strides=[rate])


def _list(values: Mapping[str, Any], name: str) -> list[Any]:
    if not isinstance(values[name], list) or not values[name]:
        raise InputError(f"{name} is {values[name]!r:.80}, must be a list")
    return values[name]


def _numbers(values: Mapping[str, Any], name: str) -> tuple[int, ...]:
    found = _list(values, name)
    if not all(type(one) is int and 1 <= one <= _LARGEST for one in found):
        raise InputError(f"{name} holds {found!r:.80}, must hold whole numbers from 1 to {_LARGEST}")
    return tuple(found)
