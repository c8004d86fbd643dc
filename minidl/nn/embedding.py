"""Look-up tables: Embedding, and EmbeddingBag, which sums up what it looks up."""

from __future__ import annotations

from typing import Any

import minidl as md
from minidl.nn import functional as F
from minidl.nn import init
from minidl.nn.module import Module
from minidl.nn.parameter import Parameter, blank

__all__ = ["Embedding", "EmbeddingBag"]


class _Table(Module):
    """weight [num_embeddings, embedding_dim] from the standard normal; the row of padding_idx starts as zeros and gets no gradient."""

    def _table(self, num: int, dim: int, padding_idx: int | None, weight: Any, device: str | None, dtype: Any) -> None:
        super().__init__()
        name = type(self).__name__
        if padding_idx is not None and not -num <= padding_idx < num:
            raise ValueError(f"{name}: padding_idx {padding_idx} is outside of {num} rows")
        self.num_embeddings, self.embedding_dim = num, dim
        self.padding_idx = padding_idx % num if padding_idx is not None else None
        if weight is None:
            self.weight = blank(num, dim, dtype=dtype, device=device)
            self.reset_parameters()
            return
        if weight.shape != (num, dim):
            raise ValueError(f"{name}: the weight given has shape {weight.shape}, not {(num, dim)}")
        self.weight = Parameter(weight)

    def reset_parameters(self) -> None:
        """Draw the initial values anew."""
        init.normal_(self.weight)
        if self.padding_idx is not None:
            keep = F.one_hot(md.asarray(self.padding_idx), self.num_embeddings).to(backend=self.weight.backend, device=self.weight.device)
            with md.no_grad():
                self.weight.assign(md.where(keep[:, None] == 1, 0.0, self.weight.detach()))


class Embedding(_Table):
    """Rows of weight [num_embeddings, embedding_dim], drawn from the standard normal, looked up by integers of any shape.

    The row of padding_idx starts as zeros and gets no gradient. max_norm, norm_type, scale_grad_by_freq, sparse: as nn.functional.embedding. Raises
    ValueError for a padding_idx outside of the rows; a call raises IndexError for an integer that is out of range (eager on a CPU).

    >>> Embedding(10, 3)(md.asarray([[1, 2], [0, 9]])).shape
    (2, 2, 3)
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        sparse: bool = False,
        _weight: md.Tensor | None = None,
        _freeze: bool = False,
        device: str | None = None,
        dtype: Any = None,
    ):
        self._table(num_embeddings, embedding_dim, padding_idx, _weight, device, dtype)
        self.max_norm, self.norm_type, self.scale_grad_by_freq, self.sparse = max_norm, norm_type, scale_grad_by_freq, sparse
        if _freeze:
            self.weight.requires_grad_(False)

    @classmethod
    def from_pretrained(
        cls, embeddings: md.Tensor, freeze: bool = True, padding_idx: int | None = None, max_norm: float | None = None, norm_type: float = 2.0,
        scale_grad_by_freq: bool = False, sparse: bool = False,
    ) -> Embedding:  # fmt: skip
        """A table of these rows [num, dim], which are not trained unless freeze is False. Raises ValueError for another shape."""
        if not isinstance(embeddings, md.Tensor):
            raise TypeError(f"Embedding.from_pretrained: embeddings must be a Tensor, not {type(embeddings).__name__}; md.asarray makes one")
        if embeddings.ndim != 2:
            raise ValueError(f"Embedding.from_pretrained: rows [num, dim] are wanted, got shape {embeddings.shape}")
        num, dim = embeddings.shape
        return cls(num, dim, padding_idx, max_norm, norm_type, scale_grad_by_freq, sparse, embeddings, freeze)

    def forward(self, input: md.Tensor) -> md.Tensor:
        return F.embedding(input, self.weight, self.padding_idx, self.max_norm, self.norm_type, self.scale_grad_by_freq, self.sparse)

    def extra_repr(self) -> str:
        text = f"{self.num_embeddings}, {self.embedding_dim}"
        text += f", padding_idx={self.padding_idx}" if self.padding_idx is not None else ""
        text += f", max_norm={self.max_norm}" if self.max_norm is not None else ""
        text += f", norm_type={self.norm_type}" if self.norm_type != 2 else ""
        text += f", scale_grad_by_freq={self.scale_grad_by_freq}" if self.scale_grad_by_freq else ""
        return text + (", sparse=True" if self.sparse else "")


class EmbeddingBag(_Table):
    """The sum, mean or max of the embeddings of bags of integers: [B, N], or [total] with offsets [B] → [B, embedding_dim].

    mode: "mean", "sum" or "max". include_last_offset: offsets are [B + 1], and the last one is where the last bag ends. padding_idx: a number that
    does not count. max_norm, norm_type, scale_grad_by_freq, sparse: as nn.functional.embedding. Raises ValueError for a padding_idx outside of the
    rows, and when called where mode, input, offsets and per_sample_weights do not fit.

    >>> EmbeddingBag(10, 3)(md.asarray([1, 2, 4, 5]), md.asarray([0, 1])).shape
    (2, 3)
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        mode: str = "mean",
        sparse: bool = False,
        _weight: md.Tensor | None = None,
        include_last_offset: bool = False,
        padding_idx: int | None = None,
        device: str | None = None,
        dtype: Any = None,
    ):
        self._table(num_embeddings, embedding_dim, padding_idx, _weight, device, dtype)
        self.max_norm, self.norm_type, self.scale_grad_by_freq = max_norm, norm_type, scale_grad_by_freq
        self.mode, self.sparse, self.include_last_offset = mode, sparse, include_last_offset

    @classmethod
    def from_pretrained(
        cls, embeddings: md.Tensor, freeze: bool = True, max_norm: float | None = None, norm_type: float = 2.0, scale_grad_by_freq: bool = False,
        mode: str = "mean", sparse: bool = False, include_last_offset: bool = False, padding_idx: int | None = None,
    ) -> EmbeddingBag:  # fmt: skip
        """A table of these rows [num, dim], which are not trained unless freeze is False. Raises ValueError for another shape."""
        if not isinstance(embeddings, md.Tensor):
            raise TypeError(f"EmbeddingBag.from_pretrained: embeddings must be a Tensor, not {type(embeddings).__name__}; md.asarray makes one")
        if embeddings.ndim != 2:
            raise ValueError(f"EmbeddingBag.from_pretrained: rows [num, dim] are wanted, got shape {embeddings.shape}")
        num, dim = embeddings.shape
        bag = cls(num, dim, max_norm, norm_type, scale_grad_by_freq, mode, sparse, embeddings, include_last_offset, padding_idx)
        bag.weight.requires_grad_(not freeze)
        return bag

    def forward(self, input: md.Tensor, offsets: md.Tensor | None = None, per_sample_weights: md.Tensor | None = None) -> md.Tensor:
        return F.embedding_bag(
            input, self.weight, offsets, self.max_norm, self.norm_type, self.scale_grad_by_freq, self.mode, self.sparse, per_sample_weights,
            self.include_last_offset, self.padding_idx,
        )  # fmt: skip

    def extra_repr(self) -> str:
        text = f"{self.num_embeddings}, {self.embedding_dim}"
        text += f", max_norm={self.max_norm}" if self.max_norm is not None else ""
        text += f", norm_type={self.norm_type}" if self.norm_type != 2 else ""
        text += f", scale_grad_by_freq={self.scale_grad_by_freq}" if self.scale_grad_by_freq else ""
        text += f", mode={self.mode!r}"
        return text + (f", padding_idx={self.padding_idx}" if self.padding_idx is not None else "")
