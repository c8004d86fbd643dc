"""The tape: what an operation leaves behind for differentiation, and the passes over it.

A node is a flat list `[number, kind, xp, parents..., residuals...]`, as minidl.kinds has it. Numbers fall (-1, -2, …), so a heap of nodes pops the
newest first and the reverse pass needs no recursion.

Promises: the tape never knows what payloads are, so the raw pass over native arrays, over symbols (which captures) and over batches is one and
the same code; `out` is kept as a payload, never as a Tensor, so there are no cycles; a pass releases each node behind it unless told to retain.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import math
from _heapq import heappop, heappush  # what heapq makes public; its Python twin is not needed
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from minidl.backends import using
from minidl.context import ask, autocasting, busy, state
from minidl.kinds import OUTPUTS, Kind, Node, deposit, kind_of, tensor_layer, wrapper
from minidl.primitives.core import Primitive

count = itertools.count(-1, -1)  # next() on it is atomic


class _Special:
    """Kinds without a primitive: leaves, aliases, released nodes."""

    __slots__ = ("n", "name")
    one = None

    def __init__(self, name: str, n: int):
        self.name, self.n = name, n

    def pull(self, node: Node, g: Any, pending: dict, heap: list) -> None:
        if self is RELEASED:
            raise RuntimeError(
                "backward: this graph was already differentiated and its memory released; call backward(retain_graph=True) the first time"
            )
        if len(node) > 4 and any(n[1] is LEAF for n in above(node[4], outside=True)):
            raise RuntimeError(
                "backward: it reached a tensor that an operation outside the jitted function made, whose own graph cannot be followed from inside;"
                " return the loss and call backward outside, or pass x.detach().requires_grad_()"
            )
        if len(node) > 3 and self is ALIAS and node[3] is not None:
            deposit(node[3], g, pending, heap, node[2])

    def pull_tensors(self, node: Node, g: Any, ns: Any, wrap: Any) -> list[Any]:
        if self is RELEASED or len(node) > 4:
            self.pull(node, g, {}, [])
        return [g]

    def push(self, node: Node, tangents: Sequence[Any], ns: Any, wrap: Any) -> Any:
        return tangents[0]


LEAF = _Special("leaf", 0)
ALIAS = _Special("alias", 1)
PAST = _Special("alias", 1)  # with no parent, of a differentiation whose function has returned: nobody else differentiates to it
RELEASED = _Special("released", 0)


class Leaf:
    """What a leaf tensor and its node share: the accumulated gradient and the hooks."""

    __slots__ = ("__weakref__", "born", "grad", "hooks")

    def __init__(self) -> None:
        self.born = next(count)  # falls, as the numbers of nodes do
        self.grad: Any = None
        self.hooks: list[Callable[..., Any]] = []


def leaf_node(xp: Any) -> Node:
    """The node of a tensor that the user marked with requires_grad."""
    return [next(count), LEAF, xp, Leaf()]


def released_node(xp: Any) -> Node:
    """The node of a value whose graph was differentiated and released; any number of tensors may share it."""
    return [-math.inf, RELEASED, xp]  # younger than all, since nobody knows what it led to


#: Backends that a recorded value has come from or gone to (Tensor.to): a pass may then meet more than one.
crossed: set[Any] = set()


def scope(xp: Any) -> contextlib.AbstractContextManager[Any]:
    """What surrounds a whole raw pass."""
    if not crossed:
        return xp.scope()
    stack = contextlib.ExitStack()
    for backend in {xp, *crossed}:
        stack.enter_context(backend.scope())
    return stack


def _on(xp: Any) -> contextlib.AbstractContextManager[Any]:
    """Constants of a rule on Tensors are made where its node is."""
    return using(xp) if hasattr(xp, "asarray") else contextlib.nullcontext()


def _home(node: Node) -> contextlib.AbstractContextManager[Any]:
    return _on(node[2]) if crossed else contextlib.nullcontext()


def alias_node(xp: Any, parent: Node | None) -> Node:
    """A fresh node above `parent`: what tells one differentiation from another."""
    return [next(count), ALIAS, xp, parent]


def parents_of(node: Node) -> list[Node]:
    """The nodes that this one pulls back to."""
    return [p for p in node[3 : 3 + node[1].n] if p is not None]


def above(*nodes: Node, outside: bool = False) -> Iterator[Node]:
    """These nodes and all that they lead back to; outside: also from inside a trace to what the trace read."""
    seen, stack = set(), [*nodes]
    while stack:
        node = stack.pop()
        if node[0] not in seen:
            seen.add(node[0])
            yield node
            stack.extend([node[4]] if outside and node[1] is ALIAS and len(node) > 4 else parents_of(node))


class Opaque:
    """A node kind made for one call whose derivative is a function: jitted programs, loops, checkpoint, custom rules.

    vjp(cotangents) -> one cotangent or None per parent; jvp(tangents) -> one tangent or None per output. Both on Tensors; lists may hold None.
    `tracked` tells vjp whether its own work must be recorded. raw: vjp on payloads, where that may be asked for; None here and now.
    """

    __slots__ = ("jvp", "n", "name", "outputs", "raw", "vjp")
    one = None

    def __init__(self, name: str, n: int, outputs: int, vjp: Callable[..., Any], jvp: Callable[..., Any], raw: Callable[..., Any] | None = None):
        self.name, self.n, self.outputs, self.vjp, self.jvp, self.raw = name, n, outputs, vjp, jvp, raw

    def pull(self, node: Node, g: Any, pending: dict, heap: list) -> None:
        xp = node[2]
        found = None if self.raw is None else self.raw(g)
        if found is None:
            wrap = wrapper(xp)
            with _on(xp):
                found = self.vjp([None if c is None else wrap(c, None) for c in g], tracked=False)
            found = [d if d is None else xp.lift(d)[0] if d.xp is not xp else d.payload for d in found]
        for parent, d in zip(node[3 : 3 + self.n], found, strict=True):
            if d is not None and parent is not None:
                deposit(parent, d, pending, heap, xp)

    def pull_tensors(self, node: Node, g: list, ns: Any, wrap: Any) -> list[Any]:
        return self.vjp(g, tracked=True)

    def push(self, node: Node, tangents: Sequence[Any], ns: Any, wrap: Any) -> Any:
        if wrap is None:
            wrap_raw = wrapper(node[2])
            with _on(node[2]):
                outs = self.jvp([None if t is None else wrap_raw(t, None) for t in tangents])
            return [None if o is None else (node[2].lift(o)[0] if o.xp is not node[2] else o.payload) for o in outs]
        return self.jvp(list(tangents))


class Single(Opaque):
    """An opaque node of one output, which needs no projection."""

    __slots__ = ()

    def pull(self, node: Node, g: Any, pending: dict, heap: list) -> None:
        super().pull(node, [g], pending, heap)

    def pull_tensors(self, node: Node, g: Any, ns: Any, wrap: Any) -> list[Any]:
        return self.vjp([g], tracked=True)

    def push(self, node: Node, tangents: Sequence[Any], ns: Any, wrap: Any) -> Any:
        return super().push(node, tangents, ns, wrap)[0]


class Projection:
    """One output of an Opaque node."""

    __slots__ = ("i",)
    n = 1
    one = None
    name = "projection"

    def __init__(self, i: int):
        self.i = i

    def pull(self, node: Node, g: Any, pending: dict, heap: list) -> None:
        parent = node[3]
        if parent[1] is RELEASED:
            RELEASED.pull(parent, g, pending, heap)
        if parent[0] not in pending:
            pending[parent[0]] = [None] * parent[1].outputs
            heappush(heap, parent)
        pending[parent[0]][self.i] = g

    def push(self, node: Node, tangents: Sequence[Any], ns: Any, wrap: Any) -> Any:
        return tangents[0][self.i] if tangents[0] is not None else None


def opaque_nodes(
    xp: Any, name: str, parents: Sequence[Node | None], outputs: int, vjp: Callable[..., Any], jvp: Callable[..., Any], raw: Any = None
) -> list[Node]:
    """The nodes of the outputs of a call with its own derivative."""
    if outputs == 1:
        return [[next(count), Single(name, len(parents), 1, vjp, jvp, raw), xp, *parents]]
    node: Node = [next(count), Opaque(name, len(parents), outputs, vjp, jvp, raw), xp, *parents]
    return [[next(count), Projection(i), xp, node] for i in range(outputs)]


class Around:
    """A kind around another one, which it is in all that it does not say itself."""

    __slots__ = ("inner", "n")
    one = None

    def __init__(self, inner: Any):
        self.inner, self.n = inner, inner.n

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def pull(self, node: Node, g: Any, pending: dict, heap: list) -> None:
        pull_of(self.inner)(node, g, pending, heap)


class Hooked(Around):
    """A kind with the user's hooks in front of it."""

    __slots__ = ("hooks",)

    def __init__(self, inner: Any):
        super().__init__(inner)
        self.hooks: list[Callable[..., Any]] = []

    def pull(self, node: Node, g: Any, pending: dict, heap: list) -> None:
        if hasattr(g, "xp"):  # a pass over Tensors, which asks this of a Projection alone
            self.inner.pull(node, apply_hooks(self.hooks, g), pending, heap)
        else:
            super().pull(node, hooked(node, g), pending, heap)

    def pull_tensors(self, node: Node, g: Any, ns: Any, wrap: Any) -> list[Any]:
        return self.inner.pull_tensors(node, apply_hooks(self.hooks, g), ns, wrap)


