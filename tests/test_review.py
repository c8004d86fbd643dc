"""Defects that a review found, each by its smallest example: stale programs of jit, wrong or lost gradients, memory kept alive."""

from __future__ import annotations

import collections
import functools
import gc
import weakref

import numpy as np
import pytest

import minidl as md
from minidl import nn, optim

T = md.tensor
INF = float("inf")
pytestmark = pytest.mark.usefixtures("on_numpy")


def leaf(*values):
    return T(list(values), requires_grad=True)


# ---- jit: what a program may not be stale about ---------------------------------------------------------------------------------------------
A = B = T([1.0], backend="numpy")
S = 1
WRAPPED = HELPER = INNER = 2.0


def test_the_same_tensor_twice_is_guarded(monkeypatch):
    f = md.jit(lambda x, y: x * 2 + y)
    x, y = T([1.0]), T([10.0])
    assert f(x, x).item() == 3.0 and f(x, y).item() == 12.0
    g = md.jit(lambda x: x * A + B)  # two names of one tensor
    assert g(T([1.0])).item() == 2.0
    monkeypatch.setitem(globals(), "B", T([100.0]))
    assert g(T([1.0])).item() == 101.0
    h = md.jit(lambda x: x + A)  # an argument that is also read from outside
    assert h(A).item() == 2.0 and h(T([5.0])).item() == 6.0


def test_a_changed_argument_may_not_be_another_one_later():
    def f(x, y):
        x += 1
        return y * 1

    j = md.jit(f)
    assert j(T([1.0]), T([5.0])).item() == 5.0
    c = T([1.0])
    assert j(c, c).item() == 2.0


@pytest.mark.parametrize(("before", "after"), [(1, 1.0), (1, True), (0.0, -0.0), ((1,), (1.0,)), (1.0, 1.0 + 0j)], ids=repr)
def test_equal_numbers_of_other_types_and_signs_are_other_numbers(before, after, monkeypatch):
    def f(x, s):
        return 1 / (x * (s[0] if isinstance(s, tuple) else s))

    def seen(s):
        monkeypatch.setitem(globals(), "S", s)
        outs = (jitted(T([1])), static(T([1]), s))
        for out in outs:
            assert (out.dtype, str(out.numpy())) == ((e := f(T([1]), s)).dtype, str(e.numpy()))

    jitted, static = md.jit(lambda x: f(x, S)), md.jit(f, static_argnames="s")
    seen(before)
    seen(after)


def test_nan_is_itself(monkeypatch):
    monkeypatch.setitem(globals(), "S", float("nan"))
    f = md.jit(lambda x: md.where(x > 0, x, S))
    assert f(T([1.0])).item() == f(T([1.0])).item() == 1.0
    assert f.compiles == 1


class Net(nn.Module):
    level = 2.0

    def __init__(self):
        super().__init__()
        self.pair, self.kind = (1.0, 2.0), md.float32

    def forward(self, x):
        return self.helper(x).to(self.kind) * self.level

    def helper(self, x):
        return x * self.pair[0] * HELPER


def test_attributes_and_methods_of_modules_are_guarded(monkeypatch):
    net = Net()
    f = md.jit(lambda x: net(x))
    assert f(T([1.0])).item() == 4.0
    net.pair = (3.0, 4.0)
    assert f(T([1.0])).item() == 12.0
    net.kind = md.float64
    assert f(T([1.0])).dtype is md.float64
    monkeypatch.setattr(Net, "level", 1.0)
    assert f(T([1.0])).item() == 6.0
    monkeypatch.setitem(globals(), "HELPER", 5.0)
    assert f(T([1.0])).item() == 15.0
    assert f.compiles == 5


def doubled(f):
    @functools.wraps(f)
    def wrapper(x):
        return f(x) * WRAPPED

    return wrapper


def test_wrappers_inner_programs_and_custom_rules_are_guarded(monkeypatch):
    inner = md.jit(lambda x: x * 2)
    rule = md.custom_vjp(lambda x: x * INNER)
    rule.defvjp(lambda x: (x * INNER, None), lambda res, g: (g,))
    f, g, h = md.jit(doubled(lambda x: x)), md.jit(lambda x: inner(x)), md.jit(lambda x: rule(x))
    assert [k(T([1.0])).item() for k in (f, g, h)] == [2.0, 2.0, 2.0]
    monkeypatch.setitem(globals(), "WRAPPED", 3.0)
    monkeypatch.setitem(globals(), "INNER", 5.0)
    inner = md.jit(lambda x: x * 9)
    assert [k(T([1.0])).item() for k in (f, g, h)] == [3.0, 9.0, 5.0]


def test_the_default_backend_is_guarded():
    pytest.importorskip("torch")
    f = md.jit(lambda: md.zeros((2,)))
    assert f().backend == "numpy"
    with md.use_backend("torch"):
        assert f().backend == "torch"


