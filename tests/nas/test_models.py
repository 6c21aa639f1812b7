"""Networks by name."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from espalier.nas.errors import UserError
from espalier.nas.models import network_factory

OWN = """\
import torch
def small():
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
def no_network():
    return 3
"""


def make(text: str) -> torch.nn.Module:
    return network_factory(text, image_shape=(1, 32, 32), classes=7)()


def test_a_model_of_timm_takes_these_images_and_classes() -> None:
    network = make("timm:mobilenetv3_small_050")
    assert tuple(network(torch.zeros(2, 1, 32, 32)).shape) == (2, 7)


def test_a_function_of_a_file_is_called_for_each_network(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(OWN)
    factory = network_factory(f"{tmp_path / 'own.py'}:small", image_shape=(1, 8, 8), classes=10)
    first, second = factory(), factory()
    assert not torch.equal(first[1].weight, second[1].weight)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("timm:resnet81", r"timm:resnet81: timm has no such model; .* did you mean 'resnet18'"),
        (
            "resnet18",
            r"resnet18: is neither timm:NAME nor FILE\.py:FUNCTION nor a network of super-resolution .*vdsr:$",
        ),
        ("esdr:scale=2", r"esdr:scale=2: is neither timm:NAME nor .* did you mean 'edsr:'"),
        ("edsr", r"edsr: is neither timm:NAME nor .* did you mean 'edsr:'"),
        ("edsr:scale=2,chanels=8", r"edsr\.chanels: no such option; allowed: scale, .* did you mean 'channels'"),
        ("absent.py:small", r"absent\.py: is not a Python file"),
        ("own.py:smal", r"own\.py: has no function 'smal'; .* did you mean 'small'"),
        ("own.py:no_network", r"own\.py:no_network: returns a int, not a torch module"),
        ("broken.py:small", r"broken\.py: ZeroDivisionError: division by zero"),
    ],
)
def test_what_cannot_be_made_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, line: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.py").write_text(OWN)
    (tmp_path / "broken.py").write_text("1 / 0\n")
    with pytest.raises(UserError, match=line):
        make(text)
