"""Calls of every public name, and of the methods of what they make, with one or two arguments that are wrong."""

import inspect
import random
import typing
from collections.abc import Callable, Iterator
from types import ModuleType

from fuzz.sandbox import Case

import scorefield as sf

__all__ = ["ApiCalls"]

# Records that the library makes and a user reads; nobody calls them.
RECORDS = {
    "AccuracyReport", "BitsPerDim", "Estimate", "Evaluation", "EvaluationTarget", "KernelDistance", "Level",
    "Loss", "MetricValue", "Microbatch", "NoisyAccuracy", "Observed", "OdeBits", "OdeLikelihood",
    "PrecisionRecall", "Score", "Share", "Step", "TrainStep", "Diverged", "IncompatibleModel", "InputError",
    "ScorefieldError", "Grid", "__version__", "Batches", "EpochOrder", "EpochBatches", "StreamOrder",
    "Prefetcher", "Reference", "FeatureNet", "Extractor", "Denoise", "ScoreFunction", "Model", "Objective",
    "Process", "GaussianProcess", "Sampler", "Source", "TrainingData", "RunFolder", "Prediction", "Noise",
    "Stream", "TorchDataset", "evaluate_each", "evaluate", "CategoricalProcess",
    "open_features", "imagenet_features", "train_classifier", "ContinuousProcess",
}  # fmt: skip

