"""Grokking Deep Learning, chapter 6: when may one walk? The whole data set, light by light.

python examples/grokking_chapter06_street_lights.py
"""

import numpy as np

import cnn_core as cc

STREETLIGHTS = np.array([[1, 0, 1], [0, 1, 1], [0, 0, 1], [1, 1, 1], [0, 1, 1], [1, 0, 1]])
WALK_VS_STOP = np.array([0, 1, 0, 1, 1, 0])
ALPHA = 0.1


def main() -> None:
    net = cc.Sequential(
        [cc.Affine(1, weights=[[0.5], [0.48], [-0.7]])],
        input_shape=(3,),
        loss=cc.SumSquaredError(),
        dtype="float64",
    )
    trainer = cc.Trainer(net, cc.SGD(lr=ALPHA, lr_multipliers={"b1": 0}))
    for _ in range(40):
        error_for_all_lights = 0.0
        for row in range(len(STREETLIGHTS)):
            light, goal = STREETLIGHTS[row : row + 1], WALK_VS_STOP[row : row + 1]
            prediction = net.predict(light).item()
            error_for_all_lights += 2 * trainer.step(light, goal)
            print(f"Predction:   {prediction}")  # the program's spelling
        print(f"Error:   {error_for_all_lights}\n")


if __name__ == "__main__":
    main()
