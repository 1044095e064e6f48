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

// Position of a vector in memory, which is rows of channels or, for planes, of pixels: its number in a row, the row, and
// the sample. All numbers of a launch have indices below 2^31.
struct Place {
    unsigned within, across, n;
};

struct Rows {
    Divider length, count;  // of a sample
    unsigned numbers;       // in all
    bool vectors;           // 16 bytes can be read and written at once

    __device__ Place place(unsigned first) const {
        const unsigned row = length.quotient(first), n = count.quotient(row);
        return {first - row * length.divisor, row - n * count.divisor, n};
    }
};

// v[j] = from[at + j] if the operand varies along the vector, otherwise from[at].
template <int V, class A>
__device__ __forceinline__ void load_small(A (&v)[V], const A* from, bool along) {
    constexpr int W = V < kVector<A> ? V : kVector<A>;
    if (along) {
#pragma unroll
        for (int j = 0; j < V; j += W) {
            Vec<A, W> part = load<A, W>(from + j);
#pragma unroll
            for (int k = 0; k < W; k++) v[j + k] = part.at[k];
        }
    } else {
        A one = *from;
#pragma unroll
        for (int j = 0; j < V; j++) v[j] = one;
    }
}

// v[j] = from[index(place of number j)] for a vector that can extend over several rows.
template <int V, class A, class F>
__device__ __forceinline__ void load_places(A (&v)[V], const A* from, Place at, const Rows& rows, unsigned samples,
                                            F&& index) {
#pragma unroll
    for (int j = 0; j < V; j++) {
        v[j] = from[index(at)];
        if (++at.within < rows.length.divisor) continue;
        at.within = 0;
        if (++at.across < rows.count.divisor) continue;
        at.across = 0;
        at.n += at.n + 1 < samples;  // beyond the last number nothing is stored
    }
}

// p = scale x + noise + b for the vector x, which starts at number `first`. WHOLE: rows consist of whole vectors.
template <bool WHOLE, class T, int V, class A>
__device__ __forceinline__ void preactivation(A (&p)[V], const Vec<T, V>& x, const BiasAct& args, const Rows& rows,
                                              unsigned first) {
#pragma unroll
    for (int j = 0; j < V; j++) p[j] = to_acc(x.at[j]);
    if (!args.scale && !args.noise && !args.b) return;

    const bool last = args.channels_last;
    const Place start = rows.place(first);
    const unsigned channels = static_cast<unsigned>(args.c), stride = static_cast<unsigned>(args.noise_stride);
    const auto channel = [=](const Place& at) { return last ? at.within : at.across; };
    const auto of_scale = [=](const Place& at) { return at.n * channels + channel(at); };
    const auto of_noise = [=](const Place& at) { return at.n * stride + (last ? at.across : at.within); };
    A v[V];
    const auto load_operand = [&](const void* operand, bool along, auto&& index) {
        const A* from = static_cast<const A*>(operand);
        if constexpr (WHOLE) load_small(v, from + index(start), along);
        else load_places(v, from, start, rows, static_cast<unsigned>(args.n), index);
    };
    if (args.scale) {
        load_operand(args.scale, last, of_scale);
#pragma unroll
        for (int j = 0; j < V; j++) p[j] *= v[j];
    }
    if (args.noise) {
        load_operand(args.noise, !last, of_noise);
        const A strength = args.strength ? *static_cast<const A*>(args.strength) : A(1);
#pragma unroll
        for (int j = 0; j < V; j++) p[j] += v[j] * strength;
    }
    if (args.b) {
        load_operand(args.b, last, channel);
#pragma unroll
        for (int j = 0; j < V; j++) p[j] += v[j];
    }
}

// ORDER 0 computes y, 1 computes dp, 2 computes dp'. Each thread processes one vector.
template <class T, bool WHOLE, int ORDER, class Act>
__global__ void __launch_bounds__(256, 4) bias_act_kernel(BiasAct args, Act act, Rows rows) {
    using A = acc_t<T>;
    constexpr int V = kVector<T>;
    const unsigned first = (blockIdx.x * blockDim.x + threadIdx.x) * V;
    if (first >= rows.numbers) return;
    const unsigned count = WHOLE ? V : rows.numbers - first;
    const bool vector = WHOLE || (rows.vectors && count >= V);
    const auto read = [&](const void* from) { return load_some<T, V>(from, first, vector, count); };
    const A gain = static_cast<A>(args.gain), clamp = static_cast<A>(args.clamp);
    Vec<T, V> out;
    A p[V];
    if (ORDER == 0) {
        preactivation<WHOLE>(p, read(args.x), args, rows, first);
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
        Vec<T, V> dy = read(args.dy), ddp;
        if (ORDER == 2) ddp = read(args.ddp);
        const Vec<T, V> in = read(from_y ? args.y : args.x);
        if (from_y) {
#pragma unroll
            for (int j = 0; j < V; j++) p[j] = to_acc(in.at[j]);
        } else {
            preactivation<WHOLE>(p, in, args, rows, first);
        }
#pragma unroll
        for (int j = 0; j < V; j++) {
            const A size = fabs(from_y ? p[j] : act.value(p[j]) * gain);
            A slope = (ORDER == 1 ? act.first(p[j]) : act.second(p[j])) * gain * to_acc(dy.at[j]);
            if (ORDER == 2) slope *= to_acc(ddp.at[j]);
            out.at[j] = from_acc<T>(size >= bound && bound < A(INFINITY) ? A(0) : slope);
        }
    }
    store_some(static_cast<T*>(args.out) + first, out, vector, count);
}

