"""md.distributions against torch.distributions in float64: numbers, gradients in the parameters, moments of draws, and where they run."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch

import minidl as md

D, T = md.distributions, torch.distributions

#: Class → parameters, and values inside the support.
CASES: dict[str, tuple[dict[str, Any], Any]] = {
    "Normal": ({"loc": [0.5, -1.0], "scale": [0.7, 2.0]}, [[0.3, 2.0], [-1.0, 0.1]]),
    "Laplace": ({"loc": [0.5, -1.0], "scale": [0.7, 2.0]}, [[0.3, 2.0], [-1.3, 0.1]]),
    "Cauchy": ({"loc": [0.5, -1.0], "scale": [0.7, 2.0]}, [[0.3, 2.0], [-1.0, 0.1]]),
    "Gumbel": ({"loc": [0.5, -1.0], "scale": [0.7, 2.0]}, [[0.3, 2.0], [-1.0, 0.1]]),
    "Bernoulli": ({"probs": [0.2, 0.9]}, [[0.0, 1.0], [1.0, 0.0]]),
    "Bernoulli logits": ({"logits": [-3.0, 0.4]}, [[0.0, 1.0], [1.0, 0.0]]),
    "Geometric": ({"probs": [0.2, 0.9]}, [[0.0, 1.0], [4.0, 0.0]]),
    "Geometric logits": ({"logits": [-3.0, 0.4]}, [[0.0, 1.0], [4.0, 0.0]]),
    "Binomial": ({"probs": [0.2, 0.9], "total_count": 5}, [[0.0, 1.0], [5.0, 3.0]]),
    "Binomial logits": ({"logits": [-3.0, 0.4], "total_count": 5}, [[0.0, 1.0], [5.0, 3.0]]),
    "Poisson": ({"rate": [0.4, 7.0]}, [[0.0, 1.0], [4.0, 12.0]]),
    "Categorical": ({"probs": [[0.1, 0.3, 0.6], [2.0, 1.0, 1.0]]}, [[0, 1], [2, 2]]),
    "Categorical logits": ({"logits": [[0.1, 0.3, 0.6], [2.0, 1.0, -1.0]]}, [[0, 1], [2, 2]]),
    "OneHotCategorical": ({"probs": [[0.1, 0.3, 0.6], [2.0, 1.0, 1.0]]}, [[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]),
    "OneHotCategorical logits": ({"logits": [[0.1, 0.3, 0.6], [2.0, 1.0, -1.0]]}, [[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]),
    "Uniform": ({"low": [0.0, -1.0], "high": [1.0, 3.0]}, [[0.3, 2.0], [0.9, 0.1]]),
    "Exponential": ({"rate": [0.5, 2.0]}, [[0.3, 2.0], [1.0, 0.1]]),
    "HalfNormal": ({"scale": [0.5, 2.0]}, [[0.3, 2.0], [1.0, 0.1]]),
    "LogNormal": ({"loc": [0.5, -1.0], "scale": [0.7, 0.4]}, [[0.3, 2.0], [1.0, 0.1]]),
    "Gamma": ({"concentration": [0.5, 3.0], "rate": [2.0, 0.7]}, [[0.3, 2.0], [1.0, 0.1]]),
    "Chi2": ({"df": [1.5, 3.0]}, [[0.3, 2.0], [1.0, 0.1]]),
    "Beta": ({"concentration1": [0.5, 3.0], "concentration0": [2.0, 1.7]}, [[0.3, 0.8], [0.9, 0.1]]),
    "Dirichlet": ({"concentration": [[0.5, 3.0, 1.0], [0.2, 0.4, 0.8]]}, [[0.3, 0.2, 0.5], [0.1, 0.8, 0.1]]),
    "StudentT": ({"df": [0.5, 1.5, 7.0], "loc": [0.1, 2.0, -1.0], "scale": [1.0, 0.4, 2.0]}, [[0.3, 2.0, 1.0], [1.0, 0.1, -3.0]]),
    "HalfCauchy": ({"scale": [0.5, 2.0]}, [[0.3, 2.0], [1.0, 0.1]]),
    "Pareto": ({"scale": [0.5, 2.0, 1.0], "alpha": [0.7, 1.5, 5.0]}, [[0.6, 2.0, 3.0], [1.0, 2.1, 1.5]]),
    "Weibull": ({"scale": [0.5, 2.0], "concentration": [1.5, 3.0]}, [[0.3, 2.0], [1.0, 0.1]]),
    "InverseGamma": ({"concentration": [0.5, 1.5, 5.0], "rate": [2.0, 0.7, 1.0]}, [[0.3, 2.0, 0.2], [1.0, 0.1, 0.4]]),
    "FisherSnedecor": ({"df1": [1.5, 3.0, 4.0], "df2": [1.0, 3.7, 9.0]}, [[0.3, 2.0, 0.2], [1.0, 0.1, 0.4]]),
    "NegativeBinomial": ({"total_count": [0.5, 5.0], "probs": [0.2, 0.9]}, [[0.0, 1.0], [4.0, 12.0]]),
    "NegativeBinomial logits": ({"total_count": [1.5, 5.0], "logits": [-1.0, 0.4]}, [[0.0, 1.0], [4.0, 12.0]]),
    "Multinomial": ({"probs": [[0.1, 0.3, 0.6], [2.0, 1.0, 1.0]], "total_count": 4}, [[0.0, 1.0, 3.0], [4.0, 0.0, 0.0]]),
    "Multinomial logits": ({"logits": [[0.1, 0.3, 0.6], [2.0, 1.0, -1.0]], "total_count": 4}, [[0.0, 1.0, 3.0], [4.0, 0.0, 0.0]]),
    "LowRankMultivariateNormal": (
        {"loc": [[0.5, -1.0, 2.0], [0.0, 0.1, 0.2]], "cov_factor": [[0.3, 1.0], [-0.6, 0.5], [0.0, 2.0]], "cov_diag": [0.5, 1.0, 0.2]},
        [[0.3, 0.8, 1.0], [0.9, 0.1, -2.0]],
    ),
    "ContinuousBernoulli": ({"probs": [0.2, 0.5004, 0.9]}, [[0.3, 0.8, 0.1], [0.9, 0.1, 0.5]]),
    "ContinuousBernoulli logits": ({"logits": [-3.0, 0.4]}, [[0.3, 0.8], [0.9, 0.1]]),
    "Kumaraswamy": ({"concentration1": [0.5, 3.0], "concentration0": [0.8, 1.7]}, [[0.3, 0.8], [0.9, 0.1]]),
    "MultivariateNormal": ({"loc": [0.5, -1.0], "covariance_matrix": [[2.0, 0.6], [0.6, 0.5]]}, [[0.3, 0.8], [0.9, 0.1]]),
    "MultivariateNormal precision": ({"loc": [0.5, -1.0], "precision_matrix": [[2.0, 0.6], [0.6, 0.5]]}, [[0.3, 0.8], [0.9, 0.1]]),
    "MultivariateNormal tril": ({"loc": [[0.5, -1.0]], "scale_tril": [[[2.0, 0.0], [0.6, 0.5]]] * 2}, [[0.3, 0.8], [0.9, 0.1]]),
}  # fmt: skip
#: Other parameters of the same classes, for divergences.
OTHERS: dict[str, dict[str, Any]] = {
    "Normal": {"loc": [0.1, 2.0], "scale": [1.0, 0.4]}, "Laplace": {"loc": [0.1, 2.0], "scale": [1.0, 0.4]},
    "Cauchy": {"loc": [0.1, 2.0], "scale": [1.0, 0.4]}, "Gumbel": {"loc": [0.1, 1.0], "scale": [1.0, 1.4]},
    "Bernoulli": {"probs": [0.6, 0.3]}, "Bernoulli logits": {"logits": [1.0, -2.0]}, "Geometric": {"probs": [0.6, 0.3]},
    "Binomial": {"probs": [0.6, 0.3], "total_count": 5}, "Poisson": {"rate": [1.0, 5.0]},
    "Categorical": {"probs": [[0.3, 0.3, 0.4], [0.1, 1.0, 1.0]]}, "Categorical logits": {"logits": [[1.1, 0.0, 0.6], [0.0, 1.0, -1.0]]},
    "OneHotCategorical": {"probs": [[0.3, 0.3, 0.4], [0.1, 1.0, 1.0]]},
    "Uniform": {"low": [-0.5, 0.0], "high": [1.5, 4.0]}, "Exponential": {"rate": [1.0, 5.0]}, "HalfNormal": {"scale": [1.0, 5.0]},
    "LogNormal": {"loc": [0.1, 2.0], "scale": [1.0, 0.4]}, "Gamma": {"concentration": [1.5, 2.0], "rate": [1.0, 0.4]},
    "Beta": {"concentration1": [1.5, 2.0], "concentration0": [1.0, 0.4]}, "Dirichlet": {"concentration": [[1.5, 2.0, 1.0], [1.0, 0.4, 2.0]]},
    "MultivariateNormal": {"loc": [0.0, 1.0], "covariance_matrix": [[1.0, -0.6], [-0.6, 2.5]]},
    "MultivariateNormal tril": {"loc": [0.0, 1.0], "scale_tril": [[1.0, 0.0], [-0.6, 2.5]]},
}  # fmt: skip


def ours(name: str, parameters: Any) -> Any:
    return getattr(D, name.split()[0])(**{n: md.tensor(np.asarray(x, np.float64)) if isinstance(x, list) else x for n, x in parameters.items()})


def torchs(name: str, parameters: Any, leaves: list[torch.Tensor] | None = None) -> Any:
    made = {n: torch.tensor(x, dtype=torch.float64, requires_grad=leaves is not None) if isinstance(x, list) else x for n, x in parameters.items()}
    if leaves is not None:
        leaves.extend(x for x in made.values() if isinstance(x, torch.Tensor))
    return getattr(T, name.split()[0])(**made)


#: torch.polygamma(1, x) has a relative error of 1e-9 (of pi**2 / 6 at 1), and these entropies and divergences have it in their gradients.
COARSE = {"Gamma": 5e-9, "Chi2": 5e-9, "Beta": 5e-9, "Dirichlet": 5e-9, "StudentT": 5e-9, "InverseGamma": 5e-9, "Kumaraswamy": 5e-9}


def close(ours: md.Tensor, torchs: torch.Tensor, rtol: float = 1e-10) -> None:
    assert tuple(ours.shape) == tuple(torchs.shape)
    np.testing.assert_allclose(ours.numpy(), torchs.detach().numpy(), rtol=rtol, atol=1e-12)


def there(function: Any) -> Any:
    try:
        return function()
    except NotImplementedError:
        return None


def gradients(name: str, parameters: Any, of: Any) -> list[md.Tensor]:
    """Of a sum of `of(distribution)` in the parameters that are arrays."""
    arrays = {n: md.tensor(np.asarray(x, np.float64)) for n, x in parameters.items() if isinstance(x, list)}
    fixed = {n: x for n, x in parameters.items() if n not in arrays}
    found = md.jit(md.grad(lambda a: of(getattr(D, name.split()[0])(**a, **fixed)).sum()))(arrays)
    return [found[n] for n in arrays]


@pytest.mark.parametrize("name", CASES)
def test_numbers_and_gradients_are_torchs(name):
    parameters, value = CASES[name]
    leaves: list[torch.Tensor] = []
    a, b = ours(name, parameters), torchs(name, parameters, leaves)
    y = torch.tensor(value, dtype=torch.int64 if name.startswith("Categorical") else torch.float64)
    x = md.tensor(y.numpy())
    assert (a.batch_shape, a.event_shape, a.has_rsample) == (tuple(b.batch_shape), tuple(b.event_shape), b.has_rsample)
    close(a.log_prob(x), b.log_prob(y))
    its = torch.autograd.grad(b.log_prob(y).sum(), leaves, retain_graph=True)
    for found, wanted in zip(gradients(name, parameters, lambda d: d.log_prob(x)), its, strict=True):
        close(found, wanted)
    for what in ("mean", "variance", "stddev", "mode"):
        if (name, what) != ("Kumaraswamy", "mode") and (wanted := there(lambda what=what: getattr(b, what))) is not None:  # nan in torch
            close(getattr(a, what), wanted)
    if (wanted := there(b.entropy)) is not None:
        rtol = 3e-8 if "Multinomial" in name else 1e-10  # torch takes lgamma of the count in float32
        close(a.entropy(), wanted, rtol)
        close(a.perplexity(), b.perplexity(), rtol)
        if "Binomial" not in name and "Multinomial" not in name:  # the count decides a shape there
            its = torch.autograd.grad(wanted.sum(), leaves, allow_unused=True, retain_graph=True)
            for found, one in zip(gradients(name, parameters, lambda d: d.entropy()), its, strict=True):
                close(found, torch.zeros(tuple(found.shape)) if one is None else one, COARSE.get(name, 1e-10))
    if (wanted := there(lambda: b.cdf(y))) is not None:
        close(a.cdf(x), wanted)
        if (back := there(lambda: b.icdf(wanted))) is not None:
            close(a.icdf(md.tensor(wanted.detach().numpy())), back, rtol=1e-8)
    if b.has_enumerate_support:
        for expand in (False, True):
            close(a.enumerate_support(expand), b.enumerate_support(expand))
    close(a.expand((3, *a.batch_shape)).log_prob(x[0]), b.expand((3, *b.batch_shape)).log_prob(y[0]))


@pytest.mark.parametrize("name", OTHERS)
def test_divergences_are_torchs(name):
    leaves: list[torch.Tensor] = []
    p, q = torchs(name, CASES[name][0], leaves), torchs(name, OTHERS[name], leaves)
    wanted = T.kl_divergence(p, q)
    a, b = ours(name, CASES[name][0]), ours(name, OTHERS[name])
    close(D.kl_divergence(a, b), wanted)
    found = gradients(name, CASES[name][0], lambda p: D.kl_divergence(p, b)) + gradients(name, OTHERS[name], lambda q: D.kl_divergence(a, q))
    for mine, its in zip(found, torch.autograd.grad(wanted.sum(), leaves), strict=True):
        close(mine, its, COARSE.get(name, 1e-10))


#: Class → scipy's distribution function of the same, for those of which moments do not tell: they are infinite or far from those of draws.
HEAVY: dict[str, Any] = {
    "StudentT": lambda s, x, d: s.t.cdf(x, d["df"], d["loc"], d["scale"]), "HalfCauchy": lambda s, x, d: s.halfcauchy.cdf(x, 0.0, d["scale"]),
    "Pareto": lambda s, x, d: s.pareto.cdf(x, d["alpha"], 0.0, d["scale"]),
    "InverseGamma": lambda s, x, d: s.invgamma.cdf(x, d["concentration"], 0.0, d["rate"]),
    "FisherSnedecor": lambda s, x, d: s.f.cdf(x, d["df1"], d["df2"]),
}  # fmt: skip


@pytest.mark.parametrize("name", HEAVY)
def test_draws_have_the_distribution(name):
    """By Kolmogorov and Smirnov's largest distance, whose chance of being above 1.95 / sqrt(n) is 0.1 %."""
    stats = pytest.importorskip("scipy.stats")
    parameters = {n: np.asarray(v) for n, v in CASES[name][0].items()}
    draws = np.sort(ours(name, CASES[name][0]).sample((4000,), key=md.random.key(3)).numpy(), axis=0)
    ranks = (np.arange(4000)[:, None] + 0.5) / 4000
    assert np.abs(HEAVY[name](stats, draws, parameters) - ranks).max() < 1.95 / np.sqrt(4000)


