"""The error contract: wrong calls raise the same class with the same words on every backend, eager and traced, and the words are minidl's.

Every public array function is called with arguments that fit and many that do not: wrong types, dtypes, shapes, axes, values and sizes. What NumPy's
backend answers is the reference. Only what depends on values may differ between eager and traced, and it says so.
"""

from __future__ import annotations

import inspect
import os
import random
import re
import resource
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import minidl as md
from minidl.context import busy, state
from minidl.errors import checked, own
from minidl.primitives import table

CLASSES = {"TypeError", "ValueError", "IndexError", "OverflowError", "NotImplementedError", "MemoryError", "RuntimeError", "UserWarning"}
DEPENDS_ON_VALUES = re.compile(
    r"symbolic while|out of bounds for axis|is singular|not positive definite|did not converge|negative integer power|is a value out of"
    r"|it lies between 0 and 1|the classes are 0 to|the scores have classes 0 to"
)
#: What is no array function: it needs no tensor, changes the process, or answers questions about dtypes alone.
LEFT_OUT = {"manual_seed", "default_generator", "Generator", "from_dlpack", "finfo", "iinfo", "isdtype", "can_cast", "result_type", "host"}


class Array:
    """An argument that becomes a tensor on the backend under test."""

    def __init__(self, data: Any, dtype: str):
        self.data, self.dtype = data, dtype

    def __repr__(self) -> str:
        return f"{self.dtype}{list(np.shape(self.data))}"


class Odd:
    """Nothing that an array function takes."""


ARRAYS = [
    Array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], "float32"), Array([1.0, 2.0, 3.0], "float32"), Array([[1, 2, 3], [4, 5, 6]], "int32"),
    Array([[True, False, True]] * 2, "bool"), Array(2.0, "float64"), Array([[1j, 2.0], [3.0, 4j]], "complex64"), Array([], "float32"),
    Array([1.0, 2.0, 3.0], "float16"), Array([1, 2, 3], "uint8"), Array(np.ones((4, 4)).tolist(), "float32"), Array([0, 1, 7], "int64"),
    Array(np.ones((2, 3, 4)).tolist(), "float32"), Array([2**63], "uint64"), Array([1.0, 2.0], "bfloat16"),
    Array(np.ones((1, 2, 5, 5)).tolist(), "float32"), Array([[1.0, 0.0], [0.0, 2.0]], "float64"),
]  # fmt: skip
NUMBERS = [0, 1, -1, 2, 7, -9, 2**40, 2**70, -(2**70), 1.5, float("nan"), float("inf"), True, 1j, None]
WORDS = ["abc", "float32", "", b"x", "nope", "left", "same", "none", "xy", "int32", "mean"]
SEQUENCES = [
    (), (2, 3), [1, 2], (-1,), (2**40, 2**40), (10**6, 10**6, 10**6), (0, 0), (1.5, 2), ("a",), [[1], [1, 2]], [1, "a"], (None,), ((0, 1), (1, 0)),
    {}, {"a": 1}, (True, False), [[1.0, 2.0], [3.0, 4.0]], (-1, -1), (0, 5), (1,) * 6, (0, 2**70),
]  # fmt: skip
OTHERS = [
    np.array([1, 2, 3]), np.array(["a", "b"]), np.array([None, 1]), np.array([1.0, 2.0], "f4"), np.float32(2), np.float64(2), np.datetime64("2020"),
    slice(None), Ellipsis, md.float32, md.int8, md.bool, float, int, str, np.float64, Odd, Odd(),
]  # fmt: skip
AXES = [0, 1, -1, (0, 1), 5, -9]


def functions() -> Iterator[tuple[str, Callable[..., Any]]]:
    """Every public array function, by its dotted name."""
    for name in (*md.ops.__all__, *" ".join(md._ARRAYS.values()).split(), "einsum"):
        yield name, getattr(md, name)
    for room in ("linalg", "random", "fft", "nn.functional"):
        module: Any = md
        for part in room.split("."):
            module = getattr(module, part)
        for name in module.__all__:
            if inspect.isfunction(getattr(module, name)):
                yield f"{room}.{name}", getattr(module, name)


