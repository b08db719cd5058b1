"""Continuing an interrupted run: finished patches are kept on disk, under a key that covers all they depend on.

Files on disk may be damaged, truncated or from another run: each array is preceded by a digest of its bytes and of its
place in the run, and an array that does not match is computed again.
"""

import functools
import hashlib
import io
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

import guided_diffusion
from guided_diffusion import logger
from guided_diffusion.config.flags import WITHOUT_RESULT
from guided_diffusion.config.inference_flags import INFERENCE_FLAGS
from guided_diffusion.errors import InputError
from guided_diffusion.files import atomic_write, remove_whatever, sha256_of_code
from guided_diffusion.gate import open_regular

_PREFIX = ".unfinished-"
_DIGEST_BYTES = 32
_CODE_WITHOUT_RESULT = ("ranks", "report", "simulation", "training", "__pycache__")


def run_key(voxels: str, weights: str, settings: dict[str, Any], flags: dict[str, Any], device_type: str) -> str:
    """A name for the results of a run: runs with equal keys have equal results.

    voxels, weights: digests of the input volume and of the checkpoint. device_type: "cpu" or "cuda", which differ in
    rounding and, for `--noise per_patch`, in the noise.
    """
    versions = [torch.__version__, code_of_results()]
    # What the user is told, as of a GPU that this machine has, decides nothing.
    settings = {name: value for name, value in settings.items() if name != "notices"}
    deciding = [voxels, weights, _of_result(settings), _of_result(flags), device_type, *versions]
    return hashlib.sha256(json.dumps(deciding, sort_keys=True, default=str).encode()).hexdigest()


@functools.cache
def code_of_results() -> str:
    """SHA-256 of the program's code, but for the parts that no result depends on."""
    package = Path(guided_diffusion.__file__).parent
    return sha256_of_code(place for place in sorted(package.iterdir()) if place.name not in _CODE_WITHOUT_RESULT)


def _of_result(values: dict[str, Any]) -> dict[str, Any]:
    """The flags, also within configurations, without those that only affect files and speed."""
    return {
        name: _of_result(value) if isinstance(value, dict) else value
        for name, value in values.items()
        if name not in INFERENCE_FLAGS or INFERENCE_FLAGS[name].role not in WITHOUT_RESULT
    }


@dataclass(frozen=True)
class FinishedPatches:
    """Finished batches of patches of a run, kept in a hidden folder until the volume is complete.

    key: of the run, see `run_key`. slices: length of the patches, 0 before they are planned.
    """

    folder: Path
    key: str
    slices: int = 0
    _whole: set[int] = field(default_factory=set, compare=False)

    @classmethod
    def of_run(cls, results: Path, key: str) -> "FinishedPatches":
        """The finished batches of the run with this key."""
        return cls(results / f"{_PREFIX}{key[:16]}", key)

    def with_patches_of(self, slices: int) -> "FinishedPatches":
        """Those with patches of this length, since a run that lacks memory changes to shorter ones."""
        return FinishedPatches(self.folder, self.key, slices)

    def has(self, number: int) -> bool:
        """Whether a batch is already computed. A damaged one is removed, with a line in the log."""
        if number in self._whole:
            return True
        path = self._path(number)
        if any(folder.is_symlink() for folder in self._folders()) or not (path.is_symlink() or path.exists()):
            return False
        try:
            self.load(number)
        except InputError as damage:
            logger.log(f"notice: kept patches are computed again: {damage}")
            remove_whatever(path)
            return False
        self._whole.add(number)
        return True

    def load(self, number: int) -> np.ndarray:
        """Samples of a batch that is there, float32 [N, X, Y, Z]. Raises InputError for a file that is not as kept."""
        path = self._path(number)
        with open_regular(path, follow=False) as file:
            digest, content = file.read(_DIGEST_BYTES), file.read()
        if digest != self._digest(number, content):
            raise InputError(f"{path}: is damaged, or of another run")
        return np.load(io.BytesIO(content), allow_pickle=False)

    def save(self, number: int, samples: np.ndarray) -> None:
        """Write a finished batch."""
        for folder in self._folders():
            if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
                remove_whatever(folder)
        stream = io.BytesIO()
        np.save(stream, samples)
        content = stream.getvalue()
        with atomic_write(self._path(number)) as temporary:
            temporary.write_bytes(self._digest(number, content) + content)
        self._whole.add(number)

    def are_of_others(self) -> bool:
        """Whether there are kept batches, but none of this run: those of other settings, scans or versions."""
        return not self.folder.exists() and any(self.folder.parent.glob(f"{_PREFIX}*"))

    def remove_own(self) -> None:
        """Remove the kept batches of this run."""
        remove_whatever(self.folder)
        self._whole.clear()

    def remove_all(self) -> None:
        """Remove all kept batches once the volume is complete: those of earlier runs with other flags too."""
        for folder in self.folder.parent.glob(f"{_PREFIX}*"):
            remove_whatever(folder)

    def _digest(self, number: int, content: bytes) -> bytes:
        """SHA-256 of an array's bytes as `numpy.save` writes them, and of the run, plan and number they belong to."""
        place = f"{self.key} {self.slices} {number} ".encode()
        return hashlib.sha256(place + content).digest()

    def _folders(self) -> tuple[Path, Path]:
        return self.folder, self.folder / str(self.slices)

    def _path(self, number: int) -> Path:
        return self._folders()[1] / f"batch{number:04d}.kept"
