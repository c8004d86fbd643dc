"""Large values that a later region makes again instead of reading them: less memory, and less of its traffic.

A forward region often hands several large values to the backward pass, all of them elementwise functions of one that is shorter to keep. Inside a
fused loop such a function costs little, and storing it costs a pass over memory each way. The region of the backward pass makes again what it reads
itself; and what an equation beside it reads that is in no region (a product for the gradient of a weight), it makes as one more output.

Promises: list of regions → list of regions that computes the same values with the same operations; random bits, reductions and whatever else is not
elementwise are never computed twice; a pair of regions is changed only if that keeps fewer bytes alive between them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from minidl.fusion import Region, demanded, places
from minidl.graph import Atom, Equation, Graph, Var
from minidl.passes.rewriting import key

Item = Equation | Region
#: Equations that one region may take over from another; how far from a region, in items, an equation may stand for which it makes a value.
MOST, NEAR = 32, 8


def recompute(items: Sequence[Item], graph: Graph, elementwise: Callable[[Equation], bool]) -> list[Item]:
    """The items with large values made again where they are read late and that keeps fewer bytes alive; in an order in which they can run."""
    work = _Work(items, graph, elementwise)
    for i, b in enumerate(items):
        if isinstance(b, Region):
            for k in work.related(i):
                work.moved(k, i)
    if not work.changed:
        return list(items)
    out = _pruned(work.items, work.outputs)
    maker = {v: item for item in out for v in item.outputs}
    return demanded(out, lambda item: [maker[v] for v in _reads(item) if v in maker])


def _reads(item: Item) -> list[Var]:
    return [v for v in item.inputs if isinstance(v, Var)]


def products(items: Sequence[Item], graph: Graph, fits: Callable[[Region], bool]) -> dict[Var, Equation]:
    """Matrix products that only one region reads (a gradient, and the update by it), larger than their operands: the region can make some rows of
    them at a time, and they never exist as a whole. fits: whether a region goes over its rows so."""
    readers: dict[Var, list[Item]] = {}
    for item in items:
        for v in dict.fromkeys(_reads(item)):
            readers.setdefault(v, []).append(item)
    found: dict[Var, Equation] = {}
    for item in items:
        if not isinstance(item, Equation) or item.primitive.name != "dot_general" or item.outputs[0] in graph.outputs:
            continue
        (x, y), (out,), p = item.inputs, item.outputs, item.params
        region = readers[out][0] if len(readers.get(out, ())) == 1 else None
        if not isinstance(region, Region) or not (isinstance(x, Var) and isinstance(y, Var)) or out.dtype.name not in ("float32", "float64"):
            continue
        plain = len(x.shape) == len(y.shape) == 2 and len(p["contract"][0]) == 1 and not p["batch"][0]
        if plain and region.shape == out.shape and x.nbytes + y.nbytes <= out.nbytes and fits(region):
            found[out] = item
    return found


class _Work:
    """The items while they are changed: each keeps its number."""

    def __init__(self, items: Sequence[Item], graph: Graph, elementwise: Callable[[Equation], bool]):
        self.items, self.first, self.elementwise = list(items), list(items), elementwise
        self.outputs = {v for v in graph.outputs if isinstance(v, Var)}
        self.forever = {*graph.inputs, *self.outputs}
        self.maker: dict[Var, int] = {}
        self.readers: dict[Var, list[int]] = {}
        self.last: dict[Var, int] = {}
        self.changed = False
        for i, item in enumerate(items):
            self.maker.update((v, i) for v in item.outputs)
            for v in dict.fromkeys(_reads(item)):
                self.readers.setdefault(v, []).append(i)
                self.last[v] = i

    def related(self, i: int) -> list[int]:
        """The earlier regions of the same shape that make something which this one reads, or read it, too; the nearest first."""
        found: set[int] = set()
        for v in _reads(self.items[i]):
            found.update(k for k in (self.maker.get(v, i), *self.readers.get(v, ())) if k < i)
        shape = self.first[i].shape  # type: ignore[union-attr]
        return sorted((k for k in found if isinstance(r := self.first[k], Region) and r.shape == shape), reverse=True)

    def before(self, *start: int) -> set[int]:
        """These items and all that they wait for."""
        found, stack = set(start), list(start)
        while stack:
            new = {self.maker[v] for v in _reads(self.items[stack.pop()]) if v in self.maker} - found
            found |= new
            stack += new
        return found

    def moved(self, k: int, i: int) -> None:
        """Let region i make again what it, or what stands beside it, reads of region k, if that keeps fewer bytes alive."""
        a = self.first[k]
        assert isinstance(a, Region)
        own = set(_reads(self.items[i]))
        made = {v: e for e in a.equations for v in e.outputs}
        can = [v for v in a.outputs if v not in self.outputs and a.kind(v) == "FULL" and self.elementwise(made[v]) and self.readers.get(v)]
        beside = {v: [r for r in self.readers[v] if r != i and abs(r - i) <= NEAR and not isinstance(self.first[r], Region)] for v in can}
        can = [v for v in can if v in own or beside[v]]
        if not can:
            return
        if self.changed and i in self.before(k):  # which waits by now for what i makes
            return
        if any(beside.values()):
            waits = self.before(i, k)
            beside = {v: [r for r in found if r not in waits] for v, found in beside.items()}
        dropped, equations, kept = self._best(a, i, [v for v in can if self._free(v, a, i, beside[v], own)])
        if not dropped:
            return
        self.changed = True
        new = _With(self.items[i], equations, a, [v for v in dropped if beside[v]])
        self.items[i] = new.region
        for v in kept:
            self.last[v] = max(i, self.last.get(v, i))
            self.readers.setdefault(v, []).append(i)
            if v in made:
                self.maker[v] = k
        for v in dropped:
            self.readers[v] = [r for r in self.readers[v] if r != i and r not in beside[v]]
            self.last[v] = max(self.readers[v], default=k)
            for r in beside[v]:
                e = self.items[r]
                inputs = tuple(new.now(x) if x is v else x for x in e.inputs)
                self.items[r] = Equation(e.primitive, inputs, e.params, e.outputs, e.where)  # type: ignore[union-attr]
                self.readers.setdefault(new.now(v), []).append(r)  # type: ignore[arg-type]
            self.maker[new.now(v)] = i  # type: ignore[index]

    def _free(self, v: Var, a: Region, i: int, beside: Sequence[int], own: set[Var]) -> bool:
        """Whether a value is dead well before region i once that makes it again: others read it before, or can make it again as well."""
        rest = [r for r in self.readers[v] if r != i and r not in beside]
        if not beside and v not in own:
            return False
        late = [r for r in rest if not (isinstance(q := self.first[r], Region) and q.shape == a.shape)]
        return max(late, default=-1) < i - (NEAR if late else 0)

    def _best(self, a: Region, i: int, can: list[Var]) -> tuple[list[Var], list[Equation], list[Var]]:
        """(the values that are made again, the equations that do so, the values that are kept for them): all that can be made, less what adds
        nothing to the bytes that are saved."""

        def gain(found: tuple[list[Equation], list[Var]] | None, dropped: Sequence[Var]) -> int:
            if found is None:
                return 0
            kept = [v for v in found[1] if v not in self.forever and self.last.get(v, -1) < i]
            return sum(v.nbytes for v in dropped) - sum(v.nbytes for v in kept)

        chosen = [v for v in can if self._again(a, [v]) is not None]
        found = self._again(a, chosen)
        for v in list(chosen):
            less = [w for w in chosen if w is not v]
            fewer = self._again(a, less)
            if found is None or gain(fewer, less) >= gain(found, chosen):
                chosen, found = less, fewer
        return (chosen, *found) if found is not None and chosen and gain(found, chosen) > 0 else ([], [], [])

    def _again(self, a: Region, wanted: Sequence[Var]) -> tuple[list[Equation], list[Var]] | None:
        """The equations that make these values of a region, and what they start from; None where that is too much, or not elementwise."""
        made = {v: e for e in a.equations for v in e.outputs}
        stored = set(a.outputs) - set(wanted)
        position = {e: n for n, e in enumerate(a.equations)}
        todo: list[Atom] = list(wanted)
        equations: dict[int, Equation] = {}
        kept: dict[Var, None] = {}
        while todo:
            v = todo.pop()
            if not isinstance(v, Var):
                continue
            e = made.get(v)
            if e is None or v in stored or a.kind(v) != "FULL":
                kept[v] = None
            elif not (self.elementwise(e) or e.primitive.name in ("full", "broadcast_to")) or len(equations) > MOST:
                return None
            elif position[e] not in equations:
                equations[position[e]] = e
                todo += e.inputs
        return [equations[n] for n in sorted(equations)], list(kept)


class _With:
    """A region with copies of equations of another one, a, before its own; `now` says what stands for a's values in it. shown: values of a that
    somebody outside reads of it."""

    def __init__(self, b: Item, equations: Sequence[Equation], a: Region, shown: Sequence[Var]):
        assert isinstance(b, Region)
        self.new: dict[Var, Var] = {}
        layout, body, copies, seen = dict(b.layout), [], set(equations), dict[Any, tuple[Var, ...]]()
        for e in (*equations, *b.equations):
            copied = e in copies
            inputs = tuple(map(self.now, e.inputs))
            layout.update((v, a.layout[v]) for v in inputs if isinstance(v, Var) and v not in layout)
            name = (places(e, a.layout if copied else layout), key(e.primitive, inputs, e.params))
            # a row's statistic stays, whatever equals it: a later region may keep it, by its name in the region as it was at first
            if name in seen and (copied or (b.kind(e.outputs[0]) == "FULL" and not any(v in b.outputs for v in e.outputs))):
                self.new.update(zip(e.outputs, seen[name], strict=True))
                continue
            outputs = tuple(Var(v.shape, v.dtype) for v in e.outputs) if copied else e.outputs
            if copied:
                layout.update(zip(outputs, (a.layout[v] for v in e.outputs), strict=True))
                self.new.update(zip(e.outputs, outputs, strict=True))
            seen[name] = outputs
            body.append(Equation(e.primitive, inputs, e.params, outputs, e.where))
        self.region = Region(body, [*b.outputs, *(self.new[v] for v in shown)], b.shape, b.rows, layout, b.terminal)

    def now(self, x: Atom) -> Atom:
        """What a value of the two regions is in the new one."""
        return self.new.get(x, x) if isinstance(x, Var) else x


def _pruned(items: Sequence[Item], outputs: set[Var]) -> list[Item]:
    """Regions whose outputs are what is still read, without the equations that made nothing else."""
    read = outputs | {v for item in items for v in _reads(item)}
    out: list[Item] = []
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
