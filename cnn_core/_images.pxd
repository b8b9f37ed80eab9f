"""Images with the channels innermost and a border, as the convolutions read and write them."""

from libc.string cimport memset

from cnn_core._types cimport real


cdef enum:
    LANE_BYTES = 1 << 20         # of the images that a kernel reads and writes in a lane,
    NEAR_LANE_BYTES = 1 << 18    # or more small ones
    MOST_IMAGES = 6
    MOST_SMALL_IMAGES = 12


cdef struct Layout:
    # element (n, y, x, c) of the images proper, without the border, stands at
    # offset + n * image + y * row + x * channels + c
    Py_ssize_t offset
    Py_ssize_t image
    Py_ssize_t row
    Py_ssize_t channels


cdef class Images:
    cdef Layout layout
    cdef void* data
    cdef bint is_float
    cdef readonly Py_ssize_t n, height, width, channels
    cdef readonly object buffer
    cdef readonly tuple border


cdef inline Py_ssize_t images_at_once(Images x, Images y):
    """As many as stay in the cache, of a lane; dense layers behind small ones want more rows."""
    cdef Py_ssize_t size = x.channels * x.height * x.width + y.channels * y.height * y.width
    size *= sizeof(float) if x.is_float else sizeof(double)
    if size * MOST_SMALL_IMAGES <= NEAR_LANE_BYTES:
        return MOST_SMALL_IMAGES
    return min(max(LANE_BYTES // size, 1), <Py_ssize_t>MOST_IMAGES)


cdef inline const real* pixel(const real* data, const Layout* at, Py_ssize_t n, Py_ssize_t y,
                              Py_ssize_t x) noexcept nogil:
    return data + at.offset + n * at.image + y * at.row + x * at.channels


cdef inline void fill_nan(const Layout* at, Py_ssize_t height, Py_ssize_t width, Py_ssize_t begin,
                          Py_ssize_t end, void* data, Py_ssize_t size) noexcept nogil:
    """Images begin..end that could not be computed; `size` bytes an element."""
    cdef Py_ssize_t n, y
    for n in range(begin, end):
        for y in range(height):
            memset(<char*>data + (at.offset + n * at.image + y * at.row) * size, 0xFF,
                   width * at.channels * size)
