"""Draw figs/trial_mip_sheet.png: coronal MIPs of the virtual trial, tracers x scanners, at normal and 1/20 dose.

Every row is one virtual patient with one tracer on four scanners, so that a row differs by scanner and dose alone.
Run from the repository's root: python figs/trial_mip_sheet.py (about five minutes).
"""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from tqdm import tqdm

from guided_diffusion.simulation.scanner import load_scanners
from guided_diffusion.simulation.tracers import load_tracers
from guided_diffusion.simulation.trial import VirtualSubject, simulate

LOW_DOSE = 1 / 20
WINDOW_SUV = {"fdg": 7.0, "psma": 15.0, "dotatate": 15.0, "fapi": 5.0}
SEEDS = {"fdg": 11, "psma": 12, "dotatate": 13, "fapi": 14}


def main() -> None:
    """Simulate the 16 examinations and save the sheet."""
    tracers, scanners = load_tracers(), load_scanners()
    figure, axes = plt.subplots(len(tracers), 2 * len(scanners), figsize=(17, 17), layout="constrained", squeeze=False)
    progress = tqdm(total=len(tracers) * len(scanners), disable=None)
    for number, (row, tracer) in enumerate(zip(axes, tracers.values(), strict=True)):
        for pair, scanner in zip(row.reshape(-1, 2), scanners.values(), strict=True):
            subject = VirtualSubject("sheet", SEEDS[tracer.name], tracer.name, scanner.name, "test")
            scan = simulate(subject, "small", [LOW_DOSE])
            for axis, dose, title in zip(pair, (1.0, LOW_DOSE), ("normal dose", "1/20"), strict=True):
                mip = scan.images[dose].max(axis=0)
                shown = axis.imshow(mip.T, origin="lower", cmap="gray_r", vmin=0, vmax=WINDOW_SUV[tracer.name])
                axis.set(xticks=[], yticks=[])
                if number == 0:
                    axis.set_title(f"{scanner.title}\n{title}", fontsize=8)
            progress.update()
        row[0].set_ylabel(tracer.title, fontsize=11)
        figure.colorbar(shown, ax=list(row), label="SUV", shrink=0.8, pad=0.01)
    figure.savefig(Path(__file__).with_suffix(".png"), dpi=80)


if __name__ == "__main__":
    main()
