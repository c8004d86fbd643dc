"""Convolution and pooling on NumPy in parts of a few examples: the same as in one part, with every kind of number; and what programs make of a
gradient through relu and max-pooling."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minidl as md
from minidl.arrays.windows import on_numpy as numpy_windows

NUMBERS = [0.0, -0.0, 1.0, -1.0, 2.0, 0.5, -3.0, float("inf"), float("-inf"), float("nan")]
VALUES = st.sampled_from(NUMBERS)


def equal(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two arrays are the same to the bit, whatever the payload of a nan."""
    if a.dtype.kind != "f":
        return a.dtype == b.dtype and np.array_equal(a, b)
    numbers = ~np.isnan(a)
    return a.dtype == b.dtype and np.array_equal(a, b, equal_nan=True) and np.array_equal(np.signbit(a[numbers]), np.signbit(b[numbers]))


@st.composite
def pools(draw):
    """(x, params) of a pooling over one or two axes."""
    axes = draw(st.integers(1, 2))
    window = tuple(draw(st.integers(1, 3)) for _ in range(axes))
    sizes = tuple(draw(st.integers(k, 6)) for k in window)
    stride = tuple(draw(st.integers(1, 3)) for _ in window)
    padding = tuple((draw(st.integers(0, k // 2)), draw(st.integers(0, k // 2))) for k in window)
    shape = (draw(st.integers(1, 4)), 2, *sizes)
    x = np.random.default_rng(draw(st.integers(0, 99))).choice(NUMBERS[: draw(st.integers(2, len(NUMBERS)))], shape).astype(np.float32)
    return x, {"window": window, "stride": stride, "padding": padding, "dilation": (1,) * axes}


@given(pools(), st.sampled_from(["float32", "float64", "float16", "int32"]))
def test_pooling_in_parts(drawn, dtype):
    x, params = drawn
    x = np.nan_to_num(x, posinf=4, neginf=-4).astype(dtype) if dtype == "int32" else x.astype(dtype)
    whole = numpy_windows.max_pool(x, **params)
    slow = [np.zeros_like(v) for v in whole]
    sizes, out = x.shape[2:], whole[0].shape[2:]
    with np.errstate(all="ignore"):
        for at in np.ndindex(*whole[0].shape):  # window by window, as it is written down
            best = None
            for k, place in enumerate(np.ndindex(*params["window"])):
                where = [p * s + q - lo for p, s, q, (lo, _) in zip(at[2:], params["stride"], place, params["padding"], strict=True)]
                if all(0 <= i < n for i, n in zip(where, sizes, strict=True)):
                    v = x[(*at[:2], *where)]
                    if best is None or v > best or (v != v and best == best):
                        best = v
                        slow[0][at], slow[1][at] = v, k
    assert np.array_equal(whole[0], slow[0], equal_nan=dtype != "int32") and np.array_equal(whole[1], slow[1])
    g = np.arange(whole[0].size, dtype=whole[0].dtype).reshape(whole[0].shape) - 3
    back = numpy_windows.pool_scatter(g, whole[1], x_shape=x.shape, **params)
    before = numpy_windows.PART
    try:
        numpy_windows.PART = 1
        parts = numpy_windows.max_pool(x, **params)
        narrow = numpy_windows.max_pool(x, narrow=True, **params)
        assert equal(parts[0], whole[0]) and np.array_equal(parts[1], whole[1])
        assert narrow[1].itemsize == 1 and np.array_equal(narrow[1], whole[1]) and whole[1].dtype == np.int64
        assert equal(numpy_windows.pool_scatter(g, narrow[1], x_shape=x.shape, **params), back)
    finally:
        numpy_windows.PART = before
    assert back.sum() == g.sum() if dtype in ("float64", "int32") else True
    assert out == whole[1].shape[2:]


@pytest.mark.parametrize("padding", [((0, 0), (0, 0)), ((1, 0), (2, 1))])
@pytest.mark.parametrize("groups", [1, 2])
def test_convolution_in_parts(padding, groups, monkeypatch):
    rng = np.random.default_rng(0)
    params = {"stride": (1, 2), "padding": padding, "dilation": (2, 1), "groups": groups}
    x, w = rng.integers(-4, 5, (5, 4, 7, 6)).astype(np.float32), rng.integers(-4, 5, (6, 4 // groups, 2, 3)).astype(np.float32)
    y = numpy_windows.conv(x, w, **params)
    g = rng.integers(-4, 5, y.shape).astype(np.float32)

    def all_three():
        dx = numpy_windows.conv_dx(g, w, x_shape=x.shape, **params)
        return numpy_windows.conv(x, w, **params), dx, numpy_windows.conv_dw(x, g, w_shape=w.shape, **params)

    whole = all_three()
    for block in (1, 1 << 11, 1 << 12):
        monkeypatch.setattr(numpy_windows, "BLOCK", block)
        assert all(np.array_equal(a, b) for a, b in zip(all_three(), whole, strict=True))
    assert (y * g).sum() == (x * whole[1]).sum() == (w * whole[2]).sum()  # whole numbers: the adjoint identity is exact


def gradient(x, g):
    """The gradient of a sum through relu and max-pooling."""

    def f(x):
        y = md.max_pool(md.relu(x), 2, padding=1)
        return md.sum(y * g)

    return md.grad(f)(x)


@given(st.lists(VALUES, min_size=32, max_size=32), st.lists(VALUES, min_size=18, max_size=18))
def test_a_mask_goes_before_the_scatter(xs, gs):
    x, g = md.tensor(xs).reshape((2, 1, 4, 4)), md.tensor(gs).reshape((2, 1, 3, 3))
    assert equal(_jitted(x, g).numpy(), gradient(x, g).numpy())


_jitted = md.jit(gradient)


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_what_the_backward_pass_of_pooling_keeps(backend):
    """Neither what went into the pooling, nor eight bytes for each place."""
    if backend == "numba":
        pytest.importorskip("numba")
    x, g = md.ones((2, 1, 4, 4), backend=backend), md.ones((2, 1, 3, 3), backend=backend)
    graph = _jitted.lower(x, g)
    names = [e.primitive.name for e in graph.equations]
    scatter = graph.equations[names.index("pool_scatter")]
    assert scatter.outputs[0] is graph.outputs[0] and names.index("where") < names.index("pool_scatter")
    assert equal(_jitted(x, g).numpy(), gradient(x, g).numpy())


@pytest.mark.parametrize("change", ["other", "kept", "number"])
def test_masks_that_stay(change):
    """A mask from something else, a mask that is also wanted itself, and another number than 0 where it does not hold."""

    def f(x, y, g):
        value, pull = md.vjp(lambda x: md.max_pool(x, 2), x)
        mask = (y if change == "other" else x) > 0.0
        (dx,) = pull(g)
        return value, md.where(mask, dx, 1.0 if change == "number" else 0.0), mask if change == "kept" else value

    rng = np.random.default_rng(0)
    x, y, g = (md.tensor(rng.standard_normal(s).astype(np.float32)) for s in ((1, 1, 4, 4), (1, 1, 4, 4), (1, 1, 2, 2)))
    assert [e.primitive.name for e in md.jit(f).lower(x, y, g).equations].index("pool_scatter") < 3
    assert all(equal(a.numpy(), b.numpy()) for a, b in zip(md.jit(f)(x, y, g), f(x, y, g), strict=True))


@pytest.mark.parametrize("padding", [0, 1])
def test_nothing_is_chosen_from_nothing(backend, padding):
    x = md.ones((1, 2, 0))
    for f in (lambda x: md.max_pool(x, 2, padding=padding), md.jit(lambda x: md.max_pool(x, 2, padding=padding))):
        with pytest.raises(ValueError, match=r"max_pool: f32\[1,2,0\] has an axis under the window"):
            f(x)
