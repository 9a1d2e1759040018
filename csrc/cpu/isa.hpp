// SPDX-License-Identifier: MIT
// Which instruction set runs. Every file in simd/ is compiled once per ISA into the namespace of
// that name; an op asks for its table of kernels with kernels<Table>() and calls through it. amx is
// avx512 but for the tables that say kHasTiles.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#if defined(__x86_64__) || defined(_M_X64)
#define TILEGRAD_X86 1
#endif

namespace tilegrad::cpu {

enum class Isa { generic, avx2, avx512, amx };

inline constexpr Isa kIsas[] = {Isa::generic, Isa::avx2, Isa::avx512, Isa::amx};

std::string_view isa_name(Isa isa);
bool isa_supported(Isa isa);  // by this processor and its operating system
Isa best_isa();               // the widest supported
Isa active_isa();             // what runs: TILEGRAD_CPU, else the widest

// Throws std::invalid_argument. `emulated` takes amx without asking for AMX: somebody else executes
// its instructions. For tests.
void set_isa(std::string_view name, bool emulated = false);

// Each file in simd/ specialises table() for its own struct of function pointers.
namespace generic {
template <class Table>
const Table& table();
}
#ifdef TILEGRAD_X86
namespace avx2 {
template <class Table>
const Table& table();
}
namespace avx512 {
template <class Table>
const Table& table();
}
namespace amx {
template <class Table>
const Table& table();
}
#endif

template <class Table>
const Table& kernels() {
#ifdef TILEGRAD_X86
  switch (active_isa()) {
    case Isa::amx:
      if constexpr (requires { Table::kHasTiles; }) return amx::table<Table>();
      [[fallthrough]];
    case Isa::avx512:
      return avx512::table<Table>();
    case Isa::avx2:
      return avx2::table<Table>();
    case Isa::generic:
      break;
  }
#endif
  return generic::table<Table>();
}

}  // namespace tilegrad::cpu
