"""Rule text as source code: a rule is run once on names instead of arrays, and what it would do is written down.

The reverse pass is straight-line code generated from the rules; a rule that is an expression is copied into it instead of being called. A rule
that looks at what it is given (a shape, a dtype) refuses, and is called.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any


class Refused(Exception):
    """The rule is no plain expression."""


class Name:
    """A variable of the generated code. Operators write a line and return the variable that it assigns."""

    __slots__ = ("lines", "text")

    def __init__(self, text: str, lines: list[str]):
        self.text, self.lines = text, lines

    def assign(self, expression: str) -> Name:
        """A new variable for an expression."""
        name = f"t{len(self.lines)}"
        self.lines.append(f"{name} = {expression}")
        return Name(name, self.lines)

    def _refuse(self, *args: Any) -> Any:
        raise Refused

    __bool__ = __iter__ = __len__ = __getitem__ = __index__ = __eq__ = __ne__ = _refuse  # type: ignore[assignment]
    __hash__ = None  # type: ignore[assignment]

    def __getattr__(self, name: str) -> Any:
        raise Refused

    def __neg__(self) -> Name:
        self.lines.append("f = xp.neg")  # an operator would be the library's own, and torch's loses the sign of complex zeros
        return self.assign(f"f({self.text})")


def _text(value: Any) -> str:
    if isinstance(value, Name):
        return value.text
    if type(value) in (int, float, bool) and value == value and abs(value) != float("inf"):
        return repr(value) if value >= 0 else f"({value!r})"
    raise Refused


def _operand(value: Any, lines: list[str]) -> str:
    """An operand beside a Name. A number becomes the backend's own 0-d array (`xp.numbers`): on torch a Python number costs three times as much."""
    if isinstance(value, Name) or not value:
        return _text(value)
    name = f"c{len(lines)}"
    lines += [f"try: {name} = xp.numbers[{_text(value)}, g.dtype]", f"except KeyError: {name} = xp.number({_text(value)}, g)"]
    return name


def _operators() -> None:
    for name, symbol in {"add": "+", "sub": "-", "mul": "*", "truediv": "/", "gt": ">", "lt": "<", "ge": ">=", "le": "<="}.items():
        setattr(Name, f"__{name}__", lambda self, other, s=symbol: self.assign(f"{self.text} {s} {_operand(other, self.lines)}"))
        if symbol in "+-*/":
            setattr(Name, f"__r{name}__", lambda self, other, s=symbol: self.assign(f"{_operand(other, self.lines)} {s} {self.text}"))


_operators()


class Param(Name):
    """A variable that holds a param: passed on as it is; Python computes with it, so a rule that does so is called."""

    __slots__ = ()


for _name in ("add", "sub", "mul", "truediv"):
    setattr(Param, f"__{_name}__", Name._refuse)
    setattr(Param, f"__r{_name}__", Name._refuse)
for _name in ("gt", "lt", "ge", "le", "neg"):
    setattr(Param, f"__{_name}__", Name._refuse)


class Namespace:
    """The xp that writes calls down."""

    def __init__(self, lines: list[str]):
        self._lines = lines

    def __getattr__(self, function: str) -> Callable[..., Name]:
        if function == "dtype_of":
            raise Refused

        def call(*args: Any, **params: Any) -> Name:
            parts = [_text(a) for a in args] + [f"{k}={_text(v)}" for k, v in params.items()]
            self._lines.append(f"f = xp.{function}")  # apart: Python looks for a method in the class first, and finds none
            return Name("", self._lines).assign(f"f({', '.join(parts)})")

        return call


def written(rule: Callable[..., Any], names: Sequence[Any], lines: list[str], params: Sequence[str] = ()) -> str | None:
    """Append the rule's steps to lines and return the name of its result, or None (lines unchanged) if it is no plain expression. params: which of
    the names hold params."""
    mark = len(lines)
    try:
        out = rule(Namespace(lines), *((Param if n in params else Name)(n, lines) if isinstance(n, str) else n for n in names))
        return _text(out)
    except (Refused, TypeError):
        del lines[mark:]
        return None
