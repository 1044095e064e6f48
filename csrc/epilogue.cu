// Derivatives of y = clamp(gain act(scale x + strength noise + b)), act one of linear, relu, lrelu, in one pass over
// memory with all of its sums. Rows are pixels, their numbers are channels.
//
// A block reads a chunk of a sample's rows; its threads cover the channels, and as many rows as fit. Each thread sums
// its channels in registers, the block sums over its rows in shared memory, and a second kernel over the blocks, always
// in the same order: the result has the same bits every time.

#include <math.h>

#include "common.cuh"

namespace sgan {
namespace {

constexpr int THREADS = 256;
constexpr int BLOCKS = 1024;  // about eight blocks for each multiprocessor
constexpr int LANES = 32;     // of the second kernel: 32 channels of 32 rows at a time

// The shape of a launch: chunks of a sample, rows in a chunk, threads along the channels.
struct Shape {
    int64_t rows;
    int chunks, columns;
};

// v[j] = scale of row n, or `missing`.
template <int V, class A>
__device__ __forceinline__ void load_row(A (&v)[V], const void* from, int64_t at, A missing) {
#pragma unroll
    for (int j = 0; j < V; j++) v[j] = from ? static_cast<const A*>(from)[at + j] : missing;
}

template <class T, int V>
__device__ __forceinline__ void load_numbers(acc_t<T> (&v)[V], const void* from, int64_t at) {
    if (!from) {
#pragma unroll
        for (int j = 0; j < V; j++) v[j] = 0;
        return;
    }
    const Vec<T, V> numbers = load<T, V>(static_cast<const T*>(from) + at);
#pragma unroll
    for (int j = 0; j < V; j++) v[j] = to_acc(numbers.at[j]);
}

template <class T, int V>
__device__ __forceinline__ void store_numbers(void* to, int64_t at, const acc_t<T> (&v)[V]) {
    Vec<T, V> numbers;
#pragma unroll
    for (int j = 0; j < V; j++) numbers.at[j] = from_acc<T>(v[j]);
    store<T, V>(static_cast<T*>(to) + at, numbers);
}

// v[j] = slope of clamp(gain act(.)) where it gave y[j], or with b, at y[j] + b[j].
template <class T, int V>
__device__ __forceinline__ void load_slopes(acc_t<T> (&v)[V], const EpilogueGrad& args, const acc_t<T> (&b)[V],
                                            int64_t at) {
    using A = acc_t<T>;
    const A above = static_cast<A>(args.gain), below = above * static_cast<A>(args.slope);
    const A bound = to_acc(from_acc<T>(static_cast<A>(args.clamp)));  // rounded as in y
    load_numbers<T, V>(v, args.y, at);
    if (args.b) {
#pragma unroll
        for (int j = 0; j < V; j++) v[j] = (v[j] + b[j]) * (v[j] + b[j] > 0 ? above : below);
    }
#pragma unroll
    for (int j = 0; j < V; j++) {
        const bool clamped = fabs(v[j]) >= bound && bound < A(INFINITY);
        v[j] = !args.y || v[j] > 0 ? above : below;
        if (clamped) v[j] = 0;
    }
}

// partial[block, column] = the sum over the block's rows.
template <int V, class A>
__device__ __forceinline__ void sum_rows(A* partial, const A (&sum)[V], const Shape& shape, int64_t channels) {
    A* shared = shared_memory<A>();  // [rows, columns V]
    const int column = threadIdx.x % shape.columns, row = threadIdx.x / shape.columns;
    const int rows = THREADS / shape.columns, width = shape.columns * V;
    if (row < rows) {
#pragma unroll
        for (int j = 0; j < V; j++) shared[row * width + column * V + j] = sum[j];
    }
    __syncthreads();
    for (int i = threadIdx.x; i < width; i += THREADS) {
        A total = 0;
        for (int r = 0; r < rows; r++) total += shared[r * width + i];
        const int64_t channel = static_cast<int64_t>(blockIdx.y) * width + i;
        if (channel < channels) partial[blockIdx.x * channels + channel] = total;
    }
    __syncthreads();
}

// Where the sums of the first kernel are: of dscale, db and dstrength.
template <class A>
struct Partial {
    A *scale, *b, *strength;
    __host__ __device__ Partial(const EpilogueGrad& args, const Shape& shape) {
        const int64_t sums = args.n * shape.chunks * args.c;
        scale = static_cast<A*>(args.partial), b = scale + (args.dscale ? sums : 0), strength = b + (args.db ? sums : 0);
    }
};

// ORDER 1: dp = dy F'(p), dx = scale dp, and the sums of dp x, dp and dp noise.
// ORDER 2: the derivatives of those with respect to dy, x and scale, in the direction (gx, gscale, gb, gstrength).
template <class T, int V, int ORDER>
__global__ void __launch_bounds__(THREADS) epilogue_kernel(EpilogueGrad args, Shape shape) {
    using A = acc_t<T>;
    const int column = blockIdx.y * shape.columns + threadIdx.x % shape.columns;
    const int row = threadIdx.x / shape.columns, step = THREADS / shape.columns;
    const int64_t n = blockIdx.x / shape.chunks, c = static_cast<int64_t>(column) * V;
    const int64_t first = blockIdx.x % shape.chunks * shape.rows;
    const int64_t last = first + shape.rows < args.p ? first + shape.rows : args.p;
    const bool active = row < step && c < args.c;
    const bool weighs_noise = ORDER == 1 ? args.dstrength != nullptr : args.gstrength != nullptr;

    A scale[V], b[V], gscale[V], gb[V], sum_scale[V] = {}, sum_b[V] = {}, sum_strength = 0;
    load_row(scale, active ? args.scale : nullptr, n * args.c + c, A(1));
    load_row(b, active ? args.b : nullptr, c, A(0));
    load_row(gscale, active ? args.gscale : nullptr, n * args.c + c, A(0));
    load_row(gb, active ? args.gb : nullptr, c, A(0));
    const A gstrength = args.gstrength ? *static_cast<const A*>(args.gstrength) : A(0);
    for (int64_t i = active ? first + row : last; i < last; i += step) {
        const int64_t at = (n * args.p + i) * args.c + c;
        const A noise = weighs_noise ? static_cast<const A*>(args.noise)[n * args.noise_stride + i] : A(0);
        A slope[V], dp[V], x[V], gx[V], out[V];
        load_slopes<T, V>(slope, args, b, at);
        load_numbers<T, V>(dp, args.dy, at);
        load_numbers<T, V>(x, args.x, at);
        if (ORDER == 2) load_numbers<T, V>(gx, args.gx, at);
#pragma unroll
        for (int j = 0; j < V; j++) dp[j] *= slope[j];
        if (ORDER == 1) {
#pragma unroll
            for (int j = 0; j < V; j++) {
                out[j] = scale[j] * dp[j];
                sum_scale[j] += dp[j] * x[j];
                sum_b[j] += dp[j];
                sum_strength += dp[j] * noise;
            }
        } else {
#pragma unroll
            for (int j = 0; j < V; j++) {
                out[j] = slope[j] * (scale[j] * gx[j] + gscale[j] * x[j] + gb[j] + gstrength * noise);
                sum_scale[j] += gx[j] * dp[j];
                dp[j] *= gscale[j];
            }
            if (args.cx) store_numbers<T, V>(args.cx, at, dp);
        }
        store_numbers<T, V>(args.dx, at, out);
    }

    const Partial<A> partial(args, shape);
    if (args.dscale) sum_rows(partial.scale, sum_scale, shape, args.c);
    if (args.db) sum_rows(partial.b, sum_b, shape, args.c);
    if (args.dstrength) {
        const A total = sum_block(sum_strength);
        if (threadIdx.x == 0) partial.strength[blockIdx.y * gridDim.x + blockIdx.x] = total;
    }
}

// The sum of `count` rows of 32 channels, in the first row of threads.
template <class A>
__device__ __forceinline__ A sum_partial(const A* from, int64_t count, int64_t pitch, bool inside) {
    A* shared = shared_memory<A>();  // [LANES, LANES]
    A total = 0;
    for (int64_t i = threadIdx.x / LANES; inside && i < count; i += LANES) total += from[i * pitch];
    shared[threadIdx.x] = total;
    __syncthreads();
    total = 0;
    for (int r = 0; r < LANES; r++) total += shared[r * LANES + threadIdx.x % LANES];
    __syncthreads();
    return total;
}

// Block y < n sums dscale of sample y, the next one db, the last one dstrength.
template <class A>
__global__ void __launch_bounds__(LANES* LANES) epilogue_sum_kernel(EpilogueGrad args, Shape shape, int64_t blocks) {
    const Partial<A> partial(args, shape);
    const int lane = threadIdx.x % LANES;
    const int64_t c = static_cast<int64_t>(blockIdx.x) * LANES + lane, n = blockIdx.y;
    const bool writes = threadIdx.x < LANES && c < args.c;
    if (n < args.n) {
        if (!args.dscale) return;
        const A total = sum_partial(partial.scale + n * shape.chunks * args.c + c, shape.chunks, args.c, c < args.c);
        if (writes) static_cast<A*>(args.dscale)[n * args.c + c] = total;
    } else if (n == args.n) {
        if (!args.db) return;
        const A total = sum_partial(partial.b + c, args.n * shape.chunks, args.c, c < args.c);
        if (writes) static_cast<A*>(args.db)[c] = total;
    } else if (args.dstrength && blockIdx.x == 0) {
        A total = 0;  // lanes take turns: each sums its own numbers, then the first one all lanes
        for (int64_t i = lane; i < blocks && threadIdx.x < LANES; i += LANES) total += partial.strength[i];
        A* shared = shared_memory<A>();
        if (threadIdx.x < LANES) shared[lane] = total;
        __syncthreads();
        if (threadIdx.x) return;
        for (int r = 1; r < LANES; r++) total += shared[r];
        *static_cast<A*>(args.dstrength) = total;
    }
}

template <class T>
bool takes_vectors(const EpilogueGrad& args) {
    bool aligned = args.c % kVector<T> == 0;
    for (const void* pointer : {args.dy, args.y, args.x, args.gx, static_cast<const void*>(args.dx),
                                static_cast<const void*>(args.cx)})
        aligned = aligned && aligned_16(pointer);
    return aligned;
}

Shape shape_of(const EpilogueGrad& args, int vector) {
    const int64_t columns = args.c / vector < THREADS ? args.c / vector : THREADS;
    const int64_t most = BLOCKS / args.n > 1 ? BLOCKS / args.n : 1, few = 4 * (THREADS / columns);
    const int64_t even = ceil_div<int64_t>(args.p, most), rows = even > few ? even : few;
    return {rows, static_cast<int>(ceil_div<int64_t>(args.p, rows)), static_cast<int>(columns)};
}

template <class T, int V>
const char* launch_vector(const EpilogueGrad& args, void* stream) {
    using A = acc_t<T>;
    const Shape shape = shape_of(args, V);
    const int64_t blocks = args.n * shape.chunks, tiles = ceil_div<int64_t>(args.c / V, shape.columns);
    if (blocks > kMaxGrid || args.n + 2 > 65535) return "the batch is too large";
    const dim3 grid(static_cast<unsigned>(blocks), static_cast<unsigned>(tiles));
    const size_t shared = sizeof(A) * THREADS * V;
    const char* error =
        args.order == 1 ? launch(epilogue_kernel<T, V, 1>, grid, dim3(THREADS), shared, stream, args, shape)
                        : launch(epilogue_kernel<T, V, 2>, grid, dim3(THREADS), shared, stream, args, shape);
    if (error || !(args.dscale || args.db || args.dstrength)) return error;
    const dim3 sums(static_cast<unsigned>(ceil_div<int64_t>(args.c, LANES)), static_cast<unsigned>(args.n + 2));
    return launch(epilogue_sum_kernel<A>, sums, dim3(LANES * LANES), sizeof(A) * LANES * LANES, stream, args, shape,
                  blocks * tiles);
}

}  // namespace

int64_t epilogue_workspace(const EpilogueGrad& args) {
    if (args.n * args.c * args.p == 0) return 0;
    const int64_t sums = (args.dscale != nullptr) + (args.db != nullptr), tiles = ceil_div<int64_t>(args.c, THREADS);
    return args.n * shape_of(args, 1).chunks * (sums * args.c + tiles);  // vectors make fewer chunks
}

const char* epilogue_grad(const EpilogueGrad& args, void* stream) {
    if (args.order != 1 && args.order != 2) return "order must be 1 or 2";
    if (args.n * args.c * args.p == 0) return nullptr;
    return with_dtype(args.dtype, [&](auto number) -> const char* {
        using T = decltype(number);
        return takes_vectors<T>(args) ? launch_vector<T, kVector<T>>(args, stream) : launch_vector<T, 1>(args, stream);
    });
}

}  // namespace sgan
