// Shared by the kernels: number types, 16-byte vectors, launching, and instructions without a C++ equivalent.
//
// With SGAN_EMULATE the same sources compile as plain C++: tests/emulator/emulator.h then replaces CUDA and the first
// part of this file.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <limits>
#include <type_traits>

#include "kernels.h"

#ifdef SGAN_EMULATE
#include "emulator.h"
#else

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

namespace sgan {

// The block's dynamic shared memory.
template <class T>
__device__ __forceinline__ T* shared_memory() {
    extern __shared__ __align__(1024) unsigned char bytes[];
    return reinterpret_cast<T*>(bytes);
}

// Launch a kernel. Returns null, or an error message.
template <class... P, class... A>
const char* launch(void (*kernel)(P...), dim3 grid, dim3 block, size_t shared_bytes, void* stream, A... args) {
    if (shared_bytes > 48 * 1024) {  // more needs to be requested
        cudaError_t refused =
            cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared_bytes));
        if (refused != cudaSuccess) return cudaGetErrorString(refused);
    }
    kernel<<<grid, block, shared_bytes, static_cast<cudaStream_t>(stream)>>>(args...);
    cudaError_t error = cudaGetLastError();
    return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}

// Number of multiprocessors of the current device.
inline int multiprocessors() {
    int device = 0, count = 1;
    cudaGetDevice(&device);
    cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device);
    return count;
}

// Most threads of a block with which the kernel can be launched on the current device.
template <class... P>
int max_threads(void (*kernel)(P...)) {
    cudaFuncAttributes attributes{};
    if (cudaFuncGetAttributes(&attributes, kernel) == cudaSuccess) return attributes.maxThreadsPerBlock;
    cudaGetLastError();  // clears the error
    return 0;
}

// x between -bound and bound. NaN stays NaN.
__device__ __forceinline__ float clamp_between(float x, float bound) {
    asm("min.NaN.f32 %0, %0, %1; max.NaN.f32 %0, %0, %2;" : "+f"(x) : "f"(bound), "f"(-bound));
    return x;
}

// Two numbers converted to T, the first in the low half.
template <class T>
__device__ __forceinline__ uint32_t pack(float low, float high) {
    uint32_t bits;
    if constexpr (std::is_same_v<T, __half>) {
        const __half2 both = __floats2half2_rn(low, high);
        memcpy(&bits, &both, sizeof bits);
    } else {
        const __nv_bfloat162 both = __floats2bfloat162_rn(low, high);
        memcpy(&bits, &both, sizeof bits);
    }
    return bits;
}

// Copy 16 bytes from global to shared memory asynchronously; only the first `bytes` are read, the rest are zero.
__device__ __forceinline__ void copy_async_16(void* shared, const void* global, int bytes) {
    uint32_t address = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(address), "l"(global), "r"(bytes) : "memory");
}

// Commit all copies started since the last commit as one group.
__device__ __forceinline__ void copy_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Wait for this thread's copies, except for its newest PENDING groups.
template <int PENDING>
__device__ __forceinline__ void copy_async_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
}

// Four 8x8 matrices of 16-bit numbers: lane l passes the address of row l % 8 of matrix l / 8, and receives in r[m]
// elements 2 (l % 4) and 2 (l % 4) + 1 of row l / 4 of matrix m. (PTX ISA, ldmatrix)
__device__ __forceinline__ void load_matrix_x4(uint32_t (&r)[4], const void* row) {
    uint32_t address = static_cast<uint32_t>(__cvta_generic_to_shared(row));
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(address)
                 : "memory");
}

