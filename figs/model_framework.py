"""Draw figs/model_framework.png: training of the conditional 3D diffusion model, and how it denoises a volume.

All images are of one virtual patient; the noisy ones come from the process itself, the denoised one from the weights in
checkpoint/. Run from the repository's root: python figs/model_framework.py (about two minutes).
"""

from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch, Rectangle

from guided_diffusion.config import DiffusionConfig
from guided_diffusion.gaussian_diffusion import GaussianDiffusion
from guided_diffusion.inference import denoise_volume, load_model
from guided_diffusion.pet.grid import Volume
from guided_diffusion.pet.patches import plan_axial_patches
from guided_diffusion.simulation.trial import VirtualSubject, simulate

PATIENT = VirtualSubject("framework", 11, "fdg", "quadra", "test")
LOW_DOSE, WEIGHTS = 1 / 20, "checkpoint/demo_ddpm3d.pt"
CORONAL_PLANE = 46  # through liver, kidneys and spine
WINDOW, SUV_MAX = (0.0, 7.0), 16.0
SHOWN_STEPS = (9, 49, 999)
PATCH, OVERLAP = 96, 10
BLUE, ORANGE, TEXT = "#2b5b84", "#c8622a", "#222222"
HEIGHT, WIDTH = 3.5, 1.94  # of an image of the whole patient


def main() -> None:
    """Simulate the patient, denoise, and draw."""
    scan = simulate(PATIENT, "small", [LOW_DOSE])
    low, normal = scan.images[LOW_DOSE], scan.images[1.0]
    denoised = denoise_volume(Volume(low, scan.phantom.grid.affine()), load_model(WEIGHTS)).volume.data
    figure = plt.figure(figsize=(12, 7.1))
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, 24), ylim=(0, 14.2))
    axes.axis("off")
    draw_training(axes, plane(low), plane(normal))
    draw_inference(axes, plane(low), plane(denoised))
    figure.savefig(Path(__file__).with_suffix(".png"), dpi=140)


def plane(volume: np.ndarray) -> np.ndarray:
    """The coronal plane that is shown, head up and the patient's right on the viewer's left: [Z, Y] in SUV."""
    return volume[CORONAL_PLANE].T[::-1]


def noisy(image: np.ndarray, step: int, noise: np.ndarray) -> np.ndarray:
    """x_t of an image in SUV by the published process, in SUV again."""
    process = GaussianDiffusion(DiffusionConfig())
    scaled = torch.from_numpy(np.clip(image, 0, SUV_MAX) / SUV_MAX)[None]
    return SUV_MAX * process.q_sample(scaled, torch.tensor([step]), torch.from_numpy(noise)[None])[0].numpy()


def draw_training(axes: Axes, low: np.ndarray, normal: np.ndarray) -> None:
    """The upper half: noise is added to the normal dose and found by a network that also sees the low dose."""
    draw_panel(axes, 7.35, 6.6, "Training: a network learns the noise that was added, given the low dose")
    noise = np.random.default_rng(0).standard_normal(normal.shape).astype(np.float32)
    y, left = 9.0, 0.9
    draw_image(axes, normal, left, y, "normal dose $x_0$")
    for step in SHOWN_STEPS:
        draw_arrow(axes, (left + WIDTH + 0.06, y + HEIGHT / 2), (left + WIDTH + 0.52, y + HEIGHT / 2))
        left += WIDTH + 0.58
        draw_image(axes, noisy(normal, step, noise), left, y, f"$x_{{{step + 1}}}$", scale="noise")
    draw_text(axes, 5.7, 8.08, r"$x_t = \sqrt{\bar\alpha_t}\,x_0 + \sqrt{1-\bar\alpha_t}\,\varepsilon$,"
                               r"   $\varepsilon \sim N(0, 1)$", 13)  # fmt: skip
    draw_image(axes, low, 12.0, y, "low dose $c$")
    draw_arrow(axes, (left + WIDTH + 0.06, y + 0.4), (15.3, y + 0.4), curve=0.24)
    draw_text(axes, 12.97, 8.08, "both as channels", 11)
    draw_arrow(axes, (12.0 + WIDTH + 0.06, y + HEIGHT / 2), (15.3, y + HEIGHT / 2))
    draw_network(axes, 15.4, y + 0.15, "3D UNet")
    draw_text(axes, 17.5, 8.08, "halves the plane with each\nlevel, never the axial length", 11)
    draw_arrow(axes, (19.6, y + HEIGHT / 2), (20.7, y + HEIGHT / 2))
    draw_image(axes, noise, 20.8, y, r"$\hat\varepsilon(x_t, c, t)$", scale="unit")
    draw_text(axes, 21.77, 8.08, r"loss $\|\varepsilon-\hat\varepsilon\|^2$", 13)


