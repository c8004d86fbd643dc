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
#: NumPy's words for parameters, and PyTorch's for the same.
NUMPYS: dict[str, tuple[str, ...]] = {"axis": ("dim", "dims"), "axes": ("dim", "dims"), "keepdims": ("keepdim",), "x": ("input",)}
#: Functions of md that PyTorch takes over all axes where its dim names none; `all` and `any` take none then, and others refuse.
_WHOLE = frozenset("amax amin count_nonzero logsumexp mean norm roll std sum var vector_norm".split())


def one_of(dim: Any, axis: Any) -> Any:
    """Whichever is said. Raises TypeError where both are."""
    if dim is not None and axis is not None:
        raise TypeError("dim and axis are two words for one argument; one is enough")
    return axis if dim is None else dim


def whole(f: str, dim: Any) -> Any:
    """The axis that PyTorch's dim means to a function of md of this name: None, all of them, where it names none."""
    return None if dim.__class__ in (tuple, list) and not dim and f in _WHOLE else tuple(dim) if isinstance(dim, list) else dim


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


def word_all(space: dict[str, Any], names: Sequence[str]) -> None:
    """Let the functions of these names in a module's namespace that have a dim be called by NumPy's word, too; numbers are refused as by PyTorch."""
    for name in names:
        code = getattr(space[name], "__code__", None)
        if code and not hasattr(space[name], "__wrapped__") and {"dim", "dims"} & {*code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]}:
            space[name] = _along(space[name], False)


def _along(f: F, numbers: bool) -> F:
    @functools.wraps(f)
    def function(*args: Any, **params: Any) -> Any:
        try:
            return f(*args, **params)
        except TypeError:
            known = inspect.signature(f).parameters
            other = {k if k in known else next((w for w in NUMPYS.get(k, ()) if w in known), k): v for k, v in params.items()}
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
