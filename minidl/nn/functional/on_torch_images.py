"""PyTorch: pooling, borders and resampling of images, by its kernels forwards and backwards."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from minidl.backends.torch_elementwise import KERNELS
from minidl.backends.torch_kernels import finite
from minidl.backends.torch_linear import is_last
from minidl.backends.torch_rewrite import EMITTED
from minidl.nn.functional.on_torch_common import fitting, ours

Tensor = torch.Tensor
_aten = torch.ops.aten
_SOME = 2**14


# ---- pooling ---------------------------------------------------------------------------------------------------------------------------------------
def maxima(tracked: bool, x: Tensor, *how: Any) -> Any:
    """Few maxima, or any with channels last, by torch's kernel, which takes the last nan of a window; others as in a program, where nobody sees the
    places."""
    if x.dim() != 4 or not ours(x):
        return None
    if x.numel() > _SOME and not is_last(x):
        return _many_maxima(x, *how)
    out, index = torch._C._nn.max_pool2d_with_indices(x, *how)
    if not finite(out):
        return None
    return out, (), lambda wanted, g: (_aten.max_pool2d_with_indices_backward(g, x, *how, False, index),)


def _many_maxima(x: Tensor, window: Any, stride: Any, pad: Any, dilation: Any) -> Any:
    shape = tuple(x.shape)
    sizes = [(n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in zip(shape[2:], window, stride, pad, dilation, strict=True)]
    how: dict[str, Any] = {"window": window, "stride": stride, "padding": tuple((p, p) for p in pad), "dilation": dilation}
    masks = EMITTED["pool_masks"]
    if masks.fits((*shape[:2], *sizes), *how.values()):  # type: ignore[attr-defined]
        out, places = masks(x, window=window)
        return out, (), lambda wanted, g: (EMITTED["spread"](g, places, x_shape=shape, **how),)
    out, places = KERNELS["max_pool"](x, **how, flat=True)
    return out, (), lambda wanted, g: (KERNELS["pool_scatter"](g, places, x_shape=shape, **how, flat=True),)


def _windows(tracked: bool, x: Tensor, sizes: tuple[int, ...]) -> bool:
    return x.dim() in (4, 5) and ours(x) and math.prod(-(-a // b) for a, b in zip(x.shape[2:], sizes, strict=True)) <= 64


@fitting(_windows)
def averages(tracked: bool, x: Tensor, sizes: tuple[int, ...]) -> Any:
    """By windows of different widths; of many elements torch's running sum is not accurate enough."""
    name = f"_adaptive_avg_pool{x.dim() - 2}d"
    return getattr(_aten, name)(x, sizes), (), lambda wanted, g: (getattr(_aten, f"{name}_backward")(g, x),)


# ---- borders ---------------------------------------------------------------------------------------------------------------------------------------
def bordered(tracked: bool, x: Tensor, widths: tuple[int, ...], mode: str) -> Any:
    name = {"reflect": "reflection", "replicate": "replication"}.get(mode)
    n = len(widths) // 2
    if name is None or min(widths) < 0 or x.dim() != n + 2 or not ours(x):
        return None
    name = f"{name}_pad{n}d"
    return getattr(_aten, name)(x, widths), (), lambda wanted, g: (getattr(_aten, f"{name}_backward")(g, x, widths),)


# ---- resampling ------------------------------------------------------------------------------------------------------------------------------------
def _resampled(x: Tensor, name: str, sizes: tuple[int, ...], *how: Any) -> Any:
    """Of images. An infinity spoils its neighbours, whose weights are 0."""
    out = getattr(torch._C._nn, f"upsample_{name}2d")(x, sizes, *how)
    if not finite(out):
        return None

    def back(wanted: list[bool], g: Tensor) -> Any:
        d = getattr(_aten, f"upsample_{name}2d_backward")(g, sizes, x.shape, *how)
        return (d,) if finite(d) else None

    return out, (), back


