// CUDA for a plain C++ compiler: with SGAN_EMULATE, csrc/ runs on the CPU, under sanitizers.
//
// One thread of one block runs at a time, each on its own stack; it yields only where CUDA can make it wait: at
// barriers and in warp collectives. SGAN_EMULATOR_SEED determines which thread runs next, and how fast warps are.
// Shared memory starts as NaN, and asynchronous copies arrive as late as possible, so that a missing wait gives wrong
// numbers. There is no __shared__: use shared_memory<T>(). Errors are reported with their location, then abort().
#pragma once

#include <math.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))

struct uint3 {
    unsigned x, y, z;
};
struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
inline uint3 threadIdx, blockIdx;
inline dim3 blockDim, gridDim;
constexpr int warpSize = 32;

inline uint32_t __float_as_uint(float x) { return __builtin_bit_cast(uint32_t, x); }
inline int __float_as_int(float x) { return __builtin_bit_cast(int, x); }
inline float __uint_as_float(uint32_t x) { return __builtin_bit_cast(float, x); }
inline float __int_as_float(int x) { return __builtin_bit_cast(float, x); }

struct __half {
    uint16_t bits;
};
struct __nv_bfloat16 {
    uint16_t bits;
};

inline float __half2float(__half x) {
    const uint32_t sign = (x.bits & 0x8000u) << 16, size = x.bits & 0x7fffu;
    if (size < 0x400) return __uint_as_float(sign | __float_as_uint(size * 0x1p-24f));  // subnormal
    if (size >= 0x7c00) return __uint_as_float(sign | 0x7f800000u | size << 13);        // infinity, NaN
    return __uint_as_float(sign | ((size << 13) + ((127u - 15u) << 23)));
}

inline __half __float2half(float x) {
    const uint32_t bits = __float_as_uint(x), size = bits & 0x7fffffffu;
    const auto with_sign = [&](uint32_t half) { return __half{static_cast<uint16_t>(half | (bits >> 16 & 0x8000u))}; };
    if (size > 0x7f800000u) return {0x7fff};
    if (size >= __float_as_uint(65520.f)) return with_sign(0x7c00);
    if (size < __float_as_uint(0x1p-14f))  // floats near 1/2 are spaced like subnormal halves: the sum rounds
        return with_sign(__float_as_uint(__uint_as_float(size) + 0.5f) - __float_as_uint(0.5f));
    return with_sign((size - ((127u - 15u) << 23) + 0xfffu + (size >> 13 & 1)) >> 13);
}

inline float __bfloat162float(__nv_bfloat16 x) { return __uint_as_float(static_cast<uint32_t>(x.bits) << 16); }

inline __nv_bfloat16 __float2bfloat16(float x) {
    const uint32_t bits = __float_as_uint(x);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return {0x7fff};
    return {static_cast<uint16_t>((bits + 0x7fffu + (bits >> 16 & 1)) >> 16)};
}

inline float rsqrtf(float x) { return 1 / sqrtf(x); }

// As in CUDA, the types can differ, and a number wins over a NaN.
template <class A, class B, class C = std::common_type_t<A, B>>
constexpr C min(A a, B b) {
    return C(b) < C(a) || a != a ? C(b) : C(a);
}
template <class A, class B, class C = std::common_type_t<A, B>>
constexpr C max(A a, B b) {
    return C(a) < C(b) || a != a ? C(b) : C(a);
}

template <class T>
T __ldg(const T* from) {
    return *from;
}

// Atomic because no other thread runs in between. T is deduced from the first argument only.
template <class T>
T atomicAdd(T* to, std::common_type_t<T> b) {
    const T old = *to;
    *to = old + b;
    return old;
}
template <class T>
T atomicMax(T* to, std::common_type_t<T> b) {
    const T old = *to;
    *to = max(old, b);
    return old;
}