def arity(name: str, f: Callable[..., Any]) -> tuple[list[str], int, list[str]]:
    """Names of positional parameters, how many have no default, names of the others."""
    parameters = inspect.signature(f).parameters.values()
    kinds = [p.kind for p in parameters]
    row = md.ops.elementwise._TABLE.get(name)
    if row is not None and kinds[:1] == [inspect.Parameter.VAR_POSITIONAL]:
        args = list(table[row[0]].args)
        return args, len(args), []
    placed = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    many = [p.name for p in parameters if p.kind is p.VAR_POSITIONAL] * 2
    named = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.name not in ("backend", "device")]
    return [p.name for p in placed] + many, sum(p.default is p.empty for p in placed), named


def draw(rng: random.Random, name: str, first: bool) -> Any:
    """An argument: often of the right sort, always possibly a wrong one."""
    if name == "axis" and rng.random() < 0.5:
        return rng.choice(AXES)
    if name == "key" and rng.random() < 0.7:
        return Array([1, 2], "uint32")
    if rng.random() < (0.75 if first else 0.3):
        return rng.choice(ARRAYS)
    return rng.choice(rng.choice((NUMBERS, NUMBERS, WORDS, SEQUENCES, OTHERS)))


def calls(name: str, f: Callable[..., Any], n: int) -> Iterator[tuple[list[Any], dict[str, Any]]]:
    """n calls of a function, the same in every process."""
    rng = random.Random(name)
    placed, needed, named = arity(name, f)
    for _ in range(n):
        count = rng.randint(needed, max(needed, len(placed)))
        args = [draw(rng, k, i == 0 or k in ("x", "y", "w", "weight", "target", "operands")) for i, k in enumerate(placed[:count])]
        yield args, {k: draw(rng, k, False) for k in named if rng.random() < 0.35}


def made(value: Any) -> Any:
    return md.tensor(value.data, dtype=value.dtype) if isinstance(value, Array) else value


def eager(f: Callable[..., Any], args: list[Any], params: dict[str, Any]) -> Exception | None:
    """What a call raises."""
    try:
        f(*map(made, args), **{k: made(v) for k, v in params.items()})
    except Exception as error:
        return error
    return None


def traced(f: Callable[..., Any], args: list[Any], params: dict[str, Any]) -> Exception | None:
    """What the call raises while a trace runs, its tensors being inputs of the program."""
    tensors: list[md.Tensor] = []

    def place(value: Any) -> Any:
        if not isinstance(value, Array):
            return lambda xs: value
        i = len(tensors)
        tensors.append(made(value))
        return lambda xs: xs[i]

    placed, named = [place(a) for a in args], {k: place(v) for k, v in params.items()}

    def call(*xs: Any) -> Any:
        out = f(*(a(xs) for a in placed), **{k: v(xs) for k, v in named.items()})
        return [x for x in md.tree.leaves(out) if isinstance(x, md.Tensor)]

    try:
        md.trace(call)(*tensors)
    except Exception as error:
        return error
    return None


def said(error: Exception | None, backend: str = "numpy") -> tuple[str, str]:
    """Class and text, with the backend's name neutral."""
    if error is None:
        return "", ""
    text = re.sub(r"tensor\((?:[^()]|\([^()]*\))*\)", "tensor", str(error))  # which shows its values where it has them
    text = re.sub(rf"\b(backend[ =]){backend}\b", r"\1B", text)
    return type(error).__name__, re.sub(rf"\bthe {backend} backend", "the B backend", text)


CASES = 16


@pytest.fixture(scope="module")
def reference() -> dict[tuple[str, int], Exception | None]:
    """What every call raises on NumPy's backend, eager."""
    found = {}
    with md.use_backend("numpy"):
        for name, f in functions():
            if name.rpartition(".")[2] not in LEFT_OUT:
                for i, (args, params) in enumerate(calls(name, f, CASES)):
                    found[name, i] = eager(f, args, params)
    return found


