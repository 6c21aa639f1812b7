"""The agent's own rooms, run here: warm-up, inputs, the lock, the store of files, counters."""

from __future__ import annotations

import base64
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto
from onnx_files import make_file

from espalier.export.devices.agent import counters, lock, rounds
from espalier.export.devices.agent.errors import Refused
from espalier.export.devices.agent.inputs import make_inputs
from espalier.export.devices.agent.session import CPU, open_session, provider_name
from espalier.export.devices.agent.store import PREFIX, Store


class Clock:
    """Nanoseconds that pass only while `run` runs."""

    def __init__(self, durations_ms: list[float]) -> None:
        self.now = 0
        self.durations = iter(durations_ms)

    def perf_counter_ns(self) -> int:
        return self.now

    def perf_counter(self) -> float:
        return self.now / 1e9

    def run(self) -> None:
        self.now += int(next(self.durations) * 1e6)


@pytest.mark.parametrize(
    ("durations_ms", "runs"),
    [
        ([1.0] * 200, 10),  # two equal windows
        (
            [3.0] * 5 + [2.0] * 5 + [1.0] * 200,
            18,
        ),  # runs 9-13 and 14-18 are the first two windows whose medians are both 1
        ([1500.0] * 200, 2),  # two seconds are over
    ],
)
def test_warm_runs_until_stable(durations_ms: list[float], runs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(durations_ms)
    monkeypatch.setattr(rounds, "time", clock)
    assert rounds.warm(clock.run, lambda: None) == runs


def test_warm_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock([1.05**i for i in range(1000)])
    monkeypatch.setattr(rounds, "time", clock)
    monkeypatch.setattr(rounds, "WARM_MAX_SECONDS", 1e9)
    assert rounds.warm(clock.run, lambda: None) == rounds.WARM_MAX_RUNS


def test_inputs_of_every_type(tmp_path: Path) -> None:
    kinds = ["FLOAT", "FLOAT16", "DOUBLE", "UINT8", "INT8", "INT32", "INT64", "BOOL"]
    inputs = [(k, getattr(TensorProto, k), ["n", 4]) for k in kinds] + [("TABLE", TensorProto.FLOAT, [7])]
    path = str(make_file(tmp_path / "m.onnx", inputs))
    arguments = open_session(path, 1, CPU).get_inputs()
    feed = make_inputs(path, arguments, 3, 0)
    assert {name: (array.dtype.name, array.shape) for name, array in feed.items()} == {
        "FLOAT": ("float32", (3, 4)),
        "FLOAT16": ("float16", (3, 4)),
        "DOUBLE": ("float64", (3, 4)),
        "UINT8": ("uint8", (3, 4)),
        "INT8": ("int8", (3, 4)),
        "INT32": ("int32", (3, 4)),
        "INT64": ("int64", (3, 4)),
        "BOOL": ("bool", (3, 4)),
        "TABLE": ("float32", (7,)),
    }
    again = make_inputs(path, arguments, 3, 0)
    assert all(np.array_equal(feed[name], again[name]) for name in feed)
    assert not np.array_equal(feed["FLOAT"], make_inputs(path, arguments, 3, 1)["FLOAT"])


def test_threads_reach_the_runtime_and_nothing_is_profiled(onnx_file: Path) -> None:
    options = open_session(str(onnx_file), 2, CPU).get_session_options()
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (2, 1)
    assert not options.enable_profiling


def test_sessions_in_company_do_not_wait_actively(onnx_file: Path) -> None:
    options = open_session(str(onnx_file), 1, CPU, spin=False).get_session_options()
    assert options.get_session_config_entry("session.force_spinning_stop") == "1"


@pytest.mark.parametrize("name", ["cpu", "CPU", "CPUExecutionProvider"])
def test_providers_may_be_written_short(name: str) -> None:
    assert provider_name(name) == CPU
    with pytest.raises(Refused, match="'made_up'"):
        provider_name("made_up")


def test_counters_gain_only_what_has_passed() -> None:
    before = counters.read()
    sum(range(1_000_000))
    gained = counters.since(before)
    assert gained["wall_s"] is not None
    assert gained["wall_s"] > 0
    assert gained.keys() == before.keys()


def test_whoever_times_keeps_others_waiting(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))  # other tests may be timing just now
    signs: list[int] = []
    told: list[str] = []
    with (
        lock.whole_device(1.0, lambda: None, told.append),
        pytest.raises(Refused, match=f"process {os.getppid()}") as refused,
        lock.whole_device(0.2, lambda: signs.append(1), told.append),
    ):
        pass
    assert refused.value.fields["code"] == "busy"
    assert signs  # it says that it is alive while it waits
    assert len(told) == 1
    assert str(os.getppid()) in told[0]
    with lock.whole_device(0.0, lambda: None, told.append):
        pass
    assert len(told) == 1


