from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from torch import Tensor, nn

from espalier.nas.super_resolution import (
    Pair,
    Pairs,
    Patches,
    Quality,
    SuperResolution,
    Validation,
    WholeImages,
    gain,
    mean_of_images,
    super_resolution_factory,
    validate,
)
from espalier.nas.super_resolution.pairs import bicubic
from espalier.nas.super_resolution.validation import SelfEnsemble
from espalier.nas.training import Training, TrainSettings, train

TASK = SuperResolution(2)


def polygons(count: int, side: int = 64) -> Pairs:
    """Triangles of one colour each, without jagged edges."""
    rng, pairs = np.random.default_rng(0), []
    for index in range(count):
        colours = iter(rng.integers(256, size=(13, 3)).tolist())
        image = Image.new("RGB", (4 * side, 4 * side), tuple(next(colours)))
        for colour in colours:
            corners = [tuple(corner) for corner in rng.uniform(0, 4 * side, size=(3, 2)).tolist()]
            ImageDraw.Draw(image).polygon(corners, fill=tuple(colour))
        pixels = np.array(image.resize((side, side), Image.Resampling.BOX))
        pairs.append(Pair.degraded(str(index), torch.from_numpy(pixels).permute(2, 0, 1).contiguous(), 2))
    return Pairs(tuple(pairs), "polygons")


class Bicubic(nn.Module):
    """Twice as large by PIL."""

    def forward(self, x: Tensor) -> Tensor:
        small = (255 * x[0]).round().to(torch.uint8)
        return bicubic(small, 2 * small.shape[1], 2 * small.shape[2])[None].float() / 255


def make(pairs: Pairs, network: str = "edsr:blocks=1,channels=8", patch: int = 8, **settings: Any) -> Training:
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(1)
    batches = Patches(pairs, patch, settings.get("batch_size", 4), generator=generator, per_image=4)
    options = {"optimizer": "adam", "lr": 2e-4, "weight_decay": 0, "clip_grad_norm": None, **settings}
    return Training(
        super_resolution_factory(network, 2)(), TrainSettings(**options), batches, task=TASK, generator=generator
    )


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
@pytest.mark.parametrize("network", ["edsr:blocks=1,channels=8", "vdsr:layers=3,channels=8"])
def test_resumed_it_gives_the_same_weights_to_the_bit(tmp_path: Path, network: str, schedule: str) -> None:
    pairs = polygons(4, side=24)
    if network.startswith("vdsr"):
        pairs = pairs.upscaled_luma()
    whole = make(pairs, network, epochs=3, schedule=schedule)
    train(whole)
    checkpoint = tmp_path / "checkpoint.pt"
    first = make(pairs, network, epochs=3, schedule=schedule)
    train(first, checkpoint=checkpoint, stop=lambda rows: "killed" if len(rows) == 2 else None)
    assert first.epoch == 2
    torch.manual_seed(123)
    second = make(pairs, network, epochs=3, schedule=schedule)
    train(second, checkpoint=checkpoint)
    assert second.epoch == 3
    for name, tensor in whole.result.state_dict().items():
        assert torch.equal(tensor, second.result.state_dict()[name]), name


def test_stochastic_depth_is_resumed_too(tmp_path: Path) -> None:
    pairs = polygons(2, side=16)
    network = "swinir:groups=1,depth=2,channels=4,heads=1,window=4,drop_path=0.5"
    whole = make(pairs, network, epochs=2)
    train(whole)
    train(make(pairs, network, epochs=2), checkpoint=tmp_path / "c.pt", stop=lambda rows: "killed" if rows else None)
    second = make(pairs, network, epochs=2)
    train(second, checkpoint=tmp_path / "c.pt")
    for name, tensor in whole.result.state_dict().items():
        assert torch.equal(tensor, second.result.state_dict()[name]), name


