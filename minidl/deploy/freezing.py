"""freeze: a model for inference only, with all that does not depend on its input computed once, beforehand.

What is computed beforehand is found in the graph, not in the layers: an equation of constants is a constant, and scales and shifts of the channels
that follow a convolution or a product by a constant weight go into that weight and one shift. So batch normalisation costs nothing at inference,
whoever wrote it. Source of the second: B. Jacob et al., Quantization and training of neural networks (CVPR 2018), section 3.2.

Promises: the model itself is not changed; what is frozen no longer follows it. Results differ from the model's by rounding only.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from typing import Any

import minidl as md

#: A constant is not made larger than this times what it is made from (a broadcast, say), unless it is small.
_GROWTH, _SMALL = 2, 2**16
_AFFINE = ("add", "sub", "mul", "div")


def freeze(f: Callable[..., Any], *, backend: str | None = None) -> Callable[..., Any]:
    """f, a Module or a function of tensors, for inference: parameters are constants, and what can be computed from them alone is computed once.

    Arguments and results are pytrees, as for md.jit, under which the result runs (backend: as there, "auto" too). The first call for each shape of
    the arguments does the work. md.autocast around a call changes nothing; for a low precision, freeze md.autocast()(f), which has it inside.
    `.graph(*args)` of the result is the graph, and `.nbytes` what its constants occupy once it was called. Raises ValueError for a Module in training
    mode, and in the first call for a function that changes state.

    >>> import minidl as md
    >>> from minidl import nn
    >>> model = nn.Sequential(nn.Conv2d(3, 6, 5), nn.BatchNorm2d(6), nn.ReLU()).eval()
    >>> fast = freeze(model)
    >>> fast(md.ones((1, 3, 8, 8))).shape
    (1, 6, 4, 4)
    >>> [e.primitive.name for e in fast.graph(md.ones((1, 3, 8, 8))).equations]
    ['conv', 'add', 'relu']
    """
    evaluating("freeze", f)
    return Frozen(f, backend)


def evaluating(name: str, f: Any) -> None:
    """Raise ValueError for a Module in training mode: what is shipped neither drops nor counts."""
    if getattr(f, "training", False) is True and hasattr(f, "eval"):
        raise ValueError(f"{name}: the model is in training mode, so it would drop units and use the batch's own statistics; call model.eval() first")


def unchanging(name: str, graph: md.Graph) -> md.Graph:
    """The graph. Raises ValueError where the traced function changed state, which what is shipped has not."""
    if graph.written:
        what = ", ".join(f"{t.dtype.name}[{', '.join(map(str, t.shape))}]" for t in graph.written)
        raise ValueError(
            f"{name}: the function changes {what} from outside, as draws of md.random.default_generator and running statistics do, and it would "
            "stay as it is; pass a key or the old value as an argument, and return the new one"
        )
    return graph


class Frozen:
    """What freeze returns."""

    def __init__(self, f: Callable[..., Any], backend: str | None):
        self.f, self.backend = f, backend
        self.made: dict[Any, tuple[md.Graph, Any, Callable[..., Any]]] = {}
        self.__name__ = getattr(f, "__name__", type(f).__name__)

    def __call__(self, *args: Any) -> Any:
        leaves, _ = md.tree.flatten(args)
        _, structure, run = self._made(args)
        return md.tree.unflatten(structure, run(*leaves))

    def _made(self, args: tuple) -> tuple[md.Graph, Any, Callable[..., Any]]:
        leaves, structure = md.tree.flatten(args)
        key = (structure, md.tree.source(structure, "_" * len(leaves)), tuple((x.shape, x.dtype, x.backend, x.device) for x in leaves))
        if key not in self.made:
            (graph,), result = self.graphs(structure, [leaves])
            with md.eagerly():
                constants = [c.detach() for c in graph.captured]
            self.made[key] = (graph, result, md.jit(lambda *xs: graph(*xs, *constants), backend=self.backend))
        return self.made[key]

    def graphs(self, structure: Any, examples: Sequence[Sequence[md.Tensor]]) -> tuple[list[md.Graph], Any]:
        """The folded graphs for several lists of arguments that differ in sizes, and the structure of the result. What depends on these sizes is
        not computed beforehand."""
        found: list[Any] = []

        def flat(*xs: md.Tensor) -> list[md.Tensor]:
            outs, out_structure = md.tree.flatten(self.f(*md.tree.unflatten(structure, xs)))
            found[:] = [out_structure]
            return outs

        with md.eagerly(), md.no_grad(), md.autocast(enabled=False):  # also where the frozen model is called inside md.jit
            zeros = [[md.zeros(x.shape, dtype=x.dtype, backend=x.backend, device=x.device) for x in leaves] for leaves in examples]
            graphs = [unchanging("freeze", md.trace(flat)(*xs)) for xs in zeros]
            return [fold(g, left) for g, left in zip(graphs, _sizes_in(graphs), strict=True)], found[0]

    def graph(self, *args: Any) -> md.Graph:
        """The graph that a call with these arguments runs; its last inputs are the constants."""
        return self._made(args)[0]

    @property
    def nbytes(self) -> int:
        """Bytes of the constants, of the shape that was called last."""
        graph = next(reversed(self.made.values()))[0] if self.made else None
        return sum(c.size * c.dtype.itemsize for c in graph.captured) if graph else 0

    def __repr__(self) -> str:
        return f"<frozen {self.__name__}>"


def _sizes_in(graphs: Sequence[md.Graph]) -> list[set[Any]]:
    """For each of several graphs of one function the equations whose values depend on what differs between them."""
    moved: list[set[Any]] = [set() for _ in graphs]  # equations and their outputs
    if len({tuple(e.primitive for e in g.equations) for g in graphs}) > 1:
        return moved
    for row in zip(*(g.equations for g in graphs), strict=True):
        from_moved = any(a in m for e, m in zip(row, moved, strict=True) for a in e.inputs)
        if from_moved or len({_shown(e) for e in row}) > 1:
            for e, m in zip(row, moved, strict=True):
                m.update((e, *e.outputs))
    return moved


def _shown(e: Any) -> str:
    """All that an equation says of itself; the values of its inputs apart."""
    literals = [repr(a) if hasattr(a, "value") else "" for a in e.inputs]
    return repr([(k, str(v)) for k, v in e.params.items()] + [(v.shape, v.dtype) for v in e.outputs] + literals)


def fold(graph: md.Graph, left: Container[Any] = ()) -> md.Graph:
    """The graph with what depends on nothing but `captured` computed, and scales and shifts of channels in the weights before them. left: equations
    that stay."""
    n = len(graph.inputs) - len(graph.captured)
    known: dict[Any, md.Tensor] = dict(zip(graph.inputs[n:], graph.captured, strict=True))
    rest = []
    for e in graph.equations:
        small = sum(a.nbytes for a in e.inputs) * _GROWTH
        constant = all(a in known or hasattr(a, "value") for a in e.inputs)
        if constant and e not in left and sum(v.nbytes for v in e.outputs) <= max(small, _SMALL):
            known.update(zip(e.outputs, _run(e, known), strict=True))
        else:
            rest.append(e)
    tails = _tails(rest, graph, known)
    skipped = {e for chain, _, _ in tails.values() for e in chain}

    def replay(*xs: md.Tensor) -> list[md.Tensor]:
        values = {**known, **dict(zip(graph.inputs[:n], xs, strict=True))}
        for e in rest:
            if e in tails:
                chain, weight, shift = tails[e]
                (out,) = _run(e, {**values, e.inputs[1]: weight})
                values[chain[-1].outputs[0]] = out if shift is None else out + shift
            elif e not in skipped:
                values.update(zip(e.outputs, _run(e, values), strict=True))
        return [md.full((), a.value, dtype=a.dtype, **_where(like)) if hasattr(a, "value") else values[a] for a in graph.outputs]

    like = next(iter(known.values()), None)
    examples = [md.zeros(v.shape, dtype=v.dtype, **_where(like)) for v in graph.inputs[:n]]
    return md.trace(replay)(*examples)


def _where(like: md.Tensor | None) -> dict[str, Any]:
    return {} if like is None else {"backend": like.backend, "device": like.device}


def _run(e: Any, values: dict[Any, md.Tensor]) -> tuple[md.Tensor, ...]:
    """One equation on Tensors."""
    inputs = [a for a in dict.fromkeys(e.inputs) if a in values]
    return md.Graph(inputs, [e], e.outputs)(*(values[a] for a in inputs))


def _tails(equations: list[Any], graph: md.Graph, known: dict[Any, md.Tensor]) -> dict[Any, tuple[list[Any], md.Tensor, md.Tensor | None]]:
    """{convolution or product: (the equations after it that scale and shift its channels, the weight that scales, the shift)}."""
    users: dict[Any, list[Any]] = {}
    for e in equations:
        for a in e.inputs:
            users.setdefault(a, []).append(e)
    out = {}
    for e in equations:
        if e.primitive.name not in ("conv", "dot_general") or e.inputs[1] not in known or not e.outputs[0].dtype.is_float:
            continue
        rank = len(e.outputs[0].shape)
        weight = known[e.inputs[1]]
        if e.primitive.name == "conv":
            axis, rows = 1, 0
        else:
            (_, contracted), (batch, _) = e.params["contract"], e.params["batch"]
            free = [i for i in range(weight.ndim) if i not in contracted]
            if batch or len(free) != 1:
                continue
            axis, rows = rank - 1, free[0]
        chain, scale, shift = [], None, None
        v = e.outputs[0]
        while v not in graph.outputs and len(users.get(v, ())) == 1:
            (after,) = users[v]
            step = _step(after, v, axis, known, _where(weight))
            if step is None:
                break
            kind, c = step
            if kind == "mul":
                scale = c if scale is None else scale * c
                shift = None if shift is None else shift * c
            else:
                shift = c if shift is None else shift + c
            chain.append(after)
            v = after.outputs[0]
        if scale is None and len(chain) < 2:
            continue
        if scale is not None:
            weight = weight * scale.reshape((-1,)).reshape(tuple(-1 if i == rows else 1 for i in range(weight.ndim)))
        out[e] = (chain, weight, shift)
    return out


def _step(e: Any, v: Any, axis: int, known: dict[Any, md.Tensor], where: dict[str, Any]) -> tuple[str, md.Tensor] | None:
    """How an equation changes the channels of v: ("mul", factor) or ("add", summand), of a shape that broadcasts; None where it does other things."""
    name = e.primitive.name
    if name == "neg":
        return "mul", md.full((), -1.0, dtype=v.dtype, **where)
    if name not in _AFFINE or e.outputs[0].shape != v.shape or e.inputs[0] is e.inputs[1]:
        return None
    first = e.inputs[0] is v
    other = e.inputs[1] if first else e.inputs[0]
    if hasattr(other, "value"):
        c = md.full((), other.value, dtype=v.dtype, **where)
    elif other in known:
        c = known[other]
    else:
        return None
    lead = len(v.shape) - len(c.shape)
    if any(s != 1 and i + lead != axis for i, s in enumerate(c.shape)):
        return None
    if name == "add":
        return "add", c
    if name == "mul":
        return "mul", c
    if name == "sub" and first:
        return "add", -c
    return ("mul", 1.0 / c) if name == "div" and first else None
