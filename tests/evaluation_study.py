"""A small study in the published layout, for the tests of evaluation/get_ssim_psnr.py."""

import h5py
import nibabel as nib
import numpy as np
from scipy.io import savemat
from scipy.ndimage import gaussian_filter
from skimage.metrics import structural_similarity

SHAPE = (12, 14, 16)


class Study:
    """Two subjects in the published layout, and their arrays in SUV."""

    def __init__(self, folder):
        self.gtr_dir, self.gen_dir, self.mat_dir = folder / "gtr", folder / "gen", folder / "mat"
        self.csv = folder / "tables" / "table.csv"
        for place in (self.gtr_dir, self.gen_dir, self.mat_dir):
            place.mkdir()
        self.reference, self.generated, self.peak = {}, {}, {"a": 100.0, "b": 40.0}
        rng = np.random.default_rng(8)
        for name in ("a", "b"):
            reference = 16 * gaussian_filter(rng.random(SHAPE), 1)
            self.reference[name] = np.clip(2 * reference - 12, 0, 16)
            self.reference[name][2:5, 3:6, 4:7] = 16  # a bladder, clipped
            self.generated[name] = np.minimum(self.reference[name] + rng.normal(scale=0.6, size=SHAPE), 16)
            low_dose = np.zeros(SHAPE)
            self.write_reference(name, np.stack([low_dose, self.reference[name]]) / 16)
            self.write_generated(name, self.generated[name] / 16)
        scan = np.array([[[1.0, 100.0, 3.0], [3.0, 4.0, 5.0]]])
        savemat(self.mat_dir / "a.mat", {"suv": scan, "other": 5})
        with h5py.File(self.mat_dir / "b.mat", "w", userblock_size=512) as file:
            file["suv"] = 0.4 * scan

    def write_reference(self, name, array):
        np.savez(self.gtr_dir / f"{name}.npz", array)

    def write_generated(self, name, array):
        (self.gen_dir / name).mkdir(exist_ok=True)
        np.savez(self.gen_dir / name / "samples_12x14x16.npz", array)

    def arguments(self, *more):
        return ["--gtr_dir", str(self.gtr_dir), "--gen_dir", str(self.gen_dir), *more]

    def published(self, *more):
        return self.arguments("--matfile_dir", str(self.mat_dir), *more)

    def expected(self, name):
        """SSIM, honest and published PSNR from the definitions, in float64."""
        reference, generated = self.reference[name], np.maximum(self.generated[name], 0)
        error = ((reference - generated) ** 2).mean()
        return (
            structural_similarity(reference, generated, data_range=16),
            10 * np.log10(16**2 / error),
            10 * np.log10(self.peak[name] ** 2 / error),
        )


def write_nifti(path, array, affine):
    nib.save(nib.Nifti1Image(array.astype(np.float32), affine), path)
