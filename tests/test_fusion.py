"""Fused regions: what they contain, that they run in order, that layouts suffice to compute them row by row, and what decompositions keep."""

import math

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

import minidl as md
from minidl.backends.numpy_backend import make
from minidl.dtypes import complex128, float16, float32, float64
from minidl.fusion import Region, default_elementwise, regions, spread
from minidl.graph import Equation, Graph, Literal, Var
from minidl.lowering import _unchanged, expand, multiplied
from minidl.nn import functional as F
from minidl.primitives.core import table
from minidl.rewrites.regions.on_numpy import recompute

xp = make()
COMBINE = {"sum": np.add, "max": np.maximum, "min": np.minimum}


def call(name, args, params):
    with np.errstate(all="ignore"):
        out = getattr(xp, name)(*args, **params)
    return out if table[name].multiple else (out,)


def read(env, a):
    return xp.scalar(a.value, a.dtype) if isinstance(a, Literal) else env[a]


def by_rows(region, env):
    """A region computed from its layouts alone, one index of the first axis at a time."""
    n, layout = region.shape[0], region.layout
    inputs = {v: np.asarray(env[v]).reshape(region.view(v)) for v in region.inputs}
    results, carry = {v: np.empty(region.view(v), v.dtype.numpy) for v in region.outputs}, {}

    def row(v, x, i):
        return x[i : i + 1] if layout[v][0] else x

    for i in range(n):
        here = {v: row(v, x, i) for v, x in inputs.items()}
        for e in region.equations:
            name, (out,) = e.primitive.name, e.outputs
            view = row(out, np.empty(region.view(out)), i).shape
            if name in ("full", "iota"):
                here[out] = row(out, call(name, (), e.params)[0].reshape(region.view(out)), i)
            elif name in COMBINE:
                flags = zip(layout[e.inputs[0]], layout[out], region.shape, strict=True)
                axes = tuple(a for a, (f, g, size) in enumerate(flags) if (f and not g) or (size == 1 and a == 0 and out in region.terminal))
                here[out] = call(name, [here[e.inputs[0]]], {"axis": axes, "keepdims": True})[0]
                if out in region.terminal:
                    carry[out] = here[out] = COMBINE[name](carry[out], here[out]) if out in carry and not layout[out][0] else here[out]
            else:
                args = [read(here, a) for a in e.inputs]
                here[out] = np.broadcast_to(args[0] if name in ("reshape", "broadcast_to") else call(name, args, e.params)[0], view)
        for v in region.outputs:
            results[v][(slice(i, i + 1),) if layout[v][0] else ...] = here[v]
    return {v: results[v].reshape(v.shape) for v in region.outputs}


def run(items, graph, args, compute):
    env = dict(zip(graph.inputs, args, strict=True))
    for item in items:
        if isinstance(item, Region):
            env.update(compute(item, env))
        else:
            env.update(zip(item.outputs, call(item.primitive.name, [read(env, a) for a in item.inputs], item.params), strict=True))
    return [read(env, a) for a in graph.outputs]


def whole(region, env):
    inner = region.graph()
    return dict(zip(inner.outputs, run(inner.equations, inner, [env[v] for v in inner.inputs], None), strict=True))


def traced(f, *shapes):
    rng = np.random.default_rng(0)
    args = [rng.normal(size=s).astype(np.float32) if isinstance(s, tuple) else s for s in shapes]
    return md.trace(f)(*map(md.asarray, args)), args


def names(items):
    return [[e.primitive.name for e in i.equations] if isinstance(i, Region) else i.primitive.name for i in items]


def same(a, b):
    for x, y in zip(a, b, strict=True):
        np.testing.assert_array_equal(x, y)


def close(a, b):
    for x, y in zip(a, b, strict=True):
        np.testing.assert_allclose(x, y, rtol=2e-5, atol=2e-5)


def gelu_ln(x, w, b):
    return F.gelu(F.layer_norm(x, (x.shape[-1],), w, b), approximate="tanh")


def cross_entropy(x, y):
    return md.value_and_grad(F.cross_entropy)(x, y)


def adamw(p, g, m, v):
    m, v = m + (g - m) * 0.1, v * 0.99 + g * g * 0.01
    return p * 0.99 - m / (md.sqrt(v) + 1e-8) * 0.001, m, v


