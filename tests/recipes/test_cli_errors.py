"""What a user can get wrong: exit code 2, one line that begins with the key or file, and nothing half-written."""

from __future__ import annotations

import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from nas_command import COMMAND, TINY, command, environment, leftovers, log, nas_here, refusal, start

from conftest import FinishedRun
from espalier.nas.errors import Code
from user_errors import user_error

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty current folder, but for the recipe."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(TINY)
    return tmp_path


def refused_run(capsys: Capture, *overrides: str, recipe: str = "tiny.yaml") -> str:
    """The same for a run that must not begin."""
    before = sorted(Path().rglob("*"))
    line = refusal(capsys, "run", recipe, "-o", "run", *overrides)
    assert sorted(Path().rglob("*")) == before
    return line


@pytest.mark.parametrize(
    ("overrides", "where", "code", "nearest", "says"),
    [
        ("serach.trials=3", "serach", "unknown", "search", ""),
        ("search.trails=3", "search.trails", "unknown", "trials", ""),
        ("train.augment.flop=1", "train.augment.flop", "unknown", "flip", ""),
        ("space.chanels=3", "space.chanels", "unknown", "channels", ""),
        ("search.trials=many", "search.trials", "invalid", None, ""),
        ("search.trials=0", "search.trials", "out_of_range", None, ""),
        ("search=3", "search", "invalid", None, "trials, sampler"),
        ("space=3", "space", "invalid", None, "name"),
        ("space=nasbensh201", "space", "unknown", "nasbench201", ""),
        ("space={channels: 4}", "space.name", "missing", None, ""),
        ("supernet.strategy={name: darts, ordr: 2}", "supernet.strategy.ordr", "unknown", "order", ""),
        ("supernet.strategy={name: darts, order: 3}", "supernet.strategy.order", "unknown", None, "1, 2"),
        ("supernet.strategy={name: gdas, alpha_lr: .nan}", "supernet.strategy.alpha_lr", "out_of_range", None, ""),
        ("select={methods: [argmax]}", "select.methods", "unsupported", None, "spos"),
        ("select={methods: [argmx]}", "select.methods.0", "unknown", "argmax", ""),
        ("supernet.few_shot={branches: [2]}", "supernet.few_shot", "invalid", None, "2 split_epochs"),
        ("supernet.few_shot={branches: [2, 7]}", "supernet.few_shot.branches", "infeasible", None, "7"),
        ("data=null", "data", "invalid", None, "source"),
        ("seed=1.5", "seed", "invalid", None, ""),
        ("train.lr=.nan", "train.lr", "out_of_range", None, ""),
        ("scale=true", "scale", "invalid", None, "True"),
        ("scale=.inf", "scale", "invalid", None, ""),
        ("name=a/b", "name", "invalid", None, ""),
        ("search.trials={full: x, least: 2}", "search.trials", "invalid", None, "'x' and 2"),
        ("search.trials={full: 2, least: null}", "search.trials", "invalid", None, ""),
        ("search.trials", "search.trials", "invalid", None, ""),
        ("=3", "=3", "invalid", None, ""),
        ("search..trials=3", "search..trials=3", "invalid", None, ""),
        ("search.trials.x=3", "search.trials.x", "invalid", None, ""),
        ("search.trials=[1", "search.trials", "invalid", None, ""),
        ("search.objectives=accuracy", "search.objectives", "invalid", None, "'accuracy'"),
        ("search.objectives=[]", "search.objectives", "out_of_range", None, ""),
        ("search.objectives=[acuracy]", "search.objectives", "unknown", "accuracy", ""),
        ("search.objectives=[macs, macs]", "search.objectives", "invalid", None, "macs"),
        ("search.constraints=[parms <= 3]", "search.constraints", "unknown", "params", ""),
        ("search.constraints=[params < 3]", "search.constraints", "invalid", None, "name <= number"),
        ("search.sampler=nsga", "search.sampler", "unknown", "nsga2", ""),
        ("search.accuracy=inherted", "search.accuracy", "unknown", "inherited", ""),
        ("supernet=null", "search.accuracy", "unknown", None, "supernet"),
        ("supernet.strategy=sposs", "supernet.strategy", "unknown", "spos", ""),
        ("train.optimizer=admw", "train.optimizer", "invalid", None, ""),
        ("train.predictors=[parms]", "train.predictors.0", "unknown", "params", ""),
        ("profile.device=locl", "profile.device", "unknown", "local", ""),
        ("profile.threads=0", "profile.threads", "out_of_range", None, ""),
        ("profile.batch=0", "profile.batch", "out_of_range", None, ""),
        ("data.source=digit", "data.source", "unknown", "digits", ""),
        ("data.split.train=0.9", "data.split", "invalid", None, "1.4"),
        ("data.path=x", "data.path", "conflict", None, ""),
        ("data.source=npz", "data.path", "missing", None, ""),
        ("data.source=npz data.path=no.npz", "data.path", "not_found", None, "no.npz"),
        ("data.source=npz data.path=tiny.yaml", "tiny.yaml", "unreadable", None, ""),
        ("data.source=parquet data.path=tiny.yaml", "tiny.yaml", "unreadable", None, ""),
        ("data.source=folder data.path=tiny.yaml", "tiny.yaml", "not_found", None, ""),
        ("data.limit=5", "data.limit", "too_few", None, "5 images"),
        ("data.size=7", "data.size", "unsupported", None, "by 4"),
        ("rank={target: x}", "rank.table", "missing", None, ""),
        ("rank={table: no.csv, target: x}", "rank.table", "not_found", None, "no.csv"),
    ],
)
def test_wrong_overrides(overrides: str, where: str, code: Code, nearest: str | None, says: str) -> None:
    given = overrides.split() if overrides.startswith("data.source=") else [overrides]
    before = sorted(Path().rglob("*"))
    with user_error(where, code, nearest=nearest, says=says):
        command("run", "tiny.yaml", "-o", "run", *given)
    assert sorted(Path().rglob("*")) == before


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"a: [1,", "YAML"),
        (b"- 1\n- 2\n", "a recipe is a mapping of sections; allowed: name, "),
        (b"", "a recipe is a mapping of sections"),
        (b"hello", "a recipe is a mapping of sections"),
        (bytes(range(256)), "UTF-8"),
        (b"\0\0\0", "YAML"),
        (b"a: !!python/object/apply:os.getcwd []", "python/object"),
        (b"a: " + b"[" * 3000, "50 levels"),
    ],
)
def test_files_that_are_no_recipe(capsys: Capture, content: bytes, what: str) -> None:
    Path("bad.yaml").write_bytes(content)
    line = refused_run(capsys, recipe="bad.yaml")
    assert line.startswith("bad.yaml: ")
    assert what in line


