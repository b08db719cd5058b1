"""The implementation of `scripts/prepare.py`: resamples an image to the model's grid, or describes it."""

import sys
from collections.abc import Iterable, Sequence
from dataclasses import MISSING, dataclass
from pathlib import Path

from guided_diffusion.commands.input_flags import add_input_flags, overrides_from, without_input_flags
from guided_diffusion.config import (
    RELEASED_DIFFUSION,
    RELEASED_MODEL,
    PreprocessingConfig,
    Role,
    flag,
)
from guided_diffusion.config.inference_flags import InputFlags, suv_basis_flag
from guided_diffusion.config.parser import Parser, add_flags, read_flags, refuse_without_effect
from guided_diffusion.errors import InputError
from guided_diffusion.pet.fingerprint import fingerprint
from guided_diffusion.pet.formats.arrays import load_npz
from guided_diffusion.pet.grid import Volume
from guided_diffusion.pet.pair_checks import doubts_of_origins, doubts_of_pair
from guided_diffusion.pet.patches import plan_axial_patches
from guided_diffusion.pet.preparation import (
    ModelGrid,
    check_output,
    describe,
    load,
    on_model_grid,
    prepare,
    table,
    times,
)
from guided_diffusion.pet.thinning import fraction_of, measure_noise, thinned

# One pass of the released network over a patch of 96 x 192 x 288 voxels takes 118.1 TFLOP; it has convolutions only, so
# the work goes with the number of voxels.
TFLOP_PER_VOXEL = 118.1 / (96 * 192 * 288)


@dataclass(frozen=True)
class PreparationFlags:
    """Flags of the image, and whether it is written or described."""

    input: str = flag(MISSING, "file or folder, local or remote", Role.FILES, metavar="PATH")
    output: str | None = flag(
        None,
        "file to write: .npz, .nii or .nii.gz; its record is written beside it as .json",
        Role.FILES,
        metavar="FILE",
    )
    normal_dose: str | None = flag(
        None,
        "normal-dose image of --input: both are written as one training pair (.npz), each converted by its own tags;"
        " --series and the flags that replace tags apply to --input only",
        Role.FILES,
        metavar="PATH",
    )
    thin: str | None = flag(
        None,
        "comma list of dose fractions such as 1/4,1/20: --input is a normal dose, from which low doses are made by"
        " adding noise measured in it; the pairs are named after --output and the dose",
        Role.IMAGES,
        metavar="DOSES",
    )
    thin_seed: int = flag(0, "seed of the noise that --thin adds", Role.IMAGES)
    info: bool = flag(False, "print a table of the image", Role.FILES)
    suv_basis: str = suv_basis_flag()


@dataclass(frozen=True)
class GridFlags:
    """Conversion of an image to the model's grid, where no header fixes it."""

    margin_mm: float = flag(ModelGrid.margin_mm, "margin of air kept around the body", Role.IMAGES, metavar="MM")
    input_voxel_mm: tuple[float, float, float] = flag(
        ModelGrid.bare_voxel_mm, "voxel size along X, Y, Z of arrays without an affine", Role.IMAGES, metavar="MM"
    )


def create_parser(description: str) -> Parser:
    """All flags of preparation."""
    parser = Parser(description)
    add_flags(parser, PreparationFlags, given_only=True)
    grid = parser.add_argument_group("the model's grid")
    add_flags(grid, PreprocessingConfig, roles=[Role.NETWORK])
    add_flags(grid, GridFlags)
    add_input_flags(parser)
    return parser


def prepare_image(parser: Parser, arguments: Sequence[str] | None = None) -> None:
    """Parse the command line, and describe an image or write it. arguments: instead of the process's own.

    Raises InputError if the command line asks for nothing, or for what cannot be read, prepared or written.
    """
    parsed = parser.parse_args(arguments)
    given = vars(parsed)
    flags = read_flags(PreparationFlags, given)
    if not (flags.info or flags.output):
        raise InputError("nothing to do: give --output or --info")
    if not flags.output:
        refuse_without_effect(given, ("normal_dose", "suv_basis"), "is for what is written: give --output")
    if flags.thin is None:
        refuse_without_effect(given, ("thin_seed",), "is of the noise that --thin adds: give --thin")
    doses = _doses(flags)
    for output in _thinned_names(flags, doses) if doses else filter(None, [flags.output]):
        check_output(output, [flags.input, flags.normal_dose])
    grid = _grid(read_flags(PreprocessingConfig, given), read_flags(GridFlags, given))
    # Of a pair the normal dose is thinned, and the low dose prepared.
    channel = 1 if doses else 0
    volume = _tell(load(flags.input, grid, read_flags(InputFlags, given).series, overrides_from(parsed), channel))
    if flags.info:
        print(table([*describe(volume, grid), *network_cost(volume, grid)]))
    if doses:
        _write_thinned(volume, doses, flags, grid)
    elif flags.output:
        with without_input_flags("flags of the image apply to --input only, not to --normal_dose"):
            normal_dose = _tell(load(flags.normal_dose, grid, channel=1)) if flags.normal_dose else None
        model = prepare(volume, flags.output, grid, normal_dose=normal_dose, suv_basis=flags.suv_basis)
        if normal_dose is not None:
            _tell_of_pair(model, normal_dose, Path(flags.output))


