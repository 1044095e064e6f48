// What a modulated convolution does to its weights and styles, see stylegan_cli/ops/modulation.py:
//   w' = f_o w,   q_oi = sum_k w'^2,   s' = f_n s,   d_no = 1 / sqrt(sum_i q_oi s'^2 + eps)
// and the gradients of both. Small tensors: what counts is the number of launches.

#include <math.h>

#include "common.cuh"

namespace sgan {
namespace {

constexpr int THREADS = 256, WARPS = THREADS / 32;
constexpr double EPS = 1e-8;

template <class A>
__device__ __forceinline__ A sum_warp(A value) {
#pragma unroll
    for (int bits = 16; bits; bits /= 2) value += __shfl_xor_sync(~0u, value, bits);
    return value;
}

// 1 / (scale times the largest absolute value of `count` numbers), for all threads of the block.
template <class A>
__device__ __forceinline__ A normalizer(const A* from, int64_t count, A scale) {
    A* shared = shared_memory<A>();  // [THREADS]
    A found = EPS;
    for (int64_t i = threadIdx.x; i < count; i += THREADS) {
        const A size = fabs(from[i]);
        if (size > found || size != size) found = size;  // NaN stays
    }
    shared[threadIdx.x] = found;
    __syncthreads();
    for (int half = THREADS / 2; half; half /= 2) {
        if (threadIdx.x < half) {
            const A other = shared[threadIdx.x + half];
            if (other > shared[threadIdx.x] || other != other) shared[threadIdx.x] = other;
        }
        __syncthreads();
    }
    if (threadIdx.x == 0) shared[0] = 1 / (scale * shared[0]);
    __syncthreads();
    return shared[0];
}

// One block for each output channel.
template <class T>
__global__ void __launch_bounds__(THREADS, 4) weights_kernel(ModulationWeights args) {
    using A = acc_t<T>;
    const int64_t o = blockIdx.x, taps = args.taps, size = args.i * taps;
    const A* w = static_cast<const A*>(args.w) + o * size;
    const A f = args.normalize ? normalizer(w, size, static_cast<A>(args.gain)) : static_cast<A>(args.gain);
    T* out = static_cast<T*>(args.out) + o * size;
    for (int64_t i = threadIdx.x; i < args.i; i += THREADS) {
        A sum = 0;
        for (int64_t k = 0; k < taps; k++) {
            const int64_t at = args.channels_last ? k * args.i + i : i * taps + k;
            const A v = w[at] * f;
            sum += v * v;
            out[at] = from_acc<T>(v);
        }
        static_cast<A*>(args.q)[o * args.i + i] = sum;
    }
    if (threadIdx.x == 0) static_cast<A*>(args.factor)[o] = f;
}

// dw = f_o (gw + 2 w' gq)
template <class T>
__global__ void __launch_bounds__(THREADS) weights_grad_kernel(ModulationWeightsGrad args) {
    using A = acc_t<T>;
    const int64_t o = blockIdx.x, taps = args.taps, size = args.i * taps;
    const A f = static_cast<const A*>(args.factor)[o];
    const A* w = static_cast<const A*>(args.w) + o * size;
    for (int64_t at = threadIdx.x; at < size; at += THREADS) {
        const int64_t i = args.channels_last ? at % args.i : at / taps;
        A g = args.gw ? to_acc(static_cast<const T*>(args.gw)[o * size + at]) : A(0);
        if (args.gq) g += 2 * f * w[at] * static_cast<const A*>(args.gq)[o * args.i + i];
        static_cast<A*>(args.dw)[o * size + at] = f * g;
    }
}

// A block for each sample and WARPS output channels; each warp sums over the input channels.
template <class A>
__global__ void __launch_bounds__(THREADS) styles_kernel(ModulationStyles args) {
    const int64_t n = blockIdx.x, o = static_cast<int64_t>(blockIdx.y) * WARPS + threadIdx.x / 32;
    const A* style = static_cast<const A*>(args.style) + n * args.i;
    const A f = args.normalize ? normalizer(style, args.i, A(1)) : A(1);
    if (blockIdx.y == 0) {
        for (int64_t i = threadIdx.x; i < args.i; i += THREADS) static_cast<A*>(args.out)[n * args.i + i] = style[i] * f;
        if (threadIdx.x == 0) static_cast<A*>(args.factor)[n] = f;
    }
    if (o >= args.o) return;
    const A* q = static_cast<const A*>(args.q) + o * args.i;
    A sum = 0;
    for (int64_t i = threadIdx.x % 32; i < args.i; i += 32) {
        const A s = style[i] * f;
        sum += s * s * q[i];
    }
    sum = sum_warp(sum);
    if (threadIdx.x % 32 == 0) static_cast<A*>(args.d)[n * args.o + o] = 1 / sqrt(sum + A(EPS));
}

// The same for several layers: blocks y are their tiles of WARPS output channels. A toRGB has weights instead of sums.
__global__ void __launch_bounds__(THREADS) frozen_styles_kernel(FrozenStyles args) {
    int layer = 0;
    int64_t tile = blockIdx.y;
    for (; tile >= ceil_div<int64_t>(args.o[layer], WARPS); layer++) tile -= ceil_div<int64_t>(args.o[layer], WARPS);
    const int64_t n = blockIdx.x, o = tile * WARPS + threadIdx.x / 32, inputs = args.i[layer], outputs = args.o[layer];
    const float* style = static_cast<const float*>(args.style) + (layer * args.n + n) * args.pitch;
    const float* weight = static_cast<const float*>(args.weight) + args.weight_start[layer] + o * inputs;
    float* out = static_cast<float*>(args.out) + args.out_start[layer];
    if (args.torgb[layer]) {
        for (int64_t i = threadIdx.x % 32; o < outputs && i < inputs; i += 32)
            out[(n * outputs + o) * inputs + i] = weight[i] * style[i];
        return;
    }
    const float f = args.normalize ? normalizer(style, inputs, 1.f) : 1.f;
    for (int64_t i = threadIdx.x; tile == 0 && i < inputs; i += THREADS) out[n * inputs + i] = style[i] * f;
    if (o >= outputs) return;
    float sum = 0;
    for (int64_t i = threadIdx.x % 32; i < inputs; i += 32) {
        const float s = style[i] * f;
        sum += s * s * weight[i];
    }
    sum = sum_warp(sum);
    float* d = static_cast<float*>(args.d) + args.d_start[layer];
    if (threadIdx.x % 32 == 0) d[n * outputs + o] = 1 / sqrt(sum + static_cast<float>(EPS));
}

// e = -gd d^3 / 2
template <class A, class Args>
__device__ __forceinline__ A e_of(const Args& args, int64_t at) {
    const A d = static_cast<const A*>(args.d)[at];
    return A(-0.5) * static_cast<const A*>(args.gd)[at] * d * d * d;
}

// sum_o e_no q_oi of 32 i, in every warp.
template <class A, class Args>
__device__ __forceinline__ A sum_outputs(const Args& args, int64_t n, int64_t i) {
    A* shared = shared_memory<A>();  // [WARPS, 32]
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    A sum = 0;
    for (int64_t o = warp; o < args.o && i < args.i; o += WARPS)
        sum += e_of<A>(args, n * args.o + o) * static_cast<const A*>(args.q)[o * args.i + i];
    shared[threadIdx.x] = sum;
    __syncthreads();
    sum = 0;
    for (int r = 0; r < WARPS; r++) sum += shared[r * 32 + lane];
    return sum;
}

// ds = f_n (gs + 2 s' sum_o e_no q_oi),   gq_oi = sum_n e_no s'_ni^2
// Blocks y < n compute 32 ds of a sample, the others 32 gq of WARPS output channels.
template <class A>
__global__ void __launch_bounds__(THREADS) styles_grad_kernel(ModulationStylesGrad args) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int64_t i = static_cast<int64_t>(blockIdx.x) * 32 + lane, n = blockIdx.y;
    const A* style = static_cast<const A*>(args.style);
    if (n >= args.n) {
        const int64_t o = (n - args.n) * WARPS + warp;
        if (o >= args.o || i >= args.i) return;
        A sum = 0;
        for (int64_t m = 0; m < args.n; m++) {
            const A s = style[m * args.i + i];
            sum += e_of<A>(args, m * args.o + o) * s * s;
        }
        static_cast<A*>(args.gq)[o * args.i + i] = sum;
        return;
    }
    const A sum = sum_outputs<A>(args, n, i);
    if (warp > 0 || i >= args.i) return;
    const int64_t at = n * args.i + i;
    const A g = args.gs ? static_cast<const A*>(args.gs)[at] : A(0);
    static_cast<A*>(args.ds)[at] = static_cast<const A*>(args.factor)[n] * (g + 2 * style[at] * sum);
}

// The derivatives of ds in the direction u: with v = f_n u and t_no = 2 sum_i s' v q
//   cgs = v,   cgd = -t d^3 / 2,   cd = -3 t gd d^2 / 2,   cs = 2 v sum_o e q,   cq = 2 sum_n e s' v
// Three kinds of blocks: WARPS t of a sample; 32 cs of a sample; 32 cq of WARPS output channels.
template <class A>
__global__ void __launch_bounds__(THREADS) styles_second_kernel(ModulationStylesSecond args) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int64_t o_tiles = ceil_div<int64_t>(args.o, WARPS), i_tiles = ceil_div<int64_t>(args.i, 32);
    const A *style = static_cast<const A*>(args.style), *u = static_cast<const A*>(args.u);
    const A *q = static_cast<const A*>(args.q), *factor = static_cast<const A*>(args.factor);
    int64_t block = blockIdx.x;
    if (block < args.n * o_tiles) {
        const int64_t n = block / o_tiles, o = block % o_tiles * WARPS + warp;
        if (o >= args.o) return;
        A sum = 0;
        for (int64_t i = lane; i < args.i; i += 32) sum += style[n * args.i + i] * u[n * args.i + i] * q[o * args.i + i];
        const A t = 2 * factor[n] * sum_warp(sum);
        if (lane) return;
        const int64_t at = n * args.o + o;
        const A d = static_cast<const A*>(args.d)[at], td2 = t * d * d;
        static_cast<A*>(args.cgd)[at] = A(-0.5) * td2 * d;
        static_cast<A*>(args.cd)[at] = A(-1.5) * td2 * static_cast<const A*>(args.gd)[at];
        return;
    }
    block -= args.n * o_tiles;
    if (block < args.n * i_tiles) {
        const int64_t n = block / i_tiles, i = block % i_tiles * 32 + lane, at = n * args.i + i;
        const A sum = sum_outputs<A>(args, n, i);
        if (warp > 0 || i >= args.i) return;
        const A v = factor[n] * u[at];
        static_cast<A*>(args.cs)[at] = 2 * v * sum;
        static_cast<A*>(args.cgs)[at] = v;
        return;
    }
    block -= args.n * i_tiles;
    const int64_t o = block / i_tiles * WARPS + warp, i = block % i_tiles * 32 + lane;
    if (o >= args.o || i >= args.i) return;
    A sum = 0;
    for (int64_t n = 0; n < args.n; n++) {
        const int64_t at = n * args.i + i;
        sum += e_of<A>(args, n * args.o + o) * style[at] * u[at] * factor[n];
    }
    static_cast<A*>(args.cq)[o * args.i + i] = 2 * sum;
}

