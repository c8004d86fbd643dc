"""PyTorch's, NumPy's and SciPy's names of linear algebra that are compositions of md.linalg's functions; the last two axes are the matrix."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import minidl as md


def _square(name: str, a: Any) -> md.Tensor:
    a = md.asarray(a)
    if a.ndim < 2 or a.shape[-1] != a.shape[-2]:
        raise ValueError(f"{name}: square matrices [..., n, n] are wanted, not shape {a.shape}")
    return a if a.dtype.inexact else a.to(md.get_default_dtype())


def cond(x: Any, p: Any = None) -> md.Tensor:
    """The condition number |x| |x⁻¹| in a norm: the largest singular value by the smallest without p (or for 2), the reverse for -2, and for "fro",
    "nuc", 1, -1, inf and -inf by the inverse. inf for a singular matrix. Raises ValueError for another p.

    >>> md.linalg.cond(md.tensor([[4.0, 0.0], [0.0, 2.0]])).item()
    2.0
    """
    x = md.asarray(x)
    if p in (None, 2, -2):
        s = md.linalg.svdvals(x)
        return s[..., -1] / s[..., 0] if p == -2 else s[..., 0] / s[..., -1]
    x = _square("cond", x)
    broken = md.linalg.det(x) == 0
    safe = md.where(broken[..., None, None], md.eye(x.shape[-1], dtype=x.dtype, backend=x.backend, device=x.device), x)
    return md.where(broken, math.inf, md.linalg.matrix_norm(x, ord=p) * md.linalg.matrix_norm(md.linalg.inv(safe), ord=p))


def multi_dot(tensors: Sequence[Any]) -> md.Tensor:
    """The product of several matrices in the order of fewest multiplications; the first and the last may be vectors.

    Raises ValueError for fewer than two. The order is found as by A. K. Chandra, Computing matrix chain products in near-optimal time, 1975: exactly,
    by dynamic programming.

    >>> md.linalg.multi_dot([md.ones((2, 3)), md.ones((3, 4)), md.ones(4)]).tolist()
    [12.0, 12.0]
    """
    xs = [md.asarray(x) for x in tensors]
    if len(xs) < 2:
        raise ValueError(f"multi_dot: two or more matrices are wanted, not {len(xs)}")
    row, column = xs[0].ndim == 1, xs[-1].ndim == 1
    xs[0] = xs[0][None] if row else xs[0]
    xs[-1] = xs[-1][:, None] if column else xs[-1]
    if any(x.ndim != 2 for x in xs):
        raise ValueError(f"multi_dot: matrices are wanted, not shapes {', '.join(str(x.shape) for x in xs)}")
    sizes, n = [x.shape[0] for x in xs] + [xs[-1].shape[1]], len(xs)
    cost: dict[tuple[int, int], tuple[int, int]] = {(i, i): (0, i) for i in range(n)}
    for width in range(1, n):
        for i in range(n - width):
            j = i + width
            cost[i, j] = min((cost[i, k][0] + cost[k + 1, j][0] + sizes[i] * sizes[k + 1] * sizes[j + 1], k) for k in range(i, j))

    def product(i: int, j: int) -> md.Tensor:
        return xs[i] if i == j else product(i, cost[i, j][1]) @ product(cost[i, j][1] + 1, j)

    out = product(0, n - 1)
    return md.reshape(out, out.shape[row : 2 - column])


def lstsq(a: Any, b: Any, rcond: float | None = None) -> tuple[md.Tensor, md.Tensor, md.Tensor, md.Tensor]:
    """(x, residuals, rank, singular values) for the x of least norm with the least |a x - b|²; b is a vector or a matrix of columns.

    rcond: singular values below it times the largest count as 0, by default max(m, n) times the epsilon of the dtype. residuals: that least square of
    each column, as jax.numpy.linalg.lstsq has them, whatever the rank is. Raises ValueError for what is no matrix and for a b of other rows.

    >>> [round(v, 4) for v in md.linalg.lstsq(md.tensor([[1.0], [1.0]]), md.tensor([1.0, 3.0]))[0].tolist()]
    [2.0]
    """
    a, b = (v if v.dtype.inexact else v.to(md.get_default_dtype()) for v in (md.asarray(a), md.asarray(b)))
    if a.ndim != 2 or b.ndim not in (1, 2) or b.shape[0] != a.shape[0]:
        raise ValueError(f"lstsq: a matrix [m, n] and b [m] or [m, k] are wanted, not shapes {a.shape} and {b.shape}")
    limit = max(a.shape) * md.finfo(a.dtype).eps if rcond is None else rcond
    s = md.linalg.svdvals(a)
    rank = md.sum(s > limit * s[0])
    columns = b[:, None] if b.ndim == 1 else b
    x = md.linalg.pinv(a, rtol=limit) @ columns
    rest = a @ x - columns
    residuals = md.sum(md.real(rest * md.conj(rest)), axis=0)
    return (x[:, 0] if b.ndim == 1 else x), residuals, rank, s


#: Coefficients of the diagonal approximant of order 13, and the norm up to which it is exact to rounding in double precision.
_PADE = (
    64764752532480000.0, 32382376266240000.0, 7771770303897600.0, 1187353796428800.0, 129060195264000.0, 10559470521600.0, 670442572800.0,
    33522128640.0, 1323241920.0, 40840800.0, 960960.0, 16380.0, 182.0, 1.0,
)  # fmt: skip
_NEAR = 5.371920351148152


def matrix_exp(A: Any) -> md.Tensor:
    """The exponential of square matrices [..., n, n], by scaling, a rational approximant of order 13 and squaring.

    Raises ValueError for other shapes. Source: N. Higham, The scaling and squaring method for the matrix exponential revisited, SIAM Journal on
    Matrix Analysis and Applications 26, 2005.

    >>> [[round(v, 4) for v in row] for row in md.linalg.matrix_exp(md.tensor([[0.0, 1.0], [0.0, 0.0]])).tolist()]
    [[1.0, 1.0], [0.0, 1.0]]
    """
    a = _square("matrix_exp", A)
    if not a.size:
        return a * 1.0
    size = md.stop_gradient(md.max(md.sum(md.abs(a), axis=-2), axis=-1))
    times = md.clip(md.ceil(md.log2(md.maximum(size, 1e-30) / _NEAR)), 0, 1100)  # how often the result is squared; never for a size that is nan
    times = md.where(md.isfinite(times), times, 0.0)
    a = a * md.pow(2.0, -times)[..., None, None].to(a.dtype)
    one = md.eye(a.shape[-1], dtype=a.dtype, backend=a.backend, device=a.device)
    b, a2 = _PADE, a @ a
    a4 = a2 @ a2
    a6 = a4 @ a2
    u = a @ (a6 @ (b[13] * a6 + b[11] * a4 + b[9] * a2) + b[7] * a6 + b[5] * a4 + b[3] * a2 + b[1] * one)
    v = a6 @ (b[12] * a6 + b[10] * a4 + b[8] * a2) + b[6] * a6 + b[4] * a4 + b[2] * a2 + b[0] * one
    out = md.linalg.solve(v - u, v + u)

    def squared(k: Any, x: md.Tensor) -> md.Tensor:
        return md.where((k < times)[..., None, None], x @ x, x)

    seen = md.extend.seen(times)
    if seen is None:
        return md.fori_loop(0, md.max(times).to(md.int64), squared, out)
    for k in range(int(seen[0].max(initial=0))):
        out = squared(k, out)
    return out


def vander(x: Any, N: int | None = None) -> md.Tensor:
    """The powers 0 to N - 1 (as many as there are elements by default) of the elements of a vector, along a new last axis.

    >>> md.linalg.vander(md.tensor([2.0, 3.0])).tolist()
    [[1.0, 2.0], [1.0, 3.0]]
    """
    x = md.asarray(x)
    powers = [md.ones_like(x)]
    for _ in range((x.shape[-1] if N is None else N) - 1):
        powers.append(powers[-1] * x)
    return md.stack(powers, axis=-1) if N is None or N > 0 else md.zeros((*x.shape, 0), dtype=x.dtype)


def tensorinv(A: Any, ind: int = 2) -> md.Tensor:
    """The inverse of an array as a linear map from its last axes to its first `ind`. Raises ValueError where these are not of one size.

    >>> md.linalg.tensorinv(md.reshape(md.eye(6), (6, 2, 3)), 1).shape
    (2, 3, 6)
    """
    a = md.asarray(A)
    first, last = a.shape[:ind], a.shape[ind:]
    if ind < 1 or math.prod(first) != math.prod(last):
        raise ValueError(f"tensorinv: the first {ind} axes of shape {a.shape} and the others must have one size, at least one each")
    return md.reshape(md.linalg.inv(md.reshape(a, (math.prod(first), math.prod(last)))), (*last, *first))


def tensorsolve(a: Any, b: Any) -> md.Tensor:
    """The x with tensordot(a, x, x.ndim) = b. Raises ValueError where the axes of `a` behind those of b are of another size.

    >>> md.linalg.tensorsolve(md.reshape(md.eye(6) * 2.0, (6, 2, 3)), md.ones(6)).shape
    (2, 3)
    """
    a, b = md.asarray(a), md.asarray(b)
    rest, size = a.shape[b.ndim :], math.prod(b.shape)
    if a.shape[: b.ndim] != b.shape or math.prod(rest) != size:
        raise ValueError(f"tensorsolve: shapes {a.shape} and {b.shape}; the first begins with the second, and goes on in the same size")
    return md.reshape(md.linalg.solve(md.reshape(a, (size, size)), md.reshape(b, (size,))), rest)


#: Name -> what it is in md.linalg.
NAMES: dict[str, Any] = {
    **{f.__name__: f for f in (cond, multi_dot, lstsq, matrix_exp, vander, tensorinv, tensorsolve)},
    "expm": matrix_exp,
}  # fmt: skip
