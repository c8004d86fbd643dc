"""jax.scipy.special: gamma, beta and error functions and their like, as compositions that differentiate in every argument where JAX's do.

Promises: values within a few units of the last place of their dtype's precision where the function itself is well conditioned.
"""

from __future__ import annotations

import math
from typing import Any

import minidl as md
from minidl.idioms import of_lax
from minidl.idioms.jax import reductions
from minidl.idioms.jax.arrays import beside, inexact, together
from minidl.idioms.jax.scipy import integrals
from minidl.idioms.jax.spelling import room


def _floats(*xs: Any) -> list[md.Tensor]:
    found = md.broadcast_arrays(*map(inexact, together(*xs)))
    dtype = md.result_type(*(x.dtype for x in found))
    return [x.to(dtype) for x in found]


def _apart(condition: md.Tensor, x: md.Tensor, safe: float) -> md.Tensor:
    """x where the condition holds, elsewhere a number at which nothing goes wrong, so that no derivative does."""
    return md.where(condition, x, safe)


# ---- exponentials, entropies -------------------------------------------------------------------------------------------------------------
def xlog1py(x: Any, y: Any) -> md.Tensor:
    """x log(1 + y), 0 where x is 0.

    >>> xlog1py(0.0, -1.0).item()
    0.0
    """
    x, y = _floats(x, y)
    there = (x != 0) | md.isnan(y)
    return md.where(there, x * md.log1p(_apart(there, y, 1.0)), 0.0 * x)


def entr(x: Any) -> md.Tensor:
    """-x log(x), 0 at 0 and -inf below.

    >>> entr(1.0).item() == 0.0
    True
    """
    x = inexact(x)
    return md.where(x < 0, -math.inf, md.where(x == 0, 0.0, -x * md.log(_apart(x > 0, x, 1.0))))


def rel_entr(p: Any, q: Any) -> md.Tensor:
    """p log(p / q): 0 where p is 0 and q is not negative, inf where q is not positive otherwise.

    >>> rel_entr(2.0, 1.0).item() == 2 * md.log(md.tensor(2.0)).item()
    True
    """
    p, q = _floats(p, q)
    both = (p > 0) & (q > 0)
    value = _apart(both, p, 1.0) * md.log(_apart(both, p, 1.0) / _apart(both, q, 1.0))
    return md.where(both, value, md.where((p == 0) & (q >= 0), 0.0, math.inf))


def kl_div(p: Any, q: Any) -> md.Tensor:
    """rel_entr(p, q) - p + q."""
    p, q = _floats(p, q)
    return rel_entr(p, q) - p + q


def boxcox(x: Any, lmbda: Any) -> md.Tensor:
    """(x**lmbda - 1) / lmbda, the logarithm where lmbda is 0.

    >>> boxcox(3.0, 1.0).item()
    2.0
    """
    x, power = _floats(x, lmbda)
    there = power != 0
    return md.where(there, md.expm1(power * md.log(x)) / _apart(there, power, 1.0), md.log(x))


def boxcox1p(x: Any, lmbda: Any) -> md.Tensor:
    """boxcox(1 + x, lmbda), exact for small x."""
    x, power = _floats(x, lmbda)
    there = power != 0
    return md.where(there, md.expm1(power * md.log1p(x)) / _apart(there, power, 1.0), md.log1p(x))


# ---- the normal distribution ----------------------------------------------------------------------------------------------------------------
def log_ndtr(x: Any) -> md.Tensor:
    """The logarithm of ndtr, also where that is 0 to rounding.

    >>> round(log_ndtr(md.tensor(-40.0)).item(), 3)
    -804.608
    """
    x = inexact(x)
    far = x <= -5.0
    middle = md.log(0.5 * md.erfc(-_apart(~far, x, 0.0) / math.sqrt(2.0)))
    upper = md.log1p(-0.5 * md.erfc(_apart(x > 1.0, x, 1.0) / math.sqrt(2.0)))
    deep = _apart(far, x, -5.0)
    # Phi(x) = phi(x) / (-x + 1/(-x + 2/(-x + 3/…))), Laplace's continued fraction, from its 64th step up
    fraction = -deep
    for k in range(64, 0, -1):
        fraction = k / fraction - deep
    lower = -0.5 * deep * deep - 0.5 * math.log(2.0 * math.pi) - md.log(fraction)
    return md.where(far, lower, md.where(x > 1.0, upper, middle))


