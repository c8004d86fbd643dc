"""Train a small GPT on text that ships with Python, letter by letter, and let it write.

    python examples/gpt.py

The text is the reference manual of the language, which `help("topics")` shows. A model of triples of letters is what it has to beat.
"""

import re
import time
from collections import Counter
from math import log
from pydoc_data.topics import topics

import numpy as np
from options import options
from tqdm import tqdm

import minidl as md
import minidl.nn as nn
import minidl.nn.functional as F
import minidl.optim as optim

args = options(__doc__)
CONTEXT, WIDTH, HEADS, LAYERS = 64, 96, 4, 3
STEPS, BATCH = (20, 8) if args.small else (900, 24)

text = re.sub(r"[^\n !-~]", "?", "\n".join(topics[k] for k in sorted(topics)))
letters = sorted(set(text))
code = np.array([letters.index(c) for c in text], np.int64)
cut = int(0.9 * len(code))
train, test = code[:cut], code[cut:]


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x):
        n, t, _ = x.shape
        q, k, v = (y.reshape(n, t, HEADS, -1).permute(0, 2, 1, 3) for y in md.split(self.qkv(self.norm1(x)), WIDTH, axis=-1))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(y.permute(0, 2, 1, 3).reshape(n, t, WIDTH))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class GPT(nn.Module):
    def __init__(self):
        super().__init__()
        self.token, self.position = nn.Embedding(len(letters), WIDTH), nn.Embedding(CONTEXT, WIDTH)
        self.blocks = nn.Sequential(*(Block() for _ in range(LAYERS)))
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, len(letters), bias=False)
        for name, p in self.named_parameters():
            if name.endswith("weight") and p.ndim == 2:
                nn.init.normal_(p, std=0.02)

    def forward(self, x):
        return self.head(self.norm(self.blocks(self.token(x) + self.position(md.arange(x.shape[1])))))


def trigram_loss():
    """Nats a letter, on the test text, of the shares of triples, pairs and letters in the training text, mixed as suits the end of that text best."""
    def counts(codes, n):
        return Counter(zip(*(codes[i : len(codes) - n + 1 + i].tolist() for i in range(n)), strict=True))

    c1, c2, c3 = (counts(train, n) for n in (1, 2, 3))

    def loss(codes, weights):
        total = 0.0
        for (a, b, c), times in counts(codes, 3).items():
            p3 = c3[a, b, c] / c2[a, b] if c2[a, b] else 0.0
            p2 = c2[b, c] / c1[(b,)] if c1[(b,)] else 0.0
            p = weights[0] * p3 + weights[1] * p2 + weights[2] * c1[(c,)] / len(train) + weights[3] / len(letters)
            total -= times * log(p)
        return total / (len(codes) - 2)

    choices = [(w, 0.95 - w, 0.04, 0.01) for w in (0.5, 0.6, 0.7, 0.8, 0.9)]
    return loss(test, min(choices, key=lambda w: loss(train[-20_000:], w)))


def batches(codes, rng, n):
    at = rng.integers(0, len(codes) - CONTEXT - 1, n)[:, None] + np.arange(CONTEXT)
    return md.asarray(codes[at]), md.asarray(codes[at + 1])


md.manual_seed(0)
model = GPT()
optimizer = optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.01)
schedule = optim.lr_scheduler.OneCycleLR(optimizer, max_lr=4e-3, total_steps=STEPS)


@args.compile
def step(x, y):
    optimizer.zero_grad()
    loss = F.cross_entropy(model(x).reshape(-1, len(letters)), y.reshape(-1))
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return loss


print(f"{len(train):,} letters to train on, {len(test):,} to test, {len(letters)} kinds; {sum(p.size for p in model.parameters()):,} weights")
baseline = trigram_loss()
rng, start = np.random.default_rng(0), time.perf_counter()
bar = tqdm(range(STEPS), desc="train", unit="step", mininterval=1.0)
for i in bar:
    loss = step(*batches(train, rng, BATCH))
    schedule.step()
    if i % 50 == 0:
        bar.set_postfix(loss=f"{loss.item():.3f}")
seconds = time.perf_counter() - start

model.eval()
score = args.compile(lambda x, y: F.cross_entropy(model(x).reshape(-1, len(letters)), y.reshape(-1)))
rng = np.random.default_rng(1)
with md.no_grad():
    losses = [score(*batches(test, rng, 32)).item() for _ in range(2 if args.small else 20)]
print(f"{sum(losses) / len(losses):.3f} nats a letter on unseen text, the triples of letters {baseline:.3f}; {seconds / STEPS * 1e3:.0f} ms a step")

logits = args.compile(lambda x: model(x)[0, -1])
key, written = md.random.key(0), [letters.index(c) for c in ("\n" * (CONTEXT - 12) + "A statement ")[-CONTEXT:]]
with md.no_grad():
    for i in range(10 if args.small else 300):
        drawn = md.random.categorical(md.random.fold_in(key, i), logits(md.asarray([written[-CONTEXT:]])) / 0.7)
        written.append(drawn.item())
print("\n" + "".join(letters[c] for c in written).strip())
if not args.small:
    assert sum(losses) / len(losses) < baseline, "the GPT must beat the triples of letters"
