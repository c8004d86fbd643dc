"""torchvision for real, where it is installed: its data sets and transforms feed the loader, and minidl's own give what it gives."""

from __future__ import annotations

import numpy as np
import pytest
import test_vision
from torchvision_here import FakeData

import minidl as md
from minidl.data import DataLoader, Dataset
from minidl.data import transforms as T
from minidl.data.datasets import MNIST, ImageFolder

KEY = md.random.key(2)


def photo():
    return pytest.importorskip("sklearn.datasets").load_sample_image("flower.jpg")


class Photos(Dataset):
    """Pieces of a photograph as Pillow images, through any transform."""

    def __init__(self, transform):
        from PIL import Image

        self.transform = transform
        self.images = [Image.fromarray(photo()[i * 40 : i * 40 + 60, j * 50 : j * 50 + 70]) for i in range(4) for j in range(4)]

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        return self.transform(self.images[i]), i


def augmentation():
    import torch
    from torchvision.transforms import v2

    return v2.Compose([
        v2.RandomResizedCrop(32), v2.RandomHorizontalFlip(), v2.ColorJitter(0.4, 0.4), v2.ToImage(), v2.ToDtype(torch.float32, scale=True),
        v2.Normalize([0.5, 0.5, 0.5], [0.2, 0.2, 0.2]),
    ])  # fmt: skip


def test_v2_transforms_feed_the_loader_and_do_not_depend_on_workers():
    import torch

    before = torch.get_rng_state()
    runs = [list(DataLoader(Photos(augmentation()), 4, True, num_workers=n, generator=KEY, backend="torch")) for n in (0, 2)]
    assert (torch.get_rng_state() == before).all()
    for (x, i), (y, j) in zip(*runs, strict=True):
        assert x.backend == "torch" and x.shape == (4, 3, 32, 32) and x.dtype is md.float32
        assert (x == y).all().item() and i.tolist() == j.tolist()
    assert len(np.unique(np.concatenate([x.numpy().reshape(4, -1) for x, _ in runs[0]]), axis=0)) == 16


def test_its_data_sets_feed_the_loader(tmp_path):
    from torchvision import datasets
    from torchvision import transforms as theirs

    test_vision.idx_files(tmp_path / "MNIST" / "raw")
    own = next(iter(DataLoader(MNIST(tmp_path, transform=T.ToTensor()), 16)))
    other = next(iter(DataLoader(datasets.MNIST(tmp_path, transform=theirs.ToTensor()), 16)))
    assert (own[0] == other[0]).all().item() and own[1].tolist() == other[1].tolist()
    fake = FakeData(12, (3, 20, 20), transform=theirs.PILToTensor())
    x, y = next(iter(DataLoader(fake, 6, num_workers=1)))
    assert x.shape == (6, 3, 20, 20) and x.dtype is md.uint8 and y.shape == (6,)
    for name in ("a", "b"):
        (tmp_path / "images" / name).mkdir(parents=True)
        datasets.FakeData(1, (3, 9, 9))[0][0].save(tmp_path / "images" / name / "1.png")
    one, two = ImageFolder(tmp_path / "images"), datasets.ImageFolder(str(tmp_path / "images"))
    assert one.classes == two.classes and all((one[i][0] == np.asarray(two[i][0])).all() and one[i][1] == two[i][1] for i in (0, 1))


@pytest.mark.parametrize(
    "name_and_arguments",
    [("Resize", (64,)), ("Resize", ((50, 90),)), ("Resize", (40, "bicubic")), ("CenterCrop", (50,)), ("CenterCrop", ((90, 20),)), ("Pad", (3,)),
     ("Pad", ((1, 2), 7)), ("Pad", ((1, 2, 3, 4), 0, "reflect")), ("Pad", (2, 0, "symmetric")), ("Grayscale", (3,)), ("Grayscale", (1,))],
    ids=str,
)  # fmt: skip
def test_transforms_give_what_torchvisions_give(name_and_arguments):
    from PIL import Image
    from torchvision import transforms as theirs

    name, arguments = name_and_arguments
    modes = {"bicubic": theirs.InterpolationMode.BICUBIC}
    ours, other = getattr(T, name)(*arguments), getattr(theirs, name)(*(modes.get(a, a) if isinstance(a, str) else a for a in arguments))
    image = photo()[:80, :100]
    want = np.asarray(other(Image.fromarray(image)))
    got = ours(image)
    got = got[..., 0] if got.ndim > want.ndim else got
    assert got.shape == want.shape and abs(got.astype(int) - want).max() <= (name == "Resize")
    tensor, other_tensor = T.ToTensor()(image), theirs.ToTensor()(Image.fromarray(image))
    assert (tensor.numpy() == other_tensor.numpy()).all()
    assert abs(ours(tensor).numpy() - other(other_tensor).numpy()).max() < 2e-6
    normal = T.Normalize([0.4, 0.5, 0.6], [0.1, 0.2, 0.3])(tensor).numpy()
    assert abs(normal - theirs.Normalize([0.4, 0.5, 0.6], [0.1, 0.2, 0.3])(other_tensor).numpy()).max() < 1e-5


def test_a_pipeline_may_mix_both():
    from torchvision import transforms as theirs

    pipeline = T.Compose([theirs.ToPILImage(), T.Resize(20), T.ToTensor()])
    assert pipeline(photo()[:40, :60]).shape == (3, 20, 30)
