"""Measuring denoised images."""

import guided_diffusion  # noqa: F401  before Matplotlib, whose lines it takes
