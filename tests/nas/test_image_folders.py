"""Folders of images as people have them: hidden files, links, capital letters, turned photographs, broken files."""

from __future__ import annotations

import io
import os
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest
import torch
from PIL import Image

from espalier.nas.data import Images, load
from espalier.nas.errors import Code, UserError
from espalier.nas.super_resolution import load_pairs
from user_errors import user_error

ORIENTATION = 0x0112
CLASSES = ("cat", "dog")


def grey(value: int) -> np.ndarray:
    return np.full((4, 4), value, np.uint8)


def write(file: Path, array: np.ndarray, form: str = "PNG", **options: object) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(file, form, **options)
    return file


def values(images: Images | None) -> list[tuple[str, int]]:
    """The class and the grey level of each image."""
    assert images is not None
    return [
        (images.classes[label], int(image[0, 0, 0])) for label, image in zip(images.labels, images.pixels, strict=True)
    ]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three cats, two dogs."""
    folder = tmp_path / "pets"
    for row, (name, value) in enumerate([("cat", 1), ("cat", 2), ("cat", 3), ("dog", 4), ("dog", 5)]):
        write(folder / name / f"{row}.png", grey(value))
    return folder


PETS = [("cat", 1), ("cat", 2), ("cat", 3), ("dog", 4), ("dog", 5)]


def link(at: Path, to: str | Path) -> None:
    at.parent.mkdir(parents=True, exist_ok=True)
    at.symlink_to(to)


@pytest.mark.parametrize(
    ("at", "to"),
    [
        ("cat/self", "."),
        ("cat/self", ".."),
        ("cat/deep/self", "../../cat"),
        ("ape", "cat/"),
        ("cat/again.png", "0.png"),
        ("ape/again.png", "../dog/3.png"),
        ("cat/all", "../../pets"),
    ],
)
def test_each_file_is_read_once_whatever_links_to_it(at: str, to: str, root: Path) -> None:
    link(root / at, to)
    if at.startswith("ape"):  # all that it holds belongs to another class
        with user_error(str(root), "too_few", says="'ape'"):
            load("folder", path=root)
    else:
        assert values(load("folder", path=root)[0]) == PETS


def test_a_hard_link_is_the_same_file(root: Path) -> None:
    os.link(root / "cat" / "0.png", root / "cat" / "copy.png")
    assert values(load("folder", path=root)[0]) == PETS


def test_links_inside_the_folder_are_followed(root: Path) -> None:
    write(root / "train" / "cat" / "a.png", grey(1))
    link(root / "train" / "dog", root / "dog")
    pool, test = load("folder", path=root)
    assert (values(pool), test) == ([("cat", 1), ("dog", 4), ("dog", 5)], None)


@pytest.mark.parametrize("at", ["cat/out.png", "cat/out", "cow", "train"])
@pytest.mark.parametrize(("to", "code"), [("../outside", "conflict"), ("../no such file", "not_found")])
def test_links_that_lead_out_or_nowhere_are_refused_by_name(at: str, to: str, code: Code, root: Path) -> None:
    outside = root.parent / "outside"
    write(outside / "cat" / "9.png", grey(9))
    target = (root / to).resolve()
    link(root / at, target / "cat" / "9.png" if at.endswith(".png") else target)
    if at in ("cow", "train") and code == "not_found":  # not a folder, so not a class
        assert values(load("folder", path=root)[0]) == PETS
        return
    with user_error(str(root / at), code):
        load("folder", path=root)


def test_a_circle_of_links_ends(root: Path) -> None:
    link(root / "cat" / "a", "b")
    link(root / "cat" / "b", "a")
    with user_error(str(root / "cat" / "a"), "not_found"):
        load("folder", path=root)


def test_pipes_are_not_read(root: Path) -> None:
    os.mkfifo(root / "cat" / "pipe.png")
    assert values(load("folder", path=root)[0]) == PETS


HIDDEN = [".ipynb_checkpoints", ".git", "__MACOSX", "@eaDir", "._cat"]


@pytest.mark.parametrize("hidden", HIDDEN)
@pytest.mark.parametrize("where", [".", "cat"])
def test_hidden_folders_are_no_classes_and_hold_no_images(hidden: str, where: str, root: Path) -> None:
    write(root / where / hidden / "0-checkpoint.png", grey(9))
    assert values(load("folder", path=root)[0]) == PETS


def test_hidden_files_are_no_images(root: Path) -> None:
    for name in ("._0.png", ".DS_Store", "Thumbs.db", ".nomedia.jpg"):
        (root / "cat" / name).write_bytes(b"no image")
    assert values(load("folder", path=root)[0]) == PETS


@pytest.mark.parametrize("train", ["train", "Train", "TRAIN", "training"])
@pytest.mark.parametrize("test", ["test", "Test", "TESTING", "val", "Val", "valid", "VALIDATION"])
def test_splits_in_any_letter_case(train: str, test: str, tmp_path: Path) -> None:
    for label, name in enumerate(CLASSES):
        write(tmp_path / train / name / "a.PNG", grey(label))
        write(tmp_path / test / name / "b.JPEG", grey(10 * label), "JPEG")
    pool, held_back = load("folder", path=tmp_path)
    assert (values(pool), values(held_back)) == ([("cat", 0), ("dog", 1)], [("cat", 0), ("dog", 10)])


def test_test_images_come_before_validation_images(tmp_path: Path) -> None:
    for value, split in enumerate(("train", "Val", "Test")):
        for name in CLASSES:
            write(tmp_path / split / name / "a.png", grey(value))
    assert values(load("folder", path=tmp_path)[1]) == [("cat", 2), ("dog", 2)]


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    for value, name in enumerate(("bus", "train", "tram")):
        write(tmp_path / name / "a.png", grey(value))
    assert load("folder", path=tmp_path)[0].classes == ("bus", "train", "tram")


@pytest.mark.parametrize(
    ("files", "where", "code", "says"),
    [
        (["test/cat/a.png", "val/cat/b.png"], ".", "missing", "train"),
        (["train/a.png", "test/b.png"], "train", "too_few", "1"),
        (["train/cat/a.png", "Train/cat/b.png"], ".", "conflict", "Train"),
        (["a.png", "b.png"], ".", "too_few", "2"),
        (["pets/cat/a.png", "pets/dog/a.png"], ".", "mismatch", "pets"),
        (["cat/a.png", "dog/notes.txt"], ".", "too_few", "'dog'"),
    ],
)
def test_other_layouts_are_refused_with_the_cure(
    files: list[str], where: str, code: Code, says: str, tmp_path: Path
) -> None:
    for file in files:
        write(tmp_path / file, grey(1))
    with user_error(str(tmp_path / where), code, says=says):
        load("folder", path=tmp_path)


def test_one_name_in_two_unicode_forms_is_one_class(tmp_path: Path) -> None:
    for split, name in (("train", "ko\u0308ter"), ("test", "k\u00f6ter")):
        write(tmp_path / split / name / "a.png", grey(1))
        write(tmp_path / split / "katze" / "a.png", grey(2))
    pool, test = load("folder", path=tmp_path)
    assert test is not None and pool.classes == test.classes == ("katze", "k\u00f6ter")


def test_a_name_that_is_not_text_is_refused_before_anything_is_trained(root: Path) -> None:
    folder = Path(os.fsdecode(os.fsencode(root / "cat") + b"\xff"))
    folder.mkdir()
    (folder / "a.png").write_bytes((root / "cat" / "0.png").read_bytes())
    with user_error(str(root), "invalid", says="xff"):
        load("folder", path=root)


# 24x16 pixels with four corners of their own, as a camera stores it when it is held upright.
CORNERS = np.zeros((16, 24, 3), np.uint8)
CORNERS[:8, :12], CORNERS[:8, 12:], CORNERS[8:, :12], CORNERS[8:, 12:] = (
    (255, 0, 0),
    (0, 255, 0),
    (0, 0, 255),
    (255, 255, 255),
)
TURNED = {  # what each tag says is to be done to the stored pixels
    1: CORNERS,
    2: CORNERS[:, ::-1],
    3: CORNERS[::-1, ::-1],
    4: CORNERS[::-1],
    5: CORNERS.transpose(1, 0, 2),
    6: np.rot90(CORNERS, -1),
    7: CORNERS[::-1, ::-1].transpose(1, 0, 2),
    8: np.rot90(CORNERS, 1),
}


def turned(tag: int) -> bytes:
    exif = Image.Exif()
    exif[ORIENTATION] = tag
    buffer = io.BytesIO()
    Image.fromarray(CORNERS).save(buffer, "PNG", exif=exif.tobytes())
    return buffer.getvalue()


@pytest.mark.parametrize("tag", TURNED)
def test_photographs_are_turned_as_their_tag_says(tag: int, tmp_path: Path) -> None:
    for name in CLASSES:
        (tmp_path / "a" / name).mkdir(parents=True)
        (tmp_path / "a" / name / "0.png").write_bytes(turned(tag))
    expected = torch.from_numpy(np.ascontiguousarray(TURNED[tag])).permute(2, 0, 1)
    for pixels in load("folder", path=tmp_path / "a")[0].pixels:
        assert torch.equal(pixels, expected)
    # Those of super-resolution as well, from a folder and from a zip file.
    with ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("0.png", turned(tag))
    for path in (tmp_path / "a" / "cat", tmp_path / "a.zip"):
        assert torch.equal(load_pairs(path, 2).pairs[0].high, expected)


def test_a_turned_photograph_has_the_size_that_viewers_show(tmp_path: Path) -> None:
    for name, content in (("cat", turned(6)), ("dog", turned(1))):
        (tmp_path / name).mkdir()
        (tmp_path / name / "0.png").write_bytes(content)
    with user_error("data.size", "mismatch", says="16x24"):
        load("folder", path=tmp_path)
    assert load("folder", path=tmp_path, size=16)[0].image_shape == (3, 16, 16)


PNG = turned(1)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "git lfs pull"),
        (b"<!DOCTYPE html><html>404</html>", "web page"),
        (b"GIF89a", ""),
        (PNG[:100], ""),
        (PNG[:40] + b"\0" * 40 + PNG[80:], ""),
        (b"\xff\xd8\xff\xe0" + b"\0" * 50, ""),
    ],
)
def test_broken_files_are_named_with_their_cause(content: bytes, says: str, root: Path) -> None:
    file = root / "dog" / "4.png"
    file.write_bytes(content)
    for read in (lambda: load("folder", path=root), lambda: load_pairs(root / "dog", 2, grey=True)):
        with pytest.raises(UserError) as caught:
            read()
        error = caught.value
        assert (error.where, error.code) == (str(file), "unreadable")
        assert says in error.problem and "object at 0x" not in error.problem


def test_links_out_of_a_folder_of_large_images_are_refused(root: Path) -> None:
    outside = write(root.parent / "secret.png", np.zeros((8, 8, 3), np.uint8))
    link(root / "cat" / "out.png", outside)
    with user_error(str(root / "cat" / "out.png"), "conflict"):
        load_pairs(root, 2, grey=True)
