"""What a primitive is: data that the interpreters read. The table, and the families that answer most questions by default.

A primitive answers: its argument names and params; its shape and dtype rule (`infer`); its derivative (`vjps`, `jvps`: one rule per argument);
its batching rule; and optionally a decomposition into other primitives. A rule is a function `(xp, g, residuals...)`: xp is any array
namespace (native, Tensor, symbolic, batched), g the cotangent or tangent. The names of its further arguments say what it needs and so what
is kept alive: an argument's name (`x`), `x_shape`, `x_dtype`, `out` (`out0`, `out1`, `out2`), `out_shape`, or a param; where arguments are many,
`index` and `shapes`. `shared` is what the rule of that name gave: computed once for all cotangents that ask for it.

Promises: rules are checked here when the table is imported, and the message names the primitive; broadcasting is never undone inside a rule;
complex rules are plain transposes (the engine conjugates once, outside).
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

from minidl import shapes
from minidl.dtypes import DType, bool_, canonical, float32, int64

Rule = Callable[..., Any]
Aval = Any  # anything with .shape and .dtype
Inferred = tuple[tuple[int, ...], DType]
table: dict[str, Primitive] = {}
_KNOWN = frozenset(("out", "out0", "out1", "out2", "index", "shapes", "out_shape"))  # what any rule may ask for


def parameters(f: Any) -> tuple[str, ...]:
    """The names of a function's parameters. As inspect.signature finds them, at a thirtieth of its price: importing minidl reads 300 functions."""
    known = getattr(f, "parameters", None)
    return known or f.__code__.co_varnames[: f.__code__.co_argcount + f.__code__.co_kwonlyargcount]


class Primitive:
    """One row of the table. See the module's docstring for what the fields mean.

    promote: "same" (array arguments share the promoted dtype), "float" (also: integers become the default float), "none".
    joins: the numbers of the arguments that take part in promotion (all by default); a named dtype for the others, if they need one.
    inline: several steps that are one call of a library where they run at once. Traces and batches see the decomposition instead, and so does the
    tape where there are no rules; such a primitive never is in a graph. Raises ValueError for a rule that asks for what there is not.

    >>> md.extend.table["sum"].params
    ('axis', 'keepdims')
    """

    __slots__ = (
        "accepts", "apply", "args", "batch", "check_first", "decompose", "elementwise", "fast", "infer", "inline", "joins", "jvps", "kernels",
        "multiple", "name", "needs", "others", "params", "promote", "shared", "strong", "variadic", "vjps",
    )  # fmt: skip

    def __init__(
        self,
        name: str,
        args: str,
        params: str = "",
        *,
        infer: Callable[..., Any],
        vjps: Sequence[Rule | None] = (),
        jvps: Sequence[Rule | str | None] = (),
        batch: Callable[..., Any] | None = None,
        decompose: Callable[..., Any] | None = None,
        shared: Rule | None = None,
        promote: str = "same",
        joins: tuple[int, ...] | None = None,
        others: DType | None = None,
        multiple: bool = False,
        elementwise: bool = False,
        check_first: bool = False,
        inline: bool = False,
    ):
        if name in table:
            raise ValueError(f"primitive {name}: defined twice")
        self.name = name
        self.variadic = args.startswith("*")
        self.args = tuple(args.lstrip("*").split())
        self.params = tuple(params.split())
        self.infer, self.batch, self.decompose, self.shared = infer, batch, decompose, shared
        self.promote, self.joins, self.others = promote, joins, others
        self.multiple, self.elementwise, self.check_first, self.inline = multiple, elementwise, check_first, inline
        self.apply: Callable[..., Any] | None = None  # how one that carries graphs is applied to Tensors, with its derivative
        self.kernels = ""  # the package beside which its kernels are, see md.extend.define
        self.strong: str | Callable[..., Any] | None = None  # how strong zeros correct its rules, see minidl.strong
        self.accepts: Callable[[DType], bool] | None = None  # its dtypes, where kernels may take more
        self.fast: tuple[str, str] | None = None  # (dtype class, output dtype) for the generated eager code of elementwise primitives
        self.vjps = self._rules(vjps, "vjp")
        self.jvps = self._rules(jvps, "jvp")
        self.needs = {}
        for rule in (*self.vjps, *self.jvps, shared):
            if callable(rule):
                self.needs[rule] = self._check(rule)
        table[name] = self

    def _rules(self, rules: Sequence[Any], kind: str) -> tuple:
        if self.variadic:
            return tuple(rules) or (None,)
        if rules and len(rules) != len(self.args):
            raise ValueError(f"primitive {self.name}: {len(rules)} {kind} rules for {len(self.args)} arguments")
        return tuple(rules) or (None,) * len(self.args)

    def _check(self, rule: Rule) -> tuple[str, ...]:
        names = parameters(rule)
        if names[:1] != ("xp",) or len(names) < 2:
            raise ValueError(f"primitive {self.name}: a rule's arguments are (xp, g, residuals...), not {names}")
        for n in names[2:]:
            if n in self.args or n in self.params or n in _KNOWN or (n == "shared" and self.shared and rule is not self.shared):
                continue
            if not (n.endswith(("_shape", "_dtype")) and n[:-6] in self.args):
                raise ValueError(f"primitive {self.name}: a rule asks for {n!r}, which is no argument, output or param of it")
        return names[2:]

    def vjp(self, i: int) -> Any:
        """The transpose rule for argument i (the only one, where the arguments are variadic)."""
        return self.vjps[0] if self.variadic else self.vjps[i]

    def jvp(self, i: int) -> Any:
        """The tangent rule for argument i, or "linear": the primitive itself with that argument replaced."""
        return self.jvps[0] if self.variadic else self.jvps[i]

    @property
    def differentiable(self) -> bool:
        """Whether any argument has a derivative rule."""
        return any(r is not None for r in self.vjps)

    def __repr__(self) -> str:
        return f"<primitive {self.name}>"

    def __reduce__(self) -> str | tuple:
        return _named, (self.name, self.kernels)