def backward(x, w, b, g):
    return md.vjp(lambda x, w, b: F.layer_norm(x, (x.shape[-1],), w, b), x, w, b)[1](g)


WHOLE = [  # programs that must be one region, but for so many equations outside
    (gelu_ln, ((6, 16), (16,), (16,)), 0),
    (adamw, ((40,),) * 4, 0),
    (lambda x: F.softmax(x, -1), ((6, 16),), 0),
    (lambda x: md.logsumexp(x, axis=-1), ((6, 16),), 0),
    (lambda x: md.exp(x) / md.sum(md.exp(x), axis=(1, 2), keepdims=True), ((6, 4, 8),), 0),
    (lambda x, b: (md.relu(x + b), md.sum(x + b, axis=0)), ((6, 16), (16,)), 0),
    (lambda x: md.mean(md.square(x - md.mean(x, axis=1)[:, None]), axis=1) * 2.0, ((6, 16),), 0),
    (cross_entropy, ((6, 16), np.arange(6)), 12),
    (backward, ((6, 16), (16,), (16,), (6, 16)), 0),
]


@pytest.mark.parametrize(("f", "shapes", "outside"), WHOLE)
def test_one_region_computes_it(f, shapes, outside):
    graph, args = traced(f, *shapes)
    graph = expand(graph)
    items = regions(graph)
    big = [i for i in items if isinstance(i, Region) and math.prod(i.shape) > 6]
    assert len(big) == 1 and len(items) - 1 <= outside, names(items)
    want = run(graph.equations, graph, args, None)
    same(run(items, graph, args, whole), want)
    close(run(items, graph, args, by_rows), want)


def test_kinds():
    graph, _ = traced(gelu_ln, (6, 16), (16,), (16,))
    (region,) = regions(expand(graph))
    assert (region.shape, region.rows, [region.kind(v) for v in region.inputs]) == ((6, 16), 1, ["FULL", "INNER", "INNER"])
    assert [region.kind(e.outputs[0]) for e in region.equations[:2]] == ["ROW", "ROW"] and region.kind(Literal(1.0, float32)) == "SCALAR"


def test_a_path_that_leaves_ends_the_region():
    graph, args = traced(lambda x, w: md.exp(x) + md.matmul(md.sin(md.exp(x)), w), (6, 6), (6, 6))
    items = regions(graph)
    assert names(items) == [["exp", "sin"], "dot_general", "add"]
    same(run(items, graph, args, whole), run(graph.equations, graph, args, None))


def test_a_total_is_accumulated_and_its_readers_stay_outside():
    graph, _ = traced(lambda x: md.exp(x) / md.sum(md.exp(x)), (6, 16))
    assert names(regions(graph)) == [["exp", "sum"], "div"]


def test_square_shapes_are_not_confused():
    graph, args = traced(lambda x, b: (x - md.sum(x, axis=1) - b, x * md.sum(x, axis=1)[:, None]), (8, 8), (8,))
    items = regions(graph)
    for compute in (whole, by_rows):
        close(run(items, graph, args, compute), run(graph.equations, graph, args, None))


def test_cheap_values_are_made_where_they_are_read():
    def f(x, y, i):
        numbers = md.arange(16)
        return md.where(i == numbers, x, 0.0), md.where(i < numbers, md.matmul(x, y), 0.0)

    graph, args = traced(f, (16, 16), (16, 16), np.arange(16)[:, None])
    items = regions(graph)
    assert sum("iota" in n for n in names(items) if isinstance(n, list)) == 2
    same(run(items, graph, args, whole), run(graph.equations, graph, args, None))


def test_a_constant_does_not_undo_what_a_row_is():
    x, square = Var((4, 5, 6), float32), Var((4, 5, 6), float32)
    high, low, quarter, total = Var((4,), float32), Var((4, 5, 6), float32), Var((), float32), Var((5, 6), float32)
    axes = {"axis": (1, 2), "keepdims": False}
    equations = [
        Equation(table["square"], (x,), {}, (square,)),
        Equation(table["max"], (square,), axes, (high,)),
        Equation(table["full"], (), {"shape": (), "value": 0.25, "dtype": float32}, (quarter,)),
        Equation(table["sub"], (quarter, square), {}, (low,)),
        Equation(table["sum"], (low,), {"axis": (0,), "keepdims": False}, (total,)),
    ]
    (region,) = regions(Graph([x], equations, [high, total]))
    assert region.rows == 1 and region.terminal == {total}