@pytest.mark.parametrize("name", [n for n in CASES if n not in HEAVY])
def test_draws_have_the_moments(name):
    d = ours(name, CASES[name][0])
    draws = d.sample((20_000,), key=md.random.key(3))
    assert draws.shape == (20_000, *d.batch_shape, *d.event_shape)
    if name == "Cauchy":
        np.testing.assert_allclose((draws.numpy() < d.loc.numpy() + d.scale.numpy()).mean(axis=0), 0.75, atol=0.015)
        return
    if "Categorical" in name and not d.event_shape:
        draws, mean, variance = D.categorical.one_hot(draws, 3, md.float64), d.probs, d.probs * (1 - d.probs)
    else:
        mean, variance = d.mean, d.variance
    error = np.abs(draws.numpy().mean(axis=0) - mean.numpy()) / np.sqrt(variance.numpy() / 20_000)
    assert error.max() < 4.5
    np.testing.assert_allclose(draws.numpy().var(axis=0), variance.numpy(), rtol=0.12)


MOVED = "Normal Laplace Cauchy Gumbel Uniform Exponential HalfNormal LogNormal HalfCauchy Pareto Weibull Kumaraswamy".split()


@pytest.mark.parametrize("name", MOVED)
def test_rsample_moves_a_number_with_its_quantile(name):
    """d cdf(x(theta); theta) / d theta = 0."""
    for x in gradients(name, CASES[name][0], lambda d: d.cdf(d.rsample((5,), key=md.random.key(1)))):
        np.testing.assert_allclose(x.numpy(), 0.0, atol=1e-9)
    mean = gradients(name, CASES[name][0], lambda d: d.rsample((4,), key=md.random.key(1)))
    assert all(np.abs(x.numpy()).min() > 0 for x in mean)


