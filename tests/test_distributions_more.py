"""Distributions of which torch has no moments, or rounded ones: VonMises and GeneralizedPareto against scipy, the relaxed ones against torch."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from test_distributions import close

import minidl as md

D, T = md.distributions, torch.distributions
tensor = lambda x: md.tensor(np.asarray(x, np.float64))
double = lambda x: torch.tensor(np.asarray(x, np.float64))


def far_from(draws, cdf):
    """Kolmogorov's and Smirnov's largest distance by its limit at 0.1 %."""
    draws = np.sort(draws.numpy(), axis=0)
    ranks = (np.arange(len(draws))[:, None] + 0.5) / len(draws)
    return np.abs(cdf(draws) - ranks).max() * math.sqrt(len(draws)) / 1.95


def test_von_mises_is_scipys(backend):
    stats, special = pytest.importorskip("scipy.stats"), pytest.importorskip("scipy.special")
    loc, k, x = np.array([0.4, -3.0, 0.0]), np.array([0.5, 4.0, 1e-6]), np.array([[0.3, 2.0, 1.0], [-1.0, 0.1, 3.0]])
    d = D.VonMises(tensor(loc), tensor(k))
    np.testing.assert_allclose(d.log_prob(tensor(x)).numpy(), stats.vonmises.logpdf(x, k, loc), rtol=1e-11)
    np.testing.assert_allclose(d.variance.numpy(), 1 - special.i1e(k) / special.i0e(k), rtol=1e-11)
    assert d.mean.tolist() == d.mode.tolist() == loc.tolist() and not d.has_rsample
    its = T.VonMises(double(loc), double(k))
    np.testing.assert_allclose(d.log_prob(tensor(x)).numpy(), its.log_prob(double(x)).numpy(), rtol=1e-6)  # torch's Bessel functions have 7 digits
    slope = md.jit(md.grad(lambda k: D.VonMises(tensor(loc), k).log_prob(tensor(x)).sum()))(tensor(k))
    np.testing.assert_allclose(slope.numpy(), (np.cos(x - loc) - special.i1e(k) / special.i0e(k)).sum(axis=0), rtol=1e-9)
    centred = D.VonMises(md.zeros(3, dtype=md.float64), tensor(k))
    draw = lambda key: centred.sample((2000,), key=key)
    draws = draw(md.random.key(1))
    assert far_from(draws, lambda x: stats.vonmises.cdf(x, k)) < 1
    np.testing.assert_allclose(md.jit(draw)(md.random.key(1)).numpy(), draws.numpy(), rtol=1e-9, atol=1e-12)
    turned = d.sample((500,), key=md.random.key(2)).numpy()
    assert (np.abs(turned) <= math.pi).all()


@pytest.mark.parametrize("k", [1e9, 1e17, 1e38, math.inf, math.nan, 0.0, 1e-300])
def test_von_mises_draws_end_whatever_the_concentration_is(k):
    d = D.VonMises(tensor(0.0), tensor(k), validate_args=False)
    for draw in (d.sample, md.jit(d.sample, static_argnums=0)):
        x = draw((400,), key=md.random.key(0)).numpy()
        if math.isnan(k):
            assert np.isnan(x).all()
        elif k < 1:  # a uniform angle
            assert 1.7 < x.std() < 1.9
        else:  # a normal one; the numbers about pi lie 4e-16 apart
            assert 0.9 < (x * math.sqrt(k)).std() < 1.1 if k < 1e20 else (abs(x) < 1e-15).all()


@pytest.mark.parametrize(("a", "b"), [(1.0, 1.0), (2.0, 1.0), (1.0, 3.0)])
def test_kumaraswamy_at_its_ends(a, b):
    for what, x in (("cdf", 0.0), ("cdf", 1.0), ("icdf", 1.0)):
        slopes = md.grad(lambda a, b, what=what, x=x: getattr(D.Kumaraswamy(a, b), what)(x), argnums=(0, 1))(tensor(a), tensor(b))
        assert getattr(D.Kumaraswamy(tensor(a), tensor(b)), what)(x).item() == x and [s.item() for s in slopes] == [0.0, 0.0]
    assert D.Kumaraswamy(tensor(a), tensor(1.0)).log_prob(1.0).item() == math.log(a)
    assert D.Kumaraswamy(tensor(1.0), tensor(b)).log_prob(0.0).item() == math.log(b)


@pytest.mark.parametrize(
    ("name", "values"),
    [("ContinuousBernoulli", [[0.3, 0.6]]), ("Exponential", [[2.0, 0.4]]), ("Normal", [[0.3, -1.0], 0.7]), ("Uniform", [[-1.0, 0.2], 1.5])],
)  # fmt: skip
def test_divergences_from_a_continuous_bernoulli_are_torchs(name, values):
    make = lambda R, a: getattr(R, name)(*map(a, values))
    a, b = (R.kl_divergence(R.ContinuousBernoulli(to([0.4998, 0.9])), make(R, to)) for R, to in ((D, tensor), (T, double)))
    close(a, b)
    slope = md.jit(md.grad(lambda p: D.kl_divergence(D.ContinuousBernoulli(p), make(D, tensor))[0]))(tensor([0.4, 0.9]))
    p = double([0.4, 0.9]).requires_grad_()
    T.kl_divergence(T.ContinuousBernoulli(p), make(T, double))[0].backward()
    close(slope, p.grad)


def test_a_stick_of_no_axes_is_refused():
    for call in (D.StickBreakingTransform(), D.StickBreakingTransform().inv):
        with pytest.raises(ValueError, match="StickBreakingTransform: vectors are wanted, not a shape without axes"):
            call(tensor(1.0))


def test_generalized_pareto_is_scipys():
    stats = pytest.importorskip("scipy.stats")
    loc, scale, c = np.array([0.5, -1.0, 0.0, 0.0]), np.array([0.7, 2.0, 1.0, 1.0]), np.array([0.3, 0.0, -0.4, 0.7])
    x = np.array([[0.6, 2.0, 0.1, 1.0], [3.0, 0.1, 2.0, 9.0], [0.4, -2.0, 2.6, -1.0]])  # the last row lies outside
    d, args = D.GeneralizedPareto(tensor(loc), tensor(scale), tensor(c)), (c, loc, scale)
    np.testing.assert_allclose(d.log_prob(tensor(x)).numpy(), stats.genpareto.logpdf(x, *args), rtol=1e-11)
    np.testing.assert_allclose(d.cdf(tensor(x)).numpy(), stats.genpareto.cdf(x, *args), rtol=1e-11)
    np.testing.assert_allclose(d.icdf(tensor([0.1, 0.5, 0.9, 0.4])).numpy(), stats.genpareto.ppf([0.1, 0.5, 0.9, 0.4], *args), rtol=1e-11)
    np.testing.assert_allclose(d.entropy().numpy(), stats.genpareto.entropy(*args), rtol=1e-9)
    np.testing.assert_allclose(d.mean.numpy(), stats.genpareto.mean(*args), rtol=1e-11)
    np.testing.assert_allclose(d.variance.numpy()[:3], stats.genpareto.var(*args)[:3], rtol=1e-11)
    assert d.variance.numpy()[3] == math.inf  # of a concentration above 1/2
    assert d.mode.tolist() == loc.tolist()
    assert far_from(d.rsample((4000,), key=md.random.key(0)), lambda x: stats.genpareto.cdf(x, *args)) < 1
    moved = lambda c: D.GeneralizedPareto(tensor(loc), tensor(scale), c)
    for f in (lambda c: moved(c).log_prob(tensor(x[:2])).sum(), lambda c: moved(c).rsample((3,), key=md.random.key(1)).sum()):
        slope, h = md.jit(md.grad(f))(tensor(c)).numpy(), 1e-6
        step = [(f(tensor(c + h * e)) - f(tensor(c - h * e))).item() / (2 * h) for e in np.eye(4)]
        np.testing.assert_allclose(slope, step, rtol=1e-6, atol=1e-6)  # where the concentration is 0, too


def test_the_mode_of_kumaraswamy_is_where_the_density_is_highest():
    d = D.Kumaraswamy(tensor([3.0, 2.0, 0.5]), tensor([1.7, 5.0, 2.0]))
    x = md.linspace(0.001, 0.999, 999, dtype=md.float64)
    best = x[md.argmax(d.log_prob(x[:, None]), axis=0)].numpy()
    np.testing.assert_allclose(d.mode.numpy()[:2], best[:2], atol=1e-3)
    assert math.isnan(d.mode[2].item())


RELAXED = {
    "RelaxedBernoulli": (0.7, {"probs": [0.2, 0.9]}, [[0.3, 0.8], [0.9, 0.1]]),
    "RelaxedBernoulli logits": (2.0, {"logits": [-3.0, 0.4]}, [[0.3, 0.8], [0.9, 0.1]]),
    "RelaxedOneHotCategorical": (0.7, {"probs": [[0.1, 0.3, 0.6], [2.0, 1.0, 1.0]]}, [[0.3, 0.2, 0.5], [0.1, 0.8, 0.1]]),
    "RelaxedOneHotCategorical logits": (1.5, {"logits": [[0.1, 0.3, 0.6], [2.0, 1.0, -1.0]]}, [[0.3, 0.2, 0.5], [0.1, 0.8, 0.1]]),
}  # fmt: skip


@pytest.mark.parametrize("name", RELAXED)
def test_relaxed_distributions_are_torchs(name):
    t, ((word, numbers),) = RELAXED[name][0], RELAXED[name][1].items()
    x, kind = RELAXED[name][2], name.split()[0]
    leaves = [double(t).requires_grad_(), double(numbers).requires_grad_()]
    its = getattr(T, kind)(leaves[0], **{word: leaves[1]})
    made = lambda t, p: getattr(D, kind)(t, **{word: p})
    own = made(tensor(t), tensor(numbers))
    assert (own.batch_shape, own.event_shape, own.has_rsample) == (tuple(its.batch_shape), tuple(its.event_shape), its.has_rsample)
    close(own.log_prob(tensor(x)), its.log_prob(double(x)))
    close(own.logits, its.logits)
    close(own.probs, its.probs)
    its.log_prob(double(x)).sum().backward()
    found = md.jit(md.grad(lambda t, p: made(t, p).log_prob(tensor(x)).sum(), (0, 1)))(tensor(t), tensor(numbers))
    for mine, leaf in zip(found, leaves, strict=True):
        close(mine, leaf.grad)
    wide = own.expand((3, *own.batch_shape))
    assert type(wide).__name__ == kind and wide.temperature.shape == wide.batch_shape == (3, *own.batch_shape)
    torch.manual_seed(0)
    draws, others = own.rsample((8000,), key=md.random.key(0)).numpy(), its.sample((8000,)).numpy()
    np.testing.assert_allclose(draws.mean(axis=0), others.mean(axis=0), atol=0.02)
    np.testing.assert_allclose(draws.std(axis=0), others.std(axis=0), atol=0.02)
    slope = md.grad(lambda p: made(tensor(t), p).rsample(key=md.random.key(1)).reshape(2, -1)[:, 0].sum())(tensor(numbers))
    assert np.isfinite(slope.numpy()).all() and (slope.numpy() != 0).any()


def test_logistic_normal_is_torchs():
    loc, scale, x = [[0.5, -1.0], [0.1, 0.2]], [0.7, 1.4], [[0.3, 0.2, 0.5], [0.1, 0.8, 0.1]]
    leaves = [double(loc).requires_grad_(), double(scale).requires_grad_()]
    own, its = D.LogisticNormal(tensor(loc), tensor(scale)), T.LogisticNormal(*leaves)
    assert (own.batch_shape, own.event_shape) == (tuple(its.batch_shape), tuple(its.event_shape)) == ((2,), (3,))
    close(own.log_prob(tensor(x)), its.log_prob(double(x)))
    its.log_prob(double(x)).sum().backward()
    found = md.jit(md.grad(lambda a, b: D.LogisticNormal(a, b).log_prob(tensor(x)).sum(), (0, 1)))(tensor(loc), tensor(scale))
    for mine, leaf in zip(found, leaves, strict=True):
        close(mine, leaf.grad)
    draws = own.rsample((5,), key=md.random.key(0))
    assert draws.shape == (5, 2, 3)
    np.testing.assert_allclose(draws.sum(axis=-1).numpy(), 1.0, rtol=1e-12)
    close(own.expand((4, 2)).log_prob(tensor(x)), its.expand((4, 2)).log_prob(double(x)))
    assert D.LogisticNormal(0.0, 1.0).event_shape == (2,)


def test_events_change_their_shape():
    base = D.Independent(D.Normal(md.zeros(3, 4, dtype=md.float64), 1.0), 1)
    own = D.TransformedDistribution(base, [D.ReshapeTransform((4,), (2, 2)), D.ExpTransform()])
    of = T.Independent(T.Normal(torch.zeros(3, 4, dtype=torch.float64), 1.0), 1)
    its = T.TransformedDistribution(of, [T.ReshapeTransform((4,), (2, 2)), T.ExpTransform()])
    assert (own.batch_shape, own.event_shape) == (tuple(its.batch_shape), tuple(its.event_shape)) == ((3,), (2, 2))
    x = np.random.default_rng(0).uniform(0.5, 2, (5, 3, 2, 2))
    close(own.log_prob(tensor(x)), its.log_prob(double(x)))
    assert own.sample((5,)).shape == (5, 3, 2, 2)
    with pytest.raises(ValueError, match="other numbers of elements"):
        D.ReshapeTransform((4,), (3,))
    with pytest.raises(ValueError, match="ends with"):
        D.ReshapeTransform((4,), (2, 2))(md.zeros(3))