class Held(Around):
    """A kind whose node no pass releases: a pull or a push of a transform reads it as long as it lives, or it keeps nothing."""

    __slots__ = ()


def hold(roots: Sequence[Node | None], start: int) -> None:
    """Keep the nodes that lead to these and are younger than the one of number `start`."""
    stack = [n for n in roots if n is not None]
    while stack:
        node = stack.pop()
        kind = node[1]
        if node[0] < start and kind.__class__ is not _Special:
            if kind.__class__ is not Held:
                node[1] = Held(kind)
            elif kind.inner.__class__ is not Opaque:  # one may be held because it keeps nothing: what leads to it was not visited
                continue
            stack.extend(parents_of(node))


def apply_hooks(hooks: Sequence[Callable[..., Any]], g: Any) -> Any:
    """Each hook may replace the gradient by returning another one. Hooks see cotangents as users do: conjugated."""
    conj = tensor_layer().ns.conj if g.dtype.is_complex else lambda x: x
    for hook in list(hooks):
        new = hook(conj(g))
        g = g if new is None else conj(new)
    return g


def hooks_of(node: Node) -> Sequence[Callable[..., Any]]:
    """The hooks that the user registered on the tensor of this node."""
    return node[3].hooks if node[1] is LEAF else getattr(node[1], "hooks", ())