@pytest.mark.parametrize("name", ["Gamma", "Beta", "Dirichlet", "MultivariateNormal", "MultivariateNormal precision", "MultivariateNormal tril"])
def test_rsample_has_the_gradient_of_the_moments(name):
    def of_draws(d: Any) -> md.Tensor:
        x = d.rsample((4000,), key=md.random.key(1))
        return md.mean(x + 0.5 * md.square(x), axis=0)

    drawn = gradients(name, CASES[name][0], of_draws)
    for a, b in zip(drawn, gradients(name, CASES[name][0], lambda d: d.mean + 0.5 * (d.variance + md.square(d.mean))), strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=0.1, atol=0.06 * np.abs(b.numpy()).max())


def test_one_seed_draws_alike_everywhere():
    def draws(x: md.Tensor) -> list[md.Tensor]:
        some = (D.Normal(x, 1.0), D.Bernoulli(logits=x), D.Categorical(logits=x), D.Binomial(9, logits=x), D.Independent(D.Laplace(x, 2.0), 1))
        return [d.sample((3,)) for d in some]

    found = []
    for backend in ("numpy", "torch"):
        with md.use_backend(backend):
            x = md.tensor([0.3, -0.2, 1.0])
            for run in (draws, md.jit(draws)):
                md.manual_seed(5)
                found.append([y.numpy() for y in run(x)])
    for other in found[1:]:
        for one, two in zip(found[0], other, strict=True):
            np.testing.assert_allclose(one, two, rtol=1e-6)


