"""jax.scipy.linalg: md.linalg with SciPy's arguments, and the matrices of special form."""

from __future__ import annotations

import math
from typing import Any

import minidl as md
from minidl.idioms import of_linalg
from minidl.idioms.jax.arrays import beside, inexact
from minidl.idioms.jax.numpy import linalg
from minidl.idioms.jax.spelling import room


def cholesky(a: Any, lower: bool = False, overwrite_a: bool = False, check_finite: bool = True) -> md.Tensor:
    """The Cholesky factor of the symmetric part, the upper one unless asked for the lower.

    >>> cholesky(md.tensor([[4.0]])).tolist()
    [[2.0]]
    """
    return linalg.cholesky(a, upper=not lower)


def eigh(a: Any, b: Any = None, lower: bool = True, eigvals_only: bool = False, **options: Any) -> Any:
    """md.linalg.eigh of the symmetric part, or its eigenvalues alone. Raises ValueError for b, which is not there."""
    if b is not None:
        raise ValueError("eigh: the generalized problem is not there, as in JAX")
    x = linalg.symmetric(a)
    return md.linalg.eigvalsh(x) if eigvals_only else tuple(md.linalg.eigh(x))


def svd(a: Any, full_matrices: bool = True, compute_uv: bool = True, **options: Any) -> Any:
    """md.linalg.svd, or its singular values alone."""
    return linalg.svd(a, full_matrices, compute_uv)


def qr(a: Any, overwrite_a: bool = False, lwork: Any = None, mode: str = "full", pivoting: bool = False, check_finite: bool = True) -> Any:
    """md.linalg.qr; mode "full", "economic" or "r". Raises ValueError for pivoting, which is not there."""
    if pivoting:
        raise ValueError("qr: pivoting is not there")
    x = inexact(a)
    return (md.linalg.qr(x).R,) if mode == "r" else tuple(md.linalg.qr(x, mode="complete" if mode == "full" else "reduced"))


def solve(a: Any, b: Any, lower: bool = False, *options: Any, assume_a: str = "gen", **more: Any) -> md.Tensor:
    """The x with a x = b; assume_a="pos": by the Cholesky factor of the symmetric part.

    >>> solve(md.tensor([[4.0]]), md.tensor([8.0]), assume_a="pos").tolist()
    [2.0]
    """
    if assume_a != "pos":
        return md.linalg.solve(inexact(a), inexact(b))
    return md.linalg.cho_solve((linalg.cholesky(a, upper=not lower), lower), inexact(b))


def lu(a: Any, permute_l: bool = False, overwrite_a: bool = False, check_finite: bool = True) -> Any:
    """(p, l, u) with a = p l u by Gaussian elimination, each step with its largest pivot; permute_l: (p l, u).

    >>> [m.tolist() for m in lu(md.tensor([[0.0, 1.0], [2.0, 0.0]]))]
    [[[0.0, 1.0], [1.0, 0.0]], [[1.0, 0.0], [0.0, 1.0]], [[2.0, 0.0], [0.0, 1.0]]]
    """
    p, lower, upper = of_linalg.lu(inexact(a))
    return (p @ lower, upper) if permute_l else (p, lower, upper)


def lu_factor(a: Any, overwrite_a: bool = False, check_finite: bool = True) -> tuple[md.Tensor, md.Tensor]:
    """Both factors in one matrix, and with which row each row was exchanged, for lu_solve."""
    packed, pivots = of_linalg.lu_factor(inexact(a))
    return packed, pivots - 1


def lu_solve(lu_and_piv: tuple[Any, Any], b: Any, trans: int = 0, overwrite_b: bool = False, check_finite: bool = True) -> md.Tensor:
    """The x with a x = b (trans 1: its transpose, 2: the conjugate transpose), from lu_factor(a).

    >>> lu_solve(lu_factor(md.tensor([[0.0, 1.0], [2.0, 0.0]])), md.tensor([3.0, 4.0])).tolist()
    [2.0, 3.0]
    """
    packed, pivots = lu_and_piv
    b = inexact(b)
    order = md.arange(packed.shape[0], **beside(packed))
    for i in range(pivots.shape[0]):
        a, c = order[i], order[pivots[i]]
        order = order.at[i].set(c).at[pivots[i]].set(a)
    solved = md.linalg.solve_triangular
    if not trans:
        return solved(packed, solved(packed, md.take(b, order, axis=0), lower=True, unit_diagonal=True))
    x = solved(packed, solved(packed, b, trans=trans), trans=trans, lower=True, unit_diagonal=True)
    return md.take(x, md.argsort(order), axis=0)


