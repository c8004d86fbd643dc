"""Random colours, blur and distortions of images, with torchvision.transforms' names, arguments and formulas.

Promises: bytes come out as Pillow makes them, floats in [0, 1] as torchvision's tensors do; what is drawn belongs to the sample, as everywhere in
md.data.transforms, and is not what torchvision would draw.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from minidl.data.pictures import Picture, Transform
from minidl.data.randomness import Draws
from minidl.data.resampling import mode_of

__all__ = ["ColorJitter", "GaussianBlur", "RandomAffine", "RandomPerspective", "RandomRotation"]


def luma(x: np.ndarray, axis: int) -> np.ndarray:
    """The brightness of red, green and blue along an axis (ITU-R 601); of bytes in integers, as Pillow does."""
    r, g, b = np.moveaxis(x, axis, 0)
    if x.dtype == np.uint8:
        return ((r.astype(np.uint32) * 19595 + g.astype(np.uint32) * 38470 + b.astype(np.uint32) * 7471 + 0x8000) >> 16).astype(np.uint8)
    return (0.2989 * r + 0.587 * g + 0.114 * b).astype(x.dtype)


def blend(to: Any, x: np.ndarray, factor: float) -> np.ndarray:
    """x for factor 1, `to` for 0, beyond x for more; bytes are cut, as Pillow does."""
    if x.dtype == np.uint8:
        low = np.asarray(to).astype(np.float32)
        return np.clip(low + np.float32(factor) * (x.astype(np.float32) - low), 0, 255).astype(np.uint8)
    return np.clip(factor * x + (1.0 - factor) * to, 0, 1).astype(x.dtype)


def _hsv(r: np.ndarray, g: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Hue in [0, 1), saturation and value of floats."""
    high, low = np.maximum(np.maximum(r, g), b), np.minimum(np.minimum(r, g), b)
    spread = high - low
    safe = np.where(spread == 0, 1, spread)
    rc, gc, bc = ((high - v) / safe for v in (r, g, b))
    h = np.where(r == high, bc - gc, np.where(g == high, 2 + rc - bc, 4 + gc - rc))
    return np.where(spread == 0, 0, np.fmod(h / 6 + 1, 1)), spread / np.where(high == 0, 1, high), high


def _rgb(h: np.ndarray, s: np.ndarray, v: np.ndarray, level: Callable[[np.ndarray], np.ndarray]) -> list[np.ndarray]:
    """Red, green and blue of a hue in sixths of the circle; level: what is done to values that are computed."""
    i = np.floor(h)
    f = h - i
    p, q, t = level(v * (1 - s)), level(v * (1 - s * f)), level(v * (1 - s * (1 - f)))
    which = i.astype(np.int64) % 6
    return [np.choose(which, c) for c in ([v, q, p, p, t, v], [t, v, v, q, p, p], [p, p, t, v, v, q])]


def _turned(x: np.ndarray, axis: int, hue: float) -> np.ndarray:
    """The image with its hues turned by a part of the circle."""
    if x.dtype != np.uint8:
        h, s, v = _hsv(*np.moveaxis(x, axis, 0))
        return np.stack(_rgb((h + hue) % 1.0 * 6, s, v, lambda p: np.clip(p, 0, 1)), axis).astype(x.dtype)
    h, s, v = _hsv(*np.moveaxis(x.astype(np.float32), axis, 0))
    h = (np.floor(h * 255).astype(np.int64) + int(hue * 255)) & 255  # Pillow's picture of hues has bytes, too
    s = np.floor(s * 255) / np.float32(255)
    return np.stack(_rgb(h.astype(np.float32) * np.float32(6 / 255), s, v, lambda p: np.clip(np.floor(p + 0.5), 0, 255)), axis).astype(np.uint8)


def _range(name: str, value: Any, center: float, low: float, high: float) -> tuple[float, float] | None:
    """Between which factors is drawn; None for no change. Raises ValueError for what is out of bounds."""
    pair = (value, value) if np.ndim(value) == 0 else tuple(value)
    if np.ndim(value) == 0:
        if value < 0:
            raise ValueError(f"ColorJitter: {name} as one number must not be negative, got {value}")
        pair = (max(center - value, low) if center else -value, center + value)
    if len(pair) != 2 or not low <= pair[0] <= pair[1] <= high:
        raise ValueError(f"ColorJitter: {name} is a number or (smallest, largest) within [{low}, {high}], got {value!r}")
    return None if pair[0] == pair[1] == center else (float(pair[0]), float(pair[1]))


