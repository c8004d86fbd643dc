"""PyTorch's functions that rearrange tensors and choose from them: compositions of minidl's, with PyTorch's arguments."""

from __future__ import annotations

import builtins
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

import minidl as md
from minidl.idioms.creating import shape_of
from minidl.idioms.numbers import along, word_all

__all__ = [
    "aminmax", "atleast_1d", "atleast_2d", "atleast_3d", "bincount", "block_diag", "bucketize", "cartesian_prod", "column_stack", "combinations",
    "cummax", "cummin", "diag", "diag_embed", "dstack", "expand", "expand_as", "fliplr", "flipud", "histc", "hstack", "kthvalue", "masked_select",
    "mode", "movedim", "narrow", "ravel", "repeat_interleave", "reshape_as", "rot90", "select", "t", "take_along_dim", "tensor_split", "tril_indices",
    "triu_indices", "unbind", "unflatten", "unfold", "unique", "unique_consecutive", "view_as", "vstack",
]  # fmt: skip


class Pair(NamedTuple):
    """Values and the places where they are."""

    values: md.Tensor
    indices: md.Tensor


# ---- shapes ---------------------------------------------------------------------------------------------------------------------------
def expand(input: md.Tensor, *size: Any) -> md.Tensor:
    """The tensor broadcast to a shape; -1 keeps the size of an axis. Raises ValueError where an axis of another size than 1 would change.

    >>> md.ones(2, 1).expand(-1, 3).shape
    (2, 3)
    """
    wanted = shape_of(size)
    own = (None,) * (len(wanted) - input.ndim) + input.shape
    return md.broadcast_to(input, tuple(builtins.int(o if w == -1 and o is not None else w) for w, o in zip(wanted, own, strict=False)))


def expand_as(input: md.Tensor, other: md.Tensor) -> md.Tensor:
    """The tensor broadcast to the shape of another."""
    return md.broadcast_to(input, other.shape)


def reshape_as(input: md.Tensor, other: md.Tensor) -> md.Tensor:
    """The tensor in the shape of another."""
    return md.reshape(input, other.shape)


def view_as(input: md.Tensor, other: md.Tensor) -> md.Tensor:
    """The tensor in the shape of another: a value, not a view."""
    return md.reshape(input, other.shape)


def ravel(input: md.Tensor) -> md.Tensor:
    """All elements in one axis."""
    return md.reshape(input, (-1,))


def t(input: md.Tensor) -> md.Tensor:
    """The transpose of a matrix; vectors and numbers as they are. Raises ValueError for more axes."""
    if input.ndim > 2:
        raise ValueError(f"t: a tensor of at most 2 axes is wanted, not one of shape {input.shape}; .mT exchanges the last two")
    return md.transpose(input)


def unflatten(input: md.Tensor, dim: int, sizes: Sequence[int]) -> md.Tensor:
    """One axis made several, of these sizes (one of them may be -1).

    >>> md.ones(2, 6).unflatten(1, (-1, 3)).shape
    (2, 2, 3)
    """
    dim = axis_of("unflatten", input, dim)
    sizes = list(sizes)
    if sizes.count(-1) == 1 and (known := math.prod(s for s in sizes if s != -1)):
        sizes[sizes.index(-1)] = input.shape[dim] // known
    return md.reshape(input, (*input.shape[:dim], *sizes, *input.shape[dim + 1 :]))


def axis_of(name: str, x: md.Tensor, dim: int) -> int:
    if not -x.ndim <= dim < x.ndim:
        raise IndexError(f"{name}: dim {dim} is out of range for shape {x.shape}")
    return dim % x.ndim


@along
def movedim(input: md.Tensor, source: int | Sequence[int], destination: int | Sequence[int]) -> md.Tensor:
    """Axes moved to other places, the others keep their order."""
    return md.moveaxis(input, source, destination)


def _each(f: Callable[[md.Tensor], md.Tensor], tensors: Sequence[Any]) -> Any:
    """f of a tensor; of several, or of a list of some, a tuple."""
    if len(tensors) == 1 and isinstance(tensors[0], md.Tensor):
        return f(tensors[0])
    return tuple(f(t) for t in (tensors[0] if len(tensors) == 1 else tensors))


