"""torch on the CPU keeps the channels of convolved images last in memory: values, derivatives and memory are as in any other order."""

from __future__ import annotations

import sys
import threading
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minidl as md
from minidl import auto, contest
from minidl.backends import get
from minidl.nn import functional as F

pytest.importorskip("torch")


def lies_last(x):
    """Whether the channels of this tensor are last in memory."""
    return sys.modules["minidl.backends.torch_linear"].is_last(x.payload)


def drawn(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def turned(a):
    """The same images, their channels last in memory."""
    return np.ascontiguousarray(a.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)


def found(backend, f, arrays, jitted=False):
    """The value of f and its gradients in the first arrays, as NumPy's; f(*tensors) may end in several."""
    args = [md.asarray(a, backend=backend) for a in arrays]

    def scalar(*args):
        y = f(*args)
        return (y * y * md.sin(y)).sum(), y

    g = md.value_and_grad(scalar, argnums=tuple(range(len(args))), has_aux=True)
    (value, y), grads = (md.jit(g) if jitted else g)(*args)
    return [np.asarray(t.detach().numpy(), np.float64) for t in (value, y, *grads)]


def agree(f, arrays, rtol=2e-5, ways=(False, True)):
    wanted = found("numpy", f, arrays)
    for jitted in ways:
        for a, b in zip(found("torch", f, arrays, jitted), wanted, strict=True):
            np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * max(np.abs(b[np.isfinite(b)]).max(initial=0.0), 1e-3))


