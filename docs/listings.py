"""Writes docs/listings.md: what PyTorch or JAX gives for the usual first programs, and what minidl gives for the same program, data and seed.

    python docs/listings.py          needs torch and jax, and takes a few minutes

A program in PyTorch's manner is written once, as a function of the library: torch and minidl run the same text. One in JAX's manner likewise, as a
function of the array namespace, grad and jit. Weights are drawn by the peer and loaded by name, batches come in one order.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

import minidl as md
from minidl.data import digits

HERE = Path(__file__).parent
BACKENDS = ("numpy", "numba", "torch", "jax")
Result = dict[str, Any]


def torch_library() -> Any:
    """torch under the names that the programs use."""
    import torch
    import torch.nn.utils.prune
    import torch.utils.data

    return SimpleNamespace(
        nn=torch.nn, optim=torch.optim, data=torch.utils.data, tensor=torch.tensor, no_grad=torch.no_grad,
        argmax=lambda x: torch.argmax(x, 1), compile=lambda f: f,
        load=lambda net, state: net.load_state_dict({k: torch.tensor(v) for k, v in state.items()}), seed=torch.manual_seed,
    )  # fmt: skip


def minidl_library() -> Any:
    """minidl under the same names."""
    return SimpleNamespace(
        nn=md.nn, optim=md.optim, data=md.data, tensor=md.tensor, no_grad=md.no_grad, argmax=lambda x: md.argmax(x, axis=1), compile=md.jit,
        load=lambda net, state: net.load_state_dict({k: md.tensor(v) for k, v in state.items()}), seed=md.manual_seed,
    )  # fmt: skip


def numbers(t: Any) -> np.ndarray:
    """A tensor's values."""
    return np.asarray(t.detach().cpu().numpy() if hasattr(t, "cpu") else t)


# ---- in PyTorch's manner -------------------------------------------------------------------------------------------------------------------
def autograd(lib: Any, shared: Result) -> Result:
    """x and y with requires_grad, out = x + y, out.backward()."""
    x, y = lib.tensor([2.0], requires_grad=True), lib.tensor([2.0], requires_grad=True)
    (x + y).backward()
    return {"x.grad": numbers(x.grad), "y.grad": numbers(y.grad)}


def convolutional(lib: Any) -> Any:
    """The class Net."""
    nn = lib.nn
    F = nn.functional

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1 = nn.Conv2d(3, 6, 5)
            self.pool = nn.MaxPool2d(2, 2)
            self.conv2 = nn.Conv2d(6, 16, 5)
            self.fc1 = nn.Linear(16 * 5 * 5, 120)
            self.fc2 = nn.Linear(120, 84)
            self.fc3 = nn.Linear(84, 10)

        def forward(self, x: Any) -> Any:
            x = self.pool(F.relu(self.conv1(x)))
            x = self.pool(F.relu(self.conv2(x)))
            x = x.view(-1, 16 * 5 * 5)
            x = F.relu(self.fc1(x))
            x = F.relu(self.fc2(x))
            return self.fc3(x)

    return Net()


def fit(lib: Any, net: Any, data: list[Any], order: list[int], rate: float) -> np.ndarray:
    """Ten epochs of cross-entropy by SGD with momentum 0.9; the running loss of each, the batches of 32 in the given order."""
    loader = lib.data.DataLoader(lib.data.TensorDataset(*map(lib.tensor, data)), batch_size=32, sampler=order)
    criterion, optimizer = lib.nn.CrossEntropyLoss(), lib.optim.SGD(net.parameters(), lr=rate, momentum=0.9)
    net.train()

    def step(inputs: Any, labels: Any) -> Any:
        optimizer.zero_grad()
        loss = criterion(net(inputs), labels)
        loss.backward()
        optimizer.step()
        return loss

    step = lib.compile(step)
    return np.array([sum(step(inputs, labels).item() for inputs, labels in loader) / len(loader) for _ in range(10)])