constexpr int64_t kMaxRows = 65535;  // of a grid

}  // namespace

const char* modulation_weights(const ModulationWeights& given, void* stream) {
    if (given.o * given.i == 0) return nullptr;
    ModulationWeights args = given;
    if (args.normalize) args.gain = sqrt(static_cast<double>(args.i * args.taps));
    return with_dtype(args.dtype, [&](auto number) -> const char* {
        using T = decltype(number);
        return launch(weights_kernel<T>, dim3(static_cast<unsigned>(args.o)), dim3(THREADS),
                      sizeof(acc_t<T>) * THREADS, stream, args);
    });
}

const char* modulation_weights_grad(const ModulationWeightsGrad& args, void* stream) {
    if (args.o * args.i == 0) return nullptr;
    return with_dtype(args.dtype, [&](auto number) -> const char* {
        using T = decltype(number);
        return launch(weights_grad_kernel<T>, dim3(static_cast<unsigned>(args.o)), dim3(THREADS), 0, stream, args);
    });
}

const char* modulation_styles(const ModulationStyles& args, void* stream) {
    if (args.n * args.i * args.o == 0) return nullptr;
    const int64_t tiles = ceil_div<int64_t>(args.o, WARPS);
    if (tiles > kMaxRows) return "there are too many channels";
    const dim3 grid(static_cast<unsigned>(args.n), static_cast<unsigned>(tiles));
    if (args.dtype == Dtype::float64)
        return launch(styles_kernel<double>, grid, dim3(THREADS), sizeof(double) * THREADS, stream, args);
    return launch(styles_kernel<float>, grid, dim3(THREADS), sizeof(float) * THREADS, stream, args);
}

