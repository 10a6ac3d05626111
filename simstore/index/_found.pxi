# Part of _kernel.pyx: what is found, in order, and the memory that a search works in.

# -- ordering: a distance and a node in one integer ---------------------------------------------------------------------

cdef inline uint64_t pack(float distance, uint32_t node) noexcept nogil:
    """Sorts like (distance, node); NaN sorts last."""
    cdef uint32_t bits
    if not (distance == distance):
        distance = INFINITY
    distance = distance + 0.0  # -0.0 sorts with 0.0
    memcpy(&bits, &distance, 4)
    bits = bits ^ (<uint32_t>0xFFFFFFFF if bits >> 31 else <uint32_t>0x80000000)
    return (<uint64_t>bits << 32) | node


cdef inline float unpack_distance(uint64_t packed) noexcept nogil:
    cdef uint32_t bits = <uint32_t>(packed >> 32)
    cdef float distance
    bits = bits ^ (<uint32_t>0x80000000 if bits >> 31 else <uint32_t>0xFFFFFFFF)
    memcpy(&distance, &bits, 4)
    return distance


cdef inline size_t insert_sorted(uint64_t *pool, size_t size, size_t capacity, uint64_t item) noexcept nogil:
    """Puts item into the ascending pool, dropping the last if full; returns the position (== size when not taken)."""
    cdef size_t low = 0, high = size, mid
    while low < high:
        mid = (low + high) >> 1
        if pool[mid] < item:
            low = mid + 1
        else:
            high = mid
    if low >= capacity:
        return low
    memmove(pool + low + 1, pool + low, ((size if size < capacity else capacity - 1) - low) * sizeof(uint64_t))
    pool[low] = item
    return low


cdef inline void heap_push(uint64_t *heap, size_t size, uint64_t item) noexcept nogil:
    cdef size_t at = size, parent
    while at > 0:
        parent = (at - 1) >> 1
        if heap[parent] <= item:
            break
        heap[at] = heap[parent]
        at = parent
    heap[at] = item


cdef inline uint64_t heap_pop(uint64_t *heap, size_t size) noexcept nogil:
    cdef uint64_t top = heap[0], last = heap[size - 1]
    cdef size_t at = 0, child
    size -= 1
    while True:
        child = 2 * at + 1
        if child >= size:
            break
        if child + 1 < size and heap[child + 1] < heap[child]:
            child += 1
        if last <= heap[child]:
            break
        heap[at] = heap[child]
        at = child
    heap[at] = last
    return top


# -- what is found: sorted by (distance, row), in the caller's arrays ---------------------------------------------------

cdef inline void offer(float distance, uint64_t row, float *distances, uint64_t *rows, int *count, int k) noexcept nogil:
    cdef int at = count[0]
    if not (distance == distance):
        distance = INFINITY
    if at == k:
        if distance > distances[k - 1] or (distance == distances[k - 1] and row >= rows[k - 1]):
            return
        at = k - 1
    else:
        count[0] = at + 1
    while at > 0 and (distances[at - 1] > distance or (distances[at - 1] == distance and rows[at - 1] > row)):
        distances[at] = distances[at - 1]
        rows[at] = rows[at - 1]
        at -= 1
    distances[at] = distance
    rows[at] = row


cdef inline bint is_set(const uint64_t *bitmap, uint64_t n_bits, uint64_t bit) noexcept nogil:
    return bit < n_bits and (bitmap[bit >> 6] >> (bit & 63)) & 1


