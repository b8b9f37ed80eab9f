"""The command line: what it prints, what it writes, and how it fails."""

import builtins
import gzip
import json
import os
import signal
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import cnn_core as cc
from cnn_core import _commands, config, serialization
from cnn_core.cli import main

JSON_KEYS = {"model", "dataset", "epochs", "test_accuracy", "train_seconds", "parameters"}
JSON_KEYS |= {"threads", "isa", "dtype"}


def write_idx(path, array):
    head = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    path.write_bytes(gzip.compress(head + array.astype(np.uint8).tobytes()))


def make_images(n, seed):
    """Pictures of 6 x 6 with one bright row: the class is which row."""
    rng = np.random.default_rng(seed)
    t = np.arange(n) % 3
    x = rng.integers(0, 60, (n, 6, 6))
    x[np.arange(n), 2 * t] = 255
    return x, t


@pytest.fixture(scope="module")
def data_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("idx")
    for part, n, seed in (("train", 240, 0), ("t10k", 60, 1)):
        x, t = make_images(n, seed)
        write_idx(folder / f"{part}-images-idx3-ubyte.gz", x)
        write_idx(folder / f"{part}-labels-idx1-ubyte.gz", t)
    return str(folder)


@pytest.fixture(scope="module")
def model_file(data_folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("model")
    options = ["--epochs", "10", "--hidden", "16", "--batch-size", "20", "--quiet"]
    assert main(["train", "--data", data_folder, "--out", str(out), *options]) == 0
    return str(out / "model.safetensors")


@pytest.fixture
def run(tmp_path, monkeypatch, capfd):
    """Run a command in an empty folder; returns its exit code and what it printed."""
    monkeypatch.chdir(tmp_path)

    def call(*argv):
        capfd.readouterr()
        try:
            code = main([str(word) for word in argv])
        except SystemExit as end:
            code = end.code
        return code, *capfd.readouterr()

    return call


def failed(result, code, *words):
    """The command ended with this code and explained it, in one line at its end."""
    got, _, err = result
    assert got == code and "Traceback" not in err, err
    lines = err.strip().splitlines()
    assert code == 2 or len(lines) == 1, err
    for word in words:
        assert word in lines[-1], err


# ---- train ---------------------------------------------------------------------------------------


def test_train_prints_a_line_per_epoch_and_writes_three_files(run, data_folder, tmp_path):
    pytest.importorskip("matplotlib")
    code, out, err = run("train", "--data", data_folder, "--epochs", 3, "--out", "deep/run")
    assert code == 0 and not err and out.count("\nepoch ") == 3
    assert "240 training and 60 test images of 6 x 6, 3 classes" in out
    assert cc.ops.native_config()["isa"] in out
    folder = tmp_path / "deep" / "run"
    assert sorted(os.listdir(folder)) == ["curves.png", "history.json", "model.safetensors"]
    assert (folder / "curves.png").read_bytes().startswith(b"\x89PNG")
    history = json.loads((folder / "history.json").read_text())
    assert set(history) == {"loss", "accuracy", "val_loss", "val_accuracy", "seconds"}
    assert all(len(values) == 3 for values in history.values())
    for name in os.listdir(folder):
        assert str(Path("deep", "run", name)) in out


def test_the_written_model_is_the_trained_one(run, data_folder):
    code, out, _ = run(
        "train",
        "--data",
        data_folder,
        "--epochs",
        5,
        "--model",
        "multi_layer",
        "--hidden",
        12,
        7,
        "--activation",
        "tanh",
        "--dtype",
        "float64",
        "--seed",
        5,
        "--batch-size",
        16,
        "--json",
    )
    result = json.loads(out.splitlines()[-1])
    net = serialization.load_model("cnn-core-run/model.safetensors")
    x, t = make_images(60, 1)
    assert code == 0 and net.accuracy(x.astype(np.uint8), t) == result["test_accuracy"]
    assert [type(layer) for layer in net.layers] == [
        cc.Affine,
        cc.Tanh,
        cc.Affine,
        cc.Tanh,
        cc.Affine,
    ]
    assert net.seed == 5 and net.dtype == np.float64 and net.output_shape == (3,)
    assert [layer.units for layer in net.layers[::2]] == [12, 7, 3]


def test_the_options_reach_the_training(run, data_folder):
    code, _, _ = run(
        "train",
        "--data",
        data_folder,
        "--model",
        "two_layer",
        "--epochs",
        2,
        "--lr",
        0.05,
        "--momentum",
        0.5,
        "--batch-size",
        7,
        "--sampling",
        "replacement",
        "--hidden",
        9,
        "--seed",
        3,
        "--weight-init-std",
        0.2,
        "--limit-train",
        50,
        "--threads",
        1,
        "--quiet",
    )
    assert code == 0
    (x, t), _ = cc.datasets.load_idx(data_folder, normalize=False)
    net = cc.models.two_layer_net(36, 9, 3, weight_init_std=0.2, seed=3)
    cc.Trainer(net, cc.SGD(0.05, 0.5)).fit(
        x[:50], t[:50], epochs=2, batch_size=7, sampling="replacement", verbose=False
    )
    loaded = serialization.load_model("cnn-core-run/model.safetensors")
    assert loaded.flat_params.tobytes() == net.flat_params.tobytes()


def test_json_is_the_only_thing_on_stdout(run, data_folder):
    code, out, err = run("train", "--data", data_folder, "--epochs", 2, "--json")
    assert code == 0 and out.count("\n") == 1 and err.count("epoch ") == 2
    result = json.loads(out)
    assert result.keys() >= JSON_KEYS
    assert result["model"] == _commands.DEFAULT_MODEL and result["dataset"] == data_folder
    assert result["epochs"] == 2 and result["dtype"] == "float32"
    assert 0 <= result["test_accuracy"] <= 1 and result["train_seconds"] > 0
    assert result["parameters"] == 36 * 256 + 256 + 256 * 3 + 3


def test_quiet_is_quiet(run, data_folder):
    assert run("train", "--data", data_folder, "--epochs", 1, "--quiet") == (0, "", "")
    code, out, err = run("train", "--data", data_folder, "--epochs", 1, "--quiet", "--json")
    assert code == 0 and not err and json.loads(out)["epochs"] == 1


def test_the_seeds_program_reports_after_the_first_update_of_each_epoch(run):
    code, out, _ = run(
        "train",
        "--model",
        "two_layer",
        "--activation",
        "sigmoid",
        "--iterations",
        27,
        "--epochs",
        9,
        "--sampling",
        "replacement",
        "--report",
        "book",
        "--limit-train",
        400,
        "--quiet",
    )
    assert code == 0 and not out
    history = json.loads(Path("cnn-core-run/history.json").read_text())
    (x, t), test = cc.datasets.load_mnist(normalize=False)
    x, t = x[:400], t[:400]
    # Four updates of 100 rows are an epoch: reports follow updates 1, 5, 9, ..., 25.
    net = cc.models.two_layer_net(activation="sigmoid")
    assert [layer.units for layer in net.layers[::2]] == [50, 10]
    trainer = cc.Trainer(net, cc.SGD(0.1))
    expected = []
    for update in range(27):
        if update % 4 == 0:
            order = trainer.rng.integers(0, 400, 400)
        rows = order[update % 4 * 100 :][:100]
        trainer.step(x[rows], t[rows])
        if update % 4 == 0:
            expected.append((*net.evaluate(x, t), *net.evaluate(*test)))
    names = ("loss", "accuracy", "val_loss", "val_accuracy")
    assert len(expected) == 7
    np.testing.assert_allclose(np.transpose([history[name] for name in names]), expected, 1e-5)
    loaded = serialization.load_model("cnn-core-run/model.safetensors")
    np.testing.assert_allclose(loaded.params["W1"], net.params["W1"], rtol=0, atol=1e-6)


def test_ten_thousand_updates_of_the_seeds_are_17_lines(run, data_folder):
    options = ["--data", data_folder, "--sampling", "replacement", "--report", "book"]
    options += ["--batch-size", 24, "--iterations", 167]
    # 240 rows by 24 are 10 updates per epoch: the same 16 2/3 epochs as 10,000 of 600.
    code, out, _ = run("train", "--epochs", 17, *options)
    assert code == 0 and out.count("\nepoch ") == 17
    code, out, _ = run("train", *options)
    assert code == 0 and out.count("\nepoch ") == 17
    assert "after 167 updates" in out


def test_the_number_of_threads_is_put_back(run, data_folder, threads):
    threads(2)
    code, out, _ = run("train", "--data", data_folder, "--epochs", 1, "--threads", 1, "--json")
    assert code == 0 and json.loads(out)["threads"] == 1 and cc.get_num_threads() == 2


def test_a_diverged_training_is_still_json(run, data_folder):
    code, out, err = run("train", "--data", data_folder, "--lr", 1e30, "--epochs", 2, "--json")
    assert code == 0 and "smaller --lr" in err

    def refuse(name):
        raise AssertionError(name)

    assert json.loads(out, parse_constant=refuse)["test_loss"] is None
    text = Path("cnn-core-run/history.json").read_text()
    assert None in json.loads(text, parse_constant=refuse)["loss"]


def test_without_matplotlib_training_goes_on(run, data_folder, monkeypatch):
    hide(monkeypatch, "matplotlib")
    code, out, err = run("train", "--data", data_folder, "--epochs", 1)
    assert code == 0 and not err and "pip install 'cnn-core[plot]'" in out
    assert sorted(os.listdir("cnn-core-run")) == ["history.json", "model.safetensors"]


def hide(monkeypatch, package):
    """Let imports of a package fail, as if it were not installed."""
    real_import = builtins.__import__

    def without(name, *args, **kwargs):
        if name.split(".")[0] == package:
            raise ModuleNotFoundError(f"No module named {name!r}")
        return real_import(name, *args, **kwargs)

    for name in [name for name in sys.modules if name.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "__import__", without)


# ---- evaluate, predict, gradcheck, info ----------------------------------------------------------


def test_evaluate_prints_the_confusion_matrix(run, data_folder, model_file):
    code, out, err = run("evaluate", model_file, "--data", data_folder)
    assert code == 0 and not err and "accuracy 1.0000" in out
    assert [line.split() for line in out.splitlines()[-3:]] == [
        ["0", "20", "0", "0"],
        ["1", "0", "20", "0"],
        ["2", "0", "0", "20"],
    ]
    code, out, _ = run("evaluate", model_file, "--data", data_folder, "--json")
    result = json.loads(out)
    assert code == 0 and result["accuracy"] == 1 and result["loss"] > 0
    assert result["confusion_matrix"] == np.diag([20, 20, 20]).tolist()


@pytest.mark.parametrize("loss", [cc.MeanSquaredError, cc.BinaryCrossEntropy])
def test_evaluate_takes_losses_on_rows(loss, run, data_folder):
    net = cc.Sequential([cc.Affine(3)], input_shape=(36,), loss=loss())
    net.save("m")
    x, t = make_images(60, 1)
    code, out, _ = run("evaluate", "m", "--data", data_folder, "--json")
    assert code == 0
    expected = net.loss(x.astype(np.uint8), np.eye(3)[t])
    assert json.loads(out)["loss"] == pytest.approx(expected, rel=1e-6)


def save_picture(path, pixels, mode="L", size=None):
    image = pytest.importorskip("PIL.Image").fromarray(pixels.astype(np.uint8)).convert(mode)
    (image if size is None else image.resize(size)).save(path)
    return str(path)


def test_predict_reads_pictures_of_many_kinds(run, model_file, tmp_path):
    Image = pytest.importorskip("PIL.Image")
    x, t = make_images(3, 5)
    paths = []
    for pixels in x:
        name = f"{len(paths)}"
        paths += [
            save_picture(tmp_path / f"{name}.png", pixels),
            save_picture(tmp_path / f"{name}.light.png", 255 - pixels),
            save_picture(tmp_path / f"{name}.jpg", 255 - pixels, "RGB", (60, 60)),
            save_picture(tmp_path / f"{name}.palette.png", pixels, "P"),
            save_picture(tmp_path / f"{name}.gif", pixels, size=(30, 30)),
        ]
        deep = Image.fromarray(pixels.astype(np.uint16) * 257)
        deep.save(tmp_path / f"{name}.16bit.png")
        see_through = np.zeros((6, 6, 4), np.uint8)
        see_through[..., 3] = pixels
        Image.fromarray(see_through).save(tmp_path / f"{name}.alpha.png")
        paths += [str(tmp_path / f"{name}.16bit.png"), str(tmp_path / f"{name}.alpha.png")]
    code, out, err = run("predict", model_file, *paths, "--json")
    assert code == 0, err
    predictions = json.loads(out)["predictions"]
    assert [entry["file"] for entry in predictions] == paths
    assert [entry["class"] for entry in predictions] == np.repeat(t, 7).tolist()
    assert all(1 / 3 < entry["probability"] <= 1 for entry in predictions)


def test_predict_prints_the_softmax_of_the_untouched_pixels(run, model_file, tmp_path):
    x, _ = make_images(1, 7)
    path = save_picture(tmp_path / "one.png", x[0])
    code, out, err = run("predict", model_file, path)
    scores = serialization.load_model(model_file).predict(x.astype(np.uint8))[0].astype(float)
    shares = np.exp(scores) / np.exp(scores).sum()
    assert (code, err) == (0, "") and out == f"{path}: {scores.argmax()} ({shares.max():.4f})\n"


def test_predict_does_not_apply_softmax_twice(run, tmp_path):
    net = cc.Sequential(
        [cc.Flatten(), cc.Affine(3), cc.Softmax()],
        input_shape=(1, 6, 4),
        loss=cc.MeanSquaredError(),
    )
    net.save("m")
    pixels = np.random.default_rng(0).integers(0, 99, (6, 4))
    path = save_picture(tmp_path / "one.png", pixels)
    code, out, _ = run("predict", "m", path, "--json")
    expected = net.predict(pixels.astype(np.uint8)[np.newaxis, np.newaxis]).max()
    assert code == 0
    assert json.loads(out)["predictions"][0]["probability"] == pytest.approx(expected, rel=1e-6)


def test_predict_without_pillow_names_the_extra(run, model_file, monkeypatch):
    hide(monkeypatch, "PIL")
    failed(run("predict", model_file, "x.png"), 1, "pip install 'cnn-core[images]'")


@pytest.mark.parametrize("content", [b"", b"no picture", b"\x89PNG\r\n\x1a\n" + b"\0" * 40])
def test_predict_refuses_what_is_no_picture(content, run, model_file, tmp_path):
    pytest.importorskip("PIL")
    (tmp_path / "x.png").write_bytes(content)
    failed(run("predict", model_file, "x.png"), 1, "x.png", "picture")


def test_predict_refuses_networks_that_take_no_pictures(run, tmp_path):
    path = save_picture(tmp_path / "one.png", np.zeros((6, 6)))
    for shape, units, word in (((7,), 3, "(7,)"), ((36,), 1, "one output")):
        cc.Sequential([cc.Affine(units)], input_shape=shape).save("m")
        failed(run("predict", "m", path), 1, word)


@pytest.mark.parametrize("activation", ["relu", "sigmoid"])
def test_gradcheck_passes(activation, run):
    options = ["--activation", activation, "--hidden", 6, "--json"]
    code, out, err = run("gradcheck", *options)
    result = json.loads(out)
    assert code == 0 and result["passed"] and "all within" in err
    assert set(result["differences"]) == {"W1", "b1", "W2", "b2"}
    # As small as what seed 002 prints, or smaller.
    bounds = {"W1": 4.8e-10, "b1": 2.9e-9, "W2": 6.5e-9, "b2": 1.4e-7}
    assert all(value <= bounds[name] for name, value in result["differences"].items())


@pytest.mark.parametrize("wrong", [1e-5, np.nan])
def test_gradcheck_fails_on_a_wrong_gradient(wrong, run, monkeypatch):
    right = cc.Sequential.gradient

    def gradient(self, x, t):
        found = right(self, x, t)
        found["b1"][0] += wrong * 6
        return found

    monkeypatch.setattr(cc.Sequential, "gradient", gradient)
    code, out, _ = run("gradcheck", "--hidden", 6, "--rows", 2)
    assert code == 1 and out.count("FAILED") == 1
    assert next(line for line in out.splitlines() if "FAILED" in line).startswith("b1")


def test_info_tells_what_show_config_tells(run, capfd):
    code, out, _ = run("info")
    assert cc.config.show_config() is None
    assert code == 0 and out == capfd.readouterr().out
    values = json.loads(run("info", "--json")[1])
    assert values == config.config()
    assert values["numpy"] == np.__version__ and values["threads"] == cc.get_num_threads()
    assert values["isa"] in values["isas"] and values["isa"] in out


def test_a_serial_build_says_so(monkeypatch, capsys):
    native = {**cc.ops.native_config(), "openmp": 0}
    monkeypatch.setattr(cc.ops, "native_config", lambda: native)
    config.show_config()
    assert "none (serial build)" in capsys.readouterr().out
    assert config.config()["openmp"] is None


# ---- failures ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "word"),
    [
        ([], "COMMAND"),
        (["fly"], "fly"),
        (["train", "--epochs", "0"], "--epochs"),
        (["train", "--epochs", "1.5"], "--epochs"),
        (["train", "--lr", "nan"], "--lr"),
        (["train", "--lr", "-1"], "--lr"),
        (["train", "--momentum", "2"], "--momentum"),
        (["train", "--threads", "0"], "--threads"),
        (["train", "--threads", "99999"], "--threads"),
        (["train", "--hidden"], "--hidden"),
        (["train", "--model", "huge"], "huge"),
        (["train", "--dtype", "int8"], "int8"),
        (["train", "--seed", "-1"], "--seed"),
        (["evaluate"], "MODEL"),
        (["predict", "m"], "IMAGE"),
    ],
)
def test_wrong_options_end_with_2(argv, word, run):
    failed(run(*argv), 2, word)


