"""Train on a folder of your own images, whose subfolders are the classes.

python examples/train_own_images.py photos --size 32 --steps 5000 --run runs/photos

With the defaults of the command, the same is: scorefield train images --data photos
"""

import argparse
from pathlib import Path
from typing import Any

import torch

import scorefield as sf


def main(folder: Path, size: int, steps: int, run: Path) -> Path:
    torch.manual_seed(0)
    data = sf.data.folder(
        folder, size=size
    )  # (3, size, size) in [-1, 1]; larger images are reduced and cropped
    print(*data.reading, sep="\n")
    train, heldout = data.split(0.1, seed=0)

    net = sf.nets.UNet(
        3,
        channels=64,
        channel_mult=(1, 2, 2),
        attention=(4,),
        num_classes=data.spec.num_classes,
        null_label=True,
    )
    model = sf.Denoiser(net, sf.process.cosine(1000), "v", data=data.spec)
    objective = sf.objectives.Simple(model, weighting="v")
    # A tenth of the labels are dropped, so that classifier-free guidance has an unconditional model to start from.
    options: Any = {"batch_size": 32, "lr": 5e-4, "warmup": 100, "ema": 0.999, "label_dropout": 0.1}
    for step in sf.train(objective, train, heldout=heldout, run=run, steps=steps, **options):
        if step.step % 50 == 0 or step.step == steps:
            print(f"step {step.step}: loss {step.loss:.3f}, {step.examples_per_second:.0f} images/s")

    # Six images of each class, one class a row.
    samples = sf.Run(run).sample(
        6 * data.spec.num_classes, sampler="ancestral", steps=40, guidance=2.0, settings={"clip": True}
    )
    samples.save(run / "samples.png")
    return run / "samples.png"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description="Train on a folder of images with a subfolder for each class."
    )
    parser.add_argument("folder", type=Path, help="images; its subfolders are the classes")
    parser.add_argument("--size", type=int, default=32, help="side of the images in pixels, a multiple of 4")
    parser.add_argument("--steps", type=int, default=5000)
    parser.add_argument("--run", type=Path, default=Path("runs/own-images"))
    arguments = parser.parse_args()
    print(f"wrote {main(arguments.folder, arguments.size, arguments.steps, arguments.run)}")
