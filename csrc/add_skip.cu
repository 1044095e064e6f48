// Bias and clamp of toRGB's result, and the image of the level below, upsampled by two: one pass in float32.
//
// In half precision a number of the image moves 2 bytes of x, 1 of the image below and 4 of the result. A thread walks
// down a strip of 16 bytes of the result, with the last rows of the image below, already filtered horizontally, in
// registers. The two samples of each row are in the cache after their first use.

#include "common.cuh"

namespace sgan {
namespace {

// Rows of the image: of pixels with all channels, or of one plane.
struct ImageRows {
    Divider vectors, strips, pitch;   // vectors of a row, strips of a plane, numbers of a pixel
    unsigned length, height, planes;  // numbers of a row, rows of a plane, planes
    unsigned pairs;                   // pairs of rows of a strip
    bool whole;                       // rows are whole vectors, and aligned
};

// Samples of a row of the image below that a vector needs: number j is tap[0][j] v[at[0][j]] + tap[1][j] v[at[1][j]].
//
// Output 2q has the taps 0 and 2 of the reversed filter on samples q - 1 and q, output 2q + 1 the taps 1 and 3 on samples
// q and q + 1. A sample outside the image is replaced by its neighbor, times zero.
template <class A, int V>
struct Columns {
    unsigned at[2][V];
    A tap[2][V];

    __device__ void set(int j, unsigned column, unsigned channel, unsigned pitch, unsigned samples, const A (&g)[4]) {
        const unsigned after = (column + 1) / 2, odd = column % 2;
        const bool has_first = after > 0, has_second = after < samples;
        at[0][j] = (has_first ? after - 1 : 0) * pitch + channel;
        at[1][j] = (has_second ? after : samples - 1) * pitch + channel;
        tap[0][j] = has_first ? odd ? g[1] : g[0] : A(0);
        tap[1][j] = has_second ? odd ? g[3] : g[2] : A(0);
    }
};

template <class T>
__global__ void __launch_bounds__(256) add_skip_kernel(AddSkip args, ImageRows rows) {
    using A = acc_t<T>;
    constexpr int V = kVector<A>;
    const unsigned i = blockIdx.x * blockDim.x + threadIdx.x, strip = rows.vectors.quotient(i);
    const unsigned plane = rows.strips.quotient(strip), within = (i - strip * rows.vectors.divisor) * V;
    if (plane >= rows.planes) return;
    const unsigned pitch = rows.pitch.divisor, count = rows.length - within < V ? rows.length - within : V;
    const unsigned height = rows.height / 2, length = rows.length / 2;  // of the image below
    const A *b = static_cast<const A*>(args.b), *below = static_cast<const A*>(args.below);
    const A clamp = static_cast<A>(args.clamp);
    A g[4];
#pragma unroll
    for (int k = 0; k < 4; k++) g[k] = 2 * static_cast<const A*>(args.f)[3 - k];

    Columns<A, V> columns;
    A bias[V];
#pragma unroll
    for (int j = 0; j < V; j++) {
        const unsigned at = j < count ? within + j : within;
        const unsigned column = rows.pitch.quotient(at), channel = at - column * pitch;
        columns.set(j, column, channel, pitch, length / pitch, g);
        bias[j] = b ? b[pitch == 1 ? plane % static_cast<unsigned>(args.c) : channel] : A(0);
    }
    const auto filter_row = [&](A(&h)[V], unsigned row) {  // row -1 is a large number
        const unsigned line = (plane * height + row) * length;
#pragma unroll
        for (int j = 0; j < V; j++) {
            h[j] = 0;
            if (below && row < height)
                h[j] = columns.tap[0][j] * below[line + columns.at[0][j]] +
                       columns.tap[1][j] * below[line + columns.at[1][j]];
        }
    };
    const auto write_row = [&](unsigned row, const A(&h0)[V], const A(&h1)[V], A tap0, A tap1) {
        if (row >= rows.height) return;
        const unsigned first = (plane * rows.height + row) * rows.length + within;
        const Vec<T, V> x = load_some<T, V>(args.x, first, rows.whole, count);
        Vec<A, V> out;
#pragma unroll
        for (int j = 0; j < V; j++) {
            A y = to_acc(x.at[j]) + bias[j];
            y = y > clamp ? clamp : y < -clamp ? -clamp : y;  // written so that NaN stays NaN
            out.at[j] = y + (tap0 * h0[j] + tap1 * h1[j]);
        }
        store_some(static_cast<A*>(args.y) + first, out, rows.whole, count);
    };
    const unsigned start = (strip - plane * rows.strips.divisor) * rows.pairs;
    A h[3][V];
    filter_row(h[0], start - 1);
    filter_row(h[1], start);
    for (unsigned q = start; q < start + rows.pairs; q++) {
        filter_row(h[2], q + 1);
        write_row(2 * q, h[0], h[1], g[0], g[2]);
        write_row(2 * q + 1, h[1], h[2], g[1], g[3]);
#pragma unroll
        for (int j = 0; j < V; j++) h[0][j] = h[1][j], h[1][j] = h[2][j];
    }
}

template <class T>
const char* launch_rows(const AddSkip& args, void* stream) {
    constexpr int V = kVector<acc_t<T>>;
    const int64_t pitch = args.channels_last ? args.c : 1, length = args.w * pitch, planes = args.n * args.c / pitch;
    const int64_t vectors = ceil_div<int64_t>(length, V), pairs = ceil_div<int64_t>(args.h, 2);
    // Long strips compute little twice; about 1000 blocks fill every GPU.
    const int64_t most = planes * vectors * pairs / (1000 * 256), each = most < 1 ? 1 : most < 8 ? most : 8;
    const int64_t strips = ceil_div(pairs, each);
    const bool aligned = reinterpret_cast<uintptr_t>(args.x) % (V * sizeof(T)) == 0 && aligned_16(args.y);
    const ImageRows rows{Divider(vectors),
                         Divider(strips),
                         Divider(pitch),
                         static_cast<unsigned>(length),
                         static_cast<unsigned>(args.h),
                         static_cast<unsigned>(planes),
                         static_cast<unsigned>(each),
                         aligned && length % V == 0};
    const dim3 grid(static_cast<unsigned>(ceil_div<int64_t>(planes * strips * vectors, 256)));
    return launch(add_skip_kernel<T>, grid, dim3(256), 0, stream, args, rows);
}

}  // namespace

const char* add_skip(const AddSkip& args, void* stream) {
    if (args.n * args.c * args.h * args.w == 0) return nullptr;
    if (args.n * args.c * args.h * args.w > 0x7fffffff) return "the batch is too large";
    if (args.below && (args.h % 2 || args.w % 2)) return "the size must be even";
    return with_dtype(args.dtype, [&](auto number) { return launch_rows<decltype(number)>(args, stream); });
}

}  // namespace sgan
