"""PyTorch on the CPU: the updates of Adam, AdamW and SGD with momentum as torch's fused kernels, which read and write each value once.

The equations of an update, as minidl.optim writes them and the passes leave them, become one `adam_step` or `sgd_step`, of several small parameters
where their numbers are the same; what is computed of 0-d arrays for it alone, as corrections of a bias are, becomes one `numbers`, in Python's
floats, which have the bits of float64 tensors.
Adam's kernel wants the rate, the betas and the count of steps; what the equations hold is worked out from those, so the kernel is given a count at
which its own corrections are 1.

Promises: values differ by rounding only (the kernel multiplies and adds in one rounding, as the numba and jax programs do); any other value, nan and
infinities included, comes out as by the equations, which run where the kernel does not take the numbers. What the kernel writes over belongs to the
caller: the parameter and its state are inputs of the program, never values made in it, and each array has one part in the update.
"""

from __future__ import annotations

import ctypes
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch

from minidl.backends.torch_rewrite import EMITTED, OVER, Uses
from minidl.emit import emit, load
from minidl.graph import Atom, Emitted, Equation, Graph, Literal, Var

Tensor = torch.Tensor
_FLOATS = ("float32", "float64")
_kernel = getattr(torch, "_fused_adamw_", None)  # private, so it may be missing
_sgd_kernel = getattr(torch, "_fused_sgd_", None)
_late = torch.tensor(1e30, dtype=torch.float32, device="cpu")
_SPELLED = {"add": "{} + {}", "sub": "{} - {}", "mul": "{} * {}", "div": "{} / {}", "pow": "pow({}, {})", "sqrt": "sqrt({})", "neg": "-{}"}
Number = Tensor | float

#: numbers(*xs; function): the function of the 0-d arrays, in numbers.
Numbers = Emitted("numbers", True)


def numbers(*xs: Number, function: tuple[Callable[..., tuple], ...]) -> tuple:
    """Python raises where the other function, in NumPy's numbers, goes on with nan or infinity."""
    values = [_number(x) for x in xs]
    try:
        return function[0](*values)
    except (ArithmeticError, ValueError):
        with np.errstate(all="ignore"):
            return function[1](*map(np.float64, values))


def _number(x: Number) -> float:
    return x if isinstance(x, float) else x.item()


@functools.lru_cache(1024)
def _functions(source: str) -> tuple[Callable[..., tuple], ...]:
    """A source text as functions of Python's numbers and of NumPy's; one pair for all chains that read alike."""
    known = {"cast": lambda x: ctypes.c_float(x).value, "inf": math.inf, "nan": math.nan}
    return tuple(load(source, {**known, "sqrt": m.sqrt, "pow": m.pow}, "numbers") for m in (math, np))


#: adam_step(p, mean, square, grad, keep, less, decay, more, root, eps, size): the parameter and the means after a step.
AdamStep = Emitted("adam_step", True)


def adam_step(
    p: Tensor, mean: Tensor, square: Tensor, grad: Tensor, keep: Number, less: Number, decay: Number, more: Number, root: Number, eps: Number,
    size: Number, *, into: tuple[Callable[[Tensor], Tensor] | None, ...],
) -> tuple[Tensor, ...]:  # fmt: skip
    """into: what makes a copy of each array for its result; None where the array may be written over."""
    f, g, i, r, e, z = (_number(x) for x in (keep, less, more, root, eps, size))
    rate, shrink = z * r, 0.0
    if rate and math.isfinite(rate):
        shrink = (1.0 - f) / rate
    fits = math.isfinite(shrink) and 0.0 < rate < math.inf and 0.0 <= g <= 1.0 and 0.0 < i <= 1.0 and 0.0 <= e * r < math.inf
    if not fits or not all(x.is_contiguous() for x in (p, mean, square, grad)):
        mean = mean + (grad - mean) * less
        square = square * decay + grad * grad * more
        return p * keep - mean / (square.sqrt() / root + eps) * size, mean, square
    p, mean, square = (x if copy is None else copy(x) for x, copy in zip((p, mean, square), into, strict=True))
    _kernel(  # type: ignore[misc]
        [p], [grad], [mean], [square], [], [_late], lr=rate, beta1=1.0 - g, beta2=1.0 - i, weight_decay=shrink, eps=e * r, amsgrad=False,
        maximize=False,
    )  # fmt: skip
    return p, mean, square

