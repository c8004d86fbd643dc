"""Padding, pixel shuffles and resampling as functions; all are names of minidl.nn.functional.

Resampling works axis by axis: each output place is a weighted sum of a few input places, which are read by index. So an infinity or nan spoils only
the places that really depend on it.
"""

from __future__ import annotations

import functools
import inspect
import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

import minidl as md
from minidl.nn.functional.kernels import by_kernel

__all__ = [
    "affine_grid", "channel_shuffle", "grid_sample", "interpolate", "pad", "pixel_shuffle", "pixel_unshuffle", "upsample", "upsample_bilinear",
    "upsample_nearest",
]  # fmt: skip


# ---- padding --------------------------------------------------------------------------------------------------------------------------
def pad(input: md.Tensor, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> md.Tensor:
    """A border round the last axes: pad is (before, after) of the last axis, then of the one before it, and so on. Negative numbers crop.

    mode: "constant" (value, 0 by default), "reflect" (mirrored without the edge), "replicate" (the edge), "circular" (the other side). Raises
    ValueError for other modes, an odd number of widths, and a border that is wider than the input can fill.

    >>> pad(md.tensor([[1, 2, 3]]), (1, 1), mode="reflect").tolist()
    [[2, 1, 2, 3, 2]]
    """
    widths = [(pad[i], pad[i + 1]) for i in range(0, len(pad) - 1, 2)]
    if len(pad) % 2 or len(widths) > input.ndim:
        raise ValueError(f"pad: {tuple(pad)} should be a pair for each of at most {input.ndim} axes, the last axis first")
    if mode == "constant":
        return md.pad(input, ((0, 0),) * (input.ndim - len(widths)) + tuple(reversed(widths)), 0 if value is None else value)
    if mode not in ("reflect", "replicate", "circular"):
        raise ValueError(f'pad: mode is "constant", "reflect", "replicate" or "circular", not {mode!r}')
    if value not in (None, 0):
        raise ValueError(f"pad: mode {mode!r} takes no value")
    if input.ndim > 1 and len(widths) > input.ndim - 1:
        raise ValueError(f"pad: mode {mode!r} pads the last {input.ndim - 1} axes of shape {input.shape} at most")
    if any(min(before, 0) + min(after, 0) < -n for (before, after), n in zip(widths, reversed(input.shape), strict=False)):
        raise ValueError(f"pad: {tuple(pad)} crops more of shape {input.shape} than there is")
    return _bordered(input, tuple(pad), mode)


@by_kernel("bordered")
def _bordered(x: md.Tensor, /, widths: tuple[int, ...], mode: str) -> md.Tensor:
    for i in range(len(widths) // 2):
        x = _extended(x, x.ndim - 1 - i, widths[2 * i], widths[2 * i + 1], mode)
    return x


def _part(x: md.Tensor, axis: int, start: int, stop: int) -> md.Tensor:
    return x[(slice(None),) * axis + (slice(start, stop),)]


def _extended(x: md.Tensor, axis: int, before: int, after: int, mode: str) -> md.Tensor:
    if before < 0 or after < 0:  # what is cropped can be seen in a mirror still, and not from the other side
        if mode != "circular":
            x, before, after = _extended(x, axis, max(before, 0), max(after, 0), mode), min(before, 0), min(after, 0)
        x = _part(x, axis, max(-before, 0), max(x.shape[axis] - max(-after, 0), 0))
        before, after = max(before, 0), max(after, 0)
    if not (before or after):
        return x
    n = x.shape[axis]
    most = {"reflect": n - 1, "replicate": math.inf if n else 0, "circular": n}[mode]
    if max(before, after) > most:
        raise ValueError(f"pad: mode {mode!r} cannot add {max(before, after)} places to axis {axis} of shape {x.shape}; at most {most}")
    if mode == "reflect":
        left, right = md.flip(_part(x, axis, 1, before + 1), axis=axis), md.flip(_part(x, axis, n - 1 - after, n - 1), axis=axis)
    elif mode == "circular":
        left, right = _part(x, axis, n - before, n), _part(x, axis, 0, after)
    else:
        left, right = md.repeat(_part(x, axis, 0, 1), before, axis=axis), md.repeat(_part(x, axis, n - 1, n), after, axis=axis)
    return md.concat([part for part, width in ((left, before), (x, 1), (right, after)) if width], axis=axis)


# ---- shuffles -------------------------------------------------------------------------------------------------------------------------
def pixel_shuffle(input: md.Tensor, upscale_factor: int) -> md.Tensor:
    """[..., C r², H, W] → [..., C, H r, W r]: channels become pixels (W. Shi et al., CVPR 2016). Raises ValueError where r² does not divide.

    >>> pixel_shuffle(md.ones((1, 8, 2, 3)), 2).shape
    (1, 2, 4, 6)
    """
    r = upscale_factor
    if r < 1 or input.ndim < 3 or input.shape[-3] % (r * r):
        raise ValueError(f"pixel_shuffle: the channels of shape {input.shape} ([..., C, H, W]) cannot be split by {r}²")
    *lead, c, h, w = input.shape
    k = len(lead)
    x = input.reshape((*lead, c // (r * r), r, r, h, w))
    x = md.permute_dims(x, (*range(k), k, k + 3, k + 1, k + 4, k + 2))
    return x.reshape((*lead, c // (r * r), h * r, w * r))


def pixel_unshuffle(input: md.Tensor, downscale_factor: int) -> md.Tensor:
    """The inverse of pixel_shuffle: [..., C, H r, W r] → [..., C r², H, W]. Raises ValueError where r does not divide.

    >>> md.nn.functional.pixel_unshuffle(md.ones((1, 1, 4, 6)), 2).shape
    (1, 4, 2, 3)
    """
    r = downscale_factor
    if r < 1 or input.ndim < 3 or input.shape[-1] % r or input.shape[-2] % r:
        raise ValueError(f"pixel_unshuffle: the last two axes of shape {input.shape} ([..., C, H, W]) cannot be split by {r}")
    *lead, c, h, w = input.shape
    k = len(lead)
    x = input.reshape((*lead, c, h // r, r, w // r, r))
    x = md.permute_dims(x, (*range(k), k, k + 2, k + 4, k + 1, k + 3))
    return x.reshape((*lead, c * r * r, h // r, w // r))


def channel_shuffle(input: md.Tensor, groups: int) -> md.Tensor:
    """Channels of [N, C, ...] taken from the groups in turn (X. Zhang et al., ShuffleNet, CVPR 2018).

    Raises ValueError for fewer than three axes, and for groups that do not divide the channels.

    >>> md.nn.functional.channel_shuffle(md.reshape(md.arange(4), (1, 4, 1)), 2).tolist()
    [[[0], [2], [1], [3]]]
    """
    if input.ndim < 3 or groups < 1 or input.shape[1] % groups:
        raise ValueError(f"channel_shuffle: the channels of shape {input.shape} cannot be split into {groups} groups")
    n, c, *rest = input.shape
    return md.swapaxes(input.reshape((n, groups, c // groups, *rest)), 1, 2).reshape(input.shape)


# ---- resampling -----------------------------------------------------------------------------------------------------------------------
_MODES = {"nearest": (3, 4, 5), "nearest-exact": (3, 4, 5), "area": (3, 4, 5), "linear": (3,), "bilinear": (4,), "bicubic": (4,), "trilinear": (5,)}


def interpolate(
    input: md.Tensor,
    size: int | Sequence[int] | None = None,
    scale_factor: float | Sequence[float] | None = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> md.Tensor:
    """input [N, C, ...] resampled to a size, or by a factor, for each spatial axis.

    mode: "nearest", "nearest-exact", "area" (any rank), "linear" ([N, C, L]), "bilinear", "bicubic" ([N, C, H, W]), "trilinear" ([N, C, D, H, W]).
    align_corners: the corner pixels keep their places. recompute_scale_factor: take the factor from the rounded size. Raises ValueError for other
    combinations. antialias ("bilinear", "bicubic"): when an axis shrinks, each place takes the mean of all that it covers.

    >>> interpolate(md.tensor([[[1.0, 2.0]]]), scale_factor=2).tolist()
    [[[1.0, 1.0, 2.0, 2.0]]]
    """
    n = input.ndim - 2
    if mode not in _MODES or input.ndim not in _MODES[mode]:
        raise ValueError(f"interpolate: mode {mode!r} does not take shape {input.shape}; modes and numbers of axes: {_MODES}")
    if antialias and mode not in ("bilinear", "bicubic"):
        raise ValueError(f"interpolate: antialias=True is for mode 'bilinear' and 'bicubic', not {mode!r}")
    if align_corners is not None and mode in ("nearest", "nearest-exact", "area"):
        raise ValueError(f"interpolate: align_corners means nothing in mode {mode!r}")
    if (size is None) == (scale_factor is None):
        raise ValueError("interpolate: give either size or scale_factor")
    spatial = input.shape[2:]
    scales: tuple[float | None, ...] = (None,) * n
    if size is not None:
        if recompute_scale_factor:
            raise ValueError("interpolate: recompute_scale_factor means nothing with a size")
        sizes = (size,) * n if isinstance(size, int) else tuple(size)
    else:
        factors = (scale_factor,) * n if isinstance(scale_factor, (int, float)) else tuple(scale_factor)  # type: ignore[arg-type]
        if len(factors) != n:
            raise ValueError(f"interpolate: scale_factor {factors} for the spatial axes {spatial}: one number, or one for each, is wanted")
        sizes = tuple(math.floor(s * f) for s, f in zip(spatial, factors, strict=True))
        if not recompute_scale_factor:
            scales = tuple(float(f) for f in factors)  # type: ignore[arg-type]
    if len(sizes) != n or min(*sizes, *spatial) < 1:
        raise ValueError(f"interpolate: sizes {sizes} for the spatial axes {spatial}: one of at least 1 for each is wanted")
    if mode == "area":
        from minidl.nn.functional.pooling import adaptive_avg_pool

        return adaptive_avg_pool(n, input, sizes)
    if mode.startswith("nearest") and all(b % a == 0 and _step(a, b, s, False) == a / b for a, b, s in zip(spatial, sizes, scales, strict=True)):
        return _enlarged(input, sizes)
    if mode == "bilinear" and not antialias:
        return _bilinear(input, sizes, scales, bool(align_corners))
    x = input
    for axis, (old, new, scale) in enumerate(zip(spatial, sizes, scales, strict=True), start=2):
        step = _step(old, new, scale, bool(align_corners))
        if mode.startswith("nearest"):
            x = _nearest(x, axis, old, new, step, mode == "nearest-exact")
        elif antialias:
            x = _averaged(x, axis, old, new, step, mode == "bicubic")
        elif new != old or step != 1:
            x = _smooth(x, axis, old, new, step, bool(align_corners), mode == "bicubic")
    return x


@by_kernel("enlarged")
def _enlarged(x: md.Tensor, /, sizes: tuple[int, ...]) -> md.Tensor:
    """The nearest of each, by whole factors, of all axes together: one copy."""
    apart = x.reshape((*x.shape[:2], *(v for a in x.shape[2:] for v in (a, 1))))
    wide = (*x.shape[:2], *(v for a, b in zip(x.shape[2:], sizes, strict=True) for v in (a, b // a)))
    return md.broadcast_to(apart, wide).reshape((*x.shape[:2], *sizes))


@by_kernel("bilinear")
def _bilinear(x: md.Tensor, /, sizes: tuple[int, ...], scales: tuple[float | None, ...], align: bool) -> md.Tensor:
    for axis, (old, new, scale) in enumerate(zip(x.shape[2:], sizes, scales, strict=True), start=2):
        step = _step(old, new, scale, align)
        if new != old or step != 1:
            x = _smooth(x, axis, old, new, step, align, False)
    return x


def _step(old: int, new: int, scale: float | None, align: bool) -> float:
    """The distance of neighbouring output places, in input places."""
    if align:
        return (old - 1) / (new - 1) if new > 1 else 0.0
    return 1.0 / scale if scale is not None and scale > 0 else old / new


def _nearest(x: md.Tensor, axis: int, old: int, new: int, step: float, exact: bool) -> md.Tensor:
    if new % old == 0 and step == old / new:
        return md.repeat(x, new // old, axis=axis) if new != old else x
    place = [min(int((i + 0.5 * exact) * step), old - 1) for i in range(new)]
    return md.take(x, md.asarray(place, backend=x.backend, device=x.device), axis=axis)


@functools.lru_cache(256)
def _taps(old: int, new: int, step: float, align: bool, cubic: bool) -> list[tuple[np.ndarray, np.ndarray]]:
    """For linear or cubic interpolation, of each tap: the places that it reads, and their weights."""
    at = [i * step if align else (i + 0.5) * step - 0.5 for i in range(new)]
    if not cubic:
        at = [max(v, 0.0) for v in at]
    base = [min(math.floor(v), old - 1) if not cubic else math.floor(v) for v in at]
    part = [v - b for v, b in zip(at, base, strict=True)]
    taps = ((0, [1 - t for t in part]), (1, part))
    if cubic:
        taps = tuple((o, [_cubic(t - o) for t in part]) for o in (-1, 0, 1, 2))  # type: ignore[assignment]
    return [(np.asarray([min(max(b + offset, 0), old - 1) for b in base]), np.asarray(weight)) for offset, weight in taps]


@md.extend.fused
def _smooth(x: md.Tensor, /, axis: int, old: int, new: int, step: float, align: bool, cubic: bool) -> md.Tensor:
    """Linear or cubic interpolation along one axis."""
    total: Any = None
    for place, weight in _taps(old, new, step, align, cubic):
        scale = md.asarray(weight.reshape((-1,) + (1,) * (x.ndim - 1 - axis)), dtype=x.dtype, backend=x.backend, device=x.device)
        term = md.take(x, place, axis=axis) * scale
        total = term if total is None else total + term
    return total


def _averaged(x: md.Tensor, axis: int, old: int, new: int, step: float, cubic: bool) -> md.Tensor:
    """Linear or cubic interpolation along one axis by a filter that is as wide as an output place, as Pillow's (whose cubic has a = -0.5)."""
    width = max(step, 1.0)
    rows = []
    for i in range(new):
        centre = step * (i + 0.5)
        first = max(int(centre - (2 if cubic else 1) * width + 0.5), 0)
        last = min(int(centre + (2 if cubic else 1) * width + 0.5), old)
        far = [(j - centre + 0.5) / width if first <= j < last else math.inf for j in range(old)]
        weights = [_cubic(t, -0.5) if cubic else max(1 - abs(t), 0.0) for t in far]
        rows.append([w / sum(weights) for w in weights])
    matrix = md.asarray(rows, dtype=x.dtype, backend=x.backend, device=x.device)
    return md.moveaxis(md.matmul(md.moveaxis(x, axis, -1), matrix.T), -1, axis)


def _cubic(t: float, a: float = -0.75) -> float:
    """The cubic convolution kernel (R. Keys, IEEE Transactions on Acoustics, Speech and Signal Processing 29, 1981) with PyTorch's a."""
    t = abs(t)
    return ((a + 2) * t - (a + 3)) * t * t + 1 if t <= 1 else (((t - 5) * t + 8) * t - 4) * a if t < 2 else 0.0


def upsample(
    input: md.Tensor, size: Any = None, scale_factor: Any = None, mode: str = "nearest", align_corners: bool | None = None
) -> md.Tensor:
    """interpolate under its old name.

    >>> md.nn.functional.upsample(md.tensor([[[1.0, 2.0]]]), scale_factor=2).tolist()
    [[[1.0, 1.0, 2.0, 2.0]]]
    """
    return interpolate(input, size, scale_factor, mode, align_corners)


def upsample_nearest(input: md.Tensor, size: Any = None, scale_factor: Any = None) -> md.Tensor:
    """interpolate in mode "nearest".

    >>> md.nn.functional.upsample_nearest(md.ones((1, 1, 2, 2)), scale_factor=2).shape
    (1, 1, 4, 4)
    """
    return interpolate(input, size, scale_factor, "nearest")


def upsample_bilinear(input: md.Tensor, size: Any = None, scale_factor: Any = None) -> md.Tensor:
    """interpolate in mode "bilinear" with align_corners=True.

    >>> md.nn.functional.upsample_bilinear(md.ones((1, 1, 2, 2)), scale_factor=2).shape
    (1, 1, 4, 4)
    """
    return interpolate(input, size, scale_factor, "bilinear", True)


# ---- sampling at given places ---------------------------------------------------------------------------------------------------------
def affine_grid(theta: md.Tensor, size: Sequence[int], align_corners: bool | None = None) -> md.Tensor:
    """The places that affine maps theta [N, 2, 3] (or [N, 3, 4]) send the pixels of an image of this size [N, C, H, W] to: [N, H, W, 2].

    Coordinates run from -1 to 1 (M. Jaderberg et al., Spatial transformer networks, NeurIPS 2015). Raises ValueError for a theta of another shape,
    and for one that does not fit size.

    >>> md.nn.functional.affine_grid(md.tensor([[[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]]), (1, 1, 1, 2), align_corners=True).tolist()
    [[[[-1.0, 0.0], [1.0, 0.0]]]]
    """
    n = len(size) - 2
    if n not in (2, 3) or theta.shape != (size[0], n, n + 1):
        raise ValueError(f"affine_grid: theta {theta.shape} for size {tuple(size)}: [N, 2, 3] and [N, C, H, W], or [N, 3, 4] and [N, C, D, H, W]")
    axes = []
    for s in size[2:]:
        line = [(2 * i / (s - 1) - 1 if s > 1 else 0.0) if align_corners else (2 * i + 1) / s - 1 for i in range(s)]
        axes.append(md.asarray(line, dtype=theta.dtype, backend=theta.backend, device=theta.device))
    mesh = md.meshgrid(*axes, indexing="ij")
    points = md.stack((*reversed(mesh), md.ones_like(mesh[0])), axis=-1).reshape((-1, n + 1))
    return md.matmul(points, md.matrix_transpose(theta)).reshape((size[0], *size[2:], n))


def grid_sample(
    input: md.Tensor, grid: md.Tensor, mode: str = "bilinear", padding_mode: str = "zeros", align_corners: bool | None = None
) -> md.Tensor:
    """input [N, C, H, W] read at the places grid [N, h, w, 2] (x before y, from -1 to 1): [N, C, h, w]; or the same with one more spatial axis.

    mode: "bilinear", "nearest" or, for images, "bicubic"; padding_mode: "zeros", "border" or "reflection" for places outside. Raises ValueError for
    others and for shapes that do not fit.

    >>> md.nn.functional.grid_sample(md.tensor([[[[1.0, 3.0]]]]), md.zeros((1, 1, 1, 2)), align_corners=True).tolist()
    [[[[2.0]]]]
    """
    n = input.ndim - 2
    if n not in (2, 3) or grid.ndim != input.ndim or grid.shape[-1] != n or grid.shape[0] != input.shape[0]:
        raise ValueError(f"grid_sample: grid {grid.shape} for input {input.shape}: [N, h, w, 2] and [N, C, H, W], or with one more axis each")
    if mode not in ("bilinear", "nearest", *["bicubic"] * (n == 2)) or padding_mode not in ("zeros", "border", "reflection"):
        raise ValueError(
            f'grid_sample: mode "bilinear", "nearest" or (for 4 axes) "bicubic", padding_mode "zeros", "border" or "reflection"; got {mode!r}, '
            f"{padding_mode!r}"
        )
    return _sampled(input, grid, mode, padding_mode, bool(align_corners), _slopes_on(md.extend.home(input)))


@functools.cache
def _slopes_on(xp: Any) -> Any:
    return functools.partial(_slopes, xp)


def _slopes(xp: Any, input: Any, grid: Any, g: Any, *how: Any) -> Any:
    """Of arrays: the derivative of these samples in the grid, for a kernel that leaves some places to it."""
    x, at, ct = (md.Tensor(v, xp, xp.dtype_of(v)) for v in (input, grid, g))
    return md.vjp(lambda v: inspect.unwrap(_sampled)(x, v, *how, None), at)[1](ct)[0].payload


@by_kernel("sampled")
def _sampled(input: md.Tensor, grid: md.Tensor, /, mode: str, padding_mode: str, align: bool, slopes: Any) -> md.Tensor:
    size, n = input.shape[2:], input.ndim - 2
    at = []
    for i, s in enumerate(size):
        v = grid[..., n - 1 - i]
        v = (v + 1) * ((s - 1) / 2) if align else ((v + 1) * s - 1) / 2
        at.append(v if mode == "bicubic" else _inside(v, s, padding_mode, align))
    flat = input.reshape((*input.shape[:2], -1))
    if mode == "bicubic":
        return _bicubic(flat, at, size, grid.shape[1:-1], padding_mode, align)
    if mode == "nearest":
        return _read(flat, [md.round(v) for v in at], size, grid.shape[1:-1])
    return _linear(flat, at, size)


def _linear(flat: md.Tensor, at: list[md.Tensor], size: Sequence[int]) -> md.Tensor:
    """Linear interpolation between the pixels round each place [N, *shape], which are read at once."""
    (batch, *shape), n = at[0].shape, len(at)
    pairs: list[list[md.Tensor]] = [[], [], []]  # on each axis, of the pixel below and the one above: whether it is there, its place, its weight
    for k, (v, s) in enumerate(zip(at, size, strict=True)):
        low = md.floor(v.detach())
        place, weight = md.stack([low, low + 1], axis=1), md.stack([low + 1 - v, v - low], axis=1)
        there = md.logical_and(place >= 0, place <= s - 1)
        wide = (batch, *(2 if i == k else 1 for i in range(n)), *shape)
        for found, x in zip(pairs, (there, md.clip(place, 0.0, s - 1.0).to(md.int64), weight), strict=True):
            found.append(x.reshape(wide))
    inside, weights = functools.reduce(md.logical_and, pairs[0]), functools.reduce(md.multiply, pairs[2])
    index = functools.reduce(lambda i, k: i * size[k] + pairs[1][k], range(1, n), pairs[1][0])
    channels, pixels = flat.shape[1:]
    first = md.arange(batch, dtype=md.int64, backend=flat.backend, device=flat.device) * pixels
    index = index.reshape((batch, 2**n, -1)) + first[:, None, None]
    read = md.extend.ns.gather(md.moveaxis(flat, 1, 2).reshape((-1, channels)), index)
    each = (batch, 2**n, math.prod(shape), 1)
    out = (md.where(inside.reshape(each), read, 0.0) * weights.reshape(each)).sum(axis=1)
    return md.moveaxis(out, 2, 1).reshape((batch, channels, *shape))


def _bicubic(
    flat: md.Tensor, at: list[md.Tensor], size: Sequence[int], shape: tuple[int, ...], padding_mode: str, align: bool
) -> md.Tensor:
    """Cubic interpolation from the 16 pixels round each place, each of which is brought into the image by itself."""
    base = [md.floor(v.detach()) for v in at]
    total: Any = None
    for taps in itertools.product((-1, 0, 1, 2), repeat=2):
        places = [_inside(b + tap, s, padding_mode, align) for b, tap, s in zip(base, taps, size, strict=True)]
        weight: Any = None
        for v, b, tap in zip(at, base, taps, strict=True):
            w = _cubic_tensor(md.abs(v - b - tap), tap in (0, 1))
            weight = w if weight is None else weight * w
        term = _read(flat, places, size, shape) * weight[:, None]
        total = term if total is None else total + term
    return total


def _cubic_tensor(t: md.Tensor, near: bool, a: float = -0.75) -> md.Tensor:
    """_cubic of distances below 1 (near) or between 1 and 2."""
    return ((a + 2) * t - (a + 3)) * t * t + 1 if near else (((t - 5) * t + 8) * t - 4) * a


def _inside(v: md.Tensor, size: int, padding_mode: str, align: bool) -> md.Tensor:
    """A coordinate brought into the image."""
    if padding_mode == "zeros":
        return v
    if padding_mode == "reflection":
        low, span = (0.0, size - 1.0) if align else (-0.5, float(size))
        if span == 0:
            return v * 0.0
        v = md.abs(v - low)
        turn = md.floor(v.detach() / span)
        rest = v - turn * span
        v = md.where(md.remainder(turn, 2.0) == 0, rest + low, span - rest + low)
    return md.clip(v, 0.0, size - 1.0)


def _read(flat: md.Tensor, place: list[md.Tensor], size: Sequence[int], shape: tuple[int, ...]) -> md.Tensor:
    """Values of flat [N, C, H*W] at whole coordinates [N, *shape], 0 outside of the image."""
    inside: Any = None
    index: Any = None
    for p, s in zip(place, size, strict=True):
        ok = md.logical_and(p >= 0, p <= s - 1)
        inside = ok if inside is None else md.logical_and(inside, ok)
        i = md.clip(p.detach(), 0.0, s - 1.0).to(md.int64)
        index = i if index is None else index * s + i
    out = md.take_along_axis(flat, index.reshape((index.shape[0], 1, -1)), axis=-1)
    return md.where(inside[:, None], out.reshape((*flat.shape[:2], *shape)), 0.0)
