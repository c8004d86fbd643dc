"""Windows and short-time Fourier transforms with PyTorch's names and arguments, made of md.fft."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import minidl as md
from minidl.idioms.numbers import word_all

__all__ = ["bartlett_window", "blackman_window", "hamming_window", "hann_window", "istft", "kaiser_window", "stft"]


def samples(weights: Sequence[float], length: int, periodic: bool = True) -> np.ndarray:
    """A window that is a sum of cosines of whole periods, with these weights, in float64; one sample is 1."""
    at = 2 * np.pi * np.arange(length) / max(1, length if periodic else length - 1)
    return sum((w * np.cos(k * at) for k, w in enumerate(weights)), np.zeros(length)) if length > 1 else np.ones(length)


def _cosines(name: str, *weights: float) -> Callable[..., md.Tensor]:
    """The window of these weights under PyTorch's name."""

    def window(window_length: int, periodic: bool = True, *, dtype: Any = None, device: str | None = None, requires_grad: bool = False) -> md.Tensor:
        if window_length < 0:
            raise ValueError(f"{name}: window_length is not negative, got {window_length}")
        out = md.asarray(samples(weights, window_length, periodic), dtype=md.get_default_dtype() if dtype is None else dtype, device=device)
        return out.requires_grad_() if requires_grad else out

    window.__name__ = window.__qualname__ = name
    window.__doc__ = f"""The {name[:-7].capitalize()} window of a length; periodic: without its last point, as spectra want it."""
    return window


hann_window = _cosines("hann_window", 0.5, -0.5)
blackman_window = _cosines("blackman_window", 0.42, -0.5, 0.08)


def hamming_window(
    window_length: int, periodic: bool = True, alpha: float = 0.54, beta: float = 0.46, *, dtype: Any = None, device: str | None = None,
    requires_grad: bool = False,
) -> md.Tensor:  # fmt: skip
    """The Hamming window of a length, alpha - beta * cos.

    >>> [round(v, 2) for v in md.hamming_window(4).tolist()]
    [0.08, 0.54, 1.0, 0.54]
    """
    return _cosines("hamming_window", alpha, -beta)(window_length, periodic, dtype=dtype, device=device, requires_grad=requires_grad)


def bartlett_window(
    window_length: int, periodic: bool = True, *, dtype: Any = None, device: str | None = None, requires_grad: bool = False
) -> md.Tensor:
    """The triangular window of a length.

    >>> md.bartlett_window(4).tolist()
    [0.0, 0.5, 1.0, 0.5]
    """
    at = np.arange(window_length) / max(1, window_length if periodic else window_length - 1)
    values = 1 - abs(2 * at - 1) if window_length > 1 else np.ones(window_length)
    out = md.asarray(values, dtype=md.get_default_dtype() if dtype is None else dtype, device=device)
    return out.requires_grad_() if requires_grad else out


def kaiser_window(
    window_length: int, periodic: bool = True, beta: float = 12.0, *, dtype: Any = None, device: str | None = None, requires_grad: bool = False
) -> md.Tensor:
    """The Kaiser window of a length and a shape beta.

    >>> md.kaiser_window(3, periodic=False, beta=0.0).tolist()
    [1.0, 1.0, 1.0]
    """
    values = np.kaiser(window_length + 1, beta)[:-1] if periodic and window_length > 1 else np.kaiser(window_length, beta)
    out = md.asarray(values, dtype=md.get_default_dtype() if dtype is None else dtype, device=device)
    return out.requires_grad_() if requires_grad else out


def _window(name: str, like: md.Tensor, n_fft: int, win_length: int | None, window: md.Tensor | None) -> md.Tensor:
    """The window, with zeros on both sides up to n_fft."""
    length = n_fft if win_length is None else win_length
    if not 0 < length <= n_fft or (window is not None and window.shape != (length,)):
        given = "" if window is None else f" and a window of shape {window.shape}"
        raise ValueError(f"{name}: a window of win_length, at most n_fft, is wanted, got win_length {length}, n_fft {n_fft}{given}")
    if window is None:
        window = md.ones(length, dtype=like.real.dtype if like.dtype.is_complex else like.dtype, backend=like.backend, device=like.device)
    left = (n_fft - length) // 2
    return md.pad(window, ((left, n_fft - length - left),))


