"""Attention and rotary positions as functions; all are names of minidl.nn.functional.

Masks of multi_head_attention_forward are torch.nn.MultiheadAttention's: in a bool mask True says where NOT to look (the opposite of
scaled_dot_product_attention's), any other is added to the scores. A row that may look nowhere is 0 (in PyTorch nan), so a batch with an example that
is all padding trains.
"""

from __future__ import annotations

import math
from typing import Any

import minidl as md
from minidl.nn.functional import gates
from minidl.nn.functional.dropouts import dropout
from minidl.nn.functional.kernels import by_kernel
from minidl.nn.functional.maps import linear

__all__ = ["multi_head_attention_forward", "rotary_embedding", "scaled_dot_product_attention"]


@md.low_precision
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

    >>> md.nn.functional.scaled_dot_product_attention(md.ones((1, 2, 4)), md.ones((1, 3, 4)), md.ones((1, 3, 4))).shape
    (1, 2, 4)
    """
    if enable_gqa:
        groups = query.shape[-3] // max(key.shape[-3], 1)
        key, value = md.repeat(key, groups, axis=-3), md.repeat(value, groups, axis=-3)
    if dropout_p == 0:
        return md.scaled_dot_product_attention(query, key, value, attn_mask, is_causal=is_causal, scale=scale)
    return _weighted(query, key, value, attn_mask, dropout_p, is_causal, scale)[0]


def attention_weights(
    query: md.Tensor, key: md.Tensor, attn_mask: md.Tensor | None = None, is_causal: bool = False, scale: float | None = None
) -> md.Tensor:
    """softmax(query keyᵀ scale + mask): what scaled_dot_product_attention multiplies value with."""
    eye = md.eye(key.shape[-2], dtype=query.dtype, backend=query.backend, device=query.device)
    return md.scaled_dot_product_attention(query, key, eye, attn_mask, is_causal=is_causal, scale=scale)


def _weighted(
    query: md.Tensor, key: md.Tensor, value: md.Tensor, mask: md.Tensor | None, p: float, causal: bool, scale: float | None = None
) -> tuple[md.Tensor, md.Tensor]:
    """Attention whose weights are dropped with probability p, and these weights."""
    if not 0 <= p < 1 or query.ndim < 2 or query.shape[:-2] != key.shape[:-2]:
        weights = dropout(attention_weights(query, key, mask, causal, scale), p)
        return md.matmul(weights, value), weights
    drawn = None if p == 0 else md.random.default_generator.coins(1.0 - p, (*query.shape[:-1], key.shape[-2]), like=query)
    return _attended(query, key, value, mask, drawn, causal, scale, p)


@by_kernel("attended")
def _attended(q: md.Tensor, k: md.Tensor, v: md.Tensor, mask: Any, drawn: Any, /, causal: bool, scale: float | None, p: float) -> Any:
    weights = attention_weights(q, k, mask, causal, scale)
    weights = weights if drawn is None else gates.kept(drawn, weights, scale=1.0 / (1.0 - p))
    return md.matmul(weights, v), weights


# ---- several heads --------------------------------------------------------------------------------------------------------------------
def additive(mask: md.Tensor | None, dtype: Any) -> md.Tensor | None:
    """A mask to be added to scores: -inf where a bool mask is True."""
    if mask is None:
        return None
    if mask.dtype is md.bool:
        return md.where(mask, -math.inf, md.zeros((), dtype=dtype, backend=mask.backend, device=mask.device))
    if not mask.dtype.inexact:
        raise ValueError(f"attention: a mask is bool (where not to look) or float (added to the scores), not {mask.dtype.name}")
    return mask.to(dtype)


def causal_mask(length: int, width: int, like: md.Tensor) -> md.Tensor:
    """0 where place j ≤ i, -inf elsewhere."""
    rows, columns = (md.arange(n, backend=like.backend, device=like.device) for n in (length, width))
    return md.where(columns > rows[:, None], -math.inf, md.zeros((), dtype=like.dtype, backend=like.backend, device=like.device))


def _one_mask(
    name: str, attn_mask: md.Tensor | None, padding: md.Tensor | None, causal: bool, sizes: tuple[int, int, int, int], like: md.Tensor
) -> md.Tensor | None:
    """All masks as one, which is added to scores [N, heads, L, S]."""
    n, heads, length, width = sizes
    total = additive(attn_mask, like.dtype)
    if total is not None:
        if total.shape not in ((length, width), (n * heads, length, width)):
            raise ValueError(f"{name}: attn_mask {total.shape} is neither {(length, width)} nor {(n * heads, length, width)}")
        total = total[None, None] if total.ndim == 2 else total.reshape((n, heads, length, width))
    elif causal:
        total = causal_mask(length, width, like)[None, None]
    extra = additive(padding, like.dtype)
    if extra is not None:
        if extra.shape != (n, width):
            raise ValueError(f"{name}: key_padding_mask {extra.shape} is not {(n, width)}")
        extra = extra[:, None, None]
        total = extra if total is None else total + extra
    return total


def project(inputs: tuple[md.Tensor, md.Tensor, md.Tensor], weights: md.Tensor | list[Any], bias: md.Tensor | None) -> list[md.Tensor]:
    """Queries, keys and values from what they are made of; weights: one tensor that holds all three, or a list of three."""
    query, key, value = inputs
    if isinstance(weights, md.Tensor):
        if query is key and key is value:
            return list(md.split(linear(query, weights, bias), weights.shape[0] // 3, axis=-1))
        weights = list(md.split(weights, weights.shape[0] // 3))
    biases = [None] * 3 if bias is None else md.split(bias, bias.shape[0] // 3)
    return [linear(x, w, b) for x, w, b in zip(inputs, weights, biases, strict=True)]


def attend(
    name: str, heads: int, q: md.Tensor, k: md.Tensor, v: md.Tensor, bias_k: md.Tensor | None, bias_v: md.Tensor | None, zero: bool, p: float,
    padding: md.Tensor | None, attn_mask: md.Tensor | None, causal: bool, need_weights: bool,
    static: tuple[md.Tensor | None, md.Tensor | None] = (None, None),
) -> tuple[md.Tensor, md.Tensor | None]:  # fmt: skip
    """(heads side by side [N, L, E], weights [N, heads, L, S] or None) of projected q [N, L, E], k and v [N, S, E], or static heads for these."""
    n, length, embed = q.shape

    def split(x: md.Tensor, ready: md.Tensor | None = None) -> md.Tensor:
        if ready is None:
            return md.swapaxes(x.reshape((n, x.shape[1], heads, embed // heads)), 1, 2)
        if ready.ndim != 3 or ready.shape[0] != n * heads or ready.shape[2] != embed // heads:
            raise ValueError(f"{name}: static keys and values are [{n * heads}, S, {embed // heads}], got {ready.shape}")
        return ready.reshape((n, heads, *ready.shape[1:]))

    if bias_k is not None and bias_v is not None:
        if static != (None, None):
            raise ValueError(f"{name}: bias_k and bias_v cannot be added to static keys and values")
        k, v = (md.concat((x, md.broadcast_to(b, (n, 1, embed))), axis=1) for x, b in ((k, bias_k), (v, bias_v)))
    q, k, v = split(q), split(k, static[0]), split(v, static[1])
    extra = (bias_k is not None) + bool(zero)
    width = k.shape[2] - (bias_k is not None)
    if zero:
        k, v = (md.pad(x, ((0, 0), (0, 0), (0, 1), (0, 0))) for x in (k, v))
    fast = causal and padding is None and not need_weights and not extra
    mask = None if fast else _one_mask(name, attn_mask, padding, causal, (n, heads, length, width), q)
    if extra and mask is not None:
        mask = md.pad(mask, ((0, 0),) * 3 + ((0, extra),))
    weights = None
    if need_weights:
        out, weights = _weighted(q, k, v, mask, p, fast)
    else:
        out = scaled_dot_product_attention(q, k, v, mask, p, fast)
    return md.swapaxes(out, 1, 2).reshape((n, length, embed)), weights


def multi_head_attention_forward(
    query: md.Tensor,
    key: md.Tensor,
    value: md.Tensor,
    embed_dim_to_check: int,
    num_heads: int,
    in_proj_weight: md.Tensor | None,
    in_proj_bias: md.Tensor | None,
    bias_k: md.Tensor | None,
    bias_v: md.Tensor | None,
    add_zero_attn: bool,
    dropout_p: float,
    out_proj_weight: md.Tensor,
    out_proj_bias: md.Tensor | None,
    training: bool = True,
    key_padding_mask: md.Tensor | None = None,
    need_weights: bool = True,
    attn_mask: md.Tensor | None = None,
    use_separate_proj_weight: bool = False,
    q_proj_weight: md.Tensor | None = None,
    k_proj_weight: md.Tensor | None = None,
    v_proj_weight: md.Tensor | None = None,
    static_k: md.Tensor | None = None,
    static_v: md.Tensor | None = None,
    average_attn_weights: bool = True,
    is_causal: bool = False,
) -> tuple[md.Tensor, md.Tensor | None]:
    """What nn.MultiheadAttention computes, with the parameters given: query [L, N, E], key and value [S, N, ...] → (output [L, N, E], weights).

    E is embed_dim_to_check. in_proj_weight [3 E, E], or with use_separate_proj_weight the three others. static_k, static_v [N * num_heads, S, E /
    num_heads] stand in for what key and value give. Masks, weights and is_causal: as in nn.MultiheadAttention. Raises ValueError where shapes do
    not fit, for a weight that is wanted and None, and for one of bias_k and bias_v alone.

    >>> x, w = md.ones((3, 1, 4)), md.ones((12, 4))
    >>> out, weights = md.nn.functional.multi_head_attention_forward(
    ...     x, x, x, 4, 2, w, None, None, None, False, 0.0, md.ones((4, 4)), None)
    >>> out.shape, weights.shape
    ((3, 1, 4), (1, 3, 3))
    """
    name = "multi_head_attention_forward"
    single = query.ndim == 2
    if query.ndim not in (2, 3) or key.ndim != query.ndim or value.ndim != query.ndim:
        raise ValueError(f"{name}: query {query.shape}, key {key.shape} and value {value.shape} must all have 2 or 3 axes")
    if query.shape[-1] != embed_dim_to_check or key.shape[:-1] != value.shape[:-1] or num_heads < 1 or embed_dim_to_check % num_heads:
        wanted = f"wanted are {embed_dim_to_check} features in {num_heads} heads, and as many keys as values"
        raise ValueError(f"{name}: query {query.shape}, key {key.shape} and value {value.shape}; {wanted}")
    if (bias_k is None) != (bias_v is None):
        raise ValueError(f"{name}: bias_k and bias_v come together; {'bias_v' if bias_v is None else 'bias_k'} is None")
    given = [q_proj_weight, k_proj_weight, v_proj_weight] if use_separate_proj_weight else [in_proj_weight]
    if any(w is None for w in given):
        wanted = "q_proj_weight, k_proj_weight and v_proj_weight are" if use_separate_proj_weight else "in_proj_weight is"
        raise ValueError(f"{name}: {wanted} wanted")
    q, k, v = project((query, key, value), given if use_separate_proj_weight else given[0], in_proj_bias)  # type: ignore[arg-type]
    q, k, v = (x[None] if single else md.swapaxes(x, 0, 1) for x in (q, k, v))
    padding = key_padding_mask[None] if single and key_padding_mask is not None else key_padding_mask
    p = dropout_p if training else 0.0
    out, weights = attend(
        name, num_heads, q, k, v, bias_k, bias_v, add_zero_attn, p, padding, attn_mask, is_causal, need_weights, (static_k, static_v)
    )
    out = linear(out, out_proj_weight, out_proj_bias)
    return outcome(out, weights, single, single, average_attn_weights)


def outcome(
    out: md.Tensor, weights: md.Tensor | None, single: bool, batch_first: bool, average: bool
) -> tuple[md.Tensor, md.Tensor | None]:
    """Output and weights of a batch, as they are returned."""
    out = out[0] if single else out if batch_first else md.swapaxes(out, 0, 1)
    if weights is not None:
        weights = md.mean(weights, axis=1) if average else weights
        weights = weights[0] if single else weights
    return out, weights


# ---- positions ------------------------------------------------------------------------------------------------------------------------
def rotary_embedding(
    input: md.Tensor, positions: md.Tensor | None = None, base: float = 10000.0, interleaved: bool = False, dim: int | None = None
) -> md.Tensor:
    """Turn pairs of features of input [..., length, width] by angles position / base^(2i / dim) (J. Su et al., RoFormer, arXiv 2104.09864).

    positions: [length], or what broadcasts to input's axes without the last, 0, 1, … by default. Only the first dim features (all by default, an
    even number) turn. Pairs are (i, i + dim/2), as in Llama's weights of Hugging Face, or neighbours (2i, 2i + 1) if interleaved, as in the paper.
    The angles are computed in float64. Raises ValueError for an input with fewer than two axes, and for a dim (or width) that is odd, below 2 or more
    than the features.

    >>> rotary_embedding(md.tensor([[1.0, 0.0], [1.0, 0.0]]))[0].tolist()
    [1.0, 0.0]
    """
    width = input.shape[-1] if dim is None else dim
    if input.ndim < 2 or width % 2 or not 0 < width <= input.shape[-1]:
        raise ValueError(f"rotary_embedding: expected [..., length, width] with an even number of turning features, got {input.shape} and {width}")
    place = {"backend": input.backend, "device": input.device}
    if positions is None:
        positions = md.arange(input.shape[-2], **place)
    frequency = md.pow(float(base), md.arange(0, width, 2, dtype=md.float64, **place) * (-1.0 / width))
    angle = positions.to(md.float64)[..., None] * frequency
    cos, sin = md.cos(angle).to(input.dtype), md.sin(angle).to(input.dtype)
    turning, rest = input[..., :width], input[..., width:]
    if interleaved:
        a, b = turning[..., 0::2], turning[..., 1::2]
        out = md.stack((a * cos - b * sin, a * sin + b * cos), axis=-1).reshape(turning.shape)
    else:
        a, b = turning[..., : width // 2], turning[..., width // 2 :]
        out = md.concat((a * cos - b * sin, a * sin + b * cos), axis=-1)
    return out if width == input.shape[-1] else md.concat((out, rest), axis=-1)
