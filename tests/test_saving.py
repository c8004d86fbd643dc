"""Files of minidl.saving: whole or not there, the same tree on every backend, and a clear error for whatever else is in one."""

from __future__ import annotations

import json
import math
import os
import pickle
import platform
import random
import re
import signal
import struct
import subprocess
import sys
import time
import zlib
from collections import Counter, OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minidl as md

DTYPES = [d for n in md.__all__ if n != "DType" and isinstance(d := getattr(md, n), md.DType)]


def equal(a: Any, b: Any) -> bool:
    """The same types and, bit for bit, the same values."""
    if type(a) is not type(b):
        return False
    if isinstance(a, md.Tensor):
        return a.dtype is b.dtype and a.shape == b.shape and a.numpy().tobytes() == b.numpy().tobytes()
    if isinstance(a, (np.ndarray, np.generic)):
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    if isinstance(a, dict):
        return list(a) == list(b) and all(equal(x, y) for x, y in zip(a.values(), b.values(), strict=True))
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(equal, a, b))
    return repr(a) == repr(b)


def hold(path: Path, header: Any, body: bytes = b"", length: int | None = None) -> Path:
    """A safetensors file put together by hand."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + body)
    return path


# ---- trees ----------------------------------------------------------------------------------------------------------------------------------
ARRAYS = st.builds(
    lambda dtype, shape, seed: np.random.default_rng(seed).integers(0, 2, shape).astype(dtype.numpy),
    st.sampled_from(DTYPES), st.sampled_from([(), (0,), (3,), (2, 0, 1), (2, 3)]), st.integers(0, 9),
)  # fmt: skip
NUMBERS = st.booleans() | st.integers() | st.floats() | st.complex_numbers()
LEAVES = st.none() | NUMBERS | st.text(max_size=5) | st.binary(max_size=5) | st.sampled_from(DTYPES) | ARRAYS | ARRAYS.map(lambda a: md.asarray(a))
LEAVES |= ARRAYS.filter(lambda a: a.shape == ()).map(lambda a: a[()])
KEY = st.text(max_size=3) | st.integers(-3, 3) | st.none() | st.tuples(st.text(max_size=2), st.integers(0, 3))
TREES = st.recursive(
    LEAVES,
    lambda t: st.lists(t, max_size=3) | st.lists(t, max_size=3).map(tuple) | st.dictionaries(KEY, t, max_size=3)
    | st.dictionaries(KEY, t, max_size=3).map(OrderedDict),
    max_leaves=8,
)  # fmt: skip


@pytest.fixture
def no_fsync(monkeypatch):
    """Waiting for the disk is most of the time of a test that writes hundreds of files."""
    monkeypatch.setattr(os, "fsync", lambda file: None)


@settings(max_examples=100)
@given(tree=TREES)
def test_a_tree_comes_back_as_it_was(tmp_path_factory, no_fsync, tree):
    path = tmp_path_factory.getbasetemp() / "tree.safetensors"
    md.saving.save(path, tree)
    assert equal(md.saving.load(path), tree)


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: d.name)
def test_every_dtype_on_every_backend(tmp_path, backend, dtype):
    values = np.array([0, 1, 1]) if dtype.kind == "bool" else np.array([0, 1, 100])
    x = md.asarray(values, dtype=dtype)
    md.saving.save(tmp_path / "x.safetensors", [x])
    (out,) = md.saving.load(tmp_path / "x.safetensors")
    assert out.backend == backend and equal(out, x) and not out.requires_grad
    assert equal(md.saving.load(tmp_path / "x.safetensors", backend="numpy")[0], x.to(backend="numpy"))


def test_shared_tensors_are_stored_once_and_shared_again(tmp_path):
    w = md.ones((100,))
    md.saving.save(tmp_path / "x.safetensors", {"encoder": w, "decoder": [w]})
    out = md.saving.load(tmp_path / "x.safetensors")
    assert out["encoder"] is out["decoder"][0]
    assert (tmp_path / "x.safetensors").stat().st_size < 700


def test_tensors_have_the_names_of_their_places(tmp_path):
    tree = {"model": {"0.weight": md.ones(2)}, "model.0": {"weight": md.zeros(2)}, "__metadata__": md.ones(1), "steps": [md.ones(3)]}
    md.saving.save(tmp_path / "x.safetensors", tree, metadata={"format": "pt"})
    assert sorted(md.saving.load_tensors(tmp_path / "x.safetensors")) == ["__metadata__#2", "model.0.weight", "model.0.weight#2", "steps.0"]
    assert equal(md.saving.load(tmp_path / "x.safetensors"), tree)
    md.saving.save(tmp_path / "y.safetensors", md.ones(2))
    assert list(md.saving.load_tensors(tmp_path / "y.safetensors")) == ["tensor"]


class Pair(NamedTuple):
    first: Any
    second: Any


@dataclass
class Layer:
    weight: Any
    name: str


def test_containers_of_the_user_are_loaded_into_one_of_the_same_form(tmp_path):
    path = tmp_path / "x.safetensors"
    tree = {"b": Layer(md.tensor([1.0]), "first"), "a": Pair([1], (md.tensor(2), None))}
    md.saving.save(path, tree)
    with pytest.raises(ValueError, match=r"x\.safetensors: holds a .*test_saving\.Layer at \['b'\].*like="):
        md.saving.load(path)
    like = {"a": Pair([0], (md.tensor(0, backend="torch"), None)), "b": Layer(md.tensor([0.0], requires_grad=True), "")}
    out = md.saving.load(path, like=like)
    assert out["a"].second[0].backend == "torch" and out["a"].second[0].item() == 2
    assert out["b"].weight.requires_grad and out["b"].weight.tolist() == [1.0] and out["b"].name == "first" and out["a"].first == [1]
    for other, what in [
        ({"a": like["a"]}, "the keys"), ({**like, "b": like["a"]}, "has a .*Pair of 2"), ({**like, "a": Pair([0, 1], like["a"].second)}, "list of 2"),
        ({**like, "b": Layer(md.zeros((2,)), "")}, r"has f32\[1\], like= has f32\[2\]"), ({**like, "b": Layer(None, "")}, "like= has a .*NoneType"),
        ({**like, "b": Layer(md.zeros((1,), dtype=md.int64), "")}, r"like= has i64\[1\]"), ([1], "of 1"),
    ]:  # fmt: skip
        with pytest.raises(ValueError, match=what):
            md.saving.load(path, like=other)


def test_what_cannot_be_saved_is_named_with_its_place(tmp_path):
    path = tmp_path / "x.safetensors"
    deep: Any = 1
    for _ in range(200):
        deep = [deep]
    for tree, error, what in [
        ({"a": [object()]}, TypeError, r"\['a'\]\[0\] is a builtins.object"),
        ({"m": md.nn.Linear(1, 1)}, TypeError, r"\['m'\] is a Linear; save its state_dict"),
        ({b"x": 1}, TypeError, "a key of the root is b'x'"), (np.array(["a"]), TypeError, "the root is an array of dtype <U1"),
        ({"f": len}, TypeError, r"\['f'\] is a builtins.builtin_function_or_method"), (deep, ValueError, "more than 100 containers"),
    ]:  # fmt: skip
        with pytest.raises(error, match=what):
            md.saving.save(path, tree)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(FileNotFoundError, match="the folder .* does not exist"):
        md.saving.save(tmp_path / "none" / "x.safetensors", 1)


# ---- files that are not what they should be -------------------------------------------------------------------------------------------------
F32 = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
HOSTILE: dict[str, tuple] = {
    "empty": (b"", b"", None), "header beyond the file": ({"a": F32}, b"\0" * 8, 10**6), "header of 2**63": ({"a": F32}, b"\0" * 8, 2**63),
    "truncated": ({"a": F32}, b"\0" * 4), "more than it says": ({"a": F32}, b"\0" * 12),
    "not UTF-8": (b'{"\xff":' + json.dumps(F32).encode() + b"}", b"\0" * 8),
    "overlap": ({"a": F32, "b": {**F32, "data_offsets": [4, 12]}}, b"\0" * 12), "huge": ({"a": {**F32, "shape": [2**62, 2**62]}}, b"\0" * 8),
    "negative": ({"a": {**F32, "shape": [-2]}}, b"\0" * 8), "dtype": ({"a": {**F32, "dtype": "F33"}}, b"\0" * 8), "code": (b"__import__('os')", b""),
    "float8": ({"a": {"dtype": "F8_E4M3", "shape": [2], "data_offsets": [0, 2]}}, b"\0" * 2), "a list": (b"[" * 50_000 + b"]" * 50_000, b""),
    "axes": ({"a": {**F32, "shape": [2] + [1] * 69}}, b"\0" * 8), "twice": (b'{"a":%s,"a":%s}' % ((json.dumps(F32).encode(),) * 2), b"\0" * 8),
    "negative offset": ({"a": {**F32, "data_offsets": [-8, 0]}}, b"\0" * 8), "hole": ({"a": {**F32, "data_offsets": [8, 16]}}, b"\0" * 16),
    "wrong size": ({"a": {**F32, "shape": [3]}}, b"\0" * 8), "backwards": ({"a": {**F32, "data_offsets": [8, 0]}}, b"\0" * 8),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
@pytest.mark.parametrize("load", [md.saving.load, md.saving.load_tensors, md.saving.load_checkpoint])
def test_a_hostile_file_is_a_value_error_with_its_name(tmp_path, case, load):
    path = hold(tmp_path / "bad.safetensors", *HOSTILE[case])
    with pytest.raises(ValueError, match="bad.safetensors: "):
        load(path)


def test_every_byte_but_0_is_true(tmp_path):
    header = {"a": {"dtype": "BOOL", "shape": [3], "data_offsets": [0, 3]}}
    found = md.saving.load_tensors(hold(tmp_path / "x.safetensors", header, b"\x02\x00\x01"))["a"]
    assert found.to(md.int32).tolist() == [1, 0, 1] and (found == md.tensor([True, False, True])).all().item()


A_CRC = zlib.crc32(b"float32[2]", zlib.crc32(b"\0" * 8))  # of the tensor in the files below


def tree_file(path: Path, tree: Any, crc: bool = True) -> Path:
    """A file with a tree of the attacker's, whose checksum is right."""
    text = tree if isinstance(tree, str) else json.dumps(tree)
    own = {"minidl": text, "minidl_crc32": str(zlib.crc32(text.encode()) if crc else 1)}
    return hold(path, {"__metadata__": own, "a": F32}, b"\0" * 8)


