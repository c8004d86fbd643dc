"""Transforms of images, with torchvision.transforms' names and arguments.

An image is a NumPy array [H, W] or [H, W, C] (or a Pillow image), or a Tensor [..., C, H, W], which `ToTensor` makes of it; each transform gives back
the kind that it was given. Everything is computed by NumPy. Inside a DataLoader tensors stay on the numpy backend until their batch is placed;
otherwise ToTensor's are on the default backend.

Random transforms take a key, `t(image, key=...)`, or draw from that of the sample that a loader is loading, so that they do not depend on the number
of workers; outside a loader from `md.random.default_generator`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from minidl.data.distortions import ColorJitter, GaussianBlur, RandomAffine, RandomPerspective, RandomRotation, luma
from minidl.data.explaining import explain
from minidl.data.forms import ConvertImageDtype, PILToTensor, ToDtype, ToImage
from minidl.data.pictures import Picture, Transform, draws_of
from minidl.data.policies import CutMix, MixUp, RandAugment, RandomChoice, RandomOrder, TrivialAugmentWide
from minidl.data.randomness import Draws
from minidl.data.resampling import mode_of, resize
from minidl.data.tones import (
    RandomAdjustSharpness,
    RandomAutocontrast,
    RandomEqualize,
    RandomGrayscale,
    RandomInvert,
    RandomPosterize,
    RandomSolarize,
)

__all__ = [
    "CenterCrop", "ColorJitter", "Compose", "ConvertImageDtype", "CutMix", "GaussianBlur", "Grayscale", "Lambda", "MixUp", "Normalize",
    "PILToTensor", "Pad", "RandAugment", "RandomAdjustSharpness", "RandomAffine", "RandomApply", "RandomAutocontrast", "RandomChoice", "RandomCrop",
    "RandomEqualize", "RandomErasing", "RandomGrayscale", "RandomHorizontalFlip", "RandomInvert", "RandomOrder", "RandomPerspective",
    "RandomPosterize", "RandomResizedCrop", "RandomRotation", "RandomSolarize", "RandomVerticalFlip", "Resize", "ToDtype", "ToImage", "ToTensor",
    "Transform", "TrivialAugmentWide",
]  # fmt: skip


class Compose(Transform):
    """Several transforms, one after the other; any callables, torchvision's too.

    >>> pipeline = Compose([CenterCrop(4), ToTensor(), Normalize([0.5], [0.5])])
    >>> pipeline(np.zeros((8, 6), np.uint8)).shape
    (1, 4, 4)
    """

    def __init__(self, transforms: Sequence[Callable[[Any], Any]]):
        self.transforms = list(transforms)

    def __call__(self, image: Any, *, key: Any = None) -> Any:
        numbers, picture = draws_of(key), None
        for step in self.transforms:
            if isinstance(step, Compose):
                image = step(image if picture is None else picture.out(), key=numbers)
                picture = None
            elif isinstance(step, Transform):
                picture = Picture(image) if picture is None else picture
                step.apply(picture, numbers)
            else:
                image, picture = step(image if picture is None else picture.out()), None
        return image if picture is None else picture.out()

    def apply(self, picture: Picture, draws: Draws) -> None:
        """Apply them in turn."""
        for step in self.transforms:
            picture.through(step, draws)


class Lambda(Transform):
    """A function of one's own: of an array [H, W, C], or of a Tensor. For worker processes, one from the top of a module.

    Raises TypeError for what cannot be called.

    >>> import numpy
    >>> md.data.transforms.Lambda(lambda a: a + 1)(numpy.arange(12, dtype="uint8").reshape(3, 4, 1))[0, 0].tolist()
    [1]
    """

    def __init__(self, lambd: Callable[[Any], Any]):
        if not callable(lambd):
            raise TypeError(f"Lambda: a function is wanted, not {type(lambd).__name__}")
        self.lambd = lambd

    def __call__(self, image: Any, *, key: Any = None) -> Any:
        return self.lambd(image)

    def apply(self, picture: Picture, draws: Draws) -> None:
        """Hand the picture to the function, and take what it gives."""
        picture.through(self.lambd, draws)


class ToTensor(Transform):
    """An array or Pillow image [H, W] or [H, W, C] as a Tensor [C, H, W]: bytes become float32 in [0, 1], other dtypes stay as they are.

    Raises TypeError for what is a tensor already.

    >>> import numpy
    >>> md.data.transforms.ToTensor()(numpy.arange(12, dtype="uint8").reshape(3, 4, 1)).shape
    (1, 3, 4)
    """

    def apply(self, picture: Picture, draws: Draws) -> None:
        """Channels first, and bytes divided by 255."""
        if picture.tensor:
            raise TypeError("ToTensor: this image is a tensor already")
        x = picture.array
        x = x[None] if x.ndim == 2 else x.transpose(2, 0, 1)
        picture.array = np.divide(x, np.float32(255), dtype=np.float32) if x.dtype == np.uint8 else x
        picture.tensor = True


class Normalize(Transform):
    """(x - mean) / std, for each channel of a float tensor. Raises ValueError for a std of 0, TypeError for an image that is no float tensor.

    >>> md.data.transforms.Normalize([0.5], [0.5])(md.ones((1, 2, 2))).tolist()
    [[[1.0, 1.0], [1.0, 1.0]]]
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float]):
        self.mean, self.std = mean, std
        self._mean, self._std = (np.asarray(v, np.float64).reshape(-1, 1, 1) for v in (mean, std))
        if not self._std.all():
            raise ValueError(f"Normalize: std {std} holds a zero, which would divide by it")

    def apply(self, picture: Picture, draws: Draws) -> None:
        """Shift and scale."""
        x = picture.array
        if not picture.tensor or x.dtype.kind not in "fV":
            kind = "a tensor" if picture.tensor else "an array"
            raise TypeError(f"Normalize: a float tensor is wanted, got {kind} of {x.dtype}; ToTensor makes one")
        if len(self._mean) not in (1, x.shape[-3]) or len(self._std) not in (1, x.shape[-3]):
            raise ValueError(f"Normalize: {len(self._mean)} means and {len(self._std)} stds for {x.shape[-3]} channels")
        picture.array = (x - self._mean.astype(x.dtype)) / self._std.astype(x.dtype)


