"""What mlp, cnn, resnet and transformer share: a train step on fixed weights and data, for each side, and the answer that proves them the same.

The answer is the loss of each of the first steps and every parameter and buffer after them. A step is cross-entropy, its gradients and an update by
SGD with momentum or by AdamW.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from benchmarks import sides
from benchmarks.timing import Side

STEPS, LR, MOMENTUM = 4, 0.01, 0.9
BETAS, EPS, DECAY = (0.9, 0.999), 1e-8, 0.01


@dataclass(frozen=True)
class Task:
    """One training workload: PyTorch's names and layout of the weights, the network as modules and as a function of the weights."""

    label: str
    weights: dict[str, np.ndarray]
    x: np.ndarray
    y: np.ndarray
    make: Callable[[Any], Any]  # of torch.nn or minidl.nn
    forward: Callable[..., Any] | None = None  # of jax.numpy, autograd.numpy or mlx.core; with buffers it takes them and gives them back besides
    gradients: Callable[..., tuple] | None = None  # by hand
    keras: tuple[str, ...] = ()  # the module and function of the Keras side
    adamw: bool = False
    bfloat16: bool = False  # weights in bfloat16 on torch, jax and minidl
    rtol: float = 1e-4
    buffers: dict[str, np.ndarray] = field(default_factory=dict)  # what a forward pass updates

    @property
    def rate(self) -> float:
        """The learning rate."""
        return 1e-3 if self.adamw else LR


def item(loss: Any) -> float:
    """The loss as a Python number, which also waits for the step."""
    return float(loss.item())


def answer(step: Callable[[], Any], parameters: Callable[[], list[Any]], item: Callable[[Any], float] = item) -> list[Any]:
    """Losses of the first steps, then the parameters."""
    losses = [item(step()) for _ in range(STEPS)]
    return [np.array(losses), *parameters()]


def step_of(library: Any, net: Any, optimizer: Any, task: Task, keep: bool = True) -> Callable[[Any, Any], Any]:
    """The step as a PyTorch user writes it, for torch and minidl. keep: gradients stay until the next step drops them, else they go at the end."""

    def step(inputs: Any, labels: Any) -> Any:
        if keep:
            optimizer.zero_grad()
        out = net(inputs)
        loss = library.nn.functional.cross_entropy(out.reshape((-1, out.shape[-1])), labels)
        loss.backward()
        optimizer.step()
        if not keep:
            optimizer.zero_grad()
        return loss

    return step


def by_name(net: Any, task: Task) -> list[np.ndarray]:
    """The parameters and buffers in the order of the task's."""
    named = {**dict(net.named_parameters()), **dict(net.named_buffers())}
    return values(named[k] for k in (*task.weights, *task.buffers))


def values(parameters: Any) -> list[np.ndarray]:
    """Tensors of torch or minidl as NumPy arrays of their own."""
    return [np.array(p.detach().cpu().float().numpy() if hasattr(p, "cpu") else p.detach().numpy(), np.float32) for p in parameters]


def minidl_step(task: Task, way: sides.Way, keep: bool = True) -> tuple[Any, Any, Callable[[], Any]]:
    """Network, optimizer and step in minidl; jitted: the same function under md.jit."""
    import minidl as md

    with way.inside():
        net = task.make(md.nn)
        net.load_state_dict({k: md.tensor(v) for k, v in (task.weights | task.buffers).items()}, strict=not task.buffers)
        if task.bfloat16:
            net.to(md.bfloat16)
        inputs, labels = md.tensor(task.x), md.tensor(task.y)
        if task.adamw:
            optimizer: Any = md.optim.AdamW(net.parameters(), lr=task.rate, weight_decay=DECAY)
        else:
            optimizer = md.optim.SGD(net.parameters(), lr=task.rate, momentum=MOMENTUM)
    f = way.jit(step_of(md, net, optimizer, task, keep))

    return net, optimizer, lambda: f(inputs, labels)


def minidl_side(task: Task, way: sides.Way) -> Side:
    """The step in minidl."""
    net, _, run = minidl_step(task, way)

    def sync(loss: Any) -> None:
        """A jitted step is one program; of an eager one the backward pass and the update are still to come when the loss is there."""
        item(loss)
        if not way.jitted:
            sides.wait(list(net.parameters()))

    return Side(run, lambda: answer(run, lambda: by_name(net, task)), sync)


