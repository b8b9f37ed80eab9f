"""Grokking Deep Learning, chapter 4: the error says how far and where to move the weight.

python examples/grokking_chapter04_gradient_descent.py
"""

import cnn_core as cc

INPUT, GOAL_PREDICTION = [[0.5]], [[0.8]]


def main() -> None:
    net = cc.Sequential(
        [cc.Affine(1, weights=[[0.5]])],
        input_shape=(1,),
        loss=cc.SumSquaredError(),  # half of the square: its gradient is prediction - goal
        dtype="float64",
    )
    # The program has no bias: it stays 0.
    trainer = cc.Trainer(net, cc.SGD(lr=1, lr_multipliers={"b1": 0}))
    for _ in range(20):
        prediction = net.predict(INPUT).item()
        error = 2 * trainer.step(INPUT, GOAL_PREDICTION)
        print(f"Error:{error} Prediction:{prediction}")


if __name__ == "__main__":
    main()
