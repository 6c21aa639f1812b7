"""`nas devices`, and a device out of a file wherever a device is asked for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from nas_command import command, nas_here

from espalier.nas.errors import Code
from espalier.recipes.commands import devices as devices_command
from user_errors import user_error

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user with three hosts and no phone."""
    config = tmp_path / "config"
    config.write_text("Host board pi=\n  HostName 10.0.0.7\nhost=server\nHost *.lab !bad\n  User me\nHost board\n")
    monkeypatch.setattr(devices_command, "SSH_CONFIG", config)
    monkeypatch.setattr(devices_command, "phones", lambda: ["emulator-5554"])


def test_devices_are_listed(capsys: Capture) -> None:
    answer = nas_here(capsys, "devices", "--json")
    assert answer.code == 0
    local, *others = json.loads(answer.out)
    assert local["address"] == "local"
    assert "CPUExecutionProvider" in local["providers"]
    assert {"id", "instructions", "threads", "cpu_model"} <= local["fingerprint"].keys()
    names = ["ssh://board", "ssh://pi", "ssh://server", "adb://emulator-5554"]
    assert others == [{"address": name} for name in names]
    text = nas_here(capsys, "devices").out
    assert "\nssh://board (not asked)\n" in text
    assert f"  id: {local['fingerprint']['id']}\n" in text


def test_one_device_is_asked(capsys: Capture, tmp_path: Path) -> None:
    script = tmp_path / "board.json"
    script.write_text(json.dumps({"call_ms": 1.0, "fingerprint": {"cpu_model": "Cortex-A55"}}))
    (found,) = json.loads(nas_here(capsys, "devices", f"replay:{script}", "--json").out)
    assert found["fingerprint"]["cpu_model"] == "Cortex-A55"
    assert found["fingerprint"]["replay"] == "board.json"


@pytest.mark.parametrize(
    ("address", "where", "code"),
    [
        ("warp", "ADDRESS", "unknown"),
        ("replay:none.json", "ADDRESS", None),
        ("ssh://no-such-host.invalid", "ssh://no-such-host.invalid", None),
    ],
)
def test_what_cannot_be_asked(address: str, where: str, code: Code | None) -> None:
    with user_error(where, code):
        command("devices", address)
