"""md.profile: where the time of a call goes and what its memory holds, from one run with a clock at every operation (minidl.recording).

A jitted function is run equation by equation; the compiled program fuses equations, and its time stands beside their sum.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Any

from minidl.draw import PALETTE, label, page
from minidl.extend import recorded

_BARS = "▁▂▃▄▅▆▇█"


@dataclasses.dataclass
class Event:
    """One operation: its name, seconds, and the bytes alive when it ended."""

    name: str
    seconds: float
    alive: int


@dataclasses.dataclass
class Profile:
    """What md.profile found; print it, or save the picture of memory over time with `save("memory.svg")`.

    seconds: the whole call; for a jitted function the compiled program's. peak: bytes at the worst moment, above what was there before the call.
    largest: (bytes, operation, type) of the largest arrays alive at that moment.
    """

    title: str
    events: list[Event]
    seconds: float
    largest: list[tuple[int, str, str]]
    jitted: bool

    @property
    def peak(self) -> int:
        """The most bytes that were alive at once."""
        return max((e.alive for e in self.events), default=0)

    def by_operation(self) -> list[tuple[str, int, float]]:
        """(name, calls, seconds), the dearest first."""
        found: dict[str, tuple[int, float]] = {}
        for e in self.events:
            calls, seconds = found.get(e.name, (0, 0.0))
            found[e.name] = calls + 1, seconds + e.seconds
        return sorted(((n, c, s) for n, (c, s) in found.items()), key=lambda row: -row[2])

    def __str__(self) -> str:
        rows = self.by_operation()
        inside = sum(s for _, _, s in rows)
        if self.jitted:
            head = f"{self.title}: {_time(self.seconds)} compiled; {_time(inside)} for its {len(self.events)} equations one by one"
        else:
            head = f"{self.title}: {_time(self.seconds)}, of which {_time(max(self.seconds - inside, 0.0))} between the operations (Python)"
        lines = [head, "", f"{'operation':30}{'calls':>7}{'time':>12}{'share':>8}"]
        lines += [f"{n:30}{c:7}{_time(s):>12}{s / max(inside, 1e-12):8.1%}" for n, c, s in rows[:15]]
        if len(rows) > 15:
            lines.append(f"{f'{len(rows) - 15} others':30}{sum(c for _, c, _ in rows[15:]):7}{_time(sum(s for *_, s in rows[15:])):>12}")
        lines += ["", f"peak memory {_bytes(self.peak)}, over time: {self._sparkline()}", "largest arrays at the peak:"]
        return "\n".join([*lines, *(f"  {_bytes(n):>10}  {kind:20} of {name}" for n, name, kind in self.largest)])

    def _sparkline(self, width: int = 60) -> str:
        n, peak = len(self.events), max(self.peak, 1)
        slots = [self.events[i * n // width : max((i + 1) * n // width, i * n // width + 1)] for i in range(min(width, n))] if n > width else None
        heights = [max(e.alive for e in s) for s in slots if s] if slots else [e.alive for e in self.events]
        return "".join(_BARS[min(h * len(_BARS) // peak, len(_BARS) - 1)] for h in heights)

    def to_svg(self) -> str:
        """Memory over the operations, as an SVG for light and dark pages; the pointer over a step shows the operation."""
        width, height, left, top = 800, 260, 70, 34
        n, peak = max(len(self.events), 1), max(self.peak, 1)
        step = width / n
        bars = []
        for i, e in enumerate(self.events):
            h = height * e.alive / peak
            note = escape(f"{i}: {e.name}, {_time(e.seconds)}, {_bytes(e.alive)} alive")
            place = f'x="{left + i * step:.2f}" y="{top + height - h:.2f}" width="{step + 0.3:.2f}" height="{h:.2f}"'
            bars.append(f'<rect fill="{PALETTE[0]}" {place}><title>{note}</title></rect>')
        grid = []
        for k in range(3):
            y = top + height * (1 - k / 2)
            grid += [label(left - 6, y + 4, _bytes(peak * k // 2), "end", "small"), f'<path class="rule" d="M{left} {y:.1f}h{width}"/>']
        head = label(left, 18, f"{self.title}: memory alive after each of {len(self.events)} operations")
        return page(left + width + 20, top + height + 34, [head, *grid, *bars, label(left, top + height + 22, "operations in order →", kind="small")])

    def save(self, path: str | Path) -> None:
        """Write the SVG picture to a file."""
        Path(path).write_text(self.to_svg(), encoding="utf-8")


def _time(seconds: float) -> str:
    return f"{seconds * 1e6:.1f} us" if seconds < 1e-3 else f"{seconds * 1e3:.2f} ms" if seconds < 1 else f"{seconds:.2f} s"


def _bytes(n: float) -> str:
    for unit in ("B", "KB", "MB"):
        if abs(n) < 1000:
            return f"{n:.0f} B" if unit == "B" else f"{n:.2f} {unit}"
        n /= 1000
    return f"{n:.2f} GB"


def profile(f: Callable[..., Any], *args: Any, **kwargs: Any) -> Profile:
    """Run `f(*args, **kwargs)` once and report the time of each operation, the peak memory and the largest arrays at the peak.

    A function made by md.jit is profiled as its graph, equation by equation, and as the compiled program; its state does not advance. Any other
    runs as it is: a training step trains once. Returns a Profile, which prints as a table; `.save("memory.svg")` draws memory over time. Raises
    TypeError for what is no function.

    >>> report = md.profile(lambda x: (x * x).sum(), md.ones((1000,)))
    >>> [name for name, calls, seconds in sorted(report.by_operation())], report.peak >= 4000
    (['mul', 'sum'], True)
    """
    if not callable(f):
        raise TypeError(f"profile: expected a function, got {type(f).__name__}; write md.profile(step, x, y), not md.profile(step(x, y))")
    title = getattr(f, "__name__", type(f).__name__)
    events, seconds, largest, jitted = recorded(f, *args, **kwargs)
    return Profile(f"jit({title})" if jitted else title, [Event(*e) for e in events], seconds, largest, jitted)
