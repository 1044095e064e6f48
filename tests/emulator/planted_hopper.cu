// A small correct product on a warpgroup, with the bugs of planted.h.
#include "hopper.cuh"
#include "planted.h"

namespace sgan {
namespace {

// 128 threads. In each step they write a to shared memory while a bulk copy brings b; both have two buffers.
template <class T>
__global__ void product_kernel(Product args) {
    const int k = static_cast<int>(args.k), thread = threadIdx.x, steps = static_cast<int>(args.steps);
    const int a_bytes = 64 * k * 2, b_bytes = 32 * k * 2;
    auto* b_tiles = shared_memory<unsigned char>();
    unsigned char* a_tiles = b_tiles + 2 * b_bytes;
    auto* full = reinterpret_cast<uint64_t*>(a_tiles + 2 * a_bytes);
    const auto is = [&](Plant plant) { return args.plant == plant; };
    const auto copy = [&](int step) {
        mbarrier_expect(full + step % 2, b_bytes + is(Plant::wrong_bytes) * 16);
        copy_bulk(b_tiles + step % 2 * b_bytes, static_cast<const unsigned char*>(args.b) + step % steps * b_bytes,
                  b_bytes, full + step % 2);
    };
    if (thread == 0) {
        for (int i = 0; i < (is(Plant::uninitialized) ? 0 : 2); i++) mbarrier_init(full + i, 1);
        mbarrier_publish();
        copy(0);
    }
    __syncthreads();

    float c[16];
    const Swizzle swizzle = is(Plant::wrong_swizzle) ? Swizzle::bytes32 : static_cast<Swizzle>(args.swizzle);
    const bool planes = args.swizzle == Mode::none;
    for (int step = 0; step < steps; step++) {
        const auto* a = static_cast<const T*>(args.a) + step * 64 * k;  // [64, k]
        unsigned char* a_tile = a_tiles + step % 2 * a_bytes;           // [k / 8, 64, 8]
        for (int i = thread; i < 64 * k / 8; i += 128)
            store<T, 8>(reinterpret_cast<T*>(a_tile + i * 16), load<T, 8>(a + i % 64 * k + i / 64 * 8));
        if (!is(Plant::unpublished)) publish_shared();
        __syncthreads();  // also: all products of the previous step have ended
        const bool early = is(Plant::early_copy) && step > 0;  // then it has been started in the previous step
        if (thread == 0 && !early && (step + 1 < steps || is(Plant::late_copy))) copy(step + 1);
        const uint32_t parity = is(Plant::wrong_parity) && step == 2 ? 0 : step / 2 & 1;
        if (!is(Plant::missing_phase) || step != 1) mbarrier_wait(full + step % 2, parity);
        if (!is(Plant::unfenced)) warpgroup_fence();
        const int eight = planes ? 128 : k * 16;  // bytes of 8 rows of b
        for (int i = 0; i < k / 16; i++)
            warpgroup_multiply_add<T, 32>(
                c, matrix_descriptor(a_tile + i * 2048, Swizzle::none, 1024, 128),
                matrix_descriptor(b_tiles + step % 2 * b_bytes + i * (planes ? 1024 : 32), swizzle, 512, eight),
                step + i > 0);
        warpgroup_commit();
        if (is(Plant::early_copy) && thread == 0 && step + 2 < steps) copy(step + 2);
        if (!is(Plant::unfinished)) warpgroup_wait<0>();
    }
    for (int i = 0; i < 16; i++) {
        const int half = i / 2 % 2, below = is(Plant::wrong_fragment) ? i % 2 : half;
        const int right = is(Plant::wrong_fragment) ? half : i % 2;
        const int row = thread / 32 * 16 + thread % 32 / 4 + 8 * below, column = i / 4 * 8 + thread % 4 * 2 + right;
        static_cast<float*>(args.y)[row * 32 + column] = c[i];
    }
}

}  // namespace

const char* product(const Product& args, void* stream) {
    const size_t bytes = 2 * (64 + 32) * args.k * 2 + 16;
    if (args.bfloat16) return launch(product_kernel<__nv_bfloat16>, dim3(1), dim3(128), bytes, stream, args);
    return launch(product_kernel<__half>, dim3(1), dim3(128), bytes, stream, args);
}

}  // namespace sgan
