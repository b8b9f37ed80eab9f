"""MultiLayerNet, MultiLayerNetExtend and Trainer, and dataset.mnist."""

import numpy as np
import pytest

import cnn_core as cc
from cnn_core.book.common.multi_layer_net import MultiLayerNet
from cnn_core.book.common.multi_layer_net_extend import MultiLayerNetExtend
from cnn_core.book.common.optimizer import Adam, Nesterov
from cnn_core.book.common.trainer import Trainer
from cnn_core.book.dataset import mnist


@pytest.fixture
def data():
    rng = np.random.default_rng(15)
    x = rng.random((12, 6)).astype(np.float32)
    return x, rng.integers(0, 4, 12)


def seeded(make, *args, seed=2, **kwargs):
    np.random.seed(seed)  # noqa: NPY002
    return make(*args, **kwargs)


# ---- networks ------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [MultiLayerNet, MultiLayerNetExtend])
@pytest.mark.parametrize(
    ("std", "scales"),
    [
        (0.01, [0.01, 0.01, 0.01]),
        ("relu", [np.sqrt(2 / 6), np.sqrt(2 / 5), np.sqrt(2 / 3)]),
        ("He", [np.sqrt(2 / 6), np.sqrt(2 / 5), np.sqrt(2 / 3)]),
        ("xavier", [np.sqrt(1 / 6), np.sqrt(1 / 5), np.sqrt(1 / 3)]),
        ("sigmoid", [np.sqrt(1 / 6), np.sqrt(1 / 5), np.sqrt(1 / 3)]),
    ],
)
def test_weights_are_drawn_layer_by_layer(make, std, scales):
    net = seeded(make, 6, [5, 3], 4, weight_init_std=std)
    np.random.seed(2)  # noqa: NPY002
    for number, (shape, scale) in enumerate(zip([(6, 5), (5, 3), (3, 4)], scales, strict=True), 1):
        drawn = scale * np.random.randn(*shape)  # noqa: NPY002
        np.testing.assert_array_equal(net.params[f"W{number}"], drawn)
        np.testing.assert_array_equal(net.params[f"b{number}"], np.zeros(shape[1]))
    assert net.layers["Affine2"].W is net.params["W2"]


def test_layers_have_the_names_and_order_of_the_book():
    net = MultiLayerNetExtend(6, [5, 3], 4, "sigmoid", use_dropout=True, use_batchnorm=True)
    hidden = [f"{name}{n}" for n in (1, 2)
              for name in ("Affine", "BatchNorm", "Activation_function", "Dropout")]  # fmt: skip
    assert list(net.layers) == [*hidden, "Affine3"]
    order = ["W1", "b1", "W2", "b2", "W3", "b3", "gamma1", "beta1", "gamma2", "beta2"]
    assert list(net.params) == order
    assert type(net.layers["Activation_function1"]).__name__ == "Sigmoid"
    assert net.layers["BatchNorm2"].gamma is net.params["gamma2"]


NETS = {
    "plain": (MultiLayerNet, {}),
    "decay": (MultiLayerNet, {"weight_decay_lambda": 0.3, "activation": "sigmoid"}),
    "extended decay": (MultiLayerNetExtend, {"weight_decay_lambda": 0.3}),
    "batch norm": (MultiLayerNetExtend, {"use_batchnorm": True}),
    "dropout": (MultiLayerNetExtend, {"use_dropout": True, "dropout_ration": 0.3}),
    "all": (
        MultiLayerNetExtend,
        {"use_dropout": True, "use_batchnorm": True, "weight_decay_lambda": 0.1},
    ),
}


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("one_hot", [True, False])
def test_gradient_equals_numerical_gradient(data, name, one_hot):
    make, options = NETS[name]
    net = seeded(make, 6, [5, 4], 4, **options)
    rng = np.random.default_rng(1)
    for value in net.params.values():  # off the points where ReLU has a corner
        value += 0.1 * rng.standard_normal(value.shape)
    x, labels = data
    t = np.eye(4)[labels] if one_hot else labels
    if "use_dropout" in options:
        # The same mask for every loss.
        loss = net.loss
        net.loss = lambda x, t, train_flg=False: seeded(loss, x, t, train_flg=train_flg)
    grads, slopes = net.gradient(x, t), net.numerical_gradient(x, t)
    middle = ["gamma1", "beta1"] if "use_batchnorm" in options else []
    assert list(slopes)[: 3 + len(middle)] == ["W1", "b1", *middle, "W2"]
    assert slopes.keys() == grads.keys() == net.params.keys()
    for key, slope in slopes.items():
        # The loss has a 1e-7 in its logarithm that its gradient leaves out.
        np.testing.assert_allclose(grads[key], slope, rtol=3e-5, atol=5e-6, err_msg=key)


def test_the_loss_has_the_weight_decay_and_half_of_it(data):
    x, t = data
    plain = seeded(MultiLayerNet, 6, [5], 4)
    decay = seeded(MultiLayerNet, 6, [5], 4, weight_decay_lambda=0.2)
    squares = sum(np.sum(plain.params[name] ** 2) for name in ("W1", "W2"))
    assert decay.loss(x, t) == pytest.approx(plain.loss(x, t) + 0.1 * squares, rel=1e-13)


