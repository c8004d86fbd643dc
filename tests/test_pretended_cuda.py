"""The torch backend's paths for CUDA, on a device that pretends (see pretended_cuda.py): placement, values, and no wait for the device."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch
from domains import ROWS
from pretended_cuda import Capture, OnCuda, pretended_cuda

import minidl as md
from minidl.rewrites.updates import on_torch_cuda as updates
from minidl.testing.checks import study

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device, on which the suite runs with MINIDL_DEVICE=cuda")
THERE = {"backend": "torch", "device": "cuda"}
#: Primitives whose kernels have to read a value before they can go on.
READ = {"while_loop", "cond"}


@pytest.fixture
def cuda():
    with pretended_cuda() as mode:
        yield mode
        md.manual_seed(0)  # the stream of random numbers leaves the device before it goes


@pytest.mark.parametrize(("row", "dtype"), [pytest.param(r, t, id=f"{r}-{t}") for r in ROWS for t in r.dtypes])
def test_every_primitive_has_its_values_and_derivatives_there(row, dtype, cuda):
    """Compiled, eager and interpreted, within the budget of tests/test_primitives.py."""
    xp = md.extend.get_backend("torch", "cuda")
    s = study(row, dtype)
    s.rule(xp)
    s.modes(xp, eager=True)


@pytest.mark.parametrize("row", {r.name: r for r in reversed(ROWS)}.values(), ids=str)
def test_no_kernel_waits_for_the_device(row, cuda):
    xp = md.extend.get_backend("torch", "cuda")
    s = study(row, row.dtypes[0])
    inputs = [xp.asarray(np.asarray(a), v.dtype) for a, v in zip(s.inputs, s.traced.inputs, strict=True)]
    run = xp.compile(s.traced)
    cuda.waits.clear()
    outs = run(*inputs)
    assert all(type(o) is OnCuda for o in outs)
    assert bool(cuda.waits) == (row.name in READ)


def test_a_training_step_waits_for_nothing(cuda):
    """Convolutions, pooling, normalisation, dropout, cross-entropy and both kinds of optimizers, eager and jitted: the losses of NumPy."""
    images, labels = np.random.default_rng(0).normal(size=(8, 3, 16, 16)).astype(np.float32), np.arange(8) % 4
    found = {}
    for device in ("cpu", "cuda"):
        for jitted in (False, True):
            for make in (md.optim.SGD, md.optim.AdamW):
                with md.use_backend("torch" if device == "cuda" else "numpy", device):
                    md.manual_seed(0)
                    parts = [md.nn.Conv2d(3, 4, 3), md.nn.BatchNorm2d(4), md.nn.ReLU(), md.nn.MaxPool2d(2), md.nn.Dropout(0.2), md.nn.Flatten()]
                    model = md.nn.Sequential(*parts, md.nn.Linear(4 * 7 * 7, 4))
                    optimizer = make(model.parameters(), lr=0.05)
                    x, y = md.asarray(images), md.asarray(labels)

                    def step():
                        optimizer.zero_grad()  # noqa: B023
                        loss = md.nn.functional.cross_entropy(model(x), y)  # noqa: B023
                        loss.backward()
                        optimizer.step()  # noqa: B023
                        return loss

                    step = md.jit(step) if jitted else step
                    step()
                    cuda.waits.clear()
                    losses = [step() for _ in range(3)]
                    assert not cuda.waits
                    assert all(p.device == ("cuda:0" if device == "cuda" else "cpu") for p in model.parameters())
                    found[device, jitted, make] = [loss.item() for loss in losses]
    for make in (md.optim.SGD, md.optim.AdamW):
        for key in (("cpu", True), ("cuda", False), ("cuda", True)):
            np.testing.assert_allclose(found[(*key, make)], found["cpu", False, make], rtol=2e-4)


@pytest.mark.parametrize("how", [((2, 2), (2, 2), 0), ((3, 3), (2, 2), 1), ((3, 2), (1, 1), 1)], ids=str)
def test_pooling_takes_the_first_maximum_and_the_first_nan(how, cuda):
    x = np.random.default_rng(0).choice([-1.0, -0.0, 0.0, 2.0, np.inf, -np.inf, np.nan], (2, 3, 12, 12)).astype(np.float32)
    x[0, 0, :4, :4] = x[1, 2, -4:, -4:] = -np.inf  # whole windows
    window, stride, pad = how
    f = lambda x: md.max_pool(x, window, stride=stride, padding=pad)
    grads = [md.vjp(f, md.asarray(x, **where))[1](md.ones(f(md.asarray(x)).shape, **where))[0].numpy() for where in ({}, THERE)]
    np.testing.assert_array_equal(*grads)
    cuda.waits.clear()
    out = f(md.asarray(x, **THERE))
    assert not cuda.waits
    np.testing.assert_array_equal(out.numpy(), f(md.asarray(x)).numpy())


def test_operands_on_two_devices_are_refused_with_the_way_out(cuda):
    with pytest.raises(RuntimeError, match=r"add: operands live on two devices, torch \(cuda:0\) and torch \(cpu\); .*\.to\(device='cuda:0'\)"):
        md.ones(2, backend="torch", device="cuda") + md.ones(2, backend="torch")


def test_the_pretended_device_refuses_what_cuda_refuses(cuda):
    here, there = torch.ones(3), torch.ones(3, device="cuda")
    with pytest.raises(RuntimeError, match="add: expected all tensors to be on the same device"):
        here + there
    assert (there + torch.tensor(2.0)).device.type == "cuda" and not cuda.waits
    assert there[1].item() == 1.0 and (there > 0).cpu().tolist() == [True] * 3 and cuda.waits


# ---- replayed graphs ------------------------------------------------------------------------------------------------------------------------
def _trained(mode, make, steps=5):
    """The losses of a network with dropout and normalisation, whose rate changes, and its weights."""
    images, labels = np.random.default_rng(0).normal(size=(8, 3, 8, 8)).astype(np.float32), np.arange(8) % 4
    with md.use_backend("torch", "cuda"):
        md.manual_seed(0)
        parts = [md.nn.Conv2d(3, 4, 3), md.nn.BatchNorm2d(4), md.nn.ReLU(), md.nn.MaxPool2d(2), md.nn.Dropout(0.2), md.nn.Flatten()]
        model = md.nn.Sequential(*parts, md.nn.LayerNorm(36), md.nn.Linear(36, 4))
        optimizer = make(model.parameters(), lr=0.05)
        x, y = md.asarray(images), md.asarray(labels)

        def step(x):
            optimizer.zero_grad()
            loss = md.nn.functional.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            return loss

        step = md.jit(step, mode=mode)
        losses = []
        for k in range(steps):
            optimizer.param_groups[0]["lr"] = 0.05 / (k + 1)
            losses.append(step(x * (1 + k)).detach())
        return losses, [p.detach() for p in model.state_dict().values()], step


@pytest.mark.parametrize("make", [md.optim.SGD, md.optim.AdamW])
def test_a_replayed_step_trains_as_another_does(make, cuda):
    """Each loss is read at the end, when later steps have written over all that the capture holds."""
    want, weights, _ = _trained(None, make)
    assert Capture.made == 0
    got, others, step = _trained("cudagraph", make)
    assert Capture.made == step.compiles == 1
    for a, b in zip((*got, *others), (*want, *weights), strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-6)


def test_a_replay_is_copies_in_one_launch_and_copies_out(cuda):
    f = md.jit(lambda x, y: (md.tanh(x @ y).sum(axis=0), x * 2.0, x), mode="cudagraph")
    x, y = md.ones((4, 4), **THERE), md.ones((4, 4), **THERE)
    first, other = f(x, y), x * 3.0
    cuda.ran, cuda.waits = 0, type(cuda.waits)()
    second = f(other, y)
    assert cuda.ran == 1 + 3 and not cuda.waits and Capture.made == 1  # what goes in, at once, and what comes out
    assert [o.tolist()[0] for o in (first[1], second[1])] == [[2.0] * 4, [6.0] * 4]
    places = [t.payload.elements.data_ptr() for t in (x, y, *first, *second)]
    assert len(set(places)) == len(places)


def test_threads_take_turns_at_a_capture(cuda):
    f = md.jit(lambda x: (x * 2.0 + 1.0).sum(axis=1), mode="cudagraph")
    f(md.zeros((64, 64), **THERE))
    found = {}

    def work(k):
        found[k] = [f(md.full((64, 64), float(k + i), **THERE)) for i in range(20)]

    threads = [threading.Thread(target=work, args=(k,)) for k in range(3)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    for k, outs in found.items():
        assert [o.numpy()[0] for o in outs] == [64.0 * (2 * (k + i) + 1) for i in range(20)]
    assert Capture.made == 1


def test_what_a_capture_cannot_hold_is_refused(cuda):
    loop = md.jit(lambda x: md.while_loop(lambda v: v.sum() < 100.0, lambda v: v * 2.0, x), mode="cudagraph")
    with pytest.raises(NotImplementedError, match="mode='cudagraph': while_loop decides by values what runs next"):
        loop(md.ones((3,), **THERE))
    with pytest.raises(RuntimeError, match="which a capture cannot hold"), torch.cuda.graph(torch.cuda.CUDAGraph()):
        torch.ones(3, device="cuda").sum().item()


# ---- fused updates --------------------------------------------------------------------------------------------------------------------------
MAKE = {
    "Adam": lambda params, **how: md.optim.Adam(params, lr=0.05, weight_decay=0.1, **how),
    "AdamW": lambda params, **how: md.optim.AdamW(params, lr=0.05, **how),
    "SGD": lambda params, **how: md.optim.SGD(params, lr=0.05, momentum=0.9, weight_decay=0.1, **how),
}


def _updated(make, place, dtype, jitted=False, mode=None, change=None, steps=3, **how):
    """Two parameters, and their optimizer's state, after steps with other gradients and rates."""
    with md.use_backend("torch", place):
        rng = np.random.default_rng(0)
        params = [md.nn.Parameter(md.tensor(rng.normal(size=s), dtype=dtype)) for s in ((5, 3), (7,))]
        optimizer = MAKE[make](params, **{k: f() for k, f in how.items()})

        def step(*grads):
            for p, g in zip(params, grads, strict=True):
                p.grad = g
            optimizer.step()

        run = md.jit(step, mode=mode) if jitted else step
        for k in range(steps):
            optimizer.param_groups[0]["lr"] = 0.05 / (k + 1)
            if change and k == 2:
                optimizer.param_groups[0].update(change)
            grads = [rng.normal(size=p.shape) for p in params]
            grads[0][k, 0], grads[0][k, 2], grads[1][k] = np.inf, np.nan, 0.0
            run(*(md.tensor(g, dtype=dtype) for g in grads))
        state = [optimizer.state[p][k] for p in params for k in sorted(optimizer.state[p])]
        return [x.detach().to(md.float32).numpy() for x in (*params, *state)]


