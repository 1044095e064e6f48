// Shared by library.cpp and library_training.cpp, which bind the launchers of kernels.h to PyTorch: check tensors,
// allocate outputs, select the stream, register ops.
//
// Uses the LibTorch stable ABI of PyTorch 2.10: one binary works with that release and all later ones. The schemas of
// the operators are in stylegan_cli/, with their documentation and derivatives.
#pragma once

#include <dlfcn.h>

#include <array>
#include <limits>
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

namespace sgan_binding {

using torch::headeronly::MemoryFormat;
using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using MaybeTensor = std::optional<Tensor>;

// ---------------------------------------------------------------------------------------------------------------------
// Device and stream

#ifdef SGAN_EMULATE  // the tests run the kernels on the CPU

#define SGAN_DEVICE CPU
inline bool on_device(const Tensor& t) { return t.is_cpu(); }
struct Launch {
    explicit Launch(const Tensor&) {}
    void* stream = nullptr;
};

#else

#define SGAN_DEVICE CUDA
inline bool on_device(const Tensor& t) { return t.is_cuda(); }

// aoti_torch_get_current_cuda_stream exists only in CUDA builds of PyTorch. It is looked up at run time, because other
// builds could not load, and so not test, a library that links to it.
using CurrentStream = AOTITorchError (*)(int32_t, void**);
inline CurrentStream current_stream() {
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

inline void raise(const char* op, const char* error) { STD_TORCH_CHECK(error == nullptr, "sgan::", op, ": ", error); }

// ---------------------------------------------------------------------------------------------------------------------
// Checks and layouts of tensors

inline std::string text(const Tensor& t) {
    std::string s;
    for (int64_t i = 0; i < t.dim(); i++) s += (i ? ", " : "") + std::to_string(t.size(i));
    return "[" + s + "]";
}

inline sgan::Dtype dtype_of(const char* name, const Tensor& t) {
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
inline ScalarType acc_type(const Tensor& t) {
    return t.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
}

inline void check_device(const char* name, const Tensor& t, const Tensor& x) {
    STD_TORCH_CHECK(on_device(t), name, " must be on a GPU");
    STD_TORCH_CHECK(t.get_device_index() == x.get_device_index(), name, " must be on the GPU of the other tensors");
}

inline void check_same(const char* name, const Tensor& t, const Tensor& x) {
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
inline bool channels_last(const Tensor& t) {
    if (t.dim() != 4 || t.is_contiguous()) return false;
    int64_t dense = 1;
    for (int64_t side : {1, 3, 2, 0}) {
        if (t.size(side) != 1 && t.stride(side) != dense) return false;
        dense *= t.size(side);
    }
    return true;
}

inline MemoryFormat format_of(const Tensor& t) {
    return channels_last(t) ? MemoryFormat::ChannelsLast : MemoryFormat::Contiguous;
}

// t itself if it is dense, otherwise a contiguous copy.
inline Tensor dense(const Tensor& t) {
    return t.is_contiguous() || channels_last(t) ? t : torch::stable::contiguous(t);
}

// t in the memory format of x.
inline Tensor laid_out_like(const Tensor& t, const Tensor& x) { return torch::stable::contiguous(t, format_of(x)); }

inline Tensor empty(std::array<int64_t, 4> sizes, ScalarType dtype, const Tensor& x, MemoryFormat format) {
    return torch::stable::empty({sizes.data(), sizes.size()}, dtype, std::nullopt, x.device(), std::nullopt, format);
}

inline sgan::Activation activation(const std::string& name) {
    constexpr std::array names{"linear", "relu", "lrelu", "tanh", "sigmoid", "swish"};
    for (size_t i = 0; i < names.size(); i++)
        if (name == names[i]) return static_cast<sgan::Activation>(i);
    STD_TORCH_CHECK(false, "act must be a known activation, not ", name);
    return sgan::Activation::linear;
}

// Arguments shared by the three passes; `x` determines shape, type and layout.
inline sgan::BiasAct bias_act_args(const Tensor& x, const MaybeTensor& scale, const MaybeTensor& noise, const MaybeTensor& b,
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

inline Tensor acc_empty(std::vector<int64_t> sizes, const Tensor& x) {
    return torch::stable::empty({sizes.data(), sizes.size()}, acc_type(x), std::nullopt, x.device());
}

}  // namespace sgan_binding
