"""What a training went through: the loss of each batch and a row of numbers for each epoch, and their picture."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

import minidl as md

Curve = tuple[Sequence[float], Sequence[float]]


class History:
    """`history["val_loss"]` is the value of each epoch, `history.epochs` all rows, `history.batches` the loss of each batch.

    `history[name]` raises KeyError, which lists what there is, for what was not noted.

    >>> history = History()
    >>> history.epochs += [{"epoch": 1, "loss": 2.0}, {"epoch": 2, "loss": 1.0}]
    >>> history["loss"]
    [2.0, 1.0]
    """

    def __init__(self) -> None:
        self.epochs: list[dict[str, float]] = []
        self.batches: list[float] = []
        self.starts: list[int] = []  # how many batches there were when each epoch began

    def __getitem__(self, name: str) -> list[float]:
        """The values of a number by epoch. Raises KeyError that lists what there is."""
        if not any(name in row for row in self.epochs):
            raise KeyError(f"history: no {name!r}; it has {', '.join(self.names) or 'no epoch yet'}")
        return [row.get(name, math.nan) for row in self.epochs]

    @property
    def names(self) -> list[str]:
        """What was noted for any epoch."""
        return list(dict.fromkeys(k for row in self.epochs for k in row if k != "epoch"))

    def state_dict(self) -> dict[str, Any]:
        """All of it, the losses as an array: millions of them are no text."""
        return {"epochs": [dict(row) for row in self.epochs], "batches": np.array(self.batches, np.float64), "starts": list(self.starts)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what was saved."""
        self.epochs, self.batches, self.starts = [dict(row) for row in state["epochs"]], state["batches"].tolist(), list(state["starts"])

    def to_svg(self) -> str:
        """The curves as an SVG that needs no other program: losses (a faint line for each batch), and beside them what else was noted."""
        losses = {n: self._curve(n) for n in self.names if n.endswith("loss")}
        groups: dict[str, dict[str, Curve]] = {"loss": {"loss of each batch": self._by_batch(), **losses}}
        for n in self.names:
            if not n.endswith("loss"):
                groups.setdefault(n.removeprefix("val_"), {})[n] = self._curve(n)
        return curves({title: lines for title, lines in groups.items() if any(xs for xs, _ in lines.values())})

    _repr_svg_ = to_svg

    def plot(self, path: str | os.PathLike[str]) -> None:
        """Write the picture of the curves to an SVG file."""
        with open(path, "w", encoding="utf-8") as file:
            file.write(self.to_svg())

    def _curve(self, name: str) -> Curve:
        rows = [row for row in self.epochs if name in row]
        return [row["epoch"] for row in rows], [row[name] for row in rows]

    def _by_batch(self) -> Curve:
        xs: list[float] = []
        ends = [*self.starts[1:], len(self.batches)] if self.starts else []
        longest = max((e - s for s, e in zip(self.starts, ends, strict=True)), default=1) or 1
        for i, (s, e) in enumerate(zip(self.starts, ends, strict=True)):
            n = longest if i == len(ends) - 1 and len(self.epochs) < len(ends) else max(e - s, 1)  # an epoch at work is not yet as long as others
            xs += [i + (k + 1) / n for k in range(e - s)]
        return xs, self.batches


def curves(panels: Mapping[str, Mapping[str, Curve]], width: float = 420, height: float = 240) -> str:
    """An SVG with a panel for each group of curves over epochs; the first curve of a group that is named "… of each batch" is drawn faint.

    The axis of a panel whose values are positive and span more than a factor 30 is logarithmic, and says so. Values that are not finite are left out.
    """
    left, gap, top = 64, 84, 58
    parts: list[str] = []
    for i, (title, lines) in enumerate(panels.items()):
        x0, y0 = left + (width + gap) * (i % 2), top + (height + gap) * (i // 2)
        parts += _panel(title, lines, x0, y0, width, height)
    rows, columns = (len(panels) + 1) // 2 or 1, min(len(panels), 2) or 1
    return md.draw.page(left + columns * (width + gap) - gap + 24, top + rows * (height + gap) - 20, parts)


def _panel(title: str, lines: Mapping[str, Curve], x0: float, y0: float, width: float, height: float) -> list[str]:
    points = {n: [(x, _drawn(y)) for x, y in zip(*line, strict=True) if math.isfinite(y)] for n, line in lines.items()}
    xs, ys = [x for line in points.values() for x, _ in line], [y for line in points.values() for _, y in line]
    if not ys:
        return [md.draw.label(x0, y0 - 24, f"{title}: no finite value")]
    low, high, first, last = min(ys), max(ys), min([0.0, *xs]), max(xs)
    logarithmic = low > 0 and high > 30 * low
    if logarithmic:
        low, high = low / 1.2, high * 1.2
        marks = md.draw.ticks(low, high, (1,) if high > 300 * low else (1, 2, 5))
    else:
        pad = (high - low or abs(high) or 1.0) * 0.05
        low, high = low - pad, high + pad
        marks = _linear(low, high)

    def place(x: float, y: float) -> str:
        part = (math.log(y) - math.log(low)) / (math.log(high) - math.log(low)) if logarithmic else (y - low) / (high - low)
        return f"{x0 + width * (x - first) / (last - first or 1):.1f},{y0 + height * (1 - part):.1f}"

    parts = [md.draw.label(x0, y0 - 24, title + (" (logarithmic)" if logarithmic else ""))]
    for t in marks:
        y = place(first, t).split(",")[1]
        parts += [f'<path class="rule" d="M{x0} {y}h{width}"/>', md.draw.label(x0 - 6, float(y) + 4, f"{t:g}", "end", "small")]
    for t in _linear(first, last, whole=True):
        parts.append(md.draw.label(float(place(t, high).split(",")[0]), y0 + height + 16, f"{t:g}", "middle", "small"))
    parts.append(md.draw.label(x0 + width, y0 + height + 32, "epoch", "end", "small quiet"))
    color, at = 0, x0
    for name, line in points.items():
        faint = name.endswith("of each batch")
        stroke = md.draw.PALETTE[0 if faint else color % len(md.draw.PALETTE)]
        color += not faint
        style = f'stroke="{stroke}" fill="none" ' + ('stroke-width="1" opacity="0.35"' if faint else 'stroke-width="2"')
        parts.append(f'<polyline points="{" ".join(place(x, y) for x, y in line)}" {style}/>')
        if len(line) == 1:  # a line of one point shows nothing
            x, y = place(*line[0]).split(",")
            parts.append(f'<circle cx="{x}" cy="{y}" r="3" fill="{stroke}"/>')
        parts += [f'<path d="M{at:.1f} {y0 - 10:.1f}h18" {style}/>', md.draw.label(at + 23, y0 - 6, name, kind="small")]
        at += 36 + 6.2 * len(name)
    return parts


def _drawn(y: float) -> float:
    """A finite number as it is drawn: with the least and the largest ones no axis can be computed."""
    return math.copysign(min(abs(y), 1e300), y) if abs(y) > 1e-300 else 0.0


def _linear(low: float, high: float, whole: bool = False) -> list[float]:
    """About five round numbers of an axis."""
    step = 10.0 ** math.floor(math.log10((high - low) / 5 or 1.0))
    step *= next((m for m in (1, 2, 5) if (high - low) / (step * m) <= 6), 10)
    step = max(step, 1.0) if whole else step
    return [k * step for k in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]
