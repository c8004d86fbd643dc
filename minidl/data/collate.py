"""From a list of items to a batch, and from what the loading side makes (NumPy arrays) to tensors where the user wants them.

Batches are put together in NumPy, by whichever process loads them, and become tensors once, at the end, in the process that asked.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

import minidl as md
from minidl.data.explaining import explains


def is_torch(x: Any) -> bool:
    """Whether x is a tensor of torch, which is not loaded for the question."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(x, torch.Tensor)


def of_torch(x: Any) -> np.ndarray:
    """The data of a tensor of torch, also where NumPy cannot read its memory as it is: on a device, in bfloat16, conjugated."""
    return md.extend.get_backend("torch").to_numpy(x.detach())


def host(items: list[Any]) -> Any:
    """default_collate with NumPy arrays in place of tensors (but on a device other than the CPU, tensors stay where they are)."""
    first = items[0]
    if isinstance(first, md.Tensor):
        if first.device != "cpu":
            return md.stack(items)
        return _stack([np.asarray(t, copy=False) if isinstance(t, md.Tensor) else t for t in items])
    if is_torch(first):
        return _stack([of_torch(t) for t in items])
    if isinstance(first, (np.ndarray, np.generic)):
        return _stack(items if type(first) is np.ndarray else [_plain(a) for a in items])
    if isinstance(first, (bool, int, float, complex)):
        return numbers(items)
    if isinstance(first, Mapping):
        for item in items:
            _alike(items, isinstance(item, Mapping))
            if missing := [k for k in first if k not in item]:
                have = ", ".join(map(repr, item)) or "none"
                raise ValueError(f"default_collate: an item has no {missing[0]!r}, which the first one has; it has {have}")
        return _as(first, {k: host([item[k] for item in items]) for k in first})
    if isinstance(first, (tuple, list)):
        _alike(items, all(isinstance(item, (tuple, list)) for item in items))
        if any(len(item) != len(first) for item in items):
            raise ValueError(f"default_collate: lists of different lengths ({', '.join(map(str, sorted({len(i) for i in items})))}); {PAD}")
        fields = [host(list(column)) for column in zip(*items, strict=True)]
        return type(first)(*fields) if hasattr(first, "_fields") else fields
    return items


def _as(first: Any, fields: dict[Any, Any]) -> Any:
    """The fields in a dict of the first item's type."""
    if type(first) is dict or not isinstance(first, dict):
        return fields
    made = copy.copy(first)
    for k, v in fields.items():  # update() of a Counter would add them
        made[k] = v
    return made


#: Bytes below which a backend's own copy of an array is faster than sharing its memory.
SHARED_FROM = {"jax": 1 << 20}
PAD = "pad them (md.data.text.PadCollate), or give a collate_fn of your own"


def _stack(arrays: list[Any]) -> np.ndarray:
    shape = np.shape(arrays[0])
    if any(a.shape != shape for a in arrays):
        shapes = ", ".join(sorted({str(np.shape(a)) for a in arrays}))
        raise ValueError(f"default_collate: items of different shapes {shapes}; {PAD}")
    # One concatenation and a reshape cost less than np.stack, which takes each array apart first.
    return np.concatenate(arrays).reshape(len(arrays), *shape) if shape else np.array(arrays)


def _plain(a: Any) -> np.ndarray:
    if np.ma.is_masked(a):
        raise TypeError("default_collate: an item has masked elements, which a tensor cannot have; say what they are: .filled(value)")
    return np.asarray(a)


def _alike(items: list[Any], fits: bool) -> None:
    if not fits:
        kinds = ", ".join(sorted({type(item).__name__ for item in items}))
        raise TypeError(f"default_collate: items of different kinds ({kinds}); make them alike, or give a collate_fn of your own")


def numbers(items: Any) -> np.ndarray:
    """Python's numbers as an array, floats of the default dtype."""
    array = np.array(items)
    if array.dtype.kind not in "biufc":  # of numbers and text NumPy makes text, of numbers and other things Python objects
        if array.dtype.kind == "O" and all(isinstance(item, int) for item in items):
            raise OverflowError(f"default_collate: {max(items, key=abs)} is an integer that no dtype holds")
        _alike(items, False)
    return array.astype(md.asarray(0.0 if array.dtype.kind == "f" else 0j).dtype.numpy) if array.dtype.kind in "fc" else array


@explains
def default_collate(batch: list[Any]) -> Any:
    """A list of items as one batch: tensors, arrays and numbers are stacked, tuples and dicts field by field, anything else stays a list.

    Python floats become the default float dtype; as in PyTorch tuples become lists, and an OrderedDict, like other kinds of dict, stays one. Raises
    ValueError for items of different shapes, lengths and keys, TypeError for numbers, dicts and lists among other things, OverflowError for an
    integer that no dtype holds.

    >>> x, n, name = default_collate([(md.zeros(2), 1, "a"), (md.ones(2), 2, "b")])
    >>> x.shape, n.tolist(), name
    ((2, 2), [1, 2], ['a', 'b'])
    """
    return tensors(host(batch), owned=True)


@explains
def default_convert(data: Any) -> Any:
    """One item with its arrays as tensors; what a loader without batches (batch_size=None) gives.

    >>> import numpy
    >>> md.data.default_convert(numpy.ones(2)).shape
    (2,)
    """
    return tensors(data)


def tensors(batch: Any, *, owned: bool = False, backend: str | None = None, device: str | None = None) -> Any:
    """A batch with its tensors and arrays (NumPy's, torch's) on a backend and device, by default those of the moment.

    owned: nobody else holds the memory of the arrays, so that tensors may show it instead of a copy.
    """
    if backend is None and device is None:
        where = md.empty(0)
        backend, device = where.backend, where.device

    def place(v: Any) -> Any:
        if is_torch(v):
            v = of_torch(v)
        if isinstance(v, md.Tensor):
            return md.asarray(v, backend=backend, device=device)
        if isinstance(v, (np.ndarray, np.generic)) and v.dtype.kind in "biufcV":
            if owned and v.size and v.flags.writeable and v.nbytes >= SHARED_FROM.get(backend or "", 0):
                try:
                    return md.asarray(v, copy=False, backend=backend, device=device)
                except ValueError:  # a device, or a dtype that is not shared
                    pass
            return md.asarray(v, backend=backend, device=device)
        return v

    return md.tree.map(place, batch)
