"""`python docs/reference.py` writes docs/reference/: a page for each room of minidl, from the docstrings, and an index.

What a page says of a name is its signature and its docstring (shapes, dtypes, errors, an example), and what two other sources say of its derivative:
the table of primitives (which arguments have one) and md.testing.KINKS (the value and the derivative at every kink, pole and tie).
Nothing is written down twice. Rooms are found, not listed: whatever `minidl` offers, and the modules that a room offers in turn.

Every example starts after `import minidl as md` (a bare name in it is of the room itself) and runs as a doctest on every backend, see
tests/test_docs.py. tests/test_reference.py fails where a page is older than its docstrings.
"""

from __future__ import annotations

import importlib
import inspect
import re
import sys
import types
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PAGES = ROOT / "docs" / "reference"
sys.path[:0] = [path for path in (str(ROOT), str(ROOT / "tests")) if path not in sys.path]

import minidl as md  # noqa: E402
from minidl.ops.elementwise import _TABLE  # noqa: E402
from minidl.primitives import table  # noqa: E402

#: The chapters of the page of `minidl` itself: the module that a name comes from → the title; the rest is under the last one.
CHAPTERS = {
    "minidl.ops.creation": "Creation",
    "minidl.arrays.grids": "Creation",
    "minidl.ops.elementwise": "Element by element",
    **dict.fromkeys(("minidl.arrays.elementwise", "minidl.arrays.special"), "Element by element"),
    "minidl.ops.reductions": "Reductions and running sums",
    "minidl.arrays.statistics": "Reductions and running sums",
    "minidl.ops.manipulation": "Shape and order",
    "minidl.arrays.shaping": "Shape and order",
    "minidl.ops.indexing": "Indexing",
    "minidl.arrays.sorting": "Sorting and sets",
    "minidl.arrays.sets": "Sorting and sets",
    "minidl.ops.linear": "Products",
    "minidl.arrays.products": "Products",
    "minidl.einstein": "Products",
    "minidl.arrays.windows": "Windows",
    "minidl.arrays.composites": "Composites",
    "minidl.inspection": "Dtypes",
    "minidl.transforms": "Transforms",
    "minidl.jacobians": "Transforms",
    "minidl.batching": "Transforms",
    "minidl.custom": "Transforms",
    "minidl.checkpointing": "Transforms",
    "minidl.autograd": "Transforms",
    **dict.fromkeys(("minidl.control.scans", "minidl.control.loops", "minidl.control.branches"), "Control flow"),
    "minidl.jitting": "Tracing and compiling",
    "minidl.explanation": "Tracing and compiling",
    "minidl.tracing": "Tracing and compiling",
    "minidl.graph": "Tracing and compiling",
    "minidl.profiling": "Tracing and compiling",
}
OTHER = "Tensors, backends and settings"


def rooms() -> dict[str, types.ModuleType]:
    """Public name → module: minidl, the rooms that it loads when asked, and what those offer as modules."""
    found: dict[str, types.ModuleType] = {}

    def walk(name: str, module: types.ModuleType) -> None:
        if name not in found and hasattr(module, "__all__"):
            found[name] = module
            for n in module.__all__:
                if isinstance(value := getattr(module, n), types.ModuleType) and value.__name__.startswith("minidl."):
                    walk(f"{name}.{n}", value)

    walk("md", md)
    for name in md._SATELLITES:
        walk(f"md.{name}", importlib.import_module(f"minidl.{name}"))
    return found


def entries(module: types.ModuleType) -> Iterator[tuple[str, Any]]:
    """The names that a room documents: functions and classes. Dtypes, modules and other values explain themselves."""
    for name in sorted(module.__all__):
        value = getattr(module, name)
        if callable(value) and not isinstance(value, types.ModuleType):
            yield name, value


