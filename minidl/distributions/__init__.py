"""Probability distributions, with PyTorch's names (torch.distributions): parameters in, samples, densities, entropies and divergences out.

    of loc + scale * z        Normal, Laplace, Cauchy, Gumbel, StudentT
    of counts and classes     Bernoulli, Binomial, Geometric, NegativeBinomial, Poisson, Categorical, Multinomial, OneHotCategorical,
                              OneHotCategoricalStraightThrough
    of numbers in a range     Uniform, Exponential, HalfNormal, HalfCauchy, LogNormal, Gamma, InverseGamma, Chi2, FisherSnedecor, Pareto, Weibull,
                              GeneralizedPareto, Beta, Kumaraswamy, ContinuousBernoulli, VonMises
    of vectors                Dirichlet, LogisticNormal, MultivariateNormal, LowRankMultivariateNormal
    in the place of classes   RelaxedBernoulli, RelaxedOneHotCategorical, whose draws move with their parameters
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
from minidl.distributions.bounded import ContinuousBernoulli, GeneralizedPareto, Kumaraswamy, VonMises
from minidl.distributions.categorical import Categorical, Multinomial, OneHotCategorical, OneHotCategoricalStraightThrough
from minidl.distributions.continuous import Beta, Chi2, Dirichlet, Exponential, Gamma, HalfNormal, Uniform
from minidl.distributions.discrete import Bernoulli, Binomial, Geometric, NegativeBinomial, Poisson
from minidl.distributions.heavy import FisherSnedecor, HalfCauchy, InverseGamma, Pareto, StudentT, Weibull
from minidl.distributions.independent import Independent
from minidl.distributions.kl import kl_divergence, register_kl
from minidl.distributions.location_scale import Cauchy, Gumbel, Laplace, Normal
from minidl.distributions.mixture import MixtureSameFamily
from minidl.distributions.multivariate import LowRankMultivariateNormal, MultivariateNormal
from minidl.distributions.relaxed import ExpRelaxedCategorical, LogisticNormal, LogitRelaxedBernoulli, RelaxedBernoulli, RelaxedOneHotCategorical
from minidl.distributions.transformed import LogNormal, TransformedDistribution
from minidl.distributions.transforms import (
    AbsTransform,
    AffineTransform,
    ComposeTransform,
    CumulativeDistributionTransform,
    ExpTransform,
    IndependentTransform,
    PowerTransform,
    ReshapeTransform,
    SigmoidTransform,
    SoftmaxTransform,
    SoftplusTransform,
    StickBreakingTransform,
    TanhTransform,
    Transform,
    identity_transform,
)  # fmt: skip

# PyTorch has a module for each: `from minidl.distributions.normal import Normal`.
for _name in """bernoulli beta binomial cauchy chi2 continuous_bernoulli dirichlet distribution exponential fishersnedecor gamma generalized_pareto
geometric gumbel half_cauchy half_normal inverse_gamma kumaraswamy laplace log_normal logistic_normal lowrank_multivariate_normal
mixture_same_family multinomial multivariate_normal negative_binomial normal one_hot_categorical pareto poisson relaxed_bernoulli
relaxed_categorical studentT transformed_distribution uniform von_mises weibull""".split():
    sys.modules[f"{__name__}.{_name}"] = globals()[_name] = sys.modules[__name__]

__all__ = [
    "AbsTransform", "AffineTransform", "Bernoulli", "Beta", "Binomial", "Categorical", "Cauchy", "Chi2", "ComposeTransform", "ContinuousBernoulli",
    "CumulativeDistributionTransform", "Dirichlet", "Distribution", "ExpRelaxedCategorical", "ExpTransform", "Exponential", "FisherSnedecor",
    "Gamma", "GeneralizedPareto", "Geometric", "Gumbel", "HalfCauchy", "HalfNormal", "Independent", "IndependentTransform", "InverseGamma",
    "Kumaraswamy", "Laplace", "LogNormal", "LogisticNormal", "LogitRelaxedBernoulli", "LowRankMultivariateNormal", "MixtureSameFamily",
    "Multinomial", "MultivariateNormal", "NegativeBinomial", "Normal", "OneHotCategorical", "OneHotCategoricalStraightThrough", "Pareto", "Poisson",
    "PowerTransform", "RelaxedBernoulli", "RelaxedOneHotCategorical", "ReshapeTransform", "SigmoidTransform", "SoftmaxTransform",
    "SoftplusTransform", "StickBreakingTransform", "StudentT", "TanhTransform", "Transform", "TransformedDistribution", "Uniform", "VonMises",
    "Weibull", "constraints", "identity_transform", "kl", "kl_divergence", "register_kl", "transforms",
]  # fmt: skip
