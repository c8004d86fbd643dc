"""Rows by one tensor of positions, read, written and added to, and scatter_add: what takes the short way gives what the long way gives."""

from __future__ import annotations

import numpy as np
import pytest

import minidl as md

BACKENDS = ["numpy", "torch", "jax"]
PLACES = ([2, 0, 2], [-1, 1, -4], 3, [[0, 1], [1, 0]], [])


def data(backend, dtype=md.float64, shape=(4, 3)):
    values = np.random.default_rng(0).integers(-9, 9, shape)
    return md.asarray(values, dtype=dtype, backend=backend)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("places", PLACES, ids=str)
@pytest.mark.parametrize("kind", [md.int64, md.int32, md.uint8])
def test_reading_and_writing(backend, places, kind):
    if kind is md.uint8 and min(np.ravel(places).tolist(), default=0) < 0:
        places = (np.asarray(places) % 4).tolist()
    x, i, n = data(backend), md.asarray(np.asarray(places, np.int64), dtype=kind, backend=backend), np.asarray(places, np.int64)
    plain = x.numpy()
    np.testing.assert_array_equal(x[i].numpy(), plain[n])
    for value in (7.0, data(backend, shape=(3,)), data(backend, shape=(*n.shape, 3))):
        v = value if isinstance(value, float) else value.numpy()
        wanted = plain.copy()
        wanted[n] = v
        np.testing.assert_array_equal(x.at[i].set(value).numpy(), wanted)
        wanted = plain.copy()
        np.add.at(wanted, n, v)
        np.testing.assert_array_equal(x.at[i].add(value).numpy(), wanted)
        np.testing.assert_array_equal(x.at[(i,)].add(value).numpy(), wanted)
    f = lambda index: lambda a: (a[index] * a.at[index].add(a[index] * 2.0)[index]).sum()
    both = [md.grad(f(index))(x).numpy() for index in (i, (i, slice(None)))]  # the second takes the long way
    np.testing.assert_allclose(*both)


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_lies_outside_is_an_error_and_nothing_is_written(backend):
    x = data(backend)
    for bad in ([0, 4], [-5]):
        i = md.tensor(bad, backend=backend)
        one = md.ones(len(bad), dtype=x.dtype, backend=backend)
        for use in (lambda i=i: x[i], lambda i=i: x.at[i].add(1.0), lambda i=i, one=one: x[:, 0].scatter_add(0, i, one)):
            with pytest.raises(IndexError, match="out of bounds for axis 0 with size 4"):
                use()
    with pytest.raises(ValueError, match="broadcast"):
        x.at[md.tensor([0, 9], backend=backend)].set(md.ones(5, dtype=x.dtype, backend=backend))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [md.float64, md.float16, md.int32, md.complex64, md.bool])
def test_scatter_add(backend, dtype):
    r = np.random.default_rng(1)
    x, u = (data(backend, md.int64, s).to(dtype) for s in ((4, 3), (6, 3)))
    for i in (r.integers(0, 4, (6, 3)), r.integers(-4, 4, (6, 3)), r.integers(0, 4, (2, 2)), np.zeros((0, 3), np.int64)):
        wanted = x.numpy().copy()
        for place in np.ndindex(i.shape):
            at = (i[place], *place[1:])
            wanted[at] = wanted[at] + u.numpy()[place]
        np.testing.assert_array_equal(x.scatter_add(0, md.asarray(i, backend=backend), u).numpy(), wanted)


@pytest.mark.parametrize("backend", BACKENDS)
def test_scatter_add_is_differentiated_and_mapped(backend):
    x, u, i = data(backend), data(backend, shape=(6, 3)), md.asarray(np.random.default_rng(1).integers(0, 4, (6, 3)), backend=backend)
    f = lambda a, b: (a.scatter_add(0, i, b) ** 3).sum()
    out = x.scatter_add(0, i, u).numpy()
    dx, du = md.grad(f, argnums=(0, 1))(x, u)
    np.testing.assert_allclose(dx.numpy(), 3 * out**2)
    np.testing.assert_allclose(du.numpy(), np.take_along_axis(3 * out**2, i.numpy(), 0))
    second = md.grad(lambda b: (md.grad(f, argnums=1)(x, b) ** 2).sum())(u)
    traced = md.jit(lambda b: md.grad(lambda b: (md.grad(f, argnums=1)(x, b) ** 2).sum())(b))(u)
    np.testing.assert_allclose(second.numpy(), traced.numpy())
    mapped = md.vmap(lambda a, b: a.scatter_add(0, i, b))(md.stack([x, x * 2.0]), md.stack([u, u]))
    np.testing.assert_allclose(mapped[0].numpy(), out)
