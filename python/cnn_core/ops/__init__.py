"""The kernels as functions on arrays: checks the arguments, allocates the results, calls.

This package alone imports the native half. Arrays are float32 or float64, all of one call alike;
any strides are accepted (a copy is made where the kernel needs adjacent elements). ``out=`` must be
C-contiguous, writeable, of the right shape and dtype, and share no memory with an input. One
alphabet of axes: N samples, I inputs, O outputs; C channels (of a loss: classes), H W height and
width, F filters, KH KW kernel, OH OW output.

    dense    fully connected layers, activations, losses, mini-batches, updates, threads
    images   convolution, pooling, dropout, batch normalization
    sparse   the affine map of SciPy's sparse rows
"""

from cnn_core.ops.dense import (
    ACTIVATIONS,
    LOSSES,
    Activation,
    Program,
    Reduction,
    Task,
    activation_backward,
    activation_forward,
    affine_backward,
    affine_forward,
    affine_input_gradient,
    binary_cross_entropy,
    check_affine,
    gather_rows,
    get_num_threads,
    leaky_relu_backward,
    leaky_relu_forward,
    loss_scale,
    mean_squared_error,
    native,
    native_config,
    relu_backward,
    relu_forward,
    run,
    set_num_threads,
    sgd_update,
    sigmoid_backward,
    sigmoid_forward,
    softmax_backward,
    softmax_cross_entropy,
    softmax_forward,
    sum_squared_error,
    tanh_backward,
    tanh_forward,
)
from cnn_core.ops.images import (
    avg_pool2d_backward,
    avg_pool2d_forward,
    batch_norm_backward,
    batch_norm_forward,
    conv2d_backward,
    conv2d_forward,
    dropout,
    max_pool2d_backward,
    max_pool2d_forward,
)
from cnn_core.ops.sparse import sparse_affine_backward, sparse_affine_forward

__all__ = [
    "ACTIVATIONS",
    "LOSSES",
    "Activation",
    "Program",
    "Reduction",
    "Task",
    "activation_backward",
    "activation_forward",
    "affine_backward",
    "affine_forward",
    "affine_input_gradient",
    "avg_pool2d_backward",
    "avg_pool2d_forward",
    "batch_norm_backward",
    "batch_norm_forward",
    "binary_cross_entropy",
    "check_affine",
    "conv2d_backward",
    "conv2d_forward",
    "dropout",
    "gather_rows",
    "get_num_threads",
    "leaky_relu_backward",
    "leaky_relu_forward",
    "loss_scale",
    "max_pool2d_backward",
    "max_pool2d_forward",
    "mean_squared_error",
    "native",
    "native_config",
    "relu_backward",
    "relu_forward",
    "run",
    "set_num_threads",
    "sgd_update",
    "sigmoid_backward",
    "sigmoid_forward",
    "softmax_backward",
    "softmax_cross_entropy",
    "softmax_forward",
    "sparse_affine_backward",
    "sparse_affine_forward",
    "sum_squared_error",
    "tanh_backward",
    "tanh_forward",
]
