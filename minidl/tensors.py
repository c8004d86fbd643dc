"""Tensor, and how a primitive is applied to Tensors.

A Tensor is (payload, xp, dtype, node): a native array and its backend when eager; a symbol and the trace while tracing; a batch and the vmap
level inside vmap. `bind` is the general way to apply a primitive; minidl.generated has a shorter one for the happy case.

Promises: a kernel's failure becomes the shape rule's message, alike on every backend.
"""

from __future__ import annotations

import contextlib
import math
import re
import weakref
from collections.abc import Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from weakref import ref

import numpy as np

from minidl import dtypes
from minidl.backends import default, using
from minidl.context import autocasting, busy, interpreting, levels, state
from minidl.dtypes import DType
from minidl.errors import between, name_it, own
from minidl.graph import Var
from minidl.primitives import table
from minidl.primitives.core import Primitive
from minidl.shapes import describe, prod, show, shown
from minidl.tape import LEAF, Hooked, Leaf, Node, leaf_node, record

#: The gradients that retain_grad keeps, by the numbers of nodes, as long as the tensors live; None where there was none yet.
kept: dict[Any, Tensor | None] = {}


#: Grows with every hook that comes to a leaf, or goes: programs look at hooks only when it has.
hooking = [0]


class Count(int):
    """A number of elements, which knows the shape that they are in."""

    shape: tuple[int, ...]

    def __call__(self, dim: int | None = None) -> Any:
        """The shape, or the size of one axis."""
        if dim is None:
            return self.shape
        if not -len(self.shape) <= dim < len(self.shape):
            raise IndexError(f"size: axis {dim} is out of range for {len(self.shape)} dimensions")
        return self.shape[dim]


class Removal:
    """What takes a hook away again, once: when it is called, as is its method `remove`."""

    __slots__ = ("hook", "hooks")

    def __init__(self, hooks: list[Any], hook: Any):
        self.hooks, self.hook = hooks, hook

    def remove(self) -> None:
        """Take the hook away, if it is still there."""
        if self.hook in self.hooks:
            hooking[0] += 1
            self.hooks.remove(self.hook)
        self.hooks = []

    __call__ = remove


