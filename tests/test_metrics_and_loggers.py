"""Metrics against scikit-learn, and loggers read back by the readers of those whose files they write."""

from __future__ import annotations

import csv
import io
import json
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minidl as md
from minidl.train import (
    Accuracy,
    Callback,
    ConfusionMatrix,
    CSVLogger,
    Gathered,
    LearningRateLogger,
    Logger,
    Mean,
    ParameterHistograms,
    Perplexity,
    TensorBoardLogger,
    TopKAccuracy,
    Trainer,
    WandbLogger,
)  # fmt: skip

RNG = np.random.default_rng(0)
SCORES, LABELS = RNG.normal(size=(50, 6)), RNG.integers(0, 6, 50)


# ---- metrics --------------------------------------------------------------------------------------------------------------------------------
def in_batches(metric: Any, scores: Any, labels: Any, sizes: list[int]) -> Any:
    for part in np.split(np.arange(len(labels)), np.cumsum(sizes)[:-1]):
        metric.update(md.asarray(scores[part]), md.asarray(labels[part]))
    return metric.compute()


@settings(max_examples=30)
@given(seed=st.integers(0, 1000), k=st.integers(1, 7), sizes=st.sampled_from([[50], [49, 1], [20, 20, 10]]), ties=st.booleans())
def test_classification_as_scikit_learn_says(seed, k, sizes, ties):
    from sklearn import metrics as sk

    draw = np.random.default_rng(seed)
    scores, labels = draw.normal(size=(50, 6)), draw.integers(0, 6, 50)
    if ties:
        scores = np.round(scores)
    best = scores.argmax(1)
    assert in_batches(Accuracy(), scores, labels, sizes) == pytest.approx(sk.accuracy_score(labels, best))
    np.testing.assert_array_equal(in_batches(ConfusionMatrix(6), scores, labels, sizes), sk.confusion_matrix(labels, best, labels=range(6)))
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    assert in_batches(TopKAccuracy(k), scores, labels, sizes) == pytest.approx((order == labels[:, None]).any(1).mean())
    if not ties and k < 6:
        assert TopKAccuracy(k)(scores, labels) == pytest.approx(sk.top_k_accuracy_score(labels, scores, k=k, labels=range(6)))
    assert in_batches(Perplexity(), scores, labels, sizes) == pytest.approx(
        np.exp(sk.log_loss(labels, np.exp(scores) / np.exp(scores).sum(1, keepdims=True), labels=range(6)))
    )


def test_classes_along_another_axis_and_labels_that_are_left_out():
    scores, labels = RNG.normal(size=(2, 5, 3, 4)), RNG.integers(0, 5, (2, 3, 4))
    last = np.moveaxis(scores, 1, -1)
    for make in (Accuracy, lambda **o: TopKAccuracy(2, **o), Perplexity, lambda **o: ConfusionMatrix(5, **o)):
        np.testing.assert_array_equal(make(axis=1)(scores, labels), make()(last, labels))
        with pytest.raises(ValueError, match=r"scores \(2, 5, 3, 4\) with classes along axis -1 do not fit labels \(2, 3, 4\); axis=1"):
            make()(scores, labels)
    padded = np.where(RNG.random(labels.shape) < 0.3, -1, labels)
    kept = padded != -1
    for make in (Accuracy, Perplexity):
        assert make(ignore_index=-1)(last, padded) == pytest.approx(make()(last[kept], labels[kept]))
    assert Accuracy(threshold=0.5, ignore_index=-1)(np.array([0.2, 0.9, 0.8]), np.array([0, 0, -1])) == 0.5