def test_the_words_are_minidl_s(reference):
    """Of the right class, made by a raise statement of minidl's own, and named."""
    complaints = []
    for (name, i), error in reference.items():
        if error is None:
            continue
        named = re.match(r"[A-Za-z_][\w.]*(\(\))?: ", str(error))
        if type(error).__name__ not in CLASSES or not own(error) or not named or len(str(error)) < 15:
            complaints.append(f"{name} (call {i}): {type(error).__name__}: {error}")
    assert not complaints, "\n".join(complaints)
    assert sum(e is not None for e in reference.values()) > len(reference) // 3  # the calls are wrong ones
    assert sum(e is None for e in reference.values()) > len(reference) // 10  # and some are right


@pytest.mark.parametrize("where", ["numba", "torch", "jax", "traced"])
def test_alike_everywhere(reference, where):
    complaints = []
    with md.use_backend("numpy" if where == "traced" else where):
        for name, f in functions():
            if name.rpartition(".")[2] in LEFT_OUT:
                continue
            for i, (args, params) in enumerate(calls(name, f, CASES)):
                want = reference[name, i]
                if where == "jax" and (want is None or i >= 5):  # each new shape of a right call costs XLA a compilation
                    continue
                got = traced(f, args, params) if where == "traced" else eager(f, args, params)
                if said(want) == said(got, where):
                    continue
                if where == "traced" and any(e is not None and DEPENDS_ON_VALUES.search(str(e)) for e in (want, got)):
                    continue
                complaints.append(f"{name}({args}, {params}):\n   numpy  {said(want)}\n   {where}  {said(got, where)}")
    assert not complaints, f"{len(complaints)} calls differ\n" + "\n".join(complaints[:20])
    assert busy[0] == 0 and state.interpreter is None and state.grad  # nothing was left behind
    assert md.sum(md.ones((3,))).item() == 3.0


