"""The rewriter: a table of rules, applied to one equation after the other, with common subexpressions merged on the way.

The rules are those of rooms beside the core, minidl.rewrites above all, which is loaded when the first graph is rewritten. Promises: a pass is linear
in the equations; passes are repeated until nothing changes, but no more than ROUNDS times.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from minidl.context import satellite
from minidl.graph import Atom, Equation, Graph, Literal, Var
from minidl.passes.basic import dead_code
from minidl.primitives.core import table

Rule = Callable[["Rewriter", Equation], Atom | None]
#: For each primitive's name the rules that are tried, in order; before them for functions of single elements those of "".
RULES: dict[str, list[Rule]] = {"": []}
ROUNDS = 8
#: Functions of two operands that may change places, to the last bit (of reals: a complex product is a sum of two).
_COMMUTATIVE = frozenset("add mul eq ne logical_and logical_or logical_xor bitwise_and bitwise_or bitwise_xor".split())


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Enter a rule for these primitives, or without a name for all functions of single elements with one result.

    A rule is a function (rewriter, equation) -> the atom that takes the place of the equation's result, or None. It keeps every bit of that, and
    never makes more equations than it saves. Raises ValueError for a name that no primitive has (yet: a room's are there once it is imported).

    >>> @md.extend.rule("sign")
    ... def sign_of_sign(b, e):
    ...     (x,) = e.inputs
    ...     return x if b.source(x, "sign") and not x.dtype.is_complex else None
    >>> len(md.trace(lambda x: md.sign(md.sign(x)))(md.ones(2)).equations)
    1
    """

    def enter(f: Rule) -> Rule:
        if unknown := [name for name in names if name not in table]:
            raise ValueError(f"rule: there is no primitive {unknown[0]!r}; md.extend.table lists them, those of a room once it is imported")
        for name in names or ("",):
            RULES.setdefault(name, []).append(f)
        return f

    return enter


class Rewriter:
    """One pass over the equations of a graph, and what rules ask of it.

    >>> [name for name in vars(md.extend.Rewriter) if name[0] != "_"]
    ['source', 'constant', 'alone', 'reads', 'make', 'full']
    """

    def __init__(self, graph: Graph):
        self.made: dict[Var, Equation] = {}  # the equation that defines a variable of the new program
        self.equations: list[Equation] = []
        self.applied: Counter[str] = Counter()
        self._seen: dict[Any, tuple[Var, ...]] = {}
        self._new: dict[Var, Atom] = {}
        self._uses: Counter[Atom] = Counter(a for e in graph.equations for a in e.inputs)
        self._uses.update(graph.outputs)
        satellite("rewrites")
        for e in graph.equations:
            self._take(e)
        self.graph = dead_code(Graph(graph.inputs, self.equations, [self._now(a) for a in graph.outputs], graph.name))

    # ---- what rules ask ------------------------------------------------------------------------------------------------------------------
    def source(self, a: Atom, *names: str) -> Equation | None:
        """The equation that made a value, if it is one of these primitives."""
        e = self.made.get(a) if isinstance(a, Var) else None
        return e if e is not None and e.primitive.name in names else None

    def constant(self, a: Atom) -> Any:
        """The number that each element of a value is, or None."""
        if isinstance(a, Literal):
            return a.value
        e = self.source(a, "full")
        return None if e is None else {"bool": bool, "complex": complex, "float": float}.get(a.dtype.kind, int)(e.params["value"])

    def alone(self, a: Atom) -> bool:
        """Whether a value is read once only: when that is rewritten, the equation that made it is dead."""
        return self._uses[a] == 1

    def reads(self, a: Atom) -> int:
        """How often a value is read."""
        return self._uses[a]

    def make(self, e: Equation, name: str, inputs: tuple[Atom, ...], **params: Any) -> Atom:
        """The result of a new equation, at the place of e."""
        primitive = table[name]
        shape, dtype = primitive.infer(*inputs, **params)
        self._uses.update(inputs)
        return self._add(Equation(primitive, inputs, params, (Var(tuple(shape), dtype),), e.where))[0]

    def full(self, e: Equation, value: Any) -> Atom:
        """A constant in the place of e's result."""
        (out,) = e.outputs
        return self.make(e, "full", (), shape=out.shape, value=value, dtype=out.dtype) if out.shape else Literal(value, out.dtype)

    # ---- the pass ------------------------------------------------------------------------------------------------------------------------
    def _now(self, a: Atom) -> Atom:
        return self._new.get(a, a) if isinstance(a, Var) else a

    def _take(self, e: Equation) -> None:
        new = self._new
        if any(a in new for a in e.inputs):
            e = Equation(e.primitive, tuple(self._now(a) for a in e.inputs), e.params, e.outputs, e.where)
        found = self._add(e)
        if found is not e.outputs:
            for old, now in zip(e.outputs, found, strict=True):
                new[old] = now
                self._uses[now] += self._uses.pop(old, 0) - 1  # the one that `make` or `_add` counted for it

    def _add(self, e: Equation) -> tuple[Atom, ...]:
        primitive = e.primitive
        known = RULES.get(primitive.name, ())
        for f in (*RULES[""], *known) if primitive.elementwise and not primitive.multiple else known:
            found = f(self, e)
            if found is not None:
                self.applied[f.__name__] += 1
                self._uses.subtract(e.inputs)
                self._uses[found] += 1
                return (found,)
        name = key(e.primitive, e.inputs, e.params)
        if (same := self._seen.get(name)) is not None:
            self.applied["common"] += 1
            self._uses.subtract(e.inputs)
            self._uses.update(same)
            return same
        self._seen[name] = e.outputs
        for v in e.outputs:
            self.made[v] = e
        self.equations.append(e)
        return e.outputs


def key(primitive: Any, inputs: Sequence[Atom], params: dict[str, Any]) -> Any:
    """Equal for equations that compute the same, to the last bit."""
    names = [id(a) if isinstance(a, Var) else a.key() for a in inputs]
    if len(names) == 2 and primitive.name in _COMMUTATIVE and not inputs[0].dtype.is_complex:
        names.sort(key=str)
    return (primitive.name, *names, *[(k, _key(v)) for k, v in params.items()])


def common(e: Equation, seen: dict[Any, Equation], new: dict[Var, Atom]) -> Equation | None:
    """What is left to do for an equation beside those seen: nothing where one of them computes the same (its results are entered into `new`), a
    reshape where one does but for keepdims."""
    same = seen.setdefault(key(e.primitive, e.inputs, e.params), e)
    if same is not e:
        new.update(zip(e.outputs, same.outputs, strict=True))
        return None
    if "keepdims" in e.params:
        other = seen.get(key(e.primitive, e.inputs, e.params | {"keepdims": not e.params["keepdims"]}))
        if other is not None:
            return Equation(table["reshape"], other.outputs, {"shape": e.outputs[0].shape}, e.outputs, e.where)
    return e


def _key(value: Any) -> Any:
    if isinstance(value, (bool, float, complex)):
        return repr(value)  # tells the zeros apart, and True from 1; nan is equal to itself
    if isinstance(value, tuple):
        return tuple(_key(v) for v in value)
    return value if not isinstance(value, Graph) else id(value)


def simplify(graph: Graph) -> Graph:
    """Dead code, common subexpressions, constant folding and the rules of the tables, until nothing changes."""
    graph = dead_code(graph)
    for _ in range(ROUNDS):
        done = Rewriter(graph)
        if not done.applied:
            break
        graph = done.graph
    return graph
