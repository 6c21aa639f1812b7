"""A budget from a recipe to the report: what is returned was measured and fits, and what that took."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from nas_command import TINY, Answer, nas_here, run_is_rejected, stage
from run_folder import NETWORKS, build_run
from run_folder import RECIPE as FOLDER_RECIPE
from scripted_device import ScriptedDevice

from espalier.export.devices.base import MeasureSpec
from espalier.export.timing import summarize
from espalier.nas.architecture import Architecture
from espalier.nas.errors import Code, UserError
from espalier.nas.measurement import Measurement
from espalier.nas.spaces.nasbench201 import NasBench201
from espalier.recipes.config.sections.profile import ProfileSettings
from espalier.recipes.engine.assemble import Assembly
from espalier.recipes.engine.stages.profile import check_limit, measured_again
from espalier.recipes.records.networks import TrainedNetwork
from espalier.recipes.records.search import Objective, SearchedCandidate, SearchResult
from espalier.recipes.report import write_report
from espalier.recipes.report.estimate_figures import search_figure
from user_errors import user_error

Capture = pytest.CaptureFixture[str]
DATA = """\
name: tiny
data: {source: digits, limit: 200, split: {train: 0.4, architecture: 0.2, selection: 0.2, test: 0.2}}
space: {name: nasbench201, channels: 2, cells: 1}
profile: {threads: 1, sessions: 2, seconds: 0.1}
"""
SEARCH = """\
supernet: {epochs: 1, batch_size: 64}
search: {objectives: [accuracy], sampler: random, trials: 12, accuracy: params}
"""
SELECT = """\
supernet: {strategy: darts, epochs: 1, batch_size: 32}
select: {methods: [argmax]}
"""
MS = {"none": 0.1, "skip_connect": 0.2, "avg_pool_3x3": 0.5, "nor_conv_1x1": 1.0, "nor_conv_3x3": 3.0}
"""Of an edge; every network needs 1 ms besides, so that there are 1.6 to 19 ms."""


def ms_of(architecture: Architecture) -> float:
    return 1 + sum(MS[str(option)] for option in architecture.values())


def measured(ms: float) -> Measurement:
    return Measurement(summarize([[0.99 * ms] * 3, [1.01 * ms] * 3]), "stable", {"id": "scripted"})


class Bench:
    """Stands for export and timing: so many ms by rule. `asked` are the architectures, each once."""

    def __init__(self) -> None:
        self.asked: list[Architecture] = []
        self.rule: Callable[[Architecture], float] = ms_of
        self.device = ScriptedDevice()

    def __call__(self, architecture: Architecture, spec: MeasureSpec) -> Measurement:
        self.asked.append(architecture)
        return measured(self.rule(architecture))


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    """What the runs of a test measure with."""
    one = Bench()
    monkeypatch.setattr(Assembly, "open_device", lambda assembly: one.device)
    monkeypatch.setattr("espalier.recipes.engine.assemble.MeasuredLatency", lambda *arguments: one)
    return one


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("search.yaml").write_text(DATA + SEARCH)
    Path("select.yaml").write_text(DATA + SELECT)


def run(capsys: Capture, recipe: str, *overrides: str) -> Answer:
    return nas_here(capsys, "run", recipe, "-o", "run", *overrides)


def outputs(name: str) -> Any:
    return stage(Path("run"), name)


def test_the_front_of_a_search_was_measured_and_fits(capsys: Capture, bench: Bench) -> None:
    answer = run(capsys, "search.yaml", "budget.latency_ms=9", "search.objectives=[accuracy, latency_ms]")
    assert answer.code == 0, answer.err
    search = outputs("search")
    found = {c["id"]: c for c in search["candidates"]}
    assert search["front"]
    for id_ in search["front"]:
        assert Architecture(found[id_]["architecture"]) in bench.asked
        assert found[id_]["latency"]["measured"][2] <= 9
    counts = search["cascade"]
    assert counts["measurement"] == len(bench.asked) == len(set(bench.asked))
    assert counts["measurement"] + counts["estimate"] == len(found)
    assert counts["estimate"] > 0
    assert 0.8 * counts["checked"] <= counts["held"] <= counts["checked"]
    line = f"budget: latency_ms <= 9; {counts['measurement']} candidates measured, {counts['estimate']} decided by an"
    assert line in answer.out
    page = Path("run/report.html").read_text()
    assert f"{counts['measurement']} candidates were measured and {counts['estimate']} decided by an estimate" in page


def test_guessed_and_measured_latencies_have_their_own_marks() -> None:
    def candidate(trial: int, **latency: Any) -> dict[str, Any]:
        values = {"accuracy": 0.5, "latency_ms": 3.0}
        of = {"architecture": {"trial": trial}, "notation": ""}
        return {**of, "trial": trial, "status": "complete", "values": values, "latency": latency}

    candidates = [
        SearchedCandidate.model_validate(record)
        for record in (
            candidate(0, estimate=[3, 2, 4]),
            candidate(1, estimate=[3, 2, 4], measured=[3.5, 3.4, 3.6]),
            candidate(2, measured=[3, 2.9, 3.1]),
        )
    ]
    guessed, seen, best = (one.id for one in candidates)
    search = SearchResult(
        objectives=(Objective(name="accuracy", direction="maximize"),),
        counts={},
        candidates=tuple(candidates),
        front=(best,),
    )
    figure = search_figure(search)
    assert figure is not None
    text = "<b>{}</b><br>accuracy 0.5<br>latency_ms 3<br>latency {}"
    assert {trace.name: list(trace.text) for trace in figure.data} == {
        "evaluated": [text.format(seen, "measured: 3.5 ms (3.4 to 3.6)")],
        "evaluated, latency estimated": [text.format(guessed, "estimated: 3 ms (2 to 4)")],
        "the search's front": [text.format(best, "measured: 3 ms (2.9 to 3.1)")],
    }


def test_it_holds_without_latency_as_an_objective(capsys: Capture, bench: Bench) -> None:
    """The largest network that fits is found by params alone; nothing larger is on the front."""
    assert run(capsys, "search.yaml", "budget.latency_ms=9", "search.trials=30").code == 0
    (best,) = {
        c["values"]["accuracy"] for c in outputs("search")["candidates"] if c["id"] in outputs("search")["front"]
    }
    fitting = [c for c in outputs("search")["candidates"] if c["status"] == "complete"]
    assert best == max(c["values"]["accuracy"] for c in fitting)


def test_a_table_spares_measurements(capsys: Capture, bench: Bench) -> None:
    """The device takes twice what the table says: the first measurements tell, and after them it decides."""
    table("table.json", scale=0.5)
    assert run(capsys, "search.yaml", "budget={latency_ms: 9, table: table.json}", "search.trials=20").code == 0
    counts = outputs("search")["cascade"]
    for candidate in outputs("search")["candidates"]:
        guess = candidate["latency"]["estimate"]
        if guess:
            assert guess[0] == pytest.approx(ms_of(Architecture(candidate["architecture"])), rel=0.05)
    assert counts["measurement"] < counts["estimate"]


def test_other_devices_help_too(capsys: Capture, bench: Bench) -> None:
    table("a.json", device="phone")
    table("b.json", device="board", scale=3.0)
    assert run(capsys, "search.yaml", "budget={latency_ms: 9, sources: [a.json, b.json]}", "search.trials=20").code == 0
    assert outputs("search")["cascade"]["measurement"] < outputs("search")["cascade"]["estimate"]


def test_when_nothing_fits_the_nearest_miss_is_told(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("espalier.nas.search.loop.MAX_REJECTED", 30)
    impossible = ("budget.latency_ms=1", "space.channels=4")
    run_is_rejected("search.yaml", *impossible, where="budget", code="infeasible", says="latency_ms <= 1")


def test_what_cannot_be_exported_does_not_stop_the_others(capsys: Capture, bench: Bench) -> None:
    def rule(architecture: Architecture) -> float:
        if architecture["edge_1_0"] == "none":
            raise UserError("model.onnx", "cannot be exported")
        return ms_of(architecture)

    bench.rule = rule
    assert run(capsys, "search.yaml", "budget.latency_ms=9").code == 0
    failed = [c for c in outputs("search")["candidates"] if c["status"] == "failed"]
    assert failed
    assert {c["reason"] for c in failed} == {"latency_ms: UserError: model.onnx: cannot be exported"}
    assert outputs("search")["front"]


def test_a_search_is_taken_up_with_what_was_measured(capsys: Capture, bench: Bench) -> None:
    assert run(capsys, "search.yaml", "budget.latency_ms=9").code == 0
    first, before = list(bench.asked), outputs("search")["candidates"]
    bench.asked.clear()
    assert run(capsys, "search.yaml", "--resume", "search.trials=22").code == 0
    assert outputs("search")["candidates"][: len(before)] == before
    assert not set(first) & set(bench.asked)
    assert len(bench.asked) < len(outputs("search")["candidates"]) - len(before)  # it still knew how to guess


def test_a_choice_that_misses_makes_way_for_the_nearest(capsys: Capture, bench: Bench) -> None:
    assert run(capsys, "select.yaml", "budget.latency_ms=19.5").code == 0
    (first,) = outputs("select")["chosen"]
    assert first["replaces"] is None
    chosen = Architecture(first["architecture"])
    limit = ms_of(chosen) - 0.05
    answer = run(capsys, "select.yaml", "--resume", f"budget.latency_ms={limit}")
    assert answer.code == 0, answer.err
    (one,) = outputs("select")["chosen"]
    assert one["replaces"]["id"] == chosen.id
    assert one["latency"]["measured"][2] <= limit
    assert sum(a != b for a, b in zip(one["architecture"].values(), chosen.values(), strict=True)) <= 2
    assert f"budget: {one['id']} is the nearest to {chosen.id}, which has latency_ms = " in answer.out
    assert f"{one['id']} is the nearest that fits." in Path("run/report.html").read_text()


def test_perturbation_goes_by_inherited_accuracy(capsys: Capture, bench: Bench) -> None:
    overrides = ("select={methods: [perturbation], epochs: 1}", "supernet.strategy=spos", "budget.latency_ms=4")
    assert run(capsys, "select.yaml", *overrides).code == 0
    (one,) = outputs("select")["chosen"]
    assert one["latency"]["measured"][2] <= 4


def test_nothing_near_a_choice_fits(bench: Bench) -> None:
    limit = "latency_ms <= 0.5"
    run_is_rejected("select.yaml", "budget.latency_ms=0.5", where="budget", code="infeasible", says=limit)


def test_macs_and_params_need_no_measurement(capsys: Capture, bench: Bench) -> None:
    answer = run(capsys, "select.yaml", "budget.macs=20.0e+3")
    assert answer.code == 0, answer.err
    assert "which has macs = " in answer.out
    answer = nas_here(
        capsys, "run", "search.yaml", "-o", "searched", "budget={macs: 15.5e+3, params: 2200}", "search.trials=9"
    )
    assert answer.code == 0, answer.err
    reasons = {c["reason"].partition(", not ")[2] for c in stage(Path("searched"), "search")["candidates"]}
    assert reasons == {"", "macs <= 15500", "params <= 2200"}
    assert not bench.asked


def test_proxyless_takes_its_target_from_the_budget(capsys: Capture, bench: Bench) -> None:
    table("table.json")
    strategy = "supernet.strategy={name: proxyless, cost: table.json, loss: target, every: 1, alpha_warmup: 0}"
    run_is_rejected("select.yaml", strategy, where="supernet.strategy.target", code="missing", says="ms")
    assert run(capsys, "select.yaml", strategy, "budget.latency_ms=5").code == 0
    assert outputs("select")["chosen"][0]["latency"]["measured"][2] <= 5
    rows = outputs("supernet")["parts"][0]["rows"]
    assert rows[-1]["chosen_ms"] <= 5
    assert run(capsys, "select.yaml", "--resume", "budget.latency_ms=7").code == 0
    assert outputs("supernet")["parts"][0]["rows"] != rows  # another target is another supernet


@pytest.mark.parametrize(
    ("override", "where", "code", "says"),
    [
        ("budget={latency: 5}", "budget.latency", "unknown", "latency_ms"),
        ("budget={}", "budget", "invalid", "latency_ms"),
        ("budget.latency_ms=0", "budget.latency_ms", "out_of_range", "0"),
        ("budget={macs: 1.0e+6, table: t.json}", "budget", "invalid", "latency_ms"),
        ("budget={latency_ms: 9, table: no.json}", "budget.table", "not_found", "no.json"),
        ("budget={latency_ms: 9, table: macs.json}", "budget.table", "mismatch", "macs.json"),
        ("budget={latency_ms: 9, table: other.json}", "budget.table", "mismatch", "phone"),
        ("budget={latency_ms: 9, sources: [macs.json]}", "budget.sources.0", "mismatch", "macs.json"),
        ("budget={latency_ms: 9} search.constraints=[latency_ms<=8]", "search.constraints", "invalid", "latency_ms"),
    ],
)
def test_wrong_budgets(bench: Bench, override: str, where: str, code: Code, says: str) -> None:
    table("macs.json", unit="macs")
    table("other.json", device="phone")
    first, _, rest = override.partition(" search.")
    overrides = [first, *([f"search.{rest}"] if rest else [])]
    run_is_rejected("search.yaml", *overrides, where=where, code=code, says=says)
    assert not Path("run").exists()


def table(path: str, *, scale: float = 1.0, device: str = "scripted", unit: str = "ms") -> None:
    """Write a table of costs of the tiny space: the rule's, times `scale`."""
    from espalier.nas.cost.table import cost_table

    torch.manual_seed(0)
    space = NasBench201((1, 8, 8), 10, channels=2, cells=1)
    costs = {name: {option: scale * ms for option, ms in MS.items()} for name in space.choices()}
    provenance = {"environment": {"id": device}}
    made = cost_table(space, unit=unit, fixed=scale, costs=costs, provenance=provenance, where="test")
    made.write(Path(path))


