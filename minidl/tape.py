"""The tape: what an operation leaves behind for differentiation, and the passes over it.

A node is a flat list `[number, kind, xp, parents..., residuals...]`. Numbers fall (-1, -2, …), so a heap of nodes pops the newest first and the
reverse pass needs no recursion. A kind knows the layout of its nodes and carries `pull`, straight-line code generated once per (primitive,
tracked inputs, broadcast or not).

Promises: the tape never knows what payloads are, so the raw pass over native arrays, over symbols (which captures) and over batches is one and
the same code; `out` is kept as a payload, never as a Tensor, so there are no cycles; a pass releases each node behind it unless told to retain.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import itertools
import math
from _heapq import heappop, heappush  # what heapq makes public; its Python twin is not needed
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from minidl.backends import using
from minidl.context import autocasting, busy, state
from minidl.emit import load
from minidl.inline import written
from minidl.primitives.core import Primitive
from minidl.primitives.structural import unbroadcast
from minidl.strong import corrected, strong

Node = list
count = itertools.count(-1, -1)  # next() on it is atomic
_OUTPUTS = ("out", "out0", "out1", "out2")  # the results as rules name them; only the first one has derivatives


class Kind:
    """The layout and the code of one sort of node."""

    __slots__ = ("broadcast", "fused", "live", "n", "one", "primitive", "pull", "residuals", "shared", "statics", "wide", "width")

    def __init__(self, primitive: Primitive, live: tuple[int, ...], broadcast: bool, width: int, wide: bool = False):
        self.primitive, self.live, self.broadcast, self.width, self.wide = primitive, live, broadcast, width, wide
        self.n = len(live)
        names: dict[str, None] = {}
        self.shared = primitive.shared if any("shared" in primitive.needs[primitive.vjp(i)] for i in live) else None
        for i in live:
            for rule in (self.shared, primitive.vjp(i), primitive.jvp(i)):
                names.update(dict.fromkeys(primitive.needs.get(rule, ())))
            if primitive.jvp(i) == "linear":
                names.update(dict.fromkeys(a for j, a in enumerate(primitive.args) if j != i))
                names.update(dict.fromkeys(primitive.params))
            if broadcast:
                names[f"{primitive.args[i]}_shape"] = None
        if broadcast:
            names["out_shape"] = None
        names.pop("index", None)
        names.pop("shared", None)
        self.residuals = tuple(names)
        arrays = {*primitive.args, *_OUTPUTS}
        self.statics = tuple(k + 1 for k, r in enumerate(self.residuals) if r not in arrays)
        self.fused: dict[Any, Callable[..., Any]] = {}
        self.pull: Callable[..., None] = self._pull_typed if wide else self._first
        self.one: Callable[..., Any] | None = self._first_one if self.n == 1 and not wide and primitive.name != "slice" else None

    def rules(self, xp: Any, g: Any, *residuals: Any) -> list[Any]:
        """All cotangents at once: what a backend that fuses compiles as one function."""
        return self._cotangents(xp, g, dict(zip(self.residuals, residuals, strict=True)), False)

    def strong_rules(self, xp: Any, g: Any, *residuals: Any) -> list[Any]:
        """rules with strong zeros."""
        return self._cotangents(xp, g, dict(zip(self.residuals, residuals, strict=True)), True)

    def _cotangents(self, xp: Any, g: Any, values: dict[str, Any], zeros: bool) -> list[Any]:
        p, out = self.primitive, []
        if self.shared is not None:
            values = {**values, "shared": self.shared(xp, g, *(values[n] for n in p.needs[self.shared]))}
        for i in self.live:
            rule = p.vjp(i)
            needs = p.needs[rule]
            args = [i if n == "index" else values[n] for n in needs]
            d = corrected(xp, p, rule, g, needs, args, values) if zeros else rule(xp, g, *args)
            out.append(unbroadcast(xp, d, values[f"{p.args[i]}_shape"]) if self.broadcast else d)
        return out

    def pull_strong(self, node: Node, g: Any, pending: dict, heap: list) -> None:
        """pull with strong zeros, in the general way: no code is generated for it."""
        if self.wide:
            return self._pull_typed(node, g, pending, heap)
        xp = node[2]
        key = xp, "strong"
        if not getattr(xp, "fuses", False):
            found = self.strong_rules(xp.bare, g, *node[3 + self.n :])
        else:
            call = self.fused.get(key) or self.fused.setdefault(key, xp.fuse(self.strong_rules, self.statics))
            found = call(g, *node[3 + self.n :])
        for parent, d in zip(node[3 : 3 + self.n], found, strict=True):
            deposit(parent, d, pending, heap, xp)

    def pull_fused(self, node: Node, g: Any, pending: dict, heap: list) -> None:
        """pull as one dispatch, on backends for which a dispatch is dear."""
        xp = node[2]
        call = self.fused.get(xp)
        if call is None:
            call = self.fused[xp] = xp.fuse(self.rules, self.statics)
        n = self.n
        for parent, d in zip(node[3 : 3 + n], call(g, *node[3 + n :]), strict=True):
            deposit(parent, d, pending, heap, xp)

    def _pull_typed(self, node: Node, g: Any, pending: dict, heap: list) -> None:
        """pull on untracked Tensors, which type every Python number: for dtypes that the backend's own operators would widen."""
        wrap = _wrapper(node[2])
        with using(node[2]):
            found = self.pull_tensors(node, wrap(g, None), _tensor_layer().ns, lambda p, _: wrap(p, None))
        for parent, d in zip(node[3 : 3 + self.n], found, strict=True):
            deposit(parent, d.payload, pending, heap, node[2])

    def _first(self, node: Node, g: Any, pending: dict, heap: list) -> None:
        self.pull = self._generate()  # at first use: importing minidl makes a hundred kinds, a program uses a dozen
        self.pull(node, g, pending, heap)

    def _source(self, k: int, env: dict[str, Any], lines: list[str]) -> None:
        """Lines that compute `d`, the cotangent of the k-th tracked input."""
        p, i = self.primitive, self.live[k]
        rule = p.vjp(i)
        if self.shared is not None and k == 0:
            env["shared"] = self.shared
            lines.append(f"r_shared = shared(xp, {', '.join(('g', *(f'r_{n}' for n in p.needs[self.shared])))})")
        names = ["g", *(i if n == "index" else f"r_{n}" for n in p.needs[rule])]
        steps: list[str] = []
        result = written(rule, names, steps, [f"r_{n}" for n in p.params])
        if result is None:
            env[f"rule{k}"] = rule
            steps, result = [], f"rule{k}(xp, {', '.join(map(str, names))})"
        lines += steps
        lines.append(f"d = unbroadcast(xp, {result}, r_{p.args[i]}_shape)" if self.broadcast else f"d = {result}")

    def _head(self) -> str:
        parents = [f"p{k}" for k in range(self.n)]
        return ", ".join(["_", "_", "xp", *parents, *(f"r_{r}" for r in self.residuals)]) + " = node"

    def _generate(self) -> Callable[..., None]:
        env: dict[str, Any] = {"heappush": heappush, "unbroadcast": unbroadcast}
        lines = [self._head(), "xp = xp.bare"]
        if self.primitive.name == "slice":  # so that a loop over the parts of x does not add up arrays as large as x
            lines += ["n, f = p0[0], getattr(xp, 'add_at_slice', None)"]
            lines += ["if f is not None and n in pending: return f(pending, n, g, r_start, r_stop, r_step)"]
        for k in range(self.n):
            self._source(k, env, lines)
            d, add, first = "d", "add", "pending[n] = d"
            if len(lines) > 2 and lines[-3] == "f = xp.neg" and lines[-2].startswith(f"{lines[-1][4:]} = f("):  # what is negated last
                d, add = lines[-2].rpartition("(")[2][:-1], "sub"  # to subtract is one step less, with the same bits
                first = f"f = xp.neg; pending[n] = f({d})"
                del lines[-3:]
            lines += [
                f"n = p{k}[0]",
                f"if n in pending: f = xp.{add}; pending[n] = f(pending[n], {d})",
                f"else: {first}; heappush(heap, p{k})",
            ]
        return load("def pull(node, g, pending, heap):\n" + "".join(f"    {x}\n" for x in lines), env, "pull")

    def _generate_one(self) -> Callable[..., Any]:
        """pull for one tracked input, which returns its cotangent: the pass may then go straight on to the parent."""
        env: dict[str, Any] = {"unbroadcast": unbroadcast}
        lines = [self._head(), "xp = xp.bare"]
        self._source(0, env, lines)
        if lines[-1].startswith("d = "):
            lines[-1] = "return " + lines[-1][4:]
        return load("def one(node, g):\n" + "".join(f"    {x}\n" for x in lines), env, "one")

    def _first_one(self, node: Node, g: Any) -> Any:
        self.one = self._generate_one()
        return self.one(node, g)

    def values(self, node: Node, wrap: Callable[[Any, Any], Any] | None) -> dict[str, Any]:
        """The residuals by name; wrap(payload, node) makes Tensors of those that are payloads."""
        out = dict(zip(self.residuals, node[3 + self.n :], strict=True))
        if wrap is not None:
            parents = dict(zip(self.live, node[3 : 3 + self.n], strict=True))
            for i, a in enumerate(self.primitive.args):
                if a in out:
                    out[a] = wrap(out[a], parents.get(i))
            for a in _OUTPUTS:
                if a in out:
                    out[a] = wrap(out[a], None if a in _OUTPUTS[2:] else node)
        return out

    def pull_tensors(self, node: Node, g: Any, ns: Any, wrap: Any) -> list[Any]:
        """One cotangent per parent, computed on Tensors."""
        return self._cotangents(ns, g, self.values(node, wrap), state.strong)

    def push(self, node: Node, tangents: Sequence[Any], ns: Any, wrap: Any) -> Any:
        """The output's tangent from those of the parents (None for zero); ns and wrap as in pull_tensors, wrap None for raw payloads."""
        if self.wide and wrap is None:
            make = _wrapper(node[2])
            with using(node[2]):
                found = self.push(node, [None if t is None else make(t, None) for t in tangents], _tensor_layer().ns, lambda p, _: make(p, None))
            return found.payload
        p, values, total, zeros = self.primitive, self.values(node, wrap), None, state.strong
        for i, t in zip(self.live, tangents, strict=True):
            if t is None:
                continue
            rule = p.jvp(i)
            if rule == "linear":
                names = tuple(a for j, a in enumerate(p.args) if j != i)
                rule = functools.partial(_linear, p, i, {k: values[k] for k in p.params})
            else:
                names = p.needs[rule]
            args = [i if n == "index" else values[n] for n in names]
            d = corrected(ns, p, rule, t, names, args, values) if zeros else rule(ns, t, *args)
            total = d if total is None else ns.add(total, d)
        if self.broadcast and total is not None and tuple(total.shape) != values["out_shape"]:
            total = ns.broadcast_to(total, shape=values["out_shape"])
        return total


