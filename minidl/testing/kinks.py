"""The gradient law as data: one Kink per case, with the point, the value and every derivative that the law gives there.

A derivative is that of <w, f(args)> (w: ones unless the row says otherwise). `second` is the gradient of the sum of all first derivatives, where the
law applied to the rule's own text gives a number; None where it is undefined (a pole, an infinite slope, a function that is not twice defined).
`ulp` 0 means: exactly this number on every backend and in every mode. `law` names the law that a row
comes from where the table of cases is silent; `forward` is the tangent where forward mode differs, which it may where there is no finite derivative.

The law is about one primitive, or one named composite (clip, norm, std, softmax, ...), at one point; a program gets the chain rule over them:

1. the true derivative where it exists, at removable singularities too;
2. at a kink the finite subgradient on which PyTorch and JAX agree, or else the one of least norm, ties split evenly; what is defined by an order
   (the last write wins, a stable sort) follows that order;
3. then the limit, where there is one;
4. never nan where these give a finite number;
5. forward and reverse mode agree wherever the derivative is finite;
6. complex gradients are the direction of steepest ascent of a real loss, as PyTorch's (the conjugate of JAX's);
7. the same number on every backend, eager, traced and under vmap.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import minidl as md

F = md.nn.functional
inf, nan = math.inf, math.nan


@dataclass(frozen=True)
class Kink:
    """One case. args, value, vjp, second: nested lists of numbers; vjp and second have one entry per argument.

    >>> next(k.vjp for k in KINKS if k.name == "maximum tie")
    (0.5, 0.5)
    """

    name: str
    f: Callable[..., Any]
    args: tuple[Any, ...]
    value: Any
    vjp: tuple[Any, ...]
    second: tuple[Any, ...] | None = None
    w: Any = None
    ulp: int = 0
    dtype: str = "float64"
    law: str = ""
    forward: Any = None


KINKS: list[Kink] = []


def row(name: str, f: Callable[..., Any], args: tuple, value: Any, vjp: tuple, second: tuple | None = None, **more: Any) -> None:
    """Add a row; a name may occur once."""
    assert all(k.name != name for k in KINKS), name
    KINKS.append(Kink(name, f, args, value, vjp, second, **more))


def zeros(name: str, f: Callable[..., Any], args: tuple, value: Any) -> None:
    """A row whose derivatives of every order are 0."""
    nothing = tuple([0.0] * len(a) if isinstance(a, list) else 0.0 for a in args)
    row(name, f, args, value, nothing, nothing)


# ---- kinks of one argument -------------------------------------------------------------------------------------------------------------
zeros("abs(0)", md.abs, (0.0,), 0.0)
zeros("relu(0)", md.relu, (0.0,), 0.0)
zeros("clip at lo and hi, scalar bounds", lambda x: md.clip(x, -1.0, 1.0), ([-1.0, 1.0],), [-1.0, 1.0])
zeros("clip with a lower bound alone, at it", lambda x: md.clip(x, 0.0, None), (0.0,), 0.0)
row("clip with a lower bound alone, at inf", lambda x: md.clip(x, 0.0, None), (inf,), inf, (1.0,), (0.0,), law="3")
row("clip with an upper bound alone, at -inf", lambda x: md.clip(x, None, 0.0), (-inf,), -inf, (1.0,), (0.0,), law="3")
row("clip at infinite bounds", lambda x: md.clip(x, -inf, inf), ([-inf, 0.0, inf],), [-inf, 0.0, inf], ([1.0, 1.0, 1.0],), ([0.0] * 3,), law="3")
zeros("hardtanh(+-1)", F.hardtanh, ([-1.0, 1.0],), [-1.0, 1.0])
row("leaky_relu(0)", F.leaky_relu, (0.0,), 0.0, (0.01,), (0.0,))
zeros("relu6(0, 6)", F.relu6, ([0.0, 6.0],), [0.0, 6.0])
row("elu(0)", F.elu, (0.0,), 0.0, (1.0,))
row("selu(0)", F.selu, (0.0,), 0.0, (1.7580993408473766,), ulp=1)
row("celu(0)", F.celu, (0.0,), 0.0, (1.0,))
zeros("hard_sigmoid(+-3)", F.hardsigmoid, ([-3.0, 3.0],), [0.0, 1.0])
row("hard_swish(+-3)", F.hardswish, ([-3.0, 3.0],), [0.0, 3.0], ([0.0, 1.0],))
row("hard_swish(+-inf)", F.hardswish, ([-inf, inf],), [0.0, inf], ([0.0, 1.0],), law="3")
for _name in ("floor", "round", "ceil", "trunc", "sign"):
    _at = {"floor": [-2.0, 0.0, 1.0], "round": [-2.0, 0.0, 2.0], "ceil": [-1.0, 0.0, 2.0], "trunc": [-1.0, 0.0, 1.0], "sign": [-1.0, 0.0, 1.0]}[_name]
    zeros(_name, getattr(md, _name), ([-1.5, 0.0, 1.5],), _at)
row("softplus(0)", md.softplus, (0.0,), 0.6931471805599453, (0.5,), (0.25,), ulp=1)
row("softplus(25)", md.softplus, (25.0,), 25.000000000013888, (0.9999999999861121,), ulp=1)
row("softplus(+-inf)", md.softplus, ([-inf, inf],), [0.0, inf], ([0.0, 1.0],), ([0.0, 0.0],))
row("silu(+-inf)", F.silu, ([-inf, inf],), [0.0, inf], ([0.0, 1.0],), law="3")
row("gelu(+-inf)", F.gelu, ([-inf, inf],), [0.0, inf], ([0.0, 1.0],), law="3")
row("gelu(+-inf), tanh", lambda x: F.gelu(x, approximate="tanh"), ([-inf, inf],), [0.0, inf], ([0.0, 1.0],), law="3")
row("mish(+-inf)", F.mish, ([-inf, inf],), [0.0, inf], ([0.0, 1.0],), law="3")
for _f in (F.silu, F.mish, F.hardswish):
    row(f"{_f.__name__}(nan)", _f, (nan,), nan, (nan,), law="1")
row("silu(0), gelu(0)", lambda x: F.silu(x) + F.gelu(x), (0.0,), 0.0, (1.0,), (0.5 + 0.7978845608028654,), ulp=2)
row("sqrt(0)", md.sqrt, (0.0,), 0.0, (inf,))
row("lgamma(0)", md.lgamma, (0.0,), inf, (-inf,))
row("i0(0)", md.i0, (0.0,), 1.0, (0.0,), (0.5,))
zeros("heaviside(0), d/dx", lambda x: md.heaviside(x, 0.5), ([-1.0, 0.0, 2.0],), [0.0, 0.5, 1.0])
row("heaviside(0), d/dh", md.heaviside, (0.0, 0.25), 0.25, (0.0, 1.0), (0.0, 0.0), law="1")
zeros("angle(0), real", md.angle, (0.0,), 0.0)
row("unused input", lambda x, y: x * 2.0, (1.0, 5.0), 2.0, (2.0, 0.0), (0.0, 0.0))

# ---- ties and nan of two arguments -----------------------------------------------------------------------------------------------------
row("maximum tie", md.maximum, (2.0, 2.0), 2.0, (0.5, 0.5), (0.0, 0.0))
row("minimum tie", md.minimum, (2.0, 2.0), 2.0, (0.5, 0.5), (0.0, 0.0))
row("maximum(x, 0.) at 0", lambda x: md.maximum(x, 0.0), (0.0,), 0.0, (0.5,), (0.0,))
row("maximum(nan, 1)", md.maximum, (nan, 1.0), nan, (1.0, 0.0), (0.0, 0.0))
row("minimum(1, nan)", md.minimum, (1.0, nan), nan, (0.0, 1.0), (0.0, 0.0))
row("maximum(nan, nan)", md.maximum, (nan, nan), nan, (0.5, 0.5), (0.0, 0.0), law="2")
row("fmax tie", md.fmax, (2.0, 2.0), 2.0, (0.5, 0.5), (0.0, 0.0))
row("fmin tie", md.fmin, (2.0, 2.0), 2.0, (0.5, 0.5), (0.0, 0.0))
row("fmax(nan, 1)", md.fmax, (nan, 1.0), 1.0, (0.0, 1.0), (0.0, 0.0), law="1")
row("clip, tensor lo tie", lambda x, lo: md.clip(x, lo, None), (2.0, 2.0), 2.0, (0.5, 0.5), (0.0, 0.0))
row("hypot(0, 0)", md.hypot, (0.0, 0.0), 0.0, (0.0, 0.0))
row("hypot(-inf, 1)", md.hypot, (-inf, 1.0), inf, (-1.0, 0.0), law="3")
row("hypot(1, inf)", md.hypot, (1.0, inf), inf, (0.0, 1.0), law="3")
row("atan2(0, 0)", md.atan2, (0.0, 0.0), 0.0, (0.0, 0.0))
row("atan2(inf, 1)", md.atan2, (inf, 1.0), math.pi / 2, (0.0, 0.0), law="3")
row("atan2(inf, inf)", md.atan2, (inf, inf), math.pi / 4, (0.0, 0.0), law="3")
row("pow(0, 0)", md.pow, (0.0, 0.0), 1.0, (0.0, 0.0))
zeros("x ** 0 at 0", lambda x: x**0, (0.0,), 1.0)
zeros("x ** 0.0 at 0", lambda x: x**0.0, (0.0,), 1.0)
row("pow(0, 1) and pow(0, 2), d/dx", lambda x: md.pow(x, 1.0) + md.pow(x, 2.0), (0.0,), 0.0, (1.0,), (2.0,), law="1")
row("pow(0, -1)", md.pow, (0.0, -1.0), inf, (-inf, -inf))
row("pow(-2, 3.)", md.pow, (-2.0, 3.0), -8.0, (12.0, nan))
row("xlogy(0, 0)", md.xlogy, (0.0, 0.0), 0.0, (0.0, 0.0))
row("xlogy(0, 1)", md.xlogy, (0.0, 1.0), 0.0, (0.0, 0.0), (1.0, 1.0), law="1")
row("where(x > 0, sqrt(x), 0) at 0", lambda x: md.where(x > 0, md.sqrt(x), 0.0), (0.0,), 0.0, (nan,), forward=0.0)
zeros("the double where at 0", lambda x: md.where(x > 0, md.sqrt(md.where(x > 0, x, 1.0)), 0.0), (0.0,), 0.0)
zeros("floor_divide", md.floor_divide, (7.0, 2.0), 3.0)
row("remainder(7, 2)", md.remainder, (7.0, 2.0), 1.0, (1.0, -3.0), (0.0, 0.0))
row("remainder(-7, 2)", md.remainder, (-7.0, 2.0), 1.0, (1.0, 4.0), (0.0, 0.0))
row("remainder(7, 0)", md.remainder, (7.0, 0.0), nan, (1.0, -inf))
row("copysign(0, -1)", md.copysign, (0.0, -1.0), -0.0, (0.0, 0.0), (0.0, 0.0))
row("copysign(2, -1)", md.copysign, (2.0, -1.0), -2.0, (-1.0, 0.0), (0.0, 0.0), law="1")
row("logaddexp(inf, inf)", md.logaddexp, (inf, inf), inf, (0.5, 0.5))
row("logaddexp(-inf, -inf)", md.logaddexp, (-inf, -inf), -inf, (0.0, 0.0))
row("logaddexp(inf, 1)", md.logaddexp, (inf, 1.0), inf, (1.0, 0.0), law="3")
row("logaddexp(-inf, 1)", md.logaddexp, (-inf, 1.0), 1.0, (0.0, 1.0), law="3")

# ---- reductions ------------------------------------------------------------------------------------------------------------------------
row("max of [1, 2, 2]", md.max, ([1.0, 2.0, 2.0],), 2.0, ([0.0, 0.5, 0.5],), ([0.0] * 3,))
row("min of [1, 1, 2]", md.min, ([1.0, 1.0, 2.0],), 1.0, ([0.5, 0.5, 0.0],), ([0.0] * 3,))
row(
    "max along an axis",
    lambda x: md.max(x, axis=1),
    ([[1.0, 3.0, 3.0], [4.0, 4.0, 4.0]],),
    [3.0, 4.0],
    ([[0, 0.5, 0.5], [1 / 3] * 3],),
    ([[0.0] * 3] * 2,),
)
row("max with a nan element", md.max, ([1.0, nan, 2.0],), nan, ([0.0, 1.0, 0.0],), ([0.0] * 3,))
row("min with two nan elements", md.min, ([nan, 1.0, nan],), nan, ([0.5, 0.0, 0.5],), ([0.0] * 3,))
row("norm2(0)", md.vector_norm, ([0.0, 0.0],), 0.0, ([0.0, 0.0],))
row("pairwise distance 0", lambda x, y: F.pairwise_distance(x, y, eps=0.0), ([1.0, 2.0], [1.0, 2.0]), 0.0, ([0.0, 0.0], [0.0, 0.0]))
row("norm1 with a 0", lambda x: md.vector_norm(x, ord=1), ([0.0, -3.0],), 3.0, ([0.0, -1.0],), ([0.0, 0.0],))
row("norm3(0)", lambda x: md.vector_norm(x, ord=3), ([0.0, 0.0],), 0.0, ([0.0, 0.0],))
row("norm3 with a 0", lambda x: md.vector_norm(x, ord=3), ([0.0, 1.0],), 1.0, ([0.0, 1.0],), law="1")
row("root 1.5 of inf", lambda x: md.extend.ns.root(x, p=1.5), (inf,), inf, (0.0,), law="3")
row("norm.5(0)", lambda x: md.vector_norm(x, ord=0.5), ([0.0, 0.0],), 0.0, ([0.0, 0.0],), law="2")
row("norm.5 with a 0", lambda x: md.vector_norm(x, ord=0.5), ([0.0, 1.0],), 1.0, ([0.0, 1.0],), law="2")
row("norm_inf tie", lambda x: md.vector_norm(x, ord=inf), ([2.0, -2.0],), 2.0, ([0.5, -0.5],), ([0.0, 0.0],))
row("std of a constant", md.std, ([3.0, 3.0, 3.0],), 0.0, ([0.0] * 3,))
row("var of a constant", md.var, ([3.0, 3.0, 3.0],), 0.0, ([0.0] * 3,))
row("prod, one zero", md.prod, ([0.0, 2.0, 3.0],), 0.0, ([6.0, 0.0, 0.0],), ([5.0, 3.0, 2.0],))
row("prod, two zeros", md.prod, ([0.0, 0.0, 3.0],), 0.0, ([0.0, 0.0, 0.0],), ([3.0, 3.0, 0.0],))
_W = [1.0, 10.0, 100.0]
_CP = md.cumulative_prod
row("cumprod, one zero", _CP, ([2.0, 0.0, 3.0],), [2.0, 0.0, 0.0], ([1.0, 620.0, 0.0],), ([310.0, 510.0, 200.0],), w=_W)
row("cumprod, two zeros", _CP, ([0.0, 0.0, 3.0],), [0.0] * 3, ([1.0, 0.0, 0.0],), ([310.0, 310.0, 0.0],), w=_W)
row("sort ties, ascending", md.sort, ([2.0, 1.0, 2.0],), [1.0, 2.0, 2.0], ([10.0, 1.0, 100.0],), ([0.0] * 3,), w=_W)
row("sort ties, descending", lambda x: md.sort(x, descending=True), ([2.0, 1.0, 2.0],), [2.0, 2.0, 1.0], ([1.0, 100.0, 10.0],), ([0.0] * 3,), w=_W)
row("topk ties", lambda x: md.topk(x, 2).values, ([1.0, 3.0, 3.0, 3.0],), [3.0, 3.0], ([0.0, 1.0, 10.0, 0.0],), ([0.0] * 4,), w=[1.0, 10.0])
row("cummax ties", md.cumulative_max, ([2.0, 2.0, 1.0],), [2.0, 2.0, 2.0], ([56.0, 55.0, 0.0],), ([0.0] * 3,), w=_W)
row("cummin ties", md.cumulative_min, ([2.0, 2.0, 3.0],), [2.0, 2.0, 2.0], ([56.0, 55.0, 0.0],), ([0.0] * 3,), w=_W)
row("cummax, nan", md.cumulative_max, ([1.0, nan, 2.0],), [1.0, nan, nan], ([1.0, 110.0, 0.0],), ([0.0] * 3,), w=_W, law="2")
row("median, even", md.median, ([1.0, 2.0, 3.0, 4.0],), 2.5, ([0.0, 0.5, 0.5, 0.0],), ([0.0] * 4,))
row("median, odd with ties", md.median, ([1.0, 2.0, 2.0],), 2.0, ([0.0, 1.0, 0.0],), ([0.0] * 3,))
row("quantile .5", lambda x: md.quantile(x, 0.5), ([1.0, 2.0, 3.0, 4.0],), 2.5, ([0.0, 0.5, 0.5, 0.0],), ([0.0] * 4,))
row("logsumexp, all -inf", md.logsumexp, ([-inf, -inf],), -inf, ([0.0, 0.0],), ([0.0, 0.0],))
row("logsumexp(inf, 1)", md.logsumexp, ([inf, 1.0],), inf, ([1.0, 0.0],), ([0.0, 0.0],))
row("logsumexp(inf, inf)", md.logsumexp, ([inf, inf],), inf, ([0.5, 0.5],), law="as logaddexp")
row("logsumexp(-inf, 1)", md.logsumexp, ([-inf, 1.0],), 1.0, ([0.0, 1.0],), ([0.0, 0.0],), law="3")
row("logcumsumexp [-inf, 1]", md.cumulative_logsumexp, ([-inf, 1.0],), [-inf, 1.0], ([1.0, 1.0],))
zeros("softmax, all -inf", md.softmax, ([-inf, -inf],), [0.0, 0.0])
row("softmax, one -inf", md.softmax, ([-inf, 1.0, 1.0],), [0.0, 0.5, 0.5], ([0.0, -2.25, 2.25],), ([0.0] * 3,), w=[1.0, 1.0, 10.0], law="3")
row("log_softmax, all -inf", md.log_softmax, ([-inf, -inf],), [-inf, -inf], ([0.0, 0.0],), ([0.0, 0.0],))
row("log_softmax at 0, all -inf", lambda x: md.log_softmax(x, at=0 * md.argmax(x, axis=-1)), ([-inf, -inf],), -inf, ([0.0, 0.0],), ([0.0, 0.0],))
row("log_softmax(inf, 1) at 0", lambda x: md.log_softmax(x, at=md.argmax(x, axis=-1)), ([inf, 1.0],), 0.0, ([0.0, 0.0],), law="3")
row("log_softmax(inf, 1) at 1", lambda x: md.log_softmax(x, at=md.argmin(x, axis=-1)), ([inf, 1.0],), -inf, ([-1.0, 1.0],), law="3")
row(
    "cross_entropy, a row of -inf", lambda x: F.cross_entropy(x, md.argmax(x, axis=-1), reduction="sum"), ([[-inf, -inf]],), inf,
    ([[0.0, 0.0]],), ([[0.0, 0.0]],),
)  # fmt: skip

# ---- indexing and windows --------------------------------------------------------------------------------------------------------------
row("gather duplicates", lambda x: x[md.asarray([0, 0, 1])], ([1.0, 2.0],), [1.0, 1.0, 2.0], ([11.0, 100.0],), ([0.0, 0.0],), w=_W)
row(
    "x[[0, 0]].set(v): the last wins",
    lambda x, v: x.at[md.asarray([0, 0])].set(v),
    ([5.0, 6.0], [7.0, 8.0]),
    [8.0, 6.0],
    ([0.0, 10.0], [0.0, 1.0]),
    ([0.0] * 2,) * 2,
    w=[1.0, 10.0],
)
row(
    "scatter add, duplicates",
    lambda x, v: x.at[md.asarray([0, 0])].add(v),
    ([5.0, 6.0], [7.0, 8.0]),
    [20.0, 6.0],
    ([1.0, 10.0], [1.0, 1.0]),
    ([0.0] * 2,) * 2,
    w=[1.0, 10.0],
    law="1",
)
row(
    "scatter mul, duplicates", lambda x, v: x.at[md.asarray([0, 0])].multiply(v), ([2.0], [3.0, 4.0]), [24.0], ([12.0], [8.0, 6.0]),
    ([7.0], [6.0, 5.0]),
)  # fmt: skip
row(
    "scatter mul, a zero", lambda x, v: x.at[md.asarray([0, 0])].multiply(v), ([2.0], [0.0, 4.0]), [0.0], ([0.0], [8.0, 0.0]), ([4.0], [6.0, 2.0]),
    law="1",
)  # fmt: skip
row("scatter max ties", lambda x, v: x.at[md.asarray([0, 0])].max(v), ([2.0], [2.0, 2.0]), [2.0], ([1 / 3], [1 / 3, 1 / 3]), ([0.0], [0.0, 0.0]))
row("scatter min ties", lambda x, v: x.at[md.asarray([0, 0])].min(v), ([5.0], [2.0, 2.0]), [2.0], ([0.0], [0.5, 0.5]), ([0.0], [0.0, 0.0]))
row(
    "segment max ties",
    lambda v: md.full((2,), -inf, dtype=v.dtype).at[md.asarray([0, 0, 1])].max(v),
    ([2.0, 2.0, 1.0],),
    [2.0, 1.0],
    ([0.5, 0.5, 10.0],),
    ([0.0] * 3,),
    w=[1.0, 10.0],
)
row(
    "max_pool ties", lambda x: md.max_pool(x, (2, 2)), ([[[[1.0, 3.0], [3.0, 3.0]]]],), [[[[3.0]]]], ([[[[0.0, 1.0], [0.0, 0.0]]]],),
    ([[[[0.0, 0.0], [0.0, 0.0]]]],),
)  # fmt: skip

# ---- matrices --------------------------------------------------------------------------------------------------------------------------
row("det singular: the cofactors", md.linalg.det, ([[1.0, 2.0], [2.0, 4.0]],), 0.0, ([[4.0, -2.0], [-2.0, 1.0]],))
row("det, a zero row", md.linalg.det, ([[0.0, 0.0], [2.0, 4.0]],), 0.0, ([[4.0, -2.0], [0.0, 0.0]],))
row(
    "det, rank 2 of 3", md.linalg.det, ([[0.0, 0.0, 1.0], [0.0, 0.0, 2.0], [0.0, 4.0, 0.0]],), 0.0,
    ([[-8.0, 0.0, 0.0], [4.0, 0.0, 0.0], [0.0, 0.0, 0.0]],),
)  # fmt: skip
row("det, rank 1 of 3", md.linalg.det, ([[1.0, 2.0, 4.0], [2.0, 4.0, 8.0], [0.0, 0.0, 0.0]],), 0.0, ([[0.0] * 3] * 3,))
row("det", md.linalg.det, ([[1.0, 2.0], [4.0, 4.0]],), -4.0, ([[4.0, -4.0], [-2.0, 1.0]],), ([[1.0, -1.0], [-1.0, 1.0]],), law="1")
row("slogdet singular", lambda x: md.linalg.slogdet(x).logabsdet, ([[1.0, 2.0], [2.0, 4.0]],), -inf, ([[nan, nan], [nan, nan]],))
row("slogdet", lambda x: md.linalg.slogdet(x).logabsdet, ([[0.0, -2.0], [0.5, 1.0]],), 0.0, ([[1.0, -0.5], [2.0, 0.0]],), law="1")
row("slogdet, sign", lambda x: md.linalg.slogdet(x).sign, ([[0.0, 2.0], [0.5, 1.0]],), -1.0, ([[0.0] * 2] * 2,), ([[0.0] * 2] * 2,), law="1")
row(
    "cholesky reads the lower triangle", md.linalg.cholesky, ([[4.0, 9.0], [2.0, 2.0]],), [[2.0, 0.0], [1.0, 1.0]], ([[11.5, 0.0], [-45.0, 50.0]],),
    ([[4.5, 0.0], [-6.875, -6.25]],), w=[[1.0, 0.0], [10.0, 100.0]],
)  # fmt: skip
row(
    "cholesky, complex: the imaginary part of the diagonal and the upper triangle are not read", md.linalg.cholesky,
    ([[4 + 7j, 9.0], [2j, 2.0]],), [[2.0, 0.0], [1j, 1.0]], ([[0.375, 0.0], [-0.5j, 0.5]],), w=[[1.0, 0.0], [0.0, 1.0]], dtype="complex128", law="1",
)  # fmt: skip
row(
    "slogdet, phase", lambda x: md.linalg.slogdet(x).sign, ([[2j, 0.0], [0.0, 1.0]],), 1j, ([[0.5, 0.0], [0.0, -1j]],), w=1.0, dtype="complex128",
    law="6",
)  # fmt: skip
UNIT = [[1.0, 0.0], [0.0, 1.0]]
EIGHT = [[1.0, 2.0], [4.0, 8.0]]
row("eigh, equal eigenvalues: vectors", lambda x: md.linalg.eigh(x).eigenvectors, (UNIT,), UNIT, ([[nan, 0.0], [nan, nan]],), w=EIGHT)
row("eigh, equal eigenvalues: their sum", lambda x: md.sum(md.linalg.eigh(x).eigenvalues), (UNIT,), 2.0, (UNIT,))
row("eigvalsh, equal eigenvalues: their sum", lambda x: md.sum(md.linalg.eigvalsh(x)), (UNIT,), 2.0, (UNIT,))
row("eigh reads the lower triangle", md.linalg.eigvalsh, ([[1.0, 9.0], [0.0, 3.0]],), [1.0, 3.0], (UNIT,), law="1")
row("svd, equal singular values: vectors", lambda x: md.linalg.svd(x).U, (UNIT,), UNIT, ([[nan, nan], [nan, nan]],), w=EIGHT)
row("svd, equal singular values: their sum", lambda x: md.sum(md.linalg.svd(x).S), (UNIT,), 2.0, (UNIT,))
row("svdvals at 0", md.linalg.svdvals, ([[0.0]],), [0.0], ([[0.0]],), law="2")
FLAT = [[2.0, 0.0], [0.0, 0.0]]
row("nuclear norm, rank 1 of 2", lambda x: md.linalg.matrix_norm(x, ord="nuc"), (FLAT,), 2.0, ([[1.0, 0.0], [0.0, 0.0]],), law="2")
row("spectral norm, a tie", lambda x: md.linalg.matrix_norm(x, ord=2), (UNIT,), 1.0, ([[0.5, 0.0], [0.0, 0.5]],), law="2")
row("norm -1", lambda x: md.vector_norm(x, ord=-1), ([1.0, 4.0],), 0.8, ([0.64, 0.04],), ulp=4, law="1")
row("norm -1, a 0", lambda x: md.vector_norm(x, ord=-1), ([0.0, 4.0],), 0.0, ([0.0, 0.0],), law="2")
row("matrix norm at 0", md.linalg.matrix_norm, ([[0.0, 0.0]],), 0.0, ([[0.0, 0.0]],), law="2")
row("pinv of the unit matrix", md.linalg.pinv, (UNIT,), UNIT, ([[-1.0, -2.0], [-3.0, -4.0]],), w=[[1.0, 2.0], [3.0, 4.0]], law="1")
row("pinv, rank 1 of 2", md.linalg.pinv, (FLAT,), [[0.5, 0.0], [0.0, 0.0]], ([[-0.25, 0.25], [0.25, 0.0]],), law="1")
row("inv", md.linalg.inv, ([[2.0, 0.0], [1.0, 0.5]],), [[0.5, 0.0], [-1.0, 2.0]], ([[0.25, 0.5], [-1.0, -2.0]],), law="1")

# ---- complex numbers (law 6) -----------------------------------------------------------------------------------------------------------
_C: dict[str, Any] = {"dtype": "complex128"}
row("d|z|^2 at 1+2j", lambda z: md.real(z * md.conj(z)), (1 + 2j,), 5.0, (2 + 4j,), (2.0,), **_C)
row("d abs(z)^2 at 3+4j", lambda z: md.square(md.abs(z)), (3 + 4j,), 25.0, (6 + 8j,), (2.0,), ulp=2, **_C)
row("abs(0j)", md.abs, (0j,), 0.0, (0j,), (0j,), **_C)
row("angle(0j)", md.angle, (0j,), 0.0, (0j,), **_C)
row("angle(2j)", md.angle, (2j,), math.pi / 2, (-0.5 + 0j,), ulp=1, law="6", **_C)
row("real(z)", md.real, (1 + 2j,), 1.0, (1 + 0j,), (0j,), law="6", **_C)
row("imag(z)", md.imag, (1 + 2j,), 2.0, (1j,), (0j,), law="6", **_C)
row("conj(z), w = 1+2j", md.conj, (3 + 4j,), 3 - 4j, (1 - 2j,), (0j,), w=1 + 2j, law="6", **_C)
row("real(z^2): conj of the derivative", lambda z: md.real(z * z), (1 + 2j,), -3.0, (2 - 4j,), (2.0,), law="6", **_C)

# ---- losses ----------------------------------------------------------------------------------------------------------------------------
row("bce(p=1, t=0)", lambda p: -(md.xlogy(0.0, p) + md.xlogy(1.0, 1.0 - p)), (1.0,), inf, (inf,))
row("nn.BCELoss(p=1, t=0)", lambda p: md.nn.BCELoss()(p, md.zeros_like(p)), (1.0,), 100.0, (1e12,), ulp=1)

