"""What makes eager mode quick must not show: compiled updates, fused kernels, and what is decided by looking at values."""

import copy
import gc
import weakref

import numpy as np
import pytest

import minidl as md
from minidl.optim import optimizer as room

BACKENDS = ("numpy", "torch", "jax")


def weights(n=2):
    rng = np.random.default_rng(0)
    params = [md.nn.Parameter(md.tensor(rng.normal(size=(3, 4)).astype(np.float32))) for _ in range(n)]
    for p in params:
        p.grad = md.tensor(rng.normal(size=(3, 4)).astype(np.float32))
    return params


def walk(optimizer, step, steps=4):
    for i in range(steps):
        optimizer.param_groups[0]["lr"] = 0.1 / (i + 1)
        step()
    return [p.detach().numpy().copy() for p in optimizer.param_groups[0]["params"]]


# ---- the optimizer's step is one program ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("make", [lambda p: md.optim.SGD(p, momentum=0.9, dampening=0.5), lambda p: md.optim.AdamW(p)], ids=["sgd", "adamw"])
def test_a_compiled_step_is_the_step(backend, make):
    with md.use_backend(backend):
        whole, single = make(weights()), make(weights())
        for a, b in zip(walk(whole, whole.step), walk(single, single._step_all), strict=True):
            np.testing.assert_allclose(a, b, rtol=2e-6, atol=1e-7)
        for a, b in zip(whole.state.values(), single.state.values(), strict=True):
            for k in b:
                np.testing.assert_allclose(a[k].numpy(), b[k].numpy(), rtol=2e-6, atol=1e-7)
        assert room._compiled[whole].compiles <= 2  # the first step with dampening makes the buffers


def test_sgd_keeps_every_bit():
    for backend in ("numpy", "torch"):
        with md.use_backend(backend):
            whole, single = (md.optim.SGD(weights(), momentum=0.9, nesterov=True, weight_decay=0.01) for _ in range(2))
            for a, b in zip(walk(whole, whole.step), walk(single, single._step_all), strict=True):
                np.testing.assert_array_equal(a, b)


def test_a_class_of_the_users_runs_as_python_at_every_step():
    seen = []

    class Loud(md.optim.SGD):
        def _update(self, p, grad, group, state):
            seen.append(float(grad.sum().item()))
            return super()._update(p, grad, group, state)

    optimizer = Loud(weights(1), lr=0.1)
    for _ in range(3):
        optimizer.step()
    assert len(seen) == 3 and optimizer not in room._compiled


def test_what_changes_at_every_step_stops_the_compiling():
    p, q = weights()
    optimizer = md.optim.SGD([p, q], lr=0.5)
    start = p.detach().numpy().copy()
    for i in range(room._PROGRAMS + 4):
        optimizer.note = i  # jit guards the attributes of an optimizer
        optimizer.step()
    assert room._compiled[optimizer].compiles == room._PROGRAMS + 1
    np.testing.assert_allclose(p.detach().numpy(), start - 0.5 * (room._PROGRAMS + 4) * p.grad.numpy(), rtol=1e-5)


def test_gradients_that_come_and_go():
    p, q = weights()
    optimizer = md.optim.SGD([p, q], lr=1.0)
    kept, there, value = q.grad, p.detach(), q.detach().numpy().copy()
    optimizer.step()
    q.grad = None
    optimizer.step()
    q.grad = kept
    optimizer.step()
    np.testing.assert_allclose(q.detach().numpy(), value - 2 * kept.numpy(), rtol=1e-6)
    np.testing.assert_allclose(p.detach().numpy(), there.numpy() - 3 * p.grad.numpy(), rtol=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_step_shows_in_nothing_that_was_read_before(backend):
    with md.use_backend(backend):
        p = md.nn.Parameter(md.ones((600, 600)))  # large enough that a program would write over it
        optimizer = md.optim.SGD([p], lr=0.5, momentum=0.9)
        p.grad = md.ones((600, 600))
        optimizer.step()
        before, shared, copied = p.detach(), p.detach().numpy(), optimizer.state_dict()
        loss = (p * p).sum()
        optimizer.step()
        assert before.numpy()[0, 0] == shared[0, 0] == 0.5
        assert copied["state"][0]["momentum_buffer"].numpy()[0, 0] == 1.0
        p.grad = None
        loss.backward()  # of the values that the forward pass saw
        assert p.grad.numpy()[0, 0] == 1.0


def test_optimizers_are_copied_and_freed():
    optimizer = md.optim.Adam(weights())
    optimizer.step()
    other = copy.deepcopy(optimizer)
    other.step()
    assert other.state_dict()["state"][0]["step"].item() == 2 and optimizer.state_dict()["state"][0]["step"].item() == 1
    watch = weakref.ref(optimizer)
    del optimizer
    gc.collect()
    assert watch() is None
