"""A process whose output nobody reads, or whose streams were closed before it began."""

import os
import subprocess
import sys

import pytest

from tests.mpi import ROOT

MAIN = "from guided_diffusion.leaving import run_main; run_main({})"
TALK = "lambda: [print('line', number) for number in range(100_000)]"
BROKEN = "lambda: open(3, 'w').write('x' * 100_000)"


def started(code, **options):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen([sys.executable, "-c", MAIN.format(code)], env=environment, text=True, **options)


def test_a_reader_that_has_gone_ends_the_program_without_a_word():
    """As after `| head`."""
    program = started(TALK, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert program.stdout.readline() == "line 0\n"
    program.stdout.close()
    assert (program.stderr.read(), program.wait()) == ("", 141)


def test_another_pipe_that_broke_is_a_failure():
    reading, writing = os.pipe()
    os.close(reading)
    # 3 is what the child sees of the pipe
    shell = f"exec 3>&{writing}; exec '{sys.executable}' -c \"{MAIN.format(BROKEN)}\""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, pass_fds=[writing], env=environment)
    os.close(writing)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "error: BrokenPipeError: [Errno 32] Broken pipe"


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "<&-"])
def test_closed_streams_take_everything(closed, tmp_path):
    code = f"lambda: (print('x'), __import__('tqdm').tqdm([1], disable=None), open('{tmp_path / 'done'}', 'w').close())"
    shell = f"exec '{sys.executable}' -c \"{MAIN.format(code)}\" {closed}"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "done").exists()
