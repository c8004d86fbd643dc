"""Gated activations in 16 bits: value, first and second derivative are those of float64 within a rounding, on every backend."""

from __future__ import annotations

import numpy as np
import pytest

import minidl as md

F = md.nn.functional


@pytest.mark.parametrize("jitted", [False, True])
@pytest.mark.parametrize("dtype, half", [(md.float16, 2.0**-11), (md.bfloat16, 2.0**-8)], ids=["float16", "bfloat16"])
@pytest.mark.parametrize("name", ["silu", "mish", "hardswish", "hardsigmoid"])
def test_derivatives_are_rounded_once(backend, name, dtype, half, jitted):
    f, x = getattr(F, name), md.asarray(np.linspace(-9.0, 9.0, 499)).to(md.float32).to(dtype)
    first = md.grad(lambda x: f(x).sum())
    for h in (f, first, md.grad(lambda x: first(x).sum())):
        wanted = h(x.to(md.float64)).numpy()
        got = (md.jit(h) if jitted else h)(x)
        assert got.dtype is dtype
        assert np.all(np.abs(got.to(md.float64).numpy() - wanted) <= 1.1 * half * np.maximum(np.abs(wanted), 0.05))
