"""Units that files state in words: in a BIDS sidecar, ECAT's header, or the description in our own NIfTI."""

import json
import re
from collections.abc import Mapping
from pathlib import Path

from guided_diffusion.pet.damage import damage_as
from guided_diffusion.pet.formats.opening import open_regular
from guided_diffusion.pet.suv_bases import UNITS

LARGEST_SIDECAR_BYTES = 2**22
# The folders of a volume in BIDS: pet, session, subject, data set.
BIDS_LEVELS = 4
# The image's unit, as BIDS calls it and as others do.
UNIT_KEYS = ("Units", "Unit", "ImageUnits", "ImageUnit")
_OWN_DESCRIPTION = re.compile(r"\[(SUV[a-z]*|BQML|CNTS)\]\s*$")
# Texts without brackets, hyphens and low lines.
_BASES = {
    "SUV": ("suv", "suvbw", "suvbodyweight", "g/ml", "gml", "g/mlsuvbw", "suvbwg/ml", "suvg/ml"),
    UNITS["lbm"]: ("suvlbm", "suvleanbodymass", "sul", "g/mlsuvlbm", "suvlbmg/ml", "sulg/ml"),
    UNITS["bsa"]: ("suvbsa", "suvbodysurfacearea", "cm2/ml", "cm2ml", "cm2/mlsuvbsa", "suvbsacm2/ml"),
}
_ACTIVITY_BQ = {"bq": 1.0, "kbq": 1e3, "mbq": 1e6, "gbq": 1e9, "nci": 37.0, "uci": 3.7e4, "mci": 3.7e7}
# With BIDS' word for what is not known, since its weights are in kg.
_MASS_KG = {
    **dict.fromkeys(("kg", "kgs", "kilogram", "kilograms", "n/a"), 1.0),
    **dict.fromkeys(("g", "gram", "grams"), 1e-3),
    **dict.fromkeys(("lb", "lbs", "pound", "pounds"), 0.45359237),
}
_VOLUME_ML = {"ml": 1.0, "cc": 1.0, "cm3": 1.0, "l": 1000.0, "mm3": 1e-3}
_ACTIVITY_PER_VOLUME = re.compile(r"([a-z]*bq|[a-z]*ci)/?(ml|cc|cm3|l|mm3)")
# As DICOM's codes name units in full: "Becquerels/milliliter", "Standardized Uptake Value body weight".
_BECQUEREL, _MILLILITRE = re.compile(r"(kilo|mega|giga)?becquerels?"), re.compile(r"millilit(er|re)s?")
_STANDARDISED = re.compile(r"standardi[sz]eduptakevalue")
_BRACKETS = re.compile(r"[()\[\]{}]")
# Signs that have more than one form: micro, dots of multiplication, and raised digits and signs.
_SIGNS = str.maketrans("µμ·⋅¹²³⁻", "uu..123-", "^ \0")
_INVERSE = re.compile(r"[.*]?(ml|cc|cm3|l|mm3)-1$")


def concentration_bqml(unit: str) -> float | None:
    """Size in Bq/mL of a unit of activity per volume, such as 'kBq/mL'; None for any other unit."""
    match = _ACTIVITY_PER_VOLUME.fullmatch(_INVERSE.sub(r"/\1", _plain(unit)))
    if match is None or match.group(1) not in _ACTIVITY_BQ:
        return None
    return _ACTIVITY_BQ[match.group(1)] / _VOLUME_ML[match.group(2)]


def activity_bq(unit: str) -> float | None:
    """Size in Bq of a unit of activity, such as 'MBq'; None for any other unit."""
    return _ACTIVITY_BQ.get(_plain(unit))


def mass_kg(unit: str) -> float | None:
    """Size in kg of a unit of mass, such as 'lb'; None for any other unit."""
    return _MASS_KG.get(_plain(unit))


def suv_unit(unit: str) -> str | None:
    """'SUV', 'SUVlbm' or 'SUVbsa' for a text that means one of them; None for any other."""
    plain = re.sub(r"/(cc|cm3)", "/ml", re.sub(r"[_-]", "", _plain(unit)))
    return next((name for name, texts in _BASES.items() if plain in texts), None)


def described_unit(description: str) -> str | None:
    """The unit at the end of a description that `nifti.write` made, such as '... [SUVlbm]'; None for another one."""
    match = _OWN_DESCRIPTION.search(description)
    return match.group(1) if match else None


def quoted(unit: object) -> str:
    """A unit, number or time for a message; what is none by its letters is not shown, since it may be anything."""
    text = str(unit)
    return f"'{text}'" if re.fullmatch(r"[A-Za-z0-9/^*(){}%.:_ -]{1,24}", text) else f"({len(text)} characters)"


