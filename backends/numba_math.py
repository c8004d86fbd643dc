"""Scalar building blocks of the numba kernels: LLVM intrinsics, half-precision bits, integer and special functions, sorting, matrix loops.

Promises: everything here compiles in nopython mode under NumPy's error model (no exception is ever raised), and follows the value conventions of
the NumPy definitions: x // 0 = 0 for integers, nan propagates through maximum, shifts past the width give 0 or the sign.
"""

from __future__ import annotations

import math
import operator

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from minidl.backends import complex_values
from minidl.backends.numpy_special import _BERNOULLI, _DIGAMMA_ROOT, WICHURA, _zeta_series

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


call2, call4 = _returning(2), _returning(4)  # C functions of two and four words which return an int
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


to_f32, to_u32, to_f64, to_u64 = _bits(types.float32), _bits(types.uint32), _bits(types.float64), _bits(types.uint64)


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


# ---- integers --------------------------------------------------------------------------------------------------------------------------
@jit
def int_div(x, y):
    """int64: floor(x / y); 0 where y is 0; wraps where the quotient overflows, on which the processor would trap."""
    if y == 0:
        return np.int64(0)
    return -x if y == -1 else x // y


@jit
def int_mod(x, y):
    return np.int64(0) if y == 0 or y == -1 else x % y


@jit
def uint_pow(x, n):
    """uint64, modulo 2**64, which is right for signed integers too."""
    r, one, zero = np.uint64(1), np.uint64(1), np.uint64(0)
    while n != zero:
        if (n & one) != zero:
            r = r * x
        x = x * x
        n = n >> one
    return r


@jit
def threefry(k0, k1, x0, x1):
    """Threefry-2x32 with 20 rounds. Source: J. Salmon et al., Parallel random numbers: as easy as 1, 2, 3 (SC 2011)."""
    k2 = np.uint32(k0 ^ k1 ^ np.uint32(0x1BD11BDA))
    keys = (k0, k1, k2)
    x0, x1 = np.uint32(x0 + k0), np.uint32(x1 + k1)
    for i in range(5):
        for r in (13, 15, 26, 6) if i % 2 == 0 else (17, 29, 16, 24):
            x0 = np.uint32(x0 + x1)
            x1 = np.uint32((x1 << np.uint32(r)) | (x1 >> np.uint32(32 - r))) ^ x0
            x1 = np.uint32(x1)
        x0, x1 = np.uint32(x0 + keys[(i + 1) % 3]), np.uint32(np.uint32(x1 + keys[(i + 2) % 3]) + np.uint32(i + 1))
    return x0, x1


# ---- floats ----------------------------------------------------------------------------------------------------------------------------
@jit
def float_mod(x, y):
    """x - y * floor(x / y) without cancellation: the sign of y."""
    r = np.fmod(x, y)
    if r != 0:
        return r + y if (y < 0) != (r < 0) else r
    return math.copysign(r, y) if y == y and y != 0 else r


@jit
def float_floordiv(x, y):
    if y == 0 or abs(x) == math.inf or abs(y) == math.inf:
        return np.floor(x / y)
    r = np.fmod(x, y)
    q = (x - r) / y
    if r != 0 and (y < 0) != (r < 0):
        q -= 1
    if q == 0:
        return math.copysign(x - x, x / y)
    f = np.floor(q)
    return f + 1 if q - f > 0.5 else f


@jit
def logaddexp(x, y):
    if x == y:
        return x + math.log(2.0)
    return max(x, y) + math.log1p(math.exp(-abs(x - y))) if x == x and y == y else x + y


@jit
def xlogy(x, y):
    return x if x == 0 and y == y else x * math.log(y)


@jit
def horner(x, coefficients):
    r = 0.0
    for c in coefficients:
        r = r * x + c
    return r


@jit
def erfinv(x):
    """Algorithm AS 241, as in numpy_special."""
    a = abs(x)
    if not a < 1:
        return x * np.inf if a == 1 else np.nan
    if a <= 0.85:
        z = 0.180625 - (x / 2) ** 2
        return x / 2 * horner(z, WICHURA[0][0]) / horner(z, WICHURA[0][1]) / math.sqrt(2.0)
    r = math.sqrt(-math.log((1 - a) / 2))
    if r <= 5:
        v = horner(r - 1.6, WICHURA[1][0]) / horner(r - 1.6, WICHURA[1][1])
    else:
        v = horner(r - 5, WICHURA[2][0]) / horner(r - 5, WICHURA[2][1])
    return math.copysign(v, x) / math.sqrt(2.0)


_ROOT_SERIES = _zeta_series(_DIGAMMA_ROOT[0], 44)
_DIGAMMA_TAIL = tuple(b / (2 * k) for k, b in reversed(list(enumerate(_BERNOULLI[:9], 1))))


