"""Exported weights are the same weights, rounded."""

from dataclasses import replace

import pytest
import torch

from guided_diffusion.checkpoints import load_checkpoint, save_checkpoint, save_plain
from guided_diffusion.commands.export import create_parser, export, export_half
from guided_diffusion.config import (
    DEMO_DIFFUSION,
    DEMO_MODEL,
    DEMO_PREPROCESSING,
    DEMO_SAMPLER,
    FAST_SAMPLER,
    LOCAL_MODEL,
    DiffusionConfig,
    Header,
    PreprocessingConfig,
    SamplerConfig,
)
from guided_diffusion.errors import InputError
from guided_diffusion.files import sha256_of
from guided_diffusion.methods.registry import METHODS
from guided_diffusion.training.settings import training_settings

HEADER = Header("ddpm3d", DEMO_MODEL, DEMO_DIFFUSION, DEMO_PREPROCESSING, DEMO_SAMPLER, {"step": 3})


def test_weights_are_rounded_and_the_header_stays(tmp_path):
    weights = {"a": torch.randn(50, 7), "b": 1e-3 * torch.randn(9), "c": torch.zeros(3)}
    save_checkpoint(tmp_path / "full.pt", weights, HEADER)
    change = export_half([str(tmp_path / "full.pt")], tmp_path / "half.pt")
    exported = load_checkpoint(str(tmp_path / "half.pt"))
    assert exported.header == HEADER
    for name, value in weights.items():
        torch.testing.assert_close(exported.state_dict[name], value.to(torch.float16), rtol=0, atol=0)
    assert 0 < change < 2**-10
    assert (tmp_path / "half.pt").stat().st_size < (tmp_path / "full.pt").stat().st_size


def test_the_mean_of_several_names_them_and_says_nothing_of_one_run(tmp_path):
    parts = [{"a": torch.randn(50, 7), "b": torch.randn(9)} for _ in range(3)]
    files = [tmp_path / f"{number}.pt" for number in range(3)]
    flags = []
    for number, (path, weights) in enumerate(zip(files, parts, strict=True)):
        of_run = {"step": 9, "validation_psnr": 40.0, "history": [], "seed": number, "ema_rate": "0.99"}
        save_checkpoint(path, weights, replace(HEADER, training=of_run))
        flags += ["--checkpoint", str(path)]
    export(create_parser("test"), [*flags, "--out", str(tmp_path / "mean.pt")])
    exported = load_checkpoint(str(tmp_path / "mean.pt"))
    named = [{"file": path.name, "sha256": sha256_of(path)} for path in files]
    assert exported.header == replace(HEADER, training={"ema_rate": "0.99", "mean_of": named})
    for name in "ab":
        mean = torch.stack([weights[name] for weights in parts]).mean(dim=0)
        torch.testing.assert_close(exported.state_dict[name].float(), mean, rtol=2**-10, atol=1e-7)


def test_no_checkpoint_of_training_is_replaced(tmp_path):
    """Its float16 would no longer be the weights of which its set knows the digest."""
    files = [tmp_path / "one.pt", tmp_path / "other.pt"]
    for path in files:
        save_checkpoint(path, {"a": torch.ones(3)}, HEADER)
    before = [sha256_of(path) for path in files]
    (tmp_path / "link.pt").symlink_to(files[1])
    for out in (*files, tmp_path / "link.pt"):
        with pytest.raises(InputError, match=f"{out.name}: would replace this checkpoint of training"):
            export_half([str(path) for path in files], out)
    assert [sha256_of(path) for path in files] == before


@pytest.mark.parametrize(
    ("weights", "header"),
    [
        ({"a": torch.ones(4)}, HEADER),
        ({"b": torch.ones(3)}, HEADER),
        ({"a": torch.ones(3)}, replace(HEADER, method="unet3d")),
    ],
)
def test_there_is_no_mean_of_different_networks(tmp_path, weights, header):
    save_checkpoint(tmp_path / "one.pt", {"a": torch.ones(3)}, HEADER)
    save_checkpoint(tmp_path / "other.pt", weights, header)
    with pytest.raises(InputError, match=r"other\.pt: is another network than .*one\.pt"):
        export_half([str(tmp_path / "one.pt"), str(tmp_path / "other.pt")], tmp_path / "mean.pt")
    assert not (tmp_path / "mean.pt").exists()


@pytest.mark.parametrize(
    ("part", "name", "value"),
    [
        ("diffusion", "predict_xstart", not DEMO_DIFFUSION.predict_xstart),
        ("diffusion", "noise_schedule", "linear" if DEMO_DIFFUSION.noise_schedule == "cosine" else "cosine"),
        ("diffusion", "diffusion_steps", 100),
        ("preprocessing", "suv_max", 20.0),
        ("preprocessing", "voxel_mm", (2.0, 2.0, 2.0)),
        ("preprocessing", "axis_codes", "RAS"),
    ],
)
def test_there_is_no_mean_over_processes_or_grids(tmp_path, part, name, value):
    other = replace(HEADER, **{part: replace(getattr(HEADER, part), **{name: value})})
    save_checkpoint(tmp_path / "one.pt", {"a": torch.ones(3)}, HEADER)
    save_checkpoint(tmp_path / "other.pt", {"a": torch.ones(3)}, other)
    with pytest.raises(InputError, match=rf"other\.pt: is another network than .*one\.pt \({name} "):
        export_half([str(tmp_path / "one.pt"), str(tmp_path / "other.pt")], tmp_path / "mean.pt")


