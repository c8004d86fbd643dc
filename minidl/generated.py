"""Each primitive as a function of Tensors: straight-line code for the happy case, generated at its first call. They are what `ns` holds.

That case is eager, on one backend, in one dtype, and looks at no thread-local unless something is busy. Everything else, and
what fails, goes to `bind`.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from functools import partial
from typing import Any

from minidl import dtypes
from minidl.backends import default
from minidl.context import at_once, busy, state
from minidl.emit import load, on_first_call
from minidl.graph import Var
from minidl.kinds import kind_of
from minidl.primitives import table
from minidl.primitives.core import Primitive
from minidl.tape import count
from minidl.tensors import Count, Tensor, bind, ns

_FREE = "(not busy[0] or at_once())"
_QUIET = "busy[0] and not state.grad"  # then nothing is recorded
_CHECK = {
    k: f"dt.fast{'_' + k if k not in ('number', 'any') else ''} and " for k in ("number", "any", "inexact", "float", "real", "numeric", "ordered")
}


def _node(primitive: Primitive, live: tuple[int, ...], env: dict[str, Any], arrays: Sequence[str] = "ab", nodes: Sequence[str] = "nm") -> str:
    kind = kind_of(primitive, live, False, len(primitive.args))
    name = "K" + "".join(map(str, live))
    env[name] = kind
    text = {"out": "out", "out_shape": "out.shape", **{f"out{k}": f"outs[{k}]" for k in range(3)}}
    for a, local in zip(primitive.args, arrays, strict=False):
        text |= {a: local, f"{a}_shape": f"{local}.shape", f"{a}_dtype": "dt"}
    parts = ["next(count)", name, "xp", *(nodes[i] for i in live), *(text.get(r, r) for r in kind.residuals)]
    return f"[{', '.join(parts)}]"


def _operation(name: str, operands: str, indent: str) -> list[str]:
    return [f"{indent}f = xp.quick.{name}; out = f({operands})"]  # apart: Python looks for a method in the class first, and finds none


def _environment(primitive: Primitive) -> dict[str, Any]:
    """The globals of a generated operation."""
    own = {"P": primitive, "space": ns, "NONE": {}, "int64": dtypes.int64, "bool_": dtypes.bool_, "new": object.__new__}
    modes = {"busy": busy, "state": state, "at_once": at_once}
    return {"Tensor": Tensor, "count": count, "bind": bind, "Count": Count, **modes, **own}


def _give(dtype: str, node: str) -> str:
    """Return a new Tensor; setting five slots costs less than calling the class."""
    return f"t = new(Tensor); t.payload = out; t.xp = xp; t.dtype = {dtype}; t.node = {node}; t.of = None; return t"


def generate(primitive: Primitive, only: str, out_dtype: str) -> Any:
    """The eager operation of an elementwise primitive with one or two arguments, as one straight-line function."""
    name, env = primitive.name, {**_environment(primitive), "maker": _makers(primitive)}
    give = functools.partial(_give, out_dtype)
    track = primitive.differentiable
    check = _CHECK[only]
    if len(primitive.args) == 1:
        lines = [f"def {name}(x, /):", "    try:", "        xp = x.xp; dt = x.dtype", f"        if {check}{_FREE}:", "            a = x.payload"]
        lines += _operation(name, "a", " " * 12)
        lines += ["            n = x.node", f"            if n is None or {_QUIET}: {give('None')}"] if track else [f"            {give('None')}"]
        if track:
            lines.append(f"            {give(_node(primitive, (0,), env))}")
        lines += ["    except Exception: pass", "    return bind(P, (x,), NONE)"]
        return load("\n".join(lines) + "\n", env, name)
    lines = [
        f"def {name}(x, y, /):", "    try:", "        xp = x.xp; dt = x.dtype; c = y.__class__",
        "        if c is float or c is int:",
        f"            if {check}(dt.inexact or c is int) and {_FREE}:",
        "                a = x.payload; b = xp.scalars[y, c, dt]",
        *_operation(name, "a, b", " " * 16),
        *(["                n = x.node"] if track and primitive.vjp(0) else []),
        "                " + (f"if n is None or {_QUIET}: " if track and primitive.vjp(0) else "") + f"{give('None')}",
        *([f"                {give(_node(primitive, (0,), env))}"] if track and primitive.vjp(0) else []),
        f"        elif {check}y.xp is xp and y.dtype is dt and {_FREE}:",
        "            a = x.payload; b = y.payload",
        *_operation(name, "a, b", " " * 12),
    ]  # fmt: skip
    if not track:
        lines.append(f"            {give('None')}")
    else:
        lines += [
            "            n = x.node; m = y.node",
            f"            if n is None and m is None or {_QUIET}: {give('None')}",
            "            if n is None:",
            f"                if a.shape == b.shape: {give(_node(primitive, (1,), env))}",
            "            elif a.shape == b.shape:",
            f"                if m is None: {give(_node(primitive, (0,), env))}",
            f"                {give(_node(primitive, (0, 1), env))}",
            "            apart = n is not None and a.shape != out.shape or m is not None and b.shape != out.shape",
            "            make = maker((n is not None, m is not None), apart)",
            f"            {give('None if make is None else make(xp, (out,), NONE, a, b, n, m)')}",
        ]
    lines += ["    except Exception: pass", f"    return space.{name}(x, int(y)) if y.__class__ is Count else bind(P, (x, y), NONE)"]
    return load("\n".join(lines) + "\n", env, name)


#: Primitives of one array with static params that take the straight line, too: the dtypes for which they do, and the result's dtype.
_STATIC = {
    **dict.fromkeys("sum prod cumsum cumprod reshape permute broadcast_to flip slice unslice pad tril triu".split(), ("number", "dt")),
    **dict.fromkeys("max min cummax cummin".split(), ("real", "dt")),
    **dict.fromkeys("root gelu logsumexp softmax log_softmax cumlogsumexp".split(), ("float", "dt")),
    **dict.fromkeys("argmax argmin argsort argtopk".split(), ("real", "int64")), "cast": ("number", "dtype"),
}  # fmt: skip


def generate_static(primitive: Primitive, only: str, out_dtype: str) -> Any:
    """The eager operation of a primitive of one array with static params, as one straight-line function. Its callers have checked the params."""
    name, params = primitive.name, primitive.params
    env = _environment(primitive)
    passed = ", ".join(f"{p}={p}" for p in params)
    give = functools.partial(_give, out_dtype)
    lines = [f"def {name}(x, /, *, {', '.join(params)}):", "    try:", "        xp = x.xp; dt = x.dtype"]
    lines += [f"        if {_CHECK[only]}{_FREE}:", "            a = x.payload", *_operation(name, f"a, {passed}", " " * 12)]
    lines.append("            n = x.node")
    if primitive.differentiable:
        text = {"x": "a", "out": "out", "x_shape": "a.shape", "x_dtype": "dt", **{p: p for p in params}}
        env["K"] = kind = kind_of(primitive, (0,), False, 1)
        lines.append(f"            if n is not None and {out_dtype}.inexact and not ({_QUIET}):")
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


#: What generate_several calls things, as well as x0, a1, n2: no param may have such a name.
_LOCAL = frozenset("k c xp dt key f outs out node od make P NONE O seen infer maker Var Tensor new bind count busy state at_once".split())


def generate_several(primitive: Primitive) -> Any:
    """The eager operation of a primitive of several arrays, or with several results, for one dtype: `bind`, less what that does not need."""
    name, n, joins = primitive.name, len(primitive.args), primitive.joins
    env = {**_environment(primitive), "maker": _makers(primitive), "infer": primitive.infer, "O": primitive.others, "seen": set(), "Var": Var}
    xs, payloads, nodes = (", ".join(f"{c}{i}" for i in range(n)) for c in "xan")
    leads = list(range(n)) if joins is None else list(joins) or [0]
    passed = "".join(f", {p}={p}" for p in primitive.params)
    again = f"{{{', '.join(f'{p!r}: {p}' for p in primitive.params)}}}"
    lines = [f"def {name}({xs}, /{', *' * bool(passed)}{''.join(f', {p}' for p in primitive.params)}):", "    try:", f"        k = x{leads[0]}"]
    lines += [f"        if k.__class__ is float or k.__class__ is int: k = x{i}" for i in leads[1:]]
    numbers = "dt.inexact or c is int and dt.fast_numeric"  # what no number of Python promotes
    lines += [
        "        xp = k.xp; dt = k.dtype",
        f"        if dt.{'fast' if primitive.promote == 'same' and primitive.accepts is None else 'fast_float'} and {_FREE}:",
    ]
    for i in range(n):
        if i in leads:
            lines += [
                f"            c = x{i}.__class__",
                f"            if (c is float or c is int) and ({numbers}): a{i} = xp.scalars[x{i}, c, dt]; n{i} = None",
            ]
            lines.append(f"            elif x{i}.xp is xp and x{i}.dtype is dt: a{i} = x{i}.payload; n{i} = x{i}.node")
            lines.append("            else: raise TypeError")
        else:
            want = "" if primitive.others is None else f" and x{i}.dtype is O"
            lines += [f"            if x{i}.xp is xp{want}: a{i} = x{i}.payload; n{i} = None", "            else: raise TypeError"]
    if primitive.check_first:  # once for shapes, dtypes and params
        types = ["dt" if i in leads else f"x{i}.dtype" for i in range(n)]
        lines += [
            f"            key = ({', '.join(f'a{i}.shape, {t}' for i, t in enumerate(types))}{''.join(f', {p}' for p in primitive.params)})",
            "            if key not in seen:",
        ]
        lines.append(f"                infer({', '.join(f'Var(a{i}.shape, {t})' for i, t in enumerate(types))}{passed})")
        lines += ["                if len(seen) > 1024: seen.clear()", "                seen.add(key)"]
    lines.append(f"            f = xp.quick.{name}; outs = f({payloads}{passed})")
    lines += [] if primitive.multiple else ["            outs = (outs,)"]
    lines.append("            out = outs[0]; node = None; od = xp.dtype_of(out)")
    if primitive.differentiable:
        tracked = [f"n{i} is not None" for i in range(n)]
        apart = " or ".join(f"(n{i} is not None and a{i}.shape != out.shape)" for i in range(n)) if primitive.elementwise else "False"
        lines.append(f"            if ({' or '.join(tracked)}) and od.inexact and not ({_QUIET}):")
        if n == 2 and joins is None and not primitive.elementwise and None not in primitive.vjps:
            made = [_node(primitive, live, env, payloads.split(", "), nodes.split(", ")) for live in ((1,), (0,), (0, 1))]
            lines.append(f"                node = {made[0]} if n0 is None else {made[1]} if n1 is None else {made[2]}")
        else:
            lines.append(f"                make = maker(({', '.join(tracked)},), {apart})")
            lines.append(f"                if make is not None: node = make(xp, outs, {again}, {payloads}, {nodes})")
    if primitive.multiple:
        lines.append("            return (Tensor(out, xp, od, node), *[Tensor(o, xp, xp.dtype_of(o)) for o in outs[1:]])")
    else:
        lines.append(f"            {_give('od', 'node')}")
    lines += ["    except Exception: pass", f"    return bind(P, ({xs},), {again})"]
    return load("\n".join(lines) + "\n", env, name)


def variadic(primitive: Primitive) -> Any:
    """The eager operation of a primitive of any number of arrays in one dtype."""
    infer, seen = primitive.infer, set[Any]()

    def apply(*xs: Any, **params: Any) -> Any:
        try:
            xp, dt = xs[0].xp, xs[0].dtype
            if dt.fast and (not busy[0] or at_once()) and not any(x.xp is not xp or x.dtype is not dt for x in xs):
                payloads = [x.payload for x in xs]
                shapes = tuple([a.shape for a in payloads])
                key = (shapes, *params.items())
                if key not in seen:
                    infer(*xs, **params)
                    if len(seen) > 1024:
                        seen.clear()
                    seen.add(key)
                out, node = getattr(xp.quick, primitive.name)(*payloads, **params), None
                live = [i for i, x in enumerate(xs) if x.node is not None]
                if live and dt.inexact and state.grad:
                    kind = kind_of(primitive, tuple(live), False, len(xs))
                    known = {"shapes": shapes, **params}
                    node = [next(count), kind, xp, *[xs[i].node for i in live], *[known[r] for r in kind.residuals]]
                return Tensor(out, xp, dt, node)
        except Exception:
            pass
        return bind(primitive, xs, params)

    apply.__name__ = primitive.name
    return apply


def _general(primitive: Primitive) -> Any:
    makes = not primitive.args and not primitive.variadic and "dtype" in primitive.params

    def apply(*args: Any, **params: Any) -> Any:
        if makes and not args and (not busy[0] or at_once()) and not (xp := default()).needs_scope:
            try:
                return Tensor(getattr(xp, primitive.name)(**params), xp, params["dtype"])
            except Exception:
                pass
        return bind(primitive, args, params)

    apply.__name__ = primitive.name
    return apply


def _takes_floats(primitive: Primitive) -> bool:
    """Whether generate_several fits."""
    if primitive.variadic or not primitive.args or primitive.promote == "none" or (primitive.inline and not primitive.differentiable):
        return False
    if not _LOCAL.isdisjoint(primitive.params) or any(p[1:].isdigit() for p in primitive.params):
        return False
    return primitive.accepts is None or primitive.accepts(dtypes.float32)


def operation(primitive: Primitive) -> Any:
    """A primitive as a function of Tensors, generated at its first call."""
    name = primitive.name
    if primitive.fast is not None and primitive.fast[0] in _CHECK:
        return on_first_call(partial(generate, primitive, *primitive.fast), name)
    if name in _STATIC:
        return on_first_call(partial(generate_static, primitive, *_STATIC[name]), name)
    if primitive.variadic and primitive.promote == "same" and primitive.accepts is None and not primitive.multiple:
        return variadic(primitive)
    return on_first_call(partial(generate_several, primitive), name) if _takes_floats(primitive) else _general(primitive)


vars(ns).update({name: operation(primitive) for name, primitive in table.items()})
