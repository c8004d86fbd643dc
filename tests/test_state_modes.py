"""Grad mode, hooks and rules of one's own, as state: what a traced or checkpointed body leaves behind, what follows a tensor that is changed in
place, and what a function may return besides tensors."""

import numpy as np
import pytest
import torch

import minidl as md


@pytest.fixture(autouse=True)
def recording():
    yield
    md.set_grad_enabled(True)


def bare(x):
    y = x * 3
    md.set_grad_enabled(False)
    return y, y * 2


TRACED = {
    "jit": lambda x: md.jit(bare)(x),
    "cond in jit": lambda x: md.jit(lambda x: md.cond(x > 0, bare, lambda x: (x, x), x))(x),
    "scan in jit": lambda x: md.jit(lambda x: md.scan(lambda c, _: (bare(c)[1], None), x, None, length=2)[0])(x),
    "checkpoint in jit": lambda x: md.jit(lambda x: md.checkpoint(bare)(x))(x),
    "trace": lambda x: md.trace(bare)(x),
}


@pytest.mark.parametrize("where", TRACED)
def test_a_grad_mode_that_a_traced_body_leaves_behind_is_an_error(where):
    x = md.tensor(2.0, requires_grad=True)
    for _ in range(2):
        with pytest.raises(RuntimeError, match=r"jit: the traced function left md.set_grad_enabled\(False\) behind"):
            TRACED[where](x)
        assert md.is_grad_enabled() and (x * 2).requires_grad


def test_a_grad_mode_that_a_body_takes_back_is_none():
    def body(x):
        y = x * 3
        md.set_grad_enabled(False)
        z = y * 2
        md.set_grad_enabled(True)
        return y + z

    for f in (body, md.jit(body), md.checkpoint(body), md.jit(lambda x: md.cond(x > 0, body, lambda x: x, x))):
        assert md.grad(f)(md.tensor(2.0)).item() == 3.0
        assert md.jvp(f, (md.tensor(2.0),), (md.tensor(1.0),))[1].item() == 3.0


def test_a_checkpointed_function_leaves_the_mode_that_it_would_leave_by_itself():
    x = md.tensor(2.0, requires_grad=True)
    y, z = md.checkpoint(bare)(x)
    assert not md.is_grad_enabled()
    md.set_grad_enabled(True)
    assert y.requires_grad and not z.requires_grad
    y.backward()
    assert x.grad.item() == 3.0 and md.is_grad_enabled()

    def fails(x):
        md.set_grad_enabled(False)
        raise ValueError

    for f in (md.checkpoint(fails), md.jit(fails), md.trace(fails)):
        with pytest.raises(ValueError):
            f(x)
        assert md.is_grad_enabled()


def plain(t, y):
    y.exp_()


def operator(t, y):
    y *= 5
    y += 1


def element(t, y):
    y[0] = 7.0


def view(t, y):
    y[0].mul_(4.0)


def unrecorded(t, y):
    with t.no_grad():
        y.mul_(3.0)


@pytest.mark.parametrize("write", [plain, operator, element, view, unrecorded], ids=lambda f: f.__name__)
def test_retain_grad_follows_what_is_changed_in_place(write):
    found = []
    for t in (torch, md):
        x = t.tensor([1.0, 2.0], requires_grad=True)
        y = x * 2
        y.retain_grad()
        seen = []
        y.register_hook(lambda g, seen=seen: seen.append(g.tolist()))
        (y * y).sum().backward(retain_graph=True)
        write(t, y)
        (y * 3).sum().backward()
        found.append((y.grad.tolist(), x.grad.tolist(), seen))
    np.testing.assert_allclose(found[0][0], found[1][0], rtol=1e-5)
    np.testing.assert_allclose(found[0][1], found[1][1], rtol=1e-5)
    np.testing.assert_allclose(found[0][2], found[1][2], rtol=1e-5)  # a hook stays where it was registered


def test_retain_grad_follows_inside_a_program():
    def f(x):
        y = x * 2
        y.retain_grad()
        y.exp_()
        (y * 3).sum().backward()
        return y.grad * 1.0

    x = md.tensor([1.0, 2.0], requires_grad=True)
    assert md.jit(f)(x).tolist() == [3.0, 3.0]
    from minidl.tensors import kept

    assert not kept


