// Modulated convolution as one implicit matrix product on tensor cores: pixels by output channels, summed over input
// channels and taps. Styles multiply the input on its way into shared memory; everything after the convolution
// (demodulation, noise, bias, activation, gain, clamp) happens in registers before the only store.
//
// A block computes 8 x 16 pixels of BN channels. It processes 32 input channels at a time: their 10 x 18 pixels (3x3
// needs a border of one) are read once and used by all nine taps, while the weights of one tap after another stream
// through a ring of buffers. Needs sm_80: mma.sync, ldmatrix, cp.async.

#include "common.cuh"

namespace sgan {
namespace {

constexpr int TILE_X = 16, TILE_Y = 8, BM = TILE_X * TILE_Y;  // output pixels of a block: one row is one mma's 16 rows
constexpr int BK = 32;                                        // input channels at a time
constexpr int ROW = BK + 8;  // row pitch in shared memory, in numbers: 80 bytes avoid bank conflicts of ldmatrix
constexpr int VECTORS = BK / 8;  // 16-byte vectors in a row
constexpr int WARPS = 8, THREADS = 32 * WARPS;
constexpr int STAGES = 3;  // tiles of weights in flight or in use

// K: side of the filter. BN: output channels of a block. WARPS_M by WARPS_N warps cover the block's tile.
template <class T_, int K_, int BN_, int WARPS_N_>
struct Config {
    using T = T_;
    static constexpr int K = K_, TAPS = K * K, BN = BN_, WARPS_N = WARPS_N_, WARPS_M = WARPS / WARPS_N;
    static constexpr int MT = BM / 16 / WARPS_M, NT = BN / 8 / WARPS_N;  // mma tiles of a warp
    static constexpr int IN_X = TILE_X + K - 1, IN_Y = TILE_Y + K - 1, PIXELS = IN_X * IN_Y;
    static constexpr int LOADS = (PIXELS * VECTORS + THREADS - 1) / THREADS;  // per thread, for one input tile
    static constexpr int X_TILE = PIXELS * ROW, W_TILE = BN * ROW;            // in numbers
    static constexpr int OUT_ROW = BN + 8;
    static constexpr size_t LOOP_BYTES = sizeof(T) * (2 * X_TILE + STAGES * W_TILE);
    static constexpr size_t OUT_BYTES = sizeof(T) * BM * OUT_ROW;
    static constexpr size_t BYTES = LOOP_BYTES > OUT_BYTES ? LOOP_BYTES : OUT_BYTES;
    static_assert(NT == 1 || NT % 2 == 0, "weights are read two mma tiles at a time");
};

// The part of the output that a block computes.
struct Place {
    int64_t n;  // sample
    int y, x;   // first output pixel, before phases are interleaved
    int out;    // first output channel
    int phase;
};

// 8 channels of a row starting at `channel`, zero from `channels` on.
template <class T>
__device__ __forceinline__ Vec<T, 8> load_channels(const T* row, int channel, int channels, bool vectors) {
    if (vectors) return channel < channels ? load<T, 8>(row + channel) : Vec<T, 8>{};
    Vec<T, 8> v;
#pragma unroll
    for (int j = 0; j < 8; j++) v.at[j] = channel + j < channels ? row[channel + j] : from_acc<T>(0);
    return v;
}

// Start reading the input tile of the channels from `channel` on into registers.
template <class C>
__device__ __forceinline__ void read_input(Vec<typename C::T, 8> (&v)[C::LOADS], const ModulatedConv2d& args,
                                           const Place& at, int channel, bool vectors) {
    using T = typename C::T;
    const int height = static_cast<int>(args.height), width = static_cast<int>(args.width);
    const int in_c = static_cast<int>(args.in_c);
    const T* x = static_cast<const T*>(args.x) + at.n * height * width * in_c;
#pragma unroll
    for (int j = 0; j < C::LOADS; j++) {
        const int i = threadIdx.x + j * THREADS, pixel = i / VECTORS;
        const int py = at.y + pixel / C::IN_X - C::K / 2, px = at.x + pixel % C::IN_X - C::K / 2;
        const bool inside = pixel < C::PIXELS && py >= 0 && py < height && px >= 0 && px < width;
        v[j] = Vec<T, 8>{};
        if (inside)
            v[j] = load_channels(x + static_cast<int64_t>(py * width + px) * in_c, channel + i % VECTORS * 8, in_c,
                                 vectors);
    }
}

// Multiply them by the styles and write them to shared memory. All vectors of a thread have the same 8 channels.
template <class C>
__device__ __forceinline__ void write_input(typename C::T* tile, const Vec<typename C::T, 8> (&v)[C::LOADS],
                                            const ModulatedConv2d& args, const Place& at, int channel) {
    using T = typename C::T;
    static_assert(THREADS % VECTORS == 0, "all vectors of a thread need the same channels");
    const int first = threadIdx.x % VECTORS * 8;
    const float* style = static_cast<const float*>(args.style) + at.n * args.in_c;
    float s[8];
#pragma unroll
    for (int k = 0; k < 8; k++) s[k] = channel + first + k < args.in_c ? style[channel + first + k] : 0.f;
#pragma unroll
    for (int j = 0; j < C::LOADS; j++) {
        const int pixel = (threadIdx.x + j * THREADS) / VECTORS;
        if (pixel >= C::PIXELS) continue;
        Vec<T, 8> scaled;
#pragma unroll
        for (int k = 0; k < 8; k++) scaled.at[k] = from_acc<T>(to_acc(v[j].at[k]) * s[k]);
        store<T, 8>(tile + pixel * ROW + first, scaled);
    }
}

// Start copying the weights of one tap: [BN, BK].
template <class C>
__device__ __forceinline__ void copy_weights(typename C::T* tile, const ModulatedConv2d& args, const Place& at,
                                             int channel, int tap, bool vectors) {
    using T = typename C::T;
    for (int i = threadIdx.x; i < C::BN * VECTORS; i += THREADS) {
        const int row = i / VECTORS;
        const int from = channel + i % VECTORS * 8, in_c = static_cast<int>(args.in_c);
        const bool inside = at.out + row < args.out_c;
        const int64_t filter = inside ? at.phase * args.out_c + at.out + row : 0;
        const T* w = static_cast<const T*>(args.w) + (filter * C::TAPS + tap) * in_c;
        T* to = tile + row * ROW + i % VECTORS * 8;
        if (vectors) {
            const bool any = inside && from < in_c;
            copy_async_16(to, any ? w + from : w, any ? 16 : 0);
        } else {
            store<T, 8>(to, load_channels(w, from, inside ? in_c : 0, false));
        }
    }
}

// acc += the input tile, shifted by the tap, times the tap's weights.
template <class C>
__device__ __forceinline__ void multiply_tap(float (&acc)[C::MT][C::NT][4], const typename C::T* x,
                                             const typename C::T* w, int tap) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int matrix = lane / 8, in_matrix = lane % 8;
    const int dy = tap / C::K, dx = tap % C::K;
    const int tile_row = warp / C::WARPS_N * C::MT, column = warp % C::WARPS_N * C::NT * 8;
#pragma unroll
    for (int k = 0; k < BK / 16; k++) {
        uint32_t b[C::NT][2];
#pragma unroll
        for (int t = 0; t < C::NT; t += 2) {
            // Two mma tiles of 8 channels; if there is only one, the second half is unused.
            uint32_t r[4];
            const int row = (column + t * 8 + matrix / 2 * 8 + in_matrix) % C::BN;
            load_matrix_x4(r, w + row * ROW + k * 16 + matrix % 2 * 8);
            b[t][0] = r[0], b[t][1] = r[1];
            if (t + 1 < C::NT) b[t + 1][0] = r[2], b[t + 1][1] = r[3];
        }
#pragma unroll
        for (int m = 0; m < C::MT; m++) {
            uint32_t a[4];
            const int pixel = (tile_row + m + dy) * C::IN_X + matrix % 2 * 8 + in_matrix + dx;
            load_matrix_x4(a, x + pixel * ROW + k * 16 + matrix / 2 * 8);
#pragma unroll
            for (int t = 0; t < C::NT; t++) matrix_multiply_add<typename C::T>(acc[m][t], a, b[t][0], b[t][1]);
        }
    }
}

// clamp(gain act(d y + noise + b)) for one number.
__device__ __forceinline__ float finish(float y, float d, float noise, float b, const ModulatedConv2d& args) {
    const float p = d * y + noise + b, clamp = static_cast<float>(args.clamp);
    const float out = static_cast<float>(args.gain) * (p > 0 ? p : p * static_cast<float>(args.slope));
    return out > clamp ? clamp : out < -clamp ? -clamp : out;  // written so that NaN stays NaN
}

// Finish the sums and write them to shared memory, from where they are stored in whole vectors.
template <class C>
__device__ __forceinline__ void finish_tile(const float (&acc)[C::MT][C::NT][4], typename C::T* tile,
                                            const ModulatedConv2d& args, const Place& at) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, side = args.phases == 4 ? 2 : 1;
    const int64_t out_w = args.width * side;
    const float* noise = static_cast<const float*>(args.noise);
    const float* d = static_cast<const float*>(args.d);
    const float* b = static_cast<const float*>(args.b);
#pragma unroll
    for (int m = 0; m < C::MT; m++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const int row = warp / C::WARPS_N * C::MT + m, column = lane / 4 + 8 * half;
            if (at.y + row >= args.height || at.x + column >= args.width) continue;
            const int64_t y = (at.y + row) * side + at.phase / 2, x = (at.x + column) * side + at.phase % 2;
            const float strength = noise ? noise[at.n * args.noise_stride + y * out_w + x] : 0.f;
#pragma unroll
            for (int t = 0; t < C::NT; t++)
#pragma unroll
                for (int j = 0; j < 2; j++) {
                    const int channel = (warp % C::WARPS_N * C::NT + t) * 8 + lane % 4 * 2 + j;
                    const int64_t o = at.out + channel;
                    if (o >= args.out_c) continue;
                    const float value = finish(acc[m][t][2 * half + j], d ? d[at.n * args.out_c + o] : 1.f, strength,
                                               b ? b[o] : 0.f, args);
                    tile[(row * TILE_X + column) * C::OUT_ROW + channel] = from_acc<typename C::T>(value);
                }
        }
}

