"""Loggers: where the numbers of a training go. One small protocol, and a file of comma-separated values, TensorBoard and Weights & Biases behind it.

Promises: TensorBoard's own reader reads the event files, and W&B's own client writes its runs, offline unless asked otherwise; a library that is not
there is a clear error when its logger is made; nothing is written outside the folder that was named.
"""

from __future__ import annotations

import csv
import os
import time
from collections.abc import Iterable, Mapping
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

import minidl as md


def _array(x: Any) -> np.ndarray:
    return x.detach().numpy() if isinstance(x, md.Tensor) else np.asarray(x)


def _pixels(image: Any) -> np.ndarray:
    """uint8 [H, W, 3] of an image [H, W], [3 or 1, H, W] or [H, W, 3 or 1], floats in [0, 1] or uint8."""
    a = _array(image)
    if a.ndim == 2:
        a = a[None]
    if a.ndim == 3 and a.shape[0] in (1, 3) and a.shape[2] not in (1, 3):
        a = np.moveaxis(a, 0, 2)
    if a.ndim != 3 or a.shape[2] not in (1, 3):
        raise ValueError(f"logger: an image is [H, W], [3, H, W] or [H, W, 3], not {_array(image).shape}")
    if a.dtype != np.uint8:
        a = np.round(np.clip(np.nan_to_num(a.astype(np.float64)), 0, 1) * 255).astype(np.uint8)
    return np.broadcast_to(a, (*a.shape[:2], 3))


def _finite(values: Any) -> np.ndarray:
    a = _array(values).astype(np.float64).reshape(-1)
    return a[np.isfinite(a)]


