"""Linear algebra under the names of the Array API's `linalg` extension; the last two axes are the matrix, axes before them are a batch.

A matrix without a factor or an inverse raises ValueError where the values can be looked at (eager, on a CPU), and gives nan elsewhere. One that
holds nan or an infinity raises nothing: its eigenvalues, singular values and vectors and its pseudo-inverse are nan all over, as is a Cholesky
factor in which there is any nan; elimination and reflections (solve, inv, det, slogdet, qr) carry such numbers on as arithmetic does. Integers
become the default float where the result is no integer. What mathematics leaves open is settled alike on every backend: the columns of
eigenvectors and of left singular vectors have a positive first entry among those of at least 0.77 times their largest, so that they have a
derivative for complex numbers too. Only the lower triangle of a Hermitian matrix is read, and so has a gradient. Vectors of equal eigenvalues or
singular values have none: nan.

Here are the public functions; the primitives are in systems.py and factors.py, what computes them on a backend in on_<backend>.py.
"""

from __future__ import annotations

import math
import operator
from typing import Any

import numpy as np

import minidl as md
import minidl.linalg.factors
from minidl import Tensor, broadcast_to, concat, dtypes, matmul, matrix_transpose, outer, tensordot, vecdot, vector_norm
from minidl.extend import axes_tuple, axis_index, cast, check_all, constant, create, cut, describe, expect, home, ns, operand, seen

__all__ = [
    "EigResult", "EighResult", "QRResult", "SVDResult", "SlogdetResult", "cholesky", "cross", "det", "diagonal", "eig", "eigh", "eigvals",
    "eigvalsh", "inv", "matmul", "matrix_norm", "matrix_power", "matrix_rank", "matrix_transpose", "norm", "outer", "pinv", "qr", "slogdet", "solve",
    "svd", "svdvals", "tensordot", "trace", "triangular_solve", "vecdot", "vector_norm",
]  # fmt: skip


class QRResult(md.tree.Fields):
    """What qr returns.

    >>> md.linalg.qr(md.eye(2))._fields
    ('Q', 'R')
    """

    Q: Tensor
    R: Tensor


class EighResult(md.tree.Fields):
    """What eigh returns.

    >>> md.linalg.eigh(md.eye(2))._fields
    ('eigenvalues', 'eigenvectors')
    """

    eigenvalues: Tensor
    eigenvectors: Tensor


class EigResult(md.tree.Fields):
    """What eig returns.

    >>> md.linalg.eig(md.eye(2))._fields
    ('eigenvalues', 'eigenvectors')
    """

    eigenvalues: Tensor
    eigenvectors: Tensor


class SVDResult(md.tree.Fields):
    """What svd returns.

    >>> md.linalg.svd(md.eye(2))._fields
    ('U', 'S', 'Vh')
    """

    U: Tensor
    S: Tensor
    Vh: Tensor


class SlogdetResult(md.tree.Fields):
    """What slogdet returns.

    >>> md.linalg.slogdet(md.eye(2))._fields
    ('sign', 'logabsdet')
    """

    sign: Tensor
    logabsdet: Tensor


def _matrices(name: str, x: Any, square: bool = False) -> Tensor:
    x = operand(x)
    if x.ndim < 2 or (square and x.shape[-1] != x.shape[-2]):
        raise ValueError(f"{name}: {describe(x)} is no {'square ' * square}matrix (or batch of them)")
    return x if x.dtype.inexact else cast(x, dtypes.Defaults.floating)


def _whole(name: str, out: Tensor, what: str, *inputs: Tensor) -> Tensor:
    """Raise where the factorisation of a matrix of finite numbers gave nan, at once or later."""
    own = tuple(range(max(x.ndim for x in inputs) - 2, out.ndim))  # the axes that are one matrix's
    if known := seen(out):
        lost = np.isnan(known[0]).any(axis=own)
        for a in seen(*inputs) or ():
            lost = lost & np.isfinite(a).all(axis=(-2, -1))
        if lost.any():
            raise ValueError(f"{name}: {what}")
        return out

    def bad() -> Tensor:
        found = md.any(ns.isnan(out), axis=own)
        for x in inputs:
            found = ns.logical_and(found, md.all(ns.isfinite(x), axis=(-2, -1)))
        return md.any(found)

    expect(bad, ValueError, f"{name}: {what}")
    return out


