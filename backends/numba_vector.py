"""exp, log, sin, erf and their kin as straight-line arithmetic, which LLVM turns into vector code; numba's own functions take ten times as long.

Promises: within 2 ulp in float32 and float64; nan, infinities, zeros of both signs, overflow and subnormals come out right. No
branch, no conversion from float to integer (undefined for nan): both sides are computed and one is selected. sin and cos hold up to FAR_f32 and
FAR_f64: what calls them computes larger arguments again by `math`. Polynomials are minimax or interpolate at Chebyshev nodes; the reduction of exp
and log follows P. Tang's and fdlibm's, that of sin and cos W. Cody's and W. Waite's, tanh's rational function in float64 is that of S. Moshier's
Cephes, and log1p corrects the rounding of 1 + x as W. Kahan's does.
"""

from __future__ import annotations

import math

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from minidl.backends.numba_machine import at_most, fma, jit, vmax, vmin

_F = np.float32
_LOG2E32, _MAGIC32, _HI32, _LO32 = _F(1.4426950408889634), _F(1.5 * 2**23), _F(-0.6931471824645996), _F(1.904654323148236e-09)
# -pi/2 in three parts
_TURN32 = _F(-1.5707963705062866), _F(4.371138828673793e-08), _F(1.7151245100058819e-15)
_TURN64 = -1.5707963267948966, -6.123233995736766e-17, 1.4973849048591833e-33
_LOG2E64, _MAGIC64, _HI64, _LO64 = 1.4426950408889634, 1.5 * 2.0**52, -0.6931471805599453, -2.3190468138462996e-17
#: The largest arguments of sin and cos.
FAR_f32, FAR_f64 = _F(2**16), 2.0**30


@intrinsic
def scale(typingctx, p, t):
    """p * 2**n, where t = n + 1.5 * 2**(mantissa bits): n is read from t's low bits and applied in two halves, so that subnormals round."""

    def generate(context, builder, sig, args):
        width, bits, bias = (32, 23, 127) if sig.args[0] is types.float32 else (64, 52, 1023)
        kind, i = args[0].type, ir.IntType(width)
        magic = builder.bitcast(ir.Constant(kind, 1.5 * 2.0**bits), i)
        n = builder.sub(builder.bitcast(args[1], i), magic)
        half = builder.ashr(n, ir.Constant(i, 1))
        result = args[0]
        for k in (half, builder.sub(n, half)):
            power = builder.shl(builder.add(k, ir.Constant(i, bias)), ir.Constant(i, bits))
            result = builder.fmul(result, builder.bitcast(power, kind))
        return result

    return p(p, p), generate


def _parts(want_mantissa):
    def typed(typingctx, x):
        def generate(context, builder, sig, args):
            width, bits, low = (32, 23, 0x3F3504F3) if sig.args[0] is types.float32 else (64, 52, 0x3FE6A09E667F3BCD)
            kind, i = args[0].type, ir.IntType(width)
            shifted = builder.sub(builder.bitcast(args[0], i), ir.Constant(i, low))
            if want_mantissa:
                part = builder.and_(shifted, ir.Constant(i, 2**bits - 1))
                return builder.bitcast(builder.add(part, ir.Constant(i, low)), kind)
            return builder.sitofp(builder.ashr(shifted, ir.Constant(i, bits)), kind)

        return x(x), generate

    return intrinsic(typed)


mantissa, exponent = _parts(True), _parts(False)  # x = mantissa * 2**exponent with sqrt(1/2) <= mantissa < sqrt(2)


@intrinsic
def quarter(typingctx, s, c, t):
    """The sine of n quarter turns more than an angle with sine s and cosine c; n is in t's low bits (see scale)."""

    def generate(context, builder, sig, args):
        width = 32 if sig.args[0] is types.float32 else 64
        i = ir.IntType(width)
        n = builder.bitcast(args[2], i)
        chosen = builder.select(builder.trunc(n, ir.IntType(1)), args[1], args[0])
        sign = builder.shl(builder.lshr(n, ir.Constant(i, 1)), ir.Constant(i, width - 1))
        return builder.bitcast(builder.xor(builder.bitcast(chosen, i), sign), args[0].type)

    return s(s, s, s), generate


