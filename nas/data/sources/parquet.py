"""Parquet files in the Hugging Face layout: encoded images in one column, integer labels in another."""

from __future__ import annotations

import bisect
import itertools
import json
from pathlib import Path
from typing import Any

import torch

from espalier.nas.data.balance import Limit
from espalier.nas.data.images import Images
from espalier.nas.data.sources.decode import Encoded, decode
from espalier.nas.data.sources.fit import check_labels
from espalier.nas.errors import UserError


def load(path: Path | None, test_path: Path | None, size: int | None, limit: Limit) -> tuple[Images, Images | None]:
    """Images of the column `image` (a struct with `bytes`, or plain binary) and the integer column `label`.

    Class names come from the schema metadata (`huggingface`: features, label, names), else are "0", "1", ...

    Args:
        path: a file, or a folder. In a folder, the `train*.parquet` shards are read (if there are none, all
            but the test shards), and the `test*.parquet` or else `validation*.parquet` shards as test images.
        test_path: a file with the test images, or a folder whose test shards (if there are none, all shards) are read.
        size: see `espalier.nas.data.load`.
        limit: see `espalier.nas.data.load`.
    """
    assert path is not None
    held_back = _held_back(path)
    train = _shards(path, "train*.parquet") or [f for f in _shards(path, "*.parquet") if f not in held_back]
    if test_path is not None:
        held_back = _held_back(test_path) or _shards(test_path, "*.parquet")
    for root, files in ((path, train), (test_path, held_back)):
        if root is not None and not files:
            raise UserError(str(root), "contains no .parquet files to read", code="not_found")
    sets = [_encoded(files, path.resolve().stem) for files in (train, held_back) if files]
    pool, *rest = decode(sets, size, limit)
    return pool, rest[0] if rest else None


def _shards(path: Path, pattern: str) -> list[Path]:
    return sorted(path.glob(pattern)) if path.is_dir() else [path]


def _held_back(path: Path) -> list[Path]:
    if not path.is_dir():
        return []
    return _shards(path, "test*.parquet") or _shards(path, "validation*.parquet")


def _encoded(files: list[Path], name: str) -> Encoded:
    columns, labels, classes = [], [], None
    for file in files:
        images, some_labels, some_classes = _read(file)
        classes = classes or some_classes
        columns.append(images)
        labels.append(some_labels)
    every_label = torch.cat(labels)
    names = check_labels(str(files[0] if len(files) == 1 else files[0].parent), every_label, classes)
    starts = [0, *itertools.accumulate(len(column) for column in columns)]

    def place(row: int) -> tuple[int, int]:
        shard = bisect.bisect_right(starts, row) - 1
        return shard, row - starts[shard]

    def where(row: int) -> str:
        shard, at = place(row)
        return f"{files[shard]}: row {at}"

    def read(row: int) -> bytes:
        shard, at = place(row)
        content: bytes | None = columns[shard][at].as_py()
        if content is None:
            raise UserError(where(row), "has no embedded image bytes", code="missing")
        return content

    return Encoded(name, every_label, names, read, where)


def _read(file: Path) -> tuple[Any, torch.Tensor, tuple[str, ...] | None]:
    """The column of encoded images, the labels, and the class names if the metadata has them."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    try:
        schema = pq.read_schema(file)
        for column in ("image", "label"):
            if column not in schema.names:
                raise UserError(
                    str(file), f"has no column {column!r}; its columns: {', '.join(schema.names)}", code="missing"
                )
        table = pq.read_table(file, columns=["image", "label"])
    except (pa.ArrowException, OSError) as error:
        raise UserError(str(file), f"cannot be read as parquet ({error})", code="unreadable") from error
    images, labels = table["image"], table["label"]
    if pa.types.is_struct(images.type) and images.type.get_field_index("bytes") >= 0:
        images = pc.struct_field(images, "bytes")
    if not (pa.types.is_binary(images.type) or pa.types.is_large_binary(images.type)):
        raise UserError(
            str(file), f"column 'image' must contain encoded images as bytes, not {images.type}", code="unsupported"
        )
    if not pa.types.is_integer(labels.type) or labels.null_count:
        raise UserError(
            str(file),
            f"column 'label' must contain integers without nulls, not {labels.type} with {labels.null_count} nulls",
            code="unsupported",
        )
    return images, torch.from_numpy(labels.to_numpy().astype(np.int64)), _class_names(file, schema.metadata)


def _class_names(file: Path, metadata: dict[bytes, bytes] | None) -> tuple[str, ...] | None:
    content = (metadata or {}).get(b"huggingface")
    if content is None:
        return None
    try:
        names = json.loads(content)["info"]["features"]["label"].get("names")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            str(file), f"its 'huggingface' metadata has no feature 'label' ({error!r})", code="unreadable"
        ) from error
    return tuple(str(name) for name in names) if names else None
