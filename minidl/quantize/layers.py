"""Layers for inference whose weights are int8 with a scale for each output channel (or row).

Promises: products of integers are exact: matrix products add up in 32 bits, convolutions in floats that hold every sum; an input is rounded by
`input_scale` where there is one (static), else by its own largest value, one scale for each row (dynamic). Weights are buffers: nothing is trained.
`weight` is what the integers stand for, in floats, for whoever computes with a layer's weight (a head that is tied to an embedding).
"""

from __future__ import annotations

import math
from typing import Any

import minidl as md
from minidl import nn
from minidl.quantize.rounding import dequantize, quantize, scale_of

_EXACT = 2**24 // 2**14  # so many products of two int8 add up to integers that float32 holds


class _Quantized(nn.Module):
    """weight_int8, float scale (which broadcasts against it) and bias; input_scale, a number, or None."""

    weight_int8: md.Tensor
    scale: md.Tensor
    input_scale: Any
    bias: Any

    def __init__(self, layer: nn.Module, channel: int | None, input_scale: md.Tensor | None = None):
        super().__init__()
        weight = layer.weight.detach()
        axes = tuple(i for i in range(weight.ndim) if i != channel)
        scale = scale_of(weight, axes)
        self.register_buffer("weight_int8", quantize(weight, scale))
        self.register_buffer("scale", scale)
        self.register_buffer("input_scale", None if input_scale is None else input_scale.detach())
        bias = getattr(layer, "bias", None)
        self.register_buffer("bias", None if bias is None else bias.detach())
        self.training = False

    @property
    def weight(self) -> md.Tensor:
        """The weight as floats."""
        return dequantize(self.weight_int8, self.scale)

    def _wide(self, x: md.Tensor) -> tuple[md.Tensor, md.DType]:
        """The input in a dtype that holds sums of products of integers, which 16 bits do not, and the dtype of the result, the float layer's."""
        dtype = md.result_type(x.dtype, self.scale.dtype)
        return x.to(md.result_type(dtype, md.float32)), dtype


class QuantizedLinear(_Quantized):
    """A Linear layer by products of int8 that add up in 32 bits (md.matmul_int8).

    >>> import minidl as md
    >>> from minidl import nn
    >>> small = QuantizedLinear(nn.Linear(4, 2))
    >>> small(md.ones((3, 4))).shape, small.weight_int8.dtype
    ((3, 2), minidl.int8)
    """

    def __init__(self, layer: nn.Module, per_channel: bool = True, input_scale: md.Tensor | None = None):
        super().__init__(layer, 0 if per_channel else None, input_scale)
        self.out_features, self.in_features = self.weight_int8.shape

    def forward(self, x: md.Tensor) -> md.Tensor:
        wide, dtype = self._wide(x)
        scale = self.input_scale.to(wide.dtype) if self.input_scale is not None else scale_of(wide, -1)
        out = md.matmul_int8(quantize(wide, scale), self.weight_int8).to(wide.dtype) * scale * self.scale.to(wide.dtype).reshape((-1,))
        return (out if self.bias is None else out + self.bias.to(wide.dtype)).to(dtype)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, {_kind(self)}"


class QuantizedConv(_Quantized):
    """A convolution of int8 with int8, exact; one scale for each example where the input is rounded dynamically.

    >>> layer = md.quantize.QuantizedConv(md.nn.Conv1d(2, 3, 3))
    >>> layer(md.ones((1, 2, 8))).shape
    (1, 3, 6)
    """

    def __init__(self, layer: Any, per_channel: bool = True, input_scale: md.Tensor | None = None):
        super().__init__(layer, 0 if per_channel else None, input_scale)
        self.stride, self.padding, self.dilation, self.groups = layer.stride, layer.padding, layer.dilation, layer.groups

    def forward(self, x: md.Tensor) -> md.Tensor:
        weight, (wide, dtype) = self.weight_int8, self._wide(x)
        n = weight.ndim - 2
        scale = self.input_scale.to(wide.dtype) if self.input_scale is not None else scale_of(wide, tuple(range(x.ndim - n - 1, x.ndim)))
        exact = md.float32 if math.prod(weight.shape[1:]) <= _EXACT else md.float64
        conv = (nn.functional.conv1d, nn.functional.conv2d, nn.functional.conv3d)[n - 1]
        out = conv(quantize(wide, scale).to(exact), weight.to(exact), None, self.stride, self.padding, self.dilation, self.groups)
        ones = (1,) * n
        out = out.to(wide.dtype) * scale * self.scale.to(wide.dtype).reshape((-1, *ones))
        return (out if self.bias is None else out + self.bias.to(wide.dtype).reshape((-1, *ones))).to(dtype)

    def extra_repr(self) -> str:
        return f"{self.weight_int8.shape[0]} channels, kernel_size={self.weight_int8.shape[2:]}, {_kind(self)}"


class QuantizedEmbedding(_Quantized):
    """Rows of int8, each with a scale of its own.

    >>> layer = md.quantize.QuantizedEmbedding(md.nn.Embedding(5, 4))
    >>> layer(md.tensor([1, 2])).shape
    (2, 4)
    """

    def __init__(self, layer: Any, per_channel: bool = True):
        super().__init__(layer, 0 if per_channel else None)

    def forward(self, x: md.Tensor) -> md.Tensor:
        return self.weight_int8[x].to(self.scale.dtype) * (self.scale[x] if self.scale.ndim and self.scale.size > 1 else self.scale.reshape((1,)))

    def extra_repr(self) -> str:
        return f"{self.weight_int8.shape[0]}, {self.weight_int8.shape[1]}"


def _kind(layer: _Quantized) -> str:
    return "dynamic" if layer.input_scale is None else "static"