def test_the_lock_of_a_killed_process_blocks_nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    (tmp_path / "espalier").mkdir(mode=0o700)
    (tmp_path / "espalier" / lock.FILE).write_text("process 1 (killed)")
    with lock.whole_device(0.0, lambda: None, pytest.fail):
        pass


@pytest.mark.parametrize("squat", ["link", "folder", "pipe", "others"])
def test_a_lock_that_somebody_else_prepared_is_refused_at_once(
    squat: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    folder = tmp_path / "espalier"
    folder.mkdir(mode=0o700)
    victim = tmp_path / "victim"
    victim.write_text("mine")
    if squat == "link":
        (folder / lock.FILE).symlink_to(victim)
    elif squat == "folder":
        (folder / lock.FILE).mkdir()
    elif squat == "pipe":
        os.mkfifo(folder / lock.FILE)
    else:
        folder.chmod(0o777)
    with pytest.raises(Refused) as refused, lock.whole_device(60.0, lambda: None, pytest.fail):
        pass
    assert refused.value.fields["code"] == "not_writable"
    assert victim.read_text() == "mine"


def piece(data: bytes) -> str:
    return base64.b64encode(data).decode()


def test_a_network_is_kept_by_its_hash_until_the_end(tmp_path: Path) -> None:
    folder = tmp_path / f"{PREFIX}a"
    folder.mkdir()
    store = Store(folder)
    key = "a" * 64
    store.put(key, "m.onnx", piece(b"first "), first=True)
    store.put(key, "m.onnx", piece(b"second"), first=False)
    store.put(key, "weights/a.bin", piece(b"weights"), first=True)
    hashes = [hashlib.sha256(content).hexdigest() for content in (b"first second", b"weights")]
    path = Path(store.keep(key, list(zip(["m.onnx", "weights/a.bin"], hashes, strict=True)))["path"])
    assert path.read_bytes() == b"first second"
    assert (path.parent / "weights/a.bin").read_bytes() == b"weights"
    store.drop(key)
    assert not path.parent.exists()
    store.clear()
    assert list(tmp_path.iterdir()) == []


def test_what_arrives_damaged_is_not_kept(tmp_path: Path) -> None:
    folder = tmp_path / f"{PREFIX}a"
    folder.mkdir()
    store = Store(folder)
    store.put("0" * 64, "m.onnx", piece(b"other"), first=True)
    with pytest.raises(Refused, match=r"m\.onnx"):
        store.keep("0" * 64, [("m.onnx", hashlib.sha256(b"one").hexdigest())])
    assert {path.name for path in folder.iterdir()} == {".alive"}
    for key in ("../../etc/passwd", "0" * 63, "G" * 64):
        with pytest.raises(Refused, match="hash"):
            store.put(key, "m.onnx", "", first=True)
    for name in ("../m.onnx", "/etc/passwd", "a/../../b"):
        with pytest.raises(Refused, match="folder"):
            store.put("0" * 64, name, "", first=True)
    store.clear()


def test_what_a_killed_agent_left_is_removed_by_the_next(tmp_path: Path) -> None:
    dead, alive, own, other = (tmp_path / f"{PREFIX}{name}" for name in ("dead", "alive", "own", "other"))
    for folder in (dead, alive, own, other):
        folder.mkdir()
    script = (
        "import sys; from pathlib import Path; from espalier.export.devices.agent.store import Store;"
        "store = Store(Path(sys.argv[1])); import os; os._exit(1)"
    )
    subprocess.run([sys.executable, "-c", script, str(dead)], check=False)
    assert dead.exists()
    living = Store(alive)
    Store(own).clear()
    assert {path.name for path in tmp_path.iterdir()} == {alive.name, other.name}  # `other` says nothing of itself
    living.clear()
