from __future__ import annotations

import torch
from torch import Generator

from espalier.nas.data import BatchFactory, Images, Normalisation

FACTORY = BatchFactory(Normalisation((0.25,), (0.5,)))


def images(count: int) -> Images:
    """The i-th image is of the one value i."""
    pixels = torch.arange(count, dtype=torch.uint8)[:, None, None, None].expand(-1, 1, 2, 2)
    return Images(pixels, torch.arange(count) % 2, ("even", "odd"), "some")


def shown(batch: torch.Tensor) -> list[int]:
    """Which images, by undoing (i / 255 - 0.25) / 0.5."""
    return ((batch[:, 0, 0, 0] * 0.5 + 0.25) * 255).round().int().tolist()


def test_training_shows_full_batches_in_a_new_order_each_epoch() -> None:
    batches = FACTORY.training(images(10), 4, Generator().manual_seed(0))
    first, second = ([shown(x) for x, _ in batches] for _ in range(2))
    assert [len(batch) for batch in first] == [4, 4]
    assert first != second
    assert len({image for batch in first for image in batch}) == 8


def test_few_images_are_one_training_batch() -> None:
    assert [len(x) for x, _ in FACTORY.training(images(3), 4, Generator().manual_seed(0))] == [3]


def test_evaluation_shows_every_image_once_in_order() -> None:
    batches = [shown(x) for x, _ in FACTORY.evaluation(images(251))]
    assert [len(batch) for batch in batches] == [126, 125]
    assert [image for batch in batches for image in batch] == list(range(251))


def test_batches_in_order_keep_the_last_one_unless_told_otherwise() -> None:
    assert [len(x) for x, _ in FACTORY.in_order(images(5), 2)] == [2, 2, 1]
    assert [len(x) for x, _ in FACTORY.in_order(images(5), 2, drop_last=True)] == [2, 2]


def test_a_single_batch_holds_a_sample() -> None:
    x, y = FACTORY.single(images(9).sample(6, Generator().manual_seed(0)))
    assert sorted(set(shown(x))) == sorted(shown(x))
    assert len(x) == 6
    assert y.tolist() == [image % 2 for image in shown(x)]
    assert len(images(9).sample(20, Generator().manual_seed(0))) == 9
