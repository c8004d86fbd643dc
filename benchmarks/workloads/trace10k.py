"""trace10k: tracing and compiling 10,000 operations on numpy, and whether the time grows as the number of operations does.

Timed: the first call of a fresh `md.jit` function, which is everything: tracing, the passes, emitting, compiling and one run.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.timing import Times, progress

SIZES = (1_000, 2_000, 5_000, 10_000)
X = np.linspace(-1.0, 1.0, 8, dtype=np.float32)


def program(xp: Any, count: int) -> Callable[[Any], Any]:
    """A function of exactly `count` operations, no two of which are the same."""

    def f(x: Any) -> Any:
        h = x
        for _ in range(count // 5):
            h = xp.sin(h)
            h = h * 0.9
            h = h + x
            h = xp.tanh(h)
            h = h - 0.1
        return h

    return f


def first_calls(bench: Any, times: dict[int, Times], call: Callable[[int], Any]) -> None:
    """Fill `times` with seconds of the first call for each size, sizes in turns."""
    for i in range(2 if bench.quick else 5):
        for n, t in times.items():
            start = time.perf_counter()
            call(n)
            t.samples.append(time.perf_counter() - start)
            progress(f"trace10k: round {i}, {n} operations, {t.samples[-1]:.3f} s")


def run(bench: Any) -> None:
    """Goals: 0.8 s, and linear (time per operation at 10,000 at most 1.25 of that at 1,000); jax's tracing alone for reading."""

    def minidl() -> Callable[[int], Any]:
        import minidl as md

        with md.use_backend("numpy"):
            x = md.tensor(X)
        want = program(np, 1_000)(X)
        if not np.allclose(md.jit(program(md, 1_000))(x).numpy(), want, rtol=1e-4):
            raise AssertionError("the traced program's result is wrong")
        if (n := len(md.trace(program(md, 1_000))(x).equations)) != 1_000:
            raise AssertionError(f"{n} equations for 1,000 operations")
        return lambda n: md.jit(program(md, n))(x)

    def jaxpr() -> Callable[[int], Any]:
        import jax
        import jax.numpy as jnp

        return lambda n: jax.make_jaxpr(program(jnp, n))(X)

    for name, make in (("minidl numpy, first call", minidl), ("jax.make_jaxpr, tracing alone", jaxpr)):
        if make is jaxpr and "jax" not in bench.peers:
            continue
        goal = 0.8 if make is minidl else None
        times = {n: Times() for n in SIZES}
        try:
            first_calls(bench, times, make())
        except ImportError as error:
            bench.note(f"trace10k: {name} skipped: {error}")
        except Exception as error:
            bench.note(f"trace10k: {name} FAILED: {type(error).__name__}: {str(error)[:200]}")
            bench.row(f"trace10k: {name}, {SIZES[-1]} operations", None, "s", goal)
        else:
            for n, t in times.items():
                bench.row(f"trace10k: {name}, {n} operations", t.best, "s", goal if n == SIZES[-1] else None)
            linear = times[SIZES[-1]].best / times[SIZES[0]].best / (SIZES[-1] / SIZES[0])
            bench.row(f"trace10k: {name}, time per operation at {SIZES[-1]} over {SIZES[0]}", linear, "x", 1.25 if make is minidl else None)
            bench.times[f"trace10k, {name}"] = {str(n): {"best_s": t.best, "median_s": t.median, "rounds": len(t.samples)} for n, t in times.items()}
