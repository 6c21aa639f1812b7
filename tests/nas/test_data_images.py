"""Images: what they refuse, what identifies them."""

from __future__ import annotations

import hashlib
import subprocess
import sys

import pytest
import torch

from espalier.nas.data import Images

PIXELS = torch.arange(2 * 3 * 4 * 5, dtype=torch.uint8).view(2, 3, 4, 5)
LABELS = torch.tensor([1, 0])


def images() -> Images:
    return Images(PIXELS, LABELS, ("cat", "dog"), "pets")


@pytest.mark.parametrize(
    ("pixels", "labels", "problem"),
    [
        (PIXELS.float(), LABELS, "pixels must be uint8"),
        (PIXELS[0], LABELS, "pixels must be uint8"),
        (PIXELS[:, :0], LABELS, "pixels must be uint8"),
        (PIXELS, LABELS.int(), "labels must be int64"),
        (PIXELS, LABELS[:1], "labels must be int64"),
        (PIXELS, torch.tensor([0, 2]), "labels must be 0 to 1"),
        (PIXELS, torch.tensor([-1, 0]), "labels must be 0 to 1"),
    ],
)
def test_wrong_tensors_are_refused(pixels: torch.Tensor, labels: torch.Tensor, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        Images(pixels, labels, ("cat", "dog"), "pets")


def test_fingerprint_is_the_hash_of_the_content() -> None:
    content = b'[[2, 3, 4, 5], ["cat", "dog"]]' + bytes(range(120)) + LABELS.numpy().tobytes()
    assert images().fingerprint == hashlib.sha256(content).hexdigest()[:12]


def test_fingerprint_changes_with_content_and_not_with_name() -> None:
    other = PIXELS.clone()
    other[1, 2, 3, 4] += 1
    variants = [
        images(),
        Images(other, LABELS, ("cat", "dog"), "pets"),
        Images(PIXELS, LABELS.flip(0), ("cat", "dog"), "pets"),
        Images(PIXELS, LABELS, ("cat", "cow"), "pets"),
        Images(PIXELS.view(2, 3, 5, 4), LABELS, ("cat", "dog"), "pets"),
    ]
    assert len({variant.fingerprint for variant in variants}) == len(variants)
    assert Images(PIXELS, LABELS, ("cat", "dog"), "renamed").fingerprint == images().fingerprint
    channels_last = PIXELS.to(memory_format=torch.channels_last)
    assert Images(channels_last, LABELS, ("cat", "dog"), "pets").fingerprint == images().fingerprint


def test_subset_takes_the_given_order_and_may_be_empty() -> None:
    subset = images().subset(torch.tensor([1, 0, 1]))
    assert subset.labels.tolist() == [0, 1, 0]
    assert torch.equal(subset.pixels, PIXELS[[1, 0, 1]])
    empty = images().subset(torch.empty(0, dtype=torch.int64))
    assert (len(empty), empty.image_shape, len(empty.fingerprint)) == (0, (3, 4, 5), 12)


def test_to_its_own_device_is_itself() -> None:
    here = images()
    assert here.to("cpu") is here


def test_importing_the_package_loads_no_heavy_library() -> None:
    heavy = "{'sklearn', 'pyarrow', 'torchvision', 'timm', 'PIL', 'pandas', 'psutil'}"
    code = f"import sys, espalier.nas.data; sys.exit(', '.join({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == ""
