"""Devices without Python: runs ONNX Runtime's program `onnxruntime_perf_test` once for each session."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Sequence
from pathlib import Path
from shlex import quote
from typing import Any

import numpy as np

from espalier.export.devices.agent.errors import Refused, not_loaded
from espalier.export.devices.agent.inputs import make_inputs
from espalier.export.devices.agent.rounds import MAX_RUNS
from espalier.export.devices.agent.session import SUFFIX
from espalier.export.devices.agent.system import instructions_of
from espalier.export.devices.connection import SILENCE_S, ConnectionLost, ConnectionSilent
from espalier.export.devices.files import ModelFiles
from espalier.export.devices.shell import Ran, Shell
from espalier.export.graph_inputs import graph_inputs
from espalier.nas.hashing import file_hash

PROGRAM = "onnxruntime_perf_test"
PROVIDERS = {
    name.lower(): f"{name}{SUFFIX}"
    for name in ("CPU", "CUDA", "Tensorrt", "Dnnl", "OpenVINO", "ACL", "NNAPI", "QNN", "SNPE", "XNNPACK", "CoreML")
}
"""Values of the program's option `-e`, and ONNX Runtime's full names."""
WARMUP_RUNS = 20
"""Untimed runs of each session, besides the program's own first run. It cannot stop as soon as times are stable."""
PROBE_RUNS = 5
RESULTS = "-- results --"

FACTS = {
    "cpu_architecture": "uname -m",
    "os": "uname -sr",
    "logical_cores": "nproc",
    "memory_kb": "grep MemTotal /proc/meminfo | tr -dc 0-9",
    "frequency_governor": "cat /sys/devices/system/cpu/cpu0/cpufreq/scaling_governor",
    "board": "tr -d '\\0' < /proc/device-tree/model",
    "phone": "getprop ro.product.model",
    "chip": "getprop ro.soc.model",
    "build": "getprop ro.build.fingerprint",
}
"""Shell commands for facts about a device; facts that cannot be read are None."""


