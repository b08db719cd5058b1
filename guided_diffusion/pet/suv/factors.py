"""From a series' headers to the factor that turns what its slices store into SUV.

Follows the vendor-neutral pseudo-code of the Quantitative Imaging Biomarkers Alliance (QIBA, "SUV vendor neutral
pseudocode, happy path only" and its robust version; https://qibawiki.rsna.org/index.php/Standardized_Uptake_Value_(SUV)).
Body-weight SUV is concentration [Bq/mL] x weight [g] / activity [Bq] at the time that the image is decay-corrected to.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from pydicom import Dataset

from guided_diffusion.pet.formats import dicom_tags as tags
from guided_diffusion.pet.suv import private_tags
from guided_diffusion.pet.suv.agreement import check_slices_agree
from guided_diffusion.pet.suv.correction_doubts import doubts_of_beds, doubts_of_correction
from guided_diffusion.pet.suv.drug import SEQUENCE, dose_bq, drug_of, half_life_s
from guided_diffusion.pet.suv.injection import contradictions, date_doubts, delay_s, doubts, growth
from guided_diffusion.pet.suv.overrides import (
    SUVError,
    SUVOverrides,
    is_weight,
    refusal,
    refuse_override,
    refuse_unused,
    suvbw_of_bqml,
)
from guided_diffusion.pet.suv.private_tags import (
    PHILIPS_BQML_FACTOR,
    PHILIPS_SUV_FACTOR,
    PRIVATE_TAGS,
    PrivateElement,
)
from guided_diffusion.pet.suv.scan_start import decay_reference, doubts_of_start
from guided_diffusion.pet.suv.slice_times import mean_rate_moments
from guided_diffusion.pet.suv_bases import height_in_m

# Newborns have a body mass index of about 13 kg/m2; outside these bounds nobody lives long.
LEAST_BMI, GREATEST_BMI = 8.0, 100.0
OR_AS_NIFTI = "or give the image as NIfTI in SUV"
# All that the factor needs of a header.
SUV_TAGS = [
    "StudyDate",
    "StudyTime",
    "SeriesDate",
    "SeriesTime",
    "AcquisitionDate",
    "AcquisitionTime",
    "AcquisitionDateTime",
    "TimezoneOffsetFromUTC",
    "ActualFrameDuration",
    "FrameReferenceTime",
    "PatientWeight",
    "PatientSize",
    "PatientSex",
    "Units",
    "SUVType",
    "DecayCorrection",
    "CorrectedImage",
    "Manufacturer",
    "DecayFactor",
    SEQUENCE,
    *PRIVATE_TAGS,
]


@dataclass(frozen=True)
class SUVConversion:
    """Conversion of stored values to SUV.

    factors: SUVbw per (stored x RescaleSlope + RescaleIntercept), one per slice. method: how they were found. notices:
    what the user should check.
    """

    factors: tuple[float, ...]
    method: str
    notices: tuple[str, ...] = ()


def suvbw_factors(datasets: Sequence[Dataset], overrides: SUVOverrides | None = None) -> list[float]:
    """SUVbw per unit of (stored value x RescaleSlope + RescaleIntercept), one float per data set of one series.

    Raises:
        SUVError: no factor follows; the message names the tag and its value.
    """
    return list(suv_conversion(datasets, overrides).factors)


def suv_conversion(
    datasets: Sequence[Dataset], overrides: SUVOverrides | None = None, names: Sequence[str] = ()
) -> SUVConversion:
    """As `suvbw_factors`, with the way in which the factors were found. names: the slices' files, for messages.

    Raises:
        SUVError: no factor follows; the message names the tag and its value.
    """
    if not datasets:
        raise SUVError("no slices to take a SUV factor from")
    overrides = overrides or SUVOverrides()
    first = datasets[0]
    check_slices_agree(datasets, overrides, names)
    units = tags.code(first, "Units")
    _check_attenuation_corrected(first)
    if units == "GML":
        return _from_gml(datasets, overrides)
    if units == "CNTS" and (private_tags.number(first, PHILIPS_SUV_FACTOR) or 0) > 0:
        _refuse_all_overrides(first, overrides, f"{_name(first, PHILIPS_SUV_FACTOR)} is the scanner's own SUV factor")
        _require_decay_corrected(first)
        factors = tuple(_positive(d, PHILIPS_SUV_FACTOR) for d in datasets)
        return SUVConversion(factors, f"Philips {_name(first, PHILIPS_SUV_FACTOR)}")
    if units == "CNTS" and (private_tags.number(first, PHILIPS_BQML_FACTOR) or 0) > 0:
        conversion = _from_activity(datasets, overrides)
        factors = tuple(
            f * _positive(d, PHILIPS_BQML_FACTOR) for f, d in zip(conversion.factors, datasets, strict=True)
        )
        method = f"Philips {_name(first, PHILIPS_BQML_FACTOR)}; {conversion.method}"
        return SUVConversion(factors, method, conversion.notices)
    if units == "BQML":
        return _from_activity(datasets, overrides)
    if units == "CNTS":
        raise refusal(first, "Units", f"counts need Philips' {_name(first, PHILIPS_SUV_FACTOR)}")
    raise refusal(
        first, "Units", f"only BQML, GML, and CNTS of Philips lead to SUV; export it in one of them, {OR_AS_NIFTI}"
    )


def _from_gml(datasets: Sequence[Dataset], overrides: SUVOverrides) -> SUVConversion:
    _refuse_all_overrides(datasets[0], overrides, f"{tags.name_tag('Units')} is 'GML', SUV already")
    _require_decay_corrected(datasets[0])
    suv_type = tags.code(datasets[0], "SUVType")
    if suv_type not in (None, "BW"):
        raise refusal(datasets[0], "SUVType", "only SUV by body weight (BW) is taken")
    return SUVConversion((1.0,) * len(datasets), f"{tags.name_tag('Units')} says GML: already SUV")


def _from_activity(datasets: Sequence[Dataset], overrides: SUVOverrides) -> SUVConversion:
    """SUVbw per Bq/mL."""
    first = datasets[0]
    drug, remark = drug_of(datasets, overrides)
    remark += overrides.remark
    weight = _weight_kg(first, overrides)
    at_injection = suvbw_of_bqml(weight, dose_bq(drug, overrides))
    doubtful = _doubts_of_weight(first, weight)
    correction = tags.code(first, "DecayCorrection")
    if correction is None and overrides.scan_start is not None:
        correction = "START"
    if correction == "ADMIN":
        _require_decay_corrected(first)
        needless = ("injection_time", "half_life_s", "scan_start")
        refuse_unused(overrides, needless, "the image is corrected to the injection already")
        doubtful += doubts_of_correction(datasets, drug, overrides, 0.0)
        return SUVConversion((at_injection,) * len(datasets), f"corrected to the injection{remark}", doubtful)
    doubtful += contradictions(first, drug, overrides)
    if correction == "START":
        _require_decay_corrected(first)
        half_life = half_life_s(drug, overrides)
        reference = decay_reference(datasets, half_life, overrides)
        delay = delay_s(datasets, drug, reference, half_life, overrides)
        factor = at_injection * growth(delay, half_life)
        when = f"{abs(delay):.0f} s {'after' if delay >= 0 else 'before'} the injection"
        doubtful += doubts_of_start(datasets, reference, delay, half_life)
        doubtful += date_doubts(datasets, drug, reference, half_life, overrides)
        doubtful += doubts(datasets, drug, reference, delay, half_life, overrides)
        doubtful += doubts_of_correction(datasets, drug, overrides, delay)
        doubtful += doubts_of_beds(datasets, half_life, overrides)
        return SUVConversion((factor,) * len(datasets), f"{when}, by {reference.how}{remark}", doubtful)
    if correction == "NONE":
        _require_not_decay_corrected(first)
        refuse_unused(overrides, ("scan_start",), "the image is not decay-corrected to it")
        half_life = half_life_s(drug, overrides)
        moments = mean_rate_moments(datasets, half_life)
        delays = [
            delay_s([dataset], drug, moment, half_life, overrides)
            for dataset, moment in zip(datasets, moments, strict=True)
        ]
        doubtful += date_doubts(datasets, drug, moments[0], half_life, overrides)
        factors = tuple(at_injection * growth(delay, half_life) for delay in delays)
        method = f"not decay-corrected by the scanner: corrected here per slice{remark}"
        return SUVConversion(factors, method, doubtful)
    advice = "; give --scan_start if the image is corrected to that" if correction is None else ""
    raise refusal(first, "DecayCorrection", f"only START, ADMIN and NONE are known{advice}")


def _weight_kg(dataset: Dataset, overrides: SUVOverrides) -> float:
    weight = overrides.weight_kg if overrides.weight_kg is not None else tags.number(dataset, "PatientWeight")
    if not is_weight(weight):
        refuse_override("--weight_kg", overrides.weight_kg)
        raise refusal(dataset, "PatientWeight", "give --weight_kg")
    return weight


def _doubts_of_weight(dataset: Dataset, weight_kg: float) -> tuple[str, ...]:
    """A notice on a weight that nobody of this height has: in another unit, or with a digit too many or too few."""
    height_m = height_in_m(tags.number(dataset, "PatientSize"))
    if height_m is None or LEAST_BMI <= weight_kg / height_m**2 <= GREATEST_BMI:
        return ()
    height = tags.state(dataset, "PatientSize")
    return (f"a weight of {weight_kg:g} kg is seldom true where {height}; if it is not, give --weight_kg",)


def _check_attenuation_corrected(dataset: Dataset) -> None:
    corrections = tags.codes(dataset, "CorrectedImage")
    if not corrections:
        lacking = "it must say that attenuation is corrected (ATTN)"
        raise refusal(dataset, "CorrectedImage", f"{lacking}; export the series with this tag, {OR_AS_NIFTI}")
    if "ATTN" not in corrections:
        reason = "an image without attenuation correction (ATTN) has no SUV; give the corrected series"
        raise refusal(dataset, "CorrectedImage", reason)


def _require_decay_corrected(dataset: Dataset) -> None:
    if "DECY" not in tags.codes(dataset, "CorrectedImage"):
        raise refusal(dataset, "CorrectedImage", "no decay correction (DECY), although DecayCorrection claims one")


def _require_not_decay_corrected(dataset: Dataset) -> None:
    if "DECY" in tags.codes(dataset, "CorrectedImage"):
        claim = f"it lists a decay correction (DECY), but {tags.name_tag('DecayCorrection')} is 'NONE'"
        raise refusal(dataset, "CorrectedImage", f"{claim}; export the series again")


def _positive(dataset: Dataset, private: PrivateElement) -> float:
    value = private_tags.number(dataset, private)
    if value is None or value <= 0:
        tag = private_tags.tag_of(dataset, private) or private.usual_tag
        raise refusal(dataset, tag, "it must be above zero in each slice")
    return value


def _name(dataset: Dataset, private: PrivateElement) -> str:
    return tags.name_tag(private_tags.tag_of(dataset, private) or private.usual_tag)


def _refuse_all_overrides(dataset: Dataset, overrides: SUVOverrides, why: str) -> None:
    """For series that the scanner put into SUV. A missing weight may still be given: other bases of SUV need it."""
    weight_known = tags.number(dataset, "PatientWeight") is not None
    refuse_unused(overrides, [name for name in overrides.given() if name != "weight_kg" or weight_known], why)
