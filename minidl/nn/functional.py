"""Layers and losses as functions, with PyTorch's names, argument order and defaults.

Convolution and pooling are written in `windows`, losses in `lossfunctions`; all are names of this module too. At kinks and at infinity the values
and derivatives follow minidl's convention table: a fully masked softmax row is 0, silu(-inf) is 0.
"""

from __future__ import annotations

from collections.abc import Callable

import minidl as md
from minidl.nn.lossfunctions import (
    binary_cross_entropy,
    binary_cross_entropy_with_logits,
    cross_entropy,
    hot,
    huber_loss,
    l1_loss,
    mse_loss,
    nll_loss,
    smooth_l1_loss,
)
from minidl.nn.windows import (
    avg_pool1d,
    avg_pool2d,
    avg_pool3d,
    conv1d,
    conv2d,
    conv3d,
    max_pool1d,
    max_pool2d,
    max_pool3d,
)

__all__ = [
    "avg_pool1d", "avg_pool2d", "avg_pool3d", "batch_norm", "binary_cross_entropy", "binary_cross_entropy_with_logits", "celu", "conv1d",
    "conv2d", "conv3d", "cross_entropy", "dropout", "elu", "embedding", "gelu", "hardsigmoid", "hardswish", "hardtanh", "huber_loss",
    "l1_loss", "layer_norm", "leaky_relu", "linear", "log_softmax", "logsigmoid", "max_pool1d", "max_pool2d", "max_pool3d", "mish",
    "mse_loss", "nll_loss", "one_hot", "pairwise_distance", "relu", "relu6",
    "scaled_dot_product_attention", "selu", "sigmoid", "silu", "smooth_l1_loss", "softmax", "softplus", "tanh",
]  # fmt: skip

_SELU = (1.6732632423543772848170429916717, 1.0507009873554804934193349852946)


# ---- activations ------------------------------------------------------------------------------------------------------------------------
def relu(x: md.Tensor, inplace: bool = False) -> md.Tensor:
    """max(x, 0), with derivative 0 at 0."""
    return md.relu(x)


def sigmoid(x: md.Tensor) -> md.Tensor:
    """1 / (1 + exp(-x))."""
    return md.sigmoid(x)


def tanh(x: md.Tensor) -> md.Tensor:
    """The hyperbolic tangent."""
    return md.tanh(x)


def leaky_relu(x: md.Tensor, negative_slope: float = 0.01, inplace: bool = False) -> md.Tensor:
    """x above 0, negative_slope * x elsewhere; the derivative at 0 is negative_slope."""
    return md.where(x > 0, x, x * negative_slope)


def elu(x: md.Tensor, alpha: float = 1.0, inplace: bool = False) -> md.Tensor:
    """x above 0, alpha * (exp(x) - 1) elsewhere (D. Clevert et al., ICLR 2016)."""
    return _elu(x, alpha, 1.0)


def celu(x: md.Tensor, alpha: float = 1.0, inplace: bool = False) -> md.Tensor:
    """elu whose derivative is continuous for every alpha: alpha * (exp(x / alpha) - 1) below 0."""
    return _elu(x, alpha, 1.0 / alpha)


def selu(x: md.Tensor, inplace: bool = False) -> md.Tensor:
    """The self-normalising elu (G. Klambauer et al., NeurIPS 2017)."""
    return _elu(x, *_SELU[:1], 1.0) * _SELU[1]


def _elu(x: md.Tensor, alpha: float, inner: float) -> md.Tensor:
    below = md.where(x > 0, 0.0, x)  # so that the branch not taken cannot overflow
    return md.where(x > 0, x, md.expm1(below * inner) * alpha)


def relu6(x: md.Tensor, inplace: bool = False) -> md.Tensor:
    """x limited to [0, 6], with derivative 0 at both ends."""
    return md.clip(x, 0.0, 6.0)


