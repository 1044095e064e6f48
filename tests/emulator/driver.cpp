// Executes the calls that harness.py wrote to a file: driver CALLS RESULTS
//
// Compiled with LAUNCHERS_HEADER, which declares the launchers, and LAUNCHERS, a LAUNCHER(name, struct) for each.
// A call is int64 [launcher, bytes of the struct, pointers], the struct, and for each pointer int64 [offset in the
// struct, bytes (-1: null), offset from 16-byte alignment, written], and the bytes unless it is written.
// With SGAN_EMULATE the kernels run on the CPU, otherwise on a GPU.
// A result is int64 [length of the message (-1: null)], the message, and the bytes of each written pointer.
#include LAUNCHERS_HEADER

#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#ifdef SGAN_EMULATE

#include "emulator.h"

static unsigned char* allocate(size_t bytes) { return static_cast<unsigned char*>(std::malloc(bytes)); }
static void release(void* memory) { std::free(memory); }
static void fill(void* memory, size_t bytes) { std::memset(memory, 0xff, bytes); }
static void copy(void* to, const void* from, size_t bytes) { std::memcpy(to, from, bytes); }
static void report_aborts() {
    std::signal(SIGABRT, [](int) {  // raised by the sanitizers too
        emulator::print_place();
        std::_Exit(1);
    });
}

#else

#include <cuda_runtime.h>

static void check(cudaError_t error) {
    if (error == cudaSuccess) return;
    std::fprintf(stderr, "CUDA: %s\n", cudaGetErrorString(error));
    std::_Exit(3);
}
static unsigned char* allocate(size_t bytes) {
    void* memory = nullptr;
    check(cudaMalloc(&memory, bytes ? bytes : 1));
    return static_cast<unsigned char*>(memory);
}
static void release(void* memory) { check(cudaFree(memory)); }
static void fill(void* memory, size_t bytes) { check(cudaMemset(memory, 0xff, bytes)); }
static void copy(void* to, const void* from, size_t bytes) { check(cudaMemcpy(to, from, bytes, cudaMemcpyDefault)); }
static void report_aborts() {}

#endif

struct Launcher {
    const char* name;
    const char* (*call)(const void* args);
};
#define LAUNCHER(name, Args) \
    {#name, [](const void* args) { return sgan::name(*static_cast<const sgan::Args*>(args), nullptr); }},
static const Launcher launchers[] = {LAUNCHERS};

struct Buffer {
    int64_t offset, size, shift, written;
    unsigned char* memory;  // exactly what the kernel may access, so that sanitizers detect anything else
};

static void get(std::FILE* file, void* to, size_t bytes) {
    if (bytes && std::fread(to, bytes, 1, file) != 1) std::exit(3);
}

static Buffer get_buffer(std::FILE* calls, unsigned char* args) {
    Buffer buffer{};
    get(calls, &buffer, 4 * sizeof(int64_t));
    if (buffer.size < 0) return buffer;
    buffer.memory = allocate(buffer.size + buffer.shift);
    void* pointer = buffer.memory + buffer.shift;
    std::memcpy(args + buffer.offset, &pointer, sizeof pointer);
    std::vector<unsigned char> content(buffer.written ? 0 : buffer.size);
    get(calls, content.data(), content.size());
    if (buffer.written) fill(pointer, buffer.size);
    else if (buffer.size) copy(pointer, content.data(), buffer.size);
    return buffer;
}

static void make_call(const int64_t (&head)[3], std::FILE* calls, std::FILE* results) {
    std::vector<unsigned char> args(head[1]);
    get(calls, args.data(), args.size());
    std::vector<Buffer> buffers;
    for (int64_t i = 0; i < head[2]; i++) buffers.push_back(get_buffer(calls, args.data()));
    const char* message = launchers[head[0]].call(args.data());
    const int64_t length = message ? static_cast<int64_t>(std::strlen(message)) : -1;
    std::fwrite(&length, sizeof length, 1, results);
    if (message) std::fputs(message, results);
    for (const Buffer& buffer : buffers) {
        if (buffer.size > 0 && buffer.written) {
            std::vector<unsigned char> content(buffer.size);  // the copy waits for the kernel
            copy(content.data(), buffer.memory + buffer.shift, buffer.size);
            std::fwrite(content.data(), buffer.size, 1, results);
        }
        if (buffer.size >= 0) release(buffer.memory);
    }
}

int main(int, char** argv) {
    report_aborts();
    std::FILE *calls = std::fopen(argv[1], "rb"), *results = std::fopen(argv[2], "wb");
    int64_t head[3];
    for (int i = 0; std::fread(head, sizeof head, 1, calls) == 1; i++) {
        std::fprintf(stderr, "call %d: %s\n", i, launchers[head[0]].name);
        make_call(head, calls, results);
    }
    return std::ferror(results) || std::fclose(results) ? 3 : 0;
}
