// SPDX-License-Identifier: MIT
#include "isa.hpp"

#include <atomic>
#include <cstdlib>
#include <stdexcept>

namespace tilegrad::cpu {
namespace {

constexpr Isa kAll[] = {Isa::generic, Isa::avx2, Isa::avx512};

Isa parse(std::string_view name, const char* source) {
  for (Isa isa : kAll) {
    if (isa_name(isa) != name) continue;
    if (isa_supported(isa)) return isa;
    throw std::invalid_argument(std::string(source) + ": this processor does not support '" +
                                std::string(name) + "'; the widest it supports is '" +
                                std::string(isa_name(best_isa())) + "'");
  }
  throw std::invalid_argument(std::string(source) + ": must be generic, avx2 or avx512; got '" +
                              std::string(name) + "'");
}

std::atomic<Isa>& active() {
  static std::atomic<Isa> isa = [] {
    const char* forced = std::getenv("TILEGRAD_CPU");
    return forced != nullptr && *forced != '\0' ? parse(forced, "TILEGRAD_CPU") : best_isa();
  }();
  return isa;
}

}  // namespace

std::string_view isa_name(Isa isa) {
  switch (isa) {
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
  return avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
#else
  return false;
#endif
}

Isa best_isa() {
  Isa best = Isa::generic;
  for (Isa isa : kAll) {
    if (isa_supported(isa)) best = isa;
  }
  return best;
}

Isa active_isa() { return active().load(std::memory_order_relaxed); }

void set_isa(std::string_view name) { active().store(parse(name, "set_isa")); }

}  // namespace tilegrad::cpu