def _named(name: str, home: str) -> Primitive:
    """The primitive of that name; one that a library brings is defined when that is imported."""
    if name not in table and home:
        importlib.import_module(home)
    return table[name]


class Interpreter:
    """An array namespace that is no library: its functions record equations (a trace) or apply batching rules (a level of vmap).

    A subclass says what it does with a primitive, `call(primitive, payloads, params)`.
    """

    needs_scope = False
    scope = nullcontext

    def __init__(self) -> None:
        self.bare = self
        self.numbers: dict[tuple, Any] = {}

    def __getattr__(self, name: str) -> Any:
        primitive = table.get(name)
        if primitive is None:
            raise AttributeError(name)

        def call(*args: Any, **params: Any) -> Any:
            return self.call(primitive, args, params) if not primitive.inline else primitive.decompose(self, *args, **params)  # type: ignore[misc]

        setattr(self, name, call)
        return call

    def number(self, value: Any, like: Any) -> Any:
        """A number in a rule stays one here."""
        return value

    def dtype_of(self, payload: Any) -> DType:
        """The dtype of a payload."""
        return payload.dtype if hasattr(payload, "dtype") else canonical(type(payload))


# ---- families -------------------------------------------------------------------------------------------------------------------------
def _infer_elementwise(name: str, out: Callable[[DType], DType] | None, check: Callable[[DType], bool] | None, want: str) -> Callable[..., Inferred]:
    def infer(*xs: Aval, **params: Any) -> Inferred:
        dtype = xs[-1].dtype
        if check is not None and not check(dtype):
            raise TypeError(f"{name}: dtype {dtype.short} is not supported; it wants {want}")
        try:
            shape = shapes.broadcast(*(x.shape for x in xs))
        except ValueError:
            raise ValueError(
                f"{name}: shapes do not broadcast: {shapes.show(*xs)}; equal sizes or 1 are wanted on each axis from the right"
            ) from None
        return shape, (out(dtype) if out else dtype)

    return infer


def decomposed(primitive: Primitive, xp: Any, args: Sequence[Any], params: dict[str, Any]) -> Any:
    """A primitive by its decomposition over xp. Half precision is computed in float32 and rounded once, so that no step of it overflows."""
    decompose: Any = primitive.decompose
    types = [xp.dtype_of(a) if hasattr(a, "shape") else None for a in args]
    if primitive.inline or "body" in params or not any(t is not None and t.is_float and t.bits == 16 for t in types):
        return decompose(xp, *args, **params)
    avals = [a if t is None else SimpleNamespace(shape=tuple(a.shape), dtype=t) for a, t in zip(args, types, strict=True)]
    inferred: Any = primitive.infer(*avals, **params)
    wide = [xp.cast(a, dtype=float32) if t is not None and t.is_float and t.bits == 16 else a for a, t in zip(args, types, strict=True)]
    found = decompose(xp, *wide, **params)
    narrow = [
        o if xp.dtype_of(o) is dtype else xp.cast(o, dtype=dtype)
        for o, (_, dtype) in zip(found if primitive.multiple else (found,), inferred if primitive.multiple else (inferred,), strict=True)
    ]
    return tuple(narrow) if primitive.multiple else narrow[0]