#: call of one or two tensors f32[2,3] and f32[4]: class and whole text
MESSAGES: list[tuple[Callable[..., Any], type, str]] = [
    (lambda x, y: x + y, ValueError, "add: shapes do not broadcast: f32[2,3], f32[4]; equal sizes or 1 are wanted on each axis from the right"),
    (lambda x, y: x @ y, ValueError, "matmul: inner dimensions differ: f32[2,3] @ f32[4] (3 != 4)"),
    (lambda x, y: md.sum(x, axis=5), IndexError, "sum: axis 5 is out of range for 2 dimensions"),
    (lambda x, y: md.sum(x, axis="a"), TypeError, "sum: axis must be an integer or a tuple of integers or None, not 'a'"),
    (lambda x, y: md.sum(x, keepdims="yes"), TypeError, "sum: keepdims must be True or False, not 'yes'"),
    (lambda x, y: md.sum(x, dtype="f33"), TypeError, "sum: dtype must be a dtype such as md.float32 or its name or None, not 'f33'"),
    (lambda x, y: md.reshape(x, (4, 2)), ValueError, "reshape: f32[2,3] has 6 elements, shape (4, 2) wants 8"),
    (lambda x, y: md.concat([x, y]), ValueError, "concat: shapes differ outside axis 0: f32[2,3], f32[4]"),
    (lambda x, y: md.where(x, x, x), TypeError, "where: expected bool where float32 came"),
    (lambda x, y: md.bitwise_and(x, 1), TypeError, "bitwise_and: dtype f32 is not supported; it wants an integer or bool dtype"),
    (lambda x, y: md.roll(x, "a"), TypeError, "roll: shift must be an integer or a sequence of integers, not 'a'"),
    (lambda x, y: md.tril(x, k=1.5), TypeError, "tril: k must be an integer, not 1.5"),
    (lambda x, y: md.topk(y, 9), ValueError, "topk: "),
    (lambda x, y: md.linalg.inv(x), ValueError, "inv: "),
    (lambda x, y: y[7], IndexError, "getitem: index 7 is out of bounds for axis 0 with size 4"),
    (lambda x, y: y["a"], IndexError, "indexing: str is no index"),
    (lambda x, y: x + "a", TypeError, "add: expected a Tensor, a Python number or a NumPy array, got 'a'; convert it with md.asarray"),
    (lambda x, y: md.broadcast_to(y, (2**40, 4)), MemoryError, "broadcast_to: f32[1099511627776,4] would take 1.64e+04 GiB"),
    (lambda x, y: md.zeros((10**6, 10**6, 10**6)), MemoryError, "full: f32[1000000,1000000,1000000] would take"),
    (lambda x, y: md.tile(y, (2**40,)), MemoryError, "tile: f32[4398046511104] would take"),
    (lambda x, y: md.pad(y, 2**40), MemoryError, "pad: f32[2199023255556] would take"),
    (lambda x, y: md.repeat(y, 2**40), MemoryError, "repeat: f32[4,1099511627776] would take"),
    (lambda x, y: md.arange(2**45), MemoryError, "iota: i64[35184372088832] would take"),
    (lambda x, y: md.astype(y, md.int32) << 2**40, OverflowError, "shift_left: the Python integer 1099511627776 does not fit int32"),
    (lambda x, y: md.cond(x, lambda: y, lambda: y), TypeError, "cond: the predicate must be one bool, not f32[2,3]"),
    (lambda x, y: md.while_loop(lambda c: c, lambda c: c, y), TypeError, "while_loop: the condition must be one bool, not f32[4]"),
    (lambda x, y: md.nn.functional.linear(x, y, 3), TypeError, "linear: bias must be a Tensor or None, not 3"),
    (lambda x, y: md.vjp(md.sin, x)[1]((x,)), ValueError, "vjp: the cotangent's structure differs from the output's"),
    (lambda x, y: md.vjp(md.sin, x)[1](y), ValueError, "vjp: cotangent f32[4] for output f32[2,3]; they must agree in shape"),
    (lambda x, y: md.jvp(md.sin, (x,), (y,)), ValueError, "jvp: tangent f32[4] for primal f32[2,3]; they must agree in shape"),
    (lambda x, y: md.jvp(md.sin, x, (x,)), TypeError, "jvp: primals and tangents are tuples of the same length"),
    (lambda x, y: md.jvp(md.sin, (x,), (x, x)), TypeError, "jvp: primals and tangents are tuples of the same length"),
    (lambda x, y: md.jvp(md.sin, (x,), ([x, x],)), ValueError, "jvp: the tangents' structure differs from the primals'"),
    (lambda x, y: md.jvp(lambda d: d["a"], ({"a": x},), ({"z": x},)), ValueError, "jvp: the tangents' structure differs from the primals'"),
    (lambda x, y: md.linearize(md.sin, x)[1]([x]), ValueError, "linearize: the tangents' structure differs from the primals'"),
    (lambda x, y: md.jvp(lambda x: 3, (x,), (x,)), TypeError, "jvp: outputs must be tensors, not int"),
    (lambda x, y: md.grad(md.sum, argnums=1)(x), ValueError, "grad: argnums 1 but 1 positional argument came"),
    (lambda x, y: md.grad(md.sum, argnums=(0, -3))(x, y), ValueError, "grad: argnums (0, -3) but 2 positional arguments came"),
    (lambda x, y: md.vmap(md.sin, in_axes=2)(x), ValueError, "vmap: axis 2 is out of range for the argument f32[2,3]"),
    (lambda x, y: md.vmap(md.sin, out_axes=None)(x), ValueError, "vmap: an output f32[3] differs between lanes, but out_axes is None for it"),
    (lambda x, y: md.vmap(md.sin, in_axes=None)(x), ValueError, "vmap: no argument is mapped; give at least one in_axes that is not None"),
    (lambda x, y: md.vmap(md.add)(x, y), ValueError, "vmap: the mapped axes differ in size: f32[2,3], f32[4] along in_axes 0"),
    (lambda x, y: md.grad(THREE)(x), TypeError, "custom_jvp: the rule must return what the function gives and its tangent, a tuple of two"),
]  # fmt: skip
THREE = md.custom_jvp(md.sum)
THREE.defjvp(lambda primals, tangents: (md.sum(primals[0]), md.sum(tangents[0]), 0.0))


def test_the_messages(backend):
    x, y = md.ones((2, 3)), md.ones((4,))
    for f, kind, text in MESSAGES:
        with pytest.raises(kind) as error:
            f(x, y)
        assert str(error.value).startswith(text), str(error.value)
        with pytest.raises(kind) as again:
            md.jit(f)(x, y)
        assert str(again.value) == str(error.value)
        line = f.__code__.co_firstlineno
        assert any(n.startswith("jit: while ") and n.endswith(f"{__file__}:{line}") for n in again.value.__notes__), again.value.__notes__


