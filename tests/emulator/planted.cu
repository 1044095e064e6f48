// Small correct kernels, with the bugs of planted.h.
#include "planted.h"

#include "common.cuh"

namespace sgan {
namespace {

__global__ void reverse_kernel(Reverse args) {
    float* row = shared_memory<float>();  // [n]
    const int n = static_cast<int>(args.n), i = threadIdx.x;
    const auto* x = static_cast<const float*>(args.x) + blockIdx.x * args.n;
    auto* y = static_cast<float*>(args.y) + blockIdx.x * args.y_stride;
    const auto is = [&](Plant plant) { return args.plant == plant; };

    if (is(Plant::early_return) && i == 5) return;
    if (is(Plant::late_return) && i < 32) {
        for (int k = 0; k < (i == 5 ? 40 : 0); k++) __syncwarp(1u << 5);  // lets the other lanes arrive first
        if (i == 5) return;
        row[i] = __shfl_xor_sync(~0u, x[i], 31);
    }
    if (is(Plant::deadlock) && i < 32) i < 16 ? __syncthreads() : __syncwarp();
    row[i] = x[is(Plant::read_global) ? i + 1 : i];
    if (is(Plant::unwritten) && i == 7) row[i] = row[n];
    if (!is(Plant::missing_barrier)) __syncthreads();
    float value = row[is(Plant::off_by_one) && i > 0 ? n - i : is(Plant::read_shared) ? n - i : n - 1 - i];

    if (is(Plant::other_collective) && i == 5) __ballot_sync(~0u, 1);
    // Exchanged twice within the warp, which changes nothing.
    const unsigned mask = is(Plant::outside_mask) ? 0xffffu << (i & 16) : ~0u;
    value = __shfl_xor_sync(mask, value, 31);
    value = __shfl_xor_sync(mask, value, 31);
    y[i] = value;
    if (is(Plant::write_gap) && i + blockIdx.x == 0) y[n] = value;
}

// [32] threads with 4 numbers each, 128 at a time; two copies are in flight while a third is read.
__global__ void rotate_kernel(Rotate args) {
    float* tiles = shared_memory<float>();  // [3, 128]
    const auto* x = static_cast<const float*>(args.x);
    auto* y = static_cast<float*>(args.y);
    const int lane = threadIdx.x, steps = static_cast<int>(args.n / 128);
    const auto is = [&](Plant plant) { return args.plant == plant; };

    const auto start = [&](int step) {
        float* to = tiles + step % 3 * 128 + lane * 4 + is(Plant::misaligned_copy);
        if (step < steps || is(Plant::never_waits)) copy_async_16(to, x + step % steps * 128 + lane * 4, 16);
        copy_async_commit();
    };
    start(0);
    start(1);
    for (int step = 0; step < steps; step++) {
        if (is(Plant::late_group)) copy_async_wait<2>();
        else if (!is(Plant::missing_wait)) copy_async_wait<1>();
        if (!is(Plant::missing_sync)) __syncthreads();
        start(step + 2);
        const float* from = tiles + step % 3 * 128 + (lane ^ 1) * 4 + (is(Plant::misaligned) ? 1 : 0);
        store<float, 4>(y + (step + 1) % steps * 128 + (lane ^ 1) * 4, load<float, 4>(from));
    }
    if (!is(Plant::never_waits)) copy_async_wait<0>();
}

__global__ void collectives_kernel(Collectives args) {
    const int thread = threadIdx.x, x = static_cast<const int32_t*>(args.x)[thread];
    auto* y = static_cast<int32_t*>(args.y) + thread;
    y[0 * 64] = __shfl_sync(~0u, x, 3);
    y[1 * 64] = __shfl_sync(~0u, x, thread + 1, 8);
    y[2 * 64] = __shfl_xor_sync(~0u, x, 5);
    y[3 * 64] = __shfl_down_sync(~0u, x, 3, 16);
    y[4 * 64] = __shfl_up_sync(~0u, x, 3, 16);
    y[5 * 64] = static_cast<int32_t>(__ballot_sync(~0u, x > 0));
    y[6 * 64] = __any_sync(0xffffu << (thread & 16), x > 90);  // two masks at the same time
    y[7 * 64] = __all_sync(0xffffu << (thread & 16), x < 90);
    if (thread % 2) y[8 * 64] = __shfl_xor_sync(0xaaaaaaaau, x, 2);  // while the other lanes continue
    else y[8 * 64] = -1;
    __syncwarp();
    static_cast<double*>(args.wide)[thread] = __shfl_xor_sync(~0u, x + 1e-9, 1);
}

template <class T>
__global__ void multiply_kernel(Multiply args) {
    T* a = shared_memory<T>();  // [16, 16], then [16, 16] whose second half is unused
    T* b = a + 256;
    const int lane = threadIdx.x, row = lane % 8, matrix = lane / 8;
    for (int i = lane; i < 256; i += 32) a[i] = static_cast<const T*>(args.a)[i];
    for (int i = lane; i < 128; i += 32) b[i] = static_cast<const T*>(args.b)[i];
    __syncthreads();
    uint32_t from_a[4], from_b[4];
    load_matrix_x4(from_a, a + (matrix % 2 * 8 + row) * 16 + matrix / 2 * 8);
    load_matrix_x4(from_b, b + row * 16 + matrix % 2 * 8);
    float c[4] = {};
    matrix_multiply_add<T>(c, from_a, from_b[0], from_b[1]);
    for (int i = 0; i < 4; i++)
        static_cast<float*>(args.y)[(lane / 4 + i / 2 * 8) * 8 + lane % 4 * 2 + i % 2] = c[i];
}

template <class T>
__global__ void convert_kernel(Convert args) {
    const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i >= args.n) return;
    static_cast<T*>(args.to)[i] = from_acc<T>(static_cast<const float*>(args.x)[i]);
    static_cast<float*>(args.back)[i] = to_acc(static_cast<const T*>(args.h)[i]);
}

__global__ void count_kernel(Count args) {
    struct Sums {
        float f;
        double d;
        int i;
        unsigned long long u;
    }* sums = shared_memory<Sums>();
    const dim3 b = blockDim, g = gridDim;
    const int within = threadIdx.x + b.x * (threadIdx.y + b.y * threadIdx.z);
    const int block = blockIdx.x + g.x * (blockIdx.y + g.y * blockIdx.z), threads = b.x * b.y * b.z;
    if (within == 0) *sums = Sums{};
    __syncthreads();
    const int number = block * threads + within;
    if (number == 0) {
        for (int i = 0; i < 4; i++) static_cast<int64_t*>(args.sums)[i] = 0;
        *static_cast<int32_t*>(args.largest) = 0;
    }
    __syncthreads();
    if (within % 3 == 2) return;  // before the next barrier, which then waits for the other threads only
    atomicAdd(&sums->f, 1.f);
    atomicAdd(&sums->d, 1.);
    atomicAdd(&sums->i, number);
    atomicAdd(&sums->u, 1ull << 40);
    atomicMax(static_cast<int32_t*>(args.largest), number);
    __syncthreads();
    if (within) return;
    auto* to = static_cast<unsigned long long*>(args.sums);
    atomicAdd(to, static_cast<unsigned long long>(sums->f));
    atomicAdd(to + 1, static_cast<unsigned long long>(sums->d));
    atomicAdd(to + 2, static_cast<unsigned long long>(sums->i));
    atomicAdd(to + 3, sums->u);
}

dim3 size(const int64_t (&n)[3]) {
    return dim3(static_cast<unsigned>(n[0]), static_cast<unsigned>(n[1]), static_cast<unsigned>(n[2]));
}

}  // namespace