def test_patches_and_samplers_may_differ_in_a_mean(tmp_path):
    other = replace(HEADER, preprocessing=replace(DEMO_PREPROCESSING, patch_size=96), sampler=FAST_SAMPLER)
    save_checkpoint(tmp_path / "one.pt", {"a": torch.ones(3)}, HEADER)
    save_checkpoint(tmp_path / "other.pt", {"a": torch.ones(3)}, other)
    export_half([str(tmp_path / "one.pt"), str(tmp_path / "other.pt")], tmp_path / "mean.pt")
    header = load_checkpoint(str(tmp_path / "mean.pt")).header
    assert (header.preprocessing, header.sampler) == (other.preprocessing, other.sampler)


def test_weights_beyond_float16(tmp_path):
    save_checkpoint(tmp_path / "full.pt", {"a": torch.tensor([1.0, 1e6])}, HEADER)
    with pytest.raises(InputError, match=r"full\.pt: a has weights beyond the range of float16"):
        export_half([str(tmp_path / "full.pt")], tmp_path / "half.pt")
    assert not (tmp_path / "half.pt").exists()


def test_weights_without_a_header(tmp_path):
    save_plain(tmp_path / "plain.pt", {"a": torch.ones(3)})
    with pytest.raises(InputError, match=r"plain\.pt: has no header"):
        export_half([str(tmp_path / "plain.pt")], tmp_path / "half.pt")


@pytest.mark.parametrize(("method", "sampler"), [("ddpm3d", DEMO_SAMPLER), ("unet3d", SamplerConfig(bfloat16=True))])
def test_what_the_demo_recommends(tmp_path, method, sampler):
    of_the_run = replace(DEMO_PREPROCESSING, patch_size=96, overlap=4, suv_max=20.0)
    header = replace(HEADER, method=method, preprocessing=of_the_run, sampler=SamplerConfig(bfloat16=True))
    save_checkpoint(tmp_path / "full.pt", {"a": torch.ones(3)}, header)
    export_half([str(tmp_path / "full.pt")], tmp_path / "half.pt", recommended="demo")
    patches = {"patch_size": DEMO_PREPROCESSING.patch_size, "overlap": DEMO_PREPROCESSING.overlap}
    exported = load_checkpoint(str(tmp_path / "half.pt")).header
    assert exported == replace(header, preprocessing=replace(of_the_run, **patches), sampler=sampler)


def test_what_the_local_preset_recommends(tmp_path):
    config = replace(LOCAL_MODEL, num_channels=32, channel_mult="1")
    model = METHODS["local3d"].create_model(config, DiffusionConfig())
    ours = Header("local3d", config, DiffusionConfig(), PreprocessingConfig(), SamplerConfig(bfloat16=True), {})
    save_checkpoint(tmp_path / "full.pt", model.state_dict(), ours)
    export_half([str(tmp_path / "full.pt")], tmp_path / "half.pt", recommended="local")
    found = load_checkpoint(str(tmp_path / "half.pt")).header
    assert (found.preprocessing.patch_size, found.preprocessing.overlap) == (96, 24)
    assert found.sampler == SamplerConfig(bfloat16=True)


@pytest.mark.parametrize(("method", "overlap"), [("ddpm3d", DEMO_PREPROCESSING.overlap), ("ddpm2d", 0)])
def test_what_a_small_preset_recommends_is_what_training_writes(tmp_path, method, overlap):
    model = replace(DEMO_MODEL, dims=2) if method == "ddpm2d" else DEMO_MODEL
    header = replace(HEADER, method=method, model=model, preprocessing=PreprocessingConfig(), sampler=FAST_SAMPLER)
    save_checkpoint(tmp_path / "full.pt", {"a": torch.ones(3)}, header)
    export_half([str(tmp_path / "full.pt")], tmp_path / "half.pt", recommended=f"small_{method}")
    found = load_checkpoint(str(tmp_path / "half.pt")).header
    trained = training_settings({"preset": f"small_{method}", "data_dir": "pairs"})
    assert (found.preprocessing.patch_size, found.preprocessing.overlap) == (DEMO_PREPROCESSING.patch_size, overlap)
    assert (trained.preprocessing.patch_size, trained.preprocessing.overlap) == (
        DEMO_PREPROCESSING.patch_size,
        overlap,
    )
    assert found.sampler == trained.sampler == DEMO_SAMPLER


def test_weights_of_an_unknown_method_are_not_recommended_anything(tmp_path):
    save_checkpoint(tmp_path / "full.pt", {"a": torch.ones(3)}, replace(HEADER, method="of_tomorrow"))
    with pytest.raises(InputError, match="the header's method 'of_tomorrow' is unknown"):
        export_half([str(tmp_path / "full.pt")], tmp_path / "half.pt", recommended="demo")
