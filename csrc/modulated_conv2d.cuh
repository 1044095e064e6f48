// What both kernels of the modulated convolution share: packed weights, tiles and the end of the computation.
#pragma once

#include "image.cuh"

namespace sgan {

// With wgmma, for 3x3 filters, if the device and the arguments allow it: whole vectors of channels, aligned.
bool has_wgmma(const ModulatedConv2d& args);
const char* modulated_conv2d_wgmma(const ModulatedConv2d& args, void* stream);

namespace {

constexpr int CHUNK = 32;  // input channels at a time

// Output channels in packed weights: whole tiles.
inline int packed_rows(const ModulatedConv2d& args) {
    const int out_c = static_cast<int>(args.out_c);
    if (args.k == 1 && out_c <= 8) return 8;
    return out_c <= 32 ? 32 : out_c <= 64 ? 64 : ceil_div(out_c, 128) * 128;
}

// clamp(gain act(d y + shift)), where shift is noise + b. In float already: kernels would convert it for every number.
struct Finish {
    float above, below, clamp;  // above, below: slopes of gain act

    __device__ __forceinline__ float operator()(float y, float d, float shift) const {
        const float p = d * y + shift;
        return clamp_between(p * (p > 0 ? above : below), clamp);
    }
};

// All tiles of the output. Tiles of the same pixels follow each other.
struct Tiles {
    int out, x, y;  // number of them
    int rows;       // of packed weights
    int chunks;
    Finish finish;
    unsigned count;
};

// If they are too many, their number is 0.
inline Tiles tiles_of(const ModulatedConv2d& args, int side_x, int side_y, int channels) {
    Tiles tiles;
    tiles.out = static_cast<int>(ceil_div<int64_t>(args.out_c, channels));
    tiles.x = static_cast<int>(ceil_div<int64_t>(args.width, side_x));
    tiles.y = static_cast<int>(ceil_div<int64_t>(args.height, side_y));
    tiles.rows = packed_rows(args);
    tiles.chunks = static_cast<int>(ceil_div<int64_t>(args.in_c, CHUNK));
    tiles.finish = {static_cast<float>(args.gain), static_cast<float>(args.gain * args.slope),
                    static_cast<float>(args.clamp)};
    const int64_t count = args.n * tiles.x * tiles.y * tiles.out;
    tiles.count = static_cast<unsigned>(count <= std::numeric_limits<int32_t>::max() ? count : 0);
    return tiles;
}

// One of them.
struct Place {
    int n;     // sample
    int y, x;  // first pixel, of the input or of an output of the same size
    int out;   // first output channel
};

template <int SIDE_X, int SIDE_Y, int BN>
__device__ __forceinline__ Place place_of(unsigned tile, int outs, const Tiles& tiles) {
    Place at;
    at.out = static_cast<int>(tile % outs) * BN, tile /= outs;
    at.x = static_cast<int>(tile % tiles.x) * SIDE_X, tile /= tiles.x;
    at.y = static_cast<int>(tile % tiles.y) * SIDE_Y;
    at.n = static_cast<int>(tile / tiles.y);
    return at;
}

// 8 numbers of T, in pairs: apart they would take twice as many registers.
using Pairs = Vec<uint32_t, 4>;

// Read from memory that holds T, and write to it.
template <class T>
__device__ __forceinline__ Pairs load_pairs(const T* from) {
    return load<uint32_t, 4>(reinterpret_cast<const uint32_t*>(from));
}
template <class T>
__device__ __forceinline__ void store_pairs(T* to, const Pairs& pairs) {
    store<uint32_t, 4>(reinterpret_cast<uint32_t*>(to), pairs);
}

template <class T>
__device__ __forceinline__ Pairs multiply_pairs(const Pairs& pairs, const float (&s)[8]) {
    Pairs scaled;
#pragma unroll
    for (int k = 0; k < 4; k++) {
        float low, high;
        unpack<T>(pairs.at[k], low, high);
        scaled.at[k] = pack<T>(low * s[2 * k], high * s[2 * k + 1]);
    }
    return scaled;
}

// Lane i of four lanes gets row i of the 4 x 4 numbers whose columns they had. For results of tensor cores: lanes that
// had 2 channels of each of four groups of 8 have all 8 of one.
__device__ __forceinline__ Pairs transpose_4x4(uint32_t a, uint32_t b, uint32_t c, uint32_t d) {
    uint32_t r[4] = {a, b, c, d};
#pragma unroll
    for (int bit = 1; bit < 4; bit *= 2) {
        const bool high = threadIdx.x & bit;
#pragma unroll
        for (int i = 0; i < 4; i++) {
            if (i & bit) continue;
            const uint32_t other = __shfl_xor_sync(~0u, high ? r[i] : r[i + bit], bit);
            (high ? r[i] : r[i + bit]) = other;
        }
    }
    return {r[0], r[1], r[2], r[3]};
}

// ---------------------------------------------------------------------------------------------------------------------
// The image: finished features, rounded to T, are one operand of a product on tensor cores, its weights the other.

// Those of 16 channels from `first` on, for matrix_multiply_add.
template <class T>
__device__ __forceinline__ void load_image_weights(uint32_t (&b)[2], const ModulatedConv2d& args, int n, int first) {
    const int lane = static_cast<int>(threadIdx.x % 32), k = lane / 4, out_c = static_cast<int>(args.out_c);
    first += lane % 4 * 2;
#pragma unroll
    for (int i = 0; i < 2; i++) {
        Vec<float, 2> w{0.f, 0.f};
        if (k < args.image_c && first + 8 * i < out_c)
            w = load<float, 2>(static_cast<const float*>(args.rgb) + (n * args.image_c + k) * out_c + first + 8 * i);
        b[i] = pack<T>(w.at[0], w.at[1]);
    }
}

// Add to the image of two patches, of 16 pixels each, what 32 channels from `first` on contribute. r[2 m] and
// r[2 m + 1] are pairs of channels of patch m: results of tensor cores lie as these take an operand.
template <class T>
__device__ __forceinline__ void add_to_image(float (&image)[2][4], const uint32_t (&r)[4][4],
                                             const ModulatedConv2d& args, int n, int first) {
#pragma unroll
    for (int t = 0; t < 4; t += 2) {
        uint32_t weights[2];
        load_image_weights<T>(weights, args, n, first + t * 8);
#pragma unroll
        for (int m = 0; m < 2; m++) {
            const uint32_t a[4] = {r[2 * m][t], r[2 * m + 1][t], r[2 * m][t + 1], r[2 * m + 1][t + 1]};
            matrix_multiply_add<T>(image[m], a, weights[0], weights[1]);
        }
    }
}

// Lane q of four has channels 2 q and 2 q + 1 of a pixel, and gets channel q.
__device__ __forceinline__ float image_channel(const float* two) {
    const int lane = static_cast<int>(threadIdx.x % 32), from = lane / 4 * 4 + lane % 4 / 2;
    const float even = __shfl_sync(~0u, two[0], from), odd = __shfl_sync(~0u, two[1], from);
    return lane % 2 ? odd : even;
}

// Write what a product yields of the image: pixel [y, x] of the lane, and the one `below` and `right` of it, where they
// are in the image.
__device__ __forceinline__ void write_image(const ModulatedConv2d& args, int n, const float (&sums)[4], int y, int x,
                                            int below, int right) {
    const int k = static_cast<int>(threadIdx.x % 4);
    const float own[2] = {image_channel(sums), image_channel(sums + 2)};
    if (k < args.image_c) {
        const ImageChannel image(args, n, k);
#pragma unroll
        for (int i = 0; i < 2; i++)
            if (y + i * below < args.height && x + i * right < args.width)
                image.write(y + i * below, x + i * right, own[i]);
    }
    __syncwarp();  // products follow, which whole warps execute together
}

// ---------------------------------------------------------------------------------------------------------------------
// Upsampling
//
// t[2 i] has two taps along an axis, t[2 i + 1] has one: of its four phases, one has 4, two have 2 and one has 1 of the
// 9 taps. A tile computes GRID_X by GRID_Y pixels of each phase from i = first - 1 on, into shared memory; the filter
// then yields all but two of them: 2 j and 2 j + 1 for GRID_X - 2 by GRID_Y - 2 pixels j from `first` on.

constexpr int GRID_X = 16, OUT_X = GRID_X - 2;

// Phase of a tap along one axis, and where its input is relative to the one at i - 1.
__host__ __device__ constexpr int phase_of(int tap) { return tap == 1; }
__host__ __device__ constexpr int shift_of(int tap) { return tap < 2; }

// t at pixel [y, x], where it is [2, 2, GRID_Y, GRID_X, 32]. If y and x are even, other pixels can be addressed from
// there.
template <int GRID_Y, class T>
__device__ __forceinline__ T* grid_at(T* t, int y, int x) {
    return t + (((y % 2 * 2 + x % 2) * GRID_Y + y / 2) * GRID_X + x / 2) * 32;
}

// Filter t, finish the sums and store them. A thread computes 4 channels of two columns, and walks down half of the
// rows with the last four of t, already filtered horizontally, in registers. 256 threads.
template <class T, int GRID_Y, bool VECTORS>
__device__ __forceinline__ void filter_tile(const T* t, const ModulatedConv2d& args, const Finish& finish,
                                            const Place& at, int thread) {
    constexpr int ROWS = GRID_Y - 2;  // of the output, for a thread
    static_assert(ROWS % 2 == 0, "the first row must be even");
    const int v = thread % 8 * 4, x = thread / 8 % OUT_X * 2, first = thread / (8 * OUT_X) * ROWS;
    const int height = static_cast<int>(args.height) * 2, width = static_cast<int>(args.width) * 2;
    const int out_c = static_cast<int>(args.out_c), channels = out_c - at.out - v;  // that exist
    if (first >= 2 * ROWS || channels <= 0 || at.x * 2 + x >= width) return;
    const auto* f = static_cast<const float*>(args.f);
    float taps[4], scale[4], shift[4];
#pragma unroll
    for (int k = 0; k < 4; k++) {
        taps[k] = 2 * f[3 - k];
        scale[k] = args.d && k < channels ? static_cast<const float*>(args.d)[at.n * out_c + at.out + v + k] : 1.f;
        shift[k] = args.b && k < channels ? static_cast<const float*>(args.b)[at.out + v + k] : 0.f;
    }
    const int pixel = (at.y * 2 + first) * width + at.x * 2 + x;
    const auto* noise = static_cast<const float*>(args.noise) + at.n * args.noise_stride + pixel;
    T* y = static_cast<T*>(args.y) + at.n * static_cast<int64_t>(height) * width * out_c + (pixel * out_c + at.out + v);
    t = grid_at<GRID_Y>(t, first, x) + v;
    float rows[4][2][4];
#pragma unroll
    for (int row = -3; row < ROWS; row++) {
        float(&own)[2][4] = rows[(row + 4) % 4];
#pragma unroll
        for (int i = 0; i < 8; i++) own[i / 4][i % 4] = 0;
#pragma unroll
        for (int k = 0; k < 5; k++) {
            const auto in = load<uint32_t, 2>(
                reinterpret_cast<const uint32_t*>(grid_at<GRID_Y>(t, row + 4, k + 1)));
            float values[4];
            unpack<T>(in.at[0], values[0], values[1]);
            unpack<T>(in.at[1], values[2], values[3]);
#pragma unroll
            for (int i = 0; i < 8; i++)
                if (k - i / 4 >= 0 && k - i / 4 < 4) own[i / 4][i % 4] += taps[k - i / 4] * values[i % 4];
        }
        if (row < 0 || at.y * 2 + first + row >= height) continue;
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const int next = row * width + i;
            const float strength = args.noise ? noise[next] : 0.f;
            float out[4];
#pragma unroll
            for (int j = 0; j < 4; j++) {
                float sum = 0;
#pragma unroll
                for (int k = 0; k < 4; k++) sum += taps[k] * rows[(row + k + 1) % 4][i][j];
                out[j] = finish(sum, scale[j], strength + shift[j]);
            }
            T* to = y + next * out_c;
            if constexpr (VECTORS)
                store<uint32_t, 2>(reinterpret_cast<uint32_t*>(to), {pack<T>(out[0], out[1]), pack<T>(out[2], out[3])});
            else
                for (int j = 0; j < 4 && j < channels; j++) to[j] = from_acc<T>(out[j]);
        }
    }
}

}  // namespace
}  // namespace sgan
