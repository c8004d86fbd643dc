"""jax.scipy.signal: convolutions, correlations, trends taken away, and spectra of windows."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import minidl as md
from minidl.idioms import of_lax
from minidl.idioms.jax import numpy as jnp
from minidl.idioms.jax.arrays import beside, inexact
from minidl.idioms.signals import samples

_MODES = ("full", "same", "valid")


def _pair(name: str, a: Any, b: Any, mode: str) -> tuple[md.Tensor, md.Tensor]:
    x, y = inexact(a), inexact(b)
    if mode not in _MODES or x.ndim != y.ndim:
        raise ValueError(f"{name}: mode is one of {', '.join(_MODES)} and both arrays have as many axes, not {mode!r} of {x.shape} and {y.shape}")
    dtype = md.result_type(x, y)
    return x.to(dtype), y.to(dtype)


def _cropped(full: md.Tensor, mode: str, n: tuple[int, ...], k: tuple[int, ...]) -> md.Tensor:
    """The part of a full convolution of n and k elements along each axis that a mode is."""
    sizes = n if mode == "same" else [max(a, b) - min(a, b) + 1 for a, b in zip(n, k, strict=True)]
    if mode == "full":
        return full
    starts = [(m - s) // 2 for m, s in zip(full.shape, sizes, strict=True)]
    return full[tuple(slice(at, at + s) for at, s in zip(starts, sizes, strict=True))]


def _swapped(x: md.Tensor, y: md.Tensor, mode: str) -> bool:
    """Whether mode "valid" slides x along y. Raises ValueError where neither holds the other."""
    if mode != "valid":
        return False
    if not (all(a >= b for a, b in zip(x.shape, y.shape, strict=True)) or all(a <= b for a, b in zip(x.shape, y.shape, strict=True))):
        raise ValueError(f"convolve: mode 'valid' wants one array to be at least as long as the other along each axis, not {x.shape} and {y.shape}")
    return any(a < b for a, b in zip(x.shape, y.shape, strict=True))


def fftconvolve(in1: Any, in2: Any, mode: str = "full", axes: Any = None) -> md.Tensor:
    """The convolution by Fourier transforms, along all axes or some.

    >>> [round(v, 3) for v in fftconvolve(md.tensor([1.0, 2.0]), md.tensor([1.0, 1.0])).tolist()]
    [1.0, 3.0, 2.0]
    """
    x, y = _pair("fftconvolve", in1, in2, mode)
    along = tuple(range(x.ndim) if axes is None else [axes % x.ndim] if isinstance(axes, int) else [a % x.ndim for a in axes])
    _swapped(x, y, mode)
    if not along:
        return x * y
    sizes = tuple(x.shape[a] + y.shape[a] - 1 for a in along)
    if x.dtype.is_complex:
        full = md.fft.ifftn(md.fft.fftn(x, s=sizes, axes=along) * md.fft.fftn(y, s=sizes, axes=along), axes=along)
    else:
        full = md.fft.irfftn(md.fft.rfftn(x, s=sizes, axes=along) * md.fft.rfftn(y, s=sizes, axes=along), s=sizes, axes=along)
    other = tuple(1 if i not in along else m for i, m in enumerate(y.shape))
    return _cropped(full, mode, tuple(n if i in along else full.shape[i] for i, n in enumerate(x.shape)), other)


def convolve(in1: Any, in2: Any, mode: str = "full", method: str = "auto", precision: Any = None) -> md.Tensor:
    """The convolution of arrays of one to three axes, or of more by fftconvolve, which method="fft" is.

    >>> convolve(md.tensor([1.0, 2.0, 3.0]), md.tensor([1.0, 1.0]), mode="valid").tolist()
    [3.0, 5.0]
    """
    x, y = _pair("convolve", in1, in2, mode)
    if method == "fft" or x.ndim > 3 or x.dtype.is_complex:
        return fftconvolve(x, y, mode)
    if method not in ("auto", "direct"):
        raise ValueError(f"convolve: method is 'auto', 'direct' or 'fft', not {method!r}")
    if not x.ndim:
        return x * y
    n, k = x.shape, y.shape
    if _swapped(x, y, mode) or x.size < y.size:
        x, y = y, x  # the shorter one is the window
    pads = [(m - 1, m - 1) for m in y.shape]
    window = md.flip(y, axis=tuple(range(y.ndim)))
    full = of_lax.conv_general_dilated(x[None, None], window[None, None], (1,) * x.ndim, pads)[0, 0]
    return _cropped(full, mode, n, k)


def correlate(in1: Any, in2: Any, mode: str = "full", method: str = "auto", precision: Any = None) -> md.Tensor:
    """convolve with the second array backwards and conjugated.

    >>> correlate(md.tensor([1.0, 2.0, 3.0]), md.tensor([1.0, 0.0])).tolist()
    [0.0, 1.0, 2.0, 3.0]
    """
    x, y = _pair("correlate", in1, in2, mode)
    back = lambda v: md.flip(md.conj(v) if v.dtype.is_complex else v, axis=tuple(range(v.ndim))) if v.ndim else v
    return back(convolve(y, back(x), mode, method)) if _swapped(x, y, mode) else convolve(x, back(y), mode, method)


def _plane(name: str, f: Callable[..., md.Tensor]) -> Callable[..., md.Tensor]:
    def function(in1: Any, in2: Any, mode: str = "full", boundary: str = "fill", fillvalue: float = 0, precision: Any = None) -> md.Tensor:
        if boundary != "fill" or fillvalue != 0:
            raise NotImplementedError(f"{name}: boundary is 'fill' with fillvalue 0; jnp.pad first, with mode='valid'")
        if md.asarray(in1).ndim != 2 or md.asarray(in2).ndim != 2:
            raise ValueError(f"{name}: both arrays have two axes, not {md.asarray(in1).shape} and {md.asarray(in2).shape}")
        return f(in1, in2, mode)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"{name[:-2]} of matrices, which zeros surround."
    return function


def _turned(a: Any, b: Any, mode: str) -> md.Tensor:
    """correlate, of which "same" is counted from the other end than correlate's, as SciPy does for planes."""
    if mode != "same":
        return correlate(a, b, mode)
    x, y = _pair("correlate2d", a, b, mode)
    return md.flip(convolve(md.flip(x), md.conj(y) if y.dtype.is_complex else y, mode))


