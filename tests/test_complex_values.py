"""Powers and functions of complex numbers on axes, where they overflow, and at infinities: the same on every backend, eager and compiled."""

from __future__ import annotations

import cmath
import math

import numpy as np
import pytest
from conventions.test_conventions import BACKENDS

import minidl as md

PARTS = [0.0, -0.0, 1.0, -2.5, 400.0, -800.0, math.inf, -math.inf, math.nan]
POINTS = np.array([complex(a, b) for a in PARTS for b in PARTS])
UNARY = "exp expm1 sin cosh tanh sigmoid log atanh".split()
BASES = np.array([complex(a, b) for a in (0.0, 1.0, -2.0, math.inf, math.nan) for b in (0.0, -1.0, -math.inf)])
EXPONENTS = np.array([complex(a, b) for a in (0.0, -1.0, 2.0, math.inf, -math.inf) for b in (0.0, 0.5, math.inf)])


def same(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Equal parts, nan included. A nan beside hides the sign of an infinity; a zero may have either sign."""
    out = np.ones(a.shape, bool)
    with np.errstate(invalid="ignore"):
        return _same(a, b, out)


def _same(a: np.ndarray, b: np.ndarray, out: np.ndarray) -> np.ndarray:
    for u, v, other in ((a.real, b.real, a.imag), (a.imag, b.imag, a.real)):
        signless = np.isnan(other) & np.isinf(u) & np.isinf(v)
        out &= (np.isnan(u) & np.isnan(v)) | (u == v) | signless | (np.isfinite(u) & (abs(u - v) <= 1e-12 * np.maximum(abs(a), 1e-300)))
    return out


def values(x: md.Tensor, base: md.Tensor, exponent: md.Tensor) -> list[md.Tensor]:
    return [*(getattr(md, n)(x) for n in UNARY), base[:, None] ** exponent]


@pytest.fixture(scope="module")
def wanted() -> list[np.ndarray]:
    with md.use_backend("numpy"):
        return [v.numpy() for v in values(*map(md.asarray, (POINTS, BASES, EXPONENTS)))]


@pytest.mark.parametrize("backend", [b for b in BACKENDS if b != "numpy"])
def test_backends_agree(backend, wanted):
    with md.use_backend(backend):
        args = [md.asarray(a) for a in (POINTS, BASES, EXPONENTS)]
        for how in (md.jit(values), *([values] if backend != "numba" else [])):
            for name, want, got in zip([*UNARY, "pow"], wanted, how(*args), strict=True):
                bad = ~same(want, got.numpy())
                assert not bad.any(), (name, np.argwhere(bad)[:3], want[bad][:3], got.numpy()[bad][:3])


def test_numpy_is_right(wanted):
    """Where all is finite, as Python has it; on the real axis functions are real however large they are; sigmoid neither overflows nor is nan."""
    found = dict(zip(UNARY, wanted, strict=False))
    for name in ("log", "tanh", "sin", "cosh"):
        for z, got in zip(POINTS, found[name], strict=True):
            if cmath.isfinite(z) and max(abs(z.real), abs(z.imag)) < 700 and (z or name != "log"):
                assert cmath.isclose(getattr(cmath, name)(z), got, rel_tol=1e-12), (name, z)
    real = (POINTS.imag == 0) & ~np.isnan(POINTS.real)
    for name in ("exp", "expm1", "cosh", "tanh"):
        assert (found[name][real].imag == 0).all(), name
    sigmoid = found["sigmoid"][np.isfinite(POINTS) & (abs(POINTS.real) >= 400)]
    np.testing.assert_allclose(sigmoid, np.where(sigmoid.real > 0.5, 1, 0), atol=1e-100)


def test_powers():
    """x ** y is exp(y log x), real on the real axis; x ** 0 is 1; 0 ** y is 0 where the real part of y is positive."""

    def power(x, y):
        return complex((md.asarray([complex(x)]) ** md.asarray([complex(y)])).item())

    assert power(complex(math.inf, math.nan), 0) == power(0, 0) == 1
    assert power(0, 1 + 1j) == 0 and cmath.isnan(power(0, -1)) and cmath.isnan(power(0, 1j))
    assert power(2, complex(-math.inf, 0)) == 0 and power(complex(math.inf, 0), -1) == 0
    assert power(complex(math.inf, 1), 2) == complex(math.inf, 0)
    assert power(2, math.inf) == math.inf and power(1, math.inf) == 1 and power(0.5, math.inf) == 0
    assert cmath.isclose(power(1 + 2j, 2), -3 + 4j, rel_tol=0.0 if md.extend.home().name == "numpy" else 2e-7)