// Copy the finished tile from shared memory to y.
template <class C>
__device__ __forceinline__ void write_tile(const typename C::T* tile, const ModulatedConv2d& args, const Place& at) {
    using T = typename C::T;
    const int side = args.phases == 4 ? 2 : 1;
    const bool vectors = args.out_c % 8 == 0 && reinterpret_cast<uintptr_t>(args.y) % 16 == 0;
    for (int i = threadIdx.x; i < BM * C::BN / 8; i += THREADS) {
        const int pixel = i / (C::BN / 8), channel = i % (C::BN / 8) * 8;
        const int64_t row = at.y + pixel / TILE_X, column = at.x + pixel % TILE_X, o = at.out + channel;
        if (row >= args.height || column >= args.width || o >= args.out_c) continue;
        const int64_t y = row * side + at.phase / 2, x = column * side + at.phase % 2;
        T* to = static_cast<T*>(args.y) + ((at.n * args.height * side + y) * args.width * side + x) * args.out_c + o;
        const Vec<T, 8> v = load<T, 8>(tile + pixel * C::OUT_ROW + channel);
        if (vectors) store<T, 8>(to, v);
        else
            for (int j = 0; j < 8 && o + j < args.out_c; j++) to[j] = v.at[j];
    }
}

template <class C>
__global__ void __launch_bounds__(THREADS, 2) modulated_conv2d_kernel(ModulatedConv2d args, int tiles_x, int tiles_y,
                                                                   int tiles_out, bool vectors) {
    using T = typename C::T;
    T* x_tiles = shared_memory<T>();           // [2, PIXELS, ROW]
    T* w_tiles = x_tiles + 2 * C::X_TILE;      // [STAGES, BN, ROW]
    const int chunks = static_cast<int>(ceil_div<int64_t>(args.in_c, BK)), steps = chunks * C::TAPS;

    // Neighboring blocks read the same input.
    int64_t rest = blockIdx.x;
    Place at;
    at.out = static_cast<int>(rest % tiles_out) * C::BN, rest /= tiles_out;
    at.phase = static_cast<int>(rest % args.phases), rest /= args.phases;
    at.x = static_cast<int>(rest % tiles_x) * TILE_X, rest /= tiles_x;
    at.y = static_cast<int>(rest % tiles_y) * TILE_Y, rest /= tiles_y;
    at.n = rest;

    float acc[C::MT][C::NT][4] = {};
    Vec<T, 8> next[C::LOADS];
    read_input<C>(next, args, at, 0, vectors);
    for (int step = 0; step < STAGES - 1; step++) {
        if (step < steps)
            copy_weights<C>(w_tiles + step * C::W_TILE, args, at, step / C::TAPS * BK, step % C::TAPS, vectors);
        copy_async_commit();
    }
    write_input<C>(x_tiles, next, args, at, 0);

    for (int step = 0; step < steps; step++) {
        const int chunk = step / C::TAPS, tap = step % C::TAPS, ahead = step + STAGES - 1;
        copy_async_wait<STAGES - 2>();  // this step's weights have arrived
        __syncthreads();                // for all threads, and the tiles of the previous step are free
        if (ahead < steps)
            copy_weights<C>(w_tiles + ahead % STAGES * C::W_TILE, args, at, ahead / C::TAPS * BK, ahead % C::TAPS,
                            vectors);
        copy_async_commit();
        if (tap == 0 && chunk + 1 < chunks) read_input<C>(next, args, at, (chunk + 1) * BK, vectors);
        multiply_tap<C>(acc, x_tiles + chunk % 2 * C::X_TILE, w_tiles + step % STAGES * C::W_TILE, tap);
        if (tap == C::TAPS - 1 && chunk + 1 < chunks)
            write_input<C>(x_tiles + (chunk + 1) % 2 * C::X_TILE, next, args, at, (chunk + 1) * BK);
    }

    __syncthreads();  // the tiles are free and can be reused for the output
    finish_tile<C>(acc, x_tiles, args, at);
    __syncthreads();
    write_tile<C>(x_tiles, args, at);
}

