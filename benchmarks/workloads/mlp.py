"""mlp: one train step of 784-512-512-10 with relu, batch 128, SGD with momentum 0.9: matrix products, where the engine must not be in the way."""

from __future__ import annotations

import itertools
from functools import partial
from typing import Any

import numpy as np

from benchmarks.workloads import training

SIZES, BATCH = (784, 512, 512, 10), 128


def data(sizes: tuple[int, ...] = SIZES, batch: int = BATCH) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Weights in PyTorch's names and layout, inputs, labels."""
    rng = np.random.default_rng(0)
    weights = {}
    for i, (n, m) in enumerate(itertools.pairwise(sizes)):
        weights[f"{2 * i}.weight"] = rng.normal(0, 1 / np.sqrt(n), (m, n)).astype(np.float32)
        weights[f"{2 * i}.bias"] = rng.normal(0, 0.1, m).astype(np.float32)
    return weights, rng.normal(size=(batch, sizes[0])).astype(np.float32), rng.integers(0, sizes[-1], batch)


def make(nn: Any, sizes: tuple[int, ...] = SIZES) -> Any:
    """The network, for torch.nn and minidl.nn."""
    a, b, c, d = sizes
    return nn.Sequential(nn.Linear(a, b), nn.ReLU(), nn.Linear(b, c), nn.ReLU(), nn.Linear(c, d))


def task(sizes: tuple[int, ...] = SIZES, batch: int = BATCH) -> training.Task:
    """The workload, for any widths and batch size."""
    return training.Task("mlp", *data(sizes, batch), partial(make, sizes=sizes), forward, gradients, (__name__, "keras"))


def keras() -> training.Side:
    """Keras: three Dense layers."""
    import keras

    t = task()
    layers = [keras.layers.Dense(n, activation=a) for n, a in zip(SIZES[1:], ("relu", "relu", None), strict=True)]
    model = keras.Sequential([keras.Input((SIZES[0],)), *layers])
    for i, layer in enumerate(layers):
        layer.set_weights([t.weights[f"{2 * i}.weight"].T, t.weights[f"{2 * i}.bias"]])

    def parameters() -> list[Any]:
        return [a for layer in layers for w, b in [layer.get_weights()] for a in (w.T, b)]

    return training.keras_step(t, model, parameters, t.x)


def forward(xp: Any, p: dict, x: Any) -> Any:
    """Functional form, for jax, autograd and MLX."""
    for i in (0, 2):
        x = xp.maximum(x @ p[f"{i}.weight"].T + p[f"{i}.bias"], 0.0)
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


def run(bench: Any) -> None:
    """All sides."""
    training.run(bench, task())
