"""Shapes without values, graphs without calls: eval_shape, make_jaxpr, and what jit(f).lower and .compile tell."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any

import minidl as md


class ShapeDtypeStruct:
    """A shape and a dtype, in the place of an array of them.

    >>> ShapeDtypeStruct((2, 3), md.float32)
    ShapeDtypeStruct(shape=(2, 3), dtype=float32)
    """

    def __init__(self, shape: Sequence[int], dtype: Any, **options: Any):
        self.shape, self.dtype = tuple(shape), md.zeros((), dtype=dtype).dtype

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)

    def __repr__(self) -> str:
        return f"ShapeDtypeStruct(shape={self.shape}, dtype={self.dtype.name})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ShapeDtypeStruct) and (self.shape, self.dtype) == (other.shape, other.dtype)

    def __hash__(self) -> int:
        return hash((self.shape, self.dtype))


def _filled(x: Any) -> Any:
    """Zeros in the place of a shape, a tensor for what is one or an array."""
    if isinstance(x, md.Tensor):
        return x
    return md.zeros(tuple(x.shape), dtype=x.dtype if isinstance(x.dtype, md.DType) else str(x.dtype)) if hasattr(x, "shape") else x


def eval_shape(fun: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """The shapes and dtypes of what fun returns, which is traced and not computed; arguments may be ShapeDtypeStructs.

    >>> eval_shape(lambda x: x @ x.T, ShapeDtypeStruct((2, 3), md.float32))
    ShapeDtypeStruct(shape=(2, 2), dtype=float32)
    """
    found: list[Any] = []

    def traced() -> list[Any]:
        a, k = md.tree.map(_filled, (args, kwargs))
        out = md.tree.map(md.asarray, fun(*a, **k))
        found.append(md.tree.map(lambda x: ShapeDtypeStruct(x.shape, x.dtype), out))
        return md.tree.leaves(out)

    md.trace(traced)()
    return found[0]


def make_jaxpr(fun: Callable[..., Any], static_argnums: Any = (), return_shape: bool = False) -> Callable[..., Any]:
    """md.trace, the graph of fun for given arguments, which may be ShapeDtypeStructs; return_shape: also eval_shape.

    >>> print(make_jaxpr(lambda x: md.sin(x))(md.ones(2)))
    def program(a: 'f32[2]'):
        b = sin(a)  # f32[2]
        return (b,)
    <BLANKLINE>
    """
    static = (static_argnums,) if isinstance(static_argnums, int) else tuple(static_argnums)

    @functools.wraps(fun)
    def made(*args: Any, **kwargs: Any) -> Any:
        given = {i: a for i, a in enumerate(args) if i not in static}

        def of(rest: dict[int, Any], words: Any) -> Any:
            return fun(*(rest.get(i, a) for i, a in enumerate(args)), **words)

        tensors = md.tree.map(lambda x: md.asarray(_filled(x)), (given, kwargs))
        graph = md.trace(of)(*tensors)
        return (graph, eval_shape(of, *tensors)) if return_shape else graph

    return made


def closure_convert(fun: Callable[..., Any], *example_args: Any) -> tuple[Callable[..., Any], list[Any]]:
    """fun as a function of what it reads from around it, too, and those tensors.

    >>> a = md.tensor(2.0)
    >>> f, read = closure_convert(lambda x: x * a, md.tensor(1.0))
    >>> f(md.tensor(3.0), *read).item()
    6.0
    """
    kept: list[Any] = []

    def traced(*args: Any) -> list[Any]:
        leaves, structure = md.tree.flatten(fun(*args))
        kept.append(structure)
        return leaves

    graph = md.trace(traced)(*md.tree.map(md.asarray, example_args))
    captured = list(graph.captured)

    def converted(*args: Any) -> Any:
        split = len(args) - len(captured)
        leaves = [md.asarray(v) for v in md.tree.leaves(args[:split])]
        return md.tree.unflatten(kept[0], md.tree.leaves(graph(*leaves, *args[split:])))

    return converted, captured


class Lowered:
    """What jit(f).lower(*args) gives: the graph, not yet compiled. It reads as the graph does."""

    def __init__(self, jitted: Any, graph: Any, args: Any, kwargs: Any):
        self.jitted, self.graph, self.args, self.kwargs = jitted, graph, args, kwargs

    def as_text(self, dialect: str | None = None, **options: Any) -> str:
        """The graph as Python, whatever the dialect."""
        return str(self.graph)

    def compile(self, compiler_options: Any = None) -> Compiled:
        """The compiled program."""
        return Compiled(self)

    @property
    def out_info(self) -> Any:
        """The shapes and dtypes of the result."""
        return eval_shape(self.jitted, *self.args, **self.kwargs)

    def cost_analysis(self) -> dict[str, float]:
        """How many operations on floats the products and elementwise equations take ("flops"), and how many bytes inputs and results have."""
        return _costs(self.graph)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.graph, name)

    def __str__(self) -> str:
        return str(self.graph)


class Compiled:
    """What lower(*args).compile() gives: a function for arguments of those shapes and dtypes; TypeError for others."""

    def __init__(self, lowered: Lowered):
        self.lowered = lowered
        self.explanation = lowered.jitted.explain(*lowered.args, **lowered.kwargs)
        self._wanted = _signature(lowered.args, lowered.kwargs)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        found = _signature(args, kwargs)
        if found != self._wanted:
            raise TypeError(f"the program was compiled for {self._wanted[1]}, and {found[1]} came; the jitted function compiles for these")
        return self.lowered.jitted(*args, **kwargs)

    def as_text(self) -> str:
        """The graph as Python."""
        return self.lowered.as_text()

    def cost_analysis(self) -> dict[str, float]:
        """As Lowered's."""
        return self.lowered.cost_analysis()

    def memory_analysis(self) -> Any:
        """How the program runs: md.explain's text."""
        return self.explanation


