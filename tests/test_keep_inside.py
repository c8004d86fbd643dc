"""PyTorch: the derivative of clip over many elements is one kernel, and the same to the last bit, nan and infinities included."""

from __future__ import annotations

import numpy as np
import pytest

import minidl as md

torch = pytest.importorskip("torch")
F = md.nn.functional


def gradient(f, x, g):
    return md.vjp(f, x)[1](g)[0]


@pytest.mark.parametrize("special", [False, True])
@pytest.mark.parametrize("dtype", [md.float32, md.float64, md.bfloat16])
def test_derivatives_of_clips_keep_every_bit(dtype, special):
    rng = np.random.default_rng(0)
    x, g = rng.choice([-7.0, -1.0, -0.0, 0.0, 0.5, 1.0, 3.0, 6.0, 9.0], 5000), rng.choice([1.0, -0.0, 2.5, np.nan, np.inf], 5000)
    if special:
        x[::7], x[1::7], x[2::7] = np.nan, np.inf, -np.inf
    with md.use_backend("torch"):
        x, g = (md.tensor(a).to(dtype) for a in (x, g))
        functions = [F.relu6, lambda x: md.clip(x, -1.0, 1.0), lambda x: md.clip(x, -md.inf, 3.0), lambda x: md.clip(x, 1.0, md.inf), F.hardsigmoid]
        functions.append(lambda x: md.where((x > 0.5) & (x < 0.25), x, 0.0))  # nothing lies there
        functions.append(lambda x: md.where((x > 0.5) & (x + 1.0 < 4.0), x, 0.0))  # two arrays
        for f in functions:
            small = md.concat([gradient(f, x[i : i + 100], g[i : i + 100]) for i in range(0, 5000, 100)])
            large = md.jit(lambda x, g: gradient(f, x, g))(x, g)  # noqa: B023
            a, b = (t.to(md.float64).numpy() for t in (small, large))
            assert np.array_equal(a, b, equal_nan=True) and np.array_equal(np.signbit(a), np.signbit(b))


def test_what_was_given_is_not_written_over():
    with md.use_backend("torch"):
        x, g = md.tensor(np.linspace(-2.0, 8.0, 5000, dtype=np.float32)), md.ones(5000)
        f = md.jit(lambda x, g: (gradient(F.relu6, x, g), x + 1.0))
        first, _ = f(x, g)
        kept = first.numpy().copy()
        f(x * 3.0, g * 2.0)
        assert np.array_equal(first.numpy(), kept) and (g.numpy() == 1).all() and x.numpy()[0] == -2
