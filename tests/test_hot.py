"""Writing at one place of each row (minidl/rewrites/on_numpy.py), and losses that share the softmax of their gradient."""

from __future__ import annotations

import numpy as np
import pytest

import minidl as md
from minidl.backends import get
from minidl.fusion import Region, regions
from minidl.lowering import expand
from minidl.rewrites import on_numpy

ROWS, N = 64, 512


def hot_sum(z, i, g, axis, how):
    shape = [1, 1]
    shape[axis] = N
    mask = md.reshape(i, tuple(1 if a == axis else -1 for a in range(2))) == md.reshape(md.arange(N), tuple(shape))
    chosen = md.where(mask, md.reshape(g, tuple(1 if a == axis else -1 for a in range(2))), 0.0)
    return {"first": chosen - z, "second": z - chosen, "add": z + chosen}[how]


@pytest.mark.parametrize("backend", ["numpy", "torch"])
@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("how", ["first", "second", "add"])
def test_sums_with_one_element_a_row_write_that_one_only(backend, axis, how):
    rng = np.random.default_rng(axis)
    z = rng.normal(size=(ROWS, N) if axis else (N, ROWS)).astype(np.float32)
    z[0, 0], z[1, 1], z[2, 2], z[3, 3] = np.nan, np.inf, 0.0, -0.0
    i = rng.integers(0, N, ROWS)
    i[:4] = (-1, N, N + 5, 3)  # three rows without such a place
    g = rng.normal(size=ROWS).astype(np.float32)
    g[4], g[5] = np.nan, np.inf
    with md.use_backend(backend):
        args = [md.asarray(a) for a in (z, i, g)]
        graph = md.trace(lambda z, i, g: hot_sum(z, i, g, axis, how))(*args)
        found = on_numpy.rewrite(graph)
        found.check()
        names = [e.primitive.name for e in found.equations]
        assert "put_along" in names and "where" not in names and "iota" not in names
        want = hot_sum(*args, axis, how).numpy()
        got = md.jit(lambda z, i, g: hot_sum(z, i, g, axis, how))(*args).numpy()
        np.testing.assert_array_equal(got.view(np.int32)[~np.isnan(want)], want.view(np.int32)[~np.isnan(want)])
        assert (np.isnan(got) == np.isnan(want)).all()
        np.testing.assert_array_equal(args[0].numpy().view(np.int32), z.view(np.int32))  # an argument is not written to


def test_a_choice_that_others_read_stays():
    def f(z, i):
        chosen = md.where(i[:, None] == md.arange(N), 2.0, 0.0)
        return chosen - z, chosen

    graph = md.trace(f)(md.ones((ROWS, N)), md.arange(ROWS))
    assert [e.primitive.name for e in on_numpy.rewrite(graph).equations] == [e.primitive.name for e in graph.equations]


def _at(i):
    return i[:, None] == md.arange(N)


