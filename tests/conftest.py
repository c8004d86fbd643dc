"""What every test of the suite is held to, and the ledger that tests/test_primitives.py fills.

A test fails that leaks the interpreter, the grad mode, the default backend or a global setting of numpy, torch or jax, and so does one that is
skipped for a reason that tests/skips.csv does not give. Hypothesis profiles: dev (few examples), ci (fixed seeds; what `make test` uses), nightly
(many). Each xdist worker takes whole groups, so that compiled programs are shared.
"""

from __future__ import annotations

import csv
import ctypes
import gc
import mmap
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest

LEDGER = Path(__file__).parent.parent / "minidl" / "testing" / "ledger.csv"
SKIPS = Path(__file__).parent / "skips.csv"
MODES = ("rule", "forward", "jvp", "vjp", "second", "eager", "interpreted", "adjoint", "differences", "raw", "vmap", "half")
BACKENDS = ("numpy", "numba", "torch", "jax")

_COMMON: dict[str, Any] = {"deadline": None, "suppress_health_check": list(hypothesis.HealthCheck), "print_blob": True}
hypothesis.settings.register_profile("dev", max_examples=20, **_COMMON)
hypothesis.settings.register_profile("ci", max_examples=100, derandomize=True, database=None, **_COMMON)
hypothesis.settings.register_profile("nightly", max_examples=10_000, **_COMMON)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


#: Groups (file-backend) of few tests that take long. They begin before the many short ones, so that no worker ends long after the other.
LONG = (
    "test_docs- test_gradients_match- test_coexistence-jax test_standard_derivatives-numba test_standard_derivatives-torch"
    " test_standard_derivatives-jax test_deploy-jax"
).split()


#: Files that are the same under any default backend, as are tests that name theirs: they compare backends, speak of one, read text, or start
#: processes that choose for themselves.
SAME = [
    f"test_{name}"
    for name in (
        "benchmarks bounds_torch by_kernel channels_last_jax check_command coexistence demo docs gradients_match import jax_backend"
        " jax_rooms jax_speed kernels_in_programs layering listings memory mutation nn_backends numba_backend numpy_backend"
        " numpy_blocks numpy_chunks numpy_names numpy_windows packaging pipelines pretended_cuda primitives products_torch reference"
        " source standard_derivatives suite torch_backend torch_names train workers"
    ).split()
]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--ledger", action="store_true", help="write minidl/testing/ledger.csv from the results of tests/test_primitives.py")
    parser.addoption("--pretended-cuda", action="store_true", help="what names no backend, by torch on a device that pretends to be a GPU")
    parser.addoption("--nightly", action="store_true", help="check more: tests marked nightly, and more cases in some others")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--pretended-cuda"):  # before the tests are read, which make tensors
        from pretended_cuda import pretended_cuda

        from minidl.backends import set_backend

        device = pretended_cuda()
        device.__enter__()
        config.add_cleanup(lambda: device.__exit__(None, None, None))
        set_backend("torch", "cuda")
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as for a job in the background of a script; the tests of Ctrl-C need it
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if getattr(config.option, "dist", "no") == "load":
        config.option.loadscopereorder = False  # the order of the groups is that of the tests, which is ours