def test_what_is_no_mean_over_batches_is_that_of_all_samples(tmp_path):
    """As scikit-learn's area under the curve is; also where the training is resumed in the middle of an epoch."""
    from sklearn.metrics import roc_auc_score

    area = lambda: Gathered(lambda scores, labels: roc_auc_score(labels, scores), "auc")
    scores, labels = RNG.normal(size=30), RNG.integers(0, 2, 30)
    assert in_batches(area(), scores, labels, [10, 19, 1]) == pytest.approx(roc_auc_score(labels, scores))
    x = scores.reshape(30, 1)
    data = [(x[i : i + 6], labels[i : i + 6]) for i in range(0, 30, 6)]

    def make(*callbacks: Any) -> Trainer:
        model = md.nn.Linear(1, 1, bias=False).to(dtype=md.float64)
        model.load_state_dict({"weight": np.ones((1, 1))})
        compute = lambda model, batch: ((out := model(batch[0])[:, 0]), (out * 0.0).sum())
        return Trainer(model, None, md.optim.SGD(model.parameters(), lr=0.1), compute=compute, metrics=[area()], callbacks=callbacks)

    class Save(Callback):
        def on_batch_end(self, trainer: Any) -> None:
            if trainer.batches == 2:
                trainer.save(tmp_path / "x.safetensors")

    assert make(Save()).fit(data, 1, validation=data)["auc"] == [pytest.approx(roc_auc_score(labels, scores))]
    history = make(Callback()).fit(data, 1, validation=data, resume=tmp_path / "x.safetensors")
    assert history["auc"] == history["val_auc"] == [pytest.approx(roc_auc_score(labels, scores))]


def test_a_batch_that_is_refused_costs_nothing():
    metric = Accuracy()
    metric.update(SCORES, LABELS)
    state = metric.state_dict()
    with pytest.raises(ValueError, match="do not fit labels"):
        metric(SCORES, LABELS[:3])
    assert metric.state_dict() == state
    metric.update(SCORES, LABELS)
    assert state["count"] == 50  # what was saved is not what goes on
    assert Accuracy(threshold=0.5)(np.array([0.5, 0.5]), np.array([0, 0])) == 1.0
    assert Accuracy()(np.array([[np.nan, 0.0], [0.0, 1.0]]), np.array([1, 1])) == 0.5
    assert np.isnan(Perplexity()(np.array([[np.inf, 0.0]]), np.array([0])))


@pytest.mark.parametrize("kind", [int, float, np.float32, np.array, md.tensor])
def test_a_number_of_any_kind_is_in_the_history(kind):
    model, data = md.nn.Linear(1, 1), [(md.ones((2, 1)), md.ones((2, 1)))] * 3
    seen = Gathered(len, "seen")
    seen.compute = lambda: kind(len(seen.state["targets"]))
    trainer = Trainer(model, md.nn.MSELoss(), md.optim.SGD(model.parameters()), metrics=[seen], progress=False)
    history = trainer.fit(data, 1, validation=data)
    assert history["seen"] == history["val_seen"] == [3.0] and type(history["seen"][0]) is float


def test_metrics_at_the_edges():
    for metric in (Gathered(lambda a, b: 1.0), Accuracy(), TopKAccuracy(2), Perplexity(), Mean(lambda a, b: 1.0)):
        assert np.isnan(metric.compute())
        metric.update(SCORES, LABELS)
        saved, value = metric.state_dict(), metric.compute()
        metric.reset()
        assert np.isnan(metric.compute())
        metric.load_state_dict(saved)
        assert metric.compute() == value
        with pytest.raises(ValueError, match=f"{type(metric).__name__}: a state with"):
            metric.load_state_dict({"other": 1})
    assert Accuracy()(np.full((2, 3), np.nan), np.array([0, 1])) == 0.0
    assert Perplexity()(np.array([[1e4, -1e4]]), np.array([1])) < np.inf
    assert Perplexity(ignore_index=1)(np.zeros((1, 3)), np.array([1])) is not None
    for metric in (Accuracy(), Perplexity(), ConfusionMatrix(6)):
        with pytest.raises(ValueError, match="6"):
            metric.update(SCORES, np.full(50, 6))
    with pytest.raises(ValueError, match="k must be at least 1"):
        TopKAccuracy(0)


# ---- loggers --------------------------------------------------------------------------------------------------------------------------------
IMAGE = RNG.random((3, 5, 7))


def everything(logger: Any) -> None:
    with logger:
        for step in range(3):
            logger.scalars(step, {"train/loss": 1 / (step + 1), "lr": 0.1})
            logger.histogram(step, "weights", md.asarray(np.linspace(-1, 1, 11) * (step + 1)))
        logger.image(2, "input", md.asarray(IMAGE))
        logger.text(2, "note", "a **text** <b>")


