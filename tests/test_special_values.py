"""Special functions against SciPy's. The suite of primitives compares backends with NumPy, and derivatives with values; a constant that is wrong in a
decomposition that all of them share, as in both parts of the Bessel functions, shows in neither."""

from __future__ import annotations

import numpy as np
from scipy import special

import minidl as md
import minidl.arrays.special

ns = md.extend.ns
_RNG = np.random.default_rng(0)
REAL = np.concatenate([_RNG.uniform(-40, 40, 120), 10 ** _RNG.uniform(-8, 2.7, 60), -(10 ** _RNG.uniform(-8, 2.3, 60)), [17.9, 18.1, -18.0, 0.0]])
POSITIVE = abs(REAL) + 1e-6
UNIT = np.tanh(REAL / 4) * 0.999
#: function, SciPy's, where
CASES = {
    "bessel_i 0": (lambda x: ns.bessel_i(x, n=0), special.i0, REAL), "bessel_i 1": (lambda x: ns.bessel_i(x, n=1), special.i1, REAL),
    "bessel_i 2": (lambda x: ns.bessel_i(x, n=2), lambda x: special.iv(2, x), REAL),
    "bessel_i 5": (lambda x: ns.bessel_i(x, n=5), lambda x: special.iv(5, x), REAL),
    "erf": (ns.erf, special.erf, REAL), "erfc": (ns.erfc, special.erfc, np.clip(REAL, -40, 5)), "erfinv": (ns.erfinv, special.erfinv, UNIT),
    "lgamma": (ns.lgamma, special.gammaln, POSITIVE), "lgamma below 0": (ns.lgamma, special.gammaln, -POSITIVE[:100] % 7 - 7.5 + 1e-3),
    "digamma": (ns.digamma, special.psi, POSITIVE), "trigamma": (lambda x: ns.polygamma(x, n=1), lambda x: special.polygamma(1, x), POSITIVE),
    "polygamma 4": (lambda x: ns.polygamma(x, n=4), lambda x: special.polygamma(4, x), POSITIVE),
    "sigmoid": (ns.sigmoid, special.expit, REAL), "softplus": (ns.softplus, lambda x: np.logaddexp(x, 0.0), REAL),
    "xlogy": (lambda x: ns.xlogy(x, ns.abs(x)), lambda x: special.xlogy(x, abs(x)), REAL), "expm1": (ns.expm1, np.expm1, REAL),
    "log1p": (ns.log1p, np.log1p, POSITIVE), "root 3": (lambda x: ns.root(x, p=3), np.cbrt, POSITIVE),
    "logaddexp": (lambda x: ns.logaddexp(x, ns.neg(x)), lambda x: np.logaddexp(x, -x), REAL),
    "logsumexp": (lambda x: ns.logsumexp(ns.reshape(x, shape=(4, 61)), axis=(0,), keepdims=False),
                  lambda x: special.logsumexp(x.reshape(4, -1), axis=0), REAL),
    "softmax": (lambda x: ns.softmax(ns.reshape(x, shape=(2, 2, 61)), axis=1), lambda x: special.softmax(x.reshape(2, 2, -1), axis=1), REAL),
    "log_softmax": (lambda x: ns.log_softmax(ns.reshape(x, shape=(2, 2, 61)), axis=1),
                    lambda x: special.log_softmax(x.reshape(2, 2, -1), axis=1), REAL),
}  # fmt: skip


def near(got, want, name):
    assert got.shape == want.shape and np.isfinite(want).all(), name
    worst = np.max(abs(got - want) / np.maximum(abs(want), 1.0 if name.split()[0] in ("digamma", "lgamma", "logsumexp", "log_softmax") else 1e-300))
    assert worst < 1e-13, (name, worst)  # eps times what the condition of erfc at 5 and of exp at 40 makes of it


def test_special_functions_have_scipys_values(backend):
    xs = [md.asarray(x, dtype=md.float64) for _, _, x in CASES.values()]
    run = lambda *xs: [f(x) for (f, _, _), x in zip(CASES.values(), xs, strict=True)]
    for found in (md.jit(run)(*xs), *([run(*xs)] if backend in ("numpy", "torch") else [])):
        for got, (name, (_, theirs, x)) in zip(found, CASES.items(), strict=True):
            assert got.backend == backend
            near(got.numpy(), theirs(x), name)


def test_poles_of_the_gamma_functions(backend):
    """Infinite where both sides agree, and at 0, with its sign; else nan."""
    x, inf, nan = md.asarray([0.0, -0.0, -1.0, -4.0, np.inf, -np.inf], dtype=md.float64), np.inf, np.nan
    run = lambda x: (ns.lgamma(x), ns.digamma(x), *(ns.polygamma(x, n=n) for n in (1, 2, 3)))
    want = [inf] * 6, [-inf, inf, nan, nan, inf, nan], [*[inf] * 4, 0, nan], [-inf, -inf, nan, nan, 0, nan], [*[inf] * 4, 0, nan]
    for found in (md.jit(run)(x), *([run(x)] if backend in ("numpy", "torch") else [])):
        np.testing.assert_array_equal([f.numpy() for f in found], want)


def test_whole_numbers_that_only_float64_holds_become_integers(backend):
    x = np.array([2.0**53 - 1, 1 - 2.0**53, 2.0**40 + 1, 16777217.0, -16777219.0])
    for run in (lambda x: x.to(md.int64), md.jit(lambda x: x.to(md.int64))):
        assert run(md.asarray(x, dtype=md.float64)).tolist() == [int(v) for v in x]
