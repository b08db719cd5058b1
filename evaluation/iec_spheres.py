"""Locating the spheres of a NEMA IEC phantom in a scan, and measuring them and the background.

Axes [X, Y, Z] are posterior, left, superior (`pet.orientation.turned`), values in any unit that is linear in activity.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import distance_transform_edt, map_coordinates
from scipy.optimize import minimize

from guided_diffusion.errors import InputError
from guided_diffusion.pet.blur import gaussian_blur
from guided_diffusion.pet.spheres import ball, means_everywhere
from guided_diffusion.simulation.iec_phantom import RING_MM, SPHERES_MM

LOCALISING_SIGMA_MM = 4.0
BACKGROUND_PLANES_MM = (-20.0, -10.0, 0.0, 10.0, 20.0)  # NEMA NU 2
BACKGROUND_SPOTS = 12
FROM_EDGE_MM = 8.0
LEAST_CONTRAST = 1.3
BODY_SHARE = 0.4
SAME_SHARE = 0.6  # where two neighbours have changed places, one has half of it or less
ROUND_SPHERES_MM = 20.0  # into this much more than a sphere's diameter its activity is blurred
PLACES_TRIED = 24  # a line source of 700 mm has up to 19
_SIMPLEX_MM = np.concatenate([np.zeros((1, 4)), 2.0 * np.eye(4)])


@dataclass(frozen=True)
class Places:
    """centres: of the spheres from the smallest to the largest, in voxels, [6, 3]. spots: of the background's discs."""

    centres: np.ndarray
    spots: np.ndarray


@dataclass(frozen=True)
class Numbers:
    """Measurements in an image: mean and highest voxel of each sphere, [6]; of the background its mean, its variability
    for discs of each sphere's diameter, [6], and the coefficient of variation of its voxels.
    """

    means: np.ndarray
    peaks: np.ndarray
    background: float
    variability: np.ndarray
    noise: float

    def contrast(self) -> np.ndarray:
        """Sphere over background, less one, [6]."""
        return self.means / self.background - 1


def find_places(image: np.ndarray, voxel_mm: Sequence[float]) -> Places:
    """Finds spheres and background. Raises InputError if the image shows no six hot spheres on a ring, whole and in
    order of their size.

    The largest sphere is where a sphere of its size has a high mean; the others are placed on a ring in its plane, with
    the centre and direction that give them the highest means. The hottest such place may be something else, such as the
    line source of the scatter phantom behind: the next ones are tried until the ring fits.
    """
    smooth = gaussian_blur(image, LOCALISING_SIGMA_MM, voxel_mm)
    body = gaussian_blur(image, 2 * LOCALISING_SIGMA_MM, voxel_mm)
    tissue = np.median(body[body > np.percentile(body, 99.5) / 10])
    for largest in _hottest_places(smooth, voxel_mm):
        centres = _refined(smooth, _best_ring(smooth, largest, voxel_mm), voxel_mm)
        if not _are_spheres(smooth, centres, voxel_mm, LEAST_CONTRAST * tissue):
            continue
        _check_spheres(image, centres, voxel_mm, tissue)
        return Places(centres, _spots(body > BODY_SHARE * tissue, centres, voxel_mm))
    raise InputError("no six hot spheres on a ring of 114 mm: is this a NEMA IEC phantom?")


def _hottest_places(smooth: np.ndarray, voxel_mm: Sequence[float]) -> Iterator[np.ndarray]:
    """Voxels [3] about which a ball as the largest sphere has the highest means, a ball apart, the hottest first."""
    kernel = ball(SPHERES_MM[-1], voxel_mm).astype(float)
    means = means_everywhere(smooth, kernel / kernel.sum())
    reach = [round(SPHERES_MM[-1] / size) for size in voxel_mm]
    for _ in range(PLACES_TRIED):
        place = np.array(np.unravel_index(np.argmax(means), means.shape))
        yield place.astype(float)
        box = (slice(max(n - r, 0), n + r + 1) for n, r in zip(place, reach, strict=True))
        means[tuple(box)] = -np.inf


def _best_ring(smooth: np.ndarray, largest: np.ndarray, voxel_mm: Sequence[float]) -> np.ndarray:
    """The centres [6, 3] with the highest means among the candidates whose largest sphere is about a place."""
    rings = np.array(list(_rings(largest, voxel_mm)))
    # Weighted by their areas: a mean over the middle of a large sphere would pass for a small one.
    score = sum(d**2 * _ball_mean(smooth, rings[:, n], voxel_mm, d) for n, d in enumerate(SPHERES_MM))
    return rings[np.argmax(score)]


