"""Grokking Deep Learning, chapter 3: predictions from predictions, two layers.

python examples/grokking_chapter03_stacked.py
"""

import cnn_core as cc

TOES = [8.5, 9.5, 9.9, 10]
WIN_LOSS_RECORD = [0.65, 0.8, 0.8, 0.9]
MILLION_FANS = [1.2, 1.3, 0.5, 1.0]
INPUT_TO_HIDDEN = [[0.1, 0.1, -0.1], [-0.1, 0.1, 0.9], [0.1, 0.4, 0.1]]
HIDDEN_TO_PREDICTION = [[0.3, 1.1, -0.3], [0.1, 0.2, 0.0], [0.0, 1.3, 0.1]]


def main() -> None:
    net = cc.Sequential(
        [cc.Affine(3, weights=INPUT_TO_HIDDEN), cc.Affine(3, weights=HIDDEN_TO_PREDICTION)],
        input_shape=(3,),
        dtype="float64",
    )
    (prediction,) = net.predict([[TOES[0], WIN_LOSS_RECORD[0], MILLION_FANS[0]]])
    print(prediction)


if __name__ == "__main__":
    main()
