// Upsample, pad, filter, downsample.
//
// The cases that StyleGAN uses (a short separable filter, a factor of 1 or 2) go through a tile in shared memory;
// everything else is computed one output at a time.

#include "upfirdn2d_strips.cuh"

namespace sgan {
namespace {

// ---------------------------------------------------------------------------------------------------------------------
// General: any factors, any filter. Each thread computes one output.

template <class T>
__global__ void __launch_bounds__(256) upfirdn2d_general_kernel(UpFirDn2d args, int64_t count, bool channels_inner) {
    using A = acc_t<T>;
    const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
    for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += step) {
        // Neighboring threads write neighboring memory.
        int64_t rest = i, c = 0;
        if (channels_inner) c = rest % args.c, rest /= args.c;
        const int64_t ox = rest % args.out_w;
        rest /= args.out_w;
        const int64_t oy = rest % args.out_h;
        rest /= args.out_h;
        if (!channels_inner) c = rest % args.c, rest /= args.c;
        const int64_t n = rest;

        const T* x = static_cast<const T*>(args.x) + n * args.x_stride[0] + c * args.x_stride[1];
        const A* f = static_cast<const A*>(args.f);
        const int64_t uy = oy * args.down - args.pad_y, ux = ox * args.down - args.pad_x;  // in upsampled pixels
        A sum = 0;
        for (int ky = 0; ky < args.taps_y; ky++) {
            const int64_t y = (uy + ky) / args.up;
            if (uy + ky < 0 || y >= args.h || y * args.up != uy + ky) continue;
            const int fy = args.flip ? ky : args.taps_y - 1 - ky;
            A row = 0;
            for (int kx = 0; kx < args.taps_x; kx++) {
                const int64_t at = (ux + kx) / args.up;
                if (ux + kx < 0 || at >= args.w || at * args.up != ux + kx) continue;
                const int fx = args.flip ? kx : args.taps_x - 1 - kx;
                const A tap = args.separable ? f[fx] : f[fy * args.taps_x + fx];
                row += tap * to_acc(x[y * args.x_stride[2] + at * args.x_stride[3]]);
            }
            sum += args.separable ? f[fy] * row : row;
        }
        T* y = static_cast<T*>(args.y) + n * args.y_stride[0] + c * args.y_stride[1];
        y[oy * args.y_stride[2] + ox * args.y_stride[3]] = from_acc<T>(sum * static_cast<A>(args.gain));
    }
}

template <class T>
const char* launch_general(const UpFirDn2d& args, void* stream) {
    const int64_t count = args.n * args.c * args.out_h * args.out_w;
    const int64_t blocks = ceil_div<int64_t>(count, 256);
    const dim3 grid(static_cast<unsigned>(blocks < kMaxGrid ? blocks : kMaxGrid));
    const bool channels_inner = args.y_stride[1] == 1 && args.c > 1;
    return launch(upfirdn2d_general_kernel<T>, grid, dim3(256), 0, stream, args, count, channels_inner);
}

// ---------------------------------------------------------------------------------------------------------------------
// Tiled: a separable filter of K taps.
//
// Along each axis, outputs are grouped by UP, so that the tap for each sample is known at compile time: output r of
// group q is sum_m g[UP m + r] x[first(q) + r + m]. A group needs W samples; the next one starts DOWN samples later.

// Shape of a block: GX by GY groups of LANES vectors of V channels. A thread computes one vector of one column of
// groups. It walks down GY / SEGMENTS rows, with the last W rows, already filtered horizontally, in registers.
template <int V_, int LANES_, int UP_, int DOWN_, int K_, int GX_, int GY_, int SEGMENTS_>
struct Tile {
    static constexpr int V = V_, LANES = LANES_, UP = UP_, DOWN = DOWN_, K = K_, GX = GX_, GY = GY_;
    static constexpr int SEGMENTS = SEGMENTS_;
    static constexpr int M = K / UP;                                                // taps per output
    static constexpr int W = M + UP - 1;                                            // samples per group
    static constexpr int IN_X = (GX - 1) * DOWN + W, IN_Y = (GY - 1) * DOWN + W;    // samples per block
    static constexpr int THREADS = LANES * GX * SEGMENTS;
    static_assert(K % UP == 0 && GY % SEGMENTS == 0 && (UP == 1 || DOWN == 1), "unsupported tile");
};

template <class T, class Tile>
__global__ void __launch_bounds__(Tile::THREADS) upfirdn2d_tiled_kernel(UpFirDn2d args, Side side_x, Side side_y,
                                                                         int64_t tiles_x, int64_t tiles_y,
                                                                         int64_t chunks, int64_t tiles) {
    using A = acc_t<T>;
    constexpr int V = Tile::V, LANES = Tile::LANES, UP = Tile::UP, DOWN = Tile::DOWN, K = Tile::K, W = Tile::W;
    using Vector = Vec<T, V>;
    Vector* tile = shared_memory<Vector>();  // [IN_Y, IN_X, LANES]

    A taps[K];
#pragma unroll
    for (int k = 0; k < K; k++) {
        const A* f = static_cast<const A*>(args.f);
        taps[k] = f[args.flip ? k : K - 1 - k];
    }
    const int lane = threadIdx.x % LANES, column = threadIdx.x / LANES % Tile::GX;
    const int segment = threadIdx.x / (LANES * Tile::GX);

    for (int64_t id = blockIdx.x; id < tiles; id += gridDim.x) {
        // Neighboring blocks read neighboring memory.
        int64_t rest = id, chunk = 0;
        if (LANES > 1) chunk = rest % chunks, rest /= chunks;
        const int64_t group_x = rest % tiles_x * Tile::GX;
        rest /= tiles_x;
        const int64_t group_y = rest % tiles_y * Tile::GY;
        rest /= tiles_y;
        if (LANES == 1) chunk = rest % chunks, rest /= chunks;
        const int64_t n = rest, channel = chunk * LANES * V;

        const T* x = static_cast<const T*>(args.x) + n * args.x_stride[0] + channel * args.x_stride[1];
        const int64_t x0 = side_x.first + group_x * DOWN, y0 = side_y.first + group_y * DOWN;
        for (unsigned i = threadIdx.x; i < Tile::IN_Y * Tile::IN_X * LANES; i += Tile::THREADS) {
            const unsigned l = i % LANES;
            const int64_t at_x = x0 + i / LANES % Tile::IN_X, at_y = y0 + i / (LANES * Tile::IN_X);
            const bool inside = at_x >= 0 && at_x < args.w && at_y >= 0 && at_y < args.h && channel + l * V < args.c;
            const int64_t offset = at_y * args.x_stride[2] + at_x * args.x_stride[3] + l * V * args.x_stride[1];
            if constexpr (sizeof(Vector) == 16)
                copy_async_16(&tile[i], inside ? x + offset : x, inside ? 16 : 0);
            else
                tile[i] = inside ? load<T, V>(x + offset) : Vector{};
        }
        copy_async_commit();
        copy_async_wait<0>();
        __syncthreads();

        // Row `row` of the tile, filtered horizontally for this thread's group.
        A h[W][UP][V];
        auto filter_row = [&](A(&out)[UP][V], int row) {
#pragma unroll
            for (int r = 0; r < UP; r++)
#pragma unroll
                for (int v = 0; v < V; v++) out[r][v] = 0;
#pragma unroll
            for (int k = 0; k < W; k++) {
                const Vector in = tile[(row * Tile::IN_X + column * DOWN + k) * LANES + lane];
#pragma unroll
                for (int r = 0; r < UP; r++) {
                    if (k < r || k - r >= Tile::M) continue;
#pragma unroll
                    for (int v = 0; v < V; v++) out[r][v] += taps[UP * (k - r) + r] * to_acc(in.at[v]);
                }
            }
        };
        constexpr int ROWS = Tile::GY / Tile::SEGMENTS;
        const int first_row = segment * ROWS;
#pragma unroll
        for (int k = 0; k < W - DOWN; k++) filter_row(h[k], first_row * DOWN + k);
        T* y = static_cast<T*>(args.y) + n * args.y_stride[0] + (channel + lane * V) * args.y_stride[1];
        for (int row = first_row; row < first_row + ROWS; row++) {
#pragma unroll
            for (int k = W - DOWN; k < W; k++) filter_row(h[k], row * DOWN + k);
#pragma unroll
            for (int ry = 0; ry < UP; ry++)
#pragma unroll
                for (int rx = 0; rx < UP; rx++) {
                    Vector out;
#pragma unroll
                    for (int v = 0; v < V; v++) {
                        A sum = 0;
#pragma unroll
                        for (int m = 0; m < Tile::M; m++) sum += taps[UP * m + ry] * h[ry + m][rx][v];
                        out.at[v] = from_acc<T>(sum * static_cast<A>(args.gain));
                    }
                    const int64_t oy = side_y.output + (group_y + row) * UP + ry;
                    const int64_t ox = side_x.output + (group_x + column) * UP + rx;
                    if (oy >= 0 && oy < args.out_h && ox >= 0 && ox < args.out_w && channel + lane * V < args.c)
                        store<T, V>(y + oy * args.y_stride[2] + ox * args.y_stride[3], out);
                }
#pragma unroll
            for (int k = 0; k < W - DOWN; k++)
#pragma unroll
                for (int r = 0; r < UP; r++)
#pragma unroll
                    for (int v = 0; v < V; v++) h[k][r][v] = h[k + DOWN][r][v];
        }
        __syncthreads();  // before the next tile overwrites this one
    }
}

template <class T, class Tile>
const char* launch_tiled(const UpFirDn2d& args, void* stream) {
    const Side x = side_of<Tile::UP>(args.pad_x, args.out_w), y = side_of<Tile::UP>(args.pad_y, args.out_h);
    const int64_t tiles_x = ceil_div<int64_t>(x.groups, Tile::GX), tiles_y = ceil_div<int64_t>(y.groups, Tile::GY);
    const int64_t chunks = ceil_div<int64_t>(args.c, Tile::LANES * Tile::V);
    const int64_t tiles = args.n * chunks * tiles_x * tiles_y;
    const size_t bytes = sizeof(T) * Tile::V * Tile::LANES * Tile::IN_X * Tile::IN_Y;
    const dim3 grid(static_cast<unsigned>(tiles < kMaxGrid ? tiles : kMaxGrid));
    return launch(upfirdn2d_tiled_kernel<T, Tile>, grid, dim3(Tile::THREADS), bytes, stream, args, x, y, tiles_x,
                  tiles_y, chunks, tiles);
}

// Memory layout of the channels: rows along x; 16 bytes of channels at a time; few channels; anything else.
enum class Layout { planes, vectors, pixels, other };

template <class T>
Layout layout_of(const UpFirDn2d& args) {
    constexpr int V = kVector<T>;
    if (args.x_stride[1] != 1 || args.y_stride[1] != 1 || args.c == 1)
        return args.x_stride[3] == 1 && args.y_stride[3] == 1 ? Layout::planes : Layout::other;
    if (args.x_stride[3] != args.c || args.y_stride[3] != args.c) return Layout::other;
    bool vectors = args.c % V == 0 && aligned_16(args.x) && aligned_16(args.y);
    for (int side : {0, 2, 3}) vectors = vectors && args.x_stride[side] % V == 0 && args.y_stride[side] % V == 0;
    return vectors ? Layout::vectors : Layout::pixels;
}

// The strips of P, in all cases in use.
template <template <class, int, int, int, int> class P, class T, int V4, int V12>
bool launch_cases(const UpFirDn2d& args, void* stream, const char*& error) {
    return launch_strips<P<T, V4, 1, 1, 4>>(args, stream, error) ||
           launch_strips<P<T, V4, 2, 1, 4>>(args, stream, error) ||
           launch_strips<P<T, V4, 1, 2, 4>>(args, stream, error) ||
           launch_strips<P<T, V12, 1, 1, 12>>(args, stream, error) ||
           launch_strips<P<T, V12, 2, 1, 12>>(args, stream, error) ||
           launch_strips<P<T, V12, 1, 2, 12>>(args, stream, error);
}

template <class T>
const char* launch_any(const UpFirDn2d& args, void* stream) {
    constexpr int V = kVector<T>;
    const int factors = args.up <= 2 && args.down <= 2 ? 10 * args.up + args.down : 0;
    const Layout layout = layout_of<T>(args);
    const char* error = nullptr;
    if constexpr (!std::is_same_v<T, double>) {
        if (args.separable && args.taps_x == 4 && layout == Layout::vectors) {
            if (factors == 11) return launch_tiled<T, Tile<V, 4, 1, 1, 4, 32, 16, 2>>(args, stream);
            if (factors == 21) return launch_tiled<T, Tile<V, 4, 2, 1, 4, 32, 8, 2>>(args, stream);
            if (factors == 12) return launch_tiled<T, Tile<V, 4, 1, 2, 4, 16, 8, 2>>(args, stream);
        }
        if (layout == Layout::planes && launch_cases<Planes, T, V, 4>(args, stream, error)) return error;
        const bool pixels = layout == Layout::vectors || layout == Layout::pixels;
        if (pixels && args.n * args.x_stride[0] <= kMaxGrid && launch_cases<Pixels, T, 4, 2>(args, stream, error)) return error;
    }
    return launch_general<T>(args, stream);
}

}  // namespace

const char* upfirdn2d(const UpFirDn2d& args, void* stream) {
    if (args.n * args.c * args.out_h * args.out_w == 0) return nullptr;
    return with_dtype(args.dtype, [&](auto number) { return launch_any<decltype(number)>(args, stream); });
}

}  // namespace sgan
