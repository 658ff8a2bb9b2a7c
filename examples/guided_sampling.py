"""Guidance with and without a classifier, on the same seeds: python examples/guided_sampling.py --steps 800

Trains two networks of the digits: a conditional denoiser whose labels are dropped for a tenth of the examples, and a
classifier of noisy digits. Writes a sheet of sevens for each kind of guidance, one row a scale.
"""

import argparse
from typing import Any

import torch

import scorefield as sf

SCALES = (0.0, 1.0, 2.0, 4.0)


def main(steps: int) -> None:
    torch.manual_seed(0)
    data, process = sf.data.digits(), sf.process.cosine(1000)
    options: Any = {"steps": steps, "batch_size": 64, "lr": 2e-3, "warmup": 50, "ema": 0.99}

    net = sf.nets.UNet(1, channels=32, channel_mult=(1, 2), attention=(2,), num_classes=10, null_label=True)
    denoiser = sf.objectives.Simple(sf.Denoiser(net, process, "v", data=data.spec), weighting="v")
    trainer = sf.train(denoiser, data, label_dropout=0.1, **options)
    for step in trainer:
        loss = step.loss
    model = sf.guidance.ClipX0(trainer.ema_model())
    print(f"denoiser: loss {loss:.3f} after {steps} steps")

    head = sf.nets.Classifier(1, 10, image_size=8, channels=32, channel_mult=(1, 2), blocks=1, attention=(2,))
    classify = sf.objectives.Classify(sf.NoisyClassifier(head, process, data=data.spec))
    trainer = sf.train(classify, data, **options)
    for step in trainer:
        loss = step.loss
    classifier = trainer.ema_model()
    print(f"classifier: loss {loss:.3f} after {steps} steps")

    sampler, grid = sf.samplers.Ancestral("lower"), sf.grids.uniform(process, 20)
    unconditional = sf.guidance.ClassifierFree(model, 7, 0.0)  # at scale 0 the label is not used
    guides = {
        "classifier-free": lambda scale: sf.guidance.ClassifierFree(model, 7, scale),
        "classifier": lambda scale: sf.guidance.ClassifierGuidance(unconditional, classifier, 7, scale),
    }
    for name, guide in guides.items():
        noise = sf.NoiseSource(seed=0)
        sheet = {scale: sf.sample(guide(scale), sampler, grid, n=10, noise=noise) for scale in SCALES}
        figure = sf.plots.draw_guidance_scales(sheet, title=f"Sevens, {name} guidance")
        figure.savefig(f"sevens-{name}.png")
        print(f"wrote sevens-{name}.png")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description="Guide a model of the digits, with and without a classifier."
    )
    parser.add_argument("--steps", type=int, default=800, help="of each of the two trainings")
    main(parser.parse_args().steps)
