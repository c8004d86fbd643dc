"""Tensor, and how a primitive is applied to Tensors.

A Tensor is (payload, xp, dtype, node): a native array and its backend when eager; a symbol and the trace while tracing; a batch and the vmap
level inside vmap. `bind` is the general way to apply a primitive; `fast` holds generated straight-line code for the happy case of
elementwise primitives (eager, one backend, one dtype), which falls back on `bind`.

Promises: the happy path looks at no thread-local; a kernel's failure becomes the shape rule's message, alike on every backend.
"""

from __future__ import annotations

import contextlib
import functools
import math
import re
import weakref
from collections.abc import Sequence
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

from minidl import dtypes
from minidl.backends import default, using
from minidl.context import autocasting, busy, interpreting, state
from minidl.dtypes import DType
from minidl.emit import load, on_first_call
from minidl.errors import name_it, own
from minidl.graph import Var
from minidl.precision import wanted
from minidl.primitives import table
from minidl.primitives.core import Primitive
from minidl.shapes import prod, show, shown
from minidl.tape import LEAF, Hooked, Leaf, Node, count, kind_of, leaf_node, record


class Tensor:
    """An n-dimensional array with a dtype, on a backend, with or without a place on the tape.

    Make one with `md.tensor`, `md.asarray` or a creation function, not by calling this class. Setting `grad` raises RuntimeError for a tensor that is
    no leaf which requires grad, and ValueError for a gradient of another shape or dtype.

    >>> x = md.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    >>> (x * x).sum().backward()
    >>> x.shape, x.grad.tolist()
    ((2, 2), [[2.0, 4.0], [6.0, 8.0]])
    """

    __slots__ = ("__weakref__", "dtype", "node", "payload", "xp")
    __array_ufunc__ = None  # so that ndarray * Tensor asks Tensor
    __array_priority__ = 1000

    def __init__(self, payload: Any, xp: Any, dtype: DType, node: Node | None = None):
        self.payload = payload
        self.xp = xp
        self.dtype = dtype
        self.node: Any = node

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
    def size(self) -> int:
        """Number of elements."""
        n = 1
        for s in self.payload.shape:
            n *= s
        return n

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
        """Mark this leaf as one whose gradient is wanted, in place; switched off, it loses the one that it has. Raises RuntimeError for integer
        dtypes and non-leaves."""
        if on and self.node is None:
            if not self.dtype.inexact:
                raise RuntimeError(
                    f"requires_grad: only float and complex tensors have gradients, not {self.dtype.short}; convert with .to(md.float32)"
                )
            self.node = leaf_node(self.xp)
        elif not on and self.node is not None:
            if self.leaf is None:
                raise RuntimeError("requires_grad: only leaves can be switched off; use .detach() for the result of an operation")
            self.node = None
        return self

    @property
    def leaf(self) -> Leaf | None:
        """What a leaf shares with its node; None for results of operations and untracked tensors."""
        node = self.node
        return node[3] if node is not None and node[1] is LEAF else None

    @property
    def is_leaf(self) -> bool:
        """Whether this tensor is no recorded result."""
        return self.node is None or self.node[1] is LEAF

    @property
    def grad(self) -> Tensor | None:
        """The gradient that backward passes have accumulated in this leaf, or None."""
        leaf = self.leaf
        if leaf is None:
            return None
        interp = state.interpreter if busy[0] else None
        return leaf.grad if interp is None else interp.read_grad(leaf)

    @grad.setter
    def grad(self, value: Tensor | None) -> None:
        leaf = self.leaf
        if leaf is None:
            if value is None:
                return
            raise RuntimeError("grad: only a leaf that requires grad has .grad")
        if value is not None and (value.shape != self.shape or value.dtype is not self.dtype):
            raise ValueError(f"grad: wanted {describe(self)} as the tensor, not {describe(value)}")
        write_grad(leaf, value)

    def register_hook(self, hook: Any) -> Any:
        """Call hook(gradient) when the gradient of this tensor is computed; a returned Tensor replaces it. Returns a function that removes it.

        Raises RuntimeError for a tensor that does not require grad.
        """
        if self.node is None:
            raise RuntimeError("register_hook: this tensor does not require grad")
        leaf = self.leaf
        if leaf is not None:
            hooks = leaf.hooks
            level = state.interpreter
            while level is not None:
                if hasattr(level, "hooked"):  # a trace, which must know of what would happen only once
                    level.hooked.append((leaf, hook))
                level = level.parent
        else:
            if not isinstance(self.node[1], Hooked):
                self.node[1] = Hooked(self.node[1])
            hooks = self.node[1].hooks
        hooks.append(hook)
        return lambda: hooks.remove(hook) if hook in hooks else None

    def detach(self) -> Tensor:
        """The same values without a place on the tape."""
        interp = state.interpreter if busy[0] else None
        if interp is None:
            return Tensor(self.payload, self.xp, self.dtype)
        return interp.detach(self)

    def assign(self, value: Tensor) -> Tensor:
        """Give this Tensor another value of the same shape and dtype, in place; the heart of `x += y`, `x[i] = y` and optimizers.

        Raises RuntimeError for a leaf that requires grad outside no_grad, ValueError for another shape, TypeError for another dtype.
        """
        if value.shape != self.shape or value.dtype is not self.dtype:
            kind = ValueError if value.shape != self.shape else TypeError
            raise kind(f"in-place: {describe(value)} cannot be stored in {describe(self)}; shape and dtype of a tensor do not change")
        if self.leaf is not None:
            if state.grad:
                raise RuntimeError("in-place: a leaf that requires grad can only be changed under md.no_grad()")
            value = value.detach()
        if busy[0] and state.journal is not None and id(self) not in state.journal:
            state.journal[id(self)] = weakref.ref(self), self.detach()
        interp = state.interpreter if busy[0] else None
        if interp is not None:
            interp.assign(self, value)
        else:
            if value.xp is not self.xp:
                mixed("in-place", self.xp, value.xp)
            self.payload = value.payload
            if self.leaf is None and state.grad:  # under no_grad the tape does not notice
                self.node = value.node
        return self

    __hash__ = object.__hash__

    if TYPE_CHECKING:  # operators and methods come from the tables of minidl.ops.methods, where a checker cannot see them
        __add__: Any; __radd__: Any; __sub__: Any; __rsub__: Any; __mul__: Any; __rmul__: Any; __truediv__: Any; __rtruediv__: Any  # noqa: E702
        __matmul__: Any; __rmatmul__: Any; __pow__: Any; __rpow__: Any; __floordiv__: Any; __mod__: Any; __neg__: Any; __invert__: Any  # noqa: E702
        __lt__: Any; __le__: Any; __gt__: Any; __ge__: Any; __and__: Any; __or__: Any; __xor__: Any; __getitem__: Any; __setitem__: Any  # noqa: E702
        __eq__: Any; __ne__: Any; __iter__: Any; __len__: Any; __float__: Any; __int__: Any; __index__: Any  # noqa: E702

        def __getattr__(self, name: str) -> Any: ...


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


