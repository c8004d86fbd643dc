"""Transforms inside transforms: what leaves an inner one belongs to the outer ones that still run, and to nothing else."""

from __future__ import annotations

import gc

import numpy as np
import pytest

import minidl as md

X = [0.3, 1.2, -0.7]


def f64(v):
    return md.tensor(v, dtype=md.float64)


VALUES = {
    "value_and_grad": lambda f, x: md.value_and_grad(f)(x)[0],
    "vjp": lambda f, x: md.vjp(f, x)[0],
    "jvp": lambda f, x: md.jvp(f, (x,), (x,))[0],
    "linearize": lambda f, x: md.linearize(f, x)[0],
    "aux": lambda f, x: md.grad(lambda x: (f(x) * 2.0, f(x)), has_aux=True)(x)[1],
}


def test_the_value_of_a_transform_inside_vmap_is_differentiated_outside(backend):
    w = f64(0.7)

    def every(w):
        return [md.grad(lambda w, value=value: md.vmap(lambda x: value(lambda x: md.sin(w * x), x))(f64(X)).sum())(w) for value in VALUES.values()]

    wanted = sum(x * np.cos(0.7 * x) for x in X)
    for got in (every(w), md.jit(every)(w)):
        np.testing.assert_allclose([g.item() for g in got], [wanted] * len(VALUES), rtol=1e-12)


def lagrangian(q, v):
    return md.sum(md.cos(q) * v * v)


MIXED = {  # all give the mixed second derivatives, or their products with a vector
    "jacrev of jacrev": md.jacrev(md.jacrev(lagrangian, 1), 0),
    "jacrev of jacfwd": md.jacrev(md.jacfwd(lagrangian, 1), 0),
    "jacrev of grad": md.jacrev(md.grad(lagrangian, 1), 0),
    "jacfwd of grad": md.jacfwd(md.grad(lagrangian, 1), 0),
    "vmap of a pull": lambda q, v: md.vmap(md.vjp(lambda q: md.grad(lagrangian, 1)(q, v), q)[1])(md.eye(2))[0],
    "vmap of a push": lambda q, v: md.matrix_transpose(md.vmap(md.linearize(lambda q: md.grad(lagrangian, 1)(q, v), q)[1])(md.eye(2))),
    "vmap of vmap of a pull": lambda q, v: md.vmap(md.vmap(md.vjp(lambda q: md.grad(lagrangian, 1)(q, v), q)[1]))(md.eye(2)[None])[0][0],
    "grads": lambda q, v: md.stack([md.grad(lambda q, i=i: md.grad(lagrangian, 1)(q, v)[i])(q) for i in range(2)]),
    "vjps": lambda q, v: md.stack([md.vjp(lambda q: md.grad(lagrangian, 1)(q, v), q)[1](e)[0] for e in md.eye(2)]),
    "jvps": lambda q, v: md.stack([md.jvp(lambda q: md.grad(lagrangian, 1)(q, v), (q,), (e,))[1] for e in md.eye(2)]).T,
}


@pytest.mark.parametrize("backend", ["numpy", "torch"])
@pytest.mark.parametrize("way", MIXED)
def test_a_finished_transform_leaves_nothing_on_the_tape(backend, way):
    with md.use_backend(backend):
        q, v = md.tensor([1.2, 0.3]), md.tensor([0.4, 0.1])
        found = MIXED[way](q, v)
        assert not found.requires_grad
        np.testing.assert_allclose(found.numpy(), np.diag([-2 * 0.4 * np.sin(1.2), -2 * 0.1 * np.sin(0.3)]), rtol=1e-5, atol=1e-7)
        w = md.ones((2,)).requires_grad_()
        (MIXED[way](q * w, v).sum()).backward()  # but what else is tracked stays so
        assert float(md.abs(w.grad).sum()) > 0.1


