"""Linear and bilinear maps, and the module that only passes on."""

from __future__ import annotations

import math
from typing import Any

import minidl as md
from minidl.nn import functional as F
from minidl.nn import init
from minidl.nn.module import Module
from minidl.nn.parameter import blank

__all__ = ["Bilinear", "Identity", "Linear"]


class Linear(Module):
    """y = x Wᵀ + b for x [..., in_features], with weight [out_features, in_features] and bias [out_features].

    Both are drawn uniformly within 1/sqrt(in_features) of zero.

    >>> Linear(3, 2)(md.ones((5, 3))).shape
    (5, 2)
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = True, device: str | None = None, dtype: Any = None):
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.weight = blank(out_features, in_features, dtype=dtype, device=device)
        self.register_parameter("bias", blank(out_features, dtype=dtype, device=device) if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the initial values anew."""
        init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            bound = 1 / math.sqrt(self.in_features) if self.in_features else 0.0
            init.uniform_(self.bias, -bound, bound)

    def forward(self, input: md.Tensor) -> md.Tensor:
        return F.linear(input, self.weight, self.bias)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"


class Bilinear(Module):
    """y_k = x1ᵀ W_k x2 + b_k for x1 [..., in1_features] and x2 [..., in2_features], with weight [out_features, in1_features, in2_features].

    Both parameters are drawn uniformly within 1/sqrt(in1_features) of zero. Raises ValueError for in1_features < 1, and when called as
    nn.functional.bilinear does.

    >>> md.nn.Bilinear(2, 3, 4)(md.ones((5, 2)), md.ones((5, 3))).shape
    (5, 4)
    """

    def __init__(
        self, in1_features: int, in2_features: int, out_features: int, bias: bool = True, device: str | None = None, dtype: Any = None
    ):
        super().__init__()
        if in1_features < 1:
            raise ValueError(f"Bilinear: in1_features must be at least 1, got {in1_features}")
        self.in1_features, self.in2_features, self.out_features = in1_features, in2_features, out_features
        self.weight = blank(out_features, in1_features, in2_features, dtype=dtype, device=device)
        self.register_parameter("bias", blank(out_features, dtype=dtype, device=device) if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the initial values anew."""
        bound = 1 / math.sqrt(self.in1_features)
        init.uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            init.uniform_(self.bias, -bound, bound)

    def forward(self, input1: md.Tensor, input2: md.Tensor) -> md.Tensor:
        return F.bilinear(input1, input2, self.weight, self.bias)

    def extra_repr(self) -> str:
        sizes = f"in1_features={self.in1_features}, in2_features={self.in2_features}, out_features={self.out_features}"
        return f"{sizes}, bias={self.bias is not None}"


class Identity(Module):
    """Its input, unchanged; arguments of the constructor are ignored, so that it can stand in for any layer.

    >>> md.nn.Identity()(md.ones(2)).tolist()
    [1.0, 1.0]
    """

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__()

    def forward(self, input: Any) -> Any:
        return input
