"""Batches: exact normalisation, one visit per image and epoch, and augmentation against a plain loop."""

from __future__ import annotations

import math

import pytest
import torch
from pydantic import ValidationError
from torch import Generator, Tensor
from torch.nn.functional import pad

from espalier.nas.data import Augment, Batches, Images
from espalier.nas.data.augment import erase, erasing_boxes, flip, mix
from espalier.nas.data.pool import Pool
from user_errors import user_error

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


def images(count: int = 37, size: int = 8) -> Images:
    """Random images, of which the first pixel is the image's own number."""
    pixels = torch.randint(0, 256, (count, 3, size, size + 1), generator=seeded(5)).to(torch.uint8)
    pixels[:, 0, 0, 0] = torch.arange(count)
    return Images(pixels, torch.arange(count) % 4, ("a", "b", "c", "d"), "noise")


def seeded(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def epoch(batches: Batches) -> tuple[Tensor, Tensor]:
    xs, ys = zip(*batches, strict=True)
    return torch.cat(xs), torch.cat(ys)


def test_in_order_and_normalised_exactly() -> None:
    x, y = epoch(Batches(images(), 10, mean=MEAN, std=STD))
    mean, std = (torch.tensor(value, dtype=torch.float64).view(3, 1, 1) for value in (MEAN, STD))
    torch.testing.assert_close(x.double(), (images().pixels.double() / 255 - mean) / std, rtol=0, atol=1e-6)
    assert x.dtype == torch.float32
    assert torch.equal(y, images().labels)


@pytest.mark.parametrize(("drop_last", "sizes"), [(False, [10, 10, 10, 7]), (True, [10, 10, 10])])
def test_length_and_sizes(drop_last: bool, sizes: list[int]) -> None:
    batches = Batches(images(), 10, mean=MEAN, std=STD, drop_last=drop_last)
    assert [len(y) for _, y in batches] == sizes
    assert len(batches) == len(sizes)


def test_every_image_once_per_epoch_in_a_new_order() -> None:
    batches = Batches(images(), 10, mean=(0, 0, 0), std=(1, 1, 1), shuffle=True, generator=seeded())
    orders = []
    for _ in range(2):
        x, y = epoch(batches)
        orders.append((x[:, 0, 0, 0] * 255).round().long())
        assert sorted(orders[-1].tolist()) == list(range(37))
        assert torch.equal(y, images().labels[orders[-1]])
    assert not torch.equal(*orders)


@pytest.mark.parametrize(
    "augment",
    [None, Augment(crop_padding=2, flip=True, erase=0.5), Augment(mixup=0.2), Augment(flip=True, mixup=1, cutmix=1)],
)
def test_a_saved_generator_state_resumes_exactly(augment: Augment | None) -> None:
    def made(generator: Generator) -> Batches:
        return Batches(images(), 9, mean=MEAN, std=STD, shuffle=True, augment=augment, generator=generator)

    generator = seeded()
    batches = made(generator)
    first = epoch(batches)
    state = generator.get_state()
    second = epoch(batches)
    resumed = Generator()
    resumed.set_state(state)
    torch.rand(3)  # the global generator is somewhere else on resuming
    for got, expected in zip(epoch(made(resumed)), second, strict=True):
        assert torch.equal(got, expected)
    assert not torch.equal(first[0], second[0])


def test_a_half_read_epoch_counts_as_a_whole_one_and_the_global_generator_is_left_alone() -> None:
    before = torch.get_rng_state()
    states = []
    for stop in (1, 99):
        generator = seeded()
        options = Augment(crop_padding=1, flip=True, erase=0.5, mixup=0.3, cutmix=1.0)
        batches = Batches(images(), 9, mean=MEAN, std=STD, shuffle=True, augment=options, generator=generator)
        for _, _ in zip(batches, range(stop), strict=False):
            pass
        states.append(generator.get_state())
    assert torch.equal(*states)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("padding", [0, 1, 3])
def test_crops_are_those_of_a_plain_loop(padding: int) -> None:
    pixels = images().pixels
    indices = torch.tensor([36, 0, 5, 5, 36, 17, 35])
    top = torch.randint(2 * padding + 1, (7,), generator=seeded(1))
    left = torch.randint(2 * padding + 1, (7,), generator=seeded(2))
    top[0] = left[0] = 2 * padding  # the last image's furthest window
    top[1] = left[1] = 0
    for i, t, at, got in zip(indices, top, left, Pool(pixels, padding).crops(indices, top, left), strict=True):
        assert torch.equal(got, pad(pixels[i], (padding,) * 4)[:, t : t + 8, at : at + 9])


def test_flip_is_that_of_a_plain_loop() -> None:
    pixels, flipped = images().pixels, torch.rand(37, generator=seeded(1)) < 0.5
    expected = [image.flip(2) if mirror else image for image, mirror in zip(pixels, flipped, strict=True)]
    assert torch.equal(flip(pixels, flipped), torch.stack(expected))
    assert 0 < int(flipped.sum()) < 37


def test_erase_is_that_of_a_plain_loop() -> None:
    x = torch.randn(20, 3, 8, 9, generator=seeded())
    boxes = erasing_boxes(20, 8, 9, 0.7, seeded(3))
    expected = x.clone()
    for image, (top, left, height, width) in zip(expected, boxes.T.tolist(), strict=True):
        image[:, top : top + height, left : left + width] = 0
    assert torch.equal(erase(x.clone(), boxes), expected)
    assert not torch.equal(expected, x)


def test_erasing_boxes_follow_the_paper() -> None:
    count, height, width = 20_000, 64, 48
    top, left, box_height, box_width = erasing_boxes(count, height, width, 0.25, seeded()).double()
    erased = box_height > 0
    assert erased.double().mean().item() == pytest.approx(0.25, abs=4 * math.sqrt(0.25 * 0.75 / count))
    assert bool((top >= 0).all() and (left >= 0).all())
    assert bool((top + box_height <= height).all() and (left + box_width <= width).all())
    area = (box_height * box_width)[erased] / (height * width)
    assert 0.01 < area.min() < 0.03 and 0.3 < area.max() < 0.36
    # Few of these boxes have to be drawn again, so the mean area is nearly that of the uniform distribution.
    assert area.mean().item() == pytest.approx((0.02 + 1 / 3) / 2, abs=0.01)
    # Free positions are uniform from first to last: top / (height - box_height) averages one half.
    assert (top / (height - box_height))[erased].mean().item() == pytest.approx(0.5, abs=0.02)


def test_erasing_never_and_always() -> None:
    assert not erasing_boxes(100, 8, 8, 0.0, seeded())[2:].any()
    assert bool((erasing_boxes(100, 8, 8, 1.0, seeded())[2:] > 0).all())


@pytest.mark.parametrize("augment", [Augment(mixup=0.4), Augment(cutmix=1.0), Augment(mixup=0.4, cutmix=1.0)])
@pytest.mark.parametrize("count", [1, 7, 8])
def test_mixed_targets_are_distributions_that_match_the_images(augment: Augment, count: int) -> None:
    y = torch.arange(count) % 4
    x = torch.nn.functional.one_hot(y, 4).float()[:, :, None, None].expand(-1, -1, 6, 6).contiguous()
    for seed in range(5):
        mixed, targets = mix(x, y, 4, augment, seeded(seed))
        assert targets.dtype == torch.float32 and targets.shape == (count, 4)
        torch.testing.assert_close(targets.sum(1), torch.ones(count))
        # An image of class k is 1 in channel k, so each channel's mean is the share of its class.
        torch.testing.assert_close(mixed.mean((2, 3)), targets)


def test_both_mixing_methods_are_used() -> None:
    x, y = torch.randn(4, 3, 6, 6, generator=seeded()), torch.arange(4)
    kept = []
    for seed in range(20):
        mixed, _ = mix(x, y, 4, Augment(mixup=1.0, cutmix=1.0), seeded(seed))
        kept.append(bool(((mixed == x) | (mixed == x.roll(1, 0))).all()))  # CutMix leaves pixels whole
    assert 0 < sum(kept) < 20


def test_augmented_batches_are_crops_and_flips_of_their_own_images() -> None:
    data = images(count=30)
    augment = Augment(crop_padding=1, flip=True)
    batches = Batches(data, 30, mean=(0, 0, 0), std=(1, 1, 1), augment=augment, generator=seeded())
    x, y = epoch(batches)
    assert torch.equal(y, data.labels)
    padded = pad(data.pixels, (1,) * 4)
    found = set()
    for got, image in zip((x * 255).round().to(torch.uint8), padded, strict=True):
        crops = {(t, at, f) for t in range(3) for at in range(3) for f in (False, True)}
        fits = [
            (t, at, f)
            for t, at, f in crops
            if torch.equal(got, image[:, t : t + 8, at : at + 9].flip(2) if f else image[:, t : t + 8, at : at + 9])
        ]
        assert len(fits) == 1
        found.update(fits)
    assert len(found) > 8


@pytest.mark.parametrize(
    ("options", "where"),
    [
        ({"crop_padding": -1}, "crop_padding"),
        ({"erase": 1.5}, "erase"),
        ({"erase": math.nan}, "erase"),
        ({"mixup": -0.1}, "mixup"),
        ({"cutmix": math.inf}, "cutmix"),
    ],
)
def test_wrong_augmentation(options: dict[str, float], where: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Augment(**options)  # type: ignore[arg-type]
    assert [error["loc"] for error in caught.value.errors()] == [(where,)]


def test_wrong_batches() -> None:
    with user_error("batch_size", "too_few", says="37"):
        Batches(images(), 38, mean=MEAN, std=STD, drop_last=True)
    with pytest.raises(ValueError, match="need a generator"):
        Batches(images(), 5, mean=MEAN, std=STD, shuffle=True)
    with pytest.raises(ValueError, match="need a generator"):
        Batches(images(), 5, mean=MEAN, std=STD, augment=Augment(flip=True))
    with pytest.raises(ValueError, match="not 0 images in batches of 5"):
        Batches(images().subset(torch.empty(0, dtype=torch.int64)), 5, mean=MEAN, std=STD)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_batches_are_those_of_the_cpu_in_channels_last() -> None:
    augment = Augment(crop_padding=2, flip=True, erase=0.5, mixup=0.3, cutmix=1.0)
    here, there = (
        Batches(images(), 9, mean=MEAN, std=STD, device=device, shuffle=True, augment=augment, generator=seeded())
        for device in ("cpu", "cuda")
    )
    for (x, y), (x_cuda, y_cuda) in zip(here, there, strict=True):
        assert x_cuda.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(x_cuda.cpu(), x, rtol=0, atol=1e-5)
        torch.testing.assert_close(y_cuda.cpu(), y)
