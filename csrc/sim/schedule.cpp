// SPDX-License-Identifier: MIT
#include "schedule.hpp"

#include <charconv>
#include <cstdlib>
#include <mutex>
#include <stdexcept>

#include "launch.hpp"

namespace tilegrad::simulator {
namespace {

std::mutex mutex;
std::string chosen_text;  // empty until the first use
Schedule chosen;

[[noreturn]] void bad_schedule(const std::string& text) {
  throw std::invalid_argument(
      "sim: a schedule is forward, reverse or random[:seed], then /eager, /lazy or /random if "
      "wanted; got '" +
      text + "'");
}

}  // namespace

Schedule parse_schedule(const std::string& text) {
  Schedule schedule;
  const size_t slash = text.find('/');
  std::string order = text.substr(0, slash);
  const size_t colon = order.find(':');
  if (colon != std::string::npos) {
    const char *first = order.data() + colon + 1, *last = order.data() + order.size();
    const auto [end, error] = std::from_chars(first, last, schedule.seed);
    if (first == last || error != std::errc() || end != last) bad_schedule(text);
    order.resize(colon);
    if (order != "random") bad_schedule(text);
  }
  if (order == "forward") {
    schedule.order = Order::kForward;
  } else if (order == "reverse") {
    schedule.order = Order::kReverse;
  } else if (order == "random") {
    schedule.order = Order::kRandom;
  } else {
    bad_schedule(text);
  }
  if (slash == std::string::npos) {
    if (order == "random") schedule.moment = AsyncMoment::kRandom;
    return schedule;
  }
  const std::string moment = text.substr(slash + 1);
  if (moment == "eager") {
    schedule.moment = AsyncMoment::kEager;
  } else if (moment == "lazy") {
    schedule.moment = AsyncMoment::kLazy;
  } else if (moment == "random") {
    schedule.moment = AsyncMoment::kRandom;
  } else {
    bad_schedule(text);
  }
  return schedule;
}

void set_schedule(const std::string& text) {
  const Schedule parsed = parse_schedule(text);
  const std::lock_guard<std::mutex> lock(mutex);
  chosen = parsed;
  chosen_text = text;
}

std::string schedule() {
  current_schedule();
  const std::lock_guard<std::mutex> lock(mutex);
  return chosen_text;
}

Schedule current_schedule() {
  const std::lock_guard<std::mutex> lock(mutex);
  if (chosen_text.empty()) {
    const char* text = std::getenv("TILEGRAD_SIM_SCHEDULE");
    const std::string wanted = text == nullptr || *text == '\0' ? "forward/eager" : text;
    chosen = parse_schedule(wanted);
    chosen_text = wanted;
  }
  return chosen;
}

}  // namespace tilegrad::simulator
