"""Scripts that import the book's modules, run as `python -m cnn_core.book SCRIPT.py` runs them."""

import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from cnn_core.book import load_params

NAMES = ["functions", "gradient", "layers", "multi_layer_net", "multi_layer_net_extend"]
NAMES += ["optimizer", "trainer", "util"]
MODULES = ["common", *(f"common.{name}" for name in NAMES), "dataset", "dataset.mnist"]

#: What lies where the book's own modules lie, and must not be found.
OTHER = "raise ImportError('the other one')\n"


@pytest.fixture
def book(tmp_path):
    """A folder like the book's: chapters beside `common` and `dataset`."""
    for module in MODULES:
        path = tmp_path.joinpath(*module.split("."))
        if "." in module:
            path.with_suffix(".py").write_text(OTHER)
        else:
            path.mkdir()
            (path / "__init__.py").write_text(OTHER)
    (tmp_path / "ch07").mkdir()

    def write(name, text):
        path = tmp_path / name
        path.write_text(textwrap.dedent(text))
        return path

    return write


def run(*arguments, cwd=None, check=True, options=()):
    command = [sys.executable, *options, "-m", "cnn_core.book", *map(str, arguments)]
    environment = os.environ | {"MPLBACKEND": "Agg"}
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, env=environment)
    if check:
        assert done.returncode == 0, done.stderr
    return done


HEAD = """
    # coding: utf-8
    import sys, os
    sys.path.append(os.pardir)
"""


def test_a_script_finds_our_modules_and_its_own_neighbours(book, tmp_path):
    book("ch07/tiny_net.py", HEAD + """
    from common.layers import *
    from common.gradient import numerical_gradient
    class TinyNet:
        def __init__(self):
            self.layer = Affine(np.ones((3, 2)), np.zeros(2))
    """)  # fmt: skip
    book("ch07/notes.txt", "beside the script")
    script = book("ch07/script.py", HEAD + """
    import common.layers, dataset.mnist
    from tiny_net import TinyNet
    from common.util import *
    print(__name__, sys.argv, os.path.basename(__file__), os.path.basename(os.getcwd()))
    print(open("notes.txt").read(), TinyNet().layer.forward(np.ones((1, 3))))
    print(common.layers.Affine.__module__, dataset.mnist.load_mnist.__module__)
    print(sys.modules["__main__"].TinyNet is TinyNet, im2col.__module__)
    """)  # fmt: skip
    wanted = [
        "__main__ ['script.py', 'one', '--two'] script.py ch07",
        "beside the script [[3. 3.]]",
        "cnn_core.book.common.layers cnn_core.datasets.mnist",
        "True cnn_core.book.common.util",
    ]
    for place, name in ((tmp_path, script), (tmp_path / "ch07", "script.py"), ("/", script)):
        done = run(name, "one", "--two", cwd=place)
        assert done.stdout.splitlines() == wanted
    assert run(script, "one", "--two", options=["-P"]).stdout.splitlines() == wanted


def test_other_modules_of_common_are_the_scripts_own(book):
    book("common/mine.py", "from common.functions import softmax\nvalue = 3\n")
    script = book("ch07/script.py", HEAD + """
    import common.mine
    from common.mine import value, softmax
    print(common.mine.value, softmax.__module__)
    try:
        import common.nothing
    except ModuleNotFoundError as error:
        print(error)
    try:
        import common.layers.nothing
    except ModuleNotFoundError as error:
        print(error.name)
    """)  # fmt: skip
    assert run(script).stdout.splitlines() == [
        "3 cnn_core.book.common.functions",
        "No module named 'common.nothing'",
        "common.layers.nothing",
    ]


