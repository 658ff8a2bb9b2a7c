"""The structure: a module imports only from lines above it, nothing stubs or unpickles, importing stays
cheap.
"""

import ast
import functools
import re
import subprocess
import sys
from pathlib import Path

SRC = Path(__file__).parent.parent / "src" / "scorefield"

# From the bottom up: a module may import from its own entry and from those before it.
LAYERS = [
    "runtime",
    "core",
    "process",
    "nets",
    "data",
    "models",
    "oracle",
    "objectives",
    "samplers",
    "store",
    "generation",
    "training",
    "evaluation",
    "interop",
    "runs",
    "planning",
    "plots",
    "studio",
    "cli",
]


@functools.cache
def nodes(path):
    """Every node of a module's syntax tree."""
    return list(ast.walk(ast.parse(path.read_text())))


def layer(module):
    return LAYERS.index(module.split(".")[0])


def internal_imports(path):
    for node in nodes(path):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("scorefield"):
            inner = node.module.removeprefix("scorefield").lstrip(".")
            yield from [inner] if inner else [alias.name for alias in node.names]
        elif isinstance(node, ast.Import):
            yield from (
                a.name.removeprefix("scorefield.") for a in node.names if a.name.startswith("scorefield.")
            )


def test_modules_import_only_from_below():
    wrong = []
    for path in SRC.rglob("*.py"):
        name = ".".join(path.relative_to(SRC).with_suffix("").parts)
        if name in ("__init__", "__main__"):
            continue
        wrong += [
            f"{name} imports {other}"
            for other in internal_imports(path)
            if other != "__version__" and layer(other) > layer(name)
        ]
    assert not wrong


def test_no_asserts_and_no_unpickling_in_the_library():
    for path in SRC.rglob("*.py"):
        assert not any(isinstance(node, ast.Assert) for node in nodes(path)), (
            f"{path}: user input must never meet an assert"
        )
        calls = [node for node in nodes(path) if isinstance(node, ast.Call)]
        for call in calls:
            name = ast.unparse(call.func)
            assert name not in ("pickle.load", "pickle.loads", "eval", "exec"), path
            if name == "torch.load":
                assert any(
                    k.arg == "weights_only" and ast.unparse(k.value) == "True" for k in call.keywords
                ), path


def test_every_public_name_resolves():
    import scorefield as sf

    for name in sf.__all__:
        assert getattr(sf, name) is not None
    assert set(sf.__all__) <= set(dir(sf))


