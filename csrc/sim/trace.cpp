// SPDX-License-Identifier: MIT
#include "trace.hpp"

#include <algorithm>
#include <bit>
#include <cstring>
#include <stdexcept>

#include "memory.hpp"
#include "scheduler.hpp"

namespace tilegrad::simulator {
namespace {

constexpr size_t kMostReports = 1000;

}  // namespace

// ---- launches and blocks ------------------------------------------------------------------------

void Tracer::launch_begins(Worker& worker) {
  launches_.lock();
  worker_ = &worker;
  registers.trace_muted = 1;
  threads_ = worker.block_threads * worker.resident;
  warps_ = worker.block_warps * worker.resident;
  grid_ = worker.call->grid;
  block_size_ = worker.call->block;
  clocks_.begin_launch(worker.block_threads, worker.resident);
  cluster_waits_.assign(warps_, 0);
  segments_.assign(warps_, ++last_segment_);
  open_.assign(warps_, {});
  for (auto& site : sites_) {
    site->latest = nullptr;
    site->lanes.assign(threads_, {});
    site->requests.assign(warps_, {});
  }
  const auto add = [this](uintptr_t start, size_t bytes, Space space, uint64_t number) {
    auto& region = regions_.emplace_back(std::make_unique<Region>());
    region->start = start;
    region->bytes = bytes;
    region->space = space;
    region->number = number;
    region->shadow.resize(bytes);
  };
  const auto address = [](const void* p) { return reinterpret_cast<uintptr_t>(p); };
  for (unsigned rank = 0; rank < worker.resident; ++rank) {
    const Arena& arena = worker.blocks[rank]->arena;
    add(address(arena.data()), arena.bytes(), Space::kShared, 0);
  }
  if (worker.statics.tls() != nullptr) {
    add(address(worker.statics.tls()), worker.statics.tls_bytes(), Space::kShared, 0);
    regions_.back()->in_statics = true;
  }
  std::vector<Buffer> buffers;
  memory().for_each([](const Buffer& buffer,
                       void* all) { static_cast<std::vector<Buffer>*>(all)->push_back(buffer); },
                    &buffers);
  for (const Buffer& each : buffers) add(each.address, each.bytes, Space::kGlobal, each.number);
  std::sort(regions_.begin(), regions_.end(),
            [](const auto& a, const auto& b) { return a->start < b->start; });
  elsewhere_.fill(0);
  launches_noted_.push_back(
      {address(worker.call->kernel), grid_, block_size_, worker.call->dynamic_bytes});
}

void Tracer::launch_ends() {
  for (unsigned warp = 0; warp < warps_; ++warp) flush_warp(warp);  // of a block that failed
  regions_.clear();
  worker_ = nullptr;
  launches_.unlock();
}

void Tracer::blocks_begin(uint64_t first) {
  registers.trace_muted = 0;  // between blocks it is 1
  clocks_.begin_round(first / worker_->resident);
  barriers_.clear();
  barriers_.resize(worker_->resident);
}

void Tracer::blocks_end() {
  registers.trace_muted = 1;  // what follows is the runtime's
  for (unsigned warp = 0; warp < warps_; ++warp) flush_warp(warp);
}

// ---- order --------------------------------------------------------------------------------------

unsigned Tracer::thread() const { return worker_->current->number; }
unsigned Tracer::thread_of_block(unsigned linear) const {
  return worker_->current->block->rank * worker_->block_threads + linear;
}
unsigned Tracer::warp_of(unsigned thread) const {
  const Thread& which = worker_->threads[thread];
  return which.block->rank * worker_->block_warps + which.linear / kLanes;
}

void Tracer::barrier(unsigned id, bool waits, bool last) {
  BarrierState& state = barriers_[worker_->current->block->rank][id];
  if (waits) {
    state.waiting.push_back(thread());
  } else {
    clocks_.release(thread(), state.arrived);
    state.has_arrivals = true;
  }
  if (!last) return;
  clocks_.meet(state.waiting, state.has_arrivals ? &state.arrived : nullptr);
  std::sort(state.waiting.begin(), state.waiting.end());
  for (size_t i = 0; i < state.waiting.size(); ++i) {
    const unsigned warp = warp_of(state.waiting[i]);
    if (i == 0 || warp != warp_of(state.waiting[i - 1])) flush_warp(warp);
  }
  state = {};
}

void Tracer::warp_met(unsigned lanes, const char* what) {
  const Thread& self = *worker_->current;
  const unsigned linear = self.linear / kLanes;
  if (lanes == self.block->warps[linear].existing) flush_warp(warp_of(self.number));
  if (std::strcmp(what, "__syncwarp") != 0) return;  // shuffles and votes order no memory
  std::vector<unsigned> met;
  for (unsigned i = 0; i < kLanes; ++i) {
    if (lanes >> i & 1) met.push_back(thread_of_block(linear * kLanes + i));
  }
  clocks_.meet(met, nullptr);
}

void Tracer::group_met(unsigned first_thread, unsigned count) {
  for (unsigned t = 0; t < count; t += kLanes)
    flush_warp(warp_of(thread_of_block(first_thread + t)));
}

void Tracer::cluster_arrive(const Cluster* cluster) { clocks_.mbarrier_arrive(cluster, thread()); }
void Tracer::cluster_phase_ends(const Cluster* cluster) { clocks_.mbarrier_phase_ends(cluster); }
void Tracer::cluster_acquire(const Cluster* cluster) {
  clocks_.mbarrier_acquire(cluster, thread());
}
// The last lane of a warp to come: what follows are other requests.
void Tracer::cluster_waits() {
  const Thread& self = *worker_->current;
  const Warp& warp = self.block->warps[self.linear / kLanes];
  const unsigned number = warp_of(self.number);
  const auto lanes = static_cast<unsigned>(std::popcount(warp.existing & ~warp.returned));
  if (++cluster_waits_[number] < lanes) return;
  cluster_waits_[number] = 0;
  flush_warp(number);
}

void Tracer::mbarrier_arrive(const uint64_t* barrier) {
  if (registers.trace_muted == 0) clocks_.mbarrier_arrive(barrier, thread());
}
// A condition is polled for another thread than the running one.
void Tracer::mbarrier_acquire(const uint64_t* barrier) {
  if (registers.trace_muted == 0) clocks_.mbarrier_acquire(barrier, thread());
}
void Tracer::commit_group(AsyncKind kind, unsigned owner) {
  clocks_.commit_group(kind, thread_of_block(owner));
}
void Tracer::wait_group(AsyncKind kind, unsigned owner, unsigned allowed) {
  clocks_.wait_group(thread(), kind, thread_of_block(owner), allowed);
}

// ---- instructions -------------------------------------------------------------------------------

TraceSite& Tracer::add_site(unsigned bytes, Op op) {
  auto& site = sites_.emplace_back(std::make_unique<TraceSite>());
  site->number = static_cast<uint32_t>(sites_.size()) - 1;
  site->bytes = bytes;
  site->op = op;
  site->lanes.assign(threads_, {});
  site->requests.assign(warps_, {});
  return *site;
}

TraceSite& Tracer::site_of(uintptr_t return_address, unsigned bytes, Op op) {
  if (2 * table_used_ >= table_.size()) {
    auto old = std::move(table_);
    table_.assign(std::max<size_t>(1024, 2 * old.size()), {0, nullptr});
    for (const auto& each : old) {
      if (each.first == 0) continue;
      size_t i = each.first * 0x9E3779B97F4A7C15u >> 32;
      while (table_[i & (table_.size() - 1)].first != 0) ++i;
      table_[i & (table_.size() - 1)] = each;
    }
  }
  for (size_t i = return_address * 0x9E3779B97F4A7C15u >> 32;; ++i) {
    auto& slot = table_[i & (table_.size() - 1)];
    if (slot.first == return_address) return *slot.second;
    if (slot.first != 0) continue;
    slot = {return_address, &add_site(bytes, op)};
    slot.second->address = return_address;
    ++table_used_;
    return *slot.second;
  }
}

TraceSite& Tracer::site_of(const char* what, Site line, unsigned bytes, Op op) {
  TraceSite*& site = wrapper_sites_[{what, line.file, line.line, bytes, op}];
  if (site == nullptr) {
    site = &add_site(bytes, op);
    site->what = what;
    site->line = line;
  }
  return *site;
}

Region* Tracer::find_region(TraceSite& site, uintptr_t p) {
  if (site.latest != nullptr && p - site.latest->start < site.latest->bytes) return site.latest;
  auto at = std::upper_bound(regions_.begin(), regions_.end(), p,
                             [](uintptr_t x, const auto& region) { return x < region->start; });
  if (at == regions_.begin()) return nullptr;
  Region& region = **--at;
  if (p - region.start >= region.bytes) return nullptr;
  site.latest = &region;
  return &region;
}

// ---- accesses -----------------------------------------------------------------------------------

void Tracer::access(uintptr_t p, unsigned bytes, Op op, uintptr_t return_address) {
  const auto stack = reinterpret_cast<uintptr_t>(worker_->fiber->mapping);
  if (p - stack < worker_->fiber->mapping_bytes) return;
  if (p - reinterpret_cast<uintptr_t>(&registers) < sizeof(registers)) return;
  TraceSite& site = site_of(return_address, bytes, op);
  const unsigned self = thread();
  Region* region = find_region(site, p);
  if (region == nullptr || p - region->start + bytes > region->bytes) {
    check_bounds(site, p, bytes, self);
    return;
  }
  const Thread& running = *worker_->current;
  if (region->space == Space::kGlobal && worker_->call->residency.overlaps &&
      !running.waited_for_grid) {
    worker_->stop("a global access before grid_dependency_wait; " + describe_thread(running));
  }
  note_lane(site, region->space, p, self);
  if (op == Op::kAtomic) clocks_.atomic(self, p, region->space == Space::kShared);
  check_races(*region, p - region->start, bytes, op, clocks_.now(self), self, site.number);
}

void Tracer::access(const char* what, const Site& line, const void* p, unsigned bytes,
                    bool writes) {
  const auto address = reinterpret_cast<uintptr_t>(p);
  TraceSite& site = site_of(what, line, bytes, writes ? Op::kStore : Op::kLoad);
  const unsigned self = thread();
  Region* region = find_region(site, address);
  if (region == nullptr || address - region->start + bytes > region->bytes) {
    check_bounds(site, address, bytes, self);
    return;
  }
  note_lane(site, region->space, address, self);
  check_races(*region, address - region->start, bytes, site.op, clocks_.now(self), self,
              site.number);
}

void Tracer::async_access(const AsyncTag& tag, const uint64_t* barrier, const void* p, size_t bytes,
                          bool writes) {
  const auto address = reinterpret_cast<uintptr_t>(p);
  const bool of_lane = tag.kind == AsyncKind::kCopy;
  TraceSite& site = site_of(tag.what, tag.site, of_lane ? static_cast<unsigned>(bytes) : 0,
                            writes ? Op::kStore : Op::kLoad);
  const unsigned self = thread();
  Region* region = find_region(site, address);
  if (region == nullptr || address - region->start + bytes > region->bytes) {
    check_bounds(site, address, bytes, self);
    return;
  }
  if (of_lane) {
    note_lane(site, region->space, address, self);
  } else if (region->space == Space::kGlobal) {  // the engine moves whole rows
    const uint64_t sectors = (address + bytes - 1) / 32 - address / 32 + 1;
    Tally& tally = site.tally[static_cast<size_t>(Space::kGlobal)];
    ++tally.requests;
    tally.actual += sectors;
    tally.ideal += (bytes + 31) / 32;
    tally.worst = std::max(tally.worst, static_cast<uint32_t>(sectors));
  }
  check_races(*region, address - region->start, bytes, site.op,
              clocks_.engine_epoch(tag.kind, thread_of_block(tag.owner), barrier, self), self,
              site.number);
}

void Tracer::note_lane(TraceSite& site, Space space, uintptr_t p, unsigned thread) {
  const unsigned warp = warp_of(thread), lane = worker_->threads[thread].linear % kLanes;
  TraceSite::Lane& state = site.lanes[thread];
  if (state.segment != segments_[warp]) state = {segments_[warp], 0};
  auto& requests = site.requests[warp];
  if (requests.empty()) open_[warp].push_back(&site);
  if (state.executions >= requests.size()) {
    requests.emplace_back();
    requests.back().shared = space == Space::kShared;
  }
  Request& request = requests[state.executions++];
  request.mask |= 1u << lane;
  request.address[lane] = p;
}

void Tracer::flush_warp(unsigned warp) {
  segments_[warp] = ++last_segment_;
  for (TraceSite* site : open_[warp]) {
    for (const Request& request : site->requests[warp]) {
      const Cost cost = request.shared ? count_wavefronts(request, site->bytes)
                                       : count_sectors(request, site->bytes);
      Tally& tally =
          site->tally[static_cast<size_t>(request.shared ? Space::kShared : Space::kGlobal)];
      ++tally.requests;
      tally.actual += cost.actual;
      tally.ideal += cost.ideal;
      tally.worst = std::max(tally.worst, cost.actual);
    }
    site->requests[warp].clear();
  }
  open_[warp].clear();
}

// ---- races --------------------------------------------------------------------------------------

void Tracer::check_races(Region& region, size_t offset, size_t bytes, Op op, Epoch epoch,
                         unsigned thread, uint32_t site) {
  const bool global = region.space == Space::kGlobal;
  bool reported = false;
  const auto check = [&](Epoch before, uint32_t site_before) {
    if (reported || before == epoch || clocks_.ordered(before, thread, global)) return;
    if (op == Op::kAtomic && sites_[site_before]->op == Op::kAtomic) return;
    note_race(region, offset, before, site_before, thread, site);
    reported = true;
  };
  if (op == Op::kLoad) {
    region.shadow.visit(offset, bytes, [&](Cell& cell) {
      if (cell.read[0] == epoch || cell.read[1] == epoch) return;
      check(cell.write, cell.write_site);
      const int which = cell.read[0] == 0 || clocks_.ordered(cell.read[0], thread, global) ? 0 : 1;
      cell.read[which] = epoch;
      cell.read_site[which] = site;
    });
    return;
  }
  region.shadow.visit(offset, bytes, [&](Cell& cell) {
    if (cell.write == epoch && cell.read[0] == 0) return;
    check(cell.write, cell.write_site);
    check(cell.read[0], cell.read_site[0]);
    check(cell.read[1], cell.read_site[1]);
    cell.write = epoch;
    cell.write_site = site;
    cell.read[0] = cell.read[1] = 0;
  });
}

void Tracer::note_race(const Region& region, size_t offset, Epoch before, uint32_t site_before,
                       unsigned thread, uint32_t site) {
  for (Race& known : races_) {
    if (known.first.site == site_before && known.second.site == site) {
      ++known.count;
      return;
    }
  }
  if (races_.size() == kMostReports) return;
  Race race;
  // Threads are numbered alike in every round; only engines are not.
  const unsigned thread_before = std::min(clocks_.thread_of(before), threads_ - 1);
  race.first = {thread_index(thread_before), block_index(Clocks::round_of(before), thread_before),
                site_before};
  race.second = {thread_index(thread), worker_->threads[thread].block->index, site};
  race.space = region.space;
  race.in_statics = region.in_statics;
  race.buffer = region.number;
  race.bytes = region.bytes;
  race.offset = offset;
  race.count = 1;
  race.kernel = reinterpret_cast<uintptr_t>(worker_->call->kernel);
  races_.push_back(race);
}

uint3 Tracer::thread_index(unsigned thread) const { return worker_->threads[thread].index; }

uint3 Tracer::block_index(uint64_t round, unsigned thread) const {
  return block_at(round * worker_->resident + worker_->threads[thread].block->rank, grid_);
}

}  // namespace tilegrad::simulator
