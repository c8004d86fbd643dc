"""A picture of an attribution: the image in grey beside it, and the attribution in colour."""

from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import Any

import numpy as np

import minidl as md

_POSITIVE, _NEGATIVE = np.array([213, 94, 0]), np.array([0, 114, 178])


def _gray(image: np.ndarray) -> np.ndarray:
    """[H, W, 3] uint8 of [H, W], [C, H, W] or [H, W, 3], whatever its range."""
    image = image.astype(np.float64)
    if image.ndim == 3:
        image = image.mean(axis=0 if image.shape[0] in (1, 3) else -1)
    low, high = image.min(), image.max()
    return np.repeat(((image - low) / (high - low or 1.0) * 255).astype(np.uint8)[..., None], 3, axis=2)


def _colours(attribution: np.ndarray) -> np.ndarray:
    """[H, W, 3] uint8: white for 0, orange for what speaks for the class, blue for what speaks against it."""
    a = attribution.astype(np.float64)
    if a.ndim == 3:
        a = a.sum(axis=0 if a.shape[0] in (1, 3) else -1)
    strength = np.abs(a) / (np.quantile(np.abs(a), 0.99) or np.abs(a).max() or 1.0)
    strength = np.clip(strength, 0, 1)[..., None]
    return (255 * (1 - strength) + np.where(a[..., None] >= 0, _POSITIVE, _NEGATIVE) * strength).astype(np.uint8)


def overlay(image: Any, attribution: Any, path: str | os.PathLike[str] | None = None, title: str = "", size: int = 240) -> str:
    """An SVG with the image in grey, the attribution, and one over the other; written to path, if there is one. Returns its text.

    image, attribution: arrays or tensors [H, W] or [C, H, W] of one example, of the same height and width; `size`: the width of each of the three in
    pixels. Raises ValueError for other shapes and for numbers that are not finite.

    >>> import minidl as md
    >>> overlay(md.ones((1, 8, 8)), md.ones((8, 8))).startswith("<svg")
    True
    """
    arrays = [np.asarray(v.detach().numpy() if isinstance(v, md.Tensor) else v) for v in (image, attribution)]
    for name, a in zip(("image", "attribution"), arrays, strict=True):
        if a.ndim not in (2, 3) or a.size == 0:
            raise ValueError(f"overlay: the {name} has shape {a.shape}; [H, W] or [C, H, W] of one example is wanted")
        if not np.isfinite(a).all():
            raise ValueError(f"overlay: the {name} holds nan or infinity, which have no colour")
    grey, colour = _gray(arrays[0]), _colours(arrays[1])
    if grey.shape != colour.shape:
        raise ValueError(f"overlay: an image of {grey.shape[:2]} and an attribution of {colour.shape[:2]} differ in height or width")
    both = (grey.astype(np.uint16) // 2 + colour // 2).astype(np.uint8)
    height = size * grey.shape[0] // grey.shape[1]
    parts = [md.draw.label(0, 16, title)] if title else []
    top = 24 if title else 0
    for i, a in enumerate((grey, colour, both)):
        data = base64.b64encode(md.draw.png(a)).decode()
        place = f'x="{i * (size + 8)}" y="{top}" width="{size}" height="{height}" style="image-rendering:pixelated"'
        parts.append(f'<image {place} href="data:image/png;base64,{data}"/>')
    text = md.draw.page(3 * size + 16, height + top, parts)
    if path is not None:
        Path(path).write_text(text, encoding="utf-8")
    return text