@intrinsic
def power_of_two(typingctx, t):
    """2**n for a normal result; n is in t's low bits (see scale)."""

    def generate(context, builder, sig, args):
        width, bits = (32, 23) if sig.args[0] is types.float32 else (64, 52)
        i = ir.IntType(width)
        one = builder.bitcast(ir.Constant(args[0].type, 1.0), i)
        return builder.bitcast(builder.add(builder.shl(builder.bitcast(args[0], i), ir.Constant(i, bits)), one), args[0].type)

    return t(t), generate


@jit
def exp_f32(x):
    x = vmin(vmax(x, _F(-104)), _F(89))
    t = fma(x, _LOG2E32, _MAGIC32)
    n = t - _MAGIC32
    r = fma(n, _LO32, fma(n, _HI32, x))
    z = r * r
    p = fma(fma(_F(0.001392617611993571), r, _F(0.008363173074513714)), z, fma(_F(0.041666554662050534), r, _F(0.1666657702559799)))
    return scale(fma(fma(p, r, _F(0.5)), z, r) + _F(1), t)


@jit
def exp_f64(x):
    x = vmin(vmax(x, -746.0), 710.0)
    t = fma(x, _LOG2E64, _MAGIC64)
    n = t - _MAGIC64
    r = fma(n, _LO64, fma(n, _HI64, x))
    p = fma(fma(2.510034384509556e-08, r, 2.7620077750352785e-07), r, 2.7557268575143528e-06)
    p = fma(fma(fma(p, r, 2.4801521317939994e-05), r, 0.00019841269862943617), r, 0.0013888888917199904)
    p = fma(fma(fma(p, r, 0.008333333333330101), r, 0.04166666666662416), r, 0.16666666666666669)
    return scale(fma(fma(p, r, 0.5) * r, r, r) + 1.0, t)


@jit
def log_f32(x):
    tiny = x < _F(1.1754943508222875e-38)
    y = x * _F(8388608) if tiny else x
    e = exponent(y) - (_F(23) if tiny else _F(0))
    f = mantissa(y) - _F(1)
    z = f * f
    p = fma(_F(0.06971611471449939), z, fma(_F(-0.11479733846637154), f, _F(0.11685419923486988)))
    p = fma(p, z, fma(_F(-0.1242568733145119), f, _F(0.14249057645697463)))
    q = fma(fma(_F(-0.1666780231950125), f, _F(0.20000715748892103)), z, fma(_F(-0.24999996957950882), f, _F(0.33333331180030046)))
    p = fma(p, z * z, q)
    small = fma(e, -_LO32, fma(p * f, z, _F(-0.5) * z))
    r = fma(e, -_HI32, f + small)
    return r if (x > 0) & (x < _F(np.inf)) else (_F(-np.inf) if x == 0 else (x if x > 0 else _F(np.nan)))


@jit
def log_f64(x):
    tiny = x < 2.2250738585072014e-308
    y = x * 4503599627370496.0 if tiny else x
    e = exponent(y) - (52.0 if tiny else 0.0)
    f = mantissa(y) - 1.0
    s = f / (2.0 + f)
    z = s * s
    p = fma(fma(0.1461750360162407, z, 0.15331636395747386), z, 0.181828916850066)
    p = fma(fma(fma(p, z, 0.22222211099751213), z, 0.2857142862618917), z, 0.3999999999989904)
    rest = z * fma(p, z, 0.666666666666667)
    half = 0.5 * f * f
    r = e * 6.93147180369123816490e-01 - ((half - (s * (half + rest) + e * 1.90821492927058770002e-10)) - f)
    return r if (x > 0) & (x < np.inf) else (-np.inf if x == 0 else (x if x > 0 else np.nan))


