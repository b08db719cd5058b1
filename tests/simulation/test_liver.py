"""Noise in the liver: the measures by value, and the virtual trial's against clinical images."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import binary_erosion, gaussian_filter

from evaluation.measures.organ_noise import LIVER_SPHERE_MM, coefficient_of_variation, correlation_fwhm, deepest_point
from guided_diffusion.pet.blur import FWHM_PER_SIGMA
from guided_diffusion.pet.spheres import sphere
from guided_diffusion.pet.volume import load_volume
from guided_diffusion.simulation import trial as trials
from guided_diffusion.simulation.body_phantom import make_patient
from guided_diffusion.simulation.canvas import Grid
from guided_diffusion.simulation.scanner import load_scanners
from guided_diffusion.simulation.tracers import load_tracers

STS = Path(__file__).parents[3] / "shared" / "real_pet" / "STS_001"
STS_LIVER = (48, 73, 156)
VOXEL_MM = (3.3, 3.3, 3.3)


def test_the_deepest_point_is_found_in_mm():
    organ = np.zeros((30, 30, 60), bool)
    organ[2:13, 2:13, 2:13] = True  # 11 x 11 x 5.5 mm
    organ[18:27, 18:27, 20:50] = True  # 9 x 9 x 15 mm
    place, depth_mm = deepest_point(organ, (1.0, 1.0, 0.5))
    assert (place[:2], depth_mm) == ((22, 22), 5.0)


def test_coefficient_of_variation():
    image = np.zeros((4, 4, 4))
    image[:2] = 3.0
    image[0] = 1.0
    region = image > 0
    assert coefficient_of_variation(image, region) == pytest.approx(0.5)


def test_correlation_of_filtered_white_noise_is_known():
    fwhm_mm, voxel_mm = (9.0, 6.0, 5.0), (1.5, 1.0, 2.0)
    sigma = [f / FWHM_PER_SIGMA / v for f, v in zip(fwhm_mm, voxel_mm, strict=True)]
    noise = gaussian_filter(np.random.default_rng(0).standard_normal((100, 120, 80)), sigma, mode="wrap")
    region = sphere(noise.shape, voxel_mm, (50, 60, 40), 110.0)
    expected = [np.sqrt(2) * f for f in fwhm_mm]
    assert correlation_fwhm(5 + noise, region, voxel_mm) == pytest.approx(expected, rel=0.05)


def test_what_stays_correlated_throughout_the_region_has_no_finite_width():
    ramp = np.broadcast_to(np.arange(6.0).reshape(6, 1, 1), (6, 6, 6))
    along, across, _ = correlation_fwhm(ramp, np.ones(ramp.shape, bool), (1.0, 1.0, 1.0))
    assert along < 6
    assert across == np.inf


def subject(number: int) -> trials.VirtualSubject:
    """A subject of the trial with seed 3; 16 of them have every tracer on every scanner."""
    settings = trials.Trial("demo", 3, list(load_tracers()), list(load_scanners()), ["1/20"], "auto")
    return trials.plan_subject(settings, number)


@pytest.fixture
def upper_abdomen(monkeypatch):
    """Scans of the demo preset see the 12 cm about the liver's middle alone."""

    def grid(of: trials.VirtualSubject, preset: str) -> Grid:
        shape, voxel_mm = trials.GRID_PRESETS[preset]
        middle_mm = 556 * make_patient(of.seed, of.tracer).height_scale
        return Grid((*shape[:2], 36), voxel_mm, middle_mm - 18 * voxel_mm)

    monkeypatch.setattr(trials, "subject_grid", grid)


def liver_of(scan: trials.SimulatedScan) -> np.ndarray:
    return scan.phantom.labels == trials.label_values()["liver"]


@pytest.mark.slow
@pytest.mark.parametrize("number", range(16))
@pytest.mark.usefixtures("upper_abdomen")
def test_livers_at_normal_dose_are_as_noisy_as_clinical_ones(number):
    scan = trials.simulate(subject(number), "demo", [])
    liver = liver_of(scan)
    inside = sphere(liver.shape, VOXEL_MM, deepest_point(liver, VOXEL_MM)[0], LIVER_SPHERE_MM)
    assert 0.05 < coefficient_of_variation(scan.images[1.0], inside) < 0.15


@pytest.mark.usefixtures("upper_abdomen")
def test_noise_before_the_filter_grows_as_the_square_root_of_the_dose(monkeypatch):
    unfiltered = {name: replace(scanner, filter_fwhm_mm=0.0) for name, scanner in load_scanners().items()}
    monkeypatch.setattr(trials, "load_scanners", lambda: unfiltered)
    scan = trials.simulate(subject(8), "demo", [1 / 20])
    inside = binary_erosion(liver_of(scan), iterations=4)
    texture = coefficient_of_variation(scan.phantom.activity, inside)
    normal, low = (np.sqrt(coefficient_of_variation(scan.images[d], inside) ** 2 - texture**2) for d in (1.0, 1 / 20))
    assert low / normal == pytest.approx(np.sqrt(20), rel=0.1)


@pytest.mark.skipif(not STS.exists(), reason=f"no real PET at {STS}")
def test_noise_of_a_real_liver_is_correlated_over_the_lengths_that_the_readme_gives():
    real = load_volume(STS)
    region = sphere(real.data.shape, real.voxel_mm, STS_LIVER, 60.0)
    assert real.data[region].mean() == pytest.approx(2.03, abs=0.01)
    assert correlation_fwhm(real.data, region, real.voxel_mm) == pytest.approx((7.4, 10.4, 4.7), abs=0.1)
