"""Mutation testing: change one thing at a time in a file of minidl, and see whether the tests that should notice do.

    python tests/mutation.py minidl/primitives/elementwise.py --count 40 --seed 1 -- tests/conventions -k "numpy and functional"

prints a line for each mutant that no test noticed, and the share that was killed. Everything happens in a copy of the tree, with a cache directory of
its own. A survivor is an equivalent program (a symmetric argument, an optimisation lost), or a hole in the tests; which, a person says. The tests
must pass without a change, or nothing is measured. Not part of the suite: at night, a file at a time.

Method: R. DeMillo, R. Lipton and F. Sayward, Hints on test data selection (Computer 1978).
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import os
import random
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
BINARY: dict[type, tuple[str, str]] = {
    ast.Add: ("+", "-"), ast.Sub: ("-", "+"), ast.Mult: ("*", "/"), ast.Div: ("/", "*"), ast.FloorDiv: ("//", "*"), ast.Mod: ("%", "//"),
    ast.BitAnd: ("&", "|"), ast.BitOr: ("|", "&"), ast.LShift: ("<<", ">>"), ast.RShift: (">>", "<<"), ast.BitXor: ("^", "|"),
    ast.Lt: ("<", "<="), ast.LtE: ("<=", "<"), ast.Gt: (">", ">="), ast.GtE: (">=", ">"), ast.Eq: ("==", "!="), ast.NotEq: ("!=", "=="),
    ast.Is: ("is", "is not"), ast.IsNot: ("is not", "is"), ast.In: ("in", "not in"), ast.NotIn: ("not in", "in"),
}  # fmt: skip
OTHER = dict(pair for a, b in (
    ("logical_and", "logical_or"), ("maximum", "minimum"), ("cos", "sin"), ("any", "all"), ("max", "min"), ("isinf", "isnan"), ("ceil", "floor"),
    ("tril", "triu"), ("real", "imag"),
) for pair in ((a, b), (b, a)))  # fmt: skip
#: Calls that a mutant leaves out, keeping what they were given.
LEFT_OUT = frozenset("conj cast neg abs sorted reversed _where0 logical_not flip detach copy".split())
KEYWORDS = frozenset("keepdims exact only promote joins others".split())


@dataclasses.dataclass(frozen=True)
class Mutant:
    """The bytes from start to stop become text."""

    line: int
    kind: str
    start: int
    stop: int
    old: str
    text: str

    def __str__(self) -> str:
        return f"{self.line}: {self.kind}: {self.old!r} -> {self.text!r}"


def mutants(source: str) -> list[Mutant]:
    """Every single change of a module that still compiles."""
    data = source.encode()
    starts = [0]
    for line in data.split(b"\n"):
        starts.append(starts[-1] + len(line) + 1)

    def at(n: ast.expr | ast.stmt) -> tuple[int, int]:
        assert n.end_lineno and n.end_col_offset is not None
        return starts[n.lineno - 1] + n.col_offset, starts[n.end_lineno - 1] + n.end_col_offset

    def text(n: ast.expr) -> str:
        return data[slice(*at(n))].decode()

    def changes(n: ast.AST) -> Iterator[tuple[str, int, int, str]]:
        if isinstance(n, (ast.BinOp, ast.Compare)):
            op, right = (n.op, n.right) if isinstance(n, ast.BinOp) else (n.ops[0], n.comparators[0])
            a, b = at(n.left)[1], at(right)[0]
            if type(op) in BINARY:
                yield "operator", a, b, data[a:b].decode().replace(*BINARY[type(op)], 1)
            if isinstance(n, ast.BinOp):
                yield "right operand left out", *at(n), text(n.left)
                if isinstance(n.op, (ast.Add, ast.Mult)):
                    yield "left operand left out", *at(n), text(n.right)
        elif isinstance(n, ast.UnaryOp):
            yield "sign or not left out", *at(n), f"({text(n.operand)})"
        elif isinstance(n, ast.BoolOp):
            word = " and " if isinstance(n.op, ast.And) else " or "
            for k in range(len(n.values)):
                yield "condition left out", *at(n), "(" + word.join(f"({text(v)})" for i, v in enumerate(n.values) if i != k) + ")"
        elif isinstance(n, (ast.If, ast.IfExp)):
            yield "always", *at(n.test), "True"
            yield "never", *at(n.test), "False"
        elif isinstance(n, ast.Constant) and isinstance(n.value, (bool, int, float)):
            v = n.value
            yield "constant", *at(n), repr(not v if isinstance(v, bool) else v + 1 if isinstance(v, int) else 2 * v if v else 1.0)
        elif isinstance(n, ast.Call):
            name = n.func.attr if isinstance(n.func, ast.Attribute) else n.func.id if isinstance(n.func, ast.Name) else ""
            if name in OTHER and n.args:
                yield "function", at(n.func)[1] - len(name), at(n.func)[1], OTHER[name]
            if name in LEFT_OUT and n.args:
                yield "call left out", *at(n), f"({text(n.args[-1 if name == '_where0' else 0])})"
            if len(n.args) > 1 and not any(isinstance(a, ast.Starred) for a in n.args) and name not in ("isinstance", "getattr", "hasattr"):
                (a, b), (c, d) = at(n.args[-2]), at(n.args[-1])
                yield "arguments swapped", a, d, (data[c:d] + data[b:c] + data[a:b]).decode()
            for k in n.keywords:
                comma = data.rfind(b",", 0, starts[k.lineno - 1] + k.col_offset)
                if k.arg in KEYWORDS and comma > at(n)[0]:
                    yield "keyword left out", comma, at(k.value)[1], ""
        elif isinstance(n, ast.Raise) or (isinstance(n, ast.Expr) and isinstance(n.value, ast.Call)):
            yield "statement left out", *at(n), "pass"

    found: dict[tuple[int, int, str], Mutant] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for n in ast.walk(ast.parse(source)):
            for kind, start, stop, new in changes(n):
                if data[start:stop] == new.encode():
                    continue
                try:
                    compile(data[:start] + new.encode() + data[stop:], "<mutant>", "exec")
                except (SyntaxError, ValueError):
                    continue
                found.setdefault((start, stop, new), Mutant(data.count(b"\n", 0, start) + 1, kind, start, stop, data[start:stop].decode(), new))
    return sorted(found.values(), key=lambda m: (m.start, m.stop, m.text))


def main() -> None:
    from tqdm import tqdm

    parser = argparse.ArgumentParser(description="Mutation testing of one file by the tests that follow --; see the docstring of tests/mutation.py.")
    parser.add_argument("file")
    parser.add_argument("--count", type=int, default=50, help="how many mutants, drawn from all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--timeout", type=float, default=300.0, help="seconds for one run of the tests; a mutant that takes longer is killed")
    given = sys.argv[1:]
    cut = given.index("--") if "--" in given else len(given)
    options, tests = parser.parse_args(given[:cut]), given[cut + 1 :]
    source = (ROOT / options.file).read_bytes()
    drawn = mutants(source.decode())
    total = len(drawn)
    drawn = random.Random(options.seed).sample(drawn, min(options.count, total))
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        shutil.copytree(ROOT, tree, symlinks=True, ignore=shutil.ignore_patterns(".git", "__pycache__", ".venv*", "build", "dist"))
        env = os.environ | {"PYTHONPATH": str(tree), "MINIDL_CACHE": str(Path(folder) / "cache"), "PYTHONDONTWRITEBYTECODE": "1"}
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]

        def passes() -> bool:
            try:
                return subprocess.run(command, cwd=tree, env=env, capture_output=True, timeout=options.timeout).returncode == 0
            except subprocess.TimeoutExpired:
                return False

        before = subprocess.run(command, cwd=tree, env=env, capture_output=True, text=True)
        if before.returncode:
            raise SystemExit(f"mutation: the tests do not pass without a change\n{before.stdout[-2000:]}{before.stderr[-2000:]}")
        survived = []
        for m in tqdm(drawn):
            (tree / options.file).write_bytes(source[: m.start] + m.text.encode() + source[m.stop :])
            if passes():
                survived.append(m)
                tqdm.write(f"survived: {options.file}:{m}")
    killed = len(drawn) - len(survived)
    print(f"{options.file}: {killed} of {len(drawn)} mutants killed ({killed / max(len(drawn), 1):.0%}), drawn from {total} with seed {options.seed}")


if __name__ == "__main__":
    main()
