"""Small trainings for tests, and what they leave behind."""

import csv
import os
import time

import torch

from guided_diffusion.checkpoints import load_checkpoint
from guided_diffusion.commands import train as train_command
from guided_diffusion.training.settings import training_settings
from tests.mpi import ROOT

SCRIPT = ROOT / "scripts" / "train.py"

TINY = {
    "num_channels": 32,
    "num_res_blocks": 1,
    "channel_mult": "1,1",
    "attention_resolutions": "1000",
    "resblock_updown": True,
    "add_low_res": True,
    "predict_xstart": True,
    "crop_size": "8,8,4",
    "voxel_mm": "3.3,3.3,3.3",
    "ema_rate": "0.9,0.99",
    "batch_size": 2,
    "lr": 1e-3,
    "log_interval": 1,
    "validation_interval": 0,
    "threads": 1,
}

# Few enough timesteps for the loss-aware sampler to have seen all of them.
TWO_STEPS = {"noise_schedule": "cosine", "diffusion_steps": 2}


def run(data_dir, save_dir, **flags):
    """Train in this process with the tiny network and more flags."""
    settings = training_settings(TINY | {"data_dir": str(data_dir), "save_dir": str(save_dir)} | flags)
    save_dir.mkdir(exist_ok=True)
    threads = torch.get_num_threads()
    try:
        train_command.train_with(settings, save_dir)
    finally:
        torch.set_num_threads(threads)


def weights(path):
    return load_checkpoint(str(path)).state_dict


def assert_same_weights(one, other):
    one, other = weights(one), weights(other)
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name], other[name]), name


def rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def wait_for(path, process, lines=0):
    """Until a file exists and has that many lines; fails if the process ends first."""
    for _ in range(1200):
        if path.exists() and (not lines or path.read_text().count("\n") > lines):
            return
        assert process.poll() is None, "the run ended early"
        time.sleep(0.05)
    raise AssertionError(f"{path.name} did not appear")


def environment():
    return os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
