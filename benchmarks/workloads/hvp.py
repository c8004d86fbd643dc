"""hvp: a Hessian-vector product of the mean squared error of a 128-256-256-10 network, batch 64: forward over reverse, or reverse over reverse."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from benchmarks import sides
from benchmarks.timing import Side

SIZES, BATCH = (128, 256, 256, 10), 64


def loss(xp: Any, ws: Any, x: Any, y: Any) -> Any:
    """The error of the network with weights ws."""
    for w in ws[:-1]:
        x = xp.tanh(x @ w)
    d = x @ ws[-1] - y
    return (d * d).mean()


def data() -> tuple[list[np.ndarray], ...]:
    """Weights, direction, (input, target)."""
    rng = np.random.default_rng(0)
    shapes = list(itertools.pairwise(SIZES))
    ws, vs = ([(rng.normal(size=s) / np.sqrt(s[0])).astype(np.float32) for s in shapes] for _ in range(2))
    return ws, vs, [rng.normal(size=(BATCH, SIZES[0])).astype(np.float32), rng.normal(size=(BATCH, SIZES[-1])).astype(np.float32)]


def minidl(way: sides.Way) -> Side:
    """md.jvp of md.grad."""
    import minidl as md

    ws, vs, xy = (way.tensors(a) for a in data())
    f = way.jit(lambda ws, vs, x, y: md.jvp(md.grad(lambda ws: loss(md, ws, x, y)), (ws,), (vs,))[1])
    return Side(lambda: f(ws, vs, *xy), lambda: [t.numpy() for t in f(ws, vs, *xy)], sides.wait)


def jax_side() -> Side:
    """jax.jvp of jax.grad, jitted."""
    import jax
    import jax.numpy as jnp

    ws, vs, xy = ([jnp.asarray(a) for a in part] for part in data())
    f = jax.jit(lambda ws, vs, x, y: jax.jvp(jax.grad(lambda ws: loss(jnp, ws, x, y)), (ws,), (vs,))[1])
    return Side(lambda: f(ws, vs, *xy), lambda: [np.asarray(a) for a in f(ws, vs, *xy)], jax.block_until_ready)


def torch_side(compiled: bool) -> Side:
    """Eager: double backward, the quicker one there; compiled: torch.func's jvp of grad, which torch.compile can follow."""
    import torch

    ws, vs, xy = ([sides.torch_array(a) for a in part] for part in data())
    if compiled:
        f = torch.compile(lambda ws, vs, x, y: torch.func.jvp(torch.func.grad(lambda ws: loss(torch, ws, x, y)), (ws,), (vs,))[1])
        return Side(lambda: f(ws, vs, *xy), lambda: [t.cpu().numpy() for t in f(ws, vs, *xy)], lambda out: sides.synchronize())
    for w in ws:
        w.requires_grad_()

    def step() -> Any:
        gs = torch.autograd.grad(loss(torch, ws, *xy), ws, create_graph=True)
        return torch.autograd.grad(gs, ws, vs)

    return Side(step, lambda: [t.cpu().numpy() for t in step()], lambda out: sides.synchronize())


def hips_autograd() -> Side:
    """HIPS autograd: the gradient of the gradient's product with the direction."""
    import autograd
    import autograd.numpy as anp

    ws, vs, xy = data()
    g = autograd.grad(lambda ws: loss(anp, ws, *xy))
    f = autograd.grad(lambda ws: sum(anp.sum(a * b) for a, b in zip(g(ws), vs, strict=True)))
    return Side(lambda: f(ws), lambda: f(ws))


def mlx_side() -> Side:
    """MLX: reverse over reverse, compiled."""
    import mlx.core as mx

    mx.set_default_device(mx.cpu)
    ws, vs, xy = ([mx.array(a) for a in part] for part in data())
    g = mx.grad(lambda ws: loss(mx, ws, *xy))
    f = mx.compile(mx.grad(lambda ws: sum((a * b).sum() for a, b in zip(g(ws), vs, strict=True))))

    def step() -> Any:
        out = f(ws)
        mx.eval(out)
        return out

    return Side(step, lambda: [np.array(a) for a in step()])


def by_hand() -> Side:
    """NumPy: the tangent pass and the pull of both written out."""
    ws, vs, (x, y) = data()

    def step() -> list[Any]:
        hs, ts = [x], [np.zeros_like(x)]
        for w, v in zip(ws[:-1], vs[:-1], strict=True):
            h = np.tanh(hs[-1] @ w)
            ts.append((1 - h * h) * (ts[-1] @ w + hs[-1] @ v))
            hs.append(h)
        scale = 2 / (BATCH * SIZES[-1])
        g = (hs[-1] @ ws[-1] - y) * scale
        dg = (ts[-1] @ ws[-1] + hs[-1] @ vs[-1]) * scale
        out = []
        for k in range(len(ws) - 1, -1, -1):
            out.append(ts[k].T @ g + hs[k].T @ dg)
            if k:
                s = 1 - hs[k] * hs[k]
                gh = g @ ws[k].T
                dg = (dg @ ws[k].T + g @ vs[k].T) * s - 2 * gh * hs[k] * ts[k]
                g = gh * s
        return out[::-1]

    return Side(step, step)


def run(bench: Any) -> None:
    """All sides; MyGrad has no second derivatives, tinygrad's are not for users."""
    builders: dict[str, Callable[[], Side]] = {
        "NumPy by hand": by_hand, "torch eager": partial(torch_side, False), "torch.compile": partial(torch_side, True),
        "jax.jit": jax_side, "HIPS autograd": hips_autograd, "MLX": mlx_side,
    }  # fmt: skip
    builders |= {way.label: partial(minidl, way) for way in sides.ways(bench)}
    sides.compare(bench, "hvp", builders, 1e-3)
