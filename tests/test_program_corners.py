"""What random programs found: compositions whose value or gradient was wrong, each shrunk to a few lines; and numbers on their way into arrays."""

from __future__ import annotations

import numpy as np
import pytest

import minidl as md


def f64(v):
    return md.tensor(v, dtype=md.float64)


X, T = [1.0, 2.0, 3.0], [0.3, 0.5, 0.7]


# ---- checkpoint ---------------------------------------------------------------------------------------------------------------------------------
def _closing(x):
    """Its checkpointed part reads a value made of x, which comes in no argument."""
    v = x[1]
    return md.checkpoint(lambda a: v * v * a[0])(x)


WAYS = {
    "grad of grad": lambda f, x, t: md.grad(lambda x: (md.grad(f)(x) * t).sum())(x),
    "grad of jvp": lambda f, x, t: md.grad(lambda x: md.jvp(f, (x,), (t,))[1])(x),
    "jvp of grad": lambda f, x, t: md.jvp(md.grad(f), (x,), (t,))[1],
    "grad of linearize": lambda f, x, t: md.grad(lambda x: md.linearize(f, x)[1](t))(x),
    "jitted": lambda f, x, t: md.jit(md.grad(lambda x: md.jvp(f, (x,), (t,))[1]))(x),
    "mapped": lambda f, x, t: md.vmap(md.grad(lambda x: md.jvp(f, (x,), (t,))[1]))(x[None])[0],
}


@pytest.mark.parametrize("way", WAYS)
def test_a_checkpoint_that_closes_over_what_is_differentiated(way):
    x, t = f64(X), f64(T)
    want = [2 * X[1] * T[1], 2 * X[1] * T[0] + 2 * X[0] * T[1], 0.0]  # of x[1]**2 * x[0]
    np.testing.assert_allclose(WAYS[way](_closing, x, t).numpy(), want, rtol=1e-14)


def test_a_jitted_checkpoint_makes_its_index_again(backend):
    f = md.jit(md.checkpoint(lambda a: (md.exp(a[[1]]) * a[np.array([0])]).sum()))
    x, e = f64(X), np.exp(2.0)
    for _ in range(2):
        np.testing.assert_allclose(md.grad(f)(x).numpy(), [e, e, 0.0], rtol=1e-14)
    if backend != "numba":
        np.testing.assert_allclose(md.hessian(f)(x).numpy(), [[0.0, e, 0.0], [e, e, 0.0], [0.0, 0.0, 0.0]], rtol=1e-14)


@pytest.mark.parametrize("inner", [md.jit, lambda f: f])
def test_a_direction_that_a_jitted_function_does_not_read(inner):
    def f(x):
        v = x * x
        return md.linearize(lambda y: md.checkpoint(inner(lambda a: (a * 2.0, v * 3.0)[1].sum()))(y), md.sin(x))[1](md.cos(x)) + (v * x).sum()

    np.testing.assert_allclose(md.grad(f)(f64(X)).numpy(), [3.0, 12.0, 27.0], rtol=1e-14)


def test_what_only_the_backward_pass_reads_is_read_on_each_call():
    scale = f64(T)

    def f(x):
        y = x * 1.0
        y.register_hook(lambda g: g * scale * f64([1.0, 10.0, 100.0]))
        return (y * y).sum()

    jitted = md.jit(f)
    for _ in range(3):
        x = f64(X).requires_grad_()
        jitted(x).backward()
        np.testing.assert_allclose(x.grad.numpy(), 2 * np.array(X) * scale.numpy() * [1, 10, 100], rtol=1e-14)
        scale = scale + 1.0


# ---- norms of nothing ---------------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("f", [md.norm, md.std, lambda x: md.vector_norm(x, ord=3), lambda x: md.hypot(x[0], x[1])])
@pytest.mark.parametrize("way", WAYS)
def test_second_derivatives_of_norms_at_their_kink_are_zero_in_every_mode(way, f):
    assert WAYS[way](f, f64([0.0, 0.0]), f64([1.0, 2.0])).tolist() == [0.0, 0.0]


