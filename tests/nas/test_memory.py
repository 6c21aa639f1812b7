"""Freed memory is used again: counted by the pages that the system has to give."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

COUNT = """
import resource
from espalier.nas.memory import keep_freed_memory
{call}
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        kept = [bytes([i]) * 2**22 for i in range(1, 5)]
        del kept
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
print(faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's allocator")
def test_freed_blocks_cost_no_new_pages() -> None:
    def pages(call: str) -> int:
        code = COUNT.format(call=call)
        return int(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout)

    assert pages("assert keep_freed_memory()") < pages("") / 20
