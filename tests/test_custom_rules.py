"""Functions with derivatives of their own keep these wherever they are called: in loops and branches, inside vmap, inside jit, under each other."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

import minidl as md


def f64(v):
    return md.tensor(v, dtype=md.float64)


def by_vjp():
    """x * x with the derivative 100 x, so that everybody sees whose rule it was."""
    f = md.custom_vjp(lambda x: x * x)
    f.defvjp(lambda x: (x * x, x), lambda x, g: (g * 100.0 * x,))
    return f


def by_jvp():
    f = md.custom_jvp(lambda x: x * x)
    f.defjvp(lambda p, t: (p[0] * p[0], t[0] * 100.0 * p[0]))
    return f


MAKE = {"vjp": by_vjp, "jvp": by_jvp}
X = [0.5, 1.5]
D = [50.0, 150.0]
WAYS = {  # the derivative at X, through f once
    "vmap": lambda f, x: md.grad(lambda x: md.vmap(f)(x).sum())(x),
    "vmap of vmap": lambda f, x: md.grad(lambda x: md.vmap(md.vmap(f))(x[None]).sum())(x),
    "vmap of grad": lambda f, x: md.vmap(md.grad(f))(x),
    "map": lambda f, x: md.grad(lambda x: md.map(f, x).sum())(x),
    "scan": lambda f, x: md.grad(lambda x: md.scan(lambda c, a: (c + f(a), c), f64(0.0), x)[0])(x),
    "fori": lambda f, x: md.vmap(md.grad(lambda a: md.fori_loop(0, 3, lambda i, s: md.where(i == 1, f(s), s), a)))(x),
    "while": lambda f, x: md.vmap(md.grad(lambda a: md.while_loop(lambda s: s[0] < 1, lambda s: (s[0] + 1, f(s[1])), (0, a))[1]))(x),
    "cond": lambda f, x: md.vmap(md.grad(lambda a: md.cond(a > 0.0, f, lambda v: v, a)))(x),
    "grad of vmap of cond": lambda f, x: md.grad(lambda x: md.vmap(lambda a: md.cond(a > 0.0, f, lambda v: v, a))(x).sum())(x),
    "grad of vmap of scan": lambda f, x: md.grad(lambda x: md.vmap(lambda a: md.scan(lambda c, _: (f(c), ()), a, None, length=1)[0])(x).sum())(x),
    "checkpoint": lambda f, x: md.grad(lambda x: md.checkpoint(md.vmap(f))(x).sum())(x),
    "vmap of checkpoint": lambda f, x: md.grad(lambda x: md.vmap(md.checkpoint(f))(x).sum())(x),
    "jvp of vmap": lambda f, x: md.jvp(md.vmap(f), (x,), (md.ones_like(x),))[1],
    "jvp of map": lambda f, x: md.jvp(lambda x: md.map(f, x), (x,), (md.ones_like(x),))[1],
    "jacrev": lambda f, x: md.jacrev(md.vmap(f))(x).sum(0),
    "jacfwd": lambda f, x: md.jacfwd(md.vmap(f))(x).sum(0),
    "shared by the lanes": lambda f, x: md.stack([md.grad(lambda w: md.vmap(lambda a: f(w) + a)(x).sum())(v) for v in x]) / 2.0,
    "vjp of vmap": lambda f, x: md.vjp(md.vmap(f), x)[1](md.ones_like(x))[0],
}
SECOND = {  # the derivative of the rule itself is 100
    "grad of vmap of grad": lambda f, x: md.grad(lambda x: md.vmap(md.grad(f))(x).sum())(x),
    "hessian": lambda f, x: md.hessian(lambda x: md.vmap(f)(x).sum())(x).sum(0),
    "grad of grad of map": lambda f, x: md.grad(lambda x: md.grad(lambda x: md.map(f, x).sum())(x).sum())(x),
    "grad of grad of cond": lambda f, x: md.vmap(md.grad(md.grad(lambda a: md.cond(a > 0.0, f, lambda v: v, a))))(x),
}


@pytest.mark.parametrize("kind", MAKE)
def test_the_rule_is_found_wherever_the_function_is_called(backend, kind):
    f, x = MAKE[kind](), f64(X)
    every = lambda x: ([way(f, x) for way in WAYS.values()], [way(f, x) for way in SECOND.values()])
    for run in (every, md.jit(every)) if backend in ("numpy", "torch") else (md.jit(every),):
        first, second = run(x)
        for name, got in zip(WAYS, first, strict=True):
            np.testing.assert_allclose(got.numpy(), D, rtol=1e-12, err_msg=name)
        for name, got in zip(SECOND, second, strict=True):
            np.testing.assert_allclose(got.numpy(), [100.0, 100.0], rtol=1e-12, err_msg=name)


@pytest.mark.parametrize("kind", MAKE)
def test_a_jitted_function_keeps_the_rules_inside_it(kind):
    f, x = MAKE[kind](), f64(X)
    for jitted in (md.jit(f), md.jit(md.vmap(f)), md.jit(lambda x: md.map(f, x))):
        np.testing.assert_allclose(md.grad(lambda x, jitted=jitted: jitted(x).sum())(x).numpy(), D)
        np.testing.assert_allclose(md.jvp(jitted, (x,), (md.ones_like(x),))[1].numpy(), D)
        np.testing.assert_allclose(md.grad(lambda x, jitted=jitted: md.grad(lambda x: jitted(x).sum())(x).sum())(x).numpy(), [100.0, 100.0])
        t = f64(X).requires_grad_()
        jitted(t).sum().backward()
        np.testing.assert_allclose(t.grad.numpy(), D)


def test_programs_are_compiled_with_the_function_in_its_place():
    f = by_vjp()
    jitted = md.jit(lambda x: md.map(f, x) + f(x))
    jitted(f64(X))
    assert "custom" not in md.explain(jitted, f64(X)).__str__()
    graph = md.trace(lambda x: md.map(f, x) + f(x))(f64(X))
    np.testing.assert_allclose(md.grad(lambda x: graph(x)[0].sum())(f64(X)).numpy(), np.multiply(D, 2.0))
    names = {}
    exec(graph.to_python("program"), names)
    np.testing.assert_allclose(names["program"](np.array(X))[0], 2 * np.square(X))


def with_rule(f):
    f.defvjp(lambda *a: (f(*a), None), lambda res, g: (g,))
    return f


def fixed_point():
    """x = f(a, x), differentiated by the implicit function theorem; fwd and bwd call the function itself."""

    @partial(md.custom_vjp, nondiff_argnums=(0,))
    def solve(f, a, start):
        close = lambda s: md.max(md.abs(s[0] - s[1])) > 1e-13
        return md.while_loop(close, lambda s: (s[1], f(a, s[1])), (start, f(a, start)))[1]

    def fwd(f, a, start):
        x = solve(f, a, start)
        return x, (a, x)

    def bwd(f, res, g):
        a, x = res
        _, to_a = md.vjp(lambda a: f(a, x), a)
        w = solve(lambda c, w: c[2] + md.vjp(lambda x: f(c[0], x), c[1])[1](w)[0], (a, x, g), g)
        return to_a(w)[0], None

    solve.defvjp(fwd, bwd)
    return solve


def test_implicit_derivatives_inside_transforms(backend):
    solve = fixed_point()
    w = f64([[0.2, 0.1], [0.05, 0.3]])  # read from outside by what is not differentiated
    root = lambda a: solve(lambda a, x: md.tanh(w @ x * a + a), a, md.zeros((2,), dtype=md.float64)).sum()

    def unrolled(a):
        x = md.zeros((2,), dtype=md.float64)
        for _ in range(80):
            x = md.tanh(w @ x * a + a)
        return x.sum()

    a = f64([0.3, 0.9])
    wanted = [md.vmap(md.grad(unrolled))(a).numpy(), md.vmap(md.grad(md.grad(unrolled)))(a).numpy()]
    every = lambda a: (
        md.vmap(md.grad(root))(a), md.vmap(md.grad(md.grad(root)))(a), md.grad(lambda a: md.vmap(root)(a).sum())(a), md.map(md.grad(root), a),
        md.grad(lambda a: md.map(root, a).sum())(a),
    )  # fmt: skip
    for run in (every, md.jit(every)) if backend in ("numpy", "torch") else (md.jit(every),):
        first, second, *others = (t.numpy() for t in run(a))
        np.testing.assert_allclose(first, wanted[0], rtol=1e-10)
        np.testing.assert_allclose(second, wanted[1], rtol=1e-9)
        for other in others:
            np.testing.assert_allclose(other, wanted[0], rtol=1e-10)


def test_arguments_that_are_not_differentiated():
    f = md.custom_vjp(lambda n, x, mode="up": x**n if mode == "up" else -x, nondiff_argnums=(0, 2))
    f.defvjp(lambda n, x, mode: (x**n, x), lambda n, mode, x, g: (g * n * 10.0 if mode == "up" else g,))
    assert md.grad(lambda x: f(3, x, "up"))(f64(2.0)).item() == 30.0
    assert md.grad(lambda x: f(3, x))(f64(2.0)).item() == 30.0
    assert md.grad(lambda x: f(3, x, mode="down"))(f64(2.0)).item() == 1.0
    assert md.jit(md.grad(lambda x: f(n=3, x=x, mode="up")))(f64(2.0)).item() == 30.0
    with pytest.raises(ValueError, match=r"custom_vjp: nondiff_argnums \(4,\) but 1 positional arguments came"):
        with_rule(md.custom_vjp(lambda *a: a[0], nondiff_argnums=4))(f64(1.0))
    h = md.custom_jvp(lambda g, x: g(x), nondiff_argnums=0)
    h.defjvp(lambda g, p, t: (g(p[0]), t[0] * 7.0))
    assert md.grad(lambda x: h(md.sin, x))(f64(2.0)).item() == 7.0
    assert md.vmap(md.grad(partial(h, md.sin)))(f64(X)).tolist() == [7.0, 7.0]


def test_what_a_rule_reads_from_outside(backend):
    data = f64([1.0, 2.0])

    def f_of(scale):
        f = md.custom_vjp(lambda x: (x * data * scale).sum())
        f.defvjp(lambda x: (f(x), {"x": x, "n": 2}), lambda res, g: (g * data * scale * res["n"] + 0.0 * res["x"],))
        return f

    @md.jit
    def run(x, scale, number):
        f = f_of(scale * number)
        return md.scan(lambda c, a: (c + md.grad(f)(a), f(a)), md.zeros_like(x[0]), x)[0], md.grad(lambda x: md.vmap(f)(x).sum())(x)

    for number in (3.0, 4.0):
        total, each = run(f64([[0.1, 0.2], [0.3, 0.4]]), f64(0.5), number)
        np.testing.assert_allclose(total.numpy(), np.array([2.0, 4.0]) * number)
        np.testing.assert_allclose(each.numpy(), np.array([[1.0, 2.0]] * 2) * number)


def test_numbers_that_a_rule_inside_a_rule_reads_are_those_of_its_function(backend):
    """Beside a loop, for which the inner function's own rule is asked again after the outer one was traced."""

    def own(f):
        g = md.custom_vjp(f)
        g.defvjp(lambda a: (f(a), (a,)), lambda res, ct: md.vjp(f, res[0])[1](ct))
        return g

    def outer(a):
        u = own(lambda a: a * md.asarray([3.0, 5.0]) * a)(a)
        return u + md.fori_loop(0, 1, lambda i, c: c * u, u)

    x, g = md.tensor([1.0, 2.0]), md.grad(lambda x: own(outer)(x).sum())
    assert g(x).tolist() == md.jit(g)(x).tolist() == [42.0, 820.0]
    assert md.jit(md.vmap(g))(md.stack([x, x])).tolist() == [[42.0, 820.0]] * 2


