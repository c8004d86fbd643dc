"""The Trainer: what it trains is what the loop by hand trains, on every backend, and whatever ends it, it goes on as if nothing had happened."""

from __future__ import annotations

import math
import re
import signal
import threading
import xml.etree.ElementTree as ET
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import minidl as md
from minidl.data import DataLoader, TensorDataset
from minidl.train import Accuracy, Callback, ConfusionMatrix, EarlyStopping, History, LearningRateLogger, ModelCheckpoint, Trainer

VALUES = np.random.default_rng(0)
X, Y = VALUES.normal(size=(40, 4)), VALUES.integers(0, 3, 40)


def loader(batch: int = 8, shuffle: bool = True) -> DataLoader:
    return DataLoader(TensorDataset(X, Y), batch_size=batch, shuffle=shuffle)


def trainer(seed: int = 0, **options: Any) -> Trainer:
    """A small network with everything that has state: batch norm, dropout, momentum, a schedule, a metric."""
    md.random.manual_seed(seed)
    model = md.nn.Sequential(md.nn.Linear(4, 8), md.nn.BatchNorm1d(8), md.nn.ReLU(), md.nn.Dropout(0.2), md.nn.Linear(8, 3)).to(dtype=md.float64)
    optimizer = md.optim.SGD(model.parameters(), lr=0.2, momentum=0.9)
    schedule = md.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
    options = {"scheduler": schedule, "metrics": [Accuracy()], "jit": False, "progress": False, **options}
    return Trainer(model, md.nn.CrossEntropyLoss(), optimizer, **options)


def by_hand(t: Trainer, batches: Any, epochs: int) -> list[float]:
    """The loop that a user would write."""
    losses = []
    for _ in range(epochs):
        for x, y in batches:
            t.optimizer.zero_grad()
            loss = t.loss(t.model(x), y)
            loss.backward()
            t.optimizer.step()
            losses.append(loss.item())
        t.scheduler.step()
    return losses


@pytest.fixture(scope="module")
def expected() -> tuple[list[float], list[dict[str, float]]]:
    """Losses and rows of three epochs on numpy, eager, without interruption."""
    with md.use_backend("numpy"):
        t = trainer()
        t.fit(loader(), 3, validation=loader(20, shuffle=False))
        return t.history.batches, t.history.epochs


def test_it_trains_as_the_loop_by_hand(expected):
    losses, rows = expected
    np.testing.assert_allclose(losses, by_hand(trainer(), loader(), 3), rtol=1e-12)
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    np.testing.assert_allclose([row["loss"] for row in rows], np.reshape(losses, (3, 5)).mean(1), rtol=1e-12)
    assert all(0 <= row["accuracy"] <= 1 and 0 <= row["val_accuracy"] <= 1 and row["val_loss"] > 0 for row in rows)


#: To compile the operations one by one, as jax and numba do, takes a minute, and says no more about the Trainer.
WAYS = [("numpy", False), ("numpy", True), ("torch", False), ("torch", True), ("numba", True), ("jax", True)]


@pytest.mark.parametrize(("name", "jit"), WAYS)
def test_the_same_numbers_on_every_backend(name, jit, expected):
    with md.use_backend(name):
        t = trainer(jit=jit)
        t.fit(loader(), 2, validation=loader(20, shuffle=False))
    np.testing.assert_allclose(t.history.batches, expected[0][:10], rtol=1e-9)
    for row, wanted in zip(t.history.epochs, expected[1], strict=False):
        assert row == pytest.approx(wanted, rel=1e-9)
    assert all(p.backend == name for p in t.model.parameters())


# ---- interrupted and resumed ----------------------------------------------------------------------------------------------------------------
class At(Callback):
    """Do something after so many batches."""

    def __init__(self, batches: int, what: Any):
        self.batches, self.what = batches, what

    def on_batch_end(self, trainer: Any) -> None:
        if trainer.batches == self.batches:
            self.what(trainer)


