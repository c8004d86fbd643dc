"""Optimizers against torch.optim step for step, and what jit needs of them."""

from __future__ import annotations

import gc
import inspect
import itertools
import json
import weakref

import numpy as np
import pytest

import minidl as md
from minidl import nn, optim
from minidl.optim import programs

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
    ("Adam", {"lr": 0.02, "weight_decay": 0.2, "decoupled_weight_decay": True}),
    ("Adagrad", {}),
    ("Adagrad", {"lr": 0.1, "lr_decay": 0.01, "weight_decay": 0.1, "initial_accumulator_value": 0.2, "eps": 1e-6, "maximize": True}),
    ("RMSprop", {}),
    ("RMSprop", {"lr": 0.02, "alpha": 0.9, "momentum": 0.8, "centered": True, "weight_decay": 0.1}),
    ("RMSprop", {"lr": 0.005, "eps": 1e-4, "centered": True, "maximize": True}),
    ("Adadelta", {}),
    ("Adadelta", {"lr": 0.5, "rho": 0.8, "eps": 1e-4, "weight_decay": 0.1, "maximize": True}),
    ("Adamax", {"lr": 0.02, "betas": (0.8, 0.95), "weight_decay": 0.1}),
    ("NAdam", {"lr": 0.02, "weight_decay": 0.1, "momentum_decay": 0.01}),
    ("NAdam", {"lr": 0.02, "weight_decay": 0.1, "decoupled_weight_decay": True, "maximize": True}),
    ("RAdam", {"lr": 0.02, "weight_decay": 0.1}),
    ("RAdam", {"lr": 0.02, "betas": (0.8, 0.9), "weight_decay": 0.1, "decoupled_weight_decay": True}),
    ("Adafactor", {}),
    ("Adafactor", {"lr": 0.1, "d": 2.0, "eps": (1e-5, 1e-2), "weight_decay": 0.1, "beta2_decay": -0.5}),
    ("ASGD", {}),
    ("ASGD", {"lr": 0.1, "lambd": 1e-2, "alpha": 0.6, "t0": 20, "weight_decay": 0.1}),
    ("Rprop", {}),
    ("Rprop", {"lr": 0.02, "etas": (0.4, 1.3), "step_sizes": (1e-4, 0.1)}),
]


