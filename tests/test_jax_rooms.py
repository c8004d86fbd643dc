"""Rooms of JAX that describe what they read by dimension numbers, weights and windows: gather and scatter, convolutions in any layout, jax.image,
jax.scipy.signal, fft and optimize. Values are those that JAX and SciPy give."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import scipy.fft
import scipy.optimize
import scipy.signal

import minidl as md
from minidl.idioms import jax
from minidl.idioms.jax import image, lax
from minidl.idioms.jax import numpy as jnp
from minidl.idioms.jax.scipy import fft, optimize, signal

theirs = pytest.importorskip("jax")
rng = np.random.default_rng(0)


@pytest.fixture(params=["numpy", "torch"])
def backend(request):
    with md.use_backend(request.param):
        yield request.param


def close(ours, known, tolerance=1e-9):
    ours, known = ours.numpy(), np.asarray(known)
    assert ours.shape == known.shape and ours.dtype == known.dtype
    np.testing.assert_allclose(ours, known, rtol=tolerance, atol=tolerance)


X = rng.normal(size=(4, 5, 3))
#: operand, indices, dimension numbers of gather, slice sizes
GATHERS = {
    "rows": (X, [[2], [0]], ((1, 2), (0,), (0,)), (1, 5, 3)),
    "windows": (X, [[0, 1], [2, 3], [3, 0]], ((1, 2), (2,), (0, 1)), (2, 2, 1)),
    "window first": (X, [[[1], [4]], [[0], [2]]], ((0, 3), (1,), (1,)), (2, 1, 3)),
    "outside": (X, [[-1, 0], [3, 4], [9, 1]], ((1,), (0, 1), (0, 1)), (1, 1, 3)),
    "batching": (X, rng.integers(0, 5, (4, 2, 1)), ((2,), (1,), (1,), (0,), (0,)), (1, 1, 3)),
    "one element": (X, [1, 2, 0], ((), (0, 1, 2), (0, 1, 2)), (1, 1, 1)),
}


@pytest.mark.parametrize("mode", [None, "clip", "fill"])
@pytest.mark.parametrize("case", GATHERS)
def test_windows_are_read_and_written_where_jax_does(backend, case, mode):
    x, at, numbers, sizes = GATHERS[case]
    at = np.array(at)
    with theirs.enable_x64(True):
        known = theirs.lax.gather(x, at, theirs.lax.GatherDimensionNumbers(*numbers), sizes, mode=mode)
        close(lax.gather(md.asarray(x), md.asarray(at), lax.GatherDimensionNumbers(*numbers), sizes, mode=mode), known)
        u = rng.normal(size=known.shape)
        for name in ("scatter", "scatter_add", "scatter_min") if mode is None else ("scatter_add",):
            known = getattr(theirs.lax, name)(x, at, u, theirs.lax.ScatterDimensionNumbers(*numbers), mode=mode)
            close(getattr(lax, name)(md.asarray(x), md.asarray(at), md.asarray(u), lax.ScatterDimensionNumbers(*numbers), mode=mode), known)


def test_what_is_gathered_differentiates_and_traces():
    numbers = lax.GatherDimensionNumbers((1,), (0,), (0,))
    f = jax.jit(jax.vmap(jax.grad(lambda x, i: lax.gather(x, i, numbers, (1, 2), mode="clip")[0, 1]), in_axes=(None, 0)))
    assert f(md.ones((3, 2)), md.tensor([[[2]], [[0]]])).tolist() == [[[0, 0], [0, 0], [0, 1]], [[0, 1], [0, 0], [0, 0]]]


def test_convolutions_take_the_axes_that_layouts_name(backend):
    x, w = rng.normal(size=(4, 6, 7, 4)), rng.normal(size=(3, 2, 4, 8))
    layouts = ("NHWC", "HWIO", "NHWC")
    ours = lax.conv_dimension_numbers(x.shape, w.shape, layouts)
    known = theirs.lax.conv_dimension_numbers(x.shape, w.shape, layouts)
    assert tuple(ours) == (known.lhs_spec, known.rhs_spec, known.out_spec)
    with theirs.enable_x64(True):
        wanted = theirs.lax.conv_general_dilated(x, w, (2, 1), "SAME", dimension_numbers=known)
        close(lax.conv_general_dilated(x, w, (2, 1), "SAME", dimension_numbers=ours), wanted)
        groups = functools.partial(dict, window_strides=(1, 1), padding="VALID", batch_group_count=2, dimension_numbers=layouts)
        close(lax.conv_general_dilated(x, w, **groups()), theirs.lax.conv_general_dilated(x, w, **groups()))
        for numbers in (layouts, ("NHWC", "OIHW", "NCHW"), None):
            args = (x, (2, 3), (1, 2), "SAME", None, (2, 1), numbers)
            close(lax.conv_general_dilated_patches(*args), theirs.lax.conv_general_dilated_patches(*args))


def test_bits_are_counted_and_moved(backend):
    for dtype in (np.int8, np.uint8, np.int32, np.int64):
        x = np.array([0, 1, 5, 100, np.iinfo(dtype).max, np.iinfo(dtype).min]).astype(dtype)
        with theirs.enable_x64(True):
            close(lax.clz(md.asarray(x)), theirs.lax.clz(x))
            for n in (0, 1, 7):
                close(lax.shift_right_logical(md.asarray(x), n), theirs.lax.shift_right_logical(x, np.asarray(n, dtype)))


@pytest.mark.parametrize("method", ["nearest", "linear", "bicubic", "lanczos3"])
def test_images_are_resampled_as_jax_does(backend, method):
    x = rng.normal(size=(5, 6, 2))
    with theirs.enable_x64(True):
        for shape in ((8, 3, 2), (5, 11, 2)):
            for antialias in (True, False):
                close(image.resize(md.asarray(x), shape, method, antialias), theirs.image.resize(x, shape, method, antialias), 1e-6)
        if method != "nearest":
            how = ((7, 4, 2), (0, 1), np.array([1.3, 0.6]), np.array([-0.5, 0.2]), method)
            close(image.scale_and_translate(md.asarray(x), *how), theirs.image.scale_and_translate(x, *how), 1e-6)


def test_half_precision_counts_the_elements_of_large_images(backend):
    x = rng.normal(size=(700,)).astype(np.float16)
    close(image.resize(md.asarray(x), (1000,), "linear"), theirs.image.resize(x, (1000,), "linear"), 4e-3)
    how = ((7,), (0,), np.array([1.3]), np.array([0.2]), "linear")
    assert image.scale_and_translate(md.ones(5), *how[:2], md.asarray(how[2]), md.asarray(how[3]), "linear").dtype is md.float32
    for method in ("nearest", "linear"):
        close(image.resize(md.ones((2, 3), dtype=md.int32), (0, 3), method), theirs.image.resize(np.ones((2, 3), np.int32), (0, 3), method))


def test_an_image_differentiates_in_where_it_is_moved():
    x, s = md.asarray(rng.normal(size=(5,))), md.tensor([1.3], dtype=md.float64)
    f = lambda s: (image.scale_and_translate(x, (7,), (0,), s, s * 0.3, "cubic") ** 2).sum()
    slope = (f(s + 1e-6) - f(s - 1e-6)).item() / 2e-6
    assert jax.grad(f)(s).item() == pytest.approx(slope, rel=1e-5) == pytest.approx(jax.jit(jax.grad(f))(s).item(), rel=1e-5)


SIZES = [((7,), (3,)), ((3,), (7,)), ((5, 4), (2, 3)), ((2, 3), (5, 4)), ((4, 4, 3), (2, 2, 3))]


@pytest.mark.parametrize("name", ["convolve", "correlate", "fftconvolve"])
def test_signals_are_convolved_as_scipy_does(backend, name):
    for n, k in SIZES:
        a, b = rng.normal(size=n), rng.normal(size=k)
        for mode in ("full", "same", "valid"):
            close(getattr(signal, name)(a, b, mode=mode), getattr(scipy.signal, name)(a, b, mode=mode))
    with pytest.raises(ValueError, match="wants one array to be at least as long"):
        getattr(signal, name)(md.ones((2, 5)), md.ones((3, 2)), mode="valid")


def test_planes_trends_and_spectra_are_scipys(backend):
    a, b = rng.normal(size=(6, 30)), rng.normal(size=(3, 3))
    close(signal.convolve2d(a, b, mode="same"), scipy.signal.convolve2d(a, b, mode="same"))
    close(signal.correlate2d(a, b), scipy.signal.correlate2d(a, b))
    close(signal.fftconvolve(a, a[:, :5], mode="same", axes=1), scipy.signal.fftconvolve(a, a[:, :5], mode="same", axes=1))
    close(signal.detrend(a, bp=[10, 20]), scipy.signal.detrend(a, bp=[10, 20]))
    close(signal.detrend(a, 0, "constant"), scipy.signal.detrend(a, 0, "constant"))
    for how in (
        {"nperseg": 8},
        {"nperseg": 10, "noverlap": 7, "nfft": 12, "boundary": None},
        {"nperseg": 8, "window": "hamming", "boundary": "even"},
    ):
        for ours, known in zip(signal.stft(a, **how), scipy.signal.stft(a, **how), strict=True):
            close(ours, known)
    for how in (
        {"nperseg": 8},
        {"nperseg": 9, "average": "median", "fs": 2.0},
        {"nperseg": 12, "scaling": "spectrum", "return_onesided": False, "detrend": False},
    ):
        for ours, known in zip(signal.csd(a, a[::-1].copy(), **how), scipy.signal.csd(a, a[::-1], **how), strict=True):
            close(ours, known)
        close(signal.welch(a, **how)[1], scipy.signal.welch(a, **how)[1])
    close(signal.welch(a, nperseg=1, detrend=False)[1], scipy.signal.welch(a, nperseg=1, detrend=False)[1])  # a window of one sample is 1


def test_planes_are_centered_and_segments_as_long_as_jaxs(backend):
    for n, k in (((4, 6), (3, 2)), ((3, 2), (4, 6)), ((4, 6), (2, 2)), ((4, 4), (4, 4))):
        a, b = rng.normal(size=n), rng.normal(size=k)
        for mode in ("full", "same", "valid"):
            close(signal.correlate2d(a, b, mode), scipy.signal.correlate2d(a, b, mode))
            if mode != "valid" or n >= k:  # of a smaller first plane SciPy has the conjugate then
                close(signal.correlate2d(a * 1j, b + 1j, mode), scipy.signal.correlate2d(a * 1j, b + 1j, mode))
    x = rng.normal(size=(2, 300)).astype(np.float32)
    for ours, known in zip(signal.csd(x, x[:, :99], nperseg=32), theirs.scipy.signal.csd(x, x[:, :99], nperseg=32), strict=True):
        close(ours, known, 1e-3)
    for f in (signal.stft, signal.welch):
        for window in (md.ones(16), ("tukey", 0.5)):
            with pytest.raises(ValueError, match="window is an array of nperseg = 20"):
                f(x, window=window, nperseg=20)
        assert f(x, window=np.ones(20), nperseg=20)[0].shape == (11,)
    with pytest.raises(ValueError, match="padding is 'SAME'"):
        lax.conv_transpose(md.ones((1, 2, 1)), md.ones((2, 1, 1)), (2,), "SAME_LOWER")
    for ours, known in zip(signal.welch(x), theirs.scipy.signal.welch(x), strict=True):
        close(ours, known, 1e-3)


def test_results_lie_on_the_backend_of_the_arrays():
    x = md.asarray(rng.normal(size=(3, 6)), backend="torch")
    for out in (
        jnp.frexp(x), jnp.spacing(x), jnp.pad(x, 1, mode="reflect"), jnp.pad(x, 1, mode="mean"), jnp.pad(x, 1, mode="linear_ramp"),
        image.resize(x, (4, 3), "cubic"), image.resize(x, (4, 3), "nearest"), signal.stft(x, nperseg=4), signal.csd(x, x), fft.idct(x),
    ):  # fmt: skip
        assert {v.backend for v in md.tree.leaves(out)} == {"torch"}


def test_transforms_want_the_lengths_that_are_there(backend):
    x = md.ones((2, 4), dtype=md.complex64)
    assert lax.fft(x, "IRFFT", (6,)).shape == theirs.lax.fft(np.ones((2, 4), np.complex64), "IRFFT", (6,)).shape == (2, 6)
    for kind, lengths in (("FFT", (5,)), ("IRFFT", (4,)), ("IFFT", (1, 4))):
        with pytest.raises(ValueError, match="lengths"):
            lax.fft(x, kind, lengths)


def test_cosine_transforms_are_scipys(backend):
    for n in (1, 2, 5, 8):
        a = rng.normal(size=(3, n))
        for norm in (None, "ortho"):
            for name in ("dct", "idct"):
                close(getattr(fft, name)(a, norm=norm), getattr(scipy.fft, name)(a, norm=norm))
                close(getattr(fft, name)(a, n=4, axis=0, norm=norm), getattr(scipy.fft, name)(a, n=4, axis=0, norm=norm))
                close(getattr(fft, name + "n")(a, norm=norm), getattr(scipy.fft, name + "n")(a, norm=norm))
    with pytest.raises(NotImplementedError, match="type 2 with norm"):
        fft.dct(md.ones(3), type=3)


def test_what_is_least_is_found(backend):
    rosenbrock = lambda x: jnp.sum(100.0 * (x[1:] - x[:-1] ** 2) ** 2 + (1.0 - x[:-1]) ** 2)
    search = lambda x: optimize.minimize(rosenbrock, x, method="BFGS", tol=1e-8)
    starts = np.array([[0.0, 0.0, 0.0], [2.0, -1.0, 0.5]])
    for found in (search(md.asarray(starts[1])), jax.jit(search)(md.asarray(starts[1]))):
        assert found.success.item() and found.status.item() == 0 and found.nit.item() < 100
        known = scipy.optimize.minimize(lambda v: scipy.optimize.rosen(v), starts[1], jac=scipy.optimize.rosen_der, method="BFGS", tol=1e-8)
        np.testing.assert_allclose(found.x.numpy(), known.x, atol=1e-6)
        np.testing.assert_allclose(np.linalg.inv(found.hess_inv.numpy()), scipy.optimize.rosen_hess(np.ones(3)), rtol=0.5, atol=5.0)
    np.testing.assert_allclose(jax.vmap(search)(md.asarray(starts)).x.numpy(), 1.0, atol=1e-6)
    assert optimize.minimize(rosenbrock, md.zeros(3), method="BFGS", options={"maxiter": 2}).status.item() == 1
    with pytest.raises(ValueError, match="method is 'BFGS'"):
        optimize.minimize(rosenbrock, md.zeros(3), method="Nelder-Mead")


def test_integrals_by_trapezoids_and_transposes_of_numbers():
    x = np.array([[1.0, 2.0, 4.0], [0.0, 3.0, 5.0]], np.float32)
    close(jax.scipy.integrate.trapezoid(md.asarray(x), dx=0.5, axis=1), theirs.scipy.integrate.trapezoid(x, dx=0.5, axis=1))
    assert jax.linear_transpose(lambda v: 3 * v, 1.0)(2.0)[0].item() == theirs.linear_transpose(lambda v: 3 * v, 1.0)(2.0)[0] == 6.0
