"""Results kept on disk for a continued run, each under a key that covers everything it depends on."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from guided_diffusion.errors import InputError
from guided_diffusion.files import write_text
from guided_diffusion.gate import read_small


@dataclass(frozen=True)
class KeptResults:
    """A folder of results, each a JSON value of its own file; several ranks may use it at a time."""

    folder: Path

    def load(self, place: str, key: str) -> Any:
        """The result for a place, None where there is none, one with another key, or a damaged one."""
        try:
            kept = json.loads(read_small(self._path(place)))
            fits = kept["key"] == key and kept["sha256"] == _digest(kept["result"])
            return kept["result"] if fits else None
        except (InputError, OSError, ValueError, LookupError, TypeError, RecursionError):
            return None

    def save(self, place: str, key: str, result: Any) -> None:
        """Keep a result in the place of an earlier one."""
        write_text(self._path(place), json.dumps({"key": key, "sha256": _digest(result), "result": result}))

    def _path(self, place: str) -> Path:
        return self.folder / f"{hashlib.sha256(place.encode('utf-8', 'surrogateescape')).hexdigest()[:32]}.json"


def key_of(*deciding: object) -> str:
    """A key for a result of these values, which JSON can express: equal values, equal keys."""
    return _digest(deciding)


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