def test_integers_complex_numbers_and_pytrees():
    f = md.custom_vjp(lambda p, i: {"y": p["w"] * i, "i": i + 1})
    f.defvjp(lambda p, i: (f(p, i), i), lambda i, g: ({"w": g["y"] * i * 10.0, "unused": None}, None))
    p = {"w": f64(2.0), "unused": None}
    loss = lambda p: md.vmap(lambda i: f(p, i)["y"])(md.arange(1, 4)).sum()
    for run in (md.grad(loss), md.jit(md.grad(loss))):
        assert run(p)["w"].item() == 60.0
    z = md.tensor([1.0 + 2.0j, 3.0 - 1.0j], dtype=md.complex128)
    c = md.custom_vjp(lambda z: md.square(md.abs(z)))
    c.defvjp(lambda z: (md.square(md.abs(z)), z), lambda z, g: (2.0 * g * z,))
    wanted = md.grad(lambda z: md.square(md.abs(z)).sum())(z).numpy()
    for run in (md.vmap(c), lambda z: md.map(c, z)):
        np.testing.assert_allclose(md.grad(lambda z, run=run: run(z).sum())(z).numpy(), wanted)
        np.testing.assert_allclose(md.jit(md.grad(lambda z, run=run: run(z).sum()))(z).numpy(), wanted)


