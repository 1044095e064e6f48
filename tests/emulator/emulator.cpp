// Implementation of emulator.h: blocks run one after another, their threads as fibers.
#include <sys/mman.h>
#include <ucontext.h>

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <random>
#include <utility>
#include <vector>

#include "common.cuh"

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/common_interface_defs.h>
#else  // AddressSanitizer needs to know when the stack changes
static void __sanitizer_start_switch_fiber(void**, const void*, size_t) {}
static void __sanitizer_finish_switch_fiber(void*, const void**, size_t*) {}
#endif

namespace emulator {
namespace {

constexpr size_t kStack = 256 * 1024, kGuard = 64 * 1024, kMaxShared = 227 * 1024;
constexpr int kPoison = 0xff;  // repeated in a number, NaN in every type

struct Fiber {
    ucontext_t start{};
    void* place[5] = {};  // where it was suspended
    bool started = false;
    void* fake_stack = nullptr;
    const void* bottom = nullptr;
    size_t size = 0;
};

struct Copy {
    void* to;
    unsigned char bytes[16];
    int group;
};

struct Thread {
    uint3 index{};
    unsigned number = 0;          // in the block
    Fiber* fiber = nullptr;       // null: not started
    const char* wait = nullptr;   // name of the operation that it waits in
    unsigned mask = 0;            // lanes that it waits for; 0: the block
    const void* input = nullptr;  // its value in an exchange
    void* output = nullptr;       // receives the values of all lanes
    size_t bytes = 0;
    std::vector<Copy> copies;
    int groups = 0;  // committed groups of copies
};

struct Warp {
    unsigned alive = 0;   // lanes that have not returned
    unsigned inside = 0;  // lanes that wait in a collective
    unsigned rank = 0;    // a ready thread runs before those of lower rank
};

std::vector<Thread> threads;  // of the current block
std::vector<Warp> warps;
std::vector<Thread*> ready, at_barrier;
size_t alive = 0;
unsigned char* shared_begin = nullptr;
size_t shared_size = 0;
Thread* current = nullptr;
Fiber host{{}, {}, true}, *running = &host, *before = nullptr;
std::vector<Fiber*> idle;
std::minstd_rand order;
bool ranked = false;  // warps have different ranks
bool hasty = false;   // bulk copies arrive as soon as a thread waits for them
void (*kernel)(const void*) = nullptr;
const void* kernel_args = nullptr;

// Compiler builtins for setjmp: swapcontext makes a system call each time, and AddressSanitizer's setjmp clears the
// redzones of the whole stack. noipa: after a switch any global can have changed.
__attribute__((noipa, noreturn, no_sanitize("address"))) void resume(Fiber* fiber) {
    if (fiber->started) __builtin_longjmp(fiber->place, 1);
    fiber->started = true;
    setcontext(&fiber->start);
    std::abort();
}

__attribute__((noipa, no_sanitize("address"))) void switch_to(Fiber* next) {
    if (next == running) return;
    Fiber* const self = before = std::exchange(running, next);
    __sanitizer_start_switch_fiber(&self->fake_stack, next->bottom, next->size);
    if (!__builtin_setjmp(self->place)) resume(next);
    __sanitizer_finish_switch_fiber(self->fake_stack, nullptr, nullptr);
}

void run_next();
void finish_thread();

// A fiber runs one thread after another.
void fiber_main() {
    __sanitizer_finish_switch_fiber(nullptr, &before->bottom, &before->size);  // returns the host's stack
    for (;;) {
        threadIdx = current->index;
        kernel(kernel_args);
        finish_thread();
        idle.push_back(running);
        run_next();
    }
}

Fiber* make_fiber() {
    void* memory = mmap(nullptr, kStack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED || mprotect(memory, kGuard, PROT_NONE)) fail("cannot allocate a thread's stack");
    Fiber* fiber = new Fiber;
    getcontext(&fiber->start);
    fiber->bottom = fiber->start.uc_stack.ss_sp = memory;
    fiber->size = fiber->start.uc_stack.ss_size = kStack;
    makecontext(&fiber->start, fiber_main, 0);
    return fiber;
}

Fiber* take_fiber() {
    if (idle.empty()) return make_fiber();
    Fiber* fiber = idle.back();
    idle.pop_back();
    return fiber;
}

[[noreturn]] void deadlock() {
    for (size_t i = 0, end; i < threads.size(); i = end) {
        const auto same = [&](const Thread& t) { return t.wait == threads[i].wait && t.mask == threads[i].mask; };
        for (end = i + 1; end < threads.size() && same(threads[end]);) end++;
        if (threads[i].wait) std::fprintf(stderr, "  threads %zu to %zu: %s\n", i, end - 1, threads[i].wait);
    }
    fail("deadlock: all threads are waiting");
}

// Run any thread that is ready. Returns when it is the caller's turn again.
void run_next() {
    while (alive && (hasty || ready.empty()))
        if (!deliver_copy()) {
            if (ready.empty()) deadlock();
            break;
        }
    if (ready.empty()) {
        check_block_is_done();
        current = nullptr;
        return switch_to(&host);
    }
    size_t chosen = order() % ready.size();
    const auto rank = [](size_t i) { return warps[ready[i]->number / 32].rank; };
    for (size_t i = 0; ranked && i < ready.size(); i++)
        if (rank(i) > rank(chosen)) chosen = i;
    std::swap(ready[chosen], ready.back());
    current = ready.back();
    ready.pop_back();
    if (!current->fiber) current->fiber = take_fiber();
    switch_to(current->fiber);
    if (current) threadIdx = current->index;
}

void release(Thread& thread) {
    thread.wait = nullptr;
    ready.push_back(&thread);
}

void open_barrier_if_complete() {
    if (at_barrier.size() < alive) return;
    for (Thread* thread : at_barrier) release(*thread);
    at_barrier.clear();
}

Warp& warp() { return warps[current->number / 32]; }

template <class F>
void for_lanes(unsigned mask, F&& visit) {
    for (; mask; mask &= mask - 1) visit(threads[current->number / 32 * 32 + __builtin_ctz(mask)]);
}

// Called when the current thread returns from the kernel.
void finish_thread() {
    const size_t pending = current->copies.size();
    if (pending) fail("returned before %zu of its asynchronous copies arrived", pending);
    check_thread_is_done();
    for_lanes(warp().inside, [](const Thread& other) {
        if (other.mask >> lane() & 1) fail("returned, but thread %u waits for it in %s", other.number, other.wait);
    });
    warp().alive &= ~(1u << lane());
    alive--;
    open_barrier_if_complete();
}

// Complete an exchange: all lanes of the mask have arrived.
void complete_exchange(unsigned mask) {
    unsigned char all[32 * 64];
    for_lanes(mask, [&](const Thread& lane) {
        if (lane.mask != mask || lane.bytes != current->bytes || std::strcmp(lane.wait, current->wait))
            fail("%s(%08x) meets thread %u in %s(%08x)", current->wait, mask, lane.number, lane.wait, lane.mask);
        std::memcpy(all + lane.number % 32 * lane.bytes, lane.input, lane.bytes);
    });
    warp().inside &= ~mask;
    for_lanes(mask, [&](Thread& lane) {
        std::memcpy(lane.output, all, 32 * lane.bytes);
        release(lane);
    });
}

void run_block() {
    std::memset(shared_begin, kPoison, shared_size);
    start_block(shared_size);
    warps.assign((threads.size() + 31) / 32, Warp());
    alive = threads.size();
    ranked = order() / 64 % 2, hasty = order() / 64 % 2;  // in half of the blocks, some warps are much slower
    for (Warp& warp : warps) warp.rank = order();
    for (Thread& thread : threads) {
        thread.fiber = nullptr;
        thread.groups = 0;
        warps[thread.number / 32].alive |= 1u << thread.number % 32;
        ready.push_back(&thread);
    }
    run_next();
}

const char* refusal(dim3 grid, dim3 block, size_t shared_bytes) {
    const uint64_t count = uint64_t{block.x} * block.y * block.z;
    const bool fits = grid.x <= 0x7fffffff && grid.y <= 65535 && grid.z <= 65535;
    if (!grid.x || !grid.y || !grid.z || !count) return "invalid configuration argument: nothing to run";
    if (!fits) return "invalid configuration argument: grid too large";
    const bool small = block.z <= 64 && count <= static_cast<uint64_t>(max_threads());
    if (!small) return "invalid configuration argument: block too large";
    return shared_bytes > kMaxShared ? "invalid argument: more than 227 KB of shared memory" : nullptr;
}

unsigned setting(const char* name, unsigned otherwise) {
    const char* text = std::getenv(name);
    return text ? static_cast<unsigned>(std::strtoul(text, nullptr, 10)) : otherwise;
}

unsigned seed() { return setting("SGAN_EMULATOR_SEED", 1); }

void check_row(const char* name, const void* row) {  // 16 bytes of shared memory
    const auto* at = static_cast<const unsigned char*>(row);
    if (!sgan::aligned_16(row)) fail("%s: %p is not aligned to 16 bytes", name, row);
    if (at < shared_begin || at + 16 > shared_begin + shared_size) fail("%s: %p is not in shared memory", name, row);
}

}  // namespace

void print_place() {
    static bool printed = false;
    if (!current || std::exchange(printed, true)) return;
    const uint3 &b = blockIdx, &t = current->index;
    std::fprintf(stderr, "in block (%u, %u, %u), thread (%u, %u, %u), SGAN_EMULATOR_SEED=%u\n", b.x, b.y, b.z, t.x, t.y,
                 t.z, seed());
}

void fail(const char* format, ...) {
    std::va_list args;
    va_start(args, format);
    std::fprintf(stderr, "emulator: ");
    std::vfprintf(stderr, format, args);
    std::fprintf(stderr, "\n");
    print_place();
    std::abort();
}

int lane() { return static_cast<int>(current->number % 32); }

unsigned char* shared() { return shared_begin; }

unsigned thread_number() { return current->number; }

unsigned random() { return order(); }

int max_threads() { return static_cast<int>(setting("SGAN_EMULATOR_MAX_THREADS", 1024)); }

void sleep(const char* name) {
    current->wait = name;
    current->mask = 0;
    run_next();
}

void wake(unsigned thread) { release(threads[thread]); }

void block_barrier() {
    current->wait = "__syncthreads";
    current->mask = 0;
    at_barrier.push_back(current);
    open_barrier_if_complete();
    run_next();
}

void exchange(const char* name, unsigned mask, const void* input, void* output, size_t bytes) {
    if (!(mask >> lane() & 1)) fail("%s: lane %d is not in its own mask %08x", name, lane(), mask);
    const unsigned absent = mask & ~warp().alive;
    if (absent) fail("%s: waits for lanes %08x, which have returned or do not exist", name, absent);
    current->wait = name;
    current->mask = mask;
    current->input = input;
    current->output = output;
    current->bytes = bytes;
    warp().inside |= 1u << lane();
    if ((warp().inside & mask) == mask) complete_exchange(mask);
    run_next();
}

void wait_for_copies(int pending) {
    std::vector<Copy> remaining;
    for (const Copy& copy : current->copies)
        if (copy.group + pending < current->groups) std::memcpy(copy.to, copy.bytes, 16);
        else remaining.push_back(copy);
    current->copies.swap(remaining);
}

const char* run_grid(dim3 grid, dim3 size, size_t shared_bytes, void (*thread)(const void*), const void* args) {
    if (const char* reason = refusal(grid, size, shared_bytes)) return reason;
    static std::mutex mutex;
    const std::lock_guard<std::mutex> lock(mutex);
    order.seed(seed());
    kernel = thread, kernel_args = args, gridDim = grid, blockDim = size;
    threads.assign(size_t{size.x} * size.y * size.z, Thread());
    for (unsigned i = 0; i < threads.size(); i++) {
        threads[i].number = i;
        threads[i].index = {i % size.x, i / size.x % size.y, i / size.x / size.y};
    }
    void* memory = nullptr;  // exactly the requested size, so that AddressSanitizer detects overruns
    if (posix_memalign(&memory, 1024, shared_bytes)) return "out of memory";
    shared_begin = static_cast<unsigned char*>(memory);
    shared_size = shared_bytes;
    for (blockIdx.z = 0; blockIdx.z < grid.z; blockIdx.z++)
        for (blockIdx.y = 0; blockIdx.y < grid.y; blockIdx.y++)
            for (blockIdx.x = 0; blockIdx.x < grid.x; blockIdx.x++) run_block();
    std::free(memory);
    return nullptr;
}

}  // namespace emulator