@pytest.mark.parametrize(("name", "at"), [("numpy", 3), ("numpy", 5), ("numpy", 7), ("torch", 7), ("numba", 7), ("jax", 7)])
def test_a_checkpoint_in_the_middle_of_an_epoch_goes_on_with_the_same_losses(name, at, expected, tmp_path):
    path = tmp_path / "half.safetensors"
    with md.use_backend("numpy"):
        t = trainer(callbacks=[At(at, lambda t: t.save(path))])
        t.fit(loader(), 3, validation=loader(20, shuffle=False))
        np.testing.assert_allclose(t.history.batches, expected[0], rtol=1e-12)  # to save disturbs nothing
    with md.use_backend(name):
        again = trainer(seed=99, jit=name != "numpy", callbacks=[Callback()])
        history = again.fit(loader(), 3, validation=loader(20, shuffle=False), resume=path)
    np.testing.assert_allclose(history.batches, expected[0], rtol=1e-9)
    for row, wanted in zip(history.epochs, expected[1], strict=True):
        assert row == pytest.approx(wanted, rel=1e-9)


@pytest.mark.parametrize("epochs", [0, 1, 2])
def test_a_checkpoint_between_epochs_goes_on_with_the_same_losses(epochs, expected, tmp_path):
    t = trainer()
    t.fit(loader(), epochs, validation=loader(20, shuffle=False))
    t.save(tmp_path / "whole.safetensors")
    key = md.random.default_generator.key.detach()
    again = trainer(seed=99)
    again.load(tmp_path / "whole.safetensors")
    assert again.epoch == epochs
    history = again.fit(loader(), 3, validation=loader(20, shuffle=False))
    np.testing.assert_allclose(history.batches, expected[0], rtol=1e-12)
    assert history.epochs == [pytest.approx(row) for row in expected[1]]
    assert t.fit(loader(), epochs) is t.history and t.epoch == epochs  # done is done
    md.random.default_generator.restore(key)
    assert t.fit(loader(), 3, validation=loader(20, shuffle=False)).batches == pytest.approx(expected[0])  # the same object goes on as well


FIXED = [(X[i : i + 8], Y[i : i + 8]) for i in range(0, 40, 8)]


class Position:
    """A loader that saves its position, as torchdata's StatefulDataLoader does: a state from the end of a pass begins the next one."""

    def __init__(self) -> None:
        self.at, self.batches = 0, FIXED

    def __iter__(self) -> Any:
        for b in self.batches[self.at :]:
            self.at += 1
            yield b
        self.at = 0

    def state_dict(self) -> dict[str, int]:
        return {"at": self.at}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.at = state["at"]


class Emptied(Position):
    """One whose state at the end of a pass says that nothing of that pass is left."""

    def __iter__(self) -> Any:
        start, self.resumed = (self.at, False) if getattr(self, "resumed", False) else (0, False)
        self.at = start
        for b in self.batches[start:]:
            self.at += 1
            yield b

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.at, self.resumed = state["at"], True


@pytest.mark.parametrize("kind", [Position, Emptied, lambda: FIXED])
@pytest.mark.parametrize("at", [5, 8])
def test_loaders_with_and_without_a_position(kind, at, tmp_path):
    path = tmp_path / "state.safetensors"
    t = trainer(callbacks=[At(at, lambda t: t.save(path))])
    t.fit(kind(), 3)
    again = trainer(seed=5, callbacks=[Callback()])
    assert again.fit(kind(), 3, resume=path).batches == pytest.approx(t.history.batches, rel=1e-12)
    again.save(path)
    whole = list(again.fit(kind(), 4).batches)
    more = trainer(seed=5, callbacks=[Callback()])
    assert more.fit(kind(), 4, resume=path).batches == pytest.approx(whole, rel=1e-12)


def test_ctrl_c_ends_it_between_two_steps_and_it_goes_on_later(expected, tmp_path):
    t = trainer(callbacks=[ModelCheckpoint(tmp_path / "run"), At(7, lambda t: signal.raise_signal(signal.SIGINT))])
    with pytest.raises(KeyboardInterrupt):
        t.fit(loader(), 3, validation=loader(20, shuffle=False))
    assert t.batches == 7 and t.batch == 2 and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert md.saving.CheckpointManager(tmp_path / "run").steps == [5, 7]
    assert t.evaluate(loader())["loss"] > 0  # the state can be used at once
    again = trainer(seed=99, callbacks=[ModelCheckpoint(tmp_path / "run"), Callback()])
    history = again.fit(loader(), 3, validation=loader(20, shuffle=False), resume=tmp_path / "run")
    assert history.batches == pytest.approx(expected[0], rel=1e-12)


