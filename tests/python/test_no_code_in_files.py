"""No file that the library reads can run code: nothing in it unpickles or evaluates."""

import ast
from pathlib import Path

import pytest

import cnn_core as cc

PYTHON = Path(cc.__file__).parent
#: modules and functions that run what stands in data, and the keyword that lets NumPy do so
FORBIDDEN = {
    *("pickle", "cPickle", "_pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib"),
    *("eval", "exec", "__import__", "allow_pickle", "read_pickle", "literal_eval"),
}


def names_of(tree):
    """Every name, attribute, keyword and imported module of a source."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (part for alias in node.names for part in alias.name.split("."))
        elif isinstance(node, ast.ImportFrom):
            yield from (node.module or "").split(".")
            yield from (alias.name for alias in node.names)
        elif isinstance(node, (ast.Name, ast.Attribute)):
            yield node.id if isinstance(node, ast.Name) else node.attr
        elif isinstance(node, ast.keyword) and node.arg:
            yield node.arg


#: what stands here, and why
ALLOWED = {
    "book/_params.py": {"pickle"},  # its Unpickler knows no class, see tests/python/book
    "book/_modules.py": {"exec"},  # runs the script that the user names
}


@pytest.mark.parametrize(
    "path", sorted(PYTHON.rglob("*.py")), ids=lambda path: path.relative_to(PYTHON).as_posix()
)
def test_nothing_runs_what_a_file_says(path):
    found = set(names_of(ast.parse(path.read_text()))) & FORBIDDEN
    assert found == ALLOWED.get(path.relative_to(PYTHON).as_posix(), set())


def test_the_unpickler_of_the_book_is_the_restricted_one():
    tree = ast.parse((PYTHON / "book" / "_params.py").read_text())
    used = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and getattr(node.value, "id", "") == "pickle"
    }
    assert used == {"Unpickler", "UnpicklingError"}
