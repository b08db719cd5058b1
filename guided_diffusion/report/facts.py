"""Input and settings of a run as text for the report: selected entries of the manifest, none of which names a patient.

Left out on purpose: names and paths of files and folders, values of overrides (times, weights) and the command line.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from guided_diffusion.pet.text import times

DIGEST_LETTERS = 12

Facts = list[tuple[str, str]]


def facts_of(manifest: Mapping[str, Any]) -> Facts:
    """Pairs of a name and a text, in the order of the table."""
    return [*_input(manifest), *_model(manifest), *_work(manifest)]


def _input(manifest: Mapping[str, Any]) -> Facts:
    given, source = manifest["input"], manifest["input"]["source"]
    above = _above(manifest["input"]["above_suv_max"], manifest["settings"]["preprocessing"], manifest["flags"])
    end = manifest["model_grid"]["cut_off_at_suv"]
    if end is not None:
        above += f"; the only file of the result, samples_*.npz, ends at SUV {end:g}"
    facts = [
        ("SUV", str(source.get("suv", "as stored in the file"))),
        ("format", str(source.get("format", "unknown"))),
        ("voxels of the scan", f"{times(given['shape'])} of {times(given['voxel_mm'])} mm"),
        ("SHA-256 of the scan", f"{given['sha256_of_voxels_and_affine'][:DIGEST_LETTERS]} (compare with run.json)"),
        ("above the model's largest SUV", above),
    ]
    if "suv_factor" in source:
        factor = source["suv_factor"]
        low, high = factor if isinstance(factor, Sequence) else (factor, factor)
        text = f"{low:.6g}" if low == high else f"{low:.6g} to {high:.6g}"
        facts.insert(1, ("SUV per stored unit", f"{text} ({source.get('stored_units', 'Bq/mL')})"))
    if source.get("suv_overrides"):
        facts.insert(1, ("replaced header values", ", ".join(sorted(source["suv_overrides"]))))
    facts += [(name, str(source[name])) for name in ("orientation", "spacing") if source.get(name)]
    return facts


def _above(above: Mapping[str, float], grid: Mapping[str, Any], flags: Mapping[str, Any]) -> str:
    """What became of uptake above the model's largest SUV. grid: the preprocessing."""
    cap = grid["suv_max"]
    if not above["voxels"]:
        return f"nothing above SUV {cap:g}"
    done = "kept from the input"
    if flags["above_cap"] == "clip":
        done = f"clipped to SUV {cap:g}"
    elif grid["linear_transfer"]:  # see `NEAR_CAP` in `pet.geometry`
        done += " where the network shows nearly as much uptake, else taken for noise"
    voxels = f"{above['voxels']} voxel{'s' if above['voxels'] > 1 else ''}"
    return f"{voxels} ({above['ml']:.1f} mL) above SUV {cap:g}, up to {above['peak']:.1f}: {done}"


def _model(manifest: Mapping[str, Any]) -> Facts:
    settings, grid = manifest["settings"], manifest["model_grid"]
    checkpoint = manifest["checkpoint"]
    used = {name: value for name, value in settings["sampling"].items() if name not in manifest["without_effect"]}
    listed = ", ".join(f"{name} {value}" for name, value in used.items())
    return [
        ("weights", f"{checkpoint['name']}, sha256 {checkpoint['sha256'][:DIGEST_LETTERS]}"),
        ("method and preset", f"{settings['method']}, {settings['preset']}"),
        ("the model's grid", f"{times(grid['shape'])} voxels of {times(grid['voxel_mm'])} mm"),
        ("sampling" if "sampler" in used else "settings", f"{listed}; precision {settings['precision']}"),
        ("patches", f"{len(manifest['plan']['starts'])} of {manifest['plan']['patch_size']} slices"),
        ("network calls", _calls(manifest)),
    ]


def _work(manifest: Mapping[str, Any]) -> Facts:
    versions = ", ".join(f"{name} {version}" for name, version in manifest["versions"].items() if version)
    ranks = f"{manifest['ranks']} rank(s), {manifest['threads_per_rank']} thread(s) each, on {manifest['device']}"
    return [("time", f"{manifest['seconds']:.1f} s with {ranks}"), ("versions", versions)]


def _calls(manifest: Mapping[str, Any]) -> str:
    of_realisation = manifest["nfe_per_patch_and_realisation"]
    if of_realisation is None:
        return "shared by the images of a patch, but for those of the drawing part, one per image"
    return f"{of_realisation} per patch{'' if 'realisations' in manifest['without_effect'] else ' and realisation'}"
