"""Libraries are loaded without a word where HOME cannot be written, and where a notebook names what it alone has."""

import os
import subprocess
import sys

import pytest

from tests.mpi import ROOT

DRAWING = [
    ("-c", "import guided_diffusion.report.pictures"),
    ("-c", "import guided_diffusion.training.run_pictures"),
    ("-c", "import evaluation.comparison_plots"),
    ("-c", "from evaluation.phantom import draw_contrast; import matplotlib"),
    ("-c", "from evaluation.results_figure import draw_slice; import matplotlib"),
]


def loaded(words, **environment):
    """(exit code, stderr) of Python with these words."""
    done = subprocess.run([sys.executable, *words], env=environment, capture_output=True, text=True)
    return done.returncode, done.stderr


@pytest.mark.parametrize("words", DRAWING)
def test_matplotlib_is_loaded_without_a_word(words):
    kept = {name: value for name, value in os.environ.items() if name not in ("MPLCONFIGDIR", "XDG_CONFIG_HOME")}
    assert loaded(words, **kept | {"HOME": "/proc/nohome", "PYTHONPATH": str(ROOT)}) == (0, "")


@pytest.mark.parametrize("words", DRAWING)
@pytest.mark.parametrize("backend", ["module://matplotlib_inline.backend_inline", "Qt4Agg"])
def test_a_backend_that_is_not_there_is_not_needed(words, backend):
    """What `!python scripts/train.py` in a notebook of another environment, or an old profile of the shell, sets."""
    assert loaded(words, **os.environ | {"MPLBACKEND": backend, "PYTHONPATH": str(ROOT)}) == (0, "")


def test_a_backend_that_is_there_stays():
    words = ("-c", "import guided_diffusion.report.pictures, os; assert os.environ['MPLBACKEND'] == 'svg'")
    assert loaded(words, **os.environ | {"MPLBACKEND": "svg", "PYTHONPATH": str(ROOT)}) == (0, "")
