"""What programs in JAX's idiom call most of jax.lax, jax.ops, jax.nn and jax.flatten_util, composed of minidl's functions, with JAX's arguments.

They differentiate, trace and batch as what they are made of. Where jax.lax has another name for a function of md (lax.select_n), it is not here.
"""

from __future__ import annotations

import functools
import itertools
import math
import operator
import string
from collections.abc import Callable, Sequence
from typing import Any

import minidl as md

Dimensions = tuple[tuple[Sequence[int], Sequence[int]], tuple[Sequence[int], Sequence[int]]]


# ---- pieces at places that only values know ---------------------------------------------------------------------------------------------
def _start(x: md.Tensor, axis: int, start: Any, size: int) -> Any:
    """Where a piece begins, as JAX has it: from the end where negative, moved until the piece lies within."""
    n = x.shape[axis]
    if size > n:
        raise ValueError(f"dynamic_slice: a piece of {size} along axis {axis}, which has {n} elements")
    if not isinstance(start, md.Tensor):
        return min(max(start + n if start < 0 else start, 0), n - size)
    return md.clip(md.where(start < 0, start + n, start), 0, n - size)


def dynamic_slice(operand: Any, start_indices: Sequence[Any], slice_sizes: Sequence[int]) -> md.Tensor:
    """The piece of these sizes that begins at these places, numbers or 0-d tensors; it is moved until it lies within. Raises ValueError for a size
    beyond the axis.

    >>> md.dynamic_slice(md.arange(5), (md.tensor(4),), (2,)).tolist()
    [3, 4]
    """
    x = md.asarray(operand)
    for axis, (start, size) in enumerate(zip(start_indices, slice_sizes, strict=True)):
        first = _start(x, axis, start, size)
        if isinstance(first, md.Tensor):
            x = md.take(x, first + md.arange(size, backend=x.backend, device=x.device), axis=axis)
        else:
            x = x[(slice(None),) * axis + (slice(first, first + size),)]
    return x


def dynamic_update_slice(operand: Any, update: Any, start_indices: Sequence[Any]) -> md.Tensor:
    """The tensor with `update` in the place of the piece of its shape that begins there, moved until it lies within.

    >>> md.dynamic_update_slice(md.zeros(4), md.ones(2), (md.tensor(1),)).tolist()
    [0.0, 1.0, 1.0, 0.0]
    """
    x, new = md.asarray(operand), md.asarray(update)
    places = []
    for axis, (start, size) in enumerate(zip(start_indices, new.shape, strict=True)):
        run = md.arange(size, backend=x.backend, device=x.device) + _start(x, axis, start, size)
        places.append(md.reshape(run, (1,) * axis + (size,) + (1,) * (x.ndim - 1 - axis)))
    return x.at[tuple(places)].set(new) if places else new


def _starts(x: md.Tensor, axis: int, start: Any) -> tuple[list[Any], int]:
    axis = operator.index(axis) % x.ndim
    return [start if a == axis else 0 for a in range(x.ndim)], axis


def dynamic_slice_in_dim(operand: Any, start_index: Any, slice_size: int, axis: int = 0) -> md.Tensor:
    """dynamic_slice along one axis."""
    x = md.asarray(operand)
    starts, axis = _starts(x, axis, start_index)
    return dynamic_slice(x, starts, [slice_size if a == axis else n for a, n in enumerate(x.shape)])


def dynamic_index_in_dim(operand: Any, index: Any, axis: int = 0, keepdims: bool = True) -> md.Tensor:
    """One place along one axis, which stays with size one or goes.

    >>> md.dynamic_index_in_dim(md.tensor([5, 6, 7]), md.tensor(1), keepdims=False).item()
    6
    """
    out = dynamic_slice_in_dim(operand, index, 1, axis)
    return out if keepdims else md.squeeze(out, axis=axis)


