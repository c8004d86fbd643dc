"""Changes of variables for TransformedDistribution: Affine, Exp, Power, Sigmoid, Softplus, Tanh, Reshape, StickBreaking, and their compositions and
inverses.

A transform of your own has `_call`, `_inverse` and `log_abs_det_jacobian`; one that mixes the last axes of an event says how many in `event_dim`, or
by its `domain` and `codomain`, such as constraints.real_vector.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import minidl as md
from minidl.distributions.base import Distribution, inside, sum_rightmost
from minidl.distributions.constraints import Constraint
from minidl.extend import operand

__all__ = [
    "AbsTransform", "AffineTransform", "ComposeTransform", "CumulativeDistributionTransform", "ExpTransform", "IndependentTransform",
    "PowerTransform", "ReshapeTransform", "SigmoidTransform", "SoftmaxTransform", "SoftplusTransform", "StickBreakingTransform", "TanhTransform",
    "Transform", "identity_transform",
]  # fmt: skip


class Transform:
    """An invertible function of the last event_dim axes (element by element for 0), with the logarithm of its Jacobian. Its results have the same
    shape unless forward_shape and inverse_shape say otherwise, and as many axes of an event unless out_dim does.

    `sign` is that of its derivative, where it is monotone. cache_size=1 keeps the last input, so that the inverse of its output is exact,
    unless either is changed in place. Raises ValueError for another cache_size.

    >>> t = ExpTransform()
    >>> t(md.zeros(2)).tolist(), t.inv(md.ones(2)).tolist()
    ([1.0, 1.0], [0.0, 0.0])
    """

    event_dim = 0
    bijective = True
    sign: Any = 1

    @property
    def out_dim(self) -> int:
        """How many of the last axes of a result belong together."""
        return self.event_dim

    def __init_subclass__(cls) -> None:
        """PyTorch's classes say how many axes an event has by domain and codomain."""
        super().__init_subclass__()
        own = [vars(cls)[name] for name in ("domain", "codomain") if isinstance(vars(cls).get(name), Constraint)]
        if own and "event_dim" not in vars(cls):
            cls.event_dim = max(c.event_dim for c in own)

    def __init__(self, cache_size: int = 0):
        if cache_size not in (0, 1):
            raise ValueError(f"{type(self).__name__}: cache_size is 0 or 1, not {cache_size}")
        self._cache_size = cache_size
        self._last: tuple[Any, Any] = (None, None)

    def _call(self, x: md.Tensor) -> md.Tensor:
        raise NotImplementedError(f"{type(self).__name__}: no _call")

    def _inverse(self, y: md.Tensor) -> md.Tensor:
        raise NotImplementedError(f"{type(self).__name__}: no _inverse")

    def __call__(self, x: md.Tensor) -> md.Tensor:
        if not self._cache_size:
            return self._call(x)
        last = self._last  # another thread may put another pair there
        if last[0] is not x:
            self._last = last = (x, self._call(x))
        return last[1]

    def _inv_call(self, y: md.Tensor) -> md.Tensor:
        if not self._cache_size:
            return self._inverse(y)
        last = self._last
        if last[1] is not y:
            self._last = last = (self._inverse(y), y)
        return last[0]

    def __getstate__(self) -> dict[str, Any]:
        """Without what was kept, which may belong to a trace that has ended."""
        return {**self.__dict__, "_last": (None, None)}

    @property
    def inv(self) -> Transform:
        """The inverse."""
        return _Inverse(self)

    def log_abs_det_jacobian(self, x: md.Tensor, y: md.Tensor) -> md.Tensor:
        """log |dy/dx| without the axes of event_dim."""
        raise NotImplementedError(f"{type(self).__name__}: no log_abs_det_jacobian")

    def forward_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of the result for an input of a shape."""
        return tuple(shape)

    def inverse_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of the input for a result of a shape."""
        return self.forward_shape(shape)

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class _Inverse(Transform):
    def __init__(self, of: Transform):
        super().__init__()
        self.of, self.event_dim, self.bijective = of, of.out_dim, of.bijective

    @property
    def out_dim(self) -> int:
        return self.of.event_dim

    @property
    def sign(self) -> Any:  # type: ignore[override]
        return self.of.sign

    @property
    def inv(self) -> Transform:
        return self.of

    def _call(self, x: md.Tensor) -> md.Tensor:
        return self.of._inv_call(x)

    def _inverse(self, y: md.Tensor) -> md.Tensor:
        return self.of(y)

    def log_abs_det_jacobian(self, x: md.Tensor, y: md.Tensor) -> md.Tensor:
        return -self.of.log_abs_det_jacobian(y, x)

    def forward_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return self.of.inverse_shape(shape)

    def inverse_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return self.of.forward_shape(shape)

    def __repr__(self) -> str:
        return f"{self.of!r}.inv"