def test_ctrl_c_in_the_middle_of_a_step_waits_for_its_end():
    """The parameters are never half updated: the signal comes while the optimizer is at work."""
    t = trainer()
    step, seen = t.optimizer.step, []

    def interrupted(*args: Any) -> Any:
        if len(seen) == 3:
            signal.raise_signal(signal.SIGINT)
        seen.append(0)
        return step(*args)

    t.optimizer.step = interrupted
    with pytest.raises(KeyboardInterrupt):
        t.fit(loader(), 1)
    assert t.batches == 4 == len(seen)

    t.optimizer.step = lambda *args: [signal.raise_signal(signal.SIGINT) for _ in range(2)]
    notes: list[str] = []
    t.callbacks = [type("Note", (Callback,), {"on_interrupt": lambda self, trainer: notes.append("interrupt")})()]
    with pytest.raises(KeyboardInterrupt):
        t.fit(loader(), 2)
    assert notes == []  # the second Ctrl-C does not wait, and then the state is not saved


def test_a_loader_that_fails_at_ctrl_c_does_not_hide_it(tmp_path):
    """Its worker processes get the signal too, and may end before the batch at work does."""

    def batches() -> Any:
        yield X[:8], Y[:8]
        signal.raise_signal(signal.SIGINT)
        raise RuntimeError("a worker died")

    t = trainer(callbacks=[ModelCheckpoint(tmp_path)])
    with pytest.raises(KeyboardInterrupt) as error:
        t.fit(batches(), 1)
    assert str(error.value.__cause__) == "a worker died" and md.saving.CheckpointManager(tmp_path).steps == [1]

    def interrupted() -> Any:
        yield X, Y
        signal.raise_signal(signal.SIGINT)
        yield X, Y
        yield X, Y

    with pytest.raises(KeyboardInterrupt):
        t.evaluate(interrupted())
    assert t.model.training and signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_other_threads_and_handlers_are_left_alone():
    t, failed = trainer(), []

    def run() -> None:
        try:
            t.fit(loader(), 1)
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert not failed and t.epoch == 1
    before = signal.signal(signal.SIGINT, lambda *_: failed.append("mine"))
    try:
        trainer(callbacks=[At(2, lambda t: signal.raise_signal(signal.SIGINT))]).fit(loader(), 1)
    finally:
        signal.signal(signal.SIGINT, before)
    assert failed == ["mine"]


def test_a_loss_that_is_not_finite_stops_it_and_says_what_is_known(tmp_path):
    t = trainer(callbacks=[ModelCheckpoint(tmp_path, every_batches=1)])
    bad = X.copy()
    bad[17] = np.nan
    what = r"the loss is nan at epoch 1, batch 3 \(step 2, learning rate 0.2\); not finite are now: input 0, parameter"
    with pytest.raises(FloatingPointError, match=what):
        t.fit(DataLoader(TensorDataset(bad, Y), batch_size=8), 2)
    assert md.saving.CheckpointManager(tmp_path).latest == 2
    again = trainer(callbacks=[ModelCheckpoint(tmp_path)])
    again.fit(loader(), 1, resume=tmp_path)
    assert math.isfinite(again.history["loss"][0])


# ---- accumulation, clipping, schedules ------------------------------------------------------------------------------------------------------
def linear(**options: Any) -> Trainer:
    model = md.nn.Linear(4, 3).to(dtype=md.float64)
    model.load_state_dict({"weight": np.ones((3, 4)) * 0.1, "bias": np.zeros(3)})
    return Trainer(model, md.nn.CrossEntropyLoss(), md.optim.SGD(model.parameters(), lr=0.5), progress=False, **options)


@pytest.mark.parametrize("jit", [False, True])
def test_accumulated_gradients_are_those_of_the_large_batch(jit):
    small, large = linear(accumulate=2, clip_norm=0.1, jit=jit), linear(clip_norm=0.1, jit=jit)
    small.fit(loader(4, shuffle=False), 2)
    large.fit(loader(8, shuffle=False), 2)
    assert small.step == large.step == 10 and small.batches == 20
    np.testing.assert_allclose(small.model.weight.detach().numpy(), large.model.weight.detach().numpy(), rtol=1e-12)
    assert not np.allclose(large.model.weight.detach().numpy(), 0.1)


