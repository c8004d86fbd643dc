"""Colours, blur and distortions of images: bytes against Pillow, floats against torch and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance

import minidl as md
from minidl.data import distortions as D
from minidl.data import transforms as T

RNG = np.random.default_rng(5)
PHOTO = (RNG.integers(0, 256, (9, 12, 3)) * np.linspace(0.2, 1, 12)[:, None]).astype(np.uint8)
PHOTO[0, :4] = [[0, 0, 0], [255, 255, 255], [7, 7, 7], [255, 0, 0]]
FLOATS = RNG.random((3, 9, 12)).astype(np.float32)


@pytest.mark.parametrize("factor", [0.0, 0.3, 1.0, 1.7])
def test_colours_of_bytes_are_pillows(factor):
    picture = Image.fromarray(PHOTO)
    for name, enhance in (("brightness", ImageEnhance.Brightness), ("contrast", ImageEnhance.Contrast), ("saturation", ImageEnhance.Color)):
        got = T.ColorJitter(**{name: (factor, factor)})(PHOTO)
        assert np.array_equal(got, np.asarray(enhance(picture).enhance(factor))), name
        turned = T.ColorJitter(**{name: (factor, factor)})(md.asarray(PHOTO.transpose(2, 0, 1).copy())).numpy()
        assert np.array_equal(turned.transpose(1, 2, 0), got)


@pytest.mark.parametrize("hue", [-0.5, -0.1, 0.2, 0.5])
def test_hues_of_bytes_are_pillows(hue):
    h, s, v = Image.fromarray(PHOTO).convert("HSV").split()
    moved = Image.fromarray(((np.asarray(h).astype(int) + int(hue * 255)) & 255).astype(np.uint8))
    want = np.asarray(Image.merge("HSV", (moved, s, v)).convert("RGB"))
    assert np.abs(D._turned(PHOTO, -1, hue).astype(int) - want).max() <= 1


def test_colours_of_floats():
    same = T.ColorJitter(hue=(1e-9, 1e-9))(md.asarray(FLOATS)).numpy()
    assert np.allclose(same, FLOATS, atol=1e-6)
    red = np.array([1.0, 0.0, 0.0], np.float32).reshape(3, 1, 1)
    assert np.allclose(D._turned(red, -3, 1 / 3).ravel(), [0, 1, 0], atol=1e-6)
    gray = T.ColorJitter(saturation=(0.0, 0.0))(md.asarray(FLOATS))
    assert np.allclose(gray.numpy(), np.repeat(T.Grayscale()(md.asarray(FLOATS)).numpy(), 3, 0), atol=1e-6)
    flat = T.ColorJitter(contrast=(0.0, 0.0))(md.asarray(np.stack([FLOATS, FLOATS * 0.5]))).numpy()
    assert np.allclose(flat[0], flat[1] * 2, atol=1e-6)
    assert np.ptp(flat[0]) < 1e-6
    key = md.random.key(3)
    jitter = T.ColorJitter(0.4, 0.4, 0.4, 0.1)
    assert np.array_equal(jitter(PHOTO, key=key), jitter(PHOTO, key=key))
    assert not np.array_equal(jitter(PHOTO, key=key), jitter(PHOTO, key=md.random.key(4)))
    assert np.array_equal(T.ColorJitter(saturation=0.5, hue=0.2)(PHOTO[..., 0]), PHOTO[..., 0])
    for bad in ({"hue": 0.6}, {"brightness": -1}, {"contrast": (2, 1)}, {"saturation": (1, 2, 3)}):
        with pytest.raises(ValueError, match="ColorJitter"):
            T.ColorJitter(**bad)


def test_blur_is_a_convolution_with_mirrored_edges():
    x = torch.from_numpy(FLOATS)
    pdf = [torch.exp(-0.5 * ((torch.arange(k) - k // 2) / 1.3) ** 2) for k in (5, 3)]
    kernel = torch.outer(pdf[1] / pdf[1].sum(), pdf[0] / pdf[0].sum())
    padded = torch.nn.functional.pad(x[None], (2, 2, 1, 1), mode="reflect")
    want = torch.nn.functional.conv2d(padded, kernel.expand(3, 1, 3, 5), groups=3)[0].numpy()
    blur = T.GaussianBlur((5, 3), 1.3)
    assert np.allclose(blur(md.asarray(FLOATS)).numpy(), want, atol=1e-6)
    assert np.abs(blur(PHOTO).astype(float) - blur(PHOTO.astype(np.float64))).max() <= 0.5 + 1e-4
    for bad in (((4,), {}), ((3, 0.0), {}), ((-1,), {})):
        with pytest.raises(ValueError, match="GaussianBlur"):
            T.GaussianBlur(*bad[0])
    with pytest.raises(ValueError, match="mirrors"):
        T.GaussianBlur(25)(PHOTO)


@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
def test_distortions_of_bytes_are_pillows_and_those_of_floats_torchs(mode):
    h, w = PHOTO.shape[:2]
    filter_ = {"nearest": Image.Resampling.NEAREST, "bilinear": Image.Resampling.BILINEAR}[mode]
    for angle, scale, sx, sy in ((33.0, 0.8, 10.0, -5.0), (90.0, 1.0, 0.0, 0.0), (-170.0, 1.3, 0.0, 20.0)):
        t = T.RandomAffine((angle, angle), None, (scale, scale), (sx, sx, sy, sy), mode, fill=(1, 2, 3))
        a, b, c, d = D._inverse(angle, scale, sx, sy)
        matrix = (a, b, w / 2 - a * w / 2 - b * h / 2, c, d, h / 2 - c * w / 2 - d * h / 2)
        want = np.asarray(Image.fromarray(PHOTO).transform((w, h), Image.Transform.AFFINE, matrix, filter_, fillcolor=(1, 2, 3)))
        assert np.array_equal(t(PHOTO), want)
        if angle == 90 and mode == "nearest":  # between two pixels of this size, where rounding decides in torch
            continue
        x, y = np.meshgrid(np.arange(w) + 0.5, np.arange(h) + 0.5)
        places = np.stack([(matrix[0] * x + matrix[1] * y + matrix[2]) / w, (matrix[3] * x + matrix[4] * y + matrix[5]) / h], -1) * 2 - 1
        grid = torch.from_numpy(places.astype(np.float32))[None]
        want = torch.nn.functional.grid_sample(torch.from_numpy(FLOATS)[None], grid, mode, align_corners=False)[0].numpy()
        got = T.RandomAffine((angle, angle), None, (scale, scale), (sx, sx, sy, sy), mode)(md.asarray(FLOATS)).numpy()
        assert (np.abs(got - want).max(0) > 1e-4).sum() <= 2
    corners, ends = [(0, 0), (w - 1, 0), (w - 1, h - 1), (0, h - 1)], [(1, 2), (w - 3, 0), (w - 2, h - 2), (2, h - 1)]
    xin, yin = D._seen(h, w, corners, ends)
    rows = [r for (x, y), (u, v) in zip(ends, corners) for r in ((x, y, 1, 0, 0, 0, -u * x, -u * y), (0, 0, 0, x, y, 1, -v * x, -v * y))]  # noqa: B905
    a = np.linalg.solve(np.array(rows, float), np.array(corners, float).ravel())
    want = np.asarray(Image.fromarray(PHOTO).transform((w, h), Image.Transform.PERSPECTIVE, a, filter_))
    got = D._sampled(D.Picture(PHOTO), xin, yin, mode, 0)
    assert (np.abs(got.astype(int) - want).max(-1) > (0 if mode == "nearest" else 1)).sum() <= 2


def test_random_distortions_draw_what_they_say():
    key = md.random.key(1)
    moved = T.RandomAffine(0, translate=(0.5, 0.0))
    one = np.zeros((8, 8), np.uint8)
    one[3, 4] = 9
    seen = {tuple(np.argwhere(moved(one, key=md.random.key(k)))[0]) for k in range(12) if moved(one, key=md.random.key(k)).any()}
    assert {row for row, _ in seen} == {3}
    assert len(seen) > 2
    both = T.RandomAffine(0, translate=(0.25, 0.4))
    steps = np.array([np.argwhere(both(np.pad(one, 8), key=md.random.key(k)))[0] - (11, 12) for k in range(40)])
    for step, most in zip(steps.T, (10, 6), strict=True):
        assert -most <= step.min() < -most / 2 and most / 2 < step.max() <= most
    assert np.argwhere(T.RandomAffine((180, 180), center=(3, 5))(one)).tolist() == [[6, 1]]
    assert np.argwhere(T.RandomAffine((90, 90), center=(3, 5))(one)).tolist() == [[6, 4]]
    t = T.RandomPerspective(0.6, p=1.0)
    assert np.array_equal(t(PHOTO, key=key), t(PHOTO, key=key))
    assert t(PHOTO, key=key).shape == PHOTO.shape
    assert T.RandomPerspective(p=0.0)(PHOTO) is not None
    assert np.array_equal(T.RandomPerspective(p=0.0)(PHOTO), PHOTO)
    pipeline = T.Compose([T.ColorJitter(0.2), T.RandomAffine(10), T.GaussianBlur(3), T.ToTensor(), T.RandomPerspective(0.1, 1.0)])
    assert pipeline(Image.fromarray(PHOTO)).shape == (3, 9, 12)
    for make in (
        lambda: T.RandomAffine(-1), lambda: T.RandomAffine(1, translate=(2, 0)), lambda: T.RandomAffine(1, scale=(0, 1)),
        lambda: T.RandomAffine(1, interpolation="bicubic"), lambda: T.RandomPerspective(2.0), lambda: T.RandomAffine(1, shear=(1, 2, 3)),
    ):  # fmt: skip
        with pytest.raises(ValueError, match="Random"):
            make()
