// SPDX-License-Identifier: MIT
// CUDA's short vectors and dim3 for a C++ compiler.
//
// A vector copies itself as ONE word of its size: were it copied member by member, the analysis of
// memory accesses would see four narrow accesses where the GPU has one wide one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace tilegrad::simulator {

template <size_t bytes>
struct CopyWord;
template <>
struct CopyWord<2> {
  typedef uint16_t type __attribute__((may_alias));
};
template <>
struct CopyWord<4> {
  typedef uint32_t type __attribute__((may_alias));
};
template <>
struct CopyWord<8> {
  typedef uint64_t type __attribute__((may_alias));
};
template <>
struct CopyWord<16> {
  typedef uint64_t type __attribute__((vector_size(16), may_alias));
};

template <class T>
struct alignas(2 * sizeof(T)) Vector2 {
  using Word = typename CopyWord<2 * sizeof(T)>::type;
  T x, y;

  Vector2() = default;
  Vector2(T x_, T y_) : x(x_), y(y_) {}
  Vector2(const Vector2& other) { copy(other); }
  Vector2& operator=(const Vector2& other) {
    copy(other);
    return *this;
  }

 private:
  void copy(const Vector2& other) {
    *reinterpret_cast<Word*>(this) = *reinterpret_cast<const Word*>(&other);
  }
};

template <class T>
struct alignas(4 * sizeof(T)) Vector4 {
  using Word = typename CopyWord<4 * sizeof(T)>::type;
  T x, y, z, w;

  Vector4() = default;
  Vector4(T x_, T y_, T z_, T w_) : x(x_), y(y_), z(z_), w(w_) {}
  Vector4(const Vector4& other) { copy(other); }
  Vector4& operator=(const Vector4& other) {
    copy(other);
    return *this;
  }

 private:
  void copy(const Vector4& other) {
    *reinterpret_cast<Word*>(this) = *reinterpret_cast<const Word*>(&other);
  }
};

}  // namespace tilegrad::simulator

using float2 = tilegrad::simulator::Vector2<float>;
using float4 = tilegrad::simulator::Vector4<float>;
using double2 = tilegrad::simulator::Vector2<double>;
using int2 = tilegrad::simulator::Vector2<int>;
using int4 = tilegrad::simulator::Vector4<int>;
using uint2 = tilegrad::simulator::Vector2<unsigned>;
using uint4 = tilegrad::simulator::Vector4<unsigned>;
using longlong2 = tilegrad::simulator::Vector2<long long>;
using ulonglong2 = tilegrad::simulator::Vector2<unsigned long long>;
using short2 = tilegrad::simulator::Vector2<short>;
using short4 = tilegrad::simulator::Vector4<short>;
using ushort2 = tilegrad::simulator::Vector2<unsigned short>;
using ushort4 = tilegrad::simulator::Vector4<unsigned short>;
using char4 = tilegrad::simulator::Vector4<signed char>;
using uchar4 = tilegrad::simulator::Vector4<unsigned char>;

struct float3 {
  float x, y, z;
};
struct int3 {
  int x, y, z;
};
struct uint3 {
  unsigned x, y, z;
};

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
  constexpr dim3(uint3 v) : x(v.x), y(v.y), z(v.z) {}
  constexpr operator uint3() const { return {x, y, z}; }
};

inline float2 make_float2(float x, float y) { return {x, y}; }
inline float3 make_float3(float x, float y, float z) { return {x, y, z}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline double2 make_double2(double x, double y) { return {x, y}; }
inline int2 make_int2(int x, int y) { return {x, y}; }
inline int3 make_int3(int x, int y, int z) { return {x, y, z}; }
inline int4 make_int4(int x, int y, int z, int w) { return {x, y, z, w}; }
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint3 make_uint3(unsigned x, unsigned y, unsigned z) { return {x, y, z}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
inline longlong2 make_longlong2(long long x, long long y) { return {x, y}; }
inline ulonglong2 make_ulonglong2(unsigned long long x, unsigned long long y) { return {x, y}; }
inline ushort2 make_ushort2(unsigned short x, unsigned short y) { return {x, y}; }
inline ushort4 make_ushort4(unsigned short x, unsigned short y, unsigned short z,
                            unsigned short w) {
  return {x, y, z, w};
}
