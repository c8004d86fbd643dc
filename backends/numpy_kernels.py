"""The definitions of the primitives in NumPy: one function each, taking arrays and keyword params; what has none is its decomposition.

Where NumPy's own function has the meaning wanted, it is bound as it is. Promises: results have exactly the dtype of the primitive's rule; inputs are
never changed; 0-d results may be NumPy scalars. Beyond NumPy's values: x // 0 = x % 0 = 0 for integers, casts from float to integer saturate and
take nan to 0, a softmax row of -inf is 0, a negative integer power is 0. Floating-point warnings are the caller's business: SILENT kernels never
warn, NOISY ones may.
"""

from __future__ import annotations

import functools
import math
import operator
import weakref
from typing import Any

import numpy as np

from minidl import dtypes
from minidl.backends import numpy_linear, numpy_special  # noqa: F401  they register kernels, or have them
from minidl.backends.numpy_complex import COMPLEX, complex_pow
from minidl.backends.numpy_helpers import (
    NOISY,
    SILENT,
    Kernel,
    bounded,
    in_chunks,
    is_half,
    noisy,
    padded,
    select,
    silent,
    where,
    widened,
    zero_of,
)  # fmt: skip
from minidl.dtypes import DType
from minidl.graph import Equation

Array = np.ndarray

# ---- NumPy's functions that are the primitive, many by the same name -------------------------------------------------------------------------
for _name in "floor ceil trunc conj real isnan isinf isfinite signbit logical_not logical_and logical_or logical_xor copysign".split():
    SILENT[_name] = getattr(np, _name)
SILENT.update((n, getattr(np, n)) for n in ("bitwise_and", "bitwise_or", "bitwise_xor", "bitwise_invert"))
SILENT.update(neg=np.negative, shift_left=np.left_shift, shift_right=np.right_shift, eq=np.equal, ne=np.not_equal)
SILENT.update(where=where, barrier=lambda x, after: x)
for _name in """exp expm1 log log1p log2 log10 sqrt sin cos tan asin acos atan sinh cosh tanh asinh acosh atanh abs square add remainder maximum
minimum fmax fmin atan2 hypot logaddexp""".split():
    NOISY[_name] = getattr(np, _name)
NOISY.update(sub=np.subtract, mul=np.multiply, div=np.divide)
NOISY.update(lt=np.less, le=np.less_equal, gt=np.greater, ge=np.greater_equal)  # comparisons warn for a bfloat16 nan
NOISY.update(erf=numpy_special.erf, erfc=numpy_special.erfc, erfinv=numpy_special.erfinv)


@functools.cache
def _number(value: int, dtype: np.dtype) -> Array:
    return np.array(value, dtype)


@noisy
def sign(x: Array, out: Array | None = None) -> Array:
    """np.sign, without the sign that ml_dtypes leaves a zero in bfloat16."""
    found = np.sign(x, out=out)
    return found if x.dtype.kind != "V" else np.add(found, zero_of(x.dtype), out=out)


# ---- elementwise ----------------------------------------------------------------------------------------------------------------------
@noisy
def floor_divide(x: Array, y: Array) -> Array:
    """Where an operand is infinite, the floor of the quotient, as the Array API prefers; NumPy has Python's //, which is nan or -1 there."""
    out = np.floor_divide(x, y)
    if x.dtype.kind in "iu":
        return out
    infinite = np.isinf(x) | np.isinf(y)
    return np.where(infinite, np.floor(np.divide(x, y)), out) if infinite.any() else out


@noisy
def nextafter(x: Array, y: Array) -> Array:
    """Of equal numbers the second one, so that zeros of both signs give the target's; NumPy's of float16 gives the first."""
    out = np.nextafter(x, y)
    return np.where(np.equal(x, y), y, out) if x.dtype == np.float16 else out


@noisy
def rsqrt(x: Array) -> Array:
    return np.reciprocal(np.sqrt(x))


#: From here on the sigmoid is 1 in every dtype, and exp overflows in none but half precision.
_ONE_FROM = 88