def torch_side(task: Task, compiled: bool, mode: str | None = None) -> Side:
    """PyTorch with its own modules and (fused) optimizer; compiled: the network and the loss under torch.compile."""
    import torch

    net = task.make(torch.nn)
    net.load_state_dict({k: torch.tensor(v) for k, v in (task.weights | task.buffers).items()}, strict=not task.buffers)
    net.to(sides.DEVICE[0], torch.bfloat16 if task.bfloat16 else torch.float32)
    inputs, labels = sides.torch_array(task.x), sides.torch_array(task.y)
    if inputs.is_floating_point() and task.bfloat16:
        inputs = inputs.to(torch.bfloat16)
    if task.adamw:
        optimizer: Any = torch.optim.AdamW(net.parameters(), lr=task.rate, weight_decay=DECAY, fused=True)
    else:
        optimizer = torch.optim.SGD(net.parameters(), lr=task.rate, momentum=MOMENTUM, fused=True)

    def loss_of(inputs: Any, labels: Any) -> Any:
        out = net(inputs)
        return torch.nn.functional.cross_entropy(out.reshape(-1, out.shape[-1]), labels)

    loss_of = torch.compile(loss_of, mode=mode) if compiled else loss_of

    def run() -> Any:
        optimizer.zero_grad()
        loss = loss_of(inputs, labels)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return Side(run, lambda: answer(run, lambda: by_name(net, task)), item)


def update(xp: Any, task: Task, p: dict, g: dict, state: dict) -> tuple[dict, dict]:
    """New weights and optimizer state, as a function; state has a dict per moment and the step count."""
    if not task.adamw:
        v = {k: MOMENTUM * state["v"][k] + g[k] for k in p}
        return {k: p[k] - task.rate * v[k] for k in p}, {"v": v}
    t = state["t"] + 1
    m = {k: BETAS[0] * state["m"][k] + (1 - BETAS[0]) * g[k] for k in p}
    v = {k: BETAS[1] * state["v"][k] + (1 - BETAS[1]) * g[k] * g[k] for k in p}
    size, scale = task.rate / (1 - BETAS[0] ** t), xp.sqrt(1 - BETAS[1] ** t)
    new = {k: p[k] * (1 - task.rate * DECAY) - (size * m[k] / (xp.sqrt(v[k]) / scale + EPS)).astype(p[k].dtype) for k in p}
    return new, {"m": m, "v": v, "t": t}


def start(task: Task, zeros: Callable[[np.ndarray], Any], number: Callable[[float], Any]) -> dict:
    """The optimizer state that training begins with."""
    moments = {k: {n: zeros(w) for n, w in task.weights.items()} for k in (("m", "v") if task.adamw else ("v",))}
    return {**moments, "t": number(0.0)} if task.adamw else moments


def jax_side(task: Task) -> Side:
    """One jax.jit of the step, with donated state."""
    import jax
    import jax.numpy as jnp

    dtype = jnp.bfloat16 if task.bfloat16 else jnp.float32

    def loss_of(p: dict, buffers: dict, x: Any, y: Any) -> Any:
        z, buffers = task.forward(jnp, p, x, buffers) if buffers else (task.forward(jnp, p, x), buffers)
        return -jnp.take_along_axis(jax.nn.log_softmax(z.reshape(-1, z.shape[-1])), y[:, None], axis=1).mean(), buffers

    @partial(jax.jit, donate_argnums=(0, 1, 2))
    def step(p: dict, s: dict, buffers: dict, x: Any, y: Any) -> tuple:
        (loss, buffers), g = jax.value_and_grad(loss_of, has_aux=True)(p, buffers, x, y)
        return *update(jnp, task, p, g, s), buffers, loss

    p, buffers = ({k: jnp.array(v, dtype) for k, v in given.items()} for given in (task.weights, task.buffers))
    state = [p, start(task, lambda w: jnp.zeros(w.shape, dtype), jnp.float32), buffers]
    inputs, labels = jnp.asarray(task.x), jnp.asarray(task.y)

    def run() -> Any:
        *state[:], loss = step(*state, inputs, labels)
        return loss

    def reached() -> list[np.ndarray]:
        after = state[0] | state[2]
        return [np.array(after[k], np.float32) for k in (*task.weights, *task.buffers)]

    return Side(run, lambda: answer(run, reached), item)


def mlx_side(task: Task) -> Side:
    """MLX: one mx.compile of the step."""
    import mlx.core as mx
    import mlx.nn as nn

    mx.set_default_device(mx.cpu)

    def loss_of(p: dict, x: Any, y: Any) -> Any:
        z = task.forward(mx, p, x)
        return nn.losses.cross_entropy(z.reshape(-1, z.shape[-1]), y, reduction="mean")

    @mx.compile
    def step(p: dict, s: dict, x: Any, y: Any) -> tuple:
        loss, g = mx.value_and_grad(loss_of)(p, x, y)
        return *update(mx, task, p, g, s), loss

    state = [{k: mx.array(v) for k, v in task.weights.items()}, start(task, lambda w: mx.zeros(w.shape), mx.array)]
    inputs, labels = mx.array(task.x), mx.array(task.y)

    def run() -> Any:
        state[0], state[1], loss = step(*state, inputs, labels)
        mx.eval(state, loss)
        return loss

    return Side(run, lambda: answer(run, lambda: [np.array(state[0][k]) for k in task.weights]), item)


