"""Where HOME cannot be written, as in containers of batch systems, no library says so among the output."""

import os
import subprocess
import sys

import pytest

from tests.mpi import ROOT


@pytest.mark.parametrize(
    "words",
    [
        ("-c", "import guided_diffusion.report.pictures"),
        ("-c", "import guided_diffusion.training.run_pictures"),
        ("-c", "import evaluation.comparison_plots"),
        ("-c", "from evaluation.phantom import draw_contrast; import matplotlib"),
        ("-c", "from evaluation.results_figure import draw_slice; import matplotlib"),
    ],
)
def test_matplotlib_is_loaded_without_a_word(words):
    kept = {name: value for name, value in os.environ.items() if name not in ("MPLCONFIGDIR", "XDG_CONFIG_HOME")}
    environment = kept | {"HOME": "/proc/nohome", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, *words], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
