"""Every primitive on every backend in every mode; nothing per operation but its row in tests/domains.py.

The measure is the conditioned ulp of minidl.testing.checks: results are compared with NumPy in float64 on the same arguments, in units of the
dtype's eps times what one rounding of every input and intermediate can do. The budget is 8 for values and derivatives of both orders, and 32 for
inner products, which add up to 40 of them; real results of primitives that only move or choose numbers must be NumPy's bits.
"""

from __future__ import annotations

import csv
import importlib.util
import itertools
import math

import numpy as np
import pytest
from conftest import BACKENDS, LEDGER, MODES
from domains import ROWS, Row, uncovered

from minidl import dtypes
from minidl.backends import get
from minidl.jitting import jit
from minidl.primitives import table
from minidl.testing.checks import BUDGET, HALF, from_arrays, study, to_array, ulps
from minidl.transforms import vjp

CASES = [pytest.param(r, t, id=f"{r}-{t}") for r in ROWS for t in r.dtypes]
#: One row of each primitive.
FIRST = set({r.name: r for r in reversed(ROWS)}.values())
DERIVATIVES = [c for c in CASES if c.values[1] in ("float64", "complex128")]
def on(backend, *values, id=None, marks=()):
    absent = pytest.mark.skipif(importlib.util.find_spec(backend) is None, reason=f"{backend} is not installed")
    return pytest.param(backend, *values, id=id or backend, marks=[absent, *marks])


backends = pytest.mark.parametrize("backend", [on(b) for b in BACKENDS])


def every(cases, narrow=()):
    """Backend outermost, so that neighbouring tests share compiled kernels. narrow: backends that compile each case for half a second; there it is
    for a row's first dtype and its complex one, and for the others nightly."""
    found = []
    for b in BACKENDS:
        for c in cases:
            row, dtype = c.values
            wide = b in narrow and dtype != row.dtypes[0] and not dtype.startswith("complex")
            found.append(on(b, row, dtype, id=f"{b}-{c.id}", marks=[pytest.mark.nightly] if wide else []))
    return pytest.mark.parametrize(("backend", "row", "dtype"), found)


def attempt(ledger, row: Row, backend: str, mode: str, check):
    """Run a check; what a backend says it cannot do is a gap in the ledger, any other failure fails the test."""
    try:
        return check()
    except NotImplementedError as error:
        ledger(row.name, backend, mode, f"gap: {error}")
        pytest.skip(f"gap: {error}")


def test_every_primitive_has_a_row():
    assert not uncovered()


@every(CASES)
def test_shape_and_dtype_rule(row, dtype, backend, ledger):
    attempt(ledger, row, backend, "rule", lambda: study(row, dtype).rule(get(backend)))
    ledger(row.name, backend, "rule", 0.0)


@every(CASES)
def test_values_and_derivatives(row, dtype, backend, ledger, request):
    """Compiled, eager and as an interpreted graph: outputs, jvp, vjp, and the jvp and vjp of the vjp. Eager jax compiles every operation anew for
    each dtype and shape, so there eager and interpreted are for one row of a primitive in its first dtype, and for all of them nightly."""
    s = study(row, dtype)
    eager = backend != "jax" or (row in FIRST and dtype == row.dtypes[0]) or request.config.getoption("--nightly")
    found = attempt(ledger, row, backend, "forward", lambda: s.modes(get(backend), eager=eager))
    for f in found:
        ledger(row.name, backend, f.mode, f.ulp)
    if not s.moving:
        for mode in ("jvp", "vjp", "second", "adjoint", "differences", "raw"):
            ledger(row.name, backend, mode, "constant")


@every(DERIVATIVES)
def test_forward_mode_is_the_adjoint_of_reverse_mode(row, dtype, backend, ledger):
    s = study(row, dtype)
    if not s.moving:
        return
    ledger(row.name, backend, "adjoint", attempt(ledger, row, backend, "adjoint", lambda: s.adjoint(get(backend))).ulp)


@every(DERIVATIVES)
def test_finite_differences(row, dtype, backend, ledger):
    """Of the value and of the gradient, along one random direction, element by element."""
    s = study(row, dtype)
    if not s.moving:
        return
    attempt(ledger, row, backend, "differences", lambda: s.differences(get(backend)))
    ledger(row.name, backend, "differences", 0.0)


@every(CASES, narrow=("jax",))
def test_raw_pass_is_the_recorded_pass(row, dtype, backend, ledger):
    """backward's raw pass gives the bits of the pass that records itself, and on numpy and torch those of the captured one. On jax the budget
    holds instead: XLA compiles a rule as a whole and contracts multiply-adds."""
    s = study(row, dtype)
    if not s.moving:
        return
    raw, recorded = attempt(ledger, row, backend, "raw", lambda: s.raw(get(backend)))
    worst = 0.0
    for a, b, scale in zip(raw, recorded, s._named(s.scales)["vjp"], strict=True):
        if backend == "jax":
            worst = max(worst, ulps(a, b, scale, a.dtype))
        else:
            np.testing.assert_array_equal(a, b)
    assert worst <= BUDGET
    if backend in ("numpy", "torch") and row.name not in ("scan", "while_loop", "cond"):  # a compiled loop adds up cotangents in another order
        captured = s._named(s.compiled(get(backend))(s.inputs))["vjp"]
        for a, b in zip(raw, captured, strict=True):
            np.testing.assert_array_equal(a, b)
    ledger(row.name, backend, "raw", worst)