class PerfTestLink:
    """Takes the place of a device's connection. It keeps no state on the device except one folder.

    The folder `espalier-perf-*` on the device contains the program, if it had to be sent, and the networks that are
    being timed; it is removed when the device is closed. A folder left on a lost device is removed when the next such
    link is made there a day later.

    The files of a round alternate by session, not by run: each session is a process. The CPUs' counters are not read.
    `flock`, if the device has it, prevents concurrent timings.

    Args:
        shell: a shell on the device.
        program: a file here, which is sent, or a command on the device; None to search there.
    """

    def __init__(self, shell: Shell, program: str | None) -> None:
        self._shell = shell
        self._program = program
        self._folder = f"{shell.folder}/espalier-perf-{secrets.token_hex(6)}"
        self._command: str | None = None
        self._was_made = False
        self._has: set[str] = set()
        self._cores = 1
        self._here: dict[str, Path] = {}

    def ask(self, op: str, **request: Any) -> dict[str, Any]:
        """See `Link`."""
        command = self._start()
        if op == "fingerprint":
            return self._fingerprint(_provider(request["provider"]))
        if op == "providers":
            return {"providers": [PROVIDERS["cpu"]]}  # the program cannot list them; the CPU is always available
        if op == "drop":
            self._shell.run(f"rm -rf {quote(self._folder)}/{quote(request['key'])}")
            return {}
        if op == "round":
            return self._round(command, request)
        raise Refused("device", f"{PROGRAM} cannot do {op!r}: that needs Python on the device", code="unsupported")

    def send(self, files: ModelFiles) -> str:
        """See `Link`; files that are already there are not sent again."""
        self._start()
        folder = f"{self._folder}/{files.key}"
        for part in files.parts:
            self._push(part.path, f"{folder}/{part.name}", part.sha256)
        there = f"{folder}/{files.parts[0].name}"
        self._here[there] = files.parts[0].path
        return there

    def close(self) -> None:
        """Remove the folder, if the device can still be reached."""
        self._command = None
        if not self._was_made:
            return
        try:
            self._shell.run(f"rm -rf {quote(self._folder)}")
        except ConnectionLost:
            return  # the folder is removed when this link is used again
        self._was_made = False

    def _start(self) -> str:
        """Create the folder, and return the program's command on the device.

        Raises:
            Refused: there is no such program, or no space.
        """
        if self._command is not None:
            return self._command
        self._was_made = True
        base, folder = quote(self._shell.folder), quote(self._folder)
        made = self._shell.run(
            f"find {base} -maxdepth 1 -name 'espalier-perf-*' -mtime +1 -exec rm -rf {{}} + 2>/dev/null;"
            f" for one in flock timeout sha256sum; do command -v $one; done; nproc; mkdir -p {folder}"
        )
        if made.code != 0:
            problem = f"cannot write to {self._shell.folder} ({' '.join(made.err[-1:])})"
            raise Refused("device", problem, code="not_writable")
        *found, cores = made.out or ["1"]
        self._has = {line.rpartition("/")[2] for line in found}
        self._cores = int(cores) if cores.isdigit() else 1
        self._command = self._find_program()
        return self._command

    def _find_program(self) -> str:
        if self._program is not None and Path(self._program).is_file():
            here = Path(self._program)
            for path in (here, *sorted(here.parent.glob("libonnxruntime*.so*"))):
                self._push(path, f"{self._folder}/{path.name}", file_hash(path))
            there = f"{self._folder}/{here.name}"
            self._shell.run(f"chmod 700 {quote(there)}")
            return f"LD_LIBRARY_PATH={quote(self._folder)} {quote(there)}"
        names = [PROGRAM, f"{self._shell.folder}/{PROGRAM}"] if self._program is None else [self._program]
        for name in names:
            if self._shell.run(f"command -v {quote(name)}").code == 0:
                return quote(name)
        problem = f"has no {' nor '.join(names)}: give its path here or on the device, ?perf_test=PATH"
        raise Refused("device", problem, code="unavailable")

    def _push(self, path: Path, there: str, sha256: str) -> None:
        folder = there.rpartition("/")[0]
        if self._sha256(there) == sha256:
            return
        self._shell.run(f"mkdir -p {quote(folder)}")
        self._shell.push(path, there)
        if self._sha256(there) not in (sha256, None):
            raise Refused("device", f"{path.name} arrived damaged", code="failed")

    def _sha256(self, there: str) -> str | None:
        """The hash of a file on the device; None if the file or the command is missing."""
        said = self._shell.run(f"sha256sum < {quote(there)} 2>/dev/null").out if "sha256sum" in self._has else []
        return said[0].split()[0] if said else None

    def _fingerprint(self, provider: str) -> dict[str, Any]:
        asked = self._shell.run("; ".join(f'echo "{key}=$({how} 2>/dev/null)"' for key, how in FACTS.items()))
        facts = dict.fromkeys(FACTS) | {
            key: value or None for key, _, value in (line.partition("=") for line in asked.out) if key in FACTS
        }
        cpuinfo = "\n".join(self._shell.run("cat /proc/cpuinfo").out)
        memory, cores = facts.pop("memory_kb"), facts["logical_cores"]
        lasting = {
            "cpu_model": instructions_of(cpuinfo)[0],
            **facts,
            "instructions": instructions_of(cpuinfo)[1],
            "logical_cores": int(cores) if cores else None,
            "memory_bytes": 1024 * int(memory) if memory else None,
            "onnxruntime_version": None,  # the program does not report it
            "timed_by": PROGRAM,
            "provider": provider,
            "threads": self._cores,
        }
        digest = hashlib.sha256(json.dumps(lasting, sort_keys=True).encode()).hexdigest()
        return {"id": digest[:12], **lasting}

    def _round(self, command: str, request: dict[str, Any]) -> dict[str, Any]:
        files: Sequence[str] = request["files"]
        request = {**request, "threads": request["threads"] or self._cores}
        runs = request["runs"]
        if runs is None:
            probes = [self._session(command, path, PROBE_RUNS, request)["times_ms"] for path in files]
            typical = sum(float(np.median(times)) for times in probes)
            fitting = int(request["milliseconds"] * len(files) / typical) if typical else MAX_RUNS
            runs = min(max(request["min_runs"], fitting), MAX_RUNS)
        sessions = [self._session(command, path, runs, request) for path in files]
        counters = dict.fromkeys(("wall_s", "machine_s", "busy_s", "steal_s", "own_s", "involuntary_switches"))
        unknown = {"energy_j": None, "energy_source": None, "counters": counters}
        return {"runs": runs, "threads": request["threads"], "files": sessions, **unknown}

    def _session(self, command: str, path: str, runs: int, request: dict[str, Any]) -> dict[str, Any]:
        """One process: the times of its start, and its runs without the first `WARMUP_RUNS`."""
        provider = _provider(request["provider"])
        options = ["-I", "-m", "times", "-r", str(runs + WARMUP_RUNS), "-x", str(request["threads"]), "-y", "1"]
        options += ["-e", next(short for short, full in PROVIDERS.items() if full == provider)]
        options += ["-S", str(request["seed"])]
        for name in _open_batches(path, self._here[path], request):
            options += ["-f", f"{name}:{request['batch']}"]
        for name, size in request["dims"].items():
            options += ["-f", f"{name}:{size}"]
        results = f"{self._folder}/results.csv"
        limit = f"timeout {SILENCE_S:g} " if "timeout" in self._has else ""
        line = f"{limit}env {command} {' '.join(map(quote, options))} {quote(path)} {quote(results)}"
        line += f"; code=$?; echo; echo {quote(RESULTS)}; cat {quote(results)}; rm -f {quote(results)}; exit $code"
        if "flock" in self._has:
            line = f"( flock -x 9; {line} ) 9< {quote(self._shell.folder)}"
        ran = self._shell.run(line, timeout_s=2 * SILENCE_S)
        if ran.code == 124 and limit:
            raise ConnectionSilent(f"no answer for {SILENCE_S:g} s")
        return {**_read(path, ran), "warmup_runs": WARMUP_RUNS + 1, "provider": provider}