class Several(md.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x, "label", None, 3, x.shape, x + 1

    @staticmethod
    def backward(ctx, *gradients):
        (x,) = ctx.saved_tensors
        return gradients[0] * 2 * x + gradients[-1]


def of_several(x):
    a, label, nothing, three, shape, b = Several.apply(x)
    assert label == "label" and nothing is None and three == 3 and shape == x.shape
    return (a * three + b * 2).sum()


def of_vjp(x):
    out, (name, number) = ruled(x)
    assert (name, number) == ("name", 1.5)
    return (out * number).sum()


ruled = md.custom_vjp(lambda x: (x * x, ("name", 1.5)))
ruled.defvjp(lambda x: ((x * x, ("name", 1.5)), x), lambda x, g: (g[0] * 2 * x,))


def of_jvp(x):
    out, name = pushed(x)
    assert name == "name"
    return out.sum()


pushed = md.custom_jvp(lambda x: (x * x, "name"))
pushed.defjvp(lambda p, t: ((p[0] * p[0], "name"), (2 * p[0] * t[0], None)))


@pytest.mark.parametrize("f, want", [(of_several, [8.0, 14.0]), (of_vjp, [3.0, 6.0]), (of_jvp, [2.0, 4.0])], ids=["Function", "vjp", "jvp"])
def test_functions_with_rules_may_return_what_is_no_tensor(f, want):
    x = md.tensor([1.0, 2.0])
    looped = lambda x: md.scan(lambda c, _: (c, f(c)), x, None, length=1)[1].sum()
    for way in (md.grad(f), md.jit(md.grad(f)), md.grad(md.jit(f)), md.jit(md.grad(looped)), md.grad(lambda x: md.vmap(f)(x[None]).sum())):
        assert way(x).tolist() == want


def test_check_says_that_an_array_changed_which_a_program_holds():
    array, numbers = np.ones(2000, np.float32), [1.0, 2.0]
    held = dict.fromkeys(range(5000), array)  # too many for guards
    f = md.jit(lambda x: (x * held[1]).sum() + md.asarray(held[2]).sum() + numbers[0], check=True)
    x = md.ones(2000)
    assert f(x).item() == f(x).item() == 4001.0
    array[0] = 5.0
    with pytest.raises(RuntimeError, match=r"jit: the function reads host data, as f32\[2000\], that has changed"):
        f(x)
    array[0] = 1.0
    assert f(x).item() == 4001.0
    numbers[0] = 2.0  # a guard
    with pytest.warns(md.JitWarning if hasattr(md, "JitWarning") else UserWarning, match="traced again"):
        assert f(x).item() == 4002.0


def test_a_pull_can_be_called_again_whatever_was_differentiated_meanwhile():
    x = md.tensor([1.0, 2.0], requires_grad=True)
    held = []
    for f in (
        lambda v: (v * v).sum(),
        lambda v: (v * v * held[-1]).sum(),
        lambda v: (v * v * x).sum(),
        lambda v: md.checkpoint(lambda q: md.sin(q) * q)(v).sum() * md.jit(lambda q: q.sum() * 2)(v) * x.sum(),
    ):
        held.append(x * 2)
        out, pull = md.vjp(f, x)
        same, push = md.linearize(f, x)
        first, moved = pull(md.tensor(1.0))[0].tolist(), push(md.ones(2)).item()
        (out + same).backward()
        assert pull(md.tensor(1.0))[0].tolist() == first and push(md.ones(2)).item() == moved
    y = x * x
    y.sum().backward()
    with pytest.raises(RuntimeError, match="already differentiated"):  # what no pull reads is released as ever
        y.sum().backward()


def test_a_gradient_past_a_released_value_needs_it_not():
    x = md.tensor([1.0, 2.0], requires_grad=True)
    w = md.tensor([3.0, 4.0], requires_grad=True) ** 2
    w.sum().backward()
    y = x.detach().requires_grad_()
    assert md.autograd.grad((y * w).sum(), y)[0].tolist() == [9.0, 16.0]
    with pytest.raises(RuntimeError, match="already differentiated"):
        (y * w).sum().backward()


@pytest.mark.parametrize("name", ["relu", "leaky_relu", "elu", "silu", "hardswish", "relu6", "selu", "mish", "celu", "hardsigmoid", "hardtanh"])
def test_inplace_stores_in_the_argument_as_in_pytorch(name):
    found = []
    for t in (torch, md):
        x = t.tensor([[-1.0, 0.5], [2.0, -3.0]], requires_grad=True)
        h = x * 1
        out = getattr(t.nn.functional, name)(h[0], inplace=True)
        (out.sum() + (h * 3).sum()).backward()
        found.append((h.tolist(), out.tolist(), x.grad.tolist()))
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)
    with pytest.raises(RuntimeError, match="leaf"):
        getattr(md.nn.functional, name)(md.ones(2, requires_grad=True), inplace=True)
    layer = md.nn.Sequential(md.nn.ReLU(inplace=True), md.nn.Dropout(0.5, inplace=True)).eval()
    x = md.tensor([-1.0, 1.0])
    assert md.jit(layer)(x).tolist() == x.tolist() == [0.0, 1.0]


def test_a_program_notices_hooks_of_leaves_that_come_and_go():
    w, other = md.tensor([1.0, 2.0], requires_grad=True), md.tensor([1.0], requires_grad=True)

    @md.jit
    def step():
        w.grad = None
        (w * w).sum().backward()
        return w.grad * 1.0

    assert step().tolist() == [2.0, 4.0]
    handle = w.register_hook(lambda g: g * 10)
    assert step().tolist() == step().tolist() == [20.0, 40.0]
    other.register_hook(lambda g: g * 3)
    compiles = step.compiles
    assert step().tolist() == [20.0, 40.0] and step.compiles == compiles
    handle.remove()
    assert step().tolist() == [2.0, 4.0]
