// Scale, noise, bias, activation, gain and clamp in one pass over memory, and the first two derivatives.
//
// Memory-bound: every thread moves 16 bytes at a time, and recomputes what is cheaper to compute than to read.

#include <math.h>

#include "common.cuh"

namespace sgan {
namespace {

// One functor per activation: act(p), act'(p), act''(p). A is the acc type.

// linear, relu and lrelu: two rays that meet at zero.
struct Rays {
    double slope;  // below zero
    template <class A> __device__ A value(A p) const { return p > 0 ? p : p * static_cast<A>(slope); }
    template <class A> __device__ A first(A p) const { return p > 0 ? A(1) : static_cast<A>(slope); }
    template <class A> __device__ A second(A) const { return 0; }
};

struct Tanh {
    template <class A> __device__ A value(A p) const { return tanh(p); }
    template <class A> __device__ A first(A p) const { A t = tanh(p); return 1 - t * t; }
    template <class A> __device__ A second(A p) const { A t = tanh(p); return -2 * t * (1 - t * t); }
};

struct Sigmoid {
    template <class A> __device__ A value(A p) const { return 1 / (1 + exp(-p)); }
    template <class A> __device__ A first(A p) const { A s = value(p); return s * (1 - s); }
    template <class A> __device__ A second(A p) const { A s = value(p); return s * (1 - s) * (1 - 2 * s); }
};

struct Swish {
    template <class A> __device__ A value(A p) const { return p * Sigmoid().value(p); }
    template <class A> __device__ A first(A p) const {
        A s = Sigmoid().value(p);
        return s * (1 + p * (1 - s));
    }
    template <class A> __device__ A second(A p) const {
        A s = Sigmoid().value(p);
        return s * (1 - s) * (2 + p * (1 - 2 * s));
    }
};

// The smooth activations, rare in StyleGAN, share a kernel: all threads take the same branch.
struct Smooth {
    Activation act;
    template <class F> __device__ auto with(F&& visit) const {
        switch (act) {
            case Activation::tanh: return visit(Tanh());
            case Activation::sigmoid: return visit(Sigmoid());
            default: return visit(Swish());
        }
    }
    template <class A> __device__ A value(A p) const { return with([=](auto f) { return f.value(p); }); }
    template <class A> __device__ A first(A p) const { return with([=](auto f) { return f.first(p); }); }
    template <class A> __device__ A second(A p) const { return with([=](auto f) { return f.second(p); }); }
};

// v[j] = from[at + j] if the operand varies along the vector, otherwise from[at].
template <int V, class A>
__device__ __forceinline__ void load_small(A (&v)[V], const void* from, int64_t at, bool along) {
    const A* a = static_cast<const A*>(from) + at;
    constexpr int W = V < kVector<A> ? V : kVector<A>;
    if (along) {
#pragma unroll
        for (int j = 0; j < V; j += W) {
            Vec<A, W> part = load<A, W>(a + j);
#pragma unroll
            for (int k = 0; k < W; k++) v[j + k] = part.at[k];
        }
    } else {
        A one = *a;
#pragma unroll
        for (int j = 0; j < V; j++) v[j] = one;
    }
}

// p = scale x + noise + b for the vector that starts at element `first`. I: index type for vectors.
template <class T, int V, class I, class A>
__device__ __forceinline__ void preactivation(A (&p)[V], const BiasAct& args, int64_t first) {
    Vec<T, V> x = load<T, V>(static_cast<const T*>(args.x) + first);
#pragma unroll
    for (int j = 0; j < V; j++) p[j] = to_acc(x.at[j]);
    if (!args.scale && !args.noise && !args.b) return;

    // Its position: sample n, channel c, pixel i. Either c or i runs along the vector.
    const bool last = args.channels_last;
    const I inner = static_cast<I>((last ? args.c : args.p) / V);
    const I outer = static_cast<I>(last ? args.p : args.c);
    const I vector = static_cast<I>(first / V);
    const I row = vector / inner;
    const int64_t n = row / outer;
    const int64_t within = static_cast<int64_t>(vector - row * inner) * V, across = row % outer;
    const int64_t c = last ? within : across, i = last ? across : within;

    A v[V];
    if (args.scale) {
        load_small(v, args.scale, n * args.c + c, last);
#pragma unroll
        for (int j = 0; j < V; j++) p[j] *= v[j];
    }
    if (args.noise) {
        load_small(v, args.noise, n * args.noise_stride + i, !last);
        const A strength = args.strength ? *static_cast<const A*>(args.strength) : A(1);
#pragma unroll
        for (int j = 0; j < V; j++) p[j] += v[j] * strength;
    }
    if (args.b) {
        load_small(v, args.b, c, last);
#pragma unroll
        for (int j = 0; j < V; j++) p[j] += v[j];
    }
}

// ORDER 0 computes y, 1 computes dp, 2 computes dp'. Each thread processes one vector of V numbers at a time.
template <class T, int V, int ORDER, class I, class Act>
__global__ void __launch_bounds__(256) bias_act_kernel(BiasAct args, Act act, int64_t vectors) {
    using A = acc_t<T>;
    const A gain = static_cast<A>(args.gain), clamp = static_cast<A>(args.clamp);
    const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
    for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < vectors; i += step) {
        const int64_t first = i * V;
        Vec<T, V> out;
        A p[V];
        if (ORDER == 0) {
            preactivation<T, V, I>(p, args, first);
#pragma unroll
            for (int j = 0; j < V; j++) {
                A y = act.value(p[j]) * gain;
                y = y > clamp ? clamp : y < -clamp ? -clamp : y;  // written so that NaN stays NaN
                out.at[j] = from_acc<T>(y);
            }
        } else {
            // y has the sign of p and shows whether it was clamped: if y is available, x is not read.
            const bool from_y = args.y != nullptr;
            const A bound = from_y ? to_acc(from_acc<T>(clamp)) : clamp;  // rounded as in y
            Vec<T, V> y, dy = load<T, V>(static_cast<const T*>(args.dy) + first), ddp;
            if (from_y) y = load<T, V>(static_cast<const T*>(args.y) + first);
            else preactivation<T, V, I>(p, args, first);
            if (ORDER == 2) ddp = load<T, V>(static_cast<const T*>(args.ddp) + first);
#pragma unroll
            for (int j = 0; j < V; j++) {
                const A at = from_y ? to_acc(y.at[j]) : p[j];
                const A size = fabs(from_y ? at : act.value(at) * gain);
                A slope = (ORDER == 1 ? act.first(at) : act.second(at)) * gain * to_acc(dy.at[j]);
                if (ORDER == 2) slope *= to_acc(ddp.at[j]);
                out.at[j] = from_acc<T>(size >= bound && bound < A(INFINITY) ? A(0) : slope);
            }
        }
        store<T, V>(static_cast<T*>(args.out) + first, out);
    }
}

template <class T, int V, class I, class Act>
const char* launch_order(const BiasAct& args, Act act, void* stream) {
    const int64_t vectors = args.n * args.c * args.p / V;
    const int64_t blocks = ceil_div<int64_t>(vectors, 256);
    const dim3 grid(static_cast<unsigned>(blocks < kMaxGrid ? blocks : kMaxGrid));
    switch (args.order) {
        case 0: return launch(bias_act_kernel<T, V, 0, I, Act>, grid, dim3(256), 0, stream, args, act, vectors);
        case 1: return launch(bias_act_kernel<T, V, 1, I, Act>, grid, dim3(256), 0, stream, args, act, vectors);
        case 2:
            if constexpr (std::is_same_v<Act, Smooth>)
                return launch(bias_act_kernel<T, V, 2, I, Act>, grid, dim3(256), 0, stream, args, act, vectors);
            return "linear, relu and lrelu have no second derivative";
        default: return "order must be 0, 1 or 2";
    }
}

// 16 bytes at a time if rows are whole vectors and everything is aligned, otherwise one number at a time.
template <class T, class Act>
const char* launch_vector(const BiasAct& args, Act act, void* stream) {
    constexpr int V = kVector<T>;
    bool aligned = (args.channels_last ? args.c : args.p) % V == 0 && args.noise_stride % V == 0;
    for (const void* pointer : {args.x, args.scale, args.noise, args.b, args.y, args.dy, args.ddp,
                                static_cast<const void*>(args.out)})
        aligned = aligned && aligned_16(pointer);
    if (aligned && args.n * args.c * args.p / V <= std::numeric_limits<uint32_t>::max())
        return launch_order<T, V, uint32_t>(args, act, stream);
    return launch_order<T, 1, int64_t>(args, act, stream);
}

}  // namespace

const char* bias_act(const BiasAct& args, void* stream) {
    if (args.n * args.c * args.p == 0) return nullptr;
    return with_dtype(args.dtype, [&](auto number) -> const char* {
        using T = decltype(number);
        switch (args.act) {
            case Activation::linear: return launch_vector<T>(args, Rays{1}, stream);
            case Activation::relu: return launch_vector<T>(args, Rays{0}, stream);
            case Activation::lrelu: return launch_vector<T>(args, Rays{args.alpha}, stream);
            default: return launch_vector<T>(args, Smooth{args.act}, stream);
        }
    });
}

}  // namespace sgan
