"""The flags of `scripts/test.py`."""

import argparse

from guided_diffusion.commands.input_flags import add_input_flags
from guided_diffusion.config import DiffusionConfig, ModelConfig
from guided_diffusion.inference.patch_sampling import FUSIONS
from guided_diffusion.inference.presets import INFERENCE_PRESETS, PRECISIONS
from guided_diffusion.samplers import SAMPLERS, STARTS
from guided_diffusion.script_util import Parser, add_config_flags, str2bool


def create_parser(description: str) -> Parser:
    """All flags of inference. Those that a preset decides stay out of the result unless they are given."""
    parser = Parser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    files = parser.add_argument_group("input and output")
    files.add_argument("--base_samples", default="", metavar="PATH", help="scan, DICOM folder or folder of subjects")
    files.add_argument("--model_path", default="", metavar="FILE", help="weights: a published state dict or our own")
    files.add_argument("--save_dir", default="results", metavar="DIR", help="where results go (default: results)")
    files.add_argument(
        "--above_cap",
        default="keep",
        choices=("keep", "clip"),
        help="uptake above the model's largest SUV: keep it from the input, or leave it clipped (default: keep)",
    )
    files.add_argument(
        "--suv_basis",
        default="bw",
        choices=("bw", "lbm", "bsa"),
        help="body mass that the SUV of denoised.nii.gz refers to: weight, lean mass or surface (default: bw)",
    )
    files.add_argument(
        "--write_dicom",
        type=str2bool,
        default=False,
        metavar="True|False",
        help="for a DICOM input, also write a derived DICOM series into the folder denoised_dicom (default: False)",
    )
    add_input_flags(parser)
    sampling = parser.add_argument_group("sampling", "What is not given here comes from the preset.")
    given = {"default": argparse.SUPPRESS}
    sampling.add_argument(
        "--preset",
        choices=INFERENCE_PRESETS,
        help="paper: the published protocol, the default for weights without"
        " a header; fast: what the header recommends, the default with one",
        **given,
    )
    sampling.add_argument(
        "--sampler",
        choices=tuple(SAMPLERS),
        help="ddpm: ancestral; ddim: first-order, deterministic; dpmpp_2m: DPM-Solver++, second-order, deterministic;"
        " dpmpp_2m_sde: the same with fresh noise at every step",
        **given,
    )
    sampling.add_argument(
        "--use_ddim",
        type=str2bool,
        metavar="True|False",
        help="the published flag: True is --sampler ddim, False ddpm",
        **given,
    )
    sampling.add_argument(
        "--start_from",
        choices=tuple(STARTS),
        help="noise: walk all the kept timesteps down from pure noise; low_dose: only those up to --start_step, from"
        " the low-dose image with the noise of that timestep",
        **given,
    )
    sampling.add_argument(
        "--start_step",
        type=int,
        metavar="N",
        help="with --start_from low_dose: where to start, a timestep of 0 to diffusion_steps - 1; the nearest kept one"
        " at or below it is taken",
        **given,
    )
    sampling.add_argument(
        "--clip_denoised",
        type=str2bool,
        metavar="True|False",
        help="clamp every predicted image to [-1, 1] (default: True)",
        **given,
    )
    sampling.add_argument("--seed", type=int, metavar="N", help="seed of the noise (default: 10)", **given)
    sampling.add_argument(
        "--noise",
        choices=("field", "per_patch"),
        help="field: one noise for the volume, so that"
        " patches agree; per_patch: the published one, the same in every patch",
        **given,
    )
    sampling.add_argument(
        "--patch_size", type=int, metavar="N", help="slices per patch (default: the header's, or 96)", **given
    )
    sampling.add_argument(
        "--overlap", type=int, metavar="N", help="slices shared by neighbours (default: the header's, or 10)", **given
    )
    sampling.add_argument(
        "--num_samples",
        type=int,
        metavar="N",
        help="number of patches, as published scripts state it; checked against the plan",
        **given,
    )
    sampling.add_argument(
        "--fuse",
        choices=FUSIONS,
        help="when patches are blended: at the end, each finished by itself; or neighbours after each_step, so that the"
        " volume is sampled as one (default: end)",
        **given,
    )
    sampling.add_argument(
        "--realisations",
        type=int,
        metavar="K",
        help="volumes to sample, each with noise of its own; the result is their mean, and their voxelwise standard"
        " deviation is written beside it (default: 1)",
        **given,
    )
    work = parser.add_argument_group("computing")
    work.add_argument(
        "--batch_size",
        type=int,
        metavar="N",
        help="patches walked together, which are a rank's smallest piece of work (default: 1)",
        **given,
    )
    work.add_argument(
        "--precision", choices=tuple(PRECISIONS), help="of the network (default: --use_fp16 or the preset)", **given
    )
    work.add_argument(
        "--compile",
        type=str2bool,
        default=False,
        metavar="True|False",
        help="compile the norms with torch.compile, which takes a C++ compiler and a minute or so (default: False)",
    )
    work.add_argument(
        "--resume",
        type=str2bool,
        default=False,
        metavar="True|False",
        help="continue an interrupted run: take over its finished patches and subjects (default: False)",
    )
    work.add_argument(
        "--info",
        type=str2bool,
        nargs="?",
        const=True,
        default=False,
        metavar="True|False",
        help="only say how the volume would be cut into patches and what memory they would take (default: False)",
    )
    work.add_argument(
        "--threads", type=int, default=0, metavar="N", help="CPU threads per rank (default: cores / ranks)"
    )
    add_config_flags(parser.add_argument_group("network, for weights without a header"), ModelConfig)
    add_config_flags(parser.add_argument_group("diffusion, for weights without a header"), DiffusionConfig)
    return parser