@pytest.mark.parametrize(
    "tree",
    [
        {"tensor": "a"}, {"tensor": "b", "crc32": 0}, {"tensor": ["a"], "crc32": 0}, {"object": "os.system"}, {"float": "1e5"}, {"float": []},
        {"bytes": 3}, {"bytes": "é"}, {"dtype": "object"}, {"dtype": []}, {"complex": ["1"]}, {"complex": [1, 2]}, {"complex": "12"},
        {"tuple": {}}, {"dict": [1]},
        {"dict": [["a", 1], ["a", 2]]}, {"dict": [[[1], 2]]}, {"dict": [[{"tuple": [[1]]}, 2]]}, {},
        {"tuple": [], "dict": []}, [], "[", "1e999", "NaN", "[" * 100_000, "[" * 300 + "]" * 300, "1" * 5000, '{"tuple":[],"tuple":[1]}',
        {"node": ["os.system", ["ls"]]}, {"node": 1},
    ],
    ids=lambda t: str(t)[:30],
)  # fmt: skip
def test_a_hostile_tree_is_a_value_error(tmp_path, tree):
    path = tree_file(tmp_path / "bad.safetensors", tree)
    for like in (None, {"x": [md.ones(2)]}, Pair(1, 2)):
        with pytest.raises(ValueError, match="bad.safetensors: "):
            md.saving.load(path, like=like)


