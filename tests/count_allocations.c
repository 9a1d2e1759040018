// SPDX-License-Identifier: MIT
// Counts the allocations of a process that this library is preloaded into (glibc).
#include <errno.h>
#include <stddef.h>

void* __libc_malloc(size_t);
void* __libc_calloc(size_t, size_t);
void* __libc_realloc(void*, size_t);
void* __libc_memalign(size_t, size_t);

static long count;

long allocations(void) { return __atomic_load_n(&count, __ATOMIC_RELAXED); }

static void add_one(void) { __atomic_add_fetch(&count, 1, __ATOMIC_RELAXED); }

void* malloc(size_t size) {
  add_one();
  return __libc_malloc(size);
}

void* calloc(size_t items, size_t size) {
  add_one();
  return __libc_calloc(items, size);
}

void* realloc(void* p, size_t size) {
  add_one();
  return __libc_realloc(p, size);
}

void* memalign(size_t alignment, size_t size) {
  add_one();
  return __libc_memalign(alignment, size);
}

void* aligned_alloc(size_t alignment, size_t size) { return memalign(alignment, size); }

int posix_memalign(void** p, size_t alignment, size_t size) {
  *p = memalign(alignment, size);
  return *p == NULL ? ENOMEM : 0;
}
