"""Files of images in their published formats, downloads, and transforms; against Pillow and torch on real pictures."""

from __future__ import annotations

import contextlib
import functools
import gzip
import hashlib
import http.server
import io
import pickle
import shutil
import tarfile
import threading

import numpy as np
import pytest

import minidl as md
from minidl.data import DataLoader, digits_arrays
from minidl.data import transforms as T
from minidl.data.datasets import CIFAR10, CIFAR100, MNIST, FashionMNIST, ImageFolder, read_idx, write_idx
from minidl.data.download import checksum_of, download, extract


@pytest.fixture(scope="module")
def photo():
    """A real photograph, [427, 640, 3]."""
    pytest.importorskip("PIL")
    return pytest.importorskip("sklearn.datasets").load_sample_image("china.jpg")


# ---- IDX and CIFAR files ------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("dtype", ["uint8", "int8", "int16", "int32", "float32", "float64"])
def test_idx_files_hold_any_array(dtype, tmp_path):
    array = (np.arange(24).reshape(2, 3, 4) - 5).astype(dtype)
    write_idx(tmp_path / "a", array)
    back = read_idx(tmp_path / "a")
    assert back.dtype == array.dtype and (back == array).all()
    content = (tmp_path / "a").read_bytes()
    assert content[:4].hex() == f"0000{ {'uint8': '08', 'int8': '09', 'int16': '0b', 'int32': '0c', 'float32': '0d', 'float64': '0e'}[dtype]}03"
    damages = ((content[:-1], "bytes"), (content + b"\0", "bytes"), (content[:9], "header"), (b"\x1f\x8b" + content, "no IDX file"), (b"", "nothing"))
    for damaged, what in damages:
        (tmp_path / "a").write_bytes(damaged)
        with pytest.raises(ValueError, match=what):
            read_idx(tmp_path / "a")
    with pytest.raises(TypeError, match="complex"):
        write_idx(tmp_path / "a", array.astype(complex))


def idx_files(folder, gz=False):
    """The digits that the package ships, in MNIST's files: enlarged to 28 × 28."""
    folder.mkdir(parents=True)
    images, labels = digits_arrays()
    large = np.pad((images * 15).astype(np.uint8).repeat(3, 1).repeat(3, 2), ((0, 0), (2, 2), (2, 2)))
    for part, some in (("train", slice(0, 90)), ("t10k", slice(90, 110))):
        for name, array in ((f"{part}-images-idx3-ubyte", large[some]), (f"{part}-labels-idx1-ubyte", labels[some].astype(np.uint8))):
            write_idx(folder / name, array)
            if gz:
                with gzip.open(folder / f"{name}.gz", "wb") as file:
                    file.write((folder / name).read_bytes())
                (folder / name).unlink()
    return large, labels


def cifar_record(label, image):
    """As the data set's page says: the label, then the red, the green and the blue plane."""
    return bytes([label]) + image[:, :, 0].tobytes() + image[:, :, 1].tobytes() + image[:, :, 2].tobytes()


def cifar_archive(path, photo, evil=()):
    """Pieces of a photograph in CIFAR-10's archive; returns them."""
    pieces = [np.ascontiguousarray(photo[32 * i : 32 * i + 32, 32 * j : 32 * j + 32]) for i in range(6) for j in range(10)]
    with tarfile.open(path, "w:gz") as tar:
        for f, name in enumerate([*CIFAR10.files[True], *CIFAR10.files[False], "batches.meta.txt", *evil]):
            records = b"".join(cifar_record((f + k) % 10, pieces[10 * f + k]) for k in range(10)) if f < 6 else None
            content = records or ("\n".join(CIFAR10.classes) + "\n\n").encode()
            entry = tarfile.TarInfo(name if name in evil else f"cifar-10-batches-bin/{name}")
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return pieces