def test_long_chains_take_linear_time_and_are_cut():
    x = v = Var((64,), float32)
    equations = []
    for _ in range(2000):
        w = Var((64,), float32)
        equations.append(Equation(table["sin"], (v,), {}, (w,)))
        v = w
    items = regions(Graph([x], equations, [v]), most=100)
    assert [len(i.equations) for i in items] == [100] * 20


def test_spread():
    assert spread((), (2, 3)) == (False, False) and spread((1, 3), (1, 3)) == (True, True) and spread((2, 3, 4), (3, 4)) is None


# ---- random graphs --------------------------------------------------------------------------------------------------------------------------
@st.composite
def graphs(draw):
    """Elementwise equations, reductions with and without kept axes, broadcasts, reshapes, products and constants over a few related shapes."""
    n, m = draw(st.sampled_from([(4, 6), (4, 4), (1, 5), (3, 1)]))
    full = draw(st.sampled_from([(n, m), (2, n, m)]))
    inputs = [Var(s, float64) for s in (full, full, (m,), (*full[:-1], 1), full[:-1], ())]
    values, equations = list(inputs), []

    def add(name, args, params):
        primitive = table[name]
        shape, dtype = primitive.infer(*args, **params)
        out = Var(tuple(shape), dtype)
        equations.append(Equation(primitive, tuple(args), params, (out,)))
        values.append(out)

    for _ in range(draw(st.integers(1, 24))):
        x = draw(st.sampled_from(values))
        kind = draw(st.sampled_from(["unary", "binary", "binary", "binary", "reduce", "reduce", "reshape", "broadcast", "constant", "product"]))
        if kind == "unary":
            add(draw(st.sampled_from(["neg", "sin", "tanh", "square"])), [x], {})
        elif kind == "binary":
            fits = [v for v in values if spread(v.shape, x.shape) is not None or spread(x.shape, v.shape) is not None]
            y = draw(st.sampled_from([*fits, Literal(0.5, float64)]))
            add(draw(st.sampled_from(["add", "sub", "mul", "maximum"])), draw(st.permutations([x, y])), {})
        elif kind == "reduce" and x.shape:
            axis = draw(st.sampled_from([(len(x.shape) - 1,), tuple(range(1, len(x.shape))), (0,), tuple(range(len(x.shape)))]))
            add(draw(st.sampled_from(["sum", "max"])), [x], {"axis": axis, "keepdims": draw(st.booleans())})
        elif kind == "reshape":
            size = math.prod(x.shape)
            add("reshape", [x], {"shape": draw(st.sampled_from([(*x.shape, 1), (1, *x.shape), (size,), tuple(s for s in x.shape if s != 1)]))})
        elif kind == "broadcast" and spread(x.shape, full) is not None:
            add("broadcast_to", [x], {"shape": full})
        elif kind == "constant":
            add("full", [], {"shape": x.shape, "value": 0.25, "dtype": float64})
        elif kind == "product" and len(x.shape) == 2 and x.shape[0] == x.shape[1]:
            add("dot_general", [x, x], {"contract": ((1,), (0,)), "batch": ((), ())})
    outputs = draw(st.lists(st.sampled_from(values), min_size=1, max_size=4))
    rng = np.random.default_rng(draw(st.integers(0, 9)))
    return Graph(inputs, equations, outputs), [np.asarray(rng.uniform(-1, 1, v.shape)) for v in inputs]


@given(graphs())
def test_regions_in_order_compute_the_graph(case):
    graph, args = case
    items = regions(graph)
    done = set(graph.inputs)
    for item in items:
        assert done.issuperset(a for a in item.inputs if isinstance(a, Var))
        done.update(item.outputs)
    with np.errstate(all="ignore"):
        want = run(graph.equations, graph, args, None)
        same(run(items, graph, args, whole), want)
        for a, b in zip(run(items, graph, args, by_rows), want, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)
        again = recompute(items, graph, default_elementwise)
        same(run(again, graph, args, whole), want)
        for a, b in zip(run(again, graph, args, by_rows), want, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)


