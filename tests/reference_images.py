"""Plain references for the operations on images (N, C, H, W), in float64, as in reference.py.

A convolution is seven loops, as its formula is; in the two innermost NumPy takes a whole kernel.
Geometry is spelled out: kernel, stride and dilation are pairs, padding is (top, bottom, left,
right).
"""

import numpy as np

MASK = 0xFFFFFFFF
ROTATIONS = ((10, 26), (11, 21), (13, 27), (23, 5), (6, 20), (17, 11), (25, 10), (18, 20))
PARITY = 0x1BD11BDA


# ---- convolution ---------------------------------------------------------------------------------


def output_size(sizes, kernel, stride, padding, dilation=(1, 1)):
    """(OH, OW): how many windows begin and end inside the padded image, along either axis."""
    result = []
    for axis in range(2):
        padded = sizes[axis] + padding[2 * axis] + padding[2 * axis + 1]
        starts = range(0, padded - dilation[axis] * (kernel[axis] - 1), stride[axis])
        result.append(len(starts))
    return tuple(result)


def _terms(x_shape, W_shape, y_shape, stride, padding, dilation):
    """For every product of the convolution: indices into y, x and W (all kernel columns)."""
    groups = x_shape[1] // W_shape[1]
    per_group = W_shape[0] // groups
    for n in range(x_shape[0]):
        for f in range(W_shape[0]):
            for oy in range(y_shape[2]):
                for ox in range(y_shape[3]):
                    for c in range(W_shape[1]):
                        channel = f // per_group * W_shape[1] + c
                        for r in range(W_shape[2]):
                            y = oy * stride[0] + r * dilation[0] - padding[0]
                            if not 0 <= y < x_shape[2]:
                                continue
                            for s in range(W_shape[3]):
                                x = ox * stride[1] + s * dilation[1] - padding[2]
                                if 0 <= x < x_shape[3]:
                                    yield (n, f, oy, ox), (n, channel, y, x), (f, c, r, s)


def slow_conv2d_forward(x, W, b, stride, padding, dilation):
    """The seven loops themselves; for tiny sizes."""
    y = np.zeros(
        (len(x), len(W), *output_size(x.shape[2:], W.shape[2:], stride, padding, dilation))
    )
    if b is not None:
        y += np.asarray(b, np.float64)[:, None, None]
    for at_y, at_x, at_W in _terms(x.shape, W.shape, y.shape, stride, padding, dilation):
        y[at_y] += np.float64(x[at_x]) * np.float64(W[at_W])
    return y


def slow_conv2d_backward(dout, x, W, stride, padding, dilation):
    """dx, dW, db from the same seven loops."""
    dx, dW = np.zeros(x.shape), np.zeros(W.shape)
    for at_y, at_x, at_W in _terms(x.shape, W.shape, dout.shape, stride, padding, dilation):
        dx[at_x] += np.float64(dout[at_y]) * np.float64(W[at_W])
        dW[at_W] += np.float64(dout[at_y]) * np.float64(x[at_x])
    return dx, dW, dout.sum(axis=(0, 2, 3), dtype=np.float64)


def _pad(x, padding):
    top, bottom, left, right = padding
    return np.pad(np.asarray(x, np.float64), ((0, 0), (0, 0), (top, bottom), (left, right)))


def _taps(W_shape, size, stride, dilation):
    """Per kernel element (r, s): the rows and columns of the padded image that it meets."""
    for r in range(W_shape[2]):
        for s in range(W_shape[3]):
            rows = slice(
                r * dilation[0], r * dilation[0] + (size[0] - 1) * stride[0] + 1, stride[0]
            )
            first = s * dilation[1]
            yield r, s, rows, slice(first, first + (size[1] - 1) * stride[1] + 1, stride[1])


