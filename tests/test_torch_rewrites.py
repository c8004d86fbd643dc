"""Rewrites of torch programs: the gradients of an attention taken apart before they are put together, and gelu in fewer passes."""

from __future__ import annotations

import inspect
import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import minidl as md  # noqa: E402
from minidl.arrays.composites import on_torch as torch_composites  # noqa: E402
from minidl.backends import get  # noqa: E402
from minidl.dtypes import float32  # noqa: E402
from minidl.graph import Graph, Literal, Var  # noqa: E402
from minidl.lowering import Recorder  # noqa: E402

SHAPE = (2, 3, 5, 4)  # batch, heads, length, width


def arrays(*shapes, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=s).astype(np.float32) for s in shapes]


def graph_of(build, *shapes):
    """build(recorder, *variables) -> outputs, as a graph."""
    r = Recorder(None)
    xs = [Var(s, float32) for s in shapes]
    outputs = build(r, *xs)
    return Graph(xs, r.recorded, list(outputs))


def run_both(graph, values):
    """The program that torch runs, its results, and those of the same kernels one by one."""
    xp = get("torch")
    native = [xp.asarray(v, float32) for v in values]
    run = xp.compile(graph)
    return run, run(*native), xp.callable(Graph(graph.inputs, graph.equations, graph.outputs, "plain"))(*native), native


def packed(r, g, q, k, v, causal=False):
    o, lse = r.attention(q, k, v, Literal(0.0, float32), scale=0.5, causal=causal)
    return r.attention_grad(g, q, k, v, Literal(0.0, float32), o, lse, scale=0.5, causal=causal)


def part(r, d, k, sizes, shape):
    """Part k of what the primitive packed, in its own shape."""
    start, lead = sum(sizes[:k]), d.shape[:-1]
    cut = r.slice(d, start=(*(0 for _ in lead), start), stop=(*lead, start + sizes[k]), step=(1,) * d.ndim)
    return r.reshape(cut, shape=shape)


@pytest.mark.parametrize("special", ["plain", "causal", "infinite", "nan"])
@pytest.mark.parametrize("wanted", [(0, 1, 2), (2, 0), (1,)])
def test_gradients_of_an_attention_are_never_put_together(special, wanted):
    """Also where keys and queries differ in number, and where torch's kernel does not mean the table: the results share no memory."""
    q, k = SHAPE, SHAPE if special == "causal" else (*SHAPE[:2], 7, SHAPE[3])
    sizes = [q[2] * q[3], k[2] * k[3], k[2] * k[3]]
    values = arrays(q, q, k, k)
    if special == "infinite":
        values[1][0, 0, 1, 2] = math.inf
    if special == "nan":
        values[2][1, 0, 1, 2] = math.nan

    def build(r, g, q_, k_, v_):
        d = packed(r, g, q_, k_, v_, special == "causal")
        return [part(r, d, i, sizes, (q, k, k)[i]) for i in wanted]

    graph = graph_of(build, q, q, k, k)
    run, got, want, native = run_both(graph, values)
    assert "attention_grads(" in inspect.getsource(run) and "attention_grad(" not in inspect.getsource(run)
    for a, b in zip(got, want, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())
    again = run(*native)
    assert len({a.untyped_storage().data_ptr() for a in (*got, *again, *native)}) == 2 * len(wanted) + 4


@pytest.mark.parametrize("seen", ["whole", "a cut", "two readers", "another shape", "across", "a product"])
def test_a_packed_gradient_that_is_seen_stays_packed(seen):
    sizes = [SHAPE[2] * SHAPE[3]] * 3

    def build(r, g, q, k, v):
        d = packed(r, g, q, k, v)
        lead, one, n = d.shape[:-1], (1,) * d.ndim, sizes[0]
        cut = lambda start, stop: r.slice(d, start=(0, 0, start), stop=(*lead, stop), step=one)
        first = part(r, d, 0, sizes, SHAPE)
        if seen == "whole":
            return [first, d]
        if seen == "a product":
            return [first, r.mul(d, d)]
        if seen == "across":
            return [first, cut(3, n + 3)]
        if seen == "another shape":
            return [first, r.reshape(cut(n, 2 * n), shape=(*SHAPE[:2], SHAPE[3], SHAPE[2]))]
        middle = cut(n, 2 * n)
        shaped = r.reshape(middle, shape=SHAPE)
        return [first, shaped, middle] if seen == "a cut" else [first, shaped, r.sum(middle, axis=(0,), keepdims=False)]

    run, got, want, _ = run_both(graph_of(build, *[SHAPE] * 4), arrays(*[SHAPE] * 4))
    assert "attention_grads" not in inspect.getsource(run)
    for a, b in zip(got, want, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())


