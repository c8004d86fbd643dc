"""Linear maps, look-up and distances as functions; all are names of minidl.nn.functional."""

from __future__ import annotations

import math

import minidl as md
from minidl.nn.functional.kernels import by_kernel
from minidl.nn.functional.losses import hot, seen

__all__ = ["bilinear", "cosine_similarity", "embedding", "embedding_bag", "linear", "one_hot", "pairwise_distance", "pdist"]


@md.low_precision
def linear(input: md.Tensor, weight: md.Tensor, bias: md.Tensor | None = None) -> md.Tensor:
    """input Wᵀ + b for input [..., in], weight [out, in] (or [in]), bias [out].

    >>> md.nn.functional.linear(md.tensor([1.0, 2.0]), md.tensor([[3.0, 4.0]]), md.tensor([0.5])).tolist()
    [11.5]
    """
    if weight.ndim == 2 and (bias is None or bias.shape == weight.shape[:1]):
        return md.affine(input, weight, bias)
    out = md.matmul(input, weight.T if weight.ndim == 2 else weight)
    return out if bias is None else out + bias


def bilinear(input1: md.Tensor, input2: md.Tensor, weight: md.Tensor, bias: md.Tensor | None = None) -> md.Tensor:
    """Σ input1_i W_kij input2_j + b_k for input1 [..., in1], input2 [..., in2], weight [out, in1, in2], bias [out].

    Result [..., out]; under md.autocast in the widest dtype of the four, as PyTorch's. Raises ValueError for inputs whose leading axes differ, or
    whose features are not those of weight.

    >>> md.nn.functional.bilinear(md.tensor([2.0]), md.tensor([3.0]), md.ones((1, 1, 1))).tolist()
    [6.0]
    """
    if input1.shape[:-1] != input2.shape[:-1] or weight.shape[1:] != (input1.shape[-1], input2.shape[-1]):
        raise ValueError(f"bilinear: inputs {input1.shape} and {input2.shape} do not fit weight {weight.shape} [out, in1, in2]")
    if md.is_autocast_enabled():
        with md.autocast(enabled=False):
            return bilinear(input1, input2, weight, bias)
    lead, (out, n1, n2) = input1.shape[:-1], weight.shape
    a, b = input1.reshape((-1, 1, n1)), input2.reshape((-1, n2))
    partial = md.matmul(b, weight.reshape((out * n1, n2)).T).reshape((-1, out, n1))
    result = md.sum(partial * a, axis=-1).reshape((*lead, out))
    return result if bias is None else result + bias


def _limited(weight: md.Tensor, input: md.Tensor, max_norm: float, norm_type: float) -> None:
    """Scale the rows that are looked up to a norm of at most max_norm, in place."""
    with md.no_grad():
        rows = weight.detach()
        norms = md.vector_norm(rows, axis=-1, ord=norm_type, keepdims=True)
        used = md.any(hot(input.reshape((-1,)), weight.shape[0]), axis=0)
        over = md.logical_and(used[:, None], norms > max_norm)
        weight.assign(rows * md.where(over, max_norm / (norms + 1e-7), 1.0).to(weight.dtype))


