"""`.grad` as it grows: each leaf has a gradient of its own, and what somebody else holds grows where PyTorch's would."""

from __future__ import annotations

import pytest

import minidl as md

BACKENDS = ["numpy", "torch", "jax", "numba"]
P = md.nn.Parameter


def leaves(backend):
    return P(md.zeros(3, backend=backend)), P(md.zeros(3, backend=backend))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("plan", [(True, True, True), (True, False, False), (False, True, False), (True, False, True)])
def test_two_leaves_that_one_cotangent_reaches_grow_apart(backend, plan):
    a, b = leaves(backend)
    g = md.asarray([1.0, 2.0, 3.0], dtype=md.float32, backend=backend)
    for create_graph in plan:
        (a + b).backward(g, create_graph=create_graph)
    assert a.grad.tolist() == b.grad.tolist() == [3.0, 6.0, 9.0]
    assert g.tolist() == [1.0, 2.0, 3.0]
    a.grad.zero_()
    assert b.grad.tolist() == [3.0, 6.0, 9.0]


@pytest.mark.parametrize("hook", [lambda g: None, lambda g: g, lambda g: g * 1.0])
def test_what_a_hook_keeps_does_not_grow(hook):
    a, b = leaves("numpy")
    seen = []
    for p in (a, b):
        p.register_hook(lambda g: seen.append(g))
        p.register_hook(hook)
    for create_graph in (True, False, True):
        (a + b).sum().backward(create_graph=create_graph)
    assert a.grad.tolist() == b.grad.tolist() == [3.0] * 3
    assert all(g.tolist() == [1.0] * 3 for g in seen)


def test_retained_gradients_are_values_of_their_own():
    x = md.ones(2).requires_grad_()
    a, b, seed = x * 2.0, x * 3.0, md.ones(2)
    a.retain_grad()
    b.retain_grad()
    (a + b).backward(seed, create_graph=True)
    with md.no_grad():
        a.grad.zero_()
    assert b.grad.tolist() == [1.0, 1.0] == seed.tolist()


@pytest.mark.parametrize("backend", ["numpy", "jax"])
def test_a_jitted_pass_that_is_recorded_gives_each_leaf_its_own(backend):
    @md.jit
    def step(g, a, b):
        (a + b).backward(g, create_graph=True)
        with md.no_grad():
            a.grad.mul_(3.0)
        return g * 1.0

    (a, b), g = leaves(backend), md.ones(3, backend=backend)
    found = [step(g, a, b).tolist() for _ in range(3)]
    assert found == [[1.0] * 3] * 3
    assert (a.grad.tolist(), b.grad.tolist(), g.tolist()) == ([39.0] * 3, [3.0] * 3, [1.0] * 3)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("hooked", [False, True])
def test_a_gradient_that_shows_a_part_of_a_buffer_grows_there(backend, hooked):
    p, flat = md.ones(2, backend=backend).requires_grad_(), md.zeros(4, backend=backend)
    if hooked:
        p.register_hook(lambda g: None)
    p.grad = flat[:2]
    held = p.grad
    (p * 2).sum().backward()
    assert (flat.tolist(), p.grad.tolist()) == ([2.0, 2.0, 0.0, 0.0], [2.0, 2.0])
    (p * 2).sum().backward(md.tensor(1.0, backend=backend))
    assert (flat.tolist(), p.grad.tolist()) == ([4.0, 4.0, 0.0, 0.0], [4.0, 4.0])
    flat.zero_()
    (p * 2).sum().backward()
    assert (flat.tolist(), p.grad.tolist()) == ([2.0, 2.0, 0.0, 0.0], [2.0, 2.0]) and p.grad is held
    del flat
    (p * 2).sum().backward()
    assert held.tolist() == [4.0, 4.0]
