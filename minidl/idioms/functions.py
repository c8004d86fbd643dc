"""Functions of tensors that PyTorch has and the Array API has not: compositions of minidl's, with PyTorch's arguments."""

from __future__ import annotations

import builtins
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

import minidl as md
from minidl.idioms.creating import shape_of

__all__ = [
    "addcdiv", "addcmul", "addmm", "addmv", "allclose", "aminmax", "atleast_1d", "atleast_2d", "atleast_3d", "baddbmm", "bincount", "block_diag",
    "bucketize", "cartesian_prod", "cdist", "clamp_max", "clamp_min", "column_stack", "combinations", "complex", "corrcoef", "cov", "cummax",
    "cummin", "deg2rad", "det", "diag",
    "diag_embed", "dist", "div", "dstack", "expand", "expand_as", "fliplr", "flipud", "fmod", "frac", "histc", "hstack", "inner", "isclose", "isreal",
    "kron", "kthvalue", "lerp", "logdet", "logit", "masked_select", "mm", "movedim", "nan_to_num", "nanmean", "nansum", "narrow", "polar", "rad2deg",
    "ravel", "repeat_interleave", "reshape_as", "rot90", "select", "sgn", "sinc", "std_mean", "t", "take_along_dim", "tensor_split", "trace",
    "trapezoid", "tril_indices", "triu_indices", "unbind", "unflatten", "unfold", "unique", "unique_consecutive", "var_mean", "view_as",
    "view_as_complex", "view_as_real", "vstack",
]  # fmt: skip

Dims = int | Sequence[int] | None


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
    dim = _dim("unflatten", input, dim)
    sizes = list(sizes)
    if sizes.count(-1) == 1 and (known := math.prod(s for s in sizes if s != -1)):
        sizes[sizes.index(-1)] = input.shape[dim] // known
    return md.reshape(input, (*input.shape[:dim], *sizes, *input.shape[dim + 1 :]))


def _dim(name: str, x: md.Tensor, dim: int) -> int:
    if not -builtins.max(x.ndim, 1) <= dim < builtins.max(x.ndim, 1):
        raise IndexError(f"{name}: dim {dim} is out of range for shape {x.shape}")
    return dim % builtins.max(x.ndim, 1)


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
    n = input.shape[_dim("tensor_split", input, dim)]
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
    """`length` elements of an axis from `start` on."""
    return input[(slice(None),) * _dim("narrow", input, dim) + (slice(start, start + length),)]


def select(input: md.Tensor, dim: int, index: int) -> md.Tensor:
    """The slice at one place of an axis, without it."""
    return input[(slice(None),) * _dim("select", input, dim) + (index,)]


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


def repeat_interleave(input: md.Tensor, repeats: Any, dim: int | None = None, *, output_size: int | None = None) -> md.Tensor:
    """Each element repeated, along an axis or over the flattened tensor: md.repeat. output_size is accepted and not needed.

    >>> md.tensor([1, 2]).repeat_interleave(2).tolist()
    [1, 1, 2, 2]
    """
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
    rows = md.arange(n, backend=input.backend, device=input.device)
    out = md.where(md.expand_dims(rows, 1) + offset == rows, md.expand_dims(values, -1), md.zeros((), dtype=input.dtype, backend=input.backend))
    return out if (dim1, dim2) == (-2, -1) else md.moveaxis(out, (-2, -1), (dim1, dim2))


def tril_indices(row: int, col: int, offset: int = 0, *, dtype: Any = md.int64, device: str | None = None) -> md.Tensor:
    """Rows and columns of the elements on and below a diagonal, i64[2, n]."""
    return md.tensor(
        [[r, c] for r in range(row) for c in range(builtins.min(builtins.max(r + offset + 1, 0), col))] or md.zeros(0, 2), dtype, device=device
    ).T


def triu_indices(row: int, col: int, offset: int = 0, *, dtype: Any = md.int64, device: str | None = None) -> md.Tensor:
    """Rows and columns of the elements on and above a diagonal, i64[2, n]."""
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
    dim = _dim("unfold", input, dimension)
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


