"""One step of each optimizer on one array, in plain NumPy and float64; SGD is in reference.py.

Every function returns the new parameters and the new state; the arguments stay as they are.
"""

import numpy as np


def adam(p, grad, m, v, rate, root, beta1, beta2, epsilon, l2, decay):
    """The new (p, m, v); rate and root already hold the corrections of the biases."""
    g = grad + l2 * p
    m = m + (1 - beta1) * (g - m)
    v = v + (1 - beta2) * (g * g - v)
    return p - decay * p - rate * m / (np.sqrt(v) * root + epsilon), m, v


def adagrad(p, grad, total, lr, epsilon, l2):
    """The new (p, total)."""
    g = grad + l2 * p
    total = total + g * g
    return p - lr * g / (np.sqrt(total) + epsilon), total


def rmsprop(p, grad, square, v, lr, keep, momentum, epsilon, l2):
    """The new (p, square, v); v is None where there is no momentum."""
    g = grad + l2 * p
    square = keep * square + (1 - keep) * g * g
    step = g / (np.sqrt(square) + epsilon)
    if v is None:
        return p - lr * step, square, None
    v = momentum * v + step
    return p - lr * v, square, v