@jit
def tanh_f32(x):
    """h / (h + 1) for h = (exp(2 |x|) - 1) / 2, computed as in expm1 from half the argument's remainder, which one rounding of log 2 leaves accurate
    enough up to 10, from where on it is 1; while h is small, h - h * that is more accurate."""
    y = at_most(abs(x), _F(10))
    t = fma(y, _F(2) * _LOG2E32, _MAGIC32)
    s = fma(t - _MAGIC32, _F(-0.34657359027997264), y)
    z, power = s * s, power_of_two(t)
    p = fma(fma(_F(0.012745201587677002), s, _F(0.04461140185594559)), z, fma(_F(0.13333235681056976), s, _F(0.33333083987236023)))
    h = fma(power, fma(fma(p, z, fma(_F(0.6666666865348816), s, _F(1))), z, s), fma(power, _F(0.5), _F(-0.5)))
    q = h / (h + _F(1))
    return math.copysign(fma(-h, q, h) if h < _F(0.5) else q, x)


@jit
def tanh_f64(x):
    a, z = abs(x), x * x
    p = fma(fma(-9.64399179425052238628e-1, z, -9.92877231001918586564e1), z, -1.61468768441708447952e3)
    q = fma(fma(z + 1.12811678491632931402e2, z, 2.23548839060100448583e3), z, 4.84406305325125486048e3)
    big = 1.0 - 2.0 / (exp_f64(a + a) + 1.0)
    return math.copysign(fma(a * z, p / q, a) if a < 0.625 else big, x)


@jit
def log1p_f32(x):
    u = _F(1) + x
    r = log_f32(u) + (x - (u - _F(1))) / u
    return x if u == 1 else (r if (u > 0) & (u < _F(np.inf)) else log_f32(u))


@jit
def log1p_f64(x):
    u = 1.0 + x
    r = log_f64(u) + (x - (u - 1.0)) / u
    return x if u == 1 else (r if (u > 0) & (u < np.inf) else log_f64(u))


@jit
def _expm1_f32(r):
    z = r * r
    p = fma(fma(_F(0.00019914377480745316), r, _F(0.0013941063079982996)), z, fma(_F(0.00833327230066061), r, _F(0.04166635498404503)))
    return fma(fma(p, z, fma(_F(0.1666666716337204), r, _F(0.5))), z, r)


@jit
def expm1_f32(x):
    y = vmin(vmax(x, _F(-104)), _F(89))
    t = fma(y, _LOG2E32, _MAGIC32)
    n = t - _MAGIC32
    p = _expm1_f32(fma(n, _LO32, fma(n, _HI32, y)))
    near = scale(p, t) + (scale(_F(1), t) - _F(1))
    return x if x == 0 else (scale(p + _F(1), t) - _F(1) if n > 8 else near)


@jit
def expm1_f64(x):
    y = vmin(vmax(x, -746.0), 710.0)
    t = fma(y, _LOG2E64, _MAGIC64)
    n = t - _MAGIC64
    r = fma(n, _LO64, fma(n, _HI64, y))
    p = fma(fma(fma(2.0924472428700742e-09, r, 2.5109108412059067e-08), r, 2.7557242762271447e-07), r, 2.755724403812038e-06)
    p = fma(fma(fma(p, r, 2.4801587360434533e-05), r, 0.00019841269886258092), r, 0.001388888888886694)
    p = fma(fma(fma(fma(p, r, 0.008333333333321596), r, 0.0416666666666667), r, 0.16666666666666677), r, 0.5)
    p = fma(p * r, r, r)
    near = scale(p, t) + (scale(1.0, t) - 1.0)
    return x if x == 0 else (scale(p + 1.0, t) - 1.0 if n > 8 else near)


@jit
def sine_f32(x, turn):
    t = fma(x, _F(0.6366197466850281), _MAGIC32)
    n = t - _MAGIC32
    r = fma(n, _TURN32[2], fma(n, _TURN32[1], fma(n, _TURN32[0], x)))
    z = r * r
    s = fma(fma(_F(-0.0001951087760971859), z, _F(0.008332131430506706)), z, _F(-0.16666653752326965))
    c = fma(fma(_F(2.4431286874460056e-05), z, _F(-0.001388730714097619)), z, _F(0.04166664555668831))
    y = quarter(fma(s * z, r, r), fma(c * z, z, fma(_F(-0.5), z, _F(1))), t + turn)
    return x if (x == 0) & (turn == 0) else y


