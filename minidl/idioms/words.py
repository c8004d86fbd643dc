"""PyTorch's words for parameters of minidl's functions, and what they mean where that is more than another word.

`x.max(dim=0)` and `x.max(0, keepdim=True)` have values and places, `x.nonzero(as_tuple=False)` is a matrix, `x.std(dim=0)` a correction of 1,
`md.ones(2, requires_grad=True)` wants a gradient.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import minidl as md
from minidl.idioms.numbers import ALONG, NUMPYS, is_number, of_number, whole
from minidl.idioms.shaping import axis_of, with_places

#: PyTorch's words for parameters, and those that functions may have for them; NumPy's, which some functions of nn have not.
_WORDS = {
    "dim": ("axis", "axes"), "dims": ("axis", "axes"), "keepdim": ("keepdims",), "shifts": ("shift",), "diagonal": ("k",), "steps": ("num",),
    "start_dim": ("start_axis",), "end_dim": ("end_axis",), "dim1": ("axis1",), "dim2": ("axis2",), "p": ("ord",),
    "split_size_or_sections": ("sizes",), "split_size": ("sizes",), "interpolation": ("method",), **NUMPYS,
}  # fmt: skip
_MEANINGS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "unbiased": ("correction", float), "ddof": ("correction", float), "right": ("side", lambda right: "right" if right else "left"),
}  # fmt: skip
_PAIRS = frozenset(("max", "min", "sort", "median"))  # along the axis that the word `dim` says


def matrix_of(input: md.Tensor) -> md.Tensor:
    """The places of what is not 0, one a row: PyTorch's nonzero; a 0-d tensor's places have no numbers."""
    if input.ndim:
        return md.stack(md.nonzero(input), axis=-1)
    return md.zeros((len(md.nonzero(md.reshape(input, (1,)))[0]), 0), dtype=md.int64, backend=input.backend, device=input.device)


def squeezed(input: md.Tensor, dim: Any) -> md.Tensor:
    """PyTorch's squeeze: without the axes of size 1, all of them or those that are named; of another size they stay."""
    named = range(input.ndim) if dim is None else (dim,) if isinstance(dim, int) else dim
    axes = {axis_of("squeeze", input, a) for a in named} if input.ndim else ()
    return md.squeeze(input, axis=tuple(a for a in axes if input.shape[a] == 1))


def respelled(f: Any, args: Sequence[Any], params: dict[str, Any]) -> Callable[[], Any] | None:
    """The call of f that these arguments mean, where a word of PyTorch's is among them that f does not have itself; else None. Raises TypeError where
    two words are for one argument."""
    params = {k: whole(f.__name__, v) if k in ("dim", "dims") else v for k, v in params.items()}
    if "dim" in params and f.__name__ in ALONG and is_number(args, params):
        return lambda: of_number(f, args, params)
    known, given = f.parameters or tuple(inspect.signature(f).parameters), params
    params = {k: v for k, v in given.items() if v is not None or k in known or k not in ("out", "dtype")}  # np.sum(x) is x.sum(out=None, dtype=None)
    if f.__name__ == "positive" or f.__name__.endswith("_like"):  # x.clone(memory_format=md.preserve_format): a backend chooses
        params.pop("memory_format", None)
    if "reduction" in known and not params.keys().isdisjoint(("size_average", "reduce")):
        from minidl.nn.losses import reduction_of  # loaded before a loss is called

        params = reduction_of(params)
    other = {k if k in known else next((w for w in _WORDS.get(k, ()) if w in known), k): v for k, v in params.items()}
    for word, (own_word, meaning) in _MEANINGS.items():
        if word in other and own_word in known:
            other[own_word] = meaning(other.pop(word))
    if len(other) < len(params):
        raise TypeError(f"{f.__name__}: {', '.join(params)} have two words for one argument; one is enough")
    if "correction" in known and params.keys().isdisjoint(("correction", "unbiased", "ddof")) and ("dim" in params or "keepdim" in params):
        other["correction"] = 1
    if f.__name__ == "nonzero" and params.keys() == {"as_tuple"}:
        return lambda: f(args[0] if args[0].ndim else md.reshape(args[0], (1,))) if params["as_tuple"] else matrix_of(*args)
    tracked = "requires_grad" not in known and "backend" in known and other.pop("requires_grad", False)
    if other == given:
        return None
    if f.__module__.startswith(("minidl.ops", "minidl.arrays")):
        if f.__name__ == "squeeze" and params.keys() == {"dim"} and len(args) == 1:
            return lambda: squeezed(args[0], params["dim"])
        if f.__name__ in _PAIRS and "keepdim" in params and len(args) == 2:  # x.max(1, keepdim=True)
            args, other = args[:1], {"axis": args[1], **other}
        if f.__name__ in _PAIRS and not params.keys().isdisjoint(("dim", "keepdim")) and isinstance(other.get("axis"), int):
            return lambda: with_places(f, args, other)
    return (lambda: f(*args, **other).requires_grad_()) if tracked else lambda: f(*args, **other)