def batch_elementwise(primitive: Primitive, call: Callable[..., Any], size: int, xs: list[Any], batched: list[bool], params: dict) -> Any:
    """The batching rule of functions of single elements: of operands of lower rank the batch axis is followed by axes of size one.

    >>> md.vmap(md.add)(md.ones((2, 3, 4)), md.ones((2, 4))).shape
    (2, 3, 4)
    """
    rank = max(len(x.shape) - b for x, b in zip(xs, batched, strict=True) if hasattr(x, "shape"))
    out = []
    for x, b in zip(xs, batched, strict=True):
        if b and len(x.shape) - 1 < rank:
            x = call("reshape", x, shape=(x.shape[0],) + (1,) * (rank - len(x.shape) + 1) + tuple(x.shape[1:]))
        out.append(x)
    return call(primitive.name, *out, **params)


def all_lanes(call: Callable[..., Any], size: int, xs: Any, batched: Any) -> list[Any]:
    """Operands with the batch axis in front, also those that are the same for all lanes."""
    return [x if b else call("broadcast_to", x, shape=(size, *x.shape)) for x, b in zip(xs, batched, strict=True)]


def batch_leading(primitive: Primitive, call: Callable[..., Any], size: int, xs: Any, batched: Any, params: Any) -> Any:
    """The batching rule where leading axes are free, as before matrices: the batch axis is one more.

    >>> md.vmap(md.linalg.det)(md.ones((2, 3, 1, 1))).shape
    (2, 3)
    """
    return call(primitive.name, *all_lanes(call, size, xs, batched), **params)


def batch_along(primitive: Primitive, call: Callable[..., Any], size: int, xs: Any, batched: Any, params: Any) -> Any:
    """The batching rule of what goes along one axis of all its operands."""
    return call(primitive.name, *all_lanes(call, size, xs, batched), **{**params, "axis": params["axis"] + 1})


def elementwise(
    name: str,
    args: str,
    *rules: Rule | None,
    jvps: Sequence[Rule | str | None] | None = None,
    out: Callable[[DType], DType] | None = None,
    params: str = "",
    promote: str = "same",
    only: str = "number",
    joins: tuple[int, ...] | None = None,
    others: DType | None = None,
    decompose: Callable[..., Any] | None = None,
) -> Primitive:
    """A function of single elements, with NumPy broadcasting: one rule per argument, which is both its vjp and its jvp (a diagonal is its own
    transpose), unless `jvps` says otherwise (functions of complex numbers that are not holomorphic).

    >>> md.extend.table["mul"].elementwise  # md.extend.define shows how one is made
    True
    """
    check, want = _ONLY[only]
    primitive = Primitive(
        name, args, params,
        infer=_infer_elementwise(name, out, check, want), vjps=rules, jvps=jvps if jvps is not None else rules, batch=batch_elementwise,
        promote=promote, joins=joins, others=others, elementwise=True, decompose=decompose,
    )  # fmt: skip
    primitive.accepts = check
    if not params and joins is None and len(primitive.args) <= 2:
        primitive.fast = (only, "dt" if out is None else {"_bool": "bool_", "_real_of": "dt.real"}[out.__name__])
    return primitive


_ONLY: dict[str, tuple[Callable[[DType], bool] | None, str]] = {
    "any": (None, ""),
    "number": (None, ""),
    "numeric": (lambda d: d is not bool_, "a number dtype"),
    "ordered": (lambda d: not d.is_complex and d is not bool_, "a real number dtype"),
    "real": (lambda d: not d.is_complex, "a real dtype"),
    "inexact": (lambda d: d.inexact, "a float or complex dtype"),
    "float": (lambda d: d.is_float, "a float dtype"),
    "bits": (lambda d: d.is_integer or d is bool_, "an integer or bool dtype"),
    "integer": (lambda d: d.is_integer, "an integer dtype"),
    "bool": (lambda d: d is bool_, "bool"),
}