@contextlib.contextmanager
def server(folder):
    """Files over HTTP on 127.0.0.1."""
    handler = type("Quiet", (http.server.SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(handler, directory=str(folder))) as http_server:
        thread = threading.Thread(target=http_server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{http_server.server_port}/"
        finally:
            http_server.shutdown()
            thread.join()


def md5(path):
    return "md5:" + hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


@pytest.mark.parametrize("kind", [MNIST, FashionMNIST])
def test_mnist_is_read_and_downloaded_with_its_checksums(kind, tmp_path, capsys):
    images, labels = idx_files(tmp_path / kind.__name__ / "raw")
    data = kind(tmp_path)
    assert len(data) == 90 and len(kind(tmp_path, train=False)) == 20 and (data.data == images[:90]).all()
    image, label = data[3]
    assert image.dtype == np.uint8 and image.shape == (28, 28) and label == labels[3] and len(kind.classes) == 10
    x, y = next(iter(DataLoader(data, 8)))  # one gather
    assert x.dtype is md.uint8 and x.shape == (8, 28, 28) and y.dtype is md.int64 and y.tolist() == labels[:8].tolist()

    idx_files(tmp_path / "served", gz=True)
    mine = type(kind.__name__, (kind,), {"resources": {n: md5(tmp_path / "served" / f"{n}.gz") for n in kind.resources}})
    with server(tmp_path / "served") as url:
        got = mine(tmp_path / "new", download=True, mirror=url, transform=T.ToTensor(), target_transform=float)
        with pytest.raises(RuntimeError, match=r"(?s)the md5 of what came is .*Put the file at .* or name a mirror"):
            kind(tmp_path / "other", download=True, mirror=url)  # these are not the published files
    assert "train-images" in capsys.readouterr().err  # the progress bar
    assert not list((tmp_path / "other").rglob("*ubyte*"))
    mine(tmp_path / "new", download=True, mirror="http://127.0.0.1:9/")  # all there: nobody is asked
    x, y = got[3]
    assert x.shape == (1, 28, 28) and x.dtype is md.float32 and abs(x.numpy() * 255 - images[3]).max() < 1e-4 and y == float(labels[3])
    (tmp_path / kind.__name__ / "raw" / "train-labels-idx1-ubyte").write_bytes(b"\0\0\x08\1\0\0\0\2\1\1")
    with pytest.raises(ValueError, match="labels"):
        kind(tmp_path)
    packed = tmp_path / "damaged" / kind.__name__ / "raw"
    idx_files(packed, gz=True)
    with pytest.raises(RuntimeError, match="not the published file"):
        kind(tmp_path / "damaged")


def test_the_published_checksums():
    """From the data sets' own pages; a change of a digit would make every download fail."""
    assert CIFAR10.checksums[0] == "md5:c32a1d4ab5d03f1284b67883e8d87530" and len(CIFAR10.checksums[1]) == len("sha256:") + 64
    assert CIFAR100.checksums == ("md5:03b5dce01913d631647c71ecec9e9cb8",)
    every = [*MNIST.resources.values(), *FashionMNIST.resources.values()]
    assert len(set(every)) == 8 and MNIST.resources["train-images-idx3-ubyte"] == "md5:f68b3c2dcbeaaa9fbdd348bbdeb94873"


def test_cifar10_is_downloaded_unpacked_and_never_unpickled(tmp_path, photo, monkeypatch):
    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, None)
    served = tmp_path / "served"
    served.mkdir()
    pieces = cifar_archive(served / CIFAR10.archive, photo, evil=("../outside.txt", "/tmp/outside.txt", "cifar-10-batches-bin/more.bin"))
    sha = "sha256:" + checksum_of(served / CIFAR10.archive, "sha256")
    mine = type("CIFAR10", (CIFAR10,), {"checksums": (md5(served / CIFAR10.archive), sha)})
    with server(served) as url:
        data = mine(tmp_path / "root", download=True, mirror=url)
        with pytest.raises(RuntimeError, match="the sha256 of what came"):
            CIFAR10(tmp_path / "other", download=True, mirror=url)
        with pytest.raises(RuntimeError, match="404"):
            mine(tmp_path / "other", download=True, mirror=url + "nothing/")
    assert not (tmp_path / "other" / CIFAR10.archive).exists()
    assert sorted(p.name for p in (tmp_path / "root").rglob("*") if p.is_file()) == sorted(
        [*CIFAR10.files[True], *CIFAR10.files[False], "batches.meta.txt", CIFAR10.archive]
    )
    assert len(data) == 50 and (data.data == np.stack(pieces[:50])).all() and data.targets[:12].tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 2]
    assert data.classes == CIFAR10.classes and data[7][0].shape == (32, 32, 3) and data[7][1] == 7
    test = CIFAR10(tmp_path / "root", train=False)  # the files are there, so the archive is not asked for
    assert len(test) == 10 and (test.data[9] == pieces[59]).all()

    (tmp_path / "root" / CIFAR10.folder / "data_batch_3.bin").unlink()
    with pytest.raises(RuntimeError, match="not the published archive"):
        CIFAR10(tmp_path / "root")
    assert len(mine(tmp_path / "root")) == 50  # from the archive, which is intact
    path = tmp_path / "root" / CIFAR10.folder / "data_batch_3.bin"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match="not records of 3073"):
        CIFAR10(tmp_path / "root")
    path.write_bytes(b"\x0a" + bytes(3072))
    with pytest.raises(ValueError, match="a label is 10"):
        CIFAR10(tmp_path / "root")
    with pytest.raises(RuntimeError, match="download=True"):
        CIFAR10(tmp_path / "empty")