@pytest.fixture
def wide_torch():
    """torch keeps some 0-d state in its default dtype."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def problem():
    rng = np.random.default_rng(0)
    return rng.normal(size=(3, 4)), rng.normal(size=4), rng.normal(size=(20, 3)), rng.normal(size=(20, 4))


def loss_of(w, b, x, y):
    return (((x @ w + b).tanh() - y) ** 2).mean()


def values(params):
    return [p.detach().numpy() for p in params]


@pytest.mark.parametrize(("name", "kwargs"), SETTINGS)
def test_each_of_a_hundred_steps_equals_torchs(wide_torch, name, kwargs, on_numpy):
    """Eager, jitted, and by a jitted update; with a rate that changes, and the state in the end."""
    w, b, x, y = problem()

    def path(lib, opt, params, run):
        def step(x, y):
            opt.zero_grad()
            loss_of(*params, x, y).backward()
            opt.step()

        step, points = run(step), []
        for i in range(100):
            opt.param_groups[0]["lr"] = (1 + i % 3) * opt.defaults["lr"]
            step(lib.asarray(x), lib.asarray(y))
            points.append(np.concatenate([v.ravel() for v in values(params)]))
        return np.array(points)

    theirs = [torch.tensor(a, requires_grad=True) for a in (w, b)]
    other = getattr(torch.optim, name)(theirs, **kwargs)
    want = path(torch, other, theirs, lambda f: f)
    for run in (lambda f: f, md.jit):
        ours = [md.tensor(a, requires_grad=True) for a in (w, b)]
        mine = getattr(optim, name)(ours, **kwargs)
        np.testing.assert_allclose(path(md, mine, ours, run), want, rtol=1e-11, atol=1e-12)
        for p, q in zip(ours, theirs, strict=True):
            for k, v in other.state[q].items():
                if v is not None:
                    np.testing.assert_allclose(mine.state[p][k].numpy(), v.numpy(), rtol=1e-10, atol=1e-12, err_msg=k)

    pure = getattr(optim, name)(**kwargs)
    params = [md.asarray(a) for a in (w, b)]
    state = pure.init(params)
    move = md.jit(lambda params, state, lr: pure.update(md.grad(lambda p: loss_of(*p, md.asarray(x), md.asarray(y)))(params), state, params, lr=lr))
    for i in range(100):
        params, state = move(params, state, md.asarray((1 + i % 3) * pure.defaults["lr"], dtype=md.float64))
        np.testing.assert_allclose(np.concatenate([p.numpy().ravel() for p in params]), want[i], rtol=1e-11, atol=1e-12)


def test_adafactor_keeps_rows_and_columns_of_each_matrix_of_a_stack(wide_torch):
    start, move = np.random.default_rng(0).normal(size=(2, 3, 2, 4, 5))
    found = []
    for lib in (md, torch):
        p = lib.asarray(start)
        p.requires_grad = True
        opt = lib.optim.Adafactor([p], lr=0.1)
        for _ in range(3):
            opt.zero_grad()
            (p * lib.asarray(move)).sin().sum().backward()
            opt.step()
        found.append(p.detach().numpy())
    np.testing.assert_allclose(*found, rtol=1e-11, atol=1e-12)


GRIDS = {
    "SGD": {"momentum": [0.0, 0.9], "dampening": [0.0, 0.2], "weight_decay": [0.0, 0.1], "nesterov": [False, True], "maximize": [False, True]},
    "Adam": {"weight_decay": [0.0, 0.1], "amsgrad": [False, True], "maximize": [False, True], "decoupled_weight_decay": [False, True]},
    "AdamW": {"weight_decay": [0.0, 0.1], "amsgrad": [False, True], "maximize": [False, True], "foreach": [None, True]},
    "Adagrad": {"lr_decay": [0.0, 0.1], "weight_decay": [0.0, 0.1], "initial_accumulator_value": [0.0, 0.3], "maximize": [False, True]},
    "RMSprop": {"momentum": [0.0, 0.9], "centered": [False, True], "weight_decay": [0.0, 0.1], "maximize": [False, True]},
}


@pytest.mark.parametrize("name", GRIDS)
def test_hundred_steps_equal_torch_for_every_combination(name):
    """Gradients that do not depend on the parameters, a frozen parameter, one that has a gradient in every third step alone, and two groups."""
    g = np.random.default_rng(0)
    start, grads = [g.normal(size=s) for s in ((3, 2), (4,), (2,), (2,))], g.normal(size=(100, 14))
    for values_ in itertools.product(*GRIDS[name].values()):
        kwargs = dict(zip(GRIDS[name], values_, strict=True))
        found = []
        for lib in (md, torch):
            params = [lib.tensor(a, requires_grad=i != 3) for i, a in enumerate(start)]
            groups = [{"params": params[:2]}, {"params": params[2:], "lr": 0.03, "weight_decay": 0.2}]
            try:
                opt = getattr(lib.optim, name)(groups, lr=0.01, **kwargs)
            except ValueError:
                found.append("refused")
                continue
            for i, row in enumerate(grads):
                params[0].grad, params[1].grad = lib.tensor(row[:6].reshape(3, 2)), lib.tensor(row[6:10])
                params[2].grad = lib.tensor(row[10:12]) if i % 3 == 0 else None
                opt.step()
            found.append(np.concatenate([v.ravel() for v in values(params)]))
        if isinstance(found[1], str) or isinstance(found[0], str):
            assert isinstance(found[0], str) and isinstance(found[1], str), kwargs
            continue
        np.testing.assert_allclose(*found, rtol=1e-11, atol=1e-13, err_msg=str(kwargs))


LION = [("Lion", {}), ("Lion", {"lr": 0.02, "betas": (0.8, 0.95), "weight_decay": 0.1})]
MUON = [("Muon", {"ns_dtype": "float64"}), ("Muon", {"lr": 0.01, "momentum": 0.8, "nesterov": False, "ns_steps": 3, "ns_dtype": "float64",
                                                     "adjust_lr_fn": "match_rms_adamw"})]  # fmt: skip


@pytest.mark.parametrize(("name", "kwargs"), SETTINGS + LION + MUON)
def test_a_jitted_step_takes_its_settings_as_inputs(name, kwargs):
    w, b, x, y = problem()
    x, y = md.asarray(x), md.asarray(y)

    def train(run):
        params = [md.tensor(a, requires_grad=True) for a in (w, b)]
        opt = getattr(optim, name)(params[: 1 if name == "Muon" else 2], **kwargs)

        def step(x, y):
            opt.zero_grad()
            loss = loss_of(*params, x, y)
            loss.backward()
            opt.step()
            return loss

        step, group = run(step), opt.param_groups[0]
        for i in range(12):
            group["lr"] = 0.01 * (1 + i)
            if group.get("weight_decay"):
                group["weight_decay"] = 0.02 * (1 + i)
            if "betas" in group:
                group["betas"] = (0.8 + 0.01 * i, 0.9 + 0.005 * i)
            if isinstance(group.get("eps"), float):
                group["eps"] = 1e-8 * (1 + i)
            if group.get("momentum"):
                group["momentum"] = 0.9 - 0.01 * i
            step(x, y)
        return values(params), step

    (eager, _), (jitted, step) = train(lambda f: f), train(md.jit)
    for a, c in zip(eager, jitted, strict=True):
        np.testing.assert_allclose(a, c, rtol=1e-12, atol=1e-14)
    assert step.compiles <= 2


def test_lion_takes_the_steps_of_optax():
    optax, jax = pytest.importorskip("optax"), pytest.importorskip("jax")
    for _, kwargs in LION:
        w, b, x, y = problem()
        with jax.enable_x64(True):
            opt = optax.lion(kwargs.get("lr", 1e-4), *kwargs.get("betas", (0.9, 0.99)), weight_decay=kwargs.get("weight_decay", 1e-3))

            def loss(params, x=x, y=y):
                return ((jax.numpy.tanh(x @ params[0] + params[1]) - y) ** 2).mean()

            def step(params, state, opt=opt, loss=loss):
                grads = jax.grad(loss)(params)
                moves, state = opt.update(grads, state, params)
                return optax.apply_updates(params, moves), state

            step, theirs = jax.jit(step), (jax.numpy.asarray(w), jax.numpy.asarray(b))
            state = opt.init(theirs)
            for _ in range(100):
                theirs, state = step(theirs, state)
            theirs = [np.asarray(p) for p in theirs]
        ours = [md.tensor(a, requires_grad=True) for a in (w, b)]
        mine = optim.Lion(ours, **kwargs)
        for _ in range(100):
            mine.zero_grad()
            loss_of(*ours, md.asarray(x), md.asarray(y)).backward()
            mine.step()
        for a, c in zip(values(ours), theirs, strict=True):
            np.testing.assert_allclose(a, c, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("shape", [(3, 4), (6, 2)])
def test_muon_takes_the_steps_of_torch(monkeypatch, shape):
    """torch iterates in bfloat16; made to iterate in float64, as ours can, it takes the same steps."""
    rng = np.random.default_rng(0)
    w, x, y = rng.normal(size=shape), rng.normal(size=(20, shape[0])), rng.normal(size=(20, shape[1]))

    def train(lib, opt, p, n=100):
        for _ in range(n):
            opt.zero_grad()
            loss_of(p, 0.5, lib.asarray(x), lib.asarray(y)).backward()
            opt.step()
        return p.detach().numpy()

    for _, kwargs in MUON:
        own = {k: v for k, v in kwargs.items() if k != "ns_dtype"}
        exact = train(md, optim.Muon([p := md.tensor(w, requires_grad=True)], **kwargs), p, 1)
        near = train(md, optim.Muon([p := md.tensor(w, requires_grad=True)], **own), p, 1)
        other = train(torch, torch.optim.Muon([p := torch.tensor(w, requires_grad=True)], **own), p, 1)
        moved = np.linalg.norm(exact - w)
        assert 0 < np.linalg.norm(near - exact) < 0.05 * moved and np.linalg.norm(near - other) < 0.05 * moved
        with monkeypatch.context() as patch:
            patch.setattr(torch.Tensor, "bfloat16", lambda self: self.clone())
            theirs = train(torch, torch.optim.Muon([p := torch.tensor(w, requires_grad=True)], **own), p)
        ours = train(md, optim.Muon([p := md.tensor(w, requires_grad=True)], **kwargs), p)
        np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-12)


def rosenbrock(p):
    return ((1 - p[:, 0]) ** 2 + 100 * (p[:, 1] - p[:, 0] ** 2) ** 2).sum()


def kink(p):
    return (((p * p) ** 0.5) ** 1.2).sum() + p.sum() * 0.3


def quartic(p):
    return ((p - 0.3) ** 4).sum() + ((p[0] - p[1]) ** 2).sum() * 0.5 + (p[:, 0] * p[:, 1]).sum() ** 2


@pytest.mark.parametrize(("f", "steps", "kwargs"), [
    (quartic, 100, {"lr": 0.3, "max_iter": 1}), (quartic, 30, {"lr": 0.5, "max_iter": 4, "history_size": 2}),
    (quartic, 20, {"line_search_fn": "strong_wolfe", "max_iter": 5}), (rosenbrock, 8, {"line_search_fn": "strong_wolfe", "max_iter": 4}),
    (rosenbrock, 2, {"line_search_fn": "strong_wolfe", "history_size": 3, "lr": 0.7}),
    (rosenbrock, 8, {"lr": 2.0, "line_search_fn": "strong_wolfe", "max_iter": 3, "max_eval": 4}),
    (rosenbrock, 4, {"lr": 0.001, "line_search_fn": "strong_wolfe", "max_iter": 4}),  # steps that are too short,
    (kink, 4, {"lr": 30.0, "line_search_fn": "strong_wolfe", "max_iter": 4}),  # and much too long
])  # fmt: skip
def test_lbfgs_takes_the_steps_of_torch(f, steps, kwargs):
    start = np.array([[-1.2, 1.0], [0.5, -0.7]])

    def train(lib, opt, p):
        def closure():
            opt.zero_grad()
            loss = f(p)
            loss.backward()
            return loss

        seen = []
        for _ in range(steps):
            loss = opt.step(closure)
            seen.append((loss.item(), *p.detach().numpy().ravel()))
        return np.array(seen), opt.state_dict()["state"][0]

    tight = {"tolerance_grad": 1e-5, "tolerance_change": 1e-7, **kwargs}  # rounding decides what happens below
    theirs, other = train(torch, torch.optim.LBFGS([p := torch.tensor(start, requires_grad=True)], **tight), p)
    ours, mine = train(md, optim.LBFGS([p := md.tensor(start, requires_grad=True)], **tight), p)
    np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-8)  # each step multiplies what the last bit differs by
    np.testing.assert_allclose(ours[:2], theirs[:2], rtol=1e-11)
    assert (mine["func_evals"], mine["n_iter"]) == (other["func_evals"], other["n_iter"])
    assert set(mine) == set(other) - {"al"}


def test_lbfgs_of_a_parameter_without_elements_has_nothing_to_do():
    p = md.ones((0,), requires_grad=True)
    optimizer = optim.LBFGS([p], line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        loss = (p * p).sum() + 2.0
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 2.0 and p.shape == (0,)


def test_lbfgs_goes_on_from_a_state_of_torch_and_its_own():
    start = np.array([-1.2, 1.0])

    def make(lib, opt, at):
        p = lib.tensor(at, requires_grad=True)
        optimizer = opt([p], line_search_fn="strong_wolfe", max_iter=4)

        def closure():
            optimizer.zero_grad()
            loss = (1 - p[0]) ** 2 + 100 * (p[1] - p[0] ** 2) ** 2
            loss.backward()
            return loss

        return p, optimizer, closure

    p, other, closure = make(torch, torch.optim.LBFGS, start)
    for _ in range(3):
        other.step(closure)
    q, mine, again = make(md, optim.LBFGS, p.detach().numpy())
    mine.load_state_dict(other.state_dict())
    r, last, third = make(md, optim.LBFGS, p.detach().numpy())
    last.load_state_dict(mine.state_dict())
    for opt, f in ((other, closure), (mine, again), (last, md.jit(third))):
        opt.step(f)
    np.testing.assert_allclose(q.detach().numpy(), p.detach().numpy(), rtol=1e-9)
    np.testing.assert_allclose(q.detach().numpy(), r.detach().numpy(), rtol=0 if q.backend == "numpy" else 1e-12)


@pytest.mark.parametrize(("name", "kwargs"), SETTINGS + LION + MUON)
def test_the_functional_form_takes_the_same_steps(name, kwargs):
    w, b, x, y = problem()
    x, y = md.asarray(x), md.asarray(y)
    rates = [0.01 * (1 + i) for i in range(6)]
    ours = [md.tensor(w, requires_grad=True), *([] if name == "Muon" else [md.tensor(b, requires_grad=True)])]

    def loss(params):
        return loss_of(params["w"], params.get("b", 0.0), x, y)

    stateful = getattr(optim, name)(ours, **kwargs)
    for lr in rates:
        stateful.param_groups[0]["lr"] = lr
        stateful.zero_grad()
        loss(dict(zip("wb", ours, strict=False))).backward()
        stateful.step()

    opt = getattr(optim, name)(**kwargs)

    def step(params, state):
        return opt.update(md.grad(loss)(params), state, params)

    jitted = md.jit(step)
    for f in (step, jitted):
        params = {"w": md.asarray(w), **({} if name == "Muon" else {"b": md.asarray(b)})}
        opt.param_groups[0]["lr"] = opt.defaults["lr"]  # where ASGD and Rprop begin
        first, state = params, opt.init(params)
        for lr in rates:
            opt.param_groups[0]["lr"] = lr
            params, state = f(params, state)
        assert (first["w"].numpy() == w).all()  # nothing is changed in place
        for k, p in zip("wb", ours, strict=False):
            np.testing.assert_allclose(params[k].numpy(), p.detach().numpy(), rtol=1e-12, atol=1e-14)
    saved = stateful.state_dict()["state"]
    for i, values_ in state.items():
        number = "bw"[i] if len(params) == 2 else "w"
        for k, v in values_.items():
            np.testing.assert_allclose(v.numpy(), saved["wb".index(number)][k].numpy(), rtol=1e-11, atol=1e-13, err_msg=k)
    assert jitted.compiles <= 2


def test_the_functional_form_is_differentiable_and_maps():
    """The gradient of a loss after two steps with respect to the rate; and steps of an ensemble at once."""
    opt = optim.Adam(eps=1e-3)

    def after(lr):
        w, state = md.asarray([1.0, -2.0], dtype=md.float64), None
        state = opt.init(w)
        for _ in range(2):
            w, state = opt.update(w * 2.0, state, w, lr=lr)
        return (w * w).sum()

    lr = md.asarray(0.1, dtype=md.float64)
    want = (after(lr + 1e-6) - after(lr - 1e-6)) / 2e-6
    np.testing.assert_allclose(md.grad(after)(lr).item(), want.item(), rtol=1e-7)
    np.testing.assert_allclose(md.jit(md.grad(after))(lr).item(), want.item(), rtol=1e-7)
    many = md.vmap(after)(md.asarray([0.1, 0.2], dtype=md.float64))
    np.testing.assert_allclose(many.numpy(), [after(md.asarray(v, dtype=md.float64)).item() for v in (0.1, 0.2)], rtol=1e-12)


def test_a_functional_step_runs_in_a_loop_of_the_graph():
    opt = optim.AdamW(lr=0.1)
    w = md.asarray([1.0, -2.0])

    def body(carry, _):
        w, state = carry
        return opt.update(w * 2.0, state, w), (w * w).sum()

    (end, _), losses = md.jit(lambda w: md.scan(body, (w, opt.init(w)), md.arange(20)))(w)
    state = opt.init(w)
    for _ in range(20):
        w, state = opt.update(w * 2.0, state, w)
    np.testing.assert_allclose(end.numpy(), w.numpy(), rtol=1e-5)
    assert losses[-1].item() < losses[0].item()


def test_complex_parameters_are_pairs_of_real_ones():
    start = np.array([1 + 2j, -3 + 0.5j, 0.1 - 1j])
    for name, kwargs in (("SGD", {"lr": 0.1, "momentum": 0.9}), ("AdamW", {"lr": 0.1}), ("Adagrad", {"lr": 0.1, "initial_accumulator_value": 0.1})):
        theirs, ours = torch.tensor(start, requires_grad=True), md.tensor(start, requires_grad=True)
        for lib, p in ((torch, theirs), (md, ours)):
            opt = getattr(lib.optim, name)([p], **kwargs)
            for _ in range(10):
                p.grad = p.detach() * 2 + 1j
                opt.step()
        np.testing.assert_allclose(ours.detach().numpy(), theirs.detach().numpy(), rtol=1e-12)


def test_accumulated_gradients_of_parts_are_the_gradient_of_the_whole():
    w, b, x, y = problem()

    def train(parts, run):
        params = [md.tensor(a, requires_grad=True) for a in (w, b)]
        opt = optim.AdamW(params, lr=0.05)

        def accumulate(x, y):
            (loss_of(*params, x, y) / parts).backward()

        def update():
            opt.step()
            opt.zero_grad()

        accumulate, update = run(accumulate), run(update)
        for _ in range(3):
            for k in range(parts):
                accumulate(md.asarray(x[k::parts]), md.asarray(y[k::parts]))
            update()
        return values(params)

    whole = train(1, lambda f: f)
    for run in (lambda f: f, md.jit):
        for a, c in zip(train(4, run), whole, strict=True):
            np.testing.assert_allclose(a, c, rtol=1e-12)


def test_a_group_that_comes_later_frozen_and_named_parameters():
    a, b, c = (md.tensor([v], requires_grad=True) for v in (1.0, 2.0, 3.0))
    b.requires_grad_(False)
    opt = optim.AdamW([("a", a), ("b", b)], lr=0.1, weight_decay=0.0)
    assert opt.param_groups[0]["param_names"] == ["a", "b"]

    @md.jit
    def step():
        opt.zero_grad()
        (a * a + b + c * c).sum().backward()
        opt.step()

    step()
    opt.add_param_group({"params": [c], "lr": 0.5})
    step()
    np.testing.assert_allclose([a.item(), b.item(), c.item()], [0.8, 2.0, 2.5], atol=1e-3)
    b.requires_grad_(True)  # thawed: it moves from now on
    step()
    assert b.item() < 2.0 and opt.state[b]["step"].item() == 1
    torch_saved = torch.optim.AdamW([torch.tensor([1.0], requires_grad=True)], lr=0.25).state_dict()
    fresh = optim.AdamW([md.tensor([1.0], requires_grad=True)])
    fresh.load_state_dict(torch_saved)
    assert fresh.param_groups[0]["lr"] == 0.25 and not {"foreach", "fused", "capturable"} & set(fresh.param_groups[0])


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
    (lambda p: optim.Muon([p]), ValueError, "matrices.*AdamW"),
    (lambda p: optim.Muon(ns_dtype="int8"), ValueError, "ns_dtype"),
    (lambda p: optim.LBFGS([p], line_search_fn="armijo"), ValueError, "strong_wolfe"),
    (lambda p: optim.LBFGS([{"params": p}, {"params": []}]), ValueError, "one group"),
    (lambda p: optim.LBFGS([p]).update(p, {}, p), TypeError, "step"),
    (lambda p: md.jit(lambda: optim.LBFGS([p]).step(lambda: (p * p).sum()))(), TypeError, "jit the closure"),
    (lambda p: optim.SGD([{"params": p}, {"params": []}]).init(p), ValueError, "one group"),
    (lambda p: optim.SGD().update({"a": p}, {}, [p]), ValueError, "structure"),
    (lambda p: optim.SGD().update([p], {}, [p]), ValueError, "init"),
    (lambda p: optim.SGD().update([p], {0: {}}, [p], rate=1.0), TypeError, "rate"),
    (lambda p: optim.SGD().init([md.asarray([1])]), TypeError, "int64"),
    (lambda p: optim.Adagrad([p], lr_decay=-1.0), ValueError, "lr_decay"),
    (lambda p: optim.NAdam([p], momentum_decay=-1), ValueError, "momentum_decay"),
])  # fmt: skip
def test_errors_say_what_is_wrong(call, error, message):
    with pytest.raises(error, match=message):
        call(nn.Parameter(md.ones(2)))


@pytest.mark.parametrize("backend", ["numba", "torch", "jax"])
def test_every_optimizer_takes_the_same_steps_on_every_backend(backend):
    """All in one jitted function of parameters and states, against NumPy eager."""
    pytest.importorskip(backend)
    rng = np.random.default_rng(0)
    start, slopes = rng.normal(size=(3, 4)), rng.normal(size=(4, 3, 4))
    chosen = [*SETTINGS[1:4], *(SETTINGS[i] for i in (7, 9, 12)), *SETTINGS[14::2]]
    chosen += [*LION[1:], *MUON, ("Muon", {"lr": 0.01, "ns_dtype": "float32"})]
    optimizers = [getattr(optim, name)(**kwargs) for name, kwargs in chosen]

    def step(params, states, slope):
        done = [opt.update(slope * p, s, p) for opt, p, s in zip(optimizers, params, states, strict=True)]
        return [p for p, _ in done], [s for _, s in done]

    def train(run, name):
        with md.use_backend(name):
            params = [md.asarray(start)] * len(optimizers)
            states = [opt.init(p) for opt, p in zip(optimizers, params, strict=True)]
            for slope in slopes:
                params, states = run(params, states, md.asarray(slope))
            assert all(p.backend == name for p in params)
            return [p.numpy() for p in params]

    for a, b, (name, kwargs) in zip(train(md.jit(step), backend), train(step, "numpy"), chosen, strict=True):
        tolerance = 1e-4 if kwargs.get("ns_dtype") == "float32" else 1e-10
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance, err_msg=f"{name} {kwargs}")
        assert np.abs(a - start).max() > 1e-4


# ---- names, order and defaults ------------------------------------------------------------------------------------------------------------
EXECUTION = {"foreach", "capturable", "differentiable", "fused", "params"}
ABSENT = {"SparseAdam": "minidl has no sparse gradients"}


def arguments(f):
    """(name, default) in order, without those that choose among torch's kernels."""
    return [(p.name, p.default) for p in inspect.signature(f).parameters.values() if p.name not in EXECUTION and p.kind is not p.VAR_KEYWORD]


