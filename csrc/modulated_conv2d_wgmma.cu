// Modulated convolution with 3x3 taps on sm_90a: see modulated_conv2d.cu for what is computed.
//
// A tile is 16 x 16 pixels of BN channels. A block has a warp that copies weights, seven that read the input, multiply
// it by the styles and write it to shared memory, and two warpgroups that multiply. They run ahead of each other by
// some stages, also from tile to tile. wgmma takes the input from shared memory too: the 8 x 8 pixels of a patch under
// one tap are 64 rows of a matrix whose descriptor says where they are, so that nothing is copied for a tap.
//
// When upsampling, these are 16 x 16 pixels of each phase: see modulated_conv2d.cuh.
#include "hopper.cuh"
#include "modulated_conv2d.cuh"

namespace sgan {
namespace {

constexpr int SIDE = 16, IN_SIDE = SIDE + 2, PIXELS = IN_SIDE * IN_SIDE;
constexpr int PATCHES = 4;                         // of 8 x 8 pixels
constexpr int PLANE = 16 * (PIXELS + 2);           // bytes of 8 channels; 96 modulo 128 avoids bank conflicts
constexpr int INPUT = CHUNK / 8 * PLANE;           // bytes of a stage
constexpr int MULTIPLIERS = 256, LOADERS = 224, THREADS = MULTIPLIERS + 32 + LOADERS;

// Compiled without wgmma, the kernel does nothing; it then allows one thread only, which the host can see.
#if defined(SGAN_WGMMA) || !defined(__CUDA_ARCH__)
#define SGAN_WGMMA_THREADS THREADS
#else
#define SGAN_WGMMA_THREADS 1
#endif

// TEAM: warpgroups that share a tile. Alone, one multiplies while the other finishes its tile and stores it; each then
// has its own ring of inputs, and the weights must fit into shared memory, where they stay.
template <class T_, int BN_, int TEAM_, int UP_ = 1>
struct Config {
    using T = T_;
    static constexpr int BN = BN_, TEAM = TEAM_, UP = UP_, PHASES = UP * UP, OUT = UP == 2 ? OUT_X : SIDE;
    static constexpr int OWN = PATCHES / TEAM;                     // patches of a warpgroup
    static constexpr int TAP = BN * CHUNK * 2, WEIGHTS = 3 * TAP;  // bytes; a stage has the taps of one row
    static constexpr int WEIGHT_STAGES = BN == 128 ? 4 : 6;
    static constexpr int RINGS = 2 / TEAM, INPUT_STAGES = TEAM == 1 ? 2 : 3;
    static constexpr int BARRIERS = 2 * (RINGS * INPUT_STAGES + WEIGHT_STAGES) + 1;
    static constexpr int INPUTS_AT = WEIGHT_STAGES * WEIGHTS, GRID_AT = INPUTS_AT + RINGS * INPUT_STAGES * INPUT;
    static constexpr int BARRIERS_AT = GRID_AT + (UP == 2 ? PHASES * SIDE * SIDE * BN * 2 : 0);
    static constexpr size_t BYTES = BARRIERS_AT + BARRIERS * sizeof(uint64_t);
    static_assert(TEAM * OWN == PATCHES && (UP == 1 || (TEAM == 2 && BN == 32)), "unsupported tile");
};

#ifdef SGAN_WGMMA

constexpr int ROWS = 3, ROUNDS = IN_SIDE / ROWS;  // read together; vectors of a loader
static_assert(ROWS * IN_SIDE * (CHUNK / 8) <= LOADERS && IN_SIDE % ROWS == 0, "too few loaders");

// A ring of stages in shared memory, written and read in turn. Item i uses stage i % STAGES. A phase has only a parity,
// so nobody may wait for an item without having waited for the one before it in the same stage.
template <int STAGES, int SIZE>
struct Ring {
    unsigned char* memory;  // [STAGES, SIZE]
    uint64_t* barriers;     // [2, STAGES]: full, empty

    static __device__ __forceinline__ uint32_t parity(unsigned item) { return item / STAGES & 1; }
    __device__ __forceinline__ unsigned char* stage(unsigned item) const { return memory + item % STAGES * SIZE; }
    __device__ __forceinline__ uint64_t* full(unsigned item) const { return barriers + item % STAGES; }
    __device__ __forceinline__ uint64_t* empty(unsigned item) const { return barriers + STAGES + item % STAGES; }
    __device__ __forceinline__ void wait_full(unsigned item) const { mbarrier_wait(full(item), parity(item)); }
    __device__ __forceinline__ void wait_empty(unsigned item) const { mbarrier_wait(empty(item), parity(item) ^ 1); }

