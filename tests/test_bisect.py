"""md.bisect finds the operation that was broken on purpose, wherever it stands, and blames nobody where engines agree; md.parity reads the ledger."""

from __future__ import annotations

import contextlib
import io

import numpy as np
import pytest

import minidl as md
from minidl import nn
from minidl.backends.base import Backend
from minidl.backends.numpy_backend import NumpyBackend
from minidl.testing import bisecting


class Broken(NumpyBackend):
    """NumPy whose tanh is wrong above 1, and whose compiled programs are wrong where they hold both exp and sum."""

    name = "broken"
    callable = Backend.callable  # its kernels one by one, and not NumPy's text for them
    spell = Backend.spell

    def tanh(self, x):
        out = np.tanh(x)
        return np.where(x > 1, out * np.asarray(1 + 1e-4, out.dtype), out)

    def compile(self, graph, donate=(), mode=None):
        run = self.callable(graph)
        if not {"exp", "sum"} <= {e.primitive.name for e in graph.equations}:
            return run
        return lambda *a: tuple(v * 1.001 if v.dtype.kind == "f" else v for v in run(*a))


@pytest.fixture
def broken(monkeypatch):
    """The broken backend by its name."""
    made, get = Broken(), bisecting.get_backend
    monkeypatch.setattr(bisecting, "get_backend", lambda name: made if name == "broken" else get(name))
    return "broken"


X = md.tensor([[0.5, -0.25, 2.0], [0.1, 0.2, -0.3]])


@pytest.mark.parametrize("wrt", ["value", "jvp"])
def test_the_broken_operation_is_found_with_its_line_and_worst_element(broken, wrt):
    def f(x):
        y = md.exp(-x) + x
        return (md.tanh(x) * y).sum()

    found = md.bisect(f, X, between=("numpy", broken), wrt=wrt)
    assert found.fault.operation == "tanh" and found.fault.path == () and "test_bisect.py:" in found.fault.where
    index, operands, left, right = found.fault.worst
    assert index == (0, 2) and operands == [2.0] and abs(right / left - 1.0001) < 1e-6
    assert found.fault.off[0] < 2 < 100 < found.fault.off[1]
    assert "numpy" in str(found) and "alone:" in str(found)


def test_the_gradient_is_looked_at_operation_by_operation(broken):
    """The square is right; its gradient holds the tanh that a rule of one's own puts there."""

    @md.custom_vjp
    def f(x):
        return (x * x).sum()

    f.defvjp(lambda x: ((x * x).sum(), x), lambda x, g: (g * 2.0 * x + 0.0 * md.tanh(x) + md.tanh(x),))
    assert md.bisect(f, X, between=("numpy", broken)).fault is None
    found = md.bisect(f, X, between=("numpy", broken), wrt="grad")
    assert found.fault.operation == "tanh" and list(found.outputs) == ["argument 0"]


@pytest.mark.parametrize("place", ["scan", "while", "cond", "custom"])
def test_loops_branches_and_functions_with_rules_are_entered(broken, place):
    def scan(x):
        return md.scan(lambda c, row: (c + md.tanh(row).sum(), None), md.zeros(()), x)[0]

    def loop(x):
        return md.while_loop(lambda c: c[0] < 3, lambda c: (c[0] + 1, md.tanh(c[1] + 0.5)), (md.tensor(0), x))[1]

    def branch(x):
        return md.cond(x.sum() > -5, lambda v: md.tanh(v) * 2.0, md.sin, x)

    rule = md.custom_jvp(lambda x: md.tanh(x) + x)
    rule.defjvp(lambda p, t: (md.tanh(p[0]) + p[0], t[0]))
    f, path = {
        "scan": (scan, "step 0 of scan"), "while": (loop, "step 0 of while_loop"), "cond": (branch, "branch 1 of cond"),
        "custom": (rule, "a function with rules of its own"),
    }[place]  # fmt: skip
    found = md.bisect(f, X, between=("numpy", broken))
    assert found.fault.operation == "tanh"
    assert not found.fault.path or found.fault.path == (path,)
    assert found.fault.path or place == "custom"  # whose body may stand in the program itself


def test_of_a_compiled_program_the_first_wrong_part_is_found(broken):
    def f(x):
        y = md.exp(md.sin(x)).sum()
        return md.cos(y) * x

    found = md.bisect(f, X, between=("numpy", "broken jit"))
    assert found.fault.operation == "sum" and found.fault.number == 3
    assert found.fault.path == ("the program of the first 3 equations, compiled as one",)
    assert md.bisect(lambda x: md.exp(md.sin(x)), X, between=("numpy", "broken jit")).fault is None


def test_an_ill_conditioned_program_is_said_to_be_one():
    """Each operation agrees; what is left of the subtraction is the rounding of exp, which no engine is to be blamed for."""
    x = md.random.normal(md.random.key(0), (64,), dtype=md.float32) * 8

    def f(x):
        return md.exp(x).sum() - md.exp(md.flip(x)).sum() * (1 + 1e-7)

    found = md.bisect(f, x, between=("numpy", "torch"))
    assert found.fault is None and max(found.outputs.values()) <= 8