def hardtanh(x: md.Tensor, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> md.Tensor:
    """x limited to [min_val, max_val], with derivative 0 at both ends."""
    return md.clip(x, min_val, max_val)


def hardsigmoid(x: md.Tensor, inplace: bool = False) -> md.Tensor:
    """x / 6 + 1/2 limited to [0, 1]."""
    return md.clip(x + 3.0, 0.0, 6.0) / 6.0


def hardswish(x: md.Tensor, inplace: bool = False) -> md.Tensor:
    """x * hardsigmoid(x)."""
    return _gated(x, lambda y: y * (y + 3.0) / 6.0, 3.0)


def softplus(x: md.Tensor, beta: float = 1.0, threshold: float = 20.0) -> md.Tensor:
    """log(1 + exp(beta * x)) / beta, computed without overflow (so that no threshold is needed; it is accepted for PyTorch's sake)."""
    return md.softplus(x) if beta == 1 else md.softplus(x * beta) / beta


def logsigmoid(x: md.Tensor) -> md.Tensor:
    """log(sigmoid(x))."""
    return -md.softplus(-x)


def _gated(x: md.Tensor, f: Callable[[md.Tensor], md.Tensor], bound: float) -> md.Tensor:
    """f(x), for an f that is x itself from `bound` on and 0 below -bound: there inf * 0 never arises, in the value or in a derivative."""
    return md.where(x >= bound, x, f(md.clip(x, -bound, bound)))


def silu(x: md.Tensor, inplace: bool = False) -> md.Tensor:
    """x * sigmoid(x) (S. Elfwing et al., Neural Networks 107, 2018); 0 at -inf."""
    return _gated(x, lambda y: y * md.sigmoid(y), 1e3)


def mish(x: md.Tensor, inplace: bool = False) -> md.Tensor:
    """x * tanh(softplus(x)) (D. Misra, BMVC 2020); 0 at -inf."""
    return _gated(x, lambda y: y * md.tanh(md.softplus(y)), 1e3)


def gelu(x: md.Tensor, approximate: str = "none") -> md.Tensor:
    """x times the normal distribution function of x; "tanh" is the usual approximation (D. Hendrycks and K. Gimpel, arXiv 1606.08415)."""
    return md.gelu(x, approximate)


def softmax(x: md.Tensor, dim: int = -1, dtype: object = None) -> md.Tensor:
    """exp(x) normalised to sum 1 along dim."""
    return md.softmax(x if dtype is None else x.to(dtype), axis=dim)


def log_softmax(x: md.Tensor, dim: int = -1, dtype: object = None) -> md.Tensor:
    """The logarithm of softmax, computed without overflow."""
    return md.log_softmax(x if dtype is None else x.to(dtype), axis=dim)


# ---- linear maps and look-up ------------------------------------------------------------------------------------------------------------
def linear(x: md.Tensor, weight: md.Tensor, bias: md.Tensor | None = None) -> md.Tensor:
    """x Wᵀ + b for x [..., in], weight [out, in] (or [in]), bias [out]."""
    out = md.matmul(x, weight.T if weight.ndim == 2 else weight)
    return out if bias is None else out + bias


def embedding(x: md.Tensor, weight: md.Tensor, padding_idx: int | None = None) -> md.Tensor:
    """Rows of weight [rows, dim] by integers: result [*x.shape, dim]; rows looked up by padding_idx pass no gradient.

    Raises IndexError for an index out of range (eager on a CPU).
    """
    out = weight[x]
    if padding_idx is None:
        return out
    return md.where((x == padding_idx % weight.shape[0])[..., None], out.detach(), out)


def one_hot(x: md.Tensor, num_classes: int = -1) -> md.Tensor:
    """int64 [*x.shape, num_classes] with a one at the place that x names; -1 takes the largest value in x plus one (not while tracing)."""
    if num_classes < 0:
        num_classes = int(md.max(x).item()) + 1
    return hot(x, num_classes).to(md.int64)


def dropout(x: md.Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> md.Tensor:
    """Zero each element with probability p and scale the rest by 1/(1-p), if training. Draws from md.random.default_generator."""
    if not 0 <= p <= 1:
        raise ValueError(f"dropout: p is a probability, not {p}")
    if not training or p == 0:
        return x
    if p == 1:
        return md.zeros_like(x) * x
    keep = md.random.bernoulli(md.random.default_generator.next_key(like=x), 1.0 - p, x.shape)
    return md.where(keep, x * (1.0 / (1.0 - p)), 0.0)


def pairwise_distance(x1: md.Tensor, x2: md.Tensor, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False) -> md.Tensor:
    """The p-norm of x1 - x2 + eps over the last axis; with eps=0 the derivative of distance 0 is 0."""
    return md.vector_norm(x1 - x2 + eps if eps else x1 - x2, axis=-1, ord=p, keepdims=keepdim)


# ---- attention --------------------------------------------------------------------------------------------------------------------------
def scaled_dot_product_attention(
    query: md.Tensor,
    key: md.Tensor,
    value: md.Tensor,
    attn_mask: md.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> md.Tensor:
    """softmax(query keyᵀ scale + mask) value over [..., length, width], the weights dropped with probability dropout_p (training or not).

    attn_mask: bool (where to look) or added to the scores. enable_gqa: key and value have fewer heads (the third axis from the end), each of which
    serves a group of query's. Raises ValueError where shapes do not fit (J. Ainslie et al., EMNLP 2023, for grouped heads).
    """
    if enable_gqa:
        groups = query.shape[-3] // max(key.shape[-3], 1)
        key, value = md.repeat(key, groups, axis=-3), md.repeat(value, groups, axis=-3)
    if dropout_p == 0:
        return md.scaled_dot_product_attention(query, key, value, attn_mask, is_causal=is_causal, scale=scale)
    eye = md.eye(key.shape[-2], dtype=query.dtype, backend=query.backend, device=query.device)
    weights = md.scaled_dot_product_attention(query, key, eye, attn_mask, is_causal=is_causal, scale=scale)
    return md.matmul(dropout(weights, dropout_p), value)


# ---- normalisation ----------------------------------------------------------------------------------------------------------------------
def layer_norm(
    x: md.Tensor, normalized_shape: tuple[int, ...] | list[int], weight: md.Tensor | None = None, bias: md.Tensor | None = None, eps: float = 1e-5
) -> md.Tensor:
    """Zero mean and unit (biased) variance over the last axes (J. L. Ba et al., arXiv 1607.06450). Raises ValueError for other last axes."""
    shape = tuple(normalized_shape)
    if x.shape[x.ndim - len(shape) :] != shape or any(p is not None and p.shape != shape for p in (weight, bias)):
        raise ValueError(f"layer_norm: the last axes of shape {x.shape}, and weight and bias, must be {shape}")
    return md.layer_norm(x, weight, bias, axes=len(shape), eps=eps)


def batch_norm(
    x: md.Tensor,
    running_mean: md.Tensor | None,
    running_var: md.Tensor | None,
    weight: md.Tensor | None = None,
    bias: md.Tensor | None = None,
    training: bool = False,
    momentum: float | md.Tensor = 0.1,
    eps: float = 1e-5,
) -> md.Tensor:
    """Normalise x [N, C, ...] per channel: by the batch in training (which updates the running statistics in place), by them otherwise.

    S. Ioffe and C. Szegedy, ICML 2015. Raises ValueError for one value per channel in training, and without statistics otherwise.
    """
    if not training and (running_mean is None or running_var is None):
        raise ValueError("batch_norm: running_mean and running_var are needed unless training=True")
    axes = (0, *range(2, x.ndim))
    shape = (1, x.shape[1]) + (1,) * (x.ndim - 2)
    if training:
        n = x.size // max(x.shape[1], 1)
        if n < 2:
            raise ValueError(f"batch_norm: more than one value per channel is needed in training, got shape {x.shape}")
        mean = md.mean(x, axis=axes, keepdims=True)
        centred = x - mean
        var = md.mean(centred * centred, axis=axes, keepdims=True)
        if running_mean is not None and running_var is not None:
            with md.no_grad():
                _blend(running_mean, mean.detach().reshape((-1,)), momentum)
                _blend(running_var, (var.detach() * (n / (n - 1))).reshape((-1,)), momentum)
    else:
        assert running_mean is not None and running_var is not None
        centred, var = x - running_mean.reshape(shape), running_var.reshape(shape)
    scale = md.rsqrt(var + eps)
    out = centred * (scale if weight is None else scale * weight.reshape(shape))
    return out if bias is None else out + bias.reshape(shape)


def _blend(running: md.Tensor, new: md.Tensor, momentum: float | md.Tensor) -> None:
    new = new.to(running.dtype)
    running.assign(running * (1 - momentum) + new * momentum)
