"""Batch norm folded into the convolution or linear map before it, for evaluation; with the names of torch.nn.utils.

md.deploy folds a whole traced model; these fold two layers that one names.
"""

from __future__ import annotations

import copy
from typing import Any

import minidl as md
from minidl.nn.module import Module
from minidl.nn.parameter import Parameter
from minidl.nn.utils.parametrize import remove_parametrizations

__all__ = ["fuse_conv_bn_eval", "fuse_conv_bn_weights", "fuse_linear_bn_eval", "fuse_linear_bn_weights"]


def fuse_conv_bn_weights(
    conv_w: md.Tensor, conv_b: md.Tensor | None, bn_rm: md.Tensor, bn_rv: md.Tensor, bn_eps: float, bn_w: md.Tensor | None, bn_b: md.Tensor | None,
    transpose: bool = False,
) -> tuple[Parameter, Parameter]:  # fmt: skip
    """(weight, bias) of the convolution that a convolution and a batch norm with these statistics are together, in the convolution's dtypes.

    >>> weight, bias = fuse_conv_bn_weights(md.ones((1, 1, 1)), None, md.tensor([2.0]), md.tensor([4.0]), 0.0, None, None)
    >>> weight.tolist(), bias.tolist()
    ([[[0.5]]], [-1.0])
    """
    with md.no_grad():
        scale = (1.0 if bn_w is None else bn_w) / md.sqrt(bn_rv + bn_eps)
        bias = ((0.0 if conv_b is None else conv_b) - bn_rm) * scale + (0.0 if bn_b is None else bn_b)
        shape = (1, -1, *(1,) * (conv_w.ndim - 2)) if transpose else (-1, *(1,) * (conv_w.ndim - 1))
        weight = (conv_w * scale.reshape(shape)).to(conv_w.dtype)
        bias = bias.to(conv_w.dtype if conv_b is None else conv_b.dtype)
    return Parameter(weight, conv_w.requires_grad), Parameter(bias, conv_w.requires_grad if conv_b is None else conv_b.requires_grad)


def fuse_conv_bn_eval(conv: Any, bn: Any, transpose: bool = False) -> Any:
    """A convolution that does what conv and then bn do in evaluation. Raises ValueError for a module in training mode, or without statistics.

    >>> conv, bn = md.nn.Conv1d(1, 2, 1).eval(), md.nn.BatchNorm1d(2).eval()
    >>> fuse_conv_bn_eval(conv, bn)(md.ones((1, 1, 4))).shape
    (1, 2, 4)
    """
    fused = _ready("fuse_conv_bn_eval", conv, bn)
    fused.weight, fused.bias = fuse_conv_bn_weights(
        conv.weight, conv.bias, bn.running_mean, bn.running_var, bn.eps, bn.weight, bn.bias, transpose
    )
    return fused


def fuse_linear_bn_weights(
    linear_w: md.Tensor, linear_b: md.Tensor | None, bn_rm: md.Tensor, bn_rv: md.Tensor, bn_eps: float, bn_w: md.Tensor | None,
    bn_b: md.Tensor | None,
) -> tuple[Parameter, Parameter]:  # fmt: skip
    """(weight, bias) of the linear map that a linear map and a batch norm with these statistics are together.

    >>> weight, bias = fuse_linear_bn_weights(md.ones((1, 2)), None, md.tensor([2.0]), md.tensor([4.0]), 0.0, None, None)
    >>> weight.tolist(), bias.tolist()
    ([[0.5, 0.5]], [-1.0])
    """
    return fuse_conv_bn_weights(linear_w, linear_b, bn_rm, bn_rv, bn_eps, bn_w, bn_b)


def fuse_linear_bn_eval(linear: Any, bn: Any) -> Any:
    """A linear map that does what linear and then bn do in evaluation. Raises ValueError as fuse_conv_bn_eval does.

    >>> fuse_linear_bn_eval(md.nn.Linear(3, 2).eval(), md.nn.BatchNorm1d(2).eval())(md.ones((1, 3))).shape
    (1, 2)
    """
    fused = _ready("fuse_linear_bn_eval", linear, bn)
    fused.weight, fused.bias = fuse_linear_bn_weights(linear.weight, linear.bias, bn.running_mean, bn.running_var, bn.eps, bn.weight, bn.bias)
    return fused


def _ready(who: str, layer: Module, bn: Any) -> Any:
    if layer.training or bn.training or bn.running_mean is None:
        raise ValueError(f"{who}: both modules must be in evaluation mode (call .eval()), and the batch norm must have running statistics")
    plain = copy.deepcopy(layer)
    for name in list(plain._modules.get("parametrizations") or ()):  # what is folded is the weight of now, not what it is computed from
        remove_parametrizations(plain, name)
    return plain