@pytest.mark.parametrize("name", NETS)
def test_accuracy_of_labels_and_one_hot_rows(data, name):
    make, options = NETS[name]
    net = seeded(make, 6, [5, 4], 4, **options)
    x, t = data
    net.gradient(x, t)  # running means of a batch normalization
    predicted = net.predict(x).argmax(axis=1)
    share = np.mean(predicted == t)
    assert net.accuracy(x, t) == net.accuracy(x, np.eye(4)[t]) == share
    np.testing.assert_array_equal(net.predict(x), net.predict(x))  # inference draws nothing


# ---- trainer -------------------------------------------------------------------------------------


class Counter:
    """A network that writes down what a trainer asks of it."""

    def __init__(self):
        self.params = {"W": np.array([10.0])}
        self.batches, self.evaluated = [], []

    def gradient(self, x, t):
        self.batches.append((x, t))
        return {"W": np.array([1.0])}

    def loss(self, x, t):
        return float(self.params["W"][0])

    def accuracy(self, x, t):
        self.evaluated.append(len(x))
        return len(x) / 100


X, T, X_TEST, T_TEST = np.arange(40.0), np.arange(40) + 7, np.arange(30.0), np.arange(30)


def test_trainer_draws_updates_records_and_prints(capsys):
    net = Counter()
    np.random.seed(9)  # noqa: NPY002
    trainer = Trainer(net, X, T, X_TEST, T_TEST, epochs=2, mini_batch_size=20,
                      optimizer_param={"lr": 0.5}, evaluate_sample_num_per_epoch=10)  # fmt: skip
    trainer.train()
    np.random.seed(9)  # noqa: NPY002
    for x, t in net.batches:
        chosen = np.random.choice(40, 20)  # noqa: NPY002
        np.testing.assert_array_equal(x, X[chosen])
        np.testing.assert_array_equal(t, T[chosen])
    assert trainer.train_loss_list == [9.5, 9.0, 8.5, 8.0]  # after the update
    assert trainer.train_acc_list == trainer.test_acc_list == [0.1, 0.1]
    assert net.evaluated == [10, 10, 10, 10, 30]
    assert (trainer.current_iter, trainer.current_epoch, trainer.max_iter) == (4, 2, 4)
    assert capsys.readouterr().out.splitlines() == [
        "train loss:9.5",
        "=== epoch:1, train acc:0.1, test acc:0.1 ===",
        "train loss:9.0",
        "train loss:8.5",
        "=== epoch:2, train acc:0.1, test acc:0.1 ===",
        "train loss:8.0",
        "=============== Final Test Accuracy ===============",
        "test acc:0.3",
    ]


def test_trainer_is_quiet_and_evaluates_all_by_default(capsys):
    net = Counter()
    trainer = Trainer(net, X, T, X_TEST, T_TEST, epochs=1, mini_batch_size=100, verbose=False)
    assert type(trainer.optimizer).__name__ == "SGD" and trainer.optimizer.lr == 0.01
    trainer.train()
    assert trainer.iter_per_epoch == 1 and len(net.batches[0][0]) == 100
    assert net.evaluated == [40, 30, 30]
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("name", "kind"), [("Adam", Adam), ("NESTEROV", Nesterov), ("nesterov", Nesterov)]
)
def test_trainer_finds_optimizers_by_name(name, kind):
    options = {"optimizer": name, "optimizer_param": {"lr": 0.2}}
    trainer = Trainer(Counter(), X, T, X_TEST, T_TEST, **options)
    assert type(trainer.optimizer) is kind and trainer.optimizer.lr == 0.2


# ---- data ----------------------------------------------------------------------------------------


def test_the_digits_are_those_of_the_package():
    (x, t), (x_test, t_test) = mnist.load_mnist(normalize=False, flatten=False)
    assert x.shape == (mnist.train_num, *mnist.img_dim)
    assert x_test.shape == (mnist.test_num, *mnist.img_dim)
    assert mnist.img_size == 784
    assert x.dtype == t.dtype == t_test.dtype == np.uint8
    np.testing.assert_array_equal(t[:5], [5, 0, 4, 1, 9])
    rows = mnist._change_one_hot_label(t[:5])
    assert rows.dtype == np.float64
    np.testing.assert_array_equal(rows, np.eye(10)[t[:5]])


def test_the_files_have_the_names_of_the_book():
    assert sorted(mnist.key_file) == ["test_img", "test_label", "train_img", "train_label"]
    paths = {key: f"{mnist.dataset_dir}/{name}" for key, name in mnist.key_file.items()}
    assert cc.datasets.read_idx(paths["test_label"]).shape == (10000,)
    assert cc.datasets.read_idx(paths["test_img"]).shape == (10000, 28, 28)
    assert cc.datasets.read_idx(paths["train_label"]).shape == (60000,)
