"""Functions of jax.lax, jax.nn, jax.ops and jax.random under JAX's names compute what JAX computes, eagerly, jitted and differentiated."""

from __future__ import annotations

import io

import numpy as np
import pytest

import minidl as md

jax = pytest.importorskip("jax")
jnp, lax = jax.numpy, jax.lax
rng = np.random.default_rng(0)
A, B, V = (rng.normal(size=s).astype(np.float32) for s in ((2, 3, 4), (2, 4, 5), (7,)))
IMAGE, KERNEL = rng.normal(size=(1, 6, 5, 2)).astype(np.float32), rng.normal(size=(3, 3, 2, 4)).astype(np.float32)
IDS = np.array([0, 2, 0, 2, 9, -1, 2])
NHWC = ("NHWC", "HWIO", "NHWC")
maximum = {"md": md.maximum, "jax": lax.max}

#: name -> f(T, a, b, v, x, w): T is minidl, or jax.lax with the names of the other rooms.
CASES = {
    "dynamic_slice": lambda T, a, b, v, x, w: T.dynamic_slice(a, (0, T.place(9), T.place(-2)), (2, 2, 2)),
    "in one axis": lambda T, a, b, v, x, w: T.dynamic_slice_in_dim(v, T.place(5), 4) + T.dynamic_slice_in_dim(v, -3, 4),
    "index": lambda T, a, b, v, x, w: T.dynamic_index_in_dim(a, T.place(1), 2, keepdims=False) + T.dynamic_index_in_dim(a, 1, -1)[..., 0],
    "update": lambda T, a, b, v, x, w: T.dynamic_update_slice(a, b[:, :2, :2], (0, T.place(7), 1)),
    "update in one axis": lambda T, a, b, v, x, w: T.dynamic_update_index_in_dim(a, b[:, 0, :4], T.place(1), 1),
    "update a slice": lambda T, a, b, v, x, w: T.dynamic_update_slice_in_dim(v, v[:2] * 3.0, T.place(-1), 0),
    "dot_general": lambda T, a, b, v, x, w: T.dot_general(a, b, (((2,), (1,)), ((0,), (0,)))),
    "dot_general of all": lambda T, a, b, v, x, w: T.dot_general(a[0], b[1, :3, :4], (((0, 1), (0, 1)), ((), ()))),
    "conv": lambda T, a, b, v, x, w: T.conv_general_dilated(x, w, (2, 1), "SAME", dimension_numbers=NHWC),
    "conv, dilated": lambda T, a, b, v, x, w: T.conv_general_dilated(
        x, w[:, :, :1], (1, 1), ((2, 1), (0, 3)), (2, 1), (1, 2), NHWC, feature_group_count=2
    ),
    "reduce_window": lambda T, a, b, v, x, w: T.reduce_window(x, -np.inf, maximum[T.name], (1, 2, 3, 1), (1, 2, 1, 1), "SAME"),
    "reduce_window, a sum": lambda T, a, b, v, x, w: T.reduce_window(v, 0.0, T.add, (3,), (2,), ((1, 0),)),
    "one_hot": lambda T, a, b, v, x, w: T.one_hot(T.place([1, 7]), 3, axis=0) * v[0],
    "ravel_pytree": lambda T, a, b, v, x, w: (lambda flat, back: flat[0] * back(flat)["b"])(*T.ravel_pytree({"b": v, "a": [a, b]})),
    "segment_prod": lambda T, a, b, v, x, w: T.segment_prod(T.stop_gradient(v), IDS, 4) + T.segment_max(v, IDS, 3)[2] + T.segment_min(v, IDS, 1)[0],
    "cumsum": lambda T, a, b, v, x, w: T.cumsum(a, 1, reverse=True) + T.cumprod(a, axis=0, reverse=True),
    "remat": lambda T, a, b, v, x, w: T.remat(T.tanh)(v) + T.expit(v) + T.log_sigmoid(v) + T.ndtr(v) + T.gammaln(abs(v)) + T.tri(7, k=-1) @ v,
    "scan": lambda T, a, b, v, x, w: T.scan(lambda c, y: (c * 0.5 + y, c), v[0], v, unroll=2)[1],
}


class _Jax:
    name = "jax"
    place = staticmethod(jnp.asarray)

    def __getattr__(self, name):
        from jax.flatten_util import ravel_pytree

        rooms = (lax, jax.nn, jax.ops, jax, jnp, jax.scipy.special)
        return ravel_pytree if name == "ravel_pytree" else next(getattr(r, name) for r in rooms if hasattr(r, name))


class _Minidl:
    name = "md"

    def place(self, value):
        return md.asarray(np.asarray(value))

    def __getattr__(self, name):
        return getattr(md, name)


def test_the_values_and_gradients_are_jaxs(backend):
    # on numba each jitted program takes seconds to compile: one of them there
    names = [n for n in CASES if backend in ("numpy", "torch") or n in ("dynamic_slice", "update", "conv, dilated")]
    ours, theirs, arrays = _Minidl(), _Jax(), (A, B, V, IMAGE, KERNEL)
    tensors = [md.asarray(x) for x in arrays]
    every = lambda T, given: [CASES[n](T, *given) for n in names]
    want = every(theirs, [jnp.asarray(x) for x in arrays])
    for run in (every, lambda T, given: md.jit(lambda *g: every(T, g))(*given)) if backend == "torch" else (every,):
        for name, got, value in zip(names, run(ours, tensors), want, strict=True):
            assert got.shape == value.shape, name
            np.testing.assert_allclose(got.numpy(), value, rtol=2e-5, atol=2e-5, err_msg=name)
    if backend != "numpy":
        return
    steep = ("dynamic_slice", "update", "dot_general", "conv, dilated", "reduce_window", "ravel_pytree", "segment_prod", "cumsum")
    total = lambda T: lambda *given: sum((v * v).sum() for v in (CASES[n](T, *given) for n in steep))
    got = md.grad(total(ours), tuple(range(5)))(*tensors)
    for mine, value in zip(got, jax.grad(total(theirs), tuple(range(5)))(*arrays), strict=True):
        np.testing.assert_allclose(mine.numpy(), value, rtol=1e-3, atol=1e-3 * float(np.abs(value).max() + 1e-3))


