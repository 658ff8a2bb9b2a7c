"""Good files with one thing changed, and the commands that read them."""

# ruff: noqa: E501
import json
import os
import random
import struct
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from fuzz.sandbox import Case

__all__ = ["FileMutations"]

NUMBERS = [
    "-1",
    "0",
    "1",
    "7",
    "1e30",
    "-1e30",
    "nan",
    "inf",
    "-inf",
    "1000000000",
    "200000000",
    "9" * 400,
    "9" * 5000,
    "true",
    "0.5",
    "1e-320",
]
TEXTS = [
    '"nothing"', '""', '"\\u001b[31mred"', '"a\\nerror: forged.png"', '"[/foo]"', '"../../up"', '"/abs"', '"**"', '"\\u0000"', '"' + "x" * 5000 + '"',
    '"own:Own"', '"/dev/zero"', '"fifo"', '"huge.npz"', '"3"', '"\\u202e"',
]  # fmt: skip
SHAPES = [
    "[]", "{}", "[[]]", "[1, 2, 3]", '[" "]', "[8, 8]", "[-1]", "[1000000000]", "[" * 5000 + "]" * 5000, '{kind = []}', "[0, 0, 0]", "[nan, 1]",
    "[" + "1, " * 100000 + "1]", '{kind = "nothing"}', '["\\u001b[31m"]', "[1, 1, 100000, 100000]", "[-inf, inf]", "[1.0, -1.0]",
]  # fmt: skip
JSON_ONLY = ["null", "NaN", "Infinity"]
KINDS_OF_SAFETENSORS = ['"BOOL"', '"C64"', '"I64"', '"F8_E4M3"', '"F64"', '"BF16"', '"nothing"', "3", "null"]

SAMPLE = ("sample", "{run}", "-n", "2", "--steps", "2", "--out", "new.npz", "--device", "cpu")
INFO = ("info", "{run}")
RESUME = ("train", "{recipe}", "--run", "{run}", "--resume", "--steps", "5", "--device", "cpu")
PLOT = ("plot", "{run}", "--out", "new.png")
EVALUATE = ("evaluate", "{run}", "--metrics", "bpd", "-n", "2", "--terms", "2", "--device", "cpu", "--json")
ODE = ("evaluate", "{run}", "--metrics", "ode", "-n", "2", "--device", "cpu")
ENCODE = ("encode", "{run}", "images.npz", "--steps", "2", "--out", "new.npz", "--device", "cpu")
EXPORT = ("export", "diffusers", "{run}", "new-folder")
INIT = ("train", "mlp.toml", "--init", "{run}", "--run", "new-run", "--steps", "1", "--device", "cpu")
GUIDED = (
    "sample",
    "digits",
    "--classifier",
    "{run}",
    "-n",
    "2",
    "--steps",
    "2",
    "--out",
    "new.npz",
    "--device",
    "cpu",
)
IMPORT = ("import", "diffusers", "diffusers", "--run", "new-run")
NCSN = (
    "import", "ncsn", "ncsn.pth", "--run", "new-run", "--flags", "image_size=8 channels=1 ngf=8 num_classes=10 sigma_begin=1 sigma_end=0.01",
)  # fmt: skip
TRAIN = ("train", "recipe.toml", "--run", "new-run", "--device", "cpu", "--steps", "1")
CONDITION = (
    "sample",
    "digits",
    "-n",
    "2",
    "--steps",
    "2",
    "--given",
    "{file}",
    "--out",
    "new.npz",
    "--device",
    "cpu",
)
JUDGED = ("evaluate", "unet", "--samples", "{file}", "--metrics", "fd", "-n", "4", "--device", "cpu")
UNNAMED = ("train", "recipe.toml", "--device", "cpu", "--steps", "1")
LEARN = ("train", "mlp.toml", "--data", "{file}", "--run", "new-run", "--device", "cpu", "--steps", "1")
LEARN_PICTURES = (
    "train",
    "mlp.toml",
    "--data",
    "pictures",
    "--run",
    "new-run",
    "--device",
    "cpu",
    "--steps",
    "1",
    "--set",
    "data.size=8",
)
ENCODED = ("encode", "unet", "{file}", "--steps", "2", "--out", "new.npz", "--device", "cpu")
DECODE = ("decode", "digits", "latents.npz", "--out", "new.npz", "--device", "cpu")
INPAINT = (
    "sample",
    "unet",
    "--inpaint",
    "grey.png",
    "mask.png",
    "-n",
    "1",
    "--steps",
    "2",
    "--out",
    "new.png",
    "--device",
    "cpu",
)