def draw_inference(axes: Axes, low: np.ndarray, denoised: np.ndarray) -> None:
    """The lower half: axial patches, a chain of steps for each, stitching."""
    draw_panel(axes, 0.25, 6.85, "Denoising: axial patches over MPI ranks, a chain of steps each, stitched")
    y, slices = 1.85, low.shape[0]
    draw_image(axes, low, 0.9, y, "low dose")
    plan = plan_axial_patches(slices, PATCH, OVERLAP)
    draw_text(axes, 1.9, 0.9, f"patches of {PATCH} slices,\n{OVERLAP} or more shared", 11)
    noise = np.random.default_rng(1).standard_normal(low.shape).astype(np.float32)
    for number, start in enumerate(plan.starts):
        rows = slice(slices - start - PATCH, slices - start)
        shift = 0.08 * (number - 1)
        bottom, height = y + HEIGHT * start / slices, HEIGHT * PATCH / slices
        frame = Rectangle((0.9 - 0.12 + shift, bottom), WIDTH + 0.24, height, fill=False, ec=BLUE, lw=1.6, zorder=4)
        axes.add_patch(frame)
        middle = 2.2 + 1.5 * number
        draw_arrow(axes, (1.15 + WIDTH, bottom + height / 2), (3.85, middle))
        draw_chain(axes, (low[rows], noise[rows], denoised[rows]), 3.95, middle)
        draw_arrow(axes, (15.75, middle), (17.35, y + HEIGHT * (start + PATCH / 2) / slices))
    draw_text(axes, 4.95, 0.9, "condition $c$", 11)
    draw_text(axes, 7.55, 0.9, "$x_T$: noise", 11)
    draw_text(axes, 11.1, 0.9, "1000 steps as published,\nor few (--sampler)", 11)
    draw_text(axes, 14.75, 0.9, "$x_0$", 13)
    draw_image(axes, denoised, 17.5, y, "denoised")
    draw_text(axes, 18.5, 0.9, "blended linearly, or\nagreeing at each step", 11)
    draw_text(axes, 22.0, 4.3, "K realisations", 13)
    draw_text(axes, 22.0, 3.2, "their mean, and their\nstandard deviation:\nthe uncertainty", 11)
    draw_arrow(axes, (17.6 + WIDTH, 3.6), (20.3, 3.6))


def draw_chain(axes: Axes, patch: Sequence[np.ndarray], left: float, middle: float) -> None:
    """A patch of the low dose and of noise, the network with its loop, and the patch of the result."""
    low, noise, result = patch
    height, width = 1.2, 1.8
    for image, place, scale in ((low, left, "suv"), (noise, left + 2.65, "unit"), (result, left + 9.85, "suv")):
        axes.imshow(image, cmap="gray_r", extent=(place, place + width, middle - height / 2, middle + height / 2),
                    vmin=window_of(scale)[0], vmax=window_of(scale)[1], aspect="auto", zorder=2)  # fmt: skip
        frame = Rectangle((place, middle - height / 2), width, height, fill=False, ec=BLUE, lw=1.2, zorder=3)
        axes.add_patch(frame)
    draw_text(axes, left + width + 0.41, middle, "+", 16)
    draw_arrow(axes, (left + 4.55, middle), (left + 5.25, middle))
    box = Rectangle((left + 5.3, middle - 0.5), 3.7, 1.0, fc="#f4e3d8", ec=ORANGE, lw=1.4)
    axes.add_patch(box)
    draw_text(axes, left + 7.15, middle, r"$x_t,\ c,\ t\ \rightarrow\ x_{t-1}$", 13)
    draw_arrow(axes, (left + 8.7, middle + 0.5), (left + 5.6, middle + 0.5), curve=0.28)
    draw_arrow(axes, (left + 9.05, middle), (left + 9.8, middle))


def draw_network(axes: Axes, left: float, bottom: float, title: str) -> None:
    """A UNet as blocks: the higher, the finer in the plane."""
    heights = (3.2, 2.4, 1.6, 0.9, 1.6, 2.4, 3.2)
    for number, height in enumerate(heights):
        place = (left + 0.6 * number, bottom + (3.2 - height) / 2)
        axes.add_patch(Rectangle(place, 0.42, height, fc="#f4e3d8", ec=ORANGE, lw=1.4))
    draw_text(axes, left + 2.0, bottom + 3.55, title, 13)


def draw_panel(axes: Axes, bottom: float, height: float, title: str) -> None:
    axes.add_patch(Rectangle((0.25, bottom), 23.5, height, fc="#f7f8fa", ec="#c9ced6", lw=1.0, zorder=0))
    axes.text(0.6, bottom + height - 0.5, title, fontsize=14, weight="bold", color=TEXT, va="center")


def window_of(scale: str) -> tuple[float, float]:
    """Grey levels of an image in SUV, of one in SUV with the noise of the process, of noise of unit variance."""
    return {"suv": WINDOW, "noise": (-4.0, WINDOW[1] + 4.0), "unit": (-3.0, 3.0)}[scale]


def draw_image(axes: Axes, image: np.ndarray, left: float, bottom: float, title: str, scale: str = "suv") -> None:
    low, high = window_of(scale)
    place = (left, left + WIDTH, bottom, bottom + HEIGHT)
    axes.imshow(image, cmap="gray_r", vmin=low, vmax=high, extent=place, aspect="auto", zorder=2)
    axes.add_patch(Rectangle((left, bottom), WIDTH, HEIGHT, fill=False, ec="#888888", lw=0.8, zorder=3))
    draw_text(axes, left + WIDTH / 2, bottom + HEIGHT + 0.3, title, 12)


def draw_text(axes: Axes, x: float, y: float, text: str, size: float) -> None:
    axes.text(x, y, text, fontsize=size, color=TEXT, ha="center", va="center")


def draw_arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], curve: float = 0.0) -> None:
    arc = f"arc3,rad={curve}"
    axes.add_patch(
        FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=13, lw=1.4, color=BLUE, connectionstyle=arc,
                        zorder=4, shrinkA=0, shrinkB=0)
    )  # fmt: skip


if __name__ == "__main__":
    main()