def test_cifar100_has_two_labels_before_each_image(tmp_path, photo):
    folder = tmp_path / CIFAR100.folder
    folder.mkdir()
    for name in ("train.bin", "test.bin"):
        (folder / name).write_bytes(b"".join(bytes([3]) + cifar_record(90 + k, photo[:32, 32 * k : 32 * k + 32]) for k in range(4)))
    (folder / "fine_label_names.txt").write_text("\n".join(f"thing_{i}" for i in range(100)))
    data = CIFAR100(tmp_path)
    assert data.targets.tolist() == [90, 91, 92, 93] and data.classes[91] == "thing_91" and (data.data[2] == photo[:32, 64:96]).all()


def test_download_keeps_what_is_intact_and_leaves_nothing_half_done(tmp_path):
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / "x").write_bytes(b"hello")
    right = md5(tmp_path / "served" / "x")
    with server(tmp_path / "served") as url:
        got = download([url + "missing", url + "x"], tmp_path / "got" / "x", right, progress=False)  # the second one has it
        assert got.read_bytes() == b"hello"
        got.write_bytes(b"hellu")
        assert download(url + "x", got, right, progress=False).read_bytes() == b"hello"  # not intact: again
    assert [p.name for p in (tmp_path / "got").iterdir()] == ["x"]
    with pytest.raises(ValueError, match="md5:"):
        download("http://127.0.0.1:9/x", got, "abc")
    (tmp_path / "bad.tar").write_bytes(b"no archive")
    with pytest.raises(RuntimeError, match="cannot be unpacked"):
        extract(tmp_path / "bad.tar", ["x"], tmp_path)
    with tarfile.open(tmp_path / "link.tar", "w") as tar:
        entry = tarfile.TarInfo("x")
        entry.type, entry.linkname = tarfile.SYMTYPE, "/etc/hostname"
        tar.addfile(entry)
    with pytest.raises(RuntimeError, match="cannot be unpacked"):
        extract(tmp_path / "link.tar", ["x"], tmp_path / "out")


def test_a_folder_of_images(tmp_path, photo):
    image_module = pytest.importorskip("PIL.Image")
    for i, name in enumerate(("cat", "dog")):
        (tmp_path / name / "more").mkdir(parents=True)
        image_module.fromarray(photo[:20, : 30 + i]).save(tmp_path / name / "b.png")
        image_module.fromarray(photo[:20, :30, 0]).save(tmp_path / name / "more" / "a.PNG")
    (tmp_path / "dog" / "notes.txt").write_text("no image")
    data = ImageFolder(tmp_path, transform=T.Compose([T.Resize((8, 8)), T.ToTensor()]))
    assert len(data) == 4 and data.classes == ["cat", "dog"] and data.targets == [0, 0, 1, 1]
    x, y = next(iter(DataLoader(data, 4)))
    assert x.shape == (4, 3, 8, 8) and y.tolist() == [0, 0, 1, 1]
    assert (ImageFolder(tmp_path)[0][0] == photo[:20, :30]).all()
    shutil.rmtree(tmp_path / "cat")
    shutil.rmtree(tmp_path / "dog")
    with pytest.raises(RuntimeError, match="no folders with images"):
        ImageFolder(tmp_path)


