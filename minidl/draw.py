"""Pictures: what every SVG and PNG of minidl is made of.

Promises: an SVG needs no other program, and is read on light and dark pages.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import Any

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
