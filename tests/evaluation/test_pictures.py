import json
import subprocess
import sys

import matplotlib.image
import numpy as np
import pytest
from scipy.ndimage import label

from evaluation.demo_report import write_demo_report
from evaluation.measures.image_fidelity import psnr, ssim
from evaluation.mip_pictures import save_coronal_mips
from guided_diffusion.errors import InputError


def grey_panels(path):
    """Grey levels 0..255 of the picture, and the frames of its panels in order, as (top, bottom, left, right)."""
    pixels = np.rint(255 * matplotlib.image.imread(path)[:, :, :3].mean(axis=2)).astype(int)
    frames, count = label(pixels < 200)
    boxes = []
    for index in range(1, count + 1):
        rows, columns = np.nonzero(frames == index)
        if np.ptp(rows) > 0.7 * pixels.shape[0] and np.ptp(columns) > 50:
            boxes.append((rows.min(), rows.max(), columns.min(), columns.max()))
    return pixels, sorted(boxes, key=lambda box: box[2])


def test_picture_has_one_window_true_proportions_and_titles_in_order(tmp_path):
    # 60 x 60 mm cubes in voxels of 3 x 4 mm (Y, Z), away from the frame and from the side marks.
    def cube(suv):
        volume = np.zeros((10, 60, 70), np.float32)
        volume[2:8, 10:30, 45:60] = suv
        return volume

    path = tmp_path / "mips.png"
    save_coronal_mips(path, {"half": cube(5), "hot": cube(30)}, voxel_size=(5, 3, 4))
    assert [file.name for file in tmp_path.iterdir()] == ["mips.png"]

    pixels, boxes = grey_panels(path)
    assert len(boxes) == 2
    for (top, bottom, left, right), grey in zip(boxes, (127, 0), strict=True):
        panel = pixels[top + 4 : bottom - 3, left + 4 : right - 3]
        assert panel.shape[0] / panel.shape[1] == pytest.approx((70 * 4) / (60 * 3), rel=0.02)
        mm = 280 / (bottom - top)  # per pixel
        rows, columns = np.nonzero(np.abs(panel - grey) <= 2)
        inside = rows > 0.1 * panel.shape[0]  # below the marks R and L
        rows, columns = rows[inside], columns[inside]
        assert np.ptp(rows) * mm == pytest.approx(60, abs=3)
        assert np.ptp(columns) * mm == pytest.approx(60, abs=3)
        assert (rows.mean() * mm, columns.mean() * mm) == pytest.approx((280 - 210, 60), abs=3)


def test_pictures_leave_pyplot_alone():
    code = "import sys, evaluation.mip_pictures; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_picture_of_different_shapes_is_refused(tmp_path):
    with pytest.raises(InputError, match="one shape"):
        save_coronal_mips(tmp_path / "mips.png", {"a": np.zeros((3, 4, 5)), "b": np.zeros((3, 4, 6))}, (1, 1, 1))


def test_demo_report(tmp_path, capsys):
    rng = np.random.default_rng(2)
    normal_dose = np.zeros((16, 20, 24), np.float32)
    normal_dose[4:12, 5:15, 6:18] = 3
    normal_dose[6:9, 8:12, 6:9] = 40  # a bladder beyond the clip must not count
    low_dose = normal_dose + rng.normal(scale=1.0, size=normal_dose.shape).astype(np.float32)
    denoised = np.minimum(normal_dose, 16) + np.float32(0.25)

    metrics = write_demo_report(low_dose, denoised, normal_dose, (2, 2, 2), tmp_path)

    assert metrics == json.loads((tmp_path / "metrics.json").read_text())
    assert {key: set(value) for key, value in metrics.items()} == {
        "low_dose": {"psnr", "ssim"},
        "gaussian_best": {"psnr", "ssim", "sigma_mm"},
        "denoised": {"psnr", "ssim"},
    }
    clipped = np.clip(normal_dose, 0, 16)
    # Off by 0.25 everywhere but in the 36 voxels of the bladder, where both are clipped to 16.
    error = 0.25**2 * (1 - 36 / normal_dose.size)
    assert metrics["denoised"]["psnr"] == pytest.approx(10 * np.log10(256 / error), abs=1e-3)
    assert metrics["low_dose"]["psnr"] == pytest.approx(psnr(clipped, np.clip(low_dose, 0, 16)))
    assert metrics["low_dose"]["ssim"] == pytest.approx(ssim(clipped, np.clip(low_dose, 0, 16)))
    assert metrics["gaussian_best"]["psnr"] >= metrics["low_dose"]["psnr"]

    table = capsys.readouterr().out
    for row in metrics.values():
        assert f"{row['psnr']:.2f}  {row['ssim']:.4f}" in table
    assert matplotlib.image.imread(tmp_path / "coronal_mips.png").ndim == 3
