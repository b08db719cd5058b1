"""Fixtures of readers and writers."""

import numpy as np
import pytest

from tests.multi_frame_objects import classic


@pytest.fixture
def slices(tmp_path):
    return classic(tmp_path)


@pytest.fixture
def suv():
    return np.random.default_rng(0).uniform(0, 9, (5, 6, 7)).astype(np.float32)