_ENDLESS = "the iteration did not converge"


def _zeros(x: Tensor, *sizes: int) -> Tensor:
    """Zeros for each matrix of x."""
    return constant(home(x), (*x.shape[:-2], *sizes), 0, x.dtype)


def _unit(x: Tensor, n: int) -> Tensor:
    """The unit matrix for each matrix of x."""
    place = create("iota", home(x), dtypes.int64, size=n)
    unit = ns.cast(ns.eq(ns.reshape(place, shape=(n, 1)), place), dtype=x.dtype)
    return ns.broadcast_to(unit, shape=(*x.shape[:-2], n, n))


def _rows(x: Tensor, start: int, stop: int) -> Tensor:
    return cut(x, x.ndim - 2, start, stop)


def _adjoint(x: Tensor) -> Tensor:
    return matrix_transpose(ns.conj(x) if x.dtype.is_complex else x)


def phases(v: Tensor) -> Tensor:
    """What to multiply the columns of v by, so that the first entry of each that is not small beside the largest becomes positive.

    Between that and the largest entry lies a factor of 0.77 (no plain ratio), so that entries which are equal but for rounding are no choice to make.
    """
    axis, size = v.ndim - 2, ns.abs(v)
    large = ns.ge(size, ns.mul(ns.max(size, axis=(axis,), keepdims=True), 0.77))
    first = ns.argmax(ns.cast(large, dtype=dtypes.int64), axis=axis, keepdims=True)
    sign = ns.sign(ns.take_along(v, first, axis=axis))
    return ns.conj(sign) if v.dtype.is_complex else sign


def _numbers(x: Tensor) -> Tensor:
    """The last row, which holds real numbers."""
    row = _rows(x, x.shape[-2] - 1, x.shape[-2])
    return ns.reshape(ns.real(row) if x.dtype.is_complex else row, shape=(*x.shape[:-2], x.shape[-1]))


# ---- factorisations -----------------------------------------------------------------------------------------------------------------------
def cholesky(x: Any, /, *, upper: bool = False) -> Tensor:
    """The lower triangular L with L Lᴴ = x for a positive definite x [..., n, n], of which the lower triangle alone is read; Lᴴ if upper.

    Raises ValueError for a matrix that is not square, or not positive definite (eager on a CPU; nan elsewhere).

    >>> md.linalg.cholesky(md.tensor([[4.0, 2.0], [2.0, 2.0]])).tolist()
    [[2.0, 0.0], [1.0, 1.0]]
    """
    x = operand(x)
    out = _whole("cholesky", ns.cholesky(x), "the matrix is not positive definite", x)
    return _adjoint(out) if upper else out


def qr(x: Any, /, mode: str = "reduced") -> QRResult:
    """(Q, R) with x = Q R for x [..., m, n]: k = min(m, n) orthonormal columns Q and upper triangular R [..., k, n]; "complete" has m columns.

    Both by Householder's reflections, so the diagonal of R may be negative. Q is differentiable whole, the columns that complete it too, where the
    first columns of x are independent; else the derivative is nan. Raises ValueError for another mode.

    >>> q, r = md.linalg.qr(md.tensor([[0.0, 1.0], [2.0, 3.0]]))
    >>> q.tolist(), r.tolist()
    ([[0.0, -1.0], [-1.0, 0.0]], [[-2.0, -3.0], [0.0, -1.0]])
    """
    if mode not in ("reduced", "complete"):
        raise ValueError(f"qr: mode {mode!r} is neither 'reduced' nor 'complete'")
    x = _matrices("qr", x)
    m, n = x.shape[-2:]
    width = m if mode == "complete" else min(m, n)
    if 0 in x.shape:
        return QRResult(_unit(x, m) if mode == "complete" else _zeros(x, m, width), _zeros(x, width, n))
    head = min(m, n)
    out = ns.qr(cut(x, x.ndim - 1, 0, head), complete=width > n)
    q, r = _rows(out, 0, m), cut(_rows(out, m, m + head), x.ndim - 1, 0, head)
    if head < n:
        r = concat([r, md.full_precision(matmul)(_adjoint(q), cut(x, x.ndim - 1, head, n))], axis=-1)
    elif width > n:
        r = md.pad(r, [0] * (x.ndim - 2) + [(0, width - n), 0])
    return QRResult(q, r)


