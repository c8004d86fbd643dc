"""call8: what a call of a jitted function on 8 numbers costs over a raw jax.jit call of the same function, all guards on.

Once with nothing but the argument, and once with what guards are for: a captured tensor (read anew each call, so raw jax gets it as an
argument) and a global number. Then what it costs that a program runs on another backend than its tensors belong to, as where auto chose it: arrays
change hands on their way in, and out when they are read, few numbers or a megabyte.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from benchmarks import goals, sides
from benchmarks.timing import Side, spread

X = np.linspace(-1.0, 1.0, 8, dtype=np.float32)
W = np.linspace(0.5, 1.2, 8, dtype=np.float32)
SCALE = 2.0
HANDED, SIZES, WEIGHTS = 4, (8, 1 << 14), 10  # tensors in, numbers in each; tensors that a training step changes


def minidl_call(way: sides.Way, captured: bool) -> Side:
    """A jitted minidl function; captured: with a tensor and a global in it."""
    import minidl as md

    x, w = way.tensors([X, W])

    def plain(x: Any) -> Any:
        return md.sin(x) * 2.0 + 1.0

    def capturing(x: Any) -> Any:
        return md.sin(x * w) * SCALE + 1.0

    f = way.jit(capturing if captured else plain)
    return Side(lambda: f(x), lambda: [f(x).numpy()], sides.wait)


def jax_call(captured: bool) -> Side:
    """The same with jax.jit."""
    import jax
    import jax.numpy as jnp

    x, w = jnp.asarray(X), jnp.asarray(W)
    if captured:
        g = jax.jit(lambda x, w: jnp.sin(x * w) * SCALE + 1.0)
        return Side(lambda: g(x, w), lambda: [np.asarray(g(x, w))], np.asarray)
    f = jax.jit(lambda x: jnp.sin(x) * 2.0 + 1.0)
    return Side(lambda: f(x), lambda: [np.asarray(f(x))], np.asarray)


def numpy_call(captured: bool) -> Side:
    """Three or four NumPy calls."""
    f = (lambda: np.sin(X * W) * SCALE + 1.0) if captured else (lambda: np.sin(X) * 2.0 + 1.0)
    return Side(f, lambda: [f()])


def handed(engine: str, home: str, size: int) -> Side:
    """HANDED tensors of one backend in and as many out, run by another; all are read before the next call, as NumPy's always are there."""
    import minidl as md

    with md.use_backend(home):
        xs = [md.tensor(np.full(size, 1.0 + i, np.float32)) for i in range(HANDED)]
    f = md.jit(lambda *xs: [x * 2.0 for x in xs], backend=engine)
    asynchronous = hasattr(xs[0].payload, "block_until_ready")

    def step() -> None:
        natives = [y.payload for y in f(*xs)]
        if asynchronous:
            natives[-1].block_until_ready()

    return Side(step, lambda: [y.numpy() for y in f(*xs)])


def stepping(engine: str, home: str) -> Side:
    """A training step whose loss is read: weights and both moments lie with the engine from call to call, two arrays change hands."""
    import minidl as md

    with md.use_backend(home):
        x, *ws = (md.tensor(X * i) for i in range(1, 2 + WEIGHTS))
        optimizer = md.optim.AdamW([w.requires_grad_() for w in ws], lr=1e-3)

    def step(x: Any) -> Any:
        optimizer.zero_grad()
        loss = sum(((w * x).sum() for w in ws[1:]), (ws[0] * x).sum())
        loss.backward()
        optimizer.step()
        return loss

    f = md.jit(step, backend=engine)
    return Side(lambda: np.asarray(f(x).payload), lambda: [f(x).detach().numpy()])


def hand_over(bench: Any, engine: str) -> None:
    """What it costs that a program runs on another backend, against the goal for auto."""
    own, foreign = f"minidl {engine} jit", f"minidl {engine} for numpy"
    measures = [(f"{2 * HANDED} arrays of {size * 4} bytes change hands", partial(handed, engine, size=size), 2 * HANDED) for size in SIZES]
    for measure, make, arrays in [*measures, (f"a step of {WEIGHTS} weights", partial(stepping, engine), 2)]:
        label = f"call8, {measure}"
        builders = {own: partial(make, home=engine), foreign: partial(make, home="numpy")}
        times = bench.measure(f"{label}, {engine}", builders, 1e-6, 4.0, 0.005)
        if own in times and foreign in times:
            pairs = [(a - b) * 1e6 for a, b in zip(times[foreign].samples, times[own].samples, strict=True)]
            bench.row(f"{label}: {foreign} - {own}", (times[foreign].best - times[own].best) * 1e6, "µs", 10.0 + 3.0 * arrays, spread(pairs))


def run(bench: Any) -> None:
    """The difference to raw jax.jit (goal 1 µs), of auto to the quickest backend (3 µs), and of a program whose arrays change hands to one whose
    arrays do not (10 µs, and 3 for each array)."""
    for captured, kind in ((False, "argument only"), (True, "captured tensor and global")):
        label = f"call8, {kind}"
        builders: dict[str, Callable[[], Side]] = {"NumPy by hand": partial(numpy_call, captured)} if "numpy" in bench.peers else {}
        builders |= {way.label: partial(minidl_call, way, captured) for way in sides.ways(bench, eager=False)}
        if "jax" in bench.peers:
            builders["jax.jit"] = partial(jax_call, captured)
        times = bench.measure(label, builders, 1e-5, 10.0, 0.005)
        for side, other, goal in (("minidl jax jit", "jax.jit", 1.0), ("minidl auto", goals.best(times, ("minidl*jit*",)), 3.0)):
            if side in times and other in times:
                pairs = [(a - b) * 1e6 for a, b in zip(times[side].samples, times[other].samples, strict=True)]
                bench.row(f"{label}: {side} - {other}", (times[side].best - times[other].best) * 1e6, "µs", goal, spread(pairs))
            else:
                bench.row(f"{label}: {side} - {other}", None, "µs", goal)
        bench.ratio(label, times, "minidl jax jit", "jax.jit")
        bench.each(label, times, "µs")
    for engine in (b for b in bench.backends if b in ("numba", "torch", "jax")):
        hand_over(bench, engine)
