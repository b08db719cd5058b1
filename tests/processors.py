"""What tests need of the processor."""

import pytest
import torch

from guided_diffusion.machine.half_precision import has_bfloat16

REDUCED = "bfloat16" if has_bfloat16(torch.device("cpu")) else "float32"
"""The precision of trainings for which it is not the point."""

needs_bfloat16 = pytest.mark.skipif(REDUCED == "float32", reason="this CPU has no bfloat16: a hundred times slower")
