"""Fixtures of the tests of the command line."""

import pytest

from cli_tools import make_images, write_idx


@pytest.fixture(scope="session")
def data_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("idx")
    for part, n, seed in (("train", 240, 0), ("t10k", 60, 1)):
        x, t = make_images(n, seed)
        write_idx(folder / f"{part}-images-idx3-ubyte.gz", x)
        write_idx(folder / f"{part}-labels-idx1-ubyte.gz", t)
    return str(folder)


@pytest.fixture(scope="session")
def model_file(data_folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("model")
    options = ["--model", "multi_layer", "--epochs", "10", "--hidden", "16", "--batch-size", "20"]
    options.append("--quiet")
    from cnn_core.cli import main

    assert main(["train", "--data", data_folder, "--out", str(out), *options]) == 0
    return str(out / "model.safetensors")


@pytest.fixture
def run(tmp_path, monkeypatch, capfd):
    """Run a command in an empty folder; returns its exit code and what it printed."""
    from cnn_core.cli import main

    monkeypatch.chdir(tmp_path)

    def call(*argv):
        capfd.readouterr()
        try:
            code = main([str(word) for word in argv])
        except SystemExit as end:
            code = end.code
        return code, *capfd.readouterr()

    return call
