"""jax.lax: loops and branches, pieces at places that values decide, windows, collectives, and the primitive operations under their names.

`from minidl.idioms.jax import lax`. Arguments and values are JAX's. Where it has a name of a window or a shape for XLA alone, it is not here.
"""

from __future__ import annotations

import builtins
import enum
import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import minidl as md
from minidl.idioms import of_jax, of_lax
from minidl.idioms.jax import arrays, collectives, convolutions, gathering, numpy, shaping, solving
from minidl.idioms.jax.numpy import linalg
from minidl.idioms.jax.scipy import special
from minidl.idioms.jax.spelling import room, spelled

_NONE = object()


class Precision:
    """The names of precisions, which change nothing here."""

    DEFAULT, HIGH, HIGHEST = "default", "high", "highest"


class RoundingMethod:
    """How lax.round treats a half."""

    AWAY_FROM_ZERO, TO_NEAREST_EVEN = 0, 1


# ---- loops and branches -----------------------------------------------------------------------------------------------------------------
def scan(
    f: Callable[..., Any], init: Any, xs: Any = None, length: int | None = None, reverse: bool = False, unroll: Any = 1,
    _split_transpose: bool = False,
) -> Any:  # fmt: skip
    """md.scan."""
    return md.scan(f, init, xs, length, reverse, unroll)


def _tensors(values: Any) -> Any:
    """A pytree whose numbers and arrays are tensors."""
    return md.tree.map(lambda v: md.asarray(v) if isinstance(v, (bool, int, float, complex, np.generic, np.ndarray)) else v, values)


def cond(pred: Any, true_fun: Callable[..., Any], false_fun: Callable[..., Any], *operands: Any, operand: Any = _NONE) -> Any:
    """md.cond, of tensors: of numbers it makes some, and numbers that a branch returns are some, too.

    >>> cond(True, lambda x: x, lambda x: -x, 2.0).shape
    ()
    """
    return _tensors(md.cond(pred, true_fun, false_fun, *_tensors(operands), *(() if operand is _NONE else (_tensors(operand),))))


def switch(index: Any, branches: Sequence[Callable[..., Any]], *operands: Any, operand: Any = _NONE) -> Any:
    """md.switch, of tensors as cond is."""
    return _tensors(md.switch(index, branches, *_tensors(operands), *(() if operand is _NONE else (_tensors(operand),))))


def map(f: Callable[..., Any], xs: Any, *, batch_size: int | None = None) -> Any:
    """md.map; batch_size: md.vmap over so many at a time, which gives the same values.

    >>> from minidl.idioms.jax import lax
    >>> lax.map(lambda x: x * 2.0, md.ones(3), batch_size=2).tolist()
    [2.0, 2.0, 2.0]
    """
    if batch_size is None:
        return md.map(f, xs)
    n = md.tree.leaves(xs)[0].shape[0]
    whole = n // batch_size * batch_size
    rows = md.map(md.vmap(f), md.tree.map(lambda x: md.reshape(x[:whole], (-1, batch_size, *x.shape[1:])), xs)) if whole else None
    rest = md.vmap(f)(md.tree.map(lambda x: x[whole:], xs)) if whole < n else None
    flat = rows if rows is None else md.tree.map(lambda y: md.reshape(y, (whole, *y.shape[2:])), rows)
    return flat if rest is None else rest if flat is None else md.tree.map(lambda a, b: md.concat([a, b]), flat, rest)


# ---- of elements ------------------------------------------------------------------------------------------------------------------------
def clamp(min: Any, x: Any, max: Any) -> md.Tensor:
    """x within two bounds, which stand around it.

    >>> clamp(0.0, md.tensor([-1.0, 2.0]), 1.0).tolist()
    [0.0, 1.0]
    """
    return md.clip(md.asarray(x), min, max)


def select(pred: Any, on_true: Any, on_false: Any) -> md.Tensor:
    """md.where."""
    return md.where(pred, on_true, on_false)