def test_constructors_of_optimizers_have_torchs_arguments():
    names = [n for n in dir(torch.optim) if isinstance(getattr(torch.optim, n), type) and n != "Optimizer"]
    assert [n for n in names if not hasattr(optim, n)] == list(ABSENT)
    for name in sorted({*names} - ABSENT.keys()):
        mine, theirs = arguments(getattr(optim, name)), arguments(getattr(torch.optim, name))
        assert dict(mine[: len(theirs)]) == dict(theirs), name
        positional = [n for n, p in inspect.signature(getattr(torch.optim, name)).parameters.items() if p.kind is not p.KEYWORD_ONLY]
        wanted = [n for n in positional if n not in EXECUTION]
        assert [n for n, _ in mine][: len(wanted)] == wanted, name


def test_schedules_have_torchs_arguments():
    theirs = torch.optim.lr_scheduler
    names = [n for n, c in vars(theirs).items() if isinstance(c, type) and issubclass(c, theirs.LRScheduler) and not n.startswith("_")]
    assert [n for n in names if not hasattr(optim.lr_scheduler, n)] == []
    for name in names:
        mine, other = getattr(optim.lr_scheduler, name), getattr(theirs, name)
        assert arguments(mine)[: len(arguments(other))] == arguments(other), name


def test_what_chooses_torchs_kernels_is_accepted_and_nothing_else():
    w = [md.tensor([1.0], requires_grad=True)]
    for name in ("SGD", "Adam", "AdamW", "Adagrad", "RMSprop", "Adamax", "Rprop"):
        assert "fused" not in getattr(optim, name)(w, foreach=True, fused=None, differentiable=False, capturable=False).param_groups[0]
        with pytest.raises(TypeError, match="momentun"):
            getattr(optim, name)(w, momentun=0.9)
        with pytest.raises(ValueError, match="init and update"):
            getattr(optim, name)(w, differentiable=True)


