"""torch's products of float32 matrices that torch.mm makes slowly: the other way round where there are few columns, by oneDNN where MKL's kernels are
for another processor; in one place for the tape, graphs and linear layers."""

from __future__ import annotations

import functools
import inspect
import os
import shutil

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import minidl as md  # noqa: E402
from minidl.backends import get, torch_linear  # noqa: E402
from minidl.modes import on_torch as torch_modes  # noqa: E402

SIZES = [(512, 64, 10), (2048, 16, 2), (512, 64, 15), (512, 64, 16), (512, 64, 1), (8, 64, 10), (512, 0, 10), (48, 144, 161), (500, 128, 17)]


@pytest.fixture(params=["by MKL", "by oneDNN"])
def made(request, monkeypatch):
    """The functions, by name, that made products in place of torch.mm: as on a processor of Intel's, and as on another."""
    other = request.param == "by oneDNN"
    if other and torch_linear._linear is None:
        pytest.skip("this torch has no product of oneDNN's")
    calls = []
    monkeypatch.setattr(torch_linear, "halved", lambda: other)
    torch_linear.quicker.cache_clear()
    for name in ("turned_mm", "onednn_mm"):
        counted = functools.partial(lambda f, *given: calls.append(f.__name__) or f(*given), getattr(torch_linear, name))
        counted.__name__ = name
        monkeypatch.setattr(torch_linear, name, counted)
    yield other, calls
    torch_linear.quicker.cache_clear()


@pytest.mark.parametrize(("m", "k", "n"), SIZES)
@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("right", [False, True])
def test_the_product_is_the_same_and_in_order(m, k, n, left, right, made):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(k, m) if left else (m, k)).astype(np.float32), rng.normal(size=(n, k) if right else (k, n)).astype(np.float32)
    want = (x.T if left else x).astype(np.float64) @ (y.T if right else y)

    def product(x, y):
        return (x.T if left else x) @ (y.T if right else y)

    with md.use_backend("torch"):
        args = md.tensor(x), md.tensor(y)
        found = [f(*args) for f in (product, md.jit(product))]
    for got in found:
        assert got.payload.is_contiguous()
        np.testing.assert_allclose(got.numpy(), want, rtol=1e-4, atol=1e-4)
    assert torch.equal(*(got.payload for got in found))
    other, calls = made
    name = "onednn_mm" if other and m * n * k >= 1 << 20 else "turned_mm" if n in (2, 10, 15) and m * k >= 1 << 15 else ""
    assert calls == ([name] * 2 if name and torch.backends.mkl.is_available() else [])


@pytest.mark.parametrize("where", [(0, 0), (-1, -1)])
@pytest.mark.parametrize("value", [np.inf, np.nan])
def test_one_element_reaches_its_row_or_column_alone(where, value, made):
    """Of sizes that no block of a kernel divides."""
    x, y = np.ones((67, 131), np.float32), np.ones((131, 129), np.float32)
    for k, a in enumerate((x, y)):
        a[where] = value
        with md.use_backend("torch"):
            got = (md.tensor(x) @ md.tensor(y)).numpy()
        there = np.zeros(got.shape, bool)
        there[(where[0], slice(None)) if k == 0 else (slice(None), where[1])] = True
        np.testing.assert_array_equal(got, np.where(there, value, 131.0))
        a[where] = 1.0