def test_shapes_of_tensors_that_are_not_read_are_guarded():
    w = md.ones((3,))
    f = md.jit(lambda x: x * w.shape[0])
    assert f(T([1.0])).item() == 3.0
    w = md.ones((5,))
    assert f(T([1.0])).item() == 5.0


def test_programs_are_kept_for_objects_keyword_defaults_and_leaves_made_inside():
    class Trainer:
        def __init__(self):
            self.net, self.scale = nn.Linear(2, 2), 1.0

        def run(self, x):
            return self.net(x) * self.scale

    trainer, w = Trainer(), T([2.0])

    def default(x, *, w=w):
        return x * w

    def made_inside(x):
        v = md.ones((1,)).requires_grad_()
        (v * x).sum().backward()
        return v.grad

    programs = [md.jit(trainer.run), md.jit(default), md.jit(made_inside)]
    for f, x in zip(programs, (md.ones((1, 2)), T([1.0]), T([2.0])), strict=True):
        f(x)
        f(x)
        assert f.compiles == 1
    before = programs[0](md.ones((1, 2))).detach().numpy()
    trainer.scale = 3.0
    np.testing.assert_allclose(programs[0](md.ones((1, 2))).detach().numpy(), before * 3, rtol=1e-6)


def test_numbers_do_in_a_program_what_numbers_do():
    cases = [
        (lambda x, s: x * abs(s), (-2.0, -3.0)), (lambda x, s: x * round(s), (2.2, 3.3)), (lambda x, s: x * (s * INF), (1.0, -1.0)),
        (lambda x, s: x * ((s & 1) + (s << 1)), (2, 3)), (lambda x, s: x * float(f"{s:.1f}"), (2.22, 3.33)), (lambda x, s: x * (s * 1j), (1.0, 2.0)),
        (lambda x, s: x * (s * np.float64(3)), (1.0, 2.0)), (lambda x, s: x * +s, (1.0, 2.0)),
    ]  # fmt: skip
    for f, values in cases:
        j = md.jit(f)
        for s in values:
            np.testing.assert_array_equal(j(T([1.0]), s).numpy(), f(T([1.0]), s).numpy())


def test_a_hyper_parameter_is_read_anew_by_whoever_reads_it():
    p = leaf(1.0)
    opt = optim.SGD([p], lr=0.25)

    def step(x):
        opt.zero_grad()
        (p * x).sum().backward()
        opt.step()
        return opt.param_groups[0]["lr"] * T(1.0)

    j = md.jit(step)
    for lr in (0.25, 0.5, 0.75):
        opt.param_groups[0]["lr"] = lr
        assert j(T([1.0])).item() == lr
    assert j.compiles == 1


# ---- jit: state and gradients ---------------------------------------------------------------------------------------------------------------
def test_gradients_of_arguments_go_to_the_arguments_of_the_call():
    f = md.jit(lambda x: (x * x).sum().backward())
    x, y = leaf(1.0), leaf(3.0)
    f(x)
    x.grad = None
    f(y)
    assert x.grad is None and y.grad.item() == 6.0
    x.requires_grad_(False)
    x.requires_grad_()
    f(x)
    assert x.grad.item() == 2.0 and f.compiles == 1


def test_a_leaf_that_was_switched_off_and_on_gets_its_gradient():
    w = leaf(1.0)
    f = md.jit(lambda x: (w * x).sum().backward())
    f(T([2.0]))
    w.requires_grad_(False)
    w.requires_grad_()
    f(T([3.0]))
    assert w.grad.item() == 5.0


def test_in_place_updates_of_tracked_tensors_stay_on_the_tape():
    w = leaf(1.0)
    h = w * 2

    def triple(h):
        h *= 3

    md.jit(triple)(h)
    h.sum().backward()
    assert w.grad.item() == 6.0
    buffer = T([0.0])
    md.jit(lambda x: buffer.assign(buffer + x * 3))(w)
    (g,) = md.autograd.grad(buffer.sum(), w)
    assert g.item() == 3.0


def test_backward_inside_that_would_lose_the_rest_of_the_graph_is_refused():
    w = leaf(1.0)
    with pytest.raises(RuntimeError, match="outside the jitted function"):
        md.jit(lambda h: (h * h).sum().backward())(w * 2)
    assert md.jit(lambda x: ((loss := (w * x).sum()).backward(), loss * 2)[1])(T([3.0])).item() == 6.0


def test_generators_are_refused_and_defaultdicts_taken():
    def lazily(x):
        yield x

    with pytest.raises(TypeError, match="generator"):
        md.jit(lazily)(T([1.0]))
    d = collections.defaultdict(list, a=T([1.0]))
    assert md.jit(lambda d: d["a"] * 2)(d).item() == 2.0
    assert md.tree.map(lambda t: t * 2, d)["b"] == []


