"""`cnn-core train`: what it prints, what it writes, and which training it runs."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

import cnn_core as cc
from cli_tools import JSON_KEYS, failed, hide, make_images
from cnn_core import _recipes, serialization


def test_train_prints_a_line_per_epoch_and_writes_three_files(run, data_folder, tmp_path):
    pytest.importorskip("matplotlib")
    code, out, err = run("train", "--data", data_folder, "--epochs", 3, "--out", "deep/run")
    assert code == 0 and not err and out.count("\nepoch ") == 3
    assert "240 training and 60 test images of 10 x 10, 3 classes" in out
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
    net = cc.models.two_layer_net(100, 9, 3, weight_init_std=0.2, seed=3)
    cc.Trainer(net, cc.SGD(0.05, 0.5)).fit(
        x[:50], t[:50], epochs=2, batch_size=7, sampling="replacement", verbose=False
    )
    loaded = serialization.load_model("cnn-core-run/model.safetensors")
    assert loaded.flat_params.tobytes() == net.flat_params.tobytes()


def fit_by_hand(net, optimizer, data_folder, callbacks=(), **arguments):
    (x, t), _ = cc.datasets.load_idx(data_folder, normalize=False, flatten=False)
    cc.Trainer(net, optimizer, callbacks).fit(x, t, verbose=False, **arguments)
    return net.flat_params.tobytes()


SCHEDULES = {
    "constant": cc.schedules.Constant(),
    "step": cc.schedules.StepDecay(),
    "exponential": cc.schedules.ExponentialDecay(),
    "inverse": cc.schedules.InverseTimeDecay(),
    "cosine": cc.schedules.CosineDecay(warmup=0.1),
}


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_every_schedule_reaches_the_training(schedule, run, data_folder):
    options = ["--model", "two_layer", "--schedule", schedule, "--epochs", 3, "--quiet"]
    assert run("train", "--data", data_folder, *options)[0] == 0
    net = cc.models.two_layer_net(100, 50, 3)
    callbacks = [cc.LearningRateSchedule(SCHEDULES[schedule])]
    expected = fit_by_hand(net, cc.SGD(0.1), data_folder, callbacks, epochs=3)
    loaded = serialization.load_model("cnn-core-run/model.safetensors")
    assert loaded.flat_params.tobytes() == expected


@pytest.mark.parametrize(
    ("options", "optimizer"),
    [
        (["--optimizer", "adam"], cc.Adam()),
        (
            ["--optimizer", "adam", "--lr", 0.02, "--weight-decay", 0.1],
            cc.Adam(0.02, weight_decay=0.1),
        ),
        (["--optimizer", "adamw"], cc.AdamW()),
        (["--optimizer", "adamw", "--weight-decay", 0.2], cc.AdamW(weight_decay=0.2)),
        (["--optimizer", "sgd"], cc.SGD(0.2, 0.9)),
        (["--optimizer", "sgdw", "--momentum", 0.5], cc.SGDW(0.1, 0.5)),
        (["--optimizer", "adagrad", "--weight-decay", 0.1], cc.AdaGrad(weight_decay=0.1)),
        (["--optimizer", "rmsprop"], cc.RMSprop()),
        (["--optimizer", "rmsprop", "--momentum", 0.5], cc.RMSprop(momentum=0.5)),
        (["--clip-norm", 0.01], cc.SGD(0.2, 0.9, clip_norm=0.01)),
        (["--momentum", 0.5, "--weight-decay", 0.1], cc.SGD(0.2, 0.5, weight_decay=0.1)),
    ],
    ids=str,
)
def test_every_optimizer_reaches_the_training(options, optimizer, run, data_folder):
    options = ["--model", "multi_layer", "--hidden", 9, "--epochs", 2, "--json", *options]
    code, out, _ = run("train", "--data", data_folder, *options)
    result = json.loads(out)
    assert code == 0 and result["schedule"] == "constant"
    assert result["optimizer"] == type(optimizer).__name__.lower()
    net = cc.models.multi_layer_net(100, [9], 3)
    expected = fit_by_hand(net, optimizer, data_folder, epochs=2, batch_size=200)
    loaded = serialization.load_model("cnn-core-run/model.safetensors")
    assert loaded.flat_params.tobytes() == expected


def test_early_stopping_keeps_the_best_network(run, data_folder):
    options = ["--model", "two_layer", "--lr", 30, "--epochs", 50, "--early-stopping", 2, "--json"]
    code, out, _ = run("train", "--data", data_folder, *options)
    result, history = json.loads(out), json.loads(Path("cnn-core-run/history.json").read_text())
    assert code == 0 and 3 <= result["epochs"] < 50
    assert np.argmin(history["val_loss"]) == result["epochs"] - 3
    assert result["test_loss"] == min(history["val_loss"])


CONV_MODELS = {
    "quick_conv_net": cc.models.quick_conv_net,
    "grokking_conv_net": cc.models.grokking_conv_net,
    "simple_conv_net": cc.models.simple_conv_net,
    "lenet5": cc.models.lenet5,
    "deep_conv_net": cc.models.deep_conv_net,
}


def test_the_models_of_the_command_line_are_those_of_the_package():
    assert set(_recipes.MODELS) == {"two_layer", "multi_layer", *CONV_MODELS}


@pytest.mark.parametrize("model", CONV_MODELS)
def test_the_convolutional_models_train(model, run):
    options = ["--model", model, "--limit-train", 60, "--iterations", 2, "--batch-size", 20]
    code, out, _ = run("train", *options, "--seed", 3, "--lr", 0.01, "--json")
    result = json.loads(out)
    assert code == 0 and (result["optimizer"], result["schedule"]) == ("adam", "cosine")
    (x, t), _ = cc.datasets.load_mnist(normalize=False, flatten=False)
    net = CONV_MODELS[model](seed=3)
    cosine = cc.LearningRateSchedule(SCHEDULES["cosine"])
    cc.Trainer(net, cc.Adam(0.01), [cosine]).fit(
        x[:60], t[:60], batch_size=20, iterations=2, verbose=False
    )
    loaded = serialization.load_model("cnn-core-run/model.safetensors")
    assert loaded.flat_params.tobytes() == net.flat_params.tobytes()
    assert loaded.get_config() == net.get_config()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--model", "lenet5", "--hidden", 9], ["--hidden", "lenet5"]),
        (["--hidden", 9], ["--hidden", "quick_conv_net"]),
        (["--model", "deep_conv_net", "--hidden", 9, 8], ["--hidden", "one hidden size"]),
        (["--model", "grokking_conv_net", "--activation", "relu"], ["--activation", "grokking"]),
        (["--weight-init-std", 0.1], ["--weight-init-std", "quick_conv_net"]),
        (["--momentum", 0.5], ["--momentum", "adam"]),
        (["--optimizer", "adagrad", "--momentum", 0.5], ["--momentum", "adagrad"]),
        (["--clip-norm", 0], ["clip_norm", "> 0"]),
    ],
    ids=str,
)
def test_options_that_a_model_does_not_have_are_refused(options, words, run, data_folder):
    failed(run("train", "--data", data_folder, *options), 1, *words)


def test_json_is_the_only_thing_on_stdout(run, data_folder):
    code, out, err = run("train", "--data", data_folder, "--epochs", 2, "--json")
    assert code == 0 and out.count("\n") == 1 and err.count("epoch ") == 2
    result = json.loads(out)
    assert result.keys() >= JSON_KEYS
    assert result["model"] == _recipes.DEFAULT_MODEL and result["dataset"] == data_folder
    assert result["epochs"] == 2 and result["dtype"] == "float32"
    assert 0 <= result["test_accuracy"] <= 1 and result["train_seconds"] > 0
    net = cc.models.quick_conv_net((1, 10, 10), 3)
    assert result["parameters"] == net.n_params


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
