"""Import weights under the names of the original code: python examples/import_published_weights.py

Published checkpoints are large, so this example writes a small one with random weights: the parameter names, shapes and
configuration are those of DDPM's PyTorch port (ermongroup/ddim). With your own file, leave `write_checkpoint` out. The
command does the same and makes a run: scorefield import ddpm FILE --run DIR --flags …
"""

import argparse
from pathlib import Path
from typing import Any

import torch

import scorefield as sf

# The fields of the original's configuration file that describe the model.
FLAGS: dict[str, dict[str, Any]] = {
    "model": {"ch": 32, "ch_mult": [1, 2], "num_res_blocks": 1, "attn_resolutions": [8], "dropout": 0.1},
    "data": {"image_size": 16, "channels": 3},
    "diffusion": {"beta_schedule": "linear", "num_diffusion_timesteps": 1000},
}


def write_checkpoint(path: Path) -> None:
    torch.manual_seed(0)
    arguments = {**FLAGS["model"], "in_channels": 3, "out_ch": 3, "image_size": 16}
    torch.save(sf.interop.ddpm.network("Model", arguments).state_dict(), path)


def main(steps: int, path: Path = Path("ddpm.ckpt")) -> torch.Tensor:
    write_checkpoint(path)
    weights = torch.load(path, weights_only=True)  # never runs code of the file
    print("\n".join(f"{name} {tuple(weights[name].shape)}" for name in list(weights)[:4]))
    model = sf.interop.ddpm.load(weights, FLAGS).eval()
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters, {model.process}")

    # Flags that do not describe the weights are refused, and the message names the one that does not.
    try:
        sf.interop.ddpm.load(weights, {**FLAGS, "model": {**FLAGS["model"], "num_res_blocks": 2}})
    except sf.InputError as error:
        print(f"refused: {error}")

    clipped, grid = sf.guidance.ClipX0(model), sf.grids.uniform(model.process, steps)
    return sf.sample(clipped, sf.samplers.Ancestral("upper"), grid, n=10, noise=sf.NoiseSource(0))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Import weights of DDPM under their original names.")
    parser.add_argument("--steps", type=int, default=50, help="of sampling")
    images = main(parser.parse_args().steps)
    print(f"sampled {tuple(images.shape)}, values {float(images.min()):.2f} to {float(images.max()):.2f}")
