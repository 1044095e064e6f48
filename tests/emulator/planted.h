// The launchers of planted.cu, and the bugs that can be planted in them.
#pragma once

#include <cstdint>

namespace sgan {

enum class Plant : int32_t {
    none,
    off_by_one,        // wrong index
    missing_barrier,   // reads what another thread may not have written yet
    unwritten,         // reads shared memory that was never written
    read_global,       // reads beyond the end of the input
    read_shared,       // reads beyond the end of shared memory
    write_gap,         // writes between the rows of the output
    early_return,      // a lane returns before the warp's shuffle
    late_return,       // the same, while the others are already waiting for it
    other_collective,  // a lane calls a different collective
    outside_mask,      // shuffles with a lane that does not take part
    deadlock,          // half of a warp waits for the block, half for the warp
    missing_wait,      // reads the result of a copy without waiting for it
    late_group,        // waits for too few groups
    missing_sync,      // waits for its own copies, but not for other threads
    never_waits,       // returns while copies are in flight
    misaligned,        // reads 16 bytes from a misaligned address
    misaligned_copy,   // the same with an asynchronous copy
    missing_phase,     // reads the result of a bulk copy without waiting for the barrier's phase
    wrong_parity,      // waits for the phase before, which has ended
    wrong_bytes,       // expects more bytes than are copied
    uninitialized,     // uses a barrier that was never initialized
    late_copy,         // starts a bulk copy that no one waits for
    early_copy,        // overwrites a matrix that a product still reads
    wrong_swizzle,     // describes a matrix as if its rows were shorter
    wrong_fragment,    // takes the numbers of a result for those of other rows and columns
    unpublished,       // multiplies what threads wrote, without publish_shared()
    unfenced,          // multiplies without warpgroup_fence()
    unfinished,        // reads a result without waiting for its group
};

// y[r, n - 1 - i] = x[r, i] for each row of n numbers: one block per row, one thread per number.
struct Reverse {
    const void* x;  // [rows, n] float
    void* y;        // [rows, n] float
    int64_t rows;
    int64_t n;
    int64_t y_stride;
    Plant plant;
};
const char* reverse(const Reverse& args, void* stream);

// y[i] = x[i - 128 mod n] through asynchronous copies of 16 bytes, each read by another thread. n: 128 k.
struct Rotate {
    const void* x;  // [n] float
    void* y;        // [n] float
    int64_t n;
    Plant plant;
};
const char* rotate(const Rotate& args, void* stream);

// Results of several collectives in 64 threads: y[collective][thread].
struct Collectives {
    const void* x;  // [64] int32
    void* y;        // [9, 64] int32
    void* wide;     // [64] double
};
const char* collectives(const Collectives& args, void* stream);

// y = a b^T on tensor cores.
struct Multiply {
    const void* a;  // [16, 16]
    const void* b;  // [8, 16]
    void* y;        // [16, 8] float
    int32_t bfloat16;
};
const char* multiply(const Multiply& args, void* stream);

enum class Mode : int32_t { none, bytes128, bytes64, bytes32 };  // the swizzles of hopper.cuh

// y = sum over steps of a b^T on a warpgroup.
struct Product {
    const void* a;  // [steps, 64, k]
    const void* b;  // [steps, 32, k] swizzled; without swizzle, [steps, k / 8, 32, 8]
    void* y;        // [64, 32] float
    int64_t steps;
    int64_t k;
    Mode swizzle;
    int32_t bfloat16;
    Plant plant;
};
const char* product(const Product& args, void* stream);

enum class Format : int32_t { float16, bfloat16 };

struct Convert {
    const void* x;  // [n] float
    const void* h;  // [n] of the format
    void* to;       // [n] x converted to the format
    void* back;     // [n] h converted to float
    int64_t n;
    Format format;
};
const char* convert(const Convert& args, void* stream);

// Most threads of the grid add to each sum, and take part in the maximum of thread numbers.
struct Count {
    void* sums;      // [4] int64: float, double, int32 and uint64 sums, as integers
    void* largest;  // [1] int32
    int64_t grid[3];
    int64_t block[3];
    int64_t shared_bytes;
};
const char* count(const Count& args, void* stream);

}  // namespace sgan