def atleast_1d(*tensors: Any) -> Any:
    """The tensor with one axis, if it had none; of several tensors a tuple."""
    return _each(lambda x: md.reshape(x, (1,)) if x.ndim == 0 else x, tensors)


def atleast_2d(*tensors: Any) -> Any:
    """The tensor as a matrix of one row, if it had less than two axes; of several tensors a tuple."""
    return _each(lambda x: md.reshape(x, (1, -1)) if x.ndim < 2 else x, tensors)


def atleast_3d(*tensors: Any) -> Any:
    """The tensor with three axes, if it had less; of several tensors a tuple."""
    return _each(lambda x: x if x.ndim > 2 else md.expand_dims(x, -1) if x.ndim == 2 else md.reshape(x, (1, -1, 1)), tensors)


def hstack(tensors: Sequence[md.Tensor]) -> md.Tensor:
    """Joined along the second axis, vectors along their only one."""
    parts = [atleast_1d(v) for v in tensors]
    return md.concat(parts, axis=0 if parts[0].ndim == 1 else 1)


def vstack(tensors: Sequence[md.Tensor]) -> md.Tensor:
    """Joined along the first axis, vectors as rows."""
    return md.concat([atleast_2d(v) for v in tensors], axis=0)


def dstack(tensors: Sequence[md.Tensor]) -> md.Tensor:
    """Joined along the third axis."""
    return md.concat([atleast_3d(v) for v in tensors], axis=2)


def column_stack(tensors: Sequence[md.Tensor]) -> md.Tensor:
    """Joined along the second axis, vectors as columns."""
    return md.concat([md.reshape(v, (-1, 1)) if v.ndim < 2 else v for v in tensors], axis=1)


def block_diag(*tensors: md.Tensor) -> md.Tensor:
    """Matrices along the diagonal of one, zeros elsewhere.

    >>> md.block_diag(md.ones(1, 2), md.ones(1, 1)).tolist()
    [[1.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    """
    parts = [atleast_2d(v) for v in tensors]
    width, left, rows = builtins.sum(p.shape[1] for p in parts), 0, []
    for p in parts:
        rows.append(md.pad(p, ((0, 0), (left, width - left - p.shape[1]))))
        left += p.shape[1]
    return md.concat(rows, axis=0)


def tensor_split(input: md.Tensor, indices_or_sections: int | Sequence[int], dim: int = 0) -> tuple[md.Tensor, ...]:
    """So many pieces along an axis, the first ones larger by one where it does not come out even, or pieces that end at these places."""
    n = input.shape[axis_of("tensor_split", input, dim)]
    if isinstance(indices_or_sections, builtins.int):
        each, more = divmod(n, indices_or_sections)
        ends = [each * i + builtins.min(i, more) for i in range(1, indices_or_sections)]
    else:
        ends = [i if i >= 0 else n + i for i in indices_or_sections]
    bounds = [0, *(builtins.min(builtins.max(e, 0), n) for e in ends), n]
    return tuple(narrow(input, dim, a, builtins.max(b - a, 0)) for a, b in itertools.pairwise(bounds))


def unbind(input: md.Tensor, dim: int = 0) -> tuple[md.Tensor, ...]:
    """The slices along an axis, without it."""
    return md.unstack(input, axis=dim)


def narrow(input: md.Tensor, dim: int, start: int, length: int) -> md.Tensor:
    """`length` elements of an axis from `start` on. Raises IndexError where there are not so many."""
    axis = axis_of("narrow", input, dim)
    start = start + input.shape[axis] if start < 0 else start
    if not 0 <= start <= start + length <= input.shape[axis]:
        raise IndexError(f"narrow: {length} elements from {start} on of an axis of {input.shape[axis]}; shape {input.shape}")
    return input[(slice(None),) * axis + (slice(start, start + length),)]


