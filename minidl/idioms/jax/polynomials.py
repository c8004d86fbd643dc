"""jax.numpy's polynomials: coefficients from the highest power down."""

from __future__ import annotations

from typing import Any

import numpy as np

import minidl as md
from minidl.idioms.jax.arrays import beside, inexact


def _aligned(a: Any, b: Any) -> tuple[md.Tensor, md.Tensor]:
    a, b = md.atleast_1d(md.asarray(a)), md.atleast_1d(md.asarray(b))
    n = max(a.shape[0], b.shape[0])
    return md.pad(a, ((n - a.shape[0], 0),)), md.pad(b, ((n - b.shape[0], 0),))


def polyadd(a1: Any, a2: Any) -> md.Tensor:
    """The sum of two polynomials.

    >>> polyadd(md.tensor([1.0, 2.0]), md.tensor([3.0])).tolist()
    [1.0, 5.0]
    """
    a, b = _aligned(a1, a2)
    return a + b


def polysub(a1: Any, a2: Any) -> md.Tensor:
    """The difference of two polynomials."""
    a, b = _aligned(a1, a2)
    return a - b


def polymul(a1: Any, a2: Any, *, trim_leading_zeros: bool = False) -> md.Tensor:
    """The product of two polynomials; trim_leading_zeros wants values that are known.

    >>> polymul(md.tensor([1.0, 1.0]), md.tensor([1.0, -1.0])).tolist()
    [1.0, 0.0, -1.0]
    """
    a, b = md.atleast_1d(md.asarray(a1)), md.atleast_1d(md.asarray(a2))
    if trim_leading_zeros:
        a, b = (v[int(np.argmax(v.numpy() != 0)) :] for v in (a, b))
    return md.convolve(a, b)


def polydiv(u: Any, v: Any, *, trim_leading_zeros: bool = False) -> tuple[md.Tensor, md.Tensor]:
    """Quotient and remainder of two polynomials; the remainder keeps the length of u, as in JAX.

    >>> [x.tolist() for x in polydiv(md.tensor([1.0, 0.0, -1.0]), md.tensor([1.0, 1.0]))]
    [[1.0, -1.0], [0.0, 0.0, 0.0]]
    """
    rest, v = inexact(u), inexact(v)
    n = v.shape[0]
    quotient = []
    for k in range(rest.shape[0] - n + 1):
        quotient.append(rest[k] / v[0])
        rest = rest.at[k : k + n].add(-quotient[-1] * v)
    if trim_leading_zeros:
        rest = rest[int(np.argmax(rest.numpy() != 0)) :] if rest.numpy().any() else rest[-1:]
    return (md.stack(quotient) if quotient else md.zeros((1,), dtype=rest.dtype)), rest


def polyder(p: Any, m: int = 1) -> md.Tensor:
    """The m-th derivative of a polynomial.

    >>> polyder(md.tensor([1.0, 2.0, 3.0])).tolist()
    [2.0, 2.0]
    """
    p = inexact(p)
    for _ in range(m):
        p = p[:-1] * md.arange(p.shape[0] - 1, 0, -1, **beside(p)).to(p.dtype)
    return p


def polyint(p: Any, m: int = 1, k: Any = None) -> md.Tensor:
    """The m-th integral of a polynomial, with the constants k (0), the first of which is the first to be integrated.

    >>> polyint(md.tensor([2.0, 2.0])).tolist()
    [1.0, 2.0, 0.0]
    """
    p = inexact(p)
    constants = md.broadcast_to(md.asarray(0.0 if k is None else k, dtype=p.dtype, **beside(p)), (m,))
    for i in range(m):
        p = md.concat([p / md.arange(p.shape[0], 0, -1, **beside(p)).to(p.dtype), constants[i : i + 1]])
    return p


def poly(seq_of_zeros: Any) -> md.Tensor:
    """The polynomial with these roots, or the characteristic polynomial of a matrix.

    >>> poly(md.tensor([1.0, 2.0])).tolist()
    [1.0, -3.0, 2.0]
    """
    roots = inexact(seq_of_zeros)
    roots = md.linalg.eigvals(roots) if roots.ndim == 2 else roots
    out = md.ones((1,), dtype=roots.dtype, **beside(roots))
    for r in md.unstack(roots):
        out = md.pad(out, ((0, 1),)) - md.pad(out, ((1, 0),)) * r
    return out


def roots(p: Any, *, strip_zeros: bool = True) -> md.Tensor:
    """The roots of a polynomial, the eigenvalues of its companion matrix, in no order; strip_zeros=False can be traced and wants a first coefficient
    that is not zero.

    >>> sorted(round(v.real, 3) for v in roots(md.tensor([1.0, -3.0, 2.0])).tolist())
    [1.0, 2.0]
    """
    p = inexact(p)
    zeros = 0
    if strip_zeros:
        there = np.flatnonzero(p.numpy())
        if not len(there):
            return md.zeros((0,), dtype=md.result_type(p.dtype, md.complex64))
        zeros = p.shape[0] - 1 - int(there[-1])
        p = p[int(there[0]) : int(there[-1]) + 1]
    n = p.shape[0] - 1
    dtype = md.result_type(p.dtype, md.complex64)
    if n < 1:
        return md.zeros((zeros,), dtype=dtype, **beside(p))
    below = md.eye(n, k=-1, dtype=p.dtype, **beside(p))
    found = md.linalg.eigvals(below.at[0, :].set(-p[1:] / p[0]))
    return md.concat([found, md.zeros((zeros,), dtype=found.dtype, **beside(p))])


def polyfit(x: Any, y: Any, deg: int, rcond: float | None = None, full: bool = False, w: Any = None, cov: Any = False) -> Any:
    """The polynomial of degree deg of the least squared distance from the points, each of weight w. full: also residuals, rank, singular values and
    rcond; cov: also the covariance of the coefficients, scaled by the residuals unless it is "unscaled". Raises ValueError for no points.

    >>> [round(v, 4) for v in polyfit(md.tensor([0.0, 1.0, 2.0]), md.tensor([1.0, 3.0, 5.0]), 1).tolist()]
    [2.0, 1.0]
    """
    x, y = inexact(x), inexact(y)
    if x.ndim != 1 or not x.size or y.shape[:1] != x.shape or y.ndim > 2:
        raise ValueError(f"polyfit: x of shape {x.shape} and y of shape {y.shape}; a vector, and as many rows, are wanted")
    rcond = x.shape[0] * md.finfo(x.dtype).eps if rcond is None else rcond
    left, right = md.vander(x, deg + 1), y
    if w is not None:
        w = inexact(w)
        left, right = left * w[:, None], right * (w[:, None] if y.ndim == 2 else w)
    scale = md.sqrt(md.sum(left * left, axis=0))
    left = left / scale
    c, residuals, rank, s = md.linalg.lstsq(left, right, rcond)
    c = (c.T / scale).T
    if full:
        return c, residuals, rank, s, md.asarray(rcond)
    if not cov:
        return c
    base = md.linalg.inv(left.T @ left) / md.outer(scale, scale)
    if cov == "unscaled":
        return c, base
    if x.shape[0] <= deg + 1:
        raise ValueError("polyfit: a covariance needs more points than coefficients")
    by = residuals / (x.shape[0] - deg - 1)
    return c, base[:, :, None] * by if y.ndim == 2 else base * by


#: Name -> what it is in jax.numpy.
NAMES: dict[str, Any] = {
    f.__name__: f for f in (poly, polyadd, polyder, polydiv, polyfit, polyint, polymul, polysub, roots)
}  # fmt: skip
