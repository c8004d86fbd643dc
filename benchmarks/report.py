"""`python benchmarks/report.py FILE...`: the goals of results files, one column a file, as the page benchmarks/README.md.

Promises: every measure that has a goal is a row, missed ones first and with the reason that profiling found (goals.WHY); a missed goal without a
reason is said to have none.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from benchmarks import goals  # noqa: E402

INTRODUCTION = """# Speed, measured against goals

`python benchmarks/run.py` times minidl's engines and the peers that are installed, in turns in one run, on pinned cores with as many threads. Ratios
are best time over best time: smaller is better. Some hundredths are noise. With more than one thread a block is timed when the threads that the side
before it left spinning are still (half a second is waited at most), and its own lie on several cores (40 ms of steps do not count).
`python benchmarks/report.py FILE...` writes this page from results files. A peer that is not installed, or lacks what it needs (tinygrad wants clang
in the path), has no row.
"""

#: What the page says beside the goals.
ENDING = """
## Tried, and kept only where it pays

`python benchmarks/run.py tried` measures both again; these are of one core of the processor above.

- Eager fusion, the backward pass of a tape seen before replayed as a compiled program: a whole eager step of 100 small operations, of the MLP and of
  LeNet took .54, .96 and .95 of the time on jax, where it is kept; 1.10, 1.04 and .91 to 1.02 on torch, 1.15, .98 and .99 on numpy, where it is not.
- One graph split over two engines: of three cuts and every pair of engines the best took .96 of the best engine alone for the gradient of an MLP
  (quartiles .96 to 1.00), 1.08 for a block of attention, 1.83 for layer norm and GELU. It is not kept.

## On a GPU

Nothing here was run on an H200 or any other GPU: none was at hand. There one command makes the table for torch and jax, with the transformer at width
1024 in bfloat16, and writes the device and the versions beside the times:

```sh
python benchmarks/run.py --device cuda --minutes 8
```

It measures for a minute and a half; the rest is compiling, the transformer first, and no workload is begun after eight minutes. What is done is in
the file, also where the run is cut short. jax takes no part where it has no GPU. A missing package (triton) fails one side and ends with status 1,
behind the table. A run on a device that pretends, which the tests have, shows that it comes to its end. What only a GPU can show: whether torch's
kernels of attention and of updates pass their trials there, without which the operations run (ARCHITECTURE.md), all times, and how long compiling
takes.
"""


def key(workload: str, row: Mapping[str, Any]) -> str:
    """What names a goal in every file: which mode of torch and which peer were the best may differ from run to run."""
    side, _, peer = row["measure"].partition(" / ")
    if not workload:  # of the whole suite; which workloads or engines they were stands in brackets
        return str(row["measure"]).partition(" (")[0]
    if not peer or not side.startswith(f"{workload}: minidl "):
        return str(row["measure"])
    words = side.removeprefix(f"{workload}: ").split()
    return f"{workload}: {' '.join(words[:3])} / {goals.AGAINST.get(' '.join(words[:3]), peer)}"


def cell(row: Mapping[str, Any] | None) -> str:
    """A value, in bold where it misses its goal."""
    if row is None or row["value"] is None:
        return "–"
    text = f"{row['value']:.2f}" if row["unit"] in ("x", "") else f"{row['value']:.2f} {row['unit']}"
    return f"**{text}**" if row["met"] is False else text


def said(row: Mapping[str, Any]) -> str:
    return f"{row['goal']:.3g}{'' if row['unit'] in ('x', '') else ' ' + row['unit']}"


def versions(results: Mapping[str, Any]) -> str:
    """What ran, as the file's first workload says it."""
    about = next(iter(results["workloads"].values()))["versions"]
    return ", ".join(f"{k} {v}" for k, v in about.items() if v != "not installed" and k not in ("threads", "cores"))


def title(results: Mapping[str, Any]) -> str:
    first = next(iter(results["workloads"].values()))
    cores = {"1": "one core", "2": "two cores"}.get(first["versions"]["threads"], f"{first['versions']['threads']} cores")
    return str(first["versions"].get("device", cores)) + (", short run" if first["quick"] else "")


def page(files: Sequence[Path]) -> str:
    """The page, as Markdown."""
    found = [json.loads(path.read_text()) for path in files]
    rows: dict[str, list[Mapping[str, Any] | None]] = {}
    for i, results in enumerate(found):
        named = [(w, r) for w, x in results["workloads"].items() for r in x["rows"]] + [("", r) for r in results["summary"]]
        for workload, row in named:
            if row["goal"] is not None:
                rows.setdefault(key(workload, row), [None] * len(files))[i] = row
    missed = {k: row for k, row in rows.items() if any(r is not None and r["met"] is False for r in row)}
    head = " | ".join(title(results) for results in found)
    lines = [INTRODUCTION, *(f"- {path.name}: {title(x)}; {versions(x)}" for path, x in zip(files, found, strict=True))]
    lines += ["", "## Goals that are missed", "", f"| measure | goal | {head} | why |", f"|---|---|{'---|' * len(files)}---|"]
    lines += [f"| {line(k, row)} | {why(k)} |" for k, row in missed.items()]
    lines += ["", "## Goals that are met", "", f"| measure | goal | {head} |", f"|---|---|{'---|' * len(files)}"]
    lines += [f"| {line(k, row)} |" for k, row in rows.items() if k not in missed]
    return "\n".join([*lines, ENDING, *pictures(files)]) + "\n"


def line(name: str, row: Sequence[Mapping[str, Any] | None]) -> str:
    first = next(r for r in row if r is not None)
    return " | ".join([name, said(first), *(cell(r) for r in row)])


def why(name: str) -> str:
    """The reason of the first row of goals.WHY that the measure begins with."""
    return next((text for start, text in goals.WHY.items() if name.startswith(start)), "no reason found yet")


def pictures(files: Sequence[Path]) -> Iterator[str]:
    for path in files:
        for image in (path.with_name(f"{path.stem}{end}.svg") for end in ("", "-scaling")):
            if image.exists():
                yield f"\n![{image.stem}](results/{image.name})"


def main(argv: Sequence[str]) -> int:
    """Write the page; exit status 0."""
    target = HERE / "README.md"
    target.write_text(page([Path(name) for name in argv]))
    print(f"written to {target}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
