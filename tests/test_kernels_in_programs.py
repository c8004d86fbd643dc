"""A program of jit for torch calls torch's kernels, with the values and derivatives of the operations that they stand for; no other program does."""

from __future__ import annotations

import functools
from collections import Counter

import numpy as np
import pytest
from test_by_kernel import ACTIVATIONS, ODD, PLAIN, SEVERAL, on

import minidl as md
from minidl import nn
from minidl.lowering import expand
from minidl.nn import functional as F
from minidl.nn.functional import kernels, on_torch
from minidl.passes import simplify

CUT = np.array([-2e3, -3.0, -5.0, 3.0, 1.0, 2e3]), np.array([np.inf, -np.inf, np.nan, np.inf, 1.0, np.inf])


def pulled(f, xs, g):
    out, pull = md.vjp(f, *xs)
    return (out, *pull(g))


def names(jitted):
    return [e.primitive.name for e in jitted.programs[0].graph.equations]


def in_a_program(f, arrays, g=None, backend="torch"):
    """Value and gradients, and what the program calls; numpy's are those of the operations, eager."""
    xs = [md.asarray(a, backend=backend) for a in arrays]
    with np.errstate(all="ignore"):
        like = f(*xs)
        seed = np.linspace(0.5, 2.0, like.size).reshape(like.shape) if g is None else np.broadcast_to(g, like.shape)
        seed = md.asarray(np.array(seed), backend=backend).to(like.dtype)
        if backend == "numpy":
            return [t.numpy().astype(np.float64) for t in pulled(f, xs, seed)], []
        jitted = md.jit(lambda xs, g: pulled(f, xs, g))
        jitted(xs, seed)
        return [t.numpy().astype(np.float64) for t in jitted(xs, seed)], names(jitted)


@pytest.mark.parametrize("dtype", [md.float32, md.float64, md.bfloat16], ids=lambda d: d.name)
@pytest.mark.parametrize("name", [n for n in ACTIVATIONS if n not in ("silu", "hardswish", "late")])
def test_activations(name, dtype):
    f, rtol = ACTIVATIONS[name], {32: 2e-6, 64: 1e-13, 16: 1e-2}[dtype.bits]
    for values, g in ((PLAIN, None), (ODD, None), CUT):
        array, g = values.astype(dtype.numpy), g if g is None or name != "glu" else g[:3]
        mine, called = in_a_program(f, [array], g)
        theirs, _ = in_a_program(f, [array], g, "numpy")
        assert (called == ["by_kernel", "by_kernel_dx"]) is (dtype.bits > 16), called
        for a, b in zip(mine, theirs, strict=True):
            np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * 0.1)


def layer(x, h, c, ih, hh, b_ih, b_hh, reverse):
    """Everything that a layer returns, in one array."""
    weights = {"ih": ih, "hh": hh, "bias_ih": b_ih, "bias_hh": b_hh}
    out, (h, c) = nn.functional.recurrence.run("LSTM", x, (h, c), weights, reverse, None)
    return md.concat((out, h[None] * 2.0, c[None] * c))


LAYER = [(5, 2, 3), (2, 4), (2, 4), (16, 3), (16, 4), (16,), (16,)]
CLASSES = np.random.default_rng(1).integers(0, 4, (5,))
MORE = {
    **{n: case for n, case in SEVERAL.items() if n.split()[0] in ("huber", "group", "ctc", "bilinear", "bicubic", "sampled", "adaptive")},
    "smooth": (functools.partial(F.smooth_l1_loss, beta=0.5), (3, 4), (3, 4)),
    "huber of each": (functools.partial(F.huber_loss, reduction="none", delta=0.7), (3, 4), (3, 4)),
    "log_softmax": (lambda x: F.log_softmax(x, 0), (3, 4)),
    "cross entropy": (lambda x: F.cross_entropy(x, md.asarray(CLASSES, backend=x.backend)), (5, 4)),
    "nll": (lambda x: F.nll_loss(x, md.asarray(CLASSES, backend=x.backend), reduction="sum"), (5, 4)),
    "interpolate": (functools.partial(F.interpolate, size=(5, 7), mode="bilinear"), (2, 3, 4, 3)),
    "interpolate corners": (functools.partial(F.interpolate, scale_factor=1.7, mode="bilinear", align_corners=True), (2, 3, 4, 3)),
}  # fmt: skip


