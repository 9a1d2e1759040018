// SPDX-License-Identifier: MIT
// Executes AMX's tile instructions where the processor has none: a handler of SIGILL decodes the
// machine code at the fault, does what it says to tiles of this thread, and steps over it. Load it
// into the process before the first such instruction (LD_PRELOAD). What hardware would refuse
// (a wrong configuration, an unconfigured tile, sizes that do not fit) aborts with a message.
//
// Source: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2, the pages of
// LDTILECFG, STTILECFG, TILERELEASE, TILEZERO, TILELOADD, TILELOADDT1, TILESTORED, TDPBF16PS.
#include <immintrin.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#include <atomic>

namespace {

constexpr int kTiles = 8;
constexpr int kMostRows = 16;
constexpr int kMostBytes = 64;

struct State {
  bool configured = false;
  uint8_t config[64] = {};
  struct {
    int rows = 0, bytes = 0;
    alignas(64) uint8_t data[kMostRows][kMostBytes] = {};
  } tiles[kTiles];
};

enum Instruction { ldtilecfg, sttilecfg, tilerelease, tilezero, tileload, tilestore, tdpbf16ps };
std::atomic<int64_t> counts[7];

[[noreturn]] void fail(const char* text) {
  static const char kWho[] = "amx_emulator: ";
  (void)!write(2, kWho, sizeof(kWho) - 1);
  (void)!write(2, text, strlen(text));
  (void)!write(2, "\n", 1);
  abort();
}

// A pointer only, so that it fits into the static block of thread-local memory.
__attribute__((tls_model("initial-exec"))) thread_local State* state_of_thread = nullptr;

State& state() {
  if (state_of_thread == nullptr) {
    void* memory =
        mmap(nullptr, sizeof(State), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) fail("no memory");
    state_of_thread = static_cast<State*>(memory);  // zeros are its initial value
  }
  return *state_of_thread;
}

uint16_t halfword(const uint8_t* p) { return static_cast<uint16_t>(p[0] | p[1] << 8); }

void release() { memset(static_cast<void*>(&state()), 0, sizeof(State)); }

void configure(const uint8_t* config) {
  State& s = state();
  release();
  memcpy(s.config, config, sizeof(s.config));
  if (config[0] == 0) return;
  if (config[0] != 1) fail("ldtilecfg: the palette must be 0 or 1");
  if (config[1] != 0) fail("ldtilecfg: start_row must be 0");
  for (int i = 2; i < 16; ++i) {
    if (config[i] != 0) fail("ldtilecfg: reserved bytes must be 0");
  }
  for (int t = 0; t < 16; ++t) {
    const int bytes = halfword(config + 16 + 2 * t), rows = config[48 + t];
    if (t >= kTiles && (bytes != 0 || rows != 0)) fail("ldtilecfg: there are 8 tiles");
    if (bytes > kMostBytes || rows > kMostRows) fail("ldtilecfg: a tile is at most 16 x 64 bytes");
    if ((bytes == 0) != (rows == 0)) fail("ldtilecfg: a tile has rows but no bytes, or bytes only");
    if (t < kTiles) {
      s.tiles[t].rows = rows;
      s.tiles[t].bytes = bytes;
    }
  }
  s.configured = true;
}

auto& tile(int t) {
  State& s = state();
  if (!s.configured) fail("a tile is used before ldtilecfg or after tilerelease");
  if (t >= kTiles) fail("there are 8 tiles");
  if (s.tiles[t].rows == 0) fail("a tile is used that is not configured");
  return s.tiles[t];
}

void zero(int t) { memset(tile(t).data, 0, sizeof(tile(t).data)); }

void load(int t, const uint8_t* base, int64_t stride) {
  auto& to = tile(t);
  zero(t);
  for (int r = 0; r < to.rows; ++r) memcpy(to.data[r], base + r * stride, to.bytes);
}

void store(int t, uint8_t* base, int64_t stride) {
  const auto& from = tile(t);
  for (int r = 0; r < from.rows; ++r) memcpy(base + r * stride, from.data[r], from.bytes);
}

float widened(uint16_t half) {
  const uint32_t bits = uint32_t{half} << 16;
  float x;
  memcpy(&x, &bits, sizeof(x));
  return x;
}

// The manual's loop: products of the even and of the odd elements of the pairs are summed apart, by
// fma; the two sums are added, and that to the destination. Round to nearest even; subnormal
// operands and results are zero, whatever MXCSR says.
void multiply(int c, int a, int b) {
  auto &to = tile(c), &left = tile(a), &right = tile(b);
  if (c == a || c == b || a == b) fail("tdpbf16ps: the three tiles must differ");
  if (to.bytes % 4 != 0 || left.bytes % 4 != 0 || right.bytes % 4 != 0) {
    fail("tdpbf16ps: rows must be a multiple of 4 bytes");
  }
  if (to.rows != left.rows || to.bytes != right.bytes || left.bytes / 4 != right.rows) {
    fail("tdpbf16ps: sizes do not fit");
  }
  const unsigned before = _mm_getcsr();
  _mm_setcsr(0x9FC0);  // nearest even, flush to zero, denormals are zero, no exceptions
  const int columns = to.bytes / 4;
  for (int m = 0; m < to.rows; ++m) {
    float even[kMostBytes / 4] = {}, odd[kMostBytes / 4] = {};
    for (int k = 0; k < left.bytes / 4; ++k) {
      const volatile float a0 = widened(halfword(left.data[m] + 4 * k));
      const volatile float a1 = widened(halfword(left.data[m] + 4 * k + 2));
      const __m128 x0 = _mm_set_ss(a0), x1 = _mm_set_ss(a1);
      for (int n = 0; n < columns; ++n) {
        const float b0 = widened(halfword(right.data[k] + 4 * n));
        const float b1 = widened(halfword(right.data[k] + 4 * n + 2));
        even[n] = _mm_cvtss_f32(_mm_fmadd_ss(x0, _mm_set_ss(b0), _mm_set_ss(even[n])));
        odd[n] = _mm_cvtss_f32(_mm_fmadd_ss(x1, _mm_set_ss(b1), _mm_set_ss(odd[n])));
      }
    }
    for (int n = 0; n < columns; ++n) {
      float sum;
      memcpy(&sum, to.data[m] + 4 * n, sizeof(sum));
      const __m128 both = _mm_add_ss(_mm_set_ss(even[n]), _mm_set_ss(odd[n]));
      sum = _mm_cvtss_f32(_mm_add_ss(_mm_set_ss(sum), both));
      memcpy(to.data[m] + 4 * n, &sum, sizeof(sum));
    }
  }
  _mm_setcsr(before);
}

// One instruction: VEX.128.0F38.W0, opcode 49, 4B or 5C.
class Decoder {
 public:
  explicit Decoder(ucontext_t* context) : registers_(context->uc_mcontext.gregs) {}