def dynamic_update_slice_in_dim(operand: Any, update: Any, start_index: Any, axis: int) -> md.Tensor:
    """dynamic_update_slice along one axis."""
    x = md.asarray(operand)
    return dynamic_update_slice(x, update, _starts(x, axis, start_index)[0])


def dynamic_update_index_in_dim(operand: Any, update: Any, index: Any, axis: int) -> md.Tensor:
    """The tensor with `update`, which may lack the axis, at one place along it."""
    x, new = md.asarray(operand), md.asarray(update)
    return dynamic_update_slice_in_dim(x, md.expand_dims(new, axis=axis) if new.ndim < x.ndim else new, index, axis)


# ---- products and windows ---------------------------------------------------------------------------------------------------------------
def dot_general(lhs: Any, rhs: Any, dimension_numbers: Dimensions, precision: Any = None, preferred_element_type: Any = None) -> md.Tensor:
    """The product over the axes ((of lhs, of rhs), (batch of lhs, batch of rhs)); batch axes come first, then what is left of lhs and of rhs.
    precision is accepted and changes nothing; preferred_element_type: the dtype in which it is computed.

    >>> md.dot_general(md.ones((2, 3)), md.ones((2, 3)), (((1,), (1,)), ((0,), (0,)))).tolist()
    [3.0, 3.0]
    """
    x, y = md.asarray(lhs), md.asarray(rhs)
    if preferred_element_type is not None:
        x, y = x.to(preferred_element_type), y.to(preferred_element_type)
    (left, right), (left_batch, right_batch) = dimension_numbers
    letters = iter(string.ascii_letters)
    a = [next(letters) for _ in range(x.ndim)]
    b = [next(letters) for _ in range(y.ndim)]
    for i, j in zip((*left_batch, *left), (*right_batch, *right), strict=True):
        b[j] = a[i]
    batch = [a[i] for i in left_batch]
    rest = [c for c in a + b if (c in a) != (c in b)]
    return md.einsum(f"{''.join(a)},{''.join(b)}->{''.join(batch + rest)}", x, y)


