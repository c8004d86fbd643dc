"""einops on minidl's tensors: its functions, and its layers Rearrange, Reduce and EinMix as modules (`pip install einops`).

einops (https://github.com/arogozhnikov/einops) knows an array by its type, among the subclasses of a class of its own. Importing this module defines
that subclass, so `einops.rearrange` and its like take tensors of every backend from then on, eager, traced and under vmap, and differentiate. The
names of `einops` and of `einops.layers.torch` are here with their arguments, defaults and state_dict keys:

    from minidl.nn.einops import rearrange, einsum    # from einops import rearrange, einsum
    from minidl.nn.einops import Rearrange, EinMix    # from einops.layers.torch import Rearrange, EinMix

>>> from minidl import nn
>>> from minidl.nn.einops import Rearrange, rearrange
>>> rearrange(md.ones((2, 3, 4)), "b h w -> b (h w)").shape
(2, 12)
>>> net = nn.Sequential(Rearrange("b (h p) -> b h p", p=2), nn.Linear(2, 5))
>>> net(md.ones((3, 8))).shape, sorted(net.state_dict())
((3, 4, 5), ['1.bias', '1.weight'])
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import minidl as md
from minidl.nn import init
from minidl.nn.module import Module
from minidl.nn.parameter import Parameter

try:
    from einops import asnumpy, einsum, pack, parse_shape, rearrange, reduce, repeat, unpack
    from einops._backends import AbstractBackend  # einops finds backends among its subclasses: the one way to give it another
    from einops.layers import RearrangeMixin, ReduceMixin
    from einops.layers._einmix import _EinmixMixin  # what einops' own layers for other libraries are made of
except ImportError as error:
    raise ImportError(f"minidl.nn.einops needs einops 0.8 or newer ({error}): pip install einops") from error

__all__ = ["EinMix", "Rearrange", "Reduce", "asnumpy", "einsum", "pack", "parse_shape", "rearrange", "reduce", "repeat", "unpack"]


class MinidlBackend(AbstractBackend):
    """What einops asks of an array library."""

    framework_name = "minidl"

    def is_appropriate_type(self, tensor: Any) -> bool:
        return isinstance(tensor, md.Tensor)

    def from_numpy(self, x: Any) -> md.Tensor:
        return md.tensor(x)

    def to_numpy(self, x: md.Tensor) -> Any:
        return x.detach().numpy()

    def arange(self, start: int, stop: int) -> md.Tensor:
        return md.arange(start, stop)

    def transpose(self, x: md.Tensor, axes: Sequence[int]) -> md.Tensor:
        return md.permute_dims(x, tuple(axes))

    def reduce(self, x: md.Tensor, operation: str, axes: Sequence[int]) -> md.Tensor:
        return getattr(md, operation)(x, axis=tuple(axes))

    def stack_on_zeroth_dimension(self, tensors: list) -> md.Tensor:
        return md.stack(tensors)

    def add_axis(self, x: md.Tensor, new_position: int) -> md.Tensor:
        return md.expand_dims(x, new_position)

    def tile(self, x: md.Tensor, repeats: Sequence[int]) -> md.Tensor:
        return md.tile(x, tuple(repeats))

    def concat(self, tensors: list, axis: int) -> md.Tensor:
        return md.concat(tensors, axis=axis)

    def is_float_type(self, x: md.Tensor) -> bool:
        return x.dtype.is_float

    def einsum(self, pattern: str, *x: md.Tensor) -> md.Tensor:
        return md.einsum(pattern, *x)


class Rearrange(RearrangeMixin, Module):
    """einops.rearrange as a layer: a pattern, and lengths of axes that the input does not tell. Shapes as the pattern says.

    >>> Rearrange("b c (h p) (w q) -> b (c p q) h w", p=2, q=2)(md.ones((1, 3, 4, 4))).shape
    (1, 12, 2, 2)
    """

    def forward(self, input: md.Tensor) -> md.Tensor:
        return rearrange(input, self.pattern, **self.axes_lengths)


class Reduce(ReduceMixin, Module):
    """einops.reduce as a layer: a pattern and 'min', 'max', 'sum', 'mean', 'prod', 'any' or 'all'.

    >>> Reduce("b c h w -> b c", "mean")(md.ones((2, 3, 4, 4))).shape
    (2, 3)
    """

    def forward(self, input: md.Tensor) -> md.Tensor:
        return reduce(input, self.pattern, self.reduction, **self.axes_lengths)


class EinMix(_EinmixMixin, Module):
    """A linear layer written as an einsum of the input and a weight, with axes put together and taken apart as in rearrange. weight and bias are
    drawn uniformly within the bounds that einops computes (https://einops.rocks/3-einmix-layer).

    >>> EinMix("t b cin -> t b cout", weight_shape="cin cout", bias_shape="cout", cin=3, cout=5)(md.ones((2, 4, 3))).shape
    (2, 4, 5)
    """

    pre_rearrange: Rearrange | None
    post_rearrange: Rearrange | None

    def _create_parameters(self, weight_shape: Sequence[int], weight_bound: float, bias_shape: Sequence[int] | None, bias_bound: float) -> None:
        self.weight = _uniform(weight_shape, weight_bound)
        self.bias = None if bias_shape is None else _uniform(bias_shape, bias_bound)

    def _create_rearrange_layers(self, before: str | None, before_lengths: dict | None, after: str | None, after_lengths: dict | None) -> None:
        self.pre_rearrange = None if before is None else Rearrange(before, **(before_lengths or {}))
        self.post_rearrange = None if after is None else Rearrange(after, **(after_lengths or {}))

    def forward(self, input: md.Tensor) -> md.Tensor:
        x = input if self.pre_rearrange is None else self.pre_rearrange(input)
        x = md.einsum(self.einsum_pattern, x, self.weight)
        x = x if self.bias is None else x + self.bias
        return x if self.post_rearrange is None else self.post_rearrange(x)


def _uniform(shape: Sequence[int], bound: float) -> Parameter:
    return Parameter(init.uniform_(md.zeros(tuple(shape)), -bound, bound))
