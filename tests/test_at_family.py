"""The methods of x.at[index] against JAX's: every method, index and rule for positions out of range, eager and traced, and their derivatives."""

from __future__ import annotations

import numpy as np
import pytest

import minidl as md

jax = pytest.importorskip("jax")
jnp = jax.numpy

X = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], dtype=np.float32)
INSIDE = {
    "row": 1, "places": np.array([1, 0, 1]), "pairs": (np.array([0, 1, 1]), np.array([2, 0, 0])), "slice": (slice(None), slice(0, None, 2)),
    "negative": np.array([-1, 0]), "mask": X > 2,
}  # fmt: skip
OUTSIDE = {"places": np.array([1, 5, 0]), "pairs": (np.array([0, 1, 9]), np.array([2, -7, 0]))}
UPDATES = ["set", "add", "subtract", "multiply", "mul", "divide", "power", "min", "max"]


def both(index):
    items = index if isinstance(index, tuple) else (index,)
    array = lambda f: tuple(f(i) if isinstance(i, np.ndarray) and i.dtype != bool else i for i in items)
    return array(md.asarray), array(jnp.asarray)


@pytest.mark.parametrize("name", UPDATES)
def test_updates_equal_jaxs(name):
    cases = [(i, None) for k, i in INSIDE.items() if not (name == "set" and k in ("places", "pairs"))]  # of several values JAX says no order
    cases += [(i, mode) for i in OUTSIDE.values() for mode in ("drop", "clip")]
    for index, mode in cases:
        mine, other = both(index)
        want = getattr(jnp.asarray(X).at[other], name)(2.5, mode=mode)
        call = lambda x, *i, mode=mode, index=mine: getattr(x.at[i or index], name)(2.5, mode=mode)
        np.testing.assert_allclose(call(md.asarray(X)).numpy(), want, rtol=1e-6, err_msg=f"{index} {mode}")
        if mode and len(mine) == 2:
            np.testing.assert_allclose(md.jit(call)(md.asarray(X), *mine).numpy(), want, rtol=1e-6, err_msg=f"jit {index} {mode}")
    with pytest.raises(ValueError, match="mode is"):
        getattr(md.asarray(X).at[0], name)(1.0, mode="wrap")


def test_a_function_is_applied_as_often_as_a_position_is_named():
    for index, mode in [(i, None) for i in INSIDE.values()] + [(i, m) for i in OUTSIDE.values() for m in ("drop", "clip")]:
        mine, other = both(index)
        want = jnp.asarray(X).at[other].apply(lambda v: 2 * v + 1, mode=mode)
        call = lambda x, *i, mode=mode, index=mine: x.at[i or index].apply(lambda v: 2 * v + 1, mode=mode)
        np.testing.assert_allclose(call(md.asarray(X)).numpy(), want, err_msg=f"{index} {mode}")
        if all(isinstance(i, md.Tensor) for i in mine):
            np.testing.assert_allclose(md.jit(call)(md.asarray(X), *mine).numpy(), want, err_msg=f"jit {index} {mode}")
    once = md.asarray(X).at[md.asarray([1, 1])].apply(lambda v: v + 1, unique_indices=True)
    assert once.tolist() == [[1, 2, 3], [5, 6, 7]]
    assert md.zeros(0).at[md.zeros(0, dtype="int64")].apply(md.sqrt).shape == (0,)


def test_a_function_meets_no_element_but_those_that_are_named():
    x, place = md.tensor([0.0, 4.0, 9.0]), md.tensor([1, 1, 2])
    loss = lambda x, place: x.at[place].apply(md.sqrt).sum()  # whose slope at 0 is infinite
    for f in (md.grad(loss), md.jit(md.grad(loss))):
        np.testing.assert_allclose(f(x, place).numpy(), [1.0, 0.25 * 4**-0.75, 0.5 / 3], rtol=1e-6)
    lanes = md.vmap(lambda x, i: x.at[i].apply(md.square))(md.stack([x, x]), md.tensor([[1, 1], [2, 0]]))
    assert lanes.tolist() == [[0, 256, 9], [0, 4, 81]]