def _linear(p: Primitive, i: int, params: dict[str, Any], xp: Any, t: Any, *others: Any) -> Any:
    """The tangent of a primitive that is linear in argument i: itself with that argument replaced."""
    out = getattr(xp, p.name)(*others[:i], t, *others[i:], **params)
    return out[0] if p.multiple else out


@functools.cache
def kind_of(primitive: Primitive, live: tuple[int, ...], broadcast: bool, width: int, wide: bool = False) -> Kind:
    """The kind of nodes that `primitive` leaves behind when these inputs are tracked."""
    return Kind(primitive, live, broadcast, width, wide)


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


def above(node: Node, outside: bool = False) -> Iterator[Node]:
    """This node and all that it leads back to; outside: also from inside a trace to what the trace read."""
    seen, stack = set(), [node]
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

    def pull(self, node: Node, g: list, pending: dict, heap: list) -> None:
        xp = node[2]
        found = None if self.raw is None else self.raw(g)
        if found is None:
            wrap = _wrapper(xp)
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
            wrap_raw = _wrapper(node[2])
            with _on(node[2]):
                outs = self.jvp([None if t is None else wrap_raw(t, None) for t in tangents])
            return [None if o is None else (node[2].lift(o)[0] if o.xp is not node[2] else o.payload) for o in outs]
        return self.jvp(list(tangents))


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
    node: Node = [next(count), Opaque(name, len(parents), outputs, vjp, jvp, raw), xp, *parents]
    return [[next(count), Projection(i), xp, node] for i in range(outputs)]


