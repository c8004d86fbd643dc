"""Probability distributions, with PyTorch's names (torch.distributions): parameters in, samples, densities, entropies and divergences out.

    of loc + scale * z        Normal, Laplace, Cauchy, Gumbel, StudentT
    of counts and classes     Bernoulli, Binomial, Geometric, NegativeBinomial, Poisson, Categorical, Multinomial, OneHotCategorical,
                              OneHotCategoricalStraightThrough
    of numbers in a range     Uniform, Exponential, HalfNormal, HalfCauchy, LogNormal, Gamma, InverseGamma, Chi2, FisherSnedecor, Pareto, Weibull,
                              Beta
    of vectors                Dirichlet, MultivariateNormal, LowRankMultivariateNormal
    of distributions          Independent, MixtureSameFamily; TransformedDistribution by the transforms in `transforms`
    divergences               kl_divergence, register_kl

Promises: parameters broadcast, and are differentiable in log_prob, entropy, kl_divergence and, where has_rsample, in rsample. Everything runs eager,
jitted, vmapped and differentiated on every backend; draws stand on md.random, so that one seed (or `key=`) gives the same numbers everywhere. Values
are checked only where they may be looked at (validate_args).
"""

from __future__ import annotations

import sys

from minidl.distributions import constraints, kl, transforms
from minidl.distributions.base import Distribution
from minidl.distributions.categorical import Categorical, Multinomial, OneHotCategorical, OneHotCategoricalStraightThrough
from minidl.distributions.continuous import Beta, Chi2, Dirichlet, Exponential, Gamma, HalfNormal, Uniform
from minidl.distributions.discrete import Bernoulli, Binomial, Geometric, NegativeBinomial, Poisson
from minidl.distributions.heavy import FisherSnedecor, HalfCauchy, InverseGamma, Pareto, StudentT, Weibull
from minidl.distributions.independent import Independent
from minidl.distributions.kl import kl_divergence, register_kl
from minidl.distributions.location_scale import Cauchy, Gumbel, Laplace, Normal
from minidl.distributions.mixture import MixtureSameFamily
from minidl.distributions.multivariate import LowRankMultivariateNormal, MultivariateNormal
from minidl.distributions.transformed import LogNormal, TransformedDistribution
from minidl.distributions.transforms import (
    AbsTransform,
    AffineTransform,
    ComposeTransform,
    CumulativeDistributionTransform,
    ExpTransform,
    IndependentTransform,
    PowerTransform,
    SigmoidTransform,
    SoftmaxTransform,
    SoftplusTransform,
    TanhTransform,
    Transform,
    identity_transform,
)  # fmt: skip

# PyTorch has a module for each: `from minidl.distributions.normal import Normal`.
for _name in """bernoulli beta binomial cauchy chi2 dirichlet distribution exponential fishersnedecor gamma geometric gumbel half_cauchy half_normal
inverse_gamma laplace log_normal lowrank_multivariate_normal mixture_same_family multinomial multivariate_normal negative_binomial normal
one_hot_categorical pareto poisson studentT transformed_distribution uniform weibull""".split():
    sys.modules[f"{__name__}.{_name}"] = globals()[_name] = sys.modules[__name__]

__all__ = [
    "AbsTransform", "AffineTransform", "Bernoulli", "Beta", "Binomial", "Categorical", "Cauchy", "Chi2", "ComposeTransform",
    "CumulativeDistributionTransform", "Dirichlet", "Distribution", "ExpTransform", "Exponential", "FisherSnedecor", "Gamma", "Geometric", "Gumbel",
    "HalfCauchy", "HalfNormal", "Independent", "IndependentTransform", "InverseGamma", "Laplace", "LogNormal", "LowRankMultivariateNormal",
    "MixtureSameFamily", "Multinomial", "MultivariateNormal", "NegativeBinomial", "Normal", "OneHotCategorical", "OneHotCategoricalStraightThrough",
    "Pareto", "Poisson", "PowerTransform", "SigmoidTransform", "SoftmaxTransform", "SoftplusTransform", "StudentT", "TanhTransform", "Transform",
    "TransformedDistribution", "Uniform", "Weibull", "constraints", "identity_transform", "kl", "kl_divergence", "register_kl", "transforms",
]  # fmt: skip
