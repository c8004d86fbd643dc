"""What is numba's alone: sharing and caching of kernels, fused loops, memory reuse, arguments of every layout, programs that call NumPy."""

from __future__ import annotations

import functools
import gc
import importlib
import inspect
import itertools
import os
import subprocess
import sys
import textwrap
import threading
import types
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings

numba = pytest.importorskip("numba")

from test_fusion import graphs  # noqa: E402

import minidl as md  # noqa: E402
from minidl import dtypes  # noqa: E402
from minidl.arrays.windows import on_numba as numba_windows  # noqa: E402
from minidl.backends import get, numba_backend, numba_emit, numba_kernels, numba_lower, numba_plan  # noqa: E402
from minidl.backends.numba_backend import NumbaBackend  # noqa: E402
from minidl.graph import Equation, Graph, Literal, Var  # noqa: E402
from minidl.primitives.core import Primitive, table  # noqa: E402
from minidl.rewrites.threads import on_numba as numba_threads  # noqa: E402

f32 = dtypes.float32


@pytest.fixture
def backend():
    return get("numba")


def graph_of(build, *shapes, dtype=f32):
    """A graph from a function of (op, *variables); op(name, *atoms, **params) adds an equation."""
    equations = []

    def op(name, *atoms, **params):
        primitive = table[name]
        inferred = primitive.infer(*atoms, **params)
        outs = tuple(Var(*i) for i in (inferred if primitive.multiple else (inferred,)))
        equations.append(Equation(primitive, atoms, params, outs))
        return outs if primitive.multiple else outs[0]

    inputs = [Var(s, dtype) for s in shapes]
    out = build(op, *inputs)
    return Graph(inputs, equations, out if isinstance(out, tuple) else (out,))


def chain(op, x, y):
    z = op("exp", op("mul", x, y))
    return op("sub", op("tanh", z), op("where", op("gt", y, Literal(0.0, f32)), z, x)), op("add", z, Literal(2.0, f32))


def test_nearly_every_primitive_has_kernels(backend):
    known = set(numba_lower.LOWER) | {n for t in numba_emit._TABLES.values() for n in t} | set(numba_emit.ELEMENTWISE) | {"cast", "root"}
    missing = {name for name, primitive in table.items() if name not in known and primitive.decompose is None}
    assert len(missing | set(numba_lower.object_mode)) <= 0.05 * len(table), missing
    assert not set(numba_lower.object_mode) & set(numba_lower.LOWER)


def test_a_fused_group_is_one_loop_and_gives_the_bits_of_its_equations(backend, monkeypatch):
    rng = np.random.default_rng(0)
    args = rng.normal(size=(8, 9)).astype(np.float32), rng.normal(size=(9,)).astype(np.float32)
    single = backend.compile(graph_of(chain, (8, 9), (9,)))
    monkeypatch.setattr(backend, "fuse_least", 1)
    fused = backend.compile(graph_of(chain, (8, 9), (9,)))
    assert [line.count("loop(") for line in fused.listing] == [1, 1]  # `y > 0` has a shape of its own
    assert len(single.listing) == 7
    for a, b in zip(single(*args), fused(*args), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("dtype", [dtypes.float16, dtypes.bfloat16])
def test_fused_half_precision_rounds_after_every_operation(backend, monkeypatch, dtype):
    def build(op, x, y):
        return op("sub", op("mul", op("add", x, y), y), x)

    rng = np.random.default_rng(1)
    x, y = (rng.normal(size=500).astype(dtype.numpy) for _ in range(2))
    monkeypatch.setattr(backend, "fuse_least", 1)
    (got,) = backend.compile(graph_of(build, (500,), (500,), dtype=dtype))(x, y)
    np.testing.assert_array_equal(got.view(np.uint16), ((x + y) * y - x).view(np.uint16))


def test_groups_close_before_a_reader_outside(backend, monkeypatch):
    def build(op, x):
        e = op("exp", x)
        total = op("sum", e, axis=(1,), keepdims=True)
        return op("div", e, total), op("permute", op("neg", e), axes=(1, 0))

    monkeypatch.setattr(backend, "fuse_least", 1)
    x = np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4)
    p, q = backend.compile(graph_of(build, (3, 4)))(x)
    np.testing.assert_allclose(p, np.exp(x) / np.exp(x).sum(1, keepdims=True), rtol=1e-6)
    np.testing.assert_allclose(q, -np.exp(x).T, rtol=1e-6)


def test_kernels_are_shared_between_shapes_and_programs(backend):
    def build(op, x, y):
        return op("sum", op("add", op("mul", x, y), x), axis=(0,), keepdims=False)

    backend.compile(graph_of(build, (5, 7), (7,)))
    before = len(numba_kernels._kernels)
    backend.compile(graph_of(build, (11, 3), (3,)))
    backend.compile(graph_of(lambda op, x, y: op("add", op("mul", x, y), x), (2, 4, 3), (3,)))
    assert len(numba_kernels._kernels) == before


