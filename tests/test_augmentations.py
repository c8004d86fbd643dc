"""Rotations, tones, policies and mixtures of images: bytes against Pillow, batches against what their parts say."""

from __future__ import annotations

import math

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

import minidl as md
from minidl.data import DataLoader, policies, tones
from minidl.data import transforms as T

RNG = np.random.default_rng(0)
PHOTO = (RNG.integers(0, 256, (11, 14, 3)) * np.linspace(0.2, 0.8, 14)[:, None]).astype(np.uint8)
WIDE = (RNG.integers(0, 256, (60, 64, 3)) ** 2 // 255).astype(np.uint8)  # enough pixels to be equalized


def both(transform, image):
    """The result for an array, after a look that a tensor's is the same."""
    out = transform(image)
    assert np.array_equal(transform(md.asarray(image.transpose(2, 0, 1).copy())).numpy(), out.transpose(2, 0, 1))
    return out


def test_tones_of_bytes_are_pillows():
    for image in (PHOTO, WIDE):
        pillow = Image.fromarray(image)
        assert np.array_equal(both(T.RandomInvert(1.0), image), ImageOps.invert(pillow))
        assert np.array_equal(both(T.RandomSolarize(128, 1.0), image), ImageOps.solarize(pillow, 128))
        assert np.array_equal(both(T.RandomAutocontrast(1.0), image), ImageOps.autocontrast(pillow))
        assert np.array_equal(both(T.RandomEqualize(1.0), image), ImageOps.equalize(pillow))
        assert np.array_equal(both(T.RandomGrayscale(1.0), image), np.asarray(ImageOps.grayscale(pillow))[..., None].repeat(3, -1))
        for bits in (1, 4, 8):
            assert np.array_equal(both(T.RandomPosterize(bits, 1.0), image), ImageOps.posterize(pillow, bits))
        for factor in (0.0, 0.5, 1.7):
            assert np.array_equal(both(T.RandomAdjustSharpness(factor, 1.0), image), ImageEnhance.Sharpness(pillow).enhance(factor))
    assert np.array_equal(T.RandomInvert(0.0)(PHOTO), PHOTO)


def test_tones_of_floats():
    x = np.array([[0.1, 0.3, 0.5]], np.float32)
    assert np.allclose(tones.invert(x), 1 - x) and np.allclose(tones.solarize(x, 0.3), [[0.1, 0.7, 0.5]])
    assert np.allclose(tones.posterize(x, 2), [[0, 0.25, 0.5]])
    assert np.allclose(tones.autocontrast(x, (-2, -1)), [[0, 0.5, 1]]) and np.array_equal(tones.autocontrast(x[:, :1], (-2, -1)), x[:, :1])
    assert tones.equalize(x, (-2, -1)).dtype == np.float32 and np.array_equal(tones.sharpen(x, (-2, -1), 1.0), x)


@pytest.mark.parametrize("angle", [0, 17, -30, 90, 133, 180, 270])
def test_rotations_are_pillows(angle):
    pillow = Image.fromarray(PHOTO)
    for mode, expand in (("nearest", False), ("nearest", True), ("bilinear", True)):
        want = np.asarray(pillow.rotate(angle, Image.Resampling[mode.upper()], expand))
        assert np.array_equal(both(T.RandomRotation((angle, angle), mode, expand), PHOTO), want)
    assert np.array_equal(T.RandomRotation((angle + 1, angle + 1), center=(2, 3))(PHOTO), pillow.rotate(angle + 1, center=(2, 3)))


@pytest.mark.parametrize("angle", [45, -45, 60, 135, math.degrees(math.atan(4 / 3))])
def test_pixels_that_are_as_near_are_pillows(angle):
    """Of squares turned by 45 degrees some pixels come from the middle between two."""
    for n in (4, 5, 8, 16):
        image = RNG.integers(0, 256, (n, n), np.uint8)
        for mode in ("nearest", "bilinear"):
            for expand in (False, True):
                want = Image.fromarray(image).rotate(angle, Image.Resampling[mode.upper()], expand)
                assert np.array_equal(T.RandomRotation((angle, angle), mode, expand)(image), want)


def test_images_without_pixels_are_themselves():
    for shape in ((0, 5), (4, 0), (0, 0, 3)):
        for dtype in (np.uint8, np.float32):
            for transform in (T.RandomAutocontrast(1.0), T.RandomEqualize(1.0)):
                out = transform(np.zeros(shape, dtype))
                assert out.shape == shape and out.dtype == dtype


def test_dtypes():
    modern = T.Compose([T.ToImage(), T.ToDtype(md.float32, scale=True), T.Normalize([0.5], [0.5])])
    assert np.allclose(modern(PHOTO).numpy(), T.Compose([T.ToTensor(), T.Normalize([0.5], [0.5])])(PHOTO).numpy())
    assert np.array_equal(T.ToDtype(md.uint8, scale=True)(T.ToTensor()(PHOTO)).numpy(), PHOTO.transpose(2, 0, 1))
    assert T.PILToTensor()(Image.fromarray(PHOTO)).dtype is md.uint8 and T.ToDtype(md.int32)(PHOTO).dtype == np.int32
    assert T.ToDtype(md.bfloat16, scale=True)(T.ToImage()(PHOTO)).dtype is md.bfloat16
    with pytest.raises(TypeError, match="scale is between uint8 and floats"):
        T.ConvertImageDtype(md.int16)(PHOTO)


def test_policies_change_each_in_its_way_and_by_the_sample():
    for image in (PHOTO, md.asarray(PHOTO.transpose(2, 0, 1) / np.float32(255)), PHOTO[..., 0]):
        for policy in (T.RandAugment(3, 15), T.TrivialAugmentWide()):
            outs = [policy(image, key=md.random.key(i)) for i in range(20)]
            assert all(o.shape == image.shape and o.dtype == image.dtype for o in outs) and len({np.asarray(o).tobytes() for o in outs}) > 8
            assert np.array_equal(outs[3], policy(image, key=md.random.key(3)))
    names = list(T.RandAugment().most((8, 8)))
    assert names == list(T.TrivialAugmentWide().most((8, 8))) and len(names) == 14
    for name, size in T.RandAugment().most((60, 64)).items():
        picture = policies.Picture(WIDE // 2)
        policies._change(picture, name, size, "nearest", 0)
        assert (name == "Identity") == np.array_equal(picture.array, WIDE // 2), name
    twice = T.Compose([T.CenterCrop(2), lambda a: a + 1])
    for one in (T.RandomChoice([twice]), T.RandomOrder([twice]), T.RandomApply([twice], 1.0)):
        assert one(np.zeros((4, 4), np.uint8)).tolist() == [[1, 1], [1, 1]]
    choice, order = T.RandomChoice([T.CenterCrop(2), T.CenterCrop(3)], [1, 3]), T.RandomOrder([T.RandomInvert(1.0), T.RandomSolarize(99, 1.0)])
    assert {choice(PHOTO).shape[0] for _ in range(30)} == {2, 3} and len({order(PHOTO).tobytes() for _ in range(30)}) == 2
    with pytest.raises(ValueError, match="magnitude"):
        T.RandAugment(magnitude=31)


@pytest.mark.parametrize("kind", [T.MixUp, T.CutMix])
def test_mixtures_have_the_labels_of_their_pixels(kind):
    images = md.arange(4, dtype=md.float32).reshape(4, 1, 1, 1) * md.ones(4, 1, 8, 6)
    for i in range(8):
        mixed, labels = kind(num_classes=4)(images, md.arange(4), key=md.random.key(i))
        assert np.allclose(mixed.numpy().mean((1, 2, 3)), labels.numpy() @ np.arange(4), atol=1e-5) and np.allclose(labels.numpy().sum(1), 1)
    with pytest.raises(ValueError, match="num_classes"):
        kind()(images, md.arange(4))
    rows = [(T.ToTensor()(PHOTO), 1), (T.ToTensor()(PHOTO), 0)]
    x, y = next(iter(DataLoader(rows, 2, collate_fn=lambda rows: kind(num_classes=2)(*md.data.default_collate(rows)))))
    assert x.shape == (2, 3, 11, 14) and md.nn.functional.cross_entropy(md.zeros(2, 2), y).item() > 0
