"""jax.numpy.linalg: md.linalg with JAX's arguments. As there, what wants a symmetric matrix takes the symmetric part of what comes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import minidl as md
from minidl.idioms.jax.arrays import inexact
from minidl.idioms.jax.spelling import room, spelled


def symmetric(a: Any, wanted: bool = True) -> md.Tensor:
    """Half of a matrix and its conjugate transpose, in floats; the matrix itself where that is not wanted."""
    x = inexact(a)
    return (x + md.conj(md.matrix_transpose(x))) * 0.5 if wanted else x


def _of_symmetric(f: Callable[..., Any]) -> Callable[..., Any]:
    def function(a: Any, UPLO: str | None = None, symmetrize_input: bool = True) -> Any:
        x = inexact(a)
        if not symmetrize_input and UPLO is not None:
            half = md.triu(x) if UPLO == "U" else md.tril(x)
            x = half + md.conj(md.matrix_transpose(half)) - x * md.eye(x.shape[-1], dtype=x.dtype, backend=x.backend, device=x.device)
        return f(symmetric(x, symmetrize_input))

    function.__name__ = function.__qualname__ = f.__name__
    function.__doc__ = f"md.linalg.{f.__name__} of the symmetric part, or of one triangle."
    return function


def cholesky(a: Any, *, upper: bool = False, symmetrize_input: bool = True) -> md.Tensor:
    """md.linalg.cholesky of the symmetric part.

    >>> cholesky(md.tensor([[4.0]])).tolist()
    [[2.0]]
    """
    return md.linalg.cholesky(symmetric(a, symmetrize_input), upper=upper)


def svd(a: Any, full_matrices: bool = True, compute_uv: bool = True, hermitian: bool = False) -> Any:
    """md.linalg.svd, or its singular values alone."""
    return md.linalg.svd(inexact(a), full_matrices=full_matrices) if compute_uv else md.linalg.svdvals(inexact(a))


def qr(a: Any, mode: str = "reduced") -> Any:
    """md.linalg.qr; mode "r": the second factor alone."""
    return md.linalg.qr(inexact(a)).R if mode == "r" else md.linalg.qr(inexact(a), mode=mode)


def norm(x: Any, ord: Any = None, axis: Any = None, keepdims: bool = False) -> md.Tensor:
    """The norm of a vector or a matrix; of all elements without ord and axis.

    >>> norm(md.tensor([3.0, 4.0])).item()
    5.0
    """
    x = inexact(x)
    if axis is None and ord is None:
        return md.vector_norm(x, keepdims=keepdims)
    axes = tuple(range(x.ndim)) if axis is None else (axis,) if isinstance(axis, int) else tuple(axis)
    if len(axes) == 1:
        return md.vector_norm(x, axis=axes[0], ord=2 if ord is None else ord, keepdims=keepdims)
    axes = tuple(a % x.ndim for a in axes)
    found = md.linalg.matrix_norm(md.moveaxis(x, axes, (-2, -1)), ord="fro" if ord is None else ord, keepdims=keepdims)
    return md.moveaxis(found, (-2, -1), axes) if keepdims else found


def pinv(a: Any, rtol: Any = None, hermitian: bool = False, *, rcond: Any = None) -> md.Tensor:
    """md.linalg.pinv; singular values below rtol times the largest count as 0, by default 10 max(m, n) times the epsilon of the dtype."""
    x = inexact(a)
    limit = rtol if rtol is not None else rcond
    return md.linalg.pinv(x, rtol=10.0 * max(x.shape[-2:]) * md.finfo(x.dtype).eps if limit is None else limit)


def matrix_rank(M: Any, rtol: Any = None, hermitian: bool = False, *, tol: Any = None) -> md.Tensor:
    """How many singular values are above rtol times the largest; of what is no matrix, whether any element is not 0."""
    x = inexact(M)
    return md.linalg.matrix_rank(x, rtol=tol if rtol is None else rtol) if x.ndim > 1 else md.any(x != 0).to(md.int64)


_SPELLED = {
    "det": "a /", "inv": "a /", "eig": "a /", "eigvals": "a /", "slogdet": "a / method:-", "solve": "a b /", "matrix_power": "a n /",
    "lstsq": "a b rcond / numpy_resid:-", "multi_dot": "arrays / precision:-", "tensorinv": "a ind /", "tensorsolve": "a b / axes:",
    "matmul": "x1 x2 / precision:- preferred_element_type:", "tensordot": "x1 x2 / axes precision:- preferred_element_type:",
    "vecdot": "x1 x2 / axis precision:- preferred_element_type:", "trace": "x / offset dtype", "diagonal": "x / offset",
}  # fmt: skip
_SAME = "cond cross matrix_norm matrix_transpose outer svdvals vector_norm"
NAMES: dict[str, Any] = {
    **{name: spelled(getattr(md.linalg, name), words, name) for name, words in _SPELLED.items()},
    "eigh": _of_symmetric(md.linalg.eigh), "eigvalsh": _of_symmetric(md.linalg.eigvalsh),
}  # fmt: skip
__getattr__ = room(__name__, NAMES, (md.linalg, md), _SAME)


def __dir__() -> list[str]:
    return sorted({*globals(), *NAMES, *_SAME.split()})
