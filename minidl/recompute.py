"""Large values that a later region makes again instead of reading them: less memory, and less of its traffic.

A forward region often hands several large values to the region of its backward pass, all of them elementwise functions of one that is shorter to
keep. Inside a fused loop such a function costs little, and storing it costs a pass over memory each way.

Promises: list of regions → list of regions that computes the same values with the same operations; random bits, reductions and whatever else is not
elementwise are never computed twice; a pair of regions is changed only if that keeps fewer bytes alive between them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from minidl.fusion import Region
from minidl.graph import Atom, Equation, Graph, Var

#: Equations that one region may take over from another.
MOST = 24


def recompute(items: Sequence[Equation | Region], graph: Graph, elementwise: Callable[[Equation], bool]) -> list[Equation | Region]:
    """The items with large values made again by the regions that read them, where that keeps fewer bytes alive."""
    out = list(items)
    outputs = {v for v in graph.outputs if isinstance(v, Var)}
    last: dict[Var, int] = {}
    readers: dict[Var, list[int]] = {}
    maker: dict[Var, int] = {}
    for i, item in enumerate(items):
        for v in dict.fromkeys(item.inputs):
            if isinstance(v, Var):
                last[v] = i
                readers.setdefault(v, []).append(i)
        maker.update((v, i) for v in item.outputs)
    forever = {*graph.inputs, *outputs}
    for i, b in enumerate(items):
        if not isinstance(b, Region):
            continue
        for k in sorted({maker[v] for v in b.inputs if v in maker}):
            a = items[k]
            if isinstance(a, Region) and a.shape == b.shape:
                again = _again(a, b, items, readers, outputs, elementwise)
                if again is None:
                    continue
                equations, dropped, kept = again
                if sum(v.nbytes for v in dropped) > sum(v.nbytes for v in kept if v not in forever and last.get(v, -1) < i):
                    out[i] = _with(out[i], equations, a)
                    last.update((v, max(i, last.get(v, i))) for v in kept)
                    for v in dropped:
                        readers[v].remove(i)
    return _pruned(out, outputs)


def _again(
    a: Region,
    b: Region,
    items: Sequence[Equation | Region],
    readers: dict[Var, list[int]],
    outputs: set[Var],
    elementwise: Callable[[Equation], bool],
) -> tuple[list[Equation], list[Var], list[Var]] | None:
    """(the equations that b takes over, the values of a that nobody has to keep for it, the values that are kept for it instead)."""
    made = {v: e for e in a.equations for v in e.outputs}

    def private(v: Var) -> bool:
        regions = [items[j] for j in readers[v]]
        return (
            v not in outputs and a.kind(v) == "FULL" and elementwise(made[v]) and all(isinstance(r, Region) and r.shape == a.shape for r in regions)
        )

    dropped = [v for v in b.inputs if v in made and private(v)]
    stored = set(a.outputs) - set(dropped)
    todo: list[Atom] = list(dropped)
    equations: dict[int, Equation] = {}
    position = {e: n for n, e in enumerate(a.equations)}
    kept: dict[Var, None] = {}
    while todo:
        v = todo.pop()
        if not isinstance(v, Var):
            continue
        e = made.get(v)
        if e is None or v in stored or a.kind(v) != "FULL":
            kept[v] = None
        elif not (elementwise(e) or e.primitive.name in ("full", "broadcast_to")) or len(equations) > MOST:
            return None
        elif position[e] not in equations:
            equations[position[e]] = e
            todo += e.inputs
    return ([equations[n] for n in sorted(equations)], dropped, list(kept)) if dropped else None


def _with(b: Equation | Region, equations: Sequence[Equation], a: Region) -> Region:
    """Region b with copies of equations of a before its own."""
    assert isinstance(b, Region)
    new: dict[Var, Var] = {}
    layout = dict(b.layout)

    def now(e: Equation) -> tuple[Atom, ...]:
        return tuple(new.get(x, x) if isinstance(x, Var) else x for x in e.inputs)

    copies = []
    for e in equations:
        layout.update((v, a.layout[v]) for v in e.inputs if isinstance(v, Var) and v not in new)
        inputs = now(e)
        new.update((v, Var(v.shape, v.dtype)) for v in e.outputs)
        layout.update((new[v], a.layout[v]) for v in e.outputs)
        copies.append(Equation(e.primitive, inputs, e.params, tuple(new[v] for v in e.outputs), e.where))
    copies += [Equation(e.primitive, now(e), e.params, e.outputs, e.where) for e in b.equations]
    return Region(copies, b.outputs, b.shape, b.rows, layout, b.terminal)


def _pruned(items: Sequence[Equation | Region], outputs: set[Var]) -> list[Equation | Region]:
    """Regions whose outputs are what is still read, without the equations that made nothing else."""
    read = outputs | {v for item in items for v in item.inputs if isinstance(v, Var)}
    out: list[Equation | Region] = []
    for item in reversed(items):
        if isinstance(item, Region):
            made = [v for e in item.equations for v in e.outputs]
            needed = {v for v in made if v in read}
            outs, equations = [v for v in made if v in needed], []
            for e in reversed(item.equations):
                if any(v in needed for v in e.outputs):
                    equations.append(e)
                    needed.update(v for v in e.inputs if isinstance(v, Var))
            item = Region(equations[::-1], outs, item.shape, item.rows, item.layout, item.terminal)
        out.append(item)
    return out[::-1]