def _doses(flags: PreparationFlags) -> dict[str, float]:
    """The fractions of --thin by their text; none without it. Raises InputError for what it does not go with."""
    if flags.thin is None:
        return {}
    if flags.normal_dose:
        raise InputError("--thin makes the low dose itself: leave out --normal_dose")
    if not flags.output or not flags.output.endswith(".npz"):
        raise InputError("--thin writes pairs: give an --output that ends in .npz")
    if flags.thin_seed < 0:
        raise InputError(f"--thin_seed {flags.thin_seed}: must be 0 or more")
    return {text.strip(): fraction_of("--thin", text) for text in flags.thin.split(",")}


def _thinned_names(flags: PreparationFlags, doses: Iterable[str]) -> list[str]:
    """The files of the doses: for OUT.npz, OUT_1-4.npz and so on."""
    return [f"{flags.output.removesuffix('.npz')}_{text.replace('/', '-')}.npz" for text in doses]


def _write_thinned(volume: Volume, doses: dict[str, float], flags: PreparationFlags, grid: ModelGrid) -> None:
    """A pair per dose beside each other, each with noise of its own: scans and doses that had one field in common would
    be one example at several strengths.
    """
    noise = measure_noise(volume, flags.input)
    print(f"own noise: {100 * noise.cov:.1f} % of the uptake in uniform tissue")
    scan = int(fingerprint(volume)[:16], 16)
    for output, dose in zip(_thinned_names(flags, doses), doses.values(), strict=True):
        low_dose = thinned(volume, noise, dose, (flags.thin_seed, scan, round(1e9 * dose)))
        prepare(low_dose, output, grid, normal_dose=volume, dose=dose, suv_basis=flags.suv_basis)
        print(f"wrote {output}")


def _tell_of_pair(low_dose: Volume, normal_dose: Volume, written: Path) -> None:
    """Says what is doubtful about a pair that was written, and what was left out of it."""
    if "left_out" in low_dose.source:
        print(f"notice: {written}: lacks {low_dose.source['left_out']}", file=sys.stderr)
    for notice in [*doubts_of_origins(low_dose, normal_dose), *doubts_of_pair(*load_npz(written), written)]:
        print(f"notice: {notice}", file=sys.stderr)


def _tell(volume: Volume) -> Volume:
    """The volume, after what is doubtful about it was said."""
    for notice in volume.source.get("notices", ()):
        print(f"notice: {notice}", file=sys.stderr)
    return volume


def network_cost(volume: Volume, grid: ModelGrid) -> list[tuple[str, str]]:
    """Rows of a table: into how many patches an image is cut, and what the released network takes for them."""
    model = on_model_grid(volume, grid)
    plan = plan_axial_patches(model.data.shape[2])
    steps = RELEASED_DIFFUSION.diffusion_steps
    evaluations = len(plan.starts) * steps
    in_plane = [n + -n % RELEASED_MODEL.in_plane_multiple for n in model.data.shape[:2]]
    exaflop = evaluations * TFLOP_PER_VOXEL * in_plane[0] * in_plane[1] * plan.patch_size / 1e6
    return [
        ("patches", f"{len(plan.starts)} of {times((*in_plane, plan.patch_size))}"),
        ("network calls", f"{evaluations} per realisation at {steps} steps"),
        ("released network", f"{exaflop:.2g} EFLOP, {exaflop * 1e6 / 1e2 / 3600:.2g} h at a sustained 100 TFLOP/s"),
    ]


def _grid(preprocessing: PreprocessingConfig, flags: GridFlags) -> ModelGrid:
    """The grid that the flags describe."""
    return ModelGrid(
        preprocessing.voxel_mm,
        preprocessing.axis_codes,
        flags.margin_mm,
        flags.input_voxel_mm,
        preprocessing.suv_max,
        preprocessing.linear_transfer,
    )
