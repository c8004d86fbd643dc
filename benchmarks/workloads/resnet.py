"""resnet: one train step of a small residual network (batch normalisation, 32 and 64 channels) on 3x32x32, batch 16, SGD with momentum 0.9.

A stem, a block at 32x32 and one that halves the sides and doubles the channels, then the mean of each channel and a linear layer. The running
statistics of the batch normalisation are part of the work and of the answer (K. He et al., Deep residual learning for image recognition, 2016).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.workloads import training

BATCH, EPS, RATE = 16, 1e-5, 0.1
#: Convolutions by name: channels of the result and of the input, side of the window, stride; their batch normalisation has the number of `conv`.
CONVS = {
    "conv1": (32, 3, 3, 1),
    "block1.conv1": (32, 32, 3, 1), "block1.conv2": (32, 32, 3, 1),
    "block2.conv1": (64, 32, 3, 2), "block2.conv2": (64, 64, 3, 1), "block2.conv3": (64, 32, 1, 2),
}  # fmt: skip


def data() -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """Weights in PyTorch's names and layout, images, labels, running statistics."""
    rng = np.random.default_rng(0)
    weights, buffers = {}, {}
    for name, (o, i, k, _) in CONVS.items():
        weights[f"{name}.weight"] = rng.normal(0, np.sqrt(2 / (i * k * k)), (o, i, k, k)).astype(np.float32)
        norm = name.replace("conv", "bn")
        weights |= {f"{norm}.weight": rng.uniform(0.5, 1.5, o).astype(np.float32), f"{norm}.bias": rng.normal(0, 0.1, o).astype(np.float32)}
        buffers |= {f"{norm}.running_mean": np.zeros(o, np.float32), f"{norm}.running_var": np.ones(o, np.float32)}
    weights |= {"fc.weight": rng.normal(0, 0.1, (10, 64)).astype(np.float32), "fc.bias": np.zeros(10, np.float32)}
    return weights, rng.normal(size=(BATCH, 3, 32, 32)).astype(np.float32), rng.integers(0, 10, BATCH), buffers


def make(nn: Any) -> Any:
    """The network, for torch.nn and minidl.nn: the same class text on either."""
    F = nn.functional

    def conv(name: str) -> Any:
        o, i, k, stride = CONVS[name]
        return nn.Conv2d(i, o, k, stride, k // 2, bias=False)

    class Block(nn.Module):
        def __init__(self, name: str) -> None:
            super().__init__()
            self.conv1, self.conv2 = conv(f"{name}.conv1"), conv(f"{name}.conv2")
            channels = self.conv1.out_channels
            self.bn1, self.bn2 = nn.BatchNorm2d(channels), nn.BatchNorm2d(channels)
            self.changes = f"{name}.conv3" in CONVS
            if self.changes:
                self.conv3, self.bn3 = conv(f"{name}.conv3"), nn.BatchNorm2d(channels)

        def forward(self, x: Any) -> Any:
            out = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
            return F.relu(out + (self.bn3(self.conv3(x)) if self.changes else x))

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1, self.bn1 = conv("conv1"), nn.BatchNorm2d(32)
            self.block1, self.block2 = Block("block1"), Block("block2")
            self.fc = nn.Linear(64, 10)

        def forward(self, x: Any) -> Any:
            x = F.relu(self.bn1(self.conv1(x)))
            return self.fc(self.block2(self.block1(x)).mean((2, 3)))

    return Net()


def forward(jnp: Any, p: dict, x: Any, buffers: dict) -> tuple[Any, dict]:
    """Raw jax: the scores, and the running statistics after them."""
    import jax

    new: dict = {}

    def part(x: Any, name: str) -> Any:
        *_, k, stride = CONVS[name]
        pad = (k // 2, k // 2)
        x = jax.lax.conv_general_dilated(x, p[f"{name}.weight"], (stride, stride), (pad, pad), dimension_numbers=("NCHW", "OIHW", "NCHW"))
        norm, n = name.replace("conv", "bn"), x.size // x.shape[1]
        mean, var = jnp.mean(x, (0, 2, 3)), jnp.var(x, (0, 2, 3))
        for kind, value in (("mean", mean), ("var", var * (n / (n - 1)))):
            at = f"{norm}.running_{kind}"
            new[at] = (1 - RATE) * buffers[at] + RATE * value
        scale = jax.lax.rsqrt(var + EPS) * p[f"{norm}.weight"]
        return (x - mean[:, None, None]) * scale[:, None, None] + p[f"{norm}.bias"][:, None, None]

    x = jax.nn.relu(part(x, "conv1"))
    for block in ("block1", "block2"):
        out = part(jax.nn.relu(part(x, f"{block}.conv1")), f"{block}.conv2")
        x = jax.nn.relu(out + (part(x, f"{block}.conv3") if f"{block}.conv3" in CONVS else x))
    return jnp.mean(x, (2, 3)) @ p["fc.weight"].T + p["fc.bias"], new


def keras() -> training.Side:
    """Keras, with channels last as its users have them; its running variance is the biased one, made comparable in the answer."""
    import keras

    t, L = task(), keras.layers
    convs = {name: L.Conv2D(o, k, stride, use_bias=False) for name, (o, _, k, stride) in CONVS.items()}
    norms = {name: L.BatchNormalization(momentum=1 - RATE, epsilon=EPS) for name in CONVS}

    def part(x: Any, name: str) -> Any:
        padded = L.ZeroPadding2D(1)(x) if CONVS[name][2] == 3 else x
        return norms[name](convs[name](padded))

    given = keras.Input((32, 32, 3))
    x = L.ReLU()(part(given, "conv1"))
    for block in ("block1", "block2"):
        out = part(L.ReLU()(part(x, f"{block}.conv1")), f"{block}.conv2")
        x = L.ReLU()(L.Add()([out, part(x, f"{block}.conv3") if f"{block}.conv3" in CONVS else x]))
    fc = L.Dense(10)
    model = keras.Model(given, fc(L.GlobalAveragePooling2D()(x)))
    for name in CONVS:
        norm = name.replace("conv", "bn")
        convs[name].set_weights([t.weights[f"{name}.weight"].transpose(2, 3, 1, 0)])
        statistics = (t.buffers[f"{norm}.running_{k}"] for k in ("mean", "var"))
        norms[name].set_weights([t.weights[f"{norm}.weight"], t.weights[f"{norm}.bias"], *statistics])
    fc.set_weights([t.weights["fc.weight"].T, t.weights["fc.bias"]])

    def parameters() -> list[Any]:
        found, statistics = [], []
        for name, layer in norms.items():
            weight, bias, mean, var = layer.get_weights()
            n, old = BATCH * int(np.prod(layer.input.shape[1:3])), (1 - RATE) ** training.STEPS
            found += [convs[name].get_weights()[0].transpose(3, 2, 0, 1), weight, bias]
            statistics += [mean, old + (var - old) * (n / (n - 1))]
        w, b = fc.get_weights()
        return [*found, w.T, b, *statistics]

    return training.keras_step(t, model, parameters, np.ascontiguousarray(t.x.transpose(0, 2, 3, 1)))


def task() -> training.Task:
    """The workload."""
    weights, x, y, buffers = data()
    return training.Task("resnet", weights, x, y, make, forward, keras=(__name__, "keras"), buffers=buffers, rtol=1e-3)


def run(bench: Any) -> None:
    """All sides; HIPS autograd and MLX as written for jax's convolution do not run."""
    training.run(bench, task(), ("HIPS autograd", "MLX"))
