"""Products that are made in the order in which they are wanted: (x @ y).T as y.T @ x.T, when a graph is lowered."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minidl as md
from minidl.backends import get
from minidl.lowering import swapped
from minidl.testing.wellformed import check

SIZES = 2, 3, 4


def names(graph):
    return [e.primitive.name for e in graph.equations]


def run(graph, arrays):
    xp = get("numpy")
    call = lambda primitive, inputs, params: getattr(xp, primitive.name)(*inputs, **params)
    with xp.scope():
        return graph.run(call, arrays, lambda c: xp.scalar(c.value, c.dtype))


@st.composite
def programs(draw):
    """Matrices, and products, functions and transposes of them."""
    shapes = draw(st.lists(st.tuples(st.sampled_from(SIZES), st.sampled_from(SIZES)), min_size=2, max_size=4))
    step = st.tuples(st.sampled_from(["@", "@", "T", "T", "f", "+", "sum", "scale"]), st.integers(0, 99), st.integers(0, 99))
    steps = draw(st.lists(step, max_size=14))

    def f(*xs):
        values = list(xs)
        for name, i, k in steps:
            a = values[-1 - i % min(len(values), 4)]
            if name == "@":
                fits = [v for v in values if v.shape[0] == a.shape[1]]
                values += [a @ fits[k % len(fits)]] if fits else []
            elif name == "+":
                fits = [v for v in values if v.shape == a.shape]
                values.append(a - fits[k % len(fits)] * 0.5)
            elif name == "T":
                values.append(a.T)
            else:
                values.append({"f": md.tanh(a), "sum": a.sum(axis=0, keepdims=True) + a, "scale": a * 0.5}[name])
        return values[-1], values[-2 if k % 2 else 0] if steps else values[0]

    return f, shapes


@given(programs(), st.integers(0, 9))
@settings(max_examples=60)
def test_swapped_graphs_compute_the_same_with_no_more_equations(program, seed):
    f, shapes = program
    rng = np.random.default_rng(seed)
    arrays = [rng.normal(size=s) for s in shapes]
    graph = md.trace(f)(*(md.tensor(a, backend="numpy") for a in arrays))
    new = swapped(graph)
    check(new)
    assert names(new).count("permute") <= names(graph).count("permute") and len(new.equations) <= len(graph.equations)
    for got, want in zip(run(new, arrays), run(graph, arrays), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-11, atol=1e-11)


A, W, C = (2, 3), (3, 4), (4, 2)
WANTED = {
    "a product": (lambda a, w, c: (a @ w).T, 0),
    "of transposed operands": (lambda a, w, c: (w.T @ a.T).T, 0),
    "a sum of products": (lambda a, w, c: (md.tanh(a @ w) * 0.1 - a @ md.exp(w)).T + c, 0),
    "two axes": (lambda a, w, c: md.tensordot(md.stack([a, a]), md.stack([a * 2.0, a]), axes=((0, 1), (0, 1))).T, 0),
    "read by others": (lambda a, w, c: ((p := a @ w).T, p), 1),
    "read twice": (lambda a, w, c: md.square(a @ w).T + (a @ w).T, 1),
    "a bias": (lambda a, w, c: (a @ w + w[:1]).T, 1),
    "an operand that is no product": (lambda a, w, c: (a @ w - md.tanh(c.reshape(2, 4))).T, 1),
    "of a stack": (lambda a, w, c: (a[None] @ w[None]).transpose((0, 2, 1)), 1),
}


@pytest.mark.parametrize("name", WANTED)
def test_which_products_are_swapped(name):
    f, left = WANTED[name]
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=s) for s in (A, W, C)]
    graph = md.trace(f)(*(md.tensor(a, backend="numpy") for a in arrays))
    assert "permute" in names(graph)
    new = swapped(graph)
    assert names(new).count("permute") == left and swapped(graph, 1000) is graph
    for got, want in zip(run(new, arrays), run(graph, arrays), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-12)


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_the_gradient_of_a_product_by_hand_is_made_in_parts_by_its_update(backend, monkeypatch):
    """As that of a Linear layer: it never exists as a whole."""
    rng = np.random.default_rng(0)
    x, w = (md.tensor(rng.normal(size=s).astype(np.float32), backend=backend) for s in ((40, 900), (900, 1000)))
    step = lambda x, w: w - md.grad(lambda w: ((x @ w) ** 2).sum())(w) * 0.1
    graph = md.jit(step).lower(x, w)
    if backend == "numba":
        monkeypatch.setenv("OMP_NUM_THREADS", "1")  # with several threads a product is made as a whole
        assert get("numba").compile(graph).plan.arena < 40 * 1000 * 4 * 3 + w.numpy().nbytes / 2
    else:
        from minidl.rewrites.loops.on_numpy import blocked

        assert names(blocked(graph)).count("dot_general") == 2 and names(blocked(swapped(graph))).count("dot_general") == 1
    a, b = x.numpy().astype(np.float64), w.numpy().astype(np.float64)
    np.testing.assert_allclose(md.jit(step)(x, w).numpy(), b - 0.2 * a.T @ (a @ b), rtol=1e-3, atol=1e-3)
