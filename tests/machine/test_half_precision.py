"""Which precision a device calculates in, so that none is slowed down a hundred times."""

import time
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from guided_diffusion import dist_util
from guided_diffusion.config import DEMO_DIFFUSION, DEMO_MODEL, DEMO_PREPROCESSING, Header, SamplerConfig
from guided_diffusion.inference.loading import load_model
from guided_diffusion.inference.presets import inference_settings
from guided_diffusion.machine.half_precision import SLOW_BFLOAT16, has_bfloat16
from guided_diffusion.training import loop
from guided_diffusion.training.settings import settings_for_device, training_settings
from tests.mpi import ROOT, needs_mpiexec, succeed

CPU = torch.device("cpu")
REDUCED = Header("unet3d", DEMO_MODEL, DEMO_DIFFUSION, DEMO_PREPROCESSING, SamplerConfig(bfloat16=True), {})


def seconds_of_a_convolution(dtype):
    """The least of three; in bfloat16 an AMD CPU with AVX2 took 1.1 s and 3 ms in float32."""
    maps = torch.ones(1, 32, 16, 16, 16, dtype=dtype).contiguous(memory_format=torch.channels_last_3d)
    kernel = torch.ones(32, 32, 3, 3, 3, dtype=dtype)
    times = []
    for _ in range(3):
        began = time.perf_counter()
        F.conv3d(maps, kernel, padding=1)
        times.append(time.perf_counter() - began)
    return min(times)


def test_a_cpu_has_bfloat16_where_it_is_not_far_slower_than_float32():
    ratio = seconds_of_a_convolution(torch.bfloat16) / seconds_of_a_convolution(torch.float32)
    assert (ratio < 15) == has_bfloat16(CPU)


@pytest.mark.parametrize(
    ("flags", "has", "precision", "notices"),
    [
        ({}, True, "bfloat16", ()),
        ({}, False, "float32", ()),
        ({"precision": "bfloat16"}, True, "bfloat16", ()),
        ({"precision": "bfloat16"}, False, "bfloat16", (SLOW_BFLOAT16,)),
        ({"use_fp16": True}, True, "bfloat16", ("use_fp16 on a CPU means bfloat16",)),
        ({"use_fp16": True}, False, "float32", ("use_fp16 on a CPU means float32, since it has no bfloat16",)),
        ({"use_fp16": False}, True, "float32", ()),
    ],
)
def test_inference_on_a_cpu(flags, has, precision, notices):
    settings = inference_settings(flags, REDUCED, on_gpu=False, has_bfloat16=has)
    assert (settings.precision, settings.notices) == (precision, notices)


def test_inference_on_a_gpu_that_is_too_old_for_it():
    for flags, precision in (({}, "float32"), ({"use_fp16": True}, "float16")):
        assert inference_settings(flags, REDUCED, on_gpu=True, has_bfloat16=False).precision == precision


@pytest.mark.parametrize(
    ("given", "on_gpu", "has", "precision", "use_fp16", "words"),
    [
        ({"preset": "local"}, False, True, "bfloat16", False, ()),
        ({"preset": "local"}, False, False, "float32", False, ("float32 instead of the preset's bfloat16",)),
        ({"preset": "local"}, True, False, "float32", False, ("float32 instead of the preset's bfloat16",)),
        ({"precision": "bfloat16"}, False, False, "bfloat16", False, (SLOW_BFLOAT16,)),
        ({"use_fp16": True}, False, True, "bfloat16", False, ("use_fp16 on a CPU means bfloat16",)),
        ({"use_fp16": True}, False, False, "float32", False, ("use_fp16 on a CPU means float32, since",)),
        ({"use_fp16": True}, True, False, "float32", True, ()),
        ({}, False, False, "float32", False, ()),
    ],
)
def test_training(given, on_gpu, has, precision, use_fp16, words):
    asked = training_settings({"data_dir": "data", "channel_mult": "1,1,1,1", "crop_size": "16,16,16"} | given)
    settings, notices = settings_for_device(asked, on_gpu, has)
    assert (settings.optimisation.precision, settings.model.use_fp16) == (precision, use_fp16)
    assert len(notices) == len(words)
    assert all(notice.startswith(start) for notice, start in zip(notices, words, strict=True))


@pytest.mark.parametrize(("has", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_validation_scores_weights_in_the_precision_of_inference(has, dtype, monkeypatch):
    monkeypatch.setattr(loop, "has_bfloat16", lambda _place: has)
    model = torch.nn.Linear(1, 1)
    run = SimpleNamespace(
        model=model,
        settings=SimpleNamespace(sampler=REDUCED.sampler),
        trainer=SimpleNamespace(device=CPU),
        validator=SimpleNamespace(score=lambda scored: scored.weight.dtype),
    )
    assert loop.TrainingRun._score(run, model.state_dict()) == dtype


def test_loaded_weights_are_in_float32_where_there_is_no_bfloat16(monkeypatch):
    for has, dtype in ((False, torch.float32), (True, torch.bfloat16)):
        monkeypatch.setattr(dist_util, "has_bfloat16", lambda _place, has=has: has)
        assert load_model(str(ROOT / "checkpoint" / "local3d.pt")).model.dtype == dtype


TWO_KINDS = f"""
from guided_diffusion import dist_util
rank = dist_util.communicator().rank
dist_util.has_bfloat16 = lambda place: rank == 0
from guided_diffusion.inference.loading import load_model
print("rank", rank, load_model({str(ROOT / "checkpoint" / "local3d.pt")!r}).settings.precision)
"""


@needs_mpiexec
def test_ranks_on_machines_of_two_kinds_take_the_precision_that_all_have(tmp_path):
    script = tmp_path / "two_kinds.py"
    script.write_text(TWO_KINDS)
    lines = succeed(str(script), ranks=2).stdout.split("\n")
    assert {"rank 0 float32", "rank 1 float32"} <= set(lines)