def hooked(node: Node, g: Any) -> Any:
    """A raw cotangent after the hooks of its node."""
    xp = state.interpreter or node[2]
    t = apply_hooks(hooks_of(node), wrapper(xp)(g, None))
    return t.payload if t.xp is xp else xp.lift(t)[0]


def record(primitive: Primitive, xp: Any, payloads: Sequence[Any], nodes: Sequence[Node | None], outs: Sequence[Any], params: dict) -> Node | None:
    """The node of an operation's (first) output, or None if no tracked input has a derivative. The generated operations inline this."""
    live = tuple(i for i, n in enumerate(nodes) if n is not None and primitive.vjp(i) is not None)
    if not live:
        return None
    broadcast = primitive.elementwise and any(tuple(payloads[i].shape) != tuple(outs[0].shape) for i in live)
    kind = kind_of(primitive, live, broadcast, len(payloads), not xp.dtype_of(outs[0]).fast and getattr(xp, "widens", False))
    names = {"out": outs[0], **dict(zip(OUTPUTS[1:], outs, strict=False))}
    values = []
    for r in kind.residuals:
        if r in names:
            values.append(names[r])
        elif r in params:
            values.append(params[r])
        elif r == "shapes":
            values.append(tuple(tuple(p.shape) for p in payloads))
        elif r == "out_shape":
            values.append(tuple(outs[0].shape))
        elif r in primitive.args:
            values.append(payloads[primitive.args.index(r)])
        elif r.endswith("_shape"):
            values.append(tuple(getattr(payloads[primitive.args.index(r[:-6])], "shape", ())))
        else:
            values.append(xp.dtype_of(payloads[primitive.args.index(r[:-6])]))
    return [next(count), kind, xp, *(nodes[i] for i in live), *values]


def pull_of(kind: Any) -> Callable[..., None]:
    """How a kind passes a raw cotangent on, in this thread."""
    return functools.partial(kind.pull_whole, zeros=True) if state.strong and kind.__class__ is Kind else kind.pull


def reach(roots: Sequence[Node], targets: Sequence[Node], through: bool = False) -> tuple[list[Node], bool, set[int]]:
    """The nodes between targets and roots, oldest first; whether they must be differentiated on Tensors; and the numbers of the nodes that lead
    to a target.

    Tensors are needed when something else that is tracked feeds the result (a leaf, the outermost alias of another running differentiation, a
    target with a parent): the outcome may be differentiated again. through: one target may lead to another.
    """
    level = state.interpreter
    seen: dict[int, Node] = {}
    stack, beyond = list(roots), list[Node]()  # what feeds the targets comes last
    stop = {t[0] for t in targets}
    tracked = False
    while stack or beyond:
        rest = stack or beyond
        node = rest.pop()
        if node[0] in seen:
            continue
        seen[node[0]] = node
        kind = node[1]
        if node[0] in stop and (not through or kind is not RELEASED):
            tracked = tracked or bool(parents_of(node))
            if through and kind is not ALIAS:
                beyond.extend(parents_of(node))
            continue
        if kind is RELEASED and all(node[0] >= n for n in stop):  # it is what it should lead to, or older
            tracked = tracked or (rest is stack and node[0] not in stop)
            continue
        if kind is RELEASED:
            RELEASED.pull(node, None, {}, [])
        tracked = tracked or kind is LEAF or (kind is ALIAS and node[3] is None) or (level is not None and node[2] is not level)
        rest.extend(parents_of(node))
    ordered = sorted(seen.values(), key=lambda n: -n[0])
    leads = set(stop)
    for node in ordered:
        if any(p[0] in leads for p in parents_of(node)) and node[0] not in stop:
            leads.add(node[0])
    return [n for n in ordered if n[0] in leads], tracked, leads


