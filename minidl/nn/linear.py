"""Linear maps, look-up tables and the modules that only pass on or reshape."""

from __future__ import annotations

import math
from typing import Any

import minidl as md
from minidl.nn import functional as F
from minidl.nn import init
from minidl.nn.module import Module
from minidl.nn.parameter import Parameter


def blank(*shape: int, dtype: Any = None, device: str | None = None) -> Parameter:
    """A parameter whose values are still to be drawn, on the default backend."""
    return Parameter(md.zeros(shape, dtype=dtype or md.get_default_dtype(), device=device))


class Linear(Module):
    """y = x Wᵀ + b for x [..., in_features], with weight [out_features, in_features] and bias [out_features].

    Both are drawn uniformly within 1/sqrt(in_features) of zero.

    >>> Linear(3, 2)(md.ones((5, 3))).shape
    (5, 2)
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = True, device: str | None = None, dtype: Any = None):
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.weight = blank(out_features, in_features, dtype=dtype, device=device)
        self.register_parameter("bias", blank(out_features, dtype=dtype, device=device) if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the initial values anew."""
        init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            bound = 1 / math.sqrt(self.in_features) if self.in_features else 0.0
            init.uniform_(self.bias, -bound, bound)

    def forward(self, x: md.Tensor) -> md.Tensor:
        return F.linear(x, self.weight, self.bias)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"


class Embedding(Module):
    """Rows of weight [num_embeddings, embedding_dim], drawn from the standard normal, looked up by integers of any shape.

    The row of padding_idx starts as zeros and gets no gradient.
    """

    def __init__(self, num_embeddings: int, embedding_dim: int, padding_idx: int | None = None, device: str | None = None, dtype: Any = None):
        super().__init__()
        if padding_idx is not None and not -num_embeddings <= padding_idx < num_embeddings:
            raise ValueError(f"Embedding: padding_idx {padding_idx} is outside of {num_embeddings} rows")
        self.num_embeddings, self.embedding_dim = num_embeddings, embedding_dim
        self.padding_idx = padding_idx % num_embeddings if padding_idx is not None else None
        self.weight = blank(num_embeddings, embedding_dim, dtype=dtype, device=device)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the initial values anew."""
        init.normal_(self.weight)
        if self.padding_idx is not None:
            keep = F.one_hot(md.asarray(self.padding_idx), self.num_embeddings).to(backend=self.weight.backend, device=self.weight.device)
            with md.no_grad():
                self.weight.assign(md.where(keep[:, None] == 1, 0.0, self.weight.detach()))

    def forward(self, x: md.Tensor) -> md.Tensor:
        return F.embedding(x, self.weight, self.padding_idx)

    def extra_repr(self) -> str:
        pad = f", padding_idx={self.padding_idx}" if self.padding_idx is not None else ""
        return f"{self.num_embeddings}, {self.embedding_dim}{pad}"


class Identity(Module):
    """Its input, unchanged; arguments of the constructor are ignored, so that it can stand in for any layer."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__()

    def forward(self, x: Any) -> Any:
        return x


class Flatten(Module):
    """Axes start_dim to end_dim (inclusive) as one."""

    def __init__(self, start_dim: int = 1, end_dim: int = -1):
        super().__init__()
        self.start_dim, self.end_dim = start_dim, end_dim

    def forward(self, x: md.Tensor) -> md.Tensor:
        first, last = self.start_dim % x.ndim, self.end_dim % x.ndim
        return x.reshape(x.shape[:first] + (math.prod(x.shape[first : last + 1]),) + x.shape[last + 1 :])

    def extra_repr(self) -> str:
        return f"start_dim={self.start_dim}, end_dim={self.end_dim}"


class Dropout(Module):
    """In training, zero each element with probability p and scale the rest by 1/(1-p); in evaluation, its input.

    The draws come from minidl's generator, so one seed gives the same masks on every backend (N. Srivastava et al., JMLR 15, 2014).
    """

    def __init__(self, p: float = 0.5, inplace: bool = False):
        super().__init__()
        if not 0 <= p <= 1:
            raise ValueError(f"Dropout: p is a probability, not {p}")
        self.p, self.inplace = p, inplace

    def forward(self, x: md.Tensor) -> md.Tensor:
        return F.dropout(x, self.p, self.training)

    def extra_repr(self) -> str:
        return f"p={self.p}, inplace={self.inplace}"
