"""The one parallel loop of the library, the thread count, and the guard after a fork.

A kernel never starts threads. It is bound to its arrays as a `Task` of n independent items, and a
`Program` runs tasks in stages:

    Program([stage, stage, ...])    a stage begins when the one before it has ended
    stage = [lane, lane, ...]       lanes of a stage run at the same time
    lane  = [task, task, ...]       tasks with the same n; the chunk of items that one task has
                                    finished is taken through the next while it is in the cache

Every thread begins with chunks of its own, the same part of each lane, so that what it has written
in one stage it finds in its cache in the next. Then it takes those that other threads have not
begun. A chunk is computed by one thread, and no kernel's result depends on how its items are cut
into chunks, so a program gives the same bits for any number of threads.

An array that one lane uses, and nobody else, is needed for a chunk at a time only. Where
the caller says so (`passing`), all chunks of a thread use the same few items of it, which stay in
its cache: images between two kernels, or the rows of a gradient until the update behind.
"""

import os
import re

import numpy as np

from libc.limits cimport INT_MAX
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcpy


cdef extern from "flush.h" nogil:
    unsigned long flush_begin()
    void flush_end(unsigned long mode)


cdef extern from "team.h" nogil:
    ctypedef void (*team_member)(void* work, int thread) noexcept nogil
    int team_openmp_version()
    int team_offered()
    int team_inside()
    bint team_possible(int threads, size_t stack)
    void team_run(team_member member, void* work, int threads)
    void team_barrier()
    Py_ssize_t team_claim(Py_ssize_t* next)
    Py_ssize_t team_unclaimed(const Py_ssize_t* next)
    void team_hesitate()


cdef enum:
    MOST_ARGS = 128    # words of a task's arguments


# Below so many multiply-adds per thread a team costs more than it saves.
cdef double WORK_PER_THREAD = 100_000.0

cdef int requested_threads = 0
cdef int offered_then = 0        # what OpenMP offered when they were requested
cdef int usable_cpus = INT_MAX
cdef bint forked = False
cdef bint denied = False         # the system has refused to make threads


def stack_size(settings):
    """Bytes of stack that OpenMP gives a thread, 0 for the system's default.

    settings : the environment. OMP_STACKSIZE is in kilobytes unless it ends in B, K, M or G.
    """
    text = settings.get("OMP_STACKSIZE") or settings.get("GOMP_STACKSIZE") or ""
    match = re.fullmatch(r"\s*(\d+)\s*([BKMG]?)\s*", text, re.IGNORECASE)
    if match is None:
        return 0
    return int(match[1]) << {"B": 0, "K": 10, "M": 20, "G": 30}[match[2].upper() or "K"]


cdef size_t stack = min(stack_size(os.environ), 1 << 62)


def _after_fork_in_child():
    # The OpenMP runtime's threads do not exist in the child; asking for them would hang.
    global forked
    forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


cpdef int get_num_threads():
    """Threads that a large kernel uses: what set_num_threads said, else what OpenMP offers."""
    if forked or denied:
        return 1
    cdef int offered = team_offered()
    if requested_threads == 0:
        return min(offered, usable_cpus)
    # Somebody has limited OpenMP since then, as threadpoolctl does.
    return min(requested_threads, offered) if offered < offered_then else requested_threads


def set_num_threads(int n):
    """Use up to n threads from now on, `fit` fewer where these are faster; 0 returns to what OpenMP
    offers (OMP_NUM_THREADS)."""
    global requested_threads, offered_then, denied
    requested_threads, offered_then, denied = n, team_offered(), False


def set_usable_cpus(int n):
    """Use at most n threads where nothing else is said."""
    global usable_cpus
    usable_cpus = n


def openmp_support():
    """The OpenMP version date the extension was built with, 0 for a serial build."""
    return team_openmp_version()


cdef class Task:
    """One kernel bound to its arrays. Made by the functions of the other native modules."""

    def __cinit__(self):
        self.args = NULL

    def __dealloc__(self):
        free(self.args)


cdef Task new_task(kernel_t kernel, const void* args, size_t args_size, Py_ssize_t n,
                   Py_ssize_t step, Py_ssize_t most, double work, object arrays):
    cdef Task task = Task.__new__(Task)
    task.args = malloc(args_size)
    if task.args == NULL:
        raise MemoryError()
    task.args_size = args_size
    memcpy(task.args, args, args_size)
    task.kernel = kernel
    task.n = n
    task.step = step
    task.most = most
    task.least = 1
    task.work = work
    task.arrays = arrays
    return task


