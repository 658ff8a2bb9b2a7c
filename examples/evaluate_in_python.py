"""Train a run, evaluate it, and judge arrays of images by the same metrics: python examples/evaluate_in_python.py

Each figure stands beside the value that held-out images have, which no model of this data should be expected to beat.
"""

import argparse
from pathlib import Path
from typing import Any

import torch

import scorefield as sf


def main(steps: int, images: int, run: Path = Path("runs/evaluated")) -> None:
    torch.manual_seed(0)
    train, heldout = sf.data.digits().split(0.2, seed=0)
    net = sf.nets.UNet(1, channels=32, channel_mult=(1, 2), attention=(2,), num_classes=10)
    objective = sf.objectives.Simple(
        sf.Denoiser(net, sf.process.cosine(1000), "v", data=train.spec), weighting="v"
    )
    options: Any = {"steps": steps, "lr": 2e-3, "warmup": 50, "ema": 0.99}
    for step in sf.train(objective, train, run=run, **options):
        loss = step.loss
    print(f"loss {loss:.3f} after {steps} steps")

    # One call samples the run, stores the samples and measures. A classifier of clean digits gives the features.
    judge = sf.evaluation.train_classifier(train, examples=10_000)
    how: Any = {"sampler": "ancestral", "steps": 20}
    result = sf.Run(run).evaluate(["fd", "pr"], n=images, sets=1, extractor=judge, **how)
    for figure in result.figures:
        print(f"{figure.label}: {figure.value:.3f}")

    # The same by hand, which works for images from anywhere: features of both sets, then functions of features.
    made = torch.from_numpy(sf.Run(run).sample(images, seed=1, **how).images)
    found = judge.features(made[:, None] / 127.5 - 1)  # (N, 1, 8, 8) in [-1, 1]
    expected = judge.features(heldout.batch(torch.arange(images))[0])
    moments = [sf.evaluation.Moments().update(features) for features in (found, expected)]
    distance = sf.evaluation.frechet_distance(*moments)
    both = sf.evaluation.precision_recall(found, expected)
    print(f"by hand: {distance:.3f}, precision {both.precision:.3f}, recall {both.recall:.3f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Evaluate a run of the digits in Python.")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--images", type=int, default=360, help="images in each set, at most 360")
    arguments = parser.parse_args()
    main(arguments.steps, arguments.images)
