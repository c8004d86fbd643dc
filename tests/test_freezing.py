"""requires_grad switched off and on inside a traced function, as the steps of two networks against each other do: jitted as eagerly."""

from __future__ import annotations

import numpy as np
import pytest

import minidl as md


def late(w, v, x):
    """Frozen before anything reads it."""
    w.requires_grad_(False)
    a = (w * v * x).sum()
    a.backward()
    w.requires_grad_(True)
    ((w * x) ** 2).sum().backward()
    return a.detach(), (w * x).sum()


def early(w, v, x):
    """Read and stepped first."""
    w.requires_grad_(True)
    w.grad = v.grad = None
    ((w * x) ** 2).sum().backward()
    with md.no_grad():
        w.sub_(w.grad * 0.1)
    w.requires_grad_(False)
    (w * v * x).sum().backward()
    frozen = (w * x).sum()
    w.requires_grad_(True)
    return frozen, (w * x).sum()


def branches(w, v, x):
    """Read in a branch while it is frozen."""
    w.requires_grad_(False)
    md.cond(x.sum() > 2.5, lambda: (w * v).sum(), lambda: (w * v * x).sum()).backward()
    w.requires_grad_(True)
    return md.cond(x.sum() > 2.5, lambda: (w * w).sum(), lambda: (w * x).sum())


def turning(w, v, x):
    """Left as it was not: what the next call finds is what this one left."""
    w.requires_grad_(not w.requires_grad)
    a = (w * v * x).sum()
    a.backward()
    return a.detach()


@pytest.mark.parametrize("step", [late, early, branches, turning], ids=lambda f: f.__name__)
def test_a_leaf_is_tracked_where_it_requires_grad(step):
    def results(f, start):
        w, v = md.tensor([1.0, 2.0], requires_grad=start), md.tensor([1.0, 1.0], requires_grad=True)
        for i in range(4):
            outs = md.tree.leaves(f(w, v, md.tensor([1.0, 1.0 + i])))
            yield [None if t is None else t.tolist() for t in (*outs, w, v, w.grad, v.grad)], w.requires_grad, [t.requires_grad for t in outs]
            if w.requires_grad and outs[-1].requires_grad:
                yield [None if g is None else g.tolist() for g in md.autograd.grad(outs[-1], (w, v), allow_unused=True)]

    for start in (True, False):
        jitted = md.jit(step)
        for a, b in zip(results(jitted, start), results(step, start), strict=True):
            np.testing.assert_equal(a, b)
        assert step is turning or jitted.compiles <= 2


def test_a_gradient_of_an_argument_is_one_program():
    def slope(x):
        x.requires_grad_(True)
        (x * x).sum().backward()
        g, x.grad = x.grad, None
        x.requires_grad_(False)
        return g

    jitted = md.jit(slope)
    assert [jitted(md.tensor(v)).item() for v in (1.0, 2.0, 3.0)] == [2.0, 4.0, 6.0] and jitted.compiles == 1