class Tensor:
    """An n-dimensional array with a dtype, on a backend, with or without a place on the tape.

    Make one with `md.tensor`, `md.asarray` or a creation function, not by calling this class. Setting `grad` raises RuntimeError for the result of
    an operation, and ValueError for a gradient of another shape or dtype.

    >>> x = md.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    >>> (x * x).sum().backward()
    >>> x.shape, x.grad.tolist()
    ((2, 2), [[2.0, 4.0], [6.0, 8.0]])
    """

    __slots__ = ("__weakref__", "dtype", "node", "of", "paused", "payload", "xp")
    paused: Node  # what it has on the tape while requires_grad is on, kept while it is off
    __array_ufunc__ = None  # so that ndarray * Tensor asks Tensor
    __array_priority__ = 1000

    def __init__(self, payload: Any = None, xp: Any = None, dtype: Any = None, node: Node | None = None):
        if dtype.__class__ is not DType:
            raise TypeError("Tensor: make one of data with md.tensor(data), and one of a shape with md.empty(shape)")
        self.payload = payload
        self.xp = xp
        self.dtype: DType = dtype
        self.node: Any = node
        self.of: Any = None  # what this is a view of

    # ---- what it is -------------------------------------------------------------------------------------------------------------------
    @property
    def shape(self) -> tuple[int, ...]:
        """The sizes of the axes. Never consults the context: a Tensor's shape and dtype do not change."""
        return tuple(self.payload.shape)

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.payload.shape)

    @property
    def size(self) -> Count:
        """Number of elements. Called, as PyTorch's x.size() and x.size(0), it gives the sizes of the axes."""
        out = Count(prod(self.payload.shape))
        out.shape = tuple(self.payload.shape)
        return out

    @property
    def backend(self) -> str:
        """The name of the backend that holds the data."""
        return home(self.xp).name

    @property
    def device(self) -> str:
        """Where the data lies, e.g. "cpu" or "cuda:0"."""
        return self.xp.device

    # ---- the tape ---------------------------------------------------------------------------------------------------------------------
    @property
    def requires_grad(self) -> bool:
        """Whether operations on this tensor are recorded for differentiation."""
        return self.node is not None

    @requires_grad.setter
    def requires_grad(self, on: bool) -> None:
        self.requires_grad_(on)

    def requires_grad_(self, on: bool = True) -> Tensor:
        """Mark this leaf as one whose gradient is wanted, in place; switched off, it keeps the one that it has. Raises RuntimeError for integer
        dtypes and non-leaves."""
        if on and self.node is None:
            if not self.dtype.inexact:
                raise RuntimeError(
                    f"requires_grad: only float and complex tensors have gradients, not {self.dtype.short}; convert with .to(md.float32)"
                )
            self._turn(getattr(self, "paused", None) or leaf_node(self.xp))
            sever(self)  # what is trained is a tensor of its own
        elif not on and self.node is not None:
            if self.leaf is None:
                raise RuntimeError("requires_grad: only leaves can be switched off; use .detach() for the result of an operation")
            self.paused = self.node
            self._turn(None)
        return self

    def _turn(self, node: Node | None) -> None:
        interp = state.interpreter if busy[0] else None
        while interp is not None and interp is not self.xp:
            if hasattr(interp, "turn"):
                interp.turn(self, node)
            interp = interp.parent
        self.node = node

    @property
    def leaf(self) -> Leaf | None:
        """What a leaf shares with its node; None for results of operations and untracked tensors."""
        node = self.node
        return node[3] if node is not None and node[1] is LEAF else None

    @property
    def is_leaf(self) -> bool:
        """Whether this tensor is no recorded result."""
        return self.node is None or self.node[1] is LEAF

    def _keeper(self, wanted: bool = False) -> Leaf | None:
        """What keeps the gradient while requires_grad is off: the leaf that this was or will be. Inside a trace there always is one, so that no
        gradient is a guard, too."""
        if not hasattr(self, "paused") and (wanted or (busy[0] and state.interpreter is not None)):
            self.paused = leaf_node(self.xp)
            self.paused[3].born = self.paused[3].born if self.xp is state.interpreter else 0  # older than the trace that looks
        return self.paused[3] if hasattr(self, "paused") else None

    @property
    def grad(self) -> Tensor | None:
        """The gradient that backward passes have accumulated in this leaf, or None."""
        node = self.node
        leaf = self._keeper() if node is None else node[3] if node[1] is LEAF else None
        if leaf is None:
            return kept.get(node[0]) if kept and node is not None else None
        interp = state.interpreter if busy[0] else None
        return leaf.grad if interp is None else interp.read_grad(leaf)

    @grad.setter
    def grad(self, value: Tensor | None) -> None:
        leaf = self._keeper(value is not None) if self.node is None else self.leaf
        if leaf is None:
            if value is None:
                if self.node is not None and self.node[0] in kept:
                    kept[self.node[0]] = None
                return
            raise RuntimeError("grad: the result of an operation has none that could be set; only a leaf has")
        if value is not None and (value.shape != self.shape or value.dtype is not self.dtype):
            raise ValueError(f"grad: wanted {describe(self)} as the tensor, not {describe(value)}")
        write_grad(leaf, value)

    def register_hook(self, hook: Any) -> Any:
        """Call hook(gradient) when the gradient of this tensor is computed; a returned Tensor replaces it. Returns a function that
        removes it, as does its `.remove()`.

        Raises RuntimeError for a tensor that does not require grad.
        """
        if self.node is None:
            raise RuntimeError("register_hook: this tensor does not require grad")
        leaf = self.leaf
        if leaf is not None:
            hooks, hooking[0] = leaf.hooks, hooking[0] + 1
            for level in levels():
                if hasattr(level, "hooked"):  # a trace, which must know of what would happen only once
                    level.hooked.append((leaf, hook))
        else:
            if not isinstance(self.node[1], Hooked):
                self.node[1] = Hooked(self.node[1])
            hooks = self.node[1].hooks
        hooks.insert(len(hooks) - any(hasattr(h, "number") for h in hooks), hook)  # what retain_grad keeps has been through all of them
        return Removal(hooks, hook)

    def retain_grad(self) -> None:
        """Let `.grad` of this result of an operation, too, be what backward passes from now on accumulate there (a leaf's always is): the gradient of
        what it holds by then, also where it was changed in place. Raises RuntimeError for a tensor that does not require grad."""
        if self.leaf is None:
            number: int = self.node[0] if self.node is not None else 0
            if number in kept:
                return

            def keep(g: Tensor) -> None:
                if number in kept:  # else the tensor is gone, and with it who could ask
                    before = kept[number]
                    own = g if busy[0] and state.interpreter is not None else Tensor(g.payload, g.xp, g.dtype, g.node)
                    kept[number] = own if before is None else before + g

            self.register_hook(keep)
            keep.number, kept[number] = number, None  # type: ignore[attr-defined]
            weakref.finalize(self, kept.pop, number, None)

    def detach(self) -> Tensor:
        """The same values without a place on the tape. What is stored in the result in place is stored in this tensor as well."""
        interp = state.interpreter if busy[0] else None
        out = Tensor(self.payload, self.xp, self.dtype) if interp is None else interp.detach(self)
        return view(out, self, None)

    def assign(self, value: Tensor) -> Tensor:
        """Give this Tensor another value of the same shape and dtype, in place; the heart of `x += y`, `x[i] = y` and optimizers.

        Raises RuntimeError for a leaf that requires grad outside no_grad, ValueError for another shape, TypeError for another dtype.
        """
        before = self.node
        if value.shape != self.shape or value.dtype is not self.dtype:
            kind = ValueError if value.shape != self.shape else TypeError
            raise kind(f"in-place: {describe(value)} cannot be stored in {describe(self)}; shape and dtype of a tensor do not change")
        if self.leaf is not None:
            if state.grad:
                raise RuntimeError("in-place: a leaf that requires grad can only be changed under md.no_grad()")
            value = value.detach()
        if self.of is not None:
            from minidl.ops.views import through  # a later room, for views

            through(self, value)
        if busy[0] and state.journal is not None:
            state.journal.note(self)
        interp = state.interpreter if busy[0] else None
        if interp is not None:
            interp.assign(self, value)
        else:
            if value.xp is not self.xp:
                mixed("in-place", self.xp, value.xp)
            self.payload = value.payload
            if self.leaf is None and state.grad:  # under no_grad the tape does not notice
                self.node = value.node
        if before is not None and before[0] in kept and self.node is not before:  # retain_grad follows
            held = kept.pop(before[0])
            if self.node is not None:
                self.retain_grad()
                kept[self.node[0]] = held
        return self

    __hash__ = object.__hash__

    if TYPE_CHECKING:  # operators and methods come from the tables of minidl.ops.methods, where a checker cannot see them
        __add__: Any; __radd__: Any; __sub__: Any; __rsub__: Any; __mul__: Any; __rmul__: Any; __truediv__: Any; __rtruediv__: Any  # noqa: E702
        __matmul__: Any; __rmatmul__: Any; __pow__: Any; __rpow__: Any; __floordiv__: Any; __mod__: Any; __neg__: Any; __invert__: Any  # noqa: E702
        __lt__: Any; __le__: Any; __gt__: Any; __ge__: Any; __and__: Any; __or__: Any; __xor__: Any; __getitem__: Any; __setitem__: Any  # noqa: E702
        __eq__: Any; __ne__: Any; __iter__: Any; __len__: Any; __float__: Any; __int__: Any; __index__: Any  # noqa: E702

        def __getattr__(self, name: str) -> Any: ...


