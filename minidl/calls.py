"""From a program to the function that runs it: which backend compiles the graph, and generated code that checks the guards, reads the inputs, calls,
stores what the traced code stored and returns the result.

Promises: state is stored only after the program has run, so a failing call leaves it as it was, but for large old gradients that nobody read; results
and state belong to the backend of the inputs, whichever backend ran, and are handed over when somebody reads them (see minidl.handover); memory is
given to a program to write over only where nobody else can see it, and that of state only where a failure cannot lose it.
"""

from __future__ import annotations

import re
import sys
import textwrap
import threading
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from minidl import later, tape, tree
from minidl.backends import get
from minidl.backends.base import NAMED, beside
from minidl.bodies import run_graph, without
from minidl.context import busy, state
from minidl.dtypes import DType
from minidl.emit import load
from minidl.graph import Graph
from minidl.handover import Stay, _held, handed, hold, lock, look, place_all, release, resident, shield, turns, unshield, ways
from minidl.lowering import expand
from minidl.passes import inlined, simplify
from minidl.program import MISS, Program, number, rebuilding
from minidl.tensors import Tensor

#: Bytes of state from which a program is given the old state's memory for the new one; below, the proof that it may costs more than it brings. And
#: bytes of gradients from which the old ones, which nobody read, go before the new ones are made.
WORTH = 2**17


class Engine:
    """A backend and its way of compiling, for the programs of a home backend.

    Raises ValueError that lists what there is for an unknown backend or mode, ImportError for a backend whose library is missing.

    >>> md.extend.Engine(md.extend.get_backend("numpy"), "numpy")
    numpy
    """

    def __init__(self, home: Any, name: str | None = None, mode: str | None = None):
        self.home, self.mode = home, mode
        self.xp = home if name is None or name == home.name else _beside(home, name)
        if mode is not None and mode not in self.xp.modes:
            there = f"it has {', '.join(map(repr, self.xp.modes))}, and None for its first choice" if self.xp.modes else "it has none but None"
            raise ValueError(f"jit: the {self.xp.name} backend has no mode {mode!r}; {there}")
        self.ways = ways(self.xp)
        self.crosses = self.ways.native is not ways(home).native  # whether arrays change their library on the way

    def __repr__(self) -> str:
        return self.xp.name if self.mode is None else f"{self.xp.name} {self.mode}"

    def compile(self, graph: Graph, donate: tuple[int, ...] = ()) -> Callable[..., tuple]:
        """The graph as this engine compiles it; it may be called with arrays that came over from the home backend."""
        xp = self.xp
        if self.mode is not None or xp is not self.home:  # kernels of the home's library are none of theirs
            whole = expand(graph, choose=lambda e: "kernel" in e.params)
            graph = graph if whole is graph else simplify(whole)
        beside("minidl.rewrites.heap", "numpy")  # the heap of a process that has loaded it keeps what a call makes on its way
        run = xp.compile(graph, donate, self.mode)
        if not (self.crosses and xp.takes_numpy and xp.needs_scope and any(v.dtype.name in _WIDE for v in graph.inputs)):
            return run

        def scoped(*natives: Any) -> tuple:
            with xp.scope():  # without it a 64-bit NumPy array would be cut to 32 bits on its way in
                return run(*natives)

        return scoped

    def asks(self, program: Program) -> tuple[Graph, tuple[int, ...], dict[int, int]]:
        """What is compiled for a program: the graph, which inputs' memory it may use, and {output: input} of what it need not return, as the traced
        code stores it as it came in (`p.grad = g`): the tensors share it, and the program copies nothing."""
        graph, donate, stored = program.graph, (*program.donated, *self.expendable(program)), {}
        if not program.tracked:
            given = {v: k for k, v in enumerate(graph.inputs) if k not in donate and program.inputs[k].kind != "number"}
            stored = {k: given[v] for k, v in enumerate(graph.outputs[: program.n_out]) if k >= len(program.dtypes) and v in given}
        left = [v for k, v in enumerate(graph.outputs) if k not in stored]
        return Graph(graph.inputs, graph.equations, left, graph.name) if stored else graph, donate, stored

    def build(self, program: Program) -> Callable[..., tuple]:
        """What a program asks for, compiled."""
        graph, donate, _ = self.asks(program)
        return self.compile(graph, donate) if graph.outputs else lambda *natives: ()

    def expendable(self, program: Program) -> tuple[int, ...]:
        """The inputs that are state which the program overwrites, where their memory may be used again.

        Only on the CPU: an accelerator that runs out of memory may fail after it took the state. Not where a backward pass may ask for the old
        values.
        """
        if not self.xp.donates or self.xp.device != "cpu" or program.tracked:
            return ()
        written = {w.target for w in program.writes}
        found = tuple(k for k, i in enumerate(program.inputs) if i.kind == "state" and i.text in written and i.text.isidentifier())
        return found if sum(program.graph.inputs[k].nbytes for k in found) >= WORTH else ()


