"""jit: trace once, check guards, run the compiled program, and put state back.

A call of a jitted function tries the programs that exist for it: one generated function per program checks every guard, reads the inputs,
runs, stores what the traced code stored, and returns the result or MISS. Only on MISS is the function traced again.

Promises: everything that the traced code read is an input or a guard; state is stored only after the program has run, so a failing call leaves
it as it was; under an outer trace, vmap or another jit the function is simply called.
"""

from __future__ import annotations

import functools
import re
import threading
import types
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from minidl import dtypes, tape, tree
from minidl.autograd import pullback
from minidl.backends import default
from minidl.context import busy, grad_mode, interpreting, state
from minidl.control import run_graph
from minidl.emit import load
from minidl.graph import Graph, Var
from minidl.guards import Walk, same, stateful, walkable
from minidl.passes import dead_code
from minidl.tensors import Tensor, scalar_payload
from minidl.tracing import Host, Trace, asarray_here, finish, persistent

MISS = object()


class JitWarning(UserWarning):
    """What md.jit(check=True) has to say."""


_PLAIN = (bool, str, bytes, type(None))


class Jitted:
    """A compiled function; see jit."""

    def __init__(self, f: Callable[..., Any], backend: str | None, static_argnames: Sequence[str], donate: Sequence[int], check: bool):
        functools.update_wrapper(self, f, updated=())
        self.__minidl_jitted__ = f
        self.backend, self.static, self.donate, self.always = backend, frozenset(static_argnames), tuple(donate), check
        self.programs: list[Program] = []
        self.compiles = 0  # how often the function was traced
        self._lock = threading.RLock()
        self._names: dict[int, str] = {}
        if self.static:
            import inspect

            self._names = dict(enumerate(inspect.signature(f).parameters))
            for n in self.static:
                if n not in self._names.values():
                    raise ValueError(f"jit: static_argnames names {n!r}, which is no parameter of {getattr(f, '__name__', f)}")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if busy[0]:
            if state.interpreter is not None:
                return self.__minidl_jitted__(*args, **kwargs)
            grad = state.grad
        else:
            grad = True
        if not self.always:
            for program in self.programs:
                if program.grad is grad:
                    out = program.call(args, kwargs)
                    if out is not MISS:
                        return out
        return self._trace(args, kwargs, grad)

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        return self if instance is None else functools.partial(self, instance)

    def _trace(self, args: tuple, kwargs: dict[str, Any], grad: bool) -> Any:
        with self._lock:
            for program in self.programs:  # another thread may have been here meanwhile
                if program.grad is grad and not self.always:
                    out = program.call(args, kwargs)
                    if out is not MISS:
                        return out
            self.compiles += 1
            program = Program(self, args, kwargs, grad)
            if self.always:
                if self.programs:
                    self._report(self.programs[0], program, args, kwargs)
                self.programs = [program]
            elif program.reusable:
                self.programs.insert(0, program)
                del self.programs[64:]
        out = program.call(args, kwargs)
        if out is MISS:
            changed = "; ".join(program.why(args, kwargs))
            raise RuntimeError(f"jit: the function changes what it reads, so a program for it would never fit: {changed}")
        return out

    def _report(self, old: Program, new: Program, args: tuple, kwargs: dict[str, Any]) -> None:
        """check=True: say which guard fails, or that the program changed though none does."""
        failing = old.why(args, kwargs)
        if failing:
            warnings.warn(f"jit: traced again because {'; '.join(failing)}", JitWarning, stacklevel=4)
        elif str(old.graph) != str(new.graph):
            import difflib

            before, after = str(old.graph).splitlines(), str(new.graph).splitlines()
            diff = "\n".join(difflib.unified_diff(before, after, "before", "now", lineterm="", n=1))
            raise RuntimeError(
                f"jit: the function depends on something that jit does not see; make it an argument, a global, or an attribute of a Module:\n{diff}"
            )

    def lower(self, *args: Any, **kwargs: Any) -> Graph:
        """The graph that a call with these arguments would run."""
        return Program(self, args, kwargs, state.grad).graph


