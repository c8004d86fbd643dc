"""jax.scipy.optimize: minimize, by BFGS."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import minidl as md
from minidl.idioms.jax.arrays import beside, inexact

_ARMIJO, _WOLFE, _HALVINGS = 1e-4, 0.9, 40


class OptimizeResults(NamedTuple):
    """Where a search ended: the point, whether the gradient is small there, why it ended (0: that; 1: maxiter; 3: no step was found), the value, the
    gradient, the inverse Hessian as it was estimated, and how often the function, its gradient and a direction were found."""

    x: md.Tensor
    success: md.Tensor
    status: md.Tensor
    fun: md.Tensor
    jac: md.Tensor
    hess_inv: md.Tensor | None
    nfev: md.Tensor
    njev: md.Tensor
    nit: md.Tensor


def _line(both: Callable[[md.Tensor], Any], x: md.Tensor, f: md.Tensor, g: md.Tensor, p: md.Tensor) -> Any:
    """A step along p that fulfils Wolfe's conditions, found by doubling and halving, with the value and gradient there."""
    slope = g @ p

    def judged(a: md.Tensor) -> Any:
        new, grad = both(x + a * p)
        far = ~(new <= f + _ARMIJO * a * slope)  # also where it is nan
        return new, grad, far, ~far & (grad @ p < _WOLFE * slope)

    def body(s: Any) -> Any:
        a, low, high, _, _, far, near, n = s
        low, high = md.where(near, a, low), md.where(far, a, high)
        a = md.where(md.isfinite(high), (low + high) / 2, 2 * a)
        return a, low, high, *judged(a), n + 1

    one = md.ones_like(f)
    start = (one, md.zeros_like(f), one * md.inf, *judged(one), md.ones((), dtype=md.int64, **beside(f)))
    a, _, _, new, grad, far, _, n = md.while_loop(lambda s: (s[5] | s[6]) & (s[7] < _HALVINGS), body, start)
    return a, new, grad, far, n


def minimize(
    fun: Callable[..., Any], x0: Any, args: tuple[Any, ...] = (), *, method: str, tol: float | None = None, options: Mapping[str, Any] | None = None
) -> OptimizeResults:
    """The x near x0 at which fun(x, *args), a number, is least. method: "BFGS". tol: how small the gradient's largest element is in the end, 1e-5
    unless it or options["gtol"] says so; options["maxiter"]: 200 for each element of x. Runs under jit and vmap. Raises ValueError for another
    method, an option that is not there, or an x0 that is no vector.

    >>> minimize(lambda x: ((x - 3.0) ** 2).sum(), md.zeros(2), method="BFGS").x.tolist()
    [3.0, 3.0]
    """
    if method.lower() != "bfgs":
        raise ValueError(f"minimize: method is 'BFGS', not {method!r}; see md.optim.LBFGS")
    chosen = dict(options or {})
    gtol, maxiter = chosen.pop("gtol", 1e-5 if tol is None else tol), chosen.pop("maxiter", None)
    if chosen.pop("norm", md.inf) != md.inf or chosen.keys() - {"line_search_maxiter"}:
        raise ValueError(f"minimize: options are gtol and maxiter, not {', '.join(options or {})}")
    x = inexact(x0)
    if x.ndim != 1:
        raise ValueError(f"minimize: x0 is a vector, not of the shape {x.shape}; see jax.flatten_util.ravel_pytree")
    both = md.value_and_grad(lambda v: md.asarray(fun(v, *args)))
    limit = 200 * x.shape[0] if maxiter is None else maxiter
    eye, zero = md.eye(x.shape[0], dtype=x.dtype, **beside(x)), md.zeros((), dtype=md.int64, **beside(x))
    f, g = both(x)
    small = lambda g: md.max(md.abs(g)) <= gtol if g.shape[0] else md.ones((), dtype=md.bool)

    def body(s: Any) -> Any:
        x, f, g, h, n, k, _ = s
        p = -(h @ g)
        a, new, grad, failed, m = _line(both, x, f, g, p)
        step, change = a * p, grad - g
        along = step @ change
        rho = md.where(along > 0, 1.0 / md.where(along > 0, along, 1.0), 0.0)  # without curvature nothing is learnt
        left = eye - rho * md.outer(step, change)
        estimate = md.where(along > 0, left @ h @ left.T + rho * md.outer(step, step), h)
        kept = [md.where(failed, old, v) for old, v in ((x, x + step), (f, new), (g, grad), (h, estimate))]
        return (*kept, n + m, k + 1, failed)

    start = (x, f, g, eye, zero + 1, zero, md.zeros((), dtype=md.bool, **beside(x)))
    x, f, g, h, n, k, failed = md.while_loop(lambda s: ~small(s[2]) & (s[5] < limit) & ~s[6], body, start)
    status = md.where(small(g), 0, md.where(failed, 3, 1))
    return OptimizeResults(x, small(g), status, f, g, h, n, n, k)
