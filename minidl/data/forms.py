"""What an image is held in: transforms between arrays and tensors and between dtypes, with torchvision's names and arguments (transforms.v2 too)."""

from __future__ import annotations

from typing import Any

import numpy as np

import minidl as md
from minidl.data.pictures import Picture, Transform
from minidl.data.randomness import Draws

__all__ = ["ConvertImageDtype", "PILToTensor", "ToDtype", "ToImage"]


class ToImage(Transform):
    """An array or Pillow image [H, W] or [H, W, C] as a Tensor [C, H, W] of the same dtype and values (ToTensor scales bytes); tensors stay.

    >>> ToImage()(np.full((3, 4, 1), 200, np.uint8)).max().item()
    200
    """

    def apply(self, picture: Picture, draws: Draws) -> None:
        """Channels first."""
        if not picture.tensor:
            x = picture.array
            picture.array, picture.tensor = x[None] if x.ndim == 2 else x.transpose(2, 0, 1), True


class PILToTensor(ToImage):
    """ToImage by its older name. Raises TypeError for what is a tensor already.

    >>> PILToTensor()(np.zeros((3, 4), np.uint8)).shape
    (1, 3, 4)
    """

    def apply(self, picture: Picture, draws: Draws) -> None:
        """Channels first."""
        if picture.tensor:
            raise TypeError("PILToTensor: this image is a tensor already")
        super().apply(picture, draws)


class ToDtype(Transform):
    """Another dtype, of md or NumPy. scale=True: bytes as floats in [0, 1] and floats in [0, 1] as bytes, else the numbers as they are.

    Raises TypeError for scale between other dtypes than bytes and floats.

    >>> ToDtype(md.float32, scale=True)(np.array([[0, 255]], np.uint8)).tolist()
    [[0.0, 1.0]]
    """

    def __init__(self, dtype: Any, scale: bool = False):
        self.dtype, self.scale = dtype, scale
        self._dtype = dtype.numpy if isinstance(dtype, md.DType) else np.dtype(dtype)

    def apply(self, picture: Picture, draws: Draws) -> None:
        """Convert."""
        x, to = picture.array, self._dtype
        floats = [kind in "fV" for kind in (x.dtype.kind, to.kind)]
        if not self.scale or x.dtype == to or all(floats):
            picture.array = x.astype(to)
        elif x.dtype == np.uint8 and floats[1]:
            picture.array = np.divide(x, np.float32(255), dtype=np.float32).astype(to)
        elif floats[0] and to == np.uint8:
            picture.array = np.clip(x * (256 - 1e-3), 0, 255).astype(np.uint8)  # as torchvision, so that each byte has a share as wide
        else:
            raise TypeError(f"{type(self).__name__}: scale is between uint8 and floats, not from {x.dtype} to {to}; scale the numbers by a Lambda")


class ConvertImageDtype(ToDtype):
    """ToDtype with scale=True, by its older name.

    >>> ConvertImageDtype(md.float32)(np.array([[255]], np.uint8)).tolist()
    [[1.0]]
    """

    def __init__(self, dtype: Any):
        super().__init__(dtype, scale=True)
