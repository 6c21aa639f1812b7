from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from espalier.nas.errors import Code
from espalier.nas.super_resolution import Pair, Pairs, Patches, WholeImages, load_pairs
from espalier.nas.super_resolution.batches import SYMMETRIES, apply_symmetry, undo_symmetry
from espalier.nas.super_resolution.pairs import bicubic
from user_errors import user_error


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(256, size=(height, width, 3), dtype=np.uint8)


def save(path: Path, pixels: np.ndarray, mode: str | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(pixels)
    (image if mode is None else image.convert(mode)).save(path)


def numbered(count: int, side: int = 12, scale: int = 2) -> Pairs:
    """Image i has the value 10 i everywhere, at both resolutions."""
    pairs = []
    for i in range(count):
        low, high = (torch.full((3, n, n), 10 * i, dtype=torch.uint8) for n in (side, scale * side))
        pairs.append(Pair(str(i), low, high))
    return Pairs(tuple(pairs), "numbered")


def located(height: int, width: int, scale: int) -> Pairs:
    """One image whose pixels say where they are: row in red, column in green, of the small image at both sizes."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    low = torch.stack([rows, columns, torch.zeros_like(rows)]).to(torch.uint8)
    high = low.repeat_interleave(scale, 1).repeat_interleave(scale, 2)
    return Pairs((Pair("located", low, high),), "located")


def test_a_folder_of_any_sizes(tmp_path: Path) -> None:
    save(tmp_path / "b.png", picture(31, 20))
    save(tmp_path / "a" / "c.bmp", picture(8, 9, 1))
    (tmp_path / "notes.txt").write_text("not an image")
    save(tmp_path / ".thumbs" / "b.png", picture(2, 2))
    pairs = load_pairs(tmp_path, 3)
    assert [pair.name for pair in pairs] == ["a/c.bmp", "b.png"]
    assert [tuple(pair.high.shape) for pair in pairs] == [(3, 6, 9), (3, 30, 18)]
    assert [tuple(pair.low.shape) for pair in pairs] == [(3, 2, 3), (3, 10, 6)]
    assert pairs.scale == 3
    assert torch.equal(pairs[1].high.permute(1, 2, 0), torch.from_numpy(picture(31, 20)[:30, :18]))


def test_the_small_image_is_made_by_pil(tmp_path: Path) -> None:
    save(tmp_path / "a.png", picture(9, 13))
    expected = Image.fromarray(picture(9, 13)[:8, :12]).resize((6, 4), Image.Resampling.BICUBIC)
    assert np.array_equal(load_pairs(tmp_path, 2)[0].low.permute(1, 2, 0).numpy(), np.asarray(expected))


@pytest.mark.parametrize("name", ["0001x2.png", "sub/0001.png"])
def test_small_images_of_their_own(tmp_path: Path, name: str) -> None:
    save(tmp_path / "high" / "0001.png", picture(9, 12))
    save(tmp_path / "low" / name, picture(4, 6, 5))
    pairs = load_pairs(tmp_path / "high", 2, low=tmp_path / "low")
    assert torch.equal(pairs[0].low.permute(1, 2, 0), torch.from_numpy(picture(4, 6, 5)))
    assert tuple(pairs[0].high.shape) == (3, 8, 12)


def test_a_zip_file_is_a_folder(tmp_path: Path) -> None:
    save(tmp_path / "in" / "a.png", picture(8, 8))
    save(tmp_path / "in" / "b.png", picture(8, 10))
    with zipfile.ZipFile(tmp_path / "in.zip", "w") as archive:
        for name in ("b.png", "a.png"):
            archive.write(tmp_path / "in" / name, name)
        archive.writestr("__MACOSX/a.png", b"resource fork")
    zipped, plain = load_pairs(tmp_path / "in.zip", 2), load_pairs(tmp_path / "in", 2)
    assert [pair.name for pair in zipped] == ["a.png", "b.png"]
    assert zipped.fingerprint == plain.fingerprint


def broken(tmp_path: Path, kind: str) -> Path:
    """A folder with one image that will not do."""
    folder = tmp_path / "images"
    file = folder / "x.png"
    save(file, picture(16, 16))
    match kind:
        case "empty":
            file.unlink()
        case "noise":
            file.write_bytes(b"not an image")
        case "cut":
            file.write_bytes(file.read_bytes()[:300])
        case "grey" | "RGBA" | "P":
            save(file, picture(16, 16), {"grey": "L"}.get(kind, kind))
        case "16 bit grey":
            Image.fromarray(np.full((16, 16), 40000, dtype=np.uint16)).save(file)
        case "16 bit":
            file.write_bytes(png_of_16_bits(16))
        case "tiny":
            save(file, picture(1, 16))
    return folder


def png_of_16_bits(side: int) -> bytes:
    """An RGB image of 16 bits per channel, which PIL reads and does not write."""
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = (b"\0" + bytes(6 * side)) * side
    head = struct.pack(">IIBBBBB", side, side, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("kind", "where", "code", "says"),
    [
        ("empty", "images", "too_few", ".png, .jpg, .jpeg, .bmp"),
        ("noise", "x.png", "unreadable", ""),
        ("cut", "x.png", "unreadable", ""),
        ("grey", "x.png", "unsupported", "mode L"),
        ("RGBA", "x.png", "unsupported", "mode RGBA"),
        ("P", "x.png", "unsupported", "mode P"),
        ("16 bit grey", "x.png", "unsupported", "16"),
        ("16 bit", "x.png", "unsupported", "16"),
        ("tiny", "x.png", "too_few", "16x1"),
    ],
)
def test_what_will_not_do_is_named(tmp_path: Path, kind: str, where: str, code: Code, says: str) -> None:
    folder = broken(tmp_path, kind)
    with user_error(where, code, says=says):
        load_pairs(folder, 2)


def test_grey_images_if_asked_for(tmp_path: Path) -> None:
    pairs = load_pairs(broken(tmp_path, "grey"), 2, grey=True)
    assert torch.equal(pairs[0].high[0], pairs[0].high[2])
    with user_error("x.png", "unsupported", says="16"):
        load_pairs(broken(tmp_path, "16 bit grey"), 2, grey=True)


def test_other_paths_that_will_not_do(tmp_path: Path) -> None:
    with user_error("nowhere", "not_found"):
        load_pairs(tmp_path / "nowhere", 2)
    (tmp_path / "file").write_text("text")
    with user_error("file", "unreadable"):
        load_pairs(tmp_path / "file", 2)
    save(tmp_path / "high" / "a.png", picture(9, 12))
    with user_error("scale", "out_of_range", says="2"):
        load_pairs(tmp_path / "high", 1)


def test_a_damaged_member_of_a_zip_file_is_named(tmp_path: Path) -> None:
    save(tmp_path / "a.png", picture(40, 40))
    with zipfile.ZipFile(tmp_path / "in.zip", "w") as archive:
        archive.write(tmp_path / "a.png", "a.png")
    content = bytearray((tmp_path / "in.zip").read_bytes())
    content[2000] ^= 255
    (tmp_path / "in.zip").write_bytes(content)
    with user_error("in.zip/a.png", "unreadable"):
        load_pairs(tmp_path / "in.zip", 2)


def test_small_images_that_will_not_do(tmp_path: Path) -> None:
    high, low = tmp_path / "high", tmp_path / "low"
    save(high / "a.png", picture(9, 12))
    save(low / "b.png", picture(4, 6))
    with user_error("low", "not_found", says="ax2.png"):
        load_pairs(high, 2, low=low)
    save(low / "ax2.png", picture(5, 6))
    with user_error("ax2.png", "mismatch", says="6x4"):
        load_pairs(high, 2, low=low)
    save(low / "sub" / "ax2.png", picture(4, 6))
    with user_error("low", "conflict", says="ax2"):
        load_pairs(high, 2, low=low)


def test_pairs_are_checked() -> None:
    low = torch.zeros(3, 4, 4, dtype=torch.uint8)
    with pytest.raises(ValueError, match="must be uint8"):
        Pair("a", low.float(), low)
    with pytest.raises(ValueError, match="not a multiple"):
        Pair("a", low, torch.zeros(3, 8, 12, dtype=torch.uint8))
    with pytest.raises(ValueError, match="one scale, not \\[2, 3\\]"):
        Pairs((*numbered(1), *numbered(1, scale=3)), "mixed")
    with pytest.raises(ValueError, match="one scale"):
        Pairs((), "none")


def test_fingerprint_is_of_the_pixels() -> None:
    same, other = numbered(3), numbered(3, side=11)
    assert numbered(3).fingerprint == same.fingerprint != other.fingerprint
    assert same.upscaled_luma().fingerprint != same.fingerprint


def test_split_is_by_seed_and_keeps_all() -> None:
    pairs = numbered(10)
    train, validation = pairs.split(3, seed=1)
    assert sorted([*(p.name for p in train), *(p.name for p in validation)]) == [str(i) for i in range(10)]
    assert len(validation) == 3
    again = pairs.split(3, seed=1)[1]
    assert [p.name for p in again] == [p.name for p in validation]
    assert len({tuple(p.name for p in pairs.split(3, seed=s)[1]) for s in range(10)}) > 1
    for wrong in (0, 10):
        with user_error("data.validation", "out_of_range", says=f"not {wrong}"):
            pairs.split(wrong, seed=0)


@pytest.mark.parametrize("scale", [2, 3])
def test_patches_lie_in_the_same_place(scale: int) -> None:
    pairs = located(20, 30, scale)
    patches = Patches(pairs, 5, 16, generator=torch.Generator().manual_seed(0), per_image=64)
    assert len(patches) == 4
    corners = set()
    for x, y in patches:
        assert x.shape == (16, 3, 5, 5)
        assert y.shape == (16, 3, 5 * scale, 5 * scale)
        assert torch.equal(x.repeat_interleave(scale, 2).repeat_interleave(scale, 3), y)
        rows, columns = ((255 * x[:, channel]).round().long() for channel in (0, 1))
        for row, column in zip(rows, columns, strict=True):
            assert row.max() - row.min() == column.max() - column.min() == 4
            assert len(set(zip(row.flatten().tolist(), column.flatten().tolist(), strict=True))) == 25
            corners.add((int(row.min()), int(column.min())))
    assert {row for row, _ in corners} == set(range(16))  # every one of 16 rows in 64 draws of a fixed seed
    assert len(corners) > 40


def test_all_eight_ways_are_drawn() -> None:
    pairs = located(5, 5, 2)
    [(x, _)] = Patches(pairs, 5, 200, generator=torch.Generator().manual_seed(0), per_image=200)
    assert len({tuple(image.flatten().tolist()) for image in x}) == SYMMETRIES
    [(x, _)] = Patches(pairs, 5, 200, generator=torch.Generator().manual_seed(0), per_image=200, augment=False)
    assert len({tuple(image.flatten().tolist()) for image in x}) == 1


@pytest.mark.parametrize("way", range(SYMMETRIES))
def test_symmetries_are_undone(way: int) -> None:
    image = torch.arange(24).view(1, 4, 6)
    assert torch.equal(undo_symmetry(apply_symmetry(image, way), way), image)


def test_an_epoch_shows_each_image_equally_often() -> None:
    patches = Patches(numbered(5), 4, 2, generator=torch.Generator().manual_seed(0), per_image=2)
    shown = torch.cat([x[:, 0, 0, 0] for x, _ in patches])
    assert sorted((25.5 * shown).round().long().tolist()) == sorted(2 * list(range(5)))
    assert len(Patches(numbered(5), 4, 2, generator=torch.Generator())) == 2  # the fifth fills no batch


def read(patches: Patches) -> list[Tensor]:
    return [tensor for batch in patches for tensor in batch]


def test_an_epoch_is_resumed_exactly() -> None:
    pairs = Pairs(tuple(Pair.degraded(str(i), random_high(i), 2) for i in range(6)), "random")
    generator = torch.Generator().manual_seed(7)
    patches = Patches(pairs, 6, 3, generator=generator, per_image=2)
    first = read(patches)
    state = generator.get_state()
    next(iter(patches))  # a half-read epoch counts as one
    third = read(patches)

    resumed = torch.Generator()
    resumed.set_state(state)
    again = Patches(pairs, 6, 3, generator=resumed, per_image=2)
    second = read(again)
    assert all(torch.equal(a, b) for a, b in zip(read(again), third, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def random_high(seed: int) -> Tensor:
    return torch.from_numpy(picture(20 + seed, 24, seed)).permute(2, 0, 1).contiguous()


def test_patches_that_cannot_be() -> None:
    generator = torch.Generator()
    with user_error("0", "too_few", says="13x13"):
        Patches(numbered(2), 13, 2, generator=generator)
    with user_error("batch_size", "too_few", says="4 patches"):
        Patches(numbered(2), 4, 5, generator=generator, per_image=2)
    with pytest.raises(ValueError, match="positive"):
        Patches(numbered(2), 0, 1, generator=generator)


def test_whole_images_in_their_order() -> None:
    pairs = numbered(3)
    batches = WholeImages(pairs)
    assert len(batches) == 3
    for index, (x, y) in enumerate(batches):
        assert x.shape == (1, 3, 12, 12)
        assert y.shape == (1, 3, 24, 24)
        assert x.unique().tolist() == y.unique().tolist() == [pytest.approx(10 * index / 255)]


def test_upscaled_luma() -> None:
    pair = Pair.degraded("a", random_high(0), 2)
    pairs = Pairs((pair,), "one").upscaled_luma()
    assert (pairs.scale, pairs.channels) == (1, 1)
    assert torch.equal(pairs[0].low, bicubic(pair.low, 20, 24))
    [(x, y)] = WholeImages(pairs)
    assert x.shape == y.shape == (1, 1, 20, 24)
    red, green, blue = pair.high.double()
    expected = (16 + (65.481 * red + 128.553 * green + 24.966 * blue) / 255) / 255
    assert torch.allclose(y[0, 0].double(), expected, atol=1e-6)
    [(x, y)] = Patches(pairs, 6, 3, generator=torch.Generator(), per_image=3)
    assert x.shape == y.shape == (3, 1, 6, 6)


def test_jpeg_is_read(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.fromarray(picture(16, 16)).save(buffer, "JPEG")
    (tmp_path / "a.JPG").write_bytes(buffer.getvalue())
    assert tuple(load_pairs(tmp_path, 4)[0].low.shape) == (3, 4, 4)
