"""Activations as functions; all are names of minidl.nn.functional.

At kinks and at infinity the values and derivatives follow minidl's convention table: relu'(0) is 0, silu(-inf) is 0, a softmax row of -inf is 0.
`inplace=True` stores the result in the argument besides, which saves no memory here: who reads the argument later reads what PyTorch has there.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import minidl as md
from minidl.nn.functional import gates
from minidl.nn.functional.kernels import by_kernel
from minidl.nn.functional.precision import own_dtype

_SELU = (1.6732632423543772848170429916717, 1.0507009873554804934193349852946)


def stored(out: md.Tensor, input: md.Tensor, inplace: bool) -> md.Tensor:
    """The result; inplace: in the place of the input. Raises RuntimeError for a leaf that requires grad outside no_grad."""
    return md.extend.store(input, out) if inplace and out is not input else out


# ---- piecewise ------------------------------------------------------------------------------------------------------------------------
def relu(input: md.Tensor, inplace: bool = False) -> md.Tensor:
    """max(input, 0), with derivative 0 at 0.

    >>> md.nn.functional.relu(md.tensor([-1.0, 0.0, 2.0])).tolist()
    [0.0, 0.0, 2.0]
    """
    return stored(md.relu(input), input, inplace)


def leaky_relu(input: md.Tensor, negative_slope: float = 0.01, inplace: bool = False) -> md.Tensor:
    """input above 0, negative_slope * input elsewhere; the derivative at 0 is negative_slope.

    >>> md.nn.functional.leaky_relu(md.tensor([-1.0, 2.0]), 0.5).tolist()
    [-0.5, 2.0]
    """
    return stored(_leaky_relu(input, negative_slope), input, inplace)


@by_kernel("leaky_relu")
def _leaky_relu(x: md.Tensor, /, slope: Any) -> md.Tensor:
    return x * md.where(x > 0, md.extend.operand(1.0, x), slope)


@md.low_precision
def prelu(input: md.Tensor, weight: md.Tensor) -> md.Tensor:
    """leaky_relu with a learned slope: weight [1], or [C] for the channels of input [N, C, ...] (K. He et al., ICCV 2015).

    Raises ValueError for a weight of another shape.

    >>> md.nn.functional.prelu(md.tensor([-1.0, 2.0]), md.tensor([0.5])).tolist()
    [-0.5, 2.0]
    """
    if weight.size != 1:
        if input.ndim < 2 or weight.shape != (input.shape[1],):
            raise ValueError(f"prelu: weight {weight.shape} is one number or one for each channel of input {input.shape}")
        weight = weight.reshape((-1,) + (1,) * (input.ndim - 2))
    elif not input.ndim:
        weight = weight.reshape(())
    return _prelu(input, weight)


@by_kernel("prelu")
def _prelu(x: md.Tensor, weight: md.Tensor, /) -> md.Tensor:
    return md.where(x > 0, x, md.where(x > 0, 0.0, x) * weight)  # no infinity above 0 reaches the weight's derivative


def rrelu(input: md.Tensor, lower: float = 1.0 / 8, upper: float = 1.0 / 3, training: bool = False, inplace: bool = False) -> md.Tensor:
    """leaky_relu with a slope drawn from [lower, upper) for each element in training, and their mean otherwise (B. Xu et al., arXiv 1505.00853).

    >>> md.nn.functional.rrelu(md.tensor([2.0]), training=True).tolist()
    [2.0]
    """
    if not training:
        return stored(leaky_relu(input, (lower + upper) / 2), input, inplace)
    key = md.random.default_generator.next_key(like=input)
    return stored(md.where(input > 0, input, input * md.random.uniform(key, input.shape, input.dtype, lower, upper)), input, inplace)


def threshold(input: md.Tensor, threshold: float, value: float, inplace: bool = False) -> md.Tensor:
    """input above the threshold, value elsewhere.

    >>> md.nn.functional.threshold(md.tensor([-1.0, 0.0, 2.0]), 1.0, -5.0).tolist()
    [-5.0, -5.0, 2.0]
    """
    return stored(md.where(input > threshold, input, value), input, inplace)


def hardshrink(input: md.Tensor, lambd: float = 0.5) -> md.Tensor:
    """0 within lambd of 0, input elsewhere.

    >>> md.nn.functional.hardshrink(md.tensor([-1.0, 0.0, 2.0])).tolist()
    [-1.0, 0.0, 2.0]
    """
    return _hardshrink(input, lambd)


@by_kernel("hardshrink")
def _hardshrink(x: md.Tensor, /, lambd: Any) -> md.Tensor:
    return md.where(md.abs(x) <= lambd, 0.0, x)


def softshrink(input: md.Tensor, lambd: float = 0.5) -> md.Tensor:
    """input moved towards 0 by lambd, and 0 within lambd of 0.

    The derivative is 0 where the result is, and 1 elsewhere. Raises ValueError for a negative lambd.

    >>> md.nn.functional.softshrink(md.tensor([-1.0, 0.0, 2.0])).tolist()
    [-0.5, 0.0, 1.5]
    """
    if lambd < 0:
        raise ValueError(f"softshrink: lambd must not be negative, got {lambd}")
    return _softshrink(input, lambd)


@by_kernel("softshrink")
def _softshrink(x: md.Tensor, /, lambd: Any) -> md.Tensor:
    return md.where(md.abs(x) <= lambd, 0.0, md.where(x > 0, x - lambd, x + lambd))


def relu6(input: md.Tensor, inplace: bool = False) -> md.Tensor:
    """input limited to [0, 6], with derivative 0 at both ends.

    >>> md.nn.functional.relu6(md.tensor([-1.0, 3.0, 8.0])).tolist()
    [0.0, 3.0, 6.0]
    """
    return stored(md.clip(input, 0.0, 6.0), input, inplace)


def hardtanh(input: md.Tensor, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> md.Tensor:
    """input limited to [min_val, max_val], with derivative 0 at both ends.

    >>> md.nn.functional.hardtanh(md.tensor([-1.0, 0.0, 2.0])).tolist()
    [-1.0, 0.0, 1.0]
    """
    return stored(md.clip(input, min_val, max_val), input, inplace)


def hardsigmoid(input: md.Tensor, inplace: bool = False) -> md.Tensor:
    """input / 6 + 1/2 limited to [0, 1].

    >>> md.nn.functional.hardsigmoid(md.tensor([-4.0, 0.0, 4.0])).tolist()
    [0.0, 0.5, 1.0]
    """
    return stored(_hardsigmoid(input), input, inplace)


@by_kernel("hardsigmoid")
def _hardsigmoid(x: md.Tensor, /) -> md.Tensor:
    return _wide(lambda x: md.clip(x + 3.0, 0.0, 6.0) / 6.0, x)


# ---- smooth ---------------------------------------------------------------------------------------------------------------------------
def sigmoid(input: md.Tensor) -> md.Tensor:
    """1 / (1 + exp(-input)).

    >>> md.nn.functional.sigmoid(md.tensor(0.0)).item()
    0.5
    """
    return md.sigmoid(input)


def tanh(input: md.Tensor) -> md.Tensor:
    """The hyperbolic tangent.

    >>> md.nn.functional.tanh(md.tensor(0.0)).item()
    0.0
    """
    return md.tanh(input)


def tanhshrink(input: md.Tensor) -> md.Tensor:
    """input - tanh(input).

    >>> md.nn.functional.tanhshrink(md.tensor(0.0)).item()
    0.0
    """
    return input - md.tanh(input)


def softsign(input: md.Tensor) -> md.Tensor:
    """input / (1 + |input|).

    >>> md.nn.functional.softsign(md.tensor([-1.0, 3.0])).tolist()
    [-0.5, 0.75]
    """
    return input / (md.abs(input) + 1.0)


@own_dtype
def elu(input: md.Tensor, alpha: float = 1.0, inplace: bool = False) -> md.Tensor:
    """input above 0, alpha * (exp(input) - 1) elsewhere (D. Clevert et al., ICLR 2016).

    >>> md.nn.functional.elu(md.tensor([0.0, 2.0])).tolist()
    [0.0, 2.0]
    """
    return stored(_elu(input, alpha, 1.0, 1.0), input, inplace)


@own_dtype
def celu(input: md.Tensor, alpha: float = 1.0, inplace: bool = False) -> md.Tensor:
    """elu whose derivative is continuous for every alpha: alpha * (exp(input / alpha) - 1) below 0 (J. Barron, arXiv 1704.07483).

    >>> md.nn.functional.celu(md.tensor([0.0, 2.0])).tolist()
    [0.0, 2.0]
    """
    return stored(_elu(input, alpha, 1.0, 1.0 / alpha), input, inplace)


@own_dtype
def selu(input: md.Tensor, inplace: bool = False) -> md.Tensor:
    """The self-normalising elu (G. Klambauer et al., NeurIPS 2017).

    >>> round(md.nn.functional.selu(md.tensor(1.0)).item(), 4)
    1.0507
    """
    return stored(_elu(input, *_SELU, 1.0), input, inplace)


@by_kernel("elu")
@md.extend.fused
def _elu(x: md.Tensor, /, alpha: float, scale: float, inner: float) -> md.Tensor:
    below = md.where(x > 0, 0.0, x)  # so that the branch not taken cannot overflow
    out = md.where(x > 0, x, md.expm1(below * inner) * alpha)
    return out if scale == 1 else out * scale


def softplus(input: md.Tensor, beta: float = 1.0, threshold: float = 20.0) -> md.Tensor:
    """log(1 + exp(beta * input)) / beta, and input itself where beta * input is above the threshold. It overflows nowhere.

    >>> round(md.nn.functional.softplus(md.tensor(0.0)).item(), 4)
    0.6931
    """
    return _softplus(input, beta, threshold)


@by_kernel("softplus")
def _softplus(x: md.Tensor, /, beta: Any, threshold: Any) -> md.Tensor:
    scaled = x if beta == 1 else x * beta
    return md.where(scaled > threshold, x, md.softplus(scaled) if beta == 1 else md.softplus(scaled) / beta)


@own_dtype
def logsigmoid(input: md.Tensor) -> md.Tensor:
    """log(sigmoid(input)).

    >>> round(md.nn.functional.logsigmoid(md.tensor(0.0)).item(), 4)
    -0.6931
    """
    return _logsigmoid(input)


@by_kernel("logsigmoid")
def _logsigmoid(x: md.Tensor, /) -> md.Tensor:
    return -md.softplus(-x)


def _gated(x: md.Tensor, f: Callable[[md.Tensor], md.Tensor], bound: float) -> md.Tensor:
    """f(x), for an f that is 0 at 0, x itself from `bound` on and 0 up to -bound: there inf * 0 never arises, in the value or in a derivative. A nan
    is between them, so that it has a derivative of nan."""

    def gated(x: md.Tensor) -> md.Tensor:
        above = x >= bound
        return md.where(above, x, f(md.where(above | (x <= -bound), -0.0, x)))

    return _wide(gated, x)


def _wide(f: Callable[[md.Tensor], md.Tensor], x: md.Tensor) -> md.Tensor:
    """f(x) in float32 where x has 16 bits, whose products and sums would each be rounded, in every derivative once more."""
    return f(x.to(md.float32)).to(x.dtype) if x.dtype in (md.float16, md.bfloat16) else f(x)


def hardswish(input: md.Tensor, inplace: bool = False) -> md.Tensor:
    """input * hardsigmoid(input) (A. Howard et al., ICCV 2019).

    >>> md.nn.functional.hardswish(md.tensor([-4.0, 0.0, 4.0])).tolist()
    [-0.0, 0.0, 4.0]
    """
    return stored(gates.hardswish(input), input, inplace)


def silu(input: md.Tensor, inplace: bool = False) -> md.Tensor:
    """input * sigmoid(input) (S. Elfwing et al., Neural Networks 107, 2018); 0 at -inf.

    >>> round(md.nn.functional.silu(md.tensor(1.0)).item(), 4)
    0.7311
    """
    return stored(gates.silu(input), input, inplace)


@own_dtype
def mish(input: md.Tensor, inplace: bool = False) -> md.Tensor:
    """input * tanh(softplus(input)) (D. Misra, BMVC 2020); 0 at -inf.

    >>> round(md.nn.functional.mish(md.tensor(1.0)).item(), 4)
    0.8651
    """
    return stored(_mish(input), input, inplace)


@by_kernel("mish")
def _mish(x: md.Tensor, /) -> md.Tensor:
    return _gated(x, lambda y: y * md.tanh(md.softplus(y)), 1e3)


def gelu(input: md.Tensor, approximate: str = "none") -> md.Tensor:
    """input times its normal distribution function; "tanh" is the usual approximation (D. Hendrycks and K. Gimpel, arXiv 1606.08415).

    >>> [round(v, 4) for v in md.nn.functional.gelu(md.tensor([-1.0, 0.0, 2.0])).tolist()]
    [-0.1587, 0.0, 1.9545]
    """
    return md.gelu(input, approximate)


def glu(input: md.Tensor, dim: int = -1) -> md.Tensor:
    """The first half along dim times the sigmoid of the second (Y. Dauphin et al., ICML 2017). Raises ValueError for an odd size.

    >>> md.nn.functional.glu(md.tensor([3.0, 0.0])).tolist()
    [1.5]
    """
    if not -input.ndim <= dim < input.ndim or input.shape[dim] % 2:
        raise ValueError(f"glu: axis {dim} of shape {input.shape} must have an even size")
    return _glu(input, dim)


@by_kernel("glu")
def _glu(x: md.Tensor, /, dim: int) -> md.Tensor:
    first, second = md.split(x, [x.shape[dim] // 2] * 2, axis=dim)
    return first * md.sigmoid(second)


# ---- along an axis --------------------------------------------------------------------------------------------------------------------
def _dim(name: str, input: md.Tensor, dim: int | None) -> int:
    """dim, or PyTorch's choice where it is left out, with its warning."""
    if dim is not None:
        return dim
    warnings.warn(f"{name}: dim is not given and chosen by the number of axes; say which axis, for example dim=-1", UserWarning, stacklevel=3)
    return 0 if input.ndim in (0, 1, 3) else 1