def _are_spheres(smooth: np.ndarray, centres: np.ndarray, voxel_mm: Sequence[float], least: float) -> bool:
    """Whether the four largest are hotter than `least`, and than the gaps on either side: else they lie elsewhere."""
    if not np.all((centres >= 0) & (centres <= np.array(smooth.shape) - 1)):
        return False
    after = np.roll(centres, -1, axis=0)
    hub = centres.mean(axis=0)
    gaps = hub + ((centres + after) / 2 - hub) / np.cos(np.pi / 6)  # on the ring
    means, between = (_ball_mean(smooth, places, voxel_mm, 8.0) for places in (centres, gaps))
    beside = np.maximum(between, np.roll(between, 1))
    return bool(np.all((means > least) & (means > beside), where=np.arange(6) >= 2))


def _check_spheres(image: np.ndarray, centres: np.ndarray, voxel_mm: Sequence[float], tissue: float) -> None:
    """Raises InputError for spheres that the image shows in part, and where the four largest do not hold as much as
    their sizes say: some are cold, or they stand in another order. How much they hold does not depend on resolution.
    """
    reach = np.outer(SPHERES_MM, 0.5 / np.asarray(voxel_mm))
    if np.any((centres - reach < -0.5) | (centres + reach > np.array(image.shape) - 0.5)):
        raise InputError("the image ends within the spheres; give one that shows all of them whole")
    held = []
    for centre, diameter in zip(centres, SPHERES_MM, strict=True):
        box, share = _sphere_weights(image.shape, centre, voxel_mm, diameter + ROUND_SPHERES_MM)
        volume = np.pi / 6 * diameter**3 / np.prod(voxel_mm)
        held.append(float(((image[box] - tissue) * share).sum()) / volume)  # the contrast, if all lay in the sphere
    box, share = _sphere_weights(image.shape, centres[-1], voxel_mm, SPHERES_MM[-1] / 2)
    contrast = float(((image[box] - tissue) * share).sum() / share.sum())
    expected = np.array(held[2:]) / held[-1]
    if held[-1] < SAME_SHARE * contrast or np.any((expected < SAME_SHARE) | (expected * SAME_SHARE > 1)):
        raise InputError(
            "the spheres on the ring do not hold as much as spheres of 10 to 37 mm in this order would; fill all six"
            " with the same activity, higher than the background's"
        )


def _rings(largest: np.ndarray, voxel_mm: Sequence[float]) -> Iterator[np.ndarray]:
    """Candidate centres [6, 3] of all spheres: every angle in steps of 2 degrees, both ways round, shifts of 3 mm."""
    size = np.asarray(voxel_mm)
    shifts = [np.array([p, l, 0.0]) for p in (-3.0, 0.0, 3.0) for l in (-3.0, 0.0, 3.0)]  # noqa: E741
    for shift in shifts:
        for angle in np.radians(np.arange(0, 360, 2)):
            middle = largest * size + shift - RING_MM * np.array([np.sin(angle), np.cos(angle), 0])
            for turn in (-1, 1):
                angles = angle - turn * np.arange(5, -1, -1) * np.pi / 3
                offsets = np.stack([np.sin(angles), np.cos(angles), np.zeros(6)], axis=1)
                yield (middle + RING_MM * offsets) / size


def _refined(smooth: np.ndarray, centres: np.ndarray, voxel_mm: Sequence[float]) -> np.ndarray:
    """The ring moved and turned a little to where the spheres' means are highest."""
    size = np.asarray(voxel_mm)
    hub = (centres * size).mean(axis=0)

    def moved(change: np.ndarray) -> np.ndarray:
        cos, sin = np.cos(change[3] / RING_MM), np.sin(change[3] / RING_MM)
        turn = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
        return ((centres * size - hub) @ turn.T + hub + change[:3]) / size

    def loss(change: np.ndarray) -> float:
        # Samples at 0.8 of the radius fall off on either side: the middle is where all are inside.
        pairs = zip(moved(change), SPHERES_MM, strict=True)
        return -float(np.sum([_ball_mean(smooth, c, voxel_mm, 1.6 * d) for c, d in pairs]))

    return moved(minimize(loss, np.zeros(4), method="Nelder-Mead", options={"initial_simplex": _SIMPLEX_MM}).x)


def _ball_mean(image: np.ndarray, centres: np.ndarray, voxel_mm: Sequence[float], diameter_mm: float) -> np.ndarray:
    """Means [...] over a few points of spheres about any places [..., 3]: their centre and fourteen directions at half
    their radius.
    """
    axes = np.concatenate([np.eye(3), -np.eye(3)])
    corners = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]) / np.sqrt(3)
    points = np.concatenate([np.zeros((1, 3)), axes, corners]) * diameter_mm / 4 / np.asarray(voxel_mm)
    places = np.moveaxis(centres[..., None, :] + points, -1, 0)
    return map_coordinates(image, places, order=1, mode="nearest").mean(axis=-1)


