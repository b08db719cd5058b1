"""A process whose output nobody reads, whose streams were closed before it began, or whose paths are refused."""

import errno
import os
import subprocess
import sys

import pytest

from guided_diffusion.ranks.failing_together import SharedError, on_root
from tests.mpi import ROOT, assert_refused, needs_mpiexec, run_script

MAIN = "from guided_diffusion.ranks.leaving import run_main; run_main({})"
TALK = "lambda: [print('line', number) for number in range(100_000)]"
ALONE = f"lambda: __import__('guided_diffusion.dist_util').dist_util.on_root({TALK})"
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


def test_so_it_does_where_rank_0_works_alone():
    program = started(ALONE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert program.stdout.readline() == "line 0\n"
    program.stdout.close()
    assert (program.stderr.read(), program.wait()) == ("", 141)


@needs_mpiexec
@pytest.mark.parametrize(
    ("script", "flags"),
    [
        ("scripts/export.py", ("--checkpoint", "missing", "--out", "missing.pt")),
        ("scripts/prepare.py", ("--input", "missing", "--info")),
        ("evaluation/get_ssim_psnr.py", ("--gtr_dir", "missing", "--gen_dir", "missing")),
    ],
)
def test_scripts_that_need_no_ranks_work_on_one(script, flags):
    assert_refused(run_script(script, *flags, ranks=2), "missing")


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


def test_a_path_that_the_system_refuses_is_a_mistake_of_the_command_line():
    """As a list of files in the place of one."""
    for what in ("lambda: open('x' * 300)", "lambda: __import__('pathlib').Path('x' * 300).exists()"):
        done = started(what, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        told = done.communicate()[1]
        assert (done.returncode, told) == (2, f"error: {'x' * 200}: File name too long; name one file or folder\n")


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM])
def test_a_folder_that_others_keep_closed_is_named(number):
    def refuse():
        raise OSError(number, os.strerror(number), "/home/other/scan.nii.gz")

    with pytest.raises(SharedError, match=rf"^/home/other/scan\.nii\.gz: {os.strerror(number)}; check the permissions"):
        on_root(refuse)