KINDS = ["tensor", "array", "scalar", "tuple", "dict", "ordered", "counter", "float", "complex", "bytes", "dtype", "node", "crc32", "other"]
TEXTS = st.sampled_from(["a", "nan", "1", "AA==", "float32", "os.system", ""])
NODES = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2) | st.just(1.5) | TEXTS,
    lambda n: st.lists(n, max_size=3) | st.dictionaries(st.sampled_from(KINDS), n, max_size=2) | st.lists(st.tuples(n, n), max_size=2),
    max_leaves=10,
)


@settings(max_examples=200)
@given(tree=NODES)
def test_any_tree_with_a_right_checksum_is_a_value_error_or_plain_data(tmp_path_factory, tree):
    path = tree_file(tmp_path_factory.getbasetemp() / "any.safetensors", {"tuple": [{"array": "a", "crc32": A_CRC}, tree]})
    try:
        out = md.saving.load(path)
    except ValueError as error:
        assert "any.safetensors: " in str(error)
        return
    known = {*(type(v) for v in (None, True, 1, 1.5, "", 1j, b"", [], (), {}, md.float32, GOOD["w"])), np.ndarray, np.float32, OrderedDict, Counter}

    def check(v: Any) -> None:
        assert type(v) in known
        for child in [*v.keys(), *v.values()] if isinstance(v, dict) else v if isinstance(v, (list, tuple)) else ():
            check(child)

    check(out)


