from __future__ import annotations

import os
from pathlib import Path

from espalier.recipes.config.loading import load_recipe
from espalier.recipes.engine.run_folders import remember, resumed_recipe, run_folder
from user_errors import user_error


def test_a_resumed_run_keeps_its_overrides_and_says_what_changes(tmp_path: Path) -> None:
    remember(tmp_path, load_recipe("quickstart", ["seed=3", "train.lr=0.2"]), ["seed=3", "train.lr=0.2"])
    same, overrides, changes = resumed_recipe(tmp_path, "quickstart", [])
    assert (same.seed, same.train.lr, changes) == (3, 0.2, [])
    longer, overrides, changes = resumed_recipe(tmp_path, "quickstart", ["search.trials=99", "seed=4"])
    assert overrides == ["seed=3", "train.lr=0.2", "search.trials=99", "seed=4"]
    assert (longer.seed, longer.train.lr, longer.search.trials) == (4, 0.2, 99)
    assert changes == ["seed: 3 -> 4", "search.trials: 32 -> 99"]


def test_another_recipe_s_folder_is_refused(tmp_path: Path) -> None:
    remember(tmp_path, load_recipe("quickstart", ["name=other"]), [])
    with user_error(str(tmp_path), "mismatch", says="'other'"):
        resumed_recipe(tmp_path, "quickstart", [])


def test_the_last_run_of_the_recipe_is_taken_up(tmp_path: Path) -> None:
    recipe = load_recipe("quickstart")
    names = (
        "quickstart-20260101-000000-abcdef",
        "quickstart-20260102-000000-abcdef",
        "quickstart-big-20260103-000000-abcdef",
    )
    for age, name in enumerate(names):
        remember(tmp_path / name, recipe, [])
        os.utime(tmp_path / name / "recipe.yaml", (age, age))
    assert run_folder(recipe, None, resume=True, runs=tmp_path).name == names[1]
    with user_error(str(tmp_path / "empty"), "not_found", says="quickstart"):
        run_folder(recipe, None, resume=True, runs=tmp_path / "empty")
