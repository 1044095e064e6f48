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

// Number k of pixel [y, x]. A sample of the image below that is outside is replaced by its neighbor, times zero.
template <class Args>
__device__ __forceinline__ void write_image(const Args& args, int64_t n, int y, int x, int k, float sum) {
    const int height = static_cast<int>(args.height), width = static_cast<int>(args.width);
    const int channels = args.image_c;
    const float bound = static_cast<float>(args.image_clamp);
    float value = sum + static_cast<const float*>(args.rgb_b)[k];
    value = value > bound ? bound : value < -bound ? -bound : value;  // written so that NaN stays NaN
    if (args.below) {
        const float* f = static_cast<const float*>(args.below_f);
        const int samples[2] = {height / 2, width / 2}, at[2] = {y, x};
        int first[2], second[2];
        float taps[2][2];
#pragma unroll
        for (int axis = 0; axis < 2; axis++) {
            const int after = (at[axis] + 1) / 2, odd = at[axis] % 2;
            const bool has_first = after > 0, has_second = after < samples[axis];
            first[axis] = has_first ? after - 1 : 0, second[axis] = has_second ? after : samples[axis] - 1;
            taps[axis][0] = has_first ? 2 * f[3 - odd] : 0.f, taps[axis][1] = has_second ? 2 * f[1 - odd] : 0.f;
        }
        const float* below = static_cast<const float*>(args.below) + n * samples[0] * samples[1] * channels + k;
        const auto row = [&](int line) {
            const float* from = below + static_cast<int64_t>(line) * samples[1] * channels;
            return taps[1][0] * from[first[1] * channels] + taps[1][1] * from[second[1] * channels];
        };
        value += taps[0][0] * row(first[0]) + taps[0][1] * row(second[0]);
    }
    static_cast<float*>(args.image)[((n * height + y) * width + x) * channels + k] = value;
}

}  // namespace
}  // namespace sgan
