"""Control flow: the same values and derivatives eager and traced, on every backend."""

from __future__ import annotations

import time

import numpy as np
import pytest

import minidl as md


def same(a, b, tol=1e-10):
    for x, y in zip(md.tree.leaves(a), md.tree.leaves(b), strict=True):
        np.testing.assert_allclose(np.asarray(x.detach().numpy()), np.asarray(y.detach().numpy()), rtol=tol, atol=tol)


def f64(v):
    return md.tensor(v, dtype=md.float64)


def chain(x, w):
    """A scan whose carry, constants and sequence are all differentiable."""
    c, y = md.scan(lambda c, a: (md.sin(c * a * w), c * a), x, f64([2.0, 3.0, 0.5, 1.5]))
    return c + (y * y).sum()


def settle(x):
    """A while loop whose number of trips depends on the data."""
    return md.while_loop(lambda s: s < 50.0, lambda s: s * x + 0.1, x)


def choose(p, x):
    return md.cond(p, lambda x: x * x * x, lambda x: md.sin(x), x)


ORDERS = {
    "value": lambda f: f,
    "grad": md.grad,
    "jvp": lambda f: lambda x: md.jvp(f, (x,), (x * 0.0 + 1.0,))[1],
    "grad of grad": lambda f: md.grad(md.grad(f)),
    "jvp of grad": lambda f: lambda x: md.jvp(md.grad(f), (x,), (x * 0.0 + 1.0,))[1],
    "grad of jvp": lambda f: md.grad(lambda x: md.jvp(f, (x,), (x * 0.0 + 1.0,))[1]),
}
PROGRAMS = {
    "scan": lambda x: chain(x, x * 0.5),
    "scan in reverse": lambda x: md.scan(lambda c, a: (c * a + x, md.cos(c)), x, f64([0.3, -0.2, 0.7]), reverse=True)[1].sum(),
    "while": settle,
    "cond": lambda x: choose(x > 1.0, x),
    "switch": lambda x: md.switch(1, [lambda x: x, lambda x: md.exp(x) * x, lambda x: -x], x),
    "fori": lambda x: md.fori_loop(0, 5, lambda i, s: s * x, x * 0.0 + 1.0),
    "cond in scan": lambda x: md.scan(lambda c, a: (md.cond(a > 0.0, lambda c: c * x, lambda c: c + md.sin(x), c), c), x, f64([1.0, -1.0, 1.0]))[0],
}


@pytest.mark.parametrize("program", PROGRAMS)
def test_eager_traced_and_batched_agree(backend, program):
    """All orders of a program are one function, so that a backend compiles them at once."""

    def f(x):
        return tuple(order(PROGRAMS[program])(x) for order in ORDERS.values())

    same(f(f64(1.3)), md.jit(f)(f64(1.3)))
    lanes = f64([1.3, 1.7, 0.9]) if program != "while" else f64([1.3, 1.7, 2.5])
    rows = [f(lanes[i]) for i in range(3)]
    stacked = tuple(md.stack(column) for column in zip(*rows, strict=True))
    same(md.vmap(f)(lanes), stacked)
    same(md.jit(md.vmap(f))(lanes), stacked)


def test_each_lane_of_a_loop_takes_its_own_number_of_steps(backend):
    f = lambda n: md.while_loop(lambda s: s[0] < n, lambda s: (s[0] + 1, s[1] * 2.0), (md.tensor(0), md.tensor(1.0)))[1]
    for run in (md.vmap(f), md.jit(md.vmap(f))):
        assert run(md.tensor([0, 3, 5, 1])).tolist() == [1.0, 8.0, 32.0, 2.0]


def test_a_step_of_a_loop_may_run_a_pass_of_its_own():
    """Down to a leaf that it made; one from outside would hold the gradient of the last step."""

    def step(c, _):
        v = c.detach().requires_grad_()
        (v * v * v).sum().backward()
        return v.grad / 3.0, ()

    run = lambda x: md.scan(step, x, None, length=2)[0]
    x = md.tensor([0.5, 2.0])
    assert run(x).tolist() == md.jit(run)(x).tolist() == [0.5**4, 16.0]


def test_backward_through_a_jitted_loop(backend):
    x = md.tensor(1.3, dtype=md.float64, requires_grad=True)
    md.jit(settle)(x).backward()
    same(x.grad, md.grad(settle)(f64(1.3)))
    x.grad = None
    md.jit(lambda x: chain(x, x))(x).backward()
    same(x.grad, md.grad(lambda x: chain(x, x))(f64(1.3)))


def test_the_reverse_of_a_long_while_loop(backend):
    """5,000 trips, found by the data; the closed form is a**n."""

    def f(a):
        return md.while_loop(lambda s: s[0] < 5000, lambda s: (s[0] + 1, s[1] * a), (md.tensor(0), a * 0.0 + 1.0))[1]

    a = f64(1.0001)
    g = md.jit(md.grad(f))(a)
    assert g.item() == pytest.approx(5000 * 1.0001**4999, rel=1e-9)


