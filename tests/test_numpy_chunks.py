"""NumPy kernels of several steps, chunk by chunk: accurate, the same whatever the layout and the size, and over their own operand; gathering by runs
of memory."""

from __future__ import annotations

import numpy as np
import pytest

import minidl as md
from minidl.backends import get
from minidl.backends.numpy_helpers import CHUNK
from minidl.rewrites.loops.on_numpy import INTO

xp = get("numpy")
SPECIAL = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1e-40, -1e-40, 88, -88, 800, -800], np.float32)


@pytest.mark.parametrize(("name", "limit"), [("erf", 2), ("sigmoid", 3), ("softplus", 3)])
def test_float32_is_accurate(name, limit):
    mpmath = pytest.importorskip("mpmath")
    exact = {"erf": mpmath.erf, "sigmoid": lambda v: 1 / (1 + mpmath.exp(-v)), "softplus": lambda v: mpmath.log1p(mpmath.exp(v))}[name]
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.uniform(-6, 6, 1000), rng.uniform(-103, 20, 300), 10 ** rng.uniform(-38, 0, 200)]).astype(np.float32)
    want = np.array([float(exact(mpmath.mpf(float(v)))) for v in x])
    off = np.abs(getattr(xp, name)(x) - want) / np.spacing(np.maximum(np.abs(want), 1e-38).astype(np.float32))
    assert off.max() <= limit


@pytest.mark.parametrize("name", ["erf", "sigmoid", "softplus"])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_chunks_change_nothing(name, dtype):
    f, write = getattr(xp, name), INTO[name][0]
    x = np.resize(SPECIAL[None] * np.linspace(0.1, 1, 9, dtype=np.float32)[:, None], 2 * CHUNK + 6).astype(dtype)
    with np.errstate(all="ignore"):
        want = np.concatenate([f(x[i : i + 6]) for i in range(0, 66, 6)])
        square = x.reshape(2, -1)
        for got in (f(x)[:66], f(square).reshape(-1)[:66], f(np.asfortranarray(square)).reshape(-1)[:66], write(x.copy(), out=np.empty_like(x))[:66]):
            assert got.dtype == x.dtype
            np.testing.assert_array_max_ulp(np.nan_to_num(got), np.nan_to_num(want), 1)  # a vector of the last few may round otherwise
            assert np.array_equal(np.isnan(got), np.isnan(want))
        over = x.copy()
        assert write(over, out=over) is over and np.array_equal(over, f(x), equal_nan=True)
        spread = np.zeros((x.size, 2), x.dtype)
        write(x, out=spread[:, 0])
        assert np.array_equal(spread[:, 0], f(x), equal_nan=True) and not spread[:, 1].any()


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int32"])
def test_bounds_of_large_arrays_are_those_of_small_ones(dtype):
    numbers = SPECIAL if dtype != "int32" else np.array([0, -5, 5, 7, -(2**31), 2**31 - 1])
    with np.errstate(all="ignore"):
        x = np.resize(numbers, 5000).astype(dtype)
    for f in (xp.relu, lambda v: xp.clip(v, v.dtype.type(-2), v.dtype.type(3)), lambda v: xp.clip(v, v.dtype.type(0), v.dtype.type(3))):
        got, want = f(x), np.concatenate([f(x[i : i + 50]) for i in range(0, 5000, 50)])
        assert got.dtype == x.dtype and got.tobytes() == want.tobytes()  # zeros have one sign


def test_limits():
    np.testing.assert_array_equal(xp.erf(SPECIAL)[[2, 3, 9, 10]], [1, -1, 1, -1])
    np.testing.assert_array_equal(xp.sigmoid(SPECIAL)[[0, 2, 3, 9, 10]], [0.5, 1, 0, 1, 0])
    np.testing.assert_array_equal(xp.softplus(SPECIAL)[[2, 3, 9, 10]], [np.inf, 0, 800, 0])
    assert all(np.isnan(f(SPECIAL)[4]) and f(SPECIAL[4]).shape == () for f in (xp.erf, xp.sigmoid, xp.softplus))
    assert np.signbit(xp.erf(SPECIAL)[1])


@pytest.mark.parametrize("axes", [(0, 1, 2), (2, 0, 1), (1, 2, 0), (2, 1, 0)])
@pytest.mark.parametrize("index", [(), (3,), (2, 2), (0,)])
def test_gather_of_permuted_arrays(axes, index):
    """What the rows of a permuted array are does not depend on how it lies in memory."""
    x = np.arange(60.0).reshape(3, 4, 5).transpose(axes)
    i = np.random.default_rng(0).integers(-2, 7, index)  # clipped at both ends
    want = np.ascontiguousarray(x)[np.clip(i, 0, x.shape[0] - 1)]
    for source in (x, np.ascontiguousarray(x), np.broadcast_to(x[:, :1], x.shape), x[:, ::-1]):
        got = xp.gather(source, i)
        assert got.shape == want.shape
        np.testing.assert_array_equal(got, np.ascontiguousarray(source)[np.clip(i, 0, x.shape[0] - 1)])


@pytest.mark.parametrize("backend", ["numpy", "numba"])
@pytest.mark.parametrize("sizes", [(4, 256, 256), (9, 70, 440), (128, 256, 512), (3, 512, 512), (8, 8, 8), (64, 100, 256)], ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_products_with_a_much_larger_matrix(backend, sizes, dtype):
    """Whichever way round they are made: the value, its layout, and what is not finite."""
    m, n, k = sizes
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(m, k)).astype(dtype), rng.normal(size=(n, k)).astype(dtype)
    x[1, 0], w[2, 1] = np.nan, np.inf
    want = x.astype(np.float64) @ w.astype(np.float64).T
    with md.use_backend(backend):
        a, b, c = md.asarray(x), md.asarray(w), md.asarray(np.ascontiguousarray(x.T))
        ways = [lambda a, b, c: md.matmul(a, b.T), lambda a, b, c: md.matmul(c.T, b.T), lambda a, b, c: md.nn.functional.linear(a, b, b[:, 0] * 0.0)]
        for f in ways:
            for run in (f, md.jit(f)):
                got = run(a, b, c)
                kept = got.numpy().copy()
                run(a * 2.0, b, c)
                np.testing.assert_array_equal(got.numpy(), kept)
                assert got.numpy().dtype == dtype and got.numpy().flags.c_contiguous
                np.testing.assert_allclose(got.numpy()[[0, 3 % m]], want[[0, 3 % m]], rtol=1e-3, atol=1e-3)
                np.testing.assert_array_equal(np.isnan(got.numpy()), np.isnan(want))
