"""Which equations of a program may write their result into the memory of an operand that dies there.

For backends whose libraries take `out=` (NumPy, torch). Promises: the memory of an input is never written to unless it was given; neither is memory
that a live view still shows; nothing that leaves the program shares memory with an input or with another result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from minidl.graph import Emitted, Equation, Graph, Literal, Var

#: Primitives whose result may show the memory of their first operand. broadcast_to shows one element at many places, so nobody may write there.
VIEWS = frozenset("alias barrier reshape permute broadcast_to slice flip real imag conj bitcast".split())


class Reuse:
    """The plan for one graph.

    fresh(equation): whether its results are new memory. writes(equation): the numbers of the operands over which it can write its result (True: any).
    given: inputs whose memory belongs to the program, from equation number `since` on. After construction, `over[equation]` is the number of the
    operand to overwrite, and `shared` are the outputs that must be copied on leaving.
    """

    def __init__(
        self,
        graph: Graph,
        fresh: Callable[[Equation], bool],
        writes: Callable[[Equation], bool | Sequence[int]],
        given: Iterable[Var] = (),
        since: int = 0,
    ):
        self.given, self.since = frozenset(given), since
        self.over: dict[Equation, int] = {}
        self.root: dict[Var, Var] = {v: v for v in graph.inputs}  # whose memory each variable shows
        self.owned = set(self.given)  # roots that belong to this program, and that nothing unknown shows
        self.fixed: set[Var] = set()  # variables that may not be written to
        for equation in graph.equations:
            self._define(equation, fresh)
        self.last = self._last_uses(graph)
        for i, equation in enumerate(graph.equations):
            if allowed := writes(equation):
                self._overwrite(i, equation, allowed)
        self.shared = self._shared(graph)

    def _define(self, equation: Equation, fresh: Callable[[Equation], bool]) -> None:
        first = equation.inputs[0] if equation.inputs else None
        if equation.primitive.name in VIEWS and isinstance(first, Var):
            out = equation.outputs[0]
            self.root[out] = self.root[first]
            if equation.primitive.name == "broadcast_to" or first in self.fixed:
                self.fixed.add(out)
            return
        self.root.update((v, v) for v in equation.outputs)
        if fresh(equation):
            self.owned.update(equation.outputs)
        else:  # it may hand out views of anything it was given
            self.owned.difference_update(self.root[a] for a in equation.inputs if isinstance(a, Var))

    def _last_uses(self, graph: Graph) -> dict[Var, int]:
        last: dict[Var, int] = {}
        for i, equation in enumerate(graph.equations):
            last.update((self.root[a], i) for a in (*equation.inputs, *equation.outputs) if isinstance(a, Var))
        last.update((self.root[a], len(graph.equations)) for a in graph.outputs if isinstance(a, Var))
        return last

    def _overwrite(self, i: int, equation: Equation, allowed: bool | Sequence[int]) -> None:
        out = equation.outputs[0]
        for number, a in enumerate(equation.inputs):
            if allowed is not True and number not in allowed:  # type: ignore[operator]
                continue
            if isinstance(a, Literal) or a.shape != out.shape or a.dtype is not out.dtype or not a.shape:  # 0-d results may be immutable scalars
                continue
            if self.dies(i, equation, a):
                self.over[equation] = number
                return

    def dies(self, i: int, equation: Equation, a: Var) -> bool:
        """Whether the memory of an operand belongs to the program, and equation number i is the last to look at it, through this operand alone."""
        root = self.root[a]
        alone = all(b is a or self.root[b] is not root for b in equation.inputs if isinstance(b, Var))
        return root in self.owned and a not in self.fixed and self.last[root] == i and alone and (i >= self.since or root not in self.given)

    def _shared(self, graph: Graph) -> list[int]:
        seen: set[Var] = set()
        shared = []
        for i, a in enumerate(graph.outputs):
            if isinstance(a, Literal) or a in self.fixed or self.root[a] not in self.owned or self.root[a] in seen:
                shared.append(i)
            else:
                seen.add(self.root[a])
        return shared


def narrow_places(graph: Graph) -> set[Var]:
    """The places that max_pool found and that only pool_gather and pool_scatter read: nobody sees their dtype, so a few bits may hold them."""
    found = {e.outputs[1] for e in graph.equations if e.primitive.name == "max_pool"} - set(graph.outputs)
    for e in graph.equations:
        if e.primitive.name not in ("pool_gather", "pool_scatter"):
            found.difference_update(e.inputs)  # type: ignore[arg-type]
    return found


#: The primitive that a program ends with for each result which would share memory; it lives in emitted programs only.
Copy = Emitted("copy")


def with_copies(graph: Graph, which: Iterable[int]) -> Graph:
    """The graph with these outputs copied at its end."""
    equations, outputs = list(graph.equations), list(graph.outputs)
    for i in which:
        out = Var(outputs[i].shape, outputs[i].dtype)
        equations.append(Equation(Copy, (outputs[i],), {}, (out,)))
        outputs[i] = out
    return Graph(graph.inputs, equations, outputs, graph.name)
