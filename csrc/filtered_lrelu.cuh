// Strips of filtered_lrelu: the layers of StyleGAN3, whose filters have 6 taps per sample of the lower rate.
//
// Per output pixel in half precision the op moves 4 bytes (same rate) or 2.5 (doubling), and in training one more for
// codes. Strips read some columns twice, 42 for 32 outputs at the same rate, 25 for 16 doubling: 4.7 and 2.8 bytes if
// no cache helps. The filters take 91 multiply-adds at the same rate, which at 128 per clock and multiprocessor is 2.4
// times as long as 4 bytes at 3 TB/s. So arithmetic and shared memory bound the op, and the upsampled signal h, by far
// the largest, stays in registers: a thread makes 26 samples of h, 10 of which its neighbor makes too, and adds them up
// to 8 outputs. That leaves 15 accesses to shared memory per output pixel, at 32 per clock.
//
// A tap beyond the end of a filter is zero, so a kernel for K taps also serves shorter filters.
#pragma once

#include "common.cuh"

namespace sgan {
namespace {

constexpr int kWord = 16;  // codes in a word: samples x to x + 15, two bits each. 1: negative, 2: clamped

// The activation of h, which is not clamped yet, and its code.
template <class A>
__device__ __forceinline__ A activate(A h, A slope, A clamp, uint32_t& code) {
    code = h < 0;
    const A q = h < 0 ? slope * h : h;
    if (q > clamp) return code |= 2, clamp;
    if (q < -clamp) return code |= 2, -clamp;
    return q;  // also NaN
}

template <class A>
__device__ __forceinline__ A derivative(uint32_t code, A slope) {
    return code & 2 ? A(0) : code ? slope : A(1);
}

// Stored codes of samples 16 i to 16 i + 15 of a row; zero outside: nothing arrives there.
__device__ __forceinline__ uint32_t code_word(const FilteredLrelu& args, int64_t n, int64_t c, int64_t row, int64_t i) {
    if (row < 0 || row >= args.code_h || i < 0 || i >= args.code_w) return 0;
    const int64_t* stride = args.code_stride;
    return static_cast<const uint32_t*>(args.codes)[n * stride[0] + c * stride[1] + row * stride[2] + i * stride[3]];
}

__device__ __forceinline__ void write_codes(const FilteredLrelu& args, int64_t n, int64_t c, int64_t row, int64_t i,
                                            uint32_t word) {
    if (row >= args.code_h || i >= args.code_w) return;
    const int64_t* stride = args.code_stride;
    static_cast<uint32_t*>(args.new_codes)[n * stride[0] + c * stride[1] + row * stride[2] + i * stride[3]] = word;
}

// ---------------------------------------------------------------------------------------------------------------------
// Strips
//
// A block walks down a strip of 64 / DOWN columns of L channels, 16 rows of h at a time:
//   1. vertical upsampling of x, from memory into v; each value of x is in the cache when it is read again
//   2. horizontal upsampling, activation, horizontal downsampling, from v into d
//   3. vertical downsampling of d, whose last rows are kept for the next step
// A radial filter is a sum of R separable ones: R copies of v (upsampling) or d (downsampling).
//
// Upsampling is grouped by UP: sample UP q + r of h is sum_m g[UP - 1 - r + UP m] x[first + q + m]. Leading zeros shift
// the filter so that this holds for every padding.

template <int UP_, int M_, int DOWN_, int KD_, int RU_, int RD_, bool READS_>
struct Strip {
    static constexpr int UP = UP_, DOWN = DOWN_, KD = KD_;
    static constexpr int M = M_, KU = UP * M;     // taps per sample of h, and in all
    static constexpr int RU = RU_, RD = RD_;      // separable filters
    static constexpr bool READS = READS_;         // stored codes instead of the activation
    static constexpr int L = RU * RD == 1 ? 8 : 4;  // channels
    static constexpr int THREADS = 256, BLOCKS = RU * RD == 1 && KD <= 12 ? 3 : 2;  // per multiprocessor, at least
    static constexpr int ROWS = 16;               // of h, per step
    static constexpr int OUTS = kWord / DOWN;     // outputs along y per step, and along x per thread
    static constexpr int OUT_X = 64 / DOWN;
    static constexpr int KEEP = ceil_div(KD - DOWN, UP) * UP;                     // rows of d that the next step needs
    static constexpr int WINDOW = kWord + KD - DOWN;                              // samples of h per thread
    static constexpr int COLUMNS = ceil_div(WINDOW, UP) + M - 1;                  // of v per thread
    static constexpr int IN_X = (64 - kWord) / UP + COLUMNS;
    static constexpr int GROUPS = 4;                                              // of UP rows per thread
    // Threads of a warp have different rows or columns, or neighboring channels: with odd rows and these planes they
    // use different banks.
    static constexpr int plane(int size) { return ceil_div(size - 32 / L, 64 / L) * (64 / L) + 32 / L; }
    static constexpr int V_ROW = IN_X | 1, V_PLANE = plane(ROWS * V_ROW);
    static constexpr int D_ROW = OUT_X | 1, D_PLANE = plane((KEEP + ROWS) * D_ROW);
    static constexpr int TAPS = 2 * (RU * KU + RD * KD);
    static constexpr int SHARED = TAPS + L * (RU * V_PLANE + RD * D_PLANE);
    static_assert(ROWS % (UP * GROUPS) == 0 && SHARED * sizeof(float) <= 99 * 1024, "unsupported strip");
};

struct StripGrid {
    int64_t strips, columns, chunks;  // along y, along x, along the channels
    int64_t steps;                    // per strip
    int64_t first_y, first_x;         // the first sample of x that sample 0 of h uses
    int lead_y, lead_x;               // leading zeros of the upsampling filter
    bool channels_inner;
};

// The taps of one axis in the order in which they multiply samples, after `lead` zeros.
template <class A>
__device__ void load_taps(A* to, int size, const A* f, int taps, bool flip, int lead) {
    for (int k = threadIdx.x; k < size; k += blockDim.x) {
        const int i = k - lead;
        to[k] = i < 0 || i >= taps ? A(0) : f[flip ? i : taps - 1 - i];
    }
}

// Step 1: 16 rows of v from row `row` of h on. x and b are those of the first channel.
template <class T, class S, class A>
__device__ __forceinline__ void upsample_rows(const FilteredLrelu& args, const StripGrid& grid, const T* x, const A* b,
                                              int channels, int64_t row, int64_t column, const A* uy, A* v) {
    constexpr int G = S::GROUPS, SPLITS = S::ROWS / S::UP / G;
    for (int i = threadIdx.x; i < S::L * S::IN_X * SPLITS; i += S::THREADS) {
        // Neighboring threads read neighboring memory.
        const int l = grid.channels_inner ? i % S::L : i / S::IN_X % S::L;
        const int at = grid.channels_inner ? i / S::L % S::IN_X : i % S::IN_X;
        const int group = i / (S::L * S::IN_X) * G;
        const int64_t at_x = column / S::UP + grid.first_x + at, at_y = row / S::UP + grid.first_y + group;
        const bool inside = l < channels && at_x >= 0 && at_x < args.w;
        const T* from = x + l * args.x_stride[1] + at_y * args.x_stride[2] + at_x * args.x_stride[3];
        const A bias = b && inside ? b[l] : A(0);
        // Rows of x in the window: from `begin`, before `end`.
        const int begin = at_y < -32 ? 32 : at_y < 0 ? static_cast<int>(-at_y) : 0;
        const int end = !inside || at_y >= args.h ? 0 : args.h - at_y < 32 ? static_cast<int>(args.h - at_y) : 32;
        A in[G + S::M - 1];
#pragma unroll
        for (int k = 0; k < G + S::M - 1; k++)
            in[k] = k >= begin && k < end ? to_acc(from[k * args.x_stride[2]]) + bias : A(0);
#pragma unroll 1
        for (int p = 0; p < S::RU; p++)
#pragma unroll
            for (int r = 0; r < S::UP; r++)
#pragma unroll
                for (int g = 0; g < G; g++) {
                    A sum = 0;
#pragma unroll
                    for (int m = 0; m < S::M; m++) sum += uy[p * S::KU + S::UP - 1 - r + S::UP * m] * in[g + m];
                    v[(p * S::L + l) * S::V_PLANE + ((group + g) * S::UP + r) * S::V_ROW + at] = sum;
                }
    }
}

// Step 2: `rows` rows of d, behind those that were kept. `own` is the end of the rows whose codes the strip writes.
template <class S, class A>
__device__ __forceinline__ void resample_columns(const FilteredLrelu& args, int64_t n, int64_t c, int channels,
                                                 int64_t row, int rows, int64_t own, int64_t column, const A* ux,
                                                 const A* dx, const A* v, A* d) {
    const A slope = static_cast<A>(args.slope), clamp = static_cast<A>(args.clamp);
    for (int i = threadIdx.x; i < S::ROWS * S::L * 64 / kWord; i += S::THREADS) {
        const int y = i % S::ROWS, l = i / S::ROWS % S::L, part = i / (S::ROWS * S::L);
        if (y >= rows) continue;
        // One filter after another, so that its taps are in registers, but not those of all.
        A h[S::WINDOW] = {};
#pragma unroll 1
        for (int p = 0; p < S::RU; p++) {
            A in[S::COLUMNS];
#pragma unroll
            for (int k = 0; k < S::COLUMNS; k++)
                in[k] = v[(p * S::L + l) * S::V_PLANE + y * S::V_ROW + part * (kWord / S::UP) + k];
#pragma unroll
            for (int e = 0; e < S::WINDOW; e++)
#pragma unroll
                for (int m = 0; m < S::M; m++)
                    h[e] += ux[p * S::KU + S::UP - 1 - e % S::UP + S::UP * m] * in[e / S::UP + m];
        }
        uint32_t codes[ceil_div(S::WINDOW, kWord)] = {};
        if constexpr (S::READS) {
            const int64_t at = column + part * kWord + args.offset_x, first = at >> 4;  // 16 per word
            const unsigned shift = 2 * static_cast<unsigned>(at & 15);
            const int64_t code_row = l < channels ? row + y + args.offset_y : -1;
            uint64_t word = code_word(args, n, c + l, code_row, first);
#pragma unroll
            for (int k = 0; k < ceil_div(S::WINDOW, kWord); k++) {
                word |= static_cast<uint64_t>(code_word(args, n, c + l, code_row, first + k + 1)) << 32;
                codes[k] = static_cast<uint32_t>(word >> shift);
                word >>= 32;
            }
        }
#pragma unroll
        for (int e = 0; e < S::WINDOW; e++) {
            h[e] *= static_cast<A>(args.gain);
            if constexpr (S::READS) {
                h[e] *= derivative(codes[e / kWord] >> 2 * (e % kWord) & 3, slope);
            } else {
                uint32_t code;
                h[e] = activate(h[e], slope, clamp, code);
                codes[e / kWord] |= code << 2 * (e % kWord);
            }
        }
        if (!S::READS && args.new_codes && l < channels && row + y < own)
            write_codes(args, n, c + l, row + y, column / kWord + part, codes[0]);
#pragma unroll 1
        for (int p = 0; p < S::RD; p++)
#pragma unroll
            for (int o = 0; o < S::OUTS; o++) {
                A sum = 0;
#pragma unroll
                for (int k = 0; k < S::KD; k++) sum += dx[p * S::KD + k] * h[S::DOWN * o + k];
                d[(p * S::L + l) * S::D_PLANE + (S::KEEP + y) * S::D_ROW + part * S::OUTS + o] = sum;
            }
    }
}

// Step 3: OUTS rows of y from row `oy` on, unless it is negative. Afterwards d has moved up by `rows` rows.
template <class T, class S, class A>
__device__ __forceinline__ void downsample_rows(const FilteredLrelu& args, bool channels_inner, T* y, int channels,
                                                int64_t oy, int64_t column, int rows, const A* dy, A* d) {
    for (int i = threadIdx.x; i < S::L * S::OUT_X; i += S::THREADS) {
        const int l = channels_inner ? i % S::L : i / S::OUT_X, at = channels_inner ? i / S::L : i % S::OUT_X;
        const int64_t ox = column / S::DOWN + at;
        A* own = d + l * S::D_PLANE + at;  // no other thread uses this column
        if (oy >= 0 && l < channels && ox < args.out_w) {
            A out[S::OUTS] = {};
#pragma unroll 1
            for (int p = 0; p < S::RD; p++)
#pragma unroll
                for (int k = 0; k < S::ROWS - S::DOWN + S::KD; k++) {
                    const A in = own[p * S::L * S::D_PLANE + k * S::D_ROW];
#pragma unroll
                    for (int o = 0; o < S::OUTS; o++)
                        if (k >= S::DOWN * o && k < S::DOWN * o + S::KD) out[o] += dy[p * S::KD + k - S::DOWN * o] * in;
                }
#pragma unroll
            for (int o = 0; o < S::OUTS; o++)
                if (oy + o < args.out_h)
                    y[l * args.y_stride[1] + (oy + o) * args.y_stride[2] + ox * args.y_stride[3]] = from_acc<T>(out[o]);
        }
        for (int p = 0; p < S::RD; p++)
            for (int k = 0; k < S::KEEP; k++) {
                A* to = own + p * S::L * S::D_PLANE + k * S::D_ROW;
                *to = to[rows * S::D_ROW];
            }
    }
}

template <class T, class S>
__global__ void __launch_bounds__(S::THREADS, S::BLOCKS)
    filtered_lrelu_strip_kernel(FilteredLrelu args, StripGrid grid, int64_t blocks) {
    using A = acc_t<T>;
    A* uy = shared_memory<A>();
    A *ux = uy + S::RU * S::KU, *dy = ux + S::RU * S::KU, *dx = dy + S::RD * S::KD;
    A *v = dx + S::RD * S::KD, *d = v + S::RU * S::L * S::V_PLANE;
    for (int p = 0; p < S::RU; p++) {  // a pair is [taps_y + taps_x]; a separable filter, both
        const A* f = static_cast<const A*>(S::RU > 1 ? args.pairs : args.fu);
        f += p * (args.up_taps_y + args.up_taps_x);
        load_taps(uy + p * S::KU, S::KU, f, args.up_taps_y, args.flip, grid.lead_y);
        load_taps(ux + p * S::KU, S::KU, S::RU > 1 ? f + args.up_taps_y : f, args.up_taps_x, args.flip, grid.lead_x);
    }
    for (int p = 0; p < S::RD; p++) {
        const A* f = static_cast<const A*>(S::RD > 1 ? args.pairs : args.fd);
        f += p * (args.down_taps_y + args.down_taps_x);
        load_taps(dy + p * S::KD, S::KD, f, args.down_taps_y, args.flip, 0);
        load_taps(dx + p * S::KD, S::KD, S::RD > 1 ? f + args.down_taps_y : f, args.down_taps_x, args.flip, 0);
    }
    __syncthreads();

    for (int64_t id = blockIdx.x; id < blocks; id += gridDim.x) {
        // Neighboring blocks read neighboring memory.
        int64_t rest = id, chunk = 0;
        if (grid.channels_inner) chunk = rest % grid.chunks, rest /= grid.chunks;
        const int64_t column = rest % grid.columns * 64;  // of h
        rest /= grid.columns;
        const int64_t strip = rest % grid.strips;
        rest /= grid.strips;
        if (!grid.channels_inner) chunk = rest % grid.chunks, rest /= grid.chunks;
        const int64_t n = rest, c = chunk * S::L;
        const int channels = static_cast<int>(args.c - c < S::L ? args.c - c : S::L);
        const T* x = static_cast<const T*>(args.x) + n * args.x_stride[0] + c * args.x_stride[1];
        T* y = static_cast<T*>(args.y) + n * args.y_stride[0] + c * args.y_stride[1];
        const A* b = args.b ? static_cast<const A*>(args.b) + c : nullptr;

        const int64_t first = strip * grid.steps * S::ROWS, end = first + S::KEEP + grid.steps * S::ROWS;
        const int64_t own = strip + 1 < grid.strips ? end - S::KEEP : end;
        for (int64_t row = first; row < end;) {
            const int64_t missing = first + S::KEEP - row;  // rows before the first outputs
            const int rows = missing > 0 && missing < S::ROWS ? static_cast<int>(missing) : S::ROWS;
            upsample_rows<T, S>(args, grid, x, b, channels, row, column, uy, v);
            __syncthreads();
            resample_columns<S>(args, n, c, channels, row, rows, own, column, ux, dx, v, d);
            __syncthreads();
            const int64_t oy = missing > 0 ? -1 : (row - S::KEEP) / S::DOWN;
            downsample_rows<T, S>(args, grid.channels_inner, y, channels, oy, column, rows, dy, d);
            row += rows;
        }
        __syncthreads();  // before the next strip overwrites d
    }
}

// floor(a / b) and the rest, which is not negative.
__host__ __device__ inline int64_t floor_div(int64_t a, int64_t b) { return (a >= 0 ? a : a - b + 1) / b; }
__host__ __device__ inline int64_t floor_mod(int64_t a, int64_t b) { return a - floor_div(a, b) * b; }

// Whether the strips of S compute this.
template <class S>
bool fits(const FilteredLrelu& args) {
    const bool pairs_u = args.pairs && !args.separable_u, pairs_d = args.pairs && !args.separable_d;
    if (args.up != S::UP || args.down != S::DOWN || (args.codes != nullptr) != S::READS) return false;
    if (args.separable_u ? S::RU != 1 : !pairs_u || S::RU != args.num_pairs) return false;
    if (args.separable_d ? S::RD != 1 : !pairs_d || S::RD != args.num_pairs) return false;
    const int64_t lead_y = floor_mod(S::UP - 1 - args.pad_y, S::UP), lead_x = floor_mod(S::UP - 1 - args.pad_x, S::UP);
    return args.up_taps_y + lead_y <= S::KU && args.up_taps_x + lead_x <= S::KU && args.down_taps_y <= S::KD &&
           args.down_taps_x <= S::KD;
}

// Launch the kernel of S if it fits. Otherwise `error` remains as it is.
template <class T, class S>
bool launch_strips(const FilteredLrelu& args, void* stream, const char*& error) {
    if (!fits<S>(args)) return false;
    StripGrid grid{};
    grid.lead_y = static_cast<int>(floor_mod(S::UP - 1 - args.pad_y, S::UP));
    grid.lead_x = static_cast<int>(floor_mod(S::UP - 1 - args.pad_x, S::UP));
    grid.first_y = (S::UP - 1 - args.pad_y - grid.lead_y) / S::UP;
    grid.first_x = (S::UP - 1 - args.pad_x - grid.lead_x) / S::UP;
    grid.channels_inner = args.y_stride[1] == 1 && args.c > 1;
    grid.chunks = ceil_div<int64_t>(args.c, S::L);
    const int64_t width = args.new_codes ? args.code_w * kWord : args.out_w * S::DOWN;  // all codes are written
    grid.columns = ceil_div<int64_t>(width, 64);
    // Long strips compute little twice; about 1000 blocks fill every GPU.
    const int64_t steps = ceil_div<int64_t>(args.out_h, S::OUTS), others = args.n * grid.chunks * grid.columns;
    const int64_t strips = ceil_div<int64_t>(1000, others);
    grid.steps = ceil_div(steps, strips < ceil_div<int64_t>(steps, 4) ? strips : ceil_div<int64_t>(steps, 4));
    grid.strips = ceil_div(steps, grid.steps);
    const int64_t blocks = others * grid.strips;
    const dim3 size(static_cast<unsigned>(blocks < kMaxGrid ? blocks : kMaxGrid));
    error = launch(filtered_lrelu_strip_kernel<T, S>, size, dim3(S::THREADS), S::SHARED * sizeof(acc_t<T>), stream,
                   args, grid, blocks);
    return true;
}

}  // namespace
}  // namespace sgan