@pytest.mark.parametrize("name", CASES)
def test_draws_are_where_the_parameters_are(name):
    """Also where that is not the default backend."""
    parameters = {n: md.tensor(np.asarray(x, np.float64), backend="torch") if isinstance(x, list) else x for n, x in CASES[name][0].items()}
    d = getattr(D, name.split()[0])(**parameters)
    draws = d.sample((2,))
    assert draws.backend == d.log_prob(draws).backend == "torch"


def test_lists_go_where_the_other_arguments_are():
    x = md.tensor([1.0, 2.0], backend="torch")
    made = (D.Normal([0.0, 1.0], x), [0.0, 1]), (D.Binomial([4, 5], x / 4), [1, 2]), (D.Categorical(x), [0, 1]), (D.Gamma(x, (1.0, 2.0)), (1.0, 1))
    for d, value in made:
        assert d.sample().backend == d.log_prob(value).backend == "torch"


def test_under_vmap_each_lane_is_a_distribution():
    loc, x = md.tensor([0.0, 1.0, 2.0]), md.tensor([0.5, 0.5, 0.5])
    np.testing.assert_allclose(md.vmap(lambda m, v: D.Normal(m, 2.0).log_prob(v))(loc, x).numpy(), D.Normal(loc, 2.0).log_prob(x).numpy())
    draws = md.vmap(lambda m: D.Normal(m, 1.0).sample())(md.zeros(4))
    assert len(set(draws.tolist())) == 4
    assert md.vmap(lambda p: D.Binomial(4, p).sample())(md.tensor([0.0, 1.0])).tolist() == [0.0, 4.0]


#: Corners that the table above has not: a distribution of a library R, whose arrays a makes, and what is asked of it.
CORNERS: dict[str, Any] = {
    "at the middle": lambda R, a: R.Laplace(a(0.5), a(2.0)).cdf(a(0.5)),
    "at the upper end": lambda R, a: R.Uniform(a(0.0), a(1.0)).log_prob(a(1.0)),
    "one mode": lambda R, a: R.Dirichlet(a([0.2, 0.5, 0.7])).mode,
    "modes of three axes": lambda R, a: R.Dirichlet(a([[[0.2, 0.5]], [[2.0, 1.5]]])).mode,
    "all events": lambda R, a: R.Categorical(a([[1.0, 2.0], [2.0, 1.0]])).enumerate_support(),
    "only the upper ends": lambda R, a: R.kl_divergence(R.Uniform(a(0.0), a(2.0)), R.Uniform(a(-1.0), a(1.0))),
    "rows of events": lambda R, a: R.TransformedDistribution(R.Independent(R.Normal(a([0.0, 1.0]), a(1.0)), 1),
                                                             R.AffineTransform(a([[0.0, 1.0], [2.0, 3.0]]), a(2.0))).log_prob(a([0.5, 2.5])),
    "two event axes": lambda R, a: R.Independent(R.Normal(a([[0.0, 1.0], [2.0, 3.0]]), a(1.0)), 2).expand((3,)).log_prob(a([[0.0, 1.0], [0.0, 1.0]])),
}  # fmt: skip


@pytest.mark.parametrize("name", CORNERS)
def test_corners_are_torchs(name):
    close(CORNERS[name](D, lambda x: md.tensor(x, dtype=md.float64)), CORNERS[name](T, lambda x: torch.tensor(x, dtype=torch.float64)))


def test_sample_has_no_gradient():
    x = md.tensor([1.0], requires_grad=True)
    assert not D.Normal(x, 1.0).sample().requires_grad
    assert D.Normal(x, 1.0).rsample().requires_grad
    assert md.grad(lambda m: D.Normal(m, 1.0).sample(key=md.random.key(0)).sum())(md.ones(2)).tolist() == [0.0, 0.0]


def test_independent_sums_over_its_axes():
    loc = np.arange(6.0).reshape(2, 3)
    a, b = D.Independent(D.Normal(md.tensor(loc), 2.0), 1), T.Independent(T.Normal(torch.tensor(loc), 2.0), 1)
    assert (a.batch_shape, a.event_shape) == ((2,), (3,))
    close(a.log_prob(md.ones((2, 3))), b.log_prob(torch.ones(2, 3).double()))
    close(a.entropy(), b.entropy())
    close(a.expand((4, 2)).mean, b.expand((4, 2)).mean)
    other, its = (R.Independent(R.Normal(ones, 1.0), 1) for R, ones in ((D, md.ones((2, 3), dtype=md.float64)), (T, torch.ones(2, 3).double())))
    close(D.kl_divergence(a, other), T.kl_divergence(b, its))
    assert a.rsample((5,)).shape == (5, 2, 3)