# Parameter -> values with which a call works, "callable.parameter" before "parameter".
GOOD: dict[str, list[str]] = {
    "model": ["D"],
    "sampler": ["sf.samplers.DDIM()", "sf.samplers.Ancestral()", "sf.samplers.Heun()"],
    "grid": ["sf.grids.uniform(P, 4)", "[20, 10, 0]"],
    "n": ["2"],
    "noise": ["source(0)"],
    "x_T": ["randn(4, 2)"],
    "x": ["randn(4, 2)"],
    "x0": ["randn(4, 2)"],
    "x_t": ["randn(4, 2)"],
    "a": ["randn(4, 2)"],
    "b": ["randn(4, 2) + 1"],
    "u": ["rand(4, 2)"],
    "v": ["randn(4, 2)"],
    "z": ["randn(4, 2)"],
    "eps": ["randn(4, 2)"],
    "target": ["randn(4, 2)"],
    "values": ["randn(4, 2)"],
    "process": ["P", "V", "C"],
    "net": ["Net()"],
    "data": ["moons"],
    "spec": ["spec"],
    "score": ["lambda x: -x"],
    "energy": ["lambda x: (x ** 2).sum(-1)"],
    "sigma": ["0.5"],
    "objective": ["sf.objectives.Simple(D)"],
    "steps": ["2"],
    "T": ["20"],
    "t": ["3", "torch.tensor([1, 2, 3, 4])"],
    "s": ["2"],
    "shape": ["(4, 2)"],
    "times": ["[1, 5]"],
    "projection": ['"rademacher"'],
    "projections": ["2"],
    "kind": ['"rademacher"'],
    "times_kind": ["None"],
    "betas": ["[0.01, 0.02, 0.03]"],
    "sigmas": ["[0.1, 1.0, 2.0]"],
    "kappas": ["[0.1, 0.5, 1.0]"],
    "classes": ["3"],
    "labels": ["[0, 1]"],
    "frames": ["3"],
    "weight": ["0.5"],
    "counts": ["[2, 3]"],
    "repeats": ["2"],
    "sigma_max": ["5.0"],
    "sigma_min": ["0.05"],
    "L": ["5"],
    "rho": ["7.0"],
    "step": ["0.01"],
    "predictor": ["sf.samplers.Ancestral()"],
    "langevin": ["sf.samplers.Langevin(0.01)"],
    "known": ["torch.zeros(2)"],
    "mask": ["torch.tensor([1.0, 0.0])"],
    "path": ['"pictures"'],
    "folder.path": ['"pictures"'],
    "npz.path": ['"images.npz"'],
    "run": ['"digits"'],
    "train.run": ["None", '"new-run"'],
    "Trainer.run": ["None", '"new-run"'],
    "Run.path": ['"digits"', '"moons"'],
    "name": ['"moons"'],
    "source": ['"digits"', '"toy:moons"', '"images.npz"', '"pictures"'],
    "options": ["sf.TrainingOptions(steps=2, batch_size=8)"],
    "in_channels": ["1"],
    "channels_in": ["1"],
    "image_size": ["8"],
    "num_classes": ["3"],
    "null_label": ["False"],
    "channels": ["32"],
    "dim": ["2"],
    "hidden": ["8"],
    "layers": ["1"],
    "seed": ["0"],
    "means": ["randn(2, 2)"],
    "covariances": ["torch.eye(2).expand(2, 2, 2)"],
    "weights": ["[0.3, 0.7]"],
    "mixture": ["mix"],
    "discrete": ["P"],
    "alphas": ["torch.tensor([1.0, 0.9, 0.5])"],
    "DiscreteProcess.sigmas": ["torch.tensor([0.0, 0.4, 0.8])"],
    "coin": ["torch.tensor([True, False])"],
    "flip.x": ["randn(2, 1, 8, 8)"],
    "shift.x": ["randn(2, 1, 8, 8)"],
    "reduced.x": ["randn(2, 1, 8, 8)"],
    "offsets": ["torch.tensor([[1, 0], [0, -1]])"],
    "side": ["4"],
    "terms": ["2"],
    "queries": ["randn(5, 3)"],
    "references": ["randn(6, 3)"],
    "generated": ["randn(8, 3)"],
    "reference": ["randn(8, 3)"],
    "samples": ["randn(8, 3)"],
    "heldout": ["randn(8, 3)"],
    "log_probs": ["torch.log_softmax(randn(20, 4), 1)"],
    "kernel_distance.a": ["randn(20, 3)"],
    "kernel_distance.b": ["randn(20, 3)"],
    "frechet_distance.a": ["sf.evaluation.Moments().update(randn(9, 3))"],
    "frechet_distance.b": ["sf.evaluation.Moments().update(randn(9, 3) + 1)"],
    "noisy_accuracy.classifier": ["clf"],
    "noisy_accuracy.data": ["digits"],
    "count": ["3"],
    "dimension": ["3"],
    "tensors": ["[randn(2), randn(2)]"],
    "tensor.x": ["randn(4, 2)", "rand(4, 1, 8, 8) * 2 - 1"],
    "y": ["torch.tensor([0, 1, 2, 0])"],
    "given.y": ["1", "[0, 1, 2, 0]"],
    "ClassifierFree.model": ["DI"],
    "ClassifierFree.y": ["[0, 1]"],
    "ClassifierGuidance.model": ["DI"],
    "Autoguidance.model": ["D"],
    "Autoguidance.weak": ["D"],
    "ClassifierGuidance.classifier": ["clf"],
    "scale": ["2.0"],
    "prior_term.x0": ["randn(4, 2)"],
    "images": ['"images.npz"', "np.zeros((2, 8, 8), dtype=np.uint8)"],
    "latents": ['"latents.npz"'],
    "interpolate.a": ["0"],
    "interpolate.b": ["1"],
    "latents.interpolate.a": ["randn(2)"],
    "latents.interpolate.b": ["randn(2) + 1"],
    "metrics": ['["bpd"]', '"fd"'],
    "dataset": ["[(randn(1, 8, 8).clamp(-1, 1), 0)] * 4"],
    "data_spec": ["sf.DataSpec((1, 8, 8))"],
    "module": ["lambda x: x.flatten(1)"],
    "indices": ["torch.tensor([0, 1])"],
    "fraction": ["0.2"],
    "length": ["10"],
    "batch_size": ["4"],
    "size": ["8"],
    "low_res": ["None"],
    "classifier": ["None"],
    "MixtureClassifier.process": ["P"],
    "bits_per_dim.model": ["DI.given(0)"],
    "bits_per_dim.x0": ["torch.zeros(2, 1, 8, 8)"],
    "estimate_bits_per_dim.model": ["DI.given(0)"],
    "estimate_bits_per_dim.x0": ["torch.zeros(2, 1, 8, 8)"],
    "ode_bits_per_dim.model": ["DI.given(0)"],
    "ode_bits_per_dim.x0": ["torch.zeros(2, 1, 8, 8)"],
    "ode_bits_per_dim.rtol": ["0.1"],
    "ode_log_prob.model": ["O"],
    "ScoreMatching.model": ["S"],
    "NCSN.model": ["DV"],
    "Classify.model": ["clf"],
    "between_levels.model": ["DV"],
    "rtol": ["0.1"],
    "seconds": ["0.01"],
    "atol": ["0.1"],
    "log_ratio": ["torch.tensor([0.0])"],
    "trajectory.n": ["2"],
    "probe": ["4"],
    "buffer": ["10"],
    "progress": ["None"],
    "device": ["None", '"cpu"'],
    "encode.labels": ["None"],
    "features": ["None"],
    "arrays": ["()"],
    "precision": ["None"],
}