convolve2d, correlate2d = _plane("convolve2d", convolve), _plane("correlate2d", _turned)


def detrend(data: Any, axis: int = -1, type: str = "linear", bp: Any = 0, overwrite_data: Any = None) -> md.Tensor:
    """Without its mean ("constant") or without the line that fits it best ("linear"), piecewise between the places bp.

    >>> abs(detrend(md.tensor([1.0, 2.0, 3.0])).max().item()) < 1e-6
    True
    """
    x = inexact(data)
    if type not in ("constant", "linear"):
        raise ValueError(f"detrend: type is 'constant' or 'linear', not {type!r}")
    if type == "constant":
        return x - md.mean(x, axis=axis, keepdims=True)
    x = md.moveaxis(x, axis, 0)
    ends = sorted({0, *([bp] if isinstance(bp, int) else bp), x.shape[0]})
    pieces = []
    for a, b in itertools.pairwise(ends):
        part, at = md.reshape(x[a:b], (b - a, -1)), md.arange(b - a, dtype=x.dtype, **beside(x))
        at = md.reshape(at - (b - a - 1) / 2, (-1, 1))
        slope = md.sum(at * part, axis=0, keepdims=True) / md.maximum(md.sum(at * at), md.finfo(x.dtype).smallest_normal)
        pieces.append(md.reshape(part - md.mean(part, axis=0, keepdims=True) - slope * at, (b - a, *x.shape[1:])))
    return md.moveaxis(md.concat(pieces), 0, axis)


