"""What is peculiar to the jax backend: 64-bit types beside an untouched jax setting, compiled calls, donation, devices."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import numpy as np
import pytest

jax = pytest.importorskip("jax")

import minidl as md  # noqa: E402
import minidl.control  # noqa: E402  which puts loops and branches into the table
import minidl.nn.functional as F  # noqa: E402
import minidl.primitives.contraction  # noqa: E402
import minidl.primitives.elementwise  # noqa: E402
import minidl.primitives.structural  # noqa: E402
from minidl.backends import get, jax_backend  # noqa: E402
from minidl.dtypes import bool_, float32, float64, int64  # noqa: E402
from minidl.graph import Equation, Graph, Literal, Var  # noqa: E402
from minidl.primitives.core import table  # noqa: E402


@pytest.fixture(scope="module")
def xp():
    return jax_backend.make("cpu")


def program(*steps, inputs, outputs):
    """A graph from (name, inputs, output) triples of elementwise primitives."""
    return Graph(inputs, [Equation(table[n], i, {}, (o,)) for n, i, o in steps], outputs)


def vars_(n, shape=(8,), dtype=float64):
    return tuple(Var(shape, dtype) for _ in range(n))


def x64_is_off():
    jnp = jax.numpy
    return jnp.arange(3).dtype == np.int32 and jnp.ones(3).dtype == np.float32 and not jax.config.jax_enable_x64


def test_float64_and_int64_are_real_and_the_setting_stays(xp):
    assert x64_is_off()
    x = xp.asarray(np.array([1.0, 1 / 3]), float64)
    big = xp.asarray(np.array([2**60 + 1]), int64)
    with xp.scope():
        y, z = xp.mul(x, xp.scalar(1.5, float64)), xp.add(big, big)
        with xp.scope():  # a backward pass inside an operation's scope, or the other way round
            place = xp.argmax(x, axis=0, keepdims=False)
        assert xp.full(shape=(2,), value=0.1, dtype=float64)[0] == 0.1
        assert jax.config.jax_enable_x64
    assert x64_is_off()
    assert xp.dtype_of(y) is float64 and xp.dtype_of(place) is int64
    assert xp.to_numpy(y)[1] == 1 / 3 * 1.5
    assert int(xp.to_numpy(z)[0]) == 2**61 + 2


def test_scope_is_left_when_an_operation_raises(xp):
    with pytest.raises(TypeError), xp.scope():
        xp.add(xp.asarray(np.ones(2), float64), "no array")
    assert x64_is_off()


def test_scopes_of_threads_are_their_own(xp):
    inside, checked, failures = threading.Event(), threading.Event(), []

    def other():
        try:
            with xp.scope():
                inside.set()
                assert checked.wait(30)
                assert xp.dtype_of(xp.iota(size=3, dtype=int64)) is int64
        except BaseException as e:
            failures.append(e)

    t = threading.Thread(target=other)
    t.start()
    assert inside.wait(30)
    try:
        assert x64_is_off()  # while the other thread is inside
    finally:
        checked.set()
        t.join()
    assert not failures


def test_a_user_who_turned_x64_on_keeps_it(xp):
    with jax.enable_x64(True):
        with xp.scope():
            pass
        assert jax.numpy.ones(1).dtype == np.float64
    assert x64_is_off()


def test_compiled_program_keeps_float64_outside_the_scope(xp):
    a, b, c, d = vars_(4)
    f = xp.compile(program(("mul", (a, b), c), ("add", (c, Literal(0.1, float64)), d), inputs=(a, b), outputs=(d, Literal(2.5, float64), c)))
    x = np.linspace(0, 1, 8)
    native = xp.asarray(x, float64)
    results = f(native, native)
    assert type(results) is tuple and x64_is_off()
    d_, k, c_ = results
    assert all(xp.dtype_of(r) is float64 for r in results)
    np.testing.assert_allclose(xp.to_numpy(d_), x * x + 0.1, rtol=4e-16)  # XLA may fuse the multiply-add
    assert float(k) == 2.5
    assert np.array_equal(xp.to_numpy(c_), x * x)

    found = []
    t = threading.Thread(target=lambda: found.append(f(native, native)[2].dtype))
    t.start()
    t.join()
    assert found == [np.float64]


def test_compiled_program_refuses_what_it_was_not_compiled_for(xp):
    a, b = vars_(2)
    f = xp.compile(program(("sin", (a,), b), inputs=(a,), outputs=(b,)))
    f(xp.asarray(np.ones(8), float64))
    with pytest.raises(TypeError):
        f(xp.asarray(np.ones(8), float32))
    with pytest.raises(TypeError):
        f(xp.asarray(np.ones(9), float64))


def test_donation_frees_what_it_can_and_warns_of_nothing(xp):
    a, b, c = vars_(3)
    flag = Var((3,), bool_)
    g = program(("mul", (a, b), c), inputs=(a, b, flag), outputs=(c, b))
    f = xp.compile(g, donate=(0, 1, 2))  # b is returned as it is, flag is never read: neither can be donated, and no warning may arise
    fresh = np.arange(8.0)
    x = xp.mul(xp.asarray(fresh, float64), xp.asarray(np.full(8, 2.0), float64))
    y, z = xp.asarray(np.ones(8), float64), xp.asarray(np.ones(3, bool), bool_)
    product, same = f(x, y, z)
    assert x.is_deleted() and not y.is_deleted() and not z.is_deleted()
    assert np.array_equal(xp.to_numpy(product), fresh * 2) and np.array_equal(xp.to_numpy(same), np.ones(8))


def test_numpy_memory_is_copied_in(xp):
    block = np.empty(1024 + 16, np.float32)
    offset = (-block.ctypes.data) % 64 // 4
    for start in (offset, offset + 1):  # aligned, which XLA would take for its own, and not
        source = block[start : start + 1000]
        source[:] = 1
        native = xp.asarray(source, float32)
        source[:] = 2
        assert np.all(xp.to_numpy(native) == 1)


def test_constants_differ_by_sign_of_zero_and_type(xp):
    with xp.scope():
        assert not np.signbit(xp.to_numpy(xp.full(shape=(1,), value=0.0, dtype=float32)))[0]
        assert np.signbit(xp.to_numpy(xp.full(shape=(1,), value=-0.0, dtype=float32)))[0]
        x = xp.asarray(np.ones(1), float32)
        xp.pad(x, widths=((0, 1),), value=0.0)
        assert np.signbit(xp.to_numpy(xp.pad(x, widths=((0, 1),), value=-0.0))[1])


def test_a_constant_never_shares_memory_with_the_next(xp):
    a, b = vars_(2, ())
    f = xp.compile(program(("neg", (a,), b), inputs=(a,), outputs=(b,)), donate=(0,))
    with xp.scope():
        for _ in range(2):
            assert float(f(xp.full(shape=(), value=3.0, dtype=float64))[0]) == -3.0


def test_a_fused_rule_equals_its_operations(xp):
    def rule(xp, g, x, x_shape, x_dtype):
        return g * (1.0 - xp.tanh(x) * 0.5), xp.full(shape=x_shape, value=2.0, dtype=x_dtype)

    x = xp.asarray(np.linspace(-1, 1, 5), float64)
    with xp.scope():
        one, two = xp.fuse(rule, (2, 3))(x, x, (5,), float64)
        want, _ = rule(xp, x, x, (5,), float64)
    assert one.dtype == two.dtype == np.float64
    np.testing.assert_allclose(xp.to_numpy(one), xp.to_numpy(want), rtol=1e-15)


def test_kernels_do_not_transfer(xp):
    x = xp.asarray(np.ones((2, 3)), float32)
    with xp.scope(), jax.transfer_guard("disallow"):
        y = xp.dot_general(xp.exp(x), xp.pad(x, widths=((1, 0), (0, 0)), value=0.0), contract=((1,), (1,)), batch=((), ()))
        y = xp.add(y, xp.full(shape=(2, 3), value=0.25, dtype=float32))
    assert y.shape == (2, 3)


def test_loops_run_eagerly_and_inside_programs(xp):
    c, x, y, total = vars_(4, ())
    body = program(("mul", (c, x), y), ("add", (c, x), total), inputs=(c, x), outputs=(total, y))
    xs = np.arange(1.0, 5.0)
    params = {"body": body, "length": 4, "n_consts": 0, "n_carry": 1}
    start, native = xp.asarray(np.float64(0), float64), xp.asarray(xs, float64)
    for reverse in (False, True):
        order = xs[::-1] if reverse else xs
        before = np.cumsum(order) - order
        want = (before * order)[::-1] if reverse else before * order
        with xp.scope():
            eager = xp.scan(start, native, reverse=reverse, **params)
            traced = jax.jit(lambda s, n, reverse=reverse: xp.raw.scan(s, n, reverse=reverse, **params))(start, native)
        for final, ys in (eager, traced):
            assert float(final) == 10 and np.array_equal(xp.to_numpy(ys), want)

    i, j, limit = vars_(3, (), int64)
    more = Var((), bool_)
    test = program(("lt", (i, limit), more), inputs=(limit, i), outputs=(more,))
    step = program(("add", (i, Literal(3, int64)), j), inputs=(i,), outputs=(j,))
    with xp.scope():
        (out,) = xp.while_loop(xp.scalar(2**40, int64), xp.scalar(2**40 - 4, int64), cond=test, body=step, n_cond=1, n_body=0)
    assert int(out) == 2**40 + 2

    a, p, q = vars_(3, ())
    branches = (program(("sin", (a,), p), inputs=(a,), outputs=(p,)), program(("neg", (a,), q), inputs=(a,), outputs=(q,)))
    with xp.scope():
        for index, want in ((0, np.sin(2.0)), (1, -2.0), (2**33, -2.0), (-5, np.sin(2.0))):
            (out,) = xp.cond(xp.scalar(index, int64), xp.scalar(2.0, float64), branches=branches)
            assert float(out) == pytest.approx(want, rel=1e-15)


def test_dlpack_and_bfloat16(xp):
    from minidl.backends.numpy_memory import aligned
    from minidl.dtypes import bfloat16

    x = aligned(np.arange(9, dtype=np.float64))
    assert xp.dtype_of(xp.from_dlpack(x)) is float64
    with pytest.raises(ValueError, match="aligned"):
        xp.from_dlpack(x[1:], copy=False)
    assert xp.to_numpy(xp.from_dlpack(x[1:])).tolist() == x[1:].tolist()
    half = xp.asarray(np.array([1.0, 0.1]), bfloat16)
    assert xp.dtype_of(half) is bfloat16 and xp.to_numpy(half).dtype == bfloat16.numpy
    assert xp.is_native(half) and not xp.is_native(x)
    xp.synchronize()
    assert x64_is_off()


def test_unknown_devices_are_refused_with_a_list():
    with pytest.raises(ValueError, match=r"no device 'cpu:77'.*'cpu'"):
        jax_backend.make("cpu:77")
    assert repr(jax_backend.make("cpu")) == "<backend jax on cpu>"


def test_making_a_backend_leaves_the_environment_alone():
    code = (
        "import os; b = dict(os.environ)\nfrom minidl.backends import jax_backend\njax_backend.make('cpu')\nassert dict(os.environ) == b, os.environ"
    )
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    environment.pop("XLA_PYTHON_CLIENT_PREALLOCATE", None)
    subprocess.run([sys.executable, "-c", code], check=True, env=environment, cwd=os.path.dirname(os.path.dirname(__file__)))


def test_donated_memory_goes_to_the_output_that_is_made_from_it(xp):
    """XLA would give the first input to the first output, and copy the other way round."""
    p, m, g, m2, step, p2 = vars_(6)
    update = program(("add", (m, g), m2), ("mul", (m2, Literal(0.5, float64)), step), ("sub", (p, step), p2), inputs=(p, m, g), outputs=(m2, p2))
    assert jax_backend._pairs(update, (0, 1)) == {0: 1, 1: 0}
    f = xp.compile(update, donate=(0, 1))

    def fresh(start):
        return xp.add(xp.asarray(np.arange(8.0), float64), xp.scalar(start, float64))

    with xp.scope():
        old = fresh(1.0), fresh(2.0)
        third = fresh(3.0)
    places = [a.unsafe_buffer_pointer() for a in old]
    mean, parameter = f(*old, third)
    assert [a.unsafe_buffer_pointer() for a in (parameter, mean)] == places and not third.is_deleted()
    np.testing.assert_array_equal(xp.to_numpy(mean), 2 * np.arange(8.0) + 5)
    np.testing.assert_array_equal(xp.to_numpy(parameter), np.arange(8.0) + 1 - (np.arange(8.0) + 2.5))


def test_donation_without_an_output_of_its_own(xp):
    a, b, c = vars_(3)
    g = program(("mul", (a, b), c), inputs=(a, b), outputs=(c, c, Literal(1.0, float64)))
    assert jax_backend._pairs(g, (0, 1)) == {0: 0}
    with xp.scope():
        x, y = xp.full(shape=(8,), value=3.0, dtype=float64), xp.full(shape=(8,), value=2.0, dtype=float64)
    first, second, one = xp.compile(g, donate=(0, 1))(x, y)
    assert xp.to_numpy(first).tolist() == xp.to_numpy(second).tolist() == [6.0] * 8 and float(one) == 1.0
    assert first.unsafe_buffer_pointer() != second.unsafe_buffer_pointer() and not y.is_deleted()


@pytest.mark.parametrize("f", [lambda x: x + 0.0, lambda x: 0.0 + x, lambda x: x - (-0.0), lambda x: x - 0.0, lambda x: x + -0.0])
def test_adding_a_zero_keeps_the_rule_of_signs_under_jit(f):
    import minidl as md

    x = np.array([-0.0, 0.0, -1.5, np.nan, -np.inf], np.float32)
    with md.use_backend("jax"):
        found = md.jit(f)(md.asarray(x)).numpy()
    np.testing.assert_array_equal(found, f(x))
    np.testing.assert_array_equal(np.signbit(found), np.signbit(f(x)))


def test_rows_share_one_program():
    x = md.asarray(np.arange(24.0).reshape(6, 4), backend="jax")
    block = get("jax")._block
    x[0], x[1:3]
    before = block._cache_size()
    for i in range(-6, 6):
        assert x[i].tolist() == x.numpy()[i].tolist()
    for i in range(5):
        assert x[i : i + 2].tolist() == x.numpy()[i : i + 2].tolist()
    assert x[4:9].tolist() == x.numpy()[4:9].tolist() and x[3:1].shape == (0, 4) and x[::2, ::-1].tolist() == x.numpy()[::2, ::-1].tolist()
    assert block._cache_size() <= before + 2
    assert md.grad(lambda x: (x[2] * x[3]).sum())(x).numpy()[2].tolist() == x.numpy()[3].tolist()


def test_sigmoid_of_halves_is_rounded_once():
    """XLA's own overflows in exp(-x), and is 0 from -11 on."""
    x = md.tensor([-16.0, -12.5, -3.0, 0.5, 20.0], dtype="float16", backend="jax")
    want = (1 / (1 + np.exp(-x.numpy().astype(np.float64)))).astype(np.float16)
    for f in (md.sigmoid, md.jit(md.sigmoid)):
        np.testing.assert_allclose(f(x).numpy(), want, rtol=1e-3)


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("shape", [(523, 8), (8, 4, 200)], ids=str)
def test_no_size_loses_a_nan(shape, dtype):
    """XLA's maximum in reductions on a CPU, of jax 0.10, gives the largest of the others from some thousand elements on."""
    x = np.random.default_rng(0).normal(size=shape)
    x[..., 1] = np.where(np.arange(shape[-2]) % 3 == 0, np.nan, x[..., 1])
    x[..., 0] = np.where(np.arange(shape[-2]) % 3 == 1, np.inf, x[..., 0])
    functions = {
        "max": lambda x, a: md.max(x, axis=a), "min": lambda x, a: md.min(x, axis=a, keepdims=True), "all": lambda x, a: md.max(x),
        "two": lambda x, a: md.min(x, axis=(0, -1)), "argmax": lambda x, a: md.argmax(x, axis=a), "argmin": lambda x, a: md.argmin(x, axis=a),
        "logsumexp": lambda x, a: md.logsumexp(x, axis=a), "log_softmax": lambda x, a: md.log_softmax(x, axis=-1),
        "softmax": lambda x, a: md.softmax(x, axis=-1),
    }  # fmt: skip
    run = md.jit(lambda x: [md.astype(f(x, a), md.float64) for f in functions.values() for a in (0, -1)])
    found = {}
    for backend in ("numpy", "jax"):
        with md.use_backend(backend):
            given = md.asarray(x, dtype=dtype)
            found[backend] = [v.numpy() for v in (*run(given), md.astype(md.max(given, axis=0), md.float64))]
    for got, want in zip(found["jax"], found["numpy"], strict=True):
        np.testing.assert_array_equal(np.isnan(got), np.isnan(want))
        np.testing.assert_allclose(got, want, rtol=0.1 if dtype == "bfloat16" else 1e-3, atol=0.02)


