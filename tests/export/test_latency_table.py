from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from toy_space import ToyCell, ToySpace

from export.devices.base import MeasureSpec
from export.devices.local import LocalDevice
from export.latency_table import measure_latency_table, operator_key
from export.timing import summarize
from nas.choices import LayerChoice
from nas.cost_table import read_cost_table
from nas.errors import UserError
from nas.measurement import Measurement
from nas.spaces.nasbench201 import NasBench201

SPEC = MeasureSpec(threads=1, sessions=2, seconds=0.01, min_runs=3)
MS = {"Conv": 1.0, "AveragePool": 0.25}
"""What a node costs on the device below; being called costs 0.5."""


class CountingDevice:
    """Needs 0.5 ms for every file, and `MS` for each of its nodes."""

    name = "counting"

    def __init__(self, fail_after: int | None = None, identity: str = "a") -> None:
        self.files = 0
        self.fail_after = fail_after
        self.identity = identity

    def fingerprint(self) -> dict[str, Any]:
        return {"id": self.identity}

    def measure(self, onnx_file: Path, spec: MeasureSpec) -> Measurement:
        if self.files == self.fail_after:
            raise KeyboardInterrupt
        self.files += 1
        nodes = onnx.load(onnx_file).graph.node
        ms = 0.5 + sum(MS.get(node.op_type, 0.0) for node in nodes)
        return Measurement(summarize([[ms], [ms]]), "stable", self.fingerprint())


@pytest.fixture
def space() -> NasBench201:
    torch.manual_seed(0)
    return NasBench201((1, 8, 8), 10, channels=2, cells=2)


def test_times_of_an_additive_device_are_taken_apart(space: NasBench201, tmp_path: Path) -> None:
    device = CountingDevice()
    path = tmp_path / "t" / "table.json"
    table = measure_latency_table(space, device, SPEC, path)
    per_place = {"none": 0.0, "skip_connect": 0.0, "nor_conv_1x1": 1.0, "nor_conv_3x3": 1.0, "avg_pool_3x3": 0.25}
    for row in table.costs.values():
        assert row == pytest.approx({option: 6 * ms for option, ms in per_place.items()})  # six cells
    # The stem, three convolutions and a pool in each of two residual blocks, and the call itself.
    assert table.fixed == pytest.approx(0.5 + 1 + 2 * (3 + 0.25))
    check = table.provenance["check"]
    assert check["table_ms"] == pytest.approx(check["measured_ms"])
    assert table.provenance["verdicts"] == {"stable": device.files}
    assert device.files == 1 + 3 * 3 + 2  # the empty graph, three operators at three shapes, two networks
    assert read_cost_table(path, space) == table
    assert list(path.parent.iterdir()) == [path]


def test_a_killed_measurement_goes_on(space: NasBench201, tmp_path: Path) -> None:
    path = tmp_path / "table.json"
    with pytest.raises(KeyboardInterrupt):
        measure_latency_table(space, CountingDevice(fail_after=5), SPEC, path)
    partial = json.loads((tmp_path / "table.json.partial").read_text())
    assert len(partial["measured"]) == 5
    for device, spec in ((CountingDevice(identity="b"), SPEC), (CountingDevice(), MeasureSpec(threads=2))):
        with pytest.raises(UserError, match=r"table\.json\.partial: was measured on another device"):
            measure_latency_table(space, device, spec, path)
    device = CountingDevice()
    resumed = measure_latency_table(space, device, SPEC, path)
    assert device.files == 12 - 5
    assert resumed == measure_latency_table(space, CountingDevice(), SPEC, tmp_path / "other.json")


def test_equal_operators_have_one_key(space: NasBench201) -> None:
    first, second = (space.get_submodule(f"body.{i}.edges.edge_1_0") for i in (0, 1))
    wider = space.get_submodule("body.3.edges.edge_1_0")
    assert isinstance(first, LayerChoice)
    assert isinstance(second, LayerChoice)
    assert isinstance(wider, LayerChoice)
    conv = operator_key(first.candidates["nor_conv_3x3"], (2, 8, 8))
    assert operator_key(second.candidates["nor_conv_3x3"], (2, 8, 8)) == conv
    others = [
        operator_key(first.candidates["nor_conv_1x1"], (2, 8, 8)),
        operator_key(first.candidates["nor_conv_3x3"], (2, 4, 4)),
        operator_key(wider.candidates["nor_conv_3x3"], (2, 8, 8)),
    ]
    assert len({conv, *others}) == 4


def test_this_machine_gives_a_table_that_fits(tmp_path: Path) -> None:
    torch.manual_seed(0)
    space = ToyCell((1, 64, 64))
    table = measure_latency_table(space, LocalDevice(), SPEC, tmp_path / "table.json")
    assert table.unit == "ms"
    assert all(row["none"] == row["skip"] == 0 < row["conv"] for row in table.costs.values())
    assert table.provenance["environment"]["id"] == LocalDevice().fingerprint()["id"]


def test_a_choice_of_values_has_no_table(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the ValueChoice 'depth' changes them"):
        measure_latency_table(ToySpace(), CountingDevice(), SPEC, tmp_path / "table.json")