def select(input: md.Tensor, dim: int, index: int) -> md.Tensor:
    """The slice at one place of an axis, which goes. Raises TypeError for a tensor as dim: what jax.lax calls select is md.where.

    >>> md.select(md.tensor([[1, 2], [3, 4]]), 1, 0).tolist()
    [1, 3]
    """
    if isinstance(dim, md.Tensor):
        raise TypeError("select: dim is the number of an axis; md.where(condition, a, b) chooses between tensors")
    return input[(slice(None),) * axis_of("select", input, dim) + (index,)]


def fliplr(input: md.Tensor) -> md.Tensor:
    """The second axis reversed."""
    return md.flip(input, axis=1)


def flipud(input: md.Tensor) -> md.Tensor:
    """The first axis reversed."""
    return md.flip(input, axis=0)


def rot90(input: md.Tensor, k: int = 1, dims: Sequence[int] = (0, 1)) -> md.Tensor:
    """Turned by k quarters in the plane of two axes, from the first towards the second.

    >>> md.rot90(md.tensor([[1, 2], [3, 4]])).tolist()
    [[2, 4], [1, 3]]
    """
    a, b = dims
    if k % 4 == 2:
        return md.flip(input, axis=(a, b))
    turned = md.swapaxes(input, a, b) if k % 2 else input
    return turned if k % 4 == 0 else md.flip(turned, axis=a if k % 4 == 1 else b)


def repeat_interleave(input: md.Tensor, repeats: Any = None, dim: int | None = None, *, output_size: int | None = None) -> md.Tensor:
    """Each element repeated, along an axis or over the flattened tensor: md.repeat. output_size is accepted and not needed. Without repeats input
    says how often each place is repeated.

    >>> md.tensor([1, 2]).repeat_interleave(2).tolist()
    [1, 1, 2, 2]
    """
    if repeats is None:
        input, repeats = md.arange(input.shape[0], dtype=input.dtype, backend=input.backend, device=input.device), input
    return md.repeat(input, repeats, axis=dim)


def diag(input: md.Tensor, diagonal: int = 0) -> md.Tensor:
    """The diagonal of a matrix, or the matrix with this vector on its diagonal. Raises ValueError for more axes."""
    if input.ndim not in (1, 2):
        raise ValueError(f"diag: a vector or a matrix is wanted, not a tensor of shape {input.shape}")
    return diag_embed(input, diagonal) if input.ndim == 1 else md.diagonal(input, offset=diagonal)


def diag_embed(input: md.Tensor, offset: int = 0, dim1: int = -2, dim2: int = -1) -> md.Tensor:
    """Matrices with the last axis on a diagonal, zeros elsewhere.

    >>> md.diag_embed(md.tensor([1, 2])).tolist()
    [[1, 0], [0, 2]]
    """
    n = input.shape[-1] + builtins.abs(offset)
    before, after = (0, offset) if offset > 0 else (-offset, 0)
    values = md.pad(input, [(0, 0)] * (input.ndim - 1) + [(before, after)])
    rows, zero = md.arange(n, backend=input.backend, device=input.device), md.zeros((), dtype=input.dtype, backend=input.backend, device=input.device)
    out = md.where(md.expand_dims(rows, 1) + offset == rows, md.expand_dims(values, -1), zero)
    return out if (dim1, dim2) == (-2, -1) else md.moveaxis(out, (-2, -1), (dim1, dim2))


def tril_indices(row: int, col: int | None = None, offset: int = 0, *, dtype: Any = md.int64, device: str | None = None) -> md.Tensor:
    """Rows and columns of the elements on and below a diagonal, i64[2, n]; col: as many as rows."""
    col = row if col is None else col
    return md.tensor(
        [[r, c] for r in range(row) for c in range(builtins.min(builtins.max(r + offset + 1, 0), col))] or md.zeros(0, 2), dtype, device=device
    ).T


def triu_indices(row: int, col: int | None = None, offset: int = 0, *, dtype: Any = md.int64, device: str | None = None) -> md.Tensor:
    """Rows and columns of the elements on and above a diagonal, i64[2, n]; col: as many as rows."""
    col = row if col is None else col
    return md.tensor([[r, c] for r in range(row) for c in range(builtins.max(r + offset, 0), col)] or md.zeros(0, 2), dtype, device=device).T


