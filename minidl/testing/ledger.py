"""md.parity: how far each backend is from the others, operation by operation, as minidl's own suite measured it.

ledger.csv, beside this file, is written by `pytest tests/test_primitives.py --ledger`: for each primitive and backend what every check found, "pass"
with the largest error, "constant" where there is no derivative, or "gap" with its reason.
"""

from __future__ import annotations

import csv
import dataclasses
import difflib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from minidl import trace
from minidl.columns import columns

#: What is compared, and how it is said: values, forward and reverse derivatives, second order, batches, half precision, forward against reverse mode,
#: finite differences, the raw against the recorded backward pass, emitted text against the interpreted graph, eager against compiled.
CHECKS = ("forward", "jvp", "vjp", "second", "vmap", "half", "adjoint", "differences", "raw", "interpreted", "eager", "rule")
_SHOWN = CHECKS[:6]


@dataclasses.dataclass
class Parity:
    """Rows of the ledger: (primitive, backend) → check → "pass N", "constant" or "gap: reason". Print it, or read `cells`, `worst` and `gaps`.

    >>> found = md.parity("add")
    >>> found.gaps, found.cells["add", "torch"]["rule"]
    ([], 'pass 0')
    """

    title: str
    cells: dict[tuple[str, str], dict[str, str]]
    notes: dict[tuple[str, str], str]

    @property
    def worst(self) -> float:
        """The largest error of all, in conditioned ulps."""
        return max((float(c.split()[1]) for row in self.cells.values() for c in row.values() if c.startswith("pass ")), default=0.0)

    @property
    def gaps(self) -> list[tuple[str, str, str, str]]:
        """(primitive, backend, check, reason) of what a backend cannot do."""
        return [(p, b, k, c.removeprefix("gap: ")) for (p, b), row in self.cells.items() for k, c in row.items() if c.startswith("gap")]

    def __str__(self) -> str:
        names = sorted({p for p, _ in self.cells})
        backends = list(dict.fromkeys(b for _, b in self.cells))
        head = f"{self.title}: {len(names)} primitive{'s' * (len(names) != 1)} on {len(backends)} backends; the largest error is {self.worst:g}"
        lines = [head + " conditioned ulps", ""]
        if len(names) > _MANY:
            table = [["backend", "checks", "passed", "gaps", "largest"]]
            for b in backends:
                part = Parity("", {k: row for k, row in self.cells.items() if k[1] == b}, {})
                n = sum(len(row) for row in part.cells.values())
                table.append([b, str(n), str(n - len(part.gaps)), str(len(part.gaps)), f"{part.worst:g}"])
        else:
            table = [["primitive", "backend", *_SHOWN, "others"]]
            for (p, b), row in self.cells.items():
                rest = [row[k] for k in CHECKS if k not in _SHOWN]
                table.append([p, b, *(_short(row[k]) for k in _SHOWN), "gap" if any(c.startswith("gap") for c in rest) else "pass"])
        lines += columns(table)
        lines += [f"gap: {p} on {b}, {k}: {why}" for p, b, k, why in self.gaps]
        lines += [f"{p} on {b} calls NumPy: {why}" for (p, b), why in self.notes.items() if len(names) <= _MANY]
        return "\n".join(lines)


_MANY = 24  # primitives from which on a table of them is too long to read


def _short(cell: str) -> str:
    return cell.removeprefix("pass ") if not cell.startswith("gap") else "gap"


def parity(what: str | Callable[..., Any] | None = None, *args: Any, **kwargs: Any) -> Parity:
    """What minidl's suite found on each backend: for a primitive by its name, for those that `what(*args, **kwargs)` uses, or for the whole table.

    Numbers are the largest errors, in conditioned ulps (see md.testing.ulps), against NumPy and float64; "constant" has no derivative. Ask for
    `md.grad(f)` to see what a gradient uses. Raises KeyError for a name that is no primitive, with the nearest ones.

    >>> print(md.parity("tanh"))  # doctest: +ELLIPSIS
    tanh: 1 primitive on 4 backends; the largest error is ... conditioned ulps
    <BLANKLINE>
    primitive  backend  forward  jvp  ...
    tanh       numpy    ...
    >>> sorted({name for name, backend in md.parity(md.grad(lambda x: (md.sin(x) * x).sum()), md.ones(3)).cells})
    ['add', 'cos', 'mul', 'sin']
    """
    rows = _rows()
    known = list(dict.fromkeys(p for p, _ in rows))
    if what is None:
        title, names = "all", known
    elif isinstance(what, str):
        title, names = what, [what]
        if what not in known:
            near = difflib.get_close_matches(what, known)
            hint = f"; did you mean {', '.join(near)}?" if near else ""
            raise KeyError(f"parity: {what!r} is no primitive{hint}; for a function of several give it with arguments: md.parity(md.mean, x)")
    elif callable(what):
        title = getattr(what, "__name__", type(what).__name__)
        used = {e.primitive.name for e in trace(what)(*args, **kwargs).walk()}
        names = [n for n in known if n in used]
    else:
        raise TypeError(f"parity: expected a primitive's name or a function, got {type(what).__name__}")
    chosen = {k: row for k, row in rows.items() if k[0] in set(names)}
    notes = {k: row["calls NumPy because"] for k, row in chosen.items() if row["calls NumPy because"]}
    return Parity(title, {k: {c: row[c] for c in CHECKS} for k, row in chosen.items()}, notes)


def _rows() -> dict[tuple[str, str], dict[str, str]]:
    with (Path(__file__).parent / "ledger.csv").open(encoding="utf-8", newline="") as file:
        return {(r["primitive"], r["backend"]): r for r in csv.DictReader(file)}