#: sgd_step(p..., buffer..., grad..., momentum, rate): the parameters and the buffers after a step, as many of the one as of the other.
SgdStep = Emitted("sgd_step", True)
_SMALL = 2**20  # bytes of a parameter up to which a call of the kernel costs something beside it, so that several share one


def sgd_step(*xs: Any, into: tuple[Callable[[Tensor], Tensor] | None, ...]) -> tuple[Tensor, ...]:
    """into: as in adam_step. The kernel takes a momentum of 0 to say that there is no buffer."""
    *arrays, momentum, rate = xs
    n, multiple = len(into) // 2, _number(momentum)
    if not multiple or not all(x.is_contiguous() for x in arrays):
        if n > 1:
            done = [sgd_step(*arrays[i::n], momentum, rate, into=into[i::n]) for i in range(n)]
            return tuple(pair[k] for k in (0, 1) for pair in done)
        p, buffer, grad = arrays
        buffer = buffer * momentum + grad
        return p - buffer * rate, buffer
    new = [x if copy is None else copy(x) for x, copy in zip(arrays, into, strict=False)]
    _sgd_kernel(  # type: ignore[misc]
        new[:n], arrays[2 * n :], new[n:], weight_decay=0.0, momentum=multiple, lr=_number(rate), dampening=0.0, nesterov=False, maximize=False,
        is_first_step=False,
    )  # fmt: skip
    return tuple(new)


class _Match:
    """One update, found from its last equation backwards; `inside` are its equations."""

    def __init__(self, made: dict[Any, Equation], like: Var):
        self.made, self.like = made, like
        self.inside: list[Equation] = []

    def of(self, v: Any, name: str) -> Equation | None:
        e = self.made.get(v)
        if e is None or e.primitive.name != name or e.outputs[0].shape != self.like.shape or e.outputs[0].dtype is not self.like.dtype:
            return None
        self.inside.append(e)
        return e

    def by_number(self, v: Any, name: str) -> tuple[Any, Atom] | None:
        """(x, c) for x op c with a 0-d c; a product may have it first."""
        e = self.of(v, name)
        if e is None:
            return None
        x, c = e.inputs if not e.inputs[1].shape or name not in ("mul", "add") else e.inputs[::-1]
        return (x, c) if not c.shape and x.shape == self.like.shape else None

    def sum_of(self, v: Any, name: str) -> list[Any] | None:
        e = self.of(v, name)
        return list(e.inputs) if e is not None else None

    def sgd(self, last: Equation) -> tuple[tuple[Atom, ...], tuple[Var, ...]] | None:
        """The operands of sgd_step, and the new buffer."""
        self.inside.append(last)
        p, move = last.inputs
        sized = self.by_number(move, "mul")
        sums = self.sum_of(sized[0], "add") if sized else None
        kept = self.by_number(sums[0], "mul") if sums and self.made.get(sums[0]) is not None else None
        if sized is None or sums is None or kept is None:
            return None
        return (p, kept[0], sums[1], kept[1], sized[1]), (sized[0],)  # type: ignore[return-value]

    def adam(self, last: Equation) -> tuple[tuple[Atom, ...], tuple[Var, ...]] | None:
        """The operands of adam_step, and the new means."""
        self.inside.append(last)
        p, move = last.inputs
        kept = self.by_number(p, "mul") if (e := self.made.get(p)) is not None and e.primitive.name == "mul" else (p, Literal(1.0, self.like.dtype))
        product = (e := self.made.get(move)) is not None and e.primitive.name == "mul"  # the rate behind the fraction, or above it
        sized = self.by_number(move, "mul") if product else None
        quotient = self.sum_of(sized[0] if sized else move, "div")
        above = None if product or quotient is None else self.by_number(quotient[0], "mul")
        mean, size = (quotient[0], sized[1]) if quotient and sized else above or (None, None)
        added = self.by_number(quotient[1], "add") if quotient and size is not None else None
        rooted = (self.by_number(added[0], "div") or (added[0], Literal(1.0, self.like.dtype))) if added else None
        sqrt = self.sum_of(rooted[0], "sqrt") if rooted else None
        squares = self.sum_of(sqrt[0], "add") if sqrt else None
        means = self.sum_of(mean, "add") if squares else None
        if kept is None or means is None:
            return None
        old, fresh = (self.by_number(s, "mul") for s in squares)  # type: ignore[union-attr]
        grad = self.sum_of(fresh[0], "square") if fresh else None
        change = self.by_number(means[1], "mul")
        difference = self.sum_of(change[0], "sub") if change else None
        if old is None or grad is None or difference is None or difference != [grad[0], means[0]]:
            return None
        operands = (kept[0], means[0], old[0], grad[0], kept[1], change[1], old[1], fresh[1], rooted[1], added[1], size)  # type: ignore[index]
        return operands, (mean, sqrt[0])  # type: ignore[index, return-value]