def eigh(x: Any, /) -> EighResult:
    """(eigenvalues [..., n], eigenvectors [..., n, n]) of a symmetric or Hermitian x [..., n, n]; values are real and ascend, vectors are columns.

    >>> md.linalg.eigh(md.tensor([[3.0, 0.0], [0.0, 1.0]])).eigenvalues.tolist()
    [1.0, 3.0]
    """
    x = _matrices("eigh", x, square=True)
    if 0 in x.shape:
        return EighResult(_empty_values(x), _zeros(x, *x.shape[-2:]))
    out = _whole("eigh", ns.eigh(x), _ENDLESS, x)
    v = _rows(out, 0, x.shape[-1])
    return EighResult(_numbers(out), ns.mul(v, phases(v)))


def eigvalsh(x: Any, /) -> Tensor:
    """The eigenvalues [..., n] of a symmetric or Hermitian x [..., n, n], ascending. Where some are equal, the derivative is that of one choice of
    eigenvectors, which is the right one for what depends on equal ones alike.

    >>> md.linalg.eigvalsh(md.tensor([[3.0, 0.0], [0.0, 1.0]])).tolist()
    [1.0, 3.0]
    """
    x = _matrices("eigvalsh", x, square=True)
    return _empty_values(x) if 0 in x.shape else _whole("eigvalsh", ns.eigvalsh(x), _ENDLESS, x)


def _empty_values(x: Tensor) -> Tensor:
    return constant(home(x), (*x.shape[:-2], min(x.shape[-2:])), 0, x.dtype.real)


def eig(x: Any, /) -> EigResult:
    """(eigenvalues [..., n], eigenvectors [..., n, n]) of any square x [..., n, n], complex, in the order of the values' real and then imaginary
    parts; the vectors are columns of length 1. Where values are equal, or vectors not independent, derivatives are nan.

    >>> md.linalg.eig(md.tensor([[0.0, -1.0], [1.0, 0.0]])).eigenvalues.tolist()
    [-1j, 1j]
    """
    x = _matrices("eig", x, square=True)
    if 0 in x.shape:
        return EigResult(cast(_empty_values(x), x.dtype.complex), cast(_zeros(x, *x.shape[-2:]), x.dtype.complex))
    out = _whole("eig", ns.eig(x), _ENDLESS, x)
    n = x.shape[-1]
    w, v = ns.reshape(_rows(out, n, n + 1), shape=x.shape[:-1]), _rows(out, 0, n)
    order = _order(w)
    v = ns.take_along(v, broadcast_to(md.reshape(order, (*x.shape[:-2], 1, n)), v.shape), axis=v.ndim - 1)
    v = ns.mul(v, phases(v))
    length = vector_norm(v, axis=-2, keepdims=True)
    return EigResult(ns.take_along(w, order, axis=w.ndim - 1), ns.div(v, cast(length, v.dtype)))


def eigvals(x: Any, /) -> Tensor:
    """The eigenvalues [..., n] of any square x [..., n, n], complex, in the order of their real and then their imaginary parts.

    >>> md.linalg.eigvals(md.tensor([[0.0, -1.0], [1.0, 0.0]])).tolist()
    [-1j, 1j]
    """
    x = _matrices("eigvals", x, square=True)
    if 0 in x.shape:
        return cast(_empty_values(x), x.dtype.complex)
    w = _whole("eigvals", ns.eigvals(x), _ENDLESS, x)
    return ns.take_along(w, _order(w), axis=w.ndim - 1)


