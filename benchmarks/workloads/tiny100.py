"""tiny100: 100 operations on 8 float32 numbers, forward and backward, where nothing but the engine's own cost shows.

The chain is one text for every side: products and sums with a weight vector and the input, Python scalars, and functions of one argument. Eager
minidl is the tape, `backward()` on two leaves, as torch eager; jitted, the value and both gradients in one program.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from benchmarks import sides
from benchmarks.timing import Side

BLOCKS = 10
X = np.linspace(-1.0, 1.0, 8, dtype=np.float32)
W = np.linspace(0.5, 1.2, 8, dtype=np.float32)


def chain(xp: Any, x: Any, w: Any, blocks: int = BLOCKS) -> Any:
    """Blocks of 10 operations, then a sum."""
    h = x
    for _ in range(blocks):
        h = h * w
        h = xp.sin(h)
        h = h + 0.5
        h = xp.tanh(h)
        h = h - x
        h = h * 0.9
        h = xp.exp(h)
        h = h / 2.0
        h = xp.cos(h)
        h = h + w
    return h.sum()


def by_hand(x: np.ndarray, w: np.ndarray) -> tuple:
    """The chain and its derivative written out on NumPy arrays: what the kernels alone cost."""
    h, saved = x, []
    for _ in range(BLOCKS):
        a = h * w
        t = np.tanh(np.sin(a) + 0.5)
        e = np.exp((t - x) * 0.9) / 2.0
        saved.append((h, a, t, e))
        h = np.cos(e) + w
    loss, g = h.sum(), np.ones_like(h)
    gx, gw = np.zeros_like(h), np.zeros_like(h)
    for h, a, t, e in reversed(saved):
        gw += g
        g = -g * np.sin(e) * e * 0.9
        gx -= g
        g = g * (1 - t * t) * np.cos(a)
        gw += g * h
        g = g * w
    return loss, gx + g, gw


def tape(way: sides.Way, forward_only: bool = False) -> Side:
    """minidl's tape on one backend."""
    import minidl as md

    x, w = (t.requires_grad_() for t in way.tensors([X, W]))

    def step() -> Any:
        x.grad = w.grad = None
        loss = chain(md, x, w)
        loss.backward()
        return loss

    def answer() -> list[Any]:
        return [step().detach().numpy(), x.grad.numpy(), w.grad.numpy()]

    return Side((lambda: chain(md, x, w)) if forward_only else step, answer, lambda loss: sides.wait(loss if forward_only else w.grad))


def run(bench: Any) -> None:
    """Every side, then what one operation costs forward and backward in eager mode."""
    builders = sides.functional(bench, chain, (X, W), (0, 1), by_hand, {"tinygrad": None})  # whose compiler needs minutes for so long a chain
    builders["jax eager grad"] = partial(sides.jax_side, chain, (X, W), (0, 1), jitted=False)
    eager = [w for w in sides.ways(bench) if not w.jitted]
    for way in eager:
        builders[way.label] = partial(tape, way)
        builders[f"{way.label}, forward"] = partial(tape, way, True)
    times = sides.compare(bench, "tiny100", builders, 1e-4, 40.0, 0.01, "µs")
    for way in eager:
        if f"{way.label}, forward" in times:
            forward, whole = times[f"{way.label}, forward"].best, times[way.label].best
            bench.row(f"tiny100: {way.label}, one operation forward", forward * 1e4, "µs")
            bench.row(f"tiny100: {way.label}, one operation backward", (whole - forward) * 1e4, "µs")
