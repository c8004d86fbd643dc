"""The array functions against NumPy, on every backend that is installed."""

from __future__ import annotations

import copy
import importlib
import itertools
import math
import pickle
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import minidl as md
from minidl import ops
from minidl.backends.numpy_memory import aligned

BACKENDS = [name for name, usable in md.backends().items() if usable is True]


@pytest.fixture(params=BACKENDS)
def backend(request):
    with md.use_backend(request.param):
        yield request.param


def same(got, want, exact=True):
    """Equal shape, dtype and values; nan equals nan."""
    got, want = got.detach().numpy(), np.asarray(want)
    assert got.shape == want.shape
    assert got.dtype == want.dtype
    if exact:
        np.testing.assert_array_equal(got, want)
    else:
        np.testing.assert_allclose(got, want, rtol=1e-12 if got.dtype.itemsize >= 8 else 1e-5, atol=1e-12 if got.dtype.itemsize >= 8 else 1e-6)


def numbers(*shape, dtype=np.float64, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


# ---- creation -------------------------------------------------------------------------------------------------------------------------
def test_dtypes_of_new_tensors(backend):
    rows = [(True, md.bool), (3, md.int64), (1.5, md.float32), (2j, md.complex64), ([1, 2], md.int64), ([[1.0], [2]], md.float32), ([], md.float32)]
    for data, dtype in rows:
        assert md.tensor(data).dtype is dtype
    assert md.asarray(np.ones(2)).dtype is md.float64
    assert md.asarray(np.float64(1)).dtype is md.float64
    assert md.tensor([np.float32(1)]).dtype is md.float32
    assert md.tensor([np.int8(1)]).dtype is md.int8
    assert md.tensor([1, 2], dtype="uint8").tolist() == [1, 2]
    assert md.tensor([2**63]).dtype is md.uint64
    assert md.tensor([1.5], dtype=md.bfloat16).tolist() == [1.5]
    assert md.tensor(3.0).backend == backend
    with pytest.raises(OverflowError):
        md.tensor([300], dtype=md.uint8)
    with pytest.raises(ValueError, match="ragged"):
        md.tensor([[1], [2, 3]])
    with pytest.raises(TypeError, match="asarray"):
        md.asarray(object())


def test_asarray_copies_numpy_data_unless_told_not_to(backend):
    data = np.zeros(4, np.float32)
    copied = md.asarray(data)
    data[0] = 7
    assert copied.tolist() == [0, 0, 0, 0]
    x = md.asarray([1.0])
    assert md.asarray(x) is x and md.asarray(x, copy=True) is not x
    with pytest.raises(ValueError, match="copy=False"):
        md.asarray(data, dtype=md.int32, copy=False)
    data = aligned(data)  # which jax needs
    shared = md.asarray(data, copy=False)
    data[1] = 5
    assert shared.tolist() == [7, 5, 0, 0]
    late = aligned(np.zeros(5, np.float32))[1:]
    if backend == "jax":
        with pytest.raises(ValueError, match="cannot share memory"):
            md.asarray(late, copy=False)
        assert md.from_dlpack(late).tolist() == [0.0] * 4
    else:
        assert md.asarray(late, copy=False).tolist() == [0.0] * 4


def test_tensors_in_lists_are_stacked_and_tracked(backend):
    a = md.tensor(2.0, requires_grad=True)
    x = md.asarray([[a, 1.0], [a * a, a]])
    x.sum().backward()
    assert x.shape == (2, 2) and a.grad.item() == 6


@pytest.mark.parametrize("args", [(5,), (2, 8, 3), (5, -1, -2), (0,), (3, 3), (0.0, 1.0, 0.25), (1, 2, 0.3)])
def test_arange(backend, args):
    want = np.arange(*args)
    same(md.arange(*args), want if want.dtype == np.int64 else want.astype(np.float32), exact=False)


def test_ranges_and_identities(backend):
    same(md.linspace(0, 1, 7, dtype="float64"), np.linspace(0, 1, 7))
    same(md.linspace(3, -2, 6, dtype="float64", endpoint=False), np.linspace(3, -2, 6, endpoint=False), exact=False)
    same(md.linspace(2, 5, 1, dtype="float64"), np.linspace(2, 5, 1))
    same(md.linspace(0, 1, 0, dtype="float64"), np.linspace(0, 1, 0))
    same(md.linspace(0, 1j, 3, dtype="complex128"), np.linspace(0, 1j, 3))
    same(md.eye(3, 4, k=1, dtype="int32"), np.eye(3, 4, k=1, dtype=np.int32))
    same(md.full((2, 1), 7, dtype="int16"), np.full((2, 1), 7, np.int16))
    same(md.zeros(2, 3), np.zeros((2, 3), np.float32))
    same(md.ones_like(md.arange(3)), np.ones(3, np.int64))
    with pytest.raises(OverflowError):
        md.full((2,), 256, dtype="uint8")
    for got, want in zip(md.meshgrid(md.arange(2), md.arange(3), md.arange(4)), np.meshgrid(np.arange(2), np.arange(3), np.arange(4)), strict=True):
        same(got, want)
    x = numbers(2, 3, 4)
    for k in (-2, 0, 1):
        same(md.tril(md.asarray(x), k=k), np.tril(x, k))
        same(md.triu(md.asarray(x), k=k), np.triu(x, k))


def test_dlpack_round_trip(backend):
    x = md.tensor([1.0, 2.0])
    np.testing.assert_array_equal(np.from_dlpack(x), [1, 2])
    same(md.from_dlpack(np.arange(3, dtype=np.float32)), np.arange(3, dtype=np.float32))
    same(md.from_dlpack(x), [np.float32(1), np.float32(2)])
    with pytest.raises(BufferError, match="detach"):
        np.from_dlpack(md.tensor([1.0], requires_grad=True))


# ---- elementwise ----------------------------------------------------------------------------------------------------------------------
NAMES = {
    "negative": (), "abs": (), "sign": (), "square": (), "floor": (), "ceil": (), "round": ("rint",), "trunc": (), "exp": (), "expm1": (), "sin": (),
    "cos": (), "tanh": (), "atan": ("arctan",), "asinh": ("arcsinh",), "isnan": (), "isfinite": (), "signbit": (), "add": (), "subtract": (),
    "multiply": (), "divide": (), "floor_divide": (), "remainder": (), "maximum": (), "minimum": (), "fmax": (), "atan2": ("arctan2",),
    "hypot": (), "logaddexp": (), "copysign": (), "equal": (), "not_equal": (), "less": (), "less_equal": (), "greater": (), "greater_equal": (),
}  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_elementwise_names_mean_what_numpy_means(backend, name):
    f = getattr(np, (NAMES[name] or (name,))[0])
    x, y = numbers(4, 3) * 2, numbers(3, seed=1) * 2
    args = (x, y) if f.nin == 2 else (x,)
    same(getattr(md, name)(*map(md.asarray, args)), f(*args), exact=False)
    assert getattr(md, name).__doc__ and getattr(md, name).__name__ == name


def test_integers_and_bools(backend):
    a, b = np.array([-7, 7, 5, 0]), np.array([2, -2, 3, 4])
    x, y = md.asarray(a), md.asarray(b)
    for got, want in [(x // y, a // b), (x % y, a % b), (x & y, a & b), (x | y, a | b), (x ^ y, a ^ b), (~x, ~a), (x << 2, a << 2), (x >> 1, a >> 1)]:
        same(got, want)
    assert (md.asarray([1, 0]) // 0).tolist() == [0, 0]
    same(2 - x, 2 - a)
    same(2**y.astype("float64"), 2.0**b, exact=False)
    assert (x / y).dtype is md.float32
    with pytest.raises(ValueError, match="pow"):
        x**-1
    with pytest.raises(ValueError, match="pow"):
        2 ** md.asarray([1, -1])
    same(md.asarray([True, False]) & md.asarray([True, True]), np.array([True, False]))
    q, r = divmod(x, y)
    same(q * y + r, a)


def test_python_numbers_are_weak_and_numpy_arrays_join(backend):
    x = md.ones(3)
    assert (x * 1.5).dtype is md.float32 and (x * np.float64(1.5)).dtype is md.float32
    assert (np.ones(3) * x).dtype is md.float64 and isinstance(np.ones(3) * x, md.Tensor)
    assert (np.ones((2, 3)) @ md.ones((3, 2), dtype="float64")).shape == (2, 2)
    assert (1 - x).tolist() == [0, 0, 0] and (x / 2).tolist() == [0.5] * 3
    assert (x == None) is False and (x != "a") is True  # noqa: E711
    with pytest.raises(TypeError, match="add"):
        x + [1, 2, 3]


def test_powers(backend):
    x = numbers(5)
    t = md.asarray(x)
    for p in (2, 2.0, 3, 1, 0, -1, -2.0):
        same(t**p, x**p, exact=False)
    same(abs(t) ** 0.5, np.sqrt(abs(x)), exact=False)
    same(md.pow(t, md.asarray(2)), x**2, exact=False)


def test_clip_and_where(backend):
    x = numbers(6) * 3
    t = md.asarray(x)
    same(md.clip(t, -1, 1), np.clip(x, -1, 1))
    same(t.clip(min=0.5), np.clip(x, 0.5, None))
    same(t.clip(max=md.asarray(numbers(6, seed=2))), np.minimum(x, numbers(6, seed=2)))
    same(md.clip(md.asarray(np.uint8([1, 200])), -5, 100), np.uint8([1, 100]))
    same(md.clip(md.asarray([1, 9]), 3), np.array([3, 9]))
    same(md.where(t > 0, t, 0), np.where(x > 0, x, 0))
    same(md.where(np.array([True, False]), 1.0, 2.0), np.float32([1, 2]))
    with pytest.raises(TypeError, match="where"):
        md.where(t, 1.0, 0.0)


def test_astype_saturates(backend):
    x = md.asarray(np.array([np.nan, 1e20, -1e20, 2.7, -300.0], np.float32))
    assert x.astype("int32").tolist() == [0, 2**31 - 1, -(2**31), 2, -300]
    assert x.astype("uint8").tolist() == [0, 255, 0, 2, 0]
    assert x.astype(md.float32) is not x and x.astype(md.float32, copy=False) is x


# ---- reductions -----------------------------------------------------------------------------------------------------------------------
AXES = [None, 0, -1, (0, 2), (2, 1, 0)]


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("keep", [False, True])
def test_reductions(backend, axis, keep):
    x = numbers(3, 4, 2)
    t = md.asarray(x)
    for name in ("sum", "prod", "mean", "var", "std", "max", "min", "median"):
        same(getattr(md, name)(t, axis=axis, keepdims=keep), getattr(np, name)(x, axis=axis, keepdims=keep), exact=False)
    for name in ("any", "all"):
        same(getattr(t > 0, name)(axis=axis, keepdims=keep), getattr(np, name)(x > 0, axis=axis, keepdims=keep))
    same(t.var(axis, correction=1, keepdims=keep), x.var(axis=axis, ddof=1, keepdims=keep), exact=False)
    same(md.count_nonzero(t > 0, axis, keep), np.asarray(np.count_nonzero(x > 0, axis=axis, keepdims=keep)))
    same(md.logsumexp(t, axis, keep), np.log(np.sum(np.exp(x), axis=axis, keepdims=keep)), exact=False)
    same(md.quantile(t, 0.3, axis, keep), np.quantile(x, 0.3, axis=axis, keepdims=keep), exact=False)
    same(md.quantile(t, [0.0, 0.5, 0.9], axis, keep), np.quantile(x, [0.0, 0.5, 0.9], axis=axis, keepdims=keep), exact=False)
    for ord_ in (0, 1, 2, 3, 0.5, math.inf, -math.inf):
        a = abs(x)
        want = {0: (a != 0).sum(axis, keepdims=keep) * 1.0, math.inf: a.max(axis, keepdims=keep), -math.inf: a.min(axis, keepdims=keep)}.get(ord_)
        want = (a**ord_).sum(axis, keepdims=keep) ** (1 / ord_) if want is None else want
        same(md.vector_norm(t, axis=axis, keepdims=keep, ord=ord_), want, exact=False)


def test_reductions_of_integers_and_of_nothing(backend):
    for dtype, wide in [("int8", md.int64), ("uint8", md.uint64), ("bool", md.int64)]:
        x = md.ones(3, dtype=dtype)
        assert x.sum().dtype is wide and x.prod().dtype is wide and x.cumulative_sum().dtype is wide and x.sum().item() == 3
    assert md.mean(md.asarray([1, 2])).dtype is md.float32
    empty = md.zeros((2, 0))
    assert empty.sum(axis=1).tolist() == [0, 0] and empty.prod(axis=1).tolist() == [1, 1]
    assert math.isnan(md.zeros(0).mean().item())
    with pytest.raises(ValueError, match="max"):
        empty.max(axis=1)
    assert md.asarray(3.0).sum().item() == 3 and md.asarray(3.0).sum(axis=()).item() == 3
    same(md.asarray(numbers(2, 2)).sum(axis=()), numbers(2, 2))
    with pytest.raises(IndexError, match="axis 2"):
        empty.sum(axis=2)
    assert md.full((4000,), 30.0, dtype="float16").mean().item() == 30.0


@pytest.mark.parametrize("axis", [None, 0, 1, -1])
def test_positions(backend, axis):
    x = np.array([[1.0, 3, 3], [0, np.nan, 5]])
    for name in ("argmax", "argmin"):
        same(getattr(md.asarray(x), name)(axis, keepdims=True), np.asarray(getattr(np, name)(x, axis=axis, keepdims=True)))


def test_cumulative(backend):
    x = numbers(3, 4)
    t = md.asarray(x)
    for name, f in [("sum", np.cumsum), ("prod", np.cumprod), ("max", np.maximum.accumulate), ("min", np.minimum.accumulate)]:
        same(getattr(md, f"cumulative_{name}")(t, axis=1), f(x, axis=1), exact=False)
        same(getattr(md, f"cumulative_{name}")(t, axis=0, reverse=True), f(x[::-1], axis=0)[::-1], exact=False)
    same(md.cumulative_logsumexp(t, axis=1), np.logaddexp.accumulate(x, axis=1), exact=False)
    same(md.cumulative_sum(t, axis=1, include_initial=True), np.concatenate([np.zeros((3, 1)), np.cumsum(x, 1)], 1), exact=False)
    with pytest.raises(ValueError, match="axis="):
        md.cumulative_sum(t)


def test_softmax(backend):
    x = numbers(3, 4)
    want = np.exp(x) / np.exp(x).sum(1, keepdims=True)
    same(md.asarray(x).softmax(dim=1), want, exact=False)
    same(md.log_softmax(md.asarray(x), axis=1), np.log(want), exact=False)
    assert md.full((2,), -math.inf).softmax().tolist() == [0, 0]


def test_median_and_quantile_conventions(backend):
    x = md.tensor([1.0, 2.0, 3.0, 4.0], requires_grad=True)
    x.median().backward()
    assert x.grad.tolist() == [0, 0.5, 0.5, 0]
    y = md.tensor([2.0, 1.0, 2.0], requires_grad=True)
    y.median().backward()
    assert y.grad.tolist() == [1, 0, 0]
    assert math.isnan(md.tensor([1.0, math.nan, 2.0]).median().item())
    assert md.tensor([-math.inf, math.inf, math.inf]).quantile(0.75).item() == math.inf


def test_norms_have_gradient_zero_at_zero(backend):
    for ord_ in (1, 2, 3):
        x = md.zeros(3).requires_grad_()
        md.vector_norm(x, ord=ord_).backward()
        assert x.grad.tolist() == [0, 0, 0]
    x = md.ones(3).requires_grad_()
    x.std().backward()
    assert x.grad.tolist() == [0, 0, 0]


def test_complex_statistics(backend):
    z = numbers(4) + 1j * numbers(4, seed=1)
    t = md.asarray(z)
    same(t.mean(), z.mean(), exact=False)
    same(t.var(), z.var(), exact=False)
    same(md.norm(t), np.linalg.norm(z), exact=False)
    same(t.real, z.real)
    same(t.imag, z.imag)


# ---- manipulation -----------------------------------------------------------------------------------------------------------------------
def test_manipulation(backend):
    x = numbers(2, 3, 4)
    t = md.asarray(x)
    rows = [
        (t.reshape(6, -1), x.reshape(6, -1)), (t.reshape((-1,)), x.reshape(-1)), (t.view(3, 8), x.reshape(3, 8)), (t.flatten(), x.reshape(-1)),
        (t.flatten(1), x.reshape(2, 12)), (t.permute(2, 0, 1), x.transpose(2, 0, 1)), (t.T, x.T), (t.mT, x.swapaxes(-1, -2)),
        (t.transpose(0, 2), x.swapaxes(0, 2)), (md.moveaxis(t, (0, 1), (-1, 0)), np.moveaxis(x, (0, 1), (-1, 0))), (t.unsqueeze(1), x[:, None]),
        (md.expand_dims(t, (0, -1)), np.expand_dims(x, (0, -1))), (t[:, :1].squeeze(1), x[:, 0]), (t.flip(), np.flip(x)), (t.flip(1), np.flip(x, 1)),
        (t.flip((0, 2)), np.flip(x, (0, 2))), (t.roll(2, axis=2), np.roll(x, 2, 2)), (t.roll(-5), np.roll(x, -5)),
        (t.roll((1, 2), axis=(0, 1)), np.roll(x, (1, 2), (0, 1))), (t.tile(2), np.tile(x, 2)), (t.tile(2, 1, 1, 3), np.tile(x, (2, 1, 1, 3))),
        (t.repeat(3), np.repeat(x, 3)), (t.repeat(2, axis=1), np.repeat(x, 2, 1)), (md.pad(t, 1), np.pad(x, 1)),
        (md.pad(t, ((0, 1), (2, 0), (1, 1)), 7.0), np.pad(x, ((0, 1), (2, 0), (1, 1)), constant_values=7)), (md.pad(t, -1), x[1:-1, 1:-1, 1:-1]),
        (md.concat([t, t], axis=1), np.concatenate([x, x], 1)), (md.concat([t, t], axis=None), np.concatenate([x, x], None)),
        (md.stack([t, t], axis=-1), np.stack([x, x], -1)), (md.broadcast_to(t[:, :1], (5, 2, 3, 4)), np.broadcast_to(x[:, :1], (5, 2, 3, 4))),
        (t.diagonal(), np.diagonal(x)), (t.diagonal(offset=-1), np.diagonal(x, -1)),
        (t.diagonal(offset=2), np.diagonal(x, 2)), (t.diagonal(offset=9), np.diagonal(x, 9)),
        (t.diagonal(offset=-9), np.diagonal(x, -9)), (md.asarray(1.0).flatten(), np.ones(1, np.float32)),
    ]  # fmt: skip
    for got, want in rows:
        same(got, want)
    for got, want in zip(md.unstack(t, axis=1), np.moveaxis(x, 1, 0), strict=True):
        same(got, want)
    assert [p.shape for p in t.split(2, axis=1)] == [(2, 2, 4), (2, 1, 4)] and [p.shape for p in t.split([1, 3], dim=2)] == [(2, 3, 1), (2, 3, 3)]
    assert [p.shape[2] for p in t.chunk(3, axis=2)] == [2, 2]
    assert md.ones(3).view(md.int32).tolist() == [0x3F800000] * 3
    assert t.reshape(2, 3, 4) is not t and t[...] is not t
    assert md.concat([md.ones(1), md.ones(1, dtype="float64")]).dtype is md.float64


@pytest.mark.parametrize(
    "call, error, text",
    [
        (lambda x: x.reshape(5, -1), ValueError, "reshape"), (lambda x: x.reshape(-1, -1), ValueError, "reshape"),
        (lambda x: x.reshape(7), ValueError, "reshape"), (lambda x: x.permute(0, 0), ValueError, "permute_dims"),
        (lambda x: x.squeeze(0), ValueError, "squeeze"), (lambda x: x.split([1, 1], axis=1), ValueError, "split"),
        (lambda x: md.stack([x, x[0]]), ValueError, "stack"), (lambda x: md.concat([x, x[:, :1]]), ValueError, "concat"),
        (lambda x: x.broadcast_to(4), ValueError, "broadcast_to"), (lambda x: x + md.ones(4), ValueError, "add"),
        (lambda x: x @ md.ones((5, 6)), ValueError, r"matmul: inner dimensions differ: f32\[2,3\] @ f32\[5,6\] \(3 != 5\)"),
        (lambda x: x.sum(axis=(0, 0)), ValueError, "twice"), (lambda x: md.einsum("ij,jk->ik", x, x), ValueError, "einsum"),
        (lambda x: x[2], IndexError, "index 2 is out of bounds for axis 0 with size 2"),
        (lambda x: x[:, md.asarray([0, 5])], IndexError, "index 5 is out of bounds for axis 1 with size 3"),
        (lambda x: x[[-3]], IndexError, "index -3 is out of bounds for axis 0 with size 2"), (lambda x: x[0, 0, 0], IndexError, "3 indices"),
        (lambda x: x[0.5], IndexError, "no index"), (lambda x: x[md.ones(2)], IndexError, "integers or bool"),
        (lambda x: x[np.array([True, True, False])], IndexError, "mask"), (lambda x: x.topk(9), ValueError, "topk"),
        (lambda x: bool(x), ValueError, "any"), (lambda x: x.item(), ValueError, "item"), (lambda x: len(x[0, 0]), TypeError, "len"),
        (lambda x: x.to("int"), ValueError, "int"), (lambda x: md.asarray(2).requires_grad_(), RuntimeError, "requires_grad"),
    ],
)  # fmt: skip
def test_errors_name_the_operation(backend, call, error, text):
    with pytest.raises(error, match=text):
        call(md.ones((2, 3)))


# ---- indexing -------------------------------------------------------------------------------------------------------------------------
@st.composite
def index_and_array(draw):
    shape = draw(hnp.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=4))
    x = np.arange(np.prod(shape), dtype=np.float64).reshape(shape)
    if draw(st.booleans()):
        return x, draw(hnp.basic_indices(shape, allow_newaxis=True, allow_ellipsis=True))
    batch = draw(st.sampled_from([(), (2,), (3, 1), (1, 2), (0,)]))
    items, axis = [], 0
    while axis < len(shape):
        n = shape[axis]
        kind = draw(st.sampled_from(["slice", "array", "int", "none", "dots", "mask"]))
        if kind == "array" and (n or 0 in batch):
            items.append(draw(hnp.arrays(np.int64, batch, elements=st.integers(-n, max(n - 1, 0)) if n else st.just(0))))
        elif kind == "int" and n:
            items.append(draw(st.integers(-n, n - 1)))
        elif kind == "none":
            items.append(None)
            continue
        elif kind == "dots" and Ellipsis not in [i for i in items if i is None or i is Ellipsis or isinstance(i, slice)]:
            items.append(Ellipsis)
            axis += draw(st.integers(0, len(shape) - axis))
            continue
        elif kind == "mask" and len(batch) <= 1:
            mask = np.zeros(n, bool)
            count = batch[0] if batch else 1
            if count <= n:
                mask[draw(st.permutations(range(n)))[:count] if count else []] = True
                items.append(mask)
            else:
                items.append(slice(None))
        else:
            items.append(draw(st.slices(n)))
        axis += 1
    return x, tuple(items)


def _legal(x, index):
    try:
        return x[index]
    except IndexError:
        return None


@pytest.mark.parametrize("name", BACKENDS)
@given(data=st.data())
def test_indexing_reads_and_writes_as_numpy(name, data):
    x, index = data.draw(index_and_array())
    want = _legal(x, index)
    if want is None:
        return
    with md.use_backend(name):
        t = md.asarray(x)
        moved = tuple(md.asarray(i) if isinstance(i, np.ndarray) and i.dtype != bool and data.draw(st.booleans()) else i for i in index) \
            if isinstance(index, tuple) else index  # fmt: skip
        same(t[moved], want)
        value = np.arange(np.prod(want.shape), dtype=np.float64).reshape(want.shape) + 100
        changed = x.copy()
        changed[index] = value
        same(t.at[moved].set(md.asarray(value)), changed)
        added = x.copy()
        np.add.at(added, index, value)
        same(t.at[moved].add(md.asarray(value)), added)
        t[moved] = 5
        changed[index] = 5
        same(t, changed)


@pytest.mark.parametrize("name", BACKENDS)
@given(case=index_and_array())
def test_gradient_of_indexing_puts_ones_where_it_read(name, case):
    x, index = case
    if _legal(x, index) is None:
        return
    with md.use_backend(name):
        t = md.asarray(x).requires_grad_()
        (t[index] * 2).sum().backward()
        want = np.zeros_like(x)
        np.add.at(want, index, 2)
        same(t.grad, want)


def test_at(backend):
    x = md.arange(5, dtype="float64")
    assert x.at[1:3].multiply(10).tolist() == [0, 10, 20, 3, 4]
    assert x.at[[0, 0, 4]].add(1).tolist() == [2, 1, 2, 3, 5]
    assert x.at[::-2].min(1).tolist() == [0, 1, 1, 3, 1]
    assert x.at[md.asarray([1, 1])].max(md.asarray([7.0, 9.0])).tolist() == [0, 9, 2, 3, 4]
    assert x.at[[1, 1]].set(md.asarray([5.0, 6.0])).tolist() == [0, 6, 2, 3, 4]
    assert x.at[x > 2].set(0).tolist() == [0, 1, 2, 0, 0]
    assert x.at[2].get().item() == 2
    assert x.tolist() == [0, 1, 2, 3, 4]


def test_masks(backend):
    x = md.arange(6, dtype="float32").reshape(2, 3)
    assert x[x > 2].tolist() == [3, 4, 5]
    x[x > 3] = 0
    assert x.tolist() == [[0, 1, 2], [3, 0, 0]]
    x[md.asarray([True, False])] = md.asarray([7.0, 8.0, 9.0])
    assert x.tolist() == [[7, 8, 9], [3, 0, 0]]
    x[x == 0] = md.asarray([1.0, 2.0])
    assert x.tolist() == [[7, 8, 9], [3, 1, 2]]
    assert [i.tolist() for i in md.nonzero(x > 7)] == [[0, 0], [1, 2]]


def test_setitem_is_differentiable_on_values(backend):
    v = md.tensor([1.0, 2.0], requires_grad=True)
    x = md.zeros((3, 2))
    x[1] = v
    x[2, ::-1] = v * 3
    (x * md.asarray(np.arange(6, dtype=np.float32).reshape(3, 2))).sum().backward()
    assert v.grad.tolist() == [2 + 15, 3 + 12]
    leaf = md.zeros(2).requires_grad_()
    with pytest.raises(RuntimeError, match="no_grad"):
        leaf[0] = 1
    with md.no_grad():
        leaf[0] = 1
    assert leaf.tolist() == [1, 0] and leaf.requires_grad


def test_indexing_is_a_value_not_a_view(backend):
    x = md.zeros((2, 2))
    y = x[:]
    y += 1
    row = x[0]
    row += 1
    assert x.tolist() == [[0, 0], [0, 0]] and y.tolist() == [[1, 1], [1, 1]]
    row.add_(1)  # it is a value of its own since
    x[0] += 2
    x[1].add_(5)  # what nobody writes who does not mean x
    assert x.tolist() == [[2, 2], [5, 5]] and row.tolist() == [2, 2]


def test_take(backend):
    x = numbers(3, 4)
    t = md.asarray(x)
    same(md.take(t, md.asarray([0, -1]), axis=1), np.take(x, [0, -1], 1))
    i = np.argsort(x, 1)
    same(md.take_along_axis(t, md.asarray(i), axis=1), np.take_along_axis(x, i, 1))
    same(md.take_along_axis(t, md.asarray([[1], [0], [-1]]), axis=1), np.take_along_axis(x, np.array([[1], [0], [-1]]), 1))
    same(md.take_along_axis(t, md.asarray([[2, 0, 1, 1]]), axis=0), np.take_along_axis(x, np.array([[2, 0, 1, 1]]), 0))
    for f in (md.take_along_axis, md.jit(md.take_along_axis, static_argnames="axis")):
        for shape in ((4, 3), (2, 3)):  # torch would cut the second off
            with pytest.raises(ValueError, match="differ outside axis 1$"):
                f(t, md.zeros(shape, dtype=md.int64), axis=1)


def test_sums_and_products_of_small_integers_wrap_around_in_their_own_dtype(backend):
    x = np.array([[100, 100, 3], [3, 4, 120]])

    def every(*xs):
        found = []
        for v in xs:
            found += [md.sum(v, axis=0, dtype=v.dtype), md.prod(v, axis=1, dtype=v.dtype), md.cumulative_sum(v, axis=1, dtype=v.dtype)]
            found += [md.cumulative_prod(v, axis=1, dtype=v.dtype), md.einsum("ij->", v)]
        return found

    kinds = ("int8", "uint8", "int16", "int32", "uint32")
    for f in (every, md.jit(every)) if backend != "jax" else (md.jit(every),):
        found = iter(f(*(md.asarray(x.astype(k)) for k in kinds)))
        for k in kinds:
            v = x.astype(k)
            for want in (v.sum(0, dtype=k), v.prod(1, dtype=k), v.cumsum(1, dtype=k), v.cumprod(1, dtype=k), v.sum(dtype=k)):
                got = next(found)
                assert got.dtype.name == str(got.numpy().dtype) == k
                np.testing.assert_array_equal(got.numpy(), want)


# ---- order ----------------------------------------------------------------------------------------------------------------------------
def test_sorting(backend):
    x = np.array([[3.0, 1, np.nan, 1, 2], [0, -0.0, 5, -np.inf, np.inf]])
    t = md.asarray(x)
    for axis in (0, 1):
        same(md.sort(t, axis), np.sort(x, axis))
        same(md.argsort(t, axis), np.argsort(x, axis, stable=True))
    assert md.argsort(md.asarray([1, 3, 3, 2]), descending=True).tolist() == [1, 2, 3, 0]
    values, places = md.topk(md.asarray([1, 5, 5, 2]), 3)
    assert values.tolist() == [5, 5, 2] and places.tolist() == [1, 2, 3]
    assert md.asarray([4, 1, 3]).topk(2, largest=False).values.tolist() == [1, 3]


@pytest.mark.parametrize("name", BACKENDS)
@given(
    x=hnp.arrays(np.float64, st.integers(0, 9), elements=st.floats(-3, 3, width=16) | st.just(math.nan)),
    v=hnp.arrays(np.float64, st.integers(0, 5), elements=st.floats(-3, 3, width=16) | st.just(math.nan)),
    side=st.sampled_from(["left", "right"]),
)
def test_searchsorted(name, x, v, side):
    x = np.sort(x)
    with md.use_backend(name):
        same(md.searchsorted(md.asarray(x), md.asarray(v), side=side), np.searchsorted(x, v, side))


def test_unique(backend):
    x = md.asarray([[3.0, 1.0], [1.0, 2.0]]).requires_grad_()
    out = md.unique_all(x)
    assert out.values.tolist() == [1, 2, 3] and out.counts.tolist() == [2, 1, 1] and out.indices.tolist() == [1, 3, 0]
    assert out.inverse_indices.tolist() == [[2, 0], [0, 1]] and md.unique_values(x).tolist() == [1, 2, 3]
    out.values.sum().backward()
    assert x.grad.tolist() == [[1, 1], [0, 1]]


# ---- products -------------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "a, b",
    [((3,), (3,)), ((2, 3), (3,)), ((3,), (3, 4)), ((2, 3), (3, 4)), ((5, 2, 3), (3, 4)), ((2, 3), (5, 3, 4)), ((5, 2, 3), (5, 3, 4)),
     ((7, 1, 2, 3), (5, 3, 4)), ((3,), (5, 3, 4)), ((5, 2, 3), (3,)), ((0, 3), (3, 2)), ((2, 0), (0, 2)), ((1, 2, 3), (4, 3, 2)),
     ((2, 6, 2, 3), (3, 4))],
)  # fmt: skip
def test_matmul_and_its_gradient(backend, a, b):
    x, y = numbers(*a), numbers(*b, seed=1)
    s, t = md.asarray(x).requires_grad_(), md.asarray(y).requires_grad_()
    out = s @ t
    same(out, x @ y, exact=False)
    w = numbers(*out.shape, seed=2)
    (out * md.asarray(w)).sum().backward()
    # the adjoint identity, with the product itself as the linear map
    u, v = numbers(*a, seed=3), numbers(*b, seed=4)
    np.testing.assert_allclose((s.grad.numpy() * u).sum(), (w * (u @ y)).sum(), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose((t.grad.numpy() * v).sum(), (w * (x @ v)).sum(), rtol=1e-10, atol=1e-12)


EINSUMS = [
    ("ij,jk->ik", (2, 3), (3, 4)), ("ij,jk", (2, 3), (3, 4)), ("ii", (3, 3)), ("ii->i", (3, 3)), ("ij->ji", (2, 3)), ("ij->", (2, 3)),
    ("i,j->ij", (2,), (3,)), ("i,i->i", (3,), (3,)), ("i,i", (3,), (3,)), ("bij,bjk->bik", (5, 2, 3), (5, 3, 4)),
    ("...ij,...jk->...ik", (5, 2, 3), (3, 4)), ("...ij,...jk->...ik", (5, 1, 2, 3), (4, 3, 4)), ("...i->...", (2, 3)),
    ("ij,jk,kl->il", (2, 3), (3, 4), (4, 5)), ("ij,ik,il->jkl", (2, 3), (2, 4), (2, 5)), ("iij,jk->ik", (3, 3, 2), (2, 4)),
    ("ij,kl->jl", (2, 3), (4, 5)), ("ab,cd,ef,bd,ac->ef", (2, 3), (2, 4), (3, 2), (3, 4), (2, 2)), ("i,->i", (3,), ()), ("ij,ij->j", (2, 3), (1, 3)),
    ("bhqd,bhkd->bhqk", (2, 2, 3, 4), (2, 2, 5, 4)), ("ijk,ilm,njm,nlk,abc->", (2, 3, 4), (2, 5, 6), (2, 3, 6), (2, 5, 4), (1, 2, 3)),
]  # fmt: skip


@pytest.mark.parametrize("row", EINSUMS, ids=lambda r: r[0])
def test_einsum(backend, row):
    text, *sizes = row
    xs = [numbers(*s, seed=i) for i, s in enumerate(sizes)]
    ts = [md.asarray(x).requires_grad_() for x in xs]
    out = md.einsum(text, *ts)
    want = np.einsum(text, *xs)
    assert out.shape == want.shape
    np.testing.assert_allclose(out.detach().numpy(), want, rtol=1e-11, atol=1e-12)
    (out * out).sum().backward()
    for i, t in enumerate(ts):
        u = numbers(*sizes[i], seed=9)
        moved = np.einsum(text, *(u if k == i else x for k, x in enumerate(xs)))
        np.testing.assert_allclose((t.grad.numpy() * u).sum(), (2 * want * moved).sum(), rtol=1e-9, atol=1e-10)


def test_other_products(backend):
    x, y = numbers(2, 3, 4), numbers(4, 3, 5, seed=1)
    s, t = md.asarray(x), md.asarray(y)
    same(md.tensordot(s, t, axes=1), np.tensordot(x, y, 1), exact=False)
    same(md.tensordot(s, t, axes=((1, 2), (1, 0))), np.tensordot(x, y, ((1, 2), (1, 0))), exact=False)
    same(md.vecdot(s, s), (x * x).sum(-1), exact=False)
    same(md.outer(s[0, 0], t[0, 0]), np.outer(x[0, 0], y[0, 0]), exact=False)
    same(md.dot(s, md.asarray(numbers(5, 4, 2))), np.dot(x, numbers(5, 4, 2)), exact=False)
    z = numbers(3) + 1j * numbers(3, seed=1)
    same(md.vecdot(md.asarray(z), md.asarray(z)), np.vdot(z, z), exact=False)
    assert (md.arange(3) @ md.arange(3)).item() == 5


# ---- windows --------------------------------------------------------------------------------------------------------------------------
def _slow_conv(x, w, stride, padding, dilation, groups):
    n = w.ndim - 2
    x = np.pad(x, [(0, 0), (0, 0)] + [(padding, padding)] * n)
    per = w.shape[0] // groups
    sizes = [(s - dilation * (k - 1) - 1) // stride + 1 for s, k in zip(x.shape[2:], w.shape[2:], strict=True)]
    out = np.zeros((x.shape[0], w.shape[0], *sizes))
    for place in np.ndindex(*sizes):
        window = x[
            (
                slice(None),
                slice(None),
                *(slice(p * stride, p * stride + dilation * (k - 1) + 1, dilation) for p, k in zip(place, w.shape[2:], strict=True)),
            )
        ]
        for o in range(w.shape[0]):
            g = o // per
            part = window[:, g * w.shape[1] : (g + 1) * w.shape[1]]
            out[(slice(None), o, *place)] = (part * w[o]).sum(axis=tuple(range(1, part.ndim)))
    return out


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("stride, padding, dilation, groups", [(1, 0, 1, 1), (2, 1, 1, 2), (1, 2, 2, 1)])
def test_convolution_and_its_transpose(backend, n, stride, padding, dilation, groups):
    x, w = numbers(2, 4, *(7, 6, 5)[:n]), numbers(6, 4 // groups, *(3, 2, 2)[:n], seed=1)
    want = _slow_conv(x, w, stride, padding, dilation, groups)
    got = md.conv(md.asarray(x), md.asarray(w), stride=stride, padding=padding, dilation=dilation, groups=groups)
    same(got, want, exact=False)
    g = numbers(*want.shape, seed=2)
    t = md.asarray(x).requires_grad_()
    (md.conv(t, md.asarray(w), stride=stride, padding=padding, dilation=dilation, groups=groups) * md.asarray(g)).sum().backward()
    back = md.conv_transpose(md.asarray(g), md.asarray(w), stride=stride, padding=padding, dilation=dilation, groups=groups)
    grad = t.grad.numpy()[(slice(None), slice(None), *(slice(0, s) for s in back.shape[2:]))]
    np.testing.assert_allclose(back.numpy(), grad, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("x, w", [
    ((2, 0, 5), (3, 0, 2)), ((0, 2, 5), (3, 2, 2)), ((2, 2, 5), (0, 2, 3)), ((0, 0, 5), (0, 0, 2)), ((2, 0, 5, 4), (0, 0, 2, 3)),
    ((2, 0, 3, 3, 3), (2, 0, 1, 2, 3)),
])  # fmt: skip
def test_windows_of_nothing(backend, x, w):
    """No examples, no channels, no outputs: sums of nothing are 0, and every derivative has the shape of its argument."""
    a, b, c = md.ones(x), md.ones(w), md.ones(w[:1])
    want = np.zeros((x[0], w[0], *(n - k + 1 for n, k in zip(x[2:], w[2:], strict=True))), np.float32)
    conv = getattr(md.nn.functional, f"conv{len(x) - 2}d")
    second = lambda a, b: md.grad(lambda b: md.sum(md.square(md.grad(lambda a, b: md.sum(md.square(md.conv(a, b))))(a, b))))(b)
    for run in (lambda f: f, md.jit):
        got = run(md.conv)(a, b)
        assert got.shape == want.shape and not got.numpy().any()
        got = run(conv)(a, b, c)
        assert got.shape == want.shape and (got.numpy() == 1).all()
        for i, shape in enumerate((x, w)):
            same(run(md.grad(lambda a, b: md.sum(md.square(md.conv(a, b))), argnums=i))(a, b), np.zeros(shape, np.float32))
        same(run(second)(a, b), np.zeros(w, np.float32))
        for dtype in ("int32", "complex64"):
            got = run(md.conv)(md.ones(x, dtype=dtype), md.ones(w, dtype=dtype))
            assert got.shape == want.shape and got.dtype is md.dtypes.canonical(dtype)
        if 0 in x[:2]:
            for pool in (md.max_pool, md.avg_pool):
                out = run(lambda a, pool=pool: pool(a, 2, stride=1))
                assert out(a).shape == (*x[:2], *(n - 1 for n in x[2:]))
                same(run(md.grad(lambda a, pool=pool: md.sum(md.square(pool(a, 2, stride=1)))))(a), np.zeros(x, np.float32))


def test_same_padding_and_pools(backend):
    x = numbers(2, 3, 7, 6)
    t = md.asarray(x)
    assert md.conv(t, md.ones((5, 3, 3, 4), dtype="float64"), padding="same", stride=2).shape == (2, 5, 4, 3)
    tiles = x[:, :, :6].reshape(2, 3, 3, 2, 3, 2)
    same(md.max_pool(t, 2), tiles.max((3, 5)))
    same(md.avg_pool(t, 2), tiles.mean((3, 5)), exact=False)
    same(md.avg_pool(t[:, :, :6], 2), tiles.mean((3, 5)), exact=False)
    kernel = np.zeros((3, 3, 3, 3))
    kernel[range(3), range(3)] = 1 / 9
    same(md.avg_pool(t, 3, stride=2, padding=1), _slow_conv(x, kernel, 2, 1, 1, 1), exact=False)
    assert md.avg_pool(md.ones((1, 1, 4)), 3, stride=1, padding=1, count_include_pad=False).tolist() == [[[1, 1, 1, 1]]]
    out, places = md.max_pool(md.asarray([[[1.0, 5.0, 5.0, 2.0]]]), 2, stride=1, return_indices=True)
    assert out.tolist() == [[[5, 5, 5]]] and places.tolist() == [[[1, 0, 0]]]
    with pytest.raises(ValueError, match="avg_pool"):
        md.avg_pool(t, 9)


# ---- what a tensor does ---------------------------------------------------------------------------------------------------------------
def test_every_function_of_an_array_is_a_method():
    assert {m: sorted(importlib.import_module(f"minidl.{m}").__all__) for m in md._ARRAYS} == {m: n.split() for m, n in md._ARRAYS.items()}
    functions = [*ops.functions, *" ".join(md._ARRAYS.values()).split()]
    without = {*ops.methods._NO_METHODS, *md._ARRAYS["arrays.grids"].split()}
    assert [n for n in functions if hasattr(md.Tensor, n) == (n in without)] in ([], ["where"])  # which PyTorch has as a method
    assert all(getattr(md, n).__doc__ for n in functions)


def test_importing_minidl_does_not_load_the_array_functions_beside_the_core():
    code = """
import sys, minidl as md
x = md.ones((2, 2)).requires_grad_()
assert not {m for m in sys.modules if m.startswith("minidl.arrays")}
assert x.std(dim=0).tolist() == [0.0, 0.0] and md.Tensor.norm(x).item() == 2.0 and md.jit(lambda v: v.repeat(2).chunk(2)[0])(x).tolist() == [1.0] * 4
assert md.std is sys.modules["minidl.arrays.statistics"].std and "minidl.arrays.windows" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_in_place(backend):
    x = md.asarray([1.0, 2.0])
    same_object = x
    x += 1
    x *= md.asarray([2.0, 3.0], dtype="float64")
    x -= 1
    x /= 2
    assert x is same_object and x.tolist() == [1.5, 4.0] and x.dtype is md.float32
    x.add_(1).mul_(2).sub_(1).div_(2).clamp_(0, 3)
    assert x.tolist() == [2, 3]
    assert x.zero_().tolist() == [0, 0] and x.fill_(3).tolist() == [3, 3] and x.copy_(np.array([1, 2])).tolist() == [1, 2]
    i = md.asarray([1, 2])
    with pytest.raises(TypeError, match="in-place"):
        i += 1.5
    with pytest.raises(ValueError, match="in-place"):
        x += md.ones((2, 2))


def test_conversions(backend):
    x = md.tensor([[1.5]], requires_grad=True)
    assert x.item() == 1.5 and float(x) == 1.5 and int(x) == 1 and bool(x) and f"{x:.2f}" == "1.50" and x.tolist() == [[1.5]]
    with pytest.raises(RuntimeError, match="detach"):
        x.numpy()
    with pytest.raises(RuntimeError, match="detach"):
        np.asarray(x)
    data = x.detach().numpy()
    data[0, 0] = 9
    assert x.item() == 1.5 and np.asarray(x.detach()).dtype == np.float32
    assert not np.asarray(x.detach(), copy=False).flags.writeable
    assert [10, 20, 30][md.asarray(1)] == 20 and list(range(5))[md.asarray(2) :] == [2, 3, 4]
    with pytest.raises(TypeError, match="index"):
        [1][md.asarray(1.0)]
    assert len(md.ones((3, 2))) == 3 and [r.tolist() for r in md.arange(4).reshape(2, 2)] == [[0, 1], [2, 3]]
    assert 2 in md.arange(3) and 5 not in md.arange(3)
    assert len({x, x, md.ones(1)}) == 2
    assert md.ones(1).__array_namespace__() is md
    shown = repr(x)
    assert "1.5" in shown and "float32" in shown and backend in shown and "requires_grad=True" in shown
    assert "[1.5]" in repr(md.tensor([1.5], dtype=md.bfloat16))


def test_copies_and_pickles(backend):
    x = md.tensor([1.0, 2.0], requires_grad=True)
    (x * x).sum().backward()
    for y in (copy.copy(x), copy.deepcopy(x), pickle.loads(pickle.dumps(x))):
        assert y is not x and y.tolist() == [1, 2] and y.requires_grad and y.is_leaf and y.backend == backend
    assert copy.deepcopy(x).grad.tolist() == [2, 4]
    both = copy.deepcopy([x, x])
    assert both[0] is both[1]
    with pytest.raises(RuntimeError, match="deepcopy"):
        copy.deepcopy(x * 2)
    c = x.clone()
    assert not c.is_leaf and c.requires_grad
    assert pickle.loads(pickle.dumps(md.bfloat16)) is md.bfloat16
    assert pickle.loads(pickle.dumps(md.tensor([1.5], dtype=md.bfloat16))).tolist() == [1.5]


def test_to_crosses_backends_differentiably(backend):
    x = md.tensor([1.0, 2.0], requires_grad=True)
    for other in BACKENDS:
        x.grad = None
        y = x.to(other, md.float64)
        assert y.backend == other and y.dtype is md.float64
        z = (y * y).to(backend)
        assert z.backend == backend
        (g,) = md.autograd.grad(z.sum(), x, create_graph=True)
        assert g.backend == backend and g.tolist() == [2, 4]
        g.sum().backward()
        assert x.grad.tolist() == [2, 2]
        x.grad = None
        (x.to(other) ** 3).sum().backward()
        assert x.grad.tolist() == [3, 12]
        if other != backend:
            with pytest.raises(RuntimeError, match="two backends"):
                x + x.to(other)
    assert x.to(x) is x and x.to("float32") is x and x.cpu() is x and x.double().dtype is md.float64 and x.long().dtype is md.int64


def test_info():
    assert md.finfo(md.bfloat16).eps == 2**-7 and md.finfo("complex64").dtype is md.float32 and md.iinfo("uint8").max == 255
    assert md.isdtype(md.int8, "signed integer") and not md.isdtype(md.int8, "real floating") and md.isdtype(md.bool, ("bool", "integral"))
    assert md.can_cast(md.int8, md.int16) and not md.can_cast(md.float32, md.int64) and not md.can_cast(md.uint64, md.int64)
    assert md.result_type(md.int32, md.float16, 1.0) is md.float16 and md.result_type(md.ones(1), 1j) is md.complex64


def test_values_of_batched_tensors_are_refused_by_name():
    for what, call in [("item", lambda x: x.item()), ("bool", lambda x: bool(x > 0)), ("numpy", lambda x: x.numpy()), ("nonzero", md.nonzero)]:
        with pytest.raises(TypeError, match=what):
            md.vmap(lambda x, call=call: call(x) and x)(md.ones((2, 1)))
    with pytest.raises(TypeError, match=r"md\.where"):
        md.vmap(lambda x: x[x > 0])(md.ones((2, 3)))
    out = md.vmap(lambda x, i: x[i])(md.asarray([[1.0, 2.0], [3.0, 4.0]]), md.asarray([1, -2]))
    assert out.tolist() == [2, 3]
    out = md.vmap(lambda x, i: x.at[i].set(0))(md.asarray([[1.0, 2.0], [3.0, 4.0]]), md.asarray([1, 5]))
    assert out.tolist() == [[1, 0], [3, 4]]


def test_a_pass_over_several_backends_keeps_double_precision(backend):
    for other in BACKENDS:
        x = md.tensor([1 / 3, 2.0], dtype=md.float64, requires_grad=True)
        with md.use_backend(other):
            loss = ((x.exp() * x).to(other).sin() * 2.0).to(backend).floor().sum() + (x * x).to(other).relu().sum().to(backend)
            loss.backward()
        assert x.grad.dtype is md.float64 and x.grad.backend == backend
        np.testing.assert_allclose(x.grad.numpy(), [2 / 3, 4.0], rtol=1e-15)
        (tangent,) = (md.jvp(lambda v, other=other: v.exp().to(other).sin().to(backend), (x.detach(),), (md.ones_like(x),))[1],)
        e = np.exp(x.detach().numpy())
        np.testing.assert_allclose(tangent.numpy(), e * np.cos(e), rtol=1e-13)


def test_log_softmax_at_places(backend):
    x = np.array([[1.0, 3.0, -2.0], [np.inf, 0.0, np.inf], [-np.inf, 2.0, 1.0], [-np.inf] * 3, [np.nan, 1.0, 2.0]])
    with md.use_backend(backend):
        t = md.asarray(x)
        whole = md.log_softmax(t, axis=1).numpy()
        for k in (-5, -1, 0, 1, 2, 3, 2**32 + 1):
            at = md.asarray(np.full(5, k))
            want = whole[:, k] if 0 <= k < 3 else np.zeros(5)
            for found in (md.log_softmax(t, at=at), md.log_softmax(t.T, axis=0, at=at), md.jit(lambda v, i: md.log_softmax(v, at=i))(t, at)):
                np.testing.assert_allclose(found.numpy(), want, rtol=1e-12)
        with pytest.raises(ValueError, match="places"):
            md.log_softmax(t, at=md.asarray([0, 1]))
        rows = md.vmap(md.grad(lambda v, i: md.log_softmax(v, at=i)))(t[:1], md.asarray([1])).numpy()
        soft = np.exp(whole[0])
        np.testing.assert_allclose(rows[0], np.array([0, 1, 0]) - soft, rtol=1e-12)


@pytest.mark.parametrize("backend", [name for name in ("numpy", "torch") if name in BACKENDS])  # those with a kernel for it
@given(st.data())
def test_topk_is_the_first_of_a_stable_sort(backend, data):
    shapes = hnp.array_shapes(max_dims=3, min_side=0, max_side=9), st.sampled_from([(1200,), (3, 400), (9, 25, 6)])
    shape = data.draw(st.one_of(*shapes))
    elements = [st.sampled_from([0.0, -0.0, 1.0, 2.0, -3.0, np.inf, -np.inf, np.nan]), st.floats(width=32), st.integers(-2, 2).map(float)]
    a = data.draw(hnp.arrays(np.float32, shape, elements=data.draw(st.sampled_from(elements)), fill=st.nothing()))
    dtype = data.draw(st.sampled_from([md.float32, md.float64, md.float16, md.bfloat16, md.int32, md.uint8, md.uint64, md.bool]))
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    k, largest = data.draw(st.integers(0, shape[axis])), data.draw(st.booleans())
    if dtype.kind not in "float":
        a = np.abs(np.nan_to_num(a, posinf=7, neginf=8, nan=9) % 10)
    with md.use_backend(backend):
        x = md.asarray(a).astype(dtype)
        keep = x.numpy().copy()
        values, places = md.topk(x, k, axis, largest=largest)
        want = np.take(md.argsort(x, axis, descending=largest).numpy(), np.arange(k), axis)
        np.testing.assert_array_equal(places.numpy(), want)
        assert places.dtype is md.int64 and values.dtype is dtype
        np.testing.assert_array_equal(values.numpy().astype(np.float64), np.take_along_axis(x.numpy(), want, axis).astype(np.float64))
        np.testing.assert_array_equal(x.numpy().astype(np.float64), keep.astype(np.float64))


def test_topk_batched_and_differentiated(backend):
    a = np.random.default_rng(3).integers(0, 12, (4, 100, 3)).astype(np.float32)
    with md.use_backend(backend):
        x = md.asarray(a)
        for largest in (True, False):
            want = md.argsort(x, axis=1, descending=largest).numpy()[:, :2]

            def f(v, s=largest):
                return md.topk(v, 2, 0, largest=s).indices, md.grad(lambda v: md.topk(v, 2, 0, largest=s).values.sum())(v)

            for run in (lambda f: f, md.jit):
                places, slope = run(md.vmap(f))(x)
                np.testing.assert_array_equal(places.numpy(), want)
                marks = np.zeros_like(a)
                np.put_along_axis(marks, want, 1.0, 1)
                np.testing.assert_array_equal(slope.numpy(), marks)


def test_the_largest_number_beside_infinity_has_no_part_in_a_softmax(backend):
    big = np.finfo(np.float32).max
    x = np.array(list(itertools.product((big, np.nextafter(big, np.float32(0)), np.inf, -np.inf, 1.0, -big, np.nan), repeat=3)), np.float32)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        high = x.max(1, keepdims=True)
        low = np.where(high == -np.inf, 0, high)
        below = np.where(x == low, 0, x - low)
        total = np.exp(below).sum(1, keepdims=True)
        soft, logs = np.exp(below) / np.where(total, total, 1), below - np.log(np.where(total, total, 1))
    with md.use_backend(backend):
        t = md.asarray(x)
        for run in (lambda f: f, md.jit):
            np.testing.assert_allclose(run(lambda v: md.softmax(v, axis=1))(t).numpy(), soft, rtol=1e-6)
            np.testing.assert_allclose(run(lambda v: md.log_softmax(v, axis=1))(t).numpy(), logs, rtol=1e-6)
            both = run(lambda v, i: (md.log_softmax(v, axis=1, at=i), md.grad(lambda v: md.log_softmax(v, axis=1, at=i).sum())(v)))
            for k in range(3):
                found, slope = both(t, md.full((len(x),), k))
                np.testing.assert_allclose(found.numpy(), logs[:, k], rtol=1e-6)
                np.testing.assert_allclose(slope.numpy(), np.where(high == -np.inf, 0, (np.arange(3) == k) - soft), rtol=1e-6, atol=1e-7)


def test_the_number_of_elements_is_a_number_to_operations(backend):
    x = md.ones((2, 3))
    for _ in range(2):
        assert (x * x.size).tolist() == [[6.0] * 3] * 2 and (x * 3 / x.size).tolist() == [[0.5] * 3] * 2
        assert (x - x.size).tolist() == [[-5.0] * 3] * 2 and (x + x.size).tolist() == [[7.0] * 3] * 2
