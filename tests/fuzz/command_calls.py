"""Commands with edge values. Commands and options come from the command's own tree, so new ones are covered."""

# ruff: noqa: E501
import random
from typing import Any

from fuzz.sandbox import Case
from fuzz.world import FORGED

import scorefield.cli
from scorefield.runs.settings import sections, settings_of

__all__ = ["CommandCalls"]

CPU = ("--device", "cpu")
TOY = (
    "train",
    "toy-moons",
    "--run",
    "new",
    "--steps",
    "2",
    *CPU,
    "--set",
    "net.hidden=8",
    "--set",
    "training.batch_size=8",
)
# Command -> calls that work, within a second.
WORKING: dict[str, list[tuple[str, ...]]] = {
    "recipes": [("recipes", "digits")],
    "options": [("options", "training"), ("options", "net.unet", "--json")],
    "info": [("info", "digits"), ("info", "toy-moons"), ("info", "recipe.toml"), ("info", "unet", "--json")],
    "train": [
        TOY,
        TOY,
        ("train", "mlp.toml", "--run", "new", "--steps", "2", *CPU),
        ("train", "mlp.toml", "--init", "digits", "--run", "new", "--steps", "2", *CPU),
        ("train", "recipe.toml", "--run", "new", "--steps", "1", *CPU),
        ("train", "mlp.toml", "--data", "pictures", "--run", "new", "--steps", "1", *CPU, "--set", "data.size=8"),
        ("train", "toy-moons", "--run", "moons", "--resume", "--steps", "4", *CPU),
        ("train", "digits-classifier", "--run", "new", "--steps", "1", *CPU, "--set", "net.channels=32", "--set", "net.blocks=1", "--set", "training.batch_size=8"),
    ],
    "sample": [
        ("sample", "digits", "-n", "2", "--steps", "2", "--out", "new.npz", *CPU),
        ("sample", "moons", "-n", "2", "--steps", "2", "--out", "new.npz", *CPU, "--set", "sampler.step=0.01"),
        ("sample", "unet", "-n", "2", "--steps", "2", "--out", "new.png", *CPU),
        ("sample", "unet", "-n", "2", "--steps", "2", "--out", "new", "--trajectory", "new.gif", *CPU),
        ("sample", "digits", "-n", "3", "--label", "1", "--guidance", "2", "--steps", "2", "--out", "new.npz", *CPU, "--json"),
        ("sample", "digits", "--classifier", "classifier", "-n", "2", "--steps", "2", "--out", "new.npz", *CPU),
        ("sample", "unet", "--inpaint", "grey.png", "mask.png", "-n", "1", "--steps", "2", "--out", "new.png", *CPU),
        ("sample", "categorical", "-n", "2", "--steps", "2", "--out", "new.npz", *CPU),
        ("sample", "ncsn", "-n", "1", "--set", "repeats=1", "--out", "new.npz", *CPU),
    ],
    "encode": [("encode", "unet", "images.npz", "--steps", "2", "--out", "new.npz", *CPU)],
    "decode": [("decode", "digits", "latents.npz", "--out", "new.npz", *CPU)],
    "interpolate": [("interpolate", "unet", "grey.png", "grey.png", "--frames", "3", "--steps", "2", "--out", "new.gif", *CPU)],
    "evaluate": [
        ("evaluate", "digits", "--metrics", "bpd", "-n", "2", "--terms", "2", *CPU, "--json"),
        ("evaluate", "unet", "--metrics", "fd", "-n", "4", "--sets", "1", "--steps", "2", *CPU),
        ("evaluate", "unet", "--metrics", "fd", "--samples", "images.npz", "-n", "4", "--sets", "1", *CPU),
        ("evaluate", "classifier", "-n", "4", *CPU),
        ("evaluate", "digits", "--metrics", "bpd,ode", "-n", "2", "--split", "train", *CPU),
    ],
    "plot": [("plot", "moons", "--out", "new.png")],
    "plan": [("plan", "digits", *CPU, "--json"), ("plan", "mlp.toml", "--memory", "8")],
    "import": [
        ("import", "diffusers", "diffusers", "--run", "new"),
        ("import", "ncsn", "ncsn.pth", "--run", "new", "--flags", "image_size=8 channels=1 ngf=8 num_classes=10 sigma_begin=1 sigma_end=0.01"),
    ],
    "export": [("export", "diffusers", "unet", "new")],
    "ema": [("ema", "digits", "--length", "0.1", "--run", "new")],
}  # fmt: skip

