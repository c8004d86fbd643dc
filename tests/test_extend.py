"""md.extend is enough to write an operation outside minidl: it runs eager, traced, batched and differentiated on every backend."""

from __future__ import annotations

import pickle
import subprocess
import sys

import numpy as np
import pytest

import minidl as md

ex = md.extend


@pytest.fixture(scope="module")
def softsign():
    """x / (1 + |x|), as a primitive that minidl does not know."""
    for name, there in md.backends().items():
        if there is True:
            ex.get_backend(name)  # defined after a backend is loaded, which is harder than before
    primitive = ex.elementwise(
        "softsign", "x", lambda xp, g, x: g / xp.square(1 + xp.abs(x)),
        decompose=lambda xp, x: x / (1 + xp.abs(x)), promote="float", only="float",
    )  # fmt: skip
    yield ex.define(primitive)
    del ex.table["softsign"]


def test_a_primitive_of_ones_own_is_like_any_other(softsign, backend):
    x = np.linspace(-2.0, 2.0, 5) + 0.1
    slope, curve = 1 / (1 + abs(x)) ** 2, -2 * np.sign(x) / (1 + abs(x)) ** 3
    t = md.tensor(x)
    leaf = md.tensor(x, requires_grad=True)
    softsign(leaf).sum().backward()
    total = md.grad(lambda v: softsign(v).sum())
    found = {
        "backward": leaf.grad, "grad": total(t), "jit": md.jit(total)(t), "vmap": md.vmap(md.grad(softsign))(t),
        "jit of vmap": md.jit(md.vmap(md.grad(softsign)))(t), "jvp": md.jvp(softsign, (t,), (md.ones_like(t),))[1],
    }  # fmt: skip
    for how, got in found.items():
        np.testing.assert_allclose(got.numpy(), slope, rtol=1e-14, err_msg=how)
    np.testing.assert_allclose(md.diagonal(md.hessian(lambda v: softsign(v).sum())(t)).numpy(), curve, rtol=1e-13)
    assert softsign(md.tensor([1.0], dtype="float16")).dtype is md.float16 and softsign(3).item() == 0.75
    many = np.random.default_rng(0).normal(size=(50, 40))
    fused = md.jit(lambda v: (softsign(v * 2) + 1).sum(axis=0))(md.tensor(many))
    np.testing.assert_allclose(fused.numpy(), (2 * many / (1 + abs(2 * many)) + 1).sum(axis=0), rtol=1e-12)
    with pytest.raises(TypeError, match=r"^softsign: dtype c64 is not supported; it wants a float dtype$"):
        softsign(md.tensor([1j]))


def test_a_primitive_that_no_backend_could_compute_is_refused():
    primitive = ex.elementwise("nothing_computes_this", "x", lambda xp, g, x: g)
    try:
        with pytest.raises(ValueError, match="has no decomposition"):
            ex.define(primitive)
        with pytest.raises(ValueError, match="defined twice"):
            ex.elementwise("nothing_computes_this", "x", lambda xp, g, x: g)
    finally:
        del ex.table["nothing_computes_this"]


@pytest.fixture
def temporary():
    """Primitives of one test, whose names are free again behind it."""
    before = set(ex.table)
    yield ex.Primitive
    for name in set(ex.table) - before:
        del ex.table[name]


