"""Training: the loop, the moving average, checkpoints and the run folder."""

from scorefield.store.run_folder import RunFolder
from scorefield.training.divergence import Diverged
from scorefield.training.speed import Speed, measure_speed
from scorefield.training.trainer import Trainer, TrainStep, train
from scorefield.training.training_options import TrainingOptions

__all__ = [
    "Diverged",
    "RunFolder",
    "Speed",
    "TrainStep",
    "Trainer",
    "TrainingOptions",
    "measure_speed",
    "train",
]
