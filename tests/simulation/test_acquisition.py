"""Counts, doses and noise by value."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from guided_diffusion.simulation.acquisition import (
    DOSES,
    counts_per_suv,
    image_geometry,
    measure,
    reconstruct,
    scan_geometry,
    thin,
)
from guided_diffusion.simulation.scanner import load_scanners
from guided_diffusion.simulation.tracers import Injection
from tests.pet_phantoms import cylinder

INJECTION = Injection(weight_kg=70.0, activity_bq_at_scan=245e6, branching=0.967, range_fwhm_mm=0.5)


def test_a_voxel_of_suv_one_decays_as_often_as_the_injection_says():
    # 245 MBq in 70 kg are 3500 Bq/ml, and a voxel of 3.3 mm holds 0.035937 ml.
    assert counts_per_suv(INJECTION, 3.3) == pytest.approx(3500 * 0.035937)
    gallium = replace(INJECTION, branching=0.889)
    assert counts_per_suv(gallium, 3.3) == pytest.approx(3500 * 0.035937 * 0.889 / 0.967)


def test_a_line_source_in_air_gives_the_published_sensitivity():
    scanner = replace(load_scanners()["discovery_mi"], scatter_fraction=0.0, randoms_ratio=0.0)
    voxel_mm, n_slices = 4.0, 175
    activity = np.zeros((24, 24, n_slices), np.float32)
    activity[11:13, 11:13] = 1.0
    becquerel = 4 * n_slices * counts_per_suv(INJECTION, voxel_mm)
    z_mm = (np.arange(n_slices) - (n_slices - 1) / 2) * voxel_mm
    exposure = scanner.efficiency(z_mm) * 60.0
    measured = measure(
        activity, np.zeros_like(activity), voxel_mm, exposure, scanner, INJECTION, np.random.default_rng(0)
    )
    counts = sum(float(c.sum(dtype=np.float64)) for c in measured.counts)
    assert counts / scanner.tof_gain / 60 / (becquerel / 1000) == pytest.approx(13.7, rel=0.01)


def test_scatter_and_randoms_have_their_share():
    scanner = load_scanners()["mct"]
    object_ = cylinder((48, 48, 12), 6.0, 100.0)
    exposure = np.full(12, 5.0)
    measured = measure(
        object_.activity, object_.attenuation, 6.0, exposure, scanner, INJECTION, np.random.default_rng(0)
    )
    background = sum(float(b.sum(dtype=np.float64)) for b in measured.background)
    trues = sum(float(c.sum(dtype=np.float64)) for c in measured.counts) - background
    # Some of the broad scatter leaves the small field of this test at its ends.
    expected = scanner.scatter_fraction / (1 - scanner.scatter_fraction) + scanner.randoms_ratio
    assert 0.5 * expected < background / trues <= 1.01 * expected


def test_thinned_counts_are_nested_subsets():
    rng = np.random.default_rng(5)
    mean = 200.0
    full = [rng.poisson(mean, (300, 500, 2)).astype(np.float32)]
    doses, counts = zip(*thin(full, rng), strict=True)
    assert doses == DOSES
    larger = full[0].astype(float)
    for dose, (thinned,) in zip(doses, counts, strict=True):
        assert np.all(thinned <= larger)
        assert thinned.mean() == pytest.approx(dose * mean, rel=0.01)
        # For nested Poisson subsets the covariance with any larger subset is the variance of the smaller one.
        assert thinned.var() == pytest.approx(dose * mean, rel=0.02)
        for other in (full[0].astype(float), larger):
            covariance = ((thinned - thinned.mean()) * (other - other.mean())).mean()
            assert covariance == pytest.approx(dose * mean, rel=0.05)
        larger = thinned.astype(float)


@pytest.fixture(scope="module")
def cylinder_scan():
    """A uniform cylinder at all doses on a scanner without axial blur, so that slices are independent."""
    scanner = replace(
        load_scanners()["discovery_mi"], axial_fwhm_mm=0.0, filter_fwhm_mm=0.0, voxel_mm=4.0, iterations=2
    )
    voxel_mm, shape = 4.0, (64, 64, 48)
    object_ = cylinder(shape, voxel_mm, 100.0)
    injection = replace(INJECTION, range_fwhm_mm=0.0)
    measured = measure(
        object_.activity, object_.attenuation, voxel_mm, np.full(48, 600.0), scanner, injection,
        np.random.default_rng(2),
    )  # fmt: skip
    images = {1.0: reconstruct(measured, scanner, shape)}
    for dose, counts in thin(measured.counts, np.random.default_rng(3)):
        images[dose] = reconstruct(measured.thinned(counts, dose), scanner, shape)
    p, l, _ = object_.grid.axes()  # noqa: E741
    middle = p[:, None] ** 2 + l[None, :] ** 2 < 75.0**2
    return SimpleNamespace(images={dose: image[middle] for dose, image in images.items()})


def test_noise_variance_scales_with_one_over_dose(cylinder_scan):
    variance = {dose: noise(image).var() for dose, image in cylinder_scan.images.items()}
    for dose in DOSES:
        assert variance[dose] * dose == pytest.approx(variance[1.0], rel=0.05), dose


def test_all_doses_have_the_same_mean(cylinder_scan):
    for dose, image in cylinder_scan.images.items():
        assert image.mean() == pytest.approx(1.0, rel=0.01), dose


def test_noise_of_a_lower_dose_contains_the_noise_of_the_full_one(cylinder_scan):
    full = noise(cylinder_scan.images[1.0])
    for dose in DOSES:
        covariance = (noise(cylinder_scan.images[dose]) * full).mean()
        # The sampling error of the covariance grows as the square root of 1 / dose.
        assert covariance == pytest.approx(full.var(), rel=0.05 + 0.03 * np.sqrt(1 / dose) / 2), dose


def noise(image: np.ndarray) -> np.ndarray:
    """What differs between slices: the deterministic pattern of the reconstruction is the same in all."""
    return (image - image.mean(axis=1, keepdims=True)) * np.sqrt(image.shape[1] / (image.shape[1] - 1))


def test_axial_noise_of_a_short_scanner_follows_its_beds():
    scanner = replace(load_scanners()["discovery_mi"], voxel_mm=5.0, iterations=2)
    voxel_mm, shape = 5.0, (48, 48, 92)
    object_ = cylinder(shape, voxel_mm, 90.0)
    depth = object_.grid.axes()[2]
    exposure = scanner.exposure(depth, -400.0, 400.0)
    measured = measure(
        object_.activity, object_.attenuation, voxel_mm, 20 * exposure, scanner, INJECTION, np.random.default_rng(4)
    )
    image = reconstruct(measured, scanner, shape)
    p, l, _ = object_.grid.axes()  # noqa: E741
    variance = image[p[:, None] ** 2 + l[None, :] ** 2 < 70.0**2].var(axis=0)[4:-4]
    exposure = exposure[4:-4]
    strong, weak = exposure > 0.85 * exposure.max(), exposure < 1.15 * exposure.min()
    expected = exposure[strong].mean() / exposure[weak].mean()
    assert expected > 1.5
    assert variance[weak].mean() / variance[strong].mean() == pytest.approx(expected, rel=0.2)


def test_images_keep_their_place_on_a_coarser_scanner_grid():
    scanner = replace(load_scanners()["mct"], filter_fwhm_mm=0.0)
    voxel_mm, shape = 2.5, (72, 96, 6)
    fine = scan_geometry(shape, voxel_mm, scanner)
    assert image_geometry(fine, scanner).shape == (45, 59)
    activity = np.zeros(shape, np.float32)
    activity[20:32, 60:80] = 5.0
    measured = measure(
        activity, np.zeros(shape, np.float32), voxel_mm, np.full(6, 1e4), scanner, INJECTION, np.random.default_rng(0)
    )
    image = reconstruct(measured, scanner, shape)
    assert image.shape == shape
    for axis, centre in enumerate((25.5, 69.5)):
        profile = (image * (image > 1)).sum(axis=tuple(k for k in range(3) if k != axis))
        assert (profile * np.arange(len(profile))).sum() / profile.sum() == pytest.approx(centre, abs=0.1)
    assert image.sum() == pytest.approx(activity.sum(), rel=0.02)
