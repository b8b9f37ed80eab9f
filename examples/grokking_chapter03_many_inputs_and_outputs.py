"""Grokking Deep Learning, chapter 3: three inputs, three predictions.

python examples/grokking_chapter03_many_inputs_and_outputs.py
"""

import numpy as np

import cnn_core as cc

TOES = [8.5, 9.5, 9.9, 10]
WIN_LOSS_RECORD = [0.65, 0.8, 0.8, 0.9]
MILLION_FANS = [1.2, 1.3, 0.5, 1.0]
# The program has a row of weights for each output; an Affine layer has a column for each.
WEIGHTS = np.array([[0.1, 0.1, -0.3], [0.1, 0.2, 0.0], [0.0, 1.3, 0.1]]).T


def main() -> None:
    net = cc.Sequential([cc.Affine(3, weights=WEIGHTS)], input_shape=(3,), dtype="float64")
    (prediction,) = net.predict([[TOES[0], WIN_LOSS_RECORD[0], MILLION_FANS[0]]])
    print(prediction.tolist())


if __name__ == "__main__":
    main()