def softmax(input: md.Tensor, dim: int | None = None, dtype: Any = None) -> md.Tensor:
    """exp(input) normalised to sum 1 along dim. Without dim it is 0 for 0, 1 or 3 axes and else 1, as in PyTorch, with a UserWarning.

    >>> softmax(md.zeros(2), dim=0).tolist()
    [0.5, 0.5]
    """
    return md.softmax(input if dtype is None else input.to(dtype), dim=_dim("softmax", input, dim))  # type: ignore[call-arg]


def log_softmax(input: md.Tensor, dim: int | None = None, dtype: Any = None) -> md.Tensor:
    """The logarithm of softmax, computed without overflow; dim as there.

    >>> [round(v, 4) for v in md.nn.functional.log_softmax(md.tensor([0.0, 0.0]), dim=0).tolist()]
    [-0.6931, -0.6931]
    """
    return _log_softmax(input if dtype is None else input.to(dtype), _dim("log_softmax", input, dim))


@by_kernel("log_softmax")
def _log_softmax(x: md.Tensor, /, axis: int) -> md.Tensor:
    return md.log_softmax(x, dim=axis)  # type: ignore[call-arg]


def softmin(input: md.Tensor, dim: int | None = None, dtype: Any = None) -> md.Tensor:
    """softmax(-input); dim as there.

    >>> md.nn.functional.softmin(md.tensor([1.0, 1.0]), dim=0).tolist()
    [0.5, 0.5]
    """
    return md.softmax(-(input if dtype is None else input.to(dtype)), dim=_dim("softmin", input, dim))  # type: ignore[call-arg]


