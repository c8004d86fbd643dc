"""NumPy programs in blocks: the same values whatever the block size, no aliasing, and memory that is used again only when nobody can see it."""

import importlib
import inspect
import threading

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import minidl as md
from minidl.backends import get
from minidl.backends.numpy_helpers import select
from minidl.dtypes import bfloat16, float16, float32
from minidl.graph import Graph, Literal
from tests.test_fusion import WHOLE, graphs, traced

xp = get("numpy")
blocks = importlib.import_module("minidl.rewrites.loops.on_numpy")
memory = importlib.import_module("minidl.backends.numpy_memory")
SIZES = [(64, 16), (200, 48), (1 << 12, 1 << 10)]  # bytes: blocks of one row, blocks that do not divide the rows, everything in one


@pytest.fixture
def small(monkeypatch, request):
    """Blocks of a few elements, and pooled memory for arrays of any size, in which what nobody wrote is easily told."""

    def empty(shape, dtype, nbytes):
        out = memory.empty(shape, dtype, nbytes)
        out.reshape(-1).view(np.uint8)[...] = 0x5B
        return out

    backend = importlib.import_module("minidl.backends.numpy_backend")
    monkeypatch.setattr(memory, "LEAST", 0)
    monkeypatch.setattr(backend, "LEAST", 0)
    for module in (backend, blocks):
        monkeypatch.setattr(module, "empty", empty)

    def choose(block, least):
        monkeypatch.setattr(blocks, "BLOCK", block)
        monkeypatch.setattr(blocks, "LEAST", least)

    return choose


def interpreted(graph, args):
    with np.errstate(all="ignore"):
        return graph.run(lambda p, inputs, params: getattr(xp, p.name)(*inputs, **params), args, lambda a: xp.scalar(a.value, a.dtype))


def fresh(graph):
    """The graph without what was compiled for other sizes."""
    return Graph(graph.inputs, graph.equations, graph.outputs)


def check(graph, args, rtol=1e-9):
    kept, want = [a.copy() for a in args], interpreted(graph, args)
    run = xp.compile(fresh(graph))
    got = run(*args)
    for a, k in zip(args, kept, strict=True):
        np.testing.assert_array_equal(a, k)
    for i, (g, w) in enumerate(zip(got, want, strict=True)):
        np.testing.assert_allclose(g, w, rtol=rtol, atol=rtol)
        assert g.shape == w.shape and g.dtype == w.dtype
        assert not any(np.shares_memory(g, other) for other in [*args, *got[:i]])
    before = [np.array(g) for g in got]
    run(*(a + 1 for a in args))  # a later call leaves earlier results alone
    for g, b in zip(got, before, strict=True):
        np.testing.assert_array_equal(g, b)
    return run


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("case", range(len(WHOLE)))
def test_known_programs_in_blocks(small, case, size):
    small(*size)
    f, shapes, _ = WHOLE[case]
    graph, args = traced(f, *shapes)
    source = inspect.getsource(check(graph, args, 1e-5))
    assert ("for i0" in source) == (size[0] < 4096)


@pytest.mark.parametrize("size", SIZES[:2], ids=str)
def test_random_programs_in_blocks(small, size):
    small(*size)

    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None)
    @given(graphs())
    def run(case):
        check(*case)

    run()


def _stored(x, index, value):
    y = md.asarray(x, copy=True)
    y[index] = value
    return y


#: Flags, choices that seldom hold, integers, parts and writes, which the graphs of tests/test_fusion.py have none of.
STEPS = (
    lambda x, y: md.where(x > 3.0, y, x), lambda x, y: md.where(x > 0.1, y * 2.0, 0.0), lambda x, y: x - 0.01 * md.sum(y, axis=1, keepdims=True),
    lambda x, y: md.maximum(x, 0.5 * md.max(y, axis=0, keepdims=True)), lambda x, y: md.astype((x > 0.0) & (y < 1.0), md.float64) + y,
    lambda x, y: md.astype(md.astype(md.clip(x, -9.0, 9.0) * 4.0, md.int8) + 3, md.float64) * 0.1 + y, lambda x, y: md.flip(x, axis=1) * y,
    lambda x, y: md.concat([x[1:], y[:1]]), lambda x, y: md.exp(-md.abs(x)) - y, lambda x, y: md.softmax(x, axis=1) * y,
    lambda x, y: _stored(x, (slice(None), 7), y[:, 3]), lambda x, y: _stored(x, slice(5, 300, 40), y[0]), lambda x, y: x.at[3:9].add(y[:6]),
    lambda x, y: md.pad(x[:, 2:], ((0, 0), (0, 2)), value=1.5) + y, lambda x, y: md.sqrt(md.abs(x)) * 0.5 + y, lambda x, y: -x,
)  # fmt: skip


