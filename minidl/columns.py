"""Text in columns: the tables that reports print."""

from __future__ import annotations

from collections.abc import Sequence


def columns(rows: Sequence[Sequence[str]], left: int | None = None) -> list[str]:
    """The rows as lines, each column as wide as its widest cell; so many columns stand to the left, the others to the right (None: all to the left).

    >>> columns([("name", "n"), ("a", "10")], left=1)
    ['name   n', 'a     10']
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    flush = [str.ljust if left is None or i < left else str.rjust for i in range(len(widths))]
    return ["  ".join(f(c, w) for f, c, w in zip(flush, row, widths, strict=True)).rstrip() for row in rows]
