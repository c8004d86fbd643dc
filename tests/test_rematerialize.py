"""Less memory for more time: checkpoint inside a jitted step, and rematerialisation by budget."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

import minidl as md
from minidl import nn


def measured(f, *args) -> int:
    """The peak bytes that a call allocates."""
    tracemalloc.start()
    f(*args)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def wave(x):
    for _ in range(8):
        x = md.sin(x) * 1.1
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
        assert measured(less, x) < 0.4 * measured(plain, x)


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