namespace sgan {

using namespace emulator;

// Invalidates the destination, which receives the copy only when the thread waits for it.
void copy_async_16(void* to, const void* global, int bytes) {
    check_row("copy_async_16", to);
    if (!aligned_16(global)) fail("copy_async_16: %p is not aligned to 16 bytes", global);
    if (bytes < 0 || bytes > 16) fail("copy_async_16 of %d bytes", bytes);
    Copy copy{to, {}, current->groups};
    if (bytes) std::memcpy(copy.bytes, global, bytes);
    std::memset(to, kPoison, 16);
    current->copies.push_back(copy);
}

void copy_async_commit() { current->groups++; }

void load_matrix_x4(uint32_t (&r)[4], const void* row) {
    check_row("load_matrix_x4", row);
    const auto rows = exchange("load_matrix_x4", ~0u, static_cast<const uint32_t*>(row));
    for (int m = 0; m < 4; m++) r[m] = rows[8 * m + lane() / 4][lane() % 4];
}

template <class T>
void matrix_multiply_add(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    const uint32_t pairs[6] = {a[0], a[1], a[2], a[3], b0, b1};
    std::array<float, 12> values;
    for (int i = 0; i < 12; i++) values[i] = to_acc(T{static_cast<uint16_t>(pairs[i / 2] >> 16 * (i % 2))});
    const auto all = exchange("matrix_multiply_add", ~0u, values);
    for (int i = 0; i < 4; i++) {
        const int g = lane() / 4, below = i / 2, column = 2 * (lane() % 4) + i % 2;
        for (int k = 0; k < 16; k++)
            c[i] += all[4 * g + k % 8 / 2][2 * below + k / 8 * 4 + k % 2] *
                    all[4 * column + k % 8 / 2][8 + k / 8 * 2 + k % 2];
    }
}

template void matrix_multiply_add<__half>(float (&)[4], const uint32_t (&)[4], uint32_t, uint32_t);
template void matrix_multiply_add<__nv_bfloat16>(float (&)[4], const uint32_t (&)[4], uint32_t, uint32_t);

}  // namespace sgan
