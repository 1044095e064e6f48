// Replacements for the PTX in csrc/hopper.cuh, which documents them. Implemented in emulated_hopper.cpp.
//
// A bulk copy arrives when a thread waits for it, in half of the blocks only when every thread waits; a matrix product
// when its group is waited for: as late as possible. Until then the destination is NaN. Matrix products see a thread's
// writes only after publish_shared().
#pragma once

#include "emulator.h"

namespace sgan {

void mbarrier_init(uint64_t* barrier, int arrivals);
inline void mbarrier_publish() {}
void mbarrier_arrive(uint64_t* barrier);
void mbarrier_expect(uint64_t* barrier, int bytes);
void mbarrier_wait(uint64_t* barrier, uint32_t parity);
void copy_bulk(void* shared, const void* global, int bytes, uint64_t* barrier);
void publish_shared();

uint64_t matrix_descriptor(const void* shared, Swizzle swizzle, int leading, int stride);
void warpgroup_fence();
void warpgroup_commit();
void warpgroup_wait(int pending);
template <int PENDING>
void warpgroup_wait() {
    warpgroup_wait(PENDING);
}
template <int REGISTERS>
void warpgroup_shrink() {}
template <int REGISTERS>
void warpgroup_grow() {}
void warpgroup_multiply(float* c, int n, uint64_t a, uint64_t b, bool add, float (*to_float)(uint16_t));
template <class T, int N>
void warpgroup_multiply_add(float (&c)[N / 2], uint64_t a, uint64_t b, bool add) {
    warpgroup_multiply(c, N, a, b, add, [](uint16_t bits) {
        if constexpr (std::is_same_v<T, __half>) return __half2float({bits});
        else return __bfloat162float({bits});
    });
}

}  // namespace sgan