# ---- numbers ------------------------------------------------------------------------------------------------------------------------------------
def test_integers_of_64_bits_keep_all_of_them(backend):
    both = [0, 2**63 - 1, 2**63, 2**64 - 1, 2**53 + 1]  # NumPy makes floats of these
    assert md.asarray(both, dtype="uint64").tolist() == both
    found = md.asarray(both)
    assert found.dtype is md.uint64 and found.tolist() == both
    for dtype in ("int64", "uint64", "uint8", None):
        with pytest.raises(OverflowError, match="does not fit"):
            md.asarray([2**63, -1], dtype=dtype)
    assert md.asarray([2.0**63, -1], dtype="int64").tolist() == [2**63 - 1, -1]  # a float among them
    assert md.asarray([1e30, 1]).dtype is md.float32


@pytest.mark.parametrize("make", [np.array, list])
def test_floats_saturate_on_their_way_into_integers(backend, make):
    values = make([1e20, np.nan, -1.0, 300.7, -np.inf])
    assert md.asarray(values, dtype="int32").tolist() == [2**31 - 1, 0, -1, 300, -(2**31)]
    assert md.asarray(values, dtype="uint8").tolist() == [255, 0, 0, 255, 0]
    assert md.asarray(values, dtype="uint64").tolist() == [2**64 - 1, 0, 0, 300, 0]
    assert md.asarray(values, dtype="float16").tolist()[0] == np.inf  # without a warning


# ---- the eager tape -----------------------------------------------------------------------------------------------------------------------------
def test_a_released_input_that_may_lead_to_another_says_so():
    """The gradient of what lies behind it would lack what flows through it."""
    x = f64(X).requires_grad_()
    y = x * x
    z = x * 3.0 + y
    (y * y).sum().backward()
    np.testing.assert_allclose(md.autograd.grad((y * z).sum(), y, retain_graph=True)[0].numpy(), [5.0, 14.0, 27.0])
    with pytest.raises(RuntimeError, match="already differentiated"):
        md.autograd.grad((y * z).sum(), [y, x])


def test_a_function_of_no_module_can_be_jitted():
    made = {"md": md}
    exec("def f(x):\n    return md.sin(x)", made)  # as templates and notebooks make them
    x = f64(X)
    np.testing.assert_allclose(md.jit(made["f"])(x).numpy(), md.sin(x).numpy(), rtol=0 if x.backend == "numpy" else 1e-15)


def _shared(x, f):
    """f of x and of another tensor with its place on the tape, as the function of an eager loop or branch is handed one."""
    return md.cond(md.asarray(True), lambda a: f(a, x), lambda a: a, x)


def test_two_tensors_of_one_leaf_share_one_gradient(backend):
    def both(a, b):
        return a * 2.0 + b * 5.0

    jitted = md.jit(both)
    for _ in range(2):
        x = f64(X).requires_grad_()
        _shared(x, jitted).sum().backward()
        assert x.grad.tolist() == [7.0] * 3
        y, z = f64(X).requires_grad_(), f64(X).requires_grad_()  # a program for one leaf is none for two
        jitted(y, z).sum().backward()
        assert y.grad.tolist() == [2.0] * 3 and z.grad.tolist() == [5.0] * 3


# ---- what a checkpointed function stores outside ------------------------------------------------------------------------------------------------
def _stores(x, wrap):
    w = x * 1.0

    def b(a):
        w[0] = a[1] * x[0]
        w.mul_(a)
        return a * 0.9

    return wrap(b)(x * 2.0).sum() + (w * w).sum()


def _stores_in_views(x, wrap):
    w = x * 1.0
    v = w[0]

    def b(a):
        v.mul_(a[1])
        w[1].add_(a[0])
        return a.sum()

    return wrap(b)(md.sin(x)) + (w * w).sum() + v


def _stores_twice(x, wrap):
    w = x * 1.0
    f = wrap(lambda a: (w.mul_(a), a * w)[1])
    return (f(x) + f(md.cos(x)) * w).sum()


def _stores_alone(x, wrap):
    w = md.zeros(x.shape, dtype=x.dtype)
    wrap(lambda a: (w.copy_(md.sin(a)), None)[1])(x)
    return (w * w).sum()


def _stores_inside_another(x, wrap):
    w = x * 1.0
    inner = wrap(lambda a: (w.mul_(a), a * a)[1])

    def b(a):
        u = inner(md.sin(a))
        w.add_(u)
        return u

    return (wrap(b)(x) * w).sum()


