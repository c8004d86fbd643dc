"""What the transforms of images share: an image on its way through them, and where the random ones get their numbers from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import minidl as md
from minidl.data.collate import is_torch, of_torch
from minidl.data.explaining import explain
from minidl.data.randomness import Draws, draws, loading


class Picture:
    """An image on its way through transforms: the array, whether it is a tensor (channels first), and the backend that it goes back to."""

    __slots__ = ("array", "device", "home", "tensor")

    def __init__(self, image: Any):
        self.tensor, self.home, self.device = False, None, None
        if isinstance(image, md.Tensor):
            self.tensor, self.home, self.device, image = True, image.backend, image.device, np.asarray(image, copy=False)
        elif is_torch(image):
            self.tensor, image = True, of_torch(image)
        elif not isinstance(image, np.ndarray):
            if not hasattr(image, "__array_interface__"):
                raise TypeError(f"transforms: an image is a NumPy array, a Tensor or a Pillow image, not {type(image).__name__}")
            image = np.asarray(image)
            image = image.astype(np.uint8) * np.uint8(255) if image.dtype == bool else image  # Pillow's mode "1"
        if image.ndim < 2 or (not self.tensor and image.ndim > 3):
            raise ValueError(f"transforms: an image array is [H, W] or [H, W, C], a tensor [..., C, H, W]; this has shape {image.shape}")
        self.array: np.ndarray = image

    @property
    def axes(self) -> tuple[int, int]:
        """Which axes are the rows and the columns, counted from the end."""
        return (-2, -1) if self.tensor or self.array.ndim == 2 else (-3, -2)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.array.shape[self.axes[0]], self.array.shape[self.axes[1]]

    def cut(self, top: int, left: int, height: int, width: int) -> None:
        """Keep a rectangle."""
        rows, columns = slice(top, top + height), slice(left, left + width)
        self.array = self.array[(..., rows, columns) if self.axes == (-2, -1) else (..., rows, columns, slice(None))]

    def pad(self, left: int, top: int, right: int, bottom: int, fill: Any, mode: str) -> None:
        """Add rows and columns."""
        widths = [(0, 0)] * self.array.ndim
        widths[self.axes[0]], widths[self.axes[1]] = (top, bottom), (left, right)
        if mode != "constant":
            self.array = np.pad(self.array, widths, mode)  # type: ignore[call-overload]
        elif np.ndim(fill) == 0:
            self.array = np.pad(self.array, widths, constant_values=fill)
        else:  # a value for each channel
            channel = np.asarray(fill, self.array.dtype).reshape((-1, 1, 1) if self.tensor else (-1,))
            inside = np.pad(np.ones(self.array.shape, bool), widths)
            self.array = np.where(inside, np.pad(self.array, widths), channel)

    def through(self, step: Callable[..., Any], draws: Draws) -> None:
        """Go through a transform of any library, or a function."""
        if isinstance(step, Transform):
            step.apply(self, draws)
        else:
            self.__init__(step(self.out()))  # type: ignore[misc]

    def out(self) -> Any:
        """What the user gets: of the kind that came."""
        if not self.tensor:
            return self.array
        home = self.home or ("numpy" if loading() else None)
        return md.asarray(np.ascontiguousarray(self.array), backend=home, device=self.device)


class Transform:
    """The base of transforms: subclasses define apply(picture, draws), which changes the picture; a call does it to an image.

    An image is an array [H, W] or [H, W, C], a Tensor [..., C, H, W] or a Pillow image: a call raises TypeError for anything else, ValueError for
    other shapes, and NotImplementedError where apply is not defined.

    >>> import numpy
    >>> class Twice(md.data.transforms.Transform):
    ...     def apply(self, picture, draws):
    ...         md.data.transforms.RandomVerticalFlip(1.0).apply(picture, draws)
    ...         md.data.transforms.RandomHorizontalFlip(1.0).apply(picture, draws)
    >>> Twice()(numpy.array([[1, 2], [3, 4]], "uint8")).tolist()
    [[4, 3], [2, 1]]
    """

    def apply(self, picture: Picture, draws: Draws) -> None:
        """Change the picture."""
        raise NotImplementedError(f"{type(self).__name__} does not define apply")

    def __call__(self, image: Any, *, key: Any = None) -> Any:
        picture = Picture(image)
        self.apply(picture, draws_of(key))
        return picture.out()

    def __repr__(self) -> str:
        shown = ", ".join(f"{k}={v!r}" for k, v in vars(self).items() if not k.startswith("_"))
        return f"{type(self).__name__}({shown})"


class Later:
    """Draws that are looked for when the first number is needed: what is not random takes none from the default generator."""

    found: Any = None

    def __getattr__(self, name: str) -> Any:
        if self.found is None:
            self.found = draws()
        return getattr(self.found, name)


def draws_of(key: Any) -> Any:
    """The numbers of a key, or those that will be looked for when they are needed; draws stay as they are."""
    return Later() if key is None else key if isinstance(key, (Draws, Later)) else draws(key)


explain(globals(), ["Transform"])
