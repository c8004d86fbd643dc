"""Train a convolutional network in the PyTorch manner, on 1,797 real scans of handwritten digits.

    python examples/cnn_digits.py
    python examples/cnn_digits.py --cifar data     # CIFAR-10 instead: the binary version in data/cifar-10-batches-bin, fetched if it is not there

`--no-jit` leaves the compiler out, and the same step runs eagerly.
"""

import os

from options import options

import minidl as md
import minidl.nn as nn
import minidl.nn.functional as F
import minidl.optim as optim

args = options(__doc__, cifar=None)


class Net(nn.Module):
    def __init__(self):
        super(Net, self).__init__()  # noqa: UP008 (as users of PyTorch write it)
        self.conv1 = nn.Conv2d(3, 6, 5)
        self.pool = nn.MaxPool2d(2, 2)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(16 * 5 * 5, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, 10)

    def forward(self, x):
        x = self.pool(F.relu(self.conv1(x)))
        x = self.pool(F.relu(self.conv2(x)))
        x = x.view(-1, 16 * 5 * 5)
        x = F.relu(self.fc1(x))
        x = F.relu(self.fc2(x))
        x = self.fc3(x)
        return x


md.manual_seed(0)
if args.cifar:
    scale = md.data.transforms.Compose([md.data.transforms.ToTensor(), md.data.transforms.Normalize((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))])
    fetch = not os.path.isdir(f"{args.cifar}/cifar-10-batches-bin")
    train_data, test_data = (md.data.datasets.CIFAR10(args.cifar, train=train, transform=scale, download=fetch) for train in (True, False))
else:
    train_data, test_data = md.data.digits()
train_loader = md.data.DataLoader(train_data, batch_size=32, shuffle=True)
test_loader = md.data.DataLoader(test_data, batch_size=100)

EPOCHS = 1 if args.small else 16
net = Net()
criterion = nn.CrossEntropyLoss(label_smoothing=0.1)
optimizer = optim.SGD(net.parameters(), lr=0.01, momentum=0.9, weight_decay=0.001)
schedule = optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.05, total_steps=EPOCHS * len(train_loader))
print(net)


@args.compile  # md.jit
def train_step(inputs, labels):
    optimizer.zero_grad()
    outputs = net(inputs)
    loss = criterion(outputs, labels)
    loss.backward()
    optimizer.step()
    return loss


net.train()
for epoch in range(EPOCHS):
    running_loss = 0.0
    for _, data in enumerate(train_loader, 0):
        inputs, labels = data
        loss = train_step(inputs, labels)
        schedule.step()
        running_loss += loss.item()
    print(f"Epoch [{epoch + 1}], loss: {running_loss / len(train_loader):.3f}")

net.eval()
right = 0
with md.no_grad():
    for inputs, labels in test_loader:
        right += (md.argmax(net(inputs), axis=1) == labels).sum().item()
print(f"{right} of {len(test_data)} test images right ({right / len(test_data):.1%})\n")

if not args.small and not args.cifar:
    assert right / len(test_data) >= 0.97, "97 of 100 digits are wanted"

image, label = test_data[0]
image, label = md.asarray(image), md.asarray(label)
print(f"one of them, a {label.item()}, read as {md.argmax(net(image[None])[0]).item()}:")
for row in image[0, ::4, ::4].tolist():
    print("".join(" .:-=+*#%@"[int(9 * min(max(v, 0.0), 1.0))] * 2 for v in row))
