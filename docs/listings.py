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

    return SimpleNamespace(
        nn=torch.nn, optim=torch.optim, tensor=torch.tensor, no_grad=torch.no_grad, argmax=lambda x: torch.argmax(x, 1), compile=lambda f: f,
        load=lambda net, state: net.load_state_dict({k: torch.tensor(v) for k, v in state.items()}), seed=torch.manual_seed,
    )  # fmt: skip


def minidl_library() -> Any:
    """minidl under the same names."""
    return SimpleNamespace(
        nn=md.nn, optim=md.optim, tensor=md.tensor, no_grad=md.no_grad, argmax=lambda x: md.argmax(x, axis=1), compile=md.jit,
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
    """The class Net of the listing."""
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


def fit(lib: Any, net: Any, batches: list[Any], epochs: int, rate: float) -> np.ndarray:
    """Cross-entropy, SGD with momentum 0.9; the running loss of each epoch."""
    criterion, optimizer = lib.nn.CrossEntropyLoss(), lib.optim.SGD(net.parameters(), lr=rate, momentum=0.9)

    def step(inputs: Any, labels: Any) -> Any:
        optimizer.zero_grad()
        loss = criterion(net(inputs), labels)
        loss.backward()
        optimizer.step()
        return loss

    step = lib.compile(step)
    return np.array([sum(step(lib.tensor(x), lib.tensor(y)).item() for x, y in batches) / len(batches) for _ in range(epochs)])


def weights_of(net: Any, shared: Result, name: str, lib: Any) -> None:
    """The peer, which runs first, draws the weights; the others load them."""
    if name not in shared:
        shared[name] = {k: numbers(v).copy() for k, v in net.state_dict().items()}
    lib.load(net, shared[name])


def cnn(lib: Any, shared: Result) -> Result:
    """The convolutional network, two epochs; then prune_model, which halves by L1 the weights of every wide Linear layer."""
    lib.seed(0)
    net = convolutional(lib).double()
    weights_of(net, shared, "cnn", lib)
    (x, y), (tx, ty) = shared["digits"]
    losses = fit(lib, net, [(x[i : i + 32], y[i : i + 32]) for i in range(0, 1440, 32)], 2, 0.01)
    with lib.no_grad():
        out = net(lib.tensor(tx[:64]))
        for module in net.modules():
            if isinstance(module, lib.nn.Linear) and module.weight.shape[0] > 100:
                lib.nn.utils.prune.l1_unstructured(module, name="weight", amount=0.5)
        right = float((numbers(lib.argmax(net(lib.tensor(tx)))) == ty).mean())
    left = numbers(net.fc1.weight_mask).sum()
    return {"loss of each epoch": losses, "scores after": numbers(out), "weights that are left": left, "then right": right}


def text(lib: Any, shared: Result) -> Result:
    """Embedding(10000, 100), the mean over the words, Linear, cross-entropy, SGD: three epochs on documentation of Python."""
    lib.seed(0)
    nn = lib.nn

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(10000, 100)
            self.fc = nn.Linear(100, 2)

        def forward(self, x: Any) -> Any:
            return self.fc(self.embedding(x).mean(1))

    net = Net().double()
    weights_of(net, shared, "text", lib)
    x, y = shared["words"]
    return {"loss of each epoch": fit(lib, net, [(x[i : i + 32], y[i : i + 32]) for i in range(0, len(x) - 31, 32)], 3, 0.1)}


# ---- in JAX's manner -----------------------------------------------------------------------------------------------------------------------
def jax_library() -> Any:
    """jax under the names that the programs use."""
    import jax
    import jax.numpy as jnp

    names = {n: getattr(jax, n) for n in ("jit", "grad", "value_and_grad", "vmap", "jvp", "random")}
    return SimpleNamespace(xp=jnp, array=jnp.asarray, **names)


def minidl_transforms() -> Any:
    """minidl under the same names."""
    names = {n: getattr(md, n) for n in ("jit", "grad", "value_and_grad", "vmap", "jvp", "random")}
    return SimpleNamespace(xp=md, array=md.tensor, **names)


def squares(lib: Any, shared: Result) -> Result:
    """@jit f(x) = x * x and its gradient; vmap and jvp besides."""
    x = lib.array(shared["x"])
    f = lib.jit(lambda x: (x * x).sum())
    slope = lib.jvp(f, (x,), (lib.xp.ones_like(x),))[1]
    return {"gradient": numbers(lib.grad(f)(x)), "of each row": numbers(lib.vmap(lib.grad(f))(x)), "jvp": numbers(slope)}


def mlp(lib: Any, shared: Result) -> Result:
    """The functional network, repaired: one kernel (2, 2) used six times, value_and_grad of a jitted loss, 100 steps."""
    xp = lib.xp

    def neural_net(inputs: Any, kernel: Any) -> Any:
        hidden = xp.matmul(inputs, kernel) + xp.matmul(inputs, kernel) + xp.matmul(inputs, kernel)
        return xp.matmul(hidden, kernel) + xp.matmul(hidden, kernel) + xp.matmul(hidden, kernel)

    @lib.jit
    def loss_fn(kernel: Any, inputs: Any, labels: Any) -> Any:
        return xp.mean((neural_net(inputs, kernel) - labels) ** 2)

    kernel, inputs, labels = (lib.array(shared[k]) for k in ("kernel", "inputs", "labels"))
    losses = []
    for _ in range(100):
        loss, grads = lib.value_and_grad(loss_fn)(kernel, inputs, labels)
        kernel = kernel - 0.001 * grads
        losses.append(float(loss))
    return {"loss of the last step": losses[-1], "kernel": numbers(kernel)}


def keys(lib: Any, shared: Result) -> Result:
    """PRNGKey, split, bits, uniform, normal."""
    key = (lib.random.PRNGKey if hasattr(lib.random, "PRNGKey") else lib.random.key)(0)
    first, second = lib.random.split(key, 2)
    drawn = {"uniform": numbers(lib.random.uniform(first, (1000,))), "normal": numbers(lib.random.normal(second, (1000,)))}
    return {"bits": numbers(lib.random.bits(first, (1000,))).astype(np.float64), **drawn}


# ---- the table -----------------------------------------------------------------------------------------------------------------------------
PROGRAMS: tuple[tuple[str, str, Callable[[Any, Result], Result], str], ...] = (
    ("4.2", "autograd in PyTorch: `out.backward()`", autograd, "PyTorch"),
    ("4.2, 3.2", "jit, grad, vmap and jvp of x * x in JAX", squares, "JAX"),
    ("3.2, 4.3", "random keys: split, bits, uniform, normal", keys, "JAX"),
    ("4.1, 4.3, 5.2, 6.x", "functional network, jitted loss, value_and_grad, 100 steps (repaired: the listing does not run)", mlp, "JAX"),
    ("4.1, 4.3, 5.2, 6.1, 6.3", "CNN `Net`, DataLoader, CrossEntropyLoss, SGD with momentum; `prune_model`", cnn, "PyTorch"),
    ("6.2", "text classification: Embedding(10000, 100), Linear, cross-entropy, SGD", text, "PyTorch"),
)


HEAD = """# The usual first programs, in PyTorch or JAX and in minidl

Written by `python docs/listings.py` with torch {}, jax {} and NumPy {}. The program, the data, the weights at the start and the order of batches
are the same; with minidl the training step is jitted. Programs in PyTorch's manner train in float64, those in JAX's manner compute in float32. The
sections are those of the comparison of PyTorch and JAX that minidl answers to. A difference is the largest one, relative to the largest entry of
the result.

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
        "x": rng.normal(size=(2, 2)).astype(np.float32),
        "inputs": rng.normal(size=(32, 2)).astype(np.float32), "labels": np.ones((32, 2), np.float32),
        "kernel": rng.normal(size=(2, 2)).astype(np.float32) * 0.3,
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
