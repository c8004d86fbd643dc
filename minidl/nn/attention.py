"""MultiheadAttention and rotary positions.

Masks are torch.nn.MultiheadAttention's: in a bool mask True says where NOT to look (the opposite of F.scaled_dot_product_attention's), any other is
added to the scores. A row that may look nowhere is 0 (in PyTorch nan), so a batch with an example that is all padding trains.
"""

from __future__ import annotations

from typing import Any

import minidl as md
from minidl.nn import functional as F
from minidl.nn import init
from minidl.nn.functional.attention import attend, outcome, project
from minidl.nn.linear import Linear
from minidl.nn.module import Module
from minidl.nn.parameter import blank

__all__ = ["MultiheadAttention", "RotaryEmbedding"]


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
        separate = [self.q_proj_weight, self.k_proj_weight, self.v_proj_weight]
        q, k, v = project((query, key, value), self.in_proj_weight if self._qkv_same_embed_dim else separate, self.in_proj_bias)
        if single:
            q, k, v = q[None], k[None], v[None]
        elif not self.batch_first:
            q, k, v = (md.swapaxes(x, 0, 1) for x in (q, k, v))
        more = (self.bias_k, self.bias_v, self.add_zero_attn, self.dropout if self.training else 0.0)
        out, weights = attend("MultiheadAttention", self.num_heads, q, k, v, *more, padding, attn_mask, is_causal, need_weights)
        return outcome(self.out_proj(out), weights, single, self.batch_first, average_attn_weights)


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
