"""jax.scipy.fft: cosine transforms of type 2 and their inverses, made of md.fft."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import minidl as md
from minidl.idioms.jax.arrays import beside, inexact


def _fitted(x: md.Tensor, n: int | None, axis: int) -> md.Tensor:
    """x cut or filled with zeros to n along an axis, which comes last."""
    x = md.moveaxis(x, axis, -1)
    have = x.shape[-1]
    if n is None or n == have:
        return x
    return x[..., :n] if n < have else md.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, n - have)])


def _checked(name: str, type: int, norm: Any) -> None:
    if type != 2 or norm not in (None, "backward", "ortho"):
        raise NotImplementedError(f"{name}: type 2 with norm None, 'backward' or 'ortho' is there, not type {type} with norm {norm!r}")


def _turns(n: int, like: md.Tensor) -> md.Tensor:
    at = md.arange(n, dtype=like.dtype, **beside(like)) * (math.pi / (2 * n))
    return md.complex(md.cos(at), -md.sin(at))


def _first(n: int, ortho: Any, like: md.Tensor) -> md.Tensor:
    """The factor of each coefficient that makes the transform orthogonal."""
    factors = [math.sqrt(1 / (4 * n))] + [math.sqrt(1 / (2 * n))] * (n - 1) if ortho == "ortho" else [1.0] * n
    return md.asarray(factors, dtype=like.dtype, **beside(like))


def dct(x: Any, type: int = 2, n: int | None = None, axis: int = -1, norm: str | None = None) -> md.Tensor:
    """The cosine transform of type 2 along an axis. Raises NotImplementedError for another type or norm.

    >>> dct(md.tensor([1.0, 1.0])).tolist()
    [4.0, 0.0]
    """
    _checked("dct", type, norm)
    a = _fitted(inexact(x), n, axis)
    m = a.shape[-1]
    spectrum = md.fft.fft(md.concat([a[..., ::2], md.flip(a[..., 1::2], axis=-1)], axis=-1))
    return md.moveaxis(2.0 * md.real(spectrum * _turns(m, a)) * _first(m, norm, a), -1, axis)


def idct(x: Any, type: int = 2, n: int | None = None, axis: int = -1, norm: str | None = None) -> md.Tensor:
    """The inverse of dct.

    >>> [round(v, 3) for v in idct(dct(md.tensor([1.0, 5.0]))).tolist()]
    [1.0, 5.0]
    """
    _checked("idct", type, norm)
    a = _fitted(inexact(x), n, axis)
    m = a.shape[-1]
    a = a / (2.0 * _first(m, norm, a))
    turned = md.pad(md.flip(a[..., 1:], axis=-1), [(0, 0)] * (a.ndim - 1) + [(1, 0)])
    v = md.real(md.fft.ifft(md.complex(a, -turned) * md.conj(_turns(m, a))))
    order = [i // 2 if i % 2 == 0 else m - 1 - i // 2 for i in range(m)]
    return md.moveaxis(md.take(v, md.asarray(order, **beside(a)), axis=-1), -1, axis)


def _over_axes(f: Callable[..., md.Tensor], name: str) -> Callable[..., md.Tensor]:
    def function(x: Any, type: int = 2, s: Sequence[int] | None = None, axes: Sequence[int] | None = None, norm: str | None = None) -> md.Tensor:
        out = inexact(x)
        along = range(out.ndim) if axes is None and s is None else range(-len(s or ()), 0) if axes is None else axes
        for i, axis in enumerate(along):
            out = f(out, type, None if s is None else s[i], axis, norm)
        return out

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"{f.__name__} along several axes, all of them without axes."
    return function


dctn, idctn = _over_axes(dct, "dctn"), _over_axes(idct, "idctn")
