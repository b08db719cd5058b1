"""scripts/trial.py and evaluation/results_figure.py: the commands, the kept numbers, and how the slices lie."""

import csv

import matplotlib.image
import numpy as np
import pytest

from evaluation import weights_trial as trial
from evaluation.compared_scans import ComparedScan, open_examination
from evaluation.results_figure import main as draw
from evaluation.results_figure import place_of_interest, save_slices, slices_of
from evaluation.weights_trial import columns_of, run_trial, weights_in, write_shown_numbers
from guided_diffusion.errors import InputError
from guided_diffusion.pet.grid import Volume
from guided_diffusion.pet.trial_manifest import read_cases
from tests.evaluation_trial import LESION, SHAPE, write_results, write_trial, write_weights


def test_all_weights_take_part_in_a_known_order(tmp_path):
    for name in ("own", "local3d", "demo_ddpm3d", "ddpm2d", "gan3d", "demo_unet3d"):
        (tmp_path / f"{name}.pt").touch()
    assert list(weights_in(tmp_path)) == ["gan3d", "demo_unet3d", "ddpm2d", "demo_ddpm3d", "local3d", "own"]
    columns = columns_of(["demo_unet3d", "demo_ddpm3d", "my_own", "small_unet3d", "small_gan3d", "local3d"])
    assert columns == {
        "3D GAN": "small_gan3d", "3D UNet": "small_unet3d", "3D DDPM": "demo_ddpm3d", "local3d": "local3d",
        "my own": "my_own",
    }  # fmt: skip
    assert list(columns) == ["3D GAN", "3D UNet", "3D DDPM", "local3d", "my own"]
    with pytest.raises(InputError, match="holds no weights"):
        weights_in(tmp_path / "none")


def test_the_commands(tmp_path, monkeypatch):
    """Simulation and weights are replaced by files that are there; comparison and figure run."""
    out = tmp_path / "trial" / "reduced"
    commands = []

    def run(*command):
        words = list(map(str, command))
        script = next(word for word in words if word.endswith(".py"))
        commands.append((script, words[words.index(script) + 1 :]))
        if "simulate" in script:
            folder, split = words[words.index("--out") + 1], words[words.index("--split") + 1]
            write_trial(out / split, split, subjects=1, doses=(0.05,))
            assert str(out / split) == folder
        elif script == "scripts/test.py":
            write_results(out / "test", out / "denoised" / "demo_unet3d")
        elif "compare" in script:
            numbers = out / "comparison" / "numbers.csv"
            numbers.parent.mkdir()
            numbers.write_text(
                "subject,tracer,scanner,dose,method,metric,region,value\n"
                "s,fdg,mct,0.05,m,psnr_normal,volume,40.0\ns,fdg,mct,0.05,m,suv_max,liver,3.0\n"
                "s,fdg,mct,0.05,m,suv_peak_bias_normal,lesion_02,-5.0\n"
            )
        else:
            draw(commands[-1][1])

    monkeypatch.setattr(trial, "run_command", run)
    (tmp_path / "weights").mkdir()
    write_weights(tmp_path / "weights" / "demo_unet3d.pt", "unet3d")
    given = ["--out_dir", str(tmp_path / "trial"), "--checkpoints", str(tmp_path / "weights"), "--subjects", "1"]
    run_trial(trial.create_parser(""), given)
    assert [script for script, _ in commands] == [
        *["scripts/simulate.py"] * 2, "scripts/test.py", "evaluation/compare.py", "evaluation/results_figure.py",
    ]  # fmt: skip
    seeds = [words[words.index("--seed") + 1] for _, words in commands[:2]]
    assert seeds[0] != seeds[1]
    assert commands[2][1][-2:] == ["--resume", "True"]
    assert f"--method=3D UNet={out / 'denoised' / 'demo_unet3d'}" in commands[-1][1]
    with (out / "virtual_trial.csv").open(newline="") as file:
        kept = [(row["metric"], row["region"]) for row in csv.DictReader(file)]
    assert kept == [("psnr_normal", "volume"), ("suv_peak_bias_normal", "lesion_02")]
    assert matplotlib.image.imread(out / "results.png").shape[2] == 4


def test_only_numbers_of_the_tables_are_kept(tmp_path):
    (tmp_path / "numbers.csv").write_text("subject,tracer,scanner,dose,method,metric,region,value\n")
    write_shown_numbers(tmp_path / "numbers.csv", tmp_path / "shown.csv")
    assert (tmp_path / "shown.csv").read_text() == "subject,tracer,scanner,dose,method,metric,region,value\n"


def test_slices_show_the_head_up_and_the_patients_right_on_the_viewers_left():
    """A hot voxel at the front, on the right and at the head: axes grow to posterior, left and superior."""
    data = np.zeros((4, 5, 6), np.float32)
    data[0, 0, 5] = 1
    slices = slices_of(data, (0, 0, 5))
    assert {plane: tuple(np.argwhere(pixels)[0]) for plane, pixels in slices.items()} == {
        "coronal": (0, 0),  # top, viewer's left
        "sagittal": (0, 0),  # top, front on the viewer's left
        "axial": (0, 0),  # front on top, viewer's left
    }
    assert {plane: pixels.shape for plane, pixels in slices.items()} == {
        "coronal": (6, 5), "sagittal": (6, 4), "axial": (4, 5),
    }  # fmt: skip


def test_slices_go_through_a_lesion(tmp_path):
    write_trial(tmp_path, "test", subjects=1, doses=(0.05,))
    examination = open_examination(ComparedScan.of_case(read_cases(tmp_path)[0]))
    # The trial's axes run to right, anterior, superior; the figure's to posterior, left, superior.
    middle = [(part.start + part.stop - 1) / 2 for part in LESION]
    expected = (SHAPE[1] - 1 - middle[1], SHAPE[0] - 1 - middle[0], middle[2])
    assert np.abs(np.subtract(place_of_interest(examination), expected)).max() <= 0.5


def test_columns_share_one_window_and_scale(tmp_path):
    """Cubes of half the window and twice as hot: grey and black, as large as each other."""
    affine = np.diag([-3.0, -3.0, 3.0, 1.0])
    cube = np.zeros((30, 40, 50), np.float32)
    cube[10:20, 15:25, 20:30] = 3.5
    images = {"half": Volume(cube, affine), "full": Volume(2 * cube, affine)}
    save_slices(tmp_path / "slices.png", images, (15, 20, 25), 7.0)
    pixels = matplotlib.image.imread(tmp_path / "slices.png")[:, :, :3]
    left, right = (
        pixels[:, : int(0.46 * pixels.shape[1])],
        pixels[:, int(0.475 * pixels.shape[1]) : int(0.93 * pixels.shape[1])],
    )
    grey = np.abs(left - 0.5).max(axis=2) < 0.02
    black = right.max(axis=2) < 0.02
    assert grey.sum() > 1000
    assert black.sum() == pytest.approx(grey.sum(), rel=0.1)


def test_a_subject_that_is_not_there(tmp_path):
    write_trial(tmp_path / "test", "test", subjects=1, doses=(0.05,))
    with pytest.raises(InputError, match="--subject 'sub-0007': not in"):
        draw(["--trial", str(tmp_path / "test"), "--subject", "sub-0007", "--method", "a=b", "--out", "x.png"])
