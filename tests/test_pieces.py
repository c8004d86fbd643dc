"""unstack, split and what iterates over a tensor: the parts are one node of the tape, and mean what slices mean."""

from __future__ import annotations

import numpy as np
import pytest

import minidl as md

BACKENDS = ["numpy", "torch", "jax", "numba"]
CUTS = {
    "rows": (lambda x: md.unstack(x), lambda x: [x[i] for i in range(x.shape[0])]),
    "columns": (lambda x: md.unstack(x, axis=1), lambda x: [x[:, i] for i in range(x.shape[1])]),
    "iterated": (lambda x: tuple(x), lambda x: [x[i] for i in range(x.shape[0])]),
    "split": (lambda x: md.split(x, (1, 0, 2), axis=-1), lambda x: [x[:, :1], x[:, 1:1], x[:, 1:]]),
    "chunk": (lambda x: md.chunk(x, 2), lambda x: [x[:2], x[2:]]),
}


def data(backend, dtype=md.float64):
    values = np.random.default_rng(0).normal(size=(4, 3)) + (1j if dtype.is_complex else 0)
    return md.asarray(values, dtype=dtype, backend=backend).requires_grad_()


def number(parts, which):
    return sum(((k + 1.0) * md.abs(p) ** 2).sum() for k, p in enumerate(parts) if which(k)) * 1.0


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("cut", CUTS)
def test_values_and_derivatives_are_those_of_slices(backend, cut):
    for dtype in (md.float64, md.float16, md.bfloat16, md.complex64):
        if dtype is md.bfloat16 and backend == "numba":
            continue
        x, found = data(backend, dtype), []
        for f in CUTS[cut]:
            parts = f(x)
            row = [p.detach().to(md.complex128).numpy() for p in parts]
            for which in (lambda k: True, lambda k: k == 1, lambda k: k != 1):
                g = md.autograd.grad(number(f(x), which), x, create_graph=True, allow_unused=True)[0]
                row.append(0.0 if g is None else g.detach().to(md.complex128).numpy())
                if g is not None and not dtype.is_complex:
                    row.append(md.autograd.grad((g * g * g).sum(), x)[0].to(md.complex128).numpy())
            found.append(row)
        for a, b in zip(*found, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-2 if dtype.bits == 16 else 1e-6)


@pytest.mark.parametrize("backend", ["numpy", "torch"])
@pytest.mark.parametrize("cut", CUTS)
def test_forward_mode_jit_vmap_and_no_grad(backend, cut):
    x = data(backend).detach()
    f, plain = (lambda v, g=g: number(g(v), lambda k: k != 0) for g in CUTS[cut])
    for transform in (
        lambda g: md.jvp(g, (x,), (x,))[1],
        lambda g: md.jvp(md.grad(g), (x,), (x,))[1],
        lambda g: md.jit(md.grad(g))(x),
        lambda g: md.vmap(md.grad(g))(md.stack([x, x * 2.0])),
    ):
        np.testing.assert_allclose(transform(f).numpy(), transform(plain).numpy(), rtol=1e-12)
    with md.no_grad():
        assert not any(p.requires_grad for p in CUTS[cut][0](data(backend)))


@pytest.mark.parametrize("backend", ["numpy", "torch"])
def test_zeros_have_the_sign_that_slices_give_them(backend):
    for uses in ([0], [0, 1], [0, 1, 2]):
        found = []
        for f in CUTS["columns"]:
            x = data(backend)
            parts = f(x)
            md.autograd.backward(sum((parts[k] * -0.0).sum() for k in uses))
            found.append(np.signbit(x.grad.numpy()))
        np.testing.assert_array_equal(*found)


def test_hooks_other_uses_and_a_second_pass():
    x, seen = data("torch"), []
    y = x * 1.0
    a, b, c = md.unstack(y, axis=1)
    b.register_hook(lambda g: seen.append(g.tolist()) or g * 10.0)
    loss = (a * 1.0 + b * 2.0 + c * 3.0).sum() + y.sum()
    loss.backward(retain_graph=True)
    np.testing.assert_allclose(x.grad.numpy(), [[2.0, 21.0, 4.0]] * 4)
    assert seen == [[2.0] * 4]
    loss.backward()
    np.testing.assert_allclose(x.grad.numpy(), [[4.0, 42.0, 8.0]] * 4)
    with pytest.raises(RuntimeError, match="already differentiated"):
        a.sum().backward()


def test_parts_are_recorded_as_one_node_and_none_of_them_is_no_error():
    x = data("torch")
    nodes = [p.node for p in md.unstack(x)]
    assert len({id(n[3]) for n in nodes}) == 1
    assert md.unstack(md.zeros((0, 2), dtype=md.float64, backend="torch").requires_grad_()) == ()
    assert [p.shape for p in md.unstack(md.zeros((2, 0), backend="torch").requires_grad_())] == [(0,), (0,)]


def test_what_is_stored_in_a_part_is_stored_in_the_whole():
    x = data("torch").detach()
    a, _, c = md.unstack(x, axis=1)
    a.add_(1.0)
    c.zero_()
    np.testing.assert_allclose(x.numpy()[:, 0], a.numpy())
    assert (x.numpy()[:, 2] == 0).all()


PASSES = {
    "rows": lambda x: list(x),
    "split": lambda x: x.split(1),
    "chunk": lambda x: x.chunk(2),
    "unstack": lambda x: md.unstack(x, axis=1),
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("cut", PASSES)
def test_each_part_may_have_a_pass_of_its_own(backend, cut):
    x, y = data(backend), data(backend)
    for row in PASSES[cut](x):
        (row * row).sum().backward()
    (y * y).sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), y.grad.numpy(), rtol=1e-12)
    found = [md.autograd.grad((row * row).sum(), x)[0] for row in PASSES[cut](x)]
    np.testing.assert_allclose(sum(found).numpy(), y.grad.numpy(), rtol=1e-12)
    rows = PASSES[cut](x)
    for row in rows:
        (row * row).sum().backward(create_graph=True, retain_graph=False)
    np.testing.assert_allclose(x.grad.detach().numpy(), 2 * y.grad.numpy(), rtol=1e-12)


def test_what_leads_to_parts_is_released_by_a_pass_and_held_by_a_transform():
    w = data("numpy")
    a, b = (w * w).chunk(2)
    a.sum().backward()
    with pytest.raises(RuntimeError, match="already differentiated"):
        b.sum().backward()
    out, pull = md.vjp(lambda v: sum((row * row).sum() for row in v * v), w.detach())
    first, second = pull(md.ones_like(out)), pull(md.ones_like(out))
    np.testing.assert_allclose(md.tree.leaves(first)[0].numpy(), md.tree.leaves(second)[0].numpy())

    def inside(v):  # passes over what the transform differentiates, too
        u = v * v
        for row in u:
            md.autograd.grad((row * row).sum(), v, retain_graph=True)
        return sum((row * row).sum() for row in u)

    np.testing.assert_allclose(md.grad(inside)(w.detach()).numpy(), 4 * w.detach().numpy() ** 3, rtol=1e-12)
