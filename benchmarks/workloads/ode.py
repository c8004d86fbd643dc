"""ode: dy/dt = tanh(y W + b) over 100 Runge-Kutta steps from 16 starting points in 32 dimensions, with the gradient of the end by W, b and the start.

The steps are a scan where the library has one, a Python loop where it has not; torch.compile is given one step, since unrolling a hundred takes
minutes.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks import sides

STEPS, POINTS, WIDTH, H = 100, 16, 32, 0.05


def advance(xp: Any, y: Any, w: Any, b: Any) -> Any:
    """One step of the classical fourth-order method."""
    f = lambda y: xp.tanh(y @ w + b)
    k1 = f(y)
    k2 = f(y + k1 * (H / 2))
    k3 = f(y + k2 * (H / 2))
    k4 = f(y + k3 * H)
    return y + (k1 + (k2 + k3) * 2.0 + k4) * (H / 6)


def looped(xp: Any, y: Any, w: Any, b: Any, steps: int = STEPS) -> Any:
    """A Python loop."""
    for _ in range(steps):
        y = advance(xp, y, w, b)
    return (y * y).mean()


def scanned(md: Any, y: Any, w: Any, b: Any, steps: int = STEPS) -> Any:
    """minidl's scan, which is a loop of the program."""
    y, _ = md.scan(lambda y, _: (advance(md, y, w, b), None), y, length=steps)
    return (y * y).mean()


def with_jax(jnp: Any, y: Any, w: Any, b: Any) -> Any:
    """jax.lax.scan."""
    import jax

    y, _ = jax.lax.scan(lambda y, _: (advance(jnp, y, w, b), None), y, length=STEPS)
    return (y * y).mean()


_compiled: dict[str, Any] = {}


def one_compiled(torch: Any, y: Any, w: Any, b: Any) -> Any:
    """A Python loop over a compiled step."""
    for _ in range(STEPS):
        y = _compiled["step"](y, w, b)
    return (y * y).mean()


def torch_compile(arrays: Any) -> Any:
    """The compiled step, called from an eager loop."""
    import torch

    _compiled["step"] = torch.compile(lambda y, w, b: advance(torch, y, w, b))
    return sides.torch_side(one_compiled, arrays, (0, 1, 2), compiled=False)


def by_hand(y: np.ndarray, w: np.ndarray, b: np.ndarray) -> tuple:
    """NumPy: the stages kept, and pulled back by hand."""
    saved = []
    for _ in range(STEPS):
        y1 = y
        k1 = np.tanh(y1 @ w + b)
        y2 = y + k1 * (H / 2)
        k2 = np.tanh(y2 @ w + b)
        y3 = y + k2 * (H / 2)
        k3 = np.tanh(y3 @ w + b)
        y4 = y + k3 * H
        k4 = np.tanh(y4 @ w + b)
        saved.append(((y1, k1), (y2, k2), (y3, k3), (y4, k4)))
        y = y + (k1 + (k2 + k3) * 2 + k4) * (H / 6)
    g, gw, gb, wt = y * (2 / y.size), np.zeros_like(w), np.zeros_like(b), w.T
    for stages in reversed(saved):
        total, back = g, np.zeros_like(g)
        for (at, k), weight, step in zip(reversed(stages), (1, 2, 2, 1), (H, H / 2, H / 2, 0), strict=True):
            ct = g * (H / 6 * weight) + back
            d = ct * (1 - k * k)
            gw += at.T @ d
            gb += d.sum(0)
            pulled = d @ wt
            total = total + pulled
            back = pulled * step
        g = total
    return (y * y).mean(), g, gw, gb


def data() -> tuple[np.ndarray, ...]:
    """Starting points, W, b."""
    rng = np.random.default_rng(0)
    return (
        rng.normal(size=(POINTS, WIDTH)).astype(np.float32),
        (rng.normal(size=(WIDTH, WIDTH)) / np.sqrt(WIDTH)).astype(np.float32),
        rng.normal(0, 0.1, WIDTH).astype(np.float32),
    )


def run(bench: Any) -> None:
    """All sides; MLX and tinygrad would unroll."""
    arrays = data()
    also = {"jax": with_jax, "minidl": scanned, "tinygrad": None, "mlx": None, "torch.compile": None}
    builders = sides.functional(bench, looped, arrays, (0, 1, 2), by_hand, also)
    builders["torch.compile"] = lambda: torch_compile(arrays)
    sides.compare(bench, "ode", builders, 1e-3)