    __device__ __forceinline__ void init(int writers, int readers) const {
        for (int i = 0; i < STAGES; i++) mbarrier_init(barriers + i, writers), mbarrier_init(empty(i), readers);
    }
    // For a warp whose lanes have all read the item.
    __device__ __forceinline__ void release(unsigned item) const {
        if (threadIdx.x % 32 == 0) mbarrier_arrive(empty(item));
    }
};

// What all warps of a block know.
template <class C>
struct Block {
    using Inputs = Ring<C::INPUT_STAGES, INPUT>;
    const ModulatedConv2d& args;
    const Tiles& tiles;
    Ring<C::WEIGHT_STAGES, C::WEIGHTS> weights;  // items: rows of taps, of chunks, of tiles
    Inputs first_inputs;                         // items: chunks, of tiles
    typename C::T* grid;                         // the phases of a tile, when upsampling
    uint64_t* meeting;                           // barrier of the warps that multiply

    __device__ __forceinline__ Inputs inputs(int ring) const {
        constexpr int size = C::INPUT_STAGES * INPUT;
        return {first_inputs.memory + ring * size, first_inputs.barriers + ring * 2 * C::INPUT_STAGES};
    }
    __device__ __forceinline__ Place place(unsigned tile) const {
        return place_of<C::OUT, C::OUT, C::BN>(tile, C::TEAM == 1 ? 1 : tiles.out, tiles);
    }
};

// One thread copies the weights.
template <class C>
__device__ __forceinline__ void copy_weights(const Block<C>& block) {
    const Tiles& tiles = block.tiles;
    unsigned item = 0;
    for (unsigned id = blockIdx.x; id < tiles.count; id += gridDim.x) {
        const auto* from = static_cast<const typename C::T*>(block.args.w) + block.place(id).out * CHUNK;
        for (int row = 0; row < 3 * tiles.chunks; row++, item++) {
            block.weights.wait_empty(item);
            mbarrier_expect(block.weights.full(item), C::WEIGHTS);
            for (int i = 0; i < 3; i++, from += tiles.rows * CHUNK)
                copy_bulk(block.weights.stage(item) + i * C::TAP, from, C::TAP, block.weights.full(item));
        }
        if (C::TEAM == 1) break;
    }
}

// A chunk of a tile, and what a loader reads of it: 8 channels of a pixel in every third row.
template <class C>
struct Chunk {
    using T = typename C::T;
    unsigned tile;
    int channel;      // the first
    int n;            // sample
    int y;            // row of the first pixel
    int offset;       // of the first pixel in the sample
    bool inside;      // whether the column exists

    __device__ __forceinline__ void locate(const Block<C>& block, int pixel) {
        const Place at = block.place(tile);
        const int width = static_cast<int>(block.args.width), x = at.x + pixel % IN_SIDE - C::UP;
        n = at.n, y = at.y + pixel / IN_SIDE - C::UP;
        offset = (y * width + x) * static_cast<int>(block.args.in_c);
        inside = x >= 0 && x < width && pixel < ROWS * IN_SIDE;
    }

    __device__ __forceinline__ Pairs read(const Block<C>& block, int r, int own) const {
        const int height = static_cast<int>(block.args.height);
        const int row = static_cast<int>(block.args.width * block.args.in_c);
        if (!inside || y + r * ROWS < 0 || y + r * ROWS >= height || own < 0) return {};
        const T* x = static_cast<const T*>(block.args.x) + static_cast<int64_t>(n) * height * row;
        return load_pairs(x + (offset + r * ROWS * row + own));
    }

