"""tiny100: 100 operations on 8 float32 numbers, forward and backward, where nothing but the engine's own cost shows.

The chain is one text for every side: products and sums with a weight vector and the input, Python scalars, and functions of one argument.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from benchmarks.timing import Side

BLOCKS = 10
X = np.linspace(-1.0, 1.0, 8, dtype=np.float32)
W = np.linspace(0.5, 1.2, 8, dtype=np.float32)


def chain(xp: Any, x: Any, w: Any) -> Any:
    """10 blocks of 10 operations, then a sum."""
    h = x
    for _ in range(BLOCKS):
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


def by_hand() -> Side:
    """The chain and its derivative written out on NumPy arrays: what the kernels alone cost."""

    def step() -> tuple:
        h, saved = X, []
        for _ in range(BLOCKS):
            a = h * W
            t = np.tanh(np.sin(a) + 0.5)
            e = np.exp((t - X) * 0.9) / 2.0
            saved.append((h, a, t, e))
            h = np.cos(e) + W
        loss, g = h.sum(), np.ones_like(h)
        gx, gw = np.zeros_like(h), np.zeros_like(h)
        for h, a, t, e in reversed(saved):
            gw += g
            g = -g * np.sin(e) * e * 0.9
            gx -= g
            g = g * (1 - t * t) * np.cos(a)
            gw += g * h
            g = g * W
        return loss, gx + g, gw

    return Side(step, lambda: list(step()))


def torch_eager() -> Side:
    """PyTorch as its users write it."""
    import torch

    x, w = torch.tensor(X, requires_grad=True), torch.tensor(W, requires_grad=True)
    return tape_side(torch, x, w)


def tape_side(xp: Any, x: Any, w: Any) -> Side:
    """forward, backward, `.grad`: the same lines for torch and minidl."""

    def step() -> Any:
        x.grad = w.grad = None
        loss = chain(xp, x, w)
        loss.backward()
        return loss

    def answer() -> list[Any]:
        loss = step()
        return [loss.detach().numpy(), x.grad.numpy(), w.grad.numpy()]

    return Side(step, answer, lambda loss: w.grad.numpy())


def minidl_eager(backend: str, forward_only: bool = False) -> Side:
    """minidl's tape on one backend."""
    import minidl as md

    with md.use_backend(backend):
        x, w = md.tensor(X, requires_grad=True), md.tensor(W, requires_grad=True)
    side = tape_side(md, x, w)
    return Side(lambda: chain(md, x, w), side.answer, lambda loss: loss.detach().numpy()) if forward_only else side


def minidl_jit(backend: str) -> Side:
    """The functional form, jitted: value and gradients in one program."""
    import minidl as md

    with md.use_backend(backend):
        x, w = md.tensor(X), md.tensor(W)
    f = md.jit(md.value_and_grad(partial(chain, md), argnums=(0, 1)))
    return functional_side(lambda: f(x, w), lambda a: a.numpy())


def functional_side(f: Callable[[], Any], numpy: Callable[[Any], Any]) -> Side:
    """(value, (gradient, gradient)) of f()."""

    def answer() -> list[Any]:
        value, grads = f()
        return [numpy(value), *map(numpy, grads)]

    return Side(f, answer, lambda out: numpy(out[0]))


def jax_side(jitted: bool) -> Side:
    """jax.value_and_grad, eager or jitted."""
    import jax
    import jax.numpy as jnp

    x, w = jnp.asarray(X), jnp.asarray(W)
    f = jax.value_and_grad(partial(chain, jnp), argnums=(0, 1))
    f = jax.jit(f) if jitted else f
    return functional_side(lambda: f(x, w), np.asarray)


def hips_autograd() -> Side:
    """HIPS autograd."""
    import autograd
    import autograd.numpy as anp

    f = autograd.value_and_grad(lambda p: chain(anp, *p))
    return functional_side(lambda: f((X, W)), np.asarray)


def run(bench: Any) -> None:
    """The three goals of eager mode, then every side for reading, and the cost of one operation forward and backward."""
    eager = [b for b in bench.backends if b != "numba"]
    builders: dict[str, Callable[[], Side]] = {
        "NumPy by hand": by_hand,
        **{f"minidl {b} eager": partial(minidl_eager, b) for b in eager},
        **{f"minidl {b} eager, forward": partial(minidl_eager, b, True) for b in eager},
        **({"torch eager": torch_eager} if "torch" in bench.peers else {}),
        **({"HIPS autograd": hips_autograd} if "autograd" in bench.peers else {}),
        **({"jax eager grad": partial(jax_side, False)} if "jax" in bench.peers else {}),
    }
    times = bench.measure("tiny100 eager", builders, 1e-4, 30.0)
    goals = (("numpy", "torch eager", 0.3), ("numpy", "HIPS autograd", 0.2), ("torch", "torch eager", 0.6), ("jax", "jax eager grad", 0.1))
    for backend, peer, goal in goals:
        bench.ratio("tiny100", times, f"minidl {backend} eager", peer, goal)
    bench.each("tiny100", times)
    for b in eager:
        if f"minidl {b} eager, forward" in times:
            forward, whole = times[f"minidl {b} eager, forward"].best, times[f"minidl {b} eager"].best
            bench.row(f"tiny100: minidl {b}, one operation forward", forward * 1e4, "µs")
            bench.row(f"tiny100: minidl {b}, one operation backward", (whole - forward) * 1e4, "µs")
    builders = {"NumPy by hand": by_hand, **{f"minidl {b} jit": partial(minidl_jit, b) for b in bench.backends}}
    if "jax" in bench.peers:
        builders["jax.jit"] = partial(jax_side, True)
    times = bench.measure("tiny100 jit", builders, 1e-4, 10.0)
    bench.each("tiny100 jitted", times)
