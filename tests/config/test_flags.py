"""One declaration per flag: command lines come from it, and its role decides what two runs share."""

import argparse
from dataclasses import MISSING, dataclass, fields, replace
from pathlib import Path

import pytest

from evaluation import compare, demo, get_ssim_psnr, real_series
from evaluation.benchmark import command as benchmark
from guided_diffusion.checkpoints import Checkpoint
from guided_diffusion.commands import denoise_flags, export, prepare, simulate
from guided_diffusion.commands import train as train_command
from guided_diffusion.config import (
    DiffusionConfig,
    Header,
    ModelConfig,
    PreprocessingConfig,
    Role,
    flag,
    flags_of,
)
from guided_diffusion.config.flags import FIXED_BY_HEADER, WITHOUT_RESULT
from guided_diffusion.config.inference_flags import (
    INFERENCE_FLAGS,
    ExecutionFlags,
    InputFlags,
    OutputFlags,
    PrecisionFlags,
    PresetFlags,
    ReportFlags,
    Sampling,
    TagFlags,
)
from guided_diffusion.config.parser import Parser, add_flags, as_word, read_flags
from guided_diffusion.config.training_flags import TRAINING_GROUPS, TrainingPresetFlag
from guided_diffusion.errors import InputError
from guided_diffusion.inference.presets import inference_settings
from guided_diffusion.inference.resume import run_key
from guided_diffusion.losses import WEIGHTINGS
from guided_diffusion.methods.registry import METHODS
from guided_diffusion.resample import TIMESTEP_SAMPLERS
from guided_diffusion.samplers import SAMPLERS, STARTS
from guided_diffusion.training.history import flags_of_weights
from guided_diffusion.training.run_files import Start
from guided_diffusion.training.settings import training_settings

INFERENCE = (OutputFlags, ReportFlags, InputFlags, PresetFlags, Sampling, PrecisionFlags, ExecutionFlags)
TRAINING = (TrainingPresetFlag, *TRAINING_GROUPS.values())
METRICS = (get_ssim_psnr.FolderFlags, get_ssim_psnr.UnitFlags, get_ssim_psnr.TableFlags)
COMMANDS = (
    *(prepare.PreparationFlags, prepare.GridFlags, simulate.SimulationFlags, export.ExportFlags, demo.DemoFlags),
    *(benchmark.BenchmarkFlags, compare.TrialFlags, compare.OwnFlags, compare.MethodFlags),
    *(real_series.SeriesFlags, *METRICS),
)
CONFIGS = dict.fromkeys((*INFERENCE, *TRAINING, *COMMANDS, PreprocessingConfig, ModelConfig, DiffusionConfig))

# Other values than the default of which sense can be made; of the rest the first other choice, the other boolean or 7.
OTHER_VALUES = {
    "start_step": 200,
    "timestep_respacing": "ddim5",
    "dropout": 0.5,
    "num_channels": 64,
    "channel_mult": "1,2",
    "attention_resolutions": "8",
    "voxel_mm": "2,2,2",
    "axis_codes": "LPS",
    "method": "unet3d",
    "dims": 2,
    "crop_size": "32,32,32",
    "ema_rate": "0.5",
    "hot_crop_share": 0.5,
    "coarse_crop_share": 0.5,
}


def other_value(declared):
    """A value of a flag that is not its default."""
    if declared.name in OTHER_VALUES:
        return OTHER_VALUES[declared.name]
    if declared.choices:
        return next(choice for choice in declared.choices if choice != declared.default)
    if declared.kind is bool:
        return not declared.default
    return declared.kind(7)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.__name__)
def test_every_field_says_what_it_is_for(config):
    for item in fields(config):
        declared = flags_of(config)[item.name]
        assert declared.help.strip()
        assert isinstance(declared.role, Role)
        if declared.choices and declared.default is not None:
            assert declared.default in declared.choices


