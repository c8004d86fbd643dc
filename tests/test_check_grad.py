"""md.testing.check_grad tells a user of a wrong derivative in every mode: each fault is planted in one of them only, and what is right passes."""

from __future__ import annotations

import numpy as np
import pytest

import minidl as md
from minidl.extend import Primitive, define, table
from minidl.testing import check_grad

X, Y = ([0.3, 0.7, 1.1], [0.5, 0.2, 0.9])


def points(n=1):
    return [md.tensor(v, dtype=md.float64) for v in (X, Y)[:n]]


def with_vjp(f, backward, forward=None):
    """f with a backward pass of its own, which gets the arguments and the cotangent."""
    made = md.custom_vjp(f)
    made.defvjp(lambda *xs: ((forward or f)(*xs), xs), backward)
    return made


def with_jvp(f, tangent):
    made = md.custom_jvp(f)
    made.defjvp(lambda xs, ts: (f(*xs), tangent(xs, ts)))
    return made


def symbolic(x):
    try:
        x.tolist()
    except TypeError:
        return True
    return False


class Doubled(md.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return md.sin(x)

    @staticmethod
    def backward(ctx, g):
        return g * md.cos(ctx.saved_tensors[0]) * 2.0


def product(a, b):
    return md.sin(a) * b


WRONG = {
    "a factor": with_vjp(md.sin, lambda r, g: (g * md.cos(r[0]) * 2.0,)),
    "a factor of the tangent": with_jvp(md.sin, lambda xs, ts: ts[0] * md.cos(xs[0]) * 2.0),
    "a factor in a Function": Doubled.apply,
    "a small factor": with_vjp(md.sin, lambda r, g: (g * md.cos(r[0]) * (1 + 1e-6),)),
    "zero": with_vjp(md.sin, lambda r, g: (md.zeros_like(g),)),
    "a linear function's": with_vjp(lambda x: x * 2.0, lambda r, g: (g * 3.0,)),
    "not transposed": with_vjp(md.cumulative_sum, lambda r, g: (md.cumulative_sum(g),)),
    "another order": with_vjp(md.sin, lambda r, g: (md.flip(g * md.cos(r[0])),)),
    "another argument's": with_vjp(product, lambda r, g: (g * md.sin(r[0]), g * md.cos(r[0]) * r[1])),
    "of another function": with_vjp(md.sin, lambda r, g: (g * md.cos(r[0]) * 1.01,), lambda x: md.sin(x) * 1.01),
    "a part left out": lambda x: md.sin(x) * x.detach(),
    "nothing arrives": lambda x: md.sin(x.detach()),
    "only eager": with_vjp(md.sin, lambda r, g: (g * md.cos(r[0]) * (1.0 if symbolic(r[0]) else 2.0),)),
    "only compiled": with_vjp(md.sin, lambda r, g: (g * md.cos(r[0]) * (2.0 if symbolic(r[0]) else 1.0),)),
}


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_derivative_is_told(name, order):
    with pytest.raises(AssertionError):
        check_grad(WRONG[name], points(1 + (name == "another argument's")), order=order)


def test_a_wrong_second_derivative_is_told_where_it_is_asked_for():
    once = with_vjp(md.sin, lambda r, g: (g * md.cos(r[0]).detach(),))
    check_grad(once, points(), order=1)
    with pytest.raises(AssertionError):
        check_grad(once, points())


_rules = {"infer": lambda x: (x.shape, x.dtype), "decompose": lambda xp, x: x + x}


def _lanes(primitive, call, size, xs, batched, params):
    return call(primitive.name, xs[0])


def _flipped(primitive, call, size, xs, batched, params):
    return call("flip", call(primitive.name, xs[0]), axes=(0,))


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize(
    ("reverse", "forward", "batch"),
    [(2.0, 2.0, _lanes), (3.0, 2.0, _lanes), (2.0, 3.0, _lanes), (2.0, 2.0, _flipped)],
    ids=["right", "vjp", "jvp", "batch"],
)
def test_each_rule_of_a_primitive_is_looked_at(reverse, forward, batch, order):
    """Also of one that is linear, where no second derivative shows it, and of one that is made after another was checked."""
    vjp = (lambda xp, g: g * 2.0) if reverse == 2.0 else (lambda xp, g: g * 3.0)
    jvp = (lambda xp, t: t * 2.0) if forward == 2.0 else (lambda xp, t: t * 3.0)
    check_grad(md.sin, points(), order=1)
    twice = define(Primitive("twice", "x", vjps=(vjp,), jvps=(jvp,), batch=batch, **_rules))
    try:
        if (reverse, forward, batch) == (2.0, 2.0, _lanes):
            check_grad(twice, points(), order=order)
        else:
            with pytest.raises(AssertionError):
                check_grad(twice, points(), order=order)
    finally:
        del table["twice"]


@pytest.mark.parametrize(
    "f",
    [
        lambda x: (md.sin(x) * x, md.cumulative_sum(x)), lambda x: md.vmap(lambda v: md.exp(-v * v))(x),
        lambda x: md.scan(lambda c, a: (md.tanh(c * a + 0.5), c), x[0], x)[0],
        lambda x: md.while_loop(lambda c: c[0] < 3, lambda c: (c[0] + 1, md.sin(c[1])), (0, x))[1],
        lambda x: md.linalg.inv(3.0 * md.eye(3, dtype=x.dtype) + x[:, None] * x), with_vjp(md.sin, lambda r, g: (g * md.cos(r[0]),)),
    ],
)  # fmt: skip
def test_what_is_right_passes(f):
    check_grad(f, points())


def test_complex_functions_and_empty_arrays_pass():
    z = md.tensor([1 + 2j, 0.5 - 0.25j], dtype=md.complex128)
    check_grad(lambda z: (md.exp(z) * z, md.abs(z)), [z])
    check_grad(md.sin, [md.zeros((0,), dtype=md.float64)])
    with pytest.raises(AssertionError):
        check_grad(with_vjp(md.exp, lambda r, g: (g * md.exp(r[0]),)), [z])  # the conjugate is missing: exp(conj(z)), as torch has it


def test_a_result_without_a_derivative_is_refused():
    with pytest.raises(TypeError, match="^check_grad: the function has no floating-point result"):
        check_grad(lambda x: x > 0.5, points())


@pytest.mark.parametrize("backend", ["numpy", "torch"])
def test_functions_of_more_than_their_arguments_pass(backend):
    with md.use_backend(backend):
        x, layer, key = md.asarray(np.arange(1.0, 7.0).reshape(2, 3)), md.nn.Linear(3, 2).double(), md.random.key(0)
        scale = md.asarray(np.array([2.0, -1.0, 0.5]))
        check_grad(layer, [x])
        check_grad(md.nn.BatchNorm1d(3).double(), [x])
        check_grad(lambda x: {"a": md.sin(x * scale), "b": [x * md.random.normal(key, x.shape, dtype=md.float64), 3.0]}, [x])


def test_random_results_are_refused():
    with pytest.raises(ValueError, match="gives other results in each call"):
        check_grad(lambda x: md.nn.functional.dropout(x, 0.5), [md.ones(30, dtype=md.float64)])
