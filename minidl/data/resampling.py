"""Images in another size: separable resampling as Pillow and torch.nn.functional.interpolate(antialias=True) define it.

Each output pixel is a weighted mean of input pixels; where an image shrinks, the filter is stretched so that no input pixel is left out
(antialias). Bytes are rounded after each of the two directions, as in Pillow.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

#: name → (half the width of the filter, antialiased coefficient of the cubic and plain one: R. Keys, 1981; Pillow's and torch's choices)
_SUPPORT = {"nearest": 0.0, "bilinear": 1.0, "bicubic": 2.0}
_CUBIC = {True: -0.5, False: -0.75}


def mode_of(interpolation: Any) -> str:
    """The name of an interpolation, also of torchvision's enumeration. Raises ValueError for one that is not here."""
    name = str(getattr(interpolation, "value", interpolation))
    if name not in _SUPPORT:
        raise ValueError(f"interpolation {name!r} is none of {', '.join(_SUPPORT)}")
    return name


@functools.lru_cache(maxsize=256)
def taps(size: int, out: int, mode: str, antialias: bool) -> tuple[np.ndarray, np.ndarray]:
    """(numbers [out, k] of the input pixels, their weights [out, k], float32) for a row of `size` pixels made `out` long."""
    scale = size / out
    if mode == "nearest":
        return np.minimum((np.arange(out) * scale).astype(np.int64), size - 1)[:, None], np.ones((out, 1), np.float32)
    stretch = max(scale, 1.0) if antialias else 1.0
    support = _SUPPORT[mode] * stretch
    centre = (np.arange(out) + 0.5) * scale
    first = np.floor(centre - support).astype(np.int64)
    numbers = first[:, None] + np.arange(int(np.ceil(2 * support)) + 2)
    d = np.abs((numbers + 0.5 - centre[:, None]) / stretch)
    if mode == "bilinear":
        weights = np.maximum(0.0, 1.0 - d)
    else:
        a = _CUBIC[antialias]
        near, far = ((a + 2) * d - (a + 3)) * d * d + 1, (((d - 5) * d + 8) * d - 4) * a
        weights = np.where(d < 1, near, np.where(d < 2, far, 0.0))
    if antialias:  # beyond the edge there is nothing; without it, the edge goes on
        weights[(numbers < 0) | (numbers >= size)] = 0.0
    keep = np.flatnonzero(weights.any(axis=0))
    numbers, weights = np.clip(numbers[:, keep], 0, size - 1), weights[:, keep]
    return numbers, (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def _along(x: np.ndarray, axis: int, out: int, mode: str, antialias: bool) -> np.ndarray:
    numbers, weights = taps(x.shape[axis], out, mode, antialias)
    if mode == "nearest":
        return x.take(numbers[:, 0], axis)
    shape = [1] * x.ndim
    shape[axis] = out
    total: Any = None
    for k in range(numbers.shape[1]):
        part = x.take(numbers[:, k], axis) * weights[:, k].reshape(shape)
        total = part if total is None else np.add(total, part, out=total)
    if x.dtype == np.uint8:
        return np.clip(np.floor(total + np.float32(0.5)), 0, 255).astype(np.uint8)
    return total.astype(x.dtype, copy=False)


def resize(x: np.ndarray, size: tuple[int, int], axes: tuple[int, int], mode: str, antialias: bool) -> np.ndarray:
    """An image with (height, width) in the given axes, which count from the end. Integers other than bytes are a TypeError."""
    if x.dtype.kind not in "f" and x.dtype != np.uint8:
        raise TypeError(f"Resize: an image of bytes or floats is wanted, not {x.dtype}")
    (height, width), (h, w) = size, (x.shape[axes[0]], x.shape[axes[1]])
    order = ((axes[1], width), (axes[0], height))  # along the rows first, as Pillow does unless that would make the image larger for a while
    for axis, out in reversed(order) if height < h and width > w else order:
        if x.shape[axis] != out:
            x = _along(x, axis + x.ndim, out, mode, antialias)
    return x
