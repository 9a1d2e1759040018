// SPDX-License-Identifier: MIT
// Lets the n-th allocation of tilegrad, NumPy or the C++ library fail, in a process that this
// library is preloaded into (glibc). Python's own are left alone.
#include <dlfcn.h>
#include <link.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <new>

extern "C" {
void* __libc_malloc(size_t);
void* __libc_calloc(size_t, size_t);
void* __libc_realloc(void*, size_t);
void* __libc_memalign(size_t, size_t);
}

namespace {

std::atomic<long> left{-1};  // allocations until one fails; negative: none does
std::atomic<bool> all_after{false};

struct Code {
  char *begin, *end;
} modules[16];
int module_count = 0;

int add_module(dl_phdr_info* info, size_t, void*) {
  const char* name = info->dlpi_name;
  if (!std::strstr(name, "tilegrad/_") && !std::strstr(name, "_multiarray_umath") &&
      !std::strstr(name, "libstdc++")) {
    return 0;
  }
  for (int i = 0; i < info->dlpi_phnum && module_count < 16; ++i) {
    const auto& part = info->dlpi_phdr[i];
    if (part.p_type != PT_LOAD || !(part.p_flags & PF_X)) continue;
    char* begin = reinterpret_cast<char*>(info->dlpi_addr + part.p_vaddr);
    modules[module_count++] = {begin, begin + part.p_memsz};
  }
  return 0;
}

bool is_ours(void* caller) {
  for (int i = 0; i < module_count; ++i) {
    if (caller >= modules[i].begin && caller < modules[i].end) return true;
  }
  return false;
}

bool fails_now() {
  if (left.load() < 0 || left.fetch_sub(1) > 0) return false;
  if (all_after) left = 0;
  return true;
}
bool fails(void* caller) {
  if (left.load() < 0 || !is_ours(caller) || !fails_now()) return false;
  errno = ENOMEM;
  return true;
}

void* take(size_t bytes, size_t alignment) {
  if (fails_now()) return nullptr;
  if (bytes == 0) bytes = 1;
  return alignment == 0 ? __libc_malloc(bytes) : __libc_memalign(alignment, bytes);
}
void* take_or_throw(size_t bytes, size_t alignment) {
  void* p = take(bytes, alignment);
  if (p == nullptr) throw std::bad_alloc();
  return p;
}

}  // namespace

extern "C" {
void fail_allocation(long number, int and_all_after) {
  if (module_count == 0) dl_iterate_phdr(add_module, nullptr);
  all_after = and_all_after != 0;
  left = number;
}
// Of those that were to come before the one that fails; negative: it has failed.
long allocations_left() { return left; }

void* malloc(size_t size) {
  return fails(__builtin_return_address(0)) ? nullptr : __libc_malloc(size);
}
void* calloc(size_t items, size_t size) {
  return fails(__builtin_return_address(0)) ? nullptr : __libc_calloc(items, size);
}
void* realloc(void* p, size_t size) {
  return fails(__builtin_return_address(0)) ? nullptr : __libc_realloc(p, size);
}
void* mmap(void* where, size_t bytes, int protection, int flags, int file, off_t at) noexcept {
  if (fails(__builtin_return_address(0))) return MAP_FAILED;
  return reinterpret_cast<void*>(syscall(SYS_mmap, where, bytes, protection, flags, file, at));
}
int mprotect(void* where, size_t bytes, int protection) noexcept {
  // What takes access away cannot be done without: only what gives it may fail.
  if (protection != PROT_NONE && fails(__builtin_return_address(0))) return -1;
  return static_cast<int>(syscall(SYS_mprotect, where, bytes, protection));
}
}

void* operator new(size_t bytes) { return take_or_throw(bytes, 0); }
void* operator new[](size_t bytes) { return take_or_throw(bytes, 0); }
void* operator new(size_t bytes, std::align_val_t a) {
  return take_or_throw(bytes, static_cast<size_t>(a));
}
void* operator new[](size_t bytes, std::align_val_t a) {
  return take_or_throw(bytes, static_cast<size_t>(a));
}
void* operator new(size_t bytes, const std::nothrow_t&) noexcept { return take(bytes, 0); }
void* operator new[](size_t bytes, const std::nothrow_t&) noexcept { return take(bytes, 0); }
void* operator new(size_t bytes, std::align_val_t a, const std::nothrow_t&) noexcept {
  return take(bytes, static_cast<size_t>(a));
}
void operator delete(void* p) noexcept { free(p); }
void operator delete[](void* p) noexcept { free(p); }
void operator delete(void* p, size_t) noexcept { free(p); }
void operator delete[](void* p, size_t) noexcept { free(p); }
void operator delete(void* p, std::align_val_t) noexcept { free(p); }
void operator delete[](void* p, std::align_val_t) noexcept { free(p); }
void operator delete(void* p, size_t, std::align_val_t) noexcept { free(p); }
void operator delete(void* p, const std::nothrow_t&) noexcept { free(p); }
