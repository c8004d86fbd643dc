"""x.at[index]: functional updates, as JAX has them."""

from __future__ import annotations

import functools
from typing import Any

import minidl as md


def _update(name: str, how: str, text: str) -> Any:
    def update(
        self: At, values: Any, *, indices_are_sorted: bool = False, unique_indices: bool = False, mode: str | None = None,
        wrap_negative_indices: bool = True,
    ) -> md.Tensor:  # fmt: skip
        return md.set_at(self.x, self.index, values, how, bounds=mode, wrap=wrap_negative_indices)

    update.__name__, update.__qualname__, update.__doc__ = name, f"At.{name}", text
    return update


class At:
    """`x.at[index]`: functional updates of the elements there; each method returns a new tensor.

    mode says what becomes of a position out of range, also eager: "drop" (or "fill") leaves that update out, "clip" takes the nearest element. None
    raises IndexError where positions can be looked at (eager on a CPU) and drops the update elsewhere, unless md.out_of_bounds says otherwise;
    "promise_in_bounds" is JAX's word for it. Raises ValueError for another mode. wrap_negative_indices=False: a negative position is out of range,
    too; indices_are_sorted and unique_indices change nothing. minidl.idioms has the rest of JAX's family: subtract, divide, power, apply.

    >>> md.zeros(2).at[[1, 7]].set(5.0, mode="drop").tolist()
    [0.0, 5.0]
    """

    __slots__ = ("index", "x")

    def __init__(self, x: md.Tensor, index: Any = None):
        self.x, self.index = x, index

    def __getitem__(self, index: Any) -> At:
        return At(self.x, index)

    def get(
        self, *, indices_are_sorted: bool = False, unique_indices: bool = False, mode: str | None = None, fill_value: Any = None,
        wrap_negative_indices: bool = True,
    ) -> md.Tensor:  # fmt: skip
        """The elements themselves. Out of range, "fill" (or "drop") reads fill_value, by default nan or an integer's extreme as md.take has it."""
        return md.getitem(self.x, self.index, bounds=mode, fill_value=fill_value, wrap=wrap_negative_indices)

    set = _update("set", "set", "Replaced; of several values for one position the last.")
    add = _update("add", "add", "Plus the value; several values for one position add up.")
    multiply = mul = _update("multiply", "mul", "Times the value.")
    min = _update("min", "min", "The smaller of the two.")
    max = _update("max", "max", "The larger of the two.")

    def __getattr__(self, name: str) -> Any:
        found = None if name.startswith("_") else md.idioms.NAMES["At"].get(name)
        if found is None:
            raise AttributeError(f"x.at[index] has no method {name!r}")
        return functools.partial(found, self)
