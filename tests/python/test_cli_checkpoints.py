"""`cnn-core train` that is interrupted, terminated, killed, and goes on with --resume."""

import json
import os
import signal
import struct
import subprocess
import sys
import time

import pytest

from cli_tools import failed
from cnn_core import checkpoints
from training_runs import Run, soon

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
FILE = "checkpoint.safetensors"
# About a second of small updates, with all that a checkpoint has to hold.
EPOCHS = 15  # a signal has to come before the last one ends
OPTIONS = ["--model", "deep_conv_net", "--epochs", EPOCHS, "--batch-size", 5, "--seed", 4]
OPTIONS += ["--early-stopping", EPOCHS, "--clip-norm", 5]


def start(*argv, cwd):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}

    def hear():  # a shell's background job ignores interrupts, and so do its children
        signal.signal(signal.SIGINT, signal.default_int_handler)

    return subprocess.Popen(
        [sys.executable, "-m", "cnn_core", *map(str, argv)],
        env=environment,
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=hear,
        text=True,
    )


def wait_for(process, word):
    """Read to a line that begins so."""
    while not (line := process.stdout.readline()).startswith(word):
        assert line, process.stderr.read()


def stop(process, number):
    """Send a signal after the first epoch; what the process then says until it ends."""
    wait_for(process, "epoch")
    time.sleep(0.02)
    process.send_signal(number)
    return process.communicate(timeout=60)


def without_seconds(folder):
    history = json.loads((folder / "history.json").read_text())
    return {name: values for name, values in history.items() if name != "seconds"}


@pytest.fixture(scope="module")
def whole(data_folder, tmp_path_factory):
    """The folder of a training that was never stopped."""
    folder = tmp_path_factory.mktemp("whole")
    with start("train", "--data", data_folder, *OPTIONS, cwd=folder) as process:
        assert process.wait() == 0
    return folder / "cnn-core-run"


def assert_same(folder, whole):
    assert (folder / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    assert without_seconds(folder) == without_seconds(whole)


@pytest.mark.parametrize(
    ("number", "code", "word"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")],
)
def test_a_signal_leaves_a_checkpoint_and_resume_goes_on(
    number, code, word, whole, data_folder, tmp_path
):
    out = tmp_path / "cnn-core-run"
    with start("train", "--data", data_folder, *OPTIONS, cwd=tmp_path) as process:
        said, err = stop(process, number)
    assert process.returncode == code and err == f"cnn-core: {word}\n"
    assert "cnn-core train --resume cnn-core-run" in said
    assert sorted(os.listdir(out)) == [FILE, "history.json"]
    epochs = len(without_seconds(out)["loss"])
    assert 1 <= epochs < EPOCHS
    with start("train", "--resume", out, cwd=tmp_path) as process:
        said, err = process.communicate(timeout=60)
    assert process.returncode == 0 and not err
    assert said.count("\nepoch ") == EPOCHS - epochs
    assert_same(out, whole)


def test_killed_with_checkpoints(whole, data_folder, tmp_path):
    argv = ["train", "--data", data_folder, *OPTIONS, "--checkpoint-every", 3, "--out", "a/b"]
    with start(*argv, cwd=tmp_path) as process:
        stop(process, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    done = checkpoints.read(tmp_path / "a" / "b").metadata["position"]["done"]
    assert done >= 48 and done % 3 == 0
    with start("train", "--resume", "a/b", "--quiet", cwd=tmp_path) as process:
        assert process.communicate(timeout=60) == ("", "")
    assert_same(tmp_path / "a" / "b", whole)
    assert (
        json.loads(
            checkpoints.read(tmp_path / "a" / "b").notes["options"].__repr__().replace("'", '"')
        )["checkpoint_every"]
        == 3
    )


def test_a_folder_for_the_checkpoints(run, whole, data_folder, tmp_path):
    code, _, _ = run("train", "--data", data_folder, *OPTIONS, "--checkpoint", "kept", "--out", "a")
    assert code == 0 and os.listdir(tmp_path / "kept") == [FILE]
    assert FILE not in os.listdir(tmp_path / "a")
    # It has ended: nothing is trained, the results are written again.
    code, out, _ = run("train", "--resume", "kept", "--out", "b", "--json", "--threads", 1)
    result = json.loads(out)
    assert code == 0 and (result["epochs"], result["iterations"]) == (EPOCHS, 48 * EPOCHS)
    assert result["out"] == "b" and result["model"] == "deep_conv_net"
    assert_same(tmp_path / "b", whole)
    for name in os.listdir(tmp_path / "a"):
        if name != "curves.png":
            assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_without_an_interrupt_nothing_more_is_written(run, data_folder, tmp_path):
    assert run("train", "--data", data_folder, "--epochs", 1)[0] == 0
    names = os.listdir(tmp_path / "cnn-core-run")
    assert not [name for name in names if "checkpoint" in name]


@pytest.fixture(scope="module")
def stopped(data_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("stopped")
    with start("train", "--data", data_folder, *OPTIONS, cwd=folder) as process:
        stop(process, signal.SIGTERM)
    return folder / "cnn-core-run"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--lr", 0.5], ["--lr: expected None", "got 0.5"]),
        (["--epochs", 9], [f"--epochs: expected {EPOCHS}", FILE, "got 9"]),
        (["--model", "lenet5"], ["--model: expected deep_conv_net", "got lenet5"]),
        (["--seed", 1], ["--seed: expected 4", "got 1"]),
        (["--hidden", 7], ["--hidden", "7"]),
        (["--limit-train", 100], ["--limit-train: expected None", "got 100"]),
        (["--data", "mnist"], [FILE, "network: ", "as in the checkpoint"]),
    ],
    ids=str,
)
def test_other_options_are_refused(options, words, run, stopped):
    before = (stopped / FILE).read_bytes()
    failed(run("train", "--resume", stopped, *options), 1, *words)
    assert (stopped / FILE).read_bytes() == before
    assert not (stopped / "model.safetensors").exists()


def test_the_same_options_may_be_given_again(run, stopped, data_folder, whole, tmp_path):
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / FILE).write_bytes((stopped / FILE).read_bytes())
    assert run("train", "--data", data_folder, *OPTIONS, "--resume", copy, "--quiet")[0] == 0
    assert_same(copy, whole)


def test_nothing_to_resume(run, tmp_path):
    failed(run("train", "--resume", "nowhere"), 1, "nowhere")
    tmp_path.joinpath("empty").mkdir()
    failed(run("train", "--resume", "empty"), 1, FILE)


def edited(path, target, **options):
    """A checkpoint whose kept options are others."""
    data = path.read_bytes()
    (size,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + size])
    entry = json.loads(header["__metadata__"]["cnn_core_checkpoint"])
    entry["notes"]["options"].update(options)
    header["__metadata__"]["cnn_core_checkpoint"] = json.dumps(entry)
    text = json.dumps(header).encode()
    target.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + size :])


