// Bias, upsampling, activation and clamp, downsampling, in one pass over memory.
//
// The cases of StyleGAN3 walk down strips of the image (filtered_lrelu.cuh); everything else is computed in tiles.

#include "filtered_lrelu.cuh"

namespace sgan {
namespace {

// ---------------------------------------------------------------------------------------------------------------------
// General: factors up to 4 and filters up to 32 taps, of any form. A block computes 16 x 16 outputs of one channel,
// with h in shared memory and two-dimensional filters.

constexpr int kSide = 16, kMaxTaps = 32, kMaxFactor = 4;

template <class A>
__device__ void load_filter(A* to, const void* from, int taps_y, int taps_x, bool separable, bool flip) {
    const A* f = static_cast<const A*>(from);
    for (int i = threadIdx.x; i < taps_y * taps_x; i += blockDim.x) {
        const int y = flip ? i / taps_x : taps_y - 1 - i / taps_x, x = flip ? i % taps_x : taps_x - 1 - i % taps_x;
        to[i] = separable ? f[y] * f[x] : f[y * taps_x + x];
    }
}

template <class T>
__global__ void __launch_bounds__(256) filtered_lrelu_general_kernel(FilteredLrelu args, int64_t tiles_y,
                                                                     int64_t tiles_x, int64_t blocks) {
    using A = acc_t<T>;
    A* fu = shared_memory<A>();
    A* fd = fu + args.up_taps_y * args.up_taps_x;
    A* h = fd + args.down_taps_y * args.down_taps_x;
    load_filter(fu, args.fu, args.up_taps_y, args.up_taps_x, args.separable_u, args.flip);
    load_filter(fd, args.fd, args.down_taps_y, args.down_taps_x, args.separable_d, args.flip);
    const int height = (kSide - 1) * args.down + args.down_taps_y, width = (kSide - 1) * args.down + args.down_taps_x;
    const A slope = static_cast<A>(args.slope), clamp = static_cast<A>(args.clamp);

    for (int64_t id = blockIdx.x; id < blocks; id += gridDim.x) {
        const int64_t tile_x = id % tiles_x, tile_y = id / tiles_x % tiles_y;
        const int64_t c = id / (tiles_x * tiles_y) % args.c, n = id / (tiles_x * tiles_y) / args.c;
        const int64_t row = tile_y * kSide * args.down, column = tile_x * kSide * args.down;  // of h
        const T* x = static_cast<const T*>(args.x) + n * args.x_stride[0] + c * args.x_stride[1];
        const A bias = args.b ? static_cast<const A*>(args.b)[c] : A(0);
        __syncthreads();  // the filters are there, and the last tile is not needed anymore
        for (int i = threadIdx.x; i < height * width; i += blockDim.x) {
            const int64_t uy = row + i / width - args.pad_y, ux = column + i % width - args.pad_x;
            A sum = 0;
            for (int ky = static_cast<int>(floor_mod(-uy, args.up)); ky < args.up_taps_y; ky += args.up) {
                const int64_t y = (uy + ky) / args.up;
                if (uy + ky < 0 || y >= args.h) continue;
                A line = 0;  // fewer terms per sum: a smaller error
                for (int kx = static_cast<int>(floor_mod(-ux, args.up)); kx < args.up_taps_x; kx += args.up) {
                    const int64_t at = (ux + kx) / args.up;
                    if (ux + kx < 0 || at >= args.w) continue;
                    const A in = to_acc(x[y * args.x_stride[2] + at * args.x_stride[3]]) + bias;
                    line += fu[ky * args.up_taps_x + kx] * in;
                }
                sum += line;
            }
            h[i] = sum * static_cast<A>(args.gain);
        }
        __syncthreads();
        const int words = ceil_div(width, kWord);
        for (int i = threadIdx.x; i < height * words; i += blockDim.x) {
            const int y = i / words, first = i % words * kWord;
            uint32_t word = 0;
            for (int k = 0; k < kWord && first + k < width; k++) {
                A& q = h[y * width + first + k];
                const int64_t at = column + first + k + args.offset_x;
                uint32_t code = 0;
                if (args.codes) {
                    const uint32_t stored = code_word(args, n, c, row + y + args.offset_y, at >> 4);
                    q *= derivative(stored >> 2 * (at & 15) & 3, slope);
                } else {
                    q = activate(q, slope, clamp, code);
                }
                word |= code << 2 * k;
            }
            const bool own_y = y < kSide * args.down || tile_y + 1 == tiles_y;
            if (args.new_codes && own_y && (first < kSide * args.down || tile_x + 1 == tiles_x))
                write_codes(args, n, c, row + y, column / kWord + first / kWord, word);
        }
        __syncthreads();
        const int oy = threadIdx.x / kSide, ox = threadIdx.x % kSide;
        const int64_t out_y = tile_y * kSide + oy, out_x = tile_x * kSide + ox;
        if (out_y >= args.out_h || out_x >= args.out_w) continue;
        A sum = 0;
        for (int ky = 0; ky < args.down_taps_y; ky++) {
            A line = 0;
            for (int kx = 0; kx < args.down_taps_x; kx++)
                line += fd[ky * args.down_taps_x + kx] * h[(oy * args.down + ky) * width + ox * args.down + kx];
            sum += line;
        }
        T* y = static_cast<T*>(args.y) + n * args.y_stride[0] + c * args.y_stride[1];
        y[out_y * args.y_stride[2] + out_x * args.y_stride[3]] = from_acc<T>(sum);
    }
}

template <class T>
const char* launch_general(const FilteredLrelu& args, void* stream) {
    for (int taps : {args.up_taps_y, args.up_taps_x, args.down_taps_y, args.down_taps_x})
        if (taps > kMaxTaps) return "filters of more than 32 taps are not supported";
    if (args.up > kMaxFactor || args.down > kMaxFactor) return "factors above 4 are not supported";
    const int64_t tiles_y = ceil_div<int64_t>(args.out_h, kSide), tiles_x = ceil_div<int64_t>(args.out_w, kSide);
    const int64_t blocks = args.n * args.c * tiles_y * tiles_x;
    const int height = (kSide - 1) * args.down + args.down_taps_y, width = (kSide - 1) * args.down + args.down_taps_x;
    const int numbers = args.up_taps_y * args.up_taps_x + args.down_taps_y * args.down_taps_x + height * width;
    const dim3 grid(static_cast<unsigned>(blocks < kMaxGrid ? blocks : kMaxGrid));
    return launch(filtered_lrelu_general_kernel<T>, grid, dim3(kSide * kSide), numbers * sizeof(acc_t<T>), stream, args,
                  tiles_y, tiles_x, blocks);
}

// Layers whose filter is a sum of R separable ones, forward and backward.
template <class T, int R>
bool launch_radial(const FilteredLrelu& args, void* stream, const char*& error) {
    return launch_strips<T, Strip<2, 6, 2, 12, 1, R, false>>(args, stream, error) ||
           launch_strips<T, Strip<4, 7, 2, 12, 1, R, false>>(args, stream, error) ||
           launch_strips<T, Strip<2, 6, 2, 12, R, 1, true>>(args, stream, error) ||
           launch_strips<T, Strip<2, 7, 4, 24, R, 1, true>>(args, stream, error);
}

// The layers of StyleGAN3, forward and backward. Its radial filters are sums of two or three separable ones with a
// relative error below 5e-4, of three or four with one below 5e-7.
template <class T>
const char* launch_any(const FilteredLrelu& args, void* stream) {
    constexpr int R = sizeof(T) == 2 ? 2 : 3;
    const char* error = nullptr;
    if constexpr (!std::is_same_v<T, double>) {
        if (launch_strips<T, Strip<2, 6, 2, 12, 1, 1, false>>(args, stream, error)) return error;
        if (launch_strips<T, Strip<4, 7, 2, 12, 1, 1, false>>(args, stream, error)) return error;
        if (launch_strips<T, Strip<2, 6, 2, 12, 1, 1, true>>(args, stream, error)) return error;
        if (launch_strips<T, Strip<2, 7, 4, 24, 1, 1, true>>(args, stream, error)) return error;
        if (launch_radial<T, R>(args, stream, error) || launch_radial<T, R + 1>(args, stream, error)) return error;
    }
    return launch_general<T>(args, stream);
}

}  // namespace

const char* filtered_lrelu(const FilteredLrelu& args, void* stream) {
    if (args.n * args.c * args.out_h * args.out_w == 0) return nullptr;
    return with_dtype(args.dtype, [&](auto number) { return launch_any<decltype(number)>(args, stream); });
}

}  // namespace sgan
