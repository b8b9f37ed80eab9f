"""The convolutional net of Grokking Deep Learning, chapter 10, without the faults of the seed.

The same sixteen 3x3 kernels, tanh, dropout of one half and softmax, on the same first 1,000 images
of MNIST in batches of 128; but every position of the window counts (26x26, not 25x25), the kernels
descend, gradients are the true ones of the dropped-out net and means over the batch, there are
biases, and no image is left out:

    python examples/grokking_chapter10_conv_correct.py --epochs 12

After six epochs it knows more than 80% of the test images; grokking_chapter10_conv.py knows 5%
then, and 40% after twelve. With `--images 60000` it trains on all of MNIST, and knows 93% after
ten.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator

import cnn_core as cc

IMAGES, BATCH = 1000, 128
# The seed's 2, which it divides by the size of the batch once too often, makes this net diverge.
LR = 0.1


def accuracies(epochs: int, images: int = IMAGES, seed: int = 0) -> Iterator[tuple[float, float]]:
    """Train, and give the accuracy on the training and on all test images after each epoch.

    Both without dropout, unlike the seed's training accuracy, which is counted while it trains.
    """
    (x_train, t_train), (x_test, t_test) = cc.datasets.load_mnist(normalize=False, flatten=False)
    x_train, t_train = x_train[:images], t_train[:images]
    net = cc.models.grokking_conv_net(seed=seed)
    trainer = cc.Trainer(net, cc.SGD(lr=LR))
    for _ in range(epochs):
        trainer.fit(x_train, t_train, batch_size=BATCH, verbose=False)
        yield net.accuracy(x_train, t_train), net.accuracy(x_test, t_test)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--epochs", type=int, default=12, help="default: 12")
    parser.add_argument("--images", type=int, default=IMAGES, help=f"default: the first {IMAGES:,}")
    parser.add_argument("--seed", type=int, default=0, help="of weights, masks, order; default: 0")
    arguments = parser.parse_args()
    if arguments.epochs < 1 or not 1 <= arguments.images <= 60_000 or arguments.seed < 0:
        parser.error("expected --epochs >= 1, --images in 1..60000 and --seed >= 0")
    began = time.perf_counter()
    figures = accuracies(arguments.epochs, arguments.images, arguments.seed)
    for epoch, (train, test) in enumerate(figures):
        print(f"I: {epoch}   Train_acc: {train:.4f}   Test_acc: {test:.4f}", flush=True)
    print(f"{arguments.epochs} epochs in {time.perf_counter() - began:.1f} s")


if __name__ == "__main__":
    main()
