// SPDX-License-Identifier: MIT
// Clusters: neighbouring blocks that are resident together (launch.hpp's Residency), meet at a
// barrier of their own and reach each other's dynamic shared memory while its block runs.
#pragma once

#include "collective.hpp"

namespace tilegrad::simulator {

// Blocks of the running block's cluster, and its place among them. Without a cluster 1 and 0.
unsigned cluster_size();
unsigned cluster_rank();

// Where what lies at p in the running block's dynamic shared memory lies in the rank-th block's.
void* cluster_address(const void* p, unsigned rank, const char* what, Site site);
// Is the address in dynamic shared memory of the running block's cluster? Fails if it is that of a
// block which has ended.
bool is_shared_in_cluster(const void* address, const char* what, Site site);

// barrier.cluster.arrive, .wait: by turns. A phase ends when each thread of the cluster has arrived
// or returned.
void cluster_barrier_arrive(Site site);
void cluster_barrier_wait(Site site);

}  // namespace tilegrad::simulator
