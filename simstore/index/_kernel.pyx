# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""The compiled search: hnswlib's graph walked in the mapped file, and exact scans of rows.

Whatever the file holds, no read leaves it: every node id, link count and level that is read is compared with the segment's
bounds first, and what is out of bounds is skipped and reported (``CORRUPT``). Blocks of the file whose checksum nobody has
compared yet are reported, too (``UNVERIFIED``): the caller checks the marked ones and asks again.

Distances here are raw: squared l2 (of unit vectors for cosine), or ``1 - <q, v>``. ``simstore.metrics`` makes them true.
Algorithm: Malkov and Yashunin, "Efficient and robust approximate nearest neighbor search using HNSW graphs",
arXiv 1603.09320, algorithms 2 and 5.
"""
from libc.math cimport INFINITY, sqrt
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcpy, memmove, memset

import numpy as np

_empty, _float32 = np.empty, np.float32

cdef extern from "_distance.h" nogil:
    ctypedef void (*simstore_batch_fn)(const float *, const float *const *, size_t, size_t, float, float *)
    void SIMSTORE_PREFETCH(const void *)
    size_t simstore_ahead(size_t)
    void simstore_prefetch_vector(const float *, size_t)
    int simstore_cpu_level()
    simstore_batch_fn simstore_pick(int, int)

CORRUPT = 1
UNVERIFIED = 2
NO_MEMORY = 4
FEW = 8

BLOCK_SHIFT = 16
BLOCK_UNKNOWN = 0
BLOCK_GOOD = 1
BLOCK_WANTED = 2

cdef enum:
    _CORRUPT = 1
    _UNVERIFIED = 2
    _NO_MEMORY = 4
    _FEW = 8
    _SHIFT = 16
    _GOOD = 1
    _WANTED = 2
    _BATCH = 64          # vectors whose distances are computed in one call
    _HEADER = 96         # bytes of hnswlib's file header
    _LINK = 4            # bytes of a link id

_LEVELS = ("portable", "avx2", "avx512")


def cpu_levels():
    """The instruction sets this CPU can run, the slowest first."""
    return _LEVELS[: simstore_cpu_level() + 1]


include "_found.pxi"


# -- a segment's graph --------------------------------------------------------------------------------------------------

cdef class Graph:
    """A graph in hnswlib's file format, somewhere in memory.

    Args:
        image: The file's bytes, or as many of them as ``upper_ids`` and level 0 need.
        n, dim, M, M0, entry, max_level: From the file's header, already checked against its size.
        upper_ids, upper_at, upper_levels: From ``parse_upper``.
        is_ip: Distances are 1 - <q, v>; else squared l2.
        first_row, last_row: The rows the segment may name; any other is reported as corrupt.
        blocks: One state byte per 64 KB of image, or None if all of it can be trusted.
        copy_nodes, copy_starts, copy_rows: Nodes that stand for more rows than their own, ascending, and those rows.
        orphans: Nodes that no walk from the entry point reaches; every search compares them one by one.
        level: An instruction set of ``cpu_levels()``; the best one by default.
    """
    cdef const unsigned char[::1] image
    cdef const uint32_t[::1] upper_ids
    cdef const uint64_t[::1] upper_at
    cdef const uint8_t[::1] upper_levels
    cdef const uint32_t[::1] copy_nodes
    cdef const uint64_t[::1] copy_starts
    cdef const uint64_t[::1] copy_rows
    cdef const uint32_t[::1] orphans
    cdef uint8_t[::1] block_states
    cdef uint8_t *blocks
    cdef bint is_trusted
    cdef const unsigned char *base
    cdef uint64_t *has_copies
    cdef size_t n, dim, M, M0, node_bytes, vector_at, row_at
    cdef uint32_t entry
    cdef int max_level
    cdef uint64_t first_row, last_row
    cdef simstore_batch_fn distances
    cdef list spare

    def __cinit__(self, const unsigned char[::1] image, *, size_t n, size_t dim, size_t M, size_t M0, uint32_t entry,
                  int max_level, const uint32_t[::1] upper_ids, const uint64_t[::1] upper_at,
                  const uint8_t[::1] upper_levels, bint is_ip, uint64_t first_row, uint64_t last_row,
                  uint8_t[::1] blocks=None, const uint32_t[::1] copy_nodes=None, const uint64_t[::1] copy_starts=None,
                  const uint64_t[::1] copy_rows=None, const uint32_t[::1] orphans=None, level=None):
        cdef Py_ssize_t i
        cdef int cpu = simstore_cpu_level() if level is None else min(_LEVELS.index(level), simstore_cpu_level())
        self.image, self.n, self.dim, self.M, self.M0, self.entry = image, n, dim, M, M0, entry
        self.max_level = max_level
        self.vector_at = _LINK + _LINK * M0
        self.row_at = self.vector_at + 4 * dim
        self.node_bytes = self.row_at + 8
        if n == 0 or entry >= n or <size_t>image.shape[0] < _HEADER + n * self.node_bytes:
            raise ValueError("the graph's bounds do not fit its image")
        if blocks is not None and (<size_t>blocks.shape[0] << _SHIFT) < <size_t>image.shape[0]:
            raise ValueError("fewer block states than blocks")
        self.base = &image[0]
        self.upper_ids, self.upper_at, self.upper_levels = upper_ids, upper_at, upper_levels
        self.first_row, self.last_row = first_row, last_row
        self.block_states = blocks
        self.blocks = NULL if blocks is None else &blocks[0]
        self.is_trusted = blocks is None
        self.copy_nodes, self.copy_starts, self.copy_rows, self.orphans = copy_nodes, copy_starts, copy_rows, orphans
        if orphans is not None:
            for i in range(orphans.shape[0]):
                if orphans[i] >= n:
                    raise ValueError("an orphan is no node of the graph")
        if copy_nodes is not None and copy_nodes.shape[0]:
            if copy_starts.shape[0] != copy_nodes.shape[0] + 1 or copy_starts[copy_nodes.shape[0]] > <uint64_t>copy_rows.shape[0]:
                raise ValueError("the copies table does not fit the graph")
            self.has_copies = <uint64_t *>calloc((n + 63) // 64, sizeof(uint64_t))
            if self.has_copies == NULL:
                raise MemoryError
            for i in range(copy_nodes.shape[0]):
                if copy_nodes[i] >= n or copy_starts[i] > copy_starts[i + 1]:
                    raise ValueError("the copies table does not fit the graph")
                self.has_copies[copy_nodes[i] >> 6] |= <uint64_t>1 << (copy_nodes[i] & 63)
        self.distances = simstore_pick(is_ip, cpu)
        self.spare = []

    def __dealloc__(self):
        free(self.has_copies)

    def trust(self):
        """Every block has been compared with its checksum: stop looking."""
        self.is_trusted = True  # blocks stays: another thread may be reading it

    # -- reading, with every bound checked --

    cdef inline const unsigned char *node(self, uint32_t node, int *flags) noexcept nogil:
        """The node's record. The caller has checked node < n."""
        cdef size_t at = _HEADER + <size_t>node * self.node_bytes
        if not self.is_trusted:
            self.check_blocks(at, self.node_bytes, flags)
        return self.base + at

    cdef void check_blocks(self, size_t at, size_t size, int *flags) noexcept nogil:
        cdef size_t block
        for block in range(at >> _SHIFT, ((at + size - 1) >> _SHIFT) + 1):
            if self.blocks[block] != _GOOD:
                self.blocks[block] = _WANTED
                flags[0] |= _UNVERIFIED

    cdef inline const float *vector(self, uint32_t node) noexcept nogil:
        return <const float *>(self.base + _HEADER + <size_t>node * self.node_bytes + self.vector_at)

    cdef inline bint row_of(self, uint32_t node, uint64_t *row, int *flags) noexcept nogil:
        memcpy(row, self.node(node, flags) + self.row_at, 8)
        if row[0] < self.first_row or row[0] > self.last_row:
            flags[0] |= _CORRUPT
            return False
        return True

    cdef inline const unsigned char *upper_links(self, uint32_t node, int level) noexcept nogil:
        """The node's link list on a level >= 1; NULL if it has none there."""
        cdef size_t low = 0, high = self.upper_ids.shape[0], mid
        while low < high:
            mid = (low + high) >> 1
            if self.upper_ids[mid] < node:
                low = mid + 1
            else:
                high = mid
        if low == <size_t>self.upper_ids.shape[0] or self.upper_ids[low] != node or self.upper_levels[low] < level:
            return NULL
        return self.base + self.upper_at[low] + <size_t>(level - 1) * (_LINK + _LINK * self.M)

    cdef inline size_t neighbours(self, const unsigned char *links, size_t most, _Scratch scratch, bint fresh_only,
                                  uint32_t *found, int *flags) noexcept nogil:
        """Copies the valid link ids, at most ``most``; with fresh_only those not visited yet, which become visited."""
        cdef uint16_t count
        cdef uint32_t link
        cdef size_t i, n_found = 0
        memcpy(&count, links, 2)
        if count > most:
            flags[0] |= _CORRUPT
            count = <uint16_t>most
        for i in range(count):
            memcpy(&link, links + _LINK + i * _LINK, 4)
            if link >= self.n:
                flags[0] |= _CORRUPT
                continue
            if fresh_only and not scratch.visit(link):
                continue
            found[n_found] = link
            n_found += 1
        return n_found

    cdef inline void measure(self, const float *query, const uint32_t *nodes, size_t count, float bound, float *out,
                             int *flags) noexcept nogil:
        """Distances of up to _BATCH nodes."""
        cdef const float *vectors[_BATCH]
        cdef size_t i
        for i in range(count):
            if not self.is_trusted:
                self.node(nodes[i], flags)
            vectors[i] = self.vector(nodes[i])
        self.distances(query, vectors, count, self.dim, bound, out)

    # -- the walk --

    cdef uint32_t descend(self, const float *query, float *distance, _Scratch scratch, uint32_t *links, float *dists,
                          int *flags) noexcept nogil:
        """Greedily through the upper levels: the node to start level 0 from, and its distance."""
        cdef uint32_t at = self.entry
        cdef int level
        cdef bint moved
        cdef const unsigned char *list_at
        cdef size_t i, start, count, part
        self.measure(query, &at, 1, INFINITY, distance, flags)
        for level in range(self.max_level, 0, -1):
            moved = True
            while moved:
                moved = False
                list_at = self.upper_links(at, level)
                if list_at == NULL:
                    break
                count = self.neighbours(list_at, self.M, scratch, False, links, flags)
                for start in range(0, count, 64):  # _BATCH
                    part = min(count - start, <size_t>_BATCH)
                    for i in range(part):
                        simstore_prefetch_vector(self.vector(links[start + i]), 64)
                    self.measure(query, links + start, part, distance[0], dists, flags)
                    for i in range(part):
                        if dists[i] < distance[0]:
                            distance[0] = dists[i]
                            at = links[start + i]
                            moved = True
        return at

    cdef size_t walk(self, const float *query, size_t ef, _Scratch scratch, uint32_t *links, float *dists,
                     int *flags) noexcept nogil:
        """Level 0 with nothing filtered: the ef nearest in scratch.pool, packed with ``node << 1 | expanded``."""
        cdef uint64_t *pool = scratch.pool
        cdef size_t size = 1, at = 0, lowest, position, i, count, start, part
        cdef float distance, bound
        cdef uint32_t node = self.descend(query, &distance, scratch, links, dists, flags)
        scratch.visit(node)
        pool[0] = pack(distance, node << 1)
        while at < size:
            if pool[at] & 1:
                at += 1
                continue
            pool[at] |= 1
            node = <uint32_t>pool[at] >> 1
            count = self.neighbours(self.node(node, flags), self.M0, scratch, True, links, flags)
            for i in range(min(count, simstore_ahead(self.dim))):
                simstore_prefetch_vector(self.vector(links[i]), self.dim)
            lowest = at + 1
            for start in range(0, count, 64):  # _BATCH
                part = min(count - start, <size_t>_BATCH)
                bound = unpack_distance(pool[ef - 1]) if size == ef else INFINITY
                self.measure(query, links + start, part, bound, dists, flags)
                for i in range(part):
                    if size == ef and not (dists[i] < bound):
                        continue
                    position = insert_sorted(pool, size, ef, pack(dists[i], links[start + i] << 1))
                    if position < ef:
                        if size < ef:
                            size += 1
                        if position < lowest:
                            lowest = position
            at = lowest
            if at < size:
                SIMSTORE_PREFETCH(self.base + _HEADER + <size_t>(<uint32_t>pool[at] >> 1) * self.node_bytes)
        return size

    cdef size_t walk_allowed(self, const float *query, size_t ef, const uint64_t *allowed, uint64_t n_allowed,
                             const uint64_t *nodes, size_t budget, _Scratch scratch, uint32_t *links, float *dists,
                             int *flags) noexcept nogil:
        """Level 0 under a bitmap: the ef nearest allowed nodes in scratch.pool, packed with ``node << 1``.

        After ``budget`` nodes it gives up (FEW): all that is allowed lies far away.
        """
        cdef uint64_t *pool = scratch.pool
        cdef size_t size = 0, n_heap = 0, i, count, start, part
        cdef float distance, bound
        cdef uint64_t top
        cdef uint32_t node = self.descend(query, &distance, scratch, links, dists, flags)
        scratch.visit(node)
        if not scratch.heap_has_room(1):
            flags[0] |= _NO_MEMORY
            return 0
        heap_push(scratch.heap, 0, pack(distance, node))
        n_heap = 1
        if self.is_allowed(node, allowed, n_allowed, nodes, flags):
            pool[0] = pack(distance, node << 1)
            size = 1
        while n_heap > 0:
            top = heap_pop(scratch.heap, n_heap)
            n_heap -= 1
            if size == ef and unpack_distance(top) > unpack_distance(pool[ef - 1]):
                break
            if scratch.n_touched > budget:
                flags[0] |= _FEW
                return 0
            count = self.neighbours(self.node(<uint32_t>top, flags), self.M0, scratch, True, links, flags)
            if not scratch.heap_has_room(n_heap + count):
                flags[0] |= _NO_MEMORY
                return 0
            for i in range(min(count, simstore_ahead(self.dim))):
                simstore_prefetch_vector(self.vector(links[i]), self.dim)
            for start in range(0, count, 64):  # _BATCH
                part = min(count - start, <size_t>_BATCH)
                bound = unpack_distance(pool[ef - 1]) if size == ef else INFINITY
                self.measure(query, links + start, part, bound, dists, flags)
                for i in range(part):
                    if size == ef and not (dists[i] < unpack_distance(pool[ef - 1])):
                        continue
                    node = links[start + i]
                    heap_push(scratch.heap, n_heap, pack(dists[i], node))
                    n_heap += 1
                    if self.is_allowed(node, allowed, n_allowed, nodes, flags):
                        insert_sorted(pool, size, ef, pack(dists[i], node << 1))
                        if size < ef:
                            size += 1
            if n_heap > 0:
                SIMSTORE_PREFETCH(self.base + _HEADER + <size_t>(<uint32_t>scratch.heap[0]) * self.node_bytes)
        return size

    # -- nodes to rows --

    cdef inline size_t copies_of(self, uint32_t node, size_t *stop) noexcept nogil:
        """Where the node's further rows start in copy_rows, and stop."""
        cdef size_t low = 0, high, mid
        stop[0] = 0
        if self.has_copies == NULL or not (self.has_copies[node >> 6] >> (node & 63)) & 1:
            return 0
        high = self.copy_nodes.shape[0]
        while low < high:
            mid = (low + high) >> 1
            if self.copy_nodes[mid] < node:
                low = mid + 1
            else:
                high = mid
        stop[0] = self.copy_starts[low + 1]
        return self.copy_starts[low]

    cdef inline bint is_allowed(self, uint32_t node, const uint64_t *allowed, uint64_t n_allowed, const uint64_t *nodes,
                                int *flags) noexcept nogil:
        cdef uint64_t row
        cdef size_t i, first, stop
        if nodes != NULL:
            return <bint>((nodes[node >> 6] >> (node & 63)) & 1)
        if self.row_of(node, &row, flags) and is_set(allowed, n_allowed, row):
            return True
        first = self.copies_of(node, &stop)
        for i in range(first, stop):
            if is_set(allowed, n_allowed, self.copy_rows[i]):
                return True
        return False

    cdef void offer_node(self, uint32_t node, float distance, const uint64_t *allowed, uint64_t n_allowed,
                         float *distances, uint64_t *rows, int *count, int k, int *flags) noexcept nogil:
        """All allowed rows of a node to the caller's result."""
        cdef uint64_t row
        cdef size_t i, first, stop
        if self.row_of(node, &row, flags) and (allowed == NULL or is_set(allowed, n_allowed, row)):
            offer(distance, row, distances, rows, count, k)
        first = self.copies_of(node, &stop)
        for i in range(first, stop):
            if allowed == NULL or is_set(allowed, n_allowed, self.copy_rows[i]):
                offer(distance, self.copy_rows[i], distances, rows, count, k)

    cdef void offer_exact(self, const float *query, const uint32_t *nodes, size_t n_nodes, const uint64_t *allowed,
                          uint64_t n_allowed, float *distances, uint64_t *rows, int *count, int k,
                          int *flags) noexcept nogil:
        """Compares the query with the listed nodes (NULL: all of them) one by one."""
        cdef uint32_t part[_BATCH]
        cdef float dists[_BATCH]
        cdef size_t start, i, size
        cdef float bound
        for start in range(0, n_nodes, 64):  # _BATCH
            size = 0
            for i in range(start, min(start + _BATCH, n_nodes)):
                part[size] = <uint32_t>i if nodes == NULL else nodes[i]
                size += 1
            bound = distances[k - 1] if count[0] == k else INFINITY
            self.measure(query, part, size, bound, dists, flags)
            for i in range(size):
                if dists[i] <= bound or count[0] < k:
                    self.offer_node(part[i], dists[i], allowed, n_allowed, distances, rows, count, k, flags)

    # -- what Python calls --

    def search(self, const float[:, ::1] queries, int ef, const uint64_t[::1] allowed, Found found not None, int expected=0,
               size_t budget=-1, const uint32_t[::1] hidden=None, const uint64_t[::1] allowed_nodes=None):
        """Adds the segment's approximate nearest of each query [n, dim] to found.

        ``allowed`` is a bitmap over rows, or None. Returns flags: with UNVERIFIED, what was added must not be used; FEW says
        that some query has fewer than ``expected`` answers, or met ``budget`` nodes under the bitmap and gave up. ``hidden``
        has a node for each query that its walk must not enter, as if it were not there; it has no upper level.
        ``allowed_nodes`` is the bitmap over nodes of those that stand for an allowed row: it spares a look at each one's row.
        """
        cdef _Scratch scratch
        cdef int k = found.k, flags = 0
        cdef size_t width = ef if ef > k else k, i, size, n_orphans = 0 if self.orphans is None else self.orphans.shape[0]
        cdef Py_ssize_t q
        cdef const uint64_t *bitmap = NULL if allowed is None else &allowed[0]
        cdef uint64_t n_bits = 0 if allowed is None else <uint64_t>allowed.shape[0] * 64
        cdef const uint64_t *nodes = NULL if allowed_nodes is None else &allowed_nodes[0]
        cdef uint32_t *links
        cdef float dists[_BATCH]
        self.check_shapes(queries, found)
        if hidden is not None and hidden.shape[0] != queries.shape[0]:
            raise ValueError("one hidden node for each query")
        if allowed_nodes is not None and <size_t>allowed_nodes.shape[0] * 64 < self.n:
            raise ValueError("a bit for each node")
        width = min(width, self.n)
        try:
            scratch = self.spare.pop()
        except IndexError:
            scratch = _Scratch(self.n)
        links = <uint32_t *>malloc((self.M0 + self.M) * sizeof(uint32_t))
        if links == NULL or not scratch.room(width + 1):
            free(links)
            raise MemoryError
        with nogil:
            for q in range(queries.shape[0]):
                if hidden is not None and hidden[q] < self.n:
                    scratch.visit(hidden[q])
                if bitmap == NULL:
                    size = self.walk(&queries[q, 0], width, scratch, links, dists, &flags)
                else:
                    size = self.walk_allowed(&queries[q, 0], width, bitmap, n_bits, nodes, budget, scratch, links, dists,
                                             &flags)
                for i in range(size):
                    if found.count_at[q] == k and unpack_distance(scratch.pool[i]) > found.distance_at[q * found.k + k - 1]:
                        break
                    self.offer_node(<uint32_t>scratch.pool[i] >> 1, unpack_distance(scratch.pool[i]), bitmap, n_bits,
                                    found.distance_at + q * found.k, found.row_at + q * found.k, found.count_at + q, k, &flags)
                for i in range(n_orphans):
                    if scratch.visit(self.orphans[i]):  # else an upper level led to it
                        self.offer_exact(&queries[q, 0], &self.orphans[i], 1, bitmap, n_bits, found.distance_at + q * found.k,
                                         found.row_at + q * found.k, found.count_at + q, k, &flags)
                found.n_compared += scratch.n_touched
                scratch.forget()
                if found.count_at[q] < expected:
                    flags |= _FEW
                if flags & _FEW:
                    break
        free(links)
        self.spare.append(scratch)
        return flags

    cdef int check_shapes(self, const float[:, ::1] queries, Found found) except -1:
        if <size_t>queries.shape[1] != self.dim:
            raise ValueError("the query's width is not the graph's")
        if queries.shape[0] != found.n:
            raise ValueError("found is for another number of queries")
        return 0

    def scan(self, const float[:, ::1] queries, const uint32_t[::1] nodes, const uint64_t[::1] allowed, Found found not None):
        """Like search, but exact: every listed node (None: every node) is compared."""
        cdef int flags = 0
        cdef Py_ssize_t q
        cdef const uint64_t *bitmap = NULL if allowed is None else &allowed[0]
        cdef uint64_t n_bits = 0 if allowed is None else <uint64_t>allowed.shape[0] * 64
        cdef const uint32_t *listed = NULL
        cdef size_t n_nodes = self.n
        self.check_shapes(queries, found)
        if nodes is not None:
            n_nodes = nodes.shape[0]
            if n_nodes == 0:
                return 0
            if np.max(nodes) >= self.n:
                raise ValueError("a listed node is not in the graph")
            listed = &nodes[0]
        with nogil:
            for q in range(queries.shape[0]):
                self.offer_exact(&queries[q, 0], listed, n_nodes, bitmap, n_bits, found.distance_at + q * found.k,
                                 found.row_at + q * found.k, found.count_at + q, found.k, &flags)
        found.n_compared += n_nodes * <size_t>queries.shape[0]
        return flags

    def distances_to_all(self, const float[::1] query, float[::1] out):
        """The raw distance from query to each node, by node. Returns flags."""
        cdef uint32_t part[_BATCH]
        cdef size_t start, i, size
        cdef int flags = 0
        if <size_t>query.shape[0] != self.dim or <size_t>out.shape[0] != self.n:
            raise ValueError("the query's or the result's width is not the graph's")
        with nogil:
            for start in range(0, self.n, 64):  # _BATCH
                size = min(self.n - start, <size_t>_BATCH)
                for i in range(size):
                    part[i] = <uint32_t>(start + i)
                self.measure(&query[0], part, size, INFINITY, &out[start], &flags)
        return flags

    def node_rows(self):
        """The row in each node's record, uint64 [n], and flags."""
        cdef int flags = 0
        cdef size_t i
        out = np.empty(self.n, np.uint64)
        cdef uint64_t[::1] view = out
        with nogil:
            for i in range(self.n):
                self.row_of(<uint32_t>i, &view[i], &flags)
        return out, flags

    def unreachable(self):
        """The nodes that no walk along level-0 links from the entry point meets, uint32 [m], and flags."""
        cdef _Scratch scratch = _Scratch(self.n)
        cdef size_t at = 0, i, count, n_lost = 0
        cdef int flags = 0
        cdef uint32_t *links = <uint32_t *>malloc((self.M0 + self.M) * sizeof(uint32_t))
        if links == NULL:
            raise MemoryError
        lost = np.empty(self.n, np.uint32)
        cdef uint32_t[::1] view = lost
        with nogil:
            scratch.visit(self.entry)
            while at < scratch.n_touched:
                self.neighbours(self.node(scratch.touched[at], &flags), self.M0, scratch, True, links, &flags)
                at += 1
            for i in range(self.n):
                if not (scratch.visited[i >> 6] >> (i & 63)) & 1:
                    view[n_lost] = <uint32_t>i
                    n_lost += 1
        free(links)
        return lost[:n_lost].copy(), flags


include "_rows.pxi"
