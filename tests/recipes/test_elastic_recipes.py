"""Recipes over elastic spaces: sizes chosen in shared weights, and the controls beside what was chosen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from nas_command import nas_here, stage

from espalier.nas.architecture import Architecture
from espalier.nas.cost.count import CostCounter
from espalier.nas.spaces.vit import ViT
from espalier.recipes.engine.baselines import NEAREST, SameSize, is_elastic, largest
from toy_elastic import ToyElastic

Capture = pytest.CaptureFixture[str]
VIT = {
    "name": "vit",
    "patch": 4,
    "head_size": 4,
    "embeddings": [8, 12],
    "heads": [1, 2],
    "ratios": [1],
    "depths": [1, 2],
}
COMMON: dict[str, Any] = {
    "name": "tiny",
    "data": {
        "source": "digits",
        "limit": 300,
        "split": {"train": 0.4, "architecture": 0.2, "selection": 0.2, "test": 0.2},
    },
    "space": VIT,
    "supernet": {"epochs": 1, "batch_size": 32, "lr": 0.01, "decay": "effective"},
    "train": {"epochs": 1, "batch_size": 32, "predictors": ["params"]},
    "profile": {"threads": 1, "sessions": 2, "seconds": 0.05},
}


def run(capsys: Capture, tmp_path: Path, **sections: Any) -> Path:
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(yaml.safe_dump({**COMMON, **sections}))
    answer = nas_here(capsys, "run", recipe, "-o", tmp_path / "run")
    assert answer.code == 0, answer.err
    return tmp_path / "run"


def test_the_largest_and_one_of_the_same_size_are_trained_beside_the_chosen(capsys: Capture, tmp_path: Path) -> None:
    supernet = {**COMMON["supernet"], "strategy": {"name": "drnas", "cost_weight": 0.5, "alpha_lr": 0.1}}
    folder = run(capsys, tmp_path, supernet=supernet, select={"methods": ["argmax"]})
    networks = stage(folder, "train")["networks"]
    origins = [network["origin"] for network in networks]
    assert origins[0] == "argmax"
    assert "largest" in origins or networks[0]["architecture"]["embedding"] == 12
    assert "same size" in origins
    for network in networks:
        assert (folder / "architectures" / network["id"] / "latency.json").is_file()
    page = (folder / "report.html").read_text()
    assert "a control of the same size" in page
    assert stage(folder, "supernet")["parts"][0]["rows"][0]["expected_macs"] > 0


def test_perturbation_decides_sizes(capsys: Capture, tmp_path: Path) -> None:
    select = {"methods": ["perturbation"], "epochs": 1}
    folder = run(capsys, tmp_path, supernet={**COMMON["supernet"], "strategy": "darts"}, select=select, train=None)
    decided = {decision["choice"] for decision in stage(folder, "select")["decisions"]}
    assert decided == {"embedding", "heads_1", "heads_2", "depth"}  # a ratio has one option


def test_a_sandwich_is_searched_by_inherited_accuracy(capsys: Capture, tmp_path: Path) -> None:
    search = {"objectives": ["accuracy", "params"], "sampler": "random", "trials": 5}
    folder = run(capsys, tmp_path, supernet={**COMMON["supernet"], "strategy": "sandwich"}, search=search, train=None)
    complete = [c for c in stage(folder, "search")["candidates"] if c["status"] == "complete"]
    assert len(complete) == 5


def test_a_limit_on_expected_macs_is_kept(capsys: Capture, tmp_path: Path) -> None:
    strategy = {
        "name": "proxyless",
        "loss": "target",
        "target": 5000.0,
        "alpha_warmup": 0,
        "every": 1,
        "alpha_lr": 0.05,
    }
    supernet = {**COMMON["supernet"], "strategy": strategy, "epochs": 4}
    folder = run(capsys, tmp_path, supernet=supernet, select={"methods": ["argmax"]}, train=None)
    (chosen,) = stage(folder, "select")["chosen"]
    space = ViT((1, 8, 8), 10, **{option: value for option, value in VIT.items() if option != "name"})
    cost = CostCounter(space)
    assert cost(Architecture(chosen["architecture"])).macs <= 5000 < cost(largest(space)).macs


def test_effective_decay_is_refused_where_nothing_is_elastic(capsys: Capture, tmp_path: Path) -> None:
    recipe = tmp_path / "tiny.yaml"
    sections = {**COMMON, "space": "nasbench201", "select": {"methods": ["argmax"]}}
    recipe.write_text(yaml.safe_dump(sections))
    answer = nas_here(capsys, "run", recipe, "-o", tmp_path / "run")
    assert answer.code == 2
    assert answer.err.strip().splitlines()[-1].startswith("error: supernet.decay: ")


def test_controls_are_of_the_size_asked_for() -> None:
    space = ToyElastic()
    assert is_elastic(space)
    assert set(space.gates(largest(space)).values()) <= {1, 2}
    same_size = SameSize(space, torch.Generator().manual_seed(0))
    wanted = space.sample(torch.Generator().manual_seed(5))
    counter = CostCounter(space)
    near = same_size(wanted)
    assert len(near) == NEAREST
    assert counter(near[0]).params == counter(wanted).params  # 500 draws of 144 architectures
