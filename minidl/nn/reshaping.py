"""Layers without parameters that move, pad, resample or compare: Flatten, pixel shuffles, padding, Upsample, Fold, distances."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import minidl as md
from minidl.nn import functional as F
from minidl.nn.functional.convolution import Size
from minidl.nn.module import Module

__all__ = [
    "ChannelShuffle", "CircularPad1d", "CircularPad2d", "CircularPad3d", "ConstantPad1d", "ConstantPad2d", "ConstantPad3d", "CosineSimilarity",
    "Flatten", "Fold", "PairwiseDistance", "PixelShuffle", "PixelUnshuffle", "ReflectionPad1d", "ReflectionPad2d", "ReflectionPad3d",
    "ReplicationPad1d", "ReplicationPad2d", "ReplicationPad3d", "Unflatten", "Unfold", "Upsample", "UpsamplingBilinear2d", "UpsamplingNearest2d",
    "ZeroPad1d", "ZeroPad2d", "ZeroPad3d",
]  # fmt: skip


# ---- axes and pixels ------------------------------------------------------------------------------------------------------------------
class Flatten(Module):
    """Axes start_dim to end_dim (inclusive) as one.

    >>> md.nn.Flatten()(md.ones((2, 3, 4))).shape
    (2, 12)
    """

    def __init__(self, start_dim: int = 1, end_dim: int = -1):
        super().__init__()
        self.start_dim, self.end_dim = start_dim, end_dim

    def forward(self, input: md.Tensor) -> md.Tensor:
        return md.flatten(input, self.start_dim, self.end_dim)

    def extra_repr(self) -> str:
        return f"start_dim={self.start_dim}, end_dim={self.end_dim}"


class Unflatten(Module):
    """Axis dim as several of these sizes, one of which may be -1.

    Raises, when called, IndexError for an axis that there is not, ValueError where the sizes do not multiply to its size or more than one is -1.

    >>> Unflatten(1, (2, -1))(md.ones((4, 6))).shape
    (4, 2, 3)
    """

    def __init__(self, dim: int, unflattened_size: Sequence[int]):
        super().__init__()
        self.dim, self.unflattened_size = dim, tuple(unflattened_size)

    def forward(self, input: md.Tensor) -> md.Tensor:
        axis = md.extend.axis_index("Unflatten", self.dim, input.ndim)
        size, given = input.shape[axis], math.prod(s for s in self.unflattened_size if s != -1)
        sizes = tuple(size // max(given, 1) if s == -1 else s for s in self.unflattened_size)
        if math.prod(sizes) != size or sizes.count(-1) > 1:
            raise ValueError(f"Unflatten: axis {self.dim} of shape {input.shape} cannot become {self.unflattened_size}")
        return input.reshape((*input.shape[:axis], *sizes, *input.shape[axis + 1 :]))

    def extra_repr(self) -> str:
        return f"dim={self.dim}, unflattened_size={self.unflattened_size}"


class PixelShuffle(Module):
    """[..., C r², H, W] → [..., C, H r, W r]: channels become pixels (W. Shi et al., CVPR 2016).

    >>> md.nn.PixelShuffle(2)(md.ones((1, 4, 2, 3))).shape
    (1, 1, 4, 6)
    """

    def __init__(self, upscale_factor: int):
        super().__init__()
        self.upscale_factor = upscale_factor

    def forward(self, input: md.Tensor) -> md.Tensor:
        return F.pixel_shuffle(input, self.upscale_factor)

    def extra_repr(self) -> str:
        return f"upscale_factor={self.upscale_factor}"


class PixelUnshuffle(Module):
    """[..., C, H r, W r] → [..., C r², H, W]: the inverse of PixelShuffle.

    >>> md.nn.PixelUnshuffle(2)(md.ones((1, 1, 4, 6))).shape
    (1, 4, 2, 3)
    """

    def __init__(self, downscale_factor: int):
        super().__init__()
        self.downscale_factor = downscale_factor

    def forward(self, input: md.Tensor) -> md.Tensor:
        return F.pixel_unshuffle(input, self.downscale_factor)

    def extra_repr(self) -> str:
        return f"downscale_factor={self.downscale_factor}"


class ChannelShuffle(Module):
    """Channels of [N, C, ...] taken from the groups in turn (X. Zhang et al., ShuffleNet, CVPR 2018).

    >>> md.nn.ChannelShuffle(2)(md.reshape(md.arange(4), (1, 4, 1))).tolist()
    [[[0], [2], [1], [3]]]
    """

    def __init__(self, groups: int):
        super().__init__()
        self.groups = groups

    def forward(self, input: md.Tensor) -> md.Tensor:
        return F.channel_shuffle(input, self.groups)

    def extra_repr(self) -> str:
        return f"groups={self.groups}"


# ---- padding --------------------------------------------------------------------------------------------------------------------------
class _Pad(Module):
    """A border round the last n axes: one width for all sides, or (before, after) for each axis, the last axis first."""

    n: ClassVar[int] = 0
    mode: ClassVar[str] = "constant"

    def __init__(self, padding: Size):
        super().__init__()
        self.padding = (padding,) * (2 * self.n) if isinstance(padding, int) else tuple(padding)
        if len(self.padding) != 2 * self.n:
            raise ValueError(f"{type(self).__name__}: padding {padding!r} should be one integer or {2 * self.n} of them")

    def forward(self, input: md.Tensor) -> md.Tensor:
        return F.pad(input, self.padding, self.mode)

    def extra_repr(self) -> str:
        return f"{self.padding}"


class _ConstantPad(_Pad):
    def __init__(self, padding: Size, value: float):
        super().__init__(padding)
        self.value = value

    def forward(self, input: md.Tensor) -> md.Tensor:
        return F.pad(input, self.padding, "constant", self.value)

    def extra_repr(self) -> str:
        return f"padding={self.padding}, value={self.value}"


class ConstantPad1d(_ConstantPad):
    """A border of one value round the last axis: padding is a width, or (left, right).

    >>> md.nn.ConstantPad1d((1, 2), 7.0)(md.reshape(md.arange(4.0), (1, 1, 4))).tolist()
    [[[7.0, 0.0, 1.0, 2.0, 3.0, 7.0, 7.0]]]
    """

    n = 1


class ConstantPad2d(_ConstantPad):
    """A border of one value round the last two axes: padding is a width, or (left, right, top, bottom).

    >>> md.nn.ConstantPad2d(1, 7.0)(md.reshape(md.arange(16.0), (1, 1, 4, 4))).shape
    (1, 1, 6, 6)
    """

    n = 2


class ConstantPad3d(_ConstantPad):
    """A border of one value round the last three axes: padding is a width, or (left, right, top, bottom, front, back).

    >>> md.nn.ConstantPad3d(1, 7.0)(md.ones((1, 2, 4, 4, 4))).shape
    (1, 2, 6, 6, 6)
    """

    n = 3


class ZeroPad1d(_Pad):
    """A border of zeros round the last axis: padding is a width, or (left, right).

    >>> md.nn.ZeroPad1d(1)(md.reshape(md.arange(4.0), (1, 1, 4))).tolist()
    [[[0.0, 0.0, 1.0, 2.0, 3.0, 0.0]]]
    """

    n = 1


class ZeroPad2d(_Pad):
    """A border of zeros round the last two axes: padding is a width, or (left, right, top, bottom).

    >>> ZeroPad2d((1, 0, 0, 1))(md.ones((1, 1, 2))).tolist()
    [[[0.0, 1.0, 1.0], [0.0, 0.0, 0.0]]]
    """

    n = 2


class ZeroPad3d(_Pad):
    """A border of zeros round the last three axes: padding is a width, or (left, right, top, bottom, front, back).

    >>> md.nn.ZeroPad3d(1)(md.ones((1, 2, 4, 4, 4))).shape
    (1, 2, 6, 6, 6)
    """

    n = 3


class ReflectionPad1d(_Pad):
    """A border that mirrors the last axis without its edge: padding is a width, or (left, right).

    >>> md.nn.ReflectionPad1d(1)(md.reshape(md.arange(4.0), (1, 1, 4))).tolist()
    [[[1.0, 0.0, 1.0, 2.0, 3.0, 2.0]]]
    """

    n, mode = 1, "reflect"


class ReflectionPad2d(_Pad):
    """A border that mirrors the last two axes without their edges: padding is a width, or (left, right, top, bottom).

    >>> md.nn.ReflectionPad2d(1)(md.reshape(md.arange(16.0), (1, 1, 4, 4))).shape
    (1, 1, 6, 6)
    """

    n, mode = 2, "reflect"


class ReflectionPad3d(_Pad):
    """A border that mirrors the last three axes without their edges.

    >>> md.nn.ReflectionPad3d(1)(md.ones((1, 2, 4, 4, 4))).shape
    (1, 2, 6, 6, 6)
    """

    n, mode = 3, "reflect"


class ReplicationPad1d(_Pad):
    """A border that repeats the edges of the last axis: padding is a width, or (left, right).

    >>> md.nn.ReplicationPad1d(1)(md.reshape(md.arange(4.0), (1, 1, 4))).tolist()
    [[[0.0, 0.0, 1.0, 2.0, 3.0, 3.0]]]
    """

    n, mode = 1, "replicate"


class ReplicationPad2d(_Pad):
    """A border that repeats the edges of the last two axes: padding is a width, or (left, right, top, bottom).

    >>> md.nn.ReplicationPad2d(1)(md.reshape(md.arange(16.0), (1, 1, 4, 4))).shape
    (1, 1, 6, 6)
    """

    n, mode = 2, "replicate"


class ReplicationPad3d(_Pad):
    """A border that repeats the edges of the last three axes.

    >>> md.nn.ReplicationPad3d(1)(md.ones((1, 2, 4, 4, 4))).shape
    (1, 2, 6, 6, 6)
    """

    n, mode = 3, "replicate"


class CircularPad1d(_Pad):
    """A border that continues the last axis from its other side: padding is a width, or (left, right).

    >>> md.nn.CircularPad1d(1)(md.reshape(md.arange(4.0), (1, 1, 4))).tolist()
    [[[3.0, 0.0, 1.0, 2.0, 3.0, 0.0]]]
    """

    n, mode = 1, "circular"


class CircularPad2d(_Pad):
    """A border that continues the last two axes from their other sides: padding is a width, or (left, right, top, bottom).

    >>> md.nn.CircularPad2d(1)(md.reshape(md.arange(16.0), (1, 1, 4, 4))).shape
    (1, 1, 6, 6)
    """

    n, mode = 2, "circular"


class CircularPad3d(_Pad):
    """A border that continues the last three axes from their other sides.

    >>> md.nn.CircularPad3d(1)(md.ones((1, 2, 4, 4, 4))).shape
    (1, 2, 6, 6, 6)
    """

    n, mode = 3, "circular"


# ---- resampling and windows -----------------------------------------------------------------------------------------------------------
class Upsample(Module):
    """nn.functional.interpolate as a layer: [N, C, ...] resampled to a size or by a factor.

    >>> Upsample(scale_factor=2)(md.ones((1, 3, 4, 5))).shape
    (1, 3, 8, 10)
    """

    def __init__(
        self,
        size: int | tuple[int, ...] | None = None,
        scale_factor: float | tuple[float, ...] | None = None,
        mode: str = "nearest",
        align_corners: bool | None = None,
        recompute_scale_factor: bool | None = None,
    ):
        super().__init__()
        self.size = size
        self.scale_factor: Any = scale_factor
        if scale_factor is not None:
            self.scale_factor = tuple(map(float, scale_factor)) if isinstance(scale_factor, tuple) else float(scale_factor)
        self.mode, self.align_corners, self.recompute_scale_factor = mode, align_corners, recompute_scale_factor

    def forward(self, input: md.Tensor) -> md.Tensor:
        return F.interpolate(input, self.size, self.scale_factor, self.mode, self.align_corners, self.recompute_scale_factor)

    def extra_repr(self) -> str:
        size = f"scale_factor={self.scale_factor!r}" if self.scale_factor is not None else f"size={self.size!r}"
        return f"{size}, mode={self.mode!r}"





class UpsamplingNearest2d(Upsample):
    """Upsample in mode "nearest" for [N, C, H, W].

    >>> md.nn.UpsamplingNearest2d(scale_factor=2)(md.ones((1, 1, 2, 2))).shape
    (1, 1, 4, 4)
    """

    def __init__(self, size: int | tuple[int, int] | None = None, scale_factor: float | tuple[float, float] | None = None):
        super().__init__(size, scale_factor, mode="nearest")


class UpsamplingBilinear2d(Upsample):
    """Upsample in mode "bilinear" with align_corners=True for [N, C, H, W].

    >>> md.nn.UpsamplingBilinear2d(scale_factor=2)(md.ones((1, 1, 2, 2))).shape
    (1, 1, 4, 4)
    """

    def __init__(self, size: int | tuple[int, int] | None = None, scale_factor: float | tuple[float, float] | None = None):
        super().__init__(size, scale_factor, mode="bilinear", align_corners=True)


class Unfold(Module):
    """The windows of [N, C, H, W] as columns [N, C * kh * kw, windows].

    >>> md.nn.Unfold(2, stride=2)(md.ones((1, 2, 4, 4))).shape
    (1, 8, 4)
    """

    def __init__(self, kernel_size: Size, dilation: Size = 1, padding: Size = 0, stride: Size = 1):
        super().__init__()
        self.kernel_size, self.dilation, self.padding, self.stride = kernel_size, dilation, padding, stride

    def forward(self, input: md.Tensor) -> md.Tensor:
        return F.unfold(input, self.kernel_size, self.dilation, self.padding, self.stride)

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, dilation={self.dilation}, padding={self.padding}, stride={self.stride}"


class Fold(Module):
    """Columns [N, C * kh * kw, windows] added up at their places in [N, C, *output_size]: the transpose of Unfold.

    >>> md.nn.Fold((2, 2), (2, 2))(md.ones((1, 4, 1))).tolist()
    [[[[1.0, 1.0], [1.0, 1.0]]]]
    """

    def __init__(self, output_size: Size, kernel_size: Size, dilation: Size = 1, padding: Size = 0, stride: Size = 1):
        super().__init__()
        self.output_size, self.kernel_size, self.dilation, self.padding, self.stride = output_size, kernel_size, dilation, padding, stride

    def forward(self, input: md.Tensor) -> md.Tensor:
        return F.fold(input, self.output_size, self.kernel_size, self.dilation, self.padding, self.stride)

    def extra_repr(self) -> str:
        names = ("output_size", "kernel_size", "dilation", "padding", "stride")
        return ", ".join(f"{n}={getattr(self, n)}" for n in names)


# ---- distances ------------------------------------------------------------------------------------------------------------------------
class CosineSimilarity(Module):
    """The cosine of the angle between two inputs along dim.

    >>> md.nn.CosineSimilarity()(md.tensor([[1.0, 0.0]]), md.tensor([[0.0, 2.0]])).tolist()
    [0.0]
    """

    def __init__(self, dim: int = 1, eps: float = 1e-8):
        super().__init__()
        self.dim, self.eps = dim, eps

    def forward(self, x1: md.Tensor, x2: md.Tensor) -> md.Tensor:
        return F.cosine_similarity(x1, x2, self.dim, self.eps)


class PairwiseDistance(Module):
    """The p-norm of x1 - x2 + eps over the last axis.

    >>> md.nn.PairwiseDistance(eps=0.0)(md.tensor([[3.0, 4.0]]), md.zeros((1, 2))).tolist()
    [5.0]
    """

    def __init__(self, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False):
        super().__init__()
        self.norm, self.eps, self.keepdim = p, eps, keepdim

    def forward(self, x1: md.Tensor, x2: md.Tensor) -> md.Tensor:
        return F.pairwise_distance(x1, x2, self.norm, self.eps, self.keepdim)