def erfcx(x: Any) -> md.Tensor:
    """exp(x²) erfc(x), also where the second factor is 0 to rounding.

    >>> round(erfcx(md.tensor(100.0)).item(), 8)
    0.00564161
    """
    x = inexact(x)
    near = x < 3.0
    close = _apart(near, x, 0.0)
    far = _apart(~near, x, 3.0)
    fraction = far
    for k in range(64, 0, -1):
        fraction = k / 2.0 / fraction + far
    return md.where(near, md.exp(close * close) * md.erfc(close), 1.0 / (math.sqrt(math.pi) * fraction))


# ---- gamma and beta -------------------------------------------------------------------------------------------------------------------------
def gammasgn(x: Any) -> md.Tensor:
    """The sign of the gamma function: 1, or -1 between -1 and 0, -3 and -2 and so on; nan where it has a pole below 0.

    >>> gammasgn(md.tensor([-0.5, -1.5, 2.0])).tolist()
    [-1.0, 1.0, 1.0]
    """
    x = inexact(x)
    low = md.floor(x)
    odd = md.remainder(low, 2.0) != 0
    return md.where(x >= 0, md.where((x == 0) & md.signbit(x), -1.0, 1.0), md.where(low == x, math.nan, md.where(odd, -1.0, 1.0))).to(x.dtype)


def gamma(x: Any) -> md.Tensor:
    """The gamma function.

    >>> round(gamma(md.tensor(5.0)).item(), 3)
    24.0
    """
    x = inexact(x)
    return md.stop_gradient(gammasgn(x)) * md.exp(md.lgamma(x))


def factorial(n: Any, exact: bool = False) -> md.Tensor:
    """gamma(n + 1). Raises ValueError for exact, since the result is of floats."""
    if exact:
        raise ValueError("factorial: exact=True is not there; math.factorial")
    n = inexact(n)
    return md.where(n < 0, 0.0, md.exp(md.lgamma(_apart(n >= 0, n, 0.0) + 1.0)))


def beta(a: Any, b: Any) -> md.Tensor:
    """gamma(a) gamma(b) / gamma(a + b)."""
    a, b = _floats(a, b)
    sign = gammasgn(a) * gammasgn(b) * gammasgn(a + b)
    return md.stop_gradient(sign) * md.exp(of_lax.betaln(a, b))


def comb(N: Any, k: Any, exact: bool = False, repetition: bool = False) -> md.Tensor:
    """How many choices of k out of N there are, with repetition or without.

    >>> round(comb(5, 2).item(), 3)
    10.0
    """
    if repetition:
        return comb(inexact(N) + k - 1, k)
    n, k = _floats(N, k)
    fine = (n >= k) & (k >= 0) & (n >= 0)
    a, b = _apart(fine, n, 1.0), _apart(fine, k, 1.0)
    return md.where(fine, md.exp(md.lgamma(a + 1) - md.lgamma(b + 1) - md.lgamma(a - b + 1)), 0.0)


def poch(z: Any, m: Any) -> md.Tensor:
    """gamma(z + m) / gamma(z).

    >>> round(poch(-0.5, 2.0).item(), 6)
    -0.25
    """
    z, m = _floats(z, m)
    sign = md.stop_gradient(gammasgn(z + m) * gammasgn(z))
    return md.where(m == 0, 1.0, sign * md.exp(md.lgamma(z + m) - md.lgamma(z)))


def multigammaln(a: Any, d: int) -> md.Tensor:
    """The logarithm of the gamma function of d dimensions.

    >>> multigammaln(2.0, 1).item() == md.lgamma(md.tensor(2.0)).item()
    True
    """
    a = inexact(a)
    steps = md.arange(d, **beside(a)).to(a.dtype) / 2.0
    return md.sum(md.lgamma(a[..., None] - steps), axis=-1) + d * (d - 1) / 4.0 * math.log(math.pi)


