"""Train with differential privacy (DP-SGD), and compare with training without: what privacy costs, and what it gives.

    python examples/dp_sgd.py

Gradients of single examples come from vmap(grad); the account of what was given away from the dp-accounting package. Source: M. Abadi et al., Deep
learning with differential privacy (CCS 2016).
"""

from options import options
from tqdm import tqdm

import minidl as md
import minidl.nn as nn
import minidl.optim as optim
from minidl import privacy

args = options(__doc__)
EPOCHS, RATE, DELTA = (1, 0.1, 1e-4) if args.small else (12, 0.1, 1e-4)

train_data, test_data = md.data.digits()
x, tx = (data.tensors[0][:, 0, ::4, ::4].reshape(-1, 64) for data in (train_data, test_data))  # as they were scanned: 8 × 8
y, ty = train_data.tensors[1], test_data.tensors[1]


def run(noise, clip):
    """(accuracy on the test digits, epsilon) after some epochs."""
    md.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 10))
    sampler = privacy.PoissonSampler(len(x), RATE, md.random.key(0))
    step = privacy.PrivateStep(
        model, optim.SGD(model.parameters(), lr=1.0), nn.CrossEntropyLoss(), clip=clip, noise=noise, rate=RATE, n=len(x), key=md.random.key(1),
        jit=args.jit,
    )  # fmt: skip
    name = f"noise {noise:.2f}" if noise else "not private"
    for _ in tqdm(range(EPOCHS), desc=name, unit="epoch", mininterval=1.0):
        for positions, weights in sampler:
            step(x[positions], y[positions], weights)
    right = (md.argmax(model(tx), axis=1) == ty).to(md.float32).mean().item()
    return right, step.accountant.epsilon(DELTA)


rows = [run(0.0, 1e6)]
steps = EPOCHS * len(privacy.PoissonSampler(len(x), RATE, md.random.key(0)))
for epsilon in (8.0,) if args.small else (8.0, 2.0, 0.5):
    rows.append(run(privacy.noise_for(epsilon, DELTA, RATE, steps), 1.0))
print(f"\n{steps} steps, each on every example with probability {RATE}; delta {DELTA}")
for right, epsilon in rows:
    print(f"  epsilon {epsilon:8.2f}   {right:6.1%} of the test digits right")
if not args.small:
    assert rows[0][0] >= rows[1][0] - 0.02 and rows[1][0] > rows[-1][0] > 0.3, "privacy has a price"