def test_wrong_files_end_with_1(run, data_folder, model_file, tmp_path):
    (tmp_path / "junk").write_bytes(b"junk" * 100)
    (tmp_path / "empty").mkdir()
    failed(run("train", "--data", "nowhere"), 1, "nowhere")
    failed(run("train", "--data", "empty"), 1, "empty", "train-images")
    failed(run("train", "--data", data_folder, "--out", "junk"), 1, "junk")
    failed(
        run("train", "--data", data_folder, "--model", "two_layer", "--hidden", 3, 4),
        1,
        "--hidden",
        "two_layer",
    )
    failed(run("train", "--data", data_folder, "--hidden", 10**13), 1)
    failed(run("evaluate", "nowhere"), 1, "nowhere")
    failed(run("evaluate", "junk"), 1, "junk", "safetensors")
    failed(run("evaluate", "empty"), 1, "empty")
    failed(run("evaluate", model_file, "--data", "mnist"), 1, "label 9", "3 classes")
    failed(run("predict", model_file, "nowhere.png"), 1, "nowhere.png")


def test_images_of_another_size_are_refused(run, data_folder):
    cc.Sequential([cc.Affine(3)], input_shape=(49,)).save("m")
    failed(run("evaluate", "m", "--data", data_folder), 1, "49")


