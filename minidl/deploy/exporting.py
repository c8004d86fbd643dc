"""export: a model as one readable Python file and one .npz of its constants, which need NumPy alone and nothing of minidl.

Promises: the file computes what the numpy backend computes, from the same kernels; it says what it takes, and complains of anything else; the two
files appear whole or not at all; only arrays are stored, so nothing is executed when they are read (allow_pickle=False).
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import minidl as md
from minidl.deploy.freezing import Frozen, evaluating, unchanging

_FILE = '''"""{title}, for NumPy.

{name}({arguments}) takes
{takes}
and returns {result}.

Needs NumPy and the file {npz} beside this one..

    from {stem} import {name}
    out = {name}({arguments})
"""

{program}

with np.load(Path(__file__).with_suffix(".npz"), allow_pickle=False) as _file:
    _constants = {{k: _file[k] for k in _file.files}}


def _taken(name, value, shape, dtype):
    """The argument as an array, if it is what the program was made for."""
    value = np.asarray(value)
    if value.dtype != dtype or value.ndim != len(shape) or any(w is not None and w != s for w, s in zip(shape, value.shape)):
        want = ", ".join("n" if s is None else str(s) for s in shape)
        raise ValueError(f"{name}: {{name}} is {{value.dtype}}{{list(value.shape)}}, and {{np.dtype(dtype)}}[{{want}}] is wanted")
    return value


def {name}({arguments}):
    """Compute {result}; see the head of this file."""
{checks}
    {outs}= _program({values})
    return {result}
'''


def export(
    f: Callable[..., Any], args: Any, path: str | os.PathLike[str], *, name: str = "predict", dynamic_batch: bool = False
) -> tuple[Path, Path]:
    """Write f, a Module or a function of tensors, to `path` (a Python file) and the .npz file beside it; returns both paths.

    args: a tuple of example arguments (pytrees of tensors of the numpy backend or another), which fix shapes and dtypes. The file's function `name`
    takes NumPy arrays in the same places and returns NumPy arrays in f's structure, of tuples, lists and dicts. dynamic_batch: the first axis of
    every array may then have any size; shapes are static otherwise. Constants have the names of the model's state_dict, and are those of now. To
    compute what can be computed beforehand, export `md.freeze(model)`.

    Raises ValueError for a Module in training mode, for a function that changes state, for a name that is none, for a function that depends on the
    number of examples in more than sizes (dynamic_batch); TypeError for a result that is no tuple, list, dict or tensor, and for bfloat16, which
    NumPy alone does not have.

    >>> import minidl as md, tempfile, runpy
    >>> from minidl import nn
    >>> model = nn.Linear(3, 2).eval()
    >>> x = md.ones((4, 3))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file, constants = export(model, (x,), f"{folder}/model.py", dynamic_batch=True)
    ...     predict = runpy.run_path(str(file))["predict"]
    >>> bool(abs(predict(x.numpy()[:2]) - model(x[:2]).detach().numpy()).max() < 1e-6)
    True
    """
    evaluating("export", f)
    path = Path(path)
    path = path if path.suffix == ".py" else path.with_name(path.name + ".py")
    if not name.isidentifier() or not path.stem.isidentifier():
        raise ValueError(f"export: {name!r} in {path.name!r} could not be imported; give a name and a file name of letters, digits and underscores")
    args = args if isinstance(args, tuple) else (args,)
    leaves, structure = md.tree.flatten(args)
    for x in leaves:
        if not isinstance(x, md.Tensor):
            raise TypeError(f"export: example arguments are tensors, and a {type(x).__name__} came; close over it, or pass md.asarray of it")
    if dynamic_batch and (not leaves or any(x.ndim == 0 or x.shape[0] != leaves[0].shape[0] for x in leaves)):
        raise ValueError(f"export: dynamic_batch wants arrays with one first axis, and {', '.join(str(x.shape) for x in leaves)} came")
    found: list[Any] = []

    def flat(*xs: md.Tensor) -> list[md.Tensor]:
        outs, out_structure = md.tree.flatten(f(*md.tree.unflatten(structure, xs)))
        found[:] = [out_structure]
        return outs

    def traced(n: int | None) -> md.Graph:
        inputs = leaves if n is None else [md.zeros((n, *x.shape[1:]), dtype=x.dtype, backend=x.backend, device=x.device) for x in leaves]
        with md.no_grad():
            return unchanging("export", md.trace(flat)(*inputs))

    batch = max(2, leaves[0].shape[0]) if dynamic_batch else None  # not 1, which broadcasts
    graph = traced(batch)
    larger = traced(batch + 1) if batch else None
    texts = [p for i, a in enumerate(args) for p in _paths(a, "abcdefghijklmnopqrstuvwxyz"[i] if len(args) > 1 else "x")]
    names = _names(f, graph.captured, {t for t in texts if t.isidentifier()})
    inner = [*(f"x{i}" if len(texts) > 1 else "x" for i in range(len(texts))), *(_identifier(n) for n in names)]
    body = graph.to_python("_program", inner, larger)
    result = md.tree.source(found[0], (f"out{i}" for i in range(len(graph.outputs))))
    if result is None:
        raise TypeError(f"export: the function returns {found[0].kind.__name__}; return tensors in tuples, lists and dicts of str or int")
    shapes = [("n", *x.shape[1:]) if dynamic_batch else tuple(x.shape) for x in leaves]
    npz = path.with_suffix(".npz")
    checks = []
    for own, text, x, shape in zip(inner, texts, leaves, shapes, strict=False):
        want = "".join("None, " if s == "n" else f"{s}, " for s in shape)
        checks.append(f"    {own} = _taken({text!r}, {text}, ({want}), np.{'bool_' if x.dtype.kind == 'bool' else x.dtype.name})")
    if dynamic_batch and len(leaves) > 1:
        checks.append(f"    if len({{{', '.join(f'len({own})' for own in inner[: len(leaves)])}}}) != 1:")
        checks.append(f'        raise ValueError("{name}: the first axes of the arguments differ in size")')
    takes = [f"    {t}: {x.dtype.name}[{', '.join(map(str, s))}]" for t, x, s in zip(texts, leaves, shapes, strict=True)]
    text = _FILE.format(
        title=getattr(f, "__name__", type(f).__name__), name=name, arguments=", ".join(dict.fromkeys(t.partition("[")[0] for t in texts)),
        takes="\n".join(takes) or "    nothing", result=result, npz=npz.name, stem=path.stem, checks="\n".join(checks),
        program=body.replace("import numpy as np", "from pathlib import Path\n\nimport numpy as np", 1),
        outs="".join(f"out{i}, " for i in range(len(graph.outputs))),
        values=", ".join([*inner[: len(texts)], *(f"_constants[{n!r}]" for n in names)]),
    )  # fmt: skip
    constants = {n: md.asarray(c).detach().numpy() for n, c in zip(names, graph.captured, strict=True)}
    _write(path, npz, text, constants)
    return path, npz


def _paths(tree: Any, text: str) -> Iterator[str]:
    """How each leaf of an argument is reached."""
    if isinstance(tree, md.Tensor):
        yield text
    elif isinstance(tree, dict):
        for k in sorted(tree):
            yield from _paths(tree[k], f"{text}[{k!r}]")
    elif type(tree) in (tuple, list):
        for i, v in enumerate(tree):
            yield from _paths(v, f"{text}[{i}]")
    elif tree is not None:
        raise TypeError(f"export: arguments are tensors in tuples, lists and dicts, and a {type(tree).__name__} came")


def _identifier(name: str) -> str:
    text = "".join(c if c.isalnum() else "_" for c in name)
    return text if len(text) > 2 and not text[0].isdigit() else f"c_{text}"


def _names(f: Any, captured: Any, taken: set[str]) -> list[str]:
    """A name for each constant: the state_dict's where the model has one, else c0, c1, …; different as identifiers, too."""
    known: dict[int, str] = {}
    for module in (f, getattr(f, "__self__", None), *(c.cell_contents for c in getattr(f, "__closure__", None) or ())):
        if hasattr(module, "named_parameters") and not isinstance(f, Frozen):
            for key, value in (*module.named_parameters(), *module.named_buffers()):
                known.setdefault(id(value), key)
    out: list[str] = []
    for i, c in enumerate(captured):
        name = known.get(id(c), f"c{i}")
        while _identifier(name) in {*taken, *map(_identifier, out)}:
            name += "_"
        out.append(name)
    return out


def _write(path: Path, npz: Path, text: str, arrays: dict[str, Any]) -> None:
    """Both files, the constants first; each under another name until it is whole."""
    import numpy as np

    path.parent.mkdir(parents=True, exist_ok=True)
    made: list[tuple[str, Path]] = []
    try:
        for target in (npz, path):
            handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{target.name}.")
            made.append((name, target))
            with os.fdopen(handle, "wb") as file:
                if target is npz:
                    np.savez(file, **arrays)
                else:
                    file.write(text.encode())
        for name, target in made:
            os.chmod(name, 0o644)
            os.replace(name, target)
    finally:
        for name, _ in made:
            Path(name).unlink(missing_ok=True)
