"""Paint hats onto portraits that have none: python examples/paint_a_hat.py runs/portraits --out hats.png

Each row is one held-out portrait of the class "plain": the portrait, what of it is kept, and five fillings of the rest
under the class "hat". The rows below the hat are kept exactly (inpainting by a mask).
"""

import argparse
from pathlib import Path

import numpy as np
import torch

import scorefield as sf

HAT_ROWS = 6  # of 16, from the top: hats are drawn in these
PORTRAITS, FILLINGS = 4, 5
GREY = 128  # what the masked part is shown as


def main(folder: Path, out: Path) -> None:
    run = sf.Run(folder)
    spec = run.data_spec
    _, heldout = sf.data.portraits().split(0.1, seed=0)  # as the recipe splits them
    plain = [i for i in range(len(heldout)) if heldout.labels[i] == spec.classes.index("plain")][:PORTRAITS]
    images = spec.to_uint8(heldout.batch(torch.tensor(plain))[0])  # (N, 3, 16, 16)
    mask = np.zeros((16, 16), dtype=np.uint8)
    mask[:HAT_ROWS] = 255  # white is filled in
    shown = []
    for number, image in enumerate(images):
        known = image.numpy().transpose(1, 2, 0)
        hats = run.sample(FILLINGS, seed=number, labels="hat", guidance=2.0, inpaint=(known, mask)).images
        masked = known.copy()
        masked[:HAT_ROWS] = GREY
        if not (hats[:, HAT_ROWS:] == known[HAT_ROWS:]).all():
            raise SystemExit("the part below the hat was changed")
        shown += [known, masked, *hats]
    sheet = torch.from_numpy(np.stack(shown).transpose(0, 3, 1, 2))
    sf.Samples(sheet, spec).save(out)
    print(f"wrote {out}: {PORTRAITS} portraits, each with {FILLINGS} hats; below the hat every pixel is kept")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="a run of the recipe portraits")
    parser.add_argument("--out", type=Path, default=Path("hats.png"))
    arguments = parser.parse_args()
    main(arguments.run, arguments.out)