def signature(name: str, value: Any, method: bool = False) -> str:
    """`softmax(x, /, axis=-1)`; annotations are left to the docstring, which says more. A method is shown without the object it belongs to."""
    own = inspect.unwrap(value) if inspect.isroutine(value) else value
    if getattr(own, "__module__", "") == "minidl.ops.elementwise" and own.__name__ in _TABLE:  # whose own is filled in at the first call
        return f"{name}({', '.join(table[_TABLE[own.__name__][0]].args[method:])}, /)"
    try:
        found = inspect.signature(value)
    except (TypeError, ValueError):
        return f"{name}(...)"
    bare = [p.replace(annotation=p.empty) for p in found.parameters.values()]
    if method and bare and bare[0].kind in (bare[0].POSITIONAL_ONLY, bare[0].POSITIONAL_OR_KEYWORD):
        bare = bare[1:]
    text = str(found.replace(parameters=bare, return_annotation=found.empty))
    return name + re.sub(r"<(?:function|class) '?([\w.]+)'?(?: at 0x[0-9a-f]+)?>", r"\1", text)


def owner(value: Any) -> Any:
    """What is documented: the class of an object such as md.map's result of a decorator, or the thing itself."""
    return value if inspect.isclass(value) or inspect.isroutine(value) or value.__doc__ else type(value)


def body(text: str) -> str:
    """A docstring as Markdown: examples and what stands indented as code, the rest as it is."""
    out: list[str] = []
    for block in re.split(r"\n\s*\n", text.strip("\n")):
        lines = block.split("\n")
        if any(line.lstrip().startswith(">>>") for line in lines):
            start = next(i for i, line in enumerate(lines) if line.lstrip().startswith(">>>"))
            if start:
                out.append("\n".join(lines[:start]))
            shown = [line for line in inspect.cleandoc("\n".join(lines[start:])).split("\n") if line.strip() != ">>> import minidl as md"]
            if shown:
                out.append("```pycon\n" + "\n".join(shown) + "\n```")
        elif all(line.startswith("    ") for line in lines):
            out.append("```text\n" + inspect.cleandoc(block) + "\n```")
        else:
            out.append(re.sub(r"\n(?!\s*[-*|])\s*", "\n", block))
    return re.sub(r"\n```\n\n```pycon\n", "\n\n", "\n\n".join(out))


# ---- derivatives ------------------------------------------------------------------------------------------------------------------------
@cache
def kinks() -> dict[str, list[Any]]:
    """Function name → the cases of the gradient law that are about it."""
    found: dict[str, list[Any]] = {}
    for kink in md.testing.KINKS:
        found.setdefault(re.match(r"[\w.]*", kink.name)[0], []).append(kink)  # type: ignore[index]
    return found


#: Public names of primitives that are called otherwise.
_PRIMITIVE = {name: row[0] for name, row in _TABLE.items()} | {
    "cumulative_sum": "cumsum", "cumulative_prod": "cumprod", "cumulative_max": "cummax", "cumulative_min": "cummin",
    "cumulative_logsumexp": "cumlogsumexp", "permute_dims": "permute",
}  # fmt: skip


def derivative(name: str, value: Any) -> Iterator[str]:
    """Lines on the derivative of an array function, from the table of primitives and that of kinks."""
    of_arrays = getattr(value, "__module__", "").startswith(("minidl.ops", "minidl.arrays", "minidl.linalg"))
    primitive = table.get(_PRIMITIVE.get(name, name)) if of_arrays else None
    if primitive is not None and not primitive.variadic:
        live = [a for i, a in enumerate(primitive.args) if primitive.vjps[i] is not None]
        if not live:
            yield "*Derivative:* none; the result is constant in its arguments."
        elif all(rule == "linear" for rule in primitive.jvps):
            yield "*Derivative:* linear, so it is its own tangent map."
        elif len(live) < len(primitive.args):
            yield f"*Derivative:* in {', '.join(f'`{a}`' for a in live)}."
    for kink in kinks().get(name, ()):
        yield f"- `{kink.name}`: value {_number(kink.value)}, derivative {', '.join(map(_number, kink.vjp))}"


def _number(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_number, value))}]"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