# ---- transforms ---------------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("mode", ["bilinear", "bicubic", "nearest"])
@pytest.mark.parametrize("size", [(100, 150), (60, 700), (500, 37), (427, 640), (1, 1)], ids=str)
def test_resizing_bytes_is_pillows(mode, size, photo):
    image_module = pytest.importorskip("PIL.Image")
    want = np.asarray(image_module.fromarray(photo).resize(size[::-1], image_module.Resampling[mode.upper()])).astype(int)
    got = T.Resize(size, mode)(photo)
    assert got.dtype == np.uint8 and got.shape == (*size, 3)
    if mode == "nearest":  # Pillow takes the middle of the pixel, torch its beginning: which of the two torchvision gives depends on the image
        torch = pytest.importorskip("torch")
        chw = torch.from_numpy(photo.transpose(2, 0, 1).copy())[None]
        want = torch.nn.functional.interpolate(chw, size, mode="nearest")[0].numpy().transpose(1, 2, 0).astype(int)
    if size == (60, 700):  # which direction comes first depends on Pillow's version
        assert abs(got - want).mean() < 0.2
    else:
        assert abs(got - want).max() <= (mode != "nearest") and (got == want).mean() > 0.99


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize("size", [(20, 31), (90, 200), (64, 15)], ids=str)
def test_resizing_floats_is_torchs(mode, antialias, size, photo):
    torch = pytest.importorskip("torch")
    x = photo[:60, :90].transpose(2, 0, 1).astype(np.float32) / 255
    want = torch.nn.functional.interpolate(torch.from_numpy(x)[None], size, mode=mode, align_corners=False, antialias=antialias)[0].numpy()
    got = T.Resize(size, mode, antialias=antialias)(md.asarray(x))
    assert isinstance(got, md.Tensor) and abs(got.numpy() - want).max() < 2e-6


def test_sizes(photo):
    size = lambda t, x=photo: t(x).shape[:2]
    assert size(T.Resize(64)) == (64, 95) and size(T.Resize([64])) == (64, 95) and size(T.Resize(64), photo.transpose(1, 0, 2)) == (95, 64)
    assert size(T.Resize(64, max_size=80)) == (53, 80)
    assert size(T.CenterCrop(100)) == (100, 100) and (T.CenterCrop((427, 640))(photo) == photo).all()
    odd = T.CenterCrop((3, 7))(photo[:6, :4])
    assert odd.shape == (3, 7, 3) and (odd[:, 1:5] == photo[2:5, :4]).all() and not odd[:, 0].any() and not odd[:, 5:].any()
    assert size(T.Pad((1, 2, 3, 4)), photo[:5, :5]) == (11, 9) and size(T.Pad([2, 1]), photo[:5, :5]) == (7, 9)
    for mode in ("edge", "reflect", "symmetric"):
        assert (T.Pad(2, padding_mode=mode)(photo[:5, :5]) == np.pad(photo[:5, :5], ((2, 2), (2, 2), (0, 0)), mode)).all()
    filled = T.Pad(1, fill=(1, 2, 3))(photo[:2, :2])
    assert filled[0, 0].tolist() == [1, 2, 3] and (filled[1:3, 1:3] == photo[:2, :2]).all()
    tensor = T.Pad(1, fill=(0.1, 0.2, 0.3))(T.ToTensor()(photo[:2, :2]))
    assert tensor[:, 0, 0].tolist() == pytest.approx([0.1, 0.2, 0.3])
    for wrong, what in ((lambda: T.Resize(0), "size"), (lambda: T.Resize((3, 3), max_size=9), "max_size"), (lambda: T.Resize(9, max_size=9), "above"),
                        (lambda: T.Resize(3, "lanczos"), "none of"), (lambda: T.Pad(-1), "negative"), (lambda: T.Pad(1, 0, "wrap"), "none of"),
                        (lambda: T.CenterCrop((1, 2, 3)), "size"), (lambda: T.Normalize([0.5], [0.0]), "zero"),
                        (lambda: T.Normalize([0.5] * 2, [0.5])(md.ones((3, 2, 2))), "2 means and 1 stds for 3 channels"),
                        (lambda: T.RandomCrop(9)(photo[:5, :5]), "pad_if_needed"), (lambda: T.Grayscale(2), "1 or 3"),
                        (lambda: T.RandomResizedCrop(3, scale=(0, 1)), "positive"), (lambda: T.CenterCrop(2)(np.zeros(3)), "shape")):  # fmt: skip
        with pytest.raises(ValueError, match=what):
            wrong()
    for wrong in (lambda: T.Normalize([0.5], [0.5])(photo), lambda: T.ToTensor()(md.ones((3, 4, 4))), lambda: T.ToTensor()("photo"),
                  lambda: T.Lambda(3), lambda: T.Resize(3)(photo.astype(np.int32)), lambda: T.RandomErasing()(photo)):  # fmt: skip
        with pytest.raises(TypeError):
            wrong()