def test_huge_sizes_cost_nothing(backend):
    """The error comes before any memory is taken."""
    x = md.ones((4,))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for wrong in (lambda: md.zeros((2**40,)), lambda: md.eye(2**30), lambda: md.linspace(0, 1, 2**45), lambda: md.broadcast_to(x, (2**40, 4))):
        with pytest.raises(MemoryError):
            wrong()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**16  # KiB


def test_a_failing_call_leaves_its_operands_alone(backend):
    x = md.tensor([1.0, 2.0], requires_grad=True)
    for wrong in (lambda: x.assign(md.ones((3,))), lambda: x.copy_("a"), lambda: x.fill_("a"), lambda: x.__setitem__(5, 1.0)):
        with pytest.raises((TypeError, ValueError, IndexError, RuntimeError)), md.no_grad():
            wrong()
    y = (x * 2.0).sum()
    with pytest.raises(ValueError):
        x + md.ones((3,))
    y.backward()
    assert x.tolist() == [1.0, 2.0] and x.grad.tolist() == [2.0, 2.0]


def test_checked_is_for_everybody():
    """A function of the user's own gets the contract: annotated arguments, the name in front, and its own exceptions untouched."""

    @md.checked
    def scaled(x: Any, factor: float, times: int = 1) -> Any:
        """x times factor."""
        if times == 13:
            raise KeyError("mine")
        return x * factor * len(x.shape) * [1][times - 1]

    assert scaled.__doc__ == "x times factor." and list(inspect.signature(scaled).parameters) == ["x", "factor", "times"]
    assert scaled(md.ones((2,)), 3.0).tolist() == [3.0, 3.0]
    with pytest.raises(TypeError, match=r"^scaled: factor must be a real number, not 'a'$"):
        scaled(md.ones((2,)), "a")
    with pytest.raises(TypeError, match=r"^scaled: missing a required argument: 'factor'"):
        scaled(md.ones((2,)))
    with pytest.raises(ValueError, match=r"^scaled: cannot compute with x=f32\[2\], factor=1\.0, times=5"):
        scaled(md.ones((2,)), 1.0, 5)
    with pytest.raises(KeyError, match="mine"):
        scaled(md.ones((2,)), 1.0, 13)


class Mine(ValueError):
    """An exception of the user's."""


class Raising(list):
    """A user's sequence that fails when it is read."""

    def __iter__(self):
        raise Mine("mine") from Mine("cause")


def raising(*args: Any) -> Any:
    raise Mine("mine") from Mine("cause")


def accident(*args: Any) -> Any:
    return {}["mine"]


def test_what_is_raised_in_code_of_the_user_s_passes_unchanged():
    x = md.ones((1, 3))
    apart = md.nn.functional.triplet_margin_with_distance_loss
    for f in (
        lambda: md.concat(Raising([x])),
        lambda: md.concat(raising() for _ in range(2)),
        lambda: md.sum(md.stack(Raising([x]))),
        lambda: apart(x, x, x, distance_function=raising),
        lambda: md.cond(md.tensor(True), raising, raising, x),
        lambda: md.while_loop(raising, raising, x),
    ):
        with pytest.raises(Mine, match="^mine$") as error:
            f()
        assert str(error.value.__cause__) == "cause"
    with pytest.raises(KeyError, match="^'mine'$"):
        apart(x, x, x, distance_function=accident)
    with pytest.raises((TypeError, ValueError), match=r"^triplet_margin_with_distance_loss: cannot compute with") as wrong:
        apart(x, x, x, distance_function=lambda: x)  # it takes no two arguments
    assert "0 positional arguments" in str(wrong.value.__cause__)


