"""chain: five transcendental functions in a row on a million float32 numbers, forward: nothing but the speed of exp, log, tanh, sin and erf."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks import sides

SIZE = 1_000_000


def text(xp: Any, x: Any, erf: Any = None) -> Any:
    """The chain; erf is not always where the others are."""
    h = xp.log(xp.exp(-x * x) + 1.0)
    return (erf or xp.erf)(xp.sin(xp.tanh(h + x) * 3.0))


def with_jax(jnp: Any, x: Any) -> Any:
    """jax keeps erf among the special functions."""
    import jax

    return text(jnp, x, jax.scipy.special.erf)


def with_autograd(anp: Any, x: Any) -> Any:
    """As does autograd, in SciPy's place."""
    from autograd.scipy.special import erf

    return text(anp, x, erf)


def by_hand(x: np.ndarray) -> np.ndarray:
    """NumPy has no erf; its users take SciPy's."""
    from scipy.special import erf

    return text(np, x, erf)


def run(bench: Any) -> None:
    """All sides; MyGrad has no erf."""
    x = np.random.default_rng(0).normal(size=SIZE).astype(np.float32)
    also = {"jax": with_jax, "autograd": with_autograd, "mygrad": None}
    sides.compare(bench, "chain", sides.functional(bench, text, (x,), (), by_hand, also), 1e-4)