    // Go to the next chunk; whether there is one.
    __device__ __forceinline__ bool next(const Block<C>& block, int pixel) {
        channel += CHUNK;
        if (channel < block.args.in_c) return true;
        channel = 0, tile += gridDim.x;
        if (tile >= block.tiles.count) return false;
        locate(block, pixel);
        return true;
    }
};

// Seven warps read the input, multiply it by the styles and write it to shared memory: [CHUNK / 8, PIXELS, 8]. The next
// chunk is on its way while one is written.
template <class C>
__device__ __forceinline__ void load_inputs(const Block<C>& block, int loader) {
    using T = typename C::T;
    const int first = loader % 4 * 8, pixel = loader / 4, in_c = static_cast<int>(block.args.in_c);
    const int place = pixel < ROWS * IN_SIDE ? loader % 4 * PLANE + pixel * 16 : -1;  // of the first vector in a stage
    Chunk<C> chunk;
    chunk.tile = blockIdx.x - gridDim.x, chunk.channel = in_c;  // before the first
    Pairs v[ROUNDS] = {};
    float s[8] = {};
    bool any = false, more = true;  // whether there is a chunk to write, and one to read
    for (int turn = 0, step = 0; more; any = true) {
        more = chunk.next(block, pixel);
        const int channel = more && chunk.channel + first < in_c ? chunk.channel + first : -1;
        const auto inputs = block.inputs(turn % C::RINGS);
        const unsigned item = turn / C::RINGS * block.tiles.chunks + step;
        if (any) inputs.wait_empty(item);
        unsigned char* to = inputs.stage(item) + place;
#pragma unroll
        for (int r = 0; r < ROUNDS; r++) {
            if (any && place >= 0)
                store_pairs(reinterpret_cast<T*>(to + r * ROWS * IN_SIDE * 16), multiply_pairs<T>(v[r], s));
            v[r] = chunk.read(block, r, channel);
        }
#pragma unroll
        for (int k = 0; k < 8; k++)
            s[k] = channel >= 0 ? static_cast<const float*>(block.args.style)[chunk.n * in_c + channel + k] : 0.f;
        if (!any) continue;
        publish_shared();
        __syncwarp();
        if (loader % 32 == 0) mbarrier_arrive(inputs.full(item));
        if (++step == block.tiles.chunks) step = 0, turn++;
    }
}

// acc = the convolution at this warpgroup's patches, of each phase, from the next items of its rings.
template <class C>
__device__ __forceinline__ void multiply_tile(float (&acc)[C::PHASES * C::OWN][C::BN / 2], const Block<C>& block,
                                              const typename Block<C>::Inputs& inputs, int patch, unsigned input,
                                              unsigned weight) {
    const uint64_t x_base = matrix_descriptor(inputs.memory, Swizzle::none, PLANE, IN_SIDE * 16);
    const uint64_t w_base = matrix_descriptor(block.weights.memory, Swizzle::bytes64, 16, 512);
    const unsigned end = input + block.tiles.chunks;
    bool add = false;
    for (; input < end; input++) {
        inputs.wait_full(input);
#pragma unroll(C::UP == 2 ? 3 : 1)  // phases are known when compiling
        for (int row = 0; row < 3; row++, weight++) {
            block.weights.wait_full(weight);
            const uint64_t x = x_base + input % C::INPUT_STAGES * (INPUT / 16);
            const uint64_t w = w_base + weight % C::WEIGHT_STAGES * (C::WEIGHTS / 16);
            warpgroup_fence();
#pragma unroll
            for (int column = 0; column < 3; column++)
#pragma unroll
                for (int k = 0; k < CHUNK / 16; k++)
#pragma unroll
                    for (int m = 0; m < C::OWN; m++) {
                        const int below = C::UP == 2 ? shift_of(row) : row;
                        const int right = C::UP == 2 ? shift_of(column) : column;
                        const int phase = C::UP == 2 ? phase_of(row) * 2 + phase_of(column) : 0;
                        const int pixel = ((patch + m) / 2 * 8 + below) * IN_SIDE + (patch + m) % 2 * 8 + right;
                        const bool starts = k == 0 && (C::UP == 2 ? row < 2 && column < 2 : row + column == 0);
                        warpgroup_multiply_add<typename C::T, C::BN>(
                            acc[phase * C::OWN + m], x + (k * 2 * PLANE / 16 + pixel),
                            w + (column * C::TAP + k * 32) / 16, add || !starts);
                    }
            warpgroup_commit();
            warpgroup_wait<1>();  // the previous row has been read
            if (C::TEAM == 2 && (row > 0 || add)) block.weights.release(weight - 1);
            if (row == 0 && add) inputs.release(input - 1);
        }
        add = true;
    }
    warpgroup_wait<0>();
    if (C::TEAM == 2) block.weights.release(weight - 1);
    inputs.release(end - 1);
}

// Finish the sums and store them, 32 channels at a time: after the exchange a lane has 8 of them.
template <class C>
__device__ __forceinline__ void finish_tile(const float (&acc)[C::OWN][C::BN / 2], const Block<C>& block,
                                            const Place& at, int patch, int warp) {
    using T = typename C::T;
    const ModulatedConv2d& args = block.args;
    const Finish& finish = block.tiles.finish;
    const int lane = threadIdx.x % 32, q = lane % 4;
    const int row = at.y + patch / 2 * 8 + warp % 4 * 2, column = at.x + lane / 4;  // of the first pixel
    const int width = static_cast<int>(args.width), out_c = static_cast<int>(args.out_c);
    const int rows = static_cast<int>(args.height) - row, columns = width - column;  // that exist
    const int pixel = row * width + column;
    const auto* d = static_cast<const float*>(args.d) + static_cast<int64_t>(at.n) * out_c;
    const auto* b = static_cast<const float*>(args.b);
    const auto* noise = static_cast<const float*>(args.noise) + at.n * args.noise_stride + pixel;
    T* y = static_cast<T*>(args.y) + at.n * args.height * width * out_c + (pixel * out_c + at.out + q * 8);
    const auto below = [](int pair, int i) { return (pair + i / 2) / 2 * 8 + i % 2; };  // of pixel i of a pair
    const auto exists = [&](int pair, int i) { return below(pair, i) < rows && i / 2 * 8 < columns; };
    const auto offset = [&](int pair, int i) { return below(pair, i) * width + i / 2 * 8; };
#pragma unroll
    for (int pair = 0; pair < C::OWN; pair += 2) {  // of patches: four pixels
        float strength[4];
#pragma unroll
        for (int i = 0; i < 4; i++) strength[i] = args.noise && exists(pair, i) ? noise[offset(pair, i)] : 0.f;
        float image[2][4] = {};  // of each patch
#pragma unroll
        for (int group = 0; group < C::BN / 32; group++) {  // of channels
            const int first = at.out + group * 32;
            uint32_t r[4][4];
#pragma unroll
            for (int t = 0; t < 4; t++) {
                const int channel = first + t * 8 + q * 2;
                const bool inside = first + t * 8 < out_c;
                const auto scale = args.d && inside ? load<float, 2>(d + channel) : Vec<float, 2>{1.f, 1.f};
                const auto shift = args.b && inside ? load<float, 2>(b + channel) : Vec<float, 2>{0.f, 0.f};
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    const float* sums = &acc[pair + i / 2][group * 16 + t * 4 + i % 2 * 2];
                    r[i][t] = pack<T>(finish(sums[0], scale.at[0], strength[i] + shift.at[0]),
                                      finish(sums[1], scale.at[1], strength[i] + shift.at[1]));
                }
            }
            if (args.image) add_to_image<T>(image, r, args, at.n, first);
            if (!args.y) continue;
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const Pairs out = transpose_4x4(r[i][0], r[i][1], r[i][2], r[i][3]);
                if (exists(pair, i) && first + q * 8 < out_c)
                    store_pairs(y + offset(pair, i) * out_c + group * 32, out);
            }
        }
        if (!args.image) continue;
#pragma unroll
        for (int m = 0; m < 2; m++)
            write_image(args, at.n, image[m], row + (pair + m) / 2 * 8, column + m * 8, 1, 0);
    }
}