def weights_of(net: Any, shared: Result, name: str, lib: Any) -> None:
    """The peer, which runs first, draws the weights; the others load them."""
    if name not in shared:
        shared[name] = {k: numbers(v).copy() for k, v in net.state_dict().items()}
    lib.load(net, shared[name])


def network(lib: Any, shared: Result) -> Result:
    """Net, not yet trained, on a batch of images."""
    lib.seed(0)
    net = convolutional(lib).double()
    weights_of(net, shared, "cnn", lib)
    with lib.no_grad():
        return {"scores": numbers(net(lib.tensor(shared["digits"][0][0][:64])))}


def prune_model(lib: Any, model: Any, target_size: int) -> Any:
    """Half of the weights of every Linear layer that is wider than target_size go, those of least size."""
    for module in model.modules():
        if isinstance(module, lib.nn.Linear):
            if module.weight.shape[0] > target_size:
                lib.nn.utils.prune.l1_unstructured(module, name="weight", amount=0.5)
    return model


def right(lib: Any, net: Any, x: np.ndarray, y: np.ndarray) -> float:
    """The share of examples whose label has the largest score."""
    with lib.no_grad():
        return float((numbers(lib.argmax(net(lib.tensor(x)))) == y).mean())


def cnn(lib: Any, shared: Result) -> Result:
    """The training of Net, then prune_model: with 128, which no layer is wider than, and with 100."""
    lib.seed(0)
    net = convolutional(lib).double()
    weights_of(net, shared, "cnn", lib)
    train, (tx, ty) = shared["digits"]
    losses = fit(lib, net, train, shared["order"], 0.01)
    net.eval()
    with lib.no_grad():
        out = numbers(net(lib.tensor(tx[:64])))
    found = {"loss of each epoch": losses, "scores after": out, "right": right(lib, net, tx, ty)}
    for size in (128, 100):
        prune_model(lib, net, size)
        layers = [m for m in net.modules() if isinstance(m, lib.nn.Linear)]
        found[f"weights left by prune_model(net, {size})"] = [np.count_nonzero(numbers(m.weight)) for m in layers]
    return {**found, "right after": right(lib, net, tx, ty)}


def text(lib: Any, shared: Result) -> Result:
    """The text classifier, with a mean over the words, which the listing lacks: on documentation of Python."""
    lib.seed(0)
    nn = lib.nn

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(10000, 100)
            self.fc1 = nn.Linear(100, 128)
            self.fc2 = nn.Linear(128, 10)

        def forward(self, x: Any) -> Any:
            x = self.embedding(x).mean(1)
            x = nn.functional.relu(self.fc1(x))
            return self.fc2(x)

    net = Net().double()
    weights_of(net, shared, "text", lib)
    x, y = shared["words"]
    n = len(x) * 4 // 5
    return {"loss of each epoch": fit(lib, net, [x[:n], y[:n]], list(range(n)), 0.05), "right": right(lib, net, x[n:], y[n:])}


# ---- in JAX's manner -----------------------------------------------------------------------------------------------------------------------
def jax_library() -> Any:
    """jax under the names that the programs use."""
    import jax
    import jax.numpy as jnp

    def in_64_bits(f: Any, x: np.ndarray) -> np.ndarray:
        with jax.enable_x64(True):
            return np.asarray(f(jnp.asarray(x, jnp.float64)))

    names = {n: getattr(jax, n) for n in ("jit", "grad", "value_and_grad", "vmap", "jvp", "random")}
    return SimpleNamespace(xp=jnp, backward=lambda f, x: jax.grad(lambda x: f(x).sum())(x), in_64_bits=in_64_bits, **names)


def minidl_transforms() -> Any:
    """minidl under the same names."""

    def backward(f: Any, x: Any) -> Any:
        x = x.requires_grad_()
        f(x).sum().backward()
        return x.grad

    names = {n: getattr(md, n) for n in ("jit", "grad", "value_and_grad", "vmap", "jvp", "random")}
    return SimpleNamespace(xp=md, backward=backward, in_64_bits=lambda f, x: numbers(f(md.asarray(x, dtype=md.float64))), **names)


