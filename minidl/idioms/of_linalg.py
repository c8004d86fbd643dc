"""PyTorch's, NumPy's and SciPy's names of linear algebra that are compositions of md.linalg's functions; the last two axes are the matrix."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

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


class LstsqResult(NamedTuple):
    """What lstsq finds, under PyTorch's names."""

    solution: md.Tensor
    residuals: md.Tensor
    rank: md.Tensor
    singular_values: md.Tensor


def lstsq(a: Any, b: Any, rcond: float | None = None) -> LstsqResult:
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
    return LstsqResult(x[:, 0] if b.ndim == 1 else x, residuals, rank, s)


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


def eliminated(x: md.Tensor) -> tuple[md.Tensor, md.Tensor]:
    """Both triangular factors of a matrix [m, n] in one, and the order of its rows, by elimination with the largest pivot."""
    beside = lambda x: {"backend": x.backend, "device": x.device}
    m, n = x.shape
    order, rows, columns = md.arange(m, **beside(x)), md.arange(m, **beside(x)), md.arange(n, **beside(x))

    def step(j: Any, s: Any) -> Any:
        x, order = s
        column = md.take(x, j[None], axis=1)[:, 0]
        at = md.argmax(md.where(rows >= j, md.abs(md.stop_gradient(column)), -1.0))
        turned = md.where(rows == j, at, md.where(rows == at, j, rows))
        x, order = md.take(x, turned, axis=0), md.take(order, turned)
        column, row = md.take(x, j[None], axis=1)[:, 0], md.take(x, j[None], axis=0)[0]
        pivot = md.take(row, j[None])[0]
        none = pivot == 0
        factor = md.where((rows > j) & ~none, column / md.where(none, 1.0, pivot), 0.0)
        x = x - factor[:, None] * md.where(columns > j, row, 0.0)
        return md.where((rows > j)[:, None] & (columns == j), factor[:, None], x), order

    return md.fori_loop(0, min(m, n), lambda j, s: step(md.asarray(j), s), (x, order))


class LUResult(NamedTuple):
    """P, L and U with A = P L U."""

    P: md.Tensor
    L: md.Tensor
    U: md.Tensor


class LUFactors(NamedTuple):
    """Both triangular factors in one matrix, and the exchanges of rows."""

    LU: md.Tensor
    pivots: md.Tensor


def _matrices(name: str, A: Any, pivot: bool) -> md.Tensor:
    a = md.asarray(A)
    if a.ndim < 2:
        raise ValueError(f"{name}: matrices [..., m, n] are wanted, not shape {a.shape}")
    if not pivot:
        raise ValueError(f"{name}: rows are always exchanged, for the largest pivot; pivot=False is not there")
    return a if a.dtype.inexact else a.to(md.get_default_dtype())


def _each(f: Any, lead: tuple[int, ...], *xs: md.Tensor) -> Any:
    """f of each matrix of batches of these leading sizes."""
    if not lead:
        return f(*xs)
    flat = [md.reshape(x, (math.prod(lead), *x.shape[len(lead) :])) for x in xs]
    return md.tree.map(lambda y: md.reshape(y, (*lead, *y.shape[1:])), md.vmap(f)(*flat))


def lu(A: Any, *, pivot: bool = True) -> LUResult:
    """(P, L, U) with A = P L U for matrices [..., m, n], by elimination in which each step takes the largest pivot. Raises ValueError for pivot=False
    and for less than two axes.

    >>> [m.tolist() for m in md.linalg.lu(md.tensor([[0.0, 1.0], [2.0, 0.0]]))]
    [[[0.0, 1.0], [1.0, 0.0]], [[1.0, 0.0], [0.0, 1.0]], [[2.0, 0.0], [0.0, 1.0]]]
    """
    a = _matrices("linalg.lu", A, pivot)
    m, n = a.shape[-2:]
    k = min(m, n)
    packed, order = _each(eliminated, a.shape[:-2], a)
    eye = lambda rows, columns: md.eye(rows, columns, dtype=a.dtype, backend=a.backend, device=a.device)
    p = md.matrix_transpose(md.take(eye(m, m), order, axis=0)) if m else md.broadcast_to(eye(m, m), (*a.shape[:-2], m, m))
    return LUResult(p, md.tril(packed[..., :, :k], k=-1) + eye(m, k), md.triu(packed[..., :k, :]))


