"""Grokking Deep Learning, chapter 4: hot and cold learning.

Try the weight a little higher and a little lower, and keep what makes the error smaller:

    python examples/grokking_chapter04_hot_and_cold.py
"""

import cnn_core as cc

INPUT, GOAL_PREDICTION = [[0.5]], [[0.8]]
STEP_AMOUNT = 0.001


def main() -> None:
    net = cc.Sequential(
        [cc.Affine(1, weights=[[0.5]])],
        input_shape=(1,),
        loss=cc.MeanSquaredError(),
        dtype="float64",
    )

    def error_at(weight: float) -> float:
        net.params["W1"] = [[weight]]
        return net.loss(INPUT, GOAL_PREDICTION)

    for _ in range(1101):
        prediction = net.predict(INPUT).item()
        weight = net.params["W1"].item()
        error = error_at(weight)
        print(f"Error:{error} Prediction:{prediction}")
        up_error = error_at(weight + STEP_AMOUNT)
        down_error = error_at(weight - STEP_AMOUNT)
        if down_error < error:
            weight -= STEP_AMOUNT
        if up_error < error:
            weight += STEP_AMOUNT
        net.params["W1"] = [[weight]]


if __name__ == "__main__":
    main()
