"""Names of linear algebra and Fourier transforms that NumPy, SciPy and PyTorch have beyond the Array API's: values, derivatives, errors."""

from __future__ import annotations

import numpy as np
import pytest

import minidl as md

torch = pytest.importorskip("torch")
G = np.random.default_rng(0)
M, W = G.normal(size=(3, 3)), G.normal(size=(5, 3))


@pytest.mark.parametrize("size", [1e-3, 1.0, 30.0])
def test_exponentials_of_matrices_equal_torchs(size):
    a, w = np.stack([M * size, M.T, M * 0]), G.normal(size=(3, 3, 3))
    t = torch.tensor(a, requires_grad=True)
    want = torch.linalg.matrix_exp(t)
    (want * torch.tensor(w)).sum().backward()
    for f in (md.linalg.matrix_exp, md.jit(md.linalg.expm)):
        np.testing.assert_allclose(f(md.tensor(a)).numpy(), want.detach().numpy(), rtol=1e-9, atol=1e-9 * want.abs().max().item())
    loss = lambda a: (md.linalg.matrix_exp(a) * md.tensor(w)).sum()
    for f in (md.grad(loss), md.jit(md.grad(loss))):
        np.testing.assert_allclose(f(md.tensor(a)).numpy(), t.grad.numpy(), rtol=1e-8, atol=1e-8 * t.grad.abs().max().item())


def test_exponentials_on_every_backend(backend):
    a = M.astype("float32")
    want = torch.linalg.matrix_exp(torch.tensor(a)).numpy()
    np.testing.assert_allclose(md.jit(md.linalg.matrix_exp)(md.tensor(a)).numpy(), want, rtol=1e-4, atol=1e-4)
    assert md.linalg.matrix_exp(md.zeros((0, 2, 2))).shape == (0, 2, 2)


@pytest.mark.parametrize("p", [None, 2, -2, 1, -1, np.inf, -np.inf, "fro", "nuc"])
def test_condition_numbers_are_numpys(p):
    for f in (md.linalg.cond, md.jit(lambda x, p: md.linalg.cond(x, p), static_argnums=1)):
        assert f(md.tensor(M), p).item() == pytest.approx(np.linalg.cond(M, p), rel=1e-10)
    assert md.linalg.cond(md.ones((2, 2)), 1).item() == np.inf


def test_least_squares_are_numpys():
    for y in (G.normal(size=(5, 2)), G.normal(size=5)):
        for f in (md.linalg.lstsq, md.jit(lambda a, b: tuple(md.linalg.lstsq(a, b)))):
            for got, want in zip(f(md.tensor(W), md.tensor(y)), np.linalg.lstsq(W, y), strict=True):
                np.testing.assert_allclose(got.numpy(), want if np.size(want) else np.zeros(got.shape), rtol=1e-10)
    flat = np.stack([W[:, 0], W[:, 0]], axis=1)  # of rank 1
    np.testing.assert_allclose(md.linalg.lstsq(md.tensor(flat), md.tensor(W[:, 1]))[0].numpy(), np.linalg.lstsq(flat, W[:, 1])[0], rtol=1e-10)
    a, b = torch.tensor(W, requires_grad=True), torch.tensor(W[:, 1:])
    torch.linalg.lstsq(a, b)[0].square().sum().backward()
    slope = md.grad(lambda a: md.square(md.linalg.lstsq(a, md.tensor(W[:, 1:]))[0]).sum())(md.tensor(W))
    np.testing.assert_allclose(slope.numpy(), a.grad.numpy(), rtol=1e-8, atol=1e-10)


def test_products_and_inverses_are_numpys():
    for shapes in (((2, 3), (3, 5), (5, 4), (4, 1)), ((3,), (3, 5), (5,)), ((3,), (3, 2)), ((2, 3), (3,))):
        xs = [G.normal(size=s) for s in shapes]
        np.testing.assert_allclose(md.linalg.multi_dot([md.tensor(x) for x in xs]).numpy(), np.linalg.multi_dot(xs), rtol=1e-12)
    np.testing.assert_allclose(md.linalg.vander(md.tensor(W[:, 0]), 4).numpy(), np.vander(W[:, 0], 4, increasing=True), rtol=1e-12)
    t, b = G.normal(size=(2, 3, 6)), G.normal(size=(2, 3))
    np.testing.assert_allclose(md.linalg.tensorinv(md.tensor(t), 2).numpy(), np.linalg.tensorinv(t, 2), rtol=1e-9)
    np.testing.assert_allclose(md.linalg.tensorsolve(md.tensor(t), md.tensor(b)).numpy(), np.linalg.tensorsolve(t, b), rtol=1e-9)


def test_transforms_of_two_axes_and_positions_of_arguments_are_numpys():
    x, z = G.normal(size=(2, 3, 4)), G.normal(size=(2, 3, 3)) + 1j
    for name in ("fft2", "ifft2", "rfft2", "irfft2"):
        a = z if name == "irfft2" else x
        for args in ((), ((2, 3),), (None, (0, 2), "ortho")):
            np.testing.assert_allclose(getattr(md.fft, name)(md.tensor(a), *args).numpy(), getattr(np.fft, name)(a, *args), rtol=1e-10, atol=1e-12)
    for name, args in (("fft", (3, 1)), ("irfft", (5,)), ("fftn", ((2, 2), (0, 1))), ("fftshift", (1,))):
        np.testing.assert_allclose(getattr(md.fft, name)(md.tensor(x), *args).numpy(), getattr(np.fft, name)(x, *args), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(md.fft.fftfreq(5, 0.5).numpy(), np.fft.fftfreq(5, 0.5), rtol=1e-6)


@pytest.mark.parametrize(("call", "message"), [
    (lambda: md.linalg.matrix_exp(md.ones((2, 3))), r"matrix_exp: square matrices \[..., n, n\] are wanted, not shape \(2, 3\)"),
    (lambda: md.linalg.cond(md.ones((2, 3)), 1), "cond: square matrices"),
    (lambda: md.linalg.multi_dot([md.ones((2, 3))]), "multi_dot: two or more matrices"),
    (lambda: md.linalg.multi_dot([md.ones((2, 3)), md.ones((1, 3, 2)), md.ones(2)]), "multi_dot: matrices are wanted, not shapes"),
    (lambda: md.linalg.lstsq(md.ones((2, 3)), md.ones(3)), "lstsq: a matrix"),
    (lambda: md.linalg.tensorinv(md.ones((2, 3, 4)), 1), "tensorinv: the first 1 axes"),
    (lambda: md.linalg.tensorsolve(md.ones((2, 3)), md.ones(2)), "tensorsolve: shapes"),
])  # fmt: skip
def test_what_does_not_fit_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
