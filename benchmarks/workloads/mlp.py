"""mlp: one train step of 784-512-512-10 with relu, batch 128, SGD with momentum 0.9: matrix products, where the engine must not be in the way."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from benchmarks.timing import Side
from benchmarks.workloads import training

SIZES, BATCH = (784, 512, 512, 10), 128


def data() -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Weights in PyTorch's names and layout, inputs, labels."""
    rng = np.random.default_rng(0)
    weights = {}
    for i, (n, m) in enumerate(itertools.pairwise(SIZES)):
        weights[f"{2 * i}.weight"] = rng.normal(0, 1 / np.sqrt(n), (m, n)).astype(np.float32)
        weights[f"{2 * i}.bias"] = rng.normal(0, 0.1, m).astype(np.float32)
    return weights, rng.normal(size=(BATCH, SIZES[0])).astype(np.float32), rng.integers(0, SIZES[-1], BATCH)


def make(nn: Any) -> Any:
    """The network, for torch.nn and minidl.nn."""
    return nn.Sequential(nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10))


def forward(xp: Any, p: dict, x: Any) -> Any:
    """Functional form, for jax and autograd."""
    for i in (0, 2):
        x = xp.maximum(x @ p[f"{i}.weight"].T + p[f"{i}.bias"], 0)
    return x @ p["4.weight"].T + p["4.bias"]


def gradients(p: dict, x: np.ndarray, y: np.ndarray) -> tuple[Any, dict]:
    """Forward and backward by hand."""
    layers = [x]
    for i in (0, 2, 4):
        h = layers[-1] @ p[f"{i}.weight"].T
        h += p[f"{i}.bias"]
        if i < 4:
            np.maximum(h, 0, out=h)
        layers.append(h)
    loss, d = training.cross_entropy(layers.pop(), y)
    g = {}
    for i in (4, 2, 0):
        h = layers.pop()
        g[f"{i}.weight"], g[f"{i}.bias"] = d.T @ h, d.sum(0)
        if i:
            d = d @ p[f"{i}.weight"]
            d *= h > 0
    return loss, g


def hips_autograd(weights: dict, x: np.ndarray, y: np.ndarray) -> Side:
    """HIPS autograd with the same hand-written update."""
    import autograd
    import autograd.numpy as anp

    rows = np.arange(BATCH)

    def loss(p: dict, x: Any, y: Any) -> Any:
        z = forward(anp, p, x)
        z = z - anp.max(z, axis=1, keepdims=True)
        return anp.mean(anp.log(anp.sum(anp.exp(z), axis=1)) - z[rows, y])

    return training.numpy_side(autograd.value_and_grad(loss), weights, x, y)


def jax_side(weights: dict, x: np.ndarray, y: np.ndarray) -> Side:
    """Raw jax.jit."""
    import jax.numpy as jnp

    return training.jax_side(partial(forward, jnp), weights, x, y)


def run(bench: Any) -> None:
    """Goals: jit on numpy, torch and jax against the hand-written, eager and jitted peer."""
    d = data()
    peers: dict[str, Callable[[], Side]] = {"NumPy by hand": partial(training.numpy_side, gradients, *d)}
    peers |= {"torch eager": partial(training.torch_side, make, *d)} if "torch" in bench.peers else {}
    peers |= {"jax.jit": partial(jax_side, *d)} if "jax" in bench.peers else {}
    peers |= {"HIPS autograd": partial(hips_autograd, *d)} if "autograd" in bench.peers else {}
    goals = (("minidl jax jit", "jax.jit", 1.05), ("minidl torch jit", "torch eager", 1.05), ("minidl numpy jit", "NumPy by hand", 1.1))
    training.run(bench, "mlp", peers, partial(training.minidl_side, make, *d), goals, 1e-4)
