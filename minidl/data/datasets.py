"""Data sets of images on disk, with torchvision's names, arguments and folders: MNIST, FashionMNIST, CIFAR10, CIFAR100, ImageFolder.

An image is a NumPy array uint8, [H, W] or [H, W, 3] (where torchvision gives a Pillow image), which `transforms.ToTensor` makes [C, H, W] in [0, 1].
Files are read in the formats in which their authors publish them, IDX and the binary version of CIFAR, and nothing is ever unpickled. What is
downloaded is checked against the published checksum.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from minidl.data.dataset import Dataset
from minidl.data.download import download, extract, gunzip, is_intact
from minidl.data.explaining import explain, explains

__all__ = ["CIFAR10", "CIFAR100", "MNIST", "FashionMNIST", "ImageFolder", "VisionDataset", "read_idx", "write_idx"]
Transform = Callable[[Any], Any] | None


class VisionDataset(Dataset):
    """Images and labels in memory: `data` uint8 [N, H, W] or [N, H, W, 3], `targets` int64 [N], `classes` their names.

    transform is applied to each image, target_transform to each label. Without them a batch is one gather.

    >>> import numpy
    >>> class Grey(md.data.datasets.VisionDataset):
    ...     data, targets, classes = numpy.zeros((3, 2, 2), "uint8"), numpy.array([0, 1, 0]), ("a", "b")
    >>> image, label = Grey(".")[1]
    >>> image.shape, label
    ((2, 2), 1)
    """

    classes: Sequence[str] = ()
    data: np.ndarray
    targets: np.ndarray

    def __init__(self, root: str | os.PathLike[str], transform: Transform = None, target_transform: Transform = None):
        self.root, self.transform, self.target_transform = Path(root).expanduser(), transform, target_transform

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        image, target = self.data[index], int(self.targets[index])
        return (
            self.transform(image) if self.transform is not None else image,
            self.target_transform(target) if self.target_transform is not None else target,
        )

    def gather(self, numbers: np.ndarray) -> Any:
        """A batch at once where nothing is done to each item."""
        if self.transform is not None or self.target_transform is not None:
            return None
        return [np.take(self.data, numbers, axis=0), np.take(self.targets, numbers)]

    def __len__(self) -> int:
        return len(self.targets)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self)} images of {' × '.join(map(str, self.data.shape[1:]))} in {self.root})"


# ---- IDX ------------------------------------------------------------------------------------------------------------------------------------
_IDX = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


@explains
def read_idx(path: str | os.PathLike[str]) -> np.ndarray:
    """The array of an IDX file (Y. LeCun's MNIST page): two zero bytes, a type, the number of axes, their sizes, the values; big end first.

    Raises ValueError for a file that is not exactly that.

    >>> import numpy, tempfile
    >>> path = tempfile.mkdtemp() + "/labels"
    >>> md.data.datasets.write_idx(path, numpy.array([1, 2], "uint8"))
    >>> md.data.datasets.read_idx(path).tolist()
    [1, 2]
    """
    content = Path(path).read_bytes()
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] not in _IDX:
        raise ValueError(f"{path} is no IDX file: it begins with {content[:4].hex(' ') or 'nothing'}")
    start = 4 + 4 * content[3]
    if len(content) < start:
        raise ValueError(f"{path} is cut off inside its header")
    shape = [int(n) for n in np.frombuffer(content, ">u4", content[3], 4)]
    dtype = np.dtype(_IDX[content[2]])
    wanted = start + dtype.itemsize * int(np.prod(shape, dtype=object))
    if len(content) != wanted:
        raise ValueError(f"{path} has {len(content)} bytes; {wanted} belong to an array of shape {tuple(shape)}")
    return np.frombuffer(content, dtype, offset=start).reshape(shape).astype(dtype.newbyteorder("="))


@explains
def write_idx(path: str | os.PathLike[str], array: Any) -> None:
    """Write an array as an IDX file. Raises TypeError for a dtype that IDX does not have.

    >>> import numpy, tempfile
    >>> path = tempfile.mkdtemp() + "/labels"
    >>> md.data.datasets.write_idx(path, numpy.zeros((2, 3), "uint8"))
    >>> md.data.datasets.read_idx(path).shape
    (2, 3)
    """
    array = np.asarray(array)
    codes = {np.dtype(name).newbyteorder("="): code for code, name in _IDX.items()}
    if array.dtype not in codes:
        raise TypeError(f"write_idx: IDX holds {', '.join(map(str, codes))}, not {array.dtype}")
    code = codes[array.dtype]
    header = bytes([0, 0, code, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    Path(path).write_bytes(header + array.astype(_IDX[code]).tobytes())


class MNIST(VisionDataset):
    """70,000 handwritten digits 28 × 28 (Y. LeCun, C. Cortes, C. Burges): the IDX files in root/MNIST/raw, 60,000 of them with train=True.

    download fetches what is missing from the mirrors (or from `mirror`, a URL that ends where the file names begin) and checks the published MD5.
    Raises RuntimeError where the files are not there, ValueError for damaged ones.

    >>> MNIST("nowhere")
    Traceback (most recent call last):
    RuntimeError: MNIST: nowhere/MNIST/raw/train-images-idx3-ubyte is not there; download=True fetches it
    """

    mirrors: ClassVar[Sequence[str]] = ("https://ossci-datasets.s3.amazonaws.com/mnist/", "https://storage.googleapis.com/cvdf-datasets/mnist/")
    resources: ClassVar[dict[str, str]] = {
        "train-images-idx3-ubyte": "md5:f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "train-labels-idx1-ubyte": "md5:d53e105ee54ea40749a09fcbcd1e9432",
        "t10k-images-idx3-ubyte": "md5:9fb629c4189551a2d022fa330f9573f3",
        "t10k-labels-idx1-ubyte": "md5:ec29112dd5afa0611ce80d1b7f02629c",
    }  # of the files with .gz, as they are published
    classes: Sequence[str] = ("0 - zero", "1 - one", "2 - two", "3 - three", "4 - four", "5 - five", "6 - six", "7 - seven", "8 - eight", "9 - nine")

    def __init__(
        self,
        root: str | os.PathLike[str],
        train: bool = True,
        transform: Transform = None,
        target_transform: Transform = None,
        download: bool = False,
        *,
        mirror: str | None = None,
    ):
        super().__init__(root, transform, target_transform)
        self.train = train
        if download:
            self._download(mirror)
        part = "train" if train else "t10k"
        self.data, targets = (read_idx(self._file(f"{part}-{what}-ubyte")) for what in ("images-idx3", "labels-idx1"))
        if self.data.ndim != 3 or targets.ndim != 1 or len(self.data) != len(targets) or self.data.dtype != np.uint8:
            raise ValueError(f"{type(self).__name__}: {self.raw_folder} holds images {self.data.shape} and labels {targets.shape}")
        if len(targets) and not 0 <= int(targets.min()) <= int(targets.max()) < len(self.classes):
            raise ValueError(f"{type(self).__name__}: a label in {self.raw_folder} is {targets.max()}; there are {len(self.classes)} classes")
        self.targets = targets.astype(np.int64)

    @property
    def raw_folder(self) -> Path:
        """Where the IDX files lie: torchvision's place."""
        return self.root / type(self).__name__ / "raw"

    def _file(self, name: str) -> Path:
        path = self.raw_folder / name
        if not path.exists():
            packed = path.with_name(name + ".gz")
            if not packed.exists():
                raise RuntimeError(f"{type(self).__name__}: {path} is not there; download=True fetches it")
            if not is_intact(packed, self.resources[name]):
                raise RuntimeError(f"{type(self).__name__}: {packed} is not the published file ({self.resources[name]}); delete it")
            gunzip(packed, path)
        return path

    def _download(self, mirror: str | None) -> None:
        for name, checksum in self.resources.items():
            path = self.raw_folder / name
            if not path.exists():
                urls = [m.rstrip("/") + f"/{name}.gz" for m in ([mirror] if mirror else self.mirrors)]
                gunzip(download(urls, path.with_name(name + ".gz"), checksum), path)


class FashionMNIST(MNIST):
    """70,000 articles of clothing in MNIST's format (H. Xiao, K. Rasul, R. Vollgraf, 2017); see MNIST.

    >>> md.data.datasets.FashionMNIST.classes[:2]
    ('T-shirt/top', 'Trouser')
    """

    mirrors = ("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",)  # the checksum protects what https would
    resources: ClassVar[dict[str, str]] = {
        "train-images-idx3-ubyte": "md5:8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "train-labels-idx1-ubyte": "md5:25c81989df183df01b3e8a0aad5dffbe",
        "t10k-images-idx3-ubyte": "md5:bef4ecab320f06d8554ea6380940ec79",
        "t10k-labels-idx1-ubyte": "md5:bb300cfdad3c16e7a12a480ee83cd310",
    }
    classes: Sequence[str] = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")


# ---- CIFAR ----------------------------------------------------------------------------------------------------------------------------------
class CIFAR10(VisionDataset):
    """60,000 colour images 32 × 32 of ten classes (A. Krizhevsky, 2009), from the binary version in root/cifar-10-batches-bin.

    A record is a label byte and 3,072 bytes: red, green and blue planes, row by row. download fetches and checks the archive (its published MD5, and
    SHA-256) from the author's page, or from `mirror`, a URL that ends where the file name begins. Raises RuntimeError where the files are not
    there, ValueError for damaged ones.

    >>> md.data.datasets.CIFAR10.classes[:2]
    ('airplane', 'automobile')
    """

    mirrors: ClassVar[Sequence[str]] = ("https://www.cs.toronto.edu/~kriz/",)
    archive = "cifar-10-binary.tar.gz"
    checksums: ClassVar[Sequence[str]] = (
        "md5:c32a1d4ab5d03f1284b67883e8d87530",
        "sha256:c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
    )
    folder = "cifar-10-batches-bin"
    files: ClassVar[dict[bool, Sequence[str]]] = {True: [f"data_batch_{i}.bin" for i in range(1, 6)], False: ["test_batch.bin"]}
    names_file = "batches.meta.txt"
    label_bytes = 1  # before each image; the last of them is the label
    classes: Sequence[str] = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

    def __init__(
        self,
        root: str | os.PathLike[str],
        train: bool = True,
        transform: Transform = None,
        target_transform: Transform = None,
        download: bool = False,
        *,
        mirror: str | None = None,
    ):
        super().__init__(root, transform, target_transform)
        self.train = train
        self._unpack(download, mirror)
        records = np.concatenate([self._records(self.root / self.folder / name) for name in self.files[train]])
        self.targets = records[:, self.label_bytes - 1].astype(np.int64)
        names = self.root / self.folder / self.names_file
        if names.exists():
            self.classes = tuple(names.read_text(encoding="utf-8").split())
        if len(self.targets) and int(self.targets.max()) >= len(self.classes):
            raise ValueError(f"{type(self).__name__}: a label is {self.targets.max()}; there are {len(self.classes)} classes")
        self.data = np.ascontiguousarray(records[:, self.label_bytes :].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))

    def _records(self, path: Path) -> np.ndarray:
        content, size = np.fromfile(path, np.uint8), self.label_bytes + 3072
        if not content.size or content.size % size:
            raise ValueError(f"{type(self).__name__}: {path} has {content.size} bytes, which are not records of {size}")
        return content.reshape(-1, size)

    def _unpack(self, fetch: bool, mirror: str | None) -> None:
        names = [*self.files[True], *self.files[False], self.names_file]
        missing = [n for n in names if not (self.root / self.folder / n).exists()]
        archive = self.root / self.archive
        if not missing or (not fetch and not archive.exists() and missing == [self.names_file]):
            return
        if fetch:
            download([m.rstrip("/") + "/" + self.archive for m in ([mirror] if mirror else self.mirrors)], archive, self.checksums[-1])
        elif not archive.exists():
            raise RuntimeError(f"{type(self).__name__}: {self.root / self.folder / missing[0]} is not there; download=True fetches it")
        if not all(is_intact(archive, c) for c in self.checksums):
            raise RuntimeError(f"{type(self).__name__}: {archive} is not the published archive ({', '.join(self.checksums)}); delete it")
        extract(archive, [f"{self.folder}/{n}" for n in names], self.root / self.folder)


