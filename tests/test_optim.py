"""Optimizers against torch.optim step for step, and what jit needs of them."""

from __future__ import annotations

import numpy as np
import pytest

import minidl as md
from minidl import nn, optim

torch = pytest.importorskip("torch")

SETTINGS = [
    ("SGD", {}),
    ("SGD", {"lr": 0.1, "momentum": 0.9}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "dampening": 0.3, "weight_decay": 0.01}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01, "nesterov": True}),
    ("SGD", {"lr": 0.05, "weight_decay": 0.1, "maximize": True}),
    ("Adam", {}),
    ("Adam", {"lr": 0.02, "betas": (0.8, 0.95), "eps": 1e-6, "weight_decay": 0.1}),
    ("Adam", {"lr": 0.02, "amsgrad": True, "maximize": True}),
    ("AdamW", {}),
    ("AdamW", {"lr": 0.02, "betas": (0.7, 0.9), "weight_decay": 0.3, "amsgrad": True}),
]


def problem():
    rng = np.random.default_rng(0)
    return rng.normal(size=(3, 4)), rng.normal(size=4), rng.normal(size=(20, 3)), rng.normal(size=(20, 4))


def loss_of(w, b, x, y):
    return (((x @ w + b).tanh() - y) ** 2).mean()


def values(params):
    return [p.detach().numpy() for p in params]


@pytest.mark.parametrize(("name", "kwargs"), SETTINGS)
def test_hundred_steps_equal_torch(name, kwargs):
    w, b, x, y = problem()
    ours, theirs = [md.tensor(a, requires_grad=True) for a in (w, b)], [torch.tensor(a, requires_grad=True) for a in (w, b)]
    mine, other = getattr(optim, name)(ours, **kwargs), getattr(torch.optim, name)(theirs, **kwargs)
    for i in range(100):
        for lib, params, opt in ((md, ours, mine), (torch, theirs, other)):
            opt.param_groups[0]["lr"] = (1 + i % 3) * opt.defaults["lr"]
            opt.zero_grad()
            loss_of(*params, lib.asarray(x), lib.asarray(y)).backward()
            opt.step()
    for a, c in zip(values(ours), values(theirs), strict=True):
        np.testing.assert_allclose(a, c, rtol=1e-12, atol=1e-12)
    for p, q in zip(ours, theirs, strict=True):
        for k, v in other.state[q].items():
            if v is not None:
                np.testing.assert_allclose(mine.state[p][k].numpy(), v.numpy(), rtol=1e-10, atol=1e-12, err_msg=k)


@pytest.mark.parametrize(("name", "kwargs"), SETTINGS)
def test_a_jitted_step_takes_its_settings_as_inputs(name, kwargs):
    w, b, x, y = problem()
    x, y = md.asarray(x), md.asarray(y)

    def train(run):
        params = [md.tensor(a, requires_grad=True) for a in (w, b)]
        opt = getattr(optim, name)(params, **kwargs)

        def step(x, y):
            opt.zero_grad()
            loss = loss_of(*params, x, y)
            loss.backward()
            opt.step()
            return loss

        step, group = run(step), opt.param_groups[0]
        for i in range(12):
            group["lr"] = 0.01 * (1 + i)
            if group["weight_decay"]:
                group["weight_decay"] = 0.02 * (1 + i)
            if "betas" in group:
                group["betas"] = (0.8 + 0.01 * i, 0.9 + 0.005 * i)
                group["eps"] = 1e-8 * (1 + i)
            elif group["momentum"]:
                group["momentum"] = 0.9 - 0.01 * i
            step(x, y)
        return values(params), step

    (eager, _), (jitted, step) = train(lambda f: f), train(md.jit)
    for a, c in zip(eager, jitted, strict=True):
        np.testing.assert_allclose(a, c, rtol=1e-12, atol=1e-14)
    assert step.compiles <= 2


def test_groups_parameters_without_gradient_and_closures():
    a, b, c = (md.tensor([1.0], requires_grad=True) for _ in range(3))
    opt = optim.SGD([{"params": [a]}, {"params": b, "lr": 1.0, "name": "fast"}], lr=0.1)
    opt.add_param_group({"params": [c], "momentum": 0.5})
    assert [g["lr"] for g in opt.param_groups] == [0.1, 1.0, 0.1] and opt.param_groups[1]["name"] == "fast"

    def closure():
        opt.zero_grad()
        loss = (a * 2 + b).sum()
        loss.backward()
        return loss

    with md.no_grad():
        assert opt.step(closure).item() == 3.0
    np.testing.assert_allclose([a.item(), b.item(), c.item()], [0.8, 0.0, 1.0], rtol=1e-6)
    opt.zero_grad(set_to_none=False)
    assert a.grad.item() == 0 and c.grad is None
    opt.zero_grad()
    assert a.grad is None and "SGD" in repr(opt) and "lr: 1.0" in repr(opt)


