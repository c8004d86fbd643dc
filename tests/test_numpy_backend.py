"""What only the NumPy backend promises: accurate special functions, silence, and programs that write over nothing but their own dead values."""

import ctypes
import inspect
import math
import os
import subprocess
import sys
import threading
import types
import warnings

import numpy as np
import pytest

import minidl as md
import minidl.arrays.special
import minidl.arrays.windows
import minidl.control  # as the lines above, which put primitives into the table
from minidl import dtypes
from minidl.backends import get, numpy_helpers
from minidl.backends.numpy_backend import make
from minidl.backends.numpy_helpers import where
from minidl.dtypes import bfloat16, complex64, float16, float32, float64, int8, int32, int64, uint8
from minidl.graph import Equation, Graph, Literal, Var
from minidl.primitives.core import table

xp = get("numpy")
inf, nan = math.inf, math.nan


# ---- special functions ----------------------------------------------------------------------------------------------------------------
def draws(*ranges: tuple[float, float]) -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.concatenate([rng.uniform(lo, hi, 150) for lo, hi in ranges])


def near(point: float) -> np.ndarray:
    rng = np.random.default_rng(1)
    return point + rng.choice([-1, 1], 60) * 10 ** rng.uniform(-14, -2, 60)


def powers(lo: float, hi: float) -> np.ndarray:
    return 10 ** np.random.default_rng(2).uniform(lo, hi, 80)


ACCURACY = [  # function, the same in mpmath, where, at most so many ulp
    ("erf", "erf", [draws((-6, 6)), powers(-300, 0)], 4),
    ("erfc", "erfc", [draws((-6, 6), (0, 26))], 8),
    ("erfinv", "erfinv", [draws((-1, 1)), 1 - powers(-15.5, -1), powers(-300, 0)], 8),
    ("lgamma", "loggamma", [draws((0, 0.5), (0.5, 2.5), (2.5, 8), (8, 1e4)), near(1), near(2), powers(-300, 300)], 6),
    ("digamma", "digamma", [draws((0, 1), (1, 3), (3, 20)), near(1.4616321449683623), powers(-300, 300)], 6),
]


def ulps(got: np.ndarray, want: list) -> float:
    return max(float(abs((w - float(g)) / np.spacing(abs(float(w))))) for g, w in zip(got, want, strict=True))


@pytest.mark.parametrize(("name", "witness", "points", "limit"), ACCURACY, ids=[row[0] for row in ACCURACY])
def test_special_functions_are_accurate(name, witness, points, limit):
    mpmath = pytest.importorskip("mpmath")
    x = np.concatenate(points)
    with mpmath.workdps(50):
        want = [getattr(mpmath, witness)(mpmath.mpf(float(v))) for v in x]
        assert ulps(getattr(xp, name)(x), want) <= limit


@pytest.mark.parametrize("n", [1, 2, 3, 6])
def test_polygamma_is_accurate(n):
    mpmath = pytest.importorskip("mpmath")
    x = draws((0, 1), (1, 40))
    with mpmath.workdps(50):
        assert ulps(xp.polygamma(x, n=n), [mpmath.polygamma(n, mpmath.mpf(float(v))) for v in x]) <= 8


def test_reflections_are_accurate_relative_to_the_terms_they_subtract():
    mpmath = pytest.importorskip("mpmath")
    x = draws((-12, 0))
    with mpmath.workdps(50):
        exact = [mpmath.mpf(float(v)) for v in x]
        for got, want in (
            (xp.lgamma(x), [mpmath.log(abs(mpmath.gamma(v))) for v in exact]),
            (xp.digamma(x), [mpmath.digamma(v) for v in exact]),
            (xp.polygamma(x, n=1), [mpmath.polygamma(1, v) for v in exact]),
            (xp.polygamma(x, n=2), [mpmath.polygamma(2, v) for v in exact]),
        ):
            want = np.array([float(w) for w in want])
            assert np.all(np.abs(got - want) <= 2e-14 * np.maximum(1, np.abs(want)))


POINTS = np.array([0.0, -0.0, 1.0, -1.0, -2.0, inf, -inf, nan])
SPECIAL_VALUES = {
    "erf": [0, 0, math.erf(1), -math.erf(1), -math.erf(2), 1, -1, nan],
    "erfinv": [0, 0, inf, -inf, nan, nan, nan, nan],
    "lgamma": [inf, inf, 0, inf, inf, inf, inf, nan],
    "digamma": [-inf, inf, -0.5772156649015329, nan, nan, inf, nan, nan],
}


@pytest.mark.parametrize("name", SPECIAL_VALUES)
def test_special_functions_at_special_points(name):
    np.testing.assert_allclose(getattr(xp, name)(POINTS), SPECIAL_VALUES[name], rtol=1e-15)