# ---- classes ------------------------------------------------------------------------------------------------------------------------------
def members(value: Any) -> Iterator[str]:
    """Lines on the public methods and properties that a class defines itself, or takes from a class that has no entry of its own."""
    if not inspect.isclass(value):
        return
    for name in md.__all__ if value is md.Tensor else ():
        getattr(value, name, None)  # some methods are found when first asked for
    owners = [c for c in value.__mro__ if c is value or (c.__module__.startswith("minidl.") and c.__name__.startswith("_"))]
    names = {n: m for c in reversed(owners) for n, m in vars(c).items() if not n.startswith("_") and not inspect.isclass(m)}
    if value is md.Tensor:  # what is only another name is in torch_names.md
        names = {n: m for n, m in names.items() if n not in md.idioms.METHODS}
    same = sorted(n for n, m in names.items() if value is md.Tensor and n in md.__all__ and inspect.getdoc(m) == inspect.getdoc(getattr(md, n)))
    if same:
        yield f"- As the functions of `md` with the tensor in the first place: {', '.join(f'`.{n}`' for n in same)}."
    functions = {inspect.getdoc(v): v for _, v in entries(md)} if value is md.Tensor else {}
    for name, member in sorted(names.items()):
        if name in same:
            continue
        alone, member = isinstance(member, staticmethod), getattr(member, "__func__", member)
        if not (inspect.isfunction(member) or isinstance(member, property)) or not (doc := inspect.getdoc(member)):
            continue
        shown = name if isinstance(member, property) else signature(name, functions.get(doc, member), not alone)
        first = doc.split("\n\n")[0].replace("\n", " ")
        yield f"- `.{shown}`: {first}"


# ---- pages ------------------------------------------------------------------------------------------------------------------------------
def entry(room: str, name: str, value: Any) -> str:
    """One name of a page."""
    parts = [f"### `{room}.{signature(name, value)}`", body(inspect.getdoc(owner(value)) or "")]
    if lines := list(derivative(name, value)):
        parts.append("\n".join(lines if lines[0].startswith("-") or len(lines) == 1 else [lines[0], "", *lines[1:]]))
    if lines := list(members(value)):
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def page(room: str, module: types.ModuleType) -> str:
    """The page of a room."""
    title = "minidl" if room == "md" else room
    text = [f"# {title}", body(inspect.getdoc(module) or "")]
    names = list(entries(module))
    if room != "md":
        return "\n\n".join([*text, *(entry(room, n, v) for n, v in names)]) + "\n"
    for chapter in dict.fromkeys([*CHAPTERS.values(), OTHER]):
        some = [(n, v) for n, v in names if CHAPTERS.get(getattr(inspect.unwrap(v), "__module__", ""), OTHER) == chapter]
        text += [f"## {chapter}", *(entry(room, n, v) for n, v in some)] if some else []
    return "\n\n".join(text) + "\n"


def file_of(room: str) -> str:
    """`md.nn.functional` → `nn.functional.md`."""
    return ("minidl" if room == "md" else room.removeprefix("md.")) + ".md"


def pages() -> dict[str, str]:
    """File name → text, the index among them."""
    made = "Made by `python docs/reference.py` from the docstrings. Examples start after `import minidl as md`; a bare name is of the room itself."
    out, lines = {}, ["# Reference", made, ""]
    for room, module in rooms().items():
        out[file_of(room)] = page(room, module)
        first = (inspect.getdoc(module) or "").split("\n\n")[0].replace("\n", " ")
        lines += [f"## [{'minidl' if room == 'md' else room}]({file_of(room)})", "", first, ""]
        lines += [", ".join(f"`{name}`" for name, _ in entries(module)) + ".", ""]
    return {"README.md": "\n".join([lines[0], "", *lines[1:]]).rstrip() + "\n", **out}


def stale() -> list[str]:
    """The names of the pages that are missing, old, or of no room any more."""
    wanted = pages()
    on_disk = {p.name for p in PAGES.glob("*.md")}
    changed = [n for n, text in wanted.items() if n not in on_disk or (PAGES / n).read_text(encoding="utf-8") != text]
    return sorted([*changed, *(on_disk - wanted.keys())])


def main() -> int:
    """Write the pages that changed, delete those of no room; 0."""
    PAGES.mkdir(parents=True, exist_ok=True)
    wanted = pages()
    for name in stale():
        if name in wanted:
            (PAGES / name).write_text(wanted[name], encoding="utf-8")
        else:
            (PAGES / name).unlink()
        print(f"docs/reference/{name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