def stft(
    input: md.Tensor, n_fft: int, hop_length: int | None = None, win_length: int | None = None, window: md.Tensor | None = None, center: bool = True,
    pad_mode: str = "reflect", normalized: bool = False, onesided: bool | None = None, return_complex: bool | None = None,
) -> md.Tensor:  # fmt: skip
    """Fourier transforms of pieces of a signal [L] or [N, L], times the window, hop_length (n_fft // 4) apart: complex [(N,) frequencies, pieces].

    center: piece t has its middle at t * hop_length; the ends are padded by pad_mode, as F.pad has them. onesided: n_fft // 2 + 1 frequencies, which
    is all of a real signal. return_complex=False gives real and imaginary parts along a last axis. Raises ValueError for a window that does not fit
    and for a signal shorter than a piece.

    >>> md.stft(md.ones(8), 4, window=md.ones(4), return_complex=True).abs()[0].tolist()
    [4.0, 4.0, 4.0, 4.0, 4.0, 4.0, 4.0, 4.0, 4.0]
    """
    hop, window = n_fft // 4 if hop_length is None else hop_length, _window("stft", input, n_fft, win_length, window)
    if input.ndim not in (1, 2):
        raise ValueError(f"stft: a signal [L] or [N, L] is wanted, got shape {input.shape}")
    x = input if input.ndim == 2 else input[None]
    if center:
        x = md.nn.functional.pad(x[None], (n_fft // 2, n_fft // 2), mode=pad_mode)[0]
    if hop < 1 or x.shape[1] < n_fft:
        raise ValueError(f"stft: pieces of {n_fft}, {hop} apart, of a signal of {x.shape[1]}")
    pieces = x.unfold(1, n_fft, hop) * window
    one = not pieces.dtype.is_complex if onesided is None else onesided
    out = md.matrix_transpose((md.fft.rfft if one else md.fft.fft)(pieces, norm="ortho" if normalized else "backward"))
    out = out if input.ndim == 2 else out[0]
    return md.view_as_real(out) if return_complex is False else out


def istft(
    input: md.Tensor, n_fft: int, hop_length: int | None = None, win_length: int | None = None, window: md.Tensor | None = None, center: bool = True,
    normalized: bool = False, onesided: bool | None = None, length: int | None = None, return_complex: bool = False,
) -> md.Tensor:  # fmt: skip
    """The signal of least squared distance to stft's pieces: they are added up, times the window, and divided by the sum of its squares.

    input: complex [(N,) frequencies, pieces]; length: of the signal, cut or with zeros behind. Other arguments as of stft. Raises ValueError for a
    window that does not fit or leaves out a place, and for another number of frequencies. Source: D. Griffin and J. Lim (1984).

    >>> x, w = md.arange(12.0), md.hann_window(4)
    >>> md.allclose(md.istft(md.stft(x, 4, window=w), 4, window=w), x, atol=1e-5)
    True
    """
    hop, window = n_fft // 4 if hop_length is None else hop_length, _window("istft", input, n_fft, win_length, window)
    x = md.matrix_transpose(input if input.ndim == 3 else input[None])
    one = x.shape[2] != n_fft if onesided is None else onesided
    if input.ndim not in (2, 3) or x.shape[2] != (n_fft // 2 + 1 if one else n_fft):
        raise ValueError(f"istft: [(N,) frequencies, pieces] with {n_fft // 2 + 1 if one else n_fft} frequencies is wanted, got shape {input.shape}")
    norm = "ortho" if normalized else "backward"
    pieces = (md.fft.irfft(x, n=n_fft, norm=norm) if one else md.fft.ifft(x, norm=norm)) * window
    pieces = pieces if return_complex or not pieces.dtype.is_complex else pieces.real
    count = pieces.shape[1]
    places = (md.arange(count, backend=x.backend, device=x.device)[:, None] * hop + md.arange(n_fft, backend=x.backend, device=x.device)).reshape(-1)
    total = n_fft + hop * (count - 1)
    signal = md.zeros((pieces.shape[0], total), dtype=pieces.dtype, backend=x.backend, device=x.device)
    signal = signal.index_add(1, places, pieces.reshape(pieces.shape[0], -1))
    weights = md.zeros(total, dtype=window.dtype, backend=x.backend, device=x.device).index_add(0, places, md.tile(window * window, (count,)))
    start = n_fft // 2 if center else 0
    end = total - start if length is None else min(start + length, total)
    signal, weights = signal[:, start:end], weights[start:end]
    seen = md.extend.seen(weights)
    if seen is not None and seen[0].size and abs(seen[0]).min() < 1e-11:
        raise ValueError("istft: the windows leave out a place; a smaller hop_length or another window covers all of them")
    signal = signal / weights
    if length is not None and end - start < length:
        signal = md.pad(signal, ((0, 0), (0, length - (end - start))))
    return signal if input.ndim == 3 else signal[0]


word_all(globals(), __all__)
