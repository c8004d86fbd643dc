"""Dicts that transforms, jit and tree.map build have their keys in the order of the dict they come from, and go together by key all the same."""

import pickle
from collections import OrderedDict, defaultdict
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minidl as md
from minidl import optim


class Named(dict):
    """A user's dict."""


@dataclass
class Pair:
    first: dict
    second: dict


def params(keys="wab"):
    return {k: md.tensor([float(ord(k)), 1.0], dtype=md.float64) for k in keys}


def loss(p):
    return (p["w"] ** 2).sum() + (p["a"] * 3.0).sum() + (p["b"] ** 3).sum()


def values(tree):
    return {k: v.tolist() for k, v in tree.items()}


def expected(p):
    return {"w": (2 * p["w"]).tolist(), "a": [3.0, 3.0], "b": (3 * p["b"] ** 2).tolist()}


@given(st.lists(st.text(max_size=3), unique=True), st.randoms())
def test_what_is_built_keeps_the_order_and_the_structure_takes_no_notice_of_it(keys, rnd):
    other = list(keys)
    rnd.shuffle(other)
    one, two = {k: k + "!" for k in keys}, {k: k + "!" for k in other}
    (leaves, s), (others, t) = md.tree.flatten(one), md.tree.flatten(two)
    assert leaves == others == [k + "!" for k in sorted(keys)]
    assert s == t and hash(s) == hash(t) and repr(s) == repr(t)
    assert list(md.tree.unflatten(s, leaves).items()) == list(one.items())
    assert list(md.tree.unflatten(t, leaves).items()) == list(two.items())
    assert list(eval(md.tree.source(t, map(repr, leaves))).items()) == list(two.items())
    assert list(md.tree.map(lambda a, b: (a, b), two, one).items()) == [(k, (k + "!", k + "!")) for k in other]


def test_the_order_survives_nesting_copies_and_keys_that_do_not_sort():
    tree = Pair({"b": 1, "a": [{"z": 2, "y": 3}]}, {"x": 4, 1: 5})
    leaves, s = md.tree.flatten(tree)
    for again in (s, pickle.loads(pickle.dumps(s))):
        built = md.tree.unflatten(again, leaves)
        assert built == tree and again == s
        assert list(built.first) == ["b", "a"] and list(built.first["a"][0]) == ["z", "y"] and list(built.second) == ["x", 1]


@pytest.mark.parametrize("kind", [dict, OrderedDict, Named, lambda p: defaultdict(list, p)])
def test_derivatives_and_vmap_keep_the_order(kind):
    p = kind(params())
    value, g = md.value_and_grad(loss)(p)
    assert value.item() == loss(p).item()
    _, moved = md.jvp(lambda q: md.tree.map(lambda t: t * 2, q), (p,), (p,))
    _, pull = md.vjp(loss, p)
    mapped = md.vmap(lambda q: md.tree.map(lambda t: t + 1, q))(p)
    for made in (g, md.grad(loss)(p), md.jit(md.grad(loss))(p), moved, pull(md.tensor(1.0, dtype=md.float64))[0], mapped, md.jacrev(loss)(p)):
        assert type(made) is type(p) and list(made) == list("wab")
    assert values(g) == expected(p)
    assert values(mapped) == {k: (v + 1).tolist() for k, v in p.items()}
    stepped = {k: (v - 0.5 * d).tolist() for (k, v), d in zip(p.items(), md.grad(loss)(p).values(), strict=True)}
    assert stepped == {k: (v - 0.5 * np.asarray(expected(p)[k])).tolist() for k, v in p.items()}


