"""The benchmark of training: what it reports follows from what it measured."""

import pytest

from evaluation.benchmark import training_step
from evaluation.benchmark.timing import Timing


def test_ratios_and_notes(monkeypatch):
    times = {
        training_step.PLAIN: Timing([9.0, 8.0, 7.0], [4.0, 5.0, 6.0]),
        training_step.OURS: Timing([4.5, 4.0, 1.0], [2.0, 2.0, 2.0]),
    }
    monkeypatch.setattr(training_step, "alternate", lambda _kinds, rounds: times if rounds == 3 else None)
    monkeypatch.setattr(training_step, "released_memory", lambda: {"float32, kept activations": 36.23})
    section = training_step.measure_training(rounds=3)
    assert section.values["ratio"] == 2.0
    assert section.values["cpu_ratio"] == 2.5
    assert section.rows[1] == ("as shipped", "4.00 (1.00 to 4.50)", "2.00 x")
    assert section.notes.endswith("float32, kept activations 36.2 GiB.")


@pytest.mark.slow
def test_the_shipped_step_is_faster():
    assert training_step.measure_training(rounds=2).values["cpu_ratio"] > 1