@pytest.mark.parametrize("name", ["SGD", "LBFGS"])
def test_step_hooks_run_round_each_step(name):
    def story(lib):
        p, seen = lib.tensor([1.0, 2.0], requires_grad=True), []
        opt = getattr(lib.optim, name)([p], lr=0.5)
        first = opt.register_step_pre_hook(lambda o, args, kwargs: seen.append(("before", p.detach().tolist(), o is opt)))
        opt.register_step_post_hook(lambda o, args, kwargs: seen.append(("after", p.detach().tolist(), kwargs)))
        for _ in range(2):
            p.grad = lib.ones(2)
            opt.step(*([lambda: (p * 1.0).sum()] if name == "LBFGS" else []))
            first.remove()
        return seen

    assert story(md) == story(torch)


def test_a_hook_before_the_step_may_replace_its_closure():
    w = nn.Parameter(md.ones(1))
    opt, ran = optim.SGD([w], lr=0.5), []

    def loss(factor):
        def closure():
            ran.append(factor)
            opt.zero_grad()
            (w * factor).sum().backward()
            return factor

        return closure

    opt.register_step_pre_hook(lambda o, args, kwargs: ((o,), {"closure": loss(4.0)}))
    assert opt.step(loss(1.0)) == 4.0 and ran == [4.0] and w.tolist() == [-1.0]
    opt.register_step_pre_hook(lambda o, args, kwargs: (args, kwargs) if kwargs else None)
    assert opt.step() == 4.0 and w.tolist() == [-3.0]
    opt.register_step_pre_hook(lambda o, args, kwargs: 3)
    with pytest.raises(RuntimeError, match="SGD.step: a hook before the step returns None or"):
        opt.step()