def test_a_tree_with_a_wrong_checksum_or_none(tmp_path):
    with pytest.raises(ValueError, match="checksum of the tree"):
        md.saving.load(tree_file(tmp_path / "x.safetensors", [1], crc=False))
    with pytest.raises(ValueError, match=r"without a tree of minidl's; md.saving.load_tensors"):
        md.saving.load(hold(tmp_path / "y.safetensors", {"a": F32}, b"\0" * 8))
    assert md.saving.load_tensors(tmp_path / "y.safetensors")["a"].tolist() == [0, 0]


GOOD = {"w": md.tensor([[1.5, 2.5]]), "h": [md.ones((2,), dtype=md.bfloat16), 3, {"lr": 0.1}], "z": np.arange(3), "c": md.tensor(1j)}


@settings(max_examples=300)
@given(data=st.data())
def test_a_mutation_of_a_good_file_is_refused_or_harmless(tmp_path_factory, no_fsync, data):
    """No byte that matters can change unseen: either a ValueError that names the file, or the same tree (a space in the header moved)."""
    path = tmp_path_factory.getbasetemp() / "mutant.safetensors"
    md.saving.save(path, GOOD)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(content) - 1))
        match data.draw(st.sampled_from(["flip", "cut", "insert", "delete", "copy"])):
            case "flip":
                content[at] ^= 1 << data.draw(st.integers(0, 7))
            case "cut":
                del content[max(at, 1) :]
            case "insert":
                content[at:at] = data.draw(st.binary(min_size=1, max_size=4))
            case "delete":
                del content[at : at + data.draw(st.integers(1, 8))]
            case "copy":
                content[at:at] = content[at : at + data.draw(st.integers(1, 60))]
        content = content or bytearray(b"\0")
    path.write_bytes(content)
    try:
        out = md.saving.load(path)
    except ValueError as error:
        assert "mutant.safetensors: " in str(error)
    else:
        assert equal(out, GOOD)


def test_pickles_are_refused_and_never_run(tmp_path, no_fsync):
    flag = tmp_path / "ran"

    class Attack:
        def __reduce__(self) -> tuple:
            return Path.touch, (flag,)

    plain = tmp_path / "weights.pt"
    plain.write_bytes(pickle.dumps(Attack()))
    import torch

    torch.save({"w": torch.ones(1)}, tmp_path / "zip.pt")
    for path in (plain, tmp_path / "zip.pt"):
        for load in (md.saving.load, md.saving.load_tensors):
            with pytest.raises(ValueError, match=f"{path.name}: a pickle"):
                load(path)
    assert not flag.exists()
    for n in range(570, 600):  # among them a file whose first bytes are those of a pickle: 0x280 is the length of its header
        md.saving.save_tensors(tmp_path / "x.safetensors", {"w" * n: md.ones(1)})
        assert len(md.saving.load_tensors(tmp_path / "x.safetensors")) == 1
    for load in (md.saving.load, md.saving.load_tensors, md.saving.load_checkpoint):
        with pytest.raises(FileNotFoundError):
            load(tmp_path / "none.safetensors")


# ---- tensors by name: what others write -----------------------------------------------------------------------------------------------------
def test_files_of_pytorch_load_by_name_and_the_other_way_round(tmp_path, backend):
    import torch
    from safetensors.torch import load_file, save_file

    theirs = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    state = {k: v.to(torch.bfloat16) if k == "0.bias" else v.half() if k == "0.weight" else v for k, v in theirs.state_dict().items()}
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    loaded = md.saving.load_tensors(tmp_path)
    assert loaded["0.bias"].dtype is md.bfloat16 and loaded["0.weight"].dtype is md.float16 and loaded["0.weight"].backend == backend
    ours = md.nn.Sequential(md.nn.Linear(3, 4), md.nn.BatchNorm1d(4))
    ours.load_state_dict(loaded)
    for k, v in ours.state_dict().items():
        assert v.numpy().tolist() == state[k].float().tolist(), k
    md.saving.save_tensors(tmp_path / "back.safetensors", loaded, {"format": "pt"})
    back = load_file(tmp_path / "back.safetensors")
    assert back.keys() == state.keys() and all(torch.equal(back[k], state[k]) and back[k].dtype == state[k].dtype for k in state)


