"""What nobody reads of a loop or a branch has no derivative, rather than one of 0: beside an infinity that would be nan."""

from __future__ import annotations

import pytest

import minidl as md

INF = float("inf")


def far(x):
    return md.where(md.arange(x.shape[0]) == 0, INF, 1.0)


def branch(x):
    return md.cond(md.sum(x) > 0, lambda x: (x * 2, x * far(x)), lambda x: (x, x / far(x)), x)[0]


def trips(x):
    return md.while_loop(lambda c: c[0] < 2, lambda c: (c[0] + 1, c[1] * 2 + c[2], c[2] * 0.5, c[3] * far(x)), (md.asarray(0), x, x, x))[1]


def last(x):
    return md.scan(lambda c, _: ((c[0] * 2, c[1] * far(x)), c[0] * far(x)), (x, x), None, length=2)[0][0]


def stacked(x):
    return md.scan(lambda c, q: ((c[0] * 2 + c[2], c[1] * far(x), c[2] * q), (c[0] * q, c[0] * far(x))), (x, x, x), md.stack([x, x]))[1][0]


def nested(x):
    inner = lambda x: md.scan(lambda c, _: ((c[0] * 3, c[1] * far(x)), ()), (x, x), None, length=2)[0]
    return md.scan(lambda c, _: ((inner(c[0])[0], c[1]), inner(c[0])[1]), (x, x), None, length=2)[0][0]


def aside(x):
    """What has a loop inside and is not read: the body has fewer values where it needs no derivative."""
    move = lambda c: md.while_loop(lambda v: v.sum() < 2.0, lambda v: v * 2.0, c)
    return md.scan(lambda c, q: (move(c), q * q * x), x, md.stack([x, x * 2]))[1]


CASES = [branch, trips, last, stacked, nested, aside]


@pytest.mark.parametrize("f", CASES, ids=lambda f: f.__name__)
def test_an_unread_output_adds_nothing_to_a_gradient(f):
    x = md.tensor([1.0, 2.0])
    g = md.grad(lambda x: f(x).sum())
    want = g(x)
    assert bool(md.all(md.isfinite(want)))
    assert md.jit(g)(x).tolist() == want.tolist()
    assert md.vmap(g)(md.stack([x, x])).tolist() == [want.tolist()] * 2
    leaf = x.clone().requires_grad_()
    f(leaf).sum().backward()
    assert leaf.grad.tolist() == want.tolist()
    if f is trips:  # the second derivative's loop carries the states of all steps: a row of conventions/gaps.md
        return
    second = md.grad(lambda x: (g(x) * x).sum())
    assert md.jit(second)(x).tolist() == second(x).tolist()


@pytest.mark.parametrize("f", CASES, ids=lambda f: f.__name__)
def test_a_state_that_does_not_move_adds_nothing_to_a_tangent(f):
    x = md.tensor([1.0, 2.0])
    push = lambda x: md.jvp(f, (x,), (md.ones_like(x),))[1]
    assert md.jit(push)(x).tolist() == push(x).tolist()
    still = lambda x: md.jvp(lambda q: md.scan(lambda c, _: ((c[0] * 2, c[1] * far(x)), ()), (q, far(x)), None, length=2)[0][0], (x,), (x,))[1]
    assert md.jit(still)(x).tolist() == still(x).tolist() == [4.0, 8.0]


def test_all_that_is_read_keeps_its_part():
    def f(x, w):
        (h, c), ys = md.scan(lambda s, q: ((md.tanh(w * s[0] + s[1] + q), s[1] * 0.5 + s[0]), s[0] * q), (x, x * 2), md.stack([x, x * 3, x]))
        return {"h": h, "c": c, "ys": ys}

    x, w = md.tensor([0.3, -0.2], dtype=md.float64), md.tensor(0.7, dtype=md.float64)
    for names in (["h"], ["c"], ["ys"], ["h", "ys"], ["h", "c", "ys"]):
        g = md.grad(lambda x, w, names=names: sum(f(x, w)[n].sum() for n in names), argnums=(0, 1))
        for a, b in zip(md.jit(g)(x, w), g(x, w), strict=True):
            assert bool(md.all(md.abs(a - b) < 1e-12)), names


def test_without_a_step_the_carry_has_the_derivative_of_what_it_was():
    body = lambda c, _: ((md.stop_gradient(c[0]) * 2.0, c[1] * c[0]), None)
    for steps, wanted in ((0, 1.0), (2, 0.0)):
        go = lambda x, n=steps: md.while_loop(lambda s: s[0] < n, lambda s: (s[0] + 1, *body(s[1:], None)[0]), (md.tensor(0), x, x))[1]
        over = lambda x, n=steps: md.scan(body, (x, x), md.zeros((n, 1)))[0][0]
        for f in (go, over):
            for g in (md.jit(md.grad(f)), md.grad(md.jit(f))):
                assert g(md.tensor(3.0)).item() == wanted