def _found(made: dict[Any, Equation], given: set[Var], last: Equation) -> tuple[Emitted, _Match, tuple[Atom, ...], tuple[Var, ...]] | None:
    """The update that ends in this equation: its step, equations, operands and new state."""
    out = last.outputs[0]
    for step, arrays, there in ((AdamStep, 4, _kernel), (SgdStep, 3, _sgd_kernel)):
        match = _Match(made, out)
        found = (match.adam if step is AdamStep else match.sgd)(last) if there else None
        if found is None:
            continue
        *state, grad = xs = found[0][:arrays]
        alike = all(isinstance(a, Var) and a.shape == out.shape and a.dtype is out.dtype for a in xs)
        if alike and given.issuperset(state) and len(set(xs)) == arrays and made.get(grad) not in match.inside:
            return step, match, *found
    return None


Found = tuple[Equation, Emitted, set[Equation], tuple[Atom, ...], tuple[Var, ...]]


def found_in(graph: Graph, uses: Uses, floats: Sequence[str]) -> Iterator[Found]:
    """The updates of parameters of these dtypes: the last equation of each, its step, all its equations, operands, and new state."""
    given = set(graph.inputs)
    for last in graph.equations:
        out = last.outputs[0]
        if last.primitive.name == "sub" and out.dtype.name in floats and out.shape and (found := _found(uses.made, given, last)):
            step, match, operands, new = found
            yield last, step, set(match.inside), operands, new


def updates(graph: Graph) -> Graph:
    """The graph with an adam_step or sgd_step for each update that is found."""
    uses, outputs, gone = Uses(graph), set(graph.outputs), set[Equation]()
    users = uses.users
    steps: dict[Equation, Equation] = {}
    for last, step, inside, operands, new in found_in(graph, uses, _FLOATS):
        results = (last.outputs[0], *new)
        hidden = [v for e in inside for v in e.outputs if v not in results]
        if inside & gone or any(v in outputs or not inside.issuperset(users.get(v, ())) for v in hidden):
            continue
        at = graph.equations.index(last)
        early = {e for v in new for e in users.get(v, ()) if e not in inside and graph.equations.index(e) < at}
        if early:  # somebody reads a mean before the parameter is made
            continue
        gone |= inside
        steps[last] = Equation(step, operands, {}, results, last.where)
    if not steps:
        return graph
    kept = [steps.get(e, e) for e in graph.equations if e in steps or e not in gone]
    return together(in_numbers(Graph(graph.inputs, kept, graph.outputs, graph.name)))


def _scalar(e: Equation | None) -> bool:
    """Whether Python computes the same bits."""
    if e is None or any(a.shape for a in (*e.inputs, *e.outputs)) or e.inputs[0].dtype.name != "float64":
        return False
    return e.primitive.name in _SPELLED or (e.primitive.name == "cast" and e.outputs[0].dtype.name == "float32")