RECIPES = {
    "digits": "digits",
    "moons": "toy-moons",
    "unet": "recipe.toml",
    "classifier": "digits-classifier",
    "categorical": "digits-categorical",
}

# File (with {run} filled in), how it can be changed, and what reads it.
RUNS = ("digits", "moons", "unet", "classifier", "categorical")
STORED = ("digits", "moons")  # with a checkpoint


def of_table(dice: random.Random, path: Path) -> Iterator[dict[str, object]]:
    """One value of a .toml or .json file replaced, dropped, or a name added."""
    text = path.read_text()
    toml = path.suffix == ".toml"
    places = list(_places(tomllib.loads(text) if toml else json.loads(text)))
    at, value = dice.choice(places)
    if dice.random() < 0.12:
        yield {"do": "drop", "at": at}
        return
    if dice.random() < 0.07 and isinstance(at[-1], str):
        at = [*at[:-1], dice.choice(["nothing", "kind", "", "\x1b[31m", "a.b", "a\nerror: forged.png"])]
    pool = dice.choice(
        [NUMBERS, NUMBERS, SHAPES, TEXTS] if isinstance(value, int | float) else [TEXTS, SHAPES, NUMBERS]
    )
    raw = dice.choice(pool)
    if not toml:
        raw = dice.choice(JSON_ONLY) if dice.random() < 0.2 else _as_json(raw)
    yield {"do": "value", "at": at, "raw": raw}


def _as_json(raw: str) -> str:
    for toml, plain in (("kind = ", '"kind": '), ("nan", "NaN"), ("-inf", "-Infinity"), ("inf", "Infinity")):
        raw = raw.replace(toml, plain) if raw != '"inf"' else raw
    return raw.replace("-InfInfinityinity", "-Infinity").replace("InfInfinityinity", "Infinity")


def _places(value: Any, at: tuple = ()) -> Iterator[tuple[list, Any]]:
    if isinstance(value, dict):
        for name, item in value.items():
            yield [*at, name], item
            yield from _places(item, (*at, name))
    elif isinstance(value, list):
        for i, item in list(enumerate(value))[:3]:
            yield [*at, i], item
            yield from _places(item, (*at, i))


def of_text(dice: random.Random, path: Path) -> Iterator[dict[str, object]]:
    """Text that is no longer its format."""
    yield dice.choice([
        {"do": "write", "text": ""},
        {"do": "write", "text": "[" * 20000},
        {"do": "write", "text": '{"a":' * 20000},
        {"do": "write", "hex": "fffe00d8"},
        {"do": "write", "text": "null"},
        {"do": "write", "text": "[]"},
        {"do": "write", "text": "3"},
        {"do": "write", "text": "a = " + "9" * 5000},
        {"do": "append", "text": "\n[[[["},
        {"do": "append", "text": '\n{"step":'},
        {"do": "append", "text": "\nx = 1\nx = 2\n"},
        {"do": "double"},
    ])  # fmt: skip


def of_bytes(dice: random.Random, path: Path) -> Iterator[dict[str, object]]:
    size = path.stat().st_size
    for _ in range(dice.choice([1, 1, 3])):
        head = dice.random() < 0.6
        yield {
            "do": "flip",
            "at": dice.randrange(min(size, 400) if head else size),
            "bit": dice.randrange(8),
        }


def of_size(dice: random.Random, path: Path) -> Iterator[dict[str, object]]:
    yield dice.choice([
        {"do": "cut", "to": dice.choice([0, 0.01, 0.3, 0.9, 0.999])},
        {"do": "sparse", "size": dice.choice([2**31, 6 * 2**30])},
        {"do": "double"},
    ])  # fmt: skip