cdef inline Py_ssize_t count_chunks(const Lane* line, int threads) noexcept nogil:
    cdef Py_ssize_t size = chunk_size(line, threads)
    return (line.n + size - 1) // size


cdef inline void run_moved(const BoundKernel* bound, Py_ssize_t begin, Py_ssize_t end,
                           Py_ssize_t items) noexcept nogil:
    """The chunk begin..end where item `begin` of the passing arrays is their item begin + items."""
    cdef size_t args[MOST_ARGS]
    cdef int i
    memcpy(args, bound.args, bound.args_size)
    for i in range(bound.n_moves):
        args[bound.moves[i].at] += <size_t>(items * bound.moves[i].item)
    bound.kernel(args, begin, end)


cdef inline void run_chunk(const Stage* now, Py_ssize_t chunk, int threads,
                           int thread) noexcept nogil:
    """One chunk, counted over all lanes of a stage."""
    cdef const Lane* line = now.lanes
    cdef Py_ssize_t count = count_chunks(line, threads), size, begin, end
    cdef int k
    while chunk >= count:
        chunk -= count
        line += 1
        count = count_chunks(line, threads)
    size = chunk_size(line, threads)
    begin = chunk * size
    end = min(begin + size, line.n)
    for k in range(line.n_kernels):
        if line.kernels[k].n_moves > 0 and threads * size <= line.n:
            run_moved(&line.kernels[k], begin, end, thread * size - begin)
        else:
            line.kernels[k].kernel(line.kernels[k].args, begin, end)


cdef Py_ssize_t count_all(const Stage* now, int threads) noexcept nogil:
    cdef Py_ssize_t i, count = 0
    for i in range(now.n_lanes):
        count += count_chunks(&now.lanes[i], threads)
    return count


cdef void share_stage(const Stage* now, Claim* claims, int threads, int* owners) noexcept nogil:
    """The chunks of every thread in now.order; owners[chunk] is for use in between."""
    cdef Py_ssize_t i, k, count, chunk = 0, place = 0
    cdef int t, least
    cdef double work
    cdef bint many
    for t in range(threads):
        claims[t].work = 0
    for many in (True, False):
        chunk = 0
        for i in range(now.n_lanes):
            count = count_chunks(&now.lanes[i], threads)
            work = now.lanes[i].n * now.lanes[i].work / count
            for k in range(count if many == (count >= threads) else 0):
                t = k * threads // count
                if not many:    # to whom has the least
                    for least in range(threads):
                        if claims[least].work < claims[t].work:
                            t = least
                owners[chunk + k] = t
                claims[t].work += work
            chunk += count
    for t in range(threads):
        claims[t].begin = place
        for k in range(chunk):
            if owners[k] == t:
                now.order[place] = k
                place += 1
        claims[t].end = place


cdef void run_stage(const Stage* now, Claim* claims, int thread, int threads) noexcept nogil:
    """This thread's chunks, then what others have not begun: a core may be busy elsewhere."""
    cdef Claim* claim
    cdef Py_ssize_t place
    cdef bint patient = True
    cdef int i
    for i in range(threads):
        claim = &claims[(thread + i) % threads]
        if i > 0 and patient and team_unclaimed(&claim.next) < claim.end:
            team_hesitate()    # its thread may only be late by a moment, and has the data
            patient = False
        while True:
            place = team_claim(&claim.next)
            if place >= claim.end:
                break
            run_chunk(now, now.order[place], threads, thread)


cdef struct TeamWork:
    const Stage* stages
    Py_ssize_t n_stages
    Claim* claims
    int threads
    int times


cdef void run_member(void* work, int thread) noexcept nogil:
    cdef const TeamWork* w = <const TeamWork*>work
    cdef unsigned long mode = flush_begin()
    cdef Py_ssize_t s, stages = w.n_stages
    cdef Claim* ended
    cdef int turn
    for turn in range(w.times):
        for s in range(stages):
            if turn + s > 0:
                team_barrier()    # the stage that has ended may be run again
                ended = &w.claims[(s + stages - 1) % stages * w.threads + thread]
                ended.next = ended.begin
            if stages == 1 and turn > 0:
                team_barrier()
            run_stage(&w.stages[s], w.claims + s * w.threads, thread, w.threads)
    flush_end(mode)