class _Source:
    """The guard text and environment of a program under construction."""

    def __init__(self) -> None:
        self.env: dict[str, Any] = {"Tensor": Tensor, "MISS": MISS, "LEAF": tape.LEAF, "same": same, "default": default}
        self.env |= {"busy": busy, "Defaults": dtypes.Defaults, "Strict": dtypes.StrictPromotion}
        self.unpack: list[str] = []
        self.terms: list[str] = []

    def name(self, value: Any, prefix: str) -> str:
        name = f"{prefix}{id(value)}"
        self.env[name] = value
        return name


class Program:
    """One traced and compiled version of a function, with its guards."""

    def __init__(self, owner: Jitted, args: tuple, kwargs: dict[str, Any], grad: bool):
        self.grad, self.reusable = grad, True
        self.source = _Source()
        self.reads: list[tuple[Tensor, str]] = []  # argument tensors and the expressions that reach them
        t = Trace()
        walk = Walk()
        walk.env = self.source.env
        self.walk = walk
        full = self._arguments(owner, args, kwargs, t)
        if self.reads:
            t.settle_home(self.reads[0][0].xp)
        f = owner.__minidl_jitted__
        walk.function(f, root=True)
        everything = {k: (box, dict(box) if isinstance(box, dict) else list(box)) for k, box in walk.boxes.items()}
        snapshot = {k: v for k, v in everything.items() if k in walk.owned}
        try:
            with interpreting(t):
                out = f(*full[0], **full[1])
                stored = self._changes(snapshot, t)
                # what the function changed in a plain container keeps that side effect, which happens once, and is no guard then
                self.unguarded = {(k, key) for k, (box, before) in everything.items() if k not in snapshot for key in _changed(box, before)}
                leaves, self.out_structure = tree.flatten(out)
                self._finish(owner, t, leaves, stored)
        finally:
            t.forget()
            for box, before in snapshot.values():
                if _changed(box, before):  # others may be reading it in their threads
                    box.clear()
                    (box.update if isinstance(box, dict) else box.extend)(before)
        del self.reads, self.walk, self.leaves  # which would keep the arguments of the first call

    # ---- arguments ------------------------------------------------------------------------------------------------------------------------
    def _arguments(self, owner: Jitted, args: tuple, kwargs: dict[str, Any], t: Trace) -> tuple[list[Any], dict[str, Any]]:
        s = self.source
        s.terms.append(f"len(args) == {len(args)}")
        s.terms.append(f"len(kwargs) == {len(kwargs)}" if kwargs else "not kwargs")
        new_args = []
        for i, a in enumerate(args):
            s.unpack.append(f"a{i} = args[{i}]")
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
            self.walk.value(a, text)
            return a
        if isinstance(a, (*_PLAIN, complex)):
            s.terms.append(self.walk.equal(a, text))
            return a
        if kind in (int, float):
            s.terms.append(f"{text}.__class__ is {kind.__name__}")
            return Host(t, text, a)
        if isinstance(a, (np.ndarray, np.generic)):
            from minidl.ops import asarray

            name = f"n{len(s.unpack)}"
            s.env["asarray"] = asarray
            s.unpack.append(f"{name} = asarray({text})")
            fresh = asarray(a)
            self.reads.append((fresh, name))
            return fresh
        found = tree._children(a)
        if found is None:
            try:
                hash(a)
            except TypeError:
                raise TypeError(f"jit: an argument of type {kind.__name__} is neither a tensor, a number, a container nor hashable") from None
            self.walk.value(a, text) if walkable(a) else s.terms.append(self.walk.equal(a, text))
            return a
        _, aux, children = found
        s.terms.append(f"{text}.__class__ is {s.name(kind, 'T')}")
        if kind in (tuple, list):
            s.terms.append(f"len({text}) == {len(children)}")
            return kind(self._argument(c, f"{text}[{i}]", t, False) for i, c in enumerate(children))
        if isinstance(a, dict) and tree._entry(a) is None:
            s.terms.append(f"len({text}) == {len(children)}")
            parts = [self._argument(a[k], f"{text}[{k!r}]" if isinstance(k, (str, int)) else f"{text}[{s.name(k, 'K')}]", t, False) for k in aux]
            return kind(zip(aux, parts, strict=True))
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
        """(container, key, new value) for every tensor (or container of tensors) that was stored in a reachable container."""
        out = []
        for box, before in snapshot.values():
            now = box.items() if isinstance(box, dict) else enumerate(box)
            old = before if isinstance(before, dict) else dict(enumerate(before))
            for k, v in now:
                if k in old and v is old[k]:
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
    def _finish(self, owner: Jitted, t: Trace, leaves: list[Any], stored: list[tuple[Any, Any, Any]]) -> None:
        s = self.source
        for v in leaves:
            if isinstance(v, (types.GeneratorType, types.CoroutineType)):
                raise TypeError(f"jit: the function returned a {type(v).__name__}, which would run after the trace; return a list or a tuple")
        results = [asarray_here(v) if isinstance(v, (Tensor, Host)) else v for v in leaves]
        self.constants = [None if isinstance(v, Tensor) else v for v in results]
        tensors = [v for v in results if isinstance(v, Tensor)]
        lifted = [t.lift(v) for v in tensors]
        self.leaves = {x.leaf: f"{text}.node[3]" for x, text in self.reads if x.leaf is not None}
        writes: list[str] = []  # N[k] in them stands for the node of output k

        def out(pair: tuple[Any, Any]) -> int:
            lifted.append(pair)
            return len(lifted) - 1

        def new(x: Tensor) -> str:
            k = out(t.lift(x))
            return f"Tensor(o[{k}], X, {s.name(x.dtype, 'D')}, N[{k}])"

        for key, target in t.written.items():
            where, k = self._where(target), out(t.view[key])
            writes.append(f"{where}.payload = o[{k}]")
            if target.leaf is None and (target.node is not None or t.view[key][1] is not None):
                writes.append(f"{where}.node = N[{k}]")
        for leaf, g in t.grads.items():
            if g is not t.grad_reads.get(leaf, MISS) and leaf.born > t.born:  # these numbers fall
                writes.append(f"{self._leaf(leaf)}.grad = {'None' if g is None else new(g)}")
        for box, key, value in stored:
            rebuilt = tree.map(new, value)
            where = f"{s.name(box, 'B')}[{repr(key) if isinstance(key, (str, int)) else s.name(key, 'K')}]"
            writes.append(f"{where} = {_source_of(rebuilt, s)}")
        outputs = [p for p, _ in lifted]
        tracked = [i for i, (_, n) in enumerate(lifted) if self.grad and n is not None and (i < len(tensors) or n[1] is not tape.LEAF)]
        tracked = [i for i in tracked if not any(n[1] is tape.RELEASED for n in tape.above(lifted[i][1]))]
        inputs, texts, nodes = self._inputs(t, stored)
        self.xp = t.home
        s.env["X"] = t.home
        mark = len(t.equations)
        back = self._backward(t, tracked, lifted, nodes) if tracked else None
        computed: list[Var] = []
        if back is not None:
            tail = dead_code(Graph((), t.equations[mark:], [g for g in back[1] if g is not None]))
            defined = {v for e in tail.equations for v in e.outputs} | set(back[0])
            wanted = [a for e in tail.equations for a in e.inputs] + list(tail.outputs)
            residuals = list(dict.fromkeys(a for a in wanted if isinstance(a, Var) and a not in defined))
            given = set(inputs)
            computed = [v for v in residuals if v not in given]
            passed = [v for v in residuals if v in given]
            self.back_graph = finish(tail.equations, [*computed, *passed, *back[0]], tail.outputs, "backward")
            self.back_holes = [g is None for g in back[1]]
        graph = finish(t.equations[:mark], inputs, [*outputs, *computed], _name(owner.__minidl_jitted__))
        used = {a for e in graph.equations for a in e.inputs} | set(graph.outputs) | set(passed if back is not None else ())
        keep = [i for i, v in enumerate(inputs) if v in used]
        self.graph = Graph([inputs[i] for i in keep], graph.equations, graph.outputs, graph.name)
        places = {v: k for k, v in enumerate(self.graph.inputs)}
        if back is not None:
            self.passed = [places[v] for v in passed]
        self.tracked_places = [places.get(v) for _, _, v in nodes]
        names = [text.split(".")[0].split("[")[0] for text in texts]
        donated = tuple(k for k, i in enumerate(keep) if names[i] in {f"a{n}" for n in owner.donate})
        run = _on_backend(self.graph, self.xp, owner.backend, donated)
        self._generate(run, [texts[i] for i in keep], tensors, tracked, [text for _, text, _ in nodes], len(outputs), writes, t)

    def _where(self, target: Tensor) -> str:
        return next((text for tensor, text in self.reads if tensor is target), None) or self.source.name(target, "W")

    def _leaf(self, leaf: tape.Leaf) -> str:
        return self.leaves.get(leaf) or self.source.name(leaf, "L")

    def _inputs(self, t: Trace, stored: list[tuple[Any, Any, Any]]) -> tuple[list[Var], list[str], list[tuple[Any, str, Var]]]:
        """The program's inputs, the expressions that read them on each call, and the tracked ones: (node in the trace, expression, symbol)."""
        s, walk = self.source, self.walk
        inputs: list[Var] = []
        texts: list[str] = []
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
        self.reusable = walk.whole
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
                elif key not in t.root.constants and all(tensor is not p for p in persistent):
                    self.reusable = False
            s.terms += [f"{p} is {text}" for p in dict.fromkeys([*others, *(p for p, _ in places)]) if p != text]
            inputs.append(var)
            texts.append(f"{text}.payload")
            if node is not None and self.grad:
                tracked.append((node, text, var))
        for (tensor, place, box, key), *_ in walk.tensors.values():  # of which the code may have read the shape
            if (id(box), key) not in self.unguarded and (id(box), key) not in rewritten:
                self._guard_argument(tensor, place, t)
        changed = [*t.written.values(), *(x for x in {id(x): x for x, _ in self.reads}.values() if x.leaf in t.grads)]
        changed += [x for x, _, _ in t.captured.values() if x.leaf in t.grads]
        for tensor, text in self.reads:  # what the code changes may not be another argument on another call
            kind = tensor.shape, tensor.dtype, tensor.node is None
            like = {id(x): x for x in changed if x is not tensor and (x.shape, x.dtype, x.node is None) == kind}
            s.terms += [f"{text} is not {self._where(x)}" for x in like.values()]
        for host, var in t.hosts.values():
            inputs.append(var)
            texts.append(f"number(X, {host.text}, {s.name(var.dtype, 'D')})")
        s.env.update(t.host_env)
        s.env["number"] = lambda xp, v, d: scalar_payload(xp, _typed(v, d), d)
        return inputs, texts, tracked

    def _guard_argument(self, x: Tensor, text: str, t: Trace) -> None:
        s = self.source
        s.terms.append(f"{text}.__class__ is {s.name(type(x), 'T')} and {text}.xp is {s.name(x.xp, 'X')} and {text}.dtype is {s.name(x.dtype, 'D')}")
        s.terms.append(f"{text}.payload.shape == {tuple(x.payload.shape)!r}")
        s.terms.append(_node_term(text, x, None))

    def _backward(self, t: Trace, tracked: list[int], lifted: list[Any], nodes: list[Any]) -> tuple[list[Var], list[Any]]:
        """Run the reverse pass symbolically: (cotangent symbols, cotangent of each tracked input or None)."""
        seeds = [Var(lifted[i][0].shape, lifted[i][0].dtype) for i in tracked]
        results: dict[int, Any] = dict.fromkeys((n[0] for n, _, _ in nodes), None)
        roots = [(lifted[i][1], seed) for i, seed in zip(tracked, seeds, strict=True)]
        tape.pull_raw(roots, results, None, True, lambda node, g: None)
        return seeds, [results[n[0]] for n, _, _ in nodes]

    def _generate(
        self, run: Any, texts: list[str], tensors: list[Tensor], tracked: list[int], parents: list[str], n_out: int, writes: list[str], t: Trace
    ) -> None:
        """The function that checks the guards, runs the program and stores what it must."""
        s = self.source
        walked = [text for text, box, key in self.walk.terms if (box, key) not in self.unguarded and (box, key) not in t.host_keys]
        terms = s.terms + walked + t.guards
        terms.append(f"Defaults.floating is {s.name(dtypes.Defaults.floating, 'D')} and Strict.on is {dtypes.StrictPromotion.on}")
        if t.defaulted:
            terms.append("default() is X")
        s.env.update(run=run, unflatten=tree.unflatten, S=self.out_structure, attach=self._attach)
        self.terms = list(dict.fromkeys(terms))
        lines = ["def call(args, kwargs):", "    try:"]
        lines += [f"        {u}" for u in s.unpack]
        lines += [f"        if not ({' and '.join(self.terms)}): return MISS", f"        i = ({''.join(x + ', ' for x in texts)})"]
        lines += ["    except (AttributeError, KeyError, IndexError, TypeError): return MISS", "    o = run(*i)"]
        if tracked:
            lines.append(f"    nodes = attach(i, o, ({''.join(f'{p}.node, ' for p in parents)}), {tuple(tracked)!r}, {n_out})")
        made, k = [], 0
        for c in self.constants:
            if c is None:
                made.append(f"Tensor(o[{k}], X, {s.name(tensors[k].dtype, 'D')}, N[{k}])")
                k += 1
            else:
                made.append(s.name(c, "R"))
        lines += [f"    {w}" for w in writes]
        display = tree.source(self.out_structure, made)
        lines.append(f"    return {display or 'unflatten(S, (' + ''.join(m + ', ' for m in made) + '))'}")
        text = re.sub(r"N\[(\d+)\]", lambda m: f"nodes[{tracked.index(k)}]" if (k := int(m[1])) in tracked else "None", "\n".join(lines))
        self.call = load(text + "\n", s.env, "call")

    def why(self, args: tuple, kwargs: dict[str, Any]) -> list[str]:
        """The guards that do not hold for a call, in words."""
        s = self.source
        env = dict(s.env, args=args, kwargs=kwargs)

        def holds(term: str) -> bool:
            try:
                for u in s.unpack:
                    exec(u, env)
                return bool(eval(term, env))
            except (AttributeError, KeyError, IndexError, TypeError):
                return False

        def word(m: re.Match[str]) -> str:
            value = s.env.get(m[0])
            return {"G": "globals", "C": "closure"}.get(m[0][0]) or getattr(value, "__name__", None) or type(value).__name__

        failing = [re.sub(r"^\((.*) is (V\d+) or same.*", lambda m: f"{m[1]} == {s.env[m[2]]!r}", t) for t in self.terms if not holds(t)]
        return [re.sub(r"\b[A-Z]\d{6,}\b", word, t) + " no longer holds" for t in failing]

    @functools.cached_property
    def back(self) -> Callable[..., tuple]:
        """The compiled backward pass of a tracked call, made when a backward pass first comes by."""
        return self.xp.compile(self.back_graph)

    # ---- one node of the tape -----------------------------------------------------------------------------------------------------------------
    def _attach(self, natives: tuple, outs: tuple, parents: tuple, tracked: tuple[int, ...], n_out: int) -> list[Any]:
        """The tape nodes of a tracked call: its backward pass is a compiled program too."""
        xp = self.xp
        residuals = [*outs[n_out:], *(natives[k] for k in self.passed)]

        def replay(inputs: list[Tensor]) -> list[Tensor]:
            """The call on Tensors, recorded equation by equation: for derivatives of derivatives, and forward mode."""
            run = run_graph(self.graph, inputs)
            return [run[i] for i in tracked]

        def inputs(nodes: Sequence[Any]) -> list[Tensor]:
            out = [Tensor(p, xp, xp.dtype_of(p)) for p in natives]
            for place, node in zip(self.tracked_places, nodes, strict=True):
                if place is not None:
                    out[place].node = node
            return out

        def vjp(cts: list[Any], tracked: bool) -> list[Any]:
            if tracked:
                from minidl.transforms import alias

                start = inputs(parents)
                with grad_mode(True):  # a pass over Tensors whose outcome is not differentiated runs under no_grad
                    for place in self.tracked_places:
                        if place is not None:  # inside vmap the parents' nodes belong to a level outside
                            start[place] = alias(start[place])
                    results = replay(start)
                roots = [(r.node, c) for r, c in zip(results, cts, strict=True) if r.node is not None and c is not None]
                used = [p for p in self.tracked_places if p is not None]
                found = dict(zip(used, pullback("jit", roots, [start[p].node for p in used], retain=True, create_graph=True), strict=True))
                return [None if p is None else found[p] for p in self.tracked_places]
            full = [_zeros(xp, o) if c is None else c.payload for o, c in zip([outs[i] for i in order], cts, strict=True)]
            got = iter(self.back(*residuals, *full))
            return [None if hole else Tensor(g := next(got), xp, xp.dtype_of(g)) for hole in self.back_holes]

        def jvp(tangents: list[Any]) -> list[Any]:
            from minidl.transforms import _push, alias

            start = inputs(parents)
            moved = [(p, t) for p, t in zip(self.tracked_places, tangents, strict=True) if t is not None and p is not None]
            for place, _ in moved:
                start[place] = alias(start[place])
            return _push(replay(start), [start[p] for p, _ in moved], [t for _, t in moved])

        order = tracked
        return tape.opaque_nodes(xp, "jit", parents, len(tracked), vjp, jvp)