class AffineTransform(Transform):
    """loc + scale * x; with an event_dim the last axes belong to one event.

    >>> AffineTransform(1.0, 2.0)(md.ones(2)).tolist()
    [3.0, 3.0]
    """

    def __init__(self, loc: Any, scale: Any, event_dim: int = 0, cache_size: int = 0):
        super().__init__(cache_size)
        self.loc, self.scale, self.event_dim = loc, scale, event_dim

    @property
    def sign(self) -> Any:  # type: ignore[override]
        return md.sign(self.scale) if isinstance(self.scale, md.Tensor) else math.copysign(1, self.scale)

    def _call(self, x: md.Tensor) -> md.Tensor:
        return self.loc + self.scale * x

    def _inverse(self, y: md.Tensor) -> md.Tensor:
        return (y - self.loc) / self.scale

    def log_abs_det_jacobian(self, x: md.Tensor, y: md.Tensor) -> md.Tensor:
        size = md.log(md.abs(operand(self.scale, x, "AffineTransform: scale")))
        return sum_rightmost(md.broadcast_to(size, md.broadcast_shapes(size.shape, x.shape)), self.event_dim)

    def forward_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(md.broadcast_shapes(shape, getattr(self.loc, "shape", ()), getattr(self.scale, "shape", ())))

    def __repr__(self) -> str:
        return f"AffineTransform({self.loc}, {self.scale})"


class ExpTransform(Transform):
    """exp(x).

    >>> ExpTransform()(md.zeros(())).item()
    1.0
    """

    def _call(self, x: md.Tensor) -> md.Tensor:
        return md.exp(x)

    def _inverse(self, y: md.Tensor) -> md.Tensor:
        return md.log(y)

    def log_abs_det_jacobian(self, x: md.Tensor, y: md.Tensor) -> md.Tensor:
        return x


class SigmoidTransform(Transform):
    """1 / (1 + exp(-x)); the inverse of 0 and 1 is finite, as PyTorch's: of the nearest numbers between.

    >>> SigmoidTransform()(md.zeros(())).item()
    0.5
    """

    def _call(self, x: md.Tensor) -> md.Tensor:
        return inside(md.sigmoid(x))

    def _inverse(self, y: md.Tensor) -> md.Tensor:
        y = inside(y)
        return md.log(y) - md.log1p(-y)

    def log_abs_det_jacobian(self, x: md.Tensor, y: md.Tensor) -> md.Tensor:
        return -md.softplus(-x) - md.softplus(x)


class TanhTransform(Transform):
    """tanh(x). Far from 0 the inverse of the rounded result is inf: cache_size=1 keeps the input of the last result.

    >>> TanhTransform()(md.zeros(())).item()
    0.0
    """

    def _call(self, x: md.Tensor) -> md.Tensor:
        return md.tanh(x)

    def _inverse(self, y: md.Tensor) -> md.Tensor:
        return md.atanh(y)

    def log_abs_det_jacobian(self, x: md.Tensor, y: md.Tensor) -> md.Tensor:
        return 2.0 * (math.log(2.0) - x - md.softplus(-2.0 * x))


class ComposeTransform(Transform):
    """Several transforms, the first one first.

    >>> ComposeTransform([AffineTransform(0.0, 2.0), ExpTransform()])(md.zeros(())).item()
    1.0
    """

    def __init__(self, parts: Sequence[Transform], cache_size: int = 0):
        super().__init__(cache_size)
        self.parts = list(parts)
        self.event_dim = 0
        for t in reversed(self.parts):  # what the later ones want of the input, through those before them
            self.event_dim = max(self.event_dim + t.event_dim - t.out_dim, t.event_dim)
        self.bijective = all(t.bijective for t in self.parts)

    @property
    def sign(self) -> Any:  # type: ignore[override]
        out: Any = 1
        for t in self.parts:
            out = out * t.sign
        return out

    def _call(self, x: md.Tensor) -> md.Tensor:
        for t in self.parts:
            x = t(x)
        return x

    def _inverse(self, y: md.Tensor) -> md.Tensor:
        for t in reversed(self.parts):
            y = t._inv_call(y)
        return y

    def log_abs_det_jacobian(self, x: md.Tensor, y: md.Tensor) -> md.Tensor:
        total: Any = None
        n = self.event_dim
        for t in self.parts:
            y = t(x)
            part = sum_rightmost(t.log_abs_det_jacobian(x, y), n - t.event_dim)
            total, x, n = part if total is None else total + part, y, n + t.out_dim - t.event_dim
        return md.zeros_like(x) if total is None else total

    def forward_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        for t in self.parts:
            shape = t.forward_shape(shape)
        return shape

    def inverse_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        for t in reversed(self.parts):
            shape = t.inverse_shape(shape)
        return shape

    @property
    def out_dim(self) -> int:
        n = 0
        for t in self.parts:
            n = max(n + t.out_dim - t.event_dim, t.out_dim)
        return n

    def __repr__(self) -> str:
        return f"ComposeTransform({self.parts})"


