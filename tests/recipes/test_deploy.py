"""Precision and sparsity searched with the architecture: candidates are judged, trained and written as they run."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import pytest
import torch
import yaml
from nas_command import TINY, log, nas, run_is_rejected, stage

from espalier.nas.architecture import Architecture
from espalier.nas.checkpoint import read_weights
from espalier.nas.errors import Code
from espalier.nas.run import RunFolder
from espalier.nas.spaces.deployed import Deployed
from espalier.nas.task import Classification
from espalier.pruning.weights import prunable_weights
from espalier.recipes.config.loading import load_recipe
from espalier.recipes.engine.assemble import Assembly
from espalier.recipes.records.stages import read_stages, stage_keys

Capture = pytest.CaptureFixture[str]

DEPLOY = {"precision": ["fp32", "int8"], "sparsity": [0, 0.75]}
CELL = "|nor_conv_3x3~0|+|nor_conv_3x3~0|none~1|+|skip_connect~0|nor_conv_1x1~1|skip_connect~2|"


def recipe(folder: Path, **changes: Any) -> Path:
    document = yaml.safe_load(TINY)
    document["space"]["channels"] = 4
    document["search"] |= {"objectives": ["accuracy", "size_bytes"], "deploy": DEPLOY, "trials": 8}
    document["profile"]["search_seconds"] = 0.02
    for section, change in changes.items():
        document[section] = {**(document.get(section) or {}), **change}
    (folder / "deploy.yaml").write_text(yaml.safe_dump(document))
    return folder / "deploy.yaml"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("deploy")
    answer = nas("run", recipe(folder), "-o", "run", cwd=folder)
    assert answer.code == 0, answer.err
    return folder / "run"


def assembly_of(run: Path) -> Assembly:
    """The services of a finished run, to ask again what its stages asked."""
    recipe = load_recipe(str(run / "recipe.yaml"), [])
    return Assembly(recipe, RunFolder(run), stages=read_stages(run), keys=stage_keys(run))


def is_int8(path: Path) -> bool:
    return any(node.op_type == "QuantizeLinear" for node in onnx.load(path).graph.node)


@pytest.mark.slow
def test_a_run_searches_trains_and_writes_all_three(finished: Path) -> None:
    candidates = stage(finished, "search")["candidates"]
    assert {c["status"] for c in candidates} == {"complete"}
    assert {(c["architecture"]["precision"], c["architecture"]["sparsity"]) for c in candidates} == {
        (precision, sparsity) for precision in DEPLOY["precision"] for sparsity in DEPLOY["sparsity"]
    }
    assembly = assembly_of(finished)
    for network in stage(finished, "train")["networks"]:
        architecture = Architecture(network["architecture"])
        folder = finished / "architectures" / architecture.id
        weights = read_weights(folder / "model.safetensors")
        names = prunable_weights(assembly.space.build(architecture))
        numbers = sum(weights[name].numel() for name in names)
        zeros = sum(int((weights[name] == 0).sum()) for name in names)
        assert zeros == -(-float(architecture["sparsity"]) * numbers // 1)
        assert is_int8(folder / "model.onnx") == (architecture["precision"] == "int8")
        assert stage(finished, "export")[network["id"]]["size_bytes"] == (folder / "model.onnx").stat().st_size
        card = (folder / "README.md").read_text()
        assert f"in {architecture['precision']} with sparsity {architecture['sparsity']}" in card
        assert f"{(folder / 'model.onnx').stat().st_size:,} bytes" in card
    assert not log(finished, "error")
    assert "with sparsity 0.75" in (finished / "report.html").read_text()


@pytest.mark.slow
def test_the_accuracy_on_test_images_is_that_of_the_file(finished: Path) -> None:
    assembly = assembly_of(finished)
    images = assembly.splits.final_test()
    x = torch.cat([x for x, _ in assembly.batches.evaluation(images)]).contiguous().numpy()
    for id_, accuracy in stage(finished, "test")["accuracy"].items():
        path = finished / "architectures" / id_ / "model.onnx"
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        right = session.run(None, {"input": x})[0].argmax(axis=1) == images.labels.numpy()
        assert accuracy == right.mean()


@pytest.mark.slow
def test_candidates_are_what_their_files_compute(finished: Path) -> None:
    """In fp32 the file agrees with torch; in int8 with torch of numbers rounded likewise, to a few images."""
    assembly = assembly_of(finished)
    space, deployment = assembly.space, assembly.deployment
    assert isinstance(space, Deployed)
    assert deployment is not None
    accuracy = {}
    for precision in ("fp32", "int8"):
        for sparsity in DEPLOY["sparsity"]:
            architecture = space.parse(f"{CELL} in {precision} with sparsity {float(sparsity)}")
            accuracy[precision, sparsity] = assembly.predictors.make(["inherited"])["inherited"](architecture).value
    selection = assembly.batches.evaluation(assembly.splits.selection)
    for sparsity in DEPLOY["sparsity"]:
        architecture = space.parse(f"{CELL} in fp32 with sparsity {float(sparsity)}")
        network = assembly.inherited.network(
            space.network(architecture), change=partial(deployment.prune, architecture=architecture)
        )
        zeros = sum(int((weight == 0).sum()) for weight in prunable_weights(network).values())
        assert (zeros > 0) == (sparsity > 0)
        wanted = Classification(10).evaluate(network, selection, full_precision=True)
        assert accuracy["fp32", sparsity] == pytest.approx(wanted, abs=1e-9)
        assert accuracy["int8", sparsity] == pytest.approx(wanted, abs=0.05)  # 4 of 80 images
    dense = assembly.inherited(space.network(space.parse(CELL))).value
    assert accuracy["fp32", 0] == pytest.approx(dense, abs=1e-9)


@pytest.mark.slow
def test_zeros_and_fewer_bits_make_a_file_smaller(finished: Path) -> None:
    assembly = assembly_of(finished)
    deployment = assembly.deployment
    assert deployment is not None
    size = {
        (precision, sparsity): deployment.size_bytes(
            assembly.space.parse(f"{CELL} in {precision} with sparsity {sparsity}")
        ).value
        for precision in ("fp32", "int8")
        for sparsity in (0.0, 0.75)
    }
    assert size["fp32", 0.75] < 0.6 * size["fp32", 0.0]
    assert size["int8", 0.0] < 0.6 * size["fp32", 0.0]
    assert size["int8", 0.75] < size["int8", 0.0]
    assert not [path for path in finished.glob(".latency-*")]


@pytest.mark.parametrize(
    ("changes", "where", "code", "says"),
    [
        ({"search": {"deploy": {"precision": ["int4"]}}}, "search.deploy.precision.0", "unknown", "int4"),
        ({"search": {"deploy": {"sparsity": [1.0]}}}, "search.deploy.sparsity.0", "out_of_range", "1"),
        ({"search": {"deploy": {"sparsity": [0.5, 0.5]}}}, "search.deploy.sparsity", "invalid", "0.5"),
        ({"search": {"deploy": None}}, "search.objectives", "unknown", "size_bytes"),
        ({"search": {"accuracy": "naswot"}}, "search.deploy", "missing", "inherited"),
        ({"select": {"methods": ["perturbation"]}}, "search.deploy", "conflict", "select"),
        ({"budget": {"latency_ms": 5.0, "table": __file__}}, "search.deploy", "conflict", "budget"),
    ],
)
def test_what_cannot_be_combined_with_it(
    tmp_path: Path, changes: dict[str, Any], where: str, code: Code, says: str
) -> None:
    run_is_rejected(recipe(tmp_path, **changes), where=where, code=code, says=says)
