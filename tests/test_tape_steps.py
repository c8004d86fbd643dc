"""Eager steps: derivatives that a library has as one call, differences instead of negatives that are added, settings that are looked at once."""

from __future__ import annotations

import numpy as np
import pytest

import minidl as md
from minidl.backends import get
from minidl.graph import Graph

BACKENDS = ("numpy", "torch", "numba", "jax")
EDGES = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1.0, -2.5, 3.0], np.float32)


def program(f, *args):
    """The names of the primitives in the traced function."""
    return [e.primitive.name for e in md.trace(f)(*args).equations]


@pytest.mark.parametrize("f", [md.tanh, md.sigmoid])
def test_a_derivative_is_one_step_of_a_program_and_one_call_on_torch(f, monkeypatch):
    name = f"{f.__name__}_dx"
    with md.use_backend("torch"):
        x = md.tensor(np.linspace(-3, 3, 7).astype(np.float32), requires_grad=True)
        assert program(lambda x: md.grad(lambda v: f(v).sum())(x), x.detach()).count(name) == 1
        calls, own = [], getattr(get("torch").bare, name)
        monkeypatch.setattr(get("torch").bare, name, lambda *args: calls.append(args) or own(*args))
        f(x).sum().backward()
        assert len(calls) == 1


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("f", [md.tanh, md.sigmoid])
def test_derivatives_of_the_first_three_orders(f, backend):
    """Against the closed forms in the result y."""
    x = np.linspace(-2, 2, 5)
    y = np.tanh(x) if f is md.tanh else 1 / (1 + np.exp(-x))
    d = 1 - y * y if f is md.tanh else y * (1 - y)
    dd = -2 * y * d if f is md.tanh else d * (1 - 2 * y)
    ddd = d * (6 * y * y - 2) if f is md.tanh else d * (1 - 6 * d)
    with md.use_backend(backend):
        t, g = md.tensor(x), lambda h: md.grad(lambda v: h(v).sum())
        for order, want in ((1, d), (2, dd), (3, ddd)):
            h = f
            for _ in range(order):
                h = g(h)
            np.testing.assert_allclose(h(t).numpy(), want, rtol=1e-12, atol=1e-13)
            if order == 2:
                np.testing.assert_allclose(md.jit(h)(t).numpy(), want, rtol=1e-12, atol=1e-13)
                np.testing.assert_allclose(md.vmap(h)(t.reshape((5, 1))).numpy()[:, 0], want, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "complex64"])
@pytest.mark.parametrize("name", ["tanh_dx", "sigmoid_dx"])
def test_one_call_is_the_steps_at_the_edges(name, dtype, backend):
    """Of the values that tanh and sigmoid may have; infinite, nan and zero cotangents of both signs come out as they do step by step."""
    with md.use_backend(backend):
        g = md.tensor(np.repeat(EDGES, 3)).to(dtype)
        y = md.tensor(np.tile(np.array([1.0, -1.0, 0.25] if name == "tanh_dx" else [1.0, 0.0, 0.25], np.float32), len(EDGES))).to(dtype)
        wide = "complex128" if dtype == "complex64" else "float64"
        a, b = g.to(wide).numpy(), y.to(wide).numpy()
        with np.errstate(invalid="ignore"):
            want = a * (1 - b * b) if name == "tanh_dx" else a * (b * (1 - b))
        xp = get(backend)
        for space in (xp, xp.bare):
            with xp.scope():
                got = md.Tensor(getattr(space, name)(g.payload, y.payload), xp, g.dtype).to(wide).numpy()
            np.testing.assert_array_equal(np.isnan(got.real), np.isnan(want.real))
            np.testing.assert_allclose(got.real, want.real, rtol=1e-2 if "16" in dtype else 1e-6)
            np.testing.assert_array_equal(np.signbit(got.real[want.real == 0]), np.signbit(want.real[want.real == 0]))


@pytest.mark.parametrize("backend", ["numpy", "torch"])
def test_a_difference_has_the_bits_of_a_sum_with_the_negative(backend):
    """x is subtracted, and read elsewhere before and after: the raw pass against the one on tensors, which adds negatives."""
    pairs = np.array([(a, b) for a in EDGES for b in EDGES], np.float32)
    with md.use_backend(backend):
        for dtype in (np.float32, np.float64, np.complex64):
            c = md.tensor(pairs[:, 0].astype(dtype))
            if dtype is np.complex64:
                c = md.tensor((pairs[:, 0] + 0 * 1j).astype(dtype))
            x, y = (md.tensor(pairs[:, 1].astype(dtype), requires_grad=True) for _ in range(2))
            out = (y - x) - (x - y) - x * c  # y first and x twice, from both sides
            seed = md.tensor(pairs[::-1, 0].astype(dtype).copy())
            raw = md.autograd.grad(out, (x, y), seed, retain_graph=True)
            recorded = md.autograd.grad(out, (x, y), seed, create_graph=True)
            for a, b in zip(raw, recorded, strict=True):
                np.testing.assert_array_equal(a.numpy(), b.detach().numpy())
                zero = a.numpy() == 0
                np.testing.assert_array_equal(np.signbit(a.numpy()[zero].real), np.signbit(b.detach().numpy()[zero].real))