def _changed(box: Any, before: Any) -> list[Any]:
    """The keys of a container that changed since; None for its length."""
    now, then = (box, before) if isinstance(box, dict) else (dict(enumerate(box)), dict(enumerate(before)))
    return [k for k in {**then, **now} if now.get(k, MISS) is not then.get(k, MISS)] + [None] * (len(now) != len(then))


def _zeros(xp: Any, like: Any) -> Any:
    with xp.scope():
        return xp.full(shape=tuple(like.shape), value=0, dtype=xp.dtype_of(like))


def _typed(value: Any, dtype: dtypes.DType) -> Any:
    return float(value) if dtype.is_float else value


def _name(f: Any) -> str:
    name = getattr(f, "__name__", "program")
    return name if name.isidentifier() else "program"


def _node_term(text: str, x: Tensor, s: _Source | None) -> str:
    """Whether a tensor is tracked, and as a leaf; with s: as the very leaf that the program knows."""
    if x.node is None:
        return f"{text}.node is None"
    return f"{text}.node[1] is{'' if x.leaf else ' not'} LEAF" if s is None or x.leaf is None else f"{text}.node[3] is {s.name(x.leaf, 'L')}"


def _source_of(value: Any, s: _Source) -> str:
    """Source text that rebuilds a small container of expressions."""
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        return (
            "{"
            + ", ".join(
                f"{k!r}: {_source_of(v, s)}" if isinstance(k, (str, int)) else f"{s.name(k, 'K')}: {_source_of(v, s)}" for k, v in value.items()
            )
            + "}"
        )
    if isinstance(value, list):
        return "[" + ", ".join(_source_of(v, s) for v in value) + "]"
    return "(" + "".join(_source_of(v, s) + ", " for v in value) + ")"


