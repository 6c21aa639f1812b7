"""One request in a new process: it shares no memory, threads or caches with the request before."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Callable  # noqa: UP035 - Python 3.8

from espalier.export.devices.agent.errors import Refused
from espalier.export.devices.agent.operations import TIMED
from espalier.export.devices.agent.protocol import MessageWriter

_START = "import sys; sys.path[0] = sys.argv[1]; from espalier.export.devices.agent.fresh import main; main()"


def in_fresh_process(op: str, request: dict[str, Any], alive: Callable[[], Any]) -> dict[str, Any]:
    """Run `espalier.export.devices.agent.operations.TIMED[op]` in a fresh process and return its answer.

    Args:
        op: name of the operation.
        request: its arguments.
        alive: called whenever the process reports that it is still working.

    Raises:
        Refused: the process refused the request, or ended without an answer.
    """
    # The archive that contains the agent, or the folder above the package `espalier`.
    command = [sys.executable, "-u", "-c", _START, str(Path(__file__).parents[4])]
    pipe, nothing = subprocess.PIPE, subprocess.DEVNULL
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=nothing) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps({"op": op, **request}).encode() + b"\n")
            process.stdin.close()
            for line in process.stdout:
                message = json.loads(line)
                if "refused" in message:
                    raise Refused(**message["refused"])
                if "ok" in message:
                    answer: dict[str, Any] = message["ok"]
                    return answer
                alive()
            process.wait()
        finally:
            process.kill()
    files = ", ".join(request.get("files", ["device"]))
    problem = f"the process that ran it ended without an answer (exit code {process.returncode})"
    raise Refused(files, problem, code="failed")


def main() -> None:
    """Answer the request on standard input; whatever libraries print is discarded."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    writer = MessageWriter(out)
    request = json.loads(sys.stdin.readline())
    try:
        writer.send({"ok": TIMED[request.pop("op")](request, writer.alive)})
    except Refused as refused:
        writer.send({"refused": refused.fields})