@pytest.mark.parametrize(
    "f",
    [
        lambda z, i, g, m: md.where(m, g[:, None], 0.0) - z,
        lambda z, i, g, m: md.where(i[:, None] < md.arange(N), g[:, None], 0.0) - z,
        lambda z, i, g, m: md.where(i[:, None] != md.arange(N), g[:, None], 0.0) - z,
        lambda z, i, g, m: md.where(i[:, None] == md.arange(N) * 2, g[:, None], 0.0) - z,
        lambda z, i, g, m: md.where(i[:, None] == md.argmax(z, axis=0), g[:, None], 0.0) - z,
        lambda z, i, g, m: md.where(_at(i), g[:, None], 1.0) - z,
        lambda z, i, g, m: md.where(_at(i), g[:, None], -0.0) - z,
        lambda z, i, g, m: md.where(_at(i), z[:1], 0.0) - z,
        lambda z, i, g, m: md.where(_at(i), g[:, None], 0.0) * z,
        lambda z, i, g, m: md.where(_at(i), g[:, None], 0.0) - z[:1],
        lambda z, i, g, m: (c := md.where(_at(i), g[:, None], 0.0)) - c,
        lambda z, i, g, m: md.where(i.astype(md.int32)[:, None] == md.arange(N, dtype=md.int32), g[:, None], 0.0) - z,
        lambda z, i, g, m: md.where(i[:, None] == md.arange(N)[None] * md.ones((ROWS, 1), dtype=md.int64), g[:, None], 0.0) - z,
        lambda z, i, g, m: md.where(i[:, None] == md.arange(ROWS)[:, None], g[:, None], 0.0) - z[:, 3:4],
    ],
)
def test_what_only_looks_like_such_a_sum_stays(f):
    rng = np.random.default_rng(0)
    z, g, m = rng.normal(size=(ROWS, N)).astype(np.float32), rng.normal(size=ROWS).astype(np.float32), rng.random((ROWS, N)) < 0.5
    args = [md.asarray(a) for a in (z, rng.integers(0, N, ROWS), g, m)]
    assert not any(e.primitive.name == "put_along" for e in on_numpy.rewrite(md.trace(f)(*args)).equations)
    np.testing.assert_array_equal(md.jit(f)(*args).numpy(), f(*args).numpy())


@pytest.mark.parametrize("backend", ["numpy", "torch", "numba"])
def test_a_loss_and_its_gradient_share_their_exponentials(backend):
    rng = np.random.default_rng(0)
    z, y = (rng.normal(size=(ROWS, N)) * 30).astype(np.float32), rng.integers(0, N, ROWS)
    z[0], z[1, 7], z[2, 3], z[3, :2], z[4] = -np.inf, np.inf, np.nan, np.inf, 5.0
    y[:4] = (0, 7, 1, 5)
    y[9] = -100
    with md.use_backend(backend):
        args = md.asarray(z), md.asarray(y)
        f = md.value_and_grad(lambda z, y: md.sum(md.log_softmax(z, at=y) * md.arange(1.0, ROWS + 1.0)), argnums=0)
        for a, b in zip(md.jit(f)(*args), f(*args), strict=True):
            np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=2e-6, atol=1e-6)
        both = lambda z, y: (md.log_softmax(z, at=y), md.softmax(z))
        for a, b in zip(md.jit(both)(*args), both(*args), strict=True):
            np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=2e-6, atol=1e-6)


def test_a_region_computes_once_what_two_decompositions_have_alike():
    z, y = md.asarray(np.random.default_rng(0).normal(size=(ROWS, N)).astype(np.float32)), md.zeros((ROWS,), dtype=md.int64)
    graph = expand(md.trace(lambda z, y: (md.log_softmax(z, at=y), md.softmax(z) * md.max(z, axis=1)[:, None]))(z, y))
    region = max((r for r in regions(graph) if isinstance(r, Region)), key=lambda r: len(r.equations))
    names, before = ([e.primitive.name for e in r.equations] for r in (region.merged(), region))
    assert names.count("exp") == names.count("max") == 1 and before.count("exp") == 2


def test_put_along_writes_over_what_dies_only():
    for name in ("numpy", "torch"):
        with md.use_backend(name):
            z, i, u = md.ones((ROWS, N)), md.asarray(np.arange(2 * ROWS).reshape(ROWS, 2) % N), md.ones((ROWS, 2))
            graph = md.trace(lambda z, i, u: md.grad(lambda z: md.sum(md.take_along_axis(z, i, axis=1) * u))(z) + z)(z, i, u)
            want = get(name).to_numpy(get(name).callable(graph)(*(t.payload for t in (z, i, u)))[0])
            for _ in range(2):
                got = get(name).to_numpy(get(name).compile(graph)(*(t.payload for t in (z, i, u)))[0])
                np.testing.assert_array_equal(got, want)
            assert (z.numpy() == 1).all()
