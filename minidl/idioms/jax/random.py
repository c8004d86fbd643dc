"""jax.random: md.random with JAX's arguments, and the distributions that are made of others.

Keys, bits, uniform numbers and what is made of them by a formula equal JAX's draws; randint does in int32; gamma and what is made of it, and poisson,
are drawn in minidl's own way and have JAX's distribution.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import minidl as md
from minidl.idioms.jax.arrays import inexact
from minidl.idioms.jax.spelling import room, spelled

R = md.random


def key(seed: Any, *, impl: Any = None, dtype: Any = None) -> md.Tensor:
    """md.random.key; Threefry is the one generator. Raises ValueError for another.

    >>> key(0).shape
    (2,)
    """
    if impl not in (None, "threefry2x32"):
        raise ValueError(f"random.key: the generator is threefry2x32, not {impl!r}")
    return R.key(seed)


def _shape(shape: Any, *xs: md.Tensor) -> tuple[int, ...]:
    return md.broadcast_shapes(*(x.shape for x in xs)) if shape is None else (shape,) if isinstance(shape, int) else tuple(shape)


def bernoulli(key: Any, p: Any = 0.5, shape: Any = None, mode: str = "low") -> md.Tensor:
    """md.random.bernoulli; a number p counts as one of the default float dtype."""
    return R.bernoulli(key, inexact(p), shape)


def rademacher(key: Any, shape: Sequence[int] = (), dtype: Any = md.int64) -> md.Tensor:
    """-1 or 1."""
    return 2 * bernoulli(key, 0.5, _shape(shape)).to(dtype) - 1


def ball(key: Any, d: int, p: float = 2, shape: Sequence[int] = (), dtype: Any = None) -> md.Tensor:
    """Uniform in the ball of norm p in d dimensions.

    >>> ball(md.random.key(0), 3, shape=(2,)).shape
    (2, 3)
    """
    first, second = R.split(key)
    g = generalized_normal(first, p, (*shape, d), dtype)
    e = R.exponential(second, tuple(shape), dtype)
    return g / md.pow(md.sum(md.pow(md.abs(g), p), axis=-1) + e, 1 / p)[..., None]


def binomial(key: Any, n: Any, p: Any, shape: Any = None, dtype: Any = None) -> md.Tensor:
    """How many of n trials of probability p succeed, as floats: md.distributions.Binomial's draws; nan for an n below 0 or a p not between 0 and 1.

    >>> binomial(md.random.key(0), 5, 1.0, (2,)).tolist()
    [5.0, 5.0]
    """
    n, p = (inexact(v) for v in (n, p))
    known = (n >= 0) & (p >= 0) & (p <= 1)
    trials = md.distributions.Binomial(md.where(known, n, 0.0), md.where(known, p, 0.5), validate_args=False)
    drawn = trials.expand(_shape(shape, n, p)).sample(key=key)
    return md.where(known, drawn, md.nan).to(drawn.dtype if dtype is None else dtype)


def multinomial(key: Any, n: Any, p: Any, *, shape: Any = None, dtype: Any = None, unroll: int | bool = 1) -> md.Tensor:
    """How often each class of the last axis of p was drawn in n draws, as floats, by a binomial number for each class of what is left. unroll is
    accepted and changes nothing.

    >>> multinomial(md.random.key(0), 5, md.tensor([0.0, 1.0])).tolist()
    [0.0, 5.0]
    """
    n, p = inexact(n), inexact(p)
    shape = md.broadcast_shapes(n.shape, p.shape[:-1]) if shape is None else tuple(shape)
    left, rest, out = md.broadcast_to(n.to(p.dtype), shape), md.flip(md.cumulative_sum(md.flip(p, axis=-1), axis=-1), axis=-1), []
    for i in range(p.shape[-1] - 1):
        none = rest[..., i] <= 0
        share = md.clip(md.where(none, 0.0, p[..., i] / md.where(none, 1.0, rest[..., i])), 0.0, 1.0)
        out.append(binomial(R.fold_in(key, i), left, share, shape))
        left = left - out[-1]
    drawn = md.stack([*out, left], axis=-1)
    return drawn if dtype is None else drawn.to(dtype)


def chisquare(key: Any, df: Any, shape: Any = None, dtype: Any = None) -> md.Tensor:
    """Chi-square of df degrees of freedom."""
    df = inexact(df)
    half = md.broadcast_to(df / 2, _shape(shape, df))
    return 2.0 * md.exp(R.loggamma(key, half, dtype=dtype))


def double_sided_maxwell(key: Any, loc: Any, scale: Any, shape: Sequence[int] = (), dtype: Any = None) -> md.Tensor:
    """Maxwell's distribution of either sign, moved and scaled."""
    loc, scale = inexact(loc), inexact(scale)
    shape = (*shape, *md.broadcast_shapes(loc.shape, scale.shape))
    first, second = R.split(key)
    return maxwell(first, shape, dtype) * rademacher(second, shape).to(scale.dtype) * scale + loc


def f(key: Any, dfnum: Any, dfden: Any, shape: Any = None, dtype: Any = None) -> md.Tensor:
    """Fisher's distribution."""
    a, b = inexact(dfnum), inexact(dfden)
    shape = _shape(shape, a, b)
    first, second = R.split(key)
    return (chisquare(first, a, shape, dtype) / a) / (chisquare(second, b, shape, dtype) / b)