def between(items):
    """Bytes that each region hands to later ones."""
    return sum(v.nbytes for i in items if isinstance(i, Region) for v in i.outputs)


def peak(items, graph):
    """The most bytes alive at once: values live from the item that makes them to the last one that reads them."""
    end, last, most = len(items), {}, 0
    for n, item in enumerate(items):
        last.update((v, n) for v in (*item.inputs, *item.outputs))
    last.update((v, end) for v in graph.outputs)
    alive = set()
    for n, item in enumerate(items):
        alive.update(v for v in item.outputs)
        most = max(most, sum(v.nbytes for v in alive))
        alive = {v for v in alive if last[v] > n}
    return most


def gated(x, w):
    def loss(x, w):
        h = md.matmul(x, w)
        return md.sum(md.square(md.matmul(h * (md.tanh(h * 0.8 + h * h * h * 0.04) + 1.0) * 0.5, w)))

    return md.grad(loss, argnums=(0, 1))(x, w)


def test_elementwise_values_are_made_again_from_one_that_is_kept():
    graph, args = traced(gated, (16, 16), (16, 16))
    graph = expand(graph)
    items = regions(graph)
    again = recompute(items, graph, default_elementwise)
    same(run(again, graph, args, whole), run(graph.equations, graph, args, None))
    assert between(items) > 4 * 1024 and between(again) <= 3 * 1024  # the factor, the gradient of square and that of h
    count = sum(len(i.equations) for i in items if isinstance(i, Region))
    assert count < sum(len(i.equations) for i in again if isinstance(i, Region)) <= 2 * count


def test_a_region_makes_again_what_a_product_beside_it_reads():
    """The gradient of a weight reads what a layer normalisation gave; the region of its backward pass, which has nearly all of it, gives it again."""

    def f(x, w, v):
        def loss(x, w, v):
            y = x
            for _ in range(3):
                y = F.layer_norm(md.matmul(F.gelu(md.matmul(F.layer_norm(y, (16,)), w), approximate="tanh"), v), (16,))
            return md.sum(y * y)

        return md.grad(loss, argnums=(0, 1, 2))(x, w, v)

    graph, args = traced(f, (16, 16), (16, 64), (64, 16))
    graph = expand(graph)
    items = regions(graph, most=24)
    again = recompute(items, graph, default_elementwise)
    same(run(again, graph, args, whole), run(graph.equations, graph, args, None))

    assert peak(again, graph) <= 0.65 * peak(items, graph)


def test_reductions_and_what_is_kept_anyway_are_not_computed_twice():
    def f(x, w):
        h = md.matmul(x, w)
        p = md.exp(h - md.max(h, axis=1, keepdims=True))
        p = p / md.sum(p, axis=1, keepdims=True)
        return md.matmul(p, w) * p, h

    graph, _ = traced(f, (16, 16), (16, 16))
    items = regions(graph)
    assert names(recompute(items, graph, default_elementwise)) == names(items)


# ---- decompositions -------------------------------------------------------------------------------------------------------------------------
POINTS = [0.5, -2.0, 0.0, -0.0, 1e30, -1e30, math.inf, -math.inf, math.nan]


@pytest.mark.parametrize("dtype", [float64, float32, float16], ids=str)
@pytest.mark.parametrize(("name", "params"), [
    ("softmax", {"axis": 1}), ("log_softmax", {"axis": 1}), ("logsumexp", {"axis": (1,), "keepdims": False}),
    ("logsumexp", {"axis": (0, 1), "keepdims": True}),
])  # fmt: skip
def test_decompositions_keep_values(name, params, dtype):
    with np.errstate(all="ignore"):
        x = np.array([[a, b, c] for a in POINTS for b in POINTS for c in POINTS]).astype(dtype.numpy)
    v = Var(x.shape, dtype)
    shape, _ = table[name].infer(v, **params)
    out = Var(tuple(shape), dtype)
    graph = expand(Graph([v], [Equation(table[name], (v,), params, (out,))], [out]))
    assert name not in {e.primitive.name for e in graph.equations} and graph.check()
    np.testing.assert_array_equal(run(graph.equations, graph, [x], None)[0], call(name, [x], params)[0])
    assert expand(graph) is graph


