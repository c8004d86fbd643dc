"""jax.image: images resampled, each axis by a matrix of weights."""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Sequence
from typing import Any

import minidl as md
from minidl.idioms.jax.arrays import beside, inexact


class ResizeMethod(enum.Enum):
    """How elements between those of an image are found."""

    NEAREST, LINEAR, LANCZOS3, LANCZOS5, CUBIC = range(5)

    @staticmethod
    def from_string(s: str) -> ResizeMethod:
        """The method of a name; ValueError for another."""
        if s not in _NAMES:
            raise ValueError(f"image: method is one of {', '.join(_NAMES)}, not {s!r}")
        return _NAMES[s]


_NAMES = {
    "nearest": ResizeMethod.NEAREST, **dict.fromkeys(("linear", "bilinear", "trilinear", "triangle"), ResizeMethod.LINEAR),
    "lanczos3": ResizeMethod.LANCZOS3, "lanczos5": ResizeMethod.LANCZOS5,
    **dict.fromkeys(("cubic", "bicubic", "tricubic"), ResizeMethod.CUBIC),
}  # fmt: skip


def _cubic(x: md.Tensor) -> md.Tensor:
    """Keys' kernel with a = -1/2."""
    near, far = (1.5 * x - 2.5) * x * x + 1.0, ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0
    return md.where(x < 1.0, near, md.where(x < 2.0, far, 0.0))


def _lanczos(radius: int) -> Callable[[md.Tensor], md.Tensor]:
    return lambda x: md.where(x < radius, md.sinc(x) * md.sinc(x / radius), 0.0)


_KERNELS: dict[ResizeMethod, Callable[[md.Tensor], md.Tensor]] = {
    ResizeMethod.LINEAR: lambda x: md.maximum(1.0 - x, 0.0), ResizeMethod.CUBIC: _cubic,
    ResizeMethod.LANCZOS3: _lanczos(3), ResizeMethod.LANCZOS5: _lanczos(5),
}  # fmt: skip


def _weights(n: int, m: int, scale: Any, translation: Any, kernel: Callable[[md.Tensor], md.Tensor], antialias: bool, like: md.Tensor) -> md.Tensor:
    """The matrix [n, m] that makes m elements of n: each is the kernel's mean around its place, which is 0 outside. Half precision cannot count the
    elements of a large image."""
    step, dtype = 1.0 / scale, md.result_type(like, md.float32)
    places = (md.arange(m, dtype=dtype, **beside(like)) + 0.5 - translation) * step - 0.5
    wide = md.maximum(md.asarray(step, dtype=dtype, **beside(like)), 1.0) if antialias else 1.0
    w = kernel(md.abs(places - md.reshape(md.arange(n, dtype=dtype, **beside(like)), (-1, 1))) / wide)
    total = md.sum(w, axis=0, keepdims=True)
    some = md.abs(total) > 1000 * md.finfo(md.float32).eps
    w = md.where(some, w / md.where(some, total, 1.0), 0.0)
    return md.where((places >= -0.5) & (places <= n - 0.5), w, 0.0).to(like.dtype)


def scale_and_translate(
    image: Any, shape: Sequence[int], spatial_dims: Sequence[int], scale: Any, translation: Any, method: Any, antialias: bool = True,
    precision: Any = None,
) -> md.Tensor:  # fmt: skip
    """An image of another shape, scaled and then moved along spatial_dims; what comes from outside is 0. method: "linear", "cubic", "lanczos3" or
    "lanczos5"; antialias: a smaller image is smoothed. Differentiable in the image, the scale and the translation. Raises ValueError for another
    method.

    >>> scale_and_translate(md.tensor([1.0, 2.0]), (3,), (0,), md.ones(1), md.ones(1), "linear").tolist()
    [0.0, 1.0, 2.0]
    """
    x = inexact(image)
    how = ResizeMethod.from_string(method) if isinstance(method, str) else method
    if how is ResizeMethod.NEAREST:
        raise ValueError("scale_and_translate: method 'nearest' is that of resize; use 'linear', 'cubic', 'lanczos3' or 'lanczos5'")
    for i, axis in enumerate(spatial_dims):
        axis %= x.ndim
        w = _weights(x.shape[axis], shape[axis], scale[i], translation[i], _KERNELS[how], antialias, x)
        x = md.moveaxis(md.tensordot(x, w, axes=((axis,), (0,))), -1, axis)
    return x


def resize(image: Any, shape: Sequence[int], method: Any, antialias: bool = True, precision: Any = None) -> md.Tensor:
    """An image of another shape. method: "nearest", "linear", "cubic", "lanczos3" or "lanczos5", or their other names ("bilinear", "bicubic").

    >>> resize(md.tensor([1.0, 3.0]), (4,), "linear").tolist()
    [1.0, 1.5, 2.5, 3.0]
    """
    x = md.asarray(image)
    if len(shape) != x.ndim:
        raise ValueError(f"resize: the shape {tuple(shape)} has {len(shape)} axes, and the image {x.ndim}")
    other = [a for a in range(x.ndim) if x.shape[a] != shape[a]]
    how = ResizeMethod.from_string(method) if isinstance(method, str) else method
    if 0 in shape:
        return md.zeros(tuple(shape), dtype=(x if how is ResizeMethod.NEAREST else inexact(x)).dtype, **beside(x))
    if how is ResizeMethod.NEAREST:
        for a in other:
            places = [math.floor((i + 0.5) * x.shape[a] / shape[a]) for i in range(shape[a])]
            x = md.take(x, md.asarray(places, **beside(x)), axis=a)
        return x
    return scale_and_translate(x, shape, other, [shape[a] / x.shape[a] for a in other], [0.0] * len(other), how, antialias)
