"""Walking a folder of images: links are followed, circles and special files are not; all that is left out is named."""

import json
import os
import re
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from guided_diffusion.errors import InputError

RUN_FILE, LOG_FILE = "run.json", "log.txt"
MAX_RUN_FILE_BYTES = 16 * 2**20
SHOWN_NAMES = 8
# A thousand patients with a PET and a CT series each. What holds more is a disk that a link leads to.
MAX_ENTRIES = 1_000_000
# Folders that Windows, macOS and Linux keep on a disc or in a zip, hidden from those who look at it there.
SYSTEM_FOLDERS = {"$recycle.bin", "system volume information", "__macosx", "lost+found"}
# What iCloud leaves in place of a file that it keeps.
_PLACEHOLDER = re.compile(r"\.(.+)\.icloud")
LINK_TO_NOTHING, NOT_DOWNLOADED = "a link to nothing", "not downloaded from iCloud"


@dataclass(frozen=True)
class LeftOut:
    """A file or folder that is not used, and why; `reason` goes on after "left out (...)"."""

    path: str
    reason: str

    @property
    def is_elsewhere(self) -> bool:
        """Whether it stands for a file whose content is not on this machine."""
        return self.reason in (LINK_TO_NOTHING, NOT_DOWNLOADED)


@dataclass(frozen=True)
class Folder:
    """A folder with its regular files and its folders, both sorted, and what of it does not count."""

    path: Path
    files: tuple[Path, ...] = ()
    folders: tuple["Folder", ...] = ()
    left_out: list[LeftOut] = field(default_factory=list)

    def walk(self) -> Iterator["Folder"]:
        """This folder and all below, parents first."""
        yield self
        for folder in self.folders:
            yield from folder.walk()


def walk(path: Path, excluded: Path | None = None) -> Folder:
    """A folder with all that lies below it, but for `excluded`, hidden names, and the results of earlier runs.

    Every real folder is entered once, however many links lead to it, and none that lies around `path`.

    Raises:
        InputError: a folder cannot be read, or holds more files than a study or a folder of subjects does.
    """
    return _Walk(path, excluded).enter(path)


def notices(left_out: Iterable[LeftOut], root: Path | str) -> list[str]:
    """A line per reason that names what was left out, relative to `root` where it lies below."""
    by_reason: dict[str, list[str]] = {}
    for one in left_out:
        by_reason.setdefault(one.reason, []).append(_shown(one.path, str(root)))
    lines = []
    for reason, names in by_reason.items():
        more = f" and {len(names) - SHOWN_NAMES} more" if len(names) > SHOWN_NAMES else ""
        lines.append(f"left out ({reason}): {', '.join(names[:SHOWN_NAMES])}{more}")
    return lines


def _shown(path: str, root: str) -> str:
    name = path.removeprefix(root).lstrip("/:\\") or path
    return "".join(c if c.isprintable() else "?" for c in name)


class _Walk:
    def __init__(self, root: Path, excluded: Path | None):
        self.root = root.resolve()
        self.excluded = excluded.resolve() if excluded else None
        self.entered = {_identity(root)}
        self.count = 0

    def enter(self, path: Path) -> Folder:
        left_out: list[LeftOut] = []
        files, folders = [], []
        results = _results_of_run(path)
        for entry in self._entries(path):
            reason = self._reason_against(entry, results)
            if placeholder := _PLACEHOLDER.fullmatch(entry.name):
                left_out.append(LeftOut(str(entry.with_name(placeholder.group(1))), NOT_DOWNLOADED))
            elif reason is not None:
                left_out.append(LeftOut(str(entry), reason))
            elif not entry.is_dir():
                files.append(entry)
            else:
                self.entered.add(_identity(entry))
                folders.append(self.enter(entry))
        folders.sort(key=lambda folder: folder.path)
        return Folder(path, tuple(sorted(files)), tuple(folders), left_out)

    def _entries(self, path: Path) -> list[Path]:
        """Links last: of a folder and a link to it, the folder gives the name."""
        try:
            entries = sorted(path.iterdir(), key=lambda entry: (entry.is_symlink(), entry.name))
        except OSError as error:
            raise InputError(f"{path}: cannot be read: {error.strerror}") from None
        self.count += len(entries)
        if self.count > MAX_ENTRIES:
            raise InputError(f"{self.root}: holds more than {MAX_ENTRIES} files; give the folder of the scans")
        return entries

    def _reason_against(self, entry: Path, results: set[str]) -> str | None:
        """Reason why an entry of a folder does not count; None where it does."""
        if entry.name.startswith(".") or entry.name.lower() in SYSTEM_FOLDERS:
            return "hidden"
        if entry.name in results or (self.excluded is not None and entry.resolve() == self.excluded):
            return "results of a run"
        try:
            mode = entry.stat().st_mode
        except OSError:
            return LINK_TO_NOTHING
        if stat.S_ISREG(mode):
            return None
        if not stat.S_ISDIR(mode):
            return "no regular file"
        if self.root.is_relative_to(entry.resolve()):
            return "a link to a folder around this one"
        return "a link to a folder that is read already" if _identity(entry) in self.entered else None


def _results_of_run(folder: Path) -> set[str]:
    """Names in a folder that `scripts/test.py` wrote there, by its manifest."""
    path = folder / RUN_FILE
    try:
        if not path.is_file() or path.stat().st_size > MAX_RUN_FILE_BYTES:
            return set()
        run = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(run["key"], str) or "checkpoint" not in run:
            return set()
        return {RUN_FILE, LOG_FILE, *map(str, run["files"])}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return set()


def _identity(path: Path) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_dev, status.st_ino
