"""A loss or gradient that is not finite: the step is skipped and counted; too many in a row stop the run or
take it back.
"""

import json
import logging

import pytest
import torch
from safetensors.torch import load_file
from support import call

import scorefield as sf
from scorefield.training import checkpoint

LR = 1e-3
OPTIONS = {
    "batch_size": 8,
    "lr": LR,
    "device": "cpu",
    "precision": "fp32",
    "checkpoint_every": 4,
    "log_every": 1,
    "keep": 9,
}
PROCESS = sf.process.from_betas(sf.process.cosine_betas(20))
POINTS = torch.randn(64, 2, generator=torch.Generator().manual_seed(0))


class Spoiled(sf.objectives.Simple):
    """L_simple whose loss (or only its gradient) is NaN at some steps while the learning rate is above a
    limit.
    """

    def __init__(self, steps=(), limit=0.0, gradient=False):
        torch.manual_seed(0)
        super().__init__(sf.Denoiser(sf.nets.MLP(2, hidden=16, layers=1), PROCESS, "v"))
        self.steps, self.limit, self.gradient, self.trainer = steps, limit, gradient, None

    def forward(self, x0, y, noise):  # type: ignore[override]
        loss = super().forward(x0, y, noise)
        if noise.step + 1 not in self.steps or self.trainer._optimizer.param_groups[0]["lr"] <= self.limit:
            return loss
        # √ has an infinite slope at 0: 0·∞ in the gradient only.
        zero = 0 * next(self.parameters()).sum()
        return loss._replace(
            per_example=loss.per_example + (zero.abs().sqrt() if self.gradient else torch.nan)
        )


def train(run=None, steps=12, objective=None, **options):
    objective = objective or Spoiled()
    objective.trainer = sf.train(objective, POINTS, run=run, steps=steps, **{**OPTIONS, **options})
    return objective.trainer