def test_shards_with_an_index_as_transformers_writes_them(tmp_path):
    model = md.nn.Sequential(*[md.nn.Linear(8, 8) for _ in range(4)])
    state = model.state_dict()
    index = tmp_path / "model.safetensors.index.json"
    md.saving.save_tensors(index, state, {"format": "pt"}, max_shard_size=300)
    assert sorted(p.name for p in tmp_path.glob("*.safetensors")) == [f"model-{i:05}-of-00004.safetensors" for i in range(1, 5)]
    assert json.loads(index.read_text())["metadata"] == {"total_size": 4 * 72 * 4}
    for path in (tmp_path, index):
        assert equal(dict(sorted(md.saving.load_tensors(path).items())), dict(sorted(state.items())))
    assert list(md.saving.load_tensors(index, ["3.bias"])) == ["3.bias"]
    with pytest.raises(KeyError, match=r"no tensors named \['4.bias'\]; it holds \['0.bias'"):
        md.saving.load_tensors(index, ["4.bias"])
    (tmp_path / "model-00002-of-00004.safetensors").unlink()
    with pytest.raises(FileNotFoundError):
        md.saving.load_tensors(index)


def test_shards_that_hugging_face_wrote(tmp_path):
    """With tied weights, in bfloat16, by the library's own writer."""
    import torch
    from huggingface_hub import save_torch_model

    theirs = tied(torch.nn).bfloat16()
    save_torch_model(theirs, tmp_path, max_shard_size=40)
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 1
    ours = tied(md.nn).to(md.bfloat16)
    assert md.saving.load_model(ours, tmp_path) == ([], [])
    for name, value in ours.state_dict().items():
        assert value.to(md.float32).tolist() == theirs.state_dict()[name].float().tolist(), name


def tied(nn: Any) -> Any:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.norm, self.head = nn.Embedding(5, 3), nn.BatchNorm1d(3), nn.Linear(3, 5)
            self.head.weight = self.embed.weight

    return Tied()


def test_models_with_tied_weights_go_to_pytorch_and_back(tmp_path):
    import torch
    from safetensors import safe_open
    from safetensors.torch import load_model, save_file, save_model

    theirs, ours = tied(torch.nn), tied(md.nn)
    save_model(theirs, str(tmp_path / "theirs.safetensors"))
    names = set(md.saving.load_tensors(tmp_path / "theirs.safetensors"))
    assert len({"head.weight", "embed.weight"} & names) == 1
    assert md.saving.load_model(ours, tmp_path / "theirs.safetensors") == ([], [])
    assert ours.head.weight is ours.embed.weight and ours.head.weight.tolist() == theirs.head.weight.tolist()
    md.saving.save_model(ours, tmp_path / "ours.safetensors", {"format": "pt"})
    assert len({"head.weight", "embed.weight"} & set(md.saving.load_tensors(tmp_path / "ours.safetensors"))) == 1
    with safe_open(tmp_path / "ours.safetensors", "np") as reader:
        assert reader.metadata() == {"format": "pt", "head.weight": "embed.weight"}
    again = tied(torch.nn)
    assert load_model(again, str(tmp_path / "ours.safetensors")) == (set(), [])
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in theirs.state_dict().items())
    save_file({"embed.weight": torch.ones(5, 3), "extra": torch.ones(1)}, tmp_path / "part.safetensors")
    with pytest.raises(RuntimeError, match=r'Unexpected key\(s\) in state_dict: "extra"') as error:
        md.saving.load_model(ours, tmp_path / "part.safetensors")
    assert "head.weight" not in str(error.value) and '"head.bias"' in str(error.value)
    assert md.saving.load_model(ours, tmp_path / "part.safetensors", strict=False).unexpected_keys == ["extra"]
    assert ours.embed.weight.detach().numpy().sum() == 15


def test_what_could_not_be_read_again_is_not_written(tmp_path, no_fsync):
    """The library reads no header above 100 MB."""
    path = tmp_path / "x.safetensors"
    md.saving.save(path, 1)
    with pytest.raises(ValueError, match=r"x\.safetensors: not written: .*header too large; long lists of numbers belong in arrays"):
        md.saving.save(path, "x" * 100_000_000)
    assert md.saving.load(path) == 1


@pytest.mark.parametrize(
    "index",
    [
        b"", b"[]", b"{}", b'{"weight_map": 3}', b'{"weight_map": {"a": 3}}', b'{"weight_map": {"a": "../a.safetensors"}}', b"[" * 100_000, b"\xff",
        b'{"weight_map": {"a": "/etc/a.safetensors"}}', b'{"weight_map": {"a": "..\\\\a.safetensors"}}', b'{"weight_map": {"a": "a.bin"}}',
        b'{"weight_map": {"other": "a.safetensors"}}', b'{"weight_map": {"a": "a\\u0000.safetensors"}}',
    ],
)  # fmt: skip
def test_a_hostile_index_is_a_value_error(tmp_path, index):
    md.saving.save_tensors(tmp_path / "a.safetensors", {"a": md.ones(1)})
    (tmp_path / "model.safetensors.index.json").write_bytes(index)
    with pytest.raises(ValueError, match=r"(index\.json|a\.safetensors): "):
        md.saving.load_tensors(tmp_path)


