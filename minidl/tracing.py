"""Tracing: the interpreter whose payloads are symbols and whose functions record equations.

Concrete tensors that the traced code reads are lifted: found by identity, they become inputs of the graph. Writing to one (in place, `.grad`)
changes only the trace's view; what was written comes back as outputs. Numbers that may change from call to call (`md.host`, number arguments of
a jitted function) are Host scalars, whose Python arithmetic is replayed on each call.

Promises: nothing outside the trace changes while it runs; a symbol that escapes raises when it is used.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from numbers import Number
from typing import Any

from minidl import tape, tree
from minidl.backends import default
from minidl.context import interpreting, levels, state
from minidl.dtypes import DType, canonical, promote, promote_scalar
from minidl.graph import Atom, Equation, Graph, Literal, Var
from minidl.primitives import table
from minidl.primitives.core import Interpreter, Primitive
from minidl.shapes import shown
from minidl.tensors import Tensor, describe, in_range, mixed, scalar_payload

_HERE = __file__.rsplit("/", 1)[0]
#: Tensors that belong to the library itself and live as long as it does (the random generator's key): any trace may lift them.
persistent: list[Tensor] = []


def user_line() -> str | None:
    """`file:line` of the innermost frame outside minidl."""
    frame = sys._getframe(2)
    while frame is not None and frame.f_code.co_filename.startswith((_HERE, "<minidl")):
        frame = frame.f_back  # type: ignore[assignment]
    return sys.intern(f"{frame.f_code.co_filename}:{frame.f_lineno}") if frame is not None else None


def note_line(error: Exception, name: str) -> None:
    """Say in a note where in the user's code an exception arose while a function was traced; its text stays that of the eager exception."""
    tb, place = error.__traceback__, None
    while tb is not None:
        if not tb.tb_frame.f_code.co_filename.startswith((_HERE, "<minidl")):
            place = f"{tb.tb_frame.f_code.co_filename}:{tb.tb_lineno}"
        tb = tb.tb_next
    if place is not None and not any(n.startswith("jit: ") for n in getattr(error, "__notes__", ())):
        error.add_note(f"jit: while {name} was traced, at {place}")


