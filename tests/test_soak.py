"""The soak notices what it is there for; and, slowly, a few of its rounds."""

import sys
import time
from collections import Counter

import numpy as np
import pytest

from tests import soak
from tests.soak_jobs import ForkedJob

EXPECTED = {name: np.full((2, 2, 2), number, np.float32) for number, name in enumerate(soak.GOOD)}


def results(out, **samples):
    for name, array in samples.items():
        (out / name).mkdir(parents=True)
        np.savez(out / name / "samples_2x2x2.npz", arr_0=array)
        (out / name / "run.json").write_text("{}")
    return out


@pytest.mark.parametrize(
    ("samples", "complete", "end"),
    [
        (EXPECTED, True, "survived"),
        ({"a_good": EXPECTED["a_good"]}, False, "survived"),
        ({"a_good": EXPECTED["a_good"]}, True, "lost"),
        (EXPECTED | {"a_good": EXPECTED["a_good"] + np.float32(1e-6)}, False, "wrong"),
        (EXPECTED | {"bad0": EXPECTED["a_good"]}, False, "wrong"),
    ],
)
def test_results_are_compared(samples, complete, end, tmp_path):
    round_ = soak.Round()
    soak.compare(results(tmp_path, **samples), EXPECTED, round_, complete)
    assert round_.end == end


@pytest.mark.parametrize(
    ("script", "end"),
    [("raise ValueError", "traceback"), ("import time; time.sleep(60)", "hung"), ("raise SystemExit(2)", "survived")],
)
def test_ends_of_jobs_are_noticed(script, end, tmp_path, monkeypatch):
    monkeypatch.setattr(ForkedJob.ends_within, "__defaults__", (2.0,))
    (tmp_path / "script.py").write_text(script)
    round_ = soak.Round()
    began = time.monotonic()
    soak.finish(ForkedJob(str(tmp_path / "script.py"), [], tmp_path / "log"), round_, "a job")
    assert round_.end == end
    assert time.monotonic() - began < 30


def test_the_table_counts_every_kind():
    counts = Counter({("kill a rank", "survived"): 3, ("kill a rank", "wrong"): 1, ("full disk", "survived"): 2})
    assert soak.table(counts).splitlines()[2:] == [
        "| full disk | 2 | 2 | 0 | 0 | 0 | 0 | 0 |",
        "| kill a rank | 4 | 3 | 0 | 1 | 0 | 0 | 0 |",
        "| all | 6 | 5 | 0 | 1 | 0 | 0 | 0 |",
    ]


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="processes are found in /proc")
def test_twenty_faults_do_no_harm():
    counts, found = soak.soak(900, 3, wanted=20)
    assert found == []
    assert counts.total() >= 20