namespace emulator {

[[noreturn]] void fail(const char* format, ...) __attribute__((format(printf, 1, 2)));
void print_place();  // the current block and thread, to stderr
int lane();
unsigned char* shared();
void block_barrier();
void wait_for_copies(int pending);
unsigned thread_number();       // in the block
unsigned random();              // from SGAN_EMULATOR_SEED
int max_threads();              // of a block: SGAN_EMULATOR_MAX_THREADS, or 1024
void sleep(const char* name);   // the current thread waits in this operation, until
void wake(unsigned thread);     // another thread wakes it

// In emulated_hopper.cpp, for emulator.cpp: a block starts; complete a bulk copy, if a thread waits for one; the
// current thread, or the whole block, has returned.
void start_block(size_t shared_bytes);
bool deliver_copy();
void check_thread_is_done();
void check_block_is_done();

const char* run_grid(dim3 grid, dim3 block, size_t shared_bytes, void (*thread)(const void*), const void* args);

// Wait until every lane of the mask has arrived with its input; then `output` has the inputs in the order of lanes.
void exchange(const char* name, unsigned mask, const void* input, void* output, size_t bytes);

template <class T>
std::array<T, 32> exchange(const char* name, unsigned mask, T value) {
    static_assert(sizeof(T) <= 64);
    std::array<T, 32> all;
    exchange(name, mask, &value, all.data(), sizeof(T));
    return all;
}

// A lane gets its own value if `from` is after its group of `width` lanes or, unless `before`, before it.
template <class T>
T shuffle(const char* name, unsigned mask, T value, int from, int width, bool before = false) {
    static_assert(sizeof(T) == 4 || sizeof(T) == 8);
    const int group = lane() & ~(width - 1);
    if (from >= group + width || (from < group && !before)) from = lane();
    if (!(mask >> from & 1)) fail("%s: reads lane %d, which is not in its mask %08x", name, from, mask);
    return exchange(name, mask, value)[from];
}

inline unsigned vote(const char* name, unsigned mask, bool yes) {
    const auto all = exchange(name, mask, yes);
    unsigned votes = 0;
    for (int lane = 0; lane < 32; lane++) votes |= (mask >> lane & 1 && all[lane] ? 1u : 0u) << lane;
    return votes;
}

}  // namespace emulator

inline void __syncthreads() { emulator::block_barrier(); }
inline void __syncwarp(unsigned mask = ~0u) { emulator::exchange("__syncwarp", mask, '.'); }

template <class T>
T __shfl_sync(unsigned mask, T value, int from, int width = 32) {
    from = (emulator::lane() & ~(width - 1)) | (from & (width - 1));
    return emulator::shuffle("__shfl_sync", mask, value, from, width);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32) {
    return emulator::shuffle("__shfl_xor_sync", mask, value, emulator::lane() ^ bits, width, true);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned by, int width = 32) {
    return emulator::shuffle("__shfl_down_sync", mask, value, emulator::lane() + static_cast<int>(by), width);
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned by, int width = 32) {
    return emulator::shuffle("__shfl_up_sync", mask, value, emulator::lane() - static_cast<int>(by), width);
}

inline unsigned __ballot_sync(unsigned mask, int yes) { return emulator::vote("__ballot_sync", mask, yes); }
inline int __any_sync(unsigned mask, int yes) { return emulator::vote("__any_sync", mask, yes) != 0; }
inline int __all_sync(unsigned mask, int yes) { return emulator::vote("__all_sync", mask, yes) == mask; }

namespace sgan {  // replacements for the PTX in common.cuh, which documents them

template <class T>
T* shared_memory() {
    return reinterpret_cast<T*>(emulator::shared());
}

template <class... P, class... A>
const char* launch(void (*kernel)(P...), dim3 grid, dim3 block, size_t shared_bytes, void* /*stream*/, A... args) {
    const auto thread = [&] { kernel(args...); };
    using Thread = decltype(thread);
    const auto call = [](const void* thread) { (*static_cast<Thread*>(thread))(); };
    return emulator::run_grid(grid, block, shared_bytes, call, &thread);
}

inline int multiprocessors() { return 3; }  // few, so that blocks of persistent kernels have several tiles

template <class... P>
int max_threads(void (*)(P...)) {
    return emulator::max_threads();
}

inline float clamp_between(float x, float bound) { return x > bound ? bound : x < -bound ? -bound : x; }

template <class T>
uint32_t pack(float low, float high) {
    const auto bits = [](float x) {
        if constexpr (std::is_same_v<T, __half>) return static_cast<uint32_t>(__float2half(x).bits);
        else return static_cast<uint32_t>(__float2bfloat16(x).bits);
    };
    return bits(low) | bits(high) << 16;
}

void copy_async_16(void* shared, const void* global, int bytes);
void copy_async_commit();
template <int PENDING>
void copy_async_wait() {
    emulator::wait_for_copies(PENDING);
}

void load_matrix_x4(uint32_t (&r)[4], const void* row);
template <class T>  // __half or __nv_bfloat16
void matrix_multiply_add(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1);

}  // namespace sgan
