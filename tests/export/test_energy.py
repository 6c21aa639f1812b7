"""Energy: counters by hand; nothing is made up where there are none."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
from scripted_agent import ScriptedAgent, a_round

from espalier.export.devices.agent import energy
from espalier.export.devices.agent_device import AgentDevice
from espalier.export.devices.base import MeasureSpec


def domain(folder: Path, name: str, label: str, microjoules: int) -> None:
    (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / name / "name").write_text(label)
    (folder / name / "energy_uj").write_text(str(microjoules))
    (folder / name / "max_energy_range_uj").write_text("10000000")


def test_packages_are_added_up_and_may_begin_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(energy, "_POWERCAP", tmp_path)
    domain(tmp_path, "intel-rapl:0", "package-0", 9_000_000)
    domain(tmp_path, "intel-rapl:1", "package-1", 1_000_000)
    domain(tmp_path, "intel-rapl:0:0", "core", 5_000_000)  # a part of package 0
    before = energy.read("CPUExecutionProvider")
    domain(tmp_path, "intel-rapl:0", "package-0", 1_500_000)  # over 10 J it began at 0 again
    domain(tmp_path, "intel-rapl:1", "package-1", 4_000_000)
    assert energy.since(before, energy.read("CPUExecutionProvider")) == pytest.approx(2.5 + 3.0)
    assert energy.source("CPUExecutionProvider") == "rapl"


@pytest.mark.parametrize("provider", ["CPUExecutionProvider", "CUDAExecutionProvider"])
def test_nothing_is_known_where_nothing_counts(provider: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(energy, "_POWERCAP", tmp_path)
    monkeypatch.setattr(energy, "_NVML", "libno-such-thing.so")
    reading = energy.read(provider)
    assert reading == {}
    assert energy.since(reading, reading) is None


@pytest.mark.parametrize(
    ("joules", "per_run", "source"),
    [([3.0, 5.0], 1.0, "rapl"), ([3.0, None], None, None), ([None, None], None, None)],
)
def test_energy_is_told_for_each_run(
    joules: list[float | None], per_run: float | None, source: str | None, tmp_path: Path
) -> None:
    (tmp_path / "m.onnx").touch()
    agent = ScriptedAgent([{"id": "scripted"}, *map(a_round, joules)])
    device = AgentDevice("scripted", lambda: cast(Any, agent), reads_here=True)
    environment = device.measure(tmp_path / "m.onnx", MeasureSpec(sessions=2)).environment
    assert (environment["energy_j_per_run"], environment["energy_source"]) == (per_run, source)
    # Where files take turns, nobody knows which of them has taken it.
    answers = [a_round(one) for one in joules]
    for answer in answers:
        answer["files"] *= 2
    agent = ScriptedAgent([{"id": "scripted"}, *answers])
    device = AgentDevice("scripted", lambda: cast(Any, agent), reads_here=True)
    both = device.measure_together([tmp_path / "m.onnx"] * 2, MeasureSpec(sessions=2))
    assert [one.environment["energy_j_per_run"] for one in both] == [None, None]