def gumbel_softmax(logits: md.Tensor, tau: float = 1, hard: bool = False, eps: float = 1e-10, dim: int = -1) -> md.Tensor:
    """A sample of the categorical distribution of logits along dim, made differentiable by temperature tau; hard: one-hot, with the soft gradient.

    E. Jang et al. and C. Maddison et al., ICLR 2017. eps is accepted for PyTorch's sake.

    >>> md.nn.functional.gumbel_softmax(md.zeros((2, 3)), hard=True).sum(axis=-1).tolist()
    [1.0, 1.0]
    """
    key = md.random.default_generator.next_key(like=logits)
    soft = md.softmax((logits + md.random.gumbel(key, logits.shape, logits.dtype)) / tau, dim=dim)  # type: ignore[call-arg]
    if not hard or not soft.ndim:
        return soft
    n = soft.shape[dim]
    axis = dim % soft.ndim
    numbers = md.arange(n, backend=soft.backend, device=soft.device).reshape((n,) + (1,) * (soft.ndim - axis - 1))
    one = (md.argmax(soft.detach(), axis=axis, keepdims=True) == numbers).to(soft.dtype)
    return one - soft.detach() + soft


def normalize(input: md.Tensor, p: float = 2.0, dim: int | tuple[int, ...] = 1, eps: float = 1e-12) -> md.Tensor:
    """input divided by its p-norm along dim, or by eps where the norm is smaller.

    >>> normalize(md.tensor([[3.0, 4.0]])).tolist()
    [[0.6000000238418579, 0.800000011920929]]
    """
    size = md.vector_norm(input, dim=dim, ord=p, keepdims=True)  # type: ignore[call-arg]
    return input / md.where(size <= eps, eps, size)


__all__ = [
    "celu", "elu", "gelu", "glu", "gumbel_softmax", "hardshrink", "hardsigmoid", "hardswish", "hardtanh", "leaky_relu", "log_softmax", "logsigmoid",
    "mish", "normalize", "prelu", "relu", "relu6", "rrelu", "selu", "sigmoid", "silu", "softmax", "softmin", "softplus", "softshrink", "softsign",
    "tanh", "tanhshrink", "threshold",
]  # fmt: skip