def arrays_of(case, dtype=np.float64):
    r = np.random.default_rng(3)
    return [a.astype(dtype) if isinstance(a, np.ndarray) else r.normal(size=a).astype(dtype) for a in case[1:]]


@pytest.mark.parametrize("name", MORE)
def test_functions_of_several_arrays(name):
    f, arrays = MORE[name][0], arrays_of(MORE[name])
    for dtype, rtol in ((np.float64, 1e-11), (np.float32, 2e-4)):
        some = [a.astype(dtype) for a in arrays]
        mine, called = in_a_program(f, some)
        assert called.count("by_kernel") == called.count("by_kernel_dx") == 1
        for a, b in zip(mine, in_a_program(f, some, backend="numpy")[0], strict=True):
            np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol)


@pytest.mark.parametrize("name", MORE)
def test_odd_values_and_cotangents(name):
    f, arrays = MORE[name][0], arrays_of(MORE[name])
    cases = [(arrays, np.inf), (arrays, np.nan)]
    for k, odd in enumerate((np.inf, -np.inf, np.nan)):
        first = arrays[0].copy()
        first.flat[k] = odd
        cases.append(([first, *arrays[1:]], None))
    for given, g in cases:
        for a, b in zip(in_a_program(f, given, g)[0], in_a_program(f, given, g, "numpy")[0], strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("bias", "reverse"), [(True, True), (False, False)])
def test_layers_of_lstm(bias, reverse):
    shapes = LAYER if bias else LAYER[:5]
    f = lambda *xs: layer(*xs, *[None] * (7 - len(xs)), reverse)
    arrays = arrays_of((f, *shapes), np.float32)
    mine, called = in_a_program(f, arrays)
    assert called.count("by_kernel") == called.count("by_kernel_dx") == 1 and "scan" not in called
    for a, b in zip(mine, in_a_program(f, arrays, backend="numpy")[0], strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-4)
    assert "scan" in in_a_program(f, [a.astype(np.float64) for a in arrays])[1], "which oneDNN does not have"


def counted(monkeypatch, name):
    """How often a kernel and its backward pass run, and a backward pass that is not the first of its kernel's call."""
    count, kernel = Counter(), getattr(on_torch, name)

    def call(tracked, *args):
        count["forward"] += 1
        found = kernel(tracked, *args)
        if found is None or found[2] is None:
            return found

        def back(*given):
            count["backward"] += 1
            return found[2](*given)

        return *found[:2], back

    call.fits = kernel.fits
    monkeypatch.setattr(on_torch, name, call)
    kernels._kernel.cache_clear()
    return count


@pytest.fixture
def counts(monkeypatch):
    yield functools.partial(counted, monkeypatch)
    monkeypatch.undo()
    kernels._kernel.cache_clear()


def test_a_program_runs_a_kernel_once_for_both_passes(counts):
    count, x = counts("elu"), on("torch", PLAIN, md.float64, False)
    step = md.jit(lambda x: pulled(F.elu, (x * 2.0,), x))
    wanted = pulled(F.elu, (x * 2.0,), x)
    count.clear()
    for n in range(1, 4):
        for a, b in zip(step(x), wanted, strict=True):
            np.testing.assert_array_equal(a.numpy(), b.numpy())
        assert count == {"forward": n, "backward": n} and step.compiles == 1
    count.clear()
    assert np.isfinite(md.jit(F.elu)(x).numpy()).all() and count == {"forward": 1}
    count.clear()
    both = md.jit(lambda x, g: (lambda out, pull: (out, pull(g), pull(g * 2.0)))(*md.vjp(F.elu, x)))(x, x)
    np.testing.assert_array_equal(both[1][0].numpy() * 2.0, both[2][0].numpy())
    assert count == {"forward": 1, "backward": 2}