def test_recipes_that_are_not_there(capsys: Capture) -> None:
    assert refused_run(capsys, recipe="quickstrt").endswith("did you mean 'quickstart'?")
    assert refused_run(capsys, recipe="no.yaml") == "no.yaml: no such recipe file"
    assert "neither a file nor a recipe that ships" in refused_run(capsys, recipe=".")


def images(count: int, size: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (count, size, size), dtype=np.uint8)


@pytest.mark.parametrize(
    ("arrays", "split", "where", "what"),
    [
        ({"x_train": images(60, 30), "y_train": np.arange(60) % 3}, 0.2, "data.size", "30x30 is not divisible by 4"),
        (
            {
                **{"x_train": images(60, 8), "y_train": np.arange(60) % 3},
                **{"x_test": images(20, 8), "y_test": np.arange(20) % 4},
            },
            0.0,
            "data.path",
            "the training images have 3 classes, the test images 4",
        ),
        ({"x_train": images(6, 8), "y_train": np.arange(6) % 3}, 0.2, "data.split", "class '0' has 2 images, too few"),
        ({"x_train": images(60, 8), "y_train": np.zeros(60, int)}, 0.2, "data", "of one class, '0'"),
        (
            {"x_train": np.zeros((60, 8, 8), np.uint8), "y_train": np.arange(60) % 3},
            0.2,
            "data",
            "channel 0 is constant",
        ),
    ],
)
def test_images_that_will_not_do(
    capsys: Capture, arrays: dict[str, np.ndarray], split: float, where: str, what: str
) -> None:
    np.savez("images.npz", **arrays)  # type: ignore[arg-type]
    shares = f"data.split={{train: {0.7 - split}, architecture: 0.1, selection: 0.2, test: {split}}}"
    line = refused_run(capsys, "data.source=npz", "data.path=images.npz", "data.limit=null", shares)
    assert line.startswith(f"{where}: ")
    assert what in line


