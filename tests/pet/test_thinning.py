"""Low-dose partners of a normal dose: prepare.py --thin and what it adds."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from guided_diffusion.commands import prepare as command
from guided_diffusion.errors import InputError
from guided_diffusion.image_datasets import find_pairs
from guided_diffusion.pet.grid import Volume, centred_affine
from guided_diffusion.pet.thinning import measure_noise, thinned
from guided_diffusion.pet.volume import save_pair, save_volume

VOXEL_MM = (4.0, 4.0, 4.0)
COV = 0.1


def body(seed: int = 0) -> Volume:
    """Tissue of SUV 2 with white noise of a tenth of it, in air."""
    data = np.zeros((50, 48, 40), np.float32)
    inside = np.s_[5:45, 5:43, :]
    data[inside] = 2 * (1 + COV * np.random.default_rng(seed).standard_normal(data[inside].shape))
    return Volume(data, centred_affine(data.shape, VOXEL_MM, "PLS"))


def run(*flags: object) -> None:
    command.prepare_image(command.create_parser(""), [str(flag) for flag in flags])


def test_noise_is_measured_where_tissue_is_uniform():
    noise = measure_noise(body(), "scan")
    assert noise.cov == pytest.approx(COV, rel=0.05)
    assert max(noise.sigmas) < 0.5


@pytest.mark.parametrize("sigma", [0.7, 1.0])
def test_noise_of_a_lower_dose_is_as_strong_as_it_should_be(sigma):
    """Though the spheres in which it is measured are chosen for their uniformity."""
    scan = body()
    inside = np.s_[5:45, 5:43, :]
    field = gaussian_filter(np.random.default_rng(1).standard_normal(scan.data.shape), sigma, mode="wrap")
    scan.data[inside] = 2 * (1 + COV * field / field.std())[inside]
    middle = np.s_[12:38, 12:36, 6:34]
    ratio = thinned(scan, measure_noise(scan, "scan"), 1 / 4, 0).data[middle].std() / scan.data[middle].std()
    assert ratio == pytest.approx(2, rel=0.1)


def test_a_scan_without_tissue_is_refused():
    with pytest.raises(InputError, match=r"cold\.nii: no sphere of 30 mm has a mean SUV of 0\.5 to 8"):
        measure_noise(Volume(np.full((20, 20, 20), 0.01, np.float32), np.eye(4) * 4), "cold.nii")


def test_noise_grows_as_counts_fall():
    scan = body()
    noise = measure_noise(scan, "scan")
    for dose in (1 / 2, 1 / 4):  # below, much of it is cut off at zero
        added = thinned(scan, noise, dose, 0).data - scan.data
        assert added[15:35, 15:33, 10:30].std() == pytest.approx(np.sqrt(1 / dose - 1) * 2 * noise.cov, rel=0.05)


def test_pairs_on_the_models_grid(tmp_path, capsys):
    save_volume(body(), tmp_path / "scan.nii.gz")
    run(
        "--input", tmp_path / "scan.nii.gz", "--thin", "1/4,1/20", "--voxel_mm", 3, 3, 3, "--output", tmp_path / "p.npz"
    )
    assert "own noise: 9.8 %" in capsys.readouterr().out
    errors = []
    pairs = find_pairs(tmp_path, "train", (3, 3, 3))
    assert [(pair.path.name, pair.dose) for pair in pairs] == [("p_1-20.npz", "0.05"), ("p_1-4.npz", "0.25")]
    for dose in ("1-4", "1-20"):
        with np.load(tmp_path / f"p_{dose}.npz") as pair:
            low, normal = pair["arr_0"]
            assert np.linalg.norm(pair["affine"][:3, :3], axis=0) == pytest.approx([3, 3, 3])
        middle = tuple(slice(n // 3, 2 * n // 3) for n in low.shape)
        assert normal[middle].mean() == pytest.approx(2, rel=0.02)
        assert low[middle].mean() == pytest.approx(2, rel=0.03)
        errors.append((low - normal)[middle])
    assert errors[1].std() / errors[0].std() == pytest.approx(np.sqrt(19 / 3), rel=0.15)
    assert not (tmp_path / "p.npz").exists()
    shape = tuple(min(a, b) for a, b in zip(errors[0].shape, errors[1].shape, strict=True))
    cut = tuple(slice(n) for n in shape)
    assert abs(np.corrcoef(errors[0][cut].ravel(), errors[1][cut].ravel())[0, 1]) < 0.2


def test_scans_and_doses_have_noise_of_their_own(tmp_path):
    """Else a training on them would see one field of noise at several strengths."""
    added = []
    for seed in (0, 1):
        save_volume(body(seed), tmp_path / f"{seed}.nii.gz")
        flags = ("--voxel_mm", 4, 4, 4, "--output", tmp_path / f"{seed}.npz")
        for dose in ("1/4", "1/20") if seed else ("1/4",):
            run("--input", tmp_path / f"{seed}.nii.gz", "--thin", dose, *flags)
            with np.load(tmp_path / f"{seed}_{dose.replace('/', '-')}.npz") as pair:
                low, normal = pair["arr_0"]
            middle = tuple(slice(n // 2 - 12, n // 2 + 12) for n in low.shape)
            added.append((low - normal)[middle].ravel())
    correlations = np.corrcoef(added)
    assert np.abs(correlations[np.triu_indices(3, 1)]).max() < 0.1


def test_no_dose_replaces_the_input_and_a_pairs_normal_dose_is_thinned(tmp_path):
    scan = body()
    save_pair(replace(scan, data=0.5 * scan.data), scan, tmp_path / "scan_1-4.npz")
    before = (tmp_path / "scan_1-4.npz").read_bytes()
    with pytest.raises(InputError, match=r"scan_1-4\.npz: it would replace the input"):
        run("--input", tmp_path / "scan_1-4.npz", "--thin", "1/4", "--output", tmp_path / "scan.npz")
    assert (tmp_path / "scan_1-4.npz").read_bytes() == before
    for flags, name in ((("--thin", "1/4"), "thin_1-4"), (("--normal_dose", tmp_path / "scan_1-4.npz"), "thin")):
        run(
            "--input", tmp_path / "scan_1-4.npz", *flags, "--voxel_mm", 4, 4, 4, "--axis_codes", "PLS", "--output",
            tmp_path / "thin.npz",
        )  # fmt: skip
        with np.load(tmp_path / f"{name}.npz") as pair:
            middle = tuple(slice(n // 3, 2 * n // 3) for n in pair["arr_0"].shape[1:])
            assert pair["arr_0"][1][middle].mean() == pytest.approx(2, rel=0.02)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--thin", "1/4"], "--thin writes pairs: give an --output that ends in .npz"),
        (["--thin", "1/4", "--output", "a.nii"], "--thin writes pairs"),
        (["--thin", "2", "--output", "a.npz"], "--thin '2': give a fraction between 0 and 1"),
        (["--thin", "x", "--output", "a.npz"], "--thin 'x': give a fraction between 0 and 1, such as 1/4"),
        (["--thin", "0,25", "--output", "a.npz"], "between 0 and 1, such as 1/4 or 0.25 \\(with a decimal"),
        (["--thin", "1/0", "--output", "a.npz"], "--thin '1/0': give a fraction between 0 and 1, such as 1/4"),
        (["--thin", "1/4", "--thin_seed", "-1", "--output", "a.npz"], "--thin_seed -1: must be 0 or more"),
        (["--thin", "1/4", "--normal_dose", "b", "--output", "a.npz"], "leave out --normal_dose"),
        (["--thin_seed", "1"], "--thin_seed is of the noise that --thin adds: give --thin"),
        (["--normal_dose", "b"], "--normal_dose is for what is written: give --output"),
        (["--suv_basis", "lbm"], "--suv_basis is for what is written: give --output"),
    ],
)
def test_mistakes_are_told_before_anything_is_read(flags, message):
    with pytest.raises(InputError, match=message.replace(".", r"\.")):
        run("--input", "no-such-file", "--info", "True", *flags)