def test_programs_keep_neither_arguments_nor_what_they_read_once():
    f, g = md.jit(lambda x: (md.sin(x) * x).sum()), md.jit(lambda x: 1 / 0)
    x = md.ones((10,)).requires_grad_()
    gone = weakref.ref(x)
    gc.disable()
    try:
        f(x).backward()
        del x
        assert gone() is None
    finally:
        gc.enable()
    y = md.ones((10,))
    gone = weakref.ref(y)
    with pytest.raises(ZeroDivisionError):
        g(y)
    del y
    gc.collect()
    assert gone() is None


# ---- the tape -------------------------------------------------------------------------------------------------------------------------------
def test_an_input_that_leads_to_another_input_gets_its_whole_gradient():
    x = leaf(3.0)
    y = x * 2
    z = (y * y).sum()
    for create in (False, True):
        gs = md.autograd.grad(z, [x, y], retain_graph=True, create_graph=create)
        assert [g.detach().item() for g in gs] == [24.0, 12.0]


def test_hooks_see_every_gradient_that_is_asked_for():
    x = leaf(3.0)
    calls = []
    x.register_hook(lambda g: (calls.append(1), g * 10)[1])
    assert md.autograd.grad((x * x).sum(), x)[0].item() == 60.0
    y = x.detach().requires_grad_() * 1
    y.register_hook(lambda g: g * 10)
    assert md.autograd.grad((y * y).sum(), y)[0].item() == 60.0
    assert md.grad(lambda x: (x.register_hook(lambda g: g * 10), (x * x).sum())[1])(T([3.0])).item() == 60.0
    md.jit(lambda x: (x * x).sum())(x).backward()
    assert x.grad.item() == 60.0 and len(calls) == 2


@pytest.mark.parametrize("create", [False, True])
def test_hooks_on_the_result_of_a_jitted_function(create):
    x = leaf(3.0)
    y = md.jit(lambda x: x * x)(x)
    y.register_hook(lambda g: g * 10)
    y.sum().backward(create_graph=create)
    assert x.grad.detach().item() == 60.0


def test_hooks_see_complex_gradients_as_users_do():
    seen = []
    z = leaf(1 + 2j)
    z.register_hook(lambda g: seen.append(g.tolist()))
    w = z * (1 + 1j)
    w.register_hook(lambda g: seen.append(g.tolist()))
    md.real(w * w).sum().backward()
    assert seen == [[-2 - 6j], [-8 - 4j]] and z.grad.tolist() == [-8 - 4j]


def test_in_place_under_no_grad_leaves_the_tape_alone():
    x = leaf(1.0)
    y = x * 2
    with md.no_grad():
        y += 1
    y.sum().backward()
    assert x.grad.item() == 2.0

    def descend(target):
        w = md.zeros(()).requires_grad_()
        for _ in range(2):
            ((w - target) ** 2).backward()
            with md.no_grad():
                w -= 0.5 * w.grad
            w.grad = None
        return w.detach()

    assert md.vmap(descend)(T([1.0, 2.0])).tolist() == [1.0, 2.0]
    assert md.jit(md.vmap(descend))(T([1.0, 2.0])).tolist() == [1.0, 2.0]


# ---- checkpoint and loops -------------------------------------------------------------------------------------------------------------------
class Holder:
    """No Module: nothing says that it holds parameters."""

    def __init__(self):
        self.w = leaf(2.0)
        self.more = [self.w * self.w]

    def __call__(self, y):
        return self.more[0] * y + self.w


@pytest.mark.parametrize("wrap", [lambda f: f, md.jit], ids=["eager", "jit"])
def test_checkpoint_finds_what_the_function_reads(wrap):
    holder = Holder()
    wrap(lambda y: md.checkpoint(holder)(y).sum())(T([3.0])).backward()
    assert holder.w.grad.item() == 13.0
    x = leaf(1.0)
    (g,) = md.autograd.grad(md.checkpoint(lambda x: holder.w * x * x)(x).sum(), x, create_graph=True)
    assert md.autograd.grad(g.sum(), holder.w)[0].item() == 2.0
    out, moved = md.jvp(md.checkpoint(lambda x: (holder.w.detach() * x * x, md.argmax(x))), (T([3.0]),), (T([1.0]),))
    assert moved[0].item() == 12.0 and out[1].item() == 0


def test_a_scan_of_no_steps_and_a_leaf_inside_a_scan():
    end, ys = md.scan(lambda c, x: (c + x, (c, c > 0)), T(1.5), md.zeros((0,)))
    assert end.item() == 1.5 and ys[0].shape == (0,) and ys[1].dtype is md.bool

    def body(c, x):
        w = md.ones(()).requires_grad_()
        (w * x * x).backward()
        return c + w.grad, w.grad

    assert md.jit(lambda xs: md.scan(body, T(0.0), xs)[0])(T([1.0, 2.0])).item() == 5.0


def test_common_subexpressions_tell_the_zeros_of_complex_constants_apart():
    f = md.jit(lambda: (md.full((1,), complex(0.0, 0.0)), md.full((1,), complex(-0.0, -0.0))))
    assert [str(v.numpy()) for v in f()] == ["[0.+0.j]", "[-0.-0.j]"]