def test_what_has_no_rule_follows_from_the_decomposition(temporary, backend):
    def moments(xp, x, axis):
        mean = xp.sum(x, axis=(axis,), keepdims=False) / x.shape[axis]
        return mean, xp.sum(xp.square(x), axis=(axis,), keepdims=False) / x.shape[axis] - xp.square(mean)

    def infer(x, *, axis):
        shape = x.shape[:axis] + x.shape[axis + 1 :]
        return (shape, x.dtype), (shape, x.dtype)

    f = ex.define(temporary("moments", "x", "axis", infer=infer, decompose=moments, multiple=True, promote="float"))
    x = np.arange(6.0).reshape(2, 3)
    t, slope = md.tensor(x), (x - x.mean(1, keepdims=True)) * 2 / 3
    var = lambda v: f(v, axis=1)[1].sum()
    lanes = lambda v: md.vmap(lambda row: f(row, axis=0)[1])(v).sum()
    for found in (md.grad(var)(t), md.jit(md.grad(var))(t), md.grad(lanes)(t), md.vmap(md.grad(lambda row: f(row, axis=0)[1]))(t)):
        np.testing.assert_allclose(found.numpy(), slope, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(md.jit(md.vmap(lambda row: f(row, axis=0)[1]))(t).numpy(), x.var(1), rtol=1e-12)


def test_a_primitive_with_rules_and_without_a_batching_rule_is_mapped(temporary, backend):
    f = ex.define(temporary(
        "last_sum", "x", infer=lambda x: (x.shape[:-1], x.dtype), decompose=lambda xp, x: xp.sum(x, axis=(len(x.shape) - 1,), keepdims=False),
        vjps=(lambda xp, g, x_shape: xp.broadcast_to(xp.reshape(g, shape=(*x_shape[:-1], 1)), shape=x_shape),), jvps=("linear",),
    ))  # fmt: skip
    x = md.tensor([[1.0, 2.0], [3.0, 4.0]])
    both = lambda v: (md.vmap(f)(v), md.vmap(md.grad(f))(v), md.grad(lambda v: md.vmap(f)(v).sum())(v))
    for values, *slopes in (both(x), md.jit(both)(x)):
        assert values.tolist() == [3.0, 7.0] and all(s.tolist() == [[1.0, 1.0], [1.0, 1.0]] for s in slopes)


def test_mistakes_in_a_primitive_of_ones_own_are_said(temporary):
    rules = temporary("pair", "x", infer=lambda x: ((x.shape, x.dtype),) * 2, decompose=lambda xp, x: (x, x), multiple=True, vjps=(lambda xp, g: g,))
    with pytest.raises(ValueError, match="pair has several results, whose derivative is that of its decomposition"):
        ex.define(rules)
    f = ex.define(temporary("wrong", "x", infer=lambda x: (x.shape, x.dtype), decompose=lambda xp, x: xp.no_such_function(x)))
    with pytest.raises(AttributeError, match="no_such_function"):
        f(md.ones(2))


def test_values_are_seen_only_where_there_are_any(backend):
    def f(x):
        looks.append(ex.seen(x))
        return x

    looks: list = []
    for g in (f, md.jit(f), md.vmap(f)):
        g(md.ones(2))
    assert looks[1:] == [None, None]
    assert looks[0] is None if md.ones(()).device != "cpu" else looks[0][0].tolist() == [1.0, 1.0]


def test_home_is_where_a_value_lies_and_where_operations_run(backend):
    here = ex.get_backend(backend)
    assert ex.home() is here and ex.home(md.ones(2)) is here
    assert md.jit(lambda x: x * (ex.home() is here) * (ex.home(x) is here))(md.ones(2)).tolist() == [1.0, 1.0]
    other = md.ones(2, backend="numpy" if backend != "numpy" else "numba")
    assert ex.home(other) is not here and ex.home() is here


def test_there_are_no_lanes_outside_of_vmap(backend):
    assert ex.per_lane(md.arange) is None
    assert md.vmap(lambda x: md.vmap(lambda y: y * ex.per_lane(md.arange))(x) + ex.per_lane(md.arange))(md.ones((2, 3))).tolist() == [
        [0.0, 1.0, 2.0],
        [1.0, 2.0, 3.0],
    ]


def test_unit_matrices_are_where_the_matrix_is():
    for name in [n for n, there in md.backends().items() if there is True]:
        x = md.tensor([[2.0, 0.0], [0.0, 4.0]], backend=name)
        assert md.linalg.inv(x).backend == md.linalg.matrix_power(x, 0).backend == name
        assert md.linalg.qr(md.zeros((3, 0), backend=name), mode="complete").Q.backend == name


PROGRAM = """
import minidl as md
def noisy(x):
    return (x * md.random.uniform(md.random.default_generator.next_key(), x.shape)).sum()
x = md.ones(3).requires_grad_()
y = md.checkpoint(noisy)(x)  # the first thing that loads md.random
y.backward()
assert abs(x.grad.sum().item() - y.item()) < 1e-6, (x.grad, y)
"""


def test_checkpoint_replays_a_stream_that_began_inside_it():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_kernels_beside_a_primitive_compute_it_on_their_backend(temporary, tmp_path, monkeypatch, backend):
    home = tmp_path / f"lib_{backend}"
    home.mkdir()
    (home / "__init__.py").write_text("")
    (home / f"on_{backend}.py").write_text("def tripled(x):\n    return x * 3\n" if backend != "numba" else "def others(plan, e): ...\n")
    if backend == "numba":  # whose programs call NumPy where they have no lowering
        (home / "on_numpy.py").write_text("def tripled(x):\n    return x * 3\n")
    monkeypatch.syspath_prepend(tmp_path)
    rules = {"vjps": (lambda xp, g: xp.tripled(g),), "jvps": ("linear",)}
    primitive = temporary("tripled", "x", infer=lambda x: (x.shape, x.dtype), batch=ex.batch_leading, **rules)
    f = ex.define(primitive, kernels=home.name)
    x = md.tensor([1.0, 2.0])
    assert f(x).tolist() == md.jit(f)(x).tolist() == md.vmap(f)(x).tolist() == [3.0, 6.0]
    assert md.jit(md.grad(lambda v: (f(v) * v).sum()))(x).tolist() == [6.0, 12.0]


def test_a_name_that_is_free_again_means_the_new_primitive(temporary, backend):
    x = md.tensor([1.0, 2.0])
    for n in (2.0, 3.0):
        f = ex.define(temporary("scaled", "x", infer=lambda x: (x.shape, x.dtype), decompose=lambda xp, x, n=n: x * n, vjps=(lambda xp, g: g,)))
        assert f(x).tolist() == md.jit(f)(x).tolist() == [n, 2 * n]
        del ex.table["scaled"]


def test_a_primitive_of_a_library_is_found_in_another_process():
    """By its name, which its library defines there."""
    data = pickle.dumps(md.linalg and ex.table["svd"])
    code = f"import pickle\nprint(pickle.loads({data!r}))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "<primitive svd>\n"


@pytest.mark.parametrize("kind", ["float32", "complex64"])
def test_rules_without_a_batching_rule_are_the_derivative_of_every_lane(kind):
    primitive = md.extend.Primitive(
        "of_two_rules", "x y i", "axis", infer=lambda x, y, i, *, axis: (x.shape, x.dtype), promote="none",
        vjps=(lambda xp, g, out: g * 100.0 * out, lambda xp, g, y: xp.sum(g, axis=(0,), keepdims=True) * 7.0 * y, None),
        decompose=lambda xp, x, y, i, axis: x * y,
    )  # fmt: skip
    f = md.extend.define(primitive)
    try:
        x = md.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]).to(kind) * (1j if kind == "complex64" else 1)
        y, i = md.tensor([2.0]).to(kind) * (1j if kind == "complex64" else 1), md.tensor([1, 2])

        def loss(x, y):
            out = f(x, y, i, axis=0)
            return (md.real(out) * 3.0 + md.imag(out)).sum() if kind == "complex64" else out.sum()

        lanes = lambda x, y: md.vmap(loss, in_axes=(0, None))(x, y).sum()
        looped = lambda x, y: md.scan(lambda c, _: (c, lanes(x, y)), md.zeros(()), None, length=1)[1].sum()
        one = [md.grad(loss, (0, 1))(row, y) for row in x]
        want = [md.stack([g for g, _ in one]).numpy(), md.stack([h for _, h in one]).sum(0).numpy()]
        for way in (md.grad(lanes, (0, 1)), md.jit(md.grad(lanes, (0, 1))), md.grad(md.jit(lanes), (0, 1)), md.jit(md.grad(looped, (0, 1)))):
            for got, wanted in zip(way(x, y), want, strict=True):
                np.testing.assert_allclose(got.numpy(), wanted, rtol=1e-5)
        each = md.vmap(md.grad(loss), in_axes=(0, None))
        np.testing.assert_allclose(each(x, y).numpy(), want[0], rtol=1e-5)
    finally:
        del md.extend.table["of_two_rules"]