def test_the_folder_is_tried_before_the_training(run, data_folder, monkeypatch, tmp_path):
    (tmp_path / "file").write_bytes(b"")

    def fit(*args, **kwargs):
        raise AssertionError("trained")

    monkeypatch.setattr(cc.Trainer, "fit", fit)
    failed(run("train", "--data", data_folder, "--out", "file/run"), 1, "file")


def test_an_interrupt_ends_with_130(run, data_folder, monkeypatch):
    def fit(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(cc.Trainer, "fit", fit)
    code, _, err = run("train", "--data", data_folder)
    assert code == 130 and err == "cnn-core: interrupted\n"


def test_an_error_of_ours_is_not_hidden(run, data_folder, monkeypatch):
    def fit(*args, **kwargs):
        raise TypeError("a bug")

    monkeypatch.setattr(cc.Trainer, "fit", fit)
    with pytest.raises(TypeError, match="a bug"):
        run("train", "--data", data_folder)


# ---- as a process --------------------------------------------------------------------------------


def start(*argv, how=("-m", "cnn_core"), cwd=None):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, *how, *map(str, argv)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env=environment, cwd=cwd, stdout=pipe, stderr=pipe)


def test_the_module_runs(tmp_path, data_folder):
    argv = ["train", "--data", data_folder, "--epochs", 1, "--json"]
    with start(*argv, cwd=tmp_path) as process:
        out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert json.loads(out.splitlines()[-1]).keys() >= JSON_KEYS
    with start("evaluate", "nowhere", cwd=tmp_path) as process:
        out, err = process.communicate(timeout=120)
    assert process.returncode == 1 and b"Traceback" not in err and b"nowhere" in err


@pytest.mark.skipif(os.name != "posix", reason="signals and pipes of POSIX")
def test_closed_pipes_and_interrupts_are_quiet(tmp_path, data_folder):
    with start("info", cwd=tmp_path) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode in (0, 1)
    endless = ["train", "--data", data_folder, "--epochs", 10**9, "--batch-size", 1]
    with start(*endless, cwd=tmp_path) as process:
        while not process.stdout.readline().startswith(b"epoch"):
            pass
        process.send_signal(signal.SIGINT)
        process.stdout.read()
        assert process.stderr.read() == b"cnn-core: interrupted\n"
    assert process.returncode == 130


def test_nothing_heavy_is_imported_early():
    code = (
        "import sys, cnn_core.cli; cnn_core.cli.make_parser();"
        "print([m for m in ('matplotlib', 'PIL', 'tqdm', 'safetensors') if m in sys.modules])"
    )
    with start(how=("-c", code)) as process:
        out, err = process.communicate(timeout=60)
    assert out.strip() == b"[]", err


def test_help_names_the_defaults_of_each_model(run):
    code, out, _ = run("train", "--help")
    assert code == 0 and "two_layer 50, multi_layer 256" in " ".join(out.split())
