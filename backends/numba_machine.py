"""What Numba's Python cannot say, as LLVM intrinsics: addresses, calls of functions by address, exact arithmetic; and the bits of half precision.

Promises: everything here compiles in nopython mode under NumPy's error model: no exception is ever raised.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

jit = njit(error_model="numpy", nogil=True)
INT64S = types.CPointer(types.int64)


# ---- memory and calls -----------------------------------------------------------------------------------------------------------------
@intrinsic
def as_ptr(typingctx, address, dtype):
    """A typed pointer from an integer; indexing it neither checks bounds nor wraps negative indices."""
    pointer = types.CPointer(dtype.dtype)
    return pointer(types.int64, dtype), lambda context, builder, sig, args: builder.inttoptr(args[0], context.get_value_type(pointer))


def _apart(builder, instruction, k, count):
    """Tell LLVM that array k of a kernel shares no memory with the others; so it need not compare addresses, which it does for few arrays only."""
    module = builder.module
    domain = module.add_metadata(["arrays"])
    scopes = [module.add_metadata([f"array {i}", domain]) for i in range(count)]
    instruction.set_metadata("alias.scope", module.add_metadata([scopes[k]]))
    if count > 1:
        instruction.set_metadata("noalias", module.add_metadata(scopes[:k] + scopes[k + 1 :]))
    return instruction


@intrinsic(prefer_literal=True)
def get(typingctx, pointer, i, k, count):
    """pointer[i], where it is number k of `count` arrays that share no memory."""

    def generate(context, builder, sig, args):
        place = builder.gep(args[0], [args[1]], inbounds=True)
        return _apart(builder, builder.load(place), k.literal_value, count.literal_value)

    return pointer.dtype(pointer, types.int64, k, count), generate


@intrinsic(prefer_literal=True)
def put(typingctx, pointer, i, value, k, count):
    """pointer[i] = value, likewise."""

    def generate(context, builder, sig, args):
        place = builder.gep(args[0], [args[1]], inbounds=True)
        _apart(builder, builder.store(args[2], place), k.literal_value, count.literal_value)
        return context.get_dummy_value()

    return types.void(pointer, types.int64, pointer.dtype, k, count), generate


def _indirect(count):
    def typed(typingctx, function, args):
        def generate(context, builder, sig, values):
            parts = [builder.extract_value(values[1], i) for i in range(count)] if count else [values[1]]
            kind = ir.FunctionType(ir.VoidType(), [p.type for p in parts])
            builder.call(builder.inttoptr(values[0], kind.as_pointer()), parts)
            return context.get_dummy_value()

        return types.void(types.int64, args), generate

    return intrinsic(typed)


def _returning(count):
    def typed(typingctx, function, args):
        def generate(context, builder, sig, values):
            parts = [builder.extract_value(values[1], i) for i in range(count)]
            kind = ir.FunctionType(ir.IntType(32), [p.type for p in parts])
            return builder.call(builder.inttoptr(values[0], kind.as_pointer()), parts)

        return types.int32(types.int64, args), generate

    return intrinsic(typed)


call0, call1, call2, call3, call4 = map(_returning, range(5))  # C functions of so many words which return an int
call = _indirect(0)  # call(address of a kernel, address of its arguments)
# BLAS and LAPACK functions: so many pointers, as a tuple of integers
call6, call8, call9, call11, call13, call14, call15 = map(_indirect, (6, 8, 9, 11, 13, 14, 15))


# ---- arithmetic that Python cannot say --------------------------------------------------------------------------------------------------
def _llvm(name, arity):
    def generate(context, builder, sig, args):
        kind = ir.FunctionType(args[0].type, [args[0].type] * arity)
        return builder.call(builder.module.declare_intrinsic(name, [args[0].type], kind), args)

    if arity == 2:
        return intrinsic(lambda typingctx, x, y: (x(x, x), generate))
    return intrinsic(lambda typingctx, x, y, z: (x(x, x, x), generate))


vmax = _llvm("llvm.maximum", 2)  # nan propagates
vmin = _llvm("llvm.minimum", 2)
fma = _llvm("llvm.fma", 3)


@intrinsic
def fadd(typingctx, x, y):
    """A sum whose order LLVM may change (and so vectorise), which the accuracy of a block of terms only gains from."""
    return x(x, x), lambda context, builder, sig, args: builder.fadd(args[0], args[1], flags=("reassoc",))


@jit
def at_least(x, low):
    """x, or the bound where that is larger: one instruction, where vmax must also order zeros and propagate the bound's nan."""
    return low if low > x else x