#: How often the data of a tensor were taken away from its views, by its id, as long as it lives.
_cuts: dict[int, int] = {}


def view(out: Tensor, base: Tensor, step: Any) -> Tensor:
    """Say of a new tensor that it shows elements of another, by a step of minidl.ops.views; returns it.

    >>> x = md.zeros(3)
    >>> row = md.extend.view(md.getitem(x, 1), x, ("index", 1))
    >>> row.add_(2.0).item(), x.tolist()
    (2.0, [0.0, 2.0, 0.0])
    """
    above = base.of
    if above is not None:
        if step is None is above[2] and living(above) is not None:  # detached twice
            out.of = above
            return out
        gone, alive = 0, above
        while alive is not None and living(alive) is None:
            gone, alive = gone + 1, alive[1]
        if alive is None:
            above = None  # nobody can see what is written there
        elif gone > 16:
            from minidl.ops.views import folded

            above = base.of = folded(above, alive)
    out.of = ref(base), above, step, base.payload.shape, _cuts.get(id(base), 0)
    return out


def living(of: Any) -> Tensor | None:
    """The base at one step above a view, if it lives and was not given other data since."""
    base: Tensor | None = of[0]()
    return base if base is not None and _cuts.get(id(base), 0) == of[4] else None


def sever(x: Tensor, cut: Any = False) -> None:
    """Make of a view a tensor of its own. cut: and its own views end here; where it is the data that x is given instead, not if they are its own,
    as for `x.data -= y`. A program does it again in every call.

    >>> x = md.zeros(3)
    >>> row = x[1]
    >>> md.extend.sever(row)
    >>> row.add_(2.0).item(), x.tolist()
    (2.0, [0.0, 0.0, 0.0])
    """
    if isinstance(cut, Tensor):
        cut = cut is not x and (cut.of is None or cut.of[2] is not None or living(cut.of) is not x)
    for level in levels() if busy[0] else ():
        if hasattr(level, "severed"):
            level.severed.append((x, x.of, cut))
    x.of = None
    if cut:
        if id(x) not in _cuts:
            weakref.finalize(x, _cuts.pop, id(x), None)
        _cuts[id(x)] = _cuts.get(id(x), 0) + 1