def test_a_rule_on_another_backend_than_the_default():
    f, x = by_jvp(), f64(X).to(backend="torch")
    assert md.grad(lambda x: f(x).sum())(x).backend == "torch"
    assert md.grad(lambda x: md.vmap(f)(x).sum())(x).tolist() == D
    g = by_vjp()
    assert md.jvp(g, (x,), (md.ones_like(x),))[1].tolist() == D


def test_no_rule_and_wrong_rules_are_named_inside_jit_too():
    with pytest.raises(TypeError, match=r"custom_vjp: .* has no rule yet; call .defvjp\(fwd, bwd\) first"):
        md.jit(md.custom_vjp(lambda x: x))(f64(1.0))
    f = md.custom_vjp(lambda x: x)
    f.defvjp(lambda x: (x, ()), lambda res, g: g)
    with pytest.raises(TypeError, match="bwd must return a tuple of 1 cotangents"):
        md.jit(md.grad(f))(f64(1.0))
    f.defvjp(lambda x: (x, ()), lambda res, g: (md.stack([g, g]),))
    with pytest.raises(ValueError, match=r"bwd returned f64\[2\] for the argument f64\[\]"):
        md.jit(md.grad(f))(f64(1.0))


def test_a_rule_may_read_what_was_computed_before_it_in_a_loop():
    """fwd calls the function itself, whose value is read from outside; derivatives are taken when the trace of the loop's body is over."""

    def f(x):
        k = md.sum(md.stop_gradient(x) ** 2)
        h = md.custom_vjp(lambda y: md.tanh(y * k))
        h.defvjp(lambda y: (h(y), y), lambda y, c: (c * md.cos(y) * k,))
        return h(x)

    x = f64(X)
    loop = lambda x: md.scan(lambda c, _: (f(c), ()), x, None, length=1)[0]
    k = np.square(X).sum()
    for run in (loop, md.jit(loop)):
        np.testing.assert_allclose(md.jvp(run, (x,), (md.ones_like(x),))[1].numpy(), np.cos(X) * k)
        np.testing.assert_allclose(md.grad(lambda x, run=run: md.vmap(run)(x[None]).sum())(x).numpy(), np.cos(X) * k)
        np.testing.assert_allclose(md.jit(lambda x, run=run: md.jvp(run, (x,), (md.ones_like(x),))[1])(x).numpy(), np.cos(X) * k)