def stated_under(content: Mapping[str, object], *keys: str) -> tuple[str, object] | None:
    """The first of these keys that has a value, as the sidecar writes it, and the value; None if none has."""
    stated = (entry for key in keys for entry in _written(content, key))
    return next(((written, value) for written, value in stated if value), None)


def value_of(content: Mapping[str, object], key: str) -> object:
    """The value of this key, which may be False or 0; None if there is none."""
    return next((value for _, value in _written(content, key)), None)


def _written(content: Mapping[str, object], key: str) -> list[tuple[str, object]]:
    """The entries of a key as BIDS writes it, then in other cases: who writes sidecars by hand does not tell them."""
    found = [(written, _alone(value)) for written, value in content.items() if written.lower() == key.lower()]
    return sorted(found, key=lambda entry: entry[0] != key)


def _alone(value: object) -> object:
    """The one element of a list, which some converters make of each value."""
    return value[0] if isinstance(value, list) and len(value) == 1 else value


def sidecar_of(path: Path) -> tuple[str, dict[str, object]] | None:
    """Name of the nearest BIDS sidecar of a volume, and the content of all of them together; None if there is none.

    `<name>.json` beside it, or as `sidecar_stems` says, and by BIDS' inheritance `pet.json`, `sub-01_pet.json` and the
    like in its folder and above, up to that of the data set. What is nearer goes first.

    Raises:
        InputError: one is damaged.
    """
    found = sidecar_files(path)
    content: dict[str, object] = {}
    for sidecar in found:
        nearer = _read_sidecar(sidecar, path)
        replaced = {key.lower() for key in nearer}
        content = {key: value for key, value in content.items() if key.lower() not in replaced} | nearer
    return (found[-1].name, content) if found else None


def sidecar_stems(name: str) -> list[str]:
    """What a volume's own sidecar may be called before `.json`: some append that to the volume's whole name."""
    plain = name[: -len(".gz")] if name.lower().endswith(".gz") else name
    return list(dict.fromkeys([Path(plain).stem, plain, name]))


def sidecar_files(path: Path) -> list[Path]:
    """The files of `sidecar_of`, the nearest last."""
    name = path.with_suffix("") if path.suffix.lower() == ".gz" else path
    own = name.with_suffix(".json")
    found = [own] if own.is_file() else _json_in(path.parent, *sidecar_stems(path.name))[:1]
    *entities, kind = name.stem.split("_")
    for folder in list(path.absolute().parents)[:BIDS_LEVELS] if name.stem.startswith("sub-") else ():
        above = [
            other
            for other in _json_in(folder)
            if other.stem.lower() != name.stem.lower() and _holds_for(other, entities, kind)
        ]
        found = [*sorted(above, key=lambda other: other.name.count("_")), *found]
        if (folder / "dataset_description.json").is_file():
            break
    return found if found or not path.is_symlink() else sidecar_files(path.resolve())


def _json_in(folder: Path, *stems: str) -> list[Path]:
    """The JSON files of a folder, sorted; those of the stems, which like the suffix may be in whatever case."""
    try:
        others = sorted(other for other in folder.iterdir() if other.suffix.lower() == ".json" and other.is_file())
    except OSError:  # a folder that may be entered, but not listed
        return []
    wanted = {stem.lower() for stem in stems}
    return [other for other in others if not wanted or other.stem.lower() in wanted]


def _holds_for(sidecar: Path, entities: list[str], kind: str) -> bool:
    *others, other_kind = sidecar.stem.split("_")
    return other_kind == kind and set(others) <= set(entities)


def _read_sidecar(sidecar: Path, path: Path) -> dict[str, object]:
    with damage_as(f"{sidecar}: is no readable JSON, though it says what {path.name} holds; repair or remove it"):
        with open_regular(sidecar) as file:
            text = file.read(LARGEST_SIDECAR_BYTES)
        # Converters copy names from DICOM in whatever character set; keys and numbers are ASCII.
        content = _alone(json.loads(text.decode(json.detect_encoding(text), "replace")))
    return content if isinstance(content, dict) else {}


def _plain(unit: str) -> str:
    """Lower case without spaces and brackets; signs as letters that ASCII has; names in full abbreviated."""
    text = _BRACKETS.sub("", unit.lower().translate(_SIGNS))
    text = _BECQUEREL.sub(lambda match: (match.group(1) or "")[:1] + "bq", text)
    return _STANDARDISED.sub("suv", _MILLILITRE.sub("ml", text))
