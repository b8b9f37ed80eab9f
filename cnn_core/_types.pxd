"""The element types of all kernels."""

ctypedef fused real:
    float
    double