class Trace(Interpreter):
    """One tracing in progress: an xp that records."""

    name = "trace"
    fuses = property(lambda self: self.closed and self.gone())  # which an eager backward pass asks first

    def __init__(self, parent: Any = None, home: Any = None):
        super().__init__()
        self.parent, self._home = parent, home
        self.root: Trace = getattr(parent, "root", None) or self
        self.closed = self.defaulted = False  # defaulted: nothing but the default said where the program is to run
        self.body = False  # whether others differentiate it by its arguments when it is over: a loop's or branch's function, a Graph of the user's
        self.rule = False  # whether a rule of the user's is what it traces
        self.kernels: str | None = None  # whose kernels may be equations, where its program is for that: a backend's name, "auto" for the home's
        self.quiet: dict[Any, Any] | None = None  # under no_grad, for what it reads from before: the same behind a stop
        self.born = next(tape.count)
        self.equations: list[Equation] = []
        self.captured: dict[int, tuple[Tensor, Var, Any]] = {}  # tensors from outside: (tensor, its symbol, node)
        self.view: dict[int, tuple[Any, Any]] = {}  # tensors from outside that were written: (payload, node)
        self.written: dict[int, Tensor] = {}
        self.grads: dict[tape.Leaf, Tensor | None] = {}  # the view of .grad
        self.grad_reads: dict[tape.Leaf, Tensor | None] = {}  # what .grad was before, where it was read before being written
        self.turned: dict[int, tuple[Tensor, Any]] = {}  # leaves whose requires_grad was switched, and the node that each had before
        self.constants: dict[int, Tensor] = {}  # made from host data while tracing
        self.hosts: dict[tuple[str, str], tuple[Host, Var]] = {}
        self.host_env: dict[str, Any] = {}
        self.host_keys: set[tuple[int, Any]] = set()
        self.hooked: list[tuple[tape.Leaf, Any]] = []  # hooks that were registered on leaves
        self.severed: list[tuple[Tensor, Any, bool]] = []  # views that became tensors of their own, and what they were
        self.guards: list[str] = []
        self.asked: set[str] = set()  # the settings of the thread that the program depends on

    @property
    def home(self) -> Any:
        """The backend that the program is for: that of the first tensor it reads."""
        if self._home is None:
            self._home = self.parent.home if self.parent is not None else default()
            self.defaulted = self.parent is None
        return self._home

    def settle_home(self, xp: Any) -> None:
        """Say which backend the program is for before anything is read."""
        self._home = xp

    @property
    def device(self) -> str:
        """Where the program will run."""
        return self.home.device

    def forget(self) -> None:
        """Close the trace; it may outlive the call in what escaped, but the tensors that it read need not."""
        self.closed = True
        for kept in (self.captured, self.view, self.written, self.grads, self.grad_reads, self.turned, self.constants):
            kept.clear()

    def gone(self) -> None:
        """Complain about a symbol that left its trace."""
        raise RuntimeError(
            "jit: a symbolic tensor was used after its trace ended; return it from the function, or store it on a Module, an optimizer or .grad"
        )

    def scalar(self, value: Any, dtype: DType) -> Atom:
        """A Python number as a constant of the program; a Host scalar as an input."""
        if isinstance(value, Host):
            return self.host_input(value, dtype)
        if dtype.kind == "bool":
            return Literal(bool(value), dtype)
        value = in_range(value, dtype)
        return Literal(int(value) if dtype.is_integer else complex(value) if dtype.is_complex else float(value), dtype)

    def call(self, primitive: Primitive, payloads: Sequence[Any], params: dict[str, Any]) -> Any:
        """Record an equation; rule text may pass Python numbers and mixed dtypes, which are settled here."""
        atoms = self._settle(primitive, payloads)
        found = primitive.infer(*atoms, **params)
        outs = tuple(Var(tuple(s), d) for s, d in found) if primitive.multiple else (Var(tuple(found[0]), found[1]),)
        if self.quiet is not None and primitive.name not in ("stop", "instead"):
            atoms = tuple(self._still(a) for a in atoms)
            self.quiet.update((v, v) for v in outs)
        self.equations.append(Equation(primitive, atoms, params, outs, user_line()))
        return outs if primitive.multiple else outs[0]

    def _still(self, a: Atom) -> Atom:
        assert self.quiet is not None
        if a not in self.quiet and isinstance(a, Var) and a.dtype.inexact:
            self.quiet[a] = self.call(table["stop"], (a,), {})
        return self.quiet.get(a, a)

    def _settle(self, primitive: Primitive, payloads: Sequence[Any]) -> tuple[Atom, ...]:
        joins = primitive.joins if primitive.joins is not None else range(len(payloads))
        common: DType | None = None
        plain = True
        for i, p in enumerate(payloads):
            if isinstance(p, (Var, Literal)):
                if i in joins and common is not p.dtype:
                    plain = plain and common is None
                    common = p.dtype if common is None else promote(common, p.dtype)
            else:
                plain = False
        if plain or primitive.promote == "none":
            return tuple(payloads)
        for i, p in enumerate(payloads):
            if i in joins and not isinstance(p, (Var, Literal)) and common is not None:
                common = promote_scalar(common, getattr(p, "number", type(p)))
        out = []
        for i, p in enumerate(payloads):
            want = common if i in joins else primitive.others or canonical(type(p) if not hasattr(p, "dtype") else p.dtype)
            if not isinstance(p, (Var, Literal)):
                p = self.scalar(p, want or canonical(type(p)))
            elif p.dtype is not want:
                p = self.scalar(p.value, want or p.dtype) if isinstance(p, Literal) else self.call(table["cast"], (p,), {"dtype": want})
            out.append(p)
        return tuple(out)

    @contextmanager
    def apart(self, given: Sequence[Any]) -> Iterator[None]:
        """What is recorded inside computes anew: it reads the values from before behind a barrier, which no pass sees through and which waits for
        what is `given`. So a value that is computed again need not be kept until then."""
        mark = len(self.equations)
        yield
        inside = self.equations[mark:]
        own = {v for e in inside for v in e.outputs} | {a for a in given if isinstance(a, Var)}
        behind = {a: Var(a.shape, a.dtype) for e in inside for a in e.inputs if isinstance(a, Var) and a not in own}
        after = next((a for a in given if isinstance(a, Var)), None)
        if after is not None:
            barriers = [Equation(table["barrier"], (a, after), {}, (v,), inside[0].where) for a, v in behind.items()]
            again = [Equation(e.primitive, tuple(behind.get(a, a) for a in e.inputs), e.params, e.outputs, e.where) for e in inside]  # type: ignore[arg-type]
            self.equations[mark:] = barriers + again

    # ---- tensors from outside -----------------------------------------------------------------------------------------------------------
    def lift(self, t: Tensor) -> tuple[Any, Any]:
        """(symbol, node) of a Tensor: its own, the trace's view of it, or a new input."""
        if t.xp is self:
            return t.payload, t.node
        key = id(t)
        if key in self.view:
            return self.view[key]
        if key not in self.captured:
            self.capture(t)
        _, var, node = self.captured[key]
        return var, t.node if key in self.turned else node

    def capture(self, t: Tensor) -> Var:
        """Make an outside Tensor an input of the program."""
        xp, level = t.xp, self.parent
        while getattr(xp, "closed", False) and not (isinstance(level, Trace) and id(t) in level.view):  # where it stands for something else
            if level is None:
                xp.gone()
            level = level.parent
        if hasattr(xp, "asarray"):
            if self._home is None:
                self._home = xp
            elif xp is not self.home:
                mixed("jit", self.home, xp)
        var = Var(t.shape, t.dtype)
        self.captured[id(t)] = (t, var, self.tracked(self.turned.get(id(t), (t, None))[1] or t.node))
        return var

    def tracked(self, node: Any) -> Any:
        """What stands on this trace's tape for a Tensor from outside that is on one."""
        return node if node is None or node[1] is tape.LEAF else [*tape.alias_node(self, None), node]

    def turn(self, t: Tensor, node: Any) -> None:
        """A leaf from outside is tracked from here on, or no longer: by this node, or None."""
        key = id(t)
        self.turned.setdefault(key, (t, t.node))
        if key in self.captured and self.captured[key][2] is None:
            self.captured[key] = (*self.captured[key][:2], node)
        if key in self.view:
            self.view[key] = (self.view[key][0], node)

    def constant(self, t: Tensor) -> None:
        """Remember that a Tensor was made from host data here, and so is a constant of the program."""
        self.root.constants[id(t)] = t

    def detach(self, t: Tensor) -> Tensor:
        """The same symbol without a node; in a trace that may be differentiated when it is over, a barrier to that."""
        payload, node = self.lift(t)
        if t.dtype.inexact and (node is not None or self.parent is not None or (self.body and state.grad)):
            payload = self.call(table["stop"], (payload,), {})
        return Tensor(payload, self, t.dtype)

    def assign(self, target: Tensor, value: Tensor) -> None:
        """Change the trace's view of an outside Tensor, or a Tensor of this trace in place."""
        payload, node = self.lift(value)
        if not state.grad or target.leaf is not None:
            before, node = self.lift(target)
            if value.dtype.inexact and (self.parent is not None or self.body or (node is not None and target.leaf is None)):
                payload = self.call(table["instead"], (before, payload), {})
        if target.xp is self:
            target.payload, target.node = payload, node
            return
        if id(target) not in self.captured:
            self.capture(target)
        self.view[id(target)] = (payload, node)
        self.written[id(target)] = target

    def read_grad(self, leaf: tape.Leaf) -> Tensor | None:
        """`.grad` as the traced code sees it."""
        if leaf not in self.grads:
            before = leaf.grad if self.parent is None else self.parent.read_grad(leaf)
            self.grad_reads[leaf] = before
            self.grads[leaf] = before
            if before is not None and id(before) not in self.captured and before.xp is not self:
                self.capture(before)
        return self.grads[leaf]

    def write_grad(self, leaf: tape.Leaf, value: Tensor | None) -> None:
        """Set `.grad` in the trace's view."""
        self.grads[leaf] = value

    def leaves_grads(self) -> bool:
        """Whether a tensor from outside has another `.grad` than before."""
        return any(g is not self.grad_reads.get(leaf) for leaf, g in self.grads.items() if leaf.born > self.born)  # these numbers fall

    # ---- host numbers ---------------------------------------------------------------------------------------------------------------------
    def host(self, container: Any, key: Any, value: Any) -> Any:
        """The number container[key], read anew on each call."""
        root = self.root
        name = f"H{id(container)}"
        root.host_env[name] = container
        root.host_keys.add((id(container), key))
        text = f"{name}[{key!r}]"
        if isinstance(container, dict) and type(container) is not dict:  # past a __getitem__ that asks for a trace
            root.host_env["item"] = dict.__getitem__
            text = f"item({name}, {key!r})"
        if isinstance(value, tuple):  # such as betas: the tuple is read anew too
            return tuple(Host(root, f"{text}[{i}]", v) for i, v in enumerate(value))
        return Host(root, text, value)

    def host_input(self, host: Host, dtype: DType) -> Any:
        """A Host scalar as an input symbol of that dtype."""
        if self is not self.root:
            return self.lift(host.tensor(dtype))[0]
        key = (host.text, dtype.name)
        if key not in self.hosts:
            self.hosts[key] = (host, Var((), dtype))
        return self.hosts[key][1]

    def concretize(self, t: Tensor, what: str) -> Any:
        """The values of a symbol that depends on nothing from outside (a mask of md.arange, for example); others have none yet."""
        made = t.xp if isinstance(t.xp, Trace) else self if id(t) in self.root.constants else None
        found = None if made is None or made.closed else made._value(made.lift(t)[0])
        if found is not None:
            return self.home.to_numpy(found)
        line = user_line()
        raise TypeError(
            f"{what}: the tensor {describe(t)} is symbolic while md.jit or md.trace runs{f' ({line})' if line else ''}, so it has no value yet; use "
            "md.where for a choice, md.cond or md.while_loop for control flow, or make the argument static with static_argnames"
        )

    def _value(self, wanted: Any) -> Any:
        """The native array of a symbol that follows from constants alone, None for another."""
        own = {id(t) for t in self.root.constants.values()}
        known: dict[Any, Any] = {var: t.payload for t, var, _ in self.captured.values() if id(t) in own and t.xp is self.home}
        outer = {var: t for t, var, _ in self.captured.values() if isinstance(t.xp, Trace) and not t.xp.closed}
        need, equations = {wanted}, []
        for e in reversed(self.equations):
            if need.intersection(e.outputs):
                equations.append(e)
                need.update(a for a in e.inputs if isinstance(a, Var))
        known.update((v, value) for v in need & outer.keys() if (value := outer[v].xp._value(outer[v].payload)) is not None)
        if not need - known.keys() <= {v for e in equations for v in e.outputs}:
            return None
        xp = self.home
        with interpreting(None), xp.scope():
            for e in reversed(equations):
                given = (scalar_payload(xp, a.value, a.dtype) if isinstance(a, Literal) else known[a] for a in e.inputs)
                out = getattr(xp, e.primitive.name)(*given, **e.params)
                known.update(zip(e.outputs, out if e.primitive.multiple else (out,), strict=True))
        return known[wanted]