@pytest.mark.parametrize("shape", [(5000,), (4, 2600)], ids=str)
def test_no_reduction_loses_a_nan_behind_an_operation_that_it_is_fused_with(shape):
    """XLA's `maximum` and `minimum` do on a CPU, where a sum or an extreme reads them."""
    x = np.linspace(-1, 1, int(np.prod(shape)), dtype=np.float32).reshape(shape)
    x[..., 7] = np.nan
    chosen = [
        F.relu, F.relu6, F.hardtanh, lambda v: md.maximum(v, 0.5), lambda v: md.minimum(v * 2, v), lambda v: md.clip(v, -0.5, 0.5),
        lambda v: md.fmax(v, v), lambda v: md.where(v > 0, v, 0.1 * v), F.softplus, lambda v: md.logaddexp(v, 0.0 * v),
    ]  # fmt: skip
    reductions = [md.sum, md.mean, md.max, md.min, md.prod, md.logsumexp, lambda v: md.sum(md.sum(v, axis=0)), lambda v: md.max(v, axis=-1)]
    run = md.jit(lambda v: [r(f(v)) for f in chosen for r in reductions])
    assert all(np.isnan(v.numpy()).all() for v in run(md.asarray(x, backend="jax")))


def test_extremes_by_comparisons_are_those_of_numpy():
    x = np.array([-np.inf, -2.0, -0.0, 0.0, 3.0, np.inf, np.nan], np.float32)
    a, b = np.meshgrid(x, x)
    for dtype in ("float32", "float64", "float16", "bfloat16", "int32"):
        with np.errstate(all="ignore"):
            p, q = (md.asarray(np.nan_to_num(v, posinf=9, neginf=-9) if dtype == "int32" else v, dtype=dtype, backend="numpy") for v in (a, b))
        for f in (md.maximum, md.minimum, md.fmax, md.fmin, lambda v, w: md.clip(v, -1, 2) + 0 * w, lambda v, w: F.relu(v) + 0 * w):
            want = f(p, q).numpy().astype(np.float64)
            for g in (f, md.jit(f)):
                np.testing.assert_array_equal(g(p.to(backend="jax"), q.to(backend="jax")).numpy().astype(np.float64), want)


