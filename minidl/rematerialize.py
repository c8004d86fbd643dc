"""Rematerialisation by budget: values that wait long for their next use are dropped and computed again, until a program's peak memory fits.

At the peak, the values that cross it (made before, read after) are needed; each is either held or computed again from values that are. What to hold
is a minimum cut weighted by bytes between what is there anyway (inputs, results that left already) and what is needed, as H. He and S. Yu do at the
border between forward and backward pass (min-cut rematerialization in functorch and AOTAutograd, PyTorch 2022); products, convolutions, loops and
random bits are computed again only if the budget asks for it. Here no border is known: the peak takes its place, and is looked for again after each
step. One cut for everything would bring all values back at once, so the program before the peak is cut into stretches, each with a cut of its own,
held at its beginning (T. Chen et al., Training deep nets with sublinear memory cost, 2016); as many are recomputed as the budget asks for, those that
free most bytes for least work first. A stretch is computed again just before its first use, behind barriers.

Promises: graph → graph; only copies of equations are added, which read the same values, so results are the same to the bit where a backend computes
each equation by itself (where it fuses some, it may add floats up in another order). Random bits are copied with their keys, and are the same.
"""

from __future__ import annotations

import itertools
import math
import re
import warnings
from collections import deque
from collections.abc import Iterable

from minidl import Graph
from minidl.extend import Equation, Literal, Var, dead_code, lifetimes, memory, subgraphs, table

Atom = Var | Literal

_ROUNDS = 16
_STRETCHES = (32, 16, 8, 4, 2, 1)
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "ki": 2**10, "mi": 2**20, "gi": 2**30}
#: What costs little more than reading and writing its arrays, besides the elementwise functions.
_CHEAP = frozenset(
    "full iota reshape permute broadcast_to barrier slice unslice flip pad concat tril triu gather take_along sum prod max min any all softmax"
    " log_softmax logsumexp".split()
)


class MemoryBudgetWarning(UserWarning):
    """A memory budget could not be met."""


def rematerialize(graph: Graph, most: float | int | str) -> Graph:
    """The graph with a lower estimated peak of memory above its inputs, for more time.

    most: a fraction of the peak as it is (0.5), a number of bytes, or a text such as "500MB" or "1.5GiB". Warns with MemoryBudgetWarning, which
    says what was reached, where the budget cannot be met. Raises ValueError for a budget of another form.

    >>> import minidl as md
    >>> graph = md.trace(md.grad(lambda x: md.sum(md.sin(md.sin(md.sin(md.sin(md.sin(md.sin(x)))))))))(md.ones((1000,)))
    >>> max(memory(rematerialize(graph, 0.8))) <= 0.8 * max(memory(graph))
    True
    """
    graph, peak = dead_code(graph), _peak(graph)
    limit = budget(most, peak)
    for _ in range(_ROUNDS):
        now = _peak(graph)
        if now <= limit:
            return graph
        less = _relieved(graph, limit)
        if _peak(less) >= now:
            break
        graph = less
    if (now := _peak(graph)) > limit:
        warnings.warn(
            f"memory: {most!r} asks for {limit:,} bytes above the inputs; {now:,} were reached (from {peak:,}), because the rest is results, or"
            " needed all at once; a smaller batch, or md.checkpoint around larger parts, may help",
            MemoryBudgetWarning,
            stacklevel=2,
        )
    return graph


def _peak(graph: Graph) -> int:
    return max(memory(graph), default=0)


def budget(most: float | int | str, peak: int) -> int:
    """The bytes that a budget allows for a program with this peak. Raises ValueError for what is no budget.

    >>> budget(0.5, 1000), budget("1.5 kB", 1000), budget(300, 1000)
    (500, 1500, 300)
    """
    if isinstance(most, float) and 0 < most <= 1:
        return int(most * peak)
    if isinstance(most, int) and not isinstance(most, bool) and most > 0:
        return most
    found = re.fullmatch(r"\s*(\d+(?:\.\d*)?)\s*([kmg]i?)?b\s*", most.lower()) if isinstance(most, str) else None
    if found is None:
        raise ValueError(f"memory: a fraction such as 0.5, a number of bytes or a text such as '500MB' is wanted, not {most!r}")
    return int(float(found[1]) * _UNITS[found[2] or ""])