def describe(x: Any) -> str:
    """What messages call an array.

    >>> describe(md.ones((3, 4)))
    'f32[3,4]'
    """
    return f"{x.dtype.short}[{','.join(map(str, x.shape))}]" if hasattr(x, "shape") else repr(x)


def mixed(name: str, a: Any, b: Any) -> None:
    """Raise the error for operands on two backends."""
    raise RuntimeError(
        f"{name}: operands live on two backends, {a.name} ({a.device}) and {b.name} ({b.device}); move one with .to(backend={a.name!r})"
    )


# ---- applying a primitive ---------------------------------------------------------------------------------------------------------------
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
    if keep and len(xp.scalars) < 4096:
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
    """bool, int, float or complex for a weak Python scalar (np.float64 and np.complex128 are such); None for anything else."""
    for kind in _SCALARS:
        if isinstance(value, kind):
            return kind
    return getattr(value, "number", None)  # a Host scalar knows its type


def _array(value: Any, name: str, xp: Any) -> Tensor:
    """An operand that is no Tensor and no Python scalar: NumPy data becomes a Tensor on the same backend."""
    if isinstance(value, (np.ndarray, np.generic)):
        backend = xp if hasattr(xp, "asarray") else xp.home
        return from_numpy(np.asarray(value), backend)
    raise TypeError(f"{name}: expected a Tensor, a Python number or a NumPy array, got {shown(value)}; convert it with md.asarray")


def from_numpy(value: np.ndarray, xp: Any, dtype: DType | None = None) -> Tensor:
    """A Tensor with a copy of NumPy data, on the given backend.

    >>> import numpy
    >>> md.extend.from_numpy(numpy.ones(2), md.extend.home()).dtype
    minidl.float64
    """
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
            if common is not None and common is not a.dtype and dtypes.StrictPromotion.on:
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


