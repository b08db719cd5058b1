"""What is said of a scan before it is denoised."""

import nibabel as nib
import numpy as np
import pytest

from guided_diffusion.config import PreprocessingConfig
from guided_diffusion.inference.planning import doubt_of_fine_voxels
from guided_diffusion.pet.grid import Volume, centred_affine
from tests.denoising import denoise


def doubt(scan_mm, network_mm, axis_codes="LPS", **preprocessing):
    """The notice on a scan with these voxels along its own axes, for a network with axes to the back, left and up."""
    volume = Volume(np.ones((4, 5, 6), np.float32), centred_affine((4, 5, 6), scan_mm, axis_codes))
    return doubt_of_fine_voxels(volume, PreprocessingConfig(voxel_mm=network_mm, **preprocessing))


@pytest.mark.parametrize(
    ("linear", "fate"),
    [
        (True, "what is smaller than those is lost but for the scan's share"),
        (False, "what is smaller than those stays as it is"),
    ],
)
def test_a_scan_of_a_mouse_is_finer_than_the_network(linear, fate):
    said = doubt((0.5, 0.5, 0.8), (2.5, 2.5, 2.5), linear_transfer=linear)
    assert said.startswith("the scan's voxels of 0.5 mm are much finer than the network's of 2.5 mm: " + fate)


@pytest.mark.parametrize(
    ("scan_mm", "network_mm"),
    [
        ((1.65, 1.65, 1.65), (3.3, 3.3, 3.3)),
        ((1.65, 1.65, 1.65), (2.5, 2.5, 2.5)),
        ((1.33, 1.33, 5.0), (3.3, 3.3, 3.3)),
        ((4.0, 4.0, 0.5), (3.3, 3.3, 3.3)),  # along the body
        ((5.5, 5.5, 3.27), (1.65, 1.65, 1.65)),
    ],
)
def test_other_scans_are_not(scan_mm, network_mm):
    assert doubt(scan_mm, network_mm) == ""


def test_the_axes_in_plane_are_those_of_the_network():
    fine_first, network_mm = (0.5, 2.0, 2.0), (2.5, 3.0, 2.5)  # to the back, left, up
    assert doubt(fine_first, network_mm, "SLP") == ""
    assert "of 0.5 mm are much finer than the network's of 2.5 mm" in doubt(fine_first, network_mm, "ALS")
    assert "of 0.5 mm are much finer than the network's of 3 mm" in doubt(fine_first, network_mm, "RSA")


@pytest.mark.parametrize("size", [1.5, 1.7])
def test_it_is_said_before_the_scan_is_denoised(size, small, tmp_path, caplog):
    """The small network has voxels of 4 mm."""
    scan = np.random.default_rng(0).gamma(4, 0.4, (24, 24, 40)).astype(np.float32)
    nib.save(nib.Nifti1Image(scan, np.diag([size, size, 4.0, 1.0])), tmp_path / "scan.nii")
    with caplog.at_level("INFO"):
        denoise(tmp_path / "scan.nii", small / "small.pt", tmp_path / "out")
    said = "notice: the scan's voxels of 1.5 mm are much finer than the network's of 4 mm"
    assert any(line.startswith(said) for line in caplog.messages) == (size == 1.5)
