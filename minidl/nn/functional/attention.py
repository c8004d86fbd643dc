"""Attention and rotary positions as functions; all are names of minidl.nn.functional."""

from __future__ import annotations

import minidl as md
from minidl.nn.functional.dropouts import dropout

__all__ = ["rotary_embedding", "scaled_dot_product_attention"]


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
    return md.matmul(dropout(attention_weights(query, key, attn_mask, is_causal, scale), dropout_p), value)


def attention_weights(
    query: md.Tensor, key: md.Tensor, attn_mask: md.Tensor | None = None, is_causal: bool = False, scale: float | None = None
) -> md.Tensor:
    """softmax(query keyᵀ scale + mask): what scaled_dot_product_attention multiplies value with."""
    eye = md.eye(key.shape[-2], dtype=query.dtype, backend=query.backend, device=query.device)
    return md.scaled_dot_product_attention(query, key, eye, attn_mask, is_causal=is_causal, scale=scale)


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
