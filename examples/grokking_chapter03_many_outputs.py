"""Grokking Deep Learning, chapter 3: one input, three predictions.

Will the team be hurt, win, be sad, given the share of games that it has won?

    python examples/grokking_chapter03_many_outputs.py
"""

import cnn_core as cc

WIN_LOSS_RECORD = [0.65, 0.8, 0.8, 0.9]
WEIGHTS = [[0.3, 0.2, 0.9]]  # a column per output


def main() -> None:
    net = cc.Sequential([cc.Affine(3, weights=WEIGHTS)], input_shape=(1,), dtype="float64")
    (prediction,) = net.predict([[WIN_LOSS_RECORD[0]]])
    print(prediction.tolist())


if __name__ == "__main__":
    main()
