"""What rules return: cotangents in the structure, shape and dtype of the arguments, and tangents in those of the results, eager and traced."""

from __future__ import annotations

import numpy as np
import pytest

import minidl as md

X = [1.0, 2.0, 3.0]
WAYS = {
    "eager": lambda f: md.grad(lambda x: f(x).sum()),
    "jit": lambda f: md.jit(md.grad(lambda x: f(x).sum())),
    "scan": lambda f: md.grad(lambda x: md.scan(lambda c, a: (c + f(a).sum(), ()), md.tensor(0.0), x[None])[0]),
    "vmap": lambda f: lambda x: md.vmap(md.grad(lambda x: f(x).sum()))(x[None])[0],
}


def with_rule(bwd):
    f = md.custom_vjp(lambda x: x * x)
    f.defvjp(lambda x: (x * x, x), bwd)
    return f


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("make", [lambda: md.ones(3, dtype=md.float64), lambda: md.ones(3, dtype=md.int64), lambda: md.ones(3, dtype=md.complex64),
                                  lambda: np.ones(3), lambda: [1.0, 1.0, 1.0]])  # fmt: skip
def test_a_cotangent_takes_the_dtype_of_its_argument(way, make):
    if isinstance(make(), list):  # a list is a pytree, and no array
        with pytest.raises(ValueError, match=r"bwd returned a list for the argument f32\[3\]"):
            WAYS[way](with_rule(lambda r, g: (make(),)))(md.tensor(X))
        return
    found = WAYS[way](with_rule(lambda r, g: (make(),)))(md.tensor(X))
    assert found.dtype is md.float32 and found.tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("way", ["eager", "jit"])
def test_a_number_is_the_cotangent_of_a_number_alone(way):
    f = with_rule(lambda r, g: (5.0,))
    assert WAYS[way](f)(md.tensor(2.0)).item() == 5.0
    with pytest.raises(ValueError, match=r"bwd returned f32\[\] for the argument f32\[3\]"):
        WAYS[way](f)(md.tensor(X))


@pytest.mark.parametrize("way", WAYS)
def test_none_stands_for_all_below_it(way):
    f = md.custom_vjp(lambda d, k: d["x"] * d["n"] * k[0])
    f.defvjp(lambda d, k: (f.f(d, k), None), lambda r, g: ({"n": None, "more": None, "x": 50.0 * g}, None))
    call = lambda x: f({"x": x, "n": 2, "more": [x, (True, None)]}, [x, x])
    assert WAYS[way](call)(md.tensor(X)).tolist() == [50.0] * 3


def test_a_tuple_does_for_a_list_and_another_structure_is_an_error():
    f = md.custom_vjp(lambda xs: xs[0] * xs[1])
    f.defvjp(lambda xs: (xs[0] * xs[1], xs), lambda xs, g: ((g * xs[1], g * xs[0]),))
    assert md.grad(lambda a: f([a, a]).sum())(md.tensor(X)).tolist() == [2.0, 4.0, 6.0]
    f.defvjp(lambda xs: (xs[0] * xs[1], xs), lambda xs, g: ((g * xs[1],),))
    with pytest.raises(ValueError, match="a tuple where a list of 2 is wanted"):
        md.grad(lambda a: f([a, a]).sum())(md.tensor(X))
    f.defvjp(lambda xs: (xs[0] * xs[1], xs), lambda xs, g: ({"a": g, "b": g},))
    with pytest.raises(ValueError, match="a dict where a list of 2 is wanted"):
        md.grad(lambda a: f([a, a]).sum())(md.tensor(X))


def moved_by(tangent, value=lambda x: x * x):
    f = md.custom_jvp(value)
    f.defjvp(lambda p, t: (value(p[0]), tangent(p[0], t[0])))
    return f


PUSHED = {
    "jvp": lambda f, x: md.jvp(f, (x,), (md.ones_like(x),))[1],
    "jit": lambda f, x: md.jit(lambda x: md.jvp(f, (x,), (md.ones_like(x),))[1])(x),
    "vmap": lambda f, x: md.vmap(lambda x: md.jvp(f, (x,), (md.ones_like(x),))[1])(x[None])[0],
    "grad": lambda f, x: md.grad(lambda x: f(x).sum())(x),
    "jit of grad": lambda f, x: md.jit(md.grad(lambda x: f(x).sum()))(x),
}


@pytest.mark.parametrize("way", PUSHED)
def test_a_tangent_is_like_its_result(way):
    x = md.tensor(X)
    found = PUSHED[way](moved_by(lambda x, t: t.to(md.float64) * 9.0), x)
    assert found.dtype is md.float32 and found.tolist() == [9.0] * 3
    assert PUSHED[way](moved_by(lambda x, t: None), x).tolist() == [0.0] * 3
    with pytest.raises(ValueError, match=r"custom_jvp: the rule returned f32\[2\] for the result f32\[3\]"):
        PUSHED[way](moved_by(lambda x, t: t[:2]), x)
    with pytest.raises(ValueError, match=r"custom_jvp: the rule returned a list for the result f32\[3\]"):
        PUSHED[way](moved_by(lambda x, t: [t]), x)


@pytest.mark.parametrize("way", ["jvp", "jit"])
def test_a_rule_with_several_results_moves_each(way):
    f = moved_by(lambda x, t: {"n": None, "y": t * 7.0, "z": None}, lambda x: {"n": 3, "y": x, "z": x * 2.0})
    pushed = lambda x: md.jvp(lambda x: (f(x)["y"], f(x)["z"]), (x,), (md.ones_like(x),))[1]
    y, z = (md.jit(pushed) if way == "jit" else pushed)(md.tensor(X))
    assert y.tolist() == [7.0] * 3 and z.tolist() == [0.0] * 3
