"""Rules for positions out of range in x.at, quantiles at places that are data, and causes of errors: what JAX's programs expect, held against JAX."""

from __future__ import annotations

import numpy as np
import pytest

import minidl as md
from minidl.primitives import table
from minidl.tensors import bind

jax = pytest.importorskip("jax")
jnp = jax.numpy
X = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)
I = np.array([0, 7, -1, -9, 2])
PLACES = [(slice(None), I), (I,), (I, I), (I, 2), (7,), (slice(None), -9), (1, slice(1, 3)), (Ellipsis, I, None)]
UPDATES = ("set", "add", "multiply", "min", "max")


@pytest.mark.parametrize("mode", ["drop", "fill", "clip"])
def test_positions_out_of_range_do_what_jax_says(backend, mode):
    x, rows = md.tensor(X), [(place, name) for place in PLACES for name in UPDATES]
    rows = rows if backend == "numpy" else rows[:6]
    for place, name in rows:
        want = getattr(jnp.asarray(X).at[place], name)(np.float32(0.25), mode=mode)
        np.testing.assert_allclose(getattr(x.at[place], name)(0.25, mode=mode).numpy(), want, err_msg=f"{place} {name}", rtol=1e-6)
    for place in PLACES if backend == "numpy" else PLACES[:3]:
        want = [jnp.asarray(X).at[place].get(mode=mode), jnp.asarray(X).at[place].get(mode=mode, fill_value=3.0)]
        for got in (x.at[place].get(mode=mode), x.at[place].get(mode=mode, fill_value=3.0)), want:
            np.testing.assert_allclose(np.asarray(got[0]), want[0], err_msg=str(place))
            np.testing.assert_allclose(np.asarray(got[1]), want[1], err_msg=str(place))
    moved = md.jit(lambda x, i: (x.at[:, i].set(0.25, mode=mode), x.at[i].add(x[:1], mode=mode), x.at[i, i].get(mode=mode)))(x, md.tensor(I))
    want = jnp.asarray(X).at[:, I].set(0.25, mode=mode), jnp.asarray(X).at[I].add(X[:1], mode=mode), jnp.asarray(X).at[I, I].get(mode=mode)
    for got, w in zip(moved, want, strict=True):
        np.testing.assert_allclose(got.numpy(), w, rtol=1e-6)
    g = md.grad(lambda x: (x.at[I].set(x[:1] * 2.0, mode=mode) ** 2).sum())(x)
    np.testing.assert_allclose(g.numpy(), jax.grad(lambda x: (x.at[I].set(x[:1] * 2.0, mode=mode) ** 2).sum())(X), rtol=1e-5)


def test_other_rules_are_refused_and_none_still_looks():
    x = md.zeros(3)
    with pytest.raises(ValueError, match="mode is 'drop', 'fill', 'clip', 'promise_in_bounds' or None, not 'wrap'"):
        x.at[0].set(1.0, mode="wrap")
    with pytest.raises(ValueError, match=r"at\[\]\.get: mode is"):
        x.at[0].get(mode="wrap")
    for mode in (None, "promise_in_bounds"):
        with pytest.raises(IndexError, match="out of"):
            x.at[[5]].set(1.0, mode=mode)
    assert x.at[md.tensor([True, False, True])].set(1.0, mode="drop").tolist() == [1.0, 0.0, 1.0]
    assert md.arange(3).at[[9]].get(mode="fill").item() == np.iinfo(np.int64).min


def test_quantiles_at_places_that_are_data(backend):
    x, q = md.tensor(X), [0.1, 0.9, 0.25]
    cases = [(None, False), (0, True), (1, False)] if backend == "numba" else [(a, k) for a in (None, 0, 1, (0, 1), ()) for k in (False, True)]
    every = md.jit(lambda x, q, one: [(md.quantile(x, q, a, k), md.quantile(x, one, a, k)) for a, k in cases])
    for (several, single), (a, k) in zip(every(x, md.tensor(q), md.tensor(0.3)), cases, strict=True):
        np.testing.assert_allclose(several.numpy(), np.quantile(X, q, axis=a, keepdims=k) if a != () else [X] * 3, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(single.numpy(), np.quantile(X, 0.3, axis=a, keepdims=k) if a != () else X, rtol=1e-5, atol=1e-6)
    of_jax, of_md = (lambda q: jnp.quantile(X, q, axis=1).sum()), lambda q: md.quantile(x, q, 1).sum()
    wanted = [jax.grad(of_jax)(v) for v in (0.3, 0.5, 1.0)]
    for f in (of_md, md.jit(of_md)):
        np.testing.assert_allclose([md.grad(f)(md.tensor(v)).item() for v in (0.3, 0.5, 1.0)], wanted, rtol=1e-4)
    lanes = md.vmap(md.quantile)(x, md.tensor(q))
    np.testing.assert_allclose(lanes.numpy(), [np.quantile(v, p) for v, p in zip(X, q, strict=True)], rtol=1e-5)
    holes = md.jit(md.quantile)(md.tensor([1.0, np.nan]), md.tensor(0.0))
    assert np.isnan(holes.item())
    assert md.jit(md.quantile)(md.tensor([1.0, np.inf]), md.tensor(0.0)).item() == 1.0
    with pytest.raises(ValueError, match="not between 0 and 1"), md.out_of_bounds("raise-later"):
        md.jit(md.quantile)(x, md.tensor(1.5)).item()
    with pytest.raises(ValueError, match="q is 1.5"):
        md.quantile(x, md.tensor(1.5))


def test_an_accident_inside_an_operation_keeps_its_cause(monkeypatch):
    space: dict = {}
    exec(compile("def broken(*avals, **params): return {}['lost']", "<minidl broken>", "exec"), space)
    monkeypatch.setattr(table["sin"], "infer", space["broken"])
    with pytest.raises(ValueError, match="sin: cannot compute with") as error:
        md.trace(lambda x: bind(table["sin"], (x,), {}))(md.ones(2))
    assert isinstance(error.value.__cause__, KeyError) and "lost" in str(error.value.__cause__)