def assign_alone(x: Tensor, value: Tensor) -> None:
    """Assign to a tensor, and not to what it is a view of, which gets a value of its own."""
    of, x.of = x.of, None
    try:
        x.assign(value)
    finally:
        x.of = of


def home(xp: Any) -> Any:
    """The backend below all interpreters: where the program of a trace runs, and where constants without an operand are made."""
    while not hasattr(xp, "asarray"):
        xp = xp.home
    return xp


def write_grad(leaf: Leaf, value: Tensor | None) -> None:
    """Set a leaf's gradient in the current context."""
    interp = state.interpreter if busy[0] else None
    if interp is None:
        leaf.grad = value
    else:
        interp.write_grad(leaf, value)


def mixed(name: str, a: Any, b: Any) -> None:
    """Raise the error for operands on two backends or devices, or of an interpreter that has gone."""
    for xp in (a, b):
        if not hasattr(xp, "asarray"):
            xp.gone()
    what, way = ("devices", f"device={a.device!r}") if a.name == b.name else ("backends", f"backend={a.name!r}")
    raise RuntimeError(f"{name}: operands live on two {what}, {a.name} ({a.device}) and {b.name} ({b.device}); move one with .to({way})")


# ---- applying a primitive ---------------------------------------------------------------------------------------------------------------
class Namespace(SimpleNamespace):
    """The primitives as functions of Tensors: the xp on which rules compute when they must be differentiable themselves."""

    @staticmethod
    def dtype_of(x: Any) -> DType:
        """The dtype of a Tensor."""
        return x.dtype


#: Filled by minidl.generated.
ns = Namespace()


def scalar_payload(xp: Any, value: Any, dtype: DType) -> Any:
    """A Python scalar as a native 0-d array, from the backend's cache where it may be (not NaN; zeros of both signs are apart)."""
    key = (value, value.__class__, dtype)
    keep = value == value and (value or value.__class__ is int)
    if keep and key in xp.scalars:
        return xp.scalars[key]
    if xp.needs_scope:
        with xp.scope():
            out = xp.scalar(in_range(value, dtype), dtype)
    else:
        out = xp.scalar(in_range(value, dtype), dtype)
    if keep:
        if len(xp.scalars) >= 4096:  # numbers that are new each time, such as those of a schedule, must not keep others out
            xp.scalars.clear()
        xp.scalars[key] = out
    return out


def in_range(value: Any, dtype: DType) -> Any:
    """A Python number as an operand of this dtype: infinite beyond a float's range. Raises OverflowError for an integer that does not fit."""
    if dtype.is_integer and not -(2 ** (dtype.bits - 1)) * (dtype.kind == "int") <= value < 2 ** (dtype.bits - (dtype.kind == "int")):
        raise OverflowError(f"the Python integer {shown(value)} does not fit {dtype.name}; convert the tensor with .to(md.int64) first")
    if dtype.is_float and isinstance(value, (int, float)):
        try:
            value = float(value)
        except OverflowError:
            return math.inf if value > 0 else -math.inf
        if abs(value) >= _INFINITE[dtype.name]:
            return math.copysign(math.inf, value)  # without the complaint that some libraries have
    return value


#: From where on numbers round to infinity.
_INFINITE = {"float16": 65520.0, "bfloat16": 2.0**127 * (2 - 2**-8), "float32": 2.0**127 * (2 - 2**-24), "float64": math.inf}


_SCALARS = (bool, int, float, complex)


def scalar_type(value: Any) -> type | None:
    """bool, int, float or complex for a weak Python scalar (np.float64 and np.complex128 are such); None for anything else.

    >>> md.extend.scalar_type(2.0), md.extend.scalar_type(md.tensor(2.0))
    (<class 'float'>, None)
    """
    for kind in _SCALARS:
        if isinstance(value, kind):
            return kind
    return getattr(value, "number", None)  # a Host scalar knows its type