CHECKPOINTS = {
    "plain": md.checkpoint,
    "inside jit": lambda f: md.jit(md.checkpoint(f)),
    "around jit": lambda f: md.checkpoint(md.jit(f)),
}


@pytest.mark.parametrize("f", [_stores, _stores_in_views, _stores_twice, _stores_alone, _stores_inside_another], ids=lambda f: f.__name__[1:])
@pytest.mark.parametrize("where", CHECKPOINTS)
def test_gradients_flow_through_what_a_checkpoint_stores_outside(where, f):
    x, t = f64(X), f64(T)
    for way in ("grad of grad", "grad of jvp", "jvp of grad"):
        found, want = (WAYS[way](lambda x, wrap=wrap: f(x, wrap), x, t) for wrap in (CHECKPOINTS[where], lambda g: g))
        np.testing.assert_allclose(found.numpy(), want.numpy(), rtol=1e-12)
    want = md.grad(lambda x: f(x, lambda g: g))(x).numpy()
    y = f64(X).requires_grad_()
    f(y, CHECKPOINTS[where]).backward()
    np.testing.assert_allclose(y.grad.numpy(), want, rtol=1e-12)
    np.testing.assert_allclose(md.grad(md.jit(lambda x: f(x, CHECKPOINTS[where])))(x).numpy(), want, rtol=1e-12)
    np.testing.assert_allclose(md.vmap(md.grad(lambda x: f(x, CHECKPOINTS[where])))(x[None])[0].numpy(), want, rtol=1e-12)


def test_what_a_jitted_function_in_a_checkpoint_counts_is_counted_once(backend):
    x, seen = md.tensor([[1.0, 2.0], [3.0, 5.0]], requires_grad=True), md.zeros(2)

    def f(x):
        seen.add_(x.detach().mean(0))
        return (x * x).sum()

    md.checkpoint(md.jit(f))(x).backward()
    assert seen.tolist() == [2.0, 3.5]


def test_a_leaf_that_a_checkpointed_function_updates_stays_a_leaf():
    p = md.tensor([1.0, 2.0], requires_grad=True)

    def f(a):
        with md.no_grad():
            p.mul_(2.0)
        return (a * p).sum()

    md.checkpoint(f)(p).backward()
    assert p.is_leaf and p.tolist() == [2.0, 4.0] and p.grad.tolist() == [3.0, 6.0]


LOOPS = {
    "fori_loop": lambda b, x: md.fori_loop(0, 2, lambda i, q: b(q), x),
    "while_loop": lambda b, x: md.while_loop(lambda c: c[0] < 2, lambda c: (c[0] + 1, b(c[1])), (md.asarray(0), x))[1],
    "scan": lambda b, x: md.scan(lambda c, _: (b(c), None), x, None, length=2)[0],
    "cond": lambda b, x: md.cond(x[0] < 1e3, lambda q: b(b(q)), lambda q: q, x),
}


@pytest.mark.parametrize("loop", LOOPS)
def test_derivatives_outside_vmap_flow_through_what_a_loop_inside_stores(loop):
    def f(x, loop):
        w = x * 1.0

        def b(q):
            w.add_(x * x)
            return q * 0.9

        return loop(b, x).sum() + (w * w).sum()

    rows = f64([X, T])
    want = md.grad(lambda s: f(s[0], lambda b, x: b(b(x))) + f(s[1], lambda b, x: b(b(x))))(rows).numpy()
    mapped = lambda s: md.vmap(lambda x: f(x, LOOPS[loop]))(s).sum()
    np.testing.assert_allclose(md.grad(mapped)(rows).numpy(), want, rtol=1e-12)
    np.testing.assert_allclose(md.jit(md.grad(mapped))(rows).numpy(), want, rtol=1e-12)
    np.testing.assert_allclose(md.jvp(mapped, (rows,), (md.ones_like(rows),))[1].item(), want.sum(), rtol=1e-12)

    def closing(p):  # what is stored comes from outside of the lanes
        def g(x):
            w = x * 1.0
            LOOPS[loop](lambda q: (w.mul_(p), q)[1], x)
            return (w * x).sum()

        return md.vmap(g)(rows).sum()

    np.testing.assert_allclose(md.grad(closing)(f64(T)).numpy(), 2 * np.array(T) * (rows.numpy() ** 2).sum(0), rtol=1e-12)
