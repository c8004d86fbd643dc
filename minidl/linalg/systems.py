"""Systems of equations and determinants: the last two axes are the matrix, all axes before them are a batch.

Derivatives are written with products and solves, so that they have derivatives of their own. A matrix without a factor or an inverse gives nan.
"""

from __future__ import annotations

import math
from typing import Any

from minidl import int64
from minidl.extend import Primitive, batch_leading, define, describe


def infer_square(name: str, real: bool) -> Any:
    def infer(x: Any) -> Any:
        if len(x.shape) < 2 or x.shape[-1] != x.shape[-2]:
            raise ValueError(f"{name}: {describe(x)} is no square matrix (or batch of them)")
        if not (x.dtype.is_float if real else x.dtype.inexact):
            raise TypeError(f"{name}: dtype {x.dtype.short} is not supported; it wants a float{'' if real else ' or complex'} dtype")
        return x.shape, x.dtype

    return infer


def mm(xp: Any, x: Any, y: Any) -> Any:
    n = len(x.shape) - 2
    return xp.dot_general(x, y, contract=((n + 1,), (n,)), batch=(tuple(range(n)),) * 2)


def turned(xp: Any, x: Any) -> Any:
    n = len(x.shape)
    return xp.permute(x, axes=(*range(n - 2), n - 1, n - 2))


def conjugate(xp: Any, x: Any) -> Any:
    """conj(x); x itself where it is real."""
    return xp.conj(x) if xp.dtype_of(x).is_complex else x


# ---- triangular systems ---------------------------------------------------------------------------------------------------------------
def _infer_triangular(a: Any, b: Any, *, lower: bool, transpose: bool, unit: bool) -> Any:
    infer_square("triangular_solve", False)(a)
    if len(b.shape) != len(a.shape) or b.shape[:-1] != a.shape[:-1]:
        raise ValueError(f"triangular_solve: {describe(a)} and right sides {describe(b)}; as many rows and equal leading axes are wanted")
    return b.shape, b.dtype


def _triangle(xp: Any, x: Any, lower: bool, unit: bool) -> Any:
    """What a triangular solve reads of its matrix."""
    return xp.tril(x, k=-int(unit)) if lower else xp.triu(x, k=int(unit))


def _triangular_a(xp: Any, g: Any, a: Any, out: Any, lower: bool, transpose: bool, unit: bool) -> Any:
    back = xp.triangular_solve(a, g, lower=lower, transpose=not transpose, unit=unit)
    grad = mm(xp, out, turned(xp, back)) if transpose else mm(xp, back, turned(xp, out))
    return -_triangle(xp, grad, lower, unit)


def _triangular_a_jvp(xp: Any, t: Any, a: Any, out: Any, lower: bool, transpose: bool, unit: bool) -> Any:
    t = _triangle(xp, t, lower, unit)
    return -xp.triangular_solve(a, mm(xp, turned(xp, t) if transpose else t, out), lower=lower, transpose=transpose, unit=unit)


def _triangular_b(xp: Any, g: Any, a: Any, lower: bool, transpose: bool, unit: bool) -> Any:
    return xp.triangular_solve(a, g, lower=lower, transpose=not transpose, unit=unit)


triangular_solve = Primitive(
    "triangular_solve", "a b", "lower transpose unit", infer=_infer_triangular, promote="float", batch=batch_leading, check_first=True,
    vjps=(_triangular_a, _triangular_b), jvps=(_triangular_a_jvp, "linear"),
)  # fmt: skip


def unit_like(xp: Any, x: Any) -> Any:
    """Unit matrices, as many and as large as x."""
    place = xp.iota(size=x.shape[-1], dtype=int64)
    unit = xp.cast(xp.eq(xp.reshape(place, shape=(x.shape[-1], 1)), place), dtype=xp.dtype_of(x))
    return xp.broadcast_to(unit, shape=tuple(x.shape))


# ---- elimination ----------------------------------------------------------------------------------------------------------------------
def _swap(xp: Any, x: Any, axis: int, k: int, p: Any) -> Any:
    """x [batch, m, n] with rows (axis 1) or columns (axis 2) k and p[batch] exchanged."""
    n = x.shape[axis]
    place = xp.reshape(xp.iota(size=n, dtype=int64), shape=(1, n))
    p = xp.reshape(p, shape=(x.shape[0], 1))
    source = xp.where(xp.eq(place, k), p, xp.where(xp.eq(place, p), k, place))
    source = xp.reshape(source, shape=(x.shape[0], n, 1) if axis == 1 else (x.shape[0], 1, n))
    return xp.take_along(x, xp.broadcast_to(source, shape=tuple(x.shape)), axis=axis)


def _cut(xp: Any, x: Any, *ranges: tuple[int, int]) -> Any:
    start, stop = zip((0, x.shape[0]), *ranges, strict=True)
    return xp.slice(x, start=start, stop=stop, step=(1, 1, 1))


