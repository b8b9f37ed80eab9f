"""Deep Learning from Scratch (Saito), chapter 4: load MNIST, train, draw the curves; seed 001.

The net of saito_chapter04_two_layer_net.py, and the picture of both accuracies against epochs:

    python examples/saito_chapter04_curves.py --output curves.png

Needs matplotlib: pip install 'cnn-core[plot]'. Ten seconds.
"""

import argparse

import cnn_core as cc


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--iterations", type=int, default=10_000, help="default: 10000")
    parser.add_argument("--output", default="curves.png", help="default: curves.png")
    arguments = parser.parse_args()

    (x_train, t_train), (x_test, t_test) = cc.datasets.load_mnist(
        normalize=True, flatten=True, one_hot_label=True
    )
    net = cc.models.two_layer_net(784, 50, 10, activation="sigmoid")
    history = cc.Trainer(net, cc.SGD(lr=0.1)).fit(
        x_train,
        t_train,
        epochs=17,
        iterations=arguments.iterations,
        batch_size=100,
        sampling="replacement",
        report="book",
        validation_data=(x_test, t_test),
        verbose=False,
    )
    curves = {name: history[name] for name in ("accuracy", "val_accuracy")}
    for train_acc, test_acc in zip(*curves.values(), strict=True):
        print(f"train acc, test acc | {train_acc}, {test_acc}")
    cc.plotting.plot_history(curves, arguments.output)


if __name__ == "__main__":
    main()