@jit
def at_most(x, high):
    """x, or the bound where that is smaller."""
    return high if high < x else x


@jit
def clip(x, low, high):
    """x between bounds; nan propagates from all three."""
    y = at_most(at_least(x, low), high)
    return y if (low == low) & (high == high) else low + high


@jit
def finite(x, n):
    """Whether all n elements are finite."""
    total = x[0] * 0
    for i in range(n):
        total += x[i] * 0
    return total == 0


@jit
def two_sum(x, y):
    """x + y rounded, and its rounding error (D. Knuth, The Art of Computer Programming, volume 2, 4.2.2)."""
    t = x + y
    z = t - x
    return t, (x - (t - z)) + (y - z)


@jit
def carried(total, rest):
    """A sum with its rounding errors; where it is not finite, they are not either."""
    return total + rest if total - total == 0 else total


def _bits(target):
    def typed(typingctx, x):
        return target(x), lambda context, builder, sig, args: builder.bitcast(args[0], context.get_value_type(target))

    return intrinsic(typed)


to_f32, to_u32, to_u64 = _bits(types.float32), _bits(types.uint32), _bits(types.uint64)


# ---- half precision: computed in float32, kept as 16 bits ------------------------------------------------------------------------------
@jit
def load_f16(h):
    """float16 bits → float32."""
    e = np.int64(h) & 0x7FFF
    if e < 0x400:
        value = np.float32(e) * np.float32(2.0**-24)
    else:
        value = to_f32(np.uint32((e << 13) + (0x38000000 if e < 0x7C00 else 0x70000000)))
    return -value if h & 0x8000 else value


@jit
def store_f16(x):
    """float32 → float16 bits, to nearest even."""
    u = np.int64(to_u32(x))
    a = u & 0x7FFFFFFF
    if a >= 0x477FF000:
        r = 0x7E00 if a > 0x7F800000 else 0x7C00
    elif a < 0x38800000:
        r = np.int64(to_u32(to_f32(np.uint32(a)) + np.float32(0.5))) - 0x3F000000
    else:
        r = (a - 0x38000000 + 0xFFF + ((a >> 13) & 1)) >> 13
    return np.uint16(r | (u >> 16) & 0x8000)


@jit
def load_bf16(h):
    """bfloat16 bits → float32."""
    return to_f32(np.uint32(np.int64(h) << 16))


@jit
def store_bf16(x):
    """float32 → bfloat16 bits, to nearest even."""
    u = np.int64(to_u32(x))
    if x != x:
        return np.uint16((u >> 16) & 0x8000 | 0x7FC0)
    return np.uint16((u + 0x7FFF + ((u >> 16) & 1)) >> 16)


@jit
def round_f16(x):
    return load_f16(store_f16(x))


@jit
def round_bf16(x):
    return load_bf16(store_bf16(x))


@jit
def to_odd(x):
    """float64 → float32 with the last bit sticky, so that a second rounding to 16 bits is as if there had been one."""
    y = np.float32(x)
    u = np.int64(to_u32(y))
    if np.float64(y) != x and x == x and abs(x) < 1e30:
        if abs(np.float64(y)) > abs(x):
            u -= 1
        u |= 1
    return to_f32(np.uint32(u))


@jit
def next_half(x, y, hx, hy):
    """The 16 bits after hx (whose value is x) towards y."""
    if x != x or y != y:
        return hx if x != x else hy
    if x == y:
        return hy
    if x == 0:
        return np.uint16(1 if y > 0 else 0x8001)
    return np.uint16(np.int64(hx) + (1 if (x < y) == (x > 0) else -1))
