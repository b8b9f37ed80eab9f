"""The command line: evaluate, predict, gradcheck, bench, info, and how commands fail."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import cnn_core as cc
from cli_tools import JSON_KEYS, failed, hide, make_images
from cnn_core import _bench, config, serialization

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


def test_evaluate_writes_pictures(run, data_folder, model_file, tmp_path):
    pytest.importorskip("matplotlib")
    options = ["--data", data_folder, "--plots", "deep/plots"]
    code, out, err = run("evaluate", model_file, *options)
    folder = tmp_path / "deep" / "plots"
    assert code == 0 and not err and "wrote" in out
    assert sorted(os.listdir(folder)) == ["confusion_matrix.png", "misclassified.png"]
    for name in os.listdir(folder):
        assert (folder / name).read_bytes().startswith(b"\x89PNG")
        assert str(Path("deep", "plots", name)) in out
    plots = json.loads(run("evaluate", model_file, *options, "--json")[1])["plots"]
    assert [Path(path).name for path in plots] == ["confusion_matrix.png", "misclassified.png"]
    assert json.loads(run("evaluate", model_file, *options[:2], "--json")[1])["plots"] == []


def test_evaluate_with_pictures_needs_matplotlib_and_a_folder(
    run, data_folder, model_file, monkeypatch
):
    Path("file").write_bytes(b"")
    failed(run("evaluate", model_file, "--data", data_folder, "--plots", "file"), 1, "file")
    hide(monkeypatch, "matplotlib")
    options = ["--data", data_folder, "--plots", "plots"]
    failed(run("evaluate", model_file, *options), 1, "pip install 'cnn-core[plot]'")


@pytest.mark.parametrize("loss", [cc.MeanSquaredError, cc.BinaryCrossEntropy])
def test_evaluate_takes_losses_on_rows(loss, run, data_folder):
    net = cc.Sequential([cc.Affine(3)], input_shape=(100,), loss=loss())
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
        see_through = np.zeros((10, 10, 4), np.uint8)
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
    path = save_picture(tmp_path / "one.png", np.zeros((10, 10)))
    for shape, units, word in (((7,), 3, "(7,)"), ((100,), 1, "one output")):
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


@pytest.mark.parametrize("model", ["quick_conv_net", "grokking_conv_net"])
def test_gradcheck_of_convolutions_keeps_off_the_kinks(model, run):
    code, out, _ = run("gradcheck", "--model", model, "--rows", 2, "--json")
    result = json.loads(out)
    assert code == 0 and result["passed"]
    assert {"W1", "b1", "W2", "b2"} <= set(result["differences"])
    assert all(value < 1e-8 for value in result["differences"].values())


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


def test_bench_times_steps_and_kernels(run):
    options = ["two_layer", "--seconds", 0.01, "--batch-size", 20]
    code, out, err = run("bench", *options)
    assert code == 0 and not err
    line = next(line for line in out.splitlines() if line.startswith("two_layer")).split()
    assert line[1:4] == ["20", "39,760", "1"] and float(line[4].replace(",", "")) > 0
    code, out, _ = run("bench", *options, "--kernels", "--threads", 1, "--json")
    result = json.loads(out)
    assert code == 0 and [step["threads"] for step in result["steps"]] == [1]
    (table,) = result["kernels"]
    kernels = {(kernel["layer"], kernel["name"]): kernel for kernel in table["kernels"]}
    assert all(kernel["seconds"] > 0 for kernel in table["kernels"])
    counted = {key: kernel["multiply_adds"] for key, kernel in kernels.items() if kernel["gflops"]}
    hidden, last = "Affine 50, ReLU", "Affine 10"
    wide, narrow = 20 * 784 * 50, 20 * 50 * 10
    assert counted == {
        **{(hidden, name): wide for name in ("forward", "dW")},
        **{(last, name): narrow for name in ("forward", "dx", "dW")},
    }
    assert table["step_microseconds"] > 0 and ("SGD", "update") in kernels


@pytest.mark.parametrize("model", ["grokking_conv_net", "deep_conv_net"])
def test_bench_times_the_kernels_of_convolutions(model, run):
    options = ["--seconds", 0, "--batch-size", 2, "--threads", 1, "--kernels", "--json"]
    code, out, _ = run("bench", model, *options)
    kernels = json.loads(out)["kernels"][0]["kernels"]
    first = [kernel for kernel in kernels if kernel["layer"].startswith("Conv2D 16 3x3")]
    side = 26 if model == "grokking_conv_net" else 28
    counts = {k["name"]: k["multiply_adds"] for k in first[:2] + first[-2:]}
    assert code == 0 and counts["forward"] == counts["dW"] == 2 * side**2 * 16 * 9
    assert counts["pack"] == counts["sum of parts"] == 0


def test_bench_does_not_time_layers_in_python():
    class Twice(cc.Layer):
        def forward(self, x, training=False):
            return 2 * x

        def backward(self, dout):
            return 2 * dout

    net = cc.Sequential([cc.Affine(3), Twice()], input_shape=(4,))
    x, t = np.zeros((5, 4), np.float32), np.zeros(5, np.int64)
    with pytest.raises(ValueError, match="kernels: a step of this network"):
        _bench.kernel_times(cc.Trainer(net, cc.SGD(0.1)), x, t, 5, 0)


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
        (["train", "--optimizer", "magic"], "magic"),
        (["train", "--schedule", "zigzag"], "zigzag"),
        (["train", "--weight-decay", "-1"], "--weight-decay"),
        (["train", "--seed", "-1"], "--seed"),
        (["evaluate"], "MODEL"),
        (["predict", "m"], "IMAGE"),
        (["bench", "huge"], "huge"),
        (["bench", "--seconds", "-1"], "--seconds"),
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
    failed(run("train", "--data", data_folder, "--model", "multi_layer", "--hidden", 10**13), 1)
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


def start(*argv, how=("-m", "cnn_core"), cwd=None, **more):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, *how, *map(str, argv)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env=environment, cwd=cwd, stdout=pipe, stderr=pipe, **more)


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
    # A shell's background job ignores interrupts, and so do its children.
    heard = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}
    with start(*endless, cwd=tmp_path, **heard) as process:
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
