"""The goals, as data: which side of a workload is held to which peers, and how close.

Promises: a goal whose sides ran is a row, met or missed; one whose sides did not run is a row that says so.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from benchmarks.timing import Times, spread

TORCH = ("minidl torch jit", "minidl torch jit inductor", "minidl torch jit cudagraph")
#: Sides that are no other library's: what auto is held against are all the rest.
OURS = "minidl*"


@dataclass(frozen=True)
class Goal:
    """The best of `ours` over the best of `peers` (patterns of side names), at most `limits[workload]` ("*" for any other), `slack` seconds added.

    A limit of None: no goal there.
    """

    ours: tuple[str, ...]
    peers: tuple[str, ...]
    limits: Mapping[str, float | None]
    slack: float = 0.0


@dataclass
class Row:
    """One line of the table."""

    measure: str
    value: float | None
    unit: str = "x"
    goal: float | None = None
    quartiles: tuple[float, float] | None = None
    met: bool | None = field(init=False)

    def __post_init__(self) -> None:
        self.met = None if self.goal is None or self.value is None else self.value <= self.goal


GOALS = (
    Goal(("minidl jax jit",), ("jax.jit",), {"*": 1.03, "cross_entropy": 0.35, "cnn": 0.85, "persample": 0.25}, 1e-6),
    Goal(TORCH, ("torch eager", "torch.compile"), {"*": 1.03, "cnn": 0.85, "gelu_ln": 0.95, "tiny100": 0.4, "random_bits": None}),
    Goal(("minidl numpy jit",), ("NumPy by hand",), {"mlp": 1.0, "gelu_ln": 0.5, "random_bits": 8.0}),
    Goal(("minidl numba jit",), ("NumPy by hand",), {"random_bits": 1.0}),
    Goal(("minidl numba jit",), ("jax.jit",), {"gelu_ln": 0.75, "cross_entropy": 0.3, "adamw": 0.5, "chain": 0.6, "mlp": 1.0}),
    Goal(("minidl numba jit",), ("torch eager",), {"cnn": 0.8}),
    Goal(("minidl auto",), ("!" + OURS,), {"*": 1.0}),
    Goal(("minidl numpy eager",), ("HIPS autograd",), {"tiny100": 0.2}),
    Goal(("minidl torch eager",), ("torch eager",), {"tiny100": 0.6, "mlp": 1.0, "cnn": 1.0}),
    Goal(("minidl jax eager",), ("jax eager grad",), {"tiny100": 0.1}),
)
CUDA_GOALS = (
    Goal(("minidl jax jit",), ("jax.jit",), {"*": 1.03}),
    Goal(TORCH, ("torch.compile*",), {"*": 1.0}),
)
AUTO_OVER_WINNER = {"tiny100": 3.0}  # µs
#: What a side of minidl is held against, where that is the best of several.
AGAINST = {"minidl torch jit": "the better of torch eager and torch.compile", "minidl auto": "the best peer"}
#: Why a goal is missed, by how the measure begins: what profiling has found.
WHY = {
    "tiny100: minidl jax jit": "1.3 µs beside XLA's 9.6, which leaves caches cold (warm .5): the call .6, making and freeing Tensors .5, guards .2",
    "tiny100: minidl torch eager": "torch's kernels alone take 212 of 306 µs (torch 437): .6 leaves .25 for an operation each way, Python takes .5",
    "mlp: minidl numpy": "a second core saves by hand .80 of 2.19 ms, ours .66 of 2.14, in products that OpenBLAS divides; why is not found",
    "mlp: minidl numba": "level: medians 1.25 to 1.27 ms for jax, inductor, numba and auto; the best round of a product on two cores is chance",
    "mlp: minidl auto": "level: medians 1.25 to 1.27 ms for jax, inductor, numba and auto; the best round of a product on two cores is chance",
    "resnet: minidl auto": "level: auto takes our inductor program, medians 11.5 ms to 11.8 of torch.compile",
    "lstm: minidl torch": "torch's layer is one kernel; by inductor 131 products take 6.9 of 11.7 ms, 4.6 on two cores, loops 2.1, Python 1.4",
    "cnn: minidl torch": "a second core saves torch eager .9 of 2.6 ms, .4 in max-pooling; ours .6; forwards eager is level, backwards 1.0 to .8 ms",
    "call8": "guards and the wrapping of results, in Python, beside a C++ call of jax's",
    "memory: mlp, gradients kept": "gradients and batch stay, 3.0 MB of eager's 3.4 (numba's: 3.2); on numpy .75 lie idle, .5 of them at the peak",
    "memory: cnn, minidl numpy": ".56 to .61 by seven processes: images' gradient .6 MB, its source .2, batch .4, an idle block for updates .2",
    "memory: cnn, gradients kept": "1.8 MB at the peak: images' gradient .6, its source .2, batch .4, gradients .2; an idle block for updates .2",
}


def best(times: Mapping[str, Times], patterns: tuple[str, ...]) -> str | None:
    """The quickest side whose name fits one of the patterns ("!" in front: none of them)."""
    fits = [n for n in times if any(fnmatch.fnmatchcase(n, p.lstrip("!")) != p.startswith("!") for p in patterns)]
    return min(fits, key=lambda n: times[n].best, default=None)


def over(times: Mapping[str, Times], side: str, peer: str) -> tuple[float, tuple[float, float]]:
    """Best time over best time, with the quartiles of the ratios round by round."""
    a, b = times[side], times[peer]
    return a.best / b.best, spread([p / q for p, q in zip(a.samples, b.samples, strict=True)])


def rows(workload: str, times: Mapping[str, Times], device: str = "cpu") -> Iterator[Row]:
    """The goals that a workload has, measured."""
    for goal in GOALS if device == "cpu" else CUDA_GOALS:
        limit = goal.limits.get(workload, goal.limits.get("*"))
        if limit is None:
            continue
        side, peer = best(times, goal.ours), best(times, goal.peers)
        if side is None or peer is None:
            wanted = "any peer" if peer is None and goal.peers[0].startswith("!") else " or ".join(goal.peers)
            yield Row(f"{workload}: {side or goal.ours[0]} / {peer or wanted}", None, "x", limit)
            continue
        ratio, quartiles = over(times, side, peer)
        yield Row(f"{workload}: {side} / {peer}", ratio, "x", limit + goal.slack / times[peer].best, quartiles)
    winner = best({n: t for n, t in times.items() if n != "minidl auto"}, ("minidl*jit*",))
    if "minidl auto" in times and winner is not None:
        pairs = [(a - b) * 1e6 for a, b in zip(times["minidl auto"].samples, times[winner].samples, strict=True)]
        extra = (times["minidl auto"].best - times[winner].best) * 1e6
        yield Row(f"{workload}: minidl auto - {winner}", extra, "µs", AUTO_OVER_WINNER.get(workload), spread(pairs))


def summary(times: Mapping[str, Mapping[str, Any]]) -> Iterator[Row]:
    """The goals over the whole suite, from the best times of all workloads: {workload: {side: {"best_s": ...}}}; none where no workload has times."""
    if not times:
        return
    won, ahead = set(), []
    for workload, sides in times.items():
        seconds = {n: t["best_s"] for n, t in sides.items()}
        peers = [s for n, s in seconds.items() if not n.startswith("minidl")]
        jits = {n: s for n, s in seconds.items() if n.startswith("minidl") and " jit" in n}
        if peers and jits and min(jits.values()) <= min(peers):
            won.add(min(jits, key=lambda n: jits[n]).split()[1])
        if peers and "minidl auto" in seconds and seconds["minidl auto"] <= 0.9 * min(peers):
            ahead.append(workload)
    if any("minidl auto" in sides for sides in times.values()):
        names = ", ".join(ahead) or "none"
        yield Row(f"workloads short of 5 on which auto takes at most 0.9 of the best peer ({names})", float(max(5 - len(ahead), 0)), "", 0.0)
    names = ", ".join(sorted(won)) or "none"
    yield Row(f"backends short of 3 whose jit is ahead of every peer on some workload ({names})", float(max(3 - len(won), 0)), "", 0.0)