@jit
def digamma_at_root(x):
    d = (x - _DIGAMMA_ROOT[0]) - _DIGAMMA_ROOT[1]
    return d * horner(d, _ROOT_SERIES)


@jit
def digamma_positive(x):
    if x < 0.86:
        return digamma_at_root(x + 1) - 1 / x
    if x < 2.06:
        return digamma_at_root(x)
    if x < 3.06:
        return digamma_at_root(x - 1) + 1 / (x - 1)
    total = 0.0
    while x < 10:
        total -= 1 / x
        x += 1
    z = 1 / (x * x)
    return total + (math.log(x) - 0.5 / x - z * horner(z, _DIGAMMA_TAIL))


@jit
def digamma(x):
    """Recurrence, asymptotic series and reflection, as in numpy_special."""
    if x > 0:
        return digamma_positive(x)
    if x == 0:
        return math.copysign(np.inf, -x)
    r = x - np.rint(x)
    if r != r or r == 0:
        return np.nan
    return digamma_positive(1 - x) - math.pi / math.tan(math.pi * r)


@jit
def hurwitz(s, x):
    if x == np.inf:
        return 0.0
    terms = 10 + s
    out = 0.0
    for k in range(terms - 1, -1, -1):
        out += (x + k) ** -s
    y = x + terms
    power = y**-s
    tail = power * (y / (s - 1) + 0.5)
    factor = float(s)
    for j in range(1, 12):
        for i in (2 * j - 1, 2 * j):
            factor /= i
        power /= y
        tail += _BERNOULLI[j - 1] * factor * power
        power /= y
        factor *= (s + 2 * j - 1) * (s + 2 * j)
    return out + tail


@jit
def polygamma(x, n, factorial, cotangent):
    """Hurwitz's zeta function and reflection, as in numpy_special; `cotangent` is the polynomial of the n-th derivative of cot."""
    sign = 1.0 if n % 2 else -1.0
    if x > 0:
        return sign * factorial * hurwitz(n + 1, x)
    if x == 0:
        return sign * np.inf
    r = x - np.rint(x)
    if r != r:
        return np.nan
    if r == 0:
        return np.inf if n % 2 else np.nan
    return -factorial * hurwitz(n + 1, 1 - x) - math.pi ** (n + 1) * horner(1 / math.tan(math.pi * r), cotangent)


@jit
def bessel_i(x, n):
    """I_n by its power series and, beyond 18, Hankel's asymptotic series (DLMF 10.25.2 and 10.40.1), as the primitive's decomposition."""
    r = abs(x)
    if r <= 18:
        out, z = 1.0, r * r * 0.25
        for k in range(38, 0, -1):
            out = z / (k * (k + n)) * out + 1.0
        for k in range(1, n + 1):
            out *= r * (0.5 / k)
    else:
        series = 1.0
        for k in range(34, 0, -1):
            series = ((2 * k - 1) ** 2 - 4 * n * n) / (8.0 * k) / r * series + 1.0
        half = math.exp(r * 0.5)
        out = half * (series / math.sqrt(min(r, 1e30) * (2 * math.pi))) * half
    return -out if n % 2 and x < 0 else out


# ---- loops that several kernels share --------------------------------------------------------------------------------------------------
@jit
def merge_argsort(key, index, spare, n):
    """The stable order of n unsigned keys: runs of 16 by insertion, then bottom-up merging. Returns whether the answer lies in `spare`."""
    for start in range(0, n, 16):
        for i in range(start, min(start + 16, n)):
            j = i
            while j > start and key[index[j - 1]] > key[i]:
                index[j] = index[j - 1]
                j -= 1
            index[j] = i
    a, b, flipped, width = index, spare, False, 16
    while width < n:
        for start in range(0, n, 2 * width):
            i, middle, end = start, min(start + width, n), min(start + 2 * width, n)
            j = middle
            for k in range(start, end):
                if j >= end or (i < middle and key[a[i]] <= key[a[j]]):
                    b[k] = a[i]
                    i += 1
                else:
                    b[k] = a[j]
                    j += 1
        a, b, flipped, width = b, a, not flipped, 2 * width
    return flipped


@jit
def blas(a, i, x, y, z):
    """z = x @ y by the Fortran gemm described by a[i:i+11]: function, trans, trans, m, n, k, alpha, lda, ldb, beta, ldc."""
    call13(a[i], (a[i + 1], a[i + 2], a[i + 3], a[i + 4], a[i + 5], a[i + 6], x, a[i + 7], y, a[i + 8], a[i + 9], z, a[i + 10]))


@jit
def product(x, y, z, tx, ty, m, n, k, keep, zero):
    """z = x @ y by loops, for integers; zero fixes the type that it accumulates in."""
    for i in range(m):
        for j in range(n):
            s = zero
            if keep:
                s += z[i * n + j]
            for q in range(k):
                s += x[q * m + i if tx else i * k + q] * y[j * k + q if ty else q * n + j]
            z[i * n + j] = s