def stopped(x):
    """x * x * x, of which one factor is a constant: the derivative is 2 x * x, and that of it 2 x."""
    return x * x * md.stop_gradient(x)


STOPPED = {
    "scan": lambda x: md.scan(lambda c, _: (stopped(c), ()), x, None, length=1)[0],
    "map": lambda x: md.map(stopped, x),
    "while": lambda x: md.while_loop(lambda s: s[0] < 1, lambda s: (s[0] + 1, stopped(s[1])), (0, x))[1],
    "cond": lambda x: md.cond(x.sum() > 0.0, stopped, lambda x: x, x),
    "vmap of scan": lambda x: md.vmap(lambda a: md.scan(lambda c, _: (stopped(c), ()), a, None, length=1)[0])(x),
    "jit": md.jit(stopped),
    "in place": lambda x: md.map(lambda a: a * a * a.detach(), x),
}


def test_no_derivative_flows_where_it_was_stopped(backend):
    x = f64(X)
    first = lambda x: [md.grad(lambda x, f=f: f(x).sum())(x) for f in STOPPED.values()]
    second = lambda x: [md.grad(lambda x, f=f: md.grad(lambda x: f(x).sum())(x).sum())(x) for f in STOPPED.values()]
    pushed = lambda x: [md.jvp(f, (x,), (md.ones_like(x),))[1] for f in STOPPED.values()]
    every = lambda x: (first(x), second(x), pushed(x))
    for run in (every, md.jit(every)) if backend in ("numpy", "torch") else (md.jit(every),):
        for found, wanted in zip(run(x), (2 * np.square(X), 2 * np.array(X), 2 * np.square(X)), strict=True):
            for name, got in zip(STOPPED, found, strict=True):
                np.testing.assert_allclose(got.numpy(), wanted, rtol=1e-12, err_msg=name)