def _order(w: Tensor) -> Tensor:
    """The places of complex numbers in the order of real, then imaginary parts."""
    axis, w = w.ndim - 1, w.detach()
    places = ns.argsort(ns.imag(w), axis=axis, descending=False)
    again = ns.argsort(ns.take_along(ns.real(w), places, axis=axis), axis=axis, descending=False)
    return ns.take_along(places, again, axis=axis)


def svd(x: Any, /, full_matrices: bool = True) -> SVDResult:
    """(U, S, Vh) with x = (U * S) Vh for x [..., m, n]: the singular values S [..., k], k = min(m, n), descending; U [..., m, m] and Vh [..., n, n],
    or [..., m, k] and [..., k, n] without full_matrices.

    The columns that complete U or the rows that complete Vh are those of Householder's reflections of the others.

    >>> md.linalg.svd(md.tensor([[0.0, 2.0], [1.0, 0.0]])).S.tolist()
    [2.0, 1.0]
    """
    x = _matrices("svd", x)
    m, n = x.shape[-2:]
    if 0 in x.shape:
        k = min(m, n)
        u, vh = (_unit(x, m), _unit(x, n)) if full_matrices else (_zeros(x, m, k), _zeros(x, k, n))
        return SVDResult(u, _empty_values(x), vh)
    out = _whole("svd", ns.svd(x), _ENDLESS, x)
    u, v = _rows(out, 0, m), _rows(out, m, m + n)
    phase = phases(u)
    u, v = ns.mul(u, phase), ns.mul(v, phase)
    if full_matrices:
        u, v = _completed(u), _completed(v)
    return SVDResult(u, _numbers(out), _adjoint(v))


def _completed(u: Tensor) -> Tensor:
    """Orthonormal columns and those that complete them."""
    m, k = u.shape[-2:]
    return u if m == k else concat([u, cut(_rows(ns.qr(u, complete=True), 0, m), u.ndim - 1, k, m)], axis=-1)


def svdvals(x: Any, /) -> Tensor:
    """The singular values [..., min(m, n)] of x [..., m, n], descending. At a singular value 0, a kink, the derivative is 0.

    >>> md.linalg.svdvals(md.tensor([[0.0, 2.0], [1.0, 0.0]])).tolist()
    [2.0, 1.0]
    """
    x = _matrices("svdvals", x)
    return _empty_values(x) if 0 in x.shape else _whole("svdvals", ns.svdvals(x), _ENDLESS, x)


# ---- determinants -------------------------------------------------------------------------------------------------------------------------
def det(x: Any, /) -> Tensor:
    """The determinant of x [..., n, n]. The derivative is the matrix of cofactors, also where x is singular; second derivatives are nan there.

    >>> md.linalg.det(md.tensor([[1.0, 2.0], [4.0, 4.0]])).item()
    -4.0
    """
    return ns.det(operand(x))


def slogdet(x: Any, /) -> SlogdetResult:
    """The sign (phase) of the determinant of x [..., n, n] and the logarithm of its size, which neither overflows nor underflows.

    The derivative at a singular x is nan: its sign would depend on the side from which x is approached.

    >>> md.linalg.slogdet(md.tensor([[0.0, 1.0], [1.0, 0.0]])).sign.item()
    -1.0
    """
    x = operand(x)
    return SlogdetResult(ns.detsign(x), ns.logabsdet(x))


