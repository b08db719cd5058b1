"""Tasks over ranks: each computed once, steps reported, nobody left waiting."""

import ast
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guided_diffusion.tasks import block_of, share_tasks, window
from tests.mpi import needs_mpiexec, run_script

SHARING = """
import sys
from guided_diffusion.dist_util import communicator, run_main
from guided_diffusion.tasks import share_tasks

def compute(task, step):
    step(); step()
    if task == {bad}:
        {failure}
    return task * 10, communicator().rank

def main():
    results, steps = {{}}, []
    tasks = list(range({tasks})) if communicator().rank == 0 else None
    share_tasks(tasks, compute, results.__setitem__, lambda: steps.append(1))
    if communicator().rank == 0:
        print(sorted((number, *result) for number, result in results.items()), len(steps))

run_main(main)
"""


def share(tmp_path, *, ranks, tasks, bad=-1, failure="pass", timeout=60):
    script = tmp_path / "share.py"
    script.write_text(SHARING.format(tasks=tasks, bad=bad, failure=failure))
    return run_script(script, ranks=ranks, timeout=timeout)


@given(st.integers(1, 20), st.integers(0, 50))
def test_blocks_cover_all_tasks_once_and_evenly(ranks, tasks):
    blocks = [block_of(rank, ranks, tasks) for rank in range(ranks)]
    assert [number for block in blocks for number in block] == list(range(tasks))
    assert max(map(len, blocks)) - min(map(len, blocks)) <= 1


def test_one_rank_computes_everything_in_order():
    order, steps = [], []
    share_tasks(
        [3, 4], lambda task, step: step() or task + 1, lambda *found: order.append(found), lambda: steps.append(1)
    )
    assert order == [(0, 4), (1, 5)]
    assert len(steps) == 2


@needs_mpiexec
@pytest.mark.parametrize(("ranks", "tasks"), [(3, 7), (4, 2)])
def test_every_task_is_computed_once_and_no_rank_is_left_out(ranks, tasks, tmp_path):
    done = share(tmp_path, ranks=ranks, tasks=tasks)
    assert done.returncode == 0, done.stderr
    results, steps = done.stdout.strip().rsplit(" ", 1)
    results = ast.literal_eval(results)
    assert [result[:2] for result in results] == [(number, number * 10) for number in range(tasks)]
    assert {rank for _, _, rank in results} == set(range(min(ranks, tasks)))
    assert int(steps) == 2 * tasks


SLOW_FIRST = """
import time
from guided_diffusion.dist_util import communicator, run_main
from guided_diffusion.tasks import share_tasks

handed_out = []

def tasks():
    for number in range(40):
        handed_out.append(number)
        yield number

def compute(task, step):
    if task == {slow}:
        time.sleep(2)
    return len(handed_out)

def main():
    results = {{}}
    at_slow = []
    def on_result(number, result):
        results[number] = result
        if number == {slow}:
            at_slow.append(len(handed_out))
    share_tasks(tasks() if communicator().rank == 0 else None, compute, on_result, lambda: None)
    if communicator().rank == 0:
        print(len(results), at_slow[0])

run_main(main)
"""


@needs_mpiexec
def test_nothing_is_handed_out_far_beyond_an_unfinished_task(tmp_path):
    """However many tasks there are, rank 0 holds results and tasks of a window only."""
    script = tmp_path / "slow.py"
    script.write_text(SLOW_FIRST.format(slow=1))
    done = run_script(script, ranks=3, timeout=120)
    assert done.returncode == 0, done.stderr
    results, handed_out = map(int, done.stdout.split())
    assert results == 40
    assert handed_out == 1 + window(3)


@needs_mpiexec
@pytest.mark.parametrize("failure", ["raise ValueError('boom')", "import os; os.kill(os.getpid(), 9)"])
def test_a_rank_that_fails_or_dies_ends_the_run(failure, tmp_path):
    began = time.monotonic()
    done = share(tmp_path, ranks=3, tasks=6, bad=5, failure=failure)
    assert done.returncode != 0
    assert time.monotonic() - began < 30
    assert "[(0" not in done.stdout
