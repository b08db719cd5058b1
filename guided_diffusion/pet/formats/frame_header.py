"""One frame of an enhanced PET object in the words of a classic slice, whose header every other module reads.

By PS3.3: A.56 (Enhanced PET), A.72 (Legacy Converted Enhanced PET), C.7.6.16 (functional groups), C.8.22 (PET modules).
"""

import copy
import datetime
import math
import re

from pydicom import Dataset
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.sequence import Sequence
from pydicom.uid import EnhancedPETImageStorage
from pydicom.valuerep import format_number_as_ds

from guided_diffusion.pet.formats import dicom_tags as tags
from guided_diffusion.pet.suv.drug import SEQUENCE
from guided_diffusion.pet.suv.overrides import is_dose
from guided_diffusion.pet.suv.slice_times import LONGEST_SCAN
from guided_diffusion.pet.suv.start_evidence import ROUNDING

SHARED, PER_FRAME = "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"
# Groups whose attributes are those of a classic slice; what converted objects keep of one comes first, the rest wins.
CLASSIC_GROUPS = (
    "UnassignedSharedConvertedAttributesSequence",
    "UnassignedPerFrameConvertedAttributesSequence",
    "PixelMeasuresSequence",
    "PlaneOrientationSequence",
    "PlanePositionSequence",
    "PixelValueTransformationSequence",
    "PETFrameCorrectionFactorsSequence",
)
# What a converted object is called itself, though it may keep what the slices were called.
IDENTITY = ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "SeriesNumber", "StudyInstanceUID")
CORRECTIONS = {
    "DecayCorrected": "DECY",
    "AttenuationCorrected": "ATTN",
    "ScatterCorrected": "SCAT",
    "DeadTimeCorrected": "DTIM",
    "GantryMotionCorrected": "MOTN",
    "PatientMotionCorrected": "PMOT",
    "CountLossNormalizationCorrected": "CLN",
    "RandomsCorrected": "RAN",
    "NonUniformRadialSamplingCorrected": "RADL",
    "SensitivityCalibrated": "DCAL",
    "DetectorNormalizationCorrection": "NORM",
}
# All of an object that describes its frames; a slice has none of it.
OBJECT_TAGS = (
    "NumberOfFrames",
    SHARED,
    PER_FRAME,
    "DecayCorrectionDateTime",
    *CORRECTIONS,
    "DimensionOrganizationType",
    "DimensionOrganizationSequence",
    "DimensionIndexSequence",
    "ConcatenationUID",
    "ConcatenationFrameOffsetNumber",
    "InConcatenationNumber",
    "InConcatenationTotalNumber",
    "SOPInstanceUIDOfConcatenationSource",
)
# All that a slice's header needs of an object's besides what that of a classic slice has.
FRAME_TAGS = (*OBJECT_TAGS, "RescaleSlope", "RescaleIntercept")
# Codes of UCUM in CID 84, older ones with the kind of SUV at the end: Units and SUVType of a classic slice.
UNITS = {
    "Bq/ml": ("BQML", None),
    "g/ml": ("GML", "BW"),
    "g/ml{SUVbw}": ("GML", "BW"),
    "g/ml{SUVlbm}": ("GML", "LBM"),
    "g/ml{SUVlbm(James128)}": ("GML", "LBMJAMES128"),
    "g/ml{SUVlbm(Janma)}": ("GML", "LBMJANMA"),
    "g/ml{SUVibw}": ("GML", "IBW"),
    "cm2/ml{SUVbsa}": ("CM2ML", "BSA"),
    "{counts}": ("CNTS", None),
}
# A slope has up to 16 characters; some writers use few of them.
SAME_SLOPE = 1e-3
_OFFSET = re.compile(r"\d{8}[\d.]*([+-]\d{4})")
_PIXEL_GROUP = 0x7FE0


