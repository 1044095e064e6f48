// upfirdn2d with separable filters of K taps, of planes and of pixels.
//
// A thread walks down a strip of V numbers of a row of the output. The vertical filter adds each row, already filtered
// horizontally, to the outputs that need it. Neighboring threads need the same samples, which they find in the cache:
// there is no tile in shared memory, and no barrier, so that some warps compute while others wait for memory.
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

// Launch configuration. Rows are those of a plane, or of pixels with all channels.
struct StripGrid {
    Divider vectors, strips, channels;  // vectors of a row, strips of a plane, planes of a sample
    Divider pitch;                      // numbers of a pixel
    Divider lanes, width;               // vectors of a pixel that neighboring threads compute, and pixels of a row
    unsigned planes, groups;            // planes, and groups of rows of a strip
    unsigned length;                    // numbers of a row of the output
    int first_y, output_y;              // see Side
    uint64_t end;  // of the bytes of x at which a thread can read its vectors
};

template <class T_, int V_, int UP_, int DOWN_, int K_>
struct Strip {
    using T = T_;
    using A = acc_t<T>;
    static constexpr int V = V_, UP = UP_, DOWN = DOWN_, K = K_, M = K / UP;  // M: taps per output
    static constexpr int PENDING = UP == 2 ? M + 1 : K / DOWN;  // rows of samples or of outputs that a thread keeps
    static constexpr int THREADS = 128, BLOCKS = K > 4 ? 3 : DOWN == 2 ? 5 : 6;  // per multiprocessor, at least
    static_assert(K % (UP * DOWN) == 0, "unsupported filter");

    // Number in a row where a thread's outputs begin.
    static __device__ unsigned place(unsigned vector, const StripGrid&) { return vector * V; }
};

// Bits of the samples from `column` on that are in a row of `width` samples.
template <int SAMPLES>
__device__ __forceinline__ unsigned valid_bits(int64_t column, int64_t width) {
    const int64_t before = column < 0 ? -column : 0, end = width - column;
    const unsigned low = before < SAMPLES ? static_cast<unsigned>(before) : SAMPLES;
    const unsigned high = end < SAMPLES ? end < low ? low : static_cast<unsigned>(end) : SAMPLES;
    return (1u << high) - (1u << low);
}

// ---------------------------------------------------------------------------------------------------------------------
// Planes: a thread reads the aligned vectors that cover its samples, whatever the alignment of the row, and shifts the
// samples into place.

// Aligned vectors that cover some numbers at any alignment.
template <class T>
__host__ __device__ constexpr int covering_chunks(int numbers) {
    return ceil_div(kVector<T> - 1 + numbers, kVector<T>);
}

