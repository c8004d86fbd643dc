"""Maxima of windows whose places are drawn (B. Graham, Fractional max-pooling, arXiv 1412.6071); all are names of minidl.nn.functional.

Windows of one size begin at intervals that differ by one, by chance, so that the output may have any size up to the input's. One number between 0 and
1 for each example, channel and axis decides; it comes from minidl's own stream, or is given as _random_samples, and then places are PyTorch's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import minidl as md
from minidl.nn.functional.convolution import Size, batched, per_axis
from minidl.nn.functional.pooling import flat_positions

__all__ = ["fractional_max_pool2d", "fractional_max_pool3d"]
Ratio = float | Sequence[float] | None


def sizes_wanted(name: str, n: int, output_size: Size | None, output_ratio: Ratio) -> tuple[Any, Any]:
    """(output_size, output_ratio), one for each of n axes: one of the two. Raises ValueError for both or neither, and for ratios outside (0, 1)."""
    if (output_size is None) == (output_ratio is None):
        raise ValueError(f"{name}: either output_size or output_ratio is wanted, got {output_size!r} and {output_ratio!r}")
    if output_ratio is None:
        assert output_size is not None
        return per_axis("output_size", output_size, n), None
    ratios = (output_ratio,) * n if isinstance(output_ratio, (int, float)) else tuple(output_ratio)
    if len(ratios) != n or not all(isinstance(r, (int, float)) and 0 < r < 1 for r in ratios):
        raise ValueError(f"{name}: output_ratio is one number between 0 and 1 or {n} of them, not {output_ratio!r}")
    return None, ratios


def _starts(samples: md.Tensor, size: int, out: int, window: int) -> md.Tensor:
    """Where the windows begin, int64 [N, C, out], from samples [N, C]: the last one ends with the axis."""
    place = {"backend": samples.backend, "device": samples.device}
    if out == 1:
        return md.full((*samples.shape, 1), size - window, dtype=md.int64, **place)
    alpha = (size - window) / (out - 1)
    u = samples[..., None]
    steps = md.arange(out - 1, dtype=u.dtype, **place)
    starts = md.floor((u + steps) * alpha).to(md.int64) - md.floor(u * alpha).to(md.int64)
    return md.concat((starts, md.full((*samples.shape, 1), size - window, dtype=md.int64, **place)), axis=-1)


def fractional_max_pool(
    n: int, input: md.Tensor, kernel_size: Size, output_size: Size | None, output_ratio: Ratio, return_indices: bool, samples: md.Tensor | None
) -> Any:
    """The maximum of windows of the last n axes whose places are drawn."""
    name = f"fractional_max_pool{n}d"
    x, single = batched(name, input, n)
    window = per_axis("kernel_size", kernel_size, n)
    out, ratios = sizes_wanted(name, n, output_size, output_ratio)
    if out is None:
        out = tuple(int(s * r) for s, r in zip(x.shape[2:], ratios, strict=True))
    if min(window) < 1 or any(not 1 <= o <= s - k + 1 for o, s, k in zip(out, x.shape[2:], window, strict=True)):
        raise ValueError(f"{name}: {out} windows of {window} do not fit into {x.shape[2:]}")
    if samples is None:
        samples = md.random.uniform(md.random.default_generator.next_key(like=x), (*x.shape[:2], n), md.float64)
    elif samples.shape != (*x.shape[:2], n):
        raise ValueError(f"{name}: _random_samples are {(*x.shape[:2], n)}, one for each example, channel and axis, got {samples.shape}")
    order = samples if n == 3 else md.flip(samples, axis=-1)  # PyTorch's samples stand width before height
    size, starts, wide = x.shape[2:], [], x
    for i in range(n):
        begin = _starts(order[..., i].detach(), size[i], out[i], window[i])
        inside = md.arange(window[i], backend=x.backend, device=x.device)
        place = (begin[..., None] + inside).reshape((*x.shape[:2], *(1,) * i, -1, *(1,) * (n - 1 - i)))
        wide = md.take_along_axis(wide, place, axis=2 + i, mode="clip")
        starts.append(begin.reshape((*x.shape[:2], *(1,) * i, -1)))
    if not return_indices:
        found = md.max_pool(wide, window)
        return found[0] if single else found
    found, best = md.max_pool(wide, window, return_indices=True)
    index = flat_positions(best, starts, window, (1,) * n, size)
    return (found[0], index[0]) if single else (found, index)


def fractional_max_pool2d(
    input: md.Tensor, kernel_size: Size, output_size: Size | None = None, output_ratio: Ratio = None, return_indices: bool = False,
    _random_samples: md.Tensor | None = None,
) -> Any:  # fmt: skip
    """The maximum of output_size (or output_ratio times as many) windows of [N, C, H, W] whose places are drawn; with return_indices also where.

    _random_samples: [N, C, 2], between 0 and 1, instead of md.random's. Raises ValueError unless one of output_size and output_ratio is given, and
    where the windows do not fit.

    >>> md.nn.functional.fractional_max_pool2d(md.ones((1, 2, 7, 7)), 2, output_size=4).shape
    (1, 2, 4, 4)
    """
    return fractional_max_pool(2, input, kernel_size, output_size, output_ratio, return_indices, _random_samples)


def fractional_max_pool3d(
    input: md.Tensor, kernel_size: Size, output_size: Size | None = None, output_ratio: Ratio = None, return_indices: bool = False,
    _random_samples: md.Tensor | None = None,
) -> Any:  # fmt: skip
    """The maximum of output_size (or output_ratio times as many) windows of [N, C, D, H, W] whose places are drawn; with return_indices also where.

    _random_samples: [N, C, 3], between 0 and 1, instead of md.random's. Raises as fractional_max_pool2d does.

    >>> md.nn.functional.fractional_max_pool3d(md.ones((1, 2, 6, 6, 6)), 2, output_ratio=0.5).shape
    (1, 2, 3, 3, 3)
    """
    return fractional_max_pool(3, input, kernel_size, output_size, output_ratio, return_indices, _random_samples)