class ColorJitter(Transform):
    """Random brightness, contrast, saturation and hue, in random order.

    brightness, contrast, saturation: a number a for factors between max(0, 1 - a) and 1 + a, or (smallest, largest). hue: a number a up to 0.5 for
    turns between -a and a of the circle, or (smallest, largest). Images without colours keep their saturation and hue. Raises ValueError for numbers
    out of bounds, and for an image that has neither 1 nor 3 channels.

    >>> import numpy
    >>> md.data.transforms.ColorJitter(brightness=(0.5, 0.5))(numpy.full((1, 1, 3), 100, "uint8")).tolist()
    [[[50, 50, 50]]]
    """

    def __init__(self, brightness: Any = 0, contrast: Any = 0, saturation: Any = 0, hue: Any = 0):
        self.brightness = _range("brightness", brightness, 1, 0, math.inf)
        self.contrast = _range("contrast", contrast, 1, 0, math.inf)
        self.saturation = _range("saturation", saturation, 1, 0, math.inf)
        self.hue = _range("hue", hue, 0, -0.5, 0.5)

    def apply(self, picture: Picture, draws: Draws) -> None:
        """Draw an order and four numbers, and change the picture by each."""
        steps = [(self.brightness, brighter), (self.contrast, stronger), (self.saturation, richer), (self.hue, _turned)]
        order = sorted(range(4), key=[draws.word() for _ in range(4)].__getitem__)
        factors = [None if span is None else draws.uniform(*span) for span, _ in steps]
        x = picture.array
        axis = -3 if picture.tensor and x.ndim > 2 else -1
        gray = x.ndim == 2
        x = x[..., None] if gray else x
        if x.shape[axis] not in (1, 3):
            raise ValueError(f"ColorJitter: an image with 1 or 3 channels is wanted, this has {x.shape[axis]}")
        for i in order:
            if (factor := factors[i]) is not None and (i < 2 or x.shape[axis] == 3):
                x = steps[i][1](x, axis, factor)
        picture.array = x[..., 0] if gray else x


def brighter(x: np.ndarray, axis: int, factor: float) -> np.ndarray:
    return blend(np.zeros((), x.dtype), x, factor)


def stronger(x: np.ndarray, axis: int, factor: float) -> np.ndarray:
    gray = np.expand_dims(luma(x, axis), axis) if x.shape[axis] == 3 else x
    mean = gray.mean(axis=(-3, -2, -1), keepdims=True, dtype=np.float64)
    return blend(np.floor(mean + 0.5) if x.dtype == np.uint8 else mean.astype(x.dtype), x, factor)


def richer(x: np.ndarray, axis: int, factor: float) -> np.ndarray:
    return blend(np.expand_dims(luma(x, axis), axis), x, factor)