@pytest.mark.parametrize("name", ["SGD", "Adam"])
def test_a_saved_state_goes_on_where_it_was(name):
    w, b, x, y = problem()
    kwargs = {"lr": 0.1, "momentum": 0.9} if name == "SGD" else {"lr": 0.1}

    def start():
        params = [md.tensor(a, requires_grad=True) for a in (w, b)]
        return params, getattr(optim, name)(params, **kwargs)

    def run(params, opt, n):
        for _ in range(n):
            opt.zero_grad()
            loss_of(*params, md.asarray(x), md.asarray(y)).backward()
            opt.step()

    params, opt = start()
    run(params, opt, 3)
    saved, at = opt.state_dict(), [p.detach() for p in params]
    run(params, opt, 3)
    fresh, other = start()
    with md.no_grad():
        for p, v in zip(fresh, at, strict=True):
            p.assign(v)
    other.load_state_dict(saved)
    run(fresh, other, 3)
    assert all((p == q).all() for p, q in zip(values(params), values(fresh), strict=True))
    with pytest.raises(ValueError, match="groups"):
        getattr(optim, name)(fresh[:1], **kwargs).load_state_dict(saved)


def test_a_state_of_torch_is_understood():
    w, b, x, y = problem()
    theirs = [torch.tensor(a, requires_grad=True) for a in (w, b)]
    other = torch.optim.AdamW(theirs, lr=0.1)
    ours = [md.tensor(a, requires_grad=True) for a in (w, b)]
    mine = optim.AdamW(ours, lr=0.5)
    for i in range(6):
        if i == 3:
            with md.no_grad():
                for p, q in zip(ours, theirs, strict=True):
                    p.assign(md.asarray(q.detach().numpy()))
            mine.load_state_dict(
                {
                    **other.state_dict(),
                    "param_groups": [{k: v for k, v in g.items() if k in ("lr", "params")} for g in other.state_dict()["param_groups"]],
                }
            )
        for lib, params, opt in ((torch, theirs, other), (md, ours, mine))[: 1 + (i >= 3)]:
            opt.zero_grad()
            loss_of(*params, lib.asarray(x), lib.asarray(y)).backward()
            opt.step()
    for a, c in zip(values(ours), values(theirs), strict=True):
        np.testing.assert_allclose(a, c, rtol=1e-12, atol=1e-12)


def test_every_backend_takes_the_same_steps():
    w, b, x, y = problem()

    def train(name):
        with md.use_backend(name):
            params = [md.tensor(a, requires_grad=True) for a in (w, b)]
            opt = optim.Adam(params, lr=0.1, weight_decay=0.1)
            for _ in range(20):
                opt.zero_grad()
                loss_of(*params, md.asarray(x), md.asarray(y)).backward()
                opt.step()
            assert opt.state[params[0]]["exp_avg"].backend == name
            return values(params)

    want = train("numpy")
    for name in ("torch", "jax"):
        pytest.importorskip(name)
        for a, c in zip(train(name), want, strict=True):
            np.testing.assert_allclose(a, c, rtol=1e-10)


@pytest.mark.parametrize(("call", "error", "message"), [
    (lambda p: optim.SGD([], lr=0.1), ValueError, "empty"),
    (lambda p: optim.SGD(p, lr=0.1), TypeError, r"\[tensor\]"),
    (lambda p: optim.SGD([p, p], lr=0.1), ValueError, "more than once"),
    (lambda p: optim.SGD([p * 2], lr=0.1), ValueError, "leaf"),
    (lambda p: optim.SGD([p], lr=-1), ValueError, "lr"),
    (lambda p: optim.SGD([p], lr=0.1, nesterov=True), ValueError, "nesterov"),
    (lambda p: optim.Adam([p], betas=(0.9, 1.0)), ValueError, "betas"),
    (lambda p: optim.Adam([np.zeros(2)]), TypeError, "ndarray"),
])  # fmt: skip
def test_errors_say_what_is_wrong(call, error, message):
    with pytest.raises(error, match=message):
        call(nn.Parameter(md.ones(2)))
