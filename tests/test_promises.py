"""Every test that tests/README.md names stands where it says."""

import re

from tests.mpi import ROOT


def test_the_tests_that_hold_the_promises_exist():
    named = re.findall(r"`(tests/[\w/]+\.py)::([\w:]+)`", (ROOT / "tests" / "README.md").read_text())
    assert len(named) > 20
    for file, names in named:
        content = (ROOT / file).read_text()
        for name in names.split("::"):
            assert re.search(rf"^\s*(def|class) {name}\b", content, re.MULTILINE), f"{file}::{names}"
