"""lstm: a recurrent layer of width 128 over 64 steps of a batch of 32, forward and backward: a scan, where the cost of one small step shows.

torch's users call its native LSTM; torch.compile leaves that as it is, and unrolling 64 steps takes minutes, so there is no such side.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from benchmarks import sides
from benchmarks.timing import Side

STEPS, BATCH, WIDTH = 64, 32, 128


def data(steps: int = STEPS, width: int = WIDTH) -> tuple[np.ndarray, ...]:
    """Inputs [steps, batch, width], and the weights in PyTorch's layout: gates i, f, g, o stacked."""
    rng = np.random.default_rng(0)
    w = lambda *shape: (rng.normal(size=shape) / np.sqrt(width)).astype(np.float32)
    return rng.normal(size=(steps, BATCH, width)).astype(np.float32), w(4 * width, width), w(4 * width, width), w(4 * width)


def cell(xp: Any, sigmoid: Any, h: Any, c: Any, z: Any, u: Any) -> tuple:
    """One step, from the input's part of the gates."""
    n = c.shape[-1]
    z = z + h @ u
    i, f, g, o = (z[:, k * n : (k + 1) * n] for k in range(4))
    c = sigmoid(f) * c + sigmoid(i) * xp.tanh(g)
    return sigmoid(o) * xp.tanh(c), c


def looped(xp: Any, x: Any, w: Any, u: Any, b: Any) -> Any:
    """A Python loop."""
    zs, h = x @ w.T + b, np.zeros((x.shape[1], u.shape[1]), np.float32)
    c, total, ut = h, 0.0, u.T
    for k in range(x.shape[0]):
        h, c = cell(xp, lambda v: 1.0 / (1.0 + xp.exp(-v)), h, c, zs[k], ut)
        total = total + (h * h).mean()
    return total / x.shape[0]


def with_minidl(md: Any, x: Any, w: Any, u: Any, b: Any) -> Any:
    """minidl's scan."""
    start = md.zeros_like(x[0, :, :1]) * md.zeros_like(u[:1])

    def step(carry: Any, z: Any) -> Any:
        h, c = cell(md, md.sigmoid, *carry, z, u.T)
        return (h, c), h

    _, hs = md.scan(step, (start, start), x @ w.T + b)
    return (hs * hs).mean()


def with_jax(jnp: Any, x: Any, w: Any, u: Any, b: Any) -> Any:
    """jax.lax.scan."""
    import jax

    start = jnp.zeros((x.shape[1], u.shape[1]), x.dtype)

    def step(carry: Any, z: Any) -> Any:
        h, c = cell(jnp, jax.nn.sigmoid, *carry, z, u.T)
        return (h, c), h

    _, hs = jax.lax.scan(step, (start, start), x @ w.T + b)
    return (hs * hs).mean()


def torch_side(arrays: Any) -> Side:
    """torch.nn.LSTM."""
    import torch

    x, w, u, b = (sides.torch_array(a) for a in arrays)
    net = torch.nn.LSTM(x.shape[2], u.shape[1]).to(x.device)
    with torch.no_grad():
        for p, value in zip((net.weight_ih_l0, net.weight_hh_l0, net.bias_ih_l0, net.bias_hh_l0), (w, u, b, torch.zeros_like(b)), strict=True):
            p.copy_(value)
    net.bias_hh_l0.requires_grad_(False)
    leaves = [net.weight_ih_l0, net.weight_hh_l0, net.bias_ih_l0]

    def step() -> Any:
        net.zero_grad()
        hs, _ = net(x)
        loss = (hs * hs).mean()
        loss.backward()
        return loss

    return Side(step, lambda: [step().detach().cpu().numpy(), *(p.grad.cpu().numpy() for p in leaves)], lambda _: sides.synchronize())


def run(bench: Any) -> None:
    """All sides; MLX and tinygrad would unroll."""
    arrays = data()
    also = {"jax": with_jax, "minidl": with_minidl, "torch": None, "tinygrad": None, "mlx": None}
    builders = sides.functional(bench, looped, arrays, (1, 2, 3), None, also)
    sides.compare(bench, "lstm", {"torch eager": partial(torch_side, arrays), **builders}, 1e-3)
