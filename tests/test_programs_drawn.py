"""Programs drawn at random: functions inside functions, each under a transform and closing over values of the outer ones, differentiated in every
way. The same program with every transform done by hand (a jit is the function, a scan is a loop, a branch is an if) says what is right, and
differences say that it is."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

import minidl as md

ruled = md.custom_vjp(lambda v, o: (md.sin(v) * o, md.cos(o), v * 3.0))
ruled.defvjp(
    lambda v, o: (ruled.f(v, o), (v, o)),
    lambda kept, g: (g[0] * md.cos(kept[0]) * kept[1] + g[2] * 3.0, g[0] * md.sin(kept[0]) - g[1] * md.sin(kept[1])),
)
forwards = md.custom_jvp(md.tanh)
forwards.defjvp(lambda at, t: (md.tanh(at[0]), t[0] * (1.0 - md.square(md.tanh(at[0])))))


def _stored(v, o):
    new = v * 1.0
    new[1:] = md.sin(o[:2])
    new[0] *= 0.5
    return new.add_(v)


OPS = {
    "rule": lambda v, o: ruled(v, o)[0],
    "rule of several": lambda v, o: ruled(o, v)[0] * 0.5 + ruled(v, o)[1],
    "forward rule": lambda v, o: forwards(v * o),
    "stored": _stored,
    "sin": lambda v, o: md.sin(v),
    "mul": lambda v, o: v * o,
    "index": lambda v, o: v[[2, 0, 1]] + o[1],
    "slice": lambda v, o: md.concat([v[1:], o[:1]]) * 0.7,
    "mean": lambda v, o: v * md.tanh(o).mean(),
    "sum": lambda v, o: md.cumulative_sum(v) * 0.5,
    "quotient": lambda v, o: v / (o * o + 1.5),
    "at": lambda v, o: v.at[1].multiply(o[2]),
    "product": lambda v, o: (md.sin(v)[:, None] * o[None, :]) @ md.cos(v),
}


def _store(wrap):
    """The function stores its result in a tensor of outside."""

    def how(f):
        def stored(v):
            w = v * 0.5
            wrap(lambda a: (w.mul_(f(a)), a.sum())[1])(v)
            return w + v

        return stored

    return how


def _same(f):
    return f


def _loop(f):
    def looped(v):
        for _ in range(2):
            v = md.sin(f(v)) * 0.9
        return v

    return looped


def _gradient(f):
    return lambda v: md.grad(lambda a: (f(a) * md.cos(a)).sum())(v)


#: Each transform, and what it does by hand.
WRAPS = {
    "jit": (md.jit, _same),
    "checkpoint": (md.checkpoint, _same),
    "jit of checkpoint": (lambda f: md.jit(md.checkpoint(f)), _same),
    "checkpoint of jit": (lambda f: md.checkpoint(md.jit(f)), _same),
    "vmap": (lambda f: lambda v: md.vmap(f)(md.stack([v, v * 2.0])).sum(0), lambda f: lambda v: f(v) + f(v * 2.0)),
    "scan": (lambda f: lambda v: md.scan(lambda c, _: (md.sin(f(c)) * 0.9, None), v, None, length=2)[0], _loop),
    "while": (lambda f: lambda v: md.while_loop(lambda s: s[0] < 2, lambda s: (s[0] + 1, md.sin(f(s[1])) * 0.9), (md.tensor(0), v))[1], _loop),
    "cond": (lambda f: lambda v: md.cond(v[0] < 1e3, f, md.cos, v), _same),
    "grad": (_gradient, _gradient),
    "store in checkpoint": (_store(md.checkpoint), _store(_same)),
    "store in jit": (_store(md.jit), _store(_same)),
}
STEPS = st.recursive(
    st.lists(st.sampled_from(sorted(OPS)), min_size=1, max_size=2).map(tuple),
    lambda inner: st.tuples(st.sampled_from(sorted(WRAPS)), inner, st.sampled_from(sorted(OPS))),
    max_leaves=3,
)


def run(steps, hand: bool, outer):
    """The function of a drawn program; `outer` is a value of the function outside, which it reads besides its argument."""

    def f(v):
        o = v if outer is None else outer
        if steps[0] in WRAPS:
            how, inner, last = steps
            return OPS[last](WRAPS[how][hand](run(inner, hand, md.sin(v) + o))(v), o)
        for name in steps:
            v = OPS[name](v, o)
        return v

    return f


X, T = np.array([0.3, -0.8, 1.1]), np.array([0.5, 1.0, -0.7])


def f64(v):
    return md.tensor(v, dtype=md.float64)


def backward(f, x, t):
    x = x.detach().requires_grad_()
    f(x).backward()
    return x.grad


FIRST = {
    "grad": lambda f, x, t: md.grad(f)(x),
    "backward": backward,
    "jit of grad": lambda f, x, t: md.jit(md.grad(f))(x),
    "grad of jit": lambda f, x, t: md.grad(md.jit(f))(x),
    "vmap of grad": lambda f, x, t: md.vmap(md.grad(f))(x[None])[0],
    "grad of vmap": lambda f, x, t: md.grad(lambda x: md.vmap(f)(x[None])[0])(x),
}
SECOND = {
    "grad of grad": lambda f, x, t: md.grad(lambda x: (md.grad(f)(x) * t).sum())(x),
    "grad of jvp": lambda f, x, t: md.grad(lambda x: md.jvp(f, (x,), (t,))[1])(x),
    "jvp of grad": lambda f, x, t: md.jvp(md.grad(f), (x,), (t,))[1],
}


@settings(max_examples=max(settings().max_examples // 4, 5))
@given(STEPS)
def test_transforms_inside_of_programs_are_what_they_do_by_hand(steps):
    def total(hand):
        return lambda x: (run(steps, hand, None)(x) * f64([1.0, -0.5, 0.25])).sum()

    drawn, plain, x, t = total(False), total(True), f64(X), f64(T)
    np.testing.assert_allclose(drawn(x).item(), plain(x).item(), rtol=1e-9, atol=1e-12)
    want = md.grad(plain)(x).numpy()
    h = 1e-4
    slopes = [(plain(f64(X + k * h * T)).item() - plain(f64(X - k * h * T)).item()) / (2 * k * h) for k in (1, 2)]
    np.testing.assert_allclose(want @ T, (4 * slopes[0] - slopes[1]) / 3, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(md.jvp(drawn, (x,), (t,))[1].item(), want @ T, rtol=1e-9, atol=1e-11)
    for name, way in FIRST.items():
        np.testing.assert_allclose(way(drawn, x, t).numpy(), want, rtol=1e-9, atol=1e-11, err_msg=name)
    want = SECOND["grad of grad"](plain, x, t).numpy()
    for name, way in SECOND.items():
        np.testing.assert_allclose(way(drawn, x, t).numpy(), want, rtol=1e-8, atol=1e-10, err_msg=name)
