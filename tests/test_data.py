"""Data sets and loaders, and the digits that the package ships."""

from __future__ import annotations

from collections import namedtuple

import numpy as np
import pytest

import minidl as md
from minidl.data import DataLoader, Dataset, Subset, TensorDataset, default_collate, digits, random_split


@pytest.fixture(autouse=True)
def seeded():
    md.manual_seed(0)


class Squares(Dataset):
    def __len__(self):
        return 10

    def __getitem__(self, i):
        return {"x": np.float32(i), "square": i * i, "name": str(i)}


def test_batches_in_order():
    loader = DataLoader(TensorDataset(md.arange(10), md.arange(10) * 2.0), batch_size=4)
    batches = list(loader)
    assert len(loader) == 3 and [x.tolist() for x, _ in batches] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert batches[2][1].tolist() == [16.0, 18.0]
    dropping = DataLoader(range(10), batch_size=4, drop_last=True)
    assert len(dropping) == 2 and [b.tolist() for b in dropping] == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert [b.tolist() for b in DataLoader([3, 5])] == [[3], [5]]


def test_shuffling_takes_each_item_once_and_a_new_order_each_pass():
    loader = DataLoader(TensorDataset(np.arange(50)), batch_size=8, shuffle=True)
    first, second = ([v for (x,) in loader for v in x.tolist()] for _ in range(2))
    assert sorted(first) == sorted(second) == list(range(50)) and first != second and first != list(range(50))
    md.manual_seed(0)
    assert [v for (x,) in loader for v in x.tolist()] == first


def test_shuffling_by_key_or_generator_leaves_the_default_generator_alone():
    for source in (lambda: md.random.key(3), lambda: md.random.Generator(3)):
        a, b = (DataLoader(range(20), batch_size=20, shuffle=True, generator=source()) for _ in range(2))
        first = [list(a)[0].tolist() for _ in range(2)]
        md.random.default_generator.next_key()
        assert [list(b)[0].tolist() for _ in range(2)] == first and first[0] != first[1]
    md.manual_seed(0)
    state = md.random.default_generator.key.tolist()
    list(DataLoader(range(20), shuffle=True, generator=md.random.key(1)))
    assert md.random.default_generator.key.tolist() == state


def test_the_order_is_the_same_on_every_backend():
    loader = DataLoader(TensorDataset(np.arange(30)), batch_size=30, shuffle=True, generator=md.random.key(5))
    (want,) = next(iter(loader))
    for name in ("torch", "jax"):
        pytest.importorskip(name)
        with md.use_backend(name):
            (got,) = next(iter(DataLoader(loader.dataset, 30, True, generator=md.random.key(5))))
        assert got.backend == name and got.tolist() == want.tolist()


def test_collating():
    batch = next(iter(DataLoader(Squares(), batch_size=3)))
    assert batch["x"].dtype is md.float32 and batch["square"].tolist() == [0, 1, 4] and batch["name"] == ["0", "1", "2"]
    Point = namedtuple("Point", "x y")
    point = default_collate([Point(md.ones(2), 1.0), Point(md.zeros(2), 2.0)])
    assert point.x.shape == (2, 2) and point.y.tolist() == [1.0, 2.0]
    assert next(iter(DataLoader(Squares(), 2, collate_fn=lambda items: [i["name"] for i in items]))) == ["0", "1"]
    with pytest.raises(ValueError, match="batch_size"):
        DataLoader(range(3), batch_size=0)


def test_splits_and_subsets():
    data = TensorDataset(md.arange(10))
    parts = random_split(data, [7, 3])
    assert [len(p) for p in parts] == [7, 3] and sorted(p[i][0].item() for p in parts for i in range(len(p))) == list(range(10))
    assert [len(p) for p in random_split(data, [0.55, 0.45], md.random.key(0))] == [6, 4]
    subset = Subset(data, [8, 1, 4])
    assert [x.tolist() for (x,) in DataLoader(subset, batch_size=2)] == [[8, 1], [4]] and subset[2][0].item() == 4
    nested = Subset(subset, [2, 0])
    assert next(iter(DataLoader(nested, batch_size=2)))[0].tolist() == [4, 8]
    with pytest.raises(ValueError, match="add up"):
        random_split(data, [1, 2])
    with pytest.raises(ValueError, match="length"):
        TensorDataset(md.ones(2), md.ones(3))
    with pytest.raises(IndexError):
        data[10]


def test_digits_are_the_published_ones_split_by_digit():
    train, test = digits()
    assert len(train) + len(test) == 1797 and train.tensors[0].shape[1:] == (3, 32, 32) and train.tensors[0].dtype is md.float32
    counts = [np.bincount(part.tensors[1].numpy(), minlength=10) for part in (train, test)]
    assert (counts[0] + counts[1]).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert (counts[1] == (counts[0] + counts[1]) // 5).all()
    x = train.tensors[0].numpy()
    assert x.min() == 0 and x.max() == 1 and (x[:, 0] == x[:, 2]).all() and (x[:, :, 1::4, 3::4] == x[:, :, ::4, ::4]).all()
    seen = {v.tobytes() for v in x[:, 0]}
    assert not any(v.tobytes() in seen for v in test.tensors[0].numpy()[:, 0])  # no test scan was trained on
    assert digits("float64")[0].tensors[0].dtype is md.float64
    sklearn = pytest.importorskip("sklearn.datasets")
    published = sklearn.load_digits()
    assert (md.data.digits_arrays()[0] == published.images).all() and (md.data.digits_arrays()[1] == published.target).all()


@pytest.mark.parametrize("part", [slice(None), slice(1, 3), slice(None, None, -2), slice(5, 2), slice(-2, 99)])
def test_a_slice_of_tensors_is_that_of_each(part, backend):
    numbers = np.arange(10).reshape(5, 2)
    found = md.data.TensorDataset(md.asarray(numbers), md.asarray(numbers[:, 0]), numbers)[part]
    assert type(found) is tuple
    assert [np.asarray(t).tolist() for t in found] == [numbers[part].tolist(), numbers[part, 0].tolist(), numbers[part].tolist()]


def test_a_batch_of_dicts_keeps_their_type():
    from collections import Counter, OrderedDict, defaultdict

    class Sample(dict):
        pass

    for kind in (OrderedDict, Sample, Counter, lambda **k: defaultdict(int, k)):
        items = [kind(b=1, a=2), kind(b=3, a=4)]
        batch = md.data.default_collate(items)
        assert type(batch) is type(items[0])
        assert {k: v.tolist() for k, v in batch.items()} == {"b": [1, 3], "a": [2, 4]}
        assert items[0]["b"] == 1
        assert list(batch) == ["b", "a"]
    (batch,) = md.data.DataLoader([OrderedDict(a=1), OrderedDict(a=2)], batch_size=2)
    assert type(batch) is OrderedDict
    assert batch["a"].tolist() == [1, 2]
