"""A kind of node: what an operation leaves behind on the tape, and the code of its part in a backward pass.

A node is a flat list `[number, kind, xp, parents..., residuals...]`. A kind knows the layout of its nodes and carries `pull`, straight-line code
generated once per (primitive, tracked inputs, broadcast or not) from the text of the rules.

Promises: whatever the payloads are, the code is the same; a residual is what a rule asks for by name, and nothing else is kept.
"""

from __future__ import annotations

import functools
import importlib
from _heapq import heappush  # what heapq makes public; its Python twin is not needed
from collections.abc import Callable, Sequence
from typing import Any

from minidl.backends import using
from minidl.context import satellite, state
from minidl.emit import load
from minidl.inline import written
from minidl.primitives.core import Primitive
from minidl.primitives.structural import unbroadcast

Node = list
OUTPUTS = ("out", "out0", "out1", "out2")  # the results as rules name them; only the first one has derivatives


def deposit(parent: Node, d: Any, pending: dict, heap: list, ns: Any) -> None:
    """Add a cotangent to what waits for a node."""
    n = parent[0]
    if n in pending:
        pending[n] = ns.add(pending[n], d)
    else:
        pending[n] = d
        heappush(heap, parent)


@functools.cache
def tensor_layer() -> Any:
    return importlib.import_module("minidl.tensors")  # `minidl.tensor` as an attribute is the function


def wrapper(xp: Any) -> Callable[[Any, Any], Any]:
    """Payload and node → Tensor, on this xp."""
    make = tensor_layer().Tensor
    return lambda payload, node: make(payload, xp, xp.dtype_of(payload), node) if hasattr(payload, "shape") else payload


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
        arrays = {*primitive.args, *OUTPUTS}
        self.statics = tuple(k + 1 for k, r in enumerate(self.residuals) if r not in arrays)
        self.fused: dict[Any, Callable[..., Any]] = {}
        self.pull: Callable[..., None] = self._pull_typed if wide else self._first
        self.one: Callable[..., Any] | None = self._first_one if self.n == 1 and not wide and primitive.name != "slice" else None

    def rules(self, zeros: bool, xp: Any, g: Any, *residuals: Any) -> list[Any]:
        """All cotangents at once: what a backend that fuses compiles as one function. zeros: with strong ones."""
        return self._cotangents(xp, g, dict(zip(self.residuals, residuals, strict=True)), zeros)

    def _cotangents(self, xp: Any, g: Any, values: dict[str, Any], zeros: bool) -> list[Any]:
        p, out = self.primitive, []
        if self.shared is not None:
            values = {**values, "shared": self.shared(xp, g, *(values[n] for n in p.needs[self.shared]))}
        for i in self.live:
            rule = p.vjp(i)
            needs = p.needs[rule]
            args = [i if n == "index" else values[n] for n in needs]
            d = satellite("strong").corrected(xp, p, rule, g, needs, args, values) if zeros else rule(xp, g, *args)
            out.append(unbroadcast(xp, d, values[f"{p.args[i]}_shape"]) if self.broadcast else d)
        return out

    def pull_whole(self, node: Node, g: Any, pending: dict, heap: list, zeros: bool = False) -> None:
        """pull without code of its own: with strong zeros, and as one dispatch on backends for which a dispatch is dear."""
        if self.wide:
            return self._pull_typed(node, g, pending, heap)
        xp, n = node[2], self.n
        if not getattr(xp, "fuses", False):
            found = self.rules(zeros, xp.bare, g, *node[3 + n :])
        else:
            call = self.fused.get((xp, zeros))
            if call is None:
                call = self.fused[xp, zeros] = xp.fuse(functools.partial(self.rules, zeros), self.statics)
            found = call(g, *node[3 + n :])
        for parent, d in zip(node[3 : 3 + n], found, strict=True):
            deposit(parent, d, pending, heap, xp)

    def _pull_typed(self, node: Node, g: Any, pending: dict, heap: list) -> None:
        """pull on untracked Tensors, which type every Python number: for dtypes that the backend's own operators would widen."""
        wrap = wrapper(node[2])
        with using(node[2]):
            found = self.pull_tensors(node, wrap(g, None), tensor_layer().ns, lambda p, _: wrap(p, None))
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
            for a in OUTPUTS:
                if a in out:
                    out[a] = wrap(out[a], None if a in OUTPUTS[2:] else node)
        return out

    def pull_tensors(self, node: Node, g: Any, ns: Any, wrap: Any) -> list[Any]:
        """One cotangent per parent, computed on Tensors."""
        return self._cotangents(ns, g, self.values(node, wrap), state.strong)

    def push(self, node: Node, tangents: Sequence[Any], ns: Any, wrap: Any) -> Any:
        """The output's tangent from those of the parents (None for zero); ns and wrap as in pull_tensors, wrap None for raw payloads."""
        if self.wide and wrap is None:
            make = wrapper(node[2])
            with using(node[2]):
                found = self.push(node, [None if t is None else make(t, None) for t in tangents], tensor_layer().ns, lambda p, _: make(p, None))
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
            d = satellite("strong").corrected(ns, p, rule, t, names, args, values) if zeros else rule(ns, t, *args)
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