TRANSFORMS: dict[str, Any] = {
    "affine": lambda R, a: [R.AffineTransform(a(0.5), a(-2.0))], "exp": lambda R, a: [R.ExpTransform()],
    "sigmoid": lambda R, a: [R.SigmoidTransform()],
    "tanh": lambda R, a: [R.TanhTransform()], "inverse": lambda R, a: [R.ExpTransform(), R.ExpTransform().inv],
    "composed": lambda R, a: [R.ComposeTransform([R.AffineTransform(a(0.1), a(0.5)), R.TanhTransform()]), R.AffineTransform(1.0, 3.0)],
}  # fmt: skip


@pytest.mark.parametrize("name", TRANSFORMS)
def test_transformed_distributions_are_torchs(name):
    """At values that both make of the same base numbers; with event axes, too, and with the gradient in the base's parameters."""
    z = np.array([[-0.7, 0.2, 1.1], [0.4, -0.3, 0.9]])
    loc = torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64, requires_grad=True)
    base = T.Normal(loc, 1.5)
    parts = TRANSFORMS[name](T, lambda x: torch.tensor(x, dtype=torch.float64))
    y = torch.tensor(z)
    for t in parts:
        y = t(y)
    value = md.tensor(y.numpy())
    make = lambda m: D.TransformedDistribution(D.Normal(m, 1.5), TRANSFORMS[name](D, lambda x: md.tensor(x, dtype=md.float64)))
    a, b = make(md.tensor(loc.detach().numpy())), T.TransformedDistribution(base, parts)
    close(a.log_prob(value), b.log_prob(y))
    close(a.cdf(value), b.cdf(y))
    close(a.icdf(a.cdf(value)), y, 1e-8)
    close(md.jit(md.grad(lambda m: make(m).log_prob(value).sum()))(md.tensor(loc.detach().numpy())), torch.autograd.grad(b.log_prob(y).sum(), loc)[0])
    both = [R.TransformedDistribution(R.Independent(d.base_dist, 1), d.transforms) for R, d in ((D, a), (T, b))]
    assert (both[0].batch_shape, both[0].event_shape) == ((), (3,))
    close(both[0].log_prob(value), both[1].log_prob(y))
    draws = a.rsample((4,), key=md.random.key(0))
    close(draws, torch.tensor(a._whole(a.base_dist.rsample((4,), key=md.random.key(0))).numpy()))
    assert a.expand((2, 3)).sample().shape == (2, 3)


def test_the_same_transforms_leave_the_divergence():
    t = D.AffineTransform(0.0, 2.0)
    make = lambda m, *rest: D.TransformedDistribution(D.Normal(m, 1.0), [*rest, D.TanhTransform()])
    assert D.kl_divergence(make(0.0, t), make(1.0, t)).item() == 0.5
    with pytest.raises(NotImplementedError, match="whose transforms are not the same"):
        D.kl_divergence(make(0.0, t), make(1.0, D.AffineTransform(0.0, 3.0)))
    with pytest.raises(NotImplementedError, match="whose transforms are not the same"):
        D.kl_divergence(make(0.0), make(1.0, t))
    with pytest.raises(NotImplementedError, match="whose transforms are not the same"):
        D.kl_divergence(make(0.0, D.ExpTransform()), make(1.0, D.SigmoidTransform()))


def test_a_transform_broadcasts_its_base_and_may_have_event_axes():
    d = D.TransformedDistribution(D.Normal(0.0, 1.0), D.AffineTransform(md.zeros(3), 2.0, event_dim=1))
    b = T.TransformedDistribution(T.Normal(torch.zeros(3), 1.0), T.AffineTransform(torch.zeros(3), 2.0, event_dim=1))
    assert (d.batch_shape, d.event_shape) == (tuple(b.batch_shape), tuple(b.event_shape)) == ((), (3,))
    close(d.log_prob(md.ones(3)), b.log_prob(torch.ones(3)), 1e-6)


def test_a_squashed_policy_is_exact_with_a_cache():
    """Where tanh rounds to 1, its inverse is lost unless the transform kept it."""
    make = lambda size: D.TransformedDistribution(D.Normal(30.0, 0.1), D.TanhTransform(cache_size=size))
    kept, lost = make(1), make(0)
    y = kept.rsample(key=md.random.key(0))
    assert y.item() == 1.0
    assert np.isfinite(kept.log_prob(y).item()) and not np.isfinite(lost.log_prob(y).item())


def test_numbers_become_the_default_dtype_and_dtypes_stay():
    assert D.Normal(0, 1).sample().dtype is md.float32
    assert D.Normal(md.tensor(0.0, dtype=md.float64), 1).scale.dtype is md.float64
    assert D.Bernoulli(md.tensor([0.5], dtype=md.float16)).sample().dtype is md.float16
    assert D.Categorical(logits=md.zeros(3)).sample().dtype is md.int64
    assert D.Normal([0.0, 1.0], 1).batch_shape == (2,)


def test_certain_outcomes_keep_their_digits():
    """What is nearly certain has a small -log p, of which no digit cancels in float32."""
    wanted = np.log1p(np.exp(-12.0))
    for found in (D.Bernoulli(logits=12.0).log_prob(1.0), D.Bernoulli(logits=-12.0).log_prob(0.0), D.Binomial(1, logits=12.0).log_prob(1.0)):
        np.testing.assert_allclose(-found.item(), wanted, rtol=1e-5)
    assert D.Binomial(10, 0.0).sample((3,)).tolist() == [0.0] * 3 and D.Binomial(10, 1.0).sample((3,)).tolist() == [10.0] * 3
    assert D.Geometric(1.0).log_prob(0.0).item() == 0.0 and D.kl_divergence(D.Poisson(0.0), D.Poisson(1.0)).item() == 1.0
    assert md.grad(lambda p: D.Geometric(p).log_prob(0.0))(md.tensor(1.0)).item() == 1.0


