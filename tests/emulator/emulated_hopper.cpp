// Implementation of emulated_hopper.h.
#include <algorithm>
#include <cstring>
#include <map>
#include <utility>
#include <vector>

#include "hopper.cuh"

namespace emulator {
namespace {

struct Barrier {
    int arrivals = 0;       // that end a phase
    int missing = 0;        // in the current phase
    int64_t bytes = 0;      // of copies, missing in the current phase
    uint32_t phase = 0;
    std::vector<unsigned> waiting;  // threads
};

struct BulkCopy {
    unsigned char* to;
    std::vector<unsigned char> bytes;
    const uint64_t* barrier;
};

struct Product {
    float* c;
    int n, group;
    uint64_t a, b;
    bool add;
    float (*to_float)(uint16_t);
};

struct Products {  // of one thread
    std::vector<Product> pending;
    std::map<float*, std::vector<float>> sums;  // the results of pending products, which the registers do not have yet
    int groups = 0;                             // committed
    bool fenced = false;
};

std::map<const uint64_t*, Barrier> barriers;  // of the current block
std::vector<BulkCopy> copies;                 // in flight
std::vector<Products> products;               // by thread
std::vector<unsigned char> view;              // shared memory as matrix products see it

size_t offset_of(const char* name, const void* pointer, size_t bytes, size_t alignment) {
    const auto* at = static_cast<const unsigned char*>(pointer);
    if (at < shared() || at + bytes > shared() + view.size()) fail("%s: %p is not in shared memory", name, pointer);
    const size_t offset = at - shared();
    if (offset % alignment) fail("%s: %p is not aligned to %zu bytes", name, pointer, alignment);
    return offset;
}

Barrier& find(const char* name, const uint64_t* barrier) {
    offset_of(name, barrier, 8, 8);
    const auto found = barriers.find(barrier);
    if (found == barriers.end()) fail("%s: the barrier is not initialized", name);
    return found->second;
}

void end_phase_if_complete(Barrier& barrier) {
    if (barrier.missing || barrier.bytes) return;
    barrier.phase++;
    barrier.missing = barrier.arrivals;
    for (unsigned thread : std::exchange(barrier.waiting, {})) wake(thread);
}

void arrive(Barrier& barrier) {
    barrier.missing--;
    end_phase_if_complete(barrier);
}

void write(unsigned char* to, const void* bytes, size_t count) {  // in both views
    std::memcpy(to, bytes, count);
    std::memcpy(view.data() + (to - shared()), bytes, count);
}

// Number k of a row of the described matrix.
uint16_t element(uint64_t descriptor, int row, int k) {
    const auto field = [&](int bit) { return static_cast<size_t>(descriptor >> bit & 0x3fff) << 4; };
    const size_t leading = field(16), stride = field(32), eights = row / 8, within = row % 8, half = k / 8;
    const int mode = static_cast<int>(descriptor >> 62);
    size_t at = field(0) + eights * stride;
    if (mode == 0) at += within * 16 + half * leading;
    else at += within * (256 >> mode) + half * 16;
    if (mode) at ^= (at >> 7 & ((8 >> (mode - 1)) - 1)) << 4;
    at += k % 8 * 2;
    if (at + 2 > view.size()) fail("warpgroup_multiply_add: row %d is outside of shared memory", row);
    uint16_t bits;
    std::memcpy(&bits, view.data() + at, 2);
    return bits;
}

// The current thread's part of a product.
void multiply(const Product& product, std::vector<float>& sums) {
    const int warp = static_cast<int>(thread_number() / 32 % 4), g = lane() / 4, q = lane() % 4 * 2;
    float a[2][16];
    for (int i = 0; i < 32; i++)
        a[i / 16][i % 16] = product.to_float(element(product.a, 16 * warp + g + i / 16 * 8, i % 16));
    for (int column = 0; column < product.n / 4; column++) {
        float b[16];
        const int t = column / 2, j = column % 2;
        for (int k = 0; k < 16; k++) b[k] = product.to_float(element(product.b, 8 * t + q + j, k));
        for (int half = 0; half < 2; half++) {
            float& sum = sums[4 * t + 2 * half + j];
            if (!product.add) sum = 0;
            for (int k = 0; k < 16; k++) sum += a[half][k] * b[k];
        }
    }
}

}  // namespace

void start_block(size_t shared_bytes) {
    barriers.clear();
    products.assign(size_t{blockDim.x} * blockDim.y * blockDim.z, {});
    view.assign(shared_bytes, 0xff);
}

bool deliver_copy() {
    // One that a thread waits for: the others arrive even later.
    const auto awaited = std::partition(copies.begin(), copies.end(), [](const BulkCopy& copy) {
        return find("copy_bulk", copy.barrier).waiting.empty();
    });
    if (awaited == copies.end()) return false;
    std::swap(awaited[random() % (copies.end() - awaited)], copies.back());
    const BulkCopy copy = std::move(copies.back());
    copies.pop_back();
    write(copy.to, copy.bytes.data(), copy.bytes.size());
    Barrier& barrier = find("copy_bulk", copy.barrier);
    barrier.bytes -= static_cast<int64_t>(copy.bytes.size());
    end_phase_if_complete(barrier);
    return true;
}

void check_thread_is_done() {
    const size_t pending = products[thread_number()].pending.size();
    if (pending) fail("returned before %zu of its matrix products ended", pending);
}

void check_block_is_done() {
    if (!copies.empty()) fail("the block ended before %zu bulk copies arrived", copies.size());
}

}  // namespace emulator