def test_tensors_and_back(backend, photo):
    """ToTensor's are on the backend in use; a Tensor stays on its own, with more axes in front if it has them."""
    x = T.Compose([T.ToTensor(), T.Normalize([0.4, 0.5, 0.6], (0.1, 0.2, 0.3))])(photo[:4, :6])
    want = (photo[:4, :6].astype(np.float32) / 255 - np.float32([0.4, 0.5, 0.6])) / np.float32([0.1, 0.2, 0.3])
    assert x.backend == backend and x.dtype is md.float32 and (x.numpy() == want.transpose(2, 0, 1)).all()
    many = md.stack([x, x * 2.0])
    assert (T.CenterCrop(2)(many) == many[:, :, 1:3, 2:4]).all().item() and T.CenterCrop(2)(many).backend == backend
    gray = T.ToTensor()(photo[:4, :6, 0])
    assert gray.shape == (1, 4, 6) and T.ToTensor()(photo[:2, :2].astype(np.float64)).dtype is md.float64


def test_grayscale_is_pillows(photo):
    image = pytest.importorskip("PIL.Image").fromarray(photo)
    assert (T.Grayscale()(image)[..., 0] == np.asarray(image.convert("L"))).all()
    assert T.Grayscale(3)(photo).shape == photo.shape and T.Grayscale(3)(photo[..., 0]).shape == photo.shape
    x = T.ToTensor()(photo[:3, :3])
    assert abs(T.Grayscale()(x).numpy()[0] - (x.numpy() * np.float32([0.2989, 0.587, 0.114])[:, None, None]).sum(0)).max() < 1e-6