def everything(trainer):
    groups = trainer._state.groups()
    return {
        f"{group}.{name}": tensor.clone()
        for group, tensors in groups.items()
        for name, tensor in tensors.items()
    }


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def lines(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("gradient", [False, True])
def test_a_step_that_is_not_finite_is_skipped_and_counted(tmp_path, caplog, gradient):
    trainer = train(tmp_path / "r", 6, Spoiled((3,), gradient=gradient))
    plain = train(None, 6)
    steps, others = [next(trainer), next(trainer)], [next(plain), next(plain)]
    before = everything(trainer)
    with caplog.at_level(logging.WARNING):
        bad, _ = next(trainer), next(plain)
    what = "the gradient norm is nan" if gradient else "the loss is nan"
    assert f"step 3 skipped: {what} (1 in a row; 5 count as divergence)" in caplog.text
    assert (bad.step, bad.skipped, bad.finite) == (3, 1, False)
    assert same(everything(trainer), before)
    assert [step.loss for step in steps] == [step.loss for step in others]
    after = [*trainer]
    assert all(step.finite and step.skipped == 1 for step in after)
    assert [step.step for step in after] == [4, 5, 6]
    assert [(line["step"], line["skipped"]) for line in lines(tmp_path / "r")] == [
        (1, 0),
        (2, 0),
        (4, 1),
        (5, 1),
        (6, 1),
    ]


def test_a_line_that_falls_on_a_skipped_step_comes_after_it(tmp_path):
    list(train(tmp_path / "r", 12, Spoiled((6, 7)), log_every=3))
    assert [line["step"] for line in lines(tmp_path / "r")] == [3, 8, 9, 12]


def test_five_in_a_row_stop_the_run(tmp_path):
    trainer = train(tmp_path / "r", 20, Spoiled(range(7, 21)))
    expected = r"stopped at step 11: the loss is nan \(5 steps in a row\); the last good checkpoint is .*step-00000004. Lower the"
    with pytest.raises(sf.training.Diverged, match=expected):
        list(trainer)
    assert checkpoint.newest(tmp_path / "r" / "checkpoints").path.name == "step-00000004"
    saved = load_file(tmp_path / "r" / "model.safetensors")
    list(train(tmp_path / "s", 4))
    assert same(saved, load_file(tmp_path / "s" / "model.safetensors"))


def test_a_run_that_diverged_is_resumed_from_the_checkpoint_it_names(tmp_path):
    """Though it was stopped and saved in between, once with weights that are not finite."""
    trainer = train(tmp_path / "r", 12, Spoiled((7,)))
    for _ in range(7):
        next(trainer)
    trainer.save()
    with torch.no_grad():
        next(trainer.objective.parameters()).fill_(float("inf"))
    next(trainer)
    trainer.save()
    again = train(tmp_path / "r", 12, resume=True)
    assert again.step == 8
    with pytest.raises(sf.training.Diverged, match=r"the last good checkpoint is .*step-00000004"):
        list(again)
    lower = train(tmp_path / "r", 12, resume=True, lr=LR / 2)
    assert (lower.step, lower.warnings) == (4, [])
    assert all(step.finite for step in lower)


def test_four_in_a_row_do_not(tmp_path):
    *_, last = train(tmp_path / "r", 12, Spoiled((5, 6, 7, 8, 10, 11)))
    assert (last.step, last.skipped) == (12, 6)


def rolled_back(run, steps=12, objective=None, **options):
    objective = objective or Spoiled((6, 7, 8, 9, 10), LR / 2)
    return train(run, steps, objective, on_divergence="rollback", **options)


def test_rolled_back_is_the_checkpoint_at_a_smaller_rate(tmp_path, caplog):
    """The weights of a run whose last good checkpoint is resumed by hand, with half the learning rate."""
    with caplog.at_level(logging.WARNING):
        trainer = rolled_back(tmp_path / "r")
        steps = list(trainer)
    assert (
        f"rolled back to {tmp_path / 'r' / 'checkpoints' / 'step-00000004'} with 0.5 times the learning rate"
        in caplog.text
    )
    assert [step.step for step in steps] == [*range(1, 11), *range(5, 13)]
    assert [line["step"] for line in lines(tmp_path / "r")] == list(range(1, 13))
    assert [line["lr"] for line in lines(tmp_path / "r")] == [LR] * 4 + [LR / 2] * 8
    assert lines(tmp_path / "r")[-1]["skipped"] == 5
    list(train(tmp_path / "s", 4))
    by_hand = train(tmp_path / "s", 12, resume=True, lr=LR / 2)
    list(by_hand)
    assert same(everything(trainer), everything(by_hand))


@pytest.mark.parametrize("stop", [3, 5, 8, 10, 13])
def test_a_rolled_back_run_resumes_exactly(tmp_path, stop):
    """Stopped after so many steps: before, in the middle of, right after the divergence, and after its
    return; saved, or killed.
    """
    whole = rolled_back(tmp_path / "whole")
    list(whole)
    for saved in (True, False):
        run = tmp_path / str(saved)
        first = rolled_back(run)
        for _ in range(stop):
            next(first)
        if saved:
            first.save()
        again = rolled_back(run, resume=True)
        list(again)
        assert same(everything(again), everything(whole)), saved
        assert (run / "model.safetensors").read_bytes() == (
            tmp_path / "whole" / "model.safetensors"
        ).read_bytes()
        assert [line["lr"] for line in lines(run)] == [line["lr"] for line in lines(tmp_path / "whole")]


def test_it_goes_back_to_one_checkpoint_three_times(tmp_path):
    trainer = rolled_back(tmp_path / "r", 20, Spoiled(range(6, 21)))
    with pytest.raises(
        sf.training.Diverged, match=r"step-00000004, to which training was rolled back 3 times"
    ):
        list(trainer)
    assert trainer._optimizer.param_groups[0]["lr"] == LR / 8


def test_weights_that_are_not_finite_are_no_good_checkpoint(tmp_path):
    """An update may overflow before a loss tells: what is saved then is passed over, and pushes out nothing."""
    trainer = rolled_back(tmp_path / "r", 12, Spoiled(), keep=1)
    for _ in range(6):
        next(trainer)
    with torch.no_grad():
        next(trainer.objective.parameters())[0, 0] = float("inf")
    trainer.save()
    names = [path.name for path in sorted((tmp_path / "r" / "checkpoints").iterdir())]
    assert names == ["step-00000004", "step-00000006"]
    *_, last = trainer
    assert (last.step, last.skipped) == (12, 5)
    assert sf.load(tmp_path / "r")(torch.zeros(1, 2), 3).x0.isfinite().all()


def test_rollback_needs_a_run():
    with pytest.raises(sf.InputError, match="rollback reads the run folder: give run="):
        rolled_back(None)


@pytest.mark.parametrize("last", [1, 2, 4])
def test_a_training_that_ends_in_skipped_steps_is_not_done(tmp_path, last):
    """Fewer than bad_steps, so that no divergence was met on the way; the last good checkpoint stays."""
    trainer = train(tmp_path / "r", 6, Spoiled(range(7 - last, 7)))
    steps = f"its last {last} steps were" if last > 1 else "its last step was"
    with pytest.raises(
        sf.training.Diverged, match=f"ended at step 6, and {steps} skipped.*good checkpoint is .*-00000"
    ):
        list(trainer)
    good = 4 if last < 3 else 0
    assert checkpoint.newest(tmp_path / "r" / "checkpoints").step == good
    again = train(tmp_path / "r", 6, resume=True)
    assert again.step == good
    assert len([*again]) == 6 - good


def overflowing(run=None, steps=2, **options):
    """Every loss is finite; the update of the last step is not, unless the learning rate is small."""
    trainer = train(run, steps, **options)

    def spoil(optimizer, *_):
        if trainer.step + 1 == steps and optimizer.param_groups[0]["lr"] == LR:
            trainer._weights[0].data.fill_(float("inf"))

    trainer._optimizer.optimizer.register_step_post_hook(spoil)
    return trainer


@pytest.mark.parametrize("kept", [True, False])
def test_a_training_whose_last_update_overflows_is_not_done(tmp_path, kept):
    trainer = overflowing(tmp_path / "r" if kept else None)
    last = "the last good checkpoint is .*step-00000000" if kept else "no checkpoint was saved"
    with pytest.raises(
        sf.training.Diverged, match=f"ended at step 2, and its weights are not finite; {last}"
    ):
        list(trainer)
    assert not (tmp_path / "r" / "model.safetensors").exists()


def test_such_an_end_is_rolled_back_where_that_is_wanted(tmp_path):
    trainer = overflowing(tmp_path / "r", on_divergence="rollback")
    assert [step.step for step in trainer] == [1, 2, 1, 2]
    assert [line["lr"] for line in lines(tmp_path / "r")] == [LR / 2] * 2
    *_, last = rolled_back(tmp_path / "s", 6, Spoiled((5, 6), LR / 2))
    assert (last.step, last.skipped) == (6, 2)
    assert checkpoint.newest(tmp_path / "s" / "checkpoints").state["lr_factor"] == 0.5


def test_a_run_that_was_said_to_be_done_is_not_when_it_is_resumed(tmp_path):
    """As versions before this one left it: its last checkpoint has weights that are not finite."""
    trainer = train(tmp_path / "r", 6)
    for _ in range(5):
        next(trainer)
    with torch.no_grad():
        next(trainer.objective.parameters()).fill_(float("nan"))
    trainer.save()
    with pytest.raises(sf.training.Diverged, match=r"ended at step 5.*step-00000004"):
        train(tmp_path / "r", 5, resume=True)


def test_the_command_fails_where_training_ends_in_what_is_not_finite(capsys, tmp_path):
    small = ["--device", "cpu", "--set", "net.hidden=16", "--set", "training.warmup=0"]
    diverges = ["--set", "training.lr=1e39"]
    words = ["train", "toy-moons", "--run"]
    assert call(capsys, *words, tmp_path / "late", *small, "--steps", 1)[0] == 0
    late = [tmp_path / "late", "--resume", "--device", "cpu", "--steps", 10**6, "--minutes", 1e-9]
    for run in ([tmp_path / "3", *small, "--steps", 3], [tmp_path / "1", *small, "--steps", 1], late):
        status, out, err = call(capsys, *words, *run, *diverges)
        assert (status, out) == (1, ""), err
        assert "error: training ended at step" in err
        assert "step-00000000. Lower the learning rate" in err
        assert "done" not in err
        assert "resume with" not in err
