"""The fuzzer notices what it is there for, and a few of its files."""

from collections import Counter
from pathlib import Path

import pytest

from tests import fuzz
from tests.fuzz_seeds import Seed


@pytest.mark.slow
def test_the_fuzzer_notices(tmp_path, monkeypatch):
    monkeypatch.setattr(fuzz, "SECONDS", 3)
    process = fuzz.Reader()
    ends = ("raises", "other"), ("allocates", "memory"), ("speaks in lines", "other"), ("trial", "refused")
    try:
        for reader, end in (*ends, ("dies", "signal"), ("waits", "hang")):
            assert fuzz.judge(process.read(Seed("", Path(), tmp_path, reader), tmp_path)) == end, reader
    finally:
        process.close()


def test_damaged_files_of_every_kind_end_as_an_image_or_one_line(tmp_path):
    counts, offenders = fuzz.fuzz(300, 7, tmp_path / "keep", inputs=155)
    assert offenders == []
    assert counts.total() == 155
    ends = Counter()
    for (_, end), number in counts.items():
        ends[end] += number
    assert set(ends) == {"valid", "refused"}
    assert min(ends.values()) > 15