def select_n(which: Any, *cases: Any) -> md.Tensor:
    """Of each place the case of its number; a bool counts as 0 or 1.

    >>> select_n(md.tensor([True, False]), md.zeros(2), md.ones(2)).tolist()
    [1.0, 0.0]
    """
    at, out = md.asarray(which), cases[0]
    if at.dtype is md.bool:
        return md.where(at, cases[1], cases[0]) if len(cases) == 2 else md.asarray(cases[0])
    for i, case in enumerate(cases[1:], 1):
        out = md.where(at >= i, case, out)
    return md.asarray(out)


def div(x: Any, y: Any) -> md.Tensor:
    """The quotient, of integers rounded towards zero.

    >>> div(md.tensor(-7), md.tensor(2)).item()
    -3
    """
    x, y = md.asarray(x), md.asarray(y)
    if x.dtype.inexact or y.dtype.inexact:
        return md.divide(x, y)
    down = md.floor_divide(x, y)
    return down + ((down < 0) & (md.remainder(x, y) != 0)).to(down.dtype)


def rem(x: Any, y: Any) -> md.Tensor:
    """The remainder of the sign of x."""
    return md.fmod(md.asarray(x), md.asarray(y))


def population_count(x: Any) -> md.Tensor:
    """How many bits are 1, in the dtype of x; those of negative numbers are those of their two's complement.

    >>> population_count(md.tensor([3, -1])).tolist()
    [2, 64]
    """
    x = md.asarray(x)
    return builtins.sum(md.bitwise_and(md.bitwise_right_shift(x, i), 1) for i in range(x.dtype.bits)).to(x.dtype)


def clz(x: Any) -> md.Tensor:
    """How many bits are 0 before the first 1, in the dtype of x.

    >>> clz(md.tensor([0, 1, -1], dtype=md.int32)).tolist()
    [32, 31, 0]
    """
    x = md.asarray(x)
    bits, found = x.dtype.bits, x
    for reach in (2**i for i in range(bits.bit_length() - 1)):  # every bit behind the first 1 becomes 1
        found = found | shift_right_logical(found, reach)
    return (bits - population_count(found)).to(x.dtype)


def shift_right_logical(x: Any, y: Any) -> md.Tensor:
    """The bits moved to the right, zeros behind them, also of negative numbers.

    >>> shift_right_logical(md.tensor(-1, dtype=md.int8), 4).item()
    15
    """
    x = md.asarray(x)
    bits = x.dtype.bits
    y = md.asarray(y, dtype=x.dtype, **arrays.beside(x))
    if x.dtype.kind == "uint":
        return md.bitwise_right_shift(x, y)
    # the places of the signs that came along
    first = md.bitwise_left_shift(md.asarray(-2, dtype=x.dtype, **arrays.beside(x)), bits - 1 - md.clip(y, 0, bits - 1))
    return md.where((y < 0) | (y >= bits), 0, md.where(y == 0, x, md.bitwise_right_shift(x, y) & ~first))


class FftType(enum.Enum):
    """Which of the transforms lax.fft is."""

    FFT, IFFT, RFFT, IRFFT = range(4)


