"""The loader in one process: samplers, combined data sets, foreign data sets, positions, and options that would do nothing."""

from __future__ import annotations

import itertools
import json
import random

import hypothesis.strategies as st
import loading
import numpy as np
import pytest
from hypothesis import given, settings

import minidl as md
from minidl.data import (
    BatchSampler,
    ChainDataset,
    ConcatDataset,
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    Sampler,
    SequentialSampler,
    StackDataset,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
    sample_key,
)

KEY = md.random.key(11)


def lists(loader):
    return [md.tree.map(lambda v: v.tolist() if isinstance(v, md.Tensor) else v, b) for b in loader]


# ---- samplers -----------------------------------------------------------------------------------------------------------------------------
def test_samplers_give_what_they_say():
    assert list(SequentialSampler("abc")) == [0, 1, 2]
    assert sorted(RandomSampler(range(9), generator=KEY)) == list(range(9)) and len(RandomSampler(range(9), num_samples=4)) == 4
    twice = list(RandomSampler(range(5), num_samples=13, generator=KEY))
    assert [sorted(twice[i : i + 5]) for i in (0, 5)] == [list(range(5))] * 2 and len(set(twice[10:])) == 3 and twice[:5] != twice[5:10]
    drawn = np.bincount(list(RandomSampler(range(4), True, 4000, KEY)), minlength=4)
    assert abs(drawn - 1000).max() < 110  # 4 deviations
    assert sorted(SubsetRandomSampler([7, 3, 5], KEY)) == [3, 5, 7]
    weights = [0.0, 1.0, 2.0, 5.0]
    drawn = np.bincount(list(WeightedRandomSampler(weights, 8000, generator=KEY)), minlength=4)
    assert drawn[0] == 0 and abs(drawn - 1000 * np.array(weights)).max() < 180
    firsts = [list(WeightedRandomSampler(weights, 3, False, md.random.fold_in(KEY, i))) for i in range(300)]
    assert all(sorted(f) == [1, 2, 3] for f in firsts) and abs(sum(f[0] == 3 for f in firsts) - 300 * 5 / 8) < 34
    assert list(BatchSampler(SequentialSampler(range(5)), 2, True)) == [[0, 1], [2, 3]] and len(BatchSampler(range(5), 2, False)) == 3
    key = RandomSampler(range(30), generator=KEY)
    first, second = list(key), list(key)
    assert first != second and list(RandomSampler(range(30), generator=KEY)) == first  # the k-th pass of a key is always the same
    for wrong in (
        lambda: RandomSampler(range(3), num_samples=0), lambda: WeightedRandomSampler([], 1), lambda: WeightedRandomSampler([-1.0, 2.0], 1),
        lambda: WeightedRandomSampler([0.0], 1), lambda: WeightedRandomSampler([[1.0]], 1),
        lambda: WeightedRandomSampler([1.0, 0.0], 2, False), lambda: WeightedRandomSampler([1.0], 0),
        lambda: BatchSampler(range(3), 0, False), lambda: BatchSampler(range(3), True, False), lambda: DistributedSampler(range(3), 2, 2),
        lambda: list(RandomSampler([], num_samples=2)),
    ):  # fmt: skip
        with pytest.raises(ValueError):
            wrong()
    with pytest.raises(NotImplementedError, match="Sampler"):
        list(Sampler())


@given(n=st.integers(1, 30), replicas=st.integers(1, 5), drop=st.booleans(), epoch=st.integers(0, 3))
def test_distributed_parts_are_torchs_and_cover_everything(n, replicas, drop, epoch):
    distributed = pytest.importorskip("torch.utils.data").DistributedSampler
    if drop and n < replicas:
        return
    parts = []
    for rank in range(replicas):
        mine, theirs = (kind(range(n), replicas, rank, False, drop_last=drop) for kind in (DistributedSampler, distributed))
        assert list(mine) == list(theirs) and len(mine) == len(theirs)
        shuffled = DistributedSampler(range(n), replicas, rank, seed=3, drop_last=drop)
        shuffled.set_epoch(epoch)
        parts.append(list(shuffled))
        assert len(parts[-1]) == len(shuffled)
    together = list(itertools.chain(*parts))
    assert len(set(together)) == (n if not drop else len(together))
    one = DistributedSampler(range(50), 1, 0)
    zero = list(DataLoader(range(50), 50, sampler=one))[0].tolist()
    one.set_epoch(1)
    assert list(DataLoader(range(50), 50, sampler=one))[0].tolist() != zero


