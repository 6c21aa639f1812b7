"""Devices over ssh: a real server, cut connections, and every way not to get there."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
from board import Board, make_key, until
from onnx import TensorProto
from onnx_files import make_file

from espalier.export.devices import connection
from espalier.export.devices.address import open_device
from espalier.export.devices.agent_device import ATTEMPTS
from espalier.export.devices.base import MeasureSpec
from espalier.export.devices.location import parse
from espalier.export.devices.ssh import FORM, OPTIONS, SshDevice
from espalier.nas.errors import UserError
from user_errors import user_error

QUICK = MeasureSpec(threads=1, sessions=3, seconds=0.03, min_runs=3)


def cut_after(op: str, count: int, cut: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut when the request `op` has been written for the `count`th time, and so is being worked on."""
    write, left = connection.Connection._write, [count]

    def cutting(self: connection.Connection, content: bytes) -> None:
        write(self, content)
        if content.startswith(f'{{"op": "{op}"'.encode()):
            left[0] -= 1
            if left[0] == 0:
                cut()

    monkeypatch.setattr(connection.Connection, "_write", cutting)


@pytest.fixture
def two_files(onnx_file: Path, tmp_path: Path) -> list[Path]:
    return [onnx_file, make_file(tmp_path / "other.onnx", [("x", TensorProto.FLOAT, ["n", 4])])]


def device_on(board: Board, **options: object) -> SshDevice:
    """The board, asked again at once where it was lost."""
    return SshDevice(board.address(**options).removeprefix("ssh:"), where="device", pause_s=0.0)


