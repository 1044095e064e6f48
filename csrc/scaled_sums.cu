// The weights of all layers of a network, scaled and rounded to the type of its features, and their gradients, which
// arrive in one or two parts: one launch for all of them, where a launch for each takes longer than the numbers.

#include "common.cuh"

namespace sgan {
namespace {

constexpr int THREADS = 256, V = 4, PER_THREAD = 4;  // vectors of 16 or 8 bytes
constexpr int64_t PER_BLOCK = THREADS * V * PER_THREAD;

template <class T>
bool takes_vectors(const void* pointer) {
    return reinterpret_cast<uintptr_t>(pointer) % (sizeof(T) * V) == 0;
}

// Which tensors can be accessed in vectors: bit s says so of tensor s.
template <class From, class To>
uint32_t vectors_of(const ScaledSums& args) {
    uint32_t bits = 0;
    for (int64_t s = 0; s < args.count; s++) {
        const bool reads = takes_vectors<From>(args.a[s]) && takes_vectors<From>(args.b[s]);
        if (reads && takes_vectors<To>(args.out[s])) bits |= 1u << s;
    }
    return bits;
}

template <class From, class To>
__global__ void __launch_bounds__(THREADS) scaled_sums_kernel(ScaledSums args, uint32_t vectors) {
    using A = acc_t<From>;
    const unsigned s = blockIdx.y;
    const int64_t numel = args.numel[s];
    const A gain = static_cast<A>(args.gain[s]);
    const From *a = static_cast<const From*>(args.a[s]), *b = static_cast<const From*>(args.b[s]);
    To* out = static_cast<To*>(args.out[s]);
#pragma unroll
    for (int j = 0; j < PER_THREAD; j++) {
        const int64_t first = blockIdx.x * PER_BLOCK + (j * THREADS + threadIdx.x) * V;
        if (first >= numel) return;
        const bool whole = vectors >> s & 1 && first + V <= numel;
        const unsigned count = numel - first < V ? static_cast<unsigned>(numel - first) : V;
        const Vec<From, V> va = load_some<From, V>(a + first, 0, whole, count);
        Vec<From, V> vb{};
        if (b) vb = load_some<From, V>(b + first, 0, whole, count);
        Vec<To, V> sum;
#pragma unroll
        for (int i = 0; i < V; i++) sum.at[i] = from_acc<To>(gain * (to_acc(va.at[i]) + (b ? to_acc(vb.at[i]) : A(0))));
        store_some<To, V>(out + first, sum, whole, count);
    }
}

template <class From, class To>
const char* launch_types(const ScaledSums& args, int64_t most, void* stream) {
    const dim3 grid(static_cast<unsigned>(ceil_div<int64_t>(most, PER_BLOCK)), static_cast<unsigned>(args.count));
    return launch(scaled_sums_kernel<From, To>, grid, dim3(THREADS), 0, stream, args, vectors_of<From, To>(args));
}

}  // namespace

const char* scaled_sums(const ScaledSums& args, void* stream) {
    if (args.count < 1 || args.count > kSums) return "between 1 and 32 tensors are scaled at once";
    int64_t most = 0;
    for (int64_t s = 0; s < args.count; s++) most = args.numel[s] > most ? args.numel[s] : most;
    if (most == 0) return nullptr;
    if (most / PER_BLOCK >= kMaxGrid) return "a tensor is too large";
    return with_dtype(args.from, [&](auto from) -> const char* {
        return with_dtype(args.to, [&](auto to) -> const char* {
            using From = decltype(from);
            using To = decltype(to);
            if constexpr (std::is_same_v<From, acc_t<To>> || std::is_same_v<To, acc_t<From>>)
                return launch_types<From, To>(args, most, stream);
            return "one of the types must be the accumulation type of the other";
        });
    });
}

}  // namespace sgan
