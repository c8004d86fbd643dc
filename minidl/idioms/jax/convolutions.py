"""Convolutions of jax.lax: in any layout, turned round, and the patches that they look at."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import minidl as md
from minidl.idioms import of_lax


class ConvDimensionNumbers(NamedTuple):
    """For lhs, rhs and the result, which axis is the batch (of rhs, the results' channels), which the channels, and which follow."""

    lhs_spec: tuple[int, ...]
    rhs_spec: tuple[int, ...]
    out_spec: tuple[int, ...]


def conv_dimension_numbers(lhs_shape: Sequence[int], rhs_shape: Sequence[int], dimension_numbers: Any) -> ConvDimensionNumbers:
    """The axes that layouts such as ("NHWC", "HWIO", "NHWC") name; without them those of ("NCHW", "OIHW", "NCHW").

    >>> conv_dimension_numbers((1, 4, 4, 3), (3, 3, 3, 8), ("NHWC", "HWIO", "NHWC")).rhs_spec
    (3, 2, 0, 1)
    """
    if isinstance(dimension_numbers, ConvDimensionNumbers):
        return dimension_numbers
    n = len(lhs_shape)
    if dimension_numbers is None:
        return ConvDimensionNumbers(*[tuple(range(n))] * 3)
    lhs, rhs, out = dimension_numbers
    if len(rhs_shape) != n or any(len(v) != n or len(set(v)) != n for v in (lhs, rhs, out)):
        raise ValueError(f"conv_dimension_numbers: {lhs!r}, {rhs!r} and {out!r} do not each name the {n} axes of {tuple(lhs_shape)}")
    spatial = [c for c in rhs if c not in "OI"]
    return ConvDimensionNumbers(*(tuple(v.index(c) for c in [*first, *spatial]) for v, first in ((lhs, "NC"), (rhs, "OI"), (out, "NC"))))


def _layouts(numbers: Any) -> Any:
    """The layouts as texts, which may be the axes that conv_dimension_numbers found."""
    if not isinstance(numbers, ConvDimensionNumbers):
        return numbers
    names = "DHW"[-(len(numbers[0]) - 2) :]
    return tuple("".join((first + names)[spec.index(a)] for a in range(len(spec))) for spec, first in zip(numbers, ("NC", "OI", "NC"), strict=True))


def conv_general_dilated(
    lhs: Any, rhs: Any, window_strides: Sequence[int], padding: Any, lhs_dilation: Sequence[int] | None = None,
    rhs_dilation: Sequence[int] | None = None, dimension_numbers: Any = None, feature_group_count: int = 1, batch_group_count: int = 1,
    precision: Any = None, preferred_element_type: Any = None,
) -> md.Tensor:  # fmt: skip
    """md.conv_general_dilated, whose dimension_numbers may be the axes that conv_dimension_numbers found. batch_group_count: so many parts of the
    batch, one for each part of the kernel's results. preferred_element_type: the dtype in which it is computed."""
    x, w, layouts = md.asarray(lhs), md.asarray(rhs), _layouts(dimension_numbers)
    if preferred_element_type is not None:
        x, w = x.to(preferred_element_type), w.to(preferred_element_type)
    if batch_group_count > 1:
        if feature_group_count > 1:
            raise ValueError("conv_general_dilated: there are groups of the batch or of features, not of both")
        spec = conv_dimension_numbers(x.shape, w.shape, layouts).lhs_spec
        x = md.permute_dims(x, spec)
        x = md.swapaxes(md.reshape(x, (batch_group_count, -1, *x.shape[1:])), 0, 1)
        x = md.reshape(x, (x.shape[0], -1, *x.shape[3:]))
        x, feature_group_count = md.permute_dims(x, [spec.index(a) for a in range(x.ndim)]), batch_group_count
    return of_lax.conv_general_dilated(x, w, window_strides, padding, lhs_dilation, rhs_dilation, layouts, feature_group_count)


def conv_with_general_padding(
    lhs: Any, rhs: Any, window_strides: Sequence[int], padding: Any, lhs_dilation: Any, rhs_dilation: Any, precision: Any = None,
    preferred_element_type: Any = None,
) -> md.Tensor:  # fmt: skip
    """conv_general_dilated of channels behind the batch."""
    return conv_general_dilated(lhs, rhs, window_strides, padding, lhs_dilation, rhs_dilation, preferred_element_type=preferred_element_type)


def conv_general_dilated_patches(
    lhs: Any, filter_shape: Sequence[int], window_strides: Sequence[int], padding: Any, lhs_dilation: Any = None, rhs_dilation: Any = None,
    dimension_numbers: Any = None, precision: Any = None, preferred_element_type: Any = None,
) -> md.Tensor:  # fmt: skip
    """The windows of filter_shape that a convolution looks at, as channels: each channel's window in a row, one channel behind another.

    >>> conv_general_dilated_patches(md.reshape(md.arange(4.0), (1, 1, 2, 2)), (2, 2), (1, 1), "VALID").tolist()
    [[[[0.0]], [[1.0]], [[2.0]], [[3.0]]]]
    """
    x = md.asarray(lhs)
    size = math.prod(filter_shape)
    rhs_shape = (size, 1, *filter_shape)
    spec = conv_dimension_numbers(x.shape, rhs_shape, dimension_numbers)
    channels = x.shape[spec.lhs_spec[1]]
    kernel = md.tile(md.reshape(md.eye(size, dtype=x.dtype, backend=x.backend, device=x.device), rhs_shape), (channels, *(1,) * (x.ndim - 1)))
    kernel = md.permute_dims(kernel, [spec.rhs_spec.index(a) for a in range(x.ndim)])
    return conv_general_dilated(
        x, kernel, window_strides, padding, lhs_dilation, rhs_dilation, spec, channels, preferred_element_type=preferred_element_type
    )


def padtype_to_pads(in_shape: Sequence[int], window_shape: Sequence[int], window_strides: Sequence[int], padding: Any) -> list[tuple[int, int]]:
    """The pairs that "SAME", "SAME_LOWER" or "VALID" is for each axis.

    >>> padtype_to_pads((5,), (3,), (1,), "SAME")
    [(1, 1)]
    """
    return of_lax.paddings(padding, in_shape, window_shape, window_strides)


def conv(lhs: Any, rhs: Any, window_strides: Sequence[int], padding: Any, precision: Any = None, preferred_element_type: Any = None) -> md.Tensor:
    """conv_general_dilated of channels behind the batch."""
    return conv_general_dilated(lhs, rhs, window_strides, padding, preferred_element_type=preferred_element_type)


def conv_transpose(
    lhs: Any, rhs: Any, strides: Sequence[int], padding: Any, rhs_dilation: Sequence[int] | None = None, dimension_numbers: Any = None,
    transpose_kernel: bool = False, precision: Any = None, preferred_element_type: Any = None,
) -> md.Tensor:  # fmt: skip
    """The convolution of an image whose elements stand `strides` apart; transpose_kernel: with the kernel turned, its channels exchanged, which is
    the gradient of a convolution.

    >>> conv_transpose(md.ones((1, 2, 1)), md.ones((2, 1, 1)), (2,), "VALID", dimension_numbers=("NHC", "HIO", "NHC")).shape
    (1, 4, 1)
    """
    x, w = md.asarray(lhs), md.asarray(rhs)
    n = x.ndim - 2
    axes = "DHW"[-n:]
    layouts = _layouts(dimension_numbers) or ("N" + axes + "C", axes + "IO", "N" + axes + "C")
    spatial = [c for c in layouts[1] if c not in "IO"]
    sizes = [w.shape[layouts[1].index(c)] for c in spatial]
    apart = tuple(rhs_dilation or (1,) * n)
    pads = padding
    if isinstance(padding, str):
        if padding.upper() not in ("SAME", "VALID"):
            raise ValueError(f"conv_transpose: padding is 'SAME', 'VALID' or pairs, not {padding!r}")
        pads = []
        for k, s, d in zip(sizes, strides, apart, strict=True):
            k = (k - 1) * d + 1
            total = k + s - 2 + (max(k - s, 0) if padding.upper() == "VALID" else 0)
            before = k - 1 if padding.upper() == "VALID" or s > k - 1 else math.ceil(total / 2)
            pads.append((before, total - before))
    if transpose_kernel:
        w = md.flip(w, axis=tuple(layouts[1].index(c) for c in spatial))
        w = md.swapaxes(w, layouts[1].index("I"), layouts[1].index("O"))
    return conv_general_dilated(x, w, (1,) * n, pads, tuple(strides), apart, layouts)


#: Name -> what it is in jax.lax.
NAMES: dict[str, Any] = {f.__name__: f for f in (
    ConvDimensionNumbers, conv, conv_dimension_numbers, conv_general_dilated, conv_general_dilated_patches, conv_transpose,
    conv_with_general_padding, padtype_to_pads,
)}  # fmt: skip
