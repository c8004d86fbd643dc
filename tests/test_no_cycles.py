"""What a call was given is freed with the last reference to it: large arrays do not wait for a collection of garbage."""

from __future__ import annotations

import functools
import gc
import linecache
import types
import weakref
from collections import Counter

import numpy as np
import pytest

import minidl as md


def loss(x):
    return md.sum(md.tanh(x) * x)


def jitted_step():
    net = md.nn.Linear(8, 8, bias=False)
    net.load_state_dict({"weight": md.ones((8, 8)) * 0.5})
    optimizer = md.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)

    @md.jit
    def step(batch):
        optimizer.zero_grad()
        value = loss(net(batch))
        value.backward()
        optimizer.step()
        return value

    return step(md.ones((2, 8))), step(md.ones((2, 8)))


CALLS = {
    "grad": md.grad(loss),
    "grad of grad": lambda x: md.grad(lambda y: md.sum(md.grad(loss)(y)))(x),
    "value_and_grad": md.value_and_grad(loss),
    "vjp": lambda x: md.vjp(loss, x)[1](md.ones(())),
    "jvp": lambda x: md.jvp(loss, (x,), (x,)),
    "vmap": lambda x: md.vmap(md.grad(loss))(x),
    "hessian": lambda x: md.hessian(lambda y: loss(y[0]))(x),
    "backward": lambda x: loss(x.detach().requires_grad_()).backward(),
    "load_state_dict": lambda x: md.nn.Linear(8, 8, bias=False).load_state_dict({"weight": x}),
    "jit": lambda x: md.jit(md.grad(loss))(x),
}


@pytest.mark.parametrize("name", CALLS)
def test_what_a_call_was_given_is_freed_at_once(name):
    with md.use_backend("numpy"):
        CALLS[name](md.ones((8, 8)))  # what is made once, such as the code of primitives
        gc.collect()
        gc.disable()
        try:
            x = md.asarray(np.full((8, 8), 0.5, np.float32))
            there = weakref.ref(x.payload)
            CALLS[name](x)
            del x
            assert there() is None
        finally:
            gc.enable()


def test_a_jitted_step_takes_the_state_that_was_loaded(monkeypatch):
    """Nobody else holds it, so that its memory is used again from the first call on, and one program is compiled."""
    compiled = []
    with md.use_backend("numpy") as xp:
        make = type(xp).compile

        def compile(self, graph, donate=(), mode=None):
            compiled.extend([len(donate)] * (graph.name == "step"))  # draws of random numbers may become programs meanwhile
            return make(self, graph, donate, mode)

        monkeypatch.setattr(type(xp), "compile", compile)
        monkeypatch.setattr("minidl.calls.WORTH", 1)
        gc.collect()
        gc.disable()
        try:
            jitted_step()
        finally:
            gc.enable()
    assert compiled == [2]


def closure():
    w = md.ones((4, 5))
    f = md.jit(lambda x: (md.sin(x @ w) * 2.0).sum())
    f(md.ones((3, 4))), f(md.ones((3, 4))), f(md.ones((2, 4)))


def differentiated_call():
    w = md.ones((4, 5)).requires_grad_()
    md.jit(lambda x: (md.sin(x @ w) * 2.0).sum())(md.ones((3, 4))).backward()


def eager_training():
    net = md.nn.Sequential(md.nn.Linear(4, 8), md.nn.Tanh(), md.nn.Linear(8, 2))
    optimizer = md.optim.Adam(net.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        (net(md.ones((3, 4))) ** 2).mean().backward()
        optimizer.step()


def custom_rule():
    @md.custom_vjp
    def double(x):
        return x * 2.0

    double.defvjp(lambda x: (double(x), None), lambda residuals, g: (g * 2.0,))
    md.jit(md.grad(lambda x: double(x).sum()))(md.ones((3,)))


@functools.cache
def for_many_models(backend):
    return md.jit(lambda net, x: net(x).sum())


SHORT_LIVED = {
    "closure": closure,
    "differentiated call": differentiated_call,
    "jitted step": jitted_step,
    "eager training": eager_training,
    "custom rule": custom_rule,
    "models as arguments": lambda: for_many_models(md.ones(()).backend)(md.nn.Linear(4, 2), md.ones((3, 4))),
    "scan": lambda: md.scan(lambda c, x: (c + x, c * 2.0), md.tensor(0.0), md.ones((5,))),
    "loop": lambda: md.fori_loop(0, 3, lambda i, v: v * 2.0, md.tensor(1.0)),
    "vmap": lambda: md.vmap(md.grad(loss))(md.ones((3, 2))),
    "trace": lambda: str(md.trace(md.grad(loss))(md.ones((3, 2)))),
}


def held():
    """How many objects of minidl's classes there are, of functions that it generated, and of their texts."""
    gc.collect()
    counts = Counter(type(x).__name__ for x in gc.get_objects() if str(type(x).__module__).startswith("minidl"))
    counts["function"] = sum(type(x) is types.FunctionType and x.__module__ == "minidl.generated" for x in gc.get_objects())
    return {**counts, "text": sum(name.startswith("<minidl") for name in linecache.cache)}


@pytest.mark.parametrize(
    ("name", "backend"),
    [(name, backend) for name in SHORT_LIVED for backend in ("numpy", "torch")]
    + [(name, backend) for name in ("closure", "jitted step", "eager training") for backend in ("numba", "jax")],
)
def test_what_lives_shortly_leaves_nothing_behind(name, backend):
    with md.use_backend(backend):
        for _ in range(4):  # what is made once
            SHORT_LIVED[name]()
        before = held()
        for _ in range(3):
            SHORT_LIVED[name]()
        assert held() == before