def test_random_transforms_are_functions_of_the_key(photo):
    """Flips happen as often as p says, crops come from everywhere and are parts of the image, and a key decides both."""
    keys = [md.random.fold_in(md.random.key(1), i) for i in range(300)]
    small = np.arange(12, dtype=np.uint8).reshape(3, 4)
    for flip, turned in ((T.RandomHorizontalFlip(0.3), small[:, ::-1]), (T.RandomVerticalFlip(0.3), small[::-1])):
        done = [flip(small, key=k) for k in keys]
        count = sum((d == turned).all() for d in done)
        assert 60 < count < 120 and all((d == turned).all() or (d == small).all() for d in done)  # 90 ± 3.8 deviations
    crops = {T.RandomCrop(2)(small, key=k).tobytes(): None for k in keys}
    assert set(crops) == {small[i : i + 2, j : j + 2].tobytes() for i in range(2) for j in range(3)}
    padded = np.pad(small, 1)
    crops = {T.RandomCrop(4, padding=1)(small, key=k).tobytes() for k in keys}
    assert crops == {padded[i : i + 4, j : j + 4].tobytes() for i in range(2) for j in range(3)}
    assert T.RandomCrop((5, 4), pad_if_needed=True)(small, key=keys[0]).shape == (5, 4)
    resized = [T.RandomResizedCrop(7)(photo, key=k) for k in keys[:3]]
    assert all(r.shape == (7, 7, 3) for r in resized) and (resized[0] != resized[1]).any()
    narrow = T.RandomResizedCrop(2, scale=(1, 1), ratio=(1, 1))(np.arange(40, dtype=np.uint8).reshape(2, 20), key=keys[0])
    assert narrow.tolist() == [[9, 10], [29, 30]]  # nothing fits: the middle
    narrow = T.RandomResizedCrop(2, scale=(1, 1), ratio=(1, 1))(np.arange(40, dtype=np.uint8).reshape(20, 2), key=keys[0])
    assert narrow.tolist() == [[18, 19], [20, 21]]
    erased = [T.RandomErasing(0.5, value=-1.0)(md.ones((1, 20, 20)), key=k) for k in keys[:60]]
    assert 15 < sum((e == -1.0).any().item() for e in erased) < 45
    apply = T.RandomApply([T.RandomHorizontalFlip(1.0), np.negative], p=0.5)
    assert 117 < sum((apply(small, key=k) == -small[:, ::-1]).all() for k in keys) < 183
    one, two = (T.Compose([T.RandomCrop(4, 2), T.RandomHorizontalFlip(), T.ToTensor()])(small, key=keys[5]) for _ in range(2))
    assert (one == two).all().item()
    md.manual_seed(3)
    a = [T.RandomCrop(2)(small) for _ in range(8)]
    state = md.random.default_generator.key.tolist()
    T.Compose([T.CenterCrop(2), T.ToTensor()])(small)
    assert md.random.default_generator.key.tolist() == state  # what is not random takes no key
    md.manual_seed(3)
    assert all((b == T.RandomCrop(2)(small)).all() for b in a) and len({b.tobytes() for b in a}) > 1


def test_augmented_batches_do_not_depend_on_workers_or_backend(tmp_path):
    idx_files(tmp_path / "MNIST" / "raw")
    augment = T.Compose([T.RandomCrop(28, padding=3), T.RandomHorizontalFlip(), T.RandomResizedCrop(20), T.ToTensor(), T.Normalize([0.1], [0.3])])
    data = MNIST(tmp_path, transform=augment)
    loaders = [DataLoader(data, 25, True, generator=md.random.key(4), num_workers=n) for n in (0, 2)]
    (a, b), (again, _) = [[x.numpy() for x, _ in loader] for loader in loaders], [[x.numpy() for x, _ in loaders[0]], 0]
    assert all((x == y).all() for x, y in zip(a, b, strict=True)) and (a[0] != again[0]).any()
    assert {x.backend for x, _ in loaders[0]} == {md.empty(0).backend}
    with md.use_backend("numba"):
        assert all((x.numpy() == y).all() for (x, _), y in zip(DataLoader(data, 25, True, generator=md.random.key(4)), a, strict=True))


@pytest.mark.parametrize("kind", [T.Resize, T.RandomResizedCrop])
@pytest.mark.parametrize("size", [3.5, "ab", None, 0, (1, 2, 3), (2, 2.0), ()])
def test_a_size_is_one_or_two_positive_integers(kind, size):
    with pytest.raises(ValueError, match="positive integer"):
        kind(size)


def test_sizes_may_be_numbers_of_numpy_and_paddings_may_not_be_fractions():
    image = np.zeros((8, 12, 3), np.uint8)
    assert T.Resize(np.int64(4))(image).shape == (4, 6, 3) and T.RandomResizedCrop(np.int64(4))(image).shape == (4, 4, 3)
    with pytest.raises(ValueError, match=r"padding is a number.*got 1.5"):
        T.Pad(1.5)


def test_gray_pictures_without_a_channel_axis_get_one():
    plain = np.arange(6, dtype=np.uint8).reshape(2, 3)
    assert (T.Grayscale()(plain) == plain[..., None]).all()
    assert T.Grayscale(3)(md.asarray(plain)).tolist() == [plain.tolist()] * 3
