"""A board: a real OpenSSH server on loopback, with keys and known hosts of its own."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import psutil
import pytest

SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
PATIENCE_S = 10.0


class Board:
    """One server, in a folder of its own. Whoever logs in has `tmp` as the folder for temporary files."""

    def __init__(self, folder: Path) -> None:
        self.tmp = folder / "tmp"
        self.config = folder / "config"
        self.known_hosts = folder / "known_hosts"
        self.user_key = folder / "user_key"
        self.tmp.mkdir()
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            self.port = taken.getsockname()[1]
        for name in ("host_key", "user_key"):
            make_key(folder / name)
        (folder / "user_key.pub").rename(folder / "authorized_keys")
        self.know((folder / "host_key.pub").read_text())
        server = {
            "Port": self.port,
            "ListenAddress": "127.0.0.1",
            "HostKey": folder / "host_key",
            "AuthorizedKeysFile": folder / "authorized_keys",
            "PidFile": "none",
            "StrictModes": "no",
            "UsePAM": "no",
            "PasswordAuthentication": "no",
            "SetEnv": f"TMPDIR={self.tmp} OMP_NUM_THREADS=1",
        }
        if os.getuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)  # where the server's unprivileged half lives; made at boot elsewhere
        (folder / "sshd_config").write_text("".join(f"{key} {value}\n" for key, value in server.items()))
        self.configure()
        assert SSHD is not None
        self._log = (folder / "log").open("wb")
        self._server = subprocess.Popen(
            [SSHD, "-D", "-e", "-f", str(folder / "sshd_config")], stdin=subprocess.DEVNULL, stderr=self._log
        )
        until(lambda: "listening on" in (folder / "log").read_text())

    def address(self, **options: object) -> str:
        """With the Python of these tests, unless another one is named."""
        given = {"python": sys.executable, "config": self.config, **options}
        return "ssh://board?" + "&".join(f"{key}={quote(str(value))}" for key, value in given.items())

    def configure(self, **changes: object) -> None:
        """Write the user's configuration, with these changes."""
        client = {
            "HostName": "127.0.0.1",
            "Port": self.port,
            "IdentityFile": self.user_key,
            "IdentitiesOnly": "yes",
            "IdentityAgent": "none",
            "UserKnownHostsFile": self.known_hosts,
            "GlobalKnownHostsFile": "none",
            **changes,
        }
        self.config.write_text("Host board\n" + "".join(f"  {key} {value}\n" for key, value in client.items()))

    def know(self, public_key: str) -> None:
        """Take this for the host's key from now on."""
        self.known_hosts.write_text(f"[127.0.0.1]:{self.port} {public_key}")

    def cut(self) -> None:
        """End all connections at once, as a network that goes down does; what runs on the board is not told."""
        for process in psutil.Process(self._server.pid).children(recursive=True):
            if process.name().startswith("sshd"):
                process.kill()

    def processes(self) -> list[psutil.Process]:
        """What those who have logged in have running here."""
        return [process for process in psutil.process_iter() if self._is_here(process)]

    def is_clean(self) -> bool:
        """Whether nothing is left of a connection: no process, and no file but the user's timing lock."""
        left = [path for path in self.tmp.iterdir() if not path.name.startswith("espalier-lock-")]
        return not left and not self.processes()

    def close(self) -> None:
        """Shut down."""
        self.cut()
        self._server.terminate()
        self._server.wait()
        self._log.close()
        for process in self.processes():
            process.kill()

    def _is_here(self, process: psutil.Process) -> bool:
        try:
            return process.status() != psutil.STATUS_ZOMBIE and process.environ().get("TMPDIR") == str(self.tmp)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            return False


@pytest.fixture(scope="session")
def running_board(tmp_path_factory: pytest.TempPathFactory) -> object:
    """One server for all tests, for those who do not change it."""
    if SSHD is None or shutil.which("ssh") is None or shutil.which("ssh-keygen") is None:
        pytest.skip("needs an OpenSSH server: apt-get install openssh-server")
    board = Board(tmp_path_factory.mktemp("board"))
    yield board
    board.close()


@pytest.fixture
def board(running_board: Board) -> object:
    """The server, as it is at first."""
    known = running_board.known_hosts.read_text()
    yield running_board
    running_board.configure()
    running_board.known_hosts.write_text(known)
    until(running_board.is_clean)


def make_key(path: Path) -> None:
    """A key without a passphrase, and its public half."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)


def until(holds: Callable[[], bool]) -> None:
    """Wait for something that comes of itself."""
    end = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < end, "it does not come to be"
        time.sleep(0.02)