def _cheap(e: Equation) -> bool:
    return e.primitive.name in _CHEAP or (e.primitive.elementwise and not e.primitive.multiple)  # random bits have several results


def _work(e: Equation) -> float:
    """A rough time to compute an equation, in elements moved."""
    size, name = math.prod, e.primitive.name
    moved = sum(size(a.shape) for a in (*e.inputs, *e.outputs))
    if name == "dot_general":
        return moved + size(e.outputs[0].shape) * size(e.inputs[0].shape[a] for a in e.params["contract"][0]) / 4
    if name in ("conv", "conv_dx", "conv_dw"):
        g = {"conv": e.outputs[0], "conv_dx": e.inputs[0], "conv_dw": e.inputs[1]}[name]
        w = e.outputs[0].shape if name == "conv_dw" else e.inputs[1].shape
        return moved + size(g.shape) * size(w[1:]) / 4
    inner = sum(_work(b) for g in subgraphs(e.params) for b in g.equations)
    return moved * (1 if name in _CHEAP else 2 if _cheap(e) else 20) + inner * e.params.get("length", 1)


class _Peak:
    """A program at its peak: what was made before, and what of it is read after."""

    def __init__(self, graph: Graph):
        usage = memory(graph)
        self.graph, self.at = graph, usage.index(max(usage))
        self.root, last = lifetimes(graph)
        end = len(graph.equations)
        self.free = {v for v, i in last.items() if i == end and self.root[v] is v}  # alive to the end in any case
        self.born = {v: i for i, e in enumerate(graph.equations) for v in e.outputs}
        needed = {a for e in graph.equations[self.at + 1 :] for a in e.inputs if isinstance(a, Var)}
        self.needed = sorted((v for v in needed if self.born.get(v, end) < self.at and self.root[v] not in self.free), key=self.born.__getitem__)

    def stretches(self, n: int) -> list[list[Var]]:
        """What is needed, in n groups of about the same bytes."""
        total = sum(v.nbytes for v in self.needed) or 1
        groups: dict[int, list[Var]] = {}
        done = 0
        for v in self.needed:
            groups.setdefault(done * n // total, []).append(v)
            done += v.nbytes
        return list(groups.values())

    def recomputed(self, wanted: list[Var], held: set[Var], anything: bool) -> tuple[set[Var], set[Var]]:
        """What is computed again for the wanted values, and the roots that are held to that end: a minimum cut."""
        first = min(self.born[v] for v in wanted)
        inside: set[Var] = set()
        stack = list(wanted)
        cut = _Cut()
        while stack:
            v = stack.pop()
            if v in inside:
                continue
            inside.add(v)
            root = self.root[v]
            there = root in self.free or root in held
            cut.edge((v, 0), (v, 1), 0 if there else root.nbytes)
            e = self.graph.equations[self.born[v]] if v in self.born else None
            if there or e is None or self.born[v] < first or not (anything or _cheap(e)):
                cut.edge(None, (v, 0), math.inf)
                continue
            for a in e.inputs:
                if isinstance(a, Var):
                    cut.edge((a, 1), (v, 0), math.inf)
                    stack.append(a)
        for v in wanted:
            cut.edge((v, 1), _END, math.inf)
        near = cut.side()
        again = {v for v in inside if (v, 0) not in near}
        return again, {self.root[v] for v in inside if (v, 0) in near and (v, 1) not in near} - self.free


_END = "end"


class _Cut:
    """The minimum cut of a small network, by augmenting paths (J. Edmonds and R. Karp, JACM 1972)."""

    def __init__(self) -> None:
        self.rest: dict[object, dict[object, float]] = {None: {}, _END: {}}

    def edge(self, a: object, b: object, capacity: float) -> None:
        ahead = self.rest.setdefault(a, {})
        ahead[b] = ahead.get(b, 0) + capacity
        self.rest.setdefault(b, {}).setdefault(a, 0)

    def side(self) -> set[object]:
        """The nodes on the source's side."""
        while True:
            before: dict[object, object] = {None: None}
            queue: deque[object] = deque([None])
            while queue and _END not in before:
                a = queue.popleft()
                for c, room in self.rest[a].items():
                    if room > 0 and c not in before:
                        before[c] = a
                        queue.append(c)
            if _END not in before:
                return set(before)
            path: list[tuple[object, object]] = []
            b: object = _END
            while b is not None:
                path.append((before[b], b))
                b = before[b]
            flow = min(self.rest[a][b] for a, b in path)
            for a, b in path:
                self.rest[a][b] -= flow
                self.rest[b][a] += flow


def _relieved(graph: Graph, limit: int) -> Graph:
    """The graph with less alive at its peak: enough, for the least work found; or as little as was found."""
    peak = _Peak(graph)
    best: tuple[tuple[bool, float, float], Graph] = ((True, _peak(graph), 0.0), graph)
    for anything, n in itertools.product((False, True), _STRETCHES):
        held: set[Var] = set()
        choices = []
        for wanted in reversed(peak.stretches(n)):  # what a later one holds, those before need not make again
            again, more = peak.recomputed(wanted, held, anything)
            freed = {peak.root[v] for v in wanted if v in again} - {peak.root[v] for v in wanted if v not in again} - more
            if freed:
                held |= more
                work = sum(_work(e) for e in {id(e): e for v in again for e in [graph.equations[peak.born[v]]]}.values())
                choices.append((sum(v.nbytes for v in freed) / (work + 1), work, again))
        choices.sort(key=lambda c: -c[0])
        low, high = 1, len(choices)
        while low <= high:  # the fewest that are enough
            count = (low + high) // 2
            done = _inserted(peak, set().union(*(again for _, _, again in choices[:count])))
            reached, work = _peak(done), sum(work for _, work, _ in choices[:count])
            score = (reached > limit, reached if reached > limit else work, work)
            if score < best[0]:
                best = score, done
            if reached > limit:
                low = count + 1
            else:
                high = count - 1
        if anything is False and n == _STRETCHES[-1] and not best[0][0]:
            break
    return best[1]


def _inserted(peak: _Peak, again: set[Var]) -> Graph:
    """The program in which what follows the peak reads these values as computed again, each stretch where it is first read."""
    graph, equations = peak.graph, list(peak.graph.equations[: peak.at + 1])
    new: dict[Var, Var] = {}

    def compute(wanted: Iterable[Var], after: Var) -> None:
        order: set[int] = set()
        stack = list(wanted)
        while stack:
            v = stack.pop()
            i = peak.born[v]
            if i not in order:
                order.add(i)
                stack += [a for a in graph.equations[i].inputs if isinstance(a, Var) and a in again and a not in new]
        fence: dict[Var, Var] = {}
        for i in sorted(order):
            e = graph.equations[i]
            for a in e.inputs:
                if isinstance(a, Var) and a not in again and a not in fence:
                    fence[a] = Var(a.shape, a.dtype)
                    equations.append(Equation(table["barrier"], (a, after), {}, (fence[a],), e.where))
            outs = tuple(Var(v.shape, v.dtype) for v in e.outputs)
            equations.append(Equation(e.primitive, tuple(_now(a, fence, new) for a in e.inputs), e.params, outs, e.where))
            new.update(zip(e.outputs, outs, strict=True))

    for e in graph.equations[peak.at + 1 :]:
        wanted = [a for a in e.inputs if isinstance(a, Var) and a in again and a not in new]
        if wanted:
            late = [a for a in e.inputs if isinstance(a, Var) and a not in again and peak.born.get(a, -1) > peak.at]
            compute(wanted, max(late, key=peak.born.__getitem__) if late else equations[-1].outputs[0])
        equations.append(Equation(e.primitive, tuple(_now(a, new) for a in e.inputs), e.params, e.outputs, e.where))
    return dead_code(Graph(graph.inputs, equations, graph.outputs, graph.name))


def _now(a: Atom, *maps: dict[Var, Var]) -> Atom:
    return next((m[a] for m in maps if a in m), a) if isinstance(a, Var) else a
