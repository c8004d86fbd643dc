"""Corners of functions where minidl once differed from NumPy or torch: signs of zeros, ties, empty arrays, derivatives at them."""

from __future__ import annotations

import numpy as np
import pytest

import minidl as md

torch = pytest.importorskip("torch")
ENDS = np.array([0.0, -0.0, 1.0, -2.0, np.inf, -np.inf, np.nan])


def parts(z):
    """Real and imaginary parts with the signs of zeros, and without those of nan."""
    return [(np.signbit(p) & ~np.isnan(p), p) for p in (z.real, z.imag)]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_parts_of_complex_numbers_stay_as_they_are(backend, dtype):
    re, im = (np.tile(v.ravel(), 3).astype(dtype) for v in np.meshgrid(ENDS, ENDS))  # more than one vector register holds
    want = np.empty(re.shape, "complex64" if dtype == "float32" else "complex128")
    want.real, want.imag = re, im
    for f in (md.complex, md.jit(md.complex)):
        got = f(md.tensor(re), md.tensor(im)).numpy()
        assert got.dtype == want.dtype
        for a, b in zip(parts(got), parts(want), strict=True):
            np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(parts((-md.tensor(want)).numpy()), parts(-want))
    assert md.view_as_complex(md.tensor([[1.0, np.inf]])).item() == complex(1, np.inf)


def test_complex_numbers_differentiate_by_their_parts():
    x, y = md.tensor([1.0, 2.0]), md.tensor([np.inf, 3.0])
    loss = lambda x, y: (lambda z: (md.real(z) * 2 + md.imag(z) * 3).sum())(md.complex(x, y))
    for f in (md.grad(loss, argnums=(0, 1)), md.jit(md.grad(loss, argnums=(0, 1)))):
        assert [g.tolist() for g in f(x, y)] == [[2, 2], [3, 3]]
    _, moved = md.jvp(md.complex, (x, y), (md.ones(2), md.full(2, 5.0)))
    assert moved.tolist() == [1 + 5j] * 2
    with pytest.raises(TypeError, match="complex: the parts are real numbers"):
        md.complex(md.tensor([1j]), x)


def test_logaddexp_curves_where_its_arguments_are_equal(backend):
    curve = md.jit(md.grad(md.grad(md.logaddexp)))
    assert curve(md.tensor(2.0), md.tensor(2.0)).item() == pytest.approx(0.25)
    slope = md.jit(md.grad(md.logaddexp))
    assert [slope(md.tensor(v), md.tensor(v)).item() for v in (np.inf, -np.inf, 1.0)] == [0.5, 0.0, 0.5]


def test_quotients_and_remainders_by_zero_have_torchs_slopes():
    for name, more in (("div", {"rounding_mode": "trunc"}), ("div", {"rounding_mode": "floor"}), ("fmod", {})):
        x, y = np.array([7.0, -7.0, 5.5, -0.0]), np.array([0.0, 2.0, -2.0, 3.0])
        found = []
        for lib in (md, torch):
            a, b = (lib.tensor(v, requires_grad=True) for v in (x, y))
            out = getattr(lib, name)(a, b, **more)
            if out.requires_grad:
                out.sum().backward()
            found.append([out.detach().numpy(), *(np.zeros(4) if v.grad is None else v.grad.numpy() for v in (a, b))])
        for mine, other in zip(*found, strict=True):
            np.testing.assert_array_equal(mine, other)
        assert np.signbit(found[0][0][3]) == np.signbit(found[1][0][3])


@pytest.mark.parametrize("method", ["linear", "lower", "higher", "nearest", "midpoint"])
def test_methods_of_quantiles_are_numpys(method):
    x, levels = np.random.default_rng(0).normal(size=(3, 6)), [0.0, 0.1, 0.3, 0.5, 0.7, 1.0]
    want = np.quantile(x, levels, axis=1, method=method)
    np.testing.assert_allclose(md.quantile(md.tensor(x), levels, 1, method=method).numpy(), want, rtol=1e-14)
    traced = md.jit(lambda x, q: md.quantile(x, q, 1, method=method))(md.tensor(x), md.tensor(levels, dtype="float64"))
    np.testing.assert_allclose(traced.numpy(), want, rtol=1e-14)
    np.testing.assert_allclose(md.percentile(md.tensor(x), 30, 0, method=method).numpy(), np.percentile(x, 30, 0, method=method), rtol=1e-14)
    assert md.quantile(md.tensor(x), 0.3, interpolation=method).item() == torch.quantile(torch.tensor(x), 0.3, interpolation=method).item()
    with pytest.raises(ValueError, match="quantile: method is one of linear"):
        md.quantile(md.tensor(x), 0.5, method="weibull")


def test_diagonals_are_of_the_axes_that_numpy_takes():
    x = np.arange(24.0).reshape(2, 3, 4)
    for more in ({}, {"offset": 1}, {"offset": -1}):
        np.testing.assert_array_equal(md.diagonal(md.tensor(x), **more).numpy(), np.diagonal(x, **more))
        np.testing.assert_array_equal(md.linalg.diagonal(md.tensor(x), **more).numpy(), np.linalg.diagonal(x, **more))
        np.testing.assert_array_equal(md.linalg.trace(md.tensor(x), **more).numpy(), np.linalg.trace(x, **more))


def test_histograms_of_nothing_and_of_traced_elements():
    x = np.array([0.3, -1.0, 2.0, 0.3])
    for a in (x, x[:0], np.array([2.0, 2.0])):
        want = torch.histc(torch.tensor(a), bins=4).numpy()
        np.testing.assert_array_equal(md.histc(md.tensor(a), bins=4).numpy(), want)
        np.testing.assert_array_equal(md.jit(lambda x: md.histc(x, bins=4))(md.tensor(a)).numpy(), want)


def test_a_remainder_by_zero_curves_nowhere():
    curve = md.grad(lambda x, y: md.grad(md.remainder, argnums=1)(x, y) + md.grad(md.remainder)(x, y), argnums=(0, 1))
    assert [v.item() for v in curve(md.tensor(7.0), md.tensor(0.0))] == [0.0, 0.0]


def test_integrals_of_nothing_are_zero():
    assert md.trapezoid(md.zeros((0, 3)), dim=0).tolist() == [0.0, 0.0, 0.0]


def test_no_more_is_taken_than_there_is():
    assert md.narrow(md.arange(5), 0, -2, 2).tolist() == [3, 4]
    with pytest.raises(IndexError, match="narrow: 3 elements from 3 on of an axis of 5"):
        md.narrow(md.arange(5), 0, 3, 3)


def test_fmod_by_a_number_stays_on_the_tensor_s_backend(backend):
    with md.use_backend("torch" if backend == "numpy" else "numpy"):
        x = md.tensor([5.0, -5.0], backend=backend)
        for f in (lambda v: md.fmod(v, 3.0), md.jit(lambda v: md.fmod(v, 3.0)), md.vmap(lambda v: md.fmod(v, 3.0))):
            assert f(x).backend == backend and f(x).tolist() == [2.0, -2.0]