@pytest.fixture(scope="module")
def iterate():
    """n times a body, x → x, that reads other tensors: a loop with derivatives of its own, which keeps no state but the first."""

    def run(xp, x, *more, body, n):
        for _ in range(n):
            call = lambda p, ins, params: getattr(xp, p.name)(*ins, **params)
            (x,) = body.run(call, [x, *more], lambda c: xp.full(shape=(), value=c.value, dtype=c.dtype))
        return (x,)

    def derive(operands, live, params):
        body, n = params["body"], params["n"]

        def states(x, more):
            return [x] + [x := body(x, *more)[0] for _ in range(n)]

        def vjp(ins, outs, cts):
            asked.append(outs is None)
            back = ex.vjp_graph(body, [True] * len(ins), [True])
            g, *sums = [*cts, *(md.zeros_like(v) for v in ins[1:])]
            for x in states(ins[0], ins[1:])[-2::-1]:
                g, *found = back(x, *ins[1:], g)
                sums = [a + b for a, b in zip(sums, found, strict=True)]
            return [g, *sums]

        def jvp(ins, tangents):
            x, *more = ins
            ts = [md.zeros_like(v) if t is None else t for v, t in zip(ins, tangents, strict=True)]
            both = ex.jvp_graph(body, [True] * len(ins), [True])
            for _ in range(n):
                x, ts[0] = both(x, *more, *ts)
            return ts[:1]

        return operands, params, vjp, jvp

    def batch(primitive, call, size, xs, batched, params):
        wide, _ = ex.batched_graph(params["body"], size, [True, *batched[1:]], [True])
        x = xs[0] if batched[0] else md.broadcast_to(xs[0], (size, *xs[0].shape))
        return step(x, *xs[1:], *wide.captured, body=wide, n=params["n"])

    asked = []
    infer = lambda x, *more, body, n: (((x.shape, x.dtype)),)
    primitive = ex.Primitive("iterate", "*operands", "body n", infer=infer, batch=batch, decompose=run, multiple=True, promote="none")
    step = ex.define(primitive, derive=derive)

    def iterate(f, n, x):
        body = ex.Body(f, [(x.shape, x.dtype)])
        return step(x, *body.read, body=body.graph, n=n)[0]

    yield iterate, asked
    del ex.table["iterate"]