@jit
def sin_f32(x):
    return sine_f32(x, _F(0))


@jit
def cos_f32(x):
    return sine_f32(x, _F(1))


@jit
def sine_f64(x, turn):
    t = fma(x, 0.6366197723675814, _MAGIC64)
    n = t - _MAGIC64
    r = fma(n, _TURN64[2], fma(n, _TURN64[1], fma(n, _TURN64[0], x)))
    z = r * r
    s = fma(fma(1.5893606788269056e-10, z, -2.5050704506850727e-08), z, 2.7557313359607344e-06)
    s = fma(fma(fma(s, z, -0.00019841269828882718), z, 0.008333333333321305), z, -0.16666666666666627)
    c = fma(fma(-1.135746463092794e-11, z, 2.0875682215644314e-09), z, -2.755731405933846e-07)
    c = fma(fma(fma(c, z, 2.480158728850309e-05), z, -0.001388888888887262), z, 0.04166666666666659)
    y = quarter(fma(s * z, r, r), fma(c * z, z, fma(-0.5, z, 1.0)), t + turn)
    return x if (x == 0) & (turn == 0) else y


@jit
def sin_f64(x):
    return sine_f64(x, 0.0)


@jit
def cos_f64(x):
    return sine_f64(x, 1.0)


@jit
def erf_f32(x):
    """Near 0 an odd polynomial; beyond, 1 - exp(-a (1 + q(a))), whose exponent's error the small complement hides."""
    z, a = x * x, vmin(abs(x), _F(4))
    p = fma(fma(_F(8.316768798977137e-05), z, _F(-0.0008130018832162023)), z, _F(0.0051999082788825035))
    p = fma(fma(fma(p, z, _F(-0.026858942583203316)), z, _F(0.11283687502145767)), z, _F(-0.37612631916999817))
    y = a * a
    q = fma(_F(1.1229705705773085e-05), y, fma(_F(-0.0003227880224585533), a, _F(0.003642396070063114)))
    q = fma(fma(q, y, fma(_F(-0.0237619336694479), a, _F(0.10623673349618912))), a, _F(0.6351513862609863))
    big = _F(1) - exp_f32(-fma(fma(q, a, _F(0.12864847481250763)), a, a))
    return fma(fma(p, z, _F(0.12837916612625122)), x, x) if a < _F(0.93) else (big if x > 0 else -big)


@jit
def erf_f64(x):
    z, a = x * x, vmin(abs(x), 6.0)
    p = fma(fma(5.945255584223488e-11, z, -1.136567067182716e-09), z, 1.4657883530919653e-08)
    p = fma(fma(fma(p, z, -1.635002619207727e-07), z, 1.6460972954153765e-06), z, -1.4925593518728226e-05)
    p = fma(fma(fma(p, z, 0.00012055331037551108), z, -0.0008548326978765149), z, 0.00522397762478137)
    p = fma(fma(fma(p, z, -0.02686617064507296), z, 0.11283791670954858), z, -0.3761263890318375)
    q = fma(fma(9.017394682195165e-12, a, -3.606144449143275e-10), a, 6.697473591934502e-09)
    q = fma(fma(fma(q, a, -7.65314480916362e-08), a, 5.994969069681823e-07), a, -3.3790094205426792e-06)
    q = fma(fma(fma(q, a, 1.3845148842091984e-05), a, -3.9511167729474774e-05), a, 6.241127536638807e-05)
    q = fma(fma(fma(q, a, 5.117603821011707e-05), a, -0.0006390827413637855), a, 0.0017542060711953436)
    q = fma(fma(fma(q, a, -0.0002566718705950189), a, -0.01910128854460706), a, 0.10276216263756756)
    q = fma(q, a, 0.6366222063354277)
    big = 1.0 - exp_f64(-fma(fma(q, a, 0.12837890644901975), a, a))
    return fma(fma(p, z, 0.1283791670955126), x, x) if a < 0.99 else (big if x > 0 else -big)
