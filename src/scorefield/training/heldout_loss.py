"""The loss on held-out examples."""

from __future__ import annotations

import torch

from scorefield.core.noise import NoiseSource
from scorefield.data import Dataset, dequantize
from scorefield.models.foreign import model_like
from scorefield.objectives.base import Objective
from scorefield.runtime.distributed import Processes
from scorefield.training.batches import trained_arrays
from scorefield.training.training_options import TrainingOptions

__all__ = ["HeldOutLoss"]

_MOST, _SHARE = 512, 50  # examples at the most; of the examples between two checkpoints one in so many
_STEP = (
    2**63
)  # of the noise: training never gets there, so it draws the same with and without held-out examples


class HeldOutLoss:
    """Mean loss of held-out examples, the same ones and under the same noise at every call.

    The weights are the trained ones, in evaluation mode and without the random changes of training, so the loss
    compares with the training loss. Every process calls it, and gets the loss of the examples of all.
    """

    def __init__(
        self, data: Dataset, objective: Objective, options: TrainingOptions, processes: Processes
    ) -> None:
        """
        Args:
            data: Held-out examples, like those of training; at least as many as there are processes.
            objective: What is trained, before it is wrapped for several processes.
            options: Of the training.
            processes: Those that train.
        """
        self._data, self._objective, self._options, self._processes = data, objective, options, processes
        each = max(options.batch_size, options.checkpoint_every * options.batch_size // _SHARE)
        self.count = min(len(data), each, max(_MOST, processes.world))
        self.count -= self.count % processes.world
        self._chosen = torch.linspace(0, len(data) - 1, self.count).round().long()
        self._mine = torch.arange(self.count)[processes.rank :: processes.world]
        self._part = max(1, options.batch_size // (processes.world * options.accumulation))
        self._model = model_like(objective.model)
        self._arrays = trained_arrays(self._model, data)

    def __call__(self) -> float:
        total = torch.zeros((), dtype=torch.float64)
        self._objective.eval()
        try:
            with torch.set_grad_enabled(self._objective.differentiates):
                for positions in self._mine.split(self._part):
                    total += self._sum(positions)
        finally:
            self._objective.train()
        if self._processes.world > 1:
            total = total.to(self._processes.device)
            torch.distributed.all_reduce(total)
        return float(total) / self.count

    def _sum(self, positions: torch.Tensor) -> torch.Tensor:
        share = self._data.share(self._chosen[positions], positions)
        noise, device, spec = (
            NoiseSource(self._options.seed, positions, _STEP),
            self._processes.device,
            self._data.spec,
        )
        x0 = share.values if spec.bins is None else spec.from_bins(share.values)
        if self._options.dequantize:
            x0 = dequantize(share.values, noise.uniform(x0.shape), spec)
        x0 = x0.to(device)
        conditional = share.labels is not None and bool(self._model.num_classes)
        y = share.labels.to(device) if conditional and share.labels is not None else None
        arrays = self._model.conditioning(x0, {name: share.arrays[name].to(device) for name in self._arrays})
        return self._objective(x0, y, noise, **arrays).per_example.detach().double().sum().cpu()
