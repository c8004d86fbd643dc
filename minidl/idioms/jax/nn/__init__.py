"""jax.nn: activations and their like with JAX's arguments, and jax.nn.initializers."""

from __future__ import annotations

import math
from typing import Any

import minidl as md
from minidl.idioms import of_lax
from minidl.idioms.jax import reductions
from minidl.idioms.jax.arrays import inexact
from minidl.idioms.jax.nn import initializers
from minidl.idioms.jax.spelling import room, spelled

F = md.nn.functional


def gelu(x: Any, approximate: bool = True) -> md.Tensor:
    """x times the normal distribution function of x, or approximately so by tanh, which is JAX's default.

    >>> round(gelu(md.tensor(1.0), approximate=False).item(), 4)
    0.8413
    """
    return md.gelu(inexact(x), approximate="tanh" if approximate else "none")


def softmax(x: Any, axis: Any = -1, where: Any = None, initial: Any = None) -> md.Tensor:
    """exp(x) divided by its sum over axes, of what `where` names; 0 elsewhere.

    >>> softmax(md.zeros(3), where=md.tensor([True, True, False])).tolist()
    [0.5, 0.5, 0.0]
    """
    x = inexact(x)
    if where is None and isinstance(axis, int):
        return md.softmax(x, axis=axis)
    x = x if where is None else md.where(where, x, -math.inf)
    top = md.max(x, axis=axis, keepdims=True)
    parts = md.exp(x - md.stop_gradient(md.where(md.isfinite(top), top, 0.0)))
    parts = parts if where is None else md.where(where, parts, 0.0)
    return parts / md.sum(parts, axis=axis, keepdims=True)


def log_softmax(x: Any, axis: Any = -1, where: Any = None, initial: Any = None) -> md.Tensor:
    """The logarithm of softmax, -inf where `where` names nothing."""
    x = inexact(x)
    if where is None and isinstance(axis, int):
        return md.log_softmax(x, axis=axis)
    found = x - reductions.logsumexp(x, axis, keepdims=True, where=where)
    return found if where is None else md.where(where, found, -math.inf)


def standardize(
    x: Any, axis: Any = -1, mean: Any = None, variance: Any = None, epsilon: Any = 1e-5, where: Any = None
) -> md.Tensor:  # fmt: skip
    """x less its mean over axes, divided by the root of its variance and epsilon.

    >>> [round(v, 3) for v in standardize(md.tensor([1.0, 3.0])).tolist()]
    [-1.0, 1.0]
    """
    x = inexact(x)
    mean = reductions.mean(x, axis, keepdims=True, where=where) if mean is None else mean
    if variance is None:  # as JAX has it: of the squares, in one pass
        variance = reductions.mean(md.square(x), axis, keepdims=True, where=where) - md.square(mean)
    return (x - mean) * md.rsqrt(variance + epsilon)


def glu(x: Any, axis: int = -1) -> md.Tensor:
    """The first half times the sigmoid of the second."""
    return F.glu(inexact(x), axis)


def squareplus(x: Any, b: Any = 4) -> md.Tensor:
    """(x + sqrt(x² + b)) / 2.

    >>> squareplus(md.tensor(0.0)).item()
    1.0
    """
    x = inexact(x)
    return (x + md.sqrt(md.square(x) + b)) / 2


def sparse_plus(x: Any) -> md.Tensor:
    """0 below -1, x above 1, (x + 1)² / 4 between."""
    x = inexact(x)
    return md.where(x <= -1.0, 0.0, md.where(x >= 1.0, x, md.square(x + 1.0) / 4))


def sparse_sigmoid(x: Any) -> md.Tensor:
    """0 below -1, 1 above 1, (x + 1) / 2 between."""
    return 0.5 * md.clip(inexact(x) + 1.0, 0.0, 2.0)


def soft_sign(x: Any) -> md.Tensor:
    """x / (1 + |x|)."""
    x = inexact(x)
    return x / (md.abs(x) + 1)