GOOD_ROW = "|none~0|+|none~0|none~1|+|none~0|none~1|nor_conv_3x3~2|,90\n"


@pytest.mark.parametrize(
    ("table", "what"),
    [
        ("architecture,c10_test\n", "rank.table: table.csv has no column 'arch'"),
        ("arch,c10_tst\n" + GOOD_ROW, "rank.table: table.csv has no column 'c10_test'; allowed: arch, c10_tst; did"),
        ("arch,c10_test\n" + GOOD_ROW, "rank.samples: the table has 1 architectures, not 3"),
        ("arch,c10_test\n" + GOOD_ROW + "|nor_conv~0|,90\n", "table.csv, line 3: "),
        ("arch,c10_test\n" + GOOD_ROW + GOOD_ROW.replace("90", "good"), "table.csv, line 3: c10_test must be a number"),
        (
            "arch,c10_test\n" + GOOD_ROW + GOOD_ROW.replace("nor_conv_3x3", "conv"),
            "table.csv, line 3: unknown operation",
        ),
    ],
)
def test_rank_tables_are_read_before_anything_is_trained(capsys: Capture, table: str, what: str) -> None:
    Path("table.csv").write_text(table)
    assert refused_run(capsys, "rank={table: table.csv, target: c10_test, samples: 3}").startswith(what)


def test_where_a_run_cannot_go(capsys: Capture, here: Path) -> None:
    (here / "file").write_text("")
    (here / "full").mkdir()
    (here / "full" / "mine").write_text("")
    before = sorted(here.rglob("*"))
    cases = {
        "file": "must be a folder",
        "file/run": "must be a folder",
        "/proc/run": "cannot be written",
        "a" * 300: "File name too long",
        "full": "--resume",
    }
    for folder, what in cases.items():
        line = refusal(capsys, "run", "tiny.yaml", "-o", folder)
        assert line.startswith(f"{folder}: ")
        assert what in line
    for folder in ("full", "none"):
        with user_error(folder, "not_found"):
            command("run", "tiny.yaml", "-o", folder, "--resume")
    with user_error("runs", "not_found", says="tiny"):
        command("run", "tiny.yaml", "--resume")
    assert sorted(here.rglob("*")) == before