// c += a b, with a [16, 16], b [16, 8] of T and c [16, 8] float. With g = lane / 4 and q = 2 (lane % 4):
// a[0] = a(g, q..q+1), a[1] = a(g + 8, q..), a[2] = a(g, q + 8..), a[3] = a(g + 8, q + 8..);
// b[0] = b(q..q+1, g), b[1] = b(q + 8.., g);  c = (g, q), (g, q + 1), (g + 8, q), (g + 8, q + 1).
// (PTX ISA, mma.m16n8k16)
template <class T>
__device__ __forceinline__ void matrix_multiply_add(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    if constexpr (std::is_same_v<T, __half>) {
        asm volatile(
            "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
            "{%0, %1, %2, %3};"
            : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
    } else {
        asm volatile(
            "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
            "{%0, %1, %2, %3};"
            : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
    }
}

}  // namespace sgan
#endif  // SGAN_EMULATE

namespace sgan {

// Accumulation type for T.
template <class T>
using acc_t = std::conditional_t<std::is_same_v<T, double>, double, float>;

template <class T>
__device__ __forceinline__ acc_t<T> to_acc(T x) {
    if constexpr (std::is_same_v<T, __half>) return __half2float(x);
    else if constexpr (std::is_same_v<T, __nv_bfloat16>) return __bfloat162float(x);
    else return x;
}

template <class T>
__device__ __forceinline__ T from_acc(acc_t<T> x) {
    if constexpr (std::is_same_v<T, __half>) return __float2half(x);
    else if constexpr (std::is_same_v<T, __nv_bfloat16>) return __float2bfloat16(x);
    else return x;
}

// V numbers that are read and written together.
template <class T, int V>
struct alignas(sizeof(T) * V) Vec {
    T at[V];
};

// Number of T in 16 bytes, the most that a thread reads or writes at once.
template <class T>
constexpr int kVector = 16 / sizeof(T);

template <class T, int V>
__device__ __forceinline__ Vec<T, V> load(const T* from) {
    return *reinterpret_cast<const Vec<T, V>*>(from);
}

template <class T, int V>
__device__ __forceinline__ void store(T* to, const Vec<T, V>& v) {
    *reinterpret_cast<Vec<T, V>*>(to) = v;
}

// The two numbers of pack().
template <class T>
__device__ __forceinline__ void unpack(uint32_t bits, float& low, float& high) {
    const Vec<T, 2> both = *reinterpret_cast<const Vec<T, 2>*>(&bits);
    low = to_acc(both.at[0]), high = to_acc(both.at[1]);
}

// V numbers from number `first` on, or the first `count` of them if they are no whole vector.
template <class T, int V>
__device__ __forceinline__ Vec<T, V> load_some(const void* from, unsigned first, bool whole, unsigned count) {
    const T* t = static_cast<const T*>(from) + first;
    if (whole) return load<T, V>(t);
    Vec<T, V> v;
#pragma unroll
    for (int j = 0; j < V; j++) v.at[j] = j < count ? t[j] : from_acc<T>(0);
    return v;
}

template <class T, int V>
__device__ __forceinline__ void store_some(T* to, const Vec<T, V>& v, bool whole, unsigned count) {
    if (whole) return store<T, V>(to, v);
#pragma unroll
    for (int j = 0; j < V; j++)
        if (j < count) to[j] = v.at[j];
}

template <class I>
__host__ __device__ constexpr I ceil_div(I a, I b) {
    return (a + b - 1) / b;
}

// Division of numbers below 2^31 by a constant, as a multiplication: a third of the instructions of a division.
// (Granlund and Montgomery 1994, "Division by invariant integers using multiplication", figure 4.1)
struct Divider {
    explicit Divider(int64_t d) : divisor(static_cast<uint32_t>(d)) {
        while ((int64_t{1} << shift) < d) shift++;
        multiplier = static_cast<uint32_t>((((int64_t{1} << shift) - d) << 32) / d + 1);
    }
    __device__ __forceinline__ uint32_t quotient(uint32_t n) const {
        return (static_cast<uint32_t>(static_cast<uint64_t>(n) * multiplier >> 32) + n) >> shift;
    }
    uint32_t divisor, multiplier, shift = 0;
};

// The sum over the threads of the block, a power of two, for all of them. Uses a shared number of each.
template <class A>
__device__ __forceinline__ A sum_block(A value) {
    A* shared = shared_memory<A>();
    shared[threadIdx.x] = value;
    __syncthreads();
    for (unsigned half = blockDim.x / 2; half; half /= 2) {
        if (threadIdx.x < half) shared[threadIdx.x] += shared[threadIdx.x + half];
        __syncthreads();
    }
    const A total = shared[0];
    __syncthreads();
    return total;
}

inline bool aligned_16(const void* pointer) { return reinterpret_cast<uintptr_t>(pointer) % 16 == 0; }

constexpr int64_t kMaxGrid = std::numeric_limits<int32_t>::max();

// Call visit(T{}) with the C++ type of dtype.
template <class F>
const char* with_dtype(Dtype dtype, F&& visit) {
    switch (dtype) {
        case Dtype::float32: return visit(float{});
        case Dtype::float16: return visit(__half{});
        case Dtype::bfloat16: return visit(__nv_bfloat16{});
        case Dtype::float64: return visit(double{});
    }
    return "unknown dtype";
}

}  // namespace sgan