def kthvalue(input: md.Tensor, k: int, dim: int = -1, keepdim: bool = False) -> Pair:
    """The k-th smallest elements along an axis and their places; k counts from 1. Raises ValueError for more than there are."""
    n = input.shape[_dim("kthvalue", input, dim)]
    if not 1 <= k <= n:
        raise ValueError(f"kthvalue: k must be from 1 to {n}, not {k}")
    place = narrow(md.argsort(input, axis=dim), dim, k - 1, 1)
    out = md.take_along_axis(input, place, axis=dim)
    return Pair(out, place) if keepdim else Pair(md.squeeze(out, dim), md.squeeze(place, dim))


def aminmax(input: md.Tensor, *, dim: int | None = None, keepdim: bool = False) -> tuple[md.Tensor, md.Tensor]:
    """The smallest and the largest elements."""
    return md.min(input, axis=dim, keepdims=keepdim), md.max(input, axis=dim, keepdims=keepdim)


def _running(values: md.Tensor, input: md.Tensor, dim: int) -> Pair:
    """Running extremes with the place of each: the last one that has that value, as in PyTorch."""
    n = input.shape[_dim("cummax", input, dim)]
    places = md.reshape(md.arange(n, backend=input.backend, device=input.device), (n,) + (1,) * (input.ndim - 1 - dim % input.ndim))
    here = (input == values) | md.isnan(input) if input.dtype.is_float else input == values
    return Pair(values, md.cumulative_max(md.where(here, places, 0), axis=dim))


def cummax(input: md.Tensor, dim: int) -> Pair:
    """The largest element so far along an axis, and its place.

    >>> md.tensor([1, 3, 2]).cummax(0).indices.tolist()
    [0, 1, 1]
    """
    return _running(md.cumulative_max(input, axis=dim), input, dim)


def cummin(input: md.Tensor, dim: int) -> Pair:
    """The smallest element so far along an axis, and its place."""
    return _running(md.cumulative_min(input, axis=dim), input, dim)


def unique(
    input: md.Tensor, sorted: bool = True, return_inverse: bool = False, return_counts: bool = False, dim: int | None = None
) -> md.Tensor | tuple[md.Tensor, ...]:
    """The different elements, in ascending order; if asked for, where each element went, and how many there are of each.

    Raises NotImplementedError for a dim; TypeError under jit and vmap, where the size depends on values.

    >>> md.tensor([2, 1, 2]).unique(return_counts=True)[1].tolist()
    [1, 2]
    """
    if dim is not None:
        raise NotImplementedError("unique: slices along a dim are not compared; flatten the tensor, or give each slice a number")
    found = md.unique_all(input)
    out = (found.values, *([found.inverse_indices] if return_inverse else []), *([found.counts] if return_counts else []))
    return out[0] if len(out) == 1 else out


def unique_consecutive(input: md.Tensor, return_inverse: bool = False, return_counts: bool = False) -> md.Tensor | tuple[md.Tensor, ...]:
    """The elements of the flattened tensor without those that equal the one before."""
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
    """How many elements lie in each of so many intervals of equal width from min to max (of the elements where both are 0)."""
    x = ravel(input)
    if min == max:
        min, max = builtins.float(md.min(x)), builtins.float(md.max(x))
        min, max = (min, max) if min < max else (min - 1, max + 1)
    place = md.clip(md.floor((x - min) * (bins / (max - min))), 0, bins - 1).to(md.int64)
    inside = (x >= min) & (x <= max)
    zeros = md.zeros(bins, dtype=input.dtype, backend=input.backend, device=input.device)
    return zeros.at[md.where(inside, place, 0)].add(inside.to(input.dtype))


# ---- arithmetic -----------------------------------------------------------------------------------------------------------------------
def div(input: Any, other: Any, *, rounding_mode: str | None = None) -> md.Tensor:
    """The quotient; rounding_mode "floor" rounds it down and "trunc" towards zero. Raises ValueError for another."""
    if rounding_mode not in (None, "floor", "trunc"):
        raise ValueError(f"div: rounding_mode must be None, 'floor' or 'trunc', not {rounding_mode!r}")
    if rounding_mode == "trunc":
        if md.result_type(input, other).inexact:
            return md.trunc(md.divide(input, other))
        down = md.floor_divide(input, other)  # exact; a quotient of floats would not be
        return md.where((down < 0) & (down * other != input), down + 1, down)
    return md.divide(input, other) if rounding_mode is None else md.floor_divide(input, other)


