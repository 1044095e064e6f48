// Binds the launchers of kernels.h to PyTorch: the operators that only training needs. See binding.h.

#include "binding.h"

namespace {

using namespace sgan_binding;

// ---------------------------------------------------------------------------------------------------------------------
// epilogue: bias_act with a strength of the noise, and its derivatives with all of their sums

Tensor epilogue(const Tensor& x, const MaybeTensor& scale, const MaybeTensor& noise, const MaybeTensor& strength,
                const MaybeTensor& b, double slope, double gain, double clamp) {
    Tensor in = dense(x);
    sgan::BiasAct args = bias_act_args(in, scale, noise, b, slope == 1 ? "linear" : "lrelu", gain, slope, clamp, 0);
    args.strength = small<0>("strength", strength, x, {});
    Tensor y = torch::stable::empty_like(in);
    args.x = in.const_data_ptr(), args.out = y.mutable_data_ptr();
    Launch launch(in);
    raise("epilogue", sgan::bias_act(args, launch.stream));
    return y;
}

// Arguments shared by both derivatives. Without anything of a single sample, the batch is one.
sgan::EpilogueGrad epilogue_grad_args(const Tensor& dy, const MaybeTensor& y, const MaybeTensor& x,
                                      const MaybeTensor& scale, const MaybeTensor& noise, double slope, double gain,
                                      double clamp, const MaybeTensor& b, int32_t order) {
    const sgan::BiasAct like = bias_act_args(dy, scale, noise, std::nullopt, "lrelu", gain, slope, clamp, 1);
    STD_TORCH_CHECK(like.channels_last || like.c == 1, "dy must be channels-last");
    STD_TORCH_CHECK(y || (slope == 1 && clamp == std::numeric_limits<double>::infinity()), "y is needed");
    sgan::EpilogueGrad args{};
    STD_TORCH_CHECK(!b || y, "b needs y");
    args.b = small<1>("b", b, dy, {dy.size(1)});
    args.scale = like.scale, args.noise = like.noise, args.noise_stride = like.noise_stride;
    for (const MaybeTensor* t : {&y, &x}) {
        if (!*t) continue;
        check_same("y or x", **t, dy);
        STD_TORCH_CHECK(format_of(**t) == format_of(dy), "y and x must have the memory format of dy");
    }
    args.dy = dy.const_data_ptr();
    args.y = y ? y->const_data_ptr() : nullptr, args.x = x ? x->const_data_ptr() : nullptr;
    const bool whole = !scale && !x && !noise;
    args.n = whole ? 1 : like.n, args.c = like.c, args.p = whole ? like.n * like.p : like.p;
    args.dtype = like.dtype, args.order = order;
    args.slope = slope, args.gain = gain, args.clamp = clamp;
    return args;
}

void launch_epilogue_grad(const char* op, sgan::EpilogueGrad& args, const Tensor& dy) {
    Tensor partial = acc_empty({sgan::epilogue_workspace(args)}, dy);
    args.partial = partial.mutable_data_ptr();
    Launch launch(dy);
    raise(op, sgan::epilogue_grad(args, launch.stream));
}

// dx, dscale if there is x, dstrength if there is noise, db if `bias`; what is not requested is empty.
std::tuple<Tensor, Tensor, Tensor, Tensor> epilogue_backward(const Tensor& dy, const MaybeTensor& y,
                                                             const MaybeTensor& x, const MaybeTensor& scale,
                                                             const MaybeTensor& noise, bool bias, double slope,
                                                             double gain, double clamp, const MaybeTensor& b) {
    sgan::EpilogueGrad args = epilogue_grad_args(dy, y, x, scale, noise, slope, gain, clamp, b, 1);
    Tensor dx = torch::stable::empty_like(dy);
    Tensor dscale = acc_empty({x ? dy.size(0) : 0, dy.size(1)}, dy), db = acc_empty({bias ? dy.size(1) : 0}, dy);
    Tensor dstrength = noise ? acc_empty({}, dy) : acc_empty({0}, dy);
    args.dx = dx.mutable_data_ptr();
    args.dscale = x ? dscale.mutable_data_ptr() : nullptr, args.db = bias ? db.mutable_data_ptr() : nullptr;
    args.dstrength = noise ? dstrength.mutable_data_ptr() : nullptr;
    launch_epilogue_grad("epilogue_backward", args, dy);
    return {dx, dscale, dstrength, db};
}

// The derivatives with respect to dy; x if `gscale` is given; and scale, if there is one and `gx` is given.
std::tuple<Tensor, Tensor, Tensor> epilogue_double_backward(
    const MaybeTensor& gx, const MaybeTensor& gscale, const MaybeTensor& gstrength, const MaybeTensor& gb,
    const Tensor& dy, const MaybeTensor& y, const MaybeTensor& x, const MaybeTensor& scale, const MaybeTensor& noise,
    double slope, double gain, double clamp, const MaybeTensor& b) {
    sgan::EpilogueGrad args = epilogue_grad_args(dy, y, x, scale, noise, slope, gain, clamp, b, 2);
    MaybeTensor direction;
    if (gx) check_same("gx", *gx, dy), direction = laid_out_like(*gx, dy), args.gx = direction->const_data_ptr();
    args.gscale = small<2>("gscale", gscale, dy, {dy.size(0), dy.size(1)});
    args.gb = small<1>("gb", gb, dy, {dy.size(1)}), args.gstrength = small<0>("gstrength", gstrength, dy, {});
    STD_TORCH_CHECK(!gscale || x, "gscale needs x");
    STD_TORCH_CHECK(!gstrength || noise, "gstrength needs noise");
    const bool has_scale = gx && scale;
    Tensor ddy = torch::stable::empty_like(dy), cscale = acc_empty({has_scale ? dy.size(0) : 0, dy.size(1)}, dy);
    Tensor cx = gscale ? torch::stable::empty_like(dy) : empty({0, 0, 0, 0}, dy.scalar_type(), dy, format_of(dy));
    args.dx = ddy.mutable_data_ptr();
    args.cx = gscale ? cx.mutable_data_ptr() : nullptr;
    args.dscale = has_scale ? cscale.mutable_data_ptr() : nullptr;
    launch_epilogue_grad("epilogue_double_backward", args, dy);
    return {ddy, cx, cscale};
}

// ---------------------------------------------------------------------------------------------------------------------
// modulation: weights and styles of a modulated convolution

void check_acc(const char* name, const Tensor& t) {
    STD_TORCH_CHECK(on_device(t), name, " must be on a GPU");
    STD_TORCH_CHECK(t.scalar_type() == acc_type(t), name, " must be float32 or float64");
}

// w', q and factor; `half` is 0: w' has the type of w, 1: float16, 2: bfloat16.
std::tuple<Tensor, Tensor, Tensor> modulation_weights(const Tensor& w, double gain, bool normalize, int64_t half) {
    check_acc("w", w);
    STD_TORCH_CHECK(w.dim() == 4, "w must be [O, I, k, k], not ", text(w));
    Tensor in = dense(w);
    const ScalarType type = half == 0 ? w.scalar_type() : half == 1 ? ScalarType::Half : ScalarType::BFloat16;
    Tensor out = empty({w.size(0), w.size(1), w.size(2), w.size(3)}, type, w, format_of(in));
    Tensor q = acc_empty({w.size(0), w.size(1)}, w), factor = acc_empty({w.size(0)}, w);
    sgan::ModulationWeights args{};
    args.w = in.const_data_ptr(), args.out = out.mutable_data_ptr();
    args.q = q.mutable_data_ptr(), args.factor = factor.mutable_data_ptr();
    args.o = w.size(0), args.i = w.size(1), args.taps = w.size(2) * w.size(3);
    args.dtype = dtype_of("w", out), args.channels_last = channels_last(in);
    args.normalize = normalize, args.gain = gain;
    Launch launch(w);
    raise("modulation_weights", sgan::modulation_weights(args, launch.stream));
    return {out, q, factor};
}

Tensor modulation_weights_backward(const MaybeTensor& gw, const MaybeTensor& gq, const Tensor& w,
                                   const Tensor& factor) {
    check_acc("w", w);
    Tensor in = dense(w), dw = torch::stable::empty_like(in);
    sgan::ModulationWeightsGrad args{};
    MaybeTensor upstream;
    if (gw) {
        check_device("gw", *gw, w);
        STD_TORCH_CHECK(text(*gw) == text(w), "gw must have shape ", text(w), ", not ", text(*gw));
        upstream = laid_out_like(*gw, in), args.gw = upstream->const_data_ptr();
    }
    args.gq = small<2>("gq", gq, w, {w.size(0), w.size(1)}), args.factor = small<1>("factor", factor, w, {w.size(0)});
    args.w = in.const_data_ptr(), args.dw = dw.mutable_data_ptr();
    args.o = w.size(0), args.i = w.size(1), args.taps = w.size(2) * w.size(3);
    args.dtype = dtype_of("gw", gw ? *gw : w), args.channels_last = channels_last(in);
    Launch launch(w);
    raise("modulation_weights_backward", sgan::modulation_weights_grad(args, launch.stream));
    return dw;
}

std::tuple<Tensor, Tensor, Tensor> modulation_styles(const Tensor& style, const Tensor& q, bool normalize) {
    check_acc("style", style);
    STD_TORCH_CHECK(style.dim() == 2, "style must be [N, I], not ", text(style));
    Tensor in = torch::stable::contiguous(style);
    sgan::ModulationStyles args{};
    args.q = small<2>("q", q, style, {-1, style.size(1)});
    args.n = style.size(0), args.i = style.size(1), args.o = q.size(0);
    Tensor out = torch::stable::empty_like(in), d = acc_empty({args.n, args.o}, style);
    Tensor factor = acc_empty({args.n}, style);
    args.style = in.const_data_ptr(), args.out = out.mutable_data_ptr();
    args.d = d.mutable_data_ptr(), args.factor = factor.mutable_data_ptr();
    args.dtype = dtype_of("style", style), args.normalize = normalize;
    Launch launch(style);
    raise("modulation_styles", sgan::modulation_styles(args, launch.stream));
    return {out, d, factor};
}

std::tuple<Tensor, Tensor> modulation_styles_backward(const MaybeTensor& gstyle, const Tensor& gd, const Tensor& style,
                                                      const Tensor& d, const Tensor& q, const Tensor& factor,
                                                      bool for_q) {
    check_acc("style", style);
    sgan::ModulationStylesGrad args{};
    args.n = style.size(0), args.i = style.size(1), args.o = q.size(0);
    args.gs = small<2>("gstyle", gstyle, style, {args.n, args.i}), args.gd = small<2>("gd", gd, style, {args.n, args.o});
    args.style = small<2>("style", style, style, {args.n, args.i}), args.d = small<2>("d", d, style, {args.n, args.o});
    args.q = small<2>("q", q, style, {args.o, args.i}), args.factor = small<1>("factor", factor, style, {args.n});
    Tensor ds = torch::stable::empty_like(style), gq = acc_empty({for_q ? args.o : 0, args.i}, style);
    args.ds = ds.mutable_data_ptr(), args.gq = for_q ? gq.mutable_data_ptr() : nullptr;
    args.dtype = dtype_of("style", style);
    Launch launch(style);
    raise("modulation_styles_backward", sgan::modulation_styles_grad(args, launch.stream));
    return {ds, gq};
}

// The derivatives of ds in the direction u with respect to gstyle, gd, style, d and q.
std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> modulation_styles_double_backward(
    const Tensor& u, const Tensor& gd, const Tensor& style, const Tensor& d, const Tensor& q, const Tensor& factor) {
    check_acc("style", style);
    sgan::ModulationStylesSecond args{};
    args.n = style.size(0), args.i = style.size(1), args.o = q.size(0);
    args.u = small<2>("u", u, style, {args.n, args.i}), args.gd = small<2>("gd", gd, style, {args.n, args.o});
    args.style = small<2>("style", style, style, {args.n, args.i}), args.d = small<2>("d", d, style, {args.n, args.o});
    args.q = small<2>("q", q, style, {args.o, args.i}), args.factor = small<1>("factor", factor, style, {args.n});
    Tensor cgs = torch::stable::empty_like(style), cgd = torch::stable::empty_like(d);
    Tensor cs = torch::stable::empty_like(style), cd = torch::stable::empty_like(d), cq = torch::stable::empty_like(q);
    args.cgs = cgs.mutable_data_ptr(), args.cgd = cgd.mutable_data_ptr(), args.cs = cs.mutable_data_ptr();
    args.cd = cd.mutable_data_ptr(), args.cq = cq.mutable_data_ptr();
    args.dtype = dtype_of("style", style);
    Launch launch(style);
    raise("modulation_styles_double_backward", sgan::modulation_styles_second(args, launch.stream));
    return {cgs, cgd, cs, cd, cq};
}

// ---------------------------------------------------------------------------------------------------------------------
// scaled_sums

// gain (a + b) of each tensor; b has as many as a, or none. `half` as above.
std::vector<Tensor> scaled_sums(std::vector<Tensor> a, std::vector<Tensor> b, std::vector<double> gain, int64_t half) {
    STD_TORCH_CHECK(!a.empty() && a.size() <= sgan::kSums && gain.size() == a.size(), "there must be a gain for each "
                    "of 1 to 32 tensors");
    STD_TORCH_CHECK(b.empty() || b.size() == a.size(), "b must have as many tensors as a, or none");
    const ScalarType to = half == 0 ? acc_type(a[0]) : half == 1 ? ScalarType::Half : ScalarType::BFloat16;
    sgan::ScaledSums args{};
    args.count = static_cast<int64_t>(a.size()), args.from = dtype_of("a", a[0]);
    std::vector<Tensor> out;
    for (size_t s = 0; s < a.size(); s++) {
        check_device("a", a[s], a[0]);
        STD_TORCH_CHECK(a[s].scalar_type() == a[0].scalar_type(), "all tensors must have the same type");
        STD_TORCH_CHECK(a[s].dim() == 4 && (a[s].is_contiguous() || channels_last(a[s])), "a must be dense and "
                        "[O, I, k, k]");
        out.push_back(empty({a[s].size(0), a[s].size(1), a[s].size(2), a[s].size(3)}, to, a[s], format_of(a[s])));
        args.a[s] = a[s].const_data_ptr(), args.out[s] = out[s].mutable_data_ptr();
        args.numel[s] = a[s].numel(), args.gain[s] = gain[s];
        if (b.empty()) continue;
        check_same("b", b[s], a[s]);
        STD_TORCH_CHECK(b[s].numel() == 0 || format_of(b[s]) == format_of(a[s]), "b must have the memory format of a");
        args.b[s] = b[s].const_data_ptr();
    }
    args.to = dtype_of("out", out[0]);
    Launch launch(a[0]);
    raise("scaled_sums", sgan::scaled_sums(args, launch.stream));
    return out;
}

// ---------------------------------------------------------------------------------------------------------------------
// minibatch_std

sgan::MinibatchStd minibatch_std_args(const Tensor& x, int64_t group, int64_t sets, int32_t order) {
    STD_TORCH_CHECK(on_device(x), "x must be on a GPU");
    STD_TORCH_CHECK(x.dim() == 4 && (x.is_contiguous() || channels_last(x)), "x must be dense and [N, C, H, W]");
    sgan::MinibatchStd args{};
    args.x = x.const_data_ptr(), args.dtype = dtype_of("x", x), args.channels_last = channels_last(x);
    args.n = x.size(0), args.c = x.size(1), args.p = x.size(2) * x.size(3);
    args.sets = sets, args.group = group, args.order = order;
    return args;
}

Tensor with_maps(const Tensor& x, int64_t sets) {
    return empty({x.size(0), x.size(1) + sets, x.size(2), x.size(3)}, x.scalar_type(), x, format_of(x));
}

const void* gradient_of_maps(const Tensor& dy, const Tensor& x, int64_t sets) {
    check_device("dy", dy, x);
    const bool fits = dy.dim() == 4 && dy.size(0) == x.size(0) && dy.size(1) == x.size(1) + sets &&
                      dy.size(2) == x.size(2) && dy.size(3) == x.size(3) && dy.scalar_type() == x.scalar_type();
    STD_TORCH_CHECK(fits && format_of(dy) == format_of(x), "dy must have the type and memory format of x, and ",
                    x.size(1) + sets, " channels, not ", text(dy));
    return dy.const_data_ptr();
}

Tensor minibatch_std(const Tensor& x, int64_t group, int64_t sets) {
    sgan::MinibatchStd args = minibatch_std_args(x, group, sets, 0);
    Tensor out = with_maps(x, sets);
    args.out = out.mutable_data_ptr();
    Launch launch(x);
    raise("minibatch_std", sgan::minibatch_std(args, launch.stream));
    return out;
}

Tensor minibatch_std_backward(const Tensor& dy, const Tensor& x, int64_t group, int64_t sets) {
    sgan::MinibatchStd args = minibatch_std_args(x, group, sets, 1);
    Tensor dx = torch::stable::empty_like(x);
    args.dout = gradient_of_maps(dy, x, sets), args.dx = dx.mutable_data_ptr();
    Launch launch(x);
    raise("minibatch_std_backward", sgan::minibatch_std(args, launch.stream));
    return dx;
}

// The derivatives of dx in the direction u with respect to dy and x.
std::tuple<Tensor, Tensor> minibatch_std_double_backward(const Tensor& u, const Tensor& dy, const Tensor& x,
                                                         int64_t group, int64_t sets) {
    sgan::MinibatchStd args = minibatch_std_args(x, group, sets, 2);
    check_same("u", u, x);
    STD_TORCH_CHECK(format_of(u) == format_of(x), "u must have the memory format of x");
    Tensor cdy = with_maps(x, sets), cx = torch::stable::empty_like(x);
    args.dout = gradient_of_maps(dy, x, sets), args.u = u.const_data_ptr();
    args.out = cdy.mutable_data_ptr(), args.dx = cx.mutable_data_ptr();
    Launch launch(x);
    raise("minibatch_std_double_backward", sgan::minibatch_std(args, launch.stream));
    return {cdy, cx};
}

// ---------------------------------------------------------------------------------------------------------------------
// counter_uniform

Tensor counter_uniform(const Tensor& index, std::vector<int64_t> keys, std::vector<int64_t> counts, bool centered) {
    STD_TORCH_CHECK(on_device(index), "index must be on a GPU");
    STD_TORCH_CHECK(index.dim() == 1 && index.scalar_type() == ScalarType::Long, "index must be [N] int64");
    STD_TORCH_CHECK(keys.size() == counts.size() && keys.size() <= sgan::kSegments, "there must be a count for each of "
                    "at most 32 keys");
    Tensor in = torch::stable::contiguous(index);
    sgan::CounterUniform args{};
    args.n = in.size(0), args.segments = static_cast<int64_t>(keys.size());
    int64_t total = 0;
    for (size_t s = 0; s < keys.size(); s++) {
        STD_TORCH_CHECK(counts[s] >= 0, "counts must not be negative");
        args.key[s] = keys[s], args.count[s] = counts[s], args.start[s] = total;
        total += args.n * counts[s];
    }
    args.centered = centered;
    Tensor out = torch::stable::empty({&total, 1}, ScalarType::Float, std::nullopt, in.device());
    args.index = in.const_data_ptr(), args.out = out.mutable_data_ptr();
    Launch launch(in);
    raise("counter_uniform", sgan::counter_uniform(args, launch.stream));
    return out;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(sgan, SGAN_DEVICE, m) {
    m.impl("epilogue", TORCH_BOX(&epilogue));
    m.impl("epilogue_backward", TORCH_BOX(&epilogue_backward));
    m.impl("epilogue_double_backward", TORCH_BOX(&epilogue_double_backward));
    m.impl("modulation_weights", TORCH_BOX(&modulation_weights));
    m.impl("modulation_weights_backward", TORCH_BOX(&modulation_weights_backward));
    m.impl("modulation_styles", TORCH_BOX(&modulation_styles));
    m.impl("modulation_styles_backward", TORCH_BOX(&modulation_styles_backward));
    m.impl("modulation_styles_double_backward", TORCH_BOX(&modulation_styles_double_backward));
    m.impl("scaled_sums", TORCH_BOX(&scaled_sums));
    m.impl("minibatch_std", TORCH_BOX(&minibatch_std));
    m.impl("minibatch_std_backward", TORCH_BOX(&minibatch_std_backward));
    m.impl("minibatch_std_double_backward", TORCH_BOX(&minibatch_std_double_backward));
    m.impl("counter_uniform", TORCH_BOX(&counter_uniform));
}
