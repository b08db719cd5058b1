"""The implementation of `scripts/train.py`: checks the data, prepares the network and trains it."""

import itertools
import logging
import platform
import shlex
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from tqdm.contrib.logging import logging_redirect_tqdm

from guided_diffusion import logger
from guided_diffusion.checkpoints import load_weights
from guided_diffusion.config import Role, flags_of, flags_with
from guided_diffusion.config.flags import FIXED_BY_HEADER
from guided_diffusion.config.parser import Parser, add_flags, as_word
from guided_diffusion.config.training_flags import TRAINING_GROUPS, TrainingPresetFlag
from guided_diffusion.config.training_presets import TRAINING_PRESETS
from guided_diffusion.dist_util import (
    bfloat16_of_all,
    bound_to_few_cores,
    communicator,
    cores_of_rank,
    device_of_all,
    on_root,
    raise_together,
    root_first,
    share_cores,
)
from guided_diffusion.errors import InputError
from guided_diffusion.files import check_space, writable_folder
from guided_diffusion.folder_lock import one_writer
from guided_diffusion.image_datasets import CropShares, CropSource, Pair, find_pairs
from guided_diffusion.machine.gpus import unused_gpu
from guided_diffusion.machine.memory import keep_freed_memory
from guided_diffusion.methods.registry import METHODS
from guided_diffusion.pet.text import printable
from guided_diffusion.ranks.stalls import stated_seconds, watching
from guided_diffusion.training.history import history_of_run
from guided_diffusion.training.loop import TrainingRun
from guided_diffusion.training.ranks import process_group
from guided_diffusion.training.run_files import Start, find_start, is_of_method, read_start
from guided_diffusion.training.saved_sets import saved_steps
from guided_diffusion.training.settings import TrainSettings, settings_for_device, training_settings
from guided_diffusion.training.validation import Validator


def create_parser(description: str) -> Parser:
    """All flags of training. Those that are not given stay out of the result."""
    parser = Parser(description)
    add_flags(parser, TrainingPresetFlag, given_only=True)
    roles = set(Role) - {Role.SAMPLING}
    for title, flags in TRAINING_GROUPS.items():
        add_flags(parser.add_argument_group(title), flags, roles=roles, given_only=True, choices={"method": METHODS})
    return parser


def train(parser: Parser) -> None:
    """Parse the command line and train until a limit is reached."""
    with watching(stated_seconds()):
        settings, said = _with_environment_folder(root_first(lambda: training_settings(vars(parser.parse_args()))))
        folder = root_first(writable_folder, settings.run.save_dir)
        with (
            one_writer(folder),
            logger.to_folder(folder),
            logging_redirect_tqdm([logging.getLogger("guided_diffusion")]),
        ):
            if said:
                logger.log(said)
            train_with(settings, folder)


def _with_environment_folder(settings: TrainSettings) -> tuple[TrainSettings, str]:
    """The settings with rank 0's OPENAI_LOGDIR, if set, as `--save_dir` unless that is given; and a line that says so.

    All ranks call this together.
    """
    folder = communicator().bcast(logger.environment_folder())
    if folder is None or "save_dir" in settings.given:
        return settings, ""
    chosen = replace(settings, run=replace(settings.run, save_dir=folder))
    return chosen, f"--save_dir {folder}, as OPENAI_LOGDIR says"


def train_with(settings: TrainSettings, folder: Path) -> None:
    """Train until a limit is reached; `folder` exists. Called by all ranks, with the same settings."""
    keep_freed_memory()
    place = device_of_all()
    if preset := settings.given.get("preset"):
        flags = TRAINING_PRESETS[preset].flags.items()
        logger.log(f"--preset {preset}: {' '.join(f'--{name} {as_word(value)}' for name, value in flags)}")
    settings, notices = settings_for_device(settings, place.type == "cuda", bfloat16_of_all(place))
    for notice in filter(None, (*notices, unused_gpu(), bound_to_few_cores(settings.run.threads))):
        logger.log(f"notice: {notice}")
    # Crops have one size, so that trying the GPU library's kernels for it pays.
    torch.backends.cudnn.benchmark = place.type == "cuda"
    threads = share_cores(settings.run.threads)
    cores = cores_of_rank()  # on every rank, GPU or not: finding out takes all of them
    loader_threads = settings.run.loader_threads or (cores if place.type == "cuda" else 1)
    pairs, held_out = root_first(_find_pairs, settings)
    root_first(_check_beginning, pairs, settings)
    with_noise = METHODS[settings.optimisation.method].uses_noise
    shares = CropShares(settings.data.hot_crop_share, settings.data.coarse_crop_share)
    source = _crops(pairs, settings, shares=shares, with_noise=with_noise)
    _check_pairs(source, settings, loader_threads)
    start = _find_start(settings, folder)
    model = root_first(_create_model, settings, start, place)
    on_root(_check_space, model, settings, folder)
    validator = on_root(make_validator, settings, held_out)
    with process_group(place):
        provenance = _provenance(settings, pairs, threads, start)
        loop = TrainingRun(settings, model, source, validator, start, provenance, loader_threads)
        size, ranks = sum(parameter.numel() for parameter in model.parameters()), communicator().size
        logger.log(
            f"{size:,} parameters, {_count(pairs)}, {loop.global_batch} crops per step on {ranks} rank(s),"
            f" {place.type} with {threads} threads each; " + _beginning(start, loop.step)
        )
        loop.run()