def fmod(input: md.Tensor, other: Any) -> md.Tensor:
    """The remainder with the sign of the dividend (md.remainder has the divisor's)."""
    if not md.result_type(input, other).inexact:
        r = md.remainder(input, other)
        return md.where((r != 0) & ((r < 0) != (input < 0)), r - other, r)  # the smallest integer has no absolute value
    x = input.to(md.result_type(input, other))
    size = md.abs(other) if isinstance(other, md.Tensor) else builtins.abs(other)
    return md.where(md.signbit(x), -md.remainder(-x, size), md.remainder(x, size))


def frac(input: md.Tensor) -> md.Tensor:
    """What is behind the point, with the sign of the number."""
    return input - md.trunc(input)


def sgn(input: md.Tensor) -> md.Tensor:
    """The sign; of a complex number it by its absolute value."""
    return md.sign(input)


def clamp_min(input: md.Tensor, min: Any) -> md.Tensor:
    """Elements of at least min."""
    return md.clip(input, min=min)


def clamp_max(input: md.Tensor, max: Any) -> md.Tensor:
    """Elements of at most max."""
    return md.clip(input, max=max)


def lerp(input: md.Tensor, end: Any, weight: Any) -> md.Tensor:
    """input + weight * (end - input), which is exactly end where the weight is 1."""
    way = end - input
    near, far = input + weight * way, end - (1 - weight) * way
    return md.where(weight < 0.5, near, far) if isinstance(weight, md.Tensor) else near if weight < 0.5 else far


def addcmul(input: md.Tensor, tensor1: md.Tensor, tensor2: md.Tensor, *, value: float = 1) -> md.Tensor:
    """input + value * tensor1 * tensor2."""
    return input + (tensor1 * tensor2 if value == 1 else value * (tensor1 * tensor2))


def addcdiv(input: md.Tensor, tensor1: md.Tensor, tensor2: md.Tensor, *, value: float = 1) -> md.Tensor:
    """input + value * tensor1 / tensor2."""
    return input + (tensor1 / tensor2 if value == 1 else value * (tensor1 / tensor2))


def _plus(input: Any, product: md.Tensor, beta: float, alpha: float) -> md.Tensor:
    product = product if alpha == 1 else alpha * product
    return product if beta == 0 else product + (input if beta == 1 else beta * input)


def addmm(input: Any, mat1: md.Tensor, mat2: md.Tensor, *, beta: float = 1, alpha: float = 1) -> md.Tensor:
    """beta * input + alpha * (mat1 @ mat2)."""
    return _plus(input, md.matmul(mat1, mat2), beta, alpha)


def addmv(input: Any, mat: md.Tensor, vec: md.Tensor, *, beta: float = 1, alpha: float = 1) -> md.Tensor:
    """beta * input + alpha * (mat @ vec)."""
    return _plus(input, md.matmul(mat, vec), beta, alpha)


def baddbmm(input: Any, batch1: md.Tensor, batch2: md.Tensor, *, beta: float = 1, alpha: float = 1) -> md.Tensor:
    """beta * input + alpha * (batch1 @ batch2)."""
    return _plus(input, md.matmul(batch1, batch2), beta, alpha)


def mm(input: md.Tensor, mat2: md.Tensor) -> md.Tensor:
    """The product of two matrices. Raises ValueError for other numbers of axes."""
    if input.ndim != 2 or mat2.ndim != 2:
        raise ValueError(f"mm: two matrices are wanted, not tensors of shapes {input.shape} and {mat2.shape}; md.matmul takes batches")
    return md.matmul(input, mat2)


def inner(input: md.Tensor, other: md.Tensor) -> md.Tensor:
    """Products summed over the last axes."""
    return input * other if input.ndim == 0 or other.ndim == 0 else md.tensordot(input, other, axes=([-1], [-1]))


def kron(input: md.Tensor, other: md.Tensor) -> md.Tensor:
    """The Kronecker product.

    >>> md.kron(md.tensor([1, 2]), md.tensor([1, 1])).tolist()
    [1, 1, 2, 2]
    """
    n = builtins.max(input.ndim, other.ndim)
    a, b = ((1,) * (n - v.ndim) + v.shape for v in (input, other))
    spread = [s for i in a for s in (i, 1)], [s for i in b for s in (1, i)]
    return md.reshape(md.reshape(input, spread[0]) * md.reshape(other, spread[1]), tuple(i * j for i, j in zip(a, b, strict=True)))


