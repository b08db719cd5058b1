"""A script in the style of the published `scripts/test.py`, as its users have edited it for their scans.

It knows nothing of this package but the published names, and is run as it stands by tests/test_published_doors.py.
"""

import argparse
import os

import numpy as np
import torch as th
import torch.distributed as dist

from guided_diffusion import dist_util, logger
from guided_diffusion.script_util import (
    add_dict_to_argparser,
    args_to_dict,
    sr_create_model_and_diffusion,
    sr_model_and_diffusion_defaults,
)

PATCH, OVERLAP, SUV_MAX = 96, 10, 16.0
STARTS = [0, 86, 172, 258, 344, 424]


def main():
    args = create_argparser().parse_args()
    dist_util.setup_dist()
    logger.configure(args.save_dir)

    logger.log("creating model...")
    model, diffusion = sr_create_model_and_diffusion(**args_to_dict(args, sr_model_and_diffusion_defaults().keys()))
    model.load_state_dict(dist_util.load_state_dict(args.model_path, map_location="cpu"))
    model.to(dist_util.dev())
    if args.use_fp16:
        model.convert_to_fp16()
    model.eval()

    low_dose = np.load(args.base_samples)["arr_0"][0]
    low_dose = np.clip(low_dose, 0, SUV_MAX) / SUV_MAX
    volume = th.from_numpy(low_dose).float().permute(2, 0, 1)[None, None].to(dist_util.dev())

    rank, size = dist.get_rank(), dist.get_world_size()
    samples = th.zeros(len(STARTS), PATCH, *low_dose.shape[:2], device=dist_util.dev())
    for number in range(rank, len(STARTS), size):
        low_res = volume[:, :, STARTS[number] : STARTS[number] + PATCH]
        th.manual_seed(10)
        sample = diffusion.p_sample_loop(
            model,
            (args.batch_size, 1, PATCH, *low_dose.shape[:2]),
            clip_denoised=args.clip_denoised,
            model_kwargs={"low_res": low_res},
        )
        samples[number] = sample[0, 0]
        logger.log(f"patch {number} of {len(STARTS)}")
    dist.all_reduce(samples)

    if rank == 0:
        stitched = stitch(samples.permute(0, 2, 3, 1).cpu().numpy(), low_dose.shape[2])
        np.savez(os.path.join(logger.get_dir(), "samples.npz"), arr_0=stitched)
    dist.barrier()
    logger.log("sampling complete")


def stitch(patches, length):
    """Neighbours blend over the last slices of the earlier one."""
    stitched = np.zeros((*patches.shape[1:3], length), np.float32)
    stitched[..., :PATCH] = patches[0]
    ramp = np.arange(OVERLAP) / (OVERLAP - 1)
    for number in range(1, len(STARTS)):
        blend_from = STARTS[number - 1] + PATCH - OVERLAP
        within = blend_from - STARTS[number]
        later = patches[number][..., within:]
        blended = slice(blend_from, blend_from + OVERLAP)
        stitched[..., blended] = (1 - ramp) * stitched[..., blended] + ramp * later[..., :OVERLAP]
        stitched[..., blend_from + OVERLAP : STARTS[number] + PATCH] = later[..., OVERLAP:]
    return stitched


def create_argparser():
    defaults = {"clip_denoised": True, "batch_size": 1, "base_samples": "", "model_path": "", "save_dir": ""}
    defaults.update(sr_model_and_diffusion_defaults())
    parser = argparse.ArgumentParser()
    add_dict_to_argparser(parser, defaults)
    return parser


if __name__ == "__main__":
    main()