@pytest.mark.parametrize(
    ("create_parser", "configs"),
    [
        (denoise_flags.create_parser, (*INFERENCE, PreprocessingConfig, ModelConfig, DiffusionConfig)),
        (train_command.create_parser, TRAINING),
        (prepare.create_parser, (prepare.PreparationFlags, prepare.GridFlags, InputFlags, PreprocessingConfig)),
        (simulate.create_parser, (simulate.SimulationFlags,)),
        (export.create_parser, (export.ExportFlags,)),
        (demo.create_parser, (demo.DemoFlags,)),
        (benchmark.create_parser, (benchmark.BenchmarkFlags,)),
        (lambda _: compare.create_parser(), (compare.TrialFlags, compare.OwnFlags, compare.MethodFlags)),
        (lambda _: get_ssim_psnr.create_parser(), METRICS),
        (lambda _: real_series.create_parser(), (real_series.SeriesFlags, TagFlags)),
    ],
)
def test_every_flag_of_a_command_line_is_declared(create_parser, configs):
    declared = flags_of(*configs)
    actions = [action for action in create_parser("")._actions if action.dest != "help"]
    for action in actions:
        assert action.option_strings == [f"--{action.dest}"]
        assert action.help.replace("%%", "%") == declared[action.dest].explanation
        assert action.required == declared[action.dest].required
        assert action.required or action.default in (argparse.SUPPRESS, declared[action.dest].default)
    assert set(declared) - {action.dest for action in actions} <= set(flags_of(PreprocessingConfig))


def test_tables_of_names_and_declarations_agree():
    declared = flags_of(Sampling, *TRAINING)
    for name, table in {
        "sampler": SAMPLERS,
        "start_from": STARTS,
        "schedule_sampler": TIMESTEP_SAMPLERS,
        "loss_weighting": WEIGHTINGS,
    }.items():
        assert declared[name].choices == tuple(table)
    (method,) = (action for action in train_command.create_parser("")._actions if action.dest == "method")
    assert method.choices == tuple(METHODS)


OF_MODELS = flags_of(PresetFlags, Sampling, PrecisionFlags, ModelConfig, DiffusionConfig)
# These two have one value that inference takes, and a grid is no flag of it.
VARIED = [declared for name, declared in INFERENCE_FLAGS.items() if name not in ("dims", "class_cond", "voxel_mm")]


def key(**flags):
    """The key of a run of weights without a header, where every flag counts."""
    flags = {"preset": "fast"} | flags
    of_model = {name: value for name, value in flags.items() if name in OF_MODELS}
    return run_key("voxels", "weights", inference_settings(of_model, None, False).as_dict(), flags, "cpu")


@pytest.mark.parametrize("declared", VARIED, ids=lambda declared: declared.name)
def test_runs_share_a_key_unless_they_differ_in_what_decides_their_results(declared):
    changed = {declared.name: "paper" if declared.name == "preset" else other_value(declared)}
    if declared.name in ("start_from", "start_step"):  # given together
        changed = {"start_from": "low_dose", "start_step": 200}
    assert (key(**changed) == key()) == (declared.role in WITHOUT_RESULT)


def test_what_users_are_told_is_no_part_of_the_key():
    """As of a GPU that another machine does not have."""
    settings = inference_settings({"preset": "fast"}, None, False)
    told = replace(settings, notices=("a GPU that PyTorch cannot use",))
    one, other = (run_key("voxels", "weights", s.as_dict(), {}, "cpu") for s in (settings, told))
    assert one == other


def trained_with(**flags):
    return training_settings({"data_dir": "data"} | flags)


# Pairs have no class labels, so training takes one value of that flag.
OF_TRAINING = [declared for name, declared in flags_of(*TRAINING_GROUPS.values()).items() if name != "class_cond"]


@pytest.mark.parametrize("declared", OF_TRAINING, ids=lambda declared: declared.name)
def test_roles_decide_what_training_remembers_and_what_a_header_fixes(declared):
    begun, continued = trained_with(), trained_with(**{declared.name: other_value(declared)})
    changed = flags_of_weights(begun) != flags_of_weights(continued)
    assert changed == (declared.role in (Role.TRAINING, Role.ARITHMETIC))
    header = Header("ddpm3d", begun.model, begun.diffusion, begun.preprocessing, begun.sampler, {})
    other_weights = Start(Path("weights.pt"), Checkpoint({}, header), {}, None)
    same_run = replace(other_weights, optimiser={"step": 1})
    for start, fixed in ((other_weights, FIXED_BY_HEADER), (same_run, FIXED_BY_HEADER | {Role.STEPS})):
        if declared.role in fixed:
            with pytest.raises(
                InputError, match=f"trained {'as' if declared.name == 'method' else 'with'}.*{declared.name}"
            ):
                train_command.check_same_network(continued, start)
        else:
            train_command.check_same_network(continued, start)


