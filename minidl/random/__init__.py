"""Random numbers by threefry2x32 (J. Salmon et al., Parallel random numbers: as easy as 1, 2, 3, SC 2011), the same on every backend.

Functional, with JAX's names: a key is a Tensor uint32[2]; every draw takes one, and the same key gives the same numbers. Stateful, as in PyTorch:
`manual_seed` and `default_generator`, which initialisation, dropout and shuffling draw from.

    equal to jax.random's bit for bit    key, split, fold_in, bits, uniform on [0, 1), bernoulli, permutation, randint of at most 2**16 integers
    the same draws but for rounding      bounded uniform, normal, truncated_normal, exponential, gumbel, categorical, choice; rademacher, and in the
                                         dtype itself laplace, logistic, cauchy, lognormal, multivariate_normal
    the same distribution                gamma, loggamma, beta, dirichlet, poisson, orthogonal

Promises: no backend's own generator is ever called; an element depends on its key and its place alone; bits, uniform, randint, bernoulli, coins
and permutation are equal bit for bit on all backends, eager, jitted and vmapped; most other distributions are computed in float64 by one text and
rounded once. Differentiable in parameters that are Tensors: uniform, truncated_normal, gamma, loggamma, beta, dirichlet. A generator that was never
seeded starts at seed 0. Eager on jax, where each operation is compiled by itself, a draw is one program (`whole`).
"""

from __future__ import annotations

from minidl.extend import check_all
from minidl.random.discrete import categorical, choice, permutation, poisson
from minidl.random.gamma import beta, dirichlet, gamma, loggamma
from minidl.random.generator import Generator, default_generator, fork_rng, manual_seed
from minidl.random.keys import fold_in, key, split
from minidl.random.normal import exponential, gumbel, normal, orthogonal, truncated_normal
from minidl.random.shifted import cauchy, laplace, logistic, lognormal, multivariate_normal, rademacher
from minidl.random.uniform import bernoulli, bits, coins, randint, uniform

__all__ = [
    "Generator", "bernoulli", "beta", "bits", "categorical", "cauchy", "choice", "coins", "default_generator", "dirichlet", "exponential", "fold_in",
    "fork_rng", "gamma", "gumbel", "key", "laplace", "loggamma", "logistic", "lognormal", "manual_seed", "multivariate_normal", "normal",
    "orthogonal", "permutation", "poisson", "rademacher", "randint", "split", "truncated_normal", "uniform",
]  # fmt: skip
PRNGKey = key  # as JAX called it first
check_all(globals(), __all__, "random.")
