"""Dropout and its kin as functions; all are names of minidl.nn.functional.

The draws come from md.random.default_generator, so one seed gives the same masks on every backend, eager or traced. `inplace=True` stores the
result in the argument besides.
"""

from __future__ import annotations

import math

import minidl as md
from minidl.nn.functional import gates
from minidl.nn.functional.activations import stored

__all__ = ["alpha_dropout", "dropout", "dropout1d", "dropout2d", "dropout3d", "feature_alpha_dropout"]


def probability(name: str, p: float) -> None:
    """Raise ValueError unless p is a probability."""
    if not 0 <= p <= 1:
        raise ValueError(f"{name}: p is a probability, not {p}")


def _drawn(input: md.Tensor, p: float, shape: tuple[int, ...]) -> md.Tensor:
    return md.random.default_generator.coins(1.0 - p, shape, like=input)


def dropout(input: md.Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> md.Tensor:
    """Zero each element with probability p and scale the rest by 1/(1-p), if training (N. Srivastava et al., JMLR 15, 2014).

    >>> md.nn.functional.dropout(md.ones(3), 0.5, training=False).tolist()
    [1.0, 1.0, 1.0]
    """
    return stored(_drop("dropout", input, p, training, input.shape), input, inplace)


def _drop(name: str, input: md.Tensor, p: float, training: bool, shape: tuple[int, ...]) -> md.Tensor:
    probability(name, p)
    if not training or p == 0:
        return input
    if p == 1:
        return md.zeros_like(input) * input
    return gates.kept(_drawn(input, p, shape), input, scale=1.0 / (1.0 - p))


def _channels(name: str, input: md.Tensor, p: float, training: bool, n: int) -> md.Tensor:
    if input.ndim not in (n + 1, n + 2):
        raise ValueError(f"{name}: expected [N, C, {', '.join('DHW'[3 - n :])}] or the same without N, got shape {input.shape}")
    return _drop(name, input, p, training, input.shape[: input.ndim - n] + (1,) * n)


def dropout1d(input: md.Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> md.Tensor:
    """Zero whole channels of [N, C, L] (or [C, L]) with probability p and scale the rest by 1/(1-p), if training.

    Raises ValueError for another number of axes, and for a p outside of [0, 1].

    >>> y = md.nn.functional.dropout1d(md.ones((2, 3, 4)), 0.5)
    >>> bool((y.max(axis=-1) == y.min(axis=-1)).all())
    True
    """
    return stored(_channels("dropout1d", input, p, training, 1), input, inplace)


def dropout2d(input: md.Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> md.Tensor:
    """Zero whole channels of [N, C, H, W] (or [N, C, L]) with probability p and scale the rest by 1/(1-p), if training (J. Tompson et al., 2015).

    Raises ValueError for another number of axes, and for a p outside of [0, 1].

    >>> y = md.nn.functional.dropout2d(md.ones((2, 3, 4, 4)), 0.5)
    >>> bool((y.max(axis=(2, 3)) == y.min(axis=(2, 3))).all())
    True
    """
    if input.ndim not in (3, 4):
        raise ValueError(f"dropout2d: expected [N, C, H, W] or [N, C, L], got shape {input.shape}")
    return stored(_drop("dropout2d", input, p, training, input.shape[:2] + (1,) * (input.ndim - 2)), input, inplace)


def dropout3d(input: md.Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> md.Tensor:
    """Zero whole channels of [N, C, D, H, W] (or [C, D, H, W]) with probability p and scale the rest by 1/(1-p), if training.

    Raises ValueError for another number of axes, and for a p outside of [0, 1].

    >>> md.nn.functional.dropout3d(md.ones((2, 3, 2, 2, 2)), 0.5).shape
    (2, 3, 2, 2, 2)
    """
    return stored(_channels("dropout3d", input, p, training, 3), input, inplace)


_ALPHA = -1.7580993408473766  # -scale * alpha of selu: what selu tends to at -inf


def _alpha(name: str, input: md.Tensor, p: float, training: bool, shape: tuple[int, ...]) -> md.Tensor:
    probability(name, p)
    if not training or p == 0:
        return input
    if p == 1:
        return md.zeros_like(input) * input
    a = 1.0 / math.sqrt((_ALPHA * _ALPHA * p + 1.0) * (1.0 - p))
    return md.where(_drawn(input, p, shape), input, _ALPHA) * a - _ALPHA * p * a


def alpha_dropout(input: md.Tensor, p: float = 0.5, training: bool = False, inplace: bool = False) -> md.Tensor:
    """Set each element to selu's lower limit with probability p, then restore mean 0 and variance 1 (G. Klambauer et al., NeurIPS 2017).

    >>> md.nn.functional.alpha_dropout(md.ones(3), 0.5).tolist()
    [1.0, 1.0, 1.0]
    """
    return stored(_alpha("alpha_dropout", input, p, training, input.shape), input, inplace)


def feature_alpha_dropout(input: md.Tensor, p: float = 0.5, training: bool = False, inplace: bool = False) -> md.Tensor:
    """alpha_dropout of whole channels of [N, C, ...].

    >>> md.nn.functional.feature_alpha_dropout(md.ones((1, 2, 3)), 0.5).shape
    (1, 2, 3)
    """
    return stored(_alpha("feature_alpha_dropout", input, p, training, input.shape[:2] + (1,) * (input.ndim - 2)), input, inplace)
