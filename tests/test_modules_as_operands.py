"""A Module among the operands of a branch or of a checkpointed function is itself: its identity, hooks and attributes."""

from __future__ import annotations

import numpy as np
import pytest

import minidl as md
from minidl import nn


class Counts(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.calls = nn.Linear(2, 2), 0
        self.register_buffer("last", md.zeros(()))

    def forward(self, x):
        self.calls += 1
        self.last = self.last + 1.0
        return self.layer(x)


def call(m, x):
    SEEN.append(m)
    return m(x)


SEEN: list = []
WAYS = {
    "cond": lambda m, x: md.cond(True, call, lambda m, x: x, m, x),
    "cond, the other": lambda m, x: md.cond(False, lambda m, x: x, call, m, x),
    "switch": lambda m, x: md.switch(1, [lambda m, x: x, call], m, x),
    "checkpoint": lambda m, x: md.checkpoint(call)(m, x),
}


@pytest.mark.parametrize("name", WAYS)
def test_a_module_is_itself(name):
    net, hooked = Counts(), []
    net.register_forward_hook(lambda *a: hooked.append(a[0]))
    SEEN.clear()
    x = md.ones(3, 2)
    out = WAYS[name](net, x)
    assert SEEN == hooked == [net] and net.calls == net.last.item() == 1
    (out * out).sum().backward()
    found = net.layer.weight.grad.numpy()
    net.zero_grad()
    (net(x) ** 2).sum().backward()
    np.testing.assert_allclose(found, net.layer.weight.grad.numpy(), rtol=1e-6)


@pytest.mark.parametrize("norm", [False, True])
def test_a_module_in_a_traced_branch_has_its_gradient_and_its_buffers(norm):
    md.manual_seed(0)
    net = nn.BatchNorm1d(2) if norm else nn.Linear(2, 2)
    twin = nn.BatchNorm1d(2) if norm else nn.Linear(2, 2)
    twin.load_state_dict(net.state_dict())
    x = md.randn(4, 2)

    @md.jit
    def step(p, x):
        loss = (md.cond(p, lambda m, x: m(x), lambda m, x: m(x) * 2.0, net, x) ** 3).sum()
        loss.backward()
        return loss

    for p in (True, False):
        net.zero_grad(), twin.zero_grad()
        loss = ((twin(x) * (1.0 if p else 2.0)) ** 3).sum()
        loss.backward()
        np.testing.assert_allclose(step(md.asarray(p), x).item(), loss.item(), rtol=1e-5)
        np.testing.assert_allclose(net.weight.grad.numpy(), twin.weight.grad.numpy(), rtol=1e-4, atol=1e-5)
    for a, b in zip(net.buffers(), twin.buffers(), strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-5)
    assert step.compiles == 1


LOOPS = {
    "scan": lambda net, x: md.scan(lambda c, a: (c + net(a).sum(), 0.0), md.zeros(()), x)[0],
    "while": lambda net, x: md.while_loop(lambda c: c[0] < 2.0, lambda c: (c[0] + 1.0, c[1] + net(x[0]).sum()), (md.zeros(()), md.zeros(())))[1],
    "cond": lambda net, x: md.cond(x.sum() > -1e9, lambda x: net(x).sum(), lambda x: net(x).sum() * 2.0, x[0]),
}


@pytest.mark.parametrize("name", LOOPS)
def test_buffers_that_a_body_stores_under_no_grad_stay_off_the_tape(name):
    net = nn.BatchNorm1d(2)
    step = md.jit(lambda x: LOOPS[name](net, x))
    for _ in range(3):
        out = step(md.randn(3, 4, 2))
        assert out.requires_grad and not net.running_mean.requires_grad and not net.running_var.requires_grad
        out.backward()
    assert step.compiles == 1


@pytest.mark.parametrize("jitted", [False, True])
@pytest.mark.parametrize("nested", [False, True])
def test_what_a_body_stores_with_a_derivative_keeps_it(nested, jitted):
    def doubled(x):
        y = x * 2.0
        md.scan(lambda c, a: (y.mul_(a).sum() * 0.0 + c, 0.0), md.zeros(()), md.full((2,), 2.0))
        return (y * y).sum()

    f = md.grad((lambda x: md.cond(x.sum() > 0.0, doubled, lambda x: x.sum(), x)) if nested else doubled)
    assert (md.jit(f) if jitted else f)(md.tensor([1.0, 2.0])).tolist() == [128.0, 256.0]