def test_special_functions_keep_dtype_and_shape():
    for dtype in (float16, bfloat16, float32):
        for shape in ((), (0,), (2, 3)):
            x = np.full(shape, 0.5).astype(dtype.numpy)
            out = xp.lgamma(x)
            assert out.dtype == x.dtype and out.shape == shape
            np.testing.assert_array_equal(out, np.full(shape, 0.5723649429247001).astype(dtype.numpy))


# ---- silence --------------------------------------------------------------------------------------------------------------------------
def test_kernels_do_not_warn_and_leave_the_error_state_alone():
    big, zero = np.full(4, 3e38, np.float32), np.zeros(4, np.float32)
    with np.errstate(all="raise"), warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.all(np.isinf(xp.mul(big, big))) and np.all(np.isnan(xp.div(zero, zero)))
        assert np.all(np.isnan(xp.log(-big))) and np.all(xp.sum(np.stack([big, big]), axis=(0,), keepdims=False) == inf)
        assert xp.floor_divide(np.int32(7), np.int32(0)) == 0 and xp.remainder(np.int32(7), np.int32(0)) == 0
        assert set(np.geterr().values()) == {"raise"}


def test_kernels_stay_silent_in_concurrent_threads():
    a, b, failures = np.full(200_000, 3e38, np.float32), np.full(200_000, 3e38, np.float32), []

    def work():
        try:
            for _ in range(100):
                assert xp.add(a, b)[0] == inf and xp.exp(a)[0] == inf
        except Exception as e:  # a thread's exception would be lost otherwise
            failures.append(e)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not failures


# ---- values where NumPy's own differ --------------------------------------------------------------------------------------------------
def test_casts_saturate():
    x = np.array([nan, inf, -inf, 1e20, -1e20, -1, 300, 2.7, -2.7], np.float32)
    assert xp.cast(x, dtype=int32).tolist() == [0, 2**31 - 1, -(2**31), 2**31 - 1, -(2**31), -1, 300, 2, -2]
    assert xp.cast(x, dtype=uint8).tolist() == [0, 255, 0, 255, 0, 0, 255, 2, 0]
    assert xp.cast(x, dtype=int64).tolist()[:5] == [0, 2**63 - 1, -(2**63), 2**63 - 1, -(2**63)]
    assert xp.cast(np.array([inf, 65504], np.float16), dtype=dtypes.uint64).tolist() == [2**64 - 1, 65504]


@pytest.mark.parametrize("dtype", [float16, bfloat16, float32, float64], ids=lambda d: d.name)
def test_argsort_is_stable_both_ways_and_puts_nan_at_its_place(dtype):
    x = np.array([1, nan, 2, 1, nan]).astype(dtype.numpy)
    assert xp.argsort(x, axis=0, descending=False).tolist() == [0, 3, 2, 1, 4]
    assert xp.argsort(x, axis=0, descending=True).tolist() == [1, 4, 2, 0, 3]


def test_softmax_family_has_no_nan_of_its_own():
    x = np.array([[inf, 1], [-inf, -inf], [inf, inf], [nan, inf], [1000, 1000]])
    half = math.log(0.5)
    np.testing.assert_array_equal(xp.softmax(x, axis=1), [[1, 0], [0, 0], [0.5, 0.5], [nan, nan], [0.5, 0.5]])
    np.testing.assert_allclose(xp.log_softmax(x, axis=1), [[0, -inf], [-inf, -inf], [half, half], [nan, nan], [half, half]])
    np.testing.assert_allclose(xp.logsumexp(x, axis=(1,), keepdims=False), [inf, -inf, inf, nan, 1000 - half])


def test_max_pool_never_chooses_padding():
    x = np.array([-inf, -inf, nan, 5.0])
    out, index = xp.max_pool(x, window=(2,), stride=(1,), padding=((1, 1),), dilation=(1,))
    np.testing.assert_array_equal(out, [-inf, -inf, nan, nan, 5])
    assert index.tolist() == [1, 0, 1, 0, 0] and index.dtype == np.int64


