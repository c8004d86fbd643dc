"""What only the torch backend must prove: arithmetic that torch lacks, its own choices overruled, and programs that reuse memory safely."""

import contextlib
import inspect
import itertools
import math
import os
import shutil

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import minidl as md  # noqa: E402
import minidl.arrays.special  # noqa: E402
import minidl.control  # noqa: E402
import minidl.random  # noqa: E402  as the lines above, which put primitives into the table
from minidl import dtypes  # noqa: E402
from minidl.arrays.composites import on_torch as torch_composites  # noqa: E402
from minidl.arrays.windows import on_torch as torch_windows  # noqa: E402
from minidl.backends import get, torch_linear, torch_rewrite  # noqa: E402
from minidl.backends.torch_backend import TorchBackend, make  # noqa: E402
from minidl.dtypes import bfloat16, float16, float32, float64, int32, int64, uint8, uint16, uint32, uint64  # noqa: E402
from minidl.graph import Equation, Graph, Literal, Var  # noqa: E402
from minidl.modes import on_torch as torch_modes  # noqa: E402
from minidl.primitives.core import table  # noqa: E402
from minidl.rewrites import on_torch as torch_rewrites  # noqa: E402

xp = get("torch")
inf, nan = math.inf, math.nan
INTEGERS = [d for d in dtypes.all_dtypes if d.is_integer]
UNSIGNED = [uint8, uint16, uint32, uint64]


def native(values, dtype):
    return xp.asarray(np.array(values, dtype.numpy), dtype)


def values(x):
    return xp.to_numpy(x).tolist()


