"""MultiheadAttention and rotary positions.

Masks are torch.nn.MultiheadAttention's: in a bool mask True says where NOT to look (the opposite of F.scaled_dot_product_attention's), any other is
added to the scores. A row that may look nowhere is 0 (in PyTorch nan), so a batch with an example that is all padding trains.
"""

from __future__ import annotations

import math
from typing import Any

import minidl as md
from minidl.nn import functional as F
from minidl.nn import init
from minidl.nn.functional.attention import attention_weights
from minidl.nn.linear import Linear
from minidl.nn.module import Module
from minidl.nn.parameter import blank

__all__ = ["MultiheadAttention", "RotaryEmbedding"]


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


class MultiheadAttention(Module):
    """Attention of num_heads heads: query [L, N, embed_dim], key [S, N, kdim], value [S, N, vdim] → (output [L, N, embed_dim], weights or None).

    Parameters: in_proj_weight [3 embed_dim, embed_dim] (or q_proj_weight, k_proj_weight, v_proj_weight where kdim or vdim differs), in_proj_bias,
    out_proj, and with add_bias_kv bias_k and bias_v, one more place to look at. add_zero_attn: one more place of zeros. batch_first: [N, L, ...].
    Raises ValueError where shapes do not fit (A. Vaswani et al., Attention is all you need, NeurIPS 2017).

    >>> out, weights = MultiheadAttention(8, 2)(md.ones((5, 3, 8)), md.ones((7, 3, 8)), md.ones((7, 3, 8)))
    >>> out.shape, weights.shape
    ((5, 3, 8), (3, 5, 7))
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        dropout: float = 0.0,
        bias: bool = True,
        add_bias_kv: bool = False,
        add_zero_attn: bool = False,
        kdim: int | None = None,
        vdim: int | None = None,
        batch_first: bool = False,
        device: str | None = None,
        dtype: Any = None,
    ):
        super().__init__()
        if embed_dim < 1 or num_heads < 1 or embed_dim % num_heads:
            raise ValueError(f"MultiheadAttention: embed_dim {embed_dim} cannot be split into {num_heads} heads")
        self.embed_dim, self.num_heads, self.head_dim = embed_dim, num_heads, embed_dim // num_heads
        self.kdim, self.vdim = embed_dim if kdim is None else kdim, embed_dim if vdim is None else vdim
        self.dropout, self.batch_first, self.add_zero_attn = dropout, batch_first, add_zero_attn
        self._qkv_same_embed_dim = self.kdim == embed_dim and self.vdim == embed_dim
        packed = self._qkv_same_embed_dim
        shapes: dict[str, tuple[int, ...] | None] = {
            "in_proj_weight": (3 * embed_dim, embed_dim) if packed else None,
            "q_proj_weight": None if packed else (embed_dim, embed_dim),
            "k_proj_weight": None if packed else (embed_dim, self.kdim),
            "v_proj_weight": None if packed else (embed_dim, self.vdim),
            "in_proj_bias": (3 * embed_dim,) if bias else None,
            "bias_k": (1, 1, embed_dim) if add_bias_kv else None,
            "bias_v": (1, 1, embed_dim) if add_bias_kv else None,
        }
        for name, shape in shapes.items():
            self.register_parameter(name, None if shape is None else blank(*shape, dtype=dtype, device=device))
        self.out_proj = Linear(embed_dim, embed_dim, bias=bias, device=device, dtype=dtype)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the initial values anew: Xavier's, and biases 0."""
        for name in ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight"):
            if self._parameters[name] is not None:
                init.xavier_uniform_(self._parameters[name])
        if self.in_proj_bias is not None:
            init.zeros_(self.in_proj_bias)
            init.zeros_(self.out_proj.bias)
        for bias in (self.bias_k, self.bias_v):
            if bias is not None:
                init.xavier_normal_(bias)

    def _project(self, query: md.Tensor, key: md.Tensor, value: md.Tensor) -> list[md.Tensor]:
        biases = [None] * 3 if self.in_proj_bias is None else md.split(self.in_proj_bias, self.embed_dim)
        if not self._qkv_same_embed_dim:
            weights = [self.q_proj_weight, self.k_proj_weight, self.v_proj_weight]
        elif query is key and key is value:
            return list(md.split(F.linear(query, self.in_proj_weight, self.in_proj_bias), self.embed_dim, axis=-1))
        else:
            weights = list(md.split(self.in_proj_weight, self.embed_dim))
        return [F.linear(x, w, b) for x, w, b in zip((query, key, value), weights, biases, strict=True)]

    def _heads(self, x: md.Tensor) -> md.Tensor:
        n, length, _ = x.shape
        return md.swapaxes(x.reshape((n, length, self.num_heads, self.head_dim)), 1, 2)

    def _mask(self, attn_mask: Any, padding: Any, causal: bool, n: int, length: int, width: int, query: md.Tensor) -> md.Tensor | None:
        """All masks as one, which is added to scores [N, heads, L, S]."""
        total = additive(attn_mask, query.dtype)
        if total is not None:
            if total.shape not in ((length, width), (n * self.num_heads, length, width)):
                wanted = f"neither {(length, width)} nor {(n * self.num_heads, length, width)}"
                raise ValueError(f"MultiheadAttention: attn_mask {total.shape} is {wanted}")
            total = total[None, None] if total.ndim == 2 else total.reshape((n, self.num_heads, length, width))
        elif causal:
            total = causal_mask(length, width, query)[None, None]
        extra = additive(padding, query.dtype)
        if extra is not None:
            if extra.shape != (n, width):
                raise ValueError(f"MultiheadAttention: key_padding_mask {extra.shape} is not {(n, width)}")
            extra = extra[:, None, None]
            total = extra if total is None else total + extra
        return total

    def forward(
        self,
        query: md.Tensor,
        key: md.Tensor,
        value: md.Tensor,
        key_padding_mask: md.Tensor | None = None,
        need_weights: bool = True,
        attn_mask: md.Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[md.Tensor, md.Tensor | None]:
        """(output, weights): weights [N, L, S] averaged over heads, [N, heads, L, S] without average_attn_weights, None without need_weights.

        key_padding_mask [N, S], attn_mask [L, S] or [N * heads, L, S]: see the module's text. is_causal: place i looks at no place behind i; with
        attn_mask it says that this is what the mask says. need_weights=False is the fast path.
        """
        single = query.ndim == 2
        if query.ndim not in (2, 3) or key.ndim != query.ndim or value.ndim != query.ndim:
            raise ValueError(f"MultiheadAttention: query {query.shape}, key {key.shape} and value {value.shape} must all have 2 or 3 axes")
        if (query.shape[-1], key.shape[-1], value.shape[-1]) != (self.embed_dim, self.kdim, self.vdim) or key.shape[:-1] != value.shape[:-1]:
            wanted = f"{self.embed_dim}, {self.kdim} and {self.vdim} features, and as many keys as values"
            raise ValueError(f"MultiheadAttention: query {query.shape}, key {key.shape} and value {value.shape}; wanted are {wanted}")
        padding = key_padding_mask[None] if single and key_padding_mask is not None else key_padding_mask
        q, k, v = self._project(query, key, value)
        if single:
            q, k, v = q[None], k[None], v[None]
        elif not self.batch_first:
            q, k, v = (md.swapaxes(x, 0, 1) for x in (q, k, v))
        (n, length, _), width = q.shape, k.shape[1]
        extra = (self.bias_k is not None) + bool(self.add_zero_attn)
        fast = is_causal and padding is None and not need_weights and not extra
        mask = None if fast else self._mask(attn_mask, padding, is_causal, n, length, width, q)
        if self.bias_k is not None:
            k, v = (md.concat((x, md.broadcast_to(b, (n, 1, self.embed_dim))), axis=1) for x, b in ((k, self.bias_k), (v, self.bias_v)))
        if self.add_zero_attn:
            k, v = (md.pad(x, ((0, 0), (0, 1), (0, 0))) for x in (k, v))
        if extra and mask is not None:
            mask = md.pad(mask, ((0, 0),) * 3 + ((0, extra),))
        q, k, v = self._heads(q), self._heads(k), self._heads(v)
        p = self.dropout if self.training else 0.0
        weights = None
        if need_weights:
            weights = F.dropout(attention_weights(q, k, mask, fast), p)
            out = md.matmul(weights, v)
        else:
            out = F.scaled_dot_product_attention(q, k, v, mask, p, fast)
        out = self.out_proj(md.swapaxes(out, 1, 2).reshape((n, length, self.embed_dim)))
        out = out[0] if single else out if self.batch_first else md.swapaxes(out, 0, 1)
        if weights is not None:
            weights = md.mean(weights, axis=1) if average_attn_weights else weights
            weights = weights[0] if single else weights
        return out, weights


class RotaryEmbedding(Module):
    """Rotary positions: nn.functional.rotary_embedding as a layer, for queries and keys [..., length, dim] (J. Su et al., arXiv 2104.09864).

    dim: how many features turn (the first ones). interleaved: pairs are neighbours, as in the paper, instead of (i, i + dim/2), as in the weights of
    Hugging Face's Llama. Raises ValueError for a dim that is odd or below 2, and when called as nn.functional.rotary_embedding does.

    >>> RotaryEmbedding(8)(md.ones((2, 4, 5, 8))).shape
    (2, 4, 5, 8)
    """

    def __init__(self, dim: int, base: float = 10000.0, interleaved: bool = False):
        super().__init__()
        if dim < 2 or dim % 2:
            raise ValueError(f"RotaryEmbedding: dim must be even and positive, got {dim}")
        self.dim, self.base, self.interleaved = dim, base, interleaved

    def forward(self, input: md.Tensor, positions: md.Tensor | None = None) -> md.Tensor:
        return F.rotary_embedding(input, positions, self.base, self.interleaved, self.dim)

    def extra_repr(self) -> str:
        return f"{self.dim}, base={self.base}, interleaved={self.interleaved}"