_WIDE = frozenset(("int64", "uint64", "float64", "complex128"))


def _beside(home: Any, name: str) -> Any:
    """The backend of that name on the same device, or on its own default one where it cannot be there."""
    get(name)  # which complains of a name that is unknown
    try:
        return get(name, home.device)
    except ValueError:
        return get(name)


def link(program: Program, engine: Engine, run: Callable[..., tuple] | None = None) -> None:
    """Give the program its `call`, a function of the arguments that returns the result, or MISS where a guard fails; and `linked(busy, again, only)`,
    which makes the same of the same code for as long as no setting is in force: then, and where a guard fails, it hands the arguments to `again`.
    only: the function has no other program, so an engine that refuses other shapes is left to look at them.

    run: what the engine builds for it, where the caller has it already.
    """
    s, natives = program.source, program.source.natives
    program.engine = engine
    graph, donate, shared = engine.asks(program)
    spare, stored = donate[len(program.donated) :], {k: natives[program.inputs[i].text] for k, i in shared.items()}
    left = [k for k in range(len(program.graph.outputs)) if k not in stored]
    run = run or engine.build(program)
    made, result = _result(program, engine.crosses)  # which may add to the names
    path = "shape" if engine.crosses else engine.xp.shape_path
    terms = [re.sub(r"^(p\d+)\.shape\b", rf"\1.{path}", term) for term in program.terms]
    (env := s.env).update(run=run, unflatten=tree.unflatten, S=program.out_structure, E=engine.xp, new=object.__new__)
    env["Result"] = resident(Tensor, engine.xp) if engine.crosses else Tensor
    way = engine.ways
    values = [f"h{k}" if i.kind == "number" else natives[i.text] for k, i in enumerate(program.inputs)]
    numbers = {f"h{k}": (i.text, graph.inputs[k].dtype) for k, i in enumerate(program.inputs) if i.kind == "number"}
    function = "run"
    pure = not (engine.crosses or donate or program.writes or program.stores or program.dropped or program.tracked)  # it may fail and be called again
    shapes = [t for t in terms if t.startswith(tuple(f"{v}." for v in values))] if engine.xp.refuses_shapes and pure and graph.outputs else []
    if asked := " and ".join(shapes):
        terms = [*(t for t in terms if t not in shapes), f"(only or {asked})"]
    given = [natives[program.inputs[k].text] for k in donate] if engine.xp.donates else []
    if given:
        # An array is given away where nobody but the tensor holds it, beside the name in this call and the argument of `owners`; what was just handed
        # over no tensor holds. Another thread might read state before the new one is stored, so where there is one it has to wait; arguments that the
        # caller gave up it may not read.
        sole = ["held is not False"] * bool(spare) + [f"({n}.__class__ is not K or owners({n}) <= {1 + NAMED})" for n in dict.fromkeys(given)]
        env.update(K=way.native, owners=sys.getrefcount, kept=_later(lambda: engine.compile(graph)))
        env.update(alone=threading.active_count, hold=hold, release=release, shield=shield, unshield=unshield)
        function = f"(run if {' and '.join(sole)} else kept)"
    lines = ["    try:", *["        turn = turns[0]"] * engine.crosses, *(f"        {line}" for line in s.unpack)]
    lines += [f"        {name} = {text}.{'_lies' if engine.crosses else 'payload'}" for text, name in natives.items()]
    lines.append(f"        if not ({' and '.join(terms)}): break")
    if numbers:
        env["numbers"] = _Numbers(engine.xp, [dtype for _, dtype in numbers.values()])
        lines.append(f"        {_tuple([*numbers])} = numbers({_tuple([text for text, _ in numbers.values()])})")
    lines.append("    except (AttributeError, KeyError, IndexError, TypeError, ValueError): break")
    if engine.crosses and natives:  # a slot may have been read while a program of another thread was writing over it
        lines.append(f"    if away or turns[0] != turn: {'; '.join(f'{name} = look({text})' for text, name in natives.items())}")
        given_up = {program.inputs[k].text for k in program.donated}
        state_names = list(dict.fromkeys(natives[i.text] for i in program.inputs if i.kind == "state"))
        arguments = list(dict.fromkeys(i.text for i in program.inputs if i.kind == "argument"))
        for k, text in enumerate(arguments):
            test, how = ("not in taken", f"put({natives[text]})") if text in given_up else ("is not K", f"stay({k}, {text}, {natives[text]})")
            lines.append(f"    if {natives[text]}.__class__ {test}: {natives[text]} = {how}")
        if state_names:  # which lies with the engine after the first call
            names = _tuple(state_names)
            lines.append(f"    if not taken.issuperset(map(type, {names})): {names} = map(put, {names})")
        env.update(away=_held, turns=turns, look=look, put=way.put, taken=way.classes, K=way.native, stay=Stay(engine.xp, len(arguments)))
    mark = len(lines)
    if program.writes:  # a checkpoint looks at what changes; before the call, so that nothing is given away that it keeps
        env["busy"], targets = busy, _constant([w.target for w in program.writes], env)
        lines.append(f"    if busy[0] and State.journal is not None: any(map(State.journal.note, {targets}))")
    if any(env.get(w.target) is flag for w in program.writes for flag in later.flags.values()):
        env["check"] = later.check
        lines.append("    check()")
    if sum(program.dropped.values()) >= WORTH and not program.tracked:  # as after zero_grad(), also where the call fails
        lines += [f"    {leaf}.grad = None" for leaf in program.dropped]
    if program.tracked:
        env["attach"] = Nodes(program, engine).attach
        lines += [f"    i = ({''.join(v + ', ' for v in values)})", f"    o = {function}(*i)"]
        lines.append(f"    nodes = attach(i, o, ({''.join(f'{p}.node, ' for p in program.parents)}))")
    else:
        lines.append(f"    {'try: ' * bool(asked)}o = {function}({', '.join(values)})")
        lines += ["    except TypeError:", f"        if {asked}: raise", "        break"] if asked else []
    if engine.crosses and program.writes:  # to tensors that are resident there already, in every call but the first: then it is only storing
        env.update(place_all=place_all, lock=lock, twins=way.twins)
        there = _constant([w.target for w in program.writes], env)
        stored_there = "; ".join(f"{w.target}._lies = o[{w.output}]" for w in program.writes)
        lines += ["    with lock:", f"        if twins.issuperset(map(type, {there})): {stored_there}"]
        lines.append(f"        else: place_all({there}, {_tuple([f'o[{w.output}]' for w in program.writes])}, E)")
    else:
        lines += [f"    {w.target}.payload = o[{w.output}]" for w in program.writes]
    lines += ["    " + re.sub(r"\bN\[(\d+)\]", lambda m: _node(program, int(m[1])), line) for line in program.stores]
    lines += [*(f"    {line}" for line in made), f"    return {result}"]
    if spare:
        tensors = "".join(f"{program.inputs[k].text}, " for k in spare)
        before = ["    held, shielded = None, shield()", "    try:", f"        if alone() != 1: held = hold(({tensors}))"]
        after = ["    finally:", "        if held: release(held)", "        unshield(shielded)"]
        lines[mark:] = [*before, *(f"    {line}" for line in lines[mark:]), *after]

    env["released"] = tape.released_node(engine.home)
    place = {**{k: f"o[{n}]" for n, k in enumerate(left)}, **stored}
    body = re.sub(r"\bo\[(\d+)\]", lambda m: place[int(m[1])], textwrap.indent("\n".join(lines), " " * 8))
    text = f"def linked(hold_off, again, only):\n    def call(*args, **kwargs):\n        while not hold_off[0]:\n{body}\n"
    program.linked = load(f"{text}        return again(args, kwargs)\n    return call\n", env, "linked")
    program.call = program.linked([0], lambda args, kwargs: MISS, False)


