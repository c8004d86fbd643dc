"""jax's programs for the CPU keep the channels of images last between convolutions: the same values, and nothing is copied on the way."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("jax")

import minidl as md
from minidl.nn import functional as F

RNG = np.random.default_rng(0)
X = RNG.normal(size=(2, 4, 8, 8)).astype(np.float32)
W, V = (RNG.normal(size=(6, i, 3, 3)).astype(np.float32) for i in (4, 6))


def conv(x, w, **how):
    return md.conv(x, w, padding=1, **how)


def own_order(y):
    """An image that no convolution made."""
    return md.sin(md.arange(float(y.size), dtype=y.dtype)).reshape(y.shape)


BETWEEN = {
    "single elements": lambda y: F.relu(y) * 2.0,
    "a number for each channel": lambda y: y * md.arange(1.0, 7.0, dtype=y.dtype).reshape((6, 1, 1)),
    "an image of its own order": lambda y: y * md.flip(own_order(y), axis=0),
    "batch normalisation": lambda y: F.batch_norm(y, None, None, training=True),
    "sums of places": lambda y: y * y.mean((2, 3), keepdims=True) + y.sum(2)[:, :, None, :],
    "sums of channels": lambda y: y * y.sum(1, keepdims=True) + y.mean(1)[:, None],
    "sums of the batch": lambda y: y * md.sum(y, axis=0) + y.amax((0, 2, 3))[:, None, None],
    "largest pooled": lambda y: F.max_pool2d(y, 2),
    "largest of windows that overlap": lambda y: F.max_pool2d(y, 3, 2, 1),
    "largest of each row": lambda y: F.max_pool2d(y, (1, 8)),
    "largest of a large window": lambda y: y + F.max_pool2d(y, 8),
    "largest along the last axis": lambda y: md.max_pool(y, (2,)),
    "means pooled": lambda y: F.avg_pool2d(y, 2),
    "means of windows that overlap": lambda y: F.avg_pool2d(y, 3, 2, 1),
    "pixels twice": lambda y: F.interpolate(y, scale_factor=2),
    "joined and cut": lambda y: md.concat([y, y * y], axis=1)[:, 3:9, 1:7:2, ::-1],
    "joined with what has its own order": lambda y: md.concat([y, own_order(y)], axis=1)[:, 3:9],
    "padded": lambda y: md.pad(y, ((0, 0), (0, 0), (1, 2), (0, 3)), value=2.0)[1:],
    "one softmax a place": lambda y: F.softmax(y, 1),
    "flattened and back": lambda y: y.reshape((2, -1)).reshape((2, 6, 8, 8)),
    "places in a row": lambda y: (y.reshape((2, 6, 64)) + 1.0).reshape((2, 6, 4, 2, 8)).sum(3),
    "more axes than an image": lambda y: (y[:, :, :, None] * y.mean((2, 3), keepdims=True)[0, :, 0].reshape((6, 1, 1))[0]).sum(3),
}  # fmt: skip


def loss(between, x, w, v):
    y = between(conv(x, w))
    z = conv(y, v)
    return (z * z).mean(), (y, z)


@pytest.mark.parametrize("name", BETWEEN)
def test_values_and_gradients(name):
    found = {}
    for backend in ("numpy", "jax"):
        args = [md.asarray(a, backend=backend) for a in (X, W, V)]
        f = md.value_and_grad(lambda *args: loss(BETWEEN[name], *args), argnums=(0, 1, 2), has_aux=True)
        found[backend] = [t.detach().numpy() for t in md.tree.leaves((md.jit(f) if backend == "jax" else f)(*args))]
    for a, b in zip(found["jax"], found["numpy"], strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5 * np.abs(b).max())


@pytest.mark.parametrize("rank", [3, 5])
@pytest.mark.parametrize("how", [{}, {"stride": 2}, {"dilation": 2}])
def test_signals_and_volumes(rank, how):
    shape = (5, 4, 6)[: rank - 2]
    arrays = [RNG.normal(size=s).astype(np.float32) for s in ((2, 3, *shape), (4, 3, *(3,) * (rank - 2)), (4, 4, *(1,) * (rank - 2)))]

    def f(x, w, v):
        return (md.sin(md.conv(F.relu(conv(x, w, **how)), v)) ** 2).sum()

    found = [
        [t.numpy() for t in (md.jit(g) if b == "jax" else g)(*(md.asarray(a, backend=b) for a in arrays))]
        for b in ("numpy", "jax") for g in [md.grad(f, argnums=(0, 1, 2))]
    ]  # fmt: skip
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5 * np.abs(b).max())


def test_between_convolutions_nothing_is_turned():
    """Once at the image and at the cotangent that comes from the linear layer, for both of which the order of the graph is given."""
    from minidl.arrays.windows.on_jax import channels_last

    def f(x, w, v, u):
        y = F.max_pool2d(F.relu(F.batch_norm(conv(x, w), None, None, training=True)), 2)
        return (F.avg_pool2d(F.relu(conv(y, v)), 2).reshape((2, -1)) @ u).sum()

    u = RNG.normal(size=(24, 3)).astype(np.float32)
    graph = md.trace(md.grad(f, argnums=(1, 2, 3)))(*map(md.tensor, (X, W, V, u)))
    turned = channels_last(graph, True)
    large = [e for e in turned.equations if e.primitive.name == "permute" and len(e.inputs[0].shape) > 2 and e.inputs[0].nbytes > 6 * 8]
    assert len(large) == 3, turned  # the image, what the linear layer reads and what it gives back
    assert channels_last(graph, False) is graph
    plain = md.trace(lambda x: md.sin(x))(md.tensor(X))
    assert channels_last(plain, True) is plain
