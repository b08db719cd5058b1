"""Settings of a network, its diffusion process and the grid of its images."""

from dataclasses import dataclass
from math import inf

from guided_diffusion.config.flags import Role, flag
from guided_diffusion.errors import InputError
from guided_diffusion.pet.grid import DEFAULT_AXIS_CODES, DEFAULT_VOXEL_MM, check_axis_codes
from guided_diffusion.pet.normalisation import DEFAULT_SUV_MAX

# Channel multipliers of the published system by `large_size`; every other size uses the last entry.
_CHANNEL_MULT = {64: (1, 2, 3, 4), 256: (1, 1, 2, 2, 4, 4), 512: (1, 1, 2, 2, 4, 4)}
_CHANNEL_MULT_ELSEWHERE = (1, 1, 2, 3, 4)


def require(condition: bool, message: str) -> None:
    """Raises InputError unless the condition holds."""
    if not condition:
        raise InputError(message)


def _positive_integers(name: str, text: str) -> None:
    """Raises InputError unless the text is a comma list of positive integers."""
    require(
        all(part.strip().isdecimal() and int(part) > 0 for part in text.split(",")),
        f"{name} {text!r}: a comma list of positive whole numbers",
    )


@dataclass(frozen=True)
class ModelConfig:
    """The network. Fields up to `use_fp16` are the published flags, with their defaults."""

    large_size: int = flag(
        256, "selects channel multipliers: 1,2,3,4 for 64; 1,1,2,2,4,4 for 256 and 512; else 1,1,2,3,4", Role.NETWORK
    )
    small_size: int = flag(64, "has no effect: accepted because published command lines contain it", Role.MACHINE)
    num_channels: int = flag(128, "channels of the first level", Role.NETWORK)
    num_res_blocks: int = flag(2, "residual blocks per level", Role.NETWORK)
    num_heads: int = flag(4, "attention heads, unless --num_head_channels is given", Role.NETWORK)
    num_heads_upsample: int = flag(-1, "attention heads of the decoder; -1: as --num_heads", Role.NETWORK)
    num_head_channels: int = flag(-1, "channels per attention head; -1: given by --num_heads", Role.NETWORK)
    attention_resolutions: str = flag(
        "16,8",
        "comma list; a level has attention if it is downsampled by large_size/r for an r of the list; 1000: none",
        Role.NETWORK,
    )
    dropout: float = flag(0.0, "dropout rate in residual blocks", Role.TRAINING)
    class_cond: bool = flag(False, "also condition on a class label", Role.NETWORK)
    use_checkpoint: bool = flag(False, "recompute activations in training to save memory", Role.MACHINE)
    use_scale_shift_norm: bool = flag(
        True, "the timestep embedding scales and shifts the normalised features instead of being added", Role.NETWORK
    )
    resblock_updown: bool = flag(False, "resample in residual blocks instead of single convolutions", Role.NETWORK)
    use_fp16: bool = flag(False, "half precision: float16 on a GPU, bfloat16 on a CPU that has it", Role.ARITHMETIC)
    dims: int = flag(3, "3 for volumes, 2 for slices", Role.NETWORK)
    channel_mult: str = flag(
        "", "comma list of channel multipliers by level, instead of those of --large_size", Role.NETWORK
    )
    add_low_res: bool = flag(
        False, "the network predicts a correction that is added to the low-dose image", Role.NETWORK
    )
    low_res_scale: float = flag(
        1.0, "factor on the low-dose image at the network's input; corrections are divided by it", Role.NETWORK
    )
    neighbours: int = flag(
        0, "2D networks: low-dose slices on either side of each slice that are input too", Role.NETWORK
    )

    def __post_init__(self) -> None:
        """Raises InputError for flags from which no network can be built."""
        require(self.dims in (2, 3), f"--dims {self.dims}: 2 or 3")
        require(self.num_res_blocks >= 1, f"--num_res_blocks {self.num_res_blocks}: at least 1")
        require(0 <= self.dropout < 1, f"--dropout {self.dropout}: from 0 to below 1")
        require(self.low_res_scale > 0, f"--low_res_scale {self.low_res_scale}: must be positive")
        require(self.neighbours >= 0, f"--neighbours {self.neighbours}: at least 0")
        for name in ("num_heads_upsample", "num_head_channels"):
            heads = getattr(self, name)
            require(heads == -1 or heads >= 1, f"--{name} {heads}: at least 1, or -1 to leave it to --num_heads")
        require(self.num_heads >= 1, f"--num_heads {self.num_heads}: at least 1")
        _positive_integers("--channel_mult", self.channel_mult or "1")
        _positive_integers("--attention_resolutions", self.attention_resolutions)
        require(
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

    diffusion_steps: int = flag(1000, "timesteps of the diffusion process in training", Role.PROCESS)
    noise_schedule: str = flag(
        "linear", "schedule of the noise variances beta", Role.PROCESS, choices=("linear", "cosine")
    )
    learn_sigma: bool = flag(False, "the network also predicts the variance", Role.PROCESS)
    timestep_respacing: str = flag(
        "",
        "which timesteps are used: counts per section (250 or 10,15,20), ddimN (N evenly spaced), or logsnrN (N evenly"
        " spaced in the logarithm of the signal-to-noise ratio, up to the start); empty: all",
        Role.STEPS,
    )
    use_kl: bool = flag(False, "train on the variational bound only", Role.PROCESS)
    predict_xstart: bool = flag(False, "the network predicts the image instead of the noise", Role.PROCESS)
    rescale_timesteps: bool = flag(False, "pass timesteps to the network on a scale from 0 to 1000", Role.PROCESS)
    rescale_learned_sigmas: bool = flag(False, "weight the variational bound by steps/1000", Role.PROCESS)

    def __post_init__(self) -> None:
        """Raises InputError unless there is at least one step."""
        require(self.diffusion_steps >= 1, f"--diffusion_steps {self.diffusion_steps}: at least 1")


@dataclass(frozen=True)
class PreprocessingConfig:
    """The grid and SUV scale that a network was trained on, and the patches in inference."""

    voxel_mm: tuple[float, float, float] = flag(
        DEFAULT_VOXEL_MM, "voxel size along X, Y, Z, three numbers", Role.NETWORK, metavar="MM"
    )
    axis_codes: str = flag(
        DEFAULT_AXIS_CODES, "anatomical directions (R, L, A, P, S, I) in which X, Y and Z increase", Role.NETWORK
    )
    suv_max: float = flag(
        DEFAULT_SUV_MAX,
        "largest SUV at the network's input, which is clipped to this value and divided by it",
        Role.NETWORK,
    )
    linear_transfer: bool = flag(
        False,
        "keep negative values in resampling, and write the resampled result instead of adding its change to the scan,"
        " so that noise finer than the network's grid is removed too",
        Role.NETWORK,
    )
    patch_size: int = flag(96, "axial slices per patch", Role.SAMPLING, shown="the header's, or 96")
    overlap: int = flag(10, "slices shared by neighbouring patches", Role.SAMPLING, shown="the header's, or 10")

    def __post_init__(self) -> None:
        """Raises InputError for an impossible grid, scale or patch size."""
        require(
            len(self.voxel_mm) == 3 and all(0 < size < inf for size in self.voxel_mm),
            f"--voxel_mm {self.voxel_mm}: three positive numbers",
        )
        check_axis_codes(self.axis_codes)
        require(0 < self.suv_max < inf, f"--suv_max {self.suv_max}: must be positive and finite")
        for name in ("patch_size", "overlap"):
            require(isinstance(getattr(self, name), int), f"{name} {getattr(self, name)}: a whole number")
        require(self.patch_size >= 1, f"--patch_size {self.patch_size}: at least 1")
        require(
            0 <= self.overlap <= self.patch_size // 2,
            f"--overlap {self.overlap}: from 0 to {self.patch_size // 2} for patches of {self.patch_size} slices",
        )