// The samples from number `from` of x on, at any alignment; those whose bit in `valid` is not set are zero. The vectors
// that cover them can be read if they begin before byte `end`.
template <int SAMPLES, class T>
__device__ __forceinline__ void read_samples(acc_t<T> (&v)[SAMPLES], const T* x, int64_t from, unsigned valid,
                                             uint64_t end) {
    constexpr int CHUNKS = covering_chunks<T>(SAMPLES), WORDS = 4 * CHUNKS;
    const uint64_t at = from * sizeof(T);  // before x it is a large number
    const unsigned shift = (static_cast<unsigned>(reinterpret_cast<uintptr_t>(x)) + static_cast<unsigned>(at)) & 15;
    if (at - shift >= end) {
#pragma unroll
        for (int k = 0; k < SAMPLES; k++) v[k] = valid >> k & 1 ? to_acc(x[from + k]) : acc_t<T>(0);
        return;
    }
    const auto* chunks = reinterpret_cast<const char*>(x) + (at - shift);
    uint32_t words[WORDS];
#pragma unroll
    for (int i = 0; i < CHUNKS; i++) {
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
    T numbers[CHUNKS * kVector<T>];
    memcpy(numbers, words, sizeof words);
#pragma unroll
    for (int k = 0; k < SAMPLES; k++) v[k] = to_acc(numbers[k]);
    if (valid == ~0u) return;
#pragma unroll
    for (int k = 0; k < SAMPLES; k++)
        if (!(valid >> k & 1)) v[k] = 0;
}

template <class T_, int V_, int UP_, int DOWN_, int K_>
struct Planes : Strip<T_, V_, UP_, DOWN_, K_> {
    using S = Strip<T_, V_, UP_, DOWN_, K_>;
    using typename S::A, typename S::T;
    using S::V, S::UP, S::DOWN, S::K, S::M;
    static constexpr bool PIXELS = false;
    static constexpr int SAMPLES = UP == 2 ? V / 2 + M : (V - 1) * DOWN + K;  // of a row, per thread
    static_assert(SAMPLES < 32 && V % 2 == 0, "unsupported filter");

    int64_t column;   // of the first sample
    unsigned valid;   // bits of the samples in the image
    bool shifted;     // odd outputs begin one sample after the even ones
    A taps[K];

    // For the outputs from number `at` of a row on; g is the filter.
    __device__ Planes(const UpFirDn2d& args, const StripGrid&, unsigned at, const A (&g)[K]) {
        column = UP == 2 ? static_cast<int64_t>(at / 2) - (args.pad_x >> 1) : static_cast<int64_t>(at) * DOWN - args.pad_x;
        valid = valid_bits<SAMPLES>(column, args.w);
        if (valid == (1u << SAMPLES) - 1) valid = ~0u;
        shifted = args.pad_x % 2 == 0;  // otherwise odd and even outputs exchange their taps
#pragma unroll
        for (int k = 0; k < K; k++) taps[k] = UP == 2 && !shifted ? g[k ^ 1] : g[k];
    }

    // Add V outputs of the row that starts at number `row` of x.
    __device__ void filter(A (&out)[V], const T* x, int64_t row, const StripGrid& grid) const {
        A v[SAMPLES];
        read_samples<SAMPLES>(v, x, row + column, valid, grid.end);
#pragma unroll
        for (int j = 0; j < V; j++)
#pragma unroll
            for (int m = 0; m < M; m++) {
                if (UP == 1) {
                    out[j] += taps[m] * v[j * DOWN + m];
                } else {
                    const int at = j / 2 + m;
                    out[j] += taps[2 * m + j % 2] * (j % 2 && shifted ? v[at + 1] : v[at]);
                }
            }
    }
};

// ---------------------------------------------------------------------------------------------------------------------
// Pixels: the V numbers of a thread can belong to several pixels.

template <class T_, int V_, int UP_, int DOWN_, int K_>
struct Pixels : Strip<T_, V_, UP_, DOWN_, K_> {
    using S = Strip<T_, V_, UP_, DOWN_, K_>;
    using typename S::A, typename S::T;
    using S::V, S::UP, S::DOWN, S::K, S::M;
    static constexpr bool PIXELS = true;
    static_assert(V * M < 32, "unsupported filter");

    unsigned at[V];  // number of the first sample in its row; before the row it is a large number
    unsigned valid;  // bits of the samples in the image
    A taps[V][M];

    __device__ Pixels(const UpFirDn2d& args, const StripGrid& grid, unsigned first, const A (&g)[K]) {
        const int pad = static_cast<int>(args.pad_x);
        valid = 0;
#pragma unroll
        for (int j = 0; j < V; j++) {
            const unsigned pixel = grid.pitch.quotient(first + j), pitch = grid.pitch.divisor;
            const int upsampled = static_cast<int>(pixel) * DOWN - pad, column = UP == 2 ? (upsampled + 1) >> 1 : upsampled;
            at[j] = column * pitch + first + j - pixel * pitch;
            valid |= valid_bits<M>(column, args.w) << j * M;
#pragma unroll
            for (int m = 0; m < M; m++) taps[j][m] = UP == 1 ? g[m] : upsampled % 2 ? g[2 * m + 1] : g[2 * m];
        }
    }

    __device__ void filter(A (&out)[V], const T* x, int64_t row, const StripGrid& grid) const {
#pragma unroll
        for (int j = 0; j < V; j++) {
            unsigned i = at[j] + static_cast<unsigned>(row);
#pragma unroll
            for (int m = 0; m < M; m++, i += grid.pitch.divisor)
                if (valid >> (j * M + m) & 1) out[j] += taps[j][m] * to_acc(x[i]);
        }
    }
};

// ---------------------------------------------------------------------------------------------------------------------
// Vectors: V channels of a pixel. Neighboring threads compute the same few channels of neighboring pixels, because these
// need the same samples.

template <class T_, int V_, int UP_, int DOWN_, int K_>
struct Vectors : Strip<T_, V_, UP_, DOWN_, K_> {
    using S = Strip<T_, V_, UP_, DOWN_, K_>;
    using typename S::A, typename S::T;
    using S::V, S::UP, S::DOWN, S::K, S::M;
    static constexpr bool PIXELS = true;

    unsigned at;     // number of the first sample in its row; before the row it is a large number
    unsigned valid;  // bits of the samples in the image
    A taps[M];

    static __device__ unsigned place(unsigned vector, const StripGrid& grid) {
        const unsigned lanes = grid.lanes.divisor, rest = grid.lanes.quotient(vector), chunk = grid.width.quotient(rest);
        const unsigned pixel = rest - chunk * grid.width.divisor, lane = vector - rest * lanes;
        return pixel * grid.pitch.divisor + (chunk * lanes + lane) * V;
    }

    __device__ Vectors(const UpFirDn2d& args, const StripGrid& grid, unsigned first, const A (&g)[K]) {
        const unsigned pixel = grid.pitch.quotient(first), pitch = grid.pitch.divisor;
        const int upsampled = static_cast<int>(pixel) * DOWN - static_cast<int>(args.pad_x);
        const int column = UP == 2 ? (upsampled + 1) >> 1 : upsampled;
        at = column * pitch + first - pixel * pitch;
        valid = valid_bits<M>(column, args.w);
#pragma unroll
        for (int m = 0; m < M; m++) taps[m] = UP == 1 ? g[m] : upsampled % 2 ? g[2 * m + 1] : g[2 * m];
    }

    __device__ void filter(A (&out)[V], const T* x, int64_t row, const StripGrid& grid) const {
        filter_activated(out, x, row, grid, [](A v, int) { return v; });
    }

    // The same of activate(v, j) instead of each number v of channel j.
    template <class F>
    __device__ void filter_activated(A (&out)[V], const T* x, int64_t row, const StripGrid& grid, F activate) const {
        unsigned i = at + static_cast<unsigned>(row);
        uint32_t words[M][V * sizeof(T) / 4] = {};  // numbers of two bytes would be moved one by one
#pragma unroll
        for (int m = 0; m < M; m++, i += grid.pitch.divisor) {
            if (!(valid >> m & 1)) continue;
            const Vec<T, V> in = load<T, V>(x + i);
            memcpy(words[m], &in, sizeof in);
        }
        T numbers[M][V];
        memcpy(numbers, words, sizeof words);
#pragma unroll
        for (int m = 0; m < M; m++)
#pragma unroll
            for (int j = 0; j < V; j++) out[j] += taps[m] * activate(to_acc(numbers[m][j]), j);
    }
};

// The same of clamp(act_gain act(x + b)). Outside the image is zero: its taps are.
template <class T_, int V_, int UP_, int DOWN_, int K_>
struct ActivatedVectors : Vectors<T_, V_, UP_, DOWN_, K_> {
    using S = Vectors<T_, V_, UP_, DOWN_, K_>;
    using typename S::A, typename S::T;
    using S::V, S::K, S::M;
    static constexpr int BLOCKS = 5;

    A b[V], above, below, bound;

    __device__ ActivatedVectors(const UpFirDn2d& args, const StripGrid& grid, unsigned first, const A (&g)[K])
        : S(args, grid, first, g) {
        const unsigned channel = first % grid.pitch.divisor;
#pragma unroll
        for (int j = 0; j < V; j++) b[j] = args.b ? static_cast<const A*>(args.b)[channel + j] : A(0);
#pragma unroll
        for (int m = 0; m < M; m++) S::taps[m] = S::valid >> m & 1 ? S::taps[m] : A(0);
        above = static_cast<A>(args.act_gain), below = above * static_cast<A>(args.slope);
        bound = static_cast<A>(args.clamp);
    }

    __device__ void filter(A (&out)[V], const T* x, int64_t row, const StripGrid& grid) const {
        S::filter_activated(out, x, row, grid, [this](A v, int j) {
            v += b[j];
            v *= v > 0 ? above : below;
            return clamp_between(v, bound);
        });
    }
};

// ---------------------------------------------------------------------------------------------------------------------
// All

template <class P>
__global__ void __launch_bounds__(P::THREADS, P::BLOCKS) upfirdn2d_strips_kernel(UpFirDn2d args, StripGrid grid) {
    using T = typename P::T;
    using A = acc_t<T>;
    constexpr int V = P::V, UP = P::UP, DOWN = P::DOWN, K = P::K, PENDING = P::PENDING;
    const unsigned i = blockIdx.x * blockDim.x + threadIdx.x, strip = grid.vectors.quotient(i);
    const unsigned plane = grid.strips.quotient(strip), n = grid.channels.quotient(plane);
    if (plane >= grid.planes) return;
    const unsigned within = P::place(i - strip * grid.vectors.divisor, grid);
    const unsigned count = grid.length - within < V ? grid.length - within : V;
    const int64_t c = plane - n * grid.channels.divisor;
    const int first = static_cast<int>((strip - plane * grid.strips.divisor) * grid.groups);

    A taps[K], scaled[K];
#pragma unroll
    for (int k = 0; k < K; k++) {
        taps[k] = static_cast<const A*>(args.f)[args.flip ? k : K - 1 - k];
        scaled[k] = taps[k] * static_cast<A>(args.gain);
    }
    const P columns(args, grid, within, scaled);
    const int height = static_cast<int>(args.h), out_height = static_cast<int>(args.out_h);
    const int groups = static_cast<int>(grid.groups);
    // Rows of samples, and rows of outputs, follow each other.
    int row_x = grid.first_y + first * DOWN, row_y = grid.output_y + first * UP;
    int64_t x = n * args.x_stride[0] + c * args.x_stride[1] + row_x * args.x_stride[2];
    int64_t y = n * args.y_stride[0] + c * args.y_stride[1] + row_y * args.y_stride[2] + within;
    const auto filter_row = [&](A(&out)[V]) {
#pragma unroll
        for (int j = 0; j < V; j++) out[j] = 0;
        if (row_x >= 0 && row_x < height) columns.filter(out, static_cast<const T*>(args.x), x, grid);
        row_x++, x += args.x_stride[2];
    };
    const auto write_row = [&](const A(&v)[V]) {
        if (row_y >= 0 && row_y < out_height) {
            T* to = static_cast<T*>(args.y) + y;
            Vec<T, V> out;
#pragma unroll
            for (int j = 0; j < V; j++) out.at[j] = from_acc<T>(v[j]);
            store_some(to, out, count == V && reinterpret_cast<uintptr_t>(to) % sizeof(out) == 0, count);
        }
        row_y++, y += args.y_stride[2];
    };

    A rows[PENDING][V] = {};
    for (int group = 1 - PENDING; group < groups; group++) {  // before 0, outputs are not complete
        if constexpr (UP == 2) {  // rows[m] is row `group` + m of the samples
            filter_row(rows[PENDING - 1]);
#pragma unroll
            for (int r = 0; r < 2 && group >= 0; r++) {
                A out[V] = {};
#pragma unroll
                for (int m = 0; m < P::M; m++)
#pragma unroll
                    for (int j = 0; j < V; j++) out[j] += taps[2 * m + r] * rows[r + m][j];
                write_row(out);
            }
#pragma unroll
            for (int m = 0; m + 1 < PENDING; m++)
#pragma unroll
                for (int j = 0; j < V; j++) rows[m][j] = rows[m + 1][j];
        } else {  // rows[q] is output `group` + PENDING - 1 - q, as far as its samples have been read
#pragma unroll
            for (int d = 0; d < DOWN; d++) {
                A in[V];
                filter_row(in);
#pragma unroll
                for (int q = 0; q < PENDING; q++)
#pragma unroll
                    for (int j = 0; j < V; j++) rows[q][j] += taps[q * DOWN + d] * in[j];
            }
            if (group >= 0) write_row(rows[PENDING - 1]);
#pragma unroll
            for (int q = PENDING - 1; q >= 0; q--)
#pragma unroll
                for (int j = 0; j < V; j++) rows[q][j] = q ? rows[q - 1][j] : A(0);
        }
    }
}

// Launch the kernel of P if it fits. Otherwise `error` remains as it is.
template <class P>
bool launch_strips(const UpFirDn2d& args, void* stream, const char*& error) {
    if (args.up != P::UP || args.down != P::DOWN || args.taps_x != P::K || !args.separable) return false;
    const int64_t pitch = P::PIXELS ? args.c : 1, channels = args.c / pitch, planes = args.n * channels;
    const int64_t length = args.out_w * pitch, vectors = ceil_div<int64_t>(length, P::V);
    const Side y = side_of<P::UP>(args.pad_y, args.out_h);
    // Long strips compute little twice; about 2000 blocks fill every GPU.
    const int64_t most = planes * vectors * y.groups / (2000 * P::THREADS), groups = most < 4 ? 4 : most < 32 ? most : 32;
    const int64_t strips = ceil_div(y.groups, groups), threads = planes * strips * vectors;
    if (threads > kMaxGrid || length > kMaxGrid || args.h > kMaxGrid / 4 || args.out_h > kMaxGrid / 4) return false;
    // Up to 128 bytes of a pixel by neighboring threads, or a power of two of vectors that divides the pixel.
    const int64_t of_pixel = ceil_div<int64_t>(pitch, P::V), few = of_pixel % 4 == 0 ? 4 : of_pixel % 2 == 0 ? 2 : 1;
    StripGrid grid{Divider(vectors), Divider(strips), Divider(channels),
                   Divider(pitch),   Divider(of_pixel > 8 ? few : of_pixel), Divider(args.out_w)};
    grid.planes = static_cast<unsigned>(planes), grid.groups = static_cast<unsigned>(groups);
    grid.length = static_cast<unsigned>(length);
    grid.first_y = static_cast<int>(y.first), grid.output_y = static_cast<int>(y.output);
    if constexpr (!P::PIXELS) {
        int64_t span = 1;
        const int64_t sizes[4] = {args.n, args.c, args.h, args.w};
        for (int side = 0; side < 4; side++) span += (sizes[side] - 1) * args.x_stride[side];
        const uint64_t bytes = span * sizeof(typename P::T), window = 16 * covering_chunks<typename P::T>(P::SAMPLES);
        grid.end = bytes < window ? 0 : bytes - window + 1;
    }
    const dim3 blocks(static_cast<unsigned>(ceil_div<int64_t>(threads, P::THREADS)));
    error = launch(upfirdn2d_strips_kernel<P>, blocks, dim3(P::THREADS), 0, stream, args, grid);
    return true;
}

}  // namespace
}  // namespace sgan