@pytest.mark.parametrize("kind", [dict, OrderedDict, Named])
def test_jit_is_the_function_whatever_order_the_keys_come_in(kind):
    rows = lambda q: ([v * 2 for v in q.values()], {k: v + 1 for k, v in q.items()}, md.grad(loss)(q))
    f = md.jit(rows)
    for _ in range(2):
        for keys in ("wab", "abw", "wab", "bwa"):
            p = kind(params(keys))
            lists, plus, g = f(p)
            assert list(plus) == list(g) == list(keys)
            assert [v.tolist() for v in lists] == [(v * 2).tolist() for v in p.values()]
            assert values(plus) == {k: (v + 1).tolist() for k, v in p.items()} and values(g) == expected(p)
    assert f.compiles == 3  # one for each order: what values() shows is part of what was traced


def test_freeze_sees_the_order_too():
    f = md.deploy.freeze(lambda q: (q["w"] * 2, md.stack(list(q.values()))))
    for keys in ("wab", "abw", "wab"):
        p = params(keys)
        assert f(p)[1].tolist() == [v.tolist() for v in p.values()]


@pytest.mark.parametrize("compiled", [False, True])
def test_loops_and_branches_keep_the_order(compiled):
    def run(p):
        carry, ys = md.scan(lambda c, x: (md.tree.map(lambda v: v + x, c), {"z": x, "y": x * 2}), p, md.tensor([1.0, 2.0], dtype=md.float64))
        looped = md.while_loop(lambda c: c["w"].sum() < 1000.0, lambda c: md.tree.map(lambda v: v * 2, c), p)
        chosen = md.cond(p["w"].sum() > 0, lambda q: q, lambda q: {k: -v for k, v in q.items()}, p)
        return carry, ys, looped, chosen

    p = params()
    carry, ys, looped, chosen = (md.jit(run) if compiled else run)(p)
    assert list(carry) == list(looped) == list(chosen) == list("wab") and list(ys) == ["z", "y"]
    assert values(carry) == {k: (v + 3).tolist() for k, v in p.items()} and values(chosen) == values(p)
    assert ys["y"].tolist() == [2.0, 4.0]


def test_branches_of_other_orders_have_one_structure():
    f = lambda x: md.cond(x > 0, lambda x: {"b": x, "a": -x}, lambda x: {"a": x, "b": 3 * x}, x)
    for g in (f, md.jit(f)):
        assert {k: v.item() for k, v in g(md.tensor(-1.0)).items()} == {"a": -1.0, "b": -3.0}
        assert {k: v.item() for k, v in g(md.tensor(1.0)).items()} == {"a": -1.0, "b": 1.0}


def test_functional_optimizers_keep_the_order_of_the_parameters():
    p, opt = params(), optim.SGD([md.nn.Parameter(md.ones(1))], lr=0.5, momentum=0.9)
    state = opt.init(p)
    g = md.grad(loss)({k: p[k] for k in "abw"})
    assert list(g) == list("abw")
    new, state = opt.update(g, state, p)
    assert list(new) == list("wab")
    assert values(new) == {k: (v - 0.5 * g[k]).tolist() for k, v in p.items()}
    new, state = opt.update(md.grad(loss)(new), state, new)
    assert list(new) == list("wab")


def test_a_state_dict_keeps_its_order_through_functional_calls():
    model = md.nn.Sequential(md.nn.Linear(2, 3), md.nn.BatchNorm1d(3), md.nn.Linear(3, 1))
    held = dict(model.named_parameters())
    g = md.grad(lambda q: md.nn.utils.stateless.functional_call(model, q, (md.ones(4, 2),)).sum())(held)
    assert list(g) == list(held)
    assert all(a.shape == b.shape for a, b in zip(held.values(), g.values(), strict=True))


def test_a_type_that_was_a_leaf_is_a_container_once_it_is_registered():
    class Pair:
        def __init__(self, a, b):
            self.a, self.b = a, b

    class Own(Pair):
        pass

    pair, own = Pair(1, 2), Own(3, 4)
    assert md.tree.leaves([pair, own]) == [pair, own] == md.tree.leaves([pair, own])
    md.tree.register(Pair, lambda p: ((p.a, p.b), None), lambda _, c: Pair(*c))
    assert md.tree.leaves([pair, own]) == [1, 2, 3, 4]
