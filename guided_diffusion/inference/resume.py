"""Continuing an interrupted run: finished patches wait on disk, under a key that names all that they depend on."""

import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from guided_diffusion.config.flags import WITHOUT_RESULT
from guided_diffusion.config.inference_flags import INFERENCE_FLAGS
from guided_diffusion.files import atomic_write
from guided_diffusion.pet.grid import Volume

_PREFIX = ".unfinished-"


def fingerprint(volume: Volume) -> str:
    """SHA-256 of a volume's voxels and affine."""
    digest = hashlib.sha256(np.ascontiguousarray(volume.data))
    digest.update(np.ascontiguousarray(volume.affine))
    return digest.hexdigest()


def run_key(voxels: str, weights: str, settings: dict[str, Any], flags: dict[str, Any], device_type: str) -> str:
    """A name for a run's results: equal keys, equal results.

    voxels, weights: digests of the input volume and of the checkpoint. device_type: "cpu" or "cuda", which differ in
    rounding and, in the published order of draws, in the noise.
    """
    deciding = [voxels, weights, _of_result(settings), _of_result(flags), device_type, torch.__version__]
    return hashlib.sha256(json.dumps(deciding, sort_keys=True, default=str).encode()).hexdigest()


def _of_result(values: dict[str, Any]) -> dict[str, Any]:
    """Flags, and configurations of flags, without those that say where and how fast, not what."""
    return {
        name: _of_result(value) if isinstance(value, dict) else value
        for name, value in values.items()
        if name not in INFERENCE_FLAGS or INFERENCE_FLAGS[name].role not in WITHOUT_RESULT
    }


@dataclass(frozen=True)
class FinishedPatches:
    """Batches of patches that a run has finished, in a hidden folder until the volume is complete."""

    folder: Path

    @classmethod
    def of_run(cls, results: Path, key: str) -> "FinishedPatches":
        """Those of the run with this key."""
        return cls(results / f"{_PREFIX}{key[:16]}")

    def with_patches_of(self, slices: int) -> "FinishedPatches":
        """Those of plans with patches of this length: a run may go over to shorter ones where memory is short."""
        return FinishedPatches(self.folder / str(slices))

    def has(self, number: int) -> bool:
        """Whether a batch needs not be computed any more."""
        return self._path(number).exists()

    def load(self, number: int) -> np.ndarray:
        """Samples of a batch that is there, float32 [N, X, Y, Z]."""
        return np.load(self._path(number), allow_pickle=False)

    def save(self, number: int, samples: np.ndarray) -> None:
        """Keep a batch."""
        with atomic_write(self._path(number)) as temporary:
            np.save(temporary, samples)

    def discard(self) -> None:
        """Begin anew."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def remove(self) -> None:
        """The volume is complete: nothing needs to be kept, of earlier attempts with other flags neither."""
        for folder in self.folder.parent.glob(f"{_PREFIX}*"):
            shutil.rmtree(folder)

    def _path(self, number: int) -> Path:
        return self.folder / f"batch{number:04d}.npy"