# ---- spectra ----------------------------------------------------------------------------------------------------------------------------
def _windowed(name: str, window: Any, nperseg: int, like: md.Tensor) -> md.Tensor:
    """The samples of a window, "hann" among their names, or those that were handed over."""
    if isinstance(window, str):
        weights = {"hann": (0.5, -0.5), "hamming": (0.54, -0.46), "blackman": (0.42, -0.5, 0.08), "boxcar": (1.0,)}
        if window not in weights:
            raise ValueError(f"{name}: window is an array or one of {', '.join(weights)}, not {window!r}")
        window = samples(weights[window], nperseg)
    return md.asarray(window, dtype=like.dtype, **beside(like))


def _length(name: str, window: Any, nperseg: int | None, n: int, default: int) -> int:
    """How many elements a segment of n has: as many as a window that is an array. Raises ValueError where nperseg says another number."""
    if isinstance(window, str):
        return min(default if nperseg is None else nperseg, n)
    if isinstance(window, tuple) or nperseg not in (None, len(window)):
        raise ValueError(f"{name}: window is an array of nperseg = {nperseg} elements or a name, not {window!r}")
    return len(window)


def _segments(x: md.Tensor, nperseg: int, step: int) -> md.Tensor:
    """[..., segments, nperseg] of [..., n]."""
    starts = range(0, x.shape[-1] - nperseg + 1, step)
    return x[..., md.asarray([[s + i for i in range(nperseg)] for s in starts], **beside(x))]


def _spectra(name: str, xs: list[md.Tensor], window: Any, nperseg: int, noverlap: int | None, nfft: int | None, trend: Any, two: bool) -> Any:
    """The spectra of windowed segments of each array, the window, how far segments are apart, and the length of the transforms."""
    over = nperseg // 2 if noverlap is None else noverlap
    length = nperseg if nfft is None else nfft
    if over >= nperseg or length < nperseg:
        raise ValueError(f"{name}: noverlap < nperseg <= nfft is wanted, not {over}, {nperseg} and {length}")
    weights = _windowed(name, window, nperseg, xs[0].real if xs[0].dtype.is_complex else xs[0])
    out = []
    for x in xs:
        s = _segments(x, nperseg, nperseg - over)
        s = trend(s) if callable(trend) else detrend(s, type=trend) if trend else s
        s = s * weights
        out.append(md.fft.fft(s, n=length) if two else md.fft.rfft(s, n=length))
    return out, weights, nperseg - over, length


def _frequencies(length: int, fs: float, two: bool, like: md.Tensor) -> md.Tensor:
    make = md.fft.fftfreq if two else md.fft.rfftfreq
    return make(length, d=1 / fs, dtype=like.real.dtype if like.dtype.is_complex else like.dtype, **beside(like))


