"""Scanner profiles by value."""

import numpy as np
import pytest

from guided_diffusion.errors import InputError
from guided_diffusion.simulation.scanner import load_scanners, select


@pytest.mark.parametrize(
    ("name", "sensitivity"), [("quadra", 83), ("uexplorer", 174), ("discovery_mi", 13.7), ("mct", 9.6)]
)
def test_mean_over_the_nema_line_is_the_published_sensitivity(name, sensitivity):
    z_mm = np.linspace(-350, 350, 7001)
    assert 1000 * load_scanners()[name].efficiency(z_mm).mean() == pytest.approx(sensitivity, rel=0.01)


def test_sensitivity_falls_to_zero_at_the_ends_of_the_field():
    scanner = load_scanners()["quadra"]
    centre, plateau, ramp, end = scanner.efficiency(np.array([0.0, 389.0, 460.0, 531.0]))
    assert plateau == pytest.approx(centre)
    assert ramp == pytest.approx(centre / 2)
    assert end == 0


def test_beds_overlap_and_cover_the_patient():
    scanner = load_scanners()["mct"]
    beds = scanner.bed_centres(0.0, 1060.0)
    np.testing.assert_allclose(np.diff(beds), 221 * (1 - 0.43))
    assert beds.mean() == pytest.approx(530)
    assert np.all(scanner.exposure(np.linspace(0, 1060, 200), 0.0, 1060.0) > 0)


def test_a_long_scanner_has_one_bed():
    scanner = load_scanners()["uexplorer"]
    np.testing.assert_allclose(scanner.bed_centres(0.0, 1060.0), [530.0])
    seen = scanner.exposure(np.array([530.0]), 0.0, 1060.0)
    assert seen[0] == pytest.approx(60 * scanner.bed_minutes * scanner.efficiency(np.zeros(1))[0])


def test_time_of_flight_gain():
    # 228 ps are 34.2 mm: 270 / (1.6 x 34.2).
    assert load_scanners()["quadra"].tof_gain == pytest.approx(4.94, abs=0.01)


def test_every_profile_names_its_source():
    assert all("doi" in scanner.source for scanner in load_scanners().values())


def test_selection():
    scanners = load_scanners()
    assert select(scanners, "all", "scanner") == ["quadra", "uexplorer", "discovery_mi", "mct"]
    assert select(scanners, "mct, quadra", "scanner") == ["mct", "quadra"]
    with pytest.raises(InputError, match="no scanner is called 'vision'; choose from quadra"):
        select(scanners, "vision", "scanner")
