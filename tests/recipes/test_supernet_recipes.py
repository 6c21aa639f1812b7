"""Recipes in which the supernet itself says what is good: one way from data to checked, timed networks each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from nas_command import kill_when, leftovers, log, losses, nas, nas_here, stage

Capture = pytest.CaptureFixture[str]

CELL = {"name": "nasbench201", "channels": 2, "cells": 1}
COMMON: dict[str, Any] = {
    "name": "tiny",
    "data": {
        "source": "digits",
        "limit": 400,
        "split": {"train": 0.4, "architecture": 0.2, "selection": 0.2, "test": 0.2},
    },
    "space": CELL,
    "supernet": {"epochs": 2, "batch_size": 64, "lr": 0.05, "strategy": "darts"},
    "select": {"methods": ["argmax", "perturbation"], "epochs": 1},
    "train": {"epochs": 1, "batch_size": 64, "predictors": ["params", "inherited"]},
    "profile": {"threads": 1, "sessions": 2, "seconds": 0.05},
}
FEW_SHOT = {"split_epochs": [1, 2], "branches": [2, 2], "leaf_epochs": 1, "repeats": 8}


def write(path: Path, **sections: Any) -> Path:
    """The common recipe with some of its sections changed."""
    path.write_text(yaml.safe_dump({**COMMON, **sections}))
    return path


def run(capsys: Capture, tmp_path: Path, **sections: Any) -> Path:
    recipe = write(tmp_path / "tiny.yaml", **sections)
    answer = nas_here(capsys, "run", recipe, "-o", tmp_path / "run")
    assert answer.code == 0, answer.err
    return tmp_path / "run"


def test_magnitude_and_perturbation_choose_from_one_supernet(capsys: Capture, tmp_path: Path) -> None:
    folder = run(capsys, tmp_path)
    chosen = {one["method"]: one for one in stage(folder, "select")["chosen"]}
    assert set(chosen) == {"argmax", "perturbation"}
    assert {d["choice"] for d in stage(folder, "select")["decisions"]} == {
        "edge_1_0",
        "edge_2_0",
        "edge_2_1",
        "edge_3_0",
        "edge_3_1",
        "edge_3_2",
    }
    networks = stage(folder, "train")["networks"]
    assert {network["id"] for network in networks} == {one["id"] for one in chosen.values()}
    for network in networks:
        assert (folder / "architectures" / network["id"] / "latency.json").is_file()
    assert (folder / "report.html").is_file()
    assert [row["entropy"] < 1 for row in stage(folder, "supernet")["parts"][0]["rows"]] == [True, True]
    assert len(log(folder, "select")) == 5  # an epoch between two visits


def test_a_divided_space_gives_the_best_of_its_leaves(capsys: Capture, tmp_path: Path) -> None:
    supernet = {"batch_size": 64, "lr": 0.05, "strategy": "gdas", "few_shot": FEW_SHOT}
    folder = run(capsys, tmp_path, supernet=supernet, select={"methods": ["argmax"]})
    trained = stage(folder, "supernet")
    assert [part["name"] for part in trained["parts"]] == ["root.0.0", "root.0.1", "root.1.0", "root.1.1"]
    assert set(trained["splits"]) == {"root", "root.0", "root.1"}
    selected = stage(folder, "select")
    assert len(selected["candidates"]) == 4
    (best,) = selected["chosen"]
    assert best["accuracy"] == max(candidate["accuracy"] for candidate in selected["candidates"])
    assert leftovers(folder) == []
    assert not list((folder / "checkpoints").glob("supernet-*/"))


def test_a_search_inherits_from_the_leaf_that_holds_the_architecture(capsys: Capture, tmp_path: Path) -> None:
    supernet = {"batch_size": 64, "lr": 0.05, "strategy": "spos", "few_shot": {**FEW_SHOT, "split": "random"}}
    search = {"objectives": ["accuracy", "params"], "sampler": "random", "trials": 6}
    folder = run(capsys, tmp_path, supernet=supernet, select=None, search=search, train=None)
    assert [c["status"] for c in stage(folder, "search")["candidates"]] == ["complete"] * 6


@pytest.mark.parametrize("strategy", ["drnas", "fixed_alpha", "spos", {"name": "darts", "order": 2, "gate": "sigmoid"}])
def test_perturbation_selects_from_every_strategy(capsys: Capture, tmp_path: Path, strategy: Any) -> None:
    supernet = {**COMMON["supernet"], "strategy": strategy, "epochs": 1}
    folder = run(capsys, tmp_path, supernet=supernet, select={"methods": ["perturbation"], "epochs": 1}, train=None)
    assert len(stage(folder, "select")["chosen"]) == 1


def test_cells_with_dropped_edges_go_all_the_way(capsys: Capture, tmp_path: Path) -> None:
    folder = run(
        capsys,
        tmp_path,
        space={"name": "darts", "variant": "S3", "channels": 4, "cells": 3},
        supernet={**COMMON["supernet"], "epochs": 1},
        data={**COMMON["data"], "limit": 200},
    )
    decisions = stage(folder, "select")["decisions"]
    assert len(decisions) == 28 + 6
    assert sum("node" in decision["choice"] for decision in decisions[-6:]) == 6
    for network in stage(folder, "train")["networks"]:
        assert (folder / "architectures" / network["id"] / "model.onnx").is_file()


def test_noise_is_the_recipes_own(capsys: Capture, tmp_path: Path) -> None:
    """S4 offers noise as an operation: one recipe finds one thing."""
    found = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        folder = run(
            capsys,
            tmp_path / name,
            space={"name": "darts", "variant": "S4", "channels": 4, "cells": 3},
            supernet={**COMMON["supernet"], "epochs": 1},
            data={**COMMON["data"], "limit": 200},
            select={"methods": ["argmax"]},
            train=None,
        )
        found.append((losses(folder), stage(folder, "select")))
    assert found[0] == found[1]


def test_random_divisions_follow_the_seed(capsys: Capture, tmp_path: Path) -> None:
    supernet = {"batch_size": 64, "lr": 0.05, "strategy": "spos", "few_shot": {**FEW_SHOT, "split": "random"}}
    divisions = set()
    for seed in range(3):
        (tmp_path / str(seed)).mkdir()
        search = {"objectives": ["params"], "sampler": "random", "trials": 1}
        parts = {"supernet": supernet, "search": search, "select": None, "train": None}
        folder = run(capsys, tmp_path / str(seed), seed=seed, **parts)
        split = stage(folder, "supernet")["splits"]["root"]
        divisions.add((split["choice"], str(split["groups"])))
    assert len(divisions) > 1


def test_architecture_parameters_go_on_learning_between_decisions(capsys: Capture, tmp_path: Path) -> None:
    """A warm-up that the supernet's training has behind it does not begin again."""
    strategy = {"name": "darts", "alpha_warmup": 2, "alpha_lr": 0.1}
    supernet = {**COMMON["supernet"], "strategy": strategy, "epochs": 3}
    folder = run(capsys, tmp_path, supernet=supernet, select={"methods": ["perturbation"], "epochs": 1}, train=None)
    entropies = [row["entropy"] for row in log(folder, "select") if "entropy" in row]
    assert len(set(entropies)) == len(entropies) > 1


