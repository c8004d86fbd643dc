"""gelu, layer normalisation and attention: compositions for which libraries have fast kernels, and so primitives of their own.

primitives has the first two with their derivatives, attention the third; here are the functions that users call.
"""

from __future__ import annotations

import math
from typing import Any

import minidl as md
from minidl import Tensor
from minidl.arrays.composites import attention, primitives  # noqa: F401  (which put their primitives into the table)
from minidl.extend import check_all, constant, describe, home, ns, operand

__all__ = ["gelu", "layer_norm", "scaled_dot_product_attention"]


def gelu(x: Any, /, approximate: str = "none") -> Tensor:
    """x times the normal distribution function of x, element by element; "tanh" approximates it. 0 at -inf. Integers become the default float.

    Raises ValueError for another approximation. Source: D. Hendrycks and K. Gimpel, arXiv 1606.08415.

    >>> round(md.gelu(md.tensor(1.0)).item(), 4)
    0.8413
    """
    if approximate not in ("none", "tanh"):
        raise ValueError(f'gelu: approximate is "none" or "tanh", not {approximate!r}')
    return ns.gelu(operand(x), tanh=approximate == "tanh")


def layer_norm(x: Any, /, weight: Any = None, bias: Any = None, *, axes: int = 1, eps: float = 1e-5) -> Tensor:
    """Zero mean and unit (biased) variance over the last axes, then times weight and plus bias, both of the shape of those axes.

    `axes` says how many there are where neither weight nor bias does. Raises ValueError where the shapes do not fit.
    Source: J. L. Ba et al., arXiv 1607.06450.

    >>> md.layer_norm(md.ones((2, 3)), md.ones((3,)), md.ones((3,))).tolist()
    [[1.0, 1.0, 1.0], [1.0, 1.0, 1.0]]
    """
    x = operand(x)
    if not 1 <= axes <= x.ndim:
        raise ValueError(f"layer_norm: the last {axes} axes of {describe(x)}; at least one of those it has is wanted")
    given = weight if weight is not None else bias
    shape = x.shape[x.ndim - axes :] if given is None else operand(given, x).shape
    dtype = x.dtype if x.dtype.inexact else md.get_default_dtype()
    w = constant(home(x), shape, 1.0, dtype) if weight is None else operand(weight, x)
    b = constant(home(x), shape, -0.0, dtype) if bias is None else operand(bias, x)
    return ns.layer_norm(x, w, b, eps=float(eps))[0]


def scaled_dot_product_attention(
    query: Any, key: Any, value: Any, attn_mask: Any = None, *, is_causal: bool = False, scale: float | None = None
) -> Tensor:
    """softmax(query keyᵀ scale + mask) value for query [..., L, E], key [..., S, E], value [..., S, V] → [..., L, V]; leading axes broadcast.

    attn_mask broadcasts to [..., L, S]: a bool one says where to look, another is added to the scores; is_causal: row i looks at the first i + 1
    places. scale is 1 / sqrt(E) by default. A row that may look nowhere is 0. Raises ValueError where shapes do not fit, and for both masks at once.

    Source: A. Vaswani et al., Attention is all you need (NeurIPS 2017).

    >>> md.scaled_dot_product_attention(md.ones((2, 4, 8)), md.ones((2, 6, 8)), md.ones((2, 6, 3))).shape
    (2, 4, 3)
    """
    q = operand(query)
    k, v = operand(key, q), operand(value, q)
    if min(q.ndim, k.ndim, v.ndim) < 2:
        raise ValueError(f"attention: {describe(q)}, {describe(k)}, {describe(v)}; at least two axes each are wanted")
    if is_causal and attn_mask is not None:
        raise ValueError("attention: is_causal=True makes the mask; leave attn_mask out, or put both into one mask")
    mask: Any = 0.0
    if attn_mask is not None:
        mask = operand(attn_mask, q)
        if mask.dtype is md.bool:
            mask = ns.where(mask, constant(home(q), (), 0.0, q.dtype), -math.inf)
        mask = ns.reshape(mask, shape=(1,) * (2 - mask.ndim) + mask.shape) if mask.ndim < 2 else mask
    lead = _leading(q, k, v)
    q, k, v = (x if x.shape[:-2] == lead else ns.broadcast_to(x, shape=(*lead, *x.shape[-2:])) for x in (q, k, v))
    scale = 1.0 / math.sqrt(max(q.shape[-1], 1)) if scale is None else float(scale)
    return ns.attention(q, k, v, mask, scale=scale, causal=bool(is_causal))[0]


def _leading(*xs: Tensor) -> tuple[int, ...]:
    first, *others = (x.shape[:-2] for x in xs)
    if all(shape == first for shape in others):
        return first
    try:
        return md.broadcast_shapes(*(x.shape[:-2] for x in xs))
    except ValueError:
        raise ValueError(f"attention: the leading axes of {', '.join(map(describe, xs))} do not broadcast") from None


check_all(globals(), __all__)