class SlowAtFirst:
    """Takes 5.2 ms in 2 sessions and `later` in 4, whatever the file."""

    def __init__(self, later: float) -> None:
        self.later = later

    def measure(self, onnx_file: Path, spec: MeasureSpec) -> Measurement:
        return measured(5.2 if spec.sessions == 2 else self.later)


def profiled(tmp_path: Path, later: float) -> list[Measurement]:
    """What the end of the stage `profile` makes of a network and a control that took 5.2 ms, where 5 are allowed."""
    device: Any = SlowAtFirst(later)
    networks = tuple(
        TrainedNetwork(
            architecture=Architecture({"edge": f"option{i}"}),
            notation="",
            origin=origin,
            params=1,
            macs=1,
            accuracy=0.5,
            images=10,
        )
        for i, origin in enumerate(("front", "random"))
    )
    first = {network.id: measured(5.2) for network in networks}
    files = {network.id: tmp_path / network.id / "model.onnx" for network in networks}
    settings = ProfileSettings(sessions=2, seconds=0.1)
    again = measured_again(settings, files, first, 5.0, lambda: device)
    check_limit(networks, again, 5.0)
    return list(again.values())


def test_a_result_that_misses_is_measured_twice_as_long(tmp_path: Path) -> None:
    assert [row.latency_ms for row in profiled(tmp_path, 4.5)] == pytest.approx([4.5, 4.5], rel=0.02)


