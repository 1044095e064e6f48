// The end of a layer of a frozen network, in one pass over its convolution's result: what the epilogue does, the
// modulation of the next layer, and the image of the level. See kernels.h.
//
// A group of lanes has the channels of a pixel, 16 bytes of them each, and works on a few pixels at a time, so that
// what belongs to channels is read once for all of them.

#include "image.cuh"

namespace sgan {
namespace {

constexpr int THREADS = 256, PIXELS = 3;  // of a group at a time

// T: of x, U: of y. V numbers are read at once.
template <class T, class U, int V>
__global__ void __launch_bounds__(THREADS, 2) layer_end_kernel(LayerEnd args, int lanes, unsigned chunks) {
    const int lane = threadIdx.x % lanes, channels = static_cast<int>(args.c);
    const int64_t n = blockIdx.x / chunks, pixels = args.height * args.width;
    const int64_t group = static_cast<int64_t>(blockIdx.x % chunks) * (THREADS / lanes) + threadIdx.x / lanes;
    const int64_t first = group * PIXELS;
    const float above = static_cast<float>(args.gain), below = above * static_cast<float>(args.slope);
    const float bound = static_cast<float>(args.clamp);
    float noise[PIXELS], sums[PIXELS][kImageChannels] = {};
#pragma unroll
    for (int p = 0; p < PIXELS; p++) {
        const bool has_noise = args.noise && first + p < pixels;
        noise[p] = has_noise ? static_cast<const float*>(args.noise)[n * args.noise_stride + first + p] : 0.f;
    }
    for (int c = lane * V; c < channels; c += lanes * V) {
        float scale[V], b[V], next[V], rgb[kImageChannels][V];
        Vec<T, V> x[PIXELS];
        const T* from = static_cast<const T*>(args.x) + (n * pixels + first) * channels + c;
#pragma unroll
        for (int p = 0; p < PIXELS; p++)
            if (first + p < pixels) x[p] = load<T, V>(from + p * channels);
        load_floats(scale, args.scale, n * channels + c);
        load_floats(b, args.b, c);
        if (args.next) load_floats(next, args.next, n * channels + c);
        if (args.image) load_rgb(rgb, args, n, c, channels);
#pragma unroll
        for (int p = 0; p < PIXELS; p++) {
            if (first + p >= pixels) break;
            float y[V];
#pragma unroll
            for (int j = 0; j < V; j++) {
                const float q = scale[j] * to_acc(x[p].at[j]) + noise[p] + b[j];
                y[j] = q * (q > 0 ? above : below);
                y[j] = y[j] > bound ? bound : y[j] < -bound ? -bound : y[j];  // written so that NaN stays NaN
            }
            if (args.image) add_to_image(sums[p], rgb, y);
            if (!args.y) continue;
            Vec<U, V> out;
#pragma unroll
            for (int j = 0; j < V; j++) out.at[j] = from_acc<U>(args.next ? y[j] * next[j] : y[j]);
            store<U, V>(static_cast<U*>(args.y) + (n * pixels + first + p) * channels + c, out);
        }
    }
    if (!args.image) return;
#pragma unroll
    for (int i = 0; i < PIXELS * kImageChannels; i++)
        sums[i / kImageChannels][i % kImageChannels] = sum_lanes(sums[i / kImageChannels][i % kImageChannels], lanes);
    for (int item = lane; item < PIXELS * kImageChannels; item += lanes) {  // neighbors in memory
        float sum = 0;
#pragma unroll
        for (int i = 0; i < PIXELS * kImageChannels; i++)
            if (i == item) sum = sums[i / kImageChannels][i % kImageChannels];
        const int pixel = static_cast<int>(first) + item / kImageChannels, k = item % kImageChannels;
        const int width = static_cast<int>(args.width);
        if (pixel < pixels && k < args.image_c)
            ImageChannel(args, n, k).write(pixel / width, pixel % width, sum);
    }
}

template <class T, class U, int V>
const char* launch_vector(const LayerEnd& args, void* stream) {
    int lanes = 1;
    while (lanes < 32 && lanes * V < args.c) lanes *= 2;
    const int64_t chunks = ceil_div<int64_t>(args.height * args.width, THREADS / lanes * PIXELS);
    if (args.n * chunks > kMaxGrid) return "the batch is too large";
    const dim3 grid(static_cast<unsigned>(args.n * chunks));
    return launch(layer_end_kernel<T, U, V>, grid, dim3(THREADS), 0, stream, args, lanes,
                  static_cast<unsigned>(chunks));
}

template <class T, class U>
const char* launch_types(const LayerEnd& args, void* stream) {
    bool vectors = args.c % kVector<T> == 0;
    for (const void* pointer : {args.x, args.scale, args.b, args.next, args.rgb, static_cast<const void*>(args.y)})
        vectors = vectors && aligned_16(pointer);
    return vectors ? launch_vector<T, U, kVector<T>>(args, stream) : launch_vector<T, U, 1>(args, stream);
}

}  // namespace

const char* layer_end(const LayerEnd& args, void* stream) {
    if (args.n * args.c * args.height * args.width == 0) return nullptr;
    if (args.height * args.width * args.c > std::numeric_limits<int32_t>::max()) return "the image is too large";
    if (const char* error = check_image(args)) return error;
    const auto types = [&](Dtype in, Dtype out) { return args.dtype == in && args.out_dtype == out; };
    if (types(Dtype::float32, Dtype::float32)) return launch_types<float, float>(args, stream);
    if (types(Dtype::float32, Dtype::float16)) return launch_types<float, __half>(args, stream);
    if (types(Dtype::float32, Dtype::bfloat16)) return launch_types<float, __nv_bfloat16>(args, stream);
    if (types(Dtype::float16, Dtype::float16)) return launch_types<__half, __half>(args, stream);
    if (types(Dtype::bfloat16, Dtype::bfloat16)) return launch_types<__nv_bfloat16, __nv_bfloat16>(args, stream);
    return "x has another type than y, or float64";
}

}  // namespace sgan
