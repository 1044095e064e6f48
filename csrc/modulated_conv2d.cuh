// What both kernels of the modulated convolution share: packed weights, tiles and the end of the computation.
#pragma once

#include "common.cuh"

namespace sgan {

// With wgmma, for 3x3 filters, if the device and the arguments allow it: whole vectors of channels, aligned.
bool has_wgmma(const ModulatedConv2d& args);
const char* modulated_conv2d_wgmma(const ModulatedConv2d& args, void* stream);

namespace {

constexpr int CHUNK = 32;  // input channels at a time

// Output channels of a phase in packed weights: whole tiles.
inline int packed_rows(const ModulatedConv2d& args) {
    const int out_c = static_cast<int>(args.out_c);
    if (args.k == 1 && out_c <= 8) return 8;
    return out_c <= 32 ? 32 : out_c <= 64 ? 64 : ceil_div(out_c, 128) * 128;
}

// All tiles of the output. Tiles of the same pixels follow each other.
struct Tiles {
    int out, x, y;  // number of them
    int rows;       // of packed weights, in a phase
    int chunks;
    int64_t step;  // numbers of packed weights from a tap to the next
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
    tiles.step = static_cast<int64_t>(args.phases) * tiles.rows * CHUNK;
    const int64_t count = args.n * args.phases * tiles.x * tiles.y * tiles.out;
    tiles.count = static_cast<unsigned>(count <= std::numeric_limits<int32_t>::max() ? count : 0);
    return tiles;
}

// One of them.
struct Place {
    int n;     // sample
    int y, x;  // first output pixel, before phases are interleaved
    int out;   // first output channel
    int phase;
};

template <int SIDE_X, int SIDE_Y, int BN>
__device__ __forceinline__ Place place_of(unsigned tile, int outs, const Tiles& tiles, int phases) {
    Place at;
    at.out = static_cast<int>(tile % outs) * BN, tile /= outs;
    at.phase = static_cast<int>(tile % phases), tile /= phases;
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

// clamp(gain act(d y + shift)), where shift is noise + b.
struct Finish {
    float above, below, clamp;  // above, below: slopes of gain act

    __device__ __forceinline__ explicit Finish(const ModulatedConv2d& args)
        : above(static_cast<float>(args.gain)), below(static_cast<float>(args.gain * args.slope)),
          clamp(static_cast<float>(args.clamp)) {}

    __device__ __forceinline__ float operator()(float y, float d, float shift) const {
        const float p = d * y + shift;
        return clamp_between(p * (p > 0 ? above : below), clamp);
    }
};

}  // namespace
}  // namespace sgan
