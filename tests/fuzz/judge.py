"""What counts as a fault of a call, and which faults are one and the same."""

import ast
import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from fuzz.sandbox import Case, Outcome
from fuzz.world import FORGED

__all__ = ["Fault", "faults_of", "is_raw"]

# What torch, NumPy, pydantic and Python say of a mistake: true, and of no use to who made it.
RAW = [
    r"mat1 and mat2",
    r"Expected all tensors",
    r"size mismatch for",
    r"shape '\[",
    r"[Ss]izes? of tensors? must match",
    r"The size of tensor a",
    r"broadcast",
    r"index out of (range|bounds)",
    r"index -?\d+ is out of",
    r"out of bounds for",
    r"object has no attribute",
    r"has no attribute",
    r"not supported between",
    r"unsupported operand",
    r"object is not (callable|iterable|subscriptable)",
    r"is not subscriptable",
    r"validation errors? for",
    r"pydantic",
    r"expected scalar type",
    r"[Ee]xpected (m1|self|tensor for argument|\d+D)",
    r"must be Tensor, not",
    r"must be real number",
    r"cannot be interpreted as an integer",
    r"Given (groups|normalized|input size)",
    r"Exceeds the limit",
    r"negative dimension",
    r"DefaultCPUAllocator",
    r"Unable to allocate",
    r"Only one element tensors",
    r"[Aa]mbiguous",
    r"Dimension out of range",
    r"invalid literal",
    r"could not convert",
    r"maximum recursion",
    r"codec can't (de|en)code",
    r"embedded null",
    r"Traceback",
    r"not implemented for",
    r"aten::",
    r"meta tensor",
    r"^'?\w{1,60}'?$",  # of a KeyError
    r"list index",
    r"division by zero",
    r"math domain",
    r"NoneType",
]
_RAW = re.compile("|".join(f"(?:{pattern})" for pattern in RAW))
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_PARTIAL = re.compile(r"\.partial$|\.tmp$|^\.tmp|~$|\.part$")
_NOT_FINITE = re.compile(r"\b(nan|inf|math\.inf)\b|1e3\d|10\*\*\d{3}|1e-3\d\d|1e\d\d\d", re.IGNORECASE)
# An object made in the call and then asked: "use(sf.guidance.ClipX0(D, -1.0, 1.0).score(…".
_ASKED = re.compile(r"(use\()?sf\.[\w.]+\((?:[^()]|\([^()]*\))*\)[.(]")
# NaN that the documents promise: the error of an estimate from one probe is not known.
_DOCUMENTED = {"OdeLikelihood.error", "OdeBits.error"}
MEMORY = 3 * 2**29  # bytes above what the process has at the start


class Fault(NamedTuple):
    """kind: what the judge found; key: equal for findings of one cause; text: for people."""

    kind: str
    key: str
    text: str


def is_raw(message: str) -> bool:
    """Whether a message has the words of torch, NumPy, pydantic or Python."""
    return _RAW.search(message) is not None


def faults_of(case: Case, outcome: Outcome, place: Path) -> list[Fault]:
    """Everything that is wrong with what a call did; place holds work/ and outside/."""
    if outcome.timeout == "slow":
        return []
    return [*_of_ending(case, outcome), *_of_text(case, outcome), *_of_files(case, outcome, place)]


def _of_ending(case: Case, outcome: Outcome) -> Iterator[Fault]:
    error = outcome.error
    where = str(error.get("place", ""))
    if ".expand(10**" in case.code and re.search(
        "DefaultCPUAllocator|Unable to allocate", str(error.get("message"))
    ):
        error = {}  # more numbers than memory holds
    about = " ".join(case.words[:1]) or case.code[:60]
    if outcome.timeout in ("blocked", "busy"):
        yield Fault(f"hang ({outcome.timeout})", _stem(case), f"after {outcome.seconds:.0f} s")
    elif outcome.status is None and outcome.timeout != "ended":
        yield Fault(f"ended by signal {outcome.signal}", _stem(case), outcome.err[-300:])
    if error and not error["ours"] and outcome.timeout != "ended":
        if case.words or not _of_signature(error):
            kind = "traceback" if case.words else "no ScorefieldError"
            yield Fault(kind, f"{error['type']} {where}", f"{error['type']}: {str(error['message'])[:300]}")
    elif error and error["ours"] and _RAW.search(str(error["message"])):
        found = _RAW.search(str(error["message"]))
        assert found
        yield Fault("raw message", f"{where} {found[0]}", str(error["message"])[:300])
    if outcome.memory > MEMORY:
        yield Fault("memory", _stem(case), f"{outcome.memory / 2**30:.1f} GiB above the start; {about}")
    if not error and (found_nan := outcome.result.get("nan")) and _wrongly_nan(case):
        yield Fault("silent NaN", f"{found_nan} {_stem(case)}", str(found_nan))
    if case.expect == "error" and outcome.status == 0 and not error:
        yield Fault("not refused", _stem(case), "was expected to be refused")
    if case.expect == "ok" and (outcome.status != 0 or error):
        yield Fault("refused", _stem(case), (outcome.err or str(error.get("message")))[-300:])