namespace sgan {

using namespace emulator;

void mbarrier_init(uint64_t* barrier, int arrivals) {
    offset_of("mbarrier_init", barrier, 8, 8);
    if (!barriers.emplace(barrier, Barrier{arrivals, arrivals, 0, 0, {}}).second)
        fail("mbarrier_init: %p is initialized already", static_cast<void*>(barrier));
}

void mbarrier_arrive(uint64_t* barrier) { arrive(find("mbarrier_arrive", barrier)); }

void mbarrier_expect(uint64_t* barrier, int bytes) {
    Barrier& found = find("mbarrier_expect", barrier);
    found.bytes += bytes;
    arrive(found);
}

void mbarrier_wait(uint64_t* barrier, uint32_t parity) {
    Barrier& found = find("mbarrier_wait", barrier);
    while ((found.phase & 1) == parity) {
        found.waiting.push_back(thread_number());
        sleep("mbarrier_wait");
    }
}

void copy_bulk(void* to, const void* global, int bytes, uint64_t* barrier) {
    offset_of("copy_bulk", to, bytes, 16);
    find("copy_bulk", barrier);
    if (!aligned_16(global) || bytes % 16) fail("copy_bulk: %d bytes from %p", bytes, global);
    const auto* from = static_cast<const unsigned char*>(global);
    copies.push_back({static_cast<unsigned char*>(to), {from, from + bytes}, barrier});
    const std::vector<unsigned char> poison(bytes, 0xff);
    write(copies.back().to, poison.data(), poison.size());
}

void publish_shared() { std::memcpy(view.data(), shared(), view.size()); }

uint64_t matrix_descriptor(const void* matrix, Swizzle swizzle, int leading, int stride) {
    return static_cast<uint64_t>(swizzle) << 62 | static_cast<uint64_t>(stride >> 4) << 32 |
           static_cast<uint64_t>(leading >> 4) << 16 | offset_of("matrix_descriptor", matrix, 16, 16) >> 4;
}

void warpgroup_fence() { products[thread_number()].fenced = true; }

void warpgroup_commit() { products[thread_number()].groups++; }

void warpgroup_multiply(float* c, int n, uint64_t a, uint64_t b, bool add, float (*to_float)(uint16_t)) {
    const std::array<uint64_t, 2> descriptors{a, b};
    for (const auto& other : exchange("warpgroup_multiply_add", ~0u, descriptors))
        if (other != descriptors) fail("warpgroup_multiply_add: the lanes describe different matrices");
    Products& own = products[thread_number()];
    if (!own.fenced) fail("warpgroup_multiply_add: no warpgroup_fence since the registers were used");
    const auto [sums, first] = own.sums.try_emplace(c, c, c + n / 2);
    if (first) std::memset(c, 0xff, n / 2 * sizeof(float));
    own.pending.push_back({c, n, own.groups, a, b, add, to_float});
}

// The sums that no pending product will change return to their registers.
void warpgroup_wait(int pending) {
    Products& own = products[thread_number()];
    std::vector<Product> remaining;
    for (const Product& product : own.pending)
        if (product.group + pending < own.groups) multiply(product, own.sums[product.c]);
        else remaining.push_back(product);
    own.pending.swap(remaining);
    for (auto sums = own.sums.begin(); sums != own.sums.end();) {
        bool used = false;
        for (const Product& product : own.pending) used = used || product.c == sums->first;
        if (!used) std::memcpy(sums->first, sums->second.data(), sums->second.size() * sizeof(float));
        sums = used ? std::next(sums) : own.sums.erase(sums);
    }
    own.fenced = own.fenced && !own.sums.empty();
    exchange("warpgroup_wait", ~0u, '.');
}

}  // namespace sgan