@pytest.mark.parametrize(("op", "count"), [("round", 2), ("put", 2), ("fingerprint", 2)])
def test_a_cut_connection_loses_nothing(
    board: Board, two_files: list[Path], op: str, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = device_on(board)
    first = device.fingerprint()
    cuts: list[int] = []
    cut_after(op, count, lambda: cuts.append(len(board.processes())) or board.cut(), monkeypatch)
    device.fingerprint()
    measurements = device.measure_together(two_files, QUICK)
    device.close()
    assert cuts  # it was cut
    assert cuts[0] > 0  # and there were processes on the board then
    for measurement in measurements:
        assert measurement.environment["id"] == first["id"]
        assert len(measurement.environment["cold_start_ms"]) == 3
        assert measurement.latency.count == 3 * measurement.environment["runs_per_session"]
    until(board.is_clean)


def test_a_batch_goes_on_after_a_cut(board: Board, onnx_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device = device_on(board)
    cut_after("round", 4, board.cut, monkeypatch)
    found = [device.measure(onnx_file, QUICK) for _ in range(3)]
    device.close()
    assert [measurement.environment["sessions"] for measurement in found] == [3, 3, 3]
    until(board.is_clean)


def test_a_client_that_dies_leaves_nothing(board: Board, onnx_file: Path) -> None:
    script = (
        "import sys, os; from pathlib import Path; from espalier.export.devices.address import open_device;"
        "from espalier.export.devices import connection; from espalier.export.devices.base import MeasureSpec;"
        "write = connection.Connection._write\n"
        "def dying(self, content):\n"
        "    write(self, content)\n"
        "    if b'\"round\"' in content[:20]: os.kill(self.pid, 9); os._exit(7)\n"
        "connection.Connection._write = dying\n"
        "open_device(sys.argv[1], where='').measure(Path(sys.argv[2]), MeasureSpec(sessions=2, seconds=60.0))"
    )
    done = subprocess.run([sys.executable, "-c", script, board.address(), str(onnx_file)], check=False)
    assert done.returncode == 7
    until(board.is_clean)  # though a minute of timed runs was asked for


def test_a_board_that_stays_away_is_one_line(board: Board, onnx_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device = device_on(board)
    device.fingerprint()
    cut_after("round", 1, lambda: board.configure(Port=1) or board.cut(), monkeypatch)
    cause = f"{ATTEMPTS} times in a row: cannot be reached (connect to host 127.0.0.1 port 1: Connection refused)"
    with user_error(str(onnx_file), "unavailable", says=cause):
        device.measure(onnx_file, QUICK)


def problem(address: str) -> str:
    """What is said of a device that cannot be used, behind its address."""
    with pytest.raises(UserError) as caught:
        open_device(address, where="device").fingerprint()
    assert (caught.value.where, caught.value.code) == (address, "unavailable")
    assert "\n" not in str(caught.value)
    return caught.value.problem


def test_an_unknown_host_is_not_trusted(board: Board) -> None:
    board.known_hosts.write_text("")
    told = problem(board.address())
    assert "unknown" in told
    assert "(ssh board)" in told


def test_a_changed_host_key_is_not_trusted(board: Board, tmp_path: Path) -> None:
    make_key(tmp_path / "other")
    board.know((tmp_path / "other.pub").read_text())
    board.configure(StrictHostKeyChecking="no")  # not even then
    told = problem(board.address())
    assert "changed" in told
    assert "(ssh-keygen -R board)" in told


def test_permission_denied(board: Board, tmp_path: Path) -> None:
    make_key(tmp_path / "other")
    board.configure(IdentityFile=tmp_path / "other")
    told = problem(board.address())
    assert told.startswith("permission denied (publickey")


def test_nobody_listens(board: Board) -> None:
    board.configure(Port=1)
    assert problem(board.address()) == "cannot be reached (connect to host 127.0.0.1 port 1: Connection refused)"


def test_no_such_host(board: Board) -> None:
    board.configure(HostName="no-such-host.invalid")
    assert problem(board.address()).startswith("cannot be reached (Could not resolve hostname no-such-host.invalid: ")


@pytest.mark.parametrize("python", ["python9", "/no/such/python3", "it's; touch oops"])
def test_no_python_there(board: Board, python: str) -> None:
    told = problem(board.address(python=python))
    assert told.startswith("there is no such Python (")
    assert "not found" in told or "No such file" in told
    assert "?python=PATH" in told


def test_no_onnxruntime_there(board: Board, tmp_path: Path) -> None:
    bare = tmp_path / "bare python"
    bare.write_text(f'#!/bin/sh\nexec {sys._base_executable} -I -S "$@"\n')  # type: ignore[attr-defined]
    bare.chmod(0o755)
    told = problem(board.address(python=bare))
    assert told.startswith("its Python ")
    assert told.endswith(" has no onnxruntime (No module named 'numpy')")


@pytest.fixture
def small_disk(tmp_path: Path) -> Any:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(disk)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("needs the right to mount a small disk")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def python_with(tmp_path: Path, disk: Path) -> Path:
    """A Python whose temporary folder is on that disk."""
    path = tmp_path / "python"
    path.write_text(f'#!/bin/sh\nTMPDIR={disk} exec {sys.executable} "$@"\n')
    path.chmod(0o755)
    return path


def left_on(disk: Path) -> list[str]:
    """The names of what is there, without the user's timing lock."""
    return [path.name for path in disk.iterdir() if not path.name.startswith("espalier-lock-")]


def test_a_full_disk(board: Board, small_disk: Path, tmp_path: Path, onnx_file: Path) -> None:
    big = tmp_path / "big.onnx"
    model = onnx.load(onnx_file)
    model.doc_string = "x" * 1_000_000
    onnx.save(model, big)
    device = device_on(board, python=python_with(tmp_path, small_disk))
    with pytest.raises(UserError, match=r"espalier-\w+ \(No space left on device\)$"):
        device.measure(big, QUICK)
    assert device.measure(onnx_file, QUICK).latency.count >= 9  # the next file goes on
    device.close()
    until(lambda: not left_on(small_disk))
    (small_disk / "other").write_bytes(b"x" * (512 * 1024 - 4096 * 2))
    with pytest.raises(UserError, match=r"cannot write to .* \(No (space left on device|usable temporary .*)\)$"):
        device.fingerprint()
    assert left_on(small_disk) == ["other"]


@pytest.mark.parametrize(
    "rest",
    [
        *("-oProxyCommand=touch$IFS/tmp/x", "//-oProxyCommand=x", "//-lroot@host", "//host name", "//a;b", "//$(id)"),
        *("//user@-host", "//", "host", "//host:0", "//host:99999", "//host:a", "//host/path", "//u:p@host"),
    ],
)
def test_what_is_no_host_never_reaches_ssh(rest: str) -> None:
    with user_error("device", "invalid", says="ssh://"):
        open_device(f"ssh:{rest}", where="device")


def test_parts_of_an_address() -> None:
    found = parse("//me@board-2.local:2222?python=/opt/c++/bin/a%20b", where="", form=FORM, options=OPTIONS)
    assert (found.user, found.host, found.port) == ("me", "board-2.local", 2222)
    assert found.options == {"python": "/opt/c++/bin/a b"}
    assert parse("//[::1]:22", where="", form=FORM, options=OPTIONS).host == "::1"
    with user_error("", "unknown", nearest="python"):
        parse("//board?pyton=x", where="", form=FORM, options=OPTIONS)
    with user_error("device", "not_found", says="/no/such/file"):
        open_device("ssh://board?config=/no/such/file", where="device")
