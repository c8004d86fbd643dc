"""Random changes of an image's tones, with torchvision.transforms' names and arguments.

Promises: bytes come out as Pillow makes them (ImageOps, ImageEnhance), floats in [0, 1] as torchvision's tensors do; what is drawn belongs to the
sample, as everywhere in md.data.transforms.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from minidl.data.distortions import blend, luma
from minidl.data.pictures import Picture, Transform
from minidl.data.randomness import Draws

__all__ = ["RandomAdjustSharpness", "RandomAutocontrast", "RandomEqualize", "RandomGrayscale", "RandomInvert", "RandomPosterize", "RandomSolarize"]


def _whole(x: np.ndarray) -> Any:
    """The number that is white."""
    return np.uint8(255) if x.dtype == np.uint8 else x.dtype.type(1)


def invert(x: np.ndarray) -> np.ndarray:
    """Dark for light."""
    return _whole(x) - x


def posterize(x: np.ndarray, bits: int) -> np.ndarray:
    """So many bits of each byte; floats in as many levels."""
    if x.dtype == np.uint8:
        return x & np.uint8(256 - (1 << (8 - bits)))
    levels = 1 << bits
    return np.clip(np.floor(x * levels), 0, levels - 1).astype(x.dtype) / x.dtype.type(levels)


def solarize(x: np.ndarray, threshold: float) -> np.ndarray:
    """What is not below the threshold inverted."""
    return np.where(x >= threshold, invert(x), x)


def autocontrast(x: np.ndarray, axes: tuple[int, int]) -> np.ndarray:
    """The darkest pixel of each channel black, the lightest white; no pixel is neither."""
    if not x.size:
        return x
    low, high = (f(x, axis=axes, keepdims=True).astype(np.float64) for f in (np.min, np.max))
    scale = float(_whole(x)) / np.where(high > low, high - low, 1)
    out = np.clip(x * scale - low * scale, 0, _whole(x))
    return np.where(high > low, out, x).astype(x.dtype)


def equalize(x: np.ndarray, axes: tuple[int, int]) -> np.ndarray:
    """Bytes so that about as many pixels of each channel have each brightness; floats as bytes between."""
    if not x.size:
        return x
    if x.dtype != np.uint8:
        return equalize(np.floor(x * (256 - 1e-3)).astype(np.uint8), axes).astype(x.dtype) / x.dtype.type(255)
    rows = np.moveaxis(x, axes, (-2, -1))
    out = np.empty_like(rows)
    for at in np.ndindex(rows.shape[:-2]):
        counts = np.bincount(rows[at].ravel(), minlength=256)
        step = (counts.sum() - counts[counts.nonzero()[0][-1]]) // 255
        table = np.arange(256) if not step else (step // 2 + np.cumsum(counts) - counts) // step
        out[at] = np.clip(table, 0, 255).astype(np.uint8)[rows[at]]
    return np.moveaxis(out, (-2, -1), axes)


def sharpen(x: np.ndarray, axes: tuple[int, int], factor: float) -> np.ndarray:
    """Smoothed for factor 0, itself for 1, sharper for more; the edge stays."""
    rows = np.moveaxis(x, axes, (-2, -1))
    h, w = rows.shape[-2:]
    smooth = rows.copy()
    if h > 2 and w > 2:
        wide = rows.astype(np.float64 if x.dtype == np.float64 else np.float32)
        total: Any = 4 * wide[..., 1:-1, 1:-1]
        for i, j in np.ndindex(3, 3):
            total = total + wide[..., i : h - 2 + i, j : w - 2 + j]
        smooth[..., 1:-1, 1:-1] = np.floor(total / 13 + 0.5) if x.dtype == np.uint8 else total / 13
    return np.moveaxis(blend(smooth, rows, factor), (-2, -1), axes)


class _Toned(Transform):
    """With probability p the tones are changed by `changed`."""

    p: float

    def apply(self, picture: Picture, draws: Draws) -> None:
        """Change the picture, if the draw says so."""
        if draws.uniform() < self.p:
            picture.array = self.changed(picture.array, picture.axes)

    def changed(self, x: np.ndarray, axes: tuple[int, int]) -> np.ndarray:
        """The array with other tones; axes: its rows and columns."""
        raise NotImplementedError(f"{type(self).__name__} does not define changed")


class RandomInvert(_Toned):
    """Dark for light, with probability p.

    >>> RandomInvert(p=1.0)(np.array([[0, 200]], np.uint8)).tolist()
    [[255, 55]]
    """

    def __init__(self, p: float = 0.5):
        self.p = p

    def changed(self, x: np.ndarray, axes: tuple[int, int]) -> np.ndarray:
        """invert."""
        return invert(x)


class RandomPosterize(_Toned):
    """Only so many bits of each channel, with probability p. Raises ValueError for bits outside 0 to 8.

    >>> RandomPosterize(2, p=1.0)(np.array([[63, 200]], np.uint8)).tolist()
    [[0, 192]]
    """

    def __init__(self, bits: int, p: float = 0.5):
        if not 0 <= bits <= 8:
            raise ValueError(f"RandomPosterize: bits are 0 to 8, not {bits}")
        self.bits, self.p = bits, p

    def changed(self, x: np.ndarray, axes: tuple[int, int]) -> np.ndarray:
        """posterize."""
        return posterize(x, self.bits)


class RandomSolarize(_Toned):
    """What is not below a threshold (of bytes, or of floats in [0, 1]) inverted, with probability p.

    >>> RandomSolarize(128, p=1.0)(np.array([[63, 200]], np.uint8)).tolist()
    [[63, 55]]
    """

    def __init__(self, threshold: float, p: float = 0.5):
        self.threshold, self.p = threshold, p

    def changed(self, x: np.ndarray, axes: tuple[int, int]) -> np.ndarray:
        """solarize."""
        return solarize(x, self.threshold)


class RandomAutocontrast(RandomInvert):
    """The darkest pixel of each channel black and the lightest white, with probability p.

    >>> RandomAutocontrast(p=1.0)(np.array([[50, 101]], np.uint8)).tolist()
    [[0, 255]]
    """

    def changed(self, x: np.ndarray, axes: tuple[int, int]) -> np.ndarray:
        """autocontrast."""
        return autocontrast(x, axes)


class RandomEqualize(RandomInvert):
    """The brightnesses of each channel spread evenly, with probability p.

    >>> RandomEqualize(p=1.0)(np.repeat(np.array([[50, 100]], np.uint8), 256, 0))[0].tolist()
    [0, 255]
    """

    def changed(self, x: np.ndarray, axes: tuple[int, int]) -> np.ndarray:
        """equalize."""
        return equalize(x, axes)


class RandomGrayscale(_Toned):
    """Brightness in all three channels, with probability p; an image of one channel stays.

    >>> RandomGrayscale(p=1.0)(np.array([[[255, 0, 0]]], np.uint8)).tolist()
    [[[76, 76, 76]]]
    """

    def __init__(self, p: float = 0.1):
        self.p = p

    def changed(self, x: np.ndarray, axes: tuple[int, int]) -> np.ndarray:
        """The brightness, as often as there are channels."""
        axis = -1 if axes == (-3, -2) else -3
        if x.ndim == 2 or x.shape[axis] == 1:
            return x
        return np.repeat(np.expand_dims(luma(x, axis), axis), 3, axis)


class RandomAdjustSharpness(_Toned):
    """Sharper (a factor above 1) or smoother (below), with probability p. Raises ValueError for a negative factor.

    >>> RandomAdjustSharpness(1.0, p=1.0)(np.array([[50, 100]], np.uint8)).tolist()
    [[50, 100]]
    """

    def __init__(self, sharpness_factor: float, p: float = 0.5):
        if sharpness_factor < 0 or not math.isfinite(sharpness_factor):
            raise ValueError(f"RandomAdjustSharpness: a factor of 0 or more is wanted, not {sharpness_factor}")
        self.sharpness_factor, self.p = sharpness_factor, p

    def changed(self, x: np.ndarray, axes: tuple[int, int]) -> np.ndarray:
        """sharpen."""
        return sharpen(x, axes, self.sharpness_factor)
