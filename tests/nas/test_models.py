"""Networks by name."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from espalier.nas.errors import Code
from espalier.nas.models import network_factory
from user_errors import user_error

OWN = """\
import torch
def small():
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
def no_network():
    return 3
def broken():
    return 1 / 0
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
    ("text", "where", "code", "nearest"),
    [
        ("timm:resnet81", "timm:resnet81", "unknown", "resnet18"),
        ("resnet18", "resnet18", "unknown", None),
        ("esdr:scale=2", "esdr:scale=2", "unknown", "edsr:"),
        ("edsr", "edsr", "unknown", "edsr:"),
        ("edsr:scale=2,chanels=8", "edsr.chanels", "unknown", "channels"),
        ("absent.py:small", "absent.py", "not_found", None),
        ("own.py:smal", "own.py", "unknown", "small"),
        ("own.py:no_network", "own.py:no_network", "user_code", None),
        ("own.py:broken", "own.py:broken", "user_code", None),
        ("broken.py:small", "broken.py", "user_code", None),
    ],
)
def test_what_cannot_be_made_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, text: str, where: str, code: Code, nearest: str | None
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.py").write_text(OWN)
    (tmp_path / "broken.py").write_text("1 / 0\n")
    with user_error(where, code, nearest=nearest):
        make(text)