def conv2d_forward(x, W, b=None, stride=(1, 1), padding=(0, 0, 0, 0), dilation=(1, 1)):
    """y (N, F, OH, OW) of x (N, C, H, W), W (F, C / groups, KH, KW), b (F,); one einsum per tap."""
    W = np.asarray(W, np.float64)
    size, padded = (
        output_size(x.shape[2:], W.shape[2:], stride, padding, dilation),
        _pad(x, padding),
    )
    groups = x.shape[1] // W.shape[1]
    y = np.zeros((len(x), groups, len(W) // groups, *size))
    by_group = W.reshape(groups, -1, *W.shape[1:])
    for r, s, rows, columns in _taps(W.shape, size, stride, dilation):
        seen = padded[:, :, rows, columns].reshape(len(x), groups, -1, *size)
        y += np.einsum("ngchw,gfc->ngfhw", seen, by_group[..., r, s])
    y = y.reshape(len(x), len(W), *size)
    return y if b is None else y + np.asarray(b, np.float64)[:, None, None]


def conv2d_backward(dout, x, W, stride=(1, 1), padding=(0, 0, 0, 0), dilation=(1, 1)):
    """dx, dW, db of `conv2d_forward`."""
    W, dout = np.asarray(W, np.float64), np.asarray(dout, np.float64)
    size, padded = dout.shape[2:], _pad(x, padding)
    groups = x.shape[1] // W.shape[1]
    by_group, d = W.reshape(groups, -1, *W.shape[1:]), dout.reshape(len(x), groups, -1, *size)
    dW, dx = np.zeros(by_group.shape), np.zeros(padded.shape)
    for r, s, rows, columns in _taps(W.shape, size, stride, dilation):
        seen = padded[:, :, rows, columns].reshape(len(x), groups, -1, *size)
        dW[..., r, s] = np.einsum("ngchw,ngfhw->gfc", seen, d)
        back = np.einsum("ngfhw,gfc->ngchw", d, by_group[..., r, s])
        dx[:, :, rows, columns] += back.reshape(len(x), -1, *size)
    top, _, left, _ = padding
    inside = dx[:, :, top : top + x.shape[2], left : left + x.shape[3]]
    return inside, dW.reshape(W.shape), dout.sum(axis=(0, 2, 3))


def conv2d_magnitudes(dout, x, W, b=None, **geometry):
    """The sums of absolute values of the terms of y, dx, dW and db."""
    size = None if b is None else np.abs(b)
    y = conv2d_forward(np.abs(x), np.abs(W), size, **geometry)
    return (y, *conv2d_backward(np.abs(dout), np.abs(x), np.abs(W), **geometry))


# ---- pooling -------------------------------------------------------------------------------------


def _windows(sizes, size, stride, padding):
    """Per output pixel: its place, and the pixels of the image itself in its window, in order."""
    height, width = output_size(sizes, size, stride, padding)
    for oy in range(height):
        for ox in range(width):
            rows = (oy * stride[0] - padding[0] + r for r in range(size[0]))
            columns = [ox * stride[1] - padding[2] + s for s in range(size[1])]
            inside = [
                (y, x) for y in rows for x in columns if 0 <= y < sizes[0] and 0 <= x < sizes[1]
            ]
            yield oy, ox, inside


def _first_largest(values):
    """The place of the first NaN, else of the first of the largest."""
    best = 0
    for place, value in enumerate(values):
        if np.isnan(values[best]):
            break
        if value > values[best] or np.isnan(value):
            best = place
    return best


def max_pool2d(x, size, stride, padding=(0, 0, 0, 0), dout=None):
    """The maxima; with dout, which has their shape, dx instead."""
    result = np.zeros(x.shape) if dout is not None else None
    y = np.zeros((*x.shape[:2], *output_size(x.shape[2:], size, stride, padding)))
    for oy, ox, inside in _windows(x.shape[2:], size, stride, padding):
        for n, c in np.ndindex(*x.shape[:2]):
            at = inside[_first_largest([x[n, c, i, j] for i, j in inside])]
            y[n, c, oy, ox] = x[(n, c, *at)]
            if dout is not None:
                result[(n, c, *at)] += dout[n, c, oy, ox]
    return y if dout is None else result


def avg_pool2d(x, size, stride, padding=(0, 0, 0, 0), dout=None):
    """The means of the image's own pixels; with dout, dx instead."""
    result = np.zeros(x.shape)
    y = np.zeros((*x.shape[:2], *output_size(x.shape[2:], size, stride, padding)))
    for oy, ox, inside in _windows(x.shape[2:], size, stride, padding):
        for i, j in inside:
            y[:, :, oy, ox] += np.asarray(x[:, :, i, j], np.float64) / len(inside)
            if dout is not None:
                result[:, :, i, j] += np.asarray(dout[:, :, oy, ox], np.float64) / len(inside)
    return y if dout is None else result


# ---- batch normalization -------------------------------------------------------------------------


def _axes(x):
    return (0,) if x.ndim == 2 else (0, 2, 3)


def _along(values, x):
    """(C,) so that it broadcasts against (N, C) or (N, C, H, W)."""
    return np.asarray(values, np.float64).reshape(1, -1, *(1,) * (x.ndim - 2))


def batch_norm_forward(x, gamma, beta, mean, var, momentum=0.1, epsilon=1e-5, training=False):
    """(y, running mean, running variance)."""
    x = np.asarray(x, np.float64)
    if training:
        batch_mean, batch_var = x.mean(axis=_axes(x)), x.var(axis=_axes(x))
        count = x.size // x.shape[1]
        new_mean = mean + momentum * (batch_mean - mean)
        new_var = var + momentum * (batch_var * count / max(count - 1, 1) - var)
        if count == 1:  # no unbiased variance of one number
            new_var = var
        used = batch_mean, batch_var
    else:
        used = new_mean, new_var = mean, var
    scale = 1 / np.sqrt(np.asarray(used[1], np.float64) + epsilon)
    y = _along(gamma, x) * (x - _along(used[0], x)) * _along(scale, x) + _along(beta, x)
    return y, new_mean, new_var


def batch_norm_backward(dout, x, gamma, mean=None, var=None, epsilon=1e-5, training=True):
    """dx, dgamma, dbeta; outside training with the running mean and variance."""
    dout, x = np.asarray(dout, np.float64), np.asarray(x, np.float64)
    if training:
        mean, var = x.mean(axis=_axes(x)), x.var(axis=_axes(x))
    scale = _along(1 / np.sqrt(np.asarray(var, np.float64) + epsilon), x)
    normal = (x - _along(mean, x)) * scale
    dgamma, dbeta = (dout * normal).sum(axis=_axes(x)), dout.sum(axis=_axes(x))
    inner = dout
    if training:
        count = x.size // x.shape[1]
        inner = dout - _along(dbeta, x) / count - normal * _along(dgamma, x) / count
    return _along(gamma, x) * scale * inner, dgamma, dbeta


# ---- dropout -------------------------------------------------------------------------------------


def threefry4x32(counter, key, rounds=20):
    """Four words from four words and a key of four, in plain integers (Salmon et al., 2011)."""
    schedule = [*key, PARITY ^ key[0] ^ key[1] ^ key[2] ^ key[3]]
    w = [(word + k) & MASK for word, k in zip(counter, schedule[:4], strict=True)]
    for number in range(rounds):
        left, right = ((0, 1), (2, 3)) if number % 2 == 0 else ((0, 3), (2, 1))
        for (i, j), distance in zip((left, right), ROTATIONS[number % 8], strict=True):
            w[i] = (w[i] + w[j]) & MASK
            w[j] = ((w[j] << distance) | (w[j] >> (32 - distance))) & MASK
            w[j] ^= w[i]
        if number % 4 == 3:
            step = number // 4 + 1
            w = [(word + schedule[(step + i) % 5]) & MASK for i, word in enumerate(w)]
            w[3] = (w[3] + step) & MASK
    return w


def random_words(n, key, stream):
    """The numbers that decide about elements 0..n of a row: see simd/images.h for the order."""
    words = np.empty(n, np.uint32)
    for e in range(n):
        counter = (e // 128 * 16 + e % 16, *(int(word) for word in stream))
        word = threefry4x32(counter, key)[e % 64 // 16]
        words[e] = word if e % 128 < 64 else (word << 16 | word >> 16) & MASK
    return words


def kept(shape, rate, seed, layer, step):
    """Which elements (N, size) dropout keeps."""
    key = (seed & MASK, seed >> 32, layer, 0)
    rows = [random_words(shape[1], key, (step & MASK, step >> 32, n)) for n in range(shape[0])]
    return np.array(rows).reshape(shape) >= np.uint32(int(rate * 2**32))