// Write the sums of this warpgroup's patches to shared memory, filter those of both warpgroups and store the result.
template <class C>
__device__ __forceinline__ void finish_grid(const float (&acc)[C::PHASES * C::OWN][C::BN / 2], const Block<C>& block,
                                            const Place& at, int patch, int warp) {
    using T = typename C::T;
    const int lane = threadIdx.x % 32;
    T* grid = grid_at<SIDE>(block.grid, (patch / 2 * 8 + warp % 4 * 2) * 2, lane / 4 * 2) + lane % 4 * 8;
#pragma unroll
    for (int i = 0; i < C::PHASES * C::OWN * 2; i++) {
        const float* c = acc[i / 2] + i % 2 * 2;
        const Pairs t = transpose_4x4(pack<T>(c[0], c[1]), pack<T>(c[4], c[5]), pack<T>(c[8], c[9]),
                                      pack<T>(c[12], c[13]));
        const int phase = i / 2 / C::OWN, m = i / 2 % C::OWN;
        store_pairs(grid_at<SIDE>(grid, (m / 2 * 8 + i % 2) * 2 + phase / 2, m % 2 * 16 + phase % 2), t);
    }
    const auto meet = [&](uint32_t parity) {
        __syncwarp();
        if (lane == 0) mbarrier_arrive(block.meeting);
        mbarrier_wait(block.meeting, parity);
    };
    meet(0);
    filter_tile<T, SIDE, true>(block.grid, block.args, block.tiles.finish, at, static_cast<int>(threadIdx.x));
    meet(1);
}

