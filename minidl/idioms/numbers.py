"""PyTorch's manners with the word `dim`: a number is taken along dim 0 or -1, as one axis of one element, and NumPy's words are known, too."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

import minidl as md

F = TypeVar("F", bound=Callable[..., Any])
#: Functions of md that take a number along the dim that PyTorch's word says, or that come by position in minidl.idioms.torch.
ALONG = frozenset(
    """all any argmax argmin argsort count_nonzero cumulative_logsumexp cumulative_max cumulative_min cumulative_prod cumulative_sum flip log_softmax
    logsumexp max mean median min moveaxis norm prod quantile softmax sort std sum swapaxes topk transpose var vector_norm""".split()
)
_NUMPYS = {"axis": "dim", "keepdims": "keepdim", "x": "input"}


def one_of(dim: Any, axis: Any) -> Any:
    """Whichever is said. Raises TypeError where both are."""
    if dim is not None and axis is not None:
        raise TypeError("dim and axis are two words for one argument; one is enough")
    return axis if dim is None else dim


def of_number(f: Callable[..., Any], args: Sequence[Any], params: dict[str, Any]) -> Any:
    """f of numbers, each as one axis of one element, and of such results the number; of several quantiles of a number, one for each."""
    one = lambda v: md.reshape(v, (1,)) if isinstance(v, md.Tensor) and not v.ndim else v
    out = f(*map(one, args), **{k: one(v) for k, v in params.items()})
    if f.__name__.endswith("quantile"):
        return md.reshape(out, np.shape(args[1] if len(args) > 1 else params["q"]))
    return md.tree.map(lambda v: md.reshape(v, ()) if isinstance(v, md.Tensor) and v.shape == (1,) else v, out)


def is_number(args: Sequence[Any], params: dict[str, Any]) -> bool:
    """Whether the first argument is a tensor without axes."""
    first = args[0] if args else params.get("input")
    return isinstance(first, md.Tensor) and not first.ndim


def along(f: F) -> F:
    """f(input, dim, keepdim) by NumPy's words, too, and of a number. What fits pays nothing; what f refuses otherwise, it refuses in its own words.

    >>> md.tensor(2.0).cummax(0).indices.item(), md.tensor([[1, 3]]).mode(axis=1).values.tolist()
    (0, [1])
    """
    return _along(f, True)


def worded(f: F) -> F:
    """f(input, dim), by NumPy's word, too; PyTorch refuses a number here."""
    return _along(f, False)


def _along(f: F, numbers: bool) -> F:
    known = inspect.signature(f).parameters

    @functools.wraps(f)
    def function(*args: Any, **params: Any) -> Any:
        try:
            return f(*args, **params)
        except TypeError:
            other = {k if k in known else _NUMPYS.get(k, k): v for k, v in params.items()}
            if other.keys() == params.keys():
                raise
            if len(other) < len(params):
                raise TypeError(f"{f.__name__}: {', '.join(params)} have two words for one argument; one is enough") from None
        except IndexError:
            if not numbers or not is_number(args, params):
                raise
            return of_number(f, args, params)
        return function(*args, **other)

    return function  # type: ignore[return-value]