def trace(input: md.Tensor) -> md.Tensor:
    """The sum of the diagonal of a matrix."""
    return md.linalg.trace(input)


def det(input: md.Tensor) -> md.Tensor:
    """The determinant: md.linalg.det."""
    return md.linalg.det(input)


def logdet(input: md.Tensor) -> md.Tensor:
    """The logarithm of the determinant; nan where it is negative."""
    sign, size = md.linalg.slogdet(input)
    return md.where(sign < 0, md.nan, size)


def dist(input: md.Tensor, other: md.Tensor, p: float = 2) -> md.Tensor:
    """The p-norm of the difference."""
    return md.vector_norm(input - other, ord=p)


def cdist(x1: md.Tensor, x2: md.Tensor, p: float = 2.0) -> md.Tensor:
    """p-norms of the differences of all rows of x1 [..., P, M] to all rows of x2 [..., R, M]: [..., P, R].

    >>> md.cdist(md.zeros(1, 2), md.tensor([[3.0, 4.0], [0.0, 1.0]])).tolist()
    [[5.0, 1.0]]
    """
    return md.vector_norm(md.expand_dims(x1, -2) - md.expand_dims(x2, -3), axis=-1, ord=p)


def logit(input: md.Tensor, eps: float | None = None) -> md.Tensor:
    """log(x / (1 - x)), of x between eps and 1 - eps if there is one."""
    x = input if input.dtype.inexact else input.to(md.get_default_dtype())
    x = x if eps is None else md.clip(x, eps, 1 - eps)
    return md.log(x) - md.log1p(-x)


def sinc(input: md.Tensor) -> md.Tensor:
    """sin(pi x) / (pi x), 1 at 0."""
    x = math.pi * md.where(input == 0, 1.0, input)
    return md.where(input == 0, 1.0 - (math.pi * input) ** 2 / 6, md.sin(x) / x)


def deg2rad(input: md.Tensor) -> md.Tensor:
    """Degrees in radians."""
    return input * (math.pi / 180)


def rad2deg(input: md.Tensor) -> md.Tensor:
    """Radians in degrees."""
    return input * (180 / math.pi)


def complex(real: md.Tensor, imag: md.Tensor) -> md.Tensor:
    """The complex numbers of these real and imaginary parts: real + imag * 1j, whose real part is nan where imag is infinite or nan."""
    return real + imag * 1j


def view_as_real(input: md.Tensor) -> md.Tensor:
    """Real and imaginary parts in a last axis of two."""
    return md.stack([md.real(input), md.imag(input)], axis=-1)


def view_as_complex(input: md.Tensor) -> md.Tensor:
    """The complex numbers whose parts are in the last axis."""
    return complex(input[..., 0], input[..., 1])


def polar(abs: md.Tensor, angle: md.Tensor) -> md.Tensor:
    """The complex numbers of these absolute values and angles."""
    return complex(abs * md.cos(angle), abs * md.sin(angle))


# ---- reductions and tests -------------------------------------------------------------------------------------------------------------
def _corrected(unbiased: bool | None, correction: float | None) -> float:
    return (1 if unbiased is None or unbiased else 0) if correction is None else correction


def var_mean(
    input: md.Tensor, dim: Dims = None, unbiased: bool | None = None, *, correction: float | None = None, keepdim: bool = False
) -> tuple[md.Tensor, md.Tensor]:
    """The variance and the mean over axes. The correction is 1 as in PyTorch (md.var, as the Array API has it, corrects nothing by itself)."""
    c = _corrected(unbiased, correction)
    axis = tuple(dim) if isinstance(dim, list) else dim
    return md.var(input, axis=axis, correction=c, keepdims=keepdim), md.mean(input, axis=axis, keepdims=keepdim)


def std_mean(
    input: md.Tensor, dim: Dims = None, unbiased: bool | None = None, *, correction: float | None = None, keepdim: bool = False
) -> tuple[md.Tensor, md.Tensor]:
    """The standard deviation and the mean over axes. The correction is 1 as in PyTorch (md.std, as the Array API has it, corrects nothing)."""
    c = _corrected(unbiased, correction)
    axis = tuple(dim) if isinstance(dim, list) else dim
    return md.std(input, axis=axis, correction=c, keepdims=keepdim), md.mean(input, axis=axis, keepdims=keepdim)