def of_kind(dice: random.Random, path: Path) -> Iterator[dict[str, object]]:
    yield dice.choice([
        {"do": "fifo"},
        {"do": "folder"},
        {"do": "delete"},
        {"do": "link", "to": "/dev/zero"},
        {"do": "link", "to": path.name},
        {"do": "link", "to": "missing"},
        {"do": "mode", "mode": 0},
    ])  # fmt: skip


def of_header(dice: random.Random, path: Path) -> Iterator[dict[str, object]]:
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    name = dice.choice([name for name in header if name != "__metadata__"])
    yield dice.choice([
        {"do": "header", "at": [name, "dtype"], "raw": dice.choice(KINDS_OF_SAFETENSORS)},
        {"do": "header", "at": [name, "shape"], "raw": dice.choice(["[]", "[0]", "[1]", "[-1]", "[1000000000000]", "3", "null", "[1, 1, 1, 1, 1, 1]"])},
        {"do": "header", "at": [name, "data_offsets"], "raw": dice.choice(["[0, 0]", "[0, 1000000000000]", "[8, 0]", "null"])},
        {"do": "header", "at": ["\x1b[31mred"], "raw": json.dumps(header[name])},
        {"do": "header", "at": ["__metadata__"], "raw": dice.choice(["3", '{"a": 3}', "[]", '{"format": "\\u001b[31m"}'])},
        {"do": "python", "code": _REWRITE.format(file=_PLACE, change=dice.choice(_CHANGES), name=name)},
    ])  # fmt: skip


_PLACE = "{file}"
_REWRITE = """
from safetensors.torch import load_file, save_file
state = load_file({file!r})
name = {name!r}
{change}
save_file({{k: v.contiguous() for k, v in state.items()}}, {file!r}, {{"format": "pt"}})
"""
_CHANGES = [
    "state[name] = torch.full_like(state[name].float(), float('nan'))",
    "state[name] = torch.full_like(state[name].float(), float('inf'))",
    "state[name] = state[name] > 0",
    "state[name] = state[name].to(torch.complex64)",
    "state[name] = state[name].reshape(-1)",
    "del state[name]",
    "state['more'] = state[name].clone()",
    "state['\\x1b[31mred\\nerror: forged.png'] = state.pop(name)",
    "state['x' * 100000] = state.pop(name)",
    "state = {f'{i}': torch.zeros(1) for i in range(20000)}",
    "state = {}",
    "state[name] = state[name].double()",
    "state[name] = torch.zeros(0)",
]


def of_archive(dice: random.Random, path: Path) -> Iterator[dict[str, object]]:
    yield {"do": "python", "code": dice.choice(_ARCHIVES).replace(_PLACE, _PLACE)}