@pytest.mark.parametrize("engine", ["numpy jit", "torch", "torch jit", "jax", "numba jit"])
def test_a_network_agrees_and_is_left_as_it_was(engine):
    md.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Dropout(0.5), nn.Linear(4, 2))
    before = {k: v.tolist() for k, v in model.state_dict().items()}
    state = md.random.default_generator.key.tolist()
    x = md.random.normal(md.random.key(0), (8, 3))
    found = md.bisect(lambda x: nn.functional.cross_entropy(model(x), md.arange(8) % 2), x, between=("numpy", engine), wrt="grad")
    assert found.fault is None and len(found.outputs) == 7, str(found)
    assert "they agree" in str(found)
    assert {k: v.tolist() for k, v in model.state_dict().items()} == before
    assert all(p.grad is None for p in model.parameters())
    assert md.random.default_generator.key.tolist() == state


def test_arguments_of_every_kind():
    """Trees, integers, the same tensor twice, numbers, bfloat16 and complex tensors, a module; and results that are none of f's operations."""
    x = md.tensor([1.0, 2.0])

    def f(tree, n, again, power=2):
        return {"a": tree["x"] ** power + again, "b": tree["i"] * n, "c": 3.0, "d": again}

    for wrt in ("value", "grad", "jvp"):
        found = md.bisect(f, {"x": x, "i": md.tensor([1, 2])}, 3, x, power=3, between=("numpy", "torch"), wrt=wrt)
        assert found.fault is None and all(d == 0 for d in found.outputs.values())
    for dtype in (md.bfloat16, md.float16, md.complex64):
        assert md.bisect(lambda x: x * x + x.sum(), x.to(dtype), between=("numpy", "jax"), wrt="grad").fault is None
    model = nn.Linear(2, 2)
    found = md.bisect(lambda m, x: m(x), model, x, between=("numpy", "torch"), wrt="grad")
    assert found.fault is None and len(found.outputs) == 3
    assert md.bisect(lambda x: md.zeros((0, 3)) + x.sum(), x, between=("numpy", "torch")).fault is None


def test_the_script_of_a_fault_shows_it_alone(broken):
    found = md.bisect(lambda x: md.tanh(x), X, between=("numpy", broken))
    text = found.fault.script.replace("'broken'", "'torch'")
    with contextlib.redirect_stdout(io.StringIO()) as out:
        exec(compile(text, "script", "exec"), {})
    assert out.getvalue().startswith("numpy tensor(0.964") and "torch tensor(0.964" in out.getvalue()


@pytest.mark.parametrize(
    ("options", "kind", "text"),
    [
        ({"between": ("numpy", "fortran")}, ValueError, "fortran"),
        ({"between": ("numpy", "torch fastest")}, ValueError, "bisect: the torch backend has no mode 'fastest', only jit, inductor"),
        ({"between": "numpy"}, ValueError, "bisect: between names two engines"),
        ({"wrt": "hessian"}, ValueError, "bisect: wrt is one of value, grad, jvp, got 'hessian'"),
        ({"f": 3}, TypeError, "bisect: expected a function, got int"),
    ],
)
def test_errors_say_what_is_wanted(options, kind, text):
    options = {"f": md.sin, **options}
    with pytest.raises(kind, match="(?s)" + text.replace("(", r"\(")):
        md.bisect(options.pop("f"), X, **options)


# ---- the ledger at run time -------------------------------------------------------------------------------------------------------------
def test_parity_of_a_primitive_of_a_function_and_of_the_table():
    one = md.parity("prod")
    assert {b for _, b in one.cells} == {"numpy", "numba", "torch", "jax"} and 0 < one.worst <= 32 and "prod" in str(one)
    of = md.parity(md.grad(lambda x: (md.sin(x) * x).sum()), X)
    assert {"sin", "cos", "mul"} <= {p for p, _ in of.cells}
    loop = md.parity(lambda x: md.scan(lambda c, r: (c + md.lgamma(r).sum(), None), md.zeros(()), x)[0], X)
    assert {"scan", "lgamma"} <= {p for p, _ in loop.cells}  # what loops hold is part of it
    everything = md.parity()
    assert {"add", "conv", "scan", "cholesky"} <= {p for p, _ in everything.cells}
    assert "checks" in str(everything) and len(str(everything).splitlines()) < 12 + len(everything.gaps)


def test_parity_knows_what_it_does_not_know():
    with pytest.raises(KeyError, match="did you mean cumprod"):
        md.parity("cumprood")
    with pytest.raises(KeyError, match=r"md.parity\(md.mean, x\)"):
        md.parity("mean")
    with pytest.raises(TypeError, match="parity: expected a primitive's name or a function, got int"):
        md.parity(3)
