"""Faults by the hundred, thrown at small runs of inference and training: `make soak`, or `python -m tests.soak`.

Every round disturbs a run (kills, signals, a stalled rank, a full disk, a second run into the same folder), damages
what it left, gives the same command again, and compares what comes out with an undisturbed run, bit for bit. Inputs
that cannot be used stand among those that can. The table says of every kind of fault how often it was thrown and what
became of it:

lost: a result is missing after the second command. wrong: a file under a final name is not that of an undisturbed run.
hung: a job had to be killed. traceback: a fault was answered with one. leaked: processes or hidden files stayed.
"""

import argparse
import json
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from guided_diffusion.checkpoints import load_checkpoint
from guided_diffusion.errors import InputError
from guided_diffusion.image_datasets import open_pair
from tests import soak_faults as faults
from tests.soak_jobs import ForkedJob, Job
from tests.soak_stage import GOOD, Stage, last_weights

ENDS = ("survived", "lost", "wrong", "hung", "traceback", "leaked")
STALL_SECONDS = 10
_HIDDEN = re.compile(r"\.(unfinished-.+|[0-9a-f]{16}~.+)")


@dataclass
class Round:
    """The faults of one round, and the worst that came of them."""

    faults: list[str] = field(default_factory=list)
    end: str = "survived"
    details: list[str] = field(default_factory=list)

    def note(self, end: str, detail: str) -> None:
        """Something that must not be."""
        if self.end == "survived":
            self.end = end
        self.details.append(f"{end}: {detail}")


def bad_inputs(stage: Stage, round_: Round) -> None:
    """Other inputs that cannot be used beside the good ones."""
    for path in stage.scans.iterdir():
        if not path.name.startswith(GOOD):
            path.unlink()
    for number in range(stage.rng.randrange(3, 13)):
        name = stage.rng.choice(list(faults.BAD_INPUTS))
        faults.BAD_INPUTS[name](stage.scans / f"bad{number}.npz", stage.rng)
        round_.faults.append(name)


def disturb(stage: Stage, out: Path, flags: list[object], round_: Round) -> None:
    """One run into `out` that does not get to its end in peace."""
    rng = stage.rng
    ranks = rng.choice((1, 1, 1, 1, 1, 2, 3))  # those on several take long to start
    kinds = ["kill a rank", "terminate a rank", "interrupt a rank", "second run"]
    kinds += ["full disk"] if ranks == 1 else []
    if ranks > 1:
        kinds += ["kill the launcher", "interrupt the launcher", "kill a rank", "stop a rank"]
    kind = rng.choice(kinds)
    round_.faults.append(kind)
    usual = float(stage.reference(flags, ranks)["seconds"])
    more = ["--stall_seconds", STALL_SECONDS] if kind == "stop a rank" else []
    limit = rng.randrange(1000, 30_000) if kind == "full disk" else None
    job = stage.denoise(out, flags + more, ranks, file_bytes=limit)
    if kind != "full disk":
        time.sleep(usual * (1 - 0.7 * rng.random() ** 2))  # less often while the libraries are loaded
    if kind == "second run":
        finish(stage.denoise(out, flags, 1), round_, "the second run")
    signals = {"kill": signal.SIGKILL, "terminate": signal.SIGTERM, "interrupt": signal.SIGINT, "stop": signal.SIGSTOP}
    if kind.split()[0] in signals:
        victims = [job.pid] if "launcher" in kind else job.ranks()
        if victims:
            job.send(rng.choice(victims), signals[kind.split()[0]])
    finish(job, round_, kind, tracebacks=kind in ("full disk", "second run"))


def finish(job: Job | ForkedJob, round_: Round, what: str, tracebacks: bool = True) -> None:
    """Wait for a job's end and note what must not be."""
    if not job.ends_within():
        round_.note("hung", f"{what}: killed after waiting")
    if left := job.left_behind():
        round_.note("leaked", f"{what}: {left} processes or names of shared memory outlived the job")
    if tracebacks and "Traceback" in job.says():
        round_.note("traceback", f"{what}: {job.says().strip().splitlines()[-1]}")


