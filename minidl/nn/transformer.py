"""Transformer layers and stacks (A. Vaswani et al., Attention is all you need, NeurIPS 2017), with PyTorch's names.

Masks are MultiheadAttention's: True in a bool mask says where not to look. The hints *_is_causal need no mask beside them; where they are None,
nothing is guessed, for the mask says it already.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import minidl as md
from minidl.nn import functional as F
from minidl.nn import init
from minidl.nn.attention import MultiheadAttention
from minidl.nn.containers import ModuleList
from minidl.nn.dropout import Dropout
from minidl.nn.functional.attention import causal_mask
from minidl.nn.linear import Linear
from minidl.nn.module import Module
from minidl.nn.normalization import LayerNorm

__all__ = ["Transformer", "TransformerDecoder", "TransformerDecoderLayer", "TransformerEncoder", "TransformerEncoderLayer"]
Activation = str | Callable[[md.Tensor], md.Tensor]
Mask = md.Tensor | None


def _activation(activation: Activation) -> Any:
    if isinstance(activation, str):
        if activation not in ("relu", "gelu"):
            raise ValueError(f'Transformer: activation is "relu", "gelu" or a function, not {activation!r}')
        return F.relu if activation == "relu" else F.gelu
    return activation


class TransformerEncoderLayer(Module):
    """Self-attention and a feed-forward network, each with a residual and a layer norm: [L, N, d_model] → the same ([N, L, ...] with batch_first).

    norm_first: normalise the input of each part (R. Xiong et al., ICML 2020) instead of the sum behind it.

    >>> TransformerEncoderLayer(8, 2, 16, batch_first=True)(md.ones((3, 5, 8))).shape
    (3, 5, 8)
    """

    def __init__(
        self,
        d_model: int,
        nhead: int,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: Activation = F.relu,
        layer_norm_eps: float = 1e-5,
        batch_first: bool = False,
        norm_first: bool = False,
        bias: bool = True,
        device: str | None = None,
        dtype: Any = None,
    ):
        super().__init__()
        more: dict[str, Any] = {"bias": bias, "device": device, "dtype": dtype}
        self.self_attn = MultiheadAttention(d_model, nhead, dropout, batch_first=batch_first, **more)
        self.linear1 = Linear(d_model, dim_feedforward, **more)
        self.dropout = Dropout(dropout)
        self.linear2 = Linear(dim_feedforward, d_model, **more)
        self.norm_first = norm_first
        self.norm1 = LayerNorm(d_model, layer_norm_eps, **more)
        self.norm2 = LayerNorm(d_model, layer_norm_eps, **more)
        self.dropout1 = Dropout(dropout)
        self.dropout2 = Dropout(dropout)
        self.activation = _activation(activation)

    def _attend(self, x: md.Tensor, mask: Mask, padding: Mask, causal: bool) -> md.Tensor:
        return self.dropout1(self.self_attn(x, x, x, key_padding_mask=padding, need_weights=False, attn_mask=mask, is_causal=causal)[0])

    def _feed(self, x: md.Tensor) -> md.Tensor:
        return self.dropout2(self.linear2(self.dropout(self.activation(self.linear1(x)))))

    def forward(self, src: md.Tensor, src_mask: Mask = None, src_key_padding_mask: Mask = None, is_causal: bool = False) -> md.Tensor:
        x, masks = src, (src_mask, src_key_padding_mask, is_causal)
        if self.norm_first:
            x = x + self._attend(self.norm1(x), *masks)
            return x + self._feed(self.norm2(x))
        x = self.norm1(x + self._attend(x, *masks))
        return self.norm2(x + self._feed(x))


class TransformerDecoderLayer(Module):
    """Self-attention, attention to the encoder's output `memory`, and a feed-forward network, each with a residual and a layer norm.

    Arguments as TransformerEncoderLayer.

    >>> layer = md.nn.TransformerDecoderLayer(4, 2, 8, batch_first=True)
    >>> layer(md.ones((1, 3, 4)), md.ones((1, 5, 4))).shape
    (1, 3, 4)
    """

    def __init__(
        self,
        d_model: int,
        nhead: int,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: Activation = F.relu,
        layer_norm_eps: float = 1e-5,
        batch_first: bool = False,
        norm_first: bool = False,
        bias: bool = True,
        device: str | None = None,
        dtype: Any = None,
    ):
        super().__init__()
        more: dict[str, Any] = {"bias": bias, "device": device, "dtype": dtype}
        self.self_attn = MultiheadAttention(d_model, nhead, dropout, batch_first=batch_first, **more)
        self.multihead_attn = MultiheadAttention(d_model, nhead, dropout, batch_first=batch_first, **more)
        self.linear1 = Linear(d_model, dim_feedforward, **more)
        self.dropout = Dropout(dropout)
        self.linear2 = Linear(dim_feedforward, d_model, **more)
        self.norm_first = norm_first
        self.norm1 = LayerNorm(d_model, layer_norm_eps, **more)
        self.norm2 = LayerNorm(d_model, layer_norm_eps, **more)
        self.norm3 = LayerNorm(d_model, layer_norm_eps, **more)
        self.dropout1 = Dropout(dropout)
        self.dropout2 = Dropout(dropout)
        self.dropout3 = Dropout(dropout)
        self.activation = _activation(activation)

    def _attend(self, x: md.Tensor, mask: Mask, padding: Mask, causal: bool) -> md.Tensor:
        return self.dropout1(self.self_attn(x, x, x, key_padding_mask=padding, need_weights=False, attn_mask=mask, is_causal=causal)[0])

    def _look_up(self, x: md.Tensor, memory: md.Tensor, mask: Mask, padding: Mask, causal: bool) -> md.Tensor:
        return self.dropout2(self.multihead_attn(x, memory, memory, padding, need_weights=False, attn_mask=mask, is_causal=causal)[0])

    def _feed(self, x: md.Tensor) -> md.Tensor:
        return self.dropout3(self.linear2(self.dropout(self.activation(self.linear1(x)))))

    def forward(
        self,
        tgt: md.Tensor,
        memory: md.Tensor,
        tgt_mask: Mask = None,
        memory_mask: Mask = None,
        tgt_key_padding_mask: Mask = None,
        memory_key_padding_mask: Mask = None,
        tgt_is_causal: bool = False,
        memory_is_causal: bool = False,
    ) -> md.Tensor:
        x = tgt
        own, other = (tgt_mask, tgt_key_padding_mask, tgt_is_causal), (memory_mask, memory_key_padding_mask, memory_is_causal)
        if self.norm_first:
            x = x + self._attend(self.norm1(x), *own)
            x = x + self._look_up(self.norm2(x), memory, *other)
            return x + self._feed(self.norm3(x))
        x = self.norm1(x + self._attend(x, *own))
        x = self.norm2(x + self._look_up(x, memory, *other))
        return self.norm3(x + self._feed(x))


class TransformerEncoder(Module):
    """num_layers copies of an encoder layer, one after another, and a norm behind them if there is one.

    enable_nested_tensor and mask_check are accepted for PyTorch's sake: there are no nested tensors.

    >>> layer = md.nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True)
    >>> md.nn.TransformerEncoder(layer, 2)(md.ones((1, 3, 4))).shape
    (1, 3, 4)
    """

    def __init__(
        self, encoder_layer: Module, num_layers: int, norm: Module | None = None, enable_nested_tensor: bool = True, mask_check: bool = True
    ):
        super().__init__()
        self.layers = ModuleList(copy.deepcopy(encoder_layer) for _ in range(num_layers))
        self.num_layers, self.norm = num_layers, norm

    def forward(self, src: md.Tensor, mask: Mask = None, src_key_padding_mask: Mask = None, is_causal: bool | None = None) -> md.Tensor:
        x = src
        for layer in self.layers:
            x = layer(x, src_mask=mask, src_key_padding_mask=src_key_padding_mask, is_causal=bool(is_causal))
        return x if self.norm is None else self.norm(x)


class TransformerDecoder(Module):
    """num_layers copies of a decoder layer, one after another, and a norm behind them if there is one.

    >>> layer = md.nn.TransformerDecoderLayer(4, 2, 8, dropout=0.0, batch_first=True)
    >>> md.nn.TransformerDecoder(layer, 2)(md.ones((1, 3, 4)), md.ones((1, 5, 4))).shape
    (1, 3, 4)
    """

    def __init__(self, decoder_layer: Module, num_layers: int, norm: Module | None = None):
        super().__init__()
        self.layers = ModuleList(copy.deepcopy(decoder_layer) for _ in range(num_layers))
        self.num_layers, self.norm = num_layers, norm

    def forward(
        self,
        tgt: md.Tensor,
        memory: md.Tensor,
        tgt_mask: Mask = None,
        memory_mask: Mask = None,
        tgt_key_padding_mask: Mask = None,
        memory_key_padding_mask: Mask = None,
        tgt_is_causal: bool | None = None,
        memory_is_causal: bool = False,
    ) -> md.Tensor:
        x, masks = tgt, (tgt_mask, memory_mask, tgt_key_padding_mask, memory_key_padding_mask)
        for layer in self.layers:
            x = layer(x, memory, *masks, tgt_is_causal=bool(tgt_is_causal), memory_is_causal=memory_is_causal)
        return x if self.norm is None else self.norm(x)


class Transformer(Module):
    """An encoder and a decoder: forward(src [S, N, d_model], tgt [T, N, d_model]) → [T, N, d_model] ([N, ...] first with batch_first).

    Raises ValueError when called with a src or tgt that has not d_model features, or with batches of different sizes.

    >>> net = Transformer(8, 2, 1, 1, 16)
    >>> net(md.ones((5, 3, 8)), md.ones((4, 3, 8)), tgt_mask=net.generate_square_subsequent_mask(4)).shape
    (4, 3, 8)
    """

    def __init__(
        self,
        d_model: int = 512,
        nhead: int = 8,
        num_encoder_layers: int = 6,
        num_decoder_layers: int = 6,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: Activation = F.relu,
        custom_encoder: Module | None = None,
        custom_decoder: Module | None = None,
        layer_norm_eps: float = 1e-5,
        batch_first: bool = False,
        norm_first: bool = False,
        bias: bool = True,
        device: str | None = None,
        dtype: Any = None,
    ):
        super().__init__()
        settings = (d_model, nhead, dim_feedforward, dropout, activation, layer_norm_eps, batch_first, norm_first, bias, device, dtype)
        norm: Callable[[], LayerNorm] = lambda: LayerNorm(d_model, layer_norm_eps, bias=bias, device=device, dtype=dtype)
        encoder: Any = custom_encoder
        decoder: Any = custom_decoder
        if encoder is None:
            encoder = TransformerEncoder(TransformerEncoderLayer(*settings), num_encoder_layers, norm())
        if decoder is None:
            decoder = TransformerDecoder(TransformerDecoderLayer(*settings), num_decoder_layers, norm())
        self.encoder, self.decoder = encoder, decoder
        self.d_model, self.nhead, self.batch_first = d_model, nhead, batch_first
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all weights of two and more axes anew, by Xavier's rule."""
        for p in self.parameters():
            if p.ndim > 1:
                init.xavier_uniform_(p)

    @staticmethod
    def generate_square_subsequent_mask(sz: int, device: str | None = None, dtype: Any = None) -> md.Tensor:
        """[sz, sz]: 0 where place j ≤ i, -inf elsewhere."""
        return causal_mask(sz, sz, md.zeros((), dtype=dtype or md.get_default_dtype(), device=device))

    def forward(
        self,
        src: md.Tensor,
        tgt: md.Tensor,
        src_mask: Mask = None,
        tgt_mask: Mask = None,
        memory_mask: Mask = None,
        src_key_padding_mask: Mask = None,
        tgt_key_padding_mask: Mask = None,
        memory_key_padding_mask: Mask = None,
        src_is_causal: bool | None = None,
        tgt_is_causal: bool | None = None,
        memory_is_causal: bool = False,
    ) -> md.Tensor:
        batch = 0 if self.batch_first else 1
        if not 2 <= src.ndim == tgt.ndim <= 3:
            raise ValueError(f"Transformer: src {src.shape} and tgt {tgt.shape} are both [length, batch, features], or both without a batch")
        if src.shape[-1] != self.d_model or tgt.shape[-1] != self.d_model or (src.ndim == 3 and src.shape[batch] != tgt.shape[batch]):
            raise ValueError(f"Transformer: src {src.shape} and tgt {tgt.shape} need {self.d_model} features and equal batches")
        memory = self.encoder(src, mask=src_mask, src_key_padding_mask=src_key_padding_mask, is_causal=src_is_causal)
        masks = (tgt_mask, memory_mask, tgt_key_padding_mask, memory_key_padding_mask)
        return self.decoder(tgt, memory, *masks, tgt_is_causal=tgt_is_causal, memory_is_causal=memory_is_causal)
