"""The options of training, declared once: keywords of `sf.train` and the [training] table of recipes."""

from __future__ import annotations

from typing import Annotated, Literal, TypedDict

from pydantic import Field

from scorefield.runtime.bounds import COUNT, SIDE, SIZE
from scorefield.runtime.parsing import Options

__all__ = ["TrainingKeywords", "TrainingOptions"]

Positive = Annotated[int, Field(ge=1, le=COUNT)]


class TrainingOptions(Options):
    """AdamW with warm-up, clipping and a moving average. Learning rate and average depend on optimizer steps,
    never on time.
    """

    steps: Positive = Field(10_000, description="optimizer steps in all")
    batch_size: int = Field(
        64, ge=1, le=SIZE, description="examples per step, over all processes and accumulated parts"
    )
    accumulation: Positive = Field(1, description="parts that a batch is cut into, to save memory")
    shard: bool = Field(
        False,
        description="cut weights, averages and the optimizer's moments into a piece for each process (FSDP2)",
    )
    lr: float = Field(2e-4, gt=0, description="learning rate of AdamW, after the warm-up")
    warmup: int = Field(0, ge=0, le=COUNT, description="steps over which the learning rate rises from 0")
    anneal: bool = Field(
        False, description="lower the learning rate linearly, to 0 after the last of `steps`"
    )
    weight_decay: float = Field(0.0, ge=0, description="weight decay of AdamW")
    beta2: float = Field(0.999, ge=0, lt=1, description="second-moment decay β2 of AdamW")
    clip: float = Field(1.0, ge=0, description="largest gradient norm; 0 does not clip")
    ema: float = Field(0.9999, ge=0, lt=1, description="decay of the moving average of the weights")
    precision: Literal["auto", "bf16", "fp32"] = Field(
        "auto", description="of the network; auto: bf16 where the hardware multiplies it"
    )
    compile: bool = Field(False, description="have torch.compile compile the network")
    flip: bool = Field(False, description="mirror half of the images left to right")
    shift: int = Field(
        0,
        ge=0,
        le=SIDE,
        description="move images by up to this many pixels each way; their edges are repeated",
    )
    label_dropout: float = Field(
        0.0, ge=0, lt=1, description="share of labels dropped, for classifier-free guidance"
    )
    dequantize: bool = Field(False, description="add uniform noise of one level's width to integer data")
    seed: int = Field(
        0, ge=0, lt=2**64, description="seed for weight initialisation, data order, noise and dropout"
    )
    log_every: Positive = Field(50, description="steps between lines of metrics.jsonl")
    checkpoint_every: Positive = Field(1000, description="steps between checkpoints")
    checkpoint_minutes: float = Field(
        15.0, ge=0, description="minutes after which one is saved earlier, where steps take long; 0 for none"
    )
    keep: Positive = Field(2, description="checkpoints kept, the newest ones")
    keep_every: int = Field(
        0,
        ge=0,
        le=COUNT,
        description="of the steps divisible by this, checkpoints are kept for good; 0 for none",
    )
    bad_steps: Positive = Field(
        5, description="steps in a row whose loss or gradient is not finite that count as divergence"
    )
    on_divergence: Literal["stop", "rollback"] = Field(
        "stop", description="rollback: go on from the last good checkpoint"
    )
    rollback_lr: float = Field(0.5, gt=0, le=1, description="factor on the learning rate at each such return")
    sample_every: int = Field(
        0, ge=0, le=COUNT, description="steps between preview pictures of the command; 0 for none"
    )
    trackers: list[str] = Field([], description='Accelerate\'s trackers, for example ["tensorboard"]')


class TrainingKeywords(TypedDict, total=False):
    """TrainingOptions as keywords, for type checkers; a test keeps the two the same."""

    steps: int
    batch_size: int
    accumulation: int
    shard: bool
    lr: float
    warmup: int
    anneal: bool
    weight_decay: float
    beta2: float
    clip: float
    ema: float
    precision: Literal["auto", "bf16", "fp32"]
    compile: bool
    flip: bool
    shift: int
    label_dropout: float
    dequantize: bool
    seed: int
    log_every: int
    checkpoint_every: int
    checkpoint_minutes: float
    keep: int
    keep_every: int
    bad_steps: int
    on_divergence: Literal["stop", "rollback"]
    rollback_lr: float
    sample_every: int
    trackers: list[str]