def _of_signature(error: dict[str, object]) -> bool:
    """Whether Python refused the call itself, or that of a function given to it: a missing argument, a wrong name."""
    text = str(error["message"])
    binding = "argument" in text and ("missing" in text or "unexpected" in text or "takes" in text)
    abstract = "abstract" in text or "Protocols cannot be" in text
    positional = (
        "missing" in text or "positional" in text
    )  # also of a function of the user's that the library calls
    return error["type"] == "TypeError" and (binding or abstract) and (not error["own"] or positional)


def _wrongly_nan(case: Case) -> bool:
    """NaN of finite inputs; of inputs that are not, where a whole sampling or an object is made of them. What is asked
    of an object element by element, such as a score, is NaN where its input is.
    """
    if _ASKED.match(case.code):
        made = _ASKED.match(case.code)
        assert made
        return not _NOT_FINITE.search(case.code) or bool(_NOT_FINITE.search(made[0]))
    if not _NOT_FINITE.search(case.code):
        return True
    return bool(
        re.match(
            r"(use\()?(sf\.(sample|trajectory|latents|samplers|guidance|grids|process|oracle)\b|Run)",
            case.code,
        )
    )


def _of_text(case: Case, outcome: Outcome) -> Iterator[Fault]:
    if not case.words:
        return
    lines = outcome.err.splitlines()
    errors = [line for line in lines if line.startswith("error:")]
    stem = _stem(case)
    if outcome.status == 0 and errors:
        yield Fault("status 0 with an error", stem, errors[0][:300])
    if outcome.status and not outcome.error and not case.full and len(errors) != 1 and not outcome.timeout:
        yield Fault("no single error line", stem, f"status {outcome.status}: {outcome.err[-300:]!r}")
    if "Traceback (most recent call last)" in outcome.err and not outcome.error:
        yield Fault("traceback", stem, outcome.err[-600:])
    if (
        not outcome.error
        and errors
        and "Invalid value for" not in errors[-1]
        and (found := _RAW.search(errors[-1].removeprefix("error: ")))
    ):
        yield Fault("raw message", f"{stem} {found[0]}", errors[-1][:400])
    if errors and len(errors[-1]) > 2500:
        yield Fault("long message", stem, f"{len(errors[-1])} characters: {errors[-1][:200]}")
    if any(line.startswith("error: forged") for line in lines + outcome.out.splitlines()):
        yield Fault("forged line", stem, "a file's name wrote a line of its own")
    for text, name in ((outcome.out, "stdout"), (outcome.err, "stderr")):
        if control := _CONTROL.search(text):
            start = max(control.start() - 60, 0)
            yield Fault(
                "control character", f"{stem} {control[0]!r}", f"{name}: {text[start : start + 160]!r}"
            )
    if "--json" in case.words and outcome.status == 0 and outcome.out.strip():
        try:
            json.loads(outcome.out, parse_constant=_refuse)
        except ValueError as error:
            yield Fault("not JSON", f"{stem} {error}"[:80], f"{error}: {outcome.out[:200]!r}")


def _refuse(constant: str) -> None:
    raise ValueError(f"the constant {constant}")


def _of_files(case: Case, outcome: Outcome, place: Path) -> Iterator[Fault]:
    targets = _targets(case)
    at_home = [target for target in targets if target.partition("/")[0] == "~"]
    targets = [target for target in targets if target not in at_home]
    stem = _stem(case)
    failed = bool(outcome.status) or outcome.status is None
    stopped = outcome.timeout or outcome.status in (75, 130)
    made: set[str] = set()
    for path, how in outcome.changes.items():
        top, _, rest = path.partition("/")
        name = path.rpartition("/")[2]
        if top == "outside":
            yield Fault("outside the target", f"{stem} {how}", f"{how}: {path}")
        elif top == "home" and "cache" not in rest and not at_home:
            yield Fault("outside the target", f"{stem} home", f"{how}: {path}")
        elif top == "tmp":
            if not stopped and "torchinductor" not in rest:
                yield Fault("left over", f"{stem} tmp", f"{how}: {path}")
        elif top == "work":
            named = any(rest == target or target.startswith(f"{rest}/") for target in targets)
            if how == "made" and _PARTIAL.search(name) and not stopped and not named:
                yield Fault("left over", f"{stem} {_no_digits(name)}", f"{how}: {path}")
            if stopped and any(_PARTIAL.search(part) for part in rest.split("/")):
                continue  # of a plain command that a signal ended at once; the next writer clears it away
            if not any(_within(rest, target) for target in targets):
                yield Fault(
                    "outside the target", f"{stem} {_no_digits(rest)}", f"{how}: {path}; targets {targets}"
                )
            elif how == "made":
                made.add(rest)
                kind, mode = outcome.modes.get(path, ("", 0))
                if kind == "file" and mode & 0o077 == 0:
                    yield Fault(
                        "private file", f"{stem} {_no_digits(name)}", f"mode {mode & 0o777:o}: {path}"
                    )
            elif how in ("changed", "filled") and rest in targets and not outcome.error:
                if not failed and how == "changed" and not re.search("replac|overw|exist", outcome.err):
                    yield Fault("replaced without a word", f"{stem}", f"{how}: {path}")
                if failed:
                    yield Fault("failed, but changed a file", stem, f"{how}: {path}")
    if failed and not stopped and outcome.status is not None:
        kept = [p for p in made if "metrics.jsonl" in p or "checkpoints/step" in p or ".safetensors" in p]
        left = [p for p in made if not p.endswith((".lock", "/evaluation"))]  # which may always be deleted
        # A folder of samples keeps those that are whole, for the next call.
        left = [p for p in left if not (place / "work" / p).with_name("manifest.json").exists()]
        if left and not kept and outcome.status != 99:
            yield Fault("half-made", stem, f"status {outcome.status} left {sorted(left)[:6]}")
    if not failed:
        for path in sorted(made):
            if path.endswith((".npz", ".safetensors")) and (bad := _not_finite(place / "work" / path)):
                yield Fault("silent NaN", f"{stem} {bad}", f"{path}: {bad}")
        if case.words[:1] == ("train",) and (
            runs := {p.split("/config.toml")[0] for p in made if p.endswith("/config.toml")}
        ):
            for run in runs:
                if not (place / "work" / run / "model.safetensors").exists() and "no " not in outcome.err:
                    yield Fault("no weights", stem, f"{run} has no model.safetensors: {outcome.err[-200:]}")


