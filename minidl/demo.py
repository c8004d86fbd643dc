"""Train a LeNet-like network on 1,797 real scans of handwritten digits, on any backend, eagerly and under jit, and compare the numbers.

The training step is written once, as a PyTorch user writes it; one seed gives every run the same network and the same order of batches.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import minidl as md
import minidl.nn as nn
import minidl.nn.functional as F
from minidl import optim
from minidl.columns import columns
from minidl.data import DataLoader, digits

EPOCHS, BATCH, RATE, SEED = 20, 32, 0.01, 0


class Net(nn.Module):
    """Two convolutions, each followed by relu and max pooling, and three fully connected layers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 5)
        self.pool = nn.MaxPool2d(2, 2)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(16 * 5 * 5, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, 10)

    def forward(self, x: md.Tensor) -> md.Tensor:
        """Scores [N, 10] of images [N, 3, 32, 32]."""
        x = self.pool(F.relu(self.conv1(x)))
        x = self.pool(F.relu(self.conv2(x)))
        x = x.view(-1, 16 * 5 * 5)
        x = F.relu(self.fc1(x))
        x = F.relu(self.fc2(x))
        return self.fc3(x)


@dataclass
class Result:
    """What one run measured."""

    backend: str
    mode: str
    losses: list[float] = field(default_factory=list)  # mean over the steps of each epoch
    accuracy: float = 0.0
    seconds: list[float] = field(default_factory=list)  # of each step
    gradients: dict[str, np.ndarray] = field(default_factory=dict)  # of the first step

    def difference(self, reference: dict[str, np.ndarray]) -> float:
        """The largest difference of a gradient from the reference, relative to the largest entry of that parameter's gradient."""
        return float(np.max([np.abs(g - reference[n]).max() / np.abs(reference[n]).max() for n, g in self.gradients.items()]))  # nan where one is


def network(dtype: str) -> Net:
    """The network with the initial values of the seed, which are float32 numbers for every dtype."""
    md.manual_seed(SEED)
    net = Net()
    net.to(md.dtypes.canonical(dtype))
    return net


def batches(dataset: Any) -> DataLoader:
    """The training batches, in an order that depends on the seed alone."""
    return DataLoader(dataset, batch_size=BATCH, shuffle=True, generator=md.random.key(SEED))


def training_step(net: Net, jit: bool) -> Callable[[md.Tensor, md.Tensor], md.Tensor]:
    """One step of SGD with momentum; the same function text eagerly and compiled."""
    criterion = nn.CrossEntropyLoss()
    optimizer = optim.SGD(net.parameters(), lr=RATE, momentum=0.9)

    def step(x: md.Tensor, y: md.Tensor) -> md.Tensor:
        optimizer.zero_grad()
        loss = criterion(net(x), y)
        loss.backward()
        optimizer.step()
        return loss

    return md.jit(step) if jit else step


def gradients(net: Net) -> dict[str, np.ndarray]:
    """The gradients of all parameters by name, in double precision."""
    return {n: p.grad.numpy().astype(np.float64) for n, p in net.named_parameters() if p.grad is not None}


def train(backend: str, mode: str, epochs: int, dtype: str, steps: int | None = None, progress: Callable[..., Any] | None = None) -> Result:
    """Train on one backend in one mode; `progress` wraps the iteration over all steps (tqdm does)."""
    result = Result(backend, mode)
    with md.use_backend(backend):
        train_set, test_set = digits(dtype)
        net, loader = network(dtype), batches(train_set)
        step = training_step(net, mode == "jit")
        per_epoch = min(len(loader), steps or len(loader))
        bar = progress(total=epochs * per_epoch, desc=f"{backend} {mode}", unit="step") if progress else None
        for _ in range(epochs):
            total = 0.0
            for _, (x, y) in zip(range(per_epoch), loader, strict=False):
                begin = time.perf_counter()
                total += step(x, y).item()
                result.seconds.append(time.perf_counter() - begin)
                if not result.gradients:
                    result.gradients = gradients(net)
                if bar is not None:
                    bar.update()
            result.losses.append(total / per_epoch)
            if bar is not None:
                bar.set_postfix(loss=f"{result.losses[-1]:.4f}")
        if bar is not None:
            bar.close()
        net.eval()
        with md.no_grad():
            images, labels = test_set.tensors
            result.accuracy = float(md.mean((md.argmax(net(images), axis=1) == labels).to(md.float64)).item())
    return result


def reference() -> dict[str, np.ndarray]:
    """The first step's gradients on NumPy in float64."""
    with md.use_backend("numpy"):
        net = network("float64")
        x, y = next(iter(batches(digits("float64")[0])))
        F.cross_entropy(net(x), y).backward()
        return gradients(net)


def table(results: list[Result], exact: dict[str, np.ndarray]) -> str:
    """One column per run: losses by epoch, accuracy, time, distance from the reference."""
    rows = [["", *(f"{r.backend} {r.mode}" for r in results)]]
    for i in range(len(results[0].losses)):
        rows.append([f"loss, epoch {i + 1}", *(f"{r.losses[i]:.8f}" for r in results)])
    first = results[0].losses
    apart = [max(abs(a - b) / abs(b) for a, b in zip(r.losses, first, strict=True)) for r in results]
    rows.append(["losses vs first column", *(f"{v:.1e}" for v in apart)])
    rows.append(["test accuracy", *(f"{r.accuracy:.2%}" for r in results)])
    rows.append(["first step, ms", *(f"{r.seconds[0] * 1e3:.1f}" for r in results)])
    rows.append(["other steps, ms (median)", *(f"{statistics.median(r.seconds[1:] or r.seconds) * 1e3:.2f}" for r in results)])
    rows.append(["gradient vs NumPy float64", *(f"{r.difference(exact):.1e}" for r in results)])
    lines = columns(rows, left=1)
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def run(backend: str | None = None, mode: str = "both", epochs: int = EPOCHS, dtype: str = "float32", steps: int | None = None) -> int:
    """Train every chosen backend in every chosen mode with a progress bar, print the table, and say how to get what is missing."""
    from tqdm import tqdm

    usable = [name for name, state in md.backends().items() if state is True]
    missing = {name: state for name, state in md.backends().items() if state is not True}
    chosen = usable if backend == "all" else [backend or md.zeros(()).backend]
    for name in chosen:
        if name in missing:
            print(f"The {name} backend cannot be used: {missing[name]}")
            return 1
    modes = ["eager", "jit"] if mode == "both" else [mode]
    train_set, test_set = digits()
    print(
        f"{len(train_set)} scans to train on, {len(test_set)} to test; {dtype}, batches of {BATCH}, SGD with lr {RATE} and momentum 0.9\n\n{Net()}\n"
    )
    results = [train(name, m, epochs, dtype, steps, tqdm) for name in chosen for m in modes]
    print(f"\n{table(results, reference())}\n")
    print("losses: largest relative difference; gradient: largest difference of the first step's, relative to the parameter's largest entry")
    others = [name for name in usable if name not in chosen]
    if others:
        print(f"Also installed: {', '.join(others)}. Run them with --backend all.")
    for name, how in missing.items():
        print(f"Not here: the {name} backend ({how})")
    return 0
