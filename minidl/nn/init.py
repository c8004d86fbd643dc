"""Initial values, drawn from minidl's own generator, so that one seed gives the same network on every backend.

Each function fills its tensor in place under no_grad and returns it, with PyTorch's names, bounds and defaults. `generator` is a md.random.Generator
to draw from instead of the default one.
"""

from __future__ import annotations

import contextvars
import functools
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar, cast

import minidl as md

__all__ = [
    "calculate_gain", "constant_", "dirac_", "eye_", "kaiming_normal_", "kaiming_uniform_", "normal_", "ones_", "orthogonal_", "sparse_",
    "trunc_normal_", "uniform_", "xavier_normal_", "xavier_uniform_", "zeros_",
]  # fmt: skip
Generator = md.random.Generator
F = TypeVar("F", bound=Callable[..., md.Tensor])


_skipping = contextvars.ContextVar("skipping", default=False)


@contextmanager
def skipped() -> Iterator[None]:
    """Layers that are made in this block draw and fill nothing: their values are zeros, and the stream stays where it was."""
    token = _skipping.set(True)
    try:
        yield
    finally:
        _skipping.reset(token)


def _skippable(fill: F) -> F:
    @functools.wraps(fill)
    def initialise(tensor: md.Tensor, *args: object, **kwargs: object) -> md.Tensor:
        return tensor if _skipping.get() else fill(tensor, *args, **kwargs)

    return cast(F, initialise)


def _fill(tensor: md.Tensor, value: md.Tensor) -> md.Tensor:
    with md.no_grad():
        return tensor.assign(value)


def _key(tensor: md.Tensor, generator: Generator | None = None) -> md.Tensor:
    return (md.random.default_generator if generator is None else generator).next_key(like=tensor)


# ---- given values ---------------------------------------------------------------------------------------------------------------------
@_skippable
def constant_(tensor: md.Tensor, val: float) -> md.Tensor:
    """One value everywhere.

    >>> md.nn.init.constant_(md.zeros(2), 3.0).tolist()
    [3.0, 3.0]
    """
    return _fill(tensor, md.full_like(tensor.detach(), val))


def zeros_(tensor: md.Tensor) -> md.Tensor:
    """Zeros.

    >>> md.nn.init.zeros_(md.ones(2)).tolist()
    [0.0, 0.0]
    """
    return constant_(tensor, 0.0)


def ones_(tensor: md.Tensor) -> md.Tensor:
    """Ones.

    >>> md.nn.init.ones_(md.zeros(2)).tolist()
    [1.0, 1.0]
    """
    return constant_(tensor, 1.0)


@_skippable
def eye_(tensor: md.Tensor) -> md.Tensor:
    """The identity, for a weight [out, in]: what goes in comes out as far as there is room. Raises ValueError for another number of axes.

    >>> md.nn.init.eye_(md.zeros((2, 3))).tolist()
    [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]
    """
    if tensor.ndim != 2:
        raise ValueError(f"eye_: two axes are wanted, not shape {tensor.shape}")
    return _fill(tensor, md.eye(*tensor.shape, dtype=tensor.dtype, backend=tensor.backend, device=tensor.device))


@_skippable
def dirac_(tensor: md.Tensor, groups: int = 1) -> md.Tensor:
    """The identity of a convolution, for a weight [out, in, *kernel]: a one in the middle of the kernel, from each channel to its own.

    groups: as often as there are groups. Raises ValueError for other than 3 to 5 axes, or groups that do not divide the output channels.

    >>> dirac_(md.zeros((1, 1, 3))).tolist()
    [[[0.0, 1.0, 0.0]]]
    """
    if tensor.ndim not in (3, 4, 5) or tensor.shape[0] % groups:
        raise ValueError(f"dirac_: a weight of 3 to 5 axes whose first is divisible by {groups} groups is wanted, not shape {tensor.shape}")
    place = {"backend": tensor.backend, "device": tensor.device}
    rows = tensor.shape[0] // groups
    channel = md.remainder(md.arange(tensor.shape[0], **place), rows)[:, None] == md.arange(tensor.shape[1], **place)
    out = channel.reshape((*tensor.shape[:2], *(1,) * (tensor.ndim - 2)))
    for i, k in enumerate(tensor.shape[2:]):
        middle = md.arange(k, **place) == k // 2
        out = md.logical_and(out, middle.reshape((-1,) + (1,) * (tensor.ndim - 3 - i)))
    return _fill(tensor, out.to(tensor.dtype))


