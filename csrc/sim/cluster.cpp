// SPDX-License-Identifier: MIT
// Source: PTX ISA, Parallel Synchronization and Communication: barrier.cluster; Data Movement and
// Conversion: mapa.
#include "cluster.hpp"

#include <string>

#include "scheduler.hpp"

namespace tilegrad::simulator {

Block* Worker::block_of(const void* address) const {
  for (unsigned rank = 0; rank < resident; ++rank) {
    if (blocks[rank]->arena.contains(address)) return blocks[rank].get();
  }
  return nullptr;
}

// The shared memory of a block is gone with it, though others go on.
void Worker::block_ended(Block& block) {
  check_damage(block);
  if (!failure.empty()) stop(failure);
  block.arena.close();
}

void Worker::leave_cluster(Thread& thread) {
  Cluster& left = *thread.block->cluster;
  if (thread.at_cluster_barrier && thread.cluster_phase == left.phase) return;  // counted there
  ++left.returned;
  end_phase(left);
}

void Worker::end_phase(Cluster& of) {
  if (of.arrived == 0 || of.arrived + of.returned != cluster * block_threads) return;
  ++of.phase;
  of.arrived = of.returned = 0;
  const auto first = static_cast<unsigned>(&of - clusters.data()) * cluster;
  for (unsigned i = 0; i < cluster; ++i) of.returned += blocks[first + i]->returned;
  if (tracer() != nullptr) tracer()->cluster_phase_ends(&of);
  make_ready(of.waiters);
}

unsigned cluster_size() { return running_worker("cluster_size").cluster; }

unsigned cluster_rank() {
  const Worker& worker = running_worker("cluster_rank");
  return worker.acting_block().rank % worker.cluster;
}

void* cluster_address(const void* p, unsigned rank, const char* what, Site site) {
  const Worker& worker = running_worker(what);
  const Block& own = worker.acting_block();
  if (rank >= worker.cluster) {
    fail(std::string(what) + ": the cluster has " + std::to_string(worker.cluster) +
             " blocks; got rank " + std::to_string(rank),
         site);
  }
  if (!own.arena.contains(p)) {
    fail(std::string(what) + ": not this block's dynamic shared memory", site);
  }
  const Block& peer = *worker.blocks[own.rank / worker.cluster * worker.cluster + rank];
  return peer.arena.data() + (static_cast<const char*>(p) - own.arena.data());
}

bool is_shared_in_cluster(const void* address, const char* what, Site site) {
  const Worker& worker = running_worker(what);
  const Block* block = worker.block_of(address);
  if (block == nullptr || block->cluster != worker.acting_block().cluster) return false;
  if (!block->arena.is_open()) {
    fail(std::string(what) + ": block " + to_string(block->index) +
             " has ended, and its shared memory with it (a barrier of the cluster must come first)",
         site);
  }
  return true;
}

void cluster_barrier_arrive(Site site) {
  Worker& worker = running_worker("barrier.cluster.arrive");
  Thread& self = *worker.current;
  Cluster& cluster = *self.block->cluster;
  if (self.at_cluster_barrier)
    fail("barrier.cluster.arrive: the wait for the last one is missing", site);
  self.site = site;
  self.at_cluster_barrier = true;
  self.cluster_phase = cluster.phase;
  ++cluster.arrived;
  if (tracer() != nullptr) tracer()->cluster_arrive(&cluster);
  worker.end_phase(cluster);
}

void cluster_barrier_wait(Site site) {
  Worker& worker = running_worker("barrier.cluster.wait");
  Thread& self = *worker.current;
  Cluster& cluster = *self.block->cluster;
  if (!self.at_cluster_barrier) fail("barrier.cluster.wait: this thread has not arrived", site);
  if (tracer() != nullptr) tracer()->cluster_waits();
  if (self.cluster_phase == cluster.phase) {
    self.state = ThreadState::kWaiting;
    self.what = "barrier.cluster.wait";
    self.site = site;
    cluster.waiters.push_back(&self);
    worker.suspend();
  }
  self.at_cluster_barrier = false;
  if (tracer() != nullptr) tracer()->cluster_acquire(&cluster);
}

}  // namespace tilegrad::simulator
