"""Training: the loop, the moving average, checkpoints and the run folder."""

from scorefield.store.run_folder import RunFolder
from scorefield.training.divergence import Diverged
from scorefield.training.options import TrainingOptions
from scorefield.training.trainer import Trainer, TrainStep, train

__all__ = ["Diverged", "RunFolder", "TrainStep", "Trainer", "TrainingOptions", "train"]