def test_an_optimizer_that_wants_a_closure():
    t, hand = linear(), linear()
    t = Trainer(t.model, t.loss, md.optim.LBFGS(t.model.parameters(), lr=0.5, line_search_fn="strong_wolfe"), progress=False)
    optimizer = md.optim.LBFGS(hand.model.parameters(), lr=0.5, line_search_fn="strong_wolfe")

    def closure() -> Any:
        optimizer.zero_grad()
        loss = hand.loss(hand.model(md.asarray(X)), md.asarray(Y))
        loss.backward()
        return loss

    losses = [float(optimizer.step(closure)) for _ in range(3)]
    assert t.fit([(X, Y)], 3).batches == pytest.approx(losses, rel=1e-12) and losses[2] < losses[0]
    with pytest.raises(ValueError, match="LBFGS computes its gradients several times a step"):
        Trainer(t.model, t.loss, t.optimizer, clip_norm=1.0)


def test_a_shorter_group_at_the_end_of_an_epoch_is_averaged_over_its_own_length():
    ours = linear(accumulate=3)
    ours.fit(loader(8, shuffle=False), 1)  # 3 batches and 2
    theirs = linear()
    theirs.fit([(X[:24], Y[:24]), (X[24:], Y[24:])], 1)
    assert ours.step == 2
    np.testing.assert_allclose(ours.model.weight.detach().numpy(), theirs.model.weight.detach().numpy(), rtol=1e-12)


def test_gradients_that_wait_are_saved(tmp_path):
    path = tmp_path / "x.safetensors"
    t = linear(accumulate=3, callbacks=[At(2, lambda t: t.save(path))])
    t.fit(loader(8, shuffle=False), 2)
    again = linear(accumulate=3, callbacks=[Callback()], jit=False)
    again.fit(loader(8, shuffle=False), 2, resume=path)
    np.testing.assert_allclose(again.history.batches, t.history.batches, rtol=1e-12)


def test_schedules_by_epoch_by_step_and_by_loss():
    def rates(make: Any, **options: Any) -> list[float]:
        t = linear()
        t = Trainer(t.model, t.loss, t.optimizer, scheduler=make(t.optimizer), callbacks=[LearningRateLogger()], progress=False, **options)
        return t.fit(loader(), 3)["lr"]

    schedules = md.optim.lr_scheduler
    assert rates(lambda o: schedules.StepLR(o, 1, gamma=0.1)) == pytest.approx([0.05, 0.005, 0.0005])
    assert rates(lambda o: schedules.StepLR(o, 5, gamma=0.1), schedule="step") == pytest.approx([0.05, 0.005, 0.0005])
    assert rates(lambda o: schedules.ReduceLROnPlateau(o, "max", patience=0)) == pytest.approx([0.5, 0.05, 0.005])


# ---- callbacks ------------------------------------------------------------------------------------------------------------------------------
def test_the_moments_come_in_order():
    seen: list[str] = []
    moments = [n for n in vars(Callback) if n.startswith("on_")]
    note = lambda moment: lambda self, t: seen.append(f"{moment[3:]} {t.epoch}.{t.batch}")
    spy = type("Spy", (Callback,), {moment: note(moment) for moment in moments})()
    trainer(callbacks=[spy]).fit(loader(20), 1, validation=loader(20))
    assert seen == [
        "fit_start 0.0", "epoch_start 0.0", "batch_start 0.0", "batch_end 0.1", "checkpoint 0.1", "batch_start 0.1", "batch_end 0.2",
        "checkpoint 0.2",
        "evaluate_end 0.2", "epoch_end 1.0", "checkpoint 1.0", "fit_end 1.0",
    ]  # fmt: skip


class Scripted(Callback):
    """Gives the epochs losses of its own."""

    def __init__(self, losses: list[float]):
        self.losses, self.weights = losses, []

    def on_epoch_end(self, trainer: Any) -> None:
        trainer.logs["val_loss"] = self.losses[trainer.epoch - 1]
        self.weights.append(trainer.model.state_dict()["0.weight"].numpy())