  // False if it is no tile instruction.
  bool execute() {
    const uint8_t* start = reinterpret_cast<const uint8_t*>(registers_[REG_RIP]);
    if (start[0] != 0xC4 || (start[1] & 0x1F) != 2) return false;
    if ((start[2] & 0x84) != 0) return false;  // W, L
    extend_reg_ = (~start[1] & 0x80) >> 4;
    extend_index_ = (~start[1] & 0x40) >> 3;
    extend_base_ = (~start[1] & 0x20) >> 2;
    const int other = ~start[2] >> 3 & 15;
    const int prefix = start[2] & 3;
    const int opcode = start[3];
    modrm_ = start[4];
    next_ = start + 5;
    const bool memory = modrm_ >> 6 != 3;
    const int reg = (modrm_ >> 3 & 7) | extend_reg_;
    if (opcode != 0x5C && other != 0) fail("VEX.vvvv must be 1111b");
    switch (opcode << 8 | prefix) {
      case 0x4900:
        if (reg != 0) return false;
        if (memory) {
          const uint8_t* config = address();
          configure(config);
          count(ldtilecfg);
        } else {
          if (modrm_ != 0xC0) return false;
          release();
          count(tilerelease);
        }
        break;
      case 0x4901:
        if (!memory || reg != 0) return false;
        memcpy(address(), state().config, sizeof(state().config));
        count(sttilecfg);
        break;
      case 0x4903:
        if (memory || (modrm_ & 7) != 0) return false;
        zero(reg);
        count(tilezero);
        break;
      case 0x4B01:  // tileloaddt1: the same, with a hint
      case 0x4B03: {
        if (!memory || (modrm_ & 7) != 4) return false;
        const uint8_t* base = address();
        load(reg, base, stride_);
        count(tileload);
        break;
      }
      case 0x4B02: {
        if (!memory || (modrm_ & 7) != 4) return false;
        uint8_t* base = address();
        store(reg, base, stride_);
        count(tilestore);
        break;
      }
      case 0x5C02:
        if (memory) return false;
        multiply(reg, (modrm_ & 7) | extend_base_, other);
        count(tdpbf16ps);
        break;
      default:
        return false;
    }
    registers_[REG_RIP] = static_cast<greg_t>(reinterpret_cast<uintptr_t>(next_));
    return true;
  }

