"""A traced function may turn switches of a Module or optimizer, as PyTorch's steps do with train() and eval(): calls leave what eager code does."""

from __future__ import annotations

import pytest

import minidl as md
from minidl import nn, optim


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 2))
        self.phase, self.cache, self.seen = "warm", None, 0

    def forward(self, x):
        return self.body(x) * (2.0 if self.phase == "warm" else 1.0)


def steps(net, jit):
    optimizer = optim.SGD(net.parameters(), lr=0.1)
    wrap = md.jit if jit else lambda f: f

    @wrap
    def train(x, y):
        net.train()
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(net(x), y)
        loss.backward()
        optimizer.step()
        net.phase = "cold"
        net.cache = x.sum()
        return loss

    @wrap
    def evaluate(x):
        net.eval()
        out = net(x)
        net.cache = None
        return out

    return train, evaluate


def test_train_and_eval_inside_of_steps(backend):
    with md.use_backend(backend):
        x = md.random.normal(md.random.key(0), (8, 3))
        y = md.arange(8) % 2
        history = []
        for jit in (False, True):
            md.manual_seed(3)
            net = Net()
            train, evaluate = steps(net, jit)
            seen = []
            for _ in range(3):
                for call, args in ((train, (x, y)), (evaluate, (x,)), (evaluate, (x,)), (train, (x, y)), (train, (x, y))):
                    out = call(*args).detach()
                    cache = None if net.cache is None else round(net.cache.item(), 4)
                    seen.append((net.training, net.body[2].training, net.phase, cache, out.sum().item()))
            history.append(seen)
    eager, jitted = history
    assert [e[:4] for e in eager] == [j[:4] for j in jitted]
    assert [e[4] for e in eager] == pytest.approx([j[4] for j in jitted], rel=1e-4, abs=1e-5)


def test_there_are_as_many_programs_as_switches_are_found_in_states():
    net = Net()

    @md.jit
    def evaluate(x):
        net.eval()
        return net(x)

    x = md.ones((2, 3))
    for _ in range(4):
        net.train()
        evaluate(x)
        assert not net.training and not net.body[1].training
        evaluate(x)
    assert evaluate.compiles == 2


def test_a_call_that_fails_turns_nothing():
    net = Net()

    @md.jit
    def evaluate(x, i):
        net.eval()
        return net(x)[i]

    with pytest.raises(IndexError):
        evaluate(md.ones((2, 3)), 7)
    assert net.training and net.body[1].training

    @md.jit
    def broken(x):
        net.eval()
        raise ValueError("halfway")

    with pytest.raises(ValueError, match="halfway"):
        broken(md.ones((2, 3)))
    assert net.training


def test_what_counts_is_still_refused():
    """A number that each call changes would mean a program for each call."""
    net = Net()

    @md.jit
    def step(x):
        net.seen += 1
        return net(x)

    with pytest.raises(RuntimeError, match="changed 'seen' from 0 to 1, which would happen only once; keep counters in a tensor buffer"):
        step(md.ones((2, 3)))
    assert net.seen == 0


def test_switches_under_transforms_and_nested_jit():
    net = Net()

    @md.jit
    def inner(x):
        net.eval()
        return net(x).sum()

    @md.jit
    def outer(x):
        net.train()
        net(x)
        return inner(x)

    x = md.ones((4, 3))
    want = Net.forward(net.eval(), x).sum().item()
    net.train()
    assert md.vmap(inner)(md.stack([x, x])).shape == (2,) and not net.training
    net.train()
    assert md.grad(inner)(x).shape == x.shape and not net.training
    net.phase = "warm"
    before = net.body[1].running_mean.tolist()
    assert inner(x).item() == pytest.approx(want, rel=1e-5)
    outer(x)
    assert not net.training and net.body[1].running_mean.tolist() != before
