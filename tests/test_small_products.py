"""Numba: many products of small matrices are loops of their own, and mean what BLAS's mean."""

from __future__ import annotations

import numpy as np
import pytest

import minidl as md


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_many_small_products_in_all_orders(dtype):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 3, 4)).astype(dtype), rng.normal(size=(40, 4, 2)).astype(dtype)
    x[0, 0, 0], x[1, 2, 1], x[2] = np.nan, np.inf, 0.0

    def both(x, y):
        out, pull = md.vjp(md.matmul, x, y)
        turned = md.swapaxes(md.matmul(md.swapaxes(y, 1, 2), md.swapaxes(x, 1, 2)), 1, 2)
        return out, turned, *pull(out), md.matmul(x, y[:, :, 0, None])

    with md.use_backend("numba"):
        out, turned, gx, gy, column = (t.numpy() for t in md.jit(both)(md.tensor(x), md.tensor(y)))
    with np.errstate(invalid="ignore"):
        want = x @ y
        tolerance = {"rtol": 1e-5 if dtype == "float32" else 1e-13, "atol": 1e-6 if dtype == "float32" else 1e-14}
        for a, b in ((out, want), (turned, want), (gx, want @ y.swapaxes(1, 2)), (gy, x.swapaxes(1, 2) @ want), (column, want[:, :, :1])):
            np.testing.assert_allclose(a, b, **tolerance)