NUMBERS = [
    "-1", "0", "1", "2", "3", "0.5", "-0.5", "1e30", "-1e30", "nan", "inf", "-inf", "1000000000000000000", "999999999", "9" * 5000, "1e-320", "",
    "1.5", "0x10", "1_000", "٣", "1e5", "true", "2147483648", "9223372036854775808", "+1", "1e400", " 1", "1,2", "100000",
]  # fmt: skip
TEXTS = [
    "", " ", "nothing", "None", "null", "../../up", "/abs", "**", "\x1b[31mred", "a\nerror: forged", "[/foo]", "{0}", "%s", "x" * 5000, "ä", "\udcff", "-",
    "--", "=", "a=b", "ddim", "heun", "langevin", "ancestral", "cpu", "cuda", "cuda:99", "mps", "meta", "uniform", "staircase", "fd", "pr,kid", "own:Own",
    "own", "broken:Own", "missing:Own", "os:system", "3", "10", "-1", "0,1,2", "99", "1.0", "lower", "learned", "range", "heldout", "digits", "toy:moons",
    "toy:nothing", "hf:", "hf:../x", "inception:", "inception:small.pt", "inception:fifo", "imagenet", "8", "karras", "bpd", "ode", "nll", "is",
]  # fmt: skip
PATHS = [
    "missing", "missing/a.npz", "empty", "empty.npz", "fifo", "fifo.npz", "link", "link.npz", "dangling.npz", "outside", "loop", "loop/a.npz", "huge.npz",
    "huge.pt", "huge.png", "huge.toml", FORGED, FORGED + ".npz", "thesis.tex", "thesis.tex/a.npz", "new.gif", "new.png", "new.npz", "new", "new.jpg", "new.NPZ",
    "new/deep/a.npz", "digits", "moons", "unet", "classifier", "ncsn", "categorical", "own-network", "digits/config.toml", "digits/model.safetensors",
    "pictures", "pictures/cats/0.png", "picture.png", "grey.png", "mask.png", "images.npz", "colour.npz", "points.npz", "latents.npz", "small.pt",
    "small.safetensors", "ncsn.pth", "diffusers", "diffusers/unet", "recipe.toml", "own.py", "labels.csv", "", ".", "..", "/", "/dev/null", "/dev/zero",
    "/dev/full", "/proc/self/mem", "x" * 300, "x/" * 2000 + "a", "a\x00b", "~", "~/a.npz", "new\n.npz", "new[/b].npz", "*", "-", "new.npz/", "\udcff.npz",
]  # fmt: skip
VALUES = [
    *NUMBERS, "[]", "{}", "[1]", "[-1]", "[0]", "[1,2,3]", "[[1]]", "[nan]", "[inf,-inf]", "[1,1]", "[8,8]", "[0,0]", '"a"', '{kind="nothing"}', "{kind=[]}",
    "{kind=3}", '{kind="langevin",step=nan}', "false", "none", "[" * 3000, "[" * 3000 + "]" * 3000, "a b", "\x1b[31mred", "../../up", "eps", "x0", "v",
    "[" + "1," * 50000 + "1]", "1e6", "1000000", "[1000000]", '"\\u001b[31m"', "0.1", "7", "-0", "own:Own",
]  # fmt: skip
# Commands that compute nothing. The others take as long as what they are told to compute; `plan` trains a few steps of it,
# one of which is of any size that fits.
QUICK = {"recipes", "options", "info"}
SETTABLE = ("[1]", "4", "0.5", "true", "false", "8", "1", '"linear"', "2")