def test_tracing_a_scan_does_not_depend_on_its_length():
    def f(xs):
        return md.scan(lambda c, x: (md.tanh(c + x), c), xs[0] * 0.0, xs)[0]

    def seconds(n):
        start = time.process_time()
        graph = md.trace(md.grad(f))(md.ones((n,)))
        return time.process_time() - start, len(graph.equations)

    seconds(10)
    (short, few), (long, many) = min(seconds(10) for _ in range(3)), min(seconds(10_000) for _ in range(3))
    assert few == many and long < 3 * short + 0.05


def test_tensors_changed_inside_are_carried(backend):
    total = md.zeros((), dtype=md.float64)

    def f(x):
        def body(c, a):
            total.assign(total + c)
            return c * a, c

        return md.scan(body, x, f64([2.0, 3.0]))[0]

    g = md.jit(f)
    assert g(f64(1.0)).item() == 6.0 and total.item() == 3.0
    assert g(f64(1.0)).item() == 6.0 and total.item() == 6.0
    count = md.zeros((), dtype=md.int64)

    def step(p):
        def yes(x):
            count.assign(count + 1)
            return x

        return md.cond(p, yes, lambda x: x * 2.0, f64(1.0))

    j = md.jit(step)
    assert j(md.tensor(True)).item() == 1.0 and j(md.tensor(False)).item() == 2.0 and count.item() == 1
    assert j.compiles == 1


def test_shapes_of_the_carry_and_of_branches_are_checked(backend):
    x = md.ones((2,))
    for wrap in (lambda f: f, md.jit):
        with pytest.raises(TypeError, match="the carry changes from f32"):
            wrap(lambda x: md.scan(lambda c, a: (md.concat([c, c]), a), x, md.ones((3,)))[0])(x)
        with pytest.raises(ValueError, match="scan: leading axes"):
            wrap(lambda x: md.scan(lambda c, a: (c, a), x, md.ones((3,)), length=4)[0])(x)
    with pytest.raises(TypeError, match="branches return"):
        md.jit(lambda p, x: md.cond(p, lambda x: x, lambda x: x.sum(), x))(md.tensor(True), x)


def test_map_and_nested_loops(backend):
    same(md.jit(lambda x: md.map(lambda v: v * v, x))(f64([1.0, 2.0])), f64([1.0, 4.0]))

    def f(x):
        return md.scan(lambda c, a: (md.while_loop(lambda s: s < a, lambda s: s * x, c), c), x, f64([3.0, 9.0]))[0]

    x = f64(1.5)
    same(md.grad(f)(x), md.jit(md.grad(f))(x))


def test_what_every_step_computes_alike_is_computed_once_before_the_loop():
    w = md.tensor([[1.0, 0.5], [0.25, -1.0]], dtype=md.float64)
    x = md.tensor([1.0, 2.0], dtype=md.float64)

    def scanned(w, x):
        last, seen = md.scan(lambda c, _: (md.tanh(md.exp(w.T) @ c + md.ones((2,))), c), x, None, length=3)
        return (last * seen.sum(axis=0)).sum()

    def repeated(w, x):
        return md.while_loop(lambda s: s[0] < 3, lambda s: (s[0] + 1, md.tanh(md.exp(w.T) @ s[1])), (md.tensor(0), x))[1].sum()

    for f in (scanned, repeated):
        traced = md.trace(md.grad(f, argnums=(0, 1)))(w, x)
        loops = [e for e in traced.equations if e.primitive.name in ("scan", "while_loop")]
        assert loops and not any(inner.primitive.name in ("permute", "exp") for e in loops for inner in e.params["body"].equations)
        assert not any(v.shape == (3, 2, 2) for e in loops for v in e.outputs)  # one copy of the matrix for each step
        for a, b in zip(md.jit(md.grad(f, argnums=(0, 1)))(w, x), md.grad(f, argnums=(0, 1))(w, x), strict=True):
            np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-9)


def test_what_is_larger_than_its_sources_stays_in_the_loop():
    graph = md.trace(lambda b: md.scan(lambda c, _: (c + md.broadcast_to(b, (4, 3)) * 1.0, None), md.zeros((4, 3)), None, length=2)[0])(md.ones((3,)))
    (loop,) = [e for e in graph.equations if e.primitive.name == "scan"]
    assert [v.shape for v in loop.inputs] == [(3,), (4, 3)]


def test_the_counter_of_a_loop_lives_where_its_tensors_do():
    x = md.asarray(np.ones(2), backend="torch")
    for upper in (3, md.asarray(3, backend="torch")):
        found = md.fori_loop(0, upper, lambda i, s: s + i, x)
        assert found.backend == "torch" and found.tolist() == [4.0, 4.0]
