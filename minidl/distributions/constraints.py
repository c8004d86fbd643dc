"""What parameters and values may be: a name for the error message, a test of NumPy arrays, and how many of the last axes belong together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

import minidl as md

__all__ = ["Constraint", "greater_than", "greater_than_eq", "half_open_interval", "independent", "integer_interval", "interval", "less_than"]


class Constraint(NamedTuple):
    """What is wanted, in words; whether arrays are so, element by element (or for each event); and the axes of one event.

    >>> Constraint("positive", lambda x: x > 0).holds(np.array(1.0))
    np.True_
    """

    text: str
    holds: Callable[[Any], Any]
    event_dim: int = 0

    def check(self, value: Any) -> md.Tensor:
        """Of a tensor, a tensor of bools, which is PyTorch's way to ask.

        >>> positive.check(md.tensor([1.0, -1.0])).tolist()
        [True, False]
        """
        x = md.asarray(value)
        return md.extend.from_numpy(np.asarray(self.holds(x.detach().numpy())), md.extend.home(x), md.bool)


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


def greater_than(lower_bound: float) -> Constraint:
    """Above a number.

    >>> bool(greater_than(1.0).holds(1.0))
    False
    """
    return Constraint(f"above {lower_bound}", lambda x: x > lower_bound)


def greater_than_eq(lower_bound: float) -> Constraint:
    """At least a number.

    >>> bool(greater_than_eq(1.0).holds(1.0))
    True
    """
    return Constraint(f"at least {lower_bound}", lambda x: x >= lower_bound)


def less_than(upper_bound: float) -> Constraint:
    """Below a number.

    >>> bool(less_than(1.0).holds(1.0))
    False
    """
    return Constraint(f"below {upper_bound}", lambda x: x < upper_bound)


def interval(lower_bound: float, upper_bound: float) -> Constraint:
    """Between two numbers, or one of them.

    >>> bool(interval(0.0, 1.0).holds(1.0))
    True
    """
    return Constraint(f"between {lower_bound} and {upper_bound}", lambda x: (x >= lower_bound) & (x <= upper_bound))


def half_open_interval(lower_bound: float, upper_bound: float) -> Constraint:
    """At least one number and below the other.

    >>> bool(half_open_interval(0.0, 1.0).holds(1.0))
    False
    """
    return Constraint(f"at least {lower_bound} and below {upper_bound}", lambda x: (x >= lower_bound) & (x < upper_bound))


def integer_interval(lower_bound: int, upper_bound: int) -> Constraint:
    """An integer between two, or one of them.

    >>> bool(integer_interval(1, 6).holds(2.5))
    False
    """
    return Constraint(f"an integer from {lower_bound} to {upper_bound}", lambda x: (x >= lower_bound) & (x <= upper_bound) & (x % 1 == 0))


def independent(base_constraint: Constraint, reinterpreted_batch_ndims: int) -> Constraint:
    """A constraint of arrays of so many more axes, all of whose elements (or events) are as the base says.

    >>> bool(independent(positive, 1).holds(np.array([1.0, -1.0])))
    False
    """
    axes = tuple(range(-reinterpreted_batch_ndims, 0))
    base, more = base_constraint, base_constraint.event_dim + reinterpreted_batch_ndims
    return Constraint(f"an array of numbers each {base.text}", lambda x: base.holds(x).all(axis=axes), more)


def sum_of_one(eps: float) -> Constraint:
    """At least 0 with sum 1, in numbers of such an eps."""
    return Constraint("at least 0 with sum 1", lambda x: (x >= 0).all(axis=-1) & (np.abs(x.sum(axis=-1) - 1) < 1e-6 + 4 * eps), 1)


simplex = sum_of_one(2.0**-23)
one_hot = Constraint("one 1 among zeros", lambda x: ((x == 0) | (x == 1)).all(axis=-1) & (x.sum(axis=-1) == 1), 1)
covariance = Constraint("a symmetric positive-definite matrix", _symmetric_positive, 2)
scale_tril = Constraint("a lower-triangular matrix with a positive diagonal", _triangular, 2)
#: PyTorch's other names.
nonnegative_integer, positive_definite, lower_cholesky = count, covariance, scale_tril
positive_integer = Constraint("an integer of at least 1", lambda x: (x >= 1) & (x % 1 == 0))
dependent = Constraint("what the parameters say", lambda x: x == x)
