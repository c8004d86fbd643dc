"""Train a convolutional network on real scans of handwritten digits without writing the loop.

    python examples/trainer_digits.py --epochs 10 --backend torch
    python examples/trainer_digits.py --folder run      # keeps checkpoints there; press Ctrl-C and start it again: it goes on where it was

The folder gets checkpoints, a log that a spreadsheet reads, and a picture of the loss curves.
"""

import tempfile
from pathlib import Path

from options import options

import minidl as md
from minidl import nn
from minidl.data import DataLoader, digits
from minidl.train import Accuracy, ConfusionMatrix, CSVLogger, EarlyStopping, LearningRateLogger, ModelCheckpoint, Trainer

args = options(__doc__, epochs=6, folder=None)
epochs = 1 if args.small else args.epochs
folder = Path(args.folder or tempfile.mkdtemp())

md.manual_seed(0)
train, test = digits()
model = nn.Sequential(
    nn.Conv2d(3, 8, 5), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2),
    nn.Conv2d(8, 16, 5), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
    nn.Flatten(), nn.Linear(16 * 5 * 5, 64), nn.ReLU(), nn.Linear(64, 10),
)  # fmt: skip
print(md.summary(model, (1, 3, 32, 32)), end="\n\n")

train_loader, test_loader = DataLoader(train, batch_size=32, shuffle=True, drop_last=True), DataLoader(test, batch_size=71)
optimizer = md.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
trainer = Trainer(
    model, nn.CrossEntropyLoss(label_smoothing=0.05), optimizer, metrics=[Accuracy(), ConfusionMatrix(10)], jit=args.jit,
    loggers=[CSVLogger(folder / "log.csv")],
    scheduler=md.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * len(train_loader)), schedule="step", clip_norm=5.0,
    callbacks=[LearningRateLogger(), EarlyStopping("val_loss", patience=5), ModelCheckpoint(folder, monitor="val_accuracy", keep=1)],
)  # fmt: skip
history = trainer.fit(train_loader, epochs, validation=test_loader, resume=folder)
history.plot(folder / "curves.svg")

for row in history.epochs:
    print("epoch {epoch}: loss {loss:.3f}, accuracy {accuracy:.1%}; test loss {val_loss:.3f}, accuracy {val_accuracy:.1%}".format(**row))
md.saving.CheckpointManager(folder, mode="max").load("best", trainer=trainer)
found = trainer.evaluate(test_loader)
print(f"the best epoch was {trainer.epoch}: {found['accuracy']:.1%} of {len(test)} digits; rows are digits, columns what they were taken for:")
print(found["confusion"])
if not args.small and args.epochs >= 6:
    assert found["accuracy"] >= 0.97, "97 of 100 digits are wanted"
if args.folder:
    print("log.csv, curves.svg and the checkpoints are in", folder)