def test_a_primitive_that_carries_a_graph_has_the_derivative_that_it_brings(iterate, backend):
    iterate, asked = iterate
    w, x, t = (md.tensor(v, dtype=md.float64) for v in (0.7, [0.4, 0.9], [1.0, -2.0]))
    own = lambda w, x: iterate(lambda v: md.sin(v * w) * 1.5, 3, x)

    def plain(w, x):
        for _ in range(3):
            x = md.sin(x * w) * 1.5
        return x

    gradient = lambda f: md.grad(lambda w, x: f(w, x).sum(), (0, 1))
    ways = {
        "value": lambda f: f(w, x),
        "grad": lambda f: gradient(f)(w, x),
        "second": lambda f: md.grad(lambda w, x: sum(v.sum() for v in gradient(f)(w, x)), (0, 1))(w, x),
        "jvp": lambda f: md.jvp(f, (w, x), (w, t)),
        "jvp of grad": lambda f: md.jvp(gradient(f), (w, x), (w, t)),
        "vmap of grad": lambda f: md.vmap(gradient(f), in_axes=(None, 0))(w, x[:, None]),
        "grad of vmap": lambda f: gradient(md.vmap(f, in_axes=(0, None)))(x, t),
        "in a scan": lambda f: md.grad(lambda w: md.scan(lambda c, v: (f(w, c) + v, ()), x, t)[0].sum())(w),
    }
    everything = lambda f: md.tree.leaves([way(f) for way in ways.values()])
    runs = [lambda f: md.jit(lambda: everything(f))(), *[everything] * (backend in ("numpy", "torch"))]
    for run in runs:
        del asked[:]
        for a, b in zip(run(own), runs[0](plain), strict=True):
            np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-12, atol=1e-12)
        assert {*asked} == {False, True}  # raw, and on Tensors where it is differentiated in turn