def test_what_a_backward_pass_reads_is_not_written_over():
    x = md.asarray(np.linspace(-3, 3, 40_000).reshape(200, 200), backend="torch", dtype=md.float32)

    def f(x):
        y = F.log_softmax(md.exp(x * 0.5) * 2.0, -1)  # in memory of the program, as its results are
        z = md.exp(y + 1.0) * 3.0
        return F.elu(z - 1.0).sum() + F.huber_loss(z * 2.0, y)

    wanted, step = (f(x), md.grad(f)(x)), md.jit(lambda x: (f(x), md.grad(f)(x)), donate=(0,))
    for _ in range(3):
        for a, b in zip(step(md.asarray(x.numpy(), copy=True, backend="torch")), wanted, strict=True):
            np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-5, atol=1e-6)


def test_a_call_with_a_backward_pass_outside():
    x, w = on("torch", PLAIN, md.float64), on("torch", PLAIN[::-1].copy(), md.float64)
    f = lambda x, w: F.elu(x * w) * F.softplus(w)
    grads = []
    for g in (f, md.jit(f)):
        y = g(x, w)
        grads.append([v.numpy() for v in md.autograd.grad((y * y).sum(), (x, w))])
        y = g(x, w)
        first = md.autograd.grad((y * y).sum(), x, create_graph=True)[0]
        grads[-1].append(md.autograd.grad((first * first).sum(), w)[0].numpy())
    for a, b in zip(*grads, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)


def test_transforms_of_and_in_programs():
    x = md.asarray(np.random.default_rng(0).normal(size=(3, 4)), backend="torch")
    f, jit = lambda v: (F.elu(v) * F.log_softmax(v, -1)).sum(), md.jit
    squared = lambda f: lambda v: (md.grad(f)(v) ** 2).sum()
    direction = lambda f: lambda v: md.jvp(f, (v,), (v * v,))
    loop = lambda v: md.fori_loop(0, 3, lambda i, c: F.elu(c) * 0.9, v).sum()
    pairs = [
        (jit(md.grad(f)), md.grad(f)), (md.grad(jit(f)), md.grad(f)), (jit(md.vmap(md.grad(f))), md.vmap(md.grad(f))),
        (md.vmap(jit(md.grad(f))), md.vmap(md.grad(f))), (jit(md.hessian(f)), md.hessian(f)), (md.grad(squared(jit(f))), md.grad(squared(f))),
        (jit(md.grad(squared(f))), md.grad(squared(f))), (jit(direction(f)), direction(f)), (direction(jit(f)), direction(f)),
        (jit(direction(md.grad(f))), direction(md.grad(f))), (jit(md.grad(loop)), md.grad(loop)), (md.jacfwd(jit(f)), md.jacfwd(f)),
        (md.jit(md.grad(f), memory="1MB"), md.grad(f)),
    ]  # fmt: skip
    for k, (mine, theirs) in enumerate(pairs):
        for a, b in zip(md.tree.leaves(mine(x)), md.tree.leaves(theirs(x)), strict=True):
            np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-10, atol=1e-12, err_msg=str(k))
    with md.strong_zero():
        first = md.jit(lambda v, g: pulled(F.elu, (v,), g))
        odd = md.asarray(np.array([-np.inf, np.inf, np.nan, 1.0]), backend="torch")
        assert first(odd, md.zeros_like(odd))[1].tolist() == [0.0] * 4 and "by_kernel_dx" not in names(first)


def test_other_programs_have_the_operations(monkeypatch):
    r = np.random.default_rng(0)
    images = r.normal(size=(2, 3, 5, 4)).astype(np.float32)

    def f(x):
        big = F.interpolate(F.elu(x), scale_factor=2, mode="bilinear")
        return F.huber_loss(F.group_norm(big, 3), md.zeros_like(big)) + F.leaky_relu(x, 0.2).mean()

    def graph(home, **how):
        return md.jit(md.value_and_grad(f), **how).lower(md.asarray(images, backend=home))

    plain = [graph(b) for b in ("numpy", "numba", "jax")]
    elsewhere = [graph("torch", backend="numpy"), graph("torch", mode="inductor"), md.trace(f)(md.asarray(images, backend="torch"))]
    calling = graph("torch")
    assert sum(e.primitive.name == "by_kernel" for e in calling.equations) == 5
    monkeypatch.setattr(kernels, "_in_a_program", lambda *args: None)
    without = graph("torch")
    for before in plain:
        assert str(before) == str(without), "nothing but programs for torch has changed"
    assert [str(g) for g in elsewhere[:2]] == [str(without)] * 2
    assert not any("kernel" in e.params for e in elsewhere[2].walk())
    # what backend="auto" hands to others: the same equations, some of them in another place
    said = lambda g: Counter((e.primitive.name, str(e.outputs)) for e in g.equations)
    assert said(simplify(expand(calling, choose=lambda e: "kernel" in e.params))) == said(without)


