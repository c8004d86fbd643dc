"""The primitives of single elements in PyTorch: torch's own functions where they mean what the table says, and the difference where they do not.

Promises: results have exactly the dtype of the primitive's rule; arguments are never changed, but results may show their memory; the second
operand of a function of two arrays may be a Python scalar, as derivative rules write it.

torch has next to no arithmetic on uint16, uint32 and uint64. The same bits viewed as signed integers do it: sums, products and moves are the
same modulo 2**n, and with the sign bit flipped the order is the same, too.
"""

from __future__ import annotations

import cmath
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from minidl import dtypes
from minidl.backends import complex_values
from minidl.backends.torch_linear import MANY, SIGNED, WORDS, halved, unseen
from minidl.dtypes import DType
from minidl.primitives.core import table

Tensor = torch.Tensor
Kernel = Callable[..., Any]

NATIVE: dict[DType, torch.dtype] = {d: getattr(torch, d.name) for d in dtypes.all_dtypes}
LOWEST = {s: torch.iinfo(s).min for s in SIGNED.values()}
#: Every primitive's function by name.
KERNELS: dict[str, Kernel] = {}


# ---- unsigned integers ----------------------------------------------------------------------------------------------------------------
def _ordered(x: Tensor, signed: torch.dtype) -> Tensor:
    """Signed integers in the order of these unsigned ones; on signed ones, the way back."""
    return x.view(signed).bitwise_xor(LOWEST[signed])


def as_signed(fn: Kernel, mode: str, args: tuple, params: dict) -> Any:
    """fn on unsigned arrays. mode: "ring" for arithmetic modulo 2**n and moves, "order" for a choice of values, "rank" for an answer about
    order, "same" for what does nothing to unsigned integers."""
    if mode == "same":
        return args[0]
    some = next(a for a in args if isinstance(a, Tensor) and a.dtype in SIGNED)
    dtype, signed = some.dtype, SIGNED[some.dtype]

    def there(a: Any) -> Any:
        if not isinstance(a, Tensor):
            a = torch.tensor(a, dtype=dtype, device=some.device)
        elif a.dtype is not dtype:
            return a
        return a.view(signed) if mode == "ring" else _ordered(a, signed)

    out = fn(*map(there, args), **params)
    if mode == "rank":
        return out
    return out.view(dtype) if mode == "ring" else _ordered(out, signed).view(dtype)


def _late(fn: Kernel, mode: str) -> Kernel:
    """A torch function that refuses unsigned integers: tried first, since a try costs nothing."""

    def call(*args: Any) -> Any:
        try:
            return fn(*args)
        except RuntimeError:
            if not any(isinstance(a, Tensor) and a.dtype in SIGNED for a in args):
                raise
            return as_signed(fn, mode, args, {})

    return call


def early(mode: str) -> Callable[[Kernel], Kernel]:
    """A kernel whose first array may be unsigned, where torch might accept it and be wrong, or is slow to refuse."""

    def decorate(fn: Kernel) -> Kernel:
        @functools.wraps(fn)
        def call(x: Tensor, *more: Any, **params: Any) -> Any:
            return fn(x, *more, **params) if x.dtype not in SIGNED else as_signed(fn, mode, (x, *more), params)

        return call

    return decorate


def kernel(fn: Kernel) -> Kernel:
    """Register fn under its name."""
    KERNELS[fn.__name__.rstrip("_")] = fn
    return fn


# ---- elementwise ----------------------------------------------------------------------------------------------------------------------
#: How torch's functions do on unsigned integers: by a mode of as_signed where they may refuse, or never meeting any.
_MODES: dict[str, str | None] = dict.fromkeys(
    "exp expm1 log log1p log2 log10 sqrt rsqrt sin cos tan asin acos atan sinh cosh tanh asinh acosh atanh sigmoid erf erfc erfinv div"
    " signbit atan2 hypot logaddexp copysign nextafter xlogy logical_not logical_and logical_or logical_xor".split()
)
_MODES |= dict.fromkeys("neg square add sub mul where bitwise_and bitwise_or bitwise_xor bitwise_invert".split(), "ring")
_COMPARISONS = "eq ne lt le gt ge".split()
_MODES |= dict.fromkeys("maximum minimum fmax fmin".split(), "order") | dict.fromkeys(_COMPARISONS, "rank")
_MODES |= dict.fromkeys("abs floor ceil round trunc".split(), "same")
#: Functions that are the primitive as they stand, unsigned integers apart, and that take `out=`.
PLAIN: dict[str, Kernel] = {n: getattr(torch, {"bitwise_invert": "bitwise_not"}.get(n, n)) for n in _MODES}
#: The same as methods, which torch finds sooner: for those of one array.
METHODS: dict[str, Kernel] = {n: getattr(Tensor, f.__name__) for n, f in PLAIN.items() if len(table[n].args) == 1}


