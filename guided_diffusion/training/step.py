"""One step of training: timesteps, gradients over micro-batches and ranks, and the optimiser.

Timesteps and dropout are named by (seed, step, item), items being numbered over all ranks. So N ranks compute the
gradient that one rank computes from the N-fold batch, up to rounding, and up to dropout, which is drawn per rank.
"""

import math
from collections import defaultdict
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from guided_diffusion.dist_util import communicator, raise_together
from guided_diffusion.errors import InputError
from guided_diffusion.losses import WEIGHTINGS
from guided_diffusion.methods.registry import METHODS
from guided_diffusion.noise import Stream, generator
from guided_diffusion.resample import create_named_schedule_sampler
from guided_diffusion.training.batches import Batch
from guided_diffusion.training.ranks import data_parallel, gathered
from guided_diffusion.training.settings import OptimisationFlags, TrainSettings
from guided_diffusion.unet import UNetModel


def items_of_rank(batch_size: int) -> range:
    """Which items of a step this rank trains on."""
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
    """Everything that changes `model`, which is in float32 on its device.

    Built and called by all ranks alike. The weights of all of them begin as rank 0's and stay equal.
    """

    def __init__(self, settings: TrainSettings, model: UNetModel):
        self.settings = settings
        self.model = model.train()
        self.device = next(model.parameters()).device
        options = settings.optimisation
        self.diffusion = METHODS[options.method].create_process(settings.diffusion, None)
        self._weighting = WEIGHTINGS[options.loss_weighting]
        self.items = items_of_rank(options.batch_size)
        self.schedule_sampler = create_named_schedule_sampler(options.schedule_sampler, self.diffusion.num_timesteps)
        self.optimiser = torch.optim.AdamW(
            model.parameters(), lr=options.lr, weight_decay=options.weight_decay, fused=True
        )
        # The published rule: the scale's binary logarithm grows every step and falls by one at an overflow.
        self.scaler = torch.amp.GradScaler(
            self.device.type,
            init_scale=2.0**20,
            growth_factor=2.0**options.fp16_scale_growth,
            backoff_factor=0.5,
            growth_interval=1,
            enabled=settings.model.use_fp16,
        )
        self._network = data_parallel(model)
        if self._network is not model:
            self._rehearse()

    def _rehearse(self) -> None:
        """A backward pass that changes nothing, after which gradients are summed in their final order.

        DistributedDataParallel groups the gradients anew after its first backward pass. That would round the first step
        of a continued run differently from the same step of a run that was never interrupted.
        """
        size = 2 * self.settings.model.in_plane_multiple
        nothing = torch.zeros(1, 1, 1, size, size, device=self.device)
        first = torch.zeros(1, dtype=torch.int64, device=self.device)
        self._losses(nothing, nothing, first, nothing)["loss"].backward()
        self.optimiser.zero_grad(set_to_none=True)

    def take(self, batch: Batch, step: int) -> dict[str, float]:
        """The step after `step` steps. Returns what there is to report of it: means over the items of all ranks.

        Raises InputError, on every rank, where the loss or its gradient is not finite.
        """
        options = self.settings.optimisation
        rate = learning_rate(options, step)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        torch.manual_seed(int(generator(options.seed, Stream.DROPOUT, step, self.items[0]).integers(2**63)))
        timesteps, weights = self._draw_timesteps(step)
        terms = self._accumulate_gradients(batch, timesteps, weights)
        timesteps, terms = _over_ranks(timesteps, terms)
        finite = terms["loss"].isfinite()
        self._require_finite(bool(finite.all()), "loss", step)
        self.schedule_sampler.update(timesteps[finite], terms["loss"][finite])
        self.scaler.unscale_(self.optimiser)
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), options.grad_clip or math.inf).item()
        self._require_finite(math.isfinite(norm), "gradient", step)
        self.scaler.step(self.optimiser)
        self.scaler.update()
        self.optimiser.zero_grad(set_to_none=True)
        return self._summary(timesteps, terms) | {"grad_norm": norm, "lr": rate}

    def _require_finite(self, finite: bool, what: str, step: int) -> None:
        """Without a loss scale there is no way on from an overflow."""
        if not finite and not self.scaler.is_enabled():
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

    def _accumulate_gradients(self, batch: Batch, timesteps: Tensor, weights: Tensor) -> dict[str, Tensor]:
        """Gradients of the mean weighted loss over micro-batches and ranks. Returns this rank's terms [N] of the loss.

        The ranks' gradients are averaged once, during the last micro-batch.
        """
        count = len(timesteps)
        size = self.settings.optimisation.microbatch
        parts = torch.arange(count).split(size if size > 0 else count)
        collected: dict[str, list[Tensor]] = defaultdict(list)
        for number, part in enumerate(parts, start=1):
            low_dose, normal_dose, noise, t = (
                values[part].to(self.device) for values in (batch.low_dose, batch.normal_dose, batch.noise, timesteps)
            )
            with self._without_averaging() if number < len(parts) else nullcontext():
                terms = self._losses(low_dose, normal_dose, t, noise)
                weighted = terms["loss"] * weights[part].to(self.device) * self._weighting(low_dose, normal_dose)
                self.scaler.scale(weighted.sum() / count).backward()
            for name, values in terms.items():
                collected[name].append(values.detach())
        return {name: torch.cat(values).cpu() for name, values in collected.items()}

    def _losses(self, low_dose: Tensor, normal_dose: Tensor, t: Tensor, noise: Tensor) -> dict[str, Tensor]:
        """The terms of the loss [N], in the precision of the settings: the one place that knows what is trained."""
        half = torch.float16 if self.settings.model.use_fp16 else torch.bfloat16
        reduced = self.settings.model.use_fp16 or self.settings.optimisation.precision == "bfloat16"
        with torch.autocast(self.device.type, half, enabled=reduced):
            return self.diffusion.training_losses(self._network, normal_dose, t, {"low_res": low_dose}, noise)

    def _without_averaging(self) -> AbstractContextManager:
        """Within the block gradients stay on their rank."""
        return nullcontext() if self._network is self.model else self._network.no_sync()

    def _summary(self, timesteps: Tensor, terms: dict[str, Tensor]) -> dict[str, float]:
        """Mean terms, and the mean loss of every quartile of timesteps that was drawn."""
        quartiles = 4 * timesteps // self.diffusion.num_timesteps
        means = {f"loss_q{q}": terms["loss"][quartiles == q].mean().item() for q in quartiles.unique().tolist()}
        return {name: values.mean().item() for name, values in terms.items()} | means

    def state_dict(self) -> dict[str, Any]:
        """What continuing takes besides the weights."""
        return {
            "optimiser": self.optimiser.state_dict(),
            "scaler": self.scaler.state_dict(),
            "schedule_sampler": self.schedule_sampler.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`. What the flags say now goes before what they were."""
        optimiser = state["optimiser"]
        # Moments saved by the plain implementation serve the fused one too.
        ours = {"fused": True, "foreach": None, "weight_decay": self.settings.optimisation.weight_decay}
        groups = [group | ours for group in optimiser["param_groups"]]
        self.optimiser.load_state_dict(optimiser | {"param_groups": groups})
        for part, saved in ((self.scaler, state["scaler"]), (self.schedule_sampler, state["schedule_sampler"])):
            if saved:  # empty where the run did without it until now
                part.load_state_dict(saved)


def _over_ranks(timesteps: Tensor, terms: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """Timesteps and terms of the items of all ranks, in the order of the items; each [ranks x N]."""
    columns = torch.stack([timesteps.double(), *(values.double() for values in terms.values())], dim=1)
    columns = gathered(columns).flatten(0, 1).unbind(1)
    return columns[0].long(), dict(zip(terms, columns[1:], strict=True))
