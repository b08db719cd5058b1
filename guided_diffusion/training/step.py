"""One training step: timesteps, gradients over micro-batches and ranks, and the optimiser.

Timesteps and dropout are identified by (seed, step, item), where items are numbered over all ranks. So N ranks compute
the gradient that one rank computes from the N-fold batch, up to rounding, dropout, and noise that a loss draws itself;
the latter two are drawn per rank.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn

from guided_diffusion.dist_util import communicator, raise_together
from guided_diffusion.errors import InputError
from guided_diffusion.interfaces import Examples, without_margin
from guided_diffusion.losses import WEIGHTINGS
from guided_diffusion.methods.registry import METHODS
from guided_diffusion.noise import Stream, generator
from guided_diffusion.resample import create_named_schedule_sampler
from guided_diffusion.training.batches import Batch
from guided_diffusion.training.optimised import OptimisedNetwork, Weigh
from guided_diffusion.training.ranks import gathered
from guided_diffusion.training.settings import OptimisationFlags, TrainSettings


def items_of_rank(batch_size: int) -> range:
    """The item numbers of a step that this rank trains on."""
    first = communicator().rank * batch_size
    return range(first, first + batch_size)


def learning_rate(options: OptimisationFlags, step: int) -> float:
    """Of the step after `step` steps: the published linear descent to 0, after an optional linear ascent."""
    rate = options.lr
    if options.lr_anneal_steps:
        rate *= 1 - step / options.lr_anneal_steps
    if step < options.lr_warmup_steps:
        rate *= (step + 1) / options.lr_warmup_steps
    return rate


class TrainStep:
    """Everything that changes `model` (float32, on its device) and any further networks of its method.

    All ranks build and call it alike.
    """

    def __init__(self, settings: TrainSettings, model: nn.Module):
        self.settings = settings
        self.device = next(model.parameters()).device
        options = settings.optimisation
        method = METHODS[options.method]
        self._margin = method.margin(settings.model)
        self._weighting = WEIGHTINGS[options.loss_weighting]
        self.items = items_of_rank(options.batch_size)
        self._steps = method.create_process(settings.diffusion).num_timesteps
        self.schedule_sampler = create_named_schedule_sampler(options.schedule_sampler, self._steps)
        # Names the first weights of whatever else the method trains.
        torch.manual_seed(options.seed)
        objectives = method.objectives(model, settings.diffusion)
        self.networks = [OptimisedNetwork(objective, settings, self.device) for objective in objectives]
        for trained in self.networks:
            self._train_alone(trained)
            trained.rehearse(self._nothing())
            trained.refuse_wrong_gradients()

    def _nothing(self) -> Examples:
        """An example of few voxels."""
        size = max(2 * self.settings.model.in_plane_multiple, 8)
        crop = torch.zeros(1, 1, 8 + 2 * self._margin, size, size, device=self.device)
        inner = without_margin(crop, self._margin)
        timestep = torch.zeros(1, dtype=torch.int64, device=self.device)
        return Examples(crop, inner, inner, timestep, torch.tensor([[0.5, 1.0]], device=self.device))

    def _train_alone(self, trained: OptimisedNetwork) -> None:
        """Restrict gradients to this network."""
        for other in self.networks:
            other.let_gradients_in(other is trained)

    def take(self, batch: Batch, step: int) -> dict[str, float]:
        """Do one training step after `step` steps. Returns its losses and norms as means over the items of all ranks.

        Raises InputError on every rank if a loss or its gradient is not finite.
        """
        options = self.settings.optimisation
        rate = learning_rate(options, step)
        torch.manual_seed(int(generator(options.seed, Stream.DROPOUT, step, self.items[0]).integers(2**63)))
        timesteps, weights = self._draw_timesteps(step)
        normal_dose = without_margin(batch.normal_dose, self._margin)
        noise = batch.noise if batch.noise is None else without_margin(batch.noise, self._margin)
        examples = Examples(batch.low_dose, normal_dose, noise, timesteps, batch.reference)
        report: dict[str, float] = {}
        for trained in self.networks:
            self._train_alone(trained)
            terms = trained.accumulate_gradients(examples, self._weigh(weights))
            terms, norm = _on_host(terms, trained.gradient_norm())
            drawn, terms = _over_ranks(timesteps, terms)
            finite = terms["loss"].isfinite()
            self._require_finite(bool(finite.all()), trained, "loss", step)
            self._require_finite(math.isfinite(norm), trained, "gradient", step)
            trained.advance(rate)
            if trained is self.networks[0]:
                self.schedule_sampler.update(drawn[finite], terms["loss"][finite])
                report = self._summary(drawn, terms) | {"grad_norm": norm, "lr": rate}
            else:
                report |= {f"{trained.name}_{name}": values.mean().item() for name, values in terms.items()}
        return report

    def _weigh(self, weights: Tensor) -> Weigh:
        """Returns the function that gives examples' weights: those of the drawn timesteps, times those of the crops."""

        def weigh(part: slice, examples: Examples) -> Tensor:
            low_dose = without_margin(examples.low_dose, self._margin)
            return weights[part].to(self.device, non_blocking=True) * self._weighting(low_dose, examples.normal_dose)

        return weigh

    def _require_finite(self, finite: bool, trained: OptimisedNetwork, what: str, step: int) -> None:
        """Raises InputError, on every rank, for an overflow without a loss scale, which alone could correct it."""
        if not finite and not trained.scaler.is_enabled():
            folder = self.settings.run.save_dir
            raise_together(
                InputError(f"{folder}: the {what} of step {step} is not finite; lower --lr or set --grad_clip")
            )

    def _draw_timesteps(self, step: int) -> tuple[Tensor, Tensor]:
        """Timesteps and loss weights of this rank's items, each [N]."""
        seed = self.settings.optimisation.seed
        draws = [self.schedule_sampler.sample(1, generator(seed, Stream.TIMESTEP, step, item)) for item in self.items]
        timesteps, weights = (torch.cat(values) for values in zip(*draws, strict=True))
        return timesteps, weights

    def _summary(self, timesteps: Tensor, terms: dict[str, Tensor]) -> dict[str, float]:
        """Mean terms, and the mean loss of every quartile of timesteps that was drawn."""
        quartiles = 4 * timesteps // self._steps
        means = {f"loss_q{q}": terms["loss"][quartiles == q].mean().item() for q in quartiles.unique().tolist()}
        return {name: values.mean().item() for name, values in terms.items()} | means

    def state_dict(self) -> dict[str, Any]:
        """State needed to continue, besides the weights of `model`; includes the weights of further networks."""
        model, *others = self.networks
        state = model.state_dict() | {"schedule_sampler": self.schedule_sampler.state_dict()}
        if others:
            state["further"] = {
                other.name: other.state_dict() | {"weights": other.network.state_dict()} for other in others
            }
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`. Current flags take precedence over the saved settings."""
        model, *others = self.networks
        model.load_state_dict(state)
        for other in others:
            saved = state["further"][other.name]
            other.load_state_dict(saved)
            other.network.load_state_dict(saved["weights"])
        if state["schedule_sampler"]:  # empty where the run did without it until now
            self.schedule_sampler.load_state_dict(state["schedule_sampler"])


def _on_host(terms: dict[str, Tensor], norm: Tensor) -> tuple[dict[str, Tensor], float]:
    """Terms [N] and the gradient's norm in float64. The host waits for the device here, and only once in a step."""
    rows = torch.stack([*terms.values(), norm.expand_as(terms["loss"])]).double().cpu()
    return dict(zip(terms, rows[:-1], strict=True)), rows[-1, 0].item()


def _over_ranks(timesteps: Tensor, terms: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """Timesteps and terms of the items of all ranks, in the order of the items; each [ranks x N]."""
    columns = torch.stack([timesteps.double(), *terms.values()], dim=1)
    columns = gathered(columns).flatten(0, 1).unbind(1)
    return columns[0].long(), dict(zip(terms, columns[1:], strict=True))