def matrix_rank(x: Any, /, *, rtol: Any = None) -> Tensor:
    """How many singular values of x [..., m, n] are larger than rtol times the largest (int64); rtol: max(m, n) eps by default, or one for each.

    >>> md.linalg.matrix_rank(md.tensor([[1.0, 2.0], [2.0, 4.0]])).item()
    1
    """
    x = _matrices("matrix_rank", x)
    if 0 in x.shape[-2:]:
        return constant(home(x), x.shape[:-2], 0, dtypes.int64)
    s = svdvals(x)
    least = ns.mul(md.max(s, -1, keepdims=True), md.reshape(tol := _rtol("matrix_rank", x, rtol), (*tol.shape, 1)))
    return md.sum(cast(ns.gt(s, least), dtypes.int64), -1)


def _rtol(name: str, x: Tensor, rtol: Any) -> Tensor:
    """A real number for each matrix."""
    real, lead = x.dtype.real, x.shape[:-2]
    if rtol is None:
        eps = {"float16": 2.0**-10, "bfloat16": 2.0**-7}.get(real.name) or float(np.finfo(real.numpy).eps)
        return constant(home(x), lead, max(x.shape[-2:]) * eps, real)
    if isinstance(rtol, (int, float)):
        return constant(home(x), lead, rtol, real)
    rtol = operand(rtol, x)
    if len(rtol.shape) > len(lead) or md.broadcast_shapes(rtol.shape, lead) != lead:
        raise ValueError(f"{name}: rtol {describe(rtol)} for {describe(x)}; one for each matrix, or one for all, is wanted")
    return broadcast_to(cast(rtol, real).detach(), lead)


# ---- systems and inverses -----------------------------------------------------------------------------------------------------------------
def solve(x1: Any, x2: Any, /) -> Tensor:
    """The y with x1 y = x2, for x1 [..., n, n] and x2 [n] or [..., n, k]. Raises ValueError for shapes that do not fit or a singular x1 (eager
    on a CPU; nan elsewhere).

    >>> md.linalg.solve(md.tensor([[2.0, 0.0], [0.0, 4.0]]), md.tensor([2.0, 2.0])).tolist()
    [1.0, 0.5]
    """
    a = operand(x1)
    b = operand(x2, a)
    vector = b.ndim == 1
    b = md.reshape(b, (*b.shape, 1)) if vector else b
    if a.ndim < 2 or a.shape[-1] != a.shape[-2] or b.ndim < 2 or a.shape[-1] != b.shape[-2]:
        raise ValueError(f"solve: x1 of shape {a.shape} and x2 of shape {b.shape}; [..., n, n] and [..., n, k] are wanted")
    out = _whole("solve", ns.solve(*_paired("solve", a, b)), "the matrix is singular", a, b)
    return md.reshape(out, out.shape[:-1]) if vector else out


