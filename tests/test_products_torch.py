"""torch's products of float32 matrices with few columns: made the other way round, in one place for the tape, graphs and linear layers."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import minidl as md  # noqa: E402
from minidl.backends import get, torch_linear  # noqa: E402

SIZES = [(512, 64, 10), (2048, 16, 2), (512, 64, 15), (512, 64, 16), (512, 64, 1), (8, 64, 10), (512, 0, 10)]


@pytest.fixture
def counted(monkeypatch):
    """How many products are turned."""
    calls = []
    monkeypatch.setattr(torch_linear, "turns", lambda m, k, n: calls.append((m, k, n)) or (2 <= n < 16 and m * k >= 1 << 15))
    return calls


@pytest.mark.parametrize(("m", "k", "n"), SIZES)
@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("right", [False, True])
def test_the_product_is_the_same_and_in_order(m, k, n, left, right, counted):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(k, m) if left else (m, k)).astype(np.float32), rng.normal(size=(n, k) if right else (k, n)).astype(np.float32)
    want = (x.T if left else x).astype(np.float64) @ (y.T if right else y)

    def product(x, y):
        return (x.T if left else x) @ (y.T if right else y)

    with md.use_backend("torch"):
        args = md.tensor(x), md.tensor(y)
        for f in (product, md.jit(product)):
            got = f(*args)
            assert got.payload.is_contiguous()
            np.testing.assert_allclose(got.numpy(), want, rtol=1e-4, atol=1e-4)
    assert bool(counted) == (n < 16)  # the other sizes are not even looked at


def test_a_linear_layer_its_gradients_and_a_write_over_dead_memory():
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
        texts[dtype] = get("torch").compile(g).__source__
    assert ("turned_mm" in texts["float32"]) == torch.backends.mkl.is_available() and "turned_mm" not in texts["float64"]


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