def _infer_reduction(name: str, out: Callable[[DType], DType] | None, only: str, identity: bool) -> Callable[..., Inferred]:
    check, want = _ONLY[only]

    def infer(x: Aval, *, axis: tuple[int, ...], keepdims: bool) -> Inferred:
        if check is not None and not check(x.dtype):
            raise TypeError(f"{name}: dtype {x.dtype.short} is not supported; it wants {want}")
        if not identity and any(x.shape[a] == 0 for a in axis):
            raise ValueError(f"{name}: the reduction of {shapes.show(x)} over axis {axis} is empty and has no identity")
        return shapes.reduced(x.shape, axis, keepdims), (out(x.dtype) if out else x.dtype)

    return infer


def expand(xp: Any, g: Any, x_shape: tuple[int, ...], axis: tuple[int, ...], keepdims: bool) -> Any:
    """Give the result of a reduction the axes back that it lost (as size one)."""
    return g if keepdims else xp.reshape(g, shape=tuple(1 if i in axis else s for i, s in enumerate(x_shape)))


def batch_reduction(primitive: Primitive, call: Callable[..., Any], size: int, xs: list[Any], batched: list[bool], params: dict) -> Any:
    """All axes move up by one."""
    axis = params["axis"]
    return call(primitive.name, *xs, **{**params, "axis": tuple(a + 1 for a in axis) if isinstance(axis, tuple) else axis + 1})


def reduction(
    name: str,
    weight: Rule | None = None,
    *,
    vjp: Rule | None = None,
    jvp: Rule | str | None = None,
    out: Callable[[DType], DType] | None = None,
    only: str = "number",
    identity: bool = True,
    promote: str = "same",
    decompose: Callable[..., Any] | None = None,
) -> Primitive:
    """A reduction over axes. `weight(xp, g, ...)` gives g times the partial derivatives, g being broadcast over the reduced axes: one text
    for both directions, since jvp = sum(weight(t)) and vjp = weight(broadcast g)."""
    if weight is not None:
        names = parameters(weight)[2:]
        vjp = _with_names(_reduce_vjp(weight, names), ("x_shape", "axis", "keepdims", *names))
        jvp = _with_names(_reduce_jvp(weight, names), ("x_shape", "axis", "keepdims", *names))
    primitive = Primitive(
        name, "x", "axis keepdims",
        infer=_infer_reduction(name, out, only, identity), vjps=(vjp,), jvps=(jvp,), batch=batch_reduction, promote=promote, decompose=decompose,
    )  # fmt: skip
    primitive.accepts = _ONLY[only][0]
    return primitive


def _with_names(rule: Rule, names: tuple[str, ...]) -> Rule:
    unique = tuple(dict.fromkeys(("xp", "g", *names)))

    def call(xp: Any, g: Any, *values: Any) -> Any:
        return rule(xp, g, dict(zip(unique[2:], values, strict=True)))

    call.parameters = unique  # type: ignore[attr-defined]
    return call


def _reduce_values(xp: Any, names: tuple[str, ...], v: dict[str, Any]) -> list[Any]:
    return [expand(xp, v["out"], v["x_shape"], v["axis"], v["keepdims"]) if n == "out" else v[n] for n in names]


def _reduce_vjp(weight: Rule, names: tuple[str, ...]) -> Rule:
    def vjp(xp: Any, g: Any, v: dict[str, Any]) -> Any:
        g = xp.broadcast_to(expand(xp, g, v["x_shape"], v["axis"], v["keepdims"]), shape=v["x_shape"])
        return weight(xp, g, *_reduce_values(xp, names, v))

    return vjp


def _reduce_jvp(weight: Rule, names: tuple[str, ...]) -> Rule:
    def jvp(xp: Any, t: Any, v: dict[str, Any]) -> Any:
        return xp.sum(weight(xp, t, *_reduce_values(xp, names, v)), axis=v["axis"], keepdims=v["keepdims"])

    return jvp


def structural(
    name: str, params: str, infer: Callable[..., Inferred], transpose: Rule, batch: Callable[..., Any], check_first: bool = True
) -> Primitive:
    """A linear rearrangement of one array: its jvp is itself, its vjp its transpose."""
    return Primitive(name, "x", params, infer=infer, vjps=(transpose,), jvps=("linear",), batch=batch, check_first=check_first)


def index_dtype(_: DType) -> DType:
    """Positions are int64."""
    return int64