def test_importing_is_lazy():
    """`import scorefield` and the command's help load neither torch-heavy packages nor plotting."""
    heavy = ["accelerate", "matplotlib", "sklearn", "datasets", "torchdiffeq", "scipy"]
    code = (
        f"import sys, scorefield, scorefield.cli; print([m for m in {[*heavy, 'torch']} if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


FLAG = re.compile(r"(?<![\w-])--[a-z]")
OF_OTHERS = ("torchrun", "original scripts")  # flags of another command


def test_errors_speak_of_python():
    """An error's text names arguments, not flags of the command, which go into `command=`."""
    found = [
        f"{path.relative_to(SRC).as_posix()}: {text}"
        for path in SRC.rglob("*.py")
        if path.relative_to(SRC).parts[0] != "cli"
        for node in nodes(path)
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("InputError", "IncompatibleModel")
        for argument in node.args
        for text in [ast.unparse(argument)]
        if FLAG.search(text) and not any(word in text for word in OF_OTHERS)
    ]
    assert not found


def test_errors_show_values_by_one_function():
    """`brief` shows None as None; the name of its type, NoneType, says nothing to a user."""
    found = [
        f"{path.relative_to(SRC).as_posix()}: {text}"
        for path in SRC.rglob("*.py")
        for node in nodes(path)
        if isinstance(node, ast.JoinedStr)
        for text in [ast.unparse(node)]
        if re.search(r"got \{type\(", text)
    ]
    assert not found


def test_a_file_name_has_one_meaning():
    """No two modules share a name, but for `base`, which holds the base classes of its folder."""
    stems = [path.stem for path in SRC.rglob("*.py") if path.stem not in ("__init__", "__main__", "base")]
    assert sorted(stems) == sorted(set(stems))


PRINTS = ("print", "Console", "sys.stdout", "sys.stderr", "typer.echo", "typer.secho", "click.echo")


def test_one_module_prints():
    """Text of other people's making reaches the terminal through cli/console.py alone, which escapes it."""
    found = {
        f"{path.relative_to(SRC).as_posix()}: {name}"
        for path in SRC.rglob("*.py")
        for node in nodes(path)
        if isinstance(node, (ast.Name, ast.Attribute))
        for name in [ast.unparse(node)]
        if name.removeprefix("rich.console.") in PRINTS
    }
    elsewhere = {line for line in found if not line.startswith("cli/console.py: ")}
    assert not elsewhere
    assert "cli/console.py: print" in found


READERS = {
    "open",
    "load_file",
    "safe_open",
    "gzip.open",
    "tarfile.open",
    "json.load",
    "tomllib.load",
    "torch.load",
    "np.load",
    "np.loadtxt",
    "np.genfromtxt",
    "np.fromfile",
    "np.memmap",
    "zipfile.Path",
    "shutil.copyfile",
}
WITHOUT_A_PATH = {  # what these open is no file, an open file, or the package's own
    "runtime/array_files.py: archive.open",
    "runtime/weights.py: safe_open",
    "runtime/weights.py: torch.load",
    "data/images/read.py: Image.open",
    "data/sources/digits.py: gzip.open",
    "data/sources/digits.py: np.loadtxt",
    "data/sources/parse.py: opener.open",
    "evaluation/evaluator.py: GivenSets.open",
    "interop/cards.py: (files('scorefield.interop') / 'cards.json').read_text",
    "cli/studio.py: webbrowser.open",
    "studio/assets.py: entry.read_bytes",
    "studio/edited_images.py: Image.open",
    "studio/sample_panel.py: Image.open",
    "runs/recipe.py: (_recipes() / f'{name}.toml').read_text",
}
DESCRIPTORS = {"runtime/reading.py: os.open", "runtime/atomic.py: os.open", "cli/console.py: os.open"}
OWN = {"runtime/atomic.py: partial.read_bytes"}  # that this process has just written


def test_one_module_opens_files_for_reading():
    """A named pipe, a device or a file of any size in the place of a file is met in runtime/reading.py alone."""
    found = set()
    for path in SRC.rglob("*.py"):
        for call in nodes(path):
            if not isinstance(call, ast.Call):
                continue
            name = ast.unparse(call.func)
            method = name.rpartition(".")[2] if isinstance(call.func, ast.Attribute) else ""
            modes = [arg.value for arg in call.args[:2] if isinstance(arg, ast.Constant)]
            writes = bool({"w", "wb", "x", "xb", "a", "ab"} & {str(mode) for mode in modes})
            if name in READERS or (method in ("open", "read_text", "read_bytes") and not writes):
                found |= set() if writes else {f"{path.relative_to(SRC).as_posix()}: {name}"}
    assert found == WITHOUT_A_PATH | DESCRIPTORS | OWN


CHANGES = {
    *(
        "write_text",
        "write_bytes",
        "unlink",
        "rmdir",
        "rename",
        "renames",
        "mkdir",
        "makedirs",
        "touch",
        "chmod",
    ),
    *(
        "symlink_to",
        "hardlink_to",
        "truncate",
        "ftruncate",
        "removedirs",
        "mkfifo",
        "rmtree",
        "copytree",
        "copy2",
    ),
    *(
        "copyfile",
        "copymode",
        "move",
        "mkdtemp",
        "mkstemp",
        "NamedTemporaryFile",
        "TemporaryDirectory",
        "extractall",
    ),
    *("save_file", "savez", "savez_compressed", "savetxt", "tofile", "savefig", "memmap"),
}
MODULES_THAT_CHANGE = {
    "os.replace",
    "os.remove",
    "os.link",
    "os.symlink",
    "os.write",
    "shutil.copy",
    "np.save",
}
MODULES_THAT_CHANGE |= {"torch.save", "json.dump", "tomli_w.dump", "pickle.dump", "os.chown", "os.utime"}
BY_A_TEMPORARY_NAME = {  # a library writes to what `atomic_write` or `atomic_folder` gave, or into memory
    "evaluation/features.py: save_file",
    "evaluation/reference.py: save_file",
    "interop/diffusers.py: save_file",
    "plots/style.py: figure.savefig",
    "store/block_store.py: save_file",
    "store/file_store.py: Image.fromarray(image).save",
    "store/file_store.py: np.save",
    "store/outputs.py: np.savez",
    "store/outputs.py: np.savez_compressed",
    "store/outputs.py: path.open",
    "store/outputs.py: zipfile.ZipFile",
    "store/writers.py: first.save",
    "store/writers.py: grid.save",
    "studio/edited_images.py: Image.fromarray(pixels[..., 0] if grey else pixels).save",
    "studio/compare_panel.py: figure.savefig",
    "studio/sample_panel.py: picture_grid(images, None, labels, spec.classes).save",
    "training/checkpoint.py: save_file",
}
NO_FILE_OF_A_USER = {"planning/trial.py: Path('/proc/self/clear_refs').write_text"}


def test_one_module_changes_files():
    """Writing, renaming and deleting is atomic, follows no planted link and leaves what is not ours, in
    runtime/atomic.py alone.
    """
    found = set()
    for path in SRC.rglob("*.py"):
        for node in nodes(path):
            place = path.relative_to(SRC).as_posix()
            if place != "runtime/atomic.py":
                found |= {f"{place}: {name}" for name in changing(node)}
    assert found == BY_A_TEMPORARY_NAME | NO_FILE_OF_A_USER


def changing(node):
    """What a piece of code changes files with; a function may be called elsewhere than where it is named."""
    if isinstance(node, (ast.Name, ast.Attribute)) and isinstance(node.ctx, ast.Load):
        name = ast.unparse(node)
        if name.rpartition(".")[2] in CHANGES or name in MODULES_THAT_CHANGE:
            yield name
    if not isinstance(node, ast.Call):
        return
    name, arguments = ast.unparse(node.func), [*node.args, *(keyword.value for keyword in node.keywords)]
    method = name.rpartition(".")[2]
    words = {argument.value for argument in arguments if isinstance(argument, ast.Constant)}
    if method in ("open", "fdopen", "ZipFile", "TarFile") and any(
        isinstance(word, str) and set(word) <= set("rwxabt+") and set(word) & set("wxa+") for word in words
    ):
        yield name
    if method == "replace" and len(arguments) == 1 and node.args:  # a path's; a text's has two
        yield name
    if method == "save" and any(keyword.arg == "format" for keyword in node.keywords):  # a picture's
        yield name