def stepped(opt, grad=1.0):
    for group in opt.param_groups:
        for p in group["params"]:
            p.grad = md.ones_like(p) * grad
    opt.step()


@pytest.mark.parametrize("backend", ["numpy", "torch", "jax"])
def test_a_state_is_loaded_in_place_and_stays_a_snapshot(backend):
    p = nn.Parameter(md.ones((300, 300), backend=backend))  # large enough that a program would write over it
    opt = optim.Adam([p], lr=0.1)
    stepped(opt)
    tensors, saved = dict(opt.state[p]), opt.state_dict()
    values = {k: v.numpy().copy() for k, v in saved["state"][0].items()}
    arrays = {"state": {0: {k: v.copy() for k, v in values.items()}}, "param_groups": saved["param_groups"]}
    for given in (saved, saved, arrays):
        for _ in range(3):
            stepped(opt, 2.0)
        opt.load_state_dict(given)
        for k, v in values.items():
            assert opt.state[p][k] is tensors[k]
            np.testing.assert_array_equal(tensors[k].numpy(), v)
        stepped(opt, 2.0)
        stepped(opt, 2.0)
        for k, v in values.items():
            np.testing.assert_array_equal(np.asarray(given["state"][0][k]), v)
            assert not np.array_equal(tensors[k].numpy(), v)
    assert programs.known[opt].compiles == 1


