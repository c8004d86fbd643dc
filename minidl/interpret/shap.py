"""Shapley values: how much of f(x) - f(baseline) each input brings, averaged over all orders in which inputs may come in.

Promises: the values of an example add up to f(x) - f(baseline) (exactly in kernel_shap, in the mean in gradient_shap); results come from a key,
and are the same on every backend; nothing is left behind.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

import minidl as md
from minidl.interpret.attribution import Model, Target, _base, _score, _scores, _values


@_values
def gradient_shap(
    f: Model, x: md.Tensor, baselines: md.Tensor, target: Target = None, samples: int = 5, noise: float = 0.0, key: md.Tensor | None = None
) -> md.Tensor:
    """The mean, over random baselines and random places on the way from them to x, of (x - baseline) times the gradient there (expected gradients).

    baselines: [M, ...], of which one is drawn for each example and sample. noise: the standard deviation of normal noise that is added to x. key: of
    md.random (default: key(0)). Other arguments as of saliency. Sources: S. Lundberg and S.-I. Lee, A unified approach to interpreting model
    predictions (NeurIPS 2017); G. Erion et al., Improving performance of deep learning models with axiomatic attribution priors and expected
    gradients (2021). Raises ValueError for samples < 1 and for baselines of another shape than x's examples, and what saliency raises.

    >>> import minidl as md
    >>> gradient_shap(lambda x: x[:, 0] * 2.0 - x[:, 1], md.tensor([[5.0, 1.0]]), md.zeros((1, 2))).tolist()
    [[10.0, -1.0]]
    """
    if samples < 1:
        raise ValueError(f"gradient_shap: samples must be at least 1, got {samples}")
    if baselines.ndim != x.ndim or baselines.shape[1:] != x.shape[1:] or not baselines.shape[0]:
        raise ValueError(f"gradient_shap: baselines [M, ...] of x's examples are wanted, and shape {baselines.shape} came for {x.shape}")
    score, n = _score("gradient_shap", f, target), x.shape[0]
    keys = md.random.split(md.random.key(0) if key is None else key, samples).to(backend=x.backend, device=x.device)

    def add(total: md.Tensor, k: md.Tensor) -> tuple[md.Tensor, None]:
        which, place, around = md.random.split(k, 3)
        base = md.take(baselines, md.random.randint(which, (n,), 0, baselines.shape[0]), axis=0).to(x.dtype)
        way = md.random.uniform(place, (n,) + (1,) * (x.ndim - 1), x.dtype)
        there = x + noise * md.random.normal(around, x.shape, x.dtype) if noise else x
        return total + (there - base) * md.grad(score)(base + way * (there - base)), None

    return md.scan(add, md.zeros_like(x), keys)[0] / samples


@_values
def kernel_shap(
    f: Model,
    x: md.Tensor,
    baseline: md.Tensor | float = 0.0,
    target: Target = None,
    samples: int = 2048,
    groups: Any = None,
    key: md.Tensor | None = None,
) -> md.Tensor:
    """Shapley values of any model, from its scores alone: the weighted regression on which inputs are x's and which are the baseline's.

    groups: integers from 0 on, of the shape of one example, say which inputs come and go together (default: each by itself); every input of a group
    has the value of the group. Where there are no more than `samples` sets of groups all are taken, and the values are exact; otherwise random sets,
    each with its complement. samples counts runs of f on the whole batch. key: of md.random (default: key(0)); no traced one.
    Other arguments as of saliency. Sources: S. Lundberg and S.-I. Lee, A unified approach to interpreting model predictions (NeurIPS 2017); I. Covert
    and S.-I. Lee, Improving KernelSHAP (AISTATS 2021). Raises ValueError for groups that are not numbered from 0 without a gap or of another shape,
    and for fewer samples than twice the groups, and what saliency raises.

    >>> import minidl as md
    >>> kernel_shap(lambda x: x[:, 0] * x[:, 1] + x[:, 2], md.tensor([[2.0, 3.0, 1.0]])).round().tolist()
    [[3.0, 3.0, 1.0]]
    """
    number = np.arange(math.prod(x.shape[1:])).reshape(x.shape[1:]) if groups is None else np.asarray(groups)
    d = int(number.max(initial=-1)) + 1
    if number.shape != tuple(x.shape[1:]) or number.dtype.kind not in "iu" or sorted(set(number.ravel().tolist())) != list(range(d)):
        raise ValueError(f"kernel_shap: groups are integers 0 to n - 1 of shape {tuple(x.shape[1:])}; {number.dtype} of shape {number.shape} came")
    _score("kernel_shap", f, target)(x)  # what is wrong with the model or the target is said here
    scores = lambda x: _scores("kernel_shap", f, x, target)
    place = {"backend": x.backend, "device": x.device}
    base = _base(x, baseline)
    none = scores(base)
    gained = scores(x) - none
    spread = lambda values: values[:, md.asarray(number, **place)]  # [N, d] → x's shape
    if d < 2:
        return spread(gained[:, None]) if d else md.zeros_like(x)
    sets, weights = _every(d) if d < 60 and 2**d - 2 <= samples else _drawn(d, samples, key)
    y = md.map(lambda z: scores(md.where(z, x, base)), md.asarray(sets[:, number], **place)) - none  # [sets, N]
    # that the values add up to what is gained takes the place of the last one
    left = (sets[:, :-1].astype(float) - sets[:, -1:]) * np.sqrt(weights)[:, None]
    solve = np.linalg.pinv(left) * np.sqrt(weights)
    last = md.asarray(sets[:, -1:].astype(x.dtype.numpy), **place)
    found = md.asarray(solve.astype(x.dtype.numpy), **place) @ (y - last * gained)  # [d - 1, N]
    return spread(md.concat([found, (gained - found.sum(axis=0))[None]], axis=0).mT)


def _every(d: int) -> tuple[np.ndarray, np.ndarray]:
    """All sets of d groups but the empty and the full one, and their weights."""
    sets = (np.arange(1, 2**d - 1)[:, None] >> np.arange(d) & 1).astype(bool)
    size = sets.sum(1)
    return sets, np.array([1 / (math.comb(d, k) * k * (d - k)) for k in size.tolist()])


def _drawn(d: int, samples: int, key: Any) -> tuple[np.ndarray, np.ndarray]:
    """Random sets with the kernel's probabilities, each followed by its complement."""
    if samples < 2 * d:
        raise ValueError(f"kernel_shap: {samples} samples for {d} groups; at least {2 * d} are wanted, or fewer groups")
    with md.use_backend("numpy"):
        key = md.random.key(0) if key is None else key.to(backend="numpy", device="cpu")
        u = md.random.uniform(key, (samples // 2, d + 1), md.float64).numpy()
    sizes = np.arange(1, d)
    chance = np.cumsum(1 / (sizes * (d - sizes)))
    size = 1 + np.searchsorted(chance, u[:, 0] * chance[-1], side="right").clip(0, d - 2)
    chosen = u[:, 1:].argsort(1).argsort(1) < size[:, None]
    return np.concatenate([chosen, ~chosen]), np.ones(2 * len(chosen))