def _pair(name: str, size: Any) -> tuple[int, int]:
    """(height, width) of a number or two. Raises ValueError for anything else."""
    pair = (size, size) if np.ndim(size) == 0 else tuple(size) * (2 if len(size) == 1 else 1)
    if len(pair) != 2 or not all(isinstance(v, (int, np.integer)) and v > 0 for v in pair):
        raise ValueError(f"{name}: size is a positive integer or (height, width), got {size!r}")
    return int(pair[0]), int(pair[1])


class Resize(Transform):
    """Another size: (height, width), or one number for the shorter side, the other in proportion and at most max_size.

    interpolation: "bilinear", "bicubic" or "nearest". antialias=False takes single points of the image, also where it shrinks. On bytes as Pillow
    does it (at most one level apart), on floats as torch.nn.functional.interpolate. Raises ValueError for a size that is not one or
    two positive integers, for another interpolation, and for a max_size beside (height, width) or not above the shorter side.

    >>> Resize(4)(np.zeros((8, 16, 3), np.uint8)).shape
    (4, 8, 3)
    """

    def __init__(self, size: Any, interpolation: Any = "bilinear", max_size: int | None = None, antialias: bool = True):
        _pair("Resize", size)
        if max_size is not None and np.ndim(size) and len(size) != 1:
            raise ValueError("Resize: max_size would do nothing with a height and a width")
        self.size, self.interpolation, self.max_size, self.antialias = size, mode_of(interpolation), max_size, antialias
        if max_size is not None and max_size <= _pair("Resize", size)[0]:
            raise ValueError(f"Resize: max_size {max_size} must be above the size {size} of the shorter side")

    def _target(self, height: int, width: int) -> tuple[int, int]:
        if np.ndim(self.size) and len(self.size) != 1:
            return _pair("Resize", self.size)
        short = _pair("Resize", self.size)[0]
        long = int(short * max(height, width) / min(height, width))
        if self.max_size is not None and long > self.max_size:
            short, long = int(self.max_size * short / long), self.max_size
        return (short, long) if height <= width else (long, short)

    def apply(self, picture: Picture, draws: Draws) -> None:
        """Resample."""
        picture.array = resize(picture.array, self._target(*picture.size), picture.axes, self.interpolation, self.antialias)