def test_early_stopping_and_the_best_checkpoint(tmp_path):
    script = Scripted([5.0, 3.0, 4.0, 3.5, 2.0])
    stop, keep = EarlyStopping(patience=2, restore_best=True), ModelCheckpoint(tmp_path, monitor="val_loss", keep=1)
    t = trainer(callbacks=[keep, script, stop])
    history = t.fit(loader(), 5)
    assert (t.epoch, stop.best, stop.best_epoch) == (4, 3.0, 2) and history["val_loss"] == [5.0, 3.0, 4.0, 3.5]
    assert (t.model.state_dict()["0.weight"].numpy() == script.weights[1]).all()
    assert (keep.manager.steps, keep.manager.best) == ([10, 20], 10)
    again = trainer(callbacks=[ModelCheckpoint(tmp_path, keep=1), Scripted(script.losses), EarlyStopping(patience=2, restore_best=True)])
    assert again.fit(loader(), 5, resume=tmp_path)["val_loss"] == [5.0, 3.0, 4.0, 3.5]  # what had been stopped stays so
    assert (again.model.state_dict()["0.weight"].numpy() == script.weights[1]).all()
    best = trainer(callbacks=[Callback(), Callback(), Callback()])
    md.saving.CheckpointManager(tmp_path).load("best", trainer=best)
    assert best.epoch == 2
    with pytest.raises(KeyError, match="there is no 'val_f1' to watch; the epoch has loss, accuracy"):
        trainer(callbacks=[EarlyStopping("val_f1")]).fit(loader(), 1)
    assert EarlyStopping("val_accuracy").mode == "max" and EarlyStopping("val_loss").mode == "min"


KEYED = lambda: DataLoader(TensorDataset(X, Y), 8, shuffle=True, generator=md.random.key(3))


@pytest.mark.parametrize("kind", [KEYED, loader, lambda: FIXED, Position])
def test_a_callback_that_stops_in_the_middle_leaves_an_epoch_that_goes_on(kind):
    whole = trainer()
    whole.fit(kind(), 3, validation=FIXED)
    t, batches = trainer(callbacks=[At(7, lambda t: setattr(t, "stop", True))]), kind()
    t.fit(batches, 3, validation=FIXED)
    assert (t.epoch, t.batch) == (1, 2)
    t.evaluate(FIXED)
    t.callbacks = []
    assert t.fit(batches, 3, validation=FIXED).batches == whole.history.batches and t.history.epochs == whole.history.epochs


# ---- evaluate, predict, batches of other forms ----------------------------------------------------------------------------------------------
def test_evaluate_and_predict(backend):
    t = trainer(jit=backend in ("numba", "jax"), metrics=[Accuracy(), ConfusionMatrix(3), lambda out, y: float(len(y))])
    t.model[0].eval()  # frozen by its user
    before = md.random.default_generator.key.tolist()
    found = t.evaluate(loader(12, shuffle=False))
    assert [m.training for m in t.model.modules()] == [True, False, True, True, True, True]
    scores = t.predict(loader(12, shuffle=False)).numpy()
    assert scores.shape == (40, 3) and found["confusion"].sum() == 40
    shifted = scores - scores.max(1, keepdims=True)
    losses = np.log(np.exp(shifted).sum(1)) - shifted[np.arange(40), Y]
    assert found["loss"] == pytest.approx(losses.mean(), rel=1e-12) and found["accuracy"] == (scores.argmax(1) == Y).mean()
    assert found["<lambda>"] == pytest.approx((3 * 12 * 12 + 4 * 4) / 40)
    np.testing.assert_array_equal(t.predict([X[:20], X[20:]], targets=False).numpy(), t.predict([(X[:20],), (X[20:], Y[20:])]).numpy())
    assert md.random.default_generator.key.tolist() == before


def test_batches_of_torch_and_of_dicts():
    import torch

    model = md.nn.Linear(4, 4)
    data = torch.utils.data.DataLoader([{"x": torch.ones(4) * i} for i in range(6)], batch_size=2)
    compute = lambda model, batch: (out := model(batch["x"]), ((out - batch["x"]) ** 2).mean())
    t = Trainer(model, optimizer=md.optim.SGD(model.parameters(), lr=0.01), compute=compute, progress=False)
    assert t.fit(data, 2)["loss"][1] < t.history["loss"][0]
    assert t.evaluate(data).keys() == {"loss"}


