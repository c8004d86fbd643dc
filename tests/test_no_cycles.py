"""What a call was given is freed with the last reference to it: large arrays do not wait for a collection of garbage."""

from __future__ import annotations

import gc
import weakref

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
