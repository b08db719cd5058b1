"""Volumes with BIDS sidecars for tests of units."""

import json

import nibabel as nib
import numpy as np

SIDECAR = {
    "Units": "kBq/mL",
    "BodyWeight": 70,
    "InjectedRadioactivity": 350,
    "InjectedRadioactivityUnits": "MBq",
    "TracerRadionuclide": "F18",
    "TracerName": "FDG",
    "TimeZero": "10:10:14",
    "InjectionStart": 0,
    "ScanStart": 3600,
    "ImageDecayCorrected": True,
    "ImageDecayCorrectionTime": 0,
}
AT_INJECTION = 70 * 1000 / 350e6


def saved(path, data, sidecar=None):
    nib.save(nib.Nifti1Image(np.asarray(data, np.float32), np.diag([-4.0, 4, 4, 1])), path)
    if sidecar is not None:
        (path.parent / f"{path.name.split('.')[0]}.json").write_text(json.dumps(sidecar))
    return path


def without(*keys, **changes):
    return {key: value for key, value in (SIDECAR | changes).items() if key not in keys}