def paddings(padding: Any, sizes: Sequence[int], windows: Sequence[int], strides: Sequence[int]) -> list[tuple[int, int]]:
    """The pairs that a padding is."""
    if not isinstance(padding, str):
        return [tuple(p) for p in padding]
    kind = padding.upper()
    if kind == "VALID":
        return [(0, 0)] * len(sizes)
    if kind not in ("SAME", "SAME_LOWER"):
        raise ValueError(f"padding is 'SAME', 'SAME_LOWER', 'VALID' or a pair for each axis, not {padding!r}")
    total = [max((math.ceil(n / s) - 1) * s + w - n, 0) for n, w, s in zip(sizes, windows, strides, strict=True)]
    return [(t // 2, t - t // 2) if kind == "SAME" else (t - t // 2, t // 2) for t in total]


def conv_general_dilated(
    lhs: Any, rhs: Any, window_strides: Sequence[int], padding: Any, lhs_dilation: Sequence[int] | None = None,
    rhs_dilation: Sequence[int] | None = None, dimension_numbers: Any = None, feature_group_count: int = 1, *, precision: Any = None,
) -> md.Tensor:  # fmt: skip
    """The convolution of one to three axes. dimension_numbers: the layouts of lhs, rhs and the result, such as ("NHWC", "HWIO", "NHWC"); without them
    ("NCHW", "OIHW", "NCHW"). precision is accepted and changes nothing. Raises ValueError for another padding than "SAME", "SAME_LOWER", "VALID" or
    pairs.

    >>> md.conv_general_dilated(md.ones((1, 4, 4, 1)), md.ones((3, 3, 1, 2)), (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")).shape
    (1, 4, 4, 2)
    """
    x, w = md.asarray(lhs), md.asarray(rhs)
    n = x.ndim - 2
    axes = "DHW"[-n:]
    given, kernel, wanted = dimension_numbers or ("NC" + axes, "OI" + axes, "NC" + axes)
    spatial = [c for c in given if c not in "NC"]
    x = md.permute_dims(x, [given.index(c) for c in ["N", "C", *spatial]])
    w = md.permute_dims(w, [kernel.index(c) for c in ["O", "I", *spatial]])
    strides, apart = tuple(window_strides), tuple(rhs_dilation or (1,) * n)
    if lhs_dilation is not None and any(d > 1 for d in lhs_dilation):
        sizes = ((m - 1) * d + 1 for m, d in zip(x.shape[2:], lhs_dilation, strict=True))
        wide = md.zeros((*x.shape[:2], *sizes), dtype=x.dtype, backend=x.backend, device=x.device)
        x = wide.at[(..., *(slice(None, None, d) for d in lhs_dilation))].set(x)
    reach = [(k - 1) * d + 1 for k, d in zip(w.shape[2:], apart, strict=True)]
    x = md.pad(x, [(0, 0), (0, 0), *paddings(padding, x.shape[2:], reach, strides)])
    out = getattr(md.nn.functional, f"conv{n}d")(x, w, None, strides, 0, apart, feature_group_count)
    return md.permute_dims(out, [["N", "C", *spatial].index(c) for c in wanted])


def reduce_window(
    operand: Any, init_value: Any, computation: Callable[[md.Tensor, md.Tensor], md.Tensor], window_dimensions: Sequence[int],
    window_strides: Sequence[int], padding: Any,
) -> md.Tensor:  # fmt: skip
    """The elements of each window joined by a function of two tensors, such as md.add or md.maximum; what is padded is init_value.

    >>> md.reduce_window(md.tensor([1.0, 3.0, 2.0, 5.0]), -md.inf, md.maximum, (2,), (2,), "VALID").tolist()
    [3.0, 5.0]
    """
    x = md.asarray(operand)
    x = md.pad(x, paddings(padding, x.shape, window_dimensions, window_strides), init_value)
    ends = [n - w + 1 for n, w in zip(x.shape, window_dimensions, strict=True)]
    pieces = (
        x[tuple(slice(o, o + e, s) for o, e, s in zip(offsets, ends, window_strides, strict=True))]
        for offsets in itertools.product(*map(range, window_dimensions))
    )
    return functools.reduce(computation, pieces)


# ---- segments, classes, pytrees ---------------------------------------------------------------------------------------------------------
def _segments(name: str, of: str, nothing: Callable[[md.DType], Any]) -> Callable[..., md.Tensor]:
    def function(
        data: Any, segment_ids: Any, num_segments: int | None = None, indices_are_sorted: bool = False, unique_indices: bool = False
    ) -> md.Tensor:
        data = md.asarray(data)
        ids = segment_ids if isinstance(segment_ids, md.Tensor) else md.asarray(segment_ids, device=data.device)
        n = int(md.max(ids)) + 1 if num_segments is None else num_segments
        start = md.full((n, *data.shape[1:]), nothing(data.dtype), dtype=data.dtype, backend=data.backend, device=data.device)
        return getattr(start.at[md.where(ids < 0, n, ids)], of)(data, mode="drop")

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"As segment_sum, by at[...].{of}; what no row belongs to is what {of} begins from."
    return function


def least(dtype: md.DType) -> Any:
    return -math.inf if dtype.inexact else md.iinfo(dtype).min


def greatest(dtype: md.DType) -> Any:
    return math.inf if dtype.inexact else md.iinfo(dtype).max


def one_hot(x: Any, num_classes: int, *, dtype: Any = None, axis: int = -1) -> md.Tensor:
    """A one at the class of each integer along a new axis, zeros alone for an integer that is no class, as jax.nn.one_hot has it: in the default
    float dtype, unlike md.nn.functional.one_hot.

    >>> md.one_hot(md.tensor([1, 5]), 2).tolist()
    [[0.0, 1.0], [0.0, 0.0]]
    """
    x = md.asarray(x)
    hot = md.expand_dims(x, axis=-1) == md.arange(num_classes, dtype=x.dtype, backend=x.backend, device=x.device)
    return md.moveaxis(hot.to(dtype or md.get_default_dtype()), -1, axis)


def ravel_pytree(pytree: Any) -> tuple[md.Tensor, Callable[[md.Tensor], Any]]:
    """All numbers of a pytree as one vector, and the function that makes such a pytree of a vector: jax.flatten_util's.

    >>> flat, unravel = md.ravel_pytree({"w": md.ones((2, 2)), "b": md.zeros(1)})
    >>> flat.tolist(), unravel(flat + 1.0)["b"].tolist()
    ([0.0, 1.0, 1.0, 1.0, 1.0], [1.0])
    """
    leaves, structure = md.tree.flatten(pytree)
    tensors = [md.asarray(v) for v in leaves]
    if not tensors:
        return md.zeros(0), lambda flat: md.tree.unflatten(structure, [])
    dtype = functools.reduce(md.result_type, [t.dtype for t in tensors])
    shapes, dtypes = [t.shape for t in tensors], [t.dtype for t in tensors]
    ends = list(itertools.accumulate(math.prod(s) for s in shapes))

    def unravel(flat: md.Tensor) -> Any:
        if flat.shape != (ends[-1],):
            raise ValueError(f"unravel: a vector of {ends[-1]} numbers is wanted, not the shape {flat.shape}")
        pieces = zip([0, *ends[:-1]], ends, shapes, dtypes, strict=True)
        return md.tree.unflatten(structure, [md.reshape(flat[a:b], s).to(d) for a, b, s, d in pieces])

    return md.concat([md.flatten(t).to(dtype) for t in tensors]), unravel


def remat(fun: Callable[..., Any], *, prevent_cse: bool = True, policy: Any = None, static_argnums: Any = ()) -> Callable[..., Any]:
    """md.checkpoint, JAX's other name for it; the options are accepted and change no value. md.jit(memory=) chooses by itself what is kept.

    >>> md.grad(md.remat(lambda x: x * x))(md.tensor(3.0)).item()
    6.0
    """
    return md.checkpoint(fun)


def ndtr(x: Any) -> md.Tensor:
    """The distribution function of the standard normal distribution.

    >>> md.ndtr(md.tensor(0.0)).item()
    0.5
    """
    return 0.5 * md.erfc(-md.asarray(x) / math.sqrt(2.0))


def ndtri(p: Any) -> md.Tensor:
    """The quantiles of the standard normal distribution.

    >>> md.ndtri(md.tensor(0.5)).item()
    0.0
    """
    return math.sqrt(2.0) * md.erfinv(2.0 * md.asarray(p) - 1.0)


def betaln(a: Any, b: Any) -> md.Tensor:
    """The logarithm of the beta function."""
    a, b = md.asarray(a), md.asarray(b)
    return md.lgamma(a) + md.lgamma(b) - md.lgamma(a + b)


def log_sigmoid(x: Any) -> md.Tensor:
    """md.nn.functional.logsigmoid."""
    return md.nn.functional.logsigmoid(md.asarray(x))


segment_max = _segments("segment_max", "max", least)
segment_min = _segments("segment_min", "min", greatest)
segment_prod = _segments("segment_prod", "multiply", lambda dtype: 1)
#: Name -> what it is in md.
NAMES: dict[str, Any] = {
    f.__name__: f
    for f in (
        conv_general_dilated, dot_general, dynamic_index_in_dim, dynamic_slice, dynamic_slice_in_dim, dynamic_update_index_in_dim,
        dynamic_update_slice, dynamic_update_slice_in_dim, ndtr, one_hot, ravel_pytree, reduce_window, remat, segment_max, segment_min,
        segment_prod, ndtri, betaln, log_sigmoid,
    )
} | {"expit": md.sigmoid, "gammaln": md.lgamma}  # fmt: skip
