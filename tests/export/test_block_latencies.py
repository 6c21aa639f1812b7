"""Tables of blocks, built and checked on a device whose times are known."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from device_by_layers import CALL_MS, ScriptedDevice, additive_ms, layer_ms, without_exporter

from espalier.export.devices.base import MeasureSpec
from espalier.export.latency_table.build import build_block_table, depends_on_image
from espalier.export.latency_table.check import TableCheck, check_table
from espalier.nas.architecture import Architecture
from espalier.nas.cost.block_table import BlockTable, read_block_table
from espalier.nas.region import Region
from espalier.nas.space import SearchSpace
from espalier.nas.spaces.macro import Macro
from espalier.nas.spaces.mobilenet import MobileNet
from espalier.nas.spaces.mobilenetv3 import MobileNetV3
from espalier.nas.spaces.nasbench201 import NasBench201
from espalier.nas.spaces.vit import ViT
from user_errors import user_error

__all__ = ["without_exporter"]

SPEC = MeasureSpec(threads=1, sessions=2, seconds=0.01, min_runs=2)
SPACES: dict[str, Callable[[], SearchSpace]] = {
    "nasbench201": lambda: NasBench201((1, 8, 8), 10, channels=2, cells=1),
    "mobilenet": lambda: MobileNet((1, 16, 16), 4, widths=(8,) * 9, cells=(2, 1, 1, 1, 1, 1), reductions=2),
    "mobilenetv3": lambda: MobileNetV3(
        (1, 16, 16), 4, widths=(8,) * 9, depths=(1, 2), kernels=(3, 5), expansions=(1, 2), reductions=1
    ),
    "vit": lambda: ViT(
        (1, 8, 8), 4, patch=4, head_size=4, embeddings=(8, 12), heads=(1, 2), ratios=(1.0, 2.0), depths=(1, 2)
    ),
    "macro": lambda: Macro((1, 8, 8), 4, widths=(8,) * 5, cells=(1, 2, 1), reductions=1),
}
pytestmark = pytest.mark.usefixtures("without_exporter")


def made(name: str) -> SearchSpace:
    torch.manual_seed(0)
    return SPACES[name]()


def built(space: SearchSpace, folder: Path, device: ScriptedDevice | None = None) -> BlockTable:
    return build_block_table(space, device or ScriptedDevice(), SPEC, folder / "table.json")


def checked(table: BlockTable, space: SearchSpace, folder: Path, device: ScriptedDevice, **options: bool) -> TableCheck:
    return check_table(table, space, device, SPEC, folder / "partial", held_out=8, calibration=6, **options)


@pytest.mark.parametrize("name", SPACES)
def test_times_that_add_up_are_taken_apart_exactly(name: str, tmp_path: Path) -> None:
    """Every network costs what the device needs for it, though blocks were timed between others; scales are 1."""
    space = made(name)
    device = ScriptedDevice(speed=lambda call: 1 + call % 2 / 5)  # in turns with a reference, it does not matter
    table = built(space, tmp_path, device)
    assert [path.name for path in tmp_path.iterdir()] == ["table.json"]
    assert read_block_table(tmp_path / "table.json", space) == table
    found = checked(table, space, tmp_path, ScriptedDevice(speed=lambda call: 1.1))
    assert found.before.within_5.value == 1
    assert found.before.tau.value == pytest.approx(1)
    assert (found.before.median.value, found.after.median.value) == pytest.approx((0, 0), abs=1e-9)
    calibration = found.calibrated.calibration
    assert calibration is not None
    assert calibration.fixed == pytest.approx(table.fixed)
    region = Region.whole(space)
    scales = [calibration.scales[f] for f, costs in table.sums_by_family(space).items() if costs.most_expensive(region)]
    assert scales == pytest.approx([1.0] * len(scales))


def test_a_block_costs_the_sum_of_its_layers(tmp_path: Path) -> None:
    """Of a block of MobileNet: 1x1 from 8 to 24, depthwise 3x3 of 24, 1x1 from 24 to 8, by the rule of the device."""
    table = built(made("mobilenet"), tmp_path)
    per_layer = [layer_ms(kind) for kind in ("Conv2d 8 24 1", "Conv2d 1 24 3", "Conv2d 24 8 1")]
    kept = [entry for key, entry in table.entries.items() if key.startswith("k3e3 8x8x8 8x8x8")]
    assert [entry.ms for entry in kept] == pytest.approx([sum(per_layer)])
    assert kept[0].ci95 == pytest.approx((sum(per_layer), sum(per_layer)))
    assert (kept[0].count, kept[0].verdict, kept[0].family) == (4, "stable", "k3e3")
    # The stem, the fixed block (depthwise and 1x1), the last convolution, the classifier and the call.
    rest = ("Conv2d 1 8 3", "Conv2d 1 8 3", "Conv2d 8 8 1", "Conv2d 8 8 1", "Linear 8 4")
    assert table.fixed == pytest.approx(CALL_MS + sum(map(layer_ms, rest)))
    assert table.device["id"] == "a"
    assert table.spec["threads"] == 1


def test_calibration_undoes_a_known_distortion(tmp_path: Path) -> None:
    """In networks every 3x3 convolution takes twice as long as between neighbours, and each call 2 ms more."""

    def distorted(layers: Mapping[str, int]) -> float:
        return 2 + additive_ms(layers, lambda kind: layer_ms(kind) * (2 if kind.endswith(" 3") else 1))

    space = made("mobilenet")
    table = built(space, tmp_path)
    device = ScriptedDevice(distorted, identity="b")
    partial = tmp_path / "partial"
    found = check_table(table, space, device, SPEC, partial, held_out=8, calibration=16, any_device=True)
    assert found.before.bias.value < -0.1
    assert found.after.median.value < 0.025
    assert found.after.tau.value > found.before.tau.value
    calibration = found.calibrated.calibration
    assert calibration is not None
    assert calibration.fixed > table.fixed


def test_a_common_factor_needs_no_families(tmp_path: Path) -> None:
    """A device that takes 3 + 2 t where the table's took t."""
    space = made("vit")
    table = built(space, tmp_path)
    device = ScriptedDevice(lambda layers: 3 + 2 * additive_ms(layers), identity="b")
    found = checked(table, space, tmp_path, device, any_device=True)
    calibration = found.calibrated.calibration
    assert calibration is not None
    assert found.after.median.value == pytest.approx(0, abs=1e-9)
    assert calibration.fixed == pytest.approx(3 + 2 * table.fixed)
    assert list(calibration.scales.values()) == pytest.approx([2.0] * len(calibration.scales))