class Host:
    """A Python number that may differ on the next call: arithmetic on it is recorded as text, decisions on it become guards."""

    __slots__ = ("number", "text", "trace", "value")
    __array_ufunc__ = None

    def __init__(self, trace: Trace, text: str, value: Any):
        self.trace, self.text, self.value = trace, text, value
        self.number = float if isinstance(value, float) else type(value)

    def tensor(self, dtype: DType) -> Tensor:
        """A Tensor of the root trace that holds this number."""
        return Tensor(self.trace.host_input(self, dtype), self.trace, dtype)

    def _guard(self) -> Any:
        """The number itself, which the program is then made for."""
        same = self.value and self.value == self.value  # neither a zero, which has a sign, nor nan
        now = f"float({self.text})" if self.number is float is not type(self.value) else self.text  # NumPy's floats are Python's
        self.trace.guards.append(f"{now} == {_literal(self.value)}" if same else f"same({now}, {_literal(self.value)})")
        return self.value

    def __bool__(self) -> bool:
        self.trace.guards.append(f"bool({self.text}) is {bool(self.value)}")
        return bool(self.value)

    def __hash__(self) -> int:
        return hash(self._guard())

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.value, name)  # what numbers do not have is no reason for a guard
        self._guard()
        return found

    def __repr__(self) -> str:
        return f"Host({self.value!r})"