def _paired(name: str, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    try:
        lead = md.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    except ValueError:
        raise ValueError(f"{name}: batch dimensions do not broadcast: {describe(a)} and {describe(b)}") from None
    a, b = (v if v.shape[:-2] == lead else broadcast_to(v, (*lead, *v.shape[-2:])) for v in (a, b))
    return a, b


def inv(x: Any, /) -> Tensor:
    """The inverse of x [..., n, n]. Raises ValueError for a singular x (eager on a CPU; nan elsewhere).

    >>> md.linalg.inv(md.tensor([[2.0, 0.0], [0.0, 4.0]])).tolist()
    [[0.5, 0.0], [0.0, 0.25]]
    """
    x = _matrices("inv", x, square=True)
    return _whole("inv", ns.solve(x, _unit(x, x.shape[-1])), "the matrix is singular", x)


def pinv(x: Any, /, *, rtol: Any = None) -> Tensor:
    """The pseudo-inverse [..., n, m] of x [..., m, n] (Moore and Penrose). Singular values of at most rtol times the largest count as 0; rtol:
    max(m, n) eps by default, or one for each matrix. The derivative is that for matrices of the same rank; rtol has none.

    >>> md.linalg.pinv(md.tensor([[2.0], [0.0]])).tolist()
    [[0.5, 0.0]]
    """
    x = _matrices("pinv", x)
    if 0 in x.shape:
        return _zeros(x, x.shape[-1], x.shape[-2])
    return _whole("pinv", ns.pinv(x, _rtol("pinv", x, rtol)), _ENDLESS, x)


def triangular_solve(a: Any, b: Any, /, *, lower: bool = True, transpose: bool = False, unit: bool = False) -> Tensor:
    """The y with a y = b (aᵀ y = b if transpose), reading one triangle of a [..., n, n] alone, its diagonal taken as ones if unit. b: [..., n, k].

    >>> md.linalg.triangular_solve(md.tensor([[2.0, 9.0], [1.0, 1.0]]), md.tensor([[2.0], [3.0]])).tolist()
    [[1.0], [2.0]]
    """
    a = operand(a)
    b = operand(b, a)
    return ns.triangular_solve(*_paired("triangular_solve", a, b), lower=lower, transpose=transpose, unit=unit)


def matrix_power(x: Any, n: int, /) -> Tensor:
    """x [..., k, k] times itself, n factors by repeated squaring; the unit matrix for 0, the inverse's power for a negative n.

    Under md.autocast it computes in float32, as `inv` and the factorisations do, whatever n is: squaring multiplies what each product rounds off.
    (PyTorch's products round to the low dtype from n = 2 on.)
    Raises ValueError for a matrix that is not square.

    >>> md.linalg.matrix_power(md.tensor([[1.0, 1.0], [0.0, 1.0]]), 5).tolist()
    [[1.0, 5.0], [0.0, 1.0]]
    """
    x = operand(x)
    if x.ndim < 2 or x.shape[-1] != x.shape[-2]:
        raise ValueError(f"matrix_power: {describe(x)} is no square matrix (or batch of them)")
    return _power(x, operator.index(n))


@md.full_precision
def _power(x: Tensor, n: int) -> Tensor:
    if n == 0:
        return _unit(x, x.shape[-1])
    x, n, out = inv(x) if n < 0 else x, abs(n), None
    while True:
        if n % 2:
            out = x if out is None else matmul(out, x)
        n //= 2
        if not n:
            return md.positive(out) if out is x else out  # type: ignore[return-value]
        x = matmul(x, x)


# ---- norms and products -------------------------------------------------------------------------------------------------------------------
def matrix_norm(x: Any, /, ord: Any = "fro", axis: tuple[int, int] = (-2, -1), keepdims: bool = False) -> Tensor:
    """A norm of the matrices in x, which lie in two axes, the last ones of [..., m, n] unless others are said.

    ord: "fro" (the root of the sum of squares), "nuc" (the sum of singular values), 2 or -2 (the largest or least of them), 1 or -1 (the largest
    or least sum of sizes in a column), inf or -inf (in a row). Derivatives are those of the parts: 0 at 0, ties split. Raises ValueError for
    another ord, and for axes that are the same.

    >>> md.linalg.matrix_norm(md.tensor([[3.0, 0.0], [0.0, 4.0]])).item()
    5.0
    """
    x = _matrices("matrix_norm", x)
    if tuple(axis) != (-2, -1):
        places = axes_tuple("matrix_norm", tuple(axis), x.ndim)
        out = matrix_norm(md.moveaxis(x, tuple(axis), (-2, -1)), ord)
        return md.expand_dims(out, axis=places) if keepdims else out
    if ord == "fro":
        return vector_norm(x, axis=(x.ndim - 2, x.ndim - 1), keepdims=keepdims)
    if ord not in ("nuc", 1, -1, 2, -2, math.inf, -math.inf):
        raise ValueError(f"matrix_norm: ord {ord!r} is none of 'fro', 'nuc', 1, -1, 2, -2, inf, -inf")
    if ord in ("nuc", 2, -2):
        parts = svdvals(x)
    else:
        parts = md.sum(ns.abs(x), -2 if abs(ord) == 1 else -1)
    if ord == "nuc" or (not parts.shape[-1] and ord > 0):  # the largest of no sizes is 0
        out = md.sum(parts, -1)
    else:
        out = (md.max if ord > 0 else md.min)(parts, -1)
    return md.reshape(out, (*out.shape, 1, 1)) if keepdims else out


def norm(x: Any, /, ord: Any = None, axis: int | tuple[int, ...] | None = None, keepdims: bool = False) -> Tensor:
    """A norm of vectors (along one axis) or of matrices (two axes), as numpy.linalg.norm and torch.linalg.norm have it.

    Without ord the root of the sum of squares over these axes, or over all; with ord and no axis that norm of x, which is a vector or a matrix then.
    Raises ValueError for another number of axes, and for an ord that such a norm has not.

    >>> md.linalg.norm(md.tensor([[3.0, 4.0], [0.0, 1.0]]), axis=1).tolist()
    [5.0, 1.0]
    """
    x = operand(x)
    if ord is None:
        return vector_norm(x, axis=axis, keepdims=keepdims)
    axes = axes_tuple("norm", axis, x.ndim)
    if len(axes) not in (1, 2):
        raise ValueError(f"norm: ord {ord!r} is for one axis or two, not for the {len(axes)} of {describe(x)}; say which with axis")
    if len(axes) == 1:
        return vector_norm(x, axis=axes[0], ord=ord, keepdims=keepdims)
    rows, columns = axes if axis is None else (a % x.ndim for a in axis)  # type: ignore[union-attr]  # in the order in which they were said
    out = matrix_norm(md.moveaxis(x, (rows, columns), (-2, -1)), ord=ord, keepdims=keepdims)
    return md.moveaxis(out, (-2, -1), (rows, columns)) if keepdims else out


def diagonal(x: Any, /, *, offset: int = 0) -> Tensor:
    """The elements x[..., i, i + offset] of the last two axes, as a new last axis.

    >>> md.linalg.diagonal(md.tensor([[1.0, 2.0], [3.0, 4.0]])).tolist()
    [1.0, 4.0]
    """
    return md.diagonal(x, offset=offset, axis1=-2, axis2=-1)


def trace(x: Any, /, *, offset: int = 0, dtype: Any = None) -> Tensor:
    """The sum of a diagonal of the last two axes.

    >>> md.linalg.trace(md.tensor([[1.0, 2.0], [3.0, 4.0]])).item()
    5.0
    """
    return md.sum(diagonal(x, offset=offset), -1, dtype=dtype)


def cross(x1: Any, x2: Any, /, *, axis: int = -1) -> Tensor:
    """The cross product of vectors of three numbers along an axis; the other axes broadcast. Raises ValueError for other sizes.

    >>> md.linalg.cross(md.tensor([1, 0, 0]), md.tensor([0, 1, 0])).tolist()
    [0, 0, 1]
    """
    x1 = operand(x1)
    x2 = operand(x2, x1)
    n = min(x1.ndim, x2.ndim)
    axis = axis_index("cross", axis, n) - n
    if x1.shape[axis] != 3 or x2.shape[axis] != 3:
        raise ValueError(f"cross: axis {axis} of {describe(x1)} and {describe(x2)} has sizes {x1.shape[axis]} and {x2.shape[axis]}; 3 is wanted")
    (a0, a1, a2), (b0, b1, b2) = (md.split(x, 1, axis=axis) for x in (x1, x2))
    pairs = ((a1, b2, a2, b1), (a2, b0, a0, b2), (a0, b1, a1, b0))
    return concat([ns.sub(ns.mul(a, b), ns.mul(c, d)) for a, b, c, d in pairs], axis=axis)


check_all(globals(), __all__)


def __getattr__(name: str) -> Any:
    """The names of SciPy's and PyTorch's linear algebra that minidl.idioms has."""
    try:
        room = {} if name.startswith("_") else md.idioms.NAMES["linalg"]
        ways = md.idioms.ABSENT["linalg"] if room else {}
    except ModuleNotFoundError:
        room, ways = {}, {}
    if name not in room:
        raise AttributeError(f"module 'minidl.linalg' has no attribute {name!r}" + (f"; {ways[name]}" if name in ways else ""))
    return room[name]
