"""The product of a quantized layer, a primitive of its own since torch and XLA have instructions of the processor for it."""

from __future__ import annotations

import math
from typing import Any

import minidl as md
from minidl import Tensor, int8, int32
from minidl.extend import Primitive, check_all, define, describe, ns, operand


def _infer(x: Any, y: Any) -> Any:
    if x.dtype is not int8 or y.dtype is not int8:
        raise TypeError(f"matmul_int8: {describe(x)} with rows {describe(y)}: both must be int8; quantize or cast them first")
    if len(x.shape) != 2 or len(y.shape) != 2 or x.shape[1] != y.shape[1]:
        raise ValueError(f"matmul_int8: {describe(x)} with rows {describe(y)}: want i8[m,k] and i8[n,k]")
    return (x.shape[0], y.shape[0]), int32


def _wide_dot(xp: Any, x: Any, y: Any) -> Any:
    return xp.dot_general(xp.cast(x, dtype=int32), xp.cast(y, dtype=int32), contract=((1,), (1,)), batch=((), ()))


def _batch(primitive: Primitive, call: Any, size: int, xs: Any, batched: Any, params: Any) -> Any:
    (x, y), k = xs, xs[0].shape[-1]
    if all(batched):
        wide = (call("cast", a, dtype=int32) for a in xs)
        return call("dot_general", *wide, contract=((2,), (2,)), batch=((0,), (0,)))
    rows = call("reshape", x if batched[0] else y, shape=(size * (x if batched[0] else y).shape[1], k))
    if batched[0]:
        return call("reshape", call("dot_int8", rows, y), shape=(size, x.shape[1], y.shape[0]))
    out = call("reshape", call("dot_int8", x, rows), shape=(x.shape[0], size, y.shape[1]))
    return call("permute", out, axes=(1, 0, 2))


#: x yᵀ for two matrices of 8-bit integers, added up in 32 bits: what a quantized layer computes, for which processors have instructions.
dot_int8 = Primitive("dot_int8", "x y", infer=_infer, batch=_batch, decompose=_wide_dot, promote="none", check_first=True)
define(dot_int8, kernels=__package__)


def matmul_int8(x: Any, weight: Any, /) -> Tensor:
    """x @ weightᵀ for 8-bit integers x [..., k] and weight [n, k], added up in 32 bits: int32 [..., n], exact for k up to 131,071.

    The product of a quantized layer; torch and XLA have instructions of the processor for it. No derivative. Raises ValueError for other dtypes and
    sizes that differ.

    >>> md.matmul_int8(md.full((1, 300), 127, dtype=md.int8), md.full((1, 300), 127, dtype=md.int8)).tolist()
    [[4838700]]
    """
    x = operand(x)
    weight = operand(weight, x)
    if x.ndim in (0, 2):
        return ns.dot_int8(x, weight)
    lead = x.shape[:-1]
    return md.reshape(ns.dot_int8(md.reshape(x, (math.prod(lead), x.shape[-1])), weight), (*lead, weight.shape[0]))


check_all(globals(), ["matmul_int8"])
