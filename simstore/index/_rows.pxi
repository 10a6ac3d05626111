# Part of _kernel.pyx: vectors outside graphs, and a graph file's upper levels.

def parse_upper(const unsigned char[::1] image, size_t start, size_t n, size_t M, int max_level):
    """Reads the upper levels' index from the end of a file image.

    Returns (node ids uint32, where each one's level-1 list starts uint64, their levels uint8, and where the last list ends),
    or None if the bytes do not describe n nodes within the image.
    """
    cdef size_t at = start, size = image.shape[0], per_level = _LINK + _LINK * M, found = 0, i
    cdef uint32_t n_bytes
    cdef bint sound = True
    cdef size_t room = (size - start) // per_level + 1 if size > start else 1
    ids = np.empty(room, np.uint32)
    offsets = np.empty(room, np.uint64)
    levels = np.empty(room, np.uint8)
    cdef uint32_t[::1] ids_view = ids
    cdef uint64_t[::1] offsets_view = offsets
    cdef uint8_t[::1] levels_view = levels
    with nogil:
        for i in range(n):
            if at + 4 > size:
                sound = False
                break
            memcpy(&n_bytes, &image[at], 4)
            at += 4
            if n_bytes == 0:
                continue
            if n_bytes % per_level or n_bytes // per_level > <uint32_t>max(max_level, 0) or n_bytes > size - at:
                sound = False
                break
            ids_view[found] = <uint32_t>i
            offsets_view[found] = at
            levels_view[found] = <uint8_t>(n_bytes // per_level)
            found += 1
            at += n_bytes
    if not sound:
        return None
    return ids[:found].copy(), offsets[:found].copy(), levels[:found].copy(), at


def scan_rows(const float[:, ::1] vectors, uint64_t first_row, const float[:, ::1] queries, bint is_ip,
              const uint64_t[::1] allowed, Found found not None, level=None, const float[:, ::1] coarse=None,
              const float[:, ::1] coarse_queries=None):
    """Exact: compares each query with each of vectors [n, dim], whose rows are first_row, first_row + 1, …

    Adds to found, as ``Graph.search`` does. ``coarse`` [n, m] and ``coarse_queries`` [n_queries, m] are some of the dimensions, for
    squared l2: what they alone put beyond the k-th answer is not looked at any further.
    """
    cdef const float *part[_BATCH]
    cdef float dists[_BATCH]
    cdef Py_ssize_t at[_BATCH]
    cdef Py_ssize_t q, start, i, size, n_near, n = vectors.shape[0]
    cdef int k = found.k
    cdef float bound, limit
    cdef uint64_t row
    cdef bint has_coarse = coarse is not None
    cdef const uint64_t *bitmap = NULL if allowed is None else &allowed[0]
    cdef uint64_t n_bits = 0 if allowed is None else <uint64_t>allowed.shape[0] * 64
    cdef int cpu = simstore_cpu_level() if level is None else min(_LEVELS.index(level), simstore_cpu_level())
    cdef simstore_batch_fn measure = simstore_pick(is_ip, cpu)
    if vectors.shape[1] != queries.shape[1] or queries.shape[0] != found.n:
        raise ValueError("the query's width is not the vectors', or found is for another number of queries")
    if has_coarse and (is_ip or coarse_queries is None or coarse.shape[0] != n or coarse_queries.shape[0] != found.n
                       or coarse.shape[1] != coarse_queries.shape[1]):
        raise ValueError("the coarse vectors do not fit")
    with nogil:
        for q in range(queries.shape[0]):
            for start in range(0, n, 64):  # _BATCH
                size = min(n - start, <Py_ssize_t>_BATCH)
                for i in range(size):
                    at[i] = start + i
                bound = found.distance_at[q * found.k + k - 1] if found.count_at[q] == k else INFINITY
                if has_coarse and bound < INFINITY:
                    limit = bound * <float>1.0001  # more than rounding can make of it
                    for i in range(size):
                        part[i] = &coarse[start + i, 0]
                    measure(&coarse_queries[q, 0], part, size, coarse.shape[1], limit, dists)
                    n_near = 0
                    for i in range(size):
                        at[n_near] = start + i
                        n_near += not dists[i] > limit
                    size = n_near
                for i in range(size):
                    part[i] = &vectors[at[i], 0]
                measure(&queries[q, 0], part, size, vectors.shape[1], bound, dists)
                for i in range(size):
                    row = first_row + <uint64_t>at[i]
                    if (dists[i] <= bound or found.count_at[q] < k) and (bitmap == NULL or is_set(bitmap, n_bits, row)):
                        offer(dists[i], row, found.distance_at + q * found.k, found.row_at + q * found.k, found.count_at + q, k)


def row_distances(const float[:, ::1] vectors, const float[::1] query, bint is_ip, float[::1] out, level=None):
    """The raw distance from query to each of vectors [n, dim]."""
    cdef const float *part[_BATCH]
    cdef Py_ssize_t start, i, size, n = vectors.shape[0]
    cdef int cpu = simstore_cpu_level() if level is None else min(_LEVELS.index(level), simstore_cpu_level())
    cdef simstore_batch_fn measure = simstore_pick(is_ip, cpu)
    if vectors.shape[1] != query.shape[0] or out.shape[0] != n:
        raise ValueError("the query's or the result's width is not the vectors'")
    with nogil:
        for start in range(0, n, 64):  # _BATCH
            size = min(n - start, <Py_ssize_t>_BATCH)
            for i in range(size):
                part[i] = &vectors[start + i, 0]
            measure(&query[0], part, size, vectors.shape[1], INFINITY, &out[start])


OK = 0
NOT_FINITE = 1
TOO_LARGE = 2
ZERO = 3

cdef double _LARGEST = 1e36   # a squared norm; the squared distance of two such vectors still fits a float32


def prepare(const float[:, ::1] vectors, bint normalise, float[:, ::1] out):
    """Writes vectors as they are compared: of unit length if ``normalise``, and without negative zeros; with None only looks.

    Returns (OK, n), or why the first unusable vector cannot be (NOT_FINITE, TOO_LARGE, ZERO), and which it is.
    """
    cdef Py_ssize_t i, j, n = vectors.shape[0], dim = vectors.shape[1]
    cdef double sum, scale
    cdef int why = 0
    cdef bint writes = out is not None
    if writes and (out.shape[0] != n or out.shape[1] != dim):
        raise ValueError("out has another shape than vectors")
    with nogil:
        for i in range(n):
            sum = 0.0
            for j in range(dim):
                sum += <double>vectors[i, j] * <double>vectors[i, j]
            if not sum < INFINITY:
                why = 1
            elif sum > _LARGEST:
                why = 2
            elif normalise and sum == 0.0:
                why = 3
            if why:
                break
            if not writes:
                continue
            if normalise:
                scale = 1.0 / sqrt(sum)
                for j in range(dim):
                    out[i, j] = <float>(<double>vectors[i, j] * scale) + <float>0.0
            else:
                for j in range(dim):
                    out[i, j] = vectors[i, j] + <float>0.0
        else:
            i = n
    return why, i