def test_errors_of_names(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds neither model.safetensors nor model.safetensors.index.json"):
        md.saving.load_tensors(tmp_path)
    with pytest.raises(TypeError, match="a flat dict of tensors is wanted, not 'a': dict"):
        md.saving.save_tensors(tmp_path / "x.safetensors", {"a": {}})
    with pytest.raises(TypeError, match="complex128"):
        md.saving.save_tensors(tmp_path / "x.safetensors", {"a": np.ones(1, complex)})
    with pytest.raises(ValueError, match="the path is an index"):
        md.saving.save_tensors(tmp_path / "x.safetensors", {"a": md.ones(1)}, max_shard_size=10)
    md.saving.save_tensors(tmp_path / "x.safetensors", {"weight": md.ones((2, 2)), "bent": md.ones((1,))})
    every = r'(?s)Missing key\(s\).*"bias".*Unexpected key\(s\).*"bent".*size mismatch for weight: the state has \(2, 2\)'
    with pytest.raises(RuntimeError, match=every):
        md.nn.Linear(3, 2).load_state_dict(md.saving.load_tensors(tmp_path / "x.safetensors"))


# ---- whole or not there ---------------------------------------------------------------------------------------------------------------------
WRITER = """
import sys, numpy as np
from minidl.saving import save
for step in range(int(sys.argv[2]), 10**9):
    save(sys.argv[1], {"step": step, "data": np.full(20_000, step)})
    print(step, flush=True)
"""


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL is a signal of POSIX")
def test_kill_9_at_any_moment_leaves_the_last_good_file(tmp_path):
    path, choice, done = tmp_path / "state.safetensors", random.Random(0), 0
    for _ in range(8):
        process = subprocess.Popen([sys.executable, "-c", WRITER, str(path), str(done + 1)], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(choice.uniform(0, 0.02))
        process.send_signal(signal.SIGKILL)
        reported = process.stdout.read().split()
        process.wait()
        process.stdout.close()
        found = md.saving.load(path)
        assert found["step"] >= max([done, *map(int, reported[:-1])]) and (found["data"] == found["step"]).all()
        done = found["step"]
    assert done >= 8
    host = re.sub(r"[^\w.]", "_", platform.node())[:50]
    for left in ("state.safetensors", "step-000007.safetensors"):  # what killed processes left is swept away, of whichever file
        (tmp_path / f".{left}.{host}-{process.pid}-99.partial").mkdir()
    (tmp_path / ".mine.partial").touch()
    md.saving.save(path, 1)
    assert sorted(p.name for p in tmp_path.iterdir()) == [".mine.partial", "state.safetensors"]


def test_two_who_save_to_one_path_at_once_both_succeed(tmp_path):
    from concurrent.futures import ThreadPoolExecutor

    path = tmp_path / "x.safetensors"
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda i: md.saving.save(path, {"i": i, "data": np.full(1000, i)}), range(24)))
    found = md.saving.load(path)
    assert (found["data"] == found["i"]).all() and list(tmp_path.iterdir()) == [path]


def test_atomic_leaves_the_old_file_where_the_block_fails(tmp_path):
    path = tmp_path / "x.txt"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt):
        with md.saving.atomic(path) as partial:
            partial.write_text("half")
            raise KeyboardInterrupt
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
    (tmp_path / "other").touch()
    md.saving.save(tmp_path / "tree", 1)
    assert (tmp_path / "tree").stat().st_mode == (tmp_path / "other").stat().st_mode
    link = tmp_path / "link"
    link.symlink_to(path)
    with md.saving.atomic(link) as partial:
        partial.write_text("new")
    assert link.is_symlink() and path.read_text() == "new"


# ---- checkpoints ----------------------------------------------------------------------------------------------------------------------------
def training(dtype: Any = md.float64) -> tuple[Any, Any]:
    model = md.nn.Sequential(md.nn.Linear(4, 8), md.nn.BatchNorm1d(8), md.nn.ReLU(), md.nn.Dropout(0.3), md.nn.Linear(8, 3)).to(dtype=dtype)
    return model, md.optim.Adam(model.parameters(), lr=0.05)