def _spots(body: np.ndarray, centres: np.ndarray, voxel_mm: Sequence[float]) -> np.ndarray:
    """Voxels [n, 3] in the five planes about which a disc of 37 mm holds nothing but background."""
    size = np.asarray(voxel_mm)
    middle = round(centres[:, 2].mean())
    inside = body[:, :, middle]
    grid = np.stack(np.meshgrid(*(np.arange(n) for n in inside.shape), indexing="ij"), axis=-1) * size[:2]
    hub = centres[:, :2].mean(axis=0) * size[:2]
    free = inside & (np.linalg.norm(grid - hub, axis=-1) > RING_MM + SPHERES_MM[-1] / 2 - 2)
    room = distance_transform_edt(np.pad(free, 1), sampling=size[:2])[1:-1, 1:-1]
    outer = distance_transform_edt(np.pad(inside, 1), sampling=size[:2])[1:-1, 1:-1]
    radius = SPHERES_MM[-1] / 2
    while radius > 8:
        places = np.argwhere((room >= radius) & (outer >= radius + FROM_EDGE_MM))
        if len(places):
            break
        radius -= 2
    else:
        raise InputError("no background beside the spheres: is this a NEMA IEC phantom?")
    chosen = _apart(places, size[:2])
    planes = [middle + mm / size[2] for mm in BACKGROUND_PLANES_MM]
    kept = [round(plane) for plane in planes if 0 <= round(plane) < body.shape[2]]
    return np.array([[*place, plane] for plane in kept for place in chosen])


def _apart(places: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Up to twelve of the places, each as far as possible from those before."""
    chosen = [places[0]]
    while len(chosen) < min(BACKGROUND_SPOTS, len(places)):
        distances = np.min([np.linalg.norm((places - c) * size, axis=1) for c in chosen], axis=0)
        if distances.max() < 8:
            break
        chosen.append(places[np.argmax(distances)])
    return np.array(chosen)


def measure_phantom(image: np.ndarray, places: Places, voxel_mm: Sequence[float]) -> Numbers:
    """Spheres and background of an image at places that were found in it or in its like."""
    means, peaks, variability = [], [], []
    for centre, diameter in zip(places.centres, SPHERES_MM, strict=True):
        inside = _sphere_weights(image.shape, centre, voxel_mm, diameter)
        means.append(float((image[inside[0]] * inside[1]).sum() / inside[1].sum()))
        peaks.append(float(image[inside[0]][inside[1] > 0.5].max()))
        discs = [image[_disc(image.shape, spot, voxel_mm, diameter)].mean(dtype=float) for spot in places.spots]
        variability.append(np.std(discs, ddof=1) / np.mean(discs))
    voxels = [image[_disc(image.shape, spot, voxel_mm, 30.0)] for spot in places.spots]
    noise = np.median([part.std(dtype=float) / part.mean(dtype=float) for part in voxels])
    background = float(np.mean([part.mean(dtype=float) for part in voxels]))
    return Numbers(np.array(means), np.array(peaks), background, np.array(variability), float(noise))


def _disc(shape: Sequence[int], spot: np.ndarray, voxel_mm: Sequence[float], diameter_mm: float) -> tuple:
    """Index of the voxels of a slice whose centres lie in a disc."""
    x, y = ((np.arange(n) - c) * size for n, c, size in zip(shape[:2], spot[:2], voxel_mm[:2], strict=True))
    inside = np.hypot(x[:, None], y) <= diameter_mm / 2
    return (*np.nonzero(inside), int(spot[2]))


def _sphere_weights(
    shape: Sequence[int], centre: np.ndarray, voxel_mm: Sequence[float], diameter_mm: float
) -> tuple[tuple[slice, ...], np.ndarray]:
    """A box of voxels and the share of each that lies in a sphere about any place."""
    reach = [diameter_mm / 2 / size + 1 for size in voxel_mm]
    box = tuple(
        slice(max(int(np.floor(c - r)), 0), min(int(np.ceil(c + r)) + 1, n))
        for c, r, n in zip(centre, reach, shape, strict=True)
    )
    points = (np.arange(5) - 2) / 5
    axes = [
        (np.arange(part.start, part.stop)[:, None] + points - c) * size
        for part, c, size in zip(box, centre, voxel_mm, strict=True)
    ]
    x, y, z = (axis.ravel() for axis in axes)
    inside = x[:, None, None] ** 2 + y[:, None] ** 2 + z**2 <= (diameter_mm / 2) ** 2
    counts = [side for part in box for side in (part.stop - part.start, 5)]
    return box, inside.reshape(counts).mean(axis=(1, 3, 5))