def classic_header(whole: Dataset, number: int) -> tuple[Dataset, str | None]:
    """Frame `number` (from 1) of an object as a classic slice's header, without pixels.

    ReferencedFrameNumber says the frame; SOPClassUID and SOPInstanceUID are the object's. The second value is the
    reason why the frame's stored values are in no known unit, None where they are.
    """
    header = Dataset()
    dropped = {tag_for_keyword(keyword) for keyword in OBJECT_TAGS}
    for tag in whole.keys() - dropped:
        if tag.group != _PIXEL_GROUP:
            header[tag] = whole.get_item(tag)
    header.set_original_encoding(*whole.original_encoding, whole.original_character_set)
    header.file_meta = copy.deepcopy(whole.file_meta)
    for group in CLASSIC_GROUPS:
        for item in _items(whole, number, group):
            header.update(item)
    for keyword in IDENTITY:
        if keyword in whole:
            header[keyword] = whole[keyword]
    content = next(iter(_items(whole, number, "FrameContentSequence")), Dataset())
    _set_times(header, content, whole)
    _set_drugs(header, _items(whole, number, "RadiopharmaceuticalUsageSequence"))
    _set_corrections(header, content, whole)
    _set(header, "ReferencedFrameNumber", number)
    _set(header, "InstanceNumber", int(tags.number(whole, "ConcatenationFrameOffsetNumber") or 0) + number)
    return header, _set_units(header, _items(whole, number, "RealWorldValueMappingSequence"))


def _items(whole: Dataset, number: int, group: str) -> list[Dataset]:
    """Items of a functional group of a frame: its own, or those that all frames share."""
    places = (whole[PER_FRAME].value[number - 1], *(whole.get(SHARED) or ())[:1])
    return next((list(place.get(group)) for place in places if place.get(group)), [])


def _set(header: Dataset, keyword: str, value: object) -> None:
    """Replaces an element: to change it would change the object, which shares it with all frames."""
    header.add_new(tag_for_keyword(keyword), dictionary_VR(keyword), value)


def _set_drugs(header: Dataset, usage: list[Dataset]) -> None:
    """The frame's drugs, with a time of day beside the date-time as most readers of a classic slice want it, and in Bq.

    C.8.22.4 has MBq, which a classic slice never has. No dose can be taken for both.
    """
    agents = {tags.number(item, "RadiopharmaceuticalAgentNumber") for item in usage} - {None}
    drugs = [copy.deepcopy(item) for item in header.get(SEQUENCE) or ()]
    drugs = [d for d in drugs if tags.number(d, "RadiopharmaceuticalAgentNumber") in agents] or drugs
    for drug in drugs:
        dose = tags.number(drug, "RadionuclideTotalDose") or 0.0
        is_in_mbq = tags.text(header, "SOPClassUID") == EnhancedPETImageStorage and not is_dose(dose)
        if is_in_mbq and is_dose(dose * 1e6):
            _set(drug, "RadionuclideTotalDose", format_number_as_ds(dose * 1e6))
        injected = _moment(drug, "RadiopharmaceuticalStartDateTime", header)
        stated = tags.text(drug, "RadiopharmaceuticalStartDateTime")
        is_local = not tags.is_of_unknown_zone(stated, tags.text(header, "TimezoneOffsetFromUTC"))
        if injected is not None and is_local and "RadiopharmaceuticalStartTime" not in drug:
            _set(drug, "RadiopharmaceuticalStartTime", injected.strftime("%H%M%S.%f"))
    if drugs:
        _set(header, SEQUENCE, Sequence(drugs))


def _set_times(header: Dataset, content: Dataset, whole: Dataset) -> None:
    """AcquisitionDate, AcquisitionTime and ActualFrameDuration, and the offset from UTC that date-times state."""
    stated = [tags.text(content, "FrameAcquisitionDateTime"), tags.text(whole, "DecayCorrectionDateTime")]
    offsets = [match.group(1) for text in stated if text and (match := _OFFSET.fullmatch(text))]
    if offsets and not tags.text(header, "TimezoneOffsetFromUTC"):
        _set(header, "TimezoneOffsetFromUTC", offsets[0])
    acquired = _moment(content, "FrameAcquisitionDateTime", header)
    if acquired is not None:
        _set_date_and_time(header, "Acquisition", acquired)
    duration_ms = tags.number(content, "FrameAcquisitionDuration")
    if duration_ms is not None:
        _set(header, "ActualFrameDuration", round(duration_ms))