def test_programs_keep_no_tensor_that_was_replaced():
    p = nn.Parameter(md.ones(2))
    opt = optim.Adam([p])
    stepped(opt)
    old = [weakref.ref(v) for v in opt.state[p].values()]
    saved = opt.state_dict()
    saved["state"][0] = {k: v for k, v in saved["state"][0].items() if k != "exp_avg"}
    opt.load_state_dict(saved)
    gc.collect()
    assert [r() is None for r in old] == [False, True, False] and opt not in programs.known
    opt.load_state_dict({**saved, "state": {0: {}}})
    opt.state.clear()
    for n in range(programs.MOST + 3):
        opt.param_groups[0]["params"] = [nn.Parameter(md.ones(2))]
        old.append(weakref.ref(opt.param_groups[0]["params"][0]))
        stepped(opt)
        assert values(opt.param_groups[0]["params"])[0].max() < 1
        opt.state.clear()
        assert programs.known[opt].compiles == min(n + 1, programs.MOST + 1)
    gc.collect()
    assert [r() is None for r in old[3:]] == [True] * (programs.MOST + 2) + [False]
    assert programs.known[opt].run is None
    opt.add_param_group({"params": [p]})
    assert opt not in programs.known


def test_one_optimizer_steps_on_two_backends():
    params = [nn.Parameter(md.ones(2, backend=b)) for b in ("numpy", "torch")]
    opt = optim.AdamW(params, lr=0.1)
    for _ in range(2):
        stepped(opt)
    for p in params:
        np.testing.assert_allclose(values([p])[0], 0.7981, atol=1e-4)
    assert programs.known[opt].run is None


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", ["Adam", "AdamW", "Adamax", "NAdam", "RAdam"])
def test_a_small_eps_does_not_vanish_in_low_precision(name, dtype):
    q = torch.ones(2, dtype=getattr(torch, dtype), requires_grad=True)
    other, want = getattr(torch.optim, name)([q], lr=0.1, eps=5e-7), []
    for _ in range(3):
        q.grad = torch.tensor([0.0, 1.0], dtype=q.dtype)
        other.step()
        want.append(q.tolist())
    for compiled in (True, False):
        p = nn.Parameter(md.ones(2, dtype=getattr(md, dtype)))
        opt = getattr(optim, name)([p], lr=0.1, eps=5e-7)
        for w in want:
            p.grad = md.tensor([0.0, 1.0], dtype=p.dtype)
            opt.step() if compiled else opt._step_all()
            np.testing.assert_allclose(p.tolist(), w, rtol=2e-3 if dtype == "float16" else 1e-2)