class Hooked:
    """A kind with the user's hooks in front of it."""

    __slots__ = ("hooks", "inner", "n")
    one = None

    def __init__(self, inner: Any):
        self.inner, self.n = inner, inner.n
        self.hooks: list[Callable[..., Any]] = []

    def pull(self, node: Node, g: Any, pending: dict, heap: list) -> None:
        if hasattr(g, "xp"):  # a pass over Tensors, which asks this of a Projection alone
            self.inner.pull(node, apply_hooks(self.hooks, g), pending, heap)
        else:
            pull_of(self.inner)(node, hooked(node, g), pending, heap)

    def pull_tensors(self, node: Node, g: Any, ns: Any, wrap: Any) -> list[Any]:
        return self.inner.pull_tensors(node, apply_hooks(self.hooks, g), ns, wrap)

    def push(self, node: Node, tangents: Sequence[Any], ns: Any, wrap: Any) -> Any:
        return self.inner.push(node, tangents, ns, wrap)


class Held:
    """A kind whose node no pass releases: a pull or a push of a transform reads it as long as it lives, or it keeps nothing."""

    __slots__ = ("inner", "n")
    one = None

    def __init__(self, inner: Any):
        self.inner, self.n = inner, inner.n

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def pull(self, node: Node, g: Any, pending: dict, heap: list) -> None:
        pull_of(self.inner)(node, g, pending, heap)


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
    conj = _tensor_layer().ns.conj if g.dtype.is_complex else lambda x: x
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
    t = apply_hooks(hooks_of(node), _wrapper(xp)(g, None))
    return t.payload if t.xp is xp else xp.lift(t)[0]


