"""md.control.loop: a loop over a step that reads nothing but its arguments, which is one node of the tape in eager code, too."""

from __future__ import annotations

import numpy as np
import pytest

import minidl as md

L, N = 5, 3


def step(constants, carry, x):
    w, (h, c) = constants["w"], carry
    p, here = x
    g = md.tanh(p + h @ w)
    new = g * c, c + md.where(here, g, 0.0)
    return new, (new[0], h)


def arguments(backend, length=L, dtype=md.float64):
    r = np.random.default_rng(0)
    make = lambda *shape: md.asarray(r.normal(size=shape), dtype=dtype, backend=backend).requires_grad_()
    here = md.asarray(r.integers(0, 2, (length, N, 1)) > 0, backend=backend)
    return {"w": make(2, 2)}, (make(N, 2), make(N, 2)), (make(length, N, 2), here)


def by_scan(constants, init, xs, reverse=False):
    return md.scan(lambda now, x: step(constants, now, x), init, xs, reverse=reverse)


def floats(args):
    return [v for v in md.tree.leaves(args) if v.dtype.inexact]


def number(out):
    return sum((v * v).sum() for v in floats(out))


@pytest.mark.parametrize("backend", ["numpy", "torch", "jax"])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("length", [1, L])
def test_it_is_scan(backend, reverse, length):
    run, args = md.control.loop(step), arguments(backend, length)
    found = []
    for f in (run, by_scan):
        out = f(*args, reverse)
        first = md.autograd.grad(number(out), floats(args), create_graph=True)
        second = md.autograd.grad(number(first), floats(args))
        found.append([v.detach().numpy() for v in md.tree.leaves((out, first, second))])
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("backend", ["numpy", "torch"])
def test_forward_mode_jit_vmap_and_no_grad(backend):
    run, (constants, init, xs) = md.control.loop(step), arguments(backend)
    f = lambda g, w: number(g({"w": w}, init, xs))
    w, t = constants["w"].detach(), md.ones((2, 2), dtype=md.float64, backend=backend)
    transforms = (
        lambda g: md.jvp(lambda v: f(g, v), (w,), (t,))[1],
        lambda g: md.jit(lambda v: f(g, v))(w),
        lambda g: md.grad(lambda v: f(g, v))(w),
        lambda g: md.vmap(lambda v: f(g, v))(md.stack([w, t])),
    )
    for transform in transforms:
        np.testing.assert_allclose(transform(run).detach().numpy(), transform(by_scan).detach().numpy(), rtol=1e-12)
    with md.no_grad():
        out = run(constants, init, xs)
    assert all(v.node is None for v in md.tree.leaves(out))


@pytest.mark.parametrize("backend", ["numpy", "torch"])
def test_a_step_is_traced_once_for_every_length_and_not_for_another_kind_of_arguments(backend):
    calls = []

    def counted(constants, carry, x):
        calls.append(md.extend.home().name)
        return step(constants, carry, x)

    run = md.control.loop(counted)
    for length in (2, L, 2):
        run(*arguments(backend, length))
    assert calls == [backend]
    out = run(*arguments(backend, dtype=md.float32))
    assert len(calls) == 2 and out[0][0].dtype is md.float32


def test_the_step_is_one_node_where_compiling_takes_no_time():
    (h, _), _ = md.control.loop(step)(*arguments("torch"))
    assert h.node[3][1].name == "scan"


def test_hooks_and_backward_accumulate_as_ever():
    run, (constants, init, xs) = md.control.loop(step), arguments("torch")
    seen = []
    last, ys = run(constants, init, xs)
    ys[0].register_hook(lambda g: seen.append(g.shape) or g * 2.0)
    (ys[0].sum() + last[1].sum()).backward(retain_graph=True)
    once = constants["w"].grad.numpy().copy()
    (ys[0].sum() + last[1].sum()).backward()
    np.testing.assert_allclose(constants["w"].grad.numpy(), 2 * once)
    assert seen == [(L, N, 2)] * 2
    with pytest.raises(RuntimeError, match="already differentiated"):
        ys[1].sum().backward()


def test_a_step_that_reads_from_outside_runs_as_scan_does():
    outside = md.tensor(2.0, backend="numpy", requires_grad=True)
    run = md.control.loop(lambda constants, carry, x: (carry + x * outside, carry))
    xs = md.tensor([1.0, 2.0], backend="numpy")
    for _ in range(2):
        last, _ = run((), md.tensor(0.0, backend="numpy"), xs)
        last.backward()
    assert outside.grad.item() == 6.0
    with md.no_grad():
        outside.assign(md.tensor(3.0, backend="numpy"))
    assert run((), md.tensor(0.0, backend="numpy"), xs)[0].item() == 9.0


