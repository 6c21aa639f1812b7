"""`nas rank` and `nas score`, from the command line."""

from __future__ import annotations

import csv
import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from nas_command import command, nas, nas_here

from conftest import FinishedRun
from espalier.nas.errors import Code
from espalier.nas.spaces.nasbench201 import NasBench201
from espalier.recipes.commands.rank.page import ranking_page
from espalier.recipes.commands.rank.result import Ranking
from espalier.recipes.config.registry import ENSEMBLES, PREDICTORS, SCORES, members
from espalier.recipes.config.roles import load
from user_errors import user_error

Capture = pytest.CaptureFixture[str]
SPACE = "nasbench201:channels=2,cells=1"
CELL = "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|skip_connect~0|none~1|nor_conv_1x1~2|"
OWN = """\
import torch
def small():
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10))
"""

BROKEN = """\
def raises():
    return 1 / 0
def few():
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3))
def lazy():
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.LazyLinear(10, dtype=torch.float64))
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty current folder, but for a table of forty cells whose accuracy is a noisy count of convolutions."""
    monkeypatch.chdir(tmp_path)
    space, generator = NasBench201((1, 8, 8), 10, channels=2, cells=1), torch.Generator().manual_seed(0)
    cells = list(dict.fromkeys(space.format(space.sample(generator)) for _ in range(40)))
    noise = random.Random(0)
    with (tmp_path / "table.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["arch", "accuracy"])
        writer.writerows([cell, cell.count("nor_conv_3x3") + noise.gauss(0, 0.5)] for cell in cells)
    yield tmp_path


def ranking(capsys: Capture, *options: object, predictors: str = "naswot,synflow") -> Any:
    basis = ("--space", SPACE, "--table", "table.csv", "--target", "accuracy", "--samples", 24, "--batch-size", 16)
    answer = nas_here(capsys, "rank", *basis, "--predictors", predictors, "--json", *options)
    assert answer.code == 0, answer.err
    return json.loads(answer.out)


def test_a_row_for_each_predictor_and_the_baselines(capsys: Capture) -> None:
    result = ranking(capsys)
    rows = {row["name"]: row for row in result["predictors"]}
    assert set(rows) == {"params", "macs", "naswot", "synflow"}
    assert [row["spearman"] for row in result["predictors"]] == sorted(
        (row["spearman"] for row in result["predictors"]), reverse=True
    )
    for row in rows.values():
        assert row["n"] == 24
        assert row["ci95"] == row["spearman_ci95"]
        assert row["ci95"][0] <= row["spearman"] <= row["ci95"][1]
        assert -1 <= row["kendall"] <= 1
        assert [(share, one["n"]) for share, one in row["among_best"].items()] == [("10%", 2), ("20%", 5)]
        assert [(share, one["k"]) for share, one in row["precision"].items()] == [("5%", 1), ("10%", 2)]
        assert 0 <= row["precision"]["10%"]["value_ci95"][0] <= row["precision"]["10%"]["value_ci95"][1] <= 1
        assert row["regret_ci95"][0] <= row["regret"] <= row["regret_ci95"][1]
        assert 1 <= row["best_of_random_ci95"][0] <= row["best_of_random"] <= 24
    assert rows["params"]["spearman"] > 0.6  # of what it was made from
    assert "spearman_given_params" not in rows["params"]
    assert rows["naswot"]["statuses"].keys() <= {"ok", "nan"}
    assert sum(rows["naswot"]["statuses"].values()) == 24
    assert len(result["points"]) == 24


def test_the_same_seed_gives_the_same_ranking(capsys: Capture) -> None:
    first, again, other = (ranking(capsys, "--samples", 8, "--seed", seed) for seed in (0, 0, 1))
    for result in (first, again, other):
        del result["seconds"]
    assert first == again
    assert first["images"]["hash"] != other["images"]["hash"]
    assert {p["id"] for p in first["points"]} != {p["id"] for p in other["points"]}


def test_a_negative_correlation_is_shown_as_it_is(capsys: Capture, here: Path) -> None:
    rows = list(csv.DictReader((here / "table.csv").open()))
    with (here / "table.csv").open("w") as file:
        file.write("arch,accuracy\n" + "".join(f"{row['arch']},{-float(row['accuracy'])}\n" for row in rows))
    assert next(r for r in ranking(capsys)["predictors"] if r["name"] == "params")["spearman"] < -0.6


def test_ensembles_rank_within_the_sample(capsys: Capture) -> None:
    result = ranking(capsys, predictors="naswot+synflow,az_nas")
    rows = {row["name"]: row for row in result["predictors"]}
    assert set(rows) == {"params", "macs", "naswot+synflow", "az_nas"}
    values = [point["values"]["naswot+synflow"] for point in result["points"]]
    assert max(values) <= 0


def test_values_are_kept_and_taken_up(capsys: Capture, here: Path) -> None:
    options = ("-o", "out", "--samples", 8)
    first = ranking(capsys, *options)
    (values,) = (here / "out").glob("values-*.jsonl")
    lines = values.read_text().splitlines()
    assert len(lines) == 8 * 4
    values.write_text("\n".join(lines[:18]) + "\n" + lines[18][:20])  # killed while writing
    again = ranking(capsys, *options, predictors="naswot,synflow,snip")
    assert again["computed"] == 8  # snip was new for all of them
    third = ranking(capsys, *options)
    assert third["computed"] == 0
    assert third["predictors"] == first["predictors"]
    ranking(capsys, *options, "--seed", 3)
    assert len(list((here / "out").glob("values-*.jsonl"))) == 2  # other seeds, other values
    assert json.loads((here / "out" / "ranking.json").read_text())["seed"] == 3


def test_the_page_holds_table_and_figures(capsys: Capture, here: Path) -> None:
    result = ranking(capsys, "--plot", "page.html")
    page = (here / "page.html").read_text()
    for row in result["predictors"]:
        assert f">{row['name']}</th>" in page
    assert page.count('type="application/json"') == 2
    hostile = Ranking(
        {"target": "<script>alert(1)</script>", "seed": 0, "repeats": 1, "run": "r"}, 3, "", 3, 1.0, [], []
    )
    assert "<script>alert" not in ranking_page(hostile)


def test_the_text_is_two_tables(capsys: Capture) -> None:
    options = ("--space", SPACE, "--table", "table.csv", "--target", "accuracy", "--samples", 24)
    answer = nas_here(capsys, "rank", *options, "--predictors", "naswot,naswot+macs+params")
    lines = answer.out.splitlines()
    assert lines[0] == "24 architectures against accuracy of table.csv"
    assert lines[1] == "sample: 24 of the table's 40 architectures, drawn uniformly without replacement, seed 0"
    for start, heading in (
        (2, "Kendall best 20 % best 10 % Spearman"),
        (8, "precision, 5 % 10 % regret best of n random"),
    ):
        assert " ".join(lines[start].split()).startswith(f"predictor {heading}")
        names = [line.split()[0] for line in lines[start + 1 : start + 5]]
        assert sorted(names) == ["macs", "naswot", "naswot+macs+params", "params"]
    assert "seed 0" in answer.out
    assert max(map(len, lines)) <= 120


def test_a_run_is_ranked_by_its_selection_accuracy(capsys: Capture, finished_run: FinishedRun) -> None:
    answer = nas_here(capsys, "rank", finished_run.folder, "--predictors", "inherited,naswot", "--json")
    assert answer.code == 0, answer.err
    result = json.loads(answer.out)
    assert {row["name"] for row in result["predictors"]} == {"params", "macs", "inherited", "naswot"}
    train = json.loads((finished_run.folder / "stages" / "train.json").read_text())["outputs"]
    accuracies = {network["id"]: network["accuracy"] for network in train["networks"]}
    assert {point["id"]: point["target"] for point in result["points"]} == accuracies
    assert result["sampling"] == "all 3 networks that the run has trained from scratch: 1 front, 2 random"


def test_a_run_s_supernet_is_ranked_against_a_table(capsys: Capture, finished_run: FinishedRun, here: Path) -> None:
    options = (
        "--table",
        "table.csv",
        "--target",
        "accuracy",
        "--samples",
        12,
        "--predictors",
        "inherited",
        "-o",
        "out",
    )
    answer = nas_here(capsys, "rank", finished_run.folder, *options, "--json")
    assert answer.code == 0, answer.err
    result = json.loads(answer.out)
    assert {row["name"]: row["n"] for row in result["predictors"]} == {"params": 12, "macs": 12, "inherited": 12}
    rows = {row["arch"]: float(row["accuracy"]) for row in csv.DictReader((here / "table.csv").open())}
    space = NasBench201((1, 8, 8), 10, channels=2, cells=1)
    targets = {space.parse(cell).id: accuracy for cell, accuracy in rows.items()}
    assert all(targets[point["id"]] == point["target"] for point in result["points"])
    images = json.loads((finished_run.folder / "stages" / "data.json").read_text())["outputs"]["splits"]["selection"]
    values = [point["values"]["inherited"] * images for point in result["points"]]
    assert values == pytest.approx([round(value) for value in values])  # shares of the run's selection images
    assert len(set(values)) > 1
    again = json.loads(nas_here(capsys, "rank", finished_run.folder, *options, "--json").out)
    assert (again["computed"], again["predictors"]) == (0, result["predictors"])
    assert str(finished_run.folder) in nas_here(capsys, "rank", finished_run.folder, *options).out
    assert f"images of {finished_run.folder}" in (here / "out" / "ranking.html").read_text()


def test_a_run_s_scores_are_averaged_over_repeats(capsys: Capture, finished_run: FinishedRun) -> None:
    def values(*options: object) -> list[float]:
        answer = nas_here(capsys, "rank", finished_run.folder, "--predictors", "snip", "--json", *options)
        return [point["values"]["snip"] for point in json.loads(answer.out)["points"]]

    assert values() == values("--repeats", 1) != values("--repeats", 2)


def test_one_of_each_class_is_drawn(capsys: Capture, here: Path) -> None:
    """Of two cells that differ in an edge behind one without signal, the first of the table."""
    cells = [f"|none~0|+|none~0|{op}~1|+|nor_conv_3x3~0|none~1|none~2|" for op in ("none", "skip_connect")]
    cells += [f"|none~0|+|none~0|none~1|+|{op}~0|none~1|none~2|" for op in ("nor_conv_1x1", "avg_pool_3x3")]
    (here / "twins.csv").write_text("arch,accuracy\n" + "".join(f"{cell},{i}\n" for i, cell in enumerate(cells)))
    options = ("--table", "twins.csv", "--predictors", "params", "--unique", "--samples")
    result = ranking(capsys, *options, 3)
    assert {point["target"] for point in result["points"]} == {0, 2, 3}
    assert result["sampling"].startswith("3 of the table's 3 architectures that compute different functions, drawn")
    answer = nas_here(capsys, "rank", "--space", SPACE, "--target", "accuracy", *options, 4)
    assert answer.err.startswith("error: --samples: ")


def test_nas_bench_macro_is_ranked(capsys: Capture, shared_data: Path) -> None:
    table = shared_data / "nasbench_macro_cifar10.csv.gz"
    options = ("--space", "macro:width=0.25", "--table", table, "--target", "mean_acc", "--samples", 20)
    answer = nas_here(capsys, "rank", *options, "--predictors", "macs", "--json")
    assert answer.code == 0, answer.err
    rows = {row["name"]: row for row in json.loads(answer.out)["predictors"]}
    assert rows.keys() == {"params", "macs"}
    assert rows["macs"]["kendall"] > rows["params"]["kendall"] > 0


@pytest.mark.parametrize(
    ("options", "where", "code", "says"),
    [
        ("--predictors nasswot", "--predictors", "unknown", "naswot"),
        ("--predictors naswot+az_nas", "--predictors", "unknown", "az_nas"),
        ("--predictors inherited", "--predictors", "missing", "inherited"),
        ("--target acuracy", "--table", None, "did you mean 'accuracy'?"),
        ("--table no.csv", "--table", None, "no.csv"),
        ("--samples 4000", "--samples", None, "40 "),
        ("--samples 2", "--samples", None, "3"),
        ("--samples -1", "--samples", None, "-1"),
        ("--space nasbench201:cells=[1,2]", "--space.cells", "invalid", "[1, 2]"),
        ("--space nasbench201:cells=[1", "--space.cells", "invalid", "YAML"),
        ("--batch-size 0", "--batch-size", "out_of_range", "1"),
        ("--batch-size 9999", "--batch-size", "too_few", "1797"),
        ("--space nasbench", "--space", "unknown", "did you mean 'nasbench201'?"),
        ("--space nasbench201:chanels=3", "--space.chanels", "unknown", "channels"),
        ("--space nasbench201:channels=x", "--space.channels", "invalid", "x"),
        ("--space nasbench201:channels", "--space", "invalid", "channels"),
        ("--data nowhere", "--data", "not_found", "nowhere"),
        ("--repeats 0", "--repeats", None, "1"),
        ("--limit-seconds 0", "--limit-seconds", None, "0"),
        ("--seed -1", "--seed", "out_of_range", "-1"),
    ],
)
def test_wrong_options(options: str, where: str, code: Code | None, says: str) -> None:
    given = ["--table", "table.csv", "--target", "accuracy", "--samples", "10", "--space", SPACE, *options.split()]
    with user_error(where, code, says=says):
        command("rank", *given)


@pytest.mark.parametrize(
    ("arguments", "where", "code"),
    [
        ("nothing", "nothing", "not_found"),
        ("", "--table", "missing"),
        ("--table table.csv", "--target", "missing"),
        ("nothing --table table.csv", "--target", "missing"),
        ("nothing --target accuracy", "--target", "conflict"),
        ("nothing --samples 3", "--samples", "conflict"),
        ("nothing --unique", "--unique", "conflict"),
        ("nothing --batch-size 3", "--batch-size", "conflict"),
        ("nothing --data digits", "--data", "conflict"),
        ("nothing --size 8", "--size", "conflict"),
        ("nothing --space nasbench201", "--space", "conflict"),
    ],
)
def test_a_table_or_a_run(arguments: str, where: str, code: Code) -> None:
    with user_error(where, code):
        command("rank", *arguments.split())


@pytest.mark.parametrize(
    ("missing", "options", "where"),
    [("train", "", "run"), ("supernet", "--predictors inherited", "--predictors")],
)
def test_a_run_that_has_not_come_far_enough(
    finished_run: FinishedRun, here: Path, missing: str, options: str, where: str
) -> None:
    shutil.copytree(finished_run.folder, here / "run")
    (here / "run" / "stages" / f"{missing}.json").unlink()
    with user_error(where, "missing"):
        command("rank", here / "run", *options.split())


def scored(capsys: Capture, *arguments: object) -> Any:
    answer = nas_here(capsys, "score", *arguments, "--json")
    assert answer.code == 0, answer.err
    return json.loads(answer.out)


def test_architectures_and_models_are_scored(capsys: Capture, here: Path) -> None:
    (here / "own.py").write_text(OWN)
    options = ("--space", SPACE, "--scores", "naswot,synflow,params", "--batch-size", 16)
    cell, own = scored(capsys, CELL, "own.py:small", *options)
    assert (cell["network"], own["network"]) == (CELL, "own.py:small")
    assert own["params"] == 64 * 32 + 32 + 32 * 10 + 10
    assert own["macs"] > 0
    assert set(own["scores"]) == {"naswot", "synflow"}
    assert own["scores"]["naswot"]["provenance"]["images"] == 16
    architecture = NasBench201((1, 8, 8), 10, channels=2, cells=1).parse(CELL)
    (here / "cell.json").write_text(architecture.to_json())
    (again,) = scored(capsys, "cell.json", *options)
    assert again["scores"] == cell["scores"]


def test_repeats_give_a_spread(capsys: Capture) -> None:
    options = ("--space", SPACE, "--scores", "snip", "--batch-size", 16, "--repeats", 3)
    (record,) = scored(capsys, CELL, *options)
    assert record["scores"]["snip"]["provenance"]["std"] > 0
    assert "±" in nas_here(capsys, "score", CELL, *options).out


def test_a_score_that_is_not_defined_says_why(capsys: Capture, here: Path) -> None:
    (here / "own.py").write_text(OWN.replace("ReLU", "Tanh"))
    (record,) = scored(capsys, "own.py:small", "--scores", "naswot", "--batch-size", 16)
    assert record["scores"]["naswot"]["status"] == "failed"
    assert "the network has none" in nas_here(capsys, "score", "own.py:small", "--scores", "naswot").out


@pytest.mark.parametrize(
    ("arguments", "where", "code", "says"),
    [
        ("timm:resnet81", "timm:resnet81", None, "resnet18"),
        (CELL, CELL, "invalid", "timm:NAME"),
        (f"|x| --space {SPACE}", "|x|", None, "|x|"),
        ("timm:resnet18 --scores naswat", "--scores", "unknown", "did you mean 'naswot'?"),
        ("own.py:raises", "own.py:raises", "user_code", "ZeroDivisionError"),
        ("own.py:few", "own.py:few", "mismatch", "3 logits"),
        ("own.py:lazy", "own.py:lazy", "unsupported", "1.weight"),
    ],
)
def test_wrong_networks(here: Path, arguments: str, where: str, code: Code | None, says: str) -> None:
    (here / "own.py").write_text(OWN + BROKEN)
    with user_error(where, code, says=says):
        command("score", *arguments.split())


def test_an_error_is_one_line(capsys: Capture) -> None:
    answer = nas_here(capsys, "score", "timm:resnet18", "--batch-size", 0)
    assert (answer.code, answer.out) == (2, "")
    assert answer.err == "error: --batch-size: is 0, must be at least 1\n"


def test_every_name_leads_to_a_predictor() -> None:
    for name in SCORES:
        assert load(SCORES, name, where="").name == name
    for name, (_, parts) in ENSEMBLES.items():
        assert members(name, where="") == parts
        assert set(parts) <= set(PREDICTORS)


def test_rank_in_a_process_of_its_own(here: Path) -> None:
    options = ("--space", SPACE, "--table", "table.csv", "--target", "accuracy", "--samples", 10)
    answer = nas("rank", *options, "--predictors", "naswot", "--json", cwd=here)
    assert answer.code == 0
    assert len(json.loads(answer.out)["predictors"]) == 3
