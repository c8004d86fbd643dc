"""Less memory for more time: checkpoint inside a jitted step, and rematerialisation by budget."""

from __future__ import annotations

import tracemalloc
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_passes import equal, graphs

import minidl as md
from minidl import nn
from minidl.backends import get, numpy_memory
from minidl.graph import Equation, Graph, Var
from minidl.lifetimes import memory
from minidl.passes import simplify
from minidl.primitives import table
from minidl.rematerialize import MemoryBudgetWarning, budget, rematerialize
from minidl.testing.wellformed import check


def measured(f, *args) -> int:
    """The peak bytes that a call allocates, of a function that was called before."""
    f(*args)
    numpy_memory.trim()  # what lies idle would not be allocated
    tracemalloc.start()
    f(*args)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def wave(x):
    for _ in range(8):
        x = md.sin(x) * 1.1
    return x


def layers(x):
    """Products, which NumPy programs do not compute again of their own accord, as they do with wave."""
    w = md.eye(100) * 0.9
    for _ in range(8):
        x = md.tanh(md.matmul(x, w))
    return x


def deep(part):
    """The gradient of six times `part`."""

    def f(x):
        for _ in range(6):
            x = part(x)
        return md.sum(x)

    return md.grad(f)


X = np.linspace(-2, 2, 40_000, dtype=np.float32).reshape(400, 100)


# ---- checkpoint -----------------------------------------------------------------------------------------------------------------------------
def test_checkpoint_in_a_jitted_gradient_saves_memory(backend):
    x = md.tensor(X)
    plain, less = md.jit(deep(wave)), md.jit(deep(md.checkpoint(wave)))
    np.testing.assert_allclose(less(x).numpy(), plain(x).numpy(), rtol=1e-5)
    assert less.lower(x).peak_memory() < 0.4 * plain.lower(x).peak_memory()
    if backend == "numpy":
        plain, less = (measured(md.jit(deep(whole(layers))), md.tensor(X)) for whole in (lambda f: f, md.checkpoint))
        assert less < 0.5 * plain


def test_checkpoint_computes_again_what_it_reads_from_outside():
    w, results, counts = md.tensor(X, requires_grad=True), [], []
    for whole in (lambda f: f, md.checkpoint):
        part = whole(lambda x: wave(w) * x)
        step = md.jit(lambda x, part=part: md.autograd.grad(md.sum(part(x)), w) + (md.sum(part(x)).detach(),))
        results.append([r.numpy() for r in step(md.tensor(X))])
        counts.append(sum(e.primitive.name == "sin" for e in step.lower(md.tensor(X)).equations))
    assert all(np.array_equal(a, b) for a, b in zip(*results, strict=True))
    assert counts == [8, 15]  # the last one is needed by no derivative


@pytest.mark.parametrize("wrap", [lambda f: f, md.jit], ids=["eager", "jit"])
def test_checkpoint_leaves_buffers_as_the_first_run_left_them(wrap):
    y, ends = md.tensor(X[:40, :3], requires_grad=True), []
    for whole in (lambda m: m, md.checkpoint):
        norm = nn.BatchNorm1d(3)
        layer = whole(norm)

        def step(layer=layer):
            y.grad = None
            md.sum(md.square(layer(y))).backward()
            return y.grad

        grads = [wrap(step)().tolist() for _ in range(2)]
        ends.append((grads, norm.num_batches_tracked.item(), norm.running_mean.tolist(), norm.running_var.tolist()))
    assert ends[0] == ends[1] and ends[0][1] == 2


@pytest.mark.parametrize("wrap", [lambda f: f, md.jit], ids=["eager", "jit"])
def test_checkpoint_runs_again_from_the_state_of_the_first_run(wrap):
    scale = md.tensor(2.0)

    def f(x):
        out = x * scale
        with md.no_grad():
            scale.assign(scale * 3.0)
        return out * x

    x = md.tensor([1.0, 2.0])
    got = wrap(lambda x: md.grad(lambda x: md.sum(md.checkpoint(md.checkpoint(f))(x)))(x))(x)
    assert got.tolist() == [4.0, 8.0] and scale.item() == 6.0


# ---- by budget ------------------------------------------------------------------------------------------------------------------------------
def one_by_one(graph: Graph, numbers: list[np.ndarray]) -> list[np.ndarray]:
    """The results of a program whose equations are computed by themselves, none fused."""
    xp = get("numpy", "cpu")
    with xp.scope():
        results = graph.run(lambda p, xs, params: getattr(xp, p.name)(*xs, **params), numbers, lambda a: xp.scalar(a.value, a.dtype))
    return [np.asarray(r) for r in results]


def names(graph: Graph) -> list[str]:
    return [e.primitive.name for e in graph.equations]


def peak(graph: Graph) -> int:
    return max(memory(graph), default=0)


@given(graphs(), st.sampled_from((0.25, 0.5, 0.75, 1.0)))
def test_a_budget_keeps_every_bit_and_is_met_or_says_what_was_reached(drawn, share):
    graph, numbers = drawn
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        less = rematerialize(graph, share)
    check(less)
    said = [w for w in caught if w.category is MemoryBudgetWarning]
    assert peak(less) <= peak(graph) and len(said) == (peak(less) > int(share * peak(graph)))
    assert all(f"{peak(less):,} were reached" in str(w.message) for w in said)
    run = get("numpy", "cpu").compile
    assert all(equal(np.asarray(a), np.asarray(b)) for a, b in zip(run(graph)(*numbers), run(less)(*numbers), strict=True))


