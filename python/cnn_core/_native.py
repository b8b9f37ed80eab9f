"""The native modules under their plain names, for ops.py, which alone hands them on.

libgomp's idle threads spin for 300,000 pauses by default, which is from 3 to 15 milliseconds on
x86 processors: when another program keeps a core busy, they spin in the place of the thread that
they wait for. A tenth of a millisecond bridges the gap between two steps of training just as well.
libgomp reads the variable when `_parallel` is loaded, the only module that is linked to it; what
the user has set is left alone.

libgomp starts with a thread for each processor of the process, but knows nothing of a container's
share of their time.
"""

import os
import sys

from cnn_core import _cpus


def _explain(error: ImportError) -> None:
    """In the command line, end with one line where CNN_CORE_ISA asks for what is not there."""
    program = os.path.basename(sys.argv[0]).removesuffix(".exe") if sys.argv else ""
    is_command = program == "cnn-core" or (program == "-m" and "cnn_core" in sys.orig_argv)
    if is_command and "CNN_CORE_ISA" in str(error):
        print(f"cnn-core: error: {error}", file=sys.stderr)
        raise SystemExit(2)


SECONDS_TO_SPIN = 1e-4

_ours = "GOMP_SPINCOUNT" not in os.environ and "OMP_WAIT_POLICY" not in os.environ
try:
    from cnn_core import _simd as simd

    if _ours:
        os.environ["GOMP_SPINCOUNT"] = str(simd.pauses_in(SECONDS_TO_SPIN))
    from cnn_core import _activations as activations
    from cnn_core import _affine as affine
    from cnn_core import _affine_gradient as affine_gradient
    from cnn_core import _affine_images as affine_images
    from cnn_core import _batch_norm as batch_norm
    from cnn_core import _batches as batches
    from cnn_core import _conv2d as conv2d
    from cnn_core import _conv2d_pooled as conv2d_pooled
    from cnn_core import _dropout as dropout
    from cnn_core import _gemm as gemm
    from cnn_core import _gradient_check as gradient_check
    from cnn_core import _images as images
    from cnn_core import _losses as losses
    from cnn_core import _optimizers as optimizers
    from cnn_core import _parallel as parallel
    from cnn_core import _pooling as pooling
    from cnn_core import _sparse as sparse
except ImportError as error:
    _explain(error)
    raise
finally:
    if _ours:
        os.environ.pop("GOMP_SPINCOUNT", None)
if not os.environ.get("OMP_NUM_THREADS"):
    parallel.set_usable_cpus(_cpus.count())

__all__ = [
    "activations",
    "affine",
    "affine_gradient",
    "affine_images",
    "batch_norm",
    "batches",
    "conv2d",
    "conv2d_pooled",
    "dropout",
    "gemm",
    "gradient_check",
    "images",
    "losses",
    "optimizers",
    "parallel",
    "pooling",
    "simd",
    "sparse",
]
