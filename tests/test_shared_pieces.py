"""What two decompositions compute alike, where it is small, is computed once: fewer equations, the same bits."""

from __future__ import annotations

import warnings
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minidl as md
from minidl import lowering
from minidl.lowering import expand
from minidl.testing.wellformed import check

nn = md.nn.functional
VALUES = [0.0, -0.0, 1.5, -2.0, float("nan"), float("inf"), -float("inf"), 1e-40, 3e38]


def names(graph):
    return Counter(e.primitive.name for e in graph.equations)


def loss(x, y):
    return md.value_and_grad(lambda x: nn.cross_entropy(x, y))(x)


def test_the_rows_of_a_loss_and_of_its_gradient_have_one_sum():
    graph = expand(md.trace(loss)(md.ones((4, 3)), md.zeros((4,), dtype=md.int64)))
    check(graph)
    assert names(graph)["exp"] == 1
    assert names(graph)["max"] == 1


def test_what_is_large_is_computed_again(monkeypatch):
    monkeypatch.setattr(lowering, "SHARED", 40)
    graph = expand(md.trace(loss)(md.ones((4, 3)), md.zeros((4,), dtype=md.int64)))
    check(graph)
    assert names(graph)["exp"] == 2  # 48 bytes
    assert names(graph)["max"] == 1  # 16


def test_sums_over_other_axes_or_of_other_values_are_apart():
    graph = expand(md.trace(lambda x, y: (md.softmax(x, axis=0), md.softmax(x, axis=1), md.softmax(y, axis=1)))(md.ones((3, 3)), md.ones((3, 3))))
    check(graph)
    assert names(graph)["exp"] == 3


def test_results_that_are_one_value_share_no_memory():
    step = md.jit(lambda x: (md.softmax(x, axis=1), md.softmax(x, axis=1), x.softmax(1) + 1.0))
    x = md.tensor(np.arange(6.0, dtype=np.float32).reshape(2, 3))
    for _ in range(2):
        a, b, c = (t.numpy() for t in step(x))
        before = b.copy()
        a[...] = 7.0
        np.testing.assert_array_equal(b, before)
        np.testing.assert_allclose(c, before + 1.0, rtol=1e-6)


@pytest.mark.parametrize("backend", [b for b in ("numpy", "numba", "torch") if md.backends().get(b) is True])
@given(data=st.data())
def test_the_bits_are_those_of_pieces_apart(backend, data):
    rows = np.array(data.draw(st.lists(st.lists(st.sampled_from(VALUES), min_size=3, max_size=3), min_size=4, max_size=4)), np.float32)
    places = np.array(data.draw(st.lists(st.sampled_from([0, 1, 2, -100]), min_size=4, max_size=4)))

    def f(x, y):
        first = md.value_and_grad(lambda x: nn.cross_entropy(x, y, reduction="sum"))(x)
        return *first, md.logsumexp(x, axis=1), md.softmax(x, axis=1), nn.cross_entropy(x * 1.0, y, reduction="none"), md.softmax(x, axis=0)

    with md.use_backend(backend), warnings.catch_warnings():
        x, y = md.tensor(rows), md.tensor(places)
        together = [t.numpy() for t in STEPS.setdefault((backend, True), md.jit(f))(x, y)]
        keep, lowering.SHARED = lowering.SHARED, -1
        try:
            apart = [t.numpy() for t in STEPS.setdefault((backend, False), md.jit(lambda x, y: f(x, y)))(x, y)]
        finally:
            lowering.SHARED = keep
    for a, b in zip(together, apart, strict=True):
        np.testing.assert_array_equal(a, b)


STEPS: dict = {}
