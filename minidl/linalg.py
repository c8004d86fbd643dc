"""Linear algebra under the names of the Array API's `linalg` extension; the last two axes are the matrix, axes before them are a batch.

A matrix without a factor or an inverse raises ValueError where the values can be looked at (eager, on a CPU), and gives nan elsewhere.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minidl import later, ops, shapes
from minidl.backends import using
from minidl.errors import check_all
from minidl.ops import broadcast_to, diagonal, matmul, matrix_transpose, outer, tensordot, vecdot, vector_norm
from minidl.ops.common import Tensor, eager_on_cpu, home, ns, operand, reshaped, values
from minidl.ops.creation import eye
from minidl.ops.linear import trace_of as trace
from minidl.tree import Fields

__all__ = [
    "cholesky", "det", "diagonal", "inv", "matmul", "matrix_transpose", "outer", "slogdet", "solve", "tensordot", "trace", "triangular_solve",
    "vecdot", "vector_norm",
]  # fmt: skip


def _whole(name: str, out: Tensor, what: str, *inputs: Tensor) -> Tensor:
    """Raise where a factorisation of numbers gave nan, at once or later."""
    if eager_on_cpu(out):
        if np.isnan(values(out, name)).any() and not any(np.isnan(values(x, name)).any() for x in inputs):
            raise ValueError(f"{name}: {what}")
    elif later.policy() == "raise-later":
        bad = ops.any(ns.isnan(out))
        for x in inputs:
            bad = ns.logical_and(bad, ns.logical_not(ops.any(ns.isnan(x))))
        later.expect(bad, ValueError, f"{name}: {what}")
    return out


def cholesky(x: Any, /, *, upper: bool = False) -> Tensor:
    """The lower triangular L with L Lᵀ = x for a positive definite x [..., n, n], of which the lower triangle alone is read; Lᵀ if upper.

    Raises ValueError for a matrix that is not square, or not positive definite (eager on a CPU; nan elsewhere), TypeError for complex numbers.

    >>> from minidl.ops import tensor
    >>> cholesky(tensor([[4.0, 2.0], [2.0, 2.0]])).tolist()
    [[2.0, 0.0], [1.0, 1.0]]
    """
    x = operand(x)
    out = _whole("cholesky", ns.cholesky(x), "the matrix is not positive definite", x)
    return matrix_transpose(out) if upper else out


def det(x: Any, /) -> Tensor:
    """The determinant of x [..., n, n]. The derivative is the matrix of cofactors, also where x is singular; second derivatives are nan there.

    >>> from minidl.ops import tensor
    >>> det(tensor([[1.0, 2.0], [4.0, 4.0]])).item()
    -4.0
    """
    return ns.det(operand(x))


class SlogDet(Fields):
    """What slogdet returns."""

    sign: Tensor
    logabsdet: Tensor


def slogdet(x: Any, /) -> SlogDet:
    """The sign of the determinant of a real x [..., n, n] and the logarithm of its size, which neither overflows nor underflows.

    The derivative at a singular x is nan: its sign would depend on the side from which x is approached. Raises TypeError for complex numbers.
    """
    x = operand(x)
    return SlogDet(ns.detsign(x), ns.logabsdet(x))


def solve(x1: Any, x2: Any, /) -> Tensor:
    """The y with x1 y = x2, for x1 [..., n, n] and x2 [n] or [..., n, k]. Raises ValueError for shapes that do not fit or a singular x1 (eager
    on a CPU; nan elsewhere).

    >>> from minidl.ops import tensor
    >>> solve(tensor([[2.0, 0.0], [0.0, 4.0]]), tensor([2.0, 2.0])).tolist()
    [1.0, 0.5]
    """
    a = operand(x1)
    b = operand(x2, a)
    vector = b.ndim == 1
    b = reshaped(b, (*b.shape, 1)) if vector else b
    if a.ndim < 2 or a.shape[-1] != a.shape[-2] or a.shape[-1] != b.shape[-2]:
        raise ValueError(f"solve: x1 of shape {a.shape} and x2 of shape {b.shape}; [..., n, n] and [..., n, k] are wanted")
    lead = shapes.broadcast(a.shape[:-2], b.shape[:-2])
    a, b = (v if v.shape[:-2] == lead else broadcast_to(v, (*lead, *v.shape[-2:])) for v in (a, b))
    out = _whole("solve", ns.solve(a, b), "the matrix is singular", a, b)
    return reshaped(out, out.shape[:-1]) if vector else out


def inv(x: Any, /) -> Tensor:
    """The inverse of x [..., n, n]. Raises ValueError for a singular x (eager on a CPU; nan elsewhere)."""
    x = operand(x)
    if x.ndim < 2 or x.shape[-1] != x.shape[-2]:
        raise ValueError(f"inv: shape {x.shape} is no square matrix (or batch of them)")
    x = x if x.dtype.inexact else ns.div(x, 1.0)
    with using(home(x.xp)):
        unit = broadcast_to(eye(x.shape[-1], dtype=x.dtype), x.shape)
    return _whole("inv", ns.solve(x, unit), "the matrix is singular", x)


def triangular_solve(a: Any, b: Any, /, *, lower: bool = True, transpose: bool = False, unit: bool = False) -> Tensor:
    """The y with a y = b (aᵀ y = b if transpose), reading one triangle of a [..., n, n] alone, its diagonal taken as ones if unit. b: [..., n, k]."""
    a = operand(a)
    b = operand(b, a)
    lead = shapes.broadcast(a.shape[:-2], b.shape[:-2])
    a, b = (v if v.shape[:-2] == lead else broadcast_to(v, (*lead, *v.shape[-2:])) for v in (a, b))
    return ns.triangular_solve(a, b, lower=lower, transpose=transpose, unit=unit)


check_all(globals(), __all__)
