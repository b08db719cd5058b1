"""Batches in any order become realisations in order, and few are held at a time."""

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from guided_diffusion.inference.assembly import Assembly
from guided_diffusion.inference.resume import FinishedPatches
from guided_diffusion.pet.patches import plan_axial_patches
from guided_diffusion.tasks import window

PLAN = plan_axial_patches(73, 16, 4)  # 6 patches
BATCHES = [range(first, min(first + 2, 6)) for first in (0, 2, 4)]


def samples_of(realisation, batch):
    rng = np.random.default_rng([realisation, batch])
    return rng.normal(size=(len(BATCHES[batch]), 2, 3, 16)).astype(np.float32)


def stitched(realisation):
    return PLAN.stitch(np.concatenate([samples_of(realisation, batch) for batch in range(len(BATCHES))]))


def held(assembly):
    """Realisations in memory."""
    return len(assembly._volumes)


@given(st.integers(1, 12), st.integers(1, 9), st.randoms(use_true_random=False))
def test_volumes_leave_whole_and_in_order_and_few_are_held(realisations, ranks, random):
    """Results arrive in any order that the window of `share_tasks` permits."""
    volumes = []
    assembly = Assembly(PLAN, BATCHES, [(2, 3)] * realisations, volumes.append)
    waiting, most = assembly.missing(), 0
    assert len(waiting) == 3 * realisations
    first = 0
    unfinished = set(range(len(waiting)))
    while unfinished:
        first = min(unfinished)
        number = random.choice([n for n in unfinished if n < first + window(ranks)])
        unfinished.remove(number)
        assembly.add(*waiting[number], samples_of(*waiting[number]))
        most = max(most, held(assembly))
    assert len(volumes) == realisations
    for number, volume in enumerate(volumes):
        np.testing.assert_array_equal(volume, stitched(number))
    assert most <= math.ceil((window(ranks) - 1) / len(BATCHES)) + 1
    assert held(assembly) == 0


def test_what_is_on_disk_is_not_asked_for_again(tmp_path):
    finished = FinishedPatches.of_run(tmp_path, "0" * 64)
    first = Assembly(PLAN, BATCHES, [(2, 3)] * 4, lambda _: None, finished)
    for place in ((0, 0), (0, 1), (0, 2), (1, 1), (3, 0), (3, 1), (3, 2)):
        first.add(*place, samples_of(*place))
    volumes = []
    again = Assembly(PLAN, BATCHES, [(2, 3)] * 4, volumes.append, finished)
    assert len(volumes) == 1
    assert again.missing() == [(1, 0), (1, 2), (2, 0), (2, 1), (2, 2)]
    for place in again.missing():
        again.add(*place, samples_of(*place))
        assert held(again) <= 1
    for number, volume in enumerate(volumes):
        np.testing.assert_array_equal(volume, stitched(number))
    assert len(volumes) == 4