def _beginning(start: Start | None, step: int) -> str:
    """What a run begins with, for the log."""
    if start is None:
        return "from the first step"
    if start.optimiser is None:
        return f"beginning with {start.weights_path}"
    return f"continuing {start.weights_path} at step {step}"


def _find_pairs(settings: TrainSettings) -> tuple[list[Pair], list[Pair]]:
    """The pairs to train on and those of validation, on which is not trained. Raises InputError if none is left."""
    pairs = find_pairs(settings.data.data_dir, "train", settings.preprocessing.voxel_mm)
    validation = _validation_pairs(settings)
    held = {pair.path.resolve() for pair in validation}
    kept = [pair for pair in pairs if pair.path.resolve() not in held]
    if not kept:
        raise InputError(f"{settings.data.data_dir}: every pair to train on is one for validation too")
    if len(kept) < len(pairs):
        logger.log(f"notice: {len(pairs) - len(kept)} pair(s) are for validation, so they are not trained on")
    subjects = sorted({pair.subject for pair in kept} & {pair.subject for pair in validation})
    if subjects and not settings.data.validation_dir:
        shown = ", ".join(map(printable, subjects[:3]))
        logger.log(f"notice: {len(subjects)} subject(s) have pairs for training and for validation: {shown}")
    return kept, validation


def _validation_pairs(settings: TrainSettings) -> list[Pair]:
    folder, voxel_mm = settings.data.validation_dir, settings.preprocessing.voxel_mm
    if not folder:
        return find_pairs(settings.data.data_dir, "validation", voxel_mm)
    return find_pairs(folder, "validation", voxel_mm, "--validation_dir") or find_pairs(folder, "train", voxel_mm)


def _check_beginning(pairs: list[Pair], settings: TrainSettings) -> None:
    """Raises InputError if a method that starts from another's weights has none, or if a pair has no dose."""
    method = METHODS[settings.optimisation.method]
    if method.begins_with is None:
        return
    if not settings.run.resume_checkpoint and not saved_steps(Path(settings.run.save_dir)):
        raise InputError(f"--method {method.name} begins with trained weights: name them by --resume_checkpoint")
    unknown = [pair.path for pair in pairs if not pair.dose]
    if unknown:
        raise InputError(
            f"{unknown[0]}: --method {method.name} needs every pair's dose: train on a trial with its manifest.csv"
        )


def _check_pairs(source: CropSource, settings: TrainSettings, threads: int) -> None:
    """Check every pair before the first step, each rank its share. Raises on all ranks what one finds."""
    comm, grid = communicator(), settings.preprocessing
    mistake, notices = None, []

    def check(number: int) -> list[str]:
        return source.check([number], grid.voxel_mm, grid.axis_codes)

    try:
        with ThreadPoolExecutor(threads) as pool:
            found = pool.map(check, range(comm.rank, len(source.pairs), comm.size))
            notices = list(itertools.chain.from_iterable(found))
    except InputError as error:
        mistake = error
    raise_together(mistake)
    for notice in itertools.chain.from_iterable(comm.allgather(notices)):
        logger.log(f"notice: {notice}")


def _find_start(settings: TrainSettings, folder: Path) -> Start | None:
    """The start that rank 0 finds; moving averages are on rank 0 only. All ranks call this together.

    Raises InputError on all ranks for weights that do not fit.
    """

    begins_with = METHODS[settings.optimisation.method].begins_with

    def find() -> Start | None:
        start = find_start(folder, settings.run.resume_checkpoint, settings.ema_rates, begins_with)
        check_same_network(settings, start)
        return start

    comm = communicator()
    start = on_root(find)
    path = comm.bcast(start and start.weights_path)
    return start if comm.rank == 0 or path is None else read_start(path, (), begins_with)