def fft(x: Any, fft_type: Any, fft_lengths: Sequence[int]) -> md.Tensor:
    """A transform of the last axes, of these lengths (of the result, for "IRFFT"). fft_type: FftType or its name. Raises ValueError for other lengths
    than those of x.

    >>> fft(md.ones(4), "RFFT", (4,)).real.tolist()
    [4.0, 0.0, 0.0]
    """
    name, x, sizes = (fft_type if isinstance(fft_type, str) else fft_type.name).lower(), md.asarray(x), tuple(fft_lengths)
    wanted = (*sizes[:-1], sizes[-1] // 2 + 1) if name == "irfft" and sizes else sizes
    if x.shape[x.ndim - len(sizes) :] != wanted:
        raise ValueError(f"fft: {name.upper()} of the lengths {sizes} wants {wanted} as the last axes, not {x.shape}; pad or cut them first")
    return getattr(md.fft, name + "n")(x, s=sizes, axes=tuple(builtins.range(-len(fft_lengths), 0)))  # type: ignore[no-any-return]


def approx_max_k(operand: Any, k: int, reduction_dimension: int = -1, **how: Any) -> tuple[md.Tensor, md.Tensor]:
    """The k largest elements and their places: here the exact ones."""
    x = md.moveaxis(md.asarray(operand), reduction_dimension, -1)
    values, places = md.top_k(x, k)
    return md.moveaxis(values, -1, reduction_dimension), md.moveaxis(places, -1, reduction_dimension)


def approx_min_k(operand: Any, k: int, reduction_dimension: int = -1, **how: Any) -> tuple[md.Tensor, md.Tensor]:
    """The k least elements and their places: here the exact ones."""
    values, places = approx_max_k(-md.asarray(operand), k, reduction_dimension)
    return -values, places


def integer_pow(x: Any, y: int) -> md.Tensor:
    """md.pow to an integer."""
    return md.pow(x, y)


def convert_element_type(operand: Any, new_dtype: Any) -> md.Tensor:
    """In another dtype."""
    return md.asarray(operand).to(new_dtype)


def bitcast_convert_type(operand: Any, new_dtype: Any) -> md.Tensor:
    """The same bits as another dtype of the same width."""
    return md.asarray(operand).view(arrays.known_dtype(new_dtype))


def reduce_precision(operand: Any, exponent_bits: int, mantissa_bits: int) -> md.Tensor:
    """Rounded to float16 (5, 10), bfloat16 (8, 7), float32 (8, 23) or float64 (11, 52), and back. Raises ValueError for other formats."""
    formats = {(5, 10): md.float16, (8, 7): md.bfloat16, (8, 23): md.float32, (11, 52): md.float64}
    if (exponent_bits, mantissa_bits) not in formats:
        raise ValueError(f"reduce_precision: {exponent_bits} and {mantissa_bits} bits are no format here; (5, 10), (8, 7), (8, 23), (11, 52) are")
    x = md.asarray(operand)
    return x.to(formats[exponent_bits, mantissa_bits]).to(x.dtype)


def _round(x: Any, rounding_method: Any = 0) -> md.Tensor:
    """To the nearest integer; a half away from zero (0, as in JAX), or to the even one (1)."""
    x = md.asarray(x)
    return md.round(x) if int(rounding_method) else md.where(md.abs(x - md.trunc(x)) == 0.5, md.trunc(x) + md.sign(x), md.round(x))


# ---- shapes -----------------------------------------------------------------------------------------------------------------------------
def broadcast(operand: Any, sizes: Sequence[int]) -> md.Tensor:
    """With new axes of these sizes in front."""
    x = md.asarray(operand)
    return md.broadcast_to(x, (*sizes, *x.shape))


def broadcast_in_dim(operand: Any, shape: Sequence[int], broadcast_dimensions: Sequence[int]) -> md.Tensor:
    """Of this shape, whose axes `broadcast_dimensions` are those of the operand.

    >>> broadcast_in_dim(md.tensor([1.0, 2.0]), (2, 3), (0,)).tolist()
    [[1.0, 1.0, 1.0], [2.0, 2.0, 2.0]]
    """
    x = md.asarray(operand)
    wide = [1] * len(shape)
    for n, axis in zip(x.shape, broadcast_dimensions, strict=True):
        wide[axis] = n
    return md.broadcast_to(md.reshape(x, tuple(wide)), tuple(shape))


def broadcasted_iota(dtype: Any, shape: Sequence[int], dimension: int) -> md.Tensor:
    """The number of the place along one axis, for all the others."""
    return broadcast_in_dim(md.arange(shape[dimension], dtype=dtype), shape, (dimension,))


def iota(dtype: Any, size: int) -> md.Tensor:
    """md.arange."""
    return md.arange(size, dtype=dtype)


def expand_dims(array: Any, dimensions: Sequence[int]) -> md.Tensor:
    """With axes of size one, whose numbers are those that they will have."""
    x = md.asarray(array)
    rank = x.ndim + len(dimensions)
    for axis in sorted(d % rank for d in dimensions):
        x = md.expand_dims(x, axis=axis)
    return x


def squeeze(array: Any, dimensions: Sequence[int]) -> md.Tensor:
    """Without axes of size one."""
    return md.squeeze(md.asarray(array), axis=tuple(dimensions)) if len(dimensions) else md.asarray(array)


def reshape(operand: Any, new_sizes: Sequence[int], dimensions: Sequence[int] | None = None) -> md.Tensor:
    """md.reshape, of the axes in another order if one is given."""
    x = md.asarray(operand)
    return md.reshape(x if dimensions is None else md.permute_dims(x, tuple(dimensions)), tuple(new_sizes))


def collapse(operand: Any, start_dimension: int, stop_dimension: int | None = None) -> md.Tensor:
    """Some neighbouring axes as one."""
    x = md.asarray(operand)
    a, b, _ = slice(start_dimension, stop_dimension).indices(x.ndim)
    return md.reshape(x, (*x.shape[:a], math.prod(x.shape[a:b]), *x.shape[b:]))


def rev(operand: Any, dimensions: Sequence[int]) -> md.Tensor:
    """Backwards along axes."""
    return md.flip(md.asarray(operand), axis=tuple(dimensions))


def pad(operand: Any, padding_value: Any, padding_config: Sequence[tuple[int, int, int]]) -> md.Tensor:
    """(before, after, between) for each axis; negative numbers crop.

    >>> pad(md.tensor([1.0, 2.0]), 0.0, [(1, 0, 1)]).tolist()
    [0.0, 1.0, 0.0, 2.0]
    """
    x = md.asarray(operand)
    value = md.asarray(padding_value, dtype=x.dtype)
    sizes = [builtins.max(n + (n - 1) * c, 0) for n, (_, _, c) in zip(x.shape, padding_config, strict=True)]
    wide = md.broadcast_to(value, tuple(builtins.max(a, 0) + n + builtins.max(b, 0) for n, (a, b, _) in zip(sizes, padding_config, strict=True)))
    at = tuple(slice(builtins.max(a, 0), builtins.max(a, 0) + n, c + 1) for n, (a, _, c) in zip(sizes, padding_config, strict=True))
    out = wide.at[at].set(x) if x.ndim else x
    crop = tuple(slice(builtins.max(-a, 0), m - builtins.max(-b, 0)) for m, (a, b, _) in zip(out.shape, padding_config, strict=True))
    return out[crop] if x.ndim else out


def _slice(operand: Any, start_indices: Sequence[int], limit_indices: Sequence[int], strides: Sequence[int] | None = None) -> md.Tensor:
    """A piece whose bounds are known."""
    steps = strides or (1,) * len(start_indices)
    return md.asarray(operand)[tuple(slice(*v) for v in zip(start_indices, limit_indices, steps, strict=True))]


def slice_in_dim(operand: Any, start_index: int | None, limit_index: int | None, stride: int = 1, axis: int = 0) -> md.Tensor:
    """A piece along one axis whose bounds are known."""
    x = md.asarray(operand)
    return x[(*(slice(None),) * (axis % x.ndim), slice(start_index, limit_index, stride))]


def index_in_dim(operand: Any, index: int, axis: int = 0, keepdims: bool = True) -> md.Tensor:
    """One place along one axis."""
    x = md.asarray(operand)
    index = operator.index(index) % x.shape[axis]
    found = slice_in_dim(x, index, index + 1, 1, axis)
    return found if keepdims else md.squeeze(found, axis=axis)


def concatenate(operands: Sequence[Any], dimension: int) -> md.Tensor:
    """md.concat."""
    return md.concat([md.asarray(o) for o in operands], axis=dimension)


def split(operand: Any, sizes: Sequence[int], axis: int = 0) -> list[md.Tensor]:
    """Pieces of these sizes."""
    return list(md.split(md.asarray(operand), tuple(sizes), axis=axis))


def sort(operand: Any, dimension: int = -1, is_stable: bool = True, num_keys: int = 1) -> Any:
    """md.sort; of several arrays, by the first num_keys of them.

    >>> [v.tolist() for v in sort((md.tensor([2, 1]), md.tensor([0.0, 5.0])))]
    [[1, 2], [5.0, 0.0]]
    """
    if not isinstance(operand, (tuple, list)):
        return md.sort(md.asarray(operand), axis=dimension, stable=is_stable)
    xs = [md.asarray(x) for x in operand]
    order = md.argsort(xs[num_keys - 1], axis=dimension)
    for key in reversed(xs[: num_keys - 1]):
        order = md.take_along_axis(order, md.argsort(md.take_along_axis(key, order, axis=dimension), axis=dimension), axis=dimension)
    return tuple(md.take_along_axis(x, order, axis=dimension) for x in xs)


def sort_key_val(keys: Any, values: Any, dimension: int = -1, is_stable: bool = True) -> Any:
    """Two arrays in the order of the first."""
    return sort((keys, values), dimension, is_stable)


def index_take(src: Any, idxs: Sequence[Any], axes: Sequence[int]) -> md.Tensor:
    """Slices at places along axes, which come together in front."""
    x = md.asarray(src)
    rest = [a for a in range(x.ndim) if a not in axes]
    return md.permute_dims(x, (*axes, *rest))[tuple(md.asarray(i) for i in idxs)]


# ---- reductions and products ------------------------------------------------------------------------------------------------------------
def _over(f: Callable[..., md.Tensor], name: str) -> Callable[..., md.Tensor]:
    def function(operand: Any, axes: Sequence[int]) -> md.Tensor:
        x = md.asarray(operand)
        return f(x, axis=tuple(axes)).to(x.dtype)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"md.{f.__name__} over axes, in the dtype of the operand."
    return function


def reduce_xor(operand: Any, axes: Sequence[int]) -> md.Tensor:
    """The exclusive or of integers or truths over axes.

    >>> reduce_xor(md.tensor([6, 3, 1]), (0,)).item()
    4
    """
    x = md.asarray(operand)
    return reduce(x, False if x.dtype is md.bool else 0, md.not_equal if x.dtype is md.bool else md.bitwise_xor, axes)  # type: ignore[no-any-return]


def mulhi(x: Any, y: Any) -> md.Tensor:
    """The upper half of the bits of the product of two integers of one dtype. Raises TypeError for other dtypes.

    >>> mulhi(md.tensor(2**30, dtype="int32"), md.tensor(12, dtype="int32")).item()
    3
    """
    x, y = md.broadcast_arrays(md.asarray(x), md.asarray(y))
    if x.dtype is not y.dtype or not x.dtype.is_integer:
        raise TypeError(f"mulhi: integers of one dtype are wanted, not {x.dtype.name} and {y.dtype.name}")
    half, unsigned = x.dtype.bits // 2, x.dtype.kind == "uint"
    if x.dtype.bits < 64 and not unsigned:
        return md.bitwise_right_shift(x.to(md.int64) * y.to(md.int64), x.dtype.bits).to(x.dtype)
    low = lambda v: md.bitwise_and(v, md.asarray(2**half - 1, dtype=v.dtype, backend=v.backend, device=v.device))
    high = lambda v: md.bitwise_right_shift(v, half)  # of a negative number rounded down
    middle = high(x) * low(y) + high(low(x) * low(y)) if unsigned else high(x) * low(y) + low(high(low(x) * low(y)))
    other = low(middle) + low(x) * high(y)
    return high(x) * high(y) + high(middle) + high(other)


def reduce(operands: Any, init_values: Any, computation: Callable[..., Any], dimensions: Sequence[int]) -> Any:
    """The elements along axes joined by a function of two, which is associative, and with what it begins from; pytrees join as a whole.

    >>> reduce(md.tensor([1.0, 2.0, 4.0]), 0.0, md.add, (0,)).item()
    7.0
    """
    xs, form = md.tree.flatten(operands)
    xs = [md.asarray(x) for x in xs]
    starts = [md.asarray(v, dtype=x.dtype) for v, x in zip(md.tree.leaves(init_values), xs, strict=True)]
    axes = [d % xs[0].ndim for d in dimensions]
    rest = [a for a in range(xs[0].ndim) if a not in axes]
    flat = [md.reshape(md.permute_dims(x, (*axes, *rest)), (-1, *(x.shape[a] for a in rest))) for x in xs]
    join = lambda a, b: md.tree.leaves(computation(md.tree.unflatten(form, a), md.tree.unflatten(form, b)))
    begin = [md.broadcast_to(s, x.shape[1:]) for s, x in zip(starts, flat, strict=True)]
    while flat[0].shape[0] > 1:  # halves, so that n elements take log2(n) calls
        n = flat[0].shape[0] // 2
        left = [x[2 * n :] for x in flat]
        flat = [md.concat([j, rest]) for j, rest in zip(join([x[:n] for x in flat], [x[n : 2 * n] for x in flat]), left, strict=True)]
    return md.tree.unflatten(form, join(begin, [x[0] for x in flat]) if flat[0].shape[0] else begin)


def reduce_window(
    operand: Any, init_value: Any, computation: Callable[[Any, Any], Any], window_dimensions: Sequence[int],
    window_strides: Sequence[int] | None = None, padding: Any = "VALID", base_dilation: Any = None, window_dilation: Any = None,
) -> md.Tensor:  # fmt: skip
    """The elements of each window joined by a function of two tensors. Dilations are not there: ValueError."""
    if any(d not in (None, 1) for d in (*(base_dilation or ()), *(window_dilation or ()))):
        raise ValueError("reduce_window: dilations are not there; x.at[::d].set, or md.max_pool with dilation=")
    x = md.asarray(operand)
    return of_lax.reduce_window(x, init_value, computation, window_dimensions, window_strides or (1,) * x.ndim, padding)


def _running(f: Callable[..., md.Tensor], name: str) -> Callable[..., md.Tensor]:
    def function(operand: Any, axis: int = 0, reverse: bool = False) -> md.Tensor:
        x = md.asarray(operand)
        x = md.flip(x, axis=axis) if reverse else x
        found = f(x, axis).to(x.dtype)
        return md.flip(found, axis=axis) if reverse else found

    function.__name__ = function.__qualname__ = name
    function.__doc__ = "A running reduction along an axis, in the dtype of the operand, from its other end if reversed."
    return function


cumsum, cumprod = _running(lambda x, a: md.cumulative_sum(x, axis=a), "cumsum"), _running(lambda x, a: md.cumulative_prod(x, axis=a), "cumprod")
cumlogsumexp = _running(lambda x, a: md.cumulative_logsumexp(x, axis=a), "cumlogsumexp")
cummax = _running(lambda x, a: of_jax.associative_scan(md.maximum, x, axis=a), "cummax")
cummin = _running(lambda x, a: of_jax.associative_scan(md.minimum, x, axis=a), "cummin")


def argmax(operand: Any, axis: int, index_dtype: Any = md.int64) -> md.Tensor:
    """md.argmax."""
    return md.argmax(md.asarray(operand), axis=axis).to(index_dtype)


def argmin(operand: Any, axis: int, index_dtype: Any = md.int64) -> md.Tensor:
    """md.argmin."""
    return md.argmin(md.asarray(operand), axis=axis).to(index_dtype)


def dot(lhs: Any, rhs: Any, *, dimension_numbers: Any = None, precision: Any = None, preferred_element_type: Any = None) -> md.Tensor:
    """A product of vectors and matrices, or dot_general."""
    a, b = md.asarray(lhs), md.asarray(rhs)
    numbers = (((a.ndim - 1,), (0,)), ((), ())) if dimension_numbers is None else dimension_numbers
    return of_lax.dot_general(a, b, numbers, precision, preferred_element_type)


def batch_matmul(lhs: Any, rhs: Any, precision: Any = None) -> md.Tensor:
    """md.matmul."""
    return md.matmul(lhs, rhs)


def platform_dependent(*args: Any, default: Callable[..., Any] | None = None, **per_platform: Callable[..., Any]) -> Any:
    """The function for the CPU, or the default one: what runs does so whatever the device."""
    f = per_platform.get("cpu", default)
    if f is None:
        raise ValueError("platform_dependent: there is neither cpu= nor default=")
    return f(*args)


_OWN = (
    FftType, Precision, RoundingMethod, approx_max_k, approx_min_k, clz, fft, shift_right_logical,
    argmax, argmin, batch_matmul, bitcast_convert_type, broadcast, broadcast_in_dim, broadcasted_iota, clamp, collapse, concatenate, cond,
    convert_element_type, div, dot, expand_dims, index_in_dim, index_take, integer_pow, iota, map, pad,
    platform_dependent, population_count,
    mulhi, reduce, reduce_precision, reduce_window, reduce_xor,
    rem, reshape, rev, scan, select, select_n, slice_in_dim, sort, sort_key_val, split, squeeze, switch,
)  # fmt: skip
_RENAMED = {
    "add": md.add, "sub": md.subtract, "mul": md.multiply, "neg": md.negative, "max": md.maximum, "min": md.minimum, "eq": md.equal,
    "ne": md.not_equal, "lt": md.less, "le": md.less_equal, "gt": md.greater, "ge": md.greater_equal, "erf_inv": md.erfinv, "is_finite": md.isfinite,
    "logistic": md.sigmoid, "bitwise_not": md.bitwise_invert, "shift_left": md.bitwise_left_shift, "complex": md.complex,
    "shift_right_arithmetic": md.bitwise_right_shift, "round": _round, "slice": _slice, "optimization_barrier": lambda operand: operand,
    "while_loop": spelled(md.while_loop, "cond_fun body_fun init_val:init"), "linalg": linalg, "igamma": special.gammainc,
    "igammac": special.gammaincc, "betainc": special.betainc, "zeta": special.zeta, "bessel_i0e": special.i0e, "bessel_i1e": special.i1e,
    "polygamma": special.polygamma, "cbrt": numpy.cbrt,
    "fori_loop": spelled(md.fori_loop, "lower upper body_fun init_val:init unroll"), "cumsum": cumsum, "cumprod": cumprod, "cummax": cummax,
    "cummin": cummin, "cumlogsumexp": cumlogsumexp, "full": arrays.full, "full_like": arrays.full_like, "transpose": shaping.transpose,
    "stack": shaping.stack, "reciprocal": md.reciprocal, "broadcast_shapes": md.broadcast_shapes, "tile": spelled(md.tile, "operand reps /"),
    **{f"reduce_{name}": _over(f, f"reduce_{name}") for name, f in {
        "sum": md.sum, "max": md.max, "min": md.min, "prod": md.prod, "and": md.all, "or": md.any,
    }.items()},
}  # fmt: skip
_SHARED = "dot_general dynamic_index_in_dim dynamic_slice dynamic_slice_in_dim dynamic_update_index_in_dim dynamic_update_slice"
NAMES: dict[str, Any] = {
    **{name: of_lax.NAMES[name] for name in (*_SHARED.split(), "dynamic_update_slice_in_dim")},
    **{f.__name__: f for f in _OWN}, **_RENAMED, **collectives.NAMES,
    **convolutions.NAMES, **gathering.NAMES, **solving.NAMES,
}  # fmt: skip
_SAME = """abs acos acosh asin asinh associative_scan atan atan2 atanh bitwise_and bitwise_or bitwise_xor ceil conj cos cosh digamma empty erf erfc
exp exp2 expm1 floor imag lgamma log log1p nextafter pow real rsqrt sign sin sinh sqrt square stop_gradient tan tanh top_k unstack"""
_ABSENT = {
    "with_sharding_constraint": "one program runs on one device",
    "rng_bit_generator": "jax.random.bits", "rng_uniform": "jax.random.uniform", "ragged_dot": "jax.numpy.matmul of each group",
}  # fmt: skip
__getattr__ = room(__name__, NAMES, (md,), _SAME, _ABSENT)


def __dir__() -> list[str]:
    return sorted({*(n for n in globals() if not n.startswith("_")), *NAMES, *_SAME.split()})