def test_random_programs_with_writes_and_choices_in_blocks(small):
    small(1 << 19, 1 << 16)
    x = np.random.default_rng(0).normal(size=(600, 64))

    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None)
    @given(st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 3), st.integers(0, 3)), min_size=2, max_size=10))
    def run(steps):
        def f(x, y):
            made = [x, y]
            for step, i, k in steps:
                made.append(step(made[-1 - i % len(made)], made[-1 - k % len(made)]))
            return made[-1], made[-2], md.sum(made[-1], axis=0), made[len(made) // 2]

        given_ = md.asarray(x), md.asarray(x[::-1])
        want, compiled = [o.numpy() for o in f(*given_)], md.jit(f)
        for _ in range(2):
            for got, expected in zip(compiled(*given_), want, strict=True):
                np.testing.assert_allclose(got.numpy(), expected, rtol=1e-10, atol=1e-10)
        assert given_[0].tolist() == x.tolist()

    run()


@pytest.mark.parametrize("dtype", [float16, bfloat16], ids=str)
def test_half_precision_totals_are_rounded_once(small, dtype):
    small(*SIZES[0])
    x = np.full((512, 4), 1.25).astype(dtype.numpy)
    graph = md.trace(lambda x: (md.sum(md.square(x), axis=0), md.sum(md.square(x)), md.softmax(x, axis=1)))(md.asarray(x))
    check(graph, [x], 0)


def test_a_dead_input_of_a_loop_gives_its_memory(small):
    small(*SIZES[0])
    graph = md.trace(lambda x, w: md.tanh(md.matmul(x, w)) * 2.0)(md.ones((16, 16)), md.ones((16, 16)))
    run = check(graph, [np.ones((16, 16), np.float32)] * 2)
    assert "    d = c\n" in inspect.getsource(run)


@pytest.mark.parametrize("number", [0.5, -3.0, -np.inf, np.inf, np.nan], ids=str)
@pytest.mark.parametrize("high", [np.inf, 2.0], ids=str)
def test_bounds_hold_in_every_block_whatever_else_is_in_it(small, number, high):
    small(*SIZES[0])
    x = np.random.default_rng(0).uniform(0.0, 1.0, (64, 8)).astype(np.float32)
    x[9, 3] = number
    x[9, 5] = -2.0 if number != number else x[9, 5]  # beside a nan
    graph = md.trace(lambda x: md.clip(x * 2.0, -1.0, high) + 1.0)(md.asarray(x))
    assert "clip_into" in inspect.getsource(check(graph, [x], 0))


@pytest.mark.parametrize("late", [False, True])
def test_a_value_lies_where_an_output_will_unless_what_is_there_is_read_later(small, late):
    small(*SIZES[0])

    def f(p, g):
        scaled = g * 0.5
        return (scaled * (p - g),) if late else (p * 0.5 + g,)

    x, y = np.random.default_rng(0).normal(size=(2, 64, 64)).astype(np.float32)
    graph = md.trace(f)(md.asarray(x), md.asarray(y))
    want = [np.array(v) for v in xp.compile(graph)(x, y)]
    run = xp.compile(graph, donate=(0,))
    for got, exact in zip(run(x.copy(), y.copy()), want, strict=True):
        np.testing.assert_array_equal(got, exact)
    assert "for i0" in inspect.getsource(run) and ("t0 = " in inspect.getsource(run)) is late


@pytest.mark.parametrize("donated", [0, 1, 2])
@pytest.mark.parametrize("f", [lambda c, x, y: md.where(c, x & y, y), lambda c, x, y: ~md.where(c, x & y, y)], ids=["made there", "made before"])
def test_a_condition_that_dies_is_not_written_over_by_its_choice(small, donated, f):
    """Where it seldom holds, the choice is written while it is read."""
    small(1 << 16, 1 << 14)
    args = [a < 0.01 + k / 4 for k, a in enumerate(np.random.default_rng(0).random((3, 1024, 64)))]
    graph = md.trace(f)(*map(md.asarray, args))
    run = xp.compile(graph, donate=(donated,))
    assert "for i0" in inspect.getsource(run)
    np.testing.assert_array_equal(run(*(a.copy() for a in args))[0], interpreted(graph, args)[0])


#: What is no sum over rows that are counted once: reductions that nothing adds up block by block, and of what is the same in every row.
ACROSS = {
    "prod": lambda x, v: (y := md.exp(x * 0.1), md.prod(y, axis=0)), "any": lambda x, v: (x * 2.0, md.any(x * 2.0 > 5.0, axis=0)),
    "argmax": lambda x, v: (y := x * 2.0, md.argmax(y, axis=0)), "logsumexp": lambda x, v: (y := x * 2.0, md.logsumexp(y, axis=0)),
    "sum of a row": lambda x, v: (x + (w := md.exp(v)), md.sum(w)), "sum of [1, n]": lambda x, v: (x + (w := md.exp(v)[None]), md.sum(w, axis=0)),
    "sum of a column": lambda x, v: (x * (w := md.sum(x, axis=1, keepdims=True)), md.sum(w)),
    "max of a number": lambda x, v: (x * (w := md.sum(v)), md.max(w)),
    "softmax over rows": lambda x, v: md.softmax(x * 2.0, axis=0) + v, "log_softmax over rows": lambda x, v: md.log_softmax(x * 2.0, axis=0) * v,
    "softmax of a vector": lambda x, v: md.softmax(md.reshape(x * 2.0, (-1,))) * 2.0,
    "softmax of sums": lambda x, v: md.softmax(md.sum(md.reshape(x * 2.0, (61, 4, 4)), axis=2)) * 2.0,
}  # fmt: skip


@pytest.mark.parametrize("case", ACROSS)
def test_what_is_not_added_up_from_row_to_row(small, case):
    small(*SIZES[1])
    args = [a.astype(np.float32) for a in (np.random.default_rng(0).normal(size=(61, 16)), np.random.default_rng(1).normal(size=16))]
    check(md.trace(ACROSS[case])(*map(md.asarray, args)), args, 1e-5)


@pytest.mark.parametrize("several", [False, True])
def test_a_gradient_that_only_its_update_reads_is_made_row_by_row(several):
    rng = np.random.default_rng(0)
    w, x, g = (rng.normal(size=s).astype(np.float32) for s in ((1024, 1024), (8, 1024), (8, 1024)))

    def f(w, x, g):
        slope = x.T @ g
        return w - slope * 0.1, *([slope] if several else [])

    run = xp.compile(md.trace(f)(*map(md.asarray, (w, x, g))))
    assert ("_by_" in inspect.getsource(run)) is not several
    np.testing.assert_allclose(run(w, x, g)[0], w - (x.T @ g) * np.float32(0.1), rtol=1e-5, atol=1e-5)


def test_a_loop_without_buffers_may_end_in_a_part_of_a_block(small):
    small(*SIZES[1])
    graph = md.trace(lambda x: md.exp(x * 2.0))(md.ones((61, 16)))
    source = inspect.getsource(check(graph, [np.random.default_rng(0).normal(size=(61, 16)).astype(np.float32)]))
    assert "for i0" in source and "t0" not in source


def test_what_shows_other_values_may_be_a_result_of_a_loop(small):
    small(*SIZES[1])
    f = lambda x: (y := md.exp(x * 2.0), y.reshape(61, 1, 16), md.broadcast_to(md.sum(y, axis=1, keepdims=True), (61, 16)))
    check(md.trace(f)(md.ones((61, 16))), [np.random.default_rng(0).normal(size=(61, 16)).astype(np.float32)], 1e-5)


def test_where_a_condition_seldom_holds():
    rng = np.random.default_rng(0)
    for share in (0, 0.001, 0.5, 1):
        c, x, y = rng.random((80, 80)) < share, *rng.normal(size=(2, 80, 80)).astype(np.float32)
        x[0], y[1] = np.nan, -0.0
        want = np.where(c, x, y)
        for out in (np.empty_like(x), x.copy(), y.copy()):
            np.testing.assert_array_equal(select(c, x, y, out).view(np.int32), want.view(np.int32))
        for a, b in ((np.float32(0), y), (x, np.float32(0)), (x, np.float32(-0.0)), (np.float32(2), np.float32(0))):
            a, b = np.asarray(a), np.asarray(b)
            np.testing.assert_array_equal(select(c, a, b, np.empty_like(x)).view(np.int32), np.where(c, a, b).view(np.int32))
        same = x.copy()
        np.testing.assert_array_equal(select(c, same, y, same), want)
        same = x.copy()
        np.testing.assert_array_equal(select(c, same[:], y, same[:]), want)


@pytest.mark.parametrize("dtype", [md.float32, md.float64])
def test_a_choice_that_seldom_holds_is_made_in_blocks_over_the_operand_that_dies(dtype):
    def f(x, v):
        y = md.asarray(x, copy=True)
        y[:, 7] = v
        return y, md.sqrt(md.abs(y + y))

    x = md.asarray(np.random.default_rng(0).normal(size=(700, 700)), dtype=dtype)
    for got, want in zip(md.jit(f)(x, x[:, 3]), f(x, x[:, 3]), strict=True):
        assert got.tolist() == want.tolist()


def test_a_loop_that_makes_flags_leaves_the_name_of_their_dtype_alone():
    def f(x):
        return (x > 0.5) & (x < 0.7), md.pad(md.ones((1, 700), dtype=md.bool), ((0, 699), (0, 0))) | (md.sin(x) > 0.1)

    x = md.asarray(np.random.default_rng(0).normal(size=(700, 700)))
    for got, want in zip(md.jit(f)(x), f(x), strict=True):
        assert got.tolist() == want.tolist()


def test_sums_in_blocks_are_as_accurate_as_numpys():
    x = np.random.default_rng(0).normal(size=(1 << 21,)).astype(np.float32).reshape(2048, 1024)
    graph = md.trace(lambda x: (md.sum(md.square(x)), md.sum(md.square(x), axis=0), md.sum(md.square(x * 0.5), axis=1)))(md.asarray(x))
    run = xp.compile(graph)
    assert "for i0" in inspect.getsource(run) and "vecdot" in inspect.getsource(run)
    for got, axis, factor in zip(run(x), (None, 0, 1), (1, 1, 0.25), strict=True):
        exact = factor * np.square(x.astype(np.float64)).sum(axis=axis)
        mine, numpys = (np.abs(s - exact).mean() for s in (got, np.float32(factor) * np.square(x).sum(axis=axis)))
        assert mine <= numpys * 1.05, (axis, mine, numpys)


@pytest.mark.parametrize("columns", [640, 2048])
def test_sums_of_rows_are_dot_products_as_accurate_as_numpys_and_leave_its_buffers_alone(columns):
    x = np.random.default_rng(0).random((1024, columns)).astype(np.float32)
    run = xp.compile(md.trace(lambda x: x - md.sum(x, axis=1, keepdims=True))(md.asarray(x)))
    assert "ones" in inspect.getsource(run) and "setbufsize" in inspect.getsource(run)
    before, (got,) = np.getbufsize(), run(x)
    assert np.getbufsize() == before
    exact = x.astype(np.float64).sum(axis=1, keepdims=True)
    mine, numpys = (np.abs(y - (x - exact)).mean() for y in (got, x - x.sum(axis=1, keepdims=True)))
    assert mine <= numpys * 1.05, (mine, numpys)
    np.testing.assert_allclose(run(np.asfortranarray(x))[0], got, rtol=1e-5)


# ---- memory ---------------------------------------------------------------------------------------------------------------------------------
def test_memory_is_used_again_only_when_nothing_shows_it():
    f4, n = np.dtype(np.float32), 1 << 19
    memory.trim()
    a = memory.empty((n // 4,), f4, n)
    at = a.ctypes.data
    assert at % 64 == 0
    view = a.reshape(8, -1)[2:3]
    del a
    b = memory.empty((n // 4,), f4, n)
    assert b.ctypes.data != at
    lent = memoryview(b)
    del view, b
    c = memory.empty((2, n // 8), f4, n)
    assert c.ctypes.data == at and c.shape == (2, n // 8)
    assert not np.shares_memory(c, np.asarray(lent))
    d = np.from_dlpack(c)
    del c
    assert not np.shares_memory(memory.empty((n // 4,), f4, n), d)


def test_idle_memory_is_bounded_and_can_be_given_back(monkeypatch):
    memory.trim()
    monkeypatch.setattr(memory, "IDLE", 4 << 20)
    f1 = np.dtype(np.uint8)
    for n in range(1 << 20, (1 << 20) + 20):
        memory.empty((n,), f1, n)
    assert memory.trim(1 << 30) <= 5 << 20
    assert memory.trim() == 0


def test_trim_takes_no_more_than_it_is_asked_for_and_nothing_that_is_in_use():
    memory.trim()
    n, f1 = 1 << 20, np.dtype(np.uint8)
    lent, at = memory.empty((n,), f1, n), set()
    for size in (n, 2 * n):  # idle, as soon as it is made
        at.add(memory.empty((size,), f1, size).ctypes.data)
    assert memory.trim(3 * n) == 3 * n and memory.trim(3 * n - 1) == 2 * n and memory.trim(1 << 30) == 2 * n
    assert memory.empty((2 * n,), f1, 2 * n).ctypes.data in at
    assert memory.trim() == 0
    place = lent.ctypes.data
    del lent
    assert memory.trim(1 << 30) == n and memory.empty((n,), f1, n).ctypes.data == place
    assert memory.trim() == 0 and not memory._blocks


def test_threads_share_no_memory():
    failures = []
    graph = md.trace(lambda x: md.tanh(x) * 2.0 + md.sum(x, axis=1, keepdims=True))(md.ones((512, 512)))
    run = xp.compile(graph)

    def work(k):
        try:
            x = np.full((512, 512), float(k), np.float32)
            want = np.tanh(np.float32(k)) * np.float32(2) + np.float32(512 * k)
            for _ in range(20):
                np.testing.assert_allclose(run(x)[0], want, rtol=1e-6)
        except BaseException as e:  # a thread's exception would be lost otherwise
            failures.append(e)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not failures


def test_a_constant_operand_in_a_loop(small):
    small(*SIZES[0])
    graph = md.trace(lambda x: md.where(x > 0, 1.0, 0.0) + md.sum(md.ones((6, 16)), axis=1, keepdims=True) * x)(md.ones((6, 16)))
    check(graph, [np.random.default_rng(0).normal(size=(6, 16)).astype(np.float32)])
    assert Literal(1.0, float32).shape == ()


@pytest.mark.parametrize("name", ["empty", "float32", "bool", "range", "vecdot", "where_into", "setbufsize", "del_", "np"])
def test_a_function_may_be_called_as_something_that_its_program_calls(name):
    def f(x, y):
        z = md.exp(-md.abs(x)) * 2.0 + y
        w = md.softmax(z, axis=1) + md.sum(z, axis=1, keepdims=True)
        mask = (z > 0.5) & (w < 900.0)
        return w, mask, md.where(mask, z, 0.0), md.pad(md.ones((1, 700), dtype=md.bool), ((0, 3), (0, 0)))

    x, y = map(md.asarray, np.random.default_rng(0).normal(size=(2, 700, 600)).astype(np.float32))
    want = f(x, y[0])
    f.__name__ = name
    for got, expected in zip(md.jit(f)(x, y[0]), want, strict=True):
        np.testing.assert_allclose(got.numpy(), expected.numpy(), rtol=1e-5)
