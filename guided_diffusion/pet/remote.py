"""Remote paths, fetched with blobfile into a temporary folder."""

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from guided_diffusion.errors import InputError
from guided_diffusion.gate import remote_storage
from guided_diffusion.pet.formats.stated_units import sidecar_stems

MAX_NAME = 100


@contextmanager
def local_copy(path: str | Path) -> Iterator[Path]:
    """Yields `path` itself where it is local, else a temporary copy of the file or folder.

    Raises:
        InputError: nothing is there.
    """
    if "://" not in str(path):
        if not Path(path).exists():
            raise InputError(f"{path}: no such file or folder")
        yield Path(path)
        return
    blobfile = remote_storage()
    with tempfile.TemporaryDirectory() as folder:
        try:
            yield _fetch(blobfile, str(path), Path(folder))
        except (blobfile.Error, OSError) as error:
            raise InputError(f"{path}: cannot be fetched: {' '.join(str(error).split())[:200]}") from None


def _fetch(blobfile: ModuleType, url: str, folder: Path) -> Path:
    if not blobfile.isdir(url):
        target = folder / blobfile.basename(url)
        blobfile.copy(url, str(target))
        _fetch_sidecar(blobfile, url, target)
        return target
    numbers: dict[tuple[str, str], int] = {}
    for parent, _, names in blobfile.walk(url):
        for name in names:
            # Numbered, with plain letters only: names on a server must not decide where files are written. Files of
            # one name with different suffixes, such as a volume and its sidecar, share a number.
            number = numbers.setdefault((parent, name.split(".")[0]), len(numbers))
            plain = re.sub("[^A-Za-z0-9._-]", "_", name)[-MAX_NAME:]
            target = folder / f"{number:06d}_{plain}"
            if target.exists():
                target = folder / f"{number:06d}_{len(list(folder.iterdir()))}_{plain}"
            blobfile.copy(blobfile.join(parent, name), str(target))
    return folder


def _fetch_sidecar(blobfile: ModuleType, url: str, target: Path) -> None:
    """The JSON of a volume's name, which says its unit, if there is one beside it."""
    for stem in sidecar_stems(target.name):
        sidecar = url[: len(url) - len(target.name)] + f"{stem}.json"
        if sidecar != url and blobfile.exists(sidecar):
            blobfile.copy(sidecar, str(target.with_name(f"{stem}.json")))
            return
