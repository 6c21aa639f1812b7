"""Methods of the user's, named by `FILE.py:NAME`, `package.module:NAME` or an entry point, through the command line."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from nas_command import nas_here, refusal, stage
from own_methods import OWN

from espalier.nas.data import Images
from espalier.nas.errors import UserError
from espalier.recipes.config import registry, roles
from espalier.recipes.config.loading import dump_recipe, recipe_from
from espalier.recipes.config.own_code import own_code

Capture = pytest.CaptureFixture[str]
RECIPE: dict[str, Any] = {
    "name": "own",
    "data": {
        "source": {"name": "own.py:stripes", "count": 200},
        "split": {"train": 0.5, "architecture": 0.1, "selection": 0.2, "test": 0.2},
    },
    "space": {"name": "own.py:Chain", "channels": 4},
    "supernet": {"epochs": 1, "batch_size": 50, "strategy": "own.py:Uniform"},
    "search": {
        "objectives": ["accuracy", "own.py:Size:power=0.5"],
        "constraints": ["own.py:Depth <= 2"],
        "sampler": {"name": "optuna.samplers:QMCSampler", "scramble": True},
        "trials": 3,
    },
    "train": {
        "front": 1,
        "random": 0,
        "epochs": 1,
        "batch_size": 50,
        "predictors": ["own.py:Size", "own.py:Size+snip"],
    },
    "profile": {"device": "own.py:Board:slot=2", "threads": 1, "sessions": 2, "seconds": 0.05},
}
PLAIN: dict[str, Any] = {
    "name": "plain",
    "data": {
        "source": "digits",
        "limit": 200,
        "split": {"train": 0.5, "architecture": 0.1, "selection": 0.2, "test": 0.2},
    },
    "space": {"name": "nasbench201", "channels": 2, "cells": 1},
    "supernet": {"epochs": 1},
    "search": {"objectives": ["macs"], "trials": 1},
}
ROLES = {
    "space": ("Chain", "depht", "depth"),
    "supernet.strategy": ("Uniform", "repeat", "repeats"),
    "search.sampler": ("Sampler", "tries", None),
    "data.source": ("stripes", "cont", "count"),
}
"""By the key in a recipe: an own method, an option that it does not have, and the nearest one that it has."""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with a user's file of methods and a recipe of the platform's own."""
    monkeypatch.chdir(tmp_path)
    sampler = "from optuna.samplers import RandomSampler\nclass Sampler(RandomSampler):\n"
    sampler += "    def __init__(self, *, seed: int, tries: int = 1):\n        super().__init__(seed)\n"
    (tmp_path / "own.py").write_text(OWN + sampler)
    (tmp_path / "broken.py").write_text("\n1 / 0\n")
    (tmp_path / "plain.yaml").write_text(yaml.safe_dump(PLAIN))
    return tmp_path


@pytest.mark.filterwarnings("ignore:QMCSampler is experimental")
def test_a_run_of_own_methods_alone(capsys: Capture, here: Path) -> None:
    (here / "own.yaml").write_text(yaml.safe_dump(RECIPE))
    assert nas_here(capsys, "run", "own.yaml", "--dry-run").code == 0
    answer = nas_here(capsys, "run", "own.yaml", "-o", "run", "--json")
    assert answer.code == 0, answer.err
    candidates = stage(here / "run", "search")["candidates"]
    complete = [candidate for candidate in candidates if candidate["status"] == "complete"]
    assert complete
    assert all(candidate["values"]["own.py:Depth"] <= 2 for candidate in complete)
    assert all(candidate["values"]["own.py:Size:power=0.5"] > 0 for candidate in complete)
    resolved = yaml.safe_load((here / "run" / "recipe.yaml").read_text())
    assert resolved["space"] == {"name": "own.py:Chain", "channels": 4, "depth": 3}
    assert nas_here(capsys, "rank", "run", "--predictors", "own.py:Size").code == 2  # fewer than three networks


def test_a_resolved_recipe_is_read_again() -> None:
    recipe = recipe_from(json.loads(json.dumps(RECIPE)))
    assert recipe_from(yaml.safe_load(dump_recipe(recipe))) == recipe


def test_the_file_is_a_part_of_the_keys(capsys: Capture, here: Path) -> None:
    def keys(*overrides: str) -> dict[str, str]:
        answer = nas_here(capsys, "run", "plain.yaml", *overrides, "--dry-run", "--json")
        assert answer.code == 0, answer.err
        return dict(json.loads(answer.out)["stages"])

    ours, before = keys(), keys("space=own.py:Chain", "search.objectives=[own.py:Size]")
    (here / "own.py").write_text((here / "own.py").read_text() + "\n# another line\n")
    after = keys("space=own.py:Chain", "search.objectives=[own.py:Size]")
    assert keys() == ours
    assert before["data"] == after["data"]
    assert before["supernet"] != after["supernet"]
    assert before["search"] != after["search"]