def test_tensorboard_reads_its_event_files(tmp_path):
    import PIL.Image
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    everything(TensorBoardLogger(tmp_path / "run"))
    found = EventAccumulator(str(tmp_path / "run"), size_guidance={"histograms": 0, "images": 0, "scalars": 0, "tensors": 0}).Reload()
    tags = found.Tags()
    kinds = ("scalars", "histograms", "images", "tensors")
    assert [tags[k] for k in kinds] == [["train/loss", "lr"], ["weights"], ["input"], ["note/text_summary"]]
    assert [(e.step, e.value) for e in found.Scalars("train/loss")] == [(0, 1.0), (1, 0.5), (2, pytest.approx(1 / 3))]
    histogram = found.Histograms("weights")[2].histogram_value
    assert (histogram.min, histogram.max, histogram.num, sum(histogram.bucket)) == (-3, 3, 11, 11)
    assert histogram.sum_squares == pytest.approx((np.linspace(-3, 3, 11) ** 2).sum()) and len(histogram.bucket) == len(histogram.bucket_limit)
    image = found.Images("input")[0]
    assert (image.width, image.height) == (7, 5)
    pixels = np.asarray(PIL.Image.open(io.BytesIO(image.encoded_image_string)))
    np.testing.assert_array_equal(pixels, np.round(np.moveaxis(IMAGE, 0, 2) * 255).astype(np.uint8))
    (text,) = found.Tensors("note/text_summary")
    assert text.step == 2 and text.tensor_proto.string_val == [b"a **text** <b>"]
    assert found.SummaryMetadata("note/text_summary").plugin_data.plugin_name == "text"


WANDB = """
import sys, os
sys.path.insert(0, sys.argv[2])
from minidl.train import WandbLogger
from test_metrics_and_loggers import everything
everything(WandbLogger("project", sys.argv[1], config={"lr": 0.1}))
"""


def logged(content: bytes) -> Iterator[bytes]:
    """The records of W&B's file: LevelDB's log format (blocks of 32 KiB; checksum, length and kind before each part) after 7 bytes of header."""
    assert content.startswith(b":W&B")
    at, whole = 7, b""
    while at < len(content):
        left = 32768 - at % 32768
        if left < 7:
            at += left
            continue
        length, kind = struct.unpack_from("<HB", content, at + 4)
        whole += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # a whole record, or the last part of one
            yield whole
            whole = b""


