"""What the benchmarks make of their times: goals, rows, charts, and sides in a process of their own. Nothing here takes a measure."""

from __future__ import annotations

import functools
import importlib
import inspect
import json
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks import chart, goals, remote, report, sides, timing  # noqa: E402
from benchmarks.timing import Side, Times, block, interleave  # noqa: E402
from benchmarks.workloads import training, transformer  # noqa: E402


def times(**best: float) -> dict[str, Times]:
    """Sides by name, in seconds; _ stands for a space."""
    return {k.replace("_", " ").replace("compile", "torch.compile").replace("jaxjit", "jax.jit"): Times([v * 2, v, v * 3]) for k, v in best.items()}


def test_a_goal_takes_the_better_of_its_sides_and_of_its_peers() -> None:
    found = times(torch_eager=2.0, compile=1.0, minidl_torch_jit=0.9, minidl_torch_jit_inductor=0.5, minidl_auto=0.6, minidl_jax_eager=9.0)
    rows = {r.measure: r for r in goals.rows("gelu_ln", found)}
    row = rows["gelu_ln: minidl torch jit inductor / torch.compile"]
    assert (row.value, row.goal, row.met) == (0.5, 0.95, True)
    assert rows["gelu_ln: minidl auto / torch.compile"].value == 0.6
    assert rows["gelu_ln: minidl auto - minidl torch jit inductor"].value == pytest.approx(1e5)
    missing = rows["gelu_ln: minidl jax jit / jax.jit"]
    assert (missing.value, missing.met) == (None, None) and missing.goal is not None


def test_the_goal_of_jit_on_jax_allows_a_microsecond_a_call() -> None:
    (row,) = [r for r in goals.rows("chain", times(jaxjit=10e-6, minidl_jax_jit=11.2e-6)) if "jax.jit" in r.measure and "minidl jax" in r.measure]
    assert row.goal == pytest.approx(1.13) and row.met


def test_the_goals_over_the_suite() -> None:
    def sides(**ours: float) -> dict[str, Any]:
        return {"torch eager": {"best_s": 1.0}, **{f"minidl {k.replace('_', ' ')}": {"best_s": v} for k, v in ours.items()}}

    suite = {"a": sides(auto=0.8, numpy_jit=0.5), "b": sides(auto=0.95, torch_jit=0.9, jax_jit=2.0), "c": sides(numba_jit=1.0)}
    ahead, engines = goals.summary(suite)
    assert ahead.value == 4 and "(a)" in ahead.measure and ahead.met is False
    assert engines.value == 0 and "numba, numpy, torch" in engines.measure and engines.met
    assert not list(goals.summary({})), "a run of something else misses no goal of the suite"


def test_charts_show_every_workload_and_side(tmp_path: Path) -> None:
    t = lambda v: {"best_s": v}
    grown = {"scaling, width (mlp)": {"jax.jit": {"64": t(0.001), "512": t(0.02)}, "minidl numpy jit": {"64": t(0.002), "512": t(0.03)}}}
    results = {
        "workloads": {
            "mlp": {"times": {"mlp": {"jax.jit": t(1.0), "NumPy by hand": t(2.0), "minidl jax jit": t(0.5), "minidl jax eager": t(9.0)}}},
            "alone": {"times": {"alone": {"minidl jax jit": t(0.5)}}},
            "scaling": {"times": grown},
        }
    }
    overview, curves = chart.write(results, tmp_path / "2026-01-01")
    assert [p.name for p in (overview, curves)] == ["2026-01-01.svg", "2026-01-01-scaling.svg"]
    for path in (overview, curves):
        assert ET.fromstring(path.read_text()).tag.endswith("svg")
        assert "prefers-color-scheme" in path.read_text()
    text = overview.read_text()
    assert "minidl jax jit: 0.500 of jax.jit" in text and "eager" not in text and ">alone<" not in text
    assert curves.read_text().count("<polyline") == 2
    assert chart.write({"workloads": {}}, tmp_path / "none") == []


def counting(start: int) -> Side:
    """A side for the child process."""
    seen = [start]

    def step() -> int:
        seen[0] += 1
        print("a library may print")
        return seen[0]

    return Side(step, lambda: [step()])


def broken() -> Side:
    """A side whose library is missing."""
    raise ImportError("no module of that name")