def extremes(dtype) -> list[int]:
    low, high = np.iinfo(dtype.numpy).min, np.iinfo(dtype.numpy).max
    middle = [n for n in (-7, -2, -1, 0, 1, 2, 3, 10, 100) if low <= n <= high]
    return sorted({low, low + 1, *middle, high // 2, high // 2 + 1, high // 2 + 2, high - 1, high})


def wrapped(n: int, dtype) -> int:
    """n as an integer of that dtype keeps it."""
    n %= 2**dtype.bits
    return n - 2**dtype.bits if dtype.kind == "int" and n >= 2 ** (dtype.bits - 1) else n


# ---- integers -------------------------------------------------------------------------------------------------------------------------
ARITHMETIC = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "floor_divide": lambda a, b: a // b if b else 0,
    "remainder": lambda a, b: a % b if b else 0,
    "maximum": max,
    "minimum": min,
    "lt": lambda a, b: a < b,
    "ge": lambda a, b: a >= b,
    "eq": lambda a, b: a == b,
    "bitwise_xor": lambda a, b: a ^ b,
}


@pytest.mark.parametrize("dtype", INTEGERS, ids=repr)
@pytest.mark.parametrize("name", ARITHMETIC)
def test_integer_arithmetic_is_exact(name, dtype):
    pairs = list(itertools.product(extremes(dtype), repeat=2))
    out = getattr(xp, name)(*(native(side, dtype) for side in zip(*pairs, strict=True)))
    want = [ARITHMETIC[name](a, b) for a, b in pairs]
    assert values(out) == [w if isinstance(w, bool) else wrapped(w, dtype) for w in want]
    assert xp.dtype_of(out) is (dtypes.bool_ if isinstance(want[0], bool) else dtype)


@pytest.mark.parametrize("dtype", INTEGERS, ids=repr)
def test_integer_powers_and_shifts_are_exact(dtype):
    pairs = [(a, n) for a in extremes(dtype) for n in (0, 1, 2, 3, 5, 7, 31, 63) if n < dtype.bits]
    a, n = (native(side, dtype) for side in zip(*pairs, strict=True))
    assert values(xp.pow(a, n)) == [wrapped(x**k, dtype) for x, k in pairs]
    assert values(xp.shift_left(a, n)) == [wrapped(x << k, dtype) for x, k in pairs]
    assert values(xp.shift_right(a, n)) == [x >> k for x, k in pairs]
    if dtype.kind == "int":
        assert values(xp.pow(native([2, 1, -1, 0], dtype), native([-1, -1, -3, -2], dtype))) == [0, 0, 0, 0]


@pytest.mark.parametrize("dtype", UNSIGNED, ids=repr)
def test_unsigned_order_beyond_the_sign_bit(dtype):
    numbers = extremes(dtype)[::-1]
    x = native(numbers, dtype)
    assert values(xp.argsort(x, axis=0, descending=False)) == list(range(len(numbers)))[::-1]
    assert values(xp.argmax(x, axis=0, keepdims=False)) == 0
    assert values(xp.max(x, axis=(0,), keepdims=False)) == numbers[0]
    assert values(xp.cummin(x, axis=0, reverse=False)) == numbers
    assert values(xp.cummax(x, axis=0, reverse=False)) == [numbers[0]] * len(numbers)
    assert values(xp.clip(x, native(2, dtype), native(3, dtype))) == [min(max(n, 2), 3) for n in numbers]
    zeros = native([0, 0], dtype)
    assert values(xp.scatter(zeros, native([1, numbers[0]], dtype), native([1, 1], int64), mode="max")) == [0, numbers[0]]
    out, _ = xp.max_pool(x, window=(2,), stride=(1,), padding=((0, 0),), dilation=(1,))
    assert values(out) == numbers[:-1]


@pytest.mark.parametrize("source", [float16, bfloat16, float32, float64], ids=repr)
@pytest.mark.parametrize("target", INTEGERS, ids=repr)
def test_casts_saturate_for_every_value(source, target):
    points = np.array([0, 0.9, -0.9, 1.5, -1.5, 127.9, 128, 255.5, 256, -129, 65535, 65536, 2**31, -(2**31), 2**32, 2**63, -(2**63), 1.5 * 2**63,
                       2**64, 1e30, inf, -inf, nan], float)  # fmt: skip
    with np.errstate(all="ignore"):
        points = points.astype(source.numpy)
    low, high = np.iinfo(target.numpy).min, np.iinfo(target.numpy).max
    want = [0 if math.isnan(p) else low if p <= low else high if p >= high else int(p) for p in map(float, points)]
    assert values(xp.cast(xp.asarray(points, source), dtype=target)) == want


def test_threefry_known_answers():
    """The vectors that its authors publish with Random123."""
    for key, counter, want in (
        ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
        ((2**32 - 1,) * 2, (2**32 - 1,) * 2, (0x1CB996FC, 0xBB002BE7)),
        ((0x13198A2E, 0x03707344), (0x243F6A88, 0x85A308D3), (0xC4923A9C, 0x483DF7A0)),
    ):
        out = xp.threefry2x32(*(native(n, uint32) for n in (*key, *counter)))
        assert tuple(map(values, out)) == want


# ---- floats: where torch means something else -----------------------------------------------------------------------------------------
def test_polygamma_is_accurate():
    mpmath = pytest.importorskip("mpmath")
    x = np.concatenate([np.random.default_rng(0).uniform(0.01, 30, 60), [1e-8, 1e5, 1e16, 1e18, 1e30]])
    for n in (1, 2, 3, 5):
        want = [float(mpmath.psi(n, mpmath.mpf(float(v)))) for v in x]
        np.testing.assert_allclose(xp.to_numpy(xp.polygamma(native(x, float64), n=n)), want, rtol=2e-14)
        assert abs(xp.polygamma(native(inf, float64), n=n).item()) == 0


def test_softplus_keeps_its_digits_above_twenty():
    x = np.linspace(15, 45, 61)
    np.testing.assert_allclose(xp.to_numpy(xp.softplus(native(x, float64))) - x, np.log1p(np.exp(-x)), rtol=0, atol=1e-14)


def test_dead_and_infinite_rows():
    x = native([[-inf, -inf, -inf], [inf, 1, -inf], [inf, inf, 0], [nan, 1, 2], [0, 0, -inf]], float32)
    third = [[0, 0, 0], [1, 0, 0], [0.5, 0.5, 0], [nan] * 3, [0.5, 0.5, 0]]
    np.testing.assert_array_equal(xp.to_numpy(xp.softmax(x, axis=1)), third)
    logs = xp.to_numpy(xp.log_softmax(x, axis=1))
    np.testing.assert_array_equal(logs[[0, 1, 3]], [[-inf] * 3, [0, -inf, -inf], [nan] * 3])
    np.testing.assert_allclose(logs[[2, 4], :2], math.log(0.5), rtol=1e-6)
    np.testing.assert_array_equal(xp.to_numpy(xp.logsumexp(x, axis=(1,), keepdims=False))[:4], [-inf, inf, inf, nan])


def test_no_axis_means_no_axis():
    x = native([[1.5, 2], [3, 4]], float32)
    for name in ("sum", "prod", "max", "min", "logsumexp"):
        assert values(getattr(xp, name)(x, axis=(), keepdims=False)) == values(x)


# ---- indexing -------------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("width", [(), (3,)])
def test_the_last_of_many_duplicates_is_set(width):
    rng = np.random.default_rng(0)
    i = rng.integers(-2, 9, 5000)
    u = rng.normal(size=(5000, *width))
    x = np.zeros((7, *width))
    want = x.copy()
    for place, row in zip(i, u, strict=True):
        if 0 <= place < 7:
            want[place] = row
    out = xp.scatter(native(x, float64), native(u, float64), native(i, int64), mode="set")
    np.testing.assert_array_equal(xp.to_numpy(out), want)


# ---- products -------------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("dtype", [float16, bfloat16], ids=repr)
def test_half_precision_products_accumulate_in_float32(dtype):
    ones = native(np.ones((1, 4096)), dtype)
    sticky = native(np.full((1, 1, 4096), 1.0), dtype)
    matrix = {"contract": ((1,), (1,)), "batch": ((), ())}
    assert xp.dot_general(ones, ones, **matrix).item() == 4096  # summed in the narrow dtype it stops at 2048 or 256
    window = {"stride": (1,), "padding": ((0, 0),), "dilation": (1,), "groups": 1}
    assert xp.conv(sticky, sticky, **window).item() == 4096


@pytest.mark.parametrize("dtype", [int32, int64, uint8, uint32, uint64], ids=repr)
def test_integer_products_wrap_exactly(dtype, monkeypatch):
    rng = np.random.default_rng(1)
    info = np.iinfo(dtype.numpy)
    x, y = (rng.integers(info.min, info.max, s, dtype=dtype.numpy, endpoint=True) for s in ((2, 3, 5), (2, 5, 4)))
    params = {"contract": ((2,), (1,)), "batch": ((0,), (0,))}
    exact = np.matmul(x.astype(object), y.astype(object))
    want = np.vectorize(lambda n: wrapped(n, dtype), otypes=[object])(exact).tolist()
    assert values(xp.dot_general(native(x, dtype), native(y, dtype), **params)) == want
    monkeypatch.setattr(torch_linear, "_direct", lambda x: False)  # as on a device without integer products
    assert values(xp.dot_general(native(x, dtype), native(y, dtype), **params)) == want


WINDOWS = [  # x, w, stride, padding, dilation, groups
    ((2, 4, 9), (6, 2, 3), (2,), ((1, 2),), (2,), 2),
    ((2, 3, 7, 8), (4, 3, 3, 2), (2, 3), ((0, 1), (2, 0)), (1, 2), 1),
    ((1, 2, 5, 5, 5), (2, 1, 2, 2, 2), (1, 2, 1), ((1, 1), (0, 0), (1, 0)), (1, 1, 2), 2),
]


@pytest.mark.parametrize(("x_shape", "w_shape", "stride", "padding", "dilation", "groups"), WINDOWS)
@pytest.mark.parametrize("dtype", [float64, int64, dtypes.complex128], ids=repr)
def test_convolution_and_its_transposes(dtype, x_shape, w_shape, stride, padding, dilation, groups):
    """conv by its definition, and <g, conv(x, w)> = <conv_dx(g, w), x> = <conv_dw(x, g), w>, in whole numbers and so exactly."""
    rng = np.random.default_rng(2)
    x, w = rng.integers(-4, 5, x_shape), rng.integers(-4, 5, w_shape)
    params = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    X, W = native(x, dtype), native(w, dtype)
    out = xp.to_numpy(xp.conv(X, W, **params))
    padded = np.pad(x, ((0, 0), (0, 0), *padding))
    per_group = w_shape[0] // groups
    for place in np.ndindex(out.shape):
        n, o, *at = place
        c = o // per_group * w_shape[1]
        window = tuple(slice(a * s, a * s + d * (k - 1) + 1, d) for a, s, d, k in zip(at, stride, dilation, w_shape[2:], strict=True))
        assert out[place] == np.sum(padded[(n, slice(c, c + w_shape[1]), *window)] * w[o])
    g = rng.integers(-4, 5, out.shape)
    dx = xp.to_numpy(xp.conv_dx(native(g, dtype), W, x_shape=x_shape, **params))
    dw = xp.to_numpy(xp.conv_dw(X, native(g, dtype), w_shape=w_shape, **params))
    assert dx.shape == x_shape and dw.shape == w_shape
    assert np.sum(out * g) == np.sum(dx * x) == np.sum(dw * w)


def test_pooling_takes_the_first_nan_and_never_the_padding():
    params = {"window": (2, 2), "stride": (2, 2), "padding": ((0, 0), (0, 0)), "dilation": (1, 1)}
    out, index = xp.max_pool(native([[1, nan, 5, 5], [nan, 2, 5, 5]], float32), **params)
    np.testing.assert_array_equal(xp.to_numpy(out), [[nan, 5]])
    assert values(index) == [[1, 0]]
    params |= {"padding": ((1, 0), (1, 1)), "stride": (1, 2)}
    for dtype, low in ((float32, -inf), (int32, np.iinfo(np.int32).min)):
        _, index = xp.max_pool(native(np.full((2, 2), low), dtype), **params)
        assert values(index) == [[3, 2], [1, 0]]


def test_flat_positions_are_the_same_places():
    rng = np.random.default_rng(3)
    x = native(rng.normal(size=(2, 3, 9, 8)), float64)
    params = {"window": (3, 2), "stride": (2, 2), "padding": ((1, 1), (0, 0)), "dilation": (1, 2)}
    out, index = xp.max_pool(x, **params)
    assert torch.equal(xp.pool_gather(x, index, **params), out)
    _, flat = xp.max_pool(x, **params, flat=True)
    assert torch.equal(xp.pool_gather(x, flat, **params, flat=True), out)
    args = dict(x_shape=tuple(x.shape), **params)
    assert torch.equal(xp.pool_scatter(out, flat, **args, flat=True), xp.pool_scatter(out, index, **args))


@pytest.mark.parametrize("window, stride", [((2, 2), (2, 2)), ((3, 2), (3, 2)), ((3, 3), (2, 2))])
def test_what_is_traced_pools_without_looking_and_means_the_same(window, stride, monkeypatch):
    rng = np.random.default_rng(8)
    x = native(np.where(rng.random((2, 3, 9, 8)) < 0.1, nan, rng.normal(size=(2, 3, 9, 8)).round()), float32)
    params = {"window": window, "stride": stride, "padding": ((0, 0), (0, 0)), "dilation": (1, 1)}
    out, index = xp.max_pool(x, **params)
    g = torch.ones_like(out)
    back = xp.pool_scatter(g, index, x_shape=tuple(x.shape), **params)
    monkeypatch.setattr(torch_windows, "unseen", lambda x: True)
    again, places = xp.max_pool(x, **params, flat=True)
    assert places.dtype is torch.int8
    np.testing.assert_array_equal(again.numpy(), out.numpy())
    np.testing.assert_array_equal(xp.pool_scatter(g, places, x_shape=tuple(x.shape), **params, flat=True).numpy(), back.numpy())
    np.testing.assert_array_equal(xp.pool_gather(x, places, **params, flat=True).numpy(), out.numpy())


# ---- programs -------------------------------------------------------------------------------------------------------------------------
class Recorder:
    """Builds a graph by calling primitives on variables."""

    def __init__(self) -> None:
        self.equations: list[Equation] = []

    def __getattr__(self, name):
        primitive = table[name]

        def call(*inputs, **params):
            inferred = primitive.infer(*inputs, **params)
            outputs = tuple(Var(tuple(shape), dtype) for shape, dtype in (inferred if primitive.multiple else (inferred,)))
            self.equations.append(Equation(primitive, inputs, params, outputs))
            return outputs if primitive.multiple else outputs[0]

        return call


def interpret(graph, args):
    return graph.run(lambda p, xs, params: getattr(xp, p.name)(*xs, **params), args, lambda a: xp.scalar(a.value, a.dtype))


def memory(x) -> int:
    return x.untyped_storage().data_ptr()


def check_program(graph, args):
    before = [a.clone() for a in args]
    want = interpret(graph, args)
    run = xp.compile(graph)
    for _ in range(2):  # the second call must not see what the first one wrote
        out = run(*args)
        assert all(torch.equal(a, b) and a.dtype is b.dtype for a, b in zip(out, want, strict=True))
        assert all(torch.equal(a, b) for a, b in zip(args, before, strict=True))
        places = [memory(a) for a in (*out, *args)]
        assert len(set(places)) == len(places)
        for a in out:
            a.zero_()
    return run


def test_a_program_reuses_only_its_own_dead_values():
    r = Recorder()
    x, w = Var((4, 6), float32), Var((6, 6), float32)
    product = r.dot_general(x, w, contract=((1,), (0,)), batch=((), ()))
    shown = r.reshape(product, shape=(24,))
    grown = r.exp(product)  # product is still shown: not over it
    both = r.mul(grown, product)
    rows = r.broadcast_to(r.reshape(w, shape=(1, 36)), shape=(2, 36))
    constant = r.full(shape=(4, 6), value=2.0, dtype=float32)
    total = r.add(r.relu(r.sub(both, constant)), Literal(0.5, float32))
    outputs = [total, shown, x, r.permute(w, axes=(1, 0)), constant, rows, shown, Literal(1.0, float32)]
    rng = np.random.default_rng(4)
    graph = Graph([x, w], r.equations, outputs)
    run = check_program(graph, [native(rng.normal(size=v.shape), float32) for v in (x, w)])
    assert "out=" in inspect.getsource(run) and "torch_mm" in inspect.getsource(run)


def test_a_program_keeps_flat_pool_positions_to_itself():
    r = Recorder()
    x = Var((2, 3, 8, 8), float32)
    params = {"window": (2, 2), "stride": (2, 2), "padding": ((0, 0), (0, 0)), "dilation": (1, 1)}
    out, index = r.max_pool(x, **params)
    back = r.pool_scatter(out, index, x_shape=x.shape, **params)
    data = [native(np.random.default_rng(5).normal(size=x.shape), float32)]
    assert inspect.getsource(check_program(Graph([x], r.equations, [out, back]), data)).count("flat=True") == 2
    assert inspect.getsource(check_program(Graph([x], r.equations, [out, back, index]), data)).count("flat=True") == 0


def pooled(r, x, g, params):
    """relu, then max pooling, and the derivative of both in x."""
    zero = Literal(0.0, float32)
    h = r.relu(x)
    out, index = r.max_pool(h, **params)
    back = r.pool_scatter(g, index, x_shape=x.shape, **params)
    return out, index, r.where(r.gt(h, zero), back, zero)


@pytest.mark.parametrize("size", [8, 64])
@pytest.mark.parametrize("kind", ["normal", "ties", "nan", "negative"])
def test_pooling_goes_before_relu_and_nobody_can_tell(kind, size):
    rng = np.random.default_rng(6)
    params = {"window": (2, 2), "stride": (2, 2), "padding": ((0, 0), (0, 0)), "dilation": (1, 1)}
    data = rng.normal(size=(2, 3, size, size + 1)).astype("float32")
    data = {"normal": data, "ties": data.round(), "nan": np.where(rng.random(data.shape) < 0.1, nan, data), "negative": -abs(data)}[kind]
    cotangent = np.array(rng.normal(size=(2, 3, size // 2, size // 2)), "float32")
    cotangent[0, 0, 0, :2] = inf, nan
    arrays = [native(data, float32), native(cotangent, float32)]
    for outputs in (slice(0, 3, 2), slice(0, 3), slice(0, 2)):  # with and without the places
        r = Recorder()
        x, g = Var(data.shape, float32), Var(cotangent.shape, float32)
        made = pooled(r, x, g, params)[outputs]
        graph = Graph([x, g], r.equations, made)
        want, run = interpret(graph, arrays), xp.compile(graph)
        for _ in range(2):
            for a, b in zip(run(*arrays), want, strict=True):
                np.testing.assert_array_equal(a.numpy(), b.numpy())
        lines = inspect.getsource(run).splitlines()
        first = min(i for i, line in enumerate(lines) if "max_pool(" in line or "pool_masks(" in line)
        assert (first < next(i for i, line in enumerate(lines) if "relu" in line)) is (outputs == slice(0, 3, 2))
        assert ("pool_masks" in inspect.getsource(run)) is (outputs == slice(0, 3, 2) and size == 64)


@pytest.mark.parametrize("size", [8, 64])
@pytest.mark.parametrize("fires", ["alone", "read twice", "two gradients"])
def test_pooling_goes_before_relu_where_the_gradient_is_cut_before_it_is_scattered(fires, size):
    """As a pass leaves it: the places of windows below 0 get no gradient, so nobody sees that they are others."""
    rng = np.random.default_rng(7)
    params = {"window": (2, 2), "stride": (2, 2), "padding": ((0, 0), (0, 0)), "dilation": (1, 1)}
    data = rng.normal(-0.5, 1, size=(2, 3, size, size)).astype("float32")
    data[0, 0, :2, :2], data[0, 1, :4, :4] = [[-1, nan], [nan, -2]], -0.0
    cotangent = np.array(rng.normal(size=(2, 3, size // 2, size // 2)), "float32")
    cotangent[0, 0, 0, :2] = inf, nan
    arrays = [native(data, float32), native(cotangent, float32)]
    zero = Literal(0.0, float32)

    def check(build, expected):
        r = Recorder()
        x, g = Var(data.shape, float32), Var(cotangent.shape, float32)
        graph = Graph([x, g], r.equations, build(r, x, g))
        want, run = interpret(graph, arrays), xp.compile(graph)
        for _ in range(2):
            for a, b in zip(run(*arrays), want, strict=True):
                np.testing.assert_array_equal(a.numpy(), b.numpy())
                np.testing.assert_array_equal(np.signbit(a.numpy()[a.numpy() != 0]), np.signbit(b.numpy()[b.numpy() != 0]))
        lines = inspect.getsource(run).splitlines()
        pool = next(i for i, line in enumerate(lines) if "max_pool(" in line or "pool_masks(" in line)
        assert (pool < next(i for i, line in enumerate(lines) if "relu" in line)) is expected

    def pooled(r, x, g, by="out", above=0.0):
        out, index = r.max_pool(r.relu(x), **params)
        cut = r.where(r.gt({"out": out, "g": g}[by], Literal(above, float32)), g, zero)
        return out, index, cut, r.pool_scatter(cut, index, x_shape=x.shape, **params)

    def good(r, x, g):
        out, index, cut, back = pooled(r, x, g)
        if fires == "read twice":
            return [out, back, r.sum(cut, axis=(0,), keepdims=False), r.mul(back, back)]
        more = r.pool_scatter(r.where(r.gt(out, zero), r.mul(g, g), zero), index, x_shape=x.shape, **params)
        return [out, back, *([more] if fires == "two gradients" else [])]

    def uncut(r, x, g):
        out, index, _, back = pooled(r, x, g)
        return [out, back, r.pool_scatter(g, index, x_shape=x.shape, **params)]

    check(good, True)
    check(uncut, False)
    check(lambda r, x, g: [(made := pooled(r, x, g, by="g"))[0], made[3]], False)
    check(lambda r, x, g: [(made := pooled(r, x, g, above=-1.0))[0], made[3]], False)
    check(lambda r, x, g: [(made := pooled(r, x, g))[0], made[1], made[3]], False)
    check(lambda r, x, g: [(made := pooled(r, x, g))[0], made[3], r.pool_gather(x, made[1], **params)], False)


def test_large_results_and_values_between_get_memory_again_once_nobody_holds_it():
    r = Recorder()
    x, w = Var((128, 256), float64), Var((256, 256), float64)  # float32's may be oneDNN's, in memory of its own
    h = r.tanh(r.dot_general(x, w, contract=((1,), (0,)), batch=((), ())))
    y = r.dot_general(h, w, contract=((1,), (0,)), batch=((), ()))
    run = xp.compile(Graph([x, w], r.equations, [y]))
    rng = np.random.default_rng(7)
    args = [native(rng.normal(size=v.shape) / 16, float64) for v in (x, w)]
    want = torch.tanh(args[0] @ args[1]) @ args[1]
    (first,) = run(*args)
    view, array = first[3:5], run(*args)[0].numpy()  # a view and a NumPy array keep memory as well as the tensor
    place, copies = memory(first), (first[3:5].clone(), array.copy())
    del first
    later = [run(args[0] * 2, args[1])[0] for _ in range(4)]
    assert torch.equal(view, copies[0]) and np.array_equal(array, copies[1])
    assert len({memory(a) for a in later} | {place, array.ctypes.data}) == 6
    again = xp.compile(Graph([x, w], r.equations, [y]))
    places = set()
    for _ in range(4):
        (out,) = again(*args)
        assert torch.allclose(out, want, atol=1e-6)
        places.add(memory(out))
        del out
    assert len(places) == 1


def test_threads_share_a_program_but_not_its_memory():
    from concurrent.futures import ThreadPoolExecutor

    r = Recorder()
    x = Var((256, 256), float32)
    y = r.exp(r.neg(r.dot_general(x, x, contract=((1,), (0,)), batch=((), ()))))
    run = xp.compile(Graph([x], r.equations, [y, r.sum(y, axis=(0,), keepdims=False)]))
    inputs = [torch.full((256, 256), i / 1000) for i in range(8)]
    wants = [[a.clone() for a in run(i)] for i in inputs]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(5):
            for out, want in zip(pool.map(lambda i: run(i), inputs), wants, strict=True):
                assert all(torch.equal(a, b) for a, b in zip(out, want, strict=True))


compiler = pytest.mark.skipif(shutil.which(os.environ.get("CXX", "g++")) is None, reason="needs a C++ compiler")


@compiler
def test_inductor_means_the_same_at_every_special_point():
    """One program of all the functions of one argument, softmax, gelu, attention's pieces, and whole rows of -inf."""
    r = Recorder()
    points = [0.0, -0.0, 0.5, -0.5, 1.0, -1.0, 2.5, -30.0, 88.0, 1e30, -1e30, inf, -inf, nan, 1e-40, 3.0]
    data = np.array([points, points[::-1], [-inf] * 16, [inf] + [1.0] * 15], "float32")
    x, y = Var(data.shape, float32), Var(data.shape, float32)
    made = {}
    for name, p in table.items():
        if p.args == ("x",) and not p.params:
            with contextlib.suppress(TypeError, ValueError):  # what is of integers, or of square matrices
                made[name] = getattr(r, name)(x)
    names, outputs = list(made), list(made.values())
    outputs += [r.softmax(x, axis=1), r.log_softmax(x, axis=1), r.gelu(x, tanh=True), r.gelu_dx(y, x, tanh=False)]
    outputs += [r.logsumexp(x, axis=(1,), keepdims=False)]
    outputs += [r.maximum(x, y), r.pow(x, y), r.remainder(x, y), r.floor_divide(x, y)]
    outputs += [r.nextafter(r.cast(x, dtype=float16), r.cast(y, dtype=float16))]
    outputs += [r.where(r.gt(x, y), x, Literal(0.0, float32)), r.cast(x, dtype=int32), x, y, y]
    large = [r.cast(v, dtype=uint32) for v in (x, y)]
    outputs += [r.where(r.gt(x, y), *large)]
    graph = Graph([x, y], r.equations, outputs)
    args = [native(data, float32), native(data[:, ::-1], float32)]
    want, run = interpret(graph, args), xp.compile(graph, mode="inductor")
    assert len(names) > 25 and run is xp.compile(graph, mode="inductor")
    kept = []
    for _ in range(2):
        out = run(*args)
        for i, (a, b) in enumerate(zip(out, want, strict=True)):
            np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=2e-6, atol=1e-37, err_msg=str((names + ["more"] * 20)[i]))
        kept += out
    assert len({memory(a) for a in (*kept, *args)}) == len(kept) + 2  # nothing shares memory
    np.testing.assert_array_equal(run(args[0].t().contiguous().t(), args[1])[0].numpy(), out[0].numpy())  # in another order in memory
    with pytest.raises(TypeError, match="compiled for torch.float32"):
        run(args[0].double(), args[1])
    with pytest.raises(TypeError, match="called with torch.float32"):
        run(args[0][:2], args[1])


@pytest.mark.parametrize("flipped", [False, True])
def test_a_product_of_rows_with_a_bias_is_one_call(flipped):
    x, w, b = Var((2, 5, 3), float32), Var((4, 3), float32), Var((4,), float32)

    def program(keep):
        r = Recorder()
        product = r.dot_general(x, w, contract=((2,), (1,)), batch=((), ()))
        out = r.add(b, product) if flipped else r.add(product, b)
        return Graph([x, w, b], r.equations, [r.relu(out), *([product] if keep else [])])

    rng = np.random.default_rng(0)
    args = [native(rng.normal(size=v.shape), float32) for v in (x, w, b)]
    args[0][0, 1, 2] = inf
    for keep in (False, True):
        graph = program(keep)
        names = [e.primitive.name for e in torch_rewrite.rewritten(graph, "cpu").equations]
        assert names == (["dot_general", "add", "relu"] if keep else ["affine", "relu"])
        for a, c in zip(xp.compile(graph)(*args), interpret(graph, args), strict=True):
            np.testing.assert_allclose(a.numpy(), c.numpy(), rtol=1e-5, atol=1e-6)


def test_the_derivative_of_gelu_goes_part_by_part_over_a_large_array():
    rng = np.random.default_rng(0)
    g, x = (torch.tensor(rng.normal(size=(3, torch_composites._PART // 2 + 5)), dtype=torch.float32) for _ in range(2))
    want = torch.ops.aten.gelu_backward(g.double(), x.double(), approximate="tanh")
    out = torch.empty_like(x)
    assert torch_composites.gelu_dx(g, x, tanh=True, out=out).data_ptr() == out.data_ptr()
    for found in (out, torch_composites.gelu_dx(g, x, tanh=True), torch_composites.gelu_dx(g.t(), x.t(), tanh=True).t()):
        np.testing.assert_allclose(found.numpy(), want.numpy(), rtol=1e-5, atol=1e-6)


@compiler
def test_inductor_calls_torchs_attention_and_what_that_gets_wrong_is_computed_again(monkeypatch):
    kernel, calls = torch_composites._flash, []
    monkeypatch.setattr(torch_composites, "_flash", lambda *args, **kwargs: calls.append(args) or kernel(*args, **kwargs))
    r = Recorder()
    q, k, v, g, m = (Var(s, float32) for s in ((2, 1, 96, 8), (2, 1, 96, 8), (2, 1, 96, 8), (2, 1, 96, 8), ()))
    out, lse = r.attention(q, k, v, m, scale=0.3, causal=True)
    graph = Graph([q, k, v, g, m], r.equations, [r.exp(out), lse, r.attention_grad(g, q, k, v, m, out, lse, scale=0.3, causal=True)])
    run, plain = xp.compile(graph, mode="inductor"), xp.compile(graph)
    rng = np.random.default_rng(0)
    args = [native(rng.normal(size=v.shape), float32) for v in graph.inputs]
    infinite = args[0].clone()
    infinite[0, 0, 5, 3] = inf
    for first in (args[0], infinite):
        calls.clear()
        found = run(first, *args[1:])
        assert len(calls) >= 1, "when it runs, not when it was traced"
        for a, b in zip(found, plain(first, *args[1:]), strict=True):
            np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-5, atol=1e-6)


def test_modes_refuse_what_they_cannot_do(monkeypatch):
    assert xp.modes == ("inductor", "channels_first", "channels_last")
    r = Recorder()
    x = Var((3,), float32)
    graph = Graph([x], r.equations, [r.exp(x)])
    with pytest.raises(ValueError, match="has no mode 'cudagraph'; it has 'inductor', 'channels_first'"):
        xp.compile(graph, mode="cudagraph")
    with pytest.raises(RuntimeError, match="move the data to cuda"):
        torch_modes.cudagraph(lambda x: (x,), [((3,), torch.float32)], torch.device("cpu"), graph)
    i = Var((), float32)
    loop = Equation(table["while_loop"], (x,), {"cond": Graph([i], [], [i]), "body": Graph([i], [], [i])}, (Var((3,), float32),))
    with pytest.raises(NotImplementedError, match="decides by values"):
        xp.compile(Graph([x], [loop], [x]), mode="inductor")
    step = Graph([i], [Equation(table["exp"], (i,), {}, (Var((), float32),))] * 10, [i])
    long = Graph([x], [Equation(table["scan"], (x,), {"body": step, "length": 1000}, (x,))], [x])
    with pytest.raises(NotImplementedError, match="10001 equations"):
        xp.compile(long, mode="inductor")
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(RuntimeError, match="needs a C\\+\\+ compiler and found no 'no-such-compiler'"):
        xp.compile(Graph([x], [], [x]), mode="inductor")


def test_unsigned_programs():
    r = Recorder()
    a, b = Var((3,), uint32), Var((3,), uint32)
    s = r.add(a, b)
    outputs = [r.maximum(r.mul(s, s), b), r.sum(r.cast(s, dtype=uint64), axis=(0,), keepdims=False), r.lt(a, b), r.relu(a)]
    check_program(Graph([a, b], r.equations, outputs), [native([1, 2**31, 2**32 - 1], uint32), native([5, 2**31, 2], uint32)])


def test_large_stacks_of_a_loop_get_memory_again_once_nobody_holds_it():
    step = Recorder()
    c, x = Var((64, 64), float32), Var((64, 64), float32)
    product = step.mul(c, x)
    body = Graph([c, x], step.equations, [c, product, x])
    xs = torch.arange(5.0)[:, None, None].expand(5, 64, 64)
    run = lambda xs: xp.scan(torch.ones(64, 64), xs, body=body, length=len(xs), n_consts=0, n_carry=1, reverse=False)[1:]
    first = run(xs)
    view, place = first[0][1:], {memory(a) for a in first}
    del first
    second = run(xs * 2.0)
    assert view[1, 0, 0].item() == 2.0 and second[0][2, 0, 0].item() == 4.0 and len({memory(a) for a in second} & place) <= 1
    again, held, places = xs[:4], [], set()
    for k in range(3):
        found = run(again + k)
        assert all(torch.equal(a, again + k) for a in found)
        places |= {memory(a) for a in found}
        del found
        held.append(torch.empty(4, 64, 64))  # which takes what the allocator has back
    assert len(places) == 2


def test_control_flow():
    step = Recorder()
    c, s, x = (Var((), float32) for _ in range(3))
    t = step.add(s, step.mul(c, x))
    body = Graph([c, s, x], step.equations, [t, t])
    one, xs = native(2, float32), native([1, 2, 3], float32)
    for reverse, ys in ((False, [3, 7, 13]), (True, [13, 11, 7])):
        carry, stack = xp.scan(one, native(1, float32), xs, body=body, length=3, n_consts=1, n_carry=1, reverse=reverse)
        assert carry.item() == 13 and values(stack) == ys
    carry, stack = xp.scan(one, native(1, float32), xs[:0], body=body, length=0, n_consts=1, n_carry=1, reverse=False)
    assert carry.item() == 1 and stack.shape == (0,) and stack.dtype is torch.float32
    test, double = Recorder(), Recorder()
    limit, v, u = Var((), float32), Var((), float32), Var((), float32)
    smaller = test.lt(v, limit)
    cond = Graph([limit, v], test.equations, [smaller])
    twice = double.add(u, u)
    double_body = Graph([u], double.equations, [twice])
    assert xp.while_loop(native(50, float32), one, cond=cond, body=double_body, n_cond=1, n_body=0)[0].item() == 64
    same = Graph([u], [], [u])
    for index, want in ((-5, 4), (0, 4), (1, 2), (9, 2)):
        assert xp.cond(native(index, int64), one, branches=(double_body, same))[0].item() == want


# ---- conversions and settings ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("dtype", dtypes.all_dtypes, ids=repr)
def test_arrays_go_in_and_out(dtype):
    data = np.arange(6).reshape(2, 3).astype(dtype.numpy)
    data.flags.writeable = False
    for view in (data, data[::-1, ::-2], data.T, data[0, 1], data[:0], data.astype(data.dtype.newbyteorder(">")) if dtype is not bfloat16 else data):
        there = xp.asarray(view, dtype)
        back = xp.to_numpy(there)
        assert there.dtype is xp.native_dtype(dtype) and xp.dtype_of(there) is dtype and back.dtype == dtype.numpy
        np.testing.assert_array_equal(back, view)
    mutable = np.ones(3, dtype.numpy)
    there = xp.asarray(mutable, dtype)
    mutable[:] = 0
    assert values(xp.cast(there, dtype=int64)) == [1, 1, 1]


def test_foreign_tensors_lose_their_history():
    leaf = torch.ones(3, requires_grad=True)
    assert not xp.from_dlpack(leaf.detach()).requires_grad
    shared = np.ones(3)
    there = xp.from_dlpack(shared)
    shared[0] = 5
    assert values(there) == [5, 1, 1]


def test_the_users_defaults_neither_matter_nor_change():
    """Default dtype and default device belong to the user; "meta" tensors hold no data, so nothing may land there."""
    x = native([[1, 4, 2], [0, 0, 9]], float32)
    pool = {"window": (2,), "stride": (1,), "padding": ((1, 1),), "dilation": (1,)}

    def everything():
        out, index = xp.max_pool(x, **pool)
        return [
            xp.full(shape=(2,), value=1.5, dtype=float32), xp.iota(size=3, dtype=float32), xp.scalar(2.0, float32), xp.polygamma(x, n=1), out, index,
            xp.pool_gather(x, index, **pool), xp.scatter(x, x, native([1, 0], int64), mode="set"), xp.softmax(x, axis=1), xp.pow(x, 0.5),
            xp.floor_divide(native([1, 2], int32), native([0, 2], int32)), xp.cast(x, dtype=uint8), xp.pad(x, widths=((0, 1), (0, 0)), value=2.0),
        ]  # fmt: skip

    want = everything()
    torch_windows._places.cache_clear()
    torch.set_default_dtype(torch.float64)
    torch.set_default_device("meta")
    try:
        got = everything()
    finally:
        torch.set_default_device(None)
        torch.set_default_dtype(torch.float32)
    assert all(torch.equal(a, b) and a.dtype is b.dtype and a.device == b.device for a, b in zip(got, want, strict=True))


def test_programs_do_not_see_the_users_default_device():
    """Memory of a program's own, relu's derivative with and without nan, pooling as slices."""
    rng = np.random.default_rng(0)
    x, y, image = (md.asarray(rng.normal(size=s).astype(np.float32), backend="torch") for s in ((200, 200), (200, 200), (4, 3, 33, 33)))
    holed = md.where(md.eye(200, backend="torch") > 0, nan, x)

    def f(x, y, image):
        top = md.grad(lambda image: md.sum(md.sin(md.max_pool(md.relu(image), 2))))(image)
        return x @ y + 1.0, md.grad(lambda x: md.sum(md.relu(x * 2.0) * y))(x), top

    want = [f(x, y, image), f(holed, y, image)]
    torch.set_default_device("meta")
    try:
        run = md.jit(f)
        got = [run(x, y, image), run(holed, y, image)]
    finally:
        torch.set_default_device(None)
    for a, b in zip(itertools.chain(*got), itertools.chain(*want), strict=True):
        assert a.payload.device.type == "cpu"
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-6)


def test_inductor_trains_as_the_first_choice_does():
    def train(mode):
        md.manual_seed(0)
        with md.use_backend("torch"):
            net = md.nn.Sequential(md.nn.Conv2d(1, 3, 3), md.nn.ReLU(), md.nn.MaxPool2d(2), md.nn.Flatten(), md.nn.LayerNorm(27), md.nn.Linear(27, 4))
            rng = np.random.default_rng(0)
            x, y = md.tensor(rng.normal(size=(5, 1, 8, 8)).astype(np.float32)), md.tensor(rng.integers(0, 4, 5))
            optimizer = md.optim.AdamW(net.parameters(), lr=1e-2)

        @md.jit(mode=mode)
        def step(x, y):
            optimizer.zero_grad()
            loss = md.nn.functional.cross_entropy(net(x), y)
            loss.backward()
            optimizer.step()
            return loss

        return [step(x, y).item() for _ in range(4)]

    np.testing.assert_allclose(train("inductor"), train(None), rtol=2e-5)


@pytest.mark.parametrize("dtype", [float32, float64], ids=str)
@pytest.mark.parametrize("special", [None, inf, -inf, nan, 1e20, -1e20])
@pytest.mark.parametrize("how", ["none", "tanh"])
def test_gelu_of_many_elements_is_the_table_too(how, special, dtype):
    """Large arrays take another kernel, which must know the same limits; jitted it writes to memory of the program's."""
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(70, 300)) * rng.choice([0.1, 1.0, 5.0, 30.0], (70, 300))).astype(dtype.numpy)
    x[2, 3] = special if special is not None else x[2, 3]
    g = rng.normal(size=x.shape).astype(dtype.numpy)

    def both(x, g):
        out, pull = md.vjp(lambda x: md.gelu(x, how), x)
        (d,) = pull(g)
        return out, d

    eager, jitted = (f(md.asarray(x, backend="torch"), md.asarray(g, backend="torch")) for f in (both, md.jit(both)))
    want = both(md.asarray(x.astype(np.float64), backend="numpy"), md.asarray(g.astype(np.float64), backend="numpy"))
    eps = float(np.finfo(dtype.numpy).eps)
    for a, b, w, scale in zip(eager, jitted, want, (x, g), strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())
        size = np.maximum(1.0, abs(np.nan_to_num(scale.astype(np.float64), posinf=1, neginf=1)))
        np.testing.assert_array_less(abs(np.nan_to_num(a.numpy()) - np.nan_to_num(w.numpy().astype(dtype.numpy))), 64 * eps * size)
        np.testing.assert_array_equal(np.isnan(a.numpy()), np.isnan(w.numpy()))


@pytest.mark.parametrize("dtype", [float32, float64, float16, bfloat16], ids=str)
def test_a_choice_between_many_numbers_and_zero(dtype):
    """By bits, not by a branch or a product: nothing of inf or nan is left where they are not chosen, and no sign."""
    rng = np.random.default_rng(0)
    x = rng.choice([1.5, -2.0, 0.0, -0.0, inf, -inf, nan], (90, 90)).astype(dtype.numpy)
    c = rng.random((90, 90)) < 0.5
    there, test = xp.asarray(x, dtype), torch.from_numpy(c)
    for view, mask in ((there, test), (there.t(), test.t()), (there[:80:, ::1], test[:80])):
        for got, want in (
            (xp.where(mask, view, 0.0), torch.where(mask, view, torch.zeros_like(view))),
            (xp.where(mask, 0.0, view), torch.where(mask, torch.zeros_like(view), view)),
            (xp.where(mask, view, -0.0), torch.where(mask, view, -torch.zeros_like(view))),
            (xp.bare.where(mask, view, 0.0), torch.where(mask, view, torch.zeros_like(view))),
        ):
            assert got.dtype is view.dtype and torch.equal(torch.signbit(got), torch.signbit(want))
            np.testing.assert_array_equal(got.double().numpy(), want.double().numpy())


@pytest.mark.parametrize("special", [None, inf, -inf, nan])
@pytest.mark.parametrize(("shape", "window"), [((2, 6, 40, 41), (2, 2)), ((3, 50, 90), (3,)), ((2, 2, 9, 20, 24), (3, 2, 1))], ids=str)
def test_pooling_of_many_windows_is_the_table_too(shape, window, special):
    from minidl.backends import get

    x = np.random.default_rng(1).integers(-3, 4, shape).astype(np.float32)  # ties
    if special is not None:
        x[(0,) * len(shape)] = x[(1,) * len(shape)] = x[(-1,) * len(shape)] = special
    n = len(window)
    how = {"window": window, "stride": window, "padding": ((0, 0),) * n, "dilation": (1,) * n}
    for got, want in zip(xp.max_pool(xp.asarray(x, float32), **how), get("numpy").max_pool(x, **how), strict=True):
        np.testing.assert_array_equal(got.numpy(), want)


def test_places_outside_have_log_softmax_zero():
    rows = np.array([[1.0, 2.0, -inf], [-inf] * 3, [inf, inf, 0.0], [0.5, nan, 1.0]], np.float32)
    from minidl.backends import get

    for places in ([0, 1, 0, 2], [2, 0, 2, 1], [-1, 3, 0, 5]):
        at = np.array(places)
        got = xp.log_softmax_at(xp.asarray(rows, float32), xp.asarray(at, int64), axis=1)
        np.testing.assert_allclose(got.numpy(), get("numpy").log_softmax_at(rows, at, axis=1), rtol=1e-6)


def test_unknown_devices_are_refused_with_a_list():
    for device in ("tpu", "cuda:99", "meta"):
        with pytest.raises(ValueError, match=r"backend torch: no device .* it can use cpu"):
            make(device)
    assert isinstance(make("cpu"), TorchBackend) and make().device == "cpu"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_agrees_with_the_cpu():
    cuda = make("cuda")
    assert cuda.device == "cuda:0"
    rng = np.random.default_rng(6)
    image, kernel = rng.normal(size=(2, 4, 9, 9)), rng.normal(size=(6, 4, 3, 3))
    window = {"stride": (1, 1), "padding": ((1, 1), (1, 0)), "dilation": (1, 1), "groups": 1}
    pool = {"window": (2, 2), "stride": (2, 2), "padding": ((0, 0), (0, 0)), "dilation": (1, 1)}
    whole = rng.integers(-9, 9, (5, 5))
    for dtype, tolerance in ((float32, 1e-5), (float64, 1e-13)):
        results = []
        for b in (xp, cuda):
            x, w = b.asarray(image.astype(dtype.numpy), dtype), b.asarray(kernel.astype(dtype.numpy), dtype)
            out = b.conv(x, w, **window)
            top, index = b.max_pool(out, **pool)
            i = b.asarray(whole, int64)
            results.append([
                out, b.conv_dx(out, w, x_shape=tuple(x.shape), **window), top, index, b.softmax(x, axis=3), b.full(shape=(2,), value=1, dtype=dtype),
                b.dot_general(i, i, contract=((1,), (0,)), batch=((), ())),
                b.scatter(x[0], x[0], b.asarray(np.array([1, 1, 9, 0]), int64), mode="set"),
            ])  # fmt: skip
        for on_cpu, on_cuda in zip(*results, strict=True):
            assert on_cuda.is_cuda
            np.testing.assert_allclose(cuda.to_numpy(on_cuda), xp.to_numpy(on_cpu), rtol=tolerance, atol=tolerance)
    cuda.synchronize()


@pytest.mark.parametrize("other", [True, False])
def test_tanh_of_many_is_numpys_where_mkl_has_kernels_for_another_processor(other, monkeypatch):
    from minidl.backends import torch_elementwise

    monkeypatch.setattr(torch_elementwise, "halved", lambda: other)
    inf, nan = float("inf"), float("nan")
    edges = np.array([0.0, -0.0, inf, -inf, nan, 1e-45, -1e-40, 3e38, 9.01, -1e-4], np.float32)
    x = np.concatenate([np.random.default_rng(0).normal(size=2038).astype(np.float32), edges])
    want = np.tanh(x.astype(np.float64))
    square, complexes = torch.from_numpy(x.reshape(32, 64)), torch.complex(torch.zeros(2048), torch.from_numpy(-x)).conj()
    with md.use_backend("torch"):
        run = md.jit(lambda x: md.tanh(x * 1.0))
        found = {"eager": md.tanh(md.tensor(x)).payload, "program": run(md.tensor(x)).payload}
    found |= {"turned": xp.tanh(square.t()).t(), "negated": xp.tanh(complexes.imag), "into": xp.quick.tanh(square, out=torch.empty(32, 64))}
    for how, got in found.items():
        got = got.numpy().reshape(-1)
        np.testing.assert_array_equal(np.signbit(got[np.isfinite(got)]), np.signbit(want[np.isfinite(got)]), err_msg=how)
        np.testing.assert_allclose(got, want, rtol=2e-7, err_msg=how)
        assert torch.equal(torch.from_numpy(got).nan_to_num(), found["eager"].nan_to_num()), how
    assert torch.equal(found["eager"].nan_to_num(), torch.from_numpy(np.tanh(x) if other else torch.tanh(torch.from_numpy(x)).numpy()).nan_to_num())


# ---- the update of Adam as one kernel ---------------------------------------------------------------------------------------------------------
def _stepped(jit, dtype, n=5000, steps=4, share=None, **kwargs):
    rng = np.random.default_rng(0)
    start, grads = rng.normal(size=n).astype(dtype), rng.normal(size=(steps, n)).astype(dtype)
    with md.use_backend("torch"):
        p = md.tensor(start, requires_grad=True)
        opt = md.optim.AdamW([p], lr=0.01, **kwargs)

        def step(g):
            p.grad = g
            opt.step()

        step = jit(step)
        for g in grads:
            if share is not None:
                share(p, opt)
            step(md.asarray(g))
        state = {k: v.numpy() for k, v in opt.state[p].items()}
        return {"p": p.detach().numpy(), **state}, step


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kwargs", [{}, {"weight_decay": 0.0}, {"eps": 0.0, "betas": (0.0, 0.5)}])
def test_the_update_of_adam_is_one_kernel(dtype, kwargs):
    from minidl.rewrites.updates import on_torch as torch_updates

    assert torch_updates._kernel is not None
    want, _ = _stepped(lambda f: f, dtype, **kwargs)
    got, step = _stepped(md.jit, dtype, **kwargs)
    graph = torch_updates.updates(step.programs[0].graph)
    assert sum(e.primitive.name == "adam_step" for e in graph.equations) == 1 and len(graph.equations) < 13
    for k, v in want.items():
        np.testing.assert_allclose(got[k], v, rtol=1e-5 if dtype == "float32" else 1e-13, atol=1e-7 if dtype == "float32" else 1e-15, err_msg=k)


@pytest.mark.parametrize("order", ["behind", "first", "above", "by root", "above the quotient by root"])
def test_the_update_of_adam_is_one_kernel_wherever_its_rate_stands(order):
    from minidl.rewrites.updates import on_torch as torch_updates

    def update(p, mean, square, g, size, root):
        mean, square = mean + (g - mean) * 0.1, square * 0.9 + md.square(g) * 0.1
        low = md.sqrt(square) / root + 1e-8 if "root" in order else md.sqrt(square) + 1e-8
        move = {"behind": lambda: mean / low * size, "first": lambda: size * (mean / low), "by root": lambda: mean / low * size}
        return p - move.get(order, lambda: mean * size / low)(), mean, square

    rng = np.random.default_rng(0)
    with md.use_backend("torch"):
        args = [*(md.tensor(np.abs(rng.normal(size=300)).astype(np.float32)) for _ in range(4)), md.tensor(0.01), md.tensor(0.5)]
        step = md.jit(update)
        for got, want in zip(step(*args), update(*args), strict=True):
            np.testing.assert_allclose(got.numpy(), want.numpy(), rtol=1e-5, atol=1e-7)
        graph = torch_updates.updates(step.programs[0].graph)
    assert [e.primitive.name for e in graph.equations].count("adam_step") == 1


def test_the_kernel_of_adam_gives_what_the_equations_give_at_the_edges():
    from minidl.rewrites.updates.on_torch import adam_step

    inf, nan = float("inf"), float("nan")
    values = torch.tensor([0.0, -0.0, 1.0, -1.0, inf, -inf, nan, 1e-30, 1e30] * 9)
    grad = torch.tensor([v for v in (0.0, 1.0, inf, nan, 1e-30, -1.0, 1e30, -inf, -0.0) for _ in range(9)])
    square = values.abs()
    scalars = {"keep": 0.999, "less": 0.1, "decay": 0.9, "more": 0.1, "root": 0.5, "eps": 1e-8, "size": 0.01}
    for change in ({}, {"size": 0.0}, {"size": nan}, {"eps": inf}, {"root": 0.0}, {"keep": nan}, {"size": -0.01}):
        f, less, decay, more, root, eps, size = ({**scalars, **change}[k] for k in scalars)
        keep, less, decay, more, root, eps, size = map(torch.tensor, (f, less, decay, more, root, eps, size))
        mean = values.clone()
        got = adam_step(values.clone(), mean.clone(), square.clone(), grad, keep, less, decay, more, root, eps, size, into=(None,) * 3)
        new = mean + (grad - mean) * less
        v = square * decay + grad * grad * more
        want = (values * keep - new / (v.sqrt() / root + eps) * size, new, v)
        for a, b in zip(got, want, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7, equal_nan=True)


def test_state_is_updated_in_place_where_torch_alone_holds_it():
    """Views, NumPy arrays, DLPack capsules and other tensors of a parameter or a moment keep their values."""
    want, _ = _stepped(md.jit, "float32", n=300_000)
    places, kept = [], []

    def look(p, opt):
        places.append(p.payload.data_ptr())

    got, _ = _stepped(md.jit, "float32", n=300_000, steps=6, share=look)
    assert len(set(places[2:])) == 1

    def share(p, opt):
        shown = [p.payload.detach(), opt.state[p]["exp_avg"].payload[10:20], torch.from_dlpack(opt.state[p]["exp_avg_sq"].payload.__dlpack__())]
        kept.extend((x, x.clone()) for x in shown)
        kept.append((torch.from_numpy(array := p.payload.numpy()), torch.from_numpy(array.copy())))

    got, _ = _stepped(md.jit, "float32", n=300_000, share=share)
    for a, b in kept:
        assert torch.equal(a, b)
    for k, v in want.items():
        np.testing.assert_array_equal(got[k], v, err_msg=k)


def test_any_state_that_dies_in_its_update_is_written_over():
    with md.use_backend("torch"):
        w = md.zeros((300_000,))
        step = md.jit(lambda x: [w.assign(w * 0.5 + x)] and None)
        x, places = md.ones((300_000,)), []
        for _ in range(6):
            step(x)
            places.append(w.payload.data_ptr())
        assert len(set(places[1:])) == 1 and w[0].item() == 1.96875 and x[0].item() == 1.0
        view = md.jit(lambda x: [w.assign(w.reshape((2, -1)).T.reshape(-1) + x)] and w.reshape((3, -1)))
        for i in range(3):
            out = view(x)
            assert out.shape == (3, 100_000) and out[0, 0].item() == w[0].item() == 2.96875 + i


def test_the_real_part_that_a_cast_takes_is_no_view():
    """What is computed from it may be written over it, and the complex numbers are still read afterwards."""
    with md.use_backend("torch"):
        z = md.asarray(np.array([1 + 2j, 3 - 1j]))

        def f(z):
            y = z * 2.0
            real = y.to(md.float64)
            return real + real, md.conj(y)

        for got in (f(z), md.jit(f)(z)):
            assert [g.tolist() for g in got] == [[4.0, 12.0], [2 - 4j, 6 + 2j]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "shape, window", [((2, 3, 8, 9), (2, 2)), ((1, 9, 11), (3,)), ((2, 2, 9, 8), (3, 2)), ((2, 3, 8, 6), (2, 1)), ((1, 2, 4, 6, 6), (2, 1, 3))]
)
def test_pooling_one_axis_after_the_other_chooses_the_first_maximum_of_each_window(shape, window, dtype):
    pool_masks, spread = torch_windows.pool_masks, torch_windows.spread

    n = len(window)
    how = {"window": window, "stride": window, "padding": ((0, 0),) * n, "dilation": (1,) * n}
    x = torch.from_numpy(np.random.default_rng(0).integers(-2, 3, shape)).to(dtype)  # many ties
    out = tuple(s // k for s, k in zip(shape[-n:], window, strict=True))
    best, index = torch_windows._pool_any(x, out, window, window, how["padding"], how["dilation"])
    got, masks = pool_masks(x, window=window)
    g = torch.full_like(best, torch.inf)  # which no mask may turn into nan
    assert torch.equal(got, best)
    assert torch.equal(torch_windows._index(torch_windows.sliced_maxima(x, window)[1], window).long(), index)
    assert torch.equal(spread(g, masks, x_shape=shape, **how), torch_windows.pool_scatter(g, index, x_shape=shape, **how))


def test_pooling_of_many_channels_is_that_of_few():
    x = torch.from_numpy(np.random.default_rng(0).integers(-2, 3, (2, 16, 7, 6))).float()
    how = {"window": (3, 2), "stride": (2, 1), "padding": ((1, 1), (1, 1)), "dilation": (1, 1)}
    for flat in (False, True):
        parts = [xp.max_pool(x[:, k : k + 4], **how, flat=flat) for k in range(0, 16, 4)]
        for got, want in zip(xp.max_pool(x, **how, flat=flat), zip(*parts, strict=True), strict=True):
            assert got.is_contiguous() and torch.equal(got, torch.cat(want, 1))


def test_the_numbers_of_an_update_have_the_bits_of_tensors():
    from minidl.rewrites.updates import on_torch as torch_updates

    def corrections(beta, rate, step):
        step = step + 1.0
        root = md.sqrt(1.0 - beta**step)
        return (-(rate / (1.0 - beta**step) * root)).to(md.float32), (root * 1e-8).to(md.float32)

    with md.use_backend("torch"):
        graph = md.trace(corrections)(*(md.zeros((), dtype=md.float64) for _ in range(3)))
        program = xp.callable(graph)
    source, _ = torch_updates.emit(graph, torch_updates._in_python, lambda k, env: repr(float(k.value)))
    functions = torch_updates._functions(source.replace(f"def {graph.name}(", "def numbers("))
    inf, nan = float("inf"), float("nan")
    rng = np.random.default_rng(0)
    cases = [(b, r, float(s)) for b, r, s in zip(rng.uniform(0, 1, 300), rng.uniform(0, 1, 300), rng.integers(0, 5000, 300), strict=True)]
    cases += [(inf, nan, 1.0)]
    cases += [(1.0, 0.1, 3.0), (1.0, 0.0, 0.0), (2.0, 0.1, 4.0), (-0.5, 0.1, 0.5), (0.0, 0.1, -3.0), (1e200, 1e300, 5.0), (0.9, 1e300, 1.0)]
    for case in cases:
        xs = [torch.tensor(v, dtype=torch.float64) for v in case]
        for want, got in zip(program(*xs), torch_updates.numbers(*xs, function=functions), strict=True):
            np.testing.assert_array_equal(np.float32(got), want.numpy(), err_msg=str(case))


def test_no_tensor_is_made_for_the_numbers_of_an_update():
    from minidl.rewrites.updates import on_torch as torch_updates

    _, step = _stepped(md.jit, "float32", n=64)
    graph = torch_updates.updates(step.programs[0].graph)
    assert [e.primitive.name for e in graph.equations].count("adam_step") == 1
    assert not {e.primitive.name for e in graph.equations} & {"pow", "sqrt", "div", "cast"}


def test_a_convolution_and_its_bias_are_one_call():
    x, w, b = (md.tensor(np.random.default_rng(0).normal(size=s).astype(np.float32), backend="torch") for s in ((2, 3, 8, 8), (4, 3, 3, 3), (4,)))
    f = md.jit(lambda x, w, b: md.relu(md.conv(x, w, b)))
    np.testing.assert_allclose(f(x, w, b).numpy(), md.relu(md.conv(x, w, b)).numpy(), rtol=1e-5, atol=1e-6)
    assert [e.primitive.name for e in torch_rewrites.with_bias(f.programs[0].graph).equations] == ["conv_affine", "relu"]
    kept = md.jit(lambda x, w, b: (y := md.conv(x, w), y + md.reshape(b, (4, 1, 1))))
    kept(x, w, b)
    assert "conv" in [e.primitive.name for e in torch_rewrites.with_bias(kept.programs[0].graph).equations]


def test_a_step_writes_over_what_was_given_only_where_it_is_read_no_more():
    optimizer = md.optim.SGD(lr=0.5, momentum=0.5)
    arrays = np.random.default_rng(0).normal(size=(3, 8, 8)).astype(np.float32)

    def f(p, g, a):
        new, after = optimizer.update(g, {0: {"momentum_buffer": a}}, p)
        return new, after[0]["momentum_buffer"], new - p, a * g

    with md.use_backend("torch"):
        graph = md.trace(f)(*map(md.asarray, arrays))
        settings = [xp.scalar(0.5, v.dtype) for v in graph.inputs[3:]]
        plain, donating = (xp.compile(graph, donate=donate) for donate in ((), (0, 2)))
        assert "sgd_step" in inspect.getsource(plain)
        found = [[o.tolist() for o in run(*(md.asarray(a).payload for a in arrays), *settings)] for run in (plain, donating)]
    assert found[0] == found[1]


@pytest.mark.parametrize("keys", [1, 7, 20])
@pytest.mark.parametrize("masked", [False, True])
def test_a_row_of_nan_scores_is_no_row_that_may_look_nowhere(keys, masked):
    """torch's kernel takes a row of few scores for one, if all are nan."""
    rng = np.random.default_rng(0)
    q, k, v, mask = rng.normal(size=(1, 2, 4, 8)), rng.normal(size=(1, 2, keys, 8)), rng.normal(size=(1, 2, keys, 8)), np.zeros((4, keys))
    q[0, 1, 2, 0], mask[1] = nan, -inf
    found = []
    for name in ("numpy", "torch"):
        with md.use_backend(name):
            a, b, c, m = (md.tensor(x, dtype=md.float32) for x in (q, k, v, mask))
            f = lambda *xs: md.scaled_dot_product_attention(*xs, m if masked else None)  # noqa: B023
            out, pull = md.vjp(f, a, b, c)
            found.append([x.numpy() for x in (out, *pull(md.ones_like(out)))])
    assert np.isnan(found[1][0][0, 1, 2]).all() and (not masked or not found[1][0][0, :, 1].any())
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(5,), (1, 5), (3, 4, 5), (3, 1, 1), (1, 4, 1), (2, 1, 1, 5)])
def test_attention_takes_masks_of_any_number_of_axes(shape):
    """torch's kernel takes two and four: a bias for each head has three."""
    rng = np.random.default_rng(0)
    arrays, mask = [rng.normal(size=(2, 3, n, 6)) for n in (4, 5, 5)], rng.normal(size=shape)
    found = []
    for name in ("numpy", "torch"):
        with md.use_backend(name):
            xs, given = [md.tensor(a) for a in arrays], [md.tensor(mask), md.tensor(mask > 0)]
            for m in given:
                out, pull = md.vjp(lambda *xs: md.jit(md.scaled_dot_product_attention)(*xs, m), *xs)  # noqa: B023
                found.append([x.numpy() for x in (md.scaled_dot_product_attention(*xs, m), out, *pull(md.ones_like(out)))])
    for mine, theirs in zip(found[2:], found[:2], strict=True):
        for a, b in zip(mine, theirs, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)