@every(CASES, narrow=("numba", "jax"))
def test_batching_rule_is_a_stack_of_single_calls(row, dtype, backend, ledger):
    """Every subset of batched arguments, forward and vjp; eager on numpy and torch, compiled on numba and jax."""
    s = study(row, dtype)
    found = attempt(ledger, row, backend, "vmap", lambda: s.batching(get(backend), eager=backend in ("numpy", "torch")))
    ledger(row.name, backend, "vmap", found.ulp)


# ---- half precision -------------------------------------------------------------------------------------------------------------------------
#: One row of each primitive that computes on floats; a dozen to a group, which the compiling backends compile as one program.
HALVES = list({r.name: r for r in reversed(ROWS) if "float32" in r.dtypes and r.name not in ("cast", "bitcast", "full", "iota")}.values())[::-1]
GROUPS = [HALVES[i : i + 12] for i in range(0, len(HALVES), 12)]


@backends
@pytest.mark.parametrize("group", GROUPS, ids=lambda g: f"{g[0]}..{g[-1]}")
def test_half_precision(group, backend, ledger):
    """float16 and bfloat16: values, jvp and vjp, compiled and eager, against float64 in conditioned ulps of the half type; dtypes by the rule; the
    raw pass is the recorded one; batching. Eager jax has the same kernels in float32 above, and batching rewrites a graph alike for every dtype."""
    xp, studies = get(backend), [study(r, t) for r in group for t in HALF]

    def everything(*inputs):
        rest = iter(inputs)
        return [s.program(*itertools.islice(rest, len(s.inputs))) for s in studies]

    compiled = jit(everything)(*from_arrays([a for s in studies for a in s.inputs], xp))
    for s, outs in zip(studies, compiled, strict=True):
        rule = s.traced.outputs
        assert [(o.shape, o.dtype) for o in outs] == [(tuple(v.shape), v.dtype) for v in rule], s.row
        worst = s.compare("compiled", [to_array(o) for o in outs], BUDGET)
        if backend != "jax":
            eager = s.program(*from_arrays(s.inputs, xp))
            assert [o.dtype for o in eager] == [v.dtype for v in rule], s.row
            worst += s.compare("eager", [to_array(o) for o in eager], BUDGET)
            for raw, recorded in zip(*(s.raw(xp) if s.moving else ((), ())), strict=True):
                np.testing.assert_array_equal(raw.astype(np.float32), recorded.astype(np.float32))
        if backend in ("numpy", "torch"):
            worst.append(s.batching(xp, eager=True))
        ledger(s.row.name, backend, "half", max(f.ulp for f in worst))
    for name in {*table} - {r.name for r in HALVES} if group is GROUPS[0] else ():
        ledger(name, backend, "half", "constant")


# ---- shapes that rows do not draw -----------------------------------------------------------------------------------------------------------
ELEMENTWISE = [p for p in table.values() if p.elementwise and not p.params and p.differentiable]


@backends
@pytest.mark.parametrize("shape", [(), (0,), (2, 0, 3), (1, 1)], ids=str)
def test_elementwise_primitives_take_empty_and_zero_dimensional_arrays(shape, backend):
    """Eager, and on the backends that compile as one program of them all."""
    from minidl.tensors import bind, from_numpy

    def every(x):
        found = {}
        for p in ELEMENTWISE:
            if p.name == "where":
                continue
            args = [x] + ([-0.5, 1.0] if p.name == "clip" else [x] * (len(p.args) - 1))
            moving = args[:1] if p.name == "clip" else args
            out, pull = vjp(lambda *xs, p=p, args=args: bind(p, (*xs, *args[len(xs) :]), {}), *moving)
            found[p.name] = (out, *pull(out))
        return found

    run = every if backend in ("numpy", "torch") else jit(every)
    for name, results in run(from_numpy(np.full(shape, 0.5), get(backend))).items():
        for r in results:
            assert r.shape == shape and r.dtype is dtypes.float64, name


# ---- the ledger -----------------------------------------------------------------------------------------------------------------------------
#: What the network of the demo runs on: no gap is allowed here.
DEMO = (
    "conv conv_dx conv_dw max_pool pool_scatter dot_general relu add mul log_softmax take_along put_along reshape broadcast_to sum threefry2x32"
).split()


def test_the_ledger_is_complete_and_has_few_gaps():
    """Regenerate it with `pytest tests/test_primitives.py --ledger -n 2`; a part of the tests (-k) replaces its own cells."""
    with LEDGER.open() as file:
        rows = list(csv.DictReader(file))
    assert {(r["primitive"], r["backend"]) for r in rows} == {(p, b) for p in table for b in BACKENDS}
    cells = [(r["primitive"], r["backend"], m, r[m]) for r in rows for m in MODES if r[m] != "constant"]
    gaps = [c for c in cells if not c[3].startswith("pass ")]
    assert len(gaps) <= 0.01 * len(cells), gaps
    assert not [c for c in gaps if c[0] in DEMO]
    assert all(c[3].startswith("gap: ") and "not implemented yet" not in c[3] for c in gaps), gaps
    assert sum(bool(r["calls NumPy because"]) for r in rows) <= 0.05 * len(table)
    worst = [float(c[3].split()[1]) for c in cells if c not in gaps]
    assert max(worst) <= 32 and not any(map(math.isnan, worst))
