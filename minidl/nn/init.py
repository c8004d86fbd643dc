"""Initial values, drawn from minidl's own generator, so that one seed gives the same network on every backend.

Each function fills its tensor in place under no_grad and returns it, with PyTorch's names, bounds and defaults.
"""

from __future__ import annotations

import math

import minidl as md


def _fill(tensor: md.Tensor, value: md.Tensor) -> md.Tensor:
    with md.no_grad():
        return tensor.assign(value)


def _key(tensor: md.Tensor) -> md.Tensor:
    return md.random.default_generator.next_key(like=tensor)


def uniform_(tensor: md.Tensor, a: float = 0.0, b: float = 1.0) -> md.Tensor:
    """Uniform on [a, b)."""
    return _fill(tensor, md.random.uniform(_key(tensor), tensor.shape, tensor.dtype, a, b))


def normal_(tensor: md.Tensor, mean: float = 0.0, std: float = 1.0) -> md.Tensor:
    """Normal with that mean and standard deviation."""
    return _fill(tensor, md.random.normal(_key(tensor), tensor.shape, tensor.dtype) * std + mean)


def constant_(tensor: md.Tensor, val: float) -> md.Tensor:
    """One value everywhere."""
    return _fill(tensor, md.full_like(tensor.detach(), val))


def zeros_(tensor: md.Tensor) -> md.Tensor:
    """Zeros."""
    return constant_(tensor, 0.0)


def ones_(tensor: md.Tensor) -> md.Tensor:
    """Ones."""
    return constant_(tensor, 1.0)


def fans(tensor: md.Tensor) -> tuple[int, int]:
    """(fan in, fan out) of a weight [out, in, *kernel]. Raises ValueError below two axes."""
    if tensor.ndim < 2:
        raise ValueError(f"init: fan in and fan out need a weight of two or more axes, not shape {tensor.shape}")
    field = math.prod(tensor.shape[2:])
    return tensor.shape[1] * field, tensor.shape[0] * field


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """The factor by which an activation shrinks its input's scale. Raises ValueError for an unknown name."""
    gains = {"linear": 1.0, "sigmoid": 1.0, "tanh": 5 / 3, "relu": math.sqrt(2), "selu": 0.75}
    if nonlinearity == "leaky_relu":
        return math.sqrt(2 / (1 + (0.01 if param is None else param) ** 2))
    if nonlinearity not in gains:
        raise ValueError(f"calculate_gain: {nonlinearity!r} is unknown; known are leaky_relu, {', '.join(gains)}")
    return gains[nonlinearity]


def _spread(tensor: md.Tensor, a: float, mode: str, nonlinearity: str) -> float:
    if mode not in ("fan_in", "fan_out"):
        raise ValueError(f"kaiming: mode is fan_in or fan_out, not {mode!r}")
    return calculate_gain(nonlinearity, a) / math.sqrt(fans(tensor)[mode == "fan_out"])


def kaiming_uniform_(tensor: md.Tensor, a: float = 0.0, mode: str = "fan_in", nonlinearity: str = "leaky_relu") -> md.Tensor:
    """Uniform within gain * sqrt(3 / fan) of zero (K. He et al., Delving deep into rectifiers, ICCV 2015)."""
    bound = math.sqrt(3.0) * _spread(tensor, a, mode, nonlinearity)
    return uniform_(tensor, -bound, bound)


def kaiming_normal_(tensor: md.Tensor, a: float = 0.0, mode: str = "fan_in", nonlinearity: str = "leaky_relu") -> md.Tensor:
    """Normal with standard deviation gain / sqrt(fan) (K. He et al., 2015)."""
    return normal_(tensor, 0.0, _spread(tensor, a, mode, nonlinearity))


def xavier_uniform_(tensor: md.Tensor, gain: float = 1.0) -> md.Tensor:
    """Uniform within gain * sqrt(6 / (fan in + fan out)) of zero (X. Glorot and Y. Bengio, AISTATS 2010)."""
    bound = gain * math.sqrt(6.0 / sum(fans(tensor)))
    return uniform_(tensor, -bound, bound)


def xavier_normal_(tensor: md.Tensor, gain: float = 1.0) -> md.Tensor:
    """Normal with standard deviation gain * sqrt(2 / (fan in + fan out)) (X. Glorot and Y. Bengio, AISTATS 2010)."""
    return normal_(tensor, 0.0, gain * math.sqrt(2.0 / sum(fans(tensor))))
