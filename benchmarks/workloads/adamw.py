"""adamw: one AdamW update of a million parameters by a given gradient: pure memory traffic, where fusion and working in place show."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from benchmarks import sides
from benchmarks.timing import Side
from benchmarks.workloads import training
from benchmarks.workloads.training import DECAY, Task

SIZE, RATE = 1_000_000, 1e-3


def data() -> tuple[np.ndarray, np.ndarray]:
    """Parameters and gradient."""
    rng = np.random.default_rng(0)
    return rng.normal(size=SIZE).astype(np.float32), rng.normal(size=SIZE).astype(np.float32)


def torch_like(library: Any, p: Any, g: Any, optimizer: Any, run: Any = None) -> Side:
    """p.grad = g and step(), for torch and minidl."""

    def step(g: Any) -> Any:
        p.grad = g
        optimizer.step()

    f = run(step) if run is not None else step

    def wait(_: Any) -> None:
        sides.wait(p) if run is not None else sides.synchronize()

    return Side(lambda: f(g), partial(after_steps, lambda: f(g), lambda: training.values([p])), wait)


def after_steps(step: Any, values: Any) -> list[Any]:
    """The parameters after the first steps."""
    for _ in range(training.STEPS):
        step()
    return values()


def torch_side(compiled: bool) -> Side:
    """Eager: torch's fused optimizer; compiled: the step of the plain one, as its documentation shows."""
    import torch

    p, g = (sides.torch_array(a) for a in data())
    p.requires_grad_()
    optimizer = torch.optim.AdamW([p], lr=RATE, weight_decay=DECAY, fused=not compiled or None)
    if not compiled:
        return torch_like(torch, p, g, optimizer)
    p.grad = g
    f = torch.compile(optimizer.step)
    return Side(f, partial(after_steps, f, lambda: training.values([p])), lambda _: sides.synchronize())


def minidl(way: sides.Way) -> Side:
    """minidl's optimizer."""
    import minidl as md

    p, g = way.tensors(data())
    p.requires_grad_()
    with way.inside():
        optimizer = md.optim.AdamW([p], lr=RATE, weight_decay=DECAY)
    return torch_like(md, p, g, optimizer, way.jit)


def task() -> Task:
    """For the update as a function."""
    p, g = data()
    return Task("adamw", {"p": p}, g, g, lambda nn: None, adamw=True)


def jax_side() -> Side:
    """The update as a function, donated."""
    import jax
    import jax.numpy as jnp

    t = task()
    f = jax.jit(lambda p, s, g: training.update(jnp, t, p, {"p": g}, s), donate_argnums=(0, 1))
    state = [{"p": jnp.array(t.weights["p"])}, training.start(t, jnp.zeros_like, jnp.float32)]
    g = jnp.asarray(t.x)

    def step() -> Any:
        state[:] = f(*state, g)
        return state[0]["p"]

    return Side(step, partial(after_steps, step, lambda: [np.array(state[0]["p"])]), jax.block_until_ready)


def mlx_side() -> Side:
    """MLX's optimizer has no bias correction in its plain form: the update as a function, compiled."""
    import mlx.core as mx

    mx.set_default_device(mx.cpu)
    t = task()
    f = mx.compile(lambda p, s, g: training.update(mx, t, p, {"p": g}, s))
    state = [{"p": mx.array(t.weights["p"])}, training.start(t, lambda w: mx.zeros(w.shape), mx.array)]
    g = mx.array(t.x)

    def step() -> Any:
        state[:] = f(*state, g)
        mx.eval(state)
        return state[0]["p"]

    return Side(step, partial(after_steps, step, lambda: [np.array(state[0]["p"])]))


def tinygrad_side() -> Side:
    """tinygrad's optimizer under TinyJit."""
    from tinygrad import Tensor, TinyJit
    from tinygrad.helpers import Context
    from tinygrad.nn.optim import AdamW

    device = sides.tinygrad_device()
    a, b = data()
    p, g = Tensor(a).realize().is_param_(), Tensor(b).realize()
    optimizer = AdamW([p], lr=RATE, weight_decay=DECAY)

    def program() -> Any:
        with Context(TRAINING=1):
            p.grad = g
            optimizer.step()
        return p.realize()

    f = TinyJit(program)
    return Side(f, partial(after_steps, f, lambda: [p.numpy()]), lambda _: device.synchronize())


def by_hand() -> Side:
    """NumPy in place."""
    p, g = data()
    m, v, t = np.zeros_like(p), np.zeros_like(p), [0]

    def step() -> None:
        t[0] += 1
        training.adamw_in_place(p, g, m, v, t[0], RATE)

    return Side(step, partial(after_steps, step, lambda: [p.copy()]))


def run(bench: Any) -> None:
    """All sides; HIPS autograd and MyGrad have no such optimizer."""
    builders: sides.Builders = {
        "NumPy by hand": by_hand, "torch eager": partial(torch_side, False), "torch.compile": partial(torch_side, True), "jax.jit": jax_side,
        "tinygrad": tinygrad_side, "MLX": mlx_side,
    }  # fmt: skip
    builders |= {way.label: partial(minidl, way) for way in sides.ways(bench)}
    sides.compare(bench, "adamw", builders, 1e-4)
