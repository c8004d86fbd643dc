"""The table of lines per Python file, and the promise that gives minidl its name: a small core.

The core is minidl/ without its satellites (SATELLITES: they use public names only, which tests/test_layering.py proves; but what a satellite has for
one backend, in files on_<backend>*.py, may use what that backend is written with), plus backends/. The goal is 6,000 lines; the core is larger than
that today, so what is enforced is a ceiling, a little above the count. It comes down with the core, and is raised only for a reason that stands
here.

It had come to 31,400: 17,500 and the graph compilers made 24,000; the whole Array API with linear algebra, Fourier transforms and distributions
6,000 more; quick eager calls 500; the contest of backend="auto" 350; complex numbers in four libraries 150; training steps that go part by part 250;
numbers of updates that are no tensors 150. Then linear algebra, Fourier transforms, random numbers, the gradient suite, the report of a profile,
pictures and the demo left, because they need no private name: 3,100 less. What has come since: rules of one's own in loops, vmap and jit, state that
lies with another engine, scans whose sums are products behind the loop, and fewer passes over memory on NumPy and torch. Then the primitives of
linear algebra and Fourier transforms followed their functions, with their kernels, and what writes a graph down as NumPy's text or a picture left:
2,000 less. What has come since: views that reach what they are of, as PyTorch's; compositions and recurrent layers that are one node of the tape;
guards of what a program stores and of more containers; arguments that stay with another engine; programs that write to views: 1,200 more.
Inspection, einsum, Jacobians and sizes that grow left: 450 less; guards hear comparisons, texts and computed names, a function that is traced again
and again says why, operations of several arrays run as straight lines, and top-k and short rows have quick kernels: 600 more. Then the
array functions that are made of others, the contest of backend="auto", autocast and recomputing for a budget of memory left; gelu, layer
normalisation, attention and the gamma function's family followed, with their rules and kernels: 2,600 less. Convolution, pooling, random bits, loops
and branches left too: 2,250 less, in spite of backward passes made for the results that are read and gradients that stay while a tensor is frozen.
The rewrites of graphs followed, and those that no program was smaller for are gone: 600 less. So are kernels that a decomposition serves as well.
Then compositions that are one program, sorting, borders and triangles left: 260 less.
Then the kernels of loops and branches followed these, x.at and what explains, checks and measures a graph left, and what only makes programs shorter
or quicker (NumPy's loops over blocks, values made again, torch's fused updates and other modes) went to rooms that backends load by name: 1,870 less.
Ideas that were there twice are there once: 125 less. A profile of an eager call sees the jitted functions on its way: 21 more.
Exits with 1 above the ceiling.
"""

from __future__ import annotations

import sys
from pathlib import Path

GOAL = 6000
CEILING = 21_766
SATELLITES = (
    "nn optim data saving deploy quantize interpret privacy distributions train amp random linalg fft testing profiling draw demo idioms "
    "inspection explanation lifetimes strong einstein jacobians arrays auto columns contest stopwatch rematerialize precision control rewrites modes "
    "whole cuda func special utils waiting __main__"
).split()
ROOT = Path(__file__).resolve().parent.parent


def count(path: Path) -> int:
    """Lines of a file, blank ones and comments included."""
    return len(path.read_text(encoding="utf-8").splitlines())


def files(folder: str) -> list[Path]:
    """The Python files under a folder; minidl/backends is a link to backends and is counted there."""
    found = (p for p in (ROOT / folder).rglob("*.py") if "minidl/backends/" not in p.as_posix())
    return sorted(found)


def main() -> int:
    """Print the table; 0 if the core is within its ceiling."""
    core = rest = 0
    for folder in ("minidl", "backends", "tests", "benchmarks", "examples"):
        total = 0
        for path in files(folder):
            name, lines = path.relative_to(ROOT).as_posix(), count(path)
            inside = folder in ("minidl", "backends") and path.relative_to(ROOT / folder).parts[0].removesuffix(".py") not in SATELLITES
            print(f"{lines:6}  {name}" + ("" if inside or folder not in ("minidl", "backends") else "  (satellite)"))
            total += lines
            if inside:
                core += lines
            else:
                rest += lines
        print(f"{total:6}  {folder}/ in all\n")
    print(f"core (minidl/ without its satellites, plus backends/): {core} lines, goal {GOAL}, ceiling {CEILING}; everything else: {rest}")
    if core > CEILING:
        print(f"the core is {core - CEILING} lines over its ceiling", file=sys.stderr)
    return int(core > CEILING)


if __name__ == "__main__":
    sys.exit(main())
