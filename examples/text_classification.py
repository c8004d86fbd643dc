"""Classify real text: from which part of Python's standard library does a piece of documentation come?

    python examples/text_classification.py

The texts are the docstrings of the Python that runs this file. A word is an embedding, and so is the beginning of a long word, which its forms
share; a text is the sum of these over the root of their number.
"""

import importlib
import inspect
import re
from collections import Counter

from options import options

import minidl as md
import minidl.nn as nn
import minidl.nn.functional as F
import minidl.optim as optim

args = options(__doc__)
TOPICS = {
    "files": "os pathlib shutil tempfile glob tarfile zipfile io",
    "numbers": "math statistics fractions decimal random cmath numbers",
    "network": "socket ssl smtplib ftplib http.client urllib.request urllib.parse email.message ipaddress",
    "tasks": "threading asyncio multiprocessing concurrent.futures queue subprocess sched",
    "text": "string re textwrap difflib json csv html configparser locale",
    "time": "datetime calendar time zoneinfo",
}
WORDS = 40  # longest text


def documents(module_name):
    """The docstrings of a module, its functions, classes and their methods."""
    module = importlib.import_module(module_name)
    own = lambda o: getattr(o, "__module__", None) in (module_name, "_" + module_name, "posixpath", "posix") or not hasattr(o, "__module__")
    members = [o for n, o in inspect.getmembers(module) if callable(o) and not n.startswith("_") and own(o)]
    methods = [o for c in members if inspect.isclass(c) for n, o in vars(c).items() if not n.startswith("_")]
    return {d for o in [module, *members, *methods] if isinstance(d := getattr(o, "__doc__", None), str)}


def tokens(text):
    return re.findall(r"[a-z]+", text.lower())


def load():
    """(texts as lists of words, labels): each paragraph of documentation that is long enough and occurs under one topic only."""
    found = {}
    for label, names in enumerate(TOPICS.values()):
        for name in names.split():
            for doc in documents(name):
                for paragraph in re.split(r"\n\s*\n", doc):
                    words = tuple(tokens(paragraph)[:WORDS])
                    if len(words) >= 5:
                        found.setdefault(words, set()).add(label)
    pairs = sorted((words, labels.pop()) for words, labels in found.items() if len(labels) == 1)
    return [list(words) for words, _ in pairs], [label for _, label in pairs]


class Net(nn.Module):
    def __init__(self, classes):
        super(Net, self).__init__()  # noqa: UP008 (as users of PyTorch write it)
        self.embedding = nn.Embedding(10000, 100, padding_idx=0)
        nn.init.normal_(self.embedding.weight, std=0.1)
        self.word_dropout = nn.Dropout(0.3)
        self.fc1 = nn.Linear(100, 128)
        self.dropout = nn.Dropout(0.5)
        self.fc2 = nn.Linear(128, classes)

    def forward(self, x):
        kept = self.word_dropout((x != 0).to(md.float32))  # 0 is padding; in training whole words are left out, too
        x = (self.embedding(x) * kept[..., None]).sum(axis=1) / md.clip(kept.sum(axis=1, keepdims=True), 1.0) ** 0.5
        x = F.relu(self.fc1(self.dropout(x)))
        return self.fc2(self.dropout(x))


def logistic_regression(x, labels):
    """What the network has to beat: the best weights [words, topics] of logistic regression on which words a text has, their squares held down."""
    present, weights = bags(x), nn.Parameter(md.zeros(10000, len(TOPICS)))
    optimizer = optim.LBFGS([weights], max_iter=15 if args.small else 100, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        loss = F.cross_entropy(present @ weights, labels, reduction="sum") + 0.5 * (weights**2).sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    return weights.detach()


def bags(x):
    """1 for each word that a text has, [texts, words]."""
    return md.zeros((x.shape[0], 10000)).at[md.arange(x.shape[0])[:, None], x[:, :WORDS]].set(1.0) * (md.arange(10000) > 0)


def beginnings(words):
    """What the forms of a long word share."""
    return [word[:5] + "-" for word in words if len(word) > 5]


md.manual_seed(0)
texts, labels = load()
dataset = list(zip(texts, labels, strict=True))
train_data, test_data = md.data.random_split(dataset, [0.8, 0.2])
counts = Counter(w for i in range(len(train_data)) for w in [*train_data[i][0], *beginnings(train_data[i][0])])
vocabulary = {word: i + 2 for i, (word, _) in enumerate(counts.most_common(9998))}  # 0 is padding, 1 an unknown word


def row(words):
    return [vocabulary.get(w, 1) for w in words] + [0] * (WORDS - len(words))


def encode(items):
    rows = [row(words) + row(beginnings(words)) for words, _ in items]
    return md.asarray(rows), md.asarray([label for _, label in items])


train_loader = md.data.DataLoader(train_data, batch_size=64, shuffle=True, drop_last=True, collate_fn=encode)
print(f"{len(train_data)} paragraphs to train on, {len(test_data)} to test, {len(vocabulary)} words and beginnings; topics: {', '.join(TOPICS)}")


def fit(net, rate, epochs):
    """Train by Adam."""
    epochs = 1 if args.small else epochs
    criterion = nn.CrossEntropyLoss(label_smoothing=0.1)
    optimizer = optim.Adam(net.parameters(), lr=rate)
    schedule = optim.lr_scheduler.OneCycleLR(optimizer, max_lr=rate, total_steps=epochs * len(train_loader))

    @args.compile
    def train_step(inputs, labels):
        optimizer.zero_grad()
        loss = criterion(net(inputs), labels)
        loss.backward()
        optimizer.step()
        return loss

    net.train()
    for epoch in range(epochs):
        running_loss = 0.0
        for inputs, labels in train_loader:
            running_loss += train_step(inputs, labels).item()
            schedule.step()
        print(f"Epoch [{epoch + 1}], loss: {running_loss / len(train_loader):.3f}")
    return net.eval()


def share(scores, labels):
    return (md.argmax(scores, axis=1) == labels).to(md.float32).mean().item()


test_x, test_labels = encode([test_data[i] for i in range(len(test_data))])
net = fit(Net(len(TOPICS)), 0.005, 16)
with md.no_grad():
    right = share(net(test_x), test_labels)
weights = logistic_regression(*encode([train_data[i] for i in range(len(train_data))]))
bag = share(bags(test_x) @ weights, test_labels)
print(f"right on {right:.1%} of the test paragraphs, logistic regression on bags of words on {bag:.1%}; the commonest topic alone would give "
      f"{max(Counter(test_labels.tolist()).values()) / len(test_labels):.1%}\n")  # fmt: skip
if not args.small:
    assert right > bag, "the network must beat logistic regression"

for sentence in (
    "Return the square root of the sum of squares of the given values.",
    "Remove the directory and everything in it, following no symbolic links.",
    "Wait until the lock is released by another thread.",
    "Open a connection to the server and send the request headers.",
):
    scores = F.softmax(net(encode([(tokens(sentence), 0)])[0])[0], dim=-1)
    best = md.argmax(scores).item()
    print(f"{list(TOPICS)[best]:8s} {scores[best].item():4.0%}  {sentence}")
