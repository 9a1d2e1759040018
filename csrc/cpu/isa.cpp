// SPDX-License-Identifier: MIT
#include "isa.hpp"

#include <atomic>
#include <cstdlib>
#include <stdexcept>

#ifdef TILEGRAD_X86
#include <cpuid.h>
#endif
#ifdef __linux__
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace tilegrad::cpu {
namespace {

Isa parse(std::string_view name, const char* source, bool emulated = false) {
  std::string supported;
  for (Isa isa : kIsas) {
    if (isa_name(isa) == name && isa_supported(isa == Isa::amx && emulated ? Isa::avx512 : isa)) {
      return isa;
    }
    if (isa_supported(isa)) supported.append(", ").append(isa_name(isa));
  }
  throw std::invalid_argument(std::string(source) +
                              ": must be generic, avx2, avx512 or amx; got '" + std::string(name) +
                              "' (this processor supports " + supported.substr(2) + ")");
}

std::atomic<Isa>& active() {
  static std::atomic<Isa> isa = [] {
    const char* forced = std::getenv("TILEGRAD_CPU");
    return forced != nullptr && *forced != '\0' ? parse(forced, "TILEGRAD_CPU") : best_isa();
  }();
  return isa;
}

#ifdef TILEGRAD_X86
// AMX: the processor has tiles of bfloat16, the system saves them, and it lets this process have
// memory for them (Linux asks for a request; without one the first instruction is a signal).
bool ask_for_tiles() {
  constexpr unsigned kBfloat16 = 1u << 22, kTiles = 1u << 24;  // CPUID 7.0 EDX
  constexpr unsigned kSaved = 3u << 17;                        // XCR0: tile configuration and data
  constexpr unsigned kSystemSaves = 1u << 27;                  // CPUID 1 ECX: XGETBV can be used
  unsigned a, b, c, d;
  if (__get_cpuid(1, &a, &b, &c, &d) == 0 || (c & kSystemSaves) == 0) return false;
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0) return false;
  if ((d & (kBfloat16 | kTiles)) != (kBfloat16 | kTiles)) return false;
  asm volatile("xgetbv" : "=a"(a), "=d"(d) : "c"(0));
  if ((a & kSaved) != kSaved) return false;
#ifdef __linux__
  constexpr long kRequestPermission = 0x1023, kTileData = 18;  // asm/prctl.h
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}

bool tiles_supported() {
  static const bool supported = ask_for_tiles();
  return supported;
}
#endif

}  // namespace

std::string_view isa_name(Isa isa) {
  switch (isa) {
    case Isa::amx:
      return "amx";
    case Isa::avx512:
      return "avx512";
    case Isa::avx2:
      return "avx2";
    case Isa::generic:
      break;
  }
  return "generic";
}

// Feature bits, never family or model. The builtin also asks the operating system (XGETBV).
bool isa_supported(Isa isa) {
  if (isa == Isa::generic) return true;
#ifdef TILEGRAD_X86
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                    __builtin_cpu_supports("bmi2");
  if (isa == Isa::avx2) return avx2;
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") &&
                      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
                      __builtin_cpu_supports("avx512vl");
  return avx512 && (isa == Isa::avx512 || tiles_supported());
#else
  return false;
#endif
}

Isa best_isa() {
  Isa best = Isa::generic;
  for (Isa isa : kIsas) {
    if (isa_supported(isa)) best = isa;
  }
  return best;
}

Isa active_isa() { return active().load(std::memory_order_relaxed); }

void set_isa(std::string_view name, bool emulated) {
  active().store(parse(name, "set_isa", emulated));
}

}  // namespace tilegrad::cpu
