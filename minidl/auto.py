"""backend="auto": who runs a graph is measured, once for each graph, kind of device and set of versions, and remembered.

minidl.contest says who the candidates are and how they are timed. A choice is remembered with what is open about it: who was not tried because the
budget was spent, and who was so close that the next measurement might name another. What is open is looked at again when the program is met in a
later process, and so is everything that matters where the winner no longer takes as long as it did; the processes name the winner together, and after
CHECKS measurements a choice stands.

Promises: the winner is kept under MINIDL_CACHE, for this version of minidl's text; a file that cannot be read means measuring again.

Choosing an implementation by timing it on the real input is what FFTW (M. Frigo, S. G. Johnson, 1998) and ATLAS (R. C. Whaley, J. Dongarra, 1998) do.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib.metadata
import os
import platform
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import minidl as md
from minidl.contest import Auto, Contest, Report, Row, short
from minidl.extend import Engine, disk

if TYPE_CHECKING:
    from minidl.program import Program

available = md.backends
CHECKS = 3  # measurements in different processes after which a choice stands
_known: dict[str, Report] = {}


# ---- what is remembered ---------------------------------------------------------------------------------------------------------------------
def signature(graph: md.Graph) -> str:
    """The text of a graph with those of the graphs inside it."""
    inner = [signature(g) for e in graph.equations for g in md.extend.subgraphs(e.params)]
    return "\n".join([str(md.Graph(graph.inputs, graph.equations, graph.outputs)), *inner])


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


@functools.cache
def _text() -> str:
    """What tells this version of minidl from another, a working tree after an edit too."""
    folders = {Path(f).resolve().parent for f in (__file__, disk.__file__)}  # which a working tree links
    files = sorted((str(p), p.stat().st_size, p.stat().st_mtime_ns) for folder in folders for p in folder.rglob("*.py"))
    return hashlib.sha256(repr(files).encode()).hexdigest()


_TOLD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS", "OPENBLAS_CORETYPE", "XLA_FLAGS", "CUDA_VISIBLE_DEVICES")


def key_of(program: Program) -> str:
    """What decides who is fastest: the program, the versions of all that could run it, and the machine as this process may use it."""
    usable = [f"{n} {_version(n)}" for n, ok in available().items() if ok is True]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    machine = [platform.machine(), platform.processor(), platform.system(), str(cores), *(f"{n}={os.environ.get(n)}" for n in _TOLD)]
    roles = [f"{i.kind} {k in program.donated}" for k, i in enumerate(program.inputs)]
    parts = [signature(program.graph), *roles, str(len(program.dtypes)), repr(program.xp), _text(), sys.version, *usable, *machine]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


def _remembered(key: str) -> Report | None:
    if key in _known:
        return dataclasses.replace(_known[key], origin="measured before in this process", checks=CHECKS)
    try:
        data = disk.read(f"auto/{key}.json")
        report = Report([Row(**row) for row in data["rows"]], data["winner"], data["why"], data["budget"], data["checks"], "remembered")
        sound = isinstance(report.rows[report.winner].name, str) and isinstance(report.checks, int) and report.budget >= 0
        return report if sound and str(report) else None
    except (TypeError, ValueError, KeyError, IndexError):
        return None


def _keep(key: str, report: Report) -> None:
    _known[key] = report
    kept = {f.name: getattr(report, f.name) for f in dataclasses.fields(report) if f.name not in ("rows", "origin")}
    disk.write(f"auto/{key}.json", {"rows": [dataclasses.asdict(r) for r in report.rows], **kept})


# ---- choosing -------------------------------------------------------------------------------------------------------------------------------
def choose(program: Program, natives: Sequence[Any]) -> tuple[Engine, Callable[..., tuple] | None, Report | None]:
    """Who runs a program: the engine, the graph as it compiled it if that was done here, and the report. natives: the inputs' values now.

    Raises what the inputs' own backend raises if no candidate can run the graph.
    """
    home = program.xp
    if not Auto.measure:
        return Engine(home), None, None
    key = key_of(program)
    report = _remembered(key)
    if report is not None:
        row = report.rows[report.winner]
        try:
            if report.checks < CHECKS or (Auto.budget > report.budget and any(r.open for r in report.rows)):
                contest = Contest(program, natives)
                chosen = contest.again(report)
                _keep(key, chosen[2])
                return chosen
            engine = Engine(home, row.backend, row.mode)
            return engine, engine.build(program), report
        except Exception as error:  # whatever a library that changed since may raise: the answer is to measure again
            print(f"minidl: auto: {row.name}, which was fastest before, fails now ({short(error)}); measuring again", file=sys.stderr)
    chosen = Contest(program, natives).decide()
    _keep(key, chosen[2])
    return chosen