def numpy_side(task: Task, gradients: Callable[..., tuple] | None = None) -> Side:
    """`gradients(p, x, y) -> (loss, dict)` with the update in place."""
    p = {k: v.copy() for k, v in task.weights.items()}
    s = start(task, np.zeros_like, float)
    gradients = gradients or task.gradients
    assert gradients is not None

    def step() -> Any:
        loss, g = gradients(p, task.x, task.y)
        if task.adamw:
            s["t"] += 1
        for k in p:
            if task.adamw:
                adamw_in_place(p[k], g[k], s["m"][k], s["v"][k], s["t"], task.rate)
            else:
                s["v"][k] *= MOMENTUM
                s["v"][k] += g[k]
                p[k] -= task.rate * s["v"][k]
        return loss

    return Side(step, lambda: answer(step, lambda: [p[k].copy() for k in p]))


def adamw_in_place(p: np.ndarray, g: np.ndarray, m: np.ndarray, v: np.ndarray, t: float, rate: float) -> None:
    """AdamW as a careful NumPy user writes it."""
    m *= BETAS[0]
    m += (1 - BETAS[0]) * g
    v *= BETAS[1]
    v += (1 - BETAS[1]) * (g * g)
    p *= 1 - rate * DECAY
    p -= m / (np.sqrt(v) / float(np.sqrt(1 - BETAS[1] ** t)) + EPS) * (rate / (1 - BETAS[0] ** t))


def hips_autograd(task: Task) -> Side:
    """HIPS autograd with the update by hand."""
    import autograd
    import autograd.numpy as anp

    rows = np.arange(len(task.y))

    def loss(p: dict, x: Any, y: Any) -> Any:
        z = task.forward(anp, p, x)
        z = z.reshape(-1, z.shape[-1])
        z = z - anp.max(z, axis=1, keepdims=True)
        return anp.mean(anp.log(anp.sum(anp.exp(z), axis=1)) - z[rows, y])

    return numpy_side(task, autograd.value_and_grad(loss))


def keras_side(module: str, name: str, backend: str) -> Side:
    """Keras in a process of its own, on one of its backends."""
    from benchmarks.remote import remote

    return remote(f"{module}:{name}", env={"KERAS_BACKEND": backend})


def keras_step(task: Task, model: Any, parameters: Callable[[], list[Any]], inputs: np.ndarray) -> Side:
    """train_on_batch of a compiled model: called in the process of its own."""
    import keras

    if task.adamw:
        optimizer: Any = keras.optimizers.AdamW(task.rate, weight_decay=DECAY, epsilon=EPS)
    else:
        optimizer = keras.optimizers.SGD(task.rate, momentum=MOMENTUM)
    model.compile(optimizer=optimizer, loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))

    def step() -> float:
        model.reset_metrics()  # what is returned is a running mean else
        return float(model.train_on_batch(inputs, task.y))

    return Side(step, lambda: answer(step, parameters, float))


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


def builders(bench: Any, task: Task, eager: bool = True) -> sides.Builders:
    """The sides of a training workload: peers, then the ways of minidl."""
    out: sides.Builders = {}
    if task.gradients is not None:
        out["NumPy by hand"] = partial(numpy_side, task)
    out["torch eager"] = partial(torch_side, task, False)
    out["torch.compile"] = partial(torch_side, task, True)
    if sides.DEVICE[0] != "cpu":
        out["torch.compile max-autotune"] = partial(torch_side, task, True, "max-autotune")
    if task.forward is not None:
        out["jax.jit"] = partial(jax_side, task)
        if sides.DEVICE[0] == "cpu":
            out["HIPS autograd"] = partial(hips_autograd, task)
            out["MLX"] = partial(mlx_side, task)
    for backend in ("jax", "torch") if task.keras else ():
        out[f"Keras/{backend}"] = partial(keras_side, *task.keras, backend)
    for way in sides.ways(bench, eager):
        out[way.label] = partial(minidl_side, task, way)
    return out


def run(bench: Any, task: Task, without: tuple[str, ...] = ()) -> None:
    """Time a training workload; without: sides that its functions do not run on."""
    found = {label: build for label, build in builders(bench, task).items() if label not in without}
    if task.bfloat16:
        found = {label: partial(moved, build, task) for label, build in found.items()}
        sides.compare(bench, task.label, found, task.rtol, 60.0, 0.03, apart=by_norm)
    else:
        sides.compare(bench, task.label, found, task.rtol, 60.0, 0.03)


def moved(build: Callable[[], Side], task: Task) -> Side:
    """The side with another answer: the losses, and how the parameters have moved, as one vector. In half precision single elements go the other way,
    where a gradient is nothing but rounding, as that of a bias of keys is."""
    side = build()
    exact, start = side.answer, np.concatenate([w.ravel() for w in task.weights.values()])

    def answer() -> list[Any]:
        losses, *parameters = exact()
        return [losses, np.concatenate([np.ravel(p) for p in parameters]) - start]

    side.answer = answer
    return side


def by_norm(a: np.ndarray, b: np.ndarray) -> float:
    """The length of the difference, relative to that of the second."""
    return float(np.linalg.norm(a - b) / max(np.linalg.norm(b), 1e-30)) if a.shape == b.shape else float("inf")