@pytest.mark.parametrize("letters", ["mk,nk->mn", "km,nk->mn"])
@pytest.mark.parametrize("wide", [True, False])
def test_a_product_with_a_much_larger_matrix_is_made_the_other_way_round_with_avx512(letters, wide, monkeypatch):
    monkeypatch.setattr(numpy_helpers, "openblas", lambda: "SkylakeX" if wide else "Haswell")
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(8, 512)), rng.normal(size=(64, 512))
    args = [md.asarray(a, dtype=md.float32, backend="numpy") for a in (x if letters[0] == "m" else x.T, w)]
    graph = md.trace(lambda x, w: md.einsum(letters, x, w))(*args)
    run = xp.compile(graph)
    assert ("matmul_turned" in inspect.getsource(run)) == wide
    np.testing.assert_allclose(run(*(a.payload for a in args))[0], x @ w.T, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("core", ["SkylakeX", "Haswell"])
def test_openblas_itself_says_which_kernels_it_runs(core):
    if not hasattr(ctypes.CDLL(np._core._multiarray_umath.__file__), "scipy_openblas_get_corename64_"):
        pytest.skip("this NumPy's products are not those of an OpenBLAS that came with it")
    text = "from minidl.backends.numpy_helpers import openblas; print(openblas())"
    env = {**os.environ, "OPENBLAS_CORETYPE": core}
    said = subprocess.run([sys.executable, "-c", text], env=env, capture_output=True, text=True, check=True).stdout.strip()
    assert (said == core) == (core == "Haswell" or np._core._multiarray_umath.__cpu_features__["AVX512_SKX"])


@pytest.mark.parametrize("dtype", [int8, uint8, int32, float16, bfloat16, float32, complex64], ids=lambda d: d.name)
def test_counted_numbers_are_those_of_a_cast(dtype):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of the cast, where float16 ends
        want = np.arange(70000).astype(dtype.numpy)
    assert xp.iota(size=70000, dtype=dtype).tobytes() == want.tobytes()


def test_half_precision_products_accumulate_in_float32():
    for dtype in (float16, bfloat16):
        ones = np.ones((1, 5000), dtype.numpy)
        out = xp.dot_general(ones, ones, contract=((1,), (1,)), batch=((), ()))
        assert out.dtype == dtype.numpy and out[0, 0] == np.float64(5000).astype(dtype.numpy)


@pytest.mark.parametrize("dtype", [dtypes.bool_, uint8, float16, bfloat16, float32, float64], ids=lambda d: d.name)
def test_selection_by_bits_is_np_where(dtype):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 90, 70)).astype(dtype.numpy)
    if dtype.is_float:
        x[0], y[0] = nan, inf
    unpredictable = rng.random((90, 70))
    cases = [(unpredictable < part, a, b) for part in (0.5, 0.001, -1.0, 2.0) for a, b in ((x, y), (x[:1], y), (x[0, 0], y.T.copy().T), (x, y[0, 0]))]
    for c, a, b in (*cases, (unpredictable[:1] < 0.5, x, y), (unpredictable < 0.5, x[:1], y[0, :1])):
        got = where(c, np.asarray(a), np.asarray(b))
        assert not np.shares_memory(got, a) and not np.shares_memory(got, b)
        assert got.dtype == dtype.numpy  # compared in float64, because a bfloat16 nan equals nothing in the eyes of np.testing
        np.testing.assert_array_equal(got.astype(np.float64), np.where(c, a, b).astype(np.float64))


def test_other_devices_are_refused():
    with pytest.raises(ValueError, match="cuda"):
        make("cuda")


# ---- programs -------------------------------------------------------------------------------------------------------------------------
class Recorder:
    """Builds a graph by calling primitives on its variables."""

    def __init__(self):
        self.inputs, self.equations = [], []

    def input(self, *shape: int) -> Var:
        self.inputs.append(Var(shape, float64))
        return self.inputs[-1]

    def __getattr__(self, name: str):
        def call(*args, **params):
            args = tuple(a if isinstance(a, (Var, Literal)) else Literal(a, float64) for a in args)
            out = Var(*table[name].infer(*args, **params))
            self.equations.append(Equation(table[name], args, params, (out,)))
            return out

        return call

    def graph(self, *outputs) -> Graph:
        return Graph(self.inputs, self.equations, outputs)


def check_program(graph: Graph, args: list[np.ndarray]) -> None:
    kept = [a.copy() for a in args]
    want = graph.run(lambda p, inputs, params: getattr(xp, p.name)(*inputs, **params), args, lambda a: xp.scalar(a.value, a.dtype))
    got = xp.compile(graph)(*args)
    for g, w in zip(got, want, strict=True):
        np.testing.assert_array_equal(g, w)
    for a, k in zip(args, kept, strict=True):
        np.testing.assert_array_equal(a, k)
    for i, g in enumerate(got):
        assert not any(np.shares_memory(g, other) for other in [*args, *got[:i]])


def test_a_program_overwrites_its_dying_operands():
    r = Recorder()
    x = r.input(4, 4)
    graph = r.graph(r.add(r.sin(r.mul(x, x)), x))
    source = inspect.getsource(xp.compile(graph))
    assert source.count("out=") == 2 and "out=a" not in source
    check_program(graph, [np.random.default_rng(0).normal(size=(4, 4))])