def _literal(value: Any) -> str:
    text = float.__repr__(value) if isinstance(value, float) else repr(value)
    return text if value == value and abs(value) != float("inf") else f"float('{text}')"


def _value(x: Any) -> Any:
    return x._guard() if isinstance(x, Host) else x


def _host_operator(symbol: str, name: str) -> None:
    from operator import add, eq, floordiv, ge, gt, le, lt, mod, mul, ne, sub, truediv

    functions: dict[str, Callable[..., Any]] = {
        "+": add, "-": sub, "*": mul, "/": truediv, "//": floordiv, "%": mod, "**": pow, "<": lt, "<=": le, ">": gt, ">=": ge, "==": eq, "!=": ne,
    }  # fmt: skip
    f = functions[symbol]

    def forward(self: Host, other: Any) -> Any:
        if isinstance(other, Host):
            return Host(self.trace, f"({self.text} {symbol} {other.text})", f(self.value, other.value))
        if type(other) in (int, float, bool):
            return Host(self.trace, f"({self.text} {symbol} {_literal(other)})", f(self.value, other))
        return f(self._guard(), other) if isinstance(other, Number) else NotImplemented

    def backward(self: Host, other: Any) -> Any:
        if type(other) in (int, float, bool):
            return Host(self.trace, f"({_literal(other)} {symbol} {self.text})", f(other, self.value))
        return f(other, self._guard()) if isinstance(other, Number) else NotImplemented

    setattr(Host, f"__{name}__", forward)
    if symbol not in ("<", "<=", ">", ">=", "==", "!="):
        setattr(Host, f"__r{name}__", backward)