def test_kernels_go_with_the_programs_that_use_them(backend):
    sources = [f"def k(a):\n    as_ptr(a[0], np.int64)[0] = {n}\n" for n in range(3)]
    few = functools.lru_cache(2)(numba_kernels.compiled.__wrapped__)
    kernel = functools.partial(few, compiler=numba.cfunc, signature=numba_kernels._SIGNATURE)
    mine = kernel(sources[0])
    kernel(sources[1])
    kernel(sources[2])
    assert kernel(sources[0]) is mine  # which the cache had given up
    del mine
    kernel(sources[1])
    kernel(sources[2])
    gc.collect()
    assert sources[0] not in numba_kernels._kernels and {*sources[1:]} <= {*numba_kernels._kernels}
    assert not [name for name in sys.modules if name.startswith("md_")]
    x = np.arange(6, dtype=np.float32)
    program = backend.compile(graph_of(lambda op, x: op("tanh", op("exp", x)), (6,)))
    numba_kernels.compiled.cache_clear()
    gc.collect()
    np.testing.assert_allclose(program(x)[0], np.tanh(np.exp(x)), rtol=1e-6)  # its kernels are its own


def test_memory_of_dead_values_is_reused(backend):
    def build(op, x):
        for _ in range(50):
            x = op("neg", x)
        return x

    program = backend.compile(graph_of(build, (1000,)))
    assert program.plan.arena <= 3 * 4096
    np.testing.assert_array_equal(program(np.arange(1000, dtype=np.float32))[0], np.arange(1000))


def test_results_share_no_memory(backend):
    def build(op, x):
        y = op("exp", x)
        return x, y, y, op("reshape", y, shape=(4,)), Literal(3.0, f32), op("slice", y, start=(0, 0), stop=(1, 2), step=(1, 1))

    x = np.zeros((2, 2), np.float32)
    out = backend.compile(graph_of(build, (2, 2)))(x)
    for i, a in enumerate(out):
        for b in (x, *out[:i]):
            assert not np.shares_memory(a, b)
    assert [o.shape for o in out] == [(2, 2), (2, 2), (2, 2), (4,), (), (1, 2)]
    assert out[4] == 3


def test_a_result_that_is_the_start_of_a_value_has_room_for_it(backend):
    """A kernel that made the whole value in the memory of a smaller result would write behind its end."""

    def build(op, x):
        return op("slice", op("cumsum", x, axis=1, reverse=False), start=(0, 0), stop=(1, 3), step=(1, 1))

    program = backend.compile(graph_of(build, (2, 3)))
    around = []

    def empty(shape, dtype):
        around.append(np.full(100, 7, dtype))
        return around[-1][: np.prod(shape)].reshape(shape)

    program.__globals__["empty"] = empty
    np.testing.assert_array_equal(program(np.ones((2, 3), np.float32))[0], [[1, 2, 3]])
    assert len(around) == 1 and (around[0][3:] == 7).all()


def test_arguments_of_every_layout(backend):
    program = backend.compile(graph_of(lambda op, x, s: op("mul", x, s), (3, 4), ()))
    x = np.arange(12, dtype=np.float32).reshape(3, 4)
    frozen = x.copy()
    frozen.flags.writeable = False
    wide = np.zeros((3, 8), np.float32)
    wide[:, ::2] = x
    shifted = np.frombuffer(b"\0" + x.tobytes(), np.uint8)[1:].view(np.float32).reshape(3, 4)
    for a in (x, np.asfortranarray(x), frozen, wide[:, ::2], shifted):
        np.testing.assert_array_equal(program(a, np.float32(2))[0], x * 2)
    np.testing.assert_array_equal(program(x[::-1], np.array(2, np.float32))[0], x[::-1] * 2)
    with pytest.raises(TypeError, match=r"got float64\[3, 4\], wanted float32\[3, 4\]"):
        program(x.astype(np.float64), np.float32(2))
    with pytest.raises(TypeError, match="wanted"):
        program(x[:2], np.float32(2))


def test_the_slow_way_to_addresses_gives_the_same(backend, monkeypatch):
    monkeypatch.setattr(numba_backend, "_layout_is_known", lambda: False)
    program = backend.compile(graph_of(chain, (3, 5), (5,)))
    assert "addresses" in inspect.getsource(program)
    args = np.full((3, 5), 0.5, np.float32), np.ones(5, np.float32)
    np.testing.assert_allclose(program(*args)[1], np.exp(np.float32(0.5)) + np.full((3, 5), 2), rtol=1e-6)


def test_sums_are_at_least_as_accurate_as_numpys(backend):
    rng = np.random.default_rng(2)
    for dtype in (np.float32, np.float64):
        d = dtypes.from_numpy(np.dtype(dtype))
        program = backend.compile(graph_of(lambda op, x: op("sum", x, axis=(1,), keepdims=False), (20, 50000), dtype=d))
        x = rng.uniform(size=(20, 50000)).astype(dtype)
        exact = x.astype(np.longdouble).sum(1)
        assert np.abs(program(x)[0] - exact).max() <= np.abs(x.sum(1) - exact).max()