def generalized_normal(key: Any, p: Any, shape: Any = (), dtype: Any = None) -> md.Tensor:
    """Of the density exp(-|x|**p), but for a factor."""
    one, two = R.split(key)
    shape = (shape,) if isinstance(shape, int) else tuple(shape)
    g = R.gamma(one, md.broadcast_to(md.asarray(1 / p, dtype=dtype or md.get_default_dtype()), shape), shape, dtype)
    r = rademacher(two, shape).to(g.dtype)
    return r * md.pow(g, 1 / p)


def geometric(key: Any, p: Any, shape: Any = None, dtype: Any = md.int64) -> md.Tensor:
    """How many trials of probability p it takes to succeed.

    >>> int(geometric(md.random.key(0), 1.0))
    1
    """
    p = inexact(p)
    u = R.uniform(key, _shape(shape, p), p.dtype, md.finfo(p.dtype).smallest_normal)
    return md.floor(md.log(u) / md.log1p(-p)).to(dtype) + 1


def maxwell(key: Any, shape: Sequence[int] = (), dtype: Any = None) -> md.Tensor:
    """The length of a vector of three normal numbers."""
    shape = (shape,) if isinstance(shape, int) else tuple(shape)
    return md.vector_norm(R.normal(key, (*shape, 3), dtype), axis=-1)


def pareto(key: Any, b: Any, shape: Any = None, dtype: Any = None) -> md.Tensor:
    """Pareto's distribution from 1 up."""
    b = inexact(b)
    return md.exp(R.exponential(key, _shape(shape, b), dtype or b.dtype) / b)


def rayleigh(key: Any, scale: Any, shape: Any = None, dtype: Any = None) -> md.Tensor:
    """The length of a vector of two normal numbers of this spread."""
    scale = inexact(scale)
    u = R.uniform(key, _shape(shape, scale), dtype or scale.dtype, md.finfo(dtype or scale.dtype).smallest_normal)
    return scale * md.sqrt(-2.0 * md.log(u))


def t(key: Any, df: Any, shape: Any = (), dtype: Any = None) -> md.Tensor:
    """Student's distribution."""
    df = inexact(df)
    shape = _shape(shape, df)
    shape = shape if shape or not df.ndim else df.shape
    first, second = R.split(key)
    n = R.normal(first, shape, dtype or df.dtype)
    half = df / 2.0
    g = R.gamma(second, half, shape, dtype or df.dtype)
    return n * md.sqrt(half / g)


def triangular(key: Any, left: Any, mode: Any, right: Any, shape: Any = None, dtype: Any = None) -> md.Tensor:
    """The triangular distribution."""
    a, c, b = inexact(left), inexact(mode), inexact(right)
    part = (c - a) / (b - a)
    u = R.uniform(key, _shape(shape, a, c, b), dtype or a.dtype)
    return md.where(u < part, a + md.sqrt(u * (b - a) * (c - a)), b - md.sqrt((1 - u) * (b - a) * (b - c)))


def wald(key: Any, mean: Any, shape: Any = None, dtype: Any = None) -> md.Tensor:
    """The inverse Gaussian distribution of this mean and scale 1."""
    mean = inexact(mean)
    first, second = R.split(key)
    shape = _shape(shape, mean)
    v, z = R.normal(first, shape, mean.dtype), R.uniform(second, shape, mean.dtype)
    y = md.square(v)
    w = md.square(mean) * y
    x = mean + w / 2 - mean / 2 * md.sqrt(4 * mean * y + w * y)
    return md.where(z <= mean / (mean + x), x, md.square(mean) / x)


def weibull_min(key: Any, scale: Any, concentration: Any, shape: Sequence[int] = (), dtype: Any = None) -> md.Tensor:
    """Weibull's distribution."""
    u = R.uniform(key, tuple(shape), dtype)
    return md.pow(-md.log1p(-u), 1.0 / concentration) * scale


def clone(key: Any) -> md.Tensor:
    """The same key."""
    return md.asarray(key)


_SPELLED = {
    "beta": "key a b shape dtype", "bits": "key shape dtype", "categorical": "key logits axis shape replace mode:-",
    "choice": "key a shape replace p axis mode:-", "gumbel": "key shape dtype mode:-", "multivariate_normal": "key mean cov shape dtype method:-",
}  # fmt: skip
_OWN = (
    ball, bernoulli, binomial, chisquare, clone, double_sided_maxwell, f, generalized_normal, geometric, key, maxwell, multinomial, pareto,
    rademacher, rayleigh, t, triangular, wald, weibull_min,
)  # fmt: skip
NAMES: dict[str, Any] = {
    **{name: spelled(getattr(R, name), words, name) for name, words in _SPELLED.items()}, **{v.__name__: v for v in _OWN},
    "PRNGKey": key, "key_data": clone, "wrap_key_data": lambda key_bits_array, *, impl=None: md.asarray(key_bits_array),
}  # fmt: skip
_SAME = """cauchy dirichlet exponential fold_in gamma laplace loggamma logistic lognormal normal orthogonal permutation poisson randint split
truncated_normal uniform"""
_ABSENT = {"shuffle": "permutation"}
__getattr__ = room(__name__, NAMES, (R,), _SAME, _ABSENT)


def __dir__() -> list[str]:
    return sorted({*(n for n in globals() if not n.startswith("_")), *NAMES, *_SAME.split()})