def _read(path: str, ran: Ran) -> dict[str, Any]:
    """`load_ms`, `cold_start_ms` and `times_ms` of one process.

    Its results are lines `name,seconds,...`, one for each run. The times of its start are printed on standard output.

    Raises:
        Refused: it failed, or its output has another form.
    """
    split = ran.out.index(RESULTS) if RESULTS in ran.out else len(ran.out)
    said, results = ran.out[:split], ran.out[split + 1 :]
    if ran.code != 0:
        errors = [line for line in ran.err + said if "rror" in line or "ail" in line or "xception" in line]
        raise not_loaded(path, (errors or ran.err or [f"exit code {ran.code}"])[-1])
    try:
        words = {key.strip(): value.split() for key, _, value in (line.partition(":") for line in said)}
        return {
            "load_ms": 1000 * float(words["Session creation time cost"][0]),
            "cold_start_ms": float(words["First inference time cost"][0]),
            "times_ms": [1000 * float(line.split(",")[1]) for line in results if "," in line][WARMUP_RUNS:],
        }
    except (KeyError, IndexError, ValueError) as error:
        problem = f"the output of its {PROGRAM} does not have the expected form ({error})"
        raise Refused("device", problem, code="unsupported") from error


def _open_batches(path: str, here: Path, request: dict[str, Any]) -> list[str]:
    """The names of the symbolic batch dimensions of a file, after checking that its inputs can be generated.

    Raises:
        Refused: as for `make_inputs`, or a batch has no name, so that it can only be 1.
    """
    import onnx
    from google.protobuf.message import DecodeError

    try:
        arguments = graph_inputs(onnx.load(here, load_external_data=False))
    except DecodeError:
        return []  # the program will report why it cannot be run
    make_inputs(path, arguments, request["batch"], request["seed"], request["dims"])
    batches = [argument.shape[0] for argument in arguments if argument.shape and not isinstance(argument.shape[0], int)]
    if None in batches and request["batch"] != 1:
        problem = f"its batch dimension has no name, so that {PROGRAM} can only use 1"
        raise Refused(path, problem, allowed=[1], code="unsupported")
    return sorted({name for name in batches if name is not None})


def _provider(asked: str | None) -> str:
    for short, full in PROVIDERS.items():
        if (asked or "cpu").lower() in (short, full.lower()):
            return full
    raise Refused("provider", f"{PROGRAM} has no {asked!r}", allowed=PROVIDERS, given=asked, code="unavailable")
