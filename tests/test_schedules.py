"""Schedules of the rate against torch.optim.lr_scheduler, averages of weights against torch.optim.swa_utils, clipping against torch.nn.utils."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest

import minidl as md
from minidl import nn, optim

torch = pytest.importorskip("torch")


def rise(step):
    return 1.0 / (1 + step)


SCHEDULES = [
    ("StepLR", {"step_size": 3, "gamma": 0.5}),
    ("MultiStepLR", {"milestones": [2, 2, 7], "gamma": 0.3}),
    ("ConstantLR", {"factor": 0.25, "total_iters": 4}),
    ("LinearLR", {"start_factor": 0.1, "total_iters": 6}),
    ("LinearLR", {"start_factor": 1.0, "end_factor": 0.0, "total_iters": 9}),
    ("ExponentialLR", {"gamma": 0.8}),
    ("PolynomialLR", {"total_iters": 7, "power": 2.0}),
    ("CosineAnnealingLR", {"T_max": 5, "eta_min": 0.01}),
    ("CosineAnnealingWarmRestarts", {"T_0": 4, "T_mult": 2, "eta_min": 0.01}),
    ("CosineAnnealingWarmRestarts", {"T_0": 3}),
    ("OneCycleLR", {"max_lr": 1.0, "total_steps": 20}),
    ("OneCycleLR", {"max_lr": [1.0, 2.0], "epochs": 5, "steps_per_epoch": 4, "anneal_strategy": "linear", "three_phase": True, "pct_start": 0.4}),
    ("LambdaLR", {"lr_lambda": rise}),
    ("LambdaLR", {"lr_lambda": [rise, lambda i: 0.9**i]}),
    ("MultiplicativeLR", {"lr_lambda": lambda i: 0.9}),
    ("SWALR", {"swa_lr": 0.02, "anneal_epochs": 6}),
    ("SWALR", {"swa_lr": [0.02, 0.5], "anneal_epochs": 4, "anneal_strategy": "linear"}),
    ("SWALR", {"swa_lr": 0.02, "anneal_epochs": 0}),
]


def parameters(lib, n=2):
    return [lib.tensor([1.0], requires_grad=True) for _ in range(n)]


def make_optimizer(lib, name="SGD"):
    a, b = parameters(lib)
    return getattr(lib.optim, name)([{"params": [a]}, {"params": [b], "lr": 0.3}], lr=0.1, **({"momentum": 0.9} if name == "SGD" else {}))


def make(lib, opt, name, kwargs):
    return getattr(lib.optim.swa_utils if name == "SWALR" else lib.optim.lr_scheduler, name)(opt, **kwargs)


def rates(opt, schedule, n, **kwargs):
    seen = []
    for i in range(n):
        opt.step()
        schedule.step(**{k: v[i] for k, v in kwargs.items()})
        seen.append([g.get(k) for g in opt.param_groups for k in ("lr", "momentum", "betas") if k in g])
        assert schedule.get_last_lr() == [g["lr"] for g in opt.param_groups]
    return [np.hstack(row) for row in seen]


@pytest.mark.parametrize(("name", "kwargs"), SCHEDULES)
def test_schedules_give_the_rates_of_torch(name, kwargs):
    for optimizer in ("SGD", "Adam"):
        mine, other = make_optimizer(md, optimizer), make_optimizer(torch, optimizer)
        ours, theirs = make(md, mine, name, kwargs), make(torch, other, name, kwargs)
        assert [g["lr"] for g in mine.param_groups] == pytest.approx([g["lr"] for g in other.param_groups], rel=1e-14)
        np.testing.assert_allclose(rates(mine, ours, 19), rates(other, theirs, 19), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize(("name", "kwargs"), [s for s in SCHEDULES if "lr_lambda" not in s[1]])
def test_a_saved_schedule_goes_on(name, kwargs):
    opt = make_optimizer(md)
    schedule = make(md, opt, name, kwargs)
    rates(opt, schedule, 5)
    saved = json.loads(json.dumps({"schedule": {k: dict(v) if k == "milestones" else v for k, v in schedule.state_dict().items()},
                                   "optimizer": opt.state_dict()["param_groups"]}))  # fmt: skip
    if name == "MultiStepLR":  # JSON has no integer keys
        saved["schedule"]["milestones"] = schedule.milestones
    fresh = make_optimizer(md)
    again = make(md, fresh, name, kwargs)
    fresh.load_state_dict({"state": {}, "param_groups": saved["optimizer"]})
    again.load_state_dict(saved["schedule"])
    fresh.stepped = True
    assert (np.array(rates(fresh, again, 6)) == np.array(rates(opt, schedule, 6))).all()


@pytest.mark.parametrize(("name", "kwargs"), [s for s in SCHEDULES if s[0] not in ("OneCycleLR", "SWALR")])
def test_schedules_begin_anew_and_at_any_place_as_torchs(name, kwargs):
    """After another schedule, whose rate is not theirs; at a place that is told; and from last_epoch on."""
    places = (6.0, 0.5, 11.0, 12.25, 5.0, 0.0, 3.75, 3.0) if name == "CosineAnnealingWarmRestarts" else (6, 1, 9, 0, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch says that places are deprecated
        found: list = [[], []]
        for lib, seen in ((md, found[0]), (torch, found[1])):
            opt = make_optimizer(lib)
            first = lib.optim.lr_scheduler.ConstantLR(opt, 0.7, total_iters=9)
            seen += rates(opt, lib.optim.lr_scheduler.SequentialLR(opt, [first, make(lib, opt, name, kwargs)], [1]), 8)
            opt = make_optimizer(lib)
            schedule = make(lib, opt, name, kwargs)
            opt.step()
            for place in places:
                schedule.step(place)
                seen.append(schedule.get_last_lr())
            seen += rates(opt, make(lib, opt, name, kwargs | {"last_epoch": 3}), 5)
    np.testing.assert_allclose(*map(np.concatenate, found), rtol=1e-12, atol=1e-15)


def composed(lib, kind):
    opt, s = make_optimizer(lib), lib.optim.lr_scheduler
    if kind == "chained":
        return opt, s.ChainedScheduler([s.ConstantLR(opt, 0.1, 3), s.ExponentialLR(opt, 0.9)])
    warm, cosine = s.LinearLR(opt, 0.1, total_iters=4), s.CosineAnnealingLR(opt, 6)
    if kind == "nested":
        inner = s.SequentialLR(opt, [warm, cosine], [4])
        return opt, s.SequentialLR(opt, [inner, s.StepLR(opt, 2), s.CosineAnnealingWarmRestarts(opt, 3)], [8, 13])
    return opt, s.SequentialLR(opt, [warm, cosine, s.MultiStepLR(opt, [1, 3])], [4, 11])


@pytest.mark.parametrize("kind", ["chained", "sequential", "nested"])
def test_composed_schedules_give_the_rates_of_torch(kind):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's nested schedules call step before the optimizer's
        (mine, ours), (other, theirs) = composed(md, kind), composed(torch, kind)
        np.testing.assert_allclose(rates(mine, ours, 9), rates(other, theirs, 9), rtol=1e-12, atol=1e-15)
        saved = ours.state_dict()
        fresh, again = composed(md, kind)
        fresh.load_state_dict(mine.state_dict())
        again.load_state_dict(saved)
        want = rates(other, theirs, 9)
        np.testing.assert_allclose(rates(fresh, again, 9), want, rtol=1e-12, atol=1e-15)
        np.testing.assert_allclose(rates(mine, ours, 9), want, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("kwargs", [
    {"patience": 1}, {"mode": "max", "factor": 0.5, "patience": 0, "threshold": 0.1, "cooldown": 2}, {"patience": 0, "min_lr": [0.05, 0.1]},
    {"threshold_mode": "abs", "threshold": 0.3, "patience": 2}, {"mode": "max", "threshold_mode": "abs", "patience": 0, "eps": 0.02},
])  # fmt: skip
def test_a_plateau_gives_the_rates_of_torch(kwargs):
    metrics = [3.0, 2.0, 2.1, 2.05, 1.9, 1.89, 1.88, 1.95, 1.94, 1.0, 1.2, float("nan"), 1.3, 1.2]
    mine, other = make_optimizer(md), make_optimizer(torch)
    ours, theirs = md.optim.lr_scheduler.ReduceLROnPlateau(mine, **kwargs), torch.optim.lr_scheduler.ReduceLROnPlateau(other, **kwargs)
    np.testing.assert_allclose(rates(mine, ours, 14, metrics=metrics), rates(other, theirs, 14, metrics=metrics), rtol=1e-14)
    again = md.optim.lr_scheduler.ReduceLROnPlateau(make_optimizer(md), **kwargs)
    again.load_state_dict(ours.state_dict())
    assert again.state_dict() == ours.state_dict()


def test_a_schedule_does_not_compile_again():
    """Warm-up, then a cosine, with momentum that cycles: the rate is an input of the jitted step, and the steps are those of torch."""
    x = np.random.default_rng(0).normal(size=(5, 3))

    def train(lib, jit):
        w = lib.tensor(np.ones((3, 1)), requires_grad=True)
        opt = lib.optim.AdamW([w], lr=0.1)
        schedule = lib.optim.lr_scheduler.OneCycleLR(opt, 0.5, total_steps=12)

        def step(x):
            opt.zero_grad()
            ((x @ w) ** 2).mean().backward()
            opt.step()

        step = jit(step)
        for _ in range(12):
            step(lib.asarray(x))
            schedule.step()
        return w.detach().numpy(), step

    ours, step = train(md, md.jit)
    np.testing.assert_allclose(ours, train(torch, lambda f: f)[0], rtol=1e-12)
    assert step.compiles == 1


def test_a_rate_that_is_a_tensor_changes_in_place():
    w, rate = md.tensor([1.0], requires_grad=True), md.tensor(0.5)
    opt = optim.SGD([w], lr=rate)
    schedule = optim.lr_scheduler.ExponentialLR(opt, 0.5)
    w.grad = md.ones(1)
    opt.step()
    schedule.step()
    opt.step()
    assert rate.item() == 0.25 and w.item() == 0.25 and schedule.base_lrs[0].item() == 0.5


def test_a_schedule_that_comes_first_warns():
    opt = make_optimizer(md)
    schedule = optim.lr_scheduler.StepLR(opt, 2)
    with pytest.warns(UserWarning, match="first rate is not used"):
        schedule.step()


@pytest.mark.parametrize(("call", "error", "message"), [
    (lambda s, o: s.StepLR([], 2), TypeError, "Optimizer"),
    (lambda s, o: s.StepLR(o, 2, last_epoch=3), KeyError, "initial_lr"),
    (lambda s, o: s.LambdaLR(o, [rise]), ValueError, "1 values.*2 groups"),
    (lambda s, o: s.ConstantLR(o, 2.0), ValueError, "factor"),
    (lambda s, o: s.LinearLR(o, 0.0), ValueError, "start_factor"),
    (lambda s, o: s.CosineAnnealingWarmRestarts(o, 0), ValueError, "T_0"),
    (lambda s, o: s.CosineAnnealingWarmRestarts(o, 2.5), ValueError, "T_0 must be a positive integer, got 2.5"),
    (lambda s, o: s.CosineAnnealingWarmRestarts(o, 2).step(-1), ValueError, "negative"),
    (lambda s, o: s.OneCycleLR(o, 1.0), ValueError, "total_steps"),
    (lambda s, o: s.OneCycleLR(o, 1.0, total_steps=2, pct_start=1), ValueError, "pct_start"),
    (lambda s, o: s.OneCycleLR(o, 1.0, total_steps=2, anneal_strategy="exp"), ValueError, "anneal_strategy"),
    (lambda s, o: s.OneCycleLR(optim.Adagrad(parameters(md)), 1.0, total_steps=2), ValueError, "cycle_momentum=False"),
    (lambda s, o: s.CyclicLR([], 0.1, 1.0), TypeError, "Optimizer"),
    (lambda s, o: s.CyclicLR(optim.Adagrad(parameters(md)), 0.1, 1.0), ValueError, "cycle_momentum=False"),
    (lambda s, o: s.SequentialLR(o, [s.StepLR(o, 2)], [3]), ValueError, "milestones"),
    (lambda s, o: s.ChainedScheduler([s.StepLR(o, 2)]).load_state_dict({"_schedulers": []}), ValueError, "zip"),
    (lambda s, o: s.ChainedScheduler([]), ValueError, "no schedule"),
    (lambda s, o: s.ChainedScheduler([s.ReduceLROnPlateau(o)]), ValueError, "metric"),
    (lambda s, o: s.ChainedScheduler([s.StepLR(o, 2), s.StepLR(make_optimizer(md), 2)]), ValueError, "one optimizer"),
    (lambda s, o: s.ReduceLROnPlateau(o, factor=1.0), ValueError, "factor"),
    (lambda s, o: s.ReduceLROnPlateau(o, mode="low"), ValueError, "mode"),
    (lambda s, o: optim.swa_utils.SWALR(o, 0.1, anneal_strategy="exp"), ValueError, "anneal_strategy"),
    (lambda s, o: optim.swa_utils.get_ema_avg_fn(2.0), ValueError, "decay"),
    (lambda s, o: optim.swa_utils.AveragedModel(nn.Linear(1, 1), avg_fn=print, multi_avg_fn=print), ValueError, "not both"),
])  # fmt: skip
def test_errors_say_what_is_wrong(call, error, message):
    with pytest.raises(error, match=message):
        call(optim.lr_scheduler, make_optimizer(md))


# ---- averages of weights --------------------------------------------------------------------------------------------------------------------
def network(lib):
    net = lib.nn.Sequential(lib.nn.Linear(3, 4), lib.nn.BatchNorm1d(4), lib.nn.Linear(4, 1))
    rng = np.random.default_rng(0)
    state = {k: rng.normal(size=tuple(v.shape)).astype(np.float32) for k, v in net.state_dict().items() if v.ndim}
    net.load_state_dict({k: lib.asarray(np.abs(v)) for k, v in state.items()}, strict=False)
    return net


@pytest.mark.parametrize("kind", ["swa", "ema", "multi", "buffers"])
def test_averages_of_weights_equal_torch(kind):
    x = np.random.default_rng(1).normal(size=(8, 3)).astype(np.float32)

    def train(lib, jit):
        u = lib.optim.swa_utils
        kwargs = {"swa": {}, "ema": {"avg_fn": u.get_ema_avg_fn(0.8)}, "multi": {"multi_avg_fn": u.get_ema_multi_avg_fn(0.8)},
                  "buffers": {"avg_fn": u.get_ema_avg_fn(0.8), "use_buffers": True}}[kind]  # fmt: skip
        net = network(lib)
        average = u.AveragedModel(net, **kwargs)
        opt = lib.optim.SGD(net.parameters(), lr=0.05)

        def step(x):
            opt.zero_grad()
            (net(x) ** 2).mean().backward()
            opt.step()
            average.update_parameters(net)

        step = jit(step)
        for _ in range(5):
            step(lib.asarray(x))
        u.update_bn([lib.asarray(x), (lib.asarray(x * 2),)], average)
        average.eval()
        out = average(lib.asarray(x)).detach().numpy()
        return {k: np.asarray(v.detach().numpy()) for k, v in average.state_dict().items()} | {"out": out}

    theirs = train(torch, lambda f: f)
    for jit in (lambda f: f, md.jit):
        ours = train(md, jit)
        assert set(ours) == set(theirs)
        for k, v in theirs.items():
            np.testing.assert_allclose(ours[k], v, rtol=2e-5, atol=1e-6, err_msg=k)


def test_an_average_counts_where_its_model_is():
    average = optim.swa_utils.AveragedModel(nn.Linear(1, 1).to(backend="torch"))
    assert average.n_averaged.backend == "torch" and optim.swa_utils.AveragedModel(nn.ReLU()).n_averaged.item() == 0


# ---- clipping and vectors -------------------------------------------------------------------------------------------------------------------
def gradients(lib, scale=1.0):
    rng = np.random.default_rng(0)
    params = [lib.tensor(rng.normal(size=s), requires_grad=True) for s in ((3, 2), (4,), ())]
    for p in params:
        p.grad = lib.asarray(rng.normal(size=tuple(p.shape)) * scale)
    return [*params, lib.tensor(np.ones(2), requires_grad=True)]  # the last has none


@pytest.mark.parametrize("norm_type", [2.0, 1, float("inf"), 3.0])
@pytest.mark.parametrize("scale", [0.01, 10.0])
def test_clipping_equals_torch(norm_type, scale):
    for name, args in (("clip_grad_norm_", (1.0, norm_type)), ("clip_grad_value_", (0.5,))):
        ours, theirs = gradients(md, scale), gradients(torch, scale)
        a, b = getattr(nn.utils, name)(ours, *args), getattr(torch.nn.utils, name)(theirs, *args)
        if name == "clip_grad_norm_":
            assert a.item() == pytest.approx(b.item(), rel=1e-14)
        for p, q in zip(ours[:-1], theirs[:-1], strict=True):
            np.testing.assert_allclose(p.grad.numpy(), q.grad.numpy(), rtol=1e-14)
        assert ours[-1].grad is None
    grads = [p.grad for p in gradients(md, scale)[:-1]]
    clipped, norm = md.jit(nn.utils.clip_by_global_norm)(grads, 1.0, norm_type)
    stateful = gradients(md, scale)
    assert nn.utils.clip_grad_norm_(stateful, 1.0, norm_type).item() == pytest.approx(norm.item(), rel=1e-12)
    for g, p in zip(clipped, stateful[:-1], strict=True):
        np.testing.assert_allclose(g.numpy(), p.grad.numpy(), rtol=1e-12)


def test_clipping_stands_in_a_jitted_step():
    def train(run):
        w = md.tensor([3.0, -4.0], requires_grad=True)
        opt = optim.SGD([w], lr=1.0)

        def step():
            opt.zero_grad()
            (w * w).sum().backward()
            norm = nn.utils.clip_grad_norm_([w], 1.0)
            opt.step()
            return norm

        step = run(step)
        return [step().item() for _ in range(3)], w.tolist()

    for jitted, eager in zip(train(md.jit), train(lambda f: f), strict=True):
        assert jitted == pytest.approx(eager, rel=0 if md.extend.home().name == "numpy" else 1e-6, abs=0)
    assert train(md.jit)[1] == pytest.approx([1.2, -1.6], rel=1e-4)


def test_clipping_says_what_is_wrong():
    w = md.tensor([1.0], requires_grad=True)
    w.grad = md.asarray([float("inf")])
    with pytest.raises(RuntimeError, match="inf.*error_if_nonfinite"):
        nn.utils.clip_grad_norm_(w, 1.0, error_if_nonfinite=True)
    assert w.grad.item() == float("inf")
    assert nn.utils.clip_grad_norm_([], 1.0).item() == 0


def test_parameters_as_a_vector():
    params = gradients(md)
    vec = nn.utils.parameters_to_vector(params)
    np.testing.assert_array_equal(vec.detach().numpy(), torch.nn.utils.parameters_to_vector(gradients(torch)).detach().numpy())
    (vec * vec).sum().backward()
    nn.utils.vector_to_parameters(vec.detach() * 2, params)
    np.testing.assert_array_equal(nn.utils.parameters_to_vector(params).detach().numpy(), vec.detach().numpy() * 2)
    for call in (lambda: nn.utils.vector_to_parameters(vec[:-1], params), lambda: nn.utils.parameters_to_vector([])):
        with pytest.raises(ValueError, match="parameters"):
            call()


@pytest.mark.parametrize("options", [
    {"step_size_up": 3, "step_size_down": 4}, {"step_size_up": 3, "mode": "triangular2"}, {"step_size_up": 2, "mode": "exp_range", "gamma": 0.9},
    {"step_size_up": 3, "scale_fn": lambda x: 0.8**x, "scale_mode": "iterations", "cycle_momentum": False},
])  # fmt: skip
@pytest.mark.parametrize("name", ["SGD", "AdamW"])
def test_cyclic_rates_equal_torchs(name, options):
    found = []
    for lib in (md, torch):
        groups = [{"params": [lib.tensor([1.0], requires_grad=True)]}, {"params": [lib.tensor([2.0], requires_grad=True)], "lr": 0.3}]
        opt = getattr(lib.optim, name)(groups, lr=0.1, **({"momentum": 0.9} if name == "SGD" else {}))
        schedule = lib.optim.lr_scheduler.CyclicLR(opt, [0.01, 0.02], [0.1, 0.3], **options)
        rates = []
        for i in range(25):
            opt.step()
            schedule.step()
            rates.append([(g["lr"], g.get("momentum") or g["betas"][0]) for g in opt.param_groups])
            if i == 12 and "scale_fn" not in options:  # saved and taken over in mid-cycle
                state = schedule.state_dict()
                schedule = lib.optim.lr_scheduler.CyclicLR(opt, [0.01, 0.02], [0.1, 0.3], **options)
                schedule.load_state_dict(state)
            if i == 18:  # made anew in mid-cycle, where the rate of now stays until the next step
                schedule = lib.optim.lr_scheduler.CyclicLR(opt, [0.01, 0.02], [0.1, 0.3], **options, last_epoch=schedule.last_epoch)
                rates.append([(g["lr"], g.get("momentum") or g["betas"][0]) for g in opt.param_groups])
        found.append(np.array(rates))
    np.testing.assert_allclose(*found, rtol=1e-12)


@pytest.mark.cpu
def test_new_statistics_are_those_of_batch_norms_alone_as_in_torch():
    x, found = np.random.default_rng(0).normal(size=(4, 3, 5)), []
    for lib in (md, torch):
        net = lib.nn.Sequential(lib.nn.BatchNorm1d(3), lib.nn.InstanceNorm1d(3, track_running_stats=True)).double()
        net(lib.asarray(x))
        lib.optim.swa_utils.update_bn([lib.asarray(x + 1)], net, device="cpu")
        found.append([v.numpy() for v in net.state_dict().values()])
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-15)


def test_clipping_that_raises_by_a_value_says_so_where_there_is_none():
    message = r"clip: error_if_nonfinite=True .* inside md.jit.*leave it False.*outside.*md.where"
    w = md.tensor([1.0], requires_grad=True)
    before = w.grad = md.asarray([3.0])

    def step(x):
        (w * x).sum().backward()
        return nn.utils.clip_grad_norm_(w, 1.0, error_if_nonfinite=True)

    with pytest.raises(TypeError, match=message):
        md.jit(step)(md.ones(1))
    assert w.grad is before and before.tolist() == [3.0]
    with pytest.raises(TypeError, match=message):
        md.vmap(lambda x: nn.utils.get_total_norm([x], error_if_nonfinite=True))(md.ones(2, 3))
    assert step(md.ones(1)).item() == 4.0


@pytest.mark.parametrize("make", [
    lambda s, o: s.LambdaLR(o, lambda n: 0.9**n), lambda s, o: s.MultiplicativeLR(o, lambda n: 0.9), lambda s, o: s.MultiStepLR(o, [2, 9]),
    lambda s, o: s.CyclicLR(o, 0.01, 0.1, 5, scale_fn=lambda n: 1 / n), lambda s, o: s.CosineAnnealingWarmRestarts(o, 4, 2),
    lambda s, o: s.SequentialLR(o, [s.LinearLR(o), s.LambdaLR(o, lambda n: 0.9**n)], [5]), lambda s, o: s.OneCycleLR(o, 0.5, 40),
])  # fmt: skip
def test_a_schedule_goes_on_from_torchs_state(make):
    theirs = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.1, momentum=0.9)
    ours = optim.SGD([nn.Parameter(md.ones(1))], lr=0.1, momentum=0.9)
    a, b = make(torch.optim.lr_scheduler, theirs), make(optim.lr_scheduler, ours)
    for _ in range(7):
        theirs.step()
        a.step()
    b.load_state_dict(a.state_dict())
    ours.load_state_dict(theirs.state_dict())
    for _ in range(9):
        theirs.step(), a.step(), ours.step(), b.step()
        assert abs(theirs.param_groups[0]["lr"] - ours.param_groups[0]["lr"]) < 1e-9