@pytest.fixture
def fused(monkeypatch):
    """How often torch's fused kernels are called, trials apart."""
    calls = []
    for name in ("_adamw", "_sgd"):
        kernel = getattr(updates, name)
        monkeypatch.setattr(updates, name, lambda p, *more, kernel=kernel, **how: calls.append(len(p)) or kernel(p, *more, **how))
    for step in (updates.AdamSteps, updates.SgdSteps):
        for dtype in (torch.float32, torch.bfloat16):
            updates.trusted(step, dtype, "cuda:0")
    calls.clear()
    return calls


@pytest.mark.parametrize("dtype", [md.float32, md.bfloat16], ids=str)
@pytest.mark.parametrize("make", MAKE)
def test_all_updates_of_a_step_are_one_fused_call(make, dtype, cuda, fused):
    """Eager, jitted and replayed; nan and infinities come out as on the CPU."""
    want = _updated(make, "cpu", dtype)
    for how in ({}, {"jitted": True}, {"jitted": True, "mode": "cudagraph"}):
        fused.clear()
        got = _updated(make, "cuda", dtype, **how)
        assert set(fused) == {2} and len(fused) == (4 if "mode" in how else 3)  # three to warm up, one in the capture
        for a, b in zip(got, want, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5 if dtype is md.float32 else 0.05, atol=1e-6 if dtype is md.float32 else 0.01)