@given(n=st.integers(0, 20), size=st.integers(1, 7), shuffle=st.booleans(), drop=st.booleans(), stop=st.integers(0, 12))
def test_every_pass_has_the_right_batches_and_resumes_anywhere(n, size, shuffle, drop, stop):
    make = lambda: DataLoader(TensorDataset(np.arange(n)), size, shuffle, drop_last=drop, generator=KEY)
    loader = make()
    first, second = [[x.tolist() for (x,) in loader] for _ in range(2)]
    assert len(first) == len(loader) and all(len(b) == size for b in first[: n // size])
    seen = list(itertools.chain(*first))
    assert len(set(seen)) == len(seen) == (n // size * size if drop else n) and (shuffle or seen == list(range(len(seen))))
    loader = make()
    list(loader)
    batches = iter(loader)
    got = [x.tolist() for (x,) in itertools.islice(batches, stop)]
    state = json.loads(json.dumps(loader.state_dict()))  # plain enough for any file
    again = make()
    again.load_state_dict(state)
    rest = [x.tolist() for (x,) in again]
    if stop <= len(loader):
        assert got + rest == second
    third = [x.tolist() for (x,) in again]
    assert third == [x.tolist() for (x,) in loader] if stop <= len(loader) else True
    assert not shuffle or n < 8 or third != second


# ---- the position -------------------------------------------------------------------------------------------------------------------------
def test_a_pass_begun_before_a_position_was_loaded_does_not_move_it():
    loader = DataLoader(range(10), 2, True, generator=md.random.key(3))
    batches = iter(loader)
    next(batches)
    state = loader.state_dict()
    loader.load_state_dict(state)
    rest = [b.tolist() for b in batches]
    assert loader.state_dict() == state and lists(loader) == rest


def test_a_generators_state_is_part_of_the_position():
    make = lambda seed: DataLoader(range(10), 2, True, generator=md.random.Generator(seed))
    one, two = make(5), make(99)
    list(one)
    batches = iter(one)
    next(batches)
    two.load_state_dict(one.state_dict())
    assert lists(two) == [b.tolist() for b in batches] and lists(two) == lists(one) and lists(two) == lists(one)
    sampler = RandomSampler(range(10), generator=md.random.Generator(1))
    one, two = DataLoader(range(10), 2, sampler=sampler), DataLoader(range(10), 2, sampler=RandomSampler(range(10), generator=md.random.Generator(8)))
    batches = iter(one)
    next(batches)
    two.load_state_dict(one.state_dict())
    assert lists(two) == [b.tolist() for b in batches] and lists(two) == lists(one)
    md.manual_seed(4)  # the default generator: this pass is in the state, later ones are the generator's
    one, two = (DataLoader(range(10), 2, True) for _ in range(2))
    batches = iter(one)
    next(batches)
    two.load_state_dict(one.state_dict())
    state = md.random.default_generator.key
    kept = state.detach()
    rest = [b.tolist() for b in batches]
    after = lists(one)
    md.random.default_generator.restore(kept)
    assert lists(two) == rest and lists(two) == after


def test_the_position_goes_through_a_checkpoint_and_on_to_another_backend(tmp_path):
    pytest.importorskip("torch")
    make = lambda: DataLoader(TensorDataset(np.arange(20)), 3, True, generator=md.random.Generator(3))
    loader = make()
    batches = iter(loader)
    next(batches), next(batches)
    md.saving.save(tmp_path / "state.safetensors", {"data": loader.state_dict()})
    want = [x.tolist() for (x,) in batches] + [x.tolist() for (x,) in loader]
    with md.use_backend("torch"):
        again = make()
        again.load_state_dict(md.saving.load(tmp_path / "state.safetensors")["data"])
        got = [x for (x,) in again] + [x for (x,) in again]
    assert [x.tolist() for x in got] == want and {x.backend for x in got} == {"torch"}


def test_a_state_of_something_else_is_refused_and_changes_nothing():
    loader = DataLoader(range(10), 2, True, generator=KEY)
    want = lists(DataLoader(range(10), 2, True, generator=KEY))
    state = loader.state_dict()
    for wrong, what in (
        ({}, "no state"), ({**state, "key": [1]}, "no state"), ({**state, "pass": "x"}, "no state"), ({**state, "batch": -1}, "damaged"),
        ({**state, "length": 9}, "'length': 9"), ({**state, "batch_size": 3}, "'batch_size': 3"), ({**state, "generators": [[0, 1]]}, "generators"),
        ({**state, "key": [0, 1], "order": None}, "damaged"), ({**state, "generators": [[0, -1]]}, "no state|damaged"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=what):
            loader.load_state_dict(wrong)
    assert lists(loader) == want


def test_two_passes_at_once_keep_apart():
    loader = DataLoader(range(6), 2, True, generator=KEY)
    want = lists(DataLoader(range(6), 2, True, generator=KEY))
    outer = [(a.tolist(), b.tolist()) for a, b in zip(loader, loader, strict=True)]
    assert [a for a, _ in outer] == want and [b for _, b in outer] != want
    assert loader.state_dict()["pass"] == 2


# ---- what is random belongs to the sample -------------------------------------------------------------------------------------------------
def test_what_a_sample_draws_depends_on_its_position_and_not_on_the_batches():
    """Keys of minidl by position; generators of Python, NumPy and torch by batch, and the user's are as they were afterwards."""
    torch = pytest.importorskip("torch")

    class Draws(Dataset):
        def __len__(self):
            return 12

        def __getitem__(self, i):
            return md.random.uniform(sample_key(), (2,)), random.random(), np.random.rand(), torch.rand(())

    states = lambda: (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    before, default = states(), md.random.default_generator.key.tolist()
    runs = [list(DataLoader(Draws(), size, generator=KEY)) for size in (4, 4, 3)]
    assert states() == before and md.random.default_generator.key.tolist() == default
    keys = [np.concatenate([b[0].numpy() for b in run]) for run in runs]
    assert (keys[0] == keys[1]).all() and (keys[0] == keys[2]).all() and len(np.unique(keys[0])) == 24
    for field in (1, 2, 3):
        values = [[b[field].tolist() for b in run] for run in runs]
        assert values[0] == values[1] and len(set(itertools.chain(*values[0]))) == 12
    assert (sample_key() != sample_key()).any().item()  # outside a loader


# ---- combined data sets -------------------------------------------------------------------------------------------------------------------
@settings(max_examples=30)
@given(st.lists(st.integers(0, 12), max_size=8))
def test_a_batch_at_once_is_the_items_stacked(numbers):
    """Whatever data sets are made of: the gather of a batch and the items one by one are the same."""
    a, b = TensorDataset(np.arange(8), md.arange(8) * 2.0), TensorDataset(np.arange(10, 15), md.arange(5) * 3.0)
    both = ConcatDataset([a, b])
    every = [both, Subset(both, list(range(12, -1, -1))), StackDataset(both, Subset(both, list(range(13)))), StackDataset(x=both)]
    for dataset in every:
        assert len(dataset) == 13 and dataset[-1] is not None
        if numbers:
            batch = dataset.gather(np.array(numbers))
            items = [dataset[n] for n in numbers]
            for i, leaf in enumerate(md.tree.leaves(batch)):
                assert np.asarray(leaf).tolist() == [np.asarray(md.tree.leaves(item)[i].tolist()).tolist() for item in items]


def test_combined_data_sets():
    plus = TensorDataset(md.arange(3)) + [[md.tensor(7)]]
    assert isinstance(plus, ConcatDataset) and plus[3][0].item() == 7 and plus.cumulative_sizes == [3, 4] and plus.gather(np.array([0, 3])) is None
    assert lists(DataLoader(plus, 4)) == [[[0, 1, 2, 7]]]
    assert lists(DataLoader(StackDataset(x=[1, 2, 3], name=["a", "b", "c"]), 2)) == [{"x": [1, 2], "name": ["a", "b"]}, {"x": [3], "name": ["c"]}]
    assert isinstance(loading.Stream(2) + loading.Stream(1), ChainDataset)
    assert [len(b[0]) for b in DataLoader(loading.Stream(2) + loading.Stream(1), 2)] == [2, 1]
    for wrong in (lambda: ConcatDataset([]), lambda: ConcatDataset([loading.Stream()]), lambda: StackDataset(), lambda: StackDataset([1], x=[1]),
                  lambda: StackDataset([1], [1, 2]), lambda: TensorDataset(md.tensor(1.0))):  # fmt: skip
        with pytest.raises(ValueError):
            wrong()
    for dataset in (plus, StackDataset([1, 2])):
        with pytest.raises(IndexError):
            dataset[4]
    with pytest.raises(NotImplementedError, match="__getitem__"):
        Dataset()[0]
    with pytest.raises(NotImplementedError, match="__iter__"):
        iter(IterableDataset())


# ---- data sets of others ------------------------------------------------------------------------------------------------------------------
def test_data_sets_and_samplers_of_torch(backend):
    torch_data = pytest.importorskip("torch.utils.data")
    import torch

    x, y = torch.arange(24.0).reshape(8, 3), torch.arange(8)
    data = torch_data.TensorDataset(x, y)
    for source in (data, torch_data.Subset(data, range(8)), torch_data.ConcatDataset([data]), list(data)):
        batches = list(DataLoader(source, 4))
        want = list(torch_data.DataLoader(source, 4))
        assert all(isinstance(v, md.Tensor) and v.backend == backend for b in batches for v in b)
        assert lists(batches) == [[v.tolist() for v in b] for b in want]
    bits = next(iter(DataLoader(torch_data.TensorDataset(x > 3, x.half()), 8)))
    assert bits[0].dtype is md.bool and bits[1].dtype is md.float16
    sampler = torch_data.RandomSampler(data)  # draws from torch's generator, which the key of the pass decides while it does
    make = lambda: DataLoader(data, 2, sampler=sampler, generator=KEY)
    want = lists(make())
    loader = make()
    batches = iter(loader)
    first = lists([next(batches)])
    again = make()
    again.load_state_dict(loader.state_dict())
    assert first + lists(again) == want and sorted(itertools.chain(*(b[1] for b in want))) == list(range(8))
    groups = DataLoader(data, batch_sampler=torch_data.BatchSampler(torch_data.SequentialSampler(data), 3, True))
    assert [b[1] for b in lists(groups)] == [[0, 1, 2], [3, 4, 5]] and len(groups) == 2


def test_data_sets_of_hugging_face():
    datasets = pytest.importorskip("datasets")
    rows = {"x": [[float(i), i + 0.5] for i in range(10)], "label": list(range(10)), "text": [str(i) for i in range(10)]}
    source = datasets.Dataset.from_dict(rows)
    batch = next(iter(DataLoader(source, 4)))
    assert batch["label"].tolist() == [0, 1, 2, 3] and batch["text"] == ["0", "1", "2", "3"]
    assert len(batch["x"]) == 2 and batch["x"][1][2].item() == 2.5
    numbers = next(iter(DataLoader(source.with_format("numpy", columns=["x", "label"]), 4)))
    assert numbers["x"].shape == (4, 2) and numbers["label"].tolist() == [0, 1, 2, 3]
    torch_format = next(iter(DataLoader(source.with_format("torch", columns=["x"]), 3)))
    assert isinstance(torch_format["x"], md.Tensor) and torch_format["x"].shape == (3, 2)
    shuffled = lists(DataLoader(source.select_columns("label"), 5, True, generator=KEY))
    assert sorted(shuffled[0]["label"] + shuffled[1]["label"]) == list(range(10))
    stream = source.to_iterable_dataset()
    for workers in (0, 2):
        assert [b["label"] for b in lists(DataLoader(stream, 4, num_workers=workers))] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


def test_arrays_memmaps_and_plain_iterables(tmp_path):
    rows = np.memmap(tmp_path / "rows", np.int32, "w+", shape=(10, 3))
    rows[:] = np.arange(30).reshape(10, 3)
    rows.flush()
    read = np.memmap(tmp_path / "rows", np.int32, "r", shape=(10, 3))
    (batch,) = DataLoader(read, 10)
    assert batch.tolist() == rows.tolist() and batch.dtype is md.int32
    pairs = DataLoader(TensorDataset(read, np.arange(10)), 4, True, generator=KEY)
    assert all((x[:, 0] == y.to(md.int32) * 3).all().item() for x, y in pairs)
    assert lists(DataLoader(md.arange(5), 3)) == [[0, 1, 2], [3, 4]]
    squares = DataLoader((i * i for i in range(5)), 2)
    assert lists(squares) == [[0, 1], [4, 9], [16]] and lists(squares) == []  # a generator is used up
    lines = tmp_path / "lines.txt"
    lines.write_text("a\nb\n")
    with lines.open() as file:
        assert list(DataLoader(file, 5)) == [["a\n", "b\n"]]
    assert lists(DataLoader({0: 1.5, 1: 2.5}, 2)) == [[1.5, 2.5]]
    assert list(DataLoader(["ab", "cd"], None)) == ["ab", "cd"] and lists(DataLoader([np.ones(2)], None)) == [[1.0, 1.0]]
    with pytest.raises(TypeError, match="int has not"):
        DataLoader(3)


# ---- batches ------------------------------------------------------------------------------------------------------------------------------
def test_a_batch_never_shows_the_memory_of_the_data_set(backend):
    """Neither where a batch is one gather, nor where collate_fn hands on an array of the data set."""
    source = np.zeros((4, 2), np.float32)
    given_on = DataLoader([source], 1, collate_fn=loading.only)
    for loader in (DataLoader(source, 4), DataLoader(TensorDataset(source), 4), given_on, DataLoader([source], None)):
        batch = md.tree.leaves(next(iter(loader)))[0]
        batch += 1.0
        assert not source.any() and batch.backend == backend


def test_a_batch_of_tracked_tensors_is_tracked():
    weights = md.arange(6.0).requires_grad_()
    loader = DataLoader(TensorDataset(weights), 2, sampler=[4, 1, 4])
    sum((x * x).sum() for (x,) in loader).backward()
    assert weights.grad.tolist() == [0, 2, 0, 0, 16, 0] and TensorDataset(weights)[3][0].requires_grad


def test_a_batch_lies_where_the_loader_was_told():
    pytest.importorskip("torch")
    (batch,) = DataLoader(range(3), 3, backend="torch")
    assert batch.backend == "torch" and batch.device == "cpu"


def test_a_device_gets_the_next_batch_while_this_one_is_used(monkeypatch):
    """On a device other than the CPU batch k + 1 is placed before batch k is handed out; the position counts what was handed out."""
    from minidl.data import loader as module

    placed = []
    place = lambda batch, **_: placed.append(batch.tolist()) or batch
    monkeypatch.setattr(module, "tensors", place)
    monkeypatch.setattr(module.md, "empty", lambda *_, **__: type("Far", (), {"backend": "torch", "device": "cuda:0"})())
    loader = DataLoader(range(6), 2, device="cuda:0", backend="torch")
    for i, batch in enumerate(loader):
        assert batch.tolist() == [2 * i, 2 * i + 1] and len(placed) == min(i + 2, 3) and loader.state_dict()["batch"] == i + 1
    assert i == 2


def test_items_that_do_not_fit_together_are_named():
    for items, what in (([np.ones(2), np.ones(3)], r"shapes \(2,\), \(3,\)"), ([[1, 2], [3]], "different lengths .1, 2.")):
        with pytest.raises(ValueError, match=f"default_collate: .*{what}.*PadCollate"):
            list(DataLoader(items, 2))


def test_options_that_exclude_each_other_or_would_do_nothing():
    data, stream = range(4), loading.Stream()
    for options, what in (
        ({"batch_size": 0}, "at least 1"), ({"batch_size": 2.0}, "at least 1"), ({"in_order": False}, "in order"),
        ({"shuffle": True, "sampler": [1]}, "exclude"), ({"batch_sampler": [[1]], "batch_size": 2}, "excludes"),
        ({"num_workers": -1}, "negative"), ({"prefetch_factor": 2}, "without workers"),
        ({"batch_sampler": [[1]], "drop_last": True}, "excludes"), ({"batch_size": None, "drop_last": True}, "do nothing"),
        ({"persistent_workers": True}, "without workers"), ({"timeout": 3}, "without workers"),
        ({"multiprocessing_context": "fork"}, "without workers"), ({"num_workers": 1, "prefetch_factor": 0}, "prefetch_factor"),
        ({"dataset": stream, "shuffle": True}, "order of its own"), ({"dataset": stream, "sampler": [1]}, "order of its own"),
        ({"num_workers": 1, "timeout": -1}, "negative"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=what):
            DataLoader(**{"dataset": data, **options})
    with pytest.raises(TypeError, match="a key"):
        DataLoader(data, generator=3)
    with pytest.raises(TypeError, match="len"):
        len(DataLoader(stream))


def test_the_loader_takes_torchs_arguments():
    torch = pytest.importorskip("torch")
    import inspect

    ours, theirs = (inspect.signature(c).parameters for c in (DataLoader, torch.utils.data.DataLoader))
    assert [(n, p.default, p.kind) for n, p in ours.items()][: len(theirs)] == [(n, p.default, p.kind) for n, p in theirs.items()]
    for c in (DataLoader, torch.utils.data.DataLoader):
        assert [b.tolist() for b in c(range(4), 2, pin_memory=False, worker_init_fn=print, in_order=True)] == [[0, 1], [2, 3]]
    assert len(DataLoader(range(4), 2, pin_memory=True, pin_memory_device="cuda")) == 2