def _signature(args: Any, kwargs: Any) -> tuple[Any, list[Any]]:
    leaves, structure = md.tree.flatten((args, kwargs))
    return structure, [(tuple(x.shape), str(getattr(x.dtype, "name", x.dtype))) if hasattr(x, "shape") else type(x).__name__ for x in leaves]


def _costs(graph: Any) -> dict[str, float]:
    flops = 0.0
    for equation in graph.equations:
        out = equation.outputs[0]
        if equation.primitive.elementwise:
            flops += math.prod(out.shape)
        elif equation.primitive.name == "dot_general":
            flops += 2.0 * math.prod(out.shape) * math.prod(equation.inputs[0].shape[i] for i in equation.params["contract"][0])
        elif equation.inputs and hasattr(equation.inputs[0], "shape") and equation.primitive.name in ("sum", "max", "min", "prod"):
            flops += math.prod(equation.inputs[0].shape)
    size = lambda v: math.prod(v.shape) * v.dtype.bits / 8 if hasattr(v, "shape") else 0.0
    return {"flops": flops, "bytes accessed": float(sum(map(size, (*graph.inputs, *graph.outputs))))}


def jit(
    fun: Any = None, /, *, static_argnums: Any = (), static_argnames: Any = (), donate_argnums: Any = (), donate_argnames: Any = (),
    keep_unused: bool = False, inline: bool = False, device: Any = None, backend: Any = None, in_shardings: Any = None, out_shardings: Any = None,
    compiler_options: Any = None,
) -> Any:  # fmt: skip
    """md.jit with JAX's arguments, and with its lower; keep_unused and inline change nothing. Raises ValueError for shardings.

    >>> jit(lambda x: x * 2.0).lower(md.ones(2)).compile()(md.ones(2)).tolist()
    [2.0, 2.0]
    """
    if in_shardings is not None or out_shardings is not None:
        raise ValueError("jit: one program runs on one device; leave shardings out")
    if fun is None:
        return functools.partial(
            jit, static_argnums=static_argnums, static_argnames=static_argnames, donate_argnums=donate_argnums, donate_argnames=donate_argnames
        )
    names = [donate_argnames] if isinstance(donate_argnames, str) else list(donate_argnames)
    numbers = [donate_argnums] if isinstance(donate_argnums, int) else list(donate_argnums)
    if names:
        numbers += [list(inspect.signature(fun).parameters).index(name) for name in names]
    jitted = md.jit(fun, static_argnums=static_argnums, static_argnames=static_argnames, donate_argnums=numbers)
    graph_of = jitted.lower

    def lower(*args: Any, **kwargs: Any) -> Lowered:
        a, k = md.tree.map(_filled, (args, kwargs))
        return Lowered(jitted, graph_of(*a, **k), a, k)

    jitted.lower = lower
    return jitted
