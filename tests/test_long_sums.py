"""Sums of very many elements keep their digits, in every dtype, over every axis, and where many updates meet in one place."""

from __future__ import annotations

import numpy as np
import pytest

import minidl as md
from minidl.backends import get

NUMPY = get("numpy")


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16", "complex64", "int8", "uint16", "int64"])
def test_sums_over_long_axes_are_those_of_numpy(dtype):
    rng = np.random.default_rng(0)
    target = md.dtypes.by_name[dtype].numpy
    for shape in ((1023, 3), (1024, 2), (2049, 7), (70000, 2), (3, 5000, 4), (2, 40, 50, 3), (3000, 4, 3), (1024, 300), (5000, 1), (2, 3, 2000)):
        data = np.asarray(rng.integers(-4, 5, shape) * (1 + 1j if dtype == "complex64" else 1)).astype(target)
        for x in (data, np.asfortranarray(data), data.T, data[::2], np.asfortranarray(data)[..., ::-1]):
            for axis in {(0,), (x.ndim - 1,), (0, 1), (0, x.ndim - 1), tuple(range(x.ndim)), ()}:
                for keepdims in (False, True):
                    got = NUMPY.sum(x, axis=axis, keepdims=keepdims)
                    wide = x.astype(np.complex128 if dtype == "complex64" else np.int64)
                    want = np.add.reduce(wide, axis=axis, keepdims=keepdims).astype(target)
                    assert got.dtype == target and np.shape(got) == want.shape and np.array_equal(got, want), (x.shape, axis)
                    assert not (isinstance(got, np.ndarray) and axis and np.shares_memory(got, x))


def test_signs_of_zero_and_what_is_not_finite_stay_in_long_sums():
    x = np.full((4096, 3), -0.0, np.float32)
    np.testing.assert_array_equal(np.signbit(NUMPY.sum(x, axis=(0,), keepdims=False)), np.signbit(np.add.reduce(x, axis=0)))
    x[7], x[4000, 0], x[100, 1], x[3, 2] = np.inf, -np.inf, np.nan, 1.0
    np.testing.assert_array_equal(NUMPY.sum(x, axis=(0,), keepdims=False), [np.nan, np.nan, np.inf])


def test_a_long_column_keeps_its_digits(backend):
    x = (1000.0 + np.random.default_rng(0).random((200_000, 4))).astype(np.float32)
    wide = x.astype(np.float64)

    def f(x):
        return x.mean(0), x.T.mean(1), x.reshape(-1, 2, 2).mean((0, 2)), x.var(0), md.cumulative_sum(x.reshape(-1))[-1:]

    want = wide.mean(0), wide.mean(0), wide.reshape(-1, 2, 2).mean((0, 2)), wide.var(0), wide.sum(keepdims=True).reshape(1)
    for way in (f, md.jit(f)):
        for k, (got, w) in enumerate(zip(way(md.asarray(x)), want, strict=True)):
            np.testing.assert_allclose(got.numpy(), w, rtol=1e-3 if k == 3 else 3e-5, err_msg=str(k))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_many_updates_of_one_place_do_not_stand_still_in_half_precision(backend, dtype):
    i, u = md.zeros(4000, dtype="int64"), md.full((4000,), 0.01, dtype=dtype)
    z, rows = md.zeros(3, dtype=dtype), md.zeros((3, 2), dtype=dtype)
    want = 4000 * float(u[0].item())

    def f():
        yield z.at[i].add(u)
        yield md.grad(lambda w: (w[i] * u).sum())(z)
        yield md.grad(lambda w: (md.take(w, i, axis=0) * u[:, None]).sum())(rows)
        yield md.grad(lambda w: (md.take_along_axis(w, md.stack([i, i], axis=1), axis=0) * u[:, None]).sum())(rows)
        yield md.cumulative_sum(u)[-1:]

    for outs in (f(), md.jit(lambda: tuple(f()))()):
        for k, out in enumerate(outs):
            assert out.dtype.name == dtype
            np.testing.assert_allclose(float(out.reshape(-1)[0].item()), want, rtol=0.01, err_msg=str(k))