def key(lib: Any, seed: int) -> Any:
    """PRNGKey(seed)."""
    return (lib.random.PRNGKey if hasattr(lib.random, "PRNGKey") else lib.random.key)(seed)


def squares(lib: Any, shared: Result) -> Result:
    """@jit f(x) = x * x, and out.backward(), which JAX does not have: the peer is its grad."""
    f = lib.jit(lambda x: x * x)
    x = lib.random.normal(key(lib, 0), (2, 2))
    return {"out": numbers(f(x)), "x.grad": numbers(lib.backward(f, x))}


def transforms(lib: Any, shared: Result) -> Result:
    """jvp, vmap and jit of one function, and 64 bits."""
    f = lib.jit(lambda x: (lib.xp.sin(x) * x).sum())
    x = lib.random.normal(key(lib, 0), (3, 2))
    slope = lib.jvp(f, (x,), (lib.xp.ones_like(x),))[1]
    return {"jvp": numbers(slope), "vmap of grad": numbers(lib.vmap(lib.grad(f))(x)), "in 64 bits": lib.in_64_bits(f, np.arange(3.0) / 7)}


def neural_net(lib: Any, inputs: Any, kernel: Any) -> Any:
    """Three products with one kernel, added up, twice."""
    dot = lib.xp.matmul
    hidden = dot(inputs, kernel) + dot(inputs, kernel) + dot(inputs, kernel)
    return dot(hidden, kernel) + dot(hidden, kernel) + dot(hidden, kernel)


def per_example(lib: Any, shared: Result) -> Result:
    """@vmap train_step(inputs, labels), with value_and_grad of a function where the listing has it of a value."""
    kernel = lib.random.normal(key(lib, 2), (2, 2)) * 0.3
    model = lib.jit(lambda inputs: neural_net(lib, inputs, kernel))

    def train_step(inputs: Any, labels: Any) -> Any:
        loss, grads = lib.value_and_grad(lambda inputs: lib.xp.mean((model(inputs) - labels) ** 2))(inputs)
        return model(inputs), loss, grads

    inputs, labels = lib.random.normal(key(lib, 1), (32, 2)), lib.xp.ones((32, 2))
    return dict(zip(("outputs", "loss", "grads"), map(numbers, lib.vmap(train_step)(inputs, labels)), strict=True))


def mlp(lib: Any, shared: Result) -> Result:
    """The functional network: random keys, a jitted loss, value_and_grad in the kernel, an update that goes down the gradient, 100 steps."""
    first, second = lib.random.split(key(lib, 0), 2)
    inputs, labels = lib.random.normal(key(lib, 1), (32, 2)), lib.xp.ones((32, 2))
    kernel = lib.random.normal(key(lib, 2), (2, 2)) * 0.3

    @lib.jit
    def loss_fn(kernel: Any, inputs: Any, labels: Any) -> Any:
        return lib.xp.mean((neural_net(lib, inputs, kernel) - labels) ** 2)

    def update(kernel: Any, grads: Any) -> Any:
        return kernel - 0.001 * grads

    losses = []
    for _ in range(100):
        loss, grads = lib.value_and_grad(loss_fn)(kernel, inputs, labels)
        kernel = update(kernel, grads)
        losses.append(float(loss))
    keys = np.stack([numbers(lib.random.bits(k, (4,))).astype(np.float64) for k in (first, second)])
    return {"bits of the keys": keys, "first and last loss": [losses[0], losses[-1]], "kernel": numbers(kernel)}


