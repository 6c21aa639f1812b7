"""Energy: counters by hand; nothing is made up where there are none."""

from __future__ import annotations

from pathlib import Path

import pytest

from export.devices.agent import energy


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
