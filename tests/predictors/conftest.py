"""A small space and a small batch for every predictor; real images and tables where they are."""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from espalier.nas.spaces.nasbench201 import NasBench201

Batch = tuple[Tensor, Tensor]
Rows = list[dict[str, str]]

NO_CELL = "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|"


@pytest.fixture(scope="session")
def small_space() -> NasBench201:
    return NasBench201((1, 8, 8), 10, channels=4, cells=1)


@pytest.fixture(scope="session")
def grey_batch() -> Batch:
    generator = torch.Generator().manual_seed(7)
    return torch.randn(24, 1, 8, 8, generator=generator), torch.arange(24) % 10


@pytest.fixture(scope="session")
def cifar_batch(shared_data: Path) -> Callable[[int], Batch]:
    """The first n training images of CIFAR-10, normalised, with their labels."""

    def first(n: int) -> Batch:
        import numpy as np
        import pyarrow.parquet as pq
        from PIL import Image

        rows = next(pq.ParquetFile(shared_data / "cifar10" / "train.parquet").iter_batches(n)).to_pylist()
        images = np.stack([np.asarray(Image.open(io.BytesIO(row["image"]["bytes"])).convert("RGB")) for row in rows])
        x = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
        mean, std = torch.tensor([0.4914, 0.4822, 0.4465]), torch.tensor([0.2470, 0.2435, 0.2616])
        x = (x - mean[:, None, None]) / std[:, None, None]
        return x.contiguous(), torch.tensor([row["label"] for row in rows])

    return first


@pytest.fixture(scope="session")
def benchmark_cells(shared_data: Path) -> Rows:
    """The rows of the NAS-Bench-201 table; row i has index i."""
    return read_table(shared_data / "nasbench201_cifar10.csv.gz")


@pytest.fixture(scope="session")
def published_scores(shared_data: Path) -> Rows:
    return read_table(shared_data / "nasbench201_proxies_cifar10.csv.gz")


def read_table(path: Path) -> Rows:
    with gzip.open(path, "rt", newline="") as file:
        return list(csv.DictReader(file))