# ---- one distribution for all elements ------------------------------------------------------------------------------------------------
@_skippable
def uniform_(tensor: md.Tensor, a: float = 0.0, b: float = 1.0, generator: Generator | None = None) -> md.Tensor:
    """Uniform on [a, b).

    >>> bool((md.nn.init.uniform_(md.zeros(100), 1.0, 2.0) >= 1.0).all())
    True
    """
    return _fill(tensor, md.random.uniform(_key(tensor, generator), tensor.shape, tensor.dtype, a, b))


@_skippable
def normal_(tensor: md.Tensor, mean: float = 0.0, std: float = 1.0, generator: Generator | None = None) -> md.Tensor:
    """Normal with that mean and standard deviation.

    >>> md.nn.init.normal_(md.zeros((4, 3)), std=0.02).shape
    (4, 3)
    """
    return _fill(tensor, md.random.normal(_key(tensor, generator), tensor.shape, tensor.dtype) * std + mean)


@_skippable
def trunc_normal_(
    tensor: md.Tensor, mean: float = 0.0, std: float = 1.0, a: float = -2.0, b: float = 2.0, generator: Generator | None = None
) -> md.Tensor:
    """Normal with that mean and standard deviation, given that the value lies in [a, b]; see md.random.truncated_normal.

    >>> bool((abs(md.nn.init.trunc_normal_(md.zeros(100))) <= 2.0).all())
    True
    """
    z = md.random.truncated_normal(_key(tensor, generator), (a - mean) / std, (b - mean) / std, tensor.shape, md.float64)
    return _fill(tensor, md.clip(z * std + mean, a, b).to(tensor.dtype))


# ---- by the sizes of the weight -------------------------------------------------------------------------------------------------------
def fans(tensor: md.Tensor) -> tuple[int, int]:
    """(fan in, fan out) of a weight [out, in, *kernel]. Raises ValueError below two axes."""
    if tensor.ndim < 2:
        raise ValueError(f"init: fan in and fan out need a weight of two or more axes, not shape {tensor.shape}")
    field = math.prod(tensor.shape[2:])
    return tensor.shape[1] * field, tensor.shape[0] * field


