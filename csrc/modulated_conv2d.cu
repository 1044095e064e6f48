// Modulated convolution as one implicit matrix product on tensor cores: pixels by output channels, summed over input
// channels and taps. Styles multiply the input on its way into shared memory; everything after the convolution
// (demodulation, noise, bias, activation, gain, clamp) happens in registers before the only store.
//
// This file chooses between two kernels; modulated_conv2d_wgmma.cu has the other one. In the one here, a block computes
// 8 x 16 pixels of BN channels, and processes a chunk of input channels at a time: its 10 x 18 pixels (3x3 needs a
// border of one) are read once and used by all nine taps, while the weights of one tap after another stream through a
// ring of buffers. When upsampling, these are 8 x 16 pixels of each phase: see modulated_conv2d.cuh. Needs sm_80:
// mma.sync, ldmatrix, cp.async.

#include "modulated_conv2d.cuh"

namespace sgan {
namespace {

constexpr int TILE_X = 16, TILE_Y = 8, BM = TILE_X * TILE_Y;  // output pixels of a block: one row is one mma's 16 rows
constexpr int ROW = CHUNK + 8;      // row pitch of the input, in numbers: 80 bytes avoid bank conflicts of ldmatrix
constexpr int PARTS = CHUNK / 8;    // 16-byte vectors in a row
constexpr int WARPS = 8, THREADS = 32 * WARPS;
constexpr int STAGES = 3;  // tiles of weights in flight or in use

// K: side of the filter. BN: output channels of a block. WARPS_M by WARPS_N warps cover the block's tile. VECTORS: the
// input, and when upsampling also the output, has whole vectors of channels.
template <class T_, int K_, int BN_, int WARPS_N_, bool VECTORS_ = true, int UP_ = 1>
struct Config {
    using T = T_;
    static constexpr bool VECTORS = VECTORS_;
    static constexpr int K = K_, TAPS = K * K, BN = BN_, WARPS_N = WARPS_N_, WARPS_M = WARPS / WARPS_N;
    static constexpr int UP = UP_, PHASES = UP * UP, BORDER = UP == 2 ? 2 : K / 2;  // of the input, above and left
    static constexpr int MT = BM / 16 / WARPS_M, NT = BN / 8 / WARPS_N;             // mma tiles of a warp and phase
    static constexpr int LOST = UP == 2 ? 2 : 0, OUT_X = TILE_X - LOST, OUT_Y = TILE_Y - LOST;  // pixels of a tile
    static constexpr int UNROLL = UP == 2 ? TAPS : 3;  // taps; the phase of a tap is known when compiling
    static constexpr int IN_X = TILE_X + K - 1, IN_Y = TILE_Y + K - 1, PIXELS = IN_X * IN_Y;
    static constexpr int LOADS = (PIXELS * PARTS + THREADS - 1) / THREADS;  // per thread, for one input tile
    static constexpr int X_TILE = PIXELS * ROW, W_TILE = BN * CHUNK;        // in numbers
    static constexpr int OUT_ROW = UP == 2 ? BN : BN + 8;
    static constexpr size_t LOOP_BYTES = sizeof(T) * (2 * X_TILE + STAGES * W_TILE);
    static constexpr size_t OUT_BYTES = sizeof(T) * PHASES * BM * OUT_ROW;
    static constexpr size_t PLACE = LOOP_BYTES > OUT_BYTES ? LOOP_BYTES : OUT_BYTES;  // where the tile's place is kept
    static constexpr size_t BYTES = PLACE + sizeof(Place);
    static_assert(NT == 1 || NT % 2 == 0, "weights are read two mma tiles at a time");
    static_assert(UP == 1 || (K == 3 && BN == 32 && MT == 1 && NT == 4), "unsupported tile");
};

// 8 channels of a row starting at `channel`, zero from `channels` on.
template <bool VECTORS, class T>
__device__ __forceinline__ Pairs load_channels(const T* row, int channel, int channels) {
    if constexpr (VECTORS) {
        return channel < channels ? load_pairs(row + channel) : Pairs{};
    } else {
        float x[8];
#pragma unroll
        for (int j = 0; j < 8; j++) x[j] = channel + j < channels ? to_acc(row[channel + j]) : 0.f;
        return {pack<T>(x[0], x[1]), pack<T>(x[2], x[3]), pack<T>(x[4], x[5]), pack<T>(x[6], x[7])};
    }
}

// Where a thread's vectors of the input tile are in the sample, -1: outside.
template <class C>
__device__ __forceinline__ void locate_input(int (&offsets)[C::LOADS], const ModulatedConv2d& args, const Place& at) {
    const int height = static_cast<int>(args.height), width = static_cast<int>(args.width);
#pragma unroll
    for (int j = 0; j < C::LOADS; j++) {
        const int pixel = (threadIdx.x + j * THREADS) / PARTS;
        const int y = at.y + pixel / C::IN_X - C::BORDER, x = at.x + pixel % C::IN_X - C::BORDER;
        const bool inside = pixel < C::PIXELS && y >= 0 && y < height && x >= 0 && x < width;
        offsets[j] = inside ? (y * width + x) * static_cast<int>(args.in_c) : -1;
    }
}

// Start reading the input tile of the channels from `channel` on into registers.
template <class C>
__device__ __forceinline__ void read_input(Pairs (&v)[C::LOADS], const int (&offsets)[C::LOADS],
                                           const ModulatedConv2d& args, const Place& at, int channel) {
    const auto* x = static_cast<const typename C::T*>(args.x) + at.n * args.height * args.width * args.in_c;
    channel += threadIdx.x % PARTS * 8;
#pragma unroll
    for (int j = 0; j < C::LOADS; j++) {
        v[j] = {};
        if (offsets[j] >= 0)
            v[j] = load_channels<C::VECTORS>(x + offsets[j], channel, static_cast<int>(args.in_c));
    }
}

// Multiply them by the styles and write them to shared memory. All vectors of a thread have the same 8 channels.
template <class C>
__device__ __forceinline__ void write_input(typename C::T* tile, const Pairs (&v)[C::LOADS],
                                            const ModulatedConv2d& args, const Place& at, int channel) {
    using T = typename C::T;
    static_assert(THREADS % PARTS == 0, "all vectors of a thread need the same channels");
    const int first = threadIdx.x % PARTS * 8;
    const float* style = static_cast<const float*>(args.style) + at.n * args.in_c;
    float s[8];
#pragma unroll
    for (int k = 0; k < 8; k++) s[k] = channel + first + k < args.in_c ? style[channel + first + k] : 0.f;
#pragma unroll
    for (int j = 0; j < C::LOADS; j++) {
        const int pixel = (threadIdx.x + j * THREADS) / PARTS;
        if (pixel < C::PIXELS) store_pairs(tile + pixel * ROW + first, multiply_pairs<T>(v[j], s));
    }
}

// Start copying the weights of a tap; `from` is the thread's first vector, and becomes that of the next tap. Packed
// weights are arranged like the tile.
template <class C>
__device__ __forceinline__ void copy_weights(typename C::T* tile, const typename C::T*& from, const Tiles& tiles) {
#pragma unroll
    for (int i = 0; i < C::W_TILE / 8; i += THREADS)
        if (i + THREADS <= C::W_TILE / 8 || threadIdx.x < C::W_TILE / 8 - i)
            copy_async_16(tile + (threadIdx.x + i) * 8, from + i * 8, 16);
    from += tiles.rows * CHUNK;
}

// acc += the input tile, shifted, times the weights of a tap. Fragments are read a product ahead.
template <class C>
__device__ __forceinline__ void multiply_tap(float (&acc)[C::MT][C::NT][4], const typename C::T* x,
                                             const typename C::T* w, int below, int right) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int matrix = lane / 8, in_matrix = lane % 8;
    const int row = warp % C::WARPS_N * C::NT * 8 + matrix / 2 * 8 + in_matrix;
    w += (C::BN == 8 ? in_matrix : row) * CHUNK;  // of one mma tile, the second half is unused
    x += ((warp / C::WARPS_N * C::MT + below) * C::IN_X + matrix % 2 * 8 + in_matrix + right) * ROW;
    x += matrix / 2 * 8;
    uint32_t a[2][4], b[2][C::NT][2];
    const auto load_b = [&](int k) {
        const int swizzled = (k * 2 + matrix % 2) ^ (in_matrix / 2);  // vector of the row
#pragma unroll
        for (int t = 0; t < C::NT; t += 2) {
            uint32_t r[4];
            load_matrix_x4(r, w + t * 8 * CHUNK + swizzled * 8);
            b[k][t][0] = r[0], b[k][t][1] = r[1];
            if (t + 1 < C::NT) b[k][t + 1][0] = r[2], b[k][t + 1][1] = r[3];
        }
    };
    const auto load_a = [&](int i) { load_matrix_x4(a[i % 2], x + i % C::MT * C::IN_X * ROW + i / C::MT * 16); };
    load_b(0);
    load_a(0);
#pragma unroll
    for (int i = 0; i < 2 * C::MT; i++) {
        if (i + 1 < 2 * C::MT) load_a(i + 1);
        if (i == C::MT) load_b(1);
#pragma unroll
        for (int t = 0; t < C::NT; t++)
            matrix_multiply_add<typename C::T>(acc[i % C::MT][t], a[i % 2], b[i / C::MT][t][0], b[i / C::MT][t][1]);
    }
}

// Finish the sums and write them to shared memory, from where they are stored in whole vectors.
template <class C>
__device__ __forceinline__ void finish_tile(const float (&acc)[C::MT][C::NT][4], typename C::T* tile,
                                            const ModulatedConv2d& args, const Finish& finish, const Place& at) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int height = static_cast<int>(args.height), width = static_cast<int>(args.width);
    const int first_row = warp / C::WARPS_N * C::MT, out_c = static_cast<int>(args.out_c);
    const float* noise = static_cast<const float*>(args.noise) + at.n * args.noise_stride;
    const float* d = static_cast<const float*>(args.d) + static_cast<int64_t>(at.n) * out_c;
    const float* b = static_cast<const float*>(args.b);
    float strength[C::MT][2];
#pragma unroll
    for (int i = 0; i < 2 * C::MT; i++) {
        const int row = at.y + first_row + i / 2, column = at.x + lane / 4 + 8 * (i % 2);
        strength[i / 2][i % 2] = args.noise && row < height && column < width ? noise[row * width + column] : 0.f;
    }
#pragma unroll
    for (int t = 0; t < C::NT; t++) {
        const int channel = (warp % C::WARPS_N * C::NT + t) * 8 + lane % 4 * 2;
        float scale[2], shift[2];
#pragma unroll
        for (int j = 0; j < 2; j++) {
            const bool exists = at.out + channel + j < out_c;
            scale[j] = args.d && exists ? d[at.out + channel + j] : 1.f;
            shift[j] = args.b && exists ? b[at.out + channel + j] : 0.f;
        }
#pragma unroll
        for (int i = 0; i < 2 * C::MT; i++) {
            const float* sums = acc[i / 2][t] + i % 2 * 2;
            const float more = strength[i / 2][i % 2];
            auto* to = tile + ((first_row + i / 2) * TILE_X + lane / 4 + 8 * (i % 2)) * C::OUT_ROW + channel;
            *reinterpret_cast<uint32_t*>(to) = pack<typename C::T>(finish(sums[0], scale[0], more + shift[0]),
                                                                   finish(sums[1], scale[1], more + shift[1]));
        }
    }
}

