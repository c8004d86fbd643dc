"""jax.scipy.sparse.linalg: the method of conjugate gradients and its like, of linear functions of pytrees. They differentiate as solutions do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import minidl as md
from minidl.idioms.jax.solving import custom_linear_solve

Linear = Callable[[Any], Any]


def _dot(a: Any, b: Any) -> md.Tensor:
    """The sum of conj(a) b over all elements of two pytrees."""
    parts = [md.sum(md.conj(x) * y) for x, y in zip(md.tree.leaves(a), md.tree.leaves(b), strict=True)]
    return sum(parts[1:], parts[0])


def _add(a: Any, scale: Any, b: Any) -> Any:
    return md.tree.map(lambda x, y: x + scale * y, a, b)


def _square(x: Any) -> md.Tensor:
    return md.real(_dot(x, x))


def _cg(A: Linear, b: Any, start: Any, precondition: Linear, limit: Any, maxiter: int) -> Any:
    """M. Hestenes and E. Stiefel, Methods of conjugate gradients for solving linear systems, 1952."""

    def step(s: Any) -> Any:
        x, r, gamma, p, k = s
        q = A(p)
        alpha = gamma / _dot(p, q)
        x, r = _add(x, alpha, p), _add(r, -alpha, q)
        z = precondition(r)
        new = _dot(r, z)
        return x, r, new, _add(z, new / gamma, p), k + 1

    r = _add(b, -1.0, A(start))
    z = precondition(r)
    state = start, r, _dot(r, z), z, md.asarray(0)
    return md.while_loop(lambda s: (_square(s[1]) > limit) & (s[4] < maxiter), step, state)[0]


def _bicgstab(A: Linear, b: Any, start: Any, precondition: Linear, limit: Any, maxiter: int) -> Any:
    """H. van der Vorst, Bi-CGSTAB, SIAM Journal on Scientific and Statistical Computing 13, 1992."""
    first = _add(b, -1.0, A(start))

    def step(s: Any) -> Any:
        x, r, alpha, omega, rho, p, q, k = s
        new = _dot(first, r)
        p = _add(r, new / rho * alpha / omega, _add(p, -omega, q))
        along = precondition(p)
        q = A(along)
        alpha = new / _dot(first, q)
        half = _add(r, -alpha, q)
        done = _square(half) < limit
        turned = precondition(half)
        t = A(turned)
        size = _dot(t, t)
        omega = _dot(t, half) / md.where(size == 0, 1.0, size)
        x = _add(_add(x, alpha, along), md.where(done, 0.0, omega), turned)
        return x, _add(half, -md.where(done, 0.0, omega), t), alpha, md.where(done, 1.0, omega), new, p, q, k + 1

    one = _dot(b, b) * 0.0 + 1.0
    zero = md.tree.map(lambda v: v * 0.0, first)
    state = start, first, one, one, one, zero, zero, md.asarray(0)
    return md.while_loop(lambda s: (_square(s[1]) > limit) & (s[7] < maxiter), step, state)[0]


def _gmres(A: Linear, b: Any, start: Any, precondition: Linear, limit: Any, maxiter: int, restart: int) -> Any:
    """Y. Saad and M. Schultz, GMRES, SIAM Journal on Scientific and Statistical Computing 7, 1986."""
    flat, unravel = md.ravel_pytree(b)
    of = lambda v: md.ravel_pytree(precondition(A(unravel(v))))[0]
    wanted = md.ravel_pytree(precondition(b))[0]
    tiny = md.finfo(flat.dtype).eps

    def cycle(s: Any) -> Any:
        x, _, k = s
        r = wanted - of(x)
        size = md.vector_norm(r)
        basis = [r / md.where(size == 0, 1.0, size)]
        columns = []
        for j in range(restart):
            w = of(basis[j])
            h = [md.sum(md.conj(v) * w) for v in basis]
            for v, c in zip(basis, h, strict=True):
                w = w - c * v
            again = [md.sum(md.conj(v) * w) for v in basis]  # once more, as rounding leaves some of it
            for v, c in zip(basis, again, strict=True):
                w = w - c * v
            length = md.vector_norm(w)
            there = length > tiny * size
            basis.append(md.where(there, w / md.where(there, length, 1.0), 0.0))
            columns.append(md.stack([a + c for a, c in zip(h, again, strict=True)] + [length + 0.0 * h[0]] + [0.0 * h[0]] * (restart - 1 - j)))
        hessenberg = md.stack(columns, axis=1)
        y = md.linalg.pinv(hessenberg, rtol=tiny) @ (md.eye(restart + 1, dtype=flat.dtype)[0] * size)
        x = x + md.stack(basis[:restart], axis=1) @ y
        return x, _square(wanted - of(x)), k + 1

    begin = md.ravel_pytree(start)[0]
    state = begin, _square(wanted - of(begin)), md.asarray(0)
    return unravel(md.while_loop(lambda s: (s[1] > limit) & (s[2] < maxiter), cycle, state)[0])


def _solver(name: str, method: Callable[..., Any], symmetric: bool, text: str) -> Callable[..., Any]:
    def function(
        A: Any, b: Any, x0: Any = None, *, tol: float = 1e-5, atol: float = 0.0, restart: int = 20, maxiter: int | None = None, M: Any = None,
        solve_method: str = "batched",
    ) -> tuple[Any, None]:  # fmt: skip
        b = md.tree.map(md.asarray, b)
        start = None if x0 is None else md.tree.map(lambda x: md.stop_gradient(md.asarray(x)), x0)
        n = sum(x.size for x in md.tree.leaves(b))
        apply = A if callable(A) else lambda v: A @ v
        precondition = (lambda v: v) if M is None else M if callable(M) else lambda v: M @ v
        options = {"restart": min(restart, n)} if name == "gmres" else {}

        def solve(matvec: Linear, r: Any, begin: Any = None) -> Any:
            limit = md.maximum(tol**2 * _square(r), atol**2)
            first = md.tree.map(md.zeros_like, r) if begin is None else begin
            return method(matvec, r, first, precondition, limit, n * 10 if maxiter is None else maxiter, **options)

        return custom_linear_solve(apply, b, lambda matvec, r: solve(matvec, r, start), solve, symmetric), None

    function.__name__ = function.__qualname__ = name
    function.__doc__ = text
    return function


cg = _solver("cg", _cg, True, "The x with A x = b for a positive A, a matrix or a function, and None; until the residual is below tol |b| or atol.")
bicgstab = _solver("bicgstab", _bicgstab, False, "As cg for an A that need not be symmetric.")
gmres = _solver("gmres", _gmres, False, "As bicgstab, by the least residual in subspaces of `restart` dimensions.")