@pytest.mark.slow
def test_killed_between_two_decisions_it_decides_the_same(tmp_path: Path) -> None:
    recipe = write(tmp_path / "tiny.yaml", select={"methods": ["perturbation"], "epochs": 1}, train=None)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert nas("run", recipe, "-o", whole, cwd=tmp_path).code == 0
    kill_when(lambda folder: len(log(folder, "select")) >= 3, killed, recipe)
    answer = nas("run", recipe, "-o", killed, "--resume", cwd=tmp_path)
    assert answer.code == 0, answer.err
    assert stage(killed, "select") == stage(whole, "select")
    assert losses(killed) == losses(whole)


@pytest.mark.slow
def test_killed_in_a_tree_of_supernets_it_grows_the_same(tmp_path: Path) -> None:
    supernet = {"batch_size": 64, "lr": 0.05, "strategy": "darts", "few_shot": FEW_SHOT}
    recipe = write(tmp_path / "tiny.yaml", supernet=supernet, select={"methods": ["argmax"]}, train=None)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert nas("run", recipe, "-o", whole, cwd=tmp_path).code == 0
    kill_when(lambda folder: len(log(folder, "supernet")) >= 4, killed, recipe)
    assert nas("run", recipe, "-o", killed, "--resume", cwd=tmp_path).code == 0
    assert stage(killed, "supernet")["splits"] == stage(whole, "supernet")["splits"]
    assert stage(killed, "select") == stage(whole, "select")
