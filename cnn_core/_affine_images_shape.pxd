"""What the kernels of the affine map behind images take, and panels of its weights."""

from libc.stdint cimport int32_t
from libc.string cimport memset

from cnn_core._gemm cimport fetch_rows
from cnn_core._images cimport Layout
from cnn_core._simd cimport transpose
from cnn_core._types cimport real

cdef enum:
    TERMS = 128          # of a sum at once: a panel of so many rows stays in the nearest cache
    MOST_COLUMNS = 64    # of a panel, at least max_columns
    IMAGES = 24          # whose elements stay there until they have gone through f'
    PIXELS_AHEAD = 2     # whose weights are fetched


cdef struct images_args:
    Layout at            # of x, or of dx
    Layout before        # of the images whose activation dx goes through
    Py_ssize_t n_images
    Py_ssize_t n_pixels
    Py_ssize_t run       # pixels that lie without a gap
    Py_ssize_t n_out
    Py_ssize_t out_row   # from row to row of what outputs are added to
    const void* dout
    const void* images   # x, or f's images, which may be NULL
    const void* W
    const void* b        # may be NULL
    void* gradient       # or the outputs
    void* sums           # [n_strips - 1, n_images, n_out]: of all strips but the first
    Py_ssize_t n_strips  # of pixels
    const int32_t* groups    # of images at each pixel, see _affine_seen.pyx; may be NULL
    int activation
    double slope
    bint is_float


cdef inline void pack_panel(const images_args* a, Py_ssize_t first, Py_ssize_t width,
                            Py_ssize_t terms, const real* W, real* panel,
                            Py_ssize_t row) noexcept nogil:
    """panel[terms, row]: the transpose of the rows of W for `width` elements of an image from
    element `first` on, a pixel's channels one after the other, and zeros."""
    cdef Py_ssize_t channels = a.at.channels, p, c, count, plane = a.n_pixels * a.n_out
    if width < row:
        memset(panel, 0, terms * row * sizeof(real))
    while width > 0:
        p = first // channels
        c = first - p * channels
        count = min(width, channels - c)
        if p + PIXELS_AHEAD < a.n_pixels:
            fetch_rows(count, terms, W + c * plane + (p + PIXELS_AHEAD) * a.n_out, plane)
        transpose(count, terms, W + c * plane + p * a.n_out, plane, panel, row)
        panel += count
        first += count
        width -= count
