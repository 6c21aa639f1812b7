"""The documentation: it builds without a warning, and its commands, recipes and Python do what they say."""

from __future__ import annotations

import importlib
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from nas_command import environment, nas_here
from PIL import Image

from documentation import PAGES, ROOT, Block, blocks

BLOCKS = {path.relative_to(ROOT).as_posix(): list(blocks(path)) for path in PAGES}
LANGUAGES = {"bash", "python", "yaml", "json", "text"}
MARKS = {"not run", "run with", "slow", "fragment"}
WITH_TESTS_OF_THEIR_OWN = ("docs/api.md", "docs/extend/")
"""Pages whose blocks other tests run."""
RECIPE_KEYS = {"data", "space", "supernet", "rank", "select", "search", "train", "profile", "budget"}
SHORT_RUN = (
    *("data.limit=300", "space.channels=2", "supernet.epochs=1", "search.trials=3"),
    *("search.objectives=[accuracy,macs]", "train.front=1", "train.random=1", "train.epochs=1"),
)
"""Makes `quickstart` take seconds."""
LATER: tuple[str, ...] = ()
"""Pages that other pages link to and that are not written yet."""


def runnable(page: str) -> list[Block]:
    """The blocks of a page that a reader would run, or keep as a file."""
    found = [block for block in BLOCKS[page] if "not run" not in block.marks]
    return [block for block in found if block.language in ("bash", "python") or block.file]


def pages_to_run() -> Iterator[Any]:
    for page, found in BLOCKS.items():
        if not page.startswith(WITH_TESTS_OF_THEIR_OWN) and runnable(page):
            slow = any("slow" in block.marks for block in found)
            yield pytest.param(page, marks=pytest.mark.slow if slow else ())


def recipes() -> Iterator[Any]:
    for page, found in BLOCKS.items():
        for block in found:
            if block.language == "yaml" and not page.startswith(WITH_TESTS_OF_THEIR_OWN):
                yield pytest.param(block, id=block.where)


@pytest.mark.parametrize("page", BLOCKS)
def test_marks_are_known(page: str) -> None:
    for block in BLOCKS[page]:
        assert block.language in LANGUAGES, f"{block.where}: a block has a language, one of {sorted(LANGUAGES)}"
        assert block.marks.keys() <= MARKS, f"{block.where}: {block.marks}"
        assert block.marks.get("not run") != "", f"{block.where}: say why it is not run"
        assert not (block.language == "text" and block.text.startswith("nas ")), f"{block.where}: commands are bash"