def enlarged(tracked: bool, x: Tensor, sizes: tuple[int, ...]) -> Any:
    """By powers of two: torch rounds the inverse of a factor before it looks which pixel is the nearest."""
    factors = [b // a for a, b in zip(x.shape[2:], sizes, strict=True)]
    return _resampled(x, "nearest", sizes) if x.dim() == 4 and ours(x) and all(f & (f - 1) == 0 for f in factors) else None


@fitting(lambda tracked, x, *how: ours(x))
def bilinear(tracked: bool, x: Tensor, sizes: tuple[int, ...], scales: tuple[float | None, ...], align: bool) -> Any:
    return _resampled(x, "bilinear", sizes, align, *scales)


_MODES, _OUTSIDE = ("bilinear", "nearest", "bicubic"), ("zeros", "border", "reflection")


@fitting(lambda tracked, x, grid, mode, *how: mode != "nearest" and ours(x, grid))
def sampled(tracked: bool, x: Tensor, grid: Tensor, mode: str, padding: str, align: bool, slopes: Callable[..., Tensor]) -> Any:
    """Not the nearest pixel, which rounding may choose. slopes: the function's own derivatives in the grid."""
    if not finite(grid):
        return None
    name, how = f"grid_sampler_{x.dim() - 2}d", (_MODES.index(mode), _OUTSIDE.index(padding), align)
    out = getattr(_aten, name)(x, grid, *how)
    if not finite(out):
        return None

    def back(wanted: list[bool], g: Tensor) -> Any:
        dx, d = getattr(_aten, f"{name}_backward")(g, x, grid, *how, wanted)
        if not all(v is None or finite(v) for v in (dx, d)):
            return None
        if wanted[1] and mode == "bilinear":
            _on_pixels(d, g, x, grid, align, lambda *given: slopes(*given, mode, padding, align))
        return dx, d

    return out, (), back


def _on_pixels(d: Tensor, g: Tensor, x: Tensor, grid: Tensor, align: bool, slopes: Callable[..., Tensor]) -> None:
    """The function's own derivatives where a place is on a pixel but for rounding: its two sides have different slopes, and torch rounds else."""
    (n, channels, *shape), k = x.shape, x.dim() - 2
    size = torch.tensor(shape[::-1], dtype=grid.dtype)
    at = (grid + 1.0).mul_((size - 1.0 if align else size) * 0.5).sub_(0.0 if align else 0.5)
    near = torch.sub(at, at.round()).abs_().lt(at.abs_().add_(1.0).mul_(4 * torch.finfo(at.dtype).eps)).any(-1).view(n, -1)
    few = int(near.sum(1).max())
    if few:
        place = near.to(torch.int8).argsort(1, descending=True)[:, :few, None]
        points, cotangents = place.expand(n, few, k), place.mT.expand(n, channels, few)
        wide = (1,) * (k - 1)
        some = grid.reshape(n, -1, k).gather(1, points).view(n, *wide, few, k)
        given = g.reshape(n, channels, -1).gather(2, cotangents).view(n, channels, *wide, few)
        d.view(n, -1, k).scatter_(1, points, slopes(x, some, given).view(n, few, k))


# ---- windows as columns ----------------------------------------------------------------------------------------------------------------------------
_FEW = 2**13  # elements up to which one call costs less than the copies of slices, which take .6 of its time for many


@fitting(lambda tracked, x, *how: ours(x) and x.numel() <= _FEW)
def unfolded(tracked: bool, x: Tensor, kernel: Any, dilation: Any, pad: Any, stride: Any) -> Any:
    how = kernel, dilation, pad, stride
    return _aten.im2col(x, *how), (), lambda wanted, g: (_aten.col2im(g, x.shape[2:], *how),)


@fitting(lambda tracked, x, *how: ours(x))
def folded(tracked: bool, x: Tensor, size: Any, kernel: Any, dilation: Any, pad: Any, stride: Any) -> Any:
    how = kernel, dilation, pad, stride
    return _aten.col2im(x, size, *how), (), lambda wanted, g: (_aten.im2col(g, *how),)