@pytest.mark.parametrize("n", [2, 3000])
def test_softmax_and_its_kin_on_rows_with_infinities_and_nan(n):
    """Values and gradients are those of NumPy's kernels, whichever maximum the sum of exponentials is fused with."""
    big, inf, nan = np.finfo(np.float32).max, np.inf, np.nan
    ends = [(0, 1), (nan, 1), (1, nan), (inf, 1), (-inf, 1), (inf, nan), (-inf, nan), (inf, -inf), (inf, inf), (-big, big), (nan, big)]
    x = np.random.default_rng(0).normal(size=(len(ends) + 4, n)).astype(np.float32)
    x[len(ends) :] = [[-inf], [inf], [nan], [-big]]
    x[: len(ends), 0], x[: len(ends), -1] = np.transpose(ends)
    functions = [
        lambda x, i: md.softmax(x, axis=-1), lambda x, i: md.log_softmax(x, axis=-1), lambda x, i: md.logsumexp(x, axis=-1),
        lambda x, i: md.log_softmax(x, axis=-1, at=i), lambda x, i: md.max(x, axis=-1), lambda x, i: md.max(x, axis=-1, keepdims=True) * 2.0,
    ]  # fmt: skip

    def run(x, i):
        values = [f(x, i) for f in functions]
        return values, [md.grad(lambda x, f=f, v=v: md.sum(f(x, i) * md.cos(md.arange(1.0, 1.0 + len(v))).reshape(-1, *(1,) * (v.ndim - 1))))(x)
                        for f, v in zip(functions, values, strict=True)]  # fmt: skip

    found = {}
    for backend in ("numpy", "jax"):
        with md.use_backend(backend):
            given = md.asarray(x), md.asarray([n - 1] * len(x))
            with np.errstate(all="ignore"):
                found[backend] = [v.numpy() for v in md.tree.leaves((run if backend == "numpy" else md.jit(run))(*given))]
    for got, want in zip(found["jax"], found["numpy"], strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)
    row, place = md.asarray([[big, inf]], backend="jax"), md.asarray([1], backend="jax")
    assert [f(row, place).numpy().ravel().tolist() for f in functions] == [[0, 1], [-inf, 0], [inf], [0], [inf], [inf]]


