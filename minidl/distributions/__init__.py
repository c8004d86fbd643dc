"""Probability distributions, with PyTorch's names (torch.distributions): parameters in, samples, densities, entropies and divergences out.

    of loc + scale * z        Normal, Laplace, Cauchy, Gumbel
    of counts and classes     Bernoulli, Binomial, Geometric, Poisson, Categorical, OneHotCategorical, OneHotCategoricalStraightThrough
    of distributions          Independent
    divergences               kl_divergence, register_kl

Promises: parameters broadcast, and are differentiable in log_prob, entropy, kl_divergence and, where has_rsample, in rsample. Everything runs eager,
jitted, vmapped and differentiated on every backend; draws stand on md.random, so that one seed (or `key=`) gives the same numbers everywhere. Values
are checked only where they may be looked at (validate_args).
"""

from __future__ import annotations

from minidl.distributions.base import Distribution
from minidl.distributions.categorical import Categorical, OneHotCategorical, OneHotCategoricalStraightThrough
from minidl.distributions.discrete import Bernoulli, Binomial, Geometric, Poisson
from minidl.distributions.independent import Independent
from minidl.distributions.kl import kl_divergence, register_kl
from minidl.distributions.location_scale import Cauchy, Gumbel, Laplace, Normal

__all__ = [
    "Bernoulli", "Binomial", "Categorical", "Cauchy", "Distribution", "Geometric", "Gumbel", "Independent", "Laplace", "Normal", "OneHotCategorical",
    "OneHotCategoricalStraightThrough", "Poisson", "kl_divergence", "register_kl",
]  # fmt: skip