def log1mexp(x: Any) -> md.Tensor:
    """log(1 - exp(-x)) for positive x."""
    x = inexact(x)
    small = x < math.log(2.0)
    return md.where(small, md.log(-md.expm1(-md.where(small, x, 1.0))), md.log1p(-md.exp(-md.where(small, 1.0, x))))


def logmeanexp(x: Any, axis: Any = None, where: Any = None, keepdims: bool = False) -> md.Tensor:
    """The logarithm of the mean of exp(x)."""
    x = inexact(x)
    count = reductions.sum(md.ones_like(x), axis, keepdims=keepdims, where=where)
    return reductions.logsumexp(x, axis, keepdims=keepdims, where=where) - md.log(count)


def dot_product_attention(
    query: Any, key: Any, value: Any, bias: Any = None, mask: Any = None, *, scale: float | None = None, is_causal: bool = False,
    query_seq_lengths: Any = None, key_value_seq_lengths: Any = None, local_window_size: Any = None, implementation: Any = None,
    return_residual: bool = False,
) -> md.Tensor:  # fmt: skip
    """Attention of [batch, time, heads, size], a batch or not; keys and values may have fewer heads, each for as many neighbouring ones of the query.

    Raises ValueError for lengths, windows and residuals, which are not there: a mask says the first two.

    >>> x = md.ones((1, 2, 1, 4))
    >>> dot_product_attention(x, x, x).shape
    (1, 2, 1, 4)
    """
    if any(v is not None for v in (query_seq_lengths, key_value_seq_lengths, local_window_size)) or return_residual:
        raise ValueError("dot_product_attention: lengths and windows are not there; say mask=")
    q, k, v = (md.swapaxes(md.asarray(x), -3, -2) for x in (query, key, value))
    groups = q.shape[-3] // k.shape[-3]
    if groups > 1:
        k, v = (md.repeat(x, groups, axis=-3) for x in (k, v))
    scores = md.matmul(q, md.matrix_transpose(k)) * (1.0 / math.sqrt(q.shape[-1]) if scale is None else scale)
    scores = scores if bias is None else scores + bias
    low = -0.7 * md.finfo(scores.dtype).max
    scores = scores if mask is None else md.where(mask, scores, low)
    if is_causal:
        scores = md.where(md.tril(md.ones(scores.shape[-2:], dtype=md.bool, backend=scores.backend, device=scores.device)), scores, low)
    return md.swapaxes(md.matmul(md.softmax(scores, axis=-1), v), -3, -2)


_SPELLED = {
    "celu": (F.celu, "x alpha /"), "elu": (F.elu, "x alpha /"), "leaky_relu": (F.leaky_relu, "x negative_slope /"), "selu": (F.selu, "x /"),
    "relu6": (F.relu6, "x /"), "silu": (F.silu, "x /"), "swish": (F.silu, "x /"), "mish": (F.mish, "x /"), "hard_sigmoid": (F.hardsigmoid, "x /"),
    "hard_silu": (F.hardswish, "x /"), "hard_swish": (F.hardswish, "x /"), "hard_tanh": (F.hardtanh, "x /"), "log_sigmoid": (F.logsigmoid, "x /"),
    "sigmoid": (md.sigmoid, "x /"), "relu": (md.relu, "x /"), "softplus": (md.softplus, "x /"),
}  # fmt: skip
_OWN = (
    gelu, softmax, log_softmax, standardize, glu, squareplus, sparse_plus, sparse_sigmoid, soft_sign, log1mexp, logmeanexp, dot_product_attention,
)  # fmt: skip
NAMES: dict[str, Any] = {
    **{name: spelled(lambda x, *args, f=f: f(inexact(x), *args), words, name) for name, (f, words) in _SPELLED.items()},
    **{f.__name__: f for f in _OWN}, "one_hot": of_lax.one_hot, "logsumexp": reductions.logsumexp, "identity": lambda x: md.asarray(x),
    "tanh": md.tanh, "initializers": initializers,
}  # fmt: skip
__getattr__ = room(__name__, NAMES)


def __dir__() -> list[str]:
    return sorted({*(n for n in globals() if not n.startswith("_")), *NAMES})