def test_errors_say_what_was_wanted():
    t = trainer()
    for wrong, error, what in [
        ([X], TypeError, r"a batch is \(input, …, target\), and this is a Tensor; give compute"), ([], ValueError, "the loader gave no batch"),
        ([(X,)], TypeError, "a tuple of 1"),
    ]:  # fmt: skip
        with pytest.raises(error, match=what):
            t.fit(wrong, 1)
    with pytest.raises(ValueError, match="the loader gave no batch"):
        t.evaluate([])
    with pytest.raises(ValueError, match=r"a Tensor of shape \(\), not \(40,\)"):
        Trainer(t.model, md.nn.CrossEntropyLoss(reduction="none"), t.optimizer, progress=False).fit([(X, Y)], 1)
    with pytest.raises(TypeError, match=r"compute\(model, batch\) returns \(output, loss\), not Tensor"):
        Trainer(t.model, optimizer=t.optimizer, compute=lambda m, b: m(b[0]), progress=False).fit([(X, Y)], 1)
    with pytest.raises(ValueError, match="there is no optimizer"):
        Trainer(t.model, t.loss).fit([(X, Y)], 1)
    for options, what in [
        ({"schedule": "batch"}, "schedule is"), ({"accumulate": 0}, "must be positive"), ({"compute": print}, "either loss"),
        ({"metrics": [Accuracy(), Accuracy()]}, "have the names accuracy, accuracy"),
    ]:  # fmt: skip
        with pytest.raises(ValueError, match=what):
            Trainer(t.model, t.loss, t.optimizer, **options)
    state = t.state_dict()
    with pytest.raises(ValueError, match="has 0 callbacks, this one 1"):
        trainer(callbacks=[Callback()]).load_state_dict(state)
    with pytest.raises(ValueError, match="of schedulers the saved training has one, this one none"):
        trainer(scheduler=None).load_state_dict(state)


def test_the_bar_shows_loss_metrics_and_throughput(monkeypatch, capsys):
    import tqdm

    class Shown(tqdm.tqdm):
        def __init__(self, **options):
            super().__init__(**{**options, "delay": 0, "mininterval": 0, "ncols": 150})

    monkeypatch.setattr(tqdm, "tqdm", Shown)
    trainer(progress=True).fit(loader(), 2)
    shown = capsys.readouterr().err
    assert re.search(r"epoch 2/2: .*\| \d+/10 .*loss=\d\.\d+, accuracy=0.\d+, samples/s=\d+", shown), shown[-500:]


@pytest.mark.parametrize(("mode", "values", "stopped", "best"), [
    ("min", [3.0, 2.0, 2.5, 1.9, 1.95], 5, 2.0), ("max", [1.0, 2.0, 1.5, 2.1, 2.05], 5, 2.0), ("max", [1.0, 2.0, 3.0, 4.0, 5.0], None, 5.0),
    ("min", [math.nan, 2.0, math.nan, math.nan, math.nan], 5, 2.0), ("min", [math.nan] * 4, 3, math.nan),
])  # fmt: skip
def test_a_number_is_better_by_more_than_min_delta(mode, values, stopped, best):
    stop, state = EarlyStopping("x", patience=3, min_delta=0.15, mode=mode), SimpleNamespace(stop=False, logs={}, epoch=0)
    for state.epoch, x in enumerate(values, 1):
        state.logs["x"] = x
        stop.on_epoch_end(state)
        if state.stop:
            break
    assert (state.epoch if state.stop else None) == stopped
    np.testing.assert_equal(stop.best, best)


def test_each_panel_has_its_place_and_scale():
    history = History()
    history.epochs = [{"epoch": e, "loss": 100.0 / 10**e, "acc": e / 4, "val_acc": e / 5, "lr": 29.0 ** (e / 2)} for e in (1, 2, 3)]
    history.batches, history.starts = [100.0, 50.0, 30.0, 20.0, 10.0, 1.0], [0, 2, 4]
    root = ET.fromstring(history.to_svg())
    lines = [line.attrib for line in root.iter("{http://www.w3.org/2000/svg}polyline")]
    points = [np.array([[float(v) for v in p.split(",")] for p in line["points"].split()]) for line in lines]
    third = np.arange(1, 4) / 3
    for at, left, top, xs in ((0, 64, 58, np.arange(1, 7) / 6), (1, 64, 58, third), (2, 568, 58, third), (3, 568, 58, third), (4, 64, 382, third)):
        np.testing.assert_allclose(points[at][:, 0], left + 420 * xs, atol=0.06)
        assert ((points[at][:, 1] > top) & (points[at][:, 1] < top + 240)).all()
    assert ["opacity" in line for line in lines] == [True, False, False, False, False]
    part = lambda y, low, high: 58 + 240 * (1 - math.log(y / low) / math.log(high / low))
    np.testing.assert_allclose(points[1][:, 1], [part(y, 0.1 / 1.2, 120.0) for y in (10.0, 1.0, 0.1)], atol=0.06)
    texts = [t.text for t in root.iter("{http://www.w3.org/2000/svg}text")]
    assert [t for t in texts if t.startswith(("loss", "acc", "lr"))] == ["loss (logarithmic)", "loss of each batch", "loss", "acc", "acc", "lr", "lr"]
    assert root.attrib["viewBox"] == f"0 0 {64 + 2 * 504 - 84 + 24} {58 + 2 * 324 - 20}"