def block_diag(*arrs: Any) -> md.Tensor:
    """Matrices along the diagonal."""
    return md.block_diag(*(md.atleast_2d(md.asarray(a)) for a in arrs))


def toeplitz(c: Any, r: Any = None) -> md.Tensor:
    """The matrix with constant diagonals of this first column and row.

    >>> toeplitz(md.tensor([1, 2]), md.tensor([1, 9])).tolist()
    [[1, 9], [2, 1]]
    """
    c = md.flatten(md.asarray(c))
    r = md.conj(c) if r is None else md.flatten(md.asarray(r))
    line = md.concat([md.flip(c), r[1:]])
    at = md.arange(c.shape[0] - 1, -1, -1, **beside(c))[:, None] + md.arange(r.shape[0], **beside(c))
    return md.reshape(md.take(line, md.flatten(at)), at.shape)


def hankel(c: Any, r: Any = None) -> md.Tensor:
    """The matrix with constant antidiagonals of this first column and last row."""
    c = md.flatten(md.asarray(c))
    r = md.zeros_like(c) if r is None else md.flatten(md.asarray(r))
    line = md.concat([c, r[1:]])
    at = md.arange(c.shape[0], **beside(c))[:, None] + md.arange(r.shape[0], **beside(c))
    return md.reshape(md.take(line, md.flatten(at)), at.shape)


def circulant(c: Any) -> md.Tensor:
    """The matrix whose columns are a vector, each turned by one more place."""
    c = md.asarray(c)
    n = c.shape[-1]
    return md.stack([md.roll(c, i, axis=-1) for i in range(n)], axis=-1)


def hilbert(n: int) -> md.Tensor:
    """1 / (i + j + 1)."""
    i = md.arange(n).to(md.get_default_dtype())
    return 1.0 / (i[:, None] + i + 1.0)


def dft(n: int, scale: str | None = None) -> md.Tensor:
    """The matrix of the Fourier transform; scale "sqrtn" or "n" divides it by that."""
    by = {None: 1.0, "sqrtn": math.sqrt(n), "n": n}[scale]
    return md.fft.fft(md.eye(n)) / by


def sqrtm(A: Any, blocksize: int = 1) -> md.Tensor:
    """The complex square root of a matrix that has a basis of eigenvectors."""
    x = inexact(A)
    w, v = md.linalg.eig(x.to(md.result_type(x.dtype, md.complex64)))
    return (v * md.sqrt(w)) @ md.linalg.inv(v)


def polar(a: Any, side: str = "right", **options: Any) -> tuple[md.Tensor, md.Tensor]:
    """(u, p) with a = u p (side "left": p u), u with orthonormal columns and p positive."""
    u, s, vh = md.linalg.svd(inexact(a), full_matrices=False)
    turned = u @ vh
    v = md.conj(md.matrix_transpose(vh)) if side == "right" else u
    return turned, (v * s) @ md.conj(md.matrix_transpose(v))


_OWN = (
    block_diag, cholesky, circulant, dft, eigh, hankel, hilbert, lu, lu_factor, lu_solve, polar, qr, solve, sqrtm, svd, toeplitz,
)  # fmt: skip
NAMES: dict[str, Any] = {
    **{f.__name__: f for f in _OWN}, "cho_factor": lambda a, lower=False, **options: (cholesky(a, lower), lower),
    "cho_solve": lambda c_and_lower, b, **options: md.linalg.cho_solve(c_and_lower, inexact(b)),
    "solve_triangular": lambda a, b, trans=0, lower=False, unit_diagonal=False, **options: md.linalg.solve_triangular(
        inexact(a), inexact(b), trans, lower, unit_diagonal
    ),
    "expm": lambda A, *, upper_triangular=False, max_squarings=16: md.linalg.matrix_exp(A), "det": linalg.NAMES["det"], "inv": linalg.NAMES["inv"],
}  # fmt: skip
_ABSENT = {
    "schur": "md.linalg.eig", "rsf2csf": "md.linalg.eig", "hessenberg": "md.linalg.eig",
    "funm": "md.linalg.eig: v * f(w) @ inv(v); expm and sqrtm are here",
}
__getattr__ = room(__name__, NAMES, (), "", _ABSENT)


def __dir__() -> list[str]:
    return sorted({*(n for n in globals() if not n.startswith("_")), *NAMES})