def record(primitive: Primitive, xp: Any, payloads: Sequence[Any], nodes: Sequence[Node | None], outs: Sequence[Any], params: dict) -> Node | None:
    """The node of an operation's (first) output, or None if no tracked input has a derivative. The generated operations inline this."""
    live = tuple(i for i, n in enumerate(nodes) if n is not None and primitive.vjp(i) is not None)
    if not live:
        return None
    broadcast = primitive.elementwise and any(tuple(payloads[i].shape) != tuple(outs[0].shape) for i in live)
    kind = kind_of(primitive, live, broadcast, len(payloads), not xp.dtype_of(outs[0]).fast and getattr(xp, "widens", False))
    names = {"out": outs[0], **dict(zip(_OUTPUTS[1:], outs, strict=False))}
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
    return kind.pull_strong if state.strong and kind.__class__ is Kind else kind.pull


def deposit(parent: Node, d: Any, pending: dict, heap: list, ns: Any) -> None:
    """Add a cotangent to what waits for a node."""
    n = parent[0]
    if n in pending:
        pending[n] = ns.add(pending[n], d)
    else:
        pending[n] = d
        heappush(heap, parent)


@functools.cache
def _tensor_layer() -> Any:
    return importlib.import_module("minidl.tensors")  # `minidl.tensor` as an attribute is the function


def _wrapper(xp: Any) -> Callable[[Any, Any], Any]:
    """Payload and node → Tensor, on this xp."""
    make = _tensor_layer().Tensor
    return lambda payload, node: make(payload, xp, xp.dtype_of(payload), node) if hasattr(payload, "shape") else payload


def reach(roots: Sequence[Node], targets: Sequence[Node], through: bool = False) -> tuple[list[Node], bool, set[int]]:
    """The nodes between targets and roots, oldest first; whether they must be differentiated on Tensors; and the numbers of the nodes that lead
    to a target.

    Tensors are needed when something else that is tracked feeds the result (a leaf, the outermost alias of another running differentiation, a
    target with a parent): the outcome may be differentiated again. through: one target may lead to another.
    """
    level = state.interpreter
    seen: dict[int, Node] = {}
    stack, beyond = list(roots), list[Node]()  # what feeds the targets comes last: there a released node is no loss
    stop = {t[0] for t in targets}
    tracked = False
    while stack or beyond:
        rest = stack or beyond
        node = rest.pop()
        if node[0] in seen:
            continue
        seen[node[0]] = node
        if node[0] in stop:
            tracked = tracked or bool(parents_of(node))
            if through and node[1] is not ALIAS:
                beyond.extend(parents_of(node))
            continue
        kind = node[1]
        if kind is RELEASED and (rest is beyond or all(node[0] > n for n in stop)):  # it is older than what it should lead to
            tracked = tracked or rest is stack
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
    zeros = strong()
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
            if heap:
                n = parent[0]
                if n in pending:
                    pending[n] = node[2].bare.add(pending[n], g)
                    following: Node = []
                elif n < heap[0][0]:
                    following = parent
                else:
                    pending[n] = g
                    heappush(heap, parent)
                    following = []
            else:
                following = parent
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
                kind.pull_fused(node, g, pending, heap)
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
    strong()  # read by each kind; said once to a trace
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
                ds = kind.pull_tensors(node, g, ns, _wrapper(node[2]))
            for parent, d in zip(node[3 : 3 + kind.n], ds, strict=True):
                if parent is not None and d is not None:
                    deposit(parent, d, pending, heap, ns)


def push(nodes: Sequence[Node], tangents: dict[int, Any], ns: Any, tracked: bool) -> None:
    """The forward pass: fill in the tangent of every node, oldest first. ns is the namespace to compute on: the payloads' own, or Tensors'."""
    strong()
    if busy[0] and state.autocast is not None:
        with autocasting(None):
            return push(nodes, tangents, ns, tracked)
    for node in nodes:
        if node[0] not in tangents:
            incoming = [None if p is None else tangents.get(p[0]) for p in node[3 : 3 + node[1].n]]
            if any(t is not None for t in incoming):
                with _home(node):
                    tangents[node[0]] = node[1].push(node, incoming, ns if tracked else node[2], _wrapper(node[2]) if tracked else None)