def in_numbers(graph: Graph) -> Graph:
    """The graph whose updates take numbers; an array that several of them read becomes a number once."""
    uses = Uses(graph)
    made, users = uses.made, {a: set(found) for a, found in uses.users.items()}
    shared: dict[Any, Var] = {}
    new: dict[Equation, list[Equation]] = {}
    gone: set[Equation] = set()

    def as_number(a: Atom, before: list[Equation]) -> Atom:
        if isinstance(a, Literal) or a.shape:
            return a
        if a not in shared:
            shared[a] = Var((), a.dtype)
            before.append(chain((a,), [], (a,), (a,), (shared[a],)))
        return shared[a]

    def chain(taken: tuple, equations: list[Equation], given: tuple, results: tuple, outputs: tuple) -> Equation:
        source, _ = emit(Graph(given, equations, results, "numbers"), _in_python, lambda k, env: repr(float(k.value)))  # type: ignore[arg-type]
        return Equation(Numbers, taken, {"function": _functions(source)}, outputs)

    for step in graph.equations:
        if step.primitive not in (AdamStep, SgdStep):
            continue
        inside: dict[Equation, None] = {}
        ends = [a for a in dict.fromkeys(step.inputs) if not a.shape]
        for a in (todo := list(ends)):
            e: Any = made.get(a)  # type: ignore[arg-type]
            if _scalar(e) and a not in graph.outputs and users[a] <= {step, *inside}:
                inside[e] = None
                todo += e.inputs
        equations = [e for e in graph.equations if e in inside] if inside else []
        before = new[step] = []
        own = {v for e in equations for v in e.outputs}
        results = tuple(a for a in ends if a in own)
        if equations:
            given = tuple(dict.fromkeys(a for e in equations for a in e.inputs if isinstance(a, Var) and a not in own))
            taken = tuple(as_number(a, before) if not users[a] <= inside.keys() and made.get(a) is None else a for a in given)
            before.append(chain(taken, equations, given, results, results))
            gone |= inside.keys()
        rest = tuple(a if a in own else as_number(a, before) for a in step.inputs)
        before.append(Equation(step.primitive, rest, step.params, step.outputs, step.where))
    return Graph(graph.inputs, [n for e in graph.equations if e not in gone for n in new.get(e, [e])], graph.outputs, graph.name)


def together(graph: Graph) -> Graph:
    """The graph whose small sgd_steps by the same numbers, where they follow each other, are one."""
    equations: list[Equation] = []
    for e in graph.equations:
        last = equations[-1] if equations else e
        arrays, n = (*last.inputs[:-2], *e.inputs[:-2]), len(last.outputs) // 2
        alike = e.primitive is last.primitive is SgdStep and e.inputs[-2:] == last.inputs[-2:] and e.outputs[0].dtype is last.outputs[0].dtype
        small = max(v.nbytes for v in (*e.outputs, *last.outputs)) <= _SMALL if alike else False
        if e is last or not small or len(set(arrays)) < len(arrays) or any(v in arrays for v in last.outputs):
            equations.append(e)
            continue
        parts = [part for k in range(3) for part in (*last.inputs[k * n : (k + 1) * n], e.inputs[k])]
        outputs = (*last.outputs[:n], e.outputs[0], *last.outputs[n:], e.outputs[1])
        equations[-1] = Equation(SgdStep, (*parts, *e.inputs[-2:]), e.params, outputs, e.where)
    return Graph(graph.inputs, equations, graph.outputs, graph.name)


def _in_python(equation: Equation, inputs: list[str], outputs: list[str], env: dict[str, Any]) -> str:
    return f"{outputs[0]} = {_SPELLED.get(equation.primitive.name, 'cast({})').format(*inputs)}"


def rewrite(graph: Graph, place: str) -> Graph:
    """The updates of a program for the CPU; for a GPU those of on_torch_cuda.py."""
    if place.startswith("cuda"):
        from minidl.rewrites.updates.on_torch_cuda import updates as of_all

        return of_all(graph, place)
    return updates(graph) if place else graph


EMITTED.update(adam_step=adam_step, sgd_step=sgd_step, numbers=numbers)
OVER.update(("adam_step", "sgd_step"))