template <class T, bool WHOLE, class Act>
const char* launch_order(const BiasAct& args, Act act, const Rows& rows, void* stream) {
    const dim3 grid(ceil_div(rows.numbers, 256u * kVector<T>)), block(256);
    switch (args.order) {
        case 0: return launch(bias_act_kernel<T, WHOLE, 0, Act>, grid, block, 0, stream, args, act, rows);
        case 1: return launch(bias_act_kernel<T, WHOLE, 1, Act>, grid, block, 0, stream, args, act, rows);
        case 2:
            if constexpr (std::is_same_v<Act, Smooth>)
                return launch(bias_act_kernel<T, WHOLE, 2, Act>, grid, block, 0, stream, args, act, rows);
            return "linear, relu and lrelu have no second derivative";
        default: return "order must be 0, 1 or 2";
    }
}

// Rows of whole vectors share one position, and read the operands in vectors too.
template <class T, class Act>
const char* launch_rows(const BiasAct& args, Act act, void* stream) {
    const int64_t length = args.channels_last ? args.c : args.p, count = args.channels_last ? args.p : args.c;
    const auto all_aligned = [](std::initializer_list<const void*> pointers) {
        for (const void* pointer : pointers)
            if (!aligned_16(pointer)) return false;
        return true;
    };
    const bool vectors = all_aligned({args.x, args.y, args.dy, args.ddp, args.out});
    const Rows rows{Divider(length), Divider(count), static_cast<unsigned>(args.n * args.c * args.p), vectors};
    const bool bare = !args.scale && !args.noise && !args.b;
    const bool whole = vectors && (bare ? rows.numbers : length) % kVector<T> == 0 &&
                       all_aligned({args.scale, args.noise, args.b});
    return whole ? launch_order<T, true>(args, act, rows, stream) : launch_order<T, false>(args, act, rows, stream);
}

// Samples from `first` on.
template <class T>
BiasAct slice(BiasAct args, int64_t first, int64_t count) {
    const auto advance = [](auto& pointer, int64_t bytes) {
        if (pointer) pointer = static_cast<char*>(const_cast<void*>(pointer)) + bytes;
    };
    const int64_t bytes = first * args.c * args.p * sizeof(T), size = sizeof(acc_t<T>);
    advance(args.x, bytes), advance(args.y, bytes), advance(args.dy, bytes), advance(args.ddp, bytes);
    advance(args.out, bytes);
    advance(args.scale, first * args.c * size), advance(args.noise, first * args.noise_stride * size);
    args.n = args.n - first < count ? args.n - first : count;
    return args;
}

#ifndef SGAN_MOST_NUMBERS
#define SGAN_MOST_NUMBERS 0x7fffffff
#endif
constexpr int64_t kMostNumbers = SGAN_MOST_NUMBERS;  // of a launch

}  // namespace

const char* bias_act(const BiasAct& args, void* stream) {
    if (args.n * args.c * args.p == 0) return nullptr;
    const int64_t samples = kMostNumbers / (args.c * args.p);
    if (samples == 0) return "a sample has more than 2^31 numbers";
    return with_dtype(args.dtype, [&](auto number) -> const char* {
        using T = decltype(number);
        for (int64_t first = 0; first < args.n; first += samples) {
            const BiasAct part = slice<T>(args, first, samples);
            const char* error = nullptr;
            switch (args.act) {
                case Activation::linear: error = launch_rows<T>(part, Rays{1}, stream); break;
                case Activation::relu: error = launch_rows<T>(part, Rays{0}, stream); break;
                case Activation::lrelu: error = launch_rows<T>(part, Rays{args.alpha}, stream); break;
                default: error = launch_rows<T>(part, Smooth{args.act}, stream);
            }
            if (error) return error;
        }
        return nullptr;
    });
}

}  // namespace sgan
