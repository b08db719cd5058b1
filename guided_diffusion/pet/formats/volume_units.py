"""Converts a volume file's values to SUV, by the unit stated in it or its sidecar, or by the user's values."""

from collections.abc import Mapping
from pathlib import Path

import nibabel as nib

from guided_diffusion.errors import InputError
from guided_diffusion.pet.formats import stated_units
from guided_diffusion.pet.suv import SUVConversion, SUVError, SUVOverrides, suvbw_of_bqml
from guided_diffusion.pet.suv.sidecar import (
    check_attenuation_corrected,
    describes_injection,
    sidecar_conversion,
    takes_times,
)


def to_suv(
    image: nib.spatialimages.SpatialImage, path: Path, overrides: SUVOverrides | None
) -> tuple[float, str, dict[str, object]]:
    """Returns the factor of the stored values, their unit after it, and a record of how both were found.

    Raises:
        InputError: the stated unit leads to no SUV, or `overrides` say what cannot be used here.
    """
    overrides = overrides or SUVOverrides()
    sidecar = stated_units.sidecar_of(path)
    content = sidecar[1] if sidecar else {}
    try:
        check_attenuation_corrected(content)
    except SUVError as error:
        raise SUVError(f"{path}: {error}") from None
    own = _header_unit(image)
    stated = stated_units.stated_under(content, *stated_units.UNIT_KEYS)
    where, unit = (f"{sidecar[0]}: {stated[0]}", stated[1]) if stated else ("its header", own)
    if not unit:
        if describes_injection(content) and not overrides.given():
            raise InputError(
                f"{path}: {sidecar[0]} describes the injection, but does not say in what the image is; add Units to it"
                " (SUV, Bq/mL or kBq/mL)"
            )
        return _by_the_user(path, content, overrides)
    basis = stated_units.suv_unit(str(unit))
    if own and isinstance(image, nib.Nifti1Pair) and stated_units.suv_unit(own) != basis:
        raise InputError(
            f"{path}: this program wrote it in {own}, but {where} is {stated_units.quoted(unit)}; give it a sidecar of"
            " its own that says so, or another place"
        )
    if basis is not None:
        said = f"says {stated_units.quoted(unit)}: SUV already"
        _refuse_flags(path, tuple(overrides.given()), overrides, f"has no use: {where} {said}")
        # Without the sidecar's name, which may be the patient's: records and pages show this.
        source = f"the sidecar's {stated[0]}" if stated else where
        return 1.0, basis, {"stored_units": basis, "suv": f"{source} {said}", "unit_stated": True}
    scale = stated_units.concentration_bqml(str(unit))
    if scale is None:
        raise InputError(
            f"{path}: {where} is {stated_units.quoted(unit)}, which is neither SUV nor activity per volume; give the"
            " image in SUV or Bq/mL"
        )
    conversion = _conversion(path, f"{where} is {stated_units.quoted(unit)}", content, overrides)
    factor = conversion.factors[0] * scale
    found = {"stored_units": str(unit)[:24], "suv_factor": factor, "suv": conversion.method}
    notices = [f"{path}: {notice}" for notice in conversion.notices]
    return factor, "SUV", found | {"suv_overrides": overrides.given(), "unit_stated": True, "notices": notices}


def _conversion(path: Path, unit: str, content: Mapping[str, object], overrides: SUVOverrides) -> SUVConversion:
    """SUVbw per Bq/mL. unit: what is known of the image's, for messages; content: of the sidecar, empty without one."""
    if not takes_times(content):
        why = "has no use: the sidecar says to when the image is corrected"
        _refuse_flags(path, ("injection_time", "scan_start"), overrides, why)
    try:
        return sidecar_conversion(content, overrides)
    except SUVError as error:
        raise SUVError(f"{path}: {unit}; {error}") from None


def _header_unit(image: nib.spatialimages.SpatialImage) -> str | None:
    """The unit that the header names: of ECAT, or of a NIfTI that this library wrote."""
    if isinstance(image, nib.ecat.EcatImage):
        return bytes(image.header["data_units"]).decode("ascii", "replace").strip("\0 ") or None
    if isinstance(image, nib.Nifti1Pair):
        return stated_units.described_unit(bytes(image.header["descrip"]).decode("ascii", "replace").rstrip("\0"))
    return None


def _by_the_user(
    path: Path, content: Mapping[str, object], overrides: SUVOverrides
) -> tuple[float, str, dict[str, object]]:
    """Without a stated unit: Bq/mL where weight and dose are given together, SUV where nothing is.

    Bq/mL is corrected to the injection, or to the scan's start where its time and the injection's are given.
    """
    given = overrides.given()
    if not given:
        return 1.0, "SUV", {"suv": "taken as SUV: the format names no unit"}
    missing = [f"--{name}" for name in ("weight_kg", "dose_bq") if name not in given]
    if missing:
        there = " ".join(f"--{name}" for name in given)
        raise InputError(
            f"{path}: {there} alone makes no SUV of Bq/mL; give {' and '.join(missing)} too, or neither if the values"
            " are SUV"
        )
    if overrides.injection_time is not None or overrides.scan_start is not None:
        conversion = _conversion(path, "taken as Bq/mL", content, overrides)
        factor, how = conversion.factors[0], f"taken as Bq/mL; {conversion.method}"
        return factor, "SUV", {"suv_factor": factor, "suv": how, "suv_overrides": given, "unit_stated": True}
    _refuse_flags(path, ("half_life_s",), overrides, "has no use without --injection_time and --scan_start")
    factor = suvbw_of_bqml(overrides.weight_kg, overrides.dose_bq)
    how = "taken as Bq/mL, decay-corrected to the injection; weight and dose given"
    return factor, "SUV", {"suv_factor": factor, "suv": how, "suv_overrides": given, "unit_stated": True}


def _refuse_flags(path: Path, names: tuple[str, ...], overrides: SUVOverrides, why: str) -> None:
    for name in names:
        if name in overrides.given():
            raise InputError(f"{path}: --{name} {why}; leave --{name} out")