def _is_zero(a: Any) -> bool:
    a = as_number(a)
    return a.__class__ is float and a == 0.0 and math.copysign(1.0, a) > 0


def _are_many(a: Any) -> bool:
    return a.__class__ is Tensor and a.numel() >= MANY and a.is_floating_point() and not a.is_cuda


def spreads(shape: Sequence[int], wide: Sequence[int]) -> bool:
    """Whether an array of one shape broadcasts to another one."""
    return len(shape) <= len(wide) and all(n in (1, m) for n, m in zip(shape[::-1], wide[::-1], strict=False))


def as_number(a: Any) -> Any:
    """A 0-d array on the CPU as the number that it is, for functions that are quicker with numbers."""
    return a.item() if a.__class__ is Tensor and not a.ndim and a.is_cpu else a


_UNFORESEEN = 2**14  # elements from which on branches that nobody foresees cost more than four passes over float32


def where(c: Tensor, x: Any, y: Any, out: Tensor | None = None) -> Tensor:
    """torch.where, which branches on every element; where one side is 0, the bits of the other one with a mask do the same."""
    kept = x if _are_many(x) and _is_zero(y) else y if _are_many(y) and _is_zero(x) else None
    if kept is not None and spreads(c.shape, kept.shape):
        words, mask = WORDS[kept.dtype.itemsize], c.view(torch.int8)
        mask = mask.neg() if kept is x else mask.sub(1)
        if out is None:
            return torch.bitwise_and(kept.view(words), mask).view(kept.dtype)
        torch.bitwise_and(kept.view(words), mask, out=out.view(words))
        return out
    full = (a.__class__ is Tensor and a.dtype is torch.float32 and (a.shape == c.shape or not a.ndim) for a in (x, y))
    if c.numel() >= _UNFORESEEN and c.is_cpu and not unseen(c) and all(full):
        b = y.view(torch.int32)
        chosen = c.view(torch.int8).neg().to(torch.int32).bitwise_and_(torch.bitwise_xor(x.view(torch.int32), b))
        if out is None:
            return chosen.bitwise_xor_(b).view(torch.float32)
        torch.bitwise_xor(chosen, b, out=out.view(torch.int32))  # which may be x or y
        return out
    return torch.where(c, x, y) if out is None else torch.where(c, x, y, out=out)


_NARROW = frozenset((torch.float32, torch.float16, torch.bfloat16, torch.int32))


def _comparison(op: Kernel) -> Kernel:
    """torch's comparison, which makes its bools one at a time; as integers, while they stay in the cache, in a third of the time."""

    def compare(x: Any, y: Any, out: Tensor | None = None) -> Tensor:
        quick = x.__class__ is Tensor and _UNFORESEEN <= x.numel() <= 2**21 and x.dtype in _NARROW and x.is_cpu and x.is_contiguous()
        if quick and (y.__class__ is not Tensor or (y.is_contiguous() and spreads(y.shape, x.shape))):
            into = torch.empty_like(x, dtype=torch.int8) if out is None else out.view(torch.int8)
            return op(x, y, out=into).view(torch.bool) if out is None else (op(x, y, out=into), out)[1]
        return op(x, y) if out is None else op(x, y, out=out)

    return compare


