"""A layer that measures the range of its inputs and, for quantization-aware training, computes as if it were in 8 bits already."""

from __future__ import annotations

from typing import Any

import minidl as md
from minidl import nn
from minidl.nn.computed import compute
from minidl.quantize.rounding import fake_quantize, scale_of


class Rounded:
    """A layer's weight as it comes back from 8 bits."""

    def __init__(self, per_channel: bool):
        self.per_channel = per_channel

    def __call__(self, layer: nn.Module) -> md.Tensor:
        weight = layer.weight_float
        axes = tuple(range(1, weight.ndim)) if self.per_channel else tuple(range(weight.ndim))
        return fake_quantize(weight, scale_of(md.stop_gradient(weight), axes))


class Observed(nn.Module):
    """A layer, and the largest size that its inputs have had: `input_max`, a buffer.

    aware: round inputs and weight while training, with the straight-through derivative. averaging: in training, follow the largest size of each batch
    with this momentum instead of keeping the largest of all. Raises ValueError for aware where the weight is computed, by weight_norm, say.

    >>> layer = md.quantize.Observed(md.nn.Linear(4, 2))
    >>> _ = layer(md.ones((1, 4)) * 3.0)
    >>> layer.input_max.item()
    3.0
    """

    def __init__(self, layer: nn.Module, per_channel: bool = True, aware: bool = False, averaging: float = 0.1):
        super().__init__()
        self.layer, self.per_channel, self.aware, self.averaging = layer, per_channel, aware, averaging
        like: Any = layer.weight
        self.register_buffer("input_max", md.zeros_like(like.detach().reshape((-1,))[0]))
        self.training = layer.training
        if aware:
            if "weight" not in layer._parameters:
                raise ValueError(f"Observed: {type(layer).__name__} computes its weight from others, which cannot be rounded in training")
            weight = layer._parameters.pop("weight")
            layer.register_parameter("weight_float", weight)
            compute(layer, "weight", Rounded(per_channel))

    def forward(self, x: md.Tensor) -> md.Tensor:
        if x.size and (self.training or not self.aware):
            with md.no_grad():
                now = md.max(md.abs(x.detach()))
                if self.aware:
                    followed = self.input_max + (now - self.input_max) * self.averaging
                    self.input_max.assign(md.where(self.input_max == 0, now, followed))
                else:
                    self.input_max.assign(md.maximum(self.input_max, now))
        return self.layer(fake_quantize(x, self.scale()) if self.aware else x)

    def scale(self) -> md.Tensor:
        """The scale of the inputs, as measured."""
        return scale_of(self.input_max)

    def extra_repr(self) -> str:
        return f"aware={self.aware}"