SCRIPT = """
import sys
import minidl as md

class Mine(ValueError): pass
class Users(md.nn.Module):
    def forward(self, x): raise Mine("mine")
def hook(module, args): return {}["key"]

hooked = md.nn.ReLU()
hooked.register_forward_pre_hook(hook)
x = md.ones((2,))
for f in (
    lambda: md.nn.Sequential(Users())(x),
    lambda: hooked(x),
    lambda: md.nn.functional.triplet_margin_with_distance_loss(x, x, x, distance_function=hook),
    lambda: md.reshape(x, (3,)), lambda: md.nn.Embedding(3, 2)(md.tensor([5])), lambda: md.nn.Linear(3, 2)(x), lambda: x["a"],
    lambda: md.tril(x, k="a"), lambda: md.concat([x, md.ones((2, 2))]),
):
    try:
        f()
    except Exception as error:
        print(type(error).__name__, error, sep=": ")
"""


def test_folders_may_have_names_of_libraries(tmp_path):
    """Where minidl lies and where the user's files lie, such names say nothing of whose an exception is."""
    package = os.path.dirname(os.path.abspath(md.__file__))
    said = []
    for script, home in (("lessons", "lib"), ("jax-lessons", "torch"), ("torch", "site-packages/numpy")):
        root = tmp_path / f"{script}-at-{home.replace('/', '-')}"
        (root / script).mkdir(parents=True)
        (root / "env" / home).mkdir(parents=True)
        (root / "env" / home / "minidl").symlink_to(package, target_is_directory=True)
        (root / script / "lesson.py").write_text(SCRIPT)
        env = {**os.environ, "PYTHONPATH": str(root / "env" / home), "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run([sys.executable, str(root / script / "lesson.py")], env=env, capture_output=True, text=True, cwd=tmp_path, check=True)
        said.append(done.stdout.splitlines())
    assert said[0] == said[1] == said[2]
    assert said[0][:2] == ["Mine: mine", "KeyError: 'key'"] and said[0][3].startswith("ValueError: reshape: ")
    assert not any("cannot compute" in line for line in said[0][:2] + said[0][3:]), said[0]


SETTINGS = ["abc", None, (2, 3), (1.0,), [], 1j, Odd(), {}, md.float32]


def test_optimizers_name_the_setting_that_is_of_another_kind():
    """Every optimizer, every setting that has a number, a flag or numbers for a default."""
    tried = 0
    for name in md.optim.__all__:
        kind = getattr(md.optim, name)
        if not inspect.isclass(kind) or not issubclass(kind, md.optim.Optimizer) or kind is md.optim.Optimizer:
            continue
        with pytest.raises(TypeError, match=rf"^{name}: params is an iterable of tensors or of dicts, not 3$"):
            kind(3)
        for parameter in inspect.signature(kind).parameters.values():
            if type(parameter.default) is not float:
                continue
            for value in SETTINGS:
                with pytest.raises((TypeError, ValueError)) as error:
                    kind([md.tensor([1.0, 2.0], requires_grad=True)], **{parameter.name: value})
                assert own(error.value) and parameter.name in str(error.value), str(error.value)
                tried += 1
    assert tried > 200
    for betas in (0.9, (0.9,), (0.9, "a"), None, Odd()):
        with pytest.raises(TypeError, match=r"^Adam: betas must be 2 numbers, not "):
            md.optim.Adam([md.tensor([1.0, 2.0], requires_grad=True)], betas=betas)


def test_no_thread_sees_a_contract_half_made():
    def bad_k(f):
        with pytest.raises(TypeError) as error:
            f(1, "abc")
        texts.append(str(error.value))

    def at_step(k):
        """Whether beginning has a k-th step; there a thread comes in between."""
        exec("def move(x: Any, k: int = 0): return x", space := {"Any": object})
        space["move"].__annotations__ = {"x": "Any", "k": "int"}
        f, steps = checked(space["move"]), iter(range(k + 1))

        def trace(frame, event, _):
            if frame.f_code.co_name != "begin":
                return trace if frame.f_code.co_name == "move" and event == "call" else None
            frame.f_trace_opcodes = True
            if event == "opcode" and next(steps, None) == k:
                thread = threading.Thread(target=bad_k, args=(f,))
                thread.start()
                thread.join()
            return trace

        before, count = sys.gettrace(), len(texts)
        sys.settrace(trace)
        try:
            f(1)
        finally:
            sys.settrace(before)
        return len(texts) > count

    texts: list[str] = []
    steps = 0
    while at_step(steps):
        steps += 1
    assert steps > 5 and set(texts) == {"move: k must be an integer, not 'abc'"}
