"""What several test files start from."""

import nibabel as nib
import numpy as np
import pytest
import torch

from guided_diffusion.checkpoints import save_checkpoint
from guided_diffusion.script_util import create_model, sr_create_model_and_diffusion
from tests.denoising import GOLDEN_FLAGS, SMALL_HEADER
from tests.golden_weights import GOLDEN, fill


@pytest.fixture(scope="module")
def golden_files(tmp_path_factory):
    """The published layout with synthetic weights, and the golden low-dose volume."""
    folder = tmp_path_factory.mktemp("golden")
    model, _ = sr_create_model_and_diffusion(**GOLDEN_FLAGS)
    torch.save(fill(model).state_dict(), folder / "model.pt")
    suv = np.load(GOLDEN / "end_to_end.npz")["input_suv"].astype(np.float32)
    np.savez(folder / "subject.npz", arr_0=suv)
    return folder / "subject.npz", folder / "model.pt"


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A small network with a header, and a scan of 6 patches as `.npz` and as NIfTI on an odd grid."""
    folder = tmp_path_factory.mktemp("small")
    model = fill(create_model(SMALL_HEADER.model, SMALL_HEADER.diffusion))
    save_checkpoint(folder / "small.pt", model.state_dict(), SMALL_HEADER)
    rng = np.random.default_rng(0)
    np.savez(folder / "scan.npz", arr_0=rng.gamma(2.0, 1.0, (2, 18, 21, 73)).astype(np.float32))
    affine = np.diag([-5.0, 4.0, 3.0, 1.0])
    affine[:3, 3] = [40.0, -30.0, 12.0]
    nib.save(nib.Nifti1Image(rng.gamma(2.0, 1.0, (20, 24, 40)).astype(np.float32), affine), folder / "scan.nii.gz")
    return folder


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """Two training pairs and a validation pair: smooth normal-dose images, noisy low-dose ones."""
    folder = tmp_path_factory.mktemp("trial")
    rng = np.random.default_rng(1)
    x, y, z = np.meshgrid(*(np.linspace(0, 3, size) for size in (16, 20, 12)), indexing="ij")
    for name in ("train_1", "train_2", "validation"):
        normal = 6 + 4 * np.sin(x + rng.random()) * np.cos(y) * np.sin(z + rng.random())
        pair = np.stack([normal + rng.standard_normal(normal.shape), normal]).astype(np.float32)
        np.savez(folder / f"{name}.npz", arr_0=pair)
    lines = ["subject,dose,split,voxel_mm,pair"]
    lines += [f"{name},0.05,{name.split('_')[0]},3.3,{name}.npz" for name in ("train_1", "train_2", "validation")]
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n")
    return folder