class GaussianBlur(Transform):
    """A Gaussian blur, of a standard deviation between two numbers; the edges are mirrored.

    kernel_size: odd, one number or (width, height). sigma: a number or (smallest, largest). Raises ValueError for an even or negative size, a sigma
    that is not positive, and for an image that is too small to be mirrored.

    >>> import numpy
    >>> md.data.transforms.GaussianBlur(3, sigma=1.0)(100 * numpy.eye(3, dtype="uint8")).tolist()
    [[50, 37, 30], [37, 35, 37], [30, 37, 50]]
    """

    def __init__(self, kernel_size: Any, sigma: Any = (0.1, 2.0)):
        size = (kernel_size, kernel_size) if np.ndim(kernel_size) == 0 else tuple(kernel_size)
        span = (sigma, sigma) if np.ndim(sigma) == 0 else tuple(sigma)
        if len(size) != 2 or not all(isinstance(k, int) and k > 0 and k % 2 for k in size):
            raise ValueError(f"GaussianBlur: kernel_size is an odd number or two (width, height), got {kernel_size!r}")
        if len(span) != 2 or not 0 < span[0] <= span[1]:
            raise ValueError(f"GaussianBlur: sigma is a positive number or (smallest, largest), got {sigma!r}")
        self.kernel_size, self.sigma = size, span

    def apply(self, picture: Picture, draws: Draws) -> None:
        """Draw a width, and blur rows and columns."""
        sigma = draws.uniform(*self.sigma)
        x = picture.array
        work = x if x.dtype.kind == "f" else x.astype(np.float32)
        for axis, k in zip(picture.axes[::-1], self.kernel_size, strict=True):
            n, half = x.shape[axis], k // 2
            if half >= n:
                raise ValueError(f"GaussianBlur: a kernel of {k} mirrors {half} pixels, and the image has {n}")
            weights = np.exp(-0.5 * (np.arange(-half, half + 1) / sigma) ** 2)
            weights = (weights / weights.sum()).astype(work.dtype)
            wide = np.moveaxis(np.pad(work, [(half, half) if i - work.ndim == axis else (0, 0) for i in range(work.ndim)], "reflect"), axis, -1)
            work = np.moveaxis(np.lib.stride_tricks.sliding_window_view(wide, k, -1) @ weights, -1, axis)
        picture.array = work if x.dtype.kind == "f" else np.clip(np.round(work), 0, 255 if x.dtype == np.uint8 else None).astype(x.dtype)


def _sampled(picture: Picture, xin: np.ndarray, yin: np.ndarray, mode: str, fill: Any) -> np.ndarray:
    """The picture at real places (pixel centers at halves), and `fill` outside; bytes as Pillow does, which rounds down what it computes from one
    neighbour to the other, floats as torch.nn.functional.grid_sample."""
    first, x = picture.tensor or picture.array.ndim == 2, picture.array
    x = x if first else np.moveaxis(x, -1, 0)  # rows and columns last
    h, w = x.shape[-2:]
    value = np.asarray(fill, np.float64).reshape((-1, 1, 1) if np.ndim(fill) else ())
    inside = (xin >= 0) & (xin < w) & (yin >= 0) & (yin < h)
    at = lambda row, column: x[..., np.clip(row, 0, h - 1), np.clip(column, 0, w - 1)]
    if mode == "nearest":
        out = np.where(inside, at(np.floor(yin).astype(np.int64), np.floor(xin).astype(np.int64)), value)
    else:
        left, top = np.floor(xin - 0.5).astype(np.int64), np.floor(yin - 0.5).astype(np.int64)
        dx, dy, out = xin - 0.5 - left, yin - 0.5 - top, np.zeros(())
        if x.dtype == np.uint8:
            between = lambda p, q, d: p + (q.astype(np.float64) - p) * d
            upper, lower = (between(at(r, left), at(r, left + 1), dx) for r in (top, top + 1))
            out = np.where(inside, between(upper, lower, dy), value)
        else:
            for row, column, weight in ((0, 0, (1 - dy) * (1 - dx)), (0, 1, (1 - dy) * dx), (1, 0, dy * (1 - dx)), (1, 1, dy * dx)):
                r, c = top + row, left + column
                out = out + weight * np.where((r >= 0) & (r < h) & (c >= 0) & (c < w), at(r, c), value)
    out = out.astype(x.dtype)
    return out if first else np.moveaxis(out, 0, -1)


def _mode(name: str, interpolation: Any) -> str:
    mode = mode_of(interpolation)
    if mode not in ("nearest", "bilinear"):
        raise ValueError(f'{name}: interpolation is "nearest" or "bilinear", not {mode!r}')
    return mode


def _span(name: str, what: str, value: Any) -> tuple[float, ...]:
    pair = (-value, value) if np.ndim(value) == 0 else tuple(value)
    if (np.ndim(value) == 0 and value < 0) or len(pair) not in ((2, 4) if what == "shear" else (2,)):
        raise ValueError(f"{name}: {what} is a number that is not negative, or (smallest, largest), got {value!r}")
    return pair


