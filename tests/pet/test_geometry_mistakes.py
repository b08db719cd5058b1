"""Grids that cannot be used, and what users are told."""

from dataclasses import replace

import numpy as np
import pytest

from guided_diffusion.errors import InputError
from guided_diffusion.pet.geometry import (
    back_to_input_grid,
    to_model_grid,
)
from guided_diffusion.pet.grid import Volume, centred_affine
from tests.grids import tilted, turned


def test_grids_that_do_not_belong_together_are_refused():
    volume = Volume(np.ones((10, 10, 10), np.float32), centred_affine((10, 10, 10), 4.0, "LPS"))
    model = to_model_grid(volume)
    with pytest.raises(InputError, match="grid of the model's input"):
        back_to_input_grid(replace(model, data=model.data[1:]), model, volume)
    oblique = replace(volume, affine=turned(volume.affine, 30))
    with pytest.raises(InputError, match="does not follow the axes"):
        back_to_input_grid(model, model, oblique)


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"voxel_mm": 0.0}, "the model's grid: no PET image has voxels of 0 x 0 x 0 mm"),
        ({"voxel_mm": (1.65, -2.0, 1.65)}, "voxels of 1.65 x -2 x 1.65 mm"),
        ({"voxel_mm": float("nan")}, "voxels of nan"),
        ({"voxel_mm": 1e6}, r"voxels of 1e\+06"),
        ({"voxel_mm": 0.06}, "model's grid: would have 1334 x 1334 x 1334 voxels"),
        ({"axis_codes": "XYZ"}, "axis codes 'XYZ' name no three axes"),
        ({"axis_codes": "RRS"}, "'RRS'"),
        ({"axis_codes": "RLS"}, "'RLS'"),
        ({"axis_codes": "RA"}, "'RA'"),
        ({"axis_codes": "pls"}, "'pls'"),
        ({"margin_mm": -1.0}, "a margin of -1 mm"),
    ],
)
@pytest.mark.parametrize("tilt", [0, 15])
def test_a_wanted_grid_that_makes_no_sense_is_refused(wanted, message, tilt):
    volume = Volume(np.ones((20, 20, 20), np.float32), tilted(centred_affine((20, 20, 20), 4.0, "LPS"), tilt))
    if tilt:
        message = message.replace("1334 x 1334 x 1334", r"\d{4} x \d{4} x \d{4}")
    with pytest.raises(InputError, match=message) as caught:
        to_model_grid(volume, **wanted)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("spacing", "message"),
    [
        ((1e6, 1e6, 1e6), r"header: no PET image has voxels of 1e\+06"),
        ((0.00165, 0.00165, 0.00165), "header: no PET image has voxels of 0.00165"),  # metres
        ((0.00165, 4, 4), "header: no PET image has voxels of 0.00165 x 4 x 4"),
        ((4, 4, 90), "header: no PET image is 80 x 80 x 4500 mm large"),
    ],
)
@pytest.mark.parametrize("tilt", [0, 15])
def test_a_header_with_absurd_voxels_is_refused(spacing, message, tilt):
    affine = np.diag([*spacing, 1.0])
    if tilt:
        affine[:3, 0] += np.array([0, 0.2, 0]) * spacing[0]
        message = message.split(" of ")[0].split(" is ")[0]
    with pytest.raises(InputError, match=message):
        to_model_grid(Volume(np.ones((20, 20, 50), np.float32), affine))