const char* reverse(const Reverse& args, void* stream) {
    const size_t numbers = args.n + (args.plant == Plant::unwritten);
    const auto threads = static_cast<unsigned>(args.n);
    return launch(reverse_kernel, dim3(static_cast<unsigned>(args.rows)), dim3(threads), 4 * numbers, stream, args);
}

const char* rotate(const Rotate& args, void* stream) {
    return launch(rotate_kernel, dim3(1), dim3(32), 3 * 128 * sizeof(float), stream, args);
}

const char* collectives(const Collectives& args, void* stream) {
    return launch(collectives_kernel, dim3(1), dim3(64), 0, stream, args);
}

const char* multiply(const Multiply& args, void* stream) {
    if (args.bfloat16) return launch(multiply_kernel<__nv_bfloat16>, dim3(1), dim3(32), 1024, stream, args);
    return launch(multiply_kernel<__half>, dim3(1), dim3(32), 1024, stream, args);
}

const char* convert(const Convert& args, void* stream) {
    const dim3 grid(static_cast<unsigned>(ceil_div<int64_t>(args.n, 256)));
    if (args.format == Format::float16) return launch(convert_kernel<__half>, grid, dim3(256), 0, stream, args);
    return launch(convert_kernel<__nv_bfloat16>, grid, dim3(256), 0, stream, args);
}

const char* count(const Count& args, void* stream) {
    return launch(count_kernel, size(args.grid), size(args.block), args.shared_bytes, stream, args);
}

}  // namespace sgan