class RandomAffine(Transform):
    """A random rotation (clockwise), shift, scale and shear about the middle.

    degrees: a number d for angles between -d and d, or (smallest, largest). translate: the largest shifts, as parts of the width and height. scale:
    (smallest, largest). shear: degrees along x, a number or (smallest, largest), or four numbers, for x and y. interpolation: "nearest" or
    "bilinear". fill: what comes in from outside, a number or one for each channel. center: (x, y) in place of the middle. Raises ValueError for
    numbers out of bounds.

    >>> import numpy
    >>> md.data.transforms.RandomAffine((90, 90))(numpy.array([[1, 2], [3, 4]], "uint8")).tolist()
    [[3, 1], [4, 2]]
    """

    def __init__(
        self,
        degrees: Any,
        translate: Sequence[float] | None = None,
        scale: Sequence[float] | None = None,
        shear: Any = None,
        interpolation: Any = "nearest",
        fill: Any = 0,
        center: Sequence[float] | None = None,
    ):
        self.degrees, self.shear = _span("RandomAffine", "degrees", degrees), None if shear is None else _span("RandomAffine", "shear", shear)
        if translate is not None and (len(translate) != 2 or not all(0 <= t <= 1 for t in translate)):
            raise ValueError(f"RandomAffine: translate is two numbers within [0, 1], got {translate!r}")
        if scale is not None and not 0 < scale[0] <= scale[1]:
            raise ValueError(f"RandomAffine: scale is (smallest, largest), positive, got {scale!r}")
        self.translate, self.scale, self.interpolation, self.fill, self.center = translate, scale, _mode("RandomAffine", interpolation), fill, center

    def apply(self, picture: Picture, draws: Draws) -> None:
        """Draw the parameters, and take each pixel from where it comes from."""
        h, w = picture.size
        angle = draws.uniform(*self.degrees[:2])
        shift = [0, 0] if self.translate is None else [round(draws.uniform(-t * n, t * n)) for t, n in zip(self.translate, (w, h), strict=True)]
        scale = 1.0 if self.scale is None else draws.uniform(*self.scale)
        shear = [draws.uniform(*self.shear[i : i + 2]) for i in range(0, len(self.shear), 2)] if self.shear else [0.0]
        shear = [shear[0], shear[1] if len(shear) > 1 else 0.0]
        affine(picture, angle, shift, scale, shear, self.center, self.interpolation, self.fill)


def affine(
    picture: Picture, angle: float = 0.0, shift: Sequence[float] = (0, 0), scale: float = 1.0, shear: Sequence[float] = (0.0, 0.0),
    center: Sequence[float] | None = None, mode: str = "nearest", fill: Any = 0, size: tuple[int, int] | None = None,
) -> None:  # fmt: skip
    """Rotate (clockwise), scale, shear and shift the picture about a center; size: of the result, whose middle is that of the picture."""
    h, w = picture.size
    high, wide = size or (h, w)
    a, b, c, d = _inverse(angle, scale, *shear)
    cx, cy = (w / 2, h / 2) if center is None else center
    x, y = np.meshgrid(np.arange(wide), np.arange(high))

    def places(along: float, across: float, middle: float) -> np.ndarray:
        start = along * (-cx - shift[0]) + across * (-cy - shift[1]) + middle
        start = along * ((w - wide) / 2) + across * ((h - high) / 2) + start
        if mode == "nearest" and picture.array.dtype == np.uint8:  # in whole 65536ths, as Pillow does: where two pixels are as near it matters
            first, step, row = (np.floor(v * 65536 + 0.5) for v in (start + along * 0.5 + across * 0.5, along, across))
            return (first + x * step + y * row) / 65536
        return along * (x + 0.5) + across * (y + 0.5) + start

    picture.array = _sampled(picture, places(a, b, cx), places(c, d, cy), mode, fill)