NUMBERS = [
    "-1", "0", "1", "0.5", "-0.5", "1e30", "-1e30", "nan", "inf", "-inf", "10**18", "10**9", "10**400", "True", "1e-320", "2**63", "1e6", "10**5",
    "np.float64('nan')", "np.int64(3)", "2", "-3",
]  # fmt: skip
NOT_NUMBERS = ["None", '"3"', "torch.tensor(3.0)", "torch.tensor([1.0, 2.0])", "3 + 1j", "[]", "lambda: 3"]
TENSORS = [
    "torch.zeros(0, 2)", "torch.zeros(0)", "randn(4)", "randn(4, 3)", "randn(3, 2)", "randn(4, 2, 2)", "randn(4, 2).double()",
    "randn(4, 2).half()", "randn(4, 2).bfloat16()", "torch.zeros(4, 2, dtype=torch.int64)", "torch.zeros(4, 2, dtype=torch.bool)",
    "torch.full((4, 2), nan)", "torch.full((4, 2), inf)", "torch.full((4, 2), 1e30)", "torch.zeros(4, 2, device='meta')",
    "torch.tensor(1.0)", "torch.zeros(1, 1).expand(10**9, 2)", "torch.zeros(1).expand(10**15)", "torch.zeros(4, 2).to(torch.complex64)",
    "torch.zeros(4, 2).to_sparse()", "randn(4, 2).requires_grad_()", "randn(1, 1, 8, 8)", "torch.zeros(4, 0)",
    "torch.zeros(4, 2, dtype=torch.uint8)", "randn(2, 4).T", "torch.zeros(1, 10**5)", "torch.tensor([[nan, 0.0]] * 4)", "torch.tensor([7, 8, 9, 10])",
    "torch.tensor([-1, 0, 1, 2])", "torch.tensor([0.5, 1.5, 2.5, 3.5])", "randn(4, 1, 8, 8)", "torch.tensor([[0.0, 0.0]] * 4)", "torch.zeros(4, 1)",
]  # fmt: skip
NOT_TENSORS = ["np.zeros((4, 2))", "[[0.0, 1.0]]", "None", "3", "'x'", "[]", "D"]
TEXTS = [
    '""', '"nothing"', '"\\x1b[31mred"', '"a\\nerror: forged.png"', "None", "3", '["eps"]', '"EPS"', '"x" * 5000', '"\\ud800"', '"[/foo]"',
    '"../../up"', '"\\0"', "b'eps'", "{}", '"v"', '"mean"', '"lower"',
]  # fmt: skip
PATHS = [
    '"missing"', '"fifo"', '"fifo.npz"', '"link.npz"', '"huge.npz"', '"empty"', '"empty.npz"', '"loop"', '"\\0"', '""', "FORGED", '"x" * 5000',
    "None", "3", '"thesis.tex"', '"digits"', '"moons"', '"pictures"', '"images.npz"', '"points.npz"', 'Path("missing")', '"outside"', '"huge.pt"',
    '"/dev/zero"', '"\\ud800"', '"classifier"', '"small.pt"', '"picture.png"', "[]", "object()",
]  # fmt: skip
OBJECTS = [
    "None", "3", '"digits"', "object()", "D", "P", "V", "C", "K", "S", "O", "DI", "clf", "D64", "DN", "DU", "lambda *a: None", "lambda x, t: x",
    "lambda x, t, y=None: x * nan", "Net()", "Net", "moons", "digits", "randn(4, 2)", "sf", "[]", "{}", "sf.samplers.DDIM()", "mix", "NoTriple()",
    "sf.samplers.Langevin(0.01)", "sf.samplers.Langevin(1e30)", "sf.NoiseSource(3)", "torch.Generator()", "sf.Denoiser", "spec", "7",
    "torch.nn.Linear(2, 2)", "'ddim'", "sf.noise.Recorded([])", "sf.samplers.CategoricalAncestral()",
    "sf.samplers.Inpaint(sf.samplers.DDIM(), torch.zeros(3), torch.ones(2))", "sf.samplers.Heun()", "DI.given(0)",
    "sf.samplers.Ancestral('learned')", "sf.Denoiser(lambda *a: 'x', P)", "sf.Denoiser(lambda x, *a: x[:1], P)", "D.double",
]  # fmt: skip
SEQUENCES = [
    "[]", "[nan]", "[0]", "[-1]", "[1, 1]", "[3, 2, 1]", "[1e30]", "None", "3", '"abc"', "[[1]]", "[0.5]", "[10**18]", "['a', 'b']", "(1, 2, inf)",
    "[20, 20, 0]", "[0, 10, 20]", "torch.zeros(0)", "torch.tensor([nan, 0.0])", "[20, 10]", "[None]", "range(10**9)", "[21, 0]", "[20.0, 0.0]",
    "[1] * 10**5", "[20, -1]", "[True]", "(0,)", "(-2,)", "(2, 10**9)", "(10**18,)", "()", "[99]", "['3']", "[2.5]",
]  # fmt: skip
# A word of an annotation -> values of its type, and others.
HOSTILE = [
    ("Tensor", TENSORS, NOT_TENSORS),
    ("Path", PATHS, OBJECTS),
    ("Sequence", SEQUENCES, OBJECTS),
    ("tuple", SEQUENCES, OBJECTS),
    ("Grid", SEQUENCES, OBJECTS),
    (
        "Noise",
        [
            "7",
            "0",
            "-1",
            "sf.noise.Recorded([])",
            "torch.Generator()",
            "source(3)",
            "sf.noise.Recorded([randn(3)])",
        ],
        OBJECTS,
    ),
    ("float", NUMBERS, NOT_NUMBERS),
    ("int", NUMBERS, NOT_NUMBERS),
    ("str", TEXTS, ["3", "b'eps'", "{}", "['eps']"]),
    ("Literal", TEXTS, ["3", "b'eps'", "{}", "['eps']"]),
]
INSTANCES = [
    'Run("digits")', 'Run("moons")', "D", "DI", "DV", "S", "clf", "O", "mix", "P", "V", "C", "K", "moons", "digits", "source(3)", "spec",
    "grey", "sf.noise.Recorded([randn(2), randn(2)])", "sf.evaluation.Moments()", "sf.samplers.DDIM()", "sf.objectives.Simple(D)",
    "sf.objectives.Hybrid(sf.Denoiser(sf.nets.MLP(2, hidden=8, out_dim=4), P, variance='range', data=grey))", "sf.objectives.VLB(D)",
    "sf.objectives.NCSN(DV)", "sf.objectives.ScoreMatching(S)", "sf.objectives.Classify(clf)", "sf.objectives.ImportanceTimes(20)",
    "sf.objectives.UniformTimes()", "sf.guidance.ClipX0(D, -1.0, 1.0)", "sf.guidance.DynamicThreshold(D, 0.9, -1.0, 1.0)",
    "sf.guidance.ClassifierFree(DI, 0, 2.0)", "sf.samplers.Heun()", "sf.samplers.Ancestral()", "sf.oracle.MixtureClassifier(mix, P)",
]  # fmt: skip
# Parameters by which the command reports and shares its work.
INSIDE = {"watch", "processes"}
# What the parts of the library say to each other; a user calls what calls these.
INNER = {
    "arguments", "arrays_at", "bounded", "branches", "build", "calls", "calls_on", "channels", "check_arrays", "check_model", "check_network",
    "check_states", "compile_network", "conditioning", "describe_levels", "describe_output", "draw", "energy", "everything", "extra_repr",
    "fingerprint", "init", "keep_weights", "layers", "load_state_dict", "network_blocks", "network_inputs", "network_sizes", "noise_at_T",
    "options_shown", "order", "plan", "positive_time", "probabilities", "refuse_missing", "run_in", "run_network", "share", "some",
    "conditioned", "log_likelihood", "numbered_as", "state_dict", "step", "takes", "train", "warning",
}  # fmt: skip
# Methods that a user calls first: they see to the types of what they get. Elsewhere only values are wrong, not types.
FRONT = {
    "sample", "save_samples", "trajectory", "encode", "decode", "interpolate", "evaluate", "latents", "model", "sampling", "given", "forward",
}  # fmt: skip
# Nothing that `evaluate` is given bounds its time: that is samples × steps × what a call of the network takes.
UNBOUNDED = {"evaluate"}
# Arguments that ask for as much work as they say.
COUNTS = {("measure_speed", "seconds"), ("PredictorCorrector", "repeats"), ("sample", "n")}
CALLED = {"D", "DI", "DV", "clf", "O", "DU"}  # instances whose call is public, beside objectives