 private:
  static void count(Instruction instruction) {
    counts[instruction].fetch_add(1, std::memory_order_relaxed);
  }

  int64_t reg(int number) const {
    static constexpr int kOrder[] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP,
                                     REG_RSI, REG_RDI, REG_R8,  REG_R9,  REG_R10, REG_R11,
                                     REG_R12, REG_R13, REG_R14, REG_R15};
    return registers_[kOrder[number]];
  }

  int64_t displacement(int bytes) {
    int32_t value = 0;
    if (bytes == 1) value = static_cast<int8_t>(next_[0]);
    if (bytes == 4) memcpy(&value, next_, sizeof(value));
    next_ += bytes;
    return value;
  }

  // Base and displacement. Of a SIB byte the index times the scale is the distance of rows for
  // tiles (0 without an index), and part of the address for configurations.
  uint8_t* address() {
    const int mode = modrm_ >> 6, rm = modrm_ & 7;
    const int bytes = mode == 1 ? 1 : mode == 2 ? 4 : 0;
    int64_t at = 0;
    if (rm == 4) {
      const int sib = *next_++;
      const int index = (sib >> 3 & 7) | extend_index_;
      stride_ = index == 4 ? 0 : reg(index) << (sib >> 6);
      const bool no_base = (sib & 7) == 5 && mode == 0;
      if (!no_base) at = reg((sib & 7) | extend_base_);
      at += displacement(no_base ? 4 : bytes);
    } else if (rm == 5 && mode == 0) {
      at = displacement(4);
      at += reinterpret_cast<intptr_t>(next_);
    } else {
      at = reg(rm | extend_base_);
      at += displacement(bytes);
    }
    if (registers_ != nullptr && is_configuration()) at += stride_;
    return reinterpret_cast<uint8_t*>(at);
  }

  bool is_configuration() const {
    return reinterpret_cast<const uint8_t*>(registers_[REG_RIP])[3] == 0x49;
  }

  greg_t* registers_;
  const uint8_t* next_ = nullptr;
  int modrm_ = 0, extend_reg_ = 0, extend_index_ = 0, extend_base_ = 0;
  int64_t stride_ = 0;
};

void on_illegal(int, siginfo_t*, void* context) {
  if (!Decoder(static_cast<ucontext_t*>(context)).execute()) fail("not a tile instruction");
}

__attribute__((constructor)) void install() {
  struct sigaction action = {};
  action.sa_sigaction = on_illegal;
  action.sa_flags = SA_SIGINFO;
  sigemptyset(&action.sa_mask);
  if (sigaction(SIGILL, &action, nullptr) != 0) fail("no handler for SIGILL");
}

}  // namespace

// How often each instruction has run, in the order of Instruction.
extern "C" __attribute__((visibility("default"))) int64_t amx_emulator_count(int instruction) {
  return counts[instruction].load();
}
