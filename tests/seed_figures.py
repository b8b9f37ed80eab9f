"""What the seeds print, and the training that prints it again with cnn_core."""

import numpy as np

import cnn_core as cc

# Accuracy on the training and on the test images after 1, 601, 1201, ... updates.
SIGMOID_LINES = (
    (0.0993, 0.1032),
    (0.7773666666666667, 0.7846),
    (0.87625, 0.8796),
    (0.8962666666666667, 0.8999),
    (0.9070333333333334, 0.91),
    (0.9134, 0.9153),
    (0.9192, 0.922),
    (0.9228166666666666, 0.9242),
    (0.9271833333333334, 0.9289),
    (0.93015, 0.9293),
    (0.9336833333333333, 0.9324),
    (0.9370833333333334, 0.9361),
    (0.93865, 0.939),
    (0.94145, 0.9399),
    (0.9437666666666666, 0.9428),
    (0.9452833333333334, 0.9431),
    (0.9477, 0.9471),
)
RELU_LINES = (
    (0.13056666666666666, 0.1349),
    (0.9032333333333333, 0.9054),
    (0.9252, 0.9275),
    (0.9384, 0.9388),
    (0.9471833333333334, 0.946),
    (0.9551333333333333, 0.9516),
    (0.9595333333333333, 0.9565),
    (0.9629666666666666, 0.9612),
    (0.9665833333333333, 0.9617),
    (0.9653166666666667, 0.9616),
    (0.9714, 0.9647),
    (0.9727333333333333, 0.9667),
    (0.9744166666666667, 0.968),
    (0.97565, 0.9687),
    (0.9768166666666667, 0.9697),
    (0.97915, 0.9704),
    (0.9799666666666667, 0.9696),
)


def train(activation, mnist):
    """The lines of the seeds' program: 10,000 batches of 100 drawn with replacement, lr 0.1."""
    (x_train, t_train), (x_test, t_test) = mnist
    net = cc.models.two_layer_net(activation=activation)
    trainer = cc.Trainer(net, cc.SGD(lr=0.1))
    history = trainer.fit(
        x_train,
        t_train,
        epochs=17,
        iterations=10000,
        sampling="replacement",
        report="book",
        validation_data=(x_test, t_test),
        verbose=False,
    )
    assert trainer.iteration == 10000
    return np.stack([history["accuracy"], history["val_accuracy"]], axis=1)


def check_lines(lines, printed):
    """One run of one seed follows the printed run, which was another draw, closely."""
    printed = np.array(printed)
    assert lines.shape == printed.shape == (17, 2)
    assert lines[0].max() < 0.35  # after one update hardly better than chance
    # It rises as fast, and a line falls behind the one before it by no more than the printed do.
    np.testing.assert_allclose(lines[1], printed[1], atol=0.05)
    np.testing.assert_allclose(lines[2:], printed[2:], atol=0.01)
    assert np.diff(lines, axis=0).min() > -0.005
    np.testing.assert_allclose(lines[-1], printed[-1], atol=0.006)
