"""export: a model as one readable Python file and one .npz of its constants, which need NumPy alone and nothing of minidl.

Promises: the file computes what the numpy backend computes, from the same kernels; it says what it takes, and complains of anything else, also of
constants that are not its own; the two files appear whole or not at all; only arrays are stored, so nothing is executed when they are read
(allow_pickle=False).
"""

from __future__ import annotations

import functools
import keyword
import os
import zlib
from collections.abc import Callable
from pathlib import Path
from symtable import symtable
from typing import Any

import numpy as np

import minidl as md
from minidl.deploy.program import identifier, program

_FILE = '''"""{title}, for NumPy.

{name}({arguments}) takes
{takes}
and returns {result}.

Needs NumPy 2 and the file {npz} beside this one..

    from {stem} import {name}
    out = {name}({arguments})
"""

{program}

_npz = Path(__file__).with_suffix(".npz")
if zlib.crc32(_npz.read_bytes()) != {{check}}:
    raise ValueError(f"{{_npz}}: not the constants of this program, which one call of md.export wrote; export both again")
with np.load(_npz, allow_pickle=False) as _file:
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
    takes NumPy arrays in the same places and returns NumPy arrays in f's structure, of tuples (also for namedtuples), lists and dicts. dynamic_batch:
    the first axis of every array may then have any size; shapes are static otherwise. Constants have the names of the model's state_dict, and are
    those of now. To compute what can be computed beforehand, export `md.freeze(model)`.

    Raises ValueError for a Module in training mode, for a function that changes state, for a name that is none or that the file needs itself, for a
    function that depends on the number of examples in more than sizes and whole multiples of them (dynamic_batch); TypeError for a result that is no
    tuple, list, dict or tensor, and for bfloat16, which NumPy alone does not have.

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
    path = Path(path)
    path = path if path.suffix == ".py" else path.with_name(path.name + ".py")
    if not name.isidentifier() or keyword.iskeyword(name) or not path.stem.isidentifier():
        raise ValueError(f"export: {name!r} in {path.name!r} could not be imported; give a name and a file name of letters, digits and underscores")
    made = program("export", f, args, dynamic_batch)
    graph, leaves, texts, names = made.graph, made.leaves, made.paths, made.names
    inner = [*(f"x{i}" if len(texts) > 1 else "x" for i in range(len(texts))), *(identifier(n) for n in names)]
    used = _used(symtable(graph.to_python("_program", [f"_in{i}" for i in range(len(inner))], made.larger), path.name, "exec"))
    for i in range(len(inner)):  # a buffer may be called what a kernel is
        while keyword.iskeyword(inner[i]) or inner[i] in used.union(inner[:i]):
            inner[i] += "_"
    body = graph.to_python("_program", inner, made.larger)
    result = md.tree.source(_unnamed(made.result), (f"out{i}" for i in range(len(graph.outputs))))
    if result is None:
        raise TypeError(f"export: the function returns {made.result.kind.__name__}; return tensors in tuples, lists and dicts of str or int")
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
    write = functools.partial(
        _FILE.format, title=getattr(f, "__name__", type(f).__name__), arguments=", ".join(dict.fromkeys(t.partition("[")[0] for t in texts)),
        takes="\n".join(takes) or "    nothing", result=result, npz=npz.name, stem=path.stem, checks="\n".join(checks),
        program=body.replace("import numpy as np", "import zlib\nfrom pathlib import Path\n\nimport numpy as np", 1),
        outs="".join(f"out{i}, " for i in range(len(graph.outputs))),
        values=", ".join([*inner[: len(texts)], *(f"_constants[{n!r}]" for n in names)]),
    )  # fmt: skip
    if name in _used(symtable(write(name="_"), path.name, "exec")):
        raise ValueError(f"export: the file itself uses the name {name!r}; give its function another one")
    text = write(name=name)
    _write(path, npz, text, made.constants())
    return path, npz


def _used(table: Any) -> set[str]:
    """The names that a module defines, or its functions find outside of themselves."""
    own = {s.get_name() for s in table.get_symbols() if table.get_type() == "module" or s.is_global()}
    return own.union(*map(_used, table.get_children()))


def _unnamed(structure: Any) -> Any:
    """The structure with tuples for namedtuples, whose classes the file has not."""
    kind = tuple if structure.kind is not None and issubclass(structure.kind, tuple) else structure.kind
    return type(structure)(kind, None if kind is tuple else structure.aux, tuple(map(_unnamed, structure.children)))


def _write(path: Path, npz: Path, text: str, arrays: dict[str, Any]) -> None:
    """Both files, each whole or not at all; the text gets the checksum of the constants, so that a crash between the two leaves no false pair."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with md.saving.atomic(path) as file, md.saving.atomic(npz) as constants:  # the constants come into place first
        with constants.open("wb") as stream:
            np.savez(stream, **arrays)
        file.write_text(text.replace("{check}", str(zlib.crc32(constants.read_bytes()))), encoding="utf-8")