def test_a_convolutional_script_trains_and_saves(book, tmp_path):
    book("ch07/net.py", HEAD + """
    import pickle
    from collections import OrderedDict
    from common.layers import *

    class Net:
        def __init__(self):
            shapes = {"W1": (4, 1, 5, 5), "W2": (4 * 144, 10)}
            self.params = {k: 0.01 * np.random.randn(*shape) for k, shape in shapes.items()}
            self.params |= {"b1": np.zeros(4), "b2": np.zeros(10)}
            p = self.params
            self.layers = OrderedDict(conv=Convolution(p["W1"], p["b1"]), relu=Relu(),
                                      pool=Pooling(pool_h=2, pool_w=2, stride=2),
                                      affine=Affine(p["W2"], p["b2"]))
            self.last = SoftmaxWithLoss()
        def predict(self, x):
            for layer in self.layers.values():
                x = layer.forward(x)
            return x
        def loss(self, x, t):
            return self.last.forward(self.predict(x), t)
        def accuracy(self, x, t):
            return np.mean(np.argmax(self.predict(x), axis=1) == t)
        def gradient(self, x, t):
            self.loss(x, t)
            dout = self.last.backward(1)
            for layer in reversed(self.layers.values()):
                dout = layer.backward(dout)
            conv, affine = self.layers["conv"], self.layers["affine"]
            return {"W1": conv.dW, "b1": conv.db, "W2": affine.dW, "b2": affine.db}
    """)  # fmt: skip
    script = book("ch07/train.py", HEAD + """
    import pickle
    import numpy as np
    import matplotlib.pyplot as plt
    from dataset.mnist import load_mnist
    from net import Net
    from common.trainer import Trainer
    np.random.seed(3)
    (x_train, t_train), (x_test, t_test) = load_mnist(flatten=False)
    net = Net()
    trainer = Trainer(net, x_train[:1000], t_train[:1000], x_test[:500], t_test[:500], epochs=8,
                      mini_batch_size=50, optimizer="Adam", optimizer_param={"lr": 0.005})
    trainer.train()
    with open("params.pkl", "wb") as f:
        pickle.dump(net.params, f)
    plt.plot(trainer.test_acc_list)
    plt.show()
    print(net.loss(x_test[:7], t_test[:7]))
    np.save("scores.npy", net.predict(x_test[:7]))
    """)  # fmt: skip
    printed = run(script).stdout.splitlines()
    assert 2.2 < float(printed[0].removeprefix("train loss:")) < 2.4
    assert [line.split(",")[0] for line in printed if "epoch" in line] == [
        f"=== epoch:{number}" for number in range(1, 9)
    ]
    assert float(printed[-2].removeprefix("test acc:")) > 0.85
    # The same network in plain NumPy, from the file that the script has written.
    params = load_params(tmp_path / "ch07" / "params.pkl")
    scores = np.load(tmp_path / "ch07" / "scores.npy")
    import cnn_core as cc

    x, t = (array[:7] for array in cc.datasets.load_mnist(flatten=False)[1])
    windows = np.lib.stride_tricks.sliding_window_view(x[:, 0].astype(float), (5, 5), (1, 2))
    y = np.einsum("nyxij,fij->nfyx", windows, params["W1"][:, 0]) + params["b1"][:, None, None]
    y = np.maximum(y, 0).reshape(7, 4, 12, 2, 12, 2).max(axis=(3, 5))
    plain = y.reshape(7, -1) @ params["W2"] + params["b2"]
    np.testing.assert_allclose(scores, plain, rtol=1e-11, atol=1e-11)
    p = np.exp(plain) / np.exp(plain).sum(axis=1, keepdims=True)
    loss = -np.mean(np.log(p[np.arange(7), t] + 1e-7))
    assert float(printed[-1]) == pytest.approx(loss, rel=1e-11)


def test_errors_and_exit_codes_are_the_scripts(book, tmp_path):
    failed = run(book("ch07/a.py", "import sys\nsys.exit(7)\n"), check=False)
    assert failed.returncode == 7
    failed = run(book("ch07/b.py", "x = 1\nraise ValueError('of the script')\n"), check=False)
    assert failed.returncode == 1
    assert failed.stderr.endswith("ValueError: of the script\n")
    assert "b.py\", line 2, in <module>\n    raise ValueError('of the script')" in failed.stderr
    failed = run(book("ch07/c.py", "x = = 1\n"), check=False)
    assert failed.returncode == 1 and "SyntaxError" in failed.stderr
    for words in ([tmp_path / "nothing.py"], [tmp_path], []):
        failed = run(*words, check=False)
        assert failed.returncode == 2 and "script" in failed.stderr
        assert "Traceback" not in failed.stderr


def test_install_lets_a_notebook_import_them(book, tmp_path):
    code = """
    import sys
    sys.path.insert(0, "..")
    import cnn_core.book
    cnn_core.book.install()
    cnn_core.book.install()
    import common.layers
    from dataset.mnist import load_mnist
    print(common.layers.__name__, sum(type(f).__name__ == "_OtherModules" for f in sys.meta_path))
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(command, cwd=tmp_path / "ch07", capture_output=True, text=True)
    assert done.stdout == "cnn_core.book.common.layers 1\n", done.stderr
