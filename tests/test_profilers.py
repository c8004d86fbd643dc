"""A trace ends, also where the traced function can read what a profiler of the user's writes down."""

from __future__ import annotations

import sys

import minidl as md

log: list[str] = []


def test_a_trace_under_a_profiler_in_python_ends():
    f = md.jit(lambda x: x * 2 + (1 if log else 0))
    md.jit(lambda x: x + 1)(md.tensor(1.0))  # what is loaded at the first call

    def profile(frame, event, arg):
        log.append(event)
        if len(log) > 300_000:
            raise RuntimeError("the trace does not end")

    x, before = md.tensor(1.0), sys.getprofile()
    sys.setprofile(profile)
    try:
        first, second = f(x), f(x)
        heard = sys.getprofile() is profile
    finally:
        sys.setprofile(before)
    assert heard
    assert first.item() == second.item() == 3.0
    log.clear()
    assert f(x).item() == 2.0
