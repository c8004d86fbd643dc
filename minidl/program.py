"""One traced version of a function: its graph, what it reads and writes, and the guards under which it is the right one.

A program says by which expression a later call reads each input, and where each output goes. minidl.calls makes the function that does so.

Promises: everything that the traced code read is an input or a guard; nothing outside changes while it is traced; a Module or an optimizer that
came as an argument is held weakly.
"""

from __future__ import annotations

import importlib
import re
import types
import warnings
import weakref
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from minidl import dtypes, tape, tree
from minidl.backends import default
from minidl.context import DEFAULTS, grad_mode, interpreting, state
from minidl.graph import Graph, Var
from minidl.guards import JitWarning, Walk, based, current, same, stateful, steps, unheard, walkable
from minidl.later import flags
from minidl.passes import dead_code, inlined
from minidl.shapes import shown
from minidl.tensors import Tensor, describe, hooking, scalar_payload, sever
from minidl.tracing import Host, Trace, asarray_here, finish, note_line, persistent

MISS = object()
_PLAIN = (bool, str, bytes, type(None))
_SWITCH = (bool, str, type(None))  # of which there are few, so that programs for each are few


class Input(NamedTuple):
    """What one input of the graph is: the expression that gives it on each call, and what kind of value that is."""

    text: str
    kind: str  # "argument", "state" (read from a tensor that the function found itself) or "number" (see `number`)


class Write(NamedTuple):
    """An output that becomes the value of a tensor: the expression of the tensor, its class, and the number of the output."""

    target: str
    kind: type
    output: int


class _Source:
    """The guard text and environment of a program under construction."""

    def __init__(self) -> None:
        self.env: dict[str, Any] = {"Tensor": Tensor, "MISS": MISS, "LEAF": tape.LEAF, "same": same, "based": based, "default": default}
        self.env |= {"steps": steps, "sever": sever, "current": current}
        self.env |= {"Defaults": dtypes.Defaults, "State": state}
        self.unpack: list[str] = []
        self.terms: list[str] = []
        self.natives: dict[str, str] = {}  # the expression of a tensor -> the name of its native array

    def name(self, value: Any, prefix: str) -> str:
        name = f"{prefix}{id(value)}"
        self.env[name] = value
        return name

    def native(self, text: str) -> str:
        """The name of a tensor's native array, which is read once in a call."""
        return self.natives.setdefault(text, f"p{len(self.natives)}")


