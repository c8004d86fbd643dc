"""Discrete Fourier transforms under the names of the Array API's `fft` extension.

Single precision stays single: float32 and complex64 in, complex64 or float32 out, on every backend. Real input of a complex transform is taken as
complex, and float16 and bfloat16 as float32. A transform is linear, so its derivative is itself, in both modes and to every order.
All of them raise TypeError for a dtype, IndexError for an axis and ValueError for a size or norm that they do not take.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import minidl as md
import minidl.fft.primitives
from minidl import Tensor, dtypes
from minidl.extend import axes_tuple, axis_index, cast, check_all, describe, ns, operand

__all__ = [
    "fft", "fft2", "fftfreq", "fftn", "fftshift", "hfft", "ifft", "ifft2", "ifftn", "ifftshift", "ihfft", "irfft", "irfft2", "irfftn", "rfft",
    "rfft2", "rfftfreq", "rfftn",
]  # fmt: skip

_NORMS = ("backward", "ortho", "forward")
_SWAPPED = {"backward": "forward", "forward": "backward", "ortho": "ortho"}


def _norm(name: str, norm: Any) -> str:
    if norm is None:
        return "backward"
    if norm not in _NORMS:
        raise ValueError(f"{name}: norm {norm!r} is none of {', '.join(_NORMS)}")
    return norm


def _complex(x: Any) -> Tensor:
    x = operand(x)
    return cast(x, (x.dtype if x.dtype.inexact else dtypes.Defaults.floating).complex)


def _real(name: str, x: Any) -> Tensor:
    x = operand(x)
    if x.dtype.is_complex:
        raise TypeError(f"{name}: dtype {x.dtype.short} is not supported; it wants a real dtype, for complex numbers use {name.replace('r', '', 1)}")
    return x if x.dtype in (dtypes.float32, dtypes.float64) else cast(x, dtypes.float32 if x.dtype.is_float else dtypes.Defaults.floating)


def _points(name: str, n: Any) -> int:
    try:
        n = operator.index(n)
    except TypeError:
        raise TypeError(f"{name}: the number of points is an integer, not {n!r}; under jit it must be static") from None
    if n < 1:
        raise ValueError(f"{name}: {n} points; one or more are wanted")
    return n


def _fit(x: Tensor, axis: int, n: int) -> Tensor:
    """x cut off or filled with zeros to n elements along an axis."""
    have = x.shape[axis]
    if n == have:
        return x
    return x[(slice(None),) * axis + (slice(n),)] if n < have else md.pad(x, [(0, n - have if a == axis else 0) for a in range(x.ndim)])


def _axes(name: str, x: Tensor, s: Sequence[int] | None, axes: Sequence[int] | None) -> tuple[tuple[int, ...], list[int | None]]:
    """The axes of a transform over several, and its sizes where they are given."""
    if axes is None:
        many = x.ndim if s is None else len(s)
        if many > x.ndim:
            raise ValueError(f"{name}: {many} sizes for {describe(x)}")
        places: tuple[int, ...] = tuple(range(x.ndim - many, x.ndim))
    else:
        places = tuple(axis_index(name, a, x.ndim) for a in axes)
        if len(set(places)) != len(places):
            raise ValueError(f"{name}: axes {tuple(axes)} name an axis twice")
    if s is not None and len(s) != len(places):
        raise ValueError(f"{name}: {len(s)} sizes for {len(places)} axes")
    return places, [None] * len(places) if s is None else [_points(name, n) for n in s]


def _transform(name: str, x: Tensor, sizes: Sequence[int | None], axes: tuple[int, ...], norm: str, inverse: bool) -> Tensor:
    for n, a in zip(sizes, axes, strict=True):
        x = x if n is None else _fit(x, a, n)
    return ns.fft(x, axes=axes, inverse=inverse, norm=norm) if axes else md.positive(x)


def _one(name: str, x: Tensor, n: int | None, axis: int, norm: str, inverse: bool) -> Tensor:
    a = axis_index(name, axis, x.ndim)
    return _transform(name, x, [None if n is None else _points(name, n)], (a,), _norm(name, norm), inverse)


# ---- complex ----------------------------------------------------------------------------------------------------------------------------
def fft(x: Any, /, n: int | None = None, axis: int = -1, norm: str = "backward") -> Tensor:
    """X[k] = sum over j of x[j] exp(-2πi jk/n) along an axis, x being cut off or filled with zeros to n points.

    norm says what is divided by n: the inverse ("backward"), this ("forward"), or both by its square root ("ortho").

    >>> import minidl as md
    >>> md.fft.fft(md.tensor([1.0, 0.0, 0.0, 0.0])).tolist()
    [(1+0j), (1+0j), (1+0j), (1+0j)]
    """
    return _one("fft", _complex(x), n, axis, norm, False)


def ifft(x: Any, /, n: int | None = None, axis: int = -1, norm: str = "backward") -> Tensor:
    """The inverse of fft: x[j] = 1/n times the sum over k of X[k] exp(2πi jk/n).

    >>> import minidl as md
    >>> md.fft.ifft(md.fft.fft(md.tensor([1.0, 2.0]))).tolist()
    [(1+0j), (2+0j)]
    """
    return _one("ifft", _complex(x), n, axis, norm, True)


def fftn(x: Any, /, s: Sequence[int] | None = None, axes: Sequence[int] | None = None, norm: str = "backward") -> Tensor:
    """fft over several axes: all, or the last len(s), or those named; s: the number of points along each.

    >>> import minidl as md
    >>> md.fft.fftn(md.ones((2, 2))).tolist()
    [[(4+0j), 0j], [0j, 0j]]
    """
    x = _complex(x)
    places, sizes = _axes("fftn", x, s, axes)
    return _transform("fftn", x, sizes, places, _norm("fftn", norm), False)


def ifftn(x: Any, /, s: Sequence[int] | None = None, axes: Sequence[int] | None = None, norm: str = "backward") -> Tensor:
    """The inverse of fftn.

    >>> import minidl as md
    >>> md.fft.ifftn(md.fft.fftn(md.ones((2, 2)))).tolist()
    [[(1+0j), (1+0j)], [(1+0j), (1+0j)]]
    """
    x = _complex(x)
    places, sizes = _axes("ifftn", x, s, axes)
    return _transform("ifftn", x, sizes, places, _norm("ifftn", norm), True)


# ---- real -------------------------------------------------------------------------------------------------------------------------------
def rfft(x: Any, /, n: int | None = None, axis: int = -1, norm: str = "backward") -> Tensor:
    """fft of real numbers: the first n // 2 + 1 coefficients, of which the others are conjugates.

    >>> import minidl as md
    >>> md.fft.rfft(md.tensor([1.0, 0.0, 0.0, 0.0])).tolist()
    [(1+0j), (1+0j), (1+0j)]
    """
    return rfftn(x, s=None if n is None else (n,), axes=(axis,), norm=norm, _name="rfft")


def irfft(x: Any, /, n: int | None = None, axis: int = -1, norm: str = "backward") -> Tensor:
    """The inverse of rfft: n real numbers (2 (m - 1) by default) from m = n // 2 + 1 coefficients. Imaginary parts of those that are real for
    real numbers, the first and for even n the last, are not read.

    >>> import minidl as md
    >>> md.fft.irfft(md.fft.rfft(md.tensor([1.0, 2.0, 3.0])), n=3).tolist()
    [1.0, 2.0, 3.0]
    """
    return irfftn(x, s=None if n is None else (n,), axes=(axis,), norm=norm, _name="irfft")


def rfftn(
    x: Any, /, s: Sequence[int] | None = None, axes: Sequence[int] | None = None, norm: str = "backward", _name: str = "rfftn"
) -> Tensor:
    """fftn of real numbers: rfft along the last of the axes, then fftn over the others.

    Raises ValueError where there is no axis to transform, or one without points.

    >>> import minidl as md
    >>> md.fft.rfftn(md.ones((2, 2))).tolist()
    [[(4+0j), 0j], [0j, 0j]]
    """
    x = _real(_name, x)
    places, sizes = _axes(_name, x, s, axes)
    norm = _norm(_name, norm)
    if not places:
        raise ValueError(f"{_name}: no axis to transform")
    x = x if sizes[-1] is None else _fit(x, places[-1], sizes[-1])
    return _transform(_name, ns.rfft(x, axis=places[-1], norm=norm), sizes[:-1], places[:-1], norm, False)


def irfftn(
    x: Any, /, s: Sequence[int] | None = None, axes: Sequence[int] | None = None, norm: str = "backward", _name: str = "irfftn"
) -> Tensor:
    """The inverse of rfftn; s: the sizes of the result along the axes, the last of them 2 (m - 1) by default.

    Raises ValueError where there is no axis to transform, or one without points.

    >>> import minidl as md
    >>> md.fft.irfftn(md.fft.rfftn(md.ones((2, 2)))).tolist()
    [[1.0, 1.0], [1.0, 1.0]]
    """
    x = _complex(x)
    places, sizes = _axes(_name, x, s, axes)
    norm = _norm(_name, norm)
    if not places:
        raise ValueError(f"{_name}: no axis to transform")
    last = places[-1]
    n = 2 * (x.shape[last] - 1) if sizes[-1] is None else sizes[-1]
    if n < 1:
        raise ValueError(f"{_name}: axis {last} of {describe(x)} stands for {n} points; say how many with {'n' if _name == 'irfft' else 's'}")
    x = _transform(_name, _fit(x, last, n // 2 + 1), sizes[:-1], places[:-1], norm, True)
    return ns.irfft(x, axis=last, n=n, norm=norm)


def hfft(x: Any, /, n: int | None = None, axis: int = -1, norm: str = "backward") -> Tensor:
    """The real fft of a signal whose values from n // 2 + 1 on are conjugates of the first ones; n is 2 (m - 1) by default.

    >>> import minidl as md
    >>> md.fft.hfft(md.tensor([1.0, 0.0])).tolist()
    [1.0, 1.0]
    """
    x = _complex(x)
    return irfftn(ns.conj(x), s=None if n is None else (n,), axes=(axis,), norm=_SWAPPED[_norm("hfft", norm)], _name="hfft")


def ihfft(x: Any, /, n: int | None = None, axis: int = -1, norm: str = "backward") -> Tensor:
    """The inverse of hfft: n // 2 + 1 complex numbers from n real ones.

    >>> import minidl as md
    >>> md.fft.ihfft(md.fft.hfft(md.tensor([1.0, 2.0]))).tolist()
    [(1-0j), (2-0j)]
    """
    return ns.conj(rfftn(x, s=None if n is None else (n,), axes=(axis,), norm=_SWAPPED[_norm("ihfft", norm)], _name="ihfft"))


# ---- frequencies ------------------------------------------------------------------------------------------------------------------------
def _frequencies(name: str, n: Any, d: float, start: int, dtype: Any, backend: str | None, device: str | None) -> Tensor:
    """start, start + 1, … as multiples of 1/(n d), computed in double precision and rounded once."""
    want = dtypes.Defaults.floating if dtype is None else dtypes.canonical(dtype)
    if not want.is_float:
        raise TypeError(f"{name}: dtype {want.short} is not supported; it wants a float dtype")
    count = n if name == "fftfreq" else n // 2 + 1
    k = md.arange(start, start + count, dtype=dtypes.float64, backend=backend, device=device)
    return cast(ns.div(k, n * float(d)), want)


def fftfreq(n: int, /, d: float = 1.0, *, dtype: Any = None, backend: str | None = None, device: str | None = None) -> Tensor:
    """The frequency of each coefficient of fft for n points at distance d: 0, 1, …, then the negative ones, over n d.

    >>> import minidl as md
    >>> md.fft.fftfreq(4).tolist()
    [0.0, 0.25, -0.5, -0.25]
    """
    n = _points("fftfreq", n)
    return ifftshift(_frequencies("fftfreq", n, d, -(n // 2), dtype, backend, device))


def rfftfreq(n: int, /, d: float = 1.0, *, dtype: Any = None, backend: str | None = None, device: str | None = None) -> Tensor:
    """The frequency of each coefficient of rfft for n points at distance d.

    >>> import minidl as md
    >>> md.fft.rfftfreq(4).tolist()
    [0.0, 0.25, 0.5]
    """
    return _frequencies("rfftfreq", _points("rfftfreq", n), d, 0, dtype, backend, device)


def fftshift(x: Any, /, axes: int | Sequence[int] | None = None) -> Tensor:
    """Frequency 0 moved from the front to the middle of axes (all by default).

    >>> import minidl as md
    >>> md.fft.fftshift(md.tensor([0, 1, -2, -1])).tolist()
    [-2, -1, 0, 1]
    """
    x = operand(x)
    places = axes_tuple("fftshift", axes, x.ndim)
    return md.roll(x, [x.shape[a] // 2 for a in places], axis=places)


def ifftshift(x: Any, /, axes: int | Sequence[int] | None = None) -> Tensor:
    """What fftshift does, undone.

    >>> import minidl as md
    >>> md.fft.ifftshift(md.tensor([-2, -1, 0, 1])).tolist()
    [0, 1, -2, -1]
    """
    x = operand(x)
    places = axes_tuple("ifftshift", axes, x.ndim)
    return md.roll(x, [-(x.shape[a] // 2) for a in places], axis=places)


def _over_two(f: Any, name: str) -> Any:
    def function(x: Any, /, s: Sequence[int] | None = None, axes: Sequence[int] = (-2, -1), norm: str = "backward") -> Tensor:
        return f(x, s=s, axes=axes, norm=norm)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"{f.__name__} over the last two axes, or those named, under the name that NumPy and PyTorch have for it."
    function.__doc__ += f"\n\n>>> import minidl as md\n>>> md.fft.{name}(md.ones((2, 2))).shape\n{(2, 2)}\n"
    return function


fft2, ifft2, rfft2, irfft2 = (_over_two(f, f"{f.__name__[:-1]}2") for f in (fftn, ifftn, rfftn, irfftn))


check_all(globals(), __all__)