def callables() -> Iterator[tuple[str, Callable]]:
    """("sf.samplers.DDIM", it) for every public name that can be called, each once."""
    modules = [("sf", sf)] + [(f"sf.{name}", getattr(sf, name)) for name in sf._MODULES]
    seen: set[int] = set()
    for home, module in modules:
        for name in module.__all__:
            made = getattr(module, name)
            if isinstance(made, ModuleType) or name in RECORDS or not callable(made) or id(made) in seen:
                continue
            seen.add(id(made))
            yield f"{home}.{name}", made


def methods(names: dict[str, object]) -> Iterator[tuple[str, Callable]]:
    """("D.given", it) for the public methods that the library defines of every instance."""
    for text in INSTANCES:
        instance = eval(text, names) if "Run(" not in text else sf.Run
        kind = instance if isinstance(instance, type) else type(instance)
        for name in dir(kind):
            member = inspect.getattr_static(kind, name)
            called = name == "forward" and (text in CALLED or text.startswith("sf.objectives"))
            if name.startswith("_") or not (inspect.isfunction(member) or isinstance(member, classmethod)):
                continue
            function = getattr(kind, name)
            if not (getattr(function, "__module__", "") or "").startswith("scorefield"):
                continue
            if name in INNER:
                continue
            if name == "forward" and not called:
                continue
            yield (text if called else f"{text}.{name}"), function