def test_impossible_constraints_name_the_nearest_miss(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("espalier.nas.search.loop.MAX_REJECTED", 10)
    small = ("supernet.epochs=1", "search.constraints=[params <= 5]")
    line = refusal(capsys, "run", "tiny.yaml", "-o", "run", *small)
    assert line.startswith("search.constraints: none of ")
    assert line.endswith("the nearest miss has params = 1296, not params <= 5")


def test_a_training_that_diverges_names_its_learning_rate(capsys: Capture) -> None:
    line = refusal(capsys, "run", "tiny.yaml", "-o", "run", "supernet.lr=1e9", "supernet.clip_grad_norm=null")
    assert line.startswith("supernet.lr: the training loss is nan in epoch ")


@pytest.mark.parametrize(
    ("content", "what"),
    [(b"", "not an ONNX file"), (b"hello", "not an ONNX file"), (None, "no such file")],
)
def test_profile_of_what_is_no_network(capsys: Capture, content: bytes | None, what: str) -> None:
    if content is not None:
        Path("x.onnx").write_bytes(content)
    line = refusal(capsys, "profile", "x.onnx", "--sessions", 2, "--seconds", 0.05)
    assert line.startswith("x.onnx: ")
    assert what in line


def test_profile_with_wrong_options(capsys: Capture, finished_run: FinishedRun) -> None:
    file = next(finished_run.folder.glob("architectures/*/model.onnx"))
    Path("half.onnx").write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    assert refusal(capsys, "profile", "half.onnx").startswith("half.onnx: not an ONNX file")
    assert refusal(capsys, "profile", ".") == ".: no such file"
    for option in ("batch", "threads", "sessions", "seconds"):
        line = refusal(capsys, "profile", file, f"--{option}", 0)
        assert line.startswith(f"--{option}: ")
        assert "not 0" in line
    assert refusal(capsys, "profile", file, "--device", "locl").endswith("did you mean 'local'?")


def damage_record(run: Path) -> str:
    (run / "stages" / "search.json").write_text("{")
    return "stages/search.json: not valid JSON"


def empty_record(run: Path) -> str:
    (run / "stages" / "search.json").write_text("[]")
    return "stages/search.json: has no checksum"


def edit_record(run: Path) -> str:
    path = run / "stages" / "search.json"
    path.write_text(path.read_text().replace('"accuracy": 0.', '"accuracy": 1.', 1))
    return "stages/search.json: was edited or damaged"


def damage_supernet(run: Path) -> str:
    (run / "stages" / "search.json").unlink()
    (weights,) = run.glob("checkpoints/*.safetensors")
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1  # one bit of one weight
    weights.write_bytes(content)
    return f"checkpoints/{weights.name}: was edited or damaged"


def damage_checkpoint(run: Path) -> str:
    (run / "stages" / "supernet.json").unlink()
    (weights,) = run.glob("checkpoints/*.safetensors")
    name = weights.name.replace("-root.safetensors", ".pt")
    weights.with_name(name).write_bytes(b"junk")
    return f"checkpoints/{name}: damaged checkpoint ("


def damage_strategy(run: Path) -> str:
    (run / "stages" / "search.json").unlink()
    (run / "study.journal").unlink()
    (state,) = run.glob("checkpoints/strategy-*.pt")
    state.write_bytes(b"junk")
    return f"checkpoints/{state.name}: was edited or damaged"


def damage_network(run: Path) -> str:
    (run / "stages" / "export.json").unlink()
    for weights in run.glob("architectures/*/model.safetensors"):
        weights.write_bytes(b"123")
    first = min(path.name for path in run.glob("architectures/*"))
    return f"architectures/{first}/model.safetensors: was edited or damaged"


def damage_export(run: Path) -> str:
    (run / "stages" / "profile.json").unlink()
    network = min(run.glob("architectures/*/model.onnx"))
    network.write_bytes(network.read_bytes() + b"0")
    return f"architectures/{network.parent.name}/model.onnx: was edited or damaged"


@pytest.mark.parametrize(
    "damage",
    [
        damage_record,
        empty_record,
        edit_record,
        damage_supernet,
        damage_checkpoint,
        damage_strategy,
        damage_network,
        damage_export,
    ],
)
def test_damaged_files_are_named(
    capsys: Capture, finished_run: FinishedRun, here: Path, damage: Callable[[Path], str]
) -> None:
    run = here / "run"
    shutil.copytree(finished_run.folder, run)
    expected = damage(run)
    assert refusal(capsys, "run", "tiny.yaml", "-o", run, "--resume").startswith(f"{run}/{expected}")


def test_one_process_at_a_time_in_a_run_folder(capsys: Capture, here: Path) -> None:
    run = here / "run"
    first = start("run", "tiny.yaml", "-o", run, "supernet.epochs=100000", cwd=here)
    try:
        deadline = time.monotonic() + 120
        while not log(run, "supernet"):
            assert first.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        line = refusal(capsys, "run", "tiny.yaml", "-o", run, "--resume")
        assert line == f"{run}: another process is using this run folder"
        assert first.poll() is None
    finally:
        first.kill()
        first.communicate()


def limit_file_size() -> None:
    """No file of this process may grow beyond 40 kB: writing further fails, as on a full disk."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))


def test_a_disk_that_fills_up(here: Path) -> None:
    command = [*COMMAND, "run", "tiny.yaml", "-o", "run", "space.channels=16"]
    ended = subprocess.run(
        command,
        cwd=here,
        env=environment(),
        preexec_fn=limit_file_size,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 2, ended.stderr
    last = ended.stderr.splitlines()[-1]
    assert last.startswith("error: run/checkpoints/")
    assert last.endswith("cannot be written: File too large")
    assert "Traceback" not in ended.stderr
    assert leftovers(here / "run") == []
    assert list((here / "run" / "checkpoints").iterdir()) == []
    assert [row["stage"] for row in log(here / "run", "finished")] == ["data"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["profle", "x"], "error: No such command 'profle'. Did you mean 'profile'?"),
        (["profile", "x", "--sessions", "x"], "error: Invalid value for '--sessions': "),
        (["run", "quickstart", "--foo"], "error: No such option: --foo"),
        (["run"], "error: Missing argument 'recipe'."),
    ],
)
def test_a_wrong_command_line_is_one_line(
    capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    answer = nas_here(capsys, *arguments)
    assert answer.code == 2
    assert answer.err.startswith(message)
    assert len(answer.err.splitlines()) == 1