def test_steps_with_a_derivative_in_the_loss_stay_as_cheap_as_the_first():
    x, p = md.linspace(0.0, 1.0, 4), md.ones((4,))
    u = lambda p, x: md.sum(md.tanh(p * x) * p)
    loss = lambda p: sum((md.grad(u, 1)(p, x[i]) - 1.0) ** 2 for i in range(4))
    sizes = []
    for _ in range(12):
        p = p - 0.1 * md.grad(loss)(p)
        gc.collect()
        sizes.append(sum(type(o) is list for o in gc.get_objects()))
    assert max(sizes[2:]) - sizes[1] < 50  # a step's tape has hundreds of nodes


def test_a_pull_that_is_kept_may_be_differentiated():
    x, w = f64([0.3, 0.8]), f64(2.0)
    _, pull = md.vjp(lambda x: md.sin(x), x)
    grad_w = md.grad(lambda w: pull(w * md.ones((2,), dtype=md.float64))[0].sum())(w)
    np.testing.assert_allclose(grad_w.item(), np.cos(x.numpy()).sum(), rtol=1e-12)
    batched = md.grad(lambda w: md.vmap(pull)(w * md.eye(2, dtype=md.float64))[0].sum())(w)
    np.testing.assert_allclose(batched.item(), np.cos(x.numpy()).sum(), rtol=1e-12)
    _, push = md.linearize(lambda x: md.sin(x), x)
    batched = md.grad(lambda w: md.vmap(push)(w * md.eye(2, dtype=md.float64)).sum())(w)
    np.testing.assert_allclose(batched.item(), np.cos(x.numpy()).sum(), rtol=1e-12)


LOOPS = {
    "while": lambda x, m: md.while_loop(lambda s: s[0] < m, lambda s: (s[0] + 1.0, s[1] * m), (0.0, x))[1],
    "scan": lambda x, m: md.scan(lambda c, a: (c * m, a + m), x, md.arange(3.0))[0],
    "cond": lambda x, m: md.cond(x[0] > 1.0, lambda x: x * m, lambda x: x + m, x),
    "fori": lambda x, m: md.fori_loop(0, 3, lambda i, c: c * m + i, x),
}


def test_number_arguments_reach_the_loops_inside_vmap(backend):
    every = lambda x, m: [md.vmap(loop, in_axes=(0, None))(x, m) for loop in LOOPS.values()]
    jitted, x = md.jit(every), md.tensor([[2.0, 0.5], [0.5, 1.0]])
    for m in (1.5, 2.5):
        for got, wanted in zip(jitted(x, m), every(x, m), strict=True):
            np.testing.assert_allclose(got.numpy(), wanted.numpy(), rtol=1e-6)


def test_a_setting_that_a_loop_inside_vmap_reads_is_a_reason_to_trace_again():
    def f(x):
        root = md.grad(lambda x: md.where(x > 0.0, md.sqrt(x), 0.0))
        return md.scan(lambda c, _: (c + root(x), ()), x * 0.0, None, length=2)[0]

    jitted, x = md.jit(md.vmap(f)), md.tensor([0.0, 1.0])
    assert np.isnan(jitted(x).numpy()[0])
    with md.strong_zero():
        np.testing.assert_allclose(jitted(x).numpy(), [0.0, 1.0])


MAPS = {
    "fori": lambda x: md.fori_loop(0, 2, lambda i, c: md.sin(c), x),
    "scan": lambda x: md.scan(lambda c, _: (md.sin(c), ()), x, None, length=2)[0],
    "while": lambda x: md.while_loop(lambda s: s[0] < 2, lambda s: (s[0] + 1, md.sin(s[1])), (0, x))[1],
    "cond": lambda x: md.cond(x.sum() > 0.0, lambda x: md.sin(md.sin(x)), lambda x: x, x),
    "plain": lambda x: md.sin(md.sin(x)),
}
DIRECTIONS = {
    "linearize": lambda f, x: md.linearize(f, x)[1](x),
    "jvp": lambda f, x: md.jvp(f, (x,), (x,))[1],
    "vjp": lambda f, x: md.vjp(f, x)[1](x)[0],
    "jacfwd": lambda f, x: md.jacfwd(f)(x) @ x,
    "jacrev": lambda f, x: md.jacrev(f)(x) @ x,
}