def test_a_mapped_place_is_one_for_each_lane():
    places = md.tensor([0, 3, -1])
    assert md.vmap(lambda i: md.dynamic_slice(md.arange(5), (i,), (2,)))(places).tolist() == [[0, 1], [3, 4], [3, 4]]
    got = md.vmap(lambda i: md.dynamic_update_slice(md.zeros(3), md.ones(1), (i,)))(places)
    assert got.tolist() == [[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, 0.0, 1.0]]
    with pytest.raises(ValueError, match="piece of 6"):
        md.dynamic_slice(md.arange(5), (0,), (6,))
    with pytest.raises(ValueError, match="padding"):
        md.conv_general_dilated(md.ones((1, 1, 3)), md.ones((1, 1, 2)), (1,), "FULL")


@pytest.mark.parametrize("name", ["laplace", "logistic", "cauchy"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_draws_are_jaxs(name, dtype):
    with jax.enable_x64(True):
        want = np.asarray(getattr(jax.random, name)(jax.random.key(3), (500,), dtype))
    got = getattr(md.random, name)(md.random.key(3), (500,), getattr(md, dtype)).numpy()
    np.testing.assert_allclose(got, want, rtol=2e-5 if dtype == "float32" else 1e-12, atol=1e-6 if dtype == "float32" else 1e-13)


def test_the_other_draws_are_jaxs():
    key, theirs = md.random.key(5), jax.random.key(5)
    assert md.random.rademacher(key, (40,)).tolist() == jax.random.rademacher(theirs, (40,)).tolist()
    np.testing.assert_allclose(md.random.lognormal(key, 0.5, (9,)).numpy(), jax.random.lognormal(theirs, 0.5, (9,)), rtol=1e-5)
    mean, cov = np.array([1.0, -2.0], np.float32), np.array([[2.0, 0.5], [0.5, 1.0]], np.float32)
    got = md.random.multivariate_normal(key, md.asarray(mean), md.asarray(cov), (6,))
    np.testing.assert_allclose(got.numpy(), jax.random.multivariate_normal(theirs, mean, cov, (6,)), rtol=1e-4, atol=1e-5)
    assert md.random.multivariate_normal(key, md.zeros((3, 2)), md.eye(2)).shape == (3, 2)


def test_pytrees_stop_where_is_leaf_says():
    assert md.tree.map(sum, {"a": (1, 2), "b": (3, 4)}, is_leaf=lambda t: isinstance(t, tuple)) == {"a": 3, "b": 7}
    assert md.tree.leaves([(1, 2), 3], is_leaf=lambda t: isinstance(t, tuple)) == [(1, 2), 3]
    assert md.tree.all([True, {"a": 1}]) and not md.tree.all([True, 0])
    assert md.tree.structure((1, [2, 3])).num_leaves == 3


def test_jacobians_keep_what_else_there_is():
    f = lambda x: ({"y": x * x}, x.sum())
    for transform in (md.jacrev, md.jacfwd):
        jacobian, aux = md.jit(transform(f, has_aux=True))(md.tensor([1.0, 2.0]))
        assert jacobian["y"].tolist() == [[2.0, 0.0], [0.0, 4.0]]
        assert aux.item() == 3.0


def test_small_words_of_numpy_and_of_torchs_functional():
    np.testing.assert_allclose(md.ndtri(md.ndtr(md.asarray(V))).numpy(), V, atol=1e-5)
    assert md.append(md.ones((1, 2)), md.zeros((1, 2)), axis=0).tolist() == [[1.0, 1.0], [0.0, 0.0]]
    assert md.append(md.ones((1, 2)), [3.0]).tolist() == [1.0, 1.0, 3.0]
    assert [v.tolist() for v in md.array_split(md.arange(5), [2, 4])] == [[0, 1], [2, 3], [4]]
    x = md.ones(2)
    y = md.copy(x)
    y += 1.0
    assert x.tolist() == [1.0, 1.0]
    value, (p, q) = md.autograd.functional.hvp(lambda a, b: (a * a * b).sum(), (md.tensor(3.0), md.tensor(2.0)), (md.tensor(1.0), md.tensor(0.0)))
    assert (value.item(), p.item(), q.item()) == (18.0, 4.0, 6.0)


def test_a_buffer_is_a_file():
    buffer = io.BytesIO()
    md.save({"w": md.ones(2), "n": 3}, buffer)
    buffer.seek(0)
    found = md.load(buffer)
    assert found["w"].tolist() == [1.0, 1.0] and found["n"] == 3


def test_branches_give_tensors_of_numbers():
    from minidl.idioms.jax import lax

    for found in (
        lax.cond(True, lambda x: x, lambda x: -x, 3.0), lax.cond(False, lambda: 1, lambda: 3.0), lax.switch(1, [lambda x: -x, lambda x: x], 3.0),
        lax.cond(md.tensor(True), lambda x: x["a"], lambda x: 0.0, operand={"a": 3.0}), lax.switch(0, [lambda: 3.0]),
    ):  # fmt: skip
        assert isinstance(found, md.Tensor) and found.item() == 3.0