class Program:
    """One traced version of a function, with its guards; `call` is there once minidl.calls.link has run."""

    call: Callable[..., Any]
    linked: Callable[..., Callable[..., Any]]
    entry: Callable[..., Any] | None = None
    engine: Any
    report: Any
    seconds: float
    watched: list[Any]

    def __init__(self, owner: Any, args: tuple, kwargs: dict[str, Any], grad: bool):
        self.grad, self.strong, self.casting = grad, state.strong, state.autocast
        self.once: str | None = None  # why the program fits no other call, if so
        self.source = _Source()
        self.reads: list[tuple[Tensor, str]] = []  # argument tensors and the expressions that reach them
        t = Trace()
        t.kernels = None if owner.mode else owner.backend or "auto"
        self.walk = walk = Walk(self.source.env)
        full = self._arguments(owner, args, kwargs, t)
        if self.reads:
            t.settle_home(self.reads[0][0].xp)
        f = owner.__minidl_jitted__
        walk.function(f, root=True)
        if walk.unwatched:
            warnings.warn(
                f"jit: what is stored later in the {', the '.join(walk.unwatched)} that {_name(f)} can read goes unseen, for they are too "
                "large to look at in each call; make it a Tensor (md.asarray) or an argument, or set x.flags.writeable = False",
                JitWarning,
                stacklevel=6,
            )
        everything = {k: (box, dict(box) if isinstance(box, dict) else list(box)) for k, box in walk.boxes.items()}
        snapshot = {k: v for k, v in everything.items() if k in walk.owned}
        try:
            with grad_mode(state.grad), interpreting(t):
                try:
                    with walk.listening():
                        out = f(*full[0], **full[1])
                except Exception as error:
                    note_line(error, getattr(f, "__name__", "the function"))
                    raise
                stored = self._changes(snapshot, t)
                if any(leaf.born > t.born and hook in leaf.hooks for leaf, hook in t.hooked):
                    raise RuntimeError(
                        "jit: the traced function registered a hook on a tensor from outside and left it there, which would happen only once;"
                        " register it outside, or remove it again (register_hook returns the function that does)"
                    )
                # what the function changed in a plain container keeps that side effect, which happens once, and is no guard then
                self.unguarded = {(k, key) for k, (box, before) in everything.items() if k not in snapshot for key in _changed(box, before)}
                self.unguarded |= {(id(x), n) for x, n, how, old in walk.fixed if (now := how(x)) is not old and (n is not None or now != old)}
                leaves, self.out_structure = tree.flatten(out)
                self._finish(owner, t, leaves, stored, {k: len(before) for k, (_, before) in snapshot.items()})
                self._guard_hooks(t)
                self._settle_terms(t)
                if owner.always:  # what was read of host data, which the program holds as it was
                    held = [x for k, x in t.constants.items() if k in t.captured]
                    self.frozen = [(describe(x), t.home.to_numpy(x.payload).tobytes()) for x in held]
        finally:
            for x, of, _ in reversed(t.severed):  # which the call does
                x.of = of
            t.severed.clear()
            t.forget()
            for leaf, hook in t.hooked:
                if leaf.born > t.born and hook in leaf.hooks:
                    leaf.hooks.remove(hook)
            for box, before in snapshot.values():
                if _changed(box, before):  # others may be reading it in their threads
                    box.clear()
                    (box.update if isinstance(box, dict) else box.extend)(before)
        self.weak = walk.weak  # until somebody watches them
        del self.reads, self.walk, self.leaves  # which would keep the arguments of the first call

    # ---- arguments ------------------------------------------------------------------------------------------------------------------------
    def _arguments(self, owner: Any, args: tuple, kwargs: dict[str, Any], t: Trace) -> tuple[list[Any], dict[str, Any]]:
        s = self.source
        s.terms.append(f"len(kwargs) == {len(kwargs)}" if kwargs else "not kwargs")
        names = [f"a{i}" for i in range(len(args))]
        s.unpack.append(f"{', '.join(names)}, = args" if args else "() = args")  # as many as there were, or ValueError
        new_args = []
        for i, a in enumerate(args):
            new_args.append(self._argument(a, f"a{i}", t, owner._names.get(i) in owner.static))
        new_kwargs = {k: self._argument(v, f"kwargs[{k!r}]", t, k in owner.static) for k, v in kwargs.items()}
        return new_args, new_kwargs

    def _argument(self, a: Any, text: str, t: Trace, static: bool) -> Any:
        s = self.source
        kind = type(a)
        if static:
            s.terms.append(self.walk.equal(a, text))
            hash(a)
            return a
        if isinstance(a, Tensor):
            self.reads.append((a, text))
            return a
        if stateful(a) or callable(a):
            self.walk.argument(a, text)
            return a
        if isinstance(a, (*_PLAIN, complex)):
            s.terms.append(self.walk.equal(a, text))
            return a
        if kind in (int, float, np.float64):  # the last is one of Python's floats, here as in operations
            s.terms.append(f"{text}.__class__ is {s.name(kind, 'T')}")
            return Host(t, text, a)
        if isinstance(a, (np.ndarray, np.generic)):
            from minidl.ops import asarray

            name = f"n{len(s.unpack)}"
            s.env["asarray"] = asarray
            s.unpack.append(f"{name} = asarray({text})")
            fresh = asarray(a)
            self.reads.append((fresh, name))
            return fresh
        if hasattr(kind, "__dlpack__"):
            raise TypeError(f"jit: expected a Tensor, a Python number or a NumPy array, got {shown(a)}; convert it with md.asarray")
        found = tree._children(a)
        if found is None:
            try:
                hash(a)
            except (TypeError, ValueError):  # the latter for a memoryview
                raise TypeError(f"jit: an argument of type {kind.__name__} is neither a tensor, a number, a container nor hashable") from None
            self.walk.argument(a, text) if walkable(a) else s.terms.append(self.walk.equal(a, text))
            return a
        _, aux, children = found
        s.terms.append(f"{text}.__class__ is {s.name(kind, 'T')}")
        if kind in (tuple, list):
            s.terms.append(f"len({text}) == {len(children)}")
            return kind(self._argument(c, f"{text}[{i}]", t, False) for i, c in enumerate(children))
        if isinstance(a, dict) and tree._entry(a) is None:
            s.terms.append(f"[*{text}] == {s.name(list(a), 'V')}" if len(a) > 1 else f"len({text}) == {len(a)}")  # order too: values() shows it
            parts = [self._argument(a[k], f"{text}[{k!r}]" if isinstance(k, (str, int)) else f"{text}[{s.name(k, 'K')}]", t, False) for k in aux]
            return kind(tree.ordered(aux, parts))
        # any other container: flatten it on each call
        name = f"c{len(s.unpack)}"
        s.env["flat"] = tree._children
        s.unpack.append(f"{name} = flat({text})")
        s.terms.append(f"{name}[1] == {s.name(aux, 'V')} and len({name}[2]) == {len(children)}")
        parts = [self._argument(c, f"{name}[2][{i}]", t, False) for i, c in enumerate(children)]
        structure = tree.Structure(kind, aux, (tree.LEAF,) * len(parts))
        return tree.unflatten(structure, parts)

    # ---- what the traced code stored -----------------------------------------------------------------------------------------------------
    def _changes(self, snapshot: dict[int, tuple[Any, Any]], t: Trace) -> list[tuple[Any, Any, Any]]:
        """(container, key, new value) for every tensor (or container of tensors) that was stored in a reachable container, and for a switch that was
        turned there: what a call does to it follows from what it finds, which is guarded."""
        out = []
        for box, before in snapshot.values():
            now = box.items() if isinstance(box, dict) else enumerate(box)
            old = before if isinstance(before, dict) else dict(enumerate(before))
            for k, v in now:
                if k in old and v is old[k]:
                    continue
                if isinstance(v, _SWITCH) and isinstance(old.get(k, MISS), (*_SWITCH, Tensor)):
                    out.append((box, k, v))
                    continue
                leaves = tree.leaves(v) if isinstance(v, (dict, list, tuple)) else [v]
                if not all(isinstance(x, Tensor) for x in leaves):
                    if k in old and type(v) is type(old[k]) and not isinstance(v, (Host, dict, list)) and v == old[k]:
                        continue
                    raise RuntimeError(
                        f"jit: the traced function changed {k!r} from {old.get(k)!r} to {v!r}, which would happen only once; "
                        "keep counters in a tensor buffer"
                        " (register_buffer) and update it in place"
                    )
                out.append((box, k, v))
            if len(box) < len(before):
                raise RuntimeError("jit: the traced function removed an entry from a Module, optimizer or container, which would happen only once")
        return out

    # ---- the program ------------------------------------------------------------------------------------------------------------------------
    def _finish(self, owner: Any, t: Trace, leaves: list[Any], stored: list[tuple[Any, Any, Any]], lengths: dict[int, int]) -> None:
        s = self.source
        for v in leaves:
            if isinstance(v, (types.GeneratorType, types.CoroutineType)):
                raise TypeError(f"jit: the function returned a {type(v).__name__}, which would run after the trace; return a list or a tuple")
        self._bases(t)
        results = [asarray_here(v) if isinstance(v, (Tensor, Host)) else v for v in leaves]
        self.constants = [None if isinstance(v, Tensor) else v for v in results]
        tensors = [v for v in results if isinstance(v, Tensor)]
        lifted = [t.lift(v) for v in tensors]
        self.dtypes = [x.dtype for x in tensors]
        self.leaves = {x.leaf: f"{text}.node[3]" for x, text in self.reads if x.leaf is not None}
        self.leaves |= {x.paused[3]: f"{text}.paused[3]" for x, text in self.reads if x.node is None and hasattr(x, "paused")}
        for x, node in t.turned.values():
            if x.node is not node:
                self.once = "it leaves requires_grad of a tensor as it was not"
                if x.leaf is not None:
                    x.leaf.born = 0  # it stays: no leaf of the trace's
        self.writes: list[Write] = []
        self.dropped: dict[str, int] = {}  # leaves whose gradient is overwritten before it is read, and the bytes of the new one
        self.stores: list[str] = []  # N[k] in them stands for the node of output k, o[k] for its value

        def out(pair: tuple[Any, Any]) -> int:
            lifted.append(pair)
            return len(lifted) - 1

        def new(x: Tensor) -> str:
            k = out(t.lift(x))
            return f"Result(o[{k}], X, {s.name(x.dtype, 'D')}, N[{k}])"

        for key, target in t.written.items():
            where, k = self._where(target), out(t.view[key])
            self.writes.append(Write(where, target.__class__, k))
            if target.leaf is None and (target.node is not None or t.view[key][1] is not None):
                self.stores.append(f"{where}.node = N[{k}]")
        outside = {id(x) for x, _ in self.reads} | t.captured.keys()
        for x, cut in {id(x): (x, cut) for x, _, cut in t.severed if id(x) in outside}.values():
            self.stores.append(f"sever({self._where(x)}, {cut})")
        for leaf, g in t.grads.items():
            if g is not t.grad_reads.get(leaf, MISS) and leaf.born > t.born:  # these numbers fall
                self.stores.append(f"{self._leaf(leaf)}.grad = {'None' if g is None else new(g)}")
                if leaf not in t.grad_reads and g is not None:
                    self.dropped[self._leaf(leaf)] = lifted[-1][0].nbytes
        for box, key, value in stored:
            kept, structure = tree.flatten(value)
            rebuilt = repr(value) if isinstance(value, _SWITCH) else rebuilding(structure, [*map(new, kept)], s.name(structure, "S"))
            if not isinstance(box, dict) and key >= lengths[id(box)]:
                self.stores.append(f"{s.name(box, 'B')}.append({rebuilt})")
                continue
            where = f"{s.name(box, 'B')}[{repr(key) if isinstance(key, (str, int)) else s.name(key, 'K')}]"
            self.stores.append(f"{where} = {rebuilt}")
        outputs = [p for p, _ in lifted]
        tracked = [i for i, (_, n) in enumerate(lifted) if self.grad and n is not None and (i < len(tensors) or n[1] is not tape.LEAF)]
        self.released = [i for i in tracked if any(n[1] is tape.RELEASED for n in tape.above(lifted[i][1]))]
        tracked = [i for i in tracked if i not in self.released]
        mark = len(t.equations)
        live = [node for _, _, node in t.captured.values() if node is not None and self.grad]
        back = self._backward(t, tracked, lifted, live) if tracked else None
        inputs, read, nodes = self._inputs(t, stored)  # the pass may have read more
        self.xp = t.home
        s.env["X"] = t.home
        self.tracked, self.parents, self.n_out = tracked, [text for _, text, _ in nodes], len(outputs)
        computed: list[Var] = []
        passed: list[Var] = []
        if back is not None:
            tail = dead_code(Graph((), t.equations[mark:], [g for g in back[1] if g is not None]))
            defined = {v for e in tail.equations for v in e.outputs} | set(back[0])
            wanted = [a for e in tail.equations for a in e.inputs] + list(tail.outputs)
            residuals = list(dict.fromkeys(a for a in wanted if isinstance(a, Var) and a not in defined))
            given = set(inputs)
            computed = [v for v in residuals if v not in given]
            passed = [v for v in residuals if v in given]
            self.back_graph = inlined(Graph([*computed, *passed, *back[0]], tail.equations, tail.outputs, "backward"), ())
            self.back_leads = back[2] + [0] * (len(nodes) - len(live))
        whole = dead_code(Graph(inputs, t.equations[:mark], [*outputs, *computed], _name(owner.__minidl_jitted__)))
        run = inlined(whole)
        graph = finish(run.equations, inputs, run.outputs, whole.name)
        whole = graph if run is whole else whole
        if owner.memory is not None:
            graph = importlib.import_module("minidl.rematerialize").rematerialize(graph, owner.memory)  # by name: it stands above
        used = {a for e in whole.equations for a in e.inputs} | set(whole.outputs) | set(passed)
        keep = [i for i, v in enumerate(inputs) if v in used]
        self.graph = Graph([inputs[i] for i in keep], graph.equations, graph.outputs, graph.name)
        self.whole = Graph(self.graph.inputs, whole.equations, whole.outputs, whole.name)  # what is differentiated: with the users' own rules
        places = {v: k for k, v in enumerate(self.graph.inputs)}
        self.passed = [places[v] for v in passed]
        self.tracked_places = [places.get(v) for _, _, v in nodes]
        self.inputs = [read[i] for i in keep]
        given_up = {f"a{n}" for n in owner.donate}
        self.donated = tuple(k for k, i in enumerate(self.inputs) if i.kind == "argument" and re.split(r"[.\[]", i.text)[0] in given_up)

    def _bases(self, t: Trace) -> None:
        """Of arguments that are written and show other tensors, these are read, too."""
        from minidl.ops.views import apart, copies, links_of

        self.source.env["apart"] = apart
        s, alone = self.source, {id(x) for x, _, _ in t.severed}
        for x, of, _ in reversed(t.severed):
            x.of = of
        for tensor, text in self.reads:  # which grows
            if id(tensor) not in t.written:
                continue
            base, how = based(tensor), steps(tensor)
            if base is None:
                s.terms.append(f"apart({text})")
            elif id(base) in t.captured or id(base) in t.written:
                s.terms.append(f"steps({text}) == {s.name(how, 'V')}")
                self.reads.append((base, f"based({text})"))
                if any(isinstance(k, Tensor) for k in tree.leaves(how)):
                    self.once = f"{text}, which is written to, shows elements that a tensor chose"
            elif id(tensor) in alone and copies(links_of(tensor.of)[0]):  # PyTorch would have made it a tensor of its own, and an operator does
                s.terms.append(f"apart({text})")
            elif id(tensor) in alone and how[0][0] is not None:
                s.terms.append(f"({text}.of is None or {text}.of[2] is not None)")
            else:
                self.once = f"{text} shows another tensor and is written to"

    def _where(self, target: Tensor) -> str:
        return next((text for tensor, text in self.reads if tensor is target), None) or self.source.name(target, "W")

    def _leaf(self, leaf: tape.Leaf) -> str:
        return self.leaves.get(leaf) or self.source.name(leaf, "L")

    def _inputs(self, t: Trace, stored: list[tuple[Any, Any, Any]]) -> tuple[list[Var], list[Input], list[tuple[Any, str, Var]]]:
        """The program's inputs, how they are read on each call, and the tracked ones: (node in the trace, expression, symbol)."""
        s, walk = self.source, self.walk
        inputs: list[Var] = []
        read: list[Input] = []
        tracked: list[tuple[Any, str, Var]] = []
        rewritten = {(id(box), key) for box, key, _ in stored}
        arguments: dict[int, list[str]] = {}
        for tensor, text in self.reads:
            arguments.setdefault(id(tensor), []).append(text)
        grads = {id(g): leaf for leaf, g in t.grad_reads.items() if g is not None}
        for leaf, g in t.grad_reads.items():
            if leaf.born > t.born:  # not made while tracing
                where = f"{self._leaf(leaf)}.grad"
                s.terms.append(f"{where} is None" if g is None else f"{where}.__class__ is Tensor and {where}.dtype is {s.name(g.dtype, 'D')}")
        for tensor, text in self.reads:  # also those that the traced code did not read
            self._guard_argument(tensor, text, t)
        if not walk.whole:
            self.once = "it may read more than guards look at"
        named: dict[int, str] = {}  # where state is found that moves
        leaves: dict[int, str] = {}
        for key, (tensor, var, node) in t.captured.items():
            places = [(p, (id(b), k)) for _, p, b, k in walk.tensors.pop(key, ()) if (id(b), k) not in self.unguarded]
            moving = [p for p, place in places if place in rewritten]
            if key in arguments:
                text, *others = arguments[key]
            elif key in grads:
                text, others = f"{self._leaf(grads[key])}.grad", []
            elif moving:
                text, *others = moving
                self._guard_argument(tensor, text, t)
            else:
                text, others = s.name(tensor, "W"), []
                if places:
                    s.terms.append(_node_term(text, tensor, s))
                elif key not in t.root.constants and all(tensor is not p for p in (*persistent, *flags.values())):
                    self.once = f"it read {describe(tensor)} from where guards do not look"
            s.terms += [f"{p} is {text}" for p in dict.fromkeys([*others, *(p for p, _ in places)]) if p != text]
            named[key] = text
            inputs.append(var)
            read.append(Input(text, "argument" if key in arguments else "state"))
            s.native(text)
            if node is not None and node[1] is tape.LEAF and (first := leaves.setdefault(node[0], text)) != text:
                s.terms.append(f"{first}.node is {text}.node")  # two tensors of one leaf, as loops and branches make them
            if node is not None and self.grad:
                tracked.append((node, text, var))
        for (tensor, place, box, key), *_ in walk.tensors.values():  # of which the code may have read the shape
            if (id(box), key) not in self.unguarded and (id(box), key) not in rewritten:
                self._guard_argument(tensor, place, t)
        changed = [*t.written.values(), *(x for x in {id(x): x for x, _ in self.reads}.values() if x.leaf in t.grads)]
        changed += [x for x, _, _ in t.captured.values() if x.leaf in t.grads]
        for tensor, text in self.reads:  # what the code changes may not be another argument on another call, nor show another tensor
            those = changed
            if id(tensor) in t.written:
                those = [*changed, *(x for key, (x, _, _) in t.captured.items() if key not in t.root.constants)]
            kind = tensor.shape, tensor.dtype, tensor.node is None
            like = {id(x): x for x in those if x is not tensor and (x.shape, x.dtype, x.node is None) == kind}
            s.terms += [f"{text} is not {named.get(id(x)) or self._where(x)}" for x in like.values()]
        for host, var in t.hosts.values():
            inputs.append(var)
            read.append(Input(host.text, "number"))
        s.env.update(t.host_env)
        return inputs, read, tracked

    def _guard_argument(self, x: Tensor, text: str, t: Trace) -> None:
        s = self.source
        s.terms.append(
            f"{text}.__class__ is {s.name(x.__class__, 'T')} and {text}.xp is {s.name(x.xp, 'X')} and {text}.dtype is {s.name(x.dtype, 'D')}"
        )
        s.terms.append(f"{s.native(text) if hasattr(x.xp, 'asarray') else text}.shape == {x.shape!r}")  # the latter of a symbol that was kept
        s.terms.append(_node_term(text, x, None))

    def _backward(self, t: Trace, tracked: list[int], lifted: list[Any], nodes: list[Any]) -> tuple[list[Var], list[Any], list[int]]:
        """Run the reverse pass symbolically: (cotangent symbols, cotangent of each tracked input or None, a bit for each output that leads there)."""
        seeds = [Var(lifted[i][0].shape, lifted[i][0].dtype) for i in tracked]
        results: dict[int, Any] = dict.fromkeys((n[0] for n in nodes), None)
        roots = [(lifted[i][1], seed) for i, seed in zip(tracked, seeds, strict=True)]
        tape.pull_raw(roots, results, None, True, lambda node, g: None)
        leads = {root[0]: 0 for root, _ in roots}
        for k, (root, _) in enumerate(roots):
            leads[root[0]] |= 1 << k
        for node in reversed(tape.reach([root for root, _ in roots], nodes)[0]):
            for p in tape.parents_of(node):
                leads[p[0]] = leads.get(p[0], 0) | leads[node[0]]
        found = [results.pop(n[0], None) for n in nodes]  # two tensors may share a leaf, whose gradient is all that reaches it
        return seeds, found, [0 if g is None else leads[n[0]] for n, g in zip(nodes, found, strict=True)]

    def _guard_hooks(self, t: Trace) -> None:
        """The hooks of leaves, which ran while the backward pass was traced, are what they were."""
        leaves = {leaf: None for tensor, _, _ in t.captured.values() if (leaf := tensor.leaf) is not None} | dict.fromkeys(t.grads)
        inside = {id(hook) for _, hook in t.hooked}
        held = [(leaf.hooks, [h for h in leaf.hooks if id(h) not in inside]) for leaf in leaves if leaf.born > t.born]
        if held:
            seen, s = self.source.name([-1], "H"), self.source
            s.env.update(hooking=hooking, unhooked=_unhooked)
            s.terms.append(f"(hooking[0] == {seen}[0] or unhooked({seen}, {s.name(held, 'H')}))")

    def _settle_terms(self, t: Trace) -> None:
        """All guards, each once."""
        s = self.source
        walked = [text for text, box, key in self.walk.terms if (box, key) not in self.unguarded and (box, key) not in t.host_keys]
        for own, names, text in self.walk.absent:
            if left := frozenset(n for n in names if n not in own and (id(own), n) not in self.unguarded):
                walked.append(f"{text}.keys().isdisjoint({s.name(left, 'V')})")
        terms = s.terms + walked + t.guards
        terms.append(f"Defaults.floating is {s.name(dtypes.Defaults.floating, 'D')} and Defaults.strict is {dtypes.Defaults.strict}")
        if t.defaulted:
            terms.append("default() is X")
        self.terms, self.asked = list(dict.fromkeys(terms)), {k: getattr(state, k) for k in sorted(t.asked)}

    # ---- settings of the thread: no guards of `call`, since one number says for all of them that they are as they always are
    def holds(self) -> bool:
        """Whether the program is for the settings of this thread."""
        return self.grad is state.grad and self.casting is state.autocast and all(getattr(state, k) == v for k, v in self.asked.items())

    @property
    def usual(self) -> bool:
        """Whether the program is for the settings that hold where nothing was set."""
        return self.grad and self.casting is None and all(DEFAULTS[k] == v for k, v in self.asked.items())

    # ---- looking at a call without running it -----------------------------------------------------------------------------------------------
    def _environment(self, args: tuple, kwargs: dict[str, Any]) -> dict[str, Any]:
        """The names that guards and inputs use, for these arguments, as far as they have them."""
        s = self.source
        env = dict(s.env, args=args, kwargs=kwargs)
        for line in [*s.unpack, *(f"{name} = {text}.payload" for text, name in s.natives.items())]:
            try:
                exec(line, env)
            except (AttributeError, KeyError, IndexError, TypeError, ValueError):
                continue
        return env

    def natives(self, args: tuple, kwargs: dict[str, Any]) -> list[Any]:
        """The values of the graph's inputs, on their own backend, that a call would read."""
        env, names = self._environment(args, kwargs), self.source.natives
        pairs = zip(self.inputs, self.graph.inputs, strict=True)
        return [number(self.xp, eval(i.text, env), v.dtype) if i.kind == "number" else eval(names[i.text], env) for i, v in pairs]

    def why(self, args: tuple, kwargs: dict[str, Any]) -> list[str]:
        """The guards that do not hold for a call, in words."""
        s, env = self.source, self._environment(args, kwargs)
        texts = {name: text for text, name in s.natives.items()}

        def holds(term: str) -> bool:
            try:
                return bool(eval(term, env))
            except (AttributeError, KeyError, IndexError, NameError, TypeError, ValueError):
                return False

        def word(m: re.Match[str]) -> str:
            value = s.env.get(m[0])
            value = value() if isinstance(value, weakref.ref) else value
            return str({"G": "globals", "C": "closure"}.get(m[0][0]) or getattr(value, "__name__", getattr(value, "name", type(value).__name__)))

        def said(term: str) -> str:
            term = next((part for part in term.split(" and ") if not holds(part)), term)
            term = re.sub(r"^\((.*) is (V\d+) or same.*", lambda m: f"{m[1]} == {s.env[m[2]]!r}", term)
            try:
                now = f"; now it is {shown(eval(term.partition(' == ' if ' == ' in term else ' is ')[0], env))}"
            except Exception:
                now = ""
            term = re.sub(r"^steps\((.*)\) == V\d+$", r"\1 shows the same elements of its base", term)
            term = re.sub(r"\bp\d+\b", lambda m: f"{texts[m[0]]}.payload" if m[0] in texts else m[0], term)
            return re.sub(r"\b[A-Z]\d{6,}\b", word, term) + f" no longer holds{now}"

        return [said(t) for t in [*self.terms, *(f"State.{k} == {v!r}" for k, v in self.asked.items())] if not holds(t)]


