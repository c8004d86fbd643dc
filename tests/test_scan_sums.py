"""Sums over the steps of a scan in its derivative: which are made behind the loop, and that they are what the loop would have added up."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minidl as md

N, B, T = 3, 2, 4


def f64(*shape, seed=0):
    return md.tensor(np.random.default_rng(seed).normal(size=shape) * 0.5)


WEIGHTS = {"w": f64(N, N, seed=1), "u": f64(N, N, seed=2), "b": f64(N, seed=3), "s": f64(seed=4), "m": f64(B, N, seed=5), "p": f64(B, B, seed=6)}
STEPS = {
    "h @ w": lambda h, x, p: h @ p["w"],
    "h @ u.T": lambda h, x, p: h @ p["u"].T,
    "x @ w": lambda h, x, p: h + x @ p["w"],
    "x @ u twice": lambda h, x, p: h * (x @ p["u"]) - x @ p["u"],
    "p @ h": lambda h, x, p: p["p"] @ h,
    "w in itself": lambda h, x, p: h @ (p["w"] @ p["u"]),
    "-w": lambda h, x, p: h - x @ (-p["w"]),
    "half of w": lambda h, x, p: h + x @ (p["w"][:, :1] * 0.5),
    "one for all": lambda h, x, p: h @ p["w"].reshape(-1).reshape(N, N),
    "+ b": lambda h, x, p: h + p["b"],
    "* s": lambda h, x, p: h * p["s"],
    "+ m": lambda h, x, p: h + p["m"] * x,
    "tanh": lambda h, x, p: md.tanh(h),
    "* x": lambda h, x, p: h * x,
    "a vector": lambda h, x, p: h + (x[0] @ p["w"]) * h[:, :1],
    "in lanes": lambda h, x, p: h + md.vmap(lambda a, m: a * (m @ p["u"]))(x, p["m"]),
}


def loops(graph):
    return [e for e in graph.walk() if e.primitive.name == "scan"]


def carried(f, *args):
    """The shapes of what the loops of a derivative carry."""
    return [v.shape for e in loops(md.trace(f)(*args)) for v in e.outputs[: e.params["n_carry"]]]


def close(a, b, tol=1e-11):
    for x, y in zip(md.tree.leaves(a), md.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x.detach().numpy(), y.detach().numpy(), rtol=tol, atol=tol)


def run(steps, reverse=False, length=T):
    """A loss of the weights and of the sequence."""
    xs = f64(length, B, N, seed=7)

    def loss(p, xs=xs):
        def step(h, x):
            for name in steps:
                h = STEPS[name](h, x, p)
            return h, md.sin(h) if len(steps) % 2 else h

        h, ys = md.scan(step, p["m"] * 0.5, xs, reverse=reverse)
        return (h * ys).sum() + (ys * ys).sum()

    return loss


@given(
    st.lists(st.sampled_from(sorted(STEPS)), min_size=1, max_size=5),
    st.booleans(),
    st.sampled_from([1, 2, 4]),
    st.sampled_from(["grad", "jvp", "vmap"]),
)
@settings(max_examples=40)
def test_gradients_of_random_loops_are_those_of_a_python_loop(steps, reverse, length, order):
    loss = run(steps, reverse, length)
    f = {
        "grad": md.value_and_grad(loss),
        "jvp": lambda p: md.jvp(md.grad(loss), (p,), ({k: v + 1.0 for k, v in p.items()},)),
        "vmap": md.vmap(md.grad(loss), in_axes=({k: 0 if k in "wb" else None for k in WEIGHTS},)),
    }[order]
    p = WEIGHTS if order != "vmap" else WEIGHTS | {k: md.stack([WEIGHTS[k], WEIGHTS[k] * -0.7]) for k in "wb"}
    graph = md.trace(f)(p)
    graph.check()
    expected = f(p) if order != "vmap" else None
    if order == "vmap":
        each = [md.grad(loss)(p | {k: p[k][i] for k in "wb"}) for i in range(2)]
        expected = {k: md.stack([e[k] for e in each]) for k in WEIGHTS}
    close(md.tree.unflatten(md.tree.flatten(expected)[1], graph(*md.tree.leaves(p), *graph.captured)), expected)


def lstm(p, xs):
    def step(carry, x):
        h, c = carry
        z = x @ p["w"].T + h @ p["u"].T + p["b"]
        i, f, g, o = (z[:, k * N : (k + 1) * N] for k in range(4))
        c = md.sigmoid(f) * c + md.sigmoid(i) * md.tanh(g)
        h = md.sigmoid(o) * md.tanh(c)
        return (h, c), h

    zero = xs[0, :, :N] * 0.0
    (h, _), hs = md.scan(step, (zero, zero), xs)
    return (hs * hs).sum() + h.sum()


def gates(dtype=None):
    rng = np.random.default_rng(3)
    p = {"w": rng.normal(size=(4 * N, N)), "u": rng.normal(size=(4 * N, N)), "b": rng.normal(size=4 * N)}
    return {k: md.tensor(v, dtype=dtype or md.float64) for k, v in p.items()}


def test_a_recurrent_layer_carries_no_weight_backward(backend):
    """Both weights' gradients are one product each; the bias's, a sum, stays in the loop; and all backends agree with the Python loop."""
    p, xs = gates(), md.tensor(np.random.default_rng(4).normal(size=(T, B, N)))
    lanes = lambda p, xs: md.vmap(lambda xs: lstm(p, xs[:, None]), in_axes=1)(xs).sum()
    f = lambda p, xs: (md.value_and_grad(lstm)(p, xs), md.jvp(md.grad(lstm), (p, xs), (p, xs))[1], md.grad(lanes)(p, xs))
    shapes = carried(md.grad(lstm), p, xs)
    assert (4 * N, N) not in shapes and shapes.count((4 * N,)) == 1
    close(md.jit(f)(p, xs), f(p, xs))


def test_what_the_products_alone_read_does_not_enter_the_backward_loop():
    p, xs = gates(), f64(T, B, N)
    backward = loops(md.trace(md.grad(lstm))(p, xs))[1]
    read = {a for e in backward.params["body"].equations for a in e.inputs}
    assert all(v in read for v in backward.params["body"].inputs)


@pytest.mark.parametrize(
    "why, f, shape",
    [
        ("one step only", lambda w: md.scan(lambda h, x: (md.tanh(h @ w), None), f64(B, N), f64(1, B, N))[0].sum(), (N, N)),
        ("elementwise", lambda w: md.scan(lambda h, x: (h * w, None), f64(N, N), f64(T, 2))[0].sum(), (N, N)),
        (
            "its operands are larger than what they save",
            lambda w: md.scan(lambda h, x: (md.tanh(h @ w), None), f64(50, N), f64(T, 2))[0].sum(),
            (N, N),
        ),
        ("a product with itself", lambda w: md.scan(lambda h, x: (h + (w @ w) * x[0], None), f64(N, N), f64(T, 2))[0].sum(), (N, N)),
    ],
)
def test_what_stays_in_the_loop(why, f, shape):
    w = f64(N, N, seed=9)
    assert carried(md.grad(f), w).count(shape) >= 1, why
    graph = md.trace(md.grad(f))(w)
    close(graph(w, *graph.captured), md.grad(f)(w))


def test_steps_in_a_shorter_float_are_still_added_up_in_the_longer_one():
    """The sum of rounded products is in the weight's own dtype; a product over all steps would be rounded, as a whole, to the shorter one's."""
    f = lambda w: (
        md.scan(lambda h, x: (md.tanh(h @ w.astype(md.float16)), None), md.ones((B, N), dtype=md.float16), f64(T, 2))[0].sum().astype(md.float32)
    )
    w = f64(N, N, seed=9).astype(md.float32)
    assert (N, N) in carried(md.grad(f), w)


def test_infinities_and_nan_arrive_where_the_loop_would_have_put_them():
    xs = np.ones((T, B, N))
    xs[1, 0, 0], xs[2, 1, 1] = np.inf, np.nan
    f = md.grad(lambda w, xs: md.scan(lambda h, x: (h + x @ w, x @ w), md.zeros((B, N), dtype=md.float64), xs)[0].sum())
    w, xs = f64(N, N), md.tensor(xs)
    assert carried(f, w, xs).count((N, N)) == 0
    np.testing.assert_array_equal(md.jit(f)(w, xs).numpy(), f(w, xs).numpy())


def test_whole_numbers_are_added_up_exactly_and_half_precision_no_worse():
    """64 steps: exact where every partial sum is; in float16 as near to the exact sum as a rounding of it."""
    f = md.grad(lambda w, xs: md.scan(lambda h, x: (h, (x @ w) * 1.0), md.zeros((), dtype=w.dtype), xs)[1].sum())
    rng = np.random.default_rng(5)
    for dtype in (md.float32, md.float16):
        xs = rng.integers(0, 5, size=(64, B, N)).astype(np.float64)
        got = md.jit(f)(md.zeros((N, N), dtype=dtype), md.tensor(xs, dtype=dtype)).numpy()
        np.testing.assert_array_equal(got, np.broadcast_to(xs.sum((0, 1))[:, None], (N, N)).astype(got.dtype))


def test_nested_loops_and_strong_zeros():
    def inner(w, h):
        return md.scan(lambda h, x: (md.tanh(h @ w) * x, None), h, f64(3))[0]

    loss = lambda w: md.scan(lambda h, x: (inner(w, h) + x @ w, None), f64(B, N), f64(T, B, N))[0].sum()
    w = f64(N, N, seed=9)
    close(md.jit(md.grad(loss))(w), md.grad(loss)(w))
    with md.strong_zero():
        close(md.jit(md.grad(loss))(w), md.grad(loss)(w))


def test_another_compiler_reads_a_loops_body_that_writes_over_nothing():
    torch = pytest.importorskip("torch")
    from minidl.backends import get

    def f(x, w):
        def step(h, x):
            z = h @ w
            return md.sigmoid(z[:, :N]) * md.tanh(z[:, N:]) * x, None

        return md.scan(step, x[0], x)[0]

    graph = md.trace(f)(f64(T, B, N), f64(N, 2 * N))
    xp, (loop,) = get("torch"), loops(graph)
    args = [torch.ones(v.shape, dtype=torch.float64) for v in graph.inputs]
    with xp.scope():
        (traced,), (compiled,) = xp._program(graph, "traced")(*args), xp._program(graph, "compiled")(*args)
    assert {key[1] for key in loop.params["body"].cache if key[0] is xp} == {"traced", "open"}
    torch.testing.assert_close(traced, compiled)


def test_numbers_in_a_body_are_stacked_for_no_step():
    step = lambda c, x: (md.exp(c * 3.0) * x, ())
    graph = md.trace(md.grad(lambda c: md.scan(step, c, md.ones(4))[0]))(md.tensor(0.1))
    body = next(e.params["body"] for e in graph.equations if e.primitive.name == "scan")
    stacked = body.outputs[1:]
    assert stacked and all(isinstance(v, md.extend.Var) for v in stacked)
    assert not any(v in stacked for e in body.equations if e.primitive.name == "full" for v in e.outputs)
