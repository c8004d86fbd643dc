"""Probability distributions, with PyTorch's names (torch.distributions): parameters in, samples, densities, entropies and divergences out.

    of loc + scale * z        Normal, Laplace, Cauchy, Gumbel
    of counts and classes     Bernoulli, Binomial, Geometric, Poisson, Categorical, OneHotCategorical, OneHotCategoricalStraightThrough
    of numbers in a range     Uniform, Exponential, HalfNormal, LogNormal, Gamma, Chi2, Beta
    of vectors                Dirichlet, MultivariateNormal
    of distributions          Independent; TransformedDistribution by AffineTransform, ExpTransform, SigmoidTransform, TanhTransform, ComposeTransform
    divergences               kl_divergence, register_kl

Promises: parameters broadcast, and are differentiable in log_prob, entropy, kl_divergence and, where has_rsample, in rsample. Everything runs eager,
jitted, vmapped and differentiated on every backend; draws stand on md.random, so that one seed (or `key=`) gives the same numbers everywhere. Values
are checked only where they may be looked at (validate_args).
"""

from __future__ import annotations

from minidl.distributions.base import Distribution
from minidl.distributions.categorical import Categorical, OneHotCategorical, OneHotCategoricalStraightThrough
from minidl.distributions.continuous import Beta, Chi2, Dirichlet, Exponential, Gamma, HalfNormal, Uniform
from minidl.distributions.discrete import Bernoulli, Binomial, Geometric, Poisson
from minidl.distributions.independent import Independent
from minidl.distributions.kl import kl_divergence, register_kl
from minidl.distributions.location_scale import Cauchy, Gumbel, Laplace, Normal
from minidl.distributions.multivariate import MultivariateNormal
from minidl.distributions.transformed import LogNormal, TransformedDistribution
from minidl.distributions.transforms import AffineTransform, ComposeTransform, ExpTransform, SigmoidTransform, TanhTransform, Transform

__all__ = [
    "AffineTransform", "Bernoulli", "Beta", "Binomial", "Categorical", "Cauchy", "Chi2", "ComposeTransform", "Dirichlet", "Distribution",
    "ExpTransform", "Exponential", "Gamma", "Geometric", "Gumbel", "HalfNormal", "Independent", "Laplace", "LogNormal", "MultivariateNormal",
    "Normal", "OneHotCategorical", "OneHotCategoricalStraightThrough", "Poisson", "SigmoidTransform", "TanhTransform", "Transform",
    "TransformedDistribution", "Uniform", "kl_divergence", "register_kl",
]  # fmt: skip
