"""Sequences of unequal lengths, with the names of torch.nn.utils.rnn: padding, and the PackedSequence that recurrent layers take.

A PackedSequence here is the padded tensor together with the lengths: its shape is fixed, so a jitted step serves all batches of one shape, and the
layers skip what lies behind each example's end. Examples need not be sorted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import minidl as md

__all__ = ["PackedSequence", "pack_padded_sequence", "pack_sequence", "pad_packed_sequence", "pad_sequence", "unpack_sequence", "unpad_sequence"]


class PackedSequence(NamedTuple):
    """Padded sequences data [N, L, ...] and their lengths [N] (int64).

    >>> md.nn.utils.rnn.PackedSequence(md.ones((2, 3, 1)), md.tensor([3, 2])).lengths.tolist()
    [3, 2]
    """

    data: md.Tensor
    lengths: md.Tensor

    @property
    def batch_sizes(self) -> md.Tensor:
        """How many sequences have an element at each step, [L] (int64)."""
        steps = md.arange(self.data.shape[1], backend=self.data.backend, device=self.data.device)
        return md.sum(self.lengths[:, None] > steps, axis=0, dtype=md.int64)

    @property
    def sorted_indices(self) -> None:
        """None: examples keep their order."""

    @property
    def unsorted_indices(self) -> None:
        """None: examples keep their order."""


def pad_sequence(sequences: Sequence[md.Tensor], batch_first: bool = False, padding_value: float = 0.0, padding_side: str = "right") -> md.Tensor:
    """Sequences [L_i, ...] as one tensor [max L, N, ...] ([N, max L, ...] with batch_first), filled up on one side.

    Raises ValueError for another padding_side than "left" or "right", and for no sequence at all.

    >>> pad_sequence([md.tensor([1.0, 2.0]), md.tensor([3.0])], batch_first=True).tolist()
    [[1.0, 2.0], [3.0, 0.0]]
    """
    if padding_side not in ("left", "right"):
        raise ValueError(f'pad_sequence: padding_side is "left" or "right", not {padding_side!r}')
    longest = max(s.shape[0] for s in sequences)
    rows = []
    for s in sequences:
        gap = longest - s.shape[0]
        rows.append(md.pad(s, ((gap, 0) if padding_side == "left" else (0, gap), *((0, 0),) * (s.ndim - 1)), padding_value))
    return md.stack(rows, axis=0 if batch_first else 1)


def unpad_sequence(padded_sequences: md.Tensor, lengths: Any, batch_first: bool = False) -> list[md.Tensor]:
    """The sequences that pad_sequence padded on the right.

    >>> [s.shape for s in md.nn.utils.rnn.unpad_sequence(md.ones((2, 3)), md.tensor([3, 2]), batch_first=True)]
    [(3,), (2,)]
    """
    x = padded_sequences if batch_first else md.swapaxes(padded_sequences, 0, 1)
    return [x[i, : int(n)] for i, n in enumerate(md.asarray(lengths).tolist())]


def pack_padded_sequence(input: md.Tensor, lengths: Any, batch_first: bool = False, enforce_sorted: bool = True) -> PackedSequence:
    """Padded sequences [L, N, ...] ([N, L, ...] with batch_first) and their lengths, for a recurrent layer.

    enforce_sorted is accepted for PyTorch's sake: no order is needed. Raises ValueError for lengths that do not fit.

    >>> md.nn.utils.rnn.pack_padded_sequence(md.ones((2, 3, 1)), [3, 2], batch_first=True).lengths.tolist()
    [3, 2]
    """
    x = input if batch_first else md.swapaxes(input, 0, 1)
    found = lengths if isinstance(lengths, md.Tensor) else md.asarray(lengths, backend=x.backend, device=x.device)
    if found.shape != (x.shape[0],) or not found.dtype.is_integer:
        raise ValueError(f"pack_padded_sequence: {x.shape[0]} integer lengths are wanted, not {found.dtype.name} of shape {found.shape}")
    return PackedSequence(x, found.to(md.int64))


def pad_packed_sequence(
    sequence: PackedSequence, batch_first: bool = False, padding_value: float = 0.0, total_length: int | None = None
) -> tuple[md.Tensor, md.Tensor]:
    """The padded tensor of a PackedSequence and the lengths. Its length is that of the packed tensor, or total_length.

    Raises ValueError for a total_length that is shorter.

    >>> packed = md.nn.utils.rnn.pack_sequence([md.ones(2), md.ones(1)])
    >>> padded, lengths = md.nn.utils.rnn.pad_packed_sequence(packed, batch_first=True)
    >>> padded.tolist(), lengths.tolist()
    ([[1.0, 1.0], [1.0, 0.0]], [2, 1])
    """
    x, lengths = sequence
    if total_length is not None:
        if total_length < x.shape[1]:
            raise ValueError(f"pad_packed_sequence: total_length {total_length} is shorter than the sequences, {x.shape[1]}")
        x = md.pad(x, ((0, 0), (0, total_length - x.shape[1]), *((0, 0),) * (x.ndim - 2)))
    inside = (md.arange(x.shape[1], backend=x.backend, device=x.device) < lengths[:, None]).reshape((*x.shape[:2], *(1,) * (x.ndim - 2)))
    x = md.where(inside, x, padding_value)
    return (x if batch_first else md.swapaxes(x, 0, 1)), lengths


def pack_sequence(sequences: Sequence[md.Tensor], enforce_sorted: bool = True) -> PackedSequence:
    """Sequences [L_i, ...], padded and packed.

    >>> md.nn.utils.rnn.pack_sequence([md.ones((3, 1)), md.ones((2, 1))]).data.shape
    (2, 3, 1)
    """
    return pack_padded_sequence(pad_sequence(sequences, batch_first=True), [s.shape[0] for s in sequences], True, enforce_sorted)


def unpack_sequence(packed_sequences: PackedSequence) -> list[md.Tensor]:
    """The sequences that pack_sequence packed.

    >>> [s.shape for s in unpack_sequence(pack_sequence([md.ones((3, 1)), md.ones((2, 1))]))]
    [(3, 1), (2, 1)]
    """
    return unpad_sequence(packed_sequences.data, packed_sequences.lengths, batch_first=True)
