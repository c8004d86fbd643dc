"""What parameters and values may be: a name for the error message, a test of NumPy arrays, and how many of the last axes belong together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

__all__ = ["Constraint"]


class Constraint(NamedTuple):
    """What is wanted, in words; whether arrays are so, element by element (or for each event); and the axes of one event.

    >>> Constraint("positive", lambda x: x > 0).holds(np.array(1.0))
    np.True_
    """

    text: str
    holds: Callable[[Any], Any]
    event_dim: int = 0


def _symmetric_positive(x: Any) -> Any:
    good = np.isclose(x, np.swapaxes(x, -1, -2), atol=1e-6).all(axis=(-1, -2))
    return good & (np.linalg.eigvalsh(np.where(good[..., None, None], x, np.eye(x.shape[-1]))) > 0).all(axis=-1)


def _triangular(x: Any) -> Any:
    return (np.tril(x) == x).all(axis=(-1, -2)) & (np.diagonal(x, axis1=-1, axis2=-2) > 0).all(axis=-1)


real = Constraint("real, not nan", lambda x: x == x)
real_vector = Constraint("a vector of real numbers", lambda x: (x == x).all(axis=-1), 1)
positive = Constraint("positive", lambda x: x > 0)
nonnegative = Constraint("at least 0", lambda x: x >= 0)
unit_interval = Constraint("between 0 and 1", lambda x: (x >= 0) & (x <= 1))
boolean = Constraint("0 or 1", lambda x: (x == 0) | (x == 1))
count = Constraint("an integer of at least 0", lambda x: (x >= 0) & (x % 1 == 0))
weights = Constraint("a vector of numbers of at least 0 that are not all 0", lambda x: (x >= 0).all(axis=-1) & (x.sum(axis=-1) > 0), 1)
positive_vector = Constraint("a vector of positive numbers", lambda x: (x > 0).all(axis=-1), 1)


def simplex(eps: float) -> Constraint:
    """At least 0 with sum 1, in numbers of such an eps."""
    return Constraint("at least 0 with sum 1", lambda x: (x >= 0).all(axis=-1) & (np.abs(x.sum(axis=-1) - 1) < 1e-6 + 4 * eps), 1)


one_hot = Constraint("one 1 among zeros", lambda x: ((x == 0) | (x == 1)).all(axis=-1) & (x.sum(axis=-1) == 1), 1)
covariance = Constraint("a symmetric positive-definite matrix", _symmetric_positive, 2)
scale_tril = Constraint("a lower-triangular matrix with a positive diagonal", _triangular, 2)
