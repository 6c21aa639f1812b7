"""Records of stages: what a run folder keeps is what the stage returned."""

from __future__ import annotations

from pathlib import Path

import pytest
from run_folder import ALL_STAGES, build_run, few_shot, make_outputs

from espalier.nas.architecture import Architecture
from espalier.nas.run import RunFolder
from espalier.recipes.records.stages import Stages, finished_stage, read_stages, stage_keys, write_stage
from espalier.recipes.records.supernet import SupernetEpoch, SupernetResult
from user_errors import user_error


@pytest.fixture
def stages(tmp_path: Path) -> Stages:
    return read_stages(build_run(tmp_path / "first"))


@pytest.mark.parametrize("name", ALL_STAGES)
def test_what_is_written_is_read_again(stages: Stages, tmp_path: Path, name: str) -> None:
    run, result = RunFolder(tmp_path / "second"), getattr(stages, name)
    write_stage(run, name, "key", result)
    assert finished_stage(run, name, "key") == result
    assert finished_stage(run, name, "another key") is None
    assert stage_keys(run.path) == {name: "key"}


def test_architectures_stay_architectures(stages: Stages) -> None:
    assert stages.search is not None
    front = stages.search.front_architectures
    assert all(isinstance(architecture, Architecture) for architecture in front)
    assert [architecture.id for architecture in front] == list(stages.search.front)


def test_an_id_is_that_of_the_architecture(tmp_path: Path) -> None:
    folder = build_run(tmp_path)
    outputs = make_outputs()["train"]
    outputs["networks"][0]["id"] = "another"
    RunFolder(folder).finish("train", "key", outputs)
    assert read_stages(folder).networks[0].id == read_stages(folder).networks[0].architecture.id != "another"


def test_quantities_of_a_strategy_are_kept() -> None:
    """Expected costs are read by unit; what is not known is not written."""
    row = SupernetEpoch.model_validate({"epoch": 1, "loss": 0.5, "entropy": None, "expected_ms": 2.0, "chosen_ms": 3.0})
    assert row.expected == {"ms": 2.0}
    assert row.model_dump(mode="json") == {"epoch": 1, "loss": 0.5, "expected_ms": 2.0, "chosen_ms": 3.0}


def test_a_divided_space_is_read() -> None:
    result = SupernetResult.model_validate(few_shot())
    assert result.names == ("root.0", "root.1")
    assert result.splits["root"].groups == ((0, 2), (1, 3, 4))


@pytest.mark.parametrize(
    ("damage", "key"),
    [
        ({"networks": "none"}, "outputs.networks"),
        ({"networks": [{"architecture": 3}]}, "outputs.networks.0.architecture"),
        ({"networks": [{"architecture": {"edge": None}}]}, "outputs.networks.0.architecture"),
    ],
)
def test_damage_is_named_by_its_key(tmp_path: Path, damage: object, key: str) -> None:
    RunFolder(tmp_path).finish("train", "key", damage)
    with user_error("stages/train.json", "unreadable", says=key):
        read_stages(tmp_path)