def test_derivatives_equal_jaxs():
    index = (md.asarray([0, 1, 1]), md.asarray([2, 0, 1]))
    place = tuple(jnp.asarray(i.numpy()) for i in index)
    v = np.array([1.5, 0.5, 2.0], dtype=np.float32)
    w = np.random.default_rng(0).normal(size=X.shape).astype(np.float32)
    for name in UPDATES:
        mine = md.jit(md.grad(lambda x, v, name=name: (getattr(x.at[index], name)(v) * md.asarray(w)).sum(), argnums=(0, 1)))
        theirs = lambda x, v, name=name: (getattr(x.at[place], name)(v, unique_indices=name in ("multiply", "mul")) * w).sum()
        plain = {"divide": lambda x, v: (x.at[place].set(x[place] / v) * w).sum(), "power": lambda x, v: (x.at[place].set(x[place] ** v) * w).sum()}
        other = jax.grad(plain.get(name, theirs), (0, 1))
        for a, b in zip(mine(md.asarray(X), md.asarray(v)), other(jnp.asarray(X), jnp.asarray(v)), strict=True):
            np.testing.assert_allclose(a.numpy(), b, rtol=1e-5, err_msg=name)


@pytest.mark.cpu
def test_a_negative_position_may_be_out_of_range():
    x = md.asarray(X[0])
    place, known = md.asarray([-1, 1]), [-1, 1]
    for index in (place, known):
        assert x.at[index].set(9.0, mode="drop", wrap_negative_indices=False).tolist() == [1, 9, 3]
        assert x.at[index].get(mode="fill", fill_value=7.0, wrap_negative_indices=False).tolist() == [7, 2]
        with pytest.raises(IndexError, match="out of bounds"):
            x.at[index].add(1.0, wrap_negative_indices=False)
    assert x.at[-1].add(1.0, mode="drop", wrap_negative_indices=False).tolist() == [1, 2, 3]


def test_what_there_is_not_says_so():
    with pytest.raises(AttributeError, match=r"x\.at\[index\] has no method 'modulo'"):
        md.ones(2).at[0].modulo(2.0)


def test_the_family_is_there_on_every_backend(backend):
    step = md.jit(lambda x, i: (x.at[i].divide(4.0), x.at[i].power(2.0), x.at[i].apply(md.square), x.at[i].subtract(1, mode="clip")))
    got = step(md.asarray([1.0, 2.0]), md.asarray([1, 1]))
    for a, b in zip(got, [[1, 0.125], [1, 16], [1, 16], [1, 0]], strict=True):
        np.testing.assert_allclose(a.numpy(), b, rtol=1e-6)


@pytest.mark.parametrize("jitted", [False, True])
@pytest.mark.parametrize("kind", [list, np.int8, np.int64, "tensor"])
@pytest.mark.parametrize("mode", ["clip", "fill", "drop"])
def test_negative_positions_that_do_not_count_from_the_end_are_jaxs(mode, kind, jitted):
    jnp = jax.numpy
    x, known = md.arange(3.0), jnp.arange(3.0)
    for positions in ([-1, 1], [-5, 0], [0, -2, 2], [1, 5]):
        index = positions if kind is list else md.asarray(positions) if kind == "tensor" else np.asarray(positions, kind)
        for what, args in (("get", ()), ("set", (9.0,)), ("add", (9.0,))):
            f = lambda x, index=index, what=what, args=args: getattr(x.at[index], what)(*args, mode=mode, wrap_negative_indices=False)
            wanted = getattr(known.at[jnp.asarray(positions)], what)(*args, mode=mode, wrap_negative_indices=False)
            np.testing.assert_array_equal((md.jit(f) if jitted else f)(x).numpy(), np.asarray(wanted))


@pytest.mark.parametrize("index", [-2, [0, -2], "tensor"])
@pytest.mark.cpu
def test_a_negative_position_out_of_range_is_named(index):
    index = md.asarray([0, -2]) if index == "tensor" else index
    with pytest.raises(IndexError, match="index -2 is out of bounds for axis 0 with size 3"):
        md.zeros(3).at[index].set(1.0, wrap_negative_indices=False)


@pytest.mark.parametrize("dtype", ["float32", "int32", "bool"])
def test_no_imaginary_part_is_lost(dtype):
    """As in PyTorch; what is complex takes real values."""
    stores = (lambda x, v: x.__setitem__(0, v), lambda x, v: x.at[0].set(v), lambda x, v: x.at[[0, 1]].add(v), lambda x, v: x.__setitem__(x == 0, v))
    for store in stores:
        for value in (1j, md.tensor(1j)):
            for run in (store, md.jit(store)):
                x = md.zeros(3, dtype=getattr(md, dtype))
                with pytest.raises(TypeError, match=r"indexing: c\d+\[\] does not fit"):
                    run(x, value)
                assert not x.any()
    z = md.zeros(2, dtype=md.complex64)
    z[0] = 2
    assert z.at[1].set(1j).tolist() == [2, 1j]
