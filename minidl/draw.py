"""Pictures: what every SVG and PNG of minidl is made of, and graphs as SVG or in the dot language for Graphviz.

Promises: an SVG needs no other program, and is read on light and dark pages.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import Any

from minidl import Graph
from minidl.extend import describe

#: Colours that are told apart without their hue as well (after M. Okabe and K. Ito, 2008).
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
STYLE = """<style>
text{fill:#333;font:13px sans-serif}.small{font-size:11px}.quiet{fill:#777}.rule{stroke:#ddd}.one{stroke:#777;stroke-width:1.5}.peer{stroke:#999}
@media(prefers-color-scheme:dark){text{fill:#ddd}.quiet{fill:#999}.rule{stroke:#444}.one{stroke:#bbb}.peer{stroke:#777}}
</style>"""


def page(width: float, height: float, parts: Sequence[str]) -> str:
    """A whole SVG file."""
    size = f'viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" height="{height:.0f}"'
    return "\n".join([f'<svg xmlns="http://www.w3.org/2000/svg" {size}>', STYLE, *parts, "</svg>"]) + "\n"


def label(x: float, y: float, text: str, anchor: str = "start", kind: str = "") -> str:
    """A line of text."""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" class="{kind}">{escape(text)}</text>'


def ticks(low: float, high: float, steps: Sequence[float] = (1, 2, 5)) -> list[float]:
    """Round numbers of a logarithmic axis."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [t for p in powers for s in steps if low * 0.999 <= (t := s * 10.0**p) <= high * 1.001]


def png(pixels: Any) -> bytes:
    """A PNG file of an array uint8 [H, W, 3] (ISO/IEC 15948): a header, the rows without a filter compressed by zlib, and an end."""
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    h, w, _ = pixels.shape
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    head = struct.pack(">IIBBBBB", w, h, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


# ---- graphs ------------------------------------------------------------------------------------------------------------------------------------
_COLORS = {"input": "#dbe9f6", "output": "#e3f4de", "equation": "#ffffff"}


def _boxes(graph: Graph) -> tuple[list[tuple[str, str, str]], list[tuple[int, int]]]:
    """Boxes (title, note, sort) and arrows between their numbers."""
    names = graph.names()
    boxes = [(names[v], describe(v), "input") for v in graph.inputs]
    at = {v: i for i, v in enumerate(graph.inputs)}
    arrows = []
    outputs = {v for v in graph.outputs if not hasattr(v, "value")}
    for e in graph.equations:
        me = len(boxes)
        literals = [repr(a.value) for a in e.inputs if hasattr(a, "value")]
        title = e.primitive.name + (f" {', '.join(literals)}" if literals else "")
        boxes.append(
            (title, " ".join(f"{names[v]}: {describe(v)}" for v in e.outputs), "output" if any(v in outputs for v in e.outputs) else "equation")
        )
        arrows += [(at[a], me) for a in e.inputs if not hasattr(a, "value")]
        at.update((v, me) for v in e.outputs)
    return boxes, arrows


def to_dot(graph: Graph) -> str:
    """The graph in Graphviz's dot language."""
    boxes, arrows = _boxes(graph)
    lines = [f'digraph "{graph.name}" {{', "  node [shape=box, style=filled, fontname=monospace];"]
    lines += [f'  n{i} [label="{t}\\n{n}", fillcolor="{_COLORS[s]}"];' for i, (t, n, s) in enumerate(boxes)]
    lines += [f"  n{a} -> n{b};" for a, b in arrows]
    return "\n".join([*lines, "}"]) + "\n"


def to_svg(graph: Graph) -> str:
    """The graph as SVG: one layer per depth, values flowing downwards."""
    boxes, arrows = _boxes(graph)
    depth = [0] * len(boxes)
    for a, b in sorted(arrows, key=lambda p: p[1]):
        depth[b] = max(depth[b], depth[a] + 1)
    layers: dict[int, list[int]] = {}
    for i, d in enumerate(depth):
        layers.setdefault(d, []).append(i)
    width = {i: 16 + 7.3 * max(len(boxes[i][0]), len(boxes[i][1])) for i in range(len(boxes))}
    total = max((sum(width[i] + 24 for i in row) for row in layers.values()), default=100)
    place: dict[int, tuple[float, float]] = {}
    for d, row in layers.items():
        x = (total - sum(width[i] + 24 for i in row)) / 2 + 12
        for i in row:
            place[i] = (x, 12.0 + 74 * d)
            x += width[i] + 24
    height = 74 * len(layers) + 12
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {total:.0f} {height}" width="{total:.0f}" height="{height}" '
        'font-family="monospace" font-size="12">'
    ]
    out.append(
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" '
        'orient="auto"><path d="M0 0L8 4L0 8z"/></marker></defs>'
    )
    for a, b in arrows:
        (ax, ay), (bx, by) = place[a], place[b]
        out.append(
            f'<path d="M{ax + width[a] / 2:.1f} {ay + 44:.1f}L{bx + width[b] / 2:.1f} {by:.1f}" stroke="#555" fill="none" marker-end="url(#tip)"/>'
        )
    for i, (title, note, sort) in enumerate(boxes):
        x, y = place[i]
        out.append(f'<rect x="{x:.1f}" y="{y:.1f}" width="{width[i]:.1f}" height="44" rx="5" fill="{_COLORS[sort]}" stroke="#555"/>')
        out.append(f'<text x="{x + 8:.1f}" y="{y + 18:.1f}" font-weight="bold">{escape(title)}</text>')
        out.append(f'<text x="{x + 8:.1f}" y="{y + 35:.1f}" fill="#555">{escape(note)}</text>')
    return "\n".join([*out, "</svg>"]) + "\n"
