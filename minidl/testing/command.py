"""`python -m minidl check`: the gradient-correctness suite on this machine's engines, at the versions that are installed."""

from __future__ import annotations

import importlib.metadata
import time
from collections.abc import Sequence

from minidl import backends
from minidl.columns import columns
from minidl.testing.checks import conformance
from minidl.testing.domains import ROWS
from minidl.testing.kinks import KINKS
from minidl.testing.trial import MODES, law

#: Ways of differentiating that a quick look leaves out.
_QUICK = ("tape", "traced")
#: Wrong results that are printed for each backend.
_SHOWN = 20


def check(backend: str = "all", names: Sequence[str] = (), quick: bool = False, progress: bool = True) -> int:
    """Try values and derivatives on installed backends, and print a table and what is wrong; returns 0 if nothing is, else 1.

    backend: a name, or "all". names: beginnings of the names of primitives and of cases of the gradient law; all without any. quick: one row of each
    primitive, and two ways of differentiating. An unknown backend or name prints what there is, and is 2.

    >>> check("numpy", ["tanh", "abs"], quick=True, progress=False)  # doctest: +ELLIPSIS
    backend  version  primitives  right  kinks  right  seconds
    numpy    ... 3           3      2      2      ...
    0
    """
    states = backends()
    chosen = [b for b, state in states.items() if state is True] if backend == "all" else [backend]
    for name in chosen:
        if states.get(name) is not True:
            print(f"check: the {name} backend cannot be used: {states.get(name, 'there are ' + ', '.join(states))}")
            return 2
    rows = [r for r in ROWS if not names or r.name.startswith(tuple(names))]
    kinks = [k for k in KINKS if not names or k.name.startswith(tuple(names))]
    if not rows and not kinks:
        print(f"check: no primitive and no case of the gradient law begins with {' or '.join(names)}; md.testing.ROWS and md.testing.KINKS have all")
        return 2
    if quick:
        rows = list({r.name: r for r in reversed(rows)}.values())[::-1]
    table = [["backend", "version", "primitives", "right", "kinks", "right", "seconds"]]
    report = []
    for name in chosen:
        begin = time.perf_counter()
        wrong = conformance(name, rows, progress)
        broken = law(name, _QUICK if quick else MODES, kinks, progress)
        tried = {r.name for r in rows}
        failed = {r.name for r in rows for dtype in r.dtypes if f"{r} {dtype}" in wrong}
        counts = [len(tried), len(tried - failed), len(kinks), len(kinks) - len(broken)]
        table.append([name, _version(name), *map(str, counts), f"{time.perf_counter() - begin:.0f}"])
        lines = [f"{name}: {what}: {line}" for part in (wrong, broken) for what, faults in part.items() for line in faults]
        report += lines[:_SHOWN] + [f"{name}: and {len(lines) - _SHOWN} more"] * (len(lines) > _SHOWN)
    print("\n".join(columns(table)))
    if report:
        print("\n" + "\n".join(report))
    return int(bool(report))


def _version(backend: str) -> str:
    """Of the library that a backend is named after; none where a third party's backend has another name."""
    try:
        return importlib.metadata.version(backend)
    except importlib.metadata.PackageNotFoundError:
        return ""