# ---- history --------------------------------------------------------------------------------------------------------------------------------
def test_the_picture_of_the_curves(tmp_path, expected):
    history = History()
    history.batches, history.epochs, history.starts = expected[0], expected[1], [0, 5, 10]
    history.plot(tmp_path / "curves.svg")
    root = ET.fromstring((tmp_path / "curves.svg").read_text())
    space = "{http://www.w3.org/2000/svg}"
    lines = [line.get("points").split() for line in root.iter(f"{space}polyline")]
    assert [len(points) for points in lines] == [15, 3, 3, 3, 3]
    texts = [t.text for t in root.iter(f"{space}text")]
    assert {"loss", "val_loss", "accuracy", "val_accuracy", "loss of each batch", "epoch"} <= set(texts)
    width, height = (float(root.get(k)) for k in ("width", "height"))
    xs = [[float(p.split(",")[0]) for p in points] for points in lines]
    assert all(0 <= x <= width for line in xs for x in line) and all(0 <= float(p.split(",")[1]) <= height for points in lines for p in points)
    assert xs[0][4] == pytest.approx(xs[1][0], abs=0.2) and xs[0][-1] == pytest.approx(xs[1][-1], abs=0.2)  # batches lie under their epochs
    with pytest.raises(KeyError, match="no 'f1'; it has loss, accuracy, val_loss, val_accuracy"):
        history["f1"]


@pytest.mark.parametrize(
    "values", [[], [1.0], [3.0, 3.0], [math.nan, math.inf], [1e-6, 1.0, 1e3], [-1.0, 2.0], [0.0, 0.0], [5e-324, 1e308], [-1e308, 1e308], [5e-324]]
)
def test_any_history_has_a_picture(values):
    history = History()
    history.epochs = [{"epoch": i + 1, "loss": v} for i, v in enumerate(values)]
    text = history.to_svg()
    ET.fromstring(text)
    assert ("logarithmic" in text) == (values == [1e-6, 1.0, 1e3]) and "nan" not in re.sub(r">[^<]*<", "", text)


def test_the_trainer_works_without_the_optional_libraries(tmp_path):
    """Nor does it load matplotlib, TensorBoard or the client of W&B."""
    import subprocess
    import sys

    program = "import sys, minidl as md; md.train.Trainer, md.saving.save; assert not {'tensorboard', 'wandb', 'torch', 'jax'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], cwd=Path(__file__).parent.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# ---- a process that is killed, loaders with workers ------------------------------------------------------------------------------------------
KILLED = """
import sys, numpy as np, minidl as md
from minidl.data import DataLoader, TensorDataset
from minidl.train import Callback, ModelCheckpoint, Trainer

class Ask(Callback):
    def on_batch_start(self, trainer):
        sys.stdin.read(1)

values = np.random.default_rng(0)
data = TensorDataset(values.normal(size=(24, 4)), values.integers(0, 3, 24))
md.random.manual_seed(1)
model = md.nn.Sequential(md.nn.Linear(4, 8), md.nn.ReLU(), md.nn.Dropout(0.3), md.nn.Linear(8, 3)).to(dtype=md.float64)
optimizer = md.optim.Adam(model.parameters(), lr=0.01)
callbacks = [Ask(), ModelCheckpoint(sys.argv[1], every_batches=1)]
trainer = Trainer(model, md.nn.CrossEntropyLoss(), optimizer, callbacks=callbacks, jit=False, progress=False)
history = trainer.fit(DataLoader(data, batch_size=4, shuffle=True), int(sys.argv[2]), resume=sys.argv[1])
np.save(sys.argv[1] + ".npy", history.batches)
"""


def test_a_training_that_is_killed_again_and_again_ends_as_one_that_is_not(tmp_path):
    import random
    import subprocess
    import sys
    import time

    def start(name: str) -> Any:
        return subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path / name), "10"], stdin=subprocess.PIPE)

    with start("whole") as whole:
        whole.communicate(b"." * 60)  # a batch for each
    choice, kills = random.Random(0), 0
    manager = md.saving.CheckpointManager(tmp_path / "killed")
    while not (tmp_path / "killed.npy").exists():
        with start("killed") as process:
            before, batches = manager.latest or 0, choice.randrange(8, 20)
            process.stdin.write(b"." * batches)
            process.stdin.flush()
            while process.poll() is None and (manager.latest or 0) < before + batches - 1:
                time.sleep(0.001)
            time.sleep(choice.uniform(0, 0.01))  # somewhere in the last batch or its checkpoint
            process.kill()
            process.stdin.close()
            kills += 1
        assert kills < 20
    assert kills > 2 and (np.load(tmp_path / "killed.npy") == np.load(tmp_path / "whole.npy")).all()