def test_own_code_is_found_in_every_section() -> None:
    recipe = recipe_from(json.loads(json.dumps(RECIPE)))
    found = {section: set(own_code(recipe, section)) for section in ("name", *RECIPE)}
    assert found == {
        "name": set(),
        "data": {"own.py:stripes"},
        "space": {"own.py:Chain"},
        "supernet": {"own.py:Uniform"},
        "search": {"own.py:Size", "own.py:Depth", "optuna.samplers:QMCSampler"},
        "train": {"own.py:Size"},
        "profile": {"own.py:Board"},
    }


@pytest.mark.parametrize("key", ROLES)
@pytest.mark.parametrize(
    ("name", "facts"),
    [
        ("own.py:{misspelt}", ("own.py", "{misspelt}", "{name}")),
        ("own.py:not_a_method", ("own.py:not_a_method",)),
        ("absent.py:Mine", ("absent.py",)),
        ("broken.py:Mine", ("broken.py", "line 2", "ZeroDivisionError")),
        ("absent_module.inside:Mine", ("absent_module",)),
        ("nowhere", ("{key}", "nowhere", "FILE.py:NAME")),
    ],
)
def test_what_is_no_method_is_refused_in_a_line(capsys: Capture, key: str, name: str, facts: tuple[str, ...]) -> None:
    method = ROLES[key][0]
    words = {"key": key, "name": method, "misspelt": f"{method[:-2]}{method[-1]}{method[-2]}"}
    line = refusal(capsys, "run", "plain.yaml", "--dry-run", f"{key}={name.format(**words)}")
    assert all(fact.format(**words) in line for fact in facts), line


@pytest.mark.parametrize(
    ("key", "method"), [("space", "Uniform"), ("supernet.strategy", "Chain"), ("search.sampler", "Size")]
)
def test_a_method_of_another_role_is_refused(capsys: Capture, key: str, method: str) -> None:
    assert f"own.py:{method}: is not a " in refusal(capsys, "run", "plain.yaml", "--dry-run", f"{key}=own.py:{method}")


@pytest.mark.parametrize("key", ROLES)
def test_options_of_own_methods_are_checked(capsys: Capture, key: str) -> None:
    method, wrong, nearest = ROLES[key]
    name = f"own.py:{method}"
    if nearest is not None:
        line = refusal(capsys, "run", "plain.yaml", "--dry-run", f"{key}={{name: {name}, {wrong}: 2}}")
        assert line.startswith(f"{key}.{wrong}: ")
        assert name in line
        assert f"did you mean {nearest!r}" in line
    line = refusal(capsys, "run", "plain.yaml", "--dry-run", f"{key}={{name: {name}, {nearest or wrong}: many}}")
    assert line.startswith(f"{key}.{nearest or wrong}: ")
    assert "many" in line


@pytest.mark.parametrize(
    ("text", "facts"),
    [
        ("own.py:Sise", ("own.py", "Sise", "did you mean 'Size'")),
        ("own.py:Size:powr=2", ("powr", "own.py:Size", "did you mean 'power'")),
        ("own.py:Size:power=much", ("power", "much")),
        ("own.py:not_a_method", ("own.py:not_a_method",)),
        ("broken.py:Size", ("broken.py", "line 2")),
        ("own.py:stripes", ("own.py:stripes",)),
        ("narswot", ("narswot", "did you mean 'naswot'")),
    ],
)
def test_scores_of_a_command(capsys: Capture, here: Path, text: str, facts: tuple[str, ...]) -> None:
    (here / "net.py").write_text(
        "from torch import nn\ndef net(): return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))\n"
    )
    line = refusal(capsys, "score", "net.py:net", "--scores", text)
    assert all(fact in line for fact in facts), line
    if text != "own.py:stripes":  # which might be a predictor, until it is made
        line = refusal(capsys, "run", "plain.yaml", "--dry-run", f"search.accuracy={text}")
        assert all(fact in line for fact in facts), line


def test_own_scores_spaces_and_sources_of_a_command(capsys: Capture) -> None:
    answer = nas_here(
        capsys, "score", '{"block_0": "conv3", "block_1": "skip"}', "--space", "own.py:Chain:channels=4,depth=2",
        "--scores", "own.py:Size:power=2,naswot", "--data", "own.py:stripes:count=90", "--json",
    )  # fmt: skip
    assert answer.code == 0, answer.err
    [record] = json.loads(answer.out)
    assert record["scores"]["own.py:Size:power=2"]["value"] == record["params"] ** 2
    assert record["params"] == (9 + 1) * 4 + (4 * 9 + 1) * 4 + (4 + 1) * 3