def test_a_killed_measurement_goes_on(tmp_path: Path) -> None:
    space = made("vit")
    with pytest.raises(KeyboardInterrupt):
        built(space, tmp_path, ScriptedDevice(fail_after=5))
    partial = tmp_path / "table.json.partial"
    assert len(json.loads(partial.read_text())["measured"]) == 5
    assert [path.name for path in tmp_path.iterdir()] == ["table.json.partial"]
    with user_error("table.json.partial", "mismatch"):
        built(space, tmp_path, ScriptedDevice(identity="b"))
    with user_error("table.json.partial", "mismatch"):
        build_block_table(space, ScriptedDevice(), dataclasses.replace(SPEC, threads=2), tmp_path / "table.json")
    with user_error("table.json.partial", "mismatch"):
        built(made("macro"), tmp_path)
    device = ScriptedDevice()
    resumed = built(space, tmp_path, device)
    whole = ScriptedDevice()
    (tmp_path / "other").mkdir()
    assert resumed == built(space, tmp_path / "other", whole)
    assert device.calls == whole.calls - 5


@pytest.mark.parametrize(("slow", "again"), [((3,), 1), ((3, 4, 5), 3)])
def test_what_was_timed_in_a_slow_moment_is_timed_again(slow: tuple[int, ...], again: int, tmp_path: Path) -> None:
    """At once, up to three times; where all three were slow, once more at the end. Shares of the reference are off
    here by what the machine did in between.
    """
    space = made("macro")
    device = ScriptedDevice(
        lambda layers: additive_ms(layers) + (1 if device.calls in slow else 0),
        speed=lambda call: 1 / 3 if call in slow else 1.0,
    )
    quiet = ScriptedDevice()
    (tmp_path / "other").mkdir()
    assert built(space, tmp_path, device) == built(space, tmp_path / "other", quiet)
    assert device.calls == quiet.calls + again


def test_a_table_of_something_else_is_refused(tmp_path: Path) -> None:
    space = made("macro")
    table = built(space, tmp_path)
    with user_error("device", "mismatch", says="a (by rule, None)"):
        checked(table, space, tmp_path, ScriptedDevice(identity="b"))
    assert checked(table, space, tmp_path, ScriptedDevice(identity="b"), any_device=True).before.within_5.value == 1
    for options, where in (({"threads": 2}, "threads"), ({"batch": 8}, "batch")):
        with user_error(where, "mismatch"):
            check_table(table, space, ScriptedDevice(), dataclasses.replace(SPEC, **options), tmp_path / "partial")
    with user_error("networks", "too_few", says="1000"):
        check_table(table, space, ScriptedDevice(), SPEC, tmp_path / "partial", held_out=900, calibration=100)
    with user_error("calibrate", "too_few", says="5"):
        check_table(table, space, ScriptedDevice(), SPEC, tmp_path / "p", held_out=3, calibration=2)


def test_networks_that_ignore_their_image_are_not_measured() -> None:
    """A cell of `none` alone gives zeros whatever the image, and so does one with operators on zeros only."""
    space = made("nasbench201")
    nothing = {name: "none" for name in space.choices()}
    on_zeros = {**nothing, "edge_3_1": "nor_conv_3x3"}
    for options, looks in ((nothing, False), (on_zeros, False), ({**nothing, "edge_3_0": "skip_connect"}, True)):
        assert depends_on_image(space.build(Architecture(options))) == looks
