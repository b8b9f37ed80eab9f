"""Grokking Deep Learning, chapter 6: the first deep network, trained by back-propagation.

python examples/grokking_chapter06_deep_net.py
"""

import numpy as np

import cnn_core as cc

STREETLIGHTS = np.array([[1, 0, 1], [0, 1, 1], [0, 0, 1], [1, 1, 1]])
WALK_VS_STOP = np.array([1, 1, 0, 0])
ALPHA, HIDDEN_SIZE = 0.2, 4


def main() -> None:
    random = np.random.RandomState(1)  # the stream of np.random.seed(1)
    weights_0_1 = 2 * random.random((3, HIDDEN_SIZE)) - 1
    weights_1_2 = 2 * random.random((HIDDEN_SIZE, 1)) - 1
    net = cc.Sequential(
        [cc.Affine(HIDDEN_SIZE, weights=weights_0_1), cc.ReLU(), cc.Affine(1, weights=weights_1_2)],
        input_shape=(3,),
        loss=cc.SumSquaredError(),
        dtype="float64",
    )
    # The program has no biases: they stay 0.
    trainer = cc.Trainer(net, cc.SGD(lr=ALPHA, lr_multipliers={"b1": 0, "b2": 0}))
    history = trainer.fit(
        STREETLIGHTS,
        WALK_VS_STOP,
        epochs=60,
        batch_size=1,
        sampling="sequential",
        verbose=False,
    )
    for loss in history["loss"][9::10]:
        # The loss is half of the mean square; the program prints the sum of the squares.
        print(f"Error:   {2 * len(STREETLIGHTS) * loss}")


if __name__ == "__main__":
    main()