def tower(x, *weights):
    for w in weights:
        x = md.tanh(md.sin(md.matmul(x, w)) * 1.1)
    return md.sum(md.square(x))


def tower_gradient() -> tuple[Graph, list[np.ndarray]]:
    """The gradient of twelve layers for its input, and numbers."""
    rng = np.random.default_rng(0)
    numbers = [rng.standard_normal(s).astype("f") for s in ((400, 30), *((30, 30),) * 12)]
    return md.trace(md.grad(tower))(*map(md.tensor, numbers)), numbers


@pytest.mark.parametrize("share", [0.8, 0.6, 0.45])
def test_the_gradient_of_a_tower_fits(share):
    graph, numbers = tower_gradient()
    less = rematerialize(graph, share)  # a warning would be an error
    check(less)
    assert peak(less) <= share * peak(graph)
    assert all(equal(a, b) for a, b in zip(one_by_one(graph, numbers), one_by_one(less, numbers), strict=True))
    assert len(less.equations) < 2 * len(graph.equations)
    assert names(simplify(less)) == names(less)  # nothing merges the copies with what they copy


def test_products_are_computed_again_only_where_the_budget_asks_for_it():
    graph, _ = tower_gradient()
    some, more = (names(rematerialize(graph, share)).count("dot_general") for share in (0.8, 0.45))
    assert names(graph).count("dot_general") == some < more


def test_random_bits_are_the_same_again():
    def f(x):
        for _ in range(6):
            x = md.sin(md.random.normal(md.random.default_generator.next_key(), x.shape) * x)
        return md.sum(x)

    @md.jit(memory=0.7)
    def less(x):
        return md.grad(f)(x)

    x, results = md.tensor(X), []
    for g in (md.jit(md.grad(f)), less):
        md.manual_seed(3)
        results.append(g(x).numpy())
    np.testing.assert_allclose(*results, rtol=1e-5, atol=1e-6)


def test_jit_with_a_budget(backend):
    x = md.tensor(X)
    plain, less = md.jit(deep(wave)), md.jit(deep(wave), memory=0.3)
    np.testing.assert_allclose(less(x).numpy(), plain(x).numpy(), rtol=1e-5)
    before, after = peak(plain.lower(x)), peak(less.lower(x))
    assert after <= 0.3 * before
    assert peak(md.jit(deep(wave), memory=int(0.3 * before)).lower(x)) == after


def test_a_jitted_step_with_a_budget_takes_less_memory_on_numpy():
    rng = np.random.default_rng(0)
    x, weights = rng.standard_normal((2000, 100)).astype("f"), [rng.standard_normal((100, 100)).astype("f") * 0.1 for _ in range(12)]
    arguments = [md.tensor(a, backend="numpy") for a in (x, *weights)]
    plain, less = (measured(md.jit(md.grad(tower), memory=m), *arguments) for m in (None, 0.5))
    assert less < 0.7 * plain


def test_a_training_step_with_a_budget_learns_the_same():
    ends = []
    for share in (None, 0.6):
        md.manual_seed(0)
        net = nn.Sequential(*(layer for _ in range(6) for layer in (nn.Linear(20, 20), nn.BatchNorm1d(20), nn.Tanh(), nn.Dropout(0.1))))
        opt = md.optim.AdamW(net.parameters(), lr=0.01)

        @md.jit(memory=share)
        def step(x, net=net, opt=opt):
            opt.zero_grad()
            loss = md.mean(md.square(net(x) - 1.0))
            loss.backward()
            opt.step()
            return loss

        ends.append([step(md.tensor(X[:, :20])).item() for _ in range(4)])
    np.testing.assert_allclose(*ends, rtol=1e-4)


@pytest.mark.parametrize("wrong", [0.0, 1.5, -3, 0, True, "much", "0.5", "1.2.3MB", None, [1]])
def test_what_is_no_budget(wrong):
    with pytest.raises(ValueError, match="memory: a fraction such as 0.5, a number of bytes or a text such as '500MB' is wanted"):
        budget(wrong, 100)


def test_budgets():
    assert [budget(b, 1000) for b in (0.5, 1.0, 300, "200B", "1.5kB", "2 MB", "1GiB")] == [500, 1000, 300, 200, 1500, 2_000_000, 2**30]
    with pytest.raises(ValueError, match="is wanted, not 'lots'"):
        md.jit(wave, memory="lots")
    with pytest.warns(MemoryBudgetWarning, match="memory: 1 asks for 1 bytes above the inputs; 160,000 were reached"):
        md.jit(md.sin, memory=1)(md.tensor(X))


def test_a_program_that_returns_its_input_needs_nothing():
    x, dead = Var((3,), md.float32), Var((3,), md.float32)
    graph = Graph([x], [Equation(table["sin"], (x,), {}, (dead,))], [x])
    assert not rematerialize(graph, 0.25).equations
