"""The NEMA NU 2 image quality (IEC) phantom: its shapes, and simulated scans of it with a given noise level."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from guided_diffusion.errors import InputError
from guided_diffusion.pet.grid import Volume
from guided_diffusion.simulation.canvas import Canvas, Grid
from guided_diffusion.simulation.native_scan import acquire, reconstruct_all
from guided_diffusion.simulation.random_acquisition import Acquisition
from guided_diffusion.simulation.shapes import Ellipsoid, Tube
from guided_diffusion.simulation.tracers import Injection

WATER_MU = 0.096  # per cm at 511 keV
LUNG_MU = 0.026  # assumed: an insert of 0.27 times the density of water
SPHERES_MM = (10, 13, 17, 22, 28, 37)
RING_MM = 57.2
BODY_SEMI_MM = (115.0, 150.0)
INSERT_RADIUS_MM = 25.5
FINE_MM = 2.0
SHAPE = (128, 160, 70)  # of FINE_MM: 256 x 320 x 140 mm
BACKGROUND_BQ_PER_ML = 5300.0  # NEMA NU 2
HARDEST_THINNING = 1e-3
# Searching for the counts: how often, and the relative error of the noise that ends it, or is still accepted.
TRIES, GOOD_ENOUGH, LARGEST_ERROR = 4, 0.05, 0.1


def canvas_of(shape: tuple[int, int, int], voxel_mm: float) -> Canvas:
    """An empty canvas that does not bend what is painted, its middle slice at d = 0."""
    return Canvas(Grid(shape, voxel_mm, -shape[2] * voxel_mm / 2), np.random.default_rng(0), bend_mm=0.0)


def sphere_centres() -> list[tuple[float, float, float]]:
    """Centres (p, l, d) in mm of the six spheres on their ring, from the smallest to the largest."""
    angles = np.arange(6) * np.pi / 3
    return [(RING_MM * np.sin(a), RING_MM * np.cos(a), 0.0) for a in angles]


def iec_phantom(shape: tuple[int, int, int], voxel_mm: float, contrast: float) -> Canvas:
    """Body of 300 x 230 mm at SUV 1, cold lung insert, six hot spheres in the middle plane (labels 10 to 15)."""
    canvas = canvas_of(shape, voxel_mm)
    canvas.paint(Ellipsoid((0, 0, 0), (*BODY_SEMI_MM, 5000), 2.5), 1.0, WATER_MU, 1)
    canvas.paint(Tube(np.array([[0, 0, -2000], [0, 0, 2000]]), np.array([INSERT_RADIUS_MM] * 2)), 0.0, LUNG_MU, 2)
    for number, (centre, diameter) in enumerate(zip(sphere_centres(), SPHERES_MM, strict=True)):
        canvas.paint(Ellipsoid(centre, (diameter / 2,) * 3), contrast, WATER_MU, 10 + number)
    return canvas


@dataclass(frozen=True)
class PhantomScan:
    """A simulated scan, float32 SUV (background 1), the share of a NEMA scan's counts that it has, and its noise."""

    image: Volume
    share: float
    noise: float


def scan_phantom(
    acquisition: Acquisition, contrast: float, seed: int, noise_of: Callable[[Volume], float], wanted: float
) -> PhantomScan:
    """The phantom in the first reconstruction of an acquisition, with counts chosen to give the wanted noise.

    noise_of: measures the noise, in the unit of `wanted`. Noise is proportional to one over the square root of the
    counts, from which a few trials find the counts; the remaining error is a few per cent.

    Raises:
        InputError: this acquisition does not have such noise, as strong filters and very few counts do not, or
            the noise hides the spheres.
    """
    phantom = iec_phantom(SHAPE, FINE_MM, contrast)
    acquisition = replace(acquisition, reconstructions=acquisition.reconstructions[:1])
    depth = phantom.grid.axes()[2]
    exposure = acquisition.scanner.exposure(depth, float(depth.min()), float(depth.max()))
    share, tried = 1.0, []
    for _ in range(TRIES):
        # In a patient of 1 kg an activity of 1000 times that of 1 mL is an SUV of 1.
        injection = Injection(1.0, 1000.0 * BACKGROUND_BQ_PER_ML, 0.967, 0.5)
        raw = acquire(phantom, acquisition, injection, exposure * share, np.random.default_rng(seed))
        (image,) = reconstruct_all(raw, raw.counts, 1.0)
        scan = PhantomScan(image, share, _measured(noise_of, image, wanted))
        if abs(scan.noise / wanted - 1) < GOOD_ENOUGH:
            return scan
        tried.append(scan.noise)
        share = max(share * (scan.noise / wanted) ** 2, HARDEST_THINNING)
    if abs(scan.noise / wanted - 1) > LARGEST_ERROR:
        nearest = min(tried, key=lambda noise: abs(noise / wanted - 1))
        raise InputError(
            f"--noise {wanted:g} is not reached with the scanner of --seed {seed}, but {nearest:.2g} is: give"
            f" --noise {nearest:.2g} or {'less' if nearest < wanted else 'more'}, or another seed"
        )
    return scan


def _measured(noise_of: Callable[[Volume], float], image: Volume, wanted: float) -> float:
    """The noise of a simulated phantom, in which nothing but noise can hide the spheres."""
    try:
        return noise_of(image)
    except InputError:
        raise InputError(
            f"--noise {wanted:g}: the spheres cannot be told from the noise of this scan; give less, or another --seed"
        ) from None