def test_classes_are_counted_in_integers():
    """bfloat16 has no 257."""
    d = D.Categorical(logits=md.arange(300.0).to(md.bfloat16))
    assert d.log_prob(257).item() == d.logits[257].item()
    assert d.enumerate_support().tolist() == list(range(300))


def test_half_floats_are_looked_at_by_their_own_eps():
    assert np.isfinite(D.Dirichlet(md.ones(3, dtype=md.bfloat16)).log_prob(md.tensor([0.3, 0.3, 0.4], dtype=md.bfloat16)).item())


def test_a_copied_transform_forgets_what_it_kept():
    t = D.TanhTransform(cache_size=1)
    md.jit(lambda x: t.inv(t(x)))(md.ones(2))
    assert copy.deepcopy(t)._last == (None, None)
    np.testing.assert_allclose(t(md.ones(2)).numpy(), np.tanh(1.0), rtol=1e-6)


def test_draws_have_no_tangent():
    make = lambda s: D.TransformedDistribution(D.Normal(s, 1.0), D.AffineTransform(0.0, s))
    _, tangent = md.jvp(lambda s: make(s).sample(key=md.random.key(0)), (md.tensor(2.0),), (md.tensor(1.0),))
    assert tangent.item() == 0.0


def test_divergence_is_infinite_where_events_are_missing():
    p = md.tensor([0.5, 0.5, 0.0])
    q = md.tensor([1.0, 0.0, 0.0])
    assert D.kl_divergence(D.Categorical(p), D.Categorical(q)).item() == math.inf
    assert np.isclose(D.kl_divergence(D.Categorical(q), D.Categorical(p)).item(), math.log(2))
    assert D.kl_divergence(D.Bernoulli(0.5), D.Bernoulli(1.0)).item() == math.inf
    assert D.kl_divergence(D.Bernoulli(1.0), D.Bernoulli(1.0)).item() == 0.0


@pytest.mark.parametrize(
    "call, text",
    [
        (lambda: D.Normal(0.0, md.tensor([1.0, -2.0])), r"Normal: scale must be positive, got -2.0 in f32\[2\]"),
        (lambda: D.Normal(math.nan, 1.0), "Normal: loc must be real, not nan, got nan"),
        (lambda: D.Normal(md.zeros(2), md.ones(3)), r"Normal: parameters do not broadcast: loc f32\[2\], scale f32\[3\]"),
        (lambda: D.Bernoulli(), "Bernoulli: exactly one of probs, logits is wanted, got none"),
        (lambda: D.Bernoulli(0.5, 0.0), "Bernoulli: exactly one of probs, logits is wanted, got probs, logits"),
        (lambda: D.Bernoulli(1.5), "Bernoulli: probs must be between 0 and 1, got 1.5"),
        (lambda: D.Geometric(1.5), "Geometric: probs must be above 0, at most 1, got 1.5"),
        (lambda: D.Bernoulli(0.5).log_prob(2.0), "Bernoulli: value must be 0 or 1, got 2.0"),
        (lambda: D.Categorical(0.5), "Categorical: probs has 0 axes"),
        (lambda: D.Categorical(md.ones(3)).log_prob(3), "Categorical: value must be an integer from 0 to 2, got 3"),
        (lambda: D.Categorical(md.ones(3)).log_prob(0.5), "Categorical: value must be an integer from 0 to 2, got 0.5"),
        (lambda: D.Binomial(2, 0.5).log_prob(3.0), "Binomial: value must be an integer from 0 to total_count, got 3.0"),
        (lambda: D.Normal(md.zeros(2), 1.0).log_prob(md.zeros(3)), r"Normal: value f32\[3\] does not broadcast to batch_shape \(2,\)"),
        (lambda: D.OneHotCategorical(md.ones(3)).log_prob(md.ones(2)), "does not end with the shape of an event"),
        (lambda: D.Uniform(1.0, 1.0), "Uniform: low must be less than high"),
        (lambda: D.Uniform(0.0, 1.0).log_prob(2.0), "Uniform: value must be between low and high, got 2.0"),
        (lambda: D.Uniform(md.zeros(2), md.tensor([3.0, 1.0])).log_prob(2.0), r"Uniform: value must be between low and high, got 2.0 in f32\[\]"),
        (lambda: D.Gamma(1.0, 0.0), "Gamma: rate must be positive, got 0.0"),
        (lambda: D.Dirichlet(md.tensor([1.0, -1.0])), r"Dirichlet: concentration must be a vector of positive numbers, got \[1.0, -1.0\]"),
        (lambda: D.MultivariateNormal(md.zeros(2), -md.eye(2)), "MultivariateNormal: covariance_matrix must be a symmetric positive-definite matrix"),
        (lambda: D.MultivariateNormal(md.zeros(2), md.eye(3)), "does not have the size of loc"),
        (lambda: D.MultivariateNormal(md.zeros(2), scale_tril=md.ones((2, 2))), "scale_tril must be a lower-triangular matrix"),
        (lambda: D.Normal(md.zeros(3), 1.0).expand((2,)), r"Normal: batch_shape \(3,\) does not expand to \(2,\)"),
        (lambda: D.LogNormal(0.0, 1.0).log_prob(-1.0), "LogNormal: value must be positive, got -1.0"),
        (lambda: D.TransformedDistribution(D.Normal(0.0, 1.0), D.AffineTransform(0.0, 1.0, 1)), "a transform of 1 axes, and .* has shape"),
        (lambda: D.Independent(D.Normal(0.0, 1.0), 1), "Independent: reinterpreted_batch_ndims is 1"),
    ],
)
@pytest.mark.cpu
def test_errors_say_what_came_and_what_was_wanted(call, text):
    with pytest.raises(ValueError, match=text):
        call()


def test_complex_numbers_are_refused():
    with pytest.raises(TypeError, match=r"Normal: loc is c64\[\]; real numbers are wanted"):
        D.Normal(1j, 1.0)
    with pytest.raises(TypeError, match=r"Normal: value is c64\[\]; real numbers are wanted"):
        D.Normal(0.0, 1.0).log_prob(1j)