for _symbol, _name in {
    "+": "add", "-": "sub", "*": "mul", "/": "truediv", "//": "floordiv", "%": "mod", "**": "pow", "<": "lt", "<=": "le", ">": "gt", ">=": "ge",
    "==": "eq", "!=": "ne",
}.items():  # fmt: skip
    _host_operator(_symbol, _name)
Host.__neg__ = lambda self: Host(self.trace, f"(-{self.text})", -self.value)  # type: ignore[operator]
Host.__abs__ = lambda self: Host(self.trace, f"abs({self.text})", abs(self.value))  # type: ignore[attr-defined]
Host.__pos__ = lambda self: self  # type: ignore[attr-defined,operator]
for _name in (  # what cannot be replayed makes the program one for this number
    "index float int complex round trunc floor ceil divmod rdivmod and rand or ror xor rxor lshift rlshift rshift rrshift invert format str"
).split():
    setattr(Host, f"__{_name}__", lambda self, *args, name=f"__{_name}__": getattr(self._guard(), name)(*(_value(a) for a in args)))


def innermost() -> Trace | None:
    """The trace that operations of this thread end up in, or None."""
    return next((level for level in levels() if isinstance(level, Trace)), None)


def host(container: Any, key: Any) -> Any:
    """container[key], a number (or tuple of them) that jit must read on each call instead of baking it in: optimizers read their settings so.

    >>> md.host({"lr": 0.1}, "lr")
    0.1
    """
    value = dict.__getitem__(container, key) if isinstance(container, dict) else container[key]
    interp = innermost()
    numbers = value if type(value) is tuple else (value,)
    return value if interp is None or any(type(v) not in (int, float) for v in numbers) else interp.host(container, key, value)


# ---- tracing a function --------------------------------------------------------------------------------------------------------------------
def finish(equations: Sequence[Equation], inputs: Sequence[Var], outputs: Sequence[Atom], name: str = "program") -> Graph:
    """Those of the equations that the outputs need, simplified, as a Graph."""
    from minidl.passes import simplify

    return simplify(Graph(inputs, equations, outputs, name))


def asarray_here(value: Any) -> Tensor:
    """A Tensor in the current context, from a Tensor, a number, a Host scalar or another array."""
    if isinstance(value, Tensor):
        return value
    from minidl.dtypes import of_scalar_type
    from minidl.tensors import scalar_type

    kind = value.number if isinstance(value, Host) else scalar_type(value)
    if kind is None or state.interpreter is None:
        from minidl.ops import asarray

        return asarray(value)
    dtype = of_scalar_type(kind)
    interp = state.interpreter
    if isinstance(value, Host):
        return value.tensor(dtype)
    return Tensor(interp.call(table["full"], (), {"shape": (), "value": value, "dtype": dtype}), interp, dtype)


def trace(f: Callable[..., Any]) -> Callable[..., Graph]:
    """A function that returns the Graph of f for given arguments; tensors that f reads from outside are further inputs, and `graph.captured` those
    tensors; `graph.written` are those that f changes, which the graph does not.
    Raises TypeError for what is no function; the sum of a matrix's diagonal is md.linalg.trace.

    >>> print(md.trace(lambda x: md.sin(x) * 2.0)(md.ones((3,))))
    def program(a: 'f32[3]'):
        b = sin(a)  # f32[3]
        c = mul(b, 2.0)  # f32[3]
        return (c,)
    <BLANKLINE>
    """

    if not callable(f):
        raise TypeError(f"trace: expected a function, got {shown(f)}; md.linalg.trace is the sum of a matrix's diagonal")

    def traced(*args: Any, **kwargs: Any) -> Graph:
        leaves, _ = tree.flatten((args, kwargs))
        t = Trace(state.interpreter)
        t.body = True
        with interpreting(t):
            inputs = [t.lift(v)[0] for v in leaves if isinstance(v, Tensor)]
            try:
                outs = tree.leaves(f(*args, **kwargs))
            except Exception as error:
                note_line(error, getattr(f, "__name__", "the function"))
                raise
            payloads = [t.lift(asarray_here(o))[0] for o in outs]
        t.closed, written = True, tuple(t.written.values())
        known = set(inputs)
        read = [(e[0], e[1]) for e in t.captured.values() if e[1] not in known] + [(h.value, v) for h, v in t.hosts.values()]
        graph = finish(t.equations, [*dict.fromkeys(inputs), *(v for _, v in read)], payloads)
        graph.captured = tuple(value for value, _ in read)
        graph.written = written
        return graph

    return traced