def _dx(op: Any, steps: Kernel) -> Kernel:
    """torch's derivative in one pass; by steps for complex numbers, which torch conjugates."""
    call, into = (getattr(f, "_op", f) for f in (op.default, op.grad_input))  # itself, without the Python in front of it

    def dx(g: Tensor, y: Tensor, out: Tensor | None = None) -> Tensor:
        if y.is_complex():
            return torch.mul(g, steps(y), out=out)
        return call(g, y) if out is None else into(g, y, grad_input=out)

    return dx


def tanh(x: Tensor, out: Tensor | None = None) -> Tensor:
    """torch.tanh, or NumPy's where MKL has kernels for another processor: from a third to a twelfth of the time, within 1.4 ulp."""
    if x.numel() < 1024 or x.dtype is not torch.float32 or not x.is_cpu or unseen(x) or not halved() or torch.get_num_threads() > 8:
        return x.tanh() if out is None else torch.tanh(x, out=out)
    out = torch.empty_like(x) if out is None else out
    np.tanh(x.numpy(force=True), out=out.numpy())
    return out


METHODS["tanh"] = tanh
PLAIN.update(where=where, tanh=tanh, **{n: _comparison(PLAIN[n]) for n in _COMPARISONS})
PLAIN["tanh_dx"] = _dx(torch.ops.aten.tanh_backward, lambda y: 1.0 - y * y)
PLAIN["sigmoid_dx"] = _dx(torch.ops.aten.sigmoid_backward, lambda y: y * (1.0 - y))
_MODES.update(tanh_dx=None, sigmoid_dx=None)
KERNELS.update((n, _late(PLAIN[n], mode) if mode else PLAIN[n]) for n, mode in _MODES.items())
KERNELS.update(isnan=torch.isnan, isinf=torch.isinf, isfinite=torch.isfinite, relu=_late(torch.relu, "same"))


@kernel
def sign(x: Tensor) -> Tensor:
    """torch.sign(nan) is 0; minidl's is nan."""
    if x.is_floating_point():
        if x.numel() >= MANY and x.is_cpu and not unseen(x) and not math.isnan(x.sum().item()):
            return torch.sign(x)  # a sum costs less than a choice
        return torch.where(x == x, torch.sign(x), x)
    if x.is_complex():
        return _complex_sign(x)
    return (x != 0).to(x.dtype) if x.dtype in SIGNED else torch.sign(x)


@kernel
def softplus(x: Tensor) -> Tensor:
    """log(1 + exp(x)); from 40 on it is x itself in every float dtype (torch's usual threshold, 20, is too low for float64)."""
    return torch._C._nn.softplus(x, 1.0, 40.0)


# ---- complex numbers ------------------------------------------------------------------------------------------------------------------
def _split(x: Tensor) -> tuple[Tensor, Tensor]:
    return x.real, x.imag


_TOOLS = {n: getattr(torch, n) for n in complex_values.TOOLS if n != "full"}
_TOOLS["full"] = lambda like, value: torch.full((), value, dtype=like.dtype, device=like.device)
#: Kernels for complex numbers where torch's function has other values than the standard's.
COMPLEX = complex_values.kernels(_TOOLS, {n: PLAIN[n] for n in ("acos", "expm1", "log1p", "tan", "tanh")}, _split, torch.complex)
_sign_parts = complex_values.bound(_TOOLS)["sign"]
_complex_pow = complex_values.raised(_TOOLS, torch.pow, torch.log, torch.exp, _split, torch.complex)


def _complex_sigmoid(x: Tensor) -> Tensor:
    """Of what does not overflow."""
    right = x.real >= 0
    z = torch.exp(torch.where(right, -x, x))
    return torch.where(right, torch.ones_like(z), z) / (z + 1)


COMPLEX["sigmoid"] = _complex_sigmoid
COMPLEX["neg"] = lambda x: torch.view_as_complex(torch.neg(torch.view_as_real(x.resolve_conj())))  # torch's of many takes them from 0, which is +0
COMPLEX["round"] = lambda x: torch.complex(torch.round(x.real), torch.round(x.imag))


def _either(name: str) -> Kernel:
    f, other = KERNELS[name], COMPLEX[name]
    return functools.wraps(f)(lambda x: other(x) if x.is_complex() else f(x))


KERNELS.update((name, _either(name)) for name in COMPLEX)