class CommandCalls:
    """case(i) is the same for the same seed."""

    name = "commands"

    def __init__(self, seed: int):
        self.seed = seed
        self.parameters = {
            name: scorefield.cli._command(name).params for name in scorefield.cli.COMMANDS if name != "studio"
        }
        self.settings = [s.name for section in sections() for s in settings_of(section) if "=" not in s.name]

    def case(self, index: int) -> Case:
        dice = random.Random(f"commands-{self.seed}-{index}")
        name = dice.choice(
            [
                *(name for name in self.parameters if name != "recipes" or dice.random() < 0.2),
                "train",
                "train",
                "train",
                "train",
                "sample",
                "sample",
                "sample",
                "evaluate",
            ]
        )
        parameters = [p for p in self.parameters[name] if p.name not in ("help",)]
        working = WORKING.get(name)
        if working and dice.random() < 0.93:
            words = list(dice.choice(working))
        else:
            words = [name]
            for p in parameters:
                if p.required:
                    words += self._given(dice, p)
        if working and dice.random() < 0.02:
            known = tuple(words) in working
            return Case(words=tuple(words), unbounded=not known, full=True, expect="ok" if known else "")
        for _ in range(dice.choice([1, 1, 1, 2, 3])):
            words = self._changed(dice, name, words, parameters)
        return Case(words=tuple(word[:200_000] for word in words), unbounded=name not in QUICK)

    def _changed(self, dice: random.Random, name: str, words: list[str], parameters: list[Any]) -> list[str]:
        chance = dice.random()
        options = [p for p in parameters if p.opts[0].startswith("-")]
        if chance < 0.22 and len(words) > 1:  # another value in the place of one
            places = [
                i
                for i, word in enumerate(words)
                if i and not word.startswith("--") and word not in ("cpu", "1", "2")
            ]
            if places:
                i = dice.choice(places)
                pool = (
                    NUMBERS if words[i - 1] in ("-n", "--steps") else PATHS if dice.random() < 0.75 else TEXTS
                )
                if "=" in words[i] and words[i - 1] == "--set":
                    words[i] = f"{words[i].split('=')[0]}={dice.choice(VALUES)}"
                else:
                    words[i] = dice.choice(pool)
            return words
        if chance < 0.25 and len(words) > 1:
            del words[dice.randrange(1, len(words))]
            return words
        settable = [p for p in options if p.opts[0] == "--set"]
        if settable and chance < 0.60:
            setting = dice.choice(self.settings)
            if name != "train" and dice.random() < 0.8:
                setting = dice.choice([s for s in self.settings if s.startswith("sampling.")]).removeprefix(
                    "sampling."
                )
            if dice.random() < 0.04:
                setting = dice.choice(
                    [
                        "",
                        ".",
                        "a.b.c",
                        "net",
                        "net.",
                        "training",
                        "nothing.at",
                        "\x1b[31m.a",
                        "data.source",
                        "name",
                        "title",
                        "format",
                    ]
                )
            value = dice.choice(SETTABLE if dice.random() < 0.15 else VALUES)
            return [*words, "--set", f"{setting}={value}"]
        if options:
            option = dice.choice([p for p in options if p.opts[0] not in ("--minutes",)])
            given = self._given(dice, option)
            if (
                option.opts[0] in words
                and not getattr(option, "multiple", False)
                and not getattr(option, "is_flag", False)
            ):
                i = words.index(option.opts[0])
                return words[:i] + given + words[i + 1 + option.nargs :]
            return words + given
        return words

    def _given(self, dice: random.Random, parameter: Any) -> list[str]:
        """The words of one option or argument with values of its kind, mostly hostile."""
        name = parameter.opts[0] if parameter.opts[0].startswith("-") else ""
        if getattr(parameter, "is_flag", False):
            return [name]
        described = str(getattr(parameter, "type_descriptor", getattr(parameter, "type", "")))
        if dice.random() < 0.1:
            pool = dice.choice([NUMBERS, TEXTS, PATHS])
        elif (
            "Path" in described
            or "tuple" in described
            or parameter.name in ("run", "what", "recipe", "data", "init")
        ):
            pool = PATHS
        elif "int" in described.split("<class '")[1:2] or any(
            f"'{kind}'" in described for kind in ("int", "float")
        ):
            pool = NUMBERS
        else:
            pool = TEXTS
        values = [dice.choice(pool) for _ in range(max(parameter.nargs, 1))]
        if name and len(values) == 1 and dice.random() < 0.3:
            return [f"{name}={values[0]}" if name.startswith("--") else f"{name}{values[0]}"]
        return [*([name] if name else []), *values]
