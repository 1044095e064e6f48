// The image of one level of a generator with skip connections, where its features are still in registers.
//   image[k] = clamp(sum_c rgb[k, c] y[c] + b[k], -c, c) + up(below)[k],   up as in AddSkip of kernels.h
#pragma once

#include "common.cuh"

namespace sgan {
namespace {

constexpr int kImageChannels = 3;  // at most

// Null, or what is wrong with the arguments of an image.
template <class Args>
const char* check_image(const Args& args) {
    if (!args.image) return nullptr;
    if (args.image_c < 1 || args.image_c > kImageChannels) return "an image has 1 to 3 channels";
    return args.below && (args.height % 2 || args.width % 2) ? "the size of the image must be even" : nullptr;
}

// V numbers from number `at` on, 16 bytes at a time.
template <int V>
__device__ __forceinline__ void load_floats(float (&v)[V], const void* from, int64_t at) {
    constexpr int W = V < 4 ? V : 4;
#pragma unroll
    for (int j = 0; j < V; j += W) {
        const Vec<float, W> part = load<float, W>(static_cast<const float*>(from) + at + j);
#pragma unroll
        for (int i = 0; i < W; i++) v[j + i] = part.at[i];
    }
}

// The weights of V channels from `first` on, zero where there are none.
template <int V, class Args>
__device__ __forceinline__ void load_rgb(float (&rgb)[kImageChannels][V], const Args& args, int64_t n, int first,
                                         int channels) {
#pragma unroll
    for (int k = 0; k < kImageChannels; k++) {
#pragma unroll
        for (int j = 0; j < V; j++) rgb[k][j] = 0;
        if (k < args.image_c && first < channels)
            load_floats(rgb[k], args.rgb, (n * args.image_c + k) * channels + first);
    }
}

// What these channels contribute to a pixel.
template <int V>
__device__ __forceinline__ void add_to_image(float (&sums)[kImageChannels], const float (&rgb)[kImageChannels][V],
                                             const float (&y)[V]) {
#pragma unroll
    for (int k = 0; k < kImageChannels; k++)
#pragma unroll
        for (int j = 0; j < V; j++) sums[k] += rgb[k][j] * y[j];
}

// The sum over groups of `lanes` lanes, a power of two, in all of them.
__device__ __forceinline__ float sum_lanes(float value, int lanes) {
    for (int bit = 1; bit < lanes; bit *= 2) value += __shfl_xor_sync(~0u, value, bit);
    return value;
}

// Writes channel k of sample n of an image.
struct ImageChannel {
    const float* below;
    float* image;
    float f[4], b, bound;
    int height, width, channels;

    template <class Args>
    __device__ __forceinline__ ImageChannel(const Args& args, int64_t n, int k)
        : b(static_cast<const float*>(args.rgb_b)[k]), bound(static_cast<float>(args.image_clamp)),
          height(static_cast<int>(args.height)), width(static_cast<int>(args.width)), channels(args.image_c) {
        const int64_t first = n * height * width * channels;  // of n samples, all below are a fourth as large
        image = static_cast<float*>(args.image) + first + k;
        below = args.below ? static_cast<const float*>(args.below) + first / 4 + k : nullptr;
#pragma unroll
        for (int i = 0; i < 4; i++) f[i] = 2 * static_cast<const float*>(args.below_f)[3 - i];
    }

    // Pixel [y, x]. A sample of the image below that is outside is replaced by its neighbor, times zero.
    __device__ __forceinline__ void write(int y, int x, float sum) const {
        float value = sum + b;
        value = value > bound ? bound : value < -bound ? -bound : value;  // written so that NaN stays NaN
        if (below) {
            const Samples rows(y, height / 2, f), columns(x, width / 2, f);
            const int left = columns.at[0] * channels, right = columns.at[1] * channels;
            const auto row = [&](int line) {
                const float* from = below + line * (width / 2) * channels;
                return columns.tap[0] * from[left] + columns.tap[1] * from[right];
            };
            value += rows.tap[0] * row(rows.at[0]) + rows.tap[1] * row(rows.at[1]);
        }
        image[(y * width + x) * channels] = value;
    }

private:
    // The two of `count` samples along an axis that reach a number of the upsampled image, see add_skip.cu.
    struct Samples {
        int at[2];
        float tap[2];
        __device__ __forceinline__ Samples(int place, int count, const float (&f)[4]) {
            const int after = (place + 1) / 2;
            const bool odd = place % 2, has_first = after > 0, has_second = after < count;
            at[0] = has_first ? after - 1 : 0, at[1] = has_second ? after : count - 1;
            tap[0] = has_first ? odd ? f[1] : f[0] : 0.f, tap[1] = has_second ? odd ? f[3] : f[2] : 0.f;
        }
    };
};

}  // namespace
}  // namespace sgan
