"""The header of our own checkpoints, including how the model should be sampled."""

from dataclasses import asdict, dataclass, fields
from typing import Any

from guided_diffusion.config.model import DiffusionConfig, ModelConfig, PreprocessingConfig, require
from guided_diffusion.errors import InputError


@dataclass(frozen=True)
class SamplerConfig:
    """The recommended sampling of a trained model: what `--preset fast` means for it.

    sampler, start_from: names in `samplers.SAMPLERS` and `samplers.STARTS`. start_step: the original timestep at which
    sampling starts, None for the last.
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
            require(isinstance(value, item.type), f"{item.name} {value!r}: has the wrong type")
        require(self.start_step is None or self.start_step >= 0, f"start_step {self.start_step}: at least 0")

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> "SamplerConfig":
        """Of a header's entries. Raises TypeError for unknown ones."""
        entries = dict(plain)
        # Checkpoints of version 0.1.0 have two samplers only and name theirs by a boolean.
        if "use_ddim" in entries:
            entries["sampler"] = "ddim" if entries.pop("use_ddim") else "ddpm"
        return cls(**entries)


@dataclass(frozen=True)
class Header:
    """The description that our own checkpoints carry. `training` is free-form provenance, plain values only."""

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