@in_chunks
def _sigmoid(x: Array, out: Array) -> None:
    t = bounded(x, -np.inf, _number(_ONE_FROM, x.dtype))
    np.exp(t, out=t)
    np.divide(t, np.add(t, _number(1, x.dtype), out=out), out=out)  # loses no digits on either side


@noisy
def sigmoid(x: Array, out: Array | None = None) -> Array:
    if x.dtype.kind != "c":
        return _sigmoid(x, out)
    right = x.real >= 0
    z = np.exp(np.where(right, -x, x))  # never overflows
    return np.divide(np.where(right, x.dtype.type(1), z), 1 + z, out=out)


@noisy
def relu(x: Array, out: Array | None = None) -> Array:
    zero = zero_of(x.dtype)
    if x.size < 4096 or x.dtype.char not in "fd":
        return np.maximum(x, zero, out=out)
    found = np.clip(x, zero, np.inf, out=out)  # see bounded; + 0.0 for the sign
    return np.add(found, zero, out=found)


@noisy
def relu_dx(g: Array, out: Array) -> Array:
    return select(np.greater(out, 0), g, zero_of(g.dtype), np.empty_like(g))


@noisy
def clip_dx(g: Array, x: Array, lo: Array, hi: Array) -> Array:
    inside = (np.greater(x, lo) | (lo == -np.inf)) & (np.less(x, hi) | (hi == np.inf))
    return select(inside, g, zero_of(g.dtype), np.empty_like(g))


@noisy
@in_chunks
def softplus(x: Array, out: Array) -> None:
    z = np.abs(x)
    np.log1p(np.exp(np.negative(z, out=z), out=z), out=z)
    np.add(relu(x, out), z, out=out)


@silent
def round_(x: Array) -> Array:
    return x.copy() if x.dtype.kind in "iu" else np.rint(x)


@silent
def imag(x: Array) -> Array:
    return x.imag if x.dtype.kind == "c" else np.zeros_like(x)  # np.imag of reals may not be written to


@noisy
def pow_(x: Array, y: Array) -> Array:
    if x.dtype.kind == "c":
        return complex_pow(x, np.asarray(y, x.dtype))
    if np.asarray(y).dtype.kind != "i":
        return np.power(x, y)
    negative = np.less(y, 0)
    return np.where(negative, zero_of(x.dtype), np.power(x, np.where(negative, zero_of(x.dtype), y)))


@noisy
def xlogy(x: Array, y: Array) -> Array:
    return np.where((x == 0) & ~np.isnan(y), zero_of(x.dtype), x * np.log(y))


@noisy
def clip(x: Array, lo: Array, hi: Array) -> Array:
    return bounded(x, lo, hi)


@noisy
def cast(x: Array, *, dtype: DType) -> Array:
    target = dtype.numpy
    if dtype is dtypes.bool_:
        return np.not_equal(x, zero_of(x.dtype))
    if x.dtype.kind == "c" and not dtype.is_complex:
        x = x.real
    if not dtype.is_integer or x.dtype.kind in "iub":
        return x.astype(target)
    if is_half(x.dtype):
        x = x.astype(np.float32)
    bounds = np.iinfo(target)
    low, high = (
        np.less(x, float(bounds.min)),
        np.greater_equal(x, 2.0 ** (dtype.bits - (dtype.kind == "int"))),
    )  # a float holds max + 1 exactly, not max
    kept = np.where(low | high | np.isnan(x), zero_of(x.dtype), x).astype(target)
    return np.where(high, target.type(bounds.max), np.where(low, target.type(bounds.min), kept))


@silent
def bitcast(x: Array, *, dtype: DType) -> Array:
    return x.view(dtype.numpy)


# ---- creation -------------------------------------------------------------------------------------------------------------------------
@silent
def full(*, shape: tuple[int, ...], value: Any, dtype: DType) -> Array:
    out = np.empty(shape, dtype.numpy)
    if isinstance(value, (int, float)) and -65504 <= value <= 65504:
        out.fill(value)
        return out
    with np.errstate(over="ignore", invalid="ignore"):  # a number may be larger than the dtype's largest, which makes it infinite
        out.fill(value)
    return out