def group(nodeid: str) -> str:
    """The tests of one file on one backend, which one worker runs, so that what they compile is compiled once."""
    file, _, test = nodeid.partition("::")
    found = re.search(rf"\b({'|'.join(BACKENDS)})\b", test.partition("[")[2])
    return f"{Path(file).stem}-{found[1] if found else ''}"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Groups by the names of the tests: xdist's own way to group by marks knows no pytest 9, which has another field for the name."""
    if config.getvalue("dist") != "load":
        return None
    from xdist.scheduler import LoadScopeScheduling

    class Groups(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return group(nodeid)

    return Groups(config, log)


def _by_row(item: pytest.Item) -> tuple[int, str]:
    """Tests of one primitive on one backend next to each other: they share what was compiled, and little is kept alive."""
    params = item.callspec.params if hasattr(item, "callspec") else {}
    return (BACKENDS.index(params["backend"]), f"{params['row']}-{params['dtype']}") if "row" in params and "backend" in params else (-1, "")


def _leave_out(config: pytest.Config, items: list[pytest.Item], unwanted: Callable[[pytest.Item], bool]) -> None:
    if out := [item for item in items if unwanted(item)]:
        config.hook.pytest_deselected(items=out)
        items[:] = [item for item in items if not unwanted(item)]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--nightly"):
        _leave_out(config, items, lambda item: item.get_closest_marker("nightly") is not None)
    pretended = config.getoption("--pretended-cuda")
    if pretended or os.environ.get("MINIDL_BACKEND", "numpy") != "numpy":
        _leave_out(config, items, lambda item: not group(item.nodeid).endswith("-") or item.path.stem in SAME)
    if pretended:
        _leave_out(config, items, lambda item: item.get_closest_marker("cpu") is not None)
    mine = [i for i, item in enumerate(items) if item.path.stem == "test_primitives"]
    for i, item in zip(mine, sorted((items[i] for i in mine), key=_by_row), strict=True):
        items[i] = item
    if not hasattr(config, "workerinput"):
        return
    groups: dict[str, list[pytest.Item]] = {}
    for item in items:
        groups.setdefault(group(item.nodeid), []).append(item)

    def turn(name: str) -> tuple[bool, bool, bool, int]:
        """The last ones should be short: what compiles begins early."""
        return not name.startswith("test_primitives"), name not in LONG, not name.endswith(("-numba", "-jax")), -len(groups[name])

    order = sorted(groups, key=turn)
    items[:] = [item for name in order for item in groups[name]]


def pytest_collection_finish(session: pytest.Session) -> None:
    """What collecting has made stays to the end: the collector need not walk over it with every pass, which was a tenth of the suite's time."""
    gc.freeze()
    gc.set_threshold(10_000, 10, 10)


def _globals() -> dict[str, Any]:
    """The settings that belong to the user and those of minidl that must end as they began."""
    found: dict[str, Any] = {"numpy error state": np.geterr()}
    minidl = sys.modules.get("minidl.context")
    if minidl is not None:
        backends, dtypes = sys.modules["minidl.backends"], sys.modules["minidl.dtypes"]
        found |= {k: getattr(minidl.state, k) for k in minidl.DEFAULTS} | {"count of interpreters": minidl.busy[0]}
        found |= {"backends in use": backends._choice.stack, "default dtype": dtypes.Defaults.floating, "strict promotion": dtypes.Defaults.strict}
    torch, jax = sys.modules.get("torch"), sys.modules.get("jax")
    if torch is not None and hasattr(torch, "get_default_dtype"):
        found |= {"torch default dtype": torch.get_default_dtype(), "torch grad mode": torch.is_grad_enabled()}
        found |= {"torch deterministic": torch.are_deterministic_algorithms_enabled()}
    if jax is not None and hasattr(jax, "config"):
        found |= {"jax x64": jax.config.jax_enable_x64, "jax default matmul precision": jax.config.jax_default_matmul_precision}
    return found


@pytest.fixture(autouse=True)
def no_leaks() -> Iterator[None]:
    """Fail a test that leaves a setting changed."""
    before = _globals()
    yield
    after = _globals()
    changed = {k: (v, after[k]) for k, v in before.items() if k in after and after[k] != v}
    assert not changed, f"the test leaked: {changed}"


#: By how many bytes a worker may grow before JAX drops what it compiled for single operations: 2 MB for each of them and each shape, for good.
GROWTH = 3 << 29
_held = [0]  # after it did so


def pytest_runtest_teardown() -> None:
    """Without this a worker comes to hold 6 GB."""
    jax, pages = sys.modules.get("jax"), Path("/proc/self/statm")
    if not hasattr(jax, "clear_caches") or not pages.exists() or int(pages.read_text().split()[1]) * mmap.PAGESIZE < _held[0] + GROWTH:
        return
    jax.clear_caches()
    gc.collect()
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        trim(0)
    _held[0] = int(pages.read_text().split()[1]) * mmap.PAGESIZE


# ---- skips: only for reasons that are written down ------------------------------------------------------------------------------------------
def may_skip(reason: str) -> bool:
    """Whether tests/skips.csv has a row for this reason."""
    with SKIPS.open(newline="") as file:
        return any(re.match(row["reason"], reason.removeprefix("Skipped: ")) for row in csv.DictReader(file))


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report = (yield).get_result()  # type: ignore[misc]
    if report.skipped and (hasattr(report, "wasxfail") or not may_skip(reason := report.longrepr[2])):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid}: {'expected to fail' if hasattr(report, 'wasxfail') else reason}, which tests/skips.csv does not allow"


# ---- the ledger: what test_primitives found, by primitive and backend -----------------------------------------------------------------------
_cells: dict[tuple[str, str], dict[str, str]] = {}


@pytest.fixture
def ledger(request: pytest.FixtureRequest) -> Any:
    """ledger(primitive, backend, mode, ulp or reason for a gap): remembered, and written by --ledger."""

    def note(primitive: str, backend: str, mode: str, result: float | str) -> None:
        request.node.user_properties.append(("ledger", (primitive, backend, mode, result)))

    return note


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when != "call":
        return
    for name, value in report.user_properties:
        if name == "ledger":
            primitive, backend, mode, result = value
            cells = _cells.setdefault((primitive, backend), {})
            before = cells.get(mode, "")
            if isinstance(result, str):
                cells[mode] = result if result.startswith("gap") or not before else before
            elif not before.startswith("gap"):
                worst = max(result, float(before.split()[1]) if before.startswith("pass ") else 0.0)
                cells[mode] = f"pass {worst:.2g}"


def pytest_sessionfinish(session: pytest.Session) -> None:
    if not session.config.getoption("--ledger") or hasattr(session.config, "workerinput") or not _cells:
        return
    import domains  # noqa: F401  brings the primitives of the packages beside the core, which the workers have imported and their parent has not

    from minidl.backends import get
    from minidl.backends.numba_lower import object_mode
    from minidl.primitives import table

    get("numba")  # and the kernels of those packages
    with LEDGER.open(newline="") as file:
        before = {(r["primitive"], r["backend"]): r for r in csv.DictReader(file)}
    with LEDGER.open("w", newline="") as file:
        out = csv.writer(file, lineterminator="\n")
        out.writerow(["primitive", "backend", *MODES, "calls NumPy because"])
        for primitive, backend in sorted({*_cells, *before}, key=lambda k: (k[0], BACKENDS.index(k[1]))):
            if primitive not in table:
                continue
            cells = before.get((primitive, backend), {}) | _cells.get((primitive, backend), {})
            why = object_mode.get(primitive, "") if backend == "numba" else ""
            out.writerow([primitive, backend, *(cells.get(m, "none") for m in MODES), why])


@pytest.fixture
def on_numpy() -> Iterator[None]:
    """The default backend of a test that speaks of NumPy, whatever MINIDL_BACKEND says."""
    from minidl.backends import use_backend

    with use_backend("numpy"):
        yield


@pytest.fixture(params=("numpy", "numba", "torch", "jax"))
def backend(request):
    """Each backend in turn, chosen as the default while the test runs."""
    from minidl.backends import use_backend  # here, so that test_import and others may start without minidl

    with use_backend(request.param):
        yield request.param
