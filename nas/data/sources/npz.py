"""NumPy archives of arrays, such as those of Keras."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from espalier.nas.data.balance import Limit
from espalier.nas.data.images import Images
from espalier.nas.data.sources.fit import check_labels, require_memory, resize
from espalier.nas.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

TRAIN_KEYS = (("x_train", "y_train"), ("images", "labels"))
TEST_KEYS = (("x_test", "y_test"), ("test_images", "test_labels"))


def load(path: Path | None, test_path: Path | None, size: int | None, limit: Limit) -> tuple[Images, Images | None]:
    """Arrays x_train, y_train and optionally x_test, y_test; or images, labels, test_images, test_labels.

    Images are uint8 (N, H, W), (N, H, W, C) or (N, C, H, W) with C = 1 or 3; if both ends could be the channels, the
    last one is. Labels are integers (N,) or (N, 1). Classes are named "0", "1", ...

    Args:
        path: the .npz file.
        test_path: another archive with the test images, under either pair of names.
        size: see `espalier.nas.data.load`.
        limit: see `espalier.nas.data.load`.
    """
    assert path is not None
    pool = _read(path, TRAIN_KEYS, size, limit, path.stem)
    if pool is None:
        raise UserError(str(path), f"does not contain the arrays {_names(TRAIN_KEYS)}", code="missing")
    if test_path is None:
        return pool, _read(path, TEST_KEYS, size, limit, path.stem)
    test = _read(test_path, TEST_KEYS + TRAIN_KEYS, size, limit, path.stem)
    if test is None:
        raise UserError(str(test_path), f"does not contain the arrays {_names(TEST_KEYS + TRAIN_KEYS)}", code="missing")
    return pool, test


def _read(file: Path, keys: tuple[tuple[str, str], ...], size: int | None, limit: Limit, name: str) -> Images | None:
    """The first pair of arrays that the file has."""
    import numpy as np

    try:
        with zipfile.ZipFile(file) as zipped:
            member_bytes = {member.filename: member.file_size for member in zipped.infolist()}
        pair = next((pair for pair in keys if all(f"{key}.npy" in member_bytes for key in pair)), None)
        if pair is None:
            return None
        require_memory(member_bytes[f"{pair[0]}.npy"], f"the array {pair[0]} needs")
        with np.load(file, allow_pickle=False) as archive:
            pixels, labels = archive[pair[0]], archive[pair[1]]
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(str(file), f"cannot be read as an .npz archive ({error})", code="unreadable") from error
    if pixels.dtype != np.uint8:
        raise UserError(f"{file}: {pair[0]}", f"must be uint8 (0 to 255), not {pixels.dtype}", code="unsupported")
    if labels.dtype.kind not in "iu" or labels.shape not in (pixels.shape[:1], (*pixels.shape[:1], 1)):
        raise UserError(
            f"{file}: {pair[1]}", f"must be one integer for each image, not {labels.dtype} of shape {labels.shape}"
        )
    target = torch.from_numpy(labels.reshape(-1).astype(np.int64))
    classes = check_labels(f"{file}: {pair[1]}", target, None)
    rows = limit.rows(target, classes)
    kept = _channels_first(f"{file}: {pair[0]}", pixels)[rows]
    return Images(resize(kept, size), target[rows], classes, name)


def _channels_first(where: str, pixels: NDArray[np.uint8]) -> Tensor:
    tensor = torch.from_numpy(pixels)
    if tensor.ndim == 3:
        return tensor[:, None]
    if tensor.ndim == 4 and tensor.shape[3] in (1, 3):
        return tensor.permute(0, 3, 1, 2).contiguous()
    if tensor.ndim == 4 and tensor.shape[1] in (1, 3):
        return tensor
    raise UserError(
        where,
        f"must be (N, H, W), (N, H, W, C) or (N, C, H, W) with 1 or 3 channels, not {tuple(tensor.shape)}",
        code="unsupported",
    )


def _names(keys: tuple[tuple[str, str], ...]) -> str:
    return " or ".join(f"{images} and {labels}" for images, labels in keys)