cdef class Found:
    """The k nearest so far of each query: what segments and the tail add to, one after the other; sorted by (distance, row).

    Attributes:
        n, k: How many queries, and how many answers each may have.
        distances: float32 [n, k], raw; a copy, as the next two.
        rows: uint64 [n, k]
        counts: int32 [n], how many of the k are filled.
        n_parts: How many segments and ranges have been searched.
        n_compared: How many vectors the queries have been compared with, in all.
    """
    cdef readonly Py_ssize_t n
    cdef readonly int k
    cdef public int n_parts
    cdef public uint64_t n_compared
    cdef uint64_t *row_at       # [n, k]
    cdef float *distance_at     # [n, k]
    cdef int *count_at          # [n]

    def __cinit__(self, Py_ssize_t n_queries, int k):
        cdef size_t cells = <size_t>n_queries * <size_t>k
        if k < 1 or n_queries < 0:
            raise ValueError("k is at least 1, and no number of queries is negative")
        if cells / k != <size_t>n_queries or cells > <size_t>1 << 58:
            raise MemoryError
        self.n, self.k = n_queries, k
        self.row_at = <uint64_t *>calloc(1, cells * 12 + <size_t>n_queries * 4 + 1)
        if self.row_at == NULL:
            raise MemoryError
        self.distance_at = <float *>(self.row_at + cells)
        self.count_at = <int *>(self.distance_at + cells)

    def __dealloc__(self):
        free(self.row_at)

    @property
    def rows(self):
        return self._array(self.row_at, (self.n, self.k), np.uint64)

    @property
    def distances(self):
        return self._array(self.distance_at, (self.n, self.k), np.float32)

    @property
    def counts(self):
        return self._array(self.count_at, (self.n,), np.int32)

    cdef object _array(self, const void *start, tuple shape, type dtype):
        """A copy of one of the three."""
        out = np.empty(shape, dtype)
        cdef unsigned char[::1] content = out.reshape(-1).view(np.uint8)
        if content.shape[0]:
            memcpy(&content[0], start, content.shape[0])
        return out

    def only(self):
        """The rows (a list) and raw distances (float32 [n]) of the only query."""
        cdef int i, count
        if self.n != 1:
            raise ValueError("there is more than one query, or none")
        count = self.count_at[0]
        distances = _empty(count, _float32)
        cdef float[::1] out = distances
        for i in range(count):
            out[i] = self.distance_at[i]
        return [self.row_at[i] for i in range(count)], distances

    def copy(self):
        """The same, apart."""
        cdef Found other = Found(self.n, self.k)
        other.become(self)
        other.n_parts = self.n_parts
        return other

    def become(self, Found other):
        """Takes over the content of another one of the same shape; None empties it."""
        if other is None:
            memset(self.count_at, 0, self.n * sizeof(int))
        elif other.n != self.n or other.k != self.k:
            raise ValueError("the other one has another shape")
        else:
            memcpy(self.row_at, other.row_at, <size_t>self.n * self.k * 12 + <size_t>self.n * 4)


# -- scratch memory of one running search -------------------------------------------------------------------------------

cdef class _Scratch:
    cdef uint64_t *visited      # a bit per node, all zero between searches
    cdef uint32_t *touched      # the nodes whose bit is set
    cdef uint64_t *pool
    cdef uint64_t *heap
    cdef size_t n_touched, touched_room, pool_room, heap_room

    def __cinit__(self, size_t n_nodes):
        self.visited = <uint64_t *>calloc((n_nodes + 63) // 64 + 1, sizeof(uint64_t))
        self.touched_room = 4096
        self.touched = <uint32_t *>malloc(self.touched_room * sizeof(uint32_t))
        if self.visited == NULL or self.touched == NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self.visited)
        free(self.touched)
        free(self.pool)
        free(self.heap)

    cdef bint room(self, size_t pool_room) noexcept nogil:
        cdef void *grown
        if self.pool_room < pool_room:
            grown = realloc(self.pool, pool_room * sizeof(uint64_t))
            if grown == NULL:
                return False
            self.pool = <uint64_t *>grown
            self.pool_room = pool_room
        return True

    cdef inline bint heap_has_room(self, size_t size) noexcept nogil:
        cdef void *grown
        if size < self.heap_room:
            return True
        grown = realloc(self.heap, (2 * size + 1024) * sizeof(uint64_t))
        if grown == NULL:
            return False
        self.heap = <uint64_t *>grown
        self.heap_room = 2 * size + 1024
        return True

    cdef inline bint visit(self, uint32_t node) noexcept nogil:
        """Marks the node; False if it was marked, or if there is no memory to remember it."""
        cdef uint64_t bit = <uint64_t>1 << (node & 63)
        cdef void *grown
        if self.visited[node >> 6] & bit:
            return False
        if self.n_touched == self.touched_room:
            grown = realloc(self.touched, 2 * self.touched_room * sizeof(uint32_t))
            if grown == NULL:
                return False
            self.touched = <uint32_t *>grown
            self.touched_room *= 2
        self.visited[node >> 6] |= bit
        self.touched[self.n_touched] = node
        self.n_touched += 1
        return True

    cdef void forget(self) noexcept nogil:
        cdef size_t i
        for i in range(self.n_touched):
            self.visited[self.touched[i] >> 6] = 0
        self.n_touched = 0
