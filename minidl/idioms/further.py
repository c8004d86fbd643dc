"""PyTorch's rarer functions: of whole numbers and powers, reductions, slices that another tensor's values take, and factored matrices."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import minidl as md
from minidl.idioms import of_numpy
from minidl.idioms.creating import key, shape_of
from minidl.idioms.functions import plus
from minidl.idioms.numbers import along, one_of, word_all
from minidl.idioms.shaping import Pair, axis_of, diag_embed, narrow, ravel, tensor_split

__all__ = [
    "addbmm", "addr", "binomial", "chain_matmul", "cholesky_inverse", "cholesky_solve", "conj_physical", "cumulative_trapezoid", "diagflat",
    "diagonal_scatter", "dsplit", "float_power", "frexp", "gcd", "hsplit", "igamma", "igammac", "is_nonzero", "is_same_size", "is_signed", "lcm",
    "ldexp", "logaddexp2", "lu_solve", "msort", "mvlgamma", "nanmedian", "nanquantile", "narrow_copy", "nonzero_static", "poisson", "put", "qr",
    "renorm", "resolve_conj", "resolve_neg", "select_scatter", "slice_scatter", "sum_to_size", "svd", "unravel_index", "vsplit",
]  # fmt: skip


# ---- numbers --------------------------------------------------------------------------------------------------------------------------
def addbmm(input: Any, batch1: md.Tensor, batch2: md.Tensor, *, beta: float = 1, alpha: float = 1) -> md.Tensor:
    """beta * input + alpha * (the sum of the products batch1[i] @ batch2[i])."""
    return plus(input, md.sum(md.matmul(batch1, batch2), axis=0), beta, alpha)


def addr(input: Any, vec1: md.Tensor, vec2: md.Tensor, *, beta: float = 1, alpha: float = 1) -> md.Tensor:
    """beta * input + alpha * (the outer product of two vectors)."""
    return plus(input, md.outer(vec1, vec2), beta, alpha)


def conj_physical(input: md.Tensor) -> md.Tensor:
    """The complex conjugate: md.conj, which computes it at once, too."""
    return md.conj(input)


def resolve_conj(input: md.Tensor) -> md.Tensor:
    """The tensor itself: a conjugate is computed where it is asked for."""
    return input


resolve_neg = resolve_conj


def float_power(input: Any, exponent: Any) -> md.Tensor:
    """The power in float64, in complex128 for complex numbers.

    >>> md.tensor([4, 9]).float_power(0.5).tolist()
    [2.0, 3.0]
    """
    at = next(v for v in (input, exponent) if isinstance(v, md.Tensor))
    dtype = md.complex128 if md.result_type(input, exponent).is_complex else md.float64
    wide = lambda v: md.asarray(v, dtype, backend=at.backend, device=at.device)
    return md.pow(wide(input), wide(exponent))


class Parts(NamedTuple):
    """A number as mantissa * 2**exponent."""

    mantissa: md.Tensor
    exponent: md.Tensor


def frexp(input: md.Tensor) -> Parts:
    """Mantissas between 1/2 and 1 and the exponents of 2, int32, of which floats are made.

    >>> [v.item() for v in md.frexp(md.tensor(12.0))]
    [0.75, 4]
    """
    from minidl.idioms.jax import floats

    mantissa, exponent = floats.frexp(input)
    return Parts(mantissa, exponent.to(md.int32))


def _of_jnp(name: str, text: str) -> Callable[[Any, Any], md.Tensor]:
    """A function of two arguments that jax.numpy has under this name."""

    def function(input: Any, other: Any) -> md.Tensor:
        from minidl.idioms.jax import numpy

        return getattr(numpy, name)(input, other)  # type: ignore[no-any-return]

    function.__name__ = function.__qualname__ = name
    function.__doc__ = text
    function.__module__ = "minidl.idioms"  # where it is found, also by pickle
    return function


gcd, lcm = _of_jnp("gcd", "The greatest common divisors of integers."), _of_jnp("lcm", "The least common multiples of integers.")
ldexp = _of_jnp("ldexp", "input times 2 to the power other.")
logaddexp2 = _of_jnp("logaddexp2", "The logarithm to base 2 of 2**input + 2**other.")


def mvlgamma(input: md.Tensor, p: int) -> md.Tensor:
    """The logarithm of the multivariate gamma function of dimension p."""
    return md.special.multigammaln(input, p)


def igamma(input: md.Tensor, other: md.Tensor) -> md.Tensor:
    """md.special.gammainc: the regularized lower incomplete gamma function of input at other."""
    return md.special.gammainc(input, other)


def igammac(input: md.Tensor, other: md.Tensor) -> md.Tensor:
    """md.special.gammaincc: 1 - igamma."""
    return md.special.gammaincc(input, other)


def is_nonzero(input: md.Tensor) -> bool:
    """Whether the one element is not 0."""
    return bool(input)


def is_signed(input: md.Tensor) -> bool:
    """Whether the dtype has numbers below 0."""
    return input.dtype.kind not in ("bool", "uint")


def is_same_size(input: md.Tensor, other: md.Tensor) -> bool:
    """Whether the shapes are equal."""
    return input.shape == other.shape


def poisson(input: md.Tensor, generator: Any = None) -> md.Tensor:
    """Poisson draws of these rates, in their dtype."""
    return md.random.poisson(key(input, generator), input, input.shape).to(input.dtype)


def binomial(count: md.Tensor, prob: md.Tensor, generator: Any = None) -> md.Tensor:
    """How many of `count` trials of these probabilities succeed, in their dtype."""
    from minidl.idioms.jax import random

    return random.binomial(key(prob, generator), count, prob, dtype=prob.dtype)  # type: ignore[no-any-return]


# ---- reductions and order -------------------------------------------------------------------------------------------------------------
@along
def nanmedian(a: Any, axis: Any = None, keepdims: bool = False, *, dim: int | None = None, keepdim: bool = False) -> Any:
    """The median of what is not nan, of two elements in the middle the mean, as in NumPy; along PyTorch's `dim` the lower one, and its place.

    >>> x = md.tensor([1.0, md.nan, 4.0])
    >>> x.nanmedian().item(), [v.item() for v in x.nanmedian(dim=0)]
    (2.5, [1.0, 0])
    """
    if one_of(dim, axis) is None or dim is None:
        return of_numpy.nanmedian(a, axis, keepdims or keepdim)
    axis_of("nanmedian", a, dim)
    count = md.sum(~md.isnan(a), axis=dim, keepdims=True)
    middle = md.where(count > 0, (count - 1) // 2, 0)
    place = md.take_along_axis(md.argsort(a, axis=dim), middle, axis=dim)  # nan comes last
    pair = Pair(md.take_along_axis(a, place, axis=dim), place)
    return pair if keepdim or keepdims else Pair(*(md.squeeze(v, dim) for v in pair))


@along
def nanquantile(
    a: Any, q: Any, axis: Any = None, keepdims: bool = False, *, method: str = "linear", dim: Any = None, keepdim: bool = False,
    interpolation: str | None = None,
) -> md.Tensor:  # fmt: skip
    """md.quantile of what is not nan, by NumPy's words or PyTorch's; nan where all is. Raises ValueError for another method and over nothing.

    >>> md.nanquantile(md.tensor([1.0, md.nan, 3.0]), 0.5, dim=0).item()
    2.0
    """
    return of_numpy.nanquantile(a, q, one_of(dim, axis), keepdims or keepdim, method=interpolation or method)


def renorm(input: md.Tensor, p: float, dim: int, maxnorm: float) -> md.Tensor:
    """The slices along an axis, those whose p-norm is above maxnorm made so small.

    >>> [[round(v, 3) for v in row] for row in md.tensor([[3.0, 4.0], [0.5, 0.0]]).renorm(2, 0, 1.0).tolist()]
    [[0.6, 0.8], [0.5, 0.0]]
    """
    dim = axis_of("renorm", input, dim)
    norm = md.vector_norm(input, axis=tuple(a for a in range(input.ndim) if a != dim), ord=p, keepdims=True)
    high = norm > maxnorm
    return md.where(high, input * (maxnorm / (md.where(high, norm, 1.0) + 1e-7)), input)


def sum_to_size(input: md.Tensor, *size: Any) -> md.Tensor:
    """Summed to a shape that broadcasts to this one. Raises ValueError for another.

    >>> md.ones(2, 3).sum_to_size(1, 3).tolist()
    [[2.0, 2.0, 2.0]]
    """
    wanted = shape_of(size)
    before = input.ndim - len(wanted)
    if before < 0 or any(w not in (1, n) for w, n in zip(wanted, input.shape[before:], strict=True)):
        raise ValueError(f"sum_to_size: the shape {input.shape} cannot be summed to {wanted}")
    axes = tuple(a for a in range(input.ndim) if a < before or wanted[a - before] != input.shape[a])
    return md.reshape(md.sum(input, axis=axes), wanted) if axes else input


def cumulative_trapezoid(y: md.Tensor, x: md.Tensor | None = None, *, dx: float = 1.0, dim: int = -1) -> md.Tensor:
    """The integral up to each place after the first, by the rule of trapezoids along an axis, at the places x or dx apart.

    >>> md.cumulative_trapezoid(md.tensor([1.0, 3.0, 5.0])).tolist()
    [2.0, 6.0]
    """
    n = y.shape[axis_of("cumulative_trapezoid", y, dim)]
    means = (narrow(y, dim, min(n, 1), max(n - 1, 0)) + narrow(y, dim, 0, max(n - 1, 0))) / 2
    if x is not None:
        steps = md.diff(x, axis=dim if x.ndim > 1 else 0)
        means = means * (steps if x.ndim > 1 else md.reshape(steps, (-1,) + (1,) * (y.ndim - 1 - dim % y.ndim)))
    return md.cumulative_sum(means, axis=dim) * (dx if x is None else 1)


def msort(input: md.Tensor) -> md.Tensor:
    """In ascending order along the first axis."""
    return md.sort(input, axis=0) if input.ndim else input


def nonzero_static(input: md.Tensor, *, size: int, fill_value: int = -1) -> md.Tensor:
    """The places of the first `size` elements that are not 0, one a row, i64[size, axes]; rows that are left over hold fill_value. Also under jit.

    >>> md.nonzero_static(md.tensor([0, 5, 6]), size=3).tolist()
    [[1], [2], [-1]]
    """
    beside = {"dtype": md.int64, "backend": input.backend, "device": input.device}
    if not input.ndim:
        return md.zeros((size, 0), **beside)
    hit = ravel(input != 0)
    place = md.argsort((~hit).to(md.int8), stable=True)[:size] if hit.size else md.zeros(0, **beside)
    place = md.pad(place, ((0, max(size - place.shape[0], 0)),))
    there = md.arange(size, **beside) < md.sum(hit)
    return md.where(md.expand_dims(there, -1), md.stack(unravel_index(place, input.shape), axis=-1), fill_value)


# ---- slices ---------------------------------------------------------------------------------------------------------------------------
def unravel_index(indices: md.Tensor, shape: Any) -> tuple[md.Tensor, ...]:
    """The places along each axis of places in the flattened tensor of a shape.

    >>> [v.tolist() for v in md.unravel_index(md.tensor([0, 5]), (2, 3))]
    [[0, 1], [0, 2]]
    """
    from minidl.idioms.jax import places

    return places.unravel_index(indices, shape)


def _split(name: str, input: md.Tensor, parts: Any, dim: int, least: int) -> tuple[md.Tensor, ...]:
    if input.ndim < least:
        raise ValueError(f"{name}: a tensor of at least {least} axes is wanted, not one of shape {input.shape}")
    if isinstance(parts, int) and input.shape[dim] % parts:
        raise ValueError(f"{name}: axis {dim} of shape {input.shape} cannot be split into {parts} equal parts; tensor_split makes unequal ones")
    return tensor_split(input, parts, dim)


def hsplit(input: md.Tensor, indices_or_sections: int | Sequence[int]) -> tuple[md.Tensor, ...]:
    """Pieces along the second axis, of a vector along its only one: so many equal ones, or those that end at these places."""
    return _split("hsplit", input, indices_or_sections, 0 if input.ndim == 1 else 1, 1)


def vsplit(input: md.Tensor, indices_or_sections: int | Sequence[int]) -> tuple[md.Tensor, ...]:
    """Pieces along the first axis of two or more: so many equal ones, or those that end at these places."""
    return _split("vsplit", input, indices_or_sections, 0, 2)


def dsplit(input: md.Tensor, indices_or_sections: int | Sequence[int]) -> tuple[md.Tensor, ...]:
    """Pieces along the third axis: so many equal ones, or those that end at these places."""
    return _split("dsplit", input, indices_or_sections, 2, 3)


def narrow_copy(input: md.Tensor, dim: int, start: int, length: int) -> md.Tensor:
    """`length` elements of an axis from `start` on, as a tensor of their own."""
    return md.positive(narrow(input, dim, start, length))


def diagflat(input: md.Tensor, offset: int = 0) -> md.Tensor:
    """The matrix with all elements on a diagonal, zeros elsewhere."""
    return diag_embed(ravel(input), offset)


def _of_shape(name: str, src: md.Tensor, shape: tuple[int, ...]) -> md.Tensor:
    if src.shape != shape:
        raise ValueError(f"{name}: src of shape {shape} is wanted, not {src.shape}")
    return src


def diagonal_scatter(input: md.Tensor, src: md.Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1) -> md.Tensor:
    """input with src on a diagonal of two axes. Raises ValueError for a src of another shape than that diagonal's.

    >>> md.zeros(2, 2).diagonal_scatter(md.tensor([1.0, 2.0])).tolist()
    [[1.0, 0.0], [0.0, 2.0]]
    """
    x = md.moveaxis(input, (dim1, dim2), (-2, -1))
    n = max(min(x.shape[-2] + min(offset, 0), x.shape[-1] - max(offset, 0)), 0)
    at = md.arange(n, backend=input.backend, device=input.device)
    x = x.at[..., at - min(offset, 0), at + max(offset, 0)].set(_of_shape("diagonal_scatter", src, (*x.shape[:-2], n)))
    return md.moveaxis(x, (-2, -1), (dim1, dim2))


def select_scatter(input: md.Tensor, src: md.Tensor, dim: int, index: int) -> md.Tensor:
    """input with src at one place of an axis. Raises ValueError for a src of another shape than that slice's."""
    axis = axis_of("select_scatter", input, dim)
    src = _of_shape("select_scatter", src, input.shape[:axis] + input.shape[axis + 1 :])
    return input.at[(slice(None),) * axis + (index,)].set(src)


