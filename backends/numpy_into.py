"""NumPy's kernels that write their result where they are told, and over which of their operands that may be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from minidl.backends.numpy_helpers import bounded, select
from minidl.backends.numpy_kernels import KERNELS, kernel_of, relu, sigmoid, sign, softplus
from minidl.backends.numpy_special import erf
from minidl.graph import Equation, Literal


def elementwise(equation: Equation) -> bool:
    """Whether an equation is a kernel of single elements with one result."""
    return equation.primitive.name in KERNELS and equation.primitive.elementwise and not equation.primitive.multiple


def _within(x: np.ndarray, lo: np.ndarray, hi: np.ndarray, out: np.ndarray) -> np.ndarray:
    """np.clip, but for the sign of a zero bound. What bounds from below seldom finds anything, and looking for it costs half as much."""
    if out is x and hi == np.inf and x.size and np.minimum.reduce(x, axis=None) >= lo:
        return out
    return np.clip(x, lo, hi, out=out)


def _rsqrt(x: np.ndarray, out: np.ndarray) -> np.ndarray:
    return np.reciprocal(np.sqrt(x, out=out), out=out)


#: Kernels that can write their result where they are told, ufuncs apart, and which operands that may be (ufuncs: any).
INTO: dict[str, tuple[Callable[..., Any], tuple[int, ...]]] = {
    "clip": (bounded, (0,)), "rsqrt": (_rsqrt, (0,)), "relu": (relu, (0,)), "where": (select, (1, 2)), "sigmoid": (sigmoid, (0,)),
    "softplus": (softplus, (0,)), "erf": (erf, (0,)),
}  # fmt: skip


def into(equation: Equation) -> tuple[Callable[..., Any], tuple[int, ...]] | None:
    """The kernel with an `out` argument, if there is one, and the operands over which it may write."""
    name, (out,) = equation.primitive.name, equation.outputs
    if name == "clip" and out.dtype.bits >= 32 and out.dtype.is_float and all(isinstance(a, Literal) and a.value for a in equation.inputs[1:]):
        return _within, (0,)
    if name in INTO:
        return INTO[name]
    kernel = kernel_of(equation)
    return (kernel, tuple(range(len(equation.inputs)))) if isinstance(kernel, np.ufunc) or kernel is sign else None