def test_no_result_within_the_budget_ends_the_run(tmp_path: Path) -> None:
    with user_error("budget.latency_ms", "infeasible", says=Architecture({"edge": "option0"}).id):
        profiled(tmp_path, 5.4)


def test_a_network_over_the_budget_is_no_result(tmp_path: Path) -> None:
    """Of eight networks, at 0.14 to 0.49 ms in steps of 0.05, those up to 0.3 ms are left."""
    folder = build_run(tmp_path / "run", recipe=f"{FOLDER_RECIPE}budget: {{latency_ms: 0.3}}\n")
    write_report(folder)
    rows = list(csv.DictReader((folder / "pareto.csv").read_text().splitlines()))
    assert 0 < len(rows) < NETWORKS
    assert all(float(row["latency_ci95_high_ms"]) <= 0.3 for row in rows)
    page = (folder / "report.html").read_text()
    assert "Trained, and left out for a latency over the budget of 0.3 ms: " in page
    left_out = [id_ for id_ in stage(folder, "profile") if id_ not in {row["id"] for row in rows}]
    assert all(f'id="network-{id_}"' not in page for id_ in left_out)


@pytest.mark.slow
def test_what_is_trained_was_measured_and_fits(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    """With files: a network needs 0.5 ms, 1 for each convolution and 1/4 for each pool."""
    device = ScriptedDevice()
    monkeypatch.setattr(Assembly, "open_device", lambda assembly: device)
    Path("tiny.yaml").write_text(TINY.replace("epochs: 12", "epochs: 1").replace("epochs: 3", "epochs: 1"))
    answer = nas_here(capsys, "run", "tiny.yaml", "-o", "run", "--json", "budget.latency_ms=14", "search.trials=10")
    assert answer.code == 0, answer.err
    networks = json.loads(answer.out)["networks"]
    assert networks
    assert all(network["latency_ms_ci95"][1] <= 14 for network in networks)
    rows = list(csv.DictReader(Path("run/pareto.csv").read_text().splitlines()))
    assert {row["id"] for row in rows} == {network["id"] for network in networks}
    assert all(float(row["latency_ci95_high_ms"]) <= 14 for row in rows)
