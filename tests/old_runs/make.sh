#!/usr/bin/env bash
# Makes the runs of this folder with the scorefield that is first on the path. They were made once, by commit bcd34a9, the
# last one before run folders carried a format number; to make them again, run this in a checkout of that commit.
set -euo pipefail
export OMP_NUM_THREADS=1 CUDA_VISIBLE_DEVICES=
out=${1:?the folder to make}
mkdir -p "$out"
small=(--device cpu --set training.batch_size=8 --set training.warmup=2 --set training.checkpoint_every=3 --set training.keep=1
       --set training.sample_every=0 --set training.log_every=1 --set training.precision=fp32)
mlp='net={kind="mlp",hidden=12,layers=1,embed_dim=8}'

train() {  # NAME RECIPE [OPTION…]: 3 steps of a run, which is kept, and what 3 more make of it
    local name=$1 recipe=$2
    shift 2
    scorefield train "$recipe" --run "$out/$name" --steps 3 "${small[@]}" "$@"
    cp -r "$out/$name" "$out/$name.resumed"
    scorefield train "$recipe" --run "$out/$name.resumed" --steps 6 --resume --device cpu
    mv "$out/$name.resumed/metrics.jsonl" "$out/$name/resumed.jsonl"
    mv "$out/$name.resumed/model.safetensors" "$out/$name/resumed.safetensors"
    rm -r "$out/$name.resumed"
}
draw() { scorefield sample "$out/$1" --device cpu --seed 3 "${@:2}"; }

train digits digits --set "$mlp" --set training.label_dropout=0.1 --set process.T=100
draw digits -n 4 --steps 5 --out "$out/digits/plain.npz"
draw digits -n 4 --steps 5 --sampler ddim --eta 0.5 --label 3,5 --guidance 2 --out "$out/digits/guided.npz"
draw digits -n 2 --steps 5 --label 7 --out "$out/digits/folder"
rm "$out"/digits/folder/*.png
train classifier digits-classifier --set "$mlp" --set process.T=100
draw digits -n 4 --steps 5 --classifier "$out/classifier" --guidance 1.5 --out "$out/digits/classified.npz"
scorefield encode "$out/digits" "$out/digits/plain.npz" --label 1 --steps 4 --device cpu --out "$out/digits/latents.npz"
scorefield decode "$out/digits" "$out/digits/latents.npz" --device cpu --out "$out/digits/decoded.npz"

train ncsn digits-ncsn --set "$mlp" --set process.L=5
draw ncsn -n 4 --out "$out/ncsn/plain.npz" --set repeats=2

train hybrid digits-iddpm --set "$mlp" --set process.T=20 --set sampling.steps=10
draw hybrid -n 4 --steps 5 --out "$out/hybrid/plain.npz"

train categorical digits-categorical --set "$mlp" --set process.T=20 --set sampling.steps=10
draw categorical -n 4 --steps 5 --out "$out/categorical/plain.npz"

train moons toy-moons --set objective.kind=score-matching --set "net={kind=\"mlp\",hidden=12,layers=1}"
draw moons -n 4 --steps 5 --sampler langevin --set sampler.step=0.01 --out "$out/moons/plain.npz"

train upsampler digits-upsampler --set 'net={kind="unet",channels=32,channel_mult=[1],blocks=1,attention=[]}' --set process.T=100
python - "$out/upsampler/small.npz" <<'PY'
import sys

import numpy as np

np.savez_compressed(sys.argv[1], images=np.arange(4 * 16, dtype=np.uint8).reshape(4, 4, 4) * 4, labels=np.arange(4))
PY
draw upsampler -n 4 --steps 5 --low-res "$out/upsampler/small.npz" --out "$out/upsampler/plain.npz"
rm -r "$out"/upsampler/{checkpoints,resumed.safetensors,resumed.jsonl}  # a convolutional network is large

python - "$out" <<'PY'
"""A process given by numbers, and a network of the user's own, written from Python."""
import sys

import torch

import scorefield as sf

out = sys.argv[1]
torch.manual_seed(0)
process = sf.process.from_betas(sf.process.cosine_betas(20, s=0.01))
model = sf.Denoiser(sf.nets.MLP(64, hidden=12, layers=1, num_classes=10), process, "x0", noise_input="scaled")
objective = sf.objectives.Simple(model, weighting="min-snr")
for _ in sf.train(objective, sf.data.digits(), run=f"{out}/python", steps=3, batch_size=8, device="cpu", precision="fp32"):
    pass


class Own(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.full((1,), 0.5))

    def forward(self, x, c, y=None):
        return self.weight * x


model = sf.Denoiser(Own(), sf.process.from_betas(sf.process.linear_betas(20, 0.001, 0.5)), data=sf.DataSpec((2,)))
for _ in sf.train(
    sf.objectives.Simple(model), torch.randn(32, 2), run=f"{out}/own-network", steps=3, batch_size=8, device="cpu", precision="fp32"
):
    pass
PY
draw python -n 4 --steps 5 --out "$out/python/plain.npz"
rm -r "$out"/{python,own-network}/checkpoints/step-00000000
