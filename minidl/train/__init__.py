"""A training loop for those who want one, with what belongs to it: callbacks, metrics, loggers, a summary of a model and a picture of its losses.

>>> import minidl as md
>>> from minidl.data import DataLoader, TensorDataset
>>> x = md.linspace(-1.0, 1.0, 32).reshape(32, 1)
>>> model = md.nn.Linear(1, 1)
>>> trainer = md.train.Trainer(model, md.nn.MSELoss(), md.optim.SGD(model.parameters(), lr=0.5), progress=False)
>>> history = trainer.fit(DataLoader(TensorDataset(x, x * 3.0 + 1.0), batch_size=8), epochs=20)
>>> history["loss"][-1] < 1e-3
True
"""

from __future__ import annotations

from minidl.train.callbacks import Callback, EarlyStopping, LearningRateLogger, ModelCheckpoint, ParameterHistograms
from minidl.train.history import History
from minidl.train.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger
from minidl.train.metrics import Accuracy, ConfusionMatrix, Gathered, Mean, Metric, Perplexity, TopKAccuracy
from minidl.train.summaries import Summary, flops, summary
from minidl.train.trainer import Trainer

__all__ = [
    "Accuracy", "CSVLogger", "Callback", "ConfusionMatrix", "EarlyStopping", "Gathered", "History", "LearningRateLogger", "Logger", "Mean", "Metric",
    "ModelCheckpoint", "ParameterHistograms", "Perplexity", "Summary", "TensorBoardLogger", "TopKAccuracy", "Trainer", "WandbLogger", "flops",
    "summary",
]  # fmt: skip