def _converged(step: Any, state: Any, size: Any, limit: int = 10_000) -> Any:
    """step(n, state) for n = 1, 2, … until size(state), what the last step changed relative to the sum, is nowhere above a rounding."""
    like = md.tree.leaves(state)[0]
    eps = md.finfo(like.dtype).eps * 0.05
    go_on = lambda s: md.any(size(s[1]) > eps) & (s[0] < limit)
    return md.while_loop(go_on, lambda s: (s[0] + 1, step(s[0].to(like.dtype), s[1])), (md.asarray(1, **beside(like)), state))[1]


def _front(a: md.Tensor, x: md.Tensor) -> md.Tensor:
    """x**a exp(-x) / Gamma(a + 1), of a large a by Stirling's series around x = a, where the exponents would cancel."""
    large = a > 50.0
    b = _apart(large, a, 50.0)
    y = _apart(large, x, 50.0)
    m = (y - b) / b
    near = md.abs(m) < 0.5
    part = md.where(near, md.log1p(_apart(near, m, 0.0)), md.log(_apart(~near, y / b, 1.0))) - m
    r = 1.0 / (b * b)
    far = b * part - 0.5 * md.log(2.0 * math.pi * b) - (1.0 / 12.0 - (1.0 / 360.0 - r / 1260.0) * r) / b
    a, x = _apart(~large, a, 1.0), _apart(~large, x, 1.0)
    return md.exp(md.where(large, far, a * md.log(x) - x - md.lgamma(a + 1.0)))


def _lower_series(a: md.Tensor, x: md.Tensor) -> md.Tensor:
    """P(a, x) by its power series."""

    def step(n: md.Tensor, s: Any) -> Any:
        term = s[0] * x / (a + n)
        return term, s[1] + term

    total = _converged(step, (md.ones_like(x), md.ones_like(x)), lambda s: md.abs(s[0] / s[1]))[1]
    return total * _front(a, x)


def _upper_fraction(a: md.Tensor, x: md.Tensor) -> md.Tensor:
    """Q(a, x) by its continued fraction, evaluated forwards as by W. Lentz, Applied Optics 15, 1976."""
    b = x + 1.0 - a

    def step(n: md.Tensor, s: Any) -> Any:
        c, d, h, _ = s
        top, below = -n * (n - a), b + 2.0 * n
        d = 1.0 / (below + top * d)
        c = below + top / c
        return c, d, h * c * d, md.abs(c * d - 1.0)

    huge = md.full_like(x, 1e30)
    h = _converged(step, (huge, 1.0 / b, 1.0 / b, md.ones_like(x)), lambda s: s[3])[2]
    return h * _front(a, x) * a


#: Coefficients in powers of eta, lowest first, for each power of 1 / a: DLMF 8.12.9 to 8.12.11.
_UNIFORM = (
    (-1 / 3, 1 / 12, -2 / 135, 1 / 864, 1 / 2835, -139 / 777600, 1 / 25515, -571 / 261273600, -281 / 151559100),
    (-1 / 540, -1 / 288, 1 / 378, -77 / 77760, 1 / 4860, -1 / 2488320, -2743 / 151559100),
    (25 / 6048, -139 / 51840, 1 / 1296),
)  # fmt: skip


def _uniform(a: md.Tensor, x: md.Tensor) -> tuple[md.Tensor, md.Tensor]:
    """P and Q of an a from a hundred thousand on, where the series would take too long, by N. Temme's expansion (SIAM J. Math. Anal. 10, 1979;
    DLMF 8.12). Further than 0.15 a from a they are 0 and 1."""

    def polynomial(coefficients: Any, y: md.Tensor) -> Any:
        total: Any = 0.0
        for c in reversed(coefficients):
            total = total * y + c
        return total

    m = md.clip((x - a) / a, -0.15, 0.15)
    r = m / (m + 2.0)  # so that log1p(m) = 2 atanh(r), and m - log1p(m) = m * m * slope * slope / 2
    rest = polynomial([1 / 3, 1 / 5, 1 / 7, 1 / 9, 1 / 11, 1 / 13], r * r)
    eta = m * md.sqrt((1.0 - r) * (1.0 - r * (1.0 - r) * rest))
    at = eta * md.sqrt(a * 0.5)
    correction = polynomial([polynomial(c, eta) for c in _UNIFORM], 1.0 / a) * md.exp(-at * at) / md.sqrt(2.0 * math.pi * a)
    return 0.5 * md.erfc(-at) - correction, 0.5 * md.erfc(at) + correction