def test_a_replay_sees_a_beta_that_has_changed_and_not_a_rate(cuda, fused):
    change = {"betas": (0.5, 0.75)}
    want = _updated("AdamW", "cpu", md.float32, change=change, steps=4)
    got = _updated("AdamW", "cuda", md.float32, jitted=True, mode="cudagraph", change=change, steps=4)
    assert Capture.made == 2
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("why", ["refused", "wrong", "missing"])
@pytest.mark.parametrize("make", ["AdamW", "SGD"])
def test_where_a_fused_kernel_is_refused_or_fails_its_trial_the_operations_run(make, why, cuda, monkeypatch):
    name = {"AdamW": "_adamw", "SGD": "_sgd"}[make]
    kernel, calls = getattr(updates, name), []

    def other(p, *more, **how):
        calls.append(p)
        if why == "refused":
            raise KeyError("no such kernel for this device")
        kernel(p, *more, **{**how, "lr": how["lr"] * 2.0})

    monkeypatch.setattr(updates, name, None if why == "missing" else other)
    updates.trusted.cache_clear()
    try:
        got = _updated(make, "cuda", md.float32)
    finally:
        updates.trusted.cache_clear()
    assert len(calls) == (why != "missing")
    for a, b in zip(got, _updated(make, "cpu", md.float32), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_a_setting_that_only_the_device_knows_goes_the_way_of_the_operations(cuda, fused):
    how = {"eps": lambda: md.tensor(1e-8)}
    want, got = (_updated("AdamW", place, md.float32, jitted=True, **how) for place in ("cpu", "cuda"))
    assert not fused and not cuda.waits["_local_scalar_dense"]
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_an_update_that_somebody_reads_stays_as_it_is_written(cuda, fused):
    with md.use_backend("torch", "cuda"):
        p = md.nn.Parameter(md.ones(4))
        optimizer = md.optim.AdamW([p], lr=0.5)

        @md.jit
        def step(g):
            p.grad = g
            optimizer.step()
            return (p * 2.0).sum()

        found = step(md.ones(4))
    assert not fused and abs(found.item() - 8 * (1 - 0.5 * 0.01 - 0.5)) < 1e-4