def _buckets(a: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(counts, edges) of 30 buckets, also of numbers too close together or too far apart for 30 different edges."""
    far = np.finfo(np.float64).max / 4
    low, high = np.clip([a.min(), a.max()], -far, far).tolist()
    largest = max(abs(low), abs(high))
    if high - low < 100 * np.spacing(largest):
        low, high = low - max(largest, 1.0) / 2, high + max(largest, 1.0) / 2
    return np.histogram(np.clip(a, low, high), bins=30, range=(low, high))


class Logger:
    """The protocol, and the base of loggers: what a subclass does not define it leaves out. Used in a `with` block a logger is closed at its end.

    >>> class Printed(md.train.Logger):
    ...     def scalars(self, step, values):
    ...         print(step, values)
    >>> with Printed() as logger:
    ...     logger.scalars(1, {"loss": 0.5})
    1 {'loss': 0.5}
    """

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Numbers by name."""

    def histogram(self, step: int, name: str, values: Any) -> None:
        """The distribution of the values of an array."""

    def image(self, step: int, name: str, image: Any) -> None:
        """An image [H, W], [3, H, W] or [H, W, 3], floats in [0, 1] or uint8."""

    def text(self, step: int, name: str, text: str) -> None:
        """A text (Markdown in TensorBoard)."""

    def close(self) -> None:
        """Write what is still in memory."""

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class CSVLogger(Logger):
    """Numbers as rows of (step, name, value) in a file that pandas.read_csv and spreadsheets read; written at every call, appended to if it is there.

    Histograms are left out, and so are images; texts are rows too.

    >>> import tempfile
    >>> path = tempfile.mkdtemp() + "/log.csv"
    >>> with CSVLogger(path) as logger:
    ...     logger.scalars(1, {"loss": 0.5})
    >>> Path(path).read_text().split()
    ['step,name,value', '1,loss,0.5']
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if not self.path.exists() or self.path.stat().st_size == 0:
            self._write([("step", "name", "value")])

    def _write(self, rows: Iterable[tuple[Any, ...]]) -> None:
        with self.path.open("a", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows(rows)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """A row for each number."""
        self._write((step, name, repr(float(v))) for name, v in values.items())

    def text(self, step: int, name: str, text: str) -> None:
        """A row with the text."""
        self._write([(step, name, text)])


class TensorBoardLogger(Logger):
    """Event files of TensorBoard in a folder (`tensorboard --logdir folder`). Needs `pip install "minidl[tensorboard]"`, not TensorFlow or PyTorch.

    Raises ImportError that names the extra where TensorBoard is missing.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with TensorBoardLogger(folder) as logger:
    ...         logger.scalars(1, {"train/loss": 0.5})
    ...     len(list(Path(folder).glob("events.out.tfevents.*")))
    1
    """

    def __init__(self, folder: str | os.PathLike[str]):
        try:
            import tensorboard.compat.proto.event_pb2 as events
            import tensorboard.compat.proto.summary_pb2 as summaries
            from tensorboard.compat.proto.tensor_pb2 import TensorProto
            from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
            from tensorboard.summary.writer.event_file_writer import EventFileWriter
        except ImportError as error:
            raise ImportError('TensorBoardLogger needs TensorBoard: pip install "minidl[tensorboard]"') from error
        self._event, self._summary, self._histogram, self._image = events.Event, summaries.Summary, summaries.HistogramProto, summaries.Summary.Image
        self._metadata, self._tensor, self._shape = summaries.SummaryMetadata, TensorProto, TensorShapeProto
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._writer = EventFileWriter(str(self.folder))

    def _add(self, step: int, *values: Any) -> None:
        self._writer.add_event(self._event(wall_time=time.time(), step=int(step), summary=self._summary(value=values)))

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Curves, one for each name; "train/loss" and "train/accuracy" are grouped."""
        self._add(step, *(self._summary.Value(tag=name, simple_value=float(v)) for name, v in values.items()))

    def histogram(self, step: int, name: str, values: Any) -> None:
        """A histogram of 30 buckets, with the number, sum, extremes and sum of squares of the finite values."""
        a = _finite(values)
        counts, edges = _buckets(a) if a.size else (np.zeros(1), np.array([0.0, 1.0]))
        with np.errstate(over="ignore"):
            total, squares = float(a.sum()), float((a * a).sum())
        proto = self._histogram(
            min=float(a.min()) if a.size else 0.0, max=float(a.max()) if a.size else 0.0, num=float(a.size), sum=total, sum_squares=squares,
            bucket_limit=edges[1:].tolist(), bucket=counts.tolist(),
        )  # fmt: skip
        self._add(step, self._summary.Value(tag=name, histo=proto))

    def image(self, step: int, name: str, image: Any) -> None:
        """An image, stored as PNG without loss."""
        a = _pixels(image)
        proto = self._image(height=a.shape[0], width=a.shape[1], colorspace=3, encoded_image_string=md.draw.png(a))
        self._add(step, self._summary.Value(tag=name, image=proto))

    def text(self, step: int, name: str, text: str) -> None:
        """A text, shown as Markdown."""
        plugin = self._metadata(plugin_data=self._metadata.PluginData(plugin_name="text", content=b""))
        shape = self._shape(dim=[self._shape.Dim(size=1)])
        tensor = self._tensor(dtype="DT_STRING", string_val=[text.encode()], tensor_shape=shape)
        self._add(step, self._summary.Value(tag=f"{name}/text_summary", metadata=plugin, tensor=tensor))

    def close(self) -> None:
        """Write the rest and close the file."""
        self._writer.close()


class WandbLogger(Logger):
    """A run of Weights & Biases, by its own client. Needs `pip install "minidl[wandb]"`.

    mode: "offline" (`wandb sync` sends it later), "online" or "disabled". folder: where the client writes. config: hyper-parameters of the run. What
    else wandb.init takes may follow. Raises ImportError that names the extra where the client is missing.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with WandbLogger("project", folder, mode="disabled", config={"lr": 0.1}) as logger:
    ...         logger.scalars(1, {"train/loss": 0.5})
    ...         logger.run.config["lr"]
    0.1
    """

    def __init__(
        self, project: str, folder: str | os.PathLike[str], *, mode: Any = "offline", config: Mapping[str, Any] | None = None, **options: Any
    ):
        try:
            import wandb
        except ImportError as error:
            raise ImportError('WandbLogger needs the client of Weights & Biases: pip install "minidl[wandb]"') from error
        place = Path(folder).absolute()
        place.mkdir(parents=True, exist_ok=True)
        self._wandb = wandb
        # The client asks these where its logs and copies go, once, and means the home folder without them.
        mine = {f"WANDB_{what}_DIR": str(place / what.lower()) for what in ("CACHE", "CONFIG", "DATA") if f"WANDB_{what}_DIR" not in os.environ}
        os.environ.update(mine)
        try:
            self.run = wandb.init(project=project, dir=os.fspath(place), mode=mode, config=dict(config or {}), **options)
        finally:
            for name in mine:
                del os.environ[name]

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Numbers; those of one step may come in several calls."""
        self.run.log({k: float(v) for k, v in values.items()}, step=int(step))

    def histogram(self, step: int, name: str, values: Any) -> None:
        """A histogram of the finite values."""
        a = _finite(values)
        if a.size:
            self.run.log({name: self._wandb.Histogram(np_histogram=_buckets(a))}, step=int(step))

    def image(self, step: int, name: str, image: Any) -> None:
        """An image."""
        self.run.log({name: self._wandb.Image(_pixels(image))}, step=int(step))

    def text(self, step: int, name: str, text: str) -> None:
        """A text."""
        self.run.log({name: self._wandb.Html(f"<pre>{escape(text)}</pre>")}, step=int(step))

    def close(self) -> None:
        """Finish the run."""
        self.run.finish()