def _gamma_parts(a: Any, x: Any) -> tuple[Any, ...]:
    a, x = _floats(a, x)
    fine = (a > 0) & (x > 0) & (x < math.inf) & (a < math.inf)
    large = fine & (a > 1e5)
    low = fine & ~large & (x < a + 1.0)
    high = fine & ~large & ~low
    series = _lower_series(_apart(low, a, 1.0), _apart(low, x, 0.5))
    fraction = _upper_fraction(_apart(high, a, 1.0), _apart(high, x, 3.0))
    broken = (a < 0) | (x < 0) | ((a == x) & ((a == 0) | (a == math.inf))) | md.isnan(a) | md.isnan(x)
    p, q = _uniform(_apart(large, a, 1e6), _apart(large, x, 1e6))
    p = md.where(large, p, md.where(low, series, 1.0 - fraction))
    q = md.where(large, q, md.where(low, 1.0 - series, fraction))
    return a, x, fine, p, q, broken


def gammainc(a: Any, x: Any) -> md.Tensor:
    """The regularized lower incomplete gamma function, by series, continued fraction and, for large a, a uniform expansion; it differentiates
    in both arguments.

    >>> round(gammainc(1.0, 1.0).item(), 4)
    0.6321
    """
    a, x, fine, p, _, broken = _gamma_parts(a, x)
    rest = md.where(((x == 0) & (a != 0)) | ((a == math.inf) & (x < math.inf)), 0.0, 1.0)
    return md.where(broken, math.nan, md.where(fine, p, rest)).to(x.dtype)


def gammaincc(a: Any, x: Any) -> md.Tensor:
    """1 - gammainc(a, x), exact where that is small.

    >>> round(gammaincc(1.0, 1.0).item(), 4)
    0.3679
    """
    a, x, fine, _, q, broken = _gamma_parts(a, x)
    rest = md.where(((x == 0) & (a != 0)) | ((a == math.inf) & (x < math.inf)), 1.0, 0.0)
    return md.where(broken, math.nan, md.where(fine, q, rest)).to(x.dtype)


def betainc(a: Any, b: Any, x: Any) -> md.Tensor:
    """The regularized incomplete beta function, by its continued fraction; it differentiates in all arguments.

    >>> round(betainc(1.0, 1.0, 0.25).item(), 6)
    0.25
    """
    a, b, x = _floats(a, b, x)
    fine = (a > 0) & (b > 0) & (x > 0) & (x < 1)
    a, b, z = _apart(fine, a, 1.0), _apart(fine, b, 1.0), _apart(fine, x, 0.5)
    turned = z > (a + 1.0) / (a + b + 2.0)
    p, q, z = md.where(turned, b, a), md.where(turned, a, b), md.where(turned, 1.0 - z, z)

    def step(n: md.Tensor, s: Any) -> Any:
        c, d, h, _ = s
        for top in (n * (q - n) * z / ((p + 2 * n - 1) * (p + 2 * n)), -(p + n) * (p + q + n) * z / ((p + 2 * n) * (p + 2 * n + 1))):
            d, c = 1.0 / (1.0 + top * d), 1.0 + top / c
            h = h * c * d
        return c, d, h, md.abs(c * d - 1.0)

    first = 1.0 / (1.0 - (p + q) * z / (p + 1.0))
    one = md.ones_like(z)
    h = _converged(step, (one, first, first, one), lambda s: s[3])[2]
    value = h * md.exp(p * md.log(z) + q * md.log1p(-z) - of_lax.betaln(p, q)) / p
    value = md.where(turned, 1.0 - value, value)
    ends = md.where(x == 0, 0.0, md.where(x == 1, 1.0, math.nan))
    return md.where(fine, value, ends).to(x.dtype)


#: B(2k) / (2k)!, the coefficients of the Euler-Maclaurin formula.
_BERNOULLI = [1 / 12, -1 / 720, 1 / 30240, -1 / 1209600, 1 / 47900160, -691 / 1307674368000, 1 / 74724249600, -3617 / 10670622842880000]


