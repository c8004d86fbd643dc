"""transformer: one train step of a causal language model (4 layers, width 128, 4 heads, 128 positions, batch 8, 256 tokens) with AdamW.

Normalisation comes first in each block, the inner layer is four times as wide, with GELU in its tanh form. On a GPU: width 1024, 16 heads, bfloat16.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from benchmarks import sides
from benchmarks.workloads import training

TOKENS = 256


@dataclass(frozen=True)
class Sizes:
    """How large the model and its input are."""

    layers: int = 4
    width: int = 128
    heads: int = 4
    length: int = 128
    batch: int = 8


def data(s: Sizes) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Weights in PyTorch's names and layout, tokens, next tokens."""
    rng, d = np.random.default_rng(0), s.width
    w = lambda *shape: (rng.normal(size=shape) * 0.05).astype(np.float32)
    ones, zeros = np.ones(d, np.float32), np.zeros(d, np.float32)
    p = {"tokens.weight": w(TOKENS, d), "places.weight": w(s.length, d)}
    for i in range(s.layers):
        b = f"blocks.{i}."
        p |= {b + "norm1.weight": ones, b + "norm1.bias": zeros, b + "qkv.weight": w(3 * d, d), b + "qkv.bias": w(3 * d)}
        p |= {b + "out.weight": w(d, d), b + "out.bias": w(d), b + "norm2.weight": ones, b + "norm2.bias": zeros}
        p |= {b + "up.weight": w(4 * d, d), b + "up.bias": w(4 * d), b + "down.weight": w(d, 4 * d), b + "down.bias": w(d)}
    p |= {"norm.weight": ones, "norm.bias": zeros, "head.weight": w(TOKENS, d), "head.bias": w(TOKENS)}
    text = rng.integers(0, TOKENS, (s.batch, s.length + 1))
    return p, text[:, :-1].copy(), text[:, 1:].reshape(-1).copy()


def make(nn: Any, s: Sizes) -> Any:
    """The model, for torch.nn and minidl.nn: the same class text on either."""
    F = nn.functional
    attend = getattr(F, "scaled_dot_product_attention", None)
    if attend is None:  # a library without it
        import minidl as md

        def attend(q: Any, k: Any, v: Any, is_causal: bool) -> Any:
            scores = q @ k.swapaxes(-1, -2) * (1 / math.sqrt(q.shape[-1]))
            return F.softmax(md.where(md.tril(md.ones_like(scores[0, 0])) > 0, scores, -math.inf), dim=-1) @ v

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            d = s.width
            self.norm1, self.norm2 = nn.LayerNorm(d), nn.LayerNorm(d)
            self.qkv, self.out = nn.Linear(d, 3 * d), nn.Linear(d, d)
            self.up, self.down = nn.Linear(d, 4 * d), nn.Linear(4 * d, d)

        def forward(self, x: Any) -> Any:
            b, n, d = x.shape
            parts = self.qkv(self.norm1(x)).reshape((b, n, 3, s.heads, d // s.heads))
            q, k, v = (parts[:, :, j].swapaxes(1, 2) for j in range(3))
            x = x + self.out(attend(q, k, v, is_causal=True).swapaxes(1, 2).reshape((b, n, d)))
            return x + self.down(F.gelu(self.up(self.norm2(x)), approximate="tanh"))

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tokens, self.places = nn.Embedding(TOKENS, s.width), nn.Embedding(s.length, s.width)
            self.blocks = nn.ModuleList([Block() for _ in range(s.layers)])
            self.norm, self.head = nn.LayerNorm(s.width), nn.Linear(s.width, TOKENS)

        def forward(self, tokens: Any) -> Any:
            x = self.tokens(tokens) + self.places.weight
            for block in self.blocks:
                x = block(x)
            return self.head(self.norm(x))

    return Model()


def forward(xp: Any, p: dict, tokens: Any, s: Sizes) -> Any:
    """The model as a function of its weights, for jax, autograd and MLX."""
    d, (b, n) = s.width, tokens.shape
    banned = xp.array(np.triu(np.full((n, n), -1e30, np.float32), 1))

    def norm(name: str, x: Any) -> Any:
        c = x - xp.mean(x, axis=-1, keepdims=True)
        return c / xp.sqrt(xp.mean(c * c, axis=-1, keepdims=True) + 1e-5) * p[name + ".weight"] + p[name + ".bias"]

    def linear(name: str, x: Any) -> Any:
        return xp.matmul(x, p[name + ".weight"].T) + p[name + ".bias"]

    def softmax(z: Any) -> Any:
        e = xp.exp(z - xp.max(z, axis=-1, keepdims=True))
        return e / xp.sum(e, axis=-1, keepdims=True)

    def attend(q: Any, k: Any, v: Any) -> Any:
        return softmax(q @ xp.swapaxes(k, -1, -2) * (1 / math.sqrt(q.shape[-1])) + banned.astype(q.dtype)) @ v

    def gelu(x: Any) -> Any:
        return x * 0.5 * (xp.tanh((x + x * x * x * 0.044715) * math.sqrt(2 / math.pi)) + 1.0)

    x = p["tokens.weight"][tokens] + p["places.weight"]
    for i in range(s.layers):
        at = f"blocks.{i}."
        parts = linear(at + "qkv", norm(at + "norm1", x)).reshape(b, n, 3, s.heads, d // s.heads)
        q, k, v = (xp.swapaxes(parts[:, :, j], 1, 2) for j in range(3))
        x = x + linear(at + "out", xp.swapaxes(attend(q, k, v), 1, 2).reshape(b, n, d))
        x = x + linear(at + "down", gelu(linear(at + "up", norm(at + "norm2", x))))
    return linear("head", norm("norm", x))


def task(s: Sizes | None = None) -> training.Task:
    """The workload; on a GPU the large one."""
    large = sides.DEVICE[0] != "cpu"
    s = s or (Sizes(width=1024, heads=16, length=512) if large else Sizes())
    # AdamW divides by the root of a small number: what rounding left in a gradient near 0 is a whole step of the rate there
    return training.Task("transformer", *data(s), partial(make, s=s), partial(forward, s=s), adamw=True, bfloat16=large, rtol=0.2 if large else 1e-2)


def run(bench: Any) -> None:
    """All sides."""
    training.run(bench, task())