# ---- the table -----------------------------------------------------------------------------------------------------------------------------
PROGRAMS: tuple[tuple[str, str, Callable[[Any, Result], Result], str], ...] = (
    ("3.2", "jvp, vmap, jit and 64 bits", transforms, "JAX"),
    ("4.1", "the class `Net`", network, "PyTorch"),
    ("4.1", "a jitted network, `@vmap` of a train step (repaired)", per_example, "JAX"),
    ("4.2", "`out = x + y`, `out.backward()`", autograd, "PyTorch"),
    ("4.2", "`out.backward()` through a jitted function (JAX has no backward: its grad)", squares, "JAX"),
    ("4.3, 5.2, 6.1", "training `Net`: DataLoader of 32, CrossEntropyLoss, SGD with momentum 0.9, 10 epochs; 6.3: `prune_model`", cnn, "PyTorch"),
    ("4.3, 5.2, 6.1, 6.2, 6.3", "training a functional network: keys, jitted loss, value_and_grad, update, 100 steps (repaired)", mlp, "JAX"),
    ("6.2", "training the text classifier: Embedding(10000, 100), Linear, ReLU, Linear, SGD, 10 epochs", text, "PyTorch"),
)


HEAD = """# The usual first programs, in PyTorch or JAX and in minidl

Written by `python docs/listings.py` with torch {}, jax {} and NumPy {}. The sections are those of the comparison of PyTorch and JAX that
minidl answers to; every listing of it has a row, and listings that are alike share one. The program, the data, the weights or the seed at the start
and the order of batches are the same; with minidl the training step is jitted. Programs in PyTorch's manner train in float64, on the digits that
minidl ships in the shape of CIFAR-10's images and on documentation of Python; those in JAX's manner compute in float32, and draw their numbers from
keys of their own library. What does not run as it is printed there is repaired in the same way for both. A difference is the largest one, relative to
the largest entry of the result.

| sections | program | result | peer | {} |"""


def paragraphs() -> tuple[np.ndarray, np.ndarray]:
    """Words of Python's documentation of files and of numbers, as numbers below 10,000, and which of the two they are about."""
    import math
    import os
    import shutil
    import statistics

    rows, labels = [], []
    for label, modules in enumerate(((os, shutil), (math, statistics))):
        for module in modules:
            for value in vars(module).values():
                words = re.findall(r"[a-z]+", str(getattr(value, "__doc__", "") or "").lower())
                rows += [words[i : i + 16] for i in range(0, len(words) - 15, 16)][:8]
                labels += [label] * (len(rows) - len(labels))
    known = {w: i for i, w in enumerate(sorted({w for r in rows for w in r}))}
    order = np.random.default_rng(0).permutation(len(rows))
    return np.array([[known[w] for w in r] for r in rows])[order], np.array(labels)[order]


def shown(value: Any) -> str:
    """A result, short."""
    flat = np.asarray(value, np.float64).ravel()
    return ", ".join(f"{v:.6g}" for v in flat[:3]) + (", …" if flat.size > 3 else "")


def apart(a: Any, b: Any) -> float:
    """The largest difference, relative to the largest entry."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return float(abs(a - b).max() / max(abs(b).max(), 1e-30))


def main() -> None:
    """Run every program with the peer and on every backend, and write the table."""
    import jax
    import torch

    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    shared: Result = {
        "digits": [[numbers(t) for t in data.tensors] for data in digits(md.float64)], "words": paragraphs(),
        "order": rng.permutation(1440).tolist(),
    }  # fmt: skip
    lines = [HEAD.format(torch.__version__.split("+")[0], jax.__version__, np.__version__, " | ".join(f"difference, {b}" for b in BACKENDS))]
    lines.append("|---|---|---|---|" + "---|" * len(BACKENDS))
    for sections, title, program, peer in PROGRAMS:
        want = program(torch_library() if peer == "PyTorch" else jax_library(), shared)
        found = []
        for backend in BACKENDS:
            with md.use_backend(backend):
                found.append(program(minidl_library() if peer == "PyTorch" else minidl_transforms(), shared))
        for i, (name, value) in enumerate(want.items()):
            first = f"| {sections} | {title} ({peer}) " if i == 0 else "| | "
            cells = [f"{d:.1g}" if (d := apart(f[name], value)) else "0" for f in found]
            lines.append(f"{first}| {name} | {shown(value)} | {' | '.join(cells)} |")
        print(title)
    (HERE / "listings.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
