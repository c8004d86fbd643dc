"""Names of PyTorch's autograd beside backward and grad: hooks behind the gradient, what a Function may mark, and their like, as PyTorch has them."""

from __future__ import annotations

import gc
import weakref

import pytest

import minidl as md

torch = pytest.importorskip("torch")


def stepping(m, jit=lambda f: f):
    """A parameter whose hook steps and drops its gradient as soon as that is there."""
    x, w = m.tensor([1.0, 2.0], requires_grad=True), m.tensor([3.0], requires_grad=True)
    seen = []

    def step(p):
        seen.append(p is x)
        p.sub_(0.5 * p.grad)
        p.grad = None

    handle = x.register_post_accumulate_grad_hook(step)
    x.register_hook(lambda g: g * 2)
    run = jit(lambda: (x * x * w + x).sum().backward())
    for _ in range(3):
        run()
    first = x.tolist(), x.grad, w.grad.tolist(), set(seen)
    m.autograd.grad((x * w).sum(), x)  # which accumulates nothing
    handle.remove()
    run()
    return first, x.tolist(), x.grad.tolist(), w.grad.tolist()


def test_a_hook_behind_the_gradient():
    assert stepping(md) == stepping(md, md.jit) == stepping(torch)
    with pytest.raises(RuntimeError, match="only a leaf that requires grad"):
        md.ones(2).register_post_accumulate_grad_hook(print)


def test_a_hook_keeps_no_tensor_alive():
    x = md.ones(2, requires_grad=True)
    x.register_post_accumulate_grad_hook(lambda p: None)
    there = weakref.ref(x)
    gc.disable()
    try:
        del x
        assert there() is None
    finally:
        gc.enable()


def marking(m, jit=lambda f: f):
    class Add(m.autograd.Function):
        @staticmethod
        def forward(ctx, x, y):
            ctx.set_materialize_grads(False)
            ctx.save_for_backward(y)
            sign = x > 0
            place = x * 0.0 + 7.0
            x.mul_(y)
            ctx.mark_dirty(x)
            ctx.mark_non_differentiable(sign, place)
            return x, sign, place

        @staticmethod
        def backward(ctx, g, *_):
            (y,) = ctx.saved_tensors
            return g * y, g * 100.0

    a, b = m.tensor([1.0, -2.0], requires_grad=True), m.tensor([3.0, 4.0], requires_grad=True)

    def f(a, b):
        t = a * 1.0
        out, sign, place = Add.apply(t, b)
        assert out is t
        return t * 1.0, sign * 1.0, place * 1.0

    t, sign, place = jit(f)(a, b)
    (t * t).sum().backward()
    return t.tolist(), sign.tolist(), place.tolist(), place.requires_grad, a.grad.tolist(), b.grad.tolist()


def test_what_a_function_marks():
    assert marking(md) == marking(md, md.jit) == marking(torch)

    class Lost(md.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.mark_dirty(x)
            return x * 2.0

        @staticmethod
        def backward(ctx, g):
            return g

    with pytest.raises(ValueError, match="mark_dirty: an argument is wanted that forward changes in place and returns"):
        Lost.apply(md.ones(2, requires_grad=True) * 1.0)


@pytest.mark.filterwarnings("ignore:index_reduce.. is in beta:UserWarning")
def test_index_reduce():
    x, source = [[1.0, -2.0], [3.0, 4.0], [5.0, 6.0]], [[2.0, 8.0], [-1.0, 3.0], [4.0, 0.5]]
    for reduce in ("prod", "mean", "amax", "amin"):
        for more in ({}, {"include_self": False}):
            found = md.tensor(x).index_reduce(0, md.tensor([2, 0, 2]), md.tensor(source), reduce, **more)
            wanted = torch.tensor(x).index_reduce(0, torch.tensor([2, 0, 2]), torch.tensor(source), reduce, **more)
            assert found.tolist() == wanted.tolist()
    y = md.tensor(x)
    assert y.index_reduce_(1, md.tensor([0]), md.tensor(source)[:, :1], "amax") is y and y[:, 0].tolist() == [2.0, 3.0, 5.0]
    with pytest.raises(ValueError, match="index_reduce: reduce must be"):
        y.index_reduce(0, md.tensor([0]), y[:1], "sum")
    with pytest.raises(ValueError, match="index_reduce: an index of as many positions"):
        y.index_reduce(0, md.tensor([0, 1]), y[:1], "amax")


def test_draws_of_a_fork_leave_the_stream():
    md.manual_seed(3)
    with pytest.raises(KeyError), md.random.fork_rng():
        md.manual_seed(8)
        md.rand(3)
        raise KeyError
    assert md.initial_seed() == 3
    found = md.rand(3).tolist()
    md.manual_seed(3)
    assert md.rand(3).tolist() == found
    with md.random.fork_rng(enabled=False):
        md.manual_seed(3)
        md.rand(3)
    assert md.rand(3).tolist() != found
