"""Whole-body PET denoising with conditional 3D diffusion models."""

import contextlib
import logging
import os
import sys

# In a folder that is gone PyTorch's libraries end the process as they are loaded, with a line about libtorch.
try:
    os.getcwd()
except FileNotFoundError:
    print("error: the working folder no longer exists; cd to another", file=sys.stderr)
    sys.exit(2)

# Where it cannot write to HOME, Matplotlib logs two lines as it is loaded, which Python prints if nobody takes them.
logging.getLogger("matplotlib").addHandler(logging.NullHandler())

# A shell that a notebook opens hands on the notebook's backend, which the Python environment of this program may not
# have: Matplotlib then fails as it is loaded. So it is loaded without the name, which is given back if it knows it.
if "matplotlib" not in sys.modules and (_backend := os.environ.pop("MPLBACKEND", "")):
    import matplotlib

    with contextlib.suppress(ValueError):
        matplotlib.rcParams["backend"] = _backend
        os.environ["MPLBACKEND"] = _backend
