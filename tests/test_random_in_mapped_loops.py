"""Draws of the global generator in loops and branches of a mapped function: each lane draws as a loop over split keys would."""

from __future__ import annotations

import numpy as np
import pytest

import minidl as md

GENERATOR = md.random.default_generator


def scanned(x):
    return md.scan(lambda c, _: (c + md.random.normal(GENERATOR.next_key(), (2,)), c.sum()), x, None, length=3)[0]


def while_looped(x):
    return md.while_loop(lambda s: s[0] < 3, lambda s: (s[0] + 1, s[1] * md.rand(2)), (md.tensor(0), x))[1]


def until_lane(x):
    """The lanes take different numbers of steps."""
    return md.while_loop(lambda s: s.sum() < 3.0, lambda s: s + 1.0 + md.rand(2), x)


def branched(x):
    return md.cond(x.sum() > 0.5, lambda x: x + md.rand(2), lambda x: x - md.rand(2), x)


def kept(x):
    """Under checkpoint the same draws are made again."""
    return md.scan(lambda c, _: (md.checkpoint(lambda c: md.sin(c * md.rand(2)))(c), ()), x, None, length=2)[0]


def kept_around(x):
    """A checkpoint around the loop, beside other draws."""
    return md.checkpoint(scanned)(x) * md.rand(2) + md.checkpoint(while_looped)(x)


def both(x):
    return scanned(x) * md.rand(2) + while_looped(x)


FUNCTIONS = [scanned, while_looped, until_lane, branched, kept]


def rows(f, keys, xs):
    """f of each row, on a generator that begins with its key."""
    out = []
    for key, x in zip(keys, xs, strict=True):
        GENERATOR.restore(key)
        out.append(f(x))
    return md.stack(out)


@pytest.mark.parametrize("f", FUNCTIONS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("backend", ["numpy", "torch"])
def test_a_lane_draws_as_a_loop_over_split_keys(f, backend):
    with md.use_backend(backend):
        xs = md.tensor([[0.1, 0.2], [0.7, -0.3], [2.0, 0.5]])
        md.manual_seed(3)
        keys = md.random.split(GENERATOR.next_key(), 3)
        after = GENERATOR.key.tolist()
        want = rows(md.jit(f), keys, xs)
        for mapped in (md.vmap(f), md.jit(md.vmap(f)), md.vmap(md.jit(f))):
            md.manual_seed(3)
            np.testing.assert_array_equal(mapped(xs).numpy(), want.numpy())
            assert GENERATOR.key.tolist() == after  # the state outside moves once
            assert not np.array_equal(mapped(xs).numpy(), want.numpy())  # so the next call draws others


@pytest.mark.parametrize("f", FUNCTIONS, ids=lambda f: f.__name__)
def test_gradients_see_the_same_draws(f):
    xs = md.tensor([[0.1, 0.2], [0.7, -0.3], [2.0, 0.5]])
    md.manual_seed(5)
    keys = md.random.split(GENERATOR.next_key(), 3)

    def gradient(x):
        return md.grad(lambda x: (f(x) ** 2).sum())(x)

    want = rows(md.jit(gradient), keys, xs)
    for mapped in (md.vmap(gradient), md.jit(md.vmap(gradient))):
        md.manual_seed(5)
        np.testing.assert_allclose(mapped(xs).numpy(), want.numpy(), rtol=1e-6)
    md.manual_seed(5)
    whole = md.jit(md.grad(lambda xs: (md.vmap(f)(xs) ** 2).sum()))(xs)
    np.testing.assert_allclose(whole.numpy(), want.numpy(), rtol=1e-6)


def test_nested_maps_and_draws_beside_loops():
    xs = md.ones(2, 3, 2)
    md.manual_seed(0)
    eager = md.vmap(md.vmap(both))(xs)
    md.manual_seed(0)
    np.testing.assert_array_equal(md.jit(md.vmap(md.vmap(both)))(xs).numpy(), eager.numpy())
    assert len(np.unique(eager.numpy())) == 12


@pytest.mark.parametrize("wrap", [lambda f: f, md.jit], ids=["eager", "jit"])
def test_a_checkpoint_around_a_loop_replays_the_lanes_draws(wrap):
    def slope(f):
        md.manual_seed(1)
        return wrap(md.vmap(md.grad(lambda x: f(x).sum())))(md.ones(3, 2)).numpy()

    free = slope(lambda x: scanned(md.sin(x)) * while_looped(x) * md.rand(2))
    np.testing.assert_allclose(slope(lambda x: md.checkpoint(lambda x: scanned(md.sin(x)) * while_looped(x) * md.rand(2))(x)), free, rtol=1e-5)
    assert np.isfinite(slope(kept_around)).all()


def test_a_seed_inside_a_mapped_function_begins_anew():
    def f(x):
        md.manual_seed(7)
        return scanned(x) - x

    out = md.vmap(lambda x: md.stack([f(x), f(x)]))(md.ones(2, 2)).numpy()
    np.testing.assert_allclose(out[:, 0], out[:, 1], rtol=1e-6)
    assert not np.allclose(out[0], out[1])  # every lane has a stream of its own
