"""What checkpoint undoes and replays is what its own level changed: traces and maps inside it keep theirs to themselves."""

from __future__ import annotations

import numpy as np
import pytest

import minidl as md


def custom():
    """x times random numbers, whose gradient they are."""
    f = md.custom_vjp(lambda x: x * md.rand(3))

    def fwd(x):
        k = md.rand(3)
        return x * k, k

    f.defvjp(fwd, lambda k, g: (g * k,))
    return lambda x: f(x).sum()


def plain(x):
    return (x * md.rand(3)).sum()


def looped(x):
    return md.scan(lambda c, a: (c + plain(a), ()), md.tensor(0.0), x)[0]


BOTH = {
    "rule": (custom(), (3,)),
    "vmap of rule": (lambda x: md.vmap(custom())(x).sum(), (2, 3)),
    "vmap of checkpoint": (lambda x: md.vmap(md.checkpoint(plain))(x).sum() + plain(x[0]), (2, 3)),
    "checkpoint of rule": (lambda x: md.checkpoint(custom())(x) + plain(x), (3,)),
    "scan": (looped, (2, 3)),
}


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize("wrap", [lambda f: f, md.jit], ids=["eager", "jit"])
def test_the_second_run_draws_what_the_first_drew(name, wrap):
    f, shape = BOTH[name]
    value, slope = wrap(md.value_and_grad(md.checkpoint(f)))(md.ones(shape))  # f is linear, so that its value at one is the sum of its slopes
    np.testing.assert_allclose(value.item(), slope.numpy().sum(), rtol=1e-6)


@pytest.mark.parametrize("wrap", [lambda f: f, md.jit], ids=["eager", "jit"])
def test_a_rule_that_draws_is_checkpointed_in_each_lane(wrap):
    values, slopes = wrap(md.vmap(md.value_and_grad(md.checkpoint(custom()))))(md.ones((2, 3)))
    np.testing.assert_allclose(values.numpy(), slopes.numpy().sum(1), rtol=1e-6)
    assert values[0].item() != values[1].item()


def test_what_an_inner_checkpoint_writes_is_undone_by_the_outer_one():
    count = md.tensor(0.0)

    def scaled(x):
        count.add_(1.0)
        return (x * count).sum()

    f = md.checkpoint(lambda x: md.vmap(md.checkpoint(scaled))(x).sum() + md.checkpoint(scaled)(x[0]))
    value, slope = md.value_and_grad(f)(md.ones((2, 3)))
    assert value.item() == 12.0 and slope.tolist() == [[3.0] * 3, [1.0] * 3] and count.item() == 2.0
