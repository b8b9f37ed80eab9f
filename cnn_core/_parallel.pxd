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