def test_a_side_in_a_process_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "tests"))
    side = remote.remote("test_benchmarks:counting", (41,))
    assert side.answer() == [42]
    assert 0 < block(side, 3) < 10
    assert set(interleave({"it": side}, 0.01, "test", 0.001)) == {"it"}
    side.close()
    with pytest.raises(ImportError, match="no module of that name"):
        remote.remote("test_benchmarks:broken")


@pytest.mark.parametrize(("threads", "waits"), (("1", 0), ("2", 1)))
def test_a_block_on_several_threads_waits_for_those_of_the_one_before(monkeypatch: pytest.MonkeyPatch, threads: str, waits: int) -> None:
    from minidl import stopwatch

    seen: list[str] = []
    monkeypatch.setenv("OMP_NUM_THREADS", threads)
    monkeypatch.setattr(stopwatch, "settle", lambda: seen.append("wait"))
    monkeypatch.setattr(stopwatch, "SPREAD", 0.0)
    side = Side(lambda: seen.append("step"), list, lambda _: seen.append("sync"))
    block(side, 2)
    assert seen == ["wait"] * waits + ["step", "step", "sync"]
    monkeypatch.setattr(stopwatch, "SPREAD", 1e-3)
    seen.clear()
    block(side, 2)
    assert seen[waits : waits + 2] == (["step", "sync"] if waits else ["step", "step"]), "its own threads are spread by steps that do not count"