def test_hooks_round_saving_and_loading_are_torchs():
    found = []
    for lib in (md, torch):
        p, seen = lib.nn.Parameter(lib.ones(2)), []
        opt = lib.optim.SGD([p], lr=0.1, momentum=0.9)
        opt.register_state_dict_pre_hook(lambda o, seen=seen, opt=opt: seen.append(("before saving", o is opt)))
        opt.register_state_dict_post_hook(lambda o, state: {**state, "epoch": 3})
        opt.register_state_dict_post_hook(lambda o, state, seen=seen: seen.append(("first", "epoch" in state)), prepend=True)
        handle = opt.register_load_state_dict_pre_hook(lambda o, state: {**state, "param_groups": [{**g, "lr": 0.5} for g in state["param_groups"]]})
        opt.register_load_state_dict_pre_hook(lambda o, state, seen=seen: seen.append(state.pop("epoch")))
        opt.register_load_state_dict_post_hook(lambda o, seen=seen: seen.append(("loaded", o.param_groups[0]["lr"])))
        state = opt.state_dict()
        opt.load_state_dict(state)
        assert state["epoch"] == 3  # what was given is not changed
        handle.remove()
        opt.load_state_dict(state)
        found.append(seen)
    assert found[0] == found[1] and found[0][-1] == ("loaded", 0.1) and len(found[0]) == 6


