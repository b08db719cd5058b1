"""What tests need of the processor."""

import pytest
import torch

from guided_diffusion.half_precision import has_bfloat16

needs_bfloat16 = pytest.mark.skipif(
    not has_bfloat16(torch.device("cpu")), reason="this CPU has no bfloat16: a hundred times slower"
)
