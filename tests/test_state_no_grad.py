"""A write under no_grad, and one past the tape (detach, .data), to the result of a recorded operation: the value is the new one, and the derivative
stays that of before, as in PyTorch; also where what is differentiated was traced, mapped or checkpointed first."""

import numpy as np
import pytest
import torch

import minidl as md

X = np.array([1.0, 2.0], np.float32)


def doubled(t, x):
    y = x * 1
    with t.no_grad():
        y.mul_(2)
    return (y * y).sum()


def changed(t, x):
    y = x * x
    with t.no_grad():
        y.exp_()
        y[0] = 5.0
        y.detach().add_(1.0)
    return (y * 3).sum()


def copied(t, x):
    y = x * 1
    with t.no_grad():
        y.copy_(t.sin(x) * 3)
    return (y * x).sum()


def data(t, x):
    y = x * 3
    y.data = y.data * 2
    y.data.add_(1.0)
    return (y * y).sum()


def other(x):
    return x.sum()


WAYS = {
    "eager": lambda f: f,
    "jit": md.jit,
    "cond": lambda f: lambda x: md.cond(md.tensor(True), f, other, x),
    "cond in jit": lambda f: md.jit(lambda x: md.cond(x.sum() > 0, f, other, x)),
    "scan": lambda f: lambda x: md.scan(lambda c, _: (c, f(c)), x, None, length=1)[1].sum(),
    "scan in jit": lambda f: md.jit(lambda x: md.scan(lambda c, _: (c, f(c)), x, None, length=1)[1][0]),
    "checkpoint": lambda f: md.checkpoint(f),
    "checkpoint in jit": lambda f: md.jit(md.checkpoint(f)),
    "vmap": lambda f: lambda x: md.vmap(f)(x[None]).sum(),
}


@pytest.mark.parametrize("program", [doubled, changed, copied, data], ids=lambda f: f.__name__)
@pytest.mark.parametrize("way", WAYS)
def test_the_derivative_is_that_of_before_the_write(way, program):
    x = torch.tensor(X, requires_grad=True)
    want = program(torch, x)
    want.backward()
    f, x32 = WAYS[way](lambda v: program(md, v)), md.tensor(X)
    value, gradient = md.value_and_grad(f)(x32)
    np.testing.assert_allclose(value.item(), want.item(), rtol=1e-6)
    np.testing.assert_allclose(gradient.numpy(), x.grad.numpy(), rtol=1e-6)
    np.testing.assert_allclose(md.jvp(f, (x32,), (md.ones(2),))[1].item(), x.grad.numpy().sum(), rtol=1e-6)
    if way != "eager":
        np.testing.assert_allclose(md.jit(md.grad(f))(x32).numpy(), x.grad.numpy(), rtol=1e-6)


def test_a_leaf_written_in_a_loop_keeps_its_gradient():
    w = md.tensor([1.0, 2.0], requires_grad=True)

    def body(c, x):
        with md.no_grad():
            w.mul_(2.0)
        return c + (w * x).sum(), None

    total, _ = md.scan(body, md.zeros(()), md.tensor([1.0, 10.0]))
    assert w.tolist() == [4.0, 8.0] and total.item() == 6.0 + 120.0


def test_nothing_of_it_is_in_a_program():
    f = md.jit(lambda x: doubled(md, x))
    assert "instead" not in str(f.lower(md.tensor(X))) and f(md.tensor(X)).item() == 20.0
    assert "instead" in str(md.trace(lambda x: doubled(md, x))(md.tensor(X)))