def bind(primitive: Primitive, args: Sequence[Any], params: dict[str, Any]) -> Any:
    """Apply a primitive in the current context and record it. Returns a Tensor, or a tuple of them for a primitive with several results. Raises what
    its shape and dtype rule says of arguments that do not fit.

    >>> bind(md.extend.table["sum"], [md.ones((2, 3))], {"axis": (0,), "keepdims": False}).tolist()
    [2.0, 2.0, 2.0]
    """
    try:
        return _bind(primitive, args, params)
    except Exception as error:
        if own(error):
            name_it(primitive.name, error)
            raise
        said = f"{primitive.name}: cannot compute with {', '.join(map(shown, args))}"
    raise ValueError(f"{said}{' and ' if params else ''}{', '.join(f'{k}={shown(v)}' for k, v in params.items())}")


def _bind(primitive: Primitive, args: Sequence[Any], params: dict[str, Any]) -> Any:
    if primitive.inline and (not primitive.differentiable or (busy[0] and (state.interpreter is not None or state.autocast is not None))):
        home = next((a.xp for a in args if isinstance(a, Tensor) and hasattr(a.xp, "asarray")), None)
        with contextlib.nullcontext() if home is None or state.interpreter is not None else using(home):
            return primitive.decompose(ns, *args, **params)  # type: ignore[misc]
    if busy[0] and state.autocast is not None:
        dtype = wanted(primitive.name, args)
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


# ---- generated code for the happy case ------------------------------------------------------------------------------------------------
_CHECK = {
    k: f"dt.fast{'_' + k if k not in ('number', 'any') else ''} and " for k in ("number", "any", "inexact", "float", "real", "numeric", "ordered")
}


def _node(primitive: Primitive, live: tuple[int, ...], env: dict[str, Any]) -> str:
    kind = kind_of(primitive, live, False, len(primitive.args))
    name = "K" + "".join(map(str, live))
    env[name] = kind
    text = {"out": "out"}
    for a, local in zip(primitive.args, "ab", strict=False):
        text |= {a: local, f"{a}_shape": f"{local}.shape", f"{a}_dtype": "dt"}
    parts = ["next(count)", name, "xp", *("nm"[i] for i in live), *(text[r] for r in kind.residuals)]
    return f"[{', '.join(parts)}]"


def _operation(name: str, operands: str, indent: str) -> list[str]:
    return [f"{indent}f = xp.quick.{name}; out = f({operands})"]  # apart: Python looks for a method in the class first, and finds none


def _environment(primitive: Primitive) -> dict[str, Any]:
    """The globals of a generated operation."""
    own = {"P": primitive, "NONE": {}, "int64": dtypes.int64, "bool_": dtypes.bool_}
    return {"Tensor": Tensor, "new": object.__new__, "busy": busy, "count": count, "bind": bind, "record": record, **own}


def _give(dtype: str, node: str) -> str:
    """Return a new Tensor; setting four slots costs less than calling the class."""
    return f"t = new(Tensor); t.payload = out; t.xp = xp; t.dtype = {dtype}; t.node = {node}; return t"


def generate(primitive: Primitive, only: str, out_dtype: str) -> Any:
    """The eager operation of an elementwise primitive with one or two arguments, as one straight-line function."""
    name, env = primitive.name, _environment(primitive)
    give = functools.partial(_give, out_dtype)
    track = primitive.differentiable
    check = _CHECK[only]
    if len(primitive.args) == 1:
        lines = [f"def {name}(x, /):", "    try:", "        xp = x.xp; dt = x.dtype", f"        if {check}not busy[0]:", "            a = x.payload"]
        lines += _operation(name, "a", " " * 12)
        lines += ["            n = x.node", f"            if n is None: {give('None')}"] if track else [f"            {give('None')}"]
        if track:
            lines.append(f"            {give(_node(primitive, (0,), env))}")
        lines += ["    except Exception: pass", "    return bind(P, (x,), NONE)"]
        return load("\n".join(lines) + "\n", env, name)
    both = [
        "        if n is None:",
        f"            if m is None: {give('None')}",
    ]
    lines = [
        f"def {name}(x, y, /):", "    try:", "        xp = x.xp; dt = x.dtype; c = y.__class__",
        "        if c is float or c is int:",
        f"            if {check}(dt.inexact or c is int) and not busy[0]:",
        "                a = x.payload; b = xp.scalars[y, c, dt]",
        *_operation(name, "a, b", " " * 16),
        *(["                n = x.node"] if track and primitive.vjp(0) else []),
        "                " + ("if n is None: " if track and primitive.vjp(0) else "") + f"{give('None')}",
        *([f"                {give(_node(primitive, (0,), env))}"] if track and primitive.vjp(0) else []),
        f"        elif {check}y.xp is xp and y.dtype is dt and not busy[0]:",
        "            a = x.payload; b = y.payload",
        *_operation(name, "a, b", " " * 12),
    ]  # fmt: skip
    if not track:
        lines.append(f"            {give('None')}")
    else:
        lines += ["            n = x.node; m = y.node", *("    " + b for b in both)]
        lines += [
            f"                if a.shape == b.shape: {give(_node(primitive, (1,), env))}",
            "            elif a.shape == b.shape:",
            f"                if m is None: {give(_node(primitive, (0,), env))}",
            f"                {give(_node(primitive, (0, 1), env))}",
            f"            {give('record(P, xp, (a, b), (n, m), (out,), NONE)')}",
        ]
    lines += ["    except Exception: pass", "    return bind(P, (x, y), NONE)"]
    return load("\n".join(lines) + "\n", env, name)


