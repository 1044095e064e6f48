// Uniform numbers that are functions of a key, an index and a position: a hash, no stream. stylegan_cli/sampling/
// counter.py has the same integers in PyTorch's operations.
//
// A block makes PER_BLOCK numbers of one sample of one segment.

#include "common.cuh"

namespace sgan {
namespace {

constexpr int THREADS = 256, PER_THREAD = 4, PER_BLOCK = THREADS * PER_THREAD;

// A finalizer of 32 bits: each input bit changes about half of the output bits (Wellons, lowbias32).
__device__ __forceinline__ uint32_t mix(uint32_t x) {
    x = (x ^ x >> 16) * 0x7FEB352Du;
    x = (x ^ x >> 15) * 0x846CA68Bu;
    return x ^ x >> 16;
}

// One round of SplitMix64 of the index.
__device__ __forceinline__ uint64_t key_of(uint64_t key, uint64_t index) {
    uint64_t x = index * 0x9E3779B97F4A7C15u + key;
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9u;
    x = (x ^ x >> 27) * 0x94D049BB133111EBu;
    return x ^ x >> 31;
}

__global__ void __launch_bounds__(THREADS) counter_kernel(CounterUniform args, int chunks) {
    const int64_t count = args.count[blockIdx.y], n = blockIdx.x / chunks;
    const int64_t first = static_cast<int64_t>(blockIdx.x % chunks) * PER_BLOCK + threadIdx.x;
    if (first >= count) return;
    const uint64_t key = key_of(static_cast<uint64_t>(args.key[blockIdx.y]),
                                static_cast<uint64_t>(static_cast<const int64_t*>(args.index)[n]));
    float* out = static_cast<float*>(args.out) + args.start[blockIdx.y] + n * count;
#pragma unroll
    for (int j = 0; j < PER_THREAD; j++) {
        const int64_t i = first + j * THREADS;
        if (i >= count) return;
        const uint32_t x = static_cast<uint32_t>(i) * 0x9E3779B9u + static_cast<uint32_t>(key);
        const uint32_t bits = mix(mix(x) ^ static_cast<uint32_t>(key >> 32)) >> 9;
        const float twice = (static_cast<float>(bits) + 0.5f) * 0x1p-22f;  // exact, as what follows
        out[i] = args.centered ? twice - 1 : twice / 2;
    }
}

}  // namespace

const char* counter_uniform(const CounterUniform& args, void* stream) {
    if (args.segments < 1 || args.segments > kSegments) return "between 1 and 32 segments are made at once";
    int64_t most = 0;
    for (int64_t s = 0; s < args.segments; s++) most = args.count[s] > most ? args.count[s] : most;
    if (args.n * most == 0) return nullptr;
    const int64_t chunks = ceil_div<int64_t>(most, PER_BLOCK);
    if (args.n * chunks > kMaxGrid) return "the batch is too large";
    const dim3 grid(static_cast<unsigned>(args.n * chunks), static_cast<unsigned>(args.segments));
    return launch(counter_kernel, grid, dim3(THREADS), 0, stream, args, static_cast<int>(chunks));
}

}  // namespace sgan
