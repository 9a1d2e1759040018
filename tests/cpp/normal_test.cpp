// SPDX-License-Identifier: MIT
// Standard normal numbers of given 64-bit words: words in on stdin, numbers out on stdout.
#include <cstdio>

#include "../../csrc/normal.hpp"

int main() {
  uint64_t word;
  while (std::fread(&word, sizeof word, 1, stdin) == 1) {
    const double z = tilegrad::cpu::standard_normal(static_cast<uint32_t>(word >> 32),
                                                    static_cast<uint32_t>(word));
    if (std::fwrite(&z, sizeof z, 1, stdout) != 1) return 1;
  }
  return 0;
}