def test_results_that_would_share_memory_are_copied():
    r = Recorder()
    x = r.input(4, 4)
    y = r.exp(x)
    graph = r.graph(x, r.reshape(x, shape=(16,)), y, r.permute(y, axes=(1, 0)), r.broadcast_to(r.sum(y, axis=(0,), keepdims=False), shape=(3, 4)))
    check_program(graph, [np.random.default_rng(0).normal(size=(4, 4))])


def test_nothing_is_written_over_a_broadcast_view_or_an_operand_that_is_read_through_a_view():
    r = Recorder()
    x = r.input(1, 300)
    wide = r.broadcast_to(r.exp(x), shape=(300, 300))  # large enough to be a view, which NumPy makes read-only
    y = r.sin(r.broadcast_to(r.exp(x), shape=(300, 300)))
    graph = r.graph(wide, r.add(y, r.permute(y, axes=(1, 0))))
    args = [np.random.default_rng(0).normal(size=(1, 300))]
    check_program(graph, args)
    program = xp.compile(graph)
    assert all(a.flags.writeable for a in program(*args))


@pytest.mark.parametrize("seed", range(60))
def test_random_programs_with_views_equal_the_interpreted_graph(seed):
    rng = np.random.default_rng(seed)
    r = Recorder()
    values = [r.input(4, 4), r.input(4, 4)]
    views = [
        lambda v: r.permute(v, axes=(1, 0)),
        lambda v: r.flip(v, axes=(0,)),
        lambda v: r.reshape(r.reshape(v, shape=(2, 8)), shape=(4, 4)),
        lambda v: r.broadcast_to(r.slice(v, start=(1, 0), stop=(2, 4), step=(1, 1)), shape=(4, 4)),
    ]
    for _ in range(25):
        a, b = (values[i] for i in rng.integers(max(0, len(values) - 4), len(values), 2))
        kind = rng.integers(3)
        if kind == 0:
            values.append(views[rng.integers(len(views))](a))
        elif kind == 1:
            values.append((r.add, r.sub, r.maximum)[rng.integers(3)](a, b))
        else:
            values.append((r.relu, r.tanh, r.neg)[rng.integers(3)](a))
    outputs = [values[i] for i in rng.integers(0, len(values), 3)]
    check_program(r.graph(*outputs, values[-1]), list(rng.normal(size=(2, 4, 4))))


def body_graph() -> Graph:
    r = Recorder()
    w, h, x = r.input(3), r.input(3), r.input(3)
    h2 = r.tanh(r.add(r.mul(w, h), x))
    return r.graph(h2, h2)


@pytest.mark.parametrize("reverse", [False, True])
def test_scan_equals_the_loop_it_stands_for(reverse):
    rng = np.random.default_rng(0)
    w, h, xs = rng.normal(size=3), rng.normal(size=3), rng.normal(size=(5, 3))
    params = {"body": body_graph(), "length": 5, "n_consts": 1, "n_carry": 1, "reverse": reverse}
    ys, carry = np.empty((5, 3)), h
    for i in reversed(range(5)) if reverse else range(5):
        carry = ys[i] = np.tanh(w * carry + xs[i])
    scan = types.SimpleNamespace(name="scan", multiple=True, decompose=None)
    inputs, outputs = (Var((3,), float64), Var((3,), float64), Var((5, 3), float64)), (Var((3,), float64), Var((5, 3), float64))
    program = xp.compile(Graph(inputs, [Equation(scan, inputs, params, outputs)], outputs))
    for got in (xp.scan(w, h, xs, **params), program(w, h, xs)):
        np.testing.assert_array_equal(got[0], carry)
        np.testing.assert_array_equal(got[1], ys)


@pytest.mark.parametrize("name", ["torch", "jax"])
def test_a_backend_without_loops_of_its_own_takes_the_plain_ones(name):
    """As one of a third party does."""
    pytest.importorskip(name)
    own, rng = get(name), np.random.default_rng(0)
    params = {"body": body_graph(), "length": 5, "n_consts": 1, "n_carry": 1, "reverse": True}
    with own.scope():
        given = [own.asarray(rng.normal(size=shape), float64) for shape in (3, 3, (5, 3))]
        for got, wanted in zip(own.fallback("scan")(*given, **params), own.scan(*given, **params), strict=True):
            assert own.is_native(got)
            np.testing.assert_allclose(own.to_numpy(got), own.to_numpy(wanted), rtol=1e-14)  # XLA fuses


def test_while_and_cond_run_their_graphs():
    r = Recorder()
    limit, x = r.input(), r.input()
    cond = r.graph(r.lt(x, limit))
    r = Recorder()
    body = r.graph(r.mul(r.input(), 2.0))
    assert xp.while_loop(np.float64(100), np.float64(3), cond=cond, body=body, n_cond=1, n_body=0) == (192.0,)
    assert xp.cond(np.int64(9), np.float64(3), branches=(cond, body)) == (6.0,)