def cartesian_prod(*tensors: md.Tensor) -> md.Tensor:
    """All combinations of elements of vectors, one a row."""
    grids = md.meshgrid(*tensors, indexing="ij")
    return grids[0].reshape(-1) if len(grids) == 1 else md.stack([ravel(g) for g in grids], axis=-1)


def combinations(input: md.Tensor, r: int = 2, with_replacement: bool = False) -> md.Tensor:
    """All choices of r elements of a vector, one a row."""
    choose = itertools.combinations_with_replacement if with_replacement else itertools.combinations
    places = np.array(list(choose(range(input.shape[0]), r)), np.int64).reshape(-1, r)
    return input[md.tensor(places, backend=input.backend, device=input.device)]


def unfold(input: md.Tensor, dimension: int, size: int, step: int = 1) -> md.Tensor:
    """Windows of `size` elements along an axis, `step` apart: their number stands for the axis, their elements are the last one.

    Raises ValueError where no window fits.

    >>> md.arange(4).unfold(0, 2, 1).tolist()
    [[0, 1], [1, 2], [2, 3]]
    """
    dim = axis_of("unfold", input, dimension)
    if not 0 < size <= input.shape[dim] or step < 1:
        raise ValueError(f"unfold: windows of {size} elements, {step} apart, do not lie in axis {dimension} of shape {input.shape}")
    places = np.arange(0, input.shape[dim] - size + 1, step)[:, None] + np.arange(size)
    out = md.take(input, md.tensor(places.reshape(-1), backend=input.backend, device=input.device), axis=dim)
    return md.moveaxis(unflatten(out, dim, places.shape), dim + 1, -1)


# ---- choosing -------------------------------------------------------------------------------------------------------------------------
def masked_select(input: md.Tensor, mask: md.Tensor) -> md.Tensor:
    """The elements where a mask is True, in one axis; both broadcast. Raises TypeError under jit and vmap, where the size depends on values."""
    input, mask = md.broadcast_arrays(input, mask)
    return input[mask]


def take_along_dim(input: md.Tensor, indices: md.Tensor, dim: int | None = None) -> md.Tensor:
    """input[..., indices[..., i, ...], ...] along an axis (over the flattened tensor without one); the other axes broadcast."""
    return md.take_along_axis(ravel(input), ravel(indices), axis=0) if dim is None else md.take_along_axis(input, indices, axis=dim)


def with_places(f: Callable[..., md.Tensor], args: Sequence[Any], params: dict[str, Any]) -> Pair:
    """What max, min, sort and median return where PyTorch's word says the axis: the values and the place of each. Those of max and min have minidl's
    derivatives and the first place; the median is the lower one of two middle elements, and nan where there is one.

    >>> values, places = md.tensor([[1.0, 3.0], [4.0, 2.0]]).max(dim=1)
    >>> values.tolist(), places.tolist(), md.sort(md.tensor([2, 1]), dim=0).indices.tolist(), md.tensor([4, 1, 3, 2]).median(dim=0).values.item()
    ([3.0, 4.0], [1, 0], [1, 0], 2)
    """
    if f.__name__ == "median":
        return _lower_median(args[0], params["axis"], params.get("keepdims", False))
    if f.__name__ == "sort":
        places = md.argsort(*args, **params)
        return Pair(md.take_along_axis(args[0], places, axis=params["axis"]), places)
    values = f(*args, **params)  # which says what is wrong with the arguments
    return Pair(values, {"max": md.argmax, "min": md.argmin}[f.__name__](*args, **params))


