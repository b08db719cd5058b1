"""The paper's 3D GAN: the regression network as generator, and a 3D patch discriminator that also sees the low dose.

Isola et al., Image-to-image translation with conditional adversarial networks (CVPR 2017), "pix2pix", with the
least-squares loss of Mao et al., Least squares generative adversarial networks (ICCV 2017), instead of cross-entropy.
Checkpoints contain only the generator, like those of `unet3d`; the discriminator is stored with the optimiser.
"""

import torch
from torch import Tensor, nn

from guided_diffusion.config import DiffusionConfig
from guided_diffusion.gaussian_diffusion import mean_flat
from guided_diffusion.interfaces import Examples, Objective
from guided_diffusion.methods.unet3d import UNet3D, UNet3DRegression
from guided_diffusion.nn import GroupNorm32

L1_WEIGHT = 100.0
"""Of the absolute error in the network's units against the adversarial loss, as in pix2pix."""
WIDTHS = (32, 64, 128)
"""Channels of the discriminator's hidden layers."""
SLOPE = 0.2  # of the leaky ReLU below 0, as in pix2pix


class PatchDiscriminator(nn.Module):
    """Scores every region of 23 x 23 x 23 voxels as normal dose or network output.

    Two layers of stride 2 and two of stride 1, with kernels of 3, instead of pix2pix's five layers of 4 x 4, since
    crops have few slices. scale: factor on the images, as on the generator's input. forward: image and low_dose [N, 1,
    Z, X, Y] normalised -> scores [N, 1, Z/4, X/4, Y/4], rounded up.
    """

    def __init__(self, scale: float):
        super().__init__()
        self.scale = scale
        first, second, third = WIDTHS
        self.layers = nn.Sequential(
            nn.Conv3d(2, first, 3, stride=2, padding=1),
            nn.LeakyReLU(SLOPE),
            nn.Conv3d(first, second, 3, stride=2, padding=1),
            GroupNorm32(second),
            nn.LeakyReLU(SLOPE),
            nn.Conv3d(second, third, 3, padding=1),
            GroupNorm32(third),
            nn.LeakyReLU(SLOPE),
            nn.Conv3d(third, 1, 3, padding=1),
        )

    def forward(self, image: Tensor, low_dose: Tensor) -> Tensor:
        return self.layers(self.scale * torch.cat([image, low_dose], dim=1)).float()


def generator_losses(network: nn.Module, discriminator: PatchDiscriminator, examples: Examples) -> dict[str, Tensor]:
    """The generator's terms, each [N]: "l1" in the network's units, "adversarial" (Mao et al., with 0 and
    1 as labels), "loss"."""
    image = _generated(network, examples)
    l1 = discriminator.scale * mean_flat((image - examples.normal_dose).abs())
    adversarial = 0.5 * mean_flat((discriminator(image, examples.low_dose) - 1).square())
    return {"loss": L1_WEIGHT * l1 + adversarial, "l1": l1, "adversarial": adversarial}


def discriminator_losses(discriminator: nn.Module, generator: nn.Module, examples: Examples) -> dict[str, Tensor]:
    """The discriminator's loss [N] (Mao et al.): 1 for normal doses, 0 for the generator's images."""
    with torch.no_grad():
        image = _generated(generator, examples)
    real = discriminator(examples.normal_dose, examples.low_dose)
    generated = discriminator(image, examples.low_dose)
    return {"loss": 0.5 * (mean_flat((real - 1).square()) + mean_flat(generated.square()))}


def _generated(network: nn.Module, examples: Examples) -> Tensor:
    """The network's images of the low doses, [N, 1, Z, X, Y]."""
    return network(examples.normal_dose, examples.timesteps, low_res=examples.low_dose)


class GAN3D(UNet3DRegression):
    """`unet3d` trained against a discriminator besides the L1 distance; denoising is the same single call."""

    name = "gan3d"
    terms = ("l1", "adversarial", "discriminator_loss")

    def objectives(self, network: UNet3D, diffusion: DiffusionConfig) -> tuple[Objective, ...]:  # noqa: ARG002
        """The generator's objective, then the discriminator's."""
        discriminator = PatchDiscriminator(network.config.low_res_scale).to(next(network.parameters()).device)
        return (
            Objective(self.name, network, lambda model, examples: generator_losses(model, discriminator, examples)),
            Objective(
                "discriminator",
                discriminator,
                lambda model, examples: discriminator_losses(model, network, examples),
            ),
        )


METHOD = GAN3D()
