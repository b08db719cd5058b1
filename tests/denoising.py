"""`scripts/test.py` in tests: flags, a small network, and ways to run it."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from guided_diffusion.commands.denoise import denoise_subjects
from guided_diffusion.commands.denoise_flags import create_parser
from guided_diffusion.config import DiffusionConfig, Header, ModelConfig, PreprocessingConfig, SamplerConfig
from guided_diffusion.inference.loading import LoadedModel
from guided_diffusion.inference.presets import inference_settings
from tests.mpi import succeed

GOLDEN_FLAGS = {
    "attention_resolutions": "1000",
    "large_size": 96,
    "small_size": 96,
    "num_channels": 32,
    "num_head_channels": 64,
    "learn_sigma": True,
    "resblock_updown": True,
    "use_scale_shift_norm": True,
    "use_fp16": False,
}

SMALL_MODEL = ModelConfig(
    large_size=96, num_channels=32, num_res_blocks=1, attention_resolutions="1000", channel_mult="1,1", add_low_res=True
)

SMALL_HEADER = Header(
    method="ddpm3d",
    model=SMALL_MODEL,
    diffusion=DiffusionConfig(predict_xstart=True),
    preprocessing=PreprocessingConfig(voxel_mm=(4.0, 4.0, 4.0), patch_size=16, overlap=4),
    sampler=SamplerConfig(timestep_respacing="3"),
    training={},
)


def loaded_model(model, diffusion, sampling, preprocessing) -> LoadedModel:
    """Any network, made ready to run."""
    settings = inference_settings({}, SMALL_HEADER, on_gpu=False)
    return LoadedModel(model, diffusion, replace(settings, sampling=sampling, preprocessing=preprocessing))


def flags_of(arguments: dict) -> list[str]:
    return [text for name, value in arguments.items() for text in (f"--{name}", str(value))]


def arguments_of(base_samples, model, out, *more) -> list[str]:
    return [str(text) for text in ("--base_samples", base_samples, "--model_path", model, "--save_dir", out, *more)]


def denoise(base_samples, model, out, *more) -> Path:
    """In this process, without the start-up of another; returns the results' folder."""
    denoise_subjects(create_parser("test"), arguments_of(base_samples, model, out, *more))
    return out


def denoise_on(ranks, base_samples, model, out, *more, **how):
    return succeed("scripts/test.py", *arguments_of(base_samples, model, out, *more), ranks=ranks, **how)


def samples_in(folder) -> np.ndarray:
    (file,) = folder.glob("samples_*.npz")
    return np.load(file)["arr_0"]
