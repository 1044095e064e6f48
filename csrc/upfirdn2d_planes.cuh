// upfirdn2d of planes: separable filters of K taps, 16 bytes of a row of the output at a time.
//
// A thread walks down a strip of V columns of the output. It reads a row of samples in the aligned vectors that cover
// them, whatever the alignment of the row, and shifts them into place; neighboring threads find most of them in the
// cache. The vertical filter adds each row, already filtered horizontally, to the outputs that need it.
#pragma once

#include <cstring>

#include "common.cuh"

namespace sgan {
namespace {

// Along an axis that is upsampled by 2, outputs are grouped by 2: output r of group q is output + 2 q + r, and is
// sum_m g[2 m + r] x[first + q + r + m]. Otherwise a group is an output, and output i is sum_m g[m] x[first + down i + m].
struct Side {
    int64_t first, output, groups;
};

template <int UP>
Side side_of(int64_t pad, int64_t out) {
    if (UP == 1) return {-pad, 0, out};
    const int64_t q = pad > 0 ? -((pad + 1) / 2) : -pad / 2;  // floor(-pad / 2)
    return {q, 2 * q + pad, ceil_div<int64_t>(out - (2 * q + pad), 2)};
}

template <class T, int V_, int UP_, int DOWN_, int K_>
struct Planes {
    static constexpr int V = V_, UP = UP_, DOWN = DOWN_, K = K_, M = K / UP;        // M: taps per output
    static constexpr int SAMPLES = UP == 2 ? V / 2 + M : (V - 1) * DOWN + K;        // of a row, per thread
    static constexpr int CHUNKS = ceil_div(kVector<T> - 1 + SAMPLES, kVector<T>);   // aligned vectors that cover them
    static constexpr int PENDING = UP == 2 ? M + 1 : K / DOWN;  // rows of samples or of outputs that a thread keeps
    static_assert(K % (UP * DOWN) == 0 && SAMPLES <= 32 && V % 2 == 0, "unsupported filter");
};

struct PlaneGrid {
    Divider vectors, strips, channels;  // vectors of a row, strips of a plane, planes of a sample
    unsigned planes, groups;            // planes, and groups of rows of a strip
    Side y;
    int64_t first_x;        // first sample of column 0
    uint64_t end;           // of the bytes of x at which a thread can read its vectors
};

// The samples from number `from` of x on, at any alignment; those whose bit in `valid` is not set are zero. The vectors
// that cover them can be read if they begin before byte `end`.
template <class T, class P>
__device__ __forceinline__ void read_samples(acc_t<T> (&v)[P::SAMPLES], const T* x, int64_t from, unsigned valid,
                                             uint64_t end) {
    constexpr int WORDS = 4 * P::CHUNKS;
    const uint64_t at = from * sizeof(T);  // before x it is a large number
    const unsigned shift = (static_cast<unsigned>(reinterpret_cast<uintptr_t>(x)) + static_cast<unsigned>(at)) & 15;
    if (at - shift >= end) {
#pragma unroll
        for (int k = 0; k < P::SAMPLES; k++) v[k] = valid >> k & 1 ? to_acc(x[from + k]) : acc_t<T>(0);
        return;
    }
    const auto* chunks = reinterpret_cast<const char*>(x) + (at - shift);
    uint32_t words[WORDS];
#pragma unroll
    for (int i = 0; i < P::CHUNKS; i++) {
        const Vec<T, kVector<T>> chunk = load<T, kVector<T>>(reinterpret_cast<const T*>(chunks) + i * kVector<T>);
        memcpy(words + 4 * i, &chunk, sizeof chunk);
    }
#pragma unroll
    for (int i = 0; i + 2 < WORDS; i++) words[i] = shift & 8 ? words[i + 2] : words[i];
#pragma unroll
    for (int i = 0; i + 1 < WORDS; i++) words[i] = shift & 4 ? words[i + 1] : words[i];
    if constexpr (sizeof(T) == 2) {
#pragma unroll
        for (int i = 0; i + 1 < WORDS; i++)
            words[i] = static_cast<uint32_t>((static_cast<uint64_t>(words[i + 1]) << 32 | words[i]) >> 8 * (shift & 2));
    }
    T numbers[P::CHUNKS * kVector<T>];
    memcpy(numbers, words, sizeof words);
#pragma unroll
    for (int k = 0; k < P::SAMPLES; k++) v[k] = to_acc(numbers[k]);
    if (valid == ~0u) return;
#pragma unroll
    for (int k = 0; k < P::SAMPLES; k++)
        if (!(valid >> k & 1)) v[k] = 0;
}

// V outputs of a row of samples. With `shifted` the odd outputs begin one sample after the even ones.
template <class P, class A>
__device__ __forceinline__ void filter_samples(A (&out)[P::V], const A (&v)[P::SAMPLES], const A (&taps)[P::K],
                                               bool shifted) {
#pragma unroll
    for (int j = 0; j < P::V; j++) {
        out[j] = 0;
#pragma unroll
        for (int m = 0; m < P::M; m++) {
            if (P::UP == 1) {
                out[j] += taps[m] * v[j * P::DOWN + m];
            } else {
                const int at = j / 2 + m;
                out[j] += taps[2 * m + j % 2] * (j % 2 && shifted ? v[at + 1] : v[at]);
            }
        }
    }
}

template <class T, class P>
__global__ void __launch_bounds__(256) upfirdn2d_planes_kernel(UpFirDn2d args, PlaneGrid grid) {
    using A = acc_t<T>;
    constexpr int V = P::V, UP = P::UP, DOWN = P::DOWN, K = P::K, PENDING = P::PENDING;
    const unsigned i = blockIdx.x * blockDim.x + threadIdx.x, strip = grid.vectors.quotient(i);
    const unsigned plane = grid.strips.quotient(strip), n = grid.channels.quotient(plane);
    if (plane >= grid.planes) return;
    const int64_t c = plane - n * grid.channels.divisor, ox = static_cast<int64_t>(i - strip * grid.vectors.divisor) * V;
    const int64_t first = static_cast<int64_t>(strip - plane * grid.strips.divisor) * grid.groups;
    const unsigned count = args.out_w - ox < V ? static_cast<unsigned>(args.out_w - ox) : V;

    // Taps along x are multiplied by the gain. With odd paddings the outputs of an upsampling exchange their taps.
    const bool shifted = args.pad_x % 2 == 0;
    const A *f = static_cast<const A*>(args.f), gain = static_cast<A>(args.gain);
    A taps_x[K], taps_y[K];
#pragma unroll
    for (int k = 0; k < K; k++) {
        const int tap = UP == 2 && !shifted ? k ^ 1 : k;
        taps_y[k] = f[args.flip ? k : K - 1 - k];
        taps_x[k] = gain * f[args.flip ? tap : K - 1 - tap];
    }

    const int64_t column = ox / UP * DOWN + grid.first_x;
    unsigned valid = 0;
#pragma unroll
    for (int k = 0; k < P::SAMPLES; k++) valid |= (column + k >= 0 && column + k < args.w ? 1u : 0u) << k;
    if (valid == ~0u >> (32 - P::SAMPLES)) valid = ~0u;
    const int64_t x = n * args.x_stride[0] + c * args.x_stride[1] + column;
    T* y = static_cast<T*>(args.y) + n * args.y_stride[0] + c * args.y_stride[1] + ox;
    const auto filter_row = [&](A(&out)[V], int64_t row) {
        A v[P::SAMPLES] = {};
        if (row >= 0 && row < args.h)
            read_samples<T, P>(v, static_cast<const T*>(args.x), x + row * args.x_stride[2], valid, grid.end);
        filter_samples<P>(out, v, taps_x, shifted);
    };
    const auto write_row = [&](int64_t row, const A(&v)[V]) {
        if (row < 0 || row >= args.out_h) return;
        T* to = y + row * args.y_stride[2];
        Vec<T, V> out;
#pragma unroll
        for (int j = 0; j < V; j++) out.at[j] = from_acc<T>(v[j]);
        store_some(to, out, count == V && reinterpret_cast<uintptr_t>(to) % sizeof(out) == 0, count);
    };

    A rows[PENDING][V] = {};
    for (int64_t group = first - (PENDING - 1); group < first + grid.groups; group++) {
        if constexpr (UP == 2) {  // rows[m] is row `group` + m of the samples
            filter_row(rows[PENDING - 1], grid.y.first + group + PENDING - 1);
#pragma unroll
            for (int r = 0; r < 2 && group >= first; r++) {
                A out[V] = {};
#pragma unroll
                for (int m = 0; m < P::M; m++)
#pragma unroll
                    for (int j = 0; j < V; j++) out[j] += taps_y[2 * m + r] * rows[r + m][j];
                write_row(grid.y.output + 2 * group + r, out);
            }
#pragma unroll
            for (int m = 0; m + 1 < PENDING; m++)
#pragma unroll
                for (int j = 0; j < V; j++) rows[m][j] = rows[m + 1][j];
        } else {  // rows[q] is output `group` + PENDING - 1 - q, as far as its samples have been read
#pragma unroll
            for (int d = 0; d < DOWN; d++) {
                A in[V];
                filter_row(in, grid.y.first + (group + PENDING - 1) * DOWN + d);
#pragma unroll
                for (int q = 0; q < PENDING; q++)
#pragma unroll
                    for (int j = 0; j < V; j++) rows[q][j] += taps_y[q * DOWN + d] * in[j];
            }
            if (group >= first) write_row(group, rows[PENDING - 1]);
#pragma unroll
            for (int q = PENDING - 1; q >= 0; q--)
#pragma unroll
                for (int j = 0; j < V; j++) rows[q][j] = q ? rows[q - 1][j] : A(0);
        }
    }
}

// Launch the kernel of P if it fits. Otherwise `error` remains as it is.
template <class T, class P>
bool launch_planes(const UpFirDn2d& args, void* stream, const char*& error) {
    if (args.up != P::UP || args.down != P::DOWN || args.taps_x != P::K || !args.separable) return false;
    const int64_t vectors = ceil_div<int64_t>(args.out_w, P::V), planes = args.n * args.c;
    const Side y = side_of<P::UP>(args.pad_y, args.out_h);
    // Long strips compute little twice; about 1000 blocks fill every GPU.
    const int64_t most = planes * vectors * y.groups / (1000 * 256), groups = most < 4 ? 4 : most < 32 ? most : 32;
    const int64_t strips = ceil_div(y.groups, groups), threads = planes * strips * vectors;
    if (threads > kMaxGrid) return false;
    int64_t span = 1;
    const int64_t sizes[4] = {args.n, args.c, args.h, args.w};
    for (int side = 0; side < 4; side++) span += (sizes[side] - 1) * args.x_stride[side];
    const uint64_t bytes = span * sizeof(T), window = 16 * P::CHUNKS;
    const PlaneGrid grid{Divider(vectors),
                         Divider(strips),
                         Divider(args.c),
                         static_cast<unsigned>(planes),
                         static_cast<unsigned>(groups),
                         y,
                         P::UP == 2 ? -(args.pad_x >> 1) : -args.pad_x,
                         bytes < window ? 0 : bytes - window + 1};
    const dim3 blocks(static_cast<unsigned>(ceil_div<int64_t>(threads, 256)));
    error = launch(upfirdn2d_planes_kernel<T, P>, blocks, dim3(256), 0, stream, args, grid);
    return true;
}

}  // namespace
}  // namespace sgan