// Copy the finished tile from shared memory to y.
template <class C>
__device__ __forceinline__ void write_tile(const typename C::T* tile, const ModulatedConv2d& args, const Place& at) {
    using T = typename C::T;
    const int height = static_cast<int>(args.height), width = static_cast<int>(args.width);
    const int out_c = static_cast<int>(args.out_c);
    const bool vectors = args.out_c % 8 == 0 && reinterpret_cast<uintptr_t>(args.y) % 16 == 0;
    T* y = static_cast<T*>(args.y) + static_cast<int64_t>(at.n) * height * width * out_c;
    for (int i = threadIdx.x; i < BM * C::BN / 8; i += THREADS) {
        const int pixel = i / (C::BN / 8), channel = i % (C::BN / 8) * 8;
        const int row = at.y + pixel / TILE_X, column = at.x + pixel % TILE_X, o = at.out + channel;
        if (row >= height || column >= width || o >= out_c) continue;
        T* to = y + (row * width + column) * out_c + o;
        const Vec<T, 8> v = load<T, 8>(tile + pixel * C::OUT_ROW + channel);
        if (vectors) store<T, 8>(to, v);
        else
            for (int j = 0; j < 8 && o + j < out_c; j++) to[j] = v.at[j];
    }
}

// The image of the finished tile, which has all channels. A warp has a row of pixels.
template <class C>
__device__ __forceinline__ void write_tile_image(const typename C::T* tile, const ModulatedConv2d& args,
                                                 const Place& at) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    float sums[4] = {};
    tile += (warp * TILE_X + lane % 16) * C::OUT_ROW + lane / 16 * 8;
    __syncwarp();  // whole warps multiply
