"""Whole programs in PyTorch's words: what they met, each of it by itself."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import minidl as md
from minidl import nn
from minidl.data import DataLoader, Dataset, TensorDataset
from minidl.train import Accuracy, EarlyStopping, Trainer


@pytest.mark.parametrize("name", ["std", "var"])
@pytest.mark.parametrize("params", [{"dim": 1, "keepdim": True}, {"dim": (0, 1)}, {"dim": 0, "correction": 0}, {"dim": 0, "unbiased": False}])
def test_std_and_var_in_pytorchs_words_are_pytorchs(name, params):
    torch = pytest.importorskip("torch")
    data = np.random.default_rng(0).normal(size=(3, 4))
    wanted, x = getattr(torch.tensor(data), name)(**params).numpy(), md.tensor(data)
    for out in (getattr(x, name)(**params), getattr(md, name)(x, **params), md.jit(lambda x: getattr(x, name)(**params))(x)):
        assert out.shape == wanted.shape and np.allclose(out.numpy(), wanted)
    assert np.allclose(getattr(x, name)(axis=0).numpy(), getattr(data, name)(0)) and np.allclose(getattr(x, name)(0).numpy(), getattr(data, name)(0))


def test_the_median_along_pytorchs_dim_has_pytorchs_two_results():
    torch = pytest.importorskip("torch")
    data = np.array([[3.0, 1.0, 2.0, 4.0], [1.0, np.nan, 0.0, 2.0], [5.0, 4.0, 7.0, 6.0]])
    for params in ({"dim": 0}, {"dim": 1}, {"dim": -1, "keepdim": True}):
        wanted, out = torch.tensor(data).median(**params), md.tensor(data).median(**params)
        assert all(np.array_equal(a.numpy(), b.numpy(), equal_nan=True) for a, b in zip(out, wanted, strict=True))
    x = md.tensor([[4.0, 1.0, 3.0, 2.0]], requires_grad=True)
    md.jit(lambda x: x.median(dim=1).values.sum())(x).backward()
    assert x.grad.tolist() == [[0, 0, 0, 1]] and x.median(1).tolist() == [2.5]
    with pytest.raises(ValueError, match=r"median: axis 1 of shape \(2, 0\) is empty"):
        md.zeros((2, 0)).median(dim=1)


def test_what_is_noted_on_a_parameter_stays_with_it_and_is_guarded():
    net = nn.Linear(2, 2)
    net.bias.no_decay = True
    for other in (copy.copy(net.bias), copy.deepcopy(net).bias, pickle.loads(pickle.dumps(net.bias)), copy.deepcopy(net).double().bias):
        assert other.no_decay
    x, double = md.ones(1, 2), md.jit(lambda x: x * (2 if net.bias.no_decay else 1) * (3 if getattr(net.weight, "thrice", False) else 1))
    assert double(x).tolist() == [[2, 2]]
    net.bias.no_decay = False
    assert double(x).tolist() == [[1, 1]]
    net.weight.thrice = True
    assert double(x).tolist() == [[3, 3]]


class Noise(Dataset):
    def __len__(self):
        return 8

    def __getitem__(self, i):
        return md.rand(1).item(), md.initial_seed()


def test_draws_of_a_data_set_differ_between_workers_and_passes_and_are_the_same_for_any_number_of_them():
    def passes(workers):
        loader = DataLoader(Noise(), batch_size=2, num_workers=workers, persistent_workers=workers > 0, generator=md.random.Generator(5))
        return [[column.tolist() for column in batch] for _ in range(2) for batch in loader]

    md.manual_seed(3)
    alone, two = passes(0), passes(2)
    assert [b[0] for b in alone] == [b[0] for b in two] and len({v for b in alone for v in b[0]}) == 16
    assert {v for b in alone for v in b[1]} == {3} and len({v for b in two for v in b[1]}) == 2  # each worker's own
    before = md.random.default_generator.get_state()
    list(DataLoader(Noise(), generator=md.random.key(0)))
    assert before.tolist() == md.random.default_generator.get_state().tolist()


def test_a_compiled_loss_tells_of_a_class_that_is_not_there():
    scores = md.zeros(2, 3)
    for params in ({}, {"label_smoothing": 0.1}, {"weight": md.ones(3)}, {"ignore_index": 1}):
        loss = md.jit(lambda s, y, params=params: nn.functional.cross_entropy(s, y, **params))
        with md.out_of_bounds("raise-later"):
            loss(scores, md.tensor([0, 2])).item(), loss(scores, md.tensor([params.get("ignore_index", -100), 2])).item()
            for wrong in (3, -1):
                out = loss(scores, md.tensor([wrong, 0]))
                with pytest.raises(IndexError, match="the scores have classes 0 to 2"):
                    out.item()
    with pytest.raises(ValueError, match=r"numbers of classes are integers: target.to\(md.int64\)"):
        nn.functional.cross_entropy(scores, md.zeros(2))


def _trainer(**params):
    net = nn.Linear(4, 3)
    return Trainer(net, nn.CrossEntropyLoss(), md.optim.SGD(net.parameters(), lr=0.1), progress=False, **params)


X, Y = md.ones(6, 4), md.tensor([0, 1, 2, 0, 1, 2])


@pytest.mark.parametrize(
    ("error", "text", "f"),
    [
        (IndexError, "a class that is not there", lambda: _trainer().fit([(X, Y + 1)], 1)),
        (IndexError, "a class that is not there", lambda: _trainer().evaluate([(X, Y - 1)])),
        (TypeError, "not an array", lambda: _trainer().predict(X)),
        (TypeError, "not a data set", lambda: _trainer().fit(TensorDataset(X, Y), 1)),
        (TypeError, "epochs is an integer", lambda: _trainer().fit([(X, Y)], 1.5)),
        (TypeError, r"a metric is an object, not a class; write Accuracy\(...\)", lambda: _trainer(metrics=[Accuracy])),
        (TypeError, "not 'accuracy'", lambda: _trainer(metrics=["accuracy"])),
        (TypeError, "a callback is an object", lambda: _trainer(callbacks=[EarlyStopping])),
        (ValueError, "its data set is empty", lambda: _trainer().fit(DataLoader(TensorDataset(X[:0], Y[:0]), 2), 1)),
        (ValueError, "fewer than a batch", lambda: _trainer().fit(DataLoader(TensorDataset(X, Y), 8, drop_last=True), 1)),
        (FileNotFoundError, "there is no nowhere to resume from", lambda: _trainer().fit([(X, Y)], 1, resume="nowhere")),
    ],
)
def test_a_trainer_says_what_is_wrong(error, text, f):
    with pytest.raises(error, match=text):
        f()


def test_a_trainer_and_an_optimizer_tell_of_parameters_that_were_replaced():
    net = nn.Linear(4, 3)
    optimizer = md.optim.SGD(net.parameters(), lr=0.1)
    schedule = md.optim.lr_scheduler.StepLR(md.optim.SGD(net.parameters(), lr=0.1), 1)
    with pytest.raises(ValueError, match="the scheduler is for another optimizer"):
        Trainer(net, nn.CrossEntropyLoss(), optimizer, scheduler=schedule)
    net.to("cpu").float()(X).sum().backward()
    optimizer.step()
    net.double()(X.double()).sum().backward()
    for step in (optimizer.step, md.jit(optimizer.step)):
        with pytest.raises(RuntimeError, match=r"SGD.step: the model has another parameter in the place of this one of shape \(3, 4\)"):
            step()
    with pytest.warns(UserWarning, match="the optimizer has no parameter of the model"), pytest.raises(RuntimeError, match="another parameter"):
        Trainer(net, nn.CrossEntropyLoss(), optimizer, progress=False).fit([(X.double(), Y)], 1)
    for again in (copy.copy, copy.deepcopy):  # which another model may train
        md.optim.SGD([again(optimizer.param_groups[0]["params"][0])], lr=0.1).step()
    assert not getattr(copy.deepcopy(net).weight, "_replaced", False)


@pytest.mark.parametrize(
    "params",
    [{"n_fft": 8, "hop_length": 3, "win_length": 6}, {"n_fft": 9, "hop_length": 2, "normalized": True}, {"n_fft": 8, "onesided": False}],
)
def test_short_time_fourier_transforms_and_windows_are_pytorchs(params):
    torch = pytest.importorskip("torch")
    data = np.random.default_rng(0).normal(size=(2, 40))
    size = params.get("win_length", params["n_fft"])
    for name in ("hann", "hamming", "blackman", "bartlett"):
        for periodic in (True, False):
            wanted = getattr(torch, f"{name}_window")(size, periodic=periodic, dtype=torch.float64)
            assert np.allclose(getattr(md, f"{name}_window")(size, periodic, dtype=md.float64).numpy(), wanted.numpy())
    theirs, ours = torch.hann_window(size, dtype=torch.float64), md.hann_window(size, dtype=md.float64)
    x, v = torch.tensor(data, requires_grad=True), md.tensor(data)
    wanted = torch.stft(x, window=theirs, return_complex=True, **params)
    power = lambda v: (md.stft(v, window=ours, **params).abs() ** 2).sum()
    assert np.allclose(md.stft(v, window=ours, **params).numpy(), wanted.detach().numpy())
    wanted.abs().pow(2).sum().backward()
    assert np.allclose(md.grad(power)(v).numpy(), x.grad.numpy()) and np.allclose(md.jit(power)(v).item(), wanted.abs().pow(2).sum().item())
    again = md.istft(md.stft(v[0], window=ours, **params), window=ours, length=37, **params)
    assert np.allclose(again.numpy(), data[0, :37])
    with pytest.raises(ValueError, match="the windows leave out a place"):
        md.istft(md.stft(v, 8, 8, window=md.hann_window(8)), 8, 8, window=md.hann_window(8))


def test_modes_and_masked_scatter_are_pytorchs(backend):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    data, mask, source = rng.integers(0, 4, (5, 7)).astype(float), rng.random((5, 7)) > 0.5, rng.normal(size=40)
    for dim in (0, 1):
        found = md.tensor(data).mode(dim)
        assert np.array_equal(found.values.numpy(), torch.tensor(data).mode(dim).values.numpy())
        assert np.array_equal(md.take_along_axis(md.tensor(data), found.indices.unsqueeze(dim), axis=dim).squeeze(dim).numpy(), found.values.numpy())
    wanted = torch.tensor(data).masked_scatter(torch.tensor(mask), torch.tensor(source)).numpy()
    filled = lambda x, s: x.masked_scatter(md.tensor(mask), s)
    assert np.array_equal(filled(md.tensor(data), md.tensor(source)).numpy(), wanted)
    assert np.array_equal(md.jit(filled)(md.tensor(data), md.tensor(source)).numpy(), wanted)
    grads = md.grad(lambda x, s: filled(x, s).sum(), argnums=(0, 1))(md.tensor(data), md.tensor(source))
    assert np.array_equal(grads[0].numpy(), ~mask) and grads[1].tolist() == [float(i < mask.sum()) for i in range(40)]
    x = md.tensor(data)
    assert np.array_equal(x.masked_scatter_(md.tensor(mask), md.tensor(source)).numpy(), wanted) and np.array_equal(x.numpy(), wanted)
    with pytest.raises(ValueError, match="the mask has 3 places, and source 2 elements"):
        md.zeros(3).masked_scatter(md.tensor([True] * 3), md.ones(2))
    assert md.LongTensor(2, 3).shape == md.Size([2, 3]) and md.FloatTensor([1, 2]).tolist() == [1.0, 2.0]


def test_the_attributes_of_a_functions_context_are_the_users():
    class Times(md.autograd.Function):
        @staticmethod
        def forward(ctx, x, constant):
            ctx.constant, ctx.changed, ctx.marks = constant, 2.0, None
            return x * constant

        @staticmethod
        def backward(ctx, g):
            return g * ctx.constant * ctx.changed, None

    for f in (Times.apply, md.jit(Times.apply)):
        x = md.tensor([1.0], requires_grad=True)
        f(x, 5.5).sum().backward()
        assert x.grad.tolist() == [11.0]