@jit
def copy_bytes(target, source, n):
    t, s = as_ptr(target, np.uint8), as_ptr(source, np.uint8)
    for i in range(n):
        t[i] = s[i]


@jit
def columns(x, col, g, zero, back):
    """im2col of one example, x [C, D, H, W] → col [C, K, P], or its transpose (back), which adds into x.

    g: C, then three each of the sizes of x, of the kernel, of the result, strides, low paddings, dilations.
    """
    height, width, k2, o1, o2, s2 = g[2], g[3], g[6], g[8], g[9], g[12]
    row = 0
    for c in range(g[0]):
        for i0 in range(g[4]):
            for i1 in range(g[5]):
                for i2 in range(k2):
                    first = i2 * g[18] - g[15]  # x position of the first result column
                    lo = min(max(0, -((first) // s2)), o2)
                    hi = max(min(o2, (width - 1 - first) // s2 + 1), lo)
                    for p0 in range(g[7]):
                        y0 = p0 * g[10] - g[13] + i0 * g[16]
                        for p1 in range(o1):
                            y1 = p1 * g[11] - g[14] + i1 * g[17]
                            inside = y0 >= 0 and y0 < g[1] and y1 >= 0 and y1 < height
                            source = ((c * g[1] + y0) * height + y1) * width + first
                            if back:
                                if inside:
                                    for q in range(lo, hi):
                                        x[source + q * s2] += col[row + q]
                            elif inside:
                                for q in range(lo):
                                    col[row + q] = zero
                                for q in range(lo, hi):
                                    col[row + q] = x[source + q * s2]
                                for q in range(hi, o2):
                                    col[row + q] = zero
                            else:
                                for q in range(o2):
                                    col[row + q] = zero
                            row += o2


@jit
def complex_sign(z):
    r = math.hypot(z.real, z.imag)
    if z.real != z.real or z.imag != z.imag:
        return complex(math.nan, math.nan)
    if r == math.inf:
        a = math.copysign(1.0, z.real) if abs(z.real) == math.inf else 0.0
        b = math.copysign(1.0, z.imag) if abs(z.imag) == math.inf else 0.0
        return complex(a, b) if a == 0 or b == 0 else complex(math.nan, math.nan)
    return complex(0.0, 0.0) if r == 0 else complex(z.real / r, z.imag / r)


# ---- complex functions: Numba's own in the part of the plane to which symmetry leads, and the standard's values ---------------------------------
@jit
def _where(c, x, y):
    return x if c else y


@jit
def _full(like, value):
    return value


@jit
def _signbit(x):
    return math.copysign(1.0, x) < 0


_TOOLS = {n: getattr(math, n) for n in ("sin", "cos", "atan2", "hypot", "log", "log1p")}
_COMPLEX = complex_values.bound(_TOOLS | {"where": _where, "full": _full, "signbit": _signbit, "negative": operator.neg, "absolute": abs}, jit)
_near_one = _COMPLEX["near_one"]


@jit
def _log1p(z):
    real, imag = _near_one(z.real, z.imag)
    return complex(real, imag)


def _complex_function(name):
    fold, signs, right, zero, elsewhere = (_COMPLEX[f.__name__] for f in complex_values.TABLE[name])
    own = _log1p if name == "log1p" else getattr(np, f"arc{name[1:]}" if name[0] == "a" else name)

    @jit
    def function(z):
        u, v = fold(z.real, z.imag)
        if right(u, v):
            w = own(complex(u, v))
            real, imag = w.real, w.imag
            no_real, no_imag = zero(u, v)
            if no_real | no_imag:
                other_real, other_imag = elsewhere(u, v)
                real, imag = other_real if no_real else real, other_imag if no_imag else imag
        else:
            real, imag = elsewhere(u, v)
        real, imag = signs(real, imag, z.real, z.imag)
        return complex(real, imag)

    return function


globals().update({f"complex_{name}": _complex_function(name) for name in complex_values.TABLE})

_exponent, _power = _COMPLEX["exponent"], _COMPLEX["power"]


@jit
def complex_pow(x, y):
    w, z = complex_log(x), np.power(x, y)  # noqa: F821  (made above)
    u, v = _exponent(w.real, w.imag, y.real, y.imag)
    w = complex_exp(complex(u, v))  # noqa: F821
    real, imag = _power(z.real, z.imag, w.real, w.imag, x.real, x.imag, y.real, y.imag)
    return complex(real, imag)


@jit
def complex_sigmoid(z):
    w = complex_exp(-z if z.real >= 0 else z)  # noqa: F821
    return np.divide(complex(1.0, 0.0) if z.real >= 0 else w, 1 + w)
