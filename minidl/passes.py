"""Graph passes: checking, dead code, common subexpressions, constant folding, simplification, peak memory.

Promises: a pass never changes a value convention: only rewrites that hold for every element are made, nan, infinities and signed zeros included.
"""

from __future__ import annotations

from typing import Any

from minidl.graph import Atom, Equation, Graph, Literal, Var, describe, last_uses, subgraphs
from minidl.primitives.core import Primitive, table


def check(graph: Graph) -> None:
    """Raise AssertionError where an equation reads what is not defined yet, or states a shape or dtype that its primitive's rule contradicts."""
    known: set[Var] = set(graph.inputs)
    for i, e in enumerate(graph.equations):
        for a in e.inputs:
            if isinstance(a, Var) and a not in known:
                raise AssertionError(f"equation {i} ({e.primitive.name}) reads a variable before its definition")
        found = e.primitive.infer(*e.inputs, **e.params)
        for v, (shape, dtype) in zip(e.outputs, found if e.primitive.multiple else (found,), strict=True):
            if tuple(shape) != v.shape or dtype is not v.dtype:
                raise AssertionError(f"equation {i} ({e.primitive.name}) states {describe(v)}, its rule says {describe(Var(tuple(shape), dtype))}")
            if v in known:
                raise AssertionError(f"equation {i} ({e.primitive.name}) assigns a variable twice")
            known.add(v)
        for inner in subgraphs(e.params):
            check(inner)
    for a in graph.outputs:
        if isinstance(a, Var) and a not in known:
            raise AssertionError("the graph returns a variable that nothing defines")


def dead_code(graph: Graph) -> Graph:
    """Without the equations that no output needs."""
    needed = {v for v in graph.outputs if isinstance(v, Var)}
    keep = []
    for e in reversed(graph.equations):
        if any(v in needed for v in e.outputs):
            keep.append(e)
            needed.update(a for a in e.inputs if isinstance(a, Var))
    return Graph(graph.inputs, keep[::-1], graph.outputs, graph.name)


def _key(value: Any) -> Any:
    if isinstance(value, (bool, float, complex)):
        return repr(value)  # tells the zeros apart, and True from 1; nan is equal to itself
    if isinstance(value, tuple):
        return tuple(_key(v) for v in value)
    return value if not isinstance(value, Graph) else id(value)


def _identity(e: Equation) -> Atom | None:
    """The operand that an equation returns unchanged, if its form says so."""
    x, p, name = (e.inputs[0] if e.inputs else None), e.params, e.primitive.name
    if x is None:
        return None
    if name == "cast" and p["dtype"] is x.dtype:
        return x
    if name in ("reshape", "broadcast_to") and p["shape"] == x.shape:
        return x
    if name == "permute" and p["axes"] == tuple(range(len(x.shape))):
        return x
    if name == "slice" and e.outputs[0].shape == x.shape and all(s == 1 for s in p["step"]):
        return x
    if name == "sum" and not p["axis"]:
        return x
    if len(e.inputs) == 2 and isinstance(e.inputs[1], Literal) and x.shape == e.outputs[0].shape:
        value = e.inputs[1].value
        if (name in ("mul", "div") and value == 1) or (name == "sub" and repr(value) in ("0.0", "0")):
            return x
    if name == "mul" and isinstance(x, Literal) and x.value == 1 and e.inputs[1].shape == e.outputs[0].shape:
        return e.inputs[1]
    return None


def _chain(e: Equation, made: dict[Var, Equation], primitive: Primitive) -> Equation | None:
    """reshape of reshape, permute of permute, neg of neg."""
    x = e.inputs[0]
    before = made.get(x) if isinstance(x, Var) else None
    if before is None or before.primitive is not primitive:
        return None
    if primitive.name == "reshape":
        return Equation(primitive, before.inputs, e.params, e.outputs, e.where)
    if primitive.name == "permute":
        inner = before.params["axes"]
        return Equation(primitive, before.inputs, {"axes": tuple(inner[a] for a in e.params["axes"])}, e.outputs, e.where)
    return None