const char* frozen_styles(const FrozenStyles& args, void* stream) {
    if (args.layers < 1 || args.layers > kSegments) return "between 1 and 32 layers are prepared at once";
    int64_t tiles = 0;
    for (int64_t l = 0; l < args.layers; l++) tiles += ceil_div<int64_t>(args.o[l], WARPS);
    if (args.n * tiles == 0) return nullptr;
    if (tiles > kMaxRows) return "there are too many channels";
    const dim3 grid(static_cast<unsigned>(args.n), static_cast<unsigned>(tiles));
    return launch(frozen_styles_kernel, grid, dim3(THREADS), sizeof(float) * THREADS, stream, args);
}

const char* modulation_styles_grad(const ModulationStylesGrad& args, void* stream) {
    if (args.n * args.i * args.o == 0) return nullptr;
    const int64_t more = args.gq ? ceil_div<int64_t>(args.o, WARPS) : 0;
    if (args.n + more > kMaxRows) return "the batch is too large";
    const dim3 grid(static_cast<unsigned>(ceil_div<int64_t>(args.i, 32)), static_cast<unsigned>(args.n + more));
    if (args.dtype == Dtype::float64)
        return launch(styles_grad_kernel<double>, grid, dim3(THREADS), sizeof(double) * THREADS, stream, args);
    return launch(styles_grad_kernel<float>, grid, dim3(THREADS), sizeof(float) * THREADS, stream, args);
}

const char* modulation_styles_second(const ModulationStylesSecond& args, void* stream) {
    if (args.n * args.i * args.o == 0) return nullptr;
    const int64_t o_tiles = ceil_div<int64_t>(args.o, WARPS), i_tiles = ceil_div<int64_t>(args.i, 32);
    const dim3 grid(static_cast<unsigned>(args.n * (o_tiles + i_tiles) + o_tiles * i_tiles));
    if (args.dtype == Dtype::float64)
        return launch(styles_second_kernel<double>, grid, dim3(THREADS), sizeof(double) * THREADS, stream, args);
    return launch(styles_second_kernel<float>, grid, dim3(THREADS), sizeof(float) * THREADS, stream, args);
}

}  // namespace sgan
