"""Tensors by name in plain safetensors files: what PyTorch and Hugging Face write, in one file or in shards."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

import minidl as md
from minidl.saving.files import array, atomic, opened, write

_FILE = "model.safetensors"


def save_tensors(
    path: str | os.PathLike[str], tensors: Mapping[str, Any], metadata: Mapping[str, str] | None = None, *, max_shard_size: int | None = None
) -> None:
    """Write a flat dict of tensors (or NumPy arrays), such as `model.state_dict()`, as a plain safetensors file, atomically.

    Keys are kept as they are, so that safetensors.torch and transformers read them. metadata: texts for the header. max_shard_size: bytes; `path` is
    then an index, "model.safetensors.index.json", and the shards lie beside it as transformers names them. Raises TypeError for what is no dict of
    tensors, and for complex128, which the format does not have.

    >>> import tempfile
    >>> path = tempfile.mkdtemp() + "/model.safetensors"
    >>> md.saving.save_tensors(path, {"w": md.ones((2, 3))})
    >>> md.saving.load_tensors(path)["w"].shape
    (2, 3)
    """
    arrays = {}
    for name, value in tensors.items():
        if not isinstance(name, str) or not isinstance(value, (md.Tensor, np.ndarray)):
            raise TypeError(f"save_tensors: a flat dict of tensors is wanted, not {name!r}: {type(value).__name__}; md.saving.save takes trees")
        arrays[name] = value.detach().numpy() if isinstance(value, md.Tensor) else value
        if arrays[name].dtype == np.complex128:
            raise TypeError(f"save_tensors: {name!r} is complex128, which safetensors does not have; md.saving.save takes it")
    if max_shard_size is None:
        return write(path, arrays, metadata or {})
    if not str(path).endswith(".safetensors.index.json"):
        raise ValueError(f"save_tensors: with max_shard_size the path is an index, such as 'model.safetensors.index.json', not {os.fspath(path)!r}")
    shards: list[dict[str, np.ndarray]] = [{}]
    for name, value in arrays.items():
        if shards[-1] and sum(a.nbytes for a in shards[-1].values()) + value.nbytes > max_shard_size:
            shards.append({})
        shards[-1][name] = value
    stem, names = Path(path).name.removesuffix(".safetensors.index.json"), {}
    for i, shard in enumerate(shards):
        file = f"{stem}-{i + 1:05}-of-{len(shards):05}.safetensors"
        write(Path(path).parent / file, shard, metadata or {})
        names.update(dict.fromkeys(shard, file))
    with atomic(path) as partial:
        index = {"metadata": {"total_size": sum(a.nbytes for a in arrays.values())}, "weight_map": names}
        partial.write_text(json.dumps(index, indent=2), encoding="utf-8")
    return None


def load_tensors(
    path: str | os.PathLike[str], names: Iterable[str] | None = None, *, backend: str | None = None, device: str | None = None
) -> dict[str, md.Tensor]:
    """The tensors of a safetensors file by name, for `model.load_state_dict(md.saving.load_tensors(path))`; files of PyTorch and Hugging Face too.

    path: a .safetensors file, the index of a model in shards (model.safetensors.index.json), or a folder that holds one of them. names: only these.
    Tensors keep their dtype (bf16 and f16 included) and go to the default backend or the one named. Raises ValueError with the file's name for one
    that is damaged, truncated, hostile or a pickle, for a dtype that minidl does not have, and KeyError that lists the names that are not there.

    >>> import tempfile
    >>> path = tempfile.mkdtemp() + "/model.safetensors"
    >>> save_tensors(path, md.nn.Linear(3, 2).state_dict())
    >>> {name: t.shape for name, t in load_tensors(path).items()}
    {'bias': (2,), 'weight': (2, 3)}
    """
    files = _files(Path(path))
    wanted = None if names is None else list(names)
    out: dict[str, md.Tensor] = {}
    held: set[str] = set()
    for file, expected in files.items():
        with opened(file) as reader:
            there = set(reader.keys())
            if expected is not None and not expected <= there:
                raise ValueError(f"{file}: the index {path} places {sorted(expected - there)[:10]} here, and they are not")
            mine = there if expected is None else expected
            held |= mine
            for name in sorted(mine if wanted is None else mine.intersection(wanted)):
                out[name] = md.asarray(array(file, reader, name), backend=backend, device=device)
    missing = [n for n in wanted or () if n not in held]
    if missing:
        raise KeyError(f"{path}: no tensors named {missing[:20]}; it holds {sorted(held)[:20]}{' …' if len(held) > 20 else ''}")
    return out


def save_model(model: Any, path: str | os.PathLike[str], metadata: Mapping[str, str] | None = None) -> None:
    """Write the state of a Module as safetensors.torch.save_model does: a parameter with several names, as tied weights are, is stored once.

    The header says which name stands for which, so that load_model here and there finds them.

    >>> import tempfile
    >>> path = tempfile.mkdtemp() + "/model.safetensors"
    >>> md.saving.save_model(md.nn.Linear(2, 3), path)
    >>> sorted(md.saving.load_tensors(path))
    ['bias', 'weight']
    """
    kept, aliases = _shared(model)
    state = model.state_dict()
    save_tensors(path, {k: state[k] for k in state if k not in aliases}, {**(metadata or {}), **{k: kept[i] for k, i in aliases.items()}})


def load_model(model: Any, path: str | os.PathLike[str], strict: bool = True) -> Any:
    """Load a file of tensors (or shards, or a folder: see load_tensors) into a Module by name, as safetensors.torch.load_model does.

    A name that the file leaves out is not missing where the parameter has another name that is there (tied weights). Returns (missing_keys,
    unexpected_keys). Raises RuntimeError that lists missing and unexpected names (unless strict=False) and wrong shapes, and what load_tensors does.

    >>> import tempfile
    >>> path = tempfile.mkdtemp() + "/model.safetensors"
    >>> save_model(md.nn.Linear(3, 2), path)
    >>> load_model(md.nn.Linear(3, 2), path)
    <All keys matched successfully>
    """
    tensors = load_tensors(path)
    own = _named(model)
    there = {id(own[k]): k for k in reversed(own) if k in tensors}
    for name, tensor in own.items():
        if name not in tensors and id(tensor) in there:
            tensors[name] = tensors[there[id(tensor)]]
    return model.load_state_dict(tensors, strict)


def _named(model: Any) -> dict[str, Any]:
    return dict([*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)])


def _shared(model: Any) -> tuple[dict[int, str], dict[str, int]]:
    """The first name of each tensor, and the tensor of each further name."""
    kept: dict[int, str] = {}
    aliases = {name: id(t) for name, t in _named(model).items() if kept.setdefault(id(t), name) != name}
    return kept, aliases


def _files(path: Path) -> dict[Path, set[str] | None]:
    """The files to read, with the names that an index places in each."""
    if path.is_dir():
        found = [path / n for n in (_FILE, _FILE + ".index.json") if (path / n).exists()]
        if not found:
            raise FileNotFoundError(f"{path}: the folder holds neither {_FILE} nor {_FILE}.index.json")
        path = found[0]
    if path.suffix != ".json":
        return {path: None}
    problem: Any = "its weight_map is no object of names and files"
    with contextlib.suppress(ValueError, RecursionError, TypeError, KeyError, AttributeError):
        places = json.loads(path.read_bytes().decode("utf-8"))["weight_map"]
        files: dict[Path, set[str] | None] = {}
        for name, file in places.items():
            problem = f"the file {file!r} of {name!r} is not one beside the index"
            if not isinstance(file, str) or file != os.path.basename(file) or "\\" in file or "\0" in file or not file.endswith(".safetensors"):
                break
            files.setdefault(path.parent / file, set()).add(name)  # type: ignore[union-attr]
        else:
            return files
    raise ValueError(f"{path}: a damaged or hostile index of shards: {problem}")