@given(
    st.sampled_from([(1, 8, 1), (3, 8, 1), (8, 8, 1), (8, 8, 8), (16, 8, 2), (8, 16, 8), (6, 8, 1)]), st.integers(1, 3), st.integers(1, 3),
    st.integers(1, 2), st.integers(1, 2), st.sampled_from([((0, 0), (0, 0)), ((1, 1), (2, 2)), ((0, 2), (1, 0))]), st.booleans(),
)  # fmt: skip
def test_convolutions_and_their_transposes(channels, h, w, stride, dilation, padding, turn):
    (i, o, groups), how = channels, {"stride": (stride, stride), "padding": padding, "dilation": (dilation, dilation)}
    x, k, b = drawn(0, 2, i, 7, 6), drawn(1, o, i // groups, h, w), drawn(2, o)
    agree(lambda x, k, b: md.conv(x, k, b, groups=groups, **how), (turned(x) if turn else x, k, b), 1e-4, (False,))


def test_the_order_is_kept_from_one_operation_to_the_next():
    with md.use_backend("torch"):
        k, w = (md.asarray(drawn(1, 8, c, 3, 3)) for c in (1, 8))
        x = md.asarray(drawn(0, 4, 1, 12, 12)).requires_grad_()
        a = md.conv(x, k, padding=1)
        b = F.batch_norm(F.relu(a), None, None, training=True)
        c = F.interpolate(F.max_pool2d(b, 2), scale_factor=2)
        d = md.concat([b, c, F.interpolate(F.max_pool2d(b, 2), size=(12, 12), mode="bilinear")], axis=1)
        out = md.conv(d[:, :8] * 2.0 + md.where(d[:, 8:16] > 0, 1.0, 0.0), w, padding=1)
        assert all(map(lies_last, (a, b, c, d, out)))
        assert all(t.payload.stride(1) == 1 for t in md.autograd.grad((out * out).sum(), (a, b, c, d)))
        assert md.autograd.grad(md.conv(b.detach(), w.requires_grad_()).sum(), w)[0].payload.is_contiguous(), "an optimizer's kernels read it so"


def net(x, k, w, v, g):
    """What images meet: a residual sum, batch normalisation, pooling, enlargement, concatenation, a slice, and a mean of each channel."""
    a = F.relu(F.batch_norm(md.conv(x, k, padding=1), None, None, training=True))
    b = F.relu(a + md.conv(a, w, padding=1))
    c = F.interpolate(F.max_pool2d(b, 2), scale_factor=2)
    d = F.interpolate(F.max_pool2d(a, 3, 2, 1), scale_factor=2, mode="bilinear")
    e = md.conv(md.concat([b, c, d], axis=1), v, padding=1)
    return md.where(e > 0, g[:, :, None, None] * 1.0, 0.0).mean((2, 3)) + e[:, :, ::3, 1] .mean(-1) + e.reshape((*e.shape[:2], -1))[..., 5]


ARRAYS = drawn(0, 2, 3, 8, 8), drawn(1, 8, 3, 3, 3), drawn(2, 8, 8, 3, 3), drawn(3, 8, 24, 3, 3) / 8, drawn(4, 2, 8)


def test_a_network_has_the_values_and_gradients_of_numpys():
    agree(net, ARRAYS, 1e-3)


def test_what_a_program_gave_and_was_given_stays():
    with md.use_backend("torch"):
        f = md.jit(md.value_and_grad(lambda *a: (net(*a) ** 2).sum(), argnums=(0, 1, 2, 3, 4)))
        wide = [drawn(7, 8, 3, 32, 32), *ARRAYS[1:4], drawn(8, 8, 8)]  # whose images are kept from call to call
        args, again = [md.asarray(a) for a in wide], [md.asarray(a * 0.5) for a in wide]
        before = [a.numpy().copy() for a in args]
        first = md.tree.leaves(f(*args))
        kept = [t.numpy().copy() for t in first]
        second = [t.numpy().copy() for t in md.tree.leaves(f(*again))]
        with pytest.raises(ValueError):
            f(*args[:3], args[3][:, :-1], args[4])
        results = {}

        def work(name, args):
            results[name] = [md.tree.leaves(f(*args)) for _ in range(3)]

        threads = [threading.Thread(target=work, args=(n, a)) for n, a in (("a", args), ("b", again))]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        for name, wanted in (("a", kept), ("b", second)):
            for leaves in results[name]:
                for t, w in zip(leaves, wanted, strict=True):
                    np.testing.assert_allclose(t.numpy(), w, rtol=1e-4, atol=1e-4 * np.abs(w).max())
        for t, w in zip((*first, *args), (*kept, *before), strict=True):
            assert np.array_equal(t.numpy(), w)


@pytest.mark.cpu
def test_pooling_takes_the_first_maximum_and_the_first_nan():
    x = np.random.default_rng(0).choice([-1.0, -0.0, 0.0, 2.0, 3.0], (2, 16, 12, 12)).astype(np.float32)
    eye = np.eye(16, dtype=np.float32)[:, :, None, None]
    for spoiled in (None, np.nan, np.inf, -np.inf):
        if spoiled is not None:
            x[0, :, 3, 3], x[1, 2, 0, :2] = spoiled, spoiled
        for how in ((2,), (3, 2, 1), (2, 1)):
            pooled = lambda x: F.max_pool2d(F.relu(x) if spoiled is None else x, *how)  # noqa: B023
            f = lambda x: pooled(md.conv(x, md.asarray(eye, backend=x.backend)) if spoiled is None else x)  # noqa: B023
            g = lambda x: md.vjp(f, x)[1](md.ones_like(f(x)))[0]  # noqa: B023
            wanted = g(md.asarray(x)).numpy()
            t = md.asarray(x, backend="torch")
            images = type(t)(t.payload.contiguous(memory_format=sys.modules["torch"].channels_last), t.xp, t.dtype)
            assert lies_last(images)
            for a in (g(images), md.jit(g)(images), g(t)):
                np.testing.assert_array_equal(a.numpy(), wanted)


@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
@pytest.mark.parametrize("size", [(8, 4), (41, 82), (3, 5), (2, 7)])
def test_resampling_is_that_of_the_operations(mode, size):
    how = {"size": size, "mode": mode}
    for x in (drawn(0, 2, 3, 1, 2), drawn(0, 2, 3, 2, 7), drawn(1, 1, 8, 4, 4)):
        for dtype, rtol in ((np.float32, 2e-5), (np.float64, 1e-12)):
            agree(lambda x: F.interpolate(x, **how), (x.astype(dtype),), rtol, (False,))
    x[0, 0, 1, 1] = np.inf
    a, b = (F.interpolate(md.asarray(x, backend=k), **how).numpy() for k in ("torch", "numpy"))
    np.testing.assert_allclose(a, b, rtol=1e-5)


@pytest.mark.parametrize("dtype", [md.bool, md.int32, md.uint16, md.float16, md.float64, md.complex64], ids=lambda d: d.name)
def test_images_of_every_dtype_are_enlarged(dtype):
    f = lambda x, k: F.interpolate((md.conv(x, k, padding=1) * 8.0).to(dtype), scale_factor=2).to(md.complex128)
    got, wanted = (np.asarray(md.jit(f)(*(md.asarray(np.round(a), backend=b) for a in ARRAYS[:2])).numpy()) for b in ("torch", "numpy"))
    assert np.array_equal(got, wanted)


@pytest.mark.parametrize("dtype", [md.float32, md.float64, md.bfloat16], ids=lambda d: d.name)
def test_what_passes_where_x_is_positive_may_be_one_number_for_many(dtype):
    x = drawn(0, 16, 40, 12)
    x[0, ::3], x[1, ::5], x[2] = np.nan, 0.0, -0.0
    for g in (drawn(1, 16, 40, 1), np.full((16, 1, 12), np.inf, np.float32), drawn(2, 12), drawn(3, 2, 16, 40, 12)):
        x_, g_ = (md.asarray(v, dtype=dtype, backend="torch") for v in (x, g))
        f = lambda x, g: md.where(x > 0, g, 0.0)
        a, b = (t(x_, g_).to(md.float64).numpy() for t in (md.jit(f), f))
        assert a.shape == b.shape and np.array_equal(a, b, equal_nan=True) and np.array_equal(np.signbit(a), np.signbit(b))


# ---- as modes, of which a contest takes the quicker -----------------------------------------------------------------------------------------
def told(x, k):
    """One convolution for which the rule says channels last, and its derivatives."""
    y = md.conv(F.relu(md.conv(x, k, padding=1)), md.concat([k, k, k], axis=1)[:, :8], padding=1)
    return (y * y).sum(), y


def in_mode(mode, dtype=md.float32, f=told):
    x, k = (md.asarray(a, dtype=dtype, backend="torch") for a in ARRAYS[:2])
    g = md.jit(md.value_and_grad(f, argnums=(0, 1), has_aux=True), mode=mode)
    (value, y), grads = g(x, k)
    return g, (x, k), [value, y, *grads]


@pytest.mark.parametrize("mode", ["channels_first", "channels_last"])
def test_a_mode_says_where_the_channels_are(mode):
    by_rule, found = in_mode(None)[2], in_mode(mode)[2]
    assert lies_last(by_rule[1]) and lies_last(found[1]) == (mode == "channels_last")
    for a, b in zip(found, by_rule, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-4, atol=1e-4 * float(md.abs(b).max()))
    few = lambda x, k: (md.conv(x, k[:4], padding=1).sum(), md.conv(x, k[:4], padding=1))
    assert lies_last(in_mode(mode, f=few)[2][1]) == (mode == "channels_last") and not lies_last(in_mode(None, f=few)[2][1])
    with pytest.raises(ValueError, match="numpy backend has no mode 'channels_first'"):
        md.jit(lambda x: x, mode="channels_first")(md.ones(2, backend="numpy"))


@pytest.mark.parametrize("mode", [None, "channels_first", "channels_last"])
def test_a_mode_holds_in_loops_and_branches_and_for_images_that_come_in_another_order(mode):
    x, k = (md.asarray(a, backend="torch") for a in (drawn(0, 2, 16, 8, 8), drawn(1, 16, 16, 3, 3) / 12))
    layer = lambda v: md.conv(v, k, padding=1)
    for f in (
        lambda v: md.scan(lambda v, _: (layer(v), None), v, None, length=2)[0],
        lambda v: md.cond(v.sum() < 1e9, layer, lambda v: v, v),
        lambda v: md.scan(lambda v, _: (md.cond(v.sum() < 1e9, layer, lambda v: v, v), None), v, None, length=2)[0],
        layer,
    ):
        came = md.jit(layer, mode="channels_last")(x)
        assert lies_last(came)
        got = md.jit(f, mode=mode)(came)
        assert lies_last(got) == (mode != "channels_first")
        np.testing.assert_allclose(got.numpy(), f(came).numpy(), rtol=1e-4, atol=1e-4 * float(md.abs(got).max()))


@pytest.mark.parametrize("winner", ["torch", "torch channels_first"])
def test_a_contest_takes_the_quicker_order(winner, monkeypatch, tmp_path):
    monkeypatch.setenv("MINIDL_CACHE", str(tmp_path))
    monkeypatch.setattr(auto, "_known", {})
    monkeypatch.setattr(contest, "SPREAD", 0.0)
    monkeypatch.setattr(contest.Auto, "measure", True)
    for room in (auto, contest):
        monkeypatch.setattr(room, "available", lambda: {"torch": True})
    kind, modes = type(get("torch")), get("torch").modes
    plain = kind.compile
    monkeypatch.setattr(kind, "modes", tuple(m for m in modes if m != "inductor"))  # which compiles for seconds

    def compile(self, graph, donate=(), mode=None):
        run = plain(self, graph, donate, mode)
        slow = (mode is None) != (winner == "torch")
        return (lambda *natives: (time.sleep(0.01), run(*natives))[1]) if slow else run

    monkeypatch.setattr(kind, "compile", compile)
    x, k = (md.asarray(a, backend="torch") for a in ARRAYS[:2])
    f = md.jit(lambda x, k: told(x, k)[0], backend="auto")
    wanted = told(x, k)[0].item()
    for _ in range(2):
        np.testing.assert_allclose(f(x, k).item(), wanted, rtol=1e-4)
    report = f.explain(x, k)
    assert {r.name for r in report.rows} == {"torch", "torch channels_first"}, "with channels last everywhere it is the rule's program"
    assert f"{winner} wins" in str(report)
    monkeypatch.setattr(auto, "_known", {})  # another process
    again = md.jit(lambda x, k: told(x, k)[0], backend="auto")
    again(x, k)
    assert f"{winner} wins" in str(again.explain(x, k)) and "remembered" in str(again.explain(x, k))
    plain_program = md.jit(lambda x: x * 2.0 + 1.0, backend="auto")
    plain_program(x)
    assert [r.name for r in plain_program.explain(x).rows] == ["torch"], "an order of nothing is no candidate"
