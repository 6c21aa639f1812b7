from __future__ import annotations

import math
import zipfile
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from espalier.nas.super_resolution import Pair, Pairs, SuperResolution, WholeImages, load_pairs
from espalier.nas.super_resolution.pairs import bicubic
from espalier.nas.super_resolution.quality import crop_border, evaluated_luma, luma, psnr, ssim
from espalier.nas.task import Classification, Task


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randint(256, shape, generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


class Bicubic(nn.Module):
    """Enlarges by PIL, as a network would: values from 0 to 1 in and out."""

    def __init__(self, scale: int) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        bytes_ = (255 * x[0]).round().to(torch.uint8)
        height, width = bytes_.shape[1:]
        return bicubic(bytes_, self.scale * height, self.scale * width)[None].float() / 255


@pytest.mark.parametrize(
    ("rgb", "y"),
    # MATLAB's rgb2ycbcr: 16 + (65.481 R + 128.553 G + 24.966 B) / 255; the extremes are 16 and 235
    [((0, 0, 0), 16), ((255, 255, 255), 235), ((255, 0, 0), 81.481), ((0, 255, 0), 144.553), ((0, 0, 255), 40.966)],
)
def test_luma(rgb: tuple[int, int, int], y: float) -> None:
    pixels = torch.tensor(rgb, dtype=torch.uint8).view(3, 1, 1).expand(3, 2, 2)
    assert luma(pixels).dtype == torch.float64
    assert luma(pixels).tolist() == [[[pytest.approx(y)] * 2] * 2]
    assert luma(pixels.float()).dtype == torch.float32


@pytest.mark.parametrize("offset", [1, 2, 16, 255])
def test_psnr_of_a_constant_offset(offset: int) -> None:
    true = torch.zeros(5, 7)
    assert psnr(true + offset, true) == pytest.approx(20 * math.log10(255 / offset))  # 48.13 dB for one level


def test_equal_images() -> None:
    image = noise(20, 20).double()
    assert psnr(image, image) == math.inf
    assert ssim(image, image) == 1


def test_ssim_of_constant_images() -> None:
    # Without any spread only the term of the means is left: (2 a b + C1) / (a^2 + b^2 + C1), C1 = 2.55^2
    a, b = torch.full((12, 13), 100.0), torch.full((12, 13), 120.0)
    assert ssim(a, b) == pytest.approx((2 * 100 * 120 + 6.5025) / (100**2 + 120**2 + 6.5025), abs=1e-12)


def test_ssim_of_an_inverted_image() -> None:
    # y = 2 m - x about the mean m of a window: the means agree and the covariance is -variance. On one window,
    # (C2 - 2 v) / (C2 + 2 v) with C2 = 7.65^2.
    image = noise(11, 11, seed=3).double()
    offsets = torch.arange(-5, 6, dtype=torch.float64)
    gauss = torch.exp(-(offsets**2) / 4.5)
    weights = torch.outer(gauss, gauss) / gauss.sum() ** 2
    mean = (weights * image).sum()
    variance = (weights * (image - mean) ** 2).sum()
    expected = (58.5225 - 2 * variance) / (58.5225 + 2 * variance)
    assert ssim(2 * mean - image, image) == pytest.approx(float(expected), abs=1e-12)


def test_ssim_needs_a_window() -> None:
    with pytest.raises(ValueError, match="11x11 pixels, not 20x10"):
        ssim(torch.zeros(10, 20), torch.zeros(10, 20))


def test_rgb_is_judged_as_the_bytes_of_a_file_and_y_as_it_is() -> None:
    image = torch.tensor([0.501, 1.7, -0.3]).view(3, 1, 1)
    assert evaluated_luma(image).item() == pytest.approx(16 + (65.481 * 128 + 128.553 * 255) / 255)
    assert evaluated_luma(torch.tensor([[[0.501]]])).item() == pytest.approx(127.755, abs=1e-5)
    assert evaluated_luma(torch.tensor([[[1.7]]])).item() == 255
    assert math.isnan(evaluated_luma(torch.full((3, 1, 1), math.nan)).item())


def test_border() -> None:
    image = torch.arange(30).view(5, 6)
    assert crop_border(image, 2).tolist() == [[14, 15]]
    with pytest.raises(ValueError, match="6x4"):
        crop_border(torch.zeros(4, 6), 2)


def test_the_task_judges_without_the_border() -> None:
    pairs = Pairs((Pair.degraded("a", noise(3, 12, 16), 2),), "one")
    true = pairs[0].high.float()[None] / 255

    class Wrong(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            y = true.clone()
            y[:, :, :2] = 0  # in the border
            y[:, :, 6, 6] = 1 - y[:, :, 6, 6]
            return y

    task = SuperResolution(2)
    x, t = luma(pairs[0].high)[0, 6, 6], luma(255 - pairs[0].high)[0, 6, 6]
    expected = 10 * math.log10(255**2 / (float(x - t) ** 2 / (8 * 12)))
    assert task.evaluate(Wrong(), WholeImages(pairs)) == pytest.approx(expected)


def test_an_exact_network_is_worth_infinity() -> None:
    pairs = Pairs(tuple(Pair.degraded(str(i), noise(3, 32, 32, seed=i), 2) for i in range(2)), "two")
    highs = iter([pair.high.float()[None] / 255 for pair in pairs])

    class Oracle(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return next(highs)

    [one, two] = SuperResolution(2).measure(Oracle().train(), WholeImages(pairs))
    assert (one.psnr_db, one.ssim, two.psnr_db) == (math.inf, 1, math.inf)


def test_evaluation_leaves_the_mode_and_asks_for_images_of_the_right_size() -> None:
    pairs = Pairs((Pair.degraded("a", noise(3, 32, 32), 2),), "one")
    task, model = SuperResolution(2), nn.Upsample(scale_factor=2, mode="nearest").train()
    assert math.isfinite(task.evaluate(model, WholeImages(pairs)))
    assert model.training
    with pytest.raises(ValueError, match=r"\(1, 3, 16, 16\) instead of \(1, 3, 32, 32\)"):
        task.evaluate(nn.Identity(), WholeImages(pairs))
    with pytest.raises(ValueError, match="no images"):
        task.evaluate(model, [])


def test_what_is_not_a_number_is_not_made_one() -> None:
    pairs = Pairs((Pair.degraded("a", noise(3, 32, 32), 2),), "one")

    class Broken(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.full((1, 3, 32, 32), math.nan)

    assert math.isnan(SuperResolution(2).evaluate(Broken(), WholeImages(pairs)))


def test_loss_is_the_mean_absolute_difference() -> None:
    assert SuperResolution(2).loss(torch.tensor([1.0, 3.0]), torch.tensor([0.0, 1.0])) == 1.5


def test_both_tasks_are_tasks() -> None:
    tasks: list[Task] = [Classification(3), SuperResolution(2)]
    x = torch.eye(3)
    assert tasks[0].evaluate(nn.Identity(), [(x, torch.tensor([0, 1, 0]))]) == pytest.approx(2 / 3)


@pytest.mark.parametrize(("scale", "db"), [(2, 33.67), (3, 30.40), (4, 28.43)])
def test_bicubic_on_set5(shared_data: Path, scale: int, db: float) -> None:
    # The figures that the set is known by, PIL's bicubic: Y, border as wide as the scale
    pairs = load_pairs(shared_data / "super_resolution" / "sr_set5.zip", scale)
    assert len(pairs) == 5
    task = SuperResolution(scale)
    quality = task.measure(Bicubic(scale), WholeImages(pairs))
    mean = sum(one.psnr_db for one in quality) / 5
    assert mean == pytest.approx(db, abs=0.006)
    assert task.evaluate(Bicubic(scale), WholeImages(pairs)) == pytest.approx(mean)
    # Published for MATLAB's bicubic: .9299, .8682, .8104
    ssim_known = {2: 0.9299, 3: 0.8682, 4: 0.8104}[scale]
    assert sum(one.ssim for one in quality) / 5 == pytest.approx(ssim_known, abs=0.001)


def test_set5_is_the_same_from_a_folder(shared_data: Path, tmp_path: Path) -> None:
    archive = shared_data / "super_resolution" / "sr_set5.zip"
    with zipfile.ZipFile(archive) as file:
        file.extractall(tmp_path)
    assert load_pairs(tmp_path, 4).fingerprint == load_pairs(archive, 4).fingerprint
