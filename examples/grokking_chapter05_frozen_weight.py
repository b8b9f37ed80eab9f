"""Grokking Deep Learning, chapter 5: one weight is frozen, the others learn without it.

`lr_multipliers={"W1": 0}` freezes a whole parameter; here it is one of its elements, so the layer
itself says that there is nothing to learn for it:

    python examples/grokking_chapter05_frozen_weight.py
"""

import numpy as np

import cnn_core as cc

TOES = [8.5, 9.5, 9.9, 10]
WIN_LOSS_RECORD = [0.65, 0.8, 0.8, 0.9]
MILLION_FANS = [1.2, 1.3, 0.5, 1.0]
WIN_OR_LOSE = [1, 1, 0, 1]
ALPHA = 0.3


class FirstFrozen(cc.Affine):
    """An Affine layer that does not learn the weights of its first input."""

    def backward(self, dout: np.ndarray) -> np.ndarray:
        dx = super().backward(dout)
        self.grads["W"][0] = 0
        return dx


def main() -> None:
    net = cc.Sequential(
        [FirstFrozen(1, weights=[[0.1], [0.2], [-0.1]])],
        input_shape=(3,),
        loss=cc.SumSquaredError(),
        dtype="float64",
    )
    trainer = cc.Trainer(net, cc.SGD(lr=ALPHA, lr_multipliers={"b1": 0}))
    x, true = [[TOES[0], WIN_LOSS_RECORD[0], MILLION_FANS[0]]], [[WIN_OR_LOSE[0]]]
    for _ in range(3):
        prediction = net.predict(x).item()
        delta = prediction - WIN_OR_LOSE[0]
        # The program's frozen delta is the integer 0: "0", not "0.0".
        weight_deltas = [value or 0 for value in net.gradient(x, true)["W1"].ravel().tolist()]
        error = 2 * trainer.step(x, true)
        print(
            f"Error:{error}     Prediction:{prediction}    Delta:{delta}"
            f"   Weight_delta:{weight_deltas}"
        )


if __name__ == "__main__":
    main()