#pragma unroll 1
    for (int first = 0; first < C::BN; first += 16) {
        uint32_t a[4], b[2];
        load_matrix_x4(a, tile + first);
        load_image_weights<typename C::T>(b, args, at.n, first);
        matrix_multiply_add<typename C::T>(sums, a, b[0], b[1]);
    }
    write_image(args, at.n, sums, at.y + warp, at.x + lane / 4, 0, 8);
}

// Write the sums of all phases to shared memory: a warp has a row of pixels.
template <class C>
__device__ __forceinline__ void write_grid(const float (&acc)[C::PHASES][C::MT][C::NT][4], typename C::T* grid) {
    const int lane = threadIdx.x % 32;
    grid = grid_at<TILE_Y>(grid, threadIdx.x / 32 * 2, lane / 4 * 2) + lane % 4 * 8;
#pragma unroll
    for (int i = 0; i < 2 * C::PHASES; i++) {
        uint32_t r[4];
#pragma unroll
        for (int t = 0; t < 4; t++) {
            const float* c = acc[i / 2][0][t] + i % 2 * 2;
            r[t] = pack<typename C::T>(c[0], c[1]);
        }
        store_pairs(grid_at<TILE_Y>(grid, i / 4, i % 2 * 16 + i / 2 % 2), transpose_4x4(r[0], r[1], r[2], r[3]));
    }
}