def steps(model: Any, optimizer: Any, n: int, jitted: bool = False) -> list[float]:
    values = np.random.default_rng(0)
    xs, ys = md.asarray(values.normal(size=(32, 4))), md.asarray(values.integers(0, 3, 32))

    def step(x: Any, y: Any) -> Any:
        optimizer.zero_grad()
        loss = md.nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    run = md.jit(step) if jitted else step
    losses = []
    for _ in range(n):
        rows = md.random.permutation(md.random.default_generator.next_key(), 32)[:16]
        losses.append(run(xs[rows], ys[rows]).item())
    return losses


@pytest.fixture(scope="module")
def halfway(tmp_path_factory) -> tuple[Path, list[float]]:
    """A checkpoint written on numpy after 4 steps, and the losses of the 3 steps that follow."""
    with md.use_backend("numpy"):
        md.random.manual_seed(3)
        model, optimizer = training()
        steps(model, optimizer, 4)
        path = tmp_path_factory.mktemp("checkpoint") / "half.safetensors"
        md.saving.save_checkpoint(path, model=model, optimizer=optimizer, epoch=2)
        return path, steps(model, optimizer, 3)


@pytest.mark.parametrize(("name", "jitted"), [("numpy", False), ("numpy", True), ("torch", False), ("torch", True), ("numba", True), ("jax", True)])
def test_training_goes_on_with_the_same_losses_on_any_backend(name, jitted, halfway):
    with md.use_backend(name):
        continued(name, jitted, *halfway)


def continued(backend: str, jitted: bool, path: Path, expected: list[float]) -> None:
    model, optimizer = training()
    md.random.manual_seed(99)
    assert md.saving.load_checkpoint(path, model=model, optimizer=optimizer) == {"epoch": 2}
    assert all(p.backend == backend for p in model.parameters())
    np.testing.assert_allclose(steps(model, optimizer, 3, jitted), expected, rtol=1e-9)


def test_a_checkpoint_that_does_not_fit_changes_nothing(tmp_path, halfway):
    path, _ = halfway
    model, optimizer = training()
    other = md.optim.Adam([*model.parameters(), md.nn.Parameter(md.ones(1))])
    before, key = model.state_dict(), md.random.default_generator.key.tolist()
    with pytest.raises(ValueError, match="the saved groups hold"):
        md.saving.load_checkpoint(path, model=model, optimizer=other)
    assert equal(model.state_dict(), before) and md.random.default_generator.key.tolist() == key
    with pytest.raises(ValueError, match="no state of schedule; it has model, optimizer"):
        md.saving.load_checkpoint(path, model=model, schedule=optimizer)
    for tree in ({"states": 1}, {"states": [], "values": {}, "random": 1}):
        md.saving.save(tmp_path / "tree.safetensors", tree)
        with pytest.raises(ValueError, match="a tree, but no checkpoint"):
            md.saving.load_checkpoint(tmp_path / "tree.safetensors")
    md.saving.save(tmp_path / "tree.safetensors", {"states": {"model": {}}, "values": {}, "random": 1})
    with pytest.raises(ValueError, match="the random state is no key"):
        md.saving.load_checkpoint(tmp_path / "tree.safetensors", model=model)
    key_now = md.random.default_generator.key.detach()
    md.saving.save(tmp_path / "tree.safetensors", {"states": {"o": {"param_groups": 3}}, "values": {}, "random": key_now})
    with pytest.raises(ValueError, match=r"tree\.safetensors: the state of 'o' does not fit Adam \(TypeError"):
        md.saving.load_checkpoint(tmp_path / "tree.safetensors", o=optimizer)
    with pytest.raises(ValueError, match="'random' is the name of the random state"):
        md.saving.save_checkpoint(path, random=1)
    assert md.saving.load_checkpoint(path, model=model, random=False).keys() == {"epoch", "optimizer"}
    assert md.random.default_generator.key.tolist() == key


def test_a_manager_keeps_the_last_and_the_best(tmp_path):
    manager = md.saving.CheckpointManager(tmp_path / "run", keep=2, mode="max")
    assert (manager.latest, manager.best, manager.steps) == (None, None, [])
    with pytest.raises(FileNotFoundError, match=r"no checkpoint of step None; there are \[\]"):
        manager.load()
    for step, metric in enumerate([0.1, 0.9, math.nan, 0.9, 0.2, None]):
        manager.save(step, metric=metric, value=step)
    assert (manager.steps, manager.best, manager.latest) == ([1, 4, 5], 1, 5)
    again = md.saving.CheckpointManager(tmp_path / "run", keep=1, mode="max")
    assert again.best == 1 and again.load() == {"value": 5} and again.load("best") == {"value": 1} and again.load(4) == {"value": 4}
    again.save(6, metric=0.95, value=6)
    assert again.steps == [6]
    again.path(7).write_bytes(b"damaged")
    (tmp_path / "run" / "step-8.safetensors").write_text("of another program, which pads otherwise")
    found = md.saving.CheckpointManager(tmp_path / "run", mode="max")
    assert found.best == 6 and found.steps == [6, 7]
    with pytest.raises(ValueError, match="mode is 'min' or 'max'"):
        md.saving.CheckpointManager(tmp_path, mode="least")
    with pytest.raises(ValueError, match="at least one"):
        md.saving.CheckpointManager(tmp_path, keep=0)


