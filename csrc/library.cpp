// Binds the launchers of kernels.h to PyTorch: checks tensors, allocates outputs, selects the stream, registers ops.
//
// Uses the LibTorch stable ABI of PyTorch 2.10: one binary works with that release and all later ones. The schemas of
// the operators are in stylegan_cli/ops/, with their documentation and derivatives.

#include <dlfcn.h>

#include <array>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

#include "kernels.h"

namespace {

using torch::headeronly::MemoryFormat;
using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using MaybeTensor = std::optional<Tensor>;

// ---------------------------------------------------------------------------------------------------------------------
// Device and stream

#ifdef SGAN_EMULATE  // the tests run the kernels on the CPU

#define SGAN_DEVICE CPU
bool on_device(const Tensor& t) { return t.is_cpu(); }
struct Launch {
    explicit Launch(const Tensor&) {}
    void* stream = nullptr;
};

#else

#define SGAN_DEVICE CUDA
bool on_device(const Tensor& t) { return t.is_cuda(); }

// aoti_torch_get_current_cuda_stream exists only in CUDA builds of PyTorch. It is looked up at run time, because other
// builds could not load, and so not test, a library that links to it.
using CurrentStream = AOTITorchError (*)(int32_t, void**);
CurrentStream current_stream() {
    static const CurrentStream function = [] {
        void* library = dlopen("libtorch_cuda.so", RTLD_LAZY | RTLD_NOLOAD);
        return reinterpret_cast<CurrentStream>(
            dlsym(library ? library : RTLD_DEFAULT, "aoti_torch_get_current_cuda_stream"));
    }();
    return function;
}

// Makes the tensor's device current while this exists; `stream` is PyTorch's current stream on it.
struct Launch {
    explicit Launch(const Tensor& t) : guard(t.get_device_index()) {
        STD_TORCH_CHECK(current_stream(), "this build of PyTorch has no CUDA streams");
        STD_TORCH_CHECK(current_stream()(t.get_device_index(), &stream) == 0, "cannot get PyTorch's CUDA stream");
    }
    torch::stable::accelerator::DeviceGuard guard;
    void* stream = nullptr;
};

#endif

void raise(const char* op, const char* error) { STD_TORCH_CHECK(error == nullptr, "sgan::", op, ": ", error); }

// ---------------------------------------------------------------------------------------------------------------------
// Checks and layouts of tensors

std::string text(const Tensor& t) {
    std::string s;
    for (int64_t i = 0; i < t.dim(); i++) s += (i ? ", " : "") + std::to_string(t.size(i));
    return "[" + s + "]";
}

sgan::Dtype dtype_of(const char* name, const Tensor& t) {
    switch (t.scalar_type()) {
        case ScalarType::Float: return sgan::Dtype::float32;
        case ScalarType::Half: return sgan::Dtype::float16;
        case ScalarType::BFloat16: return sgan::Dtype::bfloat16;
        case ScalarType::Double: return sgan::Dtype::float64;
        default: break;
    }
    STD_TORCH_CHECK(false, name, " must be float32, float16, bfloat16 or float64");
    return sgan::Dtype::float32;
}

// Type of t's small operands, and accumulation type.
ScalarType acc_type(const Tensor& t) {
    return t.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
}

void check_device(const char* name, const Tensor& t, const Tensor& x) {
    STD_TORCH_CHECK(on_device(t), name, " must be on a GPU");
    STD_TORCH_CHECK(t.get_device_index() == x.get_device_index(), name, " must be on the GPU of the other tensors");
}

void check_same(const char* name, const Tensor& t, const Tensor& x) {
    check_device(name, t, x);
    bool same = t.dim() == x.dim() && t.scalar_type() == x.scalar_type();
    for (int64_t i = 0; same && i < x.dim(); i++) same = t.size(i) == x.size(i);
    STD_TORCH_CHECK(same, name, " must have shape ", text(x), " and the dtype of the other tensors, not ", text(t));
}

// A small operand, dense, or null. `sizes` of -1 match any size.
template <size_t D>
const void* small(const char* name, const MaybeTensor& t, const Tensor& x, const std::array<int64_t, D>& sizes) {
    if (!t) return nullptr;
    check_device(name, *t, x);
    STD_TORCH_CHECK(t->scalar_type() == acc_type(x), name, " must be ",
                    acc_type(x) == ScalarType::Double ? "float64" : "float32");
    bool fits = t->dim() == static_cast<int64_t>(D);
    for (size_t i = 0; fits && i < D; i++) fits = sizes[i] == -1 || t->size(i) == sizes[i];
    STD_TORCH_CHECK(fits, name, " has the wrong shape ", text(*t), " for ", text(x));
    STD_TORCH_CHECK(t->is_contiguous(), name, " must be contiguous");
    return t->const_data_ptr();
}

// Dense with channels innermost, and not also contiguous.
bool channels_last(const Tensor& t) {
    if (t.dim() != 4 || t.is_contiguous()) return false;
    int64_t dense = 1;
    for (int64_t side : {1, 3, 2, 0}) {
        if (t.size(side) != 1 && t.stride(side) != dense) return false;
        dense *= t.size(side);
    }
    return true;
}

MemoryFormat format_of(const Tensor& t) {
    return channels_last(t) ? MemoryFormat::ChannelsLast : MemoryFormat::Contiguous;
}

// t itself if it is dense, otherwise a contiguous copy.
Tensor dense(const Tensor& t) {
    return t.is_contiguous() || channels_last(t) ? t : torch::stable::contiguous(t);
}

// t in the memory format of x.
Tensor laid_out_like(const Tensor& t, const Tensor& x) { return torch::stable::contiguous(t, format_of(x)); }

Tensor empty(std::array<int64_t, 4> sizes, ScalarType dtype, const Tensor& x, MemoryFormat format) {
    return torch::stable::empty({sizes.data(), sizes.size()}, dtype, std::nullopt, x.device(), std::nullopt, format);
}

sgan::Activation activation(const std::string& name) {
    constexpr std::array names{"linear", "relu", "lrelu", "tanh", "sigmoid", "swish"};
    for (size_t i = 0; i < names.size(); i++)
        if (name == names[i]) return static_cast<sgan::Activation>(i);
    STD_TORCH_CHECK(false, "act must be a known activation, not ", name);
    return sgan::Activation::linear;
}

// ---------------------------------------------------------------------------------------------------------------------
// bias_act

// Arguments shared by the three passes; `x` determines shape, type and layout.
sgan::BiasAct bias_act_args(const Tensor& x, const MaybeTensor& scale, const MaybeTensor& noise, const MaybeTensor& b,
                            const std::string& act, double gain, double alpha, double clamp, int32_t order) {
    STD_TORCH_CHECK(on_device(x), "x must be on a GPU");
    STD_TORCH_CHECK(x.dim() >= 2, "x must have at least 2 dimensions, not ", x.dim());
    sgan::BiasAct args{};
    args.n = x.size(0), args.c = x.size(1), args.p = 1;
    for (int64_t i = 2; i < x.dim(); i++) args.p *= x.size(i);
    args.dtype = dtype_of("x", x);
    args.scale = small<2>("scale", scale, x, {args.n, args.c});
    args.b = small<1>("b", b, x, {args.c});
    if (noise) {
        STD_TORCH_CHECK(x.dim() == 4, "noise requires x to have 4 dimensions");
        args.noise = small<4>("noise", noise, x, {-1, 1, x.size(2), x.size(3)});
        STD_TORCH_CHECK(noise->size(0) == 1 || noise->size(0) == args.n, "noise must have 1 or ", args.n,
                        " samples");
        args.noise_stride = noise->size(0) == 1 ? 0 : args.p;
    }
    args.act = activation(act);
    args.channels_last = args.p == 1 || channels_last(x);
    args.order = order;
    args.alpha = alpha, args.gain = gain, args.clamp = clamp;
    return args;
}

Tensor bias_act(const Tensor& x, const MaybeTensor& scale, const MaybeTensor& noise, const MaybeTensor& b,
                const std::string& act, double gain, double alpha, double clamp) {
    Tensor in = dense(x);
    sgan::BiasAct args = bias_act_args(in, scale, noise, b, act, gain, alpha, clamp, 0);
    Tensor y = torch::stable::empty_like(in);
    args.x = in.const_data_ptr(), args.out = y.mutable_data_ptr();
    Launch launch(in);
    raise("bias_act", sgan::bias_act(args, launch.stream));
    return y;
}

Tensor bias_act_backward(const Tensor& dy, const MaybeTensor& y, const MaybeTensor& x, const MaybeTensor& scale,
                         const MaybeTensor& noise, const MaybeTensor& b, const std::string& act, double gain,
                         double alpha, double clamp) {
    STD_TORCH_CHECK(y.has_value() != x.has_value(), "exactly one of y and x must be given");
    Tensor in = dense(y ? *y : *x);
    sgan::BiasAct args = bias_act_args(in, scale, noise, b, act, gain, alpha, clamp, 1);
    STD_TORCH_CHECK(!y || args.act <= sgan::Activation::lrelu, "y does not determine the slope of ", act);
    check_same("dy", dy, in);
    Tensor upstream = laid_out_like(dy, in), dp = torch::stable::empty_like(in);
    (y ? args.y : args.x) = in.const_data_ptr();
    args.dy = upstream.const_data_ptr(), args.out = dp.mutable_data_ptr();
    Launch launch(in);
    raise("bias_act_backward", sgan::bias_act(args, launch.stream));
    return dp;
}

Tensor bias_act_double_backward(const Tensor& ddp, const Tensor& dy, const Tensor& x, const MaybeTensor& scale,
                                const MaybeTensor& noise, const MaybeTensor& b, const std::string& act, double gain,
                                double alpha, double clamp) {
    Tensor in = dense(x);
    sgan::BiasAct args = bias_act_args(in, scale, noise, b, act, gain, alpha, clamp, 2);
    check_same("ddp", ddp, in);
    check_same("dy", dy, in);
    Tensor direction = laid_out_like(ddp, in), upstream = laid_out_like(dy, in), out = torch::stable::empty_like(in);
    args.x = in.const_data_ptr(), args.dy = upstream.const_data_ptr(), args.ddp = direction.const_data_ptr();
    args.out = out.mutable_data_ptr();
    Launch launch(in);
    raise("bias_act_double_backward", sgan::bias_act(args, launch.stream));
    return out;
}

// ---------------------------------------------------------------------------------------------------------------------
// add_skip

Tensor add_skip(const Tensor& x, const MaybeTensor& b, const MaybeTensor& below, const Tensor& f, double clamp) {
    STD_TORCH_CHECK(on_device(x), "x must be on a GPU");
    STD_TORCH_CHECK(x.dim() == 4, "x must be [N, C, H, W], not ", text(x));
    Tensor in = dense(x);
    sgan::AddSkip args{};
    args.n = x.size(0), args.c = x.size(1), args.h = x.size(2), args.w = x.size(3);
    args.dtype = dtype_of("x", x);
    args.b = small<1>("b", b, x, {args.c}), args.f = small<1>("f", f, x, {4});
    Tensor y = empty({args.n, args.c, args.h, args.w}, acc_type(x), x, format_of(in));
    Tensor image = below ? laid_out_like(*below, in) : y;
    if (below) {
        check_device("below", *below, x);
        const bool fits = below->dim() == 4 && below->size(0) == args.n && below->size(1) == args.c &&
                          below->size(2) * 2 == args.h && below->size(3) * 2 == args.w;
        STD_TORCH_CHECK(fits, "below has the wrong shape ", text(*below), " for ", text(x));
        STD_TORCH_CHECK(below->scalar_type() == acc_type(x), "below must be ",
                        acc_type(x) == ScalarType::Double ? "float64" : "float32");
        args.below = image.const_data_ptr();
    }
    args.channels_last = channels_last(in);
    args.clamp = clamp;
    args.x = in.const_data_ptr(), args.y = y.mutable_data_ptr();
    Launch launch(in);
    raise("add_skip", sgan::add_skip(args, launch.stream));
    return y;
}

// ---------------------------------------------------------------------------------------------------------------------
// upfirdn2d

Tensor upfirdn2d(const Tensor& x, const Tensor& f, int64_t up, int64_t down, std::vector<int64_t> padding, bool flip,
                 double gain) {
    STD_TORCH_CHECK(on_device(x), "x must be on a GPU");
    STD_TORCH_CHECK(x.dim() == 4, "x must be [N, C, H, W], not ", text(x));
    STD_TORCH_CHECK(f.dim() == 1 || f.dim() == 2, "f must be [K] or [KH, KW], not ", text(f));
    STD_TORCH_CHECK(up >= 1 && up <= 1024 && down >= 1 && down <= 1024, "up and down must be 1 to 1024");
    STD_TORCH_CHECK(padding.size() == 4, "padding must be left, right, top, bottom");
    sgan::UpFirDn2d args{};
    args.taps_x = static_cast<int32_t>(f.size(-1)), args.taps_y = static_cast<int32_t>(f.size(0));
    const int64_t h = x.size(2) * up + padding[2] + padding[3], w = x.size(3) * up + padding[0] + padding[1];
    STD_TORCH_CHECK(args.taps_x >= 1 && args.taps_y >= 1 && h >= args.taps_y && w >= args.taps_x, "f ", text(f),
                    " does not fit into a padded image of [", h, ", ", w, "]");
    args.f = f.dim() == 1 ? small<1>("f", f, x, {-1}) : small<2>("f", f, x, {-1, -1});
    args.separable = f.dim() == 1;
    args.n = x.size(0), args.c = x.size(1), args.h = x.size(2), args.w = x.size(3);
    args.out_h = (h - args.taps_y) / down + 1, args.out_w = (w - args.taps_x) / down + 1;
    args.dtype = dtype_of("x", x);
    args.up = static_cast<int32_t>(up), args.down = static_cast<int32_t>(down);
    args.pad_x = padding[0], args.pad_y = padding[2];
    args.flip = flip, args.gain = gain;
    Tensor y = empty({args.n, args.c, args.out_h, args.out_w}, x.scalar_type(), x, format_of(x));
    for (int64_t i = 0; i < 4; i++) args.x_stride[i] = x.stride(i), args.y_stride[i] = y.stride(i);
    args.x = x.const_data_ptr(), args.y = y.mutable_data_ptr();
    Launch launch(x);
    raise("upfirdn2d", sgan::upfirdn2d(args, launch.stream));
    return y;
}

// ---------------------------------------------------------------------------------------------------------------------
// filtered_lrelu

// Arguments shared by both ops, with the output as `y`.
sgan::FilteredLrelu filtered_lrelu_args(const Tensor& x, const Tensor& fu, const Tensor& fd, const MaybeTensor& pairs,
                                        int64_t up, int64_t down, const std::vector<int64_t>& padding, bool flip,
                                        double gain, double slope, Tensor& y) {
    STD_TORCH_CHECK(on_device(x), "x must be on a GPU");
    STD_TORCH_CHECK(x.dim() == 4, "x must be [N, C, H, W], not ", text(x));
    for (const Tensor& f : {fu, fd})
        STD_TORCH_CHECK(f.dim() == 1 || f.dim() == 2, "filters must be [K] or [KH, KW], not ", text(f));
    STD_TORCH_CHECK(up >= 1 && up <= 4 && down >= 1 && down <= 4, "up and down must be 1 to 4");
    STD_TORCH_CHECK(padding.size() == 4, "padding must be left, right, top, bottom");
    sgan::FilteredLrelu args{};
    args.dtype = dtype_of("x", x);
    args.fu = fu.dim() == 1 ? small<1>("fu", fu, x, {-1}) : small<2>("fu", fu, x, {-1, -1});
    args.fd = fd.dim() == 1 ? small<1>("fd", fd, x, {-1}) : small<2>("fd", fd, x, {-1, -1});
    args.separable_u = fu.dim() == 1, args.separable_d = fd.dim() == 1;
    args.up_taps_y = static_cast<int32_t>(fu.size(0)), args.up_taps_x = static_cast<int32_t>(fu.size(-1));
    args.down_taps_y = static_cast<int32_t>(fd.size(0)), args.down_taps_x = static_cast<int32_t>(fd.size(-1));
    STD_TORCH_CHECK(!pairs || args.separable_u != args.separable_d, "pairs require exactly one filter to be [KH, KW]");
    const Tensor& whole = args.separable_u ? fd : fu;
    args.pairs = small<2>("pairs", pairs, x, {-1, whole.size(0) + whole.size(-1)});
    args.num_pairs = pairs ? static_cast<int32_t>(pairs->size(0)) : 0;
    args.n = x.size(0), args.c = x.size(1), args.h = x.size(2), args.w = x.size(3);
    const int64_t h = args.h * up + padding[2] + padding[3] - args.up_taps_y - args.down_taps_y + 1;
    const int64_t w = args.w * up + padding[0] + padding[1] - args.up_taps_x - args.down_taps_x + 1;
    STD_TORCH_CHECK(h >= 0 && w >= 0, "the filters do not fit into the padded image");
    args.out_h = h / down + 1, args.out_w = w / down + 1;
    args.up = static_cast<int32_t>(up), args.down = static_cast<int32_t>(down);
    args.pad_x = padding[0], args.pad_y = padding[2];
    args.flip = flip, args.gain = gain, args.slope = slope;
    y = empty({args.n, args.c, args.out_h, args.out_w}, x.scalar_type(), x, format_of(x));
    for (int64_t i = 0; i < 4; i++) args.x_stride[i] = x.stride(i), args.y_stride[i] = y.stride(i);
    args.x = x.const_data_ptr(), args.y = y.mutable_data_ptr();
    return args;
}

// `codes` are empty unless the result is to be differentiated.
std::tuple<Tensor, Tensor> filtered_lrelu(const Tensor& x, const MaybeTensor& b, const Tensor& fu, const Tensor& fd,
                                          const MaybeTensor& pairs, int64_t up, int64_t down,
                                          std::vector<int64_t> padding, bool flip, double gain, double slope,
                                          double clamp, bool differentiable) {
    Tensor y;
    sgan::FilteredLrelu args = filtered_lrelu_args(x, fu, fd, pairs, up, down, padding, flip, gain, slope, y);
    args.b = small<1>("b", b, x, {args.c});
    args.clamp = clamp;
    const int64_t columns = (args.out_w - 1) * down + args.down_taps_x;
    args.code_h = (args.out_h - 1) * down + args.down_taps_y, args.code_w = (columns + 15) / 16;
    Tensor codes = empty({differentiable ? args.n : 0, args.c, args.code_h, args.code_w}, ScalarType::Int, x,
                         format_of(x));
    if (differentiable) {
        for (int64_t i = 0; i < 4; i++) args.code_stride[i] = codes.stride(i);
        args.new_codes = codes.mutable_data_ptr();
    }
    Launch launch(x);
    raise("filtered_lrelu", sgan::filtered_lrelu(args, launch.stream));
    return {y, codes};
}

Tensor filtered_lrelu_linear(const Tensor& x, const Tensor& codes, const Tensor& fu, const Tensor& fd,
                             const MaybeTensor& pairs, int64_t up, int64_t down, std::vector<int64_t> padding,
                             bool flip, double gain, double slope, std::vector<int64_t> offset) {
    Tensor y;
    sgan::FilteredLrelu args = filtered_lrelu_args(x, fu, fd, pairs, up, down, padding, flip, gain, slope, y);
    check_device("codes", codes, x);
    STD_TORCH_CHECK(codes.dim() == 4 && codes.scalar_type() == ScalarType::Int && codes.size(0) == args.n &&
                        codes.size(1) == args.c, "codes must be int32 [", args.n, ", ", args.c, ", ...]");
    STD_TORCH_CHECK(offset.size() == 2, "offset must be rows, columns");
    args.codes = codes.const_data_ptr();
    args.code_h = codes.size(2), args.code_w = codes.size(3);
    for (int64_t i = 0; i < 4; i++) args.code_stride[i] = codes.stride(i);
    args.offset_y = offset[0], args.offset_x = offset[1];
    Launch launch(x);
    raise("filtered_lrelu_linear", sgan::filtered_lrelu(args, launch.stream));
    return y;
}

// ---------------------------------------------------------------------------------------------------------------------
// modulated_conv2d

Tensor modulated_conv2d(const Tensor& x, const Tensor& w, const Tensor& style, const MaybeTensor& d,
                        const MaybeTensor& noise, const MaybeTensor& b, int64_t phases, double slope, double gain,
                        double clamp) {
    STD_TORCH_CHECK(on_device(x), "x must be on a GPU");
    STD_TORCH_CHECK(x.dim() == 4, "x must be [N, I, H, W], not ", text(x));
    STD_TORCH_CHECK(x.scalar_type() == ScalarType::Half || x.scalar_type() == ScalarType::BFloat16,
                    "x must be float16 or bfloat16");
    STD_TORCH_CHECK(phases == 1 || phases == 4, "phases must be 1 or 4, not ", phases);
    check_device("w", w, x);
    const bool fits = w.dim() == 4 && w.size(1) == x.size(1) && w.size(0) % phases == 0 && w.size(2) == w.size(3) &&
                      (w.size(2) == 1 || w.size(2) == 3);
    STD_TORCH_CHECK(fits, "w must be [phases O, ", x.size(1), ", k, k] with k 1 or 3, not ", text(w));
    STD_TORCH_CHECK(w.scalar_type() == x.scalar_type(), "w must have the dtype of x");
    // The kernel supports one memory layout: channels innermost.
    Tensor in = torch::stable::contiguous(x, MemoryFormat::ChannelsLast);
    Tensor weights = torch::stable::contiguous(w, MemoryFormat::ChannelsLast);
    sgan::ModulatedConv2d args{};
    args.n = x.size(0), args.in_c = x.size(1), args.height = x.size(2), args.width = x.size(3);
    args.out_c = w.size(0) / phases;
    args.k = static_cast<int32_t>(w.size(2)), args.phases = static_cast<int32_t>(phases);
    const int64_t side = phases == 4 ? 2 : 1, out_h = args.height * side, out_w = args.width * side;
    args.style = small<2>("style", style, x, {args.n, args.in_c});
    args.d = small<2>("d", d, x, {args.n, args.out_c});
    args.noise = small<4>("noise", noise, x, {-1, 1, out_h, out_w});
    STD_TORCH_CHECK(!noise || noise->size(0) == 1 || noise->size(0) == args.n, "noise must have 1 or ", args.n,
                    " samples");
    args.noise_stride = !noise || noise->size(0) == 1 ? 0 : out_h * out_w;
    args.b = small<1>("b", b, x, {args.out_c});
    args.dtype = dtype_of("x", x);
    args.slope = slope, args.gain = gain, args.clamp = clamp;
    Tensor y = empty({args.n, args.out_c, out_h, out_w}, x.scalar_type(), x, MemoryFormat::ChannelsLast);
    args.x = in.const_data_ptr(), args.w = weights.const_data_ptr(), args.y = y.mutable_data_ptr();
    Launch launch(x);
    raise("modulated_conv2d", sgan::modulated_conv2d(args, launch.stream));
    return y;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(sgan, SGAN_DEVICE, m) {
    m.impl("bias_act", TORCH_BOX(&bias_act));
    m.impl("bias_act_backward", TORCH_BOX(&bias_act_backward));
    m.impl("bias_act_double_backward", TORCH_BOX(&bias_act_double_backward));
    m.impl("add_skip", TORCH_BOX(&add_skip));
    m.impl("upfirdn2d", TORCH_BOX(&upfirdn2d));
    m.impl("filtered_lrelu", TORCH_BOX(&filtered_lrelu));
    m.impl("filtered_lrelu_linear", TORCH_BOX(&filtered_lrelu_linear));
    m.impl("modulated_conv2d", TORCH_BOX(&modulated_conv2d));
}