def _by_parts(f: Kernel, plain: Kernel) -> Kernel:
    """x + y or x - y: torch multiplies complex operands by a complex 1 first, which makes NaN of infinities."""

    def call(x: Any, y: Any) -> Tensor:
        like = x if x.__class__ is Tensor else y
        if not like.is_complex():
            return plain(x, y)
        x, y = (v if isinstance(v, Tensor) else torch.full((), v, dtype=like.dtype, device=like.device) for v in (x, y))
        return torch.view_as_complex(f(torch.view_as_real(x.resolve_conj()), torch.view_as_real(y.resolve_conj())))

    return call


#: Sums of numbers with a sign.
SUMS = {name: _by_parts(PLAIN[name], PLAIN[name]) for name in ("add", "sub")}
for _name, _f in SUMS.items():
    COMPLEX[_name] = KERNELS[_name] = functools.wraps(PLAIN[_name])(_by_parts(PLAIN[_name], KERNELS[_name]))


def _complex_sign(x: Tensor) -> Tensor:
    out = torch.sgn(x)
    if x.is_cpu and not unseen(x) and cmath.isfinite(x.sum().item()):
        return out
    return torch.complex(*_sign_parts(*_split(out), *_split(x)))


# ---- integers and division ------------------------------------------------------------------------------------------------------------
def _divide_integers(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Floor quotient and remainder with 0 for a zero divisor. The native division traps on zero and on lowest / -1."""
    dtype, zero = x.dtype, y == 0
    if dtype is torch.uint64:
        a, b = x.view(torch.int64), y.view(torch.int64)
        large = b < 0  # 2**63 and more: the quotient is 0 or 1
        safe = b.masked_fill(zero | large, 1)
        half = torch.floor_divide(a.bitwise_right_shift(1).bitwise_and(2**63 - 1), safe).bitwise_left_shift(1)
        q = half + (_ordered(a - half * safe, torch.int64) >= _ordered(safe, torch.int64))
        q = torch.where(large, (_ordered(a, torch.int64) >= _ordered(b, torch.int64)).to(torch.int64), q)
        q = torch.where(zero, 0, q)
        return q.view(dtype), torch.where(zero, 0, a - q * b).view(dtype)
    if dtype in SIGNED:
        q, r = _divide_integers(x.to(torch.int64), y.to(torch.int64))
        return q.to(dtype), r.to(dtype)
    minus = y == -1 if dtype is not torch.uint8 else torch.zeros_like(zero)
    safe = y.masked_fill(zero | minus, 1)
    q = torch.where(minus, torch.neg(x), torch.floor_divide(x, safe))
    return torch.where(zero, 0, q), torch.remainder(x, safe)


@kernel
def floor_divide(x: Tensor, y: Tensor) -> Tensor:
    """Where an operand is infinite, the floor of the quotient; torch's is nan or -1 there."""
    if not x.is_floating_point():
        return _divide_integers(x, y)[0]
    return torch.where(torch.isinf(x) | torch.isinf(y), torch.floor(x / y), torch.floor_divide(x, y))


@kernel
def remainder(x: Tensor, y: Tensor) -> Tensor:
    """A zero remainder has the sign of the divisor."""
    if not x.is_floating_point():
        return _divide_integers(x, y)[1]
    r = torch.remainder(x, y)
    return torch.where(r == 0, torch.copysign(r, y), r)


@kernel
def pow_(x: Tensor, y: Any) -> Tensor:
    """Integers: modulo 2**n, and 0 for a negative exponent."""
    y = y if isinstance(y, Tensor) else torch.tensor(y, dtype=x.dtype, device=x.device)  # by a number torch computes some powers otherwise
    if x.is_floating_point():
        return torch.pow(x, y)
    if x.is_complex():
        return _complex_pow(x, y)
    if x.dtype not in SIGNED:
        return torch.pow(x, y) if x.dtype is torch.uint8 else torch.where(y < 0, 0, torch.pow(x, y.clamp(min=0)))
    base, bits = x.view(SIGNED[x.dtype]), y.view(SIGNED[x.dtype])
    out = torch.ones_like(base)
    for i in range(x.dtype.itemsize * 8):
        out = torch.where(bits.bitwise_right_shift(i).bitwise_and(1) == 1, out * base, out)
        base = base * base
    return out.view(x.dtype)


@kernel
def shift_left(x: Tensor, y: Tensor) -> Tensor:
    signed = SIGNED.get(x.dtype)
    return torch.bitwise_left_shift(x.view(signed), y.view(signed)).view(x.dtype) if signed else torch.bitwise_left_shift(x, y)


@kernel
def shift_right(x: Tensor, y: Tensor) -> Tensor:
    """Arithmetic for signed integers, logical for unsigned ones."""
    signed = SIGNED.get(x.dtype)
    if not signed:
        return torch.bitwise_right_shift(x, y)
    if signed is not torch.int64:  # one step wider the sign bit is free
        return torch.bitwise_right_shift(x.to(torch.int64), y.to(torch.int64)).to(x.dtype)
    a, n = x.view(signed), y.view(signed)
    low = torch.bitwise_right_shift(a.bitwise_right_shift(1).bitwise_and(2**63 - 1), n - 1)
    return torch.where(n == 0, a, torch.where((n < 0) | (n > 63), 0, low)).view(x.dtype)


@kernel
def real(x: Tensor) -> Tensor:
    return x.real


@kernel
def imag(x: Tensor) -> Tensor:
    return x.imag if x.is_complex() else torch.zeros_like(x)


@kernel
def conj(x: Tensor) -> Tensor:
    """In memory: torch's lazy conjugate cannot leave torch."""
    return torch.conj_physical(x) if x.is_complex() else x


@kernel
@early("order")
def clip(x: Tensor, lo: Any, hi: Any) -> Tensor:
    if x.numel() >= MANY and x.is_cpu and not unseen(x):
        lo, hi = as_number(lo), as_number(hi)
    if isinstance(lo, Tensor) is not isinstance(hi, Tensor):
        lo, hi = (b if isinstance(b, Tensor) else torch.tensor(b, dtype=x.dtype, device=x.device) for b in (lo, hi))
    return torch.clamp(x, lo, hi)


def _saturate(x: Tensor, native: torch.dtype) -> Tensor:
    """Float to integer: the nearest representable integer towards zero, nan to 0. The plain conversion wraps, or is undefined."""
    low, high = torch.iinfo(native).min, torch.iinfo(native).max
    if x.is_cpu and native not in SIGNED and x.numel() and not unseen(x):
        least, most = torch.aminmax(x)  # either is nan where an element is
        if low <= least.item() and most.item() < high + 1.0:
            return x.to(native)
    if native not in (torch.int64, torch.uint64):
        return x.to(torch.float64).nan_to_num(0.0, float(high), float(low)).clamp_(low, high).to(torch.int64).to(native)
    x = x if x.dtype is torch.float64 else x.float()
    over = x >= float(high + 1)  # high itself is no float
    safe = torch.where(over | ~(x >= low), 0.0, x)
    if native is torch.int64:
        return torch.where(over, high, torch.where(x < low, low, safe.to(native)))
    upper = safe >= 2.0**63
    part = torch.where(upper, safe - 2.0**63, safe).to(torch.int64)
    return torch.where(over, -1, torch.where(upper, part ^ LOWEST[torch.int64], part)).view(native)


@functools.cache
def caster(source: torch.dtype, target: torch.dtype) -> Callable[[Tensor], Tensor]:
    """The function that converts arrays of one dtype to another."""
    if source.is_complex and not target.is_complex:
        if target is torch.bool:
            return lambda x: x != 0
        if target is source.to_real():
            return lambda x: x.real.clone()  # a cast is new memory, in which programs put results; x.real alone is a view
        return lambda x: caster(source.to_real(), target)(x.real)
    if source.is_floating_point and not (target.is_floating_point or target.is_complex or target is torch.bool):
        return lambda x: _saturate(x, target)
    return lambda x: x.to(target)


@kernel
def cast(x: Tensor, *, dtype: DType) -> Tensor:
    return caster(x.dtype, NATIVE[dtype])(x)


@kernel
def bitcast(x: Tensor, *, dtype: DType) -> Tensor:
    return x.view(NATIVE[dtype])