cdef void run_serial(const Stage* stages, Py_ssize_t n_stages, int times) noexcept nogil:
    cdef unsigned long mode = flush_begin()
    cdef Py_ssize_t s, i, chunk, total
    cdef int _turn
    for _turn in range(times):
        for s in range(n_stages):
            total = 0
            for i in range(stages[s].n_lanes):
                total += count_chunks(&stages[s].lanes[i], 1)
            for chunk in range(total):
                run_chunk(&stages[s], chunk, 1, 0)
    flush_end(mode)


cdef Py_ssize_t gcd(Py_ssize_t a, Py_ssize_t b):
    while b:
        a, b = b, a % b
    return a


cdef fill_lane(Lane* line, list lane_tasks):
    cdef Task task = lane_tasks[0]
    line.n = task.n
    line.step = task.step
    line.most = task.most
    line.least = task.least
    line.kernels = <BoundKernel*>calloc(len(lane_tasks), sizeof(BoundKernel))
    if line.kernels == NULL:
        raise MemoryError()
    for task in lane_tasks:
        if task.n != line.n:
            raise ValueError(f"a lane's tasks have {line.n} and {task.n} items")
        line.step = line.step // gcd(line.step, task.step) * task.step
        line.most = min(line.most, task.most)
        line.least = max(line.least, task.least)
        line.work += task.work
        line.kernels[line.n_kernels].kernel = task.kernel
        line.kernels[line.n_kernels].args = task.args
        line.kernels[line.n_kernels].args_size = task.args_size
        line.n_kernels += 1
    line.most = max(line.most, line.least)
    line.most = max(line.most // line.step, 1) * line.step    # whole steps
    line.alone = usual_size(line, 1)


cdef bint uses(Task task, array):
    """Whether a task was bound to an array or, of NumPy's, to a part of it."""
    for own in task.arrays:
        if own is array or (isinstance(own, np.ndarray) and isinstance(array, np.ndarray)
                            and np.may_share_memory(own, array)):
            return True
    return False


cdef list places_of(Task task, size_t address):
    """Where in the words of its arguments the address stands; gaps among them must be 0, too."""
    cdef const size_t* args = <const size_t*>task.args
    cdef size_t at
    return [at for at in range(task.args_size // sizeof(size_t)) if args[at] == address]


cdef move(BoundKernel* bound, list places, Py_ssize_t item):
    """Note that arguments are the address of an array with items of so many bytes."""
    cdef size_t at
    cdef Move* moves = <Move*>realloc(
        bound.moves, (bound.n_moves + len(places)) * sizeof(Move))
    if moves == NULL:
        raise MemoryError()
    bound.moves = moves
    for at in places:
        moves[bound.n_moves].at, moves[bound.n_moves].item = at, item
        bound.n_moves += 1


cdef class Program:
    """Tasks in stages and lanes (see the module's docstring), run again and again.

    passing : Images and finished gradients that nobody reads after a run, nor before the program
        has written them.

    Raises
    ------
    ValueError
        If the tasks of a lane do not have the same number of items.
    """

    def __cinit__(self, plan, passing=()):
        self.tasks = [task for stage in plan for lane in stage for task in lane]
        self.work = sum(task.n * task.work for task in self.tasks)
        # Empty lanes and tasks without items would only cost a look at run time.
        plan = [[lane for lane in stage if lane and lane[0].n > 0] for stage in plan]
        plan = [stage for stage in plan if stage]
        self.n_stages = len(plan)
        self.n_lanes = sum(len(stage) for stage in plan)
        self.stages = <Stage*>calloc(max(self.n_stages, 1), sizeof(Stage))
        self.lanes = <Lane*>calloc(max(self.n_lanes, 1), sizeof(Lane))
        if self.stages == NULL or self.lanes == NULL:
            raise MemoryError()
        cdef Lane* line = self.lanes
        cdef Stage* now = self.stages
        for stage_tasks in plan:
            now.lanes = line
            now.n_lanes = len(stage_tasks)
            for lane_tasks in stage_tasks:
                fill_lane(line, lane_tasks)
                line += 1
            now += 1
        for one in passing:
            self.let_pass(one.place, [lane for stage in plan for lane in stage])

    cdef let_pass(self, tuple place, list plan):
        """Of an array that tasks of one lane use only, each thread's chunks share a few items."""
        cdef Py_ssize_t lane, item, n
        cdef size_t address
        cdef Task task
        cdef int k
        array, address, item, n = place
        users = {i for i, tasks in enumerate(plan) for task in tasks if uses(task, array)}
        if len(users) != 1:
            return
        lane = users.pop()
        places = [places_of(task, address) if uses(task, array) else None for task in plan[lane]]
        for task in plan[lane]:
            if task.n != n or task.args_size > MOST_ARGS * sizeof(size_t):
                return
        if [] in places:    # a kernel knows the array by something else than its address
            return
        for k in range(self.lanes[lane].n_kernels):
            if places[k]:
                move(&self.lanes[lane].kernels[k], places[k], item)

    def __dealloc__(self):
        cdef Py_ssize_t i
        cdef int k
        if self.lanes != NULL:
            for i in range(self.n_lanes):
                for k in range(self.lanes[i].n_kernels):
                    free(self.lanes[i].kernels[k].moves)
                free(self.lanes[i].kernels)
        free(self.lanes)
        free(self.stages)
        free(self.claims)
        free(self.orders)

    cpdef void run(self, int times=1, int most_threads=INT_MAX):
        """Run all stages, `times` times, with the present number of threads or `most_threads`, if
        that is less, without the GIL."""
        global denied
        cdef int threads = min(get_num_threads(), most_threads)
        cdef double enough = self.work / WORK_PER_THREAD
        cdef TeamWork work
        if enough < threads:
            threads = max(<int>enough, 1)
        with nogil:
            if threads > 1 and not team_possible(threads, stack):
                threads, denied = 1, True
            if threads == 1 or team_inside() or not self.make_claims(threads):
                run_serial(self.stages, self.n_stages, times)
            else:
                work = TeamWork(self.stages, self.n_stages, self.claims, threads, times)
                team_run(run_member, &work, threads)

    cdef bint make_claims(self, int threads) noexcept nogil:
        """Hand out the chunks of all stages; false without memory."""
        cdef Py_ssize_t i
        if self.n_stages == 0:
            return False
        if threads != self.claimed_by and not self.share(threads):
            return False
        for i in range(self.n_stages * threads):
            self.claims[i].next = self.claims[i].begin
        return True

    cdef bint share(self, int threads) noexcept nogil:
        """Which chunks are whose; false without memory."""
        cdef Py_ssize_t s, count = 0, most = 0
        free(self.claims)
        free(self.orders)
        self.claimed_by = 0
        for s in range(self.n_lanes):
            share_evenly(&self.lanes[s], threads)
        for s in range(self.n_stages):
            count += count_all(&self.stages[s], threads)
            most = max(most, count_all(&self.stages[s], threads))
        self.claims = <Claim*>malloc(self.n_stages * threads * sizeof(Claim))
        self.orders = <int*>malloc((count + most) * sizeof(int))
        if self.claims == NULL or self.orders == NULL:
            return False
        count = most    # owners come first
        for s in range(self.n_stages):
            self.stages[s].order = self.orders + count
            share_stage(&self.stages[s], self.claims + s * threads, threads, self.orders)
            count += count_all(&self.stages[s], threads)
        self.claimed_by = threads
        return True


def run(*tasks):
    """Run tasks one after the other, each in parallel over its own items."""
    (<Program>Program([[[task]] for task in tasks])).run()


cdef struct planes_args:
    # with those of the task behind them
    kernel_t kernel
    Py_ssize_t n
    Py_ssize_t planes


cdef void planes_kernel(const void* args, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    cdef const planes_args* a = <const planes_args*>args
    cdef Py_ssize_t i
    for i in range(a.planes):
        a.kernel(a + 1, i * a.n + begin, i * a.n + end)


def in_planes(Task task, Py_ssize_t planes):
    """Task whose item i is item i of each of `planes` equal parts of another task's items."""
    if planes < 1 or task.n % planes:
        raise ValueError(f"planes: expected a divisor of {task.n}, got {planes}")
    cdef Py_ssize_t n = task.n // planes
    cdef size_t size = sizeof(planes_args) + task.args_size
    cdef planes_args* args = <planes_args*>malloc(size)
    if args == NULL:
        raise MemoryError()
    args.kernel, args.n, args.planes = task.kernel, n, planes
    memcpy(args + 1, task.args, task.args_size)
    try:
        return new_task(planes_kernel, args, size, n, 1, n, task.work * planes, task.arrays)
    finally:
        free(args)