_ARCHIVES = [
    "np.savez({file!r}, images=np.zeros((0, 8, 8), np.uint8))",
    "np.savez({file!r}, images=np.zeros((4, 8, 8), np.float32))",
    "np.savez({file!r}, images=np.full((4, 8, 8), np.nan, np.float32))",
    "np.savez({file!r}, images=np.zeros((4, 8, 8, 7), np.uint8))",
    "np.savez({file!r}, images=np.zeros((4, 8), np.uint8))",
    "np.savez({file!r}, images=np.zeros((4, 8, 8), np.int16))",
    "np.savez({file!r}, images=np.array(['a', 'b']))",
    "np.savez({file!r}, images=np.array([{{}}], dtype=object))",
    "np.savez({file!r}, images=np.zeros((4, 8, 8), np.uint8), labels=np.array(['a', 'b', '\\x1b[31mred\\nerror: forged.png', 'c']))",
    "np.savez({file!r}, images=np.zeros((4, 8, 8), np.uint8), labels=np.array(['a', 'b', '\\ud800', 'c']))",
    "np.savez({file!r}, images=np.zeros((4, 8, 8), np.uint8), labels=np.array([0, 1, 2]))",
    "np.savez({file!r}, images=np.zeros((4, 8, 8), np.uint8), labels=np.array([0.5, 1, 2, np.nan]))",
    "np.savez({file!r}, images=np.zeros((4, 8, 8), np.uint8), labels=np.array([-1, 10**15, 2, 3]))",
    "np.savez({file!r}, images=np.zeros((4, 8, 8), np.uint8), labels=np.zeros((4, 2)))",
    "np.savez({file!r}, images=np.zeros((4, 3, 5), np.uint8))",
    "np.savez({file!r}, samples=np.full((4, 2), np.inf, np.float32))",
    "np.savez({file!r}, samples=np.zeros((4, 2), np.complex64))",
    "np.savez({file!r}, samples=np.zeros((4, 3), np.float32))",
    "np.savez({file!r}, samples=np.zeros(()))",
    "np.savez({file!r}, nothing=np.zeros(3))",
    "np.savez({file!r}, **{{'\\x1b[31mred\\nerror: forged.png': np.zeros(3)}})",
    "np.savez({file!r}, np.zeros((4, 8, 8), np.uint8))",
    "np.save({file!r} + '.npy', np.zeros(3)); Path({file!r} + '.npy').rename({file!r})",
    # A header that asks for 9 GB over a few bytes, and one of 10**18.
    "import zipfile, io\n"
    "def member(shape, kind='|u1'):\n"
    "    text = str({{'descr': kind, 'fortran_order': False, 'shape': shape}}).ljust(117) + '\\n'\n"
    "    return b'\\x93NUMPY\\x01\\x00' + len(text).to_bytes(2, 'little') + text.encode()\n"
    "with zipfile.ZipFile({file!r}, 'w', zipfile.ZIP_DEFLATED) as z:\n"
    "    z.writestr('images.npy', member((150000, 250, 250)) + b'0')\n",
    "import zipfile\n"
    "with zipfile.ZipFile({file!r}, 'w', zipfile.ZIP_DEFLATED) as z:\n"
    "    text = str({{'descr': '|u1', 'fortran_order': False, 'shape': (10**18, 8, 8)}}).ljust(117) + '\\n'\n"
    "    z.writestr('images.npy', b'\\x93NUMPY\\x01\\x00' + len(text).to_bytes(2, 'little') + text.encode())\n",
    "import zipfile\n"
    "with zipfile.ZipFile({file!r}, 'w', zipfile.ZIP_DEFLATED) as z:\n"
    "    text = str({{'descr': '|u1', 'fortran_order': False, 'shape': (9600, 250, 250)}}).ljust(117) + '\\n'\n"
    "    with z.open('images.npy', 'w', force_zip64=True) as f:\n"
    "        f.write(b'\\x93NUMPY\\x01\\x00' + len(text).to_bytes(2, 'little') + text.encode())\n"
    "        for _ in range(600): f.write(bytes(1000000))\n",
    "import zipfile\nwith zipfile.ZipFile({file!r}, 'w') as z: z.writestr('images.npy', b'no array')",
    "import zipfile\nwith zipfile.ZipFile({file!r}, 'w') as z: z.writestr('../outside.npy', b'no array')",
    "np.savez({file!r}, images=np.random.default_rng(0).integers(0, 4096, (6, 8, 8), dtype=np.uint16))",
    "np.savez({file!r}, mask=np.zeros((3, 1, 8, 8), np.float32))",
]


def of_picture(dice: random.Random, path: Path) -> Iterator[dict[str, object]]:
    yield {"do": "python", "code": dice.choice(_PICTURES)}


