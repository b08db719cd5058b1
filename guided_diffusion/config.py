"""What a model, its diffusion process and its images are: the one source of defaults, flags and checkpoint headers."""

from dataclasses import asdict, dataclass, field, fields
from math import inf
from typing import Any

from guided_diffusion.errors import InputError
from guided_diffusion.pet.grid import check_axis_codes

# Channel multipliers of the published system by `large_size`; every other size uses the last entry.
_CHANNEL_MULT = {64: (1, 2, 3, 4), 256: (1, 1, 2, 2, 4, 4), 512: (1, 1, 2, 2, 4, 4)}
_CHANNEL_MULT_ELSEWHERE = (1, 1, 2, 3, 4)


def flag(default: Any, text: str) -> Any:
    """A field that is also a command-line flag."""
    return field(default=default, metadata={"help": text})


def _require(condition: bool, message: str) -> None:
    """Raises InputError unless the condition holds."""
    if not condition:
        raise InputError(message)


def _positive_integers(name: str, text: str) -> None:
    """Raises InputError unless the text is a comma list of positive integers."""
    _require(
        all(part.strip().isdecimal() and int(part) > 0 for part in text.split(",")),
        f"{name} {text!r}: a comma list of positive whole numbers",
    )


@dataclass(frozen=True)
class ModelConfig:
    """The network. Fields up to `use_fp16` are the published flags, with their defaults."""

    large_size: int = flag(
        256, "chooses the channel multipliers: 64: 1,2,3,4; 256 and 512: 1,1,2,2,4,4; else 1,1,2,3,4"
    )
    small_size: int = flag(64, "accepted for the published command lines; the low-dose image has the full size")
    num_channels: int = flag(128, "width of the first level")
    num_res_blocks: int = flag(2, "residual blocks per level")
    num_heads: int = flag(4, "attention heads, unless num_head_channels is given")
    num_heads_upsample: int = flag(-1, "attention heads of the decoder; -1: as num_heads")
    num_head_channels: int = flag(-1, "channels per attention head; -1: num_heads decides")
    attention_resolutions: str = flag("16,8", "comma list; attention where X is large_size/r-fold reduced; 1000: none")
    dropout: float = flag(0.0, "dropout rate in residual blocks")
    class_cond: bool = flag(False, "condition on a class label too")
    use_checkpoint: bool = flag(False, "recompute activations in training to save memory")
    use_scale_shift_norm: bool = flag(True, "the timestep scales and shifts the norm instead of adding to it")
    resblock_updown: bool = flag(False, "residual blocks resample instead of single convolutions")
    use_fp16: bool = flag(False, "half precision: float16 on a GPU, bfloat16 on a CPU")
    dims: int = flag(3, "3 for volumes, 2 for slices")
    channel_mult: str = flag("", "comma list of channel multipliers per level instead of large_size's")
    add_low_res: bool = flag(False, "the network predicts a correction that is added to the low-dose image")
    low_res_scale: float = flag(1.0, "the low-dose image enters the network times this, corrections leave it divided")

    def __post_init__(self) -> None:
        """Raises InputError for flags from which no network can be built."""
        _require(self.dims in (2, 3), f"--dims {self.dims}: 2 or 3")
        _require(self.num_res_blocks >= 1, f"--num_res_blocks {self.num_res_blocks}: at least 1")
        _require(0 <= self.dropout < 1, f"--dropout {self.dropout}: from 0 to below 1")
        _require(self.low_res_scale > 0, f"--low_res_scale {self.low_res_scale}: must be positive")
        for name in ("num_heads_upsample", "num_head_channels"):
            heads = getattr(self, name)
            _require(heads == -1 or heads >= 1, f"--{name} {heads}: at least 1, or -1 to leave it to --num_heads")
        _require(self.num_heads >= 1, f"--num_heads {self.num_heads}: at least 1")
        _positive_integers("--channel_mult", self.channel_mult or "1")
        _positive_integers("--attention_resolutions", self.attention_resolutions)
        _require(
            self.num_channels > 0 and self.num_channels % 32 == 0,
            f"--num_channels {self.num_channels}: a multiple of 32, for its groups of the norms",
        )

    @property
    def multipliers(self) -> tuple[int, ...]:
        """Width of each level in units of `num_channels`."""
        if self.channel_mult:
            return tuple(int(mult) for mult in self.channel_mult.split(","))
        return _CHANNEL_MULT.get(self.large_size, _CHANNEL_MULT_ELSEWHERE)

    @property
    def in_plane_multiple(self) -> int:
        """X and Y of a patch must be multiples of this: every level but the first halves them."""
        return 2 ** (len(self.multipliers) - 1)

    @property
    def attention_downsampling(self) -> frozenset[int]:
        """Downsampling factors of the levels that have attention."""
        return frozenset(self.large_size // int(resolution) for resolution in self.attention_resolutions.split(","))


@dataclass(frozen=True)
class DiffusionConfig:
    """The diffusion process, with the published flags and defaults."""

    diffusion_steps: int = flag(1000, "timesteps of the process that the network is trained on")
    noise_schedule: str = flag("linear", "linear or cosine")
    learn_sigma: bool = flag(False, "the network predicts the variance too")
    timestep_respacing: str = flag(
        "",
        "which timesteps are used: counts per section (250 or 10,15,20), ddimN, or logsnrN: N evenly spaced in the"
        " logarithm of the signal-to-noise ratio, up to the start; empty: all",
    )
    use_kl: bool = flag(False, "train on the variational bound alone")
    predict_xstart: bool = flag(False, "the network predicts the image instead of the noise")
    rescale_timesteps: bool = flag(False, "tell the network timesteps on a scale of 0 to 1000")
    rescale_learned_sigmas: bool = flag(False, "weigh the variational bound by steps/1000")

    def __post_init__(self) -> None:
        """Raises InputError for a number of steps that makes no process."""
        _require(self.diffusion_steps >= 1, f"--diffusion_steps {self.diffusion_steps}: at least 1")


@dataclass(frozen=True)
class PreprocessingConfig:
    """The grid and the scale that a network was trained on."""

    voxel_mm: tuple[float, float, float] = (1.65, 1.65, 1.65)
    axis_codes: str = "PLS"
    suv_max: float = 16.0
    patch_size: int = 96
    overlap: int = 10

    def __post_init__(self) -> None:
        """Raises InputError for what is no grid, no scale, or no plan of patches."""
        _require(
            len(self.voxel_mm) == 3 and all(0 < size < inf for size in self.voxel_mm),
            f"--voxel_mm {self.voxel_mm}: three positive numbers",
        )
        check_axis_codes(self.axis_codes)
        _require(0 < self.suv_max < inf, f"--suv_max {self.suv_max}: must be positive and finite")
        for name in ("patch_size", "overlap"):
            _require(isinstance(getattr(self, name), int), f"{name} {getattr(self, name)}: a whole number")
        _require(self.patch_size >= 1, f"--patch_size {self.patch_size}: at least 1")
        _require(
            0 <= self.overlap <= self.patch_size // 2,
            f"--overlap {self.overlap}: from 0 to {self.patch_size // 2} for patches of {self.patch_size} slices",
        )


@dataclass(frozen=True)
class SamplerConfig:
    """How a trained model is best sampled: what `--preset fast` means for it.

    sampler, start_from: names in `samplers.SAMPLERS` and `samplers.STARTS`. start_step: the original timestep at which
    walks start, None for the last.
    """

    sampler: str = "ddpm"
    timestep_respacing: str = ""
    bfloat16: bool = False
    start_from: str = "noise"
    start_step: int | None = None

    def __post_init__(self) -> None:
        """Raises InputError for values of another kind. Names that are unknown here may yet be replaced by flags."""
        for item in fields(self):
            value = getattr(self, item.name)
            _require(isinstance(value, item.type), f"{item.name} {value!r}: has the wrong type")
        _require(self.start_step is None or self.start_step >= 0, f"start_step {self.start_step}: at least 0")

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> "SamplerConfig":
        """Of a header's entries. Raises TypeError for unknown ones."""
        entries = dict(plain)
        # Checkpoints of version 0.1.0, the shipped one among them, know two samplers only and say which by a boolean.
        if "use_ddim" in entries:
            entries["sampler"] = "ddim" if entries.pop("use_ddim") else "ddpm"
        return cls(**entries)


@dataclass(frozen=True)
class Header:
    """What our own checkpoints say about themselves. `training` is free-form provenance, plain values only."""

    method: str
    model: ModelConfig
    diffusion: DiffusionConfig
    preprocessing: PreprocessingConfig
    sampler: SamplerConfig
    training: dict[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """Plain containers and numbers only, so that a checkpoint loads without executing anything."""
        plain = asdict(self)
        plain["preprocessing"]["voxel_mm"] = list(self.preprocessing.voxel_mm)
        return plain

    @classmethod
    def from_dict(cls, plain: dict[str, Any], where: str) -> "Header":
        """The inverse of `as_dict`. Raises InputError, naming the file `where`, for entries that make no sense."""
        try:
            preprocessing = dict(plain["preprocessing"])
            preprocessing["voxel_mm"] = tuple(float(size) for size in preprocessing["voxel_mm"])
            return cls(
                method=str(plain["method"]),
                model=ModelConfig(**plain["model"]),
                diffusion=DiffusionConfig(**plain["diffusion"]),
                preprocessing=PreprocessingConfig(**preprocessing),
                sampler=SamplerConfig.from_dict(plain["sampler"]),
                training=dict(plain["training"]),
            )
        except (KeyError, TypeError, ValueError, AttributeError, InputError) as error:
            raise InputError(
                f"{where}: the checkpoint's header cannot be read ({error}); was it made by a newer version?"
            ) from None


# The flags of the published weights.
RELEASED_MODEL = ModelConfig(
    large_size=96,
    small_size=96,
    num_channels=128,
    num_head_channels=64,
    attention_resolutions="1000",
    resblock_updown=True,
    use_scale_shift_norm=True,
)
RELEASED_DIFFUSION = DiffusionConfig(learn_sigma=True)

# Where a checkpoint recommends nothing, as the published weights do not.
FAST_SAMPLER = SamplerConfig(sampler="ddim", timestep_respacing="ddim20", bfloat16=True)

# The small network that is trained on virtual patients and shipped: it adds a correction to the low-dose image, since
# a few hours on two cores do not suffice to learn the image from noise.
DEMO_MODEL = ModelConfig(
    large_size=96,
    small_size=96,
    num_channels=32,
    num_res_blocks=1,
    attention_resolutions="1000",
    resblock_updown=True,
    channel_mult="1,2,3",
    add_low_res=True,
    low_res_scale=16.0,
)
DEMO_DIFFUSION = DiffusionConfig(predict_xstart=True)
# Patches not much longer than the crops of training: the norms take their statistics over a whole patch.
DEMO_PREPROCESSING = PreprocessingConfig(voxel_mm=(3.3, 3.3, 3.3), patch_size=32)
# The knee of quality over calls (checkpoint/README.md): more calls gain 0.1 dB at the most.
DEMO_SAMPLER = SamplerConfig(
    sampler="ddim", timestep_respacing="logsnr1", start_from="low_dose", start_step=250, bfloat16=True
)


def field_names(config: type) -> list[str]:
    """Names of a configuration's fields, in order: its flags."""
    return [field.name for field in fields(config)]
