"""gelu_ln: layer norm over the last axis, then GELU in its tanh form, forward, on 1024x1024 float32 numbers.

Memory traffic and one transcendental.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from benchmarks import sides

EPS, ROOT = 1e-5, math.sqrt(2 / math.pi)


def text(xp: Any, x: Any) -> Any:
    """Written with basic functions."""
    centred = x - xp.mean(x, axis=-1, keepdims=True)
    x = centred / xp.sqrt(xp.mean(centred * centred, axis=-1, keepdims=True) + EPS)
    return x * 0.5 * (xp.tanh((x + x * x * x * 0.044715) * ROOT) + 1.0)


def with_layers(library: Any, x: Any) -> Any:
    """As the users of torch and minidl write it."""
    F = library.nn.functional
    return F.gelu(F.layer_norm(x, (x.shape[-1],), eps=EPS), approximate="tanh")


def with_jax(jnp: Any, x: Any) -> Any:
    """jax.nn's gelu is the tanh form."""
    import jax

    centred = x - jnp.mean(x, axis=-1, keepdims=True)
    return jax.nn.gelu(centred * jax.lax.rsqrt(jnp.mean(centred * centred, axis=-1, keepdims=True) + EPS))


def with_mlx(mx: Any, x: Any) -> Any:
    """MLX has both."""
    import mlx.nn as nn

    return nn.gelu_approx(mx.fast.layer_norm(x, None, None, EPS)) if hasattr(nn, "gelu_approx") else text(mx, x)


def with_tinygrad(xp: Any, x: Any) -> Any:
    """tinygrad has both."""
    return x.layernorm(eps=EPS).gelu()


def by_hand(x: np.ndarray) -> np.ndarray:
    """NumPy."""
    return text(np, x)


def run(bench: Any) -> None:
    """All sides."""
    x = np.random.default_rng(0).normal(size=(1024, 1024)).astype(np.float32)
    also = {"torch": with_layers, "minidl": with_layers, "jax": with_jax, "mlx": with_mlx, "tinygrad": with_tinygrad}
    sides.compare(bench, "gelu_ln", sides.functional(bench, text, (x,), (), by_hand, also), 1e-4)
