/* Distances from one query to a batch of vectors, compiled once per instruction set and picked at run time.
 *
 * squared l2: stops early on a vector whose partial sum has passed `bound`; what it then writes is some value >= bound.
 * ip:         1 - <q, v>.
 * A batch and a single vector take the same sequence of operations, so that a distance has the same bits on every path.
 */
#ifndef SIMSTORE_DISTANCE_H
#define SIMSTORE_DISTANCE_H

#include <stddef.h>

#if defined(__GNUC__) && (defined(__x86_64__) || defined(__i386__))
#define SIMSTORE_X86 1
#include <immintrin.h>
#endif

#if defined(__GNUC__)
#define SIMSTORE_PREFETCH(p) __builtin_prefetch((p), 0, 3)
#else
#define SIMSTORE_PREFETCH(p) ((void)(p))
#endif

/* How many floats between two looks at the bound. */
#define SIMSTORE_STRIDE 256

/* How much is fetched ahead of the vector that is being compared: whole vectors, but no more of each than the hardware's own
 * prefetcher needs to take over. */
#define SIMSTORE_AHEAD_BYTES 4096
#define SIMSTORE_AHEAD_PER_VECTOR 4096

typedef void (*simstore_batch_fn)(const float *q, const float *const *v, size_t n, size_t dim, float bound, float *out);

/* How many vectors to be ahead. */
static inline size_t simstore_ahead(size_t dim) {
    size_t n = SIMSTORE_AHEAD_BYTES / (dim * sizeof(float) + 1);
    return n < 2 ? 2 : n > 8 ? 8 : n;
}

static inline void simstore_prefetch_vector(const float *v, size_t dim) {
    const char *p = (const char *)v;
    size_t bytes = dim * sizeof(float);
    if (bytes > SIMSTORE_AHEAD_PER_VECTOR) bytes = SIMSTORE_AHEAD_PER_VECTOR;
    for (size_t at = 0; at < bytes; at += 64) SIMSTORE_PREFETCH(p + at);
}

/* -- portable ------------------------------------------------------------------------------------------------------ */

static float simstore_l2_portable(const float *q, const float *v, size_t dim, float bound) {
    float acc[8] = {0, 0, 0, 0, 0, 0, 0, 0};
    float sum = 0.0f;
    size_t i = 0;
    while (i + 8 <= dim) {
        size_t stop = i + SIMSTORE_STRIDE < dim ? i + SIMSTORE_STRIDE : dim;
        for (; i + 8 <= stop; i += 8)
            for (int j = 0; j < 8; j++) {
                float d = q[i + j] - v[i + j];
                acc[j] += d * d;
            }
        sum = ((acc[0] + acc[1]) + (acc[2] + acc[3])) + ((acc[4] + acc[5]) + (acc[6] + acc[7]));
        if (sum > bound) return sum;
    }
    for (; i < dim; i++) {
        float d = q[i] - v[i];
        sum += d * d;
    }
    return sum;
}

static float simstore_ip_portable(const float *q, const float *v, size_t dim) {
    float acc[8] = {0, 0, 0, 0, 0, 0, 0, 0};
    size_t i = 0;
    for (; i + 8 <= dim; i += 8)
        for (int j = 0; j < 8; j++) acc[j] += q[i + j] * v[i + j];
    float sum = ((acc[0] + acc[1]) + (acc[2] + acc[3])) + ((acc[4] + acc[5]) + (acc[6] + acc[7]));
    for (; i < dim; i++) sum += q[i] * v[i];
    return 1.0f - sum;
}

static void simstore_l2_batch_portable(const float *q, const float *const *v, size_t n, size_t dim, float bound,
                                       float *out) {
    const size_t ahead = simstore_ahead(dim);
    for (size_t i = 0; i < n; i++) {
        if (i + ahead < n) simstore_prefetch_vector(v[i + ahead], dim);
        out[i] = simstore_l2_portable(q, v[i], dim, bound);
    }
}

static void simstore_ip_batch_portable(const float *q, const float *const *v, size_t n, size_t dim, float bound,
                                       float *out) {
    (void)bound;
    const size_t ahead = simstore_ahead(dim);
    for (size_t i = 0; i < n; i++) {
        if (i + ahead < n) simstore_prefetch_vector(v[i + ahead], dim);
        out[i] = simstore_ip_portable(q, v[i], dim);
    }
}

/* -- x86: AVX2 + FMA, AVX-512F ------------------------------------------------------------------------------------- */

#ifdef SIMSTORE_X86