def test_what_has_no_closed_form_says_so():
    with pytest.raises(NotImplementedError, match="Bernoulli: no cdf in closed form"):
        D.Bernoulli(0.5).cdf(0.0)
    with pytest.raises(NotImplementedError, match="has no gradient here"):
        D.Bernoulli(0.5).rsample()
    with pytest.raises(NotImplementedError, match="kl_divergence: no closed form of Normal from Poisson"):
        D.kl_divergence(D.Normal(0.0, 1.0), D.Poisson(1.0))


def test_values_are_not_looked_at_when_told():
    assert D.Normal(0.0, -1.0, validate_args=False).scale.item() == -1.0
    assert math.isnan(D.LogNormal(0.0, 1.0, validate_args=False).log_prob(-1.0).item())
    try:
        D.Distribution.set_default_validate_args(False)
        assert D.Normal(0.0, -1.0).scale.item() == -1.0
    finally:
        D.Distribution.set_default_validate_args(True)


def test_the_jacobian_of_several_transforms_at_infinity():
    """Also of none, which is 0."""
    x = md.tensor([-math.inf, 0.0, math.inf])
    whole = D.ComposeTransform([D.SigmoidTransform(), D.AffineTransform(0.0, 2.0)])
    assert whole.log_abs_det_jacobian(x, whole(x)).tolist() == [-math.inf, pytest.approx(math.log(0.5)), -math.inf]
    assert D.ComposeTransform([]).log_abs_det_jacobian(md.zeros(2), md.zeros(2)).tolist() == [0.0, 0.0]


def mixtures(T: Any, tensor: Any) -> list[Any]:
    """Mixtures of numbers and of vectors, of one mixture for the batch and of several."""
    f = lambda v: tensor(np.asarray(v, np.float64))
    M, C, N = T.MixtureSameFamily, T.Categorical, T.Normal
    numbers = N(f([[-1.0, 0.5, 3.0], [0.0, 1.0, 2.0]]), f([[1.0, 0.3, 2.0], [0.5, 0.6, 0.7]]))
    vectors = T.Independent(N(f([[-1.0, 0.5], [3.0, 1.0], [0.0, 2.0]]), f([0.5, 0.7])), 1)
    return [
        M(C(f([[0.2, 0.3, 0.5], [0.6, 0.1, 0.3]])), numbers), M(C(logits=f([0.1, 0.2, -0.3])), numbers), M(C(f([0.2, 0.3, 0.5])), vectors)
    ]  # fmt: skip


@pytest.mark.parametrize("i", range(3))
def test_a_mixture_is_torchs(i):
    a, b = (mixtures(T, tensor)[i] for T, tensor in ((D, md.tensor), (T, torch.tensor)))
    x = np.random.default_rng(0).normal(size=(5, *a.batch_shape, *a.event_shape))
    assert (a.batch_shape, a.event_shape, a.has_rsample) == (tuple(b.batch_shape), tuple(b.event_shape), b.has_rsample)
    close(a.log_prob(md.tensor(x)), b.log_prob(torch.tensor(x)))
    for what in ("mean", "variance", "stddev"):
        close(getattr(a, what), getattr(b, what))
    if i < 2:
        close(a.cdf(md.tensor(x)), b.cdf(torch.tensor(x)))
        close(a.expand((4, 2)).log_prob(0.3), b.expand((4, 2)).log_prob(torch.tensor(0.3, dtype=torch.float64)))
    else:
        with pytest.raises(NotImplementedError, match="cdf"):
            a.cdf(md.tensor(x))
    draws = a.sample((20_000,), key=md.random.key(5)).numpy()
    error = np.abs(draws.mean(axis=0) - a.mean.numpy()) / np.sqrt(a.variance.numpy() / 20_000)
    assert error.max() < 4.5
    np.testing.assert_allclose(draws.var(axis=0), a.variance.numpy(), rtol=0.05)
    again = md.jit(lambda key: mixtures(D, md.tensor)[i].sample((3,), key=key))(md.random.key(5))
    assert np.array_equal(again.numpy(), mixtures(D, md.tensor)[i].sample((3,), key=md.random.key(5)).numpy())


@pytest.mark.cpu
def test_a_mixture_says_what_does_not_go_together():
    with pytest.raises(ValueError, match="a Categorical over the last axis"):
        D.MixtureSameFamily(D.Categorical(md.ones(2)), D.Normal(md.zeros(3), 1.0))
    with pytest.raises(ValueError, match="a Categorical over the last axis"):
        D.MixtureSameFamily(D.Normal(0.0, 1.0), D.Normal(md.zeros(3), 1.0))
    with pytest.raises(ValueError, match="batch_shape"):
        D.MixtureSameFamily(D.Categorical(md.ones(4, 3)), D.Normal(md.zeros(2, 3), 1.0))
    with pytest.raises(TypeError, match="total_count is one integer"):
        D.Multinomial(md.tensor([1, 2]), md.ones(3))
    with pytest.raises(ValueError, match="differ in size"):
        D.LowRankMultivariateNormal(md.zeros(2), md.ones(3, 1), md.ones(3))
    with pytest.raises(ValueError, match="integers of at least 0 with sum 4"):
        D.Multinomial(4, md.ones(2)).log_prob(md.tensor([1.0, 1.0]))


def test_any_counts_have_a_probability_without_validate_args():
    probs, counts = np.array([0.2, 0.3, 0.5]), np.array([[2.0, 1.0, 4.0], [1.0, 0.0, 0.0]])
    ours = D.Multinomial(probs=md.tensor(probs), validate_args=False).log_prob(md.tensor(counts))
    theirs = torch.distributions.Multinomial(probs=torch.tensor(probs), validate_args=False).log_prob(torch.tensor(counts))
    np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-9)


