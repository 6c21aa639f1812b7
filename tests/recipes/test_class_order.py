"""The order of classes: a given network's outputs and the labels of images must mean the same."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from nas_command import command
from PIL import Image
from safetensors.torch import save_file

from espalier.export.metadata import read_metadata, write_metadata
from espalier.nas.data import Images, Normalisation, load
from espalier.nas.data.class_order import in_order, matched
from espalier.nas.errors import Code
from espalier.nas.network_images import NetworkImages, weights_metadata
from espalier.recipes.commands.prune.command import prune_request
from espalier.recipes.inputs.class_doubt import class_doubt
from espalier.recipes.inputs.model_source import model_source
from espalier.recipes.inputs.task_data import images_for
from user_errors import user_error

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
"""In the order of the network; folders come in alphabetical order."""
OWN = """
from torch import nn

def nearest():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
"""
IN_ORDER = f"[{', '.join(NAMES)}]"
NORMALISED = ("data.mean=[0.0]", "data.std=[1.0]")


@pytest.fixture(scope="module")
def digits() -> Images:
    return load("digits")[0]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, digits: Images) -> Path:
    """30 digits of each class in folders with names, and the network that takes the nearest mean, in its own order."""
    root = tmp_path_factory.mktemp("named")
    for label, name in enumerate(NAMES):
        (root / "images" / name).mkdir(parents=True)
        for row, image in enumerate(digits.pixels[digits.labels == label][:30, 0]):
            Image.fromarray(image.numpy()).save(root / "images" / name / f"{row:02}.png")
    means = torch.stack([digits.pixels[digits.labels == label].float().mean((0, 1)) / 255 for label in range(10)])
    weight = means.flatten(1)
    tensors = {"1.weight": 2 * weight, "1.bias": -(weight**2).sum(1)}  # the largest: -|x - mean|^2 + |x|^2
    save_file(tensors, root / "plain.safetensors")
    facts = NetworkImages(NAMES, Normalisation((0.0,), (1.0,)), (1, 8, 8))
    save_file(tensors, root / "named.safetensors", metadata=facts.to_metadata())
    (root / "own.py").write_text(OWN)
    return root


def accuracy(folder: Path, weights: str, *overrides: str) -> float:
    """Of the network on the test images that `nas prune` holds back."""
    request = prune_request(
        f"{folder}/own.py:nearest",
        method="magnitude",
        inputs=None,
        target="sparsity=0.5",
        pattern=None,
        allocation=None,
        include=(),
        exclude=(),
        data=folder / "images",
        test_data=None,
        size=None,
        scale=None,
        weights=folder / weights,
        pretrained=False,
        seed=0,
        overrides={key: json_of(value) for key, _, value in (text.partition("=") for text in overrides)},
    )
    images = images_for(request.settings, request.source)
    return images.score(request.source.make(images.image_shape, len(images.classes))).value


def json_of(text: str) -> list[object]:
    values = text.strip("[]").split(", ")
    return [float(value) if value[0].isdigit() else value for value in values]


def test_classes_in_the_networks_order(folder: Path) -> None:
    assert accuracy(folder, "plain.safetensors", *NORMALISED) < 0.4  # zero, one and so on are at other places
    assert accuracy(folder, "plain.safetensors", *NORMALISED, f"data.classes={IN_ORDER}") > 0.8
    assert accuracy(folder, "named.safetensors") > 0.8  # by the names and the normalisation in its header


def preview(folder: Path, weights: str, *overrides: str) -> None:
    network = ("prune", f"{folder}/own.py:nearest", "--weights", folder / weights, "--data", folder / "images")
    command(*network, "--target", "sparsity=0.5", "--dry-run", *overrides)


@pytest.mark.parametrize(
    ("weights", "overrides", "doubted"),
    [
        ("plain.safetensors", NORMALISED, True),
        ("plain.safetensors", (*NORMALISED, f"data.classes={IN_ORDER}"), False),
        ("named.safetensors", (), False),
    ],
)
def test_another_order_is_suggested_where_it_is_far_better(
    weights: str, overrides: tuple[str, ...], doubted: bool, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="espalier"):
        preview(folder, weights, *overrides)
    suggested = [record.getMessage() for record in caplog.records if "data.classes=" in record.getMessage()]
    assert len(suggested) == doubted
    assert all(IN_ORDER in line for line in suggested)  # the suggestion works as it is


@pytest.mark.parametrize(
    ("classes", "code", "says"),
    [
        (NAMES[:9], "mismatch", "9"),
        (("zero", *NAMES[:9]), "invalid", "'zero'"),
        (("null", *NAMES[1:]), "unknown", "'null'"),
    ],
)
def test_other_names_are_refused(classes: tuple[str, ...], code: Code, says: str, folder: Path) -> None:
    with user_error("data.classes", code, says=says):
        preview(folder, "plain.safetensors", f"data.classes={json.dumps(classes)}")


def test_another_number_of_classes_is_one_line(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(OWN.replace("10", "7"))
    with user_error("MODEL", "mismatch", says="7 outputs"):
        command("prune", f"{tmp_path}/own.py:nearest", "--data", folder / "images", "--target", "sparsity=0.5",
                "--dry-run")  # fmt: skip


def labelled(classes: tuple[str, ...]) -> Images:
    labels = torch.tensor([0, 1, 2, 1])
    return Images(torch.arange(4, dtype=torch.uint8).view(4, 1, 1, 1), labels, classes, "three")


def names_of(images: Images) -> list[str]:
    return [images.classes[label] for label in images.labels]


def test_every_image_keeps_its_class_in_every_order() -> None:
    images = labelled(("cat", "dog", "emu"))
    again = in_order(images, ("emu", "cat", "dog"))
    assert (again.classes, again.labels.tolist()) == (("emu", "cat", "dog"), [1, 2, 0, 2])
    assert names_of(again) == names_of(images)
    assert in_order(again, images.classes).labels.tolist() == images.labels.tolist()


def test_numbers_get_names_and_names_win_over_numbers() -> None:
    numbered, named = labelled(("0", "1", "2")), labelled(("cat", "dog", "emu"))
    assert in_order(numbered, ("a", "b", "c")).classes == ("a", "b", "c")
    assert in_order(numbered, ("2", "0", "1")).labels.tolist() == [1, 2, 0, 2]
    assert matched(named, ("0", "1", "2")) is named  # the network knows numbers only
    assert matched(numbered, ("a", "b", "c")).classes == ("a", "b", "c")
    assert matched(named, ("dog", "cat", "emu")).labels.tolist() == [1, 0, 2, 0]
    assert matched(named, ("dog", "cat")) is named  # the number of outputs is checked with the network
    with user_error("data.classes", "mismatch", says="emu"):
        matched(named, ("dog", "cat", "cow"))


def test_doubts() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(5, (500,), generator=generator)
    classes = ("a", "b", "c", "d", "e, f")
    wrong = torch.randint(5, (500,), generator=generator)
    mostly = torch.where(torch.rand(500, generator=generator) < 0.6, labels, wrong)
    order = torch.tensor([2, 0, 1, 4, 3])
    assert class_doubt(mostly, labels, classes) is None
    found = class_doubt(order[mostly], labels, classes)
    assert found is not None and "'data.classes=[b, c, a, \"e, f\", d]'" in found.replace("'e, f'", '"e, f"')
    by_chance = class_doubt(wrong, labels, classes)
    assert by_chance is not None and "data.classes=" not in by_chance and "5 classes" in by_chance
    assert class_doubt(torch.zeros(500).long(), labels, classes) is not None  # always the same answer
    assert class_doubt(wrong, labels, classes, is_fresh=True) is None  # as expected
    assert class_doubt(order[mostly], labels, classes, is_fresh=True) == found


def test_metadata_in_safetensors_and_onnx(folder: Path, tmp_path: Path) -> None:
    facts = NetworkImages(("chat", "hérisson, gris"), Normalisation((0.5, 0.25), (0.1, 1.0)), (2, 8, 9))
    save_file({"a": torch.zeros(1)}, tmp_path / "w.safetensors", metadata=facts.to_metadata())
    assert weights_metadata(tmp_path / "w.safetensors") == facts
    graph = onnx.helper.make_graph([], "g", [], [])
    model = onnx.helper.make_model(graph)
    onnx.helper.set_model_props(model, {"author": "me"})
    onnx.save(model, tmp_path / "m.onnx")
    assert read_metadata(tmp_path / "m.onnx") == NetworkImages()
    write_metadata(tmp_path / "m.onnx", facts)
    assert read_metadata(tmp_path / "m.onnx") == facts
    assert onnx.load(tmp_path / "m.onnx").metadata_props[0].value == "me"
    assert model_source(f"{folder}/own.py:nearest", weights=folder / "named.safetensors").classes == NAMES


@pytest.mark.parametrize(
    ("text", "classes"),
    [
        ({"classes": '["a", "b"]'}, ("a", "b")),
        ({"classes": "a, b"}, ("a", "b")),
        ({"names": "{0: 'a', 1: 'b'}"}, ("a", "b")),  # as Ultralytics writes it
        ({"class_names": '{"1": "b", "0": "a"}'}, ("a", "b")),
        ({"format": "pt"}, ()),
    ],
)
def test_names_as_other_tools_write_them(text: dict[str, str], classes: tuple[str, ...]) -> None:
    assert NetworkImages.from_metadata(Path("m.onnx"), text).classes == classes


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("classes", {"classes": "[1.5, {}]"}),
        ("classes", {"classes": "[]"}),
        ("classes", {"classes": '["a", "a"]'}),
        ("classes", {"classes": '{"1": "a"}'}),
        ("mean", {"mean": "[[1]]", "std": "[1]"}),
        ("mean", {"mean": "[NaN]", "std": "[1]"}),
        ("mean", {"mean": "7", "std": "[1]"}),
        ("std", {"mean": "[1]", "std": "[0]"}),
        ("std", {"mean": "[1]", "std": "[1, 1]"}),
        ("input_shape", {"input_shape": "[1, 8]"}),
        ("input_shape", {"input_shape": "[1, 8, -8]"}),
        ("classes", {"classes": "[" * 100_000}),
    ],
)
def test_damaged_metadata_is_refused_by_its_key(key: str, text: dict[str, str]) -> None:
    with user_error(f"m.onnx: {key}", "unreadable"):
        NetworkImages.from_metadata(Path("m.onnx"), text)


def test_quantised_files_say_what_their_images_are(folder: Path, tmp_path: Path) -> None:
    """`nas quantize` of an ONNX file with metadata takes the order and the normalisation from it, and keeps them."""
    from espalier.export.network import export_network
    from espalier.recipes.commands.quantize.command import _known
    from espalier.recipes.config.quantize_settings import quantize_settings
    from espalier.recipes.inputs.calibration import QuantizationImages

    file = tmp_path / "m.onnx"
    export_network(
        f"{folder}/own.py:nearest", file, input_shape=(1, 8, 8), weights=folder / "named.safetensors",
        exporter="torchscript",
    )  # fmt: skip
    write_metadata(file, NetworkImages(NAMES, Normalisation((0.0,), (1.0,))))
    settings = quantize_settings({"data": {"source": "folder", "path": folder / "images"}})
    images = QuantizationImages(settings, _known(file, None))
    assert images.splits.classes == NAMES
    assert images.normalisation == Normalisation((0.0,), (1.0,))
    assert images.described == NetworkImages(NAMES, Normalisation((0.0,), (1.0,)), (1, 8, 8))
    assert np.bincount(images.test().labels).tolist() == [3] * 10