class RandomRotation(Transform):
    """A random rotation (counter-clockwise) about the middle, or about center=(x, y).

    degrees, interpolation, fill: as RandomAffine. expand=True makes the image large enough for all of the rotated one. Raises ValueError for numbers
    out of bounds, and for expand with a center.

    >>> import numpy
    >>> RandomRotation((90, 90))(numpy.array([[1, 2], [3, 4]], "uint8")).tolist()
    [[2, 4], [1, 3]]
    """

    def __init__(self, degrees: Any, interpolation: Any = "nearest", expand: bool = False, center: Sequence[float] | None = None, fill: Any = 0):
        if expand and center is not None:
            raise ValueError("RandomRotation: expand is for rotations about the middle; give no center")
        self.degrees, self.interpolation = _span("RandomRotation", "degrees", degrees), _mode("RandomRotation", interpolation)
        self.expand, self.center, self.fill = expand, center, fill

    def apply(self, picture: Picture, draws: Draws) -> None:
        """Draw an angle, and take each pixel from where it comes from."""
        angle, size, (h, w) = draws.uniform(*self.degrees), None, picture.size
        quarters, rest = divmod(angle % 360, 90)
        if not rest and self.center is None and (not quarters % 2 or self.expand or h == w):
            picture.array = np.rot90(picture.array, int(quarters), picture.axes)
            return
        if self.expand:
            turn = math.radians(angle)
            size = _around(h, w, turn), _around(w, h, turn)
        affine(picture, -(angle % 360), center=self.center, mode=self.interpolation, fill=self.fill, size=size)


def _around(side: int, other: int, turn: float) -> int:
    """The side of an image that holds the one which is turned, by whole pixels."""
    half = (abs(side * math.cos(turn)) + abs(other * math.sin(turn))) / 2
    return math.ceil(round(side / 2 + half, 9)) - math.floor(round(side / 2 - half, 9))


def _inverse(angle: float, scale: float, shear_x: float, shear_y: float) -> tuple[float, float, float, float]:
    """The matrix from places in the result to places in the image, of rotation · shear · scale."""
    rot, sx, sy = (math.radians(v) for v in (angle, shear_x, shear_y))
    a, c = math.cos(rot - sy) / math.cos(sy), math.sin(rot - sy) / math.cos(sy)
    b, d = -a * math.tan(sx) - math.sin(rot), -c * math.tan(sx) + math.cos(rot)
    return round(d / scale, 15), round(-b / scale, 15), round(-c / scale, 15), round(a / scale, 15)  # right angles are exact, as Pillow's


class RandomPerspective(Transform):
    """With probability p the image as seen from a random side: its corners move inwards, by at most distortion_scale of half the sides.

    interpolation, fill: as RandomAffine. Raises ValueError for a distortion_scale or p outside [0, 1].

    >>> import numpy
    >>> md.data.transforms.RandomPerspective(0.0, p=1.0)(numpy.array([[1, 2], [3, 4]], "uint8")).tolist()
    [[1, 2], [3, 4]]
    """

    def __init__(self, distortion_scale: float = 0.5, p: float = 0.5, interpolation: Any = "bilinear", fill: Any = 0):
        if not 0 <= distortion_scale <= 1 or not 0 <= p <= 1:
            raise ValueError(f"RandomPerspective: distortion_scale and p lie within [0, 1], got {distortion_scale} and {p}")
        self.distortion_scale, self.p, self.interpolation, self.fill = distortion_scale, p, _mode("RandomPerspective", interpolation), fill

    def apply(self, picture: Picture, draws: Draws) -> None:
        """Draw whether, and where the corners go."""
        if draws.uniform() >= self.p:
            return
        h, w = picture.size
        dx, dy = int(self.distortion_scale * (w // 2)), int(self.distortion_scale * (h // 2))
        corners = [(0, 0), (w - 1, 0), (w - 1, h - 1), (0, h - 1)]
        ends = [(abs(cx - draws.below(dx + 1)), abs(cy - draws.below(dy + 1))) for cx, cy in corners]
        picture.array = _sampled(picture, *_seen(h, w, corners, ends), self.interpolation, self.fill)


def _seen(h: int, w: int, corners: Sequence[tuple[int, int]], ends: Sequence[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    """From where each pixel comes when `corners` go to `ends`: the eight coefficients of a projective map solve a linear system."""
    rows = [r for (x, y), (u, v) in zip(ends, corners, strict=True) for r in ((x, y, 1, 0, 0, 0, -u * x, -u * y), (0, 0, 0, x, y, 1, -v * x, -v * y))]
    a = np.linalg.lstsq(np.array(rows, np.float64), np.array(corners, np.float64).ravel(), rcond=None)[0].round(12)  # what stays, stays exactly
    x, y = np.meshgrid(np.arange(w) + 0.5, np.arange(h) + 0.5)
    below = a[6] * x + a[7] * y + 1
    return (a[0] * x + a[1] * y + a[2]) / below, (a[3] * x + a[4] * y + a[5]) / below
