"""The pictures of a run show what its tables and crops hold."""

import numpy as np
import pytest

from guided_diffusion.training import run_pictures


@pytest.fixture
def figures(monkeypatch):
    """Figures in place of the files that they would become."""
    drawn = []
    monkeypatch.setattr(run_pictures, "save_png", lambda figure, _path, _dpi: drawn.append(figure))
    return drawn


def test_slices_share_a_window_that_the_normal_dose_sets(figures, tmp_path):
    images = np.random.default_rng(0).random((3, 8, 12)).astype(np.float32)
    images[2] *= 0.3
    run_pictures.draw_example(tmp_path, images, 16.0, (3.0, 2.0, 1.0), "step 7")
    *panels, bar = figures[0].axes
    assert [panel.get_title() for panel in panels] == ["low dose", "denoised, step 7", "normal dose"]
    for panel, image in zip(panels, images, strict=True):
        (picture,) = panel.get_images()
        np.testing.assert_allclose(picture.get_array(), 16 * image, rtol=1e-6)
        assert picture.get_cmap().name == "gray_r"
        assert picture.get_clim() == (0.0, 5.0)  # 0.3 x 16 is 4.8
        assert picture.get_extent() == [0, 24.0, 0, 24.0]
    assert bar.get_ylabel() == "SUV (window 0 to 5)"


def test_curves_show_the_rows_that_have_values(figures, tmp_path):
    progress = [
        {"step": "10", "loss": "0.5", "loss_q0": "", "loss_q3": "0.7"},
        {"step": "20", "loss": "0.25", "loss_q0": "0.1", "loss_q3": ""},
    ]
    # A run that was begun before SSIM was recorded.
    validations = [
        {"step": "10", "psnr_low_dose": "40", "psnr_denoised": "41", "ssim_denoised": ""},
        {"step": "20", "psnr_low_dose": "40", "psnr_denoised": "43", "ssim_denoised": "0.98"},
    ]
    run_pictures.draw_curves(tmp_path, progress, validations)
    lines = [{line.get_label(): line.get_xydata().tolist() for line in panel.lines} for panel in figures[0].axes]
    assert lines[0]["all timesteps"] == [[10, 0.5], [20, 0.25]]
    assert lines[0]["timesteps, quartile 1"] == [[20, 0.1]]
    assert lines[0]["timesteps, quartile 2"] == []
    assert lines[0]["timesteps, quartile 4"] == [[10, 0.7]]
    assert lines[1] == {"denoised": [[10, 41], [20, 43]], "low dose": [[10, 40], [20, 40]]}
    assert lines[2]["denoised"] == [[20, 0.98]]