@unheard()
def _changed(box: Any, before: Any) -> list[Any]:
    """The keys of a container that changed since; None for its length."""
    now, then = (box, before) if isinstance(box, dict) else (dict(enumerate(box)), dict(enumerate(before)))
    return [k for k in {**then, **now} if now.get(k, MISS) is not then.get(k, MISS)] + [None] * (len(now) != len(then))


def _unhooked(seen: list[int], held: Sequence[tuple[list[Any], list[Any]]]) -> bool:
    """Whether leaves have the hooks that they had; if so, that is seen until another one comes or goes."""
    now, same = hooking[0], all(hooks == before for hooks, before in held)
    seen[0] = now if same else -1
    return same


def number(xp: Any, value: Any, dtype: dtypes.DType) -> Any:
    """A number that a traced function read, as an input of its graph."""
    return scalar_payload(xp, float(value) if dtype.is_float else value, dtype)


def _name(f: Any) -> str:
    name = getattr(f, "__name__", "program")
    return name if name.isidentifier() else "program"


def _node_term(text: str, x: Tensor, s: _Source | None) -> str:
    """Whether a tensor is tracked, and as a leaf; with s: as the very leaf that the program knows."""
    if x.node is None:
        return f"{text}.node is None"
    return f"{text}.node[1] is{'' if x.leaf else ' not'} LEAF" if s is None or x.leaf is None else f"{text}.node[3] is {s.name(x.leaf, 'L')}"


def rebuilding(structure: tree.Structure, leaves: Sequence[str], name: str) -> str:
    """Source text that builds a pytree from the texts of its leaves; name: what the structure is called there."""
    return tree.source(structure, leaves) or f"unflatten({name}, ({''.join(f'{v}, ' for v in leaves)}))"