template <class C>
__device__ __forceinline__ void multiply_tiles(const Block<C>& block, int warp) {
    const int team = warp / 4, patch = C::TEAM == 2 ? team * C::OWN : 0, ring = team % C::RINGS;
    const unsigned chunks = static_cast<unsigned>(block.tiles.chunks);
    unsigned input = 0, weight = 0;
    for (unsigned id = blockIdx.x + ring * gridDim.x; id < block.tiles.count; id += C::RINGS * gridDim.x) {
        float acc[C::PHASES * C::OWN][C::BN / 2];
        if constexpr (C::UP == 2) memset(acc, 0, sizeof acc);  // else their registers would be taken while filtering
        multiply_tile<C>(acc, block, block.inputs(ring), patch, input, weight);
        if constexpr (C::UP == 2) finish_grid<C>(acc, block, block.place(id), patch, warp);
        else finish_tile<C>(acc, block, block.place(id), patch, warp);
        input += chunks;
        if (C::TEAM == 2) weight += 3 * chunks;
    }
}

#endif  // SGAN_WGMMA

template <class C>
__global__ void __launch_bounds__(SGAN_WGMMA_THREADS, 1)
    modulated_conv2d_wgmma_kernel(ModulatedConv2d args, Tiles tiles) {
#ifdef SGAN_WGMMA
    auto* shared = shared_memory<unsigned char>();
    auto* barriers = reinterpret_cast<uint64_t*>(shared + C::BARRIERS_AT);
    const Block<C> block{args, tiles, {shared, barriers}, {shared + C::INPUTS_AT, barriers + 2 * C::WEIGHT_STAGES},
                         reinterpret_cast<typename C::T*>(shared + C::GRID_AT), barriers + C::BARRIERS - 1};
    if (threadIdx.x == 0) {
        block.weights.init(1, 4 * C::TEAM);
        for (int ring = 0; ring < C::RINGS; ring++) block.inputs(ring).init(LOADERS / 32, 4 * C::TEAM);
        mbarrier_init(block.meeting, MULTIPLIERS / 32);
        mbarrier_publish();
    }
    __syncthreads();
    const int warp = __shfl_sync(~0u, static_cast<int>(threadIdx.x / 32), 0);  // known to be the same in all lanes
    if (warp < MULTIPLIERS / 32) {
        warpgroup_grow<192>();
        multiply_tiles<C>(block, warp);
    } else {
        warpgroup_shrink<64>();
        if (warp > MULTIPLIERS / 32) load_inputs<C>(block, static_cast<int>(threadIdx.x) - MULTIPLIERS - 32);
        else if (threadIdx.x % 32 == 0) copy_weights<C>(block);
    }
#endif
}

template <class C>
const char* launch_config(const ModulatedConv2d& args, void* stream) {
    const Tiles tiles = tiles_of(args, C::OUT, C::OUT, C::BN);
    if (tiles.count == 0) return "the batch is too large";
    const unsigned blocks = min(tiles.count, static_cast<unsigned>(multiprocessors()));
    return launch(modulated_conv2d_wgmma_kernel<C>, dim3(blocks), dim3(THREADS), C::BYTES, stream, args, tiles);
}

// If all tiles have the same weights and these fit, one warpgroup works on a tile.
template <class T, int BN>
const char* launch_width(const ModulatedConv2d& args, void* stream) {
    using Alone = Config<T, BN, 1>;
    if (args.out_c <= BN && 3 * ceil_div<int64_t>(args.in_c, CHUNK) <= Alone::WEIGHT_STAGES)
        return launch_config<Alone>(args, stream);
    return launch_config<Config<T, BN, 2>>(args, stream);
}

// Wide tiles read the input fewer times; narrower ones waste less if there are few channels, or few pixels.
template <class T>
const char* launch_typed(const ModulatedConv2d& args, void* stream) {
    if (args.up == 2) return launch_config<Config<T, 32, 2, 2>>(args, stream);
    const auto enough = static_cast<unsigned>(multiprocessors());
    if (args.out_c > 64 && (args.image || tiles_of(args, SIDE, SIDE, 128).count >= enough))
        return launch_config<Config<T, 128, 2>>(args, stream);
    if (args.out_c > 32 && (args.out_c <= 64 || tiles_of(args, SIDE, SIDE, 64).count >= enough))
        return launch_width<T, 64>(args, stream);
    return launch_width<T, 32>(args, stream);
}

}  // namespace

bool has_wgmma(const ModulatedConv2d& args) {
    if (args.k != 3 || args.in_c % 8 || args.out_c % 8) return false;
    for (const void* pointer : {args.x, args.d, args.b, static_cast<const void*>(args.y)})
        if (!aligned_16(pointer)) return false;
    return max_threads(modulated_conv2d_wgmma_kernel<Config<__half, 128, 2>>) >= THREADS;
}

const char* modulated_conv2d_wgmma(const ModulatedConv2d& args, void* stream) {
    if (args.dtype == Dtype::float16) return launch_typed<__half>(args, stream);
    return launch_typed<__nv_bfloat16>(args, stream);
}

}  // namespace sgan
