"""Grokking Deep Learning, chapter 3: one input, one weight, one prediction.

Will the team win, given the toes of its players?

    python examples/grokking_chapter03_one_input.py
"""

import cnn_core as cc

NUMBER_OF_TOES = [8.5, 9.5, 10, 9]


def main() -> None:
    net = cc.Sequential([cc.Affine(1, weights=[[0.1]])], input_shape=(1,), dtype="float64")
    prediction = net.predict([[NUMBER_OF_TOES[0]]])
    print(prediction.item())


if __name__ == "__main__":
    main()
