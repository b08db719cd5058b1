"""Batches that threads prepare: the crops that their numbers name, whatever the number of threads."""

import threading
import time

import numpy as np
import pytest
import torch

from guided_diffusion.config import PreprocessingConfig
from guided_diffusion.errors import InputError
from guided_diffusion.image_datasets import Crop, CropSource, find_pairs
from guided_diffusion.training.batches import batches

ITEMS = range(4, 7)


class Numbered:
    """A source of crops that hold their numbers, which remembers what was asked of it."""

    crop_size = (2, 3, 4)
    with_noise = False

    def __init__(self, wait=lambda _step, _item: None):
        self.asked = []
        self._wait = wait

    def crop(self, step: int, item: int) -> Crop:
        self.asked.append((step, item))
        self._wait(step, item)
        image = np.full((1, 4, 2, 3), 100 * step + item, np.float32)
        return Crop(image, -image, None, np.array([step, item], np.float32))

    def settled(self) -> list[tuple[int, int]]:
        """What was asked, once nothing more has been for a while."""
        count = -1
        while count < len(self.asked):
            count = len(self.asked)
            time.sleep(0.2)
        return sorted(self.asked)


@pytest.mark.parametrize("threads", [1, 2, 7])
@pytest.mark.parametrize("with_noise", [True, False])
def test_batches_are_the_named_crops_for_every_number_of_threads(data_dir, threads, with_noise):
    pairs = find_pairs(data_dir, "train", (3.3,) * 3)
    expected = CropSource(pairs, (8, 16, 6), PreprocessingConfig(), seed=5)
    source = CropSource(pairs, (8, 16, 6), PreprocessingConfig(), seed=5, with_noise=with_noise)
    stream = batches(source, ITEMS, 11, threads)
    for step in range(11, 15):
        batch = next(stream)
        assert (batch.noise is None) != with_noise
        for name in ("low_dose", "normal_dose", "reference", *(["noise"] if with_noise else [])):
            crops = [getattr(expected.crop(step, item), name) for item in ITEMS]
            np.testing.assert_array_equal(getattr(batch, name), np.stack(crops))
    stream.close()


def test_as_many_crops_are_in_work_as_there_are_threads():
    together = threading.Barrier(6)
    stream = batches(Numbered(lambda _step, _item: together.wait(timeout=30)), ITEMS, 0, 6)
    for step in range(4):
        assert next(stream).low_dose[:, 0, 0, 0, 0].tolist() == [100 * step + item for item in ITEMS]
    together.abort()  # closing would wait for crops that wait for others
    stream.close()


@pytest.mark.parametrize(("threads", "ahead"), [(1, 2), (3, 2), (4, 3)])
def test_no_more_steps_are_prepared_than_keep_the_threads_at_work(threads, ahead):
    source = Numbered()
    stream = batches(source, ITEMS, 0, threads)
    for used in range(1, 4):
        next(stream)
        assert source.settled() == [(step, item) for step in range(used + ahead) for item in ITEMS]
    stream.close()


@pytest.mark.parametrize("threads", [1, 4])
def test_a_crop_that_cannot_be_used_stops_the_step_that_needs_it(threads):
    def refuse(step: int, item: int) -> None:
        if step == 2 and item > 4:
            raise InputError(f"item {item} is damaged")

    stream = batches(Numbered(refuse), ITEMS, 0, threads)
    assert [next(stream).reference[0, 0].item() for _ in range(2)] == [0, 1]
    with pytest.raises(InputError, match="item 5 is damaged"):
        next(stream)
    assert not any(thread.name.startswith("crops") for thread in threading.enumerate())


def test_closing_waits_for_no_crop_that_was_not_begun():
    let_go = threading.Event()
    source = Numbered(lambda step, _item: step == 0 or let_go.wait(timeout=30))
    stream = batches(source, ITEMS, 0)
    next(stream)
    assert source.settled() == [(0, 4), (0, 5), (0, 6), (1, 4)]
    threading.Timer(0.2, let_go.set).start()
    stream.close()
    assert len(source.asked) == 4


def test_tensors_are_float32_and_pinned_only_on_request():
    stream = batches(Numbered(), ITEMS, 0)
    batch = next(stream)
    stream.close()
    assert not batch.low_dose.is_pinned()
    assert batch.low_dose.dtype == batch.reference.dtype == torch.float32
