"""Any PET image (DICOM series, NIfTI, .npz, .mat ...) -> the model's grid in SUV, or a table of what the image is.

python scripts/prepare.py --input SERIES_FOLDER --info
python scripts/prepare.py --input SERIES_FOLDER --output subject.npz
python scripts/prepare.py --input LOW_DOSE --normal_dose NORMAL_DOSE --output pair.npz     (for training)
"""

import argparse

from guided_diffusion.commands.input_flags import add_input_flags, overrides_from
from guided_diffusion.config import PreprocessingConfig
from guided_diffusion.config.parser import Parser, str2bool
from guided_diffusion.dist_util import run_main
from guided_diffusion.errors import InputError
from guided_diffusion.pet.preparation import Grid, describe, load, prepare, table


def parser() -> argparse.ArgumentParser:
    defaults = PreprocessingConfig()
    flags = Parser(__doc__)
    flags.add_argument("--input", required=True, help="file or folder, local or remote")
    flags.add_argument("--output", help=".npz, .nii or .nii.gz; a record goes beside it as .json")
    flags.add_argument(
        "--normal_dose",
        help="normal-dose partner of --input: both become one training pair (.npz), each by its own tags; --series and"
        " the flags that replace tags are for --input alone",
    )
    flags.add_argument(
        "--info", type=str2bool, nargs="?", const=True, default=False, help="print a table of the image (False)"
    )
    flags.add_argument("--suv_basis", choices=("bw", "lbm", "bsa"), default="bw", help="basis of the written SUV (bw)")
    group = flags.add_argument_group("the model's grid")
    group.add_argument(
        "--voxel_mm", type=float, nargs=3, default=defaults.voxel_mm, help="along X Y Z (1.65 1.65 1.65)"
    )
    group.add_argument(
        "--axis_codes", default=defaults.axis_codes, help=f"where X, Y, Z grow to ({defaults.axis_codes})"
    )
    group.add_argument("--margin_mm", type=float, default=20.0, help="air kept around the body (20)")
    group.add_argument("--suv_max", type=float, default=defaults.suv_max, help="the model's cap, for the report (16)")
    group.add_argument(
        "--input_voxel_mm", type=float, nargs=3, default=defaults.voxel_mm, help="of arrays that carry no affine (1.65)"
    )
    add_input_flags(flags)
    return flags


def main() -> None:
    args = parser().parse_args()
    if not (args.info or args.output):
        raise InputError("nothing to do: give --output or --info")
    grid = Grid(tuple(args.voxel_mm), args.axis_codes, args.margin_mm, tuple(args.input_voxel_mm), args.suv_max)
    volume = load(args.input, grid, args.series, overrides_from(args))
    if args.info:
        print(table(describe(volume, grid)))
    if args.output:
        normal_dose = load(args.normal_dose, grid) if args.normal_dose else None
        prepare(volume, args.output, grid, normal_dose=normal_dose, suv_basis=args.suv_basis)


if __name__ == "__main__":
    run_main(main)