def test_derivatives_of_derivatives_through_loops():
    """Reverse over forward and reverse, forward over both: that of f'(x) x, where f acts on each element."""
    x = f64(X)
    slope = lambda x: md.cos(md.sin(x)) * md.cos(x) * x
    wanted = md.vmap(md.grad(slope))(x).numpy()
    every = lambda x: [
        t
        for f in MAPS.values()
        for g in DIRECTIONS.values()
        for t in (md.grad(lambda x, f=f, g=g: g(f, x).sum())(x), md.jvp(lambda x, f=f, g=g: g(f, x), (x,), (md.ones_like(x),))[1])
    ]
    for run in (every, md.jit(every)):
        found = run(x)
        names = [f"{way} {g} of {f}" for f in MAPS for g in DIRECTIONS for way in ("grad", "jvp")]
        for name, got in zip(names, found, strict=True):
            np.testing.assert_allclose(got.numpy(), wanted, rtol=1e-10, err_msg=name)


def test_static_arguments_by_position_and_what_is_no_function():
    seen = []

    def power(x, n, up=True):
        seen.append(n)
        return x**n if up else x

    f = md.jit(power, static_argnums=1, static_argnames="up")
    assert [f(f64(3.0), n).item() for n in (2, 3, 2)] == [9.0, 27.0, 9.0] and seen == [2, 3]
    assert f(f64(3.0), n=2).item() == 9.0
    assert md.jit(static_argnums=(-1, 1))(power)(f64(3.0), 2, False).item() == 3.0
    with pytest.raises(ValueError, match=r"jit: static_argnums \(5,\), but power has the parameters x, n, up"):
        md.jit(power, static_argnums=(5,))
    with pytest.raises(TypeError, match=r"trace: expected a function, got f32\[2,2\]; md.linalg.trace is the sum of a matrix's diagonal"):
        md.trace(md.ones((2, 2)))
    with pytest.raises(TypeError, match="jit: expected a function, got Tensor"):
        md.jit(md.ones((2,)))


def quietly(x):
    with md.no_grad():
        c = x * x
    return c * x


def set_quietly(x):
    with md.set_grad_enabled(False):
        c = x * x
    return c * x


def quietly_but(x):
    with md.no_grad():
        c = x * x
        with md.enable_grad():
            return c * x


def quietly_with_a_derivative(x):
    with md.no_grad():
        c = md.grad(lambda y: quietly(y) * x)(x)  # x³, and quietly's block ends inside this one
        d = c / x
    return d * x


QUIET = {
    "with": quietly,
    "set": set_quietly,
    "decorator": lambda x: md.no_grad()(lambda x: x * x)(x) * x,
    "enable": quietly_but,
    "grad inside": quietly_with_a_derivative,
    "vmap inside": lambda x: md.vmap(quietly)(x[None])[0],
}
WHERE = {
    "plain": lambda f: f,
    "scan": lambda f: lambda x: md.scan(lambda c, _: (f(c), ()), x, None, length=2)[0],
    "fori": lambda f: lambda x: md.fori_loop(0, 2, lambda i, c: f(c), x),
    "while": lambda f: lambda x: md.while_loop(lambda s: s[0] < 2, lambda s: (s[0] + 1, f(s[1])), (0, x))[1],
    "cond": lambda f: lambda x: md.cond(x > 0.0, f, lambda x: x, x),
    "cond in scan": lambda f: lambda x: md.scan(lambda c, _: (md.cond(c > 0.0, f, lambda x: x, c), ()), x, None, length=2)[0],
    "trace": lambda f: lambda x: md.trace(f)(x)(x)[0],
}


