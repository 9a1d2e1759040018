// SPDX-License-Identifier: MIT
// check(condition, "op: rule; got {}", values...): a ValueError that carries its values.
// check_type is the same for a TypeError. Each {} takes the next value.
#pragma once

#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>

namespace tilegrad {

// Becomes TypeError in Python; std::invalid_argument becomes ValueError.
struct TypeError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

inline std::string format(std::string_view text) { return std::string(text); }

template <class First, class... Rest>
std::string format(std::string_view text, const First& first, const Rest&... rest) {
  const size_t hole = text.find("{}");
  if (hole == std::string_view::npos) return std::string(text);
  std::ostringstream out;
  out << text.substr(0, hole) << first << format(text.substr(hole + 2), rest...);
  return out.str();
}

template <class... Values>
void check(bool condition, std::string_view text, const Values&... values) {
  if (!condition) [[unlikely]]
    throw std::invalid_argument(format(text, values...));
}

template <class... Values>
void check_type(bool condition, std::string_view text, const Values&... values) {
  if (!condition) [[unlikely]]
    throw TypeError(format(text, values...));
}

}  // namespace tilegrad