def _array(value: Any, name: str, xp: Any) -> Tensor:
    """An operand that is no Tensor and no Python scalar: NumPy data becomes a Tensor on the same backend."""
    if isinstance(value, (np.ndarray, np.generic)):
        backend = xp if hasattr(xp, "asarray") else xp.home
        return from_numpy(value, backend)
    raise TypeError(f"{name}: expected a Tensor, a Python number or a NumPy array, got {shown(value)}; convert it with md.asarray")


def from_numpy(value: np.ndarray | np.generic, xp: Any, dtype: DType | None = None) -> Tensor:
    """A Tensor with a copy of NumPy data, on the given backend. Raises TypeError for masked elements and for dtypes that minidl does not have.

    >>> import numpy
    >>> md.extend.from_numpy(numpy.ones(2), md.extend.home()).dtype
    minidl.float64
    """
    if type(value) is not np.ndarray:
        if np.ma.is_masked(value):
            raise TypeError("the NumPy array has masked elements, which a tensor cannot have; say what they are: .filled(value)")
        value = np.asarray(value)
    dtype = dtype or dtypes.from_numpy(value.dtype)
    with xp.scope():
        out = Tensor(xp.asarray(value, dtype), xp, dtype)
    if state.interpreter is not None:
        state.interpreter.constant(out)
    return out


def promoted(primitive: Primitive, args: Sequence[Any], xp: Any) -> tuple[list[Any], DType | None]:
    """The operands with their common dtype applied: Tensors are cast, Python scalars left for the payload step."""
    out = list(args)
    joins = primitive.joins if primitive.joins is not None else range(len(out))
    common: DType | None = None
    weak: type | None = None
    for i, a in enumerate(out):
        if not isinstance(a, Tensor):
            kind = scalar_type(a)
            if kind is None:
                a = out[i] = _array(a, primitive.name, xp)
            elif i in joins:
                weak = kind if weak is None or _SCALARS.index(kind) > _SCALARS.index(weak) else weak
                continue
        if i in joins:
            if common is not None and common is not a.dtype and dtypes.Defaults.strict:
                raise TypeError(f"{primitive.name}: {common.short} with {a.dtype.short} under md.strict_promotion(); convert one with .to(...)")
            try:
                common = a.dtype if common is None else dtypes.promote(common, a.dtype)
            except TypeError as error:
                raise TypeError(f"{primitive.name}: {error}") from None
    if primitive.promote == "none" or not out:
        return out, common
    if weak is not None:
        common = dtypes.of_scalar_type(weak) if common is None else dtypes.promote_scalar(common, weak)
    assert common is not None
    if primitive.promote == "float" and not common.inexact:
        common = dtypes.Defaults.floating
    for i, a in enumerate(out):
        if isinstance(a, Tensor):
            want = common if i in joins else primitive.others
            if want is not None and a.dtype is not want and (i in joins or _loses_nothing(a.dtype, want, primitive)):
                out[i] = bind(table["cast"], (a,), {"dtype": want})
    return out, common


def _loses_nothing(have: DType, want: DType, primitive: Primitive) -> bool:
    """Indices of any integer dtype become int64; a condition must be bool already."""
    if have.is_integer and want.is_integer:
        return True
    raise TypeError(f"{primitive.name}: expected {want.name} where {have.name} came; convert it with .to(md.{want.name}) or compare it with 0")


def avals(payloads: Sequence[Any], xp: Any, common: DType | None) -> list[Var]:
    """Shapes and dtypes of operands, for a shape rule."""
    return [Var(tuple(p.shape), xp.dtype_of(p)) if hasattr(p, "shape") else Var((), common or dtypes.float32) for p in payloads]


def bind(primitive: Primitive, args: Sequence[Any], params: dict[str, Any], plain: bool = False) -> Any:
    """Apply a primitive in the current context and record it. Returns a Tensor, or a tuple of them for a primitive with several results. Raises what
    its shape and dtype rule says of arguments that do not fit. plain: without the derivative of one that carries graphs.

    >>> bind(md.extend.table["sum"], [md.ones((2, 3))], {"axis": (0,), "keepdims": False}).tolist()
    [2.0, 2.0, 2.0]
    """
    if primitive.apply is not None and not plain:
        return primitive.apply(args, params)
    try:
        return _bind(primitive, args, params)
    except Exception as error:
        if own(error):
            name_it(primitive.name, error)
            raise
        if not between(error):  # a rule or a decomposition of somebody's own
            raise
        said = f"{primitive.name}: cannot compute with {', '.join(map(shown, args))}{' and ' if params else ''}"
        raise ValueError(f"{said}{', '.join(f'{k}={shown(v)}' for k, v in params.items())}") from error  # which may be a fault of minidl's