def cov(input: md.Tensor, *, correction: int = 1) -> md.Tensor:
    """The covariances of variables, which are rows; columns are observations."""
    x = atleast_2d(input)
    x = x - md.mean(x, axis=1, keepdims=True)
    return (
        md.squeeze(md.matmul(x, md.conj(x).mT) / (x.shape[1] - correction))
        if input.ndim < 2
        else md.matmul(x, md.conj(x).mT) / (x.shape[1] - correction)
    )


def corrcoef(input: md.Tensor) -> md.Tensor:
    """The correlations of variables, which are rows; columns are observations."""
    c = cov(input)
    if c.ndim == 0:
        return c / c
    s = md.sqrt(md.real(md.diagonal(c))) if c.dtype.is_complex else md.sqrt(md.diagonal(c))
    return c / md.expand_dims(s, 1) / s


def nan_to_num(input: md.Tensor, nan: float = 0.0, posinf: float | None = None, neginf: float | None = None) -> md.Tensor:
    """nan and infinities replaced by numbers, infinities by the largest ones of the dtype unless others are given."""
    if not input.dtype.inexact:
        return input
    info = md.finfo(input.dtype)
    x = md.where(md.isnan(input), nan, input)
    x = md.where(x == math.inf, info.max if posinf is None else posinf, x)
    return md.where(x == -math.inf, info.min if neginf is None else neginf, x)


def nansum(input: md.Tensor, dim: Dims = None, keepdim: bool = False) -> md.Tensor:
    """The sum of what is not nan."""
    there = md.where(md.isnan(input), 0.0, input) if input.dtype.inexact else input
    return md.sum(there, axis=tuple(dim) if isinstance(dim, list) else dim, keepdims=keepdim)


def nanmean(input: md.Tensor, dim: Dims = None, keepdim: bool = False) -> md.Tensor:
    """The mean of what is not nan; nan where all is."""
    axis = tuple(dim) if isinstance(dim, list) else dim
    return nansum(input, dim, keepdim) / md.sum(~md.isnan(input), axis=axis, keepdims=keepdim).to(input.dtype)


def trapezoid(y: md.Tensor, x: md.Tensor | None = None, *, dx: float = 1.0, dim: int = -1) -> md.Tensor:
    """The integral by the rule of trapezoids along an axis, at the places x or dx apart."""
    n = y.shape[_dim("trapezoid", y, dim)]
    means = (narrow(y, dim, 1, n - 1) + narrow(y, dim, 0, n - 1)) / 2
    if x is None:
        return md.sum(means, axis=dim) * dx
    steps = md.diff(x, axis=dim if x.ndim > 1 else 0)
    if x.ndim == 1:
        steps = md.reshape(steps, (-1,) + (1,) * (y.ndim - 1 - dim % y.ndim))
    return md.sum(means * steps, axis=dim)


def isclose(input: md.Tensor, other: Any, rtol: float = 1e-05, atol: float = 1e-08, equal_nan: bool = False) -> md.Tensor:
    """Where |input - other| <= atol + rtol * |other|; equal infinities are close, nans if equal_nan.

    >>> md.isclose(md.tensor([1.0, 2.0]), md.tensor([1.0, 2.1])).tolist()
    [True, False]
    """
    other = md.asarray(other, backend=input.backend, device=input.device) if not isinstance(other, md.Tensor) else other
    if not md.result_type(input, other).inexact:  # whose differences may overflow
        input, other = input.to(md.float64), other.to(md.float64)
    input, other = md.broadcast_arrays(input, other)
    near = md.isfinite(input) & md.isfinite(other) & (md.abs(input - other) <= atol + rtol * md.abs(other))
    close = near | (input == other)
    return close | (md.isnan(input) & md.isnan(other)) if equal_nan else close


def allclose(input: md.Tensor, other: md.Tensor, rtol: float = 1e-05, atol: float = 1e-08, equal_nan: bool = False) -> bool:
    """Whether all elements are close (see isclose), as a Python bool."""
    return builtins.bool(md.all(isclose(input, other, rtol, atol, equal_nan)))


def isreal(input: md.Tensor) -> md.Tensor:
    """Where there is no imaginary part."""
    return md.imag(input) == 0 if input.dtype.is_complex else md.ones_like(input, dtype=md.bool)
