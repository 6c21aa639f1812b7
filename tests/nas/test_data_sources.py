"""Sources: the same images from every layout, and one clear line for every way to get them wrong."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from espalier.nas.data import SOURCES, Images, Limit, load
from espalier.nas.data.sources import fit
from espalier.nas.errors import Code
from user_errors import user_error

TRAIN, TEST = slice(0, 100), slice(100, 160)


@pytest.fixture(scope="module")
def digits() -> Images:
    return load("digits")[0]


def encoded(array: np.ndarray, form: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, form)
    return buffer.getvalue()


def write_parquet(file: Path, images: list[Any], labels: list[Any], names: list[str] | None = None) -> Path:
    """The Hugging Face layout; `images` are encoded bytes or None."""
    rows = [{"bytes": content, "path": f"{row}.png"} for row, content in enumerate(images)]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table({"image": pa.array(rows, kind), "label": labels})
    features = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": names}}
    if names is not None:
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, file)
    return file


def make_parquet(root: Path, digits: Images) -> Path:
    for name, part in (("train-0", slice(0, 30)), ("train-1", slice(30, 100)), ("test", TEST)):
        images = [encoded(image[0].numpy()) for image in digits.pixels[part]]
        write_parquet(root / f"{name}.parquet", images, digits.labels[part].tolist(), list(digits.classes))
    return root


def make_folder(root: Path, digits: Images) -> Path:
    for name, part in (("train", TRAIN), ("test", TEST)):
        for row, (image, label) in enumerate(zip(digits.pixels[part], digits.labels[part], strict=True)):
            file = root / name / str(int(label)) / f"{row:03}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(encoded(image[0].numpy()))
    return root


def make_npz(root: Path, digits: Images) -> Path:
    pixels, labels = digits.pixels[:, 0].numpy(), digits.labels.numpy()
    file = root / "digits.npz"
    np.savez(file, x_train=pixels[TRAIN], y_train=labels[TRAIN], x_test=pixels[TEST], y_test=labels[TEST])
    return file


MAKERS: dict[str, Callable[[Path, Images], Path]] = {
    "folder": make_folder,
    "npz": make_npz,
    "parquet": make_parquet,
}


def test_every_source_with_files_is_in_the_contract() -> None:
    assert set(SOURCES) == {"digits", *MAKERS}


def test_digits_are_the_known_ones(digits: Images) -> None:
    assert digits.pixels.shape == (1797, 1, 8, 8)
    assert digits.labels.bincount().tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert digits.classes == tuple("0123456789")
    # 17 levels of 255 / 16, rounded; the first row of the first zero is 0 0 5 13 9 1 0 0.
    assert digits.pixels.unique().tolist() == [round(level * 255 / 16) for level in range(17)]
    assert digits.pixels[0, 0, 0].tolist() == [0, 0, 80, 207, 143, 16, 0, 0]


@pytest.mark.parametrize("source", sorted(MAKERS))
def test_each_layout_gives_the_same_images(source: str, tmp_path: Path, digits: Images) -> None:
    for images, part in zip(load(source, path=MAKERS[source](tmp_path, digits)), (TRAIN, TEST), strict=True):
        labels, pixels = digits.labels[part], digits.pixels[part]
        order = labels.argsort(stable=True) if source == "folder" else torch.arange(len(labels))
        assert images is not None
        assert images.classes == digits.classes
        assert torch.equal(images.labels, labels[order])
        assert torch.equal(images.pixels, pixels[order])


@pytest.mark.parametrize("source", sorted(MAKERS))
@pytest.mark.parametrize("size", [5, 12])
def test_each_layout_resizes_alike(source: str, size: int, tmp_path: Path, digits: Images) -> None:
    pool, test = load(source, path=MAKERS[source](tmp_path, digits), size=size)
    order = digits.labels[TRAIN].argsort(stable=True) if source == "folder" else torch.arange(100)
    assert test is not None and test.image_shape == (1, size, size)
    images = [Image.fromarray(image[0].numpy()) for image in digits.pixels[TRAIN][order]]
    expected = np.stack([np.asarray(image.resize((size, size), Image.Resampling.BILINEAR)) for image in images])
    assert np.abs(pool.pixels[:, 0].numpy().astype(int) - expected).max() <= 1


def test_digits_resize() -> None:
    assert load("digits", size=16)[0].image_shape == (1, 16, 16)


def test_cifar10_test_images(shared_data: Path) -> None:
    pool, test = load("parquet", path=shared_data / "cifar10" / "test.parquet")
    assert test is None
    names = "airplane automobile bird cat deer dog frog horse ship truck"
    assert pool.classes == tuple(names.split())
    assert pool.pixels.shape == (10_000, 3, 32, 32)
    assert pool.labels.bincount().tolist() == [1000] * 10


@pytest.mark.slow
def test_cifar10_whole(shared_data: Path) -> None:
    pool, test = load("parquet", path=shared_data / "cifar10")
    assert test is not None
    assert (len(pool), len(test)) == (50_000, 10_000)
    assert pool.classes == test.classes and len(pool.classes) == 10
    assert pool.labels.bincount().tolist() == [5000] * 10
    row = pq.ParquetFile(shared_data / "cifar10" / "train.parquet").read_row_group(24).to_pylist()[-1]
    with Image.open(io.BytesIO(row["image"]["bytes"])) as image:
        assert np.array_equal(pool.pixels[-1].permute(1, 2, 0).numpy(), np.asarray(image))
    assert int(pool.labels[-1]) == row["label"]


GREY, COLOUR = np.full((4, 4), 7, np.uint8), np.full((4, 4, 3), 9, np.uint8)


@pytest.mark.parametrize("coloured", ["train", "test"])
def test_one_coloured_image_anywhere_makes_all_rgb(coloured: str, tmp_path: Path) -> None:
    for name in ("train", "test"):
        second = COLOUR if name == coloured else GREY
        write_parquet(tmp_path / f"{name}.parquet", [encoded(GREY), encoded(second)], [0, 1])
    pool, test = load("parquet", path=tmp_path)
    assert test is not None and pool.image_shape == test.image_shape == (3, 4, 4)
    values = [[int(image.unique()) for image in images.pixels] for images in (pool, test)]
    assert values == ([[7, 9], [7, 7]] if coloured == "train" else [[7, 7], [7, 9]])


def test_parquet_validation_shards_plain_binary_and_no_names(tmp_path: Path) -> None:
    for name, label in (("train", [0, 2]), ("validation", [2, 1])):
        table = pa.table({"image": [encoded(COLOUR)] * 2, "label": label})
        pq.write_table(table, tmp_path / f"{name}.parquet")
    pool, test = load("parquet", path=tmp_path)
    assert test is not None and test.labels.tolist() == [2, 1]
    assert pool.classes == ("0", "1", "2")
    alone, none = load("parquet", path=tmp_path / "train.parquet")
    assert len(alone) == 2 and none is None


def test_folder_without_a_train_folder_and_with_its_own_test_path(tmp_path: Path, digits: Images) -> None:
    root = make_folder(tmp_path, digits)
    pool, none = load("folder", path=root / "test")
    assert (len(pool), none) == (60, None)
    _, test = load("folder", path=root / "train", test_path=root / "test")
    assert test is not None and len(test) == 60


@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
def test_npz_layouts_and_column_labels(layout: str, tmp_path: Path) -> None:
    pixels = torch.arange(2 * 3 * 4 * 5, dtype=torch.uint8).view(2, 3, 4, 5)
    array = pixels.permute(0, 2, 3, 1).numpy() if layout == "NHWC" else pixels.numpy()
    np.savez(tmp_path / "a.npz", images=array, labels=np.array([[1], [0]], np.int32))
    pool, test = load("npz", path=tmp_path / "a.npz")
    assert test is None and torch.equal(pool.pixels, pixels)
    assert pool.labels.tolist() == [1, 0]
    _, test = load("npz", path=tmp_path / "a.npz", test_path=tmp_path / "a.npz")
    assert test is not None and test.fingerprint == pool.fingerprint


def fails(where: object, code: Code, source: str, *, says: str = "", **options: Any) -> None:
    with user_error(str(where), code, says=says):
        load(source, **options)


def test_wrong_source_path_and_size(tmp_path: Path) -> None:
    fails("data.source", "unknown", "parket", path=tmp_path, says="'parquet'")
    fails("data.path", "missing", "npz")
    fails("data.path", "conflict", "digits", path=tmp_path)
    fails("data.path", "not_found", "npz", path=tmp_path / "no.npz", says="no.npz")
    fails("data.test_path", "not_found", "npz", path=tmp_path, test_path=tmp_path / "no")
    fails("data.size", "out_of_range", "digits", size=0)


def test_images_of_several_sizes_need_a_size(tmp_path: Path) -> None:
    file = write_parquet(tmp_path / "a.parquet", [encoded(GREY), encoded(np.zeros((6, 5), np.uint8))], [0, 1])
    fails("data.size", "mismatch", "parquet", path=file, says=f"{file}: row 0 4x4")
    fails("data.size", "mismatch", "parquet", path=file, says=f"{file}: row 1 5x6")
    assert load("parquet", path=file, size=4)[0].image_shape == (1, 4, 4)


def test_undecodable_images_are_named(tmp_path: Path, digits: Images) -> None:
    good = encoded(COLOUR, "JPEG")
    for bad in (b"no image", b"", encoded(np.zeros((64, 64, 3), np.uint8), "PNG")[:-60], good[: len(good) // 2]):
        write_parquet(tmp_path / "a" / "train-0.parquet", [good], [0])
        write_parquet(tmp_path / "a" / "train-1.parquet", [good, bad], [0, 1])
        fails("train-1.parquet: row 1", "unreadable", "parquet", path=tmp_path / "a", size=4)
    file = sorted((make_folder(tmp_path / "b", digits) / "train" / "3").iterdir())[2]
    file.write_bytes(b"GIF89a")
    fails(file, "unreadable", "folder", path=tmp_path / "b")


def test_sixteen_bit_and_missing_images_are_refused(tmp_path: Path) -> None:
    deep = write_parquet(tmp_path / "a.parquet", [encoded(np.full((4, 4), 40_000, np.uint16))], [0])
    fails(f"{deep}: row 0", "unsupported", "parquet", path=deep, says="8 bits")
    missing = write_parquet(tmp_path / "b.parquet", [encoded(GREY), None], [0, 0])
    fails(f"{missing}: row 1", "missing", "parquet", path=missing)


def test_wrong_parquet_files(tmp_path: Path) -> None:
    file = tmp_path / "a.parquet"
    file.write_bytes(b"PAR1 not really")
    fails(file, "unreadable", "parquet", path=file)
    pq.write_table(pa.table({"img": [b""], "label": [0]}), file)
    fails(file, "missing", "parquet", path=file, says="img, label")
    pq.write_table(pa.table({"image": ["text"], "label": [0]}), file)
    fails(file, "unsupported", "parquet", path=file, says="string")
    for labels in (["cat"], [None], [0.5]):
        write_parquet(file, [encoded(GREY)], labels)
        fails(file, "unsupported", "parquet", path=file, says="'label'")
    write_parquet(file, [encoded(GREY)] * 2, [0, -1], ["cat", "dog"])
    fails(file, "out_of_range", "parquet", path=file, says="label -1 of row 1")
    write_parquet(file, [encoded(GREY)] * 2, [2, 0], ["cat", "dog"])
    fails(file, "out_of_range", "parquet", path=file, says="label 2 of row 0")
    pq.write_table(pa.table({"image": pa.array([], pa.binary()), "label": pa.array([], pa.int64())}), file)
    fails(file, "too_few", "parquet", path=file)
    table = pa.table({"image": [encoded(GREY)], "label": [0]})
    pq.write_table(table.replace_schema_metadata({"huggingface": "{"}), file)
    fails(file, "unreadable", "parquet", path=file, says="'huggingface'")
    (tmp_path / "empty").mkdir()
    fails(tmp_path / "empty", "not_found", "parquet", path=tmp_path / "empty")
    write_parquet(tmp_path / "only" / "test.parquet", [encoded(GREY)], [0])
    fails(tmp_path / "only", "not_found", "parquet", path=tmp_path / "only")


def test_test_images_of_other_classes(tmp_path: Path) -> None:
    train = write_parquet(tmp_path / "train.parquet", [encoded(GREY)] * 3, [0, 1, 2], ["a", "b", "c"])
    test = write_parquet(tmp_path / "test.parquet", [encoded(GREY)] * 2, [0, 1], ["a", "b"])
    fails("data.path", "mismatch", "parquet", path=tmp_path, says="3 classes")
    fails("data.test_path", "mismatch", "parquet", path=train, test_path=test, says="3 classes")
    write_parquet(test, [encoded(GREY)] * 2, [0, 1], ["a", "x", "c"])
    fails("data.path", "mismatch", "parquet", path=tmp_path, says="'x'")
    small = np.zeros((3, 4, 4), np.uint8)
    np.savez(tmp_path / "a.npz", x_train=small, y_train=[0, 1, 2], x_test=small, y_test=[0, 1, 1])
    fails("data.path", "mismatch", "npz", path=tmp_path / "a.npz", says="3 classes")
    np.savez(tmp_path / "a.npz", x_train=small, y_train=[0, 1, 2], x_test=small[:, 1:], y_test=[0, 1, 2])
    fails("data.path", "mismatch", "npz", path=tmp_path / "a.npz", says="1x3x4")


def test_wrong_folders(tmp_path: Path) -> None:
    fails(tmp_path, "too_few", "folder", path=tmp_path)
    (tmp_path / "cat").mkdir()
    fails(tmp_path, "too_few", "folder", path=tmp_path, says="cat")
    (tmp_path / "cat" / "0.png").write_bytes(encoded(GREY))
    fails(tmp_path / "cat" / "0.png", "not_found", "folder", path=tmp_path / "cat" / "0.png")
    assert len(load("folder", path=tmp_path)[0]) == 1


@pytest.mark.parametrize(
    ("arrays", "where", "code", "says"),
    [
        ({"x": np.zeros(3)}, "a.npz", "missing", "x_train and y_train"),
        ({"images": np.zeros((2, 4, 4)), "labels": [0, 1]}, "a.npz: images", "unsupported", "float64"),
        ({"images": np.zeros((2, 4, 4), np.uint8), "labels": [0]}, "a.npz: labels", "invalid", "(1,)"),
        ({"images": np.zeros((2, 4, 4), np.uint8), "labels": [0.0, 1]}, "a.npz: labels", "invalid", "float64"),
        ({"images": np.zeros((2, 4, 4), np.uint8), "labels": [0, -1]}, "a.npz: labels", "out_of_range", "row 1"),
        (
            {"images": np.zeros((2, 4, 4, 4), np.uint8), "labels": [0, 1]},
            "a.npz: images",
            "unsupported",
            "(2, 4, 4, 4)",
        ),
        ({"images": np.uint8(3), "labels": np.int64(0)}, "a.npz: images", "unsupported", "()"),
        ({"images": np.array([{}]), "labels": [0]}, "a.npz", "unreadable", ""),
    ],
)
def test_wrong_npz_arrays(arrays: dict[str, Any], where: str, code: Code, says: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    fails(where, code, "npz", path=tmp_path / "a.npz", says=says)


def test_broken_npz_files(tmp_path: Path) -> None:
    file = tmp_path / "a.npz"
    np.savez_compressed(file, images=np.arange(64, dtype=np.uint8).reshape(1, 8, 8), labels=[0])
    whole = file.read_bytes()
    for broken in (b"", whole[:-40], whole[:60] + b"\xff" * 20 + whole[80:]):
        file.write_bytes(broken)
        fails(file, "unreadable", "npz", path=file)
    fails(tmp_path, "unreadable", "npz", path=tmp_path)


@pytest.mark.parametrize("source", sorted(MAKERS))
def test_more_than_memory_is_refused_before_it_is_taken(
    source: str, tmp_path: Path, digits: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = MAKERS[source](tmp_path, digits)
    monkeypatch.setattr(fit, "MEMORY_SHARE", 1e-9)
    fails("data.size", "out_of_range", source, path=path)
    fails("data.size", "out_of_range", "digits", size=500, says="0.4 GiB")


@pytest.mark.parametrize("source", sorted(SOURCES))
def test_a_limit_keeps_the_same_images_as_choosing_afterwards(source: str, tmp_path: Path, digits: Images) -> None:
    path = MAKERS[source](tmp_path, digits) if source in MAKERS else None
    limit = Limit(50, seed=3)
    for limited, whole in zip(load(source, path=path, limit=limit), load(source, path=path), strict=True):
        if whole is None:
            assert source == "digits" and limited is None
        else:
            assert limited is not None and len(limited) == 50
            assert limited.fingerprint == whole.subset(limit.rows(whole.labels, whole.classes)).fingerprint
