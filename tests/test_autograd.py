"""The eager tape: what PyTorch users rely on, on every backend."""

from __future__ import annotations

import gc
import threading
import weakref

import numpy as np
import pytest

import minidl as md


def test_backward_accumulates_into_leaves(backend):
    x = md.tensor([1.0, 2.0, 3.0], requires_grad=True)
    (x * x).sum().backward()
    (x * 2.0).sum().backward()
    assert x.grad.tolist() == [4.0, 6.0, 8.0]
    x.grad = None
    (x * 3.0).sum().backward()
    assert x.grad.tolist() == [3.0, 3.0, 3.0]


def test_a_seed_is_needed_for_several_elements_and_must_have_their_shape(backend):
    x = md.tensor([1.0, 2.0], requires_grad=True)
    with pytest.raises(RuntimeError, match=r"f32\[2\] has 2 elements; pass a gradient"):
        (x * x).backward()
    with pytest.raises(ValueError, match="the shapes must be equal"):
        (x * x).backward(md.ones((3,)))
    (x * x).backward(md.tensor([1.0, 10.0]))
    assert x.grad.tolist() == [2.0, 40.0]


def test_a_second_pass_over_a_released_graph_raises(backend):
    x = md.tensor(3.0, requires_grad=True)
    y = x * x
    y.backward(retain_graph=True)
    y.backward()
    assert x.grad.item() == 12.0
    with pytest.raises(RuntimeError, match="retain_graph=True"):
        y.backward()


def test_untracked_outputs_and_integer_leaves_raise(backend):
    with pytest.raises(RuntimeError, match="does not require grad"):
        md.tensor(1.0).backward()
    with pytest.raises(RuntimeError, match="only float and complex"):
        md.tensor([1, 2], requires_grad=True)
    with pytest.raises(RuntimeError, match="only leaves can be switched off"):
        (md.tensor(1.0, requires_grad=True) * 2.0).requires_grad_(False)


def test_create_graph_gives_derivatives_of_derivatives(backend):
    x = md.tensor([1.0, 2.0], requires_grad=True)
    (g,) = md.autograd.grad((x * x * x).sum(), x, create_graph=True)
    (h,) = md.autograd.grad(g.sum(), x)
    assert h.tolist() == [6.0, 12.0]
    (x * x).sum().backward(create_graph=True)
    x.grad.sum().backward()  # d/dx of 2x, on top of the 2x that is there
    assert x.grad.tolist() == [4.0, 6.0]


def test_autograd_grad_touches_no_leaf_and_names_unused_inputs(backend):
    x, y = md.tensor(2.0, requires_grad=True), md.tensor(3.0, requires_grad=True)
    assert md.autograd.grad(x * x, x)[0].item() == 4.0 and x.grad is None
    with pytest.raises(RuntimeError, match="was not used"):
        md.autograd.grad(x * x, (x, y))
    assert md.autograd.grad(x * x, (x, y), allow_unused=True)[1] is None


def test_no_grad_records_nothing_and_nests(backend):
    x = md.tensor(2.0, requires_grad=True)
    with md.no_grad():
        assert not (x * x).requires_grad
        with md.enable_grad():
            assert (x * x).requires_grad
        assert not md.is_grad_enabled()

    @md.no_grad()
    def f():
        return x * x

    assert not f().requires_grad and md.is_grad_enabled()


def test_hooks_see_and_replace_gradients(backend):
    x = md.tensor(2.0, requires_grad=True)
    seen = []
    y = x * x
    y.register_hook(lambda g: seen.append(g.item()))
    remove = x.register_hook(lambda g: g * 10.0)
    (y * 3.0).backward()
    assert seen == [3.0] and x.grad.item() == 120.0
    remove()
    x.grad = None
    (x * x).backward()
    assert x.grad.item() == 4.0


def test_in_place_updates(backend):
    x = md.tensor([1.0, 2.0], requires_grad=True)
    with pytest.raises(RuntimeError, match="under md.no_grad"):
        x += 1.0
    with md.no_grad():
        x += 1.0
    assert x.tolist() == [2.0, 3.0] and x.is_leaf and x.requires_grad
    y = x * 1.0
    z = y * y  # keeps the value that y had then
    y += 5.0
    (z + y).sum().backward()
    assert x.grad.tolist() == [5.0, 7.0]
    w = md.zeros((3,))
    v = w * 1.0
    v[1] = x.sum()
    v.sum().backward()
    assert x.grad.tolist() == [6.0, 8.0]
    with pytest.raises(ValueError, match="shape and dtype of a tensor do not change"):
        w.assign(md.zeros((2,)))


def test_broadcasting_is_undone(backend):
    a = md.tensor(np.ones((3, 1), np.float32), requires_grad=True)
    b = md.tensor(np.ones((4,), np.float32), requires_grad=True)
    (a * b + 2.0 * a).sum().backward()
    assert a.grad.shape == (3, 1) and a.grad.tolist() == [[12.0]] * 3
    assert b.grad.shape == (4,) and b.grad.tolist() == [3.0] * 4