@pytest.mark.parametrize(("workers", "keyed"), [(0, False), (0, True), (1, False)])
def test_the_position_of_a_loader_with_workers_or_a_key_is_saved(workers, keyed, tmp_path):
    def make() -> DataLoader:
        generator = md.random.key(7) if keyed else None
        return DataLoader(TensorDataset(X, Y), batch_size=8, shuffle=True, num_workers=workers, generator=generator, persistent_workers=workers > 0)

    path = tmp_path / "x.safetensors"
    t = trainer(callbacks=[At(8, lambda t: t.save(path))])
    t.fit(make(), 2)
    again = trainer(seed=5, callbacks=[Callback()])
    assert again.fit(make(), 2, resume=path).batches == pytest.approx(t.history.batches, rel=1e-12)


# ---- mixed precision -------------------------------------------------------------------------------------------------------------------------
def mixed(**options: Any) -> Trainer:
    md.random.manual_seed(0)
    model = md.nn.Sequential(md.nn.Linear(4, 8), md.nn.ReLU(), md.nn.Linear(8, 3))
    return Trainer(model, md.nn.CrossEntropyLoss(), md.optim.SGD(model.parameters(), lr=0.1), progress=False, **options)


LOW = [(X[i : i + 8].astype("f4"), Y[i : i + 8]) for i in range(0, 40, 8)]


@pytest.mark.parametrize("jit", [False, True])
def test_mixed_precision_is_the_step_by_hand(jit):
    ours, theirs = mixed(autocast=md.bfloat16, jit=jit), mixed()
    ours.fit(LOW, 2)
    losses = []
    for _ in range(2):
        for x, y in LOW:
            theirs.optimizer.zero_grad()
            with md.autocast(dtype=md.bfloat16):
                loss = theirs.loss(theirs.model(md.asarray(x)), md.asarray(y))
            loss.backward()
            theirs.optimizer.step()
            losses.append(loss.item())
    np.testing.assert_allclose(ours.history.batches, losses, rtol=1e-6)
    whole = mixed()
    whole.fit(LOW, 2)
    assert whole.history.batches != ours.history.batches == pytest.approx(whole.history.batches, rel=2e-2)
    assert ours.predict(LOW).dtype is md.bfloat16 and ours.evaluate(LOW)["loss"] == pytest.approx(whole.evaluate(LOW)["loss"], rel=2e-2)
    with pytest.raises(TypeError, match="the low dtype is bfloat16 or float16"):
        mixed(autocast=md.float64)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_scaler_leaves_out_what_overflows_and_is_saved(accumulate, tmp_path):
    path = tmp_path / "x.safetensors"

    def make(**options: Any) -> Trainer:
        scaler = md.amp.GradScaler(init_scale=2.0**40, growth_interval=4)  # too large for float16, at first
        return mixed(autocast="float16", scaler=scaler, accumulate=accumulate, clip_norm=1.0, **options)

    t = make(callbacks=[At(12, lambda t: t.save(path))])
    weights = t.model[0].weight.tolist()
    t.fit(LOW, 1)
    assert t.model[0].weight.tolist() == weights and t.scaler.get_scale() < 2.0**40  # nothing but overflows yet
    t.fit(LOW, 12)
    assert t.history["loss"][-1] < t.history["loss"][0] and t.model[0].weight.tolist() != weights
    again = make(callbacks=[Callback()])
    assert again.fit(LOW, 12, resume=path).batches == pytest.approx(t.history.batches, rel=1e-6)
    assert again.scaler.state_dict() == t.scaler.state_dict()


def test_a_loss_that_overflows_all_the_time_stops_it():
    t = mixed(scaler=md.amp.GradScaler())
    t.loss = lambda out, y: out.sum() * math.inf
    with pytest.raises(FloatingPointError, match="batch 1 "):
        t.fit(LOW[:1], 30)
    assert t.batches == 21