def test_scalars_keep_their_bits_and_64_bits():
    """They come by way of a program."""
    xp = md.asarray(0.0, backend="jax").xp
    values = [(md.float32, -0.0), (md.float32, 1e-45), (md.float32, np.inf), (md.float64, 0.1), (md.float64, 5e-324), (md.bfloat16, 1.5)]
    for dtype, value in [*values, (md.int64, 2**53 + 1), (md.bool, True), (md.complex128, 0.1 - 0j), (md.float32, np.nan)]:
        with xp.scope():
            got = xp.scalar(value, dtype)
        assert np.asarray(got).tobytes() == np.array(value, dtype.numpy).tobytes()
        assert xp.dtype_of(got) is dtype
        assert got.sharding == xp.placement
    with jax.disable_jit():
        assert (md.asarray(3.25, backend="jax") * 7.5).payload.sharding == xp.placement


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_convolutions_of_few_channels_are_those_of_numpy(dtype):
    """They go by the rows of the kernel on a CPU: strides, dilations, padding, a kernel of one column, a nan, derivatives of two orders."""
    rng = np.random.default_rng(0)
    cases = [
        ((2, 3, 9, 8), (4, 3, 3, 2), {"stride": (2, 1), "padding": (1, 2)}), ((1, 1, 8, 5), (1, 1, 5, 1), {"dilation": (1, 2)}),
        ((2, 2, 9, 7), (3, 2, 2, 3), {"dilation": (3, 2), "padding": (2, 0), "stride": (2, 2)}), ((2, 2, 6, 6), (2, 1, 3, 3), {"groups": 2}),
    ]  # fmt: skip
    given = [(rng.normal(size=a), rng.normal(size=b), how) for a, b, how in cases]
    given[0][0][1, 2, 3, 3] = np.nan

    def run(*pairs):
        out = []
        for (x, w), (_, _, how) in zip(pairs, given, strict=True):
            loss = lambda x, w, how=how: md.sum(md.square(F.conv2d(x, w, **how)))
            out += [F.conv2d(x, w, **how), *md.grad(loss, argnums=(0, 1))(x, w), md.vmap(lambda x, how=how, w=w: F.conv2d(x[None], w, **how))(x)]
            out.append(md.jvp(lambda x, w=w, loss=loss: md.grad(loss, argnums=1)(x, w), (x,), (md.ones_like(x),))[1])
        return out

    found = {}
    for backend in ("numpy", "jax"):
        with md.use_backend(backend):
            pairs = [tuple(md.asarray(a, dtype=dtype) for a in arrays) for *arrays, _ in given]
            found[backend] = [v.numpy().astype(np.float64) for v in md.jit(run)(*pairs)]
    tolerance = {"float16": 5e-2, "float32": 1e-4, "float64": 1e-10}[dtype]
    for got, want in zip(found["jax"], found["numpy"], strict=True):
        np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance * 10)
