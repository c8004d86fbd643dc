"""Solutions that differentiate by what they solve, not by how: lax.custom_root and lax.custom_linear_solve."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import minidl as md
from minidl.idioms.jax.abstract import closure_convert

Linear = Callable[[Any], Any]


def _through(converted: Callable[..., Any], x: Any, read: list[md.Tensor], u: Any) -> list[md.Tensor]:
    """The cotangents of what f reads, where -u is that of f(x): zeros for integers, which have none."""
    floats = {i: r for i, r in enumerate(read) if r.dtype.inexact}
    if not floats:
        return read
    of = lambda floats: converted(x, *(floats.get(i, r) for i, r in enumerate(read)))
    found = md.vjp(of, floats)[1](md.tree.map(lambda v: -v, u))[0]
    return [found.get(i, r) for i, r in enumerate(read)]


def custom_linear_solve(
    matvec: Linear, b: Any, solve: Callable[[Linear, Any], Any], transpose_solve: Callable[[Linear, Any], Any] | None = None,
    symmetric: bool = False, has_aux: bool = False,
) -> Any:  # fmt: skip
    """The x with matvec(x) = b, as solve(matvec, b) finds it. Its derivative in b, and in what matvec reads from around it, is that of the solution:
    forwards another solve, and backwards transpose_solve(matvec, cotangent), or solve where the map is symmetric. has_aux: solve returns (x, aux),
    which has no derivative. Raises TypeError in reverse without transpose_solve for a map that is not symmetric.

    >>> a = md.tensor([[2.0, 0.0], [0.0, 4.0]])
    >>> f = lambda b: custom_linear_solve(lambda x: a @ x, b, lambda mv, b: md.linalg.solve(a, b), symmetric=True)
    >>> f(md.ones(2)).tolist(), md.grad(lambda b: f(b).sum())(md.ones(2)).tolist()
    ([0.5, 0.25], [0.5, 0.25])
    """
    backwards = transpose_solve or (solve if symmetric else None)
    b = md.tree.map(md.asarray, b)
    converted, read = closure_convert(matvec, md.tree.map(md.stop_gradient, b))

    @md.custom_vjp
    def solved(r: Any, read: list[Any]) -> Any:
        return solve(lambda x: converted(x, *read), r)

    def forward(r: Any, read: list[Any]) -> Any:
        out = solved(r, read)
        return out, (out[0] if has_aux else out, read)

    def backward(res: Any, g: Any) -> Any:
        x, read = res
        if backwards is None:
            raise TypeError("custom_linear_solve: reverse mode needs transpose_solve=, or symmetric=True where the map is its own transpose")
        of = lambda v: converted(v, *read)
        back = of if symmetric else lambda y: md.vjp(of, x)[1](y)[0]
        only = (lambda mv, r: backwards(mv, r)[0]) if has_aux and backwards is solve else backwards
        forth = (lambda mv, r: solve(mv, r)[0]) if has_aux else solve
        u = custom_linear_solve(back, g[0] if has_aux else g, only, forth)
        return u, _through(converted, x, read, u)

    solved.defvjp(forward, backward)
    out = solved(b, read)
    return (out[0], md.tree.map(md.stop_gradient, out[1])) if has_aux else out


def custom_root(
    f: Callable[[Any], Any], initial_guess: Any, solve: Callable[[Callable[[Any], Any], Any], Any],
    tangent_solve: Callable[[Linear, Any], Any], has_aux: bool = False,
) -> Any:  # fmt: skip
    """The x with f(x) = 0, as solve(f, initial_guess) finds it. Its derivative in what f reads from around it is that of the root, by the implicit
    function theorem: tangent_solve(g, y) finds the x with g(x) = y for a linear g.

    >>> def root(a):
    ...     newton = lambda f, x: md.fori_loop(0, 20, lambda _, x: x - f(x) / (2.0 * x), x)
    ...     return custom_root(lambda x: x * x - a, md.tensor(1.0), newton, lambda g, y: y / g(md.ones(())))
    >>> root(md.tensor(4.0)).item(), md.grad(root)(md.tensor(4.0)).item()
    (2.0, 0.25)
    """
    guess = md.tree.map(lambda x: md.stop_gradient(md.asarray(x)), initial_guess)
    converted, read = closure_convert(f, guess)

    @md.custom_vjp
    def root(read: list[Any]) -> Any:
        return solve(lambda x: converted(x, *read), guess)

    def forward(read: list[Any]) -> Any:
        out = root(read)
        return out, (out[0] if has_aux else out, read)

    def backward(res: Any, g: Any) -> Any:
        x, read = res
        of = lambda v: converted(v, *read)
        back = lambda y: md.vjp(of, x)[1](y)[0]
        u = custom_linear_solve(back, g[0] if has_aux else g, tangent_solve, tangent_solve)
        return (_through(converted, x, read, u),)

    root.defvjp(forward, backward)
    out = root(read)
    return (out[0], md.tree.map(md.stop_gradient, out[1])) if has_aux else out


#: Name -> what it is in jax.lax.
NAMES: dict[str, Any] = {"custom_linear_solve": custom_linear_solve, "custom_root": custom_root}
