"""Grokking Deep Learning, chapter 5: one input, three outputs, gradient descent.

python examples/grokking_chapter05_many_outputs.py
"""

import numpy as np

import cnn_core as cc

WIN_LOSS_RECORD = [0.65, 0.8, 0.8, 0.9]
HURT, WIN, SAD = [0.1, 0.0, 0.0, 0.9], [1, 1, 0, 1], [0.1, 0.0, 0.1, 0.2]
ALPHA = 0.1


def main() -> None:
    net = cc.Sequential(
        [cc.Affine(3, weights=[[0.3, 0.2, 0.9]])],
        input_shape=(1,),
        loss=cc.SumSquaredError(),
        dtype="float64",
    )
    trainer = cc.Trainer(net, cc.SGD(lr=ALPHA, lr_multipliers={"b1": 0}))
    x, true = [[WIN_LOSS_RECORD[0]]], np.array([[HURT[0], WIN[0], SAD[0]]])
    for _ in range(20):
        prediction = net.predict(x)
        (error,) = (prediction - true) ** 2
        print(f"Error:{error.tolist()} Prediction:{prediction[0].tolist()}")
        trainer.step(x, true)


if __name__ == "__main__":
    main()