#: What every backend computes alike to the last bit, so that it may be computed while tracing.
_EXACT = frozenset("add sub mul div neg abs eq ne lt le gt ge logical_and logical_or logical_not where".split())


def _folded(e: Equation) -> Literal | None:
    """The constant that an equation of constants makes."""
    if e.primitive.name not in _EXACT or not all(isinstance(a, Literal) for a in e.inputs):
        return None
    from minidl.backends import get

    xp, (out,) = get("numpy", "cpu"), e.outputs
    with xp.scope():
        value = getattr(xp, e.primitive.name)(*(xp.scalar(a.value, a.dtype) for a in e.inputs), **e.params)  # type: ignore[union-attr]
        return Literal(xp.to_numpy(value).item(), out.dtype)


def _settled(e: Equation, made: dict[Var, Equation]) -> Equation | Atom | None:
    """A logical operation that one constant decides becomes that constant, or the other operand; a choice by a constant the chosen operand."""
    name, (out, *_) = e.primitive.name, e.outputs

    def constant(a: Atom) -> Any:
        if isinstance(a, Literal):
            return a.value
        before = made.get(a)
        return before.params["value"] if before is not None and before.primitive.name == "full" else None

    if name in ("logical_and", "logical_or"):
        values, decisive = [constant(a) for a in e.inputs], name == "logical_or"
        if decisive in values:
            return Equation(table["full"], (), {"shape": out.shape, "value": decisive, "dtype": out.dtype}, e.outputs, e.where)
        for value, other in zip(values, reversed(e.inputs), strict=True):
            if value is not None and other.shape == out.shape:
                return other
    if name == "where" and (value := constant(e.inputs[0])) is not None:
        chosen = e.inputs[1 if value else 2]
        if chosen.shape == out.shape:
            return chosen
    return None


def simplify(graph: Graph) -> Graph:
    """Constant folding, common subexpressions, operations that change nothing and chains of rearrangements, then dead code; one pass in order."""
    new: dict[Var, Atom] = {}
    seen: dict[Any, tuple[Var, ...]] = {}
    made: dict[Var, Equation] = {}
    equations = []

    def now(a: Atom) -> Atom:
        return new.get(a, a) if isinstance(a, Var) else a

    for e in graph.equations:
        e = Equation(e.primitive, tuple(now(a) for a in e.inputs), e.params, e.outputs, e.where)
        if e.primitive.name in ("reshape", "permute"):
            e = _chain(e, made, e.primitive) or e
        settled = _settled(e, made)
        if isinstance(settled, Equation):
            e, settled = settled, None
        same = settled or _identity(e) or _folded(e)
        if same is not None:
            new[e.outputs[0]] = same
            continue
        if e.primitive.name == "neg" and isinstance(e.inputs[0], Var) and e.inputs[0] in made and made[e.inputs[0]].primitive is e.primitive:
            new[e.outputs[0]] = made[e.inputs[0]].inputs[0]
            continue
        inputs = tuple(id(a) if isinstance(a, Var) else a.key() for a in e.inputs)
        key = (e.primitive.name, inputs, tuple((k, _key(v)) for k, v in e.params.items()))
        if key in seen:
            new.update(zip(e.outputs, seen[key], strict=True))
            continue
        seen[key] = e.outputs
        made.update((v, e) for v in e.outputs)
        equations.append(e)
    return dead_code(Graph(graph.inputs, equations, [now(a) for a in graph.outputs], graph.name))


def peak_memory(graph: Graph) -> int:
    """Estimated peak of live bytes: inputs live throughout, other values from their equation to their last use."""
    last = last_uses(graph)
    inputs = set(graph.inputs)
    live = peak = sum(v.nbytes for v in graph.inputs)
    for i, e in enumerate(graph.equations):
        live += sum(v.nbytes for v in e.outputs)
        inner = max((peak_memory(g) for g in subgraphs(e.params)), default=0)
        peak = max(peak, live + inner)
        live -= sum(v.nbytes for v in last.get(i, ()) if v not in inputs)
    return peak
