"""What jax.scipy and jax.lax have that is computed by series and bits: values and derivatives are SciPy's and jax's."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.special

import minidl as md
from minidl.idioms import jax as mjax
from minidl.idioms.jax import lax, random
from minidl.idioms.jax.scipy import special, stats

X = np.array([1e-8, 0.01, 0.19, 0.3, 0.5, 0.9, 1.0, 1.1, 1.5, 2.0, 3.7, 9.0, 12.5, 25.0, 39.0, 45.0, 80.0])
FUNCTIONS = {
    "exp1": (special.exp1, scipy.special.exp1, X, lambda x: -np.exp(-x) / x),
    "expi": (special.expi, scipy.special.expi, np.concatenate([X, -X]), lambda x: np.exp(x) / x),
    "expn 2": (lambda x: special.expn(2, x), lambda x: scipy.special.expn(2, x), np.append(X, 0.0), lambda x: -scipy.special.exp1(x)),
    "expn 5": (lambda x: special.expn(5, x), lambda x: scipy.special.expn(5, x), np.append(X, 0.0), lambda x: -scipy.special.expn(4, x)),
    "spence": (special.spence, scipy.special.spence, np.append(X, 0.0), lambda x: np.where(x == 1, -1, np.log(x) / np.where(x == 1, 1, 1 - x))),
    "dawsn": (special.dawsn, scipy.special.dawsn, np.concatenate([X, -X]), lambda x: 1 - 2 * x * scipy.special.dawsn(x)),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:divide by zero")
@pytest.mark.parametrize("backend", ["numpy", "torch"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_values_and_slopes_are_scipys(name, backend):
    ours, theirs, x, slope = FUNCTIONS[name]
    with md.use_backend(backend):
        for run in (ours, md.jit(ours)):
            np.testing.assert_allclose(run(md.tensor(x)).numpy(), theirs(x), rtol=2e-13, atol=1e-15)
            y = run(md.tensor(x.astype(np.float32)))
            assert y.dtype is md.float32
            np.testing.assert_allclose(y.numpy(), theirs(x.astype(np.float32)).astype(np.float32), rtol=3e-6, atol=1e-30)
        found = md.vmap(md.grad(ours))(md.tensor(x)).numpy()
        np.testing.assert_allclose(found, slope(x), rtol=1e-11, atol=3e-13)
        assert np.isfinite(md.grad(md.grad(ours))(md.tensor(0.7, dtype=md.float64)).item())


def test_where_they_end():
    assert special.exp1(0.0).item() == np.inf and np.isnan(special.exp1(-1.0).item()) and special.expi(np.inf).item() == np.inf
    assert special.expi(0.0).item() == -np.inf and np.isnan(special.spence(-1.0).item()) and special.dawsn(0.0).item() == 0.0
    assert special.expn(1, 2.0).item() == special.exp1(2.0).item()
    with pytest.raises(TypeError, match="n is a Python integer"):
        special.expn(1.5, 2.0)


def test_higher_derivatives_and_large_numbers():
    twice = md.vmap(md.grad(md.grad(special.spence)))(md.tensor([0.96, 1.0, 1.04, 1.5], dtype=md.float64)).numpy()
    x = np.array([0.96, 1.04, 1.5])
    np.testing.assert_allclose(twice[[0, 2, 3]], 1 / (x * (1 - x)) + np.log(x) / (1 - x) ** 2, rtol=1e-10)
    assert twice[1] == 0.5
    y = md.tensor([88.0, 90.0, 92.0])  # exp itself is infinite in float32
    np.testing.assert_allclose(special.expi(y).numpy(), scipy.special.expi(y.numpy()), rtol=1e-5)
    assert np.isfinite(md.vmap(md.grad(special.expi))(y).numpy()).all()
    np.testing.assert_array_equal(special.expn(0, md.tensor([-1.0, -0.0, 0.0])).numpy(), [np.nan, np.inf, np.inf])


def test_bits_are_jaxs():
    jax = pytest.importorskip("jax")
    rng = np.random.default_rng(0)
    for dtype in ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"):
        info = np.iinfo(dtype)
        x, y = (rng.integers(info.min, info.max, 40, dtype=dtype, endpoint=True) for _ in range(2))
        x[:2], y[:2] = info.min, [info.max, info.min]
        want = [(int(a) * int(b)) >> info.bits for a, b in zip(x, y, strict=True)]
        for run in (lax.mulhi, md.jit(lax.mulhi)):
            assert run(md.tensor(x), md.tensor(y)).tolist() == want
        with jax.enable_x64(True):
            want = jax.lax.reduce_xor(x.reshape(4, 10), (1,))
        assert lax.reduce_xor(md.tensor(x.reshape(4, 10)), (1,)).tolist() == want.tolist()
    assert lax.reduce_xor(md.tensor([True, True, True]), (0,)).item() is True
    with pytest.raises(TypeError, match="integers of one dtype"):
        lax.mulhi(md.ones(1), md.ones(1))


def test_the_mode_is_jaxs():
    jax = pytest.importorskip("jax")
    x = np.random.default_rng(0).integers(0, 4, (5, 7)).astype(np.float32)
    for words in ({}, {"axis": 1}, {"axis": None}, {"axis": 1, "keepdims": True}, {"axis": None, "keepdims": True}):
        ours, theirs = stats.mode(md.tensor(x), **words), jax.scipy.stats.mode(x, **words)
        assert [v.tolist() for v in ours] == [v.tolist() for v in theirs]


def test_structures_unflatten():
    jax = pytest.importorskip("jax")
    tree = {"a": [1, 2], "b": (3, None)}
    for T in (mjax, jax):
        leaves, structure = T.tree_util.tree_flatten(tree)
        assert structure.unflatten(reversed(leaves)) == {"a": [3, 2], "b": (1, None)}
        assert T.tree_util.tree_structure([0, 0]).flatten_up_to([{"x": 1}, (2,)]) == [{"x": 1}, (2,)]
        with pytest.raises(ValueError, match=r"structure|Expected"):
            T.tree_util.tree_structure([0, 0]).flatten_up_to((1, 2))


def test_counts_have_their_distribution():
    draws = random.binomial(random.key(0), 10, md.tensor([0.3, 0.8]), (20000, 2))
    assert draws.dtype is md.float32
    np.testing.assert_allclose(draws.numpy().mean(axis=0), [3.0, 8.0], atol=0.06)
    np.testing.assert_allclose(draws.numpy().var(axis=0), [2.1, 1.6], atol=0.08)
    assert np.isnan(random.binomial(random.key(0), md.tensor([-1.0, 2.0]), md.tensor([0.5, 1.5])).numpy()).all()
    p = md.tensor([[0.2, 0.3, 0.5], [0.0, 1.0, 0.0]])
    for run in (random.multinomial, md.jit(random.multinomial, static_argnames="shape")):
        drawn = run(random.key(1), md.tensor(20.0), p, shape=(4000, 2))
        assert drawn.shape == (4000, 2, 3) and (drawn.sum(axis=-1) == 20).all().item()
        np.testing.assert_allclose(drawn.numpy().mean(axis=0), 20 * p.numpy(), atol=0.15)
        np.testing.assert_allclose(drawn.numpy().var(axis=0), 20 * (p * (1 - p)).numpy(), atol=0.3)


def test_the_default_float_is_wide_inside_a_block():
    with mjax.enable_x64():
        assert mjax.numpy.zeros(2).dtype is md.float64
        with mjax.enable_x64(False):
            assert mjax.numpy.zeros(2).dtype is md.float32
    assert mjax.numpy.zeros(2).dtype is md.float32