def stft(
    x: Any, fs: Any = 1.0, window: Any = "hann", nperseg: int = 256, noverlap: int | None = None, nfft: int | None = None, detrend: Any = False,
    return_onesided: bool = True, boundary: str | None = "zeros", padded: bool = True, axis: int = -1,
) -> tuple[md.Tensor, md.Tensor, md.Tensor]:  # fmt: skip
    """Frequencies, times and the spectra of windowed segments, frequencies where the axis was and times last. boundary: "even", "odd" (not there),
    "zeros" or None. Raises ValueError for another boundary or a window that does not fit.

    >>> f, t, z = stft(md.ones(8), nperseg=4)
    >>> f.shape, t.shape, z.shape
    ((3,), (5,), (3, 5))
    """
    a = md.moveaxis(inexact(x), axis, -1)
    n = _length("stft", window, nperseg, a.shape[-1], 256)
    over = n // 2 if noverlap is None else noverlap
    wide = [(0, 0)] * (a.ndim - 1)
    if boundary not in (None, "zeros", "even", "constant"):
        raise ValueError(f"stft: boundary is 'zeros', 'even', 'constant' or None, not {boundary!r}")
    if boundary is not None:
        a = jnp.pad(a, [*wide, (n // 2, n // 2)], mode={"zeros": "constant", "even": "reflect", "constant": "edge"}[boundary])
    if padded:
        a = md.pad(a, [*wide, (0, (-(a.shape[-1] - n) % (n - over)) % n)])
    two = not return_onesided or a.dtype.is_complex
    (z,), w, step, length = _spectra("stft", [a], window, n, noverlap, nfft, detrend, two)
    z = z / md.sum(w)
    times = (md.arange(z.shape[-2], dtype=w.dtype, **beside(w)) * step + n / 2) / fs - (n / 2 / fs if boundary is not None else 0.0)
    return _frequencies(length, fs, two, a), times, md.moveaxis(md.swapaxes(z, -1, -2), -2, axis if axis >= 0 else axis - 1)


def csd(
    x: Any, y: Any, fs: Any = 1.0, window: Any = "hann", nperseg: int | None = None, noverlap: int | None = None, nfft: int | None = None,
    detrend: Any = "constant", return_onesided: bool = True, scaling: str = "density", axis: int = -1, average: str = "mean",
) -> tuple[md.Tensor, md.Tensor]:  # fmt: skip
    """Frequencies and the cross spectrum of two signals by Welch's method: the mean or median over segments of nperseg elements, all of them in one
    where nperseg is None. Raises ValueError for another scaling than "density" or "spectrum".

    >>> f, p = csd(md.ones(8), md.ones(8), nperseg=4)
    >>> f.shape, p.dtype
    ((3,), minidl.complex64)
    """
    if scaling not in ("density", "spectrum") or average not in ("mean", "median"):
        raise ValueError(f"csd: scaling is 'density' or 'spectrum' and average 'mean' or 'median', not {scaling!r} and {average!r}")
    a, b = (md.moveaxis(inexact(v), axis, -1) for v in (x, x if y is None else y))
    if a.shape[-1] != b.shape[-1]:  # the shorter one is followed by zeros
        a, b = (md.pad(v, [(0, 0)] * (v.ndim - 1) + [(0, max(a.shape[-1], b.shape[-1]) - v.shape[-1])]) for v in (a, b))
    n = _length("csd", window, nperseg, a.shape[-1], a.shape[-1])
    two = not return_onesided or a.dtype.is_complex or b.dtype.is_complex
    (s, t), w, _, length = _spectra("csd", [a, b], window, n, noverlap, nfft, detrend, two)
    power = md.conj(s) * t / (fs * md.sum(w * w) if scaling == "density" else md.square(md.sum(w)))
    if not two:
        ends = (0, power.shape[-1] - 1) if length % 2 == 0 else (0,)
        power = power * md.asarray([1.0 if i in ends else 2.0 for i in range(power.shape[-1])], dtype=w.dtype, **beside(w))
    if average == "mean":
        power = md.mean(power, axis=-2)
    else:
        k = power.shape[-2]
        bias = 1.0 + sum(1.0 / (i + 1) - 1.0 / i for i in range(2, 2 * ((k - 1) // 2) + 1, 2))
        power = md.complex(md.median(md.real(power), axis=-2), md.median(md.imag(power), axis=-2)) / bias
    return _frequencies(length, fs, two, a), md.moveaxis(md.real(power) if y is None else power, -1, axis)


def welch(
    x: Any, fs: Any = 1.0, window: Any = "hann", nperseg: int | None = None, noverlap: int | None = None, nfft: int | None = None,
    detrend: Any = "constant", return_onesided: bool = True, scaling: str = "density", axis: int = -1, average: str = "mean",
) -> tuple[md.Tensor, md.Tensor]:  # fmt: skip
    """Frequencies and the power spectrum of a signal by Welch's method: csd with itself.

    >>> welch(md.ones(8), nperseg=4)[1].shape
    (3,)
    """
    return csd(x, None, fs, window, nperseg, noverlap, nfft, detrend, return_onesided, scaling, axis, average)