@dataclass(frozen=True)
class Example:
    size: tuple[float, float] = flag((1.0, 2.0), "two numbers", Role.NETWORK, metavar="X Y")
    names: tuple[str, ...] | None = flag(None, "one at a time", Role.FILES)
    alone: bool = flag(False, "100 % of it", Role.MACHINE)
    out: Path | None = flag(None, "a file", Role.FILES, metavar="FILE")
    kind: str = flag("a", "which", Role.FILES, choices={"a": "first", "b": "second"})


@dataclass(frozen=True)
class Needed:
    needed: int = flag(MISSING, "a number", Role.FILES)


def parsed(words, *configs, **options):
    parser = Parser("An example.")
    add_flags(parser, *configs, **options)
    return vars(parser.parse_args(words.split()))


def test_values_of_every_kind():
    words = "--size 3 4 --names p --names q --alone --out there --kind b"
    assert read_flags(Example, parsed(words, Example)) == Example((3.0, 4.0), ("p", "q"), True, Path("there"), "b")
    assert parsed("--size 3,4", Example)["size"] == (3.0, 4.0)
    assert parsed("--size -3 4e0", Example)["size"] == (-3.0, 4.0)
    assert [as_word(value) for value in ((3.0, 4.5), "a", True)] == ["3.0,4.5", "a", "True"]
    assert read_flags(Example, parsed("--alone False", Example)) == Example()
    assert parsed("--alone False", Example, given_only=True) == {"alone": False}
    assert parsed("", Example, roles=[Role.MACHINE]) == {"alone": False}


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ("--needed x", "argument --needed: invalid int value: 'x'; see --help"),
        ("", "the following arguments are required: --needed; see --help"),
        ("--needed 1 --alone maybe", "argument --alone: 'maybe' is neither True nor False; see --help"),
        ("--needed 1 --kind c", "argument --kind: invalid choice: 'c'"),
        ("--needed 1 --size 1", "argument --size: '1' is not 2 numbers"),
        ("--needed 1 --size 1,a", "argument --size: '1,a' is not 2 numbers"),
    ],
)
def test_mistakes_are_one_line(words, complaint):
    with pytest.raises(InputError, match=complaint):
        parsed(words, Example, Needed)


@dataclass(frozen=True)
class Paths:
    out: Path = flag(Path("here"), "a folder", Role.FILES, metavar="DIR")
    model: str = flag("", "a file", Role.FILES, metavar="FILE")
    parts: tuple[str, ...] = flag((), "one at a time", Role.FILES, metavar="FILE")
    resumed: str = flag("", "a file; empty: none", Role.FILES, metavar="FILE", may_be_empty=True)


def test_paths_keep_their_defaults_and_are_of_the_declared_type():
    assert read_flags(Paths, parsed("", Paths)) == Paths()
    given = read_flags(Paths, parsed("--out there --model m.pt --parts a --parts b", Paths))
    assert given == Paths(Path("there"), "m.pt", ("a", "b"))


@pytest.mark.parametrize("name", ["out", "model", "parts"])
def test_paths_that_a_shell_left_empty_or_unexpanded_are_refused(name):
    parser = Parser()
    add_flags(parser, Paths)
    with pytest.raises(InputError, match=f"--{name}: is empty: an unset variable"):
        parser.parse_args([f"--{name}", ""])
    with pytest.raises(InputError, match=f"--{name}: ~/m.pt: the shell has not replaced ~"):
        parser.parse_args([f"--{name}=~/m.pt"])
    assert parser.parse_args(["--resumed", ""]).resumed == ""


def test_help_says_what_choices_mean_and_what_the_default_is():
    explained = {name: declared.explanation for name, declared in flags_of(Example, Needed).items()}
    assert explained == {
        "size": "two numbers (default: 1.0 2.0)",
        "names": "one at a time",
        "alone": "100 % of it (default: False)",
        "out": "a file",
        "kind": "which. a: first; b: second (default: a)",
        "needed": "a number",
    }
    parser = Parser()
    add_flags(parser, Example, Needed)
    assert "100 % of it (default: False)" in parser.format_help()