def slice_scatter(
    input: md.Tensor, src: md.Tensor, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1
) -> md.Tensor:  # fmt: skip
    """input with src from start to end of an axis. Raises ValueError for a src of another shape than that piece's."""
    axis = axis_of("slice_scatter", input, dim)
    n = len(range(*slice(start, end, step).indices(input.shape[axis])))
    src = _of_shape("slice_scatter", src, (*input.shape[:axis], n, *input.shape[axis + 1 :]))
    return input.at[(slice(None),) * axis + (slice(start, end, step),)].set(src)


def put(input: md.Tensor, index: md.Tensor, source: md.Tensor, accumulate: bool = False) -> md.Tensor:
    """input with the elements of source, one after the other, at these places of the flattened tensor, added if accumulate.

    >>> md.zeros(2, 2).put(md.tensor([1, 3]), md.tensor([5.0, 7.0])).tolist()
    [[0.0, 5.0], [0.0, 7.0]]
    """
    if index.size != source.size:
        raise ValueError(f"put: source has {source.size} elements, and index {index.size}; as many are wanted")
    at = ravel(input).at[ravel(index)]
    values = ravel(source)
    return md.reshape(at.add(values) if accumulate else at.set(values), input.shape)


# ---- matrices -------------------------------------------------------------------------------------------------------------------------
def chain_matmul(*matrices: md.Tensor) -> md.Tensor:
    """The product of matrices in the order of fewest multiplications: md.linalg.multi_dot."""
    return matrices[0] if len(matrices) == 1 else md.linalg.multi_dot(matrices)


