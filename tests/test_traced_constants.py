"""What follows from constants alone has values while a function is traced: masks of md.arange and md.eye, numbers read from tables."""

from __future__ import annotations

import numpy as np
import pytest

import minidl as md

BACKENDS = ("numpy", "numba", "torch", "jax")
X = np.arange(16.0).reshape(4, 4)


def without_diagonal(x):
    """The usual first lines of a contrastive loss."""
    n = x.shape[0]
    mask = ~md.eye(n, dtype=md.bool)
    rows = md.tensor([0, 2, 3])
    last = int(md.arange(n).max())
    written = md.zeros(n, dtype=md.bool)
    written[1] = True
    written[2:] = rows[1:] > 2
    table = md.tensor([3.0, 1.0])
    table[0] = 2.0
    given = md.tensor([True, False, True, False])
    return x[mask].reshape(n, -1).sum(1) * last + x[rows[rows > 0]].sum() + x[written].sum() * table[0].item() + x[given].sum()


@pytest.mark.parametrize("backend", BACKENDS)
def test_masks_of_constants_choose_under_jit(backend):
    pytest.importorskip(backend)
    with md.use_backend(backend):
        x = md.tensor(X)
        total = lambda v: (without_diagonal(v) ** 2).sum()
        step = md.jit(md.value_and_grad(total))
        for _ in range(2):
            value, grad = step(x)
            want, want_grad = md.value_and_grad(total)(x)
            assert value.item() == want.item() and grad.tolist() == want_grad.tolist()


def test_they_choose_in_bodies_and_lanes():
    x = md.tensor(X)

    def f(x):
        outside = md.arange(4) > 1

        def body(carry, row):
            return carry + row[outside].sum(), row[md.arange(4) > 2]

        total, rows = md.scan(body, md.zeros((), dtype=x.dtype), x)
        branch = md.cond(total > 0, lambda x: x[outside], lambda x: x[outside] * 2.0, x)
        return total, rows, branch, md.vmap(lambda row: row[outside])(x)

    total, rows, branch, lanes = md.jit(f)(x)
    assert total.item() == X[:, 2:].sum() and rows.tolist() == X[:, 3:].tolist()
    assert branch.tolist() == X[2:].tolist() and lanes.tolist() == X[:, 2:].tolist()


@pytest.mark.parametrize(
    "f",
    [
        lambda x: md.unique_counts(md.tensor([3, 1, 3])),
        lambda x: md.unique_all(md.arange(4) // 2),
        lambda x: md.nonzero(md.arange(4) > 1),
        lambda x: md.repeat(x, md.arange(4), axis=0),
        lambda x: md.arange(md.arange(4).max()) + x[0, :3],
        lambda x: x[md.arange(2)[1] > 0],
        lambda x: x.at[md.arange(4) > 1].set(md.zeros((2, 4), dtype=x.dtype)),
        lambda x: (x.sum(axis=int(md.ones((), dtype=md.int64))), md.argwhere(md.eye(4))),
        lambda x: md.nn.functional.one_hot(md.arange(4)).sum() * x,
    ],
)
def test_results_of_a_size_that_constants_decide(f):
    x = md.tensor(X)
    eager, traced, lanes = (md.tree.leaves(v) for v in (f(x), md.jit(f)(x), md.jit(lambda x: md.vmap(lambda _: f(x))(md.zeros(2)))(x)))
    assert [v.tolist() for v in traced] == [v.tolist() for v in eager] == [v[0].tolist() for v in lanes]


@pytest.mark.parametrize(
    "f",
    [
        lambda x: x[x > 3],  # an argument
        lambda x: x[(md.ones_like(x) * x) > 3],
        lambda x: x * int(md.random.uniform(md.random.default_generator.next_key(), ()) * 100),  # state
        lambda x: x[OUTSIDE],  # a tensor from outside may be another one on the next call
        lambda x: x * md.host({"lr": 0.5}, "lr") if md.zeros(4)[0] + md.host({"lr": 0.5}, "lr") > 0 else x,
    ],
)
def test_what_may_differ_on_the_next_call_has_no_value(f):
    with pytest.raises(TypeError, match="symbolic while md.jit"):
        md.jit(f)(md.tensor(X))


OUTSIDE = md.tensor([True, False, True, False])


def test_a_constant_that_takes_an_argument_in_loses_its_value():
    def f(x):
        mask = md.zeros(4, dtype=md.bool)
        assert mask.tolist() == [False] * 4
        mask[0] = x[0, 0] > 0
        return x[mask]

    with pytest.raises(TypeError, match="symbolic while md.jit"):
        md.jit(f)(md.tensor(X))


def test_a_symbol_that_escaped_stays_without_a_value():
    escaped = []
    md.jit(lambda x: escaped.append(md.arange(3) * 2) or x)(md.tensor(X))
    with pytest.raises(RuntimeError, match="after its trace ended"):
        escaped[0].tolist()


def test_constants_of_the_function_choose_in_its_loops():
    def f(x):
        at = md.arange(3)
        even = at % 2 == 0

        def step(c, row):
            return c + row[at > 0].sum(), md.cond(c > 0.0, lambda: row[even & (at > 0)], lambda: row[at == 1])

        return md.scan(step, md.tensor(0.0), x)

    x = md.tensor([[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]])
    for found in (f(x), md.jit(f)(x)):
        assert found[0].item() == 12.0 and found[1].tolist() == [[1.0], [5.0]]


def test_what_a_loop_carries_is_no_constant_though_it_begins_as_one():
    f = lambda x: md.scan(lambda c, row: (c + 1, row[c > 0].sum()), md.arange(3), x)
    with pytest.raises(TypeError, match="symbolic"):
        md.jit(f)(md.ones((2, 3)))
