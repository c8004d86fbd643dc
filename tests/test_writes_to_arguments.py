"""What a function stores in its own arguments, or in views of them, is differentiated as if it had made new tensors: under every transform, in loops,
branches, checkpoints and rules of one's own, eager and traced; the caller's tensors stay as they are."""

from __future__ import annotations

import numpy as np
import pytest

import minidl as md

F64 = md.float64
X = np.array([0.3, 0.7, 1.1])


def stores(x):
    x[0] = x[1] * 5.0
    x *= md.sin(x)
    return x * x


def makes(x):
    y = x.at[0].set(x[1] * 5.0)
    y = y * md.sin(y)
    return y * y


def stores_in_views(x):
    part = x[1:]
    part.mul_(2.0)
    column = x.reshape(3, 1)
    column.add_(1.0)
    return x * x


def makes_parts(x):
    return md.square(md.concat([x[:1], x[1:] * 2.0]) + 1.0)


def total(f):
    return lambda x: md.sum(f(x) * md.asarray([1.0, 2.0, 3.0], dtype=F64))


def ones(x):
    return md.ones(3, dtype=F64) + 0.0 * x


def twice(f):
    def run(x):
        _, pull = md.vjp(f, x)
        return pull(ones(x))[0] + pull(ones(x) * 2.0)[0]

    return run


def after(f):
    """The value is changed before the tape of another level is used."""

    def run(x):
        value, pull = md.vjp(lambda y: f(y * 1.0) * x, x)
        value *= 3.0
        return md.sum(pull(ones(x))[0])

    return md.grad(run)


def by_vjp(f):
    h = md.custom_vjp(lambda x: f(x))
    h.defvjp(lambda x: (f(x + 0.0), x + 0.0), lambda r, c: (md.vjp(f, r)[1](c)[0],))
    return md.grad(lambda x: md.sum(h(x * 1.0)))


def by_jvp(f):
    h = md.custom_jvp(lambda x: f(x))
    h.defjvp(lambda p, t: md.jvp(f, (p[0] + 0.0,), (t[0],)))
    return md.grad(lambda x: md.sum(h(x * 1.0)))


def on_tape(f):
    def run(x):
        leaf = md.asarray(x, copy=True).detach().requires_grad_(True)
        md.sum(f(leaf * 1.0)).backward()
        return leaf.grad

    return run


def step(f):
    def run(c, a):
        r = f(a)
        return c + r.sum(), r * 0.1

    return run


WAYS = {
    "grad": lambda f: md.grad(total(f)),
    "vjp": twice,
    "value changed": after,
    "jvp": lambda f: lambda x: md.jvp(f, (x,), (md.cos(x),))[1],
    "linearize": lambda f: lambda x: md.linearize(f, x)[1](md.cos(x)),
    "jacfwd": md.jacfwd,
    "jacrev": md.jacrev,
    "hessian": lambda f: md.hessian(total(f)),
    "grad of grad": lambda f: md.grad(lambda x: md.sum(md.sin(md.grad(total(f))(x)))),
    "vmap of grad": lambda f: lambda x: md.vmap(md.grad(total(f)))(md.stack([x, x * 2.0])),
    "grad of vmap": lambda f: md.grad(lambda x: md.sum(md.vmap(f)(md.stack([x, x * 2.0])))),
    "grad of jit": lambda f: md.grad(total(md.jit(f))),
    "checkpoint": lambda f: md.grad(lambda x: md.sum(md.checkpoint(f)(x * 2.0))),
    "custom_vjp": by_vjp,
    "custom_jvp": by_jvp,
    "scan, carry": lambda f: md.grad(lambda x: md.sum(md.scan(lambda c, _: (f(c) * 0.3, None), x, None, length=3)[0])),
    "scan, slices": lambda f: md.grad(lambda x: md.sum(md.scan(step(f), md.zeros((), dtype=F64), md.stack([x, x * 0.5]))[1])),
    "fori_loop": lambda f: md.grad(lambda x: md.sum(md.fori_loop(0, 3, lambda i, c: f(c) * 0.3, x))),
    "while_loop": lambda f: md.grad(lambda x: md.sum(md.while_loop(lambda c: c[0] < 3, lambda c: (c[0] + 1, f(c[1]) * 0.3), (0, x))[1])),
    "cond": lambda f: md.grad(lambda x: md.sum(md.cond(x[0] > 0, f, lambda x: x, x))),
    "map": lambda f: md.grad(lambda x: md.sum(md.map(f, md.stack([x, x * 0.5])))),
    "jvp of grad": lambda f: lambda x: md.jvp(md.grad(total(f)), (x,), (md.cos(x),))[1],
    "backward": on_tape,
}  # fmt: skip


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "jit"])
@pytest.mark.parametrize("name", WAYS)
def test_what_is_stored_in_an_argument_is_differentiated(name, compiled):
    for f, pure in ((stores, makes), (stores_in_views, makes_parts)):
        want = WAYS[name](pure)(md.asarray(X)).numpy()
        run, x = WAYS[name](f), md.asarray(X)
        found = (md.jit(run) if compiled else run)(x)
        np.testing.assert_allclose(found.detach().numpy(), want, rtol=1e-12, atol=1e-12)
        assert not found.requires_grad
        if name != "grad of jit":
            assert x.tolist() == X.tolist()


def bwd(_, g):
    g *= 2.0
    return (g,)


def push(primals, tangents):
    (t,) = tangents
    t *= 2.0
    return primals[0] * 1.0, t


@pytest.mark.parametrize("kind", [md.custom_vjp, md.custom_jvp], ids=["custom_vjp", "custom_jvp"])
def test_a_rule_may_store_in_what_it_is_given(kind):
    """The cotangent of a sum belongs to both terms."""
    h = kind(lambda x: x * 1.0)
    h.defvjp(lambda x: (x * 1.0, None), bwd) if kind is md.custom_vjp else h.defjvp(push)
    value, x = (lambda x: md.sum(md.sin(h(x) + x))), md.asarray(X)
    first = md.grad(value)
    for grad in (first, md.jit(first)):
        np.testing.assert_allclose(grad(x).numpy(), 3 * np.cos(2 * X), rtol=1e-12)
    np.testing.assert_allclose(md.jvp(value, (x,), (x,))[1].numpy(), np.sum(3 * np.cos(2 * X) * X), rtol=1e-12)
    np.testing.assert_allclose(md.grad(lambda x: md.sum(first(x)))(x).numpy(), -9 * np.sin(2 * X), rtol=1e-12)
