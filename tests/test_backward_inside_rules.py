"""What a function with a rule of its own may do inside: differentiate, alike whether the call is tracked, traced, batched or none of these."""

from __future__ import annotations

import numpy as np
import pytest

import minidl as md

X = [1.0, 2.0]


def slope(x):
    """3 x² by a pass of its own."""
    y = x.detach().requires_grad_()
    (y * y * y).sum().backward()
    return y.grad


def by_vjp():
    f = md.custom_vjp(slope)
    f.defvjp(lambda x: (slope(x), x), lambda x, g: (g * 6 * x,))
    return f


def by_jvp():
    f = md.custom_jvp(slope)
    f.defjvp(lambda p, t: (slope(p[0]), 6 * p[0] * t[0]))
    return f


def twice(f):
    return lambda x: md.scan(lambda c, _: (f(c), None), x, None, length=2)[0]


VALUES = {"call": lambda f: f, "jit": md.jit, "vmap": md.vmap, "cond": lambda f: md.jit(lambda x: md.cond(x[0] > 0, f, md.cos, x))}
GRADIENTS = {
    "grad": lambda f: md.grad(lambda x: f(x).sum()),
    "jit of grad": lambda f: md.jit(md.grad(lambda x: f(x).sum())),
    "grad of jit": lambda f: md.grad(lambda x: md.jit(f)(x).sum()),
    "vmap of grad": lambda f: md.vmap(md.grad(f)),
    "checkpoint": lambda f: md.grad(lambda x: md.checkpoint(f)(x).sum()),
}


@pytest.mark.parametrize("make", [by_vjp, by_jvp])
def test_a_function_with_a_rule_may_differentiate_inside(make):
    f, x = make(), md.tensor(X)
    for name, way in VALUES.items():
        assert way(f)(x).tolist() == [3.0, 12.0], name
    for name, way in GRADIENTS.items():
        assert way(f)(x).tolist() == [6.0, 12.0], name
    for name, way in (("eager", lambda f: f), ("jit", md.jit)):
        assert way(twice(f))(x).tolist() == [27.0, 432.0], name
        assert way(md.grad(lambda x: twice(f)(x).sum()))(x).tolist() == [108.0, 864.0], name
    assert md.grad(lambda x: md.grad(lambda x: f(x).sum())(x).sum())(x).tolist() == [6.0, 6.0]


@pytest.mark.parametrize("way", [lambda f: f, md.jit], ids=["eager", "jit"])
def test_a_gradient_that_goes_outside_is_not_lost(way):
    w = md.tensor([5.0, 7.0], requires_grad=True)

    def value(x):
        (x.detach() * w).sum().backward()
        return x * 2

    f = md.custom_vjp(value)
    f.defvjp(lambda x: (value(x), None), lambda _, g: (g * 100,))
    x = md.tensor(X)
    assert way(f)(x).tolist() == [2.0, 4.0] and w.grad.tolist() == X
    assert way(md.grad(lambda x: f(x).sum()))(x).tolist() == [100.0, 100.0] and w.grad.tolist() == [2.0, 4.0]


def test_the_forward_of_a_function_keeps_no_tape_of_what_it_reads():
    w, seen = md.tensor(3.0, requires_grad=True), []

    class Reads(md.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            seen.append((x * w).requires_grad)
            return x * w

        @staticmethod
        def backward(ctx, g):
            return g * 10

    x = md.tensor(2.0, requires_grad=True)
    Reads.apply(x).backward()
    assert seen == [False] and x.grad.item() == 10.0 and w.grad is None
    assert not Reads.apply(md.tensor(2.0)).requires_grad


def test_the_backward_of_a_function_of_a_list_is_differentiated():
    class Exp(md.autograd.Function):
        @staticmethod
        def forward(ctx, xs):
            ctx.save_for_backward(xs[0].exp())
            return xs[0].exp()

        @staticmethod
        def backward(ctx, g):
            (y,) = ctx.saved_tensors
            return ([g * y],)

    first = md.grad(lambda x: Exp.apply([x]).sum())
    second = md.grad(lambda x: first(x).sum())
    x = md.tensor(X)
    for found in (first(x), second(x), md.jit(second)(x)):
        np.testing.assert_allclose(found.numpy(), x.exp().numpy(), rtol=0 if x.backend == "numpy" else 1e-6)


def test_a_rule_inside_of_a_rule_is_kept_at_the_next_order():
    inner = md.custom_vjp(lambda x: x * 2.0)
    inner.defvjp(lambda x: (x * 2.0, None), lambda _, g: (g * 100.0,))
    outer = md.custom_vjp(lambda x: x * x)
    outer.defvjp(lambda x: (x * x, x), lambda x, g: (g * inner(x) * x,))
    first = md.grad(lambda x: outer(x).sum())
    second = md.grad(lambda x: first(x).sum())  # of 2 x², where the 2 x has the slope 100
    over = lambda g: lambda x: md.map(g, x[None])[0]
    x = md.tensor(X)
    for way in (lambda g: g, md.jit, md.vmap, over, lambda g: md.jit(over(g)), lambda g: md.jit(md.vmap(g))):
        assert way(first)(x).tolist() == [2.0, 8.0]
        assert way(second)(x).tolist() == [102.0, 204.0]
