"""scorefield sample"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from scorefield.cli import console
from scorefield.cli.console import print_json, say
from scorefield.cli.parameters import (
    Allow,
    Compile,
    Device,
    Json,
    RunFolder,
    SamplingFlags,
    Seed,
    ends_on_sigterm,
    with_sampling_flags,
)
from scorefield.runs.run import Run, SavedSamples
from scorefield.runtime.distributed import join_processes

Count = Annotated[
    int | None,
    typer.Option("-n", min=1, max=10**9, help="Number of samples. Default: 64, or one per --low-res image."),
]
Labels = Annotated[
    list[str] | None,
    typer.Option(
        help="Class by number or name; repeat the option or separate by commas. Cycled over the samples. Default: "
        "every class with training examples."
    ),
]
Guidance = Annotated[
    float | None,
    typer.Option(
        metavar="S",
        help="Guidance scale: by --classifier (0 is none, default 1), by --autoguidance (1 is none), otherwise "
        "classifier-free (1 is the conditional model). --set guidance_low=0.2 limits it to σ/α above 0.2; see "
        "`scorefield options sampling`.",
    ),
]
LowRes = Annotated[
    Path | None,
    typer.Option(
        "--low-res",
        metavar="FILE",
        help="Low-resolution inputs for a super-resolution run; sample i upsamples image i: an .npz with "
        "`images`, an image file or a folder of images. Default labels: those of the file.",
    ),
]
Given = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE.npz",
        help="Further inputs of the network, such as a mask: arrays by name, cycled over the samples.",
    ),
]
Inpainted = Annotated[
    tuple[Path, Path] | None,
    typer.Option(
        metavar="IMAGE MASK",
        help="Inpaint IMAGE where MASK is white; black pixels are kept, rounded to the run's grey values.",
    ),
]
Block = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=2**16,
        help="Samples computed at once. Default: 64. Values depend on it in the last place, and below 32 on the number of "
        "threads too.",
    ),
]
Out = Annotated[
    Path | None, typer.Option(help="FILE.png (a grid), FILE.npz (arrays) or a folder (one PNG each).")
]
Animation = Annotated[
    Path | None,
    typer.Option(metavar="FILE.gif", help="Write an animation of the denoising of the first images."),
]


@with_sampling_flags
def sample(
    run: RunFolder,
    flags: SamplingFlags,
    n: Count = None,
    label: Labels = None,
    guidance: Guidance = None,
    low_res: LowRes = None,
    given: Given = None,
    inpaint: Inpainted = None,
    seed: Seed = 0,
    block: Block = None,
    out: Out = None,
    trajectory: Animation = None,
    device: Device = None,
    compiled: Compile = False,
    allow: Allow = None,
    as_json: Json = False,
) -> None:
    """Generate samples with the averaged (EMA) weights of a run: images, or points as an .npz with `samples`.

    Samples are computed in blocks of 64, or of --block. The blocks of a folder, or of a FILE of several blocks, are
    stored as they are computed, in the folder or in FILE.blocks. After an interruption the same command
    computes the missing blocks and gives the same bytes. A larger -n adds samples to a folder. A FILE that
    scorefield did not write is not replaced. Several processes share the work:
    torchrun --nproc_per_node 2 -m -- scorefield sample RUN …

    From Python: sf.Run(RUN).sample(n=8, steps=20).images
    """
    processes = join_processes(device)
    with ends_on_sigterm():
        saved = Run(run, allow or ()).save_samples(
            out,
            n,
            seed,
            label,
            block=block,
            guidance=guidance,
            low_res=low_res,
            conditions=given,
            inpaint=inpaint,
            compiled=compiled,
            trajectory=trajectory,
            processes=processes,
            progress=console,
            **flags.keywords(),
        )
    rate = "" if saved.kept else f" ({saved.n / saved.seconds:,.1f} a second)"
    say(f"wrote {saved.target}: {saved.n} samples in {saved.seconds:.1f} s{rate}")
    if as_json and processes.first:
        print_json(_facts(saved))


def _facts(saved: SavedSamples) -> dict[str, object]:
    return {
        "out": str(saved.target),
        "n": saved.n,
        "seed": saved.seed,
        "sampler": str(saved.sampling.sampler),
        "guidance": saved.sampling.guidance,
        "calls": saved.sampling.calls,
        "weights": "ema",
        "seconds": round(saved.seconds, 3),
    }