def test_constraints_check_tensors_and_modules_are_attributes():
    x = np.array([[0.25, 0.75], [1.5, -0.5]])
    for name in ("positive", "unit_interval", "simplex", "real_vector"):
        theirs = getattr(torch.distributions.constraints, name).check(torch.tensor(x))
        assert getattr(D.constraints, name).check(md.tensor(x)).tolist() == theirs.tolist()
    assert D.normal.Normal is D.Normal and D.studentT.StudentT is D.StudentT


def transforms(T: Any, tensor: Any) -> dict[str, Any]:
    """Name → transform and numbers that it takes."""
    x, f = np.array([[0.3, 1.7], [2.5, 0.9]]), lambda v: tensor(np.asarray(v, np.float64))
    return {
        "power": (T.PowerTransform(f(1.5)), x), "inverse": (T.PowerTransform(f(-1.0)), x), "softplus": (T.transforms.SoftplusTransform(), x - 1),
        "independent": (T.transforms.IndependentTransform(T.ExpTransform(), 1), x), "identity": (T.identity_transform, x),
        "independent affine": (T.transforms.IndependentTransform(T.AffineTransform(f([1.0, 2.0]), f([0.5, -3.0])), 1), x),
        "cdf": (T.transforms.CumulativeDistributionTransform(T.Normal(f(0.5), f(2.0))), x),
        "inverse independent": (T.transforms.IndependentTransform(T.ExpTransform(), 2).inv, x),
        "stick": (T.transforms.StickBreakingTransform(), x), "reshape": (T.transforms.ReshapeTransform((2,), (2, 1)), x),
        "several shapes": (
            T.ComposeTransform([T.ExpTransform(), T.transforms.ReshapeTransform((2, 2), (4,)), T.transforms.StickBreakingTransform()]), x
        ),
        "softmax": (T.transforms.SoftmaxTransform(), x), "abs": (T.transforms.AbsTransform(), x - 1),
    }  # fmt: skip


@pytest.mark.parametrize("name", transforms(T, torch.tensor))
def test_transforms_are_torchs(name):
    (a, x), (b, _) = transforms(D, md.tensor)[name], transforms(T, torch.tensor)[name]
    y, z = a(md.tensor(x)), b(torch.tensor(x))
    close(y, z)
    close(a.inv(y), b.inv(z))
    assert a.bijective == b.bijective
    if a.bijective:
        close(a.log_abs_det_jacobian(md.tensor(x), y), b.log_abs_det_jacobian(torch.tensor(x), z))


def test_a_transform_of_ones_own_says_its_axes_as_torch_has_them():
    """A coupling layer as in PyTorch's programs: of vectors by its domain, with modules inside."""

    def flow(T: Any, lib: Any) -> Any:
        class Coupling(T.transforms.Transform):
            bijective = True
            domain = codomain = T.constraints.real_vector

            def __init__(self):
                super().__init__(cache_size=1)

            def _call(self, x):
                return lib.cat([x[..., :1], x[..., 1:] * lib.exp(lib.tanh(x[..., :1])) + x[..., :1]], -1)

            def _inverse(self, y):
                return lib.cat([y[..., :1], (y[..., 1:] - y[..., :1]) * lib.exp(-lib.tanh(y[..., :1]))], -1)

            def log_abs_det_jacobian(self, x, y):
                return lib.tanh(x[..., :1]).sum(-1)

        zero = lib.zeros(2, dtype=lib.float64)
        base = T.Independent(T.Normal(zero, zero + 1), 1)
        return T.TransformedDistribution(base, [Coupling(), T.transforms.IndependentTransform(T.AffineTransform(zero + 1, zero + 2), 1)])

    x = np.random.default_rng(0).normal(size=(5, 2))
    a, b = flow(D, md), flow(T, torch)
    assert (a.batch_shape, a.event_shape) == (tuple(b.batch_shape), tuple(b.event_shape)) == ((), (2,))
    close(a.log_prob(md.tensor(x)), b.log_prob(torch.tensor(x)))
    assert a.rsample((3,)).shape == (3, 2)


def test_divergences_of_two_kinds_are_torchs():
    f = lambda T, tensor: (lambda n, v: getattr(T, n)(*(tensor(np.asarray(x, np.float64)) for x in v)))
    a, b = f(D, md.tensor), f(T, torch.tensor)
    first, second = ([0.5, -1.0], [0.7, 2.0]), ([0.1, 2.0], [1.0, 0.4])
    for p, q in (("Normal", "Laplace"), ("Laplace", "Normal")):
        close(D.kl_divergence(a(p, first), a(q, second)), T.kl_divergence(b(p, first), b(q, second)))
    ends = ([0.0, -1.0], [1.0, 3.0])
    close(D.kl_divergence(a("Uniform", ends), a("Normal", second)), T.kl_divergence(b("Uniform", ends), b("Normal", second)))


def test_modules_and_constraints_lie_where_torch_has_them():
    from minidl.distributions.categorical import Categorical
    from minidl.distributions.kl import kl_divergence
    from minidl.distributions.normal import Normal

    assert (Normal, Categorical, kl_divergence) == (D.Normal, D.Categorical, D.kl_divergence)
    values = np.array([-1.0, 0.0, 0.5, 1.0, 2.0, 3.5])
    for make in (
        lambda c: c.greater_than(0.5), lambda c: c.greater_than_eq(0.5), lambda c: c.less_than(1.0), lambda c: c.interval(0.0, 1.0),
        lambda c: c.half_open_interval(0.0, 1.0), lambda c: c.integer_interval(0, 1), lambda c: c.nonnegative_integer, lambda c: c.positive_integer,
    ):  # fmt: skip
        assert make(D.constraints).holds(values).tolist() == make(T.constraints).check(torch.tensor(values)).tolist()
    assert D.constraints.independent(D.constraints.positive, 1).event_dim == 1
    assert D.constraints.simplex.holds(np.array([0.5, 0.5]))
    assert D.constraints.lower_cholesky.holds(np.array([[1.0, 0.0], [2.0, 1.0]]))
