from __future__ import annotations

import pytest

from espalier.recipes.commands import doctor

MISMATCH = "import torchvision fails (RuntimeError: operator torchvision::nms does not exist)"


def test_a_mismatch_of_builds_is_named_with_its_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CPU-only torch beside a torchvision of the package index fails as soon as torchvision is imported."""
    versions = {"torch": "2.13.0+cpu", "torchvision": "0.29.2"}
    monkeypatch.setattr(doctor, "installed_version", versions.__getitem__)
    monkeypatch.setattr(doctor, "import_failure", lambda module: MISMATCH)
    found = doctor.builds()
    assert found.status == "problem"
    assert "torch 2.13.0+cpu, torchvision 0.29.2 do not work together" in found.detail
    assert "torchvision::nms" in found.detail
    assert "pip install --force-reinstall torch torchvision" in found.detail
    assert "\n" not in found.detail


def test_a_library_that_does_not_import_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "LIBRARIES", ("json", "no_such_library", "nor_this"))
    found = doctor.libraries()
    assert found.status == "problem"
    assert "import no_such_library fails (ModuleNotFoundError: No module named 'no_such_library')" in found.detail


def test_too_little_room_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "LEAST_FREE_GB", 10**9)
    assert doctor.folder().status == doctor.memory().status == "problem"