@pytest.mark.parametrize(
    ("arguments", "facts"),
    [
        (("--method", "own.py:Haff"), ("own.py", "did you mean 'Half'")),
        (("--method", "own.py:Size"), ("own.py:Size", "pruning method")),
        (
            ("--method", "own.py:Half", "method.strenght=1"),
            ("method.strenght", "own.py:Half", "did you mean 'strength'"),
        ),
        (("--method", "structured", "method.importance=own.py:Norm"), ("own.py", "did you mean 'Norms'")),
        (
            ("--method", "structured", "method.importance={name: own.py:Norms, powr: 1}"),
            ("method.importance.powr", "own.py:Norms", "did you mean 'power'"),
        ),
        (("profile.device=own.py:Bord",), ("own.py", "did you mean 'Board'")),
        (("profile.device=own.py:Board:slott=1",), ("profile.device.slott", "own.py:Board", "did you mean 'slot'")),
        (("profile.device=own.py:Half",), ("own.py:Half", "device", "fingerprint")),
        (("profile.device=broken.py:Board",), ("broken.py", "line 2")),
    ],
)
def test_pruners_importances_and_devices(
    capsys: Capture, here: Path, arguments: tuple[str, ...], facts: tuple[str, ...]
) -> None:
    (here / "net.py").write_text(
        "from torch import nn\ndef net(): return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))\n"
    )
    line = refusal(capsys, "prune", "net.py:net", "--target", "params=0.5", "-o", "out", "--dry-run", *arguments)
    assert all(fact in line for fact in facts), line


def test_own_pruner_and_importance_prune(capsys: Capture, here: Path) -> None:
    net = "def net(): return nn.Sequential(nn.Conv2d(1, 32, 3), nn.ReLU(), nn.Flatten(), nn.Linear(1152, 10))\n"
    (here / "net.py").write_text(f"from torch import nn\n{net}")
    quick = ("train.epochs=0", "data.limit=200", "profile.seconds=0.05", "profile.threads=1", "--json")
    answer = nas_here(
        capsys, "prune", "net.py:net", "--method", "own.py:Half", "--target", "sparsity=0.5", "prune_epochs=0",
        "profile.device=own.py:Board", "-o", "sparse", *quick,
    )  # fmt: skip
    assert answer.code == 0, answer.err
    assert json.loads(answer.out)["after"]["zeros"] == (32 * 9 + 11520) / 2
    answer = nas_here(
        capsys, "prune", "net.py:net", "--method", "structured", "method.importance=own.py:Norms", "--target",
        "params=0.6", "-o", "smaller", *quick,
    )  # fmt: skip
    assert answer.code == 0, answer.err
    assert json.loads(answer.out)["after"]["params"] <= 0.6 * json.loads(answer.out)["before"]["params"]


class EntryPoints:
    """What two installed packages register."""

    def __init__(self, here: Path) -> None:
        (here / "installed_package.py").write_text(OWN)

    def __call__(self, *, group: str) -> list[importlib.metadata.EntryPoint]:
        methods = {"espalier.spaces": "Chain", "espalier.scores": "Size", "espalier.devices": "Board"}
        if group not in methods:
            return []
        value = f"installed_package:{methods[group]}"
        names = ("theirs", "darts" if group == "espalier.spaces" else "other")
        return [importlib.metadata.EntryPoint(name, value, group) for name in names]


@pytest.fixture
def installed(here: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Entry points of installed packages, one of which has the name of a space of the platform's."""
    all_roles = [role for role in vars(registry).values() if isinstance(role, roles.Role)]
    for role in all_roles:
        role.__dict__.pop("registered", None)
    monkeypatch.setattr(importlib.metadata, "entry_points", EntryPoints(here))
    yield
    for role in all_roles:
        role.__dict__.pop("registered", None)


@pytest.mark.usefixtures("installed")
def test_entry_points_are_listed_and_used(capsys: Capture) -> None:
    listed = json.loads(nas_here(capsys, "ls", "--json").out)
    assert "theirs" in listed["spaces"]
    assert "theirs" in listed["predictors"]
    assert "theirs" in listed["devices"]
    assert listed["spaces"].count("darts") == 1
    recipe = recipe_from({**PLAIN, "space": {"name": "theirs", "depth": 2}, "profile": {"device": "theirs:slot=3"}})
    assert recipe.space.depth == 2
    assert len(own_code(recipe, "space")["theirs"]) == 64
    assert roles.load(registry.SPACES, "darts", where="space").__module__.startswith("espalier.")
    line = refusal(capsys, "run", "plain.yaml", "--dry-run", "space={name: theirs, dept: 2}")
    assert line.startswith("space.dept: ")
    assert "theirs" in line
    line = refusal(capsys, "run", "plain.yaml", "--dry-run", "space=thiers")
    assert "did you mean 'theirs'" in line


def test_a_source_keeps_size_and_limit() -> None:
    data = recipe_from({**PLAIN, "data": {**RECIPE["data"], "limit": 60, "size": 6}}).data
    pool, test = data.load(0)
    assert isinstance(pool, Images)
    assert test is None
    assert pool.pixels.shape == (60, 1, 6, 6)
    with pytest.raises(UserError) as caught:
        recipe_from({**PLAIN, "data": {**RECIPE["data"], "path": "own.py"}}).data.load(0)
    assert (caught.value.where, caught.value.code) == ("data.path", "conflict")
