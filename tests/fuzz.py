"""Damaged files by the thousand, given to every reader: `make fuzz`, or `python -m tests.fuzz --minutes 30`.

Each file is read by a process of its own kind that may die. What counts is how it ends: with an image or weights, with
an InputError of one line, or otherwise: another exception, a signal, more than 10 seconds, more than 200 MB beside
twice what was read. The offending files are kept in `--keep`.
"""

import argparse
import gzip
import io
import json
import random
import resource
import selectors
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from guided_diffusion.errors import InputError
from tests.fuzz_seeds import Seed, make_seeds

SECONDS = 10
SPARE_KIBIBYTES = 200 * 1000**2 // 1024
VALUES = (
    *(
        None,
        True,
        "",
        "x",
        "1",
        "logsnr3",
        "ddim7",
        "1,2",
        "1," * 60,
        "x" * 300,
        "\x1b[31m\n",
        [],
        [1, 2, 3],
        [3.0] * 3,
        {},
    ),
    *(0, 1, -1, 2, 3, 8, 16, 64, 1000, 10**6, 10**12, 10**30, 0.0, 0.5, -2.5, 1e-30, 1e30, float("nan"), float("inf")),
)
INTEGERS = (0, 1, -1, 2**7, 2**15, 2**31 - 1, -(2**31), 2**31, 2**32 - 1, 2**40, 2**63 - 1)


def mutate(content: bytes, others: list[bytes], rng: random.Random) -> bytes:
    """The content with one to eight random changes."""
    changed = bytearray(content)
    # Headers decide more than voxels, and stand in front.
    reach = len(changed) if rng.random() < 0.5 else min(len(changed), 1024)
    for _ in range(rng.choice((1, 1, 2, 4, 8))):
        place = rng.randrange(max(reach, 1))
        kind = rng.randrange(8)
        if kind <= 1 and place < len(changed):
            changed[place] ^= 1 << rng.randrange(8)
        elif kind == 2 and place < len(changed):
            changed[place] = rng.randrange(256)
        elif kind == 3:
            size, order = rng.choice((1, 2, 4, 8)), rng.choice(("little", "big"))
            number = rng.choice(INTEGERS) % 2 ** (8 * size)
            changed[place : place + size] = number.to_bytes(size, order)
        elif kind == 4:
            del changed[place : place + rng.randrange(1, 64)]
        elif kind == 5:
            changed[place:place] = rng.randbytes(rng.randrange(1, 64))
        elif kind == 6:
            changed[place:place] = changed[place : place + rng.randrange(1, 256)]
        elif rng.random() < 0.5:
            del changed[place:]
        else:
            other = rng.choice(others)
            start = rng.randrange(max(len(other), 1))
            changed[place:] = other[start:]
    return bytes(changed)


def inside(change: Callable[[bytes], bytes], content: bytes, rng: random.Random) -> bytes:
    """A packed file whose content was changed before it was packed, so that its checksums fit."""
    if content[:2] == b"\x1f\x8b":
        return gzip.compress(change(gzip.decompress(content)), 1)
    if content[:2] == b"PK":
        packed = io.BytesIO()
        with zipfile.ZipFile(io.BytesIO(content)) as archive, zipfile.ZipFile(packed, "w") as again:
            members = archive.infolist()
            chosen = rng.choice(members)
            for member in members:
                data = archive.read(member)
                again.writestr(member.filename, change(data) if member is chosen else data)
        return packed.getvalue()
    if content.startswith(b"MATLAB 5") and content[128:132] == b"\x0f\0\0\0":
        data = zlib.compress(change(zlib.decompress(content[136:])))
        return content[:132] + len(data).to_bytes(4, "little") + data
    if content[:1] == b"{":
        return json.dumps(other_values(json.loads(content), rng)).encode()
    return change(content)


def other_values(plain: dict, rng: random.Random) -> dict:
    """Nested dictionaries with one to three of their values replaced by senseless ones."""
    for _ in range(rng.randrange(1, 4)):
        place = plain
        while isinstance(place[name := rng.choice(list(place))], dict) and place[name] and rng.random() < 0.95:
            place = place[name]
        place[name] = rng.choice(VALUES)
    return plain


