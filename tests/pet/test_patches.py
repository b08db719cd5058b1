"""The published plan for the published lengths, and what any plan must keep."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from guided_diffusion.errors import InputError
from guided_diffusion.pet.patches import pad_in_plane, plan_aligned_patches, plan_axial_patches


@st.composite
def plans(draw):
    patch_size = draw(st.integers(1, 40))
    overlap = draw(st.integers(0, patch_size // 2))
    return plan_axial_patches(draw(st.integers(1, 200)), patch_size, overlap)


def test_published_starts():
    assert plan_axial_patches(520).starts == (0, 86, 172, 258, 344, 424)
    assert plan_axial_patches(612).starts == (0, 86, 172, 258, 344, 430, 516)


def test_published_weights_where_the_last_patch_was_moved_back():
    plan = plan_axial_patches(520)
    last = plan.weights(5)
    np.testing.assert_array_equal(last[:6], 0)
    np.testing.assert_allclose(last[6:16], np.arange(10) / 9, atol=1e-7)
    np.testing.assert_array_equal(last[16:], 1)
    before = plan.weights(4)
    np.testing.assert_allclose(before[86:], 1 - np.arange(10) / 9, atol=1e-7)
    np.testing.assert_allclose(before[:10], np.arange(10) / 9, atol=1e-7)
    np.testing.assert_array_equal(before[10:86], 1)


def test_159_slices_take_two_patches():
    assert plan_axial_patches(159).starts == (0, 63)


def test_a_short_volume_is_one_patch_of_its_own_length():
    plan = plan_axial_patches(50)
    assert (plan.starts, plan.patch_size) == ((0,), 50)
    np.testing.assert_array_equal(plan.weights(0), np.ones(50))


@given(plans())
def test_weights_sum_to_one_everywhere(plan):
    total = np.zeros(plan.length)
    for number in range(len(plan.starts)):
        total[plan.slab(number)] += plan.weights(number)
    np.testing.assert_allclose(total, 1, atol=1e-6)


@given(plans(), st.integers(0, 2**32 - 1))
def test_identity_in_identity_out(plan, seed):
    volume = np.random.default_rng(seed).uniform(-5, 20, (2, 3, plan.length)).astype(np.float32)
    patches = np.stack([volume[..., plan.slab(number)] for number in range(len(plan.starts))])
    np.testing.assert_allclose(plan.stitch(patches), volume, atol=2e-6)


@given(plans(), st.randoms(use_true_random=False))
def test_the_order_of_patches_changes_no_bit(plan, random):
    rng = np.random.default_rng(1)
    patches = rng.standard_normal((len(plan.starts), 2, 2, plan.patch_size)).astype(np.float32)
    order = list(range(len(plan.starts)))
    random.shuffle(order)
    shuffled = np.zeros((2, 2, plan.length), dtype=np.float32)
    for number in order:
        plan.add(shuffled, number, patches[number])
    np.testing.assert_array_equal(shuffled, plan.stitch(patches))


@given(st.integers(1, 200), st.integers(8, 40), st.data(), st.sampled_from([1, 2, 8]))
def test_aligned_patches_begin_at_multiples_and_cover_the_volume(length, patch_size, data, multiple):
    overlap = data.draw(st.integers(0, patch_size // 2))
    plan = plan_aligned_patches(length, patch_size, overlap, multiple)
    assert all(start % multiple == 0 for start in plan.starts)
    assert length <= plan.length < length + multiple
    if multiple == 1 or length <= patch_size:
        assert plan == plan_axial_patches(length, patch_size, overlap)
    else:
        assert plan.patch_size == patch_size
        assert abs(plan.overlap - overlap) < multiple


def test_patches_too_short_to_be_aligned_are_refused():
    with pytest.raises(InputError, match="patches of 7 slices are too short for this network: 8 at least"):
        plan_aligned_patches(20, 7, 1, 8)


@pytest.mark.parametrize(("length", "patch_size", "overlap"), [(0, 96, 10), (520, 0, 0), (520, 96, 49), (520, 96, -1)])
def test_impossible_plans_are_refused(length, patch_size, overlap):
    with pytest.raises(InputError):
        plan_axial_patches(length, patch_size, overlap)


def test_stitching_the_wrong_number_of_patches_is_refused():
    with pytest.raises(ValueError, match="6 patches, not 5"):
        plan_axial_patches(520).stitch(np.zeros((5, 2, 2, 96), dtype=np.float32))


@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from([1, 4, 16]))
def test_padding_adds_air_up_to_the_next_multiple(x, y, multiple):
    volume = np.full((x, y, 2), 3.0, dtype=np.float32)
    padded = pad_in_plane(volume, multiple)
    assert padded.shape[0] % multiple == padded.shape[1] % multiple == 0
    assert padded.shape[0] - x < multiple
    assert padded.shape[1] - y < multiple
    np.testing.assert_array_equal(padded[:x, :y], volume)
    assert padded.sum() == volume.sum()