def _not_finite(path: Path) -> str:
    if path.is_symlink() or not path.is_file() or path.stat().st_size > 2**26:
        return ""
    try:
        if path.suffix == ".npz":
            arrays = dict(np.load(path, allow_pickle=False))
        else:
            from safetensors.numpy import load_file

            arrays = load_file(path)
    except Exception:
        return ""
    wrong = [n for n, a in arrays.items() if a.dtype.kind in "fc" and a.size and not np.isfinite(a).all()]
    return f"{wrong[0]} is not finite" if wrong else ""


def _within(path: str, target: str) -> bool:
    return path == target or path.startswith((f"{target}/", f"{target}.")) or target.startswith(f"{path}/")


def _targets(case: Case) -> list[str]:
    """What a call was told to write: values of --run, --out, --trajectory; a run itself; new things of code."""
    words = list(case.words)
    if not words:
        given = re.findall(r'\b(?:target|trajectory|run)=("(?:[^"\\]|\\.)+")', case.code)
        given = [str(Path(ast.literal_eval(text))) for text in given]
        return ["runs", "new", *given, *re.findall(r'Run\("(\w+)"\)\.(?:evaluate|save_samples)', case.code)]
    found = ["runs", "__pycache__"]
    for i, word in enumerate(words):
        name, _, value = word.partition("=")
        if name in ("--run", "--out", "--trajectory", "--reference"):
            found.append(value or (words[i + 1] if i + 1 < len(words) else ""))
    if words[0] in ("sample", "evaluate", "plot", "encode", "interpolate", "decode"):
        found += words[1:2]
    if words[0] == "export":
        found += words[1:]
    return [str(Path(value)) for value in found if value and value != "."]


def _stem(case: Case) -> str:
    """What a finding is known by where no frame says it: the command and its odd parts, or the called name."""
    if case.edits and case.words:
        one = case.edits[-1]
        return f"{case.words[0]} after {one['do']} {one.get('file', '')} {one.get('at', '')}"
    if case.words:
        options = [word for word in case.words[1:] if word.startswith("-") and word not in ("--json",)]
        return f"{case.words[0]} {' '.join(sorted(set(options)))}"[:90]
    names = re.findall(r"[A-Za-z_][\w.]*(?=\()", case.code)
    names = [name for name in names if name not in ("use",)]
    return names[0] if names else case.code[:60]


def _no_digits(name: str) -> str:
    return re.sub(r"\d+", "#", name.replace(FORGED, "FORGED"))


def has_nan(value: object, depth: int = 0) -> str:
    """Where NaN stands in a result: "" for nowhere."""
    import torch

    if isinstance(value, torch.Tensor):
        if value.device.type == "meta" or value.numel() > 10**7:
            return ""
        return "NaN in a tensor" if bool(torch.isnan(value.detach()).any()) else ""
    if isinstance(value, float):
        return "NaN in a number" if math.isnan(value) else ""
    if depth > 3:
        return ""
    if isinstance(value, dict):
        parts = list(value.items())[:50]
    elif isinstance(value, tuple) and hasattr(value, "_fields"):
        parts = list(zip(value._fields, value))
    elif isinstance(value, list | tuple):
        parts = list(enumerate(value[:50]))
    elif hasattr(value, "__dataclass_fields__"):
        parts = [(name, getattr(value, name, None)) for name in value.__dataclass_fields__]
    else:
        return ""
    for name, part in parts:
        if f"{type(value).__name__}.{name}" in _DOCUMENTED:
            continue
        if found := has_nan(part, depth + 1):
            return f"{found} ({type(value).__name__}.{name})"
    return ""
