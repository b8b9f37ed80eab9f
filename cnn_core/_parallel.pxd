"""Tasks (a kernel bound to its arrays) and programs (tasks in order, run by a team of threads)."""

# Computes items begin..end of a task; what an item computes must not depend on begin and end.
ctypedef void (*kernel_t)(const void* args, Py_ssize_t begin, Py_ssize_t end) noexcept nogil


cdef class Task:
    cdef kernel_t kernel
    cdef void* args            # the kernel's own copy of its struct of arguments
    cdef size_t args_size
    cdef readonly Py_ssize_t n      # items: rows of a batch, rows of a weight gradient, ...
    cdef readonly Py_ssize_t step   # a chunk is a multiple of so many items
    cdef readonly Py_ssize_t most   # and no more than so many,
    cdef public Py_ssize_t least    # unless a task of the lane reads much per chunk and wants more
    cdef readonly double work       # multiply-adds per item, or what takes as long
    cdef object arrays              # keeps the memory behind the pointers alive


cdef Task new_task(kernel_t kernel, const void* args, size_t args_size, Py_ssize_t n,
                   Py_ssize_t step, Py_ssize_t most, double work, object arrays)


cdef struct Move:
    size_t at            # of the pointer in the arguments
    Py_ssize_t item      # bytes


cdef struct BoundKernel:
    kernel_t kernel
    const void* args
    size_t args_size
    Move* moves          # pointers that are moved to the thread's own part of a passing array
    int n_moves


cdef struct Lane:
    BoundKernel* kernels
    int n_kernels
    Py_ssize_t n
    Py_ssize_t step
    Py_ssize_t most
    Py_ssize_t least
    double work              # of one item
    Py_ssize_t alone         # size of a chunk for one thread,
    Py_ssize_t even          # and for those that the program has last been shared among


cdef inline Py_ssize_t usual_size(const Lane* line, int threads) noexcept nogil:
    """Of a chunk: in whole steps, at most `most`, and so that all threads get about as much."""
    cdef Py_ssize_t count = (line.n + line.most - 1) // line.most
    count = (count + threads - 1) // threads * threads
    return ((line.n + count - 1) // count + line.step - 1) // line.step * line.step


cdef inline void share_evenly(Lane* line, int threads) noexcept nogil:
    """Note a size of no less than three quarters of the usual one with which the thread that gets
    most gets least."""
    cdef Py_ssize_t size = usual_size(line, threads), smallest = (3 * size + 3) // 4, load, least
    cdef Py_ssize_t step = max(size // 64 // line.step, 1) * line.step
    line.even, least = size, line.n + size
    while size >= smallest:
        load = ((line.n + size - 1) // size + threads - 1) // threads * size
        if load < least:
            line.even, least = size, load
        size -= step


cdef inline Py_ssize_t chunk_size(const Lane* line, int threads) noexcept nogil:
    return line.alone if threads == 1 else line.even


cdef struct Claim:
    Py_ssize_t next      # the first place in `order` that nobody has begun
    Py_ssize_t begin
    Py_ssize_t end
    double work
    char line[32]        # a cache line for each, or threads would wait for each other's


cdef struct Stage:
    Lane* lanes
    Py_ssize_t n_lanes
    int* order           # the chunks of all lanes, counted one after the other, thread by thread


cdef class Program:
    cdef list tasks
    cdef Lane* lanes
    cdef Py_ssize_t n_stages
    cdef Stage* stages
    cdef Claim* claims          # [n_stages, claimed_by]
    cdef int* orders
    cdef int claimed_by         # threads
    cdef readonly double work   # multiply-adds of a run
    cdef Py_ssize_t n_lanes
    cpdef void run(self, int times=*, int most_threads=*)
    cdef bint make_claims(self, int threads) noexcept nogil
    cdef bint share(self, int threads) noexcept nogil
    cdef let_pass(self, tuple place, list plan)


cpdef int get_num_threads()
