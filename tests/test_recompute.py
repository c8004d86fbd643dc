"""Random small networks whose values are read again late: each compiled program is complete, and computes what the eager operations do."""

from __future__ import annotations

import functools
import importlib

import numpy as np
import pytest

import minidl as md
from minidl.fusion import demanded, regions
from minidl.graph import Var
from minidl.lowering import expand
from minidl.nn import functional as F
from minidl.passes import simplify
from minidl.rewrites.regions.on_numpy import recompute

blocks = importlib.import_module("minidl.rewrites.loops.on_numpy")
KERNELS = importlib.import_module("minidl.backends.numpy_backend").KERNELS
STARTS = (lambda z: md.square(md.exp(z)) + 1.0, md.softmax, F.gelu, md.tanh)


def network(seed):
    """A loss of x, a weight, and the weights of two norms of one tensor; chains of products stand between what is made and what reads it late."""
    rng = np.random.default_rng(seed)
    steps = [(str(rng.choice(["norms", "norms", "softmax", "gelu", "gate"])), *map(int, rng.integers(0, 9, 2))) for _ in range(rng.integers(1, 4))]

    def loss(x, w, g, h):
        def far(a, n):
            return functools.reduce(md.matmul, [w] * n, a)

        values = [x]
        for name, i, j in steps:
            a, b = values[-1 - i % len(values)], values[-1 - j % len(values)]
            if name == "norms":
                z = STARTS[i % 4](a)
                p = far(md.matmul(w, z), 10 * (j % 2) + 1)
                m, n = md.layer_norm(p * z, g), md.layer_norm(p * z, h)
                q = far(m + n, 10 * (j % 3 > 0) + 1)
                values.append(m * q + n * md.square(q) + p)
            elif name == "softmax":
                values.append(md.softmax(a) * b)
            elif name == "gelu":
                values.append(F.gelu(a) + b)
            else:
                values.append(far(md.tanh(a), 2) * b)
        return md.mean(values[-1] * values[-2])

    return loss, md.value_and_grad(loss, argnums=(0, 1, 2, 3))


def arguments(n, seed=0):
    rng = np.random.default_rng(seed)
    return [md.asarray(rng.normal(size=shape) * scale, "float64") for shape, scale in (((n, n), 1), ((n, n), n**-0.5), ((n,), 1), ((n,), 1))]


@pytest.mark.parametrize("seed", range(0, 36, 2))
def test_every_value_is_made_before_it_is_read(seed):
    for f in network(seed):
        graph = expand(simplify(md.trace(f)(*arguments(16))), keep=KERNELS.keys() - {"softmax"})
        how = {"reductions": blocks.REDUCTIONS, "terminal": blocks.TERMINAL, "rowwise": blocks.ROWWISE, "alone": blocks.several}
        done = set(graph.inputs)
        for item in recompute(regions(graph, blocks.elementwise, **how), graph, blocks.elementwise):
            assert done.issuperset(v for v in item.inputs if isinstance(v, Var))
            done.update(item.outputs)
        assert done.issuperset(v for v in graph.outputs if isinstance(v, Var))


@pytest.mark.parametrize(("backend", "n"), [("numpy", 192), ("numba", 16)])
@pytest.mark.parametrize(("seed", "which"), [(30, 0), (32, 1)])
def test_compiled_networks_compute_what_eager_ones_do(backend, n, seed, which):
    f = network(seed)[which]
    with md.use_backend(backend):
        args = arguments(n)
        for got, want in zip(md.tree.leaves(md.jit(f)(*args)), md.tree.leaves(f(*args)), strict=True):
            want = want.numpy()
            np.testing.assert_allclose(got.numpy(), want, rtol=1e-8, atol=1e-8 * np.abs(want).max())


def test_what_waits_in_a_circle_is_refused():
    with pytest.raises(AssertionError, match=r"demanded: what 'a' reads waits for 'a' itself, in a circle"):
        demanded("abc", {"a": "b", "b": "c", "c": "a"}.__getitem__)
    assert demanded("abcd", {"a": "bc", "b": "d", "c": "bd", "d": ""}.__getitem__) == ["d", "b", "c", "a"]
