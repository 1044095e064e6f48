// Binds the launchers of kernels.h to PyTorch: the operators that images are computed with. See binding.h.

#include "binding.h"

namespace {

using namespace sgan_binding;

// ---------------------------------------------------------------------------------------------------------------------
// bias_act

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
// layers of frozen networks

// s' or, of a toRGB, w s of each layer; and d of all others.
std::tuple<Tensor, Tensor> frozen_styles(const Tensor& style, const Tensor& weight, std::vector<int64_t> inputs,
                                         std::vector<int64_t> outputs, std::vector<int64_t> torgb, bool normalize) {
    STD_TORCH_CHECK(on_device(style), "style must be on a GPU");
    STD_TORCH_CHECK(style.dim() == 3 && style.scalar_type() == ScalarType::Float, "style must be [L, N, S] float32");
    sgan::FrozenStyles args{};
    args.layers = style.size(0), args.n = style.size(1), args.pitch = style.size(2);
    const auto count = static_cast<size_t>(args.layers);
    STD_TORCH_CHECK(count <= sgan::kSegments && inputs.size() == count && outputs.size() == count &&
                        torgb.size() == count, "there must be sizes of at most 32 layers");
    const auto aligned = [](int64_t numbers) { return (numbers + 3) / 4 * 4; };  // to 16 bytes
    int64_t weights = 0, outs = 0, factors = 0;
    for (size_t l = 0; l < count; l++) {
        STD_TORCH_CHECK(inputs[l] >= 0 && inputs[l] <= args.pitch && outputs[l] >= 0, "a layer has ", inputs[l],
                        " channels, but style has ", args.pitch);
        args.i[l] = inputs[l], args.o[l] = outputs[l], args.torgb[l] = torgb[l] != 0;
        args.weight_start[l] = weights, args.out_start[l] = outs, args.d_start[l] = factors;
        weights += inputs[l] * outputs[l], outs += aligned(args.n * inputs[l] * (torgb[l] ? outputs[l] : 1));
        factors += torgb[l] ? 0 : aligned(args.n * outputs[l]);
    }
    Tensor in = torch::stable::contiguous(style), out = acc_empty({outs}, style), d = acc_empty({factors}, style);
    args.style = in.const_data_ptr(), args.weight = small<1>("weight", weight, style, {weights});
    args.out = out.mutable_data_ptr(), args.d = d.mutable_data_ptr();
    args.normalize = normalize;
    Launch launch(style);
    raise("frozen_styles", sgan::frozen_styles(args, launch.stream));
    return {out, d};
}

// The operands of an image of n, c, h, w features in `args`, and where it is written; without rgb an empty tensor.
template <class Args>
Tensor image_args(Args& args, const Tensor& x, int64_t c, const MaybeTensor& rgb, const MaybeTensor& rgb_b,
                  MaybeTensor& below, const MaybeTensor& below_f, double clamp) {
    if (!rgb) return empty({0, 0, 0, 0}, ScalarType::Float, x, MemoryFormat::ChannelsLast);
    STD_TORCH_CHECK(rgb_b && below_f, "an image needs rgb_b and below_f");
    const int64_t k = rgb_b->numel();
    args.image_c = static_cast<int32_t>(k), args.image_clamp = clamp;
    args.rgb = small<3>("rgb", rgb, x, {args.n, k, c}), args.rgb_b = small<1>("rgb_b", rgb_b, x, {k});
    args.below_f = small<1>("below_f", below_f, x, {4});
    if (below) {
        below = torch::stable::contiguous(*below, MemoryFormat::ChannelsLast);
        check_device("below", *below, x);
        const bool fits = below->dim() == 4 && below->size(0) == args.n && below->size(1) == k &&
                          below->size(2) * 2 == args.height && below->size(3) * 2 == args.width;
        STD_TORCH_CHECK(fits && below->scalar_type() == ScalarType::Float, "below does not fit, it is ", text(*below));
        args.below = below->const_data_ptr();
    }
    Tensor image = empty({args.n, k, args.height, args.width}, ScalarType::Float, x, MemoryFormat::ChannelsLast);
    args.image = image.mutable_data_ptr();
    return image;
}

// half: 0: the type of x, 1: float16, 2: bfloat16. Without `features`, y has no channels.
std::tuple<Tensor, Tensor> layer_end(const Tensor& x, const Tensor& scale, const MaybeTensor& noise, const Tensor& b,
                                     const MaybeTensor& following, const MaybeTensor& rgb, const MaybeTensor& rgb_b,
                                     MaybeTensor below, const MaybeTensor& below_f, double slope, double gain,
                                     double clamp, double image_clamp, int64_t half, bool features) {
    Tensor in = torch::stable::contiguous(x, MemoryFormat::ChannelsLast);
    const sgan::BiasAct like = bias_act_args(in, scale, noise, b, "lrelu", gain, slope, clamp, 0);
    STD_TORCH_CHECK(x.dim() == 4, "x must be [N, C, H, W], not ", text(x));
    sgan::LayerEnd args{};
    args.x = in.const_data_ptr(), args.scale = like.scale, args.noise = like.noise, args.b = like.b;
    args.n = like.n, args.c = like.c, args.height = x.size(2), args.width = x.size(3);
    args.noise_stride = like.noise_stride, args.dtype = like.dtype;
    args.next = small<2>("following", following, x, {args.n, args.c});
    args.slope = slope, args.gain = gain, args.clamp = clamp;
    const ScalarType type = half == 0 ? x.scalar_type() : half == 1 ? ScalarType::Half : ScalarType::BFloat16;
    Tensor y = empty({args.n, features ? args.c : 0, args.height, args.width}, type, x, MemoryFormat::ChannelsLast);
    Tensor image = image_args(args, x, args.c, rgb, rgb_b, below, below_f, image_clamp);
    args.out_dtype = dtype_of("y", y), args.y = features ? y.mutable_data_ptr() : nullptr;
    Launch launch(x);
    raise("layer_end", sgan::layer_end(args, launch.stream));
    return {y, image};
}

// ---------------------------------------------------------------------------------------------------------------------
// upfirdn2d

// `activation` is given if the filter reads activated numbers.
Tensor upfirdn2d_of(const Tensor& x, const Tensor& f, int64_t up, int64_t down, const std::vector<int64_t>& padding,
                    bool flip, double gain, const sgan::UpFirDn2d& activation) {
    STD_TORCH_CHECK(on_device(x), "x must be on a GPU");
    STD_TORCH_CHECK(x.dim() == 4, "x must be [N, C, H, W], not ", text(x));
    STD_TORCH_CHECK(f.dim() == 1 || f.dim() == 2, "f must be [K] or [KH, KW], not ", text(f));
    STD_TORCH_CHECK(up >= 1 && up <= 1024 && down >= 1 && down <= 1024, "up and down must be 1 to 1024");
    STD_TORCH_CHECK(padding.size() == 4, "padding must be left, right, top, bottom");
    sgan::UpFirDn2d args = activation;
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

Tensor upfirdn2d(const Tensor& x, const Tensor& f, int64_t up, int64_t down, std::vector<int64_t> padding, bool flip,
                 double gain) {
    return upfirdn2d_of(x, f, up, down, padding, flip, gain, {});
}

// The filter of clamp(gain lrelu(x + b)).
Tensor activated_blur(const Tensor& x, const Tensor& b, const Tensor& f, std::vector<int64_t> padding, double slope,
                      double gain, double clamp) {
    STD_TORCH_CHECK(channels_last(x), "x must be channels-last");
    sgan::UpFirDn2d activation{};
    activation.b = small<1>("b", b, x, {x.size(1)});
    activation.activates = 1, activation.slope = slope, activation.act_gain = gain, activation.clamp = clamp;
    return upfirdn2d_of(x, f, 1, 1, padding, false, 1, activation);
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

// Arguments shared by both ops, of a filter [out_c, in_c, k, k] in the order of the kernel; `in` is x as it takes it.
sgan::ModulatedConv2d modulated_conv2d_args(const Tensor& x, int64_t out_c, int64_t k, const Tensor& packed,
                                            const Tensor& style, const MaybeTensor& d, const MaybeTensor& noise,
                                            const MaybeTensor& b, const MaybeTensor& f, double slope, double gain,
                                            double clamp, Tensor& in) {
    STD_TORCH_CHECK(on_device(x), "x must be on a GPU");
    STD_TORCH_CHECK(x.dim() == 4, "x must be [N, I, H, W], not ", text(x));
    STD_TORCH_CHECK(x.scalar_type() == ScalarType::Half || x.scalar_type() == ScalarType::BFloat16,
                    "x must be float16 or bfloat16");
    check_device("packed", packed, x);
    STD_TORCH_CHECK(packed.scalar_type() == x.scalar_type(), "packed must have the dtype of x");
    // The kernel supports one memory layout: channels innermost.
    in = torch::stable::contiguous(x, MemoryFormat::ChannelsLast);
    sgan::ModulatedConv2d args{};
    args.n = x.size(0), args.in_c = x.size(1), args.height = x.size(2), args.width = x.size(3);
    args.out_c = out_c;
    args.k = static_cast<int32_t>(k), args.up = f ? 2 : 1;
    args.wgmma = true;
    STD_TORCH_CHECK(packed.is_contiguous() && packed.numel() == sgan::packed_weights(args),
                    "packed must be the result of pack_weights, not ", text(packed));
    const int64_t out_h = args.height * args.up, out_w = args.width * args.up;
    args.style = small<2>("style", style, x, {args.n, args.in_c});
    args.d = small<2>("d", d, x, {args.n, args.out_c});
    args.f = small<1>("f", f, x, {4});
    args.noise = small<4>("noise", noise, x, {-1, 1, out_h, out_w});
    STD_TORCH_CHECK(!noise || noise->size(0) == 1 || noise->size(0) == args.n, "noise must have 1 or ", args.n,
                    " samples");
    args.noise_stride = !noise || noise->size(0) == 1 ? 0 : out_h * out_w;
    args.b = small<1>("b", b, x, {args.out_c});
    args.dtype = dtype_of("x", x);
    args.slope = slope, args.gain = gain, args.clamp = clamp;
    args.x = in.const_data_ptr(), args.w = packed.const_data_ptr();
    return args;
}

// Only the sizes of w matter. f: upsample by 2.
Tensor modulated_conv2d(const Tensor& x, const Tensor& w, const Tensor& packed, const Tensor& style,
                        const MaybeTensor& d, const MaybeTensor& noise, const MaybeTensor& b, const MaybeTensor& f,
                        double slope, double gain, double clamp) {
    const bool fits = x.dim() != 4 || (w.dim() == 4 && w.size(1) == x.size(1) && w.size(2) == w.size(3) &&
                                       (w.size(2) == 3 || (w.size(2) == 1 && !f)));
    STD_TORCH_CHECK(fits, "w must be [O, I, k, k] with the I of x ", text(x), " and k 3, or 1 without f, not ", text(w));
    Tensor in;
    sgan::ModulatedConv2d args = modulated_conv2d_args(x, w.size(0), w.size(2), packed, style, d, noise, b, f, slope,
                                                       gain, clamp, in);
    Tensor y = empty({args.n, args.out_c, args.height * args.up, args.width * args.up}, x.scalar_type(), x,
                     MemoryFormat::ChannelsLast);
    args.y = y.mutable_data_ptr();
    Launch launch(x);
    raise("modulated_conv2d", sgan::modulated_conv2d(args, launch.stream));
    return y;
}

// 3x3 filters to `channels`, and the image of what they yield. Without `features`, y has no channels.
std::tuple<Tensor, Tensor> modulated_conv2d_image(
    const Tensor& x, const Tensor& packed, int64_t channels, const Tensor& style, const Tensor& d,
    const MaybeTensor& noise, const Tensor& b, const MaybeTensor& rgb, const MaybeTensor& rgb_b, MaybeTensor below,
    const MaybeTensor& below_f, double slope, double gain, double clamp, double image_clamp, bool features) {
    Tensor in;
    sgan::ModulatedConv2d args = modulated_conv2d_args(x, channels, 3, packed, style, d, noise, b, std::nullopt, slope,
                                                       gain, clamp, in);
    Tensor y = empty({args.n, features ? channels : 0, args.height, args.width}, x.scalar_type(), x,
                     MemoryFormat::ChannelsLast);
    Tensor image = image_args(args, x, channels, rgb, rgb_b, below, below_f, image_clamp);
    args.y = features ? y.mutable_data_ptr() : nullptr;
    Launch launch(x);
    raise("modulated_conv2d_image", sgan::modulated_conv2d(args, launch.stream));
    return {y, image};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(sgan, SGAN_DEVICE, m) {
    m.impl("bias_act", TORCH_BOX(&bias_act));
    m.impl("bias_act_backward", TORCH_BOX(&bias_act_backward));
    m.impl("bias_act_double_backward", TORCH_BOX(&bias_act_double_backward));
    m.impl("add_skip", TORCH_BOX(&add_skip));
    m.impl("frozen_styles", TORCH_BOX(&frozen_styles));
    m.impl("layer_end", TORCH_BOX(&layer_end));
    m.impl("upfirdn2d", TORCH_BOX(&upfirdn2d));
    m.impl("activated_blur", TORCH_BOX(&activated_blur));
    m.impl("filtered_lrelu", TORCH_BOX(&filtered_lrelu));
    m.impl("filtered_lrelu_linear", TORCH_BOX(&filtered_lrelu_linear));
    m.impl("modulated_conv2d", TORCH_BOX(&modulated_conv2d));
    m.impl("modulated_conv2d_image", TORCH_BOX(&modulated_conv2d_image));
}