__attribute__((target("avx2,fma"))) static inline float simstore_sum256(__m256 a) {
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    s = _mm_add_ss(s, _mm_shuffle_ps(s, s, 1));
    return _mm_cvtss_f32(s);
}

__attribute__((target("avx2,fma"))) static void simstore_l2_batch_avx2(const float *q, const float *const *vs, size_t n,
                                                                       size_t dim, float bound, float *out) {
    const size_t ahead = simstore_ahead(dim);
    for (size_t at = 0; at < n; at++) {
        const float *v = vs[at];
        if (at + ahead < n) simstore_prefetch_vector(vs[at + ahead], dim);
        __m256 a = _mm256_setzero_ps(), b = a, c = a, e = a;
        float sum = 0.0f;
        size_t i = 0;
        while (i + 8 <= dim) {
            size_t stop = i + SIMSTORE_STRIDE < dim ? i + SIMSTORE_STRIDE : dim;
            for (; i + 32 <= stop; i += 32) {
                __m256 d0 = _mm256_sub_ps(_mm256_loadu_ps(q + i), _mm256_loadu_ps(v + i));
                __m256 d1 = _mm256_sub_ps(_mm256_loadu_ps(q + i + 8), _mm256_loadu_ps(v + i + 8));
                __m256 d2 = _mm256_sub_ps(_mm256_loadu_ps(q + i + 16), _mm256_loadu_ps(v + i + 16));
                __m256 d3 = _mm256_sub_ps(_mm256_loadu_ps(q + i + 24), _mm256_loadu_ps(v + i + 24));
                a = _mm256_fmadd_ps(d0, d0, a);
                b = _mm256_fmadd_ps(d1, d1, b);
                c = _mm256_fmadd_ps(d2, d2, c);
                e = _mm256_fmadd_ps(d3, d3, e);
            }
            for (; i + 8 <= stop; i += 8) {
                __m256 d0 = _mm256_sub_ps(_mm256_loadu_ps(q + i), _mm256_loadu_ps(v + i));
                a = _mm256_fmadd_ps(d0, d0, a);
            }
            sum = simstore_sum256(_mm256_add_ps(_mm256_add_ps(a, b), _mm256_add_ps(c, e)));
            if (sum > bound) break;
        }
        if (!(sum > bound))
            for (; i < dim; i++) {
                float d = q[i] - v[i];
                sum += d * d;
            }
        out[at] = sum;
    }
}

__attribute__((target("avx2,fma"))) static void simstore_ip_batch_avx2(const float *q, const float *const *vs, size_t n,
                                                                       size_t dim, float bound, float *out) {
    (void)bound;
    const size_t ahead = simstore_ahead(dim);
    for (size_t at = 0; at < n; at++) {
        const float *v = vs[at];
        if (at + ahead < n) simstore_prefetch_vector(vs[at + ahead], dim);
        __m256 a = _mm256_setzero_ps(), b = a, c = a, e = a;
        size_t i = 0;
        for (; i + 32 <= dim; i += 32) {
            a = _mm256_fmadd_ps(_mm256_loadu_ps(q + i), _mm256_loadu_ps(v + i), a);
            b = _mm256_fmadd_ps(_mm256_loadu_ps(q + i + 8), _mm256_loadu_ps(v + i + 8), b);
            c = _mm256_fmadd_ps(_mm256_loadu_ps(q + i + 16), _mm256_loadu_ps(v + i + 16), c);
            e = _mm256_fmadd_ps(_mm256_loadu_ps(q + i + 24), _mm256_loadu_ps(v + i + 24), e);
        }
        for (; i + 8 <= dim; i += 8) a = _mm256_fmadd_ps(_mm256_loadu_ps(q + i), _mm256_loadu_ps(v + i), a);
        float sum = simstore_sum256(_mm256_add_ps(_mm256_add_ps(a, b), _mm256_add_ps(c, e)));
        for (; i < dim; i++) sum += q[i] * v[i];
        out[at] = 1.0f - sum;
    }
}

