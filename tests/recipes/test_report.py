"""The report: its numbers, its sentences, and that whatever a run folder holds cannot break the page."""

from __future__ import annotations

import csv
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from run_folder import ALL_STAGES, RECIPE, build_run, few_shot, make_outputs

from espalier.nas.errors import Code
from espalier.nas.files import write_json
from espalier.nas.intervals import Proportion
from espalier.nas.run import RunFolder
from espalier.recipes.records.reading import load_run
from espalier.recipes.report import write_report
from espalier.recipes.report.drawing import draw
from espalier.recipes.report.narrative import correlation, milliseconds, rejections, summary
from espalier.recipes.report.networks import gather_networks
from espalier.recipes.report.page import figure_json, flat
from user_errors import user_error

HOSTILE = '</script><script>alert(1)</script><img src=x onerror="alert(2)">&amp;'


class Page(HTMLParser):
    """All attributes, all figures, the ids, and the text outside scripts and styles."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.figures: dict[str, Any] = {}
        self.text = ""
        self._inside = ("", {})  # type: tuple[str, dict[str, str | None]]
        self.feed(html)
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._inside = (tag, dict(attrs))
        self.tags.append(self._inside)

    def handle_endtag(self, tag: str) -> None:
        self._inside = ("", {})

    def handle_data(self, data: str) -> None:
        tag, attributes = self._inside
        if name := attributes.get("data-plot"):
            self.figures[name.removeprefix("plot-")] = json.loads(data)
        elif tag not in ("script", "style"):
            self.text += data


def read(path: Path) -> Page:
    return Page(path.read_text())


def change(run: Path, stage: str, outputs: Any) -> None:
    RunFolder(run).finish(stage, "0", outputs)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = build_run(tmp_path_factory.mktemp("run"))
    write_report(run)
    return run


@pytest.fixture(scope="module")
def page(finished: Path) -> Page:
    return read(finished / "report.html")


def test_wilson_interval_by_hand() -> None:
    # (p + z²/2n ± z √(p(1-p)/n + z²/4n²)) / (1 + z²/n) with p = 0.8, n = 10, z = 1.959964
    share = Proportion.of(0.8, 10)
    assert (share.low, share.high) == pytest.approx((0.490162, 0.943318), abs=1e-6)
    assert Proportion.of(1.0, 10).high == pytest.approx(1.0)
    assert Proportion.of(1.0, 10).low == pytest.approx(10 / (10 + 1.959964**2), abs=1e-6)


def test_front_is_of_test_accuracy_and_measured_latency(tmp_path: Path) -> None:
    outputs = make_outputs()
    ids = [n["id"] for n in outputs["train"]["networks"]]
    points = [(0.80, 0.1), (0.90, 0.2), (0.85, 0.3), (0.95, 0.4), (0.95, 0.4), (0.95, 0.5), (0.70, 0.1), (0.99, 0.9)]
    outputs["test"]["accuracy"] = {id: accuracy for id, (accuracy, _) in zip(ids, points, strict=True)}
    run = build_run(tmp_path)
    change(run, "test", outputs["test"])
    for id, (_, latency) in zip(ids, points, strict=True):
        outputs["profile"][id]["latency"]["p50"] = latency
    change(run, "profile", outputs["profile"])
    networks = {n.id: n for n in gather_networks(load_run(run))}
    # 2 and 5 and 6 are dominated; 3 and 4 are equal, so neither dominates the other
    assert [networks[id].on_front for id in ids] == [True, True, False, True, True, False, False, True]


def test_a_network_that_was_not_tested_or_timed_is_on_no_front(tmp_path: Path) -> None:
    outputs = make_outputs()
    first, second, *_ = outputs["test"]["accuracy"]
    del outputs["test"]["accuracy"][first], outputs["profile"][second]
    run = build_run(tmp_path)
    change(run, "test", outputs["test"])
    change(run, "profile", outputs["profile"])
    networks = {n.id: n for n in gather_networks(load_run(run))}
    assert networks[first].accuracy is None  # the selection accuracy does not stand in for it
    assert not networks[first].on_front
    assert not networks[second].on_front
    page = read(write_report(run))
    drawn = {id for trace in page.figures["pareto"]["data"] for id in trace.get("customdata", [])}
    assert drawn == set(networks) - {first, second}
    assert "2 networks without a test accuracy or a measured latency are not drawn." in page.text


def test_pareto_csv(finished: Path) -> None:
    with (finished / "pareto.csv").open(newline="") as file:
        rows = {row["id"]: row for row in csv.DictReader(file)}
    outputs = make_outputs()
    assert set(rows) == {n["id"] for n in outputs["train"]["networks"]}
    id = outputs["train"]["networks"][0]["id"]
    row, latency = rows[id], outputs["profile"][id]["latency"]
    assert float(row["accuracy"]) == outputs["test"]["accuracy"][id]
    assert row["accuracy_split"] == "test"
    assert row["images"] == "360"
    assert float(row["latency_p50_ms"]) == latency["p50"]
    assert [float(row["latency_ci95_low_ms"]), float(row["latency_ci95_high_ms"])] == list(latency["ci95"])
    assert row["on_front"] == "true"
    assert row["notation"] == outputs["train"]["networks"][0]["notation"]


def test_pareto_csv_leaves_unknown_numbers_empty(tmp_path: Path) -> None:
    write_report(build_run(tmp_path, stages=("train",)))
    with (tmp_path / "pareto.csv").open(newline="") as file:
        row = next(csv.DictReader(file))
    assert row["accuracy_split"] == "selection"
    assert row["accuracy"]
    assert row["latency_p50_ms"] == row["latency_verdict"] == ""
    assert row["on_front"] == "false"


def test_nothing_comes_from_the_network(page: Page) -> None:
    loading = ("src", "href", "srcset", "action", "data", "poster", "xlink:href")
    links = [value or "" for _, attributes in page.tags for key, value in attributes.items() if key in loading]
    assert links
    assert [link for link in links if re.match(r"\s*(\w+:)?//", link)] == []
    policy = next(a["content"] for tag, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy and "default-src 'none'" in policy


def test_plotly_is_in_the_page_once(finished: Path) -> None:
    assert (finished / "report.html").read_text().count("* plotly.js v") == 1


def test_links_lead_to_files_that_are_there(finished: Path, page: Page) -> None:
    ids = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    links = [a["href"] or "" for tag, a in page.tags if tag == "a"]
    files = [link for link in links if not link.startswith("#")]
    assert len(files) == 4 * 8
    assert all((finished / link).is_file() for link in files)
    assert all(link[1:] in ids for link in links if link.startswith("#"))


def test_every_stage_is_drawn(page: Page) -> None:
    assert set(page.figures) == {"pareto", "search", "supernet", "curves", "latency", "estimates", "rank"}
    front, found, random = page.figures["pareto"]["data"]
    assert len(found["x"]) == 6
    assert len(random["x"]) == 2
    assert sorted(front["x"]) == front["x"]
    for name, figure in page.figures.items():
        axes = [axis for key, axis in figure["layout"].items() if re.fullmatch(r"[xy]axis\d?", key)]
        assert all(axis["title"].get("text") or name == "latency" for axis in axes), name


def test_estimates_and_measurements_are_told_apart(page: Page) -> None:
    assert "measured (ms)" in page.figures["pareto"]["layout"]["xaxis"]["title"]["text"]
    assert page.figures["search"]["layout"]["xaxis"]["title"]["text"] == "latency_ms, as the search saw it"


def test_summary(finished: Path) -> None:
    run = load_run(finished)
    front = len(make_outputs()["search"]["front"])
    text = " ".join(summary(run, gather_networks(run)))
    assert f" Of 40 architectures evaluated in the search, {front} are on its estimated front. " in text
    # 349 of 359 selection images are the most; it has 0.9681 of 360 test images
    assert "most accurate on the selection images reaches 96.8 % of 360 test images (95 % interval 94.6–98.3)" in text
    assert text.endswith("a stable measurement.")


def test_methods_that_agree_are_named_together(tmp_path: Path) -> None:
    select = make_outputs()["select"]
    run = build_run(tmp_path)
    ids = [one["id"] for one in select["chosen"]]
    assert read(write_report(run)).text.count(f"argmax chose {ids[0]} and perturbation chose {ids[1]}.") == 2
    select["chosen"][1]["architecture"] = select["chosen"][0]["architecture"]
    change(run, "select", select)
    assert f"From the supernet, argmax and perturbation chose {ids[0]}." in read(write_report(run)).text


def test_a_recipe_without_search(tmp_path: Path) -> None:
    recipe = "\n".join("search: null" if line.startswith("search:") else line for line in RECIPE.splitlines())
    run = build_run(tmp_path, stages=[stage for stage in ALL_STAGES if stage != "search"], recipe=recipe)
    outputs = make_outputs()
    for network, origin in zip(outputs["train"]["networks"], ["argmax", "perturbation"] * 4, strict=True):
        network["origin"] = origin
    change(run, "train", outputs["train"])
    page = read(write_report(run))
    assert "No candidates: this recipe has no search stage." in page.text
    _, *kinds = page.figures["pareto"]["data"]
    assert {kind["name"]: len(kind["x"]) for kind in kinds} == {
        "argmax of the supernet": 4,
        "perturbation of the supernet": 4,
    }
    assert page.text.count("chosen by perturbation") == 4


def test_what_decisions_rest_on(page: Page) -> None:
    """359 images tell accuracies 100 / 359 = 0.28 points apart."""
    for row in (
        "edge_1_0 keeps nor_conv_3x3 accuracy 6.13 ± 1.28 points 0.28",
        "edge_2_0 keeps skip_connect loss 0.00420 ± 0.00310 nats 0.28",
        "node_3 drops edge_3_1, in the end keeps (0, 2) loss 0.0871 ± 0.0102 nats 0.28",
    ):
        assert row.replace(" ", "") in page.text.replace(" ", "")
    assert "1 of 3 have a margin within two standard errors and may be chance." in page.text


def test_what_a_supernet_followed_is_drawn(page: Page) -> None:
    figure = page.figures["supernet"]
    titles = [figure["layout"][f"yaxis{n}"]["title"]["text"] for n in ("", "2", "3", "4")]
    assert titles == ["expected ms", "eigenvalue in α", "entropy of the gates", "training loss (nats)"]
    assert {trace["yaxis"]: trace["y"][-1] for trace in figure["data"]}["y3"] == pytest.approx(0.7)
    assert "Collapsing: 6 of 6 choices prefer an operation without parameters." in page.text
    assert "(by chance 3.6); entropy 0.700; eigenvalue" in page.text
    assert "generalisation gap +0.31 nats, right on 97.0 % of training, 90.0 % of validation images." in page.text


def test_a_divided_space(tmp_path: Path) -> None:
    run, outputs = build_run(tmp_path), few_shot()
    outputs["parts"][1] |= {"stopped": "after epoch 30", "diagnosis": None}
    for part in outputs["parts"]:
        part["rows"] = [{key: row[key] for key in ("epoch", "loss")} for row in part["rows"]]
    change(run, "supernet", outputs)
    page = read(write_report(run))
    figure = page.figures["supernet"]
    assert [trace["name"] for trace in figure["data"]] == ["root.0", "root.1"]  # the loss is all that is known
    assert "root.1: The training ended early: after epoch 30." in page.text
    assert "root.0: Collapsing" in page.text
    assert "none, nor_conv_1x1 | skip_connect, nor_conv_3x3, avg_pool_3x3" in page.text
    assert "46,080" in page.text
    outputs["splits"]["root"] |= {"similarity": None, "agreement": None, "options": []}
    change(run, "supernet", outputs)
    text = read(write_report(run)).text
    assert "0, 2 | 1, 3, 4" in text
    assert "drawn at random" in text


def test_few_networks_are_warned_of(page: Page) -> None:
    assert page.text.count("these intervals are wide") == 1  # n = 8 networks, but n = 200 of the benchmark
    assert "n = 8: these intervals are wide" in page.text


def test_verdicts_and_the_fallback_are_explained(page: Page) -> None:
    assert "Other work shared the processor" in page.text
    assert "the dynamo exporter failed: unsupported operator aten::x" in page.text


def test_equal_reasons_are_counted_together(finished: Path) -> None:
    search = load_run(finished).stages.search
    assert search is not None
    assert rejections(search) == [("infeasible", "params <= 600000", 3), ("failed", "inherited is nan", 1)]


@pytest.mark.parametrize("count", range(len(ALL_STAGES)))
def test_unfinished_runs(tmp_path: Path, count: int) -> None:
    page = read(write_report(build_run(tmp_path, stages=ALL_STAGES[:count])))
    assert "has not finished" in page.text or count >= ALL_STAGES.index("profile") + 1
    assert ("pareto" in page.figures) == ("profile" in ALL_STAGES[:count])


def test_a_stage_that_the_recipe_lacks(tmp_path: Path) -> None:
    recipe = "\n".join(line for line in RECIPE.splitlines() if not line.startswith(("rank", "supernet")))
    stages = [stage for stage in ALL_STAGES if stage not in ("rank", "supernet")]
    page = read(write_report(build_run(tmp_path, stages=stages, recipe=recipe)))
    assert "this recipe has no rank stage" in page.text
    assert "this recipe has no supernet stage" in page.text
    assert "has not finished" not in page.text


def test_one_objective_is_drawn_by_trial(tmp_path: Path) -> None:
    search = make_outputs()["search"]
    search["objectives"] = search["objectives"][:1]
    run = build_run(tmp_path)
    change(run, "search", search)
    figure = read(write_report(run)).figures["search"]
    assert figure["layout"]["xaxis"]["title"]["text"] == "trial"
    assert 0 in [x for trace in figure["data"] for x in trace["x"]]


def test_hostile_text_stays_text(tmp_path: Path) -> None:
    outputs = make_outputs()
    network = outputs["train"]["networks"][0]
    network["notation"] = network["diagram"][0][2] = HOSTILE
    network["estimates"][HOSTILE] = {"value": 1.0, "unit": HOSTILE, "status": "ok", "higher_is_better": False}
    outputs["data"]["name"] = outputs["search"]["candidates"][40]["reason"] = HOSTILE
    outputs["search"]["objectives"][0]["name"] = HOSTILE
    outputs["test"]["correlations"][0]["name"] = HOSTILE
    outputs["supernet"]["strategy"] = outputs["rank"]["target"] = HOSTILE
    part = outputs["supernet"]["parts"][0]
    part["name"] = part["stopped"] = part["diagnosis"]["verdict"] = HOSTILE
    part["rows"][0][f"expected_{HOSTILE}"] = 1.0
    for records in outputs["select"].values():
        for record in records:
            record.update(dict.fromkeys(record.keys() - {"comparisons", "accuracy", "architecture"}, HOSTILE))
    outputs["supernet"]["splits"] = few_shot()["splits"]
    outputs["supernet"]["splits"]["root"] |= {"choice": HOSTILE, "options": [HOSTILE] * 5}
    harmless = read(write_report(build_run(tmp_path / "harmless")))
    named = re.sub(r"description: .*", lambda _: f"description: '{HOSTILE}'", RECIPE)
    run = build_run(tmp_path / "hostile", recipe=named)
    for stage, output in outputs.items():
        change(run, stage, output)
    write_json(run / "environment.json", {HOSTILE: HOSTILE})
    page = read(write_report(run))
    count = lambda p, tag: sum(1 for name, _ in p.tags if name == tag)  # noqa: E731
    assert count(page, "script") == count(harmless, "script")
    assert count(page, "img") == 0
    assert HOSTILE.split("&", maxsplit=1)[0] in page.text
    assert "<img" not in json.dumps(page.figures)


def test_figure_json_cannot_end_its_script() -> None:
    from plotly.graph_objects import Figure

    figure = Figure(layout={"title": {"text": "</script>&<!--"}})
    text = str(figure_json(figure))
    assert not set("<>&") & set(text)
    assert json.loads(text)["layout"]["title"]["text"] == "</script>&<!--"


@pytest.mark.parametrize(
    ("break_it", "file", "code"),
    [
        (lambda run: (run / "recipe.yaml").unlink(), "recipe.yaml", "not_found"),
        (lambda run: (run / "recipe.yaml").write_text("- 1"), "recipe.yaml", "unreadable"),
        (lambda run: (run / "recipe.yaml").write_text("a: ["), "recipe.yaml", "unreadable"),
        (lambda run: (run / "stages" / "train.json").write_text("{"), "stages/train.json", "unreadable"),
        (lambda run: (run / "stages" / "train.json").write_text("{}"), "stages/train.json", "unreadable"),
        (lambda run: change(run, "test", {"images": "many", "accuracy": {}}), "stages/test.json", "unreadable"),
        (lambda run: (run / "environment.json").write_text("[]"), "environment.json", "unreadable"),
    ],
)
def test_damaged_files_are_named_and_nothing_is_written(tmp_path: Path, break_it: Any, file: str, code: Code) -> None:
    run = build_run(tmp_path)
    break_it(run)
    with user_error(file, code):
        write_report(run)
    assert not (run / "report.html").exists()


def test_a_damaged_result_is_named_by_its_key(tmp_path: Path) -> None:
    run = build_run(tmp_path)
    change(run, "test", {"images": "many", "accuracy": {}})
    with user_error("stages/test.json", "unreadable", says="outputs.images"):
        write_report(run)


def test_cell_drawing() -> None:
    edges = [tuple(edge) for edge in make_outputs()["train"]["networks"][0]["diagram"]]
    operations = [operation for _, _, operation in edges if operation != "none"]
    svg = draw(edges)  # type: ignore[arg-type]
    assert svg.count("<rect") == 4
    assert svg.count('class="operation"') == len(operations)
    assert svg.count('class="edge nothing"') == 6 - len(operations)
    assert f"input to 1: {edges[0][2]};" in svg


def test_overlapping_arcs_share_no_lane() -> None:
    nodes = "abcdef"
    svg = draw([(a, b, f"{a}{b}") for i, a in enumerate(nodes) for b in nodes[i + 1 :]])
    places = re.findall(r'class="operation" x="([\d.]+)" y="([\d.]+)"', svg)
    assert len(places) == 15
    assert len(set(places)) == 15


@pytest.mark.parametrize("length", [1, 2, 7, 30])
def test_chain_drawing_wraps(length: int) -> None:
    edges = [(f"block{i}", f"block{i + 1}", "conv_5x5") for i in range(length)]
    svg = draw(edges)
    width = float(re.findall(r'viewBox="0 0 ([\d.]+)', svg)[0])
    assert width <= 660
    assert svg.count("conv 5×5") == length
    assert svg.count("<rect") == length + 1


def test_nothing_to_draw() -> None:
    assert draw([]) == ""


def test_numbers_in_words() -> None:
    assert milliseconds(0.4) == "0.400 ms"
    assert milliseconds(123.4) == "123 ms"
    assert correlation(-0.041, (-0.13, 0.05)) == "−0.04 (−0.13 to 0.05)"
    assert correlation(None, None) == "not defined"
    assert correlation(0.5, (None, None)) == "0.50"
    assert dict(flat({"a": {"b": [1, 2]}, "c": None})) == {"a.b": "1, 2", "c": "none recorded"}


@pytest.mark.parametrize(
    "recipe",
    [
        "name: tiny\n",
        "{}\n",
        "name: [1]\nsearch: 5\nbudget: 3\ndescription: {a: 1}\n",
        "description: null\nsearch: {accuracy: [1]}\nbudget: {latency_ms: yes}\n",
        "\n".join(line for line in RECIPE.splitlines() if not line.startswith("description")),
    ],
)
def test_whatever_a_recipe_lacks_the_report_is_written(tmp_path: Path, recipe: str) -> None:
    page = read(write_report(build_run(tmp_path, recipe=recipe)))
    assert "Environment and recipe" in page.text