def _tuple(names: Sequence[str]) -> str:
    return f"({''.join(f'{n}, ' for n in names)})"


def _constant(names: Sequence[str], env: dict[str, Any]) -> str:
    """The text of a tuple: where all are names of the environment, one that is made once."""
    if not all(n in env for n in names):
        return _tuple(names)
    value = tuple(env[n] for n in names)
    env[name := f"Z{id(value)}"] = value
    return name


def _result(program: Program, crosses: bool) -> tuple[list[str], str]:
    """Lines that make the tensors of the result, and the expression of the result. (Setting five slots is a third faster than Tensor's __init__, and
    one assignment to all of their payloads faster than one each.)"""
    s = program.source
    lines: list[str] = []
    made: list[str] = []
    whole = not crosses and len(program.graph.outputs) == sum(c is None for c in program.constants)
    for c in program.constants:
        if c is not None:
            made.append(s.name(c, "R"))
            continue
        k = len(lines)
        value = "" if whole else f"; r{k}.{'_lies' if crosses else 'payload'} = o[{k}]"
        lines.append(f"r{k} = new(Result){value}; r{k}.xp = X; r{k}.dtype = {s.name(program.dtypes[k], 'D')}; r{k}.node = {_node(program, k)}")
        lines[-1] += f"; r{k}.of = None"
        made.append(f"r{k}")
    if whole and lines:
        lines.append("".join(f"r{k}.payload, " for k in range(len(lines))) + "= o")
    return lines, rebuilding(program.out_structure, made, "S")


