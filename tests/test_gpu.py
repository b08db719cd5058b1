"""On a GPU: the same networks, steps of training and volumes, the same numbers within its precision."""

import copy

import numpy as np
import pytest
import torch

from guided_diffusion.checkpoints import save_checkpoint
from guided_diffusion.commands import train as train_command
from guided_diffusion.config import DEMO_DIFFUSION, DEMO_MODEL, Header, PreprocessingConfig, SamplerConfig
from guided_diffusion.fast.fast_unet import FastSuperResModel
from guided_diffusion.inference import denoise_volume, load_model
from guided_diffusion.inference import loading as inference_loading
from guided_diffusion.methods.registry import METHODS
from guided_diffusion.pet.grid import Volume
from guided_diffusion.script_util import create_model
from guided_diffusion.training.batches import Batch
from guided_diffusion.training.step import TrainStep
from tests.golden_weights import fill
from tests.methods.tiny import tiny_examples, tiny_network, tiny_settings
from tests.training_runs import rows, run

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]

GPU, CPU = torch.device("cuda"), torch.device("cpu")
PLAIN, FAST = (lambda model, dtype: model.to(dtype)), FastSuperResModel
# Products in float32 are rounded to 10 bits on the way (TF32), as PyTorch has convolutions by default.
PRECISIONS = [("float32", 0.01), ("bfloat16", 0.05)]


@pytest.mark.parametrize("make", [PLAIN, FAST], ids=["plain", "fast"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-3), (torch.bfloat16, 0.1), (torch.float16, 0.02)])
def test_a_network_call_agrees_with_the_cpu(make, dtype, tolerance):
    model = fill(create_model(DEMO_MODEL, DEMO_DIFFUSION))
    rng = torch.Generator().manual_seed(0)
    x, low_res = torch.rand(2, 1, 1, 8, 32, 48, generator=rng)
    t = torch.tensor([300])
    with torch.no_grad():
        exact = model(x, t, low_res=low_res)
        on_gpu = make(model.cuda(), dtype)(x.cuda(), t.cuda(), low_res=low_res.cuda()).cpu()
    assert float((on_gpu - exact).abs().mean()) < tolerance * float(exact.abs().mean())


@pytest.mark.parametrize(("precision", "tolerance"), PRECISIONS)
@pytest.mark.parametrize("method", METHODS)
def test_a_step_of_training_agrees_with_the_cpu(method, precision, tolerance, monkeypatch):
    # Methods that draw noise of their own get the CPU's on both: a GPU's generator gives other numbers.
    draw = torch.randn
    monkeypatch.setattr(torch, "randn", lambda *shape, device="cpu", **options: draw(*shape, **options).to(device))
    network = tiny_network(tiny_settings(method))
    examples = tiny_examples()
    noise = examples.noise if METHODS[method].uses_noise else None

    def step(place: torch.device, precision: str) -> dict[str, float]:
        model = copy.deepcopy(network).to(place)
        images = [
            None if image is None else image.clone() for image in (examples.low_dose, examples.normal_dose, noise)
        ]
        if place.type == "cuda":
            images = [None if image is None else image.pin_memory() for image in images]
        batch = Batch(*images, examples.reference)
        return TrainStep(tiny_settings(method, precision=precision), model).take(batch, 0)

    expected, report = step(CPU, "float32"), step(GPU, precision)
    assert report.keys() == expected.keys()
    for name, value in expected.items():
        assert report[name] == pytest.approx(value, rel=tolerance), name


@pytest.mark.parametrize("method", ["local3d", "ddpm3d"])
def test_a_run_of_training_agrees_with_the_cpu(method, data_dir, tmp_path, monkeypatch):
    flags = {"method": method, "crop_size": "8,8,8", "batch_size": 4, "microbatch": 3, "max_steps": 6, "lr": 1e-4}
    flags |= {"validation_interval": 3, "validation_crops": 2, "hot_crop_share": 0.5}
    tables = {}
    for place in (GPU, CPU):
        monkeypatch.setattr(train_command, "device", lambda place=place: place)
        run(data_dir, tmp_path / place.type, **flags)
        tables[place] = [rows(tmp_path / place.type / f"{name}.csv") for name in ("progress", "validation")]
    for name, tolerance in (("loss", 0.02), ("grad_norm", 0.05)):
        values = [[float(row[name]) for row in tables[place][0]] for place in (GPU, CPU)]
        assert values[0] == pytest.approx(values[1], rel=tolerance)
    scores = [[float(row["psnr_denoised"]) for row in tables[place][1]] for place in (GPU, CPU)]
    assert scores[0] == pytest.approx(scores[1], abs=0.1)


@pytest.fixture(scope="module")
def denoised(tmp_path_factory):
    """A function of a method, a device and flags that denoises one scan of 24 x 24 x 30 voxels in several patches."""
    folder = tmp_path_factory.mktemp("weights")
    suv = np.random.default_rng(0).gamma(2.0, 1.0, (24, 24, 30)).astype(np.float32)

    def denoise(method: str, place: torch.device, **flags):
        settings = tiny_settings(method, low_res_scale=16.0)
        header = Header(
            method, settings.model, settings.diffusion, PreprocessingConfig((3.3,) * 3), SamplerConfig("ddim", "2"), {}
        )
        path = folder / f"{method}.pt"
        save_checkpoint(path, tiny_network(settings).state_dict(), header)
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(inference_loading, "device", lambda: place)
            loaded = load_model(str(path), {"patch_size": 16, "overlap": 4} | flags)
        assert loaded.device.type == place.type
        return denoise_volume(Volume(suv, np.diag([3.3, 3.3, 3.3, 1])), loaded, measure=lambda image: image.data)

    return denoise


@pytest.mark.parametrize(("precision", "tolerance"), PRECISIONS)
@pytest.mark.parametrize("method", METHODS)
def test_a_denoised_volume_agrees_with_the_cpu(method, precision, tolerance, denoised):
    exact, on_gpu = denoised(method, CPU, precision="float32"), denoised(method, GPU, precision=precision)
    for expected, found in ((exact.samples, on_gpu.samples), (exact.samples_sd, on_gpu.samples_sd)):
        assert (found is None) == (expected is None)
        if expected is not None:
            assert np.abs(found - expected).mean() < tolerance * np.abs(expected).mean()


@pytest.mark.parametrize("method", ["ddpm3d", "local3d_draws"])
def test_realisations_named_by_a_seed_are_those_of_another_run(method, denoised):
    one, again, other = (denoised(method, GPU, realisations=3, seed=seed).measured for seed in (5, 5, 6))
    np.testing.assert_array_equal(again, one)
    for image in one:
        assert all((image != another).any() for another in other)
    assert (one[0] != one[1]).any()
