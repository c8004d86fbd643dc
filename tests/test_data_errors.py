"""Data sets, samplers, loaders, transforms and texts say what they cannot take, as layers do: no accident of Python's reaches the user.

Every argument of every constructor and function, and what objects are called and indexed with, is replaced by things of the wrong kind. Files that
are not there are the system's own errors, which name them.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import test_nn_errors
from test_nn_errors import ACCIDENT, WRONG_SETTINGS, Odd, wrong_inputs

import minidl as md
from minidl.errors import own
from minidl.shapes import shown

data = md.data
transforms, text, datasets = data.transforms, data.text, data.datasets
CLASSES = (TypeError, ValueError, IndexError, KeyError, RuntimeError)  # the last for data that are not there, as in torchvision
WRONG = [*WRONG_SETTINGS, b"x", np.ones(2)]
ITEMS = data.TensorDataset(md.arange(6))


@pytest.fixture
def made(tmp_path: Path) -> dict[Any, tuple[Any, ...]]:
    """Right arguments of everything that wants some."""
    (tmp_path / "rows.csv").write_text("text,label\nhi,a\nyo,b\n")
    (tmp_path / "texts" / "x").mkdir(parents=True)
    (tmp_path / "texts" / "x" / "1.txt").write_text("hello")
    return {
        data.BatchSampler: ([1, 2], 2, False), data.ChainDataset: ([[1]],), data.ConcatDataset: ([[1]],), data.DataLoader: (ITEMS,),
        data.DistributedSampler: (ITEMS, 2, 0), data.RandomSampler: (ITEMS,), data.SequentialSampler: (ITEMS,), data.Subset: (ITEMS, [0]),
        data.SubsetRandomSampler: ([0, 1],), data.WeightedRandomSampler: ([0.5, 0.5], 2), transforms.CenterCrop: (4,), transforms.Compose: ([],),
        transforms.Grayscale: (), transforms.Normalize: ([0.5], [0.5]), transforms.Pad: (1,), transforms.RandomApply: ([transforms.ToTensor()],),
        transforms.RandomCrop: (4,), transforms.RandomErasing: (), transforms.RandomHorizontalFlip: (), transforms.RandomResizedCrop: (4,),
        transforms.RandomVerticalFlip: (), transforms.Resize: (4,), transforms.ToTensor: (), text.CSV: (tmp_path / "rows.csv",),
        text.BytePairEncoding: ([],), text.PadCollate: (), text.TextFolder: (tmp_path / "texts",), text.Tokenizer: (text.Vocab(["a"]),),
        text.Vocab: (["a", "b"],), datasets.MNIST: (tmp_path,), datasets.CIFAR10: (tmp_path,), data.default_collate: ([1, 2],),
        data.random_split: (ITEMS, [3, 3]), text.build_vocab_from_iterator: ([["a"]],), text.pad_sequence: ([md.ones(2)],), text.words: ("a b",),
        datasets.read_idx: (tmp_path / "none",),
    }  # fmt: skip


def attempts(made: dict[Any, tuple[Any, ...]]) -> Iterator[tuple[str, Any]]:
    """(what is tried, a function that tries it)."""
    for f, args in made.items():
        parameters = inspect.signature(f).parameters
        for name in parameters:
            if name not in ("download", "mirror"):
                for value in WRONG:
                    given = {**dict(zip(parameters, args, strict=False)), name: value}
                    yield f"{f.__name__}({name}={shown(value)})", lambda f=f, given=given: f(**given)
        if not isinstance(f, type) or f in (datasets.MNIST, datasets.CIFAR10):
            continue
        one = f(*args)
        for value in [*wrong_inputs(), {}, b"x"] if callable(one) else ():
            yield f"{f.__name__}()({shown(value)})", lambda one=one, value=value: one(value)
        for value in ["abc", None, 1.5, -100, 100, Odd(), [1], {}] if hasattr(one, "__getitem__") else ():
            yield f"{f.__name__}()[{shown(value)}]", lambda one=one, value=value: one[value]
    for value in [*WRONG, 5]:
        yield f"TensorDataset({shown(value)})", lambda value=value: data.TensorDataset(value)
        yield f"StackDataset({shown(value)})", lambda value=value: data.StackDataset(value)
        yield f"DataLoader({shown(value)}), first batch", lambda value=value: next(iter(data.DataLoader(value)), None)
        for method in ("lookup_token", "lookup_tokens", "lookup_indices", "set_default_index"):
            yield f"Vocab().{method}({shown(value)})", lambda method=method, value=value: getattr(text.Vocab(["a"]), method)(value)
        for method in ("encode", "decode", "load"):
            yield f"BytePairEncoding().{method}({shown(value)})", lambda method=method, value=value: getattr(text.BytePairEncoding([]), method)(value)


def complaint(error: Exception) -> str:
    """What is wrong with an error, "" if nothing."""
    said = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    if isinstance(error, OSError) and error.filename is not None:
        return ""
    right = (
        isinstance(error, CLASSES)
        and own(error)
        and re.match(r"[A-Za-z_][\w.]*(\(\))?: ", said)
        and not re.search(ACCIDENT, said.replace("len: ", ""))
    )
    return "" if right or "a 0-d tensor has no length" in said else f"{type(error).__name__}: {error}"


@pytest.mark.filterwarnings("ignore")  # of what is half right
def test_nothing_is_an_accident(made, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # "abc" is a path, too
    bad, total, wrong = [], 0, 0
    for what, f in attempts(made):
        total += 1
        try:
            f()
        except Exception as error:
            wrong += 1
            if found := complaint(error):
                bad.append(f"{what}: {found}")
    assert not bad, f"{len(bad)}\n" + "\n".join(bad)
    assert total > 1000 and total // 3 < wrong < total


MESSAGES = [
    (lambda: transforms.Resize(4, max_size="abc"), TypeError, "Resize: max_size must be an integer or None, not 'abc'"),
    (lambda: data.DataLoader(ITEMS, num_workers="abc"), TypeError, "DataLoader: num_workers must be an integer, not 'abc'"),
    (lambda: data.DataLoader(ITEMS, sampler=5), TypeError, "DataLoader: sampler must be an iterable, not 5"),
    (lambda: data.DataLoader(ITEMS, 2, True, size=3), TypeError, "DataLoader: got an unexpected keyword argument 'size'; it is DataLoader("),
    (lambda: text.words(5), TypeError, "words: text must be a string, not 5"),
    (lambda: text.Vocab(["a"])(["b"]), KeyError, "Vocab: 'b' is not in the vocabulary"),
    (lambda: data.Subset(ITEMS, [0])[3], IndexError, "Subset: no item has the number 3; there are 1"),
]


@pytest.mark.parametrize(("f", "kind", "text"), MESSAGES, ids=[m[2][:30] for m in MESSAGES])
def test_messages(f, kind, text):
    with pytest.raises(kind) as error:
        f()
    assert str(error.value.args[0]).startswith(text)


def test_the_documentation_says_which_classes_are_raised():
    for room, classes in ((data, (*CLASSES, OSError)), (md.nn, test_nn_errors.CLASSES), (md.nn.functional, test_nn_errors.CLASSES)):
        assert all(f"{kind.__name__} for" in " ".join(str(room.__doc__).split()) for kind in classes), room.__name__


def test_what_code_of_the_user_s_raises_passes_unchanged():
    class Mine(data.Dataset):
        def __len__(self):
            return 1

        def __getitem__(self, index):
            return {}["missing"]

    for f in (lambda: data.Subset(Mine(), [0])[0], lambda: data.ConcatDataset([Mine()])[0], lambda: transforms.Compose([lambda x: {}["missing"]])(1)):
        with pytest.raises(KeyError, match="^'missing'$"):
            f()
    assert list(data.Subset("abc", [2, 0])) == ["c", "a"]  # ends by an IndexError


@pytest.mark.parametrize(
    ("items", "error", "match"),
    [
        ([1, "a"], TypeError, r"items of different kinds \(int, str\)"),
        ([1.5, None], TypeError, r"\(NoneType, float\)"),
        ([1, 2**70], OverflowError, "1180591620717411303424 is an integer that no dtype holds"),
        ([{"a": 1}, {"b": 2}], ValueError, "an item has no 'a', which the first one has; it has 'b'"),
        ([{"a": 1}, None], TypeError, r"\(NoneType, dict\)"),
        ([(1, 2), None], TypeError, r"\(NoneType, tuple\)"),
    ],
)
def test_items_that_are_not_alike_are_no_batch(items, error, match):
    for batch in (lambda: data.default_collate(items), lambda: next(iter(data.DataLoader(items, batch_size=2)))):
        with pytest.raises(error, match=f"default_collate: .*{match}"):
            batch()


@pytest.mark.cpu
def test_a_number_that_a_data_set_does_not_have_is_never_its_end():
    for inner in ([1, 2, 3], data.TensorDataset(md.arange(3))):
        part = data.Subset(inner, [0, 100, 1])
        for read in (lambda part=part: part[1], lambda part=part: list(part), lambda part=part: list(data.DataLoader(part, batch_size=3))):
            with pytest.raises(IndexError, match="Subset: item 1: list index out of range|TensorDataset: item 100 of 3"):
                read()
        with pytest.raises(IndexError, match="Subset: no item has the number 3; there are 3"):
            part[3]