template <class C>
const char* launch_config(const ModulatedConv2d& args, void* stream) {
    const int tiles_x = static_cast<int>(ceil_div<int64_t>(args.width, TILE_X));
    const int tiles_y = static_cast<int>(ceil_div<int64_t>(args.height, TILE_Y));
    const int tiles_out = static_cast<int>(ceil_div<int64_t>(args.out_c, C::BN));
    const int64_t tiles = args.n * args.phases * tiles_x * tiles_y * tiles_out;
    if (tiles > kMaxGrid) return "the batch is too large";
    const bool vectors = args.in_c % 8 == 0 && aligned_16(args.x) && aligned_16(args.w);
    return launch(modulated_conv2d_kernel<C>, dim3(static_cast<unsigned>(tiles)), dim3(THREADS), C::BYTES, stream, args,
                  tiles_x, tiles_y, tiles_out, vectors);
}

// Wide blocks read the input fewer times; narrow ones waste less if there are few channels.
template <class T>
const char* launch_typed(const ModulatedConv2d& args, void* stream) {
    if (args.k == 1 && args.out_c <= 8) return launch_config<Config<T, 1, 8, 1>>(args, stream);
    if (args.k == 1) return launch_config<Config<T, 1, 64, 2>>(args, stream);
    if (args.k != 3) return "the filter must be 1x1 or 3x3";
    if (args.out_c <= 32) return launch_config<Config<T, 3, 32, 1>>(args, stream);
    if (args.out_c <= 64) return launch_config<Config<T, 3, 64, 2>>(args, stream);
    return launch_config<Config<T, 3, 128, 4>>(args, stream);
}

}  // namespace

const char* modulated_conv2d(const ModulatedConv2d& args, void* stream) {
    if (args.n * args.out_c * args.height * args.width == 0) return nullptr;
    if (args.height * args.width * args.phases > std::numeric_limits<int32_t>::max()) return "the image is too large";
    if (args.dtype == Dtype::float16) return launch_typed<__half>(args, stream);
    if (args.dtype == Dtype::bfloat16) return launch_typed<__nv_bfloat16>(args, stream);
    return "tensor cores take float16 and bfloat16";
}

}  // namespace sgan
