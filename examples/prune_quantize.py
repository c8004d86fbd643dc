"""Make a trained network small: prune it, quantize it to 8 bits, compute its constants beforehand, and ship it as a file that needs NumPy alone.

    python examples/prune_quantize.py

The network is LeNet-like, the data 1,797 real scans of handwritten digits.
"""

import os
import runpy
import tempfile

from options import options

import minidl as md
import minidl.nn as nn
import minidl.nn.functional as F
import minidl.optim as optim

args = options(__doc__)


class Net(nn.Module):
    def __init__(self):
        super(Net, self).__init__()  # noqa: UP008 (as users of PyTorch write it)
        self.conv1, self.norm = nn.Conv2d(3, 6, 5), nn.BatchNorm2d(6)
        self.pool = nn.MaxPool2d(2, 2)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(16 * 5 * 5, 200)
        self.fc2 = nn.Linear(200, 84)
        self.fc3 = nn.Linear(84, 10)

    def forward(self, x):
        x = self.pool(F.relu(self.norm(self.conv1(x))))
        x = self.pool(F.relu(self.conv2(x)))
        x = F.relu(self.fc1(x.view(-1, 16 * 5 * 5)))
        return self.fc3(F.relu(self.fc2(x)))


def prune_model(model, target_size):
    """Halve by L1 the weights of every Linear layer that is wider than target_size."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            if module.weight.shape[0] > target_size:
                nn.utils.prune.l1_unstructured(module, name="weight", amount=0.5)
    return model


md.manual_seed(0)
train_data, test_data = md.data.digits()
test_x, test_y = test_data.tensors
loader = md.data.DataLoader(train_data, batch_size=32, shuffle=True, drop_last=True)
net = Net()


def fit(model, epochs, rate):
    optimizer = optim.SGD(model.parameters(), lr=rate, momentum=0.9)

    @args.compile
    def step(inputs, labels):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(inputs), labels)
        loss.backward()
        optimizer.step()
        return loss

    model.train()
    for epoch in range(1 if args.small else epochs):
        total = sum(step(inputs, labels).item() for inputs, labels in loader)
        print(f"  epoch {epoch + 1}: loss {total / len(loader):.4f}")
    return model.eval()


def accuracy(model):
    with md.no_grad():
        return (md.argmax(model(test_x), axis=1) == test_y).to(md.float32).mean().item()


def saved(model):
    """Bytes of the model's tensors in a safetensors file."""
    with tempfile.TemporaryDirectory() as folder:
        md.saving.save_tensors(f"{folder}/model.safetensors", model.state_dict())
        return os.path.getsize(f"{folder}/model.safetensors")


print("train")
fit(net, 8, 0.01)
rows = [("float32", accuracy(net), saved(net))]

print("halve the weights of the widest layer, and train on: the mask stays")
prune_model(net, 128)
fit(net, 2, 0.003)
rows.append((f"pruned ({nn.utils.prune.sparsity(net):.0%} of all weights 0)", accuracy(net), saved(net)))
nn.utils.prune.remove(net.fc1, "weight")

dynamic = md.quantize.dynamic(net, (nn.Linear, nn.Conv2d))
rows.append(("8 bits, inputs rounded as they come", accuracy(dynamic), saved(dynamic)))

observed = md.quantize.prepare(net)
observed(train_data.tensors[0][:256])
static = md.quantize.convert(observed)
rows.append(("8 bits, ranges measured beforehand", accuracy(static), saved(static)))

print("train on, aware of the rounding")
aware = fit(md.quantize.prepare(net, aware=True), 1, 0.003)
shipped = md.quantize.convert(aware)
rows.append(("8 bits, trained aware of it", accuracy(shipped), saved(shipped)))

print()
for name, right, size in rows:
    print(f"{name:36s} {right:6.1%} of the test digits  {size / 1024:6.1f} KiB  {size / rows[0][2]:.2f} of float32")

if not args.small:
    for name, right, size in rows[2:]:
        assert right > rows[1][1] - 0.01 and size <= 0.3 * rows[0][2], f"{name}: at most one point less, in 0.3 of the bytes"

print("\nbatch normalisation folded into the convolution (md.freeze):")
print(md.deploy.compare(net, md.freeze(net), test_x[:32], metric=accuracy, repeat=5))

with tempfile.TemporaryDirectory() as folder:
    file, constants = md.export(md.freeze(shipped), (test_x[:2],), f"{folder}/digits.py", dynamic_batch=True)
    predict = runpy.run_path(str(file))["predict"]  # a program of NumPy's own
    right = (predict(test_x.numpy()).argmax(1) == test_y.numpy()).mean()
    print(f"\nexported: {file.name} and {constants.name}, {os.path.getsize(constants) / 1024:.1f} KiB, {right:.1%} right with NumPy alone")
    try:
        import onnxruntime
    except ImportError:
        print("(with the packages onnx and onnxruntime, an ONNX file, too)")
    else:
        file = md.deploy.export_onnx(md.freeze(shipped), (test_x[:2],), f"{folder}/digits.onnx", dynamic_batch=True)
        scores = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"]).run(None, {"x": test_x.numpy()})[0]
        right = (scores.argmax(1) == test_y.numpy()).mean()
        print(f"exported: {file.name}, {os.path.getsize(file) / 1024:.1f} KiB, {right:.1%} right in onnxruntime")
