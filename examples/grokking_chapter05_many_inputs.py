"""Grokking Deep Learning, chapter 5: gradient descent on three weights at once.

Each weight's delta is the output's delta times that weight's input:

    python examples/grokking_chapter05_many_inputs.py
"""

import cnn_core as cc

TOES = [8.5, 9.5, 9.9, 10]
WIN_LOSS_RECORD = [0.65, 0.8, 0.8, 0.9]
MILLION_FANS = [1.2, 1.3, 0.5, 1.0]
WIN_OR_LOSE = [1, 1, 0, 1]
ALPHA = 0.01


def main() -> None:
    net = cc.Sequential(
        [cc.Affine(1, weights=[[0.1], [0.2], [-0.1]])],
        input_shape=(3,),
        loss=cc.SumSquaredError(),
        dtype="float64",
    )
    trainer = cc.Trainer(net, cc.SGD(lr=ALPHA, lr_multipliers={"b1": 0}))
    x, true = [[TOES[0], WIN_LOSS_RECORD[0], MILLION_FANS[0]]], [[WIN_OR_LOSE[0]]]
    for _ in range(3):
        prediction = net.predict(x).item()
        delta = prediction - WIN_OR_LOSE[0]
        weight_deltas = net.gradient(x, true)["W1"].ravel().tolist()
        error = 2 * trainer.step(x, true)
        print(
            f"Error:{error}     Prediction:{prediction}    Delta:{delta}"
            f"   Weight_delta:{weight_deltas}"
        )


if __name__ == "__main__":
    main()