_PICTURES = [
    "from PIL import Image; Image.new('L', (20000, 20000)).save({file!r})",
    "from PIL import Image; Image.new('1', (60000, 60000)).save({file!r})",
    "from PIL import Image; Image.new('L', (1, 1)).save({file!r})",
    "from PIL import Image; Image.new('L', (1, 3000)).save({file!r})",
    "from PIL import Image; Image.new('RGBA', (8, 8), (1, 2, 3, 0)).save({file!r})",
    "from PIL import Image; Image.new('LA', (8, 8)).save({file!r})",
    "from PIL import Image; Image.new('P', (8, 8)).save({file!r})",
    "from PIL import Image; Image.new('I;16', (8, 8)).save({file!r})",
    "from PIL import Image; Image.new('F', (8, 8)).save({file!r}, 'TIFF')",
    "from PIL import Image; Image.new('CMYK', (8, 8)).save({file!r}, 'JPEG')",
    "from PIL import Image; a = Image.new('L', (8, 8)); a.save({file!r}, 'GIF', save_all=True, append_images=[a] * 3)",
    "import struct, zlib\n"
    "def chunk(kind, data): return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))\n"
    "head = struct.pack('>IIBBBBB', 50000, 50000, 8, 2, 0, 0, 0)\n"
    "Path({file!r}).write_bytes(b'\\x89PNG\\r\\n\\x1a\\n' + chunk(b'IHDR', head) + chunk(b'IDAT', zlib.compress(bytes(100))) + chunk(b'IEND', b''))",
    "import struct, zlib\n"
    "def chunk(kind, data): return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))\n"
    "head = struct.pack('>IIBBBBB', 0, 0, 8, 2, 0, 0, 0)\n"
    "Path({file!r}).write_bytes(b'\\x89PNG\\r\\n\\x1a\\n' + chunk(b'IHDR', head) + chunk(b'IEND', b''))",
    "Path({file!r}).write_text('<svg/>')",
]


def of_folder(dice: random.Random, path: Path) -> Iterator[dict[str, object]]:
    yield {"do": "python", "code": dice.choice(_FOLDERS)}


_FOLDERS = [
    # Folders linked to each other: paths without number.
    "import os\nfor i in range(12): os.mkdir(f'pictures/{{i}}')\n"
    "for i in range(12):\n    for j in range(12): os.symlink(f'../{{j}}', f'pictures/{{i}}/to{{j}}')",
    "import os\nos.chdir('pictures')\nfor _ in range(1200): os.mkdir('d'); os.chdir('d')",
    "import os; os.symlink('/', 'pictures/root')",
    "import os; os.symlink('..', 'pictures/up')",
    "import os; os.symlink('self', 'pictures/self')",
    "import os; os.mkdir('pictures/\\x1b[31mred\\nerror: forged.png'); os.link('picture.png', 'pictures/\\x1b[31mred\\nerror: forged.png/a.png')",
    "import os; os.mkfifo('pictures/cats/pipe.png')",
    "import os; os.symlink('/dev/zero', 'pictures/cats/zero.png')",
    "import os; os.symlink('../../../outside/thesis.tex', 'pictures/cats/thesis.png')",
    "import os; os.rename('pictures/cats', b'pictures/\\xff'.decode(errors='surrogateescape'))",
    "import os; os.mkdir('pictures/a,b'); os.link('picture.png', 'pictures/a,b/a.png')",
    "import shutil; shutil.rmtree('pictures/cats')",
    "Path('pictures/dataset.json').write_text('{{\"labels\": [[\"cats/0.png\", 10000000000]]}}')",
    "Path('pictures/dataset.json').write_text('[' * 20000)",
]


def of_torch(dice: random.Random, path: Path) -> Iterator[dict[str, object]]:
    yield {"do": "python", "code": dice.choice(_TORCHES)}


