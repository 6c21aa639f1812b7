"""A run that is killed without warning goes on where it was."""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from nas_command import findings, kill_when, leftovers, log, losses, nas, stage, start
from safetensors.torch import load_file

from conftest import FinishedRun
from espalier.nas.run import RunFolder


def records(folder: Path) -> list[str]:
    """The ids of the architectures that the study has recorded as evaluated, in order, from the raw journal."""
    path = folder / "study.journal"
    lines = path.read_text().splitlines() if path.exists() else []
    return [line.partition('"id":"')[2][:12] for line in lines if '"record"' in line and '"id":"' in line]


def finished_stages(run: Path) -> list[str]:
    return [row["stage"] for row in log(run, "finished")]


def test_killed_in_training_and_in_the_search(finished_run: FinishedRun, tmp_path: Path) -> None:
    run, whole = tmp_path / "run", findings(finished_run.folder)
    kill_when(lambda folder: len(log(folder, "supernet")) >= 3, run, finished_run.recipe)
    assert finished_stages(run) == ["data"]
    trained = len(log(run, "supernet"))

    kill_when(lambda folder: len(records(folder)) >= 4, run, finished_run.recipe)
    epochs = [row["epoch"] for row in log(run, "supernet")]
    # The epoch that was logged last may have been killed before its checkpoint was written; no other is repeated.
    assert epochs[trained] in (trained, trained + 1)
    assert sorted(set(epochs)) == list(range(1, 13))
    assert len(epochs) <= 13
    assert finished_stages(run) == ["data", "supernet"]
    assert losses(run) == whole["losses"]
    before = records(run)
    assert len(before) < 12

    answer = nas("run", finished_run.recipe, "-o", run, "--resume", cwd=tmp_path)
    assert answer.code == 0, answer.err
    assert "\nsupernet: done before\n" in answer.err
    after = records(run)
    assert after[: len(before)] == before
    assert max(Counter(after).values()) == 1
    found = findings(run)
    # A resumed sampler starts from a new seed, so what it proposes next is not what it would have proposed.
    assert found["candidates"][: len(before)] == whole["candidates"][: len(before)]
    assert len(found["candidates"]) == 12
    assert len(stage(run, "train")["networks"]) == 3
    assert leftovers(run) == []


AFTER_THE_SEARCH: dict[str, Callable[[Path], bool]] = {
    "train": lambda run: len(log(run, "train")) >= 5,
    "export": lambda run: len(list(run.glob("architectures/*/model.onnx"))) >= 1,
    "profile": lambda run: len(list(run.glob("architectures/*/latency.json"))) >= 1,
}


@pytest.mark.slow
def test_killed_in_each_later_stage(finished_run: FinishedRun, tmp_path: Path) -> None:
    run = tmp_path / "run"
    for name, ready in AFTER_THE_SEARCH.items():
        kill_when(ready, run, finished_run.recipe)
        assert name not in finished_stages(run)
    answer = nas("run", finished_run.recipe, "-o", run, "--resume", cwd=tmp_path)
    assert answer.code == 0, answer.err
    assert findings(run) == findings(finished_run.folder)
    epochs = Counter((row["id"], row["epoch"]) for row in log(run, "train"))
    assert len(epochs) == 9
    assert sum(epochs.values()) <= 10
    assert leftovers(run) == []
    for file in finished_run.folder.glob("architectures/*/model.safetensors"):
        ours, theirs = load_file(run / file.relative_to(finished_run.folder)), load_file(file)
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.slow
def test_killed_at_any_moment(finished_run: FinishedRun, tmp_path: Path) -> None:
    """The process dies after 4, 5, ... seconds, again and again; no resumed one complains or repeats a trial."""
    run = tmp_path / "run"
    seen: list[str] = []
    for seconds in range(4, 12):
        resume = ["--resume"] if (run / "recipe.yaml").exists() else []
        process = start("run", finished_run.recipe, "-o", run, *resume, cwd=tmp_path)
        time.sleep(seconds)
        process.kill()
        _, err = process.communicate()
        assert "error" not in err
        assert "Traceback" not in err
        assert records(run)[: len(seen)] == seen
        seen = records(run)
    answer = nas("run", finished_run.recipe, "-o", run, "--resume", cwd=tmp_path)
    assert answer.code == 0, answer.err
    assert max(Counter(records(run)).values()) == 1
    assert leftovers(run) == []


def test_what_a_killed_process_left_is_removed(finished_run: FinishedRun, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished_run.folder, run)
    (run / "stages" / ".search.json.abcd.tmp").write_text("{")
    (run / ".latency-xyz").mkdir()
    (run / ".latency-xyz" / "model.onnx").write_text("half")
    kept = run / "stages" / "search.json"
    with RunFolder(run).lock():
        assert leftovers(run) == []
    assert kept.is_file()


@pytest.mark.slow
def test_killed_while_it_times(finished_run: FinishedRun, tmp_path: Path) -> None:
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(
        finished_run.recipe.read_text()
        .replace("[accuracy, macs]", "[accuracy, latency_ms]")
        .replace("random: 2", "random: 0")
    )
    run = tmp_path / "run"
    kill_when(lambda folder: len(records(folder)) >= 2 and any(folder.glob(".latency-*")), run, recipe)
    assert leftovers(run) != []
    answer = nas("run", recipe, "-o", run, "--resume", cwd=tmp_path)
    assert answer.code == 0, answer.err
    assert leftovers(run) == []
    assert max(Counter(records(run)).values()) == 1