class IndependentTransform(Transform):
    """A transform whose last reinterpreted_batch_ndims axes more belong to one event: the logarithm of its Jacobian is summed over them.

    >>> t = IndependentTransform(ExpTransform(), 1)
    >>> t.event_dim, t.log_abs_det_jacobian(md.ones(3), md.exp(md.ones(3))).item()
    (1, 3.0)
    """

    def __init__(self, base_transform: Transform, reinterpreted_batch_ndims: int, cache_size: int = 0):
        super().__init__(cache_size)
        self.base_transform, self.reinterpreted_batch_ndims = base_transform, reinterpreted_batch_ndims
        self.event_dim, self.bijective = base_transform.event_dim + reinterpreted_batch_ndims, base_transform.bijective

    @property
    def sign(self) -> Any:  # type: ignore[override]
        return self.base_transform.sign

    def _call(self, x: md.Tensor) -> md.Tensor:
        return self.base_transform(x)

    def _inverse(self, y: md.Tensor) -> md.Tensor:
        return self.base_transform._inv_call(y)

    def log_abs_det_jacobian(self, x: md.Tensor, y: md.Tensor) -> md.Tensor:
        return sum_rightmost(self.base_transform.log_abs_det_jacobian(x, y), self.reinterpreted_batch_ndims)

    def forward_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return self.base_transform.forward_shape(shape)

    def inverse_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return self.base_transform.inverse_shape(shape)

    @property
    def out_dim(self) -> int:
        return self.base_transform.out_dim + self.reinterpreted_batch_ndims

    def __repr__(self) -> str:
        return f"IndependentTransform({self.base_transform!r}, {self.reinterpreted_batch_ndims})"


class PowerTransform(Transform):
    """x**exponent of positive numbers.

    >>> PowerTransform(2.0)(md.tensor(3.0)).item(), PowerTransform(2.0).inv(md.tensor(9.0)).item()
    (9.0, 3.0)
    """

    def __init__(self, exponent: Any, cache_size: int = 0):
        super().__init__(cache_size)
        self.exponent = exponent

    @property
    def sign(self) -> Any:  # type: ignore[override]
        return md.sign(self.exponent) if isinstance(self.exponent, md.Tensor) else math.copysign(1, self.exponent)

    def _call(self, x: md.Tensor) -> md.Tensor:
        return md.pow(x, self.exponent)

    def _inverse(self, y: md.Tensor) -> md.Tensor:
        return md.pow(y, 1 / self.exponent)

    def log_abs_det_jacobian(self, x: md.Tensor, y: md.Tensor) -> md.Tensor:
        return md.log(md.abs(self.exponent * y / x))

    def forward_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(md.broadcast_shapes(shape, getattr(self.exponent, "shape", ())))

    def __repr__(self) -> str:
        return f"PowerTransform({self.exponent})"


class SoftplusTransform(Transform):
    """log(1 + exp(x)).

    >>> round(SoftplusTransform()(md.zeros(())).item(), 4)
    0.6931
    """

    def _call(self, x: md.Tensor) -> md.Tensor:
        return md.softplus(x)

    def _inverse(self, y: md.Tensor) -> md.Tensor:
        return y + md.log(-md.expm1(-y))

    def log_abs_det_jacobian(self, x: md.Tensor, y: md.Tensor) -> md.Tensor:
        return -md.softplus(-x)


class AbsTransform(Transform):
    """|x|, whose inverse is the number that is not negative. It is not one to one, so it has no density of its own.

    >>> AbsTransform()(md.tensor(-2.0)).item()
    2.0
    """

    bijective = False

    def _call(self, x: md.Tensor) -> md.Tensor:
        return md.abs(x)

    def _inverse(self, y: md.Tensor) -> md.Tensor:
        return y


class SoftmaxTransform(Transform):
    """softmax over the last axis, whose inverse is the logarithm. It is not one to one, so it has no density of its own.

    >>> SoftmaxTransform()(md.zeros(2)).tolist()
    [0.5, 0.5]
    """

    event_dim = 1
    bijective = False

    def _call(self, x: md.Tensor) -> md.Tensor:
        return md.softmax(x, axis=-1)

    def _inverse(self, y: md.Tensor) -> md.Tensor:
        return md.log(y)