def _node(program: Program, k: int) -> str:
    """The text of an output's node; what was differentiated inside the program has one that says so, as it does eagerly."""
    return "released" if k in program.released else f"nodes[{program.tracked.index(k)}]" if k in program.tracked else "None"


def _later(make: Callable[[], Callable[..., tuple]]) -> Callable[..., tuple]:
    """A compiled program that is made when it is first called."""
    made = cache(make)
    return lambda *natives: made()(*natives)


class _Numbers:
    """The numbers of a call as native arrays: those of the call before, where they are the same, also in type (NumPy takes float32(0.1) for 0.1).
    Zeros have two signs and are looked at anew."""

    __slots__ = ("dtypes", "last", "xp")

    def __init__(self, xp: Any, dtypes: Sequence[DType]):
        self.xp, self.dtypes = xp, dtypes
        self.last: tuple[tuple, list[type], tuple] = ((), [], ())

    def __call__(self, values: tuple) -> tuple:
        known, kinds, natives = self.last
        if values != known or [*map(type, values)] != kinds:
            natives = tuple(number(self.xp, v, d) for v, d in zip(values, self.dtypes, strict=True))
            if 0 not in values:
                self.last = values, [*map(type, values)], natives
        return natives


class Nodes:
    """The place of a tracked call on the tape: one node, whose backward pass is a compiled program too."""

    def __init__(self, program: Program, engine: Engine):
        self.program, self.engine = program, engine
        self.backs: dict[tuple[bool, ...], tuple[Callable[..., tuple], list[bool]]] = {}  # by which cotangents come

    def back(self, residuals: Sequence[Any], cts: Sequence[Any]) -> list[Any]:
        """The backward pass on natives, compiled for those cotangents that are there: a native or None for each tracked input."""
        read = tuple(c is not None for c in cts)
        if read not in self.backs:
            whole, leads = self.program.back_graph, self.program.back_leads
            bits = sum(1 << k for k, r in enumerate(read) if r)
            asked = Graph(whole.inputs, whole.equations, [v for v, n in zip(whole.outputs, filter(None, leads), strict=True) if n & bits], whole.name)
            graph, there = without(asked, whole.inputs[len(whole.inputs) - len(cts) :], read)
            left = iter(there)
            run = self.engine.compile(simplify(inlined(graph))) if graph.outputs else lambda *natives: ()
            self.backs[read] = run, [bool(n & bits and next(left)) for n in leads]
        run, there = self.backs[read]
        got = iter(run(*residuals, *(c for c in cts if c is not None)))
        return [next(got) if t else None for t in there]

    def attach(self, natives: tuple, outs: tuple, parents: tuple) -> list[Any]:
        """The nodes of the tracked outputs of one call."""
        program, engine = self.program, self.engine
        from minidl.transforms import again

        xp, order, places = program.xp, program.tracked, program.tracked_places
        residuals = [*outs[program.n_out :], *(natives[k] for k in program.passed)]
        home = (lambda a: handed(a, engine.xp, xp)) if engine.crosses else (lambda a: a)
        put = engine.ways.put if engine.crosses else (lambda a: a)

        def replay(inputs: list[Tensor]) -> list[Tensor]:
            """The call on Tensors, recorded equation by equation: for derivatives of derivatives, and forward mode."""
            run = run_graph(program.whole, inputs)
            return [run[i] for i in order]

        def inputs() -> list[Tensor]:
            out = [Tensor(home(p), xp, v.dtype) for p, v in zip(natives, program.graph.inputs, strict=True)]
            for place_, node in zip(places, parents, strict=True):
                if place_ is not None:
                    out[place_].node = node
            return out

        recorded, jvp = again("jit", replay, inputs, places)

        def vjp(cts: list[Any], tracked: bool) -> list[Any]:
            if tracked or state.transposing or state.strong is not program.strong:  # the compiled pass has the rules and zeros of the forward one
                return recorded(cts, tracked)
            found = self.back(residuals, [None if c is None else put(c.payload) for c in cts])
            return [None if g is None else Tensor(h := home(g), xp, xp.dtype_of(h)) for g in found]

        def raw(cts: list[Any]) -> list[Any] | None:
            if engine.crosses or state.transposing or state.strong is not program.strong or state.interpreter is not None:
                return None
            return self.back(residuals, cts)

        return tape.opaque_nodes(xp, "jit", parents, len(order), vjp, jvp, raw)
