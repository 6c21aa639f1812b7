"""Stand-ins for `adb` with a phone at its other end, and for `onnxruntime_perf_test`: no phone is asked."""

from __future__ import annotations

import sys
from pathlib import Path

SERIAL = "emulator-5554"
PHONE_FOLDER = "/data/local/tmp"

_ADB = """#!{python} -IS
import os, shutil, subprocess, sys
state, folder = open({state!r}).read().strip(), {folder!r}
words = sys.argv[1:]
if words == ["devices"]:
    print("List of devices attached\\n{serial}\\t" + state + "\\n")
    sys.exit()
assert words[0] == "-s"
if words[1] != {serial!r}:
    sys.exit("error: device '%s' not found" % words[1])
if state != "device":
    sys.exit("error: device " + state + ".")
words = [word.replace({there!r}, folder) for word in words[2:]]
if words[0] == "push":
    shutil.copyfile(words[1], words[2])
elif words[:2] == ["shell", "-T"]:
    sys.exit(subprocess.run(["sh", "-c", words[2]]).returncode)
else:
    sys.exit("adb: unknown command " + words[0])
"""

_PERF_TEST = """#!{python}
import os, sys, time
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
import numpy, onnxruntime
words = iter(sys.argv[1:])
options, paths = {{"-f": []}}, []
for word in words:
    if word == "-f":
        options["-f"].append(next(words).rsplit(":", 1))
    elif word == "-I":
        pass
    elif word.startswith("-"):
        options[word] = next(words)
    else:
        paths.append(word)
began = time.perf_counter()
settings = onnxruntime.SessionOptions()
settings.log_severity_level = 4
settings.intra_op_num_threads = int(options["-x"])
try:
    session = onnxruntime.InferenceSession(paths[0], settings)
except Exception as error:
    print(error, file=sys.stderr)
    sys.exit(255)
print("Setting intra_op_num_threads to", options["-x"])
print("Session creation time cost:", time.perf_counter() - began, "s")
sizes = {{name: int(size) for name, size in options["-f"]}}
kinds = {{"tensor(float)": numpy.float32, "tensor(double)": numpy.float64}}
feed = {{
    one.name: numpy.zeros([sizes.get(size, size) for size in one.shape], kinds.get(one.type, numpy.float32))
    for one in session.get_inputs()
}}
times = []
for run in range(int(options["-r"]) + 1):
    began = time.perf_counter()
    session.run(None, feed)
    times.append(time.perf_counter() - began)
print("First inference time cost: %d ms" % (1000 * times[0]))
print("Total inference requests:", len(times) - 1)
with open(paths[1], "a") as file:
    for run, seconds in enumerate(times[1:]):
        file.write("model,%.9g,1000,50,%d\\n" % (seconds, run))
"""


def make_perf_test(folder: Path) -> Path:
    """The program: the same command line, the same words, the same file of results."""
    return _executable(folder / "onnxruntime_perf_test", _PERF_TEST.format(python=sys.executable))


class Phone:
    """What `adb` finds. `folder` stands for the phone's `PHONE_FOLDER`; `bin` is where `adb` lies."""

    def __init__(self, root: Path) -> None:
        self.folder, self.bin, self._state = root / "phone", root / "bin", root / "state"
        for path in (self.folder, self.bin):
            path.mkdir()
        self.becomes("device")
        names = {"python": sys._base_executable, "serial": SERIAL, "there": PHONE_FOLDER}  # type: ignore[attr-defined]
        text = _ADB.format(**names, state=str(self._state), folder=str(self.folder))
        _executable(self.bin / "adb", text)

    def becomes(self, state: str) -> None:
        """`device`, or why it cannot be used."""
        self._state.write_text(state)


def _executable(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o755)
    return path