@silent
def iota(*, size: int, dtype: DType) -> Array:
    return np.arange(size, dtype=dtype.numpy)  # an integer that is too large wraps around


# ---- reductions and running sums ------------------------------------------------------------------------------------------------------
def _reduction(ufunc: np.ufunc, widen: bool = False) -> Kernel:
    reduce = ufunc.reduce

    def kernel(x: Array, *, axis: tuple[int, ...], keepdims: bool) -> Array:
        if widen and is_half(x.dtype):
            return reduce(x, axis=axis, keepdims=keepdims, dtype=np.float32).astype(x.dtype)
        return reduce(x, axis=axis, keepdims=keepdims, dtype=x.dtype)  # NumPy would widen small integers

    return kernel


_TALL, _WIDTH = 1024, 1024  # rows from which on they are added up by many at a time, elements of so many


def _tall_sum(x: Array, axis: tuple[int, ...], dtype: np.dtype) -> Array | None:
    """The sum with all axes kept, where the first of those that it is over are long and what follows them has few elements: NumPy takes a loop for
    each row and adds up one after the other; here rows that hold many of those are added up by the hundred, in a tenth of the time, and errors grow
    with the logarithm of their number. None where NumPy does as well."""
    if not x.flags.c_contiguous:
        if not x.flags.f_contiguous:
            return None
        total = _tall_sum(x.T, tuple(x.ndim - 1 - a for a in reversed(axis)), dtype)
        return None if total is None else total.T
    end = axis[0] + 1
    while end in axis:
        end += 1
    shape, n, width = x.shape, math.prod(x.shape[axis[0] : end]), math.prod(x.shape[end:])
    if n < _TALL or not 1 < width <= _WIDTH // 4:
        return None
    x, many = x.reshape(-1, n, width), _WIDTH // width
    whole = n // many * many
    total = _by_hundreds(x[:, :whole].reshape(-1, n // many, many * width), dtype).reshape(-1, many, width)
    total = np.add.reduce(total, axis=1, dtype=dtype)
    if whole < n:
        total += np.add.reduce(x[:, whole:], axis=1, dtype=dtype)
    total = total.reshape(*shape[: axis[0]], *(1,) * (end - axis[0]), *shape[end:])
    return total if axis[-1] < end else np.add.reduce(total, axis=axis, keepdims=True, dtype=dtype)


def _by_hundreds(x: Array, dtype: np.dtype) -> Array:
    n = x.shape[1] // 128 * 128
    if n <= 256:
        return np.add.reduce(x, axis=1, dtype=dtype)
    total = _by_hundreds(np.add.reduce(x[:, :n].reshape(len(x), -1, 128, x.shape[2]), axis=2, dtype=dtype), dtype)
    if n < x.shape[1]:
        total += np.add.reduce(x[:, n:], axis=1, dtype=dtype)
    return total


_add_up = _reduction(np.add, True)


def _sum(x: Array, *, axis: tuple[int, ...], keepdims: bool) -> Array:
    if x.size < 2 * _TALL or not 0 < len(axis) < x.ndim:
        return _add_up(x, axis=axis, keepdims=keepdims)
    total = _tall_sum(x, axis, np.dtype(np.float32) if is_half(x.dtype) else x.dtype)
    if total is None:
        return _add_up(x, axis=axis, keepdims=keepdims)
    total = total if keepdims else total.reshape([n for a, n in enumerate(total.shape) if a not in axis])
    return total.astype(x.dtype) if is_half(x.dtype) else total


def _running(ufunc: np.ufunc, widen: bool = False) -> Kernel:
    def kernel(x: Array, *, axis: int, reverse: bool) -> Array:
        if reverse:
            return np.flip(kernel(np.flip(x, axis), axis=axis, reverse=False), axis)
        if widen and is_half(x.dtype):
            return ufunc.accumulate(x, axis=axis, dtype=np.float32).astype(x.dtype)
        if ufunc is np.add and x.dtype == np.float32 and x.shape[axis] > 4096:  # one after the other, which in float32 loses digits
            return ufunc.accumulate(x, axis=axis, dtype=np.float64).astype(x.dtype)
        return ufunc.accumulate(x, axis=axis, dtype=x.dtype)

    return kernel


NOISY.update(
    sum=_sum, prod=_reduction(np.multiply, True), max=_reduction(np.maximum), min=_reduction(np.minimum),
    cumsum=_running(np.add, True), cumprod=_running(np.multiply, True), cummax=_running(np.maximum), cummin=_running(np.minimum),
    cumlogsumexp=widened(_running(np.logaddexp)),
)  # fmt: skip
SILENT.update(any=_reduction(np.logical_or), all=_reduction(np.logical_and))


def _shift(x: Array, axis: Any) -> tuple[Array, Array]:
    """The maximum along axis, and x minus it wherever that is finite, so that exp cannot overflow; elsewhere x itself."""
    high = np.maximum.reduce(x, axis=axis, keepdims=True, initial=-np.inf)
    return high, x - np.where(np.isfinite(high), high, zero_of(x.dtype))


@noisy
@widened
def logsumexp(x: Array, *, axis: tuple[int, ...], keepdims: bool) -> Array:
    high, shifted = _shift(x, axis)
    out = np.log(np.add.reduce(np.exp(shifted), axis=axis, keepdims=True)) + np.where(np.isfinite(high), high, zero_of(x.dtype))
    return out if keepdims else np.squeeze(out, axis)


@noisy
@widened
def softmax(x: Array, *, axis: int) -> Array:
    high, shifted = _shift(x, axis)
    e = np.exp(shifted)
    if np.isinf(high).any():  # the limit: +inf takes all, evenly; a row of -inf has nothing to give
        e = np.where(high == np.inf, (x == np.inf).astype(x.dtype), e)
    total = np.add.reduce(e, axis=axis, keepdims=True)
    e /= np.where(total == 0, np.ones((), x.dtype), total)
    return e


@noisy
@widened
def log_softmax(x: Array, *, axis: int) -> Array:
    high, shifted = _shift(x, axis)
    if np.isinf(high).any():
        shifted = np.where(high == np.inf, np.where(np.isnan(x), x, np.where(x == np.inf, zero_of(x.dtype), x.dtype.type(-np.inf))), shifted)
    total = np.add.reduce(np.exp(shifted), axis=axis, keepdims=True)
    shifted -= np.log(np.where(total == 0, np.ones((), x.dtype), total))
    return shifted


def _sortable(x: Array) -> Array:
    return x.astype(np.float32) if is_half(x.dtype) else x  # ml_dtypes does not know where to put a nan


@noisy
def argmax(x: Array, *, axis: int, keepdims: bool) -> Array:
    return np.argmax(_sortable(x), axis=axis, keepdims=keepdims)


@noisy
def argmin(x: Array, *, axis: int, keepdims: bool) -> Array:
    return np.argmin(_sortable(x), axis=axis, keepdims=keepdims)


@noisy
def argsort(x: Array, *, axis: int, descending: bool) -> Array:
    x = _sortable(x)
    if not descending:
        return np.argsort(x, axis=axis, kind="stable")
    return x.shape[axis] - 1 - np.flip(np.argsort(np.flip(x, axis), axis=axis, kind="stable"), axis)  # flipped twice: ties stay in index order


@noisy
def argtopk(x: Array, *, axis: int, k: int, largest: bool) -> Array:
    """By a partition, in which k + 1 places tell the rows where their order is the only one; the others are sorted."""
    rows, n = np.moveaxis(_sortable(x), axis, -1), x.shape[axis]
    if 4 * k >= n:
        return argsort(x, axis=axis, descending=largest).take(np.arange(k), axis)
    kth = n - 1 - k if largest else k
    some = np.argpartition(rows, kth, axis=-1)[..., slice(kth, None) if largest else slice(k + 1)]
    some = np.take_along_axis(some, np.argsort(np.take_along_axis(rows, some, -1), axis=-1), -1)
    values, places = np.take_along_axis(rows, some, -1), some[..., :0:-1] if largest else some[..., :k]
    if not (sure := (values[..., :-1] < values[..., 1:]).all(-1)).all():
        places[~sure] = argsort(rows[~sure], axis=-1, descending=largest)[..., :k]
    return np.moveaxis(places, -1, axis)


# ---- structure ------------------------------------------------------------------------------------------------------------------------
@silent
def reshape(x: Array, *, shape: tuple[int, ...]) -> Array:
    return x.reshape(shape)


@silent
def permute(x: Array, *, axes: tuple[int, ...]) -> Array:
    return x.transpose(axes)


@silent
def broadcast_to(x: Array, *, shape: tuple[int, ...]) -> Array:
    if x.size <= 64 and functools.reduce(operator.mul, shape, 1) <= 65536:  # copying 64 KB costs less than np.broadcast_to's own 2.3 µs
        out = np.empty(shape, x.dtype)
        out[...] = x
        return out
    return np.broadcast_to(x, shape)


@silent
def flip(x: Array, *, axes: tuple[int, ...]) -> Array:
    return np.flip(x, axes)


@silent
def concat(*xs: Array, axis: int) -> Array:
    return np.concatenate(xs, axis=axis)


@silent
def slice_(x: Array, *, start: tuple[int, ...], stop: tuple[int, ...], step: tuple[int, ...]) -> Array:
    return x[tuple(map(slice, start, stop, step))]


@silent
def unslice(x: Array, *, shape: tuple[int, ...], start: tuple[int, ...], stop: tuple[int, ...], step: tuple[int, ...]) -> Array:
    out = np.zeros(shape, x.dtype)
    out[tuple(map(slice, start, stop, step))] = x
    return out


@silent
def paste(x: Array, v: Array, *, start: tuple[int, ...], stop: tuple[int, ...], step: tuple[int, ...]) -> Array:
    out = x.copy()
    out[tuple(map(slice, start, stop, step))] = v
    return out


def add_at_slice(held: dict[int, Any], n: int, x: Array, start: tuple[int, ...], stop: tuple[int, ...], step: tuple[int, ...]) -> None:
    """held[n] += unslice(x), in place once the sum is one that was made here: held[~n] says of which that is so, in this pass alone."""
    total, mine = held[n], held.get(~n)
    if mine is None or mine() is not total:  # another cotangent may be the same array, or show it
        held[n] = total = np.add(total, np.zeros((), total.dtype))  # as what is added beside the slice: no zero stays negative
        held[~n] = weakref.ref(total)  # weak, so that it goes with the last that needs it
    part = total[tuple(map(slice, start, stop, step))]
    np.add(part, x, out=part)


@silent
def pad(x: Array, *, widths: tuple[tuple[int, int], ...], value: complex) -> Array:
    out = padded(x, widths, value)  # type: ignore[arg-type]
    return x.copy() if out is x else out


@silent
def tril(x: Array, *, k: int) -> Array:
    return np.tril(x, k)


@silent
def triu(x: Array, *, k: int) -> Array:
    return np.triu(x, k)


KERNELS = SILENT | NOISY  # those of numpy_linear among them


def kernel_of(equation: Equation) -> Kernel | None:
    """The kernel of an equation; some are others for complex numbers."""
    name = equation.primitive.name
    return COMPLEX[name] if name in COMPLEX and equation.inputs[0].dtype.is_complex else KERNELS.get(name)


def _either(name: str) -> Kernel:
    f, other = NOISY[name], COMPLEX[name]
    return functools.wraps(f, ("__name__", "__doc__"), ())(lambda x: other(x) if x.dtype.kind == "c" else f(x))


#: What single operations call where a program looks at dtypes beforehand.
EAGER = {name: _either(name) for name in COMPLEX}
#: What the reverse pass calls, of primitives that programs take apart.
STEPS: dict[str, Kernel] = {}


def _step(f: Kernel) -> None:
    wide = widened(f)
    STEPS[f.__name__] = lambda g, y: f(g, y) if y.dtype.itemsize != 2 else wide(g, y)


@_step
def tanh_dx(g: Array, y: Array) -> Array:
    return np.multiply(g, np.subtract(_number(1, y.dtype), np.multiply(y, y)))


@_step
def sigmoid_dx(g: Array, y: Array) -> Array:
    return np.multiply(g, np.multiply(y, np.subtract(_number(1, y.dtype), y)))