def test_a_layer_of_attention_under_jit_has_the_gradients_of_the_tape():
    """Heads from one packed product, as users write them; a second order, too, and a row that may look nowhere."""
    x, w = arrays((2, 5, 12), (36, 12), seed=3)

    def loss(x, w):
        parts = md.affine(x, w).reshape((2, 5, 3, 3, 4))
        q, k, v = (md.swapaxes(parts[:, :, j], 1, 2) for j in range(3))
        return md.sum(md.sin(md.swapaxes(md.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True), 1, 2)))

    with md.use_backend("torch"):
        a, b = (md.tensor(v, requires_grad=True) for v in (x, w))
        loss(a, b).backward()
        f = md.jit(md.grad(loss, argnums=(0, 1)))
        for _ in range(2):
            for got, want in zip(f(a.detach(), b.detach()), (a.grad, b.grad), strict=True):
                np.testing.assert_allclose(got.numpy(), want.numpy(), rtol=1e-5, atol=1e-5)
        second = lambda x: md.grad(lambda v: md.sum(md.grad(loss)(v, b.detach()) ** 2))(x)
        np.testing.assert_allclose(md.jit(second)(a.detach()).numpy(), second(a.detach()).numpy(), rtol=1e-3, atol=1e-4)


# ---- gelu -------------------------------------------------------------------------------------------------------------------------------
def test_gelu_in_passes_is_as_near_as_it_was():
    """Against long floats, within 20 units in the last place of the cotangent for the derivative (60 in float64); in parts as a whole."""
    rng = np.random.default_rng(1)
    numbers = np.concatenate([rng.normal(0, 3, 5000), np.linspace(-14, 14, 5000), [0.0, -0.0, 1e-30, 3e9, -3e9]]).astype(np.float32)
    x, g = numbers.astype(np.longdouble), rng.normal(size=numbers.size).astype(np.float32).astype(np.longdouble)
    s, c = np.sqrt(2 / np.longdouble(math.pi)), np.longdouble(0.044715)
    with np.errstate(over="ignore"):
        t = 1 / (1 + np.exp(-2 * s * (x + c * x**3)))
    value, slope = x * t, t + x * t * (1 - t) * 2 * s * (1 + 3 * c * x * x)
    for dtype, ulp in ((torch.float32, 2.0**-23), (torch.float64, 2.0**-52)):
        a, b = (torch.from_numpy(v.astype(np.float64)).to(dtype) for v in (x, g))
        got = torch_composites.gelu(a, tanh=True).numpy()
        far = abs(value) > 1e-3
        assert (abs(got - value)[far] / abs(value)[far]).max() <= 20 * ulp
        got = torch_composites.gelu_dx(b, a, tanh=True).numpy()
        assert (abs(got - g * slope) / abs(g)).max() <= (20 if dtype is torch.float32 else 60) * ulp
        whole = torch_composites._dx_by_sigmoid(b, a, None)
        n = torch_composites._PART
        try:
            torch_composites._PART = 1024
            assert torch.equal(torch_composites._dx_by_sigmoid(b, a, None), whole)
            out = torch.empty_like(a)
            assert torch_composites._dx_by_sigmoid(b, a, out) is out and torch.equal(out, whole)
        finally:
            torch_composites._PART = n


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan, 1e20, -1e20, 3e38, 0.0, -0.0])
def test_gelu_at_the_edges_is_the_small_kernel(value):
    """Of many elements one is special: the value and derivative are those of the table, as for few elements."""
    x = torch.linspace(-4, 4, 5000)
    x[17] = value
    g = torch.linspace(1, 2, 5000)
    for many, few in (
        (torch_composites.gelu(x, tanh=True), torch_composites.gelu(x[:40].clone(), tanh=True)),
        (torch_composites.gelu_dx(g, x, tanh=True), torch_composites.gelu_dx(g[:40].clone(), x[:40].clone(), tanh=True)),
    ):
        np.testing.assert_allclose(many[:40].numpy(), few.numpy(), rtol=2e-4, atol=2e-6)
        assert many[17].isnan() == few[17].isnan()
