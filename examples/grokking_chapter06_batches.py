"""Grokking Deep Learning, chapter 6: the street lights one by one, in batches, and all at once.

Stochastic gradient descent updates the weights after every row, batch gradient descent with the
mean over some rows, full gradient descent with the mean over all:

    python examples/grokking_chapter06_batches.py
"""

import numpy as np

import cnn_core as cc

STREETLIGHTS = np.array([[1, 0, 1], [0, 1, 1], [0, 0, 1], [1, 1, 1], [0, 1, 1], [1, 0, 1]])
WALK_VS_STOP = np.array([0, 1, 0, 1, 1, 0])
ALPHA, EPOCHS = 0.1, 40


def main() -> None:
    for name, rows in (("stochastic", 1), ("batches of 2", 2), ("full", None)):
        net = cc.Sequential(
            [cc.Affine(1, weights=[[0.5], [0.48], [-0.7]])],
            input_shape=(3,),
            loss=cc.SumSquaredError(),
            dtype="float64",
        )
        trainer = cc.Trainer(net, cc.SGD(lr=ALPHA, lr_multipliers={"b1": 0}))
        history = trainer.fit(
            STREETLIGHTS,
            WALK_VS_STOP,
            epochs=EPOCHS,
            batch_size=rows,
            sampling="sequential",
            verbose=False,
        )
        # The loss is half of the mean square; the program prints the sum of the squares.
        first, last = (2 * len(STREETLIGHTS) * history["loss"][epoch] for epoch in (0, -1))
        print(f"{name:<12}  {trainer.iteration:>3} updates  Error: {first:.6f} to {last:.6f}")


if __name__ == "__main__":
    main()