class CenterCrop(Transform):
    """The middle of the image; a smaller image is padded with zeros.

    size: one number for both sides, or (height, width). Raises ValueError for a size that is not one or two positive integers.

    >>> import numpy
    >>> md.data.transforms.CenterCrop(2)(numpy.arange(12, dtype="uint8").reshape(3, 4, 1)).shape
    (2, 2, 1)
    """

    def __init__(self, size: Any):
        self.size = _pair("CenterCrop", size)

    def apply(self, picture: Picture, draws: Draws) -> None:
        """Pad if need be, and cut."""
        (height, width), (h, w) = self.size, picture.size
        if height > h or width > w:
            dh, dw = max(height - h, 0), max(width - w, 0)
            picture.pad(dw // 2, dh // 2, (dw + 1) // 2, (dh + 1) // 2, 0, "constant")
            h, w = picture.size
        picture.cut(round((h - height) / 2), round((w - width) / 2), height, width)


_MODES = ("constant", "edge", "reflect", "symmetric")


def _sides(name: str, padding: Any) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) of one number, (left and right, top and bottom), or four."""
    sides = (padding,) * 4 if np.ndim(padding) == 0 else tuple(padding) * (4 // len(padding) if len(padding) in (1, 2, 4) else 1)
    if len(sides) != 4 or not all(isinstance(v, int) and v >= 0 for v in sides):
        raise ValueError(f"{name}: padding is a number, (left and right, top and bottom) or four numbers, none negative; got {padding!r}")
    return sides  # type: ignore[return-value]


class Pad(Transform):
    """More rows and columns: padding is a number, (left and right, top and bottom), or (left, top, right, bottom).

    padding_mode: "constant" (fill: a number, or one for each channel), "edge", "reflect" or "symmetric". Raises ValueError for another padding_mode,
    and for a padding that is negative, no integer, or of another length.

    >>> import numpy
    >>> md.data.transforms.Pad(1)(numpy.arange(12, dtype="uint8").reshape(3, 4, 1)).shape
    (5, 6, 1)
    """

    def __init__(self, padding: Any, fill: Any = 0, padding_mode: str = "constant"):
        if padding_mode not in _MODES:
            raise ValueError(f"Pad: padding_mode {padding_mode!r} is none of {', '.join(_MODES)}")
        self.padding, self.fill, self.padding_mode = _sides("Pad", padding), fill, padding_mode

    def apply(self, picture: Picture, draws: Draws) -> None:
        """Pad."""
        picture.pad(*self.padding, self.fill, self.padding_mode)


class RandomCrop(Transform):
    """A rectangle of the given size from a random place, after padding.

    pad_if_needed pads an image that is too small on both sides. Raises ValueError for one that is too small without it.

    >>> import numpy
    >>> md.data.transforms.RandomCrop(2)(numpy.arange(12, dtype="uint8").reshape(3, 4, 1)).shape
    (2, 2, 1)
    """

    def __init__(self, size: Any, padding: Any = None, pad_if_needed: bool = False, fill: Any = 0, padding_mode: str = "constant"):
        self.size = _pair("RandomCrop", size)
        self.padding, self.pad_if_needed, self.fill, self.padding_mode = padding, pad_if_needed, fill, padding_mode
        self._pad = Pad(0 if padding is None else padding, fill, padding_mode)

    def apply(self, picture: Picture, draws: Draws) -> None:
        """Pad, and cut where the draws say."""
        if self.padding is not None:
            self._pad.apply(picture, draws)
        (height, width), (h, w) = self.size, picture.size
        if self.pad_if_needed and (h < height or w < width):
            dh, dw = max(height - h, 0), max(width - w, 0)
            picture.pad(dw, dh, dw, dh, self.fill, self.padding_mode)
            h, w = picture.size
        if h < height or w < width:
            raise ValueError(f"RandomCrop: {height} × {width} of an image of {h} × {w}; pad_if_needed=True pads it")
        picture.cut(draws.below(h - height + 1), draws.below(w - width + 1), height, width)


class RandomHorizontalFlip(Transform):
    """Left and right exchanged, with probability p.

    >>> import numpy
    >>> md.data.transforms.RandomHorizontalFlip(p=1.0)(numpy.arange(12, dtype="uint8").reshape(3, 4, 1))[0, :, 0].tolist()
    [3, 2, 1, 0]
    """

    axis = 1

    def __init__(self, p: float = 0.5):
        self.p = p

    def apply(self, picture: Picture, draws: Draws) -> None:
        """Flip, if the draw says so."""
        if draws.uniform() < self.p:
            picture.array = np.flip(picture.array, picture.axes[self.axis])


class RandomVerticalFlip(RandomHorizontalFlip):
    """Top and bottom exchanged, with probability p.

    >>> import numpy
    >>> md.data.transforms.RandomVerticalFlip(p=1.0)(numpy.arange(12, dtype="uint8").reshape(3, 4, 1))[:, 0, 0].tolist()
    [8, 4, 0]
    """

    axis = 0


def _rectangle(draws: Draws, height: int, width: int, scale: Sequence[float], ratio: Sequence[float]) -> tuple[int, int]:
    """Height and width of a part of the area with a random share and a random ratio of the sides, as torchvision draws them."""
    area = height * width * draws.uniform(*scale)
    shape = math.exp(draws.uniform(math.log(ratio[0]), math.log(ratio[1])))
    return round(math.sqrt(area / shape)), round(math.sqrt(area * shape))


class RandomResizedCrop(Transform):
    """A part of the image with a random share of its area (scale) and a random ratio of width to height, resized (the crop of Inception networks).

    size, interpolation, antialias: as Resize, but one number is both sides. Raises ValueError for a size that is not one or two positive integers,
    for another interpolation, and for a scale or ratio that is not (smallest, largest), both positive.

    >>> import numpy
    >>> md.data.transforms.RandomResizedCrop(4)(numpy.ones((8, 8, 3), "uint8")).shape
    (4, 4, 3)
    """

    def __init__(
        self,
        size: Any,
        scale: tuple[float, float] = (0.08, 1.0),
        ratio: tuple[float, float] = (3 / 4, 4 / 3),
        interpolation: Any = "bilinear",
        antialias: bool = True,
    ):
        if not 0 < scale[0] <= scale[1] or not 0 < ratio[0] <= ratio[1]:
            raise ValueError(f"RandomResizedCrop: scale and ratio are (smallest, largest), positive; got {scale} and {ratio}")
        self.size, self.scale, self.ratio = _pair("RandomResizedCrop", size), scale, ratio
        self.interpolation, self.antialias = mode_of(interpolation), antialias

    def apply(self, picture: Picture, draws: Draws) -> None:
        """Ten tries to find a rectangle that fits; then the largest one in the middle whose ratio is allowed."""
        h, w = picture.size
        for _ in range(10):
            height, width = _rectangle(draws, h, w, self.scale, self.ratio)
            if 0 < height <= h and 0 < width <= w:
                top, left = draws.below(h - height + 1), draws.below(w - width + 1)
                break
        else:
            ratio = min(max(w / h, self.ratio[0]), self.ratio[1])
            height, width = (h, round(h * ratio)) if w / h > ratio else (round(w / ratio), w)
            top, left = (h - height) // 2, (w - width) // 2
        picture.cut(top, left, height, width)
        picture.array = resize(picture.array, self.size, picture.axes, self.interpolation, self.antialias)


class RandomErasing(Transform):
    """With probability p a random rectangle of a tensor is filled with `value` (Z. Zhong et al., 2017).

    scale: between which shares of the area. ratio: between which ratios of the sides. Raises TypeError for an image that is no tensor.

    >>> md.data.transforms.RandomErasing(p=1.0)(md.ones((1, 8, 8))).shape
    (1, 8, 8)
    """

    def __init__(self, p: float = 0.5, scale: tuple[float, float] = (0.02, 0.33), ratio: tuple[float, float] = (0.3, 3.3), value: float = 0.0):
        self.p, self.scale, self.ratio, self.value = p, scale, ratio, value

    def apply(self, picture: Picture, draws: Draws) -> None:
        """Ten tries to find a rectangle that fits; none, and the image stays."""
        if not picture.tensor:
            raise TypeError("RandomErasing: a tensor is wanted; ToTensor makes one")
        if draws.uniform() >= self.p:
            return
        h, w = picture.size
        for _ in range(10):
            height, width = _rectangle(draws, h, w, self.scale, self.ratio)
            if 0 < height < h and 0 < width < w:
                top, left = draws.below(h - height + 1), draws.below(w - width + 1)
                picture.array = picture.array.copy()
                picture.array[..., top : top + height, left : left + width] = self.value
                return


class RandomApply(Transform):
    """All of some transforms with probability p, or none of them.

    >>> import numpy
    >>> md.data.transforms.RandomApply([md.data.transforms.CenterCrop(2)], p=1.0)(numpy.arange(12, dtype="uint8").reshape(3, 4, 1)).shape
    (2, 2, 1)
    """

    def __init__(self, transforms: Sequence[Callable[[Any], Any]], p: float = 0.5):
        self.transforms, self.p = list(transforms), p

    def apply(self, picture: Picture, draws: Draws) -> None:
        """Apply them, if the draw says so."""
        if draws.uniform() < self.p:
            Compose(self.transforms).apply(picture, draws)


class Grayscale(Transform):
    """Brightness (ITU-R 601: 0.299 red + 0.587 green + 0.114 blue) in one channel, or the same in three. Images with one channel stay.

    Raises ValueError for another number of output channels, and for an image that has neither 1 nor 3.

    >>> import numpy
    >>> md.data.transforms.Grayscale()(numpy.ones((2, 2, 3), "uint8")).shape
    (2, 2, 1)
    """

    def __init__(self, num_output_channels: int = 1):
        if num_output_channels not in (1, 3):
            raise ValueError(f"Grayscale: num_output_channels is 1 or 3, got {num_output_channels}")
        self.num_output_channels = num_output_channels

    def apply(self, picture: Picture, draws: Draws) -> None:
        """Mix the channels; bytes in integers, as Pillow does."""
        x = picture.array
        axis = -3 if picture.tensor else -1
        if x.ndim == 2:
            x = x[None] if picture.tensor else x[..., None]
        if x.shape[axis] not in (1, 3):
            raise ValueError(f"Grayscale: an image with 1 or 3 channels is wanted, this has {x.shape[axis]}")
        if x.shape[axis] == 3:
            x = np.expand_dims(luma(x, axis), axis)
        picture.array = np.repeat(x, 3, axis) if self.num_output_channels == 3 else x


explain(globals(), __all__)
