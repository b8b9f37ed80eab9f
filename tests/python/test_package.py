"""The house rules: what is imported from where, and what an import costs."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import cnn_core as cc

ROOT = Path(__file__).resolve().parents[2]
PYTHON = ROOT / "python" / "cnn_core"

# A module may import those of its own line and of the lines above it.
ROOMS = [
    {
        "_native",
        "_checks",
        "_memory",
        "_cpus",
        "_locks",
        "_include",
        "_tensors",
        "_views",
        "_weights",
        "_files",
        "_interrupts",
        "_pace",
        "_figures",
        "initializers",
        "datasets",
        "metrics",
    },
    {"ops"},
    {"losses", "layers", "image_layers", "_optimizer", "optimizers", "config"},
    {"book"},
    {"parts", "blocks", "image_blocks", "sparse_block", "segments", "plan", "gradient_check"},
    {"_inputs"},
    {"network"},
    {
        "callbacks",
        "schedules",
        "models",
        "serialization",
        "trainer",
        "_fit",
        "checkpoints",
        "_pictures",
        "_image_plots",
        "_fingerprint",
    },
    {"plotting", "_recipes"},
    {"_commands", "_bench", "cli", "__main__"},
]


def modules():
    for path in sorted(PYTHON.rglob("*.py")):
        name = path.relative_to(PYTHON).with_suffix("").parts[0]
        if name != "__init__":
            yield name, path


def imports_of(path):
    """Modules of this package that a module imports when it is imported itself."""
    tree = ast.parse(path.read_text())
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.module == "cnn_core":
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("cnn_core."):
            yield node.module.split(".")[1]


@pytest.mark.parametrize(("name", "path"), list(modules()), ids=lambda value: str(value))
def test_imports_point_down(name, path):
    room = next((i for i, names in enumerate(ROOMS) if name in names), None)
    assert room is not None, f"{name} has no room in this table"
    below = set().union(*ROOMS[: room + 1])
    native = {stub.stem for stub in PYTHON.glob("_*.pyi")}
    wanted = set(imports_of(path)) - {name}
    if name in ("_native", "ops"):
        wanted -= native
    assert not wanted & native, "only _native and ops import the native half"
    assert wanted <= below


def sources():
    """All files of the project's own that are written by hand."""
    suffixes = {".py", ".pyi", ".pyx", ".pxd", ".h", ".c"}
    folders = ("cnn_core", "python", "tests", "examples", "benchmarks")
    files = [path for folder in folders for path in sorted((ROOT / folder).rglob("*"))]
    return [path for path in (*files, ROOT / "setup.py") if path.suffix in suffixes]


def test_no_file_has_500_lines():
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in sources()}
    assert len(lengths) > 200
    assert [f"{path}: {length}" for path, length in lengths.items() if length >= 500] == []


def test_python_started_in_the_checkout_imports_the_installed_package():
    assert not (ROOT / "cnn_core" / "__init__.py").exists()
    command = [sys.executable, "-c", "import cnn_core; print(cnn_core.__file__)"]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert Path(found.strip()).resolve() == Path(cc.__file__).resolve()
    assert Path(found.strip()).resolve().parent != ROOT / "cnn_core"


def test_what_an_import_leaves_alone():
    heavy = ("matplotlib", "PIL", "safetensors", "tqdm", "scipy", "torch", "Cython")
    code = f"import sys, cnn_core; print([m for m in {heavy} if m in sys.modules])"
    command = [sys.executable, "-c", code]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "[]\n"


def test_every_public_name_is_there():
    assert [name for name in cc.__all__ if not hasattr(cc, name)] == []
    assert cc.load is cc.serialization.load_model
