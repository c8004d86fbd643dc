"""jax.nn.initializers: functions of (key, shape, dtype) that draw what jax.nn.initializers draw."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import minidl as md

Initializer = Callable[..., md.Tensor]


def zeros(key: Any, shape: Sequence[int], dtype: Any = None) -> md.Tensor:
    """Zeros."""
    return md.zeros(tuple(shape), dtype=dtype)


def ones(key: Any, shape: Sequence[int], dtype: Any = None) -> md.Tensor:
    """Ones."""
    return md.ones(tuple(shape), dtype=dtype)


def constant(value: Any, dtype: Any = None) -> Initializer:
    """A value everywhere."""
    default = dtype
    return lambda key, shape, dtype=None: md.broadcast_to(md.asarray(value, dtype=dtype or default or md.get_default_dtype()), tuple(shape))


def uniform(scale: float = 1e-2, dtype: Any = None) -> Initializer:
    """Uniform from 0 to scale.

    >>> uniform(1.0)(md.random.key(0), (2,)).shape
    (2,)
    """
    default = dtype
    return lambda key, shape, dtype=None: md.random.uniform(key, tuple(shape), dtype or default) * scale


def normal(stddev: float = 1e-2, dtype: Any = None) -> Initializer:
    """Normal of this spread."""
    default = dtype
    return lambda key, shape, dtype=None: md.random.normal(key, tuple(shape), dtype or default) * stddev


def truncated_normal(stddev: float = 1e-2, dtype: Any = None, lower: float = -2.0, upper: float = 2.0) -> Initializer:
    """Normal, cut between two bounds in units of stddev, which is that of the whole distribution."""
    default = dtype
    return lambda key, shape, dtype=None: md.random.truncated_normal(key, lower, upper, tuple(shape), dtype or default) * stddev


def variance_scaling(
    scale: float, mode: str, distribution: str, in_axis: Any = -2, out_axis: Any = -1, batch_axis: Any = (), dtype: Any = None
) -> Initializer:  # fmt: skip
    """Of variance scale / n, where n is the number of inputs ("fan_in"), of outputs ("fan_out"), their mean ("fan_avg") or their geometric mean
    ("fan_geo_avg") of an element; "normal", "uniform" or "truncated_normal". Raises ValueError for another mode or distribution.

    >>> variance_scaling(1.0, "fan_in", "normal")(md.random.key(0), (3, 2)).shape
    (3, 2)
    """
    default = dtype
    axes = lambda a: (a,) if isinstance(a, int) else tuple(a)

    def init(key: Any, shape: Sequence[int], dtype: Any = None) -> md.Tensor:
        shape, dtype = tuple(shape), dtype or default
        if len(shape) < 2:
            raise ValueError(f"variance_scaling: at least two axes are wanted, not the shape {shape}")
        into, out, batch = (math.prod(shape[i] for i in axes(a)) for a in (in_axis, out_axis, batch_axis))
        field = math.prod(shape) / into / out / batch
        fans = {"fan_in": into * field, "fan_out": out * field, "fan_avg": (into + out) * field / 2, "fan_geo_avg": math.sqrt(into * out) * field}
        if mode not in fans:
            raise ValueError(f"variance_scaling: mode is one of {', '.join(fans)}, not {mode!r}")
        variance = scale / max(fans[mode], 1.0 if min(shape) == 0 else 0.0)
        if distribution == "normal":
            return md.random.normal(key, shape, dtype) * math.sqrt(variance)
        if distribution == "uniform":
            return md.random.uniform(key, shape, dtype, -1.0) * math.sqrt(3 * variance)
        if distribution == "truncated_normal":  # cut at two spreads, which leaves this one of 1
            return md.random.truncated_normal(key, -2, 2, shape, dtype) * (math.sqrt(variance) / 0.87962566103423978)
        raise ValueError(f"variance_scaling: distribution is 'normal', 'uniform' or 'truncated_normal', not {distribution!r}")

    return init


def orthogonal(scale: float = 1.0, column_axis: int = -1, dtype: Any = None) -> Initializer:
    """Orthogonal, scaled; rows or columns, whichever are fewer."""
    default = dtype

    def init(key: Any, shape: Sequence[int], dtype: Any = None) -> md.Tensor:
        n = shape[column_axis]
        rows = math.prod(shape) // n
        q = md.random.orthogonal(key, rows, (), dtype or default, n)
        rest = tuple(m for i, m in enumerate(shape) if i != column_axis % len(shape))
        return md.moveaxis(md.reshape(q, (*rest, n)), -1, column_axis) * scale

    return init


def delta_orthogonal(scale: float = 1.0, column_axis: int = -1, dtype: Any = None) -> Initializer:
    """A kernel [..., in, out] that is orthogonal in its middle and 0 around. Raises ValueError for more inputs than outputs."""
    default = dtype

    def init(key: Any, shape: Sequence[int], dtype: Any = None) -> md.Tensor:
        if len(shape) not in (3, 4, 5) or shape[-2] > shape[-1]:
            raise ValueError(f"delta_orthogonal: a kernel of one to three axes with at most as many inputs as outputs, not {tuple(shape)}")
        q = orthogonal(1.0, column_axis, dtype or default)(key, shape[-2:])
        return md.zeros(tuple(shape), dtype=q.dtype).at[tuple((k - 1) // 2 for k in shape[:-2])].set(q * scale)

    return init


def _family(scale: float, mode: str, distribution: str, name: str) -> Callable[..., Initializer]:
    def function(in_axis: Any = -2, out_axis: Any = -1, batch_axis: Any = (), dtype: Any = None) -> Initializer:
        return variance_scaling(scale, mode, distribution, in_axis, out_axis, batch_axis, dtype)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"variance_scaling({scale}, {mode!r}, {distribution!r})."
    return function


glorot_uniform = xavier_uniform = _family(1.0, "fan_avg", "uniform", "glorot_uniform")
glorot_normal = xavier_normal = _family(1.0, "fan_avg", "truncated_normal", "glorot_normal")
he_uniform = kaiming_uniform = _family(2.0, "fan_in", "uniform", "he_uniform")
he_normal = kaiming_normal = _family(2.0, "fan_in", "truncated_normal", "he_normal")
lecun_uniform = _family(1.0, "fan_in", "uniform", "lecun_uniform")
lecun_normal = _family(1.0, "fan_in", "truncated_normal", "lecun_normal")