@pytest.mark.parametrize(
    "options",
    [
        {"out": "elsewhere"},
        {"run": "x"},
        {"resume": "x"},
        {"help": True},
        {"no_such_option": 1},
        {"lr": "much"},
        {"hidden": ["--out", "elsewhere"]},
        {"seed": {"a": 1}},
        {"model": None},
    ],
    ids=str,
)
def test_options_of_a_hostile_file(options, run, stopped, tmp_path):
    edited(stopped / FILE, tmp_path / FILE, **options)
    failed(run("train", "--resume", tmp_path), 1, FILE, "notes: expected")
    assert os.listdir(tmp_path) == [FILE]


def test_a_checkpoint_of_a_program_is_not_for_the_command_line(run, stopped, tmp_path):
    Run("usual", tmp_path / "own").fit()
    failed(run("train", "--resume", "own"), 1, FILE, "notes: expected a checkpoint of cnn-core")


def test_two_trainings_in_one_folder(data_folder, tmp_path, run):
    endless = ["--data", data_folder, "--epochs", 10**6, "--batch-size", 1]
    with start("train", *endless, cwd=tmp_path) as process:
        wait_for(process, "epoch")
        result = run("train", "--data", data_folder, "--epochs", 1)
        failed(result, 1, "cnn-core-run", "another training")
        stop(process, signal.SIGINT)
    assert process.returncode == 130
    assert sorted(os.listdir(tmp_path / "cnn-core-run")) == [FILE, "history.json"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_stops_soon(number, data_folder, tmp_path):
    """0.2 s until checkpoint and history are written and the process has ended, at best of five."""
    endless = ["train", "--data", data_folder, "--epochs", 10**6, "--batch-size", 20]
    waited = []
    for _ in range(5):
        with start(*endless, cwd=tmp_path) as process:
            wait_for(process, "epoch")
            process.send_signal(number)
            began = time.perf_counter()
            wait_for(process, "stopped after")
            process.communicate(timeout=60)
            waited.append(time.perf_counter() - began)
    assert min(waited) < soon()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    "argv",
    [
        ["gradcheck", "--model", "lenet5", "--rows", 1000],
        ["gradcheck", "--model", "two_layer", "--hidden", 500, "--rows", 2000],
        ["bench", "--seconds", 60],
    ],
    ids=str,
)
def test_other_commands(argv, number, run):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(number))
    signal.setitimer(signal.ITIMER_REAL, 0.5)
    try:
        code, _, err = run(*argv)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, before)
    word = "interrupted" if number == signal.SIGINT else "terminated"
    assert (code, err) == (128 + number, f"cnn-core: {word}\n")
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
