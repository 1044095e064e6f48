// The launchers of csrc/ and their arguments. Plain C++, shared by the kernels, library.cpp and the tests.
//
// Pointers are to device memory. "acc" is the accumulation type: double for float64, otherwise float.
// Every launcher returns null, or an error message if nothing was launched.
#pragma once

#include <cstdint>

namespace sgan {

enum class Dtype : int32_t { float32, float16, bfloat16, float64 };

enum class Activation : int32_t { linear, relu, lrelu, tanh, sigmoid, swish };

// p = scale x + noise + b,   y = clamp(gain act(p))
//
// The forward pass reads x. The backward pass computes dp from dy and, for linear, relu and lrelu, from y, otherwise
// from x. The second backward pass computes dp' = ddp dy gain act''(p), for activations that are not piecewise linear.
struct BiasAct {
    const void* x;      // [n, c, p]
    const void* scale;  // [n, c] acc, or null: 1
    const void* noise;  // [n or 1, p] acc, or null
    const void* strength;  // [] acc, factor on the noise, or null: 1
    const void* b;      // [c] acc, or null
    const void* y;      // [n, c, p] output of the forward pass; backward only
    const void* dy;     // [n, c, p]; backward only
    const void* ddp;    // [n, c, p] direction in p; second backward pass only
    void* out;          // [n, c, p] y, dp or dp'
    int64_t n;
    int64_t c;
    int64_t p;             // pixels
    int64_t noise_stride;  // distance between the noise of two samples; 0: shared
    Dtype dtype;           // of x, y, dy, ddp, out
    Activation act;
    int32_t channels_last;  // memory layout is [n, p, c]
    int32_t order;          // 0 forward, 1 backward, 2 second backward
    double alpha;           // slope of lrelu
    double gain;
    double clamp;  // infinity: none
};
const char* bias_act(const BiasAct& args, void* stream);

// The derivatives of y = F(p) = clamp(gain act(p)), p = scale x + strength noise + b, act one of linear, relu, lrelu.
//
// Order 1, with dp = dy F'(p):   dx = scale dp,   dscale = sum dp x,   db = sum dp,   dstrength = sum dp noise.
// Order 2, the derivatives of those in the direction (gx, gscale, gb, gstrength): with respect to dy
//   dx = F'(p) (scale gx + gscale x + gb + gstrength noise),   to x   cx = gscale dp,   to scale   dscale = sum gx dp.
// What is null is not computed, or is zero.
struct EpilogueGrad {
    const void* dy;         // [n, p, c]
    const void* y;          // [n, p, c], or null: act is linear, without clamp
    const void* x;          // [n, p, c], or null: dscale or gscale is null
    const void* scale;      // [n, c] acc, or null: 1
    const void* noise;      // [n or 1, p] acc, or null
    const void* b;          // [c] acc, or null. If given, y is not that of the forward pass, but its x
    const void* gx;         // [n, p, c], order 2
    const void* gscale;     // [n, c] acc, order 2
    const void* gb;         // [c] acc, order 2
    const void* gstrength;  // [] acc, order 2
    void* dx;               // [n, p, c]
    void* cx;               // [n, p, c], order 2
    void* dscale;           // [n, c] acc
    void* db;               // [c] acc, order 1
    void* dstrength;        // [] acc, order 1
    void* partial;          // epilogue_workspace(args) numbers of acc
    int64_t n;
    int64_t c;
    int64_t p;             // pixels
    int64_t noise_stride;  // distance between the noise of two samples; 0: shared
    Dtype dtype;           // of dy, y, x, gx, dx, cx
    int32_t order;
    double slope;  // of act below zero
    double gain;
    double clamp;  // infinity: none
};
int64_t epilogue_workspace(const EpilogueGrad& args);
const char* epilogue_grad(const EpilogueGrad& args, void* stream);

// Weights and styles of a modulated convolution:
//   w' = f w,   f = gain, or with normalize 1 / (sqrt(i taps) max |w[o]|);   q = sum over taps of w'^2
//   s' = f s,   f = 1, or with normalize 1 / max |s[n]|;   d = 1 / sqrt(sum_i q s'^2 + 1e-8)
struct ModulationWeights {
    const void* w;  // [o, i, taps] acc
    void* out;      // [o, i, taps] w'
    void* q;        // [o, i] acc
    void* factor;   // [o] acc, f
    int64_t o;
    int64_t i;
    int64_t taps;
    Dtype dtype;            // of out
    int32_t channels_last;  // memory layout is [o, taps, i]
    int32_t normalize;
    double gain;
};
const char* modulation_weights(const ModulationWeights& args, void* stream);

struct ModulationWeightsGrad {
    const void* gw;      // [o, i, taps] gradient of w', or null
    const void* gq;      // [o, i] acc, gradient of q, or null
    const void* w;       // [o, i, taps] acc
    const void* factor;  // [o] acc
    void* dw;            // [o, i, taps] acc
    int64_t o;
    int64_t i;
    int64_t taps;
    Dtype dtype;  // of gw
    int32_t channels_last;
};
const char* modulation_weights_grad(const ModulationWeightsGrad& args, void* stream);

struct ModulationStyles {
    const void* style;  // [n, i]
    const void* q;      // [o, i]
    void* out;          // [n, i] s'
    void* d;            // [n, o]
    void* factor;       // [n] f
    int64_t n;
    int64_t i;
    int64_t o;
    Dtype dtype;  // of all: float32 or float64
    int32_t normalize;
};
const char* modulation_styles(const ModulationStyles& args, void* stream);

struct ModulationStylesGrad {
    const void* gs;     // [n, i] gradient of s', or null
    const void* gd;     // [n, o] gradient of d
    const void* style;  // [n, i] s'
    const void* d;      // [n, o]
    const void* q;      // [o, i]
    const void* factor;  // [n]
    void* ds;            // [n, i]
    void* gq;            // [o, i], or null
    int64_t n;
    int64_t i;
    int64_t o;
    Dtype dtype;  // of all: float32 or float64
};
const char* modulation_styles_grad(const ModulationStylesGrad& args, void* stream);

// The derivatives of ds in the direction u with respect to gs, gd, d, style and q.
struct ModulationStylesSecond {
    const void* u;       // [n, i]
    const void* gd;      // [n, o]
    const void* style;   // [n, i] s'
    const void* d;       // [n, o]
    const void* q;       // [o, i]
    const void* factor;  // [n]
    void* cgs;           // [n, i]
    void* cgd;           // [n, o]
    void* cd;            // [n, o]
    void* cs;            // [n, i]
    void* cq;            // [o, i]
    int64_t n;
    int64_t i;
    int64_t o;
    Dtype dtype;  // of all: float32 or float64
};
const char* modulation_styles_second(const ModulationStylesSecond& args, void* stream);

// out = gain (a + b), for several tensors in one launch; a b that is null is zero
constexpr int kSums = 32;
struct ScaledSums {
    const void* a[32];  // of each tensor: numel numbers
    const void* b[32];  // the same, or null
    void* out[32];      // the same
    int64_t numel[32];
    double gain[32];
    int64_t count;  // tensors, at most kSums
    Dtype from;     // of a and b
    Dtype to;       // of out
};
const char* scaled_sums(const ScaledSums& args, void* stream);

// Minibatch standard deviation: image n is in group n mod (n / group), set f has c / sets channels, and with the mean m
// and the deviation s = sqrt(variance + 1e-8) of each pixel and channel over a group
//   order 0   out = x, and for each set a map of the mean of its s
//   order 1   dx, the gradient, given that of out: dx = dout + r (x - m) / s,   r = sum dout[map] / (group numbers)
//   order 2   the derivatives of dx in the direction u: out with respect to dout, dx with respect to x
struct MinibatchStd {
    const void* x;     // [n, c, p]
    const void* dout;  // [n, c + sets, p]; orders 1 and 2
    const void* u;     // [n, c, p]; order 2
    void* out;         // [n, c + sets, p]; orders 0 and 2
    void* dx;          // [n, c, p]; orders 1 and 2
    int64_t n;
    int64_t c;
    int64_t p;  // pixels
    int64_t sets;
    int64_t group;
    Dtype dtype;
    int32_t channels_last;  // memory layouts are [n, p, c] and [n, p, c + sets]
    int32_t order;
};
const char* minibatch_std(const MinibatchStd& args, void* stream);

// s' and d of several layers, as of ModulationStyles; and the weights of toRGBs, w s
struct FrozenStyles {
    const void* style;   // [layers, n, pitch] float32, as all; the first i[l] of a row
    const void* weight;  // of each layer: [o, i] q, or w of a toRGB
    void* out;           // of each layer: [n, i] s', or [n, o, i] w s of a toRGB
    void* d;             // of each layer but toRGBs: [n, o]
    int64_t n;
    int64_t layers;  // at most kSegments
    int64_t pitch;
    int32_t normalize;  // the styles of layers that have a d
    int64_t i[32];
    int64_t o[32];
    int64_t torgb[32];         // 0 or 1
    int64_t weight_start[32];  // where the layer starts in each of the operands
    int64_t out_start[32];
    int64_t d_start[32];
};
const char* frozen_styles(const FrozenStyles& args, void* stream);

// y = clamp(gain act(scale x + noise + b)), act one of linear, relu, lrelu;   out = next y
// image = clamp(rgb y + rgb_b) + up(below), up as of AddSkip
struct LayerEnd {
    const void* x;        // [n, height, width, c]
    const void* scale;    // [n, c] float32
    const void* noise;    // [n or 1, height, width] float32, or null
    const void* b;        // [c] float32
    const void* next;     // [n, c] float32, or null: 1
    const void* rgb;      // [n, image_c, c] float32, if there is an image
    const void* rgb_b;    // [image_c] float32
    const void* below;    // [n, height / 2, width / 2, image_c] float32, or null: no image below
    const void* below_f;  // [4] float32
    void* y;              // [n, height, width, c] out, or null: not needed
    void* image;          // [n, height, width, image_c] float32, or null
    int64_t n;
    int64_t c;
    int64_t height;
    int64_t width;
    int64_t noise_stride;  // distance between the noise of two samples; 0: shared
    Dtype dtype;           // of x
    Dtype out_dtype;       // of y: the same, or half precision for float32
    int32_t image_c;       // at most 3
    double slope;          // of act below zero
    double gain;
    double clamp;  // infinity: none
    double image_clamp;
};
const char* layer_end(const LayerEnd& args, void* stream);

// y = clamp(x + b) + up(below),   up(v)[i] = 2 sum_k g[k] u[i + k - 2] along each axis,   u = v with a zero after each
// sample, and zeros around; g is f reversed
struct AddSkip {
    const void* x;      // [n, c, h, w] dense
    const void* b;      // [c] acc, or null
    const void* below;  // [n, c, h / 2, w / 2] acc, dense, or null: no image below
    const void* f;      // [4] acc
    void* y;            // [n, c, h, w] acc, dense
    int64_t n;
    int64_t c;
    int64_t h;
    int64_t w;
    Dtype dtype;            // of x
    int32_t channels_last;  // memory layout of x, below and y is [n, h, w, c]
    double clamp;           // infinity: none
};
const char* add_skip(const AddSkip& args, void* stream);

// y[i] = gain sum_k g[k] u[down i + k - pad],   u = x with up - 1 zeros after each sample, and zeros around
// g is f reversed (a convolution) or, with flip, f itself (a correlation).
struct UpFirDn2d {
    const void* x;  // [n, c, h, w], any strides
    const void* f;  // [taps_y, taps_x] acc, or [taps_x] applied along both axes
    const void* b;  // [c] acc, or null; read if x is activated
    void* y;        // [n, c, out_h, out_w], any strides
    int64_t n;
    int64_t c;
    int64_t h;
    int64_t w;
    int64_t out_h;
    int64_t out_w;
    int64_t x_stride[4];
    int64_t y_stride[4];
    int64_t pad_x;  // zeros before the first column; negative crops
    int64_t pad_y;
    Dtype dtype;  // of x and y
    int32_t up;
    int32_t down;
    int32_t taps_x;
    int32_t taps_y;
    int32_t separable;  // f is [taps_x], and taps_y equals taps_x
    int32_t flip;       // f is not reversed
    int32_t activates;  // the filter reads clamp(act_gain act(x + b)) instead of x, with `slope` below zero
    double gain;
    double slope;
    double act_gain;
    double clamp;  // infinity: none
};
const char* upfirdn2d(const UpFirDn2d& args, void* stream);

// u = x + b with up - 1 zeros after each sample, and zeros around;   h[i] = gain sum_k gu[k] u[i + k - pad]
// y[i] = sum_k gd[k] q[down i + k],   q = clamp(lrelu(h)), or with codes: q = h, slope h or, if clamped, 0
//
// gu and gd are fu and fd reversed (a convolution) or, with flip, themselves. Codes have two bits for each sample of h,
// 1: negative and 2: clamped; those of samples 16 i to 16 i + 15 of a row are word i of a row, from the lowest bit.
struct FilteredLrelu {
    const void* x;      // [n, c, h, w], any strides
    const void* b;      // [c] acc, or null
    const void* fu;     // [up_taps_y, up_taps_x] acc, or [up_taps_x] applied along both axes
    const void* fd;     // [down_taps_y, down_taps_x] acc, or [down_taps_x]
    const void* pairs;  // [num_pairs, taps_y + taps_x] acc: separable filters whose sum approximates the one of fu and
                        // fd that is not separable, or null
    const void* codes;  // [n, c, code_h, code_w] 32 bits, any strides, or null: activate
    void* new_codes;    // the same, to be written, or null
    void* y;            // [n, c, out_h, out_w], any strides
    int64_t n;
    int64_t c;
    int64_t h;
    int64_t w;
    int64_t out_h;
    int64_t out_w;
    int64_t code_h;
    int64_t code_w;
    int64_t x_stride[4];
    int64_t y_stride[4];
    int64_t code_stride[4];
    int64_t offset_x;  // the code of h[i, j] is that of row i + offset_y, sample j + offset_x; 0 when written
    int64_t offset_y;
    int64_t pad_x;  // zeros before the first column; negative crops
    int64_t pad_y;
    Dtype dtype;  // of x and y
    int32_t up;
    int32_t down;
    int32_t up_taps_x;
    int32_t up_taps_y;
    int32_t down_taps_x;
    int32_t down_taps_y;
    int32_t num_pairs;
    int32_t separable_u;  // fu is [up_taps_x], and up_taps_y equals up_taps_x
    int32_t separable_d;
    int32_t flip;  // filters are not reversed
    double gain;
    double slope;
    double clamp;  // infinity: none
};
const char* filtered_lrelu(const FilteredLrelu& args, void* stream);

// y = clamp(gain act(d conv(style x, w) + noise + b)), act one of linear, relu, lrelu
//
// With up = 2, conv is a transposed convolution with stride 2, t[2 i + a] = sum w[a] x[i] along each axis, and the
// filter after it: conv[j] = 2 sum_k f[3 - k] t[j - 1 + k].
//
// With up = 1, k = 3 and whole vectors of at most 128 channels, it also computes an image, as LayerEnd does.
struct ModulatedConv2d {
    const void* x;      // [n, h, w, in_c] dense
    const void* w;      // [chunks, k k, rows, 32] packed: see pack_weights in ops/modulated_conv2d.py
    const void* style;  // [n, in_c] float32
    const void* d;      // [n, out_c] float32, or null: 1
    const void* noise;  // [n or 1, out_h, out_w] float32, or null
    const void* b;      // [out_c] float32, or null
    const void* f;      // [4] float32 if up is 2
    const void* rgb;      // [n, image_c, out_c] float32, if there is an image
    const void* rgb_b;    // [image_c] float32
    const void* below;    // [n, height / 2, width / 2, image_c] float32, or null: no image below
    const void* below_f;  // [4] float32
    void* y;            // [n, out_h, out_w, out_c] dense; null: only the image is needed
    void* image;        // [n, height, width, image_c] float32, or null
    int64_t n;
    int64_t in_c;
    int64_t out_c;
    int64_t height;  // of x
    int64_t width;
    int64_t noise_stride;  // distance between the noise of two samples; 0: shared
    Dtype dtype;           // of x, w and y: float16 or bfloat16
    int32_t k;             // 1 or 3
    int32_t up;            // 1, or 2 if k is 3
    int32_t wgmma;         // use it where the device has it
    int32_t image_c;       // at most 3
    double slope;          // of act below zero
    double gain;
    double clamp;  // infinity: none
    double image_clamp;
};
const char* modulated_conv2d(const ModulatedConv2d& args, void* stream);
int64_t packed_weights(const ModulatedConv2d& args);  // how many numbers w has

// out[s][n][i] = u, or if centered 2 u - 1; u is uniform in (0, 1), a function of key[s], index[n] and i
constexpr int kSegments = 32;
struct CounterUniform {
    const void* index;  // [n] int64
    void* out;          // float32, the segments one after the other: [n, count[s]]
    int64_t n;
    int64_t segments;   // at most kSegments
    int32_t centered;
    int64_t key[32];    // of each segment
    int64_t count[32];  // numbers for each index
    int64_t start[32];  // where the segment starts in out
};
const char* counter_uniform(const CounterUniform& args, void* stream);

}  // namespace sgan
