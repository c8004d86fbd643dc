"""A graph as a picture: SVG, which needs no other program, or the dot language for Graphviz."""

from __future__ import annotations

from html import escape

from minidl.graph import Graph, Literal, Var
from minidl.shapes import describe

_COLORS = {"input": "#dbe9f6", "output": "#e3f4de", "equation": "#ffffff"}


def _boxes(graph: Graph) -> tuple[list[tuple[str, str, str]], list[tuple[int, int]]]:
    """Boxes (title, note, sort) and arrows between their numbers."""
    names = graph.names()
    boxes = [(names[v], describe(v), "input") for v in graph.inputs]
    at = {v: i for i, v in enumerate(graph.inputs)}
    arrows = []
    outputs = {v for v in graph.outputs if isinstance(v, Var)}
    for e in graph.equations:
        me = len(boxes)
        literals = [repr(a.value) for a in e.inputs if isinstance(a, Literal)]
        title = e.primitive.name + (f" {', '.join(literals)}" if literals else "")
        boxes.append(
            (title, " ".join(f"{names[v]}: {describe(v)}" for v in e.outputs), "output" if any(v in outputs for v in e.outputs) else "equation")
        )
        arrows += [(at[a], me) for a in e.inputs if isinstance(a, Var)]
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
