"""What the code of a function mentions: the globals that it reads, the names of attributes, and where it computes such names.

Promises: it is found in the bytecode of Python 3.11 and later, of a code object and those nested in it, without running anything.
"""

from __future__ import annotations

import functools
import types
from typing import Any


def _first(step: Any) -> str:
    """The name that an instruction reads; of a local one behind a point."""
    name = step.argval[0] if isinstance(step.argval, tuple) else str(step.argval)
    return name if step.opname in ("LOAD_GLOBAL", "LOAD_NAME") else f".{name}"


def _alone(rest: list[Any]) -> bool:
    """Whether an argument is a constant by itself, which nothing before the call takes for something else."""
    from dis import stack_effect

    depth = 0
    for i in rest[1:] if rest[0].opname == "LOAD_CONST" else ():
        depth += stack_effect(i.opcode, i.arg)
        if depth <= 0:
            return depth < 0
    return False


@functools.lru_cache(maxsize=4096)
def mentions(code: types.CodeType) -> tuple[frozenset[Any], ...]:
    """Of a code object and those nested in it: the globals that it reads, all names that it mentions (attributes, getattr's strings), those whose
    absence it may survive, the paths that begin with a global (`settings.rates`), and what it reads attributes of by computed names."""
    import dis

    paths: set[tuple[str, ...]] = set()
    path: tuple[str, ...] = ()
    steps = [i for i in dis.get_instructions(code) if i.opname not in ("EXTENDED_ARG", "CACHE")]
    steps += steps[-1:] * 2  # so that each has others behind it
    computed = set()
    for k, i in enumerate(steps):
        if i.opname == "LOAD_GLOBAL" and i.argval in ("getattr", "hasattr", "vars") and steps[k + 1].opname.startswith("LOAD"):
            end = k + 1
            while steps[end + 1].opname == "LOAD_ATTR" and isinstance(steps[end].argval, str):
                end += 1
            if i.argval == "vars" or not _alone(steps[end + 1 :]):
                computed.add(_first(steps[k + 1]))
        elif i.argval == "__dict__":
            while k > 1 and steps[k - 1].opname == "LOAD_ATTR":
                k -= 1
            computed.add(_first(steps[k - 1]))
    for i in steps:
        if i.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            path = (i.argval,)
        elif i.opname in ("LOAD_ATTR", "LOAD_METHOD") and path:
            path = (*path, i.argval)
        else:
            path = ()
        paths.add(path)
    strings = {c for c in code.co_consts if isinstance(c, str) and c.isidentifier()}
    handles = getattr(code, "co_exceptiontable", True)
    found: list[Any] = [{p[0] for p in paths if p}, strings.union(code.co_names), strings.union(code.co_names if handles else ())]
    found += [{p for p in paths if len(p) > 1}, computed]
    for c in code.co_consts:
        if isinstance(c, types.CodeType):
            found = [a | b for a, b in zip(found, mentions(c), strict=True)]
    return tuple(map(frozenset, found))