def cholesky_solve(B: md.Tensor, L: md.Tensor, upper: bool = False) -> md.Tensor:
    """The X with A X = B, from the Cholesky factor L of A, the lower one unless upper.

    >>> md.tensor([[8.0]]).cholesky_solve(md.tensor([[2.0]])).tolist()
    [[2.0]]
    """
    return md.linalg.cho_solve((L, not upper), B)


def cholesky_inverse(L: md.Tensor, upper: bool = False) -> md.Tensor:
    """The inverse of the matrix of this Cholesky factor."""
    one = md.eye(L.shape[-1], dtype=L.dtype, backend=L.backend, device=L.device)
    return cholesky_solve(md.broadcast_to(one, L.shape), L, upper)


class Factors(NamedTuple):
    """U, S and V with A = U diag(S) V^H."""

    U: md.Tensor
    S: md.Tensor
    V: md.Tensor


def svd(input: md.Tensor, some: bool = True, compute_uv: bool = True) -> Factors:
    """(U, S, V) with input = U diag(S) V^H, where md.linalg.svd has V^H; some: as many columns as there are singular values. Without compute_uv U
    and V are zeros.

    >>> md.svd(md.tensor([[0.0, 2.0]])).S.tolist()
    [2.0]
    """
    if not compute_uv:
        m, n = input.shape[-2:]
        empty = lambda k: md.zeros((*input.shape[:-2], k, k), dtype=input.dtype, backend=input.backend, device=input.device)
        return Factors(empty(m), md.linalg.svdvals(input), empty(n))
    u, s, vh = md.linalg.svd(input, full_matrices=not some)
    return Factors(u, s, md.conj(md.matrix_transpose(vh)))


def qr(input: md.Tensor, some: bool = True) -> Any:
    """md.linalg.qr, complete unless some."""
    return md.linalg.qr(input, mode="reduced" if some else "complete")


def lu_solve(b: md.Tensor, LU_data: md.Tensor, LU_pivots: md.Tensor) -> md.Tensor:
    """The X with A X = b, from md.linalg.lu_factor(A)."""
    return md.linalg.lu_solve(LU_data, LU_pivots, b)


word_all(globals(), __all__)
