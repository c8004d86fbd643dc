"""What is exported: a function's graph for example arguments, with a name for each argument and constant; what every form of a file starts from."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

import minidl as md
from minidl.deploy.freezing import Frozen, evaluating, unchanging


@dataclass
class Program:
    """args: the example arguments, a tuple. leaves: their arrays; paths: how each is reached, as text. result: the tree.Structure of the results.
    graph: its first inputs are the leaves, its last ones the constants, which have these names. larger: those for one and two examples more, if any.
    """

    args: tuple
    leaves: list[md.Tensor]
    paths: list[str]
    result: Any
    graph: md.Graph
    larger: list[md.Graph]
    names: list[str]

    def constants(self) -> dict[str, Any]:
        """The arrays of the constants, as NumPy has them."""
        return {n: md.asarray(c).detach().numpy() for n, c in zip(self.names, self.graph.captured, strict=True)}


def program(who: str, f: Callable[..., Any], args: Any, dynamic_batch: bool) -> Program:
    """Trace f for example arguments. Raises what export says, naming `who`."""
    evaluating(who, f)
    args = args if isinstance(args, tuple) else (args,)
    leaves, structure = md.tree.flatten(args)
    for x in leaves:
        if not isinstance(x, md.Tensor):
            raise TypeError(f"{who}: example arguments are tensors, and a {type(x).__name__} came; close over it, or pass md.asarray of it")
    if dynamic_batch and (not leaves or any(x.ndim == 0 or x.shape[0] != leaves[0].shape[0] for x in leaves)):
        raise ValueError(f"{who}: dynamic_batch wants arrays with one first axis, and {', '.join(str(x.shape) for x in leaves)} came")
    found: list[Any] = []

    def flat(*xs: md.Tensor) -> list[md.Tensor]:
        outs, out_structure = md.tree.flatten(f(*md.tree.unflatten(structure, xs)))
        found[:] = [out_structure]
        return outs

    def examples(n: int | None) -> list[md.Tensor]:  # new ones: one tensor may come as two arguments, or be a constant of the model as well
        shapes = [x.shape if n is None else (n, *x.shape[1:]) for x in leaves]
        return [md.zeros(s, dtype=x.dtype, backend=x.backend, device=x.device) for s, x in zip(shapes, leaves, strict=True)]

    batch = max(2, leaves[0].shape[0]) if dynamic_batch else 0  # not 1, which broadcasts, nor powers of 2, by which a mean does not divide
    while dynamic_batch and any(b & (b - 1) == 0 for b in range(batch, batch + 3)):
        batch += 1
    rows = [examples(batch + i) for i in range(3)] if dynamic_batch else [examples(None)]
    if isinstance(f, Frozen):
        (graph, *larger), result = f.graphs(structure, rows)
    else:
        with md.no_grad():
            graph, *larger = [unchanging(who, md.trace(flat)(*xs)) for xs in rows]
        result = found[0]
    if not graph.outputs:
        raise ValueError(f"{who}: the function returns no tensor")
    for other in larger:
        for a, b in zip(graph.captured, other.captured, strict=False):
            if a is not b and not _equal(a, b):
                what = f"{md.asarray(a).dtype.short}{list(md.asarray(a).shape)}"
                raise ValueError(f"{who}: the constant {what} depends on the number of examples; make it of an argument, or leave dynamic_batch out")
    paths = [p for i, a in enumerate(args) for p in _paths(who, a, "abcdefghijklmnopqrstuvwxyz"[i] if len(args) > 1 else "x")]
    names = _names(f, graph.captured, {t for t in paths if t.isidentifier()})
    return Program(args, leaves, paths, result, graph, larger, names)


def _equal(a: Any, b: Any) -> bool:
    one, other = (np.asarray(md.asarray(c).detach().numpy()) for c in (a, b))
    return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()


def _paths(who: str, tree: Any, text: str) -> Iterator[str]:
    """How each leaf of an argument is reached."""
    if isinstance(tree, md.Tensor):
        yield text
    elif isinstance(tree, dict):
        for k in sorted(tree):
            yield from _paths(who, tree[k], f"{text}[{k!r}]")
    elif type(tree) in (tuple, list):
        for i, v in enumerate(tree):
            yield from _paths(who, v, f"{text}[{i}]")
    elif tree is not None:
        raise TypeError(f"{who}: arguments are tensors in tuples, lists and dicts, and a {type(tree).__name__} came")


def identifier(name: str) -> str:
    """The name with underscores for what an identifier cannot have."""
    text = "".join(c if c.isalnum() else "_" for c in name)
    return text if len(text) > 2 and not text[0].isdigit() else f"c_{text}"


def _names(f: Any, captured: Any, taken: set[str]) -> list[str]:
    """A name for each constant: the state_dict's where the model has one, else c0, c1, …; different as identifiers, too."""
    known: dict[int, str] = {}
    for module in (f, getattr(f, "__self__", None), *(c.cell_contents for c in getattr(f, "__closure__", None) or ())):
        if hasattr(module, "named_parameters") and not isinstance(f, Frozen):
            for key, value in (*module.named_parameters(), *module.named_buffers()):
                known.setdefault(id(value), key)
    out: list[str] = []
    for i, c in enumerate(captured):
        name = known.get(id(c), f"c{i}")
        while identifier(name) in {*taken, *map(identifier, out)}:
            name += "_"
        out.append(name)
    return out
