"""jax.scipy.ndimage."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import minidl as md
from minidl.idioms.jax.arrays import inexact

#: Mode -> the place that is read for one that may lie outside, of n.
_FOLDED: dict[str, Callable[[md.Tensor, int], md.Tensor]] = {
    "constant": lambda i, n: i,
    "nearest": lambda i, n: md.clip(i, 0, n - 1),
    "wrap": lambda i, n: md.remainder(i, n),
    "mirror": lambda i, n: (n - 1) - md.abs(md.remainder(i, max(2 * n - 2, 1)) - (n - 1)),
    "reflect": lambda i, n: md.minimum(md.remainder(i, 2 * n), 2 * n - 1 - md.remainder(i, 2 * n)),
}


def map_coordinates(input: Any, coordinates: Sequence[Any], order: int, mode: str = "constant", cval: float = 0.0) -> md.Tensor:
    """The image at places between its elements: the nearest one (order 0) or multilinear (order 1). mode: what lies outside, cval ("constant"), the
    edge ("nearest"), or the image again ("wrap", "mirror", "reflect"). Raises ValueError for another order or mode.

    >>> map_coordinates(md.tensor([1.0, 3.0]), [md.tensor([0.5])], 1).tolist()
    [2.0]
    """
    if order not in (0, 1) or mode not in _FOLDED:
        raise ValueError(f"map_coordinates: order is 0 or 1 and mode one of {', '.join(_FOLDED)}, not {order} and {mode!r}")
    x, places = inexact(input), [inexact(c) for c in coordinates]
    ends: list[list[tuple[md.Tensor, Any]]] = []
    for place in places:
        low = md.stop_gradient(md.floor(place + 0.5 if order == 0 else place))
        ends.append([(low, 1.0)] if order == 0 else [(low, 1.0 - (place - low)), (low + 1.0, place - low)])
    total: Any = 0.0
    for corner in itertools.product(*ends):
        at = [_FOLDED[mode](i.to(md.int64), n) for (i, _), n in zip(corner, x.shape, strict=True)]
        inside: Any = True
        for i, n in zip(at, x.shape, strict=True):
            inside = inside & (i >= 0) & (i < n)
        found = x[tuple(md.clip(i, 0, n - 1) for i, n in zip(at, x.shape, strict=True))]
        value = md.where(inside, found, cval)
        for _, weight in corner:
            value = value * weight
        total = total + value
    return total