def test_the_client_of_wandb_writes_a_run_offline(tmp_path):
    """A process of its own, whose home is empty and stays so."""
    home, folder = tmp_path / "home", tmp_path / "runs"
    home.mkdir()
    env = {k: v for k, v in os.environ.items() if not k.startswith(("WANDB", "XDG"))}
    env |= {"HOME": str(home), "PYTHONPATH": str(Path(md.__file__).parent.parent), "WANDB_SILENT": "true"}
    command = [sys.executable, "-c", WANDB, str(folder), str(Path(__file__).parent)]
    done = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert [str(p.relative_to(home)) for p in home.rglob("*") if p.is_file()] == []
    (path,) = folder.rglob("run-*.wandb")
    import PIL.Image
    from wandb.proto import wandb_internal_pb2

    history: dict[str, list[str]] = {}
    config: dict[str, str] = {}
    for data in logged(path.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        for item in record.history.item:
            history.setdefault(item.key or "/".join(item.nested_key), []).append(item.value_json)
        for item in record.run.config.update:
            config[item.key] = item.value_json
    assert [float(v) for v in history["train/loss"]] == [1.0, 0.5, pytest.approx(1 / 3)] and config["lr"] == "0.1"
    assert history["weights/_type"] == ['"histogram"'] * 3 and sum(json.loads(history["weights/values"][0])) == 11
    assert (history["input/_type"], history["note/_type"]) == (['"image-file"'], ['"html-file"'])
    pixels = np.asarray(PIL.Image.open(path.parent / "files" / json.loads(history["input/path"][0])))
    np.testing.assert_array_equal(pixels, np.round(np.moveaxis(IMAGE, 0, 2) * 255).astype(np.uint8))
    assert "a **text** &lt;b&gt;" in (path.parent / "files" / json.loads(history["note/path"][0])).read_text()


def test_csv_is_read_by_python_and_is_appended_to(tmp_path):
    path = tmp_path / "deep" / "log.csv"
    everything(CSVLogger(path))
    everything(CSVLogger(path))
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 14 and rows[2] == {"step": "1", "name": "train/loss", "value": "0.5"} and rows[6]["value"] == "a **text** <b>"


class Notes(Logger):
    def __init__(self) -> None:
        self.rows: list[tuple] = []

    def scalars(self, step: int, values: Any) -> None:
        self.rows.append((step, dict(values)))

    def histogram(self, step: int, name: str, values: Any) -> None:
        self.rows.append((step, name, np.shape(values)))


def test_what_the_trainer_logs():
    md.random.manual_seed(0)
    model, notes = md.nn.Linear(6, 6), Notes()
    t = Trainer(
        model, md.nn.CrossEntropyLoss(), md.optim.SGD(model.parameters(), lr=0.25), metrics=[Accuracy(), ConfusionMatrix(6)], loggers=[notes],
        log_every=2, callbacks=[LearningRateLogger(), ParameterHistograms(every=2)], progress=False,
    )  # fmt: skip
    data = [(SCORES[i : i + 10].astype("f4"), LABELS[i : i + 10]) for i in range(0, 40, 10)]
    history = t.fit(data, 2, validation=data)
    losses = history.batches
    names = ["parameters/weight", "gradients/weight", "parameters/bias", "gradients/bias"]
    row = lambda i: {f"epoch/{k}": v for k, v in history.epochs[i].items() if k != "epoch"}
    assert notes.rows == [
        (2, {"loss": losses[1]}), (2, {"lr": 0.25}), (4, {"loss": losses[3]}), (4, {"lr": 0.25}), (4, row(0)),
        (6, {"loss": losses[5]}), (6, {"lr": 0.25}), (8, {"loss": losses[7]}), (8, {"lr": 0.25}),
        *[(8, n, (6, 6) if "weight" in n else (6,)) for n in names], (8, row(1)),
    ]  # fmt: skip
    assert row(1).keys() == {"epoch/loss", "epoch/accuracy", "epoch/val_loss", "epoch/val_accuracy", "epoch/lr"}
    assert t.evaluate(data)["confusion"].sum() == 40


@pytest.mark.parametrize(
    "values", [[0.5], [3.0, 3.0], [1.0, np.nextafter(1.0, 2.0)], [5e-324, 0.0], [1e300, 1e300], [-1.7e308, 1.7e308], [-2.0, 0.0, 1.0]]
)
def test_any_numbers_have_a_histogram(values, tmp_path):
    counts, edges = md.train.loggers._buckets(np.array(values))
    assert counts.sum() == len(values) and len(counts) == 30 and (np.diff(edges) > 0).all()
    if values == [-2.0, 0.0, 1.0]:
        np.testing.assert_array_equal(edges, np.histogram(values, bins=30)[1])
    with TensorBoardLogger(tmp_path) as logger:
        logger.histogram(1, "x", values)


@pytest.mark.parametrize(("make", "library"), [(TensorBoardLogger, "tensorboard"), (lambda f: WandbLogger("p", f), "wandb")])
def test_a_library_that_is_not_there_is_named_with_its_extra(make, library, monkeypatch, tmp_path):
    for name in [library, *(m for m in sys.modules if m.startswith(f"{library}."))]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=rf'pip install "minidl\[{library}\]"'):
        make(tmp_path / "x")


@pytest.mark.parametrize("shape", [(5, 7), (1, 5, 7), (5, 7, 1), (3, 5, 7), (5, 7, 3)])
def test_images_of_any_layout(shape, tmp_path):
    from minidl.train.loggers import _pixels

    a = RNG.random(shape)
    out = _pixels(a)
    assert out.shape == (5, 7, 3) and out.dtype == np.uint8
    np.testing.assert_array_equal(out, _pixels(np.round(a * 255).astype(np.uint8)))
    with pytest.raises(ValueError, match=r"an image is \[H, W\].*not \(2, 5, 7\)"):
        _pixels(np.zeros((2, 5, 7)))
