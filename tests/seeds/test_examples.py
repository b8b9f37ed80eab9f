"""Every example is run by a test and listed, every printed block held by a test and listed."""

from pathlib import Path

import pytest

from seed_figures import EXAMPLES, PRINTED

HERE = Path(__file__).resolve().parent
NAMES = sorted(path.stem for path in EXAMPLES.glob("*.py"))
BLOCKS = sorted(path.stem for path in PRINTED.glob("*.txt"))


@pytest.fixture(scope="module")
def tests():
    return "".join(path.read_text() for path in HERE.glob("test_*.py"))


def test_there_are_examples_and_blocks():
    assert len(NAMES) > 25 and len(BLOCKS) > 20


@pytest.mark.parametrize("name", NAMES)
def test_an_example_is_run_and_listed(name, tests):
    assert f'"{name}"' in tests
    assert f"`{name}.py`" in (EXAMPLES / "README.md").read_text()
    source = (EXAMPLES / f"{name}.py").read_text()
    assert f"python examples/{name}.py" in source.split('"""')[1]


@pytest.mark.parametrize("block", BLOCKS)
def test_a_block_is_held_and_listed(block, tests):
    assert f'"{block}"' in tests
    assert f"`{block}`" in (EXAMPLES.parent / "docs" / "seeds.md").read_text()
