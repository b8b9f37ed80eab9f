"""Two updates of a small network of each kind of layer: what valgrind has the patience for."""

import numpy as np

import cnn_core as cc


def networks(dtype):
    conv = [
        *(cc.Conv2D(5, 3, padding=1), cc.BatchNorm(), cc.ReLU(), cc.MaxPool2D(2)),
        *(cc.Conv2D(6, (2, 3), stride=2, dilation=2, padding=2), cc.LeakyReLU(), cc.AvgPool2D(2)),
        *(cc.Conv2D(6, 3, padding="same", groups=2), cc.Tanh(), cc.MaxPool2D(3, 1, padding=1)),
        *(cc.Dropout(0.3), cc.Flatten(), cc.Affine(4)),
    ]
    yield cc.Sequential(conv, input_shape=(2, 13, 11), dtype=dtype)
    for kind in (cc.BinaryCrossEntropy, cc.MeanSquaredError, cc.SoftmaxCrossEntropy):
        dense = [cc.Affine(70), cc.Sigmoid(), cc.BatchNorm(), cc.Affine(9), cc.Softmax()]
        yield cc.Sequential([*dense, cc.Affine(3)], input_shape=(65,), loss=kind(), dtype=dtype)
    plain = [cc.Affine(17), cc.Tanh(), cc.Affine(5)]  # for the compiled numerical gradient
    yield cc.Sequential(plain, input_shape=(30,), dtype=dtype)
    pooled = [cc.Conv2D(3, 1), cc.GlobalAvgPool2D(), cc.Affine(2)]
    yield cc.Sequential(pooled, input_shape=(1, 5, 6), dtype=dtype)
    yield cc.models.simple_conv_net(dtype=dtype)


if __name__ == "__main__":
    cc.set_num_threads(2)
    rng = np.random.default_rng(0)
    for dtype in ("float32", "float64"):
        for net in networks(dtype):
            for kind in (cc.SGD, cc.Adam, cc.AdaGrad, cc.RMSprop):
                x, t = rng.random((7, *net.input_shape)), rng.integers(0, 2, 7)
                if net.input_shape == (1, 28, 28):
                    x[1:, ..., :14] = 0  # as digits are, mostly
                if net.loss_function.native != "softmax_cross_entropy":
                    t = rng.random((7, *net.output_shape))
                fit = {"batch_size": 4, "epochs": 1, "verbose": False}
                cc.Trainer(net, kind()).fit(x.astype(dtype), t, **fit)
                net.predict((x * 255).astype(np.uint8))
            if len(net.input_shape) == 1:
                net.numerical_gradient(x[:2], t[:2])
    print("done")
