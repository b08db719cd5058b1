"""The benchmark of training: what it reports follows from what it measured."""

import pytest

from evaluation import benchmark_training


def test_ratios_and_rows(monkeypatch):
    times = {"plain": [(4.0, 9.0), (5.0, 8.0), (6.0, 7.0)], "ours": [(2.0, 5.0), (2.5, 4.0), (9.0, 3.0)]}
    monkeypatch.setattr(benchmark_training, "_in_turns", lambda _kinds, _steps: times)
    monkeypatch.setattr(benchmark_training, "released_memory", lambda: {"float32, kept activations": 36.23})
    section = benchmark_training.training_section(steps=3)
    assert section["cpu_seconds"] == {"plain": 5.0, "ours": 2.5}
    assert section["speedup_cpu"] == pytest.approx(2.0)
    assert section["speedup_wall"] == pytest.approx(2.0)
    assert section["markdown"][0] == "| training step, plain float32, 1 thread(s) | 5.00 s of CPU time, 8.00 s |"
    assert section["markdown"][-1].endswith("float32, kept activations | 36.2 GiB |")


def test_steps_alternate_and_the_first_is_left_out():
    calls = []
    times = benchmark_training._in_turns({"plain": lambda: calls.append("p"), "ours": lambda: calls.append("o")}, 2)
    assert calls == ["p", "o"] * 3
    assert [len(pairs) for pairs in times.values()] == [2, 2]


@pytest.mark.slow
def test_the_shipped_step_is_faster():
    assert benchmark_training.training_section(steps=2)["speedup_cpu"] > 1
