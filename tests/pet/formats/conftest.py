"""Fixtures of readers and writers."""

import pytest

from tests.multi_frame_objects import classic


@pytest.fixture
def slices(tmp_path):
    return classic(tmp_path)