def _set_corrections(header: Dataset, content: Dataset, whole: Dataset) -> None:
    """CorrectedImage and DecayCorrection; for START the series time, to which a classic image is corrected.

    DecayCorrection is empty where decay is corrected to a time that is no start of this scan: a user must say it.
    """
    if any(keyword in whole for keyword in CORRECTIONS):
        made = [term for keyword, term in CORRECTIONS.items() if tags.text(whole, keyword) == "YES"]
        _set(header, "CorrectedImage", made)
    if tags.text(whole, "DecayCorrected") == "NO":
        _set(header, "DecayCorrection", "NONE")
    reference = _moment(whole, "DecayCorrectionDateTime", header)
    if tags.text(whole, "DecayCorrected") != "YES" or reference is None:
        return
    injections = [_moment(drug, "RadiopharmaceuticalStartDateTime", header) for drug in header.get(SEQUENCE) or ()]
    acquired = tags.date_time(header, "Acquisition") or _moment(header, "AcquisitionDateTime", header)
    if any(injection is not None and abs(injection - reference) <= ROUNDING for injection in injections):
        _set(header, "DecayCorrection", "ADMIN")
    elif acquired is not None and not -ROUNDING <= acquired - reference <= LONGEST_SCAN:
        _set(header, "DecayCorrection", None)
    else:
        _set(header, "DecayCorrection", "START")
        _set_date_and_time(header, "Series", reference)
        middle = _moment(content, "FrameReferenceDateTime", header)
        # The begin of a frame in its place would be taken for a later start of the scan.
        if middle is not None and acquired is not None and middle > acquired:
            _set(header, "FrameReferenceTime", format_number_as_ds(1000 * (middle - reference).total_seconds()))


def _moment(dataset: Dataset, keyword: str, header: Dataset) -> datetime.datetime | None:
    return tags.parse_date_time(tags.time_text(dataset, keyword), tags.text(header, "TimezoneOffsetFromUTC"))


def _set_date_and_time(header: Dataset, stem: str, moment: datetime.datetime) -> None:
    _set(header, f"{stem}Date", moment.strftime("%Y%m%d"))
    _set(header, f"{stem}Time", moment.strftime("%H%M%S.%f"))


def _set_units(header: Dataset, mappings: list[Dataset]) -> str | None:
    """Units and SUVType by the real-world mapping that the rescale slope agrees with; the reason if there is none.

    A slope that is missing is taken from the mapping. Units that a converted object keeps are those of its slope.
    """
    units, suv_type = tags.text(header, "Units"), tags.text(header, "SUVType")
    slope = tags.number(header, "RescaleSlope")
    rescale = None if slope is None else (slope, tags.number(header, "RescaleIntercept") or 0.0)
    known = [(UNITS.get(_unit(mapping), (None, None)), _line(mapping)) for mapping in mappings]
    if units is not None:
        known = [(unit, line) for unit, line in known if unit[0] == units and suv_type in (None, unit[1])]
    if not known:
        return None
    fitting = [pair for pair in known if pair[1] is not None and (rescale is None or _is_same(pair[1], rescale))]
    chosen, line = next((pair for pair in fitting if pair[0][0] is not None), (None, None))
    if chosen is None and fitting:
        code = tags.name_tag("MeasurementUnitsCodeSequence")
        return f"its unit, in {code}, is none of Bq/ml, SUV in g/ml, and counts; export it in Bq/ml"
    if chosen is None or any(pair not in fitting for pair in known if pair[0] == chosen):
        slopes = f"{tags.name_tag('RescaleSlope')} and {tags.name_tag('RealWorldValueSlope')}"
        return f"{slopes} contradict each other, or the latter is missing; export the series again"
    _set(header, "Units", chosen[0])
    if chosen[1] is not None:
        _set(header, "SUVType", chosen[1])
    if rescale is None:
        _set(header, "RescaleSlope", format_number_as_ds(line[0]))
        _set(header, "RescaleIntercept", format_number_as_ds(line[1]))
    return None


def _unit(mapping: Dataset) -> str:
    """The unit's code, the kind of SUV after it, empty where it is none of UCUM."""
    code = next(iter(mapping.get("MeasurementUnitsCodeSequence") or ()), Dataset())
    if tags.text(code, "CodingSchemeDesignator") != "UCUM":
        return ""
    value = (tags.text(code, "CodeValue") or tags.text(code, "LongCodeValue") or "").replace("mL", "ml")
    return re.sub(r"(\{SUV.*\})(.+)", r"\2\1", value)


def _line(mapping: Dataset) -> tuple[float, float] | None:
    """The slope and intercept of a mapping; None for one by a table."""
    slope = tags.number(mapping, "RealWorldValueSlope")
    return None if slope is None else (slope, tags.number(mapping, "RealWorldValueIntercept") or 0.0)


def _is_same(one: tuple[float, float], other: tuple[float, float]) -> bool:
    """Whether two slopes and intercepts say the same, but for rounding."""
    apart = abs(one[1] - other[1])
    return math.isclose(one[0], other[0], rel_tol=SAME_SLOPE) and apart <= SAME_SLOPE * max(map(abs, (*one, *other)))
