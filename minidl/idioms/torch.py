"""torch: md, in which the names that the Array API and NumPy use otherwise are PyTorch's, `from minidl.idioms import torch`.

    torch.equal(a, b)                        one bool
    torch.max(x, dim), min, median, sort     values and places, wherever the axis is said; torch.sort(x) along the last one; nanmedian, too
    torch.squeeze(x, dim)                    leaves an axis that has another size than 1
    torch.argsort, diff, tensordot, polygamma
                                             take PyTorch's positions
    torch.add, subtract, round               take alpha and decimals
    torch.std(x), torch.var(x)               corrected
    torch.nonzero(x)                         a matrix
    torch.meshgrid(a, b)                     "ij"
    torch.take(x, index)                     of the flattened tensor
    torch.trace(matrix)                      of a matrix

Everything else is md's own, rooms such as torch.nn too. Methods are the same as everywhere: `x.max(dim=1)` has places and `x.max(1)` has not
(docs/torch_names.md).

>>> from minidl.idioms import torch
>>> values, places = torch.sort(torch.tensor([1.0, 3.0, 2.0]), descending=True)
>>> values.tolist(), places.tolist(), torch.equal(values, values)
([3.0, 2.0, 1.0], [1, 2, 0], True)
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import minidl as md
from minidl.idioms import words
from minidl.idioms.numbers import ALONG, along, whole, word_all
from minidl.idioms.shaping import Pair

__all__ = [
    "add", "argsort", "diff", "equal", "max", "median", "meshgrid", "min", "nanmedian", "nonzero", "polygamma", "roll", "round",
    "sort", "squeeze", "std", "sub", "subtract", "take", "tensordot", "trace", "var",
]  # fmt: skip


def equal(input: md.Tensor, other: md.Tensor) -> bool:
    """Whether two tensors have one shape and the same elements, as a Python bool.

    >>> equal(md.ones(2), md.ones(2)), equal(md.ones(2), md.ones(3))
    (True, False)
    """
    return input.shape == other.shape and bool(md.all(md.equal(input, other)))


def _extreme(name: str) -> Callable[..., Any]:
    whole, one = getattr(md, name), {"max": md.maximum, "min": md.minimum}.get(name)

    def function(input: md.Tensor, dim: Any = None, keepdim: bool = False, *, other: Any = None) -> Any:
        if one is not None and (isinstance(dim, md.Tensor) or other is not None):
            return one(input, dim if other is None else other)
        return whole(input) if dim is None else whole(input, dim=dim, keepdim=keepdim)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"The {name} of all elements; values and places along dim." + (" Of two tensors, element by element." if one else "")
    return function


max, min = _extreme("max"), _extreme("min")


def median(input: md.Tensor, dim: int | None = None, keepdim: bool = False) -> Any:
    """The median of all elements, the lower one of two in the middle; values and places along dim.

    >>> median(md.tensor([4.0, 1.0, 3.0, 2.0])).item()
    2.0
    """
    if dim is None:
        return md.median(md.reshape(input, (-1,)), dim=0).values  # type: ignore[call-arg,attr-defined]
    return md.median(input, dim=dim, keepdim=keepdim)  # type: ignore[call-arg]


def nanmedian(input: md.Tensor, dim: int | None = None, keepdim: bool = False) -> Any:
    """The median of what is not nan, the lower one of two in the middle; values and places along dim.

    >>> nanmedian(md.tensor([4.0, md.nan, 3.0])).item()
    3.0
    """
    if dim is None:
        return md.nanmedian(md.reshape(input, (-1,)), dim=0).values
    return md.nanmedian(input, dim=dim, keepdim=keepdim)


def sort(input: md.Tensor, dim: int = -1, descending: bool = False, stable: bool = False) -> Pair:
    """(values, places) in order along an axis.

    >>> sort(md.tensor([2, 1])).indices.tolist()
    [1, 0]
    """
    return md.sort(input, dim=dim, descending=descending, stable=stable)  # type: ignore[call-arg,return-value]


def argsort(input: md.Tensor, dim: int = -1, descending: bool = False, stable: bool = False) -> md.Tensor:
    """The places of the elements in order along an axis.

    >>> argsort(md.tensor([2, 1, 3]), 0, True).tolist()
    [2, 0, 1]
    """
    return sort(input, dim, descending, stable)[1]


def roll(input: md.Tensor, shifts: Any, dims: Any = ()) -> md.Tensor:
    """The elements moved along axes, what leaves at one end coming in at the other; along all of them in a row where no axis is named.

    >>> roll(md.tensor([[1, 2], [3, 4]]), 1).tolist(), roll(md.tensor([[1, 2], [3, 4]]), 1, 0).tolist()
    ([[4, 1], [2, 3]], [[3, 4], [1, 2]])
    """
    return md.roll(input, shifts, axis=whole("roll", dims))


def squeeze(input: md.Tensor, dim: Any = None) -> md.Tensor:
    """Without axes of size 1, all of them or those that are named; of another size they stay.

    >>> squeeze(md.ones(2, 1, 3), 1).shape, squeeze(md.ones(2, 1, 3), 0).shape
    ((2, 3), (2, 1, 3))
    """
    return words.squeezed(input, dim)


def diff(input: md.Tensor, n: int = 1, dim: int = -1, prepend: Any = None, append: Any = None) -> md.Tensor:
    """The n-th differences along an axis; of truths, where they change."""
    if input.dtype is md.bool:
        input = md.concat([v for v in (prepend, input, append) if v is not None], axis=dim)
        for _ in range(n):
            size = input.shape[dim]
            input = md.narrow(input, dim, 1, size - 1) != md.narrow(input, dim, 0, size - 1)
        return input
    return md.diff(input, n=n, axis=dim, prepend=prepend, append=append)


def tensordot(a: md.Tensor, b: md.Tensor, dims: Any = 2) -> md.Tensor:
    """The sum of products over so many axes, the last of a and the first of b, or over pairs of them."""
    return md.tensordot(a, b, axes=dims)


def polygamma(n: int, input: md.Tensor) -> md.Tensor:
    """The n-th derivative of digamma."""
    return md.polygamma(input, n)


def add(input: Any, other: Any, *, alpha: Any = 1) -> md.Tensor:
    """input + alpha * other."""
    return md.add(input, other if alpha == 1 else md.multiply(other, alpha))


def subtract(input: Any, other: Any, *, alpha: Any = 1) -> md.Tensor:
    """input - alpha * other."""
    return md.subtract(input, other if alpha == 1 else md.multiply(other, alpha))


sub = subtract


def round(input: md.Tensor, *, decimals: int = 0) -> md.Tensor:
    """To the nearest number of so many decimals, of two equally near the even one.

    >>> from minidl.idioms import torch
    >>> torch.round(torch.tensor([1.24, 1.5]), decimals=1).tolist() == torch.tensor([1.2, 1.5]).tolist()
    True
    """
    if decimals == 0 or input.dtype.kind != "float":
        return md.round(input)
    scale = 10.0 ** abs(decimals)
    return md.round(input * scale) / scale if decimals > 0 else md.round(input / scale) * scale


def _spread(name: str) -> Callable[..., md.Tensor]:
    f = getattr(md, name)

    def function(
        input: md.Tensor, dim: Any = None, unbiased: bool | None = None, keepdim: bool = False, *, correction: float | None = None
    ) -> md.Tensor:
        if isinstance(dim, bool):  # std(input, unbiased)
            dim, unbiased = None, dim
        less = correction if correction is not None else 0 if unbiased is False else 1
        return f(input, axis=whole(name, dim), correction=less, keepdims=keepdim)  # type: ignore[no-any-return]

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"md.{name} over axes with a correction of 1 unless another is said."
    return along(function)


std, var = _spread("std"), _spread("var")


def nonzero(input: md.Tensor, *, as_tuple: bool = False) -> Any:
    """The places of what is not 0, one a row; as_tuple: a vector for each axis.

    >>> nonzero(md.tensor([0, 2])).tolist()
    [[1]]
    """
    return md.nonzero(input, as_tuple=True) if as_tuple else words.matrix_of(input)  # type: ignore[call-arg]


def meshgrid(*tensors: Any, indexing: str = "ij") -> Any:
    """md.meshgrid, the first tensor along the first axis; a list of tensors, too."""
    return md.meshgrid(*(tensors[0] if len(tensors) == 1 and not isinstance(tensors[0], md.Tensor) else tensors), indexing=indexing)


def take(input: md.Tensor, index: md.Tensor) -> md.Tensor:
    """The elements at these places of the flattened tensor.

    >>> take(md.tensor([[1, 2], [3, 4]]), md.tensor([[0, 3]])).tolist()
    [[1, 4]]
    """
    return md.reshape(md.take(md.reshape(input, (-1,)), md.reshape(index, (-1,))), index.shape)


def trace(input: md.Tensor) -> md.Tensor:
    """The sum of the diagonal of a matrix."""
    return md.linalg.trace(input)


def _whole(f: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(f)
    def function(*args: Any, **params: Any) -> Any:
        if len(args) > 1:
            args = args[0], whole(f.__name__, args[1]), *args[2:]
        return f(*args, **params)

    return function


word_all(globals(), __all__)


def __getattr__(name: str) -> Any:
    found = getattr(md, name)
    if getattr(found, "__name__", "") in ALONG:  # whose dim may come by position
        found = globals()[name] = along(_whole(found) if whole(found.__name__, ()) is None else found)
        found.__module__, found.__qualname__ = __name__, name  # where pickle looks for it
    return found


def __dir__() -> list[str]:
    return sorted({*__all__, *dir(md), *md.idioms.NAMES["md"]})