@pytest.mark.parametrize("bias", [(96,), (192,), (1,)], ids=["whole", "each second", "one for all"])
@pytest.mark.parametrize("shape", [(96, 128), (4, 24, 128)])
def test_a_bias_is_added(shape, bias, made):
    rng = np.random.default_rng(3)
    x, w, b = (rng.normal(size=s).astype(np.float32) for s in (shape, (96, 128), bias))
    linear = lambda x, w, b: md.nn.functional.linear(x, w, md.broadcast_to(b[:: bias[0] // 96 or 1], (96,)))
    with md.use_backend("torch"):
        args = [md.tensor(v) for v in (x, w, b)]
        found = [f(*args) for f in (linear, md.jit(linear))]
    for got in found:
        np.testing.assert_allclose(got.numpy(), x @ w.T + b[:: bias[0] // 96 or 1], rtol=1e-4, atol=1e-4)
    assert made[1] == (["onednn_mm"] * 2 if made[0] else [])


def test_a_linear_layer_its_gradients_and_a_write_over_dead_memory(made):
    rng = np.random.default_rng(1)
    x, w, b = (rng.normal(size=s).astype(np.float32) for s in ((512, 128), (10, 128), (10,)))

    def loss(w, b, x):
        h = md.nn.functional.linear(x * 2.0, w, b)
        return (md.tanh(h) * h).sum()

    found = []
    for backend in ("numpy", "torch"):
        with md.use_backend(backend):
            args = [md.tensor(v) for v in (w, b, x)]
            found += [[g.numpy() for g in f(*args)] for f in (md.grad(loss, (0, 1, 2)), md.jit(md.grad(loss, (0, 1, 2))))]
    for other in found[1:]:
        for g, want in zip(other, found[0], strict=True):
            np.testing.assert_allclose(g, want, rtol=2e-3, atol=2e-3)


def test_float32_on_the_cpu_alone_is_turned():
    graph = md.trace(lambda x, y: x @ y)
    texts = {}
    for dtype in ("float32", "float64"):
        with md.use_backend("torch"):
            g = graph(md.ones(512, 128, dtype=dtype), md.ones(128, 10, dtype=dtype))
        texts[dtype] = inspect.getsource(get("torch").compile(g))
    assert ("turned_mm" in texts["float32"]) == torch.backends.mkl.is_available() and "turned_mm" not in texts["float64"]


@pytest.mark.skipif(shutil.which(os.environ.get("CXX", "g++")) is None, reason="needs a C++ compiler")
def test_inductor_calls_the_same_product_of_weights_that_are_no_constants(made, monkeypatch):
    other, calls = made
    rng, counted = np.random.default_rng(4), []
    x, y, w, b = (rng.normal(size=s).astype(np.float32) for s in ((64, 128), (128, 160), (160, 128), (160,)))
    f = lambda x, y, w, b: (x @ y + 1.0, x @ w.T, y @ md.ones(160, 64), md.nn.functional.linear(md.reshape(x, (2, 32, 128)), w, b))
    if other:
        linear = torch_linear._linear
        monkeypatch.setattr(torch_modes, "_linear", lambda *given: counted.append(1) or linear(*given))
    with md.use_backend("torch"):
        run = md.jit(f, mode="inductor")
        run(*map(md.tensor, (x, y, w, b)))
        calls.clear()
        counted.clear()
        found = run(*map(md.tensor, (x, y, w, b)))
    for got, want in zip(found, (x @ y + 1.0, x @ w.T, np.repeat(y.sum(1, keepdims=True), 64, 1), (x @ w.T + b).reshape(2, 32, 160)), strict=True):
        np.testing.assert_allclose(got.numpy(), want, rtol=1e-4, atol=1e-4)
    assert not calls and len(counted) == 4 * other, "the compiled program calls oneDNN by itself"


@pytest.mark.parametrize("lead", [(2, 3), (2, 1, 3), (0, 3), (3, 0), (3,)])
@pytest.mark.parametrize("sizes", [(4, 5), (1, 1), (4, 0), (0, 4)])
@pytest.mark.parametrize("dtype", ["float64", "int64", "complex128", "bfloat16"])
def test_rows_of_more_axes_with_a_matrix_and_what_its_gradient_is(lead, sizes, dtype):
    (k, n), r = sizes, np.random.default_rng(0)
    x, y, g = (r.integers(-4, 5, s).astype(np.float64) for s in ((*lead, k), (k, n), (*lead, n)))
    dot = get("torch").dot_general
    make = lambda v: torch.tensor(v).to(getattr(torch, dtype))
    axes, last = tuple(range(len(lead))), len(lead)
    turned = make(x.T).permute(*reversed(range(x.ndim)))  # the same values in another order in memory
    for given in (make(x), turned):
        for out, wanted in (
            (dot(given, make(y), contract=((last,), (0,)), batch=((), ())), np.tensordot(x, y, 1)),
            (dot(given, make(y).t().contiguous(), contract=((last,), (1,)), batch=((), ())), np.tensordot(x, y, 1)),
            (dot(make(g), given, contract=(axes, axes), batch=((), ())), np.tensordot(g, x, (axes, axes))),
        ):
            assert out.dtype is getattr(torch, dtype) and tuple(out.shape) == wanted.shape
            np.testing.assert_array_equal(out.to(torch.complex128).real.numpy(), wanted)
