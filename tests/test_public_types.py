"""The front door as type checkers and editors see it: every public name has its type, and mistakes are found."""

import ast
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import get_type_hints

import pytest

import scorefield as sf
from scorefield.training.training_options import TrainingKeywords, TrainingOptions

ROOT = Path(__file__).parent.parent
CORRECT = """
    import scorefield as sf

    run = sf.Run("runs/a")
    images = run.sample(n=8, seed=3, labels=["3", 5], sampler=sf.samplers.Heun(), steps=5, guidance=2).images
    latents = run.encode(images, steps=20)
    pictures = run.decode(latents).images
    value: float = run.evaluate(metrics=("fd",)).figures[0].value
    every: list[sf.evaluation.Evaluation] = run.evaluate(guidance=(0, 1, 4))
    for step in sf.train(sf.objectives.Simple(run.model(kind=sf.Denoiser)), sf.data.digits(), steps=2):
        print(step.loss)
"""
EXAMPLE = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)[0]
MISTAKES = """
    import scorefield as sf

    sf.samplers.DDIM(etaa=0.5)  # call-arg
    sf.Denoisr(None, None)  # attr-defined
    model = sf.load("runs/a", kind=sf.Denoiser)
    objective = sf.objectives.Simple(model)
    sf.train(model, sf.data.digits(), steps=5)  # arg-type
    sf.train(objective, "digits", steps=5)  # arg-type
    sf.train(objective, sf.data.digits(), steps="5")  # arg-type
    sf.train(objective, sf.data.digits(), stepz=5)  # call-arg
    run = sf.Run("runs/a")
    run.sample(n="8")  # arg-type
    run.sample(n=8, stepz=5)  # call-arg
    run.sample(n=8, variance="lowest")  # arg-type
    run.sample(n=8).imagez  # attr-defined
    run.evaluate(metrics=["fd"], split="test")  # call-overload
    run.evaluate(guidance=[0.0, 1.0]).figures  # attr-defined
    sf.grids.uniform(model.process, "20")  # arg-type
    sf.NoiseSource(0).nrmal((3, 2))  # attr-defined
"""


def types_block():
    """{public name: its home} of the names that a type checker sees: a module, or module:name."""
    tree = ast.parse((ROOT / "src" / "scorefield" / "__init__.py").read_text())
    (block,) = (
        node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    )
    found = {}
    for node in block.body:
        assert isinstance(node, ast.ImportFrom)
        for alias in node.names:
            assert alias.asname == alias.name, f"{alias.name}: `as {alias.name}` is what makes it public"
            found[alias.name] = f"{node.module}.{alias.name}"
    return found


def test_type_checkers_and_python_see_the_same_names_in_the_same_places():
    table = {**sf._MODULES, **{name: f"{home}.{name}" for name, home in sf._NAMES.items()}}
    assert types_block() == table
    assert sorted(sf.__all__) == sorted(["__version__", *table])


def test_a_wrong_name_is_an_error_at_run_time_too():
    with pytest.raises(AttributeError, match="Denoisr"):
        sf.Denoisr  # type: ignore[attr-defined]  # noqa: B018


def test_planted_mistakes_are_found_and_the_example_has_none(tmp_path):
    planted, example = tmp_path / "planted.py", tmp_path / "example.py"
    planted.write_text(textwrap.dedent(MISTAKES))
    example.write_text(EXAMPLE)
    correct = tmp_path / "correct.py"
    correct.write_text(textwrap.dedent(CORRECT))
    files = map(str, (planted, example, correct))
    command = [sys.executable, "-m", "mypy", "--config-file", "pyproject.toml", *files]
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env={"MYPYPATH": "src"})
    found = {
        (Path(path).name, int(line), code)
        for path, line, code in re.findall(r"^(\S+?):(\d+): error: .*\[([a-z-]+)\]$", result.stdout, re.M)
    }
    expected = {
        ("planted.py", number, line.split("# ")[1])
        for number, line in enumerate(planted.read_text().splitlines(), 1)
        if "# " in line
    }
    assert len(expected) == MISTAKES.count("  # ")
    assert found == expected, result.stdout + result.stderr


def test_completion_offers_every_public_name_with_its_signature():
    jedi = pytest.importorskip("jedi")
    project = jedi.Project(ROOT, added_sys_path=[str(ROOT / "src")], smart_sys_path=False)
    offered = {one.name for one in jedi.Script("import scorefield as sf\nsf.", project=project).complete()}
    assert set(sf.__all__) <= offered
    (signature,) = jedi.Script("import scorefield as sf\nsf.Denoiser(", project=project).get_signatures()
    assert [one.name for one in signature.params][:3] == ["net", "process", "parametrization"]


def test_importing_loads_no_torch_and_nothing_else_of_the_library():
    code = (
        "import sys, time; start = time.perf_counter(); import scorefield as sf; "
        "print(f'import scorefield: {1000 * (time.perf_counter() - start):.1f} ms', file=sys.stderr); "
        "print(sorted(m for m in sys.modules if m.startswith(('scorefield.', 'torch', 'numpy'))))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    print(result.stderr.strip())
    assert result.stdout.strip() == "[]"


def test_keywords_of_training_are_its_options():
    keywords = get_type_hints(TrainingKeywords)
    fields = TrainingOptions.model_fields
    assert list(keywords) == list(fields)
    assert keywords == {name: field.annotation for name, field in fields.items()}


def test_a_run_of_another_kind_is_refused_by_name():
    run = ROOT / "tests" / "old_runs" / "digits"
    assert type(sf.load(run)) is type(sf.load(run, kind=sf.Denoiser)) is sf.Denoiser
    with pytest.raises(sf.IncompatibleModel, match="holds a Denoiser, and a NoisyClassifier is needed"):
        sf.load(run, kind=sf.NoisyClassifier)
