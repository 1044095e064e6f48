// Instructions of sm_90a: barriers with phases, bulk copies, and matrix products of a warpgroup from shared memory.
//
// They exist where SGAN_WGMMA is defined: in code for sm_90a, and under the emulator, which replaces them. Shared
// memory has two views: loads and stores of threads use one, bulk copies and matrix products the other.
#pragma once

#include "common.cuh"

#ifdef SGAN_EMULATE
#define SGAN_WGMMA
#elif defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define SGAN_WGMMA
#endif

namespace sgan {

// Where 16 bytes of a row are in shared memory: bits 4 to 6 of the address are combined with bits 7 to 9 by xor, in all
// (rows of 128 bytes), the two low (64) or the lowest (32). The names are those of PTX, the values its codes.
enum class Swizzle : uint64_t { none, bytes128, bytes64, bytes32 };

}  // namespace sgan

#ifdef SGAN_EMULATE
#include "emulated_hopper.h"
#elif defined(SGAN_WGMMA)

namespace sgan {

__device__ __forceinline__ uint32_t shared_address(const void* shared) {
    return static_cast<uint32_t>(__cvta_generic_to_shared(shared));
}

// Initialize a barrier: each of its phases ends after this number of arrivals. (PTX ISA, mbarrier.init)
__device__ __forceinline__ void mbarrier_init(uint64_t* barrier, int arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(barrier)), "r"(arrivals) : "memory");
}

// After initializing, before the __syncthreads() that lets other threads use the barriers.
__device__ __forceinline__ void mbarrier_publish() {
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

__device__ __forceinline__ void mbarrier_arrive(uint64_t* barrier) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(barrier)) : "memory");
}

// Arrive; the phase also needs this many more bytes of bulk copies. (PTX ISA, mbarrier.arrive.expect_tx)
__device__ __forceinline__ void mbarrier_expect(uint64_t* barrier, int bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)), "r"(bytes)
                 : "memory");
}

// Wait until the current phase has a different parity. Phases count from 0, so parity 1 does not wait at first.
__device__ __forceinline__ void mbarrier_wait(uint64_t* barrier, uint32_t parity) {
    uint32_t ended;
    do {
        asm volatile(
            "{ .reg .pred p; mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2; selp.u32 %0, 1, 0, p; }"
            : "=r"(ended)
            : "r"(shared_address(barrier)), "r"(parity)
            : "memory");
    } while (!ended);
}

// Copy from global to shared memory; completes bytes of the barrier. Multiples of 16. (PTX ISA, cp.async.bulk)
__device__ __forceinline__ void copy_bulk(void* shared, const void* global, int bytes, uint64_t* barrier) {
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
                     shared_address(shared)),
                 "l"(global), "r"(bytes), "r"(shared_address(barrier))
                 : "memory");
}

// Make this thread's writes to shared memory visible to matrix products that follow a barrier.
__device__ __forceinline__ void publish_shared() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

// A matrix in shared memory, for warpgroup_multiply_add: rows of 16-bit numbers, 16 of which are used. `stride`: bytes
// from 8 rows to the next 8. Without swizzle, 8 numbers of 8 rows are 128 bytes, and the other 8 are `leading` bytes
// away; otherwise rows follow each other, and 8 of them start at a multiple of their size. (PTX ISA, wgmma)
__device__ __forceinline__ uint64_t matrix_descriptor(const void* shared, Swizzle swizzle, int leading, int stride) {
    return static_cast<uint64_t>(swizzle) << 62 | static_cast<uint64_t>(stride >> 4) << 32 |
           static_cast<uint64_t>(leading >> 4) << 16 | (shared_address(shared) & 0x3ffff) >> 4;
}

// Around products: before the first one after other code used their registers; after some, to make them a group; until
// all groups but the newest PENDING have ended. Until then nobody may touch c or write to a and b.
__device__ __forceinline__ void warpgroup_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void warpgroup_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int PENDING>
__device__ __forceinline__ void warpgroup_wait() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(PENDING) : "memory");
}

// Give registers back, or ask for more: how many a thread of this warpgroup has from now on. (PTX ISA, setmaxnreg)
template <int REGISTERS>
__device__ __forceinline__ void warpgroup_shrink() {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(REGISTERS));
}
template <int REGISTERS>
__device__ __forceinline__ void warpgroup_grow() {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(REGISTERS));
}

// c = a b^T, plus c if `add`: a is [64, 16], b [N, 16] of T, both described, and c [64, N] float in the registers of
// four warps. With g = lane / 4 and q = 2 (lane % 4), warp w holds c[4 t + 2 h + j] = c(16 w + g + 8 h, 8 t + q + j).
// (PTX ISA, wgmma.mma_async)
#define SGAN_C8(i)                                                                                               \
    "+f"(c[i]), "+f"(c[i + 1]), "+f"(c[i + 2]), "+f"(c[i + 3]), "+f"(c[i + 4]), "+f"(c[i + 5]), "+f"(c[i + 6]), \
        "+f"(c[i + 7])
#define SGAN_R16 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15"
#define SGAN_R32 SGAN_R16 ", %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define SGAN_R64                                                                                               \
    SGAN_R32 ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, %49, %50, " \
             "%51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define SGAN_WGMMA_INSTRUCTION(N, TYPE, REGISTERS, A, B, ADD, ...)                                              \
    asm volatile("{ .reg .pred p; setp.ne.b32 p, " ADD ", 0; wgmma.mma_async.sync.aligned.m64n" N "k16.f32." TYPE \
                 "." TYPE " {" REGISTERS "}, " A ", " B ", p, 1, 1, 0, 0; }"                                     \
                 : __VA_ARGS__                                                                                  \
                 : "l"(a), "l"(b), "r"(static_cast<int>(add)))
#define SGAN_WGMMA_SIZES(TYPE)                                                                                    \
    if constexpr (N == 32)                                                                                        \
        SGAN_WGMMA_INSTRUCTION("32", TYPE, SGAN_R16, "%16", "%17", "%18", SGAN_C8(0), SGAN_C8(8));                \
    else if constexpr (N == 64)                                                                                   \
        SGAN_WGMMA_INSTRUCTION("64", TYPE, SGAN_R32, "%32", "%33", "%34", SGAN_C8(0), SGAN_C8(8), SGAN_C8(16),    \
                               SGAN_C8(24));                                                                      \
    else                                                                                                          \
        SGAN_WGMMA_INSTRUCTION("128", TYPE, SGAN_R64, "%64", "%65", "%66", SGAN_C8(0), SGAN_C8(8), SGAN_C8(16),   \
                               SGAN_C8(24), SGAN_C8(32), SGAN_C8(40), SGAN_C8(48), SGAN_C8(56))
template <class T, int N>
__device__ __forceinline__ void warpgroup_multiply_add(float (&c)[N / 2], uint64_t a, uint64_t b, bool add) {
    static_assert(N == 32 || N == 64 || N == 128, "unsupported width");
    if constexpr (std::is_same_v<T, __half>) {
        SGAN_WGMMA_SIZES("f16");
    } else {
        SGAN_WGMMA_SIZES("bf16");
    }
}

}  // namespace sgan
#endif  // SGAN_WGMMA