def _ways(f, x):
    first, one = md.grad(f), md.ones_like(x)
    return [first(x), md.grad(first)(x), md.jvp(f, (x,), (one,))[1], md.jvp(first, (x,), (one,))[1], md.vmap(first)(x[None])[0]]


def test_no_grad_in_what_is_traced_holds_for_all_who_differentiate_it(backend):
    """One step has the derivative x², two have x²(x³)² = x⁸, and neither has a second."""
    x = f64(1.5)
    quiet = QUIET if backend in ("numpy", "torch") else {"with": quietly}
    inside = {(a, b): WHERE[b](g) for a, g in quiet.items() for b in WHERE if backend == "numpy" or b != "plain"}
    every = lambda x: [t for f in inside.values() for t in _ways(f, x)]
    found = [t.item() for t in md.jit(every)(x)]
    for k, (name, where) in enumerate(inside):
        d = 1.5**8 if where in ("scan", "fori", "while", "cond in scan") else 1.5**2
        np.testing.assert_allclose(found[5 * k : 5 * k + 5], [d, 0.0, d, 0.0, d], err_msg=f"{name} {where}", rtol=1e-9)


@pytest.mark.parametrize("where", WHERE)
def test_a_compiled_program_remembers_no_grad_for_higher_derivatives(where):
    x, f = f64(1.5), md.jit(WHERE[where](quietly))
    d = 1.5**8 if where in ("scan", "fori", "while", "cond in scan") else 1.5**2
    np.testing.assert_allclose([t.item() for t in _ways(f, x)], [d, 0.0, d, 0.0, d], rtol=1e-9)


def test_a_graph_remembers_what_stops_derivatives_and_rules_of_ones_own():
    rule = md.custom_vjp(lambda x: x * 2.0)
    rule.defvjp(lambda x: (x * 2.0, None), lambda res, g: (g * 100.0,))
    x = f64(3.0)
    graph = md.trace(lambda x: md.stop_gradient(x) * rule(x))(x)
    assert graph(x)[0].item() == 18.0
    assert md.grad(lambda x: graph(x)[0])(x).item() == 300.0
    assert md.jit(md.grad(lambda x: graph(x)[0]))(x).item() == 300.0
    with md.no_grad():  # of what is traced so nobody wants a derivative
        assert "stop" not in str(md.trace(lambda x: x.detach() * quietly(x))(x))


def test_a_compiled_step_has_nothing_of_no_grad_in_its_program():
    assert "stop" not in str(md.jit(quietly).lower(f64(2.0)))


def test_a_call_that_is_one_node_has_its_derivatives_under_no_grad():
    """Forward mode runs it again, which must be recorded whatever the mode around."""
    ruled = md.custom_vjp(md.sin)
    ruled.defvjp(lambda x: (md.sin(x), x), lambda x, g: (g * md.cos(x),))
    calls = {
        "jit": md.jit(md.sin), "checkpoint": md.checkpoint(md.sin), "rule": ruled, "rule in jit": md.jit(ruled),
        "loop": lambda x: md.trace(lambda x: md.fori_loop(0, 1, lambda i, v: md.sin(v), x))(md.zeros(()))(x)[0],
        "kernel": lambda x: md.extend.stands_for(md.sin, (x,), [x.xp.sin(x.payload)], lambda wanted, g: [g * x.xp.cos(x.payload)])[0],
    }  # fmt: skip
    x = md.tensor(0.3)
    for name, f in calls.items():
        with md.no_grad():
            found = [md.jvp(f, (x,), (md.ones(()),))[1], md.linearize(f, x)[1](md.ones(())), md.grad(f)(x), md.vjp(f, x)[1](md.ones(()))[0]]
        assert [v.requires_grad for v in found] == [False] * 4, name
        np.testing.assert_allclose([v.item() for v in found], np.cos(0.3), rtol=1e-6, err_msg=name)
