"""The options of training, declared once: keywords of `sf.train` and the [training] table of recipes."""

from __future__ import annotations

from typing import Annotated, Literal, TypedDict

from pydantic import Field, field_validator

from scorefield.runtime.bounds import COUNT, SIDE, SIZE
from scorefield.runtime.parsing import Options
from scorefield.training.power_profiles import LONGEST, SHORTEST

__all__ = ["TrainingKeywords", "TrainingOptions"]

Positive = Annotated[int, Field(ge=1, le=COUNT)]


class TrainingOptions(Options):
    """AdamW with warm-up, clipping and a moving average. Learning rate and average depend on optimizer steps,
    never on time.
    """

    steps: Positive = Field(10_000, description="total number of optimizer steps")
    batch_size: int = Field(
        64, ge=1, le=SIZE, description="examples per step, over all processes and microbatches"
    )
    accumulation: Positive = Field(
        1, description="number of microbatches per step (gradient accumulation), to save memory"
    )
    shard: bool = Field(
        False,
        description="shard parameters, their EMA and the optimizer state across processes (FSDP2)",
    )
    lr: float = Field(2e-4, gt=0, description="learning rate of AdamW, after the warm-up")
    warmup: int = Field(
        0, ge=0, le=COUNT, description="warm-up steps, over which the learning rate rises linearly from 0"
    )
    lr_reference: int = Field(
        0,
        ge=0,
        le=COUNT,
        description="step after which the learning rate falls as 1/√step; 0 disables this",
    )
    anneal: bool = Field(
        False, description="lower the learning rate linearly, to 0 after the last of `steps`"
    )
    weight_decay: float = Field(0.0, ge=0, description="weight decay of AdamW")
    beta2: float = Field(0.999, ge=0, lt=1, description="second-moment decay β2 of AdamW")
    clip: float = Field(1.0, ge=0, description="maximum gradient norm; 0 disables clipping")
    ema: float = Field(
        0.9999, ge=0, lt=1, description="decay of the exponential moving average (EMA) of the weights"
    )
    ema_profiles: list[float] = Field(
        [],
        max_length=8,
        description="lengths σ_rel of power-function averages that are stored beside the EMA, such as [0.05, 0.1]; `scorefield "
        "ema` makes one of any length of them",
    )
    ema_every: int = Field(
        0,
        ge=0,
        le=COUNT,
        description="steps between stored averages of `ema_profiles`, each as large as the model; 0: `checkpoint_every`",
    )
    precision: Literal["auto", "bf16", "fp32"] = Field(
        "auto", description="precision of the network; auto: bf16 if the hardware multiplies it"
    )
    compile: bool = Field(False, description="compile the network with torch.compile")
    flip: bool = Field(False, description="flip images horizontally with probability ½")
    shift: int = Field(
        0,
        ge=0,
        le=SIDE,
        description="shift images by up to this many pixels in each direction; edge pixels are repeated",
    )
    label_dropout: float = Field(
        0.0, ge=0, lt=1, description="probability of dropping a label, for classifier-free guidance"
    )
    dequantize: bool = Field(False, description="add uniform noise of the width of one level to integer data")
    seed: int = Field(
        0, ge=0, lt=2**64, description="seed for weight initialisation, data order, noise and dropout"
    )
    log_every: Positive = Field(50, description="steps between lines of metrics.jsonl")
    checkpoint_every: Positive = Field(1000, description="steps between checkpoints")
    checkpoint_minutes: float = Field(
        15.0, ge=0, description="maximum minutes between checkpoints; 0 disables this limit"
    )
    keep: Positive = Field(2, description="number of newest checkpoints kept")
    keep_every: int = Field(
        0,
        ge=0,
        le=COUNT,
        description="checkpoints of steps divisible by this are never deleted; 0 disables this",
    )
    bad_steps: Positive = Field(
        5, description="consecutive steps with a non-finite loss or gradient that count as divergence"
    )
    on_divergence: Literal["stop", "rollback"] = Field(
        "stop", description="on divergence stop, or roll back to the last good checkpoint and continue"
    )
    rollback_lr: float = Field(0.5, gt=0, le=1, description="factor on the learning rate at each rollback")
    sample_every: int = Field(
        0, ge=0, le=COUNT, description="steps between preview images of `scorefield train`; 0 disables them"
    )
    trackers: list[str] = Field([], description='Accelerate\'s trackers, for example ["tensorboard"]')

    @field_validator("ema_profiles")
    @classmethod
    def _lengths(cls, lengths: list[float]) -> list[float]:
        if any(not SHORTEST <= length <= LONGEST for length in lengths) or len(set(lengths)) < len(lengths):
            raise ValueError(f"lengths from {SHORTEST:g} to {LONGEST:.4f} are expected, each once")
        return lengths


class TrainingKeywords(TypedDict, total=False):
    """TrainingOptions as keywords, for type checkers; a test keeps the two the same."""

    steps: int
    batch_size: int
    accumulation: int
    shard: bool
    lr: float
    warmup: int
    lr_reference: int
    anneal: bool
    weight_decay: float
    beta2: float
    clip: float
    ema: float
    ema_profiles: list[float]
    ema_every: int
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
