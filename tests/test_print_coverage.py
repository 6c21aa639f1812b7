"""The summary of coverage that `make test` ends with."""

from __future__ import annotations

from print_coverage import merged, table


def test_a_file_under_its_two_names_is_counted_once() -> None:
    files = {
        "src/espalier/nas/space.py": {"executed_lines": [1, 2], "missing_lines": [3]},
        "nas/space.py": {"executed_lines": [3], "missing_lines": [1, 2]},
        "nas/empty.py": {"executed_lines": [], "missing_lines": []},
        "export/onnx.py": {"executed_lines": [], "missing_lines": [1]},
    }
    counts = merged(files)
    assert counts["nas/space.py"] == (3, 3)
    *least, total = table(counts)
    assert [line.split()[-1] for line in least] == ["export/onnx.py", "nas/space.py"]
    assert total.split()[:2] == ["75.0", "%"] and "2 files" in total
