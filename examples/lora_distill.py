"""Two ways to reuse a trained network: adapt it by low-rank updates (LoRA), and teach a smaller one (distillation).

    python examples/lora_distill.py

Sources: E. Hu et al., LoRA: low-rank adaptation of large language models (2021); G. Hinton et al., Distilling the knowledge in a neural
network (2015).
"""

from options import options
from tqdm import tqdm

import minidl as md
import minidl.nn as nn
import minidl.nn.functional as F
import minidl.optim as optim

args = options(__doc__)
EPOCHS = 1 if args.small else 15

train_data, test_data = md.data.digits()
x, tx = (data.tensors[0][:, 0, ::4, ::4] for data in (train_data, test_data))  # as they were scanned: 8 × 8
y, ty = train_data.tensors[1], test_data.tensors[1]


class LoRA(nn.Module):
    """A frozen Linear layer and a trained update of low rank: W x + B A x, B being zero at first."""

    def __init__(self, layer, rank):
        super().__init__()
        self.layer = layer.requires_grad_(False)
        self.a = nn.Parameter(md.random.normal(md.random.key(rank), (rank, layer.in_features)) / layer.in_features**0.5)
        self.b = nn.Parameter(md.zeros(layer.out_features, rank))

    def forward(self, x):
        return self.layer(x) + F.linear(F.linear(x, self.a), self.b)


def mlp(width):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 10))


def fit(name, model, images, loss_of, rate=0.05):
    """Train what requires gradients."""
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = optim.SGD(trained, lr=rate, momentum=0.9)
    loader = md.data.DataLoader(md.data.TensorDataset(images, y), batch_size=32, shuffle=True, drop_last=True)

    @args.compile
    def step(inputs, labels):
        optimizer.zero_grad()
        loss = loss_of(model(inputs), inputs, labels)
        loss.backward()
        optimizer.step()
        return loss

    for _ in tqdm(range(EPOCHS), desc=name, unit="epoch", mininterval=1.0):
        for inputs, labels in loader:
            step(inputs, labels)
    return model, sum(p.size for p in trained)


def accuracy(model, images):
    with md.no_grad():
        return (md.argmax(model(images), axis=1) == ty).to(md.float32).mean().item()


plain = lambda scores, inputs, labels: F.cross_entropy(scores, labels)
turned, test_turned = md.flip(md.permute_dims(x, (0, 2, 1)), axis=2), md.flip(md.permute_dims(tx, (0, 2, 1)), axis=2)  # a quarter turn

md.manual_seed(0)
teacher, size = fit("teacher", mlp(256), x, plain)
print(f"teacher: {size:,} weights, {accuracy(teacher, tx):.1%} of the test digits; of digits on their side {accuracy(teacher, test_turned):.1%}\n")

adapted = nn.Sequential(*(LoRA(layer, 8) if isinstance(layer, nn.Linear) else layer for layer in teacher))
_, few = fit("LoRA on turned digits", adapted, turned, plain, 0.02)
side = accuracy(adapted, test_turned)
print(f"low-rank updates: {few:,} weights trained ({few / size:.0%}), {side:.1%} of digits on their side\n")


def taught(scores, inputs, labels, heat=4.0):
    """The teacher's softened scores, and the labels."""
    with md.no_grad():
        soft = F.softmax(teacher(inputs) / heat, dim=-1)
    return heat**2 * F.kl_div(F.log_softmax(scores / heat, dim=-1), soft, reduction="batchmean") + F.cross_entropy(scores, labels)


def distance(student):
    """How far a student's answers are from the teacher's on the test digits, in nats."""
    with md.no_grad():
        scores, soft = student(tx), F.softmax(teacher(tx), dim=-1)
    return F.kl_div(F.log_softmax(scores, dim=-1), soft, reduction="batchmean").item()


results = {}
for name, loss_of in (("student alone", plain), ("student taught", taught)):
    md.manual_seed(1)
    student, small = fit(name, mlp(10), x, loss_of, 0.02)
    results[name] = distance(student)
    print(f"{name}: {small:,} weights, {accuracy(student, tx):.1%}, {results[name]:.3f} nats from the teacher's answers\n")
if not args.small:
    assert side > accuracy(teacher, test_turned) + 0.3 and results["student taught"] < results["student alone"], "both must work"