def test_what_stops_derivatives_is_in_no_program():
    jitted = md.jit(lambda x: STOPPED["map"](x) + stopped(x))
    text = str(jitted.explain(f64(X).requires_grad_()))
    assert "stop" not in text and jitted(f64(X)).tolist() == (2 * np.power(X, 3)).tolist()


def test_a_rule_that_reads_a_tracked_tensor_is_kept_in_bodies():
    w = md.tensor(2.0, dtype=md.float64, requires_grad=True)
    f = md.custom_vjp(lambda x: x * w)
    f.defvjp(lambda x: (x * w, x), lambda x, g: (g * 5.0 * w,))
    x, xs = f64(0.3), f64([0.3, 0.5])
    ways = [
        md.grad(lambda x: md.cond(x > 0.0, f, lambda v: v, x)),
        md.grad(lambda x: md.scan(lambda c, _: (f(c), ()), x, None, length=1)[0]),
        md.grad(lambda x: md.while_loop(lambda s: s[0] < 1, lambda s: (s[0] + 1, f(s[1])), (0, x))[1]),
        lambda x: md.jvp(lambda x: md.map(f, x[None]).sum(), (x,), (md.ones_like(x),))[1],
    ]
    for way in ways:
        assert way(x).item() == md.jit(way)(x).item() == 10.0
        assert md.jit(md.vmap(way))(xs).tolist() == [10.0, 10.0]
    assert md.jit(md.grad(lambda x: md.scan(lambda c, _: (md.vmap(f)(c), ()), x, None, length=2)[0].sum()))(xs).tolist() == [100.0, 100.0]

    def loss(x):  # nobody differentiates the argument: w has the derivative of the function itself
        md.map(f, x).sum().backward()
        found = w.grad.detach()
        w.grad = None
        return found

    assert loss(xs).item() == md.jit(loss)(xs).item() == 0.8

    def double(v):  # the derivative by what it reads, in every order
        g = md.custom_vjp(lambda a: a * v * v)
        g.defvjp(lambda a: (a * v * v, None), lambda _, c: (c * 1e9,))
        return md.cond(xs.sum() > 0.0, lambda a: md.map(g, a).sum(), lambda a: a.sum(), xs)

    for transform in (md.grad, lambda h: lambda v: md.jvp(h, (v,), (md.ones_like(v),))[1]):
        for way in (transform(double), transform(transform(double))):
            assert np.isclose(way(f64(2.0)).item(), md.jit(way)(f64(2.0)).item())
    assert np.isclose(md.jit(md.grad(double))(f64(2.0)).item(), 3.2)
    assert np.isclose(md.jit(md.grad(md.grad(double)))(f64(2.0)).item(), 1.6)


@pytest.mark.parametrize("spelled", ["vjp", "Function"])
def test_a_backward_differentiates_by_parameters_that_it_reads(spelled, backend):
    """The adjoint method: backward runs the network again and asks for gradients by its parameters, which forward has read, too."""
    net = md.nn.Linear(2, 2).double()
    flat = lambda: md.cat([p.reshape(-1) for p in net.parameters()])

    def again(y, g):
        with md.enable_grad():
            y = y.detach().requires_grad_()
            dy, *dp = md.autograd.grad(md.tanh(net(y)), (y, *net.parameters()), g)
        return dy, md.cat([p.reshape(-1) for p in dp])

    class Adjoint(md.autograd.Function):
        @staticmethod
        def forward(ctx, y, parameters):
            ctx.save_for_backward(y)
            with md.no_grad():
                return md.tanh(net(y))

        @staticmethod
        def backward(ctx, g):
            return again(*ctx.saved_tensors, g)

    by_rule = md.custom_vjp(lambda y, parameters: md.tanh(net(y.detach())).detach())
    by_rule.defvjp(lambda y, parameters: (by_rule(y, parameters), y), again)
    f = by_rule if spelled == "vjp" else Adjoint.apply

    def step(x):
        f(x, flat()).square().sum().backward()
        found = [p.grad.detach() for p in net.parameters()]
        net.zero_grad()
        return found

    x = f64([[0.3, -0.5], [1.0, 2.0]])
    md.tanh(net(x)).square().sum().backward()
    want = [p.grad.numpy() for p in net.parameters()]
    net.zero_grad()
    for run in (step, md.jit(step)):
        for found, wanted in zip(run(x), want, strict=True):
            np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-12)


