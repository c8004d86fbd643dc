"""The rows of a loop: which bodies can be divided, what a part of one computes, and loops on several threads."""

from __future__ import annotations

import numpy as np
import pytest

import minidl as md
from minidl.control.on_numba_rows import fewer, transposed

N, B, T = 3, 12, 5


def f64(*shape, seed=0):
    return md.tensor(np.random.default_rng(seed).normal(size=shape) * 0.5)


W = {"w": f64(N, N, seed=1), "u": f64(N, N, seed=2), "b": f64(N, seed=3), "m": f64(B, 1, seed=4), "k": f64(B, N, N, seed=5), "p": f64(B, B, seed=6)}


def gru(h, x, p):
    z, r = md.sigmoid(x @ p["w"] + h @ p["u"].T), md.sigmoid(h @ p["w"].T - p["b"])
    return (1 - z) * h + z * md.tanh(x + (r * h) @ p["u"].T)


def timed(state, x, p):
    h, t = state
    return h + md.tanh(h @ p["w"] * t + x), t + 0.25


#: What can be divided: of each a row of the state is made of the same rows.
APART = {
    "a cell": lambda h, x, p: md.tanh(x @ p["w"].T + h @ p["u"].T + p["b"]),
    "gru": gru,
    "gates": lambda h, x, p: md.sigmoid((h @ md.concat([p["w"], p["u"]], axis=1))[:, :N]) * x,
    "a mask from outside": lambda h, x, p: h * p["m"] + x,
    "a matrix for each row": lambda h, x, p: md.tanh((p["k"] @ h[:, :, None])[:, :, 0] + x),
    "rows normalised": lambda h, x, p: md.softmax(h + x, axis=1) - h.mean(axis=1, keepdims=True),
    "zeros beside": lambda h, x, p: md.concat([md.zeros((B, 1), dtype=md.float64), h[:, 1:]], axis=1) + md.where(x > 0, x, 0.0),
    "bias spread": lambda h, x, p: h + md.broadcast_to(p["b"], (B, N)) * x,
    "reshaped": lambda h, x, p: (h.reshape(B, 1, N) * x[:, :, None]).sum(axis=1),
    "rows sorted": lambda h, x, p: md.sort(h, axis=1) + x,
}
#: What cannot: rows meet, or change their places.
TOGETHER = {
    "mixed": lambda h, x, p: p["p"] @ h + x,
    "centred": lambda h, x, p: h - h.mean(axis=0) + x,
    "shifted": lambda h, x, p: md.roll(h, 1, 0) + x,
    "turned": lambda h, x, p: h + (h.T.reshape(B, N)) * x,
    "columns sorted": lambda h, x, p: md.sort(h, axis=0) + x,
    "of one": lambda h, x, p: h + h[:1] + x,
    "cut": lambda h, x, p: md.concat([h[1:], x[:1]], axis=0),
    "summed": lambda h, x, p: h + x * (h * h).sum(),
}


def loss(step):
    def f(p, xs, h):
        def one(h, x):
            h = step(h, x, p)
            return h, h

        h, ys = md.scan(one, h, xs)
        return (ys * ys).sum() + h.sum()

    return f


def loops(graph):
    return [e for e in graph.walk() if e.primitive.name == "scan"]


def of(step):
    return md.trace(loss(step))(W, f64(T, B, N, seed=7), f64(B, N, seed=8))


@pytest.mark.parametrize("name", APART)
def test_a_part_of_the_rows_is_what_the_body_computes_of_them(name):
    (e,) = loops(of(APART[name]))
    body, consts, carry = e.params["body"], e.params["n_consts"], e.params["n_carry"]
    part, ins, outs = fewer(body, consts, carry, 3, 4)
    part.check()
    rng = np.random.default_rng(9)
    args = [md.tensor(rng.normal(size=v.shape)) for v in body.inputs]
    whole = body(*args)
    for i in range(3):
        rows = slice(4 * i, 4 * i + 4)
        found = part(*(a[rows] if on else a for a, on in zip(args, ins, strict=True)))
        for got, want, on in zip(found, whole, outs, strict=True):
            np.testing.assert_allclose(got.numpy(), (want[rows] if on else want).numpy(), rtol=1e-12)
    assert fewer(body, consts, carry, 3, 5) is None, "too few rows each"
    assert fewer(body, consts, carry, 5, 1) is None, "no equal parts"


@pytest.mark.parametrize("name", TOGETHER)
def test_rows_that_meet_stay_together(name):
    (e,) = loops(of(TOGETHER[name]))
    assert fewer(e.params["body"], e.params["n_consts"], e.params["n_carry"], 3, 1) is None


def test_constants_that_only_products_read_are_turned():
    (e,) = loops(of(gru))
    body, n = e.params["body"], e.params["n_consts"]
    new, turned = transposed(body, n)
    new.check()
    rng = np.random.default_rng(9)
    args = [md.tensor(rng.normal(size=v.shape)) for v in body.inputs]
    for got, want in zip(new(*(a.T if i < n and turned[i] else a for i, a in enumerate(args))), body(*args), strict=True):
        np.testing.assert_allclose(got.numpy(), want.numpy(), rtol=1e-12)
    assert sum(turned) == 1, "one is read the other way round, too"


@pytest.fixture
def two(monkeypatch):
    pytest.importorskip("numba")
    from minidl.backends import numba_plan
    from minidl.rewrites.threads import on_numba

    monkeypatch.setattr(numba_plan.Plan, "share", 1e-9)
    monkeypatch.setattr(on_numba, "threads", lambda: 2)
    return on_numba


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("name", [*APART, "with the time", "mixed"])
def test_loops_on_two_threads_give_what_numpy_gives(two, name, reverse):
    from minidl.backends import get
    from minidl.backends.numba_kernels import kernel
    from minidl.backends.numba_lower import source

    step = (APART | TOGETHER).get(name)

    def f(p, xs, h):
        def one(state, x):
            state = step(state, x, p) if step else timed(state, x, p)
            return state, state

        end, ys = md.scan(one, h if step else (h, md.tensor(0.0, dtype=md.float64)), xs, reverse=reverse)
        return sum((y * y).sum() for y in md.tree.leaves((end, ys)))

    args = W, f64(T, B, N, seed=7), f64(B, N, seed=8)
    want = md.jit(md.value_and_grad(f, (0, 1, 2)), backend="numpy")(*args)
    got = md.jit(md.value_and_grad(f, (0, 1, 2)), backend="numba")(*args)
    for a, b in zip(md.tree.leaves(got), md.tree.leaves(want), strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-10, atol=1e-12)
    calls = get("numba").compile(md.trace(f)(*args)).plan.calls
    assert sum(s == two.DIVIDE and a[2] == kernel(source("run_scan(a)")).address for s, a in calls) == (name != "mixed")
