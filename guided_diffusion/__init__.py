"""Whole-body PET denoising with conditional 3D diffusion models."""

import logging

# Where it cannot write to HOME, Matplotlib logs two lines as it is loaded, which Python prints if nobody takes them.
logging.getLogger("matplotlib").addHandler(logging.NullHandler())