def test_a_rule_with_effects_stores_what_it_sees_under_jit_too():
    seen = {}
    watch = md.custom_vjp(lambda x: x, effects=True)
    watch.defvjp(lambda x: (x, ()), lambda res, g: (seen.update(g=g) or g,))
    step = md.jit(lambda x: (md.grad(lambda x: (watch(x) ** 2).sum())(x), seen["g"] + 0.0))
    for value in (1.0, 3.0):
        assert [t.item() for t in step(md.tensor(value))] == [2 * value, 2 * value]


@pytest.mark.parametrize("backend", ["numpy", "torch"])
def test_a_forward_rule_may_move_tangents_by_its_own_function(backend):
    """JAX's way to write the rule of a linear solve: its tangent is another one. Where tangents are transposed, the function is what it computes."""

    @md.custom_jvp
    def solve(a, b):
        return md.linalg.solve(a, b)

    @solve.defjvp
    def rule(primals, tangents):
        (a, b), (da, db) = primals, tangents
        x = solve(a, b)
        return x, solve(a, db - da @ x)

    with md.use_backend(backend):
        a, b = md.tensor([[2.0, 1.0], [0.0, 4.0]], dtype=md.float64), md.tensor([1.0, 3.0], dtype=md.float64)
        energies = [lambda a, b, s=s: (s(a, b) ** 2).sum() for s in (solve, md.linalg.solve)]
        ways = (
            lambda f: md.grad(f, (0, 1)), lambda f: md.hessian(f, (0, 1)), lambda f: md.jit(md.grad(f, (0, 1))), lambda f: md.jacrev(md.jacrev(f)),
            lambda f: md.vmap(md.grad(f), in_axes=(None, 0)),
            lambda f: md.grad(lambda a, b: md.scan(lambda c, _: (f(a, c * b), None), b[0], None, 2)[0]),
        )  # fmt: skip
        for way in ways:
            rows = b[None] * md.tensor([[1.0], [2.0]], dtype=md.float64) if way is ways[4] else b
            for ours, known in zip(*(md.tree.leaves(way(f)(a, rows)) for f in energies), strict=True):
                np.testing.assert_allclose(ours.numpy(), known.numpy(), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("around", ["nothing", "scan", "while", "cond", "vmap", "checkpoint", "jit"])
def test_a_rule_may_call_its_own_function_inside_others(around):
    ways = {
        "nothing": lambda f, t: f(t), "scan": lambda f, t: md.scan(lambda c, _: (f(c), None), t, None, 1)[0],
        "while": lambda f, t: md.while_loop(lambda s: s[0] < 1, lambda s: (s[0] + 1, f(s[1])), (md.tensor(0), t))[1],
        "cond": lambda f, t: md.cond(md.tensor(True), f, md.sin, t), "vmap": lambda f, t: md.vmap(f)(t[None])[0],
        "checkpoint": lambda f, t: md.checkpoint(f)(t), "jit": lambda f, t: compiled.setdefault(f, md.jit(f))(t),
    }  # fmt: skip
    put, compiled = ways[around], {}

    @md.custom_jvp
    def triple(x):
        return x * 3.0

    triple.defjvp(lambda primals, tangents: (triple(*primals), put(triple, *tangents)))

    @md.custom_jvp
    def inner(x):  # as in JAX: whose tangent is another than what it computes
        return x * 3.0

    inner.defjvp(lambda primals, tangents: (inner(*primals), tangents[0] * 100.0))

    @md.custom_jvp
    def outer(x):  # moves tangents by `inner`, which is linear, so its transpose is that of what it computes; inside, a gradient obeys its rule
        return x

    outer.defjvp(lambda primals, tangents: (outer(*primals), put(inner, *tangents) + md.grad(lambda p: put(inner, p))(*primals) * tangents[0]))
    x = md.tensor(2.0)
    for wrap in (lambda f: f, md.jit):
        assert wrap(md.grad(triple))(x).item() == 3.0
        assert wrap(md.grad(md.grad(lambda x: triple(x) ** 2)))(x).item() == 18.0
        assert wrap(md.grad(lambda x: put(inner, x)))(x).item() == 100.0
        assert wrap(md.grad(outer))(x).item() == 103.0
        assert wrap(lambda x: md.jvp(outer, (x,), (x,))[1])(x).item() == 206.0