def zeta(x: Any, q: Any = 1.0) -> md.Tensor:
    """Hurwitz' zeta function, the sum of (q + k)**-x over k from 0, for x above 1 and q above 0, by the Euler-Maclaurin formula.

    >>> round(zeta(2.0, 1.0).item(), 6)
    1.644934
    """
    x, q = _floats(x, q)
    fine = (x > 1) & (q > 0)
    s, a = _apart(fine, x, 2.0), _apart(fine, q, 1.0)
    n = 12
    total = sum((md.pow(a + k, -s) for k in range(1, n)), md.pow(a, -s))
    end = a + n
    tail = md.pow(end, -s)
    total = total + tail * (end / (s - 1.0) + 0.5)
    factor = s * tail / end
    for k, c in enumerate(_BERNOULLI):
        total = total + c * factor
        factor = factor * (s + 2 * k + 1) * (s + 2 * k + 2) / (end * end)
    return md.where(fine, total, md.where(x == 1, math.inf, math.nan)).to(x.dtype)


def polygamma(n: Any, x: Any) -> md.Tensor:
    """The n-th derivative of digamma; n comes first here."""
    if isinstance(n, int):
        return md.polygamma(inexact(x), n)
    n, x = _floats(n, x)
    sign = md.where(md.remainder(n, 2.0) == 0, -1.0, 1.0)
    return md.where(n == 0, md.digamma(x), sign * md.exp(md.lgamma(n + 1.0)) * zeta(md.maximum(n + 1.0, 2.0), x))


# ---- Bessel functions -------------------------------------------------------------------------------------------------------------------------
def i1(x: Any) -> md.Tensor:
    """The modified Bessel function of order 1, the derivative of that of order 0.

    >>> round(i1(md.tensor(1.0)).item(), 6)
    0.565159
    """
    x = inexact(x)
    return md.jvp(md.i0, (x,), (md.ones_like(x),))[1]


def _scaled(f: Any, order: int, x: md.Tensor) -> md.Tensor:
    """exp(-|x|) f(x); by Hankel's asymptotic series where the factors would overflow."""
    size = md.abs(x)
    near = size < 60.0
    far = _apart(~near, size, 60.0)
    term, total = md.ones_like(far), md.ones_like(far)
    for k in range(1, 15):
        term = -term * (4.0 * order * order - (2 * k - 1) ** 2) / (k * 8.0 * far)
        total = total + term
    total = total / md.sqrt(2.0 * math.pi * far)
    close = _apart(near, x, 0.0)
    return md.where(near, f(close) * md.exp(-md.abs(close)), md.sign(x) * total if order else total)


def i0e(x: Any) -> md.Tensor:
    """exp(-|x|) i0(x).

    >>> i0e(md.tensor(0.0)).item()
    1.0
    """
    return _scaled(md.i0, 0, inexact(x))


def i1e(x: Any) -> md.Tensor:
    """exp(-|x|) i1(x).

    >>> i1e(0.0).item()
    0.0
    """
    return _scaled(i1, 1, inexact(x))


def logit(x: Any) -> md.Tensor:
    """log(x / (1 - x))."""
    return md.logit(inexact(x))


def softmax(x: Any, axis: Any = None) -> md.Tensor:
    """exp(x) divided by its sum over axes, all of them by default."""
    x = inexact(x)
    return md.exp(x - md.logsumexp(x, axis=axis, keepdims=True))


def log_softmax(x: Any, axis: Any = None) -> md.Tensor:
    """The logarithm of softmax."""
    x = inexact(x)
    return x - md.logsumexp(x, axis=axis, keepdims=True)


_OWN = (
    xlog1py, entr, rel_entr, kl_div, boxcox, boxcox1p, log_ndtr, erfcx, gammasgn, gamma, factorial, beta, comb, poch, multigammaln, gammainc,
    gammaincc, betainc, zeta, polygamma, i1, i0e, i1e, logit, softmax, log_softmax,
)  # fmt: skip
NAMES: dict[str, Any] = {**{f.__name__: f for f in _OWN}, **integrals.NAMES, "logsumexp": reductions.logsumexp, "loggamma": md.lgamma}
_SAME = "betaln digamma erf erfc erfinv expit gammaln i0 ndtr ndtri xlogy"
__getattr__ = room(__name__, NAMES, (md,), _SAME)


def __dir__() -> list[str]:
    return sorted({*(n for n in globals() if not n.startswith("_")), *NAMES, *_SAME.split()})