def eliminate(xp: Any, x: Any, right: Any = None) -> tuple[Any, Any, Any, Any]:
    """(U, R, Q, sign) for square x [batch, n, n] and right sides [batch, n, m] (the unit matrix by default): E x Q = U and R = E right.

    U is upper triangular, Q a permutation, sign = det(E) det(Q). Gaussian elimination with complete pivoting: in a matrix whose rank is one less than
    its size only the last pivot is 0, which is what the cofactors of a singular matrix need.
    """
    batch, n = x.shape[:2]
    dtype = xp.dtype_of(x)
    eye = unit_like(xp, x)
    rows, q = xp.concat(x, eye if right is None else right, axis=2), eye
    width = rows.shape[2]
    sign = xp.full(shape=(batch, 1), value=1, dtype=dtype)
    for k in range(n - 1):
        m = n - k
        sizes = xp.reshape(xp.abs(_cut(xp, rows, (k, n), (k, n))), shape=(batch, m * m))
        at = xp.argmax(sizes, axis=1, keepdims=False)
        side = xp.full(shape=(), value=m, dtype=int64)
        row, column = xp.add(xp.floor_divide(at, side), k), xp.add(xp.remainder(at, side), k)
        rows = _swap(xp, _swap(xp, rows, 1, k, row), 2, k, column)
        q = _swap(xp, q, 2, k, column)
        odd = xp.reshape(xp.logical_xor(xp.ne(row, k), xp.ne(column, k)), shape=(batch, 1))
        sign = xp.where(odd, -sign, sign)
        pivot = _cut(xp, rows, (k, k + 1), (k, k + 1))
        factor = xp.where(xp.eq(pivot, 0), 0, _cut(xp, rows, (k + 1, n), (k, k + 1)) / xp.where(xp.eq(pivot, 0), 1, pivot))
        below = _cut(xp, rows, (k + 1, n), (0, width)) - factor * _cut(xp, rows, (k, k + 1), (0, width))
        rows = xp.concat(_cut(xp, rows, (0, k + 1), (0, width)), below, axis=1)
    return _cut(xp, rows, (0, n), (0, n)), _cut(xp, rows, (0, n), (n, width)), q, sign


def _flat(xp: Any, x: Any) -> Any:
    return xp.reshape(x, shape=(math.prod(x.shape[:-2]), *x.shape[-2:]))


def _diagonal(xp: Any, u: Any, n: int) -> Any:
    """The first n diagonal elements of u [batch, ., .], as [batch, n]."""
    batch, size = u.shape[:2]
    flat = xp.reshape(u, shape=(batch, size * size))
    return xp.slice(flat, start=(0, 0), stop=(batch, (n - 1) * (size + 1) + 1 if n else 0), step=(1, size + 1))


def _det(xp: Any, x: Any) -> Any:
    u, _, _, sign = eliminate(xp, _flat(xp, x))
    out = xp.prod(xp.concat(sign, _diagonal(xp, u, x.shape[-1]), axis=1), axis=(1,), keepdims=False)
    return xp.reshape(out, shape=tuple(x.shape[:-2]))


def _cofactor(xp: Any, x: Any) -> Any:
    """The matrix of cofactors: det(E) det(Q) (Q adj(U) R) transposed; adj(U) = det(U) inv(U) is written without dividing by the last pivot."""
    u, r, q, sign = eliminate(xp, _flat(xp, x))
    batch, n = u.shape[:2]
    lead, last = xp.prod(xp.concat(sign, _diagonal(xp, u, n - 1), axis=1), axis=(1,), keepdims=True), _cut(xp, u, (n - 1, n), (n - 1, n))
    lead = xp.reshape(lead, shape=(batch, 1, 1))
    bottom = _cut(xp, q * 0 + 1, (0, 1), (0, 1))
    if n == 1:
        adjugate = bottom
    else:
        corner = _cut(xp, u, (0, n - 1), (0, n - 1))
        eye = unit_like(xp, _cut(xp, u, (0, n - 1), (0, n - 1)))
        sides = xp.concat(eye * last, -_cut(xp, u, (0, n - 1), (n - 1, n)), axis=2)
        top = xp.triangular_solve(corner, sides, lower=False, transpose=False, unit=False)
        adjugate = xp.concat(top, xp.concat(_cut(xp, q * 0, (0, 1), (0, n - 1)), bottom, axis=2), axis=1)
    adjugate = xp.where(xp.eq(lead, 0), 0, adjugate * lead)
    return xp.reshape(turned(xp, mm(xp, mm(xp, q, adjugate), r)), shape=tuple(x.shape))


def _spread(xp: Any, v: Any) -> Any:
    return xp.reshape(v, shape=(*v.shape, 1, 1))


def _inner(xp: Any, x: Any, y: Any) -> Any:
    n = len(x.shape)
    return xp.sum(x * y, axis=(n - 2, n - 1), keepdims=False)


def _cofactor_rule(xp: Any, g: Any, x: Any, out: Any) -> Any:
    """Its own transpose. At a singular matrix the quotient is 0/0: nan."""
    crossed = mm(xp, mm(xp, out, turned(xp, g)), out)
    return (out * _spread(xp, _inner(xp, out, g)) - crossed) / _spread(xp, xp.det(x))