def test_an_eager_step_is_timed_to_the_end_of_its_update(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its loss is there first on an asynchronous backend, and the rest would run while the next side is timed."""
    from benchmarks import sides
    from benchmarks.workloads import mlp, training

    waited: list[Any] = []
    monkeypatch.setattr(sides, "wait", lambda out: waited.append(out))
    for jitted, names in ((False, 6), (True, 0)):
        side = training.minidl_side(mlp.task((3, 4, 4, 2), 5), sides.Way("numpy", jitted))
        waited.clear()
        side.sync(side.step())
        assert [len(out) for out in waited] == [names] * bool(names)


class Found(subprocess.CompletedProcess):
    """What an interpreter says that was asked how long an import takes."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(args, 0, stdout="0.05\n", stderr="")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The runner, whose import pins nothing here."""
    monkeypatch.setattr(timing, "pin", lambda threads, device: ())
    monkeypatch.setattr(sys, "argv", ["run.py"])
    monkeypatch.delitem(sys.modules, "benchmarks.run", raising=False)
    run = importlib.import_module("benchmarks.run")
    monkeypatch.delitem(sys.modules, "benchmarks.run")  # with its cores, which are none
    monkeypatch.setattr(sides, "DEVICE", ["cpu"])
    return run


def test_the_table_of_a_gpu_comes_to_its_end(run: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any) -> None:
    """On a device that pretends, in small: torch's own sides and minidl's on torch agree in bfloat16, a replayed graph among them."""
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device, on which the suite runs with MINIDL_DEVICE=cuda")
    from pretended_cuda import pretended_cuda

    import minidl as md

    small = functools.partial(transformer.Sizes, layers=1, heads=2, length=8, batch=2)
    monkeypatch.setattr(transformer, "Sizes", lambda **large: small(width=16))
    monkeypatch.setattr(timing, "interleave", lambda built, *_: {name: Times([block(side, 1)]) for name, side in built.items()})
    monkeypatch.setattr(torch, "compile", lambda f, **_: f)
    path = tmp_path / "results.json"
    with pretended_cuda():
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a pretended device")
        status = run.main(["transformer", "adamw", "--device", "cuda", "--quick", "--minutes", "5", "--json", str(path)])
        assert run.main(["adamw", "--device", "cuda", "--quick", "--minutes", "-1"]) == 0
        md.manual_seed(0)
    workloads = json.loads(path.read_text())["workloads"]
    notes = [note for w in workloads.values() for note in w["notes"]]
    failed = [note for note in notes if "FAILED" in note or "WRONG" in note]
    assert all("needs the package triton" in note for note in failed) and status == bool(failed), notes
    ours = {"minidl torch eager", "minidl torch jit", "minidl torch jit cudagraph"}
    peers = {"torch eager", "torch.compile"}
    for name, more in (("transformer", {"torch.compile max-autotune"}), ("adamw", set())):
        found = {n for n in workloads[name]["times"][name] if "inductor" not in n and "jax" not in n}
        assert found == ours | peers | more, name
    assert workloads["adamw"]["versions"]["device"] == "a pretended device"
    assert "adamw: not begun after -1 minutes" in capsys.readouterr().out


def test_in_half_precision_a_step_that_is_missing_shows_and_a_sign_that_turns_does_not() -> None:
    rng = np.random.default_rng(0)
    moved = np.sign(rng.normal(size=2000)) * 1e-3
    turned = np.where(np.arange(2000) % 200 == 0, -moved, moved)
    assert training.by_norm(turned, moved) < 0.2 < training.by_norm(moved * 0.75, moved) < training.by_norm(0 * moved, moved)
    assert training.by_norm(moved[1:], moved) == float("inf")


def test_every_workload_reports_through_the_runner(run: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Sides are named but not built: what runs is what the workloads ask of the runner, and what it makes of their times."""

    def measure(self: Any, label: str, builders: dict[str, Any], *args: Any, **kwargs: Any) -> dict[str, Times]:
        inspect.signature(Bench.measure).bind(self, label, builders, *args, **kwargs)
        times = {name: Times([2.0 + i, 1.0 + i, 3.0 + i]) for i, name in enumerate(builders)}
        self.times[label] = {n: {"best_s": t.best, "median_s": t.median, "rounds": 3} for n, t in times.items()}
        return times

    Bench = run.Bench
    monkeypatch.setattr(run, "Bench", type("Bench", (Bench,), {"measure": measure}))
    importing, memory, trace10k = (importlib.import_module(f"benchmarks.workloads.{n}") for n in ("importing", "memory", "trace10k"))
    monkeypatch.setattr(importing.subprocess, "run", Found)
    monkeypatch.setattr(memory.os, "access", lambda *_: True)
    monkeypatch.setattr(remote, "remote", lambda target, args=(), env=None: Side(lambda: None, lambda: [2**20, 2**20]))
    monkeypatch.setattr(trace10k, "SIZES", (10, 20))
    path = tmp_path / "results.json"
    rest = ["--quick", "--peers", "numpy", "torch", "jax", "autograd", "--backends", "numpy", "numba", "auto", "--json", str(path)]
    assert run.main(rest) == 0 and run.main(["--scaling", *rest]) == 0 and run.main(["tried", *rest]) == 0
    workloads = json.loads(path.read_text())["workloads"]
    assert [*workloads] == [*run.WORKLOADS, "scaling", "tried"]
    for name, found in workloads.items():
        assert found["rows"] and not any("FAILED" in note for note in found["notes"]), (name, found["notes"])
    (row,) = [r for r in workloads["importing"]["rows"] if r["goal"] is not None]
    assert (row["value"], row["goal"], row["met"]) == (1.0, 1.3, True)


def test_the_page_of_goals_says_what_is_missed_and_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def file(name: str, threads: str, peer: str, value: float, names: str) -> Path:
        row = {"measure": f"mlp: minidl torch jit inductor / {peer}", "value": value, "unit": "x", "goal": 1.03, "met": value <= 1.03}
        odd = {"measure": "mlp: minidl numpy eager / HIPS autograd", "value": None, "unit": "x", "goal": 0.2, "met": None}
        total = {"measure": f"backends short of 3 ({names})", "value": 1.0, "unit": "", "goal": 0.0, "met": False}
        about = {"threads": threads, "cores": "0", "torch": "2.13.0", "keras": "not installed"}
        results = {"workloads": {"mlp": {"versions": about, "quick": threads == "2", "rows": [row, odd]}}, "summary": [total]}
        (tmp_path / name).write_text(json.dumps(results))
        return tmp_path / name

    monkeypatch.setitem(goals.WHY, "mlp: minidl torch", "the reason")
    text = report.page([file("a.json", "1", "torch eager", 0.99, "jax, numba"), file("b.json", "2", "torch.compile", 1.055, "jax")])
    missed, met = text.partition("## Goals that are met")[::2]
    assert "| mlp: minidl torch jit / the better of torch eager and torch.compile | 1.03 | 0.99 | **1.05** | the reason |" in missed
    assert "| backends short of 3 | 0 | **1.00** | **1.00** | " in missed and "| one core | two cores, short run |" in missed
    assert "| mlp: minidl numpy eager / HIPS autograd | 0.2 | – | – |" in met and "keras" not in text
    assert report.why("a measure that nobody knows") == "no reason found yet"
