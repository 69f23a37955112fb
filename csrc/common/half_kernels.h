// The conversions of halves that one kind of processor has.
#pragma once

#include <cstddef>
#include <cstdint>

namespace ttsfast {

// `stream` writes past the caches, to addresses that are multiples of 64; otherwise none need be aligned.
struct HalfKernels {
  const char* name;
  void (*floats)(const std::uint16_t* from, float* to, std::size_t count, bool stream);
  void (*bfloats)(const std::uint16_t* from, std::uint16_t* to, std::size_t count, bool stream);
  void (*copy)(const unsigned char* from, unsigned char* to, std::size_t bytes, bool stream);
};

// Of x86-64. Null where this processor has no such instructions.
const HalfKernels* half_avx512();
const HalfKernels* half_f16c();

// Of any processor; compilers vectorise their loops.
void floats_plain(const std::uint16_t* from, float* to, std::size_t count, bool stream);
void bfloats_plain(const std::uint16_t* from, std::uint16_t* to, std::size_t count, bool stream);
void copy_plain(const unsigned char* from, unsigned char* to, std::size_t bytes, bool stream);

}  // namespace ttsfast
