"""What a dry run accepts runs: whatever would stop the run later is found before it, and the sizes are told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from nas_command import TINY, command, nas_here

from espalier.nas.errors import Code
from espalier.nas.run import RunFolder
from espalier.recipes.config.loading import load_recipe
from espalier.recipes.engine.assemble import Assembly
from espalier.recipes.engine.sizes import check_space_memory, training_bytes
from user_errors import user_error

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("tiny.yaml").write_text(TINY)


@pytest.mark.parametrize(
    ("override", "where", "code"),
    [
        ("profile.provider=nonsense", "profile.provider", "unavailable"),
        ("search.storage=nonsense", "search.storage", "unavailable"),
        ("search.storage=nonsense://host/study", "search.storage", "unavailable"),
        ("search.storage=sqlite:////no/such/folder/study.db", "search.storage", "unavailable"),
        ("profile.device=ssh://nowhere.invalid", "ssh://nowhere.invalid", None),
        ("profile.device=adb://nobody", "adb://nobody", None),
        ("space.channels=16384", "space", "out_of_range"),
        ("data.size=16000", "data.size", "out_of_range"),
        ("supernet.optimizer=fusedadam", "supernet.optimizer", "invalid"),
        ("train.optimizer=nonsense", "train.optimizer", "invalid"),
    ],
)
def test_what_would_stop_a_run_is_found_before_it(override: str, where: str, code: Code | None) -> None:
    with user_error(where, code):
        command("run", "tiny.yaml", override, "--dry-run")


@pytest.mark.parametrize("folder", ["tiny.yaml", "tiny.yaml/run", "caf\udce9"])
@pytest.mark.parametrize("dry", [["--dry-run"], []])
def test_folders_that_cannot_be_written(folder: str, dry: list[str]) -> None:
    with user_error(folder, None):
        command("run", "tiny.yaml", "-o", folder, *dry)
    assert [path.name for path in Path().iterdir()] == ["tiny.yaml"]


def test_sizes_are_told(capsys: Capture) -> None:
    found = json.loads(nas_here(capsys, "run", "tiny.yaml", "--dry-run", "--json").out)
    assert sum(found["images"].values()) == 400
    assert found["space"]["architectures"] == 5**6
    assert found["steps"]["supernet"] == 12 * (found["images"]["train"] // 64)
    assert found["memory_bytes"]["images"] == 400 * 64  # 8x8 grey
    text = nas_here(capsys, "run", "tiny.yaml", "--dry-run").out
    assert "15,625" in text


def test_memory_grows_with_the_batch_and_not_the_time_of_a_dry_run() -> None:
    def needed(batch: int) -> int:
        recipe = load_recipe("tiny.yaml", [f"supernet.batch_size={batch}"])
        return training_bytes(Assembly(recipe, RunFolder(Path())))

    few, many = needed(16), needed(64)
    assert 2 < many / few < 4


@pytest.mark.parametrize("space", ["conv_macro", "darts", "macro", "mobilenet", "mobilenetv3", "nasbench201"])
def test_spaces_are_counted_without_being_allocated(space: str) -> None:
    recipe = load_recipe("tiny.yaml", [f"space={space}", "data.size=32"])
    check_space_memory(Assembly(recipe, RunFolder(Path())).spaces)


@pytest.mark.parametrize("warm_up", [11.999, 11.5])
def test_a_warm_up_leaves_a_step(warm_up: float) -> None:
    command("run", "tiny.yaml", f"supernet.warmup_epochs={warm_up}", "train.warmup_epochs=2.9999", "--dry-run")