@pytest.fixture(scope="session")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what a reader of the pages is assumed to have: images, a network, ONNX files, a table, a run."""
    from sklearn.datasets import load_digits

    folder = tmp_path_factory.mktemp("desk")
    images, labels = load_digits(return_X_y=True)
    for index, (pixels, label) in enumerate(zip(images[:300], labels[:300], strict=True)):
        place = folder / "my/images" / ("train" if index % 3 else "test") / str(label)
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray((pixels.reshape(8, 8) * 15).astype(np.uint8)).save(place / f"{index}.png")
    shutil.copytree(folder / "my/images/test/0", folder / "photos")
    for page, name in (("images", "own.py"), ("prune", "signals.py")):
        [own] = [block for block in BLOCKS[f"docs/guides/{page}.md"] if block.file == name]
        (folder / name).write_text(own.text)
    _write_onnx(folder)
    _write_table(folder / "table.csv")
    (folder / "device.json").write_text(json.dumps({"call_ms": 0.1, "operators_ms": {"*": 0.01}, "noise": 0.02}))
    device = f"profile.device=replay:{folder / 'device.json'}"
    _run_here(["run", "quickstart", "-o", str(folder / "runs/mine"), *SHORT_RUN, device])
    return folder


def _run_here(arguments: list[str]) -> None:
    """The command in this process, where no test is there yet to capture what it prints."""
    from espalier.recipes.cli.app import main

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["nas", *arguments])
        try:
            main()
        except SystemExit as exit_:
            assert not exit_.code


def _write_onnx(folder: Path) -> None:
    from torch import nn

    from espalier.export.onnx import export_onnx

    network = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    export_onnx(network.eval(), (1, 8, 8), folder / "model.onnx")
    for name in ("old.onnx", "new.onnx"):
        shutil.copy(folder / "model.onnx", folder / name)
    _write_words(folder)


def _write_words(folder: Path) -> None:
    """A classifier of token ids of any length, and tokens."""
    import onnx
    from onnx import helper, numpy_helper

    rng = np.random.default_rng(0)
    table, weight = (rng.standard_normal(size).astype(np.float32) for size in ((100, 16), (16, 3)))
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["words"]),
        helper.make_node("ReduceMean", ["words"], ["mean"], axes=[1], keepdims=0),
        helper.make_node("MatMul", ["mean", "weight"], ["logits"]),
    ]
    given = helper.make_tensor_value_info("ids", onnx.TensorProto.INT64, ["batch", "sequence"])
    returned = helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, ["batch", 3])
    tensors = [numpy_helper.from_array(table, "table"), numpy_helper.from_array(weight, "weight")]
    graph = helper.make_graph(nodes, "words", [given], [returned], tensors)
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), folder / "words.onnx"
    )
    np.savez(folder / "tokens.npz", ids=rng.integers(0, 100, (60, 16)), labels=rng.integers(0, 3, 60))


def _write_table(path: Path) -> None:
    """Cells of NAS-Bench-201 with made-up accuracies."""
    from espalier.nas.spaces.nasbench201 import NasBench201

    space = NasBench201(input_shape=(1, 8, 8), num_classes=10, channels=2, cells=1)
    generator = torch.Generator().manual_seed(0)
    cells = {space.format(space.sample(generator)) for _ in range(40)}
    rows = [f"{cell},{50 + cell.count('conv_3x3') * 5 + index / 100}" for index, cell in enumerate(sorted(cells))]
    path.write_text("\n".join(["arch,accuracy", *rows]) + "\n")


@pytest.mark.parametrize("page", list(pages_to_run()))
def test_commands(
    page: str, desk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The commands and the Python of a page, in order, in one folder."""
    shutil.copytree(desk, tmp_path, dirs_exist_ok=True)
    if any("-o runs/mine" in block.text for block in runnable(page)):
        shutil.rmtree(tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own", raising=False)
    for block in runnable(page):
        if block.file:
            (tmp_path / block.file).write_text(block.text)
        elif block.language == "python":
            exec(compile(block.text, block.where, "exec"), {"__name__": "__main__"})
        else:
            for command in block.commands():
                assert command[0] == "nas", f"{block.where}: only commands of nas are run"
                answer = nas_here(capsys, *command[1:])
                assert answer.code == 0, f"{block.where}: {' '.join(command)}\n{answer.err}"


@pytest.mark.parametrize("block", list(recipes()))
def test_recipes(block: Block) -> None:
    """A recipe is valid; a fragment is, in the place of the same keys of a recipe that ships."""
    from espalier.recipes.config.loading import recipe_from
    from espalier.recipes.config.recipe_library import shipped_recipes

    document = yaml.safe_load(block.text)
    if "not run" in block.marks or not document.keys() & RECIPE_KEYS:
        assert "not run" in block.marks, f"{block.where}: no recipe; say so"
        return
    if not {"name", "data"} <= document.keys():
        base = yaml.safe_load(shipped_recipes()[block.marks.get("fragment", "digits-darts")].read_text())
        for key, section in document.items():
            known = base.get(key)
            extends = isinstance(section, dict) and isinstance(known, dict) and "name" not in section
            base[key] = {**known, **section} if extends else section
        document = base
    recipe_from(document)


CELLS = "--space nasbench201:channels=2,cells=1 --image-size 8"
JSON_COMMANDS = {
    "run": "run quickstart -o runs/mine --resume",
    "score": "score own.py:network --scores naswot,synflow --batch-size 8",
    "profile": "profile model.onnx --operators --concurrency 1 --batch 1,2 --seconds 0.05 --sessions 2",
    "compare": "profile old.onnx new.onnx --seconds 0.05 --sessions 5",
    "prune": "prune own.py:network --target sparsity=0.5 -o out train.epochs=1 profile.device=replay:device.json",
    "quantize": "quantize own.py:network --methods fp16 -o out --device replay:device.json",
    "lut-list": f"lut build {CELLS} --list",
    "lut-build": f"lut build {CELLS} -o cells.json --device replay:device.json",
    "devices": "devices local",
}
"""A command for each schema of `docs/reference/json.md`; `rank`, `lut check` and `doctor` take too long."""


@pytest.mark.parametrize("name", JSON_COMMANDS)
def test_json_is_as_documented(
    name: str, desk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What `--json` prints fits its schema, and has no key that the page leaves out."""
    import jsonschema

    monkeypatch.syspath_prepend(ROOT / "docs/hooks")
    schemas = importlib.import_module("json_schemas")
    rows = schemas.tables((ROOT / "docs/reference/json.md").read_text())[name]
    shutil.copytree(desk, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    answer = nas_here(capsys, *JSON_COMMANDS[name].split(), "--json")
    assert answer.code == 0, answer.err
    document = json.loads(answer.out)
    jsonschema.validate(document, schemas.schema_of(rows))
    first = document[0] if isinstance(document, list) else document
    named = {re.split(r"[.\[]", path.removeprefix("[]."))[0] for path in rows}
    assert first.keys() <= named


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--site-dir", str(tmp_path / "site")],
        cwd=ROOT,
        env=environment(NO_MKDOCS_2_WARNING="1"),
        capture_output=True,
        text=True,
        check=False,
    )
    warned = [line for line in result.stderr.splitlines() if re.match("WARNING|ERROR", line)]
    warned = [line for line in warned if not any(later in line for later in LATER)]
    assert result.returncode == 0, result.stderr[-2000:]
    assert not warned, "\n".join(warned)
    pages = {path.relative_to(tmp_path / "site").as_posix() for path in (tmp_path / "site").rglob("index.html")}
    assert {"index.html", "reference/command-line/index.html", "reference/recipe/index.html"} <= pages


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md"])
def test_links_of_the_front_pages_lead_somewhere(name: str) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", (ROOT / name).read_text()):
        late = any(target.startswith(f"docs/{later}") for later in LATER)
        assert "://" in target or late or (ROOT / target).exists(), f"{name}: {target}"


def test_benchmarks_named_in_the_results_exist_with_their_options() -> None:
    sources = "\n".join(path.read_text() for path in (ROOT / "benchmarks").glob("*.py"))
    for path in (ROOT / "docs/results").glob("*.md"):
        for command in re.findall(r"python (benchmarks/[^`]*)", path.read_text()):
            script, *words = command.split()
            assert (ROOT / script).is_file(), f"{path.name}: {script}"
            for option in (word for word in words if word.startswith("--")):
                assert f'"{option}"' in sources, f"{path.name}: {script} {option}"


def test_every_method_has_its_page() -> None:
    from espalier.recipes.config.registry import listing

    index = (ROOT / "docs/methods/index.md").read_text()
    known = listing()
    for role in ("strategies", "predictors", "pruning methods"):
        for name in known[role]:
            assert f"`{name}`" in index or name == "fixed_alpha", f"{role}: {name}"


def test_nothing_names_a_folder_of_one_machine() -> None:
    for path in PAGES:
        assert not re.search(r"(?<![\w.:/])/(work|tmp|home|root)/", path.read_text()), path