SCHEDULES: dict[str, Any] = {
    "StepLR": {"step_size": 2}, "MultiStepLR": {"milestones": [1, 3]}, "ConstantLR": {}, "LinearLR": {}, "ExponentialLR": {"gamma": 0.9},
    "PolynomialLR": {}, "CosineAnnealingLR": {"T_max": 4}, "CosineAnnealingWarmRestarts": {"T_0": 3}, "LambdaLR": {"lr_lambda": lambda n: 0.9**n},
    "OneCycleLR": {"max_lr": 0.1, "total_steps": 9},
}  # fmt: skip


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_schedule_goes_on_from_a_checkpoint(tmp_path, name):
    def make() -> tuple[Any, Any]:
        optimizer = md.optim.SGD([md.nn.Parameter(md.ones(1))], lr=0.5, momentum=0.9)
        return optimizer, getattr(md.optim.lr_scheduler, name)(optimizer, **SCHEDULES[name])

    def rates(optimizer: Any, schedule: Any) -> list[float]:
        out = []
        for _ in range(4):
            optimizer.step()
            schedule.step()
            out.append(float(optimizer.param_groups[0]["lr"]))
        return out

    optimizer, schedule = make()
    rates(optimizer, schedule)
    md.saving.save_checkpoint(tmp_path / "x.safetensors", optimizer=optimizer, schedule=schedule)
    again = make()
    md.saving.load_checkpoint(tmp_path / "x.safetensors", optimizer=again[0], schedule=again[1])
    assert rates(*again) == rates(optimizer, schedule)


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW", "Adagrad", "RMSprop", "Lion", "Muon", "LBFGS"])
def test_every_optimizer_goes_on_from_a_checkpoint(tmp_path, name):
    def make() -> tuple[Any, Any]:
        w = md.nn.Parameter(md.asarray(np.linspace(-1, 1, 6).reshape(2, 3)))
        return w, getattr(md.optim, name)([w], lr=0.1, **({"momentum": 0.9} if name in ("SGD", "RMSprop") else {}))

    def run(w: Any, optimizer: Any) -> list[Any]:
        def closure() -> Any:
            optimizer.zero_grad()
            loss = (w**4 - w).sum()
            loss.backward()
            return loss

        for _ in range(3):
            optimizer.step(closure)
        return w.tolist()

    w, optimizer = make()
    run(w, optimizer)
    md.saving.save_checkpoint(tmp_path / "x.safetensors", optimizer=optimizer, w=w)
    with md.use_backend("torch"):
        v, again = make()
        v.requires_grad_(False).assign(md.saving.load_checkpoint(tmp_path / "x.safetensors", optimizer=again)["w"]).requires_grad_()
        np.testing.assert_allclose(run(v, again), run(w, optimizer), rtol=1e-12)


def test_a_checkpoint_of_another_model_changes_nothing(tmp_path):
    def parts(n):
        model = md.nn.Linear(3, 2)
        return model, md.optim.AdamW(md.nn.Linear(n, 2).parameters())

    model, optimizer = parts(3)
    md.saving.save_checkpoint(tmp_path / "c.safetensors", model=model, optimizer=optimizer)
    model, optimizer = parts(4)
    before = model.weight.detach().clone()
    with pytest.raises(ValueError, match=r"the saved exp_avg has shape \(2, 3\), and a parameter of shape \(2, 4\)"):
        md.saving.load_checkpoint(tmp_path / "c.safetensors", model=model, optimizer=optimizer)
    assert (before == model.weight).all().item()


def test_complex_values_are_not_cut_down_to_real_ones():
    model = md.nn.Linear(2, 1)
    with pytest.raises(RuntimeError, match="dtype mismatch for weight: the state has complex64, whose imaginary part the module's float32 loses"):
        model.load_state_dict({"weight": md.ones((1, 2)) * 1j, "bias": md.zeros(1)})
    model.load_state_dict({"weight": md.ones((1, 2)) * 1j, "bias": md.zeros(1)}, assign=True)
    assert model.weight.dtype is md.complex64