def _lower_median(input: md.Tensor, dim: int, keepdim: bool) -> Pair:
    n = input.shape[axis_of("median", input, dim)]
    if not n:
        raise ValueError(f"median: axis {dim} of shape {input.shape} is empty")
    middle = kthvalue(input, (n + 1) // 2, dim, keepdim)
    if not input.dtype.is_float:
        return middle
    last = kthvalue(input, n, dim, keepdim)  # where a nan is
    unknown = md.isnan(last.values)
    return Pair(md.where(unknown, last.values, middle.values), md.where(unknown, last.indices, middle.indices))


@along
def kthvalue(input: md.Tensor, k: int, dim: int = -1, keepdim: bool = False) -> Pair:
    """The k-th smallest elements along an axis and their places; k counts from 1. Raises ValueError for more than there are."""
    n = input.shape[axis_of("kthvalue", input, dim)]
    if not 1 <= k <= n:
        raise ValueError(f"kthvalue: k must be from 1 to {n}, not {k}")
    place = narrow(md.argsort(input, axis=dim), dim, k - 1, 1)
    out = md.take_along_axis(input, place, axis=dim)
    return Pair(out, place) if keepdim else Pair(md.squeeze(out, dim), md.squeeze(place, dim))


@along
def mode(input: md.Tensor, dim: int = -1, keepdim: bool = False) -> Pair:
    """The commonest elements along an axis, the smallest of those equally common, and the last place of each.

    >>> md.tensor([[1, 2, 2, 1], [3, 0, 3, 3]]).mode().values.tolist()
    [1, 3]
    """
    n = input.shape[axis_of("mode", input, dim)]
    if not n:
        raise ValueError(f"mode: axis {dim} of shape {input.shape} is empty")
    x = md.moveaxis(input, dim, -1)
    numbers = md.arange(n, backend=input.backend, device=input.device)
    ordered = md.sort(x.detach(), axis=-1)
    begins = md.concat([md.ones_like(ordered[..., :1], dtype=md.bool), ordered[..., 1:] != ordered[..., :-1]], axis=-1)
    lengths = numbers - md.cumulative_max(md.where(begins, numbers, 0), axis=-1)
    value = md.take_along_axis(ordered, md.argmax(lengths, axis=-1, keepdims=True), axis=-1)
    place = md.max(md.where(x == value, numbers, 0), axis=-1, keepdims=True)
    pair = Pair(md.moveaxis(md.take_along_axis(x, place, axis=-1), -1, dim), md.moveaxis(place, -1, dim))
    return pair if keepdim else Pair(md.squeeze(pair.values, dim), md.squeeze(pair.indices, dim))


@along
def aminmax(input: md.Tensor, *, dim: int | None = None, keepdim: bool = False) -> tuple[md.Tensor, md.Tensor]:
    """The smallest and the largest elements."""
    return md.min(input, axis=dim, keepdims=keepdim), md.max(input, axis=dim, keepdims=keepdim)


def _with_places(values: md.Tensor, input: md.Tensor, dim: int) -> Pair:
    """Running extremes with the place of each: the last one that has that value, as in PyTorch."""
    n = input.shape[axis_of("cummax", input, dim)]
    places = md.reshape(md.arange(n, backend=input.backend, device=input.device), (n,) + (1,) * (input.ndim - 1 - dim % input.ndim))
    here = (input == values) | md.isnan(input) if input.dtype.is_float else input == values
    return Pair(values, md.cumulative_max(md.where(here, places, 0), axis=dim))


@along
def cummax(input: md.Tensor, dim: int) -> Pair:
    """The largest element so far along an axis, and its place.

    >>> md.tensor([1, 3, 2]).cummax(0).indices.tolist()
    [0, 1, 1]
    """
    return _with_places(md.cumulative_max(input, axis=dim), input, dim)


@along
def cummin(input: md.Tensor, dim: int) -> Pair:
    """The smallest element so far along an axis, and its place."""
    return _with_places(md.cumulative_min(input, axis=dim), input, dim)


def unique(
    input: md.Tensor, sorted: bool = True, return_inverse: bool = False, return_counts: bool = False, dim: int | None = None
) -> md.Tensor | tuple[md.Tensor, ...]:
    """The different elements, or slices along a dim, in ascending order; if asked for, where each went, and how many there are of each.

    Raises TypeError under jit and vmap, where the size depends on values.

    >>> md.tensor([2, 1, 2]).unique(return_counts=True)[1].tolist()
    [1, 2]
    """
    if dim is not None:
        return _unique_slices(input, dim, return_inverse, return_counts)
    found = md.unique_all(input)
    out = (found.values, *([found.inverse_indices] if return_inverse else []), *([found.counts] if return_counts else []))
    return out[0] if len(out) == 1 else out


def _unique_slices(input: md.Tensor, dim: int, return_inverse: bool, return_counts: bool) -> md.Tensor | tuple[md.Tensor, ...]:
    values = md.extend.deciding(input, "unique", "the number of different slices is known outside only")
    _, first, inverse, counts = np.unique(values, return_index=True, return_inverse=True, return_counts=True, axis=axis_of("unique", input, dim))
    at = md.extend.home(input)
    numbers = lambda a: md.extend.from_numpy(a.reshape(-1), at, md.int64)
    found = md.take(input, numbers(first), axis=dim)
    out = (found, *([numbers(inverse)] if return_inverse else []), *([numbers(counts)] if return_counts else []))
    return out[0] if len(out) == 1 else out


def unique_consecutive(
    input: md.Tensor, return_inverse: bool = False, return_counts: bool = False, dim: int | None = None
) -> md.Tensor | tuple[md.Tensor, ...]:
    """The elements of the flattened tensor without those that equal the one before. Raises ValueError for the dim of several."""
    if dim is not None and input.ndim > 1:
        raise ValueError(f"unique_consecutive: with dim the input has one axis, not {input.ndim}; without it the flattened elements are looked at")
    flat = ravel(input)
    new = md.concat([md.ones(builtins.min(flat.numel(), 1), dtype=md.bool, backend=flat.backend, device=flat.device), flat[1:] != flat[:-1]])
    group = md.cumulative_sum(new.to(md.int64), axis=0) - 1
    out = (flat[new], *([md.reshape(group, input.shape)] if return_inverse else []), *([bincount(group)] if return_counts else []))
    return out[0] if len(out) == 1 else out


def bucketize(input: md.Tensor, boundaries: md.Tensor, *, right: bool = False) -> md.Tensor:
    """In which interval between sorted boundaries each element lies. right: a boundary belongs to the interval above it."""
    return md.reshape(md.searchsorted(boundaries, ravel(input), side="right" if right else "left"), input.shape)


def bincount(input: md.Tensor, weights: md.Tensor | None = None, minlength: int = 0) -> md.Tensor:
    """How often each number from 0 on occurs in a vector of integers, or the sums of the weights. Needs values, so not under jit unless empty.

    Raises ValueError for a negative number.

    >>> md.tensor([0, 2, 2]).bincount(minlength=4).tolist()
    [1, 0, 2, 0]
    """
    n = builtins.max(minlength, builtins.int(md.max(input)) + 1 if input.numel() else 0)
    if input.numel() and builtins.int(md.min(input)) < 0:
        raise ValueError(f"bincount: numbers from 0 on are counted, and {builtins.int(md.min(input))} is among them; md.unique_all counts any")
    each = md.ones_like(input, dtype=md.int64) if weights is None else weights
    return md.zeros(n, dtype=each.dtype, backend=input.backend, device=input.device).at[input].add(each)


def histc(input: md.Tensor, bins: int = 100, min: float = 0, max: float = 0) -> md.Tensor:
    """How many elements lie in each of so many intervals of equal width from min to max (of the elements where both are the same)."""
    x = ravel(input)
    low: Any = min
    high: Any = max
    if min == max and x.size:
        low, high = md.min(x), md.max(x)
        alike = (low == high).to(x.dtype)
        low, high = low - alike, high + alike
    place = md.clip(md.floor((x - low) * (bins / (high - low))), 0, bins - 1).to(md.int64) if x.size else x.to(md.int64)
    inside = (x >= low) & (x <= high)
    zeros = md.zeros(bins, dtype=input.dtype, backend=input.backend, device=input.device)
    return zeros.at[md.where(inside, place, 0)].add(inside.to(input.dtype))


word_all(globals(), __all__)
