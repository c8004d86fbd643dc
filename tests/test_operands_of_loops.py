"""Loops and branches give their bodies tensors of their own: what is stored there reaches no tensor of the caller's, eager and jitted alike."""

from __future__ import annotations

import pytest

import minidl as md


def put(c):
    c.add_(1.0)
    return c


def both(c, x):
    x.mul_(2.0)
    c.add_(x)
    return c, c


def first(c, x):
    x[0].zero_()
    return c, x


def swap(pair):
    a, _b = pair
    a.add_(1.0)
    return a, a


def number(c):
    c.add_(100.0)
    return c.sum() < 130.0


FORMS = {
    "while_loop": lambda x: md.while_loop(lambda c: c.sum() < 30.0, put, x),
    "while_loop, no trip": lambda x: md.while_loop(lambda c: c.sum() < 0.0, put, x),
    "while_loop, one tensor twice": lambda x: md.while_loop(lambda c: c[0].sum() < 14.0, swap, (x, x)),
    "while_loop, a condition that stores": lambda x: md.while_loop(number, put, x),
    "fori_loop": lambda x: md.fori_loop(0, 3, lambda i, c: put(c), x),
    "fori_loop, a tensor as bound": lambda x: md.fori_loop(0, md.asarray(3, backend=x.backend), lambda i, c: put(c), x),
    "scan, carry and xs": lambda x: md.scan(both, x[0], x),
    "scan, a part of x": lambda x: md.scan(first, x.sum(), x, reverse=True),
    "scan, the carry as y": lambda x: md.scan(lambda c, _: (put(c), c), x[0], length=3),
    "map": lambda x: md.map(put, x),
    "cond": lambda x: md.cond(x.sum() > 0.0, put, lambda v: v, x),
    "cond, as it came": lambda x: md.cond(x.sum() < 0.0, put, lambda v: v, x),
    "cond, one tensor twice": lambda x: md.cond(x.sum() > 0.0, lambda p: (put(p["a"]), p["b"] * 1.0), lambda p: (p["a"], p["b"]), {"a": x, "b": x}),
    "switch": lambda x: md.switch(1, [lambda v: v, lambda v: (put(v[0]), v)[1]], x),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("backend", ["numpy", "torch", "jax"])
@pytest.mark.parametrize("tracked", [False, True])
def test_the_callers_tensors_stay(form, backend, tracked):
    found = []
    for f in (FORMS[form], md.jit(FORMS[form])):
        w = md.asarray([[1.0, 2.0], [3.0, 4.0]], dtype=md.float64, backend=backend).requires_grad_(tracked)
        x = w * 1.0
        out = md.tree.leaves(f(x))
        assert x.tolist() == [[1.0, 2.0], [3.0, 4.0]]
        row = [v.tolist() for v in out]
        if tracked:
            total = sum((v * v).sum() for v in out if v.dtype.inexact)
            row.append(md.autograd.grad(total, w)[0].tolist())
        for v in out:
            with md.no_grad():
                v.zero_()
        assert x.tolist() == [[1.0, 2.0], [3.0, 4.0]], "results are values of their own"
        found.append(row)
    assert found[0] == found[1]


def test_what_comes_from_outside_is_stored_there():
    def f(x, s):
        md.while_loop(lambda c: c < 3.0, lambda c: (s.add_(c), c + 1.0)[1], x)
        md.cond(x < 3.0, lambda c: s.add_(c), lambda c: s * 1.0, x + 10.0)
        return md.fori_loop(0, 2, lambda i, c: s.add_(1.0), s)

    seen = []
    for g in (f, md.jit(f)):
        s = md.tensor(0.0)
        seen.append((g(md.tensor(0.0), s).item(), s.item()))
    assert seen == [(15.0, 15.0)] * 2


@pytest.mark.parametrize("step", [lambda c, x: c, lambda c, x: (c, x, x), lambda c, x: [c, x]])
def test_a_step_of_scan_that_returns_no_pair_is_refused_eager_and_jitted(step):
    for f in (md.scan, md.jit(lambda c, x: md.scan(step, c, x))):
        with pytest.raises(TypeError, match="scan: the function must return"):
            f(*((step,) if f is md.scan else ()), md.tensor(0.0), md.ones(2))