class Reader:
    """The process that reads, started again after it died."""

    def __init__(self) -> None:
        self._process: subprocess.Popen | None = None

    def read(self, seed: Seed, path: Path) -> dict:
        """How reading ended: "end" is valid, refused, other, signal or hang."""
        if self._process is None:
            command = [sys.executable, "-m", "tests.fuzz", "--worker"]
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
            )
            self._process.stdout.readline()  # it is ready
        self._process.stdin.write(json.dumps([seed.reader, str(path)]) + "\n")
        self._process.stdin.flush()
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            ready = selector.select(2 * SECONDS)
        line = self._process.stdout.readline() if ready else ""
        if line:
            return json.loads(line)
        self.close()
        return {"end": "signal" if ready else "hang", "what": "the reader died" if ready else f"over {2 * SECONDS} s"}

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


def judge(found: dict) -> str:
    """The end of a reading, with what takes too long or too much memory under names of its own."""
    if found["end"] in ("valid", "refused"):
        if found["kibibytes"] > SPARE_KIBIBYTES + 2 * found["bytes"] // 1024:
            return "memory"
        if found["seconds"] > SECONDS:
            return "hang"
    return found["end"]


def work() -> None:
    """Read what stdin names until it ends, and say on stdout how each ended."""
    from tests.fuzz_seeds import READERS

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    print("ready", flush=True)
    for line in sys.stdin:
        reader, path = json.loads(line)
        Path("/proc/self/clear_refs").write_text("5")  # the peak of memory begins anew
        before, began = peak_kibibytes(), time.perf_counter()
        found = {"end": "valid", "what": "", "bytes": 0}
        try:
            found["bytes"] = READERS[reader](path)
        except InputError as error:
            found["end"], found["what"] = "refused", str(error)
            if not str(error).isprintable() or len(str(error)) > 1000:
                found["end"], found["what"] = "other", "a message that is no line"
        except BaseException as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            found["end"] = "other"
            found["what"] = f"{type(error).__name__} at {Path(where.filename).name}:{where.lineno}: {error}"[:300]
        found["seconds"] = time.perf_counter() - began
        found["kibibytes"] = peak_kibibytes() - before
        print(json.dumps(found), flush=True)


def peak_kibibytes() -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0])


def fuzz(seconds: float, seed: int, keep: Path, inputs: int = 0, formats: str = "") -> tuple[Counter, list[str]]:
    """Read mutated files for so long, or so many; returns how many ended how by format, and the offenders.

    formats: only those that have this in their name.
    """
    rng, counts, offenders = random.Random(seed), Counter(), []
    reader, until = Reader(), time.monotonic() + seconds
    with tempfile.TemporaryDirectory() as folder:
        seeds = make_seeds(Path(folder) / "seeds")
        contents = [one.path.read_bytes() for one in seeds]
        seeds = [one for one in seeds if formats in one.name]
        done = 0
        while time.monotonic() < until and (not inputs or done < inputs):
            one = seeds[done % len(seeds)]
            whole = one.path.read_bytes()

            def change(content: bytes) -> bytes:
                return mutate(content, contents, rng)

            damaged = inside(change, whole, rng) if rng.random() < 0.6 else change(whole)
            one.path.write_bytes(damaged)
            found = reader.read(one, one.loaded)
            end = judge(found)
            counts[one.name, end] += 1
            done += 1
            if end not in ("valid", "refused"):
                keep.mkdir(parents=True, exist_ok=True)
                (keep / f"{len(offenders):04d}-{one.path.name}").write_bytes(damaged)
                offenders.append(
                    f"{len(offenders):04d} {one.name}: {end}: {found['what']} {found.get('seconds', 0):.1f} s"
                )
            one.path.write_bytes(whole)
    reader.close()
    return counts, offenders


def table(counts: Counter) -> str:
    """Rows of formats, columns of ends, in Markdown."""
    ends = ("valid", "refused", "other", "signal", "hang", "memory")
    lines = ["| format | inputs | " + " | ".join(ends) + " |", "|---" * (len(ends) + 2) + "|"]
    names = sorted({name for name, _ in counts})
    for name in (*names, "all"):
        numbers = [
            sum(n for (row, found), n in counts.items() if found == end and name in (row, "all")) for end in ends
        ]
        lines.append(f"| {name} | {sum(numbers)} | " + " | ".join(map(str, numbers)) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, default=Path("results/fuzz"))
    parser.add_argument("--formats", default="", help="only those that have this in their name")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        work()
        return
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    counts, offenders = fuzz(60 * arguments.minutes, arguments.seed, arguments.keep, formats=arguments.formats)
    print(table(counts))
    print("\n".join(offenders))
    sys.exit(1 if offenders else 0)


if __name__ == "__main__":
    main()