def test_a_difference_leaves_its_operands_alone():
    """What was waiting for a node may be the cotangent of another one."""
    for backend in ("numpy", "torch"):
        with md.use_backend(backend):
            x, y = (md.tensor([1.0, 2.0], requires_grad=True) for _ in range(2))
            kept = md.tensor([5.0, 7.0])
            ((x + y) - x).backward(kept)
            assert (x.grad.tolist(), y.grad.tolist(), kept.tolist()) == ([0.0, 0.0], [5.0, 7.0], [5.0, 7.0])


def test_a_program_writes_the_derivative_over_what_dies():
    """On torch a large one lies in planned memory, and a result is nobody else's."""
    x = np.linspace(-1, 1, 2**15).astype(np.float32)
    with md.use_backend("torch"):
        f = md.jit(md.grad(lambda v: (md.tanh(v) * md.sigmoid(v)).sum()))
        first = f(md.tensor(x))
        kept = first.numpy().copy()
        second = f(md.tensor(-x))
        np.testing.assert_array_equal(first.numpy(), kept)
        t, s = np.tanh(x.astype(np.float64)), 1 / (1 + np.exp(-x.astype(np.float64)))
        np.testing.assert_allclose(kept, (1 - t * t) * s + t * s * (1 - s), rtol=1e-4, atol=1e-6)
        assert not np.array_equal(second.numpy(), kept)
        assert isinstance(md.trace(md.grad(lambda v: md.tanh(v).sum()))(md.tensor(x)), Graph)


# ---- what is checked once ---------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("bad", [1.0, (1.0, 1.0), ("1", 1), ((1, 1.0), (1, 1))])
def test_settings_that_are_equal_to_known_ones_are_still_looked_at(bad):
    """1.0 is equal to 1, and no size."""
    x, w = md.ones((1, 2, 6, 6)), md.ones((3, 2, 2, 2))
    good = md.conv(x, w, stride=1, padding=1, dilation=(1, 1))
    md.conv(x, w, stride=(1, 1), padding=((1, 1), (1, 1)))
    assert good.shape == (1, 3, 7, 7)
    for _ in range(2):
        with pytest.raises((TypeError, ValueError), match="conv|integer"):
            md.conv(x, w, padding=bad)
        if bad != ((1, 1.0), (1, 1)):
            with pytest.raises((TypeError, ValueError), match="conv|integer"):
                md.conv(x, w, stride=bad)
            with pytest.raises((TypeError, ValueError), match="max_pool|integer"):
                md.max_pool(x, 2, stride=bad)


def test_a_shape_is_checked_whatever_was_seen_before():
    """The rule runs once for shapes, dtypes and params together; another of any of them is looked at anew, and what was refused stays refused."""
    x, w = md.ones((1, 2, 6, 6)), md.ones((3, 2, 2, 2))
    for _ in range(2):
        assert md.conv(x, w).shape == (1, 3, 5, 5)
        assert md.conv(x, w, stride=2).shape == (1, 3, 3, 3)
        assert md.conv(x, w, padding="same").shape == (1, 3, 6, 6)
        with pytest.raises(ValueError, match="conv: f32"):
            md.conv(md.ones((1, 3, 6, 6)), w)
        with pytest.raises(ValueError, match="larger than the padded input"):
            md.conv(md.ones((1, 2, 1, 6)), w)
        with pytest.raises(ValueError, match="max_pool"):
            md.max_pool(x, 2, padding=2)
        assert md.max_pool(x, 2).shape == (1, 2, 3, 3)


@pytest.mark.parametrize(
    ("shape", "axis", "first"),
    [
        ((32, 6, 28, 28), (0, 2, 3), (2, 3)), ((8, 128, 512), (0, 1), None), ((3, 5000), (1,), ()), ((70, 80, 90), (0, 1, 2), ()),
        ((70, 80, 90), (0, 2), (2,)), ((4, 4096, 2), (0, 1), (1,)), ((5000, 3), (0,), ()), ((2, 8192, 2), (0, 1), ()),
    ],
)  # fmt: skip
def test_a_long_sum_on_torch_is_two_short_ones(shape, axis, first):
    """Where both are short; as accurate as NumPy's, with the shape that was asked for."""
    torch_kernels = pytest.importorskip("minidl.backends.torch_kernels")
    assert torch_kernels._first(shape, axis) == first
    x = np.random.default_rng(4).normal(size=shape).astype(np.float32)
    with md.use_backend("torch"):
        for keep in (False, True):
            want, own = x.astype(np.float64).sum(axis, keepdims=keep), x.sum(axis, keepdims=keep)
            got = md.sum(md.tensor(x), axis=axis, keepdims=keep).numpy()
            assert got.shape == want.shape and abs(got - want).max() <= 2 * max(abs(own - want).max(), 1e-5)