def _create_model(settings: TrainSettings, start: Start | None, place: torch.device) -> nn.Module:
    """The network with its first weights. Raises InputError for flags of slices and a method that takes volumes."""
    method = METHODS[settings.optimisation.method]
    if settings.model.dims != method.dims or (method.dims == 3 and settings.model.neighbours):
        raise InputError(f"--method {method.name} takes volumes: leave out --dims and --neighbours, or take ddpm2d")
    torch.manual_seed(settings.optimisation.seed)
    model = method.create_model(settings.model, settings.diffusion)
    if start is not None:
        part = method.begun_part(model) if is_of_method(start.weights, method.begins_with) else model
        load_weights(part, start.weights.state_dict, str(start.weights_path))
    return model.to(device=place, dtype=torch.float32)


def _check_space(model: nn.Module, settings: TrainSettings, folder: Path) -> None:
    """Raises Failure unless a set of checkpoints fits on the disk: weights, their averages, two moments, in float32."""
    size = sum(value.numel() * value.element_size() for value in model.state_dict().values())
    check_space(folder, size * (3 + len(settings.ema_rates)))


def _crops(pairs: list[Pair], settings: TrainSettings, **options: Any) -> CropSource:
    """Crops of pairs by the flags. options: further arguments of `CropSource`."""
    return CropSource(
        pairs,
        settings.crop_size,
        settings.preprocessing,
        settings.optimisation.seed,
        **options,
    )


def make_validator(settings: TrainSettings, pairs: list[Pair]) -> Validator | None:
    """The validator, or None if there are no pairs or no interval for validation."""
    voxel_mm = settings.preprocessing.voxel_mm
    if not settings.run.validation_interval:
        return None
    if not pairs:
        logger.log("no validation pairs, so no scores and no ema_*_best.pt; --validation_dir names some")
        return None
    method = METHODS[settings.optimisation.method]
    if method.noise_fields:
        logger.log(f"--method {method.name}: its mean is not trained, so no scores and no ema_*_best.pt")
        return None
    source = _crops(pairs, settings)
    for notice in source.check(range(len(pairs)), voxel_mm, settings.preprocessing.axis_codes):
        logger.log(f"notice: {notice}")
    diffusion = replace(settings.diffusion, timestep_respacing=settings.sampler.timestep_respacing)
    process = method.create_process(diffusion, settings.sampler.start_step)
    return Validator(
        source,
        settings.run.validation_crops,
        process,
        settings.sampler,
        margin=method.margin(settings.model),
        least=-1.0 if settings.preprocessing.linear_transfer else 0.0,
        noise_free=method.noise_free,
    )


def check_same_network(settings: TrainSettings, start: Start | None) -> None:
    """Raises InputError if the header of the weights to start from contradicts the flags."""
    header = start.weights.header if start else None
    if header is None:
        return
    # Other weights only begin a run; one that goes on keeps its timesteps too.
    kept = FIXED_BY_HEADER | {Role.STEPS} if start.optimiser else FIXED_BY_HEADER
    method = settings.optimisation.method
    begins = header.method == METHODS[method].begins_with and not start.optimiser
    if header.method != method and not begins:
        ending = "; give the same, or another --save_dir" if start.optimiser else ""
        raise InputError(f"{start.weights_path}: trained as {header.method}, but --method is {method}{ending}")
    given = (settings.model, settings.diffusion, settings.preprocessing)
    trained = (header.model, header.diffusion, header.preprocessing)
    for ours, theirs in zip(given, trained, strict=True):
        for name in flags_with(kept, type(ours)):
            value = getattr(ours, name)
            if getattr(theirs, name) != value:
                raise InputError(
                    f"{start.weights_path}: trained with {name} {getattr(theirs, name)!r}, but the flags say {value!r};"
                    " give the same flags, or another --save_dir"
                )


def _count(pairs: list[Pair]) -> str:
    return f"{len(pairs)} pairs of {len({pair.subject for pair in pairs})} subjects"


def _provenance(settings: TrainSettings, pairs: list[Pair], threads: int, start: Start | None) -> dict[str, Any]:
    """Provenance for headers: data, command and versions of a run as plain values; of paths only the last part."""
    declared = flags_of(TrainingPresetFlag, *TRAINING_GROUPS.values())
    words = ["scripts/train.py"]
    for name, value in settings.given.items():
        words += [f"--{name}", Path(value).name if declared[name].is_path else as_word(value)]
    return {
        "command": shlex.join(words),
        "data": {
            "pairs": len(pairs),
            "subjects": len({pair.subject for pair in pairs}),
            "doses": dict(Counter(pair.dose for pair in pairs)),
        },
        "seed": settings.optimisation.seed,
        "history": history_of_run(settings, pairs, start),
        "started_from": start.weights_path.name if start else None,
        "ranks": communicator().size,
        "threads": threads,
        "versions": {"python": platform.python_version(), "torch": str(torch.__version__), "numpy": np.__version__},
    }
