// Executes the calls that harness.py wrote to a file: driver CALLS RESULTS
//
// Compiled with LAUNCHERS_HEADER, which declares the launchers, and LAUNCHERS, a LAUNCHER(name, struct) for each.
// A call is int64 [launcher, bytes of the struct, pointers], the struct, and for each pointer int64 [offset in the
// struct, bytes (-1: null), offset from 16-byte alignment, written], and the bytes unless it is written.
// A result is int64 [length of the message (-1: null)], the message, and the bytes of each written pointer.
#include LAUNCHERS_HEADER

#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "emulator.h"

struct Launcher {
    const char* name;
    const char* (*call)(const void* args);
};
#define LAUNCHER(name, Args) \
    {#name, [](const void* args) { return sgan::name(*static_cast<const sgan::Args*>(args), nullptr); }},
static const Launcher launchers[] = {LAUNCHERS};

struct Buffer {
    int64_t offset, size, shift, written;
    unsigned char* memory;  // exactly what the kernel may access, so that AddressSanitizer detects anything else
};

static void get(std::FILE* file, void* to, size_t bytes) {
    if (bytes && std::fread(to, bytes, 1, file) != 1) std::exit(3);
}

static Buffer get_buffer(std::FILE* calls, unsigned char* args) {
    Buffer buffer{};
    get(calls, &buffer, 4 * sizeof(int64_t));
    if (buffer.size < 0) return buffer;
    buffer.memory = static_cast<unsigned char*>(std::malloc(buffer.size + buffer.shift));
    void* pointer = buffer.memory + buffer.shift;
    std::memcpy(args + buffer.offset, &pointer, sizeof pointer);
    if (buffer.written) std::memset(pointer, 0xff, buffer.size);
    else get(calls, pointer, buffer.size);
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
        if (buffer.size > 0 && buffer.written) std::fwrite(buffer.memory + buffer.shift, buffer.size, 1, results);
        std::free(buffer.memory);
    }
}

int main(int, char** argv) {
    std::signal(SIGABRT, [](int) {  // raised by the sanitizers too
        emulator::print_place();
        std::_Exit(1);
    });
    std::FILE *calls = std::fopen(argv[1], "rb"), *results = std::fopen(argv[2], "wb");
    int64_t head[3];
    for (int i = 0; std::fread(head, sizeof head, 1, calls) == 1; i++) {
        std::fprintf(stderr, "call %d: %s\n", i, launchers[head[0]].name);
        make_call(head, calls, results);
    }
    return std::ferror(results) || std::fclose(results) ? 3 : 0;
}
