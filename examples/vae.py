"""A variational autoencoder of handwritten digits: random keys, and a gradient through random numbers.

    python examples/vae.py
"""

from options import options
from tqdm import tqdm

import minidl as md
import minidl.nn as nn
import minidl.nn.functional as F
import minidl.optim as optim

args = options(__doc__)
EPOCHS, LATENT = (1, 8) if args.small else (40, 8)


class VAE(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(64, 128), nn.GELU(), nn.Linear(128, 2 * LATENT))
        self.decoder = nn.Sequential(nn.Linear(LATENT, 128), nn.GELU(), nn.Linear(128, 64))

    def forward(self, key, x):
        """Scores of the pixels, and the mean and logarithm of the variance of the code."""
        mean, log_var = md.split(self.encoder(x), LATENT, axis=-1)
        noise = md.random.normal(key, mean.shape, mean.dtype)
        return self.decoder(mean + md.exp(0.5 * log_var) * noise), mean, log_var


def loss_of(model, key, x):
    """The negative evidence lower bound, in nats an image."""
    scores, mean, log_var = model(key, x)
    likelihood = F.binary_cross_entropy_with_logits(scores, x, reduction="sum")
    divergence = -0.5 * md.sum(1.0 + log_var - mean**2 - md.exp(log_var))
    return (likelihood + divergence) / x.shape[0]


md.manual_seed(0)
images = md.data.digits()[0].tensors[0][:, 0, ::4, ::4].reshape(-1, 64)  # as they were scanned: 8 × 8
loader = md.data.DataLoader(md.data.TensorDataset(images), batch_size=64, shuffle=True, drop_last=True)
model = VAE()
optimizer = optim.Adam(model.parameters(), lr=2e-3)


@args.compile
def step(key, x):
    optimizer.zero_grad()
    loss = loss_of(model, key, x)
    loss.backward()
    optimizer.step()
    return loss


key, number, means = md.random.key(0), 0, []
bar = tqdm(range(EPOCHS), desc="train", unit="epoch", mininterval=1.0)
for _ in bar:
    total = 0.0
    for (x,) in loader:
        total += step(md.random.fold_in(key, number), x).item()
        number += 1
    means.append(total / len(loader))
    bar.set_postfix(nats=f"{means[-1]:.2f}")
print(f"nats an image: {means[0]:.2f} in the first epoch, {means[-1]:.2f} in the last\n\nnew digits, drawn from nothing but noise:")

codes = md.random.normal(md.random.key(1), (6, LATENT))
with md.no_grad():
    drawn = md.sigmoid(model.decoder(codes)).reshape(6, 8, 8)
for row in range(8):
    print("   ".join("".join(" .:-=+*#%@"[min(int(10 * v), 9)] * 2 for v in image[row].tolist()) for image in drawn))
if not args.small:
    assert means[-1] < 0.8 * means[0], "the bound must get tighter"