def test_what_scan_refuses_and_no_steps():
    run = md.control.loop(lambda constants, carry, x: (carry.to(md.float64), x))
    with pytest.raises(TypeError, match="the carry changes"):
        run((), md.tensor(0.0), md.ones(2))
    run = md.control.loop(step)
    constants, init, (p, here) = arguments("numpy")
    with pytest.raises(ValueError, match="leading axes"):
        run(constants, init, (p, here[:2]))
    last, ys = run(constants, init, (p[:0], here[:0]))
    assert last[0].shape == (N, 2) and ys[0].shape == (0, N, 2)


def test_derivatives_of_jitted_loops_stay_where_their_tensors_are(on_numpy):
    w, h = (md.asarray(np.full(s, 0.5), backend="torch") for s in ((2, 2), (3, 2)))
    scan = md.jit(lambda w: md.scan(lambda c, _: (md.tanh(c @ w), c), h, length=3)[0].sum())
    loop = md.jit(lambda w: md.while_loop(lambda s: s[0] < 3, lambda s: (s[0] + 1, md.tanh(s[1] @ w)), (0, h))[1].sum())
    assert md.extend.home().name != "torch"
    for f in (scan, loop):
        along = md.jvp(md.grad(f), (w,), (w,))[1]
        twice = md.grad(lambda v, f=f: (md.grad(f)(v) * w).sum())(w)
        np.testing.assert_allclose(along.numpy(), twice.numpy(), rtol=1e-12)
        np.testing.assert_allclose(md.jvp(f, (w,), (w,))[1].item(), (md.grad(f)(w) * w).sum().item(), rtol=1e-12)


@pytest.mark.parametrize("backend", ["numpy", "torch"])
@pytest.mark.parametrize("layer", [md.nn.LSTM, md.nn.GRU, md.nn.RNN])
def test_a_layer_step_by_step_is_the_layer(backend, layer):
    made = layer(3, 4, num_layers=2, bias=layer is not md.nn.RNN, dtype=md.float64)
    made.to(backend=backend)
    x = md.asarray(np.random.default_rng(0).normal(size=(6, 2, 3)), backend=backend).requires_grad_()
    found = []
    for whole in (True, False):
        made.zero_grad()
        out, state = made(x) if whole else (None, None)
        if not whole:
            rows, state = [], None
            for row in x:
                y, state = made(row[None], state)
                rows.append(y)
            out = md.concat(rows)
        last = md.tree.leaves(state)
        ((out * out).sum() + sum(v.sum() for v in last)).backward()
        found.append([out, *last, *(p.grad for p in made.parameters()), x.grad])
        x.grad = None
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), rtol=1e-10, atol=1e-12)
    with pytest.raises(TypeError, match="the carry changes"):
        made(x[:1].to(md.float32), md.tree.map(lambda v: v.to(md.float32), state))


def test_settings_of_the_thread_make_another_body(on_numpy):
    run = md.control.loop(lambda table, total, i: (total + table[i], md.zeros(2)))
    args = md.tensor([1.0, 2.0], dtype=md.float32), md.tensor(0.0, dtype=md.float32), md.tensor([0, 5])
    for _ in range(2):
        assert run(*args)[0].item() == 3.0
        with md.out_of_bounds("fill"):
            assert np.isnan(run(*args)[0].item())
    assert run(*args)[1].dtype is md.float32
    md.set_default_dtype(md.float64)
    try:
        assert run(*args)[1].dtype is md.float64
    finally:
        md.set_default_dtype(md.float32)
    mixed = md.control.loop(lambda k, total, x: (total, x + k))
    args = md.tensor(1.0, dtype=md.float64), md.tensor(0.0), md.ones(2, dtype=md.float32)
    assert mixed(*args)[1].dtype is md.float64
    with md.strict_promotion(), pytest.raises(TypeError):
        mixed(*args)
    assert mixed(*args)[1].dtype is md.float64


def test_errors_say_what_is_wrong():
    for wrong in (lambda k, c, x: c, lambda k, c, x: (c, x, x)):
        with pytest.raises(TypeError, match=r"scan: the function must return \(carry, y\)"):
            md.control.loop(wrong)((), md.tensor(0.0), md.ones(2))
    with pytest.raises(ValueError, match="loop: xs has no tensor"):
        md.control.loop(lambda k, c, x: (c, x))((), md.tensor(0.0), ())
