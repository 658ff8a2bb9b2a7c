"""Two processes train what one does: the same batches, losses, weights, averages and importance of times; and
resume each other.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from training.processes_job import BATCH, OPTIONS, RECIPES, STEPS, go_on, make, trained, trainings

import scorefield as sf
from scorefield.store.lock import RunLock
from scorefield.training import checkpoint

JOB = Path(__file__).with_name("processes_job.py")
WHOLE, PIECES = ("adam", "float64", "sgd", "costs", "spoiled"), ("pieces64", "pieces_sgd", "pieces")
LAUNCH = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """({case: what one process made of it}, the same of each of two); the resumed run is at step 6
    afterwards.
    """
    folder = tmp_path_factory.mktemp("processes")
    alone = dict(trainings(folder / "alone"))
    alone["resumed"] = trained(sf.train(*make(), run=folder / "run", steps=3, **OPTIONS))
    shutil.copytree(folder / "run", folder / "run_in_pieces")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [*LAUNCH, str(JOB), str(folder), str(folder / "run")],
        capture_output=True,
        text=True,
        timeout=900,
        env=environment,
    )
    assert done.returncode == 0, done.stderr[-3000:]  # it ends in order, without os._exit
    both = [load_file(folder / f"rank-{rank}-of-2.safetensors") for rank in (0, 1)]  # two there were
    return (
        folder,
        alone,
        [
            {
                case: of(case, two)
                for case in [
                    *alone,
                    "first_fails",
                    "pieces_resumed",
                    "recipes_False",
                    "recipes_True",
                    "seeds_False",
                    "seeds_True",
                ]
            }
            for two in both
        ],
    )


def of(case, tensors):
    return {
        name.removeprefix(f"{case}."): tensor
        for name, tensor in tensors.items()
        if name.startswith(f"{case}.")
    }


def difference(a, b, name):
    """The norm of the difference of all tensors of a group, over the norm of the group."""
    names = sorted(key for key in a if key.startswith(f"{name}."))
    a, b = (torch.cat([result[key].double().flatten() for key in names]) for result in (a, b))
    return float((a - b).norm() / a.norm())


@pytest.mark.parametrize("case", [*WHOLE, *PIECES])
def test_both_processes_hold_the_same(results, case):
    _, _, (first, second) = results
    first, second = (
        {name: x for name, x in two[case].items() if not name.startswith("sampled.")}
        for two in (first, second)
    )
    assert first.keys() == second.keys()
    # A NaN equals no NaN, not even itself.
    assert all(
        torch.equal(tensor.nan_to_num(), second[name].nan_to_num())
        for name, tensor in first.items()
        if name not in ("seen", "here")
    )


@pytest.mark.parametrize("case", [*WHOLE, "pieces64", "pieces"])
def test_the_batches_of_two_are_those_of_one(results, case):
    _, alone, both = results
    together = torch.cat([two[case]["seen"] for two in both], dim=1)
    assert together.shape[:2] == (len(alone[case]["losses"]), BATCH)
    assert torch.equal(together, alone[case]["seen"])


@pytest.mark.parametrize(
    ("case", "single"),
    [
        ("adam", 1e-5),
        ("float64", 1e-10),
        ("sgd", 1e-6),
        ("spoiled", 1e-5),
        ("pieces64", 1e-10),
        ("pieces_sgd", 1e-6),
        ("pieces", 1e-5),
    ],
)
def test_two_processes_have_the_losses_of_one(results, case, single):
    """1e-6 for the mean losses; AdamW amplifies the rounding of gradients that cancel, which losses of single
    examples show.
    """
    _, alone, (two, _) = results
    one, two = alone[case], two[case]
    assert torch.equal(one["losses"].isnan(), two["losses"].isnan())
    assert torch.allclose(one["losses"], two["losses"], rtol=min(single, 1e-6), atol=0, equal_nan=True)
    assert torch.allclose(one["times.losses"], two["times.losses"], rtol=single, atol=0)
    assert torch.equal(one["times.counts"], two["times.counts"])
    assert bool((one["times.counts"] == 2).all())  # importance sampling was at work


@pytest.mark.parametrize(
    ("case", "tolerance"), [("float64", 1e-10), ("sgd", 1e-6), ("pieces64", 1e-10), ("pieces_sgd", 1e-6)]
)
@pytest.mark.parametrize("name", ["weights", "ema", "sampled"])
def test_two_processes_have_the_weights_of_one(results, case, tolerance, name):
    _, alone, (two, _) = results
    assert difference(alone[case], two[case], name) < tolerance


def test_two_processes_draw_and_remember_what_one_does(results):
    """Where the losses of single examples are the same to the bit, so is the importance of times."""
    _, alone, (two, _) = results
    one, two = alone["costs"], two["costs"]
    assert bool((one["times.counts"] == 3).all())
    assert torch.equal(one["times.losses"], two["times.losses"])
    assert torch.equal(one["times.counts"], two["times.counts"])
    assert torch.allclose(one["losses"], two["losses"], rtol=1e-6)


@pytest.mark.parametrize("case", ["spoiled", "pieces"])
def test_they_go_back_together_when_one_meets_what_is_not_finite(results, case):
    """Steps 6, 7 and 8 are spoiled at the full learning rate: back to step 4 with half of it, and on to step
    10.
    """
    folder, alone, (two, _) = results
    for result in (alone[case], two[case]):
        assert result["losses"].isnan().tolist() == [False] * 5 + [True] * 3 + [False] * 6
    for run in (f"alone/{case}", case):
        lines = [json.loads(line) for line in (folder / run / "metrics.jsonl").read_text().splitlines()]
        assert [line["step"] for line in lines] == list(range(1, 11))
        assert [line["lr"] for line in lines] == [1e-3] * 4 + [5e-4] * 6
        assert [line["skipped"] for line in lines] == [0] * 4 + [3] * 6


def test_both_hear_of_a_failure_of_one(results):
    """Or else the other would wait for it without end."""
    assert all(bool(two["first_fails"]["told"]) for two in results[2])


@pytest.mark.parametrize("name", RECIPES)
def test_pieces_train_every_network_and_objective_as_whole_weights_do(results, name):
    """On the same two processes within rounding: the third loss is of weights that two steps have moved,
    through every layer.
    """
    _, _, (two, _) = results
    whole, pieces = two["recipes_False"][name], two["recipes_True"][name]
    assert len(set(whole.tolist())) == 3
    assert torch.allclose(whole, pieces, rtol=1e-6, atol=0)


def test_all_begin_with_the_weights_of_the_first_process(results):
    """Also where a script has given each process another seed, and whether weights are cut or not."""
    losses = [two[f"seeds_{shard}"]["loss"] for two in results[2] for shard in (False, True)]
    assert all(torch.allclose(loss, losses[0], rtol=1e-6) for loss in losses)


@pytest.mark.parametrize("case", PIECES)
def test_each_process_holds_a_piece_of_the_weights(results, case):
    _, alone, both = results
    shares = [int(two[case]["here"]) for two in both]
    assert sum(shares) == int(alone[case]["here"])
    assert max(shares) < 0.52 * sum(shares)  # a weight whose first dimension is odd is not cut in halves


@pytest.mark.parametrize(("case", "run"), [("resumed", "run"), ("pieces_resumed", "run_in_pieces")])
def test_resumed_by_two_and_by_one_again(results, case, run):
    """1 → 2 → 1, whole or in pieces: the batches of a run that was never stopped, and its losses within
    rounding.
    """
    folder, alone, both = results
    last = go_on(folder / run, STEPS)
    assert last.step == 6
    assert any("world was 2 and is now 1" in warning for warning in last.warnings)
    ending = trained(last)
    middle = torch.cat([two[case]["seen"] for two in both], dim=1)
    seen = torch.cat([alone["resumed"]["seen"], middle, ending["seen"]])
    assert torch.equal(seen, alone["adam"]["seen"])
    losses = torch.cat([part["losses"] for part in (alone["resumed"], both[0][case], ending)])
    assert torch.allclose(losses, alone["adam"]["losses"], rtol=1e-6, atol=0)
    assert torch.allclose(ending["times.losses"], alone["adam"]["times.losses"], rtol=1e-5, atol=0)


def command(run, *options):
    arguments = ["train", "digits", "--device", "cpu", "--run", str(run), *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*LAUNCH, "-m", "--", "scorefield", *arguments], stderr=subprocess.PIPE, text=True, env=environment
    )


@pytest.mark.slow
def test_the_command_on_two_processes(tmp_path):
    """To the end, in order; stopped by a signal that torchrun passes on; gone on with; and refused by all
    when one cannot write.
    """
    tiny = [
        "net.channels=32",
        "net.channel_mult=[1]",
        "net.blocks=1",
        "net.attention=[]",
        "training.sample_every=0",
    ]
    settings = [
        word
        for setting in (*tiny, "training.log_every=1", "training.precision=fp32")
        for word in ("--set", setting)
    ]
    _, err = (job := command(tmp_path / "r", "--steps", "20", *settings)).communicate(timeout=120)
    assert job.returncode == 0, err
    assert err.count("done: 20 steps") == 1
    job = command(tmp_path / "s", "--steps", "100000", *settings)
    while not (tmp_path / "s" / "metrics.jsonl").exists() and job.poll() is None:
        time.sleep(0.05)
    job.send_signal(signal.SIGTERM)
    _, err = job.communicate(timeout=60)
    assert err.count("and saved; resume with: scorefield train digits") == 1, err
    step = checkpoint.newest(tmp_path / "s" / "checkpoints").state["step"]
    assert step > 0
    _, err = (job := command(tmp_path / "s", "--resume", "--steps", str(step + 3))).communicate(timeout=120)
    assert job.returncode == 0, err
    held = RunLock(tmp_path / "s" / ".lock")
    _, err = (job := command(tmp_path / "s", "--resume", "--steps", str(step + 6))).communicate(timeout=120)
    held.release()
    assert job.returncode == 1
    assert f"is being written by process {os.getpid()}" in err
    assert checkpoint.newest(tmp_path / "s" / "checkpoints").state["step"] == step + 3
