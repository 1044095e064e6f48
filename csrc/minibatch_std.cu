// Minibatch standard deviation and its derivatives, see stylegan_cli/ops/minibatch_std.py. The images are those of the
// lowest level: what counts is the number of launches.

#include <math.h>

#include "common.cuh"

namespace sgan {
namespace {

constexpr int THREADS = 1024;
constexpr double EPS = 1e-8;

// Where the numbers of a sample are: channels or pixels are innermost. Images have fewer than 2^31 numbers.
struct Strides {
    unsigned sample, channel, pixel;
    __device__ Strides(const MinibatchStd& args, unsigned channels) {
        const unsigned pixels = static_cast<unsigned>(args.p);
        sample = channels * pixels, channel = args.channels_last ? 1 : pixels, pixel = args.channels_last ? channels : 1;
    }
};

// Mean and deviation of one number over a group, of which `x` is the first and `step` the distance. The mean is that of
// differences to the first, which are exact where all are close: there the second derivative amplifies rounding most.
template <class T>
struct Moments {
    using A = acc_t<T>;
    A first, mean = 0, deviation;
    __device__ Moments(const T* x, unsigned step, unsigned group) : first(to_acc(x[0])) {
#pragma unroll 4
        for (unsigned j = 1; j < group; j++) mean += to_acc(x[j * step]) - first;
        mean /= group;
        A variance = 0;
#pragma unroll 4
        for (unsigned j = 0; j < group; j++) {
            const A centered = center(x[j * step]);
            variance += centered * centered;
        }
        deviation = sqrt(variance / group + A(EPS));
    }
    __device__ A center(T x) const { return to_acc(x) - first - mean; }
};

// A block for each group and set.
template <class T, int ORDER>
__global__ void __launch_bounds__(THREADS, 1) minibatch_std_kernel(MinibatchStd args) {
    using A = acc_t<T>;
    const unsigned group = static_cast<unsigned>(args.group), groups = static_cast<unsigned>(args.n) / group;
    const unsigned c = static_cast<unsigned>(args.c), p = static_cast<unsigned>(args.p);
    const unsigned sets = static_cast<unsigned>(args.sets), set = blockIdx.x % sets, first = blockIdx.x / sets;
    const unsigned channels = c / sets, numbers = channels * p;
    const Strides in(args, c), wide(args, c + sets);
    const unsigned step = groups * in.sample, wide_step = groups * wide.sample;
    const unsigned map = first * wide.sample + (c + set) * wide.channel;
    const T *x = static_cast<const T*>(args.x), *dout = static_cast<const T*>(args.dout);
    const T* u = static_cast<const T*>(args.u);
    T *out = static_cast<T*>(args.out), *dx = static_cast<T*>(args.dx);

    A rate = 0;
    if (ORDER > 0) {
        for (unsigned i = threadIdx.x; i < group * p; i += THREADS)
            rate += to_acc(dout[map + i / p * wide_step + i % p * wide.pixel]);
        rate = sum_block(rate) / group / numbers;
    }
    A total = 0;
    for (unsigned i = threadIdx.x; i < numbers; i += THREADS) {
        const unsigned quotient = i / (args.channels_last ? channels : p);
        const unsigned rest = i - quotient * (args.channels_last ? channels : p);
        const unsigned channel = set * channels + (args.channels_last ? rest : quotient);
        const unsigned pixel = args.channels_last ? quotient : rest;
        const unsigned at = first * in.sample + channel * in.channel + pixel * in.pixel;
        const unsigned wide_at = first * wide.sample + channel * wide.channel + pixel * wide.pixel;
        const Moments<T> moments(x + at, step, group);
        A mean_u = 0, product = 0;  // sum u (x - m)
        for (unsigned j = 0; ORDER == 2 && j < group; j++) {
            const A direction = to_acc(u[at + j * step]);
            mean_u += direction;
            product += direction * moments.center(x[at + j * step]);
        }
        mean_u /= group, product /= group;
        const A inverse = 1 / moments.deviation;
        for (unsigned j = 0; j < group; j++) {
            const A centered = moments.center(x[at + j * step]);
            if (ORDER == 0) out[wide_at + j * wide_step] = x[at + j * step];
            if (ORDER == 1)
                dx[at + j * step] = from_acc<T>(to_acc(dout[wide_at + j * wide_step]) + rate * centered * inverse);
            if (ORDER == 2) {
                const T direction = u[at + j * step];
                const A curvature = product * inverse * centered * inverse;
                out[wide_at + j * wide_step] = direction;
                dx[at + j * step] = from_acc<T>(rate * inverse * (to_acc(direction) - mean_u - curvature));
            }
        }
        total += ORDER == 0 ? moments.deviation : product * inverse;
    }
    if (ORDER == 1) return;
    const T mean = from_acc<T>(sum_block(total) / numbers);
    for (unsigned i = threadIdx.x; i < group * p; i += THREADS) out[map + i / p * wide_step + i % p * wide.pixel] = mean;
}

}  // namespace

const char* minibatch_std(const MinibatchStd& args, void* stream) {
    if (args.order < 0 || args.order > 2) return "order must be 0, 1 or 2";
    if (args.group < 1 || args.sets < 1 || args.n % args.group || args.c % args.sets)
        return "the batch does not divide into groups, or the channels into sets";
    if (args.n * args.c * args.p == 0) return nullptr;
    if (args.n * (args.c + args.sets) * args.p > kMaxGrid) return "the batch is too large";
    const int64_t blocks = args.n / args.group * args.sets;
    return with_dtype(args.dtype, [&](auto number) -> const char* {
        using T = decltype(number);
        constexpr void (*kernels[])(MinibatchStd) = {minibatch_std_kernel<T, 0>, minibatch_std_kernel<T, 1>,
                                                     minibatch_std_kernel<T, 2>};
        return launch(kernels[args.order], dim3(static_cast<unsigned>(blocks)), dim3(THREADS),
                      sizeof(acc_t<T>) * THREADS, stream, args);
    });
}

}  // namespace sgan