@pytest.fixture(scope="module")
def times_ramp():
    """x times 0, 1, 2, whose batching rule makes an array."""
    ramp = np.arange(3.0)
    counted = lambda xp: xp.iota(size=3, dtype=md.float64)
    rule = lambda xp, g: xp.mul(g, counted(xp))
    batch = lambda primitive, call, size, xs, batched, params: call("mul", xs[0], md.asarray(ramp))
    primitive = ex.Primitive(
        "times_ramp", "x", infer=lambda x: (x.shape, x.dtype), batch=batch, vjps=(rule,), jvps=(rule,),
        decompose=lambda xp, x: xp.mul(x, counted(xp)),
    )  # fmt: skip
    yield ex.define(primitive)
    del ex.table["times_ramp"]


_MAPPED = {
    "scan": lambda f: lambda x: md.scan(lambda c, y: (f(c) + y, c), x, md.ones((2, 3), dtype=md.float64))[0],
    "while": lambda f: lambda x: md.while_loop(lambda v: f(v).sum() < 12.0, lambda v: f(v) + 1.0, x),
    "branch": lambda f: lambda x: md.cond(md.tensor(2) > 1, lambda v: v, f, md.sin(x)) + md.cond(x.sum() > 3.0, f, lambda v: v * v, x),
    "rule": lambda f: lambda x: f(x),
}


@pytest.mark.parametrize("ruled", [False, True], ids=["primitive", "custom"])
@pytest.mark.parametrize("inside", _MAPPED)
@pytest.mark.parametrize("backend", ["numpy", "torch"])
def test_arrays_that_batching_rules_make_reach_mapped_loops_branches_and_rules(times_ramp, inside, ruled, backend):
    f = times_ramp
    if ruled:
        f = md.custom_vjp(times_ramp)
        f.defvjp(lambda x: (times_ramp(x), x), lambda x, g: (times_ramp(g) * md.cos(x),))
    with md.use_backend(backend):
        xs = md.asarray(np.linspace(0.1, 2.0, 12).reshape(2, 2, 3))
        g = _MAPPED[inside](f)
        looped = lambda x: md.stack([g(x[0]), g(x[1])])
        ways = [
            lambda h: lambda xs: h(xs[0]),
            lambda h: lambda xs: md.vmap(h)(xs),
            lambda h: lambda xs: md.vmap(md.grad(lambda x: (h(x) * x).sum()))(xs),
            lambda h: md.grad(lambda xs: (md.vmap(h)(xs) * xs).sum()),
            lambda h: md.grad(lambda xs: (md.scan(lambda c, _: (h(c), ()), xs[0], None, length=2)[0] * xs).sum()),
        ]
        for way in ways:
            want = way(looped)(xs).numpy()
            for run in (way(md.vmap(g)), md.jit(way(md.vmap(g)))):
                np.testing.assert_allclose(run(xs).numpy(), want, rtol=1e-13)


def test_a_graph_runs_where_its_operands_are():
    for name in (name for name, there in md.backends().items() if there is True):
        x = md.ones(2, backend=name)
        graph = md.trace(lambda x: md.fori_loop(0, 2, lambda i, v: v * 3.0 + 1.0, x) - 2.0)(x)
        assert graph(x)[0].backend == name and graph(x)[0].tolist() == [11.0, 11.0]


def test_a_graph_on_tensors_computes_in_the_dtypes_that_it_shows(on_numpy):
    """Under autocast, too, also where a loop's derivative runs its body."""
    w = md.ones((2, 2)) * 0.3001
    with md.autocast(dtype=md.float16):
        def step(c, _):
            with md.autocast(enabled=False):
                return md.tanh(c @ w), ()

        f = lambda x: md.scan(step, x, None, length=2)[0].sum()
        found = md.jit(md.grad(f))(md.ones((1, 2)))
    np.testing.assert_array_equal(found.numpy(), md.grad(f)(md.ones((1, 2))).numpy())


def test_a_rule_for_no_primitive_is_refused_by_name():
    with pytest.raises(ValueError, match="rule: there is no primitive 'sine'; md.extend.table lists them"):
        md.extend.rule("sin", "sine")(lambda b, e: None)