template <class C>
__global__ void __launch_bounds__(THREADS, 2) modulated_conv2d_kernel(ModulatedConv2d args, Tiles tiles) {
    using T = typename C::T;
    T* x_tiles = shared_memory<T>();       // [2, PIXELS, ROW]
    T* w_tiles = x_tiles + 2 * C::X_TILE;  // [STAGES, BN, CHUNK]
    Place& at = *reinterpret_cast<Place*>(shared_memory<unsigned char>() + C::PLACE);  // in no register
    if (threadIdx.x == 0) at = place_of<C::OUT_X, C::OUT_Y, C::BN>(blockIdx.x, tiles.out, tiles);
    __syncthreads();

    float acc[C::PHASES][C::MT][C::NT][4] = {};
    Pairs next[C::LOADS];
    int offsets[C::LOADS];
    locate_input<C>(offsets, args, at);
    const T* from = static_cast<const T*>(args.w) + at.out * CHUNK + threadIdx.x * 8;
    read_input<C>(next, offsets, args, at, 0);
    for (int step = 0; step < STAGES - 1; step++) {
        if (step < tiles.chunks * C::TAPS) copy_weights<C>(w_tiles + step * C::W_TILE, from, tiles);
        copy_async_commit();
    }
    write_input<C>(x_tiles, next, args, at, 0);

    for (int chunk = 0; chunk < tiles.chunks; chunk++) {
#pragma unroll(C::UNROLL)  // with more, the compiler runs out of registers
        for (int tap = 0; tap < C::TAPS; tap++) {
            const int buffer = (C::TAPS % STAGES ? chunk * C::TAPS + tap : tap) % STAGES;
            const int ahead = tap + STAGES - 1;     // the tap that is copied
            copy_async_wait<STAGES - 2>();  // this step's weights have arrived
            __syncthreads();                // for all threads, and the tiles of the previous step are free
            if (chunk + ahead / C::TAPS < tiles.chunks)
                copy_weights<C>(w_tiles + (buffer + STAGES - 1) % STAGES * C::W_TILE, from, tiles);
            copy_async_commit();
            if (tap == 0 && chunk + 1 < tiles.chunks) read_input<C>(next, offsets, args, at, (chunk + 1) * CHUNK);
            const int row = tap / C::K, column = tap % C::K;
            const int phase = C::UP == 2 ? phase_of(row) * 2 + phase_of(column) : 0;
            multiply_tap<C>(acc[phase], x_tiles + chunk % 2 * C::X_TILE, w_tiles + buffer * C::W_TILE,
                            C::UP == 2 ? shift_of(row) : row, C::UP == 2 ? shift_of(column) : column);
        }
        if (chunk + 1 < tiles.chunks)
            write_input<C>(x_tiles + (chunk + 1) % 2 * C::X_TILE, next, args, at, (chunk + 1) * CHUNK);
    }

    __syncthreads();  // the tiles are free and can be reused for the output
    if constexpr (C::UP == 2) write_grid<C>(acc, x_tiles);
    else finish_tile<C>(acc[0], x_tiles, args, tiles.finish, at);
    __syncthreads();
    if constexpr (C::UP == 2)
        filter_tile<T, TILE_Y, C::VECTORS>(x_tiles, args, tiles.finish, at, static_cast<int>(threadIdx.x));
    else if (args.y)
        write_tile<C>(x_tiles, args, at);
    if constexpr (C::K == 3 && C::UP == 1 && C::VECTORS)
        if (args.image) write_tile_image<C>(x_tiles, args, at);
}

