"""What checkpoint undoes and replays is what its own level changed: traces and maps inside it keep theirs to themselves."""

from __future__ import annotations

import numpy as np
import pytest

import minidl as md
from minidl import checkpointing, nn


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
def test_a_layer_that_is_made_inside_is_made_again_with_the_same_weights(wrap):
    weights = md.checkpoint(lambda x: nn.Linear(3, 1)(x).sum())
    md.manual_seed(0)
    layer = nn.Linear(3, 1)
    md.manual_seed(0)
    value, slope = wrap(md.value_and_grad(weights))(md.ones((1, 3)))
    np.testing.assert_array_equal(slope.detach().numpy(), layer.weight.detach().numpy())
    np.testing.assert_allclose(value.item(), layer(md.ones((1, 3))).item(), rtol=1e-6)


@pytest.mark.parametrize("wrap", [lambda f: f, md.jit], ids=["eager", "jit"])
def test_a_rule_that_draws_is_checkpointed_in_each_lane(wrap):
    values, slopes = wrap(md.vmap(md.value_and_grad(md.checkpoint(custom()))))(md.ones((2, 3)))
    np.testing.assert_allclose(values.numpy(), slopes.numpy().sum(1), rtol=1e-6)
    assert values[0].item() != values[1].item()


@pytest.mark.parametrize("wrap", [lambda f: f, md.jit], ids=["eager", "jit"])
@pytest.mark.parametrize("again", [lambda f: f, md.checkpoint], ids=["once", "twice"])
def test_a_stream_that_begins_inside_is_replayed_from_its_beginning(monkeypatch, wrap, again):
    """As the default one does where the first random number of a program is drawn there."""
    monkeypatch.setattr(checkpointing, "streams", known := type(checkpointing.streams)())

    def draw(x):
        if not known:
            known.append(md.random.Generator(1))
        return (x * md.rand(3, generator=known[0])).sum()

    values, slopes = wrap(md.vmap(md.value_and_grad(again(md.checkpoint(draw)))))(md.ones((2, 3)))
    np.testing.assert_allclose(values.numpy(), slopes.numpy().sum(1), rtol=1e-6)


def test_what_an_inner_checkpoint_writes_is_undone_by_the_outer_one():
    count = md.tensor(0.0)

    def scaled(x):
        count.add_(1.0)
        return (x * count).sum()

    f = md.checkpoint(lambda x: md.vmap(md.checkpoint(scaled))(x).sum() + md.checkpoint(scaled)(x[0]))
    value, slope = md.value_and_grad(f)(md.ones((2, 3)))
    assert value.item() == 12.0 and slope.tolist() == [[3.0] * 3, [1.0] * 3] and count.item() == 2.0


@pytest.mark.parametrize("wrap", [lambda f: f, md.jit], ids=["eager", "jit"])
def test_all_orders_and_all_that_it_reads_and_writes_have_the_derivatives_of_the_function_itself(wrap):
    """What is read from outside twice counts once each time, and what is stored outside leads back to the argument."""
    kept = md.tensor(0.0)

    def f(x, w):
        kept.assign(x * x)
        return md.sin(w) * x * x + w * md.exp(x)

    def total(x, w, f):
        return f(x, w) + kept * 3.0

    def all_of(run):
        g = lambda x, w: total(x, w, run(f))
        outside = lambda w: total(x, w, lambda x, w: run(lambda x: f(x, w))(x))  # w is read, and no argument
        push = lambda g: lambda x, w: md.jvp(lambda x: g(x, w), (x,), (md.ones(()),))[1]
        read = lambda x, w: total(x, w, lambda x, w: run(lambda x: f(x, w))(x))
        second = lambda x, w: (*md.grad(push(g), argnums=(0, 1))(x, w), md.grad(push(read), argnums=1)(x, w), md.grad(md.grad(g))(x, w))
        return lambda x, w: (*md.grad(g, argnums=(0, 1))(x, w), md.grad(outside)(w), *second(x, w))

    x, w = md.tensor(0.7), md.tensor(1.3)
    want = all_of(lambda f: f)(x, w)
    for got, exact in zip(wrap(all_of(md.checkpoint))(x, w), want, strict=True):
        np.testing.assert_allclose(got.item(), exact.item(), rtol=1e-6)


@pytest.mark.parametrize("wrap", [lambda f: f, md.jit], ids=["eager", "jit"])
def test_the_gradient_reaches_what_is_read_several_times_from_outside(wrap):
    slopes = []
    for run in (md.checkpoint, lambda f: f):
        w, x = md.tensor(2.0, requires_grad=True), md.tensor(0.5, requires_grad=True)
        twice = w * 1.5
        wrap(run(lambda x: x * twice + md.sin(twice) * x * w + w))(x).backward()  # noqa: B023
        slopes.append((w.grad.item(), x.grad.item()))
    np.testing.assert_allclose(*slopes, rtol=1e-6)


def test_a_result_that_is_a_tensor_from_outside_keeps_its_place_on_the_tape():
    double = md.custom_jvp(lambda x: x * 2)
    double.defjvp(lambda p, t: (p[0] * 2, t[0] * 2))
    x = md.tensor([1.0, 2.0])
    for outside in (lambda x: x * 2, double):
        for wrap in (md.checkpoint, lambda f: md.jit(md.checkpoint(f)), lambda f: md.checkpoint(md.jit(f))):

            def f(x, outside=outside, wrap=wrap):
                v = outside(x)
                a, b = wrap(lambda a: (a * v, v))(x)
                return (a * 3 + b).sum()

            for g in (md.grad(f), md.jit(md.grad(f)), lambda x: md.vmap(md.grad(f))(md.stack([x, x]))[1]):
                assert g(x).tolist() == [14.0, 26.0]
            assert md.jvp(f, (x,), (md.ones(2),))[1].item() == 40.0