def _bind(primitive: Primitive, args: Sequence[Any], params: dict[str, Any]) -> Any:
    if primitive.inline and (not primitive.differentiable or (busy[0] and (state.interpreter is not None or state.autocast is not None))):
        home = next((a.xp for a in args if isinstance(a, Tensor) and hasattr(a.xp, "asarray")), None)
        with contextlib.nullcontext() if home is None or state.interpreter is not None else using(home):
            return primitive.decompose(ns, *args, **params)  # type: ignore[misc]
    if busy[0] and state.autocast is not None:
        dtype = state.autocast.wanted(primitive.name, args)
        with autocasting(None):  # rules of batching and decompositions compute on what is decided here
            if dtype is not None:
                args = [bind(table["cast"], (a,), {"dtype": dtype}) if isinstance(a, Tensor) and a.dtype is not dtype else a for a in args]
            return _bind(primitive, args, params)
    interp = state.interpreter
    xp = interp
    if interp is None:
        for a in args:
            if isinstance(a, Tensor):
                if xp is None:
                    xp = a.xp
                elif a.xp is not xp:
                    mixed(primitive.name, xp, a.xp)
        if xp is None:
            xp = default()
        elif not hasattr(xp, "asarray"):
            xp.gone()
    args, common = promoted(primitive, args, xp)
    payloads: list[Any] = []
    nodes: list[Node | None] = []
    for i, a in enumerate(args):
        if isinstance(a, Tensor):
            if interp is None:
                payload, node = a.payload, a.node
            else:
                payload, node = interp.lift(a)
            payloads.append(payload)
            nodes.append(node)
        else:
            dtype = primitive.others if primitive.joins is not None and i not in primitive.joins else common
            if dtype is None:  # a primitive that does not promote
                dtype = dtypes.of_scalar_type(scalar_type(a) or float)
            payloads.append(scalar_payload(xp, a, dtype) if interp is None else interp.scalar(a, dtype))
            nodes.append(None)
    if primitive.accepts is not None and common is not None and not primitive.accepts(common):
        primitive.infer(*avals(payloads, xp, common), **params)
    if interp is None:
        try:
            if primitive.check_first:
                primitive.infer(*avals(payloads, xp, common), **params)
            if xp.needs_scope:
                with xp.scope():
                    out = getattr(xp, primitive.name)(*payloads, **params)
            else:
                out = getattr(xp, primitive.name)(*payloads, **params)
        except Exception as error:
            if own(error):
                raise
            inferred: Any = primitive.infer(*avals(payloads, xp, common), **params)  # raises the message that every backend shares
            _no_memory(primitive, xp, error, inferred if primitive.multiple else (inferred,))
            raise
    else:
        out = interp.call(primitive, payloads, params)
    if primitive.multiple:
        outs = tuple(out)
        tracked = state.grad and any(n is not None for n in nodes) and primitive.differentiable and xp.dtype_of(outs[0]).inexact
        node = record(primitive, xp, payloads, nodes, outs, params) if tracked else None
        return tuple(Tensor(o, xp, xp.dtype_of(o), None if i else node) for i, o in enumerate(outs))
    dtype = xp.dtype_of(out)
    node = None
    if state.grad and dtype.inexact and primitive.differentiable and any(n is not None for n in nodes):
        node = record(primitive, xp, payloads, nodes, (out,), params)
    return Tensor(out, xp, dtype, node)


def _no_memory(primitive: Primitive, xp: Any, error: Exception, results: Sequence[Any]) -> None:
    """Raise MemoryError where a kernel failed because its results are too large."""
    nbytes = sum(prod(shape) * dtype.itemsize for shape, dtype in results)
    if isinstance(error, MemoryError) or (nbytes > 2**20 and (nbytes > 2**62 or re.search(r"memory|RESOURCE_EXHAUSTED|too big", str(error)))):
        what = show(*(SimpleNamespace(shape=s, dtype=d) for s, d in results))
        raise MemoryError(f"{primitive.name}: no memory on {xp.device} for the result {what} of {nbytes / 2**30:.3g} GiB") from None


def batch_call(parent: Any) -> Any:
    """`call(name, *tensors, **params)` for batching rules: primitives applied one level up."""

    def call(name: str, *args: Any, **params: Any) -> Any:
        with interpreting(parent):
            return bind(table[name], args, params)

    return call