def test_complex_gradients_point_uphill_as_in_torch(backend):
    import torch

    z = np.array([1 + 2j, -0.5 + 0.25j])
    x = md.tensor(z, requires_grad=True)
    (md.real(x * md.conj(x)) + md.abs(x) + md.imag(x * x * 2j)).sum().backward()
    t = torch.tensor(z, requires_grad=True)
    ((t * t.conj()).real + t.abs() + (t * t * 2j).imag).sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), t.grad.numpy(), rtol=1e-14)
    with pytest.raises(RuntimeError, match="complex"):
        (x * x).sum().backward()


def test_deep_graphs_need_no_recursion_and_are_freed_without_the_collector(backend):
    depth = 20_000 if backend != "jax" else 2_000
    x = md.tensor(1.0, requires_grad=True)
    y = x
    for _ in range(depth):
        y = y + 1.0
    y.backward()
    assert x.grad.item() == 1.0
    gc.disable()
    try:
        a = md.tensor([1.0], requires_grad=True)
        ref = weakref.ref(a * 2.0)
        b = (a * 2.0) * 3.0
        alive = weakref.ref(b)
        b.backward()
        del b
        assert ref() is None and alive() is None
    finally:
        gc.enable()


def test_threads_train_independent_models(backend):
    results: dict[int, float] = {}

    def work(i: int) -> None:
        with md.use_backend(backend):
            x = md.tensor(float(i), requires_grad=True)
            for _ in range(50):
                (x * x * 0.5).backward()
                with md.no_grad():
                    x -= 0.1 * x.grad
                x.grad = None
            results[i] = x.item()

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    for i in range(4):
        assert results[i] == pytest.approx(i * 0.9**50, rel=1e-4)


def test_one_graph_over_two_backends_differentiates():
    with md.use_backend("numpy"):
        x = md.tensor([1.0, 2.0], requires_grad=True)
    y = md.sin((x * x).to(backend="torch"))
    z = (y * 3.0).to(backend="jax")
    z.sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), 6 * np.array([1, 2]) * np.cos([1, 4]), rtol=1e-6)
    assert x.grad.backend == "numpy"
    with pytest.raises(RuntimeError, match=r"two backends, numpy \(cpu\) and torch \(cpu\)"):
        x + y


def test_no_backend_autodiff_is_used(monkeypatch):
    """minidl's gradients never come from torch.autograd or jax.grad."""
    import jax
    import torch

    def forbidden(*args, **kwargs):
        raise AssertionError("a backend's own autodiff was called")

    monkeypatch.setattr(torch.Tensor, "backward", forbidden)
    monkeypatch.setattr(torch.autograd, "grad", forbidden)
    monkeypatch.setattr(jax, "grad", forbidden)
    monkeypatch.setattr(jax, "vjp", forbidden)
    monkeypatch.setattr(jax, "jvp", forbidden)
    for name in ("torch", "jax"):
        with md.use_backend(name):
            x = md.tensor(np.linspace(-1, 1, 6).reshape(2, 3), requires_grad=True)
            md.softmax(md.tanh(x) @ md.ones((3, 2), dtype=md.float64), axis=1).max().backward()
            assert x.grad.shape == (2, 3) and not x.payload.requires_grad if name == "torch" else True


def test_second_derivative_of_hypot_keeps_its_digits(backend):
    """y² / r³ is a billionth of a billionth here; a difference of numbers of size one would leave nothing of it."""
    x, y = md.tensor(1.0, dtype=md.float64), md.tensor(1e-9, dtype=md.float64)
    for f in (md.grad(md.grad(md.hypot)), md.jit(md.grad(md.grad(md.hypot)))):
        assert f(x, y).item() == pytest.approx(1e-18, rel=1e-12)


def test_memory_from_outside_is_read_and_never_written(backend):
    """Tensors have no version counter, since no payload is written to: an in-place change gives the tensor another one."""
    outside = np.arange(16.0)
    x = md.asarray(outside, copy=False) if backend != "jax" else md.from_dlpack(outside)
    x.requires_grad_()
    y = (x * x).sum()
    with md.no_grad():
        x += 1.0
        x[0] = 7.0
    np.testing.assert_array_equal(outside, np.arange(16.0))
    y.backward()  # at the values that y was computed from
    np.testing.assert_array_equal(x.grad.numpy(), 2 * outside)


def test_a_jacobian_is_cut_from_the_graph_that_made_it():
    x = md.asarray([1.0, 2.0])
    for transform in (md.jacrev, md.jacfwd):
        assert not transform(md.sin)(x).requires_grad
        y = md.tensor([1.0, 2.0], requires_grad=True)
        jacobian = transform(lambda x, y=y: md.sin(x) * y)(x)
        assert jacobian.requires_grad  # of y, which is tracked outside
        assert md.autograd.grad(jacobian.sum(), y)[0].tolist() == md.cos(x).tolist()