def compare(out: Path, expected: dict[str, np.ndarray], round_: Round, complete: bool) -> None:
    """Everything under a final name must be right, and after the last command be there."""
    for name in GOOD:
        files = list((out / name).glob("samples_*.npz")) if (out / name).is_dir() else []
        try:
            found = [np.load(file)["arr_0"] for file in files]
        except Exception as error:
            round_.note("wrong", f"{name}: {error}")
            continue
        if not all(np.array_equal(one, expected[name]) for one in found):
            round_.note("wrong", f"{name}: other voxels than those of an undisturbed run")
        if complete and (not files or not (out / name / "run.json").is_file()):
            round_.note("lost", f"{name}: no result")
    for folder in out.glob("bad*"):
        if list(folder.glob("samples*")):
            round_.note("wrong", f"{folder.name}: a result of an input that cannot be used")


def damage(stage: Stage, out: Path, round_: Round) -> None:
    """Up to six of the files that the disturbed run left."""
    rng = stage.rng
    kept = list(out.rglob("*.kept"))
    done = [folder for name in GOOD if (folder := out / name) and (folder / "run.json").is_file()]
    for _ in range(rng.randrange(7)):
        if kept and rng.random() < 0.8:
            kinds, path = faults.KEPT, kept.pop(rng.randrange(len(kept)))
        elif done:
            files = json.loads((done[0] / "run.json").read_text())["files"]
            use_manifest = rng.random() < 0.4
            kinds = faults.MANIFEST if use_manifest else faults.FINISHED
            path = done.pop(0) / ("run.json" if use_manifest else rng.choice(files))
        else:
            return
        kind = rng.choice(list(kinds))
        kinds[kind](path, rng)
        round_.faults.append(kind)


def inference_round(stage: Stage) -> Round:
    """A disturbed run, damage, and the same command once more."""
    round_, rng = Round(), stage.rng
    flags = ["--timestep_respacing", 2, "--fuse", rng.choice(("end", "each_step"))]
    expected = stage.reference(flags, 1)
    bad_inputs(stage, round_)
    out = stage.new_folder()
    for _ in range(rng.choice((1, 1, 2))):
        disturb(stage, out, flags, round_)
        compare(out, expected, round_, complete=False)
    damage(stage, out, round_)
    job = stage.denoise(out, flags, rng.choice((1, 1, 1, 1, 2)))
    finish(job, round_, "the last command")
    # Beside a manifest that is damaged, the results count as a user's own files, which stay.
    bad = any(name.startswith(("input", "run.json")) for name in round_.faults)
    if job.exit_code != (2 if bad else 0):
        last = (job.says().strip().splitlines() or [""])[-1]
        round_.note("lost", f"the last command ended with {job.exit_code}: {last}")
    compare(out, expected, round_, complete=True)
    hidden = [path.name for path in out.rglob(".*") if _HIDDEN.fullmatch(path.name)]
    if hidden:
        round_.note("leaked", f"hidden files stay: {', '.join(hidden[:3])}")
    if round_.end == "survived":
        shutil.rmtree(out)
    return round_