@pytest.mark.slow
def test_a_tiny_network_soon_beats_bicubic() -> None:
    training_images, validation = polygons(40).split(8, seed=0)
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(1)
    settings = TrainSettings(
        epochs=8, batch_size=16, optimizer="adam", lr=5e-3, weight_decay=0, schedule="cosine", clip_grad_norm=None
    )
    network = super_resolution_factory("edsr:blocks=2,channels=16", 2)()
    batches = Patches(training_images, 16, 16, generator=generator, per_image=16)
    train(Training(network, settings, batches, task=TASK, generator=generator))
    ours, theirs = (validate(TASK, model, validation) for model in (network, Bicubic()))
    assert gain(ours, theirs).value > 0.3
    ensemble = validate(TASK, network, validation, self_ensemble=True)
    assert gain(ensemble, ours).value > 0


def test_validation_is_evaluation_image_by_image() -> None:
    pairs = polygons(3, side=32)
    found = validate(TASK, Bicubic(), pairs)
    assert (found.name, found.scale, [name for name, _ in found.images]) == ("polygons", 2, ["0", "1", "2"])
    assert found.psnr_db.value == pytest.approx(TASK.evaluate(Bicubic(), WholeImages(pairs)))
    assert found.psnr_db.n == 3
    assert found.psnr_db.interval is not None
    low, high = found.psnr_db.interval
    values = [quality.psnr_db for _, quality in found.images]
    # The 27 resamples of three images: all three are the smallest with 1/27 > 2.5 %, so the ends are the extremes
    assert (low, high) == (pytest.approx(min(values)), pytest.approx(max(values)))


def test_interval_of_many_images_is_that_of_the_normal_distribution() -> None:
    values = np.random.default_rng(1).normal(30, 2, size=2000)
    found = mean_of_images(values.tolist())
    half = 1.96 * values.std() / math.sqrt(2000)
    assert found.interval is not None
    assert found.interval == pytest.approx((values.mean() - half, values.mean() + half), abs=0.01)
    assert mean_of_images(values.tolist()) == found  # the same resamples each time


@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_what_is_not_finite_has_no_interval(value: float) -> None:
    found = mean_of_images([30.0, value])
    assert found.interval is None
    assert found.n == 2
    assert found.value == value or (math.isnan(found.value) and math.isnan(value))


def test_means_in_words() -> None:
    assert mean_of_images([30.0]).text() == "30.00, n = 1 (few)"
    assert mean_of_images([1.0] * 20).text(1) == "1.0 [1.0, 1.0], n = 20"
    assert mean_of_images([30.0, math.inf]).text() == "inf, n = 2 (few)"
    with pytest.raises(ValueError, match="at least one image"):
        mean_of_images([])


def test_gain_is_of_pairs() -> None:
    def judged(values: list[float], name: str = "") -> Validation:
        return Validation("set", 2, tuple((f"{name}{i}", Quality(value, 1.0)) for i, value in enumerate(values)))

    found = gain(judged([20.5, 30.5, 40.5]), judged([20, 30, 40]))
    assert (found.value, found.interval) == (0.5, (0.5, 0.5))  # far apart images, one difference
    with pytest.raises(ValueError, match="different images"):
        gain(judged([20]), judged([20], "other"))


def test_self_ensemble_of_a_network_without_a_direction_is_that_network() -> None:
    x = torch.rand(2, 3, 5, 7)
    nearest = nn.Upsample(scale_factor=2, mode="nearest")
    assert torch.allclose(SelfEnsemble(nearest)(x), nearest(x))


def test_self_ensemble_has_the_symmetries_of_a_square() -> None:
    torch.manual_seed(0)
    model = SelfEnsemble(nn.Conv2d(3, 3, 3, padding=1))
    x = torch.rand(1, 3, 6, 6)
    assert not torch.allclose(model.model(x.flip(3)), model.model(x).flip(3), atol=1e-4)
    for turned in (lambda image: image.flip(3), lambda image: image.rot90(1, (2, 3))):
        assert torch.allclose(model(turned(x)), turned(model(x)), atol=1e-6)