cofactor = Primitive(
    "cofactor", "x", infer=infer_square("cofactor", False), promote="float", batch=batch_leading, check_first=True,
    vjps=(_cofactor_rule,), jvps=(_cofactor_rule,), decompose=_cofactor,
)  # fmt: skip
det = Primitive(
    "det", "x", infer=lambda x: (infer_square("det", False)(x)[0][:-2], x.dtype), promote="float", batch=batch_leading, check_first=True,
    vjps=(lambda xp, g, x: _spread(xp, g) * xp.cofactor(x),), jvps=(lambda xp, t, x: _inner(xp, t, xp.cofactor(x)),), decompose=_det,
)  # fmt: skip


# ---- systems --------------------------------------------------------------------------------------------------------------------------
def _solve(xp: Any, a: Any, b: Any) -> Any:
    u, r, q, _ = eliminate(xp, _flat(xp, a), _flat(xp, b))
    n = a.shape[-1]
    dead = xp.any(xp.eq(_diagonal(xp, u, n), 0), axis=(1,), keepdims=True)
    out = mm(xp, q, xp.triangular_solve(u, r, lower=False, transpose=False, unit=False))
    return xp.reshape(xp.where(xp.reshape(dead, shape=(u.shape[0], 1, 1)), float("nan"), out), shape=tuple(b.shape))


def _infer_solve(a: Any, b: Any) -> Any:
    return _infer_triangular(a, b, lower=True, transpose=False, unit=False)


solve = Primitive(
    "solve", "a b", infer=_infer_solve, promote="float", batch=batch_leading, check_first=True, decompose=_solve,
    vjps=(lambda xp, g, a, out: -mm(xp, xp.solve(turned(xp, a), g), turned(xp, out)), lambda xp, g, a: xp.solve(turned(xp, a), g)),
    jvps=(lambda xp, t, a, out: -xp.solve(a, mm(xp, t, out)), "linear"),
)  # fmt: skip


def _inverse(xp: Any, a: Any) -> Any:
    return xp.solve(a, unit_like(xp, a))


def _logabsdet(xp: Any, x: Any) -> Any:
    u, _, _, _ = eliminate(xp, _flat(xp, x))
    out = xp.sum(xp.log(xp.abs(_diagonal(xp, u, x.shape[-1]))), axis=(1,), keepdims=False)
    return xp.reshape(out, shape=tuple(x.shape[:-2]))


def _infer_logabsdet(x: Any) -> Any:
    return infer_square("slogdet", False)(x)[0][:-2], x.dtype.real


def _logabsdet_vjp(xp: Any, g: Any, x: Any) -> Any:
    return _spread(xp, xp.cast(g, dtype=xp.dtype_of(x))) * turned(xp, _inverse(xp, x))


def _logabsdet_jvp(xp: Any, t: Any, x: Any) -> Any:
    out = _inner(xp, t, turned(xp, _inverse(xp, x)))
    return xp.real(out) if xp.dtype_of(x).is_complex else out


logabsdet = Primitive(
    "logabsdet", "x", infer=_infer_logabsdet, promote="float", batch=batch_leading, check_first=True, decompose=_logabsdet,
    vjps=(_logabsdet_vjp,), jvps=(_logabsdet_jvp,),
)  # fmt: skip


def _detsign(xp: Any, x: Any) -> Any:
    u, _, _, sign = eliminate(xp, _flat(xp, x))
    out = xp.prod(xp.concat(sign, xp.sign(_diagonal(xp, u, x.shape[-1])), axis=1), axis=(1,), keepdims=False)
    return xp.reshape(out, shape=tuple(x.shape[:-2]))


def _detsign_vjp(xp: Any, g: Any, x: Any, out: Any) -> Any:
    """Of complex numbers only the phase turns; the sign of real ones is piecewise constant."""
    if not xp.dtype_of(x).is_complex:
        return xp.full(shape=tuple(x.shape), value=0, dtype=xp.dtype_of(x))
    turn = xp.cast(xp.imag(g * out), dtype=xp.dtype_of(x))
    return _spread(xp, turn * 1j) * turned(xp, _inverse(xp, x))


def _detsign_jvp(xp: Any, t: Any, x: Any, out: Any) -> Any:
    if not xp.dtype_of(x).is_complex:
        return xp.full(shape=tuple(out.shape), value=0, dtype=xp.dtype_of(x))
    return out * 1j * xp.cast(xp.imag(_inner(xp, t, turned(xp, _inverse(xp, x)))), dtype=xp.dtype_of(x))


detsign = Primitive(
    "detsign", "x", infer=lambda x: (infer_square("slogdet", False)(x)[0][:-2], x.dtype), promote="float", batch=batch_leading, check_first=True,
    vjps=(_detsign_vjp,), jvps=(_detsign_jvp,), decompose=_detsign,
)  # fmt: skip
for _primitive in (triangular_solve, cofactor, det, solve, logabsdet, detsign):
    define(_primitive, kernels=__package__)