_LINEAR = ("linear", "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "sigmoid")
_GAINS = {**dict.fromkeys(_LINEAR, 1.0), "tanh": 5 / 3, "relu": math.sqrt(2), "selu": 0.75}


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """The factor by which an activation shrinks its input's scale; param is leaky_relu's slope. Raises ValueError for an unknown name.

    >>> calculate_gain("tanh")
    1.6666666666666667
    """
    if nonlinearity == "leaky_relu":
        return math.sqrt(2 / (1 + (0.01 if param is None else param) ** 2))
    if nonlinearity not in _GAINS:
        raise ValueError(f"calculate_gain: {nonlinearity!r} is unknown; known are leaky_relu, {', '.join(_GAINS)}")
    return _GAINS[nonlinearity]


def _spread(tensor: md.Tensor, a: float, mode: str, nonlinearity: str) -> float:
    if mode not in ("fan_in", "fan_out"):
        raise ValueError(f"kaiming: mode is fan_in or fan_out, not {mode!r}")
    fan = fans(tensor)[mode == "fan_out"]
    return calculate_gain(nonlinearity, a) / math.sqrt(fan) if fan else 0.0


def kaiming_uniform_(
    tensor: md.Tensor, a: float = 0.0, mode: str = "fan_in", nonlinearity: str = "leaky_relu", generator: Generator | None = None
) -> md.Tensor:
    """Uniform within gain * sqrt(3 / fan) of zero (K. He et al., Delving deep into rectifiers, ICCV 2015).

    >>> bool((abs(md.nn.init.kaiming_uniform_(md.zeros((4, 3)))) <= 2**0.5).all())
    True
    """
    bound = math.sqrt(3.0) * _spread(tensor, a, mode, nonlinearity)
    return uniform_(tensor, -bound, bound, generator)


def kaiming_normal_(
    tensor: md.Tensor, a: float = 0.0, mode: str = "fan_in", nonlinearity: str = "leaky_relu", generator: Generator | None = None
) -> md.Tensor:
    """Normal with standard deviation gain / sqrt(fan) (K. He et al., ICCV 2015).

    >>> md.nn.init.kaiming_normal_(md.zeros((4, 3))).shape
    (4, 3)
    """
    return normal_(tensor, 0.0, _spread(tensor, a, mode, nonlinearity), generator)


def xavier_uniform_(tensor: md.Tensor, gain: float = 1.0, generator: Generator | None = None) -> md.Tensor:
    """Uniform within gain * sqrt(6 / (fan in + fan out)) of zero (X. Glorot and Y. Bengio, AISTATS 2010).

    >>> bool((abs(md.nn.init.xavier_uniform_(md.zeros((4, 2)))) <= 1.0).all())
    True
    """
    bound = gain * math.sqrt(6.0 / max(sum(fans(tensor)), 1))
    return uniform_(tensor, -bound, bound, generator)


def xavier_normal_(tensor: md.Tensor, gain: float = 1.0, generator: Generator | None = None) -> md.Tensor:
    """Normal with standard deviation gain * sqrt(2 / (fan in + fan out)) (X. Glorot and Y. Bengio, AISTATS 2010).

    >>> md.nn.init.xavier_normal_(md.zeros((4, 3))).shape
    (4, 3)
    """
    return normal_(tensor, 0.0, gain * math.sqrt(2.0 / max(sum(fans(tensor)), 1)), generator)


@_skippable
def orthogonal_(tensor: md.Tensor, gain: float = 1.0, generator: Generator | None = None) -> md.Tensor:
    """gain times a random matrix with orthonormal rows or columns, whichever are fewer; axes behind the second count as columns.

    A. Saxe et al., ICLR 2014; see md.random.orthogonal. Raises ValueError below two axes.

    >>> w = md.nn.init.orthogonal_(md.zeros((2, 3)))
    >>> bool((abs(w @ w.mT - md.eye(2)) < 1e-5).all())
    True
    """
    if tensor.ndim < 2:
        raise ValueError(f"orthogonal_: two or more axes are wanted, not shape {tensor.shape}")
    if tensor.size == 0:
        return tensor
    rows, cols = tensor.shape[0], tensor.size // tensor.shape[0]
    out = md.random.orthogonal(_key(tensor, generator), rows, dtype=md.float64, m=cols) * gain
    return _fill(tensor, out.reshape(tensor.shape).to(tensor.dtype))


@_skippable
def sparse_(tensor: md.Tensor, sparsity: float, std: float = 0.01, generator: Generator | None = None) -> md.Tensor:
    """Normal with standard deviation std, but a share `sparsity` of each column is zero (J. Martens, ICML 2010). Raises ValueError unless 2-d.

    >>> (md.nn.init.sparse_(md.zeros((4, 3)), 0.5) == 0.0).sum(axis=0).tolist()
    [2, 2, 2]
    """
    if tensor.ndim != 2:
        raise ValueError(f"sparse_: two axes are wanted, not shape {tensor.shape}")
    values = md.random.normal(_key(tensor, generator), tensor.shape, tensor.dtype) * std
    order = md.argsort(md.random.uniform(_key(tensor, generator), tensor.shape, md.float64), axis=0)
    return _fill(tensor, md.where(order < math.ceil(sparsity * tensor.shape[0]), 0.0, values))
