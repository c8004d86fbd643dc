"""Numbers as 8-bit integers times a scale: symmetric, so that 0 stays 0 and a product needs no corrections.

Source: B. Jacob et al., Quantization and training of neural networks for efficient integer-arithmetic-only inference (CVPR 2018); the symmetric
form as in R. Krishnamoorthi, Quantizing deep convolutional networks (2018), section 2.2.
"""

from __future__ import annotations

import minidl as md

LARGEST = 127


def scale_of(x: md.Tensor, axis: int | tuple[int, ...] | None = None) -> md.Tensor:
    """The scale with which the largest size along `axis` (kept with size 1; None: of all) becomes 127; 1 where all is 0, or too small for it.

    >>> import minidl as md
    >>> round(scale_of(md.tensor([0.0, -2.54])).item(), 4)
    0.02
    """
    scale = md.max(md.abs(x), axis=axis, keepdims=axis is not None) / LARGEST
    return md.where(scale == 0, 1.0, scale)  # nan stays nan


def quantize(x: md.Tensor, scale: md.Tensor) -> md.Tensor:
    """x / scale, rounded half to even and clipped to ±127, as int8.

    >>> import minidl as md
    >>> quantize(md.tensor([0.1, -0.26, 9.0]), md.tensor(0.02)).tolist()
    [5, -13, 127]
    """
    return md.clip(md.round(x / scale), -LARGEST, LARGEST).to(md.int8)


def dequantize(q: md.Tensor, scale: md.Tensor) -> md.Tensor:
    """q times scale, in the scale's dtype.

    >>> import minidl as md
    >>> dequantize(md.tensor([5], dtype=md.int8), md.tensor(0.5)).tolist()
    [2.5]
    """
    return q.to(scale.dtype) * scale


def fake_quantize(x: md.Tensor, scale: md.Tensor) -> md.Tensor:
    """x as it comes back from 8 bits; its derivative is 1 where x rounds to within ±127 scales, and 0 beyond (the straight-through estimator).

    Source: Y. Bengio et al., Estimating or propagating gradients through stochastic neurons (2013).

    >>> import minidl as md
    >>> f = lambda x: fake_quantize(x, md.tensor(0.1)).sum()
    >>> md.grad(f)(md.tensor([0.234, 99.0])).tolist()
    [1.0, 0.0]
    """
    scale = md.stop_gradient(scale)
    rounded = md.round(md.stop_gradient(x) / scale)
    held = md.clip(rounded, -LARGEST, LARGEST) * scale
    return held + md.where(md.abs(rounded) <= LARGEST, x - md.stop_gradient(x), 0.0)