def test_a_donated_input_is_overwritten_where_that_is_safe(backend):
    def build(op, p, g, q):
        step = op("sub", p, op("mul", g, Literal(0.1, f32)))
        return step, op("sum", op("sub", q, op("max", q, axis=(1,), keepdims=True)), axis=(0,), keepdims=False), op("neg", q)

    graph = graph_of(build, (80, 90), (80, 90), (80, 90))
    plain, donating = backend.compile(graph), backend.compile(graph, (0, 2))
    rng = np.random.default_rng(6)
    args = [rng.normal(size=(80, 90)).astype(np.float32) for _ in range(3)]
    kept = [a.copy() for a in args]
    want = plain(*args)
    for a, b in zip(args, kept, strict=True):
        np.testing.assert_array_equal(a, b)
    got = donating(*args)
    for a, b in zip(got, want, strict=True):
        np.testing.assert_array_equal(a, b)
    assert got[0] is args[0]
    np.testing.assert_array_equal(args[1], kept[1])
    whole = np.stack(kept)  # a part of something larger: others may see it
    for a, b in zip(donating(*whole), want, strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(whole, kept)


@pytest.mark.parametrize("lanes", [1, 3])
def test_sums_of_float64_carry_their_rounding_errors(backend, monkeypatch, lanes):
    """From block to block, from row to row, and from thread to thread."""
    monkeypatch.setattr(numba_threads, "threads", lambda: lanes)
    monkeypatch.setattr(numba_plan.Plan, "share", 1e-9)
    x = np.zeros((3, 2048))
    x[0, 0], x[1, 3], x[1, 600], x[2, 1], x[2, 700] = -2e16, 1e16, 1.0, 1e16, 1.0

    total, rows = (
        backend.compile(graph_of(lambda op, x, axis=axis: op("sum", x, axis=axis, keepdims=False), (3, 2048), dtype=dtypes.float64))
        for axis in ((0, 1), (1,))
    )
    assert total(x)[0] == total(x[::-1].copy())[0] == 2.0
    x[1:, -1] = -1e16
    (rows,) = rows(x)
    np.testing.assert_array_equal(rows, [-2e16, 1.0, 1.0])
    x[2, 5] = np.inf
    assert total(x)[0] == np.inf


def test_what_is_computed_again_reads_what_it_read_before(backend):
    """A block of sines with an argument too large for them is done twice: so its results may not lie where its arguments do."""
    x = np.linspace(0, 3, 5000, dtype=np.float32)
    x[100] = 1e9
    graph = graph_of(lambda op, x: op("sin", x), (5000,))
    (want,) = backend.compile(graph)(x)
    np.testing.assert_allclose(want, np.sin(x), rtol=1e-6, atol=1e-7)
    np.testing.assert_array_equal(backend.compile(graph, (0,))(x)[0], want)
    rows = np.tile(x[:2100], (3, 1))  # nor may a sum see it twice
    added = graph_of(lambda op, x: op("sum", op("sin", x), axis=(0,), keepdims=False), rows.shape)
    np.testing.assert_allclose(backend.compile(added)(rows)[0], 3 * np.sin(rows[0]), rtol=1e-5, atol=1e-6)


def test_long_rows_are_sorted_stably_and_nan_comes_last(backend):
    x = np.random.default_rng(12).integers(-9, 9, size=(3, 150)).astype(np.float32)
    x[0, 70], x[0, 7], x[1, 3], x[2, 1] = np.nan, -np.nan, -0.0, np.inf
    for descending in (False, True):
        (got,) = backend.compile(graph_of(lambda op, x, d=descending: op("argsort", x, axis=1, descending=d), x.shape))(x)
        np.testing.assert_array_equal(got, get("numpy").argsort(x, axis=1, descending=descending))


def test_reductions_over_axes_of_one_element(backend, monkeypatch):
    def build(op, x):
        y = op("mul", x, Literal(0.5, f32))
        every = [op(n, y, axis=(1,), keepdims=True) for n in ("sum", "prod", "max", "min")]
        return (*every, op("any", op("gt", y, x), axis=(1,), keepdims=True), op("sub", every[0], op("mul", every[1], every[2])))

    monkeypatch.setattr(backend, "fuse_least", 1)
    x = np.random.default_rng(9).normal(size=(50, 1)).astype(np.float32)
    x[3] = 0
    y = x * np.float32(0.5)
    for got, want in zip(backend.compile(graph_of(build, (50, 1)))(x), (y, y, y, y, y > x, y - y * y), strict=True):
        np.testing.assert_array_equal(got, want)


def test_what_is_donated_is_written_over_by_one_result_and_by_nothing_else(backend):
    graph = graph_of(lambda op, x: (op("neg", x),) * 2, (70, 70))
    x = np.ones((70, 70), np.float32)
    a, b = backend.compile(graph, (0,))(x)
    assert not np.shares_memory(a, b)
    np.testing.assert_array_equal(a, b)

    def between(op, x, y):
        return op("dot_general", op("exp", x), y, contract=((1,), (0,)), batch=((), ()))

    whole = np.ones((2, 70, 70), np.float32)  # others may see it
    backend.compile(graph_of(between, (70, 70), (70, 3)), (0,))(whole[0], np.ones((70, 3), np.float32))
    np.testing.assert_array_equal(whole, 1)


def test_many_products_over_nothing_are_zeros(backend):
    graph = graph_of(lambda op, x, y: op("dot_general", x, y, contract=((2,), (1,)), batch=((0,), (0,))), (40, 2, 0), (40, 0, 3))
    np.testing.assert_array_equal(backend.compile(graph)(np.ones((40, 2, 0), np.float32), np.ones((40, 0, 3), np.float32))[0], np.zeros((40, 2, 3)))


def test_products_the_other_way_round_in_every_layout(backend):
    m, n, k = 16, 512, 64
    rng = np.random.default_rng(11)
    for cx in (0, 1):
        for cy in (0, 1):
            shapes = (m, k) if cx else (k, m), (k, n) if not cy else (n, k)
            x, y = (rng.normal(size=s).astype(np.float32) for s in shapes)
            graph = graph_of(lambda op, x, y, cx=cx, cy=cy: op("dot_general", x, y, contract=((cx,), (cy,)), batch=((), ())), *shapes)
            np.testing.assert_allclose(backend.compile(graph)(x, y)[0], (x if cx else x.T) @ (y.T if cy else y), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_totals_of_what_is_one_number_a_row(backend, dtype):
    def build(op, x, y):
        total = op("sum", op("mul", x, y), axis=(1,), keepdims=True)
        scaled = op("mul", op("exp", x), total)
        both = op("sum", op("neg", total), axis=(0, 1), keepdims=False), op("max", total, axis=(0,), keepdims=False)
        return *both, op("sum", scaled, axis=(0,), keepdims=False), op("sum", scaled, axis=(0, 1), keepdims=False)

    rng = np.random.default_rng(5)
    x, y = (rng.normal(size=(70, 90)).astype(dtype) for _ in range(2))
    total, scaled = (x * y).sum(1), np.exp(x) * (x * y).sum(1, keepdims=True)
    got = backend.compile(graph_of(build, (70, 90), (70, 90), dtype=dtypes.from_numpy(np.dtype(dtype))))(x, y)
    for a, b in zip(got, (-total.sum(), total.max(keepdims=True), scaled.sum(0), scaled.sum()), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-3)


@pytest.mark.parametrize("lanes", [1, 3])
@pytest.mark.parametrize("shown", [False, True])
def test_costly_operations_behind_costly_ones_run_in_passes_of_their_own(backend, monkeypatch, lanes, shown):
    def build(op, x, y):
        centred = op("sub", x, op("max", x, axis=(1,), keepdims=True))
        first = op("mul", op("add", op("mul", op("exp", centred), y), y), centred)
        second = op("sin", op("tanh", first))
        last = op("add", op("exp", op("mul", second, op("square", y))), second)
        return (last, op("sum", last, axis=(0,), keepdims=False), *((first, second) if shown else ()))

    rng = np.random.default_rng(6)
    args = rng.normal(size=(7, 613)).astype(np.float32), rng.normal(size=(7, 613)).astype(np.float32)
    args[0][2, 5], args[1][3, 7] = np.nan, np.inf
    single = backend.compile(graph_of(build, *[(7, 613)] * 2))(*args)
    monkeypatch.setattr(backend, "fuse_least", 1)
    monkeypatch.setattr(numba_threads, "threads", lambda: lanes)
    monkeypatch.setattr(numba_plan.Plan, "share", 1e-9)
    fused = backend.compile(graph_of(build, *[(7, 613)] * 2))
    assert len(fused.listing) == 1
    for a, b in zip(fused(*args), single, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5) if a.ndim == 1 else np.testing.assert_array_equal(a, b)


def test_threads_do_not_share_one_row(backend, monkeypatch):
    """Whose largest element and sum are read before those of another thread's part are there: where all is one row, one thread makes it."""
    x = np.random.default_rng(8).normal(size=(1, 613))
    graph = md.trace(lambda x: (md.softmax(x, axis=1), (x - x.sum(axis=1, keepdims=True)).sum()))(md.tensor(x, backend="numpy"))
    monkeypatch.setattr(numba_threads, "threads", lambda: 3)
    monkeypatch.setattr(numba_plan.Plan, "share", 1e-9)
    monkeypatch.setattr(backend, "fuse_least", 1)
    got, total = backend.compile(graph)(x)
    e = np.exp(x - x.max())
    np.testing.assert_allclose(got, e / e.sum(), rtol=1e-12)
    np.testing.assert_allclose(total, (x - x.sum()).sum(), rtol=1e-12)


@pytest.mark.parametrize("lanes", [1, 3])
@given(case=graphs())
@settings(max_examples=15)
def test_regions_of_any_graph_give_what_its_equations_give(lanes, case):
    graph, args = case
    backend = NumbaBackend()
    want = Graph(graph.inputs, graph.equations, graph.outputs)
    backend.fuse_least = 1 << 60
    single = backend.compile(want)(*args)
    backend.fuse_least = 2
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(numba_threads, "threads", lambda: lanes)
        patch.setattr(numba_plan.Plan, "share", 1e-9)
        patch.setattr(numba_plan, "_LARGE", 1)
        for module in (numba_plan, numba_backend):  # scratch memory may lie where results will
            patch.setattr(module, "LEAST", 1)
        fused = backend.compile(graph)
    first = fused(*args)
    fused(*(a + 1 for a in args))
    for a, b in zip(first, single, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)


def test_threads_follow_the_environment(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    monkeypatch.delenv("NUMBA_NUM_THREADS", raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert numba_threads.threads() == 3
    monkeypatch.setenv("NUMBA_NUM_THREADS", "2")
    assert numba_threads.threads() == 2
    monkeypatch.setattr(numba_threads, "crew", lambda: None)
    assert numba_threads.threads() == 1


def test_a_long_compilation_says_how_far_it_is(capsys, monkeypatch):
    clock = iter(range(0, 1000, 3))
    monkeypatch.setattr(numba_kernels.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(numba_kernels, "kernel", lambda source: 7)
    assert numba_kernels.kernels(["a", "b", "c", "d"]) == [7] * 4
    assert "kernel 2 of 4" in capsys.readouterr().err
    monkeypatch.setattr(numba_kernels.time, "monotonic", lambda: 0)
    numba_kernels.kernels(["a", "b"])
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("lanes", [1, 3])
@pytest.mark.parametrize("poisoned", [False, True])
@pytest.mark.parametrize(("padding", "kernel"), [(((0, 0), (0, 0)), (5, 5)), (((1, 1), (2, 0)), (3, 3)), (((0, 1), (1, 1)), (2, 4))])
def test_direct_convolution_gives_what_columns_give(backend, monkeypatch, padding, kernel, poisoned, lanes):
    monkeypatch.setattr(numba_windows, "LEAST", 1)
    monkeypatch.setattr(numba_plan.Plan, "share", 1.0)
    monkeypatch.setattr(numba_threads, "threads", lambda: lanes)
    rng, params = np.random.default_rng(7), {"stride": (1, 1), "padding": padding, "dilation": (1, 1), "groups": 1}
    x, w = rng.normal(size=(3, 4, 9, 11)), rng.normal(size=(6, 4, *kernel))
    o = rng.normal(size=get("numpy").conv(x, w, **params).shape)
    for name, args, extra in (("conv", (x, w), {}), ("conv_dx", (o, w), {"x_shape": x.shape}), ("conv_dw", (x, o), {"w_shape": w.shape})):
        args = [a.copy() for a in args]
        if poisoned:  # must not spread through zeros that only fill a plane
            args[0].flat[-1], args[1].flat[0] = np.inf, np.nan
        shapes = [a.shape for a in args]
        program = backend.compile(graph_of(lambda op, *v, n=name, e=extra: op(n, *v, **e, **params), *shapes, dtype=dtypes.float64))
        assert any("scratch" in source or source == numba_threads.DIVIDE for source, _ in program.plan.calls)
        assert any(source == numba_threads.DIVIDE for source, _ in program.plan.calls) is (lanes > 1)
        np.testing.assert_allclose(program(*args)[0], getattr(get("numpy"), name)(*args, **extra, **params), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("told", [True, False])
def test_threads_are_the_programs_or_those_of_blas(backend, monkeypatch, told):
    """Which would spin for a tenth of a second on the processors that the program's own need: it has one thread meanwhile, or they have all."""
    monkeypatch.setattr(numba_threads, "threads", lambda: 2)
    had, was = [7], []
    monkeypatch.setattr(numba_threads, "blas", lambda: ((lambda: had[-1]), had.append) if told else None)
    run = numba_backend.machine()
    monkeypatch.setattr(numba_backend, "machine", lambda: lambda *args: (was.append(had[-1]), run(*args)))
    params = {"contract": ((1,), (1,)), "batch": ((), ())}

    def program(m, n):
        def f(op, x, y):
            return op("sin", op("dot_general", x, y, **params)), op("dot_general", x, y, contract=((0,), (0,)), batch=((), ()))

        made = backend.compile(graph_of(f, (m, n), (m, n)))
        rng = np.random.default_rng(9)
        x, y = (rng.normal(size=(m, n)).astype(np.float32) for _ in range(2))
        for got, want in zip(made(x, y), (np.sin(x @ y.T), x.T @ y), strict=True):
            np.testing.assert_allclose(got, want, atol=2e-3)
        return [args for source, args in made.plan.calls if source == numba_threads.DIVIDE]

    assert program(720, 1), "no product for which BLAS starts threads"
    assert had == [7]
    assert [args[3] for args in program(1024, 16)] == ([2, 16] if told else []), "the product in two parts, the sines in more, smaller ones"
    assert had == ([7, 1, 7] if told else [7])
    assert was == [7, 1 if told else 7]
    if told:  # in a child of a process where one ran
        had[:], numba_threads._inside[:] = [1], [1, 7]
        numba_threads._afresh()
        assert had == [1, 7]
        assert not numba_threads._inside


def test_blas_has_one_thread_for_the_products_of_a_body_too(backend, monkeypatch):
    """Also for those of what is decomposed there, as attention is."""
    monkeypatch.setattr(numba_threads, "threads", lambda: 2)
    monkeypatch.setattr(numba_threads, "blas", lambda: (int, int))
    attend = lambda h, _: (md.scaled_dot_product_attention(h, h, h), None)
    for n, alone in ((128, True), (8, False)):
        graph = md.trace(lambda h: md.scan(attend, h, None, length=2)[0])(md.ones((2, n, 64)))
        assert backend.compile(graph).plan.alone is alone


@pytest.mark.parametrize("lanes", [1, 2, 3])
@pytest.mark.parametrize("dtype", [f32, dtypes.float64, dtypes.complex64])
def test_products_in_pieces_are_the_product(backend, monkeypatch, lanes, dtype):
    monkeypatch.setattr(numba_threads, "threads", lambda: lanes)
    monkeypatch.setattr(numba_plan.Plan, "share", 1e-9)
    monkeypatch.setattr(numba_threads, "_DIRECT", 1 << 10)
    monkeypatch.setattr(numba_threads, "openblas", lambda: "SkylakeX")
    rng, seen = np.random.default_rng(3), set()
    for m, n, k in ((32, 48, 16), (48, 5, 9), (7, 96, 12), (5, 7, 3), (64, 64, 8)):
        for tx, ty in itertools.product((False, True), repeat=2):
            x, y = (rng.normal(size=s) for s in ((k, m) if tx else (m, k), (n, k) if ty else (k, n)))
            x, y = ((v + 1j * v[::-1]).astype(dtype.numpy) if dtype.is_complex else v.astype(dtype.numpy) for v in (x, y))
            params = {"contract": ((1 - tx,), (int(ty),)), "batch": ((), ())}
            program = backend.compile(graph_of(lambda op, a, b, p=params: op("dot_general", a, b, **p), x.shape, y.shape, dtype=dtype))
            np.testing.assert_allclose(program(x, y)[0], (x.T if tx else x) @ (y.T if ty else y), rtol=2e-4, atol=2e-4)
            divided = [args for source, args in program.plan.calls if source == numba_threads.DIVIDE]
            seen.update((tx, ty, "columns" if args[13] == 0 else "rows") for args in divided)
    assert len(seen) == (0 if lanes == 1 else 8)


@pytest.mark.parametrize("lanes", [1, 3])
def test_pooling_on_several_threads_gives_what_numpy_gives(backend, monkeypatch, lanes):
    monkeypatch.setattr(numba_plan.Plan, "share", 1.0)
    monkeypatch.setattr(numba_threads, "threads", lambda: lanes)
    params = {"window": (2, 3), "stride": (2, 3), "padding": ((0, 0), (0, 0)), "dilation": (1, 1)}
    x = np.random.default_rng(8).normal(size=(2, 5, 9, 11))

    def f(op, x):
        (y, i) = op("max_pool", x, **params)
        return y, op("pool_gather", x, i, **params), op("pool_scatter", y, i, x_shape=(2, 5, 9, 11), **params)

    program = backend.compile(graph_of(f, x.shape, dtype=dtypes.float64))
    assert sum(source == numba_threads.DIVIDE for source, _ in program.plan.calls) == (3 if lanes > 1 else 0)
    xp = get("numpy")
    y, i = xp.max_pool(x, **params)
    for got, want in zip(program(x), (y, xp.pool_gather(x, i, **params), xp.pool_scatter(y, i, x_shape=x.shape, **params)), strict=True):
        np.testing.assert_array_equal(got, want)


def exactly(name, x):
    """The function in more digits than are asked for: NumPy's extended precision, mpmath for erf."""
    if name != "erf":
        return getattr(np, name)(x)
    mpmath = pytest.importorskip("mpmath")
    tiny = np.where(np.abs(x) < 1e-9, x, 0) * (2 / np.sqrt(np.pi, dtype=x.dtype))
    usual = np.where((np.abs(x) >= 1e-9) & (np.abs(x) < 6.5), x, 0)
    with mpmath.workprec(80):
        inner = np.array([x.dtype.type(str(mpmath.erf(mpmath.mpf(str(v))))) if v else 0 for v in usual], x.dtype)
    return np.where(np.isnan(x), x, np.where(np.abs(x) >= 6.5, np.sign(x), np.where(np.abs(x) < 1e-9, tiny, inner)))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", ["exp", "log", "tanh", "expm1", "log1p", "sin", "cos", "erf"])
def test_vector_functions_are_within_two_ulp_everywhere(backend, name, dtype):
    rng = np.random.default_rng(4)
    size = np.finfo(dtype)
    any_bits = rng.integers(0, 2**63, 40000, dtype=np.uint64).view(np.float64)
    with np.errstate(all="ignore"):
        spread = np.concatenate([any_bits, -any_bits, rng.normal(size=40000), rng.uniform(-800, 800, 40000), 1 + 1e-3 * rng.normal(size=10000)])
        edges = [0.0, -0.0, np.inf, -np.inf, np.nan, size.tiny, size.smallest_subnormal, size.max, 1.0, 88.72, 709.78, -103.9, -745.1]
        x = np.concatenate([spread, edges]).astype(dtype)
        wide = np.longdouble if dtype is np.float64 else np.float64
        exact = exactly(name, x.astype(wide))
        (got,) = backend.compile(graph_of(lambda op, v: op(name, v), x.shape, dtype=dtypes.from_numpy(np.dtype(dtype))))(x)
        rounded = exact.astype(dtype)
        same = (got == rounded) & (np.signbit(got) == np.signbit(rounded)) | (np.isnan(got) & np.isnan(rounded))
        error = np.abs(got.astype(wide) - exact) / np.spacing(np.abs(rounded)).astype(wide)
    assert np.isfinite(error[~same]).all()
    assert error[~same].max(initial=0) <= 2
    assert same[x == 0].all()


_EDGES = {
    "float32": ("add sub mul div maximum minimum fmax fmin copysign nextafter xlogy remainder floor_divide atan2 logaddexp eq lt ge",
                "sign relu abs neg floor ceil round trunc square isnan isinf isfinite signbit",
                [0.0, -0.0, 1.0, -2.5, 7.0, 1e-40, 3e38, np.inf, -np.inf, np.nan]),
    "int32": ("add sub mul maximum minimum remainder floor_divide shift_left shift_right pow bitwise_and bitwise_xor lt", "sign relu abs neg signbit",
              [0, 1, -1, 2, -3, 31, 32, -32, 2**31 - 1, -(2**31)]),
    "uint8": ("add sub mul maximum minimum remainder floor_divide shift_left shift_right pow bitwise_or ge", "sign abs neg bitwise_invert",
              [0, 1, 2, 7, 8, 9, 127, 128, 255]),
    "bool": ("eq ne lt le gt ge maximum minimum fmax fmin add mul logical_xor bitwise_and", "logical_not isnan isfinite", [False, True]),
}  # fmt: skip


@pytest.mark.parametrize("dtype", _EDGES)
def test_at_the_edges_compiled_numbers_are_numpys(backend, monkeypatch, dtype):
    monkeypatch.setattr(backend, "fuse_least", 1)
    binary, unary, values = _EDGES[dtype]
    x, y = (v.ravel() for v in np.meshgrid(np.array(values, dtype), np.array(values, dtype)))
    names = [(n, 2) for n in binary.split()] + [(n, 1) for n in unary.split()]
    graph = graph_of(lambda op, *xs: tuple(op(n, *xs[:k]) for n, k in names), x.shape, y.shape, dtype=dtypes.from_numpy(x.dtype))
    for (n, k), got in zip(names, backend.compile(graph)(x, y), strict=True):
        want = np.asarray(getattr(get("numpy"), n)(*(x, y)[:k]))
        np.testing.assert_allclose(got, want, rtol=1e-6, atol=0, err_msg=n)
        assert got.dtype == want.dtype
        if want.dtype.kind == "f" and n not in ("maximum", "minimum", "fmax", "fmin"):  # which may choose either zero
            there = want == want
            np.testing.assert_array_equal(np.signbit(got)[there], np.signbit(want)[there], err_msg=n)


def test_an_unknown_primitive_calls_numpy_between_compiled_segments(backend, monkeypatch):
    primitive = Primitive("test_numba_reverse", "x", infer=lambda x: (x.shape, x.dtype))
    try:
        monkeypatch.setattr(type(backend), "test_numba_reverse", staticmethod(lambda x: np.flip(x)), raising=False)
        program = backend.compile(graph_of(lambda op, x: (op("add", op("test_numba_reverse", op("neg", x)), x), op("test_numba_reverse", x)), (4,)))
        x = np.arange(4, dtype=np.float32)
        sums, turned = program(x)
        np.testing.assert_array_equal(sums, [-3, -1, 1, 3])
        np.testing.assert_array_equal(turned, x[::-1])
        assert not np.shares_memory(turned, x)
        assert any("NumPy" in line for line in program.listing)
    finally:
        del table[primitive.name]


def test_threads_run_one_program_at_once(backend):
    program = backend.compile(graph_of(chain, (64, 65), (65,)))
    rng = np.random.default_rng(3)
    cases = [(rng.normal(size=(64, 65)).astype(np.float32), rng.normal(size=65).astype(np.float32)) for _ in range(4)]
    wanted = [program(*c) for c in cases]
    wrong = []

    def work(i):
        for _ in range(50):
            wrong.extend(not np.array_equal(a, b) for a, b in zip(program(*cases[i]), wanted[i], strict=True) if not np.array_equal(a, b))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong


def test_programs_share_the_threads_of_the_process(backend, monkeypatch):
    """Whoever finds them taken runs with those that are left, or alone; and parts that nobody else took are its own."""
    monkeypatch.setattr(numba_plan.Plan, "share", 1.0)
    monkeypatch.setattr(numba_threads, "threads", lambda: 5)  # more than there are processors, perhaps

    def f(op, x, y):
        z = op("mul", op("exp", x), op("broadcast_to", y, shape=x.shape))
        return z, op("sum", z, axis=(0,), keepdims=False), op("max", z, axis=(0, 1), keepdims=False)

    program = backend.compile(graph_of(f, (600, 65), (65,)))
    assert max(args[3] for source, args in program.plan.calls if source == numba_threads.DIVIDE) > 5
    rng = np.random.default_rng(3)
    cases = [(rng.normal(size=(600, 65)).astype(np.float32), rng.normal(size=65).astype(np.float32)) for _ in range(4)]
    wanted = [program(*c) for c in cases]
    for (x, y), (z, total, most) in zip(cases, wanted, strict=True):
        np.testing.assert_allclose(z, np.exp(x) * y, rtol=1e-6)
        np.testing.assert_allclose(total, (np.exp(x) * y).sum(0), rtol=1e-4, atol=1e-3)
        assert most == z.max()
    wrong = []

    def work(i):
        for _ in range(100):
            wrong.extend(i for a, b in zip(program(*cases[i]), wanted[i], strict=True) if not np.array_equal(a, b))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(60)
    assert not wrong and not any(t.is_alive() for t in threads)


CHILD = """
    import ctypes, os, sys
    import numpy as np
    os.environ.update(OMP_NUM_THREADS="2", NUMBA_NUM_THREADS="2")
    os.cpu_count = lambda: 8  # so that the memory is more than NumPy keeps for itself when it is freed
    from minidl.backends import get
    from minidl.dtypes import float32
    from minidl.graph import Equation, Graph, Var
    from minidl.primitives.core import table
    from minidl.rewrites.threads import on_numba

    x, y = (Var((1 << 20,), float32) for _ in range(2))
    program = get("numba").compile(Graph([x], [Equation(table["exp"], (x,), {}, (y,))], [y]))
    values = np.linspace(-1, 1, 1 << 20, dtype=np.float32)

    def run():
        before = set(os.listdir("/proc/self/task"))
        for _ in range(20):
            assert np.array_equal(program(values)[0], want)
        return {*os.listdir("/proc/self/task")} - before

    def refuse(thread, *rest):
        refused.append(thread)
        ctypes.c_int64.from_address(thread).value = 8  # as glibc leaves there what it has freed
        return 11

    want, refused = np.exp(values), []
    crew = (ctypes.c_int64 * 16).from_address(on_numba.crew())
    create, none = crew[0], ctypes.CFUNCTYPE(ctypes.c_int, *[ctypes.c_void_p] * 4)(refuse)
    crew[0] = ctypes.cast(none, ctypes.c_void_p).value
    for _ in range(2):
        np.testing.assert_allclose(program(values)[0], want, rtol=1e-6)
    assert len(refused) == 2, "each call asks anew"
    crew[0] = create

    want = np.array(program(values)[0])
    assert not run(), "the threads of the first call serve all"
    own, tasks = os.sched_getaffinity(0), [int(t) for t in os.listdir("/proc/self/task")]
    print(sum(len(own - os.sched_getaffinity(t)) == 1 for t in tasks), flush=True)
    before = {t: os.sched_getaffinity(t) for t in tasks}
    for cpu in sorted(own):
        for t in tasks:
            os.sched_setaffinity(t, {cpu})
        assert not run() and all(os.sched_getaffinity(t) == {cpu} for t in tasks), "whoever says later where to run is heard"
    for t in tasks:
        os.sched_setaffinity(t, before[t])
    child = os.fork()
    if child == 0:
        print(len(run()), flush=True)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0 and not run()
    words = ctypes.create_string_buffer(b"still there")  # the crew's memory, written to the file of the exit's number when Python is gone
    ctypes.memmove(ctypes.byref(crew, 80), words, len(words))
    library = ctypes.CDLL(None)
    library.on_exit(library.dprintf, ctypes.byref(crew, 80))
    sys.exit(1)
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/task") or len(os.sched_getaffinity(0)) < 2, reason="looks at threads as Linux shows them")
def test_threads_stay_off_the_callers_processor_and_a_child_begins_its_own():
    """And where none is to be had the caller is alone; where they may run is asked again; and their memory stays when Python goes."""
    env = {**os.environ, "MALLOC_PERTURB_": "85"}  # what is freed is written over
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(CHILD)], capture_output=True, timeout=60, env=env)
    assert done.returncode == 1 and done.stdout.split() == [b"1", b"1", b"still", b"there"], done


SCRIPT = """
    import sys, time, warnings
    warnings.simplefilter("error")
    import numpy as np
    from minidl.backends import get, numba_kernels
    from minidl.dtypes import float32
    from minidl.graph import Equation, Graph, Var
    from minidl.primitives.core import table
    import numba.core.dispatcher, numba.core.ccallback as c
    compiled = []
    old = c.CFunc._compile_uncached
    c.CFunc._compile_uncached = lambda self: compiled.append(1) or old(self)
    x, y, z = (Var((3, 4), float32) for _ in range(3))
    graph = Graph([x], [Equation(table["erfinv"], (x,), {}, (y,)), Equation(table["cumsum"], (y,), {"axis": 1, "reverse": True}, (z,))], [z])
    out, = get("numba").compile(graph)(np.full((3, 4), 0.5, np.float32))
    print(len(compiled), out[0, 0])
"""


def run_script(cache):
    env = {**os.environ, "MINIDL_CACHE": str(cache)}
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(SCRIPT)], env=env, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return done.stdout.split()


def test_a_second_process_starts_warm(tmp_path):
    cold, warm = run_script(tmp_path), run_script(tmp_path)
    assert int(cold[0]) > 0 and int(warm[0]) == 0
    assert cold[1] == warm[1]
    assert not list(tmp_path.glob("*.tmp"))


def test_an_unwritable_cache_means_no_cache(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("not a directory")
    first = run_script(blocked / "cache")
    assert int(first[0]) > 0 and float(first[1]) == pytest.approx(4 * 0.4769363, rel=1e-6)


def test_nothing_global_of_numba_changes(backend):
    settings = {k: v for k, v in vars(numba.config).items() if k.isupper()}
    backend.compile(graph_of(chain, (6,), (6,)))
    assert settings == {k: v for k, v in vars(numba.config).items() if k.isupper()}


def test_only_the_cpu():
    with pytest.raises(ValueError, match="backend numba: no device 'cuda:0'"):
        get("numba", "cuda:0")


def test_kernels_on_disk_are_keyed_by_every_function_that_they_are_made_of(monkeypatch):
    """Else a cache would survive a change of the source that made it."""
    read = set()
    plain = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: read.add(path.stem) or plain(path))
    numba_kernels._stamp.__wrapped__()
    todo = [v for name in numba_kernels._MODULES for v in vars(importlib.import_module(f"minidl.backends.{name}")).values()]
    seen, homes = set(), set()
    while todo:
        f = todo.pop()
        f = getattr(f, "py_func", getattr(f, "_defn", f))  # what numba compiles, and what its intrinsics are made of
        if not isinstance(f, types.FunctionType) or f in seen or not {"minidl", "backends"} & set(Path(f.__code__.co_filename).parts):
            continue
        seen.add(f)
        homes.add(Path(f.__code__.co_filename).stem)
        todo += [f.__globals__[name] for name in f.__code__.co_names if name in f.__globals__]
        todo += [cell.cell_contents for cell in f.__closure__ or ()]
    assert len(seen) > 50 and homes <= read, homes - read