#: Primitives of one array with static params that take the straight line, too: the dtypes for which they do, and the result's dtype.
_STATIC = {
    **dict.fromkeys("sum prod cumsum cumprod reshape permute broadcast_to flip slice unslice pad tril triu".split(), ("number", "dt")),
    **dict.fromkeys("max min cummax cummin".split(), ("real", "dt")),
    **dict.fromkeys("root gelu logsumexp softmax log_softmax cumlogsumexp".split(), ("float", "dt")),
    **dict.fromkeys("argmax argmin argsort".split(), ("real", "int64")), "cast": ("number", "dtype"),
}  # fmt: skip


def generate_static(primitive: Primitive, only: str, out_dtype: str) -> Any:
    """The eager operation of a primitive of one array with static params, as one straight-line function. Its callers have checked the params."""
    name, params = primitive.name, primitive.params
    env = _environment(primitive)
    passed = ", ".join(f"{p}={p}" for p in params)
    give = functools.partial(_give, out_dtype)
    lines = [f"def {name}(x, /, *, {', '.join(params)}):", "    try:", "        xp = x.xp; dt = x.dtype"]
    lines += [f"        if {_CHECK[only]}not busy[0]:", "            a = x.payload", *_operation(name, f"a, {passed}", " " * 12)]
    lines.append("            n = x.node")
    if primitive.differentiable:
        text = {"x": "a", "out": "out", "x_shape": "a.shape", "x_dtype": "dt", **{p: p for p in params}}
        env["K"] = kind = kind_of(primitive, (0,), False, 1)
        lines.append(f"            if n is not None and {out_dtype}.inexact:")
        residuals = ", ".join(text[r] for r in kind.residuals)
        lines.append(f"                {give(f'[next(count), K, xp, n, {residuals}]')}")
    again = ", ".join(f"{p!r}: {p}" for p in params)
    lines += [f"            {give('None')}", "    except Exception: pass", f"    return bind(P, (x,), {{{again}}})"]
    return load("\n".join(lines) + "\n", env, name)


def _makers(primitive: Primitive) -> Any:
    """For (which inputs are tracked, whether any of these is broadcast) the function that makes the node, from the payloads, results and params;
    None where nothing tracked has a derivative."""
    args = primitive.args
    shapes_of = ", ".join(f"a{i}.shape" for i in range(len(args)))

    @functools.cache
    def maker(tracked: tuple[bool, ...], broadcast: bool) -> Any:
        live = tuple(i for i, t in enumerate(tracked) if t and primitive.vjp(i) is not None)
        if not live:
            return None
        kind = kind_of(primitive, live, broadcast, len(args))
        text = {"out": "outs[0]", "shapes": f"({shapes_of},)", "out_shape": "outs[0].shape", **{f"out{k}": f"outs[{k}]" for k in range(3)}}
        for i, a in enumerate(args):
            text |= {a: f"a{i}", f"{a}_shape": f"a{i}.shape", f"{a}_dtype": f"xp.dtype_of(a{i})"}
        parts = ["next(count)", "K", "xp", *(f"n{i}" for i in live), *(text.get(r, f"params[{r!r}]") for r in kind.residuals)]
        given = ", ".join([*(f"a{i}" for i in range(len(args))), *(f"n{i}" for i in range(len(args)))])
        return load(f"def make(xp, outs, params, {given}): return [{', '.join(parts)}]\n", {"count": count, "K": kind}, "make")

    return maker