__attribute__((target("avx512f"))) static void simstore_l2_batch_avx512(const float *q, const float *const *vs,
                                                                        size_t n, size_t dim, float bound, float *out) {
    const __mmask16 rest = (__mmask16)((1u << (dim & 15)) - 1u);
    const size_t ahead = simstore_ahead(dim);
    for (size_t at = 0; at < n; at++) {
        const float *v = vs[at];
        if (at + ahead < n) simstore_prefetch_vector(vs[at + ahead], dim);
        __m512 a = _mm512_setzero_ps(), b = a, c = a, e = a;
        size_t i = 0;
        for (; i + SIMSTORE_STRIDE < dim; ) {
            for (size_t stop = i + SIMSTORE_STRIDE; i < stop; i += 64) {
                __m512 d0 = _mm512_sub_ps(_mm512_loadu_ps(q + i), _mm512_loadu_ps(v + i));
                __m512 d1 = _mm512_sub_ps(_mm512_loadu_ps(q + i + 16), _mm512_loadu_ps(v + i + 16));
                __m512 d2 = _mm512_sub_ps(_mm512_loadu_ps(q + i + 32), _mm512_loadu_ps(v + i + 32));
                __m512 d3 = _mm512_sub_ps(_mm512_loadu_ps(q + i + 48), _mm512_loadu_ps(v + i + 48));
                a = _mm512_fmadd_ps(d0, d0, a);
                b = _mm512_fmadd_ps(d1, d1, b);
                c = _mm512_fmadd_ps(d2, d2, c);
                e = _mm512_fmadd_ps(d3, d3, e);
            }
            float partial = _mm512_reduce_add_ps(_mm512_add_ps(_mm512_add_ps(a, b), _mm512_add_ps(c, e)));
            if (partial > bound) {
                out[at] = partial;
                goto next;
            }
        }
        for (; i + 32 <= dim; i += 32) {
            __m512 d0 = _mm512_sub_ps(_mm512_loadu_ps(q + i), _mm512_loadu_ps(v + i));
            __m512 d1 = _mm512_sub_ps(_mm512_loadu_ps(q + i + 16), _mm512_loadu_ps(v + i + 16));
            a = _mm512_fmadd_ps(d0, d0, a);
            b = _mm512_fmadd_ps(d1, d1, b);
        }
        if (i + 16 <= dim) {
            __m512 d0 = _mm512_sub_ps(_mm512_loadu_ps(q + i), _mm512_loadu_ps(v + i));
            c = _mm512_fmadd_ps(d0, d0, c);
            i += 16;
        }
        if (rest) {
            __m512 d0 = _mm512_sub_ps(_mm512_maskz_loadu_ps(rest, q + i), _mm512_maskz_loadu_ps(rest, v + i));
            e = _mm512_fmadd_ps(d0, d0, e);
        }
        out[at] = _mm512_reduce_add_ps(_mm512_add_ps(_mm512_add_ps(a, b), _mm512_add_ps(c, e)));
    next:;
    }
}

__attribute__((target("avx512f"))) static void simstore_ip_batch_avx512(const float *q, const float *const *vs,
                                                                        size_t n, size_t dim, float bound, float *out) {
    (void)bound;
    const __mmask16 rest = (__mmask16)((1u << (dim & 15)) - 1u);
    const size_t ahead = simstore_ahead(dim);
    for (size_t at = 0; at < n; at++) {
        const float *v = vs[at];
        if (at + ahead < n) simstore_prefetch_vector(vs[at + ahead], dim);
        __m512 a = _mm512_setzero_ps(), b = a;
        size_t i = 0;
        for (; i + 32 <= dim; i += 32) {
            a = _mm512_fmadd_ps(_mm512_loadu_ps(q + i), _mm512_loadu_ps(v + i), a);
            b = _mm512_fmadd_ps(_mm512_loadu_ps(q + i + 16), _mm512_loadu_ps(v + i + 16), b);
        }
        if (i + 16 <= dim) {
            a = _mm512_fmadd_ps(_mm512_loadu_ps(q + i), _mm512_loadu_ps(v + i), a);
            i += 16;
        }
        if (rest)
            b = _mm512_fmadd_ps(_mm512_maskz_loadu_ps(rest, q + i), _mm512_maskz_loadu_ps(rest, v + i), b);
        out[at] = 1.0f - _mm512_reduce_add_ps(_mm512_add_ps(a, b));
    }
}

#endif /* SIMSTORE_X86 */

/* -- the choice ---------------------------------------------------------------------------------------------------- */

/* 0 portable, 1 AVX2 + FMA, 2 AVX-512F: the best this CPU has. */
static int simstore_cpu_level(void) {
#ifdef SIMSTORE_X86
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f")) return 2;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return 1;
#endif
    return 0;
}

static simstore_batch_fn simstore_pick(int is_ip, int level) {
#ifdef SIMSTORE_X86
    if (level >= 2) return is_ip ? simstore_ip_batch_avx512 : simstore_l2_batch_avx512;
    if (level == 1) return is_ip ? simstore_ip_batch_avx2 : simstore_l2_batch_avx2;
#endif
    (void)level;
    return is_ip ? simstore_ip_batch_portable : simstore_l2_batch_portable;
}

#endif