template <class C>
const char* launch_config(const ModulatedConv2d& args, void* stream) {
    const Tiles tiles = tiles_of(args, C::OUT_X, C::OUT_Y, C::BN);
    if (tiles.count == 0) return "the batch is too large";
    return launch(modulated_conv2d_kernel<C>, dim3(tiles.count), dim3(THREADS), C::BYTES, stream, args, tiles);
}

// Wide blocks read the input fewer times; narrow ones waste less if there are few channels.
template <class T>
const char* launch_typed(const ModulatedConv2d& args, void* stream) {
    if (args.up == 2) {
        const bool vectors = args.in_c % 8 == 0 && args.out_c % 8 == 0 && aligned_16(args.x) && aligned_16(args.y);
        if (vectors) return launch_config<Config<T, 3, 32, 1, true, 2>>(args, stream);
        return launch_config<Config<T, 3, 32, 1, false, 2>>(args, stream);
    }
    if (args.in_c % 8 || !aligned_16(args.x)) {
        if (args.k == 3) return launch_config<Config<T, 3, 32, 1, false>>(args, stream);
        if (args.out_c > 8) return launch_config<Config<T, 1, 32, 2, false>>(args, stream);
        return launch_config<Config<T, 1, 8, 1, false>>(args, stream);
    }
    if (args.k == 1 && args.out_c <= 8) return launch_config<Config<T, 1, 8, 1>>(args, stream);
    if (args.k == 1) return launch_config<Config<T, 1, 32, 2>>(args, stream);
    if (args.out_c <= 32) return launch_config<Config<T, 3, 32, 1>>(args, stream);
    if (args.out_c <= 64) return launch_config<Config<T, 3, 64, 2>>(args, stream);
    return launch_config<Config<T, 3, 128, 4>>(args, stream);
}

}  // namespace

int64_t packed_weights(const ModulatedConv2d& args) {
    const Tiles tiles = tiles_of(args, TILE_X, TILE_Y, CHUNK);
    return static_cast<int64_t>(tiles.chunks) * args.k * args.k * tiles.rows * CHUNK;
}

const char* modulated_conv2d(const ModulatedConv2d& args, void* stream) {
    if (args.n * args.out_c * args.height * args.width == 0) return nullptr;
    const int64_t outputs = args.out_c * args.up * args.up, channels = args.in_c > outputs ? args.in_c : outputs;
    if (args.height * args.width * channels > std::numeric_limits<int32_t>::max()) return "the image is too large";
    if (args.k != 1 && args.k != 3) return "the filter must be 1x1 or 3x3";
    if (args.up != 1 && (args.up != 2 || args.k != 3)) return "3x3 filters can upsample by 2";
    if (!aligned_16(args.w)) return "packed weights must be aligned to 16 bytes";
    if (const char* error = check_image(args)) return error;
    if (args.image && (args.k != 3 || args.up != 1 || args.in_c % 8 || args.out_c % 8 || args.out_c > 128 ||
                       !aligned_16(args.x) || !aligned_16(args.rgb)))
        return "an image needs whole vectors of at most 128 channels";
    if (args.dtype != Dtype::float16 && args.dtype != Dtype::bfloat16) return "tensor cores take float16 and bfloat16";
    if (args.wgmma && has_wgmma(args)) return modulated_conv2d_wgmma(args, stream);
    if (args.dtype == Dtype::float16) return launch_typed<__half>(args, stream);
    return launch_typed<__nv_bfloat16>(args, stream);
}

}  // namespace sgan
