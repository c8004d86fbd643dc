"""PyTorch: activations, by its kernels forwards and backwards."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from minidl.backends.torch_kernels import KERNELS, finite
from minidl.nn.functional.on_torch_common import FLOATS, fitting, ours

Tensor = torch.Tensor
_aten = torch.ops.aten


def _activation(
    forward: Callable[..., Tensor], backward: Callable[..., Tensor], fits: Callable[..., bool] = lambda *params: True, look: bool = True
) -> Callable[..., Any]:
    """The kernel of a function of one array; fits: for which parameters, which are numbers; look: whether there is anything that it gets wrong."""

    def taken(tracked: bool, x: Tensor, *params: Any) -> bool:
        known = x.dtype in FLOATS and x.__class__ is Tensor and x.is_cpu
        return known and (not params or (all(p.__class__ in (float, int) for p in params) and fits(*params)))

    @fitting(taken)
    def kernel(tracked: bool, x: Tensor, *params: Any) -> Any:
        out = forward(x, *params)
        if look and not finite(out):
            return None

        def back(wanted: list[bool], g: Tensor) -> Any:
            d = backward(g, x, *params)
            return (d,) if not look or finite(d) else None

        return out, (), back

    return kernel


mish = _activation(torch.nn.functional.mish, _aten.mish_backward)
hardsigmoid = _activation(
    torch.nn.functional.hardsigmoid,
    lambda g, x: (  # which has a sixth in float32 alone
        _aten.hardsigmoid_backward(g, x) if x.dtype is torch.float32 else _aten.hardtanh_backward(g, x, -3.0, 3.0).div_(6.0)
    ),
)
logsigmoid = _activation(torch.nn.functional.logsigmoid, lambda g, x: torch.sigmoid(-x).mul_(g))
glu = _activation(torch.nn.functional.glu, _aten.glu_backward)
leaky_relu = _activation(
    torch.nn.functional.leaky_relu, lambda g, x, slope: _aten.leaky_relu_backward(g, x, slope, False), math.isfinite, look=False
)
hardshrink = _activation(_aten.hardshrink, _aten.hardshrink_backward)  # in float64 a nan has a derivative of 0
softshrink = _activation(lambda x, lambd: _aten.softshrink(x, lambd).add_(0.0), _aten.softshrink_backward)  # which has the sign of x where it is 0
softplus = _activation(torch.nn.functional.softplus, _aten.softplus_backward, lambda beta, most: 0 < beta < math.inf and most <= 80)
elu = _activation(
    _aten.elu, lambda g, x, *how: _aten.elu_backward(g, *how, False, x),
    lambda alpha, scale, inner: math.isfinite(alpha) and 0 < inner < math.inf,
)  # fmt: skip


@fitting(lambda tracked, x, axis: x.dim() > 0 and ours(x))
def log_softmax(tracked: bool, x: Tensor, axis: int) -> Any:
    """Not of rows of -inf, nor with +inf."""
    out = torch.log_softmax(x, axis)
    return (out, (), lambda wanted, g: (_aten._log_softmax_backward_data(g, out, axis, x.dtype),)) if finite(out) else None


@fitting(lambda tracked, x, weight: ours(x, weight))
def prelu(tracked: bool, x: Tensor, weight: Tensor) -> Any:
    wide = x.dim() - weight.dim()
    lost = (*range(wide), *(wide + i for i, n in enumerate(weight.shape) if n == 1))

    def back(wanted: list[bool], g: Tensor) -> Any:
        dx, dw = _aten._prelu_kernel_backward(g, x, weight)
        return dx, KERNELS["sum"](dw, axis=lost, keepdims=False).reshape(weight.shape)

    return _aten._prelu_kernel(x, weight), (), back