def test_grad_through_a_released_graph_says_so():
    """Also where another output reaches the inputs: its gradient alone would be wrong."""
    u, v, one = md.ones(3, requires_grad=True), md.ones(3, requires_grad=True), md.ones(3)
    s = u * v
    md.autograd.grad(s, [u, v], one)
    for outputs in ([s], [s, u * 2 + v], [s * 2 + u + v]):
        with pytest.raises(RuntimeError, match="already differentiated"):
            md.autograd.grad(outputs, [u, v], [one] * len(outputs))
    y = u * 2
    (y * y).sum().backward()  # what leads to an input may be gone
    z = y * 3
    assert md.autograd.grad(z, y, one)[0].tolist() == [3.0] * 3


def test_backward_of_several_tensors_is_one_pass():
    x = md.tensor([1.0, 2.0], requires_grad=True)
    y = x * x
    md.autograd.backward([y, y.sum()], [md.tensor([1.0, 10.0]), None])
    assert x.grad.tolist() == [4.0, 44.0]
    with pytest.raises(RuntimeError, match="already"):
        y.sum().backward()
    with pytest.raises(ValueError, match="as many gradients"):
        md.autograd.backward([x.sum(), x.sum()], [None])
    with pytest.raises(ValueError, match="tensors and as many gradients"):
        md.autograd.backward([1.0])


def test_gradients_of_a_batch_of_cotangents_are_torchs():
    import torch

    found = []
    for m in (torch, md):
        grad = m.autograd.grad
        x, w, u = (m.tensor(v, requires_grad=True) for v in ([1.0, 2.0, 3.0], [2.0, -1.0, 0.5], [1.0]))
        y, z, eye = x * x * w, (x * w).sum(), m.eye(3)
        (g,) = grad(y, x, eye, is_grads_batched=True, create_graph=True)
        kept = {"is_grads_batched": True, "retain_graph": True, "allow_unused": True}
        results = [*grad(y, (x, w), eye, **kept), *grad((y, z), (x, w), (eye, m.ones(3)), **kept), *grad((y, z), (x, u), (eye, m.ones(3)), **kept)]
        results += [*grad(g.sum(), x, retain_graph=True), *grad(y, x, (eye,), is_grads_batched=True)]
        found.append([None if t is None else t.tolist() for t in results])
        with pytest.raises(RuntimeError):  # the last pass released it
            grad(y, x, eye, is_grads_batched=True)
    assert found[0] == found[1]
    with pytest.raises(RuntimeError, match="not used"):
        md.autograd.grad((x * 2).sum(), u, md.ones(3), is_grads_batched=True)
    with pytest.raises(ValueError, match=r"gradient f32\[2\] for output f32\[3\]"):
        md.autograd.grad(x * 2, x, md.ones(3, 2), is_grads_batched=True)


def test_who_holds_a_gradient_sees_it_grow():
    x = md.tensor([1.0, 2.0], requires_grad=True)
    (x * x).sum().backward()
    held = x.grad
    (x * x).sum().backward()
    assert held is x.grad and held.tolist() == [4.0, 8.0]


def test_autograd_grad_goes_on_through_one_input_to_the_next():
    x = md.tensor(3.0, requires_grad=True)
    y = x * 2.0
    z = y * y
    assert [g.item() for g in md.autograd.grad(z, [x, y], retain_graph=True)] == [24.0, 12.0]
    assert [g.item() for g in md.autograd.grad(z, [y, x])] == [12.0, 24.0]


def test_a_recorded_pass_that_does_not_retain_frees_what_was_kept():
    x = md.tensor(np.ones(4), requires_grad=True)
    y = md.exp(x)
    kept, loss = weakref.ref(y.payload), (y * y).sum()
    del y
    loss.backward(create_graph=True, retain_graph=False)
    x.grad = None
    assert kept() is None and loss.item() > 0


def test_jacobians_of_several_leaves_lie_side_by_side():
    p = {"a": md.tensor([1.0, 2.0]), "b": md.tensor([3.0, 4.0, 5.0])}
    for jacobian in (md.jacfwd, md.jacrev):
        found = jacobian(lambda p: p["a"] * 2.0 + md.sum(p["b"]) * p["a"])(p)
        assert {k: v.tolist() for k, v in found.items()} == {"a": [[14.0, 0.0], [0.0, 14.0]], "b": [[1.0] * 3, [2.0] * 3]}
        both = jacobian(lambda a, b: a * 2.0 + md.sum(b) * a, argnums=(1, 0))(p["a"], p["b"])
        assert [v.tolist() for v in both] == [[[1.0] * 3, [2.0] * 3], [[14.0, 0.0], [0.0, 14.0]]]