def embedding(
    input: md.Tensor,
    weight: md.Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> md.Tensor:
    """Rows of weight [rows, dim] by integers: result [*input.shape, dim]; rows looked up by padding_idx pass no gradient.

    max_norm: rows that are used and longer (in norm_type) are first shortened in place. scale_grad_by_freq: divide a row's gradient by how often it
    is looked up. sparse is accepted for PyTorch's sake: gradients are dense. Raises IndexError for an index out of range (eager on a CPU), ValueError
    for a padding_idx that is no row.

    >>> md.nn.functional.embedding(md.tensor([1, 0]), md.tensor([[1.0, 2.0], [3.0, 4.0]])).tolist()
    [[3.0, 4.0], [1.0, 2.0]]
    """
    if padding_idx is not None and not -weight.shape[0] <= padding_idx < weight.shape[0]:
        raise ValueError(f"embedding: padding_idx {padding_idx} is no row of {weight.shape[0]}")
    if max_norm is not None:
        _limited(weight, input, max_norm, norm_type)
    if not scale_grad_by_freq:
        return _rows(weight, input, padding_idx)
    flat, out = hot(input.reshape((-1,)), weight.shape[0]), weight[input]
    count = md.sum(flat.to(weight.dtype), axis=0)[input][..., None]
    return _padded(out.detach() * (1.0 - 1.0 / count) + out / count, weight, input, padding_idx)


@by_kernel("rows")
def _rows(weight: md.Tensor, input: md.Tensor, /, padding_idx: int | None) -> md.Tensor:
    return _padded(weight[input], weight, input, padding_idx)


def _padded(out: md.Tensor, weight: md.Tensor, input: md.Tensor, padding_idx: int | None) -> md.Tensor:
    if padding_idx is None:
        return out
    return md.where((input == padding_idx % weight.shape[0])[..., None], out.detach(), out)


def embedding_bag(
    input: md.Tensor,
    weight: md.Tensor,
    offsets: md.Tensor | None = None,
    max_norm: float | None = None,
    norm_type: float = 2,
    scale_grad_by_freq: bool = False,
    mode: str = "mean",
    sparse: bool = False,
    per_sample_weights: md.Tensor | None = None,
    include_last_offset: bool = False,
    padding_idx: int | None = None,
) -> md.Tensor:
    """The sum, mean or max of embeddings over bags: input [B, N], or input [total] with offsets [B] where each bag begins; result [B, dim].

    Entries equal to padding_idx do not count; an empty bag is 0. per_sample_weights (mode "sum") has input's shape. Raises ValueError where these do
    not fit.

    >>> md.nn.functional.embedding_bag(md.tensor([[1, 0]]), md.tensor([[1.0, 2.0], [3.0, 4.0]])).tolist()
    [[2.0, 3.0]]
    """
    if mode not in ("sum", "mean", "max"):
        raise ValueError(f'embedding_bag: mode is "sum", "mean" or "max", not {mode!r}')
    if (input.ndim == 1) == (offsets is None) or input.ndim > 2:
        raise ValueError(f"embedding_bag: input [B, N] without offsets or [total] with offsets [B] is wanted, got shape {input.shape}")
    if per_sample_weights is not None and (mode != "sum" or per_sample_weights.shape != input.shape):
        raise ValueError('embedding_bag: per_sample_weights needs mode="sum" and the shape of input')
    rows = embedding(input, weight, padding_idx, max_norm, norm_type, scale_grad_by_freq)
    counts = md.ones_like(input).to(md.bool) if padding_idx is None else input != padding_idx % weight.shape[0]
    if per_sample_weights is not None:
        rows = rows * per_sample_weights[..., None]
    if offsets is None:
        inside = counts[..., None]  # [B, N, 1], over rows [B, N, dim]
    else:
        bags = offsets.shape[0] - include_last_offset
        place = md.arange(input.shape[0], backend=input.backend, device=input.device)
        start = offsets[:bags].to(md.int64)
        bag = md.sum((start[:, None] <= place).to(md.int64), axis=0) - 1
        mine = bag == md.arange(bags, backend=input.backend, device=input.device)[:, None]
        if include_last_offset:
            mine = md.logical_and(mine, place < offsets[bags])
        inside, rows = md.logical_and(mine, counts)[..., None], rows[None]  # [B, total, 1], over rows [1, total, dim]
    if mode == "max":
        best = md.max(md.where(inside, rows, -math.inf), axis=1)
        return md.where(md.any(inside, axis=1), best, 0.0)
    total = md.sum(md.where(inside, rows, 0.0), axis=1)
    if mode == "sum":
        return total
    return total / md.maximum(md.sum(inside.to(total.dtype), axis=1), 1.0)


def one_hot(tensor: md.Tensor, num_classes: int = -1) -> md.Tensor:
    """int64 [*shape, num_classes] with a one at the place that each integer names; -1 takes the largest value plus one (not while tracing).

    Raises IndexError for an integer that is no class, where values can be looked at; elsewhere it has no one.

    >>> md.nn.functional.one_hot(md.tensor([0, 2]), 3).tolist()
    [[1, 0, 0], [0, 0, 1]]
    """
    if num_classes < 0:
        num_classes = int(md.max(tensor).item()) + 1
    values = seen(tensor)
    if values is not None and values.size and not 0 <= values.min() <= values.max() < num_classes:
        raise IndexError(f"one_hot: the tensor holds {values.min()} to {values.max()}; the classes are 0 to {num_classes - 1}")
    return _one_hot(tensor, num_classes)


@by_kernel("one_of")
def _one_hot(x: md.Tensor, /, n: int) -> md.Tensor:
    return hot(x, n).to(md.int64)


def pairwise_distance(x1: md.Tensor, x2: md.Tensor, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False) -> md.Tensor:
    """The p-norm of x1 - x2 + eps over the last axis; with eps=0 the derivative of distance 0 is 0.

    >>> md.nn.functional.pairwise_distance(md.tensor([[3.0, 4.0]]), md.zeros((1, 2)), eps=0.0).tolist()
    [5.0]
    """
    return md.vector_norm(x1 - x2 + eps if eps else x1 - x2, axis=-1, ord=p, keepdims=keepdim)


def cosine_similarity(x1: md.Tensor, x2: md.Tensor, dim: int = 1, eps: float = 1e-8) -> md.Tensor:
    """<x1, x2> / (|x1| |x2|) along dim, each norm being at least eps; the two are broadcast first.

    >>> md.nn.functional.cosine_similarity(md.tensor([[1.0, 0.0]]), md.tensor([[0.0, 2.0]])).tolist()
    [0.0]
    """
    if x1.shape != x2.shape:
        x1, x2 = md.broadcast_arrays(x1, x2)
    a, b = (md.vector_norm(x, dim=dim, keepdims=True) for x in (x1, x2))  # type: ignore[call-arg]
    return md.sum((x1 / md.where(a > eps, a, eps)) * (x2 / md.where(b > eps, b, eps)), dim=dim)  # type: ignore[call-arg]


def pdist(input: md.Tensor, p: float = 2) -> md.Tensor:
    """The p-norm distances between all pairs of rows of input [N, M], row i before row j > i: [N (N-1) / 2].

    The derivative of distance 0 is 0. Raises ValueError for another number of axes.

    >>> md.nn.functional.pdist(md.tensor([[0.0, 0.0], [3.0, 4.0]])).tolist()
    [5.0]
    """
    if input.ndim != 2:
        raise ValueError(f"pdist: expected [N, M], got shape {input.shape}")
    pairs = [(i, j) for i in range(input.shape[0]) for j in range(i + 1, input.shape[0])]
    first, second = (md.asarray([pair[k] for pair in pairs], dtype=md.int64, backend=input.backend, device=input.device) for k in (0, 1))
    return md.vector_norm(input[first] - input[second], axis=-1, ord=p)
