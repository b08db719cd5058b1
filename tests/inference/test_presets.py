"""Which sampler a run takes, and from where it starts: preset, header, flags."""

from dataclasses import replace

import numpy as np
import pytest

from guided_diffusion.commands.denoise_flags import create_parser
from guided_diffusion.config import DEMO_DIFFUSION, DEMO_MODEL, DEMO_PREPROCESSING, Header, SamplerConfig
from guided_diffusion.errors import InputError
from guided_diffusion.inference import loading
from guided_diffusion.inference.loading import load_model
from guided_diffusion.inference.presets import MODEL_FLAGS, inference_settings, model_flags
from tests.mpi import ROOT

RECOMMENDED = SamplerConfig("dpmpp_2m", timestep_respacing="logsnr10", start_from="low_dose", start_step=400)
HEADER = Header("ddpm3d", DEMO_MODEL, DEMO_DIFFUSION, DEMO_PREPROCESSING, RECOMMENDED, {})


def sampling_of(flags, header=HEADER):
    sampling = inference_settings(flags, header, on_gpu=False).sampling
    return sampling.sampler, sampling.start_from, sampling.start_step


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({}, ("dpmpp_2m", "low_dose", 400)),
        ({"preset": "paper"}, ("ddpm", "noise", None)),
        ({"sampler": "dpmpp_2m_sde"}, ("dpmpp_2m_sde", "low_dose", 400)),
        ({"use_ddim": True}, ("ddim", "low_dose", 400)),
        ({"use_ddim": False}, ("ddpm", "low_dose", 400)),
        ({"use_ddim": True, "sampler": "ddim"}, ("ddim", "low_dose", 400)),
        ({"use_ddim": False, "sampler": "dpmpp_2m"}, ("dpmpp_2m", "low_dose", 400)),
        ({"start_from": "noise"}, ("dpmpp_2m", "noise", None)),
        ({"start_step": 150}, ("dpmpp_2m", "low_dose", 150)),
        ({"preset": "paper", "start_from": "low_dose", "start_step": 0}, ("ddpm", "low_dose", 0)),
    ],
)
def test_flags_go_before_the_header_and_the_header_before_defaults(flags, expected):
    assert sampling_of(flags) == expected


def test_without_a_header():
    assert sampling_of({}, header=None) == ("ddpm", "noise", None)
    assert sampling_of({"preset": "fast"}, header=None) == ("ddim", "noise", None)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"sampler": "euler"}, "--sampler 'euler' is unknown: choose ddpm, ddim, dpmpp_2m, dpmpp_2m_sde"),
        ({"use_ddim": True, "sampler": "ddpm"}, "--use_ddim True contradicts --sampler ddpm"),
        ({"use_ddim": False, "sampler": "ddim"}, "--use_ddim False contradicts --sampler ddim"),
        ({"start_from": "zero"}, "--start_from 'zero' is unknown: choose noise or low_dose"),
        ({"start_from": "noise", "start_step": 100}, "--start_step 100 needs --start_from low_dose"),
        ({"preset": "paper", "start_step": 100}, "--start_step 100 needs --start_from low_dose"),
        ({"preset": "paper", "start_from": "low_dose"}, "--start_from low_dose needs --start_step"),
    ],
)
def test_contradictions_are_refused(flags, words):
    with pytest.raises(InputError, match=words):
        inference_settings(flags, HEADER, on_gpu=False)


@pytest.mark.parametrize(
    ("flags", "notices"),
    [
        (
            {"start_from": "noise"},
            (
                "--timestep_respacing logsnr10 is recommended for --start_from low_dose: give another for --start_from"
                " noise",
            ),
        ),
        ({"start_from": "noise", "timestep_respacing": "logsnr10"}, ()),
        ({"start_from": "low_dose"}, ()),
        ({"start_from": "noise", "preset": "paper"}, ()),
        ({"start_from": "low_dose", "start_step": 100, "preset": "paper"}, ()),
    ],
)
def test_steps_that_are_meant_for_another_start_are_reported(flags, notices):
    """The shipped network's one step from the low dose would be one step from pure noise."""
    assert inference_settings(flags, HEADER, on_gpu=False).notices == notices


def test_a_header_with_a_sampler_of_another_version_is_refused_unless_a_flag_replaces_it():
    header = replace(HEADER, sampler=replace(RECOMMENDED, sampler="newer"))
    with pytest.raises(InputError, match="the header's sampler 'newer' is unknown"):
        inference_settings({}, header, on_gpu=False)
    assert sampling_of({"sampler": "ddim"}, header) == ("ddim", "low_dose", 400)


def test_load_model_refuses_flags_that_it_does_not_know():
    checkpoint = str(ROOT / "checkpoint" / "demo_ddpm3d.pt")
    for flag in ("percision", "base_samples"):
        with pytest.raises(InputError, match=f"load_model knows no flag '{flag}': choose from .*, precision, .*"):
            load_model(checkpoint, {"precision": "float32", flag: "x"})
    assert load_model(checkpoint, {"precision": "float32"}).settings.precision == "float32"


def test_a_path_may_be_a_text_or_a_path():
    checkpoint = ROOT / "checkpoint" / "demo_unet3d.pt"
    assert load_model(checkpoint).sha256 == load_model(str(checkpoint)).sha256 != ""
    with pytest.raises(InputError, match=r"none\.pt: no such checkpoint"):
        load_model(ROOT / "none.pt")


def test_values_from_python_are_read_as_on_the_command_line():
    given = {
        "dose_fraction": 0.05,
        "realisations": "2",
        "patch_size": np.int64(16),
        "mirrored": "False",
        "timestep_respacing": 2,
        "seed": None,
    }
    read = {"dose_fraction": "0.05", "realisations": 2, "patch_size": 16, "mirrored": False, "timestep_respacing": "2"}
    assert model_flags(given) == read
    for flag, value in {"realisations": 2.5, "seed": 1.5, "mirrored": "perhaps", "batch_size": "two"}.items():
        with pytest.raises(InputError, match=f"argument --{flag}: .*{value}"):
            model_flags({flag: value})


def test_compiling_is_not_tried_where_a_method_has_no_layers_for_it(monkeypatch):
    monkeypatch.setattr(loading, "compiled_norm_silu", lambda: pytest.fail("compiled"))
    loaded = load_model(str(ROOT / "checkpoint" / "local3d.pt"), {"compile": True})
    assert loaded.compile_seconds is None
    assert loaded.settings.notices[-1] == "--compile has no effect: local3d has no layers that it compiles"


def test_every_flag_of_sampling_and_of_the_network_reaches_load_model():
    groups = {group.title: group for group in create_parser("test")._action_groups}
    of_models = [name for name in groups if name == "sampling" or name.endswith("without a header")]
    assert len(of_models) == 3
    flags = {action.dest for name in of_models for action in groups[name]._group_actions}
    assert flags | {"batch_size", "precision", "compile"} == MODEL_FLAGS | {"num_samples"}
