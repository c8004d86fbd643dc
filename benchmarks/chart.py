"""The charts of a results file, as SVG that needs no other program and reads on light and dark pages.

Promises: every number drawn is in the file; axes are logarithmic and say so; a workload that has no peer is left out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from html import escape
from pathlib import Path
from typing import Any

from minidl.draw import label, page, ticks

COLORS = {"numpy": "#0072b2", "numba": "#d55e00", "torch": "#cc79a7", "jax": "#009e73", "auto": "#e69f00"}
PEERS = {"torch eager": "#cc79a7", "torch.compile": "#cc79a7", "jax.jit": "#009e73", "NumPy by hand": "#0072b2"}


def number(v: float) -> str:
    """1, 0.25, 16k."""
    return f"{v / 1e6:g}M" if v >= 1e6 else f"{v / 1e3:g}k" if v >= 1e4 else f"{v:g}"


def ratios(results: Mapping[str, Any]) -> dict[str, tuple[str, dict[str, float], list[float]]]:
    """For each workload with a peer: the best peer, minidl's sides over it, and the other peers over it."""
    out = {}
    for name, found in results["workloads"].items():
        best = {side: t["best_s"] for side, t in found["times"].get(name, {}).items() if ", " not in side}
        peers = {s: v for s, v in best.items() if not s.startswith("minidl")}
        ours = {s: v for s, v in best.items() if s.startswith("minidl") and "eager" not in s}
        if peers and ours:
            first = min(peers, key=lambda s: peers[s])
            out[name] = (first, {s: v / peers[first] for s, v in ours.items()}, [v / peers[first] for s, v in peers.items() if s != first])
    return out


def overview(results: Mapping[str, Any]) -> str:
    """A row a workload: time of each compiled way of minidl over that of the best peer; peers are small strokes."""
    rows = ratios(results)
    left, width, line, top = 230, 620, 30, 64
    low = min([0.5, *(min(ours.values()) for _, ours, _ in rows.values())]) * 0.85
    high = min(20.0, max([2.0, *(v for _, ours, peers in rows.values() for v in (*ours.values(), *peers))])) * 1.1
    at: Callable[[float], float] = lambda v: left + width * math.log(min(max(v, low), high) / low) / math.log(high / low)
    bottom = top + line * len(rows)
    parts = [label(left, 20, "time of md.jit / time of the best peer (left of 1: minidl is faster; logarithmic)")]
    for i, (backend, color) in enumerate(COLORS.items()):
        parts += [f'<circle cx="{left + 6 + 80 * i}" cy="38" r="5" fill="{color}"/>', label(left + 15 + 80 * i, 42, backend, kind="small")]
    parts.append(label(left + 80 * len(COLORS), 42, "small: another mode; strokes: other peers", kind="small quiet"))
    for t in ticks(low, high):
        parts.append(f'<path class="{"one" if t == 1 else "rule"}" d="M{at(t):.1f} {top - 8}V{bottom}"/>')
        parts.append(label(at(t), bottom + 16, f"{t:.3g}", "middle", "small"))
    for i, (name, (peer, ours, peers)) in enumerate(rows.items()):
        y = top + line * (i + 0.5)
        parts += [label(left - 12, y + 1, name, "end"), label(left - 12, y + 13, f"best peer: {peer}", "end", "small quiet")]
        parts += [f'<path class="peer" d="M{at(v):.1f} {y - 4:.1f}v8"/>' for v in peers]
        for side, v in sorted(ours.items(), key=lambda kv: "auto" in kv[0]):
            words = side.split()
            small = len(words) > 3
            tip = f"<title>{escape(side)}: {v:.3f} of {escape(peer)}</title>"
            parts.append(f'<circle cx="{at(v):.1f}" cy="{y:.1f}" r="{3 if small else 5.5}" fill="{COLORS[words[1]]}">{tip}</circle>')
    return page(left + width + 30, bottom + 28, parts)


def curves(results: Mapping[str, Any]) -> str:
    """How cost grows: a panel for each quantity, seconds against it, both axes logarithmic; peers are dashed."""
    panels = results["workloads"]["scaling"]["times"]
    w, h, gap, top = 400, 250, 70, 76
    parts = [label(60, 20, "time of a step as the program grows (both axes logarithmic)")]
    shown = dict.fromkeys(side for sides in panels.values() for side in sides)
    for i, side in enumerate(shown):
        x, y = 60 + 165 * (i % 5), 38 + 16 * (i // 5)
        parts += [f'<path d="M{x} {y}h22" {stroke(side)}/>', label(x + 28, y + 4, side, kind="small")]
    top += 16 * ((len(shown) - 1) // 5)
    for i, (title, sides) in enumerate(panels.items()):
        x0, y0 = 60 + (w + gap) * (i % 2), top + (h + gap) * (i // 2)
        xs = sorted({float(n) for points in sides.values() for n in points})
        seconds = [t["best_s"] for points in sides.values() for t in points.values()]
        if not seconds:
            continue
        low, high = min(seconds) * 0.8, max(seconds) * 1.25
        px: Callable[[float], float] = lambda v, x0=x0, xs=xs: x0 + w * math.log(v / xs[0]) / (math.log(xs[-1] / xs[0]) or 1)
        py: Callable[[float], float] = lambda v, y0=y0, low=low, high=high: y0 + h - h * math.log(v / low) / math.log(high / low)
        parts.append(label(x0, y0 - 8, title.removeprefix("scaling, ")))
        decades = ticks(low, high, (1,))
        for t in decades if len(decades) > 1 else ticks(low, high):
            parts += [f'<path class="rule" d="M{x0} {py(t):.1f}h{w}"/>', label(x0 - 6, py(t) + 4, f"{t * 1e3:g} ms", "end", "small")]
        parts += [label(px(v), y0 + h + 16, number(v), "middle", "small") for v in xs]
        for side, points in sides.items():
            line = " ".join(f"{px(float(n)):.1f},{py(t['best_s']):.1f}" for n, t in points.items())
            parts.append(f'<polyline points="{line}" fill="none" {stroke(side)}><title>{escape(side)}</title></polyline>')
    rows = (len(panels) + 1) // 2
    return page(60 + 2 * (w + gap), top + rows * (h + gap), parts)


def stroke(side: str) -> str:
    """The line of a side: minidl full (thin in another mode of the backend), peers dashed."""
    words = side.split()
    if words[0] == "minidl":
        return f'stroke="{COLORS[words[1]]}" stroke-width="{1 if len(words) > 3 else 2.2}"'
    dash = "2 3" if side == "torch eager" else "6 4"
    return f'stroke="{PEERS.get(side, "#888")}" stroke-width="1.6" stroke-dasharray="{dash}"'


def write(results: Mapping[str, Any], stem: Path) -> list[Path]:
    """Draw what the results hold, beside the file; the paths written."""
    out = []
    if ratios(results):
        out.append(stem.with_name(stem.name + ".svg"))
        out[-1].write_text(overview(results))
    if "scaling" in results["workloads"]:
        out.append(stem.with_name(stem.name + "-scaling.svg"))
        out[-1].write_text(curves(results))
    return out