def training_round(stage: Stage) -> Round:
    """A training that is killed, perhaps with its newest set damaged, and given again until it ends."""
    round_, rng = Round(), stage.rng
    ranks = rng.choice((1, 1, 1, 2))
    expected = stage.trained(ranks)
    out = stage.new_folder()
    for _ in range(rng.choice((1, 2))):
        job = stage.train(out, ranks)
        time.sleep(rng.uniform(0.2, 1.0) * float(expected["seconds"]))
        kind = rng.choice(("training: kill a rank", "training: terminate a rank"))
        round_.faults.append(kind)
        if victims := job.ranks():
            job.send(rng.choice(victims), signal.SIGKILL if "kill" in kind else signal.SIGTERM)
        finish(job, round_, kind, tracebacks=False)
    sets = sorted(out.glob("opt*.pt")) if out.is_dir() else []
    if len(sets) > 1 and rng.random() < 0.6:
        newest = sets[-1].name[3:]
        kind = rng.choice(list(faults.TRAINING))
        faults.TRAINING[kind](out / (rng.choice(("model", "opt", "ema_0.9_")) + newest), rng)
        round_.faults.append(kind)
    if (out / "progress.csv").is_file() and rng.random() < 0.3:
        with (out / "progress.csv").open("ab") as file:
            file.write(rng.choice((b"1", b"\xff\xfe", b"12,0.", b"\0\0\0")))
        round_.faults.append("training: end of the progress table damaged")
    job = stage.train(out, ranks)
    finish(job, round_, "the last command")
    if job.exit_code != 0:
        round_.note("lost", f"training ended with {job.exit_code}: {(job.says().strip().splitlines() or [''])[-1]}")
        return round_
    found = last_weights(out)
    if any(name != "seconds" and not torch.equal(found[name], value) for name, value in expected.items()):
        round_.note("wrong", "other weights than those of an undisturbed training")
    if round_.end == "survived":
        shutil.rmtree(out)
    return round_


def reading_round(stage: Stage) -> Round:
    """Single bits of weights and pairs, read in this process: refused, or of the padding between them."""
    round_, rng = Round(), stage.rng

    def read_weights(path: Path) -> np.ndarray:
        return np.concatenate([value.flatten().numpy() for value in load_checkpoint(str(path)).state_dict.values()])

    for source, read in ((stage.model, read_weights), (stage.pairs / "one.npz", open_pair)):
        for _ in range(3):
            copy = stage.folder / f"flipped{source.suffix}"
            shutil.copy(source, copy)
            faults.flip_inside(copy, rng)
            round_.faults.append("weights: bit flipped" if source.suffix == ".pt" else "pair: bit flipped")
            try:
                if not np.array_equal(read(copy), read(source)):
                    round_.note("wrong", f"a flipped bit in {source.name} was taken")
            except InputError:
                pass
    return round_


def soak(seconds: float, seed: int, wanted: int = 0) -> tuple[Counter, list[str]]:
    """Rounds for so long, or until so many faults; returns ends by kind of fault, and what must not be."""
    rng, counts, found = random.Random(seed), Counter(), []
    until = time.monotonic() + seconds
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        stage = Stage(Path(folder), rng)
        while time.monotonic() < until and (not wanted or sum(counts.values()) < wanted):
            round_ = rng.choice((inference_round, inference_round, inference_round, training_round, reading_round))(
                stage
            )
            counts.update((kind, "survived") for kind in round_.faults[1:])
            counts.update((kind, round_.end) for kind in round_.faults[:1])
            for detail in round_.details:
                print(f"{', '.join(round_.faults)}: {detail}", file=sys.stderr, flush=True)
            found += [f"{', '.join(round_.faults)}: {detail}" for detail in round_.details]
            print(f"{sum(counts.values())} faults, {len(found)} findings", file=sys.stderr, flush=True)
    return counts, found


def table(counts: Counter) -> str:
    """Rows of kinds of faults, columns of ends, in Markdown."""
    lines = ["| fault | injected | " + " | ".join(ENDS) + " |", "|---" * (len(ENDS) + 2) + "|"]
    for kind in (*sorted({kind for kind, _ in counts}), "all"):
        numbers = [
            sum(n for (one, end), n in counts.items() if end == wanted and kind in (one, "all")) for wanted in ENDS
        ]
        lines.append(f"| {kind} | {sum(numbers)} | " + " | ".join(map(str, numbers)) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--faults", type=int, default=0, help="end after so many; 0: when the time is over")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    counts, found = soak(60 * arguments.minutes, arguments.seed, arguments.faults)
    print(table(counts))
    print("\n".join(found))
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