def test_engines_get_what_they_compile():
    x = md.asarray(PLAIN, backend="torch", dtype=md.float64)
    program = md.jit(md.grad(lambda v: F.elu(v).sum()))
    wanted = program(x)
    graph, home = program.programs[0].graph, x.xp
    for name in ("numpy", "numba", "jax"):
        engine = md.extend.Engine(home, name)
        np.testing.assert_allclose(np.asarray(engine.compile(graph)(x.numpy())[0]), wanted.numpy(), rtol=1e-12)
    np.testing.assert_array_equal(home.compile(graph)(x.payload)[0].numpy(), wanted.numpy())
    np.testing.assert_allclose(home.callable(graph)(x.payload)[0].numpy(), wanted.numpy(), rtol=1e-12)
    np.testing.assert_array_equal(graph(x)[0].numpy(), wanted.numpy())
    assert "by_kernel_dx of elu" in str(md.profile(program, x))


def test_what_does_not_fit_is_operations():
    x = on("torch", PLAIN, md.float32, False)
    for f, given in (
        (F.elu, (x.to(md.bfloat16),)), (F.elu, (x[:0],)), (F.elu, (x, np.inf)),
        (lambda v: F.elu(v, alpha=0.5), (x.to(md.float16),)), (lambda v, a: F.elu(v, a), (x, 0.5)),
    ):  # fmt: skip
        jitted = md.jit(f)
        np.testing.assert_allclose(jitted(*given).numpy().astype(float), f(*given).numpy().astype(float), rtol=1e-6)
        assert "by_kernel" not in names(jitted)
    with md.autocast(dtype=md.bfloat16):
        assert "by_kernel" not in [e.primitive.name for e in md.jit(F.leaky_relu).lower(x).equations]


def test_gradients_are_clipped_by_one_call(counts):
    count = counts("norm"), counts("times")
    weights = [nn.Parameter(on("torch", PLAIN, tracked=False)), nn.Parameter(on("torch", PLAIN[:3], tracked=False))]
    found = []
    for wrap in (lambda f: f, md.jit):

        def step(scale):
            for w in weights:
                w.grad = w.detach() * scale
            return nn.utils.clip_grad_norm_(weights, 2.0)

        wrapped = wrap(step)
        found.append([(wrapped(md.tensor(3.0, backend="torch")).item(), *(w.grad.numpy() for w in weights)) for _ in range(2)])
    assert names(wrapped).count("by_kernel") == 2 and [c["forward"] for c in count] == [4, 4]
    for a, b in zip(found[0][1], found[1][1], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_a_training_step_with_state():
    def losses(wrap):
        r = np.random.default_rng(0)
        model = nn.Sequential(nn.Linear(3, 8), nn.ELU(), nn.GroupNorm(2, 8), nn.Linear(8, 4))
        model.load_state_dict({k: on("numpy", r.normal(size=v.shape), tracked=False) for k, v in model.state_dict().items()})
        opt = md.optim.Adam(model.to(backend="torch").parameters(), lr=0.01)

        def step(x, y):
            opt.zero_grad()
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            opt.step()
            return loss

        x, y = on("torch", r.normal(size=(6, 3)), tracked=False), md.asarray(r.integers(0, 4, 6), backend="torch")
        wrapped = wrap(step)
        return [wrapped(x, y).item() for _ in range(5)], wrapped

    mine, jitted = losses(md.jit)
    np.testing.assert_allclose(mine, losses(lambda f: f)[0], rtol=1e-5)
    assert names(jitted).count("by_kernel") == names(jitted).count("by_kernel_dx") == 3
