"""Positron emitters: their half-lives, and which one a header names."""

import re

# Physical half-lives in s, as evaluated by DDEP and ENSDF. Names as in '^18^Fluorine' of DICOM's CID 4020.
HALF_LIVES_S = {
    "C-11": 1221.7,
    "N-13": 597.9,
    "O-15": 122.2,
    "F-18": 6586.2,
    "Na-22": 8.211e7,
    "K-38": 458.2,
    "Sc-43": 14007.0,
    "Sc-44": 14551.0,
    "Ti-45": 11088.0,
    "Mn-51": 2772.0,
    "Mn-52": 483060.0,
    "Fe-52": 29790.0,
    "Co-55": 63108.0,
    "Cu-60": 1422.0,
    "Cu-61": 12020.0,
    "Cu-62": 580.0,
    "Cu-64": 45721.0,
    "Ga-66": 33840.0,
    "Ga-68": 4062.6,
    "Ge-68": 2.3408e7,
    "As-72": 93600.0,
    "Br-75": 5802.0,
    "Br-76": 58320.0,
    "Rb-82": 76.2,
    "Sr-82": 2.189e6,
    "Y-86": 53064.0,
    "Zr-89": 282280.0,
    "Y-90": 230560.0,
    "Tb-152": 63000.0,
    "I-124": 360800.0,
}
# Vendors round: 110 min, 6588 s, 68 min, 2.07 min. Zr-89 in hours (78.4) must not pass as Rb-82 in seconds.
TOLERANCE = 0.025
ELEMENTS = {
    "carbon": "C", "nitrogen": "N", "oxygen": "O", "fluorine": "F", "fluor": "F", "sodium": "Na", "potassium": "K",
    "scandium": "Sc", "titanium": "Ti", "manganese": "Mn", "iron": "Fe", "cobalt": "Co", "copper": "Cu",
    "gallium": "Ga", "germanium": "Ge", "arsenic": "As", "bromine": "Br", "rubidium": "Rb", "strontium": "Sr",
    "yttrium": "Y", "zirconium": "Zr", "terbium": "Tb", "iodine": "I",
}  # fmt: skip
_SYMBOLS = {symbol.lower(): symbol for symbol in ELEMENTS.values()}
# '18F', 'F-18', '^18^Fluorine', '[18F]FDG', 'Fluorodeoxyglucose F^18^': a mass number beside an element.
_NAMES = "|".join(sorted([*ELEMENTS, *_SYMBOLS], key=len, reverse=True))
_MASS_FIRST = re.compile(rf"(?<!\d)(\d{{2,3}})\W{{0,2}}({_NAMES})(?![a-z])", re.IGNORECASE)
_ELEMENT_FIRST = re.compile(rf"(?<![a-z])({_NAMES})\W{{0,2}}(\d{{2,3}})(?!\d)", re.IGNORECASE)
_FDG = re.compile(r"\bFDG\b|fluoro-?d(e|és)oxy-?glucose", re.IGNORECASE)


def nuclide_in(*texts: str | None) -> str | None:
    """The positron emitter that texts such as '^18^Fluorine' or 'FDG' name: 'F-18'; None for none, or for several."""
    found = set()
    for text in filter(None, texts):
        pairs = [(mass, element) for mass, element in _MASS_FIRST.findall(text)]
        pairs += [(mass, element) for element, mass in _ELEMENT_FIRST.findall(text)]
        for mass, element in pairs:
            symbol = ELEMENTS.get(element.lower()) or _SYMBOLS[element.lower()]
            found.add(f"{symbol}-{mass}")
        if _FDG.search(text):
            found.add("F-18")
    known = found & HALF_LIVES_S.keys()
    return known.pop() if len(known) == 1 else None


def doubt_half_life(half_life_s: float, named: str | None) -> str | None:
    """Reason why a header's half-life cannot be true, given the nuclide that it names; None if there is none.

    Without a name, a number that is another unit's half-life of a positron emitter and no emitter's in s is doubted.
    """
    if named is not None:
        if _near(half_life_s, HALF_LIVES_S[named]):
            return None
        return f"but {named}, which the header names, has {HALF_LIVES_S[named]:g} s{_unit_remark(half_life_s, named)}"
    if any(_near(half_life_s, seconds) for seconds in HALF_LIVES_S.values()):
        return None
    for nuclide in HALF_LIVES_S:
        remark = _unit_remark(half_life_s, nuclide)
        if remark:
            return f"but {nuclide} has {HALF_LIVES_S[nuclide]:g} s{remark}"
    return None


def _unit_remark(value: float, nuclide: str) -> str:
    """': it seems to be in minutes' where the value fits a nuclide in another unit than seconds."""
    for unit, seconds in (("minutes", 60.0), ("hours", 3600.0), ("days", 86400.0), ("milliseconds", 1e-3)):
        if _near(value * seconds, HALF_LIVES_S[nuclide]):
            return f": it seems to be in {unit}"
    return ""


def _near(value: float, wanted: float) -> bool:
    return abs(value / wanted - 1) <= TOLERANCE