def _on_backend(graph: Graph, xp: Any, backend: str | None, donated: tuple[int, ...]) -> Callable[..., tuple]:
    """The compiled program; with another backend asked for, arrays cross over and back."""
    if backend is None or backend == xp.name:
        return xp.compile(graph, donated)
    from minidl.backends import get

    other = get(backend)
    run = other.compile(graph)

    def crossing(*natives: Any) -> tuple:
        with other.scope():
            inside = [other.asarray(xp.to_numpy(n), xp.dtype_of(n)) for n in natives]
        outs = run(*inside)
        with xp.scope():
            return tuple(xp.asarray(other.to_numpy(o), other.dtype_of(o)) for o in outs)

    return crossing


def jit(
    f: Callable[..., Any] | None = None,
    *,
    backend: str | None = None,
    static_argnames: Sequence[str] | str = (),
    donate: Sequence[int] = (),
    check: bool = False,
) -> Any:
    """Compile a function: the first call traces it, later calls run the compiled program. Use as `md.jit(f)` or `@md.jit`.

    Arguments and results are pytrees of tensors, numbers (inputs, not constants), flags and strings (guards); Modules and optimizers may be read
    and changed inside. static_argnames: arguments whose value is part of the program. backend: where to run it, if not where its inputs are.
    donate: positions of arguments whose memory the program may reuse; the caller must not read them again (jax uses this, others ignore it).
    check: trace on every call, warn (JitWarning) with the guard that made the program change, raise if it changed without one.
    Other Python side effects happen once, while tracing.

    >>> import minidl as md
    >>> double = jit(lambda x: x * 2.0)
    >>> double(md.ones((2,))).tolist()
    [2.0, 2.0]
    """
    names = (static_argnames,) if isinstance(static_argnames, str) else tuple(static_argnames)
    if f is None:
        return lambda g: Jitted(g, backend, names, donate, check)
    if not callable(f):
        raise TypeError(f"jit: expected a function, got {type(f).__name__}")
    return Jitted(f, backend, names, donate, check)

