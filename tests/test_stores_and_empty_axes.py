"""What is stored in place of a result stays a result; what does not fit is refused by every store alike; empty axes and subnormal numbers are alike
everywhere."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import minidl as md

BACKENDS = ("numpy", "torch", "jax")
STORES = {
    "zero_": lambda y, m: y.zero_(),
    "fill_": lambda y, m: y.fill_(3.0),
    "copy_": lambda y, m: y.copy_(m.ones(3)),
    "normal_": lambda y, m: y.normal_(),
    "uniform_": lambda y, m: y.uniform_(),
    "bernoulli_": lambda y, m: y.bernoulli_(0.5),
    "exponential_": lambda y, m: y.exponential_(),
    "eq_": lambda y, m: y.eq_(1.0),
    "y[:] = 1": lambda y, m: y.__setitem__(slice(None), 1.0),
    "y[...] = ones": lambda y, m: y.__setitem__(Ellipsis, m.ones(3)),
    "y[:].fill_": lambda y, m: y[:].fill_(2.0),
    "y[0:2].zero_": lambda y, m: y[0:2].zero_(),
    "detach_": lambda y, m: y.detach_(),
}


@pytest.mark.parametrize("name", STORES)
def test_what_replaces_a_result_leaves_it_on_the_tape_as_in_torch(name):
    found = []
    for m in (torch, md):
        x = m.tensor([1.0, 2.0, 3.0], requires_grad=True)
        y = x * 2
        STORES[name](y, m)
        assert y.is_leaf is (name == "detach_")
        found.append(None)
        if y.requires_grad:
            (y * 3).sum().backward()
            found[-1] = x.grad.tolist()
    assert found[0] == found[1]


def test_a_store_inside_a_program_and_after_a_pass():
    y = md.tensor([1.0, 2.0], requires_grad=True) * 2
    reset = md.jit(lambda y, x: (y.zero_(), (y * x).sum())[1])
    x = md.tensor([3.0, 4.0], requires_grad=True)
    reset(y, x).backward()
    assert y.tolist() == x.grad.tolist() == [0.0, 0.0]
    h = x * 2
    h.sum().backward()
    h.zero_()  # what it was is released, and nobody asks for it
    (h + x).sum().backward()
    with md.no_grad():
        z = x * 2
        z.fill_(1.0)
    assert not z.requires_grad
    with pytest.raises(RuntimeError, match="leaf"):
        x.zero_()
    inside = md.vmap(md.grad(lambda x: (lambda y: (y.fill_(3.0), (y * x).sum())[1])(x * 2)))(md.ones((2, 2)))
    assert inside.tolist() == [[3.0, 3.0]] * 2


def test_no_store_drops_an_imaginary_part():
    z, i, mask = md.tensor([1 + 2j, 3 + 4j]), md.tensor([0, 1]), md.tensor([True, False])
    stores = [
        lambda x: x.copy_(z), lambda x: x[0:1].copy_(z[:1]), lambda x: x.fill_(1j), lambda x: x.fill_(z[0]), lambda x: x.__setitem__(0, 1j),
        lambda x: x.__setitem__(slice(None), z), lambda x: x.at[i].set(z), lambda x: x.at[i].add(z), lambda x: x.index_copy_(0, i, z),
        lambda x: x.index_copy(0, i, z), lambda x: x.index_fill(0, i, 1j), lambda x: x.masked_fill(mask, 1j), lambda x: x.masked_fill_(mask, z[0]),
        lambda x: x.add_(z), lambda x: x.index_put((i,), z), lambda x: x.fill_diagonal_(1j) if x.ndim == 2 else x.mul_(1j),
    ]  # fmt: skip
    for k, store in enumerate(stores):
        x = md.zeros(2)
        with pytest.raises(TypeError, match="does not fit|cannot be stored|would be cut"):
            store(x)
        assert x.tolist() == [0.0, 0.0], k
    assert md.zeros(2, dtype=md.complex64).copy_(md.ones(2)).tolist() == [1 + 0j] * 2
    assert md.zeros(2, dtype=md.complex64).masked_fill(mask, 2j).tolist() == [2j, 0j]


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_empty_axis_has_nothing_to_read(backend):
    with md.use_backend(backend):
        x, i = md.zeros((0, 3)), md.asarray([0])
        rows = md.zeros((2, 3), dtype=md.int64)
        for f, j, name in (
            (lambda x, i: md.take_along_axis(x, i, axis=0), rows, "take_along_axis"),
            (lambda x, i: md.take(x, i, axis=0), i, "gather"),
            (lambda x, i: x[i], i, "gather"),
        ):
            with pytest.raises(IndexError, match="out of bounds for axis 0 with size 0"):
                f(x, j)
            with pytest.raises(IndexError, match=rf"{name}: axis 0 of f32\[0,3\] is empty"):
                md.jit(f)(x, j)
            assert f(x, j[:0]).shape == md.jit(f)(x, j[:0]).shape == (0, 3)


def test_a_convolution_of_an_empty_axis_sees_its_padding():
    F = md.nn.functional
    f = lambda x, w, b: F.conv1d(x, w, b, padding=2)
    found = []
    for backend in BACKENDS:
        with md.use_backend(backend):
            x, w, b = md.ones((3, 2, 0)), md.ones((4, 2, 3)), md.ones(4)
            plain, moved = f(x, w, b), F.conv_transpose1d(x, md.ones((2, 4, 3)))
            grads = md.grad(lambda *a: f(*a).sum(), argnums=(0, 1, 2))
            found.append([t.tolist() for t in (plain, moved, *grads(x, w, b), md.jit(f)(x, w, b))])
            assert plain.shape == moved.shape == (3, 4, 2)
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_angles_of_subnormal_numbers_are_alike(dtype):
    values = [0.0, -0.0, 1.0, -2.0, float("inf"), -float("inf"), float("nan")]
    values += [1e-40, -1e-40, 3e-45] if dtype == "float32" else [1e-310, -1e-310, 5e-324]
    y, x = np.array([(a, b) for a in values for b in values if not 0 < abs(a) < 1e-30 <= abs(b)], dtype).T
    with md.use_backend("jax"):
        got = md.atan2(md.asarray(y), md.asarray(x)).numpy()
    want = np.arctan2(y, x)
    assert np.allclose(got, want, rtol=1e-6, atol=0, equal_nan=True)
    assert (np.signbit(got) == np.signbit(want))[~np.isnan(want)].all()
