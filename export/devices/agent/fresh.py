"""One request in a process of its own: a round then shares no memory, no threads and no caches with the one before."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Callable  # noqa: UP035 - Python 3.8

from espalier.export.devices.agent.errors import Refused
from espalier.export.devices.agent.operations import TIMED
from espalier.export.devices.agent.protocol import Speaker

_START = "import sys; sys.path[0] = sys.argv[1]; from espalier.export.devices.agent.fresh import main; main()"


def in_fresh_process(op: str, request: dict[str, Any], alive: Callable[[], Any]) -> dict[str, Any]:
    """What `espalier.export.devices.agent.operations.TIMED[op]` answers to the request in a fresh process.

    Args:
        alive: called whenever the process says that it still works.

    Raises:
        Refused: by the process, or it ended without an answer.
    """
    # The archive that the agent is in; where it is not in one, the folder above the package `export`.
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
    raise Refused(files, f"the process that ran it ended without an answer (exit code {process.returncode})")


def main() -> None:
    """Answer the one request on standard input; whatever libraries print is lost."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    speaker = Speaker(out)
    request = json.loads(sys.stdin.readline())
    try:
        speaker.say({"ok": TIMED[request.pop("op")](request, speaker.alive)})
    except Refused as refused:
        speaker.say({"refused": refused.fields})