def generate_several(primitive: Primitive) -> Any:
    """The eager operation of a primitive of several arrays, or with several results, for floats of one dtype: `bind`, less what they do not need."""
    name, n, joins = primitive.name, len(primitive.args), primitive.joins
    env = {**_environment(primitive), "maker": _makers(primitive), "infer": primitive.infer, "O": primitive.others, "seen": set()}
    xs, payloads, nodes = (", ".join(f"{c}{i}" for i in range(n)) for c in "xan")
    first = joins[0] if joins else 0
    lines = [f"def {name}({xs}, /, **params):", "    try:", f"        xp = x{first}.xp; dt = x{first}.dtype"]
    lines.append("        if dt.fast_float and not busy[0]:")
    for i in range(n):
        if i == first:
            lines.append(f"            a{i} = x{i}.payload; n{i} = x{i}.node")
        elif joins is None or i in joins:
            lines += [f"            c = x{i}.__class__", f"            if c is float or c is int: a{i} = xp.scalars[x{i}, c, dt]; n{i} = None"]
            lines.append(f"            elif x{i}.xp is xp and x{i}.dtype is dt: a{i} = x{i}.payload; n{i} = x{i}.node")
            lines.append("            else: raise TypeError")
        else:
            want = "" if primitive.others is None else f" and x{i}.dtype is O"
            lines += [f"            if x{i}.xp is xp{want}: a{i} = x{i}.payload; n{i} = None", "            else: raise TypeError"]
    if primitive.check_first:  # once for shapes, dtypes and params
        parts = ", ".join(f"a{i}.shape, x{i}.dtype" for i in range(n))
        lines += [f"            key = ({parts}, *params.items())", "            if key not in seen:", f"                infer({xs}, **params)"]
        lines += ["                if len(seen) > 1024: seen.clear()", "                seen.add(key)"]
    lines.append(f"            f = xp.quick.{name}; outs = f({payloads}, **params)")
    lines += [] if primitive.multiple else ["            outs = (outs,)"]
    lines.append("            out = outs[0]; node = None; od = xp.dtype_of(out)")
    if primitive.differentiable:
        tracked = [f"n{i} is not None" for i in range(n)]
        apart = " or ".join(f"(n{i} is not None and a{i}.shape != out.shape)" for i in range(n)) if primitive.elementwise else "False"
        lines.append(f"            if ({' or '.join(tracked)}) and od.inexact:")
        lines.append(f"                make = maker(({', '.join(tracked)},), {apart})")
        lines.append(f"                if make is not None: node = make(xp, outs, params, {payloads}, {nodes})")
    if primitive.multiple:
        lines.append("            return (Tensor(out, xp, od, node), *[Tensor(o, xp, xp.dtype_of(o)) for o in outs[1:]])")
    else:
        lines.append(f"            {_give('od', 'node')}")
    lines += ["    except Exception: pass", f"    return bind(P, ({xs},), params)"]
    return load("\n".join(lines) + "\n", env, name)


def _general(primitive: Primitive) -> Any:
    def apply(*args: Any, **params: Any) -> Any:
        return bind(primitive, args, params)

    apply.__name__ = primitive.name
    return apply


class Namespace(SimpleNamespace):
    """The primitives as functions of Tensors: the xp on which rules compute when they must be differentiable themselves."""

    @staticmethod
    def dtype_of(x: Any) -> DType:
        """The dtype of a Tensor."""
        return x.dtype


def _takes_floats(primitive: Primitive) -> bool:
    """Whether generate_several fits."""
    if primitive.variadic or not primitive.args or primitive.promote == "none" or (primitive.inline and not primitive.differentiable):
        return False
    return primitive.accepts is None or primitive.accepts(dtypes.float32)


def operation(primitive: Primitive) -> Any:
    """A primitive as a function of Tensors, generated at its first call."""
    name = primitive.name
    if primitive.fast is not None and primitive.fast[0] in _CHECK:
        return on_first_call(partial(generate, primitive, *primitive.fast), name)
    if name in _STATIC:
        return on_first_call(partial(generate_static, primitive, *_STATIC[name]), name)
    return on_first_call(partial(generate_several, primitive), name) if _takes_floats(primitive) else _general(primitive)


ns = Namespace(**{name: operation(primitive) for name, primitive in table.items()})


def batch_call(parent: Any) -> Any:
    """`call(name, *tensors, **params)` for batching rules: primitives applied one level up."""

    def call(name: str, *args: Any, **params: Any) -> Any:
        with interpreting(parent):
            return bind(table[name], args, params)

    return call
