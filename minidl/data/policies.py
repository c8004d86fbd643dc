"""Which transform comes next: choices, orders and the policies of augmentation, and mixtures of the images of a batch, with torchvision's names.

Sources: E. Cubuk et al., RandAugment (2020); S. Mueller and F. Hutter, TrivialAugment (ICCV 2021); H. Zhang et al., mixup (ICLR 2018); S. Yun et al.,
CutMix (ICCV 2019). The ranges of magnitudes are torchvision's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import minidl as md
from minidl.data import distortions, tones
from minidl.data.pictures import Picture, Transform, draws_of
from minidl.data.randomness import Draws
from minidl.data.resampling import mode_of

__all__ = ["CutMix", "MixUp", "RandAugment", "RandomChoice", "RandomOrder", "TrivialAugmentWide"]


class RandomChoice(Transform):
    """One of several transforms, drawn by p (their weights, all alike without). Raises ValueError for another number of weights than transforms.

    >>> RandomChoice([md.data.transforms.CenterCrop(2), md.data.transforms.CenterCrop(3)], p=[0, 1])(np.zeros((4, 4))).shape
    (3, 3)
    """

    def __init__(self, transforms: Sequence[Callable[[Any], Any]], p: Sequence[float] | None = None):
        if p is not None and len(p) != len(transforms):
            raise ValueError(f"RandomChoice: {len(p)} weights for {len(transforms)} transforms")
        self.transforms, self.p = list(transforms), p
        self._ends = np.cumsum([1.0] * len(self.transforms) if p is None else p)

    def apply(self, picture: Picture, draws: Draws) -> None:
        """Draw one, and apply it."""
        picture.through(self.transforms[int(np.searchsorted(self._ends, draws.uniform(0, self._ends[-1]), "right"))], draws)


class RandomOrder(Transform):
    """All of some transforms, in random order.

    >>> RandomOrder([md.data.transforms.CenterCrop(2), md.data.transforms.RandomInvert(1.0)])(np.zeros((4, 4), np.uint8)).tolist()
    [[255, 255], [255, 255]]
    """

    def __init__(self, transforms: Sequence[Callable[[Any], Any]]):
        self.transforms = list(transforms)

    def apply(self, picture: Picture, draws: Draws) -> None:
        """Draw an order, and apply them in it."""
        for i in sorted(range(len(self.transforms)), key=[draws.word() for _ in self.transforms].__getitem__):
            picture.through(self.transforms[i], draws)


class TrivialAugmentWide(Transform):
    """One change of shape or tones, drawn evenly from fourteen, of an evenly drawn strength. For bytes, and floats in [0, 1].

    num_magnitude_bins: how many strengths there are. interpolation, fill: as RandomAffine.

    >>> TrivialAugmentWide()(np.zeros((8, 8, 3), np.uint8)).shape
    (8, 8, 3)
    """

    count = 1

    def __init__(self, num_magnitude_bins: int = 31, interpolation: Any = "nearest", fill: Any = 0):
        self.num_magnitude_bins, self.interpolation, self.fill = num_magnitude_bins, mode_of(interpolation), fill

    def most(self, size: tuple[int, int]) -> dict[str, float]:
        """The largest strength of each change, for an image of a height and width."""
        shift = {"ShearX": 0.99, "ShearY": 0.99, "TranslateX": 32.0, "TranslateY": 32.0}
        return {"Identity": 0.0, **shift, "Rotate": 135.0, **dict.fromkeys(_COLOURS, 0.99), "Posterize": 6.0, **dict.fromkeys(_OTHERS, 1.0)}

    def strength(self, draws: Draws) -> int:
        """The number of a strength."""
        return draws.below(self.num_magnitude_bins)

    def apply(self, picture: Picture, draws: Draws) -> None:
        """Draw changes, strengths and directions, and make them."""
        for _ in range(self.count):
            name, most = list(self.most(picture.size).items())[draws.below(14)]
            share = self.strength(draws) / max(1, self.num_magnitude_bins - 1)
            size = share * most * (-1 if name in _SIGNED and draws.below(2) else 1)
            _change(picture, name, size, self.interpolation, self.fill)


class RandAugment(TrivialAugmentWide):
    """num_ops changes of shape or tones, one after the other, drawn evenly from fourteen, all of one strength: number `magnitude` of
    num_magnitude_bins. For bytes, and floats in [0, 1]. interpolation, fill: as RandomAffine. Raises ValueError for a magnitude that is no bin.

    >>> RandAugment()(np.zeros((8, 8, 3), np.uint8)).shape
    (8, 8, 3)
    """

    def __init__(self, num_ops: int = 2, magnitude: int = 9, num_magnitude_bins: int = 31, interpolation: Any = "nearest", fill: Any = 0):
        super().__init__(num_magnitude_bins, interpolation, fill)
        if not 0 <= magnitude < num_magnitude_bins:
            raise ValueError(f"RandAugment: magnitude is one of {num_magnitude_bins} bins, 0 to {num_magnitude_bins - 1}, not {magnitude}")
        self.num_ops = self.count = num_ops
        self.magnitude = magnitude

    def most(self, size: tuple[int, int]) -> dict[str, float]:
        """The largest strength of each change, for an image of a height and width."""
        shift = {"ShearX": 0.3, "ShearY": 0.3, "TranslateX": 150 / 331 * size[1], "TranslateY": 150 / 331 * size[0]}
        return {"Identity": 0.0, **shift, "Rotate": 30.0, **dict.fromkeys(_COLOURS, 0.9), "Posterize": 4.0, **dict.fromkeys(_OTHERS, 1.0)}

    def strength(self, draws: Draws) -> int:
        """The number of the strength."""
        return self.magnitude


_COLOURS, _OTHERS = ("Brightness", "Color", "Contrast", "Sharpness"), ("Solarize", "AutoContrast", "Equalize")
_SIGNED = {"ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate", *_COLOURS}


def _change(picture: Picture, name: str, size: float, mode: str, fill: Any) -> None:
    x, axes = picture.array, picture.axes
    axis, flat = -1 if axes == (-3, -2) else -3, x.ndim == 2
    if name[:5] == "Shear":
        degrees = math.degrees(math.atan(size))
        shear = (degrees, 0.0) if name[-1] == "X" else (0.0, degrees)
        distortions.affine(picture, shear=shear, center=(0, 0), mode=mode, fill=fill)
    elif name[:9] == "Translate":
        distortions.affine(picture, shift=(int(size), 0) if name[-1] == "X" else (0, int(size)), mode=mode, fill=fill)
    elif name == "Rotate":
        distortions.affine(picture, -size, mode=mode, fill=fill)
    elif name in ("Brightness", "Color", "Contrast"):
        f = {"Brightness": distortions.brighter, "Color": distortions.richer, "Contrast": distortions.stronger}[name]
        if f is not distortions.richer or (not flat and x.shape[axis] == 3):
            picture.array = f(x[..., None], -1, 1 + size)[..., 0] if flat else f(x, axis, 1 + size)
    elif name == "Sharpness":
        picture.array = tones.sharpen(x, axes, 1 + size)
    elif name == "Posterize":
        picture.array = tones.posterize(x, 8 - round(size))
    elif name == "Solarize":
        picture.array = tones.solarize(x, (1 - size) * (255 if x.dtype == np.uint8 else 1))
    elif name in ("AutoContrast", "Equalize"):
        picture.array = (tones.autocontrast if name[0] == "A" else tones.equalize)(x, axes)


class MixUp:
    """Each image of a batch mixed with its neighbour, and the labels in the same parts; the part is drawn from Beta(alpha, alpha), once for a batch.

    A call with images [N, ..., H, W] and labels [N] (integers) or [N, num_classes] returns both, the labels as probabilities, which CrossEntropyLoss
    takes: in the training loop, or at the end of a collate_fn. key: of md.random; without one as the transforms draw. Raises ValueError for an alpha
    that is not positive, and for integer labels without num_classes.

    >>> x, y = MixUp(num_classes=3)(md.ones((2, 1, 4, 4)), md.tensor([0, 2]))
    >>> x.shape, y.shape, [round(v, 5) for v in y.sum(axis=1).tolist()]
    ((2, 1, 4, 4), (2, 3), [1.0, 1.0])
    """

    def __init__(self, *, alpha: float = 1.0, num_classes: int | None = None):
        if alpha <= 0:
            raise ValueError(f"{type(self).__name__}: alpha is positive, not {alpha}")
        self.alpha, self.num_classes = alpha, num_classes

    def __call__(self, images: md.Tensor, labels: md.Tensor, *, key: Any = None) -> tuple[md.Tensor, md.Tensor]:
        numbers = draws_of(key)
        with md.use_backend("numpy"):
            part = md.random.beta(numbers.key(), self.alpha, self.alpha).item()
        images, part = self.mixed(images, part, numbers)
        if not labels.dtype.is_float:
            if self.num_classes is None:
                raise ValueError(f"{type(self).__name__}: num_classes is wanted for labels that are integers")
            labels = md.nn.functional.one_hot(labels, self.num_classes).to(images.dtype)
        return images, labels * part + md.roll(labels, 1, axis=0) * (1 - part)

    def mixed(self, images: md.Tensor, part: float, draws: Draws) -> tuple[md.Tensor, float]:
        """The images of which `part` is their own, and how much of them is."""
        return images * part + md.roll(images, 1, axis=0) * (1 - part), part


class CutMix(MixUp):
    """As MixUp, but a rectangle of each image is its neighbour's, and the labels are mixed by its area.

    >>> x, y = CutMix(num_classes=3)(md.ones((2, 1, 4, 4)), md.tensor([0, 2]))
    >>> x.shape, y.shape
    ((2, 1, 4, 4), (2, 3))
    """

    def mixed(self, images: md.Tensor, part: float, draws: Draws) -> tuple[md.Tensor, float]:
        """The images with the rectangle, and how much of them is their own."""
        h, w = images.shape[-2:]
        y, x, half = draws.below(h), draws.below(w), 0.5 * math.sqrt(1 - part)
        top, bottom, left, right = (max(y - int(half * h), 0), min(y + int(half * h), h), max(x - int(half * w), 0), min(x + int(half * w), w))
        inside = np.zeros((h, w), bool)
        inside[top:bottom, left:right] = True
        cut = md.asarray(inside, backend=images.backend, device=images.device)
        return md.where(cut, md.roll(images, 1, axis=0), images), 1.0 - float(inside.mean())