def pull_raw(
    roots: Sequence[tuple[Node, Any]], targets: dict[int, Any] | None, leads: set[int] | None, retain: bool, arrive: Any, through: bool = False
) -> None:
    """The reverse pass over payloads. Cotangents of targets are stored in `targets`; those of leaves go to arrive(leaf node, cotangent).

    through: targets are tensors of the user's: their hooks see the cotangent, and it goes on from one that leads to another.
    """
    pending: dict[int, Any] = {}
    heap: list[Node] = []
    for root, seed in roots:
        deposit(root, seed, pending, heap, root[2])
    fuses = bool(roots) and getattr(roots[0][0][2], "fuses", False)
    zeros = ask("strong")
    plain = targets is None and leads is None and not fuses and not zeros
    node: Node = []
    while heap or node:
        if not node:
            node = heappop(heap)
            g = pending.pop(node[0])
        kind = node[1]
        one = kind.one if plain else None
        if one is not None:  # a chain needs no heap: nothing that waits is newer than the parent
            g, parent = one(node, g), node[3]
            n, following = parent[0], parent
            if heap and (n in pending or n > heap[0][0]):
                deposit(parent, g, pending, heap, node[2].bare)
                following = []
            if not retain:
                node[1] = RELEASED
                del node[3:]
            node = following
            continue
        if targets is not None and node[0] in targets:
            targets[node[0]] = g = hooked(node, g) if through and hooks_of(node) else g
            if through and any(p[0] in leads for p in parents_of(node)):  # type: ignore[operator]
                pull_of(getattr(kind, "inner", kind))(node, g, pending, heap)
        elif kind is LEAF:
            arrive(node, g)
        elif leads is None or node[0] in leads:
            if zeros:
                pull_of(kind)(node, g, pending, heap)
            elif fuses and kind.__class__ is Kind and node[2].fuses:
                kind.pull_whole(node, g, pending, heap)
            else:
                kind.pull(node, g, pending, heap)
            if not retain and kind.__class__ is not _Special and kind.__class__ is not Held:
                node[1] = RELEASED
                del node[3:]
        node = []


def pull_tensors(
    roots: Sequence[tuple[Node, Any]], targets: dict[int, Any] | None, leads: set[int] | None, arrive: Any, ns: Any, through: bool = False
) -> None:
    """The reverse pass over Tensors, which records itself on the tape and so can be differentiated again."""
    ask("strong")  # read by each kind; said once to a trace
    pending: dict[int, Any] = {}
    heap: list[Node] = []
    for node, g in roots:
        deposit(node, g, pending, heap, ns)
    while heap:
        node = heappop(heap)
        g = pending.pop(node[0])
        kind = node[1]
        if targets is not None and node[0] in targets:
            targets[node[0]] = g = apply_hooks(hooks_of(node), g) if through else g
            if not through or not any(p[0] in leads for p in parents_of(node)):  # type: ignore[operator]
                continue
            kind = getattr(kind, "inner", kind)
        if kind is LEAF:
            arrive(node, g)
        elif isinstance(getattr(kind, "inner", kind), Projection):
            kind.pull(node, g, pending, heap)
        elif leads is None or node[0] in leads:
            with _home(node):
                ds = kind.pull_tensors(node, g, ns, wrapper(node[2]))
            for parent, d in zip(node[3 : 3 + kind.n], ds, strict=True):
                if parent is not None and d is not None:
                    deposit(parent, d, pending, heap, ns)


def push(nodes: Sequence[Node], tangents: dict[int, Any], ns: Any, tracked: bool) -> None:
    """The forward pass: fill in the tangent of every node, oldest first. ns is the namespace to compute on: the payloads' own, or Tensors'."""
    ask("strong")
    if busy[0] and state.autocast is not None:
        with autocasting(None):
            return push(nodes, tangents, ns, tracked)
    for node in nodes:
        if node[0] not in tangents:
            incoming = [None if p is None else tangents.get(p[0]) for p in node[3 : 3 + node[1].n]]
            if any(t is not None for t in incoming):
                with _home(node):
                    tangents[node[0]] = node[1].push(node, incoming, ns if tracked else node[2], wrapper(node[2]) if tracked else None)
