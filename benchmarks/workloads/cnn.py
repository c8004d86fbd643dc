"""cnn: one train step of the LeNet-like network (conv 3-6-16, 5x5, pooled, then 400-120-84-10) on 3x32x32, batch 32, SGD with momentum 0.9."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.workloads import training

BATCH = 32
SHAPES = {"conv1": (6, 3, 5, 5), "conv2": (16, 6, 5, 5), "fc1": (120, 400), "fc2": (84, 120), "fc3": (10, 84)}


def data() -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Weights in PyTorch's names and layout, inputs, labels."""
    rng = np.random.default_rng(0)
    weights = {}
    for name, shape in SHAPES.items():
        weights[f"{name}.weight"] = rng.normal(0, 1 / np.sqrt(np.prod(shape[1:])), shape).astype(np.float32)
        weights[f"{name}.bias"] = rng.normal(0, 0.1, shape[0]).astype(np.float32)
    return weights, rng.normal(size=(BATCH, 3, 32, 32)).astype(np.float32), rng.integers(0, 10, BATCH)


def make(nn: Any) -> Any:
    """The network, for torch.nn and minidl.nn: the same class text on either."""
    F = nn.functional

    class Net(nn.Module):
        def __init__(self) -> None:
            super(Net, self).__init__()  # noqa: UP008 (as the users of PyTorch write it)
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


def forward(jnp: Any, p: dict, x: Any) -> Any:
    """Raw jax, with lax's convolution and window reduction."""
    import jax

    for c in ("conv1", "conv2"):
        x = jax.lax.conv_general_dilated(x, p[f"{c}.weight"], (1, 1), "VALID", dimension_numbers=("NCHW", "OIHW", "NCHW"))
        x = jax.nn.relu(x + p[f"{c}.bias"][:, None, None])
        x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 1, 2, 2), (1, 1, 2, 2), "VALID")
    x = x.reshape(-1, 400)
    for f in ("fc1", "fc2"):
        x = jax.nn.relu(x @ p[f"{f}.weight"].T + p[f"{f}.bias"])
    return x @ p["fc3.weight"].T + p["fc3.bias"]


def keras() -> training.Side:
    """Keras, with channels last as its users have them; its flattened order is another, so fc1 is permuted there and back."""
    import keras

    t = task()
    L = keras.layers
    layers = [
        L.Conv2D(6, 5, activation="relu"), L.MaxPooling2D(2), L.Conv2D(16, 5, activation="relu"), L.MaxPooling2D(2), L.Flatten(),
        L.Dense(120, activation="relu"), L.Dense(84, activation="relu"), L.Dense(10),
    ]  # fmt: skip
    model = keras.Sequential([keras.Input((32, 32, 3)), *layers])
    named = dict(zip(SHAPES, (layer for layer in layers if layer.weights), strict=True))

    def there(name: str, w: np.ndarray) -> np.ndarray:
        if name.startswith("conv"):
            return w.transpose(2, 3, 1, 0)
        return w.reshape(120, 16, 5, 5).transpose(2, 3, 1, 0).reshape(400, 120) if name == "fc1" else w.T

    def back(name: str, w: np.ndarray) -> np.ndarray:
        if name.startswith("conv"):
            return w.transpose(3, 2, 0, 1)
        return w.reshape(5, 5, 16, 120).transpose(3, 2, 0, 1).reshape(120, 400) if name == "fc1" else w.T

    for name, layer in named.items():
        layer.set_weights([there(name, t.weights[f"{name}.weight"]), t.weights[f"{name}.bias"]])

    def parameters() -> list[Any]:
        return [a for name, layer in named.items() for w, b in [layer.get_weights()] for a in (back(name, w), b)]

    return training.keras_step(t, model, parameters, np.ascontiguousarray(t.x.transpose(0, 2, 3, 1)))


def patches(x: np.ndarray) -> np.ndarray:
    """[N, C, H, W] -> [N * h * w, C * 25]: every 5x5 window as a row."""
    windows = np.lib.stride_tricks.sliding_window_view(x, (5, 5), (2, 3))
    return windows.transpose(0, 2, 3, 1, 4, 5).reshape(-1, x.shape[1] * 25)


def gradients(p: dict, x: np.ndarray, y: np.ndarray) -> tuple[Any, dict]:
    """Forward and backward by hand: convolutions as matrix products over patches, pooling on a 2x2 reshape with the first maximum."""
    saved = []
    for c in ("conv1", "conv2"):
        w, rows, n, size = p[f"{c}.weight"], patches(x), x.shape[0], x.shape[2] - 4
        z = rows @ w.reshape(len(w), -1).T
        z += p[f"{c}.bias"]
        np.maximum(z, 0, out=z)
        half = size // 2
        z = z.reshape(n, half, 2, half, 2, len(w)).transpose(0, 5, 1, 3, 2, 4).reshape(n, len(w), half, half, 4)
        index = z.argmax(-1)[..., None]
        shape = x.shape
        x = np.take_along_axis(z, index, -1)[..., 0]
        saved.append((c, rows, shape, index, x))
    layers = [x.reshape(n, -1)]
    for f in ("fc1", "fc2", "fc3"):
        h = layers[-1] @ p[f"{f}.weight"].T + p[f"{f}.bias"]
        layers.append(np.maximum(h, 0) if f != "fc3" else h)
    loss, d = training.cross_entropy(layers.pop(), y)
    g = {}
    for f in ("fc3", "fc2", "fc1"):
        h = layers.pop()
        g[f"{f}.weight"], g[f"{f}.bias"] = d.T @ h, d.sum(0)
        d = d @ p[f"{f}.weight"]
        d *= h > 0
    for c, rows, shape, index, out in reversed(saved):
        n, o, half = out.shape[:3]
        dz = np.zeros((*out.shape, 4), np.float32)
        np.put_along_axis(dz, index, (d.reshape(out.shape) * (out > 0))[..., None], -1)
        dz = dz.reshape(n, o, half, half, 2, 2).transpose(0, 2, 4, 3, 5, 1).reshape(-1, o)
        w = p[f"{c}.weight"]
        g[f"{c}.weight"], g[f"{c}.bias"] = (dz.T @ rows).reshape(w.shape), dz.sum(0)
        if c == "conv2":
            cols = (dz @ w.reshape(o, -1)).reshape(n, 2 * half, 2 * half, *w.shape[1:])
            d = np.zeros(shape, np.float32)
            for i in range(5):
                for j in range(5):
                    d[:, :, i : i + 2 * half, j : j + 2 * half] += cols[..., i, j].transpose(0, 3, 1, 2)
    return loss, g


def task() -> training.Task:
    """The workload."""
    return training.Task("cnn", *data(), make, forward, gradients, (__name__, "keras"))


def run(bench: Any) -> None:
    """All sides; HIPS autograd and MLX as written for jax's convolution do not run."""
    training.run(bench, task(), ("HIPS autograd", "MLX"))
