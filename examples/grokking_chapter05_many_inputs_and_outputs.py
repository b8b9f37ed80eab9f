"""Grokking Deep Learning, chapter 5: three inputs, three outputs, and why it does not learn.

The seed's author wondered: the errors fall slowly, then not at all, whatever alpha is. The program
keeps a row of weights for each output, but its deltas, outer_prod(input, delta), have a row for
each input: every weight but those of the diagonal gets another weight's delta. With the deltas the
right way round the errors vanish:

    python examples/grokking_chapter05_many_inputs_and_outputs.py
    python examples/grokking_chapter05_many_inputs_and_outputs.py --correct
"""

import argparse

import numpy as np

import cnn_core as cc

TOES = [8.5, 9.5, 9.9, 9.0]
WIN_LOSS_RECORD = [0.65, 0.8, 0.8, 0.9]
MILLION_FANS = [1.2, 1.3, 0.5, 1.0]
HURT, WIN, SAD = [0.1, 0.0, 0.0, 0.9], [1, 1, 0, 1], [0.1, 0.0, 0.1, 0.2]
WEIGHTS = np.array([[0.1, 0.1, -0.3], [0.1, 0.2, 0.0], [0.0, 1.3, 0.1]])
ALPHA = 0.01


class RowPerOutput(cc.Layer):
    """prediction[i] = input . W[i]; the gradient is transposed, as in the program."""

    def build(self, input_shape: tuple[int, ...], rng: np.random.Generator) -> dict:
        return {"W": WEIGHTS}

    def forward(self, x: np.ndarray, training: bool = False) -> np.ndarray:
        self.x = x
        # Three products, added one after the other: x @ W may add them in another order, and
        # 2,000 updates make that visible in the last digits.
        return (x[:, np.newaxis, :] * self.params["W"]).sum(axis=2)

    def backward(self, dout: np.ndarray) -> np.ndarray:
        self.grads = {"W": self.x.T @ dout}  # quirk: it should be dout.T @ self.x
        return dout @ self.params["W"]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--correct", action="store_true", help="the deltas the right way round")
    correct = parser.parse_args().correct
    layer = cc.Affine(3, weights=WEIGHTS.T) if correct else RowPerOutput()
    net = cc.Sequential([layer], input_shape=(3,), loss=cc.SumSquaredError(), dtype="float64")
    x = np.array([[TOES[0], WIN_LOSS_RECORD[0], MILLION_FANS[0]]])
    true = np.array([[HURT[0], WIN[0], SAD[0]]])
    for _ in range(2000):
        (error,) = (net.predict(x) - true) ** 2
        print(f"Error:{error.tolist()}")
        # By hand, for the same reason: trainer.step rounds once where this rounds twice.
        net.params["W1"] -= ALPHA * net.gradient(x, true)["W1"]


if __name__ == "__main__":
    main()
