"""cross_entropy: mean cross-entropy of 128 rows over 32,768 classes, and its gradient: one large softmax, where a scatter or a copy shows."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks import sides
from benchmarks.workloads import training

ROWS, CLASSES = 128, 32_768


def text(xp: Any, z: Any, y: Any) -> Any:
    """Written with basic functions and a look-up."""
    z = z - xp.max(z, axis=1, keepdims=True)
    return xp.mean(xp.log(xp.sum(xp.exp(z), axis=1)) - z[np.arange(ROWS), y])


def with_loss(library: Any, z: Any, y: Any) -> Any:
    """torch's and minidl's own loss."""
    return library.nn.functional.cross_entropy(z, y)


def with_jax(jnp: Any, z: Any, y: Any) -> Any:
    """log_softmax and a look-up, as jax's users write it."""
    import jax

    return -jnp.take_along_axis(jax.nn.log_softmax(z), y[:, None], axis=1).mean()


def with_mlx(mx: Any, z: Any, y: Any) -> Any:
    """MLX has the loss."""
    import mlx.nn as nn

    return nn.losses.cross_entropy(z, y, reduction="mean")


def with_tinygrad(xp: Any, z: Any, y: Any) -> Any:
    """tinygrad has the loss."""
    return z.sparse_categorical_crossentropy(y)


def run(bench: Any) -> None:
    """All sides."""
    rng = np.random.default_rng(0)
    z, y = rng.normal(size=(ROWS, CLASSES)).astype(np.float32) * 3, rng.integers(0, CLASSES, ROWS)
    also = {"torch": with_loss, "minidl": with_loss, "jax": with_jax, "mlx": with_mlx, "tinygrad": with_tinygrad}
    sides.compare(bench, "cross_entropy", sides.functional(bench, text, (z, y), (0,), training.cross_entropy, also), 1e-4)