def keywords(function: Callable) -> dict[str, tuple[str, bool]]:
    """Parameter -> (annotation as text, whether it must be given); keywords of a TypedDict count as parameters."""
    found: dict[str, tuple[str, bool]] = {}
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return {}
    for name, parameter in signature.parameters.items():
        if name in ("self", "cls") or parameter.kind == parameter.VAR_POSITIONAL:
            continue
        if parameter.kind == parameter.VAR_KEYWORD:
            try:
                hint = typing.get_type_hints(function, include_extras=True)[name]
                table = typing.get_args(hint)[0]
                found |= {key: (str(kind), False) for key, kind in table.__annotations__.items()}
            except (KeyError, IndexError, AttributeError, NameError):
                pass
            continue
        found[name] = (str(parameter.annotation), parameter.default is parameter.empty)
    return found


class ApiCalls:
    """case(i) is the same call for the same seed.

    Args:
        names: The namespace of the code.
    """

    name = "api"

    def __init__(self, seed: int, names: dict[str, object]):
        self.seed = seed
        self.known = [(text, keywords(made)) for text, made in callables()]
        self.known += [(text, keywords(made)) for text, made in methods(names)]

    def case(self, index: int) -> Case:
        dice = random.Random(f"api-{self.seed}-{index}")
        text, parameters = dice.choice(self.known)
        short = text.rpartition(".")[2]
        front = (text.startswith("sf.") and "(" not in text) or text in CALLED or short in FRONT
        must = [name for name, (_, required) in parameters.items() if required]
        may = [name for name in parameters if name not in must and name not in INSIDE]
        taken = must + [name for name in may if dice.random() < 1.2 / max(len(may), 1)]
        if not taken:
            taken = may[:1]
        if short == "measure_speed" and "seconds" not in taken:
            taken.append("seconds")  # which bounds it
        wrong = set(dice.sample(taken, min(len(taken), 1 + (dice.random() < 0.15))))
        words = []
        for name in taken:
            good = self._good(text, short, name)
            values = self._hostile(dice, parameters[name][0], front) if name in wrong or not good else good
            words.append(f"{name}={dice.choice(values or good or ['None'])}")
        honest = short in UNBOUNDED or any((short, name) in COUNTS for name in wrong)
        return Case(code=f"use({text}({', '.join(words)}))", unbounded=honest)

    def _good(self, text: str, short: str, name: str) -> list[str]:
        two = ".".join(text.split(".")[-2:])
        for key in (f"{two}.{name}", f"{short}.{name}", name):
            if key in GOOD:
                return GOOD[key]
        return []

    def _hostile(self, dice: random.Random, annotation: str, front: bool) -> list[str]:
        found = [values for word, *values in HOSTILE if word in annotation]
        if not found:
            return OBJECTS if front else []
        right, other = dice.choice(found)
        return other if front and dice.random() < 0.25 else right