@pytest.mark.parametrize("name", ["SGD", "Adam", "Adafactor", "RMSprop"])
def test_a_state_of_other_shapes_is_refused_and_changes_nothing(name):
    def made(n):
        model = md.nn.Linear(n, 2)
        return model, getattr(md.optim, name)(model.parameters(), lr=0.1, **({"momentum": 0.9} if name in ("SGD", "RMSprop") else {}))

    (model, other), (_, saved) = made(3), made(4)
    saved.param_groups[0]["lr"] = 0.5
    before = [p.detach().clone() for p in model.parameters()]
    with pytest.raises(ValueError, match=rf"{name}: the saved \w+ has shape \(.*\), and a parameter of shape \(2, 3\) wants \(.*\)"):
        other.load_state_dict(saved.state_dict())
    assert other.param_groups[0]["lr"] == 0.1 and all((a == b).all().item() for a, b in zip(before, model.parameters(), strict=True))
    model(md.ones((2, 3))).sum().backward()
    other.step()


def test_groups_are_shown_as_torchs_and_come_back_from_json():
    def make(lib):
        a, b = (lib.tensor([x], requires_grad=True) for x in (1.0, 2.0))
        return lib.optim.Adam([{"params": [a]}, {"params": [b], "lr": 0.3}])

    opt, other = make(md), make(torch)
    ours, theirs = ([line.partition(":")[0] for line in repr(o).splitlines()] for o in (opt, other))
    assert [line for line in theirs if line in ours] == ours and "Parameter Group 1" in ours
    opt.load_state_dict(json.loads(json.dumps({"state": {}, "param_groups": opt.state_dict()["param_groups"]})))
    assert opt.param_groups[1]["betas"] == (0.9, 0.999)
    with pytest.raises(TypeError, match="only Tensors can be trained, not tuple"):
        optim.SGD([("named", md.tensor([1.0], requires_grad=True)), md.tensor([2.0], requires_grad=True)])