class CIFAR100(CIFAR10):
    """60,000 colour images 32 × 32 of a hundred classes, from the binary version in root/cifar-100-binary: fine labels; see CIFAR10.

    >>> md.data.datasets.CIFAR100.folder
    'cifar-100-binary'
    """

    archive = "cifar-100-binary.tar.gz"
    checksums: ClassVar[Sequence[str]] = ("md5:03b5dce01913d631647c71ecec9e9cb8",)
    folder = "cifar-100-binary"
    files: ClassVar[dict[bool, Sequence[str]]] = {True: ["train.bin"], False: ["test.bin"]}
    names_file = "fine_label_names.txt"
    label_bytes = 2
    classes: Sequence[str] = tuple(f"class {i}" for i in range(100))  # until their names are read


# ---- a folder for each class ----------------------------------------------------------------------------------------------------------------
class ImageFolder(Dataset):
    """Images in a folder for each class, root/dog/1.png: (array uint8 [H, W, 3], number of the class). Read with Pillow when asked for.

    classes are the folders' names in order, samples the (path, class) pairs. loader(path) may replace Pillow. Raises RuntimeError for a root
    without images.

    >>> import numpy, pathlib, tempfile
    >>> folder = pathlib.Path(tempfile.mkdtemp(), "dog")
    >>> folder.mkdir()
    >>> (folder / "1.png").touch()
    >>> images = md.data.datasets.ImageFolder(folder.parent, loader=lambda path: numpy.zeros((2, 2, 3), "uint8"))
    >>> len(images), images.classes, images[0][0].shape
    (1, ['dog'], (2, 2, 3))
    """

    extensions = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp", ".gif")

    def __init__(
        self,
        root: str | os.PathLike[str],
        transform: Transform = None,
        target_transform: Transform = None,
        loader: Callable[[Path], Any] | None = None,
    ):
        self.root, self.transform, self.target_transform, self.loader = Path(root).expanduser(), transform, target_transform, loader or read_image
        self.classes = sorted(p.name for p in self.root.iterdir() if p.is_dir())
        self.class_to_idx = {name: i for i, name in enumerate(self.classes)}
        self.samples = [
            (path, i)
            for name, i in self.class_to_idx.items()
            for path in sorted((self.root / name).rglob("*"))
            if path.suffix.lower() in self.extensions and path.is_file()
        ]
        if not self.samples:
            raise RuntimeError(f"ImageFolder: {self.root} has no folders with images ({', '.join(self.extensions)})")
        self.targets = [i for _, i in self.samples]

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        path, target = self.samples[index]
        image = self.loader(path)
        return (
            self.transform(image) if self.transform is not None else image,
            self.target_transform(target) if self.target_transform is not None else target,
        )

    def __len__(self) -> int:
        return len(self.samples)


def read_image(path: str | os.PathLike[str]) -> np.ndarray:
    """An image file as an array uint8 [H, W, 3], by Pillow. Raises ImportError without it."""
    try:
        from PIL import Image
    except ImportError:
        raise ImportError("reading image files needs Pillow: pip install pillow") from None
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


explain(globals(), __all__)