def lu_factor(A: Any, *, pivot: bool = True) -> LUFactors:
    """Both factors of lu in one matrix, and with which row, counted from 1, each row was exchanged (int32), for lu_solve.

    >>> md.linalg.lu_factor(md.tensor([[0.0, 1.0], [2.0, 0.0]])).pivots.tolist()
    [2, 2]
    """
    a = _matrices("linalg.lu_factor", A, pivot)

    def each(a: md.Tensor) -> tuple[md.Tensor, md.Tensor]:
        packed, order = eliminated(a)
        now, pivots = md.arange(a.shape[0], backend=a.backend, device=a.device), []
        for i in range(min(a.shape)):  # the exchanges that make this order
            at = md.argmax((now == order[i]).to(md.int32))
            pivots.append(at)
            now = md.where(now == order[i], now[i], now).at[i].set(order[i])
        return packed, (md.stack(pivots) + 1 if pivots else md.zeros(0)).to(md.int32)

    return LUFactors(*_each(each, a.shape[:-2], a))


def lu_solve(LU: md.Tensor, pivots: md.Tensor, B: md.Tensor, *, left: bool = True, adjoint: bool = False) -> md.Tensor:
    """The X with A X = B from lu_factor(A); left=False: X A = B; adjoint: of the conjugate transpose of A. Matrices [..., n, k]; batches broadcast.
    Raises ValueError for other shapes.

    >>> factors = md.linalg.lu_factor(md.tensor([[0.0, 1.0], [2.0, 0.0]]))
    >>> md.linalg.lu_solve(*factors, md.tensor([[3.0], [4.0]])).tolist()
    [[2.0], [3.0]]
    """
    if LU.ndim < 2 or B.ndim < 2 or not LU.shape[-2] == LU.shape[-1] == B.shape[-2 if left else -1]:
        wanted = "[..., n, k]" if left else "[..., k, n]"
        raise ValueError(f"linalg.lu_solve: factors [..., n, n] and a B {wanted} are wanted, not shapes {LU.shape} and {B.shape}")
    if not left:  # the transposes of both sides
        flipped = lu_solve(LU, pivots, md.conj(md.matrix_transpose(B)), adjoint=not adjoint)
        return md.conj(md.matrix_transpose(flipped))
    lead = md.broadcast_shapes(LU.shape[:-2], B.shape[:-2])
    LU, B = md.broadcast_to(LU, (*lead, *LU.shape[-2:])), md.broadcast_to(B, (*lead, *B.shape[-2:]))
    solved = md.linalg.solve_triangular

    def each(lu: md.Tensor, pivots: md.Tensor, b: md.Tensor) -> md.Tensor:
        order = md.arange(lu.shape[0], backend=lu.backend, device=lu.device)
        for i in range(pivots.shape[0]):
            at = pivots[i].to(md.int64) - 1
            order = md.where(order == order[i], md.take(order, at), md.where(order == md.take(order, at), order[i], order))
        if not adjoint:
            return solved(lu, solved(lu, md.take(b, order, axis=0), lower=True, unit_diagonal=True))
        x = solved(lu, solved(lu, b, trans=2), trans=2, lower=True, unit_diagonal=True)
        return md.take(x, md.argsort(order), axis=0)

    return _each(each, lead, LU, md.broadcast_to(pivots, (*lead, pivots.shape[-1])), B)


#: Name -> what it is in md.linalg.
NAMES: dict[str, Any] = {
    **{f.__name__: f for f in (cond, multi_dot, lstsq, matrix_exp, vander, lu, lu_factor, lu_solve, tensorinv, tensorsolve)},
    "expm": matrix_exp,
}  # fmt: skip
