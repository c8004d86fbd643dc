"""Numba: from sixteen rows on triangular systems and Cholesky factors are BLAS's and LAPACK's, in the order of rows, and fail as small ones do."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import minidl as md

CASES = list(itertools.product((False, True), repeat=3))


@pytest.mark.parametrize("dtype", ["float32", "complex128"])
@pytest.mark.parametrize("columns", [1, 3])
def test_a_triangular_system_reads_its_triangle_only(dtype, columns):
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 17, 17)), rng.normal(size=(2, 17, columns))
    if dtype == "complex128":
        a, b = a + 1j * rng.normal(size=a.shape), b + 1j * rng.normal(size=b.shape)
    a = (a / 17 + 4 * np.eye(17)).astype(dtype)
    solve = md.linalg.triangular_solve
    with md.use_backend("numba"):
        f = md.jit(lambda a, c, b: [solve(a if low else c, b, lower=low, transpose=turned, unit=unit) for low, turned, unit in CASES])
        nan = np.full_like(a, np.nan)
        outs = f(*map(md.tensor, (np.tril(a) + np.triu(nan, 1), np.triu(a) + np.tril(nan, -1), b.astype(dtype))))
    for x, (low, turned, unit) in zip(outs, CASES, strict=True):
        m = np.tril(a) if low else np.triu(a)
        m = m - m * np.eye(17) + np.eye(17) if unit else m
        np.testing.assert_allclose(x.numpy(), np.linalg.solve(m.swapaxes(-1, -2) if turned else m, b), rtol=1e-4, atol=1e-5)


def test_a_matrix_without_a_factor_is_nan_and_its_neighbours_are_not():
    a = np.random.default_rng(1).normal(size=(4, 18, 18))
    a = a @ a.swapaxes(-1, -2) + np.eye(18)
    right = np.linalg.cholesky(a)
    a[1, 4, 4], a[2, 3, 3], a[3, 5, 5] = -5.0, np.nan, np.inf
    a[0, 0, 5] = np.nan  # above the diagonal, where nobody looks
    with md.use_backend("numba"):
        got = md.jit(md.linalg.cholesky)(md.tensor(a)).numpy()
    np.testing.assert_allclose(got[0], right[0], rtol=1e-5, atol=1e-6)
    assert np.isnan(got[1:3]).all()
    np.testing.assert_allclose(got[3], np.linalg.cholesky(a[3]), rtol=1e-5, atol=1e-6)
