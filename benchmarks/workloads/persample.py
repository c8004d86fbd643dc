"""persample: the gradient of every example's own loss, for a 256-256-10 network and a batch of 64: vmap of grad."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from benchmarks import sides
from benchmarks.timing import Side

SIZES, BATCH = (256, 256, 10), 64


def data() -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Weights, inputs, labels."""
    rng = np.random.default_rng(0)
    p = {}
    for i, (n, m) in enumerate(itertools.pairwise(SIZES)):
        p[f"w{i}"] = (rng.normal(size=(n, m)) / np.sqrt(n)).astype(np.float32)
        p[f"b{i}"] = rng.normal(0, 0.1, m).astype(np.float32)
    return p, rng.normal(size=(BATCH, SIZES[0])).astype(np.float32), rng.integers(0, SIZES[-1], BATCH)


def logits(relu: Any, p: Any, x: Any) -> Any:
    """The network on one example."""
    return relu(x @ p["w0"] + p["b0"]) @ p["w1"] + p["b1"]


def loss(library: Any, p: Any, x: Any, y: Any) -> Any:
    """The loss of one example, for torch and minidl."""
    return library.nn.functional.cross_entropy(logits(library.relu, p, x[None]), y[None])


def ordered(p: Any) -> list[Any]:
    """The values by name."""
    return [p[k] for k in sorted(p)]


def minidl(way: sides.Way) -> Side:
    """md.vmap of md.grad."""
    import minidl as md

    weights, x, y = data()
    p = dict(zip(weights, way.tensors(list(weights.values())), strict=True))
    x, y = way.tensors([x, y])
    f = way.jit(md.vmap(md.grad(partial(loss, md)), in_axes=(None, 0, 0)))
    return Side(lambda: f(p, x, y), lambda: [t.numpy() for t in ordered(f(p, x, y))], sides.wait)


def torch_side(compiled: bool) -> Side:
    """torch.func's vmap of grad."""
    import torch

    weights, x, y = data()
    p, x, y = {k: sides.torch_array(v) for k, v in weights.items()}, sides.torch_array(x), sides.torch_array(y)
    f = torch.func.vmap(torch.func.grad(partial(loss, torch)), in_dims=(None, 0, 0))
    f = torch.compile(f) if compiled else f
    return Side(lambda: f(p, x, y), lambda: [t.cpu().numpy() for t in ordered(f(p, x, y))], lambda out: sides.synchronize())


def jax_side() -> Side:
    """jax.vmap of jax.grad, jitted."""
    import jax
    import jax.numpy as jnp

    p, x, y = jax.tree.map(jnp.asarray, data())
    f = jax.jit(jax.vmap(jax.grad(lambda p, x, y: -jax.nn.log_softmax(logits(jax.nn.relu, p, x))[y]), in_axes=(None, 0, 0)))
    return Side(lambda: f(p, x, y), lambda: [np.asarray(a) for a in ordered(f(p, x, y))], jax.block_until_ready)


def mlx_side() -> Side:
    """MLX's vmap of grad, compiled."""
    import mlx.core as mx
    import mlx.nn as nn

    mx.set_default_device(mx.cpu)
    weights, x, y = data()
    p, x, y = {k: mx.array(v) for k, v in weights.items()}, mx.array(x), mx.array(y)
    one = lambda p, x, y: mx.logsumexp(z := logits(nn.relu, p, x)) - mx.take(z, y)
    f = mx.compile(mx.vmap(mx.grad(one), in_axes=(None, 0, 0)))

    def step() -> Any:
        out = f(p, x, y)
        mx.eval(out)
        return out

    return Side(step, lambda: [np.array(a) for a in ordered(step())])


def by_hand() -> Side:
    """NumPy: the backward pass of the batch, with the outer product of each example kept."""
    p, x, y = data()

    def step() -> dict[str, Any]:
        h = np.maximum(x @ p["w0"] + p["b0"], 0)
        z = h @ p["w1"] + p["b1"]
        e = np.exp(z - z.max(1, keepdims=True))
        e /= e.sum(1, keepdims=True)
        e[np.arange(BATCH), y] -= 1
        d = (e @ p["w1"].T) * (h > 0)
        return {"b0": d, "b1": e, "w0": x[:, :, None] * d[:, None, :], "w1": h[:, :, None] * e[:, None, :]}

    return Side(step, lambda: ordered(step()))


def run(bench: Any) -> None:
    """All sides; HIPS autograd, MyGrad and tinygrad have no vmap."""
    builders: dict[str, Callable[[], Side]] = {
        "NumPy by hand": by_hand, "torch eager": partial(torch_side, False), "torch.compile": partial(torch_side, True),
        "jax.jit": jax_side, "MLX": mlx_side,
    }  # fmt: skip
    builders |= {way.label: partial(minidl, way) for way in sides.ways(bench)}
    sides.compare(bench, "persample", builders, 1e-4)