_LOADED = "found = torch.load({file!r}, weights_only=True)\nstate = found[0] if isinstance(found, list) else found\nname = sorted(state)[2 % len(state)]\n"
_TORCHES = [
    "torch.save({{3: torch.zeros(2)}}, {file!r})",
    "torch.save({{(1, 2): torch.zeros(2), None: torch.zeros(1)}}, {file!r})",
    "torch.save([], {file!r})",
    "torch.save(3, {file!r})",
    "torch.save({{}}, {file!r})",
    "torch.save(torch.zeros(3), {file!r})",
    "torch.save([[[[[]]]]], {file!r})",
    "torch.save({{'a': {{'b': {{'c': torch.zeros(2)}}}}}}, {file!r})",
    "x = {{}}; x['x'] = x; torch.save(x, {file!r})",
    "x = []\nfor _ in range(400): x = [x]\ntorch.save(x, {file!r})",
    "torch.save({{'w': torch.zeros(1).expand(300000000)}}, {file!r})",
    "torch.save({{'\\x1b[31mred\\nerror: forged.png': torch.zeros(2)}}, {file!r})",
    "torch.save({{'w': torch.zeros(2, device='meta')}}, {file!r})",
    "torch.save({{'w': torch.zeros(2, 2).to_sparse()}}, {file!r})",
    "import os\nclass C:\n    def __reduce__(self): return os.system, ('touch ../outside/canary',)\ntorch.save({{'w': C()}}, {file!r})",
    "import pickle; Path({file!r}).write_bytes(pickle.dumps({{'w': 3}}))",
    _LOADED + "state[name] = torch.full_like(state[name], float('nan')); torch.save(found, {file!r})",
    _LOADED + "state[name] = state[name] > 0; torch.save(found, {file!r})",
    _LOADED + "state[name] = state[name].to(torch.complex64); torch.save(found, {file!r})",
    _LOADED + "state[name] = state[name].to_sparse(); torch.save(found, {file!r})",
    _LOADED + "state[name] = torch.zeros(state[name].shape, device='meta'); torch.save(found, {file!r})",
    _LOADED + "state[name] = torch.zeros(1).expand(200000000); torch.save(found, {file!r})",
    _LOADED + "state[name] = 'text'; torch.save(found, {file!r})",
    _LOADED + "state[name] = state[name].reshape(-1)[:1]; torch.save(found, {file!r})",
    _LOADED + "del state[name]; torch.save(found, {file!r})",
    _LOADED + "state[3] = state[name]; torch.save(found, {file!r})",
    _LOADED + "state['more'] = state[name]; torch.save(found, {file!r})",
    _LOADED
    + "state[name] = torch.quantize_per_tensor(state[name], 0.1, 0, torch.qint8); torch.save(found, {file!r})",
]

MAKE: Mapping[str, Callable[[random.Random, Path], Iterator[dict[str, object]]]] = {
    "table": of_table,
    "text": of_text,
    "bytes": of_bytes,
    "size": of_size,
    "kind": of_kind,
    "header": of_header,
    "archive": of_archive,
    "picture": of_picture,
    "torch": of_torch,
    "folder": of_folder,
}
COMMON = ["bytes", "size", "kind", "kind"]
TABLE = ["table"] * 10 + ["text"] * 2 + COMMON
READERS = (INFO, SAMPLE, SAMPLE, PLOT, EVALUATE, RESUME, ODE, ENCODE, EXPORT, GUIDED, INIT)
CATALOGUE: list[tuple[str, list[str], tuple[tuple[str, ...], ...]]] = [
    *((f"{run}/config.toml", TABLE, READERS) for run in RUNS),
    *((f"{run}/model.safetensors", ["header"] * 4 + COMMON, (INFO, SAMPLE, INIT, EVALUATE, EXPORT, GUIDED)) for run in RUNS),
    *((f"{run}/metrics.jsonl", ["text"] * 2 + COMMON, (PLOT, RESUME, INFO)) for run in STORED),
    *((f"{run}/checkpoints/step-00000003/state.json", TABLE, (RESUME,)) for run in STORED),
    *((f"{run}/checkpoints/step-00000003/manifest.json", TABLE, (RESUME, INFO)) for run in STORED),
    *((f"{run}/checkpoints/step-00000003/{file}.safetensors", ["header"] * 2 + COMMON, (RESUME,))
      for run in STORED for file in ("optimizer", "weights", "ema")),
    *((f"{run}/{name}", ["kind"], (INFO, SAMPLE, RESUME)) for run in STORED
      for name in (".lock", "checkpoints", "samples", "evaluation", ".config.toml.partial", "metrics.jsonl", "evaluation/results.jsonl")),
    ("recipe.toml", TABLE, (TRAIN, ("info", "recipe.toml"), UNNAMED, ("plan", "recipe.toml", "--json"))),
    ("images.npz", ["archive"] * 8 + COMMON, (LEARN, JUDGED, ENCODED, CONDITION, TRAIN)),
    ("points.npz", ["archive"] * 4 + COMMON, (LEARN, ("train", "toy-moons", "--data", "{file}", "--run", "new-run", "--steps", "1", "--device", "cpu"))),
    ("latents.npz", ["archive"] + COMMON * 2, (DECODE,)),
    ("pictures/cats/0.png", ["picture"] * 5 + ["folder"] * 5 + COMMON, (
        LEARN_PICTURES,
        ("evaluate", "unet", "--samples", "pictures/cats", "--metrics", "fd", "-n", "4", "--device", "cpu"),
        ("encode", "unet", "pictures", "--steps", "2", "--out", "new.npz", "--device", "cpu"))),
    ("grey.png", ["picture"] * 4 + COMMON, (INPAINT, ENCODED)),
    ("mask.png", ["picture"] * 4 + COMMON, (INPAINT,)),
    ("ncsn.pth", ["torch"] * 8 + COMMON, (NCSN,)),
    ("small.pt", ["torch"] * 4 + COMMON, (("import", "guided-diffusion", "{file}", "--run", "new-run", "--flags", "--image_size 64"),)),
    ("diffusers/unet/config.json", TABLE, (IMPORT,)),
    ("diffusers/scheduler/scheduler_config.json", TABLE, (IMPORT,)),
    ("diffusers/model_index.json", TABLE, (IMPORT,)),
    ("diffusers/unet/diffusion_pytorch_model.safetensors", ["header"] * 3 + COMMON, (IMPORT,)),
    ("digits/folder/manifest.json", TABLE, (("sample", "digits", "--steps", "5", "--label", "7", "--seed", "3", "-n", "2", "--out", "digits/folder"),)),
    ("digits/folder/labels.csv", ["text", "bytes", "kind"], (
        ("evaluate", "unet", "--samples", "digits/folder", "--metrics", "fd", "--device", "cpu"),
        ("sample", "digits", "--steps", "5", "--label", "7", "--seed", "3", "-n", "2", "--out", "digits/folder"))),
]  # fmt: skip
TABLES = [entry for entry in CATALOGUE if entry[1] is TABLE]
# A symlink at a fixed name of a run, pointing to what must not be touched.
LINKED = (
    ".lock",
    ".config.toml.partial",
    "metrics.jsonl",
    "samples",
    "evaluation",
    "checkpoints",
    "model.safetensors",
    "config.toml",
)


