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
    double gain;
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
// With phases = 4 output pixel (2i + r, 2j + s) is a convolution with the weights of phase 2r + s around input pixel
// (i, j): upsampling by two, with the filter already merged into the weights.
struct ModulatedConv2d {
    const void* x;      // [n, h, w, in_c] dense
    const void* w;      // [phases, out_c, k, k, in_c] dense
    const void* style;  // [n, in_c] float32
    const void* d;      // [n, out_c] float32, or null: 1
    const void* noise;  // [n or 1, out_h, out_w] float32, or null
    const void* b;      // [out_c] float32, or null
    void* y;            // [n, out_h, out_w, out_c] dense
    int64_t n;
    int64_t in_c;
    int64_t out_c;
    int64_t height;  // of x
    int64_t width;
    int64_t noise_stride;  // distance between the noise of two samples; 0: shared
    Dtype dtype;           // of x, w and y: float16 or bfloat16
    int32_t k;             // 1 or 3
    int32_t phases;        // 1 or 4
    double slope;          // of act below zero
    double gain;
    double clamp;  // infinity: none
};
const char* modulated_conv2d(const ModulatedConv2d& args, void* stream);

}  // namespace sgan