@pytest.mark.parametrize(("name", "value", "dtype", "same"), [
    ("mul", 1.0, float64, True), ("mul", 2.0, float64, False), ("div", 1.0, float64, False), ("div", 1j, complex128, False),
    ("mul", 1j, complex128, False), ("mul", 1 + 0j, complex128, False), ("sub", 0.0, float64, True), ("add", 0.0, float64, False),
])  # fmt: skip
def test_a_neutral_real_constant_gives_its_operand_back(name, value, dtype, same):
    x, c, out = Var((2,), float64), Var((2,), dtype), Var((2,), float64)
    assert _unchanged(Equation(table[name], (x, Literal(value, dtype)), {}, (out,)), {}) is (x if same else None)
    assert _unchanged(Equation(table[name], (x, c), {}, (out,)), {c: value}) is (x if same else None)


def test_what_a_backend_keeps_stays_whole():
    graph, _ = traced(lambda x: F.softmax(x, -1), (6, 16))
    assert expand(graph, keep=("softmax",)) is graph


def test_no_equation_is_lost_where_regions_wait_for_each_other():
    """The second derivative of a complex SVD: joining looks back only so far for paths, and what comes out as a circle is taken apart."""
    from minidl.testing.checks import study
    from minidl.testing.domains import ROWS

    graph = study(next(r for r in ROWS if str(r) == "svd-3x2"), "complex128").traced
    made = set(graph.inputs)
    for item in regions(graph, most=24):
        for e in item.equations if isinstance(item, Region) else (item,):
            made.update(e.outputs)
    assert {v for e in graph.equations for v in e.outputs if e.inputs} <= made


# ---- products that add nothing up ---------------------------------------------------------------------------------------------------------
PRODUCTS = [  # shapes, contract, batch: a gradient of one example, axes in another order, no axis to add over, two of size one, several free axes
    ((5, 1, 4), (5, 1, 3), ((1,), (1,)), ((0,), (0,))),
    ((4, 5, 1), (1, 3, 5), ((2,), (0,)), ((1,), (2,))),
    ((4,), (3,), ((), ()), ((), ())),
    ((1, 4, 1), (1, 1, 3), ((0, 2), (1, 0)), ((), ())),
    ((2, 1, 3, 2), (4, 2, 1), ((1,), (2,)), ((3,), (1,))),
]


@pytest.mark.parametrize(("left", "right", "contract", "batch"), PRODUCTS)
@pytest.mark.parametrize("dtype", [md.float32, md.float16, md.int32])
def test_products_that_add_nothing_up_are_multiplications(left, right, contract, batch, dtype):
    rng = np.random.default_rng(0)
    x, y = (rng.choice([0.0, -0.0, 1.0, -3.0, 2.5], s).astype(dtype.numpy) for s in (left, right))
    inputs = Var(left, dtype), Var(right, dtype)
    shape, _ = table["dot_general"].infer(*inputs, contract=contract, batch=batch)
    graph = Graph(inputs, [Equation(table["dot_general"], inputs, {"contract": contract, "batch": batch}, (out := Var(shape, dtype),))], [out])
    after = multiplied(graph, 0)
    after.check()
    assert {e.primitive.name for e in after.equations} <= {"reshape", "permute", "mul", "add"}
    (a,), (b,) = (xp.callable(g)(x, y) for g in (graph, after))
    assert a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    assert multiplied(graph, out.nbytes + 1) is graph


def test_products_that_add_something_up_or_are_complex_stay():
    for dtype, n in ((md.complex64, 1), (md.float32, 2)):
        x, y, z = Var((3, n), dtype), Var((n, 4), dtype), Var((3, 4), dtype)
        graph = Graph([x, y], [Equation(table["dot_general"], (x, y), {"contract": ((1,), (0,)), "batch": ((), ())}, (z,))], [z])
        assert multiplied(graph, 0) is graph


def test_gradients_of_single_examples_are_the_eager_ones(backend):
    f = md.vmap(md.grad(lambda w, x: md.tanh(x[None] @ w).sum()), in_axes=(None, 0))
    w, x = md.tensor(np.linspace(-1, 1, 24 * 32, dtype=np.float32).reshape(24, 32)), md.tensor(np.ones((40, 24), np.float32))
    np.testing.assert_allclose(md.jit(f)(w, x).numpy(), f(w, x).numpy(), rtol=2e-6, atol=1e-6)
