"""A small real network and its slow dynamo export, made once."""

from __future__ import annotations

from pathlib import Path

import pytest
from board import board, running_board  # noqa: F401 - fixtures
from small_networks import SHAPE, small_network
from torch import fx

from espalier.export.onnx import Exported, export_onnx


@pytest.fixture
def network() -> fx.GraphModule:
    return small_network()


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """`small_network()` through the dynamo exporter, read only."""
    return export_onnx(small_network(), SHAPE, tmp_path_factory.mktemp("onnx") / "model.onnx")


@pytest.fixture(scope="session")
def onnx_file(exported: Exported) -> Path:
    return exported.path