class FileMutations:
    """case(i) is the same for the same seed.

    Args:
        work: The folder work/ as it is before any edit.
    """

    name = "files"

    def __init__(self, seed: int, work: Path):
        self.seed, self.work = seed, work

    def case(self, index: int) -> Case:
        dice = random.Random(f"files-{self.seed}-{index}")
        if dice.random() < 0.06:
            return self._linked(dice)
        file, kinds, readers = dice.choice(TABLES if dice.random() < 0.5 else CATALOGUE)
        path = self.work / file
        words = dice.choice(readers)
        run = file.split("/")[0]
        if run in ("diffusers", "pictures"):
            run = "digits"
        filled = tuple(
            word.replace("{run}", run).replace("{file}", file).replace("{recipe}", RECIPES.get(run, ""))
            for word in words
        )
        kind = dice.choice(kinds)
        if not os.path.lexists(path) and kind not in ("kind", "archive", "picture", "torch", "folder"):
            kind = "kind"
        if not os.path.lexists(path):
            edits: list[dict[str, object]] = [
                dice.choice([{"do": "fifo"}, {"do": "folder"}, {"do": "link", "to": "missing"}])
            ]
        else:
            edits = list(MAKE[kind](dice, path))
        for edit in edits:
            if edit["do"] == "python":
                code = str(edit["code"]).replace("{file!r}", repr(file)).replace(repr(_PLACE), repr(file))
                edit["code"] = code.replace("{{", "{").replace("}}", "}")
            else:
                edit["file"] = file
        measures = filled[0] == "plan"  # a few steps of training
        return Case(words=filled, edits=tuple(edits), unbounded=measures)

    def _linked(self, dice: random.Random) -> Case:
        run = dice.choice(STORED)
        name = dice.choice(LINKED)
        up = "../" * 2 + "outside"
        to = f"{up}/checkpoints" if name in ("checkpoints", "samples", "evaluation") else f"{up}/thesis.tex"
        words = dice.choice([RESUME, SAMPLE, INFO, EVALUATE, ODE, PLOT])
        filled = tuple(word.replace("{run}", run).replace("{recipe}", RECIPES[run]) for word in words)
        return Case(words=filled, edits=({"do": "link", "file": f"{run}/{name}", "to": to},))
