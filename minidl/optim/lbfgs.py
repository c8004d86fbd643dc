"""L-BFGS, with or without a line search; eager, because it looks at the loss to decide how to go on. Its closure may be jitted."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, NoReturn

import minidl as md
from minidl.optim.optimizer import Optimizer, _parts, _whole

_ARMIJO, _CURVATURE = 1e-4, 0.9  # the constants of the strong Wolfe conditions (J. Nocedal and S. Wright, Numerical Optimization, 2006, chapter 3)


class Point(NamedTuple):
    """A point on the line: its distance, and there the loss, the gradient, and the slope along the line."""

    t: float
    loss: float
    grad: md.Tensor
    slope: float


class LBFGS(Optimizer):
    """Quasi-Newton steps from the last history_size changes of the gradient (D. Liu and J. Nocedal, 1989), as torch.optim.LBFGS.

    One step is up to max_iter iterations, which call the closure up to max_eval times (max_iter * 5 / 4 by default). line_search_fn: None takes
    steps of length lr, "strong_wolfe" searches for one that fulfils the strong Wolfe conditions. Raises ValueError for several groups and for a
    search that there is not, TypeError for functional use and inside md.jit.

    >>> x = md.tensor([3.0, -2.0], requires_grad=True)
    >>> opt = LBFGS([x], line_search_fn="strong_wolfe")
    >>> def closure():
    ...     opt.zero_grad()
    ...     loss = ((x - 1.0) ** 4).sum()
    ...     loss.backward()
    ...     return loss
    >>> for _ in range(5):
    ...     loss = opt.step(closure)
    >>> bool(closure() < 1e-6)
    True
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1.0,
        max_iter: int = 20,
        max_eval: int | None = None,
        tolerance_grad: float = 1e-7,
        tolerance_change: float = 1e-9,
        history_size: int = 100,
        line_search_fn: str | None = None,
    ):
        if line_search_fn not in (None, "strong_wolfe"):
            raise ValueError(f"LBFGS: line_search_fn is None or 'strong_wolfe', not {line_search_fn!r}")
        if not isinstance(max_iter, int):
            raise TypeError(f"LBFGS: max_iter must be an integer, not {max_iter!r}")
        defaults = {"lr": lr, "max_iter": max_iter, "max_eval": max_iter * 5 // 4 if max_eval is None else max_eval}
        defaults |= {"tolerance_grad": tolerance_grad, "tolerance_change": tolerance_change, "history_size": history_size}
        super().__init__(params, {**defaults, "line_search_fn": line_search_fn})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """The one group of parameters; a second raises ValueError."""
        if self.param_groups:
            raise ValueError("LBFGS: all parameters form one group, with the same settings")
        super().add_param_group(param_group)

    def init(self, params: Any) -> NoReturn:
        """Raises TypeError: the next point depends on losses that a gradient does not tell."""
        raise TypeError("LBFGS: has no functional form; it looks at losses to decide how to go on. Use step(closure)")

    def update(self, grads: Any, state: Any, params: Any, **settings: Any) -> NoReturn:
        """Raises TypeError, as init does."""
        self.init(params)

    @property
    def _params(self) -> list[md.Tensor]:
        return self.param_groups[0]["params"]

    def _flat_grad(self) -> md.Tensor:
        grads = [md.zeros_like(p) if p.grad is None else p.grad for p in self._params]
        return md.concat([_parts(g).reshape(-1) for g in grads])

    def _move(self, start: list[md.Tensor], t: float, direction: md.Tensor) -> None:
        at = 0
        for p, x in zip(self._params, start, strict=True):
            parts = _parts(x)
            new = parts + direction[at : at + parts.size].reshape(parts.shape) * t
            p.assign(_whole(new, x) if p.dtype.is_complex else new)
            at += parts.size

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Up to max_iter iterations. closure clears the gradients, computes the loss and its gradients, and returns the loss; so does step, with the
        loss before them."""
        if closure is None:
            raise TypeError("LBFGS: step needs a closure that computes the loss and its gradients")
        self.stepped = True
        self._run_hooks("pre", closure)
        with md.no_grad():
            loss = self._step(closure)
        self._run_hooks("post", closure)
        return loss

    def _step(self, closure: Callable[[], Any]) -> Any:
        group, state = self.param_groups[0].settings(), self.state.setdefault(self._params[0], {})
        change, lr = group["tolerance_change"], float(group["lr"])
        state.setdefault("func_evals", 0)
        state.setdefault("n_iter", 0)

        def evaluate() -> tuple[Any, md.Tensor]:
            with md.enable_grad():
                loss = closure()
            state["func_evals"] += 1
            return loss, self._flat_grad()

        first, grad = evaluate()
        try:
            loss, before = float(first), state["func_evals"] - 1
        except TypeError as error:
            raise TypeError("LBFGS: step looks at the loss, which has no value inside md.jit or md.vmap; jit the closure instead") from error
        if _largest(grad) <= group["tolerance_grad"]:
            return first
        for iteration in range(1, group["max_iter"] + 1):
            state["n_iter"] += 1
            direction = self._direction(grad, group["history_size"], state)
            t = min(1.0, 1.0 / float(md.sum(md.abs(grad)))) * lr if state["n_iter"] == 1 else lr
            state.update(d=direction, t=t, prev_flat_grad=grad, prev_loss=loss)
            slope = _dot(grad, direction)
            if slope > -change:
                break
            start, last = [p.detach() for p in self._params], loss
            if group["line_search_fn"] is not None:

                def along(t: float, start: list[md.Tensor] = start, direction: md.Tensor = direction) -> Point:
                    self._move(start, t, direction)
                    loss, grad = evaluate()
                    return Point(t, float(loss), grad, _dot(grad, direction))

                budget = group["max_eval"] - (state["func_evals"] - before)
                t, loss, grad, _ = _strong_wolfe(along, Point(0.0, loss, grad, slope), t, _largest(direction), change, budget)
                self._move(start, t, direction)
                state["t"] = t
            else:
                self._move(start, t, direction)
                if iteration != group["max_iter"]:
                    found, grad = evaluate()
                    loss = float(found)
            if iteration == group["max_iter"] or state["func_evals"] - before >= group["max_eval"]:
                break
            small = _largest(grad) <= group["tolerance_grad"] or _largest(direction * t) <= change or abs(loss - last) < change
            if small:
                break
        return first

    def _direction(self, grad: md.Tensor, size: int, state: dict[str, Any]) -> md.Tensor:
        """Minus the gradient by the inverse Hessian of the last changes (the two-loop recursion)."""
        if state["n_iter"] == 1:
            state.update(old_dirs=[], old_stps=[], ro=[], H_diag=1.0)
            return -grad
        changes, steps, ro = state["old_dirs"], state["old_stps"], state["ro"]
        y, s = grad - state["prev_flat_grad"], state["d"] * state["t"]
        ys = _dot(y, s)
        if ys > 1e-10:
            for kept, new in ((changes, y), (steps, s), (ro, 1.0 / ys)):
                kept.append(new)
                del kept[:-size]
            state["H_diag"] = ys / _dot(y, y)
        weights = []
        q = -grad
        for y, s, r in zip(reversed(changes), reversed(steps), reversed(ro), strict=True):
            weights.append(_dot(s, q) * r)
            q = q - y * weights[-1]
        q = q * state["H_diag"]
        for y, s, r, weight in zip(changes, steps, ro, reversed(weights), strict=True):
            q = q + s * (weight - _dot(y, q) * r)
        return q

    def _loaded(self, name: str, value: Any, p: md.Tensor) -> Any:
        value = super()._loaded(name, value, p)
        if name in ("t", "ro", "H_diag", "prev_loss"):  # PyTorch keeps some of these numbers as tensors
            return [float(v) for v in value] if isinstance(value, list) else float(value)
        return value


def _dot(a: md.Tensor, b: md.Tensor) -> float:
    return float(md.sum(a * b))


def _largest(x: md.Tensor) -> float:
    return float(md.max(md.abs(x))) if x.size else 0.0


def _cubic(a: Point, b: Point, low: float, high: float) -> float:
    """Where the cubic through two points with their slopes is least, between low and high (Nocedal and Wright, equation 3.59)."""
    d1 = a.slope + b.slope - 3 * (a.loss - b.loss) / (a.t - b.t)
    square = d1**2 - a.slope * b.slope
    if not square >= 0:
        return (low + high) / 2.0
    a, b, d2 = (a, b, square**0.5) if a.t <= b.t else (b, a, square**0.5)
    return min(max(b.t - (b.t - a.t) * ((b.slope + d2 - d1) / (b.slope - a.slope + 2 * d2)), low), high)


def _strong_wolfe(along: Callable[[float], Point], start: Point, t: float, longest: float, tolerance: float, tries: int) -> Point:
    """A point that fulfils the strong Wolfe conditions, or the best one found (Nocedal and Wright, algorithms 3.5 and 3.6, with the safeguards of
    M. Schmidt's minFunc)."""

    def too_high(p: Point) -> bool:
        return p.loss > start.loss + _ARMIJO * p.t * start.slope

    previous, point = start, along(t)
    done = 0
    while done < tries:  # go on until a bracket is found
        if too_high(point) or (done > 1 and point.loss >= previous.loss):
            bracket = [previous, point]
            break
        if abs(point.slope) <= -_CURVATURE * start.slope:
            return point
        if point.slope >= 0:
            bracket = [previous, point]
            break
        t = _cubic(previous, point, point.t + 0.01 * (point.t - previous.t), point.t * 10)
        previous, point = point, along(t)
        done += 1
    else:
        bracket = [start, point]
    slow = False  # whether the last trial point lay close to an end
    best = 0 if bracket[0].loss <= bracket[1].loss else 1
    while done < tries:  # make the bracket smaller
        low, high = sorted(p.t for p in bracket)
        if (high - low) * longest < tolerance:
            break
        t = _cubic(bracket[0], bracket[1], low, high)
        margin = 0.1 * (high - low)
        if min(high - t, t - low) >= margin:
            slow = False
        elif slow or t >= high or t <= low:
            t = high - margin if abs(t - high) < abs(t - low) else low + margin
            slow = False
        else:
            slow = True
        point = along(t)
        done += 1
        if too_high(point) or point.loss >= bracket[best].loss:
            bracket[1 - best] = point
            best = 0 if bracket[0].loss <= bracket[1].loss else 1
            continue
        if abs(point.slope) <= -_CURVATURE * start.slope:
            return point
        if point.slope * (bracket[1 - best].t - bracket[best].t) >= 0:
            bracket[1 - best] = bracket[best]
        bracket[best] = point
    return bracket[best]
