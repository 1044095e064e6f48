// Upsample, pad, filter, downsample.
//
// The cases that StyleGAN uses (a separable filter of 4 or 12 taps, a factor of 1 or 2) walk down strips of the image
// (upfirdn2d_strips.cuh); everything else is computed one output at a time.

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
                A v = to_acc(x[y * args.x_stride[2] + at * args.x_stride[3]]);
                if (args.activates) {
                    const A gain = static_cast<A>(args.act_gain), bound = static_cast<A>(args.clamp);
                    v += args.b ? static_cast<const A*>(args.b)[c] : A(0);
                    v *= v > 0 ? gain : gain * static_cast<A>(args.slope);
                    v = v > bound ? bound : v < -bound ? -bound : v;
                }
                row += tap * v;
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
// Choice of the kernel

// Memory layout of the channels: rows along x; 16 bytes of channels at a time; few channels; anything else.
enum class Layout { planes, vectors, pixels, other };

template <class T>
Layout layout_of(const UpFirDn2d& args) {
    constexpr int V = kVector<T>;
    if (args.x_stride[1] != 1 || args.y_stride[1] != 1 || args.c == 1)
        return args.x_stride[3] == 1 && args.y_stride[3] == 1 ? Layout::planes : Layout::other;
    if (args.x_stride[3] != args.c || args.y_stride[3] != args.c) return Layout::other;
    if (args.n * args.x_stride[0] > kMaxGrid) return Layout::other;  // numbers have indices below 2^31
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
    const char* error = nullptr;
    if constexpr (!std::is_same_v<T, double>) {
        const Layout layout = layout_of<T>(args);
        if (args.activates) {
            const bool launched = layout == Layout::vectors &&
                                  launch_strips<ActivatedVectors<T, V, 1, 1, 4>>(args, stream, error);
            return launched ? error : launch_general<T>(args, stream);
        }
        if (layout == Layout::planes && launch_cases<Planes, T, V, 4>(args, stream, error)) return error;
        if (layout == Layout::vectors && launch_cases<Vectors, T, V, 4>(args, stream, error)) return error;
        if (layout == Layout::pixels && launch_cases<Pixels, T, 4, 2>(args, stream, error)) return error;
    }
    return launch_general<T>(args, stream);
}

}  // namespace

const char* upfirdn2d(const UpFirDn2d& args, void* stream) {
    if (args.n * args.c * args.out_h * args.out_w == 0) return nullptr;
    return with_dtype(args.dtype, [&](auto number) { return launch_any<decltype(number)>(args, stream); });
}

}  // namespace sgan
