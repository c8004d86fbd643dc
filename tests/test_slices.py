"""The gradient of what is read slice by slice: added up in place where nobody else holds it, and nowhere else."""

from __future__ import annotations

import numpy as np
import pytest

import minidl as md


def parts(x):
    """Slices that overlap, have steps, and are read twice; x itself besides."""
    return md.sum(x[0] * x[1]) + md.sum(x[1:3] * x[2:4]) + md.sum(x[:, ::2] * x[:, 1::2]) + md.sum(x * x[3]) + md.sum(x[0] * x[0])


@pytest.mark.parametrize(("backend", "dtype"), [("numpy", "float16"), ("numpy", "float32"), ("numpy", "float64"), ("torch", "float32")])
def test_slices_of_every_kind(backend, dtype):
    a = np.random.default_rng(0).integers(-4, 5, (4, 6, 3)).astype(dtype)  # whose sums are exact
    want = np.zeros_like(a)
    want[0] += a[1] + 2 * a[0]
    want[1] += a[0]
    want[1:3] += a[2:4]
    want[2:4] += a[1:3]
    want[:, ::2] += a[:, 1::2]
    want[:, 1::2] += a[:, ::2]
    want += a[3]
    want[3] += a.sum(0)
    with md.use_backend(backend):
        x = md.asarray(a).requires_grad_()
        for _ in range(2):
            parts(x).backward()
        np.testing.assert_array_equal(x.grad.numpy(), 2 * want)
        for f in (md.grad(parts), md.jit(md.grad(parts)), lambda x: md.vmap(md.grad(parts))(md.stack([x, x]))[1]):
            np.testing.assert_array_equal(f(md.asarray(a)).numpy(), want)
        second = md.grad(lambda x: md.sum(md.grad(parts)(x) * x))(md.asarray(a))
        np.testing.assert_array_equal(second.numpy(), 2 * want)  # parts is a quadratic form


def test_what_others_hold_stays_as_it_is():
    """A cotangent that a hook has kept, one that went to two values, and one that is the caller's."""
    kept = []
    with md.use_backend("numpy"):
        x = md.ones((4, 3)).requires_grad_()
        y = x * 2.0
        y.register_hook(lambda g: kept.append((g, g.numpy().copy())))
        z = y + md.zeros((4, 3)).requires_grad_()
        seed = md.ones((4, 3))
        (z * 1.0).backward(seed, retain_graph=True)
        (y[1] * y[2] + y[1]).sum().backward(retain_graph=True)
        (md.sum(z + z[0]) + z[1].sum()).backward()
        w = md.ones((3, 2)).requires_grad_()
        u = w + 0.0
        total = u[0].sum() + u[1].sum()
        given = md.ones((3, 2))
        first = md.autograd.grad([u, total], [w], grad_outputs=[given, md.ones(())])[0]
        assert (seed.numpy() == 1).all() and (given.numpy() == 1).all()
        np.testing.assert_array_equal(first.numpy(), [[2, 2], [2, 2], [1, 1]])
        for g, was in kept:
            np.testing.assert_array_equal(g.numpy(), was)


def test_a_leaf_that_is_both_read_whole_and_by_slices_has_a_gradient_of_its_own():
    with md.use_backend("numpy"):
        x = md.ones((3, 2)).requires_grad_()
        y = md.ones((3, 2)).requires_grad_()
        (md.sum(x + y) + x[0].sum() + y[1].sum() * 3.0).backward()
        np.testing.assert_array_equal(x.grad.numpy(), [[2, 2], [1, 1], [1, 1]])
        np.testing.assert_array_equal(y.grad.numpy(), [[1, 1], [4, 4], [1, 1]])
        held, other = x.grad, y.grad.numpy()
        (x[2].sum() + x[1].sum()).backward()
        assert held is x.grad  # which grows, as in PyTorch
        np.testing.assert_array_equal(held.numpy(), [[2, 2], [2, 2], [2, 2]])
        np.testing.assert_array_equal(y.grad.numpy(), other)


def test_the_cost_of_a_loop_over_slices_is_linear(monkeypatch):
    """No array as large as x is made but the first."""
    made = []
    with md.use_backend("numpy") as xp:
        whole = xp.bare.unslice
        monkeypatch.setattr(xp.bare, "unslice", lambda *args, **kw: made.append(1) or whole(*args, **kw))
        x = md.ones((50, 4)).requires_grad_()
        total = md.zeros((4,))
        for t in range(50):
            total = md.tanh(total + x[t])
        total.sum().backward()
    assert len(made) == 1
