"""What mlp and cnn share: a train step on fixed weights and data, for each side, and the answer that proves the sides do the same work.

The answer is the loss of each of the first steps and every parameter after them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from benchmarks.timing import Side

STEPS, LR, MOMENTUM = 4, 0.01, 0.9


def item(loss: Any) -> float:
    """The loss as a Python number, which also waits for the step."""
    return float(loss.item())


def answer(step: Callable[[], Any], parameters: Callable[[], list[Any]], item: Callable[[Any], float]) -> list[Any]:
    """Losses of the first steps, then the parameters."""
    losses = [item(step()) for _ in range(STEPS)]
    return [np.array(losses), *parameters()]


def minidl_side(make: Callable[[Any], Any], weights: dict[str, np.ndarray], x: np.ndarray, y: np.ndarray, backend: str, jitted: bool) -> Side:
    """The step as a PyTorch user writes it; jitted: the same function under md.jit."""
    import minidl as md

    with md.use_backend(backend):
        net = make(md.nn)
        net.load_state_dict({k: md.tensor(v) for k, v in weights.items()})
        inputs, labels = md.tensor(x), md.tensor(y)
        optimizer = md.optim.SGD(net.parameters(), lr=LR, momentum=MOMENTUM)

    def step(inputs: Any, labels: Any) -> Any:
        optimizer.zero_grad()
        loss = md.nn.functional.cross_entropy(net(inputs), labels)
        loss.backward()
        optimizer.step()
        return loss

    f = md.jit(step) if jitted else step

    def run() -> Any:
        return f(inputs, labels)

    return Side(run, lambda: answer(run, lambda: [p.detach().numpy().copy() for p in net.parameters()], item), item)


def torch_side(make: Callable[[Any], Any], weights: dict[str, np.ndarray], x: np.ndarray, y: np.ndarray) -> Side:
    """PyTorch eager with its own modules and optimizer."""
    import torch

    net = make(torch.nn)
    net.load_state_dict({k: torch.tensor(v) for k, v in weights.items()})
    inputs, labels = torch.tensor(x), torch.tensor(y)
    optimizer = torch.optim.SGD(net.parameters(), lr=LR, momentum=MOMENTUM)

    def step() -> Any:
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(net(inputs), labels)
        loss.backward()
        optimizer.step()
        return loss

    return Side(step, lambda: answer(step, lambda: [p.detach().numpy().copy() for p in net.parameters()], item), item)


def jax_side(forward: Callable[..., Any], weights: dict[str, np.ndarray], x: np.ndarray, y: np.ndarray) -> Side:
    """One jax.jit of the step, with donated state."""
    import jax
    import jax.numpy as jnp

    def loss_of(p: dict, x: Any, y: Any) -> Any:
        return -jnp.take_along_axis(jax.nn.log_softmax(forward(p, x)), y[:, None], axis=1).mean()

    @partial(jax.jit, donate_argnums=(0, 1))
    def step(p: dict, v: dict, x: Any, y: Any) -> tuple:
        loss, g = jax.value_and_grad(loss_of)(p, x, y)
        v = {k: MOMENTUM * v[k] + g[k] for k in v}
        return {k: p[k] - LR * v[k] for k in p}, v, loss

    state = [{k: jnp.array(v) for k, v in weights.items()}, {k: jnp.zeros_like(v) for k, v in weights.items()}]
    inputs, labels = jnp.asarray(x), jnp.asarray(y)

    def run() -> Any:
        state[0], state[1], loss = step(*state, inputs, labels)
        return loss

    return Side(run, lambda: answer(run, lambda: [np.asarray(state[0][k]).copy() for k in weights], item), item)


def numpy_side(gradients: Callable[..., tuple], weights: dict[str, np.ndarray], x: np.ndarray, y: np.ndarray) -> Side:
    """`gradients(p, x, y) -> (loss, dict)` with SGD momentum in place."""
    p = {k: v.copy() for k, v in weights.items()}
    v = {k: np.zeros_like(w) for k, w in weights.items()}

    def step() -> Any:
        loss, g = gradients(p, x, y)
        for k in p:
            v[k] *= MOMENTUM
            v[k] += g[k]
            p[k] -= LR * v[k]
        return loss

    return Side(step, lambda: answer(step, lambda: [p[k].copy() for k in p], item))


def cross_entropy(z: np.ndarray, y: np.ndarray) -> tuple[Any, np.ndarray]:
    """Mean cross-entropy of logits and its gradient."""
    rows = np.arange(len(y))
    z = z - z.max(1, keepdims=True)
    e = np.exp(z)
    s = e.sum(1, keepdims=True)
    loss = (np.log(s[:, 0]) - z[rows, y]).mean()
    e /= s
    e[rows, y] -= 1
    e /= len(y)
    return loss, e


def run(bench: Any, label: str, peers: dict[str, Callable[[], Side]], minidl: Callable[[str, bool], Side], goals: tuple, rtol: float) -> None:
    """Time a training workload: peers, then minidl eager and jitted on each backend."""
    builders = dict(peers)
    for b in bench.backends:
        if b != "numba":
            builders[f"minidl {b} eager"] = partial(minidl, b, False)
        builders[f"minidl {b} jit"] = partial(minidl, b, True)
    times = bench.measure(label, builders, rtol, 60.0, 0.03)
    for side, peer, goal in goals:
        bench.ratio(label, times, side, peer, goal)
    bench.each(label, times)
