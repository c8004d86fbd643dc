"""`MultivariateNormal`, by a covariance, a precision or a Cholesky factor, and `LowRankMultivariateNormal`, by a narrow matrix and a diagonal."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

import minidl as md
from minidl.distributions import constraints
from minidl.distributions.base import LOG_2PI, Distribution
from minidl.distributions.discrete import one_of
from minidl.extend import describe

__all__ = ["LowRankMultivariateNormal", "MultivariateNormal"]


def log_det(tril: md.Tensor) -> md.Tensor:
    """log of the determinant of a triangular matrix."""
    return md.sum(md.log(md.diagonal(tril, axis1=-2, axis2=-1)), axis=-1)


def solved(tril: md.Tensor, b: md.Tensor) -> md.Tensor:
    """L**-1 b of vectors, which broadcast against the matrices."""
    lead = md.broadcast_shapes(tril.shape[:-2], b.shape[:-1])
    tril, b = md.broadcast_to(tril, lead + tril.shape[-2:]), md.broadcast_to(b, lead + b.shape[-1:])
    return md.linalg.triangular_solve(tril, b[..., None])[..., 0]


def transposed(x: md.Tensor) -> md.Tensor:
    return md.matrix_transpose(x)


def _unit(n: int, like: md.Tensor) -> md.Tensor:
    """The unit matrix of size n, where `like` is."""
    return md.extend.from_numpy(np.eye(n), md.extend.home(like)).to(like.dtype)


class MultivariateNormal(Distribution):
    """Normal vectors of mean loc [..., n], by one of covariance_matrix, precision_matrix (its inverse) and scale_tril (its lower Cholesky factor),
    [..., n, n].

    Densities and draws use the factor. Raises ValueError unless exactly one matrix is given, is symmetric positive-definite (lower-triangular with a
    positive diagonal) and has the size of loc.

    >>> d = MultivariateNormal(md.zeros(2), covariance_matrix=md.tensor([[4.0, 0.0], [0.0, 1.0]]))
    >>> d.scale_tril.tolist(), d.variance.tolist(), d.sample((3,)).shape
    ([[2.0, 0.0], [0.0, 1.0]], [4.0, 1.0], (3, 2))
    """

    arg_constraints: ClassVar = {
        "loc": constraints.real_vector, "covariance_matrix": constraints.covariance, "precision_matrix": constraints.covariance,
        "scale_tril": constraints.scale_tril,
    }  # fmt: skip
    support = constraints.real_vector
    has_rsample = True
    loc: md.Tensor
    _matrix: md.Tensor
    _tril: md.Tensor

    def __init__(
        self, loc: Any, covariance_matrix: Any = None, precision_matrix: Any = None, scale_tril: Any = None, validate_args: bool | None = None
    ):
        given = one_of("MultivariateNormal", covariance_matrix=covariance_matrix, precision_matrix=precision_matrix, scale_tril=scale_tril)
        (kind,) = given
        self._kind = kind
        self._set(validate_args, loc=loc, **given)
        n = self.loc.shape[-1]
        if self._matrix.shape[-2:] != (n, n):
            raise ValueError(f"MultivariateNormal: {kind} {describe(self._matrix)} does not have the size of loc {describe(self.loc)}")
        tril = self._matrix
        if kind != "scale_tril":  # a factor reads one half; so both have their share of the gradient
            tril = (tril + transposed(tril)) / 2
        if kind == "covariance_matrix":
            tril = md.linalg.cholesky(tril)
        elif kind == "precision_matrix":  # of the inverse, without inverting: by a factor of the matrix read backwards
            flipped = md.flip(md.linalg.cholesky(md.flip(tril, axis=(-2, -1))), axis=(-2, -1))
            tril = md.linalg.triangular_solve(transposed(flipped), md.broadcast_to(_unit(n, tril), tril.shape))
        self._tril = tril
        self._parameters = (*self._parameters, "_tril") if kind != "scale_tril" else self._parameters

    def _given(self, kind: str, other: Any) -> md.Tensor:
        return self._matrix if self._kind == kind else other()

    def _keep(self, value: md.Tensor) -> None:
        self._matrix = value
        if self._kind == "scale_tril":
            self._tril = value

    scale_tril = property(lambda self: self._tril, _keep, doc="The lower Cholesky factor of the covariance.")
    covariance_matrix = property(
        lambda self: self._given("covariance_matrix", lambda: self._tril @ transposed(self._tril)), _keep, doc="The covariance, [..., n, n]."
    )
    precision_matrix = property(
        lambda self: self._given("precision_matrix", lambda: md.linalg.inv(self._tril @ transposed(self._tril))), _keep, doc="Its inverse."
    )

    @property
    def mean(self) -> md.Tensor:
        return self.loc

    @property
    def mode(self) -> md.Tensor:
        return self.loc

    @property
    def variance(self) -> md.Tensor:
        return md.sum(md.square(self._tril), axis=-1)

    def _draw(self, key: md.Tensor, shape: tuple[int, ...]) -> md.Tensor:
        return self.loc + (self._tril @ md.random.normal(key, shape, self.loc.dtype)[..., None])[..., 0]

    def log_prob(self, value: Any) -> md.Tensor:
        z = solved(self._tril, self._value(value) - self.loc)
        return -0.5 * (self.event_shape[0] * LOG_2PI + md.sum(md.square(z), axis=-1)) - log_det(self._tril)

    def entropy(self) -> md.Tensor:
        return 0.5 * self.event_shape[0] * (1 + LOG_2PI) + log_det(self._tril)


class LowRankMultivariateNormal(Distribution):
    """Normal vectors of mean loc [..., n] and covariance W Wᵀ + D: cov_factor W [..., n, k], cov_diag the diagonal [..., n] of D.

    Densities cost as much as a matrix of k by k (the matrix determinant lemma and Woodbury's identity). Raises ValueError for a cov_diag that is not
    positive and for sizes that differ.

    >>> d = LowRankMultivariateNormal(md.zeros(2), md.ones(2, 1), md.ones(2))
    >>> d.covariance_matrix.tolist(), d.sample((3,)).shape
    ([[2.0, 1.0], [1.0, 2.0]], (3, 2))
    """

    arg_constraints: ClassVar = {
        "loc": constraints.real_vector, "cov_factor": constraints.independent(constraints.real, 2), "cov_diag": constraints.positive_vector,
    }  # fmt: skip
    support = constraints.real_vector
    has_rsample = True
    loc: md.Tensor
    cov_factor: md.Tensor
    cov_diag: md.Tensor

    def __init__(self, loc: Any, cov_factor: Any, cov_diag: Any, validate_args: bool | None = None):
        self._set(validate_args, cov_factor=cov_factor, cov_diag=cov_diag, loc=loc)
        n = self.loc.shape[-1]
        if self.cov_factor.shape[-2] != n or self.cov_diag.shape[-1] != n:
            raise ValueError(
                f"LowRankMultivariateNormal: loc {describe(self.loc)}, cov_factor {describe(self.cov_factor)} and cov_diag {describe(self.cov_diag)} "
                "differ in size"
            )

    @property
    def _capacitance_tril(self) -> md.Tensor:
        scaled = transposed(self.cov_factor) / self.cov_diag[..., None, :]
        return md.linalg.cholesky(scaled @ self.cov_factor + _unit(self.cov_factor.shape[-1], self.loc))

    @property
    def covariance_matrix(self) -> md.Tensor:
        """The covariance, [..., n, n]."""
        return self.cov_factor @ transposed(self.cov_factor) + self.cov_diag[..., None] * _unit(self.loc.shape[-1], self.loc)

    @property
    def precision_matrix(self) -> md.Tensor:
        """Its inverse."""
        return md.linalg.inv(self.covariance_matrix)

    @property
    def scale_tril(self) -> md.Tensor:
        """Its lower Cholesky factor."""
        return md.linalg.cholesky(self.covariance_matrix)

    @property
    def mean(self) -> md.Tensor:
        return self.loc

    @property
    def mode(self) -> md.Tensor:
        return self.loc

    @property
    def variance(self) -> md.Tensor:
        return md.sum(md.square(self.cov_factor), axis=-1) + self.cov_diag

    def _draw(self, key: md.Tensor, shape: tuple[int, ...]) -> md.Tensor:
        wide, narrow = (md.random.normal(md.random.fold_in(key, i), s, self.loc.dtype) for i, s in enumerate((shape, self._inner(shape))))
        return self.loc + (self.cov_factor @ narrow[..., None])[..., 0] + md.sqrt(self.cov_diag) * wide

    def _inner(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return (*shape[:-1], self.cov_factor.shape[-1])

    def _log_det(self, tril: md.Tensor) -> md.Tensor:
        return 2 * log_det(tril) + md.sum(md.log(self.cov_diag), axis=-1)

    def log_prob(self, value: Any) -> md.Tensor:
        away, tril = self._value(value) - self.loc, self._capacitance_tril
        scaled = away / self.cov_diag
        inner = solved(tril, (transposed(self.cov_factor) @ scaled[..., None])[..., 0])
        distance = md.sum(away * scaled, axis=-1) - md.sum(md.square(inner), axis=-1)
        return -0.5 * (self.event_shape[0] * LOG_2PI + self._log_det(tril) + distance)

    def entropy(self) -> md.Tensor:
        return 0.5 * (self.event_shape[0] * (1 + LOG_2PI) + self._log_det(self._capacitance_tril))
