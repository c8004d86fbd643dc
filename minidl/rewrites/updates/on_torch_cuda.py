"""PyTorch on a GPU: the updates of Adam, AdamW and SGD with momentum as torch's fused kernels, those of all parameters in one call each.

What a kernel wants of the host (the betas, eps, a momentum) are numbers that a GPU's 0-d tensors know where a program's caller, or its text, had them
as numbers (`number`, see TorchBackend.scalar); the rate and the counts of steps stay on the device. So nothing waits, and a program that is replayed
(mode="cudagraph") is captured again only when a number that was read has changed. By bytes an update of Adam moves 13 arrays of a parameter's size,
copies included, where its operations move 31: a program never writes over state on a GPU, see calls.Engine.expendable.

Promises: values differ by rounding only, nan and infinities included; where a number is not known (a beta that is a Tensor), torch refuses, or its
kernels fail a trial against the operations, which is made once for a dtype and device when the first such program is compiled, the operations run.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable
from typing import Any

import torch

from minidl.backends.torch_elementwise import NATIVE
from minidl.backends.torch_rewrite import EMITTED, Uses
from minidl.graph import Atom, Emitted, Equation, Graph, Literal, Var
from minidl.passes.basic import dead_code
from minidl.rewrites.updates.on_torch import AdamStep, found_in

Tensor = torch.Tensor
Tensors = list[Tensor] | tuple[Tensor, ...]
_FLOATS = ("float32", "bfloat16", "float16")  # the kernels read a rate that lies on the device as float32
_adamw: Any = getattr(getattr(torch.ops.aten, "_fused_adamw_", None), "tensor_lr", None)  # private, so they may be missing
_sgd: Any = getattr(getattr(torch.ops.aten, "_fused_sgd_", None), "tensor_lr", None)

#: adam_steps(*parameters, *means, *squares, *counts, *gradients, keep, less, decay, more, beta1, beta2, rate, eps): the first four after a step.
AdamSteps = Emitted("adam_steps", True)
#: sgd_steps(*parameters, *buffers, *gradients, momentum, rate): the first two after a step.
SgdSteps = Emitted("sgd_steps", True)


def known(x: Tensor) -> float:
    """The number that a 0-d tensor was made of, nan if nobody knows it; whoever replays a program sees that it was `read`."""
    number = getattr(x, "number", math.nan)
    x.read = True  # type: ignore[attr-defined]
    return float(number)


def _copies(xs: Tensors) -> list[Tensor]:
    out = [torch.empty_like(x) for x in xs]
    torch._foreach_copy_(out, xs)
    return out


def _in_order(xs: Tensors) -> list[Tensor]:
    return [x.contiguous() for x in xs]


def adam_steps(*xs: Tensor) -> tuple[Tensor, ...]:
    n = (len(xs) - 8) // 5
    p, mean, square, count, grad = ([*xs[i * n : (i + 1) * n]] for i in range(5))
    keep, less, decay, more, *settings, rate, eps = xs[5 * n :]
    beta1, beta2 = map(known, settings)
    alike = [(less, 1.0 - beta1), (decay, beta2), (more, 1.0 - beta2)]
    fits = 0.0 <= beta1 < 1.0 and 0.0 <= beta2 < 1.0 and 0.0 <= known(eps) < math.inf and all(math.isclose(known(a), b) for a, b in alike)
    if not fits or not all(x.is_contiguous() for x in (*p, *mean, *square)):
        return _adam_in_operations(p, mean, square, count, grad, *xs[5 * n :])
    p, mean, square, count = [*torch._foreach_mul(p, keep)], _copies(mean), _copies(square), [*torch._foreach_add(count, 1.0)]
    _adamw(
        p, _in_order(grad), mean, square, [], torch.stack(count).float().unbind(), lr=rate.float(), beta1=beta1, beta2=beta2, weight_decay=0.0,
        eps=known(eps), amsgrad=False, maximize=False,
    )  # fmt: skip
    return *p, *mean, *square, *count


def _adam_in_operations(p: Tensors, mean: Tensors, square: Tensors, count: Tensors, grad: Tensors, *numbers: Tensor) -> tuple[Tensor, ...]:
    """As minidl.optim writes it."""
    keep, less, decay, more, beta1, beta2, rate, eps = numbers
    dtype, count = p[0].dtype, [t + 1.0 for t in count]
    mean = [m + (g - m) * less for m, g in zip(mean, grad, strict=True)]
    square = [s * decay + g * g * more for s, g in zip(square, grad, strict=True)]
    new = []
    for x, m, s, t in zip(p, mean, square, count, strict=True):
        root, size = (1.0 - beta2**t).sqrt(), rate / (1.0 - beta1**t)
        if dtype.itemsize < 4:
            new.append(x * keep - m / (s.sqrt() / root.to(dtype) + eps) * size.to(dtype))
        else:
            new.append(x * keep - m * (size * root).to(dtype) / (s.sqrt() + (eps * root).to(dtype)))
    return *new, *mean, *square, *count


def sgd_steps(*xs: Tensor) -> tuple[Tensor, ...]:
    n = (len(xs) - 2) // 3
    p, buffer, grad = ([*xs[i * n : (i + 1) * n]] for i in range(3))
    momentum, rate = xs[3 * n :]
    multiple = known(momentum)
    if not 0.0 < multiple < math.inf or not all(x.is_contiguous() for x in (*p, *buffer)):
        buffer = [b * momentum + g for b, g in zip(buffer, grad, strict=True)]
        return *(x - b * rate for x, b in zip(p, buffer, strict=True)), *buffer
    p, buffer = _copies(p), _copies(buffer)
    _sgd(
        p, _in_order(grad), buffer, weight_decay=0.0, momentum=multiple, lr=rate.float(), dampening=0.0, nesterov=False, maximize=False,
        is_first_step=False,
    )  # fmt: skip
    return *p, *buffer


@functools.cache
def trusted(step: Emitted, dtype: torch.dtype, place: str) -> bool:
    """Whether the kernel, as it is called here, does what the operations do, on two small parameters with special values."""
    if (_adamw if step is AdamSteps else _sgd) is None:
        return False
    arrays, numbers = (5, 8) if step is AdamSteps else (3, 2)
    values = [[0.5, -1.25, 0.0, math.inf, 3.0, -2.0, math.nan], [1.5, -0.75]]

    def made(value: float, narrow: bool = True) -> Tensor:
        x: Any = torch.tensor(value, dtype=dtype if narrow else torch.float64, device=place)
        x.number = value
        return x

    xs = [torch.tensor(v, dtype=dtype, device=place).roll(i) for i in range(arrays) for v in values]
    if step is AdamSteps:
        xs[4:6] = [x.square() for x in xs[4:6]]
        xs[6:8] = [made(t, False) for t in (0.0, 41.0)]
        wide = (0.9, 0.999, 0.01)
        settings = [made(v) for v in (0.75, 1 - 0.9, 0.999, 1 - 0.999)] + [made(v, False) for v in wide]
        settings.append(made(1e-3, dtype.itemsize < 4))
    else:
        settings = [made(0.9), made(0.125)]
    plain = [x.clone() for x in settings[:numbers]]  # whose numbers nobody knows
    try:
        found, want = EMITTED[step.name](*xs, *settings), EMITTED[step.name](*xs, *plain)
    except Exception:  # whatever it is, the operations are right
        return False
    close = functools.partial(torch.allclose, rtol=32 * torch.finfo(dtype).eps, atol=4 * torch.finfo(dtype).eps, equal_nan=True)
    return all(close(a.double(), b.double()) for a, b in zip(found, want, strict=True))


class _Chain:
    """What Adam computes of 0-d arrays for one parameter, from the operands of an adam_step backwards; `inside` are the equations."""

    def __init__(self, uses: Uses):
        self.made, self.inside = uses.made, dict[Equation, None]()

    def of(self, a: Atom, name: str) -> list[Any] | None:
        e = self.made.get(a)  # type: ignore[arg-type]
        if e is None or e.primitive.name != name:
            return None
        self.inside[e] = None
        return list(e.inputs)

    def wide(self, a: Any) -> Any:
        """What a was cast from."""
        inner = self.of(a, "cast")
        return inner[0] if inner else a

    def corrected(self, a: Any) -> list[Any] | None:
        """(beta, count) for 1 - beta ** count."""
        parts = self.of(a, "sub")
        return self.of(parts[1], "pow") if parts and _is(parts[0], 1.0) else None

    def settings(self, root: Atom, eps: Atom, size: Atom) -> list[Any] | None:
        """beta1, beta2, rate, eps and the count before the step; an operation may have the root of the correction on either side."""
        if isinstance(root, Literal):  # both above and below the fraction
            above, below = self.of(self.wide(size), "mul"), self.of(self.wide(eps), "mul")
            if above is None or below is None or above[1] is not below[0] or not _is(root, 1.0):
                return None
            (size, root), eps = above, below[1]
        rooted, fraction = self.of(self.wide(root), "sqrt"), self.of(self.wide(size), "div")
        second, first = rooted and self.corrected(rooted[0]), fraction and self.corrected(fraction[1])
        if not first or not second or not fraction or first[1] is not second[1]:
            return None
        counted = self.of(first[1], "add")
        return [first[0], second[0], fraction[0], eps, counted[0]] if counted and _is(counted[1], 1.0) else None


def _is(a: Any, value: float) -> bool:
    return isinstance(a, Literal) and a.value == value


def updates(graph: Graph, place: str) -> Graph:
    """The graph with one adam_steps or sgd_steps for all updates of the same settings."""
    uses, given = Uses(graph), set(graph.inputs)
    groups: dict[Any, list[tuple[Equation, list[Atom], list[Var]]]] = {}
    gone: set[Equation] = set()
    places = {e: k for k, e in enumerate(graph.equations)}
    for last, step, inside, operands, new in found_in(graph, uses, _FLOATS):
        results, equations, out = [last.outputs[0], *new], dict.fromkeys(inside), last.outputs[0]
        at = 4 if step is AdamStep else 3
        arrays, numbers = [*operands[:at]], [*operands[at : 2 * at]]
        if step is AdamStep:
            chain = _Chain(uses)
            found = chain.settings(*operands[8:])
            if found is None:
                continue
            *settings, count = found
            arrays.insert(3, count)
            numbers += settings
            equations |= chain.inside
            results.append(next(e.outputs[0] for e in chain.inside if e.inputs[0] is count))
        hidden = [v for e in equations for v in e.outputs if v not in results]
        alone = all(v not in uses.kept and equations.keys() >= set(uses.users.get(v, ())) for v in hidden)
        read = any(e not in equations for v in results for e in uses.users.get(v, ()))
        kind = AdamSteps if step is AdamStep else SgdSteps
        known = all(isinstance(a, Literal) or a in given for a in (*numbers, *arrays[:-1]))
        if alone and not read and known and 0 not in out.shape and not gone & equations.keys() and trusted(kind, NATIVE[out.dtype], place):
            gone |= equations.keys()
            key = kind, out.dtype, *((a.value, a.dtype) if isinstance(a, Literal) else a for a in numbers)
            groups.setdefault(key, []).append((last, [*arrays, *numbers], results))
    made: dict[Equation, Equation] = {}
    for (kind, *_), members in groups.items():
        n = 5 if kind is AdamSteps else 3
        columns: Callable[[int], Any] = lambda k: zip(*(m[k] for m in members), strict=True)  # noqa: B023
        taken = [*itertools.chain.from_iterable(itertools.islice(columns(1), n)), *members[0][1][n:]]
        final = max((m[0] for m in members), key=places.__getitem__)
        made[final] = Equation(kind, tuple(taken), {}, tuple(itertools.chain.from_iterable(columns(2))), final.where)
    kept = [made.get(e, e) for e in graph.equations if e in made or e not in gone]
    return dead_code(Graph(graph.inputs, kept, graph.outputs, graph.name)) if made else graph


EMITTED.update(adam_steps=adam_steps, sgd_steps=sgd_steps)
