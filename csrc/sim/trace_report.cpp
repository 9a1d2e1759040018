// SPDX-License-Identifier: MIT
// What a session has found, as JSON for tilegrad/sim.py, which turns addresses into lines.
#include <dlfcn.h>

#include <algorithm>
#include <stdexcept>
#include <string>
#include <vector>

#include "trace.hpp"

namespace tilegrad::simulator {
namespace {

std::mutex session_mutex;
std::unique_ptr<Tracer> session;

std::string quoted(const char* text) {
  std::string out = "\"";
  for (; *text != '\0'; ++text) {
    if (*text == '"' || *text == '\\') out += '\\';
    out += *text;
  }
  return out + '"';
}

// {"a":1,"b":[..]}, and lists of such.
class Json {
 public:
  Json& open(char bracket) {
    separate();
    text_ += bracket;
    first_ = true;
    return *this;
  }
  Json& close(char bracket) {
    text_ += bracket;
    first_ = false;
    return *this;
  }
  Json& key(const char* name) {
    separate();
    text_ += quoted(name) + ':';
    first_ = true;  // its value follows without a comma
    return *this;
  }
  Json& raw(const std::string& value) {
    separate();
    text_ += value;
    return *this;
  }
  template <class T>
  Json& number(const char* name, T value) {
    return key(name).raw(std::to_string(value));
  }
  Json& string(const char* name, const char* value) { return key(name).raw(quoted(value)); }
  Json& index(const char* name, uint3 i) {
    return key(name).raw("[" + std::to_string(i.x) + "," + std::to_string(i.y) + "," +
                         std::to_string(i.z) + "]");
  }
  const std::string& text() const { return text_; }

 private:
  void separate() {
    if (!first_) text_ += ',';
    first_ = false;
  }
  std::string text_;
  bool first_ = true;
};

const char* name_of(Op op) {
  return op == Op::kLoad ? "load" : op == Op::kStore ? "store" : "atomic";
}
const char* name_of(Space space) { return space == Space::kGlobal ? "global" : "shared"; }

// The modules that kernels lie in; an address is reported by module and from its start.
class Modules {
 public:
  void put(Json& json, const char* name, uintptr_t address) {
    Dl_info info{};
    if (address == 0 || dladdr(reinterpret_cast<const void*>(address), &info) == 0) {
      json.number("module", 0).number(name, 0);
      return;
    }
    const std::string file = info.dli_fname;
    const auto found = std::find(files_.begin(), files_.end(), file);
    json.number("module", found - files_.begin());
    json.number(name, address - reinterpret_cast<uintptr_t>(info.dli_fbase));
    if (found == files_.end()) files_.push_back(file);
  }
  void put_files(Json& json) const {
    json.key("modules").open('[');
    for (const std::string& file : files_) json.raw(quoted(file.c_str()));
    json.close(']');
  }

 private:
  std::vector<std::string> files_;
};

void put(Json& json, const char* name, const Access& access) {
  json.key(name).open('{');
  json.index("thread", access.thread).index("block", access.block).number("site", access.site);
  json.close('}');
}

}  // namespace

std::string Tracer::report() {
  const std::lock_guard<std::mutex> lock(launches_);
  Modules modules;
  Json json;
  json.open('{').number("flops", flops_);
  json.key("launches").open('[');
  for (const LaunchNote& launch : launches_noted_) {
    json.open('{');
    modules.put(json, "kernel", launch.kernel);
    json.index("grid", launch.grid).index("block", launch.block);
    json.number("dynamic_bytes", launch.dynamic_bytes).close('}');
  }
  json.close(']').key("sites").open('[');
  for (const auto& site : sites_) {
    json.open('{');
    modules.put(json, "address", site->address);
    json.string("instruction", site->what == nullptr ? "" : site->what);
    json.string("file", site->line.file == nullptr ? "" : site->line.file);
    json.number("line", site->line.line).string("op", name_of(site->op));
    json.number("bytes", site->bytes);
    for (const Space space : {Space::kGlobal, Space::kShared}) {
      const Tally& tally = site->tally[static_cast<size_t>(space)];
      if (tally.requests == 0) continue;
      json.key(name_of(space)).open('{').number("requests", tally.requests);
      json.number("actual", tally.actual).number("ideal", tally.ideal);
      json.number("worst", tally.worst).close('}');
    }
    json.close('}');
  }
  json.close(']').key("races").open('[');
  for (const Race& race : races_) {
    json.open('{').string("space", name_of(race.space)).number("buffer", race.buffer);
    modules.put(json, "kernel", race.kernel);
    json.number("static", race.in_statics ? 1 : 0);
    json.number("bytes", race.bytes).number("offset", race.offset).number("count", race.count);
    put(json, "first", race.first);
    put(json, "second", race.second);
    json.close('}');
  }
  json.close(']').key("out_of_bounds").open('[');
  for (const OutOfBounds& each : out_of_bounds_) {
    json.open('{').string("space", name_of(each.space)).number("buffer", each.buffer);
    json.number("bytes", each.bytes).number("offset", each.offset).number("count", each.count);
    json.number("freed", each.freed ? 1 : 0);
    put(json, "access", each.access);
    json.close('}');
  }
  json.close(']');
  modules.put_files(json);
  json.close('}');
  return json.text();
}

void begin_trace() {
  const std::lock_guard<std::mutex> lock(session_mutex);
  if (session != nullptr) throw std::logic_error("sim: a trace is already on");
  session = std::make_unique<Tracer>();
  trace_session = session.get();
}

std::string end_trace() {
  const std::lock_guard<std::mutex> lock(session_mutex);
  if (session == nullptr) throw std::logic_error("sim: no trace is on");
  trace_session = nullptr;
  std::string text = session->report();  // waits for a launch in progress
  session.reset();
  return text;
}

}  // namespace tilegrad::simulator