class StickBreakingTransform(Transform):
    """Real vectors [..., n] to vectors [..., n + 1] on the simplex: each number breaks a part off what is left of a stick of length 1.

    >>> [round(v, 4) for v in StickBreakingTransform()(md.zeros(2)).tolist()]
    [0.3333, 0.3333, 0.3333]
    """

    event_dim = 1

    @staticmethod
    def _offset(x: md.Tensor, n: int) -> md.Tensor:
        return md.log(md.arange(n, 0, -1, dtype=x.dtype, backend=x.backend, device=x.device))

    def _call(self, x: md.Tensor) -> md.Tensor:
        self.forward_shape(x.shape)
        z = inside(md.sigmoid(x - self._offset(x, x.shape[-1])))
        one = md.ones_like(z[..., :1])
        left = md.cumulative_prod(1 - z, axis=-1)
        return md.concat([z, one], axis=-1) * md.concat([one, left], axis=-1)

    def _inverse(self, y: md.Tensor) -> md.Tensor:
        self.inverse_shape(y.shape)
        part = y[..., :-1]
        left = md.clip(1 - md.cumulative_sum(part, axis=-1), float(md.finfo(y.dtype).smallest_normal))
        return md.log(part) - md.log(left) + self._offset(y, part.shape[-1])

    def log_abs_det_jacobian(self, x: md.Tensor, y: md.Tensor) -> md.Tensor:
        x = x - self._offset(x, x.shape[-1])
        return md.sum(md.log(y[..., :-1]) - md.softplus(x), axis=-1)

    def forward_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return _with_last(self, shape, 1)

    def inverse_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return _with_last(self, shape, -1)


def _with_last(t: Transform, shape: tuple[int, ...], more: int) -> tuple[int, ...]:
    if not shape:
        raise ValueError(f"{type(t).__name__}: vectors are wanted, not a shape without axes")
    return (*shape[:-1], shape[-1] + more)


class ReshapeTransform(Transform):
    """The last axes, of in_shape, in the shape out_shape. Raises ValueError where these have other numbers of elements.

    >>> ReshapeTransform((2, 2), (4,))(md.zeros(3, 2, 2)).shape
    (3, 4)
    """

    def __init__(self, in_shape: Any, out_shape: Any, cache_size: int = 0):
        super().__init__(cache_size)
        self.in_shape, self.out_shape = tuple(in_shape), tuple(out_shape)
        if math.prod(self.in_shape) != math.prod(self.out_shape):
            raise ValueError(f"ReshapeTransform: in_shape {self.in_shape} and out_shape {self.out_shape} have other numbers of elements")
        self.event_dim = len(self.in_shape)

    @property
    def out_dim(self) -> int:
        return len(self.out_shape)

    def _call(self, x: md.Tensor) -> md.Tensor:
        return md.reshape(x, self.forward_shape(x.shape))

    def _inverse(self, y: md.Tensor) -> md.Tensor:
        return md.reshape(y, self.inverse_shape(y.shape))

    def log_abs_det_jacobian(self, x: md.Tensor, y: md.Tensor) -> md.Tensor:
        return md.zeros(x.shape[: x.ndim - self.event_dim], dtype=x.dtype, backend=x.backend, device=x.device)

    def _turned(self, shape: tuple[int, ...], one: tuple[int, ...], other: tuple[int, ...]) -> tuple[int, ...]:
        cut = len(shape) - len(one)
        if cut < 0 or tuple(shape[cut:]) != one:
            raise ValueError(f"ReshapeTransform: a shape that ends with {one} is wanted, not {tuple(shape)}")
        return (*shape[:cut], *other)

    def forward_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return self._turned(shape, self.in_shape, self.out_shape)

    def inverse_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return self._turned(shape, self.out_shape, self.in_shape)

    def __repr__(self) -> str:
        return f"ReshapeTransform({self.in_shape}, {self.out_shape})"


class CumulativeDistributionTransform(Transform):
    """The cdf of a distribution of numbers, such as makes uniform ones of its draws.

    >>> CumulativeDistributionTransform(md.distributions.Normal(0.0, 1.0))(md.zeros(())).item()
    0.5
    """

    def __init__(self, distribution: Distribution, cache_size: int = 0):
        super().__init__(cache_size)
        self.distribution = distribution

    def _call(self, x: md.Tensor) -> md.Tensor:
        return self.distribution.cdf(x)

    def _inverse(self, y: md.Tensor) -> md.Tensor:
        return self.distribution.icdf(y)

    def log_abs_det_jacobian(self, x: md.Tensor, y: md.Tensor) -> md.Tensor:
        return self.distribution.log_prob(x)


identity_transform = ComposeTransform([])
