"""What writes a graph as nodes of ONNX: values by name, constants, sizes that depend on the number of examples, programs inside programs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

import minidl as md


class Writer:
    """The nodes of one graph of the file, the outer one or one inside it.

    A value of the program is a name here. What is defined in an outer graph can be read in an inner one, by its name.
    """

    def __init__(self, onnx: Any, outer: Writer | None = None):
        self.onnx, self.outer = onnx, outer
        self.root: Writer = self if outer is None else outer.root
        self.nodes: list[Any] = []
        self.wanted: set[Any] = set()
        if outer is None:
            self.initializers: dict[str, Any] = {}
            self.known: dict[Any, str] = {}  # of small constants
            self.taken: set[str] = set()
            self.number = 0
        self.names: dict[Any, str] = {} if outer is None else dict(outer.names)
        self.sizes_known: dict[Any, str] = {} if outer is None else dict(outer.sizes_known)

    # ---- names and nodes --------------------------------------------------------------------------------------------------------------------
    def fresh(self, hint: str = "v") -> str:
        """A name that nothing has."""
        root = self.root
        while True:
            root.number += 1
            name = f"{hint}_{root.number}"
            if name not in root.taken:
                root.taken.add(name)
                return name

    def node(self, op: str, *inputs: str, outputs: int = 1, **attributes: Any) -> Any:
        """One operation of ONNX; the name of its result, or a list of several."""
        made = [self.fresh(op.lower()) for _ in range(outputs)]
        self.nodes.append(self.onnx.helper.make_node(op, list(inputs), made, **attributes))
        return made[0] if outputs == 1 else made

    def type(self, dtype: md.DType) -> int:
        """The number that ONNX has for a dtype."""
        return self.onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype.numpy))

    def cast(self, x: str, dtype: md.DType) -> str:
        """The value in another dtype."""
        return self.node("Cast", x, to=self.type(dtype))

    # ---- constants and sizes ----------------------------------------------------------------------------------------------------------------
    def constant(self, array: Any, name: str | None = None) -> str:
        """An array that the file holds; small ones once."""
        array, root = np.asarray(array), self.root
        key = (array.dtype.str, array.shape, array.tobytes()) if name is None and array.size <= 64 else None
        if key is None or key not in root.known:
            own = self.fresh("constant") if name is None else name
            root.taken.add(own)
            root.initializers[own] = self.onnx.numpy_helper.from_array(np.ascontiguousarray(array).reshape(array.shape), own)
            if key is None:
                return own
            root.known[key] = own
        return root.known[key]

    def scalar(self, value: Any, dtype: md.DType) -> str:
        """A number in a dtype; it may be a size."""
        if hasattr(value, "per"):
            return self.cast(self.node("Squeeze", self.sizes((value,))), dtype)
        return self.constant(np.asarray(value).astype(dtype.numpy))

    def ints(self, values: Iterable[int]) -> str:
        """Integers that are known beforehand."""
        return self.constant(np.array([int(v) for v in values], np.int64))

    def sizes(self, shape: Sequence[int], free: bool = False) -> str:
        """A shape as a value. free: the number of elements says what the one size is that depends on the examples, and -1 stands for it."""
        grown = [s for s in shape if hasattr(s, "per")]
        if not grown or (free and len(grown) == 1 and 0 not in shape):
            return self.ints(-1 if hasattr(s, "per") else s for s in shape)
        parts: list[str] = []
        fixed: list[int] = []
        for s in shape:
            if hasattr(s, "per"):
                parts += [self.ints(fixed)] * bool(fixed) + [self._size(s)]
                fixed = []
            else:
                fixed.append(s)
        parts += [self.ints(fixed)] * bool(fixed)
        return parts[0] if len(parts) == 1 else self.node("Concat", *parts, axis=0)

    def _size(self, s: Any) -> str:
        """per * n + rest, of shape [1]."""
        key = (s.per, s.rest)
        if key not in self.sizes_known:
            out = self.root.sizes_known[1, 0]
            out = out if s.per == 1 else self.node("Mul", out, self.ints([s.per]))
            self.sizes_known[key] = out if s.rest == 0 else self.node("Add", out, self.ints([s.rest]))
        return self.sizes_known[key]

    def count(self, shape: Iterable[int]) -> Any:
        """The product of some sizes, as a size. Raises ValueError for n * n, which is none."""
        shape = list(shape)
        grown: list[Any] = [s for s in shape if hasattr(s, "per")]
        fixed = math.prod(int(s) for s in shape if not hasattr(s, "per"))
        if not grown:
            return fixed
        if len(grown) > 1:
            raise ValueError(f"export_onnx: the program has a value of {grown[0]!r} times {grown[1]!r} parts; export it with dynamic_batch=False")
        return self._sized(type(grown[0]), fixed * int(grown[0]), fixed * grown[0].per, fixed * grown[0].rest)

    def difference(self, a: Any, b: Any) -> Any:
        """One size less another, as a size."""
        per = getattr(a, "per", 0) - getattr(b, "per", 0)
        rest = getattr(a, "rest", a) - getattr(b, "rest", b)
        return self._sized(type(a if hasattr(a, "per") else b), int(a) - int(b), per, rest) if per else rest

    def _sized(self, kind: Any, value: int, per: int, rest: int) -> Any:
        out = kind(value)
        out.per, out.rest = per, rest
        return out

    # ---- programs ---------------------------------------------------------------------------------------------------------------------------
    def write(self, graph: md.Graph, inputs: Sequence[str]) -> list[str]:
        """The nodes of a graph whose inputs have these names; returns the names of its outputs."""
        from minidl.deploy.onnx_operations import OPERATIONS

        graph = graph.expand(OPERATIONS)
        self.names.update(zip(graph.inputs, inputs, strict=True))
        before = self.wanted  # of the graph that this one stands in, where an operation writes it among its own nodes
        equations, self.wanted = _alive(graph)
        for e in equations:
            write = OPERATIONS.get(e.primitive.name)
            if write is None:
                where = f" ({e.where})" if e.where else ""
                raise NotImplementedError(
                    f"export_onnx: ONNX has no operation for {e.primitive.name}{where}; md.export writes any program as a Python file"
                )
            made = write(self, e, *map(self.read, e.inputs))
            made = [made] if isinstance(made, str) else made
            self.names.update(zip(e.outputs, made, strict=False))
        self.wanted = before
        return [self.read(a) for a in graph.outputs]

    def read(self, atom: Any) -> str:
        """The name of a variable, or of a number in the program."""
        return self.scalar(atom.value, atom.dtype) if hasattr(atom, "value") else self.names[atom]

    def inner(self, graph: md.Graph, inputs: Sequence[str], own: Sequence[Any], name: str, *, first: Sequence[Any] = (), ahead: Any = None) -> Any:
        """A graph as an attribute: its last inputs, the variables `own`, are the attribute's, after `first`; those before have the names `inputs`.

        ahead: a function of the writer and the names of the results that gives the name of a Boolean result to stand before these.
        """
        w, helper = Writer(self.onnx, self), self.onnx.helper
        inside = [w.fresh("inner") for _ in own]
        outs = w.write(graph, [*inputs, *inside])
        shapes = [(v.dtype, v.shape) for v in graph.outputs]
        if ahead is not None:
            outs, shapes = [ahead(w, outs), *outs], [(md.bool, ()), *shapes]
        outs = [w.node("Identity", o) for o in outs]  # an output is a value of this graph, and one of its own
        infos = [*first, *(w.info(n, v.dtype, v.shape) for n, v in zip(inside, own, strict=True))]
        return helper.make_graph(w.nodes, w.fresh(name), infos, [w.info(o, d, s) for o, (d, s) in zip(outs, shapes, strict=True)])

    def info(self, name: str, dtype: md.DType, shape: Sequence[int]) -> Any:
        """What a file says of an input or output."""
        return self.onnx.helper.make_tensor_value_info(name, self.type(dtype), [repr(s) if hasattr(s, "per") else int(s) for s in shape])


def _alive(graph: md.Graph) -> tuple[list[Any], set[Any]]:
    """The equations that an output depends on, and what these read."""
    wanted, out = set(graph.outputs), []
    for e in reversed(graph.equations):
        if wanted.intersection(e.outputs):
            out.append(e)
            wanted.update(e.inputs)
    return out[::-1], wanted
