"""PyTorch on the CPU: comparisons and choices over many elements go other ways than over few, and mean the same to the last bit."""

from __future__ import annotations

import numpy as np
import pytest

import minidl as md
from minidl.backends import get

torch = pytest.importorskip("torch")
F = md.nn.functional
SPECIAL = [np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0, -1.0, 6.0, 1e-45, 3e38, -2e3]


def many(dtype, shape=(130, 128)):
    rng = np.random.default_rng(0)
    x = rng.choice([*SPECIAL, *rng.normal(size=20)], shape)
    return torch.tensor(x).to(dtype) if dtype.is_floating_point else torch.tensor(rng.integers(-3, 3, shape)).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int32, torch.uint8, torch.uint32], ids=str)
def test_comparisons_of_many_elements_are_those_of_few(dtype):
    xp = get("torch")
    x, number = many(dtype), torch.tensor(1).to(dtype)
    for name in ("eq", "ne", "lt", "le", "gt", "ge"):
        compare = getattr(xp, name)
        for y in (many(dtype).flip(0), number, many(dtype)[:1]):
            got = compare(x, y)
            assert got.dtype is torch.bool
            rows = [compare(x[i : i + 1], y if len(y.shape) < 2 else y[i % len(y)]) for i in range(len(x))]
            assert torch.equal(got, torch.cat(rows)), name
        assert torch.equal(compare(x.t(), number), compare(x, number).t())


def bits(t):
    return t.numpy().view(np.int32)


def test_choices_of_numbers_keep_every_bit():
    x = many(torch.float32)
    where, clip = get("torch").where, get("torch").clip
    c, small = x > 0.5, slice(0, 1)
    number = lambda v: torch.tensor(v, dtype=torch.float32)
    zero, minus = number(0.0), number(-0.0)
    for a, b in [(x, zero), (x, minus), (zero, x), (number(np.nan), minus), (number(1.0), number(0.01)), (x, 0.0), (x, x.flip(0))]:
        part = [v[small] if isinstance(v, torch.Tensor) and v.ndim else v for v in (a, b)]
        whole = where(c, a, b)
        assert np.array_equal(bits(whole[small]), bits(where(c[small], *part)))
        assert np.array_equal(bits(whole), np.where(c.numpy(), *(bits(torch.as_tensor(v, dtype=torch.float32)) for v in (a, b))))
    for lo, hi in [(0.0, 6.0), (-np.inf, 1.0), (np.nan, 1.0), (2.0, 1.0), (-0.0, np.inf)]:
        assert np.array_equal(bits(clip(x, number(lo), number(hi))), bits(torch.clamp(x, number(lo), number(hi))))


@pytest.mark.parametrize("jitted", [False, True])
def test_silu_of_many_elements_is_that_of_few(jitted):
    with md.use_backend("torch"):
        few = md.tensor([*SPECIAL, -88.0, 30.0, -1.2784])
        x = md.tile(few, (512,))

        def both(x):
            y, pull = md.vjp(F.silu, x)
            return y, pull(md.ones_like(x))[0]

        small, large = both(few), (md.jit(both) if jitted else both)(x)
        for a, b in zip(small, large, strict=True):
            np.testing.assert_allclose(np.tile(np.asarray(a.numpy()).ravel(), 512), np.asarray(b.numpy()).ravel(), rtol=1e-6, atol=0)


def test_leaky_relu_keeps_the_dtype_and_its_slope(backend):
    for dtype in (md.float64, md.float32, md.bfloat16):
        x = md.tensor([-np.inf, np.inf, np.nan, 0.0, -0.0, 1.5, -3.0], dtype=dtype)
        for f in (F.leaky_relu, md.jit(F.leaky_relu)):
            y, wanted = f(x), md.where(x > 0, x, x * 0.01)
            assert y.dtype is dtype and repr(y.tolist()) == repr(wanted.tolist())
            assert repr(md.grad(lambda x: f(x).sum())(x).tolist()) == repr(md.where(x > 0, md.ones_like(x), 0.01).tolist())  # noqa: B023


def test_choices_broadcast_where_one_side_is_zero():
    x, zero = many(torch.float32), torch.tensor(0.0)
    for c in (x[:1] > 0.5, x[:, :1] > 0.5, x[0] > 0.5):
        for a, b in ((x, zero), (zero, x), (x, 0.0)):
            whole = get("torch").where(c, a, b)
            assert np.array_equal(bits(whole), np.where(c.numpy(), *(bits(torch.as_tensor(v)) for v in (a, b))))
    wide = get("torch").where(x > 0.5, x[:1], zero)  # the condition is larger than what it chooses
    assert np.array_equal(bits(wide), np.where(x.numpy() > 0.5, bits(x[:1]), 0))


@pytest.mark.parametrize("native", [torch.int8, torch.uint8, torch.int32, torch.int64, torch.uint32, torch.uint64], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_floats_become_integers_alike_whatever_lies_beside_them(dtype, native):
    cast = lambda x: get("torch").cast(x, dtype=getattr(md, str(native)[6:]))
    edges = [2.0**k for k in (7, 8, 15, 31, 32, 63, 64)]
    x = torch.tensor([0.0, -0.0, 0.9, -0.9, -1.0, 127.5, *(e * s for e in edges for s in (1, -1)), *(e * 0.99 for e in edges)]).to(dtype)
    alone = torch.stack([cast(v.reshape(1))[0] for v in x])
    beside = cast(torch.cat([x, torch.tensor([np.nan]).to(dtype)]))
    assert torch.equal(alone, beside[:-1]) and beside[-1] == 0


def test_sums_into_new_zeros_are_made_in_place_and_into_nothing_else():
    with md.use_backend("torch"):
        table, ids = md.ones((5000, 16)), md.tensor([3, 3, 4999, 0])
        f = md.jit(md.grad(lambda t, i: (t[i] * 2.0).sum()))
        first = f(table, ids)
        kept = first.numpy().copy()
        second = f(table, md.tensor([1, 2, 2, 2]))
        assert np.array_equal(first.numpy(), kept) and kept.sum() == second.numpy().sum() == 4 * 16 * 2
        assert kept[3, 0] == 4 and second.numpy()[2, 0] == 6 and (table.numpy() == 1).all()

        def both(i):  # the zeros have another reader, and are a result
            zeros = md.zeros((5000, 16))
            return zeros, zeros.at[i].add(1.0), zeros[i]

        zeros, summed, rows = md.jit(both)(ids)
        assert (zeros.numpy() == 0).all() and summed.numpy().sum() == 4 * 16 and rows.shape == (4, 16)
